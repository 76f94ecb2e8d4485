"""The released SMITH: TensorFlow's variables as a `Smith`, with the released inputs, outputs and behaviour.

Source: google-research/google-research, folder smith (arXiv 2004.12297). A kernel is the transpose of a weight.
"""

from __future__ import annotations

import json
import logging
import os
import pathlib
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.errors import ConfigError, InputError, WeightsError
from pipelines.match.models.pretraining import PretrainingHeads
from pipelines.match.models.smith import Smith, SmithConfig
from pipelines.match.models.tensor_bundle import bundle_prefix, read_bundle
from pipelines.official import agree, check_shapes

__all__ = ["OfficialSmith", "from_official", "read_official", "released_name"]

_LOGGER = logging.getLogger("pipelines.weights")
#: What an optimiser keeps beside the weights, and what TensorFlow 2 writes about a checkpoint itself.
_SLOT = re.compile(
    r"(?:.*/)?(?:adam_[mv]|Adam(?:_1)?|Momentum|beta[12]_power)|global_step|save_counter.*|_CHECKPOINTABLE.*"
)
_TENSORS = {
    "sentences.word_embedding.weight": "bert/embeddings/word_embeddings",
    "sentences.position_embedding.weight": "bert/embeddings/position_embeddings",
    "sentences.type_embedding.weight": "bert/embeddings/token_type_embeddings",
    "document_positions.weight": "doc_bert/doc_embeddings/position_embeddings",
    "combination.context": "combine_reps_attention/context_vector",
    "word_bias": "cls/word_predictions/output_bias",
    "block_bias": "cls/sent_predictions/output_bias",
    "block_mask": "mask_sent_in_doc/sentence_mask_embedding",
}
_MODULES = {
    "sentences.norm": "bert/embeddings/LayerNorm",
    "sentences.head.pooler": "bert/pooler/dense",
    "sentences.head.projection": "seq_rep_from_bert_sent_dense/dense",
    "document_norm": "doc_bert/doc_embeddings/LayerNorm",
    "document_head.pooler": "doc_bert/doc_pooler/dense",
    # The released graph makes the last layer anew for the second document: both calls stand in one variable scope.
    "document_head.projection": "seq_rep_from_bert_doc_dense/dense",
    "right_projection": "seq_rep_from_bert_doc_dense/dense_1",
    "combination.projection": "combine_reps_attention/dense",
    "word_transform.dense": "cls/word_predictions/transform/dense",
    "word_transform.norm": "cls/word_predictions/transform/LayerNorm",
    "block_transform.dense": "cls/sent_predictions/transform/dense",
    "block_transform.norm": "cls/sent_predictions/transform/LayerNorm",
}
_STACKS = {"sentences.encoder": "bert/encoder", "documents": "doc_bert/doc_encoder"}
_LAYER = {
    "mixer.query_projection": "attention/self/query",
    "mixer.key_projection": "attention/self/key",
    "mixer.value_projection": "attention/self/value",
    "mixer.out_projection": "attention/output/dense",
    "mixer_norm": "attention/output/LayerNorm",
    "expand": "intermediate/dense",
    "contract": "output/dense",
    "output_norm": "output/LayerNorm",
}
#: Further keys of the released JSON files of sizes: what shapes do not tell, and what changes nothing here.
_UNSEEN = ("num_attention_heads", "hidden_act", "hidden_dropout_prob")
_IDLE = ("attention_probs_dropout_prob", "initializer_range", "vocab_size", "type_vocab_size")
_HEADS = {
    "words": "cls/word_predictions/transform/dense/kernel",
    "blocks": "cls/sent_predictions/transform/dense/kernel",
}
_BIAS = "cls/sent_predictions/output_bias"


