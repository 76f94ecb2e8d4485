"""Figures of frames against scikit-image, loops and plain transforms; tallies, baselines, drift, structure."""

from __future__ import annotations

import itertools
import json
import math
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pipelines.errors import InputError
from pipelines.superres.metrics import ssim as ssim_of_255
from pipelines.world.baselines import CopyLast, LinearExtrapolation, MeanFrame
from pipelines.world.drift import DriftMeter, drift
from pipelines.world.metrics import (
    PSNR_CAP,
    frame_gradient,
    frame_mse,
    frame_ssim,
    gradient_error,
    mse,
    psnr,
    ssim,
    ssim_window,
    to_unit,
)
from pipelines.world.resampling import resample
from pipelines.world.spectra import ROUNDING_POWER, energy_ratio, log_spectral_distance, share_ratio, spectrum
from pipelines.world.structure import (
    effective_rank,
    feature_std,
    morans_i,
    place_share,
    spatial_share,
    structure,
)
from pipelines.world.tally import INTERVALS, Tally

Floats = NDArray[np.float64]


def drawn(seed: int, shape: tuple[int, ...], noise: float = 0.1) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    truth = rng.random(shape)
    return np.clip(truth + noise * rng.standard_normal(shape), 0, 1), truth


# ---- figures of frames -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(2, 3, 64, 64), (3, 1, 11, 11), (2, 1, 40, 13), (2, 3, 8, 20), (2, 1, 5, 6), (1, 1, 1, 3)]
)
def test_ssim_is_that_of_scikit_image_also_in_small_frames(shape: tuple[int, ...]) -> None:
    said, true = drawn(0, shape)
    window = ssim_window(*shape[-2:])
    expected = [
        structural_similarity(a, b, win_size=window, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                              data_range=1.0, channel_axis=0)
        for a, b in zip(said, true, strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(frame_ssim(said, true), expected, atol=1e-12)
    assert ssim(said, true) == pytest.approx(np.mean(expected), abs=1e-12)


def test_ssim_of_bytes_is_that_of_the_benchmarks_of_images() -> None:
    rng = np.random.default_rng(1)
    said, true = (rng.integers(0, 256, (1, 3, 20, 24), dtype=np.uint8) for _ in range(2))
    expected = ssim_of_255(np.moveaxis(said[0], 0, -1), np.moveaxis(true[0], 0, -1))
    assert ssim(said, true) == pytest.approx(expected, abs=1e-12)


def test_ssim_of_a_thousand_frames_is_fast() -> None:
    said, true = drawn(2, (1000, 1, 64, 64))
    before = time.process_time()
    frame_ssim(said, true)
    assert time.process_time() - before < 2


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_mse_and_psnr_are_over_all_values_together(dtype: Any) -> None:
    said, true = drawn(3, (2, 4, 3, 9, 7))
    said[0] = true[0]  # a mean of the PSNR of frames would be infinite
    if dtype is np.uint8:
        said, true = np.round(255 * said), np.round(255 * true)
    said, true = said.astype(dtype), true.astype(dtype)
    peak = 255.0 if dtype is np.uint8 else 1.0
    total = sum(((float(a) - float(b)) / peak) ** 2 for a, b in zip(said.ravel(), true.ravel(), strict=True))
    assert mse(said, true) == pytest.approx(total / said.size, rel=1e-12)
    expected = peak_signal_noise_ratio(true.astype(np.float64), said.astype(np.float64), data_range=peak)
    assert psnr(said, true) == pytest.approx(expected, rel=1e-12)


def test_psnr_is_capped_where_nothing_differs() -> None:
    _, true = drawn(4, (2, 1, 8, 8))
    assert psnr(true, true) == PSNR_CAP == psnr(true + 1e-7, true)
    assert psnr(true + 1e-4, true) == pytest.approx(80)


def test_gradient_error_is_that_of_loops() -> None:
    said, true = drawn(5, (2, 3, 5, 4))
    error = said - true
    for frame in range(2):
        across = [abs(error[frame, c, y, x + 1] - error[frame, c, y, x])
                  for c, y, x in itertools.product(range(3), range(5), range(3))]  # fmt: skip
        down = [abs(error[frame, c, y + 1, x] - error[frame, c, y, x])
                for c, y, x in itertools.product(range(3), range(4), range(4))]  # fmt: skip
        assert frame_gradient(said, true)[frame] == pytest.approx(np.mean(across) + np.mean(down), rel=1e-12)
    assert gradient_error(true + 0.3, true) == pytest.approx(0, abs=1e-12)
    assert gradient_error(np.zeros((1, 1, 1, 1)), np.ones((1, 1, 1, 1))) == 0


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(np.float64, (4, 2, 7, 12), elements=st.floats(0, 1)), st.integers(0, 99))
def test_figures_are_symmetric_bounded_and_do_not_depend_on_the_batch(truth: Floats, seed: int) -> None:
    said = np.random.default_rng(seed).random(truth.shape)
    for figure in (frame_mse, frame_ssim, frame_gradient):
        whole = figure(said, truth)
        np.testing.assert_array_equal(
            whole, np.concatenate([figure(a[None], b[None]) for a, b in zip(said, truth, strict=True)])
        )
        np.testing.assert_allclose(whole, figure(truth, said), atol=1e-12)
    assert (np.abs(frame_ssim(said, truth)) <= 1 + 1e-12).all()
    np.testing.assert_allclose(frame_ssim(truth, truth), 1, atol=1e-12)
    assert mse(truth, truth) == gradient_error(truth, truth) == 0


@pytest.mark.parametrize(
    ("said", "true", "words"),
    [
        (np.zeros((1, 1, 4, 4)), np.zeros((1, 1, 4, 5)), "cannot be compared"),
        (np.zeros((0, 1, 4, 4)), np.zeros((0, 1, 4, 4)), "cannot be compared"),
        (np.full((1, 1, 4, 4), np.nan), np.zeros((1, 1, 4, 4)), "predicted: frames hold values that are not finite"),
        (np.zeros((1, 1, 4, 4)), np.full((1, 1, 4, 4), np.inf), "true: frames hold values that are not finite"),
        (np.zeros((1, 1, 4, 4)), np.full((1, 1, 4, 4), 255.0), "another scale"),
        (np.zeros((1, 1, 4, 4), np.int64), np.zeros((1, 1, 4, 4)), "not frames"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_said(said: np.ndarray, true: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        mse(said, true)


def test_bytes_are_divided_by_255_and_floats_stay() -> None:
    assert to_unit(np.array([51], np.uint8)).dtype == np.float32
    assert to_unit(np.array([1.5])).tolist() == [1.5]
    with pytest.raises(InputError, match="another scale"):
        to_unit(np.array([1.5]), bounded=True)


# ---- spectra -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (2, 1, 12, 31), (3, 1, 7, 9), (1, 1, 2, 2)])
def test_spectrum_is_that_of_the_full_transform(shape: tuple[int, ...]) -> None:
    frames, _ = drawn(6, shape)
    height, width = shape[-2:]
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    found, count = spectrum(frames), min(height, width) // 2
    for frame in range(shape[0]):
        rings: list[list[float]] = [[] for _ in range(count)]
        high = total = 0.0
        for c in range(shape[1]):
            plane = frames[frame, c]
            middle = (plane * window).sum() / window.sum()
            power = np.abs(np.fft.fft2((plane - middle) * window)) ** 2 / (window**2).sum() / shape[1]
            for y, x in itertools.product(range(height), range(width)):
                radius = 2 * math.hypot(np.fft.fftfreq(height)[y], np.fft.fftfreq(width)[x])
                if radius == 0:
                    continue
                ring = max(1, math.floor(radius * count + 0.5))
                if ring <= count:
                    rings[ring - 1].append(power[y, x] * shape[1])
                total += power[y, x] / (height * width)
                high += power[y, x] / (height * width) * (radius > 0.25)
        np.testing.assert_allclose(found.rings[frame], [np.mean(ring) for ring in rings], rtol=1e-9, atol=1e-20)
        assert found.high[frame] == pytest.approx(high, rel=1e-9)
        assert found.total[frame] == pytest.approx(total, rel=1e-9)


def test_energy_is_the_windowed_variance_and_white_noise_is_flat() -> None:
    noise = 0.2 * np.random.default_rng(7).standard_normal((400, 1, 24, 24))
    found = spectrum(noise)
    np.testing.assert_allclose(found.rings.mean(0)[1:], 0.04, rtol=0.05)
    window = np.outer(np.hanning(26)[1:-1], np.hanning(26)[1:-1])
    gaps = (noise - (noise * window).sum((-2, -1), keepdims=True) / window.sum()) * window
    np.testing.assert_allclose(found.total, (gaps**2).sum((1, 2, 3)) / (window**2).sum(), rtol=1e-9)


def test_blur_noise_and_fading_show_in_the_ratios() -> None:
    from scipy.ndimage import gaussian_filter

    _, true = drawn(8, (6, 1, 32, 32))
    true = gaussian_filter(true, (0, 0, 1, 1))
    kinds = {
        "blurred": gaussian_filter(true, (0, 0, 1.5, 1.5)),
        "noisy": true + 0.1 * np.random.default_rng(0).standard_normal(true.shape),
        "faded": 0.5 + 0.5 * (true - 0.5),
    }
    goal = spectrum(true)
    energy, share, distance = {}, {}, {}
    for kind, frames in kinds.items():
        found = spectrum(frames)
        sums = found.high.mean(), found.total.mean(), goal.high.mean(), goal.total.mean()
        energy[kind], share[kind] = energy_ratio(sums[0], sums[2]), share_ratio(*sums)
        distance[kind] = log_spectral_distance(found.rings.mean(0), goal.rings.mean(0))
    assert energy["blurred"] < 0.5 < 1.5 < energy["noisy"]
    assert share["blurred"] < 0.8 < 1.05 < share["noisy"]
    assert energy["faded"] == pytest.approx(0.25)
    assert share["faded"] == pytest.approx(1)
    assert min(distance.values()) > 2


def test_log_spectral_distance_of_a_factor_is_its_decibels_and_faint_rings_do_not_count() -> None:
    rings = np.array([0.5, 0.01, 1e-4])
    assert log_spectral_distance(rings / 10, rings) == pytest.approx(10)
    assert log_spectral_distance(rings, rings / 10) == pytest.approx(10)
    assert log_spectral_distance([1e-30], [ROUNDING_POWER]) == 0
    with pytest.raises(InputError, match="cannot be compared"):
        log_spectral_distance([1.0], [1.0, 2.0])


def test_without_detail_in_the_truth_there_is_no_ratio() -> None:
    flat = spectrum(np.full((1, 1, 16, 16), 0.3))
    assert math.isnan(energy_ratio(0.1, float(flat.high[0])))
    assert math.isnan(share_ratio(0.1, 0.2, float(flat.high[0]), float(flat.total[0])))
    assert share_ratio(0.0, 0.0, 0.1, 0.2) == 0
    with pytest.raises(InputError, match="without a spectrum"):
        spectrum(np.zeros((1, 1, 1, 8)))


# ---- tally -------------------------------------------------------------------------------------------------------


def windows_of(
    seed: int = 0, count: int = 12, horizon: int = 3
) -> tuple[list[str], list[int], Floats, dict[str, Floats]]:
    said, true = drawn(seed, (count, horizon, 1, 12, 12))
    copied = np.repeat(np.random.default_rng(seed + 1).random((count, 1, 1, 12, 12)), horizon, axis=1)
    names = [("a", "b", "c")[place % 3] for place in range(count)]
    return names, [place // 3 for place in range(count)], true, {"model": said, "copy_last": copied}


def added(tally: Tally, order: list[int], size: int, parts: Any) -> Tally:
    names, starts, truth, rollouts = parts
    for first in range(0, len(order), size):
        some = order[first : first + size]
        tally.add([names[k] for k in some], [starts[k] for k in some], truth[some],
                  {name: frames[some] for name, frames in rollouts.items()})  # fmt: skip
    return tally


def numbers(found: Any) -> list[float]:
    if isinstance(found, dict):
        return [value for part in found.values() for value in numbers(part)]
    if isinstance(found, (list, tuple)):
        return [value for part in found for value in numbers(part)]
    return [found] if isinstance(found, (int, float)) else []


def test_tally_is_the_figures_of_all_windows_at_once() -> None:
    names, starts, truth, rollouts = windows_of()
    found = added(Tally(3), list(range(12)), 5, (names, starts, truth, rollouts)).figures()
    for figures, said in ((found, rollouts["model"]), (found["baselines"]["copy_last"], rollouts["copy_last"])):
        for steps, part in ((slice(None), figures), *((slice(k, k + 1), figures["horizons"][k]) for k in range(3))):
            assert part["mse"] == pytest.approx(mse(said[:, steps], truth[:, steps]), rel=1e-12)
            assert part["psnr"] == pytest.approx(psnr(said[:, steps], truth[:, steps]), rel=1e-12)
            assert part["ssim"] == pytest.approx(ssim(said[:, steps], truth[:, steps]), rel=1e-12)
            assert part["gradient"] == pytest.approx(gradient_error(said[:, steps], truth[:, steps]), rel=1e-12)
            one, two = (spectrum(frames[:, steps].reshape(-1, 1, 12, 12)) for frames in (said, truth))
            assert part["spectral_energy"] == pytest.approx(one.high.mean() / two.high.mean(), rel=1e-12)
            share = one.high.mean() / one.total.mean() / (two.high.mean() / two.total.mean())
            assert part["spectral_share"] == pytest.approx(share, rel=1e-12)
            distance = log_spectral_distance(one.rings.mean(0), two.rings.mean(0))
            assert part["log_spectral"] == pytest.approx(distance, rel=1e-9)
    assert [row["horizon"] for row in found["horizons"]] == [1, 2, 3]
    assert (found["windows"], found["frames"], found["episodes"]) == (12, 36, 3)
    json.dumps(found)


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(12)), st.integers(1, 12))
def test_tally_does_not_depend_on_order_or_batches(order: list[int], size: int) -> None:
    parts = windows_of()
    straight, mixed = added(Tally(3), list(range(12)), 12, parts), added(Tally(3), order, size, parts)
    np.testing.assert_allclose(numbers(straight.figures()), numbers(mixed.figures()), rtol=1e-12)
    np.testing.assert_allclose(numbers(straight.intervals()), numbers(mixed.intervals()), rtol=1e-12)


def test_intervals_draw_whole_episodes_as_an_independent_draw_does() -> None:
    names, starts, truth, rollouts = windows_of(3, count=11)
    tally = added(Tally(3, replicates=500, seed=4), list(range(11)), 4, (names, starts, truth, rollouts))
    errors = ((rollouts["model"] - truth) ** 2).mean((2, 3, 4))  # (N, h)
    groups = [[errors[k] for k in range(11) if names[k] == name] for name in "abc"]
    often = np.random.default_rng(4).multinomial(3, [1 / 3] * 3, size=500)
    replicates = []
    for times in often:
        rows = [row for group, count in zip(groups, times, strict=True) for row in group * int(count)]
        replicates.append(np.mean(rows, axis=0))
    found = tally.intervals()
    drawn_means = np.array(replicates)
    np.testing.assert_allclose(found["mse"][:3], [errors.mean(), *np.quantile(drawn_means.mean(1), [0.025, 0.975])])
    last = found["horizons"][2]["mse"]
    np.testing.assert_allclose(last[:3], [errors[:, 2].mean(), *np.quantile(drawn_means[:, 2], [0.025, 0.975])])
    low, high = np.quantile(drawn_means.mean(1), [0.025, 0.975])
    assert found["psnr"].lo == pytest.approx(-10 * math.log10(high), rel=1e-3)
    assert found["psnr"].hi == pytest.approx(-10 * math.log10(low), rel=1e-3)
    assert set(found) == {*INTERVALS, "horizons"}
    assert any("3 of them; with so few" in note for note in tally.notes())


def test_one_episode_is_drawn_in_blocks_that_are_as_long_as_windows_overlap() -> None:
    _, _, truth, rollouts = windows_of(5, count=40, horizon=4)
    tally = Tally(4)
    tally.add(["film"] * 40, list(range(0, 80, 2)), truth, rollouts)
    assert tally.intervals()["mse"].block == 2
    assert any("blocks of 2 windows of the one episode" in note for note in tally.notes())
    one = Tally(4)
    one.add(["film"], [0], truth[:1], {"model": truth[:1]})
    assert one.intervals() == one.differences() == {}
    assert any("one window" in note for note in one.notes())


def test_blocks_are_rows_that_follow_each_other_and_the_last_is_cut() -> None:
    rows = np.random.default_rng(15).standard_normal((11, 2))
    draws = resample([rows], block=4, replicates=20, seed=2)
    assert draws is not None
    for sums, starts in zip(draws.sums, np.random.default_rng(2).integers(0, 8, (20, 3)), strict=True):
        places = [start + step for start in starts for step in range(4)][:11]
        np.testing.assert_allclose(sums, rows[places].sum(0), rtol=1e-9)
    assert (draws.counts == 11).all()
    half = resample([rows], block=99)
    assert half is not None
    assert half.block == 5
    with pytest.raises(InputError, match="no such bootstrap"):
        resample([rows], block=0)
    with pytest.raises(InputError, match="nothing to draw from"):
        resample([rows[:0]])


def test_blocks_cover_what_single_windows_do_not() -> None:
    rng = np.random.default_rng(6)
    hits = {1: 0, 16: 0}
    for _ in range(150):
        noise = rng.standard_normal(215)
        series = np.convolve(noise, np.ones(16) / 16, "valid")[:, None]  # windows that share 15 of 16 frames
        for block in hits:
            draws = resample([series], block=block, replicates=200)
            assert draws is not None
            low, high = np.quantile(draws.sums[:, 0] / draws.counts, [0.025, 0.975])
            hits[block] += bool(low < 0 < high)
    assert hits[1] < 0.7 * 150 < 0.8 * 150 < hits[16]


def test_difference_to_a_baseline_is_paired() -> None:
    names, starts, truth, rollouts = windows_of(7)
    rollouts["copy_last"] = rollouts["model"] + 0.5 * (rollouts["model"] - truth)  # worse by 1.25 of the error
    tally = added(Tally(3), list(range(12)), 12, (names, starts, truth, rollouts))
    found, own = tally.differences()["copy_last"], tally.intervals()
    assert found["all"].value == pytest.approx(-1.25 * own["mse"].value)
    assert found["all"].lo == pytest.approx(-1.25 * own["mse"].hi)
    assert len(found["horizons"]) == 3
    assert found["horizons"][0].hi < 0
    assert tally.differences("psnr")["copy_last"]["all"].value == pytest.approx(10 * math.log10(2.25))
    with pytest.raises(InputError, match="no such figure"):
        tally.differences("log_spectral")


def test_tally_says_what_limits_its_figures() -> None:
    truth = np.full((2, 2, 1, 8, 8), 0.5)
    off = truth.copy()
    off[:, 1] = 1.25
    tally = Tally(2)
    tally.add("ab", [0, 0], truth, {"model": off})
    notes = " | ".join(tally.notes())
    assert "PSNR is capped at 100 dB" in notes
    assert "at 1 of 2 steps, the first 1:" in notes
    assert "2 frames hold values outside [0, 1]" in notes
    assert "one of 7 x 7" in notes
    assert "no spectral ratios" in notes
    figures = tally.figures()
    assert "spectral_energy" not in figures
    assert figures["horizons"][0]["psnr"] == PSNR_CAP


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"episodes": ["a", "a"]}, "added twice"),
        ({"starts": [0]}, "do not fit"),
        ({"truth": np.zeros((2, 3, 1, 8, 8))}, "truth does not fit"),
        ({"rollouts": {"other": np.zeros((2, 2, 1, 8, 8))}}, "other methods"),
        ({"rollouts": {"model": np.zeros((2, 2, 1, 8, 9))}}, "model: frames that cannot be compared"),
        ({"rollouts": {"model": np.full((2, 2, 1, 8, 8), np.nan)}}, "model, predicted: .*not finite"),
        ({"truth": np.zeros((2, 2, 1, 9, 9))}, "another size"),
    ],
)
def test_windows_that_do_not_fit_leave_the_tally_as_it_was(change: dict[str, Any], words: str) -> None:
    tally, truth = Tally(2), np.zeros((1, 2, 1, 8, 8))
    tally.add(["z"], [0], truth, {"model": truth + 0.1})
    before = tally.figures()
    good: dict[str, Any] = {"episodes": ["a", "b"], "starts": [0, 0], "truth": np.zeros((2, 2, 1, 8, 8))}
    good["rollouts"] = {"model": good["truth"]}
    with pytest.raises(InputError, match=words):
        tally.add(**{**good, **change})
    assert tally.figures() == before
    with pytest.raises(InputError, match="nothing was measured"):
        Tally(2).figures()
    with pytest.raises(InputError, match="no figures with these settings"):
        Tally(0)


