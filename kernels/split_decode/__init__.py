"""Attention of one or a few queries over a long, ragged key/value cache, with the work split evenly over all of it."""

from __future__ import annotations

import torch
from torch import Tensor

from core_attention.kernels._checks import check_dims, check_shape, same_device, same_kind
from core_attention.kernels._dispatch import check_backend
from core_attention.kernels.split_decode import eager
from core_attention.kernels.split_decode.operators import decode_op
from core_attention.kernels.split_decode.partials import merge_partials

__all__ = ["merge_partials", "split_decode"]

_INTEGERS = (torch.int64, torch.int32)


def split_decode(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    lengths: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """Exact softmax attention of few queries over many cached keys, every worker reading an equal share of the cache.

    Args:
        q: (B, T, H, D), floating point; T is small, 1 to 16 as a rule.
        k: (B, S, G, D), the dtype of ``q`` (under autocast any floating dtype); H is a multiple of G, and query head h
            reads key head h G // H. Only rows need be contiguous: a slice of a larger cache is not copied.
        v: (B, S, G, D), as ``k``.
        lengths: (B,) int64 or int32, the valid keys of every sample, 0 to S; None means S. Keys and values beyond are
            never used, whatever they hold. On an accelerator, where reading them would make the host wait, lengths
            outside 0 to S are not refused but clamped.
        causal: False: all T queries see all ``length`` keys. True: the queries are the last T of the cached steps, as
            in speculative decoding; query t sees the first ``length - T + t + 1`` keys, none if that is not positive.
        scale: factor of the scores; None means ``D ** -0.5``.
        backend: "reference", "eager", "cpu" or "gpu"; None leaves the choice to the device and ``PIPELINES_BACKEND``.

    Returns:
        (B, T, H, D), contiguous, with the dtype and device of ``q``; zeros for a query that sees no key.

    Raises:
        ValueError: shapes, dtypes, devices or lengths that do not fit, an empty dimension, or a back end that cannot
            serve.

    Differentiable once in ``q``, ``k`` and ``v``; the backward pass computes the forward pass again. Time O(B T H S D),
    one pass over the cache; memory O(B T H D) for each worker. Half-width operands are accumulated in float32.

    Source: LeanAttention (arXiv:2405.10480), section IV, algorithm 2 (stream-K) and the associative merge of IV-A.

    Example:
        >>> q, k = torch.zeros(1, 1, 1, 2), torch.zeros(1, 4, 1, 2)
        >>> v = torch.arange(8.0).view(1, 4, 1, 2)
        >>> split_decode(q, k, v, lengths=torch.tensor([2])).flatten().tolist()
        [1.0, 2.0]
    """
    check_dims("q", q, "B, T, H, D")
    check_dims("k", k, "B, S, G, D")
    _check_cache(q, k, v)
    k, v = same_kind("k", k, "q", q), same_kind("v", v, "q", q)
    if lengths is not None:
        _check_lengths(lengths, q)
        lengths = lengths.long()
    factor = q.shape[3] ** -0.5 if scale is None else float(scale)
    chosen = check_backend(backend)
    if torch.compiler.is_exporting():
        # An exported program must run without this package, so plain operators are recorded instead of ours.
        return eager.portable_split_decode(q, k, v, lengths, causal=causal, scale=factor)
    return decode_op(q, k, v, lengths, causal, factor, chosen)


def _check_cache(q: Tensor, k: Tensor, v: Tensor) -> None:
    B, _, H, D = q.shape
    if k.shape[0] != B or k.shape[3] != D:
        raise ValueError(
            f"k: found shape {tuple(k.shape)}, expected (B, S, G, D) with B = {B} and D = {D}, as q; "
            "a cache shared by the batch is given as k.expand(B, -1, -1, -1)"
        )
    if H % k.shape[2]:
        raise ValueError(f"k: found {k.shape[2]} heads, expected a divisor of q's {H}: every key head serves as many")
    check_dims("v", v, "B, S, G, D")
    check_shape("v", v, k.shape, "(B, S, G, D) as k")


def _check_lengths(lengths: Tensor, q: Tensor) -> None:
    check_shape("lengths", lengths, q.shape[:1], "one number of valid keys a sample, (B,)")
    if lengths.dtype not in _INTEGERS:
        raise ValueError(f"lengths: found {lengths.dtype}, expected int64 or int32: whole numbers of keys")
    same_device("lengths", lengths, "q", q)
