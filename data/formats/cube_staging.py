"""Files of cubes are built under a temporary name beside their place and renamed when whole."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import pathlib
import secrets
from collections.abc import Callable, Iterator
from typing import Any

from numpy.typing import NDArray

__all__ = ["MAX_LOADED", "Target", "allocate", "staged"]

#: Bytes of a cube that a format without memory-mapping may ask for.
MAX_LOADED = 4 << 30


@dataclasses.dataclass(frozen=True)
class Target:
    """A file under construction.

    Args:
        stored: (D, H, W) in the type of the file; what is written here ends up in it.
        finish: makes the file complete; nothing may be written after it.
    """

    stored: NDArray[Any]
    finish: Callable[[], None]


def allocate(path: pathlib.Path, size: int, head: bytes = b"") -> None:
    """A file of a size whose room on the disk is certain: writing to a mapped hole on a full disk kills a process.

    Raises:
        OSError: no room, or no right to write.
    """
    with path.open("wb") as file:
        file.write(head)
        file.flush()
        if size <= len(head):
            return
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except AttributeError:
            _zeros(file.fileno(), len(head), size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            _zeros(file.fileno(), len(head), size)


def _zeros(handle: int, start: int, stop: int) -> None:
    os.lseek(handle, start, os.SEEK_SET)
    while start < stop:
        start += os.write(handle, bytes(min(1 << 20, stop - start)))


@contextlib.contextmanager
def staged(*targets: pathlib.Path) -> Iterator[list[pathlib.Path]]:
    """Temporary names beside the targets; on a clean end all are on the disk and take their places, else all vanish.

    Raises:
        OSError: a folder that does not allow it, a full disk.
    """
    real = [pathlib.Path(os.path.realpath(target)) for target in targets]
    token = secrets.token_hex(4)
    hidden = [target.with_name(f".{target.name[:200]}.{token}.partial") for target in real]
    for target in real:
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield hidden
        for path in hidden:
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        for path, target in zip(hidden, real, strict=True):
            path.replace(target)
    finally:
        for path in hidden:
            path.unlink(missing_ok=True)
