"""What lies in a folder of episodes: films, arrays, folders of images; and the splits of UCF-101 and Moving MNIST."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipelines.data.datasets.brain_walk import Draft as WalkDraft
from pipelines.data.datasets.brain_walk import shown, walk
from pipelines.data.errors import InputError
from pipelines.data.formats.episodes_roles import role_of

__all__ = ["ARRAY_ENDINGS", "MOVING_MNIST", "Item", "moving_mnist_layout", "scan_folder", "ucf101_part"]

Kind = Literal["film", "npy", "npz", "hdf5", "images", "arrays"]
ARRAY_ENDINGS: Mapping[str, Kind] = {
    ".npy": "npy",
    ".npz": "npz",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".hdf": "hdf5",
    ".he5": "hdf5",
}
#: The file of the usual test set, which has time first.
MOVING_MNIST = "mnist_test_seq.npy"
_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
_CLIP = re.compile(r"(v_.+_g(\d+))_c\d+", re.IGNORECASE)
_LISTS = "ucfTrainTestlist"
_TEST_GROUPS = 7  # of the 25 groups of a class: 1 to 7 in the first split, 8 to 14 in the second, 15 to 21 in the third
_SPLITS = 3


@dataclass(frozen=True)
class Item:
    """One thing in a folder that holds episodes.

    Args:
        kind: a film, a file of arrays, a folder of numbered images, or a folder of arrays called by what they are.
        path: of the file or folder.
        name: relative, without the ending of the file where that leaves it unique.
    """

    kind: Kind
    path: pathlib.Path
    name: str


def moving_mnist_layout(name: str, shape: Sequence[int]) -> str | None:
    """The order of axes of the usual Moving MNIST file, by its name and shape; None for any other file.

    Source: Srivastava, Mansimov, Salakhutdinov 2015: 10,000 sequences of 20 frames, 64 x 64, stored time first.

    Example:
        >>> [moving_mnist_layout(name, (20, 10000, 64, 64)) for name in ("mnist_test_seq.npy", "a.npy")]
        ['TNHW', None]
    """
    return "TNHW" if name.lower() == MOVING_MNIST and len(shape) == 4 and shape[0] == 20 else None


def scan_folder(folder: pathlib.Path, films: Sequence[str]) -> tuple[list[Item], tuple[str, ...]]:
    """All that holds episodes in a folder and the folders in it, in natural order.

    Two or more images in one folder are one episode. Tables with the name of a film or array are its actions.

    Args:
        folder: where to look; hidden files are not looked at, links to folders are followed once.
        films: endings of films.

    Returns:
        the items, and notes that count what is not read.

    Raises:
        InputError: a folder that cannot be read, or that holds no episode.

    Complexity: O(files log files); no file is opened.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as base:
        ...     for name in ("b.mp4", "b.csv", "run2/0.png", "run2/1.png", "a.txt"):
        ...         path = pathlib.Path(base, name)
        ...         path.parent.mkdir(exist_ok=True)
        ...         _ = path.write_bytes(b"")
        ...     items, notes = scan_folder(pathlib.Path(base), (".mp4",))
        >>> [(item.kind, item.name) for item in items], notes
        ([('film', 'b'), ('images', 'run2')], ('files of other kinds not read: 1 .txt',))
    """
    held = WalkDraft("folder", folder)
    files = walk(folder, held)
    items: list[Item] = []
    others: dict[str, int] = {}
    by_folder: dict[str, list[tuple[str, pathlib.Path]]] = {}
    for name, path in files:
        by_folder.setdefault(name.rpartition("/")[0], []).append((name, path))
    for inner, own in by_folder.items():
        where = folder / inner if inner else folder
        items += _items(inner, where, own, films, others)
    if not items:
        found = _counted(others) or "nothing"
        expected = f"films ({', '.join(films)}), arrays ({', '.join(ARRAY_ENDINGS)}) or numbered images"
        raise InputError("no episode in the folder", where=folder, found=found, expected=expected)
    notes = [*held.notes, *((f"files of other kinds not read: {_counted(others)}",) if others else ())]
    return _unique(items), tuple(notes)


def _items(
    inner: str,
    where: pathlib.Path,
    files: Sequence[tuple[str, pathlib.Path]],
    films: Sequence[str],
    others: dict[str, int],
) -> list[Item]:
    """The items of one folder; other files are counted."""
    name = inner or where.name
    arrays = [path for _, path in files if path.suffix.lower() == ".npy"]
    roles = [role_of(path.stem) for path in arrays]
    together = len(arrays) > 1 and None not in roles and roles.count("frames") == 1
    images = [path for _, path in files if path.suffix.lower() in _IMAGES]
    items: list[Item] = [Item("arrays", where, name)] if together else []
    if len(images) > 1:
        items.append(Item("images", where, name))
    tables: list[pathlib.Path] = []
    for relative, path in files:
        ending = path.suffix.lower()
        if ending in films:
            items.append(Item("film", path, relative))
        elif ending == ".npy" and together:
            continue
        elif ending in ARRAY_ENDINGS:
            items.append(Item(ARRAY_ENDINGS[ending], path, relative))
        elif ending == ".csv":
            tables.append(path)
        elif ending not in _IMAGES or len(images) < 2:
            others[ending or path.name] = others.get(ending or path.name, 0) + 1
    stems = {item.path.stem for item in items if item.path.is_file()} | {item.path.name for item in items}
    for path in tables:
        if path.stem not in stems:
            others[".csv"] = others.get(".csv", 0) + 1
    return items


def _counted(others: Mapping[str, int]) -> str:
    listed = sorted(others.items())
    more = f" and {len(listed) - 8} other kinds" if len(listed) > 8 else ""
    return ", ".join(f"{count} {kind}" for kind, count in listed[:8]) + more


def _unique(items: Sequence[Item]) -> list[Item]:
    """The items without the endings of their names, where two would not have one name then."""
    short = [str(pathlib.PurePosixPath(item.name).with_suffix("")) if item.path.suffix else item.name for item in items]
    short = [item.name if item.kind in ("images", "arrays") else name for item, name in zip(items, short, strict=True)]
    counts: dict[str, int] = {}
    for name in short:
        counts[name] = counts.get(name, 0) + 1
    pairs = zip(items, short, strict=True)
    return [Item(item.kind, item.path, name if counts[name] == 1 else item.name) for item, name in pairs]


# UCF-101


def ucf101_part(
    folder: pathlib.Path, items: Sequence[Item], subset: Literal["train", "test"], split: int = 1
) -> tuple[list[Item], tuple[str, ...]]:
    """The clips of UCF-101 to learn from or to measure on, by the lists that come with it, else by their groups.

    The 25 groups of a class are films that its clips were cut from. The published splits measure on groups 1 to 7, 8
    to 14 and 15 to 21; without the lists these are taken. No group is ever on both sides.

    Args:
        folder: of the classes; lists lie in it, or in `ucfTrainTestlist` in it or beside it.
        items: clips, called `CLASS/v_CLASS_gNN_cNN`; films, or arrays with the same names.
        subset: which side.
        split: 1, 2 or 3.

    Returns:
        the clips in their order, and notes that count them and those that are on no side.

    Raises:
        InputError: no clip of UCF-101, no such split, a group on both sides, no clip on this side.

    Complexity: O(clips + lines).

    Source: Soomro, Zamir, Shah 2012, UCF101: A Dataset of 101 Human Actions Classes, section 2.

    Example:
        >>> clips = [Item("film", pathlib.Path(), f"Archery/v_Archery_g{g:02}_c01") for g in (1, 7, 8, 25)]
        >>> part, notes = ucf101_part(pathlib.Path("no_such_folder"), clips, "test")
        >>> [clip.name[-7:-4] for clip in part]
        ['g01', 'g07']
        >>> notes
        ('UCF-101, split 1, by groups (1 to 7 to measure on): 2 clips to measure on, 2 to learn from',)
    """
    found = {item.name: match for item in items if (match := _CLIP.fullmatch(item.name.rsplit("/", 1)[-1]))}
    if not found:
        cure = "leave out subset: the part is then chosen by the split of this library"
        raise InputError(
            "no data set with a split of its own",
            where=folder,
            found=shown(item.name for item in items),
            expected="clips of UCF-101, v_CLASS_gNN_cNN",
            cure=cure,
        )
    if not 1 <= split <= _SPLITS:
        raise InputError("UCF-101 has no such split", where="split", found=split, expected="1, 2 or 3")
    lists = _lists(folder, split)
    sides: dict[str, str] = {}
    for name, match in found.items():
        if lists is None:
            test = _TEST_GROUPS * (split - 1) < int(match[2]) <= _TEST_GROUPS * split
            sides[name] = "test" if test else "train"
        else:
            sides[name] = lists.get(match[0].lower(), "")
    _check_groups(folder, {name: match[1].lower() for name, match in found.items()}, sides)
    kept = [item for item in items if sides.get(item.name) == subset]
    counts = {side: sum(one == side for one in sides.values()) for side in ("train", "test", "")}
    first = _TEST_GROUPS * (split - 1) + 1
    how = "by its lists" if lists else f"by groups ({first} to {first + _TEST_GROUPS - 1} to measure on)"
    if not kept:
        found_text = f"{counts['train']} clips to learn from, {counts['test']} to measure on"
        raise InputError(f"no clip of this split is in {subset}", where=folder, found=found_text)
    notes = [
        f"UCF-101, split {split}, {how}: {counts['test']:,} clips to measure on, {counts['train']:,} to learn from"
    ]
    rest = [item.name for item in items if not sides.get(item.name)]
    if rest:
        notes.append(f"{len(rest):,} clips on no side of the split ({shown(rest)})")
    missing = len(lists or {}) - sum(bool(side) for side in sides.values()) if lists else 0
    if missing > 0:
        notes.append(f"{missing:,} clips of the lists are not in the folder")
    return kept, tuple(notes)


def _lists(folder: pathlib.Path, split: int) -> dict[str, str] | None:
    """The side of every clip, by its name in lower case; None where there are no lists."""
    places = (folder / _LISTS, folder, folder.parent / _LISTS)
    names = {side: f"{side}list{split:02}.txt" for side in ("train", "test")}
    place = next((one for one in places if all((one / name).is_file() for name in names.values())), None)
    if place is None:
        return None
    sides: dict[str, str] = {}
    for side, name in names.items():
        for number, line in enumerate((place / name).read_text("utf-8", "replace").splitlines(), 1):
            if not line.strip():
                continue
            stem = pathlib.PurePosixPath(line.split()[0].replace("\\", "/")).stem.lower()
            if not _CLIP.fullmatch(stem):
                where, found = f"{name}, line {number}", repr(line[:60])
                raise InputError("no clip of UCF-101", where=where, found=found, expected="CLASS/v_CLASS_gNN_cNN.avi")
            if sides.setdefault(stem, side) != side:
                raise InputError("a clip is in both lists", where=place, found=stem, cure="fetch the lists again")
    return sides


def _check_groups(folder: pathlib.Path, groups: Mapping[str, str], sides: Mapping[str, str]) -> None:
    """Refuse a split with clips of one film on both sides."""
    held: dict[str, set[str]] = {}
    for name, side in sides.items():
        if side:
            held.setdefault(groups[name], set()).add(side)
    both = sorted(group for group, own in held.items() if len(own) > 1)
    if both:
        cure = "use the published lists, or divide by group"
        raise InputError("clips cut from one film are on both sides", where=folder, found=shown(both), cure=cure)
