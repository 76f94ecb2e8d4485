"""What a frame of joints means when it comes alone: whose joints, which unit, which are missing; and frame rates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.pose_conversion import convert
from pipelines.data.datasets.pose_mocap import map_joints, read_mapping
from pipelines.data.datasets.pose_skeletons import by_count, skeleton
from pipelines.data.datasets.pose_types import Clip, Skeleton
from pipelines.data.datasets.pose_windows import frame_step
from pipelines.data.errors import InputError
from pipelines.data.formats.pose import remarked
from pipelines.data.formats.pose_joints import fitted
from pipelines.data.formats.pose_source import PoseReading, Raw
from pipelines.data.formats.pose_units import placed, unit_of
from pipelines.pose.material import model_input
from pipelines.pose.options import SKELETON

__all__ = ["FrameRate", "Intake", "lifter_frame"]

#: coordinates (J, 2), which joints are there (J,), how sure the detector is (J,)
_Found = tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64] | None]
_LOOKED_AT = 30  # frames at the beginning that are looked at for people upside down and exchanged sides
_FAR = 100.0  # coordinates are about -1 to 1 in the image


class Intake:
    """Frames (J, 2 or 3) of joints of unknown origin to clips of one frame, decided by the first and then kept.

    What a file would decide by all of its frames is decided by the first one that has joints: the skeleton (by name,
    by what `reading` says, by the number of joints) and the unit (px, fractions ...). It is said, not guessed silently.

    Args:
        reading: what is known of the source.
        fps: of the source, Hz; None: not known.
        say: hears the notes.

    Attributes:
        missing: joints that were missing, of all frames.
        frames: that were taken.

    Complexity: O(J) time and memory a frame, beside the first 30 frames.

    Example:
        >>> intake = Intake(PoseReading(skeleton="coco17", size=(1000, 1000)))
        >>> clip = intake.take(np.full((17, 2), 250.0), where="a frame")
        >>> clip.skeleton.name, clip.unit, lifter_frame(clip)[0][0].tolist()
        ('coco17', 'px', [-0.5, -0.5, 1.0])
    """

    def __init__(
        self, reading: PoseReading, fps: float | None = None, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self.reading, self.fps, self.say = reading, fps, say
        self.missing = self.frames = self.corners = 0
        self._tree: Skeleton | None = None if reading.skeleton is None else skeleton(reading.skeleton)
        self._count = 0 if self._tree is None else len(self._tree)  # joints of a frame as it comes
        self._order: list[int] | None = None
        self._fitted = False
        self._unit: Any = None
        self._scale: NDArray[np.float64] | None = None
        self._offset = np.zeros(2)
        self._mapping = None if reading.mapping is None else read_mapping(reading.mapping)
        self._first: list[Clip] | None = []

    @property
    def input_unit(self) -> str:
        """The unit that was told or found, empty until a joint came."""
        return self._unit or ""

    @property
    def input_skeleton(self) -> str:
        """Whose joints come, empty until the first frame."""
        return self._tree.name if self._tree is not None else ""

    def take(
        self,
        joints: NDArray[np.float64] | None,
        valid: NDArray[np.bool_] | None = None,
        *,
        names: tuple[str, ...] | None = None,
        where: str,
    ) -> Clip:
        """One frame of joints as a clip of one frame, of the source's skeleton.

        Args:
            joints: (J, 2), or (J, 3) with how sure the detector is; not finite where missing. None: nobody was seen.
            valid: (J,) which are there; None: those that are finite.
            names: of the joints, where they are told.
            where: what messages call the frame.

        Raises:
            InputError: another number of joints (the skeletons that have so many are named), a skeleton or unit that
                cannot be told, pixels of an image of unknown size, numbers that cannot be coordinates.
        """
        if joints is None:
            if self._tree is None:
                cure = "say whose joints come with --read.skeleton"
                raise InputError("nobody in the first frame", where=where, found="no joints", expected="joints",
                                 cure=cure)  # fmt: skip
            blank = np.zeros(len(self._tree), np.bool_)
            points, there, sure = np.zeros((len(blank), 2)), blank, None
        else:
            points, there, sure = self._found(joints, valid, names, where)
        clip = self._clip(points, there, sure)
        self.count(clip)
        self._look(clip)
        return clip

    def count(self, clip: Clip) -> None:
        """Count a frame, also one that was read elsewhere."""
        self.frames += 1
        self.missing += int((~clip.valid).sum())

    def end(self) -> None:
        """Say what was counted."""
        self._look(None)
        if self.corners:
            self.say(f"{self.corners:,} joints at exactly (0, 0) px were taken for missing ones")
        if self.missing:
            self.say(f"{self.missing:,} joints were missing in {self.frames:,} frames: carried by a mask")

    def _found(
        self,
        joints: NDArray[np.float64],
        valid: NDArray[np.bool_] | None,
        names: tuple[str, ...] | None,
        where: str,
    ) -> _Found:
        """The joints of the skeleton in px or normalised."""
        points, there, sure = self._checked(joints, valid, where)
        if not self._fitted:
            named = Raw(where, np.where(there[:, None], points, np.nan)[None], joints=names)
            self._tree, self._order, notes = fitted(named, self.reading)
            self._count, self._fitted = len(points), True
            for note in notes:
                self.say(note)
        corner = np.zeros_like(there) if sure is not None else np.logical_and(there, (points == 0).all(-1))
        if self._scale is None and (there & ~corner).any():
            self._decide(points, there & ~corner, where)
        if self._scale is None or self._unit == "px":
            there[corner] = False
            self.corners += int(corner.sum())
        points = points * (1.0 if self._scale is None else self._scale) + self._offset
        if self._order is not None:
            absent = np.array(self._order) < 0
            points, there = points[self._order], there[self._order] & ~absent
            sure = None if sure is None else sure[self._order]
        return points, there, sure

    def _checked(self, joints: NDArray[np.float64], valid: NDArray[np.bool_] | None, where: str) -> _Found:
        """Coordinates (J, 2), which joints are there, and confidences (J,)."""
        if joints.ndim != 2 or joints.shape[1] not in (2, 3) or not len(joints):
            raise InputError("not the joints of a frame", where=where, found=joints.shape, expected="(joints, 2 or 3)")
        if self._fitted and len(joints) != self._count:
            raise self._other_count(len(joints), where)
        with np.errstate(over="ignore"):
            there = np.asarray(np.isfinite(joints[:, :2].astype(np.float32)).all(-1), np.bool_)
        if valid is not None:
            valid = np.asarray(valid, np.bool_)
            if valid.shape != there.shape:
                raise InputError("valid does not fit", where=where, found=valid.shape, expected=there.shape)
            there = there & valid
        sure = joints[:, 2] if joints.shape[1] == 3 else None
        if sure is not None:
            told = sure[np.isfinite(sure)]
            if told.size and (told.min() < 0 or told.max() > 2):
                found = f"{told.min():.4g} to {told.max():.4g}"
                raise InputError("the third number of a joint is not how sure a detector is", where=where, found=found,
                                 expected="0 to 1 (COCO: 0, 1 or 2)", cure="two numbers a joint: poses in space are "
                                 "not lifted")  # fmt: skip
            there = there & (sure > self.reading.score)
        points = np.where(there[:, None], joints[:, :2], 0.0)
        return points, there, None if sure is None else np.clip(np.nan_to_num(sure), 0, 1)

    def _other_count(self, count: int, where: str) -> InputError:
        alike = by_count(count)
        found = f"{count} joints" + (f", as {' or '.join(alike)} has" if alike else ", which no skeleton has")
        expected = f"{self._count} joints of {self.input_skeleton}, as in the frames before"
        return InputError("another number of joints", where=where, found=found, expected=expected,
                          cure=f"--read.skeleton {alike[0]} for a stream of its own" if alike else None)  # fmt: skip

    def _decide(self, points: NDArray[np.float64], there: NDArray[np.bool_], where: str) -> None:
        """The unit, by the first frame that has joints, and how its numbers become px or normalised ones."""
        tree = self._tree or skeleton(SKELETON)
        raw = Raw(where, np.where(there[:, None], points, np.nan)[None])
        self._unit, notes = unit_of([raw], self.reading)
        if self._unit in ("px", "fraction", "signed") and self.reading.size is None:
            raise InputError("the size of the image is not known", where=where, found=f"{self._unit} alone",
                             expected="width and height", cure="--read.size [1920,1080]")  # fmt: skip
        probe = placed(np.array([[[0.0, 0.0], [1.0, 1.0]]]), self._unit, raw, tree, self.reading)
        self._offset = probe.points[0, 0]
        self._scale = scale = probe.points[0, 1] - probe.points[0, 0]
        for note in (*notes, *probe.notes):
            self.say(f"{note} (by the first frame)" if note in notes else note)
        size = self.reading.size
        middle = np.median((points * scale + self._offset)[there], axis=0)
        if probe.unit == "px" and size is not None and not ((middle >= 0) & (middle <= size)).all():
            self.say(f"most joints of the first frame lie outside of the image of {size[0]} x {size[1]} px: "
                     "check size and unit")  # fmt: skip

    def _clip(self, points: NDArray[np.float64], there: NDArray[np.bool_], sure: NDArray[np.float64] | None) -> Clip:
        tree = self._tree or skeleton(SKELETON)
        plain = np.where(there[:, None], points, 0.0).astype(np.float32)
        unit: Any = "normalised" if self._unit in (None, "normalised") else "px"
        confidence = None if sure is None else sure[None].astype(np.float32)
        clip = Clip("the stream", plain[None], there[None], tree, self.fps, unit, "image", size=self.reading.size,
                    confidence=confidence)  # fmt: skip
        return clip if self._mapping is None else map_joints(clip, self._mapping, skeleton(SKELETON))

    def _look(self, clip: Clip | None) -> None:
        """Once, of the first frames: whether somebody stands on the head, or left and right are exchanged."""
        if self._first is None:
            return
        if clip is not None:
            self._first.append(clip)
        if self._first and (clip is None or len(self._first) == _LOOKED_AT):
            sure = [one.confidence for one in self._first]
            whole = self._first[0].but(
                notes=(),
                points=np.concatenate([one.points for one in self._first]),
                valid=np.concatenate([one.valid for one in self._first]),
                confidence=None
                if any(one is None for one in sure)
                else np.concatenate([o for o in sure if o is not None]),
            )
            for note in remarked(whole).notes:
                self.say(f"the first {len(whole)} frames: {note}")
            self._first = None


def lifter_frame(clip: Clip, where: str = "a frame") -> tuple[NDArray[np.float32], Clip, tuple[str, ...]]:
    """A clip of one frame as the lifter sees it: (17, 3) coordinates and whether a joint is there; that clip; notes.

    Raises:
        InputError: a skeleton that cannot be converted, px without a size, coordinates far outside of the image.

    Complexity: O(J).

    Example:
        >>> clip = Clip("a", np.zeros((1, 17, 2)), np.ones((1, 17)), skeleton("h36m17"), unit="normalised",
        ...             frame="image")
        >>> lifter_frame(clip)[0].shape
        (17, 3)
    """
    one, notes = clip, tuple[str, ...]()
    if clip.skeleton.name != SKELETON:
        one = convert(clip, SKELETON)
        notes = one.notes[len(clip.notes) : len(clip.notes) + 1]  # the others count single frames
    x = model_input(one)[0][0]
    if np.abs(x[:, :2]).max() > _FAR:
        worst = int(np.abs(x[:, :2]).max(1).argmax())
        found = f"{one.skeleton.joints[worst]} at {one.points[0, worst].tolist()} {one.unit}"
        raise InputError("far outside of the image", where=where, found=found, expected="the unit of the frames before",
                         cure="mend the line, or say size and unit: --read.size, --read.unit")  # fmt: skip
    return x, one, notes


class FrameRate:
    """Frames at another rate as they come: the same as `resample` gives of the whole clip.

    A new frame lies between two old ones and is known when the second has come: up to one old frame later.

    Args:
        old, new: Hz.

    Attributes:
        wait: seconds that a new frame is known later at most.

    Complexity: O(J) a frame; one frame is kept.

    Example:
        >>> rate = FrameRate(60.0, 30.0)
        >>> clip = Clip("a", np.zeros((1, 17, 2)), np.ones((1, 17)), skeleton("h36m17"), unit="normalised",
        ...             frame="image")
        >>> [len(rate.push(clip)) for _ in range(4)], rate.wait
        ([1, 0, 1, 0], 0.0)
    """

    def __init__(self, old: float, new: float) -> None:
        self.step = frame_step(old / new)
        self.wait = 0.0 if self.step == round(self.step) else 1.0 / old
        self._came = self._next = 0
        self._last: Clip | None = None

    def push(self, clip: Clip) -> list[Clip]:
        """The new frames that are known now."""
        found: list[Clip] = []
        while True:
            at = self._next * self.step
            near = float(np.round(at))
            at = near if abs(at - near) < 1e-6 else at
            if at > self._came:
                break
            found.append(clip if at == self._came or self._last is None else _between(self._last, clip, at % 1.0))
            self._next += 1
        self._came += 1
        self._last = clip
        return found


def _between(low: Clip, high: Clip, share: float) -> Clip:
    """Linear between two frames; a joint is there where it is in both."""
    there = low.valid & high.valid
    points = ((1 - share) * low.points.astype(np.float64) + share * high.points).astype(np.float32)
    return low.but(points=np.where(there[..., None], points, np.float32(0)), valid=there, confidence=None)
