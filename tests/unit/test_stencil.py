"""The diffusion steps against what is known of Laplacians: constants, parabolas, means, convolutions, symmetry."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from core_attention.kernels.stencil import stencil

BACKENDS = ["reference", "eager", "cpu"]
BOUNDARIES = ["zeros", "reflect", "replicate", "circular"]


def _field(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("boundary", BOUNDARIES[1:])
def test_a_constant_stays(backend: str, boundary: str) -> None:
    u = torch.full((2, 3, 9, 8), 1.5)
    out = stencil(u, torch.full((2, 3), 0.05), (1, 4), 6, boundary, backend=backend)
    torch.testing.assert_close(out, u)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("d", [1, 2])
def test_the_laplacian_of_x_squared_is_two(backend: str, d: int) -> None:
    u = (torch.arange(12.0) ** 2).expand(1, 1, 10, 12)
    change = stencil(u, torch.ones(1, 1), (d,), 1, backend=backend) - u
    torch.testing.assert_close(change[..., d:-d, d:-d], torch.full((1, 1, 10 - 2 * d, 12 - 2 * d), 2.0 * d * d))


@pytest.mark.parametrize("backend", BACKENDS)
def test_replicate_with_short_arms_and_circular_keep_the_mean(backend: str) -> None:
    """No flux crosses a replicated border if arms are one pixel; longer arms see the edge pixel more than once."""
    u = _field(1, 2, 11, 13)
    for boundary, arms in (("replicate", (1,)), ("circular", (1, 5))):
        out = stencil(u, torch.full((len(arms), 2), 0.08), arms, 9, boundary, backend=backend)
        torch.testing.assert_close(out.mean((2, 3)), u.mean((2, 3)), rtol=1e-5, atol=1e-6)
    far = stencil(u, torch.full((1, 2), 0.08), (4,), 9, "replicate", backend=backend)
    assert not torch.allclose(far.mean((2, 3)), u.mean((2, 3)), rtol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_zeros_is_a_convolution_a_step(backend: str) -> None:
    u, c = _field(2, 3, 10, 70), torch.tensor([[0.1, 0.2, 0.05]])
    cross = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    weight = (torch.eye(9)[4].view(3, 3) + c.view(3, 1, 1) * cross).unsqueeze(1)
    expected = u
    for _ in range(5):
        expected = F.conv2d(expected, weight, padding=1, groups=3)
    torch.testing.assert_close(stencil(u, c, (1,), 5, "zeros", backend=backend), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_split_and_resume(backend: str) -> None:
    u, c, source, gate = (
        _field(1, 2, 9, 17),
        torch.full((2, 2), 0.07),
        _field(1, 2, 9, 17),
        _field(1, 2, 9, 17).sigmoid(),
    )
    options = {"dilations": (1, 3), "source": source, "gate": gate, "backend": backend}
    halfway = stencil(u, c, steps=3, **options)
    torch.testing.assert_close(stencil(halfway, c, steps=4, **options), stencil(u, c, steps=7, **options))


def test_a_frozen_reaction_is_one_euler_step() -> None:
    u, c, dt = _field(1, 2, 6, 7), torch.full((1, 2), 0.1), 0.1
    reaction = torch.tanh(u)
    expected = u + dt * reaction + 0.1 * (F.pad(u, (1, 1, 1, 1), mode="replicate")[..., 1:-1, 2:] - u)
    padded = F.pad(u, (1, 1, 1, 1), mode="replicate")
    for part in (padded[..., 1:-1, :-2], padded[..., 2:, 1:-1], padded[..., :-2, 1:-1]):
        expected = expected + 0.1 * (part - u)
    torch.testing.assert_close(stencil(u, c, source=dt * reaction), expected)


def test_a_hundred_steps_flatten_and_stay_finite() -> None:
    u = _field(1, 1, 8, 8)
    out = stencil(u, torch.full((1, 1), 0.25), (1,), 1000)
    torch.testing.assert_close(out, u.mean().expand_as(out), rtol=1e-4, atol=1e-5)


def test_states_between_steps_are_not_rounded_to_half_width() -> None:
    u, c = _field(1, 1, 16, 16).bfloat16(), torch.full((1, 1), 0.03125).bfloat16()
    wide = stencil(u.float(), c.float(), (1,), 20)
    for backend in BACKENDS:
        torch.testing.assert_close(stencil(u, c, (1,), 20, backend=backend), wide.bfloat16(), rtol=1e-2, atol=1e-3)


@settings(deadline=None, max_examples=30)
@given(
    height=st.integers(2, 9),
    width=st.integers(2, 9),
    arm=st.integers(1, 10),
    boundary=st.sampled_from(BOUNDARIES),
    flip=st.sampled_from([(2,), (3,), (2, 3)]),
)
def test_mirrored_fields_and_gradients_on_any_small_size(
    height: int, width: int, arm: int, boundary: str, flip: tuple[int, ...]
) -> None:
    if boundary in ("reflect", "circular"):
        arm = min(arm, height - 1, width - 1)
    u, c, cotangent = _field(1, 2, height, width), torch.full((1, 2), 0.1), _field(1, 2, height, width).cos()
    results = []
    for backend in ("reference", "cpu"):
        leaves = [u.clone().requires_grad_(), c.clone().requires_grad_()]
        out = stencil(leaves[0], leaves[1], (arm,), 3, boundary, backend=backend)
        results.append((out, *torch.autograd.grad(out, leaves, cotangent)))
    for ours, truth in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(ours, truth, rtol=1e-4, atol=1e-4)
    mirrored = stencil(u.flip(flip), c, (arm,), 3, boundary)
    torch.testing.assert_close(mirrored.flip(flip), stencil(u, c, (arm,), 3, boundary), rtol=1e-5, atol=1e-5)
