"""SMITH (arXiv 2004.12297): vectors, scores, losses, gradients and blocks against the released TensorFlow code."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipelines.errors import ConfigError, InputError, WeightsError
from pipelines.match.blocks import fill_blocks
from pipelines.match.models.pretraining import PretrainingHeads, block_loss, word_loss
from pipelines.match.models.smith import COMBINATIONS, matching_loss
from pipelines.match.models.smith_weights import OfficialSmith, released_name
from pipelines.match.vocabulary import WordPiece
from pipelines.official import detect, load_official

GOLDEN = pathlib.Path(__file__).parent / "golden"
STORED = dict(np.load(GOLDEN / "smith_model.npz"))
META = json.loads(str(STORED.pop("meta")))
CHECKPOINT = GOLDEN / "smith_model.ckpt-12"
GIVEN: dict[str, Any] = {
    "bert_config": META["bert_config"],
    "doc_bert_config": META["doc_bert_config"],
    "max_sent_length_by_word": META["block"],
}
PARTS = ("input_ids_1", "input_mask_1", "input_ids_2", "input_mask_2")


def _golden(name: str) -> Tensor:
    return torch.from_numpy(STORED[name])


def _weights(*without: str) -> dict[str, Tensor]:
    names = [name.removeprefix("weights/") for name in STORED if name.startswith("weights/")]
    return {name: _golden(f"weights/{name}") for name in names if not any(part in name for part in without)}


def _model(mode: str = "normal", **changes: Any) -> OfficialSmith:
    weights = _weights() if mode == "attention" else _weights("combine_reps")
    model = load_official("smith", weights, doc_rep_combine_mode=mode, **(GIVEN | changes))
    assert isinstance(model, OfficialSmith)
    return model


def _heads(model: OfficialSmith) -> PretrainingHeads:
    assert model.heads is not None
    return model.heads


def _gap(a: Tensor, b: Tensor) -> float:
    """The largest difference, in parts of the largest number where that is above 1."""
    return float((a - b).detach().abs().max() / b.abs().max().clamp(min=1.0))


def _blocks(number: int) -> tuple[Tensor, Tensor]:
    """Ids (N, B, L) of one side's documents, and which blocks are valid."""
    ids = _golden(f"input_ids_{number}").long().unflatten(1, (-1, META["block"]))
    return ids, (ids != 0).any(-1)


@pytest.mark.parametrize("mode", COMBINATIONS)
def test_prediction_is_the_released_one(mode: str) -> None:
    model = _model(mode)
    with torch.no_grad():
        found = model(*(_golden(name) for name in PARTS))
        logits = model.model.logits(found["seq_embed_1"], found["seq_embed_2"])
    assert _gap(logits, _golden(f"{mode}/siamese_logits")) <= 1e-5
    for name, value in found.items():
        # Vectors of blocks do not depend on the combination.
        assert _gap(value, _golden(f"{'normal' if 'sent_embed' in name else mode}/{name}")) <= 1e-5, name
    assert len(found) == 8
    padding = found["input_sent_embed_1"][2, 1:]
    assert padding.norm(dim=-1).allclose(torch.ones(4), atol=1e-5)  # the released code gives padding a vector


def test_the_checkpoint_itself_gives_the_same_model() -> None:
    model = load_official("smith", CHECKPOINT, **GIVEN)
    from_dict = _model("attention")
    assert isinstance(model, OfficialSmith)
    assert model.notes == ("3 tensors of the optimiser left out",)
    assert not model.training
    for part in ("model", "heads"):
        ours, theirs = getattr(model, part).state_dict(), getattr(from_dict, part).state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        assert set(ours) == set(theirs)


@pytest.mark.parametrize("ending", [".index", ".data-00000-of-00001"])
def test_either_file_of_a_checkpoint_means_the_checkpoint(ending: str) -> None:
    model = load_official("smith", f"{CHECKPOINT}{ending}", **GIVEN)
    assert isinstance(model, OfficialSmith)
    assert model.model.config.combine == "attention"


