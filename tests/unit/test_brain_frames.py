"""Frames of the released preparation and NeuroSTORM's one file: read whole, written so that they are read the same."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import torch

from pipelines.data.datasets.brain_frames import is_frames, open_frames, write_frames
from pipelines.data.datasets.brain_grid import GridOptions
from pipelines.data.datasets.brain_prepare import check_alike, prepare
from pipelines.data.datasets.brain_signal import SignalOptions
from pipelines.data.datasets.brain_types import Recording
from pipelines.data.errors import InputError


def released(folder: pathlib.Path, count: int = 23, seed: int = 0) -> torch.Tensor:
    """Frames as the released script writes them: standardised, background at the least score."""
    folder.mkdir(parents=True)
    data = torch.from_numpy(np.random.default_rng(seed).normal(500, 90, (5, 6, 7, count)).astype(np.float32))
    data[0] = 0
    background = data == 0
    scores = (data - data[~background].mean()) / data[~background].std()
    scores[background] = scores[~background].min()
    scores = scores.half()
    for i, frame in enumerate(torch.split(scores, 1, 3)):
        torch.save(frame.clone(), folder / f"frame_{i}.pt")
    return scores


def test_every_frame_in_the_order_of_its_number(tmp_path: pathlib.Path) -> None:
    scores = released(tmp_path / "sub-1")
    assert is_frames(tmp_path / "sub-1")
    assert not is_frames(tmp_path)
    run = prepare(Recording("sub-1", tmp_path / "sub-1"))
    assert run.volumes == 23
    assert (run.window(0, 23) == scores.float().numpy()).all()
    assert not run.mask[0].any()
    assert run.mask[1:].all()
    assert run.tr is None
    assert not run.placed
    assert any("nothing is done to their values" in note for note in run.notes)


def test_what_was_asked_of_frames_in_vain_is_said(tmp_path: pathlib.Path) -> None:
    released(tmp_path / "a")
    signal = SignalOptions(standardise="voxel", detrend=1, smooth=4.0, mask="epi")
    run = prepare(Recording("a", tmp_path / "a", tr=0.8, mask=tmp_path / "mask.nii"), signal)
    assert "mask.nii was not used: frames have no position" in run.notes
    told = "not done to frames: signal.standardise, signal.detrend, signal.smooth, signal.mask"
    assert told in run.notes
    with pytest.raises(InputError, match="no voxel size to resample from"):
        prepare(Recording("a", tmp_path / "a"), grid=GridOptions(voxel=2.0))
    assert prepare(Recording("a", tmp_path / "a", tr=0.8), grid=GridOptions(tr=0.4)).volumes == 45


def test_padding_is_the_released_one(tmp_path: pathlib.Path) -> None:
    scores = released(tmp_path / "a")
    run = prepare(Recording("a", tmp_path / "a"), grid=GridOptions(size=(8, 8, 8), fit="centre"))
    y = scores[None, ..., :20]
    background = y.flatten()[0]
    padded = torch.nn.functional.pad(y.permute(0, 4, 1, 2, 3), (1, 0, 1, 1, 2, 1), value=background.item())
    assert (run.window(0, 20) == padded.permute(0, 2, 3, 4, 1)[0].float().numpy()).all()


def test_neurostorm_s_file(tmp_path: pathlib.Path) -> None:
    scores = released(tmp_path / "a").float()
    scale = float(scores.abs().max()) / 127
    stored = (scores.permute(3, 0, 1, 2) / scale).round().clamp(-127, 127).to(torch.int8)
    torch.save({"frames": stored, "scale": scale, "num_frames": 23}, tmp_path / "a" / "data.pt")
    run = prepare(Recording("a", tmp_path / "a"))
    expected = stored.permute(1, 2, 3, 0).double().numpy() * scale
    assert (run.window(0, 23) == expected.astype(np.float32)).all()
    assert not run.mask[0].any()
    assert any("23 frames beside data.pt were not read" in note for note in run.notes)
    assert not any("files beside" in note for note in run.notes)


def test_other_files_beside_frames_are_counted(tmp_path: pathlib.Path) -> None:
    released(tmp_path / "a")
    for name in ("voxel_mean.pt", "voxel_std.pt"):
        (tmp_path / "a" / name).write_bytes(b"")
    assert "2 files beside the frames were not read" in open_frames(tmp_path / "a").notes


def test_written_frames_are_read_the_same(tmp_path: pathlib.Path) -> None:
    values = np.random.default_rng(0).normal(900, 60, (5, 6, 7, 24)).astype(np.float32)
    values[:2] = 0
    run = prepare(Recording("a", values, tr=2.0), SignalOptions("voxel", 1), GridOptions(size=(8, 8, 8), fit="centre"))
    folder = write_frames(run, tmp_path / "new" / "sub-1")
    assert sorted(one.name for one in folder.iterdir()) == sorted(f"frame_{i}.pt" for i in range(24))
    assert [one.name for one in folder.parent.iterdir()] == ["sub-1"], "nothing temporary stays"
    frame = torch.load(folder / "frame_3.pt", weights_only=True)
    assert frame.dtype == torch.float16
    assert frame.shape == (5, 6, 7, 1)
    again = prepare(Recording("a", folder), grid=GridOptions(size=(8, 8, 8), fit="centre"))
    assert (again.window(0, 24) == run.window(0, 24).astype(np.float16)).all()
    assert (again.mask == run.mask).all()
    assert check_alike([run, again]) == (
        "1 of 2 runs have no known repetition time (a)",
        "1 of 2 runs have no known voxel size (a)",
    )
    # As the released loader joins and pads them.
    window = torch.cat([torch.load(folder / f"frame_{i}.pt", weights_only=True)[None] for i in range(4, 24)], dim=4)
    padded = torch.nn.functional.pad(
        window.permute(0, 4, 1, 2, 3), (1, 0, 1, 1, 2, 1), value=window.flatten()[0].item()
    )
    assert (padded.permute(0, 2, 3, 4, 1)[0].float().numpy() == run.window(4, 20).astype(np.float16)).all()
    boxed = write_frames(run, tmp_path / "boxed", boxed=True)
    assert torch.load(boxed / "frame_0.pt", weights_only=True).shape == (8, 8, 8, 1)


def test_nothing_is_written_over_or_by_halves(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(900, 60, (3, 3, 3, 9)).astype(np.float32)
    run = prepare(Recording("a", values, tr=2.0))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(InputError, match="not empty"):
        write_frames(run, tmp_path / "full")
    save = torch.save

    def fails(value: torch.Tensor, path: pathlib.Path) -> None:
        if path.name == "frame_5.pt":
            raise OSError(28, "No space left on device")
        save(value, path)

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(InputError, match="No space left"):
        write_frames(run, tmp_path / "new")
    monkeypatch.undo()
    large = prepare(Recording("a", values * 1000, tr=2.0), SignalOptions("none"))
    with pytest.raises(InputError, match="a value beyond float16"):
        write_frames(large, tmp_path / "new")
    assert [one.name for one in tmp_path.iterdir()] == ["full"]
