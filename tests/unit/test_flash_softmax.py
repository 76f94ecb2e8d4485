"""Softmax attention against what it is by other means: torch's own, explicit weights, an explicit extra key."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core_attention.kernels.flash_softmax import _pieced, eager, flash_softmax
from core_attention.kernels.flash_softmax._band import band_of, pieces, visible_band
from core_attention.masks import causal_mask

SIZES = st.tuples(*(st.integers(1, high) for high in (2, 20, 20, 2, 2, 5)))  # B, T, S, G, H / G, D
PROPERTY = settings(deadline=None, max_examples=25)


def _randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _operands(B: int, T: int, S: int, G: int, R: int, D: int) -> tuple[Tensor, Tensor, Tensor]:
    return _randn(B, T, G * R, D), _randn(B, S, G, D, seed=1), _randn(B, S, G, D + 1, seed=2)


def _torch_attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None = None) -> Tensor:
    R = q.shape[2] // k.shape[2]
    q, k, v = (t.transpose(1, 2) for t in (q, k.repeat_interleave(R, 2), v.repeat_interleave(R, 2)))
    return F.scaled_dot_product_attention(q, k, v, visible).transpose(1, 2)


def _gradients(out: Tensor, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(out, leaves, torch.ones_like(out))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("T", "S"), [(300, 300), (7, 300), (1, 65)])
def test_equals_torch_s_attention(T: int, S: int, causal: bool) -> None:
    q, k, v = _operands(2, T, S, 2, 2, 8)
    visible = causal_mask(T, S) if causal else None
    torch.testing.assert_close(flash_softmax(q, k, v, causal=causal), _torch_attention(q, k, v, visible))


@pytest.mark.parametrize("window", [1, 2, 64, 100, 299, (-1, 4), (4, -1), (0, 0), (70, 3)])
@pytest.mark.parametrize("causal", [False, True])
def test_a_window_equals_a_dense_mask(window: Any, causal: bool) -> None:
    for T, S in ((300, 300), (131, 300), (300, 131)):
        q, k, v = _operands(1, T, S, 1, 2, 8)
        visible = visible_band(T, S, *band_of(causal, window), q.device)
        expected = torch.where(visible.any(1)[None, :, None, None], _torch_attention(q, k, v, visible), 0.0)
        torch.testing.assert_close(flash_softmax(q, k, v, causal=causal, window=window), expected)


def test_pieces_cover_every_visible_pair_once() -> None:
    for T, S, left, right in ((5, 5, -1, 0), (9, 4, 2, 0), (4, 9, 1, 3), (7, 7, -1, -1), (20, 3, 0, 2), (6, 6, 3, -1)):
        counted = torch.zeros(T, S, dtype=torch.long)
        for piece in pieces(T, S, left, right, 3):
            visible = piece.visible(T, S, left, right, torch.device("cpu"))
            counted[piece.t0 : piece.t1, piece.s0 : piece.s1] += 1 if visible is None else visible.long()
        assert torch.equal(counted.bool(), visible_band(T, S, left, right, torch.device("cpu")))
        assert counted.max() <= 1


def test_a_sink_is_an_extra_key_with_zero_value() -> None:
    q, k, v = _operands(2, 6, 9, 2, 1, 4)
    extra_k, extra_v = torch.cat([torch.zeros(2, 1, 2, 4), k], 1), torch.cat([torch.zeros(2, 1, 2, 5), v], 1)
    torch.testing.assert_close(
        flash_softmax(q, k, v, sink=torch.zeros(2, dtype=q.dtype)), flash_softmax(q, extra_k, extra_v)
    )
    none = torch.full((2,), -torch.inf, dtype=q.dtype)
    torch.testing.assert_close(flash_softmax(q, k, v, sink=none), flash_softmax(q, k, v))


def test_a_temperature_scales_rows_of_scores() -> None:
    q, k, v = _operands(2, 6, 9, 2, 2, 4)
    warmth = 0.1 + torch.rand(2, 6, 4, dtype=q.dtype)
    bias = _randn(4, 6, 9, seed=3)
    found = flash_softmax(q, k, v, query_temperature=warmth, bias=bias)
    torch.testing.assert_close(found, flash_softmax(q * warmth[..., None], k, v, bias=bias))


def test_split_queries_and_resumed_streams_equal_one_call() -> None:
    q, k, v = _operands(1, 90, 90, 1, 2, 8)
    for window in (None, 20):
        whole = flash_softmax(q, k, v, causal=True, window=window)
        parts = [
            flash_softmax(q[:, a:b], k[:, :b], v[:, :b], causal=True, window=window) for a, b in ((0, 37), (37, 90))
        ]
        torch.testing.assert_close(torch.cat(parts, 1), whole)
        last = flash_softmax(q[:, -1:], k, v, causal=True, window=window)
        torch.testing.assert_close(last, whole[:, -1:])


@pytest.mark.parametrize("backend", ["reference", "eager"])
@pytest.mark.parametrize("with_sink", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_rows_that_see_nothing_are_zero_with_zero_gradients(backend: str, with_sink: bool, with_bias: bool) -> None:
    q, k, v = (t.float() for t in _operands(3, 5, 4, 1, 2, 4))
    key_mask = torch.tensor([[True] * 4, [False] * 4, [False, True, False, False]])
    bias = torch.zeros(3, 1, 5, 4)
    bias[0, :, 2] = -torch.inf
    leaves = [q, k, v, torch.zeros(2), bias]
    for leaf in leaves:
        leaf.requires_grad_()
    more: dict[str, Any] = {"sink": leaves[3]} if with_sink else {}
    more |= {"bias": bias} if with_bias else {}
    out = flash_softmax(q, k, v, causal=True, key_mask=key_mask, backend=backend, **more)
    used = [q, k, v, *more.values()]
    grads = _gradients(out, used)
    assert all(torch.isfinite(t).all() for t in (out, *grads))
    empty = [out[1], out[0, 0], grads[0][1], grads[0][0, 0], grads[1][1], grads[2][1]]  # 5 queries, 4 keys: 0 sees none
    if with_bias:
        empty += [out[0, 2], grads[0][0, 2], grads[-1][1], grads[-1][0, :, 2]]
    assert all((t == 0).all() for t in empty)
    assert (out[2, 2:] != 0).all()


def test_the_plain_pieces_equal_the_fused_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another device than the CPU takes them; here they are called in its place."""
    q, k, v = _operands(2, 300, 400, 2, 2, 8)
    key_mask = torch.rand(2, 400, generator=torch.Generator().manual_seed(0)) < 0.8
    sink = _randn(4, seed=5)
    leaves = [q, k, v, sink]
    for leaf in leaves:
        leaf.requires_grad_()

    def run() -> tuple[Tensor, ...]:
        out = flash_softmax(q, k, v, causal=True, window=300, key_mask=key_mask, sink=sink, backend="eager")
        return (out, *_gradients(out, leaves))

    fused = run()

    monkeypatch.setattr(eager._fused, "forward", _pieced.forward)
    monkeypatch.setattr(eager, "_FEW_SCORES", 1 << 30)
    for found, expected in zip(run(), fused, strict=True):
        torch.testing.assert_close(found, expected)


