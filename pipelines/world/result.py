"""What a world model answers: rollouts of one or several episodes, saved as numbers, films or strips, and reported."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pipelines.base import Provenance, Result, Run
from pipelines.errors import ConfigError
from pipelines.world.result_files import Kept
from pipelines.world.rollouts import RolloutEpisode
from pipelines.world.strips import SCALE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.evaluation.report import Report
    from pipelines.files import Content

__all__ = ["ENDINGS", "Rollout", "RolloutEpisode"]

#: What `save` writes by a file name's ending; a name without one is a folder.
ENDINGS = (".npz", ".gif", ".mp4", ".png")
_PRINTED = 20
_ROWS = 200
_FILMS = 4  # episodes whose film and strip a report shows
_PICTURES = 120  # of a report's film


@dataclasses.dataclass
class Rollout(Result):
    """Predicted frames of one or several episodes, each after some frames of context.

    Args:
        model: name of the model.
        provenance: where the answer comes from; its `weights` say which weights the model had.
        episodes: one rollout each.
        failed: episodes that could not be answered -> why.
        told: notes.
        facts: what the episodes are, for the report.
        run: hears of the progress of films.
        kept: how an NPZ file holds predictions: float16, float32 or uint8.
        scale: the error that has the darkest colour in films and strips, of values in [0, 1].
        rate: pictures a second of films; real time by default, slower for films of less than four seconds.
        measured: metric -> {name: one figure a horizon}, the model's first; by default MSE and PSNR are computed.

    Example:
        >>> import numpy as np
        >>> black, grey = np.zeros((2, 4, 6, 1), np.uint8), np.full((3, 4, 6, 1), 0.5, np.float32)
        >>> one = RolloutEpisode("clip", black, grey, truth=np.zeros((3, 4, 6, 1), np.uint8), fps=10.0)
        >>> print(Rollout("copy", Provenance.now(data="clip.avi", model="copy", seed=0), [one]))
        copy: 1 episode, 3 frames predicted
        clip: 3 frames after 2 of context at 10 Hz (0.3 s), 6 x 4 px
        MSE 0.25 at horizon 1, 0.25 at 3 (copy_last: 0, 0)
    """

    model: str
    provenance: Provenance
    episodes: list[RolloutEpisode]
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    told: tuple[str, ...] = ()
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    run: Run = dataclasses.field(default_factory=Run)
    kept: Kept = "float16"
    scale: float = SCALE
    rate: float | None = None
    measured: dict[str, dict[str, list[float]]] = dataclasses.field(default_factory=dict)
    _written: tuple[str, ...] = ()
    _computed: dict[str, dict[str, list[float]]] | None = None

    default_name: ClassVar[str] = "rollout"

    @property
    def failures(self) -> Mapping[str, str]:  # type: ignore[override]
        """Episodes that could not be answered, and why."""
        return self.failed

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        """What was done to the episodes, what is not known of them, what the written files hold, and what failed."""
        own = [f"{one.name}: {note}" for one in self.episodes for note in (*one.notes, *_unknown(one))]
        failed = [f"left out: {why}" for why in self.failed.values()]
        return tuple(dict.fromkeys([*self.told, *own, *self._fewer(), *self._written, *failed]))

    def _fewer(self) -> list[str]:
        """Figures of long horizons rest on fewer episodes where some end before."""
        known = sorted({one.known for one in self.episodes if one.known})
        if len(known) < 2 or self.measured:
            return []
        count = sum(one.known > known[0] for one in self.episodes)
        return [f"figures after horizon {known[0]:,} are of {count:,} of {len(self.episodes):,} episodes or fewer"]

    @property
    def horizons(self) -> dict[str, dict[str, list[float]]]:
        """metric -> {name: one figure a horizon whose truth is known}, the model's first; empty without truth."""
        if self.measured:
            return self.measured
        if self._computed is None:
            from pipelines.world.rollouts import by_horizon

            found = by_horizon(self.episodes)
            self._computed = {
                metric: {self.model if name == "prediction" else name: figures for name, figures in rows.items()}
                for metric, rows in found.items()
            }
        return self._computed

    def save(self, path: str | Path) -> Path:
        """Write by the ending of the name; a name without one is a folder with one file of each kind an episode.

        .npz holds all episodes, with a description of every array inside; .gif, .mp4 and .png (a strip) one episode a
        file: of several, each name is put before the ending. All files of one call are written, or none.

        Returns:
            The path; of several files the first one.

        Raises:
            ConfigError: another ending, or nothing to write.
            RunError: the disk is full or not writable; nothing half is left, and older files are as they were.

        Complexity: O(pixels) time; memory for a few pictures, however long the rollouts are.
        """
        from pipelines.world.result_files import numbered, write_all

        target = Path(path)
        kind = target.suffix.lower()
        if not self.episodes:
            raise ConfigError("there is no rollout to write", where=target, found="no episode", expected="one or more")
        folder = not kind or target.is_dir()
        if not folder and kind not in ENDINGS:
            expected = f"{', '.join(ENDINGS)}, or a folder"
            raise ConfigError("cannot write this kind of file", where=target, found=kind, expected=expected)
        notes: list[str] = []
        contents: dict[Path, Content] = {}
        if not folder and kind == ".npz":
            contents[target] = self._npz(self.episodes, target, notes)
        else:
            for ending in ENDINGS if folder else (kind,):
                name = target / f"rollout{ending}" if folder else target
                for place, one in zip(numbered(name, self.episodes), self.episodes, strict=True):
                    contents[place] = self._content(place, one, notes)
        written = write_all(contents)
        self._written = tuple(dict.fromkeys((*self._written, *notes)))
        return target if folder else written[0]

    def _content(self, path: Path, episode: RolloutEpisode, notes: list[str]) -> Content:
        from pipelines.world.films import plan_film
        from pipelines.world.result_files import strip_content

        if path.suffix.lower() == ".npz":
            return self._npz([episode], path, notes)
        if path.suffix.lower() == ".png":
            return strip_content(episode, self.model, self.scale)
        film = plan_film(
            path.name, episode, model=self.model, scale=self.scale, rate=self.rate, progress=self.run.progress
        )
        notes += film.notes
        return lambda handle: notes.extend(f"{path.name}: {note}" for note in film.write(handle))

    def _npz(self, episodes: list[RolloutEpisode], path: Path, notes: list[str]) -> Content:
        from pipelines.world.result_files import npz_content

        told = {"model": self.model, "notes": list(self.told), "provenance": dataclasses.asdict(self.provenance)}
        content = npz_content(episodes, told, self.kept)
        held = {one.prediction.dtype.name for one in episodes if hasattr(one.prediction, "dtype")}
        if held - {self.kept}:
            notes.append(f"{path.name}: predictions are rounded to {self.kept}")
        return content

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what was rolled out, and the figures at each horizon; the frames are in the saved file."""
        from pipelines.world.result_files import about

        entries = []
        for one in self.episodes:
            told = about(one, self.kept)
            entries.append({name: value for name, value in told.items() if name not in ("arrays", "notes")})
        return {
            "model": self.model,
            "episodes": entries,
            "frames": sum(one.horizon for one in self.episodes),
            "horizons": self.horizons,
            "failures": dict(self.failed),
            "notes": list(self.notes),
            "provenance": dataclasses.asdict(self.provenance),
        }

    def plot(self, path: str | Path | None = None) -> Figure:
        """The strip of the first episode: rows of truth, prediction and error over the horizon."""
        from pipelines.base import save_figure
        from pipelines.evaluation.plots import empty_figure
        from pipelines.world.result_files import strip_content, write_all
        from pipelines.world.strips import strip_figure

        if not self.episodes:
            figure = empty_figure("no episode could be rolled out")
        else:
            figure = strip_figure(self.episodes[0], model=self.model, scale=self.scale)
            if path is not None and Path(path).suffix.lower() == ".png":
                # At its own resolution, in which frames are not resampled.
                write_all({Path(path): strip_content(self.episodes[0], self.model, self.scale)})
                return figure
        if path is not None:
            save_figure(figure, path)
        return figure

    def fill_report(self, report: Report) -> None:
        """Add what was rolled out, films and strips of the first episodes, figures by horizon, and the data."""
        report.add_text(str(self), section="Rollouts")
        head = ["episode", "context", "horizon", "truth known", "Hz", "height", "width", "channels"]
        rows = [[one.name, one.seen, one.horizon, one.known, one.fps, *one.frame] for one in self.episodes[:_ROWS]]
        more = f"The first {len(rows)} of {len(self.episodes):,}." if len(rows) < len(self.episodes) else ""
        if rows:
            report.add_table(head, rows, section="Rollouts", caption=more)
        for one in self.episodes[:_FILMS]:
            self._add_pictures(report, one)
        if len(self.episodes) > _FILMS:
            left = len(self.episodes) - _FILMS
            report.add_text(f"{left:,} more episode{'s' if left > 1 else ''} in the saved files only.", section="More")
        self._add_horizons(report)
        if self.facts:
            report.add_data_summary(self.facts, section="Episodes")

    def _add_pictures(self, report: Report, one: RolloutEpisode) -> None:
        from pipelines.evaluation.films import add_film
        from pipelines.world.films import film_bytes
        from pipelines.world.strips import strip_figure

        gif, notes = film_bytes(one, model=self.model, scale=self.scale, rate=self.rate, most=_PICTURES)
        shown = "truth, prediction and error" if one.known else "prediction"
        told = "; ".join(note.removeprefix("film.gif: ") for note in notes)
        add_film(report, gif, f"Film of {one}: {shown}", section=one.name, caption=f"{told[:1].upper()}{told[1:]}.")
        strip = strip_figure(one, model=self.model, scale=self.scale)
        report.add_figure(strip, f"Strip of {one}: {shown} over the horizon", section=one.name)

    def _add_horizons(self, report: Report) -> None:
        from pipelines.world.metrics import LARGER_IS_BETTER, UNITS
        from pipelines.world.plots import horizon_figure

        rates = {one.fps for one in self.episodes}
        fps = rates.pop() if len(rates) == 1 else None
        for metric, rows in self.horizons.items():
            name = metric.upper()
            figure = horizon_figure(
                rows, metric=name, unit=UNITS.get(metric, ""), larger=metric in LARGER_IS_BETTER, fps=fps
            )
            report.add_figure(figure, f"{name} of {', '.join(rows)} at each horizon", section="By horizon")
        for metric, rows in list(self.horizons.items())[:1]:
            steps = len(next(iter(rows.values())))
            table = [[step + 1, *(figures[step] for figures in rows.values())] for step in range(min(steps, _ROWS))]
            caption = f"{metric.upper()} at each horizon" + (f", the first {_ROWS} of {steps:,}" * (steps > _ROWS))
            report.add_table(["horizon", *rows], table, section="By horizon", caption=caption)

    def __str__(self) -> str:
        count, frames = len(self.episodes), sum(one.horizon for one in self.episodes)
        lines = [f"{self.model}: {count} episode{'s' if count != 1 else ''}, {frames:,} frames predicted"]
        lines += [str(one) for one in self.episodes[:_PRINTED]]
        if count > _PRINTED:
            lines.append(f"and {count - _PRINTED:,} more")
        lines += _told(self.horizons)
        return "\n".join([*lines, *([f"{len(self.failed)} could not be rolled out"] if self.failed else [])])


def _told(horizons: Mapping[str, Mapping[str, list[float]]]) -> Iterator[str]:
    """The first metric at the first and the last horizon, of the model and in brackets of others."""
    for metric, rows in list(horizons.items())[:1]:
        ends = {name: (figures[0], figures[-1]) for name, figures in rows.items() if figures}
        if not ends:
            return
        (_, (first, last)), *others = ends.items()
        steps = len(next(iter(rows.values())))
        beside = "; ".join(f"{name}: {a:.3g}" + (f", {b:.3g}" if steps > 1 else "") for name, (a, b) in others)
        text = f"{metric.upper()} {first:.3g} at horizon 1" + (f", {last:.3g} at {steps:,}" if steps > 1 else "")
        yield text + (f" ({beside})" if beside else "")


def _unknown(one: RolloutEpisode) -> list[str]:
    if not one.known:
        return ["the frames that came are not known: no truth and no error"]
    if one.known < one.horizon:
        return [f"the frames that came are known for the first {one.known:,} of {one.horizon:,} predicted ones"]
    return []
