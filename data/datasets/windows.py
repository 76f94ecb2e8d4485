"""Windows over series, gathered a batch at a time from one table that is never copied per window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipelines.data.datasets.splits import window_count
from pipelines.data.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class PreparedSeries:
    """One series as a model sees it.

    Args:
        id: name.
        target: (T, C) float32, scaled.
        observed: (T, C) bool, True where measured.
        past: (T, P) float32, scaled.
        marks: (T + K, F) float32: calendar features, scaled known columns, encoded static columns.
        time: (T + K,) stamps.
    """

    id: str
    target: Tensor
    observed: Tensor
    past: Tensor
    marks: Tensor
    time: pd.DatetimeIndex

    def __len__(self) -> int:
        return len(self.target)


class ForecastWindows(Dataset[dict[str, Tensor]]):
    """All windows of context + horizon rows inside the given row ranges, each a `stride` later than the one before.

    Args:
        series: prepared series with the same columns.
        ranges: row range [start, stop) of each series, with the context rows before its first target row.
        context: rows that a window sees (L).
        horizon: rows to forecast (H).
        stride: rows between windows.

    A batch is a dict: x (B, L, C), x_mark (B, L, F), y_mark (B, H, F), past (B, L, P), y (B, H, C), observed (B, H, C)
    bool, series (B,) and origin (B,), the row of the first forecast. `ds[i]` is one window without the batch dimension,
    `ds[[i, j]]` and `__getitems__` (used by DataLoader) gather a batch at once.

    Raises:
        InputError: not one window fits.

    Complexity: O(B (L + H) (C + F + P)) a batch; memory O(rows), independent of the number of windows.
    """

    def __init__(
        self,
        series: Sequence[PreparedSeries],
        ranges: Sequence[tuple[int, int]],
        context: int,
        horizon: int,
        stride: int = 1,
    ) -> None:
        self.series, self.context, self.horizon, self.stride = list(series), context, horizon, stride
        self.ranges = [(int(start), int(stop)) for start, stop in ranges]
        for one, (start, stop) in zip(self.series, self.ranges, strict=True):
            if not 0 <= start <= stop <= len(one):
                raise InputError(
                    f"row range outside series '{one.id}'", found=(start, stop), expected=f"within 0 and {len(one)}"
                )
        counts = [window_count(rows, context, horizon, stride) for rows in self.ranges]
        if not sum(counts):
            raise InputError(
                "too few rows for one window",
                found=f"at most {max((b - a for a, b in self.ranges), default=0)} rows",
                expected=f"context {context} + horizon {horizon}",
                cure="a shorter --context or --horizon, or more rows",
            )
        self._ends = np.cumsum(counts)
        self._offsets = np.cumsum([0] + [len(one) for one in self.series[:-1]])
        self._target = _joined([one.target for one in self.series])
        self._observed = _joined([one.observed for one in self.series])
        self._past = _joined([one.past for one in self.series])
        self._marks = _joined([one.marks[: len(one)] for one in self.series])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def place(self, index: int | Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Series number and first row of windows.

        Args:
            index: (B,) window numbers.
        """
        flat = np.atleast_1d(np.asarray(index, dtype=np.int64))
        flat = np.where(flat < 0, flat + len(self), flat)
        if flat.size and (flat.min() < 0 or flat.max() >= len(self)):
            raise IndexError(f"window out of range: {len(self)} windows")
        which = np.searchsorted(self._ends, flat, side="right")
        before = np.concatenate([[0], self._ends[:-1]])[which]
        starts = np.asarray([rows[0] for rows in self.ranges])[which] + (flat - before) * self.stride
        return which, starts

    def batch(self, index: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """The windows of a list of numbers as one batch."""
        which, starts = self.place(index)
        rows = self._offsets[which] + starts
        context, length = self.context, self.context + self.horizon
        values = _gather(self._target, rows, length)
        marks = _gather(self._marks, rows, length)
        return {
            "x": values[:, :context],
            "x_mark": marks[:, :context],
            "y_mark": marks[:, context:],
            "past": _gather(self._past, rows, context),
            "y": values[:, context:],
            "observed": _gather(self._observed, rows + context, self.horizon),
            "series": torch.from_numpy(which),
            "origin": torch.from_numpy(starts + context),
        }

    def __getitem__(self, index: int | Sequence[int]) -> dict[str, Tensor]:
        if isinstance(index, int | np.integer):
            return {name: value[0] for name, value in self.batch([int(index)]).items()}
        return self.batch(index)

    def __getitems__(self, index: list[int]) -> dict[str, Tensor]:
        """A whole batch for DataLoader, to be used with `collate_fn=ForecastWindows.collate`."""
        return self.batch(index)

    @staticmethod
    def collate(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """A batch is already collated."""
        return batch


def _joined(parts: list[Tensor]) -> np.ndarray:
    return np.ascontiguousarray(parts[0] if len(parts) == 1 else torch.cat(parts))


def _gather(table: np.ndarray, rows: np.ndarray, length: int) -> Tensor:
    """(B, length, C) windows starting at rows, out of a view in which windows overlap.

    NumPy's gather of whole windows took 0.05 ms for 32 windows of 432 x 7 where torch's index_select took 0.1 ms with
    one thread and 20 ms when its thread pool had to share two cores with others.
    """
    count, width = len(table) - length + 1, table.shape[1]
    step = (table.strides[0], *table.strides)
    view = np.lib.stride_tricks.as_strided(table, (count, length, width), step, writeable=False)
    return torch.from_numpy(view[rows])
