"""PoNet (arXiv:2110.02442): language model and arena encoder against the released code; names, counts, segments.

With the environment variable PONET_REPOSITORY (a checkout of lxchtan/PoNet at cc9a29a) the released attention of Long
Range Arena is run beside ours on random weights.
"""

from __future__ import annotations

import importlib
import os
import pathlib
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from core_attention.mechanisms.pooling import Pooling, equal_segments
from pipelines.errors import ConfigError, InputError, WeightsError
from pipelines.match.models.ponet import PoNetConfig, PoNetModel, PoNetOutput, sentence_segments
from pipelines.match.models.ponet_heads import (
    PoNetForPreTraining,
    PoNetForSequenceClassification,
    PoNetForTokenClassification,
)
from pipelines.match.models.ponet_lra import LRA_SIZES, LRAAttention, LRAEncoder
from pipelines.match.models.ponet_weights import from_official
from pipelines.official import describe, detect, load_official

GOLDEN = pathlib.Path(__file__).parent / "golden" / "ponet.npz"
HEADS = 2


def _gap(a: Any, b: Tensor) -> float:
    return float((a - b).detach().abs().max())


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return {key: torch.from_numpy(values) for key, values in np.load(GOLDEN).items()}


@pytest.fixture(scope="module")
def weights(golden: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("state."): value for key, value in golden.items() if key.startswith("state.")}


