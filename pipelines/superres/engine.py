"""From photographs to a fitted super-resolution model, and from it to enlarged pixels, tile by tile."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.data.datasets.degradation import Degradation, imresize
from pipelines.errors import ConfigError, WeightsError
from pipelines.superres.models.cfsr import CFSR
from pipelines.superres.options import architecture, known_model
from pipelines.tiling import Plan, plan_tiles

if TYPE_CHECKING:
    from pipelines.superres.pipeline import SuperResolver

__all__ = ["Fitted", "build", "fit", "fit_bicubic", "from_official", "restore"]

Pixels = NDArray[Any]
_BICUBIC_REACH = 3
_BYTES_PER_CELL = 1_300  # that a tile takes for a pixel of the small image, measured
_BICUBIC_BYTES = 200
_TURNS = 8


@dataclasses.dataclass
class Fitted:
    """A model that enlarges.

    Attributes:
        name: of the model.
        scale: its factor.
        trained: the graph that training left, None for bicubic.
        module: the same merged, in eval mode, on the device.
        training: how it was trained.
        notes: on the images it was trained on.
        origin: where the weights come from.
    """

    name: str
    scale: int
    trained: CFSR | None = None
    module: CFSR | None = None
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    origin: str = ""

    @property
    def reach(self) -> int | None:
        """Pixels that a pixel of the answer depends on in each direction; None where it is all of them."""
        return _BICUBIC_REACH if self.module is None else self.module.reach

    def plan(self, height: int, width: int, *, memory: int, tile: int | None, channels: int, itemsize: int) -> Plan:
        """Tiles for an image: one where a mixer sees the whole image.

        Args:
            height, width: of the small image.
            memory: megabytes that a tile and its band of rows may take.
            tile: sides of a tile instead.
            channels, itemsize: of the stored pixels.

        Raises:
            ConfigError: not enough memory for a tile, or for an image that cannot be cut.
        """
        cell = _BICUBIC_BYTES if self.module is None else _BYTES_PER_CELL
        if self.reach is None:
            needed = height * width * cell / 1e6
            if tile is not None or needed > memory:
                raise ConfigError(
                    "this mechanism sees the whole image, which cannot be cut into tiles",
                    where="attention",
                    found=f"{width} x {height} pixels, about {needed:,.0f} MB",
                    expected=f"{memory} MB or less, and no --tile",
                    cure="raise --memory, or take large_kernel",
                )
            return plan_tiles(height, width, halo=0, budget=2**62, bytes_per_cell=1)
        band = (1 + self.scale**2) * channels * itemsize
        return plan_tiles(
            height,
            width,
            halo=self.reach,
            budget=memory * 1_000_000,
            bytes_per_cell=cell,
            bytes_per_band_cell=band,
            tile=tile,
        )

    @torch.no_grad()
    def enlarge(
        self, block: Pixels, *, alpha: bool = False, ensemble: bool = False, half: bool = False
    ) -> Pixels | tuple[Pixels, Pixels]:
        """Enlarge stored pixels.

        Args:
            block: (h, w, C) uint8 or uint16: grey or RGB, with ``alpha`` one more channel.
            alpha: whether the last channel is one; it is enlarged by bicubic interpolation.
            ensemble: average over the eight ways to lay the image, and say how much they differ.
            half: compute in bfloat16.

        Returns:
            (s h, s w, C) of the same type; with ``ensemble`` also (s h, s w, 1) uint8, the deviation over the eight
            answers in quarters of a grey level of 255, at most 63.75 levels.
        """
        colours = block[..., :-1] if alpha else block
        spread = None
        if self.module is None:
            large = imresize(np.ascontiguousarray(colours), self.scale)
        else:
            large, spread = self._by_model(colours, ensemble, half)
        if alpha:
            large = np.concatenate([large, imresize(np.ascontiguousarray(block[..., -1:]), self.scale)], axis=2)
        if not ensemble:
            return large
        if spread is None:
            spread = np.zeros((*large.shape[:2], 1), np.uint8)
        return large, spread

    def _by_model(self, colours: Pixels, ensemble: bool, half: bool) -> tuple[Pixels, Pixels | None]:
        module = self.module
        if module is None:
            raise ConfigError("there is no model", where="enlarge")
        peak = np.iinfo(colours.dtype).max
        device = module.conv_first.weight.device
        x = torch.from_numpy(np.ascontiguousarray(colours.transpose(2, 0, 1))).to(device).float()[None] / peak
        x = x.expand(-1, module.channels, -1, -1)

        def run(one: Tensor) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                y = module(one).float()
            return y.mean(1, keepdim=True) if colours.shape[2] == 1 else y

        if not ensemble:
            return _stored(run(x), peak, colours.dtype), None
        total, squares = torch.zeros(()), torch.zeros(())
        for turn in range(_TURNS):
            y = _back(run(_laid(x, turn)), turn)
            total, squares = total + y, squares + y * y
        mean = total / _TURNS
        deviation = (squares / _TURNS - mean * mean).clamp_min(0).sqrt().mean(1, keepdim=True)
        return _stored(mean, peak, colours.dtype), _stored(deviation * 4, 255, np.dtype(np.uint8))

    # Stored ---------------------------------------------------------------------------------------------------------

    def to_config(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors of the graph that was trained, and how to build it.

        Raises:
            ConfigError: bicubic interpolation, which has no weights.
        """
        if self.trained is None:
            raise ConfigError(f"{self.name} has no weights to keep", where="save", cure="fit cfsr instead")
        arguments = {**self.trained.arguments, "depths": list(self.trained.arguments["depths"])}
        config = {"arguments": arguments, "training": self.training, "fit_notes": list(self.notes)}
        return {name: tensor.contiguous() for name, tensor in self.trained.state_dict().items()}, config

    def export_parts(self) -> tuple[nn.Module, dict[str, Tensor], str]:
        """The merged module on the CPU and two example images."""
        if self.module is None:
            raise ConfigError(f"{self.name} is no model that can be exported", where="export")
        module = copy.deepcopy(self.module).cpu().eval()
        x = torch.rand(2, module.channels, 24, 24, generator=torch.Generator().manual_seed(0))
        return module, {"x": x}, "y"