# ---- baselines ---------------------------------------------------------------------------------------------------


def test_baselines_are_what_they_say() -> None:
    context = np.random.default_rng(8).integers(0, 256, (3, 4, 1, 5, 6), dtype=np.uint8)
    copied = CopyLast().rollout(context, 7)
    assert copied.shape == (3, 7, 1, 5, 6)
    assert copied.dtype == np.float32
    for step in range(7):
        np.testing.assert_array_equal(copied[:, step], context[:, -1] / np.float32(255))
    line = LinearExtrapolation().rollout(context.astype(np.float32) / 255, 3)
    last, before = context[:, -1] / 255, context[:, -2] / 255
    np.testing.assert_allclose(line[:, 2], np.clip(last + 3 * (last - before), 0, 1), atol=1e-6)
    with pytest.raises(InputError, match="two frames"):
        LinearExtrapolation().rollout(context[:, :1], 3)
    for wrong, words in ((0, "no step"), (-1, "no step")):
        with pytest.raises(InputError, match=words):
            CopyLast().rollout(context, wrong)
    with pytest.raises(InputError, match="not context frames"):
        CopyLast().rollout(context[0], 1)


class Generated:
    """Frames that are made when they are read, so that a film can be longer than memory."""

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        self.shape = shape

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        return np.broadcast_to((np.arange(start, stop) % 200).astype(np.uint8)[:, None, None, None],
                               (stop - start, *self.shape[1:]))  # fmt: skip


