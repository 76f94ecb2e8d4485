"""Clips as files: NPZ and JSON with the names of result files, and CSV; unit, axes and skeleton stand inside."""

from __future__ import annotations

import csv
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, BinaryIO, TextIO

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.pose_types import Clip
from pipelines.data.errors import InputError
from pipelines.data.formats.cube_staging import staged

__all__ = ["ENDINGS", "write_poses"]

ENDINGS = (".npz", ".json", ".csv")
_FORMAT = "attention-pipelines poses 1"
_HEAD = ["clip", "person", "frame", "joint", "x", "y"]


def write_poses(path: str | os.PathLike[str], clips: Sequence[Clip]) -> tuple[str, ...]:
    """Write clips into one file, completely or not at all; `open_poses` reads them back.

    Args:
        path: a name that ends in .npz, .json or .csv; a file of that name is replaced.
        clips: one or several; in CSV all 2-D or all 3-D.

    Returns:
        what the file does not hold.

    Raises:
        InputError: another ending, no clips, no room or no right to write.

    Complexity: O(T J).

    Example:
        >>> import tempfile
        >>> from pipelines.data.datasets.pose_skeletons import skeleton
        >>> from pipelines.data.formats.pose_npz import read_npz
        >>> clip = Clip.of("walk", np.ones((3, 17, 3)), skeleton("h36m17"), fps=50, frame="camera")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_poses(f"{folder}/a.npz", [clip])
        ...     again, = read_npz(f"{folder}/a.npz")
        >>> again.name, again.fps, again.unit, again.frame, again.points.shape
        ('walk', 50.0, 'm', 'camera', (3, 17, 3))
    """
    target = pathlib.Path(path)
    kind = target.suffix.lower()
    if kind not in ENDINGS:
        expected = ", ".join(ENDINGS)
        raise InputError("no kind of file for joints", where=target, found=kind or "no ending", expected=expected)
    if not clips:
        raise InputError("no clips to write", where=target, found="none", expected="1 or more")
    if kind == ".csv" and len({clip.dims for clip in clips}) > 1:
        raise InputError("2-D and 3-D clips for one table", where=target, expected="one of them", cure="write .npz")
    try:
        with staged(target) as (name,):
            if kind == ".npz":
                with name.open("wb") as file:
                    _npz(file, clips)
            else:
                with name.open("w", encoding="utf-8", newline="", errors="backslashreplace") as text:
                    (_json if kind == ".json" else _csv)(text, clips)
    except OSError as error:
        found, cure = error.strerror or str(error), "choose a folder with room that you may write to"
        raise InputError("cannot be written", where=target, found=found, cure=cure) from error
    return _left_out(clips, kind)


def _left_out(clips: Sequence[Clip], kind: str) -> tuple[str, ...]:
    cameras = sum(clip.camera is not None for clip in clips)
    notes = [f"cameras of {cameras} clips not written"] if cameras else []
    told = sum(bool(clip.notes) for clip in clips)
    notes += [f"notes of {told} clips not written: a table holds none"] if told and kind == ".csv" else []
    return tuple(notes)


def _about(clip: Clip) -> dict[str, Any]:
    tree = clip.skeleton
    out: dict[str, Any] = {
        "name": clip.name,
        "person": clip.person,
        "subject": clip.subject,
        "action": clip.action,
        "frames": clip.frames,
        "fps": clip.fps,
        "unit": clip.unit,
        "frame": clip.frame,
        "skeleton": tree.name,
        "joints": list(tree.joints),
        "parents": list(tree.parents),
        "root": tree.root,
        "left": list(tree.left),
        "right": list(tree.right),
        "notes": list(clip.notes),
    }
    return out | ({} if clip.size is None else {"size": list(clip.size)})


def _arrays(clip: Clip) -> dict[str, NDArray[Any]]:
    out: dict[str, NDArray[Any]] = {"points": clip.points, "valid": clip.valid}
    return out if clip.confidence is None else out | {"confidence": clip.confidence}


def _npz(file: BinaryIO, clips: Sequence[Clip]) -> None:
    held: dict[str, NDArray[Any]] = {"format": np.array(_FORMAT)}
    for number, clip in enumerate(clips):
        facts = _about(clip)
        facts |= {"fps": np.nan if clip.fps is None else clip.fps, "notes": json.dumps({"notes": facts["notes"]})}
        del facts["frames"]
        lead = f"{number}/" if len(clips) > 1 else ""
        held |= {lead + name: np.asarray(value) for name, value in (facts | _arrays(clip)).items()}
    np.savez_compressed(file, **held)  # pyright: ignore[reportArgumentType]


def _json(text: TextIO, clips: Sequence[Clip]) -> None:
    """Numbers with the nine digits that float32 needs to come back as it was."""
    text.write(f'{{"format": {json.dumps(_FORMAT)}, "tracks": [')
    for number, clip in enumerate(clips):
        text.write(",\n" if number else "\n")
        text.write(json.dumps(_about(clip))[:-1])
        for name, values in _arrays(clip).items():
            text.write(f', "{name}": [\n')
            for frame, row in enumerate(values):
                text.write((",\n" if frame else "") + _row(row))
            text.write("]")
        text.write("}")
    text.write("\n]}\n")


def _row(row: NDArray[Any]) -> str:
    if row.dtype == np.bool_:
        return json.dumps(row.astype(int).tolist(), separators=(",", ":"))
    if row.ndim == 1:
        return f"[{','.join(format(value, '.9g') for value in row.tolist())}]"
    return f"[{','.join(_row(part) for part in row)}]"


def _csv(text: TextIO, clips: Sequence[Clip]) -> None:
    """A row a joint and frame; a joint that is missing has no numbers."""
    sure = any(clip.confidence is not None for clip in clips)
    deep = clips[0].dims == 3
    table = csv.writer(text, lineterminator="\n")
    head = [*_HEAD, *(["z"] if deep else []), *(["score"] if sure else [])]
    table.writerow([*head, "fps", "unit", "axes", "size_w", "size_h", "skeleton", "subject", "action"])
    for clip in clips:
        tree, size = clip.skeleton, clip.size or ("", "")
        facts = ["" if clip.fps is None else repr(clip.fps), clip.unit, clip.frame, *size, tree.name]
        facts += [clip.subject, clip.action]
        for frame in range(clip.frames):
            for joint, name in enumerate(tree.joints):
                there = bool(clip.valid[frame, joint])
                numbers = [f"{value:.9g}" if there else "" for value in clip.points[frame, joint].tolist()]
                if sure:
                    held = None if clip.confidence is None else float(clip.confidence[frame, joint])
                    numbers.append("" if held is None or not there else f"{held:.9g}")
                table.writerow([clip.name, clip.person, frame, name, *numbers, *facts])
