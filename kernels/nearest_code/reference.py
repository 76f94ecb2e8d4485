"""Codebook assignment as LongVQ (arXiv:2404.11163) and Routing Transformer (arXiv:2003.05997, 4.1) write it.

    z = argmin_s |x - C_s|^2            or  argmax_s <x, C_s>,  or  argmax_s <x, C_s> / (|x| |C_s|)
    x_hat = C_z                         with d x_hat / d x = 1, the straight-through estimator

One head at a time, in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["nearest_code", "nearest_code_backward"]


def nearest_code(
    x: Tensor, codes: Tensor, mask: Tensor | None = None, *, metric: str = "euclidean", train_codes: bool = False
) -> tuple[Tensor, Tensor]:
    """x (B, T, D) or (B, T, H, D), codes (K, D) or (H, K, D), mask (B, T) -> quantised as x, index without D."""
    tokens = x.double() if x.dim() == 4 else x.double().unsqueeze(2)
    H = tokens.shape[2]
    books = codes.double().expand(H, *codes.shape[-2:])
    found, taken = [], []
    for h in range(H):
        near = _distance(tokens[:, :, h], books[h], metric).argmin(-1)
        code = books[h][near]
        found.append(near)
        taken.append(code if train_codes else code.detach())
    index, code = torch.stack(found, 2), torch.stack(taken, 2)
    quantised = code + (tokens - tokens.detach())  # the value of the code, the gradient of the token
    if mask is not None:
        index = index.masked_fill(~mask[:, :, None], -1)
        quantised = torch.where(mask[:, :, None, None], quantised, 0.0)
    return quantised.reshape(x.shape).to(x.dtype), index.reshape(x.shape[:-1])


def nearest_code_backward(grad: Tensor, index: Tensor, codes: Tensor) -> Tensor:
    """Gradient of the codes: the sum of ``grad`` over the tokens of each; -1 belongs to none."""
    K, D = codes.shape[-2:]
    heads = codes.shape[0] if codes.dim() == 3 else 1
    rows, owner = grad.double().reshape(-1, heads, D), index.reshape(-1, heads)
    belongs = (owner[:, :, None] == torch.arange(K, device=index.device)).double()  # token, head, code
    return torch.einsum("nhk,nhd->hkd", belongs, rows).reshape(codes.shape).to(codes.dtype)


def _distance(x: Tensor, book: Tensor, metric: str) -> Tensor:
    """(B, T, K): how far each token (B, T, D) is from each code (K, D)."""
    if metric == "euclidean":
        return (x.unsqueeze(-2) - book).square().sum(-1)
    if metric == "product":
        return -(x @ book.T)
    lengths = x.norm(dim=-1, keepdim=True) * book.norm(dim=-1)
    return -(x @ book.T) / lengths.clamp(min=torch.finfo(torch.float64).tiny)
