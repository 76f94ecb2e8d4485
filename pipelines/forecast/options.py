"""Which forecasting models there are and what can be set about them; loads no torch, for the command line's sake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from pipelines.errors import ConfigError
from pipelines.model_list import chosen_options, find_model

__all__ = ["MODELS", "ArchOptions", "ModelInfo", "architecture", "model_info"]


@dataclass(frozen=True)
class ArchOptions:
    """Size and shape of a model; what is left at None is the model's own default."""

    d_model: int | None = None
    """Width of the hidden rows (autoformer 512, transformer 64)."""
    n_heads: int | None = None
    """Heads of each mixer; divides d_model (autoformer 8, transformer 4)."""
    e_layers: int | None = None
    """Encoder layers (2)."""
    d_layers: int | None = None
    """Decoder layers (autoformer only, 1)."""
    d_ff: int | None = None
    """Width of the feed-forward part (autoformer 2048, transformer 128)."""
    factor: float | None = None
    """Autoformer: factor * ln(length) lags are aggregated (3)."""
    moving_avg: int | None = None
    """Rows of the moving average that separates the trend, odd (autoformer, dlinear: 25)."""
    label_len: int | None = None
    """Autoformer: context rows that are repeated in front of the decoder (half the context)."""
    dropout: float | None = None
    """Probability of dropping an activation in training (autoformer 0.05, transformer 0.1)."""
    individual: bool | None = None
    """Linear family: one set of weights per series instead of one shared by all (off)."""
    calendar: bool | None = None
    """Linear family: let calendar features enter as known covariates (off; the papers' models ignore them)."""
    normalise: Literal["last", "window", "none"] | None = None
    """Transformer: what is taken off a window first: its last value, its mean and deviation, or nothing (last)."""


@dataclass(frozen=True)
class ModelInfo:
    """One forecasting model: where it comes from and what it starts with.

    Example:
        >>> MODELS["dlinear"].learning_rate, MODELS["drift"].baseline
        (0.005, True)
    """

    name: str
    paper: str
    """Title with year and arXiv number; "ours" where there is none."""
    sheet: int
    """Number of the paper in `pipelines papers`; 0 where there is none."""
    summary: str
    learning_rate: float = 0.0
    """Step size of Adam that training starts with; 0 for models that learn nothing."""
    batch_size: int = 32
    attention: str | None = None
    """Default mechanism of models with a mixer (`--attention` swaps it); None for models without one."""
    baseline: bool = False
    """A rule without parameters, always reported beside the trained model."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Architecture options that the model has, with their defaults."""

    @property
    def uses_attention(self) -> bool:
        """Whether `--attention` means anything to this model."""
        return self.attention is not None


_LTSF = "Are Transformers Effective for Time Series Forecasting? (2023, arXiv 2205.13504)"
_AUTOFORMER = "Autoformer: Decomposition Transformers with Auto-Correlation (2021, arXiv 2106.13008)"


def _frozen(**defaults: Any) -> Mapping[str, Any]:
    return MappingProxyType(defaults)


