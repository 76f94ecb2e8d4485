"""BIDS: names taken apart by their grammar, and what belongs to a run by the inheritance principle."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.data.datasets.brain_events import events_or_none, read_events
from pipelines.data.datasets.brain_tables import read_json
from pipelines.data.datasets.brain_types import Events, Recording, StudyOptions
from pipelines.data.datasets.brain_walk import Listing, absence, list_folder
from pipelines.data.errors import InputError

__all__ = ["DERIVED", "BidsName", "Companions", "parse_name", "run_name", "space_of"]

_PAIR = re.compile(r"[A-Za-z]+-[A-Za-z0-9+]+")
_SUFFIX = re.compile(r"[A-Za-z0-9]+")
#: Entities that a derivative adds to the name of the run that it was made of.
DERIVED = ("space", "res", "den", "desc", "cohort")
_COLUMN = StudyOptions().column
_TABLES, _IMAGES = (".tsv", ".tsv.gz"), (".nii.gz", ".nii")


@dataclass(frozen=True, eq=False)
class BidsName:
    """A file's name taken apart.

    Example:
        >>> name = parse_name("sub-01_task-view_bold.nii.gz")
        >>> name.entities, name.suffix, name.extension
        ({'sub': '01', 'task': 'view'}, 'bold', '.nii.gz')
    """

    entities: Mapping[str, str]
    suffix: str
    extension: str
    path: Path = field(default_factory=Path)


def parse_name(name: str, path: Path | None = None) -> BidsName | None:
    """The entities, suffix and ending of a BIDS name; None where the name does not keep to the grammar.

    The grammar: `key-label` pairs and a suffix, joined by `_`; no key twice; labels of letters and digits (and `+`).

    Args:
        name: the file's name.
        path: the file itself, kept beside.

    Source: BIDS specification 1.10, "Filenames".

    Example:
        >>> parse_name("sub-01_task-object_view_bold.nii") is None, parse_name("scan.nii") is None
        (True, True)
    """
    stem, dot, extension = name.partition(".")
    *pairs, suffix = stem.split("_")
    if not pairs or not dot or not _SUFFIX.fullmatch(suffix) or not all(_PAIR.fullmatch(pair) for pair in pairs):
        return None
    entities = {pair.split("-", 1)[0]: pair.split("-", 1)[1] for pair in pairs}
    return BidsName(entities, suffix, dot + extension, path or Path(name)) if len(entities) == len(pairs) else None


def run_name(entities: Mapping[str, str]) -> str:
    """The name of a run: its entities in the order of its file, without those that a derivative adds.

    Example:
        >>> run_name({"sub": "01", "task": "view", "space": "T1w", "desc": "preproc"})
        'sub-01_task-view'
    """
    return "_".join(f"{key}-{label}" for key, label in entities.items() if key not in DERIVED)


def space_of(entities: Mapping[str, str]) -> str:
    """The space and the resolution of a derivative; `native` where its name has no space.

    Example:
        >>> space_of({"space": "MNI152NLin6Asym", "res": "2"}), space_of({"sub": "01"})
        ('MNI152NLin6Asym_res-2', 'native')
    """
    more = (f"_{key}-{entities[key]}" for key in ("cohort", "res") if key in entities)
    return entities.get("space", "native") + "".join(more)


#: Files of a folder by suffix and subject.
_Level = dict[tuple[str, str | None], list[BidsName]]


class Companions:
    """Finds what belongs to a run: sidecars, events, mask and confounds.

    Args:
        roots: of the data set and of its derivatives, the raw one first: what stands in a later one counts more.
        options: which of them are wanted.

    Complexity: each folder is listed once, each file is read once.

    Source: BIDS specification 1.10, "The inheritance principle".

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as base:
        ...     _ = Path(base, "task-view_bold.json").write_text('{"RepetitionTime": 2.5}')
        ...     name = parse_name("sub-01_task-view_bold.nii", Path(base, "sub-01/func/sub-01_task-view_bold.nii"))
        ...     Companions((Path(base),), StudyOptions()).recording(name, ("sub-01", "func")).tr
        2.5
    """

    def __init__(self, roots: Sequence[Path], options: StudyOptions) -> None:
        self.roots, self.options = tuple(roots), options
        self.unnamed: list[str] = []  # tables of events without the column that names what was shown
        self._levels: dict[Path, _Level] = {}
        self._json: dict[Path, dict[str, Any]] = {}
        self._events: dict[Path, Events | None] = {}

    def learn(self, listing: Listing) -> None:
        """Take over a folder that was listed already."""
        level: _Level = defaultdict(list)
        for name, path in listing.files.items():
            named = parse_name(name, path)
            if named is not None:
                level[named.suffix, named.entities.get("sub")].append(named)
        self._levels[listing.path] = level

    def recording(self, name: BidsName, folders: Sequence[str]) -> Recording:
        """The run of an image, with what belongs to it.

        Args:
            name: of the image.
            folders: those between a root and the image, from above.
        """
        entities = name.entities
        levels = self._chain(folders)
        label = entities.get("sub", "")
        return Recording(
            run_name(entities),
            name.path,
            label,
            session=entities.get("ses", ""),
            task=entities.get("task", ""),
            run=entities.get("run", ""),
            space=space_of(entities) if "space" in entities else "",
            mask=self._mask(levels, entities) if self.options.confounds else None,
            confounds=self._confounds(levels, entities) if self.options.confounds else None,
            events=self._shown(levels, entities) if self.options.events else None,
            tr=self._tr(levels, entities),
            entities=dict(entities),
        )

    def _level(self, folder: Path) -> _Level:
        if folder not in self._levels:
            if folder.is_dir():
                self.learn(list_folder(folder))
            else:
                self._levels[folder] = {}
        return self._levels[folder]

    def _chain(self, folders: Sequence[str]) -> list[_Level]:
        """Files of every folder from each root down to the run's: later ones count more."""
        places = [root.joinpath(*folders[:depth]) for root in self.roots for depth in range(len(folders) + 1)]
        return [level for level in map(self._level, places) if level]

    def _tr(self, levels: Iterable[_Level], entities: Mapping[str, str]) -> float | None:
        """Lower levels override higher ones, and names with more entities those with fewer."""
        found: float | None = None
        for level in levels:
            for one in sorted(_fitting(level, entities, "bold", (".json",)), key=lambda name: len(name.entities)):
                if one.path not in self._json:
                    self._json[one.path] = read_json(one.path)
                value = self._json[one.path].get("RepetitionTime")
                found = found if value is None else _checked_tr(value, one.path)
        return found

    def _shown(self, levels: Sequence[_Level], entities: Mapping[str, str]) -> Events | None:
        nearest = _nearest(levels, entities, "events", _TABLES)
        if nearest is None:
            return None
        path = nearest.path
        if path not in self._events:
            asked = self.options.column != _COLUMN  # BIDS leaves its own column optional, not one that was named
            read = read_events if asked else events_or_none
            self._events[path] = read(path, self.options.column)
            if self._events[path] is None:
                self.unnamed.append(path.name)
        return self._events[path]

    def _mask(self, levels: Sequence[_Level], entities: Mapping[str, str]) -> Path | None:
        """Of the same run in the same space and resolution."""
        wanted = {**entities, "desc": "brain"}
        for level in reversed(levels):
            for one in _fitting(level, wanted, "mask", _IMAGES):
                if dict(one.entities) == wanted and absence(one.path) is None:
                    return one.path
        return None

    def _confounds(self, levels: Sequence[_Level], entities: Mapping[str, str]) -> Path | None:
        plain = {key: label for key, label in entities.items() if key not in (*DERIVED, "echo", "part")}
        wanted = {**plain, "desc": "confounds"}
        for suffix in ("timeseries", "regressors"):  # fMRIPrep's name, and that of its versions before 20.2
            for level in reversed(levels):
                for one in _fitting(level, wanted, suffix, _TABLES):
                    if dict(one.entities) == wanted and absence(one.path) is None:
                        return one.path
        return None


