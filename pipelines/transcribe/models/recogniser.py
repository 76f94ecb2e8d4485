"""Speech recognisers: subsampling, an encoder of Samba or Conformer layers, a CTC head, perhaps a text decoder."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_attention.positions import sinusoidal
from pipelines.transcribe.models.layers import ConformerLayer, SambaLayer, build_mixer
from pipelines.transcribe.models.subsampling import Subsampling
from pipelines.transcribe.models.text_decoder import DecoderState, TextDecoder, reads_recordings

__all__ = ["EncoderState", "Recogniser", "Scorer"]

#: Mechanisms that know the order of tokens by themselves.
ORDERED = ("selective_ssm", "legendre")
_ROUNDED = 64  # features; lengths are rounded up to a multiple
_LAYERS = {"samba": SambaLayer, "conformer": ConformerLayer}


class EncoderState(NamedTuple):
    """What the frames so far have left: in the subsampling, in each layer, and how many encoder frames they were."""

    front: Any
    layers: list[Any]
    frames: int


class Recogniser(nn.Module):
    """Log-mel features to unit scores of frames (CTC), and to next-unit scores of a text decoder.

    Args:
        size: V, ids of the vocabulary: 0 the blank, 1 begin and end of a text, then units.
        mels: bands of the spectrogram.
        kind: layer of the encoder, "samba" or "conformer".
        dim: channels.
        layers: of the encoder.
        decoder_layers: of the text decoder; 0 is CTC alone.
        attention: mechanism of the encoder's mixers, and of the decoder's where it can read recordings.
        causal: no look-ahead, for streaming.
        heads: of mechanisms that have heads.
        dropout: while training.
        width: frames under a Conformer's convolution.
        channels: of the subsampling.

    Raises:
        ConfigError: a mechanism that does not fit.

    An answer does not depend on what else is in the batch, nor on the padding. Time O(T) with selective_ssm.
    Source: our reading of Samba-ASR (arXiv 2501.02832, figure 1), which publishes neither sizes nor equations.

    Example:
        >>> model = Recogniser(30, 80, dim=16, layers=1, decoder_layers=1).eval()
        >>> memory, lengths = model.encode(torch.zeros(2, 41, 80), torch.tensor([41, 20]))
        >>> memory.shape, lengths.tolist(), model.ctc(memory).shape
        (torch.Size([2, 11, 16]), [11, 5], torch.Size([2, 11, 30]))
    """

    def __init__(
        self,
        size: int,
        mels: int,
        *,
        kind: str = "samba",
        dim: int = 144,
        layers: int = 4,
        decoder_layers: int = 2,
        attention: str = "selective_ssm",
        causal: bool = False,
        heads: int = 4,
        dropout: float = 0.1,
        width: int = 15,
        channels: tuple[int, int] = (64, 32),
    ) -> None:
        super().__init__()
        self.arguments = {
            "size": size,
            "mels": mels,
            "kind": kind,
            "dim": dim,
            "layers": layers,
            "decoder_layers": decoder_layers,
            "attention": attention,
            "causal": causal,
            "heads": heads,
            "dropout": dropout,
            "width": width,
            "channels": list(channels),
        }
        self.size, self.dim, self.causal = size, dim, causal
        self.ordered = attention in ORDERED
        self.front = Subsampling(mels, dim, channels=(channels[0], channels[1]), causal=causal)
        self.dropout = nn.Dropout(dropout)
        options = {"dropout": dropout, "width": width, "causal": causal}
        self.layers = nn.ModuleList(
            _LAYERS[kind](dim, build_mixer(attention, dim, heads, causal=causal), **options) for _ in range(layers)
        )
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, size)
        mixer = attention if reads_recordings(attention) else "selective_ssm"
        self.decoder = (
            TextDecoder(size, dim, decoder_layers, attention=mixer, heads=heads, dropout=dropout)
            if decoder_layers
            else None
        )

    def forward(
        self, features: Tensor, lengths: Tensor, tokens: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """CTC log-probabilities (B, S, V), their lengths (B,), and the decoder's scores (B, U, V) for tokens (B, U)."""
        memory, lengths = self.encode(features, lengths)
        mask = torch.arange(memory.shape[1], device=memory.device) < lengths.unsqueeze(1)
        scores = None if tokens is None or self.decoder is None else self.decoder(tokens, memory, mask)
        return self.ctc(memory), lengths, scores

    def encode(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, T, M) and lengths (B,) to frames (B, S, dim), about a quarter as many, and theirs."""
        frames = (features.shape[1] + 3) // 4
        if not torch.compiler.is_exporting():
            # Few different lengths: what torch's convolutions keep for each shape grew by hundreds of megabytes.
            features = F.pad(features, (0, 0, 0, -features.shape[1] % _ROUNDED))
        x, lengths = self.front(features.to(self.head.weight.dtype), lengths)
        mask = torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1)
        x = self.dropout(self._placed(x, 0))
        for layer in self.layers:
            x = layer(x, mask, None)[0]
        return self.norm(x[:, :frames]), lengths

    def encode_piece(self, features: Tensor, state: EncoderState | None) -> tuple[Tensor, EncoderState]:
        """The next features (B, T, M) of a recording to the frames (B, S, dim) that they complete; causal only."""
        front, layers, done = (None, [None] * len(self.layers), 0) if state is None else state
        x, front = self.front.piece(features.to(self.head.weight.dtype), front)
        if not x.shape[1]:
            return x, EncoderState(front, layers, done)
        count = x.shape[1]
        x, after = self._placed(x, done), []
        for layer, before in zip(self.layers, layers, strict=True):
            x, left = layer(x, None, before)
            after.append(left)
        return self.norm(x), EncoderState(front, after, done + count)

    def ctc(self, memory: Tensor) -> Tensor:
        """Log-probabilities (B, S, V) of the units in each frame; id 0 is none."""
        return self.head(memory).float().log_softmax(-1)

    def scorer(self, memory: Tensor) -> Scorer:
        """The text decoder on the frames (1, S, dim) of one recording, as beam searches use it."""
        if self.decoder is None:
            raise RuntimeError("this model has no text decoder")
        return Scorer(self.decoder, memory)

    def _placed(self, x: Tensor, start: int) -> Tensor:
        if self.ordered:
            return x
        return x + sinusoidal(x.shape[1], self.dim, start=start).to(x) if x.shape[1] else x


class Scorer:
    """Log-probabilities of the next unit, for K hypotheses side by side; what they have read is carried along.

    Example:
        >>> model = Recogniser(9, 80, dim=8, layers=1, decoder_layers=1).eval()
        >>> scorer = model.scorer(torch.zeros(1, 4, 8))
        >>> scorer.score(torch.tensor([1, 1]), scorer.begin(2))[0].shape
        torch.Size([2, 9])
    """

    def __init__(self, decoder: TextDecoder, memory: Tensor) -> None:
        self._decoder, self._memory = decoder, memory

    def begin(self, rows: int = 1) -> DecoderState | None:
        """The state before the first token."""
        return None

    @torch.no_grad()
    def score(self, tokens: Tensor, state: DecoderState | None) -> tuple[Tensor, DecoderState]:
        """Log-probabilities (K, V) after the last token (K,) of each hypothesis, and the state after it."""
        scores, after = self._decoder.step(tokens, self._memory, state)
        return scores.float().log_softmax(-1), after

    def pick(self, state: DecoderState | None, rows: Tensor) -> DecoderState | None:
        """The states of the hypotheses with these numbers (K,)."""
        return None if state is None else self._decoder.pick(state, rows)
