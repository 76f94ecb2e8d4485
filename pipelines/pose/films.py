"""Pictures to films: MP4 through PyAV, GIF block by block, in constant memory."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ConfigError
from pipelines.evaluation import plots as house
from pipelines.pose.body import GREY

__all__ = ["write_gif", "write_mp4"]

Pixels = NDArray[np.uint8]


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


def write_gif(
    handle: BinaryIO, pictures: Iterator[Pixels], size: tuple[int, int], rate: Fraction, about: str
) -> list[str]:
    """Write a GIF that repeats for ever; of each picture but the first only the rectangle in which something changed.

    Args as `write_mp4`; the rate is rounded to hundredths of a second a picture.

    Complexity: O(pixels), two pictures in memory.

    Source: GIF89a specification (CompuServe 1990), sections 17 to 27.
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
        table, bits, data = _gif_data(picture[top:bottom, left:right])
        handle.write(b"\x21\xf9\x04\x04" + words(delay) + b"\x00\x00")  # stays until it is drawn over
        handle.write(b"\x2c" + words(left, top, right - left, bottom - top) + bytes([0x80 | bits]) + table + data)
        before = picture
    handle.write(b"\x3b")
    return []


def _changed(before: Pixels | None, picture: Pixels) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of what differs; one pixel where nothing does."""
    if before is None:
        return 0, 0, picture.shape[0], picture.shape[1]
    differs = (before != picture).any(-1)
    rows, columns = np.flatnonzero(differs.any(1)), np.flatnonzero(differs.any(0))
    if not len(rows):
        return 0, 0, 1, 1
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


@functools.cache
def _palette() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The 256 colours of a GIF (256, 3) and the place of the nearest one for each colour of 5 bits a channel.

    Every colour of the pictures fades into white, and those of the two sides and the middle into each other.
    """
    base = [house.BLUE, house.ORANGE, house.INK, house.FAINT, GREY, house.SKY]
    colours = np.array([[int(text[place : place + 2], 16) for place in (1, 3, 5)] for text in base], np.float32)
    white, steps = np.full(3, 255, np.float32), np.linspace(0, 1, 33, dtype=np.float32)[1:, None]
    fading = [white[None], *(white + steps * (colour - white) for colour in colours)]
    pairs = [(first, second) for first in range(3) for second in range(first)]
    mixed = [colours[a] + steps[2:-2:2] * (colours[b] - colours[a]) for a, b in pairs]
    table = np.concatenate([*fading, *mixed])[:256].round()
    levels = np.stack(np.meshgrid(*[np.arange(32, dtype=np.float32) * (255 / 31)] * 3, indexing="ij"), -1)
    nearest = [((block[:, None] - table) ** 2).sum(-1).argmin(1) for block in levels.reshape(32, -1, 3)]
    whole = np.zeros((256, 3), np.uint8)
    whole[: len(table)] = table
    return whole, np.concatenate(nearest).astype(np.uint8)


def _gif_data(picture: Pixels) -> tuple[bytes, int, bytes]:
    """Colour table, its size code, and compressed pixels of one picture, cut out of the GIF that Pillow makes of it."""
    from PIL import Image

    table, nearest = _palette()
    red, green, blue = np.moveaxis(picture >> 3, -1, 0).astype(np.int32)
    image = Image.fromarray(nearest[(red << 10) | (green << 5) | blue])
    image.putpalette(table.tobytes())
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
