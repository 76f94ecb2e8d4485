"""The released PoNet language model (arXiv 2110.02442): BERT with pooling in place of attention, by its released names.

Nothing trained is shipped; `ponet_weights.from_official` opens released weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_attention.mechanisms.pooling import Pooling
from pipelines.errors import ConfigError, InputError

__all__ = ["PoNetConfig", "PoNetModel", "PoNetOutput", "sentence_segments"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}


@dataclass(frozen=True)
class PoNetConfig:
    """Sizes of the model, by the released names; the defaults are those of the base model.

    Attributes:
        vocab_size: kinds of tokens.
        hidden_size: channels C.
        num_hidden_layers: layers.
        num_attention_heads: heads, a divisor of ``hidden_size``.
        intermediate_size: inner width of the feed-forward nets.
        max_position_embeddings: longest sequence.
        type_vocab_size: kinds of parts (``token_type_ids``).
        hidden_act: "gelu", "relu" or "silu".
        hidden_dropout_prob: dropout of everything that a residual takes in.
        layer_norm_eps: what the norms add to the variance.
        initializer_range: spread of the weights before training.
        pad_token_id: the token whose embedding starts as zero.
        clsgsepg: whether [CLS] and [SEP] take in the whole alone, outside the sentences.
        cls_token_id: number of [CLS].
        sep_token_id: number of [SEP].

    Raises:
        ConfigError: a size that is not a positive whole number, heads that do not divide the channels, an unknown
            activation.

    Example:
        >>> PoNetConfig(hidden_size=16, num_attention_heads=3)
        Traceback (most recent call last):
        pipelines.errors.ConfigError: num_attention_heads: does not divide hidden_size. Found: 3. Expected: ...
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_token_id: int = 0
    clsgsepg: bool = True
    cls_token_id: int = 101
    sep_token_id: int = 102

    def __post_init__(self) -> None:
        """Refuse sizes that make no model."""
        sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        for name in (*sizes, "max_position_embeddings", "type_vocab_size"):
            value = asdict(self)[name]
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError("not a size", where=name, found=value, expected="a positive whole number")
        if self.hidden_size % self.num_attention_heads:
            expected = f"a divisor of {self.hidden_size}"
            found = self.num_attention_heads
            problem = "does not divide hidden_size"
            raise ConfigError(problem, where="num_attention_heads", found=found, expected=expected)
        if self.hidden_act not in ACTIVATIONS:
            expected = ", ".join(ACTIVATIONS)
            raise ConfigError("no such activation", where="hidden_act", found=self.hidden_act, expected=expected)


class PoNetOutput(NamedTuple):
    """What the released model returns; with ``return_dict=False`` a plain tuple of what is not None.

    Attributes:
        last_hidden_state: (B, T, C).
        pooler_output: (B, C), of [CLS]; None in a model without that map.
        hidden_states: on request, (B, T, C) of the embeddings and after each layer.
        attentions: on request, (B, H, T) of each layer, the weights of the one summary a head.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


def sentence_segments(special: Tensor) -> Tensor:
    """Numbers (B, T) of the sentences between special tokens, each of which is a segment by itself. O(B T).

    Args:
        special: (B, T) bool, True at [CLS] and [SEP].

    Source: the released code's segments: a new one begins at a special token and right after it.

    Example:
        >>> sentence_segments(torch.tensor([[True, False, False, True, False, True]])).tolist()
        [[0, 1, 1, 2, 3, 4]]
    """
    begins = special.clone()
    begins[:, 1:] |= special[:, :-1]
    begins[:, 0] = False  # the first token begins the first segment, which is number 0
    return begins.cumsum(dim=1)


class _Embeddings(nn.Module):
    """Token, position and part, added and normed."""

    def __init__(self, c: PoNetConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(c.vocab_size, c.hidden_size, padding_idx=c.pad_token_id)
        self.position_embeddings = nn.Embedding(c.max_position_embeddings, c.hidden_size)
        self.token_type_embeddings = nn.Embedding(c.type_vocab_size, c.hidden_size)
        self.LayerNorm = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)
        self.dropout = nn.Dropout(c.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, position_ids: Tensor) -> Tensor:
        parts = self.token_type_embeddings(token_type_ids)
        x = self.word_embeddings(input_ids) + parts + self.position_embeddings(position_ids)
        return self.dropout(self.LayerNorm(x))


class _Residual(nn.Module):
    """A linear map, dropout, the residual added, a norm."""

    def __init__(self, width: int, c: PoNetConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(width, c.hidden_size)
        self.LayerNorm = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)
        self.dropout = nn.Dropout(c.hidden_dropout_prob)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class _Attention(nn.Module):
    """The mechanism ``pooling``, its output map, residual and norm."""

    def __init__(self, c: PoNetConfig) -> None:
        super().__init__()
        self.self = Pooling(c.hidden_size, c.num_attention_heads, output=False)
        self.output = _Residual(c.hidden_size, c)


class _Dense(nn.Module):
    """A linear map under the released name."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x)


