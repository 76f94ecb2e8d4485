"""Texts from the frames of a CTC head: the best path, and prefix beam search with a language model.

Shapes: T frames, V ids, K prefixes in the beam, C candidate units of a frame. Id 1 belongs to the text decoder: what
the head gives it is never used.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipelines.errors import ConfigError
from pipelines.transcribe.decoding.fusion import Fusion, FusionState
from pipelines.transcribe.decoding.ngram import NGram
from pipelines.transcribe.decoding.scoring import BLANK, BOUNDARY, FIRST_UNIT, Hypothesis, check_frames, ranked
from pipelines.transcribe.decoding.text import UnitSet

__all__ = ["greedy", "prefix_beam"]

Floats = NDArray[np.float64]


def greedy(logp: Tensor | NDArray[Any]) -> Hypothesis:
    """The ids along the most probable path: repeats merged, blanks removed.

    Args:
        logp: (T, V) natural logarithms.

    Returns:
        The score is that of the path; `frames` gives each unit's most probable frame.

    Raises:
        InputError: see `check_frames`.

    Complexity: O(T V).

    Source: Graves et al. 2006, best path decoding.

    Example:
        >>> path = np.full((5, 4), 0.1)
        >>> path[range(5), [2, 2, 0, 2, 3]] = 0.7
        >>> hypothesis = greedy(np.log(path))
        >>> hypothesis.ids, hypothesis.frames
        ((2, 2, 3), (0, 3, 4))
    """
    frames = check_frames(logp).copy()
    frames[:, BOUNDARY] = -np.inf
    best = frames.argmax(1)
    value = frames[np.arange(len(frames)), best]
    edges = np.flatnonzero(np.diff(best, prepend=-1, append=-1)).tolist()
    runs = [(int(best[low]), low, high) for low, high in itertools.pairwise(edges)]
    spikes = [(unit, low + int(value[low:high].argmax())) for unit, low, high in runs if unit != BLANK]
    score = float(value.sum())
    return Hypothesis(tuple(u for u, _ in spikes), score, tuple(f for _, f in spikes), parts={"ctc": score})


def prefix_beam(
    logp: Tensor | NDArray[Any],
    *,
    beam: int = 10,
    lm: NGram | Fusion | None = None,
    lm_weight: float = 0.5,
    length_bonus: float = 0.0,
    units: UnitSet | None = None,
    least: float = 1e-4,
) -> list[Hypothesis]:
    """The most probable texts, each summed over all its paths, best first.

    With a wide enough beam and `least` 0 the sums are exact. A model of words is applied as `Fusion` says.

    Args:
        logp: (T, V) natural logarithms.
        beam: prefixes kept a frame, and texts returned at most.
        lm: a language model of characters or words; needs `units`, unless it is a `Fusion` made for many sounds.
        lm_weight: of its log-probability.
        length_bonus: added a unit, nats; makes up for a model that prefers short texts.
        units: what the ids mean.
        least: a unit less probable than this at a frame is not tried there.

    Raises:
        ConfigError: a beam below 1, or a language model without units.
        InputError: see `check_frames`.

    Complexity: O(T K C) beside the sorting; O(T K) memory at most.

    Source: Graves 2012 (chapter 7); Hannun et al. 2014, algorithm 1.

    Example:
        >>> frames = np.log(np.array([[0.6, 1e-9, 0.4], [0.6, 1e-9, 0.4]]))
        >>> greedy(frames).ids, prefix_beam(frames)[0].ids  # 0.36 for nothing, 0.64 for one unit
        ((), (2,))
    """
    if beam < 1:
        raise ConfigError("a beam keeps one text or more", where="beam", found=beam)
    frames = check_frames(logp)
    search = _Search(beam, None if lm is None else Fusion.of(lm, units), lm_weight, length_bonus)
    bar = np.log(least) if least > 0 else -np.inf
    for row in frames:
        tried = FIRST_UNIT + np.flatnonzero((row[FIRST_UNIT:] >= bar) & (row[FIRST_UNIT:] > -np.inf))
        search.step(row, tried)
    return search.result()


class _Search:
    """The prefixes of the beam: a tree of all that were kept once, and what is known of those kept now."""

    def __init__(self, beam: int, fusion: Fusion | None, weight: float, bonus: float) -> None:
        self.beam, self.fusion, self.weight, self.bonus = beam, fusion, weight, bonus
        self.parents, self.last, self.depth = [-1], [-1], [0]  # of the tree's nodes; node 0 is the empty prefix
        self.children: dict[tuple[int, int], int] = {}
        self.model: list[tuple[float, FusionState | None]] = [(0.0, fusion.start() if fusion else None)]
        self.nodes = np.zeros(1, np.int64)
        self.blank, self.unit = np.zeros(1), np.full(1, -np.inf)  # log-probability of paths by how they end

    def step(self, row: Floats, tried: NDArray[np.int64]) -> None:
        """Read one frame: (V,) log-probabilities, (C,) units worth trying."""
        both = np.logaddexp(self.blank, self.unit)
        last = np.array([self.last[node] for node in self.nodes])
        stay_blank = both + row[BLANK]
        stay_unit = self.unit + np.where(last < 0, -np.inf, row[last])
        # A unit that repeats the last one starts anew only after a blank.
        longer = np.where(tried[None] == last[:, None], self.blank[:, None], both[:, None]) + row[tried][None]
        self._merge(stay_unit, longer, tried, len(row))
        stay_rank = np.logaddexp(stay_blank, stay_unit) + self._worth()
        longer_rank = longer + self._worth_longer(tried)
        rank = np.concatenate([stay_rank, longer_rank.ravel()])
        self._keep(_top(rank, self.beam), tried, stay_blank, stay_unit, longer)

    def _merge(self, stay_unit: Floats, longer: Floats, tried: NDArray[np.int64], size: int) -> None:
        """A prefix of the beam reached from its parent in the beam is one text: the paths are added, in place."""
        column = np.full(size, -1)
        column[tried] = np.arange(len(tried))
        place = {int(node): i for i, node in enumerate(self.nodes)}
        for j, node in enumerate(self.nodes):
            i, c = place.get(self.parents[node], -1), column[self.last[node]]
            if i >= 0 and c >= 0:
                stay_unit[j] = np.logaddexp(stay_unit[j], longer[i, c])
                longer[i, c] = -np.inf

    def _worth(self) -> Floats:
        """(K,) what language model and bonus say of the prefixes."""
        return np.array([self.weight * self.model[node][0] + self.bonus * self.depth[node] for node in self.nodes])

    def _worth_longer(self, tried: NDArray[np.int64]) -> Floats:
        """(K, C) the same of the prefixes made longer."""
        worth = np.repeat(self._worth()[:, None] + self.bonus, len(tried), 1)
        if self.fusion is not None:
            for i, node in enumerate(self.nodes):
                state = self.model[node][1]
                if state is not None:
                    worth[i] += self.weight * self.fusion.scores(state, tried)
        return worth

    def _keep(
        self, chosen: NDArray[np.int64], tried: NDArray[np.int64], stay_blank: Floats, stay_unit: Floats, longer: Floats
    ) -> None:
        count = len(self.nodes)
        nodes, blank, unit = [], [], []
        for item in chosen.tolist():
            if item < count:
                nodes.append(self.nodes[item])
                blank.append(stay_blank[item])
                unit.append(stay_unit[item])
            else:
                i, c = divmod(item - count, len(tried))
                nodes.append(self._child(int(self.nodes[i]), int(tried[c])))
                blank.append(-np.inf)
                unit.append(longer[i, c])
        self.nodes, self.blank, self.unit = np.array(nodes, np.int64), np.array(blank), np.array(unit)

    def _child(self, node: int, unit: int) -> int:
        child = self.children.get((node, unit))
        if child is None:
            child = self.children[node, unit] = len(self.parents)
            self.parents.append(node)
            self.last.append(unit)
            self.depth.append(self.depth[node] + 1)
            score, state = self.model[node]
            if self.fusion is not None and state is not None:
                score += float(self.fusion.scores(state, np.array([unit]))[0])
                state = self.fusion.advance(state, unit)
            self.model.append((score, state))
        return child

    def result(self) -> list[Hypothesis]:
        """The texts of the beam, scored as whole texts."""
        found = []
        for node, ctc in zip(self.nodes.tolist(), np.logaddexp(self.blank, self.unit).tolist(), strict=True):
            parts, score = {"ctc": ctc}, ctc + self.bonus * self.depth[node]
            model, state = self.model[node]
            if self.fusion is not None and state is not None:
                parts["lm"] = model + self.fusion.end(state)
                score += self.weight * parts["lm"]
            found.append(Hypothesis(self._ids(node), score, parts=parts))
        return ranked(found, self.beam)

    def _ids(self, node: int) -> tuple[int, ...]:
        ids = []
        while node > 0:
            ids.append(self.last[node])
            node = self.parents[node]
        return tuple(reversed(ids))


def _top(rank: Floats, most: int) -> NDArray[np.int64]:
    """The places of the largest values that are possible at all, at most `most`, largest first; ties by place.

    Where nothing is possible (frames of zero probability) the first place stays, so that there is always an answer.
    """
    if len(rank) > 4 * most:
        bar = np.partition(rank, len(rank) - most)[len(rank) - most]
        places = np.flatnonzero(rank >= bar)
    else:
        places = np.arange(len(rank))
    places = places[np.argsort(-rank[places], kind="stable")][:most]
    possible = places[rank[places] > -np.inf]
    return possible if len(possible) else places[:1]
