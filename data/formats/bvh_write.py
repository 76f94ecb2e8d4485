"""Writing clips as Biovision hierarchies: bones of their mean lengths, turned so that joints come where they were."""

from __future__ import annotations

import os
import pathlib

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.pose_types import Clip, Skeleton
from pipelines.data.errors import InputError
from pipelines.data.formats.bvh import HELPER
from pipelines.data.formats.cube_staging import staged
from pipelines.data.formats.mocap_space import LENGTHS

__all__ = ["bvh_text", "write_bvh"]

_Array = NDArray[np.float64]
_UP, _DOWN, _LEFT, _RIGHT = (0.0, 1.0, 0.0), (0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (-1.0, 0.0, 0.0)
#: Bones of H36M-17 in a T pose that faces +z, y up.
_T_POSE = (_UP, *(_RIGHT, _DOWN, _DOWN), *(_LEFT, _DOWN, _DOWN), *(_UP,) * 4, *(_LEFT,) * 3, *(_RIGHT,) * 3)
_MOST_JOINTS = 300
_EXACT = 1e-5  # m: bones that a shared rotation leaves farther off get a rotation of their own


def write_bvh(
    path: str | os.PathLike[str], clip: Clip, *, units: str = "cm", stretch: bool = False, fps: float | None = None
) -> tuple[str, ...]:
    """Write a clip as BVH, completely or not at all.

    Args:
        path: a name that ends in .bvh; a file of that name is replaced.
        clip: (T, J, 3) in m, whose joints form one tree.
        units: m, cm, mm, inch or cmu.
        stretch: give every joint position channels too, so that bones may change their lengths.
        fps: of a clip that does not know its own, Hz.

    Returns:
        what was done to the points, counted; with `stretch` off also how far bones of constant length leave joints
        from where they were.

    Raises:
        InputError: a 2-D clip, no frame rate, several trees, a joint that is never there, no room or no right to write.

    Complexity: O(T J) time and memory.

    Example:
        >>> import tempfile
        >>> from pipelines.data.formats.bvh import read_bvh
        >>> bone = Skeleton("bone", ("hip", "knee"), (-1, 0), 0)
        >>> clip = Clip.of("a", [[[0, 0, 1], [0.4, 0, 1]], [[0, 0, 1], [0, 0, 0.6]]], bone, fps=25)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_bvh(f"{folder}/a.bvh", clip)
        ...     again, = read_bvh(f"{folder}/a.bvh", units="cm")
        >>> bool(np.abs(again.points - clip.points).max() < 1e-6)
        True
    """
    target = pathlib.Path(path)
    if target.suffix.lower() != ".bvh":
        raise InputError("no name of a BVH file", where=target, expected="a name that ends in .bvh")
    text, notes = bvh_text(clip, units=units, stretch=stretch, fps=fps)
    try:
        with staged(target) as (name,):
            name.write_text(text, encoding="utf-8")
    except OSError as error:
        found = error.strerror or str(error)
        cure = "choose a folder with room that you may write to; earlier files are unchanged"
        raise InputError("cannot be written", where=target, found=found, cure=cure) from error
    return notes


def bvh_text(
    clip: Clip, *, units: str = "cm", stretch: bool = False, fps: float | None = None
) -> tuple[str, tuple[str, ...]]:
    """The text of a BVH file and what was done to the points; as `write_bvh`.

    Joints are written depth first, y up, rotations in the order Z, X, Y. Where several bones of one joint do not turn
    together, each gets a joint of zero length between, named after it with `_turn`, which `read_bvh` leaves out.

    Example:
        >>> bone = Skeleton("bone", ("hip", "knee"), (-1, 0), 0)
        >>> text, notes = bvh_text(Clip.of("a", [[[0, 0, 1], [0, 0, 0.6]]], bone, fps=25))
        >>> text.splitlines()[-1][:45], notes
        ('0.000000 100.000000 0.000000 0.000000 0.00000', ('z up turned to y up: (x, y, z) to (x, z, -y)',))
    """
    rate = clip.fps or fps
    skeleton = clip.skeleton
    if clip.dims != 3 or clip.unit != "m":
        found, expected = f"{clip.dims} numbers a joint in {clip.unit}", "3, in m"
        raise InputError("BVH holds 3-D motion", where=clip.name, found=found, expected=expected, cure="lift it first")
    if rate is None or not clip.frames:
        raise InputError("no frame rate or no frames", where=clip.name, expected="1 frame or more and fps in Hz")
    if skeleton.parents.count(-1) != 1:
        found = f"{skeleton.parents.count(-1)} joints without a parent in {skeleton.name}"
        raise InputError("the joints are not one tree", where=clip.name, found=found, expected="1")
    if units not in LENGTHS:
        raise InputError("no such unit", where="units", found=repr(units), expected=", ".join(LENGTHS))
    if len(skeleton) > _MOST_JOINTS:  # each may hang on the one before it, and the tree is walked down
        raise InputError("too many joints", where=clip.name, found=len(skeleton), expected=f"at most {_MOST_JOINTS}")
    points, notes = _filled(clip)
    points, turned = _y_up(points, clip)
    body = _Body(skeleton, points, 1 / LENGTHS[units], stretch)
    notes = (*notes, turned, *body.notes)
    head = ["HIERARCHY", *body.lines, "MOTION", f"Frames: {len(points)}", f"Frame Time: {1 / rate:.9f}"]
    columns = np.concatenate(body.columns, 1)
    rows = [" ".join(f"{number:.6f}" for number in row) for row in (columns + 0.0).tolist()]
    return "\n".join((*head, *rows)).replace("-0.000000", "0.000000") + "\n", notes


def _filled(clip: Clip) -> tuple[_Array, tuple[str, ...]]:
    """(T, J, 3) without gaps: BVH has no missing joints."""
    points, frames = clip.points.astype(np.float64), np.arange(clip.frames)
    lost = int((~clip.valid).sum())
    if not lost:
        return points, ()
    for joint, there in enumerate(clip.valid.T):
        if not there.any():
            found = clip.skeleton.joints[joint]
            cure = "convert to a skeleton without it"
            raise InputError("a joint that is missing in every frame", where=clip.name, found=found, cure=cure)
        for axis in range(3):
            points[:, joint, axis] = np.interp(frames, frames[there], points[there, joint, axis])
    return points, (f"{lost} missing joints were interpolated over time: BVH cannot leave them out",)


def _y_up(points: _Array, clip: Clip) -> tuple[_Array, str]:
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    if clip.frame == "world":
        return np.stack((x, z, -y), -1), "z up turned to y up: (x, y, z) to (x, z, -y)"
    return np.stack((x, -y, -z), -1), "the camera's frame turned to y up: (x, y, z) to (x, -y, -z)"


class _Body:
    """The hierarchy and the channels of a clip, joint by joint, depth first."""

    def __init__(self, skeleton: Skeleton, points: _Array, per_metre: float, stretch: bool) -> None:
        self.skeleton, self.per_metre, self.stretch = skeleton, per_metre, stretch
        self.points = points
        self.lines: list[str] = []
        self.columns: list[_Array] = []
        self.order: list[int] = []
        self.children = [[c for c, p in enumerate(skeleton.parents) if p == j] for j in range(len(skeleton))]
        parents = np.maximum(skeleton.parents, 0)
        bones = points - points[:, parents]
        self.lengths = np.linalg.norm(bones, axis=-1)  # (T, J)
        self.mean = self.lengths.mean(0)
        rest = np.asarray(_T_POSE) if skeleton.name == "h36m17" else _unit(bones[0])
        self.rest = np.where(self.mean[:, None] > 0, rest, 0.0)
        # A bone without length in some frame points where its rest pose does.
        self.aims = np.where(self.lengths[..., None] > 0, _unit(bones), self.rest)
        self.placed = points.copy()
        self.notes: tuple[str, ...] = ()
        root = skeleton.parents.index(-1)
        still = np.broadcast_to(np.eye(3), (len(points), 3, 3))
        self._joint(root, "ROOT", still, 0)
        self._say()

    def _say(self) -> None:
        if self.order != sorted(self.order):
            self.notes += ("joints stand depth first in the file, not in the order of the clip",)
        off = np.linalg.norm(self.placed - self.points, axis=-1) * 1000
        if not self.stretch and off.max() > 0.01:
            self.notes += (
                f"bones of constant length (the mean) leave joints {off.mean():.2f} mm from where they were, "
                f"at most {off.max():.2f} mm",
            )

    def _joint(self, joint: int, kind: str, frame: _Array, depth: int) -> None:
        """Write a joint that hangs on a bone with the orientation `frame`, and everything below it."""
        parent, children = self.skeleton.parents[joint], self.children[joint]
        self.order.append(joint)
        if parent >= 0:
            bone = self.lengths[:, joint] if self.stretch else self.mean[joint]
            self.placed[:, joint] = self.placed[:, parent] + self.aims[:, joint] * np.reshape(bone, (-1, 1))
        turn = self._turn(children, frame)
        moves = parent < 0 or self.stretch
        offset = np.zeros(3) if parent < 0 else self.rest[joint] * self.mean[joint]
        self._open(f"{kind} {self.skeleton.joints[joint]}", offset, moves, depth)
        if moves:
            place = self.points[:, joint] if parent < 0 else self.rest[joint] * self.lengths[:, joint, None]
            self.columns.append(place * self.per_metre)
        self.columns.append(_angles(frame, turn))
        for child in children:
            own = _shortest(turn, self.rest[child], self.aims[:, child])
            missed = np.linalg.norm((turn - own) @ self.rest[child], axis=-1).max() * self.mean[child]
            if len(children) == 1 or missed < _EXACT:
                self._joint(child, "JOINT", turn, depth + 1)
                continue
            self._open(f"JOINT {self.skeleton.joints[child]}{HELPER}", np.zeros(3), False, depth + 1)
            self.columns.append(_angles(turn, own))
            self._joint(child, "JOINT", own, depth + 2)
            self.lines.append("\t" * (depth + 1) + "}")
        if not children:
            tabs = "\t" * (depth + 1)
            self.lines += [f"{tabs}End Site", f"{tabs}{{", f"{tabs}\tOFFSET 0 0 0", f"{tabs}}}"]
        self.lines.append("\t" * depth + "}")

    def _open(self, title: str, offset: _Array, moves: bool, depth: int) -> None:
        tabs = "\t" * depth
        numbers = " ".join(f"{number:.6f}" for number in offset * self.per_metre + 0.0)
        channels = "Xposition Yposition Zposition " if moves else ""
        count = 6 if moves else 3
        self.lines += [f"{tabs}{title}", f"{tabs}{{", f"{tabs}\tOFFSET {numbers}"]
        self.lines.append(f"{tabs}\tCHANNELS {count} {channels}Zrotation Xrotation Yrotation")

    def _turn(self, children: list[int], frame: _Array) -> _Array:
        """(T, 3, 3) the orientation of a joint that brings the bones of its children nearest to where they point."""
        if not children:
            return frame
        if len(children) == 1:
            return _shortest(frame, self.rest[children[0]], self.aims[:, children[0]])
        there = [child for child in children if self.mean[child] > 0]
        product = np.einsum("tci,cj->tij", self.aims[:, there], self.rest[there])
        left, _, right = np.linalg.svd(product)
        left[..., -1] *= np.sign(np.linalg.det(left @ right))[:, None]  # a turn, no mirror image
        return left @ right


def _unit(vectors: _Array) -> _Array:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1.0)


