"""Core-context attention's cover of the past, and segment maxima, against what they are by other means."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from core_attention.kernels import pooled_context, segment_max
from core_attention.kernels.pooled_context.cases import attention_operands


def _operands(T: int, H: int = 2, G: int = 2, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    return attention_operands((2, T, H, G, 4, 4), dtype, torch.Generator().manual_seed(0))


@settings(deadline=None, max_examples=30)
@given(T=st.integers(1, 70), group=st.integers(1, 9), window=st.integers(1, 20))
def test_every_earlier_token_counts_exactly_once(T: int, group: int, window: int) -> None:
    """With equal scores a core is its group's mean, so weights by group size would give back the mean of the past."""
    marks = torch.eye(T, dtype=torch.float64).view(1, T, 1, T)  # the value of token s is the s-th unit vector
    out = pooled_context(
        torch.zeros(1, T, 1, 4).double(), torch.zeros(1, T, 1, 4).double(), marks, group=group, window=window
    )
    weights = out[0, :, 0]
    earlier = torch.ones(T, T).tril().bool()
    assert (weights > 0).equal(earlier)
    torch.testing.assert_close(weights.sum(1), torch.ones(T, dtype=torch.float64))


@settings(deadline=None, max_examples=15)
@given(T=st.integers(1, 60), window=st.integers(60, 90))
def test_a_window_over_everything_is_causal_attention(T: int, window: int) -> None:
    q, k, v = _operands(T)
    expected = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), is_causal=True).transpose(1, 2)
    torch.testing.assert_close(pooled_context(q, k, v, group=4, window=window), expected)


def test_groups_of_one_are_causal_attention() -> None:
    q, k, v = _operands(33)
    expected = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), is_causal=True).transpose(1, 2)
    torch.testing.assert_close(pooled_context(q, k, v, group=1, window=3), expected)


def test_grouped_heads_are_repeated_heads() -> None:
    q, k, v = _operands(50, H=4)
    repeated = pooled_context(q, k.repeat_interleave(2, 2), v.repeat_interleave(2, 2), group=4, window=8)
    torch.testing.assert_close(pooled_context(q, k, v, group=4, window=8), repeated)


def test_no_token_looks_ahead() -> None:
    q, k, v = _operands(300)
    before = pooled_context(q, k, v, group=8, window=16)
    for tensor in (q, k, v):
        tensor[:, 270:] = 9.0
    assert torch.equal(pooled_context(q, k, v, group=8, window=16)[:, :270], before[:, :270])


def test_padding_on_the_right_changes_nothing() -> None:
    q, k, v = _operands(40)
    longer = [F.pad(t, (0, 0, 0, 0, 0, 9), value=float("nan")) for t in (q, k, v)]
    mask = (torch.arange(49) < 40).expand(2, -1)
    clean = [torch.where(mask[:, :, None, None], t, 0.0) for t in longer]
    torch.testing.assert_close(
        pooled_context(*clean, mask, group=4, window=8)[:, :40], pooled_context(q, k, v, group=4, window=8)
    )


def test_a_sample_without_keys_gives_zeros_and_no_gradient() -> None:
    leaves = [t.requires_grad_() for t in _operands(30)]
    mask = torch.ones(2, 30, dtype=torch.bool)
    mask[0] = False
    out = pooled_context(*leaves, mask, group=4, window=4)
    assert (out[0] == 0).all()
    for grad in torch.autograd.grad(out.sum(), leaves):
        assert (grad[0] == 0).all()
        assert torch.isfinite(grad).all()


@settings(deadline=None, max_examples=20)
@given(T=st.integers(1, 40), kinds=st.integers(1, 8), seed=st.integers(0, 99))
def test_order_within_a_batch_does_not_matter_to_segments(T: int, kinds: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, order = torch.randn(1, T, 3, generator=generator), torch.randperm(T, generator=generator)
    segments = torch.randint(0, min(kinds, T), (1, T), generator=generator)
    assert torch.equal(segment_max(x[:, order], segments[:, order]), segment_max(x, segments)[:, order])


def test_one_segment_a_token_is_the_identity_and_one_for_all_the_maximum() -> None:
    x = torch.randn(2, 9, 4)
    assert torch.equal(segment_max(x, torch.arange(9).expand(2, -1)), x)
    assert torch.equal(segment_max(x, torch.zeros(2, 9, dtype=torch.int32)), x.amax(1, keepdim=True).expand_as(x))


@pytest.mark.parametrize("backend", ["reference", "eager"])
def test_equal_maxima_share_the_gradient(backend: str) -> None:
    x = torch.tensor([[[2.0], [2.0], [1.0], [5.0]]], requires_grad=True)
    out = segment_max(x, torch.tensor([[0, 0, 0, 1]]), backend=backend)
    (grad,) = torch.autograd.grad(out, x, torch.tensor([[[1.0], [2.0], [3.0], [4.0]]]))
    assert grad.flatten().tolist() == [3.0, 3.0, 0.0, 4.0]
