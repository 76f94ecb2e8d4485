"""DeepMimic's motions (44 numbers a frame) as joints, and the clips of them that are embedded."""

from __future__ import annotations

import io
import json
import os
import pathlib

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.pose_skeletons import skeleton
from pipelines.data.datasets.pose_types import Clip
from pipelines.data.errors import InputError
from pipelines.data.formats.document_bytes import stored_bytes
from pipelines.data.formats.mocap_space import to_z_up

__all__ = ["ACTIONS", "WIDTH", "joints", "motion_clips", "read_deepmimic"]

_Array = NDArray[np.float64]
#: Numbers of a frame.
WIDTH = 44
_LIMIT_MB = 64.0

#: Each joint below the root: its parent, its place in the parent's frame (m; x forward, y up, z to the right), and how
#: many numbers turn it: a quaternion, an angle about z, or none. In the order of a frame's numbers; from the model that
#: belongs to the motions (humanoid.urdf, which is four times as large as the motions are).
_SIDE = (
    ("hip", "root", (0.0, 0.0, 0.339548), 4),
    ("knee", "hip", (0.0, -1.686184, 0.0), 1),
    ("ankle", "knee", (0.0, -1.639480, 0.0), 4),
    ("shoulder", "chest", (-0.096200, 0.974000, 0.732440), 4),
    ("elbow", "shoulder", (0.0, -1.099152, 0.0), 1),
    ("wrist", "elbow", (0.0, -1.035788, 0.0), 0),
)
_TRUNK = (("chest", "root", (0.0, 0.944604, 0.0), 4), ("neck", "chest", (0.0, 0.895576, 0.0), 4))
_LARGER = 4.0
#: The head of H36M-17 (neck or nose, top of the head) along the axis of the head, in parts of chest to neck.
_HEAD = (0.5, 1.0)

_ROUNDED = "positions rounded to 1/1024 m"

#: What the embedded clips show.
ACTIONS = (
    "backflip",
    "cartwheel",
    "crawl",
    "dance_a",
    "dance_b",
    "getup_facedown",
    "getup_faceup",
    "jump",
    "kick",
    "punch",
    "roll",
    "run",
    "spin",
    "spinkick",
    "walk",
)


def read_deepmimic(source: str | os.PathLike[str], target: str = "deepmimic15") -> list[Clip]:
    """Read a motion of DeepMimic.

    Args:
        source: the JSON file (.txt).
        target: `deepmimic15`, its own joints, or `h36m17`: hip, spine, thorax are root, chest, neck; the head is put
            half and once as far above the neck as the neck is above the chest, along the head's own axis.

    Returns:
        one clip (T, J, 3) in m, world frame, z up; its frame rate is that of most frames, others are counted.

    Raises:
        InputError: no such file, no JSON, frames of another length, numbers that are no rotation or not finite.

    Complexity: O(T J).

    Source: Peng et al. 2018, DeepMimic; the joints are those of the humanoid model that comes with PyBullet.

    Example:
        >>> import tempfile
        >>> still = [0.5, 0, 0.85, 0, *([1, 0, 0, 0] * 4), 0, *([1, 0, 0, 0] * 2), 0, *([1, 0, 0, 0]), 0]
        >>> still += [*([1, 0, 0, 0] * 2), 0]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "a.txt")
        ...     _ = file.write_text(json.dumps({"Loop": "none", "Frames": [still]}))
        ...     clip, = read_deepmimic(file)
        >>> clip.fps, round(float(clip.points[0, clip.skeleton.index("left_ankle"), 2]), 3)
        (2.0, 0.019)
    """
    path = pathlib.Path(source)
    frames = _frames(path)
    if target not in ("deepmimic15", "h36m17"):
        raise InputError("no such skeleton", where="target", found=repr(target), expected="deepmimic15 or h36m17")
    tree = skeleton(target)
    lengths = _lengths(frames, path.name)
    points = joints(frames, target)
    fps, notes = _rate(frames[:, 0], path.name)
    notes += lengths
    action = path.stem.removeprefix("humanoid3d_")
    notes += ("y up turned to z up: (x, y, z) to (x, -z, y)",)
    if target == "h36m17":
        notes += ("head made from the neck's rotation, hip, spine and thorax from root, chest and neck",)
    return [Clip.of(path.stem, points, tree, fps=fps, action=action, notes=notes)]


def _frames(path: pathlib.Path) -> _Array:
    """(T, 44) numbers that were checked."""
    expected = f'an object with "Frames", lists of {WIDTH} numbers'
    stored = stored_bytes(path, _LIMIT_MB)
    try:
        content = json.loads(stored)
    except (ValueError, RecursionError) as error:
        raise InputError(
            "not a motion of DeepMimic", where=path.name, found=str(error)[:80], expected=expected
        ) from error
    rows = content.get("Frames") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows:
        raise InputError("not a motion of DeepMimic", where=path.name, found="no frames", expected=expected)
    for place, row in enumerate(rows):
        numbers = isinstance(row, list) and all(type(number) in (int, float) for number in row)
        if not numbers or len(row) != WIDTH:
            found = f"frame {place + 1} of {len(row) if isinstance(row, list) else 'no'} numbers"
            raise InputError("not a motion of DeepMimic", where=path.name, found=found, expected=expected)
    frames = np.array(rows, np.float64)
    if not (np.abs(frames) < 1e4).all():
        frame = int(np.argwhere(~(np.abs(frames) < 1e4))[0, 0]) + 1
        raise InputError(
            "numbers that are no motion", where=path.name, found=f"frame {frame}", expected="finite, small"
        )
    return frames


