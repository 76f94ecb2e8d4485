"""Length collapse: filter rates against singular values and measured figures, likeness by length, the picture."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core_attention import build
from core_attention.mechanisms.length_temperature import cooled
from pipelines.errors import ConfigError, InputError
from pipelines.match.collapse import collapse_figure, length_collapse
from pipelines.match.filter_rates import filter_rate, filter_rates, heuristic_rate


def _weights(tokens: int, spread: float, seed: int = 0, count: int = 4) -> Tensor:
    """Attention of independent Gaussian scores."""
    scores = torch.randn(count, tokens, tokens, generator=torch.Generator().manual_seed(seed))
    return (spread * scores).softmax(-1)


@pytest.mark.parametrize(("tokens", "spread"), [(1, 1.0), (2, 1.0), (7, 0.1), (64, 0.5), (64, 2.0), (160, 1.0)])
def test_rate_equals_the_largest_singular_value(tokens: int, spread: float) -> None:
    maps = _weights(tokens, spread)
    expected = torch.linalg.matrix_norm(maps - maps.mean(-2, keepdim=True), 2)
    torch.testing.assert_close(filter_rate(maps), expected, rtol=2e-3, atol=1e-6)
    assert bool((filter_rate(maps) <= expected * (1 + 1e-5) + 1e-6).all())  # found from below


def test_rates_of_matrices_whose_powers_end_at_once() -> None:
    rate = filter_rate(torch.stack([torch.eye(40), torch.full((40, 40), 1 / 40), torch.eye(40).flip(0)]))
    torch.testing.assert_close(rate, torch.tensor([1.0, 0.0, 1.0]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("tokens", "spread", "measured"), [(64, 0.5, 0.131), (64, 1.0, 0.369), (256, 0.5, 0.066), (512, 2.0, 0.790)]
)
def test_rates_of_independent_scores_are_those_measured_elsewhere(tokens: int, spread: float, measured: float) -> None:
    """Means of four draws by full decomposition; ours are other draws, hence 15 %."""
    assert float(filter_rate(_weights(tokens, spread)).mean()) == pytest.approx(measured, rel=0.15)


def test_rates_fall_with_the_length_and_rise_with_the_spread() -> None:
    by_length = [float(filter_rate(_weights(n, 0.5)).mean()) for n in (16, 64, 256)]
    by_spread = [float(filter_rate(_weights(256, s)).mean()) for s in (0.5, 1.0, 2.0)]
    assert by_length == sorted(by_length, reverse=True)
    assert by_spread == sorted(by_spread)
    estimates = [heuristic_rate(n, 0.5) for n in (16, 64, 256, 512)]
    assert [round(e, 3) for e in estimates] == [0.328, 0.225, 0.157, 0.132]


def test_padding_does_not_count() -> None:
    scores = torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(20) < torch.tensor([[20], [12]])
    maps = scores.masked_fill(~mask[:, None, None], float("-inf")).softmax(-1)
    found = filter_rate(maps, mask)
    torch.testing.assert_close(found[0], filter_rate(maps[0]), rtol=1e-4, atol=0)
    torch.testing.assert_close(found[1], filter_rate(maps[1, :, :12, :12]), rtol=1e-4, atol=0)


class _Encoder(nn.Module):
    """Attention over blocks of at most 16 tokens, one over all of them, and a layer that shows nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = build("softmax", 8, 2, dropout=0.5), build("softmax", 8, 4)
        self.silent = build("pooling", 8, 2)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones(x.shape[:2], dtype=torch.bool)
        blocks = [self.first(block, mask=torch.ones(block.shape[:2], dtype=torch.bool)).y for block in x.split(16, 1)]
        return self.silent(torch.cat(blocks, 1) + self.second(x, mask=mask).y).y


def test_rates_of_a_whole_model_by_layer_and_head() -> None:
    torch.manual_seed(0)
    model, inputs = _Encoder().train(), 3 * torch.randn(2, 64, 8)
    model.silent.eval()
    found = filter_rates(model, lambda n: model(inputs[:, :n]), [8, 24, 64])
    assert found.layers == ("first", "second")
    assert found.notes == ("1 of 3 mechanisms show no square weights and were left out",)
    assert found.tokens.tolist() == [[8, 8], [12, 24], [16, 64]]  # 24 tokens are blocks of 16 and 8
    assert found.rates.shape == (3, 2, 4)
    assert np.isnan(found.rates[:, 0, 2:]).all()
    second = found.rates[:, 1]
    with torch.no_grad():
        model.eval()
        maps = model.second(inputs[:, :24], maps=True).aux["maps"]
    centred = maps - maps.mean(-2, keepdim=True)
    np.testing.assert_allclose(second[1], torch.linalg.matrix_norm(centred, 2).mean(0), rtol=1e-4)
    model.train()
    model.silent.eval()
    with cooled(model, 0.3):
        sharp = filter_rates(model, lambda n: model(inputs[:, :n]), [24])
    with cooled(model, 3.0):
        flat = filter_rates(model, lambda n: model(inputs[:, :n]), [24])
    assert (flat.rates[0, 1] < second[1]).all()  # a large temperature filters more, a small one less
    assert (sharp.rates[0, 1] > second[1]).all()
    assert model.first.training
    assert not model.silent.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_model_that_shows_nothing_is_refused() -> None:
    silent = build("pooling", 8, 2)
    with pytest.raises(ConfigError, match=r"nothing to measure.*Found: pooling"):
        filter_rates(silent, lambda n: silent(torch.randn(1, n, 8)), [4])
    with pytest.raises(ConfigError, match="Found: no mechanism"):
        filter_rates(nn.Linear(2, 2), lambda n: None, [4])


