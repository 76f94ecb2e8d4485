"""Linear attention as a recurrence with an optional decay: causal in chunks, or over the whole sequence at once."""

from __future__ import annotations

import torch
from torch import Tensor

from core_attention.kernels._checks import check_dims, check_shape, check_tensor, same_kind
from core_attention.kernels._dispatch import check_backend
from core_attention.kernels.linear_scan import eager
from core_attention.kernels.linear_scan.operators import scan_op

__all__ = ["linear_scan"]


def linear_scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    decay: Tensor | None = None,
    normalise: bool = False,
    causal: bool = True,
    eps: float = 0.0,
    initial_state: Tensor | None = None,
    return_last_state: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Run ``S_t = decay_t S_{t-1} + k_t^T v_t`` and read ``o_t = q_t S_t``, or read every row from the final state.

    Args:
        q: (B, T, H, D) queries after their feature map, floating point.
        k: (B, T, H, D) keys after their feature map, the dtype of ``q``.
        v: (B, T, H, Dv) values, the dtype of ``q``.
        decay: (H,) or a token's own (B, T, H), in (0, 1], the dtype of ``q`` or float32; None forgets nothing. Values
            are not inspected; those below 1e-20 count as 1e-20. Causal only.
        normalise: divide by ``q_t z_t + eps``, where z is the same recurrence over ones in place of values. A row whose
            denominator is zero (its key rows are all zeros, say) gives zeros and passes no gradient, never NaN.
        causal: False reads every row from the state after the last token: ``q (k^T v)``.
        eps: added to the denominator; LinFusion's 1e-4 on means over T tokens is ``eps=1e-4 * T`` on these sums.
        initial_state: (B, H, D, Dv), or (B, H, D, Dv + 1) with ``normalise``: the last column is z. The dtype of ``q``
            or float32. None starts from zeros.
        return_last_state: also return the state after the last token, to resume from.
        backend: "reference", "eager" or "gpu"; None leaves the choice to the device and ``PIPELINES_BACKEND``.

    Returns:
        (B, T, H, Dv) with the dtype of ``q``; with ``return_last_state`` also the state, in the form of
        ``initial_state``, float32 for half-width operands.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, an empty dimension, ``decay`` without ``causal``, or a
            back end that cannot serve.

    Decays enter as differences of sums of logarithms within chunks of 64 tokens, none of them positive, so long
    products neither overflow nor turn into NaN. Differentiable once in every tensor.
    Time O(B T H (64 (D + Dv) + D Dv)); memory beyond the results: O(B H D Dv) and blocks of fixed size (eager),
    O(B H T/64 D Dv) (gpu).

    Source: LinFusion (arXiv:2409.02097), section 3, its normalised non-causal form; the causal recurrence with a scalar
    decay is Mamba-2's (arXiv:2405.21060, section 6).

    Example:
        >>> ones = torch.ones(1, 4, 1, 1)
        >>> linear_scan(ones, ones, ones, decay=torch.tensor([0.5])).flatten().tolist()
        [1.0, 1.5, 1.75, 1.875]
    """
    check_dims("q", q, "B, T, H, D")
    check_dims("k", k, "B, T, H, D")
    check_dims("v", v, "B, T, H, Dv")
    check_shape("k", k, q.shape, "that of q")
    check_shape("v", v, (*q.shape[:3], v.shape[-1]), "(B, T, H, Dv) with B, T, H of q")
    k, v = same_kind("k", k, "q", q), same_kind("v", v, "q", q)
    if decay is not None:
        decay = _checked_decay(decay, q, causal)
    if initial_state is not None:
        check_tensor("initial_state", initial_state)
        columns = v.shape[-1] + normalise
        why = "(B, H, D, Dv + 1): a column for the normaliser" if normalise else "(B, H, D, Dv)"
        check_shape("initial_state", initial_state, (q.shape[0], q.shape[2], q.shape[3], columns), why)
        initial_state = same_kind("initial_state", initial_state, "q", q, or_float32=True)
    if eps < 0 or (eps and not normalise):
        raise ValueError(f"eps: found {eps}, expected at least 0, and 0 without normalise=True: it joins a denominator")
    chosen = check_backend(backend)
    if torch.compiler.is_exporting():
        return eager.portable_linear_scan(
            q,
            k,
            v,
            decay,
            initial_state,
            normalise=normalise,
            causal=causal,
            eps=eps,
            return_last_state=return_last_state,
        )
    out, state = scan_op(q, k, v, decay, initial_state, normalise, causal, float(eps), return_last_state, chosen)
    return (out, state) if return_last_state else out


def _checked_decay(decay: Tensor, q: Tensor, causal: bool) -> Tensor:
    """The decay in a dtype that the back ends take."""
    check_tensor("decay", decay)
    if not causal:
        raise ValueError("decay: found a tensor, expected None with causal=False: no order, nothing to forget by")
    expected = q.shape[2:3] if decay.dim() == 1 else q.shape[:3]  # compared alone: exporters keep a symbolic batch
    if tuple(decay.shape) != tuple(expected):
        raise ValueError(
            f"decay: found shape {tuple(decay.shape)}, expected (H,) = {tuple(q.shape[2:3])} or "
            f"(B, T, H) = {tuple(q.shape[:3])}, as q has them"
        )
    return same_kind("decay", decay, "q", q, or_float32=True)
