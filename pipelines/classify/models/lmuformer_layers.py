"""The layers of LMUFormer: convolutions over frames, memory blocks, and batch normalisation that leaves padding out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core_attention.mechanisms.legendre import Legendre, LegendreState

__all__ = ["LAYERS", "Block", "FeedForward", "FrameConv", "StepNorm", "Tokenizer", "hide"]

#: Convolutions of three frames one after another with a nonlinearity; one more gives the position.
LAYERS = 4


class StepNorm(nn.BatchNorm1d):
    """Batch normalisation of tokens (..., C); in training over the valid ones alone."""

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None or not self.training:
            return self._tokens(input.flatten(0, -2)).view(input.shape)
        out = torch.zeros_like(input)
        out[mask] = self._tokens(input[mask]).to(out.dtype)
        return out

    def _tokens(self, x: Tensor) -> Tensor:
        """Normalise (tokens, C); the statistics of a single token would leave nothing of it: the running ones serve."""
        if not self.training or x.shape[0] > 1:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class FrameConv(nn.Conv1d):
    """A convolution of three frames, (B, T, C_in) -> (B, T, C_out), with zeros beyond the ends."""

    def __init__(self, inputs: int, outputs: int, causal: bool) -> None:
        super().__init__(inputs, outputs, 3, bias=False)
        self.around = (2, 0) if causal else (1, 1)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input.transpose(1, 2), self.around)).transpose(1, 2)

    def step(self, window: Tensor) -> Tensor:
        """The output (B, C_out) of three frames (B, 3, C_in)."""
        return super().forward(window.transpose(1, 2)).squeeze(-1)


class Tokenizer(nn.Module):
    """From frames (B, T, channels) to tokens (B, T, dim)."""

    def __init__(self, channels: int, dim: int, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.convs = nn.ModuleList(FrameConv(dim if i else channels, dim, causal) for i in range(LAYERS))
        self.norms = nn.ModuleList(StepNorm(dim) for _ in range(LAYERS))
        self.position = FrameConv(dim, dim, causal)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(torch.relu(conv(hide(x, mask))), mask)
        x = hide(x, mask)
        return x + self.position(x)

    def step(self, x: Tensor, inputs: tuple[Tensor, ...], live: list[bool]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The token that one more frame completes, and the last two inputs of each convolution.

        ``live``: whether a layer's output is of a frame that exists, else it is zero.
        """
        kept: list[Tensor] = []
        for conv, norm, last, there in zip(self.convs, self.norms, inputs[:-1], live, strict=True):
            window = torch.cat([last, x.unsqueeze(1)], dim=1)
            kept.append(window[:, 1:])
            x = norm(torch.relu(conv.step(window))) if there else window.new_zeros(x.shape[0], conv.out_channels)
        window = torch.cat([inputs[-1], x.unsqueeze(1)], dim=1)
        kept.append(window[:, 1:])
        return window[:, 2 if self.causal else 1] + self.position.step(window), tuple(kept)


class FeedForward(nn.Module):
    """Two maps of each token, both normalised; what comes out is never negative."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.norm1 = nn.Linear(dim, hidden), StepNorm(hidden)
        self.fc2, self.norm2 = nn.Linear(hidden, dim), StepNorm(dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = F.gelu(self.norm1(self.fc1(x), mask))
        return torch.relu(self.norm2(self.fc2(x), mask))


class Block(nn.Module):
    """Add the memory of the past, then the feed-forward net."""

    def __init__(self, dim: int, hidden: int, theta: float, order: int) -> None:
        super().__init__()
        self.mixer = Legendre(dim, theta=theta, order=order)
        self.ffn = FeedForward(dim, hidden)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.mixer(x, mask=mask).y
        return x + self.ffn(x, mask)

    def step(self, x: Tensor, memory: LegendreState) -> tuple[Tensor, LegendreState]:
        mixed, memory, _ = self.mixer(x.unsqueeze(1), state=memory)
        x = x + mixed.squeeze(1)
        return x + self.ffn(x), memory


def hide(x: Tensor, mask: Tensor | None) -> Tensor:
    """Zeros where x (B, T, C) is padding; where() and not a product, for padding may be NaN."""
    return x if mask is None else torch.where(mask.unsqueeze(-1), x, 0.0)