def _lengths(frames: _Array, where: str) -> tuple[str, ...]:
    """How many quaternions have to be brought to length 1; interpolated ones are shorter."""
    at, lengths = 4, []
    for size in (4, *(size for *_, size in _order())):
        if size == 4:
            lengths.append(np.linalg.norm(frames[:, at : at + 4], axis=1))
        at += size
    off = np.abs(np.stack(lengths) - 1)
    if off.max() > 0.5:
        frame, found = int(off.max(0).argmax()) + 1, f"a length that is {off.max():.3g} off 1"
        raise InputError("numbers that are no rotation", where=f"{where}, frame {frame}", found=found)
    wrong = int((off > 1e-3).sum())
    if not wrong:
        return ()
    return (f"{wrong} of {off.size} quaternions, up to {off.max():.3g} off length 1, were brought to it",)


def _order() -> list[tuple[str, str, tuple[float, ...], int]]:
    """All joints below the root with their numbers, in the order of a frame."""
    rows: list[tuple[str, str, tuple[float, ...], int]] = list(_TRUNK)
    for side, sign in (("right", 1.0), ("left", -1.0)):
        for name, parent, (x, y, z), size in _SIDE:
            above = parent if parent in ("root", "chest") else f"{side}_{parent}"
            rows.append((f"{side}_{name}", above, (x, y, sign * z), size))
    return rows


def joints(frames: _Array, target: str = "deepmimic15") -> _Array:
    """Positions by forward kinematics.

    Args:
        frames: (T, 44): seconds, the root's place in m (y up), quaternions w, x, y, z and angles in rad.
        target: `deepmimic15` or `h36m17`.

    Returns:
        (T, J, 3) m, z up.

    Complexity: O(T J).

    Example:
        >>> frames = np.zeros((1, WIDTH))
        >>> frames[:, [4, 8, 12, 16, 21, 25, 30, 35, 39]] = 1  # nothing turned
        >>> joints(frames)[0, 2].round(3).tolist()
        [0.0, 0.0, 0.46]
    """
    turn = {"root": _rotation(frames[:, 4:8])}
    place = {"root": frames[:, 1:4]}
    at = 8
    for name, parent, offset, size in _order():
        place[name] = place[parent] + turn[parent] @ (np.array(offset) / _LARGER)
        own = frames[:, at : at + size]
        at += size
        if size == 1:
            half = own / 2
            own = np.concatenate([np.cos(half), 0 * half, 0 * half, np.sin(half)], 1)
        turn[name] = turn[parent] @ _rotation(own) if size else turn[parent]
    if target == "h36m17":
        reach = turn["neck"] @ (np.array(_TRUNK[1][2]) / _LARGER)
        base = place["neck"]
        place |= {"hip": place["root"], "spine": place["chest"], "thorax": base}
        place |= {"neck": base + _HEAD[0] * reach, "head": base + _HEAD[1] * reach}
    return to_z_up(np.stack([place[name] for name in skeleton(target).joints], 1))


def _rotation(quaternion: _Array) -> _Array:
    """(T, 3, 3) of quaternions w, x, y, z (T, 4), which are brought to length 1."""
    w, x, y, z = (quaternion / np.linalg.norm(quaternion, axis=1, keepdims=True)).T
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, -1) for row in rows], -2)


def _rate(seconds: _Array, where: str) -> tuple[float, tuple[str, ...]]:
    """Hz of most frames; the last frame of a motion has no duration."""
    usual = float(np.median(seconds[:-1] if len(seconds) > 1 else seconds))
    if not 1e-4 < usual < 10:
        raise InputError("no durations", where=where, found=f"{usual:g} s a frame", expected="seconds in column 1")
    others = int((np.abs(seconds[:-1] - usual) > 0.01 * usual).sum())
    rate = round(1 / usual, 2)
    kept = f"frames whose duration is not {usual:.6g} s, kept as they are: {others}"
    notes = (kept,) if others else ()
    return (float(round(rate)) if abs(rate - round(rate)) < 0.01 else rate), notes


def motion_clips(content: bytes | None = None) -> list[Clip]:
    """The 15 embedded clips on the H36M skeleton, 1,620 frames in 33.6 s.

    Args:
        content: of another file of the same layout; None reads the embedded one.

    Returns:
        clips (T, 17, 3) in m, world frame, z up, with their actions.

    Raises:
        InputError: a file of another layout.

    Complexity: O(T).

    Source: DeepMimic's reference motions, as they come with PyBullet; see samples/pose/SOURCE.md.

    Example:
        >>> clips = motion_clips()
        >>> len(clips), sum(clip.frames for clip in clips), clips[-1].action, clips[-1].points.shape[1:]
        (15, 1620, 'walk', (17, 3))
    """
    if content is None:
        from importlib import resources

        content = (resources.files("pipelines.data") / "samples" / "pose" / "motions.npz").read_bytes()
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        if not {"points", "lengths", "fps", "actions", "skeleton"} <= set(file.files):
            raise InputError("not the embedded motions", where="motions.npz", found=", ".join(file.files[:8]))
        points, lengths, fps = file["points"], file["lengths"], file["fps"]
        actions, tree = file["actions"], skeleton(str(file["skeleton"]))
    ends = np.cumsum(lengths)
    return [
        Clip.of(str(action), points[end - length : end], tree, fps=float(rate), action=str(action), notes=(_ROUNDED,))
        for action, end, length, rate in zip(actions, ends, lengths, fps, strict=True)
    ]
