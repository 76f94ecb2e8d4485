"""Maps as a BIDS derivative: names from entities, images on the scan's own grid, sidecars that say how they were made.

Source: BIDS specification 1.10, "Common derivatives" and "Dataset description"; ``statmap`` with the entities ``desc``
and ``stat`` as statistical maps are named by the tools of the field.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.base import Provenance
from pipelines.errors import ConfigError, InputError
from pipelines.files import atomic_write, prepare_output, write_failure
from pipelines.fmri.map_names import STATS, MapNames, bids_label, stem_of
from pipelines.values import to_json

if TYPE_CHECKING:
    from pipelines.data.datasets.brain_types import Recording
    from pipelines.data.formats.nifti_types import Scan

__all__ = ["BrainMap", "MapFacts", "MapWriter", "check_folder", "write_single"]

_TOOL = "attention-pipelines"
_DESCRIPTION = "dataset_description.json"
_PARTIAL = ".partial"  # ending of the hidden folder that a run that was killed leaves behind
_SAID = {
    "mean": "Signed mean over windows: positive where a voxel spoke for the output, negative where against it.",
    "meanabs": "Mean over windows of the size: voxels that spoke now for and now against do not cancel.",
}


@dataclasses.dataclass(frozen=True)
class MapFacts:
    """How maps were made: what their sidecars say.

    Args:
        model: name of the model.
        output: what was explained, in words.
        baseline: what windows were compared with, in words.
        unit: of the output and so of the maps.
        steps: points of the integral.
        rule: how the points lie.
        stored: "" or what the way back to the scan's grid changed (resampling), in words.
        method: in words.

    Example:
        >>> MapFacts("swift", steps=16).unit
        'logit'
    """

    model: str
    output: str = "logit of the class"
    baseline: str = "mean window of the training"
    unit: str = "logit"
    steps: int = 32
    rule: str = "legendre"
    stored: str = ""
    method: str = "integrated gradients, added up over the volumes of a window and averaged over windows"


@dataclasses.dataclass(frozen=True, eq=False)
class BrainMap:
    """The two maps of one class in one run, on the run's own grid.

    Args:
        recording: the run; its entities name the files.
        scan: the run's grid; it may be closed.
        label: the class, or the name of the target.
        mean: (X, Y, Z) signed, RAS+.
        absolute: (X, Y, Z) mean of sizes.
        windows: how many were averaged.
        difference: mean difference of the outputs of window and baseline, which `mean` adds up to.
        gap: the largest difference between the two in a window.
        background: (X, Y, Z) the run's mean volume, for pictures.
    """

    recording: Recording
    scan: Scan
    label: str
    mean: NDArray[np.floating]
    absolute: NDArray[np.floating]
    windows: int = 1
    difference: float = float("nan")
    gap: float = float("nan")
    background: NDArray[np.floating] | None = None

    def __post_init__(self) -> None:
        for values in (self.mean, self.absolute):
            if values.shape != self.scan.shape[:3]:
                where = f"{self.recording.name}, {self.label}"
                raise InputError("a map has another grid than its scan", where=where, found=values.shape,
                                 expected=self.scan.shape[:3])  # fmt: skip

    def stat(self, name: str) -> NDArray[np.floating]:
        """One of the two maps: ``mean`` or ``meanabs``."""
        return self.mean if name == "mean" else self.absolute


def check_folder(folder: str | os.PathLike[str], names: MapNames, *, overwrite: bool = False) -> pathlib.Path:
    """Check before any work that a derivative may be written here, or maps added to one; nothing is written.

    Args:
        folder: of the derivative; a new one, an empty one, or one that an earlier run wrote.
        names: of the maps to come.
        overwrite: whether maps of the same names may be replaced.

    Returns:
        The path, with ~ expanded.

    Raises:
        ConfigError: the folder holds something else, has maps of these names, is a file, or does not allow writing.

    Complexity: O(maps) looks at the disk.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as base:
        ...     check_folder(f"{base}/maps", MapNames([], [])).name
        'maps'
    """
    target = pathlib.Path(folder).expanduser()
    if not target.is_dir() or all(path.name.endswith(_PARTIAL) for path in target.iterdir()):
        if not target.is_dir():
            return prepare_output(target, overwrite=False)
        prepare_output(target / _DESCRIPTION, overwrite=False)  # whether this very folder allows writing
        return target
    _earlier(target)
    there = [path for path in names.paths() if os.path.lexists(target / path)]
    if there and not overwrite:
        raise ConfigError(
            "maps of these names are there already and are never overwritten silently",
            where=target,
            found=f"{there[0]}" + (f" and {len(there) - 1:,} more files" if len(there) > 1 else ""),
            cure="name another folder with -o, or pass --overwrite to replace them",
        )
    prepare_output(target / _DESCRIPTION, overwrite=True)  # whether this very folder allows writing
    return target


def _earlier(folder: pathlib.Path) -> dict[str, Any]:
    """The description of a derivative that this tool wrote.

    Raises:
        ConfigError: the folder holds something else.
    """
    try:
        found = json.loads((folder / _DESCRIPTION).read_text("utf-8"))
        ours = found["DatasetType"] == "derivative" and found["GeneratedBy"][0]["Name"] == _TOOL
    except (OSError, ValueError, KeyError, IndexError, TypeError, RecursionError):
        found, ours = {}, False
    if not ours:
        raise ConfigError(
            "this folder holds something else than maps of this tool",
            where=folder,
            expected="a new folder, or a derivative that an earlier run wrote",
            cure="name a folder of its own with -o",
        )
    return found


class MapWriter:
    """Writes a derivative map by map: all of them appear in the folder when the block ends well, or none does.

    Args:
        folder: as :func:`check_folder`.
        names: of all maps to come.
        facts: how they were made.
        provenance: where they come from.
        source: root of the dataset that the runs belong to; None where there is none.
        overwrite: whether maps of the same names may be replaced.

    Raises:
        ConfigError: as :func:`check_folder`.
        RunError: the disk is full or not writable; what was there is as it was.

    Complexity: memory of one map; time of compressing each.

    Example:
        >>> import tempfile
        >>> from pipelines.data.datasets.brain_types import Recording
        >>> from pipelines.data.formats.nifti import open_scan
        >>> scan, run = open_scan(np.ones((2, 2, 2, 3)), tr=2.0), Recording("sub-01_task-view", "a.nii.gz", "01")
        >>> now = Provenance.now(data="a.nii.gz", model="swift", seed=0)
        >>> with tempfile.TemporaryDirectory() as base:
        ...     with MapWriter(f"{base}/maps", MapNames([run], ["face"]), MapFacts("swift"), now) as out:
        ...         _ = out.add(BrainMap(run, scan, "face", np.ones((2, 2, 2)), np.ones((2, 2, 2))))
        ...     sorted(path.name for path in pathlib.Path(base, "maps").iterdir())
        ['README', 'dataset_description.json', 'sub-01']
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        names: MapNames,
        facts: MapFacts,
        provenance: Provenance,
        *,
        source: pathlib.Path | None = None,
        overwrite: bool = False,
    ) -> None:
        self.folder = check_folder(folder, names, overwrite=overwrite)
        self.names, self.facts, self.provenance, self.source = names, facts, provenance, source
        self._stack = contextlib.ExitStack()
        self._staging = pathlib.Path()

    def __enter__(self) -> MapWriter:
        self._staging = self._stack.enter_context(_staged(self.folder))
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        if kind is None:
            with self._stack:  # also where the description cannot be written
                held = self.folder / _DESCRIPTION
                earlier = _earlier(self.folder).get("SourceDatasets", []) if held.exists() else []
                atomic_write(self._staging / _DESCRIPTION, to_json(self._description(earlier), indent=1) + "\n")
                atomic_write(self._staging / "README", self._readme())
                with _explained(self.folder):
                    _move_all(self._staging, self.folder)
        else:
            self._stack.__exit__(kind, *rest)

    def add(self, one: BrainMap) -> list[pathlib.Path]:
        """Write both maps of one class of one run and their sidecars; returns where the images will be."""
        from pipelines.data.formats.nifti import write_map

        written = []
        for stat in STATS:
            path = self.names.path(one.recording, one.label, stat)
            image = self._staging / path.with_name(f"{path.name}.nii.gz")
            with _explained(self.folder):
                image.parent.mkdir(parents=True, exist_ok=True)
                write_map(image, one.stat(stat), one.scan, description=_short(one, stat))
            link = None if self.source is None else "raw"
            text = to_json(_sidecar(one, stat, self.facts, self.provenance, self.source, link), indent=1)
            atomic_write(self._staging / path.with_name(f"{path.name}.json"), text + "\n")
            written.append(self.folder / path.with_name(image.name))
        return written

    def _description(self, earlier: Any) -> dict[str, Any]:
        made = {"Name": _TOOL, "Version": self.provenance.version, "Description": self.provenance.command}
        link = None if self.source is None else os.path.relpath(self.source, self.folder)
        data = self.provenance.data
        named = pathlib.PurePath(data).name if os.path.isabs(data) else data  # never a folder of this disk
        url = named if link is None else pathlib.Path(link).as_posix()
        sources = [one for one in earlier if isinstance(one, dict)] if isinstance(earlier, list) else []
        return {
            "Name": f"Maps of {self.facts.method.split(',')[0]} of {self.facts.model}",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{key: value for key, value in made.items() if value}],
            "SourceDatasets": [*(one for one in sources if one != {"URL": url}), {"URL": url}],
            **({} if link is None else {"DatasetLinks": {"raw": url}}),
        }

    def _readme(self) -> str:
        said = "".join(f"- stat-{stat}: {_SAID[stat]}\n" for stat in STATS)
        return (
            f"Maps of the model {self.facts.model}: {self.facts.method}.\nOutput explained: {self.facts.output}. "
            f"Compared with: {self.facts.baseline}. Unit: {self.facts.unit}.\n{said}"
            "Each image has the grid and the affine of the run that its name begins with.\n"
        )


