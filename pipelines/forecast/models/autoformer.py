"""Autoformer (arXiv 2106.13008): an encoder and a decoder that split off the trend and mix rows by auto-correlation.

The forward signature, the state-dict names and both behaviours (training and eval choose lags differently) are the
released code's. Its unused positional table is not stored, only written back by `official_state_dict`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core_attention.layers import SeriesDecomposition
from core_attention.positions import sinusoidal
from pipelines.errors import ConfigError, WeightsError
from pipelines.forecast.models.autoformer_layers import (
    DataEmbedding,
    Decoder,
    DecoderLayer,
    Embed,
    Encoder,
    EncoderLayer,
)
from pipelines.forecast.models.mixers import sequence_mixer
from pipelines.official import agree, check_shapes

__all__ = ["FREQ_MARKS", "Autoformer", "from_official"]

FREQ_MARKS = {"h": 4, "t": 5, "s": 6, "m": 1, "a": 1, "w": 2, "d": 3, "b": 3}
"""Time features per row for each of the released code's frequency letters (`embed="timeF"`)."""

PE_ROWS = 5000
"""Rows of the released code's unused positional table."""

_log = logging.getLogger("pipelines.forecast.autoformer")


class Autoformer(nn.Module):
    """Autoformer with the released code's names, signature and behaviour (arXiv 2106.13008).

    Args:
        seq_len: L, rows of a window.
        label_len: context rows repeated in front of the decoder.
        pred_len: H, rows to forecast.
        enc_in: M, channels of the window. dec_in: channels of the decoder's input, the same. c_out: channels out.
        d_model: width. n_heads: heads. e_layers: encoder layers. d_layers: decoder layers. d_ff: feed-forward width.
        moving_avg: rows of the moving average, odd.
        factor: int(factor * ln(rows)) lags are aggregated.
        dropout: probability of dropping an activation in training.
        embed: time features ("timeF"), or tables of whole numbers that are fixed or learned.
        freq: letter that sets how many marks a row has (`FREQ_MARKS`). activation: "gelu" or "relu".
        output_attention: also return each encoder layer's correlation.
        marks: how many marks a row has, instead of `freq`; 0 for none.
        attention: the mechanism that mixes; any of `core_attention.names()` that takes a context.

    Raises:
        ConfigError: sizes that do not fit each other, or a mechanism without context.

    Parameters 10,535,943 at the defaults. Time O(L log L + L d_model d_ff) per window, memory O(L (d_model + d_ff)).

    Example:
        >>> model = Autoformer(24, 12, 12, d_model=16, n_heads=2, d_ff=32).eval()
        >>> marks, rows = torch.zeros(2, 24, 4), torch.zeros(2, 24, 7)
        >>> model(torch.randn(2, 24, 7), marks, rows, marks).shape
        torch.Size([2, 12, 7])
    """

    def __init__(
        self,
        seq_len: int = 96,
        label_len: int = 48,
        pred_len: int = 96,
        *,
        enc_in: int = 7,
        dec_in: int = 7,
        c_out: int = 7,
        d_model: int = 512,
        n_heads: int = 8,
        e_layers: int = 2,
        d_layers: int = 1,
        d_ff: int = 2048,
        moving_avg: int = 25,
        factor: float = 3.0,
        dropout: float = 0.05,
        embed: Embed = "timeF",
        freq: str = "h",
        activation: str = "gelu",
        output_attention: bool = False,
        marks: int | None = None,
        attention: str = "auto_correlation",
    ) -> None:
        super().__init__()
        self.seq_len, self.label_len, self.pred_len = seq_len, label_len, pred_len
        self.output_attention, self.embed, self.attention = output_attention, embed, attention
        self.n_heads, self.d_model = n_heads, d_model
        self._check(enc_in, dec_in, c_out)
        count = _marks(freq, embed) if marks is None else marks
        self.decomposition = SeriesDecomposition(moving_avg)
        self.enc_embedding = DataEmbedding(enc_in, d_model, count, embed, dropout)
        self.dec_embedding = DataEmbedding(dec_in, d_model, count, embed, dropout)

        def mixer(length: int) -> nn.Module:
            options: dict[str, Any] = {"factor": factor} if attention == "auto_correlation" else {}
            return sequence_mixer(attention, d_model, n_heads, length=length, context=True, **options)

        shared = (d_ff, moving_avg, dropout, activation)
        total = label_len + pred_len
        encoder = [EncoderLayer(mixer(seq_len), d_model, *shared) for _ in range(e_layers)]
        decoder = [DecoderLayer(mixer(total), mixer(total), d_model, c_out, *shared) for _ in range(d_layers)]
        self.encoder = Encoder(encoder, d_model)
        self.decoder = Decoder(decoder, d_model, c_out)

    def _check(self, enc_in: int, dec_in: int, c_out: int) -> None:
        if not enc_in == dec_in or c_out not in (1, enc_in):
            raise ConfigError(
                "channels do not fit",
                where="enc_in, dec_in, c_out",
                found=f"{enc_in}, {dec_in}, {c_out}",
                expected="three equal numbers (c_out may be 1): the decoder starts from the window's own parts",
            )
        if not 0 <= self.label_len <= self.seq_len:
            raise ConfigError(
                "label rows are taken from the context",
                where="label_len",
                found=self.label_len,
                expected=f"0 to {self.seq_len}",
            )

    def forward(
        self,
        x_enc: Tensor,
        x_mark_enc: Tensor,
        x_dec: Tensor,
        x_mark_dec: Tensor,
        enc_self_mask: Tensor | None = None,
        dec_self_mask: Tensor | None = None,
        dec_enc_mask: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, list[Tensor | None]]:
        """Forecast the next `pred_len` rows.

        Args:
            x_enc: window (B, L, M).
            x_mark_enc: marks of the window (B, L, F).
            x_dec: not read; the decoder starts from the window's season and trend (kept for the signature).
            x_mark_dec: marks of the last `label_len` and the next `pred_len` rows (B, label_len + pred_len, F).
            enc_self_mask, dec_self_mask, dec_enc_mask: not read, as in the released code.

        Returns:
            (B, H, c_out); with `output_attention` also a list of the encoder layers' correlations (B, L, heads, width).
        """
        del x_dec, enc_self_mask, dec_self_mask, dec_enc_mask
        label, ahead = self.label_len, self.pred_len
        seasonal, trend = self.decomposition(x_enc)
        tail = x_enc.shape[1] - label
        trend = torch.cat([trend[:, tail:], x_enc.mean(1, keepdim=True).expand(-1, ahead, -1)], dim=1)
        seasonal = F.pad(seasonal[:, tail:], (0, 0, 0, ahead))
        rows = self.enc_embedding(x_enc, x_mark_enc)
        correlations: list[Tensor | None] = []
        if self.output_attention:
            encoded = self._encode_with_correlations(rows, correlations)
        else:
            encoded = self.encoder(rows)
        forecast = self.decoder(self.dec_embedding(seasonal, x_mark_dec), encoded, trend, ahead)
        return (forecast, correlations) if self.output_attention else forecast

    def _encode_with_correlations(self, x: Tensor, correlations: list[Tensor | None]) -> Tensor:
        for layer in self.encoder.attn_layers:
            correlations.append(self._correlation(cast(EncoderLayer, layer).attention, x))
            x = layer(x)
        return self.encoder.norm(x)

    def _correlation(self, attention: nn.Module, x: Tensor) -> Tensor | None:
        """Per channel, at every lag: the inverse FFT of F(q) conj(F(k)); (B, L, heads, width)."""
        if self.attention != "auto_correlation":
            return None
        query, key = (
            torch.fft.rfft(attention.get_submodule(f"{name}_projection")(x), dim=1) for name in ("query", "key")
        )
        return torch.fft.irfft(query * key.conj(), n=x.shape[1], dim=1).unflatten(2, (self.n_heads, -1))

    def official_state_dict(self) -> dict[str, Tensor]:
        """The state dict with the released code's two unused positional tables written back (51 tensors).

        Example:
            >>> model = Autoformer(8, 4, 4, d_model=4, n_heads=1, d_ff=8)
            >>> len(model.state_dict()), len(model.official_state_dict())
            (49, 51)
        """
        state = dict(self.state_dict())
        table = sinusoidal(PE_ROWS, self.d_model)[None]
        for side in ("enc", "dec"):
            state[f"{side}_embedding.position_embedding.pe"] = table.clone()
        return state


