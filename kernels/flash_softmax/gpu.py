"""Launch the Triton kernels of ``_triton``, forward and backward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from core_attention.kernels._dispatch import interpreting
from core_attention.kernels._launch import launcher
from core_attention.kernels.flash_softmax._triton import delta_kernel, forward_kernel, keys_kernel, queries_kernel

__all__ = ["flash_softmax", "flash_softmax_backward"]


def flash_softmax(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    left: int,
    right: int,
    key_mask: Tensor | None,
    bias: Tensor | None,
    query_temperature: Tensor | None,
    sink: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Launch the forward kernel: (B, T, H, Dv), and (2, B, H, T) with each row's highest score and sum."""
    channels, (B, T, H, _) = v.shape[3], q.shape
    q, k, v = _padded(q), _padded(k), _padded(v)
    out = q.new_empty((B, T, H, v.shape[3]))
    rows = q.new_empty((2, B, H, T), dtype=torch.float32)
    call = _Call.of(q, k, key_mask, bias, query_temperature, left, right, scale)
    blocks = _blocks(q, v, "forward")
    launcher(forward_kernel)[(B * H * triton.cdiv(T, blocks.BM),)](
        q, k, v, *call.tensors, q if sink is None else sink.contiguous(), out, rows[0], rows[1],
        *call.numbers, **call.flags, HAS_SINK=sink is not None, **blocks.constants,
    )  # fmt: skip
    return out[..., :channels].contiguous(), rows


def flash_softmax_backward(
    grad: Tensor,
    out: Tensor,
    rows: Tensor,
    operands: Mapping[str, Tensor | None],
    names: Sequence[str],
    *,
    left: int,
    right: int,
    key_mask: Tensor | None,
    scale: float,
) -> dict[str, Tensor]:
    """Launch the backward kernels that the named gradients need; memory of the gradients, and (B, H, T) float32."""
    q, k, v = (_padded(_given(operands, name)) for name in ("q", "k", "v"))
    bias, temperature, sink = (operands[name] for name in ("bias", "query_temperature", "sink"))
    grad, out = _padded(grad), _padded(out)
    (B, T, H, _), (S, G) = q.shape, k.shape[1:3]
    call = _Call.of(q, k, key_mask, bias, temperature, left, right, scale)
    delta = torch.empty_like(rows[0])
    blocks = _blocks(q, v, "delta")
    launcher(delta_kernel)[(B * H * triton.cdiv(T, blocks.BM),)](
        grad, out, delta, T, H, BM=blocks.BM, BV=blocks.BV, num_warps=4
    )
    found: dict[str, Tensor] = {}
    if {"q", "query_temperature", "bias"} & set(names):
        d_q = torch.empty_like(q)
        d_warmth = d_q if temperature is None else torch.empty_like(temperature, dtype=torch.float32).contiguous()
        to_bias, d_bias = _bias_gradient(bias, (B, H, T, S)) if bias is not None and "bias" in names else (0, d_q)
        blocks = _blocks(q, v, "queries")
        launcher(queries_kernel)[(B * H * triton.cdiv(T, blocks.BM),)](
            grad, q, k, v, *call.tensors, rows[0], rows[1], delta, d_q, d_bias, d_warmth,
            *call.numbers, **call.flags, TO_BIAS=to_bias, **blocks.constants,
        )  # fmt: skip
        found |= {"q": d_q, "query_temperature": d_warmth, "bias": d_bias}
    if {"k", "v"} & set(names):
        d_k, d_v = torch.empty_like(k), torch.empty_like(v)
        blocks = _blocks(q, v, "keys")
        launcher(keys_kernel)[(B * G * triton.cdiv(S, blocks.BN),)](
            grad, q, k, v, *call.tensors, rows[0], rows[1], delta, d_k, d_v,
            *call.numbers, **call.flags, **blocks.constants,
        )  # fmt: skip
        found |= {"k": d_k, "v": d_v}
    if "sink" in names and sink is not None:
        share = torch.exp(sink.float().view(1, -1, 1) - rows[0]) / rows[1]
        found["sink"] = -(share * delta).sum((0, 2))
    widths = {name: _given(operands, name).shape[3] for name in ("q", "k", "v")}
    found |= {name: found[name][..., :width] for name, width in widths.items() if name in found}
    return {name: found[name].to(_given(operands, name).dtype) for name in names}


def _padded(tensor: Tensor) -> Tensor:
    """Contiguous, with zeros up to a power of two of channels, 16 at least: then no load needs a mask."""
    width = max(16, triton.next_power_of_2(tensor.shape[3]))
    return F.pad(tensor, (0, width - tensor.shape[3])).contiguous() if width != tensor.shape[3] else tensor.contiguous()


