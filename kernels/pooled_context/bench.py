"""Lines of core-context attention against full causal attention, and of segment maxima against a loop."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from core_attention.kernels._bench import Contest, Line, Sweep
from core_attention.kernels.pooled_context import pooled_context, segment_max
from core_attention.kernels.pooled_context.cases import attention_operands
from core_attention.kernels.pooled_context.eager import portable_pooled_context

__all__ = ["LINES", "SWEEPS"]

_PEER = "the mask and one explicit softmax in plain torch"


def _context(T: int, generator: torch.Generator) -> Contest:
    operands = attention_operands((1, T, 4, 4, 64, 64), torch.float32, generator)
    options = {"group": 16, "window": 256}

    def ours() -> Tensor:
        return pooled_context(*operands, **options, backend="eager")

    def theirs() -> Tensor:
        return portable_pooled_context(*operands, **options)

    seen = sum(max(0, (t + 1 - 256) // 16) + t + 1 - max(0, (t + 1 - 256) // 16) * 16 for t in range(T))
    return Contest(theirs, {"eager": ours}, 4.0 * 4 * T * 4 * 64, flops=4.0 * 64 * 4 * seen)


def _segments(generator: torch.Generator) -> Contest:
    x = torch.randn(4, 2048, 256, generator=generator)
    segments = (torch.arange(2048) // 32).expand(4, -1)

    def theirs() -> Tensor:
        pooled = F.max_pool1d(x.transpose(1, 2), 32)  # segments of equal length, as a convolution library pools them
        return pooled.repeat_interleave(32, dim=2).transpose(1, 2)

    return Contest(theirs, {"eager": lambda: segment_max(x, segments, backend="eager")}, 8.0 * x.numel())


LINES = (
    Line(
        "pooled_context",
        "forward, 4 heads, D 64, T 4096, groups of 16, window 256",
        _PEER,
        {},
        lambda generator: _context(4096, generator),
    ),
    Line("segment_max", "forward, B 4, T 2048, C 256, segments of 32", "max_pool1d over equal segments", {}, _segments),
)
SWEEPS = (Sweep("pooled_context", "forward, 4 heads, D 64", "tokens", _PEER, (512, 1024, 2048, 4096), _context),)
