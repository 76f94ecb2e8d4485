"""Lists of recordings and texts: JSON lines and tables; a bad line is kept with its place, the others are read."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.data.datasets.speech_utterance import Gathering, Utterance, part_of
from pipelines.data.errors import InputError

__all__ = ["FIELDS", "add_record", "describe_fields", "read_manifest", "sniff"]

#: Role -> names that columns and keys may have for it; the first that is there counts.
FIELDS: Mapping[str, tuple[str, ...]] = {
    "audio": ("audio", "audio_filepath", "path", "file", "wav", "file_name", "filename", "wav_filename", "audio_path"),
    "text": ("text", "transcript", "sentence", "transcription"),
    "seconds": ("duration", "seconds"),
    "start": ("offset", "start"),
    "speaker": ("speaker", "speaker_id", "client_id", "spk"),
    "id": ("id", "utt_id", "utterance_id"),
    "part": ("split", "part"),
}
#: Folders beside a list in which corpora keep its recordings; {stem} is the list's own name.
_FOLDERS = ("", "{stem}", "clips", "wavs", "spgispeech/{stem}")
_SPGI = ("wav_filename", "wav_filesize", "transcript")
_DELIMITERS = "\t|,;"
#: As much of a file as tells its kind.
_HEAD = 1 << 16
#: What a byte that is no UTF-8 becomes while lines are told apart.
_BROKEN = range(0xDC80, 0xDD00)


@dataclasses.dataclass(frozen=True)
class Sniffed:
    """How a list is written.

    Attributes:
        kind: "JSON lines", "LJSpeech", "SPGISpeech", "Common Voice", "table".
        delimiter: between cells; "" for JSON.
        header: the columns' names in lower case; empty where there are none.
    """

    kind: str
    delimiter: str = ""
    header: tuple[str, ...] = ()


def describe_fields() -> str:
    """The names that are understood, for messages.

    Example:
        >>> describe_fields().startswith("audio (audio, audio_filepath, path")
        True
    """
    return "; ".join(f"{role} ({', '.join(names)})" for role, names in FIELDS.items())


def sniff(path: Path) -> Sniffed | None:
    """How a list is written, by its first line; None where it is no list of recordings.

    Complexity: O(1), 64 kB are read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if b"\0" in head:
        return None
    lines = [line for line in head.decode("utf-8-sig", "replace").splitlines() if line.strip()]
    if not lines:
        return None
    if lines[0].lstrip().startswith("{"):
        return Sniffed("JSON lines") if _is_record(lines[0], cut=len(head) == _HEAD) else None
    for delimiter in _DELIMITERS:
        cells = next(csv.reader([lines[0]], **_dialect(delimiter)))
        header = tuple(cell.strip().lower() for cell in cells)
        if set(FIELDS["audio"]) & set(header) and len(header) > 1:
            return Sniffed(_kind(header, delimiter), delimiter, header)
    first = lines[0].split("|")
    if len(first) in (2, 3) and (path.parent / "wavs" / f"{first[0]}.wav").is_file():
        return Sniffed("LJSpeech", "|")
    only = lines[0].strip().lower()
    return Sniffed("table", ",", (only,)) if only in FIELDS["audio"] else None


