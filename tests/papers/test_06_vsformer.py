"""VSFormer's parts against oracles: matrix profile, planted motif, priors, attention, tokens (arXiv 2412.16515)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from core_attention import MechanismError, build
from pipelines.classify import motifs as found_motifs
from pipelines.classify.examples import loss
from pipelines.classify.models.vsformer import VSFormer
from pipelines.classify.motifs import (
    cached_motifs,
    find_motifs,
    match,
    matrix_profile,
    motif_length,
    normalised,
    pick,
)
from pipelines.classify.tokens import Tokeniser, interval_statistics, intervals, shape_priors, value_priors
from pipelines.errors import ConfigError, InputError


def brute_profile(series: np.ndarray, w: int) -> np.ndarray:
    """The definition: every window against every other that is at least a quarter of a motif away."""
    windows = np.lib.stride_tricks.sliding_window_view(series, w)
    z = (windows - windows.mean(1, keepdims=True)) / windows.std(1, keepdims=True)
    distances = np.sqrt(np.maximum(((z[:, None] - z[None]) ** 2).sum(-1), 0))
    near = np.abs(np.subtract.outer(np.arange(len(z)), np.arange(len(z)))) <= int(np.ceil(w / 4))
    distances[near | np.isnan(distances)] = np.inf
    return distances.min(1)


def planted(rng: np.random.Generator, *, noise_variable: bool = True) -> tuple[list[np.ndarray], np.ndarray]:
    """Thirty series of noise, each with its class's own wave somewhere in variable 0; variable 1 is noise."""
    wave = {0: np.sin(np.linspace(0, 2 * np.pi, 12)), 1: np.sign(np.sin(np.linspace(0, 4 * np.pi, 12)))}
    series, labels = [], np.arange(30) % 2
    for label in labels:
        one = 0.25 * rng.normal(size=(2 if noise_variable else 1, 60)).astype(np.float32)
        start = int(rng.integers(0, 48))
        one[0, start : start + 12] += 2 * wave[int(label)]
        series.append(one.astype(np.float32))
    return series, labels


# Motifs ---------------------------------------------------------------------------------------------------------------


def test_the_matrix_profile_is_that_of_brute_force() -> None:
    series = np.random.default_rng(0).normal(size=300).cumsum()
    np.testing.assert_allclose(matrix_profile(series, 14), brute_profile(series, 14), atol=1e-6)


def test_windows_across_a_gap_have_no_neighbour() -> None:
    series = np.random.default_rng(1).normal(size=80)
    series[40] = np.nan
    profile = matrix_profile(series, 8)
    assert np.isinf(profile[33:41]).all()
    assert np.isfinite(np.delete(profile, range(33, 41))).all()


def test_a_planted_motif_is_found_in_its_class_and_has_the_best_prior() -> None:
    series, labels = planted(np.random.default_rng(3))
    motifs = find_motifs(series, labels, length=12, count=1)
    assert len(motifs) == 4  # classes x variables
    waves = normalised(
        np.stack([np.sin(np.linspace(0, 2 * np.pi, 12)), np.sign(np.sin(np.linspace(0, 4 * np.pi, 12)))])
    )
    priors = shape_priors(match(motifs, series), motifs, labels)
    for label in (0, 1):
        [own] = np.flatnonzero((motifs.label == label) & (motifs.variable == 0))
        # The window of smallest distance may begin a step or two beside the wave: compare at the best shift.
        wide = np.pad(waves[label], 4)
        likeness = max(float(normalised(wide[s : s + 12][None])[0] @ motifs.values[own]) / 12 for s in range(9))
        assert likeness > 0.8
    noise = priors[motifs.variable == 1]
    assert priors[motifs.variable == 0].min() > 3 * max(noise.max(), 0.02)
    assert noise.max() < 0.1


def test_motifs_stand_apart_and_ties_go_to_the_first() -> None:
    assert pick(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0]), 3, 4) == [0, 2, 4]
    assert pick(np.array([np.inf, np.inf]), 2, 4) == []


@pytest.mark.parametrize(("lengths", "expected"), [([100] * 3, 14), ([7, 12, 29], 5), ([4, 90], 4)])
def test_the_length_of_a_motif_follows_the_series(lengths: list[int], expected: int) -> None:
    assert motif_length(lengths) == expected


def test_impossible_motifs_are_refused() -> None:
    with pytest.raises(InputError, match=r"too short to have shapes. Found: at most 2 steps"):
        motif_length([2, 2])
    with pytest.raises(ConfigError, match=r"arch.motif: no such motif length. Found: 40. Expected: 3 to 30"):
        motif_length([30, 20], 40)
    short = [np.zeros((1, 4), np.float32), np.zeros((1, 30), np.float32)]
    with pytest.raises(InputError, match="no training series of class 0 is as long as a motif"):
        find_motifs(short, np.array([0, 1]), length=8)
    with pytest.raises(InputError, match="every window of 8 steps is constant or has a gap"):
        find_motifs([np.ones((1, 30), np.float32)] * 2, np.array([0, 1]), length=8)


