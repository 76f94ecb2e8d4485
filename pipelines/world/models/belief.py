"""FluidWorld's belief field: what is known of the scene, written frame by frame and evolved by its own equation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import RMSNorm

from core_attention.kernels.stencil.reaction import reaction_step
from core_attention.mechanisms.reaction_diffusion import Diffusion, MemoryPump, Reaction, step_size
from pipelines.world.models.decoder import to_grid, to_places
from pipelines.world.models.released import DeltaNet, TitansMemory
from pipelines.world.models.shell import WorldState, stimulus_net

__all__ = ["BeliefField", "Fatigue", "inhibited"]

#: Largest sum of an explicit step's coefficients for which no value leaves the range of its neighbours.
_STABLE = 0.25
_NORM_EPS = 1e-8
_EPS = 1e-6


class BeliefField(nn.Module):
    """A field s (B, h, w, d) that is written into, decays, and evolves by explicit steps of

        s <- s + dt ((1 + M / 2) * sum_k softplus(D_k) lap_k(s) + R(s) + E(a) + softplus(a_p) m)

    with arms of 1 and 4 places, a small network R of each place, the action's vector E(a), a memory m of the whole
    field and the Hebbian map M: M <- clamp(.99 M + .01 relu(s * mean3x3(s)), 0, 2), which takes no gradient. After
    every second step the channels of each place are normalised. Writing is s <- decay s + sigmoid(W_g z) * tanh(W_v z).

    Args:
        dim: channels d.
        stimulus: numbers of an action.
        grid: places (h, w) that a stored map is for.
        steps: explicit steps from a frame to the next.
        pump: the memory is the encoder's pump, of the field's mean (the paper).
        titans: the memory is Titans' (released).
        deltanet: a DeltaNet corrects the field (released).
        hebbian: whether there is a map M.
        stored: M starts from a buffer, as in released state dicts; else at 0.
        stable: coefficients and 1 + M / 2 are kept to where a step is stable.
        legacy: M is one for the whole batch and goes on from call to call in the buffer; Titans start at random.

    O(h w d^2) time and O(h w d) memory. Source: FluidWorld (arXiv 2603.21315), section 3, and the released code.

    Example:
        >>> field = BeliefField(8, 1)
        >>> state = field.start(torch.zeros(2, 8, 4, 4))
        >>> field.evolve(field.write(state, torch.ones(2, 8, 4, 4)), torch.zeros(2, 1)).belief.shape
        torch.Size([2, 8, 4, 4])
    """

    def __init__(
        self,
        dim: int,
        stimulus: int,
        *,
        grid: tuple[int, int] = (16, 16),
        steps: int = 3,
        pump: bool = True,
        titans: bool = False,
        deltanet: bool = False,
        hebbian: bool = True,
        stored: bool = False,
        stable: bool = True,
        legacy: bool = False,
    ) -> None:
        super().__init__()
        self.steps, self.stable, self.legacy = steps, stable, legacy
        self.log_decay = nn.Parameter(torch.tensor(0.95).log())
        self.log_dt = nn.Parameter(torch.tensor(0.1).log())
        self.gate_proj = nn.Sequential(nn.Linear(dim, dim), nn.Sigmoid())
        self.value_proj = nn.Sequential(nn.Linear(dim, dim), nn.Tanh())
        self.diffusion = Diffusion(dim, (1, 4), stable=stable)
        self.reaction = Reaction(dim)
        self.norm = RMSNorm(dim, eps=_NORM_EPS)
        self.memory = MemoryPump(dim) if pump else None
        self.titans = TitansMemory(dim) if titans else None
        self.alpha_pump = nn.Parameter(torch.tensor(0.1)) if pump or titans else None
        self.deltanet = DeltaNet(dim) if deltanet else None
        self.hebbian = HebbianMap(dim, grid if stored else None) if hebbian else None
        self.stimulus_proj = stimulus_net(stimulus, dim)
        self.read_proj = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim))

    def start(self, features: Tensor) -> WorldState:
        """The state before any frame, for a batch and grid like ``features`` (B, d, h, w)."""
        batch, dim = features.shape[:2]
        zeros = features.new_zeros(batch, dim)
        keys, slots = (None, None) if self.titans is None else self.titans.start(features, fresh=self.legacy)
        return WorldState(
            torch.zeros_like(features),
            pump=None if self.alpha_pump is None else zeros,
            hebbian=None if self.hebbian is None else self.hebbian.start(features),
            keys=keys,
            slots=slots,
            delta=None if self.deltanet is None else self.deltanet.start(features),
        )

    def write(self, state: WorldState, features: Tensor) -> WorldState:
        """One frame's features (B, d, h, w) go in."""
        places = to_places(features)
        decay = self.log_decay.exp().clamp(0.5, 0.99)
        written = decay * to_places(state.belief) + self.gate_proj(places) * self.value_proj(places)
        return state._replace(belief=to_grid(written))

    def evolve(self, state: WorldState, stimulus: Tensor) -> WorldState:
        """One frame on, under an action (B, S)."""
        u = to_places(state.belief)
        dt = step_size(self.log_dt, 0.01, 0.15)
        coefficients = self.diffusion.coefficients(dt)
        enter, _, leave = self.reaction.net
        everywhere = self.stimulus_proj(stimulus) + leave.bias
        mean = None if self.alpha_pump is None else u.mean(dim=(1, 2))
        # What is remembered of earlier frames takes no gradient, as published.
        state = state._replace(pump=None if state.pump is None else state.pump.detach())
        for step in range(self.steps):
            factor, state = self._factor(u, coefficients, state)
            whole, state = self._memory(mean, state)
            push = dt * (everywhere if whole is None else everywhere + whole)
            source = None
            if self.deltanet is not None and state.delta is not None:
                correction, delta = self.deltanet(u, state.delta)
                source, state = dt * correction, state._replace(delta=delta)
            u, _, mean, _ = reaction_step(
                u,
                coefficients,
                self.diffusion.dilations,
                weight_in=enter.weight,
                bias_in=enter.bias,
                weight_out=dt * leave.weight,
                push=push[:, None, None],
                source=source,
                factor=factor,
                norm=self.norm.weight if step % 2 else None,
                eps=_NORM_EPS,
                mean=mean is not None,
            )
        return state._replace(belief=to_grid(u))

    def summary(self, state: WorldState) -> Tensor:
        """One vector (B, d) of the whole field."""
        return self.read_proj(state.belief.mean(dim=(2, 3)))

    def _factor(self, u: Tensor, coefficients: Tensor, state: WorldState) -> tuple[Tensor | None, WorldState]:
        """1 + M / 2 (B, h, w, d) after M was updated, no larger than a stable step allows."""
        if self.hebbian is None or state.hebbian is None:
            return None, state
        map_ = self.hebbian.updated(state.hebbian, u.detach(), shared=self.legacy)
        gate = 1.0 + 0.5 * to_places(map_)
        if self.stable:
            gate = torch.minimum(gate, (_STABLE / coefficients.detach().sum(dim=0)).to(gate.dtype))
        return gate, state._replace(hebbian=map_)

    def _memory(self, mean: Tensor | None, state: WorldState) -> tuple[Tensor | None, WorldState]:
        """softplus(a_p) m (B, d) after m was updated with the field's mean (B, d)."""
        if self.alpha_pump is None or state.pump is None or mean is None:
            return None, state
        if self.memory is not None:
            state = state._replace(pump=self.memory(state.pump, mean))
        if self.titans is not None and state.keys is not None and state.slots is not None and state.pump is not None:
            pump, keys, slots = self.titans(state.pump, mean, state.keys, state.slots)
            state = state._replace(pump=pump, keys=keys, slots=slots)
        return F.softplus(self.alpha_pump) * state.pump, state  # type: ignore[operator]