def write_single(
    path: str | os.PathLike[str],
    one: BrainMap,
    facts: MapFacts,
    provenance: Provenance,
    *,
    stat: str = "mean",
    overwrite: bool = False,
) -> pathlib.Path:
    """Write one map as an image with its sidecar beside it (``map.nii.gz`` and ``map.json``), both or none.

    Raises:
        ConfigError: one of the two is there already, or the folder does not allow writing.
        RunError: the disk is full or not writable.
    """
    from pipelines.data.formats.nifti import write_map

    target = prepare_output(path, overwrite=overwrite)
    beside = prepare_output(target.with_name(f"{stem_of(target.name)}.json"), overwrite=overwrite)
    with _staged(target.parent) as staging:
        with _explained(target):
            write_map(staging / target.name, one.stat(stat), one.scan, description=_short(one, stat))
        atomic_write(
            staging / beside.name, to_json(_sidecar(one, stat, facts, provenance, None, None), indent=1) + "\n"
        )
        with _explained(target):
            _move_all(staging, target.parent)
    return target


def _short(one: BrainMap, stat: str) -> str:
    """What fits into the header's 79 characters."""
    return f"{stat} {bids_label(one.label)} {one.windows} windows"[:79]


def _sidecar(
    one: BrainMap,
    stat: str,
    facts: MapFacts,
    provenance: Provenance,
    source: pathlib.Path | None,
    link: str | None,
) -> dict[str, Any]:
    """What a map is, in BIDS's names where it has some."""
    return {
        "Description": _SAID[stat],
        "Sources": [_source(one.recording, source, link)],
        "Units": facts.unit,
        "Method": facts.method,
        "Statistic": stat,
        "Output": facts.output,
        "Class": one.label,
        "Model": facts.model,
        "Weights": provenance.weights,
        "Steps": facts.steps,
        "Rule": facts.rule,
        "Baseline": facts.baseline,
        "Windows": one.windows,
        "MeanDifference": one.difference,
        "LargestGap": one.gap,
        "Sum": float(np.sum(one.stat(stat), dtype=np.float64)),
        **({"Resampled": facts.stored} if facts.stored else {}),
        "Command": provenance.command,
        "Created": provenance.created,
        "Seed": provenance.seed,
        "Version": provenance.version,
    }


