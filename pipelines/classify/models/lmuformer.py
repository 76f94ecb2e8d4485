"""LMUFormer of arXiv 2402.04882: convolutions over frames, then blocks of one Legendre memory and a feed-forward net.

A whole series goes through at once (`LMUFormer.forward`), with an answer after each frame (`LMUFormer.anytime`), or
frame by frame with a memory of constant size (`LMUFormer.step`); all three agree. `from_official` reads the checkpoints
of the released code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from core_attention.mechanisms.legendre import LegendreState, legendre_system
from pipelines.classify.models.lmuformer_layers import LAYERS, Block, Tokenizer, hide
from pipelines.errors import ConfigError, InputError, WeightsError
from pipelines.official import agree, check_shapes

__all__ = ["LMUFormer", "StreamState", "from_official"]


class StreamState(NamedTuple):
    """What the frames so far have left; its size does not depend on their number.

    Attributes:
        inputs: (B, 2, channels), then `LAYERS` times (B, 2, dim): the last two inputs of each convolution.
        memories: the Legendre memory of each block, (B, order).
        total: (B, dim), sum of the features that are known.
        frames: frames that were fed.
    """

    inputs: tuple[Tensor, ...]
    memories: tuple[LegendreState, ...]
    total: Tensor
    frames: int


class LMUFormer(nn.Module):
    """Classify a series with linear time and, frame by frame, constant memory; x (B, T, channels) -> (B, classes).

    Four convolutions of three frames (each with ReLU, then batch normalisation) and a fifth that is added give the
    tokens. Each block adds a Legendre memory of the past, then a feed-forward net. The features of all frames are
    averaged and mapped to the classes, which is the mean of the logits of all frames.

    As released, the five convolutions look at both neighbours: a frame's features need the 5 frames after it.
    ``causal=True`` turns them to the past, and nothing ever depends on a later frame. Lengths are free: the released
    code's fixed 128 frames remain only in ``theta``.

    Args:
        channels: numbers a frame, such as mel bands.
        classes: number of classes.
        dim: width of a token.
        depth: blocks.
        hidden: width inside the feed-forward net; default 4 dim.
        theta: frames that the memory spans.
        order: Legendre coefficients of a memory; default dim.
        causal: the convolutions see the past alone.

    Raises:
        ConfigError: a size that is not a positive whole number, a theta below 1.

    Time O(T dim (3 LAYERS dim + depth (order + hidden)) + depth T log T order), memory O(T (dim + hidden + order)).
    Source: arXiv 2402.04882, section 4 and equations 4 to 9; with (128, 35) the paper's 1.62 million parameters.

    Example:
        >>> model = LMUFormer(128, 35)
        >>> sum(p.numel() for p in model.parameters())
        1621796
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        dim: int = 256,
        depth: int = 1,
        hidden: int | None = None,
        theta: float = 128.0,
        order: int | None = None,
        causal: bool = False,
    ) -> None:
        super().__init__()
        hidden, order = 4 * dim if hidden is None else hidden, dim if order is None else order
        _check_sizes(channels=channels, classes=classes, dim=dim, depth=depth, hidden=hidden, order=order)
        _check_theta(theta)
        self.channels, self.classes, self.dim, self.causal = channels, classes, dim, causal
        #: Frames after a frame that its features need.
        self.delay = 0 if causal else LAYERS + 1
        self.tokenizer = Tokenizer(channels, dim, causal)
        self.blocks = nn.ModuleList(Block(dim, hidden, float(theta), order) for _ in range(depth))
        self.head = nn.Linear(dim, classes)
        for linear in (self.head, *(part for b in self._blocks() for part in (b.mixer.write, b.mixer.read))):
            nn.init.trunc_normal_(linear.weight, std=0.02)  # as released; all else starts as torch does
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits (B, classes) of whole series.

        Args:
            x: (B, T, channels).
            mask: (B, T) bool, True = valid. Padding, whatever stands there, changes nothing: convolutions see zeros,
                memories get none of it, statistics and the mean leave it out. A series without a valid frame gets the
                head's bias.

        Raises:
            InputError: shapes or a mask that do not fit.
        """
        features = self._features(x, mask)
        if mask is None:
            return self.head(features.mean(1))
        count = mask.sum(1, keepdim=True).clamp(min=1)
        return self.head(hide(features, mask).sum(1) / count)

    def anytime(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits (B, T, classes) after each frame, from the mean of the features up to it; the last are `forward`'s.

        Without ``causal=True`` the answer after a frame has seen the 5 frames after it. Arguments and errors as
        `forward`.

        Example:
            >>> model, x = LMUFormer(3, 2, dim=8).eval(), torch.randn(1, 9, 3)
            >>> torch.allclose(model.anytime(x)[:, -1], model(x), atol=1e-5)
            True
        """
        features = self._features(x, mask)
        valid = torch.ones_like(features[..., :1], dtype=torch.bool) if mask is None else mask.unsqueeze(-1)
        total = torch.where(valid, features, 0.0).cumsum(1)
        return self.head(total / valid.cumsum(1).clamp(min=1))

    def step(self, x_t: Tensor, state: StreamState | None = None) -> tuple[Tensor, StreamState]:
        """Take one frame, give the logits of `anytime` for the newest frame whose features are known.

        With ``causal=True`` that is the frame itself. Else it is the frame 5 steps ago: the first 5 answers are NaN,
        and `finish` gives the last one. O(1) time and memory a frame, however many there have been.

        Args:
            x_t: (B, channels).
            state: what the step before returned; None at the start.

        Returns:
            Logits (B, classes) and the state for the next step.

        Raises:
            ConfigError: in training mode, where batch normalisation needs many frames.
            InputError: a frame of another shape.

        Example:
            >>> model, x, state = LMUFormer(3, 2, dim=8, causal=True).eval(), torch.randn(1, 9, 3), None
            >>> for x_t in x.unbind(1):
            ...     logits, state = model.step(x_t, state)
            >>> torch.allclose(logits, model(x), atol=1e-5)
            True
        """
        if self.training:
            cure = "call model.eval() first"
            raise ConfigError("frame by frame only in evaluation mode", where="step", found="training mode", cure=cure)
        if x_t.dim() != 2 or x_t.shape[1] != self.channels:
            expected = f"(batch, {self.channels})"
            raise InputError("not one frame of this model", where="x_t", found=tuple(x_t.shape), expected=expected)
        state = self._start(x_t) if state is None else state
        if state.total.shape[0] != x_t.shape[0]:
            cure = "begin a new stream with state=None"
            expected = f"{state.total.shape[0]} series as in the state"
            raise InputError("another batch", where="x_t", found=x_t.shape[0], expected=expected, cure=cure)
        return self._advance(x_t, state, 0)

    def finish(self, state: StreamState) -> Tensor:
        """Logits (B, classes) if the series ended here, as `forward` on all its frames; the state stays as it was.

        Example:
            >>> model, x, state = LMUFormer(3, 2, dim=8).eval(), torch.randn(1, 9, 3), None
            >>> for x_t in x.unbind(1):
            ...     _, state = model.step(x_t, state)
            >>> torch.allclose(model.finish(state), model(x), atol=1e-5)
            True
        """
        nothing = torch.zeros_like(state.inputs[0][:, 0])
        for beyond in range(1, self.delay + 1):
            _, state = self._advance(nothing, state, beyond)
        return self.head(state.total / (state.frames - self.delay))

    def _blocks(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]

    def _features(self, x: Tensor, mask: Tensor | None) -> Tensor:
        self._check(x, mask)
        x = self.tokenizer(x, mask)
        for block in self._blocks():
            x = block(x, mask)
        return x

    def _check(self, x: Tensor, mask: Tensor | None) -> None:
        # An exporter's symbolic sizes are not asked whether they are 0.
        empty = any(isinstance(size, int) and size == 0 for size in x.shape)
        if x.dim() != 3 or x.shape[-1] != self.channels or empty:
            expected = f"(batch, frames, {self.channels}), no axis empty"
            raise InputError("not a batch of series of this model", where="x", found=tuple(x.shape), expected=expected)
        if mask is not None and (mask.dtype != torch.bool or mask.shape != x.shape[:2]):
            expected = f"torch.bool {tuple(x.shape[:2])}, True = valid"
            found = f"{mask.dtype} {tuple(mask.shape)}"
            raise InputError("the mask does not fit the series", where="mask", found=found, expected=expected)

    def _start(self, x_t: Tensor) -> StreamState:
        batch = x_t.shape[0]
        inputs = tuple(x_t.new_zeros(batch, 2, width) for width in (self.channels, *[self.dim] * LAYERS))
        memories = tuple(LegendreState(x_t.new_zeros(batch, block.mixer.order)) for block in self._blocks())
        return StreamState(inputs, memories, x_t.new_zeros(batch, self.dim), 0)

    def _advance(self, x: Tensor, state: StreamState, beyond: int) -> tuple[Tensor, StreamState]:
        """One step with a frame, or, after the last one, the ``beyond``-th with nothing."""
        # Looking ahead, layer k = 1, 2, ... gives frame `frames - k` in this step. Where there is no such frame, before
        # the first or after the last, the next layer must find the zeros that the whole series is padded with.
        live = [self.causal or beyond <= k <= state.frames for k in range(1, LAYERS + 1)]
        x, inputs = self.tokenizer.step(x, state.inputs, live)
        count = state.frames + 1 - self.delay
        if count < 1:
            unknown = x.new_full((x.shape[0], self.classes), float("nan"))
            return unknown, state._replace(inputs=inputs, frames=state.frames + 1)
        memories: list[LegendreState] = []
        for block, memory in zip(self._blocks(), state.memories, strict=True):
            x, memory = block.step(x, memory)
            memories.append(memory)
        total = state.total + x
        return self.head(total / count), StreamState(inputs, tuple(memories), total, state.frames + 1)


