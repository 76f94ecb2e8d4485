"""Aggregation over time delays and correlation at time delays, the two halves of auto-correlation attention."""

from __future__ import annotations

import torch
from torch import Tensor

from core_attention.kernels._checks import check_dims, same_device, same_kind
from core_attention.kernels._dispatch import check_backend
from core_attention.kernels.delay_aggregate import eager
from core_attention.kernels.delay_aggregate.operators import aggregate_op, correlation_op

__all__ = ["delay_aggregate", "delay_correlation"]

_INTEGERS = (torch.int64, torch.int32)


def delay_aggregate(values: Tensor, lags: Tensor, weights: Tensor, *, backend: str | None = None) -> Tensor:
    """Sum circular shifts of a sequence: ``out[b, t] = sum_i weights[b, i] * values[b, (t + lags[b, i]) mod T]``.

    Args:
        values: (B, T, H, D), floating point.
        lags: (B, K) whole time steps, int64 or int32, any sign and size (taken modulo T).
        weights: (B, K), the dtype of ``values`` (under autocast any floating dtype: it is cast to that of ``values``).
        backend: "reference", "eager" or "gpu"; None leaves the choice to the device and ``PIPELINES_BACKEND``.

    Returns:
        (B, T, H, D), contiguous, with the dtype and device of ``values``, also under autocast.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, an empty dimension, or a back end that cannot serve.

    Differentiable to any order in ``values`` and ``weights``. Time O(B K T H D), memory O(B T (H D + K)).
    Sums of half-width numbers are accumulated in float32 and rounded once.

    Source: Autoformer (arXiv:2106.13008), section 3.2, equation 6.

    Example:
        >>> values = torch.arange(4.0).view(1, 4, 1, 1)
        >>> delay_aggregate(values, torch.tensor([[1, 0]]), torch.tensor([[0.5, 0.5]])).flatten().tolist()
        [0.5, 1.5, 2.5, 1.5]
    """
    check_dims("values", values, "B, T, H, D")
    _check_lags(lags, values)
    if weights.shape != lags.shape:
        raise ValueError(
            f"weights: found shape {tuple(weights.shape)}, expected that of lags, {tuple(lags.shape)}: a weight a lag"
        )
    weights = same_kind("weights", weights, "values", values)
    chosen = check_backend(backend)
    if torch.compiler.is_exporting():
        # An exported program must run without this package, so plain operators are recorded instead of ours.
        return eager.portable_delay_aggregate(values, lags.long(), weights)
    return aggregate_op(values, lags.long(), weights, chosen)


def delay_correlation(q: Tensor, k: Tensor, lags: Tensor, *, backend: str | None = None) -> Tensor:
    """Correlate at given delays: ``out[b, i] = mean over H, D of sum_t q[b, t] * k[b, (t - lags[b, i]) mod T]``.

    Args:
        q: (B, T, H, D), floating point.
        k: (B, T, H, D), the dtype of ``q`` (under autocast any floating dtype: it is cast to that of ``q``).
        lags: (B, K) whole time steps, int64 or int32, any sign and size (taken modulo T).
        backend: "reference", "eager" or "gpu"; None leaves the choice to the device and ``PIPELINES_BACKEND``.

    Returns:
        (B, K) with the dtype and device of ``q``: the entries of ``irfft(rfft(q) conj(rfft(k)))``, averaged over heads
        and channels, at the lags asked for, without a Fourier transform and with nothing of size L x L.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, an empty dimension, or a back end that cannot serve.

    Differentiable to any order in ``q`` and ``k``. Time O(B K T H D), memory O(B T K).

    Source: Autoformer (arXiv:2106.13008), section 3.2, equation 5.

    Example:
        >>> wave = torch.tensor([1.0, 0.0, -1.0, 0.0]).view(1, 4, 1, 1)
        >>> delay_correlation(wave, wave, torch.tensor([[0, 1, 2]])).tolist()
        [[2.0, 0.0, -2.0]]
    """
    check_dims("q", q, "B, T, H, D")
    if k.shape != q.shape:
        raise ValueError(f"k: found shape {tuple(k.shape)}, expected that of q, {tuple(q.shape)}")
    _check_lags(lags, q)
    k = same_kind("k", k, "q", q)
    chosen = check_backend(backend)
    if torch.compiler.is_exporting():
        return eager.portable_delay_correlation(q, k, lags.long())
    return correlation_op(q, k, lags.long(), 1 / (q.shape[2] * q.shape[3]), chosen)


def _check_lags(lags: Tensor, sequence: Tensor) -> None:
    if lags.dtype not in _INTEGERS:
        raise ValueError(f"lags: found {lags.dtype}, expected int64: whole time steps")
    if lags.dim() != 2 or lags.shape[0] != sequence.shape[0]:
        raise ValueError(
            f"lags: found shape {tuple(lags.shape)}, expected (B, K) with B = {sequence.shape[0]}; "
            "lags shared by the batch are given as lags.expand(B, -1)"
        )
    if lags.shape[1] == 0:
        raise ValueError(f"lags: found shape {tuple(lags.shape)}, expected at least one lag")
    same_device("lags", lags, "the sequence", sequence)
