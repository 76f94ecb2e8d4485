"""Pictures to films: MP4 through PyAV, GIF block by block, one picture after the other in constant memory."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ConfigError, InputError

if TYPE_CHECKING:
    from pipelines.evaluation.report import Report

__all__ = ["FASTEST", "FILM_ENDINGS", "Palette", "add_film", "write_gif", "write_mp4"]

Pixels = NDArray[np.uint8]
FILM_ENDINGS = (".gif", ".mp4")
#: Pictures a second that viewers show: GIFs with shorter delays are slowed down.
FASTEST = {".gif": 25.0, ".mp4": 60.0}
_COLOURS = 256
_SAMPLED = 40_000  # pixels of each picture from which a palette is made
_BLOCK = 8192  # colours whose distances to the palette are held at once


def write_mp4(
    handle: BinaryIO, pictures: Iterator[Pixels], size: tuple[int, int], rate: Fraction, about: str
) -> list[str]:
    """Encode pictures (H, W, 3) of even sides as H.264 (MPEG-4 where PyAV has none), one at a time.

    Args:
        handle: a binary file that can be positioned.
        pictures: all of one size.
        size: W, H in px.
        rate: pictures a second.
        about: a comment that is kept in the file.

    Returns:
        Notes.

    Raises:
        ConfigError: no encoder.
    """
    import av

    encoder = next((name for name in ("libx264", "libopenh264", "mpeg4") if name in av.codecs_available), None)
    if encoder is None:
        raise ConfigError("this PyAV has no MP4 encoder", where="animation", cure="write a .gif")
    with av.open(handle, "w", format="mp4") as film:
        film.metadata["comment"] = about
        stream: Any = film.add_stream(encoder, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        if encoder == "libx264":
            stream.options = {"crf": "20", "preset": "veryfast"}
        else:
            stream.bit_rate = 4_000_000
        stream.codec_context.thread_count = 1  # the drawing takes longer
        for picture in pictures:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        film.mux(stream.encode())
    return [] if encoder == "libx264" else [f"encoded as {encoder}, since this PyAV has no libx264"]


@dataclass(frozen=True, eq=False)
class Palette:
    """The colours of a GIF, and which of them stands for each colour of a picture.

    Args:
        table: (256, 3) colours.
        bits: of each channel that are looked at; 8 finds the nearest colour exactly, 5 looks it up in a table of
            32,768, which is faster for pictures of many colours.

    Raises:
        InputError: a table of another shape or type.

    Example:
        >>> table = np.zeros((256, 3), np.uint8)
        >>> table[1] = 255
        >>> Palette(table).index(np.array([[[250, 255, 240], [9, 0, 0]]], np.uint8)).tolist()
        [[1, 0]]
    """

    table: Pixels
    bits: int = 8

    def __post_init__(self) -> None:
        if self.table.shape != (_COLOURS, 3) or self.table.dtype != np.uint8:
            found = f"{self.table.dtype} {self.table.shape}"
            raise InputError("not the colours of a GIF", where="palette", found=found, expected="uint8 (256, 3)")

    @classmethod
    def of(cls, pictures: Iterable[Pixels], fixed: Iterable[tuple[int, int, int]] = ()) -> Palette:
        """Choose colours for photographs: all there are where these are no more than 256, else a median cut of them.

        Args:
            pictures: (H, W, 3) each, a sample of the film; of large ones a regular grid of pixels is looked at.
            fixed: colours that are kept as they are.

        Raises:
            InputError: no picture.

        Complexity: O(pixels) time; one picture and the sample in memory.

        Source: Heckbert, Color image quantization for frame buffer display (SIGGRAPH 1982), section 3.2; then Lloyd's
        iterations as Pillow does them.

        Example:
            >>> grey = np.repeat(np.arange(200, dtype=np.uint8)[:, None, None], 3, -1)
            >>> palette = Palette.of([grey])
            >>> bool((palette.table[palette.index(grey)] == grey).all())
            True
        """
        kept = np.array([*fixed], np.uint8).reshape(-1, 3)
        sample = [picture.reshape(-1, 3) for picture in pictures]
        pixels = np.concatenate([each[:: -(-len(each) // _SAMPLED)] for each in sample] or [kept])
        colours = _unpacked(np.unique(_packed(np.concatenate([kept, pixels]))))
        if len(colours) > _COLOURS:
            colours = np.concatenate([kept, _median_cut(pixels, _COLOURS - len(kept))])
        if not len(colours):
            raise InputError("no colours to choose from", where="palette", found="no picture", expected="1 or more")
        return cls(np.concatenate([colours, np.tile(colours[-1:], (_COLOURS - len(colours), 1))]))

    def index(self, picture: Pixels) -> Pixels:
        """The place of the nearest colour for each pixel of a picture (H, W, 3): (H, W).

        Complexity: O(pixels) and O(256) for each colour that was not met before, which is remembered (two bytes of
        memory for each possible colour at most, taken as colours come).
        """
        if self.bits < 8:
            parts = np.moveaxis(picture >> (8 - self.bits), -1, 0).astype(np.int32)
            return self._nearest[(parts[0] << 2 * self.bits) | (parts[1] << self.bits) | parts[2]]
        packed = _packed(picture)
        found = self._met[packed]
        if not found.all():
            colours = np.unique(packed[found == 0])
            self._met[colours] = _nearest(_unpacked(colours), self.table).astype(np.uint16) + 1
            found = self._met[packed]
        return (found - 1).astype(np.uint8).reshape(picture.shape[:2])

    @functools.cached_property
    def _met(self) -> NDArray[np.uint16]:
        """One and the place of the nearest colour, for colours met; zero for others, whose memory is never touched."""
        return np.zeros(2**24, np.uint16)

    @functools.cached_property
    def _nearest(self) -> Pixels:
        levels = np.arange(2**self.bits, dtype=np.float32) * (255 / (2**self.bits - 1))
        return _nearest(np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3), self.table)


def _packed(picture: Pixels) -> NDArray[np.uint32]:
    red, green, blue = np.moveaxis(picture.reshape(-1, 3), -1, 0).astype(np.uint32)
    return ((red << 16) | (green << 8) | blue).astype(np.uint32, copy=False)


def _unpacked(colours: NDArray[np.uint32]) -> Pixels:
    return np.stack([colours >> 16, colours >> 8, colours], -1).astype(np.uint8)


def _nearest(colours: NDArray[Any], table: Pixels) -> Pixels:
    """For each colour (N, 3) the place of the nearest one of the table, the first of several."""
    held = table.astype(np.float32)
    squares = (held**2).sum(1)
    out = np.empty(len(colours), np.uint8)
    for start in range(0, len(colours), _BLOCK):
        block = colours[start : start + _BLOCK].astype(np.float32)
        # |c - t|^2 without |c|^2, which is the same for every t; whole numbers below 2^24 are exact in float32.
        out[start : start + _BLOCK] = (squares - 2 * (block @ held.T)).argmin(1)
    return out


def _median_cut(pixels: Pixels, count: int) -> Pixels:
    from PIL import Image

    image = Image.fromarray(pixels[None])
    chosen = image.quantize(count, method=Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)
    return np.array(chosen.getpalette(), np.uint8).reshape(-1, 3)[:count]


def write_gif(
    handle: BinaryIO,
    pictures: Iterator[Pixels],
    size: tuple[int, int],
    rate: Fraction,
    about: str,
    palette: Palette | None = None,
) -> list[str]:
    """Write a GIF that repeats for ever; of each picture but the first only the rectangle in which something changed.

    Args:
        handle: a binary file.
        pictures: (H, W, 3), all of one size.
        size: W, H in px.
        rate: pictures a second, rounded to hundredths of a second a picture.
        about: a comment that is kept in the file.
        palette: the colours of all pictures; by default each picture has its own, which suits photographs.

    Returns:
        Notes.

    Complexity: O(pixels log pixels), two pictures in memory.

    Source: GIF89a specification (CompuServe 1990), sections 17 to 27.

    Example:
        >>> out = io.BytesIO()
        >>> write_gif(out, iter([np.zeros((2, 4, 3), np.uint8)]), (4, 2), Fraction(10), "black")
        []
        >>> out.getvalue()[:6]
        b'GIF89a'
    """
    words = lambda *numbers: b"".join(number.to_bytes(2, "little") for number in numbers)  # noqa: E731
    handle.write(b"GIF89a" + words(*size) + b"\x70\x00\x00")
    handle.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01" + words(0) + b"\x00")  # repeats for ever
    text = about.encode("ascii", "replace")
    blocks = [text[place : place + 255] for place in range(0, len(text), 255)]
    handle.write(b"\x21\xfe" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\x00")
    delay = round(100 / rate)
    before: Pixels | None = None
    for picture in pictures:
        top, left, bottom, right = _changed(before, picture)
        changed = picture[top:bottom, left:right]
        table, bits, data = _gif_data(changed, Palette.of([changed]) if palette is None else palette)
        handle.write(b"\x21\xf9\x04\x04" + words(delay) + b"\x00\x00")  # stays until it is drawn over
        handle.write(b"\x2c" + words(left, top, right - left, bottom - top) + bytes([0x80 | bits]) + table + data)
        before = picture
    handle.write(b"\x3b")
    return []


def _changed(before: Pixels | None, picture: Pixels) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of what differs; one pixel where nothing does."""
    if before is None:
        return 0, 0, picture.shape[0], picture.shape[1]
    red, green, blue = np.moveaxis(before != picture, -1, 0)
    differs = red | green | blue
    rows, columns = np.flatnonzero(differs.any(1)), np.flatnonzero(differs.any(0))
    if not len(rows):
        return 0, 0, 1, 1
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _gif_data(picture: Pixels, palette: Palette) -> tuple[bytes, int, bytes]:
    """Colour table, its size code, and compressed pixels of one picture, cut out of the GIF that Pillow makes of it."""
    from PIL import Image

    image = Image.fromarray(palette.index(picture))
    image.putpalette(palette.table.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "GIF", interlace=0)
    data = buffer.getvalue()
    bits = data[10] & 7
    start = 13 + 3 * 2 ** (bits + 1)
    place = start
    while data[place] == 0x21:  # an extension: a label, blocks, an empty block
        place += 2
        while data[place]:
            place += 1 + data[place]
        place += 1
    # The image begins with a byte of its own, its place and size (8 bytes) and its flags; the file ends with one byte.
    return data[13:start], bits, data[place + 10 : -1]


