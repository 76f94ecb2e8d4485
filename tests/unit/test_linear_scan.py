"""The linear scan against what it is by other means."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core_attention.kernels.linear_scan import linear_scan


def _operands(T: int, *, B: int = 1, H: int = 2, D: int = 4, Dv: int = 3, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    q, k = (F.elu(torch.randn(B, T, H, D, generator=generator)) + 1 for _ in range(2))
    return q, k, torch.randn(B, T, H, Dv, generator=generator), torch.rand(B, T, H, generator=generator) * 0.5 + 0.5


def test_linfusion_s_closed_form_with_its_eps() -> None:
    """Mean over tokens of k^T v, divided by q times the mean key plus 1e-4."""
    q, k, v, _ = _operands(50)
    T = q.shape[1]
    kv = torch.einsum("bthd,bthe->bhde", k * T**-0.5, v * T**-0.5)
    z = torch.einsum("bthd,bhd->bth", q, k.mean(1)) + 1e-4
    expected = torch.einsum("bthd,bhde->bthe", q, kv) / z.unsqueeze(-1)
    torch.testing.assert_close(linear_scan(q, k, v, causal=False, normalise=True, eps=1e-4 * T), expected)


@pytest.mark.parametrize("causal", [True, False])
def test_equals_the_explicit_matrix_whose_rows_sum_to_one(causal: bool) -> None:
    q, k, v, _ = _operands(150)
    scores = torch.einsum("bthd,bshd->bhts", q, k)
    scores = scores.tril() if causal else scores
    weights = scores / scores.sum(-1, keepdim=True)
    expected = torch.einsum("bhts,bshe->bthe", weights, v)
    torch.testing.assert_close(linear_scan(q, k, v, causal=causal, normalise=True), expected)
    constant = torch.full_like(v, 2.5)
    torch.testing.assert_close(linear_scan(q, k, constant, causal=causal, normalise=True), constant)


def test_equals_the_matrix_of_products_of_decays() -> None:
    q, k, v, decay = _operands(90)
    expected = torch.einsum("bths,bthd,bshd,bshe->bthe", _paths(decay), q.double(), k.double(), v.double())
    torch.testing.assert_close(linear_scan(q, k, v, decay=decay).double(), expected, rtol=1e-5, atol=1e-5)


def _paths(decay: Tensor) -> Tensor:
    """(B, T, H, S): the product of the decays after token s up to token t."""
    B, T, H = decay.shape
    paths = torch.zeros(B, T, H, T, dtype=torch.float64)
    for t in range(T):
        for s in range(t + 1):
            paths[:, t, :, s] = decay[:, s + 1 : t + 1].double().prod(1)
    return paths


@settings(deadline=None, max_examples=25)
@given(
    T=st.integers(2, 200), at=st.floats(0, 1), normalise=st.booleans(), decays=st.booleans(), seed=st.integers(0, 99)
)
def test_split_and_resume_equals_one_call(T: int, at: float, normalise: bool, decays: bool, seed: int) -> None:
    q, k, v, decay = _operands(T, seed=seed)
    cut = min(T - 1, max(1, round(at * T)))
    whole, last = linear_scan(q, k, v, decay=decay if decays else None, normalise=normalise, return_last_state=True)
    parts, state = [], None
    for piece in (slice(0, cut), slice(cut, T)):
        out, state = linear_scan(
            q[:, piece],
            k[:, piece],
            v[:, piece],
            decay=decay[:, piece] if decays else None,
            normalise=normalise,
            initial_state=state,
            return_last_state=True,
        )
        parts.append(out)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(state, last, rtol=1e-4, atol=1e-4)


@settings(deadline=None, max_examples=25)
@given(T=st.integers(1, 80), seed=st.integers(0, 99))
def test_without_order_permuting_keys_changes_nothing_and_doubling_tokens_neither(T: int, seed: int) -> None:
    q, k, v, _ = _operands(T, seed=seed)
    out = linear_scan(q, k, v, causal=False, normalise=True)
    order = torch.randperm(T, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(linear_scan(q, k[:, order], v[:, order], causal=False, normalise=True), out)
    twice = [x.repeat_interleave(2, 1) for x in (q, k, v)]
    torch.testing.assert_close(linear_scan(*twice, causal=False, normalise=True), out.repeat_interleave(2, 1))


@settings(deadline=None, max_examples=20)
@given(T=st.integers(2, 150), seed=st.integers(0, 99), at=st.floats(0, 1))
def test_the_future_is_unseen(T: int, seed: int, at: float) -> None:
    q, k, v, decay = _operands(T, seed=seed)
    cut = min(T - 1, max(1, round(at * T)))
    out = linear_scan(q, k, v, decay=decay, normalise=True)
    later = [x.index_fill(1, torch.arange(cut, T), 0.25) for x in (q, k, v, decay)]
    changed = linear_scan(*later[:3], decay=later[3], normalise=True)
    torch.testing.assert_close(changed[:, :cut], out[:, :cut])


def test_a_decay_of_one_forgets_nothing_and_a_head_s_decay_is_every_token_s() -> None:
    q, k, v, _ = _operands(130)
    torch.testing.assert_close(linear_scan(q, k, v, decay=torch.ones(2)), linear_scan(q, k, v))
    head = torch.tensor([0.9, 0.3])
    expected = linear_scan(q, k, v, decay=head.expand(1, 130, 2).contiguous())
    torch.testing.assert_close(linear_scan(q, k, v, decay=head), expected)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("backend", ["reference", "eager"])
def test_keys_of_zeros_give_zeros_and_no_gradient(causal: bool, backend: str) -> None:
    q, k, v, _ = _operands(70)
    k = torch.zeros_like(k)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    out = linear_scan(*leaves, causal=causal, normalise=True, backend=backend)
    grads = torch.autograd.grad(out.sum(), leaves)
    assert torch.equal(out, torch.zeros_like(out))
    assert all(torch.equal(grad, torch.zeros_like(grad)) for grad in grads)


def test_decays_of_nearly_nothing_stay_finite() -> None:
    q, k, v, decay = _operands(300)
    decay[:, ::3] = 0.0
    decay[:, 1::3] = torch.finfo(torch.float32).tiny
    leaves = [x.requires_grad_() for x in (q, k, v, decay)]
    out = linear_scan(*leaves[:3], decay=leaves[3], normalise=True)
    assert out.isfinite().all()
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(out.square().sum(), leaves))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_65_536_tokens_stay_finite_in_half_width(dtype: torch.dtype) -> None:
    q, k, v, _ = (x.to(dtype) for x in _operands(65_536, H=1))
    for causal in (True, False):
        out, state = linear_scan(q, k, v, causal=causal, normalise=True, return_last_state=True)
        assert out.isfinite().all()
        assert state.dtype == torch.float32
        assert state.isfinite().all()


def test_long_sums_are_as_exact_as_short_ones() -> None:
    q, k, v, _ = _operands(20_000, H=1)
    out = linear_scan(q, k, v, normalise=True)
    state = torch.einsum("bthd,bthe->bhde", k.double(), torch.cat([v, torch.ones_like(v[..., :1])], -1).double())
    last = torch.einsum("bhd,bhde->bhe", q[:, -1].double(), state)
    torch.testing.assert_close(out[:, -1].double(), last[..., :-1] / last[..., -1:], rtol=1e-4, atol=1e-6)


def test_a_float32_state_goes_with_half_width_operands() -> None:
    q, k, v, _ = (x.bfloat16() for x in _operands(10))
    state = torch.full((1, 2, 4, 3), math.pi)
    first = linear_scan(q, k, v, initial_state=state)
    expected = linear_scan(q.float(), k.float(), v.float(), initial_state=state)
    torch.testing.assert_close(first.float(), expected, rtol=1e-2, atol=1e-2)
    assert first.dtype == torch.bfloat16
