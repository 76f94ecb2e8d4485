"""Lifted poses as files: NPZ, JSON, CSV and BVH; units, axes and skeleton stand inside, every file whole or not there.

NPZ and JSON hold the same names: ``points`` (T, J, 3) and ``valid`` (T, J), ``skeleton``, ``joints``, ``parents``,
``root``, ``fps``, ``unit``, ``frame``, and where they exist ``trajectory``, ``sigma_mm``, ``truth`` and the 2-D input
under ``input_``. The arrays of several persons stand as ``0/points``, ``1/points``, ... in an NPZ file.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.pose_types import Clip
from pipelines.errors import ConfigError
from pipelines.files import Content, atomic_write
from pipelines.pose.tracks import AXES, Track
from pipelines.values import to_json

__all__ = ["about", "csv_content", "file_names", "json_content", "npz_content", "write_bvh_files"]

FORMAT = "attention-pipelines poses 1"


def about(track: Track) -> dict[str, Any]:
    """What the numbers of a track mean, as plain values.

    Example:
        >>> from pipelines.data.datasets.pose_types import Skeleton
        >>> hand = Skeleton("hand", ("wrist", "finger"), (-1, 0), 0)
        >>> told = about(Track("a", np.zeros((3, 2, 3)), np.ones((3, 2)), hand, fps=25))
        >>> told["unit"], told["frame"], told["relative_to"], told["root"]
        ('m', 'camera', 'wrist', 0)
    """
    skeleton = track.skeleton
    out: dict[str, Any] = {
        "name": track.name,
        "person": track.person,
        "subject": track.subject,
        "action": track.action,
        "frames": track.frames,
        "fps": track.fps,
        "unit": "m",
        "frame": track.frame,
        "axes": AXES[track.frame],
        "relative_to": skeleton.joints[skeleton.root],
        "skeleton": skeleton.name,
        "joints": list(skeleton.joints),
        "parents": list(skeleton.parents),
        "root": skeleton.root,
        "left": list(skeleton.left),
        "right": list(skeleton.right),
        "notes": list(track.notes),
    }
    clip = track.inputs
    if clip is not None:
        out |= {"input_skeleton": clip.skeleton.name, "input_joints": list(clip.skeleton.joints)}
        out |= {"input_unit": clip.unit, "input_size": None if clip.size is None else list(clip.size)}
    return out


def arrays(track: Track) -> dict[str, NDArray[Any]]:
    """The arrays of a track by their names in files."""
    found: dict[str, NDArray[Any] | None] = {
        "points": track.points,
        "valid": track.valid,
        "trajectory": track.trajectory,
        "sigma_mm": track.sigma,
        "truth": track.truth,
    }
    clip: Clip | None = track.inputs
    if clip is not None:
        found |= {"input_points": clip.points, "input_valid": clip.valid, "input_confidence": clip.confidence}
    return {name: values for name, values in found.items() if values is not None}


def npz_content(tracks: Sequence[Track], told: dict[str, Any]) -> Content:
    """An NPZ file of plain arrays (no pickles): numbers as they are, texts as text, `about` of each track as JSON too.

    Args:
        tracks: one or several; of several every name is led by the track's number and a slash.
        told: what holds for all, under `provenance` as JSON.

    Complexity: O(T J), one array in memory beside the tracks.
    """
    held: dict[str, NDArray[Any]] = {"format": np.array(FORMAT), "provenance": np.array(to_json(told))}
    for number, track in enumerate(tracks):
        facts = about(track)
        size = facts.pop("input_size", None)
        plain = {name: value for name, value in facts.items() if name not in ("frames", "notes", "fps")}
        own: dict[str, Any] = {**arrays(track), **plain, "notes": to_json({"notes": facts["notes"]})}
        own |= {"fps": np.float64(np.nan if track.fps is None else track.fps)}
        own |= {} if size is None else {"input_size": size}
        lead = f"{number}/" if len(tracks) > 1 else ""
        held |= {lead + name: np.asarray(value) for name, value in own.items()}
    return lambda handle: np.savez_compressed(handle, **held)  # pyright: ignore[reportArgumentType]


def json_content(tracks: Sequence[Track], told: dict[str, Any]) -> Content:
    """A JSON object: what holds for all, and `tracks`, each with `about` and its arrays; written frame by frame.

    Numbers have nine digits, which float32 needs to come back as it was. A joint that is not there has `valid` 0; truth
    that is not known is null.

    Complexity: O(T J), a frame in memory beside the tracks.
    """

    def write(handle: BinaryIO) -> None:
        out = io.TextIOWrapper(handle, encoding="utf-8", newline="\n", write_through=True)
        head = to_json({"format": FORMAT, **told})
        out.write(head[:-1] + ', "tracks": [')
        for number, track in enumerate(tracks):
            out.write(",\n" if number else "\n")
            out.write(to_json(about(track))[:-1])
            for name, values in arrays(track).items():
                out.write(f', "{name}": [\n')
                for frame, row in enumerate(values):
                    out.write((",\n" if frame else "") + _numbers(row))
                out.write("]")
            out.write("}")
        out.write("\n]}\n")
        out.flush()
        out.detach()

    return write


def _numbers(row: NDArray[Any]) -> str:
    if row.dtype == np.bool_:
        return json.dumps(row.astype(int).tolist(), separators=(",", ":"))
    if row.ndim == 1:
        return f"[{','.join(format(value, '.9g') if value == value else 'null' for value in row.tolist())}]"
    return f"[{','.join(_numbers(part) for part in row)}]"


def csv_content(tracks: Sequence[Track]) -> Content:
    """A table of one row a joint and frame; a joint that is not there has no numbers. Unit and axes are columns.

    Columns: clip, person, frame, time_s, joint, x, y, z, [sigma_mm], [root_x, root_y, root_z], unit, axes, relative_to.

    Complexity: O(T J), a row in memory beside the tracks.
    """
    sigma = any(track.sigma is not None for track in tracks)
    path = any(track.trajectory is not None for track in tracks)
    head = ["clip", "person", "frame", "time_s", "joint", "x", "y", "z", *(["sigma_mm"] if sigma else [])]
    head += ["root_x", "root_y", "root_z"] if path else []
    head += ["unit", "axes", "relative_to"]

    def write(handle: BinaryIO) -> None:
        out = io.TextIOWrapper(handle, encoding="utf-8", errors="backslashreplace", newline="", write_through=True)
        table = csv.writer(out, lineterminator="\n")
        table.writerow(head)
        for track in tracks:
            table.writerows(_rows(track, sigma=sigma, path=path))
        out.flush()
        out.detach()

    return write


def _rows(track: Track, *, sigma: bool, path: bool) -> Iterator[list[Any]]:
    end = ["m", track.frame, track.skeleton.joints[track.skeleton.root]]
    for frame in range(track.frames):
        time = "" if track.fps is None else f"{frame / track.fps:.6g}"
        root = ["", "", ""] if track.trajectory is None else [f"{v:.9g}" for v in track.trajectory[frame].tolist()]
        for joint, name in enumerate(track.skeleton.joints):
            there = bool(track.valid[frame, joint])
            place = [f"{value:.9g}" for value in track.points[frame, joint].tolist()] if there else ["", "", ""]
            row: list[Any] = [track.name, track.person, frame, time, name, *place]
            if sigma:
                row.append("" if track.sigma is None or not there else f"{float(track.sigma[frame, joint]):.6g}")
            yield [*row, *(root if path else []), *end]


def write_bvh_files(path: Path, tracks: Sequence[Track], *, assumed: float = 25.0) -> tuple[list[Path], list[str]]:
    """Write one BVH file a track, all or none.

    Args:
        path: of the file; with several tracks each name is put before its ending.
        tracks: one or several.
        assumed: Hz, for tracks whose frame rate is not known; said in the notes.

    Returns:
        The files, and notes: what was done to the points, counted.

    Raises:
        InputError: a skeleton or joints that BVH cannot hold.
        RunError: the disk is full or not writable.
    """
    from pipelines.data.formats.bvh_write import bvh_text
    from pipelines.files import atomic_write_all

    contents: dict[Any, Content] = {}
    notes: list[str] = []
    for place, track in zip(file_names(path, tracks), tracks, strict=True):
        text, told = bvh_text(track.clip(), fps=assumed if track.fps is None else None)
        contents[place] = text
        notes += [f"{place.name}: {note}" for note in told]
        if track.fps is None:
            notes.append(f"{place.name}: the frame rate is not known: written as {assumed:g} Hz")
        if track.trajectory is None:
            notes.append(f"{place.name}: the root stays in one place, since no trajectory was estimated")
    return atomic_write_all(contents), notes


def file_names(path: Path, tracks: Sequence[Track | Clip]) -> list[Path]:
    """The path for one track; for several NAME and person before the ending, each name once.

    Example:
        >>> from pipelines.data.datasets.pose_types import Skeleton
        >>> hand = Skeleton("hand", ("wrist", "finger"), (-1, 0), 0)
        >>> tracks = [Track(name, np.zeros((1, 2, 3)), np.ones((1, 2)), hand) for name in ("a/b c", "a/b c", "d")]
        >>> [str(name) for name in file_names(Path("out/x.bvh"), tracks)]
        ['out/x-b-c.bvh', 'out/x-b-c-2.bvh', 'out/x-d.bvh']
    """
    if len(tracks) == 1:
        return [path]
    names: list[Path] = []
    for track in tracks:
        # \w holds letters of every script, but nothing that means something in a path.
        word = re.sub(r"[^\w.+-]+", "-", re.split(r"[/\\]", track.name)[-1]).strip("-.")[:80] or "clip"
        word += f"-person{track.person}" if track.person else ""
        name, number = path.with_name(f"{path.stem}-{word}{path.suffix}"), 1
        while name in names:
            number += 1
            name = path.with_name(f"{path.stem}-{word}-{number}{path.suffix}")
        names.append(name)
    return names


def write_tracks(path: Path, tracks: Sequence[Track], told: Callable[[], dict[str, Any]]) -> Path:
    """Write all tracks into one .npz, .json or .csv file.

    Raises:
        ConfigError: another ending.
        RunError: the disk is full or not writable; an older file stays.
    """
    kind = path.suffix.lower()
    if kind not in (".npz", ".json", ".csv"):
        raise ConfigError("cannot write poses so", where=path, found=kind, expected=".npz, .json or .csv")
    if kind == ".csv":
        return atomic_write(path, csv_content(tracks))
    return atomic_write(path, (npz_content if kind == ".npz" else json_content)(tracks, told()))