class HebbianMap(nn.Module):
    """How much each channel of a place has lately been active together with the places around it, between 0 and 2.

    Args:
        dim: channels d.
        grid: places of a stored start, None to start at 0.
    """

    hebbian_map: Tensor | None

    def __init__(self, dim: int, grid: tuple[int, int] | None) -> None:
        super().__init__()
        self.register_buffer("hebbian_map", None if grid is None else torch.zeros(1, dim, *grid))

    def start(self, features: Tensor) -> Tensor:
        """The first map of each sample, like ``features`` (B, d, h, w); a stored one is interpolated to their grid."""
        if self.hebbian_map is None:
            return torch.zeros_like(features)
        stored, size = self.hebbian_map.to(features.dtype), features.shape[2:]
        if stored.shape[2:] != size:
            stored = F.interpolate(stored, size, mode="bilinear", align_corners=False)
        return stored.expand(features.shape).clone()

    def updated(self, map_: Tensor, u: Tensor, *, shared: bool) -> Tensor:
        """The map (B, d, h, w) after a step from the field u (B, h, w, d); ``shared``: one for the batch, stored."""
        with torch.no_grad():
            field = to_grid(u)
            together = (field * F.avg_pool2d(field, 3, 1, 1)).clamp_(min=0.0)
            if shared:
                # The released buffer is what counts, whatever state came in.
                map_ = self.start(u.permute(0, 3, 1, 2))
                together = together.mean(dim=0, keepdim=True)
            map_ = torch.add(map_ * 0.99, together, alpha=0.01).clamp_(0.0, 2.0)
            if shared:
                self.hebbian_map = map_[:1].clone()
        return map_