class OfficialSmith(nn.Module):
    """The released dual encoder: ids and masks of both documents to what its prediction returns.

    Args:
        model: as released.
        heads: of pre-training, where the checkpoint has them.
        block: tokens L of a sentence block.
        blocks: blocks of a document that are read (``loop_sent_number_per_doc``), None = all that are given.
        notes: what was left out of the checkpoint, and what it lacks.

    Example:
        >>> config = SmithConfig.as_released(50, block=8, dim=16, heads=2, sentence_layers=1, document_layers=1)
        >>> ids = torch.randint(1, 50, (3, 4 * 8))
        >>> found = OfficialSmith(Smith(config), block=8)(ids, None, ids, None)
        >>> found["predicted_score"].shape, found["seq_embed_1"].shape, found["input_sent_embed_2"].shape
        (torch.Size([3]), torch.Size([3, 16]), torch.Size([3, 4, 16]))
    """

    def __init__(
        self,
        model: Smith,
        heads: PretrainingHeads | None = None,
        *,
        block: int = 32,
        blocks: int | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.model, self.heads, self.block, self.blocks, self.notes = model, heads, block, blocks, notes

    def forward(
        self,
        input_ids_1: Tensor,
        input_mask_1: Tensor | None,
        input_ids_2: Tensor,
        input_mask_2: Tensor | None,
        documents_match_labels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Both documents of N pairs to scores, classes and vectors, by the released names.

        Args:
            input_ids_1, input_ids_2: (N, B L) ids, 0 = padding, block after block.
            input_mask_1, input_mask_2: (N, B L), 1 = valid; None = where the id is not 0.
            documents_match_labels: given back as they are.

        Returns:
            "predicted_score" (N,) sigmoid(6 cosine), "predicted_class" (N,) 0 or 1, "seq_embed_1", "seq_embed_2" (N, D)
            vectors, "input_sent_embed_1", "input_sent_embed_2" (N, B, C) blocks, "output_sent_embed_1",
            "output_sent_embed_2" (N, B, C) blocks in context, padding ones too.

        Raises:
            InputError: ids that do not fill whole blocks, a document without a token in the blocks that are read, or a
                mask that is not where the ids are.
        """
        found: dict[str, Tensor] = {}
        for number, ids, mask in ((1, input_ids_1, input_mask_1), (2, input_ids_2, input_mask_2)):
            blocks = self._blocks(ids, mask, number)
            valid = (blocks != 0).any(-1)
            vectors = self.model.block_vectors(blocks)
            found[f"seq_embed_{number}"] = self.model.document_vectors(vectors, valid, right=number == 2)
            found[f"input_sent_embed_{number}"] = vectors
            found[f"output_sent_embed_{number}"] = self._in_context(vectors, valid)
        score = self.model.logits(found["seq_embed_1"], found["seq_embed_2"]).sigmoid()
        found |= {"predicted_score": score, "predicted_class": score.round()}
        return found if documents_match_labels is None else found | {"documents_match_labels": documents_match_labels}

    def _in_context(self, blocks: Tensor, valid: Tensor) -> Tensor:
        """The document encoder's rows; padding is no key, but has a row of its own."""
        model = self.model
        places = model.document_positions.weight[: blocks.shape[1]]
        return model.documents(model.document_dropout(model.document_norm(blocks + places)), valid)

    def _blocks(self, ids: Tensor, mask: Tensor | None, number: int) -> Tensor:
        where = f"input_ids_{number}"
        if ids.dim() != 2 or ids.shape[1] == 0 or ids.shape[1] % self.block:
            expected = f"(documents, a multiple of {self.block})"
            raise InputError(
                "ids that do not fill whole blocks", where=where, found=tuple(ids.shape), expected=expected
            )
        if mask is not None and (mask.shape != ids.shape or not torch.equal(mask != 0, ids != 0)):
            expected = "1 where the id is not 0"
            raise InputError("a mask that is not where the ids are", where=f"input_mask_{number}", expected=expected)
        blocks = ids.long().unflatten(1, (-1, self.block))[:, : self.blocks]
        empty = (~(blocks != 0).flatten(1).any(1)).nonzero().flatten().tolist()
        if empty:
            raise InputError("a document without a token", where=where, found=f"row {empty[0]}")
        return blocks


def from_official(
    state_dict: Mapping[str, Tensor],
    *,
    bert_config: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    doc_bert_config: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    max_sent_length_by_word: int = 32,
    loop_sent_number_per_doc: int | None = None,
    doc_rep_combine_mode: str | None = None,
    doc_rep_combine_attention_size: int | None = None,
    similarity_score_amplifier: float | None = None,
    model_name: str | None = None,
    max_doc_length_by_sentence: int | None = None,
    max_seq_length: int | None = None,
    max_predictions_per_seq: int | None = None,
    max_masked_sent_per_doc: int | None = None,
    use_masked_sentence_lm_loss: bool | None = None,
    num_labels: int | None = None,
    sent_bert_trainable: bool | None = None,
    neg_to_pos_example_ratio: float | None = None,
) -> OfficialSmith:
    """The released dual encoder of a state dict by TensorFlow's names, in eval mode.

    Layers and sizes are read off names and shapes, and what is given is held against them. What an optimiser keeps
    (adam_m, adam_v, global_step) is left out, counted in ``notes``. Heads of pre-training become ``heads``.

    Args:
        state_dict: tensors by the released names, as `read_official` gives them.
        bert_config, doc_bert_config: contents or paths of the released JSON files of sizes. Shapes do not tell
            num_attention_heads: without them it is 4 in the document encoder, as in all released configurations, and
            heads of the sentence encoder are 64 wide.
        max_sent_length_by_word: tokens of a block.
        loop_sent_number_per_doc: blocks that are read of a document, None = all that are given.
        doc_rep_combine_mode: "normal" unless the tensors show "attention"; they do not show "sum_concat" and
            "mean_concat".
        doc_rep_combine_attention_size, similarity_score_amplifier, model_name: held against the checkpoint (6.0,
            "smith_dual_encoder").
        max_doc_length_by_sentence, max_seq_length, max_predictions_per_seq, max_masked_sent_per_doc,
            use_masked_sentence_lm_loss, num_labels, sent_bert_trainable, neg_to_pos_example_ratio: further released
            arguments, which change nothing here: matching always reads unmasked documents.

    Raises:
        WeightsError: tensors missing, unexpected or of other shapes, or an argument that contradicts them.
        ConfigError: an unknown key in a configuration, or one that cannot be read.

    Complexity: O(bytes).

    Example:
        >>> from_official({"bert/embeddings/word_embeddings": torch.zeros(50, 16)})
        Traceback (most recent call last):
        pipelines.errors.WeightsError: not a checkpoint of smith. Found: bert/embeddings/word_embeddings. Expected: ...
    """
    del max_doc_length_by_sentence, max_seq_length, max_predictions_per_seq, max_masked_sent_per_doc
    del use_masked_sentence_lm_loss, num_labels, sent_bert_trainable, neg_to_pos_example_ratio
    agree("similarity_score_amplifier", similarity_score_amplifier, 6.0)
    agree("model_name", model_name, "smith_dual_encoder")
    tensors = {name: value for name, value in state_dict.items() if not _SLOT.fullmatch(name)}
    notes = _left_out(len(state_dict) - len(tensors))
    sentence, document = _sizes(tensors)
    width = sentence["hidden_size"]
    sentence = _agreed("bert_config", bert_config, sentence, heads=None if width % 64 else width // 64)
    document = _agreed("doc_bert_config", doc_bert_config, document, heads=4)
    combine, size = _combination(tensors, doc_rep_combine_mode, doc_rep_combine_attention_size)
    positions = sentence["max_position_embeddings"], document["max_position_embeddings"]
    for name, value, most in (
        ("max_sent_length_by_word", max_sent_length_by_word, positions[0]),
        ("loop_sent_number_per_doc", loop_sent_number_per_doc or 1, positions[1]),
    ):
        if not 1 <= value <= most:
            raise ConfigError("more than there are positions", where=name, found=value, expected=f"1 to {most}")
    for name in ("hidden_size", "hidden_dropout_prob"):
        if document[name] != sentence[name]:
            found, expected = f"{sentence[name]} and {document[name]}", "one number for both levels"
            raise WeightsError("the levels differ", where=name, found=found, expected=expected)
    config = SmithConfig.as_released(
        sentence["vocab_size"],
        block=max_sent_length_by_word,
        blocks=loop_sent_number_per_doc or min(64, positions[1]),
        sentence_layers=sentence["num_hidden_layers"],
        document_layers=document["num_hidden_layers"],
        dim=sentence["hidden_size"],
        heads=sentence["num_attention_heads"],
        hidden=sentence["intermediate_size"],
        document_heads=document["num_attention_heads"],
        document_hidden=document["intermediate_size"],
        sentence_positions=positions[0],
        document_positions=positions[1],
        types=sentence["type_vocab_size"],
        dropout=sentence["hidden_dropout_prob"],
        combine=combine,
        combine_size=size,
        shared_heads="seq_rep_from_bert_doc_dense/dense_1/kernel" not in tensors,
    )
    model, heads, more = _loaded(config, tensors)
    both = (*notes, *more)
    return OfficialSmith(model, heads, block=config.block, blocks=loop_sent_number_per_doc, notes=both).eval()


def read_official(source: Mapping[str, Any] | str | os.PathLike[str]) -> dict[str, Tensor]:
    """Tensors by TensorFlow's names, from whatever a released SMITH can come in.

    Args:
        source: a checkpoint of TensorFlow (its prefix, e.g. model.ckpt-400000, or its .index or .data file), a .npz, a
            mapping of tensors or arrays, or what `pipelines.weights.read_state_dict` reads. What an optimiser keeps in
            a checkpoint is not read: empty tensors stand for it, so that it can be counted.

    Raises:
        WeightsError: missing, damaged, or NaN or infinity in a tensor.

    Complexity: O(bytes).

    Example:
        >>> read_official({"bert/pooler/dense/bias:0": np.zeros(2, np.float32)})
        {'bert/pooler/dense/bias': tensor([0., 0.])}
    """
    from pipelines.weights import read_state_dict

    prefix = bundle_prefix(source)
    arrays: Mapping[str, Any]
    if isinstance(source, Mapping):
        arrays = source
    elif prefix is not None:
        arrays = read_bundle(prefix, skip=_SLOT.fullmatch)
    elif str(source).endswith(".npz"):
        arrays = _npz(pathlib.Path(source).expanduser())
    else:
        return read_state_dict(source)
    tensors = {str(name).removesuffix(":0"): _tensor(value) for name, value in arrays.items()}
    return read_state_dict(tensors)


def released_name(name: str) -> tuple[str, bool]:
    """The released variable of a parameter of `Smith` or `PretrainingHeads`, and whether it is the transpose.

    Raises:
        KeyError: the released model has no such parameter.

    Example:
        >>> released_name("documents.layers.2.expand.weight")
        ('doc_bert/doc_encoder/layer_2/intermediate/dense/kernel', True)
    """
    if name in _TENSORS:
        return _TENSORS[name], False
    module, _, leaf = name.rpartition(".")
    scope = _MODULES.get(module)
    if scope is None:
        stack, number, part = re.fullmatch(r"(.*)[.]layers[.](\d+)[.](.*)", module).groups()  # type: ignore[union-attr]
        scope = f"{_STACKS[stack]}/layer_{number}/{_LAYER[part]}"
    names = ("gamma", "beta") if scope.endswith("LayerNorm") else ("kernel", "bias")
    found = names[("weight", "bias").index(leaf)]
    return f"{scope}/{found}", found == "kernel"


def _npz(path: pathlib.Path) -> dict[str, Any]:
    if not path.is_file():
        raise WeightsError("no such file of weights", where=path, cure="check the path")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, MemoryError) as error:
        raise WeightsError("damaged, or not a .npz of arrays", where=path, found=str(error)[:160]) from error


def _tensor(value: Any) -> Any:
    """Arrays of numbers as tensors; anything else as it is, for `read_state_dict` to refuse."""
    plain = isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "fiub"
    return torch.from_numpy(np.array(value)) if plain else value


def _left_out(count: int) -> tuple[str, ...]:
    if not count:
        return ()
    note = f"{count} tensors of the optimiser left out"
    _LOGGER.info("smith: %s", note)
    return (note,)


def _shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    return tuple(tensors[name].shape) if name in tensors else ()


def _sizes(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sizes of the sentence encoder and of the document encoder, by the keys of the released JSON files."""
    both: list[dict[str, Any]] = []
    try:
        for scope, table in (("bert/encoder", "bert/embeddings"), ("doc_bert/doc_encoder", "doc_bert/doc_embeddings")):
            positions, width = _shape(tensors, f"{table}/position_embeddings")
            _, hidden = _shape(tensors, f"{scope}/layer_0/intermediate/dense/kernel")
            matches = (re.fullmatch(rf"{scope}/layer_(\d+)/.*", name) for name in tensors)
            layers = len({match[1] for match in matches if match})
            names = ("hidden_size", "num_hidden_layers", "intermediate_size", "max_position_embeddings")
            both.append(dict(zip(names, (width, layers, hidden, positions), strict=True)))
        words, _ = _shape(tensors, "bert/embeddings/word_embeddings")
        types, _ = _shape(tensors, "bert/embeddings/token_type_embeddings")
    except ValueError:
        expected = "variables of bert/ and doc_bert/ with their embeddings and layers from 0"
        found = ", ".join(list(tensors)[:3]) or "no tensor"
        raise WeightsError("not a checkpoint of smith", found=found, expected=expected) from None
    return both[0] | {"vocab_size": words, "type_vocab_size": types}, both[1]


def _agreed(
    where: str,
    given: Mapping[str, Any] | str | os.PathLike[str] | None,
    found: dict[str, Any],
    *,
    heads: int | None,
) -> dict[str, Any]:
    """Sizes from the tensors, held against a released configuration, and what that says besides."""
    values: dict[str, Any] = dict(given) if isinstance(given, Mapping) else _json(given) if given is not None else {}
    known = (*found, *_UNSEEN, *_IDLE)
    unknown = [name for name in values if name not in known]
    if unknown:
        raise ConfigError("smith has no such size", where=where, found=unknown[0], expected=", ".join(known))
    for name, value in found.items():
        agree(f"{where}.{name}", values.get(name), value)
    agree(f"{where}.hidden_act", values.get("hidden_act"), "gelu")
    heads, width = values.get("num_attention_heads", heads), found["hidden_size"]
    if heads is None:
        cure = f'pass {where}={{"num_attention_heads": ...}}'
        raise ConfigError("shapes do not tell num_attention_heads", where=where, found=f"{width} channels", cure=cure)
    if not isinstance(heads, int) or heads < 1 or width % heads:
        expected = f"a divisor of {width}"
        raise ConfigError("does not fit", where=f"{where}.num_attention_heads", found=heads, expected=expected)
    dropout = values.get("hidden_dropout_prob", 0.1)
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        expected = "0 to below 1"
        raise ConfigError("out of range", where=f"{where}.hidden_dropout_prob", found=dropout, expected=expected)
    return found | {"num_attention_heads": heads, "hidden_dropout_prob": dropout}


def _json(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        values = json.loads(pathlib.Path(path).expanduser().read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError("cannot be read as JSON", where=path, found=str(error)[:160]) from error
    if not isinstance(values, dict):
        raise ConfigError("holds no sizes", where=path, found=type(values).__name__, expected="an object of JSON")
    return values


def _combination(tensors: Mapping[str, Tensor], mode: str | None, size: int | None) -> tuple[str, int]:
    shape = _shape(tensors, "combine_reps_attention/context_vector")
    if not shape:
        if mode == "attention":
            agree("doc_rep_combine_mode", mode, "normal")
        return mode or "normal", size or 256
    agree("doc_rep_combine_attention_size", size, shape[0])
    return agree("doc_rep_combine_mode", mode, "attention"), shape[0]


def _loaded(
    config: SmithConfig, tensors: Mapping[str, Tensor]
) -> tuple[Smith, PretrainingHeads | None, tuple[str, ...]]:
    """Model and heads with their tensors; memory is taken only after all of them were found to fit."""
    present = {name for name, kernel in _HEADS.items() if kernel in tensors}
    rows = _shape(tensors, _BIAS)
    with torch.device("meta"):
        model = Smith(config)
        heads = PretrainingHeads(config, block_bias=rows[0] if rows else 0)
    parts = {"words": "word_", "blocks": "block_"}
    wanted = {
        name: value
        for name, value in heads.state_dict().items()
        if any(name.startswith(parts[head]) for head in present)
    }
    own = model.state_dict() | wanted
    expected = nn.Module()  # holds what must be there under the released names, for one message about all of it
    for name, value in own.items():
        released, turned = released_name(name)
        expected.register_buffer(released, value.T if turned else value)
    kept = check_shapes(expected, tensors, name="smith")
    state = {name: kept[released_name(name)[0]] for name in own}
    state = {name: value.T if released_name(name)[1] else value for name, value in state.items()}
    model = Smith(config)
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    if not present:
        return model, None, ()
    heads = PretrainingHeads(config, block_bias=rows[0] if rows else 0)
    heads.load_state_dict({name: state[name] for name in wanted}, strict=False)
    absent = tuple(f"no head of masked {name} in it: a new one" for name in _HEADS if name not in present)
    return model, heads, absent