def test_other_containers(tmp_path: pathlib.Path) -> None:
    weights = _weights("combine_reps")
    np.savez(tmp_path / "a.npz", allow_pickle=False, **{name: value.numpy() for name, value in weights.items()})
    save_file({name: value.contiguous() for name, value in weights.items()}, tmp_path / "a.safetensors")
    arrays = {f"{name}:0": value.numpy() for name, value in weights.items()}
    expected = _model().state_dict()
    for source in (tmp_path / "a.npz", tmp_path / "a.safetensors", arrays):
        state = load_official("smith", source, **GIVEN).state_dict()
        assert all(torch.equal(state[name], value) for name, value in expected.items())
        assert set(state) == set(expected)


def test_matching_loss_and_its_gradients() -> None:
    model = _model("attention")
    vectors = [model.model.encode(_blocks(number)[0], right=number == 2) for number in (1, 2)]
    loss = matching_loss(model.model.logits(*vectors), _golden("labels"), META["neg_to_pos_example_ratio"])
    assert _gap(loss, _golden("attention/siamese_loss")) <= 1e-5
    loss.backward()
    _check_gradients(model, "attention/grad/", 9)


def _check_gradients(model: OfficialSmith, prefix: str, count: int) -> None:
    parts = [*model.model.named_parameters(), *_heads(model).named_parameters()]
    checked = 0
    for name, parameter in parts:
        released, turned = released_name(name)
        if f"{prefix}{released}" in STORED:
            assert parameter.grad is not None
            found = parameter.grad.T if turned else parameter.grad
            # Scores of padding, lowered by 10,000, are rounded to 1/1024: that alone moves gradients by up to 1e-4.
            assert _gap(found, _golden(f"{prefix}{released}")) <= 5e-5, released
            checked += 1
    assert checked == count


def _words(model: OfficialSmith, number: int) -> Tensor:
    """The released loss of masked words: places are counted through the document, padding of the list weighs 0."""
    ids, _ = _blocks(number)
    hidden = model.model.sentences.tokens(ids.flatten(0, 1), (ids != 0).flatten(0, 1)).flatten(0, 1)
    shape = (len(ids), ids.shape[1], -1)
    places = _golden(f"masked_lm_positions_{number}").long().reshape(shape)
    labels = _golden(f"masked_lm_ids_{number}").long().reshape(shape)
    real = _golden(f"masked_lm_weights_{number}").reshape(shape) > 0
    start = torch.arange(ids.numel()).reshape(ids.shape)[:, :1, :1]
    group = torch.arange(ids.shape[1])[None, :, None].expand_as(places)
    table = model.model.sentences.word_embedding.weight
    return word_loss(_heads(model), hidden[(start + places)[real]], labels[real], table, group=group[real])


