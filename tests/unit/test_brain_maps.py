"""Maps on the run's own grid: files that nibabel and nilearn open, names of BIDS, pictures."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import warnings

import nibabel
import nilearn.image
import numpy as np
import pytest

from pipelines.base import Provenance
from pipelines.data.datasets.brain_types import Recording
from pipelines.data.formats.nifti import open_scan
from pipelines.data.formats.nifti_types import Scan
from pipelines.evaluation.report import Report
from pipelines.fmri.brain_pictures import colour_range, map_figure, standard_space, strongest
from pipelines.fmri.derivative import BrainMap, MapFacts, MapWriter
from pipelines.fmri.map_names import MapNames, bids_label
from pipelines.fmri.maps import Maps, check_place

REPO = pathlib.Path(__file__).parents[2]
FMRI = pathlib.Path(os.environ.get("PIPELINES_DATA") or REPO.parent / "shared/data") / "embeddable/fmri"
SCANS = (
    "pymvpa2/bold.nii.gz",
    "pymvpa2/haxby2001/sub001/BOLD/task001_run001/bold_25mm.nii.gz",
    "nipy_functional.nii.gz",
    "fmri1.nii.gz",
)
NOW = Provenance("0.1.0", "2026-01-01T00:00:00+0000", "pipelines fmri explain bids", "bids", "swift", 1, "abc")
FACTS = MapFacts("swift", steps=16)

#: Oblique, permuted and flipped: nothing of it may be lost on the way through RAS+.
OBLIQUE = np.array([[0.2, -3.0, 0.1, 40.0], [0.0, 0.3, 3.5, -50.0], [-2.5, 0.1, -0.2, 30.0], [0, 0, 0, 1]])


def scan_of(shape: tuple[int, int, int] = (5, 6, 7), affine: np.ndarray = OBLIQUE, code: int = 1) -> Scan:
    image = nibabel.Nifti1Image(np.random.default_rng(0).normal(size=(*shape, 4)).astype(np.float32), affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 2.0
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    return open_scan(image, name="scan.nii.gz")


def map_of(scan: Scan, label: str = "house", seed: int = 0, **given: object) -> BrainMap:
    values = np.random.default_rng(seed).normal(size=scan.shape[:3])
    run = given.pop("recording", Recording("sub-01_task-view_run-2", "a.nii.gz", "01", task="view", run="2"))
    return BrainMap(run, scan, label, values, np.abs(values) + 1, 12, float(values.sum()), 1e-4, **given)  # type: ignore[arg-type]


def test_a_derivative_has_maps_sidecars_and_a_description(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "bids"
    source = root / "sub-01" / "func" / "sub-01_task-view_run-2_bold.nii.gz"
    scan = scan_of()
    run = Recording("sub-01_task-view_run-2", source, "01", task="view", run="2", entities={"sub": "01", "run": "2"})
    maps = [map_of(scan, "house", recording=run), map_of(scan, "face", 1, recording=run)]
    folder = Maps("swift", NOW, FACTS, maps, source=root).save(tmp_path / "maps")
    stem = "sub-01/func/sub-01_task-view_run-2_desc-ig"
    expected = {f"{stem}{c}_stat-{s}_statmap{e}" for c in ("House", "Face") for s in ("mean", "meanabs")
                for e in (".nii.gz", ".json")} | {"README", "dataset_description.json"}  # fmt: skip
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == expected

    described = json.loads((folder / "dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative"
    assert described["BIDSVersion"]
    assert described["GeneratedBy"][0]["Version"] == "0.1.0"
    assert described["SourceDatasets"] == [{"URL": "../bids"}]
    assert described["DatasetLinks"] == {"raw": "../bids"}
    assert not json.dumps(described).count(str(tmp_path))  # a derivative that is passed on names no folder of this disk

    side = json.loads((folder / f"{stem}House_stat-mean_statmap.json").read_text())
    assert side["Sources"] == ["bids:raw:sub-01/func/sub-01_task-view_run-2_bold.nii.gz"]
    assert side["Units"] == "logit"
    assert side["Steps"] == 16
    assert side["Windows"] == 12
    assert side["Seed"] == 1
    assert side["Command"] == NOW.command
    assert side["Weights"] == "abc"
    assert side["Class"] == "house"
    assert side["Sum"] == pytest.approx(maps[0].mean.sum()) == pytest.approx(side["MeanDifference"])
    absolute = json.loads((folder / f"{stem}House_stat-meanabs_statmap.json").read_text())
    assert absolute["Statistic"] == "meanabs"
    assert absolute["Sum"] == pytest.approx(maps[0].absolute.sum())


@pytest.mark.parametrize("affine", [OBLIQUE, np.diag([-3.0, 3.0, 3.0, 1.0]), np.diag([2.0, 2.0, 2.0, 1.0])])
def test_a_map_lies_where_the_scan_lies(tmp_path: pathlib.Path, affine: np.ndarray) -> None:
    """One voxel is marked: nibabel and nilearn find it at the world coordinate of the scan's own voxel."""
    image = nibabel.Nifti1Image(np.random.default_rng(2).normal(size=(5, 6, 7, 3)).astype(np.float32), affine)
    image.header["pixdim"][4] = 2.0
    image.header.set_xyzt_units("mm", "sec")
    path = tmp_path / "scan.nii.gz"
    nibabel.save(image, path)
    with open_scan(path) as scan:
        stored = (1, 4, 2)  # a voxel of the file
        world = nibabel.affines.apply_affine(image.affine, stored)
        place = np.rint(nibabel.affines.apply_affine(np.linalg.inv(scan.affine), world)).astype(int)
        # the same voxel of the scan: its signal over time says so
        frames = scan.frames(0, 3)
        np.testing.assert_array_equal(frames[tuple(place)], np.asarray(image.dataobj)[stored])
        values = np.zeros(scan.shape[:3])
        values[tuple(place)] = 5.0
        one = BrainMap(Recording("scan", path), scan, "house", values, values)
        target = Maps("swift", NOW, FACTS, [one]).save(tmp_path / "map.nii.gz")
    back = nibabel.load(target)
    assert back.shape == (5, 6, 7)
    assert back.get_data_dtype() == np.float32
    np.testing.assert_allclose(back.affine, image.affine, atol=1e-5)
    assert np.argwhere(np.asarray(back.dataobj)).tolist() == [list(stored)]
    opened = nilearn.image.load_img(str(target))
    assert nilearn.image.coord_transform(*stored, opened.affine) == pytest.approx(tuple(world), abs=1e-4)
    ((peak, value),) = strongest(values, scan.affine)
    assert value == 5.0
    assert peak == pytest.approx(tuple(world), abs=1e-4)
    side = json.loads((tmp_path / "map.json").read_text())
    assert side["Sources"] == ["scan.nii.gz"]
    assert side["MeanDifference"] is None


