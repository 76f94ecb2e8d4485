"""Tables of a study: participants.tsv, phenotype tables of large studies, JSON beside images; read strictly."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.data.datasets.brain_walk import absence, list_folder, shown
from pipelines.data.errors import InputError
from pipelines.data.formats.table_bytes import read_bytes

__all__ = [
    "FAMILY_COLUMNS",
    "ID_COLUMNS",
    "SITE_COLUMNS",
    "TextTable",
    "merge_people",
    "missing",
    "people_tables",
    "read_json",
    "read_people",
    "read_text_table",
    "subject_key",
    "value_of_first",
]

#: Columns that name the subject, the first that is there counts; compared without case.
ID_COLUMNS = ("participant_id", "subject", "subjectkey", "src_subject_id", "eid", "f.eid", "subject_id", "subjectid")
#: Columns of the place of recording and of the family, by data set.
SITE_COLUMNS = ("site", "site_id", "site_id_l", "scan_site", "scanner_site", "acquisition_site", "center", "54-2.0")
FAMILY_COLUMNS = ("family", "family_id", "rel_family_id", "familyid")
_ENDINGS = (".csv", ".tsv", ".txt")
_MISSING = ("", "n/a", "na", "nan", "#n/a")
_MAX_TABLE = 512 << 20
_MAX_JSON = 16 << 20
_EXPORT = "save the table as UTF-8 text with one header line"


@dataclass(frozen=True, eq=False)
class TextTable:
    """A table as text.

    Args:
        name: the file, for messages.
        columns: their names, all different.
        rows: one cell for every column.
        lines: the line of each row in the file.
        notes: what was counted while reading.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def column(self, name: str) -> int | None:
        """The place of a column by its name, or by its name in another case if only one has it."""
        if name in self.columns:
            return self.columns.index(name)
        alike = [place for place, one in enumerate(self.columns) if one.casefold() == name.casefold()]
        return alike[0] if len(alike) == 1 else None


def missing(cell: str) -> bool:
    """Whether a cell says that the value is not known.

    Example:
        >>> missing("n/a"), missing(" "), missing("0")
        (True, True, False)
    """
    return cell.strip().casefold() in _MISSING


def subject_key(text: str) -> str:
    """The label of a subject without what data sets put around it, so that tables and folders agree.

    Example:
        >>> subject_key("sub-01"), subject_key("NDAR_INV1A2B"), subject_key("1000013_20227_2_0")
        ('01', 'NDARINV1A2B', '1000013')
    """
    text = text.strip()
    text = text[4:] if text[:4].casefold() == "sub-" else text
    if text[:8].upper() == "NDAR_INV":
        return "NDARINV" + text[8:]
    biobank = re.fullmatch(r"([0-9]{7})_[0-9]{5}_[0-9]_[0-9]", text)
    return biobank[1] if biobank else text


def read_text_table(path: Path, *, limit: int = _MAX_TABLE) -> TextTable:
    """A table with one header line; .tsv by tabs, others by the separator of the header (tab, comma, semicolon).

    Args:
        path: the file, perhaps compressed (.gz, .bz2, .xz, .zip).
        limit: most bytes that may come out.

    Raises:
        InputError: no content, another encoding than UTF-8, no or an ambiguous header, a row with another number of
            cells, quotes that do not close.

    Complexity: O(bytes).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as base:
        ...     _ = Path(base, "a.tsv").write_text("participant_id\\tage\\nsub-01\\t31\\n")
        ...     read_text_table(Path(base, "a.tsv")).rows
        (('sub-01', '31'),)
    """
    text = _decoded(path, limit)
    head = next((line for line in text.splitlines() if line.strip()), "")
    if not head:
        raise InputError("the table is empty", where=path, expected="a header line and rows", cure=_EXPORT)
    tabs = path.name.lower().removesuffix(".gz").endswith(".tsv")
    separator = "\t" if tabs else max("\t,;", key=head.count)
    rows: list[tuple[str, ...]] = []
    lines: list[int] = []
    empty = 0
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append(tuple(cell.strip() for cell in row))
                lines.append(reader.line_num)
            else:
                empty += 1
    except csv.Error as error:
        raise InputError(
            "the table cannot be read", where=path, found=f"line {reader.line_num}: {error}", cure=_EXPORT
        ) from error
    _check_columns(path, rows[0], separator)
    wrong = [(line, len(row)) for line, row in zip(lines, rows, strict=True) if len(row) != len(rows[0])]
    if wrong:
        found = f"line {wrong[0][0]} has {wrong[0][1]} cells" + (f", {len(wrong):,} lines differ" if wrong[1:] else "")
        raise InputError("rows of different length", where=path, found=found, expected=f"{len(rows[0])} cells each")
    notes = (f"{path.name}: {empty:,} empty lines left out",) if empty else ()
    return TextTable(path.name, rows[0], tuple(rows[1:]), tuple(lines[1:]), notes)


def _decoded(path: Path, limit: int) -> str:
    why = absence(path)
    if why is not None:
        raise InputError(
            "the table has no content", where=path, found=why, cure="fetch it (datalad get, git annex get)"
        )
    data, _ = read_bytes(path, limit)
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            "not UTF-8 text", where=path, found=f"byte {data[error.start]:#04x} in line {line}", cure=_EXPORT
        ) from error
    if "\0" in text:
        raise InputError("not a text table", where=path, found="null bytes", cure=_EXPORT)
    return text