def _encoder_alone(weights: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    kept = {key: value for key, value in weights.items() if key.startswith("ponet.")}
    return {prefix + key.removeprefix("ponet."): value for key, value in kept.items()}


def test_pretraining_model_equals_the_released_one(golden: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    model = load_official("ponet", weights, num_attention_heads=HEADS)
    assert isinstance(model, PoNetForPreTraining)
    assert not model.training
    names = ("input_ids", "attention_mask", "token_type_ids", "labels", "next_sentence_label")
    out: Any = model(**{name: golden[name] for name in names}, output_attentions=True, output_hidden_states=True)
    for name in ("prediction_logits", "seq_relationship_logits", "loss", "mlm_loss", "sop_loss"):
        assert _gap(getattr(out, name), golden[name]) <= 1e-5, name
    assert len(out.hidden_states) == 3
    for i, state in enumerate(out.hidden_states):
        assert _gap(state, golden[f"hidden.{i}"]) <= 1e-5, i
    for i, weight in enumerate(out.attentions):
        assert _gap(weight, golden[f"attention.{i}"]) <= 1e-6, i
        assert not weight[golden["attention_mask"][:, None].expand_as(weight) == 0].any()
    out.loss.backward()
    parameters = dict(model.named_parameters())
    for key, value in golden.items():
        if key.startswith("grad."):
            gradient = parameters[key.removeprefix("grad.")].grad
            assert gradient is not None
            assert _gap(gradient, value) <= 1e-5, key


def test_encoder_without_special_tokens_and_without_mask(golden: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    ids, mask = golden["input_ids"], golden["attention_mask"]
    plain: Any = load_official("ponet", _encoder_alone(weights, "bert."), num_attention_heads=HEADS, clsgsepg=False)
    assert isinstance(plain, PoNetModel)
    out = plain(ids, attention_mask=mask, segment_ids=golden["segment_ids"])
    assert _gap(out.last_hidden_state, golden["plain"]) <= 1e-5
    assert _gap(out.pooler_output, golden["plain_first"]) <= 1e-5
    model: Any = load_official("ponet", _encoder_alone(weights), num_attention_heads=HEADS)
    assert _gap(model(ids).last_hidden_state, golden["unmasked"]) <= 1e-5
    assert _gap(model(ids, mask).last_hidden_state, golden["unmasked"]) > 1e-2  # the mask does something
    assert _gap(plain(ids).last_hidden_state, golden["unmasked"]) > 1e-2  # and so do special tokens


def test_arena_encoder_equals_the_released_one(golden: dict[str, Tensor]) -> None:
    state = {key.removeprefix("lra."): value for key, value in golden.items() if key.startswith("lra.")}
    model = LRAEncoder(30, 20, 4, transformer_dim=12, transformer_hidden_dim=20, num_head=3).eval()
    assert sorted(model.state_dict()) == sorted(state)
    model.load_state_dict(state)
    assert _gap(model(golden["lra_ids"], golden["lra_mask"]), golden["lra_out"]) <= 1e-5
    again = model.state_dict()
    assert all(torch.equal(again[key], state[key]) for key in state)
    with pytest.raises(InputError, match="1 to 20 tokens"):
        model(torch.zeros(1, 21, dtype=torch.long))


@pytest.mark.parametrize(
    ("task", "count"),
    [("listops", 213_760), ("text", 372_480), ("retrieval", 372_480), ("image", 182_016), ("pathfinder32", 182_016)],
)
def test_arena_parameter_counts(task: str, count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in LRAEncoder(**LRA_SIZES[task]).parameters()) == count


def test_arena_segments_of_long_texts() -> None:
    """4,096 segments of 4,000 tokens are the tokens themselves; of 4,096 tokens they are 2,048 pairs."""
    device, count = torch.device("cpu"), LRA_SIZES["text"]["segment_num"]
    assert torch.equal(equal_segments((1, 4000), count, None, device)[0], torch.arange(4000))
    pairs = equal_segments((1, 4096), count, None, device)[0]
    assert torch.equal(pairs, torch.arange(4096) // 2)
    assert int(pairs.max()) + 1 == 2048


def test_base_parameter_count_and_names() -> None:
    with torch.device("meta"):
        model = PoNetModel(PoNetConfig())
    assert sum(p.numel() for p in model.parameters()) == 123_656_448
    mixer = model.get_submodule("encoder.layer.0.attention.self")
    assert sum(p.numel() for p in mixer.parameters()) == 5 * (768 * 768 + 768) == 2_952_960
    names = {key for key in model.state_dict() if ".layer.11." in key}
    layer = "encoder.layer.11."
    maps = [f"attention.self.dense_{part}" for part in ("q", "k", "o", "local", "segment")]
    maps += ["attention.output.dense", "attention.output.LayerNorm", "intermediate.dense"]
    maps += ["output.dense", "output.LayerNorm"]
    assert names == {f"{layer}{part}.{kind}" for part in maps for kind in ("weight", "bias")}


def test_sentences_as_the_released_code_numbers_them() -> None:
    """Released: the running sum of (special + special one before) - 1, equal where and only where ours are."""
    torch.manual_seed(0)
    special = torch.rand(8, 40) < 0.25
    special[:, 0] = True
    flags = special.long()
    released = (flags + torch.cat([torch.zeros_like(flags[:, :1]), flags[:, :-1]], 1)).cumsum(1) - 1
    ours = sentence_segments(special)
    same = [(numbers[:, :, None] == numbers[:, None]) for numbers in (released, ours)]
    assert torch.equal(*same)
    assert int(ours.min()) == 0
    assert int(ours.max()) < 40


def test_padding_changes_no_valid_state(golden: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    model: Any = from_official(weights, num_attention_heads=HEADS)
    ids, mask = golden["input_ids"], golden["attention_mask"]
    together = model.ponet(ids, mask).last_hidden_state
    for row, length in enumerate(mask.sum(1).tolist()):
        alone = model.ponet(ids[row : row + 1, :length]).last_hidden_state[0]
        assert _gap(together[row, :length], alone) <= 1e-5


@pytest.mark.parametrize("kind", [PoNetForSequenceClassification, PoNetForTokenClassification])
def test_classifiers_go_there_and_back(kind: Any, golden: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    torch.manual_seed(1)
    config = PoNetConfig(120, 16, 2, HEADS, 24, 24)
    saved = kind(config, 5).eval()
    encoder = {key: value for key, value in _encoder_alone(weights).items() if key in saved.ponet.state_dict()}
    saved.ponet.load_state_dict(encoder)
    model: Any = load_official("ponet", saved.state_dict(), num_attention_heads=HEADS, num_labels=5)
    assert type(model) is kind
    ids, mask = golden["input_ids"], golden["attention_mask"]
    of_tokens = kind is PoNetForTokenClassification
    labels = torch.randint(0, 5, ids.shape if of_tokens else ids.shape[:1])
    out = model(ids, mask, labels=labels)
    assert torch.equal(out.logits, saved(ids, mask).logits)
    state: Any = model.ponet(ids, mask)
    features = state.last_hidden_state if of_tokens else state.pooler_output
    expected = features @ model.classifier.weight.T + model.classifier.bias
    assert _gap(out.logits, expected) <= 1e-6
    chosen = expected.log_softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    assert _gap(out.loss, -(chosen[mask > 0] if of_tokens else chosen).mean()) <= 1e-6
    with pytest.raises(InputError, match="labels"):
        model(ids, mask, labels=labels[:1])
    with pytest.raises(WeightsError, match="num_labels"):
        load_official("ponet", saved.state_dict(), num_attention_heads=HEADS, num_labels=2)


def test_labels_of_texts_choose_the_loss() -> None:
    ids = torch.tensor([[101, 5, 102], [101, 6, 102]])
    config = PoNetConfig(120, 16, 1, HEADS, 24, 24)
    one: Any = PoNetForSequenceClassification(config, 1).eval()
    target = torch.tensor([0.5, -1.0])
    assert _gap(one(ids, labels=target).loss, ((one(ids).logits[:, 0] - target) ** 2).mean()) <= 1e-7
    many: Any = PoNetForSequenceClassification(config, 3).eval()
    chosen, logits = torch.tensor([[1.0, 0, 1], [0, 0, 1]]), many(ids).logits
    expected = -(chosen * logits.sigmoid().log() + (1 - chosen) * (-logits).sigmoid().log()).mean()
    assert _gap(many(ids, labels=chosen).loss, expected) <= 1e-6


def test_more_positions_repeat_the_table(golden: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    model: Any = from_official(weights, num_attention_heads=HEADS, max_position_embeddings=60)
    table = model.ponet.embeddings.position_embeddings.weight
    assert torch.equal(table, torch.cat([table[:24]] * 3)[:60])
    out: Any = model(golden["input_ids"], golden["attention_mask"], golden["token_type_ids"])
    assert _gap(out.prediction_logits, golden["prediction_logits"]) <= 1e-5
    assert model(torch.randint(3, 100, (1, 60))).prediction_logits.shape == (1, 60, 120)
    with pytest.raises(WeightsError, match=r"max_position_embeddings.*Found: 12"):
        from_official(weights, num_attention_heads=HEADS, max_position_embeddings=12)


def test_older_and_newer_layouts_open(golden: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    """Stored position numbers, and the shared weight and bias written a second time."""
    words = weights["ponet.embeddings.word_embeddings.weight"]
    more = {**weights, "ponet.embeddings.position_ids": torch.arange(24)[None]}
    more |= {"cls.predictions.decoder.weight": words, "cls.predictions.decoder.bias": weights["cls.predictions.bias"]}
    for state in (weights, more):
        assert detect(state) == "ponet"
        model: Any = load_official("ponet", state, num_attention_heads=HEADS, vocab_size=120, is_decoder=False)
        out = model(golden["input_ids"], golden["attention_mask"], golden["token_type_ids"])
        assert _gap(out.prediction_logits, golden["prediction_logits"]) <= 1e-5
        assert model.cls.predictions.decoder.weight is model.ponet.embeddings.word_embeddings.weight
    assert describe(weights) == f"ponet ({len(weights)} tensors, 2 layers)"
    bad = {**more, "cls.predictions.decoder.weight": words + 1}
    with pytest.raises(WeightsError, match="differs from the word embeddings"):
        from_official(bad, num_attention_heads=HEADS)
    bad = {**more, "cls.predictions.decoder.bias": weights["cls.predictions.bias"] + 1}
    with pytest.raises(WeightsError, match=r"differs from cls\.predictions\.bias"):
        from_official(bad, num_attention_heads=HEADS)


def test_damaged_weights_and_wrong_arguments_are_refused(weights: dict[str, Tensor]) -> None:
    layer = "ponet.encoder.layer.1.attention.self.dense_segment."
    damaged: list[tuple[dict[str, Tensor], str]] = [
        ({}, "not a state dict of ponet"),
        ({"embeddings.word_embeddings.weight": torch.zeros(3, 4)}, "not a state dict of ponet"),
        ({key: value for key, value in weights.items() if key != layer + "weight"}, "1 missing .*dense_segment.weight"),
        ({**weights, layer + "bias": torch.zeros(3)}, r"1 of another shape \(ponet.encoder.layer.1"),
        ({**weights, "ponet.extra": torch.zeros(1)}, "1 unexpected"),
    ]
    for state, message in damaged:
        with pytest.raises(WeightsError, match=message):
            from_official(state, num_attention_heads=HEADS)
    wrong = {"vocab_size": 1, "hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 7, "type_vocab_size": 1}
    for name, value in {
        **wrong,
        "is_decoder": True,
        "position_embedding_type": "relative_key",
        "num_labels": 2,
    }.items():
        with pytest.raises(WeightsError, match=name):
            load_official("ponet", weights, **{"num_attention_heads": HEADS, name: value})
    for given, message in (({}, "num_attention_heads"), ({"num_attention_heads": 3}, "does not divide hidden_size")):
        with pytest.raises(ConfigError, match=message):
            load_official("ponet", weights, **given)
    with pytest.raises(ConfigError, match="hidden_act"):
        load_official("ponet", weights, num_attention_heads=HEADS, hidden_act="tanh")


def test_wrong_inputs_are_refused_and_tuples_come_on_request() -> None:
    model = PoNetModel(PoNetConfig(120, 16, 1, HEADS, 24, 10)).eval()
    ids = torch.tensor([[101, 5, 102]])
    plain, named = model(ids, return_dict=False), model(ids)
    assert isinstance(named, PoNetOutput)
    assert type(plain) is tuple
    assert torch.equal(plain[1], named[1])  # pyright: ignore[reportArgumentType]
    refused: list[tuple[dict[str, Any], str]] = [
        ({"input_ids": None}, "input_ids: missing"),
        ({"input_ids": torch.zeros(1, 11, dtype=torch.long)}, "Found: 11 tokens. Expected: at most 10"),
        ({"input_ids": torch.tensor([[120]])}, "from 0 to 119"),
        ({"input_ids": torch.zeros(1, 3)}, "whole numbers"),
        ({"attention_mask": torch.ones(1, 4)}, "attention_mask"),
        ({"segment_ids": torch.zeros(2, 3, dtype=torch.long)}, "segment_ids"),
        ({"head_mask": torch.ones(2)}, "head_mask: has no use"),
        ({"use_cache": True}, "use_cache: has no use"),
    ]
    for given, message in refused:
        with pytest.raises(InputError, match=message):
            model(**{"input_ids": ids, **given})


def test_attention_follows_the_mechanism() -> None:
    """The arena's attention is the mechanism with segments over all places; without padding they are the same."""
    torch.manual_seed(0)
    attention, x = LRAAttention(12, 3, 4), torch.randn(2, 17, 12)
    mechanism: Any = attention.pooling
    assert isinstance(mechanism, Pooling)
    assert torch.equal(attention(x, torch.ones(2, 17)), mechanism(x).y)


@pytest.mark.parametrize("segments", [1, 5, 64])
def test_released_arena_attention(segments: int, capsys: pytest.CaptureFixture[str]) -> None:
    folder = os.environ.get("PONET_REPOSITORY")
    if not folder:
        pytest.skip("PONET_REPOSITORY is not set")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(pathlib.Path(folder) / "examples" / "LRA" / "code"))
        released: Any = importlib.import_module("attention")
        config = {"transformer_dim": 32, "head_dim": 8, "num_head": 4, "attn_type": "ponet", "segment_num": segments}
        theirs = released.Attention({**config, "attention_grad_checkpointing": False})
        ours = LRAAttention(32, 4, segments)
        ours.load_state_dict(theirs.state_dict())
        x, mask = torch.randn(3, 61, 32), torch.ones(3, 61)
        mask[1, 40:] = 0
        gap = _gap(ours(x, mask), theirs(x, mask))
    with capsys.disabled():
        sys.stdout.write(f"\nreleased attention, {segments} segments: largest difference {gap:.1e}\n")
    assert gap <= 1e-5