def _is_record(line: str, *, cut: bool) -> bool:
    """Whether a first line is a JSON object of its own; a damaged one passes if it names a key that is understood."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return line.rstrip().endswith("}") or (cut and any(f'"{name}"' in line for name in FIELDS["audio"]))


def _kind(header: Sequence[str], delimiter: str) -> str:
    if tuple(header[:3]) == _SPGI and delimiter == "|":
        return "SPGISpeech"
    return "Common Voice" if delimiter == "\t" and {"client_id", "path", "sentence"} <= set(header) else "table"


def _dialect(delimiter: str) -> dict[str, Any]:
    # Tables with tabs or bars hold quotation marks as text (Common Voice, LJSpeech, SPGISpeech).
    quoted = delimiter in ",;"
    return {"delimiter": delimiter, "quoting": csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, "strict": False}


def read_manifest(path: Path, gathering: Gathering, *, part: str = "", root: Path | None = None) -> str:
    """Add the utterances of a list to a gathering; what a line lacks goes to its failures.

    Args:
        path: JSON lines or a table with a header (or LJSpeech's without one).
        gathering: what is added to.
        part: for lines that name no part of their own.
        root: what paths are relative to; by default the list's folder and the folders beside it that corpora use.

    Returns:
        The kind, as in :class:`Sniffed`.

    Raises:
        InputError: the file is no list, or names a role twice.

    Complexity: O(lines), the list in memory once.
    """
    sniffed = sniff(path)
    if sniffed is None:
        raise InputError(
            "not a list of recordings",
            where=path,
            found=f"first line {_first_line(path)!r}",
            expected=f"JSON lines, or a header with {describe_fields()}",
        )
    text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    rows = _json_rows(text) if sniffed.kind == "JSON lines" else _table_rows(text, sniffed)
    numbered = list(rows)
    records = [row for _, row in numbered if not isinstance(row, str)]
    texts = any(_pick(record, "text") is not None for record in records)
    if _ambiguous(records):
        gathering.notes.append(_ambiguous(records))
    folders = [root] if root else [path.parent / folder.format(stem=path.stem) for folder in _FOLDERS]
    for number, row in numbered:
        place = f"{path.name}:{number}"
        if isinstance(row, str):
            gathering.fail(place, row)
        else:
            add_record(row, gathering, place=place, folders=folders, part=part, texts=texts, kind=sniffed.kind)
    named = (_pick(record, "part") for record in records)
    unknown = Counter(name for name in named if isinstance(name, str) and name and part_of(name) is None)
    gathering.notes += [f"{count} utterances of the part '{name}' count for none" for name, count in unknown.items()]
    return sniffed.kind


def _first_line(path: Path) -> str:
    with path.open("rb") as file:
        return file.readline(80).decode("utf-8", "replace").strip()


def _json_rows(text: str) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """(line, object, or what is wrong with the line)."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        if _broken(line):
            yield number, "the line is no UTF-8"
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, f"no JSON: {error}"
            continue
        yield number, ({str(k).lower(): v for k, v in row.items()} if isinstance(row, dict) else "no JSON object")


def _broken(text: str) -> bool:
    return not text.isascii() and any(ord(character) in _BROKEN for character in text)


def _table_rows(text: str, sniffed: Sniffed) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """(line, cells by column, or what is wrong with the line)."""
    reader = csv.reader(io.StringIO(text, newline=""), **_dialect(sniffed.delimiter))
    header = sniffed.header
    if header:
        next(row for row in reader if any(cell.strip() for cell in row))
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, f"no row of a table: {error}"
            continue
        if not any(cell.strip() for cell in row):
            continue
        if _broken("".join(row)):
            yield number, "the line is no UTF-8"
        elif sniffed.kind == "LJSpeech":
            yield number, ({"audio": f"{row[0]}.wav", "id": row[0], "text": row[-1]} if len(row) > 1 else "no text")
        elif len(row) != len(header):
            yield number, f"{len(row)} cells where the header has {len(header)}"
        else:
            yield number, {name: cell for name, cell in zip(header, row, strict=True) if cell.strip() or _is_text(name)}


def _is_text(name: str) -> bool:
    """Whether an empty cell of this column says something: an empty transcript."""
    return name in FIELDS["text"]


def _pick(record: Mapping[str, Any], role: str) -> Any:
    """The value of the first of a role's names that the record has."""
    return next((record[name] for name in FIELDS[role] if record.get(name) is not None), None)


def _ambiguous(records: Sequence[Mapping[str, Any]]) -> str:
    """A note on roles that the first record names twice."""
    first = records[0] if records else {}
    twice = [[name for name in FIELDS[role] if first.get(name) is not None] for role in ("audio", "text")]
    return "; ".join(f"'{names[0]}' is read, not {', '.join(names[1:])}" for names in twice if len(names) > 1)


def add_record(
    record: Mapping[str, Any],
    gathering: Gathering,
    *,
    place: str,
    folders: Sequence[Path],
    part: str = "",
    texts: bool = False,
    kind: str = "",
) -> None:
    """Add the utterance of one record (names of :data:`FIELDS` -> values), or say in the failures what it lacks.

    Args:
        record: as it stands in the list, keys in lower case.
        gathering: what is added to.
        place: for messages, and `Utterance.where`.
        folders: what a relative path is looked for in, in this order.
        part: for a record that names none.
        texts: whether a record without a text is a failure.
        kind: of the list; "SPGISpeech" takes the recording's folder, which is a call, for the speaker.
    """
    audio, text = _pick(record, "audio"), _pick(record, "text")
    if not isinstance(audio, str) or not audio.strip():
        return gathering.fail(place, f"no recording is named (one of {', '.join(FIELDS['audio'])})")
    source = next((path for folder in folders if gathering.present(path := folder / audio)), None)
    if source is None:
        return gathering.fail(place, f"there is no file {audio}")
    if text is not None and not isinstance(text, str):
        return gathering.fail(place, f"the text is no text but {text!r}")
    if text is None and texts:
        return gathering.fail(place, f"no text is given (one of {', '.join(FIELDS['text'])})")
    times = _times(record)
    if isinstance(times, str):
        return gathering.fail(place, times)
    start, seconds = times
    named = _pick(record, "part")
    own = part_of(named) if isinstance(named, str) else None
    speaker = str(_pick(record, "speaker") or "")
    if kind == "SPGISpeech" and not speaker:
        speaker = source.parent.name
    name = _pick(record, "id")
    made = audio.rsplit(".", 1)[0] + (f"@{start:g}" if _pick(record, "start") is not None else "")
    identity = made if name is None else str(name)
    gathering.add(Utterance(identity, source, text, speaker, start, seconds, own or part, place))
    return None


def _times(record: Mapping[str, Any]) -> tuple[float, float | None] | str:
    """(start, seconds or None), or what is wrong with them."""
    values: list[float | None] = []
    for role, least in (("start", 0.0), ("seconds", math.ulp(0.0))):
        given = _pick(record, role)
        try:
            value = None if given is None else float(given)
        except (TypeError, ValueError, OverflowError):
            value = math.nan
        if isinstance(given, bool) or (value is not None and math.isnan(value)):
            return f"{role} is no number but {given!r}"
        if value is not None and not (math.isfinite(value) and value >= least):
            return f"{role} is {given!r}, not seconds from 0 on" if role == "start" else f"{role} is {given!r}, not > 0"
        values.append(value)
    return values[0] or 0.0, values[1]
