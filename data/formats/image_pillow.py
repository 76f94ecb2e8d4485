"""Images that are decoded as a whole through Pillow: JPEG, WebP, BMP, GIF, and TIFF with packings of theirs."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.data.errors import InputError
from pipelines.data.formats.image_exif import orientation_of, read_exif
from pipelines.data.formats.image_types import ImageMeta, ImageRows, check_pixels, damaged

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["pillow_rows", "unlimited"]

_CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
_BAND = 256  # rows that are cut out at a time
_CONVERTED = {
    "1": ("L", "1-bit grey widened to 8 bits"),
    "P": ("RGB", "palette read as RGB"),
    "PA": ("RGBA", "palette read as RGB with alpha"),
    "RGBX": ("RGB", "a further channel left out"),
    "CMYK": ("RGB", "CMYK read as RGB"),
    "YCbCr": ("RGB", "YCbCr read as RGB"),
}


class PillowRows(ImageRows):
    """An image that Pillow has decoded, 4 bytes a pixel; rows are cut out of it, so that no second copy is made."""

    def __init__(self, path: pathlib.Path, image: Image.Image, meta: ImageMeta, orientation: int) -> None:
        super().__init__(path, image.height, image.width, _CHANNELS[image.mode], np.uint8, meta, orientation)
        self._image: Image.Image | None = image

    def close(self) -> None:
        """Let go of the decoded image."""
        self._image = None

    def _rows(self, start: int, stop: int) -> np.ndarray:
        if self._image is None:
            raise InputError("the image is closed", where=self.path.name)
        made = np.empty((stop - start, self.width, self.channels), np.uint8)
        for top in range(start, stop, _BAND):
            low = min(top + _BAND, stop)
            part = np.asarray(self._image.crop((0, top, self.width, low)))
            made[top - start : low - start] = part.reshape(low - top, self.width, self.channels)
        return made


def pillow_rows(path: str | os.PathLike[str], kind: str, limit: int) -> PillowRows:
    """Decode the first picture of a file.

    Args:
        path: the file.
        kind: JPEG, WEBP, BMP, GIF or TIFF; no other decoder is tried.
        limit: most pixels.

    Raises:
        InputError: damaged, cut short, too many pixels, or of a kind that is not read.

    Complexity: O(H W) time and memory, 8 bits a sample.
    """
    from PIL import Image

    path = pathlib.Path(path)
    with unlimited(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path, formats=[kind]) as image:
                check_pixels(path, image.height, image.width, limit)
                exif, orientation, of_exif = read_exif(image.info.get("exif"))
                if kind == "TIFF":
                    _, of_exif = orientation_of(int(image.getexif().get(274, 1)))
                meta = ImageMeta(kind, image.info.get("icc_profile"), exif, _dpi(image), _frames(image, kind))
                image.load()
                decoded, icc, notes = _as_read(image, path, meta.icc)
                if kind == "TIFF":
                    exif, orientation = None, 1  # Pillow turns TIFF itself
                notes = (*notes, *of_exif, *_left_out(image, kind))
        except InputError:
            raise
        except MemoryError as error:
            raise InputError("the image does not fit into memory", where=path.name) from error
        except Exception as error:  # decoders raise whatever their parsing stumbles over
            raise damaged(path, f"the {kind} is damaged or cut short", str(error)[:200] or repr(error)) from None
    meta = ImageMeta(kind, icc, exif, meta.dpi, meta.frames, (), notes)
    return PillowRows(path, decoded, meta, orientation)


@contextlib.contextmanager
def unlimited() -> Iterator[None]:
    """Pillow's own limit of pixels off: the caller has a limit and checks it before anything is decoded."""
    from PIL import Image

    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _as_read(
    image: Image.Image, path: pathlib.Path, icc: bytes | None
) -> tuple[Image.Image, bytes | None, tuple[str, ...]]:
    """The image in a mode of 8-bit grey or RGB, the profile that still holds, and notes."""
    notes: tuple[str, ...] = ()
    if image.mode == "CMYK" and icc:
        image, icc, notes = _managed(image, icc)
    elif image.mode in _CONVERTED:
        mode, note = _CONVERTED[image.mode]
        if image.mode == "P" and "transparency" in image.info:
            mode, note = "RGBA", "palette read as RGB with alpha"
        image, notes = image.convert(mode), (note,)
    elif image.mode in ("L", "RGB") and "transparency" in image.info:
        image, notes = image.convert("LA" if image.mode == "L" else "RGBA"), ("one transparent colour read as alpha",)
    if image.mode not in _CHANNELS:
        raise InputError(
            "an image of this kind is not read",
            where=path.name,
            found=f"Pillow's mode {image.mode}",
            cure="save it as an 8-bit or 16-bit grey or RGB PNG",
        )
    return image, icc, notes


def _managed(image: Image.Image, icc: bytes) -> tuple[Image.Image, None, tuple[str, ...]]:
    """CMYK through its own profile to sRGB; without the profile's help where it is damaged."""
    from PIL import ImageCms

    try:
        target: Any = ImageCms.createProfile("sRGB")
        made = ImageCms.profileToProfile(image, io.BytesIO(icc), target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        made = None
    if made is None:
        return image.convert("RGB"), None, ("CMYK read as RGB, its colour profile is damaged: left out",)
    return made, None, ("CMYK read as sRGB through its colour profile, which no longer applies",)


def _frames(image: Image.Image, kind: str) -> int:
    # The further pictures in a camera's JPEG are previews and depth or gain maps, not an animation.
    return 1 if kind == "JPEG" else int(getattr(image, "n_frames", 1))


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    found = image.info.get("dpi")
    if not found or not all(float(value) > 0 for value in found[:2]):
        return None
    return float(found[0]), float(found[1])


def _left_out(image: Image.Image, kind: str) -> tuple[str, ...]:
    names = (("xmp", "XMP"), ("comment", "comment"), ("photoshop", "Photoshop block"))
    notes = [f"{name} left out" for key, name in names if image.info.get(key)]
    further = int(getattr(image, "n_frames", 1)) - 1
    if kind == "JPEG" and further > 0:
        notes.append(f"{further} further {'picture' if further == 1 else 'pictures'} inside the JPEG left out")
    return tuple(notes)
