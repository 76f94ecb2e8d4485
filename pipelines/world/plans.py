"""Acting in an environment with plans made in a learned model: the answer of the verb ``plan``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipelines.base import Provenance, Result
from pipelines.errors import ConfigError
from pipelines.values import to_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.evaluation.report import Report
    from pipelines.world.pipeline import WorldModel
    from pipelines.world.planning_outcome import PlanOutcome

__all__ = ["Plans", "plan"]

_FASTEST = 50  # pictures a second of a GIF


@dataclasses.dataclass
class Plans(Result):
    """What planning earned in an environment, beside chance, with a film of the first episode.

    Args:
        outcome: what came of it.
        provenance: where it comes from.
    """

    outcome: PlanOutcome
    provenance: Provenance

    default_name: ClassVar[str] = "plan.json"

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        """What was done, counted."""
        return self.outcome.notes

    def save(self, path: str | Path) -> Path:
        """Write the figures (.json) or the film of the first episode (.gif, .mp4).

        Raises:
            ConfigError: another ending, or an environment that draws nothing.
            RunError: the disk is full or not writable; nothing half is left.
        """
        from pipelines.files import atomic_write, atomic_write_all

        target = Path(path)
        if target.suffix.lower() in (".gif", ".mp4"):
            atomic_write_all({target: lambda handle: self._film(handle, target.suffix.lower())})
        elif target.suffix.lower() == ".json":
            atomic_write(target, to_json(self.to_dict(), indent=1) + "\n")
        else:
            raise ConfigError("cannot write this kind of file", where=target, found=target.suffix,
                              expected=".json, .gif, .mp4")  # fmt: skip
        return target

    def _film(self, handle: BinaryIO, ending: str) -> None:
        from pipelines.evaluation.films import write_gif, write_mp4

        frames = self._frames()
        height, width = frames.shape[1:3]
        rate = Fraction(min(self.outcome.fps or 10.0, _FASTEST)).limit_denominator(1000)
        write = write_gif if ending == ".gif" else write_mp4
        write(handle, _even(frames), (width - width % 2, height - height % 2), rate, str(self))

    def _frames(self) -> NDArray[np.uint8]:
        if self.outcome.frames is None:
            raise ConfigError("there is no film", where="plan", found=f"{self.outcome.environment} draws nothing",
                              cure="write a .json")  # fmt: skip
        return self.outcome.frames

    def plot(self, path: str | Path | None = None) -> Figure:
        """Draw the returns of the episodes beside those at random."""
        from pipelines.base import save_figure

        figure = returns_figure(self.outcome)
        if path is not None:
            save_figure(figure, path)
        return figure

    def to_dict(self) -> dict[str, Any]:
        """The figures, plain."""
        return self.outcome.to_dict() | {"provenance": dataclasses.asdict(self.provenance)}

    def fill_report(self, report: Report) -> None:
        """Add returns, the film and the model's errors."""
        import io

        from pipelines.evaluation.films import add_film, write_gif

        report.add_text(str(self), section="Returns")
        report.add_figure(self.plot(), "Return of each episode with the plan and at random", section="Returns")
        if self.outcome.frames is not None:
            held = io.BytesIO()
            frames = self.outcome.frames[:200]
            size = (frames.shape[2] - frames.shape[2] % 2, frames.shape[1] - frames.shape[1] % 2)
            rate = Fraction(min(self.outcome.fps or 10.0, _FASTEST)).limit_denominator(1000)
            write_gif(held, _even(frames), size, rate, str(self))
            shown = f"The first {len(frames)} of {len(self.outcome.frames)} frames." if len(frames) < len(
                self.outcome.frames) else ""  # fmt: skip
            add_film(report, held.getvalue(), "Film of the first episode", section="The first episode", caption=shown)
        rows = [list(dataclasses.asdict(one).values()) for one in self.outcome.errors]
        if rows:
            report.add_table(
                list(dataclasses.asdict(self.outcome.errors[0])), rows, section="Errors of the model",
                caption="After each round of learning, on episodes that it did not learn from.",
            )  # fmt: skip
        settings = {name: str(value) for name, value in self.outcome.settings.items()}
        report.add_data_summary(settings, section="Settings")

    def __str__(self) -> str:
        one, by = self.outcome, self.outcome.interval
        chance = one.random_interval
        times = "" if one.times_random is None else f", {one.times_random:.1f} times as much"
        return (
            f"{one.environment} from {one.observation}: return {by.value:.1f} ({by.lo:.1f} to {by.hi:.1f}) over "
            f"{len(one.returns)} episodes; at random {chance.value:.1f} ({chance.lo:.1f} to {chance.hi:.1f}) over "
            f"{len(one.random_returns)}{times}"
        )


def plan(m: WorldModel, data: Any) -> Plans:
    """Learn a model of an environment and act by it.

    Raises:
        InputError: no such environment, or gymnasium is not installed.
    """
    from pipelines.world.planning import plan_environment

    options = m.planning
    outcome = plan_environment(
        str(data), observation=options.observation, episodes=options.episodes, steps=options.steps,
        recorded=options.recorded, rounds=options.rounds, seed=m.seed, say=m.run.say,
    )  # fmt: skip
    name = "state ensemble" if options.observation == "state" else "recurrent models of frames"
    stamp = Provenance.now(data=str(data), model=name, seed=m.seed, weights="learned in this run")
    return Plans(outcome, stamp)


def _even(frames: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Pictures of even sides in colour."""
    height, width = frames.shape[1:3]
    for frame in frames:
        part = frame[: height - height % 2, : width - width % 2]
        yield np.ascontiguousarray(part if part.shape[-1] == 3 else np.repeat(part, 3, axis=-1))


def returns_figure(outcome: PlanOutcome) -> Figure:
    """Every return as a point, with the means and their intervals."""
    import matplotlib as mpl

    from pipelines.evaluation import plots as house

    with mpl.rc_context(house.STYLE):
        return _drawn(outcome)


def _drawn(outcome: PlanOutcome) -> Figure:
    from pipelines.evaluation import plots as house

    figure = house.new_figure(6.4, 2.6)
    axes = figure.add_subplot()
    parts = (("random", outcome.random_returns, outcome.random_interval, house.FAINT),
             ("plan", outcome.returns, outcome.interval, house.BLUE))  # fmt: skip
    for row, (_, values, span, colour) in enumerate(parts):
        spread = np.linspace(-0.25, 0.25, len(values)) if len(values) > 1 else np.zeros(1)
        axes.scatter(values, row + spread, s=12, color=colour, alpha=0.7)
        axes.plot([span.lo, span.hi], [row + 0.36] * 2, color=house.INK, linewidth=1.5)
        axes.plot([span.value], [row + 0.36], "o", color=house.INK, markersize=4)
    axes.set_yticks([0, 1], [name for name, *_ in parts])
    axes.set_ylim(-0.6, 1.6)
    axes.set_xlabel("return of an episode; line: mean with its 95 % interval")
    times = "" if outcome.times_random is None else f": {outcome.times_random:.1f} times random play"
    axes.set_title(f"{outcome.environment}{times}", loc="left")
    return figure
