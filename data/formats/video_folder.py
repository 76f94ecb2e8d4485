"""A folder of numbered images as a film: natural order, gaps counted, images read one at a time."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
import pathlib
import re
from collections.abc import Iterator

import numpy as np

from pipelines.data.errors import InputError
from pipelines.data.formats import image as images
from pipelines.data.formats.video_pixels import on_black
from pipelines.data.formats.video_types import Pixels, Shot, VideoFacts

__all__ = ["FolderSource", "Numbered", "numbered_images", "probe_folder"]

_ENDINGS = frozenset(ending for endings in images.ENDINGS.values() for ending in endings)
_NUMBER = re.compile(r"^(.*?)(\d{1,18})(\D*)$")


@dataclasses.dataclass(frozen=True)
class Numbered:
    """Images of a folder in order of their numbers.

    Attributes:
        folder: where they are.
        names: of the files.
        numbers: of the frames, counted from 0 in the step that they are numbered by.
        notes: gaps, and files that are not among them.
    """

    folder: pathlib.Path
    names: tuple[str, ...]
    numbers: tuple[int, ...]
    notes: tuple[str, ...]


def numbered_images(folder: str | os.PathLike[str]) -> Numbered:
    """The images of a folder whose names differ in a number only, 2 before 10; missing numbers are counted.

    Args:
        folder: the folder; folders within are not looked into.

    Raises:
        InputError: no folder, no images, no numbers, several series, a number twice.

    Complexity: O(n log n) for n files.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("f9.png", "f10.png", "f12.png", "readme.txt"):
        ...         _ = pathlib.Path(folder, name).write_bytes(b"")
        ...     found = numbered_images(folder)
        >>> found.names, found.numbers
        (('f9.png', 'f10.png', 'f12.png'), (0, 1, 3))
        >>> found.notes
        ('1 number is missing between 9 and 12 (first: 11): their time passes without an image of its own',)
    """
    folder = pathlib.Path(folder)
    try:
        files = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    except OSError as error:
        raise InputError("the folder cannot be read", where=folder, found=error.strerror) from None
    names = [name for name in files if pathlib.PurePath(name).suffix.lower() in _ENDINGS and name[0] != "."]
    if not names:
        found = f"{len(files):,} files, none with the ending of an image" if files else "no files"
        expected = f"images with the endings {', '.join(sorted(_ENDINGS))}"
        raise InputError("no images in the folder", where=folder, found=found, expected=expected)
    series: dict[tuple[str, str], dict[int, str]] = {}
    without: list[str] = []
    for name in names:
        match = _NUMBER.match(pathlib.PurePath(name).stem)
        if match is None:
            without.append(name)
            continue
        before, number, after = match.groups()
        members = series.setdefault((before, after), {})
        if int(number) in members:
            found = f"{members[int(number)]} and {name}"
            raise InputError(f"the number {int(number)} twice", where=folder, found=found, cure="take one of them away")
        members[int(number)] = name
    if not series:
        found, cure = f"{len(names):,} images such as {names[0]}", "number them in order of time"
        raise InputError("images without numbers", where=folder, found=found, expected="0001.png, ...", cure=cure)
    if len(series) > 1:
        kinds = [f"{before}#{after} ({len(members):,})" for (before, after), members in sorted(series.items())]
        found = ", ".join(kinds[:5]) + (", ..." if len(kinds) > 5 else "")
        cure = "put each series into a folder of its own"
        raise InputError(f"{len(series)} series of numbered images", where=folder, found=found, cure=cure)
    return _ordered(folder, next(iter(series.values())), without)


def _ordered(folder: pathlib.Path, members: dict[int, str], without: list[str]) -> Numbered:
    numbers = sorted(members)
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    step = math.gcd(*steps) or 1
    notes: list[str] = []
    if step > 1:
        notes.append(f"images are numbered in steps of {step}")
    missing = (numbers[-1] - numbers[0]) // step + 1 - len(numbers)
    if missing:
        at = next(a + step for a, gap in zip(numbers, steps, strict=False) if gap > step)
        what = "number is" if missing == 1 else "numbers are"
        between = f"between {numbers[0]} and {numbers[-1]} (first: {at})"
        notes.append(f"{missing:,} {what} missing {between}: their time passes without an image of its own")
    if without:
        what = "image without a number" if len(without) == 1 else "images without a number"
        notes.append(f"{len(without):,} {what} in the name left out (such as {without[0]})")
    places = tuple((number - numbers[0]) // step for number in numbers)
    return Numbered(folder, tuple(members[number] for number in numbers), places, tuple(notes))


class FolderSource:
    """One pass over the images of a folder.

    Args:
        listed: the images.
        rate: frames a second; None: their numbers are the time.
        limit: most pixels of an image.
    """

    def __init__(self, listed: Numbered, rate: float | None, limit: int) -> None:
        self._listed, self._period, self._limit = listed, 1 / (rate or 1.0), limit
        self.tick = 0.0
        self._bad: list[str] = []
        self._said: dict[str, int] = {}
        self._transparent = 0

    def shots(self) -> Iterator[Shot]:
        """Images in order; those that cannot be read are counted and passed over."""
        for name, number in zip(self._listed.names, self._listed.numbers, strict=True):
            try:
                pixels = self._pixels(name)
            except InputError as error:
                self._bad.append(str(error))
                continue
            yield Shot(number * self._period, self._period, pixels.shape[:2], functools.partial(_same, pixels))

    def _pixels(self, name: str) -> Pixels:
        with images.open_image(self._listed.folder / name, limit=self._limit) as opened:
            stored = opened.rows(0, opened.height)
            notes, alpha = opened.meta.notes, opened.has_alpha
        if stored.dtype == np.uint16:  # the upper eight bits, as films of 10 and more bits are brought to 8
            stored = (stored >> 8).astype(np.uint8)
            notes = (*notes, "16 bits a colour brought to 8")
        for note in notes:
            self._said[note] = self._said.get(note, 0) + 1
        colours = stored[..., :-1] if alpha else stored
        rgb = np.repeat(colours, 3, axis=2) if colours.shape[2] == 1 else colours
        if alpha:
            rgb, transparent = on_black(np.concatenate([rgb, stored[..., -1:]], axis=2))
            self._transparent += transparent
        return np.ascontiguousarray(rgb)

    def remarks(self, seconds: float | None) -> list[str]:
        """What is to be said of the pass."""
        found = list(self._listed.notes)
        if self._bad:
            found.append(f"{_many(len(self._bad))} could not be read: left out (first: {self._bad[0]})")
        if self._transparent:
            found.append(f"{_many(self._transparent)} with transparent pixels: put on black")
        found += [f"{_many(count)}: {note}" for note, count in sorted(self._said.items())]
        return found

    def close(self) -> None:
        """Nothing is open between images."""


def _many(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"


def _same(pixels: Pixels) -> Pixels:
    return pixels


def probe_folder(listed: Numbered, rate: float | None, limit: int) -> VideoFacts:
    """What the film of a folder is, from its first image that can be read.

    Raises:
        InputError: none of them can be read.
    """
    first: InputError | None = None
    for name in listed.names:
        try:
            with images.open_image(listed.folder / name, limit=limit) as opened:
                return VideoFacts(
                    height=opened.height,
                    width=opened.width,
                    fps=rate,
                    seconds=(listed.numbers[-1] + 1) / rate if rate else None,
                    frames=len(listed.names),
                    container="images",
                    codec=opened.meta.format,
                    pixels=str(opened.dtype),
                    bits=8 * np.dtype(opened.dtype).itemsize,
                    alpha=opened.has_alpha,
                    grey=opened.channels - opened.has_alpha == 1,
                )
        except InputError as error:
            first = first or error
    raise InputError("none of the images can be read", where=listed.folder, found=f"first: {first}")
