"""Opening a study: a file, a list, a folder of any known layout, or an archive of one."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pipelines.data.datasets.brain_bids import Companions
from pipelines.data.datasets.brain_bids_tree import is_bids, read_bids
from pipelines.data.datasets.brain_layouts import file_recording, read_biobank, read_files, read_frames, read_hcp
from pipelines.data.datasets.brain_tables import (
    FAMILY_COLUMNS,
    SITE_COLUMNS,
    merge_people,
    read_people,
    subject_key,
    value_of_first,
)
from pipelines.data.datasets.brain_types import Recording, Study, StudyOptions
from pipelines.data.datasets.brain_walk import Draft, absence, image_stem, natural, shown, surface
from pipelines.data.errors import InputError

__all__ = ["UNDERSTOOD", "open_study"]

UNDERSTOOD = (
    "a NIfTI file (.nii, .nii.gz, .hdr with .img), a folder of them, BIDS or a derivative of it, HCP "
    "(SUBJECT/MNINonLinear/Results), ABCD, UK Biobank (ID_20227_2_0), preprocessed frames (img/SUBJECT/frame_0.pt or "
    "data.pt), a .zip or .tar of one of these, or a list of files, arrays or nibabel images"
)
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_GB = 1024**3


def open_study(source: Any, options: StudyOptions | None = None, *, limit_gb: float = 64.0) -> Study:
    """The runs of a study with everything that lies beside them; no voxel is read.

    Args:
        source: one of :data:`UNDERSTOOD`.
        options: which runs, and where the tables are.
        limit_gb: most that may come out of an archive, in GiB; it is unpacked into the temporary folder, which lives
            as long as the study (keep the study while its runs are read).

    Returns:
        The study; its `notes` say what was left out, chosen and assumed.

    Raises:
        InputError: nothing that is understood; no run with content; several tasks or spaces and none chosen; damaged
            or contradictory tables, sidecars and events; an archive that is damaged, too large or leads outside.

    Complexity: O(files), O(runs) memory.

    Source: BIDS specification 1.10; HCP S1200 reference manual, "Directory structure"; UK Biobank fields 20227, 20249.

    Example:
        >>> import numpy as np
        >>> study = open_study([np.zeros((4, 4, 4, 10)), np.zeros((4, 4, 4, 10))])
        >>> study.kind, [run.name for run in study.recordings]
        ('arrays', ['array-1', 'array-2'])
    """
    chosen = StudyOptions() if options is None else options
    if isinstance(source, list | tuple):
        return _finish(_from_list(source, chosen), chosen)
    if not isinstance(source, str | os.PathLike):
        return _finish(_from_list([source], chosen), chosen)
    path = Path(source)
    if os.path.isdir(path):  # unlike Path.is_dir, not offended by names that are too long
        return _finish(_from_folder(path, chosen), chosen)
    why = absence(path)
    if why is not None:
        cure = "check the path" if why == "not there" else "fetch its content: datalad get (or git annex get)"
        raise InputError("no study to open", where=path, found=why, expected=UNDERSTOOD, cure=cure)
    if path.name.lower().endswith(_ARCHIVES):
        return _from_archive(path, chosen, limit_gb)
    return _finish(_from_list([path], chosen), chosen)


def _from_folder(root: Path, options: StudyOptions) -> Draft:
    # Frames first: their folders bear the names of the studies that they come from, and hold thousands of files.
    draft = read_frames(root, options)
    if draft is None and is_bids(root):
        draft = read_bids(root, options)
    draft = draft or read_hcp(root, options) or read_biobank(root, options) or read_files(root, options)
    abcd = draft.kind != "frames" and all(one.subject.startswith("NDARINV") for one in draft.recordings)
    if abcd and draft.recordings:
        draft.kind = "abcd"
    return draft


def _from_list(items: Sequence[Any], options: StudyOptions) -> Draft:
    """Files and things in memory, in the order given."""
    if not items:
        raise InputError("an empty list is no study", where="source", expected=UNDERSTOOD)
    paths = [Path(one) for one in items if isinstance(one, str | os.PathLike)]
    root = Path(os.path.commonpath([one.absolute().parent for one in paths])) if paths else Path()
    one_kind = "file" if len(items) == 1 else "folder"
    draft = Draft(one_kind if len(paths) == len(items) else "arrays", root, explicit=True)
    found: dict[tuple[Path, ...], Companions] = {}  # one for each data set: its folders are listed once
    for number, item in enumerate(items, 1):
        if not isinstance(item, str | os.PathLike):
            draft.recordings.append(_in_memory(item, number))
            continue
        path = Path(item)
        name = os.path.relpath(path.absolute(), root).replace(os.sep, "/")
        if path.is_dir():
            raise InputError("a folder in a list of scans", where=path, cure="open the folder by itself")
        why, stem = absence(path), image_stem(name)
        if why is not None:
            draft.absent[name] = why
        elif stem is None:
            raise _no_image(path)
        else:
            roots = _roots_above(path)
            companions = found.setdefault(roots, Companions(roots, options))
            folders = path.absolute().parent.relative_to(companions.roots[-1]).parts
            draft.recordings.append(file_recording(path, stem, companions, folders))
    unnamed = [name for companions in found.values() for name in companions.unnamed]
    draft.note(unnamed, "tables of events without a column trial_type not read")
    plain = [one for one in draft.recordings if not one.entities and one.subject]
    if plain:
        what = f"{len(plain):,} files without BIDS names: what stands before the first _ is taken for the subject"
        draft.notes.append(f"{what} ({plain[0].name}: {plain[0].subject})")
    return draft


def _roots_above(path: Path) -> tuple[Path, ...]:
    """The data set that a file lies in, the raw one before its derivative; the file's folder where there is none."""
    folder = path.absolute().parent
    for above in (folder, *folder.parents[:4]):
        if (above / "dataset_description.json").is_file():
            raw = above.parent.parent
            nested = above.parent.name == "derivatives" and (raw / "dataset_description.json").is_file()
            return (raw, above) if nested else (above,)
    return (folder,)