class _Call(NamedTuple):
    """What all kernels take alike."""

    tensors: tuple[Tensor, ...]  # key mask, bias, temperature; q stands for what is not given and never read
    numbers: tuple[Any, ...]
    flags: dict[str, bool]

    @classmethod
    def of(
        cls,
        q: Tensor,
        k: Tensor,
        key_mask: Tensor | None,
        bias: Tensor | None,
        temperature: Tensor | None,
        left: int,
        right: int,
        scale: float,
    ) -> _Call:
        """Collect the arguments; an open side of the window becomes one that reaches over everything."""
        (T, H), (S, G) = q.shape[1:3], k.shape[1:3]
        reach = [T + S if side < 0 else min(side, T + S) for side in (left, right)]
        given = bias.contiguous() if bias is not None else None
        return cls(
            (
                q if key_mask is None else key_mask.contiguous().view(torch.uint8),
                q if given is None else given,
                q if temperature is None else temperature.contiguous(),
            ),
            (scale, T, S, H, G, *reach, *_strides(given)),
            {"HAS_MASK": key_mask is not None, "HAS_BIAS": bias is not None, "HAS_WARMTH": temperature is not None},
        )


def _strides(bias: Tensor | None) -> tuple[int, ...]:
    """Of a contiguous bias, 0 where it is broadcast."""
    if bias is None:
        return (0, 0, 0, 0)
    return tuple(0 if size == 1 else step for size, step in zip(bias.shape, bias.stride(), strict=True))


def _bias_gradient(bias: Tensor, full: tuple[int, ...]) -> tuple[int, Tensor]:
    """How the kernel writes the gradient of the bias, and where to: keys that no query sees leave zeros."""
    if tuple(bias.shape) == full:
        return 1, torch.zeros_like(bias, memory_format=torch.contiguous_format)
    return 2, torch.zeros(bias.shape, dtype=torch.float32, device=bias.device)


class _Blocks(NamedTuple):
    """Tile sizes: queries, keys, channels of q and k, channels of v; and warps."""

    BM: int
    BN: int
    BD: int
    BV: int
    warps: int

    @property
    def constants(self) -> dict[str, int]:
        """As a launch takes them; loads are not pipelined, for the tiles of two steps exceed a chip's shared memory."""
        return {"BM": self.BM, "BN": self.BN, "BD": self.BD, "BV": self.BV, "num_warps": self.warps, "num_stages": 1}


# Rows that a program keeps, rows that it meets at a time, and warps: the largest found to compile without spills. By
# kernel and bytes of an operand, up to so many channels. AMD's chips have a table of their own: twice
# the lanes a warp, half the registers a lane from eight warps on, and scalar registers that overflow first.
_Sizes = dict[tuple[str, int], dict[int, tuple[int, int, int]]]
_SIZES: _Sizes = {
    ("forward", 2): {64: (64, 64, 4), 128: (64, 32, 8), 256: (32, 16, 4)},
    ("queries", 2): {64: (64, 32, 4), 128: (64, 32, 8), 256: (32, 16, 8)},
    ("keys", 2): {64: (32, 32, 4), 128: (32, 32, 8), 256: (32, 16, 8)},
    ("forward", 4): {64: (32, 32, 4), 128: (32, 16, 4), 256: (16, 16, 4)},
    ("queries", 4): {64: (32, 32, 4), 128: (32, 32, 8), 256: (16, 16, 8)},
    ("keys", 4): {64: (32, 32, 8), 128: (32, 16, 8), 256: (16, 16, 4)},
}
_AMD_SIZES: _Sizes = {
    ("forward", 2): {64: (64, 32, 4), 128: (32, 32, 4), 256: (32, 16, 4)},
    ("queries", 2): {64: (32, 32, 4), 128: (32, 32, 4), 256: (32, 16, 4)},
    ("keys", 2): {64: (32, 32, 4), 128: (32, 16, 4), 256: (16, 16, 4)},
    ("forward", 4): {64: (32, 16, 4), 128: (32, 16, 4), 256: (16, 16, 4)},
    ("queries", 4): {64: (32, 32, 4), 128: (32, 16, 4), 256: (16, 16, 4)},
    ("keys", 4): {64: (32, 16, 4), 128: (32, 16, 8), 256: (16, 16, 4)},
}


def _blocks(q: Tensor, v: Tensor, kernel: str) -> _Blocks:
    """Tile sizes of a kernel for padded q and v."""
    BD, BV = q.shape[3], v.shape[3]
    if kernel == "delta":
        return _Blocks(2048 // BV, 16, BD, BV, 4)
    table = _AMD_SIZES if _on_amd() else _SIZES
    own, met, warps = next(sizes for width, sizes in table[kernel, q.dtype.itemsize].items() if max(BD, BV) <= width)
    return _Blocks(met, own, BD, BV, warps) if kernel == "keys" else _Blocks(own, met, BD, BV, warps)


def _on_amd() -> bool:
    return not interpreting() and triton.runtime.driver.active.get_current_target().backend == "hip"


def _given(operands: Mapping[str, Tensor | None], name: str) -> Tensor:
    tensor = operands[name]
    if tensor is None:
        raise ValueError(f"{name}: found None, expected a tensor")
    return tensor
