"""Joints out of anything: files of detectors, motion capture, folders of them, arrays and clips."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.data.datasets.brain_walk import natural
from pipelines.data.datasets.pose_types import Clip
from pipelines.data.errors import InputError
from pipelines.data.formats.pose import finish, remarked
from pipelines.data.formats.pose_source import PoseReading, explained, numbers_of

__all__ = ["ENDINGS", "PoseReading", "open_poses"]

#: Endings of the files that are read; a folder's others are counted.
ENDINGS = (".json", ".npz", ".npy", ".csv", ".tsv", ".bvh", ".amc", ".c3d", ".txt")
_MOCAP = (".bvh", ".amc", ".c3d", ".txt")
_SILENT = (".asf", ".md")  # skeletons belong to .amc
_MOST_FILES = 1_000_000
_SOURCES = "a file, a folder, an array (frames, joints, 2 or 3), clips, or a list or mapping of them"


def open_poses(source: Any, reading: PoseReading | None = None, *, mixed: bool = False) -> list[Clip]:
    """Clips of a file, a folder, an array or clips; one a person and recording.

    Args:
        source: a path; an array (T, J, 2 or 3); a `Clip`, which is taken as it is; a list of these, or a mapping of
            names to arrays. A folder is read with the folders in it; JSON files of OpenPose are frames of one video.
        reading: what the source does not say.
        mixed: allow different frame rates, for callers who bring clips to one rate themselves.

    Returns:
        clips in the order of their files; motion capture in m on `h36m17`. What was decided, converted, missing or
        looks wrong is in their notes.

    Raises:
        InputError: nothing to read, clips of different frame rates, and what each reader refuses.

    Complexity: O(bytes).

    Example:
        >>> arm = np.random.default_rng(0).uniform(100, 400, (4, 17, 2))
        >>> clip, = open_poses(arm, PoseReading(skeleton="coco17", fps=25, size=(640, 480)))
        >>> clip.name, clip.unit, clip.seconds
        ('array', 'px', 0.16)
    """
    reading = reading or PoseReading()
    clips = [remarked(clip) for clip in _opened(source, reading)]
    if not clips:
        raise InputError("nothing to read", where="source", found=str(source)[:80], expected=_SOURCES)
    return clips if mixed else _one_rate(clips)


def _one_rate(clips: list[Clip]) -> list[Clip]:
    """The clips, if no two of them have different frame rates."""
    rates: dict[float, str] = {}
    for clip in clips:
        if clip.fps is not None:
            rates.setdefault(float(f"{clip.fps:.4g}"), clip.name)
    if len(rates) > 1:
        (first, one), (second, other) = list(rates.items())[:2]
        found = f"{first:g} Hz ({one}) and {second:g} Hz ({other})"
        cure = "put them into folders of their own, or bring them to one rate first"
        raise InputError("different frame rates", where="source", found=found, expected="one for all", cure=cure)
    without = sum(clip.fps is None for clip in clips)
    if rates and without:
        note = f"{without} of {len(clips)} clips do not tell their frame rate"
        return [clip.but(note) if clip.fps is None else clip for clip in clips]
    return clips


def _opened(source: Any, reading: PoseReading, name: str = "array") -> list[Clip]:
    if isinstance(source, Clip):
        return [source]
    if isinstance(source, str | os.PathLike):
        if not os.fspath(source):
            raise InputError("nothing that is read", where=name, found="an empty path", expected=_SOURCES)
        path = pathlib.Path(source)
        return _folder(path, reading) if path.is_dir() else _file(path, reading, path.name)
    if isinstance(source, Mapping):
        return [clip for key, value in source.items() for clip in _opened(value, reading, str(key))]
    if isinstance(source, list | tuple) and any(
        isinstance(one, Clip | str | os.PathLike | np.ndarray) for one in source
    ):
        same = len(source) == 1
        parts = enumerate(source)
        return [clip for place, one in parts for clip in _opened(one, reading, name if same else f"{name} {place}")]
    return _array(source, reading, name)


def _array(source: Any, reading: PoseReading, name: str) -> list[Clip]:
    from pipelines.data.formats.pose_npz import array_raws

    with explained(name, _SOURCES):
        array = numbers_of(source, name) if isinstance(source, Sequence) else np.asarray(source)
        if not array.ndim:
            raise InputError("nothing that is read", where=name, found=str(source)[:60], expected=_SOURCES)
        return finish([array_raws(array, name, name, {})], reading)


def _file(path: pathlib.Path, reading: PoseReading, shown: str) -> list[Clip]:
    """The clips of one file by its ending."""
    ending = path.suffix.lower()
    if ending == ".json":
        from pipelines.data.formats.pose_json import read_json

        return read_json(path, reading)
    if ending == ".npz":
        from pipelines.data.formats.pose_npz import read_npz

        return read_npz(path, reading)
    if ending == ".npy":
        from pipelines.data.formats.pose_npz import read_npy

        return read_npy(path, reading)
    if ending in (".csv", ".tsv"):
        from pipelines.data.formats.pose_csv import read_csv

        return read_csv(path, reading)
    if ending in _MOCAP:
        return _mocap(path, reading)
    if not path.exists():
        raise InputError("no such file or folder", where=path, cure="check the path")
    raise InputError(
        "no file of joints by its ending", where=shown, found=ending or "none", expected=", ".join(ENDINGS)
    )


def _mocap(path: pathlib.Path, reading: PoseReading) -> list[Clip]:
    from pipelines.data.datasets.pose_mocap import open_mocap

    if reading.unit not in ("auto", "m", "cm", "mm"):
        raise InputError("motion capture is 3-D", where=path.name, found=reading.unit, expected="m, cm, mm or auto")
    if reading.up == "-y":
        raise InputError("no such axis for motion capture", where=path.name, found="up = -y", expected="y or z")
    clips = open_mocap(
        path,
        mapping=reading.mapping,
        units=None if reading.unit == "auto" else reading.unit,
        up=None if reading.up == "auto" else reading.up,
        fps=reading.fps if path.suffix.lower() == ".amc" else None,
        accept_truncated=reading.accept_truncated,
    )
    if reading.person is not None:
        listed = ", ".join(str(clip.person) for clip in clips[:12])
        clips = [clip for clip in clips if clip.person == reading.person]
        if not clips:
            where, found = path.name, f"persons {listed}"
            raise InputError(f"no person {reading.person}", where=where, found=found, expected="one of them")
    return [_rated(clip, reading.fps) for clip in clips]


def _rated(clip: Clip, fps: float | None) -> Clip:
    if fps is None or clip.fps is None or abs(clip.fps - fps) <= 1e-3 * fps:
        return clip if fps is None else clip.but(fps=fps)
    return clip.but(f"{fps:g} Hz as was said; the file says {clip.fps:g} Hz", fps=fps)


def _folder(folder: pathlib.Path, reading: PoseReading) -> list[Clip]:
    """All known files of a folder and the folders in it, in natural order."""
    clips: list[Clip] = []
    others: dict[str, int] = {}
    for base, files in _walk(folder):
        shown = base.relative_to(folder)
        known = [path for path in files if _known(path)]
        for path in files:
            if path not in known and path.suffix.lower() not in _SILENT:
                others[path.suffix.lower() or path.name] = others.get(path.suffix.lower() or path.name, 0) + 1
        frames = [path for path in known if path.suffix.lower() == ".json"]
        made = _frames(base, frames, reading)
        if made is not None:
            known = [path for path in known if path not in set(frames)]
        for clip in made or []:
            clips.append(
                clip if str(shown) == "." else clip.but(name=f"{shown}/{clip.name}".removesuffix(f"/{base.name}"))
            )
        for path in known:
            own = _file(path, reading, path.name)
            clips += own if str(shown) == "." else [clip.but(name=f"{shown}/{clip.name}") for clip in own]
    if not clips:
        found = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items())[:8]) or "nothing"
        raise InputError("no file of joints in the folder", where=folder, found=found, expected=", ".join(ENDINGS))
    if others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items())[:8])
        clips[0] = clips[0].but(f"files of other kinds in {folder.name} not read: {kinds}")
    return clips


def _walk(folder: pathlib.Path) -> list[tuple[pathlib.Path, list[pathlib.Path]]]:
    """Each folder with its files, in natural order; hidden ones are not looked at, links to folders not followed."""
    out: list[tuple[pathlib.Path, list[pathlib.Path]]] = []
    total = 0
    for base, below, files in os.walk(folder):
        below[:] = sorted((name for name in below if not name.startswith(".")), key=natural)
        shown = sorted((name for name in files if not name.startswith(".")), key=natural)
        total += len(shown)
        if total > _MOST_FILES:
            raise InputError("too many files", where=folder, found=f"more than {_MOST_FILES:,}", cure="name one folder")
        out.append((pathlib.Path(base), [pathlib.Path(base, name) for name in shown]))
    return out


def _known(path: pathlib.Path) -> bool:
    """Whether a file of a folder is one of joints: text files only where they look like motions."""
    ending = path.suffix.lower()
    if ending != ".txt":
        return ending in ENDINGS
    try:
        with path.open("rb") as file:
            head = file.read(400)
    except OSError:
        return False
    return head.lstrip().startswith(b"{") and (b'"Frames"' in head or b'"Loop"' in head)


def _frames(base: pathlib.Path, files: Sequence[pathlib.Path], reading: PoseReading) -> list[Clip] | None:
    """The clips of a folder whose JSON files are frames of OpenPose; None where the first is none."""
    if not files:
        return None
    from pipelines.data.formats.pose_json import load_json
    from pipelines.data.formats.pose_openpose import is_openpose, openpose_clips

    first = load_json(files[0])
    if not is_openpose(first):
        return None
    contents = [(files[0].name, first), *((path.name, load_json(path)) for path in files[1:])]
    return openpose_clips(contents, base.name, reading)
