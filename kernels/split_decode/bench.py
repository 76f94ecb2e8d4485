"""What decoding attention promises about its speed, and the peer it is measured against."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from core_attention.kernels._bench import Contest, Line, Sweep
from core_attention.kernels.split_decode import split_decode

__all__ = ["LINES", "SWEEPS"]

_HEADS, _WIDTH, _KEYS = 8, 64, 65_536
_PEER = "torch's scaled_dot_product_attention on (B, H, S, D), copied there before"
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


def _contest(keys: int, dtype: torch.dtype, generator: torch.Generator) -> Contest:
    """One query a head over a cache of ``keys``; the peer's layout is made outside of what is timed."""
    q, k, v = (torch.randn(1, rows, _HEADS, _WIDTH, generator=generator).to(dtype) for rows in (1, keys, keys))
    query, key, value = (tensor.transpose(1, 2).contiguous() for tensor in (q, k, v))

    def peer() -> Tensor:
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2)

    def ours(backend: str) -> Callable[[], Tensor]:
        return lambda: split_decode(q, k, v, backend=backend)

    return Contest(
        peer=peer,
        ours={backend: ours(backend) for backend in ("eager", "cpu")},
        bytes=(2 * k.numel() + 2 * q.numel()) * k.element_size(),
        flops=4.0 * keys * _HEADS * _WIDTH,
        tolerance=_TOLERANCE[dtype],
    )


def _line(dtype: torch.dtype, goal: float) -> Line:
    return Line(
        operation="split_decode",
        name=f"forward, 1 query, {_HEADS} heads, D {_WIDTH}, {_KEYS} keys, {str(dtype).removeprefix('torch.')}",
        peer=_PEER,
        goals={"cpu": goal},
        contest=lambda generator: _contest(_KEYS, dtype, generator),
    )


LINES = (_line(torch.bfloat16, 5.0), _line(torch.float32, 1.5))

SWEEPS = (
    Sweep(
        operation="split_decode",
        name=f"forward, 1 query, {_HEADS} heads, D {_WIDTH}, bfloat16",
        axis="keys",
        peer=_PEER,
        sizes=(4_096, 8_192, 16_384, 32_768, 65_536),
        contest=lambda keys, generator: _contest(keys, torch.bfloat16, generator),
    ),
)
