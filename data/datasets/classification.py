"""Labelled series for training: statistics of the training part, splits by group and class, batches with masks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from pipelines.data.datasets.classification_splits import Holdout, group_folds, holdout, official_split
from pipelines.data.errors import InputError

__all__ = ["Holdout", "LabelledDataset", "Standardiser", "collate", "group_folds", "holdout", "official_split"]


@dataclasses.dataclass(frozen=True)
class Standardiser:
    """Shift and divide each variable by mean and deviation of the measured values of the training series.

    Args:
        mean: (V,) float64.
        deviation: (V,) float64, population deviation, 1 for a variable that never changes.
        notes: what was found while fitting, counted.

    Example:
        >>> standard = Standardiser.fit([np.array([[1.0, 3.0, np.nan]])])
        >>> standard.apply(np.array([[5.0, np.nan]])).tolist(), standard.state()["mean"]
        ([[3.0, nan]], [2.0])
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    notes: tuple[str, ...] = ()

    @classmethod
    def fit(cls, series: Sequence[NDArray[np.floating]]) -> Standardiser:
        """Statistics over all steps of the training series, each (V, T) with NaN where nothing was measured.

        Raises:
            InputError: no series, other numbers of variables.

        Complexity: O(values), summed in float64.
        """
        width = _width(series)
        counts, total = np.zeros(width), np.zeros(width)
        low, high = np.full(width, np.inf), np.full(width, -np.inf)
        for one in series:
            seen = ~np.isnan(one)
            counts += seen.sum(axis=1)
            total += np.where(seen, one, 0.0).sum(axis=1, dtype=np.float64)
            low = np.minimum(low, np.where(seen, one, np.inf).min(axis=1))
            high = np.maximum(high, np.where(seen, one, -np.inf).max(axis=1))
        safe = np.maximum(counts, 1)
        mean, squares = total / safe, np.zeros(width)
        for one in series:  # a second pass: sums of squares would cancel where the mean is large
            squares += (np.where(np.isnan(one), 0.0, one - mean[:, None]) ** 2).sum(axis=1)
        still = (low == high) & (counts > 0)
        mean = np.where(still, low, mean)
        deviation = np.where(still | (counts == 0), 1.0, np.sqrt(squares / safe))
        notes = []
        if still.any():
            notes.append(f"{int(still.sum())} variables never change in the training series")
        if (counts == 0).any():
            notes.append(f"{int((counts == 0).sum())} variables have no measured value in the training series")
        return cls(mean, deviation, tuple(notes))

    def apply(self, one: NDArray[np.floating]) -> NDArray[np.float32]:
        """(V, T) in units of the training deviation; NaN stays NaN.

        Raises:
            InputError: another number of variables than in training.
        """
        if one.ndim != 2 or len(one) != len(self.mean):
            found, expected = f"shape {one.shape}", f"({len(self.mean)}, time), as in training"
            raise InputError("another number of variables", found=found, expected=expected)
        scaled = (one.astype(np.float64) - self.mean[:, None]) / self.deviation[:, None]
        return scaled.astype(np.float32)

    def state(self) -> dict[str, list[float]]:
        """Plain lists for a configuration file; `from_state` restores them exactly."""
        return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Standardiser:
        """The standardiser with stored statistics.

        Raises:
            InputError: lists that are missing, differ in length, or hold no finite means and positive deviations.
        """
        try:
            mean, deviation = (np.asarray(state[name], np.float64) for name in ("mean", "deviation"))
        except (KeyError, TypeError, ValueError) as error:
            expected = "lists mean and deviation"
            raise InputError("the stored statistics are damaged", found=str(error), expected=expected) from error
        sound = mean.ndim == 1 and mean.shape == deviation.shape and np.isfinite(mean).all()
        if not sound or not (np.isfinite(deviation) & (deviation > 0)).all():
            expected = "finite means and positive deviations of one length"
            raise InputError("the stored statistics are damaged", expected=expected)
        return cls(mean, deviation)


