"""Python objects as frames: arrays, tensors, pictures, lists of them, and episodes that are opened again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.world_types import Episode, Frames
from pipelines.data.errors import InputError
from pipelines.data.formats.episodes_roles import Column, Draft

__all__ = ["SOURCES", "array_of", "draft_of", "holds_sources", "is_frames", "is_numeric", "is_picture", "piled"]

#: What episodes are made of.
SOURCES = (
    "a film, a file of arrays (.npz, .npy, .hdf5), a folder, an array (T, H, W[, C]), a dictionary with frames, "
    "episodes, or a list of these"
)


def draft_of(episode: Episode) -> Draft:
    """An episode that is opened again, e.g. at another size; what fits stays as it is.

    Example:
        >>> from pipelines.data.datasets.world_types import ArrayFrames
        >>> draft_of(Episode("e", ArrayFrames(np.zeros((5, 8, 8, 3), np.uint8)), 10.0)).count
        5
    """
    columns = None if episode.actions is None else (Column("", episode.actions),)
    return Draft(
        episode.name, episode.name, frames=episode.frames, fps=episode.fps, columns=columns, states=episode.states,
        rewards=episode.rewards, action_names=episode.action_names, state_names=episode.state_names,
        notes=list(episode.notes),
    )  # fmt: skip


def is_frames(data: Any) -> bool:
    """Whether something is `Frames` and no array.

    Example:
        >>> is_frames(np.zeros((5, 8, 8, 3)))
        False
    """
    return not isinstance(data, np.ndarray) and isinstance(data, Frames) and len(getattr(data, "shape", ())) == 4


def _is_image(data: Any) -> bool:
    """Whether something is a picture of Pillow, without importing it."""
    return hasattr(data, "getbands") and hasattr(data, "convert")


def is_numeric(data: Any) -> bool:
    """Whether something is an array, or something that gives one: a tensor, a picture.

    Example:
        >>> is_numeric(np.zeros(3)), is_numeric("a")
        (True, False)
    """
    return isinstance(data, np.ndarray | np.generic) or hasattr(data, "__array__") or _is_image(data)


def is_picture(data: Any) -> bool:
    """Whether something is one frame: (H, W), (H, W, C) or (C, H, W).

    Example:
        >>> [is_picture(np.zeros(shape)) for shape in ((8, 8), (8, 8, 3), (3, 8, 8), (5, 8, 8), (5, 8, 8, 3))]
        [True, True, True, False, False]
    """
    if _is_image(data):
        return True
    shape = tuple(getattr(data, "shape", ())) if is_numeric(data) else ()
    return len(shape) == 2 or (len(shape) == 3 and (shape[-1] in (1, 3, 4) or shape[0] in (1, 3)))


def holds_sources(data: Any) -> bool:
    """Whether lists within lists hold something else than numbers.

    Example:
        >>> holds_sources([[0, 1], [2, 3]]), holds_sources(["a.mp4"]), holds_sources([np.zeros(3)])
        (False, True, True)
    """
    while isinstance(data, list | tuple) and data:
        data = data[0]
    return not isinstance(data, int | float | list | tuple)


def array_of(data: Any, where: str) -> NDArray[Any]:
    """An array of whatever gives one; nothing is copied where it need not be.

    Raises:
        InputError: something that is no array of numbers or texts, lists of different lengths.

    Example:
        >>> array_of([[1, 2], [3]], "a")
        Traceback (most recent call last):
        ...
        pipelines.data.errors.InputError: a: no array of numbers. Found: list: setting an array element ...
    """
    if _is_image(data):
        data = data if data.mode in ("L", "RGB") else data.convert("RGB")
    elif hasattr(data, "detach"):  # a tensor
        data = data.detach().cpu().numpy()
    try:
        array = np.asarray(data)
    except (ValueError, TypeError, OverflowError, RuntimeError, MemoryError) as error:
        found = f"{type(data).__name__}: {error}"[:120]
        raise InputError("no array of numbers", where=where, found=found, expected=SOURCES) from error
    if array.dtype.kind not in "biufUS":
        found = f"{type(data).__name__} ({array.dtype})"
        raise InputError("nothing that is read", where=where, found=found, expected=SOURCES)
    return array


def piled(pictures: Sequence[NDArray[Any]], name: str) -> NDArray[Any]:
    """Frames of one episode as one array.

    Raises:
        InputError: frames of different sizes or types, which are named.

    Complexity: O(values).

    Example:
        >>> piled([np.zeros((8, 8)), np.zeros((8, 9))], "a list")
        Traceback (most recent call last):
        ...
        pipelines.data.errors.InputError: a list: frames of different sizes in one episode. ...
    """
    shapes: dict[Any, int] = {}
    kinds: dict[Any, int] = {}
    for place, picture in enumerate(pictures):
        shapes.setdefault(picture.shape, place)
        kinds.setdefault(picture.dtype, place)
    for what, held in (("sizes", shapes), ("types", kinds)):
        if len(held) > 1:
            found = " and ".join(f"{one} (frame {place})" for one, place in list(held.items())[:2])
            cure = "bring the frames of an episode to one size and type"
            raise InputError(
                f"frames of different {what} in one episode", where=name, found=found, expected="one", cure=cure
            )
    return np.stack(pictures)