def _shortest(frame: _Array, rest: _Array, aim: _Array) -> _Array:
    """(T, 3, 3) `frame` turned on by the smallest rotation that brings the bone from where `frame` has it to `aim`."""
    start = frame @ rest
    if not np.any(rest):
        return frame
    cosine = np.einsum("ti,ti->t", start, aim)
    axis = np.cross(start, aim)
    # Opposite directions: half a turn about any axis across.
    across = _unit(np.cross(start, np.eye(3)[np.abs(start).argmin(-1)]))
    half = 2 * across[:, :, None] * across[:, None, :] - np.eye(3)
    skew = np.zeros((len(aim), 3, 3))
    for one, two, three in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        skew[:, three, two], skew[:, two, three] = axis[:, one], -axis[:, one]
    opposite = cosine < -1 + 1e-12
    factor = 1 / np.where(opposite, 1.0, 1 + cosine)
    step = np.eye(3) + skew + skew @ skew * factor[:, None, None]
    return np.where(opposite[:, None, None], half, step) @ frame


def _angles(parent: _Array, own: _Array) -> _Array:
    """(T, 3) degrees about Z, X, Y, in this order, that turn a joint from its parent's orientation to its own."""
    local = np.swapaxes(parent, -1, -2) @ own
    sine = np.clip(local[:, 2, 1], -1, 1)
    locked = np.abs(sine) > 1 - 1e-12  # Z and Y turn about one axis: Y is left at 0
    z = np.where(locked, np.arctan2(local[:, 1, 0], local[:, 0, 0]), np.arctan2(-local[:, 0, 1], local[:, 1, 1]))
    y = np.where(locked, 0.0, np.arctan2(-local[:, 2, 0], local[:, 2, 2]))
    return np.rad2deg(np.unwrap(np.stack((z, np.arcsin(sine), y), -1), axis=0))
