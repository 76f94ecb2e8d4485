"""Decays within chunks as sums of logarithms, shared by the eager and the Triton back end."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["CHUNK", "TINY", "log_sums", "through_log", "within_chunks"]

CHUNK = 64  # tokens: the matrix products inside a chunk cost as much as those with the state at D = 64
TINY = 2.0**-126  # denominators below the smallest normal float32 count as zero
_LEAST = 1e-20  # decays below count as this: its logarithm, and a gradient divided by it, stay finite in float32


def log_sums(decay: Tensor, chunk: int) -> Tensor:
    """(B, T, H) -> (B, N, chunk, H): logarithms of decays summed from each chunk's start, tokens past the end free.

    In float64 where the device has it: differences of these sums must be as exact as a product of a few decays.
    """
    wide = torch.float32 if decay.device.type == "mps" else torch.float64
    logs = decay.to(wide).clamp_min(_LEAST).log()
    B, T, H = logs.shape
    if T % chunk:
        logs = torch.nn.functional.pad(logs, (0, 0, 0, -T % chunk))
    return logs.reshape(B, -1, chunk, H).cumsum(2)


def through_log(d_log: Tensor, decay: Tensor) -> Tensor:
    """The gradient of decays (any shape that broadcasts to (B, T, H)) from that of their logarithms."""
    wide = decay.to(d_log.dtype)
    d_decay = torch.where(wide >= _LEAST, d_log / wide.clamp_min(_LEAST), 0.0)
    return d_decay.sum((0, 1)) if decay.dim() == 1 else d_decay


def within_chunks(inside: Tensor, rows: Tensor, columns: Tensor, across: Tensor, dim: int) -> Tensor:
    """Gradient of the logarithms within chunks: a decay lies on every path that starts before it and ends after.

    Only what crosses a decay is summed, nothing is subtracted: a decay of nearly nothing has a gradient as exact.

    Args:
        inside: what passes from each token, or one before it in its chunk, to a later one of the chunk.
        rows: what arrives at a token from before its chunk.
        columns: what leaves a token for beyond its chunk.
        across: what passes the whole chunk, broadcastable.
        dim: the dimension of a chunk's tokens.
    """
    arriving = rows.flip(dim).cumsum(dim).flip(dim)
    passing = inside + columns.cumsum(dim)  # beyond a token: what crosses the decay of the next
    first = torch.zeros_like(passing.narrow(dim, 0, 1))
    return arriving + torch.cat([first, passing.narrow(dim, 0, passing.shape[dim] - 1)], dim) + across
