"""OpenPose: a JSON file a frame, with the persons of that frame; BODY_25 or COCO-18."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from pipelines.data.datasets.brain_walk import natural
from pipelines.data.datasets.pose_types import Clip
from pipelines.data.errors import InputError
from pipelines.data.formats.pose import finish
from pipelines.data.formats.pose_people import Detections, Seen, people
from pipelines.data.formats.pose_source import PoseReading, explained, numbers_of, whole

__all__ = ["frame_number", "is_openpose", "openpose_clips", "read_openpose"]

LAYOUT = 'an object with "people", each with "pose_keypoints_2d": x, y, confidence of 25 or 18 joints'
_NAME = re.compile(r"^(.*?)[._-]?(\d+)(?:_keypoints)?\.json$", re.IGNORECASE)
_COUNTS = (25, 18)
_MOST_FILES = 1_000_000


def is_openpose(content: Any) -> bool:
    """Whether the content of a JSON file is a frame of OpenPose."""
    return isinstance(content, dict) and isinstance(content.get("people"), list)


def frame_number(name: str) -> tuple[str, int] | None:
    """What stands before the number of the frame in a file name, and the number; None without one.

    Example:
        >>> frame_number("walk_000000000012_keypoints.json"), frame_number("notes.json")
        (('walk', 12), None)
    """
    found = _NAME.match(name)
    return None if found is None or len(found[2]) > 18 else (found[1], int(found[2]))


def read_openpose(folder: str | os.PathLike[str], reading: PoseReading | None = None) -> list[Clip]:
    """Read the frames of one or several videos out of a folder of OpenPose's files.

    Args:
        folder: with files NAME_NUMBER_keypoints.json or NAME_NUMBER.json; each NAME is a video.
        reading: what the files do not say.

    Returns:
        a clip a video and person; numbers that are left out are missing frames.

    Raises:
        InputError: no such files; a file of another layout or without a number; two files of one number; other joints.

    Complexity: O(bytes).

    Example:
        >>> import json, tempfile
        >>> person = {"person_id": [-1], "pose_keypoints_2d": [100.0, 200.0, 0.9] * 25}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for number in (0, 1, 3):
        ...         file = pathlib.Path(folder, f"walk_{number:012d}_keypoints.json")
        ...         _ = file.write_text(json.dumps({"version": 1.3, "people": [person]}))
        ...     clip, = read_openpose(folder)
        >>> clip.name, clip.frames, clip.valid.all(1).tolist(), clip.skeleton.name
        ('walk', 4, [True, True, False, True], 'body25')
    """
    from pipelines.data.formats.pose_json import load_json

    folder = pathlib.Path(folder)
    files = [path for path in folder.iterdir() if path.suffix.lower() == ".json" and not path.name.startswith(".")]
    if len(files) > _MOST_FILES:
        raise InputError("too many files", where=folder, found=f"{len(files):,}", expected=f"{_MOST_FILES:,}")
    frames = [(path.name, load_json(path)) for path in sorted(files, key=lambda path: natural(path.name))]
    return openpose_clips(frames, folder.name, reading or PoseReading())


def openpose_clips(frames: Sequence[tuple[str, Any]], folder: str, reading: PoseReading) -> list[Clip]:
    """Clips of the contents of OpenPose's files.

    Args:
        frames: name and content of each file.
        folder: the name of a video where the files' names hold none.
        reading: what the files do not say.

    Raises:
        InputError: as `read_openpose`.

    Complexity: O(joints).
    """
    videos: dict[str, dict[int, tuple[str, Any]]] = {}
    for name, content in frames:
        if not is_openpose(content):
            raise InputError("no frame of OpenPose", where=name, found=type(content).__name__, expected=LAYOUT)
        key = frame_number(name) if len(frames) > 1 else (pathlib.PurePath(name).stem, 0)
        if key is None:
            expected = "NAME_000000000012_keypoints.json"
            raise InputError("no number of a frame in its name", where=name, found=name[:80], expected=expected)
        own = videos.setdefault(key[0], {})
        if key[1] in own:
            found = f"{own[key[1]][0]} and {name}"
            raise InputError(f"two files of frame {key[1]}", where=folder, found=found, expected="one")
        own[key[1]] = (name, content)
    if not videos:
        raise InputError("no frames", where=folder, found="no .json file", expected=LAYOUT)
    clips: list[Clip] = []
    blank: list[str] = []
    for video, own in videos.items():
        seen: list[Seen] = []
        empty = 0
        for number, (name, content) in own.items():
            found = _persons(name, number, content, reading)
            empty += not found
            seen += found
        notes = (f"{empty:,} of {len(own):,} files without a person",) if empty else ()
        if not seen and len(videos) > 1:
            blank.append(video or folder)
            continue
        detections = Detections(video or folder, own, seen, notes=notes)
        clips += finish(people(detections, reading), reading)
    if not clips:
        raise InputError("no person", where=folder, found=f"{len(videos)} videos without any", expected="one or more")
    note = f"{len(blank)} of {len(videos)} videos without a person: {', '.join(blank[:6])}"
    return [clip.but(note) for clip in clips] if blank else clips


def _persons(name: str, number: int, content: Any, reading: PoseReading) -> list[Seen]:
    """The persons of one frame that have any joint."""
    out: list[Seen] = []
    with explained(name, LAYOUT):
        for person in content["people"]:
            values = person["pose_keypoints_2d"] if "pose_keypoints_2d" in person else person["pose_keypoints"]
            flat = numbers_of(values, f"{name}, pose_keypoints_2d")
            if not flat.size:
                continue
            if flat.ndim != 1 or len(flat) % 3:
                raise InputError("not x, y and confidence", where=name, found=f"{flat.shape} numbers", expected=LAYOUT)
            rows = flat.reshape(-1, 3)
            if len(rows) not in _COUNTS and reading.skeleton is None and reading.mapping is None:
                cure = "say whose joints they are with --read.skeleton, or give a mapping file"
                raise InputError("other joints", where=name, found=f"{len(rows)} joints", expected=LAYOUT, cure=cure)
            identity = whole(person.get("person_id", -1))
            track = identity if identity is not None and identity >= 0 else None
            if (rows[:, 2] > 0).any():
                out.append(Seen(number, rows[:, :2].copy(), rows[:, 2].copy(), track))
    return out
