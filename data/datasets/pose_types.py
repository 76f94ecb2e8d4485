"""What a pose clip is: joints over time, the skeleton that names them, and the camera that saw them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.data.errors import InputError

__all__ = ["UNITS", "FRAMES", "Camera", "Clip", "Frame", "Skeleton", "Unit"]

Unit = Literal["px", "normalised", "m"]
Frame = Literal["image", "camera", "world"]
UNITS: tuple[Unit, ...] = ("px", "normalised", "m")
FRAMES: tuple[Frame, ...] = ("image", "camera", "world")


@dataclass(frozen=True)
class Skeleton:
    """The names of the joints in their order, the tree of the bones, and which joints mirror which.

    Args:
        name: what messages and files call it.
        joints: J different names.
        parents: (J,) the joint at the other end of each joint's bone, or -1 where a joint hangs on nothing.
        root: the joint that root-relative positions are taken from; it has no parent.
        left: joints of the left side of the body.
        right: joints of the right side; the i-th is the mirror joint of the i-th of `left`.

    Raises:
        InputError: lengths that differ, a name twice, a joint number out of range, a cycle, a joint in two pairs.

    Complexity: O(J) memory.

    Example:
        >>> arm = Skeleton("arms", ("neck", "left hand", "right hand"), (-1, 0, 0), 0, (1,), (2,))
        >>> len(arm), arm.bones, arm.mirror
        (3, ((0, 1), (0, 2)), (0, 2, 1))
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    root: int
    left: tuple[int, ...] = ()
    right: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        where, count = f"skeleton {self.name}", len(self.joints)
        if not count or len(set(self.joints)) != count:
            twice = sorted({name for name in self.joints if self.joints.count(name) > 1})
            raise InputError("joints need different names", where=where, found=twice or "none", expected="1 or more")
        if len(self.parents) != count:
            raise InputError("not a parent for each joint", where=where, found=len(self.parents), expected=count)
        low = [-1 <= parent < count for parent in self.parents]
        if not all(low) or not 0 <= self.root < count or self.parents[self.root] != -1:
            found = {"root": self.root, "parents": self.parents}
            raise InputError("no such joint", where=where, found=found, expected=f"-1 (the root) to {count - 1}")
        sides = (*self.left, *self.right)
        if len(self.left) != len(self.right) or len(set(sides)) != len(sides):
            found = f"{self.left} and {self.right}"
            raise InputError("left and right joints are not pairs", where=where, found=found)
        if any(not 0 <= joint < count for joint in sides):
            raise InputError("no such joint", where=where, found=sides, expected=f"0 to {count - 1}")
        if any(len(list(self._upwards(joint))) > count for joint in range(count)):
            raise InputError("the bones form a circle", where=where, found=self.parents, expected="a tree")

    def __len__(self) -> int:
        return len(self.joints)

    def _upwards(self, joint: int) -> Iterator[int]:
        """The joint, its parent, and so on; at most one step more than there are joints."""
        for _ in range(len(self.joints) + 1):
            if joint < 0:
                return
            yield joint
            joint = self.parents[joint]

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(parent, joint) of each joint that has a parent, in the order of the joints."""
        return tuple((parent, joint) for joint, parent in enumerate(self.parents) if parent >= 0)

    @property
    def mirror(self) -> tuple[int, ...]:
        """(J,) the mirror joint of each joint; a joint of the middle is its own."""
        other = list(range(len(self.joints)))
        for one, two in zip(self.left, self.right, strict=True):
            other[one], other[two] = two, one
        return tuple(other)

    @property
    def order(self) -> tuple[int, ...]:
        """The joints so that every parent stands before its children."""
        depth = [len(list(self._upwards(joint))) for joint in range(len(self.joints))]
        return tuple(sorted(range(len(self.joints)), key=lambda joint: (depth[joint], joint)))

    def index(self, joint: str) -> int:
        """The number of a joint by its name; an InputError names those there are."""
        if joint not in self.joints:
            where, names = f"skeleton {self.name}", ", ".join(self.joints)
            raise InputError("no such joint", where=where, found=repr(joint), expected=names)
        return self.joints.index(joint)


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera with Brown's distortion; a point of the world is at `rotation @ point + translation` before it.

    Args:
        size: width and height of the image, px.
        focal: focal length along x and y, px.
        centre: the principal point, px, in the same pixels as the joints.
        distortion: k1, k2, p1, p2, k3 (radial, radial, tangential, tangential, radial), or fewer of them.
        rotation: (3, 3) world to camera; the camera frame has x to the right, y down, z forward.
        translation: (3,) m, the origin of the world in the camera frame.

    Raises:
        InputError: sizes or focal lengths that are not positive, other shapes, no rotation.

    Example:
        >>> Camera((1000, 1000), (1145.0, 1145.0), (500.0, 500.0)).position.tolist()
        [0.0, 0.0, 0.0]
    """

    size: tuple[int, int]
    focal: tuple[float, float]
    centre: tuple[float, float]
    distortion: tuple[float, ...] = ()
    rotation: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))
    translation: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))

    def __post_init__(self) -> None:
        object.__setattr__(self, "rotation", np.asarray(self.rotation, np.float64))
        object.__setattr__(self, "translation", np.asarray(self.translation, np.float64))
        if min(self.size) < 1 or not all(0 < one < np.inf for one in self.focal):
            found = f"{self.size}, {self.focal}"
            raise InputError("no such camera", where="size, focal length", found=found, expected="more than 0")
        if not np.isfinite([*self.centre, *self.distortion]).all() or len(self.distortion) > 5:
            found = f"{self.centre}, {self.distortion}"
            raise InputError("no such camera", where="centre, distortion", found=found, expected="k1, k2, p1, p2, k3")
        if self.rotation.shape != (3, 3) or self.translation.shape != (3,):
            found = f"{self.rotation.shape} and {self.translation.shape}"
            raise InputError("no such camera", where="rotation, translation", found=found, expected="(3, 3) and (3,)")
        straight = np.allclose(self.rotation @ self.rotation.T, np.eye(3), atol=1e-4)
        if not straight or np.linalg.det(self.rotation) < 0 or not np.isfinite(self.translation).all():
            raise InputError("not a rotation", where="camera", found=self.rotation.tolist(), expected="R R' = 1, det 1")

    @property
    def position(self) -> NDArray[np.float64]:
        """(3,) m: where the camera stands in the world."""
        return np.asarray(-self.rotation.T @ self.translation + 0.0)


