"""What readers of joints are told, what they give, and how numbers of unknown origin are taken out of a file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.pose_types import Frame, Skeleton
from pipelines.data.errors import InputError

__all__ = ["MOST_NUMBERS", "FileUnit", "PoseReading", "Raw", "Up", "explained", "numbers_of", "rate_of", "whole"]

FileUnit = Literal["auto", "px", "fraction", "signed", "normalised", "m", "cm", "mm"]
Up = Literal["auto", "y", "-y", "z"]
#: Numbers of the joints of one file that are held at once; 2 GiB of them.
MOST_NUMBERS = 1 << 28


@dataclass(frozen=True)
class PoseReading:
    """How files of joints are read; what is left out is told by the file, or asked for where it cannot be told.

    Raises:
        InputError: a value that means nothing.

    Example:
        >>> PoseReading(skeleton="coco17", fps=30.0, size=(1920, 1080)).unit
        'auto'
    """

    skeleton: str | None = None
    """Whose joints they are (coco17, h36m17, body25 ...), where a file does not say it."""
    fps: float | None = None
    """Frames a second; counts more than what a file says, which is then noted."""
    size: tuple[int, int] | None = None
    """Width and height of the image in pixels, where a file does not say them."""
    unit: FileUnit = "auto"
    """px; fraction = 0 to 1 along each side of the image; signed = -1 to 1 along each side; normalised = x / w * 2 - 1
    and y / w * 2 - h / w; m, cm or mm of 3-D joints."""
    person: int | None = None
    """The number of the one person to read; by default all."""
    mapping: str | None = None
    """A file that says which joints stand for those of h36m17: JSON, or CSV with the columns joint and source."""
    up: Up = "auto"
    """Axis of the file that points up; auto = -y for images, and for 3-D joints the one along which people stand."""
    score: float = 0.0
    """Joints of which a detector is no surer than this are missing."""
    accept_truncated: bool = False
    """Keep the whole frames of motion capture files that are cut."""

    def __post_init__(self) -> None:
        if self.fps is not None and not 0 < self.fps <= 1e5:
            raise InputError("no such frame rate", where="fps", found=self.fps, expected="more than 0 Hz")
        if self.size is not None and (len(self.size) != 2 or not all(1 <= side <= 1e6 for side in self.size)):
            raise InputError("no such image", where="size", found=self.size, expected="width and height in pixels")
        for name, given, known in (("unit", self.unit, get_args(FileUnit)), ("up", self.up, get_args(Up))):
            if given not in known:
                raise InputError(f"no such {name}", where=name, found=repr(given), expected=", ".join(known))
        if not 0 <= self.score < 1:
            raise InputError("no such confidence", where="score", found=self.score, expected="0 or more, less than 1")


@dataclass(frozen=True, eq=False)
class Raw:
    """The joints of one person as a file has them, over all of its frames.

    Args:
        name: what messages call it.
        points: (T, J, D); NaN where a joint is missing.
        score: (T, J) how sure the detector is, or None.
        joints: names of the J joints, where the file has them.
        tree: the skeleton, where the file has all of it.
        usual: the skeleton that the format has most often, taken where nothing else tells it.
        unit: where the file or its format says it.
        pixels: the format is one of pixels; small numbers are not taken for normalised ones without asking.
        zeros: a joint at exactly (0, 0) px is one that was not found.
        frame: where the file says it.
        size, fps, person, subject, action, notes: as in a clip.

    Example:
        >>> Raw("a", np.zeros((4, 17, 2))).points.shape
        (4, 17, 2)
    """

    name: str
    points: NDArray[np.float64]
    score: NDArray[np.float64] | None = None
    joints: tuple[str, ...] | None = None
    tree: Skeleton | None = None
    usual: str | None = None
    unit: FileUnit | None = None
    pixels: bool = False
    zeros: bool = True
    frame: Frame | None = None
    size: tuple[int, int] | None = None
    fps: float | None = None
    person: int = 0
    subject: str = ""
    action: str = ""
    notes: tuple[str, ...] = ()


_ODD = (AttributeError, KeyError, TypeError, ValueError, IndexError, OverflowError, RecursionError, MemoryError)


@contextlib.contextmanager
def explained(where: str, expected: str) -> Iterator[None]:
    """Whatever a file of another layout leads to ends as one message.

    Raises:
        InputError: instead of errors of types, keys, values and sizes.

    Example:
        >>> with explained("a.json", "an object"):
        ...     {}["people"]
        Traceback (most recent call last):
        ...
        pipelines.data.errors.InputError: a.json: not of a layout that is read. Found: KeyError: 'people'. ...
    """
    try:
        yield
    except InputError:
        raise
    except _ODD as error:
        found = f"{type(error).__name__}: {error}"[:120]
        raise InputError("not of a layout that is read", where=where, found=found, expected=expected) from error


def numbers_of(values: Any, where: str) -> NDArray[np.float64]:
    """Nested lists of a JSON file as an array; null is NaN.

    Raises:
        InputError: texts, truth values or objects among them, rows of different lengths.

    Complexity: O(values).

    Example:
        >>> numbers_of([[1, None], [2.5, 3]], "a.json").tolist()
        [[1.0, nan], [2.5, 3.0]]
    """
    try:
        array = np.asarray(values)
        if array.dtype == object:
            flat = array.ravel().tolist()
            if all(one is None or (isinstance(one, int | float) and not isinstance(one, bool)) for one in flat):
                held = [np.nan if one is None else float(one) for one in flat]
                array = np.array(held, np.float64).reshape(array.shape)
    except (ValueError, TypeError, OverflowError) as error:
        found = "lists of different lengths, or numbers beyond all measure"
        raise InputError("not numbers", where=where, found=found, expected="numbers or null") from error
    if array.dtype.kind not in "iuf":
        raise InputError("not numbers", where=where, found=str(values)[:60], expected="numbers or null")
    return array.astype(np.float64)


def whole(value: Any) -> int | None:
    """A whole number, also where it is written as a text, a decimal or a list of one; None for anything else.

    Example:
        >>> whole("000012"), whole(3.0), whole([4]), whole(1.5), whole(True), whole("a1")
        (12, 3, 4, None, None, None)
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str) and value.strip().isascii() and value.strip().lstrip("-").isdigit() and len(value) < 19:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1 << 53:
        return None
    return int(value) if value == int(value) else None


def rate_of(seconds: Sequence[float]) -> tuple[float | None, tuple[str, ...]]:
    """Frames a second from the times of frames, where these are even to a tenth of a frame; else a note.

    Example:
        >>> rate_of([0.0, 0.04, 0.08]), rate_of([0.0, 0.04, 0.4])[0]
        ((25.0, ()), None)
    """
    steps = np.diff(np.asarray(seconds, np.float64))
    if not steps.size:
        return None, ()
    if not np.isfinite(steps).all() or not (steps > 0).all():
        return None, ("the times of the frames do not rise: no frame rate was taken from them",)
    mean = float(steps.mean())
    if float(np.abs(steps - mean).max()) > 0.1 * mean + 1e-3:
        found = f"{float(steps.min()):.4g} to {float(steps.max()):.4g} s apart"
        return None, (f"the frames are {found}: no frame rate was taken from their times",)
    return float(f"{1 / mean:.6g}"), ()
