"""Folders of large studies, of preprocessed frames and of plain files, told apart by what they hold."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from pipelines.data.datasets.brain_bids import Companions, parse_name
from pipelines.data.datasets.brain_tables import people_tables, subject_key
from pipelines.data.datasets.brain_types import Recording, StudyOptions
from pipelines.data.datasets.brain_walk import (
    Draft,
    absence,
    dimensions,
    image_stem,
    list_folder,
    natural,
    shown,
    surface,
    walk,
)
from pipelines.data.errors import InputError

__all__ = ["file_recording", "is_frames", "read_biobank", "read_files", "read_frames", "read_hcp"]

_HCP_RUN = re.compile(r"([rt]fMRI)_([A-Za-z]+)([0-9]*)(_7T)?_(LR|RL|AP|PA)")
_HCP_SUBJECT = re.compile(r"[0-9]{6}")
_HCP_FILES = ("", "hp2000_clean")
_BIOBANK = re.compile(r"([0-9]{7})_(20227|20249)_([0-9])_([0-9])")
_BIOBANK_FILES = ("filtered_func_data_clean", "filtered_func_data", "rfMRI", "tfMRI")
_BIOBANK_PLACES = ("fMRI/rfMRI.ica", "fMRI/tfMRI.feat", "fMRI", "rfMRI.ica", "tfMRI.feat", "")
#: Suffixes of BIDS images that are no runs.
_NO_RUNS = ("mask", "T1w", "T2w", "T2star", "dseg", "probseg", "sbref", "boldref", "epi", "dwi", "phasediff", "xfm")


def read_hcp(root: Path, options: StudyOptions) -> Draft | None:
    """The runs of an HCP (S1200) folder; None where it is none.

    `SUBJECT/MNINonLinear/Results/RUN/RUN.nii.gz`, or with `desc` hp2000_clean `RUN_hp2000_clean.nii.gz`; the mask is
    `brainmask_fs.2.nii.gz` beside it. The task is the run's name without number and direction (`rfMRI_REST`).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as base:
        ...     folder = Path(base, "100307/MNINonLinear/Results/rfMRI_REST1_LR")
        ...     folder.mkdir(parents=True)
        ...     _ = (folder / "rfMRI_REST1_LR.nii.gz").write_bytes(b"content")
        ...     draft = read_hcp(Path(base), StudyOptions())
        ...     [run.name for run in draft.recordings]
        ['100307_rfMRI_REST1_LR']
    """
    subjects = {
        name: path
        for name, path in list_folder(root).folders.items()
        if _HCP_SUBJECT.fullmatch(name) and (path / "MNINonLinear/Results").is_dir()
    }
    if not subjects and _HCP_SUBJECT.fullmatch(root.name) and (root / "MNINonLinear/Results").is_dir():
        subjects = {root.name: root}
    if not subjects:
        return None
    draft = Draft("hcp", root, tables=people_tables(root))
    runs = [
        (subject, match, path)
        for subject, folder in subjects.items()
        for name, path in list_folder(folder / "MNINonLinear/Results").folders.items()
        if (match := _HCP_RUN.fullmatch(name))
    ]
    kinds = (options.desc,) if options.desc else _HCP_FILES
    files = {kind: f"_{kind}.nii.gz" if kind else ".nii.gz" for kind in kinds}
    kind = _first_kind(files, lambda ending: any(_there(path / (path.name + ending)) for *_, path in runs), root)
    draft.notes.append(f"the files RUN{files[kind]} are read")
    for subject, match, path in runs:
        source = path / (path.name + files[kind])
        why = absence(source)
        name = f"{subject}_{path.name}"
        if why is not None:
            draft.absent[name] = why
            continue
        mask = path / "brainmask_fs.2.nii.gz"
        draft.recordings.append(
            Recording(
                name,
                source,
                subject,
                task=f"{match[1]}_{match[2]}{match[4] or ''}",
                run=match[3],
                space="MNI152NLin6Asym",
                mask=mask if options.confounds and absence(mask) is None else None,
                entities={"sub": subject, "dir": match[5]},
            )
        )
    return draft


def _there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _first_kind(files: dict[str, str], there: Callable[[str], bool], root: Path) -> str:
    """The first kind of file that any run has: kinds are never mixed."""
    for kind, name in files.items():
        if there(name):
            return kind
    raise InputError(
        "no run in the study's folders", where=root, found="none of these files", expected=", ".join(files.values())
    )


def read_biobank(root: Path, options: StudyOptions) -> Draft | None:
    """The runs of a UK Biobank folder (fields 20227 and 20249); None where it is none.

    `ID_20227_2_0/fMRI/rfMRI.ica/filtered_func_data_clean.nii.gz`, the same files without the folders between, or
    `ID_20227_2_0.nii.gz`; the instance is the session.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as base:
        ...     folder = Path(base, "1000013_20227_2_0/fMRI/rfMRI.ica")
        ...     folder.mkdir(parents=True)
        ...     _ = (folder / "filtered_func_data_clean.nii.gz").write_bytes(b"content")
        ...     draft = read_biobank(Path(base), StudyOptions())
        ...     [run.name for run in draft.recordings]
        ['1000013_20227_2_0']
    """
    listing = list_folder(root)
    folders = [(match, path) for name, path in listing.folders.items() if (match := _BIOBANK.fullmatch(name))]
    flat = [
        (match, path) for name, path in listing.files.items() if (match := _BIOBANK.fullmatch(image_stem(name) or ""))
    ]
    packed = [name for name in listing.files if name.endswith(".zip") and _BIOBANK.fullmatch(name[:-4])]
    if not (folders or flat):
        if packed:
            cure = "unpack them first: unzip -d ID_20227_2_0 ID_20227_2_0.zip"
            raise InputError("the runs are still packed", where=root, found=shown(packed), cure=cure)
        return None
    draft = Draft("ukb", root, tables=people_tables(root))
    draft.note(packed, "packed runs left out: unpack them first")
    found: list[tuple[re.Match[str], Path | None]] = [(match, path) for match, path in flat]
    if folders:
        files = {one: one for one in ((options.desc,) if options.desc else _BIOBANK_FILES)}
        images = {kind: [_biobank_image(path, kind) for _, path in folders] for kind in files}
        kind = _first_kind(files, lambda one: any(images[one]), root)
        draft.notes.append(f"the files {kind}.nii.gz are read")
        found += [(match, image) for (match, _), image in zip(folders, images[kind], strict=True)]
    for match, image in found:
        why = "no such file" if image is None else absence(image)
        if image is None or why is not None:
            draft.absent[match[0]] = str(why)
            continue
        mask = image.parent / "mask.nii.gz"
        task = "rest" if match[2] == "20227" else "task"
        wanted = options.confounds and image.stem != match[0] and absence(mask) is None
        draft.recordings.append(
            Recording(match[0], image, match[1], session=match[3], task=task, mask=mask if wanted else None)
        )
    return draft


def _biobank_image(folder: Path, kind: str) -> Path | None:
    places = (folder / place / f"{kind}.nii.gz" for place in _BIOBANK_PLACES)
    return next((place for place in places if _there(place)), None)


def is_frames(folder: Path) -> bool:
    """Whether a folder holds one run as frames (`frame_0.pt`, ...) or as one file of them (`data.pt`).

    Example:
        >>> is_frames(Path("no/such/folder"))
        False
    """
    quick = any((folder / name).is_file() for name in ("frame_0.pt", "data.pt"))
    return quick or any(folder.glob("frame_*.pt"))  # without its first frame: whoever opens it says what is missing


def read_frames(root: Path, options: StudyOptions) -> Draft | None:
    """The runs of preprocessed frames: `img/SUBJECT/frame_0.pt` (or `data.pt`) and `metadata/*.csv`.

    A folder of subjects' folders, or the folder of one subject, is read as well; None where it is none of these. The
    frames are not opened.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as base:
        ...     folder = Path(base, "img/100307")
        ...     folder.mkdir(parents=True)
        ...     _ = (folder / "frame_0.pt").write_bytes(b"content")
        ...     draft = read_frames(Path(base), StudyOptions())
        ...     [run.name for run in draft.recordings]
        ['100307']
    """
    del options  # frames have neither tasks nor spaces
    if is_frames(root):
        return Draft("frames", root, [Recording(root.name, root, subject_key(root.name))])
    top = root / "img" if (root / "img").is_dir() else root
    folders = list_folder(top).folders
    runs = {name: path for name, path in folders.items() if is_frames(path)}
    if not runs:
        return None
    draft = Draft("frames", root, tables=people_tables(root))
    draft.recordings = [Recording(name, path, subject_key(name)) for name, path in runs.items()]
    rest = [name for name in folders if name not in runs and name != "metadata"]
    draft.note(rest, "folders without frame_0.pt or data.pt left out")
    return draft


def read_files(root: Path, options: StudyOptions) -> Draft:
    """Every NIfTI file of a folder and the folders in it that has four axes and more than one volume.

    Raises:
        InputError: no such file.

    Complexity: O(files); the first bytes of each image are read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as base:
        ...     _ = Path(base, "anna_1.nii").write_bytes(b"an image")
        ...     [run.subject for run in read_files(Path(base), StudyOptions()).recordings]
        ['anna']
    """
    draft = Draft("folder", root)
    companions = Companions((root,), options)
    surfaces, other, flat = 0, 0, []
    files = walk(root, draft)
    for name, path in files:
        stem = image_stem(name)
        if stem is None:
            surfaces, other = surfaces + surface(name), other + (not surface(name))
            continue
        parsed = parse_name(path.name, path)
        axes = dimensions(path)
        why = absence(path)
        if why is not None:
            draft.absent[name] = why
        elif (parsed and parsed.suffix in _NO_RUNS) or (axes is not None and (len(axes) < 4 or axes[3] < 2)):
            flat.append(name)
        else:
            draft.recordings.append(file_recording(path, stem, companions, Path(name).parts[:-1]))
    draft.note(flat, "images without a time axis, or that are no runs by their names, left out")
    if surfaces:
        draft.notes.append(f"{surfaces:,} files on surfaces or in greyordinates left out: they have no voxels")
    draft.note(companions.unnamed, "tables of events without a column trial_type not read")
    if not draft.recordings and not draft.absent:
        seen = f"{len(flat):,} images without a time axis, {surfaces:,} on surfaces, {other:,} other files"
        expected = "NIfTI files (.nii, .nii.gz) with volumes over time, BIDS, HCP, UK Biobank or frames (img/ID/*.pt)"
        cure = "join single volumes of one run: nilearn.image.concat_imgs, fslmerge -t" if flat else None
        raise InputError("no scan in the folder", where=root, found=seen, expected=expected, cure=cure)
    _note_subjects(draft)
    draft.tables = people_tables(root)
    return draft


def file_recording(path: Path, name: str, companions: Companions, folders: Iterable[str]) -> Recording:
    """The run of one file: by its BIDS name where it has one, else the subject is the name up to the first `_`."""
    parsed = parse_name(path.name, path)
    if parsed is not None and "sub" in parsed.entities:
        run = companions.recording(parsed, tuple(folders))
        return dataclasses.replace(run, name=name)
    stem = image_stem(path.name) or path.name
    return Recording(name, path, subject_key(_BIOBANK.sub(r"\1", stem).partition("_")[0]))


def _note_subjects(draft: Draft) -> None:
    """Say where subjects were guessed: a wrong guess would put one person on both sides of a split."""
    guessed = [one for one in draft.recordings if not one.entities]
    if guessed:
        names = sorted({one.subject for one in guessed}, key=natural)
        first = os.path.basename(str(guessed[0].source))
        draft.notes.append(
            f"{len(guessed):,} files without BIDS names: what stands before the first _ is taken for the subject "
            f"({first}: {guessed[0].subject}; {len(names):,} subjects)"
        )