def _no_image(path: Path) -> InputError:
    if surface(path.name):
        problem, cure = "data on a surface or in greyordinates have no voxels", "give the volumes (.nii.gz) of the run"
    else:
        problem = "not a scan"
        pair = path.name.lower().endswith(".img")
        cure = "give the .hdr that belongs to it" if pair else "convert it to NIfTI, e.g. with dcm2niix"
    return InputError(problem, where=path, found=path.name, expected=UNDERSTOOD, cure=cure)


def _in_memory(item: Any, number: int) -> Recording:
    """An array or a nibabel image; whoever opens it checks its shape."""
    if hasattr(item, "dataobj") and hasattr(item, "affine"):
        named = item.get_filename() if hasattr(item, "get_filename") else None
        stem = image_stem(os.path.basename(named)) if named else None
        return Recording(f"image-{number}" + (f"_{stem}" if stem else ""), item)
    if hasattr(item, "shape") and hasattr(item, "dtype"):
        return Recording(f"array-{number}", item)
    raise InputError("nothing that a scan can be read from", where="source", found=type(item), expected=UNDERSTOOD)


class _Unpacked:
    """A temporary folder that goes when nothing refers to this object any more, or when the program ends."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="study-"))
        self._finalizer = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def remove(self) -> None:
        """Remove it at once."""
        self._finalizer()


def _from_archive(path: Path, options: StudyOptions, limit_gb: float) -> Study:
    from pipelines.data.formats.archive import extract

    held = _Unpacked()
    try:
        free = shutil.disk_usage(held.folder).free
        limit = int(min(limit_gb * _GB, 0.9 * free))
        try:
            extract(path, held.folder / "study", max_bytes=limit)
        except OSError as error:  # a damaged offset in a zip's directory ends in a failed seek
            cure = "fetch the archive again, or free space in the temporary folder"
            found = error.strerror or str(error)
            raise InputError("the archive cannot be unpacked", where=path, found=found, cure=cure) from error
        root = held.folder / "study"
        inside = [one for one in root.iterdir() if not one.name.startswith((".", "__MACOSX"))]
        if len(inside) == 1 and inside[0].is_dir() and not inside[0].name.startswith("sub-"):
            root = inside[0]
        draft = _from_folder(root, options)
        draft.notes.append(f"{path.name} was unpacked into the temporary folder for as long as the study is used")
        study = _finish(draft, options)
    except BaseException:
        held.remove()
        raise
    return dataclasses.replace(study, name=path.name, keep=held)


def _finish(draft: Draft, options: StudyOptions) -> Study:
    """Choose, check and complete what a layout gave."""
    name = draft.root.name or str(draft.root)
    runs = _chosen(draft, options)
    if draft.absent:
        listed = [f"{one}: {why}" for one, why in draft.absent.items()]
        cure = "datalad get (or git annex get, git lfs pull) fetches the content"
        if not runs:
            found = f"{len(listed):,} runs without content ({shown(listed)})"
            raise InputError("no run has its content here", where=draft.root, found=found, cure=cure)
        draft.notes.append(f"{len(listed):,} runs without content left out ({shown(listed)}); {cure}")
    if not runs:
        raise InputError("no run is left", where=draft.root, found="no run", expected=UNDERSTOOD)
    twice = [one for one, count in Counter(run.name for run in runs).items() if count > 1]
    if twice:
        runs = [_full_name(run) if run.name in twice else run for run in runs]
        twice = [one for one, count in Counter(run.name for run in runs).items() if count > 1]
    if twice:
        cure = "keep one of them: the same run as .nii and .nii.gz, or one file listed twice"
        raise InputError("runs of the same name", where=draft.root, found=shown(twice), cure=cure)
    people = _people(draft, options)
    runs = [_with_person(run, people) for run in runs]
    if not draft.explicit:
        runs.sort(key=lambda run: natural(run.name))
    if options.subjects is not None:  # rows of people that were not asked for are no labels without a run
        here = {run.subject for run in runs}
        people = {one: row for one, row in people.items() if one in here}
    return Study(name, draft.kind, tuple(runs), people, tuple(draft.notes))


def _chosen(draft: Draft, options: StudyOptions) -> list[Recording]:
    """Subjects, sessions and tasks, for those layouts that have not chosen before."""
    runs = list(draft.recordings)
    if options.subjects is not None:
        asked = [subject_key(one) for one in options.subjects.split(",")]
        lost = [one for one in asked if one not in {run.subject for run in runs}]
        if lost:
            found = shown(sorted({run.subject for run in runs if run.subject}, key=natural)) or "no subject"
            raise InputError("no run of a subject", where=draft.root, found=found, expected=shown(lost))
        runs = [run for run in runs if run.subject in asked]
    for what, key, text in (("session", "ses-", options.session), ("task", "task-", options.task)):
        labels = sorted({getattr(run, what) for run in runs}, key=natural)
        found = shown(one or "none" for one in labels)
        cure = f"choose: --study.{what} NAME" + (", or * for all, mixed" if what == "task" else "")
        if text is None and what == "task" and len([one for one in labels if one]) > 1 and not draft.explicit:
            raise InputError("several tasks", where=draft.root, found=found, expected="one", cure=cure)
        if text is not None and text != "*":
            wanted = {one.strip().removeprefix(key) for one in text.split(",")}
            if not wanted <= set(labels):
                raise InputError(f"no such {what}", where=draft.root, found=found, expected=text, cure=cure)
            runs = [run for run in runs if getattr(run, what) in wanted]
    return runs


def _full_name(run: Recording) -> Recording:
    stem = image_stem(os.path.basename(str(run.source)))
    return dataclasses.replace(run, name=stem) if stem else run


def _people(draft: Draft, options: StudyOptions) -> dict[str, dict[str, str]]:
    tables = draft.tables
    if options.table is not None:
        tables = [_named_table(draft.root, one.strip()) for one in options.table.split(",")]
    parts: list[tuple[str, dict[str, dict[str, str]]]] = []
    for path in tables:
        rows, notes = read_people(path)
        draft.notes += notes
        parts.append((path.name, rows))
    if len(tables) > 1:
        draft.notes.append(f"people are read from {len(tables)} tables ({shown(path.name for path in tables)})")
    return merge_people(parts)


def _named_table(root: Path, text: str) -> Path:
    """A path as given, or below the study."""
    places: Iterable[Path] = (Path(text), root / text)
    for place in places:
        if place.is_file():
            return place
    raise InputError("no such table of people", where=text, expected="a .tsv or .csv file", cure="check the path")


def _with_person(run: Recording, people: dict[str, dict[str, str]]) -> Recording:
    row = people.get(run.subject)
    if not row:
        return run
    site, family = value_of_first(row, SITE_COLUMNS), value_of_first(row, FAMILY_COLUMNS)
    return dataclasses.replace(run, site=run.site or site, family=run.family or family) if site or family else run