def _check_sizes(**sizes: object) -> None:
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError("not a size", where=name, found=value, expected="a positive whole number")


def _check_theta(theta: float) -> None:
    if not 1 <= theta < float("inf"):
        raise ConfigError("not a span of frames", where="theta", found=theta, expected="at least 1 frame")


def from_official(
    state_dict: Mapping[str, Tensor],
    *,
    seq_len: int | None = None,
    theta: float | None = None,
    num_classes: int | None = None,
    embed_dims: int | None = None,
    in_channels: int | None = None,
    depths: int | None = None,
    mlp_ratios: float | None = None,
) -> LMUFormer:
    """The LMUFormer of a released state dict without spikes, in eval mode; x (B, T, channels) -> (B, classes).

    Sizes are read off the tensors, and what is given is held against them. The stored system A, B and its response H
    may be there or not: ours are computed, for any length. Where A is there, theta is read off it and what is given is
    held against it, else theta is what is given, else ``seq_len``, else the released 128.

    Args:
        state_dict: tensors by the released names.
        seq_len: frames of the stored response H. theta: frames that the memory spans.
        num_classes, embed_dims, in_channels, depths, mlp_ratios: the released constructor's names for classes, dim,
            channels, depth and hidden / dim. Its other arguments change nothing in this model.

    Raises:
        WeightsError: tensors missing, unexpected or of other shapes, an argument or a stored system that contradicts.
        ConfigError: a theta below 1.

    Complexity: O(bytes), and O(order^3) for the system.

    Example:
        >>> from_official({"head.weight": torch.zeros(35, 256)})
        Traceback (most recent call last):
        pipelines.errors.WeightsError: not a state dict of lmuformer. Found: head.weight. Expected: ...
    """
    sizes = _official_sizes(state_dict)
    agree("num_classes", num_classes, sizes["classes"])
    agree("embed_dims", embed_dims, sizes["dim"])
    agree("in_channels", in_channels, sizes["channels"])
    agree("depths", depths, sizes["depth"])
    agree("mlp_ratios", mlp_ratios, sizes["hidden"] / sizes["dim"])
    stored = {key: value for key, value in state_dict.items() if re.fullmatch(_STORED, key)}
    for key, value in stored.items():
        if key.endswith(".H") and value.ndim == 2:
            agree("seq_len", seq_len, value.shape[1])
    theta = _official_theta(stored, sizes["order"], theta, 128.0 if seq_len is None else float(seq_len))
    model = LMUFormer(**sizes, theta=theta, causal=False)
    model.load_state_dict(check_shapes(model, _renamed(state_dict), name="lmuformer"))
    return model.eval()


