"""Which denoisers there are and what can be set about them; loads no torch, for the command line's sake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from pipelines.errors import ConfigError
from pipelines.model_list import ModelInfo, chosen_options, find_model
from pipelines.training.options import TrainOptions

__all__ = ["CASES", "MODELS", "TRAINING", "ArchOptions", "ModelInfo", "Reading", "architecture", "check_values"]

#: The recipe: 1,600 noisy cubes an epoch, step size falling along a cosine.
TRAINING = TrainOptions(epochs=26, batch_size=8, patience=0, schedule="cosine")

#: The noise cases of the paper.
CASES = ("gaussian30", "gaussian50", "gaussian70", "blind", "noniid", "stripe", "deadline", "impulse", "mixture")


@dataclass(frozen=True)
class ArchOptions:
    """Size and shape of the model."""

    variant: str | None = None
    """hsdt_8 (S), hsdt (M), hsdt_deep (L), another size or an ablation of the released code (hsdt_8)."""
    num_bands: int | None = None
    """Bands that queries are learned for; cubes of another depth go by logits that need none (31)."""
    heads: int | None = None
    """Heads, for another mechanism that has heads (4)."""


@dataclass(frozen=True)
class Reading:
    """How a cube is read where its file does not say."""

    key: str | None = None
    """Name of the variable, dataset or extension that is the cube."""
    axis: int | None = None
    """Stored axis of the bands, from 0; negative counts from the end."""
    shape: tuple[int, int] | None = None
    """Rows and columns of the image, for tables of bands and pixels."""
    no_data: float | None = None
    """Number that marks voxels without a value, instead of the file's own."""


_INFOS = (
    ModelInfo(
        name="hsdt",
        paper="HSDT: Hybrid Spectral Denoising Transformer with Guided Attention (2023, arXiv 2303.09040)",
        sheet=22,
        summary="a U of separable 3-D convolutions and attention between bands, blind to the noise's level and kind",
        learning_rate=1e-3,
        attention="guided_spectral",
        defaults=MappingProxyType({"variant": "hsdt_8", "num_bands": 31, "heads": 4}),
    ),
    ModelInfo(
        name="svd",
        paper="Gavish and Donoho 2014, the optimal hard threshold for singular values (arXiv 1305.5870)",
        sheet=0,
        summary="singular components of bands by pixels that stand out of the noise",
        baseline=True,
    ),
    ModelInfo(name="svd_rank3", paper="ours", sheet=0, summary="the first three singular components", baseline=True),
    ModelInfo(
        name="svd_non_local_means",
        paper="after FastHyDe (Zhuang and Bioucas-Dias 2018), with non-local means",
        sheet=0,
        summary="singular components whose images are cleaned by non-local means",
        baseline=True,
    ),
    ModelInfo(
        name="non_local_means",
        paper="Buades, Coll and Morel 2005, non-local means",
        sheet=0,
        summary="non-local means of each band by itself",
        baseline=True,
    ),
    ModelInfo(
        name="total_variation",
        paper="Rudin, Osher and Fatemi 1992, total variation",
        sheet=0,
        summary="least total variation of each band by itself",
        baseline=True,
    ),
)

#: Models by name.
MODELS: Mapping[str, ModelInfo] = MappingProxyType({info.name: info for info in _INFOS})
Scale = Literal["band", "cube", "none"]


def architecture(name: str, arch: ArchOptions) -> dict[str, Any]:
    """The sizes that a model is built with.

    Raises:
        ConfigError: an unknown model, or an option that it does not have.

    Example:
        >>> architecture("hsdt", ArchOptions())["variant"]
        'hsdt_8'
    """
    return chosen_options(MODELS, name, arch)


def known_model(name: str) -> ModelInfo:
    """The entry of a model; an unknown one is refused, with the nearest name.

    Example:
        >>> known_model("hsdt").sheet
        22
    """
    return find_model(MODELS, name)


def check_values(*, patch: object, patches: object, memory: object, tile: object, cases: tuple[str, ...]) -> None:
    """Refuse sizes and cases that cannot be.

    Raises:
        ConfigError: one of them.

    Example:
        >>> check_values(patch=32, patches=1, memory=600, tile=None, cases=("rain",))
        Traceback (most recent call last):
        pipelines.errors.ConfigError: cases: no such noise case. Found: rain. Expected: gaussian30, ...
    """
    for name, value, least in (("patch", patch, 8), ("patches", patches, 1), ("memory", memory, 1), ("tile", tile, 16)):
        if name == "tile" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError("out of range", where=name, found=value, expected=f"a whole number from {least}")
    for case in cases:
        if case not in CASES and not _is_gaussian(case):
            raise ConfigError("no such noise case", where="cases", found=case, expected=", ".join(CASES))
    if not cases:
        raise ConfigError("no noise case", where="cases", expected=", ".join(CASES))


def _is_gaussian(case: str) -> bool:
    number = case.removeprefix("gaussian")
    return case.startswith("gaussian") and number.replace(".", "", 1).isdigit()
