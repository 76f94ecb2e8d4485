"""Which files belong together: NAME_TRAIN and NAME_TEST of the UEA and UCR archives."""

from __future__ import annotations

import dataclasses
import pathlib
import re

from pipelines.data.errors import InputError

__all__ = ["Pair", "core_ending", "in_folder", "of_file", "of_stem", "part_of"]

_PACKED = (".gz", ".bz2", ".xz", ".zip")
_PART = re.compile(r"(?P<name>.+)_(?P<part>train|test)$", re.IGNORECASE)
_PREFERRED = (".ts", ".arff", ".tsv", ".npz", ".csv", ".parquet")


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two files of one set; `notes` say what was chosen."""

    name: str
    train: pathlib.Path
    test: pathlib.Path
    notes: tuple[str, ...] = ()

    def other(self, path: pathlib.Path) -> str:
        """File name of the partner of one of the two."""
        return (self.test if path == self.train else self.train).name


def core_ending(path: pathlib.Path) -> str:
    """The ending without that of the packer.

    Example:
        >>> core_ending(pathlib.Path("NATOPS_TRAIN.ts.xz"))
        '.ts'
    """
    return _parts(path)[1]


def _parts(path: pathlib.Path) -> tuple[str, str]:
    """Stem and ending, both without the packer's ending."""
    name = pathlib.PurePath(path.name)
    if name.suffix.lower() in _PACKED:
        name = name.with_suffix("")
    return name.stem, name.suffix.lower()


def part_of(path: pathlib.Path) -> tuple[str, str] | None:
    """Name of the set and "train" or "test" of a file NAME_TRAIN or NAME_TEST, or None if it is another file.

    Example:
        >>> part_of(pathlib.Path("NATOPS_TRAIN.ts.xz")), part_of(pathlib.Path("README.md"))
        (('NATOPS', 'train'), None)
    """
    match = _PART.match(_parts(path)[0])
    return None if match is None else (match["name"], match["part"].lower())


def of_file(path: pathlib.Path) -> Pair | None:
    """The pair of a file NAME_TRAIN or NAME_TEST, or None if it is another file or has no partner.

    Raises:
        InputError: more than one file could be the partner.
    """
    stem, ending = _parts(path)
    match = _PART.match(stem)
    if match is None:
        return None
    part = match["part"].lower()
    others = _files(path.parent, match["name"], "test" if part == "train" else "train")
    partners = [one for one in others if _parts(one)[1] == ending]
    # The same ending, packer and all, before the same kind with another packer.
    partners = [one for one in partners if one.suffix == path.suffix] or partners
    if not partners:
        return None
    partner = _only(partners, path.parent)
    return Pair(match["name"], *((path, partner) if part == "train" else (partner, path)))


def of_stem(path: pathlib.Path) -> Pair | None:
    """The pair of a path that lacks `_TRAIN`, with or without an ending, or None if there is none.

    Raises:
        InputError: more than one pair.
    """
    name, ending = _parts(path)
    if ending not in _PREFERRED:
        name, ending = path.name, ""
    trains = [one for one in _files(path.parent, name, "train") if not ending or _parts(one)[1] == ending]
    return _choose([found for one in trains if (found := of_file(one)) is not None], path)


def in_folder(folder: pathlib.Path) -> Pair:
    """The one pair of a folder.

    Where a folder holds several sets, the one with the folder's name is meant; where it holds one set in several
    formats, the first of .ts, .arff, .tsv is taken. Both are noted.

    Raises:
        InputError: no pair, or several sets.
    """
    trains = _files(folder, None, "train")
    pairs = [found for one in trains if (found := of_file(one)) is not None]
    found = _choose(pairs, folder)
    if found is None:
        names = sorted(one.name for one in folder.iterdir() if not one.name.startswith("."))
        raise InputError(
            "no pair of files NAME_TRAIN and NAME_TEST in the folder",
            where=folder,
            found=", ".join(names[:8]) or "nothing",
            expected="for example NAME_TRAIN.ts and NAME_TEST.ts",
            cure="name the file inside it",
        )
    return found


def _choose(pairs: list[Pair], place: pathlib.Path) -> Pair | None:
    notes: list[str] = []
    names = sorted({pair.name for pair in pairs})
    if len(names) > 1 and place.name in names:
        pairs = [pair for pair in pairs if pair.name == place.name]
        notes.append(f"{len(names) - 1} other sets in the folder not read")
        names = [place.name]
    if len(names) > 1:
        found = ", ".join(names[:8])
        raise InputError("several sets in the folder", where=place, found=found, expected="one", cure="name a file")
    if not pairs:
        return None
    kinds = {_parts(pair.train)[1] for pair in pairs}
    best = min(kinds, key=lambda kind: _PREFERRED.index(kind) if kind in _PREFERRED else len(_PREFERRED))
    if len(kinds) > 1:
        notes.append(f"the set is there as {', '.join(sorted(kinds))}: {best} read")
    pairs = [pair for pair in pairs if _parts(pair.train)[1] == best]
    _only([pair.train for pair in pairs], place)
    return dataclasses.replace(pairs[0], notes=tuple(notes))


def _only(files: list[pathlib.Path], place: pathlib.Path) -> pathlib.Path:
    if len(files) > 1:
        found = ", ".join(file.name for file in files)
        raise InputError(
            "one file of the pair is there more than once",
            where=place,
            found=found,
            expected="one",
            cure="move the others",
        )
    return files[0]


def _files(folder: pathlib.Path, name: str | None, part: str) -> list[pathlib.Path]:
    """Files NAME_PART of a folder, in the order of their names."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        match = _PART.match(_parts(path)[0])
        if match and path.is_file() and match["part"].lower() == part and name in (None, match["name"]):
            found.append(path)
    return found
