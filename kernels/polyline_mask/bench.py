"""A line and a sweep of the polyline-path mask against the mask written out, N x N numbers and all."""

from __future__ import annotations

import torch
from torch import Tensor

from core_attention.kernels._bench import Contest, Line, Sweep
from core_attention.kernels.polyline_mask import polyline_mask
from core_attention.kernels.polyline_mask.cases import arguments_of

__all__ = ["LINES", "SWEEPS", "written_out"]

_PEER = "the mask of N x N numbers in plain torch"


def written_out(q: Tensor, k: Tensor, v: Tensor, decay_h: Tensor, decay_v: Tensor) -> Tensor:
    """The definition in float32: the products along rows and columns, the mask from them, scores, and their product."""

    def products(decay: Tensor) -> Tensor:
        sums = decay.log().cumsum(-1)
        return (-(sums.unsqueeze(-1) - sums.unsqueeze(-2)).abs()).exp()  # decays are at most one: the sums fall

    alpha, beta = products(decay_h.permute(0, 3, 1, 2)), products(decay_v.permute(0, 3, 2, 1))
    path = torch.einsum("bhijl,bhlik->bhijkl", alpha, beta)
    mask = path + path.permute(0, 1, 4, 5, 2, 3)
    return torch.einsum("bhijkl,bklhe->bijhe", mask * torch.einsum("bijhd,bklhd->bhijkl", q, k), v)


def _contest(side: int, generator: torch.Generator) -> Contest:
    operands = arguments_of((1, side, side, 2, 32, 32), torch.float32, generator, least=0.8)
    needed = sum(tensor.numel() for tensor in operands) + operands[2].numel()
    return Contest(
        lambda: written_out(*operands),
        {"eager": lambda: polyline_mask(*operands, backend="eager")},
        4.0 * needed,
        flops=4.0 * 2 * side**2 * 2 * side * 32 * 32,
    )


LINES = (Line("polyline_mask", "forward, 28 x 28 places, 2 heads, D 32", _PEER, {}, lambda g: _contest(28, g)),)
SWEEPS = (Sweep("polyline_mask", "forward, 2 heads, D 32", "rows and columns", _PEER, (8, 14, 28, 40), _contest),)