def _check_columns(path: Path, columns: Sequence[str], separator: str) -> None:
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        found = f"{twice[0]!r} twice" if twice[0] else "columns without a name"
        expected = f"different names, separated by {separator!r}"
        raise InputError("the header is not clear", where=path, found=found, expected=expected, cure=_EXPORT)


def _id_column(table: TextTable) -> int | None:
    for name in ID_COLUMNS:
        place = table.column(name)
        if place is not None:
            return place
    return None


def _has_people(path: Path) -> bool:
    """Whether a table's header has a column that names subjects; only the first line is looked at."""
    try:
        with path.open("rb") as file:
            head = file.readline(1 << 20).decode("utf-8-sig", "replace")
    except OSError:
        return False
    names = {cell.strip().strip('"').casefold() for cell in re.split(r"[\t,;]", head)}
    return not names.isdisjoint(ID_COLUMNS)


def people_tables(root: Path) -> list[Path]:
    """Tables of people at a layout's place: at the root and in `metadata`, those with a column of subjects."""
    found: list[Path] = []
    for folder in (root, root / "metadata"):
        if folder.is_dir():
            files = list_folder(folder).files
            found += [path for name, path in files.items() if name.lower().endswith(_ENDINGS) and _has_people(path)]
    return found


def read_people(path: Path) -> tuple[dict[str, dict[str, str]], tuple[str, ...]]:
    """The row of each subject in a table of people, by :func:`subject_key`; unknown values are empty texts.

    Args:
        path: participants.tsv, or a table with one of :data:`ID_COLUMNS`.

    Returns:
        (rows by subject, notes).

    Raises:
        InputError: no column of subjects, a row without one, a subject twice with different rows.

    Complexity: O(cells).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as base:
        ...     _ = Path(base, "a.csv").write_text("Subject,Gender\\n100307,F\\n100408,n/a\\n")
        ...     read_people(Path(base, "a.csv"))[0]
        {'100307': {'Gender': 'F'}, '100408': {'Gender': ''}}
    """
    table = read_text_table(path)
    place = _id_column(table)
    if place is None:
        raise InputError(
            "no column of subjects",
            where=path,
            found=shown(table.columns),
            expected=f"one of {', '.join(ID_COLUMNS)}",
            cure="rename the column, or name another table",
        )
    people: dict[str, dict[str, str]] = {}
    lines: dict[str, int] = {}
    same = 0
    for line, row in zip(table.lines, table.rows, strict=True):
        if missing(row[place]):
            raise InputError("a row without a subject", where=path, found=f"line {line}", cure="name it or remove it")
        key = subject_key(row[place])
        pairs = zip(table.columns, row, strict=True)
        cells = {name: "" if missing(cell) else cell for at, (name, cell) in enumerate(pairs) if at != place}
        if key not in people:
            people[key], lines[key] = cells, line
        elif people[key] == cells:
            same += 1
        else:
            raise InputError(
                "a subject stands twice with different rows",
                where=path,
                found=f"{row[place]} in lines {lines[key]} and {line}",
                expected="one row for each subject",
                cure="keep one row of each: of one visit, where the table has several",
            )
    notes = (f"{path.name}: {same:,} rows that repeat another left out",) if same else ()
    return people, (*table.notes, *notes)


def merge_people(
    parts: Iterable[tuple[str, Mapping[str, Mapping[str, str]]]],
) -> dict[str, dict[str, str]]:
    """One table of people out of several, by subject.

    Args:
        parts: (name, rows) of each table.

    Raises:
        InputError: two tables that differ about a value.

    Complexity: O(cells).

    Example:
        >>> merge_people([("a", {"1": {"sex": "F"}}), ("b", {"1": {"age": "30"}})])
        {'1': {'sex': 'F', 'age': '30'}}
    """
    people: dict[str, dict[str, str]] = {}
    for name, rows in parts:
        for subject, cells in rows.items():
            held = people.setdefault(subject, {})
            for column, cell in cells.items():
                if held.get(column, "") and cell and held[column] != cell:
                    raise InputError(
                        f"tables differ about {column!r} of subject {subject}",
                        where=name,
                        found=f"{cell!r}, and {held[column]!r} in another table",
                        cure="name the table that counts",
                    )
                held[column] = cell or held.get(column, "")
    return people


def value_of_first(row: Mapping[str, str], names: Sequence[str]) -> str:
    """The cell of the first of some columns that a row has, compared without case; empty where none is there.

    Example:
        >>> value_of_first({"Family_ID": "7"}, FAMILY_COLUMNS)
        '7'
    """
    cells = {name.casefold(): cell for name, cell in row.items()}
    return next((cells[name] for name in names if cells.get(name)), "")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file beside an image.

    Raises:
        InputError: too large, not UTF-8 JSON, no object.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as base:
        ...     _ = Path(base, "a.json").write_text('{"RepetitionTime": 2.5}')
        ...     read_json(Path(base, "a.json"))
        {'RepetitionTime': 2.5}
    """
    why = absence(path)
    if why is not None:
        raise InputError("the sidecar has no content", where=path, found=why, cure="fetch it (datalad get)")
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_JSON + 1)
        value = json.loads(data.decode("utf-8-sig")) if len(data) <= _MAX_JSON else None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError("not a JSON file", where=path, found=str(error)[:120], cure="repair or remove it") from error
    if not isinstance(value, dict):
        found = f"more than {_MAX_JSON:,} bytes" if len(data) > _MAX_JSON else type(value).__name__
        raise InputError("no JSON object in the sidecar", where=path, found=found, cure="repair or remove it")
    return value
