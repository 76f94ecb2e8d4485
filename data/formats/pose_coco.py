"""COCO's annotations and results, and AlphaPose's results, as joints over time."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.pose_types import Clip
from pipelines.data.errors import InputError
from pipelines.data.formats.pose import finish
from pipelines.data.formats.pose_people import Detections, Seen, people
from pipelines.data.formats.pose_source import FileUnit, PoseReading, explained, numbers_of, whole

__all__ = ["annotation_clips", "body_of", "result_clips"]

ANNOTATIONS = '"images" (id, width, height, file_name), "annotations" (image_id, keypoints: x, y, v of each joint)'
RESULTS = "a list of objects with image_id, keypoints (x, y, score of each joint) and score"
_ORDER = ("frame_id", "frame_index", "frame_number", "frame")
_TRACKS = ("track_id", "instance_id", "idx", "person_id")
_Array = NDArray[np.float64]


def body_of(values: Any, where: str) -> tuple[_Array, _Array | None, int]:
    """Joints (J, 2), scores (J,) and how many joints are hidden, of x, y and visibility or score.

    Where every third number is 0, 1 or 2, and not all are 1, it is COCO's visibility: 0 = not labelled, 1 = labelled
    though hidden, 2 = visible. Anything else is a score.

    Raises:
        InputError: not numbers, or no triples.

    Example:
        >>> points, score, hidden = body_of([5, 6, 2, 7, 8, 1, 0, 0, 0], "a.json")
        >>> points.tolist(), score, hidden
        ([[5.0, 6.0], [7.0, 8.0], [nan, nan]], None, 1)
    """
    rows = numbers_of(values, where)
    if rows.ndim == 1 and rows.size and not len(rows) % 3:
        rows = rows.reshape(-1, 3)
    if rows.ndim != 2 or rows.shape[1] not in (2, 3) or not rows.size:
        raise InputError("not x, y, v of each joint", where=where, found=f"{rows.shape} numbers", expected="3 a joint")
    if rows.shape[1] == 2:
        return rows.copy(), None, 0
    third = rows[:, 2]
    labelled = bool(np.isin(third, (0, 1, 2)).all()) and (bool((third == 2).any()) or bool((third == 0).any()))
    if not labelled:
        return rows[:, :2].copy(), third.copy(), 0
    points = np.where(third[:, None] > 0, rows[:, :2], np.nan)
    return points, None, int((third == 1).sum()) if (third == 2).any() else 0


def annotation_clips(content: Mapping[str, Any], name: str, reading: PoseReading) -> list[Clip]:
    """Clips of COCO's annotations: images are frames, by their frame_id, the numbers of their files, or their order.

    Args:
        content: of the JSON file.
        name: what messages call it.
        reading: what the file does not say.

    Returns:
        a clip a video (video_id, or the folder of the images) and person.

    Raises:
        InputError: another layout; images of one video that differ in size; joints of no known skeleton.

    Complexity: O(annotations).

    Example:
        >>> image = {"id": 7, "width": 640, "height": 480, "file_name": "walk/0001.jpg"}
        >>> body = {"image_id": 7, "keypoints": [100, 200, 2] * 17, "track_id": 3}
        >>> clip, = annotation_clips({"images": [image], "annotations": [body]}, "a", PoseReading())
        >>> clip.name, clip.size, clip.person, clip.skeleton.name
        ('walk', (640, 480), 3, 'coco17')
    """
    with explained(name, ANNOTATIONS):
        videos = _videos(content["images"], name)
        bodies: dict[str, list[Seen]] = {video: [] for video in videos}
        home = {image: (video, number) for video, own in videos.items() for image, (number, _) in own.items()}
        names, category = _names(content, name)
        counts = {"hidden": 0, "without": 0, "other": 0}
        for place, entry in enumerate(content["annotations"]):
            where = f"{name}, annotation {entry.get('id', place)}"
            if category is not None and entry.get("category_id", category) != category:
                counts["other"] += 1
                continue
            if entry["image_id"] not in home:
                found = f"image_id {entry['image_id']}"
                raise InputError("an image that is not listed", where=where, found=found, expected=ANNOTATIONS)
            values = entry.get("keypoints") or []
            if not values or entry.get("iscrowd") == 1:
                counts["without"] += 1
                continue
            points, score, hidden = body_of(values, where)
            if not np.isfinite(points).any():
                counts["without"] += 1
                continue
            counts["hidden"] += hidden
            video, number = home[entry["image_id"]]
            bodies[video].append(Seen(number, points, score, _track(entry)))
        rates = {str(one.get("id")): _rate(one) for one in content.get("videos") or []}
        general = _rate(content.get("info") or {})
        clips: list[Clip] = []
        empty = [video for video in videos if not bodies[video]] if any(bodies.values()) else []
        for video, own in videos.items():
            if video in empty:
                continue
            sizes = {size for _, size in own.values() if size is not None}
            if len(sizes) > 1:
                found = " and ".join(f"{w} x {h}" for w, h in sorted(sizes)[:2]) + f" of {len(sizes)} sizes"
                cure = "read images that are no video one by one"
                raise InputError("frames of different sizes", where=name, found=found, expected="one", cure=cure)
            detections = Detections(
                video or name,
                [number for number, _ in own.values()],
                bodies[video],
                names,
                "coco17",
                size=sizes.pop() if sizes else None,
                fps=rates.get(video) or general,
                notes=_told(counts),
            )
            clips += finish(people(detections, reading), reading)
        note = f"{len(empty)} of {len(videos)} videos without a person"
        return [clip.but(note) for clip in clips] if empty else clips


def _told(counts: Mapping[str, int]) -> tuple[str, ...]:
    notes = [f"{counts['hidden']:,} joints labelled though hidden (v = 1) were kept"] if counts["hidden"] else []
    notes += [f"{counts['without']:,} annotations without joints, or of crowds, left out"] if counts["without"] else []
    notes += [f"{counts['other']:,} annotations of other categories left out"] if counts["other"] else []
    return tuple(notes)


def _rate(entry: Mapping[str, Any]) -> float | None:
    fps = entry.get("fps", entry.get("frame_rate"))
    held = isinstance(fps, int | float) and not isinstance(fps, bool) and 0 < fps <= 1e5
    return float(fps) if held and isinstance(fps, int | float) else None


def _track(entry: Mapping[str, Any]) -> int | None:
    return next((number for key in _TRACKS if (number := whole(entry.get(key))) is not None), None)


def _names(content: Mapping[str, Any], name: str) -> tuple[tuple[str, ...] | None, Any]:
    """Names of the joints and the category that has them."""
    kinds = [one for one in content.get("categories") or [] if one.get("keypoints")]
    if len(kinds) > 1:
        kinds = [one for one in kinds if one.get("name") == "person"]
        if len(kinds) != 1:
            raise InputError("several categories with joints", where=name, expected="one, or one called person")
    if not kinds:
        return None, None
    names = kinds[0]["keypoints"]
    if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
        raise InputError("no names of joints", where=name, found=str(names)[:60], expected="texts")
    return tuple(names), kinds[0].get("id")


_Images = dict[Any, tuple[int, tuple[int, int] | None]]


def _videos(images: Sequence[Mapping[str, Any]], name: str) -> dict[str, _Images]:
    """Images of each video: id -> (number of the frame, size)."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for image in images:
        folder = pathlib.PurePosixPath(str(image.get("file_name", "")).replace("\\", "/")).parent.name
        groups.setdefault(str(image.get("video_id", image.get("vid_id", folder))), []).append(image)
    if not groups:
        raise InputError("no images", where=name, found="none", expected=ANNOTATIONS)
    out: dict[str, _Images] = {}
    for video, own in groups.items():
        numbers = _numbered(own)
        out[video] = {}
        for image, number in zip(own, numbers, strict=True):
            if image["id"] in out[video]:
                raise InputError("two images of one id", where=name, found=image["id"], expected="an id for each")
            sides = whole(image.get("width")), whole(image.get("height"))
            size = (sides[0], sides[1]) if sides[0] and sides[1] and min(sides[0], sides[1]) > 0 else None
            out[video][image["id"]] = (number, size)
    return out


