"""Texts from the autoregressive decoder: greedy, and beam search joined with CTC and a language model.

Shapes: T frames, V ids, K hypotheses of the beam, C candidate units of each.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.errors import ConfigError, InputError
from pipelines.transcribe.decoding.fusion import Fusion, FusionState
from pipelines.transcribe.decoding.ngram import NGram
from pipelines.transcribe.decoding.prefix_score import PrefixScorer, PrefixState
from pipelines.transcribe.decoding.scoring import (
    BLANK,
    BOUNDARY,
    FIRST_UNIT,
    Hypothesis,
    TextScorer,
    check_frames,
    ranked,
)
from pipelines.transcribe.decoding.text import UnitSet

__all__ = ["attention_greedy", "joint_beam"]

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
# Nats: an unfinished text so far behind the best finished one is not worth another step.
_FAR = 10.0


def attention_greedy(scorer: TextScorer, longest: int, device: torch.device | str = "cpu") -> Hypothesis:
    """The most probable unit after each other, until the end of the text is the most probable.

    Args:
        scorer: the text decoder, with a sound in its state.
        longest: most units; a text that is longer is cut and marked.
        device: where the decoder wants its tokens.

    Returns:
        The score is the decoder's log-probability, of the end too where it came.

    Raises:
        InputError: log-probabilities that are not numbers.

    Complexity: one call of the decoder a unit.

    Example:
        >>> class Table:  # a bigram table: after the beginning comes 2, then the end
        ...     rows = torch.tensor([[0.0, 1, 0, 0], [0, 0.1, 0.8, 0.1], [0, 0.9, 0.1, 0], [0, 0.5, 0.5, 0]]).log()
        ...     def begin(self, rows=1):
        ...         return None
        ...     def score(self, tokens, state):
        ...         return self.rows[tokens], state
        ...     def pick(self, state, rows):
        ...         return state
        >>> attention_greedy(Table(), 9).ids, attention_greedy(Table(), 0).complete
        ((2,), False)
    """
    ids: list[int] = []
    score = 0.0
    state = scorer.begin(1)
    while True:
        row, state = _ask(scorer, [ids[-1] if ids else BOUNDARY], state, device)
        best = int(row[0].argmax())
        if best == BOUNDARY or len(ids) >= longest:
            score += float(row[0, BOUNDARY]) if best == BOUNDARY else 0.0
            return Hypothesis(tuple(ids), score, complete=best == BOUNDARY, parts={"decoder": score})
        ids.append(best)
        score += float(row[0, best])


def joint_beam(
    scorer: TextScorer,
    logp: Tensor | NDArray[Any] | None,
    *,
    beam: int = 10,
    ctc_weight: float = 0.3,
    lm: NGram | Fusion | None = None,
    lm_weight: float = 0.5,
    longest: int | None = None,
    length_bonus: float = 0.0,
    units: UnitSet | None = None,
    device: torch.device | str = "cpu",
) -> list[Hypothesis]:
    """The best texts by decoder, CTC and language model together, grown unit by unit, best first.

    A text counts (1 - w) log p_decoder + w log p_CTC + lm_weight log p_LM + length_bonus x units, w being `ctc_weight`.
    CTC judges unfinished texts by the exact probability that the frames begin with them. Each text is tried with its
    1.5 x beam most probable units by the decoder (with w = 1: all units) and with its end. The search ends when no
    unfinished text can still be among the results, or all lie 10 nats behind the best finished one, or at `longest`
    units. A text that got its end there although another unit would have been better is marked as not complete.

    Args:
        scorer: the text decoder, with a sound in its state.
        logp: (T, V) natural logarithms of the CTC head; None is possible with a `ctc_weight` of 0.
        beam: unfinished texts kept, and texts returned at most.
        ctc_weight: 0 to 1.
        lm: a language model of characters or words; needs `units`, unless it is a `Fusion` made for many sounds.
        lm_weight: of its log-probability.
        longest: most units of a text; the number of frames by itself.
        length_bonus: added a unit, nats.
        units: what the ids mean.
        device: where the decoder wants its tokens.

    Raises:
        ConfigError: a beam below 1, a weight outside 0 to 1, a language model without units, neither frames nor
            `longest`.
        InputError: see `check_frames`; log-probabilities of the decoder that are not numbers.

    Complexity: a unit costs one call of the decoder with K rows and O(T K C) for CTC.

    Source: Watanabe et al. 2017, sections II-D and IV; algorithm 2.

    Example:
        >>> class Even:  # finds everything equally probable
        ...     def begin(self, rows=1):
        ...         return None
        ...     def score(self, tokens, state):
        ...         return torch.full((len(tokens), 4), 0.25).log(), state
        ...     def pick(self, state, rows):
        ...         return state
        >>> frames = torch.tensor([[0.1, 0, 0.8, 0.1], [0.1, 0, 0.1, 0.8]]).log()
        >>> joint_beam(Even(), frames, ctc_weight=0.9)[0].ids
        (2, 3)
    """
    if beam < 1:
        raise ConfigError("a beam keeps one text or more", where="beam", found=beam)
    if not 0 <= ctc_weight <= 1:
        raise ConfigError("a weight lies outside 0 to 1", where="ctc_weight", found=ctc_weight)
    if logp is None and (ctc_weight > 0 or longest is None):
        raise ConfigError("beam search needs the frames of the CTC head", where="logp", expected="(T, V)")
    frames = None if logp is None else check_frames(logp)
    ctc = PrefixScorer(frames) if frames is not None and ctc_weight > 0 else None
    most = longest if longest is not None else len(frames if frames is not None else ())
    fusion = None if lm is None else Fusion.of(lm, units)
    search = _Search(scorer, ctc, fusion, beam, (1 - ctc_weight, ctc_weight, lm_weight, length_bonus), device)
    while search.step(at_limit=search.length >= most):
        pass
    return ranked(search.ended, beam)


def _ask(scorer: TextScorer, tokens: list[int], state: Any, device: torch.device | str) -> tuple[Floats, Any]:
    """(K, V) the decoder's log-probabilities, the blank made impossible; and its new state."""
    with torch.inference_mode():
        row, state = scorer.score(torch.tensor(tokens, dtype=torch.int64, device=device), state)
    table = row.double().cpu().numpy().copy()
    if np.isnan(table).any():
        raise InputError("log-probabilities of the text decoder are not numbers", found=f"{np.isnan(table).sum()} NaN")
    table[:, BLANK] = -np.inf
    return table, state


