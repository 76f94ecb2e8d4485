"""Augmentation of scans: never in place, by the window's seed alone, with an untouched background, as scipy does it."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.errors import ConfigError, InputError
from pipelines.fmri.augment import augment, mixup
from pipelines.fmri.augment_options import AugmentOptions


def only(**changes: Any) -> AugmentOptions:
    """Nothing but what is named."""
    return AugmentOptions(**{"rotate": 0.0, "scale": 0.0, "noise": 0.0, "smooth": 0.0, **changes})


TURNED = AugmentOptions(noise=0.0, smooth=0.0)
FILL = -1.75


def windows(count: int, grid: tuple[int, int, int] = (12, 10, 8), frames: int = 3, seed: int = 0) -> Tensor:
    """Noise in a box, the background around it."""
    draws = torch.Generator().manual_seed(seed)
    x = torch.full((count, 1, *grid, frames), FILL)
    inside = tuple(slice(n // 4, n - n // 4) if n > 1 else slice(0, 1) for n in grid)
    part = x[:, 0, inside[0], inside[1], inside[2]]
    x[:, 0, inside[0], inside[1], inside[2]] = torch.randn(part.shape, generator=draws)
    return x


def smooth_windows(count: int, grid: tuple[int, int, int]) -> Tensor:
    """A bump that interpolation follows closely, one frame; not alike on both sides of any axis."""
    axes = torch.meshgrid(*[torch.linspace(-1, 1, n) if n > 1 else torch.zeros(1) for n in grid], indexing="ij")
    bump = torch.exp(-3 * ((axes[0] - 0.2) ** 2 + 2 * (axes[1] + 0.1) ** 2 + 1.5 * (axes[2] - 0.1) ** 2))
    return bump.expand(count, 1, *grid).unsqueeze(-1).clone()


EVERYTHING = AugmentOptions(noise_chance=0.6, smooth_chance=0.6, shift=1.5, flip=True, drop=0.2, drop_block=2)


@pytest.mark.parametrize("options", [AugmentOptions(), EVERYTHING, only()])
def test_nothing_is_done_in_place_and_the_result_is_new(options: AugmentOptions) -> None:
    x = windows(5)
    before = x.clone()
    y = augment(x, options, range(5))
    assert torch.equal(x, before)
    assert y.shape == x.shape
    assert y.is_contiguous()
    y.zero_()
    assert torch.equal(x, before)


def test_no_change_is_no_change() -> None:
    x = windows(4)
    torch.testing.assert_close(augment(x, only(), range(4)), x, rtol=0, atol=1e-6)
    still = AugmentOptions(probability=0.0, noise_chance=0.0, smooth_chance=0.0)
    torch.testing.assert_close(augment(x, still, range(4)), x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", [AugmentOptions(), EVERYTHING])
def test_a_window_depends_on_its_seed_alone(options: AugmentOptions) -> None:
    x = windows(6)
    whole = augment(x, options, [5, 6, 7, 8, 9, 10])
    assert torch.equal(whole, augment(x, options, [5, 6, 7, 8, 9, 10]))
    for number in range(6):
        alone = augment(x[number : number + 1], options, [5 + number])
        assert torch.equal(whole[number : number + 1], alone)
    assert not torch.equal(whole, augment(x, options, [15, 16, 17, 18, 19, 20]))


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    augment(windows(3), EVERYTHING, range(3))
    assert torch.equal(before, torch.get_rng_state())


def test_every_frame_gets_the_same() -> None:
    one = windows(4, frames=1)
    y = augment(one.expand(-1, -1, -1, -1, -1, 5), EVERYTHING, range(4))
    assert torch.equal(y, y[..., :1].expand_as(y))
    assert not torch.allclose(y[..., :1], one)
    many = windows(4, frames=5)
    turned = augment(many, TURNED, range(4))
    for frame in range(5):
        torch.testing.assert_close(turned[..., frame], augment(many[..., frame : frame + 1], TURNED, range(4))[..., 0])


def test_the_background_keeps_its_value_exactly() -> None:
    x = torch.full((20, 1, 24, 24, 24, 2), FILL)
    x[:, :, 9:15, 9:15, 9:15] = torch.randn(20, 1, 6, 6, 6, 2, generator=torch.Generator().manual_seed(0))
    y = augment(x, AugmentOptions(noise_chance=1.0, smooth_chance=1.0), range(20))
    edge = torch.ones(24, 24, 24, dtype=torch.bool)
    edge[1:-1, 1:-1, 1:-1] = False
    assert bool((y[:, 0, edge] == FILL).all())
    assert not torch.equal(x, y)
    empty = torch.full((10, 1, 6, 6, 6, 2), 0.1)
    assert torch.equal(augment(empty, EVERYTHING, range(10)), empty)
    noisy = augment(empty, only(noise=0.1, noise_chance=1.0, noise_background=True), range(10))
    assert bool((noisy != empty).all()), "as released"


def test_the_edge_of_the_image_is_continued() -> None:
    """A brain that the image cuts must not get a rim of background."""
    full = torch.full((8, 1, 9, 9, 1, 1), 3.0)
    moved = augment(full, AugmentOptions(noise=0.0, smooth=0.0, shift=4.0), range(8), fill=[-1.0] * 8)
    torch.testing.assert_close(moved, full)


def reference(x: NDArray[np.float64], matrix: NDArray[np.float64], move: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where each voxel of the result is read, about the centre, by scipy."""
    from scipy.ndimage import affine_transform

    centre = (np.array(x.shape) - 1) / 2
    offset: Any = centre - matrix @ centre + move
    return affine_transform(x, matrix, offset=offset, order=1, mode="nearest")