def test_mean_frame_is_exact_and_its_memory_does_not_grow() -> None:
    films = [
        np.random.default_rng(seed).integers(0, 256, (n, 6, 4, 3), dtype=np.uint8) for seed, n in ((0, 5), (1, 17))
    ]
    mean = MeanFrame.fit(films)
    expected = np.concatenate(films).astype(np.float64).mean(0).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(mean.frame, expected, rtol=1e-15)
    assert mean.count == 22
    np.testing.assert_allclose(mean.rollout(np.zeros((2, 1, 3, 6, 4)), 3)[1, 2], expected, rtol=1e-6)
    tracemalloc.start()
    long = MeanFrame.fit([Generated((20_000, 128, 128, 3))])  # 983 MB as bytes
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(long.frame, 99.5 / 255, rtol=1e-12)
    assert peak < 40e6


def test_mean_frame_refuses_what_has_no_mean() -> None:
    small, other = np.zeros((2, 4, 4, 1), np.uint8), np.zeros((2, 4, 5, 1), np.uint8)
    with pytest.raises(InputError, match="film 1 of the mean frame"):
        MeanFrame.fit([small, other])
    with pytest.raises(InputError, match="no mean of no frame"):
        MeanFrame.fit([])
    with pytest.raises(InputError, match="no mean of no frame"):
        MeanFrame.fit([small[:0]])
    with pytest.raises(InputError, match="Expected: uint8"):
        MeanFrame.fit([small.astype(np.float32)])
    with pytest.raises(InputError, match="another size"):
        MeanFrame.fit([small]).rollout(np.zeros((1, 1, 1, 4, 5)), 1)


