"""How fast delay aggregation is, against the algorithm that Autoformer's authors released.

That algorithm keeps the sequence last, (B, H, D, L), and is given it so, outside the timing. In evaluation it gathers
from the doubled sequence once a lag; in training the lags are shared by the batch, and it rolls the batch once a lag.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from core_attention.kernels._bench import Contest, Line, Sweep
from core_attention.kernels.delay_aggregate import delay_aggregate

__all__ = ["LINES", "SWEEPS", "released_evaluation", "released_training", "step"]

BATCH, HEADS, WIDTH = 8, 8, 64
_FLOAT = 4


def released_training(values: Tensor, lags: Tensor, weights: Tensor) -> Tensor:
    """Lags shared by the batch; values (B, H, D, T)."""
    total = torch.zeros_like(values)
    for i in range(lags.shape[1]):
        total = total + torch.roll(values, -int(lags[0, i]), -1) * weights[:, i, None, None, None]
    return total


def released_evaluation(values: Tensor, lags: Tensor, weights: Tensor) -> Tensor:
    """Lags of each sample; values (B, H, D, T), doubled in time and gathered once a lag."""
    B, H, D, T = values.shape
    steps = torch.arange(T).view(1, 1, 1, T).repeat(B, H, D, 1)
    doubled = values.repeat(1, 1, 1, 2)
    total = torch.zeros_like(values)
    for i in range(lags.shape[1]):
        index = steps + lags[:, i].view(B, 1, 1, 1).repeat(1, H, D, T)
        total = total + torch.gather(doubled, -1, index) * weights[:, i, None, None, None]
    return total


def step(function: Callable[..., Tensor], *tensors: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    """Forward, then backward into every floating argument: the output and the gradients."""
    leaves = [tensor.detach().requires_grad_(tensor.is_floating_point()) for tensor in tensors]
    wanted = [leaf for leaf in leaves if leaf.requires_grad]

    def run() -> tuple[Tensor, ...]:
        output = function(*leaves)
        return output, *torch.autograd.grad(output, wanted, torch.ones_like(output))

    return run


def _operands(T: int, K: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    values = torch.randn(BATCH, T, HEADS, WIDTH, generator=generator)
    lags = torch.stack([torch.randperm(T, generator=generator)[:K] for _ in range(BATCH)])
    return values, lags, torch.softmax(torch.randn(BATCH, K, generator=generator), dim=-1)


def _evaluation(T: int, generator: torch.Generator, *, K: int) -> Contest:
    values, lags, weights = _operands(T, K, generator)
    turned = _time_last(values)
    return Contest(
        peer=lambda: _time_second(released_evaluation(turned, lags, weights)),
        ours={"eager": lambda: delay_aggregate(values, lags, weights, backend="eager")},
        bytes=2 * values.numel() * _FLOAT,
        flops=2 * values.numel() * K,
    )


def _training(T: int, generator: torch.Generator, *, K: int) -> Contest:
    values, lags, weights = _operands(T, K, generator)
    shared = lags[:1].expand(BATCH, -1).contiguous()
    released = step(released_training, _time_last(values), shared, weights)

    def peer() -> tuple[Tensor, ...]:
        output, d_values, d_weights = released()
        return _time_second(output), _time_second(d_values), d_weights

    return Contest(
        peer=peer,
        ours={"eager": step(partial(delay_aggregate, backend="eager"), values, shared, weights)},
        bytes=5 * values.numel() * _FLOAT,  # values and the incoming gradient are read once for each pass they enter
        flops=3 * 2 * values.numel() * K,
    )


def _time_last(values: Tensor) -> Tensor:
    return values.permute(0, 2, 3, 1).contiguous()


def _time_second(turned: Tensor) -> Tensor:
    return turned.permute(0, 3, 1, 2)


def _line(what: str, T: int, factor: int, goal: float) -> Line:
    K = int(factor * math.log(T))
    contest, peer = {
        "evaluation": (_evaluation, "the released loop: a gather from the doubled sequence per lag"),
        "training": (_training, "the released loop: a roll of the batch per lag, forward and backward"),
    }[what]
    name = f"{what}, B {BATCH}, L {T}, H {HEADS}, D {WIDTH}, {K} lags"
    return Line("delay_aggregate", name, peer, {"eager": goal}, lambda generator: contest(T, generator, K=K))


LINES = (
    _line("evaluation", 720, 3, 6.0),
    _line("training", 720, 3, 3.0),
    _line("evaluation", 720, 1, 6.0),
    _line("training", 720, 1, 3.0),
)
SWEEPS = (
    Sweep(
        operation="delay_aggregate",
        name=f"evaluation, B {BATCH}, H {HEADS}, D {WIDTH}, 19 lags",
        axis="rows",
        peer="the released loop",
        sizes=(90, 180, 360, 720),
        contest=partial(_evaluation, K=19),
    ),
)
