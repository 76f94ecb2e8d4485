"""Windows of consecutive volumes over many runs; every volume of every run is in one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.brain_prepared import Prepared
from pipelines.data.errors import InputError

__all__ = ["BrainWindows", "starts"]


def starts(volumes: int, frames: int, stride: int | None = None) -> list[int]:
    """First volumes of the windows of a run; the last window is moved back so that it ends with the run.

    Args:
        volumes: of the run.
        frames: of a window.
        stride: from one window to the next; None: `frames`, so that windows do not overlap.

    Raises:
        InputError: fewer volumes than a window has, a stride that would leave volumes out.

    Complexity: O(windows).

    Source: SwiFT takes windows without overlap; it leaves out what remains at the end of a run, here it is kept.

    Example:
        >>> starts(45, 20), starts(40, 20), starts(12, 8, 2)
        ([0, 20, 25], [0, 20], [0, 2, 4])
    """
    stride = frames if stride is None else stride
    if frames < 1:
        raise InputError("no such window", where="window.frames", found=frames, expected="1 or more")
    if not 1 <= stride <= frames:
        expected = f"1 to {frames}: a longer one would leave volumes out"
        raise InputError("no such stride", where="window.stride", found=stride, expected=expected)
    if volumes < frames:
        found, expected = f"{volumes} volumes", f"{frames} or more, the length of a window"
        raise InputError("a run shorter than a window", found=found, expected=expected, cure="smaller --window.frames")
    found = list(range(0, volumes - frames + 1, stride))
    return found if found[-1] + frames == volumes else [*found, volumes - frames]


class BrainWindows(Sequence[NDArray[np.float32]]):
    """All windows of some runs as a sequence: the runs in their order, the windows of each in theirs.

    Args:
        prepared: the runs.
        frames: volumes of a window.
        stride: from one window to the next; None: no overlap.

    Attributes:
        places: (index of the run, first volume) of each window.
        notes: how many windows there are, and how many volumes are seen twice by the last ones.

    Raises:
        InputError: a run shorter than a window, with its name.

    Complexity: O(windows) memory; a window is read and standardised when asked for.

    Example:
        >>> from pipelines.data.datasets.brain_prepare import prepare
        >>> from pipelines.data.datasets.brain_types import Recording
        >>> run = prepare(Recording("a", np.random.default_rng(0).random((3, 3, 3, 9)), tr=2.0))
        >>> windows = BrainWindows([run], 4)
        >>> len(windows), windows[-1].shape, windows.places[-1], windows.notes
        (3, (3, 3, 3, 4), (0, 5), ('3 windows of 4 volumes; 3 volumes of 1 run are in two windows',))
    """

    def __init__(self, prepared: Sequence[Prepared], frames: int, stride: int | None = None) -> None:
        self.prepared, self.frames = tuple(prepared), frames
        self.places: list[tuple[int, int]] = []
        twice = runs = 0
        for index, run in enumerate(self.prepared):
            try:
                found = starts(run.volumes, frames, stride)
            except InputError as error:
                where = error.where or run.name
                raise InputError(
                    error.problem, where=where, found=error.found, expected=error.expected, cure=error.cure
                ) from None
            self.places += [(index, start) for start in found]
            # Only what the moved last window adds: an overlap that was asked for is no news.
            extra = (found[-2] + (stride or frames) - found[-1]) if len(found) > 1 else 0
            twice, runs = twice + extra, runs + bool(extra)
        text = f"{len(self.places)} windows of {frames} volumes"
        if twice:
            text += f"; {twice} volumes of {runs} run{'s' if runs > 1 else ''} are in two windows"
        self.notes: tuple[str, ...] = (text,)

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.float32]: ...

    @overload
    def __getitem__(self, index: slice) -> list[NDArray[np.float32]]: ...

    def __getitem__(self, index: int | slice) -> NDArray[np.float32] | list[NDArray[np.float32]]:
        """One window (X, Y, Z, frames), or a list of them."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        run, start = self.places[index]
        return self.prepared[run].window(start, self.frames)
