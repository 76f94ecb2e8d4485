"""Frames as pictures: enlarged by whole factors, errors in colour, and strips of rows over the horizon."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ConfigError, InputError
from pipelines.evaluation import plots as house
from pipelines.world.rollouts import Pixels, RolloutEpisode, error_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ERROR_TEXT", "SCALE", "coloured", "colour_bar", "framed", "paste", "rows_of", "sized", "strip_figure"]

#: The error that has the darkest colour, of values in [0, 1].
SCALE = 0.5
ERROR_TEXT = "|prediction - truth|, mean of the channels, values 0 to 1"
_SIDE = 256  # px, of the longer side of a frame in films; strips have half of it
_LARGEST = 720  # px, from which frames are made smaller
DOTS = house.DOTS_PER_INCH
BORDER = 3


def rgb(colour: str) -> tuple[int, int, int]:
    """A colour as three numbers.

    Example:
        >>> rgb("#0072B2")
        (0, 114, 178)
    """
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return red, green, blue


def sized(height: int, width: int, side: int = _SIDE) -> tuple[int, int]:
    """By which whole factor frames are enlarged, and by which they are made smaller; one of the two is 1.

    Args:
        height: of a frame in px.
        width: of a frame in px.
        side: px that the longer side may have, if enlarged.

    Example:
        >>> sized(64, 64), sized(200, 320), sized(1080, 1920)
        ((4, 1), (1, 1), (1, 3))
    """
    longer = max(height, width)
    return max(1, side // longer), max(1, -(-longer // _LARGEST))


def enlarged(frame: Pixels, factors: tuple[int, int]) -> Pixels:
    """A frame (H, W, C) as (H', W', 3): each pixel a square, or squares of pixels averaged.

    Example:
        >>> enlarged(np.array([[[1], [2]]], np.uint8), (2, 1))[..., 0].tolist()
        [[1, 1, 2, 2], [1, 1, 2, 2]]
    """
    up, down = factors
    out = np.repeat(frame, 3, -1) if frame.shape[-1] == 1 else frame
    if down > 1:
        from PIL import Image

        out = np.asarray(Image.fromarray(out).reduce(down))
    return out.repeat(up, 0).repeat(up, 1)


@functools.cache
def _scale_colours() -> Pixels:
    """(256, 3): white over orange to ink, darker all the way, so that it reads in grey too."""
    ends = np.array([(255, 255, 255), rgb(house.AMBER), rgb(house.ORANGE), rgb(house.INK)], np.float64)
    places = np.array([0.0, 0.3, 0.6, 1.0])
    steps = np.linspace(0, 1, 256)
    return np.stack([np.interp(steps, places, ends[:, part]) for part in range(3)], -1).round().astype(np.uint8)


def coloured(errors: NDArray[np.floating], scale: float = SCALE) -> Pixels:
    """Errors (H, W) in colour (H, W, 3): white for none, darker the larger, ink from `scale` on.

    Raises:
        ConfigError: a scale of zero or less, or above 1.

    Example:
        >>> coloured(np.array([[0.0, 2.0]])).tolist()
        [[[255, 255, 255], [36, 41, 47]]]
    """
    if not 0 < scale <= 1:
        raise ConfigError("no such scale of errors", where="scale", found=scale, expected="above 0, at most 1")
    return _scale_colours()[(np.clip(errors / scale, 0, 1) * 255 + 0.5).astype(np.uint8)]


def colour_bar(width: int, height: int) -> Pixels:
    """The colours of errors from none (left) to the end of the scale: (height, width, 3)."""
    return np.tile(_scale_colours()[np.linspace(0, 255, width).round().astype(int)][None], (height, 1, 1))


def rows_of(episode: RolloutEpisode) -> tuple[str, ...]:
    """What is shown of an episode: truth and error only where truth is known.

    Example:
        >>> frames = np.zeros((2, 4, 4, 1), np.uint8)
        >>> rows_of(RolloutEpisode("a", frames, frames)), rows_of(RolloutEpisode("a", frames, frames, truth=frames))
        (('prediction',), ('truth', 'prediction', 'error'))
    """
    return ("truth", "prediction", "error") if episode.known else ("prediction",)


def framed(
    episode: RolloutEpisode, row: str, step: int, factors: tuple[int, int], scale: float = SCALE
) -> Pixels | None:
    """One picture: the row's at `step`, which counts from 1 after the context, 0 being the last frame seen.

    Args:
        episode: of the pictures.
        row: truth, prediction or error.
        step: -K + 1 to h.
        factors: as `sized` gives them.
        scale: of the errors.

    Returns:
        (H', W', 3); a frame of the context in truth and prediction alike; None where there is nothing to show.

    Complexity: O(pixels), one frame of each row read.
    """
    if step < 1:
        place = episode.seen - 1 + step
        return None if row == "error" else enlarged(episode.pixels(place, place + 1, "context")[0], factors)
    if row != "prediction" and step > episode.known:
        return None
    if row == "error":
        guess, truth = (episode.values(step - 1, step, what)[0] for what in ("prediction", "truth"))
        return enlarged(coloured(error_of(guess, truth), scale), factors)
    return enlarged(episode.pixels(step - 1, step, row)[0], factors)


def strip_steps(episode: RolloutEpisode, count: int = 8) -> list[int]:
    """The horizons of a strip: the last frame seen, the first and the last prediction, and equal steps between.

    Example:
        >>> strip_steps(RolloutEpisode("a", np.zeros((2, 4, 4, 1), np.uint8), np.zeros((16, 4, 4, 1), np.uint8)), 5)
        [0, 1, 6, 11, 16]
    """
    return [0, *np.unique(np.linspace(1, episode.horizon, max(1, count - 1)).round().astype(int)).tolist()]


def strip_figure(
    episode: RolloutEpisode, *, model: str = "", count: int = 8, scale: float = SCALE, title: str = ""
) -> Figure:
    """Draw rows of truth, prediction and error over the horizon, the last frame seen first, in a blue border.

    The pixels of small frames are squares of whole pixels when the figure is saved at its own resolution.

    Args:
        episode: what to draw.
        model: whose prediction it is.
        count: columns, at most.
        scale: the error that has the darkest colour.
        title: above the picture; name and model by default.

    Raises:
        InputError: fewer than two columns.
        ConfigError: no such scale.

    Complexity: O(count H W), whatever the length.

    Example:
        >>> frames = np.zeros((4, 8, 8, 3), np.uint8)
        >>> len(strip_figure(RolloutEpisode("a", frames[:1], frames, truth=frames), model="copy").axes[0].images)
        1
    """
    if count < 2:
        raise InputError("nothing to draw", where="count", found=count, expected="2 or more columns")
    coloured(np.zeros((1, 1)), scale)
    return house._styled(lambda: _Strip(episode, model, count, scale, title).figure)


class _Strip:
    """A figure laid out in whole px, so that frames are not resampled when it is saved at its own resolution."""

    def __init__(self, episode: RolloutEpisode, model: str, count: int, scale: float, title: str) -> None:
        self.episode, self.scale = episode, scale
        self.rows, self.steps = rows_of(episode), strip_steps(episode, count)
        height, width, _ = episode.frame
        self.factors = sized(height, width, _SIDE // 2)
        high, wide = shown_sides(episode, self.factors)
        self.side = high, wide
        self.left, self.gap, self.top, self.foot = 88, 8, 66, 68
        self.size = (
            max(self.left + len(self.steps) * (wide + self.gap) + 8, 640),
            self.top + len(self.rows) * (high + self.gap) + self.foot,
        )
        self.figure = house.new_figure(self.size[0] / DOTS, self.size[1] / DOTS)
        self.figure.set_dpi(DOTS)
        self.figure.set_layout_engine("none")
        self.canvas = np.full((self.size[1], self.size[0], 3), 255, np.uint8)
        lead = title or strip_title(episode, model)
        self._write(12, 10, house._shortened(lead, (self.size[0] - 20) // 9), 15, weight="bold", color=house.INK)
        for column, step in enumerate(self.steps):
            self._column(column, step)
        for place, row in enumerate(self.rows):
            y = self.top + place * (high + self.gap) + high / 2
            self._write(12, y, row, 13, va="center", color=house.INK)
        self._legend()
        ax = self.figure.add_axes((0, 0, 1, 1), zorder=-1)
        ax.set_axis_off()
        ax.imshow(self.canvas, aspect="auto")

    def _write(self, x: float, y: float, text: str, size: float, **style: Any) -> None:
        style = {"va": "top", "color": house.FAINT} | style
        self.figure.text(x / self.size[0], 1 - y / self.size[1], text, fontsize=size * 72 / DOTS, **style)

    def _column(self, column: int, step: int) -> None:
        x = self.left + column * (self.side[1] + self.gap)
        time = self.episode.seconds(step)
        told = "context" if step < 1 else f"+{step:,}"
        self._write(x, self.top - 31, told, 12.5, color=house.BLUE if step < 1 else house.INK, weight="bold")
        if step > 0 and time is not None:
            self._write(x, self.top - 16, f"{time:.3g} s", 10.5)
        for place, row in enumerate(self.rows):
            picture = framed(self.episode, row, step, self.factors, self.scale)
            paste(self.canvas, self.side, (x, self.top + place * (self.side[0] + self.gap)), picture, row, step)

    def _legend(self) -> None:
        y = self.size[1] - self.foot + 8
        told = "blue border: seen by the model, not predicted"
        told += "; grey: nothing to show" if "error" in self.rows else ""
        if "error" in self.rows:
            self.canvas[y : y + 10, self.left : self.left + 160] = colour_bar(160, 10)
            for share, text in ((0, "0"), (0.5, f"{self.scale / 2:g}"), (1, f"{self.scale:g} and more")):
                self._write(self.left + share * 160, y + 14, text, 10.5, ha="left" if share != 0.5 else "center")
            self._write(self.left + 262, y - 3, f"error: {ERROR_TEXT}", 10.5)
            self._write(self.left + 262, y + 14, told, 10.5)
        else:
            self._write(self.left, y, told, 10.5)
        self._write(self.left, y + 34, shown_size(self.factors, self.episode), 10.5)


def paste(
    canvas: Pixels, side: tuple[int, int], place: tuple[int, int], picture: Pixels | None, row: str, step: int
) -> None:
    """Put a picture, or grey where there is none, into a canvas (H, W, 3) with the border that says what it is.

    Args:
        canvas: is changed.
        side: height and width of every picture in px.
        place: x and y of the picture's top left.
        picture: as `framed` gives it.
        row: truth, prediction or error.
        step: 0 and below is context, which has a blue border.
    """
    (high, wide), (x, y) = side, place
    border, colour = (BORDER, house.BLUE) if step < 1 and picture is not None else (1, "#c3cad1")
    around = canvas[y - BORDER : y + high + BORDER, x - BORDER : x + wide + BORDER]
    around[:] = 255
    inner = around[BORDER - border : high + BORDER + border, BORDER - border : wide + BORDER + border]
    # Errors are white where there are none, so that they need an edge; photographs do not.
    inner[:] = rgb(colour) if border > 1 or row == "error" or picture is None else 255
    canvas[y : y + high, x : x + wide] = rgb("#f3f5f7") if picture is None else picture


def shown_sides(episode: RolloutEpisode, factors: tuple[int, int]) -> tuple[int, int]:
    """Height and width in px of a frame as it is shown.

    Example:
        >>> frames = np.zeros((1, 9, 64, 1), np.uint8)
        >>> shown_sides(RolloutEpisode("a", frames, frames), (4, 1))
        (36, 256)
    """
    up, down = factors
    height, width, _ = episode.frame
    return -(-height // down) * up, -(-width // down) * up


def strip_title(episode: RolloutEpisode, model: str) -> str:
    """What a strip is of, and how far its last frame is from the truth, in words.

    Example:
        >>> frames = np.zeros((3, 4, 4, 1), np.uint8)
        >>> strip_title(RolloutEpisode("a", frames[:1], frames, truth=frames, fps=10.0), "copy")
        'a: copy, 3 frames ahead (0.3 s), MSE 0 at the end'
    """
    time = episode.seconds(episode.horizon)
    ahead = f"{episode.horizon:,} frame{'s' if episode.horizon != 1 else ''} ahead"
    ahead += "" if time is None else f" ({time:.3g} s)"
    told = ", truth not known"
    if episode.known:
        last = episode.known
        guess, truth = (episode.values(last - 1, last, what) for what in ("prediction", "truth"))
        where = "the end" if last == episode.horizon else f"+{last:,}, the last one known"
        told = f", MSE {float(np.square(guess - truth).mean()):.3g} at {where}"
    return f"{episode.name}: {model + ', ' if model else ''}{ahead}{told}"


def shown_size(factors: tuple[int, int], episode: RolloutEpisode) -> str:
    """How large frames are shown, in words.

    Example:
        >>> frames = np.zeros((1, 64, 64, 1), np.uint8)
        >>> shown_size((4, 1), RolloutEpisode("a", frames, frames))
        'frames of 64 x 64 px, each pixel shown as 4 x 4'
    """
    up, down = factors
    height, width, _ = episode.frame
    size = f"frames of {width} x {height} px"
    if down > 1:
        return f"{size}, shown at 1/{down} of their size"
    return f"{size}, each pixel shown as {up} x {up}" if up > 1 else size
