"""VSFormer: a branch of shapes and a branch of values, mixed by attention that knows each token's class prior.

Source: VSFormer (arXiv 2412.16515, 2024). No code was released: this is a reading of the description, sizes are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from core_attention import MechanismError, build, spec
from core_attention.layers import FeedForward
from pipelines.errors import ConfigError

__all__ = ["Branch", "MixerLayer", "TSIEncoding", "VSFormer", "class_mixer"]

_NARROW = 8  # channels a token in the vector that the decision layer reads
_LEAST_PRIOR = 0.02  # of a token in the mean over a branch


def class_mixer(attention: str, dim: int, heads: int, *, length: int, **options: Any) -> nn.Module:
    """Any registered mixer of sequences, for tokens that have priors.

    Raises:
        ConfigError: no such mechanism, or one that does not fit.
    """
    try:
        about = spec(attention)
        if about.kind != "mixer" or 1 not in about.grid or set(about.extras) - {"prior"}:
            raise ConfigError(
                f"{attention} does not mix sequences of tokens",
                where="attention",
                cure="`pipelines mechanisms` lists what there is; prior_enhanced is VSFormer's own",
            )
        if about.fixed_length:
            options["length"] = length
        return build(attention, dim, heads, **options)
    except MechanismError as error:
        raise ConfigError(str(error), where="attention", cure="`pipelines mechanisms` lists what there is") from error


def _embedding(given: int, dim: int) -> nn.Module:
    """Two maps with a bend between: a deviation of 0.1 and one of 1 tell more apart than 1 and 1.9 do."""
    return nn.Sequential(nn.Linear(given, dim), nn.GELU(), nn.Linear(dim, dim))


class TSIEncoding(nn.Module):
    """Time-series information of a token, added to its embedding: variable, place, class, prior.

    Args:
        dim: channels.
        variables: V.
        places: numbers that say where the token lies.
        classes: C, for tokens that belong to one; 0 for those that do not.

    Source: VSFormer, "Time Series Information encoding", which replaces the encoding of positions.
    """

    def __init__(self, dim: int, variables: int, places: int, classes: int = 0) -> None:
        super().__init__()
        self.variable = nn.Embedding(variables, dim)
        self.place = nn.Linear(places, dim)
        self.prior = nn.Linear(1, dim, bias=False)
        self.label = nn.Embedding(classes, dim) if classes else None
        for table in (self.variable, self.label):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02)

    def forward(self, variable: Tensor, place: Tensor, prior: Tensor, label: Tensor | None = None) -> Tensor:
        """Variable (T,), place (B, T, places) or (T, places), prior (T,), label (T,) -> (B, T, C) or (T, C)."""
        total = self.variable(variable) + self.place(place) + self.prior(prior.unsqueeze(-1))
        return total if self.label is None or label is None else total + self.label(label)


class MixerLayer(nn.Module):
    """x + mixer(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, mixer: nn.Module, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.mixer = mixer
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, hidden, dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        about = mixer.spec
        self._extras = "prior" in about.extras, about.mask

    def forward(self, x: Tensor, mask: Tensor, prior: Tensor) -> Tensor:
        wants_prior, wants_mask = self._extras
        given: dict[str, Tensor] = {"prior": prior} if wants_prior else {}
        rows = self.norm1(x)
        if wants_mask:
            given["mask"] = mask
        else:  # a mechanism without masks sees zeros where there is no token
            rows = torch.where(mask.unsqueeze(-1), rows, 0.0)
        x = x + self.dropout(self.mixer(rows, **given).y)
        return x + self.feed_forward(self.norm2(x))


class Branch(nn.Module):
    """Embedded tokens through some layers to one vector: (B, T, C) -> (B, C), or (B, T narrow).

    With ``narrow`` every token keeps a place of its own in the vector (the tokens of VSFormer are the same for all
    series: a motif, an interval of a variable); without, the vector is the mean over valid tokens by prior.
    """

    def __init__(self, layers: list[MixerLayer], dim: int, narrow: int = 0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(dim)
        self.narrow = nn.Linear(dim, narrow) if narrow else None

    def forward(self, x: Tensor, mask: Tensor, prior: Tensor, kept: Tensor | None = None) -> Tensor:
        """Mix and average; a series without a token gives zeros. Only tokens ``kept`` (B, K) are looked at."""
        batch, count, dim = x.shape
        if kept is not None:
            x = x.gather(1, kept.unsqueeze(-1).expand(-1, -1, dim))
            mask, prior = mask.gather(1, kept), prior.gather(1, kept)
        for layer in self.layers:
            x = layer(x, mask, prior)
        if self.narrow is not None:
            told = torch.where(mask.unsqueeze(-1), self.narrow(self.norm(x)), 0.0)
            if kept is not None:
                places = kept.unsqueeze(-1).expand(-1, -1, told.shape[-1])
                told = told.new_zeros(batch, count, told.shape[-1]).scatter(1, places, told)
            return told.flatten(1)
        weight = torch.where(mask, prior.clamp_min(_LEAST_PRIOR), 0.0).unsqueeze(-1).to(x.dtype)
        return (self.norm(x) * weight).sum(1) / weight.sum(1).clamp_min(_LEAST_PRIOR)


class VSFormer(nn.Module):
    """Logits of the classes from shape tokens and value tokens.

    Args:
        tokens: the description of the tokens (``Tokeniser.describe()``), kept as buffers.
        length: steps w of a motif; a shape token has w + 2 numbers.
        variables: V.
        classes: C.
        attention: any sequence mechanism; the paper's is "prior_enhanced".
        form: of prior_enhanced: "product" (as the paper writes it) or "log".
        tsi: whether tokens are told variable, place, class and prior (False: the ablation).
        d_model, n_heads, layers, d_ff: sizes of both branches.
        dropout: probability of dropping a number that the decision layer reads while training.
        token_dropout: probability of hiding a token from its branch while training.

    Raises:
        ConfigError: a mechanism that does not exist or does not fit.

    O((P + Q) d_model^2) and the mechanism's own time; source: VSFormer (arXiv 2412.16515).

    Example:
        >>> from pipelines.classify.tokens import Tokeniser
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> series = [rng.normal(size=(2, 30)).astype(np.float32) for _ in range(8)]
        >>> tokeniser = Tokeniser.fit(series, np.arange(8) % 2, count=1)
        >>> model = VSFormer(tokeniser.describe(), tokeniser.motifs.length, 2, 2)
        >>> batch = {name: torch.from_numpy(value) for name, value in tokeniser(series).items()}
        >>> model.eval()(**batch).shape
        torch.Size([8, 2])
    """

    shape_variable: Tensor
    shape_class: Tensor
    shape_prior: Tensor
    value_variable: Tensor
    value_place: Tensor
    value_prior: Tensor

    def __init__(
        self,
        tokens: Mapping[str, Any],
        length: int,
        variables: int,
        classes: int,
        *,
        attention: str = "prior_enhanced",
        form: str = "product",
        tsi: bool = True,
        d_model: int = 32,
        n_heads: int = 4,
        layers: int = 1,
        d_ff: int = 64,
        dropout: float = 0.1,
        token_dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.token_dropout = token_dropout
        for name, value in tokens.items():
            self.register_buffer(name, torch.as_tensor(value))
        self.tsi = tsi
        self.shape_embedding, self.value_embedding = _embedding(length + 2, d_model), _embedding(3, d_model)
        self.shape_information = TSIEncoding(d_model, variables, 3, classes)
        self.value_information = TSIEncoding(d_model, variables, 2)
        options: dict[str, Any] = {"form": form} if attention == "prior_enhanced" else {}

        def branch(count: int) -> Branch:
            return Branch(
                [
                    MixerLayer(class_mixer(attention, d_model, n_heads, length=count, **options), d_model, d_ff, 0.0)
                    for _ in range(layers)
                ],
                d_model,
                _NARROW,
            )

        self.shape_branch, self.value_branch = branch(len(self.shape_prior)), branch(len(self.value_prior))
        self._any_number = not spec(attention).fixed_length
        self.dropout = nn.Dropout(dropout)
        self.shape_head = nn.Linear(_NARROW * len(self.shape_prior), classes)
        self.value_head = nn.Linear(_NARROW * len(self.value_prior), classes)

    def _drawn(self, valid: Tensor) -> tuple[Tensor, Tensor | None]:
        """Hide a random share of the tokens: with tens of training series no single one may decide.

        The others alone are computed, for which a draw of places (B, K) is returned; a mechanism that takes no other
        number of tokens sees all, the hidden ones masked.
        """
        if not self.training or self.token_dropout == 0:
            return valid, None
        order = torch.rand(valid.shape, device=valid.device)
        if not self._any_number:
            return valid & (order >= self.token_dropout), None
        return valid, order.topk(max(1, round(valid.shape[1] * (1 - self.token_dropout))), dim=1).indices

    def forward(
        self, shape: Tensor, shape_place: Tensor, shape_valid: Tensor, value: Tensor, value_valid: Tensor
    ) -> Tensor:
        """Logits (B, C), the mean of both branches'; arguments as ``Tokeniser.__call__`` gives them.

        While training the logits of each branch (2, B, C): each is judged alone, or the one that fits the training
        series first leaves the other nothing to learn.
        """
        shape_valid, some_shapes = self._drawn(shape_valid)
        value_valid, some_values = self._drawn(value_valid)
        shapes, values = self.shape_embedding(shape), self.value_embedding(value)
        if self.tsi:
            shapes = shapes + self.shape_information(
                self.shape_variable, shape_place, self.shape_prior, self.shape_class
            )
            values = values + self.value_information(self.value_variable, self.value_place, self.value_prior)
        batch = shape.shape[0]
        by_shape = self.shape_branch(shapes, shape_valid, self.shape_prior.expand(batch, -1), some_shapes)
        by_value = self.value_branch(values, value_valid, self.value_prior.expand(batch, -1), some_values)
        logits = self.shape_head(self.dropout(by_shape)), self.value_head(self.dropout(by_value))
        return torch.stack(logits) if self.training else (logits[0] + logits[1]) / 2
