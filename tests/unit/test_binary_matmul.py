"""Products of signs: exact sums, packed words, scales, straight-through gradients, invariances."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core_attention.kernels.binary_matmul import binary_matmul

BACKENDS = ("reference", "eager", "cpu")
FEATURES = st.sampled_from([1, 7, 63, 64, 65, 100, 128, 200])
seeds = st.integers(0, 2**31 - 1)


def _random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _signs(u: torch.Tensor) -> torch.Tensor:
    return torch.where(u < 0, -1.0, 1.0).double()


@settings(deadline=None, max_examples=25)
@given(seeds, FEATURES, st.integers(1, 40), st.booleans())
def test_packed_words_equal_the_product_of_signs(seed: int, K: int, N: int, centre: bool) -> None:
    x, weight = _random(seed, 5, K), _random(seed + 1, N, K)
    mean = weight.double().mean(1, keepdim=True) * centre
    expected = _signs(x) @ _signs(weight.double() - mean).T
    for backend in BACKENDS:
        assert torch.equal(binary_matmul(x, weight, torch.ones(N), centre=centre, backend=backend).double(), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_zeros_of_either_sign_count_as_plus_one(backend: str) -> None:
    x, weight = torch.tensor([[0.0, -0.0, -1e-45, 1e-45]]), torch.zeros(1, 4)
    assert binary_matmul(x, weight, torch.ones(1), centre=False, backend=backend).item() == 2
    assert binary_matmul(x, -weight, torch.ones(1), centre=False, backend=backend).item() == 2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [0.1, -0.3, 1e-30, 12345.678])
def test_a_row_of_equal_weights_has_no_sign_by_rounding(backend: str, value: float) -> None:
    weight = torch.full((2, 7), value)
    assert (binary_matmul(torch.ones(1, 7), weight, torch.ones(2), backend=backend) == 7).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_sums_over_many_features_are_exact(backend: str) -> None:
    K = 300_001
    x, weight = torch.ones(1, K), torch.ones(2, K)
    weight[1, ::2] = -1
    assert binary_matmul(x, weight, torch.ones(2), centre=False, backend=backend).tolist() == [[K, -1]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_scale_left_out_is_the_mean_magnitude_and_a_constant(backend: str) -> None:
    x, weight = _random(0, 6, 50), _random(1, 8, 50).requires_grad_()
    scale = weight.detach().abs().mean(1)
    given, left_out = (binary_matmul(x, weight, s, backend=backend) for s in (scale, None))
    torch.testing.assert_close(left_out, given)
    first, second = (torch.autograd.grad(out.square().sum(), weight)[0] for out in (given, left_out))
    torch.testing.assert_close(second, first)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_pass_between_minus_one_and_one_only(backend: str) -> None:
    x = torch.tensor([[0.5, -0.99, 1.0, -1.0, 3.0, 0.0]]).requires_grad_()
    weight = torch.tensor([[2.0, -2.0, 0.3, -0.3, 0.0, 1.0]]).requires_grad_()
    out = binary_matmul(x, weight, torch.tensor([0.5]), centre=False, backend=backend)
    d_x, d_weight = torch.autograd.grad(out.sum(), (x, weight))
    assert d_x.tolist() == [[0.5, -0.5, 0.0, 0.0, 0.0, 0.5]]
    assert d_weight.tolist() == [[0.0, 0.0, 0.5, -0.5, 0.5, 0.0]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_of_centred_weights_sums_to_zero_and_back_ends_agree(backend: str) -> None:
    leaves = [_random(0, 3, 9, 70).requires_grad_(), _random(1, 8, 70).requires_grad_(), torch.rand(8).requires_grad_()]
    grad = _random(2, 3, 9, 8)
    found = torch.autograd.grad(binary_matmul(*leaves, backend=backend), leaves, grad)
    truth = torch.autograd.grad(binary_matmul(*leaves, backend="reference"), leaves, grad)
    for mine, theirs in zip(found, truth, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1].sum(1), torch.zeros(8), rtol=0, atol=1e-4)


@pytest.mark.parametrize("backend", ["eager", "cpu"])
def test_gradient_of_the_scale_alone(backend: str) -> None:
    x, weight = _random(0, 5, 30), _random(1, 4, 30)
    scale = torch.rand(4).requires_grad_()
    out = binary_matmul(x, weight, scale, backend=backend)
    (d_scale,) = torch.autograd.grad(out.sum(), scale)
    torch.testing.assert_close(d_scale, (out / scale).sum(0).detach())


def test_half_width_rows_beside_float32_weights() -> None:
    x, weight, scale = _random(0, 2, 40, 96).bfloat16(), _random(1, 33, 96), torch.rand(33)
    exact = binary_matmul(x.float(), weight, scale)
    for backend in BACKENDS:
        assert torch.equal(binary_matmul(x, weight, scale, backend=backend), exact.bfloat16())


@settings(deadline=None, max_examples=20)
@given(seeds, FEATURES)
def test_magnitudes_do_not_matter_and_a_flip_flips(seed: int, K: int) -> None:
    x, weight, scale = _random(seed, 4, K), _random(seed + 1, 6, K), _random(seed + 2, 6)
    out = binary_matmul(x, weight, scale, backend="cpu")
    assert torch.equal(binary_matmul(x * 17, weight * 0.5, scale, backend="cpu"), out)
    assert torch.equal(binary_matmul(-x, weight, scale, backend="cpu"), -out)
    assert torch.equal(binary_matmul(x, weight, 2 * scale, backend="cpu"), 2 * out)
    order = torch.randperm(K, generator=torch.Generator().manual_seed(seed))
    kept = binary_matmul(x[:, order], weight[:, order], scale, centre=False, backend="cpu")
    assert torch.equal(kept, binary_matmul(x, weight, scale, centre=False, backend="cpu"))
