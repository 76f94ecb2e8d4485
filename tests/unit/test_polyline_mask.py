"""The polyline-path mask: what its definition says of it, and attention by it without it."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core_attention.kernels import polyline_mask
from core_attention.kernels.polyline_mask.cases import arguments_of
from core_attention.kernels.polyline_mask.reference import mask

SIZES = st.tuples(st.integers(1, 6), st.integers(1, 6))


def _arguments(rows: int, columns: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return arguments_of((1, rows, columns, 2, 3, 4), torch.float64, generator)


@settings(deadline=None, max_examples=25)
@given(size=SIZES, seed=st.integers(0, 99))
def test_the_mask_is_symmetric_two_on_the_diagonal_and_never_more(size: tuple[int, int], seed: int) -> None:
    *_, across, down = _arguments(*size, seed=seed)
    n = size[0] * size[1]
    full = mask(across, down).reshape(1, 2, n, n)
    torch.testing.assert_close(full, full.mT)
    torch.testing.assert_close(full.diagonal(dim1=2, dim2=3), torch.full((1, 2, n), 2.0, dtype=torch.float64))
    assert full.max() <= 2 + 1e-12


@settings(deadline=None, max_examples=25)
@given(size=SIZES, seed=st.integers(0, 99))
def test_turning_the_image_over_its_diagonal_exchanges_the_decays(size: tuple[int, int], seed: int) -> None:
    operands = _arguments(*size, seed=seed)
    q, k, v, across, down = (tensor.transpose(1, 2) for tensor in operands)
    torch.testing.assert_close(polyline_mask(q, k, v, down, across).transpose(1, 2), polyline_mask(*operands))


def test_decays_of_one_are_linear_attention_twice() -> None:
    q, k, v, across, _ = _arguments(5, 4)
    one = torch.ones_like(across)
    scores = torch.einsum("bijhd,bklhd->bhijkl", q, k)
    expected = 2 * torch.einsum("bhijkl,bklhe->bijhe", scores, v)
    torch.testing.assert_close(polyline_mask(q, k, v, one, one), expected)


def test_a_wall_of_zeros_is_not_seen_through() -> None:
    """A column whose decay is nothing parts the image: what lies behind it does not matter."""
    q, k, v, across, down = _arguments(4, 7)
    across[:, :, 3] = 0.0
    before = polyline_mask(q, k, v, across, down)[:, :, :3]
    v[:, :, 3:] = 5.0
    torch.testing.assert_close(polyline_mask(q, k, v, across, down)[:, :, :3], before)


def test_long_rows_stay_finite() -> None:
    generator = torch.Generator().manual_seed(0)
    leaves = [t.requires_grad_() for t in arguments_of((1, 2, 500, 1, 4, 4), torch.float32, generator, least=0.01)]
    out = polyline_mask(*leaves)
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(grad).all() for grad in torch.autograd.grad(out.sum(), leaves))
