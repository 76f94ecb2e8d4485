"""Maps that cannot be written: one message before any work, nothing half written, nothing of others lost."""

from __future__ import annotations

import errno
import json
import pathlib
import stat
from collections.abc import Callable
from typing import Any

import nibabel
import numpy as np
import pytest

import pipelines.fmri.derivative as derivative
from pipelines.base import Provenance
from pipelines.data.datasets.brain_types import Recording
from pipelines.data.formats.nifti import open_scan
from pipelines.errors import ConfigError, InputError, RunError
from pipelines.fmri.derivative import BrainMap, MapFacts, MapWriter
from pipelines.fmri.map_names import MapNames
from pipelines.fmri.maps import Maps, check_place

NOW = Provenance("0.1.0", "2026-01-01T00:00:00+0000", "", "bids", "swift", 1)
FACTS = MapFacts("swift")
RUNS = [Recording(f"run-{i}", f"{i}.nii.gz", "01", task="view", run=str(i)) for i in (1, 2)]
SCAN = open_scan(nibabel.Nifti1Image(np.ones((3, 4, 5, 2), np.float32), np.diag([2.0, 2, 2, 1])), tr=2.0)


def maps(*labels: str, runs: list[Recording] = RUNS, overwrite: bool = False, value: float = 1.0) -> Maps:
    values = np.full((3, 4, 5), value)
    found = [BrainMap(run, SCAN, label, values, values) for run in runs for label in labels or ("face",)]
    return Maps("swift", NOW, FACTS, found, overwrite=overwrite)


def listing(folder: pathlib.Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def refused(path: pathlib.Path, word: str, answer: Maps | None = None) -> str:
    """Both the check before any work and the writing itself refuse, and leave everything as it was."""
    answer = answer or maps()
    before = listing(path.parent)
    recordings = list({one.recording.name: one.recording for one in answer.maps}.values())
    labels = list(dict.fromkeys(one.label for one in answer.maps))
    with pytest.raises(ConfigError, match=word) as early:
        check_place(path, recordings, labels)
    with pytest.raises(ConfigError, match=word) as late:
        answer.save(path)
    assert str(early.value) == str(late.value)
    assert "Cure:" in str(early.value)
    assert listing(path.parent) == before
    return str(early.value)


def test_maps_of_the_same_names_are_never_overwritten_silently(tmp_path: pathlib.Path) -> None:
    maps().save(tmp_path / "maps")
    said = refused(tmp_path / "maps", "never overwritten silently")
    assert "7 more files" in said
    assert "sub-01" in said
    assert "--overwrite" in said
    refused(tmp_path / "maps", "never overwritten", maps("face", "house"))  # one of two is there
    check_place(tmp_path / "maps", RUNS, ["house"])  # another class is welcome
    check_place(tmp_path / "maps", RUNS, ["face"], overwrite=True)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        "null",
        json.dumps({"Name": "raw", "DatasetType": "raw", "BIDSVersion": "1.8.0"}),
        json.dumps({"DatasetType": "derivative", "GeneratedBy": [{"Name": "fMRIPrep"}]}),
        json.dumps({"DatasetType": "derivative", "GeneratedBy": []}),
        json.dumps({"DatasetType": "derivative", "GeneratedBy": {"Name": "attention-pipelines"}}),
    ],
)
def test_a_folder_of_others_is_left_alone(tmp_path: pathlib.Path, content: str) -> None:
    (tmp_path / "bids").mkdir()
    (tmp_path / "bids" / "dataset_description.json").write_text(content)
    refused(tmp_path / "bids", "something else")
    with pytest.raises(ConfigError, match="something else"):  # --overwrite is no licence for that
        check_place(tmp_path / "bids", RUNS, ["face"], overwrite=True)


def test_a_folder_with_other_files_is_left_alone(tmp_path: pathlib.Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("precious")
    refused(tmp_path / "work", "something else")


def test_a_file_where_a_folder_is_needed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "maps").write_text("x")
    refused(tmp_path / "maps", "already there")
    with pytest.raises(ConfigError, match="a file stands where a folder is needed"):
        check_place(tmp_path / "maps" / "inner", RUNS, ["face"])


@pytest.mark.parametrize("beside", ["map.nii.gz", "map.json"])
def test_an_image_or_sidecar_is_never_overwritten_silently(tmp_path: pathlib.Path, beside: str) -> None:
    (tmp_path / beside).write_text("precious")
    refused(tmp_path / "map.nii.gz", "already there", maps(runs=RUNS[:1]))
    maps(runs=RUNS[:1], overwrite=True).save(tmp_path / "map.nii.gz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.json", "map.nii.gz"]
    assert json.loads((tmp_path / "map.json").read_text())["Class"] == "face"


def test_several_maps_do_not_fit_into_one_image(tmp_path: pathlib.Path) -> None:
    assert "Found: 2 maps" in refused(tmp_path / "map.nii.gz", "one image holds one map")
    assert "4 maps" in refused(tmp_path / "map.nii", "one image", maps("face", "house"))