def _masked_blocks(model: OfficialSmith, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Blocks with the drawn ones masked, their places, the valid blocks, and the blocks as they were."""
    ids, valid = _blocks(number)
    blocks = model.model.block_vectors(ids)
    places = _golden(f"masked_normal/masked_index_{number}").long()
    hide = torch.zeros_like(valid).scatter(1, places, True).unsqueeze(-1)
    return torch.where(hide, _heads(model).block_mask, blocks), places, valid, blocks


def _found_blocks(model: OfficialSmith, number: int) -> Tensor:
    masked, places, valid, blocks = _masked_blocks(model, number)
    index = places.unsqueeze(-1).expand(-1, -1, blocks.shape[2])
    outputs = model.model.block_outputs(masked, valid).gather(1, index).flatten(0, 1)
    targets = blocks.gather(1, index).flatten(0, 1)
    return block_loss(_heads(model), outputs, targets, valid.gather(1, places).flatten().float(), released=True)


def test_pretraining_losses_and_their_gradients() -> None:
    model = _model()
    total = torch.zeros(())
    for number in (1, 2):
        words, blocks = _words(model, number), _found_blocks(model, number)
        assert _gap(words, _golden(f"normal/mlm_loss_{number}")) <= 1e-5
        assert _gap(blocks, _golden(f"masked_normal/sent_loss_{number}")) <= 1e-5
        total = total + words + blocks
    total.backward()
    _check_gradients(model, "masked_normal/grad/", 8)


def test_released_matching_of_masked_documents_can_be_repeated() -> None:
    """With the loss of masked blocks on, the released code matches masked documents, in prediction too."""
    model = _model()
    vectors = []
    for number in (1, 2):
        masked, _, valid, _ = _masked_blocks(model, number)
        vectors.append(model.model.document_vectors(masked, valid, right=number == 2))
        assert _gap(vectors[-1], _golden(f"masked_normal/seq_embed_{number}")) <= 1e-5
    assert _gap(model.model.logits(*vectors), _golden("masked_normal/siamese_logits")) <= 1e-5
    assert _gap(_golden("masked_normal/siamese_logits"), _golden("normal/siamese_logits")) > 0.05


def test_the_second_document_has_a_last_layer_of_its_own() -> None:
    model, shared = _model(), load_official("smith", _weights("combine_reps", "doc_dense/dense_1"), **GIVEN)
    assert isinstance(shared, OfficialSmith)
    assert shared.model.config.shared_heads
    ids, _ = _blocks(1)
    with torch.no_grad():
        left, right = model.model.encode(ids), model.model.encode(ids, right=True)
        assert _gap(left, right) > 0.05
        assert torch.equal(shared.model.encode(ids), left)
        assert torch.equal(shared.model.encode(ids, right=True), left)


@pytest.mark.parametrize("name", ["short", "one", "long", "unknown", "many"])
@pytest.mark.parametrize(("length", "limit"), [(8, 64), (16, 5), (32, 4)])
def test_blocks_are_filled_as_released(name: str, length: int, limit: int) -> None:
    stored = np.load(GOLDEN / "smith_blocks.npz")
    meta = json.loads(str(stored["meta"]))
    words = WordPiece.from_vocabulary("\n".join(meta["vocabulary"]))
    sentences = meta["texts"][name]
    blocks = fill_blocks(" ".join(sentences), words, length=length, limit=limit, on_long="truncate")
    assert np.array_equal(blocks.ids, stored[f"{name}/{length}/{limit}"])
    assert blocks.counts.sentences == len(sentences)
    whole = fill_blocks(" ".join(sentences), words, length=length, limit=None)
    assert int((whole.ids > 4).sum() + (whole.ids == 1).sum()) == blocks.counts.tokens  # what released drops is kept


def test_names_are_those_of_smith() -> None:
    assert detect(_weights()) == "smith"
    model = _model("attention")
    parameters = [*model.model.state_dict(), *_heads(model).state_dict()]
    assert {released_name(name)[0] for name in parameters} == set(_weights())
    with pytest.raises(WeightsError, match="not a checkpoint of smith"):
        load_official("smith", {name: value for name, value in _weights().items() if name.startswith("bert/")})


def test_checkpoints_without_heads() -> None:
    model = load_official("smith", _weights("cls/", "mask_sent", "combine_reps"), **GIVEN)
    assert isinstance(model, OfficialSmith)
    assert model.heads is None
    model = load_official("smith", _weights("cls/sent", "mask_sent", "combine_reps"), **GIVEN)
    assert isinstance(model, OfficialSmith)
    assert model.notes == ("no head of masked blocks in it: a new one",)
    assert torch.equal(_heads(model).word_bias, _golden("weights/cls/word_predictions/output_bias"))


def test_what_does_not_fit_is_said_by_the_released_names() -> None:
    weights = _weights("doc_pooler/dense/bias")
    weights["bert/encoder/layer_1/output/dense/kernel"] = torch.zeros(16, 24)
    weights["bert/other"] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        load_official("smith", weights, **GIVEN)
    message = str(caught.value)
    assert "1 missing (doc_bert/doc_pooler/dense/bias)" in message
    assert "1 unexpected (bert/other)" in message
    assert "bert/encoder/layer_1/output/dense/kernel (16, 24) instead of (24, 16)" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"doc_rep_combine_mode": "attention"}, "doc_rep_combine_mode: does not agree"),
        ({"similarity_score_amplifier": 5.0}, "similarity_score_amplifier: does not agree"),
        ({"bert_config": {**META["bert_config"], "hidden_size": 32}}, "bert_config.hidden_size: does not agree"),
        ({"bert_config": {**META["bert_config"], "hidden_act": "relu"}}, "bert_config.hidden_act: does not agree"),
        ({"doc_bert_config": {"num_layers": 2}}, "doc_bert_config: smith has no such size"),
        ({"bert_config": None}, "shapes do not tell num_attention_heads"),
        ({"bert_config": {"num_attention_heads": 3}}, "bert_config.num_attention_heads: does not fit"),
        ({"bert_config": {"num_attention_heads": 2, "hidden_dropout_prob": 1}}, "hidden_dropout_prob: out of range"),
        ({"bert_config": {"num_attention_heads": 2, "hidden_dropout_prob": 0.2}}, "the levels differ"),
        ({"bert_config": "no/such.json"}, "no/such.json: cannot be read as JSON"),
        ({"max_sent_length_by_word": 32}, "max_sent_length_by_word: more than there are positions"),
        ({"loop_sent_number_per_doc": 7}, "loop_sent_number_per_doc: more than there are positions"),
        ({"blocks": 3}, "smith has no such option"),
    ],
)
def test_arguments_that_contradict(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((WeightsError, ConfigError), match=message):
        load_official("smith", _weights("combine_reps"), **(GIVEN | changes))


def test_released_arguments_are_accepted(tmp_path: pathlib.Path) -> None:
    (tmp_path / "sizes.json").write_text(json.dumps(META["bert_config"]))
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"list.json: holds no sizes. Found: list"):
        load_official("smith", _weights(), **(GIVEN | {"bert_config": tmp_path / "list.json"}))
    idle = {"max_masked_sent_per_doc": 0, "use_masked_sentence_lm_loss": False, "num_labels": 2}
    model = load_official("smith", _weights(), **(GIVEN | idle | {"bert_config": tmp_path / "sizes.json"}))
    assert isinstance(model, OfficialSmith)
    config = model.model.config
    assert (config.heads, config.document_heads, config.hidden, config.document_hidden) == (2, 4, 24, 20)
    assert config.dropout == 0.1
    without = GIVEN | {"doc_bert_config": None}
    assert load_official("smith", _weights(), **without).model.config == config  # four, as in all released ones


def test_only_the_blocks_that_are_looped_over_are_read() -> None:
    model = _model(loop_sent_number_per_doc=3)
    cut = [_golden(name)[:, : 3 * META["block"]] for name in PARTS]
    with torch.no_grad():
        found, expected = model(*(_golden(name) for name in PARTS)), _model()(*cut)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_inputs_that_cannot_be() -> None:
    model = _model()
    ids, mask = _golden("input_ids_1"), _golden("input_mask_1")
    with pytest.raises(InputError, match="ids that do not fill whole blocks"):
        model(ids[:, :-1], None, ids, mask)
    with pytest.raises(InputError, match="input_mask_2: a mask that is not where the ids are"):
        model(ids, mask, ids, torch.ones_like(mask))
    with pytest.raises(InputError, match=r"input_ids_2: a document without a token. Found: row 1"):
        model(ids, mask, ids * torch.tensor([[1], [0], [1]]), None)
    labels = _golden("labels")
    assert model(ids, mask, ids, None, labels)["documents_match_labels"] is labels


@pytest.mark.parametrize("fault", ["nan", "truncated", "no npz", "missing", "object"])
def test_damaged_files(tmp_path: pathlib.Path, fault: str) -> None:
    path = tmp_path / "a.npz"
    weights = {name: value.numpy() for name, value in _weights().items()}
    if fault == "nan":
        weights["bert/pooler/dense/bias"] = np.full(16, np.nan, np.float32)
    if fault == "object":
        weights["bert/pooler/dense/bias"] = np.array([None], dtype=object)
    if fault != "missing":
        np.savez(path, **weights)  # type: ignore[arg-type]
    if fault == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    if fault == "no npz":
        path.write_text("text")
    message = {"nan": "bert/pooler/dense/bias holds NaN", "missing": "no such file of weights"}
    with pytest.raises(WeightsError, match=message.get(fault, "damaged, or not a .npz of arrays")):
        load_official("smith", path, **GIVEN)
