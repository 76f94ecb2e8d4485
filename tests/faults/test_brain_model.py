"""Brain scans on bad input: one clear message, the rest is done, nothing is invented and nothing half written."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import pathlib
import shlex
import shutil
import zipfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
import torch

from pipelines.cli import main


class Done(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


Command = Callable[[str], Done]
TINY = "--arch.dim 8 --arch.depths [1] --arch.heads [2] --arch.patch [5,5,5,1] --train.epochs 1 --baselines majority"


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def command(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> Done:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(shlex.split(line))
        return Done(code, out.getvalue(), err.getvalue())

    return run


def scan(path: pathlib.Path, shape: tuple[int, ...] = (6, 10, 10, 12), tr: float = 2.5, edge: float = 25.0) -> None:
    """An image of noise with the voxels and times of the embedded whole-brain runs."""
    values = np.random.default_rng(0).normal(500, 20, shape).astype(np.float32)
    image = nib.Nifti1Image(values, np.diag([edge, edge, edge, 1.0]))
    if len(shape) == 4:
        image.header.set_zooms((edge, edge, edge, tr))
    image.header.set_xyzt_units("mm", "sec")
    image.to_filename(path)


def broken(folder: pathlib.Path) -> None:
    """A scan of each kind of damage, and one good one."""
    scan(folder / "good.nii.gz")
    scan(folder / "three.nii", (6, 10, 10))
    scan(folder / "single.nii", (6, 10, 10, 1))
    scan(folder / "other_size.nii", (7, 10, 10, 12))
    scan(folder / "other_tr.nii", tr=1.0)
    scan(folder / "other_voxel.nii", edge=20.0)
    content = (folder / "good.nii.gz").read_bytes()
    (folder / "cut.nii.gz").write_bytes(content[: len(content) // 2])
    raw = bytearray(gzip.decompress(content))
    for name, place, value in (("negative", 42, -5), ("absurd", 42, 32_000)):
        damaged = raw.copy()
        damaged[place : place + 2] = int(value).to_bytes(2, "little", signed=True)
        (folder / f"{name}.nii").write_bytes(damaged)
    nan = np.full((6, 10, 10, 12), 3.0, np.float32)
    nan[2, 2, 2, 4] = np.nan
    nib.Nifti1Image(nan, np.diag([25.0, 25, 25, 1])).to_filename(folder / "nan.nii")
    zero = raw.copy()
    zero[280:328] = bytes(48)  # the three rows of the affine
    (folder / "zero.nii").write_bytes(zero)
    (folder / "text.nii").write_text("no scan at all")
    (folder / "surface.func.gii").write_text("<GIFTI/>")
    with zipfile.ZipFile(folder / "climbing.zip", "w") as archive:
        archive.writestr("../out.nii", b"x")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("fmri predict gone.nii.gz", "gone.nii.gz"),
        ("fmri predict three.nii", "three.nii"),
        ("fmri predict single.nii", "one volume"),
        ("fmri predict cut.nii.gz", "cut.nii.gz"),
        ("fmri predict negative.nii", "negative.nii"),
        ("fmri predict absurd.nii", "absurd.nii"),
        ("fmri predict nan.nii", "nan.nii"),
        ("fmri predict zero.nii", "zero.nii"),
        ("fmri predict text.nii", "text.nii"),
        ("fmri predict surface.func.gii", "surface"),
        ("fmri predict climbing.zip", "climbing.zip"),
        ("fmri predict other_size.nii", "--grid.fit centre"),
        ("fmri predict other_tr.nii", "--grid.tr 2.5"),
        ("fmri predict other_voxel.nii", "other voxels than the model was trained with"),
        ("fmri predict good.nii.gz -o a.pdf", "cannot write this kind of file"),
        ("fmri predict good.nii.gz --arch.dim 99", "another arch"),
        ("fmri explain good.nii.gz --labels nose", "no such class"),
        ("fmri explain good.nii.gz --steps 0", "steps: out of range"),
        ("fmri encode good.nii.gz -o v.pdf", "cannot write this kind of file"),
        ("fmri evaluate --data good.nii.gz", "nothing says what is to be told"),
    ],
)
def test_mistakes_are_one_message_and_leave_nothing(
    command: Command, tmp_path: pathlib.Path, brain_folder: pathlib.Path, line: str, words: str
) -> None:
    broken(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = command(f"{line} --checkpoint {brain_folder}")
    said = [text for text in done.err.splitlines() if text.startswith("pipelines: ")]
    assert done.code == 2, done.err
    assert done.out == ""
    assert len(said) == 1, done.err
    assert words.lower() in said[0].lower(), said[0]
    assert "internal error" not in done.err
    assert "Traceback" not in done.err
    assert sorted(tmp_path.rglob("*")) == before
    assert not (tmp_path.parent / "out.nii").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--attention nonsense", "no mechanism 'nonsense'"),
        ("--model swfit", "did you mean swift?"),
        ("--size huge", "unknown size"),
        ("--arch.heads [3]", "heads"),
        ("--window.frames 0", "window.frames: out of range"),
        ("--window.frames 500", "a run shorter than a window"),
        ("--split.by moon", "--split.by"),
        ("--split.folds 1", "split.folds: out of range"),
        ("--target.column sex", "no table of people"),
        ("--target.only face,hose", "no such category"),
        ("--study.task other", "other"),
        ("--signal.detrend 99", "signal.detrend: no such order"),
        ("--baselines tfdif", "no such baseline"),
        ("--augment.noise -1", "noise"),
        ("--tr -2", "tr: no repetition time"),
        ("--pretrain.batch_size 1", "pretrain.batch_size"),
        ("--grid.size [6,10]", "grid.size"),
    ],
)
def test_options_that_cannot_be(
    command: Command, tmp_path: pathlib.Path, haxby_folder: pathlib.Path, line: str, words: str
) -> None:
    done = command(f"fmri fit --data {haxby_folder} {TINY} {line} -o model")
    said = [text for text in done.err.splitlines() if text.startswith("pipelines")]
    assert done.code == 2, done.err
    assert words.lower() in done.err.lower(), said
    assert "Traceback" not in done.err
    assert not (tmp_path / "model").exists()


def test_events_beyond_the_scan_and_runs_that_do_not_go_together(
    command: Command, tmp_path: pathlib.Path, haxby_folder: pathlib.Path
) -> None:
    folder = tmp_path / "study"
    shutil.copytree(haxby_folder, folder)
    events = sorted((folder / "sub-1" / "func").glob("*events.tsv"))[0]
    known = events.read_text()
    events.write_text(known + "9000\t22.5\tface\n")
    done = command(f"fmri fit --data study {TINY} -o model")
    assert done.code == 2
    assert "events beyond the scan" in done.err
    events.write_text(known)
    path = sorted((folder / "sub-1" / "func").glob("*bold.nii.gz"))[0]
    image = nib.load(path)
    whole = np.asarray(image.dataobj)
    nib.Nifti1Image(whole[1:], image.affine, image.header).to_filename(path)
    done = command(f"fmri fit --data study {TINY} -o model")
    assert done.code == 2
    assert "runs of different sizes" in done.err
    assert not (tmp_path / "model").exists()


def test_people_and_scans_that_do_not_meet(
    command: Command, tmp_path: pathlib.Path, haxby_folder: pathlib.Path
) -> None:
    folder = tmp_path / "study"
    shutil.copytree(haxby_folder, folder)
    (folder / "participants.tsv").write_text("participant_id\tsex\nsub-1\tn/a\nsub-7\tF\n")
    done = command(f"fmri fit --data study {TINY} --target.column sex --window.frames 4 -o model")
    assert done.code == 2
    assert "subjects and values do not match" in done.err
    assert "--target.missing drop" in done.err or "check the subjects' names" in done.err


def test_a_bad_run_among_good_ones(command: Command, tmp_path: pathlib.Path, brain_folder: pathlib.Path) -> None:
    for name in ("sub-1_run-1_bold.nii.gz", "sub-1_run-2_bold.nii.gz"):
        scan(tmp_path / name)
    content = (tmp_path / "sub-1_run-2_bold.nii.gz").read_bytes()
    (tmp_path / "sub-1_run-2_bold.nii.gz").write_bytes(content[:-2000])
    files = "sub-1_run-1_bold.nii.gz sub-1_run-2_bold.nii.gz"
    done = command(f"fmri predict {files} --checkpoint {brain_folder} --json --quiet -o out.json")
    assert done.code == 1, done.err
    said = json.loads(done.out)
    assert len(said["volumes"]) == 12
    assert len(said["failures"]) == 1
    assert next(iter(said["failures"])).startswith("sub-1_run-2")
    assert json.loads((tmp_path / "out.json").read_text())["failures"] == said["failures"]


def test_maps_do_not_go_where_nothing_can_be_written(
    command: Command, tmp_path: pathlib.Path, brain_folder: pathlib.Path
) -> None:
    scan(tmp_path / "good.nii.gz")
    (tmp_path / "maps").write_text("a file in the way")
    line = f"fmri explain good.nii.gz --steps 2 --windows 1 --checkpoint {brain_folder} -o maps/"
    done = command(line)
    assert done.code == 2, done.err
    assert "Traceback" not in done.err
    assert (tmp_path / "maps").read_text() == "a file in the way"
