"""Two strided convolutions between the spectrogram and the encoder: a quarter of the frames, local patterns in each."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FACTOR", "Subsampling", "subsampled"]

#: Frames of the spectrogram to a frame of the encoder.
FACTOR = 4
_WIDTH = 3


def subsampled(lengths: Tensor) -> Tensor:
    """Frames that are left of so many: a quarter, rounded up twice.

    Example:
        >>> subsampled(torch.tensor([1, 4, 5, 8, 9])).tolist()
        [1, 1, 2, 2, 3]
    """
    halved = (lengths + 1) // 2
    return (halved + 1) // 2


class Subsampling(nn.Module):
    """(B, T, M) log-mel features to (B, T / 4, dim), by convolutions of 3 x 3 and stride 2 over time and bands.

    Frames behind ``lengths`` count as the zeros that stand around a recording on its own, so that an answer does not
    depend on the batch. With ``causal`` a frame sees none after it, and ``piece`` goes on from piece to piece.
    O(B T M channels) time. Source: the convolutional front end of Samba-ASR (arXiv 2501.02832, figure 1), whose sizes
    are not published; 64 and 32 channels are those of the public Mamba recognisers.

    Args:
        mels: bands M of the spectrogram.
        dim: channels of the encoder.
        channels: of the two convolutions.
        causal: no look-ahead.

    Example:
        >>> frames, lengths = Subsampling(80, 16)(torch.zeros(2, 9, 80), torch.tensor([9, 5]))
        >>> frames.shape, lengths.tolist()
        (torch.Size([2, 3, 16]), [3, 2])
    """

    def __init__(self, mels: int, dim: int, *, channels: tuple[int, int] = (64, 32), causal: bool = False) -> None:
        super().__init__()
        self.causal, self.mels = causal, mels
        self.first = nn.Conv2d(1, channels[0], _WIDTH, 2)
        self.second = nn.Conv2d(channels[0], channels[1], _WIDTH, 2)
        bands = ((mels + 1) // 2 + 1) // 2
        self.out = nn.Linear(channels[1] * bands, dim)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, T, M) and their lengths (B,) to frames (B, T / 4, dim) and theirs."""
        x = _kept(features.unsqueeze(1), lengths)
        before = (_WIDTH - 1, 0) if self.causal else (1, 1)
        for layer in (self.first, self.second):
            lengths = (lengths + 1) // 2
            x = _kept(F.gelu(layer(F.pad(x, (1, 1, *before)))), lengths)
        return self._project(x), lengths

    def piece(self, features: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The next features (B, T, M) of a recording to the frames that they complete, perhaps none; causal only."""
        x = features.unsqueeze(1)
        rests = [None, None] if state is None else list(state)
        for index, layer in enumerate((self.first, self.second)):
            rest = rests[index]
            if rest is None:
                rest = x.new_zeros(x.shape[0], layer.in_channels, _WIDTH - 1, x.shape[3])
            x = torch.cat([rest, x], dim=2)
            count = max(0, (x.shape[2] - _WIDTH) // 2 + 1)
            rests[index] = x[:, :, 2 * count :]
            x = F.gelu(layer(F.pad(x, (1, 1)))) if count else x.new_zeros(x.shape[0], layer.out_channels, 0, _bands(x))
        first, second = rests
        if first is None or second is None:
            raise RuntimeError("two convolutions leave two rests")
        return self._project(x), (first, second)

    def _project(self, x: Tensor) -> Tensor:
        return self.out(x.permute(0, 2, 1, 3).flatten(2))


def _bands(x: Tensor) -> int:
    return (x.shape[3] + 1) // 2


def _kept(x: Tensor, lengths: Tensor) -> Tensor:
    """(B, C, T, M) with zeros behind the lengths."""
    valid = torch.arange(x.shape[2], device=x.device) < lengths.unsqueeze(1)
    return torch.where(valid[:, None, :, None], x, 0.0)
