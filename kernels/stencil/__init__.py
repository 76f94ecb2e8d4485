"""Several explicit steps of multi-scale diffusion in one call, the integrator of FluidWorld."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core_attention.kernels._checks import check_dims, check_shape, check_tensor, same_kind
from core_attention.kernels._dispatch import check_backend
from core_attention.kernels.stencil import eager
from core_attention.kernels.stencil.operators import stencil_op

__all__ = ["stencil"]

_BOUNDARIES = ("zeros", "reflect", "replicate", "circular")


def stencil(
    u: Tensor,
    coefficients: Tensor,
    dilations: Sequence[int] = (1,),
    steps: int = 1,
    boundary: str = "replicate",
    *,
    source: Tensor | None = None,
    gate: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Take explicit Euler steps ``u <- u + gate * sum_k coefficients[k] * lap_k(u) + source``.

    lap_k is the 5-point Laplacian whose arms are ``dilations[k]`` pixels long. Time step and diffusivity are one
    number here: FluidWorld's is ``dt * softplus(D)``; with ``sum_k coefficients[k] > 1/4`` the steps may blow up.
    A reaction that is learned elsewhere enters as ``source = dt * reaction(u)`` with ``steps=1``.

    Args:
        u: (B, C, H, W), floating point. A sequence is (B, C, 1, L) with any boundary but "zeros" and "reflect".
        coefficients: (K, C), one a dilation and channel, the dtype of ``u`` (under autocast any floating dtype: it is
            cast to that of ``u``).
        dilations: K lengths in pixels, each at least 1; with "reflect" below H and W, with "circular" at most H and W.
        steps: how many, at least 1.
        boundary: what lies beyond the border: "replicate" (FluidWorld's), "zeros", "reflect" or "circular".
        source: as ``u``, added in every step, or None.
        gate: as ``u``, multiplies the diffusion in every step, or None. FluidWorld's anisotropic gate, or its Hebbian
            map as ``1 + M / 2``.
        backend: "reference", "eager", "cpu" or "gpu"; None leaves the choice to the device and ``PIPELINES_BACKEND``.

    Returns:
        (B, C, H, W), contiguous, with the dtype and device of ``u``: the state after the last step. States in between
        are kept in float32 (float64 for float64), never rounded to half width.

    Raises:
        ValueError: shapes, dtypes, devices or options that do not fit, an empty dimension, or a back end that cannot
            serve.

    Differentiable once in all four tensors. Time O(steps K B C H W); memory two planes a thread, for the gradient
    ``steps`` planes a thread on a CPU and ``steps`` tensors of the size of u on a GPU.

    Source: FluidWorld (arXiv:2603.21315), the encoder's reaction-diffusion layer without its learned reaction.

    Example:
        >>> u = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0]).view(1, 1, 1, 5)
        >>> stencil(u, torch.full((1, 1), 0.25), steps=1).flatten().tolist()
        [0.0, 0.25, 0.5, 0.25, 0.0]
    """
    check_dims("u", u, "B, C, H, W")
    arms = checked_dilations(dilations, u, boundary)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps: found {steps!r}, expected a whole number of at least 1")
    check_tensor("coefficients", coefficients)
    check_shape("coefficients", coefficients, (len(arms), u.shape[1]), "(K, C): one a dilation and channel of u")
    coefficients = same_kind("coefficients", coefficients, "u", u)
    if source is not None:
        check_shape("source", source, u.shape, "the shape of u; expand what is shared")
        source = same_kind("source", source, "u", u)
    if gate is not None:
        check_shape("gate", gate, u.shape, "the shape of u; expand what is shared")
        gate = same_kind("gate", gate, "u", u)
    chosen = check_backend(backend)
    if torch.compiler.is_exporting():
        # An exported program must run without this package, so plain operators are recorded instead of ours.
        return eager.portable_stencil(u, coefficients, source, gate, arms, steps, boundary)
    return stencil_op(u, coefficients, source, gate, arms, steps, boundary, chosen)


def checked_dilations(dilations: Sequence[int], u: Tensor, boundary: str) -> list[int]:
    """The dilations as a list, once they and the boundary are known to fit u (B, C, H, W)."""
    if boundary not in _BOUNDARIES:
        raise ValueError(f"boundary: found {boundary!r}, expected one of {', '.join(_BOUNDARIES)}")
    arms = list(dilations) if isinstance(dilations, (tuple, list)) else []
    if not arms or any(isinstance(arm, bool) or not isinstance(arm, int) or arm < 1 for arm in arms):
        raise ValueError(f"dilations: found {dilations!r}, expected a tuple of whole numbers of at least 1")
    most = {"reflect": min(u.shape[2:]) - 1, "circular": min(u.shape[2:])}.get(boundary)
    if most is not None and max(arms) > most:
        raise ValueError(
            f"dilations: found {max(arms)}, expected at most {most} for boundary={boundary!r} on {tuple(u.shape[2:])}; "
            "replicate takes any"
        )
    return arms
