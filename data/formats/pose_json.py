"""Joints in JSON: COCO, AlphaPose, OpenPose, MMPose, MediaPipe, this library's own and plain lists, told apart."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.pose_types import Clip
from pipelines.data.errors import InputError
from pipelines.data.formats.document_bytes import stored_bytes
from pipelines.data.formats.pose import finish
from pipelines.data.formats.pose_people import Detections, Seen, people
from pipelines.data.formats.pose_source import PoseReading, Raw, explained, numbers_of, rate_of, whole

__all__ = ["json_clips", "load_json", "read_json"]

_LIMIT_MB = 512.0
_LAYOUTS = (
    "COCO (images, annotations), a list of results (image_id, keypoints), OpenPose (people), MMPose (instance_info), "
    "MediaPipe (a list of frames of 33 landmarks), poses of this library (tracks), or lists (frames, joints, 2 or 3)"
)
_MMPOSE = "frames with frame_id and instances, each with keypoints (x, y of each joint) and keypoint_scores"
_MEDIAPIPE = "frames, each with landmarks (x, y, visibility) of one person or of several"
_LANDMARKS = ("pose_landmarks", "poseLandmarks", "landmarks", "landmark")
_NUMBERS = ("frame", "frame_id", "frame_index", "frame_number", "index")
_Array = NDArray[np.float64]


def load_json(path: str | os.PathLike[str]) -> Any:
    """The content of a JSON file of at most 512 MiB.

    Raises:
        InputError: no such file, too large, damaged or no JSON.

    Complexity: O(bytes).
    """
    path = pathlib.Path(path)
    stored = stored_bytes(path, _LIMIT_MB)
    if not stored.strip():
        raise InputError("the file is empty", where=path.name, expected=_LAYOUTS)
    try:
        return json.loads(stored)
    except (ValueError, RecursionError, MemoryError) as error:
        found, cure = str(error)[:100] or type(error).__name__, "check that it is whole, or write it again"
        raise InputError("not readable JSON", where=path.name, found=found, expected="JSON", cure=cure) from error


def read_json(path: str | os.PathLike[str], reading: PoseReading | None = None) -> list[Clip]:
    """Read joints out of a JSON file of any known layout.

    Args:
        path: the file.
        reading: what the file does not say.

    Returns:
        a clip a video and person.

    Raises:
        InputError: another layout; joints, units or persons that cannot be told; see `finish` and `people`.

    Complexity: O(bytes).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "a.json")
        ...     _ = file.write_text(json.dumps([[[100.0, 200.0 + joint] for joint in range(25)]] * 3))
        ...     read_json(file)[0].points.shape
        (3, 25, 2)
    """
    path = pathlib.Path(path)
    return json_clips(load_json(path), path.name, path.stem, reading or PoseReading())


def json_clips(content: Any, name: str, stem: str, reading: PoseReading) -> list[Clip]:
    """Clips of the content of a JSON file, by its layout.

    Args:
        content: lists, objects, numbers and texts.
        name: of the file, for messages.
        stem: the name of its clips.
        reading: what the file does not say.

    Raises:
        InputError: as `read_json`.

    Complexity: O(numbers).
    """
    with explained(name, _LAYOUTS):
        if isinstance(content, Mapping):
            clips = _object(content, name, stem, reading)
        elif isinstance(content, list):
            clips = _list(content, name, stem, reading)
        else:
            clips = None
    if clips is None:
        raise InputError("no joints of a known layout", where=name, found=_seems(content), expected=_LAYOUTS)
    return clips


def _seems(content: Any) -> str:
    if isinstance(content, Mapping):
        return "an object with " + (", ".join(str(key) for key in list(content)[:8])[:100] or "nothing")
    if isinstance(content, list):
        return f"a list of {len(content):,}" + (f", first {str(content[0])[:60]}" if content else "")
    return str(content)[:60]


def _object(content: Mapping[str, Any], name: str, stem: str, reading: PoseReading) -> list[Clip] | None:
    if "tracks" in content or "points" in content:
        from pipelines.data.formats.pose_npz import own_raws

        return finish(own_raws(content, name, stem), reading)
    if "annotations" in content and "images" in content:
        from pipelines.data.formats.pose_coco import annotation_clips

        return annotation_clips(content, stem, reading)
    if "people" in content:
        from pipelines.data.formats.pose_openpose import openpose_clips

        return openpose_clips([(name, content)], stem, reading)
    if "instance_info" in content:
        return _mmpose(content["instance_info"], content.get("meta_info") or {}, stem, reading)
    if "frames" in content or any(key in content for key in _LANDMARKS):
        frames = content.get("frames", [content])
        return _mediapipe(frames, content, stem, reading)
    return None


def _list(content: Sequence[Any], name: str, stem: str, reading: PoseReading) -> list[Clip] | None:
    first = next((one for one in content if one), None)
    if first is None:
        raise InputError("no frames", where=name, found=f"{len(content)} empty entries", expected="1 or more")
    if isinstance(first, Mapping):
        if "image_id" in first and "keypoints" in first:
            from pipelines.data.formats.pose_coco import result_clips

            return result_clips(content, stem, reading)
        if "instances" in first or "keypoints" in first:
            return _mmpose(content, {}, stem, reading)
        if "people" in first:
            from pipelines.data.formats.pose_openpose import openpose_clips

            frames = [(f"{stem}_{number:012d}.json", frame) for number, frame in enumerate(content)]
            return openpose_clips(frames, stem, reading)
        if any(key in first for key in _LANDMARKS):
            return _mediapipe(content, {}, stem, reading)
        return _mediapipe([content], {}, stem, reading) if "x" in first else None
    if isinstance(first, list) and _leaf(first) is not None:
        row = first[0]
        if isinstance(_leaf(first), Mapping) or (isinstance(row, list) and len(row) in (4, 5) and _leaf(row) is row[0]):
            return _mediapipe(content, {}, stem, reading)
        points = numbers_of(content, name)
        return finish([Raw(stem, points[None] if points.ndim == 2 else points)], reading)
    return None


def _leaf(value: Any) -> Any:
    """What stands first below lists of lists; an object, a number or None."""
    for _ in range(8):
        if not isinstance(value, list):
            return value
        value = value[0] if value else None
    return None


# MMPose


def _mmpose(entries: Sequence[Any], meta: Mapping[str, Any], name: str, reading: PoseReading) -> list[Clip]:
    """Frames with instances, or the instances of one image."""
    if entries and all("instances" not in entry for entry in entries):
        entries = [{"frame_id": 0, "instances": entries}]
    seen: list[Seen] = []
    frames: list[int] = []
    for place, entry in enumerate(entries):
        where = f"{name}, frame {entry.get('frame_id', place)}"
        number = whole(entry.get("frame_id", place))
        if number is None or (frames and number <= frames[-1]):
            found = f"frame_id {entry.get('frame_id')!r}"[:60]
            raise InputError("numbers of frames that do not rise", where=where, found=found, expected=_MMPOSE)
        frames.append(number)
        for instance in entry["instances"]:
            points = numbers_of(instance["keypoints"], f"{where}, keypoints")
            points = points[0] if points.ndim == 3 and len(points) == 1 else points
            if points.ndim != 2 or points.shape[1] not in (2, 3):
                raise InputError("other keypoints", where=where, found=f"{points.shape} numbers", expected=_MMPOSE)
            score = _mm_scores(instance, len(points), where)
            track = whole(instance.get("track_id", instance.get("instance_id")))
            seen.append(Seen(number, points, score, track))
    size = meta.get("image_size")
    sides = tuple(whole(side) for side in size) if isinstance(size, list) and len(size) == 2 else (None, None)
    return finish(
        people(
            Detections(
                name,
                frames,
                seen,
                _mm_names(meta, name),
                "coco17",
                size=(sides[0], sides[1]) if sides[0] and sides[1] else None,
            ),
            reading,
        ),
        reading,
    )


def _mm_scores(instance: Mapping[str, Any], count: int, where: str) -> _Array | None:
    if instance.get("keypoint_scores") is None:
        return None
    score = numbers_of(instance["keypoint_scores"], f"{where}, keypoint_scores")
    score = score[0] if score.ndim == 2 and len(score) == 1 else score
    if score.shape != (count,):
        raise InputError("not a score for each joint", where=where, found=score.shape, expected=(count,))
    return score


def _mm_names(meta: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    named = meta.get("keypoint_id2name")
    if named is None:
        return None
    table = {whole(key): value for key, value in named.items()}
    if set(table) != set(range(len(table))) or not all(isinstance(value, str) for value in table.values()):
        found = str(named)[:60]
        raise InputError("no names of joints", where=f"{name}, keypoint_id2name", found=found, expected="number: name")
    return tuple(table[number] for number in range(len(table)))


# MediaPipe


def _mediapipe(frames: Sequence[Any], head: Mapping[str, Any], name: str, reading: PoseReading) -> list[Clip]:
    """Frames of landmarks: fractions of the width and height of the image, with visibilities."""
    seen: list[Seen] = []
    numbers: list[int] = []
    times: list[float] = []
    world = 0
    for place, frame in enumerate(frames):
        entry = frame if isinstance(frame, Mapping) else {}
        given = next((entry[key] for key in _NUMBERS if key in entry), place)
        number = whole(given)
        if number is None or (numbers and number <= numbers[-1]):
            found = f"frame {given!r}"[:60]
            raise InputError("numbers of frames that do not rise", where=name, found=found, expected=_MEDIAPIPE)
        numbers.append(number)
        if isinstance(entry.get("timestamp_ms"), int | float):
            times.append(entry["timestamp_ms"] / 1000)
        world += any("world" in str(key).lower() for key in entry)
        for body in _bodies(frame, f"{name}, frame {number}"):
            seen.append(_landmarks(body, number, f"{name}, frame {number}"))
    fps, told = rate_of(times) if len(times) == len(frames) else (None, ())
    given = head.get("fps")
    fps = float(given) if isinstance(given, int | float) and 0 < given <= 1e5 else fps
    sides = whole(head.get("width")), whole(head.get("height"))
    notes = [*told, *([f"world landmarks of {world:,} frames not read: the image's are"] if world else [])]
    detections = Detections(
        name,
        numbers,
        seen,
        usual="mediapipe33",
        unit="fraction",
        size=(sides[0], sides[1]) if sides[0] and sides[1] else None,
        fps=fps,
        notes=tuple(notes),
    )
    return finish(people(detections, reading), reading)


def _bodies(entry: Any, where: str) -> list[Sequence[Any]]:
    """The landmarks of each person of a frame; none where nobody was found."""
    for _ in range(4):
        if not entry:
            return []
        if isinstance(entry, Mapping):
            key = next((key for key in _LANDMARKS if key in entry), None)
            if key is None:
                found = ", ".join(str(one) for one in list(entry)[:6])
                raise InputError("no landmarks", where=where, found=found, expected=_MEDIAPIPE)
            entry = entry[key]
            continue
        first = entry[0]
        if isinstance(first, Mapping) and any(key in first for key in _LANDMARKS):
            return [body for one in entry for body in _bodies(one, where)]
        several = isinstance(first, list) and bool(first) and isinstance(first[0], Mapping | list)
        return list(entry) if several else [entry]
    raise InputError("no landmarks", where=where, found="lists within lists", expected=_MEDIAPIPE)


def _landmarks(body: Sequence[Any], number: int, where: str) -> Seen:
    """x, y and visibility of each landmark, as objects or as rows of numbers."""
    if isinstance(body[0], Mapping):
        rows = numbers_of([[mark["x"], mark["y"]] for mark in body], where)
        sure = [mark.get("visibility") for mark in body]
        held = all(one is not None for one in sure)
        return Seen(number, rows, numbers_of(sure, f"{where}, visibility") if held else None)
    rows = numbers_of(body, where)
    if rows.ndim != 2 or rows.shape[1] not in (2, 3, 4, 5):
        raise InputError("no landmarks", where=where, found=f"{rows.shape} numbers", expected="x, y, z, visibility")
    return Seen(number, rows[:, :2].copy(), rows[:, 3].copy() if rows.shape[1] > 3 else None)