class _Layer(nn.Module):
    """Pooling and a feed-forward net, each with a residual and a norm behind."""

    def __init__(self, c: PoNetConfig) -> None:
        super().__init__()
        self.attention = _Attention(c)
        self.intermediate = _Dense(c.hidden_size, c.intermediate_size)
        self.output = _Residual(c.intermediate_size, c)
        self.activation = c.hidden_act

    def forward(self, x: Tensor, mask: Tensor, segments: Tensor, special: Tensor | None) -> tuple[Tensor, Tensor]:
        """The tokens (B, T, C), and the weights of the summaries (B, H, T)."""
        mixed = self.attention.self(x, mask=mask, segments=segments, special=special, maps=True)
        x = self.attention.output(mixed.y, x)
        return self.output(ACTIVATIONS[self.activation](self.intermediate(x)), x), mixed.aux["maps"].squeeze(2)


class _Encoder(nn.Module):
    """The layers under the released name."""

    def __init__(self, c: PoNetConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(c) for _ in range(c.num_hidden_layers))


class PoNetModel(nn.Module):
    """The released encoder: input_ids (B, T) to hidden states (B, T, C), in time linear in T.

    Embeddings, layers of `pooling` and feed-forward nets with norms behind the residuals, and a map of the first token.
    Segments are the sentences between [CLS] and [SEP]; with ``clsgsepg`` those two take in the whole sequence alone.

    Args:
        config: sizes.
        add_pooling_layer: whether the map of the first token is there.

    Time O(layers T C (C + intermediate)), memory O(T (C + intermediate)) a layer. Source: PoNet (arXiv 2110.02442),
    section 3 and the released model; 123,656,448 parameters in base size.

    Example:
        >>> model = PoNetModel(PoNetConfig(120, 16, 2, 2, 24, 40)).eval()
        >>> out = model(torch.tensor([[101, 7, 8, 102, 9, 102]]), output_attentions=True)
        >>> out.last_hidden_state.shape, out.pooler_output.shape, len(out.attentions)
        (torch.Size([1, 6, 16]), torch.Size([1, 16]), 2)
    """

    def __init__(self, config: PoNetConfig, add_pooling_layer: bool = True) -> None:
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)
        self.pooler = _Dense(config.hidden_size, config.hidden_size) if add_pooling_layer else None
        self.apply(lambda module: start_weights(module, config.initializer_range))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: None = None,
        inputs_embeds: None = None,
        encoder_hidden_states: None = None,
        encoder_attention_mask: None = None,
        past_key_values: None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> PoNetOutput | tuple[Tensor | tuple[Tensor, ...], ...]:
        """Encode tokens.

        Args:
            input_ids: (B, T) whole numbers below the vocabulary.
            attention_mask: (B, T), 1 (or True) for valid tokens, 0 for padding.
            token_type_ids: (B, T), the part of each token; zeros by default.
            segment_ids: (B, T) whole numbers from 0 to T - 1, instead of the sentences.
            position_ids: (B, T) or (1, T); 0, 1, 2, ... by default.
            head_mask, inputs_embeds, encoder_hidden_states, encoder_attention_mask, past_key_values, use_cache: places
                of the released signature that its model could not use or ignored; only None (or False) is taken.
            output_attentions: return the weights of the summaries.
            output_hidden_states: return the states after each layer.
            return_dict: False for a plain tuple.

        Returns:
            `PoNetOutput`.

        Raises:
            InputError: no or wrong ids, more tokens than positions, other shapes, or an argument without a use.
        """
        unused = {"head_mask": head_mask, "inputs_embeds": inputs_embeds, "past_key_values": past_key_values}
        unused |= {"encoder_hidden_states": encoder_hidden_states, "encoder_attention_mask": encoder_attention_mask}
        refuse_unused(**unused, use_cache=use_cache or None)
        ids = self._checked(input_ids, attention_mask, token_type_ids, segment_ids)
        places = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0) if position_ids is None else position_ids
        parts = torch.zeros_like(ids) if token_type_ids is None else token_type_ids
        mask = torch.ones_like(ids, dtype=torch.bool) if attention_mask is None else attention_mask > 0
        special = (ids == self.config.cls_token_id) | (ids == self.config.sep_token_id)
        segments = sentence_segments(special) if segment_ids is None else segment_ids
        x = self.embeddings(ids, parts, places)
        states, weights = [x], []
        for layer in self.encoder.layer:
            x, weight = cast(_Layer, layer)(x, mask, segments, special if self.config.clsgsepg else None)
            states.append(x)
            weights.append(weight)
        first = None if self.pooler is None else torch.tanh(self.pooler(x[:, 0]))
        out = PoNetOutput(
            x, first, tuple(states) if output_hidden_states else None, tuple(weights) if output_attentions else None
        )
        return out if return_dict is None or return_dict else tuple(item for item in out if item is not None)

    def _checked(self, input_ids: Tensor | None, *companions: Tensor | None) -> Tensor:
        if input_ids is None:
            problem = "missing: the special tokens, and with them the sentences, are found by their numbers"
            raise InputError(problem, where="input_ids", found=None, expected="(batch, tokens)")
        rows, longest = self.config.vocab_size, self.config.max_position_embeddings
        if input_ids.dim() != 2 or not input_ids.numel() or input_ids.dtype not in (torch.int64, torch.int32):
            found = f"{tuple(input_ids.shape)} of {input_ids.dtype}"
            raise InputError("not tokens", where="input_ids", found=found, expected="(batch, tokens), whole numbers")
        if input_ids.shape[1] > longest:
            cure = "cut the text, or open the weights with max_position_embeddings= of as many tokens"
            found, expected = f"{input_ids.shape[1]} tokens", f"at most {longest}"
            raise InputError("longer than the positions", where="input_ids", found=found, expected=expected, cure=cure)
        low, high = (int(value) for value in input_ids.aminmax())
        if low < 0 or high >= rows:
            found, expected = low if low < 0 else high, f"whole numbers from 0 to {rows - 1}"
            raise InputError("not a token of this vocabulary", where="input_ids", found=found, expected=expected)
        for name, given in zip(("attention_mask", "token_type_ids", "segment_ids"), companions, strict=True):
            if given is not None and given.shape != input_ids.shape:
                expected = tuple(input_ids.shape)
                raise InputError("not of these tokens", where=name, found=tuple(given.shape), expected=expected)
        return input_ids


def refuse_unused(**given: object) -> None:
    """Refuse arguments that the released code takes and does nothing with.

    Raises:
        InputError: one that is not None.
    """
    for name, value in given.items():
        if value is not None:
            cure = "leave it out"
            raise InputError("has no use in this model", where=name, found=type(value).__name__, cure=cure)


@torch.no_grad()
def start_weights(module: nn.Module, spread: float) -> None:
    """Weights before training: normal of this spread, biases and the padding's embedding zero, norms one."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=spread)
    if isinstance(module, nn.Linear) and isinstance(module.bias, Tensor):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        module.weight[module.padding_idx].zero_()