def _source(recording: Recording, root: pathlib.Path | None, link: str | None) -> str:
    """The run as a BIDS address within its dataset; else the name of its file, or its own."""
    if not isinstance(recording.source, (str, pathlib.Path)):
        return recording.name
    path = pathlib.Path(recording.source)
    if root is not None and link is not None:
        with contextlib.suppress(ValueError):
            return f"bids:{link}:{path.resolve().relative_to(root.resolve()).as_posix()}"
    return path.name


@contextlib.contextmanager
def _explained(folder: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise write_failure(error, folder) from error


@contextlib.contextmanager
def _staged(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A hidden folder within the folder to come; whatever fails, it is gone and no new folder stays behind."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    staging = folder / f".{secrets.token_hex(4)}{_PARTIAL}"
    kept = False
    try:
        with _explained(folder):
            staging.mkdir(parents=True)
        yield staging
        kept = True
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        for path in made if not kept else []:
            with contextlib.suppress(OSError):  # never made, or something else came into it
                path.rmdir()


def _move_all(staging: pathlib.Path, folder: pathlib.Path) -> None:
    """Rename every file of the staging folder into its place; if one cannot be, all are as they were."""
    new = sorted(path.relative_to(staging) for path in staging.rglob("*") if path.is_file())
    old = staging / ".old"
    moved: list[pathlib.Path] = []
    made: list[pathlib.Path] = []
    try:
        for path in new:
            target = folder / path
            missing = [one for one in target.parents if not one.exists()]
            target.parent.mkdir(parents=True, exist_ok=True)
            made += missing[::-1]
            if os.path.lexists(target):
                (old / path).parent.mkdir(parents=True, exist_ok=True)
                target.rename(old / path)
            moved.append(path)
            (staging / path).rename(target)
    except BaseException:
        for path in moved:
            if (old / path).exists():
                (old / path).replace(folder / path)
            else:
                (folder / path).unlink(missing_ok=True)
        for one in reversed(made):
            with contextlib.suppress(OSError):
                one.rmdir()
        raise