@dataclass(frozen=True, eq=False)
class Clip:
    """The joints of one person over time.

    Args:
        name: what messages call it.
        points: (T, J, D), D = 2 or 3; 0 where a joint is missing.
        valid: (T, J): the joint is there.
        skeleton: of J joints.
        fps: frames a second, Hz; None where it is not known.
        unit: of `points`: `px`, `normalised` (x / w * 2 - 1, y / w * 2 - h / w) or `m`.
        frame: `image` and `camera` have x to the right, y down, z forward; `world` has z up.
        size: width and height of the image, px.
        confidence: (T, J) 0 to 1, of a detector.
        camera: that saw the points.
        subject, action: names; empty where unknown.
        person: the number of the person in its file.
        notes: what was done to the points, counted.

    Raises:
        InputError: shapes that do not fit together, numbers of a joint that is there which are not finite.

    Complexity: O(T J D) time; the arrays are kept, not copied, where they have their types.

    Example:
        >>> hand = Skeleton("hand", ("wrist", "finger"), (-1, 0), 0)
        >>> clip = Clip.of("a", [[[0, 0], [1, 2]], [[0, 0], [np.nan, 0]]], hand, fps=50, unit="px")
        >>> clip.frames, clip.seconds, clip.valid.tolist(), clip.notes
        (2, 0.04, [[True, True], [True, False]], ('1 of 4 joints is missing',))
    """

    name: str
    points: NDArray[np.float32]
    valid: NDArray[np.bool_]
    skeleton: Skeleton
    fps: float | None = None
    unit: Unit = "m"
    frame: Frame = "world"
    size: tuple[int, int] | None = None
    confidence: NDArray[np.float32] | None = None
    camera: Camera | None = None
    subject: str = ""
    action: str = ""
    person: int = 0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", np.asarray(self.points, np.float32))
        object.__setattr__(self, "valid", np.asarray(self.valid, np.bool_))
        shape, joints = self.points.shape, len(self.skeleton)
        if len(shape) != 3 or shape[1] != joints or shape[2] not in (2, 3):
            expected = f"(frames, {joints} joints of {self.skeleton.name}, 2 or 3)"
            raise InputError("not the joints of a clip", where=self.name, found=shape, expected=expected)
        if self.valid.shape != shape[:2]:
            raise InputError("valid does not fit", where=self.name, found=self.valid.shape, expected=shape[:2])
        if self.confidence is not None:
            object.__setattr__(self, "confidence", np.asarray(self.confidence, np.float32))
            if self.confidence.shape != shape[:2]:
                found = self.confidence.shape
                raise InputError("confidence does not fit", where=self.name, found=found, expected=shape[:2])
        if self.unit not in UNITS or self.frame not in FRAMES:
            found, expected = f"{self.unit}, {self.frame}", f"{', '.join(UNITS)}; {', '.join(FRAMES)}"
            raise InputError("no such unit or frame", where=self.name, found=found, expected=expected)
        if self.fps is not None and not 0 < self.fps < np.inf:
            raise InputError("no such frame rate", where=self.name, found=self.fps, expected="more than 0 Hz")
        bad = ~np.isfinite(self.points).all(-1) & self.valid
        if bad.any():
            found = f"{int(bad.sum())} joints, the first in frame {int(np.argwhere(bad)[0, 0])}"
            cure = "mark them as missing, as Clip.of does"
            raise InputError("numbers that are not finite", where=self.name, found=found, cure=cure)
        if self.points[~self.valid].any():
            object.__setattr__(self, "points", np.where(self.valid[..., None], self.points, np.float32(0)))

    @classmethod
    def of(cls, name: str, points: ArrayLike, skeleton: Skeleton, valid: ArrayLike | None = None, **rest: Any) -> Clip:
        """A clip of an array (T, J, D) in which a missing joint is NaN or infinite; they are counted in the notes.

        Args:
            name: what messages call it.
            points: (T, J, D).
            skeleton: of J joints.
            valid: (T, J) which joints are there; a joint that is not finite never is.
            rest: the other fields of the clip.
        """
        numbers = np.asarray(points, np.float64)
        if numbers.ndim != 3:
            expected = f"(frames, {len(skeleton)} joints of {skeleton.name}, 2 or 3)"
            raise InputError("not the joints of a clip", where=name, found=numbers.shape, expected=expected)
        with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, hence missing
            numbers = numbers.astype(np.float32)
        there = np.asarray(np.isfinite(numbers).all(-1), np.bool_)
        if valid is not None:
            given = np.asarray(valid, np.bool_)
            if given.shape != there.shape:
                raise InputError("valid does not fit", where=name, found=given.shape, expected=there.shape)
            there &= given
        lost, notes = int((~there).sum()), tuple(rest.pop("notes", ()))
        if lost:
            notes += (f"{lost} of {there.size} joints {'is' if lost == 1 else 'are'} missing",)
        return cls(name, np.where(there[..., None], numbers, np.float32(0)), there, skeleton, notes=notes, **rest)

    def __len__(self) -> int:
        return len(self.points)

    @property
    def frames(self) -> int:
        """T."""
        return len(self.points)

    @property
    def dims(self) -> int:
        """D, 2 or 3."""
        return self.points.shape[2]

    @property
    def seconds(self) -> float | None:
        """T / fps, s; None where the frame rate is not known."""
        return None if self.fps is None else self.frames / self.fps

    def but(self, *notes: str, **changed: Any) -> Clip:
        """The clip with other fields and further notes; `notes=` replaces those it had."""
        earlier = tuple(changed.pop("notes", self.notes))
        return dataclasses.replace(self, notes=(*earlier, *notes), **changed)
