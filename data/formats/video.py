"""Films frame by frame in constant memory: files that FFmpeg reads and folders of numbered images, by time stamp."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import pathlib
from collections.abc import Iterator

from pipelines.data.errors import InputError
from pipelines.data.formats.video_folder import FolderSource, numbered_images, probe_folder
from pipelines.data.formats.video_kind import VIDEO_ENDINGS, sniffed
from pipelines.data.formats.video_pixels import resized
from pipelines.data.formats.video_pyav import FilmSource, probe, stamps_vary
from pipelines.data.formats.video_time import Choice, Clock, evenly, every
from pipelines.data.formats.video_types import MAX_PIXELS, Pixels, Shot, VideoFacts, VideoSource

__all__ = ["MAX_PIXELS", "VIDEO_ENDINGS", "VideoFacts", "VideoFile", "is_video"]

_RATES = (1e-3, 1000.0)
_MOST_SIDE = 16384


def is_video(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a container of films, whatever its name says; a folder is none.

    A container may still hold sound alone, which only opening it tells.

    Complexity: O(1).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = pathlib.Path(folder, "a.txt").write_bytes(b"GIF89a" + bytes(20))
        ...     _ = pathlib.Path(folder, "b.mp4").write_bytes(b"time,value")
        ...     is_video(f"{folder}/a.txt"), is_video(f"{folder}/b.mp4"), is_video(folder)
        (True, False, False)
    """
    path = pathlib.Path(path)
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(4096)
    except (OSError, ValueError):
        return False
    sound = head[4:8] == b"ftyp" and head[8:12] in (b"M4A ", b"M4B ", b"M4P ")
    return not sound and sniffed(head) is not None


