"""Selective state space: a linear recurrence whose step and whose input and output matrices the token itself sets."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_attention.contract import MechanismError, MixerOutput, TokenMixer
from core_attention.kernels.selective_scan import selective_scan, selective_scan_step
from core_attention.registry import mechanism

#: Before softplus: a step of size zero, which leaves the memory as it is.
_NO_STEP = -1e4


class SelectiveState(NamedTuple):
    """What the tokens so far have left.

    Attributes:
        inputs: (B, E, width - 1), the last inputs of the convolution, oldest first.
        memory: (B, E, N), the state of the recurrence.
    """

    inputs: Tensor
    memory: Tensor


class _Direction(nn.Module):
    """Convolution and scan along one direction; the names of its tensors are those of the released code."""

    def __init__(self, inner: int, state: int, rank: int, width: int) -> None:
        super().__init__()
        self.width, self.rank, self.state = width, rank, state
        self.conv1d = nn.Conv1d(inner, inner, width, groups=inner)
        self.x_proj = nn.Linear(inner, rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, state + 1).float()).expand(inner, state).contiguous())
        self.D = nn.Parameter(torch.ones(inner))
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """Steps between 0.001 and 0.1 to begin with, evenly on a logarithmic scale (section 3.6 of the paper)."""
        nn.init.uniform_(self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5)
        low, high = math.log(1e-3), math.log(1e-1)
        step = torch.exp(torch.rand(self.dt_proj.out_features) * (high - low) + low).clamp_min(1e-4)
        self.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))

    def forward(
        self, xz: Tensor, lengths: Tensor | None, state: SelectiveState | None
    ) -> tuple[Tensor, SelectiveState]:
        """Scan xz (B, 2E, T), of which the first ``lengths`` tokens count; returns (B, E, T) and the state after."""
        u, z = xz.chunk(2, dim=1)
        rows, inner, length = u.shape
        before = u.new_zeros(rows, inner, self.width - 1) if state is None else state.inputs.to(u.dtype)
        seen = torch.cat([before, u], dim=-1)
        u = F.silu(F.conv1d(seen, self.conv1d.weight, self.conv1d.bias, groups=inner))
        seen = seen.to(u.dtype)
        dt, B, C = self.x_proj(u.transpose(1, 2)).split([self.rank, self.state, self.state], dim=-1)
        delta = F.linear(dt, self.dt_proj.weight).transpose(1, 2)
        if lengths is not None:
            padded = torch.arange(length, device=u.device) >= lengths.unsqueeze(1)
            delta = delta.masked_fill(padded.unsqueeze(1), _NO_STEP)
        A = -torch.exp(self.A_log.float() if self.A_log.dtype != torch.float64 else self.A_log)
        memory = None if state is None else state.memory
        if length == 1 and memory is not None:
            one = [t.squeeze(-1) for t in (u, delta, z.to(u.dtype))]
            y, memory = selective_scan_step(
                memory, one[0], one[1], A, B.squeeze(1), C.squeeze(1), self.D, one[2], self.dt_proj.bias, True
            )
            y = y.unsqueeze(-1)
        else:
            B, C = B.transpose(1, 2), C.transpose(1, 2)
            y, memory = selective_scan(u, delta, A, B, C, self.D, z.to(u.dtype), self.dt_proj.bias, True, memory, True)
        return y, SelectiveState(self._last_inputs(seen, lengths), memory)

    def _last_inputs(self, seen: Tensor, lengths: Tensor | None) -> Tensor:
        """The last width - 1 inputs that count, of (B, E, width - 1 + T)."""
        kept = self.width - 1
        if lengths is None:
            return seen[..., seen.shape[-1] - kept :]
        places = lengths.unsqueeze(1) + torch.arange(kept, device=seen.device)
        return seen.gather(2, places.unsqueeze(1).expand(-1, seen.shape[1], -1))


@mechanism(
    name="selective_ssm",
    paper="arXiv 2312.00752",
    year=2023,
    complexity="L",
    memory="L",
    causal=True,
    context=True,
    mask=True,
    streaming=True,
)
class SelectiveSSM(TokenMixer):
    """Each channel keeps a small linear memory; the token sets how fast it fades and what is written and read.

        u, z = W_in x        u = SiLU(conv(u))        dt, B, C = W_x u        step = softplus(W_dt dt + b)
        h_t = exp(step A) h_{t-1} + step B_t u_t        y_t = W_out ((C_t h_t + D u_t) SiLU(z_t))

    With ``causal`` it is the Mamba block, and a checkpoint of one fits by its names. Without, a second convolution and
    scan, with weights of their own (``*_b``), run over the valid tokens in reverse order, and the two answers are
    averaged before the common output projection (the form called v2 in Vision Mamba). ``context`` is a prefix: the
    forward scan begins with what the context has left, so that every token reads it through the state.

    Time O(T C N), memory O(T C) and a state every 64 tokens for the gradient; from a ``state`` a token costs O(C N).
    Padding may stand anywhere: it takes no step and enters no convolution.
    Source: Mamba (arXiv 2312.00752), section 3.4, algorithm 2, figure 3; averaging of directions: arXiv 2401.09417;
    the prefix as cross-connection: our reading of Samba-ASR (arXiv 2501.02832), which gives no equation.

    Args:
        dim: channels C.
        num_heads: ignored.
        causal: one direction alone; only then a ``state`` goes on.
        state: numbers N that each channel remembers.
        width: tokens under the convolution.
        expand: inner channels E, in multiples of C.
        rank: numbers that set the step; C / 16, rounded up, by default.

    Raises:
        MechanismError: a size below 1; a ``state`` without ``causal``; a ``state`` together with a ``context``.

    Example:
        >>> import torch
        >>> mixer = SelectiveSSM(8, causal=True)
        >>> x = torch.randn(2, 30, 8)
        >>> first = mixer(x[:, :10])
        >>> rest = mixer(x[:, 10:], state=first.state)
        >>> bool((torch.cat([first.y, rest.y], 1) - mixer(x).y).abs().max() < 1e-5)
        True
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        causal: bool = False,
        state: int = 16,
        width: int = 4,
        expand: int = 2,
        rank: int | None = None,
    ) -> None:
        super().__init__(dim, num_heads)
        rank = -(-dim // 16) if rank is None else rank
        for name, value in (("state", state), ("width", width), ("expand", expand), ("rank", rank)):
            if value < 1:
                raise MechanismError(f"selective_ssm: {name} is {value}, expected at least 1")
        self.causal = causal
        inner = expand * dim
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.ahead = _Direction(inner, state, rank, width)
        self.back = None if causal else _Direction(inner, state, rank, width)
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def mix(
        self,
        x: Tensor,
        *,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
        state: SelectiveState | None = None,
    ) -> MixerOutput:
        """Mix x (B, T, C) after a context (B, S, C), or after the tokens that left a state."""
        if state is not None and not self.causal:
            raise MechanismError("selective_ssm: a state goes on in one direction only; expected causal=True")
        if state is not None and context is not None:
            raise MechanismError("selective_ssm: the state holds the context already; give one of them")
        if context is not None:
            place = _Places.of(context_mask)
            state = self.ahead(self._project(place.gather(context)), place.lengths, None)[1]
        place = _Places.of(mask)
        xz = self._project(place.gather(x))
        y, after = self.ahead(xz, place.lengths, state)
        if self.back is not None:
            y = 0.5 * (y + _reversed(self.back(_reversed(xz, place.lengths), place.lengths, None)[0], place.lengths))
        return MixerOutput(place.scatter(self.out_proj(y.transpose(1, 2))), after)

    def _project(self, x: Tensor) -> Tensor:
        return self.in_proj(x).transpose(1, 2)


class _Places(NamedTuple):
    """Where the valid tokens stand: their numbers first, then those of the padding; both None without a mask."""

    order: Tensor | None
    lengths: Tensor | None
    mask: Tensor | None

    @classmethod
    def of(cls, mask: Tensor | None) -> _Places:
        if mask is None:
            return cls(None, None, None)
        return cls(torch.argsort((~mask).to(torch.uint8), dim=1, stable=True), mask.sum(1), mask)

    def gather(self, x: Tensor) -> Tensor:
        """x (B, T, C) with its valid tokens first and zeros behind them."""
        if self.order is None or self.mask is None:
            return x
        kept = torch.where(self.mask.unsqueeze(-1), x, 0.0)
        return kept.gather(1, self.order.unsqueeze(-1).expand_as(x))

    def scatter(self, y: Tensor) -> Tensor:
        """Tokens back to where they stood."""
        if self.order is None:
            return y
        return torch.zeros_like(y).scatter(1, self.order.unsqueeze(-1).expand_as(y), y)


def _reversed(x: Tensor, lengths: Tensor | None) -> Tensor:
    """(B, C, T) with its first ``lengths`` tokens in reverse order and the others where they are."""
    if lengths is None:
        return x.flip(-1)
    places = torch.arange(x.shape[-1], device=x.device).expand(x.shape[0], -1)
    back = lengths.unsqueeze(1) - 1 - places
    return x.gather(2, torch.where(back >= 0, back, places).unsqueeze(1).expand_as(x))