def test_maps_are_added_to_an_earlier_derivative(tmp_path: pathlib.Path) -> None:
    scan = scan_of()
    first = Maps("swift", NOW, FACTS, [map_of(scan)]).save(tmp_path / "maps")
    other = Recording("sub-02_task-view", "b.nii.gz", "02", session="a", task="view")
    later = dataclasses.replace(NOW, data="/data/private/b.nii.gz")
    Maps("swift", later, FACTS, [map_of(scan, recording=other)]).save(first)
    assert {path.name for path in first.glob("sub-*")} == {"sub-01", "sub-02"}
    assert len(list((first / "sub-02" / "ses-a" / "func").iterdir())) == 4
    described = json.loads((first / "dataset_description.json").read_text())
    assert described["SourceDatasets"] == [{"URL": "bids"}, {"URL": "b.nii.gz"}]
    assert not [path for path in first.rglob("*") if path.name.startswith(".")]


def test_overwriting_replaces_one_map_and_keeps_the_others(tmp_path: pathlib.Path) -> None:
    scan = scan_of()
    both = Maps("swift", NOW, FACTS, [map_of(scan), map_of(scan, "face")])
    folder = both.save(tmp_path / "maps")
    kept = {path: path.read_bytes() for path in folder.rglob("*igFace*")}
    Maps("swift", NOW, FACTS, [map_of(scan, seed=7)], overwrite=True).save(folder)
    assert all(path.read_bytes() == old for path, old in kept.items())
    assert len(kept) == 4
    image = next(folder.rglob("*igHouse_stat-mean_*.nii.gz"))
    stored = open_scan(nibabel.load(image), allow_single=True).frames(0, 1)[..., 0]
    np.testing.assert_allclose(stored, map_of(scan, seed=7).mean, rtol=1e-6)