def test_large_scores_stay_finite_and_long_inputs_exact() -> None:
    q, k, v = (t.float() for t in _operands(1, 700, 5000, 1, 1, 8))
    expected = flash_softmax(q, k, v, causal=True, window=300, backend="reference")
    torch.testing.assert_close(flash_softmax(q, k, v, causal=True, window=300), expected, rtol=1e-4, atol=1e-6)
    huge = flash_softmax(q[:, :9] * 1e4, k, v)
    assert torch.isfinite(huge).all()
    best = (q[0, :9, 0] @ k[0, :, 0].T).argmax(1)
    torch.testing.assert_close(huge[0, :, 0], v[0, best, 0], rtol=1e-3, atol=1e-3)


def test_parameters_may_stay_float32_beside_halves() -> None:
    q, k, v = (t.bfloat16() for t in _operands(1, 5, 6, 1, 2, 4))
    sink, bias, warmth = torch.zeros(2), torch.zeros(6), torch.ones(1, 5, 2)
    leaves = [sink, bias, warmth]
    for leaf in leaves:
        leaf.requires_grad_()
    out = flash_softmax(q, k, v, sink=sink, bias=bias, query_temperature=warmth)
    assert out.dtype == torch.bfloat16
    assert [grad.dtype for grad in _gradients(out, leaves)] == [torch.float32] * 3


