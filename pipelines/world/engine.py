"""From episodes to a fitted world model, and from it to what is stored."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.errors import InputError
from pipelines.world.baselines import MeanFrame
from pipelines.world.material import Parts, action_width, episodes_of, parts_of
from pipelines.world.models import WorldNet, build_world
from pipelines.world.options import architecture, known_model
from pipelines.world.shrinkage import fit_shrinkage, said, shrunk
from pipelines.world.training import DrawnWindows, as_frames, loss_of

if TYPE_CHECKING:
    from pipelines.world.pipeline import WorldModel

__all__ = [
    "Fitted",
    "NextFrame",
    "build",
    "encoded",
    "fit",
    "fit_parts",
    "fresh_net",
    "from_official",
    "rebuilt",
    "restore",
    "rolled",
    "shrink",
]

_BATCH = 64  # frames that are encoded at once


@dataclasses.dataclass
class Fitted:
    """A world model that can answer.

    Attributes:
        name: of the model.
        module: in eval mode, on the device.
        mean: (C, H, W) in [0, 1], the mean of the training frames.
        mean_count: frames that it is the mean of.
        fps: frame rate of the training episodes, Hz; None where it is not known or there are several.
        action_names: names of an action's numbers.
        training: how it was trained.
        seen: (N, 2) identity of each episode, and the first frame that nothing was learned from.
        notes: on the data that it was trained on.
        origin: where the weights come from.
        shrinkage: (h,) what of a predicted change from the mean frame is kept at each horizon; empty for all of it.
    """

    name: str
    module: WorldNet
    mean: NDArray[np.float32]
    mean_count: int
    fps: float | None
    action_names: tuple[str, ...]
    training: dict[str, Any]
    seen: Tensor
    notes: tuple[str, ...] = ()
    origin: str = ""
    shrinkage: Tensor = dataclasses.field(default_factory=lambda: torch.zeros(0))

    @property
    def wide(self) -> int:
        """Numbers of an action that the model was trained with; 0 where it was trained without."""
        return self.module.config.stimulus if self.training.get("actions", True) else 0

    def borders(self) -> dict[int, int]:
        """Identity of an episode -> the first frame that nothing was learned from."""
        return {int(one): int(border) for one, border in self.seen.tolist()}

    def to_config(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors, and how to build the model that they are of."""
        tensors = {f"model.{name}": value.contiguous() for name, value in self.module.state_dict().items()}
        tensors |= {"mean": torch.from_numpy(np.ascontiguousarray(self.mean)), "seen": self.seen}
        tensors |= {"shrinkage": self.shrinkage} if len(self.shrinkage) else {}
        return tensors, {
            "arguments": dataclasses.asdict(self.module.config),
            "mean_count": self.mean_count,
            "fps": self.fps,
            "action_names": list(self.action_names),
            "training": self.training,
            "fit_notes": list(self.notes),
        }

    def export_parts(self) -> tuple[nn.Module, dict[str, Tensor], str]:
        """One frame and action to the next frame, on the CPU, and two example frames."""
        c = self.module.config
        generator = torch.Generator().manual_seed(0)
        inputs = {"frame": torch.rand(2, c.channels, c.height, c.width, generator=generator)}
        if c.stimulus:
            inputs["action"] = torch.zeros(2, c.stimulus)
        factor = float(self.shrinkage[0]) if len(self.shrinkage) else 1.0
        net = copy.deepcopy(self.module).cpu().eval()
        return NextFrame(net, torch.from_numpy(self.mean), factor), inputs, "next_frame"