# ---- drift -------------------------------------------------------------------------------------------------------


def moving(steps: int = 16, seed: int = 9) -> tuple[Floats, Floats]:
    """A texture that moves on by a pixel a step: its start and what follows."""
    frame = np.random.default_rng(seed).random((2, 1, 16, 16))
    return frame, np.stack([np.roll(frame, step, axis=-1) for step in range(1, steps + 1)], axis=1)


def test_drift_is_that_of_loops() -> None:
    start, truth = moving(6)
    rollout = np.clip(truth + 0.1 * np.random.default_rng(0).standard_normal(truth.shape), 0, 1)
    found = drift(rollout, start, truth)
    assert found.to_truth is not None
    assert found.copy_to_truth is not None
    assert found.true_change is not None
    for step in range(6):
        before = rollout[:, step - 1] if step else start
        true_before = truth[:, step - 1] if step else start
        assert found.to_truth[step] == pytest.approx(math.sqrt(((rollout[:, step] - truth[:, step]) ** 2).mean()))
        assert found.from_start[step] == pytest.approx(math.sqrt(((rollout[:, step] - start) ** 2).mean()))
        assert found.copy_to_truth[step] == pytest.approx(math.sqrt(((start - truth[:, step]) ** 2).mean()))
        assert found.change[step] == pytest.approx(((rollout[:, step] - before) ** 2).mean())
        assert found.true_change[step] == pytest.approx(((truth[:, step] - true_before) ** 2).mean())
        assert found.contrast[step] == pytest.approx(np.mean([rollout[b, step, 0].var() for b in range(2)]))
    assert found.end == "moves on"
    assert found.better_until == 6
    json.dumps(found.to_dict())


