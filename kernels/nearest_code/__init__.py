"""Vector quantisation: every token takes the nearest code of a codebook, and its gradient passes straight through."""

from __future__ import annotations

import torch
from torch import Tensor

from core_attention.kernels._checks import check_dims, check_shape, check_tensor, same_device, same_kind
from core_attention.kernels._dispatch import check_backend
from core_attention.kernels.nearest_code import eager
from core_attention.kernels.nearest_code.operators import METRICS, nearest_op

__all__ = ["METRICS", "nearest_code"]


def nearest_code(
    x: Tensor,
    codes: Tensor,
    mask: Tensor | None = None,
    *,
    metric: str = "euclidean",
    train_codes: bool = False,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Replace every token by its nearest code: ``index = argmin_s d(x, codes[s])``, ``quantised = codes[index]``.

    Args:
        x: (B, T, D) or (B, T, H, D), floating point.
        codes: (K, D), one codebook for all heads, or (H, K, D), one a head; the dtype of ``x``, or float32 beside a
            half-width ``x`` (under autocast any floating dtype).
        mask: (B, T) bool, True where a token counts; a token left out gets index -1, zeros, and no gradient.
        metric: what is near: "euclidean" (least distance), "product" (greatest inner product, as k-means routing of
            tokens on a sphere asks) or "cosine" (greatest cosine).
        train_codes: whether the gradient reaches the codes too: each gets the sum of the gradients of its tokens. By
            default none does, for a codebook that follows moving averages.
        backend: "reference", "eager" or "gpu"; None leaves the choice to the device and ``PIPELINES_BACKEND``.

    Returns:
        quantised, shaped as ``x`` with its dtype, contiguous, and index (B, T) or (B, T, H), int64. Of equally near
        codes the first is taken.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, an empty dimension, an unknown metric, or a back end that
            cannot serve.

    The gradient of ``quantised`` reaches ``x`` unchanged (straight-through estimator). Distances are computed in
    float32 (float64 for float64) as ``|c|^2 / 2 - <x, c>``: codes whose squared distances differ by less than 1e-7 of
    ``|x|^2 + |c|^2`` may be taken for equally near. Time O(B T H K D); memory beyond the result O(K), in eager one tile
    of scores.

    Source: LongVQ (arXiv:2404.11163), z = argmin_s |x - C_s|^2 with straight-through gradient; Routing Transformer
    (arXiv:2003.05997), section 4.1, assignment of tokens to centroids.

    Example:
        >>> x, codes = torch.tensor([[[0.9, 0.2], [-3.0, 0.1]]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        >>> quantised, index = nearest_code(x, codes)
        >>> quantised.tolist(), index.tolist()
        ([[[1.0, 0.0], [-1.0, 0.0]]], [[0, 1]])
    """
    check_tensor("x", x)
    check_dims("x", x, "B, T, H, D" if x.dim() == 4 else "B, T, D")
    check_tensor("codes", codes)
    per_head = codes.dim() == 3
    check_dims("codes", codes, "H, K, D" if per_head else "K, D")
    if per_head and x.dim() == 3:
        raise ValueError(f"codes: found shape {tuple(codes.shape)}, expected (K, D), as x (B, T, D) has no heads")
    K, D = codes.shape[-2], x.shape[-1]
    check_shape("codes", codes, (x.shape[2], K, D) if per_head else (K, D), "the heads and width of x")
    codes = same_kind("codes", codes, "x", x, or_float32=True)
    same_device("codes", codes, "x", x)
    if mask is not None:
        check_shape("mask", mask, x.shape[:2], "a flag a token")
        if mask.dtype != torch.bool:
            raise ValueError(f"mask: found {mask.dtype}, expected torch.bool, True where a token counts")
        same_device("mask", mask, "x", x)
    if metric not in METRICS:
        raise ValueError(f"metric: found {metric!r}, expected one of {', '.join(METRICS)}")
    chosen = check_backend(backend)
    if torch.compiler.is_exporting():
        return eager.portable_nearest_code(x, codes, mask, metric=metric, train_codes=train_codes)
    return nearest_op(x, codes, mask, metric, train_codes, chosen)
