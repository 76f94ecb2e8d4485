"""Moving pictures of poses, GIF or MP4: the 2-D input left, the 3-D pose right, one frame in memory at a time."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ConfigError
from pipelines.evaluation import plots as house
from pipelines.evaluation.films import FASTEST, FILM_ENDINGS, write_gif, write_mp4
from pipelines.pose import body, films
from pipelines.pose.tracks import AXES, Track

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    from pipelines.progress import Progress

__all__ = ["ENDINGS", "Painter", "Timing", "animate", "timing"]

ENDINGS = FILM_ENDINGS
Pixels = NDArray[np.uint8]
_ASSUMED = 25.0  # Hz, where the frame rate is not known
_SLOWEST = 1.0
_SIZES = (160, 4000)  # px, of the width
_DOTS = 100


@dataclasses.dataclass(frozen=True)
class Timing:
    """Which frames of a clip are shown, and for how long.

    Args:
        rate: pictures a second.
        shown: how many pictures.
        of: T frames of the clip.
        fps: of the clip as it is played, Hz.
        notes: what that means, where it is not every frame at its own time.
    """

    rate: Fraction
    shown: int
    of: int
    fps: float
    notes: tuple[str, ...] = ()

    def frames(self) -> Iterator[int]:
        """The frame of each picture: the one that is on at its time."""
        for picture in range(self.shown):
            yield min(self.of - 1, int(picture * self.fps / float(self.rate) + 1e-6))


def timing(frames: int, fps: float | None, kind: str, *, seconds: float | None = None) -> Timing:
    """Plan a film in real time: GIFs know hundredths of a second, and neither kind shows more than eyes can follow.

    Args:
        frames: T of the clip.
        fps: Hz; 25 are assumed where it is None, and said.
        kind: `.gif` or `.mp4`.
        seconds: show no more than these; all by default.

    Raises:
        ConfigError: another kind, or no time to show.

    Example:
        >>> plan = timing(120, 120.0, ".mp4")
        >>> plan.shown, list(plan.frames())[:3], plan.notes
        (60, [0, 2, 4], ('60 of the 120 frames are shown in real time, 60 pictures a second',))
    """
    if kind not in ENDINGS:
        raise ConfigError("not a moving picture", where="animation", found=kind, expected=" or ".join(ENDINGS))
    if seconds is not None and not seconds > 0:
        raise ConfigError("no time to show", where="seconds", found=seconds, expected="more than 0")
    played = _ASSUMED if fps is None else max(fps, _SLOWEST)
    notes = []
    if fps is None or fps < _SLOWEST:
        why = "the frame rate is not known" if fps is None else f"{fps:g} Hz is too slow to watch"
        notes.append(f"{why}: played at {played:g} frames a second")
    wanted = min(played, FASTEST[kind])
    if kind == ".gif":
        rate = Fraction(100, max(4, round(100 / wanted)))
    else:
        rate = Fraction(wanted).limit_denominator(1001)
    cut = frames if seconds is None else min(frames, max(1, round(seconds * played)))
    shown = max(1, math.ceil(cut * float(rate) / played - 1e-6))
    if cut < frames:
        notes.append(f"the film ends after {cut / played:.4g} s: {frames - cut:,} of {frames:,} frames come later")
    if shown != cut:
        seen = "all" if shown > cut else f"{shown:,} of the"
        notes.append(f"{seen} {cut:,} frames are shown in real time, {float(rate):.4g} pictures a second")
    return Timing(rate, shown, frames, played, tuple(notes))


class Painter:
    """Draws the frames of a track one after the other on one canvas; what does not move is drawn once.

    Args:
        track: what to draw.
        width: of the picture in px; the height follows. Both are even, as MP4 needs it.
        turn: degrees by which the 3-D view is turned to the right of the camera.

    Raises:
        ConfigError: a width out of range.

    Complexity: O(T J) to find the scale of all frames; a frame takes some 10 ms.

    Example:
        >>> from pipelines.data.datasets.pose_types import Skeleton
        >>> hand = Skeleton("hand", ("wrist", "finger"), (-1, 0), 0)
        >>> Painter(Track("a", np.zeros((2, 2, 3)), np.ones((2, 2)), hand), width=200).paint(1).shape[1:]
        (200, 3)
    """

    def __init__(self, track: Track, *, width: int = 900, turn: float = body.TURN) -> None:
        if not _SIZES[0] <= width <= _SIZES[1]:
            raise ConfigError("no such width", where="width", found=width, expected=f"{_SIZES[0]} to {_SIZES[1]} px")
        self.track, self.turn = track, turn
        self._places = body.seen(track.points, track.frame, turn=turn)
        self._truth = None if track.truth is None else body.seen(track.truth, track.frame, turn=turn)
        self.panels = 1 if track.inputs is None else 2
        self.size = (width // 2 * 2, int(width * (0.58 if self.panels == 2 else 1.12)) // 2 * 2)
        self._scale = self.size[0] / (450 * self.panels)  # of texts and lines
        house._styled(self._build)

    def _build(self) -> Figure:
        width, height = self.size
        self._figure = house.new_figure(width / _DOTS, height / _DOTS)
        self._figure.set_dpi(_DOTS)
        self._figure.set_layout_engine("none")
        if self.panels == 2:
            self._input_axes()
        self._pose_axes()
        self._write(0.03, top=True, text=_short(self.track.label), size=12, weight="bold")
        self._clock = self._write(0.97, top=True, text="", size=10, ha="right", color=house.FAINT)
        self._clock.set_animated(True)
        self._canvas: Any = self._figure.canvas
        self._canvas.draw()
        self._still = self._canvas.copy_from_bbox(self._figure.bbox)
        return self._figure

    def _write(self, x: float, *, top: bool, text: str, size: float, **style: Any) -> Text:
        edge = 16.0 * self._scale / self.size[1]
        style |= {"fontsize": size * self._scale * 72 / _DOTS, "va": "top" if top else "bottom"}
        return self._figure.text(x, 1 - edge if top else edge, text, **style)

    def _panel(self, place: int) -> Axes:
        head, foot = 46.0 * self._scale / self.size[1], 40.0 * self._scale / self.size[1]
        wide, high = 1.0 / self.panels - 0.02, 1 - head - foot
        self._shape = high * self.size[1] / (wide * self.size[0])
        return self._figure.add_axes((place / self.panels + 0.01, foot, wide, high))

    def _input_axes(self) -> None:
        clip, ax = self.track.inputs, self._panel(0)
        if clip is None:
            return
        self._input_bones = body.body_lines(ax, clip.skeleton, width=2.2 * self._scale)
        self._input_bones.set_animated(True)
        box = body.extent(clip.points.astype(np.float64), clip.valid)
        body.set_picture(ax, box, down=clip.frame != "world", shape=self._shape)
        size = ""
        if clip.size is not None:
            wide, high = clip.size
            size = f" of {wide:,} x {high:,}"
            half = high / wide
            edge = (0, wide, wide, 0, 0), (0, 0, high, high, 0)
            if clip.unit == "normalised":
                edge = (-1, 1, 1, -1, -1), (-half, -half, half, half, -half)
            ax.plot(*edge, color=body.GREY, lw=0.8 * self._scale, scalex=False, scaley=False)
        text = f"2-D input, {clip.unit}{size}, {clip.skeleton.name}"
        self._write(0.03, top=False, text=text, size=9, color=house.FAINT)

    def _pose_axes(self) -> None:
        from matplotlib.collections import LineCollection

        track, ax = self.track, self._panel(self.panels - 1)
        lines, square = body.floor_lines(track, turn=self.turn)
        ax.add_collection(LineCollection(lines, colors=house.GRID, linewidths=0.8 * self._scale), autolim=False)
        every = self._places if self._truth is None else np.concatenate([self._places, self._truth])
        box = body.extent(every, np.tile(track.valid, (len(every) // track.frames, 1)))
        body.set_picture(ax, box, down=False, shape=self._shape)
        self._axes, self._behind = ax, None
        if self._truth is not None:
            self._behind = body.body_lines(ax, track.skeleton, width=4.5 * self._scale, colour=body.GREY)
            self._behind.set_animated(True)
        self._bones = body.body_lines(ax, track.skeleton, width=2.6 * self._scale)
        self._bones.set_animated(True)
        known = ", truth grey" if self._truth is not None else ""
        text = f"3-D in m, turned {self.turn:g}° from the {track.frame} axes; squares {square:g} m{known}"
        self._write(0.03 if self.panels == 1 else 0.53, top=False, text=text, size=9, color=house.FAINT)

    def paint(self, frame: int) -> Pixels:
        """Draw frame number `frame`: (H, W, 3)."""
        track, renderer = self.track, self._canvas.get_renderer()
        self._canvas.restore_region(self._still)
        if track.inputs is not None:
            clip = track.inputs
            body.set_body(self._input_bones, clip.points[frame].astype(np.float64), clip.valid[frame], clip.skeleton)
            self._input_bones.draw(renderer)
        if self._behind is not None and self._truth is not None:
            body.set_body(self._behind, self._truth[frame], track.valid[frame], track.skeleton)
            self._behind.draw(renderer)
        if track.sigma is not None:
            self._draw_sigma(frame, track.sigma[frame], renderer)
        body.set_body(self._bones, self._places[frame], track.valid[frame], track.skeleton)
        self._bones.draw(renderer)
        when = "" if track.fps is None else f", {frame / track.fps:.2f} s"
        self._clock.set_text(f"frame {frame:,} of {track.frames:,}{when}")
        self._clock.draw(renderer)
        return np.asarray(self._canvas.buffer_rgba())[..., :3].copy()

    def _draw_sigma(self, frame: int, sigma: NDArray[np.float32], renderer: Any) -> None:
        """A disc of one standard deviation around each joint."""
        from matplotlib.collections import EllipseCollection

        there = self.track.valid[frame]
        across = 2e-3 * sigma[there]
        discs = EllipseCollection(across, across, np.zeros(len(across)), units="xy", offsets=self._places[frame][there],
                                  offset_transform=self._axes.transData, facecolors=house.SKY, alpha=0.35)  # fmt: skip
        discs.set_animated(True)
        self._axes.add_collection(discs, autolim=False)
        discs.draw(renderer)
        discs.remove()


def animate(
    path: str | Path,
    track: Track,
    *,
    width: int = 900,
    turn: float = body.TURN,
    seconds: float | None = None,
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Write a track as a film in real time, completely or not at all.

    Args:
        path: ends in .gif or .mp4.
        track: what to draw.
        width: px.
        turn: degrees by which the 3-D view is turned to the right of the camera.
        seconds: show no more than these; all by default.
        progress: hears of every picture.

    Returns:
        Notes: the size of the film, and which frames it shows where these are not all.

    Raises:
        ConfigError: another ending, a width out of range, no MP4 encoder.
        RunError: the disk is full or not writable; nothing is left behind.

    Complexity: O(pictures) time; memory for the poses and a few pictures, however long the film is.

    Example:
        >>> import tempfile
        >>> from pipelines.data.datasets.pose_types import Skeleton
        >>> hand = Skeleton("hand", ("wrist", "finger"), (-1, 0), 0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     animate(f"{folder}/a.gif", Track("a", np.zeros((3, 2, 3)), np.ones((3, 2)), hand, fps=25), width=200)
        ('a.gif: 200 x 224 px, 3 pictures, 25 a second',)
    """
    from pipelines.files import atomic_write

    target = Path(path)
    plan = timing(track.frames, track.fps, target.suffix.lower(), seconds=seconds)
    painter = Painter(track, width=width, turn=turn)
    gif = target.suffix.lower() == ".gif"
    write = functools.partial(write_gif, palette=films.palette()) if gif else write_mp4
    told: list[str] = []
    about = told_inside(track)

    def pictures() -> Iterator[Pixels]:
        frames = plan.frames()
        if progress is None:
            yield from map(painter.paint, frames)
        else:
            yield from map(painter.paint, progress.track(frames, plan.shown, f"drawing {target.name}"))

    atomic_write(target, lambda handle: told.extend(write(handle, pictures(), painter.size, plan.rate, about)))
    size = f"{painter.size[0]} x {painter.size[1]} px"
    made = f"{plan.shown:,} picture{'s' if plan.shown > 1 else ''}, {float(plan.rate):.4g} a second"
    return (f"{target.name}: {size}, {made}", *(f"{target.name}: {note}" for note in (*plan.notes, *told)))


def told_inside(track: Track) -> str:
    """What is written into a film: whose poses, units, axes, skeleton, input.

    Example:
        >>> from pipelines.data.datasets.pose_types import Skeleton
        >>> hand = Skeleton("hand", ("wrist", "finger"), (-1, 0), 0)
        >>> told_inside(Track("a", np.zeros((3, 2, 3)), np.ones((3, 2)), hand, frame="world"))
        'a; 3-D poses in metres relative to wrist, world frame (z up), skeleton hand'
    """
    where = f"relative to {track.skeleton.joints[track.skeleton.root]}, {track.frame} frame ({AXES[track.frame]})"
    text = f"{track.label}; 3-D poses in metres {where}, skeleton {track.skeleton.name}"
    clip = track.inputs
    return text if clip is None else f"{text}; 2-D input in {clip.unit}, skeleton {clip.skeleton.name}"


def _short(text: str, longest: int = 48) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