def drawn(seed: int, options: AugmentOptions, zooms: tuple[float, float, float]) -> tuple[Any, Any]:
    """Matrix and move by the definition: rotations about X, Y, Z in mm, sizes, moves, from the window's draws."""
    u = 2 * torch.rand(17, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).numpy() - 1
    a, b, c = u[1:4] * math.radians(options.rotate)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, -np.sin(b)], [0, 1, 0], [np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    mm = np.diag(zooms)
    scale = np.diag(1 + u[4:7] * options.scale)
    return np.linalg.inv(mm) @ about_x @ about_y @ about_z @ scale @ mm, u[7:10] * options.shift


@pytest.mark.parametrize("zooms", [(1.0, 1.0, 1.0), (2.0, 2.0, 3.5)])
def test_turning_is_what_scipy_does(zooms: tuple[float, float, float]) -> None:
    options = AugmentOptions(rotate=25.0, scale=0.2, shift=1.5, noise=0.0, smooth=0.0)
    x = smooth_windows(4, (13, 10, 7)).double()
    y = augment(x, options, [3, 4, 5, 6], fill=[0.0] * 4, zooms=zooms)
    for number, seed in enumerate((3, 4, 5, 6)):
        expected = reference(x[number, 0, ..., 0].numpy(), *drawn(seed, options, zooms))
        np.testing.assert_allclose(y[number, 0, ..., 0].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_slice_is_turned_within_itself(place: int) -> None:
    """An axis of one voxel: nothing is turned out of the plane, whichever axis it is."""
    grid = [9, 9, 9]
    grid[place] = 1
    x = smooth_windows(3, (grid[0], grid[1], grid[2])).double()
    options = AugmentOptions(rotate=30.0, scale=0.1, noise=0.0, smooth=0.0)
    y = augment(x, options, [1, 2, 3])
    wide = [axis for axis in range(3) if axis != place]
    for number, seed in enumerate((1, 2, 3)):
        u = 2 * torch.rand(17, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).numpy() - 1
        angle = u[1 + place] * math.radians(30)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = turn @ np.diag(1 + u[4:7][wide] * 0.1)
        expected = reference(x[number, 0, ..., 0].numpy().squeeze(place), matrix, np.zeros(2))
        np.testing.assert_allclose(y[number, 0, ..., 0].numpy().squeeze(place), expected, atol=1e-12)


@pytest.mark.parametrize("grid", [(7, 1, 1), (1, 1, 7), (1, 1, 1)])
def test_lines_and_points(grid: tuple[int, int, int]) -> None:
    x = smooth_windows(3, grid)
    y = augment(x, EVERYTHING, range(3))
    assert y.shape == x.shape
    assert torch.isfinite(y).all()
    if grid == (1, 1, 1):
        torch.testing.assert_close(augment(x, TURNED, range(3)), x)


def test_half_of_the_windows_are_mirrored_left_to_right() -> None:
    x = windows(200, grid=(4, 3, 1), frames=1)
    y = augment(x, only(flip=True), range(200))
    mirrored = (y - x.flip(2)).abs().flatten(1).amax(1) < 1e-6
    plain = (y - x).abs().flatten(1).amax(1) < 1e-6
    assert bool((mirrored | plain).all())
    assert 70 < int(mirrored.sum()) < 130


def test_noise_has_the_share_and_the_spread_that_is_asked_for() -> None:
    x = torch.ones(600, 1, 8, 8, 8, 1)
    x[:, :, 0] = 0.0
    y = augment(x, only(noise=0.4), range(600)) - x
    assert not y[:, :, 0].any()
    spread = y[:, 0, 1:].flatten(1).std(1)
    noisy = spread > 0
    assert 0.24 < float(noisy.float().mean()) < 0.36  # 0.3, four standard errors of 0.019 about it
    assert float(spread.max()) < 0.44
    assert 0.15 < float(spread[noisy].mean()) < 0.25  # uniform from 0 to 0.4: mean 0.2
    assert float(y[noisy][:, 0, 1:].mean().abs()) < 0.01


def test_smoothing_is_the_area_under_a_gaussian_and_continues_the_edge() -> None:
    from scipy.stats import norm

    options = only(smooth=1.0, smooth_chance=1.0)
    x = torch.zeros(1, 1, 15, 15, 15, 2, dtype=torch.float64)
    x[:, :, 7, 7, 7] = 1.0
    y = augment(x, options, [11])[0, 0, ..., 0].numpy()
    sigma = torch.rand(17, generator=torch.Generator().manual_seed(11), dtype=torch.float64)[14:17].numpy()
    lines = []
    for sd in sigma:
        reach = math.ceil(4 * sd)
        steps = np.arange(-7, 8)
        area = np.where(abs(steps) <= reach, norm.cdf(steps + 0.5, scale=sd) - norm.cdf(steps - 0.5, scale=sd), 0.0)
        lines.append(area / area.sum())
    np.testing.assert_allclose(y, np.einsum("i,j,k->ijk", *lines), atol=1e-12)
    step = torch.zeros(1, 1, 15, 1, 1, 1, dtype=torch.float64)
    step[:, :, 10:] = 2.0
    edge = augment(step, options, [11], fill=[0.0])[0, 0, :, 0, 0, 0].numpy()
    expected = np.convolve(np.pad(step.flatten().numpy(), 7, mode="edge"), lines[0], mode="valid")
    np.testing.assert_allclose(edge, expected, atol=1e-12)


def test_holes_are_blocks_of_background() -> None:
    x = torch.ones(50, 1, 8, 6, 1, 2)
    y = augment(x, only(drop=0.25, drop_block=2), range(50), fill=[FILL] * 50)
    holes = y == FILL
    assert bool((holes | (y == 1.0)).all())
    blocks = holes[:, 0, :, :, 0, 0].reshape(50, 4, 2, 3, 2)
    assert bool((blocks.all((2, 4)) == blocks.any((2, 4))).all())
    assert 0.19 < float(holes.float().mean()) < 0.31  # 0.25, standard error 0.018


def test_only_a_share_is_turned() -> None:
    x = windows(200, grid=(6, 5, 4), frames=1)
    y = augment(x, AugmentOptions(noise=0.0, smooth=0.0, probability=0.4), range(200))
    changed = (y - x).abs().flatten(1).amax(1) > 1e-5
    assert 52 < int(changed.sum()) < 108
    assert torch.equal(y[changed], augment(x, TURNED, range(200))[changed])


def test_gradients_pass() -> None:
    x = windows(2, grid=(4, 4, 3), frames=2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda one: augment(one, EVERYTHING, [1, 4], fill=[0.0, 0.0]), (x,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_worked_on_in_float32(dtype: torch.dtype) -> None:
    x = windows(3).to(dtype)
    y = augment(x, AugmentOptions(), range(3))
    assert y.dtype == dtype
    assert torch.equal(y, augment(x.float(), AugmentOptions(), range(3)).to(dtype))


def test_parts_are_what_the_whole_is(monkeypatch: pytest.MonkeyPatch) -> None:
    x = windows(5)
    whole = augment(x, EVERYTHING, range(5))
    monkeypatch.setattr("pipelines.fmri.augment._AT_ONCE", 2 * x[0].numel())
    assert torch.equal(augment(x, EVERYTHING, range(5)), whole)


def test_mixed_windows_and_their_shares() -> None:
    x = windows(6)
    mixed = mixup(x, 0.4, seed=3)
    for number in range(6):
        share = float(mixed.share[number])
        assert 0.5 <= share <= 1.0
        expected = share * x[number] + (1 - share) * x[int(mixed.other[number])]
        torch.testing.assert_close(mixed.windows[number], expected)
    assert sorted(mixed.other.tolist()) == list(range(6))
    assert torch.equal(mixed.windows, mixup(x, 0.4, seed=3).windows)
    with pytest.raises(ConfigError, match="mixup"):
        mixup(x, 0.0, seed=3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("probability", 1.5),
        ("rotate", -1.0),
        ("rotate", float("nan")),
        ("scale", 1.0),
        ("noise", float("inf")),
        ("smooth", 9.0),
        ("drop", True),
        ("drop_block", 0),
        ("drop_block", 1.5),
        ("mixup", -0.1),
    ],
)
def test_settings_out_of_range_are_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^augment\.{name}: "):
        AugmentOptions(**{name: value}).validate()


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"x": torch.ones(2, 1, 4, 4, 4)}, InputError, "no windows of scans"),
        ({"x": torch.ones(2, 3, 4, 4, 4, 1)}, InputError, "no windows of scans"),
        ({"x": torch.ones(2, 1, 4, 0, 4, 1)}, InputError, "no windows of scans"),
        ({"x": torch.ones(2, 1, 4, 4, 4, 1, dtype=torch.int64)}, InputError, "no windows of scans"),
        ({"seeds": [1]}, ConfigError, "one seed a window"),
        ({"fill": [1.0]}, ConfigError, "one value a window"),
        ({"zooms": (1.0, 0.0, 1.0)}, ConfigError, "no edges of a voxel"),
    ],
)
def test_input_that_does_not_fit_is_refused(given: dict[str, Any], kind: type[Exception], words: str) -> None:
    call: dict[str, Any] = {"x": torch.ones(2, 1, 4, 4, 4, 1), "options": AugmentOptions(), "seeds": [1, 2]} | given
    with pytest.raises(kind, match=words):
        augment(**call)


def test_no_windows_are_no_trouble() -> None:
    assert augment(windows(0), EVERYTHING, []).shape == (0, 1, 12, 10, 8, 3)


def test_an_epoch_of_slices_takes_well_under_two_seconds() -> None:
    x, before = windows(32, grid=(40, 20, 1), frames=1), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        best = math.inf
        for _ in range(2):
            start = time.perf_counter()
            for first in range(0, 1408, 32):
                augment(x, AugmentOptions(), range(first, first + 32))
            best = min(best, time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    assert best < 2.0


def test_the_settings_load_no_torch() -> None:
    code = "import sys, pipelines.fmri.augment_options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
