"""The released Autoformer's arithmetic, transcribed plainly from its equations: the peer of bench_autoformer_step.

Full correlations of every head and channel by FFT, lags by roll (training) or gather (eval) in a loop, 1x1 and circular
convolutions as `Conv1d` on (B, C, L), the moving average as `AvgPool1d` over repeated end rows, a stored positional
table. Names of the parameters are the released ones, so that one state dict serves both sides.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PeerDecomposition(nn.Module):
    def __init__(self, window: int) -> None:
        super().__init__()
        self.half = (window - 1) // 2
        self.pool = nn.AvgPool1d(window, stride=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        padded = torch.cat([x[:, :1].repeat(1, self.half, 1), x, x[:, -1:].repeat(1, self.half, 1)], dim=1)
        trend = self.pool(padded.permute(0, 2, 1)).permute(0, 2, 1)
        return x - trend, trend


class PeerAttention(nn.Module):
    def __init__(self, d_model: int, heads: int, factor: float) -> None:
        super().__init__()
        self.heads, self.factor = heads, factor
        self.query_projection = nn.Linear(d_model, d_model)
        self.key_projection = nn.Linear(d_model, d_model)
        self.value_projection = nn.Linear(d_model, d_model)
        self.out_projection = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = self.query_projection(x), self.key_projection(context), self.value_projection(context)
        q, k, v = (each.unflatten(2, (self.heads, -1)) for each in (q, k, v))
        length, source = q.shape[1], k.shape[1]
        if length > source:
            k, v = (torch.cat([each, torch.zeros_like(q[:, : length - source])], dim=1) for each in (k, v))
        else:
            k, v = k[:, :length], v[:, :length]
        q, k, v = (each.permute(0, 2, 3, 1).contiguous() for each in (q, k, v))
        correlation = torch.fft.irfft(torch.fft.rfft(q) * torch.fft.rfft(k).conj(), n=length)
        mixed = self.training_mix(v, correlation) if self.training else self.eval_mix(v, correlation)
        return self.out_projection(mixed.permute(0, 3, 1, 2).flatten(2))

    def training_mix(self, v: Tensor, correlation: Tensor) -> Tensor:
        count = int(self.factor * math.log(v.shape[-1]))
        mean = correlation.mean(1).mean(1)
        lags = mean.mean(0).topk(count).indices
        weights = torch.softmax(torch.stack([mean[:, lags[i]] for i in range(count)], dim=-1), dim=-1)
        out = torch.zeros_like(v)
        for i in range(count):
            out = out + torch.roll(v, -int(lags[i]), -1) * weights[:, i, None, None, None]
        return out

    def eval_mix(self, v: Tensor, correlation: Tensor) -> Tensor:
        batch, heads, width, length = v.shape
        count = int(self.factor * math.log(length))
        top, lags = correlation.mean(1).mean(1).topk(count, dim=-1)
        weights = torch.softmax(top, dim=-1)
        index = torch.arange(length)[None, None, None].repeat(batch, heads, width, 1)
        doubled = v.repeat(1, 1, 1, 2)
        out = torch.zeros_like(v)
        for i in range(count):
            rolled = doubled.gather(-1, index + lags[:, i, None, None, None])
            out = out + rolled * weights[:, i, None, None, None]
        return out


class PeerNorm(nn.Module):
    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.layernorm = nn.LayerNorm(d_model)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.layernorm(x)
        return normed - normed.mean(1).unsqueeze(1).repeat(1, x.shape[1], 1)


class PeerEmbedding(nn.Module):
    def __init__(self, channels: int, d_model: int, marks: int, dropout: float) -> None:
        super().__init__()
        self.value_embedding = nn.Module()
        self.value_embedding.tokenConv = nn.Conv1d(channels, d_model, 3, padding=1, padding_mode="circular", bias=False)
        self.position_embedding = nn.Module()
        self.position_embedding.register_buffer("pe", torch.zeros(1, 5000, d_model))
        self.temporal_embedding = nn.Module()
        self.temporal_embedding.embed = nn.Linear(marks, d_model, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, marks: Tensor) -> Tensor:
        rows = self.value_embedding.tokenConv(x.permute(0, 2, 1)).transpose(1, 2)
        return self.dropout(rows + self.temporal_embedding.embed(marks))


class PeerLayer(nn.Module):
    def __init__(self, d_model: int, d_ff: int, heads: int, factor: float, window: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(d_model, d_ff, 1, bias=False)
        self.conv2 = nn.Conv1d(d_ff, d_model, 1, bias=False)
        self.split = PeerDecomposition(window)
        self.dropout = nn.Dropout(dropout)

    def feed_forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(F.gelu(self.conv1(x.transpose(-1, 1))))
        return self.dropout(self.conv2(hidden).transpose(-1, 1))


class PeerEncoderLayer(PeerLayer):
    def __init__(self, d_model: int, d_ff: int, heads: int, factor: float, window: int, dropout: float) -> None:
        super().__init__(d_model, d_ff, heads, factor, window, dropout)
        self.attention = PeerAttention(d_model, heads, factor)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.split(x + self.dropout(self.attention(x, x)))
        return self.split(x + self.feed_forward(x))[0]


class PeerDecoderLayer(PeerLayer):
    def __init__(
        self, d_model: int, d_ff: int, heads: int, factor: float, window: int, dropout: float, c_out: int
    ) -> None:
        super().__init__(d_model, d_ff, heads, factor, window, dropout)
        self.self_attention = PeerAttention(d_model, heads, factor)
        self.cross_attention = PeerAttention(d_model, heads, factor)
        self.projection = nn.Conv1d(d_model, c_out, 3, padding=1, padding_mode="circular", bias=False)

    def forward(self, x: Tensor, encoded: Tensor) -> tuple[Tensor, Tensor]:
        x, trend1 = self.split(x + self.dropout(self.self_attention(x, x)))
        x, trend2 = self.split(x + self.dropout(self.cross_attention(x, encoded)))
        x, trend3 = self.split(x + self.feed_forward(x))
        trend = trend1 + trend2 + trend3
        return x, self.projection(trend.permute(0, 2, 1)).transpose(1, 2)


class PeerAutoformer(nn.Module):
    """forward(x_enc, x_mark_enc, x_dec, x_mark_dec) -> (B, pred_len, c_out)."""

    def __init__(
        self,
        seq_len: int,
        label_len: int,
        pred_len: int,
        *,
        channels: int = 7,
        marks: int = 4,
        d_model: int = 512,
        n_heads: int = 8,
        e_layers: int = 2,
        d_layers: int = 1,
        d_ff: int = 2048,
        moving_avg: int = 25,
        factor: float = 3.0,
        dropout: float = 0.05,
    ) -> None:
        super().__init__()
        self.label_len, self.pred_len = label_len, pred_len
        self.split = PeerDecomposition(moving_avg)
        shape = (d_model, d_ff, n_heads, factor, moving_avg, dropout)
        self.enc_embedding = PeerEmbedding(channels, d_model, marks, dropout)
        self.dec_embedding = PeerEmbedding(channels, d_model, marks, dropout)
        self.encoder, self.decoder = nn.Module(), nn.Module()
        self.encoder.attn_layers = nn.ModuleList([PeerEncoderLayer(*shape) for _ in range(e_layers)])
        self.encoder.norm = PeerNorm(d_model)
        self.decoder.layers = nn.ModuleList([PeerDecoderLayer(*shape, channels) for _ in range(d_layers)])
        self.decoder.norm = PeerNorm(d_model)
        self.decoder.projection = nn.Linear(d_model, channels)

    def forward(self, x_enc: Tensor, x_mark_enc: Tensor, x_dec: Tensor, x_mark_dec: Tensor) -> Tensor:
        mean = x_enc.mean(1).unsqueeze(1).repeat(1, self.pred_len, 1)
        seasonal, trend = self.split(x_enc)
        zeros = torch.zeros(x_dec.shape[0], self.pred_len, x_dec.shape[2])
        trend = torch.cat([trend[:, -self.label_len :], mean], dim=1)
        seasonal = torch.cat([seasonal[:, -self.label_len :], zeros], dim=1)
        rows = self.enc_embedding(x_enc, x_mark_enc)
        for layer in self.encoder.attn_layers:
            rows = layer(rows)
        encoded = self.encoder.norm(rows)
        rows = self.dec_embedding(seasonal, x_mark_dec)
        for layer in self.decoder.layers:
            rows, more = layer(rows, encoded)
            trend = trend + more
        return (trend + self.decoder.projection(self.decoder.norm(rows)))[:, -self.pred_len :]
