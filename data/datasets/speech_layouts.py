"""Folders of well-known corpora of speech, told apart by what they hold."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pipelines.data.datasets.speech_gigaspeech import MANIFEST, read_gigaspeech
from pipelines.data.datasets.speech_manifests import Sniffed, describe_fields, read_manifest, sniff
from pipelines.data.datasets.speech_utterance import AUDIO_SUFFIXES, Gathering, Utterance, part_of
from pipelines.data.errors import InputError

__all__ = ["DIGITS", "UNDERSTOOD", "recordings_below", "read_folder", "sidecar_text"]

#: What FSDD's first number stands for.
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
UNDERSTOOD = (
    "a list (JSON lines, or CSV or TSV with a header), LJSpeech, Common Voice, SPGISpeech (train.csv, val.csv), "
    "GigaSpeech (GigaSpeech.json), LibriSpeech (SPEAKER/CHAPTER/*.trans.txt), FSDD (DIGIT_SPEAKER_TAKE.wav), "
    "Speech Commands (validation_list.txt, testing_list.txt), or recordings with NAME.txt or NAME.lab beside them"
)
_FSDD = re.compile(r"(\d)_([^_]+)_(\d+)\.wav", re.IGNORECASE)
_FSDD_TEST_TAKES = 5
_LIBRI = (".flac", ".wav", ".opus", ".mp3")
_LIBRI_FOLDER = re.compile(r"(train|dev|test)-(clean|other)(-\d+)?")
_LISTS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
_SIDECARS = (".txt", ".lab")
_COMMANDS = {"validation_list.txt": "valid", "testing_list.txt": "test"}
_NOISE = "_background_noise_"
_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class _Found:
    """A layout that fits a folder, and how to read it."""

    name: str
    read: Callable[[Gathering], None]


def read_folder(folder: Path, gathering: Gathering, *, subset: str | None = None, root: Path | None = None) -> str:
    """Add the utterances of a folder to a gathering.

    Args:
        folder: of one of the layouts of :data:`UNDERSTOOD`.
        gathering: what is added to.
        subset: of GigaSpeech, e.g. "S".
        root: what the paths in lists are relative to.

    Returns:
        The layout's name.

    Raises:
        InputError: no layout fits, or several do.

    Complexity: O(files); of recordings only the names are looked at.
    """
    found = _layouts(folder, subset, root)
    if len(found) > 1:
        raise InputError(
            "the folder can be read in several ways",
            where=folder,
            found="; ".join(layout.name for layout in found[:_SHOWN]),
            expected="one layout",
            cure="name the list to be read, or a folder that holds one layout alone",
        )
    if found:
        found[0].read(gathering)
        return found[0].name
    recordings = recordings_below(folder)
    if not recordings:
        raise InputError(
            "no layout of a corpus fits the folder",
            where=folder,
            found=_contents(folder),
            expected=f"{UNDERSTOOD}; columns and keys: {describe_fields()}",
        )
    _read_plain(folder, recordings, gathering)
    strange = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix.lower() in _LISTS)
    if strange:
        named = ", ".join(strange[:_SHOWN]) + (f" and {len(strange) - _SHOWN} more" if len(strange) > _SHOWN else "")
        gathering.notes.append(f"not read, for they are no lists of recordings or stand in folders below: {named}")
    return "recordings"


def _layouts(folder: Path, subset: str | None, root: Path | None) -> list[_Found]:
    """Every layout that fits, but for plain recordings."""
    found = []
    if (folder / MANIFEST).is_file():
        found.append(_Found("GigaSpeech", lambda to: read_gigaspeech(folder / MANIFEST, to, subset=subset)))
    books = sorted(folder.rglob("*.trans.txt"))
    if books:
        found.append(_Found("LibriSpeech", lambda to: _read_librispeech(folder, books, to)))
    if any((folder / name).is_file() for name in _COMMANDS):
        found.append(_Found("Speech Commands", lambda to: _read_commands(folder, to)))
    digits = _fsdd_files(folder)
    if digits:
        found.append(_Found("FSDD", lambda to: _read_fsdd(digits, to)))
    return [*found, *_tables(folder, root)]


def _contents(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) + more) if names else "an empty folder"


# Lists in a folder


def _tables(folder: Path, root: Path | None) -> list[_Found]:
    """The lists of a folder, as one layout if their names are those of parts, else one each."""
    lists: dict[Path, Sniffed] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in _LISTS and path.name != MANIFEST and path.is_file():
            kind = sniff(path)
            if kind:
                lists[path] = kind
    parts = {path: part_of(path.stem) or "" for path in lists if part_of(path.stem)}
    ignored: list[Path] = []
    if any(kind.kind == "Common Voice" for kind in lists.values()):
        # Its other tables (validated, invalidated, reported, ...) hold the same clips again.
        chosen = parts or {path: "" for path in lists if path.stem == "validated"}
        ignored = [path for path in lists if path not in chosen] if chosen else []
    rest = {path: "" for path in lists if path not in parts and path not in ignored}
    groups = [group for group in (parts, *({path: ""} for path in rest)) if group]
    return [_table_layout(group, {path: lists[path] for path in group}, ignored, root) for group in groups]


def _table_layout(
    parts: Mapping[Path, str], lists: Mapping[Path, Sniffed], ignored: Iterable[Path], root: Path | None
) -> _Found:
    kinds = sorted({one.kind for one in lists.values()})
    names = ", ".join(path.name for path in parts)

    def read(gathering: Gathering) -> None:
        for path, part in parts.items():
            read_manifest(path, gathering, part=part, root=root)
        if left := ", ".join(path.name for path in ignored):
            gathering.notes.append(f"not read, for they hold the same recordings or none: {left}")

    return _Found(f"{' and '.join(kinds)} ({names})", read)


# LibriSpeech


def _read_librispeech(folder: Path, books: list[Path], gathering: Gathering) -> None:
    """Lines `SPEAKER-CHAPTER-NUMBER TEXT`, recordings of these names beside them; others are kept without a text."""
    told: set[Path] = set()
    for book in books:
        part = _libri_part(folder, book.parent)
        place = book.relative_to(folder).as_posix()
        for number, line in enumerate(book.read_text("utf-8", "replace").splitlines(), 1):
            name, _, text = line.strip().partition(" ")
            if not name:
                continue
            where = f"{place}:{number}"
            if "\ufffd" in line:
                gathering.fail(where, "the line is no UTF-8")
                continue
            paths = [path for end in _LIBRI if gathering.present(path := book.parent / f"{name}{end}")]
            if not paths:
                gathering.fail(where, f"there is no recording {name}{_LIBRI[0]}")
                continue
            told.add(paths[0])
            gathering.add(Utterance(name, paths[0], text.strip(), name.split("-")[0], part=part, where=where))
    for chapter in sorted({book.parent for book in books}):
        for path in sorted(chapter.iterdir()):
            if path.suffix.lower() in AUDIO_SUFFIXES and path not in told:
                speaker, where = path.stem.split("-")[0], path.relative_to(folder).as_posix()
                part = _libri_part(folder, chapter)
                gathering.add(Utterance(path.stem, path, None, speaker, part=part, where=where))


def _libri_part(folder: Path, chapter: Path) -> str:
    """By the official names (train-clean-100) anywhere in the path, or by any name of a part below the folder."""
    official = [name for name in chapter.resolve().parts if _LIBRI_FOLDER.fullmatch(name)]
    names = official or chapter.relative_to(folder).parts
    return next((part for name in reversed(names) if (part := part_of(name))), "")


# FSDD and Speech Commands


def _fsdd_files(folder: Path) -> list[Path]:
    """The recordings, where all of the folder's (or of its folder `recordings`) have FSDD's names."""
    for place in (folder, folder / "recordings"):
        if place.is_dir():
            audio = sorted(path for path in place.iterdir() if path.suffix.lower() in AUDIO_SUFFIXES)
            if audio and all(_FSDD.fullmatch(path.name) for path in audio):
                return audio
    return []


def _read_fsdd(files: list[Path], gathering: Gathering) -> None:
    """Takes 0 to 4 of each digit and speaker are the official test part."""
    for path in files:
        if match := _FSDD.fullmatch(path.name):
            digit, speaker, take = match.groups()
            part = "test" if int(take) < _FSDD_TEST_TAKES else "train"
            gathering.add(Utterance(path.stem, path, DIGITS[int(digit)], speaker, part=part, where=path.name))


def _read_commands(folder: Path, gathering: Gathering) -> None:
    """A folder a word; two lists name the validation and the test part, all others are for training."""
    listed: dict[str, tuple[str, str]] = {}
    for name, part in _COMMANDS.items():
        if not (folder / name).is_file():
            gathering.notes.append(f"there is no {name}")
            continue
        lines = (folder / name).read_text("utf-8", "replace").splitlines()
        listed |= {line.strip(): (part, f"{name}:{number}") for number, line in enumerate(lines, 1) if line.strip()}
    for path in recordings_below(folder):
        inside = path.relative_to(folder)
        if len(inside.parts) != 2 or inside.parts[0] == _NOISE:
            continue
        part, _ = listed.pop(inside.as_posix(), ("train", ""))
        speaker = path.stem.split("_nohash_")[0] if "_nohash_" in path.stem else ""
        name = inside.with_suffix("").as_posix()
        gathering.add(Utterance(name, path, inside.parts[0], speaker, part=part, where=inside.as_posix()))
    for name, (_, place) in listed.items():
        gathering.fail(place, f"there is no file {name}")
    noises = len(recordings_below(folder / _NOISE)) if (folder / _NOISE).is_dir() else 0
    if noises:
        gathering.notes.append(f"{noises} recordings of {_NOISE} are left out: they hold no words")


# Plain recordings


def recordings_below(folder: Path) -> list[Path]:
    """All recordings in a folder and those below it, by their names' endings; hidden ones are left out.

    Complexity: O(n log n) in the number of files.
    """
    paths = (path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    return sorted(
        p for p in paths if not any(part.startswith(".") for part in p.relative_to(folder).parts) and p.is_file()
    )


def sidecar_text(path: Path) -> tuple[str | None, str]:
    """(text, problem) of a recording: what NAME.txt or NAME.lab beside it says, lines joined by spaces.

    Returns:
        (None, "") where there is neither; a problem where they contradict each other or are no UTF-8.
    """
    texts: dict[str, str] = {}
    for end in _SIDECARS:
        beside = path.with_suffix(end)
        if beside.is_file():
            try:
                texts[beside.name] = " ".join(beside.read_text("utf-8-sig").split())
            except UnicodeDecodeError:
                return None, f"{beside.name} is no UTF-8"
    if len(set(texts.values())) > 1:
        return None, f"{' and '.join(texts)} do not say the same"
    return next(iter(texts.values()), None), ""


def _read_plain(folder: Path, recordings: list[Path], gathering: Gathering) -> None:
    names: dict[str, list[Path]] = defaultdict(list)
    for path in recordings:
        names[path.relative_to(folder).with_suffix("").as_posix()].append(path)
    for name, paths in names.items():
        for path in paths:
            inside = path.relative_to(folder)
            text, problem = sidecar_text(path)
            if problem:
                gathering.fail(inside.as_posix(), problem)
                continue
            part = next((p for one in reversed(inside.parts[:-1]) if (p := part_of(one))), "")
            own = name if len(paths) == 1 else inside.as_posix()  # a.wav and a.mp3 are two recordings
            gathering.add(Utterance(own, path, text, part=part, where=inside.as_posix()))
