"""Several cubes at once: which files of a folder are cubes, what one bad one does, and what memory holds."""

from __future__ import annotations

import json
import pathlib
import tracemalloc

import numpy as np
import pytest
import scipy.io

from pipelines import Denoiser
from pipelines.data.formats.cube import read_cube
from pipelines.denoise.engine import fit_baseline
from pipelines.denoise.folder import DenoisedCubes
from pipelines.denoise.reading import find_cubes, is_several, several_sources
from pipelines.denoise.result import Denoised
from pipelines.errors import ConfigError, InputError
from pipelines.evaluation.report import Report

EVERYWHERE = (slice(None), slice(None))


def _noisy(seed: int, bands: int = 8, height: int = 20, width: int = 24) -> np.ndarray:
    """(D, H, W) float32: two materials and Gaussian noise of 0.1."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((height, width))
    maps = np.stack([np.sin(x / 5 + seed), (y > height // 2).astype(float)])
    return (np.tensordot(rng.random((bands, 2)), maps, 1) + rng.normal(0, 0.1, (bands, height, width))).astype("f4")


def _envi(header: pathlib.Path, raw: pathlib.Path, cube: np.ndarray) -> None:
    bands, lines, samples = cube.shape
    cube.astype("<f4").tofile(raw)
    header.write_text(
        f"ENVI\nsamples = {samples}\nlines = {lines}\nbands = {bands}\n"
        "data type = 4\ninterleave = bsq\nbyte order = 0\n"
    )


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Five cubes in four formats, two of them below, with what does not count: other files, hidden ones, a folder."""
    place = tmp_path / "cubes"
    (place / "deep" / "er").mkdir(parents=True)
    np.save(place / "a.npy", _noisy(0).transpose(1, 2, 0))
    scipy.io.savemat(place / "b.mat", {"cube": _noisy(1).transpose(1, 2, 0)})
    _envi(place / "c.hdr", place / "c.raw", _noisy(2))
    _envi(place / "deep" / "d.img.hdr", place / "deep" / "d.img", _noisy(3))
    np.save(place / "deep" / "er" / "a.npy", _noisy(4).transpose(1, 2, 0))
    (place / "read.me").write_text("not a cube")
    (place / ".hidden.npy").write_text("not a cube")
    (place / "folder.npy").mkdir()
    return place


NAMES = ["a.npy", "b.mat", "c.hdr", "deep/d.img", "deep/er/a.npy"]
WRITTEN = ["a.npy", "b.mat", "c.hdr", "c.raw", "deep/d.img", "deep/d.img.hdr", "deep/er/a.npy"]


