"""Classification step by step: one row of values in, probabilities of the classes out, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import ConfigError, InputError

if TYPE_CHECKING:
    from pipelines.classify.engine import Fitted

__all__ = ["Stream"]


class Stream:
    """The answers of a fitted causal LMUFormer after each step of a series that is still arriving.

    The answer after the last step is that of the whole series at once (to 1e-5); memory does not grow.

    Args:
        fitted: a fitted lmuformer with ``arch.causal``.

    Raises:
        ConfigError: another model, which needs the whole series.
    """

    def __init__(self, fitted: Fitted) -> None:
        inner: Any = getattr(fitted.module, "inner", None)
        if fitted.name != "lmuformer" or not getattr(inner, "causal", False):
            raise ConfigError(
                f"{fitted.name} needs the whole series",
                where="stream",
                expected="lmuformer with arch.causal",
                cure="fit with --model lmuformer",
            )
        self._fitted, self._inner = fitted, inner
        self._flags = bool(fitted.sizes["flags"])
        self.steps = 0
        self._state: Any = None

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
        logits, self._state = self._inner.step(torch.from_numpy(inputs)[None], self._state)
        self.steps += 1
        scores = logits[0].double().numpy() / self._fitted.temperature
        weights = np.exp(scores - scores.max())
        return weights / weights.sum()

    def run(self, rows: Iterable[Sequence[float]]) -> Iterator[tuple[str, NDArray[np.float64]]]:
        """The label and probabilities after each row of an iterable."""
        for row in rows:
            shares = self.push(row)
            yield self._fitted.classes[int(shares.argmax())], shares
