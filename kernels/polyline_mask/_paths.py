"""Products of decays along straight lines, shared by the eager and the Triton back end."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["from_flow", "line_sums", "straight_paths", "through_log"]

_LEAST = 1e-20  # decays below count as this: its logarithm, and a gradient divided by it, stay finite in float32


def line_sums(decay: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Sums of logarithms along the last dimension, rounded to a dtype, and what rounding left apart.

    The difference of two sums must be as exact as the product of the few decays between them, hence the two parts.
    """
    wide = torch.float32 if decay.device.type == "mps" else torch.float64
    sums = decay.to(wide).clamp_min(_LEAST).log().cumsum(-1)
    high = sums.to(dtype)
    return high, (sums - high).to(dtype)


def straight_paths(decay: Tensor, dtype: torch.dtype) -> Tensor:
    """(..., n) -> (..., n, n): for two places on a line the product of the decays after the first up to the second."""
    high, low = line_sums(decay, dtype)
    gaps = (high.unsqueeze(-1) - high.unsqueeze(-2)) + (low.unsqueeze(-1) - low.unsqueeze(-2))
    before = torch.ones(gaps.shape[-2:], dtype=torch.bool, device=gaps.device).triu(1)
    return torch.where(before, -gaps, gaps).exp()


def from_flow(flow: Tensor) -> Tensor:
    """(..., n, n) -> (..., n): the gradient of a line's logarithms from its paths times their gradients.

    A decay lies on the paths between any place before it and any place from it on; only those are summed, nothing is
    subtracted, so a decay of nearly nothing has a gradient as exact as another's.
    """
    folded = flow.tril(-1) + flow.triu(1).mT  # by later and earlier place
    passed = folded.cumsum(-1).tril(-1).sum(-2)  # from the places up to one to those after it
    return torch.nn.functional.pad(passed[..., :-1], (1, 0))


def through_log(d_log: Tensor, decay: Tensor) -> Tensor:
    """The gradient of decays from that of their logarithms."""
    wide = decay.to(d_log.dtype)
    return torch.where(wide >= _LEAST, d_log / wide.clamp_min(_LEAST), 0.0)
