"""What a fitted world model's features hold: the frame itself, directions and structure in space, and true states."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.base import Table
from pipelines.data.datasets.world_types import Episode
from pipelines.world import engine
from pipelines.world.probing import probed, told
from pipelines.world.structure import Structure, structure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.world.pipeline import WorldModel
    from pipelines.world.probes import Probe

__all__ = ["Holding", "holding"]

_FEATURES = 256  # frames whose features are described
_BATCH = 64  # frames that are rebuilt at once
_SCORES = {
    "effective_rank": "directions that the features use: exp of the entropy of their singular values, at most the "
    "number of channels",
    "feature_std": "deviation of a channel over all frames and places, the mean over channels",
    "spatial_std": "deviation over the places of a frame, the mean over channels and frames",
    "spatial_share": "share of the variance that lies between the places of a frame",
    "place_share": "share of the variance that the place alone explains: what stands still",
    "morans_i": "likeness of neighbouring places: 1 is smooth, 0 is noise",
}


@dataclasses.dataclass
class Holding:
    """What features hold.

    Attributes:
        rebuilt: mean squared error of each frame rebuilt from its own features, over all frames and values.
        mean: the same of the mean frame of training; None where it is not known.
        scores: rank and structure of the features of at most 256 frames.
        probes: kind of features -> target -> what a linear probe reads; empty without true states.
    """

    rebuilt: float
    mean: float | None
    scores: Structure
    probes: dict[str, dict[str, Probe]]

    def details(self) -> dict[str, Any]:
        """Plain values for the answer's ``details``."""
        scores = {name: None if _unknown(value) else value for name, value in vars(self.scores).items()}
        return {"structure": scores, **({"probes": told(self.probes)} if self.probes else {})}

    def tables(self) -> list[Table]:
        """The scores with their definitions, and the probes."""
        scores = vars(self.scores)
        rows: list[list[object]] = [
            [name, "none" if _unknown(scores[name]) else f"{scores[name]:.3f}", means]
            for name, means in _SCORES.items()
        ]
        caption = f"Of {scores['channels']} channels, from {scores['maps']} frames spread over all that were measured."
        tables = [Table("Features", ["score", "value", "what it is"], rows, caption)]
        lines: list[list[object]] = [
            [target, state, kind, f"{span.value:.3f} ({span.lo:.3f} to {span.hi:.3f})"]
            for kind, found in self.probes.items()
            for target, probe in found.items()
            for state, span in probe.r2.items()
        ]
        if lines:
            lines.sort(key=lambda row: (row[0], row[1]))
            counted = next(iter(next(iter(self.probes.values())).values()))
            caption = (
                f"Ridge regressions fitted on {counted.train_rows:,} frames of some episodes and measured on "
                f"{counted.test_rows:,} of others; model: its features; untrained: the same network before training."
            )
            tables.append(Table("Linear probes", ["target", "state", "features", "R2 (95 % interval)"], lines, caption))
        return tables

    def figures(self) -> list[tuple[str, str, Callable[[], Figure]]]:
        """The picture of the probes, where there are any."""
        if not any(probe.r2 for found in self.probes.values() for probe in found.values()):
            return []

        def draw() -> Figure:
            from pipelines.world.plots import probes_figure

            return probes_figure(self.probes)

        return [("Linear probes", "What linear probes read of the true states, R2 with intervals", draw)]


def holding(m: WorldModel, episodes: Sequence[Episode]) -> Holding:
    """Describe what a fitted model's features hold of episodes that it has not seen.

    Args:
        m: a fitted pipeline.
        episodes: of the size that it was trained on.

    Complexity: one encoding and decoding of every frame.
    """
    rebuilt, mean = _rebuilt(m, episodes)
    return Holding(rebuilt, mean, structure(_features(m, episodes)), probed(m, episodes))


def _rebuilt(m: WorldModel, episodes: Sequence[Episode]) -> tuple[float, float | None]:
    """Mean squared errors of all frames, each rebuilt by itself, and of the mean frame."""
    mean = np.moveaxis(m.state.mean.astype(np.float64), 0, -1) if m.state.mean_count else None
    wrong, still, count = 0.0, 0.0, 0
    for one in episodes:
        for low in range(0, len(one), _BATCH):
            frames = one.frames.read(low, min(low + _BATCH, len(one)))
            truth = frames.astype(np.float64) / 255
            found = np.moveaxis(engine.rebuilt(m.state, frames).astype(np.float64), 1, -1)
            wrong += float(np.square(found - truth).sum())
            still += 0.0 if mean is None else float(np.square(mean - truth).sum())
            count += truth.size
    return wrong / count, None if mean is None else still / count


def _features(m: WorldModel, episodes: Sequence[Episode]) -> np.ndarray:
    """Features of frames evenly over all episodes."""
    frames = sum(len(one) for one in episodes)
    step = max(1, -(-frames // _FEATURES))
    found = []
    offset = 0
    for one in episodes:
        places = range(-offset % step, len(one), step)
        offset += len(one)
        stack = [one.frames.read(place, place + 1) for place in places]
        if stack:
            found.append(engine.encoded(m.state, np.concatenate(stack)))
    return np.concatenate(found)


def _unknown(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
