"""From clean pictures to a fitted denoiser, and from it to clean numbers."""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.denoise.baselines import BASELINES
from pipelines.denoise.blend import best_shares, blended
from pipelines.denoise.models.hsdt import HSDT, Variant, make
from pipelines.denoise.options import architecture, known_model
from pipelines.denoise.preparation import Preparation
from pipelines.errors import ConfigError, WeightsError
from pipelines.tiling import Plan, plan_tiles

if TYPE_CHECKING:
    from pipelines.denoise.pipeline import Denoiser
    from pipelines.denoise.reading import Clean

__all__ = ["Fitted", "build", "fit", "fit_baseline", "from_official", "restore"]

Floats = NDArray[np.floating]
#: Pixels around a tile that it is told beside its own.
HALO = 32
_TUNED = 128  # rows and columns that the shares are found on
_BYTES_PER_VOXEL = 50  # for each channel of the model, measured


@dataclasses.dataclass
class Fitted:
    """A denoiser.

    Attributes:
        name: of the model.
        module: the net in eval mode on its device, None for a baseline.
        training: how it was trained.
        notes: on what it was trained on.
        origin: where the weights come from.
    """

    name: str
    module: HSDT | None = None
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    origin: str = ""

    def plan(self, shape: tuple[int, int, int], *, memory: int, tile: int | None) -> Plan:
        """Tiles for a cube (D, H, W); a baseline takes the cube whole.

        Args:
            shape: of the cube.
            memory: megabytes that a tile and its band of rows may take.
            tile: rows and columns of a tile instead.

        Raises:
            ConfigError: not enough memory for a tile.
        """
        bands, height, width = shape
        if self.module is None:
            if tile is not None:
                cure = "drop --tile, or take --model hsdt"
                raise ConfigError(f"{self.name} takes the cube whole", where="tile", found=tile, cure=cure)
            return plan_tiles(height, width, halo=0, budget=2**62, bytes_per_cell=1)
        cell = _BYTES_PER_VOXEL * bands * self.module.variant.channels
        multiple = self.module.multiple
        if tile is None and height * width * cell <= memory * 1_000_000:
            return plan_tiles(height, width, halo=0, budget=2**62, bytes_per_cell=1)
        return plan_tiles(
            height,
            width,
            halo=HALO,
            budget=memory * 1_000_000,
            bytes_per_cell=cell,
            bytes_per_band_cell=12 * bands,
            multiple=multiple,
            tile=tile,
        )

    def clean(self, noisy: Floats, prepared: Preparation, *, half: bool = False) -> Floats:
        """Denoise values.

        Args:
            noisy: (D, H, W), finite, in the unit of the cube.
            prepared: what was found out about the cube.
            half: compute in bfloat16.

        Returns:
            (D, H, W) in the unit of the cube.
        """
        if self.module is None:
            return BASELINES[self.name](noisy, np.nan_to_num(np.array(prepared.levels.sigmas)))
        if prepared.space is None or prepared.shares is None:
            return self._answer(prepared.seen(noisy), prepared, half)
        noisy_images = prepared.space.images(noisy)
        answer = self._answer(prepared.space.cube(noisy_images), prepared, half)
        return prepared.space.cube(blended(noisy_images, prepared.space.components(answer), prepared.shares))

    def tuned(self, prepared: Preparation, sample: Floats, *, half: bool = False) -> Preparation:
        """With the shares of the model's answer in each component that are best for a piece of the cube.

        Args:
            prepared: what was found out about the cube.
            sample: (D, h, w), finite; its middle is denoised twice.
            half: compute in bfloat16.
        """
        space = prepared.space
        if self.module is None or space is None:
            return prepared
        high, wide = (slice(max(0, (n - _TUNED) // 2), max(0, (n - _TUNED) // 2) + _TUNED) for n in sample.shape[1:])
        images = space.images(sample[:, high, wide])

        def answer(given: Floats) -> Floats:
            return space.components(self._answer(space.cube(given), prepared, half))

        return dataclasses.replace(prepared, shares=best_shares(images, answer))

    @torch.no_grad()
    def _answer(self, seen: Floats, prepared: Preparation, half: bool) -> Floats:
        """The net's answer, in the unit of the cube."""
        module = cast(HSDT, self.module)
        device = next(module.parameters()).device
        x = torch.from_numpy(prepared.scaled(seen))[None, None].to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            y = module(x)
        return prepared.backward(y[0, 0].float().cpu().numpy())

    # Stored ---------------------------------------------------------------------------------------------------------

    def to_config(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors, and how to build the net.

        Raises:
            ConfigError: a baseline, which has no weights.
        """
        if self.module is None:
            raise ConfigError(f"{self.name} has no weights to keep", where="save", cure="fit hsdt instead")
        m = self.module
        config = {
            "variant": {**dataclasses.asdict(m.variant), "down": list(m.variant.down)},
            "num_bands": m.num_bands,
            "attention": m.attention,
            "num_heads": m.num_heads,
            "training": self.training,
            "fit_notes": list(self.notes),
        }
        return {name: tensor.cpu().contiguous() for name, tensor in m.state_dict().items()}, config

    def export_parts(self) -> tuple[nn.Module, dict[str, Tensor], str]:
        """The net on the CPU and two example cubes."""
        if self.module is None:
            raise ConfigError(f"{self.name} is no model that can be exported", where="export")
        module = copy.deepcopy(self.module).cpu().eval()
        shape = (2, 1, module.num_bands, 4 * module.multiple, 4 * module.multiple)
        return module, {"x": torch.rand(shape, generator=torch.Generator().manual_seed(0))}, "y"


def fit_baseline(name: str) -> Fitted:
    """A rule that learns nothing."""
    return Fitted(name, origin="nothing is learned")


def fit(d: Denoiser, clean: list[Clean]) -> Fitted:
    """Train a net on photographs and clean cubes.

    Raises:
        InputError: too few of them, or none as large as a patch.
        ConfigError: an option that does not exist or does not fit.
    """
    from pipelines.denoise.training import train

    if known_model(d.model).baseline:
        return fit_baseline(d.model)
    torch.manual_seed(d.seed)
    module = build(d)
    started = _start(d, module)
    how = {"started_from": started, "patch": d.patch, "patches": d.patches, "projected": d.projected}
    summary = how | train(d, module, clean)
    notes = tuple(f"{one.name}: {note}" for one in clean for note in one.notes)
    return _ready(d, Fitted(d.model, module, training=summary, notes=notes))


def build(d: Denoiser) -> HSDT:
    """A net of a pipeline's options with new weights, as the paper begins: normal ones of Xavier's variance."""
    arch = architecture(d.model, d.arch)
    attention = None if d.attention in (None, "guided_spectral") else d.attention
    module = make(arch["variant"], num_bands=arch["num_bands"], attention=attention, num_heads=arch["heads"])
    if module.variant.in_channels != 1 or module.variant.rgb:
        raise ConfigError(
            "this variant does not denoise a cube alone",
            where="arch.variant",
            found=arch["variant"],
            cure="take hsdt_8, hsdt or hsdt_deep",
        )
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Conv3d)):
            nn.init.xavier_normal_(part.weight)
    return module


def _start(d: Denoiser, module: HSDT) -> str:
    """Take over the weights that training is to start from; returns what is said of them.

    Raises:
        WeightsError: weights of a net of another shape.
    """
    from pipelines.official import check_shapes

    if d.start is None:
        return "random weights"
    other = type(d).load(d.start).state.module
    if other is None:
        raise WeightsError("these weights hold no model that can be trained on", where=d.start)
    module.load_state_dict(check_shapes(module, other.state_dict(), name=d.model))
    d.run.say(f"training starts from the weights of {d.start}")
    return f"weights of {d.start}"


def _ready(d: Denoiser, fitted: Fitted) -> Fitted:
    from pipelines.training.distributed import resolve_device

    fitted.module = cast(HSDT, fitted.module).to(resolve_device(d.device)).eval()
    return fitted


def restore(d: Denoiser, tensors: dict[str, Tensor], config: dict[str, Any]) -> Fitted:
    """Rebuild the fitted state from stored tensors and configuration."""
    from pipelines.official import check_shapes

    variant = Variant(**{**config["variant"], "down": tuple(config["variant"]["down"])})
    module = HSDT(variant, num_bands=config["num_bands"], attention=config["attention"], num_heads=config["num_heads"])
    module.load_state_dict(check_shapes(module, tensors, name=d.model))
    found = Fitted(d.model, module, training=config["training"], notes=tuple(config["fit_notes"]))
    found.origin = "a saved model"
    return _ready(d, found)


def from_official(d: Denoiser, module: HSDT, path: object) -> Fitted:
    """A fitted state around an official checkpoint."""
    return _ready(d, Fitted("hsdt", module, origin=f"official checkpoint {path}"))
