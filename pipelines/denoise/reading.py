"""Whatever a user calls cubes: names, files, arrays; and what is clean enough to train and to measure on."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import InputError

if TYPE_CHECKING:
    from pipelines.data.formats.cube_types import Cube
    from pipelines.denoise.pipeline import Denoiser

__all__ = ["Clean", "clean_of", "clean_sources", "demo_cube", "open_cube", "paths_of"]

#: Endings of pictures, which are lifted to cubes.
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
CUBES = (".mat", ".hdr", ".tif", ".tiff", ".h5", ".hdf5", ".he5", ".npy", ".npz", ".fits", ".fit")


@dataclasses.dataclass(frozen=True)
class Clean:
    """Something clean: a photograph (H, W, 3) uint8 that can be lifted, or a cube (D, H, W) in [0, 1]."""

    name: str
    image: NDArray[np.uint8] | None = None
    cube: NDArray[np.float32] | None = None
    notes: tuple[str, ...] = ()

    def as_cube(self, bands: int, seed: int) -> NDArray[np.float32]:
        """The cube, or the photograph lifted to so many bands; its name and the seed decide the spectra."""
        from pipelines.data.datasets.lifted import lift

        if self.cube is not None:
            return self.cube
        if self.image is None:
            raise InputError("neither a photograph nor a cube", where=self.name)
        digest = hashlib.sha256(f"{seed}:{self.name}".encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:16], "big"))
        return np.ascontiguousarray(lift(self.image.astype(np.float32) / 255, bands, generator), np.float32)


def paths_of(data: Any) -> list[Path]:
    """Files of a path, a folder or several of them.

    Raises:
        InputError: nothing there, or a folder without a cube or a picture.
    """
    from pipelines.data.catalog import entry, is_name, sample_path

    if isinstance(data, (str, Path)):
        if is_name(data, "denoise"):
            return [sample_path(entry(str(data), "denoise"))]
        path = Path(data)
        if not path.exists():
            raise InputError("no such file or folder", where=data, cure="check the path, or see `pipelines list`")
        if not path.is_dir():
            return [path]
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in (*CUBES, *PICTURES) and p.name[0] != ".")
        if not found:
            kinds = ", ".join((*CUBES, *PICTURES))
            raise InputError("nothing to read in this folder", where=path, expected=f"files that end in {kinds}")
        return found
    if isinstance(data, Sequence):
        return [path for part in data for path in paths_of(part)]
    raise InputError("not a cube", where="data", found=type(data).__name__, expected="a path, or several")


def open_cube(d: Denoiser, path: Path) -> Cube:
    """A cube as the pipeline's options say.

    Raises:
        InputError: not a cube, or damaged.
    """
    from pipelines.data.formats.cube import read_cube

    r = d.read
    return read_cube(path, key=r.key, axis=r.axis, shape=r.shape, no_data=r.no_data)


def demo_cube(seed: int) -> Clean:
    """A piece of an embedded photograph that no shipped model was trained on, lifted to 31 bands: (31, 112, 128)."""
    from pipelines.data.catalog import entry, sample_path
    from pipelines.data.formats.image import read_image

    piece = read_image(sample_path(entry("chelsea", "superres"))).pixels[90:202, 130:258]
    cube = Clean("chelsea", image=piece).as_cube(31, seed)
    return Clean("chelsea (a piece of a photograph)", cube=cube, notes=("lifted to 31 bands by random smooth spectra",))


def clean_sources(d: Denoiser, data: Any) -> list[Clean]:
    """Photographs and clean cubes behind a path, a folder, several of them, or arrays (D, H, W).

    Raises:
        InputError: one that cannot be read, or holds voxels without a value.
    """
    if isinstance(data, Clean):
        return [data]
    if isinstance(data, np.ndarray):
        return [_array(data)]
    if isinstance(data, Sequence) and not isinstance(data, str):
        return [one for part in data for one in clean_sources(d, part)]
    return [clean_of(d, path) for path in paths_of(data)]


def clean_of(d: Denoiser, path: Path) -> Clean:
    """One file: a picture as it is, a cube scaled to [0, 1] by its least and largest value.

    Raises:
        InputError: it cannot be read, or is not known everywhere.
    """
    from pipelines.data.formats.cube_scale import fit_scale
    from pipelines.data.formats.image import read_image

    if path.suffix.lower() in PICTURES:
        picture = read_image(path)
        pixels = picture.pixels if picture.pixels.dtype == np.uint8 else (picture.pixels // 257).astype(np.uint8)
        return Clean(path.name, image=np.broadcast_to(pixels, (*pixels.shape[:2], 3)), notes=picture.notes)
    cube = open_cube(d, path)
    values = cube.block(slice(None), slice(None))
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise InputError(
            "a clean cube must be known everywhere",
            where=path.name,
            found=f"{bad:,} of {values.size:,} voxels have no value",
            cure="cut or fill them first",
        )
    scale = fit_scale(cube, "cube")
    return Clean(path.name, cube=scale.forward(values), notes=(*cube.notes, *scale.notes))


def _array(array: NDArray[Any]) -> Clean:
    if array.ndim != 3 or array.dtype.kind not in "fiu" or 0 in array.shape or not np.isfinite(array).all():
        found = f"{array.dtype} {array.shape}"
        raise InputError(
            "not a clean cube", where="data", found=found, expected="finite numbers (bands, rows, columns)"
        )
    low, high = float(array.min()), float(array.max())
    cube = ((array - low) / ((high - low) or 1.0)).astype(np.float32)
    return Clean("array", cube=cube)
