"""The depthwise convolution against what it is by other means, and its memory formats."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from core_attention.kernels.large_kernel import large_kernel

BACKENDS = ["reference", "eager", "cpu"]


def _made(*shape: int, size: tuple[int, int] = (9, 9), last: bool = False) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    weight = torch.randn(shape[1], 1, *size, generator=generator) / (size[0] * size[1]) ** 0.5
    bias = torch.randn(shape[1], generator=generator)
    return x.contiguous(memory_format=torch.channels_last) if last else x, weight, bias


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_channels_last_stays_and_changes_no_number(backend: str, dtype: torch.dtype) -> None:
    x, weight, bias = (tensor.to(dtype) for tensor in _made(2, 19, 35, 37, last=True))
    assert x.is_contiguous(memory_format=torch.channels_last)
    leaves = [x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()]
    out = large_kernel(*leaves, backend=backend)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert not out.is_contiguous()
    grad = torch.randn(out.shape).to(dtype)
    found = torch.autograd.grad(out, leaves, grad)
    planes = [tensor.detach().contiguous().requires_grad_() for tensor in leaves]
    expected = large_kernel(*planes, backend=backend)
    assert expected.is_contiguous()
    half = dtype == torch.bfloat16  # sums in another order may round to the neighbouring number
    torch.testing.assert_close(out, expected, rtol=1e-2 if half else 1e-5, atol=1e-3 if half else 1e-5)
    for ours, theirs in zip(found, torch.autograd.grad(expected, planes, grad), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2 if half else 1e-4, atol=1e-2 if half else 1e-4)


@pytest.mark.parametrize("size", [(3, 3), (7, 13), (31, 5)])
def test_compiled_loops_equal_conv2d_at_every_piece_size(size: tuple[int, int]) -> None:
    x, weight, bias = _made(1, 3, 67, 40, size=size)
    expected = F.conv2d(x, weight, bias, padding=(size[0] // 2, size[1] // 2), groups=3)
    torch.testing.assert_close(large_kernel(x, weight, bias, backend="cpu"), expected, rtol=1e-4, atol=1e-4)


def test_an_even_kernel_can_be_padded_as_the_message_says() -> None:
    x, weight, _ = _made(1, 2, 8, 9, size=(5, 5))
    even = F.pad(weight[..., 1:, 1:], (1, 0, 1, 0))
    assert large_kernel(x, even).shape == x.shape


def test_compiles_with_channels_last() -> None:
    x, weight, bias = _made(1, 4, 12, 14, size=(7, 7), last=True)
    compiled = torch.compile(large_kernel, backend="aot_eager", fullgraph=True)
    out = compiled(x, weight, bias)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, large_kernel(x, weight, bias))


def test_the_gradient_of_a_sum_is_an_expanded_tensor_and_taken() -> None:
    x, weight, bias = (tensor.requires_grad_() for tensor in _made(1, 2, 11, 50))
    large_kernel(x, weight, bias, backend="cpu").sum().backward()
    assert bias.grad is not None
    torch.testing.assert_close(bias.grad, torch.full((2,), 11 * 50.0))


@settings(deadline=None, max_examples=20)
@given(dy=st.integers(-3, 3), dx=st.integers(-3, 3), backend=st.sampled_from(["eager", "cpu"]))
def test_a_shifted_image_gives_the_shifted_result(dy: int, dx: int, backend: str) -> None:
    x, weight, bias = _made(1, 2, 9, 10, size=(5, 5))
    wide = F.pad(x, (8, 8, 8, 8))
    shifted = torch.roll(wide, (dy, dx), (2, 3))
    out, moved = (large_kernel(image, weight, bias, backend=backend) for image in (wide, shifted))
    torch.testing.assert_close(moved, torch.roll(out, (dy, dx), (2, 3)), rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(height=st.integers(1, 12), width=st.integers(1, 12), kh=st.sampled_from([3, 7]), kw=st.sampled_from([1, 7, 15]))
def test_any_small_size_equals_conv2d(height: int, width: int, kh: int, kw: int) -> None:
    x, weight, bias = _made(2, 3, height, width, size=(kh, kw))
    expected = F.conv2d(x, weight, bias, padding=(kh // 2, kw // 2), groups=3)
    torch.testing.assert_close(large_kernel(x, weight, bias, backend="cpu"), expected, rtol=1e-4, atol=1e-4)
