"""The layers of speech encoders: a mixer alone (Samba), or between feed-forward nets and a convolution (Conformer)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_attention import MechanismError, TokenMixer, build, spec
from core_attention.layers import FeedForward
from pipelines.errors import ConfigError

__all__ = ["ConformerLayer", "SambaLayer", "build_mixer"]


def build_mixer(name: str, dim: int, heads: int, *, causal: bool, options: dict[str, Any] | None = None) -> TokenMixer:
    """A mechanism for frames of speech: any for sequences of any length.

    One that can only look back does so in an encoder of whole recordings too.

    Raises:
        ConfigError: a mechanism that needs one length, extras, or another grid, or cannot be causal where it must.

    Example:
        >>> build_mixer("softmax", 16, 4, causal=False).spec.name
        'softmax'
    """
    found = spec(name)
    problems = {
        "takes sequences": 1 not in found.grid or found.kind != "mixer",
        "takes any length": found.fixed_length,
        "knows padding": not found.mask,
        "needs nothing beside the frames": bool(found.extras),
        "can be causal and go on from a state": causal and not (found.causal and found.streaming),
    }
    missing = [what for what, lacks in problems.items() if lacks]
    if missing:
        raise ConfigError(
            "this mechanism does not fit", where="attention", found=name, expected=f"one that {missing[0]}"
        )
    flags = {"causal": causal} if found.causal else {}
    try:
        return build(name, dim, heads, **flags, **(options or {}))
    except MechanismError:
        if causal or not found.causal:
            raise
        return build(name, dim, heads, causal=True, **(options or {}))


class SambaLayer(nn.Module):
    """x + mixer(LayerNorm(x)): the encoder layer of our reading of Samba-ASR, with no feed-forward net.

    Example:
        >>> layer = SambaLayer(8, build_mixer("selective_ssm", 8, 1, causal=False))
        >>> layer(torch.zeros(1, 5, 8), None, None)[0].shape
        torch.Size([1, 5, 8])
    """

    def __init__(self, dim: int, mixer: TokenMixer, *, dropout: float = 0.0, **_: object) -> None:
        super().__init__()
        self.norm, self.mixer, self.dropout = nn.LayerNorm(dim), mixer, nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        """Frames x (B, T, dim), valid where mask (B, T), after what left ``state``."""
        y, after = _mixed(self.mixer, self.norm(x), mask, state)
        return x + self.dropout(y), after


class _State(NamedTuple):
    mixer: Any
    frames: Tensor


class ConformerLayer(nn.Module):
    """Half a feed-forward net, a mixer, a convolution, half a feed-forward net, each added to its input; LayerNorm.

    The convolution is: LayerNorm, linear with a gate (GLU), depthwise over ``width`` frames, LayerNorm, SiLU, linear.
    LayerNorm stands where the paper has batch normalisation, so that an answer does not depend on the batch.
    Source: Conformer (arXiv 2005.08100), section 2; the mixer there is relative self-attention.

    Args:
        dim: channels.
        mixer: any sequence mechanism of as many channels.
        dropout: of each branch while training.
        ratio: inner channels of the feed-forward nets, in multiples of dim.
        width: frames under the convolution; odd where it is not causal.
        causal: the convolution sees earlier frames only.

    Example:
        >>> layer = ConformerLayer(8, build_mixer("softmax", 8, 2, causal=False), width=3)
        >>> layer(torch.zeros(1, 5, 8), None, None)[0].shape
        torch.Size([1, 5, 8])
    """

    def __init__(
        self,
        dim: int,
        mixer: TokenMixer,
        *,
        dropout: float = 0.0,
        ratio: int = 4,
        width: int = 15,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.width, self.causal = width, causal
        self.before = nn.Sequential(nn.LayerNorm(dim), FeedForward(dim, ratio * dim, activation="silu"))
        self.norm, self.mixer = nn.LayerNorm(dim), mixer
        self.gate_norm, self.gate = nn.LayerNorm(dim), nn.Linear(dim, 2 * dim)
        self.depthwise = nn.Conv1d(dim, dim, width, groups=dim)
        self.depth_norm, self.point = nn.LayerNorm(dim), nn.Linear(dim, dim)
        self.after = nn.Sequential(nn.LayerNorm(dim), FeedForward(dim, ratio * dim, activation="silu"))
        self.last_norm, self.dropout = nn.LayerNorm(dim), nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None, state: _State | None) -> tuple[Tensor, _State]:
        """Frames x (B, T, dim), valid where mask (B, T), after what left ``state``."""
        x = x + 0.5 * self.dropout(self.before(x))
        y, mixed = _mixed(self.mixer, self.norm(x), mask, None if state is None else state.mixer)
        x = x + self.dropout(y)
        y, frames = self._convolve(self.gate_norm(x), mask, None if state is None else state.frames)
        x = x + self.dropout(y)
        return self.last_norm(x + 0.5 * self.dropout(self.after(x))), _State(mixed, frames)

    def _convolve(self, x: Tensor, mask: Tensor | None, before: Tensor | None) -> tuple[Tensor, Tensor]:
        x = F.glu(self.gate(x), dim=-1)
        if mask is not None:
            x = torch.where(mask.unsqueeze(-1), x, 0.0)
        x = x.transpose(1, 2)
        if self.causal:
            x = torch.cat([x.new_zeros(*x.shape[:2], self.width - 1) if before is None else before, x], dim=2)
            frames = x[..., x.shape[-1] - self.width + 1 :]
        else:
            frames, x = x[..., :0], F.pad(x, (self.width // 2, self.width // 2))
        y = self.depthwise(x).transpose(1, 2)
        return self.point(F.silu(self.depth_norm(y))), frames


def _mixed(mixer: TokenMixer, x: Tensor, mask: Tensor | None, state: Any) -> tuple[Tensor, Any]:
    given = {} if state is None else {"state": state}
    out = mixer(x, mask=mask, **given)
    return out.y, out.state