#: Fixed tensors that the released code stores beside the weights.
_STORED = r"block[.]\d+[.]attn[.]lmu[.](A|B|H|fft_H)"
#: Parts of the released names -> ours; applied in this order.
_NAMES = (
    (r"patch_embed[.]conv_layers[.](\d+)[.]0[.]", r"tokenizer.convs.\1."),
    (r"patch_embed[.]conv_layers[.](\d+)[.]3[.]", r"tokenizer.norms.\1."),
    (r"patch_embed[.]rpe_conv[.]", "tokenizer.position."),
    (r"block[.](\d+)[.]attn[.]lmu[.]W_u[.]", r"blocks.\1.mixer.write."),
    (r"block[.](\d+)[.]attn[.]lmu[.]W_h[.]", r"blocks.\1.mixer.read."),
    (r"block[.](\d+)[.]attn[.]proj_conv[.]", r"blocks.\1.mixer.out."),
    (r"block[.](\d+)[.]attn[.]proj_bn[.]", r"blocks.\1.mixer.norm."),
    (r"block[.](\d+)[.]mlp[.]fc([12])_conv[.]", r"blocks.\1.ffn.fc\2."),
    (r"block[.](\d+)[.]mlp[.]fc([12])_bn[.]", r"blocks.\1.ffn.norm\2."),
)