class Fatigue(nn.Module):
    """Channels lose health with use and recover: z <- health z, then health <- clamp(health - .1 mean|z| + .02, .1, 1).

    With frames of usual contrast the health falls to its floor within ten frames and stays there.

    Args:
        dim: channels d.
        stored: health starts from a buffer, as in released state dicts; else at 1.
        legacy: one health for the whole batch, which goes on from call to call in the buffer.

    Source: FluidWorld (arXiv 2603.21315), released code.

    Example:
        >>> Fatigue(4)(torch.ones(2, 4), torch.ones(2, 4, 3, 3))[1][0]
        tensor([0.9200, 0.9200, 0.9200, 0.9200])
    """

    health: Tensor | None

    def __init__(self, dim: int, *, stored: bool = False, legacy: bool = False) -> None:
        super().__init__()
        self.legacy = legacy
        self.register_buffer("health", torch.ones(1, dim, 1, 1) if stored else None)

    def start(self, features: Tensor) -> Tensor:
        """The first health (B, d) of each sample."""
        batch, dim = features.shape[:2]
        if self.health is None:
            return features.new_ones(batch, dim)
        return self.health.to(features.dtype).view(1, dim).expand(batch, dim).clone()

    def forward(self, health: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, d, h, w) as their health (B, d) lets them through, and the health after."""
        if self.legacy:
            health = self.start(features)
        with torch.no_grad():
            use = features.abs().mean(dim=(2, 3))
            use = use.mean(dim=0, keepdim=True).expand_as(use) if self.legacy else use
            after = (health - 0.1 * use + 0.02).clamp_(0.1, 1.0)
            if self.legacy:
                self.health = after[:1, :, None, None].clone()
        return features * health[:, :, None, None], after


def inhibited(z: Tensor) -> Tensor:
    """Weak channels of a place give way to its strongest: z (1 - .3 (1 - |z| / max_c |z|)), never below .2 z.

    Args:
        z: (B, d, h, w).

    Example:
        >>> inhibited(torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)).flatten()
        tensor([1.0000, 0.4250, 0.0000])
    """
    energy = z.abs()
    share = energy / (energy.amax(dim=1, keepdim=True) + _EPS)
    # .7 + .3 share is at least .7: the published floor of .2 is never reached.
    return z * (0.7 + 0.3 * share)
