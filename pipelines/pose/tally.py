"""Figures of many clips from sums and counts a clip and joint: means are exact however clips are cut or grouped.

Shapes: T frames, J joints, N clips, R bootstrap draws.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import InputError
from pipelines.evaluation.bootstrap import Interval
from pipelines.pose.metrics import (
    FIGURES,
    LEAST_JOINTS,
    THRESHOLDS,
    checked_pair,
    joint_errors,
    procrustes,
    rescaled,
    velocity_errors,
)

__all__ = ["ClipErrors", "Key", "Tally", "measure"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Key = Literal["action", "subject", "name"]
_REPLICATES = 2000


@dataclasses.dataclass(frozen=True, eq=False)
class ClipErrors:
    """What one clip adds to every figure.

    Args:
        name, action, subject: of the clip.
        frames: T.
        sums: figure -> (J,) sum of the errors in mm, or of shares in %.
        counts: figure -> (J,) how many errors the sum holds.
        hits: (J, 31) joints below each threshold of the AUC.
        left_out: what was not counted -> how often.

    Example:
        >>> measure("a", np.zeros((4, 2, 3)), np.zeros((4, 2, 3))).counts["mpjpe"].tolist()
        [4, 4]
    """

    name: str
    action: str
    subject: str
    frames: int
    sums: Mapping[str, Floats]
    counts: Mapping[str, Ints]
    hits: Ints
    left_out: Mapping[str, int]


def measure(
    name: str,
    predicted: ArrayLike,
    truth: ArrayLike,
    valid: ArrayLike | None = None,
    *,
    root: int = 0,
    joints: Collection[int] | None = None,
    action: str = "",
    subject: str = "",
) -> ClipErrors:
    """Compare the poses of one clip.

    Args:
        name: of the clip.
        predicted, truth: (T, J, 3) m.
        valid: (T, J) joints whose true place is known.
        root: the joint that is subtracted.
        joints: those that are compared (the root takes part in the alignment in any case); all by default.
        action, subject: of the clip; by them figures are grouped.

    Raises:
        InputError: shapes that do not fit, numbers of known joints that are not finite, no such joint.

    Complexity: O(T J) time and memory.

    Example:
        >>> truth = np.random.default_rng(0).standard_normal((4, 5, 3))
        >>> clip = measure("a", truth, truth, action="walk")
        >>> clip.hits[:, 1].tolist(), clip.counts["mpjve"].tolist()
        ([0, 4, 4, 4, 4], [3, 3, 3, 3, 3])
    """
    said, true, known = checked_pair(predicted, truth, valid, where=name)
    count = known.shape[1]
    if joints is not None and (not joints or not set(joints) <= set(range(count))):
        raise InputError("no such joints", where=name, found=sorted(joints), expected=f"some of 0 to {count - 1}")
    chosen = np.isin(np.arange(count), list(range(count) if joints is None else joints))
    errors = np.where(chosen, joint_errors(said, true, known, root=root), np.nan)
    compared = known & chosen
    aligned = procrustes(said, true, compared)
    scaled, goal, there = rescaled(said, true, known, root=root)
    found = {
        "mpjpe": errors,
        "p_mpjpe": 1000.0 * np.linalg.norm(aligned - true, axis=-1),
        "n_mpjpe": np.where(there & chosen, 1000.0 * np.linalg.norm(scaled - goal, axis=-1), np.nan),
        "mpjve": np.where(chosen, velocity_errors(said, true, known, root=root), np.nan),
    }
    judged = errors.copy()
    judged[:, root] = np.nan  # it would be right without any merit
    hits = (judged[..., None] < THRESHOLDS).sum(0).astype(np.int64)
    seen = (~np.isnan(judged)).sum(0).astype(np.int64)
    sums = {figure: np.nansum(values, axis=0) for figure, values in found.items()}
    counts = {figure: (~np.isnan(values)).sum(0).astype(np.int64) for figure, values in found.items()}
    sums |= {"pck_150": 100.0 * hits[:, -1], "auc": 100.0 * hits.sum(1) / len(THRESHOLDS)}
    counts |= {"pck_150": seen, "auc": seen}
    few = compared.sum(1) < LEAST_JOINTS
    left_out = {
        "joints without a known place": int((~known)[:, chosen].sum()),
        "frames without a root, in all figures but p_mpjpe": int((~known[:, root]).sum()),
        f"frames with fewer than {LEAST_JOINTS} joints, in p_mpjpe": int(few.sum()),
    }
    left_out = {what: often for what, often in left_out.items() if often}
    return ClipErrors(name, action, subject, len(known), sums, counts, hits, left_out)


@dataclasses.dataclass
class Tally:
    """The clips measured so far.

    Args:
        clips: in the order in which they were added; their order changes no figure.

    Example:
        >>> truth = np.zeros((2, 3, 3)); off = truth.copy(); off[:, 1:, 0] = 0.03
        >>> tally = Tally([measure("a", truth, truth, action="walk"), measure("b", off, truth, action="run")])
        >>> tally.figures()["mpjpe"], tally.by("action")["run"]["mpjpe"]
        (10.0, 20.0)
    """

    clips: list[ClipErrors] = dataclasses.field(default_factory=list)

    def add(self, clip: ClipErrors) -> None:
        """Count one more clip; an InputError where it has another number of joints than the first."""
        if self.clips and len(clip.hits) != len(self.clips[0].hits):
            found, expected = len(clip.hits), len(self.clips[0].hits)
            raise InputError("clips of two skeletons", where=clip.name, found=found, expected=f"{expected} joints")
        self.clips.append(clip)

    @property
    def frames(self) -> int:
        """Frames of all clips."""
        return sum(clip.frames for clip in self.clips)

    def figures(self) -> dict[str, float]:
        """Every figure over all joints of all frames, each counted once; NaN where nothing counts."""
        return _figures(self.clips)

    def by(self, key: Key) -> dict[str, dict[str, float]]:
        """The figures of each action, subject or clip, over all of its frames, in the order of the first clips."""
        return {name: _figures(clips) for name, clips in self._groups(key).items()}

    def action_average(self) -> dict[str, float]:
        """The mean over actions of the figures of each, as the field prints them; what an action lacks is left out."""
        return _group_mean(self.by("action").values())

    def by_joint(self, figure: str = "mpjpe") -> Floats:
        """One figure of every joint, (J,); NaN for joints that were never compared."""
        if not self.clips:
            raise InputError("nothing was measured", where="by_joint", expected="one clip or more")
        sums = np.array([math.fsum(parts) for parts in zip(*(c.sums[figure] for c in self.clips), strict=True)])
        counts = np.sum([clip.counts[figure] for clip in self.clips], axis=0)
        return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)

    def curve(self) -> Floats:
        """Share of joints in % below each threshold of the AUC, (31,); NaN where nothing counts."""
        judged = sum(int(clip.counts["auc"].sum()) for clip in self.clips)
        hits = sum((clip.hits.sum(0) for clip in self.clips), np.zeros(len(THRESHOLDS), np.int64))
        return 100.0 * hits / judged if judged else np.full(len(THRESHOLDS), np.nan)

    def intervals(
        self, *, actions: bool = False, level: float = 0.95, replicates: int = _REPLICATES, seed: int = 0
    ) -> dict[str, Interval]:
        """Percentile intervals: whole clips are drawn with replacement, with all their views, for they are alike.

        Args:
            actions: of `action_average` rather than of `figures`.
            level: of the intervals.
            replicates: R.
            seed: of the draws.

        Returns:
            Figure -> interval; empty for fewer than two clips, which say nothing about others.

        Raises:
            InputError: settings out of range.

        Complexity: O(R N).
        """
        average = self.action_average() if actions else self.figures()
        drawn = self._replicates(actions, level, replicates, seed)
        return {
            figure: Interval(average[figure], *_ends(values, level), level, 1, len(self.clips))
            for figure, values in drawn.items()
            if not np.isnan(values).all()
        }

    def difference(
        self, other: Tally, *, actions: bool = False, level: float = 0.95, replicates: int = _REPLICATES, seed: int = 0
    ) -> dict[str, Interval]:
        """This minus another model on the same clips, with intervals from common draws: what is hard for both cancels.

        Args:
            other: measured on the same clips in the same order.
            actions, level, replicates, seed: as `intervals`.

        Raises:
            InputError: other clips.

        Example:
            >>> truth = np.zeros((2, 3, 3)); off = truth.copy(); off[:, 1:, 0] = 0.03
            >>> good = Tally([measure(name, truth, truth) for name in "ab"])
            >>> good.difference(Tally([measure(name, off, truth) for name in "ab"]))["mpjpe"].hi
            -20.0
        """
        names = [[(clip.name, clip.frames) for clip in tally.clips] for tally in (self, other)]
        if names[0] != names[1]:
            found = f"{len(names[1])} clips, {other.frames:,} frames"
            expected = f"the same {len(names[0])} clips, {self.frames:,} frames"
            raise InputError("both must be measured on the same clips", found=found, expected=expected)
        first, second = (t.action_average() if actions else t.figures() for t in (self, other))
        drawn, against = (t._replicates(actions, level, replicates, seed) for t in (self, other))
        return {
            figure: Interval(first[figure] - second[figure], *_ends(values - against[figure], level), level, 1,
                             len(self.clips))
            for figure, values in drawn.items()
            if not np.isnan(values - against[figure]).all()
        }  # fmt: skip

    def notes(self) -> tuple[str, ...]:
        """What was not counted, summed over the clips."""
        kinds = dict.fromkeys(what for clip in self.clips for what in clip.left_out)
        return tuple(f"not compared: {sum(c.left_out.get(what, 0) for c in self.clips):,} {what}" for what in kinds)

    def _groups(self, key: Key) -> dict[str, list[ClipErrors]]:
        groups: dict[str, list[ClipErrors]] = {}
        for clip in self.clips:
            groups.setdefault(getattr(clip, key), []).append(clip)
        return groups

    def _replicates(self, actions: bool, level: float, replicates: int, seed: int) -> dict[str, Floats]:
        """Figure -> (R,) its values over drawn clips; an action that was not drawn is not in the mean over actions."""
        if replicates < 2 or not 0 < level < 1:
            found = f"replicates {replicates}, level {level}"
            raise InputError("no such bootstrap", found=found, expected="replicates >= 2, 0 < level < 1")
        # Views of one clip by several cameras are drawn together: they have the same name.
        place = {name: number for number, name in enumerate(dict.fromkeys(clip.name for clip in self.clips))}
        number = len(place)
        if number < 2:
            return {}
        whole = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=replicates)
        drawn = whole[:, [place[clip.name] for clip in self.clips]]
        names = [clip.action if actions else "" for clip in self.clips]
        member = np.array([[name == group for group in dict.fromkeys(names)] for name in names], np.float64)
        out = {}
        for figure in FIGURES:
            sums = np.array([clip.sums[figure].sum() for clip in self.clips])
            counts = np.array([clip.counts[figure].sum() for clip in self.clips], np.float64)
            total, often = drawn @ (sums[:, None] * member), drawn @ (counts[:, None] * member)
            means = np.divide(total, often, out=np.zeros_like(total), where=often > 0)
            groups = (often > 0).sum(1)
            out[figure] = np.divide(means.sum(1), groups, out=np.full(replicates, np.nan), where=groups > 0)
        return out


def _figures(clips: list[ClipErrors]) -> dict[str, float]:
    """The sum of all sums, rounded once, over the sum of all counts."""
    out = {}
    for figure in FIGURES:
        count = sum(int(clip.counts[figure].sum()) for clip in clips)
        total = math.fsum(value for clip in clips for value in clip.sums[figure])
        out[figure] = total / count if count else math.nan
    return out


def _group_mean(groups: Iterable[Mapping[str, float]]) -> dict[str, float]:
    held = list(groups)
    out = {}
    for figure in FIGURES:
        values = [group[figure] for group in held if not math.isnan(group[figure])]
        out[figure] = math.fsum(values) / len(values) if values else math.nan
    return out


def _ends(values: Floats, level: float) -> tuple[float, float]:
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
