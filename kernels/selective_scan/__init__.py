"""The selective scan: a linear recurrence whose step size and whose input and output matrices depend on the token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._checks import check_dims, check_shape, same_device, same_kind
from core_attention.kernels._dispatch import check_backend
from core_attention.kernels.selective_scan import eager
from core_attention.kernels.selective_scan.operators import scan_op, state_dtype

__all__ = ["selective_scan", "selective_scan_step"]


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    return_last_state: bool = False,
    *,
    backend: str | None = None,
) -> Any:
    """Scan ``h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t`` and read ``y_t = (C_t h_t + D u_t) silu(z_t)``.

    Args:
        u: (B, D, L) input, floating point.
        delta: (B, D, L) step sizes, before bias and softplus if those are asked for.
        A: (D, N) decay rates, real; negative for a state that fades.
        B: (B, N, L), or (B, G, N, L) with D a multiple of G: channel d uses group d // (D / G). How u enters the state.
        C: like ``B``, with its own G or none. How the state is read.
        D: (D,) weight of the input in the output; none without it.
        z: (B, D, L) gate; none without it.
        delta_bias: (D,) added to ``delta`` before softplus.
        delta_softplus: whether ``softplus(delta + delta_bias)`` is the step size.
        initial_state: (B, D, N) state before the first step; zeros without it.
        return_last_state: whether the state after the last step is returned too.
        backend: "reference", "eager", "cpu" or "gpu"; None leaves it to the device and ``PIPELINES_BACKEND``.

    ``delta``, ``B``, ``C`` and ``z`` have the dtype of ``u``; the parameters ``A``, ``D`` and ``delta_bias`` and the
    state may stay in float32 beside half-width operands.

    Returns:
        (B, D, L), contiguous, in the dtype of ``u``; with ``return_last_state`` also the state (B, D, N), float32 for
        half-width operands. Feeding the state to the next piece of a sequence gives what one call would have given.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, an empty dimension, or a back end that cannot serve.

    Differentiable once in every tensor. Time O(B D L N); memory O(B D L) and, where a gradient is wanted, a state every
    64 steps: O(B D N L / 64). States and sums are float32 for half-width operands and rounded once.

    Source: Mamba (arXiv:2312.00752), section 3.2, algorithm 2; the input enters by the Euler form ``delta B``.

    Example:
        >>> u = torch.ones(1, 1, 3)
        >>> one = torch.ones(1, 1, 3)
        >>> decay = torch.tensor([[-0.6931472]])  # halves the state at step size one
        >>> selective_scan(u, one, decay, one, one).round(decimals=3).tolist()
        [[[1.0, 1.5, 1.75]]]
    """
    check_dims("u", u, "B, D, L")
    rows, channels, _ = u.shape
    check_dims("A", A, "D, N")
    check_shape("A", A, (channels, A.shape[1]), "(D, N) with D of u")
    delta = _like_input("delta", delta, u)
    z = None if z is None else _like_input("z", z, u)
    B = _matrices("B", B, u, A.shape[1])
    C = _matrices("C", C, u, A.shape[1])
    A = same_kind("A", A, "u", u, or_float32=True)
    D = None if D is None else _per_channel("D", D, u)
    delta_bias = None if delta_bias is None else _per_channel("delta_bias", delta_bias, u)
    if initial_state is not None:
        check_shape("initial_state", initial_state, (rows, channels, A.shape[1]), "(B, D, N) of u and A")
        initial_state = same_kind("initial_state", initial_state, "u", u, or_float32=True)
    chosen = check_backend(backend)
    if torch.compiler.is_exporting():
        # An exported program must run without this package, so plain operators are recorded instead of ours.
        return eager.portable_selective_scan(
            u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, return_last_state
        )
    operands = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    saving = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in operands)
    out, last, _ = scan_op(*operands, delta_softplus, saving, chosen)
    return (out, last) if return_last_state else out


def selective_scan_step(
    state: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> tuple[Tensor, Tensor]:
    """Advance the scan by one step, for decoding a token at a time.

    Args:
        state: (B, D, N) before the step; float32 beside half-width operands.
        u: (B, D) input of this step.
        delta: (B, D) step size, before bias and softplus.
        A: (D, N).
        B: (B, N) or (B, G, N).
        C: (B, N) or (B, G, N).
        D: (D,), or none.
        z: (B, D), or none.
        delta_bias: (D,), or none.
        delta_softplus: as in ``selective_scan``.

    Returns:
        the output (B, D) in the dtype of ``u``, and the new state (B, D, N); the given state is left as it was.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit.

    Differentiable. Time and memory O(B D N). Source: as ``selective_scan``; L steps give what one scan gives.

    Example:
        >>> y, state = selective_scan_step(torch.zeros(1, 1, 1), *[torch.ones(1, 1)] * 5)
        >>> y.item(), state.item()
        (1.0, 1.0)
    """
    check_dims("u", u, "B, D")
    check_dims("state", state, "B, D, N")
    check_shape("state", state, (*u.shape, state.shape[2]), "(B, D, N) with B and D of u")
    pairs = {"delta": delta, "z": z}
    for name, tensor in pairs.items():
        if tensor is not None:
            check_shape(name, tensor, u.shape, "(B, D) as u")
    for name, tensor in {"B": B, "C": C}.items():
        if not isinstance(tensor, Tensor) or tensor.dim() not in (2, 3):
            found = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ValueError(f"{name}: found {found}, expected (B, N) or (B, G, N)")
    out, last = selective_scan(
        u.unsqueeze(-1),
        delta.unsqueeze(-1),
        A,
        B.unsqueeze(-1),
        C.unsqueeze(-1),
        D,
        None if z is None else z.unsqueeze(-1),
        delta_bias,
        delta_softplus,
        state.to(state_dtype(u.dtype)),
        True,
        backend="eager" if u.dtype != torch.float64 and not torch.compiler.is_exporting() else None,
    )
    return out.squeeze(-1), last


def _like_input(name: str, tensor: Tensor, u: Tensor) -> Tensor:
    check_shape(name, tensor, u.shape, "(B, D, L) as u")
    return same_kind(name, tensor, "u", u)


def _per_channel(name: str, tensor: Tensor, u: Tensor) -> Tensor:
    check_shape(name, tensor, (u.shape[1],), "(D,) of u")
    return same_kind(name, tensor, "u", u, or_float32=True)


def _matrices(name: str, tensor: Tensor, u: Tensor, states: int) -> Tensor:
    """B or C as (B, G, N, L)."""
    rows, channels, length = u.shape
    if not isinstance(tensor, Tensor) or tensor.dim() not in (3, 4):
        found = f"shape {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise ValueError(f"{name}: found {found}, expected (B, N, L) or (B, G, N, L)")
    grouped = tensor.unsqueeze(1) if tensor.dim() == 3 else tensor
    groups = grouped.shape[1]
    if groups == 0 or channels % groups:
        raise ValueError(f"{name}: found {groups} groups, expected a number that divides the {channels} channels of u")
    expected = (rows, states, length) if tensor.dim() == 3 else (rows, groups, states, length)
    check_shape(name, tensor, expected, "(B, N, L) or (B, G, N, L) with B and L of u and N of A")
    same_device(name, tensor, "u", u)
    return same_kind(name, grouped, "u", u)
