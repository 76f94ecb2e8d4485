"""Writing files so that a crash, a full disk or Ctrl-C never leaves half of one, and never costs an old one.

Every file is written under a temporary name in its own folder, flushed to the disk and renamed: a rename within one
folder is atomic on POSIX, a rename from another file system is a copy, which a full disk cuts short.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import pathlib
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

from pipelines.errors import ConfigError, RunError, UserError

__all__ = [
    "Content",
    "atomic_write",
    "atomic_write_all",
    "prepare_output",
    "default_run_folder",
    "sha256",
    "sidecar",
    "staged_folder",
    "write_failure",
]

Content = bytes | str | Callable[[BinaryIO], object]

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS)


def atomic_write(path: str | os.PathLike[str], content: Content) -> pathlib.Path:
    """Write one file completely or not at all; what was there before stays until the new file is on the disk.

    Args:
        path: the file; missing parent folders are created, a symbolic link is followed and kept.
        content: bytes, text (written as UTF-8), or a function that writes to the binary file given to it.

    Returns:
        The path.

    Raises:
        RunError: the disk or quota is full, or the folder does not allow writing; the old file is intact.

    Complexity: O(size) time; no more memory than `content` takes itself.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = atomic_write(f"{folder}/a.txt", "old")
        ...     atomic_write(f"{folder}/a.txt", lambda file: file.write(b"new")).read_text()
        'new'
    """
    return atomic_write_all({path: content})[0]


def atomic_write_all(contents: dict[str | os.PathLike[str], Content]) -> list[pathlib.Path]:
    """Write several files that belong together: all are on the disk under temporary names before the first rename.

    A full disk or an exception while any of them is written leaves every old file as it was.

    Raises:
        RunError: as `atomic_write`.

    Complexity: O(total size) time.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in atomic_write_all({f"{folder}/a": "1", f"{folder}/b": b"2"})]
        ['a', 'b']
    """
    staged: list[tuple[pathlib.Path, pathlib.Path]] = []
    try:
        for path, content in contents.items():
            target = pathlib.Path(os.path.realpath(path))
            temporary = _hidden_sibling(target, "partial")
            staged.append((temporary, target))
            _write_durably(temporary, target, content)
        for temporary, target in staged:
            with _explained(target):
                temporary.replace(target)
        for folder in {target.parent for _, target in staged}:
            _sync_folder(folder)
    finally:
        for temporary, _ in staged:
            with contextlib.suppress(OSError):  # it may never have come to be; the first error is the one to show
                temporary.unlink()
    return [pathlib.Path(path) for path in contents]


def write_failure(error: OSError, path: str | os.PathLike[str], needed: int | None = None) -> RunError:
    """The message for a failed write: what failed, how much space it needed and how much there is.

    Args:
        error: what the operating system said.
        path: the file that was being written.
        needed: bytes that the file takes, where known.

    Example:
        >>> import errno
        >>> str(write_failure(OSError(errno.EACCES, "Permission denied"), "a.csv"))
        'a.csv: cannot be written (Permission denied). Cure: choose a folder you may write to with -o.'
    """
    reason = error.strerror or str(error)
    if error.errno in _NO_SPACE:
        need = f"at least {_human(needed)} needed, " if needed else ""
        free = f"{_human(_free_space(pathlib.Path(path)))} free"
        cure = "free some space or choose another disk with -o; earlier files are unchanged"
        return RunError(f"{path}: the disk, quota or file size limit is full ({reason}; {need}{free}). Cure: {cure}.")
    if error.errno in _NO_ACCESS:
        return RunError(f"{path}: cannot be written ({reason}). Cure: choose a folder you may write to with -o.")
    return RunError(f"{path}: cannot be written ({reason}). Cure: check the path and the disk.")


def prepare_output(path: str | os.PathLike[str], *, overwrite: bool) -> pathlib.Path:
    """Check before any work that an output file or folder may be written; nothing is created or deleted.

    Args:
        path: the file or folder to come.
        overwrite: whether something that is there may be replaced.

    Returns:
        The path, with ~ expanded.

    Raises:
        ConfigError: a file or a folder with content is there and `overwrite` is False; a file stands where a folder
            is needed; the folder cannot be created or does not allow writing.

    Complexity: O(depth of the path).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     prepare_output(f"{folder}/new/forecast.csv", overwrite=False).name
        'forecast.csv'
    """
    target = pathlib.Path(path).expanduser()
    if target.is_dir():
        count = sum(1 for _ in target.iterdir())
        if count and not overwrite:
            raise _exists(target, f"a folder with {count} {'entry' if count == 1 else 'entries'}")
    elif os.path.lexists(target) and not overwrite:
        raise _exists(target, f"a file of {target.lstat().st_size:,} bytes")
    _probe(target)
    return target


@contextlib.contextmanager
def staged_folder(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[pathlib.Path]:
    """Build a folder beside its place and move it there when complete; the old one is kept until then.

    Raises:
        ConfigError: as `prepare_output`; or the folder to replace holds the working directory, the home directory, a
            repository or a file system, which are never deleted.
        RunError: the disk is full or not writable; the old folder is intact.

    Complexity: two renames beside what the body writes.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as base:
        ...     with staged_folder(f"{base}/run") as folder:
        ...         _ = (folder / "a.txt").write_text("x")
        ...     pathlib.Path(base, "run", "a.txt").exists()
        True
    """
    target = pathlib.Path(os.path.realpath(prepare_output(path, overwrite=overwrite)))
    if target.exists() and not target.is_dir():
        raise ConfigError("a file stands where a folder is to be written", where=target, cure="name another folder")
    _refuse_precious(target)
    with _explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _hidden_sibling(target, "partial")
        temporary.mkdir()
    try:
        with _explained(target, body=True):
            yield temporary
        with _explained(target):
            _sync_tree(temporary)
            _swap(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes as 64 hexadecimal digits, read in pieces.

    Raises:
        OSError: the file cannot be read.

    Complexity: O(size) time, constant memory.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sha256(atomic_write(f"{folder}/empty", b""))[:12]
        'e3b0c44298fc'
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sidecar(path: str | os.PathLike[str], suffix: str) -> pathlib.Path:
    """The file that stands beside an output file: FILE.report.html beside FILE.

    Example:
        >>> sidecar("runs/forecast.csv", "report.html").name
        'forecast.csv.report.html'
    """
    path = pathlib.Path(path)
    return path.with_name(f"{path.name}.{suffix.lstrip('.')}")


def default_run_folder(domain: str, *, root: str | os.PathLike[str] = "runs", create: bool = False) -> pathlib.Path:
    """A folder of its own for a run without -o: runs/DOMAIN-YYYYMMDD-HHMMSS in local time, numbered when taken.

    Args:
        domain: e.g. "forecast".
        root: the folder of all runs.
        create: make it, so that another process that starts in the same second gets another name.

    Raises:
        RunError: the folder cannot be created.

    Example:
        >>> default_run_folder("forecast").name.startswith("forecast-2")
        True
    """
    stem = pathlib.Path(root) / f"{domain}-{time.strftime('%Y%m%d-%H%M%S')}"
    number = 1
    while True:
        path = stem if number == 1 else stem.with_name(f"{stem.name}-{number}")
        number += 1
        if os.path.lexists(path):
            continue
        if not create:
            return path
        with _explained(path), contextlib.suppress(FileExistsError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()
            return path


def _write_durably(temporary: pathlib.Path, target: pathlib.Path, content: Content) -> None:
    data = content.encode("utf-8") if isinstance(content, str) else content
    # The size is given here too: after a failed flush, closing the file fails once more, outside the inner block.
    with _explained(target, len(data) if isinstance(data, bytes) else None):
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file, _explained(target, len(data) if isinstance(data, bytes) else file):
            data(file) if callable(data) else file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))


@contextlib.contextmanager
def _explained(path: pathlib.Path, needed: int | BinaryIO | None = None, *, body: bool = False) -> Iterator[None]:
    """Turn an OSError of writing into a RunError; around a body of the caller's only what a full disk does."""
    try:
        yield
    except (RunError, UserError):
        raise
    except Exception as error:
        cause = _full_disk(error)
        if cause is None and isinstance(error, OSError) and error.errno is not None and not body:
            cause = error
        if cause is None:
            raise
        raise write_failure(cause, path, needed if isinstance(needed, int) else _position(needed)) from error


