"""Films of rollouts, GIF or MP4: rows of truth, prediction and error, one frame in memory at a time."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from pipelines.errors import ConfigError
from pipelines.evaluation import plots as house
from pipelines.evaluation.films import FASTEST, FILM_ENDINGS, Palette, write_gif, write_mp4
from pipelines.world.rollouts import Pixels, RolloutEpisode
from pipelines.world.strips import (
    DOTS,
    ERROR_TEXT,
    SCALE,
    colour_bar,
    coloured,
    framed,
    paste,
    rgb,
    rows_of,
    shown_sides,
    shown_size,
    sized,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    from pipelines.progress import Progress

__all__ = ["Film", "Painter", "Timing", "animate", "film_bytes", "plan_film", "timing", "told_inside"]

_ASSUMED = 10.0  # Hz, where the frame rate is not known
_SLOWEST = 1.0
_SLOWED = 5.0  # pictures a second that a short film is slowed down to
_SHORT = 4.0  # s, shorter films are slowed down
_SAMPLES = 12  # pictures whose colours a GIF has
_TONES = 25  # of errors
_LEFT, _GAP, _EDGE = 92, 10, 12
_NARROWEST = 420


@dataclass(frozen=True)
class Timing:
    """How fast the frames of a rollout are shown, each of them once.

    Args:
        rate: pictures a second.
        speed: of what real time it is; None where the frame rate is not known.
        notes: what that means, where it is not real time.
    """

    rate: Fraction
    speed: float | None
    notes: tuple[str, ...] = ()


def timing(frames: int, fps: float | None, kind: str, *, wanted: float | None = None) -> Timing:
    """Plan a film that shows every frame: in real time, but slower where eyes or viewers could not follow.

    Args:
        frames: context and prediction.
        fps: Hz; 10 are assumed where it is None, and said.
        kind: `.gif` or `.mp4`; GIFs know hundredths of a second, and viewers slow shorter delays than four of them.
        wanted: pictures a second; by default real time, or down to 5 a second in films of less than four seconds.

    Raises:
        ConfigError: another kind, or no such rate.

    Example:
        >>> timing(200, 10.0, ".gif").speed, timing(20, 10.0, ".gif").notes
        (1.0, ('played at 5 frames a second, 0.5 of real time',))
    """
    if kind not in FILM_ENDINGS:
        raise ConfigError("not a moving picture", where="film", found=kind, expected=" or ".join(FILM_ENDINGS))
    if wanted is not None and not _SLOWEST <= wanted <= 1000:
        raise ConfigError("no such rate", where="pictures a second", found=wanted, expected=f"{_SLOWEST:g} to 1000")
    own = fps or _ASSUMED
    aim = wanted or max(_SLOWEST, min(own, max(_SLOWED, frames / _SHORT)))
    aim = min(aim, FASTEST[kind])
    rate = Fraction(100, round(100 / aim)) if kind == ".gif" else Fraction(aim).limit_denominator(1001)
    played = f"{float(rate):.4g} frames a second"
    if fps is None:
        return Timing(rate, None, (f"the frame rate is not known: played at {played}",))
    speed = float(rate) / fps
    if abs(speed - 1) < 5e-3:
        return Timing(rate, 1.0)
    return Timing(rate, speed, (f"played at {played}, {speed:.3g} of real time",))


class Painter:
    """Draws the frames of a rollout one after the other on one canvas; what does not change is drawn once.

    Small frames are enlarged by whole factors, each pixel a square; a row is truth, prediction or error, and what the
    model has seen stands in a blue border.

    Args:
        episode: what to draw.
        model: whose prediction it is.
        scale: the error that has the darkest colour, of values in [0, 1].
        speed: of what real time the film is shown; said below the pictures where it is not 1.

    Raises:
        ConfigError: no such scale.

    Complexity: O(pixels) a frame, one frame of each row in memory.

    Example:
        >>> frames = np.zeros((3, 8, 8, 1), np.uint8)
        >>> painter = Painter(RolloutEpisode("a", frames[:1], frames, truth=frames), model="copy")
        >>> painter.count, painter.paint(0).shape == (painter.size[1], painter.size[0], 3)
        (4, True)
    """

    def __init__(
        self, episode: RolloutEpisode, *, model: str = "", scale: float = SCALE, speed: float | None = 1.0
    ) -> None:
        coloured(np.zeros((1, 1)), scale)
        self.episode, self.model, self.scale, self.speed = episode, model, scale, speed
        self.rows = rows_of(episode)
        self.count = episode.seen + episode.horizon
        height, width, _ = episode.frame
        self.factors = sized(height, width)
        self.side = shown_sides(episode, self.factors)
        self._head = 68 if episode.actions is not None else 50
        self._foot = 84 if "error" in self.rows else 46
        wide = max(_LEFT + self.side[1] + _EDGE, _NARROWEST)
        high = self._head + len(self.rows) * (self.side[0] + _GAP) + self._foot
        self.size = (wide + wide % 2, high + high % 2)  # even, as MP4 needs it
        house._styled(self._build)

    def _build(self) -> Figure:
        self._figure = house.new_figure(self.size[0] / DOTS, self.size[1] / DOTS)
        self._figure.set_dpi(DOTS)
        self._figure.set_layout_engine("none")
        lead = f"{self.episode.name}: {self.model}" if self.model else self.episode.name
        self._write(_EDGE, 8, house._shortened(lead, (self.size[0] - 2 * _EDGE) // 9), 14, weight="bold")
        self._clock = self._write(_EDGE, 29, "", 13, weight="bold")
        self._action = self._write(_EDGE, 48, "", 12)
        middles = [self._top(place) + self.side[0] / 2 for place in range(len(self.rows))]
        for row, middle in zip(self.rows, middles, strict=True):
            self._write(_EDGE, middle, row, 13, va="center")
        self._inside = [
            self._write(_LEFT + self.side[1] / 2, middle, "", 12, va="center", ha="center", color=house.FAINT)
            for middle in middles
        ]
        self._moving = [self._clock, self._action, *self._inside]
        for text in self._moving:
            text.set_animated(True)
        self._legend()
        self._canvas: Any = self._figure.canvas
        self._canvas.draw()
        self._still = self._canvas.copy_from_bbox(self._figure.bbox)
        return self._figure

    def _write(self, x: float, y: float, text: str, size: float, **style: Any) -> Text:
        style = {"va": "top", "color": house.INK} | style
        return self._figure.text(x / self.size[0], 1 - y / self.size[1], text, fontsize=size * 72 / DOTS, **style)

    def _top(self, place: int) -> int:
        return self._head + place * (self.side[0] + _GAP)

    def _legend(self) -> None:
        y, faint = self._top(len(self.rows)) + 2, {"color": house.FAINT}
        if "error" in self.rows:
            for share, text in ((0, "0"), (0.5, f"{self.scale / 2:g}"), (1, f"{self.scale:g} and more")):
                side = "left" if share != 0.5 else "center"
                self._write(_LEFT + share * self._bar, y + 12, text, 10, ha=side, **faint)
            self._write(_EDGE, y + 28, f"error: {ERROR_TEXT}", 10, **faint)
            y += 42
        self._write(_EDGE, y, "blue border: seen by the model, not predicted", 10, **faint)
        slow = "" if self.speed is None or abs(self.speed - 1) < 5e-3 else f"; {self.speed:.3g} of real time"
        self._write(_EDGE, y + 15, f"{shown_size(self.factors, self.episode)}{slow}", 10, **faint)

    @property
    def _bar(self) -> int:
        return min(200, self.size[0] - _LEFT - 90)

    def clock(self, picture: int) -> str:
        """What a picture shows: a frame of the context, or the horizon and its time.

        Example:
            >>> frames = np.zeros((3, 8, 8, 1), np.uint8)
            >>> painter = Painter(RolloutEpisode("a", frames, frames, fps=10.0))
            >>> painter.clock(2), painter.clock(3)
            ('context, frame 3 of 3', 'horizon 1 of 3, +0.1 s')
        """
        step = picture + 1 - self.episode.seen
        if step < 1:
            return f"context, frame {picture + 1:,} of {self.episode.seen:,}"
        time = self.episode.seconds(step)
        return f"horizon {step:,} of {self.episode.horizon:,}" + ("" if time is None else f", +{time:.3g} s")

    def paint(self, picture: int) -> Pixels:
        """Draw picture number `picture`, the context's first frame being 0: (H, W, 3)."""
        step = picture + 1 - self.episode.seen
        pictures = [framed(self.episode, row, step, self.factors, self.scale) for row in self.rows]
        self._clock.set_text(self.clock(picture))
        self._clock.set_color(house.BLUE if step < 1 else house.INK)
        led = self.episode.action(picture - 1) if picture else ""
        self._action.set_text(house._shortened(f"action: {led}" if led else "", self.size[0] // 8))
        renderer = self._canvas.get_renderer()
        self._canvas.restore_region(self._still)
        pixels = np.asarray(self._canvas.buffer_rgba())[..., :3]
        for place, (row, shown) in enumerate(zip(self.rows, pictures, strict=True)):
            paste(pixels, self.side, (_LEFT, self._top(place)), shown, row, step)
            missing = "nothing predicted yet" if step < 1 else "not known"
            self._inside[place].set_text(missing if shown is None else "")
        if "error" in self.rows:
            y = self._top(len(self.rows)) + 2
            pixels[y : y + 10, _LEFT : _LEFT + self._bar] = colour_bar(self._bar, 10)
        for text in self._moving:
            text.draw(renderer)
        return pixels.copy()


@dataclass(frozen=True, eq=False)
class Film:
    """A film that is ready to be written: its pictures are drawn while it is.

    Args:
        write: writes it to a binary file and returns notes.
        size: W, H in px.
        shown: pictures.
        timing: how fast they are shown.
        notes: what the film is, and what it does not show.
    """

    write: Callable[[BinaryIO], list[str]]
    size: tuple[int, int]
    shown: int
    timing: Timing
    notes: tuple[str, ...]


def plan_film(
    name: str,
    episode: RolloutEpisode,
    *,
    model: str = "",
    scale: float = SCALE,
    rate: float | None = None,
    most: int | None = None,
    progress: Progress | None = None,
) -> Film:
    """Plan a film of a rollout, without drawing any of it.

    Args:
        name: of the file; its ending chooses GIF or MP4.
        episode: what to draw.
        model: whose prediction it is.
        scale: the error that has the darkest colour.
        rate: pictures a second; see `timing`.
        most: pictures that are shown, from the first one; all by default.
        progress: hears of every picture.

    Raises:
        ConfigError: another ending, no such scale or rate.

    Example:
        >>> frames = np.zeros((3, 8, 8, 1), np.uint8)
        >>> plan_film("a.gif", RolloutEpisode("a", frames, frames, fps=5.0), model="copy").notes
        ('a.gif: 420 x 362 px, 6 pictures, 5 a second',)
    """
    kind = Path(name).suffix.lower()
    total = episode.seen + episode.horizon
    plan = timing(total, episode.fps, kind, wanted=rate)
    painter = Painter(episode, model=model, scale=scale, speed=plan.speed)
    shown = total if most is None else min(total, max(1, most))
    about = told_inside(episode, model=model, scale=scale)

    def pictures() -> Iterator[Pixels]:
        numbers = range(shown)
        yield from map(
            painter.paint, numbers if progress is None else progress.track(numbers, shown, f"drawing {name}")
        )

    def write(handle: BinaryIO) -> list[str]:
        if kind == ".mp4":
            return write_mp4(handle, pictures(), painter.size, plan.rate, about)
        return write_gif(handle, pictures(), painter.size, plan.rate, about, colours_of(painter, shown))

    size = f"{painter.size[0]} x {painter.size[1]} px"
    made = f"{shown:,} picture{'s' if shown > 1 else ''}, {float(plan.rate):.4g} a second"
    notes = [f"{name}: {size}, {made}", *(f"{name}: {note}" for note in plan.notes)]
    if shown < total:
        notes.append(f"{name}: the first {shown:,} of {total:,} frames")
    return Film(write, painter.size, shown, plan, tuple(notes))


def colours_of(painter: Painter, shown: int) -> Palette:
    """The colours of a GIF, from pictures all over the film: one choice for all of them, or still things would flicker.

    Example:
        >>> frames = np.zeros((3, 8, 8, 1), np.uint8)
        >>> colours_of(Painter(RolloutEpisode("a", frames, frames)), 6).table.shape
        (256, 3)
    """
    places = np.unique(np.linspace(0, shown - 1, _SAMPLES).round().astype(int)).tolist()
    fixed = [(255, 255, 255), rgb(house.INK), rgb(house.FAINT), rgb(house.BLUE), rgb("#f3f5f7"), rgb("#c3cad1")]
    if "error" in painter.rows:  # few pixels have them, but a legend of four colours would not explain a picture
        fixed += [(int(red), int(green), int(blue)) for red, green, blue in colour_bar(_TONES, 1)[0]]
    return Palette.of((painter.paint(place) for place in places), fixed)


def animate(
    path: str | Path,
    episode: RolloutEpisode,
    *,
    model: str = "",
    scale: float = SCALE,
    rate: float | None = None,
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Write a rollout as a film, completely or not at all.

    Args:
        path: ends in .gif or .mp4.
        episode: what to draw.
        model: whose prediction it is.
        scale: the error that has the darkest colour, of values in [0, 1].
        rate: pictures a second; real time by default, slower for films of less than four seconds.
        progress: hears of every picture.

    Returns:
        Notes: the size of the film and how fast it is shown.

    Raises:
        ConfigError: another ending, no such scale or rate, no MP4 encoder.
        RunError: the disk is full or not writable; nothing is left behind.

    Complexity: O(pictures) time; memory for a few pictures, however long the film is.

    Example:
        >>> import tempfile
        >>> frames = np.zeros((3, 8, 8, 1), np.uint8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     animate(f"{folder}/a.gif", RolloutEpisode("a", frames, frames, fps=25.0))
        ('a.gif: 420 x 362 px, 6 pictures, 5 a second', 'a.gif: played at 5 frames a second, 0.2 of real time')
    """
    from pipelines.files import atomic_write

    target = Path(path)
    film = plan_film(target.name, episode, model=model, scale=scale, rate=rate, progress=progress)
    told: list[str] = []
    atomic_write(target, lambda handle: told.extend(film.write(handle)))
    return (*film.notes, *(f"{target.name}: {note}" for note in told))


def film_bytes(
    episode: RolloutEpisode, *, model: str = "", scale: float = SCALE, rate: float | None = None, most: int = 150
) -> tuple[bytes, tuple[str, ...]]:
    """A GIF of a rollout for a page, and notes about it: its first `most` frames.

    Example:
        >>> frames = np.zeros((3, 8, 8, 1), np.uint8)
        >>> film_bytes(RolloutEpisode("a", frames, frames))[0][:6]
        b'GIF89a'
    """
    film = plan_film("film.gif", episode, model=model, scale=scale, rate=rate, most=most)
    out = io.BytesIO()
    told = film.write(out)
    return out.getvalue(), (*film.notes, *told)


def told_inside(episode: RolloutEpisode, *, model: str = "", scale: float = SCALE) -> str:
    """What is written into a film: of what, by which model, which rows, and the scale of the errors.

    Example:
        >>> frames = np.zeros((3, 8, 8, 1), np.uint8)
        >>> told_inside(RolloutEpisode("a", frames, frames, fps=10.0), model="copy")
        'a: 3 frames after 3 of context at 10 Hz (0.3 s), 8 x 8 px; model copy; rows prediction'
    """
    text = f"{episode}{f'; model {model}' if model else ''}; rows {', '.join(rows_of(episode))}"
    return f"{text}; error {ERROR_TEXT}, darkest at {scale:g} and more" if episode.known else text
