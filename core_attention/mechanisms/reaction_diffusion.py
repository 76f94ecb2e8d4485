"""A reaction-diffusion equation integrated over the tokens, in the place of attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_attention.contract import MechanismError, MixerOutput, TokenMixer
from core_attention.kernels.stencil.reaction import Step, reaction_step
from core_attention.mechanisms._reaction_terms import (
    ContentGate,
    Diffusion,
    MemoryPump,
    Reaction,
    euler_step,
    step_size,
)
from core_attention.registry import mechanism

__all__ = ["ContentGate", "Diffusion", "MemoryPump", "Reaction", "ReactionDiffusion", "euler_step", "step_size"]

_LEGACY = (None, "batch")
_LEAST_STEPS, _PATIENCE, _PROBE, _AREAS = 3, 2, 8, 4
_EPS = 1e-8


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
        self.norm = nn.RMSNorm(dim, eps=_EPS)

    def mix(self, x: Tensor) -> MixerOutput:
        """Mix x (B, L, C) or (B, H, W, C).

        ``aux`` holds "steps" (B,), how many were taken, and "energy" (B,), the mean of |du/dt| over them.
        """
        field = x if x.dim() == 4 else x[:, None]
        equation = self._equation()
        if self.training or not self.tolerance:
            u, energy = self._all_steps(field, equation)
            used = torch.full((x.shape[0],), self.steps, device=x.device)
        elif torch.compiler.is_compiling() or torch.compiler.is_exporting():
            u, energy, used = self._with_masks(field, equation)
        else:
            u, energy, used = self._until_settled(field, equation)
        return MixerOutput(u.reshape(x.shape), None, {"steps": used, "energy": energy / used})

    def _equation(self) -> _Equation:
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

    def _until_settled(self, u: Tensor, equation: _Equation) -> tuple[Tensor, Tensor, Tensor]:
        """The same, but samples that have settled leave the batch; and the number of steps of each (B,)."""
        result, energy = u.clone(), u.new_zeros(u.shape[0])
        used = torch.zeros(u.shape[0], dtype=torch.long, device=u.device)
        going = torch.arange(u.shape[0], device=u.device)
        probe, calm, h = _probe(u), torch.zeros_like(used), None
        for step in range(self.steps):
            u, taken, h = self._probed_step(u, equation, h, step)
            calm, probe = self._calm(calm, taken.u, probe)
            energy = energy.index_add(0, going, taken.energy)
            used[going] += 1
            stopped = self._settled(calm, step)
            result = result.index_copy(0, going[stopped], u[stopped])
            if bool(stopped.all()):
                break
            if bool(stopped.any()):
                u, probe, calm, going = (t[~stopped] for t in (u, probe, calm, going))
                h = None if h is None else h[~stopped]
        return result, energy / equation.dt, used

    def _with_masks(self, u: Tensor, equation: _Equation) -> tuple[Tensor, Tensor, Tensor]:
        """The same for exporters, which follow no decision: all steps are computed, and those after the last unused."""
        energy, used = u.new_zeros(u.shape[0]), torch.zeros(u.shape[0], dtype=torch.long, device=u.device)
        going, probe, calm, h = used == 0, _probe(u), used, None
        for step in range(self.steps):
            following, taken, h = self._probed_step(u, equation, h, step)
            calm, probe = self._calm(calm, taken.u, probe)
            u = torch.where(going[:, None, None, None], following, u)
            energy, used = energy + going * taken.energy, used + going
            going = going & ~self._settled(calm, step)
        return u, energy / equation.dt, used

    def _probed_step(
        self, u: Tensor, equation: _Equation, h: Tensor | None, step: int
    ) -> tuple[Tensor, Step, Tensor | None]:
        """The field after a step, the step before its norm, and the pump's memory."""
        push, h = equation.push(u.shape[0], *self._means(u), h)
        taken = self._step(u, equation, push, norm=False, means=False)
        return (self.norm(taken.u) if step % 2 else taken.u), taken, h

    def _calm(self, calm: Tensor, u: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """For how many steps in a row each sample has been calm, now that its field is u; and the probe of u."""
        probe = _probe(u)
        moved, size = (t.abs().mean(dim=(1, 2, 3)) for t in (probe - before, before))
        if self.legacy == "batch":
            moved, size = moved.mean().expand_as(moved), size.mean().expand_as(size)
        return torch.where(moved / (size + 1e-8) < self.tolerance, calm + 1, 0), probe

    def _settled(self, calm: Tensor, step: int) -> Tensor:
        """Which samples need no step more (B,)."""
        if step == self.steps - 1:
            return torch.ones_like(calm, dtype=torch.bool)
        return (calm >= _PATIENCE) & (step + 1 >= _LEAST_STEPS)

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


def _probe(u: Tensor) -> Tensor:
    """Means of up to 8 x 8 areas (B, C, h, w)."""
    size = [min(_PROBE, side) for side in u.shape[1:3]]
    return F.adaptive_avg_pool2d(u.detach().permute(0, 3, 1, 2), size)


def _check_options(steps: Any, tolerance: Any, legacy: Any, dt: Any, limits: Any) -> None:
    """Refuse what no layer could be built from."""
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise MechanismError(f"reaction_diffusion: steps is {steps!r}, expected a whole number of at least 1")
    if not isinstance(tolerance, (int, float)) or isinstance(tolerance, bool) or not 0 <= tolerance < float("inf"):
        raise MechanismError(f"reaction_diffusion: tolerance is {tolerance!r}, expected a number of at least 0")
    if legacy not in _LEGACY:
        raise MechanismError(f"reaction_diffusion: legacy is {legacy!r}, expected 'batch' or None")
    pair = tuple(limits) if isinstance(limits, Sequence) else ()
    numbers = all(isinstance(limit, (int, float)) for limit in pair)
    if len(pair) != 2 or not numbers or not 0 < pair[0] <= pair[1] < float("inf"):
        raise MechanismError(f"reaction_diffusion: dt_limits is {limits!r}, expected two positive numbers in order")
    if not isinstance(dt, (int, float)) or not pair[0] <= dt <= pair[1]:
        raise MechanismError(f"reaction_diffusion: dt is {dt!r}, expected a number from {pair[0]} to {pair[1]}")
