"""How long rollouts drift: distance from the truth and from their own start, energy of change, and how they end.

Shapes: B windows, h steps, frames of C channels, H rows, W columns on [0, 1].
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import InputError
from pipelines.world.metrics import to_unit

__all__ = ["BLOWN", "FADED", "FROZEN", "WILD", "Drift", "DriftMeter", "drift"]

Floats = NDArray[np.float64]

#: Share of the reference change under which a rollout is frozen.
FROZEN = 0.01
#: Share of the contrast of its start under which a rollout has faded.
FADED = 0.25
#: Multiple of the contrast of its start above which a rollout has blown up.
BLOWN = 4.0
#: Multiple of the reference change above which a rollout has blown up.
WILD = 10.0
_STILL = 1e-9  # mean squared change under which nothing moves: 1/65,000 of a grey level squared


@dataclasses.dataclass(frozen=True, eq=False)
class Drift:
    """A drift curve, step by step, all means over windows, channels and pixels.

    Args:
        from_start: (h,) root mean square distance from the last context frame.
        change: (h,) mean squared difference from the frame before.
        contrast: (h,) variance between the pixels of a frame, the mean over windows and channels.
        start_contrast: the same of the last context frame.
        to_truth: (h,) root mean square distance from the truth; None without one.
        copy_to_truth: (h,) the same of the last context frame: what copying it would reach.
        true_change: (h,) change of the truth.
        not_finite: (h,) values that are NaN or infinite; distances of such a step are infinite.

    How a rollout ends is judged on the means over its last quarter (at least one step). The reference change is the
    truth's mean over all steps, without a truth the rollout's own mean over its first quarter.

    Example:
        >>> start = np.linspace(0, 1, 16).reshape(1, 1, 4, 4)
        >>> drift(np.repeat(start[:, None], 8, axis=1), start).freezes
        True
    """

    from_start: Floats
    change: Floats
    contrast: Floats
    start_contrast: float
    to_truth: Floats | None
    copy_to_truth: Floats | None
    true_change: Floats | None
    not_finite: NDArray[np.int64]

    @property
    def reference(self) -> float:
        """Mean squared change of a step to which the end is compared."""
        return float(self.change[: self._quarter].mean() if self.true_change is None else self.true_change.mean())

    @property
    def freezes(self) -> bool:
        """Whether the change at the end is below `FROZEN` of the reference; never where the truth itself is still."""
        if self.true_change is not None and self.reference < _STILL:
            return False
        end = self._end(self.change)
        return end < _STILL or end < FROZEN * self.reference

    @property
    def fades(self) -> bool:
        """Whether the contrast at the end is below `FADED` of that of the start."""
        return self._end(self.contrast) < FADED * self.start_contrast

    @property
    def blows_up(self) -> bool:
        """Whether values are not finite, or at the end contrast exceeds `BLOWN` or change `WILD` times what it was."""
        if self.not_finite.any() or self._end(self.contrast) > BLOWN * max(self.start_contrast, _STILL):
            return True
        return self._end(self.change) > WILD * max(self.reference, _STILL)

    @property
    def end(self) -> str:
        """ "blows up", "fades", "freezes" (joined where several hold) or "moves on"."""
        kinds = (("blows up", self.blows_up), ("fades", self.fades), ("freezes", self.freezes))
        return " and ".join(kind for kind, holds in kinds if holds) or "moves on"

    @property
    def better_until(self) -> int | None:
        """Steps up to which the rollout is nearer to the truth than its start is at each step; None without truth."""
        if self.to_truth is None or self.copy_to_truth is None:
            return None
        worse = np.flatnonzero(~(self.to_truth < self.copy_to_truth))
        return int(worse[0]) if len(worse) else len(self.to_truth)

    def to_dict(self) -> dict[str, Any]:
        """Lists and words for JSON; infinite distances become None."""

        def numbers(values: Floats | None) -> list[float | None] | None:
            return None if values is None else [float(v) if math.isfinite(v) else None for v in values]

        named = ("from_start", "change", "contrast", "to_truth", "copy_to_truth", "true_change")
        found = {name: numbers(getattr(self, name)) for name in named}
        return {
            **{name: values for name, values in found.items() if values is not None},
            "start_contrast": self.start_contrast,
            "not_finite": int(self.not_finite.sum()),
            "end": self.end,
            **({} if self.better_until is None else {"better_than_copy_until": self.better_until}),
        }

    @property
    def _quarter(self) -> int:
        return max(1, len(self.change) // 4)

    def _end(self, values: Floats) -> float:
        return float(values[-self._quarter :].mean())


class DriftMeter:
    """Takes rollouts in step by step, so that memory does not grow with their length but by a few numbers a step.

    Args:
        start: (B, C, H, W) last context frames, uint8 or floats on [0, 1].

    Raises:
        InputError: another shape or dtype, values that are not finite.

    Example:
        >>> meter = DriftMeter(np.zeros((1, 1, 2, 2)))
        >>> for step in (0.25, 0.5):
        ...     meter.add(np.full((1, 1, 2, 2), step))
        >>> meter.result().from_start.tolist(), meter.result().change.tolist()
        ([0.25, 0.5], [0.0625, 0.0625])
    """

    def __init__(self, start: ArrayLike) -> None:
        first = to_unit(start, "start", bounded=True).astype(np.float64)
        if first.ndim != 4 or not first.size:
            raise InputError("not frames", where="start", found=first.shape, expected="(B, C, H, W)")
        self._start = self._before = self._true_before = first
        self._rows: list[tuple[float, ...]] = []
        self._with_truth: bool | None = None

    def add(self, frames: ArrayLike, truth: ArrayLike | None = None) -> None:
        """Take in the next step.

        Args:
            frames: (B, C, H, W), uint8 or floats; values that are not finite are counted.
            truth: the same; at every step or at none.

        Raises:
            InputError: another shape, a truth that is there at some steps only or not finite.

        Complexity: O(B C H W).
        """
        given = np.asarray(frames)
        if given.shape != self._start.shape:
            raise InputError("frames of another size", where="frames", found=given.shape, expected=self._start.shape)
        if self._with_truth not in (None, truth is not None):
            raise InputError("a truth at some steps only", where="truth", expected="at every step or at none")
        self._with_truth = truth is not None
        bad = 0 if given.dtype == np.uint8 else int((~np.isfinite(given)).sum())
        said = (to_unit(given, "frames") if not bad else given).astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            row = (
                _mean(said - self._start, 0.5),
                _mean(said - self._before),
                math.inf if bad else float(said.var(axis=(2, 3)).mean()),
            )
            self._before = said
            if truth is not None:
                true = to_unit(truth, "truth", bounded=True).astype(np.float64)
                if true.shape != self._start.shape:
                    raise InputError("truth of another size", where="truth", found=true.shape,
                                     expected=self._start.shape)  # fmt: skip
                row += (_mean(said - true, 0.5), _mean(self._start - true, 0.5), _mean(true - self._true_before))
                self._true_before = true
        self._rows.append((*row, float(bad)))

    def result(self) -> Drift:
        """The curve so far.

        Raises:
            InputError: no step was added.
        """
        if not self._rows:
            raise InputError("a rollout of no step", where="DriftMeter", expected="one step or more")
        columns = np.array(self._rows).T
        to_truth, copied, true_change = columns[3:6] if self._with_truth else (None, None, None)
        contrast, bad = float(self._start.var(axis=(2, 3)).mean()), columns[-1].astype(np.int64)
        return Drift(columns[0], columns[1], columns[2], contrast, to_truth, copied, true_change, bad)


def drift(rollout: ArrayLike, start: ArrayLike, truth: ArrayLike | None = None) -> Drift:
    """The drift curve of rollouts that are held as one array; for long ones see `DriftMeter`.

    Args:
        rollout: (B, h, C, H, W).
        start: (B, C, H, W) last context frames.
        truth: (B, h, C, H, W).

    Raises:
        InputError: as `DriftMeter`.

    Complexity: O(B h C H W).

    Example:
        >>> start = np.linspace(0, 1, 16).reshape(1, 1, 4, 4)
        >>> fading = np.stack([start * 0.5**step for step in range(1, 9)], axis=1)
        >>> drift(fading, start).end
        'fades and freezes'
    """
    said, true = np.asarray(rollout), None if truth is None else np.asarray(truth)
    if said.ndim != 5 or (true is not None and true.shape != said.shape):
        found = f"{said.shape}{'' if true is None else f' and {true.shape}'}"
        raise InputError("not rollouts", where="rollout", found=found, expected="(B, h, C, H, W), the truth too")
    meter = DriftMeter(start)
    for step in range(said.shape[1]):
        meter.add(said[:, step], None if true is None else true[:, step])
    return meter.result()


def _mean(gap: Floats, power: float = 1.0) -> float:
    value = float(np.mean(gap * gap))
    return value**power if math.isfinite(value) else math.inf
