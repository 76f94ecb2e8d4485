"""The 87 walks and other motions of the CMU database as one protocol: clips, duplicates, frame rate, parts."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator

import numpy as np

from pipelines.data.datasets.pose_conversion import convert
from pipelines.data.datasets.pose_types import Clip
from pipelines.data.errors import InputError
from pipelines.data.formats.bvh import clips_of
from pipelines.data.formats.bvh_text import BvhFile, parse_bvh
from pipelines.data.formats.document_bytes import stored_bytes

__all__ = ["MOTIONS", "TEST_MOTIONS", "TEST_WALKS", "CmuStudy", "read_cmu"]

#: Subjects of the test of walks, and the subject of the test of new motions.
TEST_WALKS = ("07", "08", "16")
TEST_MOTIONS = ("02",)
#: What subject 02 does in each trial, after the index of the database; everybody else walks.
MOTIONS = {
    "02_01": "walk",
    "02_02": "walk",
    "02_03": "run",
    "02_04": "jump and balance",
    "02_05": "punch",
    "02_06": "bend and lift",
    "02_07": "swordplay",
    "02_08": "swordplay",
    "02_09": "swordplay",
    "02_10": "wash",
}
_NAME = re.compile(r"(\d+)_(\d+)")
_RATE = 120.0
_MOST_FILES, _LIMIT_MB = 5000, 64.0


@dataclasses.dataclass(frozen=True, eq=False)
class CmuStudy:
    """Clips of the three parts, none in two of them, and what was done.

    Args:
        train: everybody else.
        walks: test A, subjects 07, 08 and 16.
        motions: test B, subject 02.
        notes: files, duplicates and frames, counted.
    """

    train: tuple[Clip, ...]
    walks: tuple[Clip, ...]
    motions: tuple[Clip, ...]
    notes: tuple[str, ...]

    @property
    def clips(self) -> tuple[Clip, ...]:
        """All parts, one after the other."""
        return (*self.train, *self.walks, *self.motions)


def read_cmu(
    source: str | os.PathLike[str], *, fps: float = 30.0, skeleton: str = "h36m17", subjects: tuple[str, ...] = ()
) -> CmuStudy:
    """Read BVH files of the CMU database: first frames dropped, duplicates left out, every n-th frame taken.

    The first frame of a file is a rest pose that is no part of the motion; in one file an empty frame follows it. Files
    with the same motion count once, also where one lacks its first frame already; which ones were left out is said.

    Args:
        source: a folder with .bvh files at any depth, or an archive (.tar, .tar.xz, .zip ...) of one.
        fps: Hz; 120 divided by a whole number.
        skeleton: that the clips are brought to; empty leaves each its own joints.
        subjects: only these are read (`"07"`); all where empty.

    Returns:
        the parts: clips (T, J, 3) in m, world frame, z up, with subject (`"07"`) and action (`"walk"`).

    Raises:
        InputError: no such file or folder, no BVH in it, names without subject and trial (`07_01`), a damaged file,
            another frame rate than 120 Hz, an `fps` that does not divide it.

    Complexity: O(frames of all files).

    Source: mocap.cs.cmu.edu; one unit of the files is 0.0254 / 0.45 m.

    Example:
        >>> text = "HIERARCHY ROOT Hips { OFFSET 0 0 0 CHANNELS 3 Xposition Yposition Zposition } MOTION Frames: 9 "
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "07_01.bvh")
        ...     _ = file.write_text(text + "Frame Time: .0083333 " + " ".join(map(str, range(27))))
        ...     clip, = read_cmu(folder, skeleton="").walks
        >>> clip.subject, clip.action, clip.fps, clip.frames
        ('07', 'walk', 30.0, 2)
    """
    step = _RATE / fps if fps > 0 else 0.0
    if step < 1 or abs(step - round(step)) > 1e-9:
        found, expected = f"{fps:g} Hz", "120 Hz divided by a whole number, such as 60, 40, 30 or 24"
        raise InputError("frames cannot be left out evenly", where="fps", found=found, expected=expected)
    base = pathlib.Path(source)
    if base.is_dir():
        found = list(_files(base, subjects))
    else:
        from pipelines.data.formats.archive import extract

        with tempfile.TemporaryDirectory(prefix="cmu-") as folder:
            extract(base, pathlib.Path(folder, "files"), max_bytes=4 << 30, max_members=2 * _MOST_FILES)
            found = list(_files(pathlib.Path(folder, "files"), subjects))
    if not found:
        wanted = f" of subjects {', '.join(subjects)}" if subjects else ""
        raise InputError(f"no .bvh file{wanted}", where=base.name, expected="files such as 07_01.bvh")
    kept, copies = _distinct(found)
    clips = [_clip(name, file, round(step), skeleton) for name, file in kept]
    frames = sum(len(file.values) for _, file in found)
    notes = [f"{len(found)} files, {frames:,} frames at {_RATE:g} Hz"]
    notes += [f"{len(copies)} copies left out: {', '.join(copies)}"] if copies else []
    notes.append(f"the first frame (a rest pose) of {len(kept)} files dropped")
    empty = [f"{name} ({_start(file) - 1})" for name, file in kept if _start(file) > 1]
    notes += [f"empty frames after it, every number 0, dropped: {', '.join(empty)}"] if empty else []
    if step > 1:
        left = sum(clip.frames for clip in clips)
        notes.append(f"every {round(step)}th frame taken, {_RATE:g} to {fps:g} Hz: {left:,} frames")
    parts = [tuple(clip for clip in clips if clip.subject in chosen) for chosen in (TEST_WALKS, TEST_MOTIONS)]
    train = tuple(clip for clip in clips if clip.subject not in (*TEST_WALKS, *TEST_MOTIONS))
    for title, part in (("train", train), ("walks", parts[0]), ("motions", parts[1])):
        people = len({clip.subject for clip in part})
        counts = f"{len(part)} clips of {people} subject{'' if people == 1 else 's'}"
        notes.append(f"{title}: {counts}, {sum(clip.frames for clip in part):,} frames")
    return CmuStudy(train, parts[0], parts[1], tuple(notes))


def _files(folder: pathlib.Path, subjects: tuple[str, ...]) -> Iterator[tuple[str, BvhFile]]:
    """Name and content of each file, by name, files nearer to the top last where names are the same."""
    paths = [path for path in folder.rglob("*") if path.suffix.lower() == ".bvh" and path.is_file()]
    if len(paths) > _MOST_FILES:
        raise InputError("too many files", where=folder.name, found=len(paths), expected=f"at most {_MOST_FILES}")
    for path in sorted(paths, key=lambda one: (one.stem, one.relative_to(folder).as_posix())):
        match = _NAME.match(path.stem)
        if match is None:
            expected = "subject and trial, such as 07_01.bvh"
            raise InputError("no subject in the name of a file", where=path.name, expected=expected)
        if not subjects or match[1] in subjects:
            name = path.relative_to(folder).as_posix()
            yield name, parse_bvh(stored_bytes(path, _LIMIT_MB), name)


def _distinct(files: list[tuple[str, BvhFile]]) -> tuple[list[tuple[str, BvhFile]], list[str]]:
    """Each motion once, and the names of the copies with what they repeat."""
    whole = {name: _key(file, 0) for name, file in files}
    shortened = {_key(file, 1): name for name, file in reversed(files)}
    kept: list[tuple[str, BvhFile]] = []
    copies: list[str] = []
    seen: dict[str, str] = {}
    for name, file in files:
        longer = shortened.get(whole[name])
        if longer is not None:
            copies.append(f"{name} (of {longer} without its first frame)")
        elif whole[name] in seen:
            copies.append(f"{name} (of {seen[whole[name]]})")
        else:
            seen[whole[name]] = name
            kept.append((name, file))
    return kept, copies


def _key(file: BvhFile, start: int) -> str:
    """The motion from a frame on, bones and all."""
    digest = hashlib.sha256(repr((file.hierarchy.names, file.hierarchy.parents)).encode())
    digest.update(np.ascontiguousarray(file.hierarchy.offsets).tobytes())
    digest.update(np.ascontiguousarray(file.values[start:]).tobytes())
    return digest.hexdigest()


def _start(file: BvhFile) -> int:
    """The first frame of the motion: after the rest pose and after frames in which every number is 0."""
    start = 1
    while start < len(file.values) - 1 and not file.values[start].any():
        start += 1
    return start


def _clip(name: str, file: BvhFile, step: int, skeleton: str) -> Clip:
    """One file without its first frame, at the lower frame rate, on the skeleton."""
    if abs(file.frame_time * _RATE - 1) > 1e-3 or len(file.values) < 2:
        found, expected = f"{1 / file.frame_time:.5g} Hz, {len(file.values)} frames", "120 Hz, 2 frames or more"
        raise InputError("not a motion of the CMU database", where=name, found=found, expected=expected)
    start = _start(file)
    taken = dataclasses.replace(file, values=file.values[start::step], frame_time=step / _RATE)
    stem = pathlib.PurePosixPath(name).stem
    clip = clips_of(taken, stem, units="cmu")[0]
    match = _NAME.match(stem)
    subject = match[1] if match else ""
    every = f", then every {step}th taken" if step > 1 else ""
    action = MOTIONS.get(stem, "walk")
    empty = f" and {start - 1} empty frame after it" if start > 1 else ""
    clip = clip.but(f"the first frame, a rest pose{empty} dropped{every}", subject=subject, action=action)
    return convert(clip, skeleton) if skeleton else clip