def test_a_folder_that_does_not_allow_writing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    _lock(folder, monkeypatch)
    try:
        for place in (folder, folder / "maps", folder / "map.nii.gz"):
            with pytest.raises(ConfigError, match="does not allow writing"):
                check_place(place, RUNS[:1], ["face"])
            with pytest.raises(ConfigError, match="does not allow writing"):
                maps(runs=RUNS[:1]).save(place)
    finally:
        folder.chmod(stat.S_IRWXU)
    assert not list(folder.iterdir())


def _lock(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No write permission; root ignores it, so opening a new file there is refused as well."""
    import builtins

    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    real = builtins.open

    def locked(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if isinstance(file, pathlib.Path) and folder in file.parents and set(mode) & set("wxa"):
            raise PermissionError(errno.EACCES, "Permission denied", str(file))
        return real(file, mode, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", locked)


def _full_at(count: int) -> Callable[..., Any]:
    """A disk that is full when the given number of files has been written."""
    from pipelines.files import atomic_write

    left = [count]

    def write(path: Any, content: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return atomic_write(path, content)

    return write


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_full_disk_leaves_everything_as_it_was(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, count: int, earlier: bool
) -> None:
    """Four sidecars, the description and the README: whichever fails, no map of this run is there."""
    if earlier:
        maps("house").save(tmp_path / "maps")
    before = listing(tmp_path)
    monkeypatch.setattr(derivative, "atomic_write", _full_at(count))
    with pytest.raises((RunError, OSError), match="No space left"):
        maps().save(tmp_path / "maps")
    assert listing(tmp_path) == before


@pytest.mark.parametrize("which", [0, 2, 5, 9])
def test_a_rename_that_fails_is_taken_back(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, which: int) -> None:
    """Some files were replaced, some were new: all are as they were."""
    maps("face").save(tmp_path / "maps")
    before = listing(tmp_path)
    real, count = pathlib.Path.rename, [which]

    def rename(self: pathlib.Path, target: Any) -> Any:
        if ".partial" in str(self) and ".old" not in str(target):
            count[0] -= 1
            if count[0] < 0:
                raise OSError(errno.EIO, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", rename)
    with pytest.raises(RunError, match="Input/output error"):
        maps("face", "house", overwrite=True, value=2.0).save(tmp_path / "maps")
    assert listing(tmp_path) == before


def test_work_that_fails_between_maps_leaves_nothing(tmp_path: pathlib.Path) -> None:
    """The error of the work is passed on as it is, also one of reading."""
    answer = maps()
    names = MapNames(RUNS, ["face"])
    for error in (ValueError("lost"), KeyboardInterrupt(), FileNotFoundError(errno.ENOENT, "gone", "scan.nii.gz")):
        with pytest.raises(type(error)):
            _work_that_fails(tmp_path / "a" / "maps", names, answer.maps[0], error)
        assert not list(tmp_path.iterdir())


def _work_that_fails(folder: pathlib.Path, names: MapNames, one: BrainMap, error: BaseException) -> None:
    with MapWriter(folder, names, FACTS, NOW) as writer:
        writer.add(one)
        raise error


def test_a_folder_left_by_a_killed_run_is_taken_for_empty(tmp_path: pathlib.Path) -> None:
    (tmp_path / "maps" / ".1a2b3c4d.partial").mkdir(parents=True)
    check_place(tmp_path / "maps", RUNS, ["face"])
    maps().save(tmp_path / "maps")
    assert (tmp_path / "maps" / "dataset_description.json").is_file()


def test_maps_that_do_not_fit_their_scan_are_refused() -> None:
    with pytest.raises(InputError, match="another grid than its scan"):
        BrainMap(RUNS[0], SCAN, "face", np.zeros((3, 4, 4)), np.zeros((3, 4, 5)))


def test_runs_and_classes_must_be_announced(tmp_path: pathlib.Path) -> None:
    names = MapNames(RUNS[:1], ["face"])
    with pytest.raises(InputError, match="not announced"):
        names.path(RUNS[1], "face", "mean")
    with pytest.raises(InputError, match="not announced"):
        names.path(RUNS[0], "house", "mean")
    with pytest.raises(InputError, match="two runs have one name"):
        MapNames([RUNS[0], RUNS[0]], ["face"])


@pytest.mark.parametrize("name", ["../../escape", "/etc/passwd", "a\x00b", "sub-01/../..", "😀", "con"])
def test_no_name_climbs_out_of_the_folder(tmp_path: pathlib.Path, name: str) -> None:
    run = Recording(name, name, name, session=name, task=name, run=name, entities={"ses": name, "x/y": name})
    values = np.ones((3, 4, 5))
    folder = Maps("swift", NOW, FACTS, [BrainMap(run, SCAN, name, values, values)]).save(tmp_path / "in" / "maps")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert [p.name for p in folder.parent.iterdir()] == ["maps"]
    assert len(list(folder.rglob("*statmap.nii.gz"))) == 2