class NextFrame(nn.Module):
    """A frame (B, C, H, W) and perhaps an action (B, S) to the frame after it: what is exported.

    Args:
        net: the model.
        mean: (C, H, W) the frame that predictions are shrunk to; None: they are not.
        factor: of their changes from it.

    Example:
        >>> NextFrame(build_world("convlstm", dim=16, hidden=8, bottleneck=8))(torch.rand(1, 3, 16, 16)).shape
        torch.Size([1, 3, 16, 16])
    """

    mean: Tensor

    def __init__(self, net: WorldNet, mean: Tensor | None = None, factor: float = 1.0) -> None:
        super().__init__()
        self.net = net
        self.factor = factor if mean is not None else 1.0
        self.register_buffer("mean", torch.zeros(()) if mean is None else mean)

    def forward(self, frame: Tensor, action: Tensor | None = None) -> Tensor:
        """The next frame."""
        found = self.net(frame, action)["x_pred"]
        return found if self.factor == 1.0 else self.mean + self.factor * (found - self.mean)


def build(m: WorldModel, shape: tuple[int, int, int], stimulus: int) -> WorldNet:
    """The network of a pipeline's options, for frames (H, W, C) and actions of so many numbers."""
    height, width, channels = shape
    attention = m.attention if m.attention != known_model(m.model).attention else None
    return build_world(
        m.model, channels=channels, height=height, width=width, stimulus=stimulus, attention=attention,
        base=m.objective.base, **architecture(m.model, m.arch),
    )  # fmt: skip


def fit(m: WorldModel, data: Any) -> Fitted:
    """Train a world model.

    Raises:
        InputError: no episode, or none as long as a window.
        ConfigError: an option that does not exist or does not fit.
    """
    episodes, notes = episodes_of(m, data)
    parts = parts_of(m, episodes)
    return fit_parts(m, parts, notes)