def _spoil(folder: pathlib.Path) -> set[str]:
    """Five bad cubes beside the good ones; what is wrong with each is found when it is opened."""
    whole = (folder / "a.npy").read_bytes()
    (folder / "cut.npy").write_bytes(whole[: len(whole) // 2])
    (folder / "deep" / "text.mat").write_text("date,value")
    (folder / "lonely.hdr").write_text((folder / "c.hdr").read_text())
    (folder / "headless.dat").write_bytes(b"\x01\x02\x03\x04")
    np.save(folder / "one.npy", np.zeros((30, 30, 1), np.float32))
    return {"cut.npy", "deep/text.mat", "lonely.hdr", "headless.dat", "one.npy"}


def _files(folder: pathlib.Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def _several(inputs: object, **options: object) -> DenoisedCubes:
    found = Denoiser(model="svd", threads=1, **options).predict(inputs)  # type: ignore[arg-type]
    assert isinstance(found, DenoisedCubes)
    return found


def test_a_folder_is_answered_as_its_cubes_one_by_one(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    answer = _several(folder, read={"axis": None})
    assert [item.name for item in answer.items] == NAMES
    assert not answer.failures
    assert answer.save(tmp_path / "out") == tmp_path / "out"
    assert _files(tmp_path / "out") == WRITTEN
    for name in NAMES:
        single = Denoiser(model="svd", threads=1).predict(folder / name)
        assert isinstance(single, Denoised)
        single.save(tmp_path / "single" / name)
        several, alone = (read_cube(tmp_path / place / name) for place in ("out", "single"))
        assert (several.format, several.dtype, several.layout) == (alone.format, alone.dtype, alone.layout)
        assert (several.block(*EVERYWHERE) == alone.block(*EVERYWHERE)).all()
        noisy = read_cube(folder / name).block(*EVERYWHERE)
        assert 0.07 < float((several.block(*EVERYWHERE) - noisy).std()) < 0.11  # the noise of 0.1 is what went


def test_bad_cubes_do_not_stop_the_others(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    bad = _spoil(folder)
    answer = _several(folder)
    assert set(answer.failures) == bad
    answer.save(tmp_path / "out")
    assert _files(tmp_path / "out") == WRITTEN
    assert "no raw file beside it" in answer.failures["lonely.hdr"]
    assert "ENVI header beside it" in answer.failures["headless.dat"]
    notes = "\n".join(answer.notes)
    for name in bad:
        assert f"{name} is left out: {answer.failures[name]}" in notes
    assert str(answer).endswith("; 5 could not be denoised")


def test_what_is_bad_when_it_is_denoised_is_left_out_too(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Opening finds no fault: one cube has no value at all, another is cut short in the meantime."""
    (folder / "late").mkdir()
    np.save(folder / "late" / "nothing.npy", np.full((20, 24, 8), np.nan, np.float32))
    answer = _several(folder)
    assert not answer.failures
    (folder / "c.raw").write_bytes(b"")
    answer.save(tmp_path / "out")
    assert set(answer.failures) == {"c.hdr", "late/nothing.npy"}
    assert "no voxel has a value" in answer.failures["late/nothing.npy"]
    assert _files(tmp_path / "out") == [name for name in WRITTEN if name[0] != "c"]
    assert not (tmp_path / "out" / "late").exists(), "a folder without an answer is left behind"


def test_nothing_is_written_when_all_are_bad(tmp_path: pathlib.Path) -> None:
    place = tmp_path / "bad"
    place.mkdir()
    for number in range(5):
        (place / f"{number}.mat").write_text("date,value")
    with pytest.raises(InputError, match=r"bad: no cube could be denoised.*0\.mat: .*and 2 more"):
        _several(place)
    for path in place.iterdir():
        path.unlink()
    np.save(place / "nothing.npy", np.full((20, 24, 8), np.nan, np.float32))
    answer = _several(place)
    with pytest.raises(InputError, match="no voxel has a value"):
        answer.save(tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


def test_an_empty_folder_lists_the_endings(tmp_path: pathlib.Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"no cube in this folder.*\.mat.*\.hdr.*\.tif.*\.npz.*\.fits"):
        _several(tmp_path)
    with pytest.raises(InputError, match="no cube is given"):
        _several([])


def test_an_envi_pair_is_one_cube_whatever_its_files_are_called(tmp_path: pathlib.Path) -> None:
    cube = _noisy(0)
    for header, raw in (("a.hdr", "a"), ("b.HDR", "b.IMG"), ("c.bil.hdr", "c.bil"), ("d.v2.hdr", "d.v2.dat")):
        _envi(tmp_path / header, tmp_path / raw, cube)
    _envi(tmp_path / "two.hdr", tmp_path / "two.img", cube)  # a header for two raw files
    (tmp_path / "two.bin").write_bytes((tmp_path / "two.img").read_bytes())
    _envi(tmp_path / "both.hdr", tmp_path / "both.img", cube)  # two headers for a raw file
    (tmp_path / "both.img.hdr").write_text((tmp_path / "both.hdr").read_text())
    files, others = find_cubes(tmp_path)
    assert [file.name for file in files] == ["a.hdr", "b.HDR", "both.img", "c.bil", "d.v2.hdr", "two.bin", "two.hdr"]
    assert others == 0
    answer = _several(tmp_path)
    assert not answer.failures
    answer.save(tmp_path / "out")
    again, _ = find_cubes(tmp_path / "out")
    assert [file.name for file in again] == [file.name for file in files]
    assert {p.suffix for p in (tmp_path / "out").iterdir()} >= {"", ".IMG", ".bil", ".dat", ".bin"}
    first, *rest = (read_cube(path).block(*EVERYWHERE) for path in again)
    assert all((one == first).all() for one in rest)


def test_a_list_of_paths_arrays_and_folders(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    array = _noisy(7).astype(np.float64)
    given = [folder / "a.npy", array, str(folder / "deep" / "er" / "a.npy"), tmp_path / "nowhere.mat"]
    answer = _several([*given, folder / "c.raw", folder / "c.hdr", folder / "deep"])
    names = ["a.npy", "array-1.npy", "2-a.npy", "c.hdr", "2-c.hdr", "deep/d.img", "deep/er/a.npy"]
    assert [item.name for item in answer.items] == names
    assert list(answer.failures) == ["nowhere.mat"]
    answer.save(tmp_path / "out")
    assert {"c.raw", "2-c.raw"} < set(_files(tmp_path / "out"))
    assert (read_cube(tmp_path / "out" / "2-c.hdr").stored == read_cube(tmp_path / "out" / "c.hdr").stored).all()
    single = Denoiser(model="svd", threads=1).predict(array)
    assert isinstance(single, Denoised)
    assert np.array_equal(np.load(tmp_path / "out" / "array-1.npy"), single.values())
    assert [source.name for source in several_sources([folder / "a.npy"] * 3)[0]] == ["a.npy", "2-a.npy", "3-a.npy"]
    for wrong in (3, None, [folder]):
        with pytest.raises(InputError, match=r"inputs\[1\]"):
            _several([folder / "a.npy", wrong])


def test_an_array_is_written_in_its_own_type(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a file of the name that arrays go by lies in the working folder."""
    monkeypatch.chdir(tmp_path)
    np.save("array.npy", np.zeros((3, 3)))
    cube = np.rint(_noisy(0) * 1000).astype(">i2")
    single = Denoiser(model="svd", threads=1).predict(cube)
    assert isinstance(single, Denoised)
    single.save("clean.npy")
    answer = np.load("clean.npy")
    assert (answer.dtype, answer.shape) == (cube.dtype, cube.shape)
    assert np.array_equal(answer, np.rint(single.values()))
    assert "rounded to int16" in single.notes
    holes = _noisy(1)
    holes[2, 3:5, 7] = np.nan
    _several([holes]).save("out")
    assert np.argwhere(np.isnan(np.load("out/array-0.npy"))).tolist() == [[2, 3, 7], [2, 4, 7]]


def test_one_cube_of_a_folder_is_still_a_folder(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    answer = _several(folder / "deep" / "er")
    assert answer.provenance.data == "a.npy"
    answer.save(tmp_path / "out")
    assert _files(tmp_path / "out") == ["a.npy"]
    assert is_several(folder)
    assert not is_several(folder / "a.npy")


def test_inputs_are_never_replaced_by_answers(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    before = {name: (folder / name).read_bytes() for name in _files(folder)}
    answer = _several(folder)
    (tmp_path / "link").symlink_to(folder)
    for target in (folder, folder / "deep" / "..", tmp_path / "link"):
        with pytest.raises(ConfigError, match="would replace its input"):
            answer.save(target)
    with pytest.raises(ConfigError, match="need a folder"):
        answer.save(tmp_path / "out.npy")
    assert {name: (folder / name).read_bytes() for name in _files(folder)} == before
    assert not (tmp_path / "out.npy").exists()


def test_facts_pictures_and_report_need_no_saving(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    _spoil(folder)
    np.save(folder / "deep" / "nothing.npy", np.full((20, 24, 8), np.nan, np.float32))
    looked, saved = _several(folder), _several(folder)
    saved.save(tmp_path / "out")
    assert looked.plot(tmp_path / "picture.png").axes
    assert (tmp_path / "picture.png").stat().st_size > 5000
    report = Report("several")
    looked.fill_report(report)
    page = report.render()
    assert page.count('type="range"') == 4  # sliders of the first four of five cubes
    assert "Left out" in page
    first, second = (json.loads(json.dumps(one.to_dict(), allow_nan=False)) for one in (looked, saved))
    assert [one["name"] for one in first["cubes"]] == NAMES
    for one, other in zip(first["cubes"], second["cubes"], strict=True):
        assert len(one["noise"]["sigma"]) == 8
        assert np.median(one["noise"]["sigma"]) == pytest.approx(0.1, rel=0.3)
        assert {k: v for k, v in one.items() if k != "notes"} == {k: v for k, v in other.items() if k != "notes"}
    assert first["failures"] == second["failures"]
    assert len(first["failures"]) == 6


def test_notes_name_the_cubes_that_they_are_about(folder: pathlib.Path) -> None:
    np.save(folder / "whole.npy", np.rint(_noisy(5).transpose(1, 2, 0) * 1000).astype(np.int16))
    notes = _several(folder).notes
    assert "1 file is passed over: no ending of a cube" in notes
    assert any(note.startswith("b.mat: ") for note in notes)
    assert any(note.startswith("a.npy, deep/er/a.npy, whole.npy: axis 2 of ") for note in notes)


def test_a_later_fit_changes_no_answer(folder: pathlib.Path) -> None:
    denoiser = Denoiser(model="svd", threads=1)
    answer = denoiser.predict([folder / "a.npy"])
    assert isinstance(answer, DenoisedCubes)
    before = answer.items[0].denoised().values()
    denoiser._state = fit_baseline("svd_rank3")
    assert np.array_equal(answer.items[0].denoised().values(), before)
    other = denoiser.predict(folder / "a.npy")
    assert isinstance(other, Denoised)
    assert not np.array_equal(other.values(), before)


def test_memory_holds_one_cube_at_a_time(tmp_path: pathlib.Path) -> None:
    """MATLAB files are loaded whole: eight of them need hardly more than one."""

    def peak(count: int) -> int:
        place = tmp_path / f"{count}"
        place.mkdir()
        for number in range(count):
            scipy.io.savemat(place / f"{number}.mat", {"cube": _noisy(number, 12, 64, 64).transpose(1, 2, 0)})
        tracemalloc.start()
        _several(place).save(tmp_path / f"out-{count}")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(_files(tmp_path / f"out-{count}")) == count
        return most

    peak(1)  # imports
    for path in (tmp_path / "1", tmp_path / "out-1"):
        path.rename(f"{path}-first")
    one, size = peak(1), 4 * 12 * 64 * 64
    assert peak(8) < one + 1.5 * size
