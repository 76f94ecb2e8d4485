"""What explaining answers: maps of each class on each run, as images on the run's own grid or as a derivative."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pipelines.base import Provenance, Result, save_figure
from pipelines.errors import ConfigError
from pipelines.files import prepare_output
from pipelines.fmri.derivative import BrainMap, MapFacts, MapWriter, check_folder, write_single
from pipelines.fmri.map_names import MapNames, stem_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.data.datasets.brain_types import Recording
    from pipelines.evaluation.report import Report

__all__ = ["BrainMap", "MapFacts", "Maps", "check_place"]

_PICTURED = 8  # maps that a report draws
_PRINTED = 20
_IMAGES = (".nii", ".nii.gz")


def check_place(
    path: str | Path, recordings: Sequence[Recording], labels: Sequence[str], *, overwrite: bool = False
) -> Path:
    """Check before any work that maps may be written to a place; nothing is written.

    Args:
        path: an image (``map.nii.gz``) where there is one run and one class; else a folder.
        recordings: the runs to explain.
        labels: the classes to explain, or the name of the target.
        overwrite: whether maps that are there may be replaced.

    Returns:
        The path, with ~ expanded.

    Raises:
        ConfigError: several maps for one image; something is there already; the place does not allow writing.

    Complexity: O(maps) looks at the disk.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as base:
        ...     check_place(f"{base}/maps", [], ["face"]).name
        'maps'
    """
    if not _is_image(path):
        return check_folder(path, MapNames(recordings, labels), overwrite=overwrite)
    if len(recordings) * len(labels) != 1:
        raise _several(path, len(recordings) * len(labels))
    target = prepare_output(path, overwrite=overwrite)
    prepare_output(target.with_name(f"{stem_of(target.name)}.json"), overwrite=overwrite)
    return target


def _is_image(path: str | Path) -> bool:
    return Path(path).name.lower().endswith(_IMAGES)


def _several(path: str | Path, count: int) -> ConfigError:
    return ConfigError(
        "one image holds one map",
        where=path,
        found=f"{count:,} maps",
        cure="name a folder, or explain one class of one run",
    )


@dataclasses.dataclass
class Maps(Result):
    """Which voxels told, for each class and run.

    Args:
        model: name of the model.
        provenance: where the answer comes from.
        facts: how the maps were made.
        maps: one entry for each class of each run.
        source: root of the dataset that the runs are of; None where there is none.
        overwrite: whether ``save`` may replace maps that are there.
        failed: runs that could not be explained -> why.
        told: notes.

    Example:
        >>> now = Provenance.now(data="scan.nii.gz", model="swift", seed=0)
        >>> print(Maps("swift", now, MapFacts("swift"), []))
        swift: 0 maps by integrated gradients
    """

    model: str
    provenance: Provenance
    facts: MapFacts
    maps: Sequence[BrainMap]
    source: Path | None = None
    overwrite: bool = False
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    told: tuple[str, ...] = ()

    default_name: ClassVar[str] = "maps"

    @property
    def failures(self) -> Mapping[str, str]:  # type: ignore[override]
        """Runs that could not be explained, and why."""
        return self.failed

    @property
    def names(self) -> MapNames:
        """The paths of the maps within a derivative."""
        recordings = {one.recording.name: one.recording for one in self.maps}
        return MapNames(list(recordings.values()), [one.label for one in self.maps])

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        """How exact the maps are, names that BIDS changed, and what failed."""
        from pipelines.fmri.brain_pictures import standard_space

        said = [*self.told, *self.names.notes]
        gaps = [self._relative(one) for one in self.maps if self._relative(one) is not None]
        if gaps:
            said.append(
                "completeness: in the worst window the sum of the map misses the difference of the outputs by "
                f"{100 * max(gaps):.2g} % of the mean difference ({self.facts.steps} steps, {self.facts.rule})"
            )
        if self.facts.stored:
            said.append(self.facts.stored)
        if self.maps and not any(standard_space(one.recording, one.scan) for one in self.maps):
            said.append("no glass brain: neither the names nor the affines say that the runs are in MNI 152 space")
        return tuple(dict.fromkeys([*said, *(f"left out: {why}" for why in self.failed.values())]))

    @staticmethod
    def _relative(one: BrainMap) -> Any:
        """The largest gap as a share of the mean difference; None where there is none."""
        if not np.isfinite([one.gap, one.difference]).all() or one.difference == 0:
            return None
        return abs(one.gap / one.difference)

    def save(self, path: str | Path) -> Path:
        """Write a BIDS derivative into a folder, one map as ``map.nii.gz``, or the figures as .json.

        A folder gets, for each class of each run, the signed mean and the mean of sizes with a sidecar each; if it
        holds maps of an earlier run, these stay. An image holds the signed mean; its sidecar stands beside it.

        Raises:
            ConfigError: several maps for one image; the place holds something else, or maps of these names.
            RunError: the disk is full or not writable; what was there is as it was.
        """
        from pipelines.files import atomic_write
        from pipelines.values import to_json

        target = Path(path)
        if target.suffix.lower() == ".json":
            return atomic_write(target, to_json(self.to_dict(), indent=1) + "\n")
        if _is_image(target):
            if len(self.maps) != 1:
                raise _several(path, len(self.maps))
            return write_single(target, self.maps[0], self.facts, self.provenance, overwrite=self.overwrite)
        writer = MapWriter(
            target, self.names, self.facts, self.provenance, source=self.source, overwrite=self.overwrite
        )
        with writer:
            for one in self.maps:
                writer.add(one)
        return writer.folder

    def to_dict(self) -> dict[str, Any]:
        """Plain values: of each map its class, windows, sum, gap and strongest voxels; not the voxels."""
        return {
            "model": self.model,
            "method": dataclasses.asdict(self.facts),
            "maps": [self._entry(one) for one in self.maps],
            "failures": dict(self.failed),
            "notes": list(self.notes),
            "provenance": dataclasses.asdict(self.provenance),
        }

    def _entry(self, one: BrainMap) -> dict[str, Any]:
        from pipelines.fmri.brain_pictures import strongest

        peaks = strongest(one.mean, one.scan.affine)
        return {
            "name": one.recording.name,
            "subject": one.recording.subject,
            "label": one.label,
            "windows": one.windows,
            "sum": float(np.sum(one.mean, dtype=np.float64)),
            "difference": one.difference,
            "largest_gap": one.gap,
            "voxels": int(np.count_nonzero(one.absolute)),
            "strongest": [{"mm": list(place), "value": value} for place, value in peaks],
        }

    def plot(self, path: str | Path | None = None) -> Figure:
        """The first map over the mean volume of its run."""
        from pipelines.evaluation.plots import empty_figure

        figure = self._figure(self.maps[0]) if self.maps else empty_figure("no scan could be explained")
        if path is not None:
            save_figure(figure, path)
        return figure

    def _figure(self, one: BrainMap) -> Figure:
        from pipelines.fmri.brain_pictures import map_figure

        title = f"{one.label}: mean of {one.windows:,} windows"
        return map_figure(one.mean, one.background, one.scan.affine, title=title, unit=self.facts.unit)

    def fill_report(self, report: Report) -> None:
        """Add how the maps were made, the first maps drawn, and the strongest voxels of each."""
        from pipelines.fmri.brain_pictures import glass_figure, standard_space

        text = f"{len(self.maps):,} maps by {self.facts.method}. Output explained: {self.facts.output}; "
        report.add_text(f"{text}compared with: {self.facts.baseline}.", section="Maps")
        caption = "Coloured: the tenth of the voxels with the largest sizes; warm colours spoke for it, cold against."
        for one in self.maps[:_PICTURED]:
            (x, y, z), value = (self._peaks(one, 1) or [((0.0, 0.0, 0.0), 0.0)])[0]
            where = f"strongest {value:.3g} {self.facts.unit} at x {x:g}, y {y:g}, z {z:g} mm"
            alt = f"Map of {one.label} over the mean volume of {one.recording.name}; {where}"
            report.add_figure(self._figure(one), alt, section="Maps", caption=caption)
            space = standard_space(one.recording, one.scan)
            if space:
                figure = glass_figure(one.mean, one.scan.affine, title=f"{one.label} in {space}", unit=self.facts.unit)
                report.add_figure(figure, f"Glass brain of {one.label} in {space}", section="Maps")
        if len(self.maps) > _PICTURED:
            left = len(self.maps) - _PICTURED
            report.add_text(f"{left:,} more maps stand in the saved answer only.", section="Maps")
        rows = [
            [one.recording.name, one.label, one.windows, one.difference, one.gap, f"{x:g}, {y:g}, {z:g}", value]
            for one in self.maps
            for (x, y, z), value in self._peaks(one, 3)
        ]
        unit = self.facts.unit
        head = ["run", "class", "windows", "difference", "largest gap", "mm", f"value ({unit})"]
        report.add_table(
            head, rows, section="Strongest voxels", caption="Three of each map, in mm of the run's affine."
        )

    @staticmethod
    def _peaks(one: BrainMap, count: int) -> list[tuple[tuple[float, float, float], float]]:
        from pipelines.fmri.brain_pictures import strongest

        return strongest(one.mean, one.scan.affine, count)

    def __str__(self) -> str:
        count = len(self.maps)
        lines = [f"{self.model}: {count:,} {'map' if count == 1 else 'maps'} by {self.facts.method.split(',')[0]}"]
        for one in self.maps[:_PRINTED]:
            told = f"{one.recording.name}, {one.label}: {one.windows:,} windows"
            peaks = self._peaks(one, 1)
            if peaks:
                (x, y, z), value = peaks[0]
                told += f", strongest {value:.3g} {self.facts.unit} at x {x:g}, y {y:g}, z {z:g} mm"
            lines.append(told)
        if count > _PRINTED:
            lines.append(f"and {count - _PRINTED:,} more maps")
        if self.failed:
            lines.append(f"{len(self.failed):,} {'run' if len(self.failed) == 1 else 'runs'} failed")
        return "\n".join(lines)
