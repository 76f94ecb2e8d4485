"""From motion to a fitted lifter, and from it to what is stored."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.data.datasets.pose_skeletons import skeleton
from pipelines.data.datasets.pose_types import Clip
from pipelines.data.datasets.pose_windows import centre_windows
from pipelines.errors import InputError
from pipelines.pose.baselines import MeanPose
from pipelines.pose.calibration import calibrated
from pipelines.pose.material import Parts, identity, motion_of, parts_of
from pipelines.pose.models.convformer import ConvFormer, ConvFormerConfig
from pipelines.pose.models.linear import LinearLifter, fit_linear
from pipelines.pose.options import SKELETON, architecture, known_model
from pipelines.pose.training import DrawnWindows, draw_batch, pose_loss
from pipelines.training.randomness import derive_seed

if TYPE_CHECKING:
    from pipelines.pose.pipeline import PoseLifter

__all__ = ["Fitted", "build", "fit", "lift", "lift_windows", "restore"]

_BATCH = 256  # windows that are lifted at once
_LINEAR = 8  # batches of 1,024 windows that the linear lifter is fitted on


@dataclasses.dataclass
class Fitted:
    """A lifter that can answer.

    Attributes:
        name: of the model.
        module: in eval mode, on the device.
        fps: frame rate that it was trained at, Hz.
        linear: the linear lifter that was fitted on the same motion and cameras.
        mean: (J, 3) m, the mean pose of the same.
        spread: (J + 1,) how sure it is: mm of each joint, and mm a mm between answers to a picture and its mirror.
        training: how it was trained.
        trained, held: numbers of the clips that it learned from and that chose the epoch, see ``identity``.
        notes: on the data that it was trained on.
        origin: where the weights come from.
    """

    name: str
    module: ConvFormer
    fps: float
    linear: LinearLifter
    mean: NDArray[np.float32]
    spread: Tensor
    training: dict[str, Any]
    trained: Tensor
    held: Tensor
    notes: tuple[str, ...] = ()
    origin: str = ""

    def to_config(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors, and how to build the model that they are of."""
        tensors = {f"model.{name}": value.contiguous() for name, value in self.module.state_dict().items()}
        tensors |= {
            "linear.weight": torch.from_numpy(self.linear.weight).float(),
            "linear.bias": torch.from_numpy(self.linear.bias).float(),
            "mean": torch.from_numpy(self.mean),
            "spread": self.spread,
            "trained": self.trained,
            "held": self.held,
        }
        return tensors, {
            "arguments": dataclasses.asdict(self.module.config),
            "fps": self.fps,
            "skeleton": SKELETON,
            "linear_window": self.linear.window,
            "training": self.training,
            "fit_notes": list(self.notes),
        }

    def export_parts(self) -> tuple[nn.Module, dict[str, Tensor], str]:
        """The network on the CPU, and two example windows with all joints there."""
        c = self.module.config
        generator = torch.Generator().manual_seed(0)
        x = torch.cat([torch.rand(2, c.frames, c.joints, 2, generator=generator) - 0.5,
                       torch.ones(2, c.frames, c.joints, 1)], -1)  # fmt: skip
        return copy.deepcopy(self.module).cpu().eval(), {"x": x}, "pose"


def build(m: PoseLifter) -> ConvFormer:
    """The network of a pipeline's options."""
    arch = architecture(m.model, m.arch)
    attention = m.attention or known_model(m.model).attention or "dynamic_conv"
    return ConvFormer(ConvFormerConfig(frames=m.frames, mask=True, attention=attention, **arch))


def fit(m: PoseLifter, data: Any) -> Fitted:
    """Train a lifter.

    Raises:
        InputError: no motion to learn from.
        ConfigError: an option that does not exist or does not fit.
    """
    clips, notes = motion_of(m, data)
    parts = parts_of(m, clips)
    fitted = _fit_parts(m, parts)
    fitted.notes = (*notes, *parts.notes)
    return fitted


