"""Attention to a pooled past and an exact present, and maxima over segments: context in less than quadratic time."""

from __future__ import annotations

import torch
from torch import Tensor

from core_attention.kernels._checks import check_dims, check_shape, same_device, same_kind
from core_attention.kernels._dispatch import check_backend
from core_attention.kernels.pooled_context import eager
from core_attention.kernels.pooled_context.operators import context_op, segment_op

__all__ = ["pooled_context", "segment_max"]


def pooled_context(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Tensor | None = None,
    *,
    group: int = 16,
    window: int = 1024,
    scale: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """Attend causally, in one softmax, to one pooled token for every distant group and to each token that is near.

    The token t (from 0) sees ``j = max(0, (t + 1 - window) // group)`` core tokens, those of the groups 0 to j - 1, and
    the tokens ``j group`` to t themselves: every token before t counts exactly once. The core token of a group is the
    average of its keys and of its values with the attention weights of the group's last query over the group.

    Args:
        q: (B, T, H, D), floating point, after positions were applied.
        k: (B, T, G, D), H a multiple of G: query head h uses head h // (H / G).
        v: (B, T, G, E).
        key_mask: (B, T) bool, True = valid; a masked token is neither a key nor pooled. Pad on the right: padding on
            the left would move the groups.
        group: tokens of a group.
        window: tokens that are surely seen one by one, with the query's own.
        scale: of the scores, in pooling too; None for 1 / sqrt(D).
        backend: "reference", "eager" or "gpu"; None leaves the choice to the device and ``PIPELINES_BACKEND``.

    Returns:
        (B, T, H, E), contiguous, in the dtype of ``q``; zeros for a query that sees no valid key.

    Raises:
        ValueError: shapes, dtypes, devices or options that do not fit, or a back end that cannot serve.

    Differentiable once in ``q``, ``k`` and ``v``. Time O(B H T (T / group + window)), memory O(B T H (D + E)).

    Source: Core Context Aware Transformers (arXiv:2412.12465), section 3; the exact cover and the pooling of keys and
    values a head are those of the released code.

    Example:
        >>> x = torch.arange(4.0, dtype=torch.float64).view(1, 4, 1, 1)
        >>> pooled_context(torch.zeros_like(x), x, x, group=2, window=1).flatten().round(decimals=2).tolist()
        [0.0, 0.5, 1.25, 1.83]
    """
    check_dims("q", q, "B, T, H, D")
    check_dims("k", k, "B, T, G, D")
    check_dims("v", v, "B, T, G, E")
    B, T, H, D = q.shape
    heads = k.shape[2]
    check_shape("k", k, (B, T, heads, D), "(B, T, G, D) with B, T and D of q")
    check_shape("v", v, (B, T, heads, v.shape[3]), "(B, T, G, E) with B, T and G of k")
    if H % heads:
        raise ValueError(f"k: found {heads} heads, expected a number that divides the {H} heads of q")
    k, v = same_kind("k", k, "q", q), same_kind("v", v, "q", q)
    _check_mask(key_mask, q)
    _check_whole("group", group)
    _check_whole("window", window)
    factor = D**-0.5 if scale is None else float(scale)
    chosen = check_backend(backend)
    if torch.compiler.is_exporting():
        # An exported program must run without this package, so plain operators are recorded instead of ours.
        return eager.portable_pooled_context(q, k, v, key_mask, group=group, window=window, scale=factor)
    return context_op(q, k, v, key_mask, group, window, factor, chosen)


def segment_max(x: Tensor, segments: Tensor, mask: Tensor | None = None, *, backend: str | None = None) -> Tensor:
    """Give every token the largest value of each channel within its segment.

    Args:
        x: (B, T, C), floating point.
        segments: (B, T) int64 or int32, numbers from 0 to T - 1; equal numbers make a segment, wherever they stand.
        mask: (B, T) bool, True where a token counts; a token left out is in no segment and gets zeros.
        backend: "reference", "eager" or "gpu"; None leaves the choice to the device and ``PIPELINES_BACKEND``.

    Returns:
        (B, T, C), contiguous, in the dtype of ``x``. NaN in a segment is NaN for all of it.

    Raises:
        ValueError: shapes, dtypes, devices or segment numbers that do not fit, or a back end that cannot serve.

    Differentiable once in ``x``: equal largest values share the gradient evenly. Time and memory O(B T C).

    Source: PoNet (arXiv:2110.02442), section 3, segment max-pooling.

    Example:
        >>> x = torch.tensor([[[1.0], [3.0], [2.0]]])
        >>> segment_max(x, torch.tensor([[0, 0, 1]])).flatten().tolist()
        [3.0, 3.0, 2.0]
    """
    check_dims("x", x, "B, T, C")
    check_shape("segments", segments, x.shape[:2], "(B, T) of x")
    if segments.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"segments: found {segments.dtype}, expected int64: a number a token")
    same_device("segments", segments, "x", x)
    _check_mask(mask, x, "mask")
    chosen = check_backend(backend)
    if torch.compiler.is_exporting():
        return eager.portable_segment_max(x, segments.long(), mask)
    return segment_op(x, segments.long(), mask, chosen)


def _check_mask(mask: Tensor | None, x: Tensor, name: str = "key_mask") -> None:
    if mask is None:
        return
    check_shape(name, mask, x.shape[:2], "a flag a token")
    if mask.dtype != torch.bool:
        raise ValueError(f"{name}: found {mask.dtype}, expected torch.bool, True = valid; convert it by .bool()")
    same_device(name, mask, "the tokens", x)


def _check_whole(name: str, number: int) -> None:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"{name}: found {number!r}, expected a whole number of tokens, 1 or more")