class VideoFile:
    """A film: what it is at once, its frames when they are asked for; no file stays open in between.

    Args:
        path: a film, or a folder of numbered images.
        rate: frames a second. Of a folder it says what its images lack; of a film it counts instead of the time
            stamps.
        limit: most pixels of a frame.

    Raises:
        InputError: no such file, empty, not a film, sound alone, encrypted, no frame that can be decoded, too large.

    Complexity: the header and one frame; memory O(H W).

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     shades = [Image.new("L", (8, 6), 40 * k) for k in range(5)]
        ...     shades[0].save(f"{folder}/a.gif", save_all=True, append_images=shades[1:], duration=100)
        ...     film = VideoFile(f"{folder}/a.gif")
        ...     frames = [(round(time, 3), int(frame[0, 0, 0])) for time, frame in film.frames(fps=4)]
        >>> film.facts.size, film.facts.fps, frames
        ((6, 8), 10.0, [(0.0, 0), (0.25, 80)])
        >>> film.notes[0]
        '2 frames at 4 a second (the film has 10.0): 0 repeated, 3 left out'
    """

    def __init__(self, path: str | os.PathLike[str], *, rate: float | None = None, limit: int = MAX_PIXELS) -> None:
        self.path = pathlib.Path(path).expanduser()
        if rate is not None:
            _check_rate(rate, "rate", self.path)
        self.rate, self._limit = rate, limit
        self._listed = numbered_images(self.path) if _is_folder(self.path) else None
        if self._listed is not None:
            self.facts = probe_folder(self._listed, rate, limit)
            notes = list(self._listed.notes)
        else:
            self.facts, notes = probe(self.path, limit)
        self.notes: tuple[str, ...] = tuple(notes)
        """What is to be said: of the header, and once frames were read, of that pass."""

    @property
    def name(self) -> str:
        """Of the file or folder."""
        return self.path.name

    @property
    def variable_rate(self) -> bool:
        """Whether the time between frames varies; reads the packets of the whole file, and decodes none."""
        if self._listed is not None:
            steps = {b - a for a, b in itertools.pairwise(self._listed.numbers)}
            return len(steps) > 1
        return self.rate is None and stamps_vary(self.path, self._limit)

    def frames(
        self,
        fps: float | None = None,
        start: float = 0.0,
        stop: float | None = None,
        size: tuple[int, int] | None = None,
    ) -> Iterator[tuple[float, Pixels]]:
        """(seconds since the first frame, RGB (H, W, 3) uint8, upright), one at a time.

        With `fps` the frame on screen at start + k / fps is given for each k, which repeats frames or leaves some out;
        without, each frame comes once, at its own time. `notes` counts both. Arrays must not be written to.

        Args:
            fps: frames a second to give, Hz; None: as they are.
            start: s.
            stop: s, excluded; None: to the end.
            size: (height, width) of what is given, by the mean of areas; None: as they are.

        Raises:
            InputError: arguments that make no sense, one frame only, none in the range, another size from some time
                on where none was asked for.

        Complexity: O(frames up to `stop`) decoding from the beginning; memory of two frames whatever the length.
        """
        self._check(fps, start, stop, size)
        return self._frames(fps, start, stop, size)

    def _check(self, fps: float | None, start: float, stop: float | None, size: tuple[int, int] | None) -> None:
        if fps is not None:
            _check_rate(fps, "fps", self.path)
            if self._listed is not None and self.rate is None:
                cure = "say their frame rate (rate)"
                raise InputError("a folder of images has no time stamps to choose by", where=self.name, cure=cure)
        if not (math.isfinite(start) and start >= 0):
            raise InputError("no such time", where="start", found=start, expected="0 s or more")
        if stop is not None and not (stop > start):
            raise InputError("no such time", where="stop", found=stop, expected=f"more than {start:g} s")
        if size is not None and not (len(size) == 2 and all(_is_side(side) for side in size)):
            expected = f"two whole numbers between 1 and {_MOST_SIDE:,}"
            raise InputError("no such size", where="size", found=size, expected=expected)

    def _source(self) -> tuple[VideoSource, Clock]:
        if self._listed is not None:
            return FolderSource(self._listed, self.rate, self._limit), Clock(self.rate or 1.0)
        source = FilmSource(self.path, self._limit)
        return source, Clock(self.rate or source.rate, by_number=self.rate is not None, tick=source.tick)

    def _frames(
        self, fps: float | None, start: float, stop: float | None, size: tuple[int, int] | None
    ) -> Iterator[tuple[float, Pixels]]:
        source, clock = self._source()
        done, other = Choice(), 0
        last: Shot | None = None
        pixels: Pixels | None = None
        with contextlib.closing(source):
            shots = _several(source.shots(), self.name)
            chosen = (
                every(shots, clock, start, stop, done)
                if fps is None
                else evenly(shots, clock, fps, start, stop, done, source.tick)
            )
            try:
                for time, shot in chosen:
                    if shot is not last or pixels is None:
                        changed = shot.size != self.facts.size
                        if changed and size is None:
                            raise self._other_size(time, shot.size)
                        other += changed
                        pixels, last = self._loaded(shot, size), shot
                    yield time, pixels
                if done.taken == 0:
                    raise self._nothing(start, stop, done)
            finally:
                said = [*self._said(fps, start, stop, size, clock, done), *clock.remarks()]
                if other:
                    said.append(f"{other:,} frames of another size than the first: brought to {_times(size)} too")
                self.notes = (*said, *source.remarks(done.end if done.whole else None))

    def _loaded(self, shot: Shot, size: tuple[int, int] | None) -> Pixels:
        pixels = shot.load()
        if size is not None:
            pixels = resized(pixels, size)
        pixels.flags.writeable = False
        return pixels

    def _said(
        self,
        fps: float | None,
        start: float,
        stop: float | None,
        size: tuple[int, int] | None,
        clock: Clock,
        done: Choice,
    ) -> list[str]:
        said: list[str] = []
        if fps is not None:
            own = f"{self.rate or self.facts.fps:.4g}" if self.rate or self.facts.fps else "an unknown rate"
            own = f"{own}.0" if own.isdigit() else own
            counts = f"{done.repeated:,} repeated, {done.left_out:,} left out"
            said.append(f"{done.taken:,} frames at {fps:g} a second (the film has {own}): {counts}")
        elif self._listed is not None and self.rate is None:
            said.append(f"{done.taken:,} images; no frame rate is known: times count images")
        else:
            said.append(f"{done.taken:,} frames, each at its own time")
        if start > 0 or stop is not None:
            end = "the end" if stop is None else f"{stop:g} s"
            said.append(f"from {start:g} s to {end}: {done.before:,} frames before it left out")
        if self.rate is not None and self._listed is None:
            said.append(f"frames counted at {self.rate:g} a second, as asked; the file's time stamps were not used")
        elif clock.variable and self._listed is None:
            gaps = f"{clock.shortest:.3g} to {clock.longest:.3g} s between frames, {clock.mean:.3g} on average"
            said.append(f"variable frame rate: {gaps}; time stamps count")
        if size is not None and size != self.facts.size:
            height, width = self.facts.size
            stretch = (size[1] / width) / (size[0] / height)
            shape = "" if abs(stretch - 1) < 0.01 else f", the width {stretch:.3g} times as much as the height"
            how = "by the mean of areas" if size[0] <= height and size[1] <= width else "linearly where it grows"
            said.append(f"{_times(self.facts.size)} brought to {_times(size)} {how}{shape}")
        return said

    def _other_size(self, time: float, size: tuple[int, int]) -> InputError:
        return InputError(
            "the frames change their size",
            where=f"{self.name}, {time:.2f} s",
            found=_times(size),
            expected=f"{_times(self.facts.size)} as before",
            cure="split the film there, or ask for one size (size)",
        )

    def _nothing(self, start: float, stop: float | None, done: Choice) -> InputError:
        lasts = f"the film lasts {done.end:.2f} s" if done.whole else f"no frame before {stop:g} s"
        between = f"between {start:g} s and {'the end' if stop is None else f'{stop:g} s'}"
        return InputError(f"no frame {between}", where=self.name, found=lasts, cure="ask for a time within it")


def _several(shots: Iterator[Shot], name: str) -> Iterator[Shot]:
    """Frames, once it is certain that there are two."""
    first = next(shots, None)
    second = None if first is None else next(shots, None)
    if first is None:
        raise InputError("there is no frame in the film", where=name, cure="record or copy it again")
    if second is None:
        cure = "name a film of two frames or more, or a folder of numbered images"
        raise InputError("the film has one frame", where=name, found="a still", expected="frames in time", cure=cure)
    yield first
    yield second
    del first, second
    yield from shots


def _check_rate(rate: float, where: str, path: pathlib.Path) -> None:
    if not (math.isfinite(rate) and _RATES[0] <= rate <= _RATES[1]):
        expected = f"between {_RATES[0]:g} and {_RATES[1]:g} frames a second"
        raise InputError("no such frame rate", where=f"{where} of {path.name}", found=rate, expected=expected)


def _is_folder(path: pathlib.Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # no possible name: said when it is opened
        return False


def _is_side(side: object) -> bool:
    return isinstance(side, int) and 1 <= side <= _MOST_SIDE


def _times(size: tuple[int, int] | None) -> str:
    return "its size" if size is None else f"{size[1]}x{size[0]}"
