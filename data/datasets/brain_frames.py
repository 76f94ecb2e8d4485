"""Runs in the formats of SwiFT's and NeuroSTORM's preparations: a folder of frames, or one file of 8-bit numbers.

SwiFT keeps every volume of a run in a file `frame_<i>.pt`, a float16 tensor (X, Y, Z, 1) with standardised values and
the background at its fill value. NeuroSTORM keeps a run in one `data.pt`: int8 `frames` (T, X, Y, Z), the `scale` that
they are multiplied with, and `num_frames`. Neither holds an affine, a voxel size or a repetition time.
"""

from __future__ import annotations

import pathlib
import re
import secrets
import shutil
import sys
import zipfile
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.nifti_types import Scan, Stored

if TYPE_CHECKING:
    from pipelines.data.datasets.brain_prepared import Prepared

__all__ = ["Frames", "is_frames", "open_frames", "write_frames"]

_NAME = re.compile(r"frame_(\d{1,9})\.pt")
_BLOB = "data.pt"
#: All that a saved tensor or a dictionary of tensors and numbers names; anything else is refused unread.
_GLOBALS = re.compile(
    r"(torch\._utils _rebuild_tensor_v2|collections OrderedDict|torch (Half|Float|Double|BFloat16|Char)Storage)"
)
_PICKLE_LIMIT = 1 << 16
_LARGEST_FRAME = 1 << 31
_AGAIN = "prepare the run again"


def is_frames(source: object) -> bool:
    """Whether a source is a folder with a prepared run.

    Example:
        >>> is_frames("scan.nii.gz"), is_frames(3)
        (False, False)
    """
    if not isinstance(source, str | pathlib.Path):
        return False
    folder = pathlib.Path(source)
    return folder.is_dir() and ((folder / _BLOB).is_file() or any(folder.glob("frame_*.pt")))


class Frames(ABC):
    """The volumes of a prepared run, read one at a time.

    Args:
        background: value of the first voxel of the first volume, which is background.
        count: number of volumes.
        shape: voxels along X, Y and Z.
        dtype: numbers as they are stored.
    """

    background: float
    count: int
    shape: tuple[int, int, int]
    dtype: str
    scale: float = 1.0

    @abstractmethod
    def volume(self, index: int) -> NDArray[Any]:
        """One volume (X, Y, Z) as stored."""

    def close(self) -> None:  # noqa: B027 - most keep nothing open
        """Nothing stays open."""


class _Files(Frames):
    """One file a volume."""

    def __init__(self, paths: list[pathlib.Path]) -> None:
        self.paths, self.count = paths, len(paths)
        first = _frame(paths[0])
        self.shape, self.dtype = first.shape, str(first.dtype)
        self.background = float(first.flat[0])

    def volume(self, index: int) -> NDArray[Any]:
        """One volume (X, Y, Z) as stored."""
        values = _frame(self.paths[index])
        if values.shape != self.shape:
            raise InputError(
                "a frame of another shape than the first",
                where=self.paths[index],
                found=values.shape,
                expected=self.shape,
            )
        return values


class _Blob(Frames):
    """One file a run, mapped into memory."""

    def __init__(self, path: pathlib.Path) -> None:
        import torch

        held = _load(path, mapped=True)
        if not isinstance(held, dict) or not {"frames", "scale", "num_frames"} <= held.keys():
            found = ", ".join(map(str, held)) if isinstance(held, dict) else type(held).__name__
            raise InputError("no prepared run", where=path, found=found, expected="frames, scale and num_frames")
        frames = _plain_tensor(held["frames"], path)
        if frames.dtype != torch.int8 or frames.dim() != 4 or min(frames.shape) < 1:
            found = f"{frames.dtype} {tuple(frames.shape)}"
            raise InputError("the frames have another form", where=path, found=found, expected="int8 (T, X, Y, Z)")
        self.scale = _number(held["scale"], path, "scale")
        if not 0 < self.scale < np.inf:
            raise InputError("no such scale", where=path, found=self.scale, expected="a positive number")
        self.count, *sizes = (int(n) for n in frames.shape)
        if _number(held["num_frames"], path, "num_frames") != self.count:
            found = f"num_frames {held['num_frames']}, {self.count} frames"
            raise InputError("the number of frames is not what the file says", where=path, found=found, cure=_AGAIN)
        self.shape, self.dtype = (sizes[0], sizes[1], sizes[2]), "int8"
        self.stored = frames.numpy()
        self.background = float(np.float32(self.stored.flat[0] * np.float64(self.scale)))

    def volume(self, index: int) -> NDArray[Any]:
        """One volume (X, Y, Z) as stored."""
        return self.stored[index]