_INFOS = (
    ModelInfo(
        name="dlinear",
        paper=_LTSF,
        sheet=43,
        summary="one linear map for the trend and one for the rest",
        learning_rate=5e-3,
        defaults=_frozen(moving_avg=25, individual=False, calendar=False),
    ),
    ModelInfo(
        name="nlinear",
        paper=_LTSF,
        sheet=43,
        summary="one linear map of the window less its last value",
        learning_rate=5e-3,
        defaults=_frozen(individual=False, calendar=False),
    ),
    ModelInfo(
        name="linear",
        paper=_LTSF,
        sheet=43,
        summary="one linear map of the window",
        learning_rate=5e-3,
        defaults=_frozen(individual=False, calendar=False),
    ),
    ModelInfo(
        name="autoformer",
        paper=_AUTOFORMER,
        sheet=40,
        summary="encoder and decoder that separate trend and season and mix by auto-correlation",
        learning_rate=1e-4,
        attention="auto_correlation",
        defaults=_frozen(
            d_model=512,
            n_heads=8,
            e_layers=2,
            d_layers=1,
            d_ff=2048,
            factor=3.0,
            moving_avg=25,
            label_len=None,
            dropout=0.05,
        ),
    ),
    ModelInfo(
        name="transformer",
        paper="ours",
        sheet=0,
        summary="encoder over context and horizon rows whose mixer is any sequence mechanism",
        learning_rate=1e-3,
        attention="softmax",
        defaults=_frozen(d_model=64, n_heads=4, e_layers=2, d_ff=128, dropout=0.1, normalise="last"),
    ),
    ModelInfo(
        name="seasonal_naive",
        paper="ours",
        sheet=0,
        summary="repeats the last season",
        baseline=True,
    ),
    ModelInfo(
        name="drift",
        paper="ours",
        sheet=0,
        summary="continues the line from the first to the last value of the window",
        baseline=True,
    ),
    ModelInfo(
        name="repeat_last",
        paper=_LTSF,
        sheet=43,
        summary="repeats the last value",
        baseline=True,
    ),
)

MODELS: Mapping[str, ModelInfo] = MappingProxyType({info.name: info for info in _INFOS})


def model_info(name: str) -> ModelInfo:
    """The entry of a model.

    Raises:
        ConfigError: there is no such model; the message names the nearest.

    Example:
        >>> model_info("nlinear").sheet
        43
        >>> model_info("dlinaer")
        Traceback (most recent call last):
        pipelines.errors.ConfigError: model: unknown model. Found: dlinaer. Expected: one of ...
    """
    return find_model(MODELS, name)


def architecture(name: str, arch: ArchOptions | None = None) -> dict[str, Any]:
    """The options that a model is built with: its defaults with what was set put over them.

    Raises:
        ConfigError: an option that the model does not have, or a value that cannot be.

    Example:
        >>> architecture("dlinear", ArchOptions(moving_avg=49))
        {'moving_avg': 49, 'individual': False, 'calendar': False}
    """
    chosen = chosen_options(MODELS, name, arch or ArchOptions())
    _check_values(chosen)
    return chosen


def _check_values(chosen: Mapping[str, Any]) -> None:
    for key in ("d_model", "n_heads", "e_layers", "d_layers", "d_ff", "moving_avg"):
        if key in chosen and chosen[key] < 1:
            raise ConfigError("too small", where=f"arch.{key}", found=chosen[key], expected="1 or more")
    if chosen.get("moving_avg", 1) % 2 == 0:
        raise ConfigError(
            "an even moving average has no middle row",
            where="arch.moving_avg",
            found=chosen["moving_avg"],
            expected="an odd number of rows",
            cure=f"use {chosen['moving_avg'] + 1}",
        )
    if chosen.get("d_model", 0) % chosen.get("n_heads", 1):
        raise ConfigError(
            "the heads do not divide the width",
            where="arch.n_heads",
            found=f"{chosen['n_heads']} heads, width {chosen['d_model']}",
            expected="d_model a multiple of n_heads",
        )
    if not 0.0 <= chosen.get("dropout", 0.0) < 1.0:
        raise ConfigError("not a probability", where="arch.dropout", found=chosen["dropout"], expected="0 <= p < 1")
    if chosen.get("factor", 1.0) <= 0.0:
        raise ConfigError("too small", where="arch.factor", found=chosen["factor"], expected="a factor above 0")
    if (chosen.get("label_len") or 0) < 0:
        raise ConfigError("negative", where="arch.label_len", found=chosen["label_len"], expected="0 or more")
    if chosen.get("normalise", "last") not in ("last", "window", "none"):
        raise ConfigError(
            "unknown choice", where="arch.normalise", found=chosen["normalise"], expected="last, window or none"
        )