def _numbered(images: Sequence[Mapping[str, Any]]) -> list[int]:
    """Numbers of frames by the first of: a field, the number that ends the file's name, the order in the file."""
    for key in _ORDER:
        held = [whole(image.get(key)) for image in images]
        numbers = [one for one in held if one is not None]
        if len(set(numbers)) == len(images):
            return numbers
    ends = [_last_number(str(image.get("file_name", ""))) for image in images]
    numbers = [one for one in ends if one is not None]
    return numbers if len(set(numbers)) == len(images) else list(range(len(images)))


def _last_number(file_name: str) -> int | None:
    found = re.search(r"(\d{1,18})\D*$", pathlib.PurePosixPath(file_name).stem)
    return None if found is None else int(found[1])


def result_clips(content: Sequence[Mapping[str, Any]], name: str, reading: PoseReading) -> list[Clip]:
    """Clips of COCO's results or AlphaPose's: `image_id` is the number of a frame, or a file name that ends with it.

    Raises:
        InputError: another layout, images without a number, joints of no known skeleton.

    Complexity: O(results).

    Example:
        >>> body = {"image_id": "12.jpg", "category_id": 1, "keypoints": [100.0, 200.0, 0.9] * 17, "score": 2.9}
        >>> result_clips([body], "a", PoseReading())[0].confidence.max().round(2)
        np.float32(0.9)
    """
    unit: FileUnit | None = None
    seen: list[Seen] = []
    hidden = without = 0
    with explained(name, RESULTS):
        for place, entry in enumerate(content):
            where = f"{name}, result {place}"
            image = entry["image_id"]
            number = whole(image)
            number = _last_number(str(image)) if number is None else number
            if number is None:
                found = f"image_id {image!r}"[:80]
                raise InputError("no number of a frame", where=where, found=found, expected=RESULTS)
            points, score, more = body_of(entry["keypoints"], where)
            hidden += more
            if np.isfinite(points).any():
                seen.append(Seen(number, points, score, _track(entry)))
            else:
                without += 1
        notes = _told({"hidden": hidden, "without": without, "other": 0})
        detections = Detections(name, [one.frame for one in seen], seen, None, "coco17", unit, notes=notes)
        return finish(people(detections, reading), reading)
