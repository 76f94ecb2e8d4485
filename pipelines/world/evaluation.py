"""The protocol of world models: every window of frames not learned from, by horizon, beside the last and mean frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.base import Evaluation, Table
from pipelines.data.datasets.world_types import Episode
from pipelines.data.datasets.world_windows import Windows, windows
from pipelines.errors import NothingToMeasure
from pipelines.world import engine
from pipelines.world.baselines import CopyLast, MeanFrame
from pipelines.world.drift import Drift, DriftMeter
from pipelines.world.holding import Holding, holding
from pipelines.world.material import check_fit, episodes_of, fresh_parts
from pipelines.world.metrics import FIGURES
from pipelines.world.shrinkage import said
from pipelines.world.tally import Tally

if TYPE_CHECKING:
    from pipelines.world.pipeline import WorldModel

__all__ = ["evaluate"]

_BATCH = 16  # windows that are rolled out at once
_LONG = 64  # frames of the rollout that drift is told from


def evaluate(m: WorldModel, data: Any) -> Evaluation:
    """Measure a fitted model on all windows of frames that nothing was learned from.

    Raises:
        NothingToMeasure: every frame was learned from.
        InputError: frames of another size than the model's, or no episode as long as a window.
    """
    whole, notes = episodes_of(m, data)
    check_fit(m, whole)
    fresh, said = fresh_parts(whole, m.state.borders())
    notes += said
    if not fresh:
        raise NothingToMeasure("no frame is left to measure", where="data", found=f"{len(whole)} episodes",
                               expected="frames that the model has not seen")  # fmt: skip
    table = windows(fresh, m.context, m.horizon, m.split.stride)
    tally = _measured(m, table)
    drifts = _drifts(m, fresh)
    held = holding(m, fresh)
    notes += [*table.notes, *tally.notes()]
    wide = m.state.wide
    if not wide and any(episode.actions is not None for episode in fresh):
        notes.append("the model knows no actions: those of the episodes are not used")
    return _summary(m, fresh, table, tally, drifts, held, notes)


def _baselines(m: WorldModel) -> dict[str, Any]:
    last = CopyLast()
    if not m.state.mean_count:  # a released checkpoint knows no training frames
        return {last.name: last}
    mean = MeanFrame(m.state.mean.astype(np.float64), m.state.mean_count)
    return {last.name: last, mean.name: mean}


def _measured(m: WorldModel, table: Windows) -> Tally:
    """All windows, of the model and its baselines."""
    tally, others = Tally(m.horizon, seed=m.seed), _baselines(m)
    rows = np.arange(len(table))
    starts = range(0, len(rows), _BATCH)
    progress = m.run.progress
    for low in starts if progress is None else progress.track(starts, label=f"batches of {_BATCH} windows measured"):
        chosen = rows[low : low + _BATCH]
        batch = table.take(chosen)
        truth = batch.future.transpose(0, 1, 4, 2, 3)
        context = batch.seen.transpose(0, 1, 4, 2, 3)
        rollouts = {m.model: engine.rolled(m.state, batch.seen, batch.actions, m.horizon)}
        rollouts |= {name: other.rollout(context, m.horizon) for name, other in others.items()}
        names = [f"{number}: {table.episodes[number].name}" for number in table.places[chosen, 0].tolist()]
        tally.add(names, table.places[chosen, 1], truth, rollouts)
    return tally


def _drifts(m: WorldModel, episodes: Sequence[Episode]) -> Drift | None:
    """How one long rollout of each of the first episodes that are long enough goes on, until the shortest ends."""
    long = [one for one in episodes if len(one) >= m.context + max(m.horizon, 8)][:_BATCH]
    if not long:
        return None
    steps = min(_LONG, *(len(one) - m.context for one in long))
    seen = np.stack([one.frames.read(0, m.context) for one in long])
    truth = np.stack([one.frames.read(m.context, m.context + steps) for one in long])
    wide = m.state.wide
    actions = [one.actions for one in long if one.actions is not None]
    given = np.stack([one[: m.context - 1 + steps] for one in actions]) if wide else None
    frames = engine.rolled(m.state, seen, given, steps)
    meter = DriftMeter(seen[:, -1].transpose(0, 3, 1, 2))
    for step in range(steps):
        meter.add(frames[:, step], truth[:, step].transpose(0, 3, 1, 2))
    return meter.result()


def _summary(
    m: WorldModel, episodes: list[Episode], table: Windows, tally: Tally, drifts: Drift | None, held: Holding,
    notes: list[str],
) -> Evaluation:  # fmt: skip
    found = tally.figures()
    spans = tally.intervals()
    steps = found["horizons"]
    rates = sorted({one.fps for one in episodes if one.fps is not None})
    rate = f"{', '.join(f'{one:g}' for one in rates[:3])} Hz" if rates else "frame rate not known"
    height, width, channels = episodes[0].shape[1:]
    protocol = (
        f"rollouts of {m.horizon} frames after {m.context} seen, all windows with stride {m.split.stride}, "
        f"{height} x {width} px, {channels} channels, {rate}; figures over all frames and at each horizon; errors of "
        "values in [0, 1]; rebuild_mse of each frame from its own features"
    )
    metrics = {name: float(found[name]) for name in FIGURES if name in found}
    baselines = {
        name: {metric: float(rows[metric]) for metric in FIGURES if metric in rows}
        for name, rows in found["baselines"].items()
    }
    metrics["rebuild_mse"] = held.rebuilt
    if held.mean is not None:
        baselines["mean_frame"]["rebuild_mse"] = held.mean
    details: dict[str, Any] = {
        "baselines_by_horizon": {name: _by_step(rows["horizons"]) for name, rows in found["baselines"].items()},
        "better": _better(tally),
        **held.details(),
    }
    if len(m.state.shrinkage):
        details["shrinkage"] = [round(one, 4) for one in m.state.shrinkage.tolist()]
        notes.append(said(m.state.shrinkage))
    if drifts is not None:
        details["drift"] = drifts.to_dict()
    return Evaluation(
        model=m.model,
        protocol=protocol,
        data=episodes[0].name if len(episodes) == 1 else f"{len(episodes)} episodes",
        metrics=metrics,
        counts={"windows": tally.windows, "episodes": len(tally.episodes), "frames": sum(map(len, episodes))},
        provenance=m.provenance(f"{len(episodes)} episodes"),
        intervals={name: (span.lo, span.hi) for name, span in spans.items() if name != "horizons" and name in metrics},
        baselines=baselines,
        horizons=_by_step(steps),
        details=details,
        notes=tuple(dict.fromkeys(notes)),
        facts={"episodes": len(episodes), "frames": sum(map(len, episodes)), "size": f"{height} x {width}"},
        figures=[*_figures(m, found, spans, drifts), *held.figures()],
        tables=[_table(m, found), *held.tables()],
    )


def _by_step(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    names = [name for name in FIGURES if all(name in row for row in rows)]
    return {name: [float(row[name]) for row in rows] for name in names}


def _better(tally: Tally) -> dict[str, Any]:
    """Baseline -> at which horizons the model's MSE is lower, and at which the interval of the difference says so."""
    out: dict[str, Any] = {}
    for name, gaps in tally.differences("mse").items():
        rows = [(step + 1, gap) for step, gap in enumerate(gaps["horizons"]) if gap is not None]
        out[name] = {
            "lower_mse_at": [step for step, gap in rows if gap.value < 0],
            "surely_lower_at": [step for step, gap in rows if gap.hi < 0],
        }
    return out


