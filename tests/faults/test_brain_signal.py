"""Bad runs, masks, confounds and frames: one message each, with counts and a cure; sizes are checked first."""

from __future__ import annotations

import io
import pathlib
import random
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from pipelines.data.datasets.brain_confounds import read_confounds
from pipelines.data.datasets.brain_frames import open_frames
from pipelines.data.datasets.brain_grid import GridOptions
from pipelines.data.datasets.brain_prepare import prepare
from pipelines.data.datasets.brain_signal import SignalOptions
from pipelines.data.datasets.brain_types import Recording
from pipelines.data.datasets.brain_windows import starts
from pipelines.data.errors import InputError


def values(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(500, 50, (4, 5, 6, 12)).astype(np.float32)


def refused(text: str, source: Any = None, grid: GridOptions | None = None, **more: Any) -> str:
    signal = SignalOptions(**more.pop("signal", {}))
    record = Recording("run-1", values() if source is None else source, tr=more.pop("tr", 2.0), **more)
    with pytest.raises(InputError, match=text) as caught:
        prepare(record, signal, grid)
    return str(caught.value)


def test_not_a_number_is_counted_with_its_place() -> None:
    bad = values()
    bad[1, 2, 3, 4], bad[1, 2, 3, 9], bad[0, 0, 5, 9] = np.nan, np.nan, -np.inf
    text = refused("NaN or infinite", bad)
    assert "2 of 120 voxels in 2 of 12 volumes, first at voxel (1, 2, 3) of volume 4" in text
    assert "--signal.nan background" in text


def test_a_volume_of_not_a_number_leaves_no_brain() -> None:
    bad = values()
    bad[..., 3] = np.nan
    refused("no brain voxel is left", bad, signal={"nan": "background"})


def test_no_brain_and_no_variation() -> None:
    assert "0 of 120 voxels" in refused("no brain voxel is left", np.zeros((4, 5, 6, 12)))
    assert "every brain voxel of every volume is 7" in refused("the brain does not vary", np.full((4, 5, 6, 12), 7.0))
    refused("no brain voxel varies in time", np.full((4, 5, 6, 12), 7.0), signal={"standardise": "voxel"})
    refused("the brain does not vary", np.full((4, 5, 6, 12), 7.0), signal={"standardise": "minmax"})
    refused("nilearn finds no brain|no brain voxel is left", np.full((4, 5, 6, 12), 7.0), signal={"mask": "epi"})


def test_masks_that_do_not_fit(tmp_path: pathlib.Path) -> None:
    refused("no image of the brain", signal={"mask": "file"})
    nib.save(nib.Nifti1Image(np.ones((4, 5, 7), np.uint8), np.eye(4)), tmp_path / "m.nii")
    text = refused("another grid", mask=tmp_path / "m.nii")
    assert "4 x 5 x 7" in text
    assert "4 x 5 x 6" in text
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.eye(4)), tmp_path / "e.nii")
    refused("empty", mask=tmp_path / "e.nii")
    refused("no such file", mask=tmp_path / "gone.nii")


def test_another_size_than_the_model() -> None:
    text = refused("another size than the model sees", grid=GridOptions(size=(4, 5, 8)))
    assert "Found: 4x5x6. Expected: 4x5x8" in text
    assert "--grid.fit centre" in text


