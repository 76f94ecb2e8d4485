"""A BIDS data set: its runs, or those of its derivatives, in one space and one task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.data.datasets.brain_bids import BidsName, Companions, parse_name, space_of
from pipelines.data.datasets.brain_tables import people_tables, read_json
from pipelines.data.datasets.brain_types import StudyOptions
from pipelines.data.datasets.brain_walk import Draft, absence, image_stem, list_folder, natural, shown, surface
from pipelines.data.errors import InputError

__all__ = ["choose", "is_bids", "read_bids"]

_DESCRIPTION = "dataset_description.json"
_PREFERRED = "fmriprep"


@dataclass
class _Tree:
    """The images below one root, and what was met beside them."""

    root: Path
    images: list[tuple[BidsName, tuple[str, ...]]] = field(default_factory=list)  # with the folders above it
    odd: list[str] = field(default_factory=list)  # images whose names are no BIDS names
    surfaces: int = 0
    subjects: set[str] = field(default_factory=set)


def is_bids(root: Path) -> bool:
    """Whether a folder is a BIDS data set: by its description, or by a subject's folder `func`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as base:
        ...     Path(base, "sub-01/func").mkdir(parents=True)
        ...     is_bids(Path(base))
        True
    """
    listing = list_folder(root)
    if _DESCRIPTION in listing.files:
        return True
    for name, path in listing.folders.items():
        if name.startswith("sub-") and ((path / "func").is_dir() or any(path.glob("ses-*/func"))):
            return True
    return False


def read_bids(root: Path, options: StudyOptions) -> Draft:
    """The runs of a BIDS data set; of its derivatives, where it holds preprocessed runs and `desc` is not `raw`.

    Args:
        root: of the data set or of a derivative data set.
        options: which runs.

    Raises:
        InputError: no run; several tasks, spaces or pipelines, which are listed; a name of another subject than its
            folder's; a table or sidecar that cannot be read.

    Complexity: O(files of the func folders).

    Source: BIDS specification 1.10, "Filenames" and "Derivatives".

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as base:
        ...     Path(base, "sub-01/func").mkdir(parents=True)
        ...     _ = Path(base, "sub-01/func/sub-01_task-view_bold.nii").write_bytes(b"an image")
        ...     [run.name for run in read_bids(Path(base), StudyOptions()).recordings]
        ['sub-01_task-view']
    """
    tree = _collect(root, options)
    described = _description(root)
    raw_root: Path | None = None
    derivative = described.get("DatasetType") == "derivative" or any("desc" in one.entities for one, _ in tree.images)
    draft = Draft("derivative" if derivative else "bids", root)
    if derivative:
        above = root.parent.parent
        raw_root = above if root.parent.name == "derivatives" and is_bids(above) else None
    else:
        pipeline = _pipeline(root, options, draft)
        if pipeline is not None:
            raw_root, tree, draft.kind = root, pipeline, "derivative"
    _check_some(tree, root)
    images = _one_desc(tree, options, draft)
    images = _without_parts(images, draft)
    images = choose(images, "space", lambda name: space_of(name.entities), _space_wanted(options), root)
    images = choose(images, "task", lambda name: name.entities.get("task", ""), _wanted(options.task), root)
    if options.session is not None:
        wanted = _wanted(options.session)
        images = choose(images, "session", lambda name: name.entities.get("ses", ""), wanted, root)
    roots = [*([raw_root] if raw_root is not None else []), tree.root]
    if not derivative and draft.kind == "bids":
        roots = [*_confound_roots(root), root]
    companions = Companions(roots, options)
    for name, folders in images:
        why = absence(name.path)
        if why is None:
            draft.recordings.append(companions.recording(name, folders))
        else:
            draft.absent[name.path.name] = why
    draft.note(tree.odd, "images without a BIDS name left out")
    if tree.surfaces:
        draft.notes.append(f"{tree.surfaces:,} files on surfaces or in greyordinates left out: they have no voxels")
    draft.note(companions.unnamed, "tables of events without a column trial_type not read")
    people = [one / "participants.tsv" for one in dict.fromkeys((raw_root or root, root, tree.root))]
    draft.tables = [one for one in people if one.exists() or one.is_symlink()] or people_tables(root)
    return draft


def _collect(root: Path, options: StudyOptions) -> _Tree:
    """Images of sub-*/[ses-*/]func: fixed depth, so that no link can lead round in a circle."""
    tree = _Tree(root)
    chosen = None if options.subjects is None else {one.strip() for one in options.subjects.split(",")}
    for name, path in list_folder(root).folders.items():
        if not name.startswith("sub-"):
            continue
        tree.subjects.add(name[4:])
        if chosen is not None and not chosen & {name, name[4:]}:
            continue
        below = list_folder(path).folders
        places = [((name,), path), *(((name, key), one) for key, one in below.items() if key.startswith("ses-"))]
        for folders, place in places:
            if (place / "func").is_dir():
                _collect_images(tree, (*folders, "func"), place / "func")
    return tree


def _collect_images(tree: _Tree, folders: tuple[str, ...], place: Path) -> None:
    for name, path in list_folder(place).files.items():
        tree.surfaces += surface(name)
        if image_stem(name) is None:
            continue
        parsed = parse_name(name, path)
        if parsed is None:
            tree.odd.append(name)
        elif parsed.suffix == "bold":
            above = [folder for folder in folders if folder != "func"]
            named = [f"{key}-{parsed.entities[key]}" for key in ("sub", "ses") if key in parsed.entities]
            if named != above:
                raise InputError(
                    "the name of a run does not fit its folder",
                    where=path,
                    found="_".join(named) or "no subject in the name",
                    expected="_".join(above),
                    cure="rename the file or move it",
                )
            tree.images.append((parsed, folders))


def _description(root: Path) -> Mapping[str, Any]:
    path = root / _DESCRIPTION
    return read_json(path) if path.exists() or path.is_symlink() else {}


def _pipeline(root: Path, options: StudyOptions, draft: Draft) -> _Tree | None:
    """The derivatives that hold preprocessed runs, where they are wanted."""
    folder = root / "derivatives"
    if options.desc == "raw" or not folder.is_dir():
        return None
    trees = {name: _collect(path, options) for name, path in list_folder(folder).folders.items()}
    trees = {name: tree for name, tree in trees.items() if tree.images}
    if not trees:
        return None
    if len(trees) > 1 and _PREFERRED not in trees:
        raise InputError(
            "preprocessed runs of several pipelines",
            where=folder,
            found=", ".join(trees),
            cure="open the folder of one of them, or the raw runs: --study.desc raw",
        )
    name = _PREFERRED if _PREFERRED in trees else next(iter(trees))
    others = f"; those of {', '.join(one for one in trees if one != name)} are not" if len(trees) > 1 else ""
    draft.notes.append(f"the preprocessed runs of derivatives/{name} are read, the raw ones are not{others}")
    return trees[name]


def _confound_roots(root: Path) -> list[Path]:
    """Derivatives that may hold confounds and masks of raw runs."""
    folder = root / "derivatives"
    return list(list_folder(folder).folders.values()) if folder.is_dir() else []


def _check_some(tree: _Tree, root: Path) -> None:
    if tree.images:
        return
    seen = [f"{len(tree.subjects):,} folders of subjects"]
    seen += [f"{len(tree.odd):,} images without a BIDS name ({shown(tree.odd)})"] if tree.odd else []
    seen += [f"{tree.surfaces:,} files on surfaces"] if tree.surfaces else []
    raise InputError(
        "no functional run in the data set",
        where=root,
        found=", ".join(seen),
        expected="sub-<label>/[ses-<label>/]func/*_bold.nii[.gz]",
        cure="check the folder and the subjects asked for; files with other names open as a list or a plain folder",
    )


Images = list[tuple[BidsName, tuple[str, ...]]]


def _one_desc(tree: _Tree, options: StudyOptions, draft: Draft) -> Images:
    kinds: dict[str, Images] = defaultdict(list)
    for item in tree.images:
        kinds[item[0].entities.get("desc", "")].append(item)
    wanted = options.desc if options.desc != "raw" else ""
    if wanted is None:
        wanted = "preproc" if "preproc" in kinds else next(iter(kinds)) if len(kinds) == 1 else None
    if wanted is None or wanted not in kinds:
        names = ", ".join(sorted(one or "none" for one in kinds))
        problem = "several kinds of runs" if wanted is None else f"no run with desc-{wanted}"
        raise InputError(problem, where=tree.root, found=f"desc: {names}", cure="choose one: --study.desc NAME")
    rest = [one.path.name for one, _ in tree.images if one.entities.get("desc", "") != wanted]
    draft.note(rest, f"runs of another kind than {f'desc-{wanted}' if wanted else 'without desc'} left out")
    return kinds[wanted]


def _without_parts(images: Images, draft: Draft) -> Images:
    """Phase images and single echoes are no runs of their own."""
    phases = [item for item in images if item[0].entities.get("part") not in (None, "mag")]
    draft.note((one.path.name for one, _ in phases), "images of phase, real or imaginary part left out")
    rest = [item for item in images if item[0].entities.get("part") in (None, "mag")]
    echoes = [item for item in rest if "echo" in item[0].entities]
    if echoes and len(echoes) == len(rest):
        raise InputError(
            "every run is divided into echoes",
            where=echoes[0][0].path.parent,
            found=f"{len(echoes):,} images with echo-",
            expected="one image for each run",
            cure="combine the echoes first (fMRIPrep or tedana do), or give the files of one echo as a list",
        )
    draft.note((one.path.name for one, _ in echoes), "single echoes left out")
    return [item for item in rest if "echo" not in item[0].entities]


def _wanted(text: str | None) -> set[str] | None:
    """The labels asked for, with or without their key (`task-view` is `view`); None: all, or the only one."""
    if text is None:
        return None
    return {one.strip().split("-", 1)[-1] for one in text.split(",")}


def _space_wanted(options: StudyOptions) -> set[str] | None:
    return None if options.space is None else {options.space.removeprefix("space-")}


def choose(
    images: Images,
    what: str,
    label: Callable[[BidsName], str],
    wanted: set[str] | None,
    root: Path,
) -> Images:
    """The images of one task or space; sessions, and everything for `*`, may be several.

    Args:
        images: parsed names.
        what: the option's name.
        label: of an image.
        wanted: None: the only one there is.
        root: for messages.

    Raises:
        InputError: several where none was asked for, or none of those that were.
    """
    if wanted == {"*"}:
        return images
    labels = sorted({label(name) for name, _ in images}, key=natural)
    found = ", ".join(one or "none" for one in labels)
    cure = f"choose: --study.{what} NAME" + (", or * for all, mixed" if what == "task" else "")
    if wanted is None:
        if len(labels) > 1:
            raise InputError(f"several {what}s", where=root, found=found, expected="one", cure=cure)
        return images
    full = {one for one in labels if one in wanted or (what == "space" and one.split("_res-")[0] in wanted)}
    if not full or (what != "space" and not wanted <= full):
        raise InputError(f"no such {what}", where=root, found=found, expected=", ".join(sorted(wanted)), cure=cure)
    if what == "space" and len(full) > 1:
        found = ", ".join(sorted(full, key=natural))
        raise InputError("several resolutions of a space", where=root, found=found, expected="one", cure=cure)
    return [item for item in images if label(item[0]) in full]