def fit_parts(m: WorldModel, parts: Parts, notes: Sequence[str] = ()) -> Fitted:
    """Train on the parts of episodes."""
    from pipelines.training.fitting import fit_module

    if not parts.train:
        raise InputError("no episode is left to learn from", where="data", found="0 episodes")
    wide = action_width([*parts.train, *parts.valid])
    shape = parts.train[0].shape[1:]
    torch.manual_seed(m.seed)
    net = build(m, shape, wide)
    mean = MeanFrame.fit(episode.frames for episode in parts.train)
    if m.objective.base == "mean":
        net.mean_frame.copy_(torch.from_numpy(mean.frame))
    count = m.objective.windows
    train_set = DrawnWindows(m, parts.train, count, changing=True, actions=bool(wide))
    valid_set, short = None, list[str]()
    least = m.context + min(m.objective.free)
    if parts.valid and max(map(len, parts.valid)) < least:
        short = [f"no episode that would choose the epoch has {least} frames: the last weights are kept"]
    elif parts.valid:
        valid_set = DrawnWindows(m, parts.valid, max(8, count // 8), changing=False, actions=bool(wide))
    frames = sum(len(episode) for episode in parts.train)
    m.run.say(
        f"{len(parts.train)} episodes, {frames:,} frames to learn from, {len(parts.valid)} episodes to choose the epoch"
    )
    rate = known_model(m.model).learning_rate
    result = fit_module(m, net, loss_of(m), train_set, valid_set, default_lr=rate)
    net.eval()
    rates = {episode.fps for episode in parts.train}
    told = (*notes, *parts.notes, *train_set.notes, *short)
    fitted = Fitted(
        m.model, net, mean.frame.astype(np.float32), mean.count, rates.pop() if len(rates) == 1 else None,
        parts.train[0].action_names, dataclasses.asdict(result) | {"episodes": len(parts.train), "frames": frames},
        torch.tensor(parts.seen, dtype=torch.long).reshape(-1, 2), tuple(dict.fromkeys(told)),
    )  # fmt: skip
    asked = m.objective.shrink
    if asked or (asked is None and m.objective.base == "mean"):
        shrink(m, fitted, parts)
    return fitted


def shrink(m: WorldModel, fitted: Fitted, parts: Parts) -> None:
    """Find what of predicted changes is worth keeping, on the episodes that choose the epoch, and say it."""
    fitted.shrinkage = fit_shrinkage(fitted, parts.valid, m.context, m.horizon)
    if len(fitted.shrinkage):
        fitted.notes = (*fitted.notes, said(fitted.shrinkage))
        m.run.say(said(fitted.shrinkage))


@torch.inference_mode()
def rolled(fitted: Fitted, context: NDArray[np.uint8], actions: NDArray[np.float32] | None, horizon: int) -> Any:
    """Frames after contexts.

    Args:
        fitted: the model.
        context: (B, K, H, W, C) uint8.
        actions: (B, K - 1 + horizon, A), or None.
        horizon: frames to predict.

    Returns:
        (B, horizon, C, H, W) float32 in [0, 1], NumPy.
    """
    device = next(fitted.module.parameters()).device
    stimuli = None
    if actions is not None and fitted.wide:
        stimuli = torch.from_numpy(np.ascontiguousarray(actions, np.float32)).to(device)
    frames = fitted.module.rollout(as_frames(context).to(device), stimuli, horizon).float()
    return shrunk(frames, fitted.mean, fitted.shrinkage).cpu().numpy()


def restore(m: WorldModel, tensors: dict[str, Tensor], config: dict[str, Any]) -> Fitted:
    """Rebuild the fitted state from stored tensors and configuration."""
    from pipelines.official import check_shapes
    from pipelines.training.distributed import resolve_device

    own = {name.removeprefix("model."): value.float() for name, value in tensors.items() if name.startswith("model.")}
    net = build_world(m.model, **config["arguments"])
    net.load_state_dict(check_shapes(net, own, name=m.model))
    return Fitted(
        m.model, net.eval().to(resolve_device(m.device)), tensors["mean"].float().numpy(), config["mean_count"],
        config["fps"], tuple(config["action_names"]), config["training"], tensors["seen"], tuple(config["fit_notes"]),
        "a saved model", tensors.get("shrinkage", torch.zeros(0)),
    )  # fmt: skip


#: Names of the released models' checkpoints.
_RELEASED = {"fluidworld": "fluidworld", "transformer": "fluidworld_transformer", "convlstm": "fluidworld_convlstm"}


def from_official(m: WorldModel, path: Any) -> Fitted:
    """A fitted state around a released checkpoint, which knows no training frames and was trained without actions.

    Raises:
        WeightsError: a file that is not such a checkpoint.
    """
    from pipelines.official import load_official
    from pipelines.training.distributed import resolve_device

    net: Any = load_official(_RELEASED[m.model], path)
    c = net.config
    return Fitted(
        m.model, net.to(resolve_device(m.device)), np.full((c.channels, c.height, c.width), 0.5, np.float32), 0, None,
        (), {"actions": False}, torch.zeros(0, 2, dtype=torch.long), origin=f"official checkpoint {path}",
    )  # fmt: skip


def fresh_net(fitted: Fitted, seed: int) -> WorldNet:
    """The same network before any training, as a yardstick for what its features tell."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = build_world(fitted.name, **dataclasses.asdict(fitted.module.config))
    return net.eval()


@torch.inference_mode()
def encoded(fitted: Fitted, frames: NDArray[np.uint8], net: WorldNet | None = None) -> NDArray[np.float32]:
    """Features (T, d, h, w) of frames (T, H, W, C), each by itself; of another network where one is given."""
    used = fitted.module if net is None else net
    device = next(used.parameters()).device
    parts = [frames[low : low + _BATCH] for low in range(0, len(frames), _BATCH)]
    return np.concatenate([used.encode(as_frames(part).to(device)).float().cpu().numpy() for part in parts])


@torch.inference_mode()
def rebuilt(fitted: Fitted, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Frames (T, C, H, W) in [0, 1] rebuilt from their own features alone, of frames (T, H, W, C)."""
    net = fitted.module
    features = net.encode(as_frames(frames).to(next(net.parameters()).device))
    return net.decode(net.observe(net.start(features), features)[1]).float().cpu().numpy()
