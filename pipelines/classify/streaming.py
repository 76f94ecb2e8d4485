"""Classification step by step: one row of values in, probabilities of the classes out, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from pipelines.classify.options import SeriesColumns
from pipelines.errors import ConfigError, InputError

if TYPE_CHECKING:
    from pipelines.classify.engine import Fitted

__all__ = ["Stream"]

Whole = Iterator[tuple[str, NDArray[np.float32]]]


class Stream:
    """The answers of a fitted causal LMUFormer after each step of a series that is still arriving.

    The answer after the last step is that of the whole series at once (to 1e-5); memory does not grow.

    Args:
        fitted: a fitted lmuformer with ``arch.causal``.
        columns: which column plays which part, where whole sets of series or lines with names are read.

    Raises:
        ConfigError: another model, which needs the whole series.
    """

    def __init__(self, fitted: Fitted, columns: SeriesColumns = SeriesColumns()) -> None:  # noqa: B008 - frozen
        inner: Any = getattr(fitted.module, "inner", None)
        if fitted.name != "lmuformer" or not getattr(inner, "causal", False):
            raise ConfigError(
                f"{fitted.name} needs the whole series",
                where="stream",
                expected="lmuformer with arch.causal",
                cure="fit with --model lmuformer",
            )
        self._fitted, self._inner, self._columns = fitted, inner, columns
        self._flags = bool(fitted.sizes["flags"])
        self._like: torch.Tensor = next(inner.parameters())
        self.steps = 0
        self._state: Any = None

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the V values of a step, in their order."""
        return self._fitted.variables

    @property
    def id_column(self) -> str | None:
        """The column that names the series, where the user said which."""
        return self._columns.id

    def reset(self) -> None:
        """Begin a new series."""
        self.steps, self._state = 0, None

    @torch.no_grad()
    def push(self, values: ArrayLike) -> NDArray[np.float64]:
        """Take the next step's values (V,), NaN where nothing was measured; returns probabilities (C,). O(1).

        Raises:
            InputError: another number of values, or infinite ones.
        """
        row = np.asarray(values, np.float32).reshape(-1)
        if len(row) != len(self._fitted.variables) or np.isinf(row).any():
            raise InputError(
                "a step does not fit the model",
                where=f"step {self.steps + 1}",
                found=row.tolist()[:12],
                expected=f"{len(self._fitted.variables)} finite numbers ({', '.join(self._fitted.variables[:6])})",
            )
        scaled = self._fitted.scaler.apply(row[:, None])[:, 0]
        inputs = np.nan_to_num(scaled)
        if self._flags:
            inputs = np.concatenate([inputs, (~np.isnan(scaled)).astype(np.float32)])
        logits, self._state = self._inner.step(torch.from_numpy(inputs)[None].to(self._like), self._state)
        self.steps += 1
        scores = logits[0].double().cpu().numpy() / self._fitted.temperature
        weights = np.exp(scores - scores.max())
        return weights / weights.sum()

    def answer(self, values: ArrayLike) -> dict[str, Any]:
        """The answer after the next step's values (V,), JSON-ready: label, its probability, and all probabilities."""
        shares = self.push(values)
        best = int(shares.argmax())
        return {
            "label": self._fitted.classes[best],
            "probability": float(shares[best]),
            "probabilities": {name: float(share) for name, share in zip(self._fitted.classes, shares, strict=True)},
        }

    def run(self, rows: Iterable[Sequence[float]]) -> Iterator[tuple[str, NDArray[np.float64]]]:
        """The label and probabilities after each row of an iterable."""
        for row in rows:
            shares = self.push(row)
            yield self._fitted.classes[int(shares.argmax())], shares

    def whole_series(self, source: str) -> tuple[tuple[str, ...], Whole]:
        """What was noticed in reading, and (id, rows (T, V)) of each series of a labelled set, as for `predict`.

        Raises:
            InputError: a set that cannot be read, or of other variables than the model's.
        """
        from pipelines.classify.engine import test_part
        from pipelines.classify.reading import read

        data = test_part(read(source, self._columns))
        self._fitted.check_variables(data)
        return data.notes, ((name, one.T) for name, one in zip(data.ids, data.series, strict=True))
