"""Linear attention on an image grid under PPMA's polyline-path mask, without the mask in memory."""

from __future__ import annotations

import torch
from torch import Tensor

from core_attention.kernels._checks import check_dims, check_shape, same_kind
from core_attention.kernels._dispatch import check_backend
from core_attention.kernels.polyline_mask import eager
from core_attention.kernels.polyline_mask.operators import mask_op

__all__ = ["polyline_mask"]


def polyline_mask(
    q: Tensor, k: Tensor, v: Tensor, decay_h: Tensor, decay_v: Tensor, *, backend: str | None = None
) -> Tensor:
    """Attend with ``out = (M * (q k^T)) v``, M the sum of the decays along two L-shaped paths between grid places.

    With ``decay_h[i, j:l]`` the product of a row's decays after the smaller column up to the larger, and likewise for
    columns, the weight between a query at (i, j) and a key at (k, l) is

        M[i, j, k, l] = decay_h[i, j:l] decay_v[i:k, l] + decay_h[k, j:l] decay_v[i:k, j].

    The first path runs along the query's row and the key's column, the second along the key's row and the query's
    column, so M is symmetric; it is 2 where query and key are one place.

    Args:
        q: (B, rows, columns, H, D) queries after their feature map, floating point.
        k: (B, rows, columns, H, D) keys after their feature map, the dtype of ``q``.
        v: (B, rows, columns, H, Dv) values, the dtype of ``q``.
        decay_h: (B, rows, columns, H) horizontal decay of each token in [0, 1], the dtype of ``q`` or float32. Values
            are not inspected; those below 1e-20 count as 1e-20 and pass no gradient.
        decay_v: (B, rows, columns, H) vertical decay, likewise.
        backend: "reference" or "eager"; None leaves the choice to the device and ``PIPELINES_BACKEND``.

    Returns:
        (B, rows, columns, H, Dv) with the dtype of ``q``. A ratio, where the caller wants one, is this over the same
        with a column of ones in ``v``.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, an empty dimension, or a back end that cannot serve.

    Differentiable once in every tensor. With N = rows x columns places: time O(B H N (rows + columns) D Dv),
    memory O(B H N (D + Dv)) and blocks of fixed size, of large grids one head's O(N (rows + columns + Dv)).

    Source: PPMA (arXiv:2506.15940), the polyline-path mask L + L^T and its masked linear attention; theorem 2 is why
    one product a column, then one a row, multiply by it.

    Example:
        >>> ones = torch.ones(1, 1, 3, 1, 1)
        >>> polyline_mask(ones, ones, ones, ones[..., 0] / 2, ones[..., 0]).flatten().tolist()
        [3.5, 4.0, 3.5]
    """
    check_dims("q", q, "B, rows, columns, H, D")
    check_dims("k", k, "B, rows, columns, H, D")
    check_dims("v", v, "B, rows, columns, H, Dv")
    check_dims("decay_h", decay_h, "B, rows, columns, H")
    check_dims("decay_v", decay_v, "B, rows, columns, H")
    check_shape("k", k, q.shape, "that of q")
    check_shape("v", v, (*q.shape[:4], v.shape[-1]), "(B, rows, columns, H, Dv) with the first four of q")
    check_shape("decay_h", decay_h, q.shape[:4], "(B, rows, columns, H) of q")
    check_shape("decay_v", decay_v, q.shape[:4], "(B, rows, columns, H) of q")
    k, v = same_kind("k", k, "q", q), same_kind("v", v, "q", q)
    decay_h = same_kind("decay_h", decay_h, "q", q, or_float32=True)
    decay_v = same_kind("decay_v", decay_v, "q", q, or_float32=True)
    chosen = check_backend(backend)
    if torch.compiler.is_exporting():
        return eager.portable_polyline_mask(q, k, v, decay_h, decay_v)
    return mask_op(q, k, v, decay_h, decay_v, chosen)