@pytest.mark.parametrize("with_truth", [True, False])
def test_how_rollouts_end(with_truth: bool) -> None:
    start, truth = moving()
    goal = truth if with_truth else None
    mean = start.mean((2, 3), keepdims=True)[:, None]
    slower = 0.5 ** np.arange(16).reshape(1, -1, 1, 1, 1)
    flicker = 40 * (truth - 0.5) * np.linspace(0.02, 1, 16).reshape(1, -1, 1, 1, 1) + 0.5
    assert drift(truth, start, goal).end == "moves on"
    assert drift(np.repeat(start[:, None], 16, axis=1), start, goal).end == "freezes"
    assert drift(start[:, None] + (truth - start[:, None]) * 0 + slower * 0.5, start, goal).end == "freezes"
    assert drift(mean + (truth - mean) * slower, start, goal).end == "fades and freezes"
    assert drift(mean + (truth - mean) * 0.3, start, goal).end == "fades"
    assert drift(flicker, start, goal).blows_up


def test_a_still_truth_does_not_make_a_rollout_frozen_but_a_moving_one_wild() -> None:
    start, rollout = moving()
    still = np.repeat(start[:, None], 16, axis=1)
    assert drift(still, start, still).end == "moves on"
    assert drift(rollout, start, still).end == "blows up"
    assert drift(still, start, still).better_until == 0


