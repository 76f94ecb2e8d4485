"""One person's lifted poses over time, with all that a picture or a file needs to be read without this library."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.pose_types import Clip, Skeleton
from pipelines.errors import InputError

__all__ = ["AXES", "Track", "upright"]

#: What the axes of a frame mean, as files and pictures say it.
AXES = {"camera": "x right, y down, z away from the camera", "world": "z up"}
Points = NDArray[np.float32]


@dataclasses.dataclass(frozen=True, eq=False)
class Track:
    """The poses of one person.

    Args:
        name: of the clip.
        points: (T, J, 3) m, relative to the root joint.
        valid: (T, J): the joint is there; the others are 0 and never read.
        skeleton: of J joints.
        fps: frames a second, Hz; None where it is not known.
        frame: the axes of the points: `camera` (x right, y down, z forward) or `world` (z up).
        trajectory: (T, 3) m, where the root is in that frame.
        sigma: (T, J) mm, how far off a joint is expected to be.
        inputs: the 2-D clip that was lifted, T frames, of any skeleton.
        truth: (T, J, 3) m root-relative; NaN where it is not known.
        person: number of the person in its file.
        subject, action: names; empty where unknown.
        notes: what was done, counted.

    Raises:
        InputError: shapes that do not fit, numbers of joints that are there which are not finite.

    Complexity: O(T J).

    Example:
        >>> hand = Skeleton("hand", ("wrist", "finger"), (-1, 0), 0)
        >>> track = Track("a", np.zeros((50, 2, 3)), np.ones((50, 2)), hand, fps=25.0)
        >>> track.frames, track.seconds, str(track)
        (50, 2.0, 'a: 50 frames at 25 Hz (2.0 s), 2 joints of hand')
    """

    name: str
    points: Points
    valid: NDArray[np.bool_]
    skeleton: Skeleton
    fps: float | None = None
    frame: Literal["camera", "world"] = "camera"
    trajectory: Points | None = None
    sigma: Points | None = None
    inputs: Clip | None = None
    truth: Points | None = None
    person: int = 0
    subject: str = ""
    action: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "valid", np.asarray(self.valid, np.bool_))
        count, joints = len(self.valid), len(self.skeleton)
        if self.valid.shape != (count, joints) or not count:
            expected = f"(frames, {joints} joints of {self.skeleton.name}), at least one frame"
            raise InputError("not the joints of a track", where=self.name, found=self.valid.shape, expected=expected)
        shapes = {"points": (count, joints, 3), "truth": (count, joints, 3), "sigma": (count, joints)}
        for field, shape in (shapes | {"trajectory": (count, 3)}).items():
            values = getattr(self, field)
            if values is None and field != "points":
                continue
            values = np.asarray(values, np.float32)
            if values.shape != shape:
                raise InputError(f"{field} do not fit", where=self.name, found=values.shape, expected=shape)
            there = np.ones(count, np.bool_) if field == "trajectory" else self.valid
            if field == "truth":
                values = np.where(np.isfinite(values), values, np.float32(np.nan))
            elif not np.isfinite(values[there]).all():
                raise InputError(f"{field} that are not finite", where=self.name, cure="mark such joints in `valid`")
            elif not there.all():
                values = np.where(there[..., None] if values.ndim == 3 else there, values, np.float32(0))
            object.__setattr__(self, field, values)
        if self.frame not in AXES or (self.fps is not None and not 0 < self.fps < np.inf):
            found = f"{self.frame}, {self.fps} Hz"
            raise InputError("no such frame or rate", where=self.name, found=found, expected=", ".join(AXES))
        if self.inputs is not None and (len(self.inputs) != count or self.inputs.dims != 2):
            found = f"{len(self.inputs)} frames of {self.inputs.dims} numbers"
            raise InputError("not the input of these poses", where=self.name, found=found, expected=f"{count} of 2")

    @property
    def frames(self) -> int:
        """T."""
        return len(self.points)

    @property
    def seconds(self) -> float | None:
        """T / fps, s; None where the frame rate is not known."""
        return None if self.fps is None else self.frames / self.fps

    @property
    def missing(self) -> int:
        """Joints that are not there, over all frames."""
        return int((~self.valid).sum())

    @property
    def label(self) -> str:
        """The name, with the number of the person where it is not the first."""
        return f"{self.name}, person {self.person}" if self.person else self.name

    def placed(self) -> Points:
        """(T, J, 3) m: with the root where the trajectory has it; as they are without one."""
        if self.trajectory is None:
            return self.points
        return np.where(self.valid[..., None], self.points + self.trajectory[:, None], np.float32(0))

    def clip(self) -> Clip:
        """The poses as a clip in metres and in their own axes, the root where the trajectory has it, else at 0."""
        return Clip(
            self.name,
            self.placed(),
            self.valid,
            self.skeleton,
            self.fps,
            "m",
            self.frame,
            subject=self.subject,
            action=self.action,
            person=self.person,
            notes=self.notes,
        )

    def __str__(self) -> str:
        rate = "an unknown frame rate" if self.fps is None else f"{self.fps:.6g} Hz ({self.seconds:.1f} s)"
        lost = f", {self.missing:,} of {self.valid.size:,} missing" if self.missing else ""
        count = f"{self.frames:,} frame{'s' if self.frames > 1 else ''}"
        return f"{self.label}: {count} at {rate}, {len(self.skeleton)} joints of {self.skeleton.name}{lost}"


def upright(points: NDArray[np.floating], frame: str) -> Points:
    """Turn points (..., 3) to z up: x, z and -y of the camera frame (x right, y down, z forward); the world is so.

    Example:
        >>> upright(np.array([1.0, 2.0, 3.0]), "camera").tolist()
        [1.0, 3.0, -2.0]
    """
    values = np.asarray(points, np.float32)
    return values if frame == "world" else np.stack([values[..., 0], values[..., 2], -values[..., 1]], axis=-1)
