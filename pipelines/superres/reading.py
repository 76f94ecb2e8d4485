"""Whatever a user calls images: names, files, folders, PIL images, arrays; and the large images of training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import UserError
from pipelines.errors import InputError

if TYPE_CHECKING:
    from pipelines.data.formats.image_types import ImageRows
    from pipelines.superres.pipeline import SuperResolver

__all__ = ["ENDINGS", "Source", "find_images", "sources", "training_images", "truth_of"]

#: Endings of the files that are taken for images in a folder.
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")


@dataclasses.dataclass(frozen=True)
class Source:
    """One image before it is read: a file, or an array in memory."""

    name: str
    path: Path | None = None
    array: NDArray[Any] | None = None

    def open(self, r: SuperResolver) -> ImageRows:
        """The image, ready to give its rows.

        Raises:
            InputError: it cannot be read, or holds several pictures without ``first_frame``.
        """
        from pipelines.data.formats.image import open_image
        from pipelines.data.formats.image_types import ArrayRows, ImageMeta

        if self.array is not None:
            return ArrayRows(self.name, self.array, ImageMeta())
        return open_image(self.path or self.name, limit=r.limit * 1_000_000, first_frame=r.first_frame)


def sources(inputs: Any) -> tuple[list[Source], bool]:
    """Every image of what a user gave, and whether one that fails is left out: those of a folder are.

    Raises:
        InputError: nothing there, or no image in a folder.
    """
    if isinstance(inputs, (str, Path)):
        path = _path(inputs)
        if path.is_dir():
            return [Source(str(file.relative_to(path)), file) for file in find_images(path)], True
        return [Source(path.name, path)], False
    if isinstance(inputs, Sequence):
        every = [one for part in inputs for one in sources(part)[0]]
        if not every:
            raise InputError("no image is given", where="inputs", expected="one or more")
        return every, False
    return [Source("image", array=_array(inputs))], False


def _path(given: str | Path) -> Path:
    from pipelines.data.catalog import entry, is_name, sample_path

    if is_name(given, "superres"):
        return sample_path(entry(str(given), "superres"))
    path = Path(given)
    if not path.exists():
        raise InputError("no such file or folder", where=given, cure="check the path, or see `pipelines list`")
    return path


def find_images(folder: Path) -> list[Path]:
    """Image files of a folder and the folders in it, by name.

    Raises:
        InputError: there is none.
    """
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in ENDINGS and not p.name.startswith("."))
    if not found:
        kinds = ", ".join(ENDINGS)
        raise InputError("no image in this folder", where=folder, expected=f"files that end in {kinds}")
    return found


def _array(given: Any) -> NDArray[Any]:
    """(H, W, C) uint8 or uint16 of a PIL image or an array."""
    array = np.asarray(given.convert("RGBA" if "A" in given.getbands() else "RGB") if _is_pil(given) else given)
    if array.ndim == 2:
        array = array[..., None]
    if array.dtype not in (np.uint8, np.uint16) or array.ndim != 3 or array.shape[2] > 4 or 0 in array.shape:
        raise InputError(
            "not an image",
            where="inputs",
            found=f"{type(given).__name__} {array.shape} of {array.dtype}",
            expected="a path, a PIL image, or (H, W), (H, W, 1 to 4) of uint8 or uint16",
            cure="values in [0, 1] times 255, rounded, as uint8",
        )
    return array


def _is_pil(given: Any) -> bool:
    return type(given).__module__.startswith("PIL.") and hasattr(given, "getbands")


def truth_of(source: Source, r: SuperResolver) -> tuple[NDArray[Any], tuple[str, ...]]:
    """All pixels of an image, (H, W, 1 or 3), without alpha, and notes on it."""
    with source.open(r) as image:
        pixels = image.rows(0, image.height)
        notes = [f"{source.name}: {note}" for note in image.meta.notes]
        if image.has_alpha:
            pixels = pixels[..., :-1]
            notes.append(f"{source.name}: alpha is left out")
        return np.ascontiguousarray(pixels), tuple(notes)


def training_images(r: SuperResolver, data: Any) -> dict[str, NDArray[np.uint8]]:
    """Large images by name, RGB, 8 bit; grey ones with three equal channels.

    Raises:
        InputError: images that cannot be read; in a folder every one of them is named.
    """
    images: dict[str, NDArray[np.uint8]] = {}
    wrong: list[str] = []
    found, lenient = sources(data)
    for source in found:
        try:
            pixels, notes = truth_of(source, r)
        except UserError as error:
            if not lenient:
                raise
            wrong.append(str(error))
            continue
        for note in notes:
            r.run.say(f"note: {note}")
        if pixels.dtype == np.uint16:
            pixels = np.floor(pixels / 257.0 + 0.5).astype(np.uint8)
            r.run.say(f"note: {source.name}: 16 bit are rounded to 8 for training")
        name = source.name if source.name not in images else f"{source.name} ({len(images)})"
        images[name] = np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
    if wrong:
        raise InputError(
            f"{len(wrong)} of {len(found)} images cannot be trained on",
            where=data,
            found=" ".join(wrong),
            cure="repair them or take them out of the folder",
        )
    return images