def test_values_that_are_not_finite_are_counted_and_blow_up() -> None:
    start, rollout = moving(8)
    rollout[0, 3, 0, 0, 0] = np.nan
    rollout[1, 4] = np.inf
    found = drift(rollout, start, moving(8)[1])
    assert found.not_finite.tolist() == [0, 0, 0, 1, 256, 0, 0, 0]
    assert found.blows_up
    assert found.to_truth is not None
    assert np.isinf(found.to_truth[3:5]).all()
    json.dumps(found.to_dict(), allow_nan=False)


def test_meter_says_what_does_not_fit() -> None:
    start, rollout = moving(2)
    meter = DriftMeter(start)
    with pytest.raises(InputError, match="no step"):
        meter.result()
    with pytest.raises(InputError, match="another size"):
        meter.add(rollout[:1, 0])
    meter.add(rollout[:, 0], rollout[:, 0])
    with pytest.raises(InputError, match="some steps only"):
        meter.add(rollout[:, 1])
    with pytest.raises(InputError, match="not rollouts"):
        drift(rollout[0], start)
    with pytest.raises(InputError, match="not frames"):
        DriftMeter(start[0])


# ---- structure of features ---------------------------------------------------------------------------------------


def test_effective_rank_is_the_entropy_of_singular_values() -> None:
    rng = np.random.default_rng(10)
    left, right = np.linalg.qr(rng.standard_normal((40, 4)))[0], np.linalg.qr(rng.standard_normal((4, 4)))[0]
    sizes = np.array([4.0, 2.0, 1.0, 1.0])
    entropy = -sum(p * math.log(p) for p in sizes / 8)
    assert effective_rank(left * sizes @ right.T, centre=False) == pytest.approx(math.exp(entropy), rel=1e-12)
    assert effective_rank(np.outer(rng.random(30), rng.random(5)), centre=False) == pytest.approx(1, abs=1e-9)
    assert effective_rank(rng.standard_normal((5000, 8))) == pytest.approx(8, rel=1e-2)
    assert effective_rank(np.full((50, 3), 0.1)) == 0
    assert effective_rank(np.full((50, 3), 0.1), centre=False) == pytest.approx(1)
    assert effective_rank(np.zeros((2, 3, 2, 2))) == 0


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 4), st.integers(1, 4)),
               elements=st.floats(-1e3, 1e3)),
    st.floats(0.1, 100),
)  # fmt: skip
def test_effective_rank_never_exceeds_the_channels_and_keeps_scale(features: Floats, factor: float) -> None:
    rank = effective_rank(features)
    assert 0 <= rank <= features.shape[1] * (1 + 1e-12)
    assert rank <= max(1, features[:, 0].size) * (1 + 1e-12)
    assert effective_rank(features * 2.0 ** round(math.log2(factor))) == pytest.approx(rank, rel=1e-9)


