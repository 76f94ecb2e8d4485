"""What a study of fMRI is: its runs, the events in them, the people, and how it was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Events", "Recording", "Study", "StudyOptions"]


@dataclass(frozen=True, eq=False)
class Events:
    """What was shown in a run and when; sorted by onset.

    Args:
        onset: (E,) s after the start of the first volume.
        duration: (E,) s; NaN where the table does not know it, 0 for an impulse.
        kind: the E names of what was shown.
        notes: what was done to the table: events sorted, left out or before the scan, counted.
        name: the table, for messages.

    Complexity: O(E) memory.

    Source: BIDS specification 1.10, "Events".

    Example:
        >>> shown = Events(np.array([12.0, 36.0]), np.array([24.0, 24.0]), ("face", "house"))
        >>> len(shown), shown.kinds
        (2, ('face', 'house'))
    """

    onset: NDArray[np.float64]
    duration: NDArray[np.float64]
    kind: tuple[str, ...]
    notes: tuple[str, ...] = ()
    name: str = "the events"

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The different names, sorted."""
        return tuple(sorted(set(self.kind)))


@dataclass(frozen=True, eq=False)
class Recording:
    """One 4-D run and what belongs to it; nothing of the voxels is read.

    Args:
        name: unique in the study: the BIDS entities (`sub-01_task-view_run-02`) or the relative path.
        source: the path of a NIfTI file or of a folder of frames, an array (X, Y, Z, T) or a nibabel image.
        subject: without `sub-`; empty where unknown.
        session, task, run, space: values of the entities; empty where there are none.
        site, family: of the table of people; empty where it has none.
        mask: an image of the brain on the run's grid, where the study has one.
        confounds: a table with a row for each volume, where the study has one.
        events: what was shown, where the study says so.
        tr: s, of the sidecar; None where there is none: the header then counts.
        entities: every `key-value` pair of the name.

    Source: BIDS specification 1.10, "Filenames".

    Example:
        >>> Recording("sub-01_task-view", Path("sub-01_task-view_bold.nii.gz"), "01", task="view").subject
        '01'
    """

    name: str
    source: Any
    subject: str = ""
    session: str = ""
    task: str = ""
    run: str = ""
    space: str = ""
    site: str = ""
    family: str = ""
    mask: Path | None = None
    confounds: Path | None = None
    events: Events | None = None
    tr: float | None = None
    entities: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Study:
    """The runs of a study, in the order of their names, and what is known of the people.

    Args:
        name: what messages call it.
        kind: `bids`, `derivative`, `hcp`, `abcd`, `ukb`, `folder`, `file`, `frames` or `arrays`.
        recordings: at least one.
        people: the row of each subject in the table of people, as text; an empty cell is an empty text.
        notes: what was left out, assumed or chosen, counted.
        keep: what must live as long as the study: the temporary folder that an archive was unpacked into.

    Complexity: O(runs) memory; no voxel is read.

    Example:
        >>> run = Recording("sub-01_task-view", Path("a.nii.gz"), "01", task="view")
        >>> study = Study("views", "bids", (run,), {"01": {"age": "31"}})
        >>> study.subjects, study.tasks
        (('01',), ('view',))
    """

    name: str
    kind: str
    recordings: tuple[Recording, ...]
    people: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    keep: Any = field(default=None, repr=False)

    @property
    def subjects(self) -> tuple[str, ...]:
        """The different subjects that have a run, sorted; runs of unknown subjects put aside."""
        return tuple(sorted({one.subject for one in self.recordings if one.subject}))

    @property
    def tasks(self) -> tuple[str, ...]:
        """The different tasks, sorted."""
        return tuple(sorted({one.task for one in self.recordings if one.task}))


@dataclass(frozen=True)
class StudyOptions:
    """Which runs of a study, and where its tables are.

    Args:
        task: BIDS entity; for HCP the folder's name without number and direction (`rfMRI_REST`). None: the only one
            there is; several are separated by commas; `*`: all, mixed.
        space: BIDS entity of derivatives, with `_res-2` where there are several (`MNI152NLin6Asym_res-2`).
        session: BIDS entity; None: all sessions.
        desc: BIDS entity of derivatives; None: `preproc` where it is there; `raw`: not the derivatives of a data set
            that has both. For HCP and UK Biobank the file: `hp2000_clean`, `filtered_func_data_clean`.
        subjects: the subjects to keep, comma-separated; None: all.
        table: tables of people (.tsv or .csv), comma-separated; None: those at the layout's own place.
        column: column of events.tsv that names what was shown.
        events: whether events tables are read.
        confounds: whether tables of confounds and masks are looked for.

    Example:
        >>> StudyOptions(task="objectviewing").task
        'objectviewing'
    """

    task: str | None = None
    space: str | None = None
    session: str | None = None
    desc: str | None = None
    subjects: str | None = None
    table: str | None = None
    column: str = "trial_type"
    events: bool = True
    confounds: bool = True
