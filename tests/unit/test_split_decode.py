"""Decoding attention against what it is by other means, and what may not change it."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core_attention.kernels import ops
from core_attention.kernels.split_decode import eager, merge_partials, split_decode

BACKENDS = ("reference", "eager", "cpu")
quickly = settings(deadline=None, max_examples=20)


def _made(B: int, T: int, H: int, G: int, S: int, D: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(s, generator=generator) for s in ((B, T, H, D), (B, S, G, D), (B, S, G, D)))
    return q, k, v


def _torch_s(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    query, key, value = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(query, key, value, enable_gqa=True, **options).transpose(1, 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_torch_s_attention(backend: str) -> None:
    q, k, v = _made(2, 3, 6, 2, 201, 32)
    torch.testing.assert_close(split_decode(q, k, v, backend=backend), _torch_s(q, k, v), rtol=1e-4, atol=1e-5)
    causal = torch.ones(3, 201, dtype=torch.bool).tril(201 - 3)
    expected = _torch_s(q, k, v, attn_mask=causal, scale=0.5)
    found = split_decode(q, k, v, causal=True, scale=0.5, backend=backend)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_sample_is_its_own_slice(backend: str) -> None:
    q, k, v = _made(4, 1, 4, 2, 300, 16)
    lengths = torch.tensor([300, 1, 0, 129], dtype=torch.int32)
    found = split_decode(q, k, v, lengths=lengths, backend=backend)
    for b, length in enumerate(lengths.tolist()):
        if length == 0:
            assert torch.equal(found[b], torch.zeros_like(found[b]))
        else:
            alone = _torch_s(q[b : b + 1], k[b : b + 1, :length], v[b : b + 1, :length])
            torch.testing.assert_close(found[b : b + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_query_at_a_time_equals_all_causally_at_once(backend: str) -> None:
    q, k, v = _made(1, 4, 2, 1, 40, 8)
    together = split_decode(q, k, v, causal=True, backend=backend)
    steps = [
        split_decode(q[:, t : t + 1], k, v, lengths=torch.tensor([40 - 4 + t + 1]), backend=backend) for t in range(4)
    ]
    torch.testing.assert_close(together, torch.cat(steps, dim=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_lies_beyond_the_lengths_is_never_used(backend: str, dtype: torch.dtype) -> None:
    q, k, v = (x.to(dtype) for x in _made(3, 2, 4, 2, 150, 8))
    lengths = torch.tensor([150, 67, 0])
    poisoned = []
    for x in (k, v):
        x = x.clone()
        for b, length in enumerate(lengths.tolist()):
            x[b, length:] = torch.nan
        poisoned.append(x)
    results = []
    for keys, values in ((k, v), poisoned):
        leaves = [x.clone().requires_grad_() for x in (q, keys, values)]
        out = split_decode(*leaves, lengths=lengths, backend=backend)
        results.append((out, *torch.autograd.grad(out.sum(), leaves)))
    assert all(torch.equal(clean, dirty) for clean, dirty in zip(*results, strict=True))
    _, _, d_k, d_v = results[1]
    assert not d_k[1, 67:].any()
    assert not d_v[2].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_nan_that_is_valid_is_not_hidden(backend: str) -> None:
    q, k, v = _made(1, 1, 2, 2, 140, 8)
    k[0, :, 1] = torch.nan
    found = split_decode(q, k, v, backend=backend)
    assert found[0, 0, 1].isnan().all()
    assert found[0, 0, 0].isfinite().all()


@pytest.mark.parametrize("backend", ["eager", "cpu"])
def test_large_scores_do_not_overflow(backend: str) -> None:
    q, k, v = _made(1, 1, 2, 1, 400, 16)
    found = split_decode(100 * q, 100 * k, v, backend=backend)
    expected = split_decode(100 * q.double(), 100 * k.double(), v.double(), backend="reference")
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("backend", ["eager", "cpu"])
def test_a_long_cache_keeps_its_precision(backend: str) -> None:
    q, k, v = _made(1, 1, 2, 2, 30_000, 16)
    v += 1  # a mean that is not zero, so that errors of a long sum would show
    found = split_decode(q, k, v, backend=backend).double()
    wide = split_decode(q.double(), k.double(), v.double(), backend="reference")
    plain = eager.portable_split_decode(q, k, v).double()
    assert (found - wide).norm() <= 2 * (plain - wide).norm() + 1e-7 * wide.norm()


def test_threads_leave_no_trace_beyond_rounding() -> None:
    q, k, v = _made(3, 1, 8, 8, 3000, 64)
    lengths, threads, results = torch.tensor([3000, 0, 1777]), torch.get_num_threads(), []
    try:
        for count in (1, 2, 3, 7):
            torch.set_num_threads(count)
            results.append(split_decode(q, k, v, lengths=lengths, backend="cpu"))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-5, atol=1e-6)


def test_more_rows_than_the_compiled_loops_take() -> None:
    q, k, v = _made(1, 17, 1, 1, 30, 8)
    torch.testing.assert_close(split_decode(q, k, v), _torch_s(q, k, v), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"17 query rows .* share a key head"):
        split_decode(q, k, v, backend="cpu")


def test_a_slice_of_a_cache_is_not_copied() -> None:
    cpu = ops()["split_decode"].module("cpu")
    cache = torch.randn(2, 500, 4, 16)[:, 3:400]
    flat, strides = cpu._flat(cache)
    assert flat.data_ptr() == cache.data_ptr()
    assert strides.tolist() == [500 * 64, 64, 16]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cache_shared_by_the_batch_is_expanded(backend: str) -> None:
    q, k, v = _made(3, 1, 2, 2, 50, 8)
    lengths = torch.tensor([50, 20, 7])
    leaves = [x.requires_grad_() for x in (q, k[:1].clone(), v[:1].clone())]
    results = []
    for spread in (lambda x: x.expand(3, -1, -1, -1), lambda x: x.repeat(3, 1, 1, 1)):
        out = split_decode(leaves[0], *(spread(x) for x in leaves[1:]), lengths=lengths, backend=backend)
        results.append((out, *torch.autograd.grad(out.square().sum(), leaves)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_slow_gradcheck_of_every_entry() -> None:
    q, k, v = (x.double().requires_grad_() for x in _made(2, 2, 2, 1, 5, 3))
    lengths = torch.tensor([5, 1])
    function = lambda q, k, v: split_decode(q, k, v, lengths=lengths, causal=True, backend="eager")  # noqa: E731
    assert torch.autograd.gradcheck(function, (q, k, v))


def test_gradients_that_are_not_wanted_are_not_made() -> None:
    q, k, v = _made(1, 1, 2, 2, 9, 4)
    q.requires_grad_()
    split_decode(q, k, v).sum().backward()
    assert q.grad is not None
    assert k.grad is None


cuts = st.lists(st.integers(1, 39), min_size=0, max_size=5, unique=True).map(sorted)


@quickly
@given(edges=cuts, seed=st.integers(0, 99), order=st.randoms(use_true_random=False))
def test_split_points_and_order_do_not_matter(edges: list[int], seed: int, order: Any) -> None:
    q, k, v = (x.double() for x in _made(2, 2, 4, 2, 40, 4, seed))
    bounds = [0, *edges, 40]
    parts = [eager.attention_state(q, k[:, a:e], v[:, a:e]) for a, e in itertools.pairwise(bounds)]
    order.shuffle(parts)
    _, total, output = merge_partials(*parts)
    torch.testing.assert_close(output / total[..., None], split_decode(q, k, v))


@quickly
@given(seed=st.integers(0, 999), empty=st.integers(0, 3))
def test_the_merge_is_associative_commutative_and_has_a_neutral_element(seed: int, empty: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def state(i: int) -> eager.State:
        if i == empty:
            return torch.full((3,), -torch.inf).double(), torch.zeros(3).double(), torch.zeros(3, 2).double()
        draw = [torch.randn(*shape, generator=generator).double() for shape in ((3,), (3,), (3, 2))]
        return 20 * draw[0], draw[1].exp(), draw[2]

    a, b, c = (state(i) for i in range(3))
    left = merge_partials(merge_partials(a, b), c)
    for other in (merge_partials(a, merge_partials(b, c)), merge_partials(c, a, b)):
        for ours, theirs in zip(left, other, strict=True):
            torch.testing.assert_close(ours, theirs)
            assert not ours.isnan().any()


def test_a_merge_of_nothing_or_of_unlike_states_is_refused() -> None:
    with pytest.raises(ValueError, match="states: found none"):
        merge_partials()
    one = (torch.zeros(2), torch.ones(2), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"states\[1\], total: found shape \(3,\), expected \(2,\)"):
        merge_partials(one, (torch.zeros(2), torch.ones(3), torch.zeros(2, 3)))


@quickly
@given(
    block=st.integers(1, 50),
    lengths=st.lists(st.integers(0, 45), min_size=2, max_size=2),
    causal=st.booleans(),
    T=st.integers(1, 4),
)
def test_the_number_of_splits_does_not_matter(block: int, lengths: list[int], causal: bool, T: int) -> None:
    q, k, v = (x.double() for x in _made(2, T, 2, 1, 45, 4))
    n = torch.tensor(lengths)
    _, total, output = eager.attention_state(q, k, v, n, causal=causal, block=block)
    expected = split_decode(q, k, v, lengths=n, causal=causal, backend="reference")
    torch.testing.assert_close(output / total.where(total != 0, 1.0)[..., None], expected)


@quickly
@given(lengths=st.lists(st.integers(0, 300), min_size=1, max_size=6), causal=st.booleans(), seed=st.integers(0, 9))
def test_compiled_loops_serve_any_ragged_batch(lengths: list[int], causal: bool, seed: int) -> None:
    q, k, v = _made(len(lengths), 2, 4, 2, 300, 8, seed)
    n = torch.tensor(lengths)
    found = split_decode(q, k, v, lengths=n, causal=causal, backend="cpu")
    expected = split_decode(q, k, v, lengths=n, causal=causal, backend="eager")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    turned = split_decode(q.flip(0), k.flip(0), v.flip(0), lengths=n.flip(0), causal=causal, backend="cpu")
    torch.testing.assert_close(turned.flip(0), found, rtol=1e-5, atol=1e-6)


@quickly
@given(shift=st.floats(-5, 5), seed=st.integers(0, 99))
def test_a_vector_added_to_all_keys_changes_nothing(shift: float, seed: int) -> None:
    q, k, v = (x.double() for x in _made(1, 2, 2, 2, 30, 4, seed))
    torch.testing.assert_close(split_decode(q, k + shift, v), split_decode(q, k, v))


@pytest.mark.parametrize("keys", [1, 2])
def test_uniform_scores_give_the_mean(keys: int) -> None:
    q, k, v = torch.zeros(1, 1, 2, 4), torch.randn(1, keys, 2, 4), torch.randn(1, keys, 2, 4)
    torch.testing.assert_close(split_decode(q, k, v)[0, 0], v[0].mean(0))
    assert math.isclose(split_decode(q, k, torch.ones_like(v)).mean().item(), 1.0, rel_tol=1e-6)
