"""What world models learn from: frames rebuilt, the next frame predicted, and rollouts without looking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.errors import ConfigError, InputError
from pipelines.world.models.shell import WorldNet, WorldState

__all__ = ["LossWeights", "frame_loss", "gradient_loss", "variance_loss", "window_loss"]


@dataclass(frozen=True)
class LossWeights:
    """Weights of the parts of a loss; the defaults are the paper's, the rollouts ours.

    Raises:
        ConfigError: a weight below 0, or an unknown kind.

    Example:
        >>> LossWeights(alive=0.5).energy
        1.2
    """

    rebuild: float = 1.0
    """Rebuilding the frames seen."""
    predict: float = 1.0
    """One frame ahead."""
    rollout: float = 1.0
    """Two and more frames ahead."""
    gradient: float = 1.0
    """Differences between neighbouring pixels."""
    variance: float = 0.5
    """Each feature's deviation is to be 1 or above."""
    alive: float = 0.0
    """The encoder's mean rate of change is to be `energy`; .5 in the released code, not in the paper."""
    energy: float = 1.2
    """See `alive`."""
    kind: Literal["auto", "mse", "bce"] = "auto"
    """Squared error, or binary cross-entropy, which auto takes for one channel where predictions are no changes."""

    def __post_init__(self) -> None:
        for name in ("rebuild", "predict", "rollout", "gradient", "variance", "alive"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ConfigError("not a weight", where=name, found=value, expected="a number from 0")
        if self.kind not in ("auto", "mse", "bce"):
            raise ConfigError("there is no such loss", where="kind", found=self.kind, expected="auto, mse, bce")


def gradient_loss(frames: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of the differences between neighbours in a row, plus that in a column.

    Args:
        frames, target: (..., H, W), of one size.

    Source: FluidWorld (arXiv 2603.21315), the loss; as in the released baselines, without a zero at the border.

    Example:
        >>> gradient_loss(torch.zeros(1, 1, 2, 3), torch.tensor([[0.0, 1.0, 1.0], [0.0, 1.0, 1.0]]).view(1, 1, 2, 3))
        tensor(0.5000)
    """
    wrong = frames - target
    across, down = wrong.diff(dim=-1), wrong.diff(dim=-2)
    # A single row or column has no neighbours.
    return sum((part.abs().mean() for part in (across, down) if part.numel()), wrong.new_zeros(()))


def variance_loss(features: Tensor) -> Tensor:
    """Mean over channels of what their deviation over a batch and its places lacks to 1.

    Args:
        features: (B, d, h, w), or (B, K, d, h, w) of K frames, for each of which it is taken.

    Example:
        >>> variance_loss(torch.zeros(2, 4, 3, 3))
        tensor(1.)
    """
    if features.dim() == 4:
        features = features[:, None]
    values = features.permute(1, 2, 0, 3, 4).flatten(2)
    if values.shape[-1] < 2:
        return features.new_zeros(())  # one number has no deviation
    return F.relu(1.0 - values.std(dim=-1)).mean()


def frame_loss(found: Mapping[str, Any], x_t: Tensor, x_next: Tensor, weights: LossWeights = LossWeights()) -> Tensor:
    """The loss of one pair of frames, from what a model's call returned.

    Args:
        found: with ``x_recon``, ``x_pred``, ``features``, perhaps ``energy``, and the logits that cross-entropy needs.
        x_t, x_next: (B, C, H, W), the frame seen and the next one.
        weights: of the parts.

    Returns:
        One number.

    Raises:
        ConfigError: cross-entropy where predictions are changes.

    Example:
        >>> frame = torch.full((1, 3, 4, 4), 0.5)
        >>> found = {"x_recon": frame, "x_pred": frame, "features": torch.randn(1, 8, 4, 4) * 9}
        >>> frame_loss(found, frame, frame).item()
        0.0
    """
    pairs = (("recon", x_t, weights.rebuild), ("pred", x_next, weights.predict))
    total = weights.variance * variance_loss(found["features"])
    binary = _binary("recon_logits" not in found, x_t.shape[1], weights)
    for name, target, weight in pairs:
        if binary:
            wrong = F.binary_cross_entropy_with_logits(found[f"{name}_logits"], target)
        else:
            wrong = F.mse_loss(found[f"x_{name}"], target)
        total = total + weight * wrong + weights.gradient / len(pairs) * gradient_loss(found[f"x_{name}"], target)
    if weights.alive and "energy" in found:
        total = total + weights.alive * (found["energy"].mean() - weights.energy) ** 2
    return total


def window_loss(
    net: WorldNet,
    frames: Tensor,
    stimuli: Tensor | None = None,
    *,
    teacher: int,
    free: int,
    at: Sequence[int] | None = None,
    detach: bool = False,
    weights: LossWeights = LossWeights(),
    base: Tensor | None = None,
) -> tuple[Tensor, int, dict[str, Tensor]]:
    """The loss of windows: the first frames are seen, each rebuilt and predicting the next, then a rollout goes on.

    The state goes from frame to frame, and gradients with it unless ``detach``. Horizon j of the rollout is frame
    ``teacher - 1 + j``; horizon 1 is the last prediction of one frame ahead. Frames that are seen are encoded together
    and whatever is decoded is decoded together.

    Args:
        net: the model, in training mode for training.
        frames: (B, T, C, H, W) in [0, 1], T at least ``teacher + free``; later frames are not used.
        stimuli: (B, T - 1 or more, S), one between each two frames; None for zeros.
        teacher: frames that are seen, at least 1.
        free: horizons, 0 for none: the frame after the last one seen is then not predicted.
        at: horizons out of 1 to ``free`` that are decoded and measured, None for all.
        detach: cut gradients between the frames seen, as released.
        weights: of the parts.
        base: (B or 1, C, H, W) what all frames are changes to, for models whose ``config.base`` is "last" and is to be
            used otherwise; None: the last frame seen ("last"), or ``mean_frame`` ("mean").

    Returns:
        The loss times B, B, and the unweighted parts by name, without gradients: "rebuild", "predict", "rollout",
        "gradient", "variance", "alive"; a part that there is not is absent.

    Raises:
        InputError: windows that are too short, or horizons out of range.
        ConfigError: cross-entropy where predictions are changes.

    Complexity: one encoding for each frame seen, one decoding for each frame rebuilt or predicted.

    Source: FluidWorld (arXiv 2603.21315), the loss and its training over windows; rollouts are ours.

    Example:
        >>> from pipelines.world.models import build_world
        >>> net = build_world("convlstm", dim=16, hidden=8, bottleneck=8)
        >>> total, count, parts = window_loss(net, torch.rand(2, 5, 3, 16, 16), teacher=2, free=3, at=(1, 3))
        >>> count, sorted(parts)
        (2, ['gradient', 'predict', 'rebuild', 'rollout', 'variance'])
    """
    horizons = _horizons(frames, stimuli, teacher, free, at)
    binary = _binary(net.config.base != "none", net.config.channels, weights)
    batch = frames.shape[0]
    features, told = net.encode_with(frames[:, :teacher].flatten(0, 1))
    seen, ahead = _unrolled(net, features.unflatten(0, (batch, teacher)), stimuli, horizons, detach=detach)
    found: dict[str, Tensor] = {}
    edges: list[Tensor] = []
    if weights.rebuild:
        own = None if base is None else base[:, None].expand(batch, teacher, *base.shape[1:])
        wrong, edge = _decoded(net, seen, frames[:, :teacher], own, binary)
        found["rebuild"] = wrong.mean()
        edges.append(edge)
    if ahead:
        bases = _bases(net, frames, base, ahead, teacher)
        wrong, edge = _decoded(net, [*ahead.values()], frames[:, [*ahead]], bases, binary)
        near = sum(place <= teacher for place in ahead)
        found |= {
            name: part.mean() for name, part in (("predict", wrong[:near]), ("rollout", wrong[near:])) if len(part)
        }
        edges.append(edge)
    if edges:
        found["gradient"] = torch.stack(edges).mean()
    found["variance"] = variance_loss(torch.stack(seen, dim=1))
    if "energy" in told:
        found["alive"] = (told["energy"].mean() - weights.energy) ** 2
    total = torch.stack([getattr(weights, name) * value for name, value in found.items()]).sum()
    return total * batch, batch, {name: value.detach() for name, value in found.items()}


def _horizons(
    frames: Tensor, stimuli: Tensor | None, teacher: int, free: int, at: Sequence[int] | None
) -> tuple[int, ...]:
    """The horizons that are measured, in order, after everything was checked."""
    if teacher < 1 or free < 0:
        found = f"teacher={teacher}, free={free}"
        raise InputError("no such window", where="teacher, free", found=found, expected="teacher from 1, free from 0")
    if frames.dim() != 5 or frames.shape[1] < teacher + free:
        expected = f"(batch, {teacher + free} or more, channels, height, width)"
        raise InputError("not windows", where="frames", found=tuple(frames.shape), expected=expected)
    steps = teacher + free - 1
    if stimuli is not None and (stimuli.dim() != 3 or stimuli.shape[1] < steps):
        expected = f"(batch, {steps} or more, numbers of an action)"
        raise InputError("not the actions of these windows", where="stimuli", found=tuple(stimuli.shape),
                         expected=expected)  # fmt: skip
    if at is None:
        return tuple(range(1, free + 1))
    if any(not 1 <= horizon <= free for horizon in at):
        raise InputError("horizons out of range", where="at", found=tuple(at), expected=f"1 to {free}")
    return tuple(sorted(set(at)))


def _binary(changes: bool, channels: int, weights: LossWeights) -> bool:
    """Whether frames are compared by cross-entropy."""
    if weights.kind == "bce" and changes:
        cure = "base='none', or kind='mse'"
        raise ConfigError("a change has no cross-entropy", where="kind", found="bce", expected="mse", cure=cure)
    return weights.kind == "bce" or (weights.kind == "auto" and channels == 1 and not changes)


def _unrolled(
    net: WorldNet, features: Tensor, stimuli: Tensor | None, horizons: Sequence[int], *, detach: bool
) -> tuple[list[Tensor], dict[int, Tensor]]:
    """Features (B, d, h, w) of the frames seen, and those of predictions by the number of the frame predicted."""
    teacher = features.shape[1]
    state: WorldState = net.start(features[:, 0])
    seen: list[Tensor] = []
    ahead: dict[int, Tensor] = {}
    for step in range(teacher - 1 + max(horizons, default=0)):
        if step < teacher:
            state, found = net.observe(state, features[:, step])
            seen.append(found)
        state = net.evolve(state, None if stimuli is None else stimuli[:, step])
        if step < teacher - 1 or step - teacher + 2 in horizons:
            ahead[step + 1] = net.read(state)
        if detach and step < teacher - 1:
            state = state.detach()
    if len(seen) < teacher:
        seen.append(net.observe(state, features[:, -1])[1])
    return seen, ahead


def _bases(
    net: WorldNet, frames: Tensor, base: Tensor | None, ahead: Mapping[int, Tensor], teacher: int
) -> Tensor | None:
    """What each prediction is a change to, (B, n, C, H, W); None where the model knows."""
    if base is not None:
        return base[:, None].expand(frames.shape[0], len(ahead), *base.shape[1:])
    last = frames[:, [min(place, teacher) - 1 for place in ahead]]
    return last if net.config.base == "last" else None


def _decoded(
    net: WorldNet, features: Sequence[Tensor], target: Tensor, base: Tensor | None, binary: bool
) -> tuple[Tensor, Tensor]:
    """Errors (n,) of n frames, and the gradient loss of all, from n features (B, d, h, w) and targets (B, n, ...)."""
    rows = torch.stack([*features], dim=1).flatten(0, 1)
    flat = None if base is None else base.flatten(0, 1)
    raw = net.decode(rows, flat, logits=binary).unflatten(0, target.shape[:2])
    if binary:
        wrong = F.binary_cross_entropy_with_logits(raw, target, reduction="none")
        return wrong.mean(dim=(0, 2, 3, 4)), gradient_loss(raw.sigmoid(), target)
    return (raw - target).square().mean(dim=(0, 2, 3, 4)), gradient_loss(raw, target)
