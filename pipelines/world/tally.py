"""Figures of rollouts by horizon, of a model and its baselines on the same windows, with intervals.

Shapes: B windows in a batch, N in all, h steps of the horizon, S statistics, M methods, R rings of frequency.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import InputError
from pipelines.evaluation.bootstrap import Interval
from pipelines.world.metrics import (
    FIGURES,
    PSNR_CAP,
    checked_pair,
    frame_gradient,
    frame_mse,
    frame_ssim,
    psnr_of,
    ssim_window,
)
from pipelines.world.resampling import REPLICATES, Draws, resample
from pipelines.world.spectra import energy_ratio, log_spectral_distance, share_ratio, spectrum

__all__ = ["INTERVALS", "Tally"]

Floats = NDArray[np.float64]

#: Figures that have an interval, all but the log-spectral distance, whose spectra are kept as sums over all windows.
INTERVALS = FIGURES[:-1]
_STATISTICS = ("mse", "ssim", "gradient", "high", "total")  # of a frame and a method; then two of the truth alone
_OF_TRUTH = ("true_high", "true_total")


class _Exact:
    """A sum of arrays that does not depend on the order of the addends beyond the last bit (Neumaier 1974)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.sum, self.rest = np.zeros(shape), np.zeros(shape)

    def add(self, values: Floats) -> None:
        new = self.sum + values
        larger = np.abs(self.sum) >= np.abs(values)
        self.rest += np.where(larger, (self.sum - new) + values, (values - new) + self.sum)
        self.sum = new

    def value(self) -> Floats:
        return self.sum + self.rest


@dataclasses.dataclass(frozen=True, eq=False)
class _Batch:
    episodes: tuple[str, ...]
    starts: NDArray[np.int64]
    values: Mapping[str, Floats]  # method -> (B, h, len(_STATISTICS))
    truth: Floats  # (B, h, 2)


