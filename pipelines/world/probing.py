"""Linear probes of a fitted world model: what its features tell of the true state of an environment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.data.datasets.world_types import Episode
from pipelines.world import engine
from pipelines.world.probes import Probe, Series, compare, pixels, pooled

if TYPE_CHECKING:
    from pipelines.world.pipeline import WorldModel

__all__ = ["probed", "told"]

_FRAMES = 2000  # frames that probes are fitted and measured on
_LEAST = 60
_GRID = 4  # features are averaged over so many places a side


def probed(m: WorldModel, episodes: Sequence[Episode]) -> dict[str, dict[str, Probe]]:
    """R2 of ridge probes for positions and velocities, from the model's features, raw pixels and an untrained network.

    Episodes that were not learned from are divided once more: a probe is fitted on some and measured on others.

    Args:
        m: a fitted pipeline.
        episodes: that the model has not seen; those without states are left out.

    Returns:
        kind ("model", "untrained", "pixels") -> "position" and "velocity" -> the probe; empty without states or with
        fewer than 60 frames.
    """
    held = [one for one in episodes if one.states is not None]
    chosen, count = list[Episode](), 0
    for one in held:
        if count >= _FRAMES:
            break
        chosen.append(one)
        count += len(one)
    if count < _LEAST or len({one.states.shape[1] for one in chosen if one.states is not None}) != 1:
        return {}
    names = chosen[0].state_names or tuple(f"state {number + 1}" for number in range(_width(chosen[0])))
    untrained = engine.fresh_net(m.state, m.seed)
    sets: dict[str, list[Series]] = {"model": [], "untrained": [], "pixels": []}
    for one in chosen:
        frames, states = one.frames.read(0, len(one)), np.asarray(one.states, np.float64)
        sets["model"].append(Series(one.name, pooled(engine.encoded(m.state, frames), _GRID), states))
        sets["untrained"].append(Series(one.name, pooled(engine.encoded(m.state, frames, untrained), _GRID), states))
        sets["pixels"].append(Series(one.name, pixels(frames.transpose(0, 3, 1, 2)), states))
    return compare(sets, names)


def told(probes: Mapping[str, Mapping[str, Probe]]) -> dict[str, Any]:
    """Probes as plain values: kind -> target -> "mean_r2", "r2" by state with its interval, "frames"."""
    return {kind: {target: _told(probe) for target, probe in rows.items()} for kind, rows in probes.items()}


def _width(episode: Episode) -> int:
    return 0 if episode.states is None else episode.states.shape[1]


def _told(probe: Probe) -> dict[str, Any]:
    mean = float(probe.mean_r2)
    return {
        "mean_r2": mean if math.isfinite(mean) else None,
        "r2": {name: [span.value, span.lo, span.hi] for name, span in probe.r2.items()},
        "frames": probe.test_rows,
    }