def _fitting(level: _Level, entities: Mapping[str, str], suffix: str, extensions: tuple[str, ...]) -> list[BidsName]:
    """Files of a folder that apply to a run: no entity of theirs contradicts it."""
    near = (*level.get((suffix, None), ()), *level.get((suffix, entities.get("sub") or ""), ()))
    return [one for one in near if one.extension in extensions and one.entities.items() <= entities.items()]


def _nearest(
    levels: Sequence[_Level], entities: Mapping[str, str], suffix: str, extensions: tuple[str, ...]
) -> BidsName | None:
    """The file that applies: of the lowest folder that has one, the one with the most entities."""
    for level in reversed(levels):
        fitting = _fitting(level, entities, suffix, extensions)
        if fitting:
            most = max(len(one.entities) for one in fitting)
            best = [one for one in fitting if len(one.entities) == most]
            if len(best) > 1:
                raise InputError(
                    f"two tables of {suffix} apply to one run",
                    where=best[0].path.parent,
                    found=", ".join(one.path.name for one in best),
                    expected="one for each run in a folder",
                    cure="name them by the run's entities",
                )
            return best[0]
    return None


def _checked_tr(value: object, path: Path) -> float:
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and number > 0):
        found = f"RepetitionTime {value!r}"
        raise InputError("no TR in the sidecar", where=path, found=found, expected="s, above 0", cure="correct it")
    return number
