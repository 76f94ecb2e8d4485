"""When the words of a known text are heard: forced alignment of CTC frames, as many words as the text has."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.errors import InputError
from pipelines.transcribe.decoding.scoring import BLANK, FIRST_UNIT, check_frames
from pipelines.transcribe.decoding.word_edges import Loudness, Spikes, edges
from pipelines.transcribe.words import Word

__all__ = ["align", "frames_needed"]

_LEAST_LOGP = -1e4  # instead of minus infinity, with which the aligner's path would be arbitrary


def frames_needed(ids: Sequence[int]) -> int:
    """How many frames CTC needs for these ids: one each, and a blank between equal neighbours.

    Example:
        >>> frames_needed([5, 5, 6])
        4
    """
    return len(ids) + sum(left == right for left, right in itertools.pairwise(ids))


def align(
    logp: Tensor | NDArray[Any],
    ids: Sequence[int],
    units_text: Sequence[str],
    frame_seconds: float = 0.04,
    *,
    samples: NDArray[np.float32] | None = None,
    rate: int = 0,
    offset: float = 0.0,
    where: object = "",
) -> list[Word]:
    """The words of a text with their times, along the most probable path of the frames that reads the text.

    CTC answers with a spike a unit, somewhere inside its sound. Without the sound a word reaches from a little before
    its first spike to a little after its last one, at most to the middle of the gap to its neighbour. With the sound
    its edges lie where the sound rises from and falls back to the local noise; where words run into each other, at the
    quietest place between their spikes.

    Args:
        logp: (T, V) natural logarithms; frame t covers [t, t + 1) x frame_seconds.
        ids: of units, at least 2 each.
        units_text: what each of the ids adds to the text (`decoding.text.unit_texts`), as many as ids.
        frame_seconds: length of a frame.
        samples, rate: the sound of the frames, (n,) mono, and its sampling rate in Hz; may be left out.
        offset: seconds, added to all times.
        where: what the text is called in messages.

    Returns:
        One word for every word of the text (its parts between spaces), in order, not overlapping, none outside the
        recording. Confidence: geometric mean of the probabilities of its units along the path.

    Raises:
        InputError: fewer frames than the text needs (says how many), ids without text or out of range.

    Complexity: O(T L) time and memory for L ids, and O(n) for the sound.

    Source: Graves et al. 2006 (most probable path); the alignment is torchaudio's forced_align.

    Example:
        >>> path = np.full((6, 5), 0.05)
        >>> path[range(6), [0, 3, 0, 2, 4, 0]] = 0.8
        >>> [(word.text, word.confidence) for word in align(np.log(path), [3, 2, 4], ["a", " ", "b"])]
        [('a', 0.8), ('b', 0.8)]
    """
    frames = check_frames(logp)
    if samples is not None and rate <= 0:
        raise InputError("a sound needs its sampling rate", where=where, found=rate, expected="Hz, above 0")
    seconds = len(frames) * frame_seconds if samples is None else len(samples) / rate
    owners = _owners(units_text)
    _check(frames, ids, units_text, where)
    if not owners.words:
        return []
    path, value = _path(frames, ids)
    # The n-th run of non-blank frames with one id is the n-th unit; equal neighbours have a blank between them.
    unit = np.cumsum((path != BLANK) & (path != np.concatenate([[BLANK], path[:-1]]))) - 1
    spikes, confidence = [], []
    for members in owners.units:
        heard = np.flatnonzero(np.isin(unit, members) & (path != BLANK))
        confidence.append(float(np.exp(np.clip(value[heard], _LEAST_LOGP, 0.0).mean())))
        spikes.append(((heard[0] + 0.5) * frame_seconds, (heard[-1] + 0.5) * frame_seconds))
    loudness = None if samples is None else Loudness.of(samples, rate)
    places = edges(Spikes(_apart(np.array(spikes), frame_seconds), frame_seconds), seconds, loudness)
    return [
        Word(text, float(start) + offset, float(end) + offset, round(sure, 6))
        for text, (start, end), sure in zip(owners.words, places, confidence, strict=True)
    ]


@dataclasses.dataclass
class _Owned:
    """The words of a text, and of each the places of the units that it is made of."""

    words: list[str]
    units: list[list[int]]


def _owners(units_text: Sequence[str]) -> _Owned:
    """Cut the text at spaces. A unit without text (the first bytes of a letter) belongs to what follows it."""
    owned = _Owned([], [])
    inside, waiting = False, []
    for place, text in enumerate(units_text):
        waiting.append(place)
        for letter in text:
            if letter.isspace():
                inside = False
                continue
            if not inside:
                owned.words.append("")
                owned.units.append([])
            inside = True
            owned.words[-1] += letter
            owned.units[-1] = list(dict.fromkeys([*owned.units[-1], *waiting]))  # a unit of two letters counts once
        if text:
            waiting = []
    return owned


def _check(frames: NDArray[np.float64], ids: Sequence[int], units_text: Sequence[str], where: object) -> None:
    if len(ids) != len(units_text):
        raise InputError("each id needs its text", where=where, found=f"{len(ids)} ids, {len(units_text)} texts")
    wrong = sorted({unit for unit in ids if not FIRST_UNIT <= unit < frames.shape[1]})
    if wrong:
        expected = f"{FIRST_UNIT} to {frames.shape[1] - 1}"
        raise InputError("these ids are no units of the model", where=where, found=wrong, expected=expected)
    needed = frames_needed(ids)
    if needed > len(frames):
        raise InputError(
            "the sound is too short for the text",
            where=where,
            found=f"{len(frames)} frames",
            expected=f"{needed} frames or more for {len(ids)} units",
            cure="check that this text belongs to this sound",
        )


def _path(frames: NDArray[np.float64], ids: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(T,) ids along the most probable path that reads the text, and their log-probabilities."""
    from torchaudio.functional import forced_align

    clipped = torch.from_numpy(np.maximum(frames, _LEAST_LOGP)).float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its deprecation in some versions
        path, _ = forced_align(clipped[None], torch.tensor([list(ids)], dtype=torch.int64), blank=BLANK)
    found = path[0].numpy().astype(np.int64)
    return found, frames[np.arange(len(frames)), found]


def _apart(spikes: NDArray[np.float64], frame_seconds: float) -> NDArray[np.float64]:
    """(W, 2) spikes in strictly rising order: a unit that belongs to two words is shared by its time."""
    for left, right in itertools.pairwise(spikes):
        if right[0] <= left[1]:
            right[0] = left[1] + 0.1 * frame_seconds
            right[1] = max(right[1], right[0])
    return spikes
