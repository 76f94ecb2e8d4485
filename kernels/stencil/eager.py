"""Vectorised torch: any device. The gradient keeps the states of all steps, which autograd needs as well."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from core_attention.kernels._autograd import gradients

__all__ = ["portable_stencil", "stencil", "stencil_backward"]


def stencil(
    u: Tensor,
    coefficients: Tensor,
    source: Tensor | None = None,
    gate: Tensor | None = None,
    dilations: Sequence[int] = (1,),
    steps: int = 1,
    boundary: str = "replicate",
) -> Tensor:
    """Diffuse for some steps. u (B, C, H, W), coefficients (K, C), source and gate as u or None -> as u.

    Half-width operands are widened once, so that the states between the steps are not rounded. Time O(steps K B C H W),
    memory a few tensors of the size of u.
    """
    wide = torch.promote_types(u.dtype, torch.float32)
    tensors = (None if tensor is None else tensor.to(wide) for tensor in (u, coefficients, source, gate))
    return portable_stencil(*tensors, dilations, steps, boundary).to(u.dtype).contiguous()  # type: ignore[arg-type]


def stencil_backward(
    grad: Tensor,
    u: Tensor,
    coefficients: Tensor,
    source: Tensor | None,
    gate: Tensor | None,
    dilations: Sequence[int],
    steps: int,
    boundary: str,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients of u, coefficients, source and gate by autograd; memory O(steps K) tensors of the size of u."""
    operands = {"u": u, "coefficients": coefficients, "source": source, "gate": gate}
    found = gradients(stencil, operands, tuple(operands), (grad,), dilations=dilations, steps=steps, boundary=boundary)
    return found["u"], found["coefficients"], found.get("source"), found.get("gate")


def portable_stencil(
    u: Tensor,
    coefficients: Tensor,
    source: Tensor | None = None,
    gate: Tensor | None = None,
    dilations: Sequence[int] = (1,),
    steps: int = 1,
    boundary: str = "replicate",
) -> Tensor:
    """The same in the operands' own dtype from pads and slices, for exporters. Differentiable by autograd."""
    H, W = u.shape[2:]
    reach, mode = max(dilations), "constant" if boundary == "zeros" else boundary
    for _ in range(steps):
        padded, change = F.pad(u, (reach, reach, reach, reach), mode=mode), torch.zeros_like(u)
        for k, d in enumerate(dilations):
            above, below, middle = reach - d, reach + d, reach
            across = (
                padded[:, :, middle : middle + H, above : above + W]
                + padded[:, :, middle : middle + H, below : below + W]
            )
            along = (
                padded[:, :, above : above + H, middle : middle + W]
                + padded[:, :, below : below + H, middle : middle + W]
            )
            change = change + coefficients[k].view(-1, 1, 1) * (across + along - 4 * u)
        if gate is not None:
            change = gate * change
        u = u + change if source is None else u + change + source
    return u
