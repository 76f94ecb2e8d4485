"""The heads of the released PoNet model: pre-training, and classes of texts or of tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.errors import InputError
from pipelines.match.models.ponet import ACTIVATIONS, PoNetConfig, PoNetModel, PoNetOutput, start_weights

__all__ = [
    "PoNetForPreTraining",
    "PoNetForSequenceClassification",
    "PoNetForTokenClassification",
    "PoNetPreTrainingOutput",
    "PoNetScores",
]

#: Kinds of order that pre-training tells apart: as it was, swapped, of another document.
ORDERS = 3


class PoNetPreTrainingOutput(NamedTuple):
    """What the released pre-training model returns.

    Attributes:
        loss: sum of both losses, where both kinds of labels are given.
        mlm_loss: cross entropy of the masked words.
        sop_loss: cross entropy of the order of the sentences.
        prediction_logits: (B, T, vocabulary).
        seq_relationship_logits: (B, 3).
        hidden_states, attentions: as of `PoNetOutput`.
    """

    loss: Tensor | None
    mlm_loss: Tensor | None
    sop_loss: Tensor | None
    prediction_logits: Tensor
    seq_relationship_logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class PoNetScores(NamedTuple):
    """What the released classifiers return.

    Attributes:
        loss: where labels are given.
        logits: (B, classes), of tokens (B, T, classes).
        hidden_states, attentions: as of `PoNetOutput`.
    """

    loss: Tensor | None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class _Transform(nn.Module):
    """A linear map, the activation, a norm."""

    def __init__(self, c: PoNetConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(c.hidden_size, c.hidden_size)
        self.LayerNorm = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)
        self.activation = c.hidden_act

    def forward(self, x: Tensor) -> Tensor:
        return self.LayerNorm(ACTIVATIONS[self.activation](self.dense(x)))


class _Predictions(nn.Module):
    """Scores of words; the last map shares the embedding's weights."""

    def __init__(self, c: PoNetConfig) -> None:
        super().__init__()
        self.transform = _Transform(c)
        self.decoder = nn.Linear(c.hidden_size, c.vocab_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.transform(x))


class _PreTrainingHeads(nn.Module):
    def __init__(self, c: PoNetConfig) -> None:
        super().__init__()
        self.predictions = _Predictions(c)
        self.seq_relationship = nn.Linear(c.hidden_size, ORDERS)


class PoNetForPreTraining(nn.Module):
    """The released pre-training model: scores of masked words, and of the order of the sentences.

    Args:
        config: sizes.

    Time O(T C vocabulary) beside the encoder. Source: PoNet (arXiv 2110.02442), section 3, masked words and sentence
    structural objective.

    Example:
        >>> model = PoNetForPreTraining(PoNetConfig(120, 16, 2, 2, 24, 40)).eval()
        >>> out = model(torch.tensor([[101, 7, 8, 102]]))
        >>> out.prediction_logits.shape, out.seq_relationship_logits.shape
        (torch.Size([1, 4, 120]), torch.Size([1, 3]))
    """

    def __init__(self, config: PoNetConfig) -> None:
        super().__init__()
        self.config = config
        self.ponet = PoNetModel(config)
        self.cls = _PreTrainingHeads(config)
        self.cls.apply(lambda module: start_weights(module, config.initializer_range))
        self.tie_weights()

    def tie_weights(self) -> None:
        """Share the embedding's weights with the map to the vocabulary."""
        self.cls.predictions.decoder.weight = self.ponet.embeddings.word_embeddings.weight

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: None = None,
        inputs_embeds: None = None,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> PoNetPreTrainingOutput | tuple[Any, ...]:
        """Scores of words and order; arguments as of `PoNetModel.forward`.

        Args:
            labels: (B, T), the words behind the masks, -100 elsewhere.
            next_sentence_label: (B,), 0 as it was, 1 swapped, 2 of another document; losses need both kinds of labels.

        Raises:
            InputError: as of `PoNetModel.forward`.
        """
        out = _encoded(
            self.ponet,
            (input_ids, attention_mask, token_type_ids, segment_ids, position_ids, head_mask, inputs_embeds),
            (output_attentions, output_hidden_states),
        )
        words = self.cls.predictions(out.last_hidden_state)
        order = self.cls.seq_relationship(out.pooler_output)
        losses: tuple[Tensor | None, ...] = (None, None, None)
        if labels is not None and next_sentence_label is not None:
            masked = F.cross_entropy(words.flatten(0, 1), labels.flatten())
            swapped = F.cross_entropy(order, next_sentence_label.flatten())
            losses = (masked + swapped, masked, swapped)
        found = PoNetPreTrainingOutput(*losses, words, order, out.hidden_states, out.attentions)
        return found if return_dict is None or return_dict else tuple(item for item in found if item is not None)


