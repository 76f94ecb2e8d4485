"""Arguments that the delay operations are tested, inspected and measured with."""

from __future__ import annotations

import torch
from torch import Tensor

from core_attention.kernels._testing import Bad, Case, non_contiguous

__all__ = ["BAD", "CASES", "INSPECTED", "arguments_of"]


def _randn(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def arguments_of(
    operation: str, shape: tuple[int, int, int, int], lags: Tensor, dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """Random operands of an operation for (B, T, H, D) and given lags (B, K); weights are a softmax."""
    first = _randn(shape, dtype, generator)
    if operation == "delay_correlation":
        return first, _randn(shape, dtype, generator), lags
    logits = torch.randn(lags.shape, generator=generator, dtype=torch.float64)
    return first, lags, torch.softmax(logits, dim=-1).to(dtype)


def _random(operation: str, name: str, shape: tuple[int, int, int, int], K: int, span: int = 1) -> Case:
    """A case with random lags in [-span T, span T]."""

    def build(dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor, ...]:
        B, T = shape[:2]
        lags = torch.randint(-span * T, span * T + 1, (B, K), generator=generator)
        return arguments_of(operation, shape, lags, dtype, generator)

    return Case(name, build)


def _fixed(operation: str, name: str, shape: tuple[int, int, int, int], lags: list[list[int]]) -> Case:
    def build(dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor, ...]:
        return arguments_of(operation, shape, torch.tensor(lags), dtype, generator)

    return Case(name, build)


def _strided(operation: str, name: str, shape: tuple[int, int, int, int], K: int) -> Case:
    """A case whose floating operands are not contiguous and whose lags are a broadcast row."""

    def build(dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor, ...]:
        B, T = shape[:2]
        lags = torch.randint(0, T, (1, K), generator=generator).expand(B, K)
        made = arguments_of(operation, shape, lags, dtype, generator)
        return tuple(non_contiguous(tensor) if tensor.is_floating_point() else tensor for tensor in made)

    return Case(name, build)


def _cases(operation: str) -> tuple[Case, ...]:
    return (
        _random(operation, "usual", (2, 24, 4, 8), 5),
        _random(operation, "one step", (3, 1, 2, 4), 3, span=4),
        _random(operation, "one sample, one lag", (1, 17, 1, 1), 1),
        _random(operation, "odd sizes", (3, 13, 3, 5), 7),
        _random(operation, "lags beyond the length", (2, 9, 2, 6), 4, span=5),
        _fixed(operation, "edges and repeats", (2, 8, 2, 3), [[0, 7, -1, 8, 8], [-8, 1, 1, -7, 16]]),
        _random(operation, "wider than a tile", (1, 130, 3, 100), 3),
        _strided(operation, "not contiguous", (2, 11, 2, 6), 3),
    )


CASES = {operation: _cases(operation) for operation in ("delay_aggregate", "delay_correlation")}

INSPECTED = {
    operation: (
        _random(operation, "B32 T96 C512", (32, 96, 8, 64), 13),
        _random(operation, "B2 T51 C105", (2, 51, 7, 15), 3),
    )
    for operation in ("delay_aggregate", "delay_correlation")
}

_SEQUENCES = (
    Bad(
        "a key shorter than the query", {"k": lambda k: k[:, :5]}, r"k: found shape \(2, 5, 4, 8\), expected that of q"
    ),
    Bad("dtypes mixed", {"k": lambda k: k.double()}, "k: found torch.float64, expected torch.float32"),
    Bad("lags not whole", {"lags": lambda lags: lags.float()}, "lags: found torch.float32, expected int64"),
    Bad("devices mixed", {"q": lambda q: q.to("meta")}, "lags: found on cpu, expected on meta"),
)
_VALUES = (
    Bad("three dimensions", {"values": lambda v: v[0]}, r"values: found shape \(24, 4, 8\), expected 4 dimensions"),
    Bad("whole values", {"values": lambda v: v.long()}, "values: found torch.int64, expected a floating-point"),
    Bad("no steps", {"values": lambda v: v[:, :0]}, "no empty dimension"),
    Bad("lags not whole", {"lags": lambda lags: lags.float()}, "lags: found torch.float32, expected int64"),
    Bad("lags without a batch", {"lags": lambda lags: lags[0]}, r"lags: found .* expected \(B, K\) with B = 2"),
    Bad("lags of one sample", {"lags": lambda lags: lags[:1]}, "expand"),
    Bad("no lags", {"lags": lambda x: x[:, :0], "weights": lambda x: x[:, :0]}, "at least one lag"),
    Bad("a weight too few", {"weights": lambda w: w[:, :1]}, "weights: found shape"),
    Bad("dtypes mixed", {"weights": lambda w: w.double()}, "weights: found torch.float64, expected torch.float32"),
    Bad("lags elsewhere", {"lags": lambda lags: lags.to("meta")}, "lags: found on meta, expected on cpu"),
    Bad("weights elsewhere", {"weights": lambda w: w.to("meta")}, "weights: found on meta, expected on cpu"),
)
BAD = {"delay_aggregate": _VALUES, "delay_correlation": _SEQUENCES}