def test_names_are_entities_in_their_order_and_alphanumeric() -> None:
    entities = {"sub": "x_1", "ses": "A", "task": "rest", "space": "MNI152NLin6Asym", "res": "2", "desc": "preproc",
                "run": "01", "acq": "fast"}  # fmt: skip
    run = Recording("one", "a.nii.gz", "x_1", "A", "rest", "01", "MNI152NLin6Asym_res-2", entities=entities)
    names = MapNames([run], ["scrambled pix", "ä/ö"])
    name = names.path(run, "scrambled pix", "mean").as_posix()
    assert name == ("sub-x1/ses-A/func/sub-x1_ses-A_task-rest_acq-fast_run-01_space-MNI152NLin6Asym_res-2"
                    "_desc-igScrambledPix_stat-mean_statmap")  # fmt: skip
    assert names.path(run, "ä/ö", "meanabs").name.endswith("_desc-igAO_stat-meanabs_statmap")
    said = " ".join(names.notes)
    assert "'x_1'" in said
    assert "'scrambled pix'" in said
    assert "igAO" in said


def test_runs_without_entities_get_names_of_their_own() -> None:
    runs = [Recording(name, "x", subject) for name, subject in (("a-b.nii.gz", ""), ("a_b.nii.gz", ""))]
    runs += [Recording("100307/rest_LR", "x", "100307", task="rest", run="LR"), Recording("other", "x", "100307")]
    runs += [Recording("third", "x", "100307"), Recording("../../etc/passwd", "x"), Recording("…", "x")]
    names = MapNames(runs, ["face", "Face", "FACE!"])
    paths = [names.path(run, label, "mean") for run in runs for label in ("face", "Face", "FACE!")]
    assert len({path.as_posix().casefold() for path in paths}) == len(paths)
    pattern = re.compile(r"sub-[A-Za-z0-9]+(_[a-z]+-[A-Za-z0-9]+)*_desc-[A-Za-z0-9]+_stat-mean_statmap")
    assert all(pattern.fullmatch(path.name) and path.parts[1:-1] == ("func",) for path in paths)
    assert names.path(runs[2], "face", "mean").name.startswith("sub-100307_task-rest_dir-LR_desc-igFace_")
    assert names.path(runs[3], "face", "mean").name.startswith("sub-100307_task-unknown_desc")
    assert names.path(runs[4], "face", "mean").name.startswith("sub-100307_task-unknown_acq-third_")
    assert sum("to be told apart" in note for note in names.notes) == 2
    assert sum("subject is not known" in note for note in names.notes) == 4


def test_every_announced_path_is_what_is_written(tmp_path: pathlib.Path) -> None:
    scan = scan_of()
    runs = [Recording("a", "x", "1", task="t"), Recording("b", "x", "1", task="t")]
    names = MapNames(runs, ["face", "house"])
    with MapWriter(tmp_path / "maps", names, FACTS, NOW) as writer:
        for run in runs:
            for label in ("face", "house"):
                for path in writer.add(map_of(scan, label, recording=run)):
                    assert not path.exists()  # nothing is there before all of it is
    written = {path.relative_to(tmp_path / "maps") for path in (tmp_path / "maps").rglob("*statmap*")}
    assert written == set(names.paths())
    assert len(written) == 16


@pytest.mark.parametrize("text", ["face", "x" * 300, "", "…", "a b c", "01_b", "\udcff", "9"])
def test_labels_are_never_empty_or_long(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9]{1,60}", bids_label(text))


def test_long_labels_stay_apart() -> None:
    assert bids_label("x" * 100 + "a") != bids_label("x" * 100 + "b")


def test_standard_space_comes_from_the_name_or_the_code() -> None:
    native, coded = scan_of(code=1), scan_of(code=4)
    named = Recording("a", "x", space="MNI152NLin2009cAsym_res-2")
    assert standard_space(named, native) == "MNI152NLin2009cAsym"
    assert standard_space(Recording("a", "x"), coded) == "MNI 152"
    assert standard_space(Recording("a", "x"), native) == ""
    assert standard_space(Recording("a", "x", space="T1w"), coded) == ""  # the name knows better