def test_absurd_grids() -> None:
    refused("too many voxels", grid=GridOptions(voxel=1e-3))
    refused("too many voxels", grid=GridOptions(voxel=1e-300))
    refused("times of the volumes are unknown", grid=GridOptions(tr=1.0), tr=None)
    refused("leaves one volume", grid=GridOptions(tr=60.0))
    refused("too many volumes", grid=GridOptions(tr=1e-6))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: SignalOptions(standardise="z"), "signal.standardise"),  # type: ignore[arg-type]
        (lambda: SignalOptions(mask="brain"), "signal.mask"),  # type: ignore[arg-type]
        (lambda: SignalOptions(detrend=11), "signal.detrend"),
        (lambda: SignalOptions(smooth=-1.0), "signal.smooth"),
        (lambda: SignalOptions(smooth=float("nan")), "signal.smooth"),
        (lambda: GridOptions(voxel=0.0), "grid.voxel"),
        (lambda: GridOptions(tr=float("nan")), "grid.tr"),
        (lambda: GridOptions(size=(4, 0, 4)), "grid.size"),
        (lambda: GridOptions(size=(4, 4)), "grid.size"),  # type: ignore[arg-type]
        (lambda: GridOptions(fit="crop"), "grid.fit"),  # type: ignore[arg-type]
        (lambda: starts(10, 4, 5), "window.stride"),
        (lambda: starts(10, 0), "window.frames"),
    ],
)
def test_settings_out_of_range(make: Callable[[], object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        make()


def test_windows_and_masks_out_of_range() -> None:
    run = prepare(Recording("a", values(), tr=2.0))
    for start, frames in ((-1, 3), (10, 3), (0, 0), (0, 13)):
        with pytest.raises(InputError, match="no such volumes"):
            run.window(start, frames)
    with pytest.raises(InputError, match="no such mask"):
        run.matrix(np.zeros(run.grid, bool))
    with pytest.raises(InputError, match="no such mask"):
        run.matrix(np.ones((3, 3, 3), bool))


def confounds(folder: pathlib.Path, content: str | bytes, wanted: tuple[str, ...] = ("a",), rows: int = 3) -> str:
    path = folder / "c.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        read_confounds(path, wanted, rows, "run-1")
    return str(caught.value)


def test_confounds_that_do_not_fit(tmp_path: pathlib.Path) -> None:
    good = "trans_x\ttrans_y\n1\tn/a\n2\t5\n4\t6\n"
    assert "another number of rows than volumes. Found: 3. Expected: 12" in confounds(tmp_path, good, rows=12)
    assert "Expected: one of trans_y, trans_x" in confounds(tmp_path, good, ("trans_z",))
    assert "nilearn does not find motion" in confounds(tmp_path, good, ("motion",))
    assert "is no number" in confounds(tmp_path, "a\n1\nx\n3\n")
    assert "1 rows, the first is row 2 after the header" in confounds(tmp_path, "a\n1\nn/a\n3\n")
    assert "cells without a number" in confounds(tmp_path, "a\n1\ninf\n3\n")
    assert "is no table" in confounds(tmp_path, "a\tb\n1\t2\n1\t2\t3\n4\t5\n"), "no cell is lost"
    assert "is no table" in confounds(tmp_path, "a\tb\n1\t2\t3\n1\t2\t3\n4\t5\t6\n"), "no column is lost"
    assert "columns of the same name. Found: a" in confounds(tmp_path, "a\ta\n1\t2\n1\t2\n4\t5\n")
    assert "is no table" in confounds(tmp_path, b"")
    assert "is no table" in confounds(tmp_path, b"\xff\xfe\x00\x81\t")
    with pytest.raises(InputError, match=r"run-1: the run has no table of confounds.*--signal.confounds"):
        read_confounds(None, ("motion",), 3, "run-1")
    with pytest.raises(InputError, match="cannot be read"):
        read_confounds(tmp_path / "gone.tsv", ("motion",), 3, "run-1")
    matrix, notes = read_confounds(_written(tmp_path, good), ("trans_y",), 3, "run-1")
    assert matrix.ravel().tolist() == [5, 5, 6]
    assert "took that of the second" in notes[1]


def _written(folder: pathlib.Path, text: str) -> pathlib.Path:
    path = folder / "c.tsv"
    path.write_text(text)
    return path


def test_more_confounds_than_volumes(tmp_path: pathlib.Path) -> None:
    draw = np.random.default_rng(0).normal(0, 1, (12, 12))
    path = tmp_path / "c.tsv"
    names = [f"c{i}" for i in range(12)]
    np.savetxt(path, draw, delimiter="\t", header="\t".join(names), comments="")
    refused("nothing of the run would be left", confounds=path, signal={"confounds": tuple(names)})


def frame_folder(folder: pathlib.Path, count: int = 4) -> pathlib.Path:
    folder.mkdir()
    for i in range(count):
        torch.save(torch.full((3, 4, 5, 1), float(i)).half(), folder / f"frame_{i}.pt")
    return folder


def test_frames_that_are_missing_or_foreign(tmp_path: pathlib.Path) -> None:
    folder = frame_folder(tmp_path / "a", 12)
    (folder / "frame_7.pt").unlink()
    with pytest.raises(InputError, match="11 frames up to number 11, the first missing one is 7"):
        open_frames(folder)
    torch.save(torch.zeros(3, 4, 6, 1).half(), folder / "frame_7.pt")
    with pytest.raises(InputError, match=r"another shape.*frame_7|frame_7.*another shape"):
        open_frames(folder).frames(0, 12)
    for value, text in (
        (torch.zeros(3, 4, 5).half(), "another form"),
        (torch.zeros(3, 4, 5, 1, dtype=torch.int8), "another form"),
        ([1, 2], "no plain tensor"),
        (torch.zeros(1).half().expand(3, 4, 5, 1), "a tensor larger than its numbers"),
        (torch.zeros(1).half().expand(100_000, 100_000, 100_000, 1), "a tensor larger than its numbers"),
        (torch.nn.Linear(2, 2), "more than a tensor"),
        (torch.zeros(3, 4, 5, 1).to_sparse(), "more than a tensor"),
    ):
        torch.save(value, folder / "frame_0.pt")
        with pytest.raises(InputError, match=text):
            open_frames(folder)
    with pytest.raises(InputError, match="one volume is no run"):
        open_frames(frame_folder(tmp_path / "b", 1))
    (tmp_path / "c").mkdir()
    with pytest.raises(InputError, match="no frames"):
        open_frames(tmp_path / "c")
    (tmp_path / "c" / "frame_999999999.pt").write_bytes(b"")
    with pytest.raises(InputError, match="frames are missing"):
        open_frames(tmp_path / "c")


def test_frames_with_not_a_number(tmp_path: pathlib.Path) -> None:
    folder = frame_folder(tmp_path / "a")
    torch.save(torch.full((3, 4, 5, 1), float("nan")).half(), folder / "frame_2.pt")
    with pytest.raises(InputError, match="60 of 60 voxels in 1 of 4 volumes"):
        prepare(Recording("a", folder))


def test_a_frame_of_the_old_container_or_compressed_is_refused(tmp_path: pathlib.Path) -> None:
    folder = frame_folder(tmp_path / "a")
    torch.save(torch.zeros(3, 4, 5, 1).half(), folder / "frame_0.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match=r"torch 1\.6 or newer"):
        open_frames(folder)
    torch.save(torch.zeros(300, 300, 300, 1).half(), tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(folder / "frame_0.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name))
    tracemalloc.start()
    with pytest.raises(InputError, match="compressed inside"):
        open_frames(folder)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("held", "text"),
    [
        ({"frames": torch.zeros(4, 3, 3, 3), "scale": 1.0, "num_frames": 4}, "another form"),
        ({"frames": torch.zeros(4, 3, 3, 3, dtype=torch.int8), "scale": 0.0, "num_frames": 4}, "no such scale"),
        ({"frames": torch.zeros(4, 3, 3, 3, dtype=torch.int8), "scale": float("nan"), "num_frames": 4}, "such scale"),
        ({"frames": torch.zeros(4, 3, 3, 3, dtype=torch.int8), "scale": "1", "num_frames": 4}, "scale is no number"),
        (
            {"frames": torch.zeros(4, 3, 3, 3, dtype=torch.int8), "scale": 1.0, "num_frames": 9},
            "num_frames 9, 4 frames",
        ),
        ({"frames": torch.zeros(1, dtype=torch.int8).expand(9, 3, 3, 3), "scale": 1.0, "num_frames": 9}, "larger than"),
        ({"frames": 3}, "no prepared run"),
        (torch.zeros(3), "no prepared run"),
    ],
)
def test_one_file_runs_that_do_not_fit(tmp_path: pathlib.Path, held: Any, text: str) -> None:
    torch.save(held, tmp_path / "data.pt")
    with pytest.raises(InputError, match=text):
        open_frames(tmp_path)


def damaged(whole: bytes, kind: str, seed: int) -> bytes:
    draw = random.Random(seed)
    if kind == "cut":
        return whole[: draw.randrange(len(whole))]
    data = bytearray(whole)
    places = range(len(data)) if kind == "flipped" else range(400)
    for _ in range(1 if kind == "flipped" else 8):
        place = draw.choice(places)
        data[place] ^= 1 << draw.randrange(8)
    return bytes(data)


@pytest.mark.parametrize("kind", ["cut", "flipped", "head"])
@pytest.mark.parametrize("form", ["frame", "blob", "confounds"])
def test_damaged_files(tmp_path: pathlib.Path, kind: str, form: str) -> None:
    """100 of each: a message or, where the damage hit nothing that counts, the same values."""
    draw = np.random.default_rng(0)
    if form == "frame":
        folder = frame_folder(tmp_path / "a", 2)
        buffer, path = io.BytesIO(), folder / "frame_0.pt"
        torch.save(torch.from_numpy(draw.normal(0, 1, (6, 6, 6, 1))).half(), buffer)
        shape = torch.zeros(6, 6, 6, 1).half()
        torch.save(shape, folder / "frame_1.pt")
    elif form == "blob":
        folder, path, buffer = tmp_path, tmp_path / "data.pt", io.BytesIO()
        stored = torch.from_numpy(draw.integers(-99, 99, (5, 6, 6, 6))).to(torch.int8)
        torch.save({"frames": stored, "scale": 0.5, "num_frames": 5}, buffer)
    else:
        folder, path, buffer = tmp_path, tmp_path / "c.tsv", io.BytesIO()
        np.savetxt(buffer, draw.normal(0, 1, (30, 6)), delimiter="\t", header="\t".join("abcdef"), comments="")
    whole = buffer.getvalue()

    def read() -> np.ndarray:
        if form == "confounds":
            return read_confounds(path, ("a", "f"), 30, "run-1")[0]
        scan = open_frames(folder)
        return scan.frames(0, scan.shape[3])

    path.write_bytes(whole)
    good, caught = read(), 0
    for seed in range(100):
        path.write_bytes(damaged(whole, kind, seed))
        began = time.monotonic()
        tracemalloc.start()
        try:
            found, message = read(), ""
        except InputError as error:
            found, message = None, str(error)
        caught += found is None
        assert found is not None or str(path) in message or str(folder) in message
        if found is not None and form != "confounds":  # text has no checksum
            assert (found == good).all()
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
        tracemalloc.stop()
        assert time.monotonic() - began < 5
    assert caught >= (95 if kind == "cut" else 10)