def _renamed(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Released tensors by our names; a convolution of one frame (out, in, 1) is a linear map (out, in)."""
    renamed: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        if re.fullmatch(_STORED, key):
            continue
        if re.fullmatch(r".*(proj|fc[12])_conv[.]weight", key) and value.shape[2:] == (1,):
            value = value.squeeze(2)
        for released, ours in _NAMES:
            key = re.sub(f"^{released}", ours, key)
        renamed[key] = value
    return renamed


def _official_sizes(state_dict: Mapping[str, Tensor]) -> dict[str, int]:
    shapes = {key: tuple(value.shape) for key, value in state_dict.items()}
    depth = len({key for key in shapes if re.fullmatch(r"block[.]\d+[.]attn[.]lmu[.]W_h[.]weight", key)})
    try:
        dim, channels, _ = shapes["patch_embed.conv_layers.0.0.weight"]
        _, columns = shapes["block.0.attn.lmu.W_h.weight"]
        hidden, classes = shapes["block.0.mlp.fc1_conv.weight"][0], shapes["head.weight"][0]
        if columns <= dim or not dim:
            raise ValueError("no room for a memory")
    except (KeyError, ValueError, IndexError):
        raise WeightsError(
            "not a state dict of lmuformer",
            found=", ".join(list(shapes)[:4]) or "no tensor",
            expected="patch_embed.conv_layers.0.0.weight, block.0.attn.lmu.W_h.weight, block.0.mlp.fc1_conv.weight",
            cure="only the model without spikes (lmu_rnn_conv1d) can be read",
        ) from None
    order = columns - dim
    return {"channels": channels, "classes": classes, "dim": dim, "depth": depth, "hidden": hidden, "order": order}


def _official_theta(stored: Mapping[str, Tensor], order: int, given: float | None, default: float) -> float:
    """What is given, else what the first stored A says, else the default; all stored A and B must be of it."""
    systems = {key: value.double().numpy() for key, value in stored.items() if key.endswith((".A", ".B"))}
    first = next((value for key, value in systems.items() if key.endswith(".A")), None)
    corner = None if first is None or first.ndim != 2 or not first.size else float(first[0, 0])
    fits = None if corner is None else _theta_of(corner, order)
    theta = float(given if given is not None else default if fits is None else fits)
    _check_theta(theta)
    A, B = legendre_system(order, theta)
    for key, value in systems.items():
        expected = A if key.endswith(".A") else B[:, None]
        if value.shape == expected.shape and np.allclose(value, expected, rtol=0, atol=1e-4):
            continue
        if fits is None or fits == theta:
            problem = f"the stored tensor is not of a Legendre memory of order {order} and theta {theta:g}"
            raise WeightsError(problem, where=key, cure="leave A, B, H and fft_H out: they are computed")
        problem, cure = "the checkpoint was made with another theta", f"pass theta={fits:g}, or none: it is read off A"
        raise WeightsError(problem, where=key, found=f"theta={theta:g}", expected=f"theta={fits:g}", cure=cure)
    return theta


def _theta_of(corner: float, order: int) -> float:
    """The theta, at least 1, for which A[0, 0] is ``corner``; whole where float32 cannot tell the difference."""
    if not 0 < corner < 1:
        return 1.0
    theta = 1.0 / (1.0 - corner)  # nearly: A[0, 0] is 1 - 1 / theta, and a little more
    for _ in range(8):
        theta = max(1.0, theta * (1.0 - float(legendre_system(order, theta)[0][0, 0])) / (1.0 - corner))
    return float(round(theta)) if abs(theta - round(theta)) < 1e-3 * theta else theta
