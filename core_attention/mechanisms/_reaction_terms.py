"""The terms of a reaction-diffusion equation, each a small module with the names of its published parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_attention.contract import MechanismError
from core_attention.kernels.stencil.reaction import diffusion, reaction_step
from core_attention.mechanisms.large_kernel import pointwise

__all__ = ["ContentGate", "Diffusion", "MemoryPump", "Reaction", "euler_step", "step_size"]

# Explicit steps of the 5-point Laplacian are stable, and keep to the range of their neighbours, up to this sum.
STABLE = 0.25


class Reaction(nn.Module):
    """What every position does by itself: Linear(C, 2C), GELU, Linear(2C, C); tensors ``net.0.*`` and ``net.2.*``.

    Args:
        dim: channels C.

    Example:
        >>> import torch
        >>> Reaction(8)(torch.zeros(2, 4, 4, 8)).shape
        torch.Size([2, 4, 4, 8])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, u: Tensor) -> Tensor:
        """(..., C) to the same shape."""
        return self.net(u)


class MemoryPump(nn.Module):
    """A memory of the whole field: h <- h + sigmoid(W_g m + b_g) * tanh(W_v m + b_v) for the mean m over all positions.

    Args:
        dim: channels C.

    Example:
        >>> import torch
        >>> MemoryPump(8)(torch.zeros(2, 8), torch.ones(2, 8)).shape
        torch.Size([2, 8])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)

    def forward(self, h: Tensor, mean: Tensor) -> Tensor:
        """Memory h (B, C) and mean (B, C) to the next memory (B, C)."""
        return h + self.gate(mean).sigmoid() * self.value(mean).tanh()


class ContentGate(nn.Module):
    """How open a position is to diffusion: sigmoid(Conv1x1(u)), weights 0 and bias 2 at the start (sigmoid .88).

    Args:
        dim: channels C.

    Example:
        >>> import torch
        >>> round(float(ContentGate(8)(torch.zeros(1, 2, 2, 8)).mean().detach()), 3)
        0.881
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate_conv = nn.Conv2d(dim, dim, 1)
        nn.init.zeros_(self.gate_conv.weight)
        nn.init.constant_(self.gate_conv.bias, 2.0)  # type: ignore[arg-type]

    def forward(self, u: Tensor) -> Tensor:
        """(B, H, W, C) to numbers between 0 and 1 of the same shape."""
        return pointwise(u, self.gate_conv.weight, self.gate_conv.bias).sigmoid()


class Diffusion(nn.Module):
    """Learned diffusivities of several scales: softplus(D[k, c]) for arms of dilations[k] pixels, D = .1 at the start.

    Args:
        dim: channels C.
        dilations: K lengths of the Laplacian's arms in pixels.
        stable: scale the coefficients of a step down where their sum over the scales exceeds 1/4, see `coefficients`.

    Example:
        >>> import torch
        >>> diffusion = Diffusion(8, (1, 4, 16))
        >>> diffusion.coefficients(torch.tensor(0.1)).sum(0)[0] < 0.25
        tensor(True)
        >>> diffusion.coefficients(torch.tensor(0.35)).sum(0)[0] <= 0.25
        tensor(True)
    """

    def __init__(self, dim: int, dilations: Sequence[int] = (1, 4, 16), *, stable: bool = True) -> None:
        super().__init__()
        self.dilations, self.stable = _arms(dilations), stable
        self.D = nn.Parameter(torch.full((len(self.dilations), dim), 0.1))

    def coefficients(self, dt: Tensor, most: float = 1.0) -> Tensor:
        """dt * softplus(D), (K, C); where ``stable``, at most 1/4 in sum over K.

        An explicit step of the 5-point Laplacian is stable for sums up to 1/4, and then no value leaves the range of
        its neighbours. What is scaled is the whole sum, so that the scales keep their shares.

        Args:
            dt: the time step, one number.
            most: the largest factor that will multiply the diffusion (1 for a gate, 2 for 1 + M / 2 with M up to 2).
        """
        found = dt * F.softplus(self.D)
        if not self.stable:
            return found
        return found * (STABLE / most / found.sum(dim=0)).clamp(max=1.0)

    def forward(self, u: Tensor) -> Tensor:
        """The diffusion term sum_k softplus(D[k]) lap_k(u), unscaled: u (B, H, W, C) to the same shape."""
        return diffusion(u, F.softplus(self.D), self.dilations)


def euler_step(
    u: Tensor, coefficients: Tensor, dilations: Sequence[int], source: Tensor | None = None, gate: Tensor | None = None
) -> Tensor:
    """One explicit step: u + gate * sum_k coefficients[k] * lap_k(u) + source, edges repeated beyond the border.

    Args:
        u: (B, H, W, C) field.
        coefficients: (K, C), the time step included.
        dilations: K lengths of the Laplacian's arms in pixels.
        source: as u, the time step included, or None.
        gate: (B or 1, H, W, C), or None.

    Returns:
        (B, H, W, C), the field after the step.

    Example:
        >>> import torch
        >>> euler_step(torch.ones(1, 3, 3, 2), torch.full((1, 2), 0.2), (1,)).unique()
        tensor([1.])
    """
    return reaction_step(u, coefficients, tuple(dilations), source=source, factor=gate).u


def step_size(log_dt: Tensor, low: float, high: float) -> Tensor:
    """The time step exp(log_dt), kept within [low, high].

    Example:
        >>> import torch
        >>> step_size(torch.tensor(0.0), 0.005, 0.15)
        tensor(0.1500)
    """
    return log_dt.exp().clamp(low, high)


def _arms(dilations: Any) -> tuple[int, ...]:
    given = tuple(dilations) if isinstance(dilations, Sequence) and not isinstance(dilations, str) else ()
    if not given or any(not isinstance(d, int) or isinstance(d, bool) or d < 1 for d in given):
        raise MechanismError(f"reaction_diffusion: dilations is {dilations!r}, expected whole numbers of at least 1")
    return given
