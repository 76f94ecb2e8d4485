"""What a classifier is trained on: warped copies, mixed series, drawn tokens; and what training leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines import Classifier
from pipelines.classify.examples import Examples, loss, mixed_loss
from pipelines.classify.models.vsformer import VSFormer
from pipelines.classify.motifs import matrix_profile
from pipelines.classify.tokens import Tokeniser
from pipelines.classify.warps import MOST_SERIES, copies, warp
from pipelines.data.formats.labelled_types import LabelledSeries
from pipelines.training.options import TrainOptions
from pipelines.training.threads import compiled_loops


def some(count: int = 8, variables: int = 2, steps: int = 30) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.normal(size=(variables, steps)).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_a_warp_keeps_order_range_and_length(seed: int) -> None:
    ramp = np.arange(50, dtype=np.float32)[None]
    bent = warp(ramp, np.random.default_rng(seed))
    assert bent.shape == ramp.shape
    assert (np.diff(bent) > 0).all()
    assert 0 <= bent.min() < bent.max() <= 49
    assert bent.max() - bent.min() >= 0.6 * 49 - 1


def test_a_warp_bends_time_unevenly() -> None:
    steps = np.diff(warp(np.arange(100, dtype=np.float32)[None], np.random.default_rng(1)))
    assert steps.max() > 1.3 * steps.min()


def test_a_warp_invents_no_value_where_none_was_measured() -> None:
    one = np.ones((2, 40), np.float32)
    one[0, 10:20] = np.nan
    bent = warp(one, np.random.default_rng(3))
    assert np.isnan(bent[0]).any()
    assert set(np.unique(bent[~np.isnan(bent)])) == {1.0}
    assert not np.isnan(bent[1]).any()


def test_very_short_series_are_copied_as_they_are() -> None:
    one = np.array([[1.0, 2.0, 3.0]], np.float32)
    assert np.array_equal(warp(one, np.random.default_rng(0)), one)


def test_large_sets_get_fewer_copies_and_a_note() -> None:
    made, note = copies([np.zeros((1, 4), np.float32)] * (MOST_SERIES // 3), 8, seed=0)
    assert len(made) == 2
    assert note.startswith("2 instead of 8 warped copies")


def test_copies_are_drawn_in_training_and_never_scored() -> None:
    series = some(4)
    twice = [one + 100 for one in series]
    examples = Examples(series, np.arange(4) % 2, copies=[twice], repeat=3)
    assert len(examples) == 12
    torch.manual_seed(0)
    drawn = examples.__getitems__([0] * 200)["x"].mean(dim=(1, 2))
    assert 60 < int((drawn > 50).sum()) < 140
    scored = examples.inputs(0, 100)
    assert scored["x"].shape[0] == 4
    assert torch.equal(scored["x"], torch.from_numpy(np.stack(series)))


def test_labels_go_with_their_series_whatever_the_version() -> None:
    series = [np.full((1, 5), float(i), np.float32) for i in range(3)]
    examples = Examples(series, np.arange(3), copies=[[one + 10 for one in series]])
    batch = examples.__getitems__([0, 1, 2] * 20)
    assert torch.equal(batch["x"][:, 0, 0].long() % 10, batch["y"])


class _Echo(torch.nn.Module):
    """Returns its input as logits."""

    def forward(self, value: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        self.seen = value, valid
        return value


def test_mixing_mixes_tokens_classes_and_hides_what_either_lacks() -> None:
    model = _Echo().train()
    value = torch.eye(4)
    valid = torch.tensor([[True, False], [True, True], [True, True], [False, True]])
    torch.manual_seed(0)
    total, count = mixed_loss(0.5)(model, {"value": value, "valid": valid, "y": torch.arange(4)})
    mixed, shown = model.seen
    assert torch.allclose(mixed.sum(1), torch.ones(4))
    assert (mixed.diagonal() >= 0.5 - 1e-6).all()
    assert not shown[0, 1]
    assert not shown[3, 0]
    # The target is mixed as the tokens are: cross entropy against the mixed rows themselves.
    expected = -(mixed * mixed.log_softmax(-1)).sum()
    assert torch.allclose(total, expected, atol=1e-5)
    assert int(count) == 4


def test_nothing_is_mixed_in_evaluation() -> None:
    model = _Echo().eval()
    batch = {"value": torch.eye(3), "valid": torch.ones(3, 1, dtype=torch.bool), "y": torch.arange(3)}
    assert torch.equal(mixed_loss(0.5)(model, batch)[0], loss(model, batch)[0])


def _model(attention: str = "prior_enhanced", **options: float) -> tuple[VSFormer, dict[str, torch.Tensor]]:
    series = some()
    tokeniser = Tokeniser.fit(series, np.arange(8) % 2, count=1)
    torch.manual_seed(0)
    model = VSFormer(tokeniser.describe(), tokeniser.motifs.length, 2, 2, attention=attention, dropout=0.0, **options)
    return model, Examples(series, np.arange(8) % 2, tokeniser).inputs(0, 8)


def test_hidden_tokens_are_hidden_whether_they_are_masked_or_not_computed() -> None:
    model, batch = _model()
    branch, prior = model.value_branch, model.value_prior.expand(8, -1)
    x = model.value_embedding(batch["value"])
    kept = torch.stack([torch.randperm(x.shape[1], generator=torch.Generator().manual_seed(i))[:7] for i in range(8)])
    mask = torch.zeros_like(batch["value_valid"]).scatter(1, kept, True)
    assert torch.allclose(branch(x, batch["value_valid"], prior, kept), branch(x, mask, prior), atol=1e-5)


def test_training_judges_each_branch_and_answers_with_their_mean() -> None:
    model, batch = _model(token_dropout=0.0)
    both = model.train()(**batch)
    assert both.shape == (2, 8, 2)
    assert torch.allclose(model.eval()(**batch), both.mean(0), atol=1e-6)


def test_a_mechanism_that_takes_one_number_of_tokens_gets_all_of_them() -> None:
    model, batch = _model()
    model._any_number = False
    valid, kept = model.train()._drawn(batch["value_valid"])
    assert kept is None
    assert 0.3 < valid.float().mean() < 0.7
    assert model(**batch).isfinite().all()


def test_the_held_out_series_calibrate_and_are_then_trained_on() -> None:
    generator = np.random.default_rng(0)
    wave = np.sin(np.arange(40) / 3)
    series = [(wave * (1 + i % 2) + generator.normal(size=(1, 40))).astype(np.float32) for i in range(20)]
    data = LabelledSeries.of(series, labels=["low", "high"] * 10)
    train = TrainOptions(epochs=2, batch_size=16)
    arch = {"d_model": 8, "d_ff": 8, "n_heads": 2, "warps": 1}
    once, again = (Classifier(arch=arch, train=train, refit=refit, seed=4).fit(data).state for refit in (False, True))
    assert (once.training["series"]["train"], once.training["series"]["held_out"]) == (16, 4)
    assert (again.training["series"]["train"], again.training["series"]["held_out"]) == (20, 0)
    assert again.temperature == once.temperature
    np.testing.assert_array_equal(again.sets.scores, once.sets.scores)
    # Scales come from what a model was trained on.
    assert not np.allclose(again.scaler.mean, once.scaler.mean)


def test_one_series_of_each_class_is_trained_on_and_said() -> None:
    series = some(3)
    data = LabelledSeries.of(series, labels=["a", "b", "c"])
    state = Classifier(model="transformer", train=TrainOptions(epochs=1)).fit(data).state
    assert state.sets is None
    assert "there is one of each class" in state.notes[0]


def test_compiled_loops_leave_torch_its_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        matrix_profile(np.random.default_rng(0).normal(size=200), 8)
        assert torch.get_num_threads() == 1
        with compiled_loops():
            torch.set_num_threads(2)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
