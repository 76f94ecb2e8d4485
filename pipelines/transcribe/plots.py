"""Pictures of speech: spectrograms with the words at their times, running text by confidence, error rates by class."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.transcribe.mel_picture import log_mel, mel
from pipelines.transcribe.words import Word

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Stretch", "log_mel", "spectrogram_figure", "stretches_figure", "wer_figure", "words_figure"]

_ROW_SECONDS = 6.0  # a picture's row shows about so much
_RANGE = 60.0  # decibels between the darkest and the lightest tone
_LINES = 3  # lines that words over a picture are set in, where they stand close
_WIDTH = 10.5  # inches
_UNSURE, _DOUBTFUL = 0.8, 0.5  # confidences below which a word is marked
_TEXT_COLUMNS = 107  # characters of a line of running text
_SURE_INK, _DOUBT_INK, _UNSURE_INK = "#24292f", "#8a5a00", "#b42318"  # all dark enough to be read on white
_LETTER = 7.0  # characters of the words' type an inch holds, nearly


@dataclass(frozen=True)
class Stretch:
    """Sound to draw.

    Attributes:
        samples: (n,) float32.
        rate: samples a second.
        words: those that are heard in it, in seconds of the recording.
        start: where it begins in the recording, in seconds.
        title: above it.
    """

    samples: NDArray[np.float32]
    rate: int
    words: Sequence[Word] = ()
    start: float = 0.0
    title: str = ""


def spectrogram_figure(
    samples: NDArray[np.float32], rate: int, words: Sequence[Word] = (), *, start: float = 0.0, title: str = ""
) -> Figure:
    """Draw sound as log-mel energy over time, the words above it between their boundaries.

    Args:
        samples: (n,); more than a few seconds are set in rows, as text is in lines.
        rate: samples a second.
        words: in seconds of the recording.
        start: where the samples begin in the recording.
        title: above the picture.

    Example:
        >>> tone = np.sin(np.arange(8000) * 0.5).astype(np.float32)
        >>> len(spectrogram_figure(tone, 8000, [Word("a", 0.2, 0.8, 0.9)]).axes)
        1
    """
    return stretches_figure([Stretch(samples, rate, words, start, title)])


def stretches_figure(stretches: Sequence[Stretch]) -> Figure:
    """Draw several stretches of sound as :func:`spectrogram_figure` does one, one below the other.

    Example:
        >>> tone = np.sin(np.arange(8000) * 0.5).astype(np.float32)
        >>> len(stretches_figure([Stretch(tone, 8000), Stretch(tone, 8000)]).axes)
        2
    """
    from pipelines.evaluation.plots import _styled, new_figure

    rows = [row for stretch in stretches for row in _rows(stretch)]

    def draw() -> Figure:
        titled = sum(bool(row.title) for row in rows)
        figure = new_figure(_WIDTH, 1.75 * len(rows) + 0.3 * titled + 0.45)
        axes = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
        for place, (ax, row) in enumerate(zip(axes, rows, strict=True)):
            _draw_row(ax, row, last=place == len(rows) - 1)
        _legend(axes[-1], [word for stretch in stretches for word in stretch.words])
        return figure

    return _styled(draw)


@dataclass(frozen=True)
class _Row:
    stretch: Stretch
    picture: NDArray[np.float32]
    step: float
    begin: float
    end: float
    title: str


def _rows(stretch: Stretch) -> list[_Row]:
    """Rows of equal length, cut where no word stands if there is such a place nearby."""
    picture, step = log_mel(stretch.samples, stretch.rate)
    seconds = max(len(stretch.samples), 1) / stretch.rate
    count = max(round(seconds / _ROW_SECONDS), 1)
    width = seconds / count
    cuts = [0.0]
    for number in range(1, count):
        cuts.append(_free_place(number * width, 0.12 * width, stretch))
    cuts.append(seconds)
    longest = max(after - before for before, after in itertools.pairwise(cuts))
    rows = []
    for number, (before, after) in enumerate(itertools.pairwise(cuts)):
        first, last = round(before / step), max(round(after / step), round(before / step) + 1)
        title = stretch.title if number == 0 else ""
        begin = stretch.start + before
        rows.append(_Row(stretch, picture[:, first:last], step, begin, begin + longest, title))
    return rows


def _free_place(wanted: float, tolerance: float, stretch: Stretch) -> float:
    """The place nearest to the wanted one that lies between two words; the wanted one where there is none near."""
    ends = sorted((word.start - stretch.start, word.end - stretch.start) for word in stretch.words)
    gaps = [(a[1] + b[0]) / 2 for a, b in itertools.pairwise(ends)]
    near = [gap for gap in gaps if abs(gap - wanted) <= tolerance]
    return min(near, key=lambda gap: abs(gap - wanted)) if near else wanted


def _draw_row(ax: Axes, row: _Row, *, last: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    ends = row.begin + row.picture.shape[1] * row.step
    ax.imshow(
        row.picture,
        origin="lower",
        aspect="auto",
        interpolation="bilinear",
        cmap="magma",
        vmin=-_RANGE,
        vmax=0.0,
        extent=(row.begin, ends, 0, len(row.picture)),
    )
    ax.set_xlim(row.begin, max(row.end, row.begin + 0.1))
    ax.set_ylim(0, len(row.picture))
    top = float(mel(row.stretch.rate / 2))
    shown = [hertz for hertz in (250, 1000, 2000, 4000, 8000, 16000) if hertz < 0.8 * row.stretch.rate / 2]
    ax.set_yticks([mel(hertz) / top * len(row.picture) for hertz in shown], [_kilo(hertz) for hertz in shown])
    ticks = MaxNLocator(nbins=14, steps=[1, 2, 5, 10]).tick_values(row.begin, max(row.end, row.begin + 0.1))
    ax.set_xticks([tick for tick in ticks if row.begin - 1e-6 <= tick <= ends + 1e-6])
    ax.tick_params(length=3)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.set_ylabel("kHz")
    if last:
        ax.set_xlabel("seconds")
    words = [word for word in row.stretch.words if word.end > row.begin and word.start < ends]
    levels = _levels(words, row.end - row.begin)
    for level, word in zip(levels, words, strict=True):
        _draw_word(ax, word, row.begin, ends, level)
    if row.title:
        ax.set_title(row.title, pad=24.0 + 12.0 * max(levels) if words else 6.0)


def _kilo(hertz: int) -> str:
    return f"{hertz / 1000:g}"


def _levels(words: Sequence[Word], seconds: float) -> list[int]:
    """Which line each word is set in: the lowest that has room, else the one with the most."""
    per_letter = seconds / ((_WIDTH - 1.0) * _LETTER * 1.75)
    levels: list[int] = []
    taken = [float("-inf")] * _LINES
    for word in words:
        middle, half = (word.start + word.end) / 2, (len(word.text) + 1) * per_letter / 2
        free = [level for level in range(_LINES) if middle - half >= taken[level]]
        level = free[0] if free else taken.index(min(taken))
        taken[level] = max(taken[level], middle + half)
        levels.append(level)
    return levels


def _draw_word(ax: Axes, word: Word, begin: float, end: float, level: int) -> None:
    """The word over its stretch of sound: a bar from its beginning to its end, its boundaries as lines below."""
    from matplotlib.transforms import blended_transform_factory, offset_copy

    place = blended_transform_factory(ax.transData, ax.transAxes)
    left, right = max(word.start, begin), min(word.end, end)
    colour, style = _marking(word.confidence)
    bar = offset_copy(place, ax.get_figure(), y=4.0, units="points")
    ax.plot([left, right], [1.0, 1.0], transform=bar, color=colour, lw=2.6, ls=style, clip_on=False,
            solid_capstyle="butt")  # fmt: skip
    for edge in (left, right):
        ax.plot([edge, edge], [0.0, 1.0], transform=place, color="white", lw=0.7, alpha=0.55)
    text = offset_copy(place, ax.get_figure(), y=7.0 + 12.0 * level, units="points")
    ax.text((left + right) / 2, 1.0, word.text, transform=text, ha="center", va="bottom", fontsize=9.5, color=colour,
            clip_on=False)  # fmt: skip


def _marking(confidence: float) -> tuple[str, Any]:
    """Colour and line of a word: what the colour says is said by the line too."""
    if confidence >= _UNSURE:
        return _SURE_INK, "-"
    return (_DOUBT_INK, (0, (3, 1))) if confidence >= _DOUBTFUL else (_UNSURE_INK, (0, (1, 1)))


def _legend(ax: Axes, words: Sequence[Word]) -> None:
    """What the colours say, where there is more than one."""
    from matplotlib.lines import Line2D

    if all(word.confidence >= _UNSURE for word in words):
        return
    kinds = (
        (1.0, f"confidence {_UNSURE:g} and more"),
        (_DOUBTFUL, f"{_DOUBTFUL:g} to {_UNSURE:g}"),
        (0.0, f"below {_DOUBTFUL:g}"),
    )
    handles = []
    for confidence, label in kinds:
        colour, style = _marking(confidence)
        handles.append(Line2D([], [], color=colour, ls=style, lw=2.6, label=label))
    ax.figure.legend(handles=handles, loc="outside lower right", ncols=3, fontsize=9)


def words_figure(words: Sequence[Word]) -> Figure:
    """Set words as running text: dark where the model was sure, coloured and underlined where it was not.

    Example:
        >>> len(words_figure([Word("good", 0.1, 0.3, 0.9), Word("bye", 0.3, 0.7, 0.4)]).axes)
        1
    """
    from pipelines.evaluation.plots import _styled, new_figure

    lines: list[list[tuple[int, Word]]] = [[]]
    at = 0
    for word in words:
        if at and at + len(word.text) > _TEXT_COLUMNS:
            lines.append([])
            at = 0
        lines[-1].append((at, word))
        at += len(word.text) + 1

    def draw() -> Figure:
        figure = new_figure(_WIDTH, 0.27 * len(lines) + 0.5)
        ax = figure.subplots()
        ax.set_axis_off()
        ax.set_xlim(0, _TEXT_COLUMNS)
        ax.set_ylim(len(lines), 0)
        for number, line in enumerate(lines):
            for column, word in line:
                colour, style = _marking(word.confidence)
                ax.text(column, number + 0.7, word.text, color=colour, family="monospace", fontsize=11.5)
                if word.confidence < _UNSURE:
                    ax.plot([column, column + len(word.text)], [number + 0.84] * 2, color=colour, ls=style, lw=1.6)
        _legend(ax, words)
        return figure

    return _styled(draw)


def wer_figure(
    by_class: Mapping[str, float],
    *,
    intervals: Mapping[str, tuple[float, float]] | None = None,
    counts: Mapping[str, int] | None = None,
    metric: str = "WER",
    what: str = "words of an utterance",
    title: str = "",
) -> Figure:
    """Draw an error rate by class as bars, with the range of each where it is known.

    Args:
        by_class: class -> rate as a share; 1 is 100 %, and more than 1 is possible.
        intervals: class -> (low, high).
        counts: class -> utterances, shown below its name.
        metric: name of the rate.
        what: what the classes are, for the axis.
        title: above the picture.

    Raises:
        InputError: no class.

    Example:
        >>> len(wer_figure({"1-2": 0.2, "3-5": 0.1}, counts={"1-2": 30, "3-5": 12}).axes[0].patches)
        2
    """
    from pipelines.errors import InputError
    from pipelines.evaluation.plots import BLUE, INK, _styled, new_figure

    if not by_class:
        raise InputError("nothing to draw", expected="at least one class")

    def draw() -> Figure:
        figure = new_figure(max(5.2, 1.6 + 1.1 * len(by_class)), 4.0)
        ax = figure.subplots()
        rates = 100.0 * np.array(list(by_class.values()), float)
        places = np.arange(len(rates))
        ax.bar(places, rates, width=0.62, color=BLUE, zorder=2)
        tops = rates.copy()
        for place, name in enumerate(by_class):
            if intervals is not None and name in intervals:
                low, high = (100.0 * value for value in intervals[name])
                ax.vlines(place, low, high, color=INK, lw=1.6, zorder=3)
                ax.hlines([low, high], place - 0.07, place + 0.07, color=INK, lw=1.6, zorder=3)
                tops[place] = max(tops[place], high)
            ax.annotate(f"{rates[place]:.1f}", (place, tops[place]), (0, 4), textcoords="offset points", ha="center")
        names = [f"{name}\n{counts[name]:,}" if counts and name in counts else name for name in by_class]
        ax.set_xticks(places, names)
        ax.tick_params(axis="x", length=0)
        ax.grid(axis="x", visible=False)
        ax.set_ylim(0, max(1.15 * float(tops.max(initial=0.0)), 1.0))
        ax.set_xlim(-0.6, len(rates) - 0.4)
        ax.set_ylabel(f"{metric} (%)")
        ax.set_xlabel(f"{what}; below it how many utterances" if counts else what)
        if title:
            ax.set_title(title)
        return figure

    return _styled(draw)
