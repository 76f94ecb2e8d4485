"""Block bootstrap: it covers the truth for dependent errors where a plain bootstrap does not."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.errors import InputError
from pipelines.evaluation.bootstrap import block_bootstrap, median_of_seeds, paired_difference


def moving_average(rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    """Errors of overlapping windows: a moving mean of independent squares with mean 1."""
    squares = rng.normal(size=count + width - 1) ** 2
    return np.convolve(squares, np.full(width, 1 / width), "valid")


def test_blocks_cover_the_true_mean_of_overlapping_windows_and_single_windows_do_not() -> None:
    width, trials = 24, 200
    hits = {1: 0, 2 * width: 0}
    for trial in range(trials):
        errors = moving_average(np.random.default_rng(trial), 960, width)
        for block in hits:
            interval = block_bootstrap(errors, block, level=0.9, replicates=200, seed=trial)
            hits[block] += interval.lo <= 1.0 <= interval.hi
    assert hits[2 * width] / trials > 0.78
    assert hits[1] / trials < 0.5


def test_same_seed_same_interval_and_the_mean_is_exact() -> None:
    errors = np.random.default_rng(3).random(101)
    first, second = block_bootstrap(errors, 10, seed=5), block_bootstrap(errors, 10, seed=5)
    assert first == second != block_bootstrap(errors, 10, seed=6)
    assert first.value == errors.mean()
    assert first.lo < first.value < first.hi
    assert (first.block, first.windows) == (10, 101)


def test_block_of_one_is_the_plain_bootstrap() -> None:
    errors = np.random.default_rng(4).normal(size=400)
    interval = block_bootstrap(errors, 1, level=0.95, replicates=4000)
    half = 1.96 * errors.std() / 20
    assert interval.hi - interval.lo == pytest.approx(2 * half, rel=0.08)


def test_unobserved_windows_are_left_out_and_long_blocks_are_cut_to_half() -> None:
    interval = block_bootstrap([1.0, np.nan, 3.0, 5.0, 7.0], block=96)
    assert (interval.value, interval.windows, interval.block) == (4.0, 4, 2)
    assert block_bootstrap([2.0], block=96).lo == 2.0


def test_paired_difference_sees_a_small_gain_that_two_intervals_hide() -> None:
    rng = np.random.default_rng(5)
    hard = moving_average(rng, 600, 24)
    model, baseline = hard, hard + 0.02 + 0.01 * rng.normal(size=600)
    gain = paired_difference(model, baseline, 24)
    assert gain.hi < 0
    apart = block_bootstrap(model, 24), block_bootstrap(baseline, 24)
    assert apart[0].hi > apart[1].lo
    with pytest.raises(InputError, match="same windows"):
        paired_difference(model, baseline[1:], 24)


@pytest.mark.parametrize("bad", [{"block": 0}, {"level": 1.0}, {"replicates": 1}])
def test_bad_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match="settings do not fit"):
        block_bootstrap([1.0, 2.0], **({"block": 1} | bad))  # type: ignore[arg-type]


def test_no_window_is_refused() -> None:
    with pytest.raises(InputError, match="no interval"):
        block_bootstrap([np.nan], 1)
    with pytest.raises(InputError, match="no seed"):
        median_of_seeds([])


def test_median_of_seeds_keeps_each() -> None:
    summary = median_of_seeds([0.4, 0.3, 0.5])
    assert (summary.median, summary.lowest, summary.highest, summary.each) == (0.4, 0.3, 0.5, (0.4, 0.3, 0.5))