class _Classifier(nn.Module, ABC):
    """What both classifiers share."""

    def __init__(self, config: PoNetConfig, num_labels: int, first_token: bool) -> None:
        super().__init__()
        self.config, self.num_labels = config, num_labels
        self.ponet = PoNetModel(config, add_pooling_layer=first_token)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, num_labels)
        start_weights(self.classifier, config.initializer_range)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: None = None,
        inputs_embeds: None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> PoNetScores | tuple[Any, ...]:
        """Scores of classes, and their loss where labels are given; arguments as of `PoNetModel.forward`.

        Raises:
            InputError: as of `PoNetModel.forward`, or labels of another shape.
        """
        out = _encoded(
            self.ponet,
            (input_ids, attention_mask, token_type_ids, segment_ids, position_ids, head_mask, inputs_embeds),
            (output_attentions, output_hidden_states),
        )
        features = out.last_hidden_state if out.pooler_output is None else out.pooler_output
        logits = self.classifier(self.dropout(features))
        loss = None if labels is None else self._loss(logits, labels, attention_mask)
        found = PoNetScores(loss, logits, out.hidden_states, out.attentions)
        return found if return_dict is None or return_dict else tuple(item for item in found if item is not None)

    @abstractmethod
    def _loss(self, logits: Tensor, labels: Tensor, attention_mask: Tensor | None) -> Tensor:
        """The loss of labels."""


class PoNetForSequenceClassification(_Classifier):
    """The released classifier of texts: a linear map of the first token.

    Args:
        config: sizes.
        num_labels: classes; 1 for a regression.

    Time as of the encoder. Source: the released model.

    Example:
        >>> model = PoNetForSequenceClassification(PoNetConfig(120, 16, 2, 2, 24, 40), 4).eval()
        >>> model(torch.tensor([[101, 7, 8, 102]])).logits.shape
        torch.Size([1, 4])
    """

    def __init__(self, config: PoNetConfig, num_labels: int = 2) -> None:
        super().__init__(config, num_labels, first_token=True)

    def _loss(self, logits: Tensor, labels: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Squared error of one number, cross entropy of whole labels (B,), else binary of each class (B, classes)."""
        del attention_mask
        _check_labels(labels, logits.shape[:1] if self.num_labels == 1 or not labels.is_floating_point() else None)
        if self.num_labels == 1:
            return F.mse_loss(logits.flatten(), labels.flatten().to(logits.dtype))
        if not labels.is_floating_point():
            return F.cross_entropy(logits, labels.flatten())
        _check_labels(labels, logits.shape)
        return F.binary_cross_entropy_with_logits(logits, labels)


class PoNetForTokenClassification(_Classifier):
    """The released classifier of tokens: a linear map of each.

    Args:
        config: sizes.
        num_labels: classes.

    Time as of the encoder. Source: the released model.

    Example:
        >>> model = PoNetForTokenClassification(PoNetConfig(120, 16, 2, 2, 24, 40), 4).eval()
        >>> model(torch.tensor([[101, 7, 8, 102]])).logits.shape
        torch.Size([1, 4, 4])
    """

    def __init__(self, config: PoNetConfig, num_labels: int = 2) -> None:
        super().__init__(config, num_labels, first_token=False)

    def _loss(self, logits: Tensor, labels: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Cross entropy of the labels (B, T) of valid tokens; -100 counts in none."""
        _check_labels(labels, logits.shape[:2])
        counted = labels if attention_mask is None else torch.where(attention_mask > 0, labels, -100)
        return F.cross_entropy(logits.flatten(0, 1), counted.flatten())


def _encoded(
    model: PoNetModel, inputs: tuple[Tensor | None, ...], requests: tuple[bool | None, bool | None]
) -> PoNetOutput:
    ids, mask, parts, segments, places, heads, embedded = inputs
    out = model(
        ids,
        mask,
        parts,
        segments,
        places,
        head_mask=heads,
        inputs_embeds=embedded,
        output_attentions=requests[0],
        output_hidden_states=requests[1],
    )
    return cast(PoNetOutput, out)


def _check_labels(labels: Tensor, shape: torch.Size | None) -> None:
    if shape is not None and labels.numel() != shape.numel():
        raise InputError("not of these texts", where="labels", found=tuple(labels.shape), expected=tuple(shape))