def add_film(report: Report, gif: bytes, alt: str, *, section: str, caption: str = "") -> None:
    """Add a GIF to a report, moving in the page itself.

    Args:
        report: gets it.
        gif: the file.
        alt: what it shows, for readers who cannot see it.
        section: title of the section.
        caption: below it.

    Raises:
        InputError: no description, or bytes that are not a GIF.

    Example:
        >>> from pipelines.evaluation.report import Report
        >>> out, report = io.BytesIO(), Report("A film")
        >>> _ = write_gif(out, iter([np.zeros((2, 4, 3), np.uint8)]), (4, 2), Fraction(10), "black")
        >>> add_film(report, out.getvalue(), "a black picture", section="Film")
        >>> "a black picture" in report.render()
        True
    """
    if not alt.strip():
        raise InputError("a film needs a description in words", where="alt", cure="say what it shows")
    if gif[:6] not in (b"GIF89a", b"GIF87a") or len(gif) < 10:
        raise InputError("this is not a GIF", where="gif", found=gif[:8])
    width, height = int.from_bytes(gif[6:8], "little"), int.from_bytes(gif[8:10], "little")
    data = base64.b64encode(gif).decode("ascii")
    block = {"kind": "figure", "png": data, "mime": "image/gif", "alt": alt, "caption": caption, "width": width}
    report._add(section, block | {"height": height, "narrow": True})
