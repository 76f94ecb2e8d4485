"""Auto-correlation: attention between a series and itself shifted, instead of between tokens."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from core_attention.contract import MechanismError, MixerOutput
from core_attention.correlation import period_correlation
from core_attention.kernels import delay_aggregate
from core_attention.layers import ProjectedMixer
from core_attention.registry import mechanism

LAGS = ("auto", "batch", "sample")


@mechanism(
    name="auto_correlation",
    paper="arXiv 2106.13008",
    year=2021,
    complexity="L log L",
    memory="L",
    context=True,
)
class AutoCorrelation(ProjectedMixer):
    """Values rolled by the lags at which queries and keys correlate most, weighted by how much.

    R(lag) = mean over heads and channels of sum_t q[t] k[t - lag], by FFT; the int(factor ln T) lags of largest R are
    kept, their softmax weighs values rolled by them. O(T log T C) time, O(T C) memory: neither T x T scores nor
    shifted copies are kept. A longer x zero-pads keys and values of the context, a shorter one cuts them, as the paper
    does. Batches in training share one set of lags (of the largest batch mean), each sample has its own in evaluation:
    ``lags="auto"``, the released behaviour, so that the modes differ even without dropout. Source: Autoformer
    (arXiv 2106.13008), section 3.2, equations 5 to 7; the state dict is the released AutoCorrelationLayer's.

    Args:
        dim: channels C.
        num_heads: heads H.
        factor: how many lags are kept, int(factor ln T), at least 1 and at most T.
        lags: "batch" (one set for a batch), "sample" (one for each sample) or "auto".
        qkv_bias: whether query, key and value projections have a bias.

    Raises:
        MechanismError: sizes that do not fit, a factor that is not positive, an unknown ``lags``.

    Example:
        >>> import torch
        >>> AutoCorrelation(16, 4, factor=2)(torch.randn(2, 48, 16)).y.shape
        torch.Size([2, 48, 16])
    """

    def __init__(
        self, dim: int, num_heads: int = 8, *, factor: float = 1.0, lags: str = "auto", qkv_bias: bool = True
    ) -> None:
        super().__init__(dim, num_heads, qkv_bias=qkv_bias)
        if not (factor > 0 and math.isfinite(factor)):
            raise MechanismError(f"auto_correlation: factor is {factor}, expected a positive number")
        if lags not in LAGS:
            raise MechanismError(f"auto_correlation: lags is {lags!r}, expected one of {', '.join(LAGS)}")
        self.factor, self.lags = float(factor), lags

    def mix(self, x: Tensor, *, context: Tensor | None = None, maps: bool = False) -> MixerOutput:
        """Mix x by its own delays, or by the context's. ``maps=True`` returns R, lags and weights in ``aux``."""
        q, k, v = self.project(x, context)
        k, v = _fit_length(k, x.shape[1]), _fit_length(v, x.shape[1])
        shared = self.lags == "batch" or (self.lags == "auto" and self.training)
        aux: dict[str, Tensor] = {}
        y = auto_correlation(q, k, v, self.factor, shared=shared, aux=aux if maps else None)
        return MixerOutput(self.merge(y), None, aux)


def auto_correlation(
    q: Tensor, k: Tensor, v: Tensor, factor: float, *, shared: bool, aux: dict[str, Tensor] | None = None
) -> Tensor:
    """The mixing itself, without projections.

    Args:
        q, k, v: (B, T, H, D), of one dtype.
        factor: int(factor ln T) lags are kept.
        shared: one set of lags for the batch instead of one for each sample.
        aux: where to put "correlation" (B, T), "lags" and "weights" (B, K), if anywhere.

    Returns:
        (B, T, H, D).
    """
    correlation = period_correlation(q, k)
    lags = strongest_lags(correlation, factor, shared)
    weights = correlation_at(q, k, correlation, lags).softmax(dim=-1).to(v.dtype)
    if aux is not None:
        aux.update(correlation=correlation.detach(), lags=lags, weights=weights.detach())
    return delay_aggregate(v, lags, weights)


def strongest_lags(correlation: Tensor, factor: float, shared: bool) -> Tensor:
    """The int(factor ln T) lags of largest correlation: (B, T) to (B, K), one set for all samples where ``shared``."""
    length = correlation.shape[1]
    count = min(max(int(factor * math.log(length)), 1), length)
    if shared:
        best = correlation.mean(dim=0, keepdim=True).topk(count, dim=1).indices
        return best.expand(correlation.shape[0], -1)
    return correlation.topk(count, dim=1).indices


def correlation_at(q: Tensor, k: Tensor, correlation: Tensor, lags: Tensor) -> Tensor:
    """Correlations (B, K) at the lags, read from ``period_correlation`` and differentiable in q and k."""
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad) and not torch.compiler.is_exporting():
        result = _CorrelationAt.apply(q, k, correlation, lags)
        return result  # noqa: RET504
    return correlation.gather(1, lags)


class _CorrelationAt(torch.autograd.Function):
    """Read the chosen entries of R; the backward pass is two delay aggregations, and keeps no spectrum."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, correlation: Tensor, lags: Tensor) -> Tensor:
        ctx.save_for_backward(q, k, lags)
        return correlation.gather(1, lags)

    @staticmethod
    def backward(ctx: FunctionCtx | Any, *grads: Any) -> tuple[Tensor | None, Tensor | None, None, None]:
        q, k, lags = ctx.saved_tensors
        share = (grads[0] / (q.shape[2] * q.shape[3])).to(q.dtype)
        # d/dq[t] of sum_t <q[t], k[t - lag]> is k[t - lag]; d/dk[t] is q[t + lag].
        to_q = delay_aggregate(k, -lags, share) if ctx.needs_input_grad[0] else None
        to_k = delay_aggregate(q, lags, share) if ctx.needs_input_grad[1] else None
        return to_q, to_k, None, None


def _fit_length(heads: Tensor, length: int) -> Tensor:
    """Cut (B, S, H, D) to the length along time, or pad it with zeros."""
    missing = length - heads.shape[1]
    if missing > 0:
        return F.pad(heads, (0, 0, 0, 0, 0, missing))
    return heads[:, :length]
