"""Which sets a folder of the UEA or UCR archive holds, in whatever of the usual layouts."""

from __future__ import annotations

import dataclasses
import pathlib
import zipfile
from collections.abc import Iterator, Sequence

from pipelines.data.errors import InputError
from pipelines.data.formats.labelled_pair import Pair, core_ending, in_folder, of_stem, part_of

__all__ = ["ArchiveSet", "FoundSets", "find_sets"]

_LAYOUT = "NAME/NAME_TRAIN.ts beside NAME/NAME_TEST.ts, or both in the folder itself, or NAME.npz with a split"
_SHOWN = 8  # names in a note; the result holds all


@dataclasses.dataclass(frozen=True)
class ArchiveSet:
    """One set: its name, what `read_labelled` takes for it, and the files that are read."""

    name: str
    source: pathlib.Path
    files: tuple[pathlib.Path, ...]


@dataclasses.dataclass(frozen=True)
class FoundSets:
    """The sets of a folder by name, and every other entry with the reason why it is none."""

    folder: pathlib.Path
    sets: tuple[ArchiveSet, ...]
    passed_over: tuple[tuple[str, str], ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found and what was passed over, counted."""
        names = _listed([one.name for one in self.sets])
        notes = [f"{len(self.sets)} {'set' if len(self.sets) == 1 else 'sets'} found in {self.folder}: {names}"]
        if self.passed_over:
            notes.append(f"passed over in the folder: {_by_reason(self.passed_over)}")
        return tuple(notes)


def find_sets(folder: pathlib.Path) -> FoundSets:
    """The sets of a folder, sorted by name: pairs NAME_TRAIN and NAME_TEST, and NPZ files with a split.

    Args:
        folder: holds pairs, or folders of one pair each, or NPZ files with an array `split`; any ending that
            `read_labelled` takes, packed or not. Of a set in several formats the reader takes the best.

    Raises:
        InputError: no such folder, a file, a folder that cannot be listed, without entries or without a set.

    Complexity: O(entries); of the files only the directory of an NPZ is read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as base:
        ...     for name in ("B_TRAIN.ts", "B_TEST.ts", "A_TRAIN.tsv.gz", "A_TEST.tsv.gz", "C_TRAIN.ts"):
        ...         pathlib.Path(base, name).touch()
        ...     found = find_sets(pathlib.Path(base))
        >>> [one.name for one in found.sets], found.passed_over
        (['A', 'B'], (('C_TRAIN.ts', 'no partner C_TEST of its kind'),))
    """
    if folder.is_file():
        cure = "give a single set with --data, or name the folder that holds the sets"
        raise InputError("a file, not a folder of sets", where=folder, expected="a folder", cure=cure)
    if not folder.is_dir():
        raise InputError("no such folder", where=folder, expected="a folder of sets", cure="check the path")
    try:
        entries = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise InputError("the folder cannot be listed", where=folder, found=error.strerror) from error
    if not entries:
        raise InputError("the folder is empty", where=folder, expected=_LAYOUT)
    found: dict[str, ArchiveSet] = {}
    passed_over: list[tuple[str, str]] = []
    for entry, candidate in _candidates(folder, entries):
        if isinstance(candidate, str):
            passed_over.append((entry, candidate))
        elif candidate.name in found:
            passed_over.append((entry, f"a set {candidate.name} is read from {found[candidate.name].files[0]}"))
        else:
            found[candidate.name] = candidate
    if not found:
        others = _by_reason(passed_over)
        cure = "name the folder right above the sets"
        raise InputError("no set in the folder", where=folder, found=others, expected=_LAYOUT, cure=cure)
    return FoundSets(folder, tuple(found[name] for name in sorted(found)), tuple(passed_over))


def _candidates(folder: pathlib.Path, entries: list[pathlib.Path]) -> Iterator[tuple[str, ArchiveSet | str]]:
    """(entry, the set that it is or why it is none), folders before files; a pair of files comes once."""
    names: dict[str, list[pathlib.Path]] = {}
    files = [entry for entry in entries if not entry.is_dir()]
    for entry in (entry for entry in entries if entry.is_dir()):
        yield entry.name, "hidden" if entry.name.startswith(".") else _of_folder(entry)
    for entry in files:
        part = part_of(entry)
        if entry.name.startswith("."):
            yield entry.name, "hidden"
        elif not entry.is_file():
            yield entry.name, "no file"
        elif part is not None:
            names.setdefault(part[0], []).append(entry)
        else:
            yield entry.name, _of_npz(entry) if core_ending(entry) == ".npz" else "no NAME_TRAIN or NAME_TEST"
    for name, halves in names.items():
        yield from _of_files(folder, name, halves)


def _of_folder(folder: pathlib.Path) -> ArchiveSet | str:
    """The one set inside a folder."""
    try:
        pair = in_folder(folder)
    except InputError as error:
        why = error.problem
        if error.problem.startswith("several"):
            why = f"{error.problem}: {error.found}"
    except OSError as error:
        return f"cannot be listed: {error.strerror}"
    else:
        return ArchiveSet(pair.name, folder, (pair.train, pair.test))
    arrays = [path for path in sorted(folder.glob("*.npz")) if isinstance(_of_npz(path), ArchiveSet)]
    named = [path for path in arrays if path.stem == folder.name] or arrays
    return _of_npz(named[0]) if len(named) == 1 else why


def _of_files(folder: pathlib.Path, name: str, halves: list[pathlib.Path]) -> Iterator[tuple[str, ArchiveSet | str]]:
    """The pair of one name among the files of the folder itself."""
    try:
        pair: Pair | None = of_stem(folder / name)
    except InputError as error:
        yield from ((half.name, f"{error.problem}: {error.found}") for half in halves)
        return
    if pair is not None:
        # By the name without an ending, unless something else has that name.
        source = pair.train if (folder / name).exists() else folder / name
        yield pair.train.name, ArchiveSet(name, source, (pair.train, pair.test))
        return
    for half in halves:
        found = part_of(half)
        other = "TEST" if found is not None and found[1] == "train" else "TRAIN"
        yield half.name, f"no partner {name}_{other} of its kind"


def _of_npz(path: pathlib.Path) -> ArchiveSet | str:
    """An NPZ with an array `split`; a damaged one is a set too, so that its reader says what is wrong with it."""
    try:
        with zipfile.ZipFile(path) as content:
            members = content.namelist()
    except (OSError, zipfile.BadZipFile):
        members = ["split.npy"]
    return ArchiveSet(path.stem, path, (path,)) if "split.npy" in members else "an NPZ without a split"


def _by_reason(passed_over: Sequence[tuple[str, str]]) -> str:
    """How many entries are no set for which reason, and their names."""
    reasons: dict[str, list[str]] = {}
    for name, why in passed_over:
        reasons.setdefault(why, []).append(name)
    return "; ".join(f"{len(names)} ({why}): {_listed(names)}" for why, names in reasons.items())


def _listed(texts: list[str]) -> str:
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more
