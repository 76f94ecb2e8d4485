"""Other voxels, other times, cutting and padding: against nilearn, numpy and the released paddings."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.datasets.brain_box import Box, centred
from pipelines.data.datasets.brain_grid import GridOptions, Lines, space_of
from pipelines.data.datasets.brain_prepare import Prepared, prepare
from pipelines.data.datasets.brain_signal import SignalOptions
from pipelines.data.datasets.brain_types import Recording
from pipelines.data.errors import InputError
from pipelines.data.formats.nifti import write_map

PLAIN = SignalOptions("none", mask="none")


def oblique(zooms: tuple[float, float, float] = (3.0, 3.5, 4.0)) -> np.ndarray:
    """A turned affine, still closest to RAS+."""
    a, b = 0.2, -0.1
    turn_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    turn_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = turn_z @ turn_x * zooms
    affine[:3, 3] = (-30, -40, 10)
    return affine


def scan(shape: tuple[int, int, int] = (12, 11, 9), volumes: int = 6, tr: float = 2.0) -> nib.Nifti1Image:
    draw = np.random.default_rng(0)
    values = scipy.ndimage.gaussian_filter(draw.normal(100, 50, (*shape, volumes)), (1.5, 1.5, 1.5, 0))
    image = nib.Nifti1Image(values.astype(np.float32), oblique())
    image.header.set_zooms((3.0, 3.5, 4.0, tr))
    return image


def whole(run: Prepared) -> np.ndarray:
    return run.window(0, run.volumes)


@pytest.mark.filterwarnings("ignore:Resampling binary images")
@pytest.mark.parametrize("voxel", [2.0, 3.5, 5.0])
def test_new_voxels_are_nilearn_s(voxel: float) -> None:
    from nilearn.image import resample_img

    image = scan()
    run = prepare(Recording("a", image), PLAIN, GridOptions(voxel=voxel))
    theirs = resample_img(
        image, target_affine=run.affine, target_shape=run.grid, interpolation="linear", copy_header=True
    )
    inside = resample_img(
        nib.Nifti1Image(np.ones((12, 11, 9), np.float32), image.affine),
        target_affine=run.affine,
        target_shape=run.grid,
        interpolation="linear",
        copy_header=True,
    )
    # nilearn mixes the field's edge with zeros, ours holds the last value: they must agree within.
    field = np.asarray(inside.dataobj) > 0.999
    assert field.mean() > 0.4
    assert np.abs(whole(run) - np.asarray(theirs.dataobj))[field].max() < 1e-3
    assert np.allclose(np.sqrt((run.affine[:3, :3] ** 2).sum(0)), voxel)
    assert np.allclose(run.affine[:3, :3] / voxel, image.affine[:3, :3] / (3.0, 3.5, 4.0)), "directions stay"
    centres = [a @ [*((np.array(s) - 1) / 2), 1] for a, s in ((image.affine, (12, 11, 9)), (run.affine, run.grid))]
    assert np.allclose(centres[0], centres[1]), "the field of view stays centred"
    assert any("mm became" in note for note in run.notes)


def test_new_voxels_are_scipy_s_everywhere() -> None:
    values = np.asarray(scan().dataobj)[..., 0].astype(np.float64)
    new = space_of("a", values.shape, oblique(), 2.3)
    assert new is not None
    to_old = np.linalg.inv(oblique()) @ new.affine
    expected = scipy.ndimage.affine_transform(
        values, to_old, output_shape=new.after, order=1, mode="nearest", prefilter=False
    )
    assert np.abs(new.resample(values) - expected).max() < 2e-4  # weights are float32


def test_equal_voxels_are_left_alone() -> None:
    image = nib.Nifti1Image(np.random.default_rng(0).random((4, 5, 6, 7)).astype(np.float32), np.diag([2, 2, 2, 1]))
    image.header.set_zooms((2, 2, 2, 1.5))
    run = prepare(Recording("a", image), PLAIN, GridOptions(voxel=2.0, tr=1.5, size=(4, 5, 6)))
    assert (whole(run) == np.asarray(image.dataobj)).all()
    assert not any("resampled" in note or "became" in note for note in run.notes)


def test_new_times_are_linear() -> None:
    image = scan(volumes=11)
    run = prepare(Recording("a", image), PLAIN, GridOptions(tr=0.8))
    old, new = np.arange(11) * 2.0, np.arange(26) * 0.8
    assert run.volumes == 26
    assert run.tr == 0.8
    values = np.asarray(image.dataobj)
    expected = np.stack([np.interp(new, old, values[x, 5, 3]) for x in range(12)])
    assert np.abs(whole(run)[:, 5, 3] - expected).max() < 1e-4
    assert (run.window(7, 4) == whole(run)[..., 7:11]).all()
    assert any("11 volumes of 2 s became 26 of 0.8 s" in note for note in run.notes)


def test_mask_on_new_voxels_is_nilearn_s() -> None:
    from nilearn.image import resample_img

    mask = np.zeros((12, 11, 9), np.float32)
    mask[3:9, 2:8, 2:7] = 1
    image = nib.Nifti1Image(mask[..., None] * np.arange(1, 5, dtype=np.float32), oblique())
    image.header.set_zooms((3.0, 3.5, 4.0, 2.0))
    run = prepare(Recording("a", image), SignalOptions(), GridOptions(voxel=2.3))
    theirs = resample_img(
        nib.Nifti1Image(mask, oblique()),
        target_affine=run.affine,
        target_shape=run.grid,
        interpolation="nearest",
        copy_header=True,
    )
    assert (run.mask == (np.asarray(theirs.dataobj) > 0)).all()


def test_maps_come_back_to_the_scan(tmp_path) -> None:
    """A map of the grid lies on the run's own voxels, at the same place in mm."""
    image = scan()
    run = prepare(Recording("a", image), PLAIN, GridOptions(voxel=2.0, size=(20, 19, 21), fit="centre"))
    x, y, z = np.indices(run.grid)
    ramp = (run.affine[:3, :3] @ np.stack([x.ravel(), y.ravel(), z.ravel()]) + run.affine[:3, 3:])[0].reshape(run.grid)
    found = run.back(ramp.astype(np.float32))
    assert found.shape == (12, 11, 9)
    cells = np.indices((12, 11, 9)).reshape(3, -1)
    millimetres = (oblique()[:3, :3] @ cells + oblique()[:3, 3:])[0].reshape(12, 11, 9)
    deep = (slice(3, -3),) * 3
    assert np.abs(found - millimetres)[deep].max() < 1e-3
    assert run.back(np.ones(run.grid, bool))[deep].all()
    assert run.back(np.zeros((*run.grid, 3), np.float32)).shape == (12, 11, 9, 3)
    written = write_map(tmp_path / "map.nii.gz", found, run.scan)
    assert np.allclose(nib.load(written).affine, image.affine, atol=1e-5)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="another grid"):
        run.back(found)


