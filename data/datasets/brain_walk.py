"""Folders of scans: what lies in them, which files are images, and which are placeholders without content."""

from __future__ import annotations

import gzip
import os
import re
import stat
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from pipelines.data.datasets.brain_types import Recording
from pipelines.data.errors import InputError

__all__ = [
    "Draft",
    "Listing",
    "absence",
    "dimensions",
    "image_stem",
    "list_folder",
    "natural",
    "shown",
    "surface",
    "walk",
]

_ENDINGS = (".nii.gz", ".nii", ".hdr")
_SURFACES = (".gii", ".gii.gz", ".dtseries.nii", ".ptseries.nii", ".dscalar.nii", ".dlabel.nii", ".mgz", ".mgh")
_POINTERS = (b"/annex/objects/", b"version https://git-lfs")
_HEADER = 348
_SHOWN = 5


@dataclass(frozen=True)
class Listing:
    """One folder: its files and folders by name, in natural order; hidden ones put aside and counted."""

    path: Path
    files: dict[str, Path]
    folders: dict[str, Path]
    hidden: int = 0


@dataclass
class Draft:
    """A study while it is read: runs, where its tables of people may be, and what was noted."""

    kind: str
    root: Path
    recordings: list[Recording] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    #: Runs whose image has no content, with the reason.
    absent: dict[str, str] = field(default_factory=dict)
    #: Whether the user named every run: nothing is then chosen, and the order stays.
    explicit: bool = False

    def note(self, names: Iterable[str], what: str) -> None:
        """Count what was left out, with the first names."""
        listed = list(names)
        if listed:
            self.notes.append(f"{len(listed):,} {what} ({shown(listed)})")


def shown(names: Iterable[str]) -> str:
    """The first five of some names, and how many more there are.

    Example:
        >>> shown("abcdefg")
        'a, b, c, d, e and 2 more'
    """
    listed = list(names)
    more = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


@lru_cache(maxsize=65536)
def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts numbers in names by their value.

    Example:
        >>> sorted(["run-10", "run-2"], key=natural)
        ['run-2', 'run-10']
    """
    parts = re.findall(r"[0-9]{1,18}|[^0-9]+", text)
    return (*((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts), (0, 0, text))


def list_folder(folder: Path) -> Listing:
    """One folder, links followed.

    Raises:
        InputError: it is not there or cannot be read.

    Complexity: O(entries log entries).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as base:
        ...     _ = Path(base, "a.nii").write_bytes(b"")
        ...     list(list_folder(Path(base)).files)
        ['a.nii']
    """
    files: dict[str, Path] = {}
    folders: dict[str, Path] = {}
    hidden = 0
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda one: natural(one.name)):
                if entry.name.startswith("."):
                    hidden += 1
                elif _is_folder(entry):
                    folders[entry.name] = folder / entry.name
                else:
                    files[entry.name] = folder / entry.name
    except OSError as error:
        raise _unreadable(folder, error) from error
    return Listing(folder, files, folders, hidden)


def _unreadable(folder: Path, error: OSError) -> InputError:
    cure = "check the path and your rights to read and enter it (ls -ld)"
    return InputError("the folder cannot be read", where=folder, found=error.strerror or str(error), cure=cure)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def walk(root: Path, draft: Draft) -> list[tuple[str, Path]]:
    """Every file below a folder with its relative name; a folder reached twice by links is read once.

    Args:
        root: the folder.
        draft: gets the counts of what was left out.

    Complexity: O(files).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as base:
        ...     _ = Path(base, "a.nii").write_bytes(b"")
        ...     [name for name, _ in walk(Path(base), Draft("folder", Path(base)))]
        ['a.nii']
    """
    found: list[tuple[str, Path]] = []
    seen: set[tuple[int, int]] = set()
    again: list[str] = []
    hidden = 0
    waiting = [("", root)]
    while waiting:  # an own stack, since folders may be nested deeper than Python's
        prefix, folder = waiting.pop()
        try:
            status = folder.stat()
        except OSError as error:
            raise _unreadable(folder, error) from error
        if (status.st_dev, status.st_ino) in seen:
            again.append(prefix.rstrip("/"))
            continue
        seen.add((status.st_dev, status.st_ino))
        listing = list_folder(folder)
        hidden += listing.hidden
        found += [(prefix + name, path) for name, path in listing.files.items()]
        # Real folders first (the stack is taken from its end): a link then is what is met again.
        below = sorted(listing.folders.items(), key=lambda item: not item[1].is_symlink())
        waiting += [(f"{prefix}{name}/", path) for name, path in below]
    draft.note(again, "links to folders that are read anyway left out")
    if hidden:
        draft.notes.append(f"{hidden:,} hidden files and folders left out")
    return sorted(found, key=lambda item: natural(item[0]))


def surface(name: str) -> bool:
    """Whether a name is that of data on a surface or in greyordinates, which have no grid of voxels.

    Example:
        >>> surface("a.func.gii"), surface("a.dtseries.nii"), surface("a.nii")
        (True, True, False)
    """
    return name.lower().endswith(_SURFACES)


def image_stem(name: str) -> str | None:
    """The name of a NIfTI file without its ending; None for any other name.

    The `.hdr` stands for a pair; its `.img` gives None.

    Example:
        >>> image_stem("a_bold.nii.gz"), image_stem("a.txt"), image_stem("a.dtseries.nii")
        ('a_bold', None, None)
    """
    if surface(name):
        return None
    return next((name[: -len(one)] for one in _ENDINGS if name.lower().endswith(one) and len(name) > len(one)), None)


def absence(path: Path) -> str | None:
    """Why a file has no content although its name is there; None where it has.

    Data sets under DataLad or git-annex hold links to contents that may not have been fetched, or short texts that
    stand for them.

    Example:
        >>> absence(Path("no/such/file.nii")) is not None
        True
    """
    try:
        status = path.stat()
    except ValueError:
        return "no path"
    except OSError:
        try:
            target = os.readlink(path)
        except OSError:  # no link either
            return "not there"
        annex = ".git/annex" in target.replace(os.sep, "/")
        return "a link to content that was not fetched" if annex else f"a broken link to {target}"
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if status.st_size == 0:
        return "an empty file"
    if status.st_size > 1024:
        return None
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "a pointer to content that was not fetched" if head.startswith(_POINTERS) else None


def dimensions(path: Path) -> tuple[int, ...] | None:
    """The axes of an image by the first bytes of its header; None where they cannot be told.

    Only to tell scans from masks and anatomies in a folder; whoever opens the image checks it.

    Complexity: O(1); of a compressed file a few hundred bytes are unpacked.

    Example:
        >>> dimensions(Path("no/such/file.nii")) is None
        True
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if packed else path.open("rb") as stream:
            head = stream.read(_HEADER)
    except (OSError, EOFError, zlib.error):
        return None
    for order in "<>":
        if len(head) == _HEADER and struct.unpack(f"{order}i", head[:4])[0] == _HEADER:
            axes = struct.unpack(f"{order}8h", head[40:56])
            return axes[1 : axes[0] + 1] if 1 <= axes[0] <= 7 and min(axes[1 : axes[0] + 1]) > 0 else None
    return None
