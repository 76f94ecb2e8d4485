"""A reaction-diffusion equation integrated over the tokens, in the place of attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_attention.contract import MechanismError, MixerOutput, TokenMixer
from core_attention.kernels.stencil.reaction import Step, reaction_step
from core_attention.mechanisms.large_kernel import pointwise
from core_attention.norms import RMSNorm
from core_attention.registry import mechanism

__all__ = ["ContentGate", "Diffusion", "MemoryPump", "Reaction", "ReactionDiffusion", "euler_step", "step_size"]

# Explicit steps of the 5-point Laplacian are stable, and keep to the range of their neighbours, up to this sum.
STABLE = 0.25
_LEGACY = (None, "batch")
_LEAST_STEPS, _PATIENCE, _PROBE, _AREAS = 3, 2, 8, 4
_EPS = 1e-8


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
        >>> round(float(ContentGate(8)(torch.zeros(1, 2, 2, 8)).mean()), 3)
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
        return euler_step(u, F.softplus(self.D), self.dilations) - u


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


@mechanism(
    name="reaction_diffusion",
    paper="arXiv 2603.21315",
    year=2026,
    complexity="L",
    memory="L",
    grid=(1, 2),
)
class ReactionDiffusion(TokenMixer):
    """A reaction-diffusion equation, integrated by explicit steps with the tokens as its initial state.

        u <- u + dt (g * sum_k softplus(D_k) lap_k(u) + R(u) + softplus(a_g) h + softplus(a_l) l)    ``steps`` times

    lap_k is the 5-point Laplacian with arms of ``dilations[k]`` pixels and repeated edges (on a sequence the two arms
    along it), g the content gate, R a small network of each position, h the memory pump of the mean field, l the local
    memory: means of 4 x 4 areas (4 on a sequence), mapped and spread out again bilinearly. After every second step the
    channels of each position are normalised (RMSNorm, eps 1e-8).

    In evaluation mode with a ``tolerance`` a sample stops when it has settled: after at least three steps, when the
    turbulence of its last two was below the tolerance. Turbulence is mean |p - q| / mean |q| for p the means of 8 x 8
    areas of the field after the step, before its norm, and q those of the step before. The other samples go on, so that
    no result depends on the batch.

    O(steps L C^2) time and O(L C) memory for L tokens (for gradients O(steps L C)). Source: FluidWorld (arXiv
    2603.21315), the layer of its encoder; the parameters keep the released names. ``stable`` and stopping by sample are
    ours; with ``stable=False``, ``legacy="batch"`` and the released limits of dt it is the released layer.

    Args:
        dim: channels C.
        num_heads: ignored: every channel diffuses by itself.
        steps: Euler steps, at most or exactly, see ``tolerance``.
        dilations: lengths of the Laplacian's arms in pixels.
        anisotropic: whether the diffusion has a content gate sigmoid(W u + b), .88 everywhere at the start.
        pump: whether there is a memory of the mean field.
        local: whether there is a memory of areas.
        tolerance: turbulence below which a sample has settled, in evaluation mode; 0 takes all steps.
        legacy: "batch" stops all samples at once by the turbulence of the whole batch, as released.
        dt: time step at the start.
        dt_limits: what it is kept to; released .005 to .35, or .15 for layers with a gate.
        stable: scale diffusion down where a step would be unstable; at the start nothing is scaled.

    Raises:
        MechanismError: an option that is not what it should be, by name.

    Example:
        >>> import torch
        >>> mixer = ReactionDiffusion(16, tolerance=0.08).eval()
        >>> out = mixer(torch.randn(2, 16, 24, 16))
        >>> out.y.shape, out.aux["steps"].shape, out.aux["energy"].shape
        (torch.Size([2, 16, 24, 16]), torch.Size([2]), torch.Size([2]))
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        steps: int = 6,
        dilations: Sequence[int] = (1, 4, 16),
        anisotropic: bool = True,
        pump: bool = True,
        local: bool = True,
        tolerance: float = 0.0,
        legacy: str | None = None,
        dt: float = 0.1,
        dt_limits: tuple[float, float] = (0.005, 0.15),
        stable: bool = True,
    ) -> None:
        super().__init__(dim, num_heads)
        _check_options(steps, tolerance, legacy, dt, dt_limits)
        self.steps, self.tolerance, self.legacy, self.dt_limits = steps, tolerance, legacy, tuple(dt_limits)
        self.log_dt = nn.Parameter(torch.tensor(float(dt)).log())
        self.diffusion = Diffusion(dim, dilations, stable=stable)
        self.reaction = Reaction(dim)
        self.content_gate = ContentGate(dim) if anisotropic else None
        self.memory = MemoryPump(dim) if pump else None
        self.alpha_global = nn.Parameter(torch.tensor(0.1)) if pump else None
        self.local_proj = nn.Conv2d(dim, dim, 1) if local else None
        self.alpha_local = nn.Parameter(torch.tensor(0.05)) if local else None
        self.norm = RMSNorm(dim, eps=_EPS)

    def mix(self, x: Tensor) -> MixerOutput:
        """Mix x (B, L, C) or (B, H, W, C).

        ``aux`` holds "steps" (B,), how many were taken, and "energy" (B,), the mean of |du/dt| over them.
        """
        field = x if x.dim() == 4 else x[:, None]
        equation = self._equation(field)
        if self.training or not self.tolerance:
            u, energy = self._all_steps(field, equation)
            used = torch.full((x.shape[0],), self.steps, device=x.device)
        elif self.legacy == "batch":
            u, energy, used = self._until_settled(field, equation, together=True)
        else:
            u, energy, used = self._until_settled(field, equation, together=False)
        return MixerOutput(u.reshape(x.shape), None, {"steps": used, "energy": energy / used})

    def _equation(self, field: Tensor) -> _Equation:
        """What all steps share, the time step multiplied into it."""
        dt = step_size(self.log_dt, *self.dt_limits)
        enter, _, leave = self.reaction.net
        weight_in, bias_in = enter.weight, enter.bias
        if self.content_gate is not None:
            gate = self.content_gate.gate_conv
            weight_in, bias_in = torch.cat([weight_in, gate.weight.flatten(1)]), torch.cat([bias_in, gate.bias])
        local = None
        bias = dt * leave.bias
        if self.local_proj is not None and self.alpha_local is not None:
            scale = dt * F.softplus(self.alpha_local)
            local, bias = scale * self.local_proj.weight.flatten(1), bias + scale * self.local_proj.bias
        pump = None
        if self.memory is not None and self.alpha_global is not None:
            gate, value = self.memory.gate, self.memory.value
            pump = _Pump(
                torch.cat([gate.weight, value.weight]),
                torch.cat([gate.bias, value.bias]),
                dt * F.softplus(self.alpha_global),
            )
        return _Equation(dt, self.diffusion.coefficients(dt), weight_in, bias_in, dt * leave.weight, bias, local, pump)

    def _all_steps(self, u: Tensor, equation: _Equation) -> tuple[Tensor, Tensor]:
        """The field after all steps, and the sum of their energies (B,)."""
        mean, pooled = self._means(u)
        h, energy = None, None
        for step in range(self.steps):
            push, h = equation.push(u.shape[0], mean, pooled, h)
            last = step == self.steps - 1
            taken = self._step(u, equation, push, norm=bool(step % 2), means=not last)
            u, mean, pooled = taken.u, taken.mean, taken.pooled
            energy = taken.energy if energy is None else energy + taken.energy
        return u, energy / equation.dt  # type: ignore[operator]

    def _until_settled(self, u: Tensor, equation: _Equation, *, together: bool) -> tuple[Tensor, Tensor, Tensor]:
        """The same, but samples that have settled stop; and the number of steps of each (B,)."""
        result, energy = u.clone(), u.new_zeros(u.shape[0])
        used = torch.zeros(u.shape[0], dtype=torch.long, device=u.device)
        going = torch.arange(u.shape[0], device=u.device)
        probe, calm, h = _probe(u), torch.zeros_like(used), None
        for step in range(self.steps):
            push, h = equation.push(u.shape[0], *self._means(u), h)
            taken = self._step(u, equation, push, norm=False, means=False)
            before, probe = probe, _probe(taken.u)
            u = self.norm(taken.u) if step % 2 else taken.u
            quiet = _turbulence(probe, before, together) < self.tolerance
            calm = torch.where(quiet, calm + 1, 0)
            stopped = (calm >= _PATIENCE) & (step + 1 >= max(_LEAST_STEPS, 1))
            if step == self.steps - 1:
                stopped = torch.ones_like(stopped)
            energy = energy.index_add(0, going, taken.energy)
            used[going] += 1
            result = result.index_copy(0, going[stopped], u[stopped])
            if bool(stopped.all()):
                break
            if bool(stopped.any()):
                left = ~stopped
                u, probe, calm, going = u[left], probe[left], calm[left], going[left]
                h = None if h is None else h[left]
        return result, energy / equation.dt, used

    def _step(self, u: Tensor, equation: _Equation, push: Tensor, *, norm: bool, means: bool) -> Step:
        return reaction_step(
            u,
            equation.coefficients,
            self.diffusion.dilations,
            weight_in=equation.weight_in,
            bias_in=equation.bias_in,
            weight_out=equation.weight_out,
            push=push,
            norm=self.norm.weight if norm else None,
            eps=_EPS,
            mean=means and self.memory is not None,
            bins=_AREAS if means and self.local_proj is not None else 0,
        )

    def _means(self, u: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The field's mean (B, C) and those of its areas (B, 4, 4, C), where a memory wants them."""
        mean = None if self.memory is None else u.mean(dim=(1, 2))
        if self.local_proj is None:
            return mean, None
        return mean, F.adaptive_avg_pool2d(u.permute(0, 3, 1, 2), _AREAS).permute(0, 2, 3, 1)


class _Pump(NamedTuple):
    """The memory pump's two maps as one, and what its memory is multiplied with."""

    weight: Tensor
    bias: Tensor
    scale: Tensor


class _Equation(NamedTuple):
    """The terms of a step with the time step multiplied into them."""

    dt: Tensor
    coefficients: Tensor
    weight_in: Tensor
    bias_in: Tensor
    weight_out: Tensor
    bias: Tensor
    local: Tensor | None
    pump: _Pump | None

    def push(
        self, batch: int, mean: Tensor | None, pooled: Tensor | None, h: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """What both memories and the reaction's bias add (B, P, P, C), and the pump's memory after it took the mean."""
        if pooled is not None and self.local is not None:
            pushed = F.linear(pooled, self.local, self.bias)
        else:
            pushed = self.bias.expand(batch, 1, 1, -1)
        if self.pump is not None and mean is not None:
            gate, value = F.linear(mean, self.pump.weight, self.pump.bias).chunk(2, dim=1)
            added = gate.sigmoid() * value.tanh()
            h = added if h is None else h + added
            pushed = pushed + (self.pump.scale * h)[:, None, None]
        return pushed, h


def _probe(u: Tensor) -> Tensor:
    """Means of up to 8 x 8 areas (B, C, h, w)."""
    size = [min(_PROBE, side) for side in u.shape[1:3]]
    return F.adaptive_avg_pool2d(u.detach().permute(0, 3, 1, 2), size)


def _turbulence(probe: Tensor, before: Tensor, together: bool) -> Tensor:
    """How much the areas' means have changed, in parts of their size: of each sample (B,), or one for all."""
    moved, size = (t.abs().mean(dim=(1, 2, 3)) for t in (probe - before, before))
    if together:
        moved, size = moved.mean().expand_as(moved), size.mean().expand_as(size)
    return moved / (size + 1e-8)


def _arms(dilations: Any) -> tuple[int, ...]:
    given = tuple(dilations) if isinstance(dilations, Sequence) and not isinstance(dilations, str) else ()
    if not given or any(not isinstance(d, int) or isinstance(d, bool) or d < 1 for d in given):
        raise MechanismError(f"reaction_diffusion: dilations is {dilations!r}, expected whole numbers of at least 1")
    return given


def _check_options(steps: Any, tolerance: Any, legacy: Any, dt: Any, limits: Any) -> None:
    """Refuse what no layer could be built from."""
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise MechanismError(f"reaction_diffusion: steps is {steps!r}, expected a whole number of at least 1")
    if not isinstance(tolerance, (int, float)) or not 0 <= tolerance < float("inf"):
        raise MechanismError(f"reaction_diffusion: tolerance is {tolerance!r}, expected a number of at least 0")
    if legacy not in _LEGACY:
        raise MechanismError(f"reaction_diffusion: legacy is {legacy!r}, expected 'batch' or None")
    pair = tuple(limits) if isinstance(limits, Sequence) else ()
    if len(pair) != 2 or not 0 < pair[0] <= pair[1] < float("inf"):
        raise MechanismError(f"reaction_diffusion: dt_limits is {limits!r}, expected two positive numbers in order")
    if not pair[0] <= dt <= pair[1]:
        raise MechanismError(f"reaction_diffusion: dt is {dt!r}, expected a number from {pair[0]} to {pair[1]}")