@pytest.mark.parametrize(
    ("size", "pads"),
    [
        ((75, 93, 81), (8, 7, 2, 1, 11, 10)),  # HCP S1200
        ((79, 96, 85), (6, 5, 0, 0, 9, 8)),  # ABCD, once its 97 were cut to 96
        ((91, 109, 91), (3, 2, -7, -6, 3, 2)),  # UK Biobank
        ((96, 96, 95), (1, 0, 0, 0, 0, 0)),
    ],
)
def test_released_paddings(size: tuple[int, int, int], pads: tuple[int, ...]) -> None:
    """The released code gives pads of the last axis first; its (0, 1) for ABCD tasks pads behind instead."""
    import torch

    box = centred(size, (96, 96, 96))
    assert (box.low[2], box.high[2], box.low[1], box.high[1], box.low[0], box.high[0]) == pads
    small = tuple(n // 8 + 1 for n in size)
    values = np.random.default_rng(0).random((2, *small)).astype(np.float32)
    wanted = centred((small[0], small[1], small[2]), (12, 12, 12))
    order = (wanted.low[2], wanted.high[2], wanted.low[1], wanted.high[1], wanted.low[0], wanted.high[0])
    theirs = torch.nn.functional.pad(torch.from_numpy(values), order, value=-3.0).permute(1, 2, 3, 0).numpy()
    assert (wanted.put(values.transpose(1, 2, 3, 0), -3.0) == theirs).all()


sides = st.tuples(*[st.integers(1, 9)] * 3)


@given(sides, sides)
@settings(max_examples=200, deadline=None)
def test_boxes_are_undone(size: tuple[int, int, int], wanted: tuple[int, int, int]) -> None:
    box = centred(size, wanted)
    values = 1 + np.arange(np.prod(size), dtype=np.float32).reshape(size)
    put = box.put(values, -1.0)
    assert put.shape == wanted == box.size(size)
    kept = np.minimum(size, wanted)
    assert (put != -1).sum() == np.prod(kept), "every kept voxel once, every new one filled"
    back = box.back(put)
    source, _ = box.slices(size)
    assert (back[source] == values[source]).all()
    outside = np.ones(size, bool)
    outside[source] = False
    assert (back[outside] == 0).all()
    for low, high in zip(box.low, box.high, strict=True):
        assert abs(low) - abs(high) in (0, 1), "centred; of an odd number the first side has more"
    # The voxel with index p before is at p + low: the affine says the same.
    moved = box.affine(np.diag([2.0, 3.0, 4.0, 1.0]))
    assert np.allclose(moved @ [*box.low, 1], [0, 0, 0, 1])


def test_windows_are_boxed_with_the_background() -> None:
    values = np.random.default_rng(0).normal(9, 1, (5, 8, 6, 12)).astype(np.float32)
    values[0] = 0
    plain = prepare(Recording("a", values, tr=1.0))
    run = prepare(Recording("a", values, tr=1.0), None, GridOptions(size=(8, 7, 6), fit="centre"))
    assert run.box == Box((2, -1, 0), (1, 0, 0))
    window = run.window(3, 4)
    assert window.shape == (8, 7, 6, 4)
    assert (window[2:7] == plain.window(3, 4)[:, 1:]).all()
    least = window.min()
    assert least == np.float32(run.statistics["fill"])
    assert (window[:2] == least).all()
    assert (window[7:] == least).all()
    assert (run.window(3, 4, boxed=False) == plain.window(3, 4)).all()
    assert run.mask.sum() == 4 * 7 * 6
    assert any("24 of 192 brain voxels were cut off" in note for note in run.notes)
    assert any("X +2 and +1, Y -1 and +0" in note for note in run.notes)


def test_places_beyond_the_ends_hold_the_last_value() -> None:
    lines = Lines.at(np.array([-2.0, 0.25, 1.0, 7.0]), 2)
    assert lines(np.array([1.0, 5.0]), 0).tolist() == [1.0, 2.0, 5.0, 5.0]
