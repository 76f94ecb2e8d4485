"""Statistics of the training rows, kept as plain lists beside the weights: values, covariates, static columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.data.errors import InputError


class Standardizer:
    """Shift by the mean and divide by the population standard deviation of the rows it was fitted on.

    Args:
        mean: (C,) float64.
        scale: (C,) float64, positive; 1 for a column that never changes.

    Example:
        >>> import numpy as np
        >>> scaler = Standardizer().fit([np.array([[1.0], [3.0]])])
        >>> scaler.transform(np.array([[5.0]])).tolist(), scaler.inverse(np.array([[3.0]])).tolist()
        ([[3.0]], [[5.0]])
    """

    def __init__(self, mean: np.ndarray | None = None, scale: np.ndarray | None = None) -> None:
        self.mean = np.zeros(0) if mean is None else np.asarray(mean, dtype=np.float64)
        self.scale = np.ones_like(self.mean) if scale is None else np.asarray(scale, dtype=np.float64)

    def fit(
        self, arrays: Sequence[np.ndarray], observed: Sequence[np.ndarray] | None = None, names: Sequence[str] = ()
    ) -> Standardizer:
        """Statistics over all rows of all (T, C) arrays, of the measured values only where `observed` tells them.

        Raises:
            InputError: a column without a single measured training value.
        """
        rows = np.concatenate(list(arrays)).astype(np.float64)
        valid = np.ones(rows.shape, bool) if observed is None else np.concatenate(list(observed))
        counts = valid.sum(axis=0)
        if rows.shape[1] and not counts.all():
            place = int((counts == 0).argmax())
            name = f"'{names[place]}'" if names else str(place + 1)
            raise InputError(
                f"column {name} has no measured value in the training rows", cure="leave it out, or train on other rows"
            )
        safe = np.maximum(counts, 1)
        self.mean = np.where(valid, rows, 0.0).sum(axis=0) / safe
        spread = np.sqrt(np.where(valid, (rows - self.mean) ** 2, 0.0).sum(axis=0) / safe)
        # A spread that is only rounding noise of the mean would blow up whatever comes later.
        still = spread <= 1e-12 * np.maximum(np.abs(self.mean), 1e-300)
        self.scale = np.where(still, 1.0, spread)
        return self

    def transform(self, values: np.ndarray) -> np.ndarray:
        """(..., C) in units of the training spread, float64."""
        return (np.asarray(values, dtype=np.float64) - self.mean) / self.scale

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """(..., C) back in the units of the table, float64."""
        return np.asarray(values, dtype=np.float64) * self.scale + self.mean

    def state(self) -> dict[str, list[float]]:
        """Plain lists for a configuration file; `from_state` restores them exactly."""
        return {"mean": self.mean.tolist(), "scale": self.scale.tolist()}

    @classmethod
    def from_state(cls, state: Mapping[str, Sequence[float]]) -> Standardizer:
        """A scaler with stored statistics.

        Raises:
            InputError: lists that are missing, differ in length or hold no positive finite scales.
        """
        try:
            mean, scale = np.asarray(state["mean"], np.float64), np.asarray(state["scale"], np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                "the stored scaling is damaged", found=str(error), expected="lists mean and scale"
            ) from error
        if (
            mean.shape != scale.shape
            or mean.ndim != 1
            or not np.isfinite(mean).all()
            or not (np.isfinite(scale) & (scale > 0)).all()
        ):
            raise InputError("the stored scaling is damaged", expected="finite means and positive scales of one length")
        return cls(mean, scale)


class CovariateScaler(Standardizer):
    """The same for past and known columns; columns of only 0 and 1 are kept as they are."""

    def fit(
        self, arrays: Sequence[np.ndarray], observed: Sequence[np.ndarray] | None = None, names: Sequence[str] = ()
    ) -> CovariateScaler:
        """Statistics over all rows of all (T, P) arrays."""
        super().fit(arrays, observed, names)
        rows = np.concatenate(list(arrays))
        flags = ((rows == 0) | (rows == 1)).all(axis=0)
        self.mean, self.scale = np.where(flags, 0.0, self.mean), np.where(flags, 1.0, self.scale)
        return self


class StaticEncoder:
    """Numbers standardised over the series, words as one-hot vectors in which an unknown word is all zeros.

    Example:
        >>> encoder = StaticEncoder(("kind",)).fit([{"kind": "a"}, {"kind": "b"}])
        >>> encoder.encode({"kind": "b"}).tolist(), encoder.encode({"kind": "new"}).tolist()
        ([0.0, 1.0], [0.0, 0.0])
    """

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        self.names = names
        self.levels: dict[str, list[str]] = {}
        self.numbers: dict[str, tuple[float, float]] = {}

    def fit(self, rows: Sequence[Mapping[str, str | float]]) -> StaticEncoder:
        """Levels and statistics of each static column over the series."""
        for name in self.names:
            values = [row[name] for row in rows]
            if any(isinstance(value, str) for value in values):
                self.levels[name] = sorted({str(value) for value in values})
            else:
                column = np.asarray(values, dtype=np.float64)
                self.numbers[name] = (float(column.mean()), float(column.std()) or 1.0)
        return self

    @property
    def width(self) -> int:
        """Length of the vector of one series."""
        return sum(len(self.levels[name]) if name in self.levels else 1 for name in self.names)

    def encode(self, row: Mapping[str, str | float]) -> np.ndarray:
        """(width,) float32 vector of one series.

        Raises:
            InputError: a word where the training series had numbers.
        """
        parts: list[float] = []
        for name in self.names:
            value = row[name]
            if name in self.levels:
                parts += [float(str(value) == level) for level in self.levels[name]]
            elif isinstance(value, str):
                raise InputError(
                    f"the static column '{name}' holds text", found=repr(value), expected="a number, as in training"
                )
            else:
                mean, scale = self.numbers[name]
                parts.append((value - mean) / scale)
        return np.asarray(parts, dtype=np.float32)

    def unknown(self, row: Mapping[str, str | float]) -> list[str]:
        """Columns whose word was not among the training series."""
        return [name for name, levels in self.levels.items() if str(row[name]) not in levels]

    def state(self) -> dict[str, Any]:
        """Plain lists for a configuration file."""
        return {
            "names": list(self.names),
            "levels": dict(self.levels),
            "numbers": {k: list(v) for k, v in self.numbers.items()},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> StaticEncoder:
        """An encoder with stored levels and statistics."""
        encoder = cls(tuple(state["names"]))
        encoder.levels = {name: list(levels) for name, levels in state["levels"].items()}
        encoder.numbers = {name: (float(pair[0]), float(pair[1])) for name, pair in state["numbers"].items()}
        return encoder
