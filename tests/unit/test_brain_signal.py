"""Standardised windows of runs against plain computations on whole arrays, scipy and nilearn."""

from __future__ import annotations

import pathlib
import tracemalloc
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import scipy.signal

from pipelines.data.datasets import brain_statistics
from pipelines.data.datasets.brain_grid import GridOptions
from pipelines.data.datasets.brain_prepare import Prepared, check_alike, prepare
from pipelines.data.datasets.brain_signal import SignalOptions
from pipelines.data.datasets.brain_types import Recording
from pipelines.data.datasets.brain_windows import BrainWindows, starts
from pipelines.data.errors import InputError
from pipelines.data.formats.nifti_types import Scan, Stored

SHAPE, VOLUMES = (5, 6, 7), 40


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks in every pass."""
    monkeypatch.setattr(brain_statistics, "CHUNK", 7 * 210 + 3)


def run_values(seed: int = 0, offset: float = 1000.0) -> np.ndarray:
    """(5, 6, 7, 40): offsets, drifts and noise of each voxel; a rim of zeros."""
    draw = np.random.default_rng(seed)
    time = np.linspace(-1, 1, VOLUMES)
    values = offset + draw.normal(0, 200, (*SHAPE, 1)) + draw.normal(0, 9, (*SHAPE, 1)) * time
    values = values + draw.normal(0, 5, (*SHAPE, 1)) * time**2 + draw.normal(0, 8, (*SHAPE, VOLUMES))
    values[0], values[:, :, -1] = 0, 0
    return values.astype(np.float32)


def brain(values: np.ndarray) -> np.ndarray:
    return (values != 0).any(3)


def ready(values: Any, grid: GridOptions | None = None, tr: float | None = 2.0, **signal: Any) -> Prepared:
    return prepare(Recording("a", values, tr=tr), SignalOptions(**signal), grid)


def whole(run: Prepared, frames: int = 7) -> np.ndarray:
    """All volumes put together from windows."""
    parts = [run.window(start, min(frames, run.volumes - start)) for start in range(0, run.volumes, frames)]
    return np.concatenate(parts, axis=3)


def test_brain_scores_are_the_paper_s_rule() -> None:
    values = run_values()
    mask, wide = brain(values), values.astype(np.float64)
    scores = (wide - wide[mask].mean()) / wide[mask].std(ddof=1)
    scores[~mask] = scores[mask].min()
    run = ready(values)
    assert np.abs(whole(run) - scores).max() < 2e-6
    assert (run.mask == mask).all()
    assert run.statistics["background_voxels"] == 210 - mask.sum()
    assert any("brain mask: 144 of 210 voxels" in note for note in run.notes)
    zero = whole(ready(values, fill="zero"))
    assert (zero[~mask] == 0).all()
    assert np.abs(zero[mask] - scores[mask]).max() < 2e-6


def test_released_preparation_itself() -> None:
    """The steps of the released script written out with torch."""
    torch = pytest.importorskip("torch")
    data = torch.from_numpy(run_values(3))
    background = data == 0
    inside = data[~background]
    scores = (data - inside.mean()) / inside.std()
    expected = torch.where(background, scores[~background].min(), scores)
    assert np.abs(whole(ready(data.numpy())) - expected.numpy()).max() < 1e-4  # its sums are float32
    low, high = inside.min(), inside.max()
    unit = torch.where(background, torch.zeros(()), (data - low) / (high - low))
    assert np.abs(whole(ready(data.numpy(), standardise="minmax")) - unit.numpy()).max() < 1e-6


def test_a_voxel_that_is_zero_only_sometimes_is_brain() -> None:
    values = run_values()
    values[2, 2, 2, 5:] = 0
    assert ready(values).mask[2, 2, 2]


@pytest.mark.parametrize("offset", [0.0, 1000.0, 3e6])
@pytest.mark.parametrize("order", [-1, 0, 1, 2, 5])
def test_each_voxel_over_its_run(order: int, offset: float) -> None:
    values = run_values(offset=offset)
    mask = brain(values)
    rows = values[mask].astype(np.float64)  # (voxels, T)
    if order >= 0:
        basis = np.polynomial.polynomial.polyvander(np.linspace(-1, 1, VOLUMES), order)
        rows = rows - (basis @ np.linalg.lstsq(basis, rows.T, rcond=None)[0]).T
    else:
        rows = rows - rows.mean(1, keepdims=True)
    expected = rows / rows.std(1, ddof=1, keepdims=True)
    run = ready(values, standardise="voxel", detrend=order)
    found = whole(run)
    assert np.abs(found[mask] - expected).max() < 5e-6
    assert np.allclose(found[~mask], expected.min(), atol=5e-6)
    assert np.abs(run.matrix() - expected.T).max() < 5e-6


def test_order_one_is_scipy_s_and_nilearn_s() -> None:
    from nilearn.signal import clean

    values = run_values()
    rows = values[brain(values)].T.astype(np.float64)
    found = ready(values, standardise="voxel", detrend=1).matrix()
    trend = scipy.signal.detrend(rows, axis=0)
    assert np.abs(found - trend / trend.std(0, ddof=1)).max() < 5e-6
    assert np.abs(found - clean(rows, detrend=True, standardize="zscore_sample")).max() < 5e-6
    plain = clean(rows, detrend=True, standardize=None)
    assert np.abs(ready(values, standardise="none", detrend=1).matrix() - plain).max() < 1e-4


def test_detrended_brain_has_one_deviation() -> None:
    values = run_values()
    rows = scipy.signal.detrend(values[brain(values)].astype(np.float64), axis=1)
    found = ready(values, detrend=1).matrix()
    assert np.abs(found - (rows / rows.std(ddof=1)).T).max() < 5e-6


def table(folder: pathlib.Path, seed: int = 4) -> tuple[pathlib.Path, pd.DataFrame]:
    """Confounds as fMRIPrep writes them: derivatives without a first value."""
    draw = np.random.default_rng(seed)
    columns: dict[str, np.ndarray] = {}
    for name in ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z", "csf", "white_matter"):
        value = np.cumsum(draw.normal(0, 1, VOLUMES)) + 3
        slope = np.concatenate([[np.nan], np.diff(value)])
        columns |= {name: value, f"{name}_power2": value**2}
        columns |= {f"{name}_derivative1": slope, f"{name}_derivative1_power2": slope**2}
    for i in range(2):
        columns[f"cosine0{i}"] = np.cos(np.pi * (i + 1) * (np.arange(VOLUMES) + 0.5) / VOLUMES)
    columns["framewise_displacement"] = np.concatenate([[np.nan], np.abs(draw.normal(0.2, 0.1, VOLUMES - 1))])
    columns["framewise_displacement"][20] = 9.0
    columns["std_dvars"] = np.concatenate([[np.nan], np.full(VOLUMES - 1, 1.0)])
    frame = pd.DataFrame(columns)
    path = folder / "sub-1_task-x_desc-confounds_timeseries.tsv"
    frame.to_csv(path, sep="\t", index=False, na_rep="n/a")
    return path, frame


@pytest.mark.parametrize("detrend", [-1, 1])
def test_confounds_by_column_are_nilearn_s(tmp_path: pathlib.Path, detrend: int) -> None:
    from nilearn.signal import clean

    path, frame = table(tmp_path)
    values = run_values()
    rows = values[brain(values)].T.astype(np.float64)
    wanted = ("trans_x", "rot_y_derivative1", "trans_x")
    used = frame[["trans_x", "rot_y_derivative1"]].bfill().to_numpy()
    record = Recording("a", values, confounds=path, tr=2.0)
    run = prepare(record, SignalOptions(standardise="voxel", detrend=detrend, confounds=wanted))
    expected = clean(rows, detrend=detrend == 1, standardize="zscore_sample", confounds=used)
    assert np.abs(run.matrix() - expected).max() < 1e-5
    assert any("2 confounds removed" in note for note in run.notes)
    assert any("1 confounds without a value in the first row" in note for note in run.notes)
    kept = prepare(record, SignalOptions(standardise="none", detrend=detrend, confounds=wanted)).matrix()
    assert np.abs(kept - clean(rows, detrend=detrend == 1, standardize=None, confounds=used)).max() < 1e-3


def test_groups_are_nilearn_s_under_any_name(tmp_path: pathlib.Path) -> None:
    from nilearn.interfaces.fmriprep import load_confounds
    from nilearn.signal import clean

    path, _ = table(tmp_path)
    groups = ("motion", "high_pass", "wm_csf")
    used, _ = load_confounds(str(tmp_path / "sub-1_task-x_desc-preproc_bold.nii.gz"), strategy=groups)
    values = run_values()
    rows = values[brain(values)].T.astype(np.float64)
    other = path.rename(tmp_path / "whatever.tsv")
    run = prepare(
        Recording("a", values, confounds=other, tr=2.0), SignalOptions(standardise="voxel", confounds=groups, detrend=1)
    )
    expected = clean(rows, detrend=True, standardize="zscore_sample", confounds=used.to_numpy())
    assert used.shape[1] == 28
    assert np.abs(run.matrix() - expected).max() < 2e-5


def test_scrubbing_keeps_every_volume_and_says_so(tmp_path: pathlib.Path) -> None:
    path, _ = table(tmp_path)
    record = Recording("a", run_values(), confounds=path, tr=2.0)
    run = prepare(record, SignalOptions(confounds=("motion", "scrub")))
    assert run.volumes == VOLUMES
    assert any("volumes that scrub, non_steady_state would leave out were kept" in note for note in run.notes)


def test_dependent_confounds_remove_no_more(tmp_path: pathlib.Path) -> None:
    course = np.random.default_rng(1).normal(0, 1, VOLUMES)
    frame = pd.DataFrame({"a": course, "b": 3 - 2 * course, "c": 7.0, "d": np.arange(VOLUMES)})
    frame.to_csv(tmp_path / "a.tsv", sep="\t", index=False)
    record = Recording("a", run_values(), confounds=tmp_path / "a.tsv", tr=2.0)
    one = prepare(record, SignalOptions("voxel", 1, ("a",)))
    all_four = prepare(record, SignalOptions("voxel", 1, ("a", "b", "c", "d")))
    assert np.abs(one.matrix() - all_four.matrix()).max() < 1e-5
    assert any("4 confounds removed (a, b, c, d), 1 of them constant" in note for note in all_four.notes)


def test_confounds_follow_a_new_repetition_time(tmp_path: pathlib.Path) -> None:
    """A confound that is the signal leaves nothing, also where both were interpolated."""
    draw = np.random.default_rng(1)
    course = draw.normal(0, 1, VOLUMES)
    values = (5 + course + 1e-3 * draw.normal(0, 1, (*SHAPE, VOLUMES))).astype(np.float32)
    path = tmp_path / "a.csv"
    pd.DataFrame({"course": course}).to_csv(path, index=False)
    grid = GridOptions(tr=0.75)
    options = SignalOptions("none", confounds=("course",), mask="none")
    run = prepare(Recording("a", values, confounds=path, tr=2.0), options, grid)
    assert run.volumes == 105
    assert whole(run).std() < 2e-3


def test_voxels_that_do_not_vary_become_background() -> None:
    values = run_values()
    values[2, 2, 2], values[3, 3, 3] = 700.123, np.linspace(1, 3, VOLUMES, dtype=np.float32)
    run = ready(values, standardise="voxel", detrend=1)
    assert not run.mask[2, 2, 2]
    assert not run.mask[3, 3, 3]
    assert any("2 brain voxels that do not vary became background" in note for note in run.notes)
    rows = scipy.signal.detrend(values[run.mask].astype(np.float64), axis=1)
    assert np.abs(run.matrix() - (rows / rows.std(1, ddof=1, keepdims=True)).T).max() < 5e-6, "the others as before"
    assert ready(values).mask[2, 2, 2], "one deviation for the whole brain keeps it"


def test_windows_agree_with_each_other() -> None:
    run = ready(run_values(), standardise="voxel", detrend=2)
    full = run.window(0, VOLUMES)
    assert (run.window(13, 5) == full[..., 13:18]).all()
    assert full.dtype == np.float32
    assert (run.matrix(np.ones(SHAPE, bool)) == full.reshape(-1, VOLUMES).T).all()


def test_masks(tmp_path: pathlib.Path) -> None:
    values = run_values()
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:4, 2:4, 2:5] = 1
    image = nib.Nifti1Image(values, np.diag([-2.0, 2, 2, 1]))
    image.header.set_zooms((2, 2, 2, 1.5))
    nib.save(image, tmp_path / "a.nii.gz")
    nib.save(nib.Nifti1Image(mask, np.diag([-2.0, 2, 2, 1])), tmp_path / "mask.nii.gz")
    record = Recording("a", tmp_path / "a.nii.gz", mask=tmp_path / "mask.nii.gz")
    run = prepare(record)
    assert (run.mask == mask[::-1]).all(), "both are turned to RAS+"
    inside = values[mask > 0].astype(np.float64)
    assert np.isclose(float(run.statistics["sd"]), inside.std(ddof=1))
    assert prepare(record, SignalOptions(mask="none")).mask.all()
    assert prepare(record, SignalOptions(mask="zeros")).mask.sum() == 144
    run.close()


def test_epi_mask_is_nilearn_s() -> None:
    from nilearn.masking import compute_epi_mask

    draw = np.random.default_rng(0)
    where = np.linalg.norm(np.indices((16, 16, 16)).transpose(1, 2, 3, 0) - 7.5, axis=3) < 6
    values = (draw.normal(10, 2, (16, 16, 16, 9)) + 500 * where[..., None]).astype(np.float32)
    expected = compute_epi_mask(nib.Nifti1Image(values.mean(3), np.eye(4))).get_fdata() > 0
    assert (ready(values, mask="epi").mask == expected).all()
    assert 500 < expected.sum() < 1200


def test_smoothing_is_nilearn_s() -> None:
    from nilearn.image import smooth_img

    values = run_values()
    image = nib.Nifti1Image(values, np.diag([2.0, 3, 4, 1]))
    image.header.set_zooms((2, 3, 4, 1.5))
    run = prepare(Recording("a", image), SignalOptions("none", smooth=5.0, fill="zero"))
    expected = np.asarray(smooth_img(image, 5.0).dataobj)
    assert np.abs(whole(run) - expected)[run.mask].max() < 1e-3
    assert (run.mask == brain(values)).all(), "the mask is that of the values before smoothing"


def test_not_a_number_as_background() -> None:
    values = run_values()
    values[2, 3, 4, 7], values[3, 3, 3, [1, 7]] = np.nan, np.inf
    run = ready(values, nan="background")
    rest = run_values()
    rest[2, 3, 4], rest[3, 3, 3] = 0, 0
    assert (whole(run) == whole(ready(rest))).all()
    assert any("2 voxels with NaN or infinite values in 2 volumes became background" in note for note in run.notes)


class Made:
    """Volumes made when asked for."""

    def volume(self, index: int) -> np.ndarray:
        return np.random.default_rng(index).integers(1, 900, (32, 32, 32)).astype(np.int16)

    def close(self) -> None: ...


@pytest.mark.parametrize("signal", [SignalOptions(), SignalOptions("voxel", 2)])
def test_memory_does_not_grow_with_the_volumes(monkeypatch: pytest.MonkeyPatch, signal: SignalOptions) -> None:
    import pipelines.data.formats.nifti as nifti

    monkeypatch.setattr(brain_statistics, "CHUNK", 8 * 32**3)
    peaks = []
    for count in (40, 400):
        stored = Stored((32, 32, 32, count), np.eye(4), ("R", "A", "S"), "int16", 1, 1)
        scan = Scan("made", None, (32, 32, 32, count), np.eye(4), 1.0, stored, (), Made())
        monkeypatch.setattr(nifti, "open_scan", lambda *_, scan=scan, **__: scan)
        if count == 40:
            prepare(Recording("made", None), signal)  # imports and caches
        tracemalloc.start()
        run = prepare(Recording("made", None), signal)
        run.window(count - 8, 8)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.05 * peaks[0]


def test_starts_cover_every_volume() -> None:
    for volumes in range(1, 30):
        for frames in range(1, volumes + 1):
            for stride in (None, *range(1, frames + 1)):
                found = starts(volumes, frames, stride)
                seen = {t for start in found for t in range(start, start + frames)}
                assert seen == set(range(volumes))
                assert found == sorted(set(found))


def test_windows_of_several_runs() -> None:
    runs = [ready(run_values(seed)) for seed in range(2)]
    windows = BrainWindows(runs, 16)
    assert windows.places == [(0, 0), (0, 16), (0, 24), (1, 0), (1, 16), (1, 24)]
    assert windows.notes == ("6 windows of 16 volumes; 16 volumes of 2 runs are in two windows",)
    assert (windows[4] == runs[1].window(16, 16)).all()
    assert len(windows[1:3]) == 2
    with pytest.raises(IndexError):
        windows[6]
    with pytest.raises(InputError, match=r"a: a run shorter than a window. Found: 40 volumes.*--window.frames"):
        BrainWindows(runs, 41)


def test_runs_that_cannot_be_mixed() -> None:
    a = ready(run_values())
    check_alike([a, ready(run_values(1))])
    with pytest.raises(InputError, match=r"repetition times. Found: 2 s in a, 3 s in a. Cure: --grid.tr"):
        check_alike([a, ready(run_values(), tr=3.0)])
    with pytest.raises(InputError, match=r"different sizes. Found: 5x6x7 in a, 4x6x7 in a"):
        check_alike([a, ready(run_values()[1:])])
    wide = nib.Nifti1Image(run_values(), np.diag([2.0, 2, 2, 1]))
    wide.header.set_zooms((2, 2, 2, 2))
    with pytest.raises(InputError, match=r"different voxel sizes. Found: 1 x 1 x 1 mm in a, 2 x 2 x 2 mm in a"):
        check_alike([a, ready(wide)])
    moved = nib.Nifti1Image(run_values(), np.array([[1.0, 0, 0, 9], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    moved.header.set_zooms((1, 1, 1, 2))
    assert check_alike([a, ready(moved)])[0].startswith("1 of 2 runs lie elsewhere than a by their affines (a)")
    assert check_alike([a, ready(run_values(), tr=None)]) == ("1 of 2 runs have no known repetition time (a)",)


def haxby(benchmark: pathlib.Path) -> pathlib.Path:
    folder = benchmark.parent / "embeddable" / "fmri" / "pymvpa2"
    if not folder.is_dir():
        pytest.skip("the Haxby slice is not there")
    return folder


def test_the_recipe_of_the_haxby_slice(benchmark: pathlib.Path) -> None:
    """Detrend each run, divide by its deviation: what scipy gives, and the SVM that it was measured with."""
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    folder = haxby(benchmark)
    bold = np.asarray(nib.load(folder / "bold.nii.gz").dataobj)  # type: ignore[attr-defined]
    lines = [line.split() for line in (folder / "attributes_literal.txt").read_text().splitlines()]
    labels, fold = np.array([line[0] for line in lines]), np.array([int(line[1]) for line in lines])
    mask = folder / "mask.nii.gz"
    rows = []
    for run in np.unique(fold):
        values = bold[..., fold == run]
        image = nib.Nifti1Image(values, nib.load(mask).affine)  # type: ignore[attr-defined]
        image.header.set_zooms((*image.header.get_zooms()[:3], 2.5))
        record = Recording(f"run-{run}", image, mask=mask)
        ready_run = prepare(record, SignalOptions("voxel", 1))
        rows.append(ready_run.matrix(ready_run.mask))
        trend = scipy.signal.detrend(np.asarray(values, np.float64), axis=3)
        deviation = trend.std(3, ddof=1, keepdims=True)
        expected = (trend / np.where(deviation == 0, 1, deviation)).astype(np.float32)
        turned = nib.as_closest_canonical(nib.Nifti1Image(expected, image.affine))  # type: ignore[attr-defined]
        expected = np.asarray(turned.dataobj)
        assert np.abs(ready_run.window(0, 121) - expected)[ready_run.mask].max() < 1e-4
    matrix, pair = np.concatenate(rows), np.isin(labels, ["face", "house"])
    right = 0
    for run in np.unique(fold):
        train, test = pair & (fold != run), pair & (fold == run)
        scaler = StandardScaler().fit(matrix[train])
        model = LinearSVC(C=1e-3, dual=True, random_state=0).fit(scaler.transform(matrix[train]), labels[train])
        right += int((model.predict(scaler.transform(matrix[test])) == labels[test]).sum())
    assert right / pair.sum() > 0.97


def test_a_real_scan_end_to_end(benchmark: pathlib.Path) -> None:
    path = benchmark / "fmri" / "oro_filtered_func_data.nii.gz"
    if not path.is_file():
        pytest.skip("the scan is not in the benchmark folder")
    wide = np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj).astype(np.float64)  # type: ignore[attr-defined]
    mask = (wide != 0).any(3)
    scores = (wide - wide[mask].mean()) / wide[mask].std(ddof=1)
    scores[~mask] = scores[mask].min()
    run = prepare(Recording("oro", path))
    assert (run.mask == mask).all()
    assert np.abs(run.window(40, 24) - scores[..., 40:]).max() < 1e-5
    run.close()
