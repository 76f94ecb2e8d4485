"""One explicit step of a learned reaction-diffusion equation on tokens with their channels side by side.

    change = gate * sum_k coefficients[k] * lap_k(u) + source + W_out GELU(W_in u + b_in) + spread(push)
    u <- norm(u + change)

On a CPU in float32 the two products and one compiled loop are the whole step (``reaction_cpu``). Elsewhere the same is
done by plain operators around ``stencil``, which autograd differentiates.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from core_attention.kernels._checks import check_dims, check_shape, check_tensor
from core_attention.kernels._dispatch import check_backend, is_free
from core_attention.kernels.stencil import checked_dilations, stencil
from core_attention.kernels.stencil.eager import portable_stencil

__all__ = ["Step", "compiled_serves", "diffusion", "reaction_step"]


class Step(NamedTuple):
    """What a step returns.

    Attributes:
        u: (B, H, W, C) the new state.
        energy: (B,) the mean of |change| of each sample.
        mean: (B, C) the mean of the new state, None where not asked for.
        pooled: (B, P, P, C) the means of its areas, None where not asked for.
    """

    u: Tensor
    energy: Tensor
    mean: Tensor | None
    pooled: Tensor | None


def reaction_step(
    u: Tensor,
    coefficients: Tensor,
    dilations: Sequence[int],
    *,
    weight_in: Tensor | None = None,
    bias_in: Tensor | None = None,
    weight_out: Tensor | None = None,
    push: Tensor | None = None,
    source: Tensor | None = None,
    factor: Tensor | None = None,
    norm: Tensor | None = None,
    eps: float = 1e-8,
    mean: bool = False,
    bins: int = 0,
    carry: bool = True,
    backend: str | None = None,
) -> Step:
    """Take one step; every term but the diffusion may be left out, and the time step is part of all that is given.

    Args:
        u: (B, H, W, C).
        coefficients: (K, C), time step times diffusivity; stable up to a sum over K of 1/4 (where gates are at most 1).
        dilations: K arms' lengths in pixels.
        weight_in: (F, C) of the hidden layer, and C rows more where a gate sigmoid(W u + b) is wanted.
        bias_in: as many numbers as ``weight_in`` has rows.
        weight_out: (C, F); its bias belongs into ``push``, whose shares sum to one everywhere.
        push: (B, P, P, C) numbers added, bilinear between the centres of P x P equal areas; (B, 1, 1, C) is one number
            everywhere.
        source: as u, added.
        factor: (1 or B, H, W, C) multiplies the diffusion instead of a gate.
        norm: (C,) weight of an RMSNorm over the channels after the step.
        eps: of that norm.
        mean: whether to return the mean of the new state.
        bins: P of the P x P means (as adaptive pooling cuts the areas) to return, 0 for none.
        carry: whether the new state is u + change; False leaves the change alone in its place.
        backend: "cpu" for the compiled loops, another for plain operators with that stencil; None leaves it free.

    Raises:
        ValueError: shapes or dilations that do not fit, or a back end that does not exist or cannot serve.

    Time O(H W (C F + K C)) a sample; memory for the gradient O(H W (C + F)).

    Source: FluidWorld (arXiv:2603.21315), one step of the encoder's layer.

    Example:
        >>> import torch
        >>> step = reaction_step(torch.ones(1, 4, 4, 8), torch.full((1, 8), 0.2), (1,), mean=True)
        >>> float(step.u.max()), float(step.energy), step.mean.shape
        (1.0, 0.0, torch.Size([1, 8]))
    """
    tensors = (u, coefficients, weight_in, bias_in, weight_out, push, source, factor, norm)
    _check_shapes(*tensors)
    arms = tuple(checked_dilations(dilations, u, "replicate"))
    check_shape("coefficients", coefficients, (len(arms), u.shape[3]), "(K, C): one a dilation and channel of u")
    if not compiled_serves(u, check_backend(backend)):
        return _plain(*tensors, arms, eps, mean, bins, carry, backend)
    from core_attention.kernels.stencil.reaction_cpu import compiled_step  # numba is imported on first use only

    out, energy, means, pooled = compiled_step(tensors, arms, eps, mean, bins, carry)
    return Step(out, energy, means if mean else None, pooled if bins else None)


def diffusion(u: Tensor, coefficients: Tensor, dilations: Sequence[int], *, backend: str | None = None) -> Tensor:
    """The diffusion term alone: sum_k coefficients[k] * lap_k(u), edges repeated beyond the border.

    Args:
        u: (B, H, W, C).
        coefficients: (K, C).
        dilations: K arms' lengths in pixels.
        backend: as of `reaction_step`.

    Returns:
        (B, H, W, C).

    Raises:
        ValueError: shapes or dilations that do not fit, or a back end that does not exist or cannot serve.

    Time O(K B H W C). Source: FluidWorld (arXiv:2603.21315), the multi-scale Laplacian.

    Example:
        >>> import torch
        >>> u = torch.arange(5.0).square().view(1, 1, 5, 1)
        >>> diffusion(u, torch.ones(1, 1), (1,)).flatten().tolist()
        [1.0, 2.0, 2.0, 2.0, -7.0]
    """
    recorded = torch.is_grad_enabled() and (u.requires_grad or coefficients.requires_grad)
    if recorded or not compiled_serves(u, check_backend(backend)):
        return reaction_step(u, coefficients, dilations, carry=False, backend=backend).u
    from core_attention.kernels.stencil.reaction_cpu import compiled_diffusion  # numba is imported on first use only

    check_dims("u", u, "B, H, W, C")
    arms = tuple(checked_dilations(dilations, u, "replicate"))
    check_shape("coefficients", coefficients, (len(arms), u.shape[3]), "(K, C): one a dilation and channel of u")
    return compiled_diffusion(u, coefficients, arms)


def compiled_serves(u: Tensor, backend: str = "") -> bool:
    """Whether the compiled loops compute this: float32 in main memory, nothing traced or cast, none else asked for."""
    asked = backend or ("" if is_free("") else os.environ["PIPELINES_BACKEND"].strip().lower())
    return (
        u.device.type == "cpu"
        and u.dtype == torch.float32
        and asked in ("", "cpu")
        and not torch.compiler.is_compiling()
        and not torch.compiler.is_exporting()
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
    )


def _plain(
    u: Tensor,
    coefficients: Tensor,
    weight_in: Tensor | None,
    bias_in: Tensor | None,
    weight_out: Tensor | None,
    push: Tensor | None,
    source: Tensor | None,
    factor: Tensor | None,
    norm: Tensor | None,
    dilations: tuple[int, ...],
    eps: float,
    mean: bool,
    bins: int,
    carry: bool,
    backend: str | None,
) -> Step:
    """The same by plain operators around ``stencil``."""
    H, W = u.shape[1:3]
    gate = None if factor is None else factor.expand(u.shape)
    added = source
    if weight_in is not None and weight_out is not None:
        z = F.linear(u, weight_in, bias_in)
        hidden = weight_out.shape[1]
        reacted = F.linear(F.gelu(z[..., :hidden]), weight_out)
        added = reacted if added is None else added + reacted
        gate = z[..., hidden:].sigmoid() if z.shape[-1] > hidden else gate
    if push is not None:
        planes = F.interpolate(_planes(push), size=(H, W), mode="bilinear", align_corners=False)
        added = _tokens(planes) if added is None else added + _tokens(planes)
    added, gate = (None if t is None else _planes(t) for t in (added, gate))
    if torch._C._are_functorch_transforms_active():
        # torch's function transforms (vmap, jvp, grad) look into plain operators only.
        planes = portable_stencil(_planes(u), coefficients, added, gate, dilations)
    else:
        planes = stencil(_planes(u), coefficients, dilations, source=added, gate=gate, backend=backend)
    stepped = _tokens(planes)
    change = stepped - u
    energy = change.abs().mean(dim=(1, 2, 3))
    stepped = stepped if carry else change
    if norm is not None:
        stepped = F.rms_norm(stepped, norm.shape, norm, eps)
    pooled = _tokens(F.adaptive_avg_pool2d(_planes(stepped), bins)) if bins else None
    return Step(stepped, energy, stepped.mean(dim=(1, 2)) if mean else None, pooled)


def _planes(tokens: Tensor) -> Tensor:
    return tokens.permute(0, 3, 1, 2)


def _tokens(planes: Tensor) -> Tensor:
    return planes.permute(0, 2, 3, 1)


def _check_shapes(
    u: Tensor,
    coefficients: Tensor,
    weight_in: Tensor | None,
    bias_in: Tensor | None,
    weight_out: Tensor | None,
    push: Tensor | None,
    source: Tensor | None,
    factor: Tensor | None,
    norm: Tensor | None,
) -> None:
    """Refuse what the compiled loops would read beyond."""
    check_tensor("coefficients", coefficients)
    check_dims("u", u, "B, H, W, C")
    B, H, W, C = u.shape
    whole = (weight_in is None, bias_in is None, weight_out is None)
    if any(whole) and not all(whole):
        raise ValueError("weight_in, bias_in and weight_out: found one without the others, expected all or none")
    if weight_in is not None and bias_in is not None and weight_out is not None:
        hidden = weight_out.shape[-1]
        rows = hidden + C if len(weight_in) > hidden else hidden
        check_shape("weight_out", weight_out, (C, hidden), "(C, F)")
        check_shape("weight_in", weight_in, (rows, C), "(F, C), or (F + C, C) with a gate")
        check_shape("bias_in", bias_in, (rows,), "one a row of weight_in")
    if push is not None:
        check_shape("push", push, (B, push.shape[1], push.shape[1], C), "(B, P, P, C)")
    if source is not None:
        check_shape("source", source, u.shape, "the shape of u; expand what is shared")
    if factor is not None:
        # len() would make the batch of an exported program a constant.
        rows = factor.shape[0] if torch.compiler.is_exporting() else (B if factor.shape[0] == B else 1)
        check_shape("factor", factor, (rows, H, W, C), "(1 or B, H, W, C)")
    if norm is not None:
        check_shape("norm", norm, (C,), "one a channel")