def _table(m: WorldModel, found: dict[str, Any]) -> Table:
    names = {m.model: found["horizons"], **{name: rows["horizons"] for name, rows in found["baselines"].items()}}
    wanted = sorted({1, 2, 5, min(8, m.horizon), 16, m.horizon})
    steps = [step for step in wanted if step <= m.horizon]
    rows: list[list[object]] = []
    for name, by_step in names.items():
        cells = [f"{by_step[step - 1]['mse']:.5f} / {by_step[step - 1]['ssim']:.3f}" for step in steps]
        rows.append([name, *cells])
    return Table("By horizon", ["MSE / SSIM at", *map(str, steps)], rows)


def _figures(m: WorldModel, found: dict[str, Any], spans: dict[str, Any], drifts: Drift | None) -> list[Any]:
    """Lines of error and likeness by horizon, and the drift curve."""
    rate = m.state.fps

    def lines(metric: str, name: str, larger: bool) -> Any:
        from pipelines.world.plots import horizon_figure, of_tally

        rows, bands = of_tally(found, {m.model: spans} if spans else {}, metric=metric, model=m.model)
        return horizon_figure(rows, bands=bands, metric=name, larger=larger, fps=rate, windows=int(found["windows"]))

    def drift_lines() -> Any:
        from pipelines.world.plots import drift_figure

        return drift_figure({m.model: drifts} if drifts is not None else {}, fps=rate, trained=max(m.objective.free))

    figures: list[Any] = [
        (
            "Error by horizon",
            "Mean squared error of rollouts at each horizon, of the model and its baselines",
            lambda: lines("mse", "MSE", False),
        ),
        (
            "Likeness by horizon",
            "SSIM of rollouts at each horizon, of the model and its baselines",
            lambda: lines("ssim", "SSIM", True),
        ),
    ]
    if drifts is not None:
        figures.append(("Drift", "How far a long rollout goes from its start and from the truth", drift_lines))
    return figures