def open_frames(folder: str | pathlib.Path, *, name: str | None = None, tr: float | None = None) -> Scan:
    """Open a prepared run; its `volumes` are `Frames`, which know the background value.

    Frames are ordered by number, not by name, and none is left out. A `data.pt` beside frames counts.

    Args:
        folder: with `frame_<i>.pt` from 0 on, or `data.pt`.
        name: what messages call it; None: the folder's name.
        tr: s, where it is known from elsewhere.

    Raises:
        InputError: no folder of frames, a gap between the numbers, fewer than two volumes; a file that is damaged,
            holds anything but a plain tensor or was written by torch before 1.6; another shape than the first.

    Complexity: O(number of files); volumes are read when asked for. `data.pt` is read once for its checksum.

    Source: Transconnectome/SwiFT, preprocessing.py; CUHK-AIM-Group/NeuroSTORM, preprocessing_volume.py.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for i in range(3):
        ...         torch.save(torch.full((2, 2, 1, 1), float(i)).half(), f"{folder}/frame_{i}.pt")
        ...     scan = open_frames(folder, name="sub-01")
        ...     scan.shape, scan.frames(1, 3)[0, 0, 0].tolist()
        ((2, 2, 1, 3), [1.0, 2.0])
    """
    folder = pathlib.Path(folder)
    name = folder.name if name is None else name
    blob = folder / _BLOB
    volumes = _Blob(blob) if blob.is_file() else _Files(_numbered(folder))
    if volumes.count < 2:
        raise InputError("one volume is no run", where=folder, found=volumes.count, expected="2 or more")
    others = sum(1 for one in folder.iterdir() if one.name != _BLOB and not _NAME.fullmatch(one.name))
    notes = [f"prepared frames ({volumes.dtype}): voxel size and position are unknown"]
    if isinstance(volumes, _Blob) and (beside := sum(1 for _ in folder.glob("frame_*.pt"))):
        others -= sum(1 for one in folder.glob("frame_*.pt") if not _NAME.fullmatch(one.name))
        notes.append(f"{beside} frames beside {_BLOB} were not read")
    if others > 0:
        notes.append(f"{others} files beside the frames were not read")
    if tr is None:
        notes.append("no repetition time")
    stored = Stored((*volumes.shape, volumes.count), np.eye(4), ("R", "A", "S"), volumes.dtype, 0, 0)
    shape = (*volumes.shape, volumes.count)
    return Scan(name, folder, shape, np.eye(4), tr, stored, tuple(notes), volumes, (volumes.scale, 0.0))


def _numbered(folder: pathlib.Path) -> list[pathlib.Path]:
    """Files of the frames by number; from 0 without a gap."""
    try:
        found = {int(hit[1]): path for path in folder.iterdir() if (hit := _NAME.fullmatch(path.name))}
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=folder) from error
    if not found:
        raise InputError("no frames", where=folder, expected="frame_0.pt, frame_1.pt, ... or data.pt")
    missing = sorted(set(range(max(found) + 1)) - found.keys()) if max(found) < 10**7 else [len(found)]
    if missing:
        text = f"{len(found)} frames up to number {max(found)}, the first missing one is {missing[0]}"
        raise InputError("frames are missing", where=folder, found=text, expected="every number from 0 on", cure=_AGAIN)
    return [found[i] for i in range(len(found))]


def _frame(path: pathlib.Path) -> NDArray[Any]:
    """The volume (X, Y, Z) of one file."""
    import torch

    tensor = _plain_tensor(_load(path), path)
    if tensor.dim() != 4 or tensor.shape[3] != 1 or min(tensor.shape) < 1 or not tensor.dtype.is_floating_point:
        found = f"{tensor.dtype} {tuple(tensor.shape)}"
        raise InputError("a frame of another form", where=path, found=found, expected="float16 (X, Y, Z, 1)")
    values = tensor[..., 0]
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def _plain_tensor(value: Any, path: pathlib.Path) -> Any:
    """The value, if it is a tensor whose numbers are all in the file: strides can promise far more than there is."""
    import torch

    if type(value) is not torch.Tensor or value.layout != torch.strided or value.device.type != "cpu":
        raise InputError("no plain tensor", where=path, found=type(value).__name__, cure=_AGAIN)
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise InputError("a tensor larger than its numbers", where=path, found=tuple(value.shape), cure=_AGAIN)
    return value


