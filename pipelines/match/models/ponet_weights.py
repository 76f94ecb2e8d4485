"""Released PoNet weights as models: the encoder, with the pre-training heads or a classifier, behind any prefix."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipelines.errors import ConfigError, WeightsError
from pipelines.match.models.ponet import PoNetConfig, PoNetModel
from pipelines.match.models.ponet_heads import (
    PoNetForPreTraining,
    PoNetForSequenceClassification,
    PoNetForTokenClassification,
)
from pipelines.official import agree, check_shapes

__all__ = ["from_official"]

_WORDS = "embeddings.word_embeddings.weight"
_POSITIONS = "embeddings.position_embeddings.weight"
#: Numbers that older checkpoints store beside the weights.
_STORED = r".*embeddings[.](?:position_ids|token_type_ids)"


def from_official(
    state_dict: Mapping[str, Tensor],
    *,
    vocab_size: int | None = None,
    hidden_size: int | None = None,
    num_hidden_layers: int | None = None,
    num_attention_heads: int | None = None,
    intermediate_size: int | None = None,
    max_position_embeddings: int | None = None,
    type_vocab_size: int | None = None,
    num_labels: int | None = None,
    hidden_act: str = "gelu",
    hidden_dropout_prob: float = 0.1,
    layer_norm_eps: float = 1e-12,
    pad_token_id: int = 0,
    clsgsepg: bool = True,
    cls_token_id: int = 101,
    sep_token_id: int = 102,
    attention_probs_dropout_prob: float | None = None,
    initializer_range: float = 0.02,
    position_embedding_type: str | None = None,
    is_decoder: bool | None = None,
    add_cross_attention: bool | None = None,
) -> nn.Module:
    """The model of a released state dict, in eval mode; its forward is the released one.

    Which model it is, and all sizes but the number of heads, are read off the tensors; what is given is held against
    them. More positions than the table has are made by repeating it, as its author does for long texts.

    Args:
        state_dict: tensors by the released names, the encoder's behind any prefix.
        vocab_size, hidden_size, num_hidden_layers, intermediate_size, type_vocab_size, num_labels: held against it.
        num_attention_heads: heads, which no tensor shows; one for every 64 channels by default.
        max_position_embeddings: as many positions as the table has, or more.
        hidden_act, hidden_dropout_prob, layer_norm_eps, pad_token_id, clsgsepg, cls_token_id, sep_token_id: as of
            `PoNetConfig`; no tensor shows them.
        attention_probs_dropout_prob, initializer_range: released arguments that change nothing in a trained model.
        position_embedding_type, is_decoder, add_cross_attention: only "absolute" and False, as released.

    Returns:
        `PoNetModel`, `PoNetForPreTraining`, `PoNetForSequenceClassification` or, where the encoder has no map of the
        first token, `PoNetForTokenClassification`.

    Raises:
        WeightsError: tensors missing, unexpected or of other shapes, or an argument that contradicts them.
        ConfigError: heads that do not divide the channels, or an unknown activation.

    Complexity: O(bytes).

    Example:
        >>> model = PoNetModel(PoNetConfig(120, 64, 2, 1, 24, 40))
        >>> again = from_official({f"bert.{k}": v for k, v in model.state_dict().items()}, max_position_embeddings=100)
        >>> again.config.num_attention_heads, again.embeddings.position_embeddings.weight.shape
        (1, torch.Size([100, 64]))
    """
    del attention_probs_dropout_prob
    agree("position_embedding_type", position_embedding_type, "absolute")
    agree("is_decoder", is_decoder, False)
    agree("add_cross_attention", add_cross_attention, False)
    tensors, prefixed = _by_released_names(state_dict)
    sizes = _sizes(tensors, "ponet." if prefixed else "")
    given = {"vocab_size": vocab_size, "hidden_size": hidden_size, "num_hidden_layers": num_hidden_layers}
    given |= {"intermediate_size": intermediate_size, "type_vocab_size": type_vocab_size}
    for name, value in given.items():
        agree(name, value, sizes[name])
    if num_attention_heads is None:
        num_attention_heads = _usual_heads(sizes["hidden_size"])
    positions = "ponet." + _POSITIONS if prefixed else _POSITIONS
    if max_position_embeddings is not None:
        tensors[positions] = _repeated(tensors[positions], max_position_embeddings)
        sizes["max_position_embeddings"] = max_position_embeddings
    config = PoNetConfig(
        **sizes,
        num_attention_heads=num_attention_heads,
        hidden_act=hidden_act,
        hidden_dropout_prob=hidden_dropout_prob,
        layer_norm_eps=layer_norm_eps,
        initializer_range=initializer_range,
        pad_token_id=pad_token_id,
        clsgsepg=clsgsepg,
        cls_token_id=cls_token_id,
        sep_token_id=sep_token_id,
    )
    return _loaded(config, tensors, prefixed, num_labels)


def _by_released_names(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """Tensors by the plain released names, and whether the encoder stands below ``ponet.`` beside a head."""
    words = [key for key in state_dict if re.fullmatch(rf"(?:.*[.])?{re.escape(_WORDS)}", key)]
    if len(words) != 1:
        found = ", ".join(list(state_dict)[:4]) or "no tensor"
        expected = f"one {_WORDS} behind any prefix, and encoder.layer.*.attention.self.dense_*"
        raise WeightsError("not a state dict of ponet", found=found, expected=expected)
    prefix = words[0].removesuffix(_WORDS)
    kept = {key: value for key, value in state_dict.items() if not re.fullmatch(_STORED, key)}
    heads = any(key.startswith(("cls.", "classifier.")) for key in kept)
    lead = "ponet." if heads else ""
    named = {lead + key.removeprefix(prefix) if key.startswith(prefix) else key: kept[key] for key in kept}
    if not heads or not any(key.startswith("cls.") for key in kept):
        return named, heads
    # The bias of the words is stored twice, and the shared weight once or twice.
    bias = named.pop("cls.predictions.bias", None)
    if bias is not None:
        own = named.setdefault("cls.predictions.decoder.bias", bias)
        if not torch.equal(own, bias):
            where = "cls.predictions.decoder.bias"
            raise WeightsError("differs from cls.predictions.bias, which is the same tensor", where=where)
    own = named.setdefault("cls.predictions.decoder.weight", named[lead + _WORDS])
    if own.shape == named[lead + _WORDS].shape and not torch.equal(own, named[lead + _WORDS]):
        cure = "the released model shares both; keep the encoder alone, without cls.*"
        where = "cls.predictions.decoder.weight"
        raise WeightsError("differs from the word embeddings", where=where, cure=cure)
    return named, heads


def _sizes(tensors: Mapping[str, Tensor], lead: str) -> dict[str, int]:
    shapes: dict[str, tuple[int, ...]] = {key: tuple(getattr(value, "shape", ())) for key, value in tensors.items()}
    pattern = re.compile(rf"{re.escape(lead)}encoder[.]layer[.](\d+)[.]attention[.]self[.]dense_local[.]weight")
    layers = {int(match[1]) for key in shapes if (match := pattern.fullmatch(key))}
    try:
        words, width = shapes[lead + _WORDS]
        positions, _ = shapes[lead + _POSITIONS]
        parts, _ = shapes[lead + "embeddings.token_type_embeddings.weight"]
        inner, _ = shapes[lead + "encoder.layer.0.intermediate.dense.weight"]
    except (KeyError, ValueError):
        found = ", ".join(list(tensors)[:4])
        expected = "embeddings of words, positions and parts, and encoder.layer.0.intermediate.dense.weight"
        raise WeightsError("not a state dict of ponet", found=found, expected=expected) from None
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size", "max_position_embeddings")
    values = (words, width, max(layers, default=0) + 1, inner, positions)
    return {**dict(zip(names, values, strict=True)), "type_vocab_size": parts}


def _usual_heads(width: int) -> int:
    if width % 64:
        problem = f"cannot be told of {width} channels, which are no multiple of 64"
        raise ConfigError(problem, where="num_attention_heads", found=None, expected="the number of heads")
    return width // 64


def _repeated(table: Tensor, count: int) -> Tensor:
    """The positions (count, C): the table over and over."""
    if count < len(table):
        expected = f"at least {len(table)}, or nothing"
        raise WeightsError("fewer than stored", where="max_position_embeddings", found=count, expected=expected)
    return table[torch.arange(count) % len(table)]


def _loaded(config: PoNetConfig, tensors: dict[str, Tensor], heads: bool, num_labels: int | None) -> nn.Module:
    """The model with its tensors; memory is taken only after all of them were found to fit."""
    with torch.device("meta"):
        if not heads:
            agree("num_labels", num_labels, None)
            model: nn.Module = PoNetModel(config, add_pooling_layer="pooler.dense.weight" in tensors)
        elif any(key.startswith("cls.") for key in tensors):
            agree("num_labels", num_labels, None)
            model = PoNetForPreTraining(config)
        else:
            found = len(tensors.get("classifier.weight", torch.empty(1, 1)))
            agree("num_labels", num_labels, found)
            of_texts = "ponet.pooler.dense.weight" in tensors
            model = (PoNetForSequenceClassification if of_texts else PoNetForTokenClassification)(config, found)
    kept = check_shapes(model, tensors, name="ponet")
    model.to_empty(device="cpu")
    if isinstance(model, PoNetForPreTraining):
        model.tie_weights()
    model.load_state_dict(kept)
    return model.eval()