def test_wide_heads_are_refused_by_the_triton_back_end_only() -> None:
    q, k, v = _operands(1, 3, 4, 1, 1, 300)
    assert flash_softmax(q, k, v).shape == (1, 3, 1, 301)
    with pytest.raises(ValueError, match="flash_softmax: backend='gpu' cannot serve"):
        flash_softmax(q, k, v, backend="gpu")


@PROPERTY
@given(SIZES, st.data())
def test_the_order_of_keys_does_not_matter(sizes: tuple[int, ...], data: st.DataObject) -> None:
    q, k, v = _operands(*sizes)
    B, S = sizes[0], sizes[2]
    order = torch.tensor(data.draw(st.permutations(range(S))))
    key_mask = torch.tensor(
        data.draw(st.lists(st.lists(st.booleans(), min_size=S, max_size=S), min_size=B, max_size=B))
    )
    found = flash_softmax(q, k[:, order], v[:, order], key_mask=key_mask[:, order])
    torch.testing.assert_close(found, flash_softmax(q, k, v, key_mask=key_mask))


@PROPERTY
@given(SIZES, st.floats(-50, 50), st.booleans())
def test_a_constant_added_to_all_scores_does_not_matter(sizes: tuple[int, ...], shift: float, causal: bool) -> None:
    q, k, v = _operands(*sizes)
    bias = torch.full((1,), shift, dtype=q.dtype)
    torch.testing.assert_close(flash_softmax(q, k, v, bias=bias, causal=causal), flash_softmax(q, k, v, causal=causal))


@PROPERTY
@given(SIZES, st.integers(0, 5), st.booleans())
def test_a_window_over_everything_is_none(sizes: tuple[int, ...], more: int, causal: bool) -> None:
    q, k, v = _operands(*sizes)
    wide = sizes[1] + sizes[2] + more
    expected = flash_softmax(q, k, v, causal=causal)
    torch.testing.assert_close(flash_softmax(q, k, v, causal=causal, window=(wide, wide)), expected)
    if sizes[2] >= sizes[1]:  # the last query then stands no further than S from the first key
        torch.testing.assert_close(
            flash_softmax(q, k, v, causal=True, window=wide), flash_softmax(q, k, v, causal=True)
        )


@PROPERTY
@given(SIZES, st.booleans())
def test_grouped_heads_equal_repeated_ones(sizes: tuple[int, ...], causal: bool) -> None:
    q, k, v = _operands(*sizes)
    repeated = [t.repeat_interleave(sizes[4], dim=2) for t in (k, v)]
    torch.testing.assert_close(flash_softmax(q, *repeated, causal=causal), flash_softmax(q, k, v, causal=causal))


@PROPERTY
@given(SIZES, st.one_of(st.none(), st.integers(1, 8)))
def test_a_batch_may_be_split(sizes: tuple[int, ...], window: int | None) -> None:
    q, k, v = _operands(*sizes)
    singles = [flash_softmax(q[b : b + 1], k[b : b + 1], v[b : b + 1], window=window) for b in range(sizes[0])]
    torch.testing.assert_close(torch.cat(singles), flash_softmax(q, k, v, window=window))