def _stored(values: Tensor, peak: int, dtype: np.dtype) -> Pixels:
    """(1, C, H, W) in [0, 1] -> (H, W, C), rounded half up as the benchmarks' files are."""
    scaled = (values[0].clamp(0, 1) * peak + 0.5).floor_().cpu().numpy()
    return np.ascontiguousarray(scaled.transpose(1, 2, 0)).astype(dtype)


def _laid(x: Tensor, turn: int) -> Tensor:
    x = torch.rot90(x, turn % 4, (2, 3))
    return x.flip(3) if turn >= 4 else x


def _back(y: Tensor, turn: int) -> Tensor:
    y = y.flip(3) if turn >= 4 else y
    return torch.rot90(y, -(turn % 4), (2, 3))


def fit_bicubic(scale: int) -> Fitted:
    """The baseline."""
    return Fitted("bicubic", scale, origin="nothing is learned")


def fit(r: SuperResolver, images: Mapping[str, NDArray[np.uint8]]) -> Fitted:
    """Train a model on photographs.

    Args:
        r: the pipeline, which says how.
        images: name -> (H, W, 3) uint8.

    Raises:
        InputError: too few images, or none that is large enough.
        ConfigError: an option that does not exist or does not fit.
    """
    from pipelines.superres.training import train

    if known_model(r.model).baseline:
        return fit_bicubic(r.scale)
    torch.manual_seed(r.seed)
    model = build(r)
    started = _start(r, model)
    degradation = degradation_of(r)
    r.run.say(f"{len(images)} images, {sum(i[..., 0].size for i in images.values()) / 1e6:.1f} megapixels")
    training, notes = train(r, model, images, degradation)
    training |= {"degradation": str(degradation), "started_from": started, "patch": r.patch, "patches": r.patches}
    return _ready(r, Fitted(r.model, r.scale, model, training=training, notes=tuple(notes)))


def build(r: SuperResolver) -> CFSR:
    """The training graph of a pipeline's options."""
    arch = architecture(r.model, r.arch)
    attention = r.attention or known_model(r.model).attention or ""
    return CFSR(r.scale, attention=attention, **arch)


def degradation_of(r: SuperResolver) -> Degradation:
    """How small images are made of large ones."""
    return Degradation(r.scale, blur=r.degrade.blur, noise=r.degrade.noise, jpeg=r.degrade.jpeg, seed=r.seed)


def _start(r: SuperResolver, model: CFSR) -> str:
    """Take over the weights that training is to start from; returns what is said of them."""
    if r.start is None:
        return "random weights"
    from pipelines.superres.training import begin_from

    other = type(r).load(r.start).state
    if other.trained is None:
        raise WeightsError("these weights hold no model that can be trained on", where=r.start)
    left = begin_from(model, other.trained)
    said = f"weights for x{other.scale} ({r.start})" + (f", but {', '.join(left)}" if left else "")
    r.run.say(f"training starts from {said}")
    return said


def _ready(r: SuperResolver, fitted: Fitted) -> Fitted:
    """Merge the trained graph and put it on the device."""
    from pipelines.training.distributed import resolve_device

    if fitted.trained is not None:
        trained = fitted.trained.cpu().eval()
        fitted.trained, fitted.module = trained, trained.merge().to(resolve_device(r.device))
    return fitted


def restore(r: SuperResolver, tensors: dict[str, Tensor], config: dict[str, Any]) -> Fitted:
    """Rebuild the fitted state from stored tensors and configuration."""
    from pipelines.official import check_shapes

    arguments = {**config["arguments"], "depths": tuple(config["arguments"]["depths"])}
    model = CFSR(**arguments)
    model.load_state_dict(check_shapes(model, tensors, name=r.model))
    found = Fitted(r.model, model.scale, model, training=config["training"], notes=tuple(config["fit_notes"]))
    found.origin = "a saved model"
    return _ready(r, found)


def from_official(r: SuperResolver, model: CFSR, path: object) -> Fitted:
    """A fitted state around an official checkpoint."""
    return _ready(r, Fitted("cfsr", model.scale, model, origin=f"official checkpoint {path}"))
