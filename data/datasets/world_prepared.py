"""A film made ready for a model in one pass: frames of one size in a memory map that any number of readers share."""

from __future__ import annotations

import atexit
import contextlib
import errno
import hashlib
import json
import os
import pathlib
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.world_types import check_range
from pipelines.data.errors import InputError
from pipelines.data.formats.video import VideoFile
from pipelines.data.formats.video_folder import numbered_images
from pipelines.data.formats.video_pixels import grey

__all__ = ["Colour", "MemmapFrames", "Progress", "prepare_video"]

Colour = Literal["rgb", "grey"]
#: Called with the frames written and how many there will be, None where that is not known.
Progress = Callable[[int, int | None], object]

_FORMAT = 1  # of the cache: another number makes every film be read anew
_HEADER = 128
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class MemmapFrames:
    """Frames (T, H, W, C) uint8 in an .npy file, read by range; it travels to other processes as a path.

    Args:
        path: the file.

    Raises:
        InputError: no such file, or not an array of frames, or shorter than its header says.

    Complexity: O(1) to open, O(frames read) to read; memory of what is asked for.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/a.npy", np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1))
        ...     frames = MemmapFrames(f"{folder}/a.npy")
        ...     frames.shape, int(frames.read(1, 2).sum())
        ((2, 3, 4, 1), 210)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(path)
        self._map: NDArray[np.uint8] | None = None
        self.shape, self._begin = _layout(self.path)

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Frames start to stop (excluded) as an array of its own, (stop - start, H, W, C) uint8.

        Raises:
            InputError: a range outside, or the file is gone.
        """
        check_range(start, stop, self.shape[0])
        if self._map is None:
            try:
                self._map = np.memmap(self.path, np.uint8, "r", self._begin, self.shape)
            except (OSError, ValueError) as error:
                cure = "prepare the film again; a cache in a temporary folder ends with its process"
                raise InputError("the frames are gone", where=self.path, found=error, cure=cure) from None
        return np.array(self._map[start:stop])

    def __getstate__(self) -> dict[str, object]:
        """Everything but the open map."""
        return {**self.__dict__, "_map": None}