def test_constant_variables_and_a_single_example_are_taken() -> None:
    rng = np.random.default_rng(0)
    series = [np.stack([np.ones(20), rng.normal(size=20)]).astype(np.float32) for _ in range(3)]
    motifs = find_motifs(series, np.array([0, 0, 1]), length=6, count=1)
    assert set(motifs.variable.tolist()) == {1}
    assert set(motifs.label.tolist()) == {0, 1}


def test_matches_skip_gaps_and_short_series() -> None:
    motifs = find_motifs([np.sin(np.arange(40.0))[None].astype(np.float32)], np.array([0]), length=8, count=1)
    gap = np.sin(np.arange(30.0))[None].astype(np.float32)
    gap[0, 10] = np.nan
    found = match(motifs, [gap, gap[:, :5]])
    assert found.start[1].tolist() == [-1]
    assert np.isnan(found.distance[1]).all()
    assert not 3 <= found.start[0, 0] <= 10
    assert found.distance[0, 0] < 1.0


def test_the_search_is_done_once_for_equal_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINES_CACHE", str(tmp_path))
    series, labels = planted(np.random.default_rng(5), noise_variable=False)
    first = cached_motifs(series, labels, length=12, count=2)
    [file] = (tmp_path / "motifs").iterdir()

    def search(*_: object, **__: object) -> None:
        raise AssertionError("searched again")

    monkeypatch.setattr(found_motifs, "find_motifs", search)
    again = cached_motifs(series, labels, length=12, count=2)
    np.testing.assert_array_equal(first.values, again.values)
    monkeypatch.undo()
    monkeypatch.setenv("PIPELINES_CACHE", str(tmp_path))
    file.write_bytes(file.read_bytes()[:100])  # cut short: made anew
    np.testing.assert_array_equal(cached_motifs(series, labels, length=12, count=2).values, first.values)
    series[0][0, 0] += 1
    cached_motifs(series, labels, length=12, count=2)
    assert len(list((tmp_path / "motifs").iterdir())) == 2