def _noisy_means(texts: list[np.ndarray]) -> Tensor:
    """An encoder that collapses by construction: the mean of a text's token vectors, all around one direction."""
    return torch.stack([torch.from_numpy(text).mean(0) for text in texts])


def _texts(lengths: list[int], seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [np.array([1.0, 0, 0, 0, 0, 0]) + generator.normal(0, 2, (n, 6)) for n in lengths]


def test_likeness_rises_with_length_where_embeddings_collapse() -> None:
    texts = _texts([int(n) for n in np.repeat([2, 8, 32, 128], 40)])
    found = length_collapse(_noisy_means, texts, bins=4)
    assert found.counts.tolist() == [40] * 4
    assert found.edges.tolist() == [[2, 2], [8, 8], [32, 32], [128, 128]]
    assert (np.diff(found.cosine) > 0.03).all()
    vectors = _noisy_means(texts).numpy()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for row, (cosine, distance) in enumerate(zip(found.cosine, found.distance, strict=True)):
        group = unit[40 * row : 40 * row + 40]
        pairs = [a @ b for a, b in itertools.combinations(group, 2)]
        assert cosine == pytest.approx(np.mean(pairs), abs=1e-12)
        assert distance == pytest.approx(np.linalg.norm(group.mean(0) - unit.mean(0)), abs=1e-12)
    assert found.rows()[1] == {
        "shortest": 8.0,
        "longest": 8.0,
        "length": 8.0,
        "texts": 40.0,
        "cosine": found.cosine[1],
        "distance": found.distance[1],
    }


def test_batches_bins_and_lengths_are_the_callers() -> None:
    texts = _texts([3, 3, 3, 9, 9, 30, 30, 30, 50])
    one, small = (length_collapse(_noisy_means, texts, bins=[9, 40], batch=size) for size in (64, 2))
    assert one.counts.tolist() == small.counts.tolist() == [3, 5, 1]
    np.testing.assert_allclose(one.cosine[:2], small.cosine[:2])
    assert np.isnan(one.cosine[2])
    assert one.notes == ("1 bins of one text, which is compared with none",)
    own = length_collapse(_noisy_means, texts, lengths=[1] * 9)
    assert own.counts.tolist() == [9]  # texts of one length are not parted
    words = length_collapse(lambda batch: np.ones((len(batch), 2)), ["a b c", "d", "e f g"], bins=2)
    assert words.edges.tolist() == [[1, 1], [3, 3]] or words.edges.tolist() == [[1, 3]]
    assert words.cosine[-1] == pytest.approx(1.0)


def test_embeddings_of_zeros_are_counted_and_wrong_ones_refused() -> None:
    def encode(vectors: Any) -> Any:
        return lambda texts: np.asarray(vectors, dtype=float)[: len(texts)]

    found = length_collapse(encode([[0, 0], [1, 0], [0, 1]]), ["a", "b", "c"], bins=1)
    assert found.notes == ("1 texts with an embedding of zeros left out",)
    assert found.cosine.tolist() == [0.0]
    texts, good = ["a", "b"], encode([[1, 0], [0, 1]])
    for encoder, given, options, message in (
        (good, ["a"], {}, "too few to compare"),
        (good, texts, {"lengths": [1]}, "lengths: not one a text"),
        (encode([[1, 0]]), texts, {}, "embeddings: not one a text"),
        (encode([[1, np.nan], [0, 1]]), texts, {}, "not finite. Found: 1 of 2"),
        (encode([[0, 0], [0, 0]]), texts, {}, "all zeros"),
        (encode([1, 2]), texts, {}, "not a table"),
    ):
        keywords: dict[str, Any] = options
        with pytest.raises(InputError, match=message):
            length_collapse(encoder, given, **keywords)
    for bins in (0, [5, 5], [9, 3]):
        with pytest.raises(ConfigError, match="bins"):
            length_collapse(good, texts, bins=bins)
    with pytest.raises(InputError, match="not square"):
        filter_rate(torch.ones(2, 3))
    with pytest.raises(InputError, match="mask"):
        filter_rate(torch.ones(3, 3), torch.ones(1, 3, dtype=torch.bool))


def test_the_picture_shows_measures_and_names_the_estimate_heuristic() -> None:
    mixer = build("softmax", 8, 2)
    inputs = torch.randn(1, 128, 8, generator=torch.Generator().manual_seed(0))
    rates = filter_rates(mixer, lambda n: mixer(inputs[:, :n]), [8, 32, 128])
    found = length_collapse(_noisy_means, _texts([2] * 9 + [40] * 9), bins=2)
    figure = collapse_figure({"plain": found, "cooled": found}, rates, spread=1.0, title="demo")
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "Filter rate of attention",
        "Likeness by length",
        "Distance from the mean",
    ]
    labels = [line.get_label() for line in figure.axes[0].lines]
    assert labels == ["measured", "heuristic for spread 1, no bound"]
    drawn = np.asarray(figure.axes[0].lines[0].get_ydata())
    np.testing.assert_allclose(drawn, rates.rates.mean((1, 2)))
    np.testing.assert_allclose(np.asarray(figure.axes[1].lines[0].get_ydata()), found.cosine)
    assert len(collapse_figure(None, rates).axes) == 1
    assert len(collapse_figure(found).axes) == 2
    with pytest.raises(ConfigError, match="nothing to draw"):
        collapse_figure()
