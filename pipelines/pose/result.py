"""What lifting answers: the poses of every person, saved as numbers, motion files or films, drawn and reported."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pipelines.base import Provenance, Result, Run, save_figure
from pipelines.errors import ConfigError
from pipelines.pose.tracks import Track

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.evaluation.report import Report

__all__ = ["ENDINGS", "Poses"]

#: What `save` writes by a file name's ending; a name without one is a folder.
ENDINGS = (".npz", ".json", ".csv", ".bvh", ".gif", ".mp4")
_FILM_SECONDS = 60.0  # of the films in a folder
_FILMS = 4
_PRINTED = 20
_ROWS = 200
_STRIPS = 4


@dataclasses.dataclass
class Poses(Result):
    """The 3-D poses of one or several persons.

    Args:
        model: name of the model.
        provenance: where the answer comes from.
        tracks: one a person and clip.
        failed: clips that could not be answered -> why.
        told: notes.
        facts: what the clips are, for the report.
        run: hears of the progress of films.
        film: what the films of a folder are, .mp4 or .gif; empty for none.

    Example:
        >>> from pipelines.data.datasets.pose_types import Skeleton
        >>> hand = Skeleton("hand", ("wrist", "finger"), (-1, 0), 0)
        >>> track = Track("a", np.zeros((50, 2, 3)), np.ones((50, 2)), hand, fps=25.0)
        >>> print(Poses("convformer", Provenance.now(data="a.json", model="convformer", seed=0), [track]))
        convformer: 1 person, 50 frames, in metres relative to wrist, camera frame
        a: 50 frames at 25 Hz (2.0 s), 2 joints of hand
    """

    model: str
    provenance: Provenance
    tracks: list[Track]
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    told: tuple[str, ...] = ()
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    run: Run = dataclasses.field(default_factory=Run)
    film: str = ".mp4"
    _written: tuple[str, ...] = ()

    default_name: ClassVar[str] = "poses"

    @property
    def failures(self) -> Mapping[str, str]:  # type: ignore[override]
        """Clips that could not be answered, and why."""
        return self.failed

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        """What was done to the clips, what the written films show, and what failed."""
        own = [f"{track.label}: {note}" for track in self.tracks for note in track.notes]
        failed = [f"left out: {why}" for why in self.failed.values()]
        return tuple(dict.fromkeys([*self.told, *own, *self._written, *failed]))

    def save(self, path: str | Path) -> Path:
        """Write by the ending of the name; a name without one is a folder of poses.npz and films.

        .npz, .json and .csv hold every person with units, axes and skeleton; .bvh, .gif and .mp4 one person a file
        (of several, each name is put before the ending). Films of a folder end after a minute and are of the first
        four persons, which the notes say.

        Returns:
            The path; of several files the first one.

        Raises:
            ConfigError: another ending, or nothing to write.
            InputError: poses that BVH cannot hold.
            RunError: the disk is full or not writable; the file that failed is not there.
        """
        target = Path(path)
        kind = target.suffix.lower()
        if not self.tracks:
            raise ConfigError("there are no poses to write", where=target, found="no person", expected="one or more")
        if not kind or target.is_dir():
            return self._save_folder(target)
        if kind not in ENDINGS:
            expected = ", ".join(ENDINGS)
            raise ConfigError("cannot write this kind of file", where=target, found=kind, expected=expected)
        if kind in (".gif", ".mp4"):
            return self._save_films(target, self.tracks)
        if kind == ".bvh":
            from pipelines.pose.result_files import write_bvh_files

            written, notes = write_bvh_files(target, self.tracks)
            self._say(notes)
            return written[0]
        from pipelines.pose.result_files import write_tracks

        return write_tracks(target, self.tracks, self._told_inside)

    def _save_folder(self, folder: Path) -> Path:
        from pipelines.pose.result_files import write_tracks

        write_tracks(folder / "poses.npz", self.tracks, self._told_inside)
        if self.film:
            self._save_films(folder / f"poses{self.film}", self.tracks[:_FILMS], _FILM_SECONDS)
            if len(self.tracks) > _FILMS:
                self._say([f"films of the first {_FILMS} of {len(self.tracks)} persons were written"])
        return folder

    def _save_films(self, path: Path, tracks: list[Track], seconds: float | None = None) -> Path:
        from pipelines.pose.animation import animate
        from pipelines.pose.result_files import file_names

        names = file_names(path, tracks)
        for name, track in zip(names, tracks, strict=True):
            self._say(animate(name, track, seconds=seconds, progress=self.run.progress))
        return names[0]

    def _say(self, notes: list[str] | tuple[str, ...]) -> None:
        self._written = tuple(dict.fromkeys((*self._written, *notes)))

    def _told_inside(self) -> dict[str, Any]:
        return {"model": self.model, "notes": list(self.told), **dataclasses.asdict(self.provenance)}

    def to_dict(self) -> dict[str, Any]:
        """Plain values: who was lifted, units and sizes; the poses themselves are in the saved file."""
        return {
            "model": self.model,
            "unit": "m",
            "persons": [self._entry(track) for track in self.tracks],
            "frames": sum(track.frames for track in self.tracks),
            "failures": dict(self.failed),
            "notes": list(self.notes),
            "provenance": dataclasses.asdict(self.provenance),
        }

    def _entry(self, track: Track) -> dict[str, Any]:
        from pipelines.pose.result_files import about

        left_out = ("parents", "left", "right", "input_joints", "notes", "joints")
        facts = {name: value for name, value in about(track).items() if name not in left_out and value != ""}
        facts |= {"joints": len(track.skeleton), "missing_joints": track.missing, "seconds": track.seconds}
        if track.sigma is not None:
            facts["sigma_mm"] = _mean(track.sigma[track.valid])
        if track.trajectory is not None:
            facts["distance_m"] = float(np.median(np.linalg.norm(track.trajectory, axis=-1)))
        return facts

    def plot(self, path: str | Path | None = None) -> Figure:
        """Poses of the first person at equal steps of time, the 2-D input above."""
        from pipelines.evaluation.plots import empty_figure
        from pipelines.pose.plots import strip_figure

        figure = strip_figure(self.tracks[0]) if self.tracks else empty_figure("no person could be lifted")
        if path is not None:
            save_figure(figure, path)
        return figure

    def fill_report(self, report: Report) -> None:
        """Add who was lifted, strips of poses, the expected error of joints, and what the clips are."""
        from pipelines.pose.plots import strip_figure

        report.add_text(str(self), section="Poses")
        head = ["clip", "person", "frames", "Hz", "seconds", "skeleton", "missing joints", "expected error (mm)"]
        rows = [
            [t.name, t.person, t.frames, t.fps, t.seconds, t.skeleton.name, t.missing,
             None if t.sigma is None else _mean(t.sigma[t.valid])]
            for t in self.tracks[:_ROWS]
        ]  # fmt: skip
        more = f"The first {len(rows)} of {len(self.tracks):,}." if len(rows) < len(self.tracks) else ""
        if rows:
            report.add_table(head, rows, section="Poses", caption=more)
        for track in self.tracks[:_STRIPS]:
            report.add_figure(strip_figure(track), f"Poses of {track} at equal steps of time", section=track.label)
            if track.sigma is not None:
                self._add_sigma(report, track)
        if len(self.tracks) > _STRIPS:
            left = len(self.tracks) - _STRIPS
            report.add_text(f"{left:,} more person{'s' if left > 1 else ''} in the saved file only.", section="More")
        if self.facts:
            report.add_data_summary(self.facts, section="Clips")

    def _add_sigma(self, report: Report, track: Track) -> None:
        from pipelines.pose.plots import bars_figure, course_figure

        if track.sigma is None:
            return
        held = np.where(track.valid, track.sigma.astype(np.float64), np.nan)
        known = np.flatnonzero(track.valid.any(0)).tolist()
        names = [track.skeleton.joints[joint] for joint in known]
        by_joint = np.nanmean(held[:, known], axis=0).tolist()
        figure = bars_figure(dict(zip(names, by_joint, strict=True)), unit="expected error (mm)")
        report.add_figure(figure, f"Expected error of each joint of {track.label}", section=track.label)
        over_time = np.full(track.frames, np.nan)
        there = track.valid.any(1)
        over_time[there] = np.nanmean(held[there], axis=1)
        figure = course_figure({"expected error": over_time}, fps=track.fps, unit="expected error (mm)")
        report.add_figure(figure, f"Expected error of {track.label} over time", section=track.label)

    def __str__(self) -> str:
        people, frames = len(self.tracks), sum(track.frames for track in self.tracks)
        lines = [f"{self.model}: {people} person{'s' if people != 1 else ''}, {frames:,} frames"]
        kinds = dict.fromkeys((t.skeleton.joints[t.skeleton.root], t.frame) for t in self.tracks)
        lines[0] += "".join(f", in metres relative to {root}, {frame} frame" for root, frame in kinds)
        lines += [str(track) for track in self.tracks[:_PRINTED]]
        if people > _PRINTED:
            lines.append(f"and {people - _PRINTED:,} more")
        return "\n".join([*lines, *([f"{len(self.failed)} could not be lifted"] if self.failed else [])])


def _mean(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None
