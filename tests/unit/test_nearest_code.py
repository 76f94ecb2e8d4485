"""Codebook assignment: what attention over codes relies on, ties, masks, gradients, invariances."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core_attention.kernels.nearest_code import METRICS, nearest_code
from core_attention.kernels.nearest_code.eager import nearest_code_backward

BACKENDS = ("reference", "eager")
seeds = st.integers(0, 2**31 - 1)


def _random(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def test_attention_over_codes_equals_attention_over_quantised_keys() -> None:
    q, k, v, codes = (_random(i, *s) for i, s in enumerate([(2, 257, 16), (2, 257, 16), (2, 257, 24), (32, 16)]))
    keys, index = nearest_code(k, codes)
    dense = (q @ keys.transpose(1, 2)).softmax(-1) @ v
    belongs = torch.nn.functional.one_hot(index, 32).double()
    count = belongs.sum(1)
    means = belongs.transpose(1, 2) @ v / count.clamp(min=1)[..., None]
    by_codes = (q @ codes.T + count.clamp(min=1e-30).log()[:, None]).softmax(-1) @ means
    torch.testing.assert_close(by_codes, dense)


@pytest.mark.parametrize("backend", BACKENDS)
def test_equally_near_codes_give_the_first(backend: str) -> None:
    codes = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [0.0, -2.0]])
    x = torch.tensor([[[2.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, -1.0]]])
    for metric in METRICS:
        assert nearest_code(x, codes, metric=metric, backend=backend)[1].tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_metrics_differ_as_they_should(backend: str) -> None:
    codes = torch.tensor([[1.0, 0.0], [10.0, 9.0], [0.0, 0.0]])
    x = torch.tensor([[[1.0, 0.2]]])
    found = {metric: nearest_code(x, codes, metric=metric, backend=backend)[1].item() for metric in METRICS}
    assert found == {"euclidean": 0, "product": 1, "cosine": 0}


@pytest.mark.parametrize("backend", BACKENDS)
def test_values_are_the_codes_to_the_bit_and_the_gradient_passes_unchanged(backend: str) -> None:
    x, codes = _random(1, 2, 9, 3, 6, dtype=torch.float32), _random(2, 3, 7, 6, dtype=torch.float32)
    quantised, index = nearest_code(x.requires_grad_(), codes.requires_grad_(), backend=backend)
    for h in range(3):
        assert torch.equal(quantised[:, :, h], codes[h][index[:, :, h]])
    grad = _random(3, *x.shape, dtype=torch.float32)
    d_x, d_codes = torch.autograd.grad(quantised, (x, codes), grad, materialize_grads=True)
    assert torch.equal(d_x, grad)
    assert not d_codes.any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_trained_codes_get_the_gradients_of_their_tokens(backend: str) -> None:
    x, codes = _random(1, 2, 9, 3, 6), _random(2, 3, 7, 6).requires_grad_()
    mask = _random(4, 2, 9) > 0
    assert torch.autograd.gradcheck(
        lambda c: nearest_code(x, c, mask, train_codes=True, backend=backend)[0], codes, fast_mode=False
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_tokens_left_out_give_zeros_whatever_they_hold(backend: str) -> None:
    x, codes = _random(1, 2, 5, 4, dtype=torch.float32), _random(2, 3, 4, dtype=torch.float32)
    x[0] = float("nan")
    mask = torch.tensor([[False] * 5, [True] * 5])
    quantised, index = nearest_code(x.requires_grad_(), codes, mask, backend=backend)
    (d_x,) = torch.autograd.grad(quantised.sum(), x)
    assert not quantised[0].any()
    assert (index[0] == -1).all()
    assert (index[1] >= 0).all()
    assert torch.equal(d_x, mask[..., None].expand_as(d_x).float())


def test_half_width_tokens_beside_a_float32_codebook() -> None:
    x, codes = _random(1, 2, 40, 16, dtype=torch.bfloat16), _random(2, 64, 16, dtype=torch.float32).requires_grad_()
    quantised, index = nearest_code(x, codes, train_codes=True)
    assert torch.equal(index, nearest_code(x.double(), codes.double())[1])
    assert torch.equal(quantised, codes[index].bfloat16())
    (d_codes,) = torch.autograd.grad(quantised, codes, torch.ones_like(quantised))
    assert d_codes.dtype == torch.float32
    assert torch.equal(d_codes[:, 0], index.flatten().bincount(minlength=64).float())


def test_many_tokens_and_codes_are_searched_in_tiles() -> None:
    x, codes = _random(1, 1, 3000, 4, dtype=torch.float32), _random(2, 2000, 4, dtype=torch.float32)
    quantised, _ = nearest_code(x, codes, backend="eager")
    least = torch.cdist(x.double(), codes.double()[None]).amin(-1)
    torch.testing.assert_close((x - quantised).double().norm(dim=-1), least, rtol=1e-4, atol=1e-4)


def test_sum_of_many_gradients_keeps_its_bits() -> None:
    grad, index = torch.full((1, 70_000, 1), 0.1, dtype=torch.bfloat16), torch.zeros(1, 70_000, dtype=torch.int64)
    found = nearest_code_backward(grad, index, torch.zeros(2, 1, dtype=torch.bfloat16))
    torch.testing.assert_close(found[0].double(), grad.double().sum(1)[0], rtol=4e-3, atol=0)
    assert not found[1].any()


@settings(deadline=None, max_examples=25)
@given(seeds, st.sampled_from(METRICS))
def test_order_of_codes_changes_names_only(seed: int, metric: str) -> None:
    x, codes = _random(seed, 2, 6, 3), _random(seed + 1, 9, 3)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
    quantised, index = nearest_code(x, codes, metric=metric)
    shuffled, renamed = nearest_code(x, codes[order], metric=metric)
    assert torch.equal(shuffled, quantised)
    assert torch.equal(order[renamed], index)


@settings(deadline=None, max_examples=25)
@given(seeds)
def test_quantising_twice_changes_nothing_and_moving_all_moves_all(seed: int) -> None:
    x, codes, shift = _random(seed, 2, 6, 3), _random(seed + 1, 9, 3), _random(seed + 2, 3)
    quantised, index = nearest_code(x, codes)
    assert torch.equal(nearest_code(quantised, codes)[0], quantised)
    assert torch.equal(nearest_code(x + shift, codes + shift)[1], index)
    assert torch.equal(nearest_code(3 * x, codes, metric="cosine")[1], nearest_code(x, 2 * codes, metric="cosine")[1])


@settings(deadline=None, max_examples=20)
@given(seeds)
def test_on_a_sphere_all_metrics_agree(seed: int) -> None:
    x, codes = (torch.nn.functional.normalize(_random(seed + i, 1, 8, 5), dim=-1) for i in range(2))
    found = [nearest_code(x, codes[0], metric=metric)[1] for metric in METRICS]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
