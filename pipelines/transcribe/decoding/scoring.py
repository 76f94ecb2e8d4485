"""What decoders agree on: the text decoder's three calls, and what a decoded text is.

One vocabulary serves both heads: id 0 is the blank (CTC alone uses it), id 1 begins and ends a text (the text decoder
alone uses it), ids from 2 are units. Shapes: T frames, V ids, K hypotheses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipelines.errors import InputError

__all__ = ["BLANK", "BOUNDARY", "FIRST_UNIT", "Hypothesis", "TextScorer", "check_frames", "ranked"]

BLANK, BOUNDARY, FIRST_UNIT = 0, 1, 2


class TextScorer(Protocol):
    """An autoregressive text decoder that carries a state from token to token; a token costs O(1)."""

    def begin(self, rows: int = 1) -> Any:
        """Return the state before the first token, for `rows` equal hypotheses."""
        ...

    def score(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Read the last token of each hypothesis; give log-probabilities of the next ones and the new state.

        Args:
            tokens: (K,) int64; 1 at the beginning.
            state: of K hypotheses.

        Returns:
            (K, V) natural logarithms, in which id 1 is the end of the text; and the state after the tokens.
        """
        ...

    def pick(self, state: Any, rows: Tensor) -> Any:
        """Return the states of the hypotheses with these row numbers (K',) int64; a row may come more than once."""
        ...


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """A decoded text by its ids.

    Attributes:
        ids: of units, without blank and boundary.
        score: what it was ranked by, natural logarithm; 0 is certainty where no bonus is given.
        frames: the frame of each unit, where the decoder knows it (greedy CTC).
        complete: False where the limit on the length ended it and not the decoder.
        parts: what the score is made of, unweighted: "ctc", "decoder", "lm" as far as they took part.

    Example:
        >>> Hypothesis((5, 3), -1.5).complete
        True
    """

    ids: tuple[int, ...]
    score: float
    frames: tuple[int, ...] = ()
    complete: bool = True
    parts: Mapping[str, float] = dataclasses.field(default_factory=dict)


def check_frames(logp: Tensor | NDArray[Any]) -> NDArray[np.float64]:
    """Log-probabilities of frames as float64, after a check.

    Args:
        logp: (T, V) natural logarithms, V at least 2; minus infinity is allowed.

    Raises:
        InputError: another shape, NaN, or values above 0.01, which are no logarithms of probabilities.

    Complexity: O(T V).

    Example:
        >>> import torch
        >>> check_frames(torch.zeros(4, 3).log_softmax(-1)).shape
        (4, 3)
    """
    frames = np.array(logp if isinstance(logp, np.ndarray) else logp.detach().double().cpu(), np.float64)
    if frames.ndim != 2 or frames.shape[1] < FIRST_UNIT:
        raise InputError(
            "these are no log-probabilities of frames", found=f"shape {frames.shape}", expected="(frames, ids)"
        )
    if np.isnan(frames).any():
        raise InputError("log-probabilities of frames are not numbers", found=f"{int(np.isnan(frames).sum())} NaN")
    if frames.size and frames.max() > 0.01:
        raise InputError(
            "log-probabilities of frames lie above 0",
            found=f"{frames.max():.4g}",
            expected="natural logarithms of probabilities",
            cure="pass the scores through log_softmax",
        )
    return frames


def ranked(hypotheses: list[Hypothesis], most: int) -> list[Hypothesis]:
    """The best hypotheses first; equal scores in the order of their ids, so that every run gives the same list.

    Example:
        >>> [h.ids for h in ranked([Hypothesis((2,), -3.0), Hypothesis((3,), -1.0), Hypothesis((), -2.0)], 2)]
        [(3,), ()]
    """
    return sorted(hypotheses, key=lambda hypothesis: (-hypothesis.score, hypothesis.ids))[:most]