def _number(value: Any, path: pathlib.Path, what: str) -> float:
    import torch

    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = _plain_tensor(value, path).reshape(()).item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{what} is no number", where=path, found=type(value).__name__)
    return float(value)


def _load(path: pathlib.Path, *, mapped: bool = False) -> Any:
    """What torch.save wrote, after its container has been checked: checksums, sizes, and what the pickle names."""
    import torch

    try:
        _check_container(path, None if mapped else _LARGEST_FRAME)
        return torch.load(path, weights_only=True, map_location="cpu", mmap=mapped)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=path) from error
    except Exception as error:  # torch and zipfile raise many kinds on damaged files
        text = " ".join(str(error).split())[:160]
        raise InputError("damaged, or no file that torch.save wrote", where=path, found=text, cure=_AGAIN) from error


def _check_container(path: pathlib.Path, largest: int | None) -> None:
    size = path.stat().st_size
    if largest is not None and size > largest:
        raise InputError("too large for a frame", where=path, found=f"{size:,} bytes", expected=f"{largest:,} at most")
    if not zipfile.is_zipfile(path):
        cure = "write it again with torch 1.6 or newer"
        raise InputError("no file that torch.save wrote, or cut", where=path, found=f"{size:,} bytes", cure=cure)
    with zipfile.ZipFile(path) as held:
        members = held.infolist()
        if any(one.compress_type != zipfile.ZIP_STORED for one in members) or sum(m.file_size for m in members) > size:
            raise InputError("compressed inside, which torch.save never does", where=path, cure=_AGAIN)
        if (bad := held.testzip()) is not None:
            raise InputError("a wrong checksum", where=path, found=bad, cure=_AGAIN)
        for one in members:
            if one.filename.endswith("/byteorder") and held.read(one).decode("ascii", "replace") != sys.byteorder:
                raise InputError("numbers of another byte order", where=path, expected=sys.byteorder)
            if one.filename.endswith("/data.pkl"):
                _check_names(held.read(one) if one.file_size <= _PICKLE_LIMIT else b"", path)


def _check_names(pickled: bytes, path: pathlib.Path) -> None:
    """Refuse a pickle that names anything but tensors; it is only listed here, not run."""
    import pickletools

    for code, argument, _ in pickletools.genops(pickled):
        if code.name == "STACK_GLOBAL" or (code.name in ("GLOBAL", "INST") and not _GLOBALS.fullmatch(str(argument))):
            cure = "only plain tensors of numbers are read"
            raise InputError("holds more than a tensor", where=path, found=str(argument), cure=cure)


def write_frames(prepared: Prepared, folder: str | pathlib.Path, *, boxed: bool = False) -> pathlib.Path:
    """Write a prepared run as SwiFT's frames, `frame_0.pt` on, so that the released code can train on it.

    The released reader pads volumes itself and takes the first voxel's value as background, so volumes are written
    before cutting and padding unless `boxed`. It also counts two files fewer than there are: to let it read every
    volume, put two more files of any content beside them. Float16 keeps 11 bits: values move by 1 in 2,048 at most.

    Args:
        prepared: the run.
        folder: new or empty; it appears when every frame is written.
        boxed: as the model sees them.

    Raises:
        InputError: a folder that is not empty or cannot be written, values beyond float16.

    Complexity: O(voxels x volumes) time, memory of a few volumes.
    """
    import torch

    folder = pathlib.Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError("the folder for frames is there and not empty", where=folder, cure="name a new folder")
    staging = folder.with_name(f".{folder.name[:100]}.{secrets.token_hex(4)}.partial")
    try:
        staging.mkdir(parents=True)
        for index in range(prepared.volumes):
            values = prepared.window(index, 1, boxed=boxed)
            with np.errstate(over="ignore"):
                half = values.astype(np.float16)
            if not np.isfinite(half).all():
                found = f"{float(np.abs(values).max()):.4g} in volume {index}"
                raise InputError(
                    "a value beyond float16", where=prepared.name, found=found, cure="standardise the run first"
                )
            torch.save(torch.from_numpy(np.ascontiguousarray(half)), staging / f"frame_{index}.pt")
        if folder.exists():
            folder.rmdir()
        staging.rename(folder)
    except OSError as error:
        raise InputError(f"frames cannot be written ({error.strerror or error})", where=folder) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder
