"""What an episode of a world is: frames in order of time, and what was done and true beside them.

Frames are read by range and never loaded whole, so that an episode may be longer than memory: a memory map, a film in
chunks, an array a user holds. Everything here is numpy; no file is opened in this module.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError

__all__ = ["ArrayFrames", "Episode", "Frames"]


@runtime_checkable
class Frames(Protocol):
    """Frames with random access by range, (T, H, W, C) uint8, nothing decoded or loaded before it is read.

    Example:
        >>> import numpy as np
        >>> isinstance(ArrayFrames(np.zeros((2, 4, 4, 1), np.uint8)), Frames)
        True
    """

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, C)."""
        ...

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Frames start to stop (excluded), (stop - start, H, W, C) uint8, 0 <= start <= stop <= T."""
        ...


def check_range(start: int, stop: int, frames: int) -> None:
    """Refuse a range of frames that does not lie inside an episode of `frames` frames (`InputError`).

    Example:
        >>> check_range(0, 3, 3)
    """
    if not 0 <= start <= stop <= frames:
        raise InputError(
            "range of frames lies outside the episode",
            where="frames.read",
            found=f"start={start}, stop={stop}",
            expected=f"0 <= start <= stop <= {frames}",
        )


class ArrayFrames:
    """Frames over an array or memory map, which is kept and not copied: `array` (T, H, W, C) uint8, C = 1 or 3.

    Errors: `InputError` for another shape or type. A read copies only the frames asked for.

    Example:
        >>> import numpy as np
        >>> frames = ArrayFrames(np.zeros((5, 8, 8, 3), np.uint8))
        >>> frames.shape, frames.read(1, 3).shape
        ((5, 8, 8, 3), (2, 8, 8, 3))
    """

    def __init__(self, array: NDArray[np.uint8]) -> None:
        """Keep `array`; see the class."""
        if array.ndim != 4 or array.dtype != np.uint8 or array.shape[-1] not in (1, 3):
            raise InputError(
                "not an array of frames",
                where="frames",
                found=f"{array.dtype} of shape {array.shape}",
                expected="uint8 of shape (T, H, W, C), C = 1 or 3",
            )
        self._array = array

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, C)."""
        frames, height, width, channels = self._array.shape
        return frames, height, width, channels

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Frames start to stop (excluded) as an array of its own, (stop - start, H, W, C) uint8."""
        check_range(start, stop, self.shape[0])
        return np.array(self._array[start:stop], dtype=np.uint8)


@dataclass(frozen=True, eq=False)
class Episode:
    """One episode: frames in order of time, and what was done (actions), true (states) and earned (rewards) there.

    `actions[t]` is taken at frame t and leads to frame t + 1, so T frames have T - 1 actions that count; one more may
    be there and is not used.

    Example:
        >>> import numpy as np
        >>> episode = Episode("e", ArrayFrames(np.zeros((5, 8, 8, 3), np.uint8)), fps=10.0)
        >>> len(episode), episode.seconds
        (5, 0.5)
    """

    name: str
    """Name of the episode, unique among the episodes opened together."""
    frames: Frames
    """(T, H, W, C) uint8, C = 1 (grey) or 3 (RGB); lazy."""
    fps: float | None
    """Frames a second; None where it is not known."""
    actions: NDArray[np.float32] | None = None
    """(T, A) or (T - 1, A); discrete actions stand one-hot, which `notes` say."""
    states: NDArray[np.float32] | None = None
    """(T, S), what is true of the scene in every frame (positions, velocities), for linear probes."""
    rewards: NDArray[np.float32] | None = None
    """(T - 1,), the reward of the action of every frame but the last."""
    action_names: tuple[str, ...] = ()
    """Names of the A columns of `actions`; empty where they have none."""
    state_names: tuple[str, ...] = ()
    """Names of the S columns of `states`; empty where they have none."""
    notes: tuple[str, ...] = ()
    """What was done to the data on reading: counted, in sentences."""

    def __post_init__(self) -> None:
        """Refuse an episode whose parts do not fit each other (`InputError` names both lengths)."""
        object.__setattr__(self, "fps", None if self.fps is None else float(self.fps))
        count = self.frames.shape[0]
        for what, array, lengths, ndim in (
            ("actions", self.actions, (count - 1, count), 2),
            ("states", self.states, (count,), 2),
            ("rewards", self.rewards, (count - 1,), 1),
        ):
            if array is None:
                continue
            if array.ndim != ndim or array.shape[0] not in lengths:
                wanted = " or ".join(str(length) for length in lengths)
                raise InputError(
                    f"{what} do not fit the frames",
                    where=f"episode {self.name!r}",
                    found=f"{what} of shape {array.shape} for {count} frames",
                    expected=f"{wanted} rows" + (", two axes" if ndim == 2 else ", one axis"),
                )
        for what, names, array in (
            ("action_names", self.action_names, self.actions),
            ("state_names", self.state_names, self.states),
        ):
            if names and (array is None or len(names) != array.shape[1]):
                found = "no columns" if array is None else f"{array.shape[1]} columns"
                raise InputError(
                    f"{what} do not fit the columns",
                    where=f"episode {self.name!r}",
                    found=f"{len(names)} names, {found}",
                )
        if self.fps is not None and not (np.isfinite(self.fps) and self.fps > 0):
            raise InputError("frame rate is not a positive number", where=f"episode {self.name!r}", found=str(self.fps))

    def __len__(self) -> int:
        """Number of frames T."""
        return self.frames.shape[0]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, C) of the frames."""
        return self.frames.shape

    @property
    def seconds(self) -> float | None:
        """Duration T / fps in seconds; None where the frame rate is not known."""
        return None if self.fps is None else len(self) / self.fps
