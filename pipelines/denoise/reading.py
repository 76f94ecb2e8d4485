"""Whatever a user calls cubes: names, files, folders, arrays; and what is clean enough to train and to measure on."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import InputError

if TYPE_CHECKING:
    from pipelines.data.formats.cube_types import Cube
    from pipelines.denoise.pipeline import Denoiser

__all__ = [
    "Clean",
    "Source",
    "array_cube",
    "clean_of",
    "clean_sources",
    "demo_cube",
    "find_cubes",
    "is_several",
    "open_cube",
    "paths_of",
    "several_sources",
    "with_file",
]

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


@dataclasses.dataclass(frozen=True)
class Source:
    """One of several noisy cubes before it is read.

    Args:
        name: its place in the folder, with slashes; of an array its place in the list.
        path: the file; of an ENVI pair the one whose name the answer needs to get both names again.
        array: (D, H, W) instead of a file.
    """

    name: str
    path: Path | None = None
    array: NDArray[Any] | None = None

    def open(self, d: Denoiser) -> Cube:
        """The cube as the pipeline's options say.

        Raises:
            InputError: not a cube, or damaged.
        """
        return open_cube(d, self.path) if self.path is not None else array_cube(self.array, self.name)


def is_several(inputs: Any) -> bool:
    """Whether what a user gave is a folder or a list: each of its cubes is answered by itself.

    Example:
        >>> is_several("demo"), is_several(["demo"])
        (False, True)
    """
    from pipelines.data.catalog import is_name

    if isinstance(inputs, (str, Path)):
        return not is_name(inputs, "denoise") and Path(inputs).is_dir()
    return isinstance(inputs, Sequence)


def several_sources(inputs: Any) -> tuple[list[Source], int]:
    """Every cube of a folder or a list, each with a name of its own, and how many files of folders are no cubes.

    Raises:
        InputError: an empty list, a folder without a cube, or something that is neither a path nor an array.

    Example:
        >>> found, others = several_sources([np.zeros((2, 4, 4)), "demo", "demo"])
        >>> [source.name for source in found], others
        (['array-0.npy', 'muse.fits', '2-muse.fits'], 0)
    """
    if isinstance(inputs, (str, Path)):
        files, others = find_cubes(Path(inputs))
        return [Source(file.relative_to(inputs).as_posix(), file) for file in files], others
    found: list[Source] = []
    others = 0
    taken: set[str] = set()
    for position, part in enumerate(inputs):
        if is_several(part) and not isinstance(part, (str, Path)):
            raise InputError("a list in a list", where=f"inputs[{position}]", expected="a path or an array (D, H, W)")
        new, more = _part(part, position)
        others += more
        found += [_named_apart(source, taken) for source in new]
    if not found:
        raise InputError("no cube is given", where="inputs", expected="one or more")
    return found, others


def _part(part: Any, position: int) -> tuple[list[Source], int]:
    """The cubes of one entry of a list; those of a folder lie below its name."""
    if isinstance(part, np.ndarray):
        return [Source(f"array-{position}.npy", array=part)], 0
    if isinstance(part, (str, Path)) and is_several(part):
        inside, others = several_sources(part)
        top = Path(part).resolve().name
        return [dataclasses.replace(source, name=f"{top}/{source.name}") for source in inside], others
    if isinstance(part, (str, Path)):
        from pipelines.data.catalog import entry, is_name, sample_path

        path = sample_path(entry(str(part), "denoise")) if is_name(part, "denoise") else Path(part)
        path = _same_name(_envi(path) or (path, path))
        return [Source(path.name, path)], 0
    found, expected = type(part).__name__, "a path, or an array (D, H, W)"
    raise InputError("not a cube", where=f"inputs[{position}]", found=found, expected=expected)


def _named_apart(source: Source, taken: set[str]) -> Source:
    """The source under a name whose files are not taken: cubes of two folders may be called alike."""
    place, number = Path(source.name), 1
    while True:
        name = place if number == 1 else place.with_name(f"{number}-{place.name}")
        files = {name.as_posix()}
        pair = _envi(source.path) if source.path is not None else None
        if pair is not None:
            header = source.path == pair[0]
            files.add(f"{name.with_suffix(pair[1].suffix) if header else f'{name}.hdr'}")
        if not files & taken:
            taken |= files
            return dataclasses.replace(source, name=name.as_posix())
        number += 1


def find_cubes(folder: Path) -> tuple[list[Path], int]:
    """Files of a folder and the folders in it that end like cubes, by name, and how many others there are.

    An ENVI pair is one cube. Hidden files and folders are passed over.

    Raises:
        InputError: there is none.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     for name in ("a.npy", "b.hdr", "b.img", "read.me"):
        ...         _ = Path(place, name).write_bytes(b"")
        ...     found, others = find_cubes(Path(place))
        >>> [file.name for file in found], others
        (['a.npy', 'b.hdr'], 1)
    """
    from pipelines.data.formats.cube_writing import SUFFIXES

    endings = tuple(dict.fromkeys(ending for every in SUFFIXES.values() for ending in every))
    every = [path for path in folder.rglob("*") if not any(part[0] == "." for part in path.relative_to(folder).parts)]
    every = [path for path in every if not path.is_dir()]
    found: set[Path] = set()
    used: set[Path] = set()
    for path in every:
        if path.suffix.lower() in endings:
            pair = _envi(path) or (path, path)
            used |= {path, *pair}
            found.add(_same_name(pair))
    if not found:
        kinds = ", ".join(endings)
        raise InputError("no cube in this folder", where=folder, expected=f"files that end in {kinds}")
    return sorted(found), len(set(every) - used)


def _envi(path: Path) -> tuple[Path, Path] | None:
    """(header, raw file) of an ENVI pair, told by names alone; None for other files and for half a pair."""
    from pipelines.data.formats.cube_envi import envi_pair
    from pipelines.data.formats.cube_writing import SUFFIXES

    if path.suffix.lower() != ".hdr":
        return envi_pair(path) if path.suffix.lower() in SUFFIXES["envi"] else None
    try:
        pair = envi_pair(path)
    except InputError:  # said when the cube is opened
        return None
    # Two headers may stand beside one raw file: the raw file says which is its own.
    return pair and (envi_pair(pair[1]) or pair)


def _same_name(pair: tuple[Path, Path]) -> Path:
    """The file of an ENVI pair under whose name both are found and written again; of other files the file itself."""
    header, raw = pair
    return header if header.with_suffix(raw.suffix) == raw and _envi(header) in (None, pair) else raw


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
        found = [p for p in path.rglob("*") if p.suffix.lower() in (*CUBES, *PICTURES) and p.name[0] != "."]
        found = sorted(p for p in found if not p.is_dir())
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


def array_cube(array: Any, name: str = "array.npy") -> Cube:
    """A cube (D, H, W) in memory, NaN where there is no value.

    Raises:
        InputError: not three axes, one band, no real numbers.

    Example:
        >>> array_cube(np.zeros((3, 4, 5))).shape
        (3, 4, 5)
    """
    from pipelines.data.formats.cube_types import Cube, Layout

    return Cube(Path(name), "npy", array, Layout((0, 1, 2)), meta={"array": True})


@contextlib.contextmanager
def with_file(cube: Cube) -> Iterator[Cube]:
    """The cube with a file that its answer is written like; for an array in memory one that holds a header alone.

    Example:
        >>> with with_file(array_cube(np.zeros((3, 4, 5)))) as cube:
        ...     cube.path.name, cube.path.stat().st_size
        ('array.npy', 128)
    """
    if not cube.meta.get("array"):
        yield cube
        return
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / cube.path.name
        descr = np.lib.format.dtype_to_descr(cube.dtype)
        with path.open("wb") as file:
            header = {"descr": descr, "fortran_order": False, "shape": cube.shape}
            np.lib.format.write_array_header_1_0(file, header)
        yield dataclasses.replace(cube, path=path)


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