@pytest.mark.parametrize("size", [(4, 5), (1, 7), (3, 3)])
def test_morans_i_is_that_of_its_weight_matrix(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(11)
    maps = rng.standard_normal((2, 3, *size))
    places = list(itertools.product(*map(range, size)))
    weights = np.array([[abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1 for b in places] for a in places], float)
    scores = []
    for one in maps.reshape(6, -1):
        gap = one - one.mean()
        scores.append(len(places) / weights.sum() * gap @ weights @ gap / (gap @ gap))
    assert morans_i(maps) == pytest.approx(np.mean(scores), rel=1e-12)


def test_morans_i_of_noise_smooth_and_constant_maps() -> None:
    rng = np.random.default_rng(12)
    assert morans_i(rng.standard_normal((400, 5, 6, 6))) == pytest.approx(-1 / 35, abs=5e-3)
    smooth = np.add.outer(np.arange(16.0), np.arange(16.0))[None, None]
    assert morans_i(smooth) > 0.85
    assert math.isnan(morans_i(np.full((2, 2, 4, 4), 0.1)))
    both = np.concatenate([smooth, np.full_like(smooth, 0.1)])
    assert morans_i(both) == morans_i(smooth)
    with pytest.raises(InputError, match="no neighbours"):
        morans_i(np.zeros((2, 2, 1, 1)))


def test_shares_of_variance_add_up() -> None:
    rng = np.random.default_rng(13)
    background, brightness = rng.standard_normal((1, 3, 6, 6)), rng.standard_normal((50, 3, 1, 1))
    maps = background + brightness + 0.1 * rng.standard_normal((50, 3, 6, 6))
    between_maps = maps.mean((2, 3)).var(0).sum() / maps.var((0, 2, 3)).sum()
    assert spatial_share(maps) == pytest.approx(1 - between_maps, rel=1e-12)
    assert place_share(maps) <= spatial_share(maps)
    assert spatial_share(np.broadcast_to(brightness, maps.shape)) == pytest.approx(0, abs=1e-12)
    assert spatial_share(np.broadcast_to(background, maps.shape)) == pytest.approx(1)
    assert place_share(np.broadcast_to(background, maps.shape)) == pytest.approx(1)
    assert place_share(rng.standard_normal((200, 2, 5, 5))) < 0.02
    assert math.isnan(spatial_share(np.full((3, 2, 4, 4), 0.1)))


def test_structure_is_all_scores_and_says_what_is_not_features() -> None:
    maps = np.random.default_rng(14).standard_normal((5, 4, 3, 3)) * np.array([1, 2, 3, 4]).reshape(1, 4, 1, 1)
    found = structure(maps)
    assert found.feature_std == pytest.approx(np.mean([maps[:, c].std() for c in range(4)])) == feature_std(maps)
    assert found.effective_rank == effective_rank(np.moveaxis(maps, 1, -1).reshape(-1, 4)) < 4
    assert (found.channels, found.maps, found.morans_i) == (4, 5, morans_i(maps))
    assert math.isnan(structure(maps[..., :1, :1]).morans_i)
    for wrong in (maps[0, 0, 0], maps[:0], maps * np.nan):
        with pytest.raises(InputError, match="features"):
            structure(wrong)