def _width(series: Sequence[NDArray[np.floating]]) -> int:
    shapes = sorted({one.shape[0] if one.ndim == 2 else -1 for one in series})
    if len(shapes) != 1 or shapes[0] < 0 or any(one.shape[1] < 1 for one in series):
        found = f"numbers of variables {shapes}" if shapes else "no series"
        expected = "(variables, time) arrays of the same variables"
        raise InputError("series that do not go together", found=found, expected=expected)
    return shapes[0]


def collate(series: Sequence[NDArray[np.floating]]) -> dict[str, Tensor]:
    """Series of different lengths as one batch, whose masks say what is real.

    Args:
        series: B arrays (V, T_i), NaN where nothing was measured.

    Returns:
        `x` (B, V, T_max) float32 with zeros where nothing is, `observed` (B, V, T_max) bool, True where measured,
        `valid` (B, T_max) bool, True where the series has a step.

    Raises:
        InputError: no series, other numbers of variables.

    Complexity: O(B V T_max).

    Example:
        >>> batch = collate([np.array([[1.0, np.nan, 3.0]]), np.array([[4.0]])])
        >>> batch["x"].tolist(), batch["valid"].tolist()
        ([[[1.0, 0.0, 3.0]], [[4.0, 0.0, 0.0]]], [[True, True, True], [True, False, False]])
        >>> batch["observed"][0].tolist()
        [[True, False, True]]
    """
    shape = (len(series), _width(series), max(one.shape[1] for one in series))
    x, observed, valid = np.zeros(shape, np.float32), np.zeros(shape, bool), np.zeros(shape[::2], bool)
    for place, one in enumerate(series):
        steps = one.shape[1]
        seen = ~np.isnan(one)
        np.copyto(x[place, :, :steps], one, where=seen, casting="same_kind")
        observed[place, :, :steps], valid[place, :steps] = seen, True
    return {name: torch.from_numpy(array) for name, array in (("x", x), ("observed", observed), ("valid", valid))}


class LabelledDataset(Dataset[dict[str, Tensor]]):
    """Standardised series with the numbers of their classes, gathered a batch at a time.

    Args:
        series: N arrays (V, T_i), NaN where nothing was measured.
        labels: (N,) whole numbers from 0 on.

    A batch is that of `collate` with `y` (B,) int64 and `index` (B,) int64, the places in this data set. Give
    DataLoader `collate_fn=LabelledDataset.collate`.

    Raises:
        InputError: no series, other numbers of labels, labels that are no whole numbers from 0 on.

    Example:
        >>> data = LabelledDataset([np.zeros((2, 3)), np.ones((2, 5))], [0, 1])
        >>> batch = data.__getitems__([1, 0])
        >>> len(data), tuple(batch["x"].shape), batch["y"].tolist(), batch["index"].tolist()
        (2, (2, 2, 5), [1, 0], [1, 0])
    """

    def __init__(self, series: Sequence[NDArray[np.floating]], labels: Sequence[int] | NDArray[np.integer]) -> None:
        _width(series)
        numbers = np.asarray(labels)
        if numbers.shape != (len(series),) or numbers.dtype.kind not in "iu" or numbers.min() < 0:
            found, expected = f"{numbers.dtype} of shape {numbers.shape}", f"{len(series)} whole numbers from 0 on"
            raise InputError("labels do not fit the series", where="labels", found=found, expected=expected)
        self.series, self.labels = list(series), torch.from_numpy(numbers.astype(np.int64))

    def __len__(self) -> int:
        return len(self.series)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One example without the dimension of the batch."""
        return {name: value[0] for name, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The examples of a list of places as one batch."""
        index = torch.as_tensor(indices, dtype=torch.int64)
        batch = collate([self.series[int(one)] for one in index])
        return {**batch, "y": self.labels[index], "index": index}

    @staticmethod
    def collate(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """A batch is already collated."""
        return batch