def prepare_video(
    path: str | os.PathLike[str],
    *,
    size: tuple[int, int] | None,
    colour: Colour = "rgb",
    fps: float | None = None,
    rate: float | None = None,
    start: float = 0.0,
    stop: float | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> tuple[MemmapFrames, NDArray[np.float64], tuple[str, ...]]:
    """Bring a film, or a folder of numbered images, to frames of one size in a memory map, in one streaming pass.

    The map lies in a cache and is found again by the film's content and these settings. A film that fails or is
    interrupted leaves nothing there.

    Args:
        path: the film or folder.
        size: (height, width) to come, by the mean of areas; None: as they are.
        colour: "rgb" or "grey" (0.299 R + 0.587 G + 0.114 B).
        fps: frames a second to take, Hz: those on screen at start + k / fps; None: each once, at its own time.
        rate: frames a second of the film itself, Hz, instead of its time stamps; a folder of images has none.
        start: s.
        stop: s, excluded; None: to the end.
        cache: folder of the cache, kept; None: a temporary one, which ends with this process.
        progress: called with (frames written, frames to come or None) after each frame.

    Returns:
        Frames (T, H, W, C) uint8, their times (T,) in s since the first frame of the film, and notes: what was
        converted, repeated, left out or damaged, counted.

    Raises:
        InputError: a film that cannot be read (see `VideoFile`), a cache that cannot be written, a full disk.

    Complexity: one pass of decoding and one of hashing; memory of two frames whatever the length.

    Example:
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     shades = [Image.new("L", (8, 6), 40 * k) for k in range(5)]
        ...     shades[0].save(f"{folder}/a.gif", save_all=True, append_images=shades[1:], duration=100)
        ...     frames, times, notes = prepare_video(f"{folder}/a.gif", size=(3, 4), colour="grey", cache=folder)
        ...     frames.shape, times.round(3).tolist(), frames.read(1, 3)[:, 0, 0, 0].tolist()
        ((5, 3, 4, 1), [0.0, 0.1, 0.2, 0.3, 0.4], [40, 80])
        >>> notes[0]
        '5 frames, each at its own time'
    """
    if colour not in ("rgb", "grey"):
        raise InputError("no such colour", where="colour", found=colour, expected="rgb or grey")
    film = VideoFile(path, rate=rate)
    settings = {"size": size, "colour": colour, "fps": fps, "rate": rate, "start": start, "stop": stop}
    stream = film.frames(fps, start, stop, size)  # refuses bad settings
    folder = pathlib.Path(cache).expanduser() if cache is not None else _temporary_cache()
    entry = folder / f"{film.path.stem[:40]}-{_key(film.path, settings)}"
    found = _found(entry)
    if found is not None:
        return found
    expected = _expected(film, fps, start, stop)
    channels = 1 if colour == "grey" else 3
    height, width = size or film.facts.size
    _check_room(folder, (expected or 0) * height * width * channels)
    with _explained(folder), contextlib.closing(_Writer(entry, (height, width, channels))) as writer:
        for time, pixels in stream:
            writer.add(time, grey(pixels)[..., None] if colour == "grey" else pixels)
            if progress is not None:
                progress(len(writer.times), expected)
        notes = film.notes
        if colour == "grey" and not film.facts.grey:
            notes = (*notes, "colours brought to grey: 0.299 R + 0.587 G + 0.114 B")
        writer.finish(notes)
    again = _found(entry)
    if again is None:
        raise InputError("the cache lost what was just written", where=entry, cure="choose another folder (cache)")
    return again


class _Writer:
    """Frames and what goes with them, in a hidden folder that takes its place when whole."""

    def __init__(self, entry: pathlib.Path, shape: tuple[int, int, int]) -> None:
        self._entry, self._shape = entry, shape
        entry.parent.mkdir(parents=True, exist_ok=True)
        self._folder = entry.with_name(f".{entry.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
        self._folder.mkdir()
        self._file: BinaryIO = (self._folder / "frames.npy").open("xb")
        self._file.write(bytes(_HEADER))
        self.times: list[float] = []

    def add(self, time: float, pixels: NDArray[np.uint8]) -> None:
        """The next frame (H, W, C)."""
        self._file.write(np.ascontiguousarray(pixels).data)
        self.times.append(time)

    def finish(self, notes: tuple[str, ...]) -> None:
        """Write the header, which needs the count, and give the folder its name."""
        self._file.seek(0)
        self._file.write(_header((len(self.times), *self._shape)))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        with (self._folder / "about.json").open("x", encoding="utf-8") as file:
            json.dump({"format": _FORMAT, "times": self.times, "notes": notes}, file)
            file.flush()
            os.fsync(file.fileno())
        if self._entry.exists() and _found(self._entry) is None:  # a damaged one of before
            shutil.rmtree(self._entry, ignore_errors=True)
        with contextlib.suppress(FileExistsError):
            try:
                self._folder.rename(self._entry)
            except OSError as error:  # another process was faster: its frames are the same
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise

    def close(self) -> None:
        """Take away what did not become whole."""
        with contextlib.suppress(OSError):  # closing flushes once more, and fails once more on a full disk
            self._file.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _header(shape: tuple[int, ...]) -> bytes:
    """The head of an .npy file of uint8 in a fixed length, so that it can be written last."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    begin = b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little")
    return begin + text.ljust(_HEADER - 11).encode("latin-1") + b"\n"


def _layout(path: pathlib.Path) -> tuple[tuple[int, int, int, int], int]:
    """Shape of the frames and where they begin, checked against the length of the file."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = reader(file)
            begin, length = file.tell(), file.seek(0, os.SEEK_END)
    except (OSError, ValueError) as error:
        raise InputError("no frames can be read", where=path, found=error, expected="an .npy file") from None
    if len(shape) != 4 or dtype != np.uint8 or fortran or shape[3] not in (1, 3) or min(shape) < 1:
        found = f"{dtype} of shape {shape}"
        raise InputError("not an array of frames", where=path, found=found, expected="uint8 (T, H, W, 1 or 3)")
    wanted = begin + int(np.prod([int(side) for side in shape], dtype=object))
    if length != wanted:
        found, expected = f"{length:,} bytes", f"{wanted:,} bytes by its header"
        raise InputError("the file has another length", where=path, found=found, expected=expected)
    return (shape[0], shape[1], shape[2], shape[3]), begin


def _found(entry: pathlib.Path) -> tuple[MemmapFrames, NDArray[np.float64], tuple[str, ...]] | None:
    """An entry of the cache; None where there is none or it is damaged."""
    try:
        about = json.loads((entry / "about.json").read_text(encoding="utf-8"))
        frames = MemmapFrames(entry / "frames.npy")
        times = np.array(about["times"], np.float64)
        if about["format"] != _FORMAT or times.shape != (frames.shape[0],):
            return None
        return frames, times, tuple(str(note) for note in about["notes"])
    except (OSError, ValueError, KeyError, TypeError):  # InputError is a ValueError
        return None


def _key(path: pathlib.Path, settings: dict[str, object]) -> str:
    """What frames depend on: bytes of the film, settings, and the versions of what decodes and shrinks."""
    import av
    import PIL

    digest = hashlib.sha256()
    if path.is_dir():
        listed = numbered_images(path)
        files = [path / name for name in listed.names]
        digest.update(json.dumps([listed.numbers, listed.notes]).encode())
    else:
        files = [path]
    for one in files:
        with one.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    versions = [_FORMAT, av.__version__, PIL.__version__]
    digest.update(json.dumps([settings, versions], sort_keys=True).encode())
    return digest.hexdigest()[:32]


def _expected(film: VideoFile, fps: float | None, start: float, stop: float | None) -> int | None:
    """How many frames there will be by the header."""
    facts = film.facts
    if fps is None:
        return facts.frames if start == 0 and stop is None else None
    seconds = facts.frames / film.rate if film.rate and facts.frames else facts.seconds
    if seconds is None:
        return None
    return max(0, round((min(seconds, seconds if stop is None else stop) - start) * fps)) or None


def _check_room(folder: pathlib.Path, needed: int) -> None:
    """Refuse before the work what the disk cannot hold."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(place).free
        if needed > free:
            raise _full(folder, f"about {_human(needed)} needed, {_human(free)} free")


@contextlib.contextmanager
def _explained(folder: pathlib.Path) -> Iterator[None]:
    """What the system says about the cache, in words of ours; errors of the film pass."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _NO_SPACE:
            free = shutil.disk_usage(folder).free
            raise _full(folder, f"{reason}; {_human(free)} free") from error
        cure = "choose a folder you may write to (cache)"
        raise InputError("the cache cannot be written", where=folder, found=reason, cure=cure) from error


def _full(folder: pathlib.Path, found: str) -> InputError:
    cure = "free some space, ask for fewer or smaller frames (size, fps), or choose another disk (cache)"
    return InputError("the disk of the cache is full", where=folder, found=found, cure=cure)


def _human(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


_temporary: list[tuple[int, pathlib.Path]] = []


def _temporary_cache() -> pathlib.Path:
    """A folder that ends with the process that made it, and not with one forked from it."""
    for process, folder in _temporary:
        if process == os.getpid() and folder.is_dir():
            return folder
    try:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="pipelines-films-"))
    except OSError as error:
        cure = "choose a folder for the cache (cache), or set TMPDIR"
        raise InputError("no temporary folder can be made", where="cache", found=error.strerror, cure=cure) from None
    _temporary.append((os.getpid(), folder))
    atexit.register(_clear, os.getpid(), folder)
    return folder


def _clear(process: int, folder: pathlib.Path) -> None:
    if process == os.getpid():
        shutil.rmtree(folder, ignore_errors=True)
