"""The speed line of the linear scan: causal, against causal softmax attention of the same shape."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from core_attention.kernels._bench import Contest, Line, Sweep
from core_attention.kernels.linear_scan import linear_scan

__all__ = ["LINES", "SWEEPS"]

_H, _D, _C = 8, 64, 64


def _operands(T: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    q, k, v = (torch.randn(1, T, _H, _D, generator=generator) for _ in range(3))
    return F.elu(q) + 1, F.elu(k) + 1, v


def _counts(T: int) -> dict[str, float]:
    """What the task moves and computes at least: half the scores of a chunk, and two products with the state."""
    return {"bytes": 4.0 * 4 * T * _H * _D, "flops": 2.0 * T * _H * (_C * _D + 2 * _D * _D)}


def _against_softmax(T: int, generator: torch.Generator) -> Contest:
    """Another mechanism with the same purpose and shapes: only time can be compared, so any difference is tolerated."""
    q, k, v = _operands(T, generator)
    rows = [x.transpose(1, 2) for x in (q, k, v)]
    return Contest(
        peer=lambda: F.scaled_dot_product_attention(*rows, is_causal=True).transpose(1, 2),
        ours={"eager": lambda: linear_scan(q, k, v, normalise=True, backend="eager")},
        tolerance=float("inf"),
        **_counts(T),
    )


def _against_masked_scores(T: int, generator: torch.Generator) -> Contest:
    """The same sums in their quadratic form: masked scores, their row sums, their products with the values."""
    q, k, v = _operands(T, generator)

    def quadratic() -> torch.Tensor:
        scores = torch.einsum("bthd,bshd->bhts", q, k).tril_()
        return torch.einsum("bhts,bshd->bthd", scores / scores.sum(-1, keepdim=True), v)

    return Contest(
        peer=quadratic,
        ours={"eager": lambda: linear_scan(q, k, v, normalise=True, backend="eager")},
        **_counts(T),
    )


LINES = (
    Line(
        operation="linear_scan",
        name="forward, causal, normalised, B 1, H 8, D 64, T 16,384",
        peer="scaled_dot_product_attention(is_causal=True), which is softmax attention: time only",
        goals={"eager": 10.0},
        contest=lambda generator: _against_softmax(16_384, generator),
    ),
)
SWEEPS = (
    Sweep(
        operation="linear_scan",
        name="forward, causal, normalised, H 8, D 64",
        axis="tokens",
        peer="masked scores in plain torch",
        sizes=(256, 512, 1024, 2048),
        contest=_against_masked_scores,
    ),
)