def _fit_parts(m: PoseLifter, parts: Parts) -> Fitted:
    from pipelines.training.fitting import fit_module

    if not parts.train:
        raise InputError("no motion is left to learn from", where="data", found="0 clips")
    torch.manual_seed(m.seed)
    module = build(m)
    sets = [
        DrawnWindows(m, parts.train, m.motion.windows, changed=True),
        DrawnWindows(m, parts.valid, max(1, m.motion.windows // 8), changed=False) if parts.valid else None,
    ]
    frames = sum(clip.frames for clip in parts.train)
    m.run.say(
        f"{len(parts.train)} clips, {frames:,} frames to learn from, {len(parts.valid)} clips to choose the epoch"
    )
    result = fit_module(m, module, pose_loss, sets[0], sets[1], default_lr=known_model(m.model).learning_rate)  # type: ignore[arg-type]
    module.eval()
    seeds = [derive_seed(m.seed, 77, number) for number in range(_LINEAR)]
    batches = [draw_batch(m, parts.train, 1024, seed, changed=True) for seed in seeds]
    linear = fit_linear(((one["x"], one["y"], one["known"]) for one in batches), window=1, mask=True)
    mean = MeanPose.fit([(one["y"], one["known"]) for one in batches]).points
    numbers = [torch.tensor([identity(clip) for clip in part]).long() for part in (parts.train, parts.valid)]
    fitted = Fitted(
        m.model, module, m.fps, linear, np.asarray(mean, np.float32), torch.zeros(18), {}, numbers[0], numbers[1]
    )
    fitted.spread = _spread(m, fitted, parts.valid or parts.train)
    fitted.training = dataclasses.asdict(result) | {"clips": len(parts.train), "frames": frames}
    return fitted


def _spread(m: PoseLifter, fitted: Fitted, clips: Sequence[Clip]) -> Tensor:
    """Squared error of each joint as a constant and a share of the squared distance to the mirrored answer."""
    batch = draw_batch(m, clips, 1024, derive_seed(m.seed, 99), changed=False)
    both = _both(fitted, batch["x"])
    error = 1000 * np.linalg.norm((both[0] + both[1]) / 2 - batch["y"], axis=-1)
    apart = 1000 * np.linalg.norm(both[0] - both[1], axis=-1)
    return torch.from_numpy(calibrated(error, apart, batch["known"]))


@torch.inference_mode()
def _answers(fitted: Fitted, x: NDArray[np.float32]) -> NDArray[np.float32]:
    device = next(fitted.module.parameters()).device
    found = [fitted.module(torch.from_numpy(part).to(device))[:, 0].float().cpu().numpy() for part in _pieces(x)]
    return np.concatenate(found)


def _pieces(x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return [np.ascontiguousarray(x[low : low + _BATCH]) for low in range(0, len(x), _BATCH)]


def _both(fitted: Fitted, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Answers (N, J, 3) to windows, and to their mirror images turned back."""
    mirror = list(skeleton(SKELETON).mirror)
    other = x[:, :, mirror].copy()
    other[..., 0] *= -1
    answers, turned = np.split(_answers(fitted, np.concatenate([x, other])), 2)
    turned = turned[:, mirror]
    turned[..., 0] *= -1
    return answers, turned


def lift_windows(fitted: Fitted, windows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The poses of the centre frames of windows (N, T, J, 3): (N, J, 3) m relative to the root, and (N, J) mm that each
    joint may be off. Of windows and their mirror images the mean is taken.
    """
    root = skeleton(SKELETON).root
    spread = fitted.spread.numpy()
    one, other = _both(fitted, windows)
    apart = 1000 * np.linalg.norm(one - other, axis=-1)
    mean = np.asarray((one + other) / 2, np.float32)
    return mean - mean[:, root : root + 1], np.sqrt(spread[:-1] ** 2 + (spread[-1] * apart) ** 2)


def lift(m: PoseLifter, fitted: Fitted, joints: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The pose of every frame of joints (T, J, 3): (T, J, 3) m relative to the root, and mm that it may be off (T, J).

    The first and last frames are repeated so that every frame is in the middle of a window. Memory does not grow with T
    beyond the answer.
    """
    points = np.empty((len(joints), joints.shape[1], 3), np.float32)
    sigma = np.empty(points.shape[:2], np.float32)
    half = fitted.module.config.frames // 2
    for low in range(0, len(joints), 1024):
        high = min(low + 1024, len(joints))
        first, last = max(0, low - half), min(len(joints), high + half)
        windows = centre_windows(joints[first:last], fitted.module.config.frames)[low - first : high - first]
        points[low:high], sigma[low:high] = lift_windows(fitted, windows)
    return points, sigma


def restore(m: PoseLifter, tensors: dict[str, Tensor], config: dict[str, Any]) -> Fitted:
    """Rebuild the fitted state from stored tensors and configuration."""
    from pipelines.official import check_shapes
    from pipelines.training.distributed import resolve_device

    own = {name.removeprefix("model."): value.float() for name, value in tensors.items() if name.startswith("model.")}
    module = ConvFormer(ConvFormerConfig(**config["arguments"]))
    module.load_state_dict(check_shapes(module, own, name=m.model))
    c = module.config
    linear = LinearLifter(
        tensors["linear.weight"].double().numpy(), tensors["linear.bias"].double().numpy(), config["linear_window"],
        c.joints, c.channels, mask=True,
    )  # fmt: skip
    return Fitted(
        m.model, module.eval().to(resolve_device(m.device)), config["fps"], linear, tensors["mean"].float().numpy(),
        tensors["spread"].float(), config["training"], tensors["trained"], tensors["held"],
        tuple(config["fit_notes"]), "a saved model",
    )  # fmt: skip
