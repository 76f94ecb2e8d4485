"""Vectorised torch: one matrix product a tile of tokens, so that no (tokens, codes) matrix is kept.

There is no ``cpu.py``; ``operators.py`` says why.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["grouped", "nearest_code", "nearest_code_backward", "portable_nearest_code", "scored_codes"]

_TILE = 1 << 18  # scores at a time: 1 MiB, which stays in a core's cache between the product and the search
_WIDE_TILE = 1 << 24  # on other devices, where a launch costs more than a pass over memory


def nearest_code(
    x: Tensor, codes: Tensor, mask: Tensor | None = None, *, metric: str = "euclidean", train_codes: bool = False
) -> tuple[Tensor, Tensor]:
    """x (B, T, D) or (B, T, H, D), codes (K, D) or (H, K, D), mask (B, T) -> quantised as x, index without D.

    Time O(B T H K D); memory beyond the result one tile of scores and, for half-width operands, the widened codes.
    """
    rows, books = grouped(x, codes)
    weights, offsets = scored_codes(books, metric)
    N, H, D = rows.shape
    K = books.shape[1]
    index = torch.empty(N, H, dtype=torch.int64, device=x.device)
    step = max(1, (_TILE if x.device.type == "cpu" else _WIDE_TILE) // K)
    for h in range(H):
        columns, offset = weights[h].T, offsets[h]
        for start in range(0, N, step):
            tile = rows[start : start + step, h].to(weights.dtype)
            index[start : start + step, h] = torch.addmm(offset, tile, columns).argmax(1)
    flat = index if H == 1 else index + torch.arange(H, device=x.device) * K
    quantised = books.reshape(H * K, D).index_select(0, flat.reshape(-1)).to(x.dtype).view(x.shape)
    index = index.view(x.shape[:-1])
    if mask is not None:
        keep = mask if x.dim() == 3 else mask.unsqueeze(-1)
        index.masked_fill_(~keep, -1)
        quantised.masked_fill_(~keep.unsqueeze(-1), 0)
    return quantised, index


def nearest_code_backward(grad: Tensor, index: Tensor, codes: Tensor) -> Tensor:
    """Gradient of the codes: the sum of ``grad`` over the tokens of each, in float32; -1 belongs to none.

    The gradient of an embedding table: torch adds each row's tokens in order, without atomics, so it repeats.
    """
    K, D = codes.shape[-2:]
    H = codes.shape[0] if codes.dim() == 3 else 1
    wide = torch.promote_types(codes.dtype, torch.float32)
    owner = index.reshape(-1, H)
    nobody = H * K  # one row more, for the tokens left out
    row = torch.where(owner < 0, nobody, owner + torch.arange(H, device=index.device) * K).reshape(-1)
    rows = grad.reshape(-1, D).to(wide)
    summed = torch.ops.aten.embedding_dense_backward(rows, row, nobody + 1, -1, False)
    return summed[:nobody].view(codes.shape).to(codes.dtype, copy=True)


def portable_nearest_code(
    x: Tensor, codes: Tensor, mask: Tensor | None = None, *, metric: str = "euclidean", train_codes: bool = False
) -> tuple[Tensor, Tensor]:
    """The same from the plainest operators, differentiable by autograd, in the operands' dtype; memory O(B T H K)."""
    tokens = x if x.dim() == 4 else x.unsqueeze(2)
    H, K = tokens.shape[2], codes.shape[-2]
    books = codes.to(x.dtype).expand(H, K, codes.shape[-1])
    weights, offsets = _weights_and_offsets(books.detach(), metric)
    scores = torch.einsum("bthd,hkd->bthk", tokens.detach(), weights) + offsets
    index = scores.argmax(-1)
    flat = index + torch.arange(H, device=x.device) * K
    code = books.reshape(H * K, -1)[flat]
    if not train_codes:
        code = code.detach()
    quantised = code + (tokens - tokens.detach())
    if mask is not None:
        index = torch.where(mask[:, :, None], index, -1)
        quantised = torch.where(mask[:, :, None, None], quantised, 0.0)
    return quantised.reshape(x.shape), index.reshape(x.shape[:-1])


def grouped(x: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens (N, H, D) and codebooks (H, K, D): one codebook for all heads makes every head a token of its own."""
    D = x.shape[-1]
    if codes.dim() == 3:
        return x.reshape(-1, codes.shape[0], D), codes
    return x.reshape(-1, 1, D), codes.unsqueeze(0)


def scored_codes(books: Tensor, metric: str) -> tuple[Tensor, Tensor]:
    """Weights (H, K, D) and offsets (H, K), at least float32: the nearest has the greatest <x, weight> + offset."""
    return _weights_and_offsets(books.to(torch.promote_types(books.dtype, torch.float32)), metric)


def _weights_and_offsets(books: Tensor, metric: str) -> tuple[Tensor, Tensor]:
    if metric == "euclidean":  # |x - c|^2 = |x|^2 - 2 (<x, c> - |c|^2 / 2), and |x|^2 is the same for all codes
        return books, books.square().sum(-1) * -0.5
    if metric == "cosine":
        lengths = books.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(books.dtype).tiny)
        books = books / lengths
    return books, books.new_zeros(books.shape[:-1])