class _Search:
    """The unfinished texts, row by row in every table, and the finished ones."""

    def __init__(
        self,
        scorer: TextScorer,
        ctc: PrefixScorer | None,
        fusion: Fusion | None,
        beam: int,
        weights: tuple[float, float, float, float],
        device: torch.device | str,
    ) -> None:
        self.scorer, self.ctc, self.fusion, self.beam, self.device = scorer, ctc, fusion, beam, device
        self.of_decoder, self.of_ctc, self.of_lm, self.bonus = weights
        self.ended: list[Hypothesis] = []
        self.length = 0
        self.texts: list[tuple[int, ...]] = [()]
        self.decoder, self.lm = np.zeros(1), np.zeros(1)  # log-probabilities of the texts so far
        self.state = scorer.begin(1)
        self.ctc_state: PrefixState | None = ctc.start() if ctc else None
        self.lm_states: list[FusionState] = [fusion.start()] if fusion else []

    def step(self, *, at_limit: bool) -> bool:
        """End every text and make it longer by a unit; False when the search is over."""
        row, state = _ask(self.scorer, [text[-1] if text else BOUNDARY for text in self.texts], self.state, self.device)
        units = self._candidates(row)
        decoder = self.decoder[:, None] + np.take_along_axis(row, units, 1)
        lm = self._lm(units)
        score = self._weigh(decoder, self._prefixes(units), lm, self.length + 1)
        best_of_row = score.max(1, initial=-np.inf)
        self._end(row[:, BOUNDARY], best_of_row, at_limit)
        if at_limit:
            return False
        rows, columns = np.unravel_index(np.argsort(-score, axis=None, kind="stable")[: self.beam], score.shape)
        possible = score[rows, columns] > -np.inf
        rows, columns = rows[possible], columns[possible]
        if self._is_over(score[rows, columns]):
            return False
        self._grow(rows, units[rows, columns], decoder[rows, columns], lm[rows, columns], state)
        return True

    def _candidates(self, row: Floats) -> Ids:
        """(K, C) the units to try after each text."""
        count = row.shape[1] - FIRST_UNIT
        most = math.ceil(1.5 * self.beam)
        if self.of_decoder == 0 or most >= count:
            return np.tile(np.arange(FIRST_UNIT, row.shape[1]), (len(row), 1))
        return FIRST_UNIT + np.argpartition(-row[:, FIRST_UNIT:], most - 1, axis=1)[:, :most]

    def _prefixes(self, units: Ids) -> Floats:
        if self.ctc is None or self.ctc_state is None:
            return np.zeros(units.shape)
        return self.ctc.prefixes(self.ctc_state, units)

    def _lm(self, units: Ids) -> Floats:
        """(K, C) the language model's log-probability of the longer texts."""
        if self.fusion is None:
            return np.zeros(units.shape)
        gains = [self.fusion.scores(state, row) for state, row in zip(self.lm_states, units, strict=True)]
        return self.lm[:, None] + np.stack(gains)

    def _weigh(self, decoder: Floats, ctc: Floats, lm: Floats, length: int) -> Floats:
        # A weight of 0 silences a part even where it is minus infinity.
        total = np.full(decoder.shape, float(self.bonus * length))
        for weight, part in ((self.of_decoder, decoder), (self.of_ctc, ctc), (self.of_lm, lm)):
            if weight:
                total += weight * part
        return total

    def _end(self, end: Floats, best_of_row: Floats, at_limit: bool) -> None:
        """Finish every text; those of probability 0 are no texts."""
        decoder = self.decoder + end
        ctc = self.ctc.whole(self.ctc_state) if self.ctc and self.ctc_state else np.zeros(len(end))
        lm = np.zeros(len(end))
        if self.fusion is not None:
            lm = self.lm + np.array([self.fusion.end(state) for state in self.lm_states])
        score = self._weigh(decoder, ctc, lm, self.length)
        for i in np.flatnonzero(score > -np.inf):
            parts = {"decoder": float(decoder[i])}
            parts.update({"ctc": float(ctc[i])} if self.ctc else {}, **({"lm": float(lm[i])} if self.fusion else {}))
            complete = not at_limit or bool(score[i] >= best_of_row[i])
            self.ended.append(Hypothesis(self.texts[i], float(score[i]), complete=complete, parts=parts))
        self.ended = ranked(self.ended, self.beam)

    def _is_over(self, score: Floats) -> bool:
        """Whether the unfinished texts, best first, can be let go."""
        if not len(score):
            return True
        far = bool(self.ended) and bool(score[0] < self.ended[0].score - _FAR)
        # Without a bonus a score only falls as the text grows.
        beaten = self.bonus <= 0 and len(self.ended) == self.beam and bool(score[0] <= self.ended[-1].score)
        return far or beaten

    def _grow(self, rows: Ids, units: Ids, decoder: Floats, lm: Floats, state: Any) -> None:
        self.texts = [(*self.texts[row], unit) for row, unit in zip(rows.tolist(), units.tolist(), strict=True)]
        self.decoder, self.lm = decoder, lm
        self.state = self.scorer.pick(state, torch.as_tensor(rows, dtype=torch.int64, device=self.device))
        if self.ctc and self.ctc_state:
            self.ctc_state = self.ctc.extend(self.ctc_state, rows, units)
        if self.fusion is not None:
            pairs = zip(rows.tolist(), units.tolist(), strict=True)
            self.lm_states = [self.fusion.advance(self.lm_states[row], unit) for row, unit in pairs]
        self.length += 1
