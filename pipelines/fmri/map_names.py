"""Names of maps by BIDS: from the entities of a run and the label of a class, unique, known before any work.

Source: BIDS specification 1.10, "Filenames" and the order of its entities; ``desc`` and ``stat`` with ``statmap`` as
the tools of the field name statistical maps.
"""

from __future__ import annotations

import hashlib
import pathlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipelines.errors import InputError

if TYPE_CHECKING:
    from pipelines.data.datasets.brain_types import Recording

__all__ = ["STATS", "MapNames", "bids_label", "stem_of"]

#: The two maps of a class: signed mean, and mean of sizes.
STATS = ("mean", "meanabs")
_LONGEST = 60  # characters of a label: names of files have room for 255
_ORDER = ("sub", "ses", "task", "acq", "ce", "rec", "dir", "run", "echo", "part", "space", "res", "den")
_DROPPED = ("desc", "stat", "suffix", "datatype", "extension")  # what the name of a map says anew, or elsewhere
_DIRECTIONS = ("LR", "RL", "AP", "PA", "IS", "SI")


def bids_label(text: str) -> str:
    """A text as the value of a BIDS entity: letters and digits of ASCII, words joined with capitals, never empty.

    Example:
        >>> bids_label("scrambled pix"), bids_label("01_b"), bids_label("Öl")
        ('scrambledPix', '01B', 'Ol')
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    words = re.findall(r"[A-Za-z0-9]+", plain)
    label = "".join([*words[:1], *(word[0].upper() + word[1:] for word in words[1:])])
    code = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    if not label:
        return f"x{code}"
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST - 8]}{code}"


class MapNames:
    """The path of each map within the derivative, without its ending; known before anything is computed.

    Args:
        recordings: the runs that get maps.
        labels: the classes, or the name of the target.

    Complexity: O(runs + labels).

    Example:
        >>> from pipelines.data.datasets.brain_types import Recording
        >>> run = Recording("sub-01_task-view_run-2", "a.nii.gz", "01", task="view", run="2")
        >>> MapNames([run], ["house"]).path(run, "house", "mean").as_posix()
        'sub-01/func/sub-01_task-view_run-2_desc-igHouse_stat-mean_statmap'
    """

    def __init__(self, recordings: Sequence[Recording], labels: Sequence[str]) -> None:
        self._notes: list[str] = []
        self._entities: dict[str, dict[str, str]] = {}
        taken: set[str] = set()
        for one in recordings:
            if one.name in self._entities:
                raise InputError("two runs have one name", where=one.name, cure="give each run a name of its own")
            self._entities[one.name] = self._unique(one, taken)
        self._labels: dict[str, str] = {}
        used: set[str] = set()
        for label in dict.fromkeys(labels):
            self._labels[label] = self._described(label, used)

    @property
    def notes(self) -> tuple[str, ...]:
        """Names that had to be changed for BIDS."""
        return tuple(dict.fromkeys(self._notes))

    def path(self, recording: Recording, label: str, stat: str) -> pathlib.Path:
        """Folder and stem of one map.

        Raises:
            InputError: a run or class that was not announced.
        """
        if recording.name not in self._entities or label not in self._labels:
            raise InputError("a map that was not announced", where=f"{recording.name}, {label}")
        entities = self._entities[recording.name]
        folder = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities]
        parts = [f"{key}-{value}" for key, value in entities.items()]
        name = "_".join([*parts, f"desc-{self._labels[label]}", f"stat-{stat}", "statmap"])
        return pathlib.Path(*folder, "func", name)

    def paths(self) -> list[pathlib.Path]:
        """Every image and sidecar that may be written."""
        found = []
        for entities in self._entities.values():
            folder = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities]
            stem = "_".join(f"{key}-{value}" for key, value in entities.items())
            for label in self._labels.values():
                for stat in STATS:
                    name = f"{stem}_desc-{label}_stat-{stat}_statmap"
                    found += [pathlib.Path(*folder, "func", name + ending) for ending in (".nii.gz", ".json")]
        return found

    def _unique(self, recording: Recording, taken: set[str]) -> dict[str, str]:
        """Entities of a run; where another run has the same, ``acq`` tells them apart."""
        entities = self._given(recording)
        own, number = bids_label(stem_of(recording.name)), 1
        while (key := "_".join(entities.values()).casefold()) in taken:
            entities = _ordered({**entities, "acq": own if number == 1 else f"{own}{number}"})
            number += 1
        if number > 1:
            self._notes.append(f"{recording.name}: its maps are named by acq-{entities['acq']}, to be told apart")
        taken.add(key)
        return entities

    def _given(self, recording: Recording) -> dict[str, str]:
        given = {key: value for key, value in recording.entities.items() if key not in _DROPPED and value}
        known = {"sub": recording.subject, "ses": recording.session, "task": recording.task, "run": recording.run,
                 "space": recording.space.split("_res-")[0]}  # fmt: skip
        given |= {key: value for key, value in known.items() if value and key not in given}
        if "sub" not in given:
            given["sub"] = stem_of(recording.name)
            self._notes.append(f"{recording.name}: its subject is not known; its maps are named after the run")
        if "task" not in given:
            given["task"] = "unknown"
            self._notes.append(f"{recording.name}: its task is not known; its maps are named task-unknown")
        if not given.get("run", "0").isdigit():  # BIDS has numbers there
            value = given.pop("run")
            given["dir" if value in _DIRECTIONS and "dir" not in given else "acq"] = value
        return _ordered({bids_label(key): self._converted(key, value) for key, value in given.items()})

    def _converted(self, key: str, value: str) -> str:
        label = bids_label(value)
        if label != value:
            self._notes.append(f"BIDS allows letters and digits only: {key} {value!r} is written as {label}")
        return label

    def _described(self, label: str, used: set[str]) -> str:
        plain = bids_label(label)
        base = f"ig{plain[0].upper()}{plain[1:]}"
        name, number = base, 1
        while name.casefold() in used:
            number += 1
            name = f"{base}{number}"
        if plain != label or number > 1:
            self._notes.append(f"BIDS allows letters and digits only: maps of {label!r} are written as desc-{name}")
        used.add(name.casefold())
        return name


def stem_of(name: str) -> str:
    """The name of a run or image without the endings of files.

    Example:
        >>> stem_of("sub-01_bold.nii.gz")
        'sub-01_bold'
    """
    return re.sub(r"(\.nii)?(\.gz)?$", "", name, flags=re.IGNORECASE) or name


def _ordered(entities: Mapping[str, str]) -> dict[str, str]:
    keys = [key for key in _ORDER if key in entities] + sorted(key for key in entities if key not in _ORDER)
    return {key: entities[key] for key in keys}