def test_colours_and_peaks_by_hand() -> None:
    values = np.zeros((4, 4, 4))
    assert colour_range(values) == (0.0, 1.0)
    assert strongest(values, np.eye(4)) == []
    values[0, 0, 0], values[3, 2, 1], values[1, 1, 1] = 1.0, -7.0, 3.0
    affine = np.array([[2.0, 0, 0, -10], [0, 2, 0, -20], [0, 0, 4, 5], [0, 0, 0, 1]])
    assert strongest(values, affine, 2) == [((-4.0, -16.0, 9.0), -7.0), ((-8.0, -18.0, 9.0), 3.0)]
    assert len(strongest(values, affine, 99)) == 3


def test_sides_are_right() -> None:
    """Of a thin scan the picture has x growing to the right (R) and y upwards (A), as RAS+ says."""
    values = np.zeros((9, 5, 1))
    values[8, 4, 0] = 2.0
    figure = map_figure(values, np.ones((9, 5, 1)), np.diag([2.0, 3.0, 4.0, 1.0]))
    ax = figure.axes[0]
    picture = ax.images[1]
    shown = np.ma.getdata(picture.get_array())
    assert shown[4, 8] == 2.0
    assert picture.origin == "lower"
    assert ax.get_title(loc="left") == "z = 0 mm"
    sides = {text.get_text(): text.get_position() for text in ax.texts}
    assert sides["R"][0] > sides["L"][0]
    assert sides["A"][1] > sides["P"][1]


@pytest.mark.skipif(not FMRI.is_dir(), reason="set PIPELINES_DATA to the folder with the real data")
@pytest.mark.parametrize("name", SCANS)
def test_real_scans_get_maps_beside_them_and_pictures(tmp_path: pathlib.Path, name: str) -> None:
    raw = nibabel.load(FMRI / name)
    with open_scan(FMRI / name) as scan:
        mean = scan.frames(0, 8).mean(3)
        values = scan.frames(0, 4).mean(3) - scan.frames(4, 8).mean(3)
        one = BrainMap(Recording(name, FMRI / name), scan, "face", values, np.abs(values), 2, background=mean)
    answer = Maps("swift", NOW, FACTS, [one])
    folder = answer.save(tmp_path / "maps")
    image = nilearn.image.load_img(str(next(folder.rglob("*_stat-mean_*.nii.gz"))))
    assert image.shape == raw.shape[:3]
    np.testing.assert_allclose(image.affine, raw.affine, atol=1e-4)
    own = np.asarray(raw.dataobj[..., :8], np.float64)
    np.testing.assert_allclose(image.get_fdata(), own[..., :4].mean(3) - own[..., 4:].mean(3), atol=2e-3)
    assert answer.plot().axes


def test_the_report_shows_maps_glass_brains_only_in_standard_space(tmp_path: pathlib.Path) -> None:
    big = np.array([[18.0, 0, 0, -72], [0, 20, 0, -105], [0, 0, 16, -60], [0, 0, 0, 1]])
    scan = scan_of((9, 10, 9), big, code=4)
    background = np.ones(scan.shape[:3])
    answer = Maps("swift", NOW, FACTS, [map_of(scan, background=background)])
    report = Report("maps")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answer.fill_report(report)
    page = report.render()
    assert "Glass brain of house in MNI 152" in page
    assert "Strongest voxels" in page
    assert page.count("data:image/png;base64") == 2
    assert not any("no glass brain" in note for note in answer.notes)
    assert any("completeness" in note for note in answer.notes)
    native = Maps("swift", NOW, FACTS, [map_of(scan_of())])
    assert any("no glass brain" in note for note in native.notes)
    text = str(answer)
    assert "1 map by integrated gradients" in text
    assert "12 windows" in text
    plain = json.loads(Maps("swift", NOW, FACTS, answer.maps).save(tmp_path / "a.json").read_text())
    assert plain["maps"][0]["label"] == "house"
    assert len(plain["maps"][0]["strongest"]) == 5


def test_an_answer_without_maps_can_still_be_shown(tmp_path: pathlib.Path) -> None:
    empty = Maps("swift", NOW, FACTS, [], failed={"a": "a: all voxels are zero."})
    assert empty.plot(tmp_path / "a.png").axes
    assert "1 run failed" in str(empty)
    report = Report("maps")
    empty.fill_report(report)
    assert "left out: a: all voxels are zero." in empty.notes
    assert empty.failures
    assert check_place(tmp_path / "maps", [], []) == tmp_path / "maps"