# Values and priors ----------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 40), st.integers(1, 3), st.integers(0, 10_000))
def test_interval_statistics_are_those_of_numpy(steps: int, variables: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = rng.normal(size=(variables, steps)).astype(np.float32)
    one[rng.random(one.shape) < 0.2] = np.nan
    values, seen = interval_statistics([one])
    shares = intervals()
    for v in range(variables):
        for i, (begin, end) in enumerate(np.round(shares * steps).astype(int)):
            part = one[v, begin:end]
            known = ~np.isnan(part)
            got = values[0, v * len(shares) + i]
            assert seen[0, v * len(shares) + i] == known.any()
            if known.sum() >= 2:
                assert got[:2] == pytest.approx([part[known].mean(), part[known].std()], abs=1e-4)
                slope = np.polyfit(np.flatnonzero(known), part[known].astype(float), 1)[0]
                assert got[2] == pytest.approx(slope * (end - begin - 1), abs=1e-3)


def test_a_prior_of_noise_is_about_zero_and_of_a_telling_interval_large() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    series = [rng.normal(size=(2, 40)).astype(np.float32) for _ in labels]
    for one, label in zip(series, labels, strict=True):
        one[0, 20:] += 3 * label
    statistics, seen = interval_statistics(series)
    priors = value_priors(statistics, seen, labels)
    places = intervals()
    late = np.flatnonzero(places[:, 0] >= 0.5)
    early = np.flatnonzero(places[:, 1] <= 0.5)
    assert priors[late].min() > 0.25
    assert priors[early].max() < 0.12
    assert priors[len(places) :].max() < 0.12  # variable 1 is noise
    assert value_priors(statistics, seen, np.zeros(60, int)).max() == 0.0


def test_tokens_are_capped_by_prior_and_restored_alike() -> None:
    series, labels = planted(np.random.default_rng(7))
    tokeniser = Tokeniser.fit(series, labels, length=12, count=3, most=5)
    assert len(tokeniser.motifs) == len(tokeniser.value_token) == 5
    assert tokeniser.shape_prior.max() == 1.0
    assert any("5 of 12 with the largest priors" in note for note in tokeniser.notes)
    assert set(tokeniser.motifs.variable.tolist()) == {0}
    twin = Tokeniser.restored(tokeniser.arrays(), variables=2, classes=2)
    for name, value in tokeniser(series[:4]).items():
        np.testing.assert_array_equal(value, twin(series[:4])[name])


# Attention and model --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["product", "log"])
@pytest.mark.parametrize("pairs", ["both", "key"])
def test_without_a_prior_it_is_multi_head_attention(form: str, pairs: str) -> None:
    torch.manual_seed(0)
    ours = build("prior_enhanced", 16, 4, form=form, pairs=pairs)
    theirs = nn.MultiheadAttention(16, 4, batch_first=True)
    state = ours.state_dict()
    with torch.no_grad():
        parts = ("query", "key", "value")
        theirs.in_proj_weight.copy_(torch.cat([state[f"{part}_projection.weight"] for part in parts]))
        theirs.in_proj_bias.copy_(torch.cat([state[f"{part}_projection.bias"] for part in parts]))
        theirs.out_proj.weight.copy_(state["out_projection.weight"])
        theirs.out_proj.bias.copy_(state["out_projection.bias"])
    x, mask = torch.randn(3, 7, 16), torch.rand(3, 7) > 0.3
    mask[:, 0] = True
    expected = theirs(x, x, x, key_padding_mask=~mask, need_weights=False)[0]
    torch.testing.assert_close(ours(x, prior=torch.ones(3, 7), mask=mask).y, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pairs", ["both", "key"])
def test_priors_weigh_as_the_equation_says(pairs: str) -> None:
    torch.manual_seed(1)
    x, a = torch.randn(2, 6, 16), torch.rand(2, 6)
    P = (a[:, :, None] * a[:, None, :]).sqrt() if pairs == "both" else a[:, None, :].expand(2, 6, 6)
    for form in ("product", "log"):
        mixer = build("prior_enhanced", 16, 4, form=form, pairs=pairs, floor=1e-6)
        q, k, v = (t.transpose(1, 2) for t in mixer.project(x))
        scores = q @ k.mT / 2
        scores = scores * P[:, None] if form == "product" else scores + P[:, None].clamp_min(1e-12).log()
        expected = mixer.merge((scores.softmax(-1) @ v).transpose(1, 2))
        out = mixer(x, prior=a, maps=True)
        torch.testing.assert_close(out.y, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(out.aux["maps"], scores.softmax(-1), atol=1e-5, rtol=1e-5)


def test_a_sample_of_padding_alone_gives_the_bias_and_a_finite_gradient() -> None:
    for form in ("product", "log"):
        mixer = build("prior_enhanced", 8, 2, form=form)
        x = torch.randn(2, 4, 8, requires_grad=True)
        y = mixer(x, prior=torch.rand(2, 4), mask=torch.tensor([[True] * 4, [False] * 4])).y
        torch.testing.assert_close(y[1], mixer.out_projection.bias.expand(4, 8))
        assert torch.autograd.grad(y.sum(), x)[0].isfinite().all()


def test_wrong_options_of_the_attention_are_refused() -> None:
    for options in ({"form": "sum"}, {"pairs": "none"}, {"floor": 0.0}, {"dropout": 1.0}):
        with pytest.raises(MechanismError, match="prior_enhanced"):
            build("prior_enhanced", 16, 4, **options)
    with pytest.raises(MechanismError, match=r"prior has shape \(2, 3\), expected \(2, 5\)"):
        build("prior_enhanced", 16, 4)(torch.zeros(2, 5, 16), prior=torch.ones(2, 3))


@pytest.mark.parametrize("attention", ["prior_enhanced", "softmax", "legendre"])
def test_the_model_takes_any_mixer_and_ignores_missing_tokens(attention: str) -> None:
    series, labels = planted(np.random.default_rng(0))
    tokeniser = Tokeniser.fit(series, labels, length=12, count=1)
    torch.manual_seed(0)
    model = VSFormer(tokeniser.describe(), 12, 2, 2, attention=attention, d_model=16, d_ff=16, layers=1).eval()
    series[0] = series[0][:, :8]  # shorter than a motif
    batch = {name: torch.from_numpy(value) for name, value in tokeniser(series[:4]).items()}
    assert not batch["shape_valid"][0].any()
    logits = model(**batch)
    assert logits.shape == (4, 2)
    assert logits.isfinite().all()
    hidden = ~batch["value_valid"]
    torch.testing.assert_close(model(**batch | {"value": batch["value"] + 9.0 * hidden.unsqueeze(-1)}), logits)
    with pytest.raises(ConfigError, match="attention"):
        VSFormer(tokeniser.describe(), 12, 2, 2, attention="sofmax")


def test_it_learns_what_was_planted() -> None:
    series, labels = planted(np.random.default_rng(11))
    tokeniser = Tokeniser.fit(series, labels, length=12, count=2)
    torch.manual_seed(0)
    model = VSFormer(tokeniser.describe(), 12, 2, 2, d_model=32, d_ff=32, layers=1)
    batch = {name: torch.from_numpy(value) for name, value in tokeniser(series).items()}
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss(model, {**batch, "y": torch.from_numpy(labels)})[0].backward()
        optimizer.step()
    fresh, truth = planted(np.random.default_rng(12))
    other = {name: torch.from_numpy(value) for name, value in tokeniser(fresh).items()}
    assert (model.eval()(**other).argmax(1).numpy() == truth).mean() >= 0.9