def _position(file: BinaryIO | None) -> int | None:
    try:
        return None if file is None else file.tell()
    except (OSError, ValueError):
        return None


def _full_disk(error: BaseException | None) -> OSError | None:
    """The error of a full disk in the chain of causes: a writer such as torch.save raises its own over it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            return error
        error = error.__cause__ or error.__context__
    return None


def _hidden_sibling(target: pathlib.Path, kind: str) -> pathlib.Path:
    # The name is cut so that a target near the limit of 255 bytes still gets a temporary name.
    return target.with_name(f".{target.name[:40]}.{os.getpid()}-{secrets.token_hex(4)}.{kind}")


def _sync_folder(folder: pathlib.Path) -> None:
    """Make a rename durable; file systems that cannot sync a folder say so with an error that costs nothing."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sync_tree(folder: pathlib.Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            _sync_folder(path)
    _sync_folder(folder)


def _swap(temporary: pathlib.Path, target: pathlib.Path) -> None:
    if not target.exists():
        temporary.rename(target)
        _sync_folder(target.parent)
        return
    old = _hidden_sibling(target, "old")
    temporary.chmod(stat.S_IMODE(target.stat().st_mode))
    target.rename(old)
    try:
        temporary.rename(target)
    except BaseException:
        old.rename(target)
        raise
    _sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _refuse_precious(target: pathlib.Path) -> None:
    """Replacing a folder deletes it: never one that holds where the user works, lives or keeps a repository."""
    if not target.exists() or not any(target.iterdir()):
        return
    holders = [pathlib.Path.cwd(), pathlib.Path(os.path.realpath(pathlib.Path.home()))]
    inside = any(place == target or target in place.parents for place in holders)
    if inside or target.is_mount() or (target / ".git").exists():
        raise ConfigError(
            "this folder is never replaced as a whole",
            where=target,
            found="the working directory, the home directory, a repository or a file system in it",
            cure="name a new folder with -o",
        )


def _exists(target: pathlib.Path, found: str) -> ConfigError:
    return ConfigError(
        "the output is already there and is never overwritten silently",
        where=target,
        found=found,
        cure="choose another name with -o, or pass --overwrite to replace it",
    )


def _probe(target: pathlib.Path) -> None:
    """Create and delete an empty file in the nearest folder that exists: permissions alone do not tell."""
    folder = target.parent
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise ConfigError("a file stands where a folder is needed", where=folder, cure="choose another place with -o")
    probe = _hidden_sibling(folder / "probe", "partial")
    try:
        with open(probe, "xb"):
            pass
    except OSError as error:
        raise ConfigError(
            "the output folder does not allow writing",
            where=folder,
            found=error.strerror,
            cure="choose a folder you may write to with -o",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def _free_space(path: pathlib.Path) -> int:
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _human(count: int) -> str:
    power = min(max(len(str(count)) - 1, 0) // 3, 4)
    return f"{count / 1000**power:.1f} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}" if power else f"{count} bytes"
