"""The mechanism low_rank beyond the checks of all mechanisms: scores entry by entry, contexts, zeros, long texts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from core_attention import MechanismError, build, spec
from core_attention.mechanisms.low_rank import LowRank

DIM, HEADS = 6, 4


def _pool(**options: Any) -> LowRank:
    torch.manual_seed(0)
    return LowRank(DIM, HEADS, **options).double()


def _tokens(rows: int, length: int, seed: int = 1) -> Tensor:
    return torch.randn(rows, length, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _by_loops(pool: LowRank, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (H, T) and summaries (H, C) of one sequence x (T, C): c^T (p q^T) x, matrices written out."""
    scores = torch.empty(HEADS, len(x), dtype=x.dtype)
    for head in range(HEADS):
        matrix = torch.outer(pool.p[:, head], pool.q[:, head])
        for t in range(len(x)):
            scores[head, t] = math.tanh(float(context @ matrix @ x[t]))
    for t in range(len(x)):
        scores[:, t] /= math.sqrt(sum(float(s) ** 2 for s in scores[:, t]))
    weights = torch.exp(pool.scale * scores)
    weights /= weights.sum(1, keepdim=True)
    return weights, torch.stack([sum(weights[h, t] * x[t] for t in range(len(x))) for h in range(HEADS)])


@pytest.mark.parametrize("scale", [1.0, 5.0])
@pytest.mark.parametrize("context", ["learned", "mean"])
def test_every_entry_against_loops(context: str, scale: float) -> None:
    pool, x = _pool(context=context, scale=scale), _tokens(3, 7)
    out = pool(x, maps=True)
    for row in range(3):
        given = pool.context if context == "learned" else x[row].mean(0)
        assert given is not None
        with torch.no_grad():
            weights, heads = _by_loops(pool, x[row], given)
        torch.testing.assert_close(out.aux["maps"][row], weights, rtol=0, atol=1e-12)
        torch.testing.assert_close(out.aux["heads"][row], heads, rtol=0, atol=1e-12)
        expected = pool.projection.weight @ heads.flatten() + pool.projection.bias
        torch.testing.assert_close(out.y[row], expected, rtol=0, atol=1e-12)


def test_it_is_a_pool_with_two_narrow_matrices() -> None:
    assert spec("low_rank").kind == "pool"
    counts = {name: p.numel() for name, p in _pool().named_parameters()}
    assert counts == {
        "p": DIM * HEADS,
        "q": DIM * HEADS,
        "context": DIM,
        "projection.weight": HEADS * DIM * DIM,
        "projection.bias": DIM,
    }
    assert "context" not in dict(_pool(context="mean").named_parameters())


@pytest.mark.parametrize("context", ["learned", "mean"])
@pytest.mark.parametrize("poison", [0.0, float("nan"), 1e30])
def test_padding_anywhere_equals_the_bare_tokens(poison: float, context: str) -> None:
    pool, x = _pool(context=context), _tokens(3, 8)
    mask = torch.tensor([[1] * 8, [1, 1, 0, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1, 0, 0]]).bool()
    filled = x.masked_fill(~mask.unsqueeze(-1), poison).requires_grad_()
    y = pool(filled, mask=mask).y
    for row in range(3):
        torch.testing.assert_close(y[row], pool(x[row, mask[row]].unsqueeze(0)).y[0], rtol=0, atol=1e-12)
    y.square().sum().backward()
    assert filled.grad is not None
    assert not filled.grad[~mask].any()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in pool.parameters())


@pytest.mark.parametrize("context", ["learned", "mean"])
def test_tokens_of_zeros_and_rows_of_padding_keep_gradients_small(context: str) -> None:
    """Published, the length of a zero token's scores is divided by: NaN; clamped at 1e-8, gradients of 1e8."""
    pool, x = _pool(context=context), _tokens(3, 5)
    x[0, 2] = 0  # a valid token without a trace
    x[2] = 0
    x.requires_grad_()
    mask = torch.tensor([[True] * 5, [False] * 5, [True] * 5])
    out = pool(x, mask=mask, maps=True)
    out.y.square().sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().max()) < 100
    assert all(p.grad is not None and float(p.grad.abs().max()) < 1e3 for p in pool.parameters())
    assert not out.aux["maps"][1].any()
    assert torch.equal(out.y[1], pool.projection.bias)
    torch.testing.assert_close(out.aux["maps"][2], torch.full((HEADS, 5), 0.2, dtype=torch.float64))


def test_weights_of_long_texts_are_nearly_even_unless_sharpened() -> None:
    """Scores of length one: the largest weight is at most e^2 times the smallest, e^(2 scale) with a scale."""
    x = _tokens(2, 2000) * 30
    ratios = []
    for scale in (1.0, 3.0):
        maps = _pool(scale=scale)(x, maps=True).aux["maps"].detach()
        ratios.append(float((maps.amax(-1) / maps.amin(-1)).max()))
        assert ratios[-1] <= math.exp(2 * scale) * (1 + 1e-12)
    assert ratios[0] > 5
    assert ratios[1] > 50


def test_order_does_not_matter() -> None:
    pool, x = _pool(context="mean"), _tokens(1, 9)
    torch.testing.assert_close(pool(x.flip(1)).y, pool(x).y, rtol=0, atol=1e-12)


def test_half_precision_keeps_the_scores_wide() -> None:
    pool = _pool()
    exact, half = pool(_tokens(2, 50), maps=True), pool.bfloat16()(_tokens(2, 50).bfloat16(), maps=True)
    assert half.y.dtype == torch.bfloat16
    assert (half.aux["maps"].double() - exact.aux["maps"]).abs().max() < 0.01 * exact.aux["maps"].max()


def test_a_pool_learns_to_pick_a_token() -> None:
    """Tokens that carry a mark count, the others are noise; a mean cannot tell them apart, this pool can."""
    torch.manual_seed(0)
    pool = LowRank(DIM, 2, scale=8.0)
    optimizer = torch.optim.Adam(pool.parameters(), 0.1)
    generator, losses = torch.Generator().manual_seed(1), []
    for _ in range(150):
        x = torch.randn(32, 10, DIM, generator=generator)
        x[..., 0] = -2
        marked = torch.randint(0, 10, (32,), generator=generator)
        x[torch.arange(32), marked, 0] = 2
        target = x[torch.arange(32), marked, 1]
        loss = (pool(x).y[:, 0] - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-20:]) / 20 < 0.2  # a mean leaves 0.9


def test_wrong_options_are_refused() -> None:
    for options, message in (
        ({"num_heads": 1}, "mere sign"),
        ({"context": "max"}, "expected one of learned, mean"),
        ({"scale": 0.0}, "scale is 0.0"),
        ({"eps": float("inf")}, "eps is inf"),
    ):
        with pytest.raises(MechanismError, match=message):
            build("low_rank", DIM, **{"num_heads": HEADS, **options})
