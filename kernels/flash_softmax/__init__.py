"""Softmax attention without its matrix of weights: grouped heads, windows, masks, biases, temperatures and sinks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from core_attention.kernels._checks import check_dims, check_shape, check_tensor, same_device, same_kind
from core_attention.kernels._dispatch import check_backend
from core_attention.kernels.flash_softmax import eager
from core_attention.kernels.flash_softmax._band import band_of
from core_attention.kernels.flash_softmax.operators import flash_softmax_op

__all__ = ["flash_softmax"]


def flash_softmax(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    window: int | tuple[int, int] | None = None,
    key_mask: Tensor | None = None,
    bias: Tensor | None = None,
    query_temperature: Tensor | None = None,
    sink: Tensor | None = None,
    scale: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """Softmax attention of queries over keys, of which nothing of size T x S is kept.

    Query t stands at place p = t + S - T among the keys: the last query at the last key, as in streaming.

    Args:
        q: (B, T, H, D), floating point.
        k: (B, S, G, D), G dividing H: query head h looks at key head h // (H // G). The dtype of ``q``.
        v: (B, S, G, Dv), the dtype of ``q``.
        causal: a query sees no key after its own place.
        window: the keys seen, [p - left, p + right], as ``(left, right)``, -1 for all on a side; one number w means
            (w - 1, 0) with ``causal``, the last w keys including its own, and (w // 2, w // 2) without.
        key_mask: (B, S) bool, True = valid; False hides a key from all.
        bias: added to the scores, broadcastable to (B, H, T, S); minus infinity hides a key. The dtype of ``q``, or
            float32 beside half-width operands.
        query_temperature: (B, T, H), multiplies the scores of a query before the bias; dtype as for ``bias``.
        sink: (H,) the score of an extra key whose value is zero, neither scaled nor masked; dtype as for ``bias``.
        scale: of the scores; None means D ** -0.5.
        backend: "reference", "eager" or "gpu"; None leaves the choice to the device and ``PIPELINES_BACKEND``.

    Returns:
        (B, T, H, Dv), contiguous, with the dtype and device of ``q``, also under autocast. A query that sees no key
        gets zeros, and gives zero gradients.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, an empty dimension, a window that is none, or a back end
            that cannot serve.

    Differentiable once in all floating-point arguments. Time O(B H T S (D + Dv)), with a window of w keys
    O(B H T w (D + Dv)); memory O(B H (T + S) (D + Dv)) beside the bias, forward and backward, whatever the mask.

    Source: Attention is all you need (arXiv:1706.03762), equation 1, computed online as FlashAttention-2
    (arXiv:2307.08691), algorithms 1 and 2; windows of LS-attention (arXiv:2505.15548); temperature of selective
    self-attention (arXiv:2411.12892); the sink is the attention bias of Systematic outliers (arXiv:2502.06415) with a
    zero value.

    Example:
        >>> q, k = torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 1, 4)
        >>> v = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
        >>> flash_softmax(q, k, v, causal=True).flatten().tolist()
        [1.0, 2.0]
        >>> flash_softmax(q, k, v, sink=torch.zeros(1), causal=True).flatten().tolist()[0]
        0.5
    """
    check_dims("q", q, "B, T, H, D")
    check_dims("k", k, "B, S, G, D")
    check_dims("v", v, "B, S, G, Dv")
    _check_keys(q, k, v)
    k, v = same_kind("k", k, "q", q), same_kind("v", v, "q", q)
    bias = _checked_bias(bias, q, k)
    query_temperature = _checked("query_temperature", query_temperature, q.shape[:3], "(B, T, H) as q", q)
    sink = _checked("sink", sink, q.shape[2:3], "(H,): a score a head", q)
    _check_mask(key_mask, q, k)
    left, right = band_of(causal, window)
    scale = _checked_scale(scale, q.shape[3])
    chosen = check_backend(backend)
    given = {"key_mask": key_mask, "bias": bias, "query_temperature": query_temperature, "sink": sink, "scale": scale}
    if torch.compiler.is_exporting():
        # An exported program must run without this package, so plain operators are recorded instead of ours.
        return eager.portable_flash_softmax(q, k, v, window=(left, right), **given)
    return flash_softmax_op(q, k, v, key_mask, bias, query_temperature, sink, left, right, scale, chosen)[0]


def _check_keys(q: Tensor, k: Tensor, v: Tensor) -> None:
    if k.shape[0] != q.shape[0] or k.shape[3] != q.shape[3]:
        raise ValueError(
            f"k: found shape {tuple(k.shape)}, expected (B, S, G, D) with B = {q.shape[0]}, D = {q.shape[3]} as in q"
        )
    if q.shape[2] % k.shape[2]:
        raise ValueError(
            f"k: found {k.shape[2]} heads, expected a number that divides the {q.shape[2]} heads of q; repeat heads"
        )
    if v.shape[:3] != k.shape[:3]:
        raise ValueError(f"v: found shape {tuple(v.shape)}, expected {(*k.shape[:3], v.shape[3])}, (B, S, G) as k")


def _checked(name: str, tensor: Tensor | None, shape: torch.Size, why: str, q: Tensor) -> Tensor | None:
    if tensor is None:
        return None
    check_tensor(name, tensor)
    check_shape(name, tensor, shape, why)
    return same_kind(name, tensor, "q", q, or_float32=True)


def _checked_bias(bias: Tensor | None, q: Tensor, k: Tensor) -> Tensor | None:
    """The bias with four dimensions, each of full size or 1."""
    if bias is None:
        return None
    check_tensor("bias", bias)
    full = (q.shape[0], q.shape[2], q.shape[1], k.shape[1])
    if bias.dim() > 4 or any(have not in (1, want) for have, want in zip(bias.shape[::-1], full[::-1], strict=False)):
        raise ValueError(
            f"bias: found shape {tuple(bias.shape)}, expected one that broadcasts to (B, H, T, S) = {full}"
        )
    return same_kind("bias", bias, "q", q, or_float32=True).reshape((1,) * (4 - bias.dim()) + tuple(bias.shape))


def _check_mask(key_mask: Tensor | None, q: Tensor, k: Tensor) -> None:
    if key_mask is None:
        return
    if not isinstance(key_mask, Tensor) or key_mask.dtype != torch.bool:
        found = key_mask.dtype if isinstance(key_mask, Tensor) else type(key_mask).__name__
        raise ValueError(f"key_mask: found {found}, expected torch.bool with True = valid; convert it, e.g. by .bool()")
    check_shape("key_mask", key_mask, k.shape[:2], "(B, S) as k")
    same_device("key_mask", key_mask, "q", q)


def _checked_scale(scale: float | None, channels: int) -> float:
    if scale is None:
        return channels**-0.5
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale):
        raise ValueError(f"scale: found {scale!r}, expected a finite number, or None for D ** -0.5")
    return float(scale)