def _marks(freq: str, embed: Embed) -> int:
    if embed != "timeF":
        return 5 if freq == "t" else 4
    if freq not in FREQ_MARKS:
        raise ConfigError("unknown frequency letter", where="freq", found=freq, expected=", ".join(FREQ_MARKS))
    return FREQ_MARKS[freq]


def from_official(
    state_dict: Mapping[str, Tensor],
    *,
    seq_len: int = 96,
    label_len: int = 48,
    pred_len: int = 96,
    n_heads: int | None = None,
    factor: float | None = None,
    moving_avg: int | None = None,
    enc_in: int | None = None,
    dec_in: int | None = None,
    c_out: int | None = None,
    d_model: int | None = None,
    e_layers: int | None = None,
    d_layers: int | None = None,
    d_ff: int | None = None,
    embed: str | None = None,
    freq: str | None = None,
    dropout: float = 0.05,
    activation: str = "gelu",
    output_attention: bool = False,
) -> Autoformer:
    """The Autoformer of a released state dict, in eval mode.

    Sizes are read off the tensors and what is given is held against them. What shapes cannot tell is taken as given,
    else from the released scripts (8 heads, factor 3, a moving average of 25 rows), and a log line says so.

    Args:
        state_dict: tensors by the released names, with or without the two unused positional tables.
        others: the released constructor's names; see `Autoformer`.

    Raises:
        WeightsError: tensors missing, unexpected or of other shapes, or an argument that they contradict.
        ConfigError: an argument that cannot be.

    Example:
        >>> state = Autoformer(24, 12, 12, d_model=16, n_heads=2, d_ff=32).official_state_dict()
        >>> from_official(state, seq_len=24, label_len=12, pred_len=12, n_heads=2, factor=3, moving_avg=25).d_model
        16
    """
    found = _sizes(state_dict)
    kind, marks = found.pop("embed"), found.pop("marks")
    given = {
        "enc_in": enc_in, "dec_in": dec_in, "c_out": c_out, "d_model": d_model,
        "e_layers": e_layers, "d_layers": d_layers, "d_ff": d_ff,
    }  # fmt: skip
    for key, value in given.items():
        agree(key, value, found[key])
    if embed is not None:
        agree("embed", "timeF" if embed == "timeF" else "fixed" if embed == "fixed" else "learned", kind)
    if freq is not None:
        agree("freq", _marks(freq, kind), marks)
    assumed = {"n_heads": (n_heads, 8), "factor": (factor, 3.0), "moving_avg": (moving_avg, 25)}
    free = {key: default if value is None else value for key, (value, default) in assumed.items()}
    missing = [f"{key}={default}" for key, (value, default) in assumed.items() if value is None]
    if missing:
        _log.warning("autoformer: shapes cannot tell %s; the released scripts' values are used", ", ".join(missing))
    if found["d_model"] % free["n_heads"]:
        raise ConfigError(
            "heads do not divide the width",
            where="n_heads",
            found=free["n_heads"],
            expected=f"a divisor of {found['d_model']}",
        )
    model = Autoformer(
        seq_len, label_len, pred_len,
        **found, **free, embed=kind, marks=marks, dropout=dropout, activation=activation,
        output_attention=output_attention,
    )  # fmt: skip
    kept = check_shapes(
        model, state_dict, name="autoformer", ignore=(r"(enc|dec)_embedding[.]position_embedding[.]pe",)
    )
    model.load_state_dict(kept)
    return model.eval()


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Every size that names and shapes tell."""
    tokens = "embedding.value_embedding.tokenConv.weight"
    needed = (f"enc_{tokens}", f"dec_{tokens}", "encoder.attn_layers.0.conv1.weight", "decoder.projection.weight")
    absent = [key for key in needed if key not in state or state[key].ndim < 2]
    if absent:
        raise WeightsError(
            "not a state dict of autoformer", found=", ".join(list(state)[:4]) or "no tensor", expected=absent[0]
        )
    embed, marks = _embedding(state)
    return {
        "d_model": state[needed[0]].shape[0],
        "enc_in": state[needed[0]].shape[1],
        "dec_in": state[needed[1]].shape[1],
        "d_ff": state[needed[2]].shape[0],
        "c_out": state[needed[3]].shape[0],
        "e_layers": _count(r"encoder[.]attn_layers[.](\d+)[.]", state),
        "d_layers": _count(r"decoder[.]layers[.](\d+)[.]", state),
        "embed": embed,
        "marks": marks,
    }


def _embedding(state: Mapping[str, Tensor]) -> tuple[Embed, int]:
    """Which embedding of marks the tensors are, and how many marks a row has."""
    prefix = "enc_embedding.temporal_embedding"
    fields = 5 if any(key.startswith(f"{prefix}.minute_embed") for key in state) else 4
    if f"{prefix}.embed.weight" in state:
        return "timeF", state[f"{prefix}.embed.weight"].shape[1]
    if f"{prefix}.hour_embed.emb.weight" in state:
        return "fixed", fields
    if f"{prefix}.hour_embed.weight" in state:
        return "learned", fields
    raise WeightsError(
        "an embedding of time that the released Autoformer does not have",
        found=", ".join(key for key in state if key.startswith("enc_embedding")),
        expected=f"{prefix}.embed.weight (timeF) or {prefix}.hour_embed... (fixed, learned)",
    )


def _count(pattern: str, state: Mapping[str, Tensor]) -> int:
    return len({match[1] for key in state if (match := re.match(pattern, key))})