class Tally:
    """Errors of rollouts, one row a window, method and step; means are exact however windows are grouped or ordered.

    Memory is O(N h M) numbers, not frames; a batch costs what its figures cost, O(B h M C H W log(H W)).

    Args:
        horizon: steps h of every rollout.
        block: windows in a block of the bootstrap within one episode; by default the horizon divided by the distance
            of the windows, so that windows which share frames are drawn together.
        level: of the intervals.
        replicates: bootstrap draws.
        seed: of the draws.

    Raises:
        InputError: settings out of range.

    Example:
        >>> tally, truth = Tally(horizon=2), np.zeros((4, 2, 1, 8, 8))
        >>> rollouts = {"model": truth + 0.1, "copy_last": truth + 0.2}
        >>> tally.add(["a", "a", "b", "b"], [0, 1, 0, 1], truth, rollouts)
        >>> figures = tally.figures()
        >>> round(figures["psnr"], 6), figures["windows"], figures["horizons"][1]["horizon"]
        (20.0, 4, 2)
        >>> round(figures["baselines"]["copy_last"]["mse"], 6)
        0.04
    """

    def __init__(
        self,
        horizon: int,
        *,
        block: int | None = None,
        level: float = 0.95,
        replicates: int = REPLICATES,
        seed: int = 0,
    ) -> None:
        if horizon < 1 or (block is not None and block < 1) or not 0 < level < 1 or replicates < 2:
            found = f"horizon {horizon}, block {block}, level {level}, replicates {replicates}"
            expected = "horizon and block 1 or more, 0 < level < 1, 2 replicates or more"
            raise InputError("no figures with these settings", where="Tally", found=found, expected=expected)
        self.horizon, self.level = int(horizon), float(level)
        self._block, self._replicates, self._seed = block, replicates, seed
        self.methods: tuple[str, ...] = ()
        self._batches: list[_Batch] = []
        self._keys: set[tuple[str, int]] = set()
        self._frame: tuple[int, ...] = ()
        self._rings: dict[str, _Exact] = {}
        self._outside: dict[str, int] = {}
        self._ordered: tuple[list[slice], Floats] | None = None

    @property
    def windows(self) -> int:
        """N, windows so far."""
        return len(self._keys)

    @property
    def episodes(self) -> tuple[str, ...]:
        """Names of the episodes so far, sorted."""
        return tuple(sorted({name for name, _ in self._keys}))

    def add(
        self, episodes: Sequence[str], starts: ArrayLike, truth: ArrayLike, rollouts: Mapping[str, ArrayLike]
    ) -> None:
        """Count a batch of windows.

        Args:
            episodes: B names, of the episode that each window lies in.
            starts: (B,) its first frame.
            truth: (B, h, C, H, W), uint8 or floats on [0, 1].
            rollouts: method -> the same shape; the first method is the model, the others its baselines, the same
                ones in every batch.

        Raises:
            InputError: shapes or methods that differ, a window twice, values that are not finite.
        """
        names, places = tuple(episodes), np.asarray(starts, np.int64)
        true = np.asarray(truth)
        self._check(names, places, true, rollouts)
        parts: dict[str, Floats] = {}
        rings: dict[str, Floats] = {}
        shape = (len(names), self.horizon, -1)
        true_spectrum = None
        for method, rollout in rollouts.items():
            said_frames, true_frames = checked_pair(rollout, true, where=method)
            if true_spectrum is None:
                true_spectrum = spectrum(true_frames)
            found = spectrum(said_frames)
            rows = [frame_mse(said_frames, true_frames), frame_ssim(said_frames, true_frames),
                    frame_gradient(said_frames, true_frames), found.high, found.total]  # fmt: skip
            parts[method] = np.stack(rows, axis=-1).reshape(shape)
            rings[method] = found.rings.reshape(shape).sum(axis=0)
            if said_frames.dtype != np.uint8:
                wild = (said_frames < 0).any(axis=(1, 2, 3)) | (said_frames > 1).any(axis=(1, 2, 3))
                self._outside[method] = self._outside.get(method, 0) + int(wild.sum())
        if true_spectrum is None:
            raise InputError("nothing to measure", where="rollouts", found="no method", expected="one or more")
        rings[""] = true_spectrum.rings.reshape(shape).sum(axis=0)
        for method, values in rings.items():
            self._rings.setdefault(method, _Exact(values.shape)).add(values)
        of_truth = np.stack([true_spectrum.high, true_spectrum.total], axis=-1).reshape(shape)
        self.methods, self._frame, self._ordered = tuple(rollouts), true.shape[2:], None
        self._keys |= set(zip(names, places.tolist(), strict=True))
        self._batches.append(_Batch(names, places, parts, of_truth))

    def figures(self) -> dict[str, Any]:
        """Figures of the model, `horizons` step by step, its `baselines` in the same form, and what was counted.

        Returns:
            `mse`, `psnr` (dB, of the mean squared error), `ssim`, `gradient`, `spectral_energy`, `spectral_share`,
            `log_spectral` (dB) over all steps; `horizons`: a list of the same with `horizon` from 1; `baselines`:
            method -> the same; `windows`, `frames`, `episodes`. What does not exist (a ratio to a truth without any
            fine detail) is left out.

        Raises:
            InputError: nothing was added.

        Complexity: O(N h M).
        """
        _, rows = self._rows()
        means = rows.mean(axis=0)
        found = {method: self._of(method, means) for method in self.methods}
        counts = {
            "windows": self.windows,
            "frames": self.windows * self.horizon,
            "episodes": len(self.episodes),
        }
        others = {method: found[method] for method in self.methods[1:]}
        return {**found[self.methods[0]], **counts, "baselines": others}

    def intervals(self, method: str | None = None) -> dict[str, Any]:
        """Percentile intervals of `INTERVALS` of one method (the model), with `horizons` as in `figures`.

        Whole episodes are drawn where there are two or more, else blocks of time. Empty where there is one window.

        Raises:
            InputError: nothing was added, or no such method.

        Complexity: O(replicates (episodes + N / block) h M).
        """
        name = self._known(method)
        draws = self._draws()
        if draws is None:
            return {}
        _, rows = self._rows()
        average, drawn = rows.mean(axis=0), self._drawn(draws)

        def of(steps: slice) -> dict[str, Interval]:
            middle, spread = self._ratios(name, average[None, steps]), self._ratios(name, drawn[:, steps])
            return {
                figure: self._interval(float(middle[figure][0]), spread[figure], draws)
                for figure in INTERVALS
                if not math.isnan(middle[figure][0]) and not np.isnan(spread[figure]).all()
            }

        steps = [{"horizon": step + 1, **of(slice(step, step + 1))} for step in range(self.horizon)]
        return {**of(slice(None)), "horizons": steps}

    def differences(self, figure: str = "mse") -> dict[str, dict[str, Any]]:
        """The model's figure minus each baseline's, with intervals from common draws: what is hard for both cancels.

        Args:
            figure: one of `INTERVALS`.

        Returns:
            baseline -> {"all": interval over all steps, "horizons": [interval of each step]}; a difference that does
            not exist is None. Empty where there is one window.

        Raises:
            InputError: nothing was added, or no such figure.

        Example:
            >>> tally, truth = Tally(horizon=1), np.zeros((3, 1, 1, 8, 8))
            >>> tally.add("abc", [0, 0, 0], truth, {"model": truth + 0.1, "copy_last": truth + 0.2})
            >>> round(tally.differences()["copy_last"]["all"].hi, 6)
            -0.03
        """
        if figure not in INTERVALS:
            raise InputError("no such figure", where="figure", found=figure, expected=", ".join(INTERVALS))
        model, *others = self.methods or (self._known(None),)
        draws = self._draws()
        if draws is None:
            return {}
        _, rows = self._rows()
        average, drawn = rows.mean(axis=0), self._drawn(draws)

        def of(other: str, steps: slice) -> Interval | None:
            middle = [self._ratios(name, average[None, steps])[figure][0] for name in (model, other)]
            spread = [self._ratios(name, drawn[:, steps])[figure] for name in (model, other)]
            gap, gaps = float(middle[0] - middle[1]), spread[0] - spread[1]
            return None if math.isnan(gap) or np.isnan(gaps).all() else self._interval(gap, gaps, draws)

        return {
            other: {
                "all": of(other, slice(None)),
                "horizons": [of(other, slice(step, step + 1)) for step in range(self.horizon)],
            }
            for other in others
        }

    def notes(self) -> tuple[str, ...]:
        """What limits the figures: capped PSNR, small frames, values outside [0, 1], how intervals were drawn."""
        _, rows = self._rows()
        means = rows.mean(axis=0)
        notes = []
        for method in self.methods:
            errors = means[:, self._column(method)]
            capped = [step + 1 for step, error in enumerate(errors) if psnr_of(float(error)) >= PSNR_CAP]
            if capped:
                exact = "is 0 or" if (errors == 0).any() else "is"
                notes.append(
                    f"{method}: the error {exact} below 1e-10 at {len(capped)} of {self.horizon} steps, the first "
                    f"{capped[0]}: PSNR is capped at {PSNR_CAP:g} dB"
                )
            if self._outside.get(method):
                notes.append(f"{method}: {self._outside[method]:,} frames hold values outside [0, 1]: measured as are")
        side = ssim_window(*self._frame[-2:])
        if side < 11:
            notes.append(
                f"frames of {self._frame[-2]} x {self._frame[-1]} pixels hold no SSIM window of 11 x 11: "
                f"one of {side} x {side}"
            )
        if math.isnan(energy_ratio(0.0, float(means[:, -2].mean()))):
            notes.append("the true frames hold no energy above a quarter of Nyquist: no spectral ratios")
        draws = self._draws(2)
        notes.append("one window: no intervals" if draws is None else draws.sentence())
        return tuple(notes)

    def _check(
        self, names: tuple[str, ...], places: NDArray[np.int64], true: np.ndarray, rollouts: Mapping[str, ArrayLike]
    ) -> None:
        if places.shape != (len(names),) or not names:
            found = f"{len(names)} episodes, starts {places.shape}"
            raise InputError("windows that do not fit", where="starts", found=found, expected="one start an episode")
        if true.ndim != 5 or true.shape[:2] != (len(names), self.horizon):
            expected = f"({len(names)}, {self.horizon}, C, H, W)"
            raise InputError("truth does not fit", where="truth", found=true.shape, expected=expected)
        if self._frame and true.shape[2:] != self._frame:
            raise InputError("frames of another size", where="truth", found=true.shape[2:], expected=self._frame)
        if self.methods and tuple(rollouts) != self.methods:
            found, expected = ", ".join(rollouts), ", ".join(self.methods)
            raise InputError("other methods than before", where="rollouts", found=found, expected=expected)
        keys = list(zip(names, places.tolist(), strict=True))
        twice = [key for key in keys if key in self._keys] or (keys if len(set(keys)) < len(keys) else [])
        if twice:
            found = f"episode {twice[0][0]!r}, frame {twice[0][1]}"
            raise InputError("a window was added twice", where="starts", found=found)

    def _known(self, method: str | None) -> str:
        if not self.methods:
            raise InputError("nothing was measured", where="Tally", expected="one window or more")
        if method is not None and method not in self.methods:
            raise InputError("no such method", where="method", found=method, expected=", ".join(self.methods))
        return method or self.methods[0]

    def _rows(self) -> tuple[list[slice], Floats]:
        """Windows sorted by episode and time: the place of each episode, and (N, h, M S + 2)."""
        self._known(None)
        if self._ordered is None:
            names = np.concatenate([batch.episodes for batch in self._batches])
            starts = np.concatenate([batch.starts for batch in self._batches])
            order = np.lexsort((starts, names))
            columns = [np.concatenate([batch.values[method] for batch in self._batches]) for method in self.methods]
            columns.append(np.concatenate([batch.truth for batch in self._batches]))
            _, first, count = np.unique(names[order], return_index=True, return_counts=True)
            places = [slice(int(a), int(a + n)) for a, n in zip(first, count, strict=True)]
            self._ordered = places, np.concatenate(columns, axis=-1)[order]
            self._starts = starts[order]
        return self._ordered

    def _column(self, method: str, statistic: str = "mse") -> int:
        return self.methods.index(method) * len(_STATISTICS) + _STATISTICS.index(statistic)

    def _of(self, method: str, means: Floats) -> dict[str, Any]:
        rings, true_rings = (self._rings[name].value() / self.windows for name in (method, ""))

        def of(steps: slice) -> dict[str, float]:
            ratios = {name: float(values[0]) for name, values in self._ratios(method, means[None, steps]).items()}
            ratios["log_spectral"] = log_spectral_distance(rings[steps].mean(axis=0), true_rings[steps].mean(axis=0))
            return {name: ratios[name] for name in FIGURES if not math.isnan(ratios[name])}

        steps = [{"horizon": step + 1, **of(slice(step, step + 1))} for step in range(self.horizon)]
        return {**of(slice(None)), "horizons": steps}

    def _ratios(self, method: str, means: Floats) -> dict[str, Floats]:
        """Figures from means of statistics, (draws, steps, columns) -> figure -> (draws,)."""
        over = means.mean(axis=1)
        error, likeness, edges, high, total = (over[:, self._column(method, name)] for name in _STATISTICS)
        true_high, true_total = over[:, -2], over[:, -1]
        energy = [energy_ratio(a, b) for a, b in zip(high, true_high, strict=True)]
        share = [share_ratio(*four) for four in zip(high, total, true_high, true_total, strict=True)]
        return {
            "mse": error,
            "psnr": np.array([psnr_of(float(one)) for one in error]),
            "ssim": likeness,
            "gradient": edges,
            "spectral_energy": np.array(energy),
            "spectral_share": np.array(share),
        }

    def _draws(self, replicates: int | None = None) -> Draws | None:
        places, rows = self._rows()
        flat = rows.reshape(len(rows), -1)
        groups = [flat[place] for place in places]
        count = replicates or self._replicates
        return resample(groups, block=self._block or self._blocks(), replicates=count, seed=self._seed)

    def _drawn(self, draws: Draws) -> Floats:
        """(replicates, h, columns) means of each draw."""
        _, rows = self._rows()
        return (draws.sums / draws.counts[:, None]).reshape(-1, *rows.shape[1:])

    def _blocks(self) -> int:
        """The horizon divided by the usual distance of windows."""
        places, _ = self._rows()
        gaps = np.concatenate([np.diff(self._starts[place]) for place in places])
        return -(-self.horizon // max(1, int(np.median(gaps)))) if len(gaps) else 1

    def _interval(self, value: float, spread: Floats, draws: Draws) -> Interval:
        low, high = np.nanquantile(spread, [(1 - self.level) / 2, (1 + self.level) / 2])
        return Interval(value, float(low), float(high), self.level, draws.block, self.windows)
