"""Which classifiers there are and what can be set about them; loads no torch, for the command line's sake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from pipelines.errors import ConfigError
from pipelines.model_list import ModelInfo, chosen_options, find_model
from pipelines.training.options import TrainOptions

__all__ = [
    "MODELS",
    "TRAINING",
    "ArchOptions",
    "ModelInfo",
    "SeriesColumns",
    "architecture",
    "model_info",
    "parse_protocol",
]

#: The recipe: an epoch is at least 16 steps, the held-out fifth of the training part chooses among them.
TRAINING = TrainOptions(epochs=40, batch_size=16, patience=15, schedule="cosine")


@dataclass(frozen=True)
class SeriesColumns:
    """Which column of a long table plays which part; what is left out is recognised by its name."""

    label: str | None = None
    """Class of the series (label, class, target, y)."""
    id: str | None = None
    """Which series a row belongs to (id, series, case_id, unique_id)."""
    time: str | None = None
    """Order of the rows of a series (time, timestamp, t, step)."""
    group: str | None = None
    """Whose series it is (subject, group, participant): folds never cut through a group."""


@dataclass(frozen=True)
class ArchOptions:
    """Size and shape of a model; what is left at None is the model's own default."""

    d_model: int | None = None
    """Width of the tokens (vsformer 32, others 64)."""
    n_heads: int | None = None
    """Heads of each mixer; divides d_model (4)."""
    layers: int | None = None
    """Layers of each branch (1; transformer 2)."""
    d_ff: int | None = None
    """Width of the feed-forward part (vsformer 64, transformer 128; lmuformer 4 d_model)."""
    dropout: float | None = None
    """Probability of dropping an activation in training; vsformer drops them before its decision layer alone (0.1)."""
    token_dropout: float | None = None
    """vsformer: probability of hiding a token in training (0.5)."""
    motif: int | None = None
    """vsformer: steps of a motif (a seventh of the median length, at least 5)."""
    motifs: int | None = None
    """vsformer: motifs a class and variable (3)."""
    tokens: int | None = None
    """vsformer: tokens of each branch at most, those of the largest priors (384)."""
    components: int | None = None
    """vsformer: whitened principal components that are added to the variables, at most; 0 adds none (64)."""
    form: Literal["product", "log"] | None = None
    """vsformer: scores times priors as the paper writes it, or plus their logarithm (product)."""
    tsi: bool | None = None
    """vsformer: tell tokens their variable, place, class and prior (on)."""
    warps: int | None = None
    """Copies of each training series that are bent in time, of which training draws (vsformer 8, others 0)."""
    mixup: float | None = None
    """vsformer: how evenly a training series is mixed with another, Beta's parameter; 0 does not (0.5)."""
    theta: float | None = None
    """lmuformer: steps that the memory spans (the median length of the training series)."""
    causal: bool | None = None
    """lmuformer: see only the past, so that it can classify step by step (on)."""


def _frozen(**defaults: Any) -> Mapping[str, Any]:
    return MappingProxyType(defaults)


_SIZES: dict[str, Any] = {"d_model": 64, "n_heads": 4, "layers": 2, "d_ff": 128, "dropout": 0.1}
_INFOS = (
    ModelInfo(
        name="vsformer",
        paper="VSFormer: Value and Shape-Aware Transformer with Prior-Enhanced Self-Attention (2024, arXiv 2412.16515)",
        sheet=6,
        summary="motifs and interval statistics as tokens, mixed by attention that knows their class priors",
        learning_rate=2e-3,
        attention="prior_enhanced",
        defaults=_frozen(
            d_model=32,
            n_heads=4,
            layers=1,
            d_ff=64,
            dropout=0.1,
            motif=None,
            motifs=3,
            tokens=384,
            components=64,
            form="product",
            tsi=True,
            token_dropout=0.5,
            warps=8,
            mixup=0.5,
        ),
    ),
    ModelInfo(
        name="lmuformer",
        paper="LMUFormer: Low Complexity Yet Powerful Spiking Model With Legendre Memory (2024, arXiv 2402.04882)",
        sheet=48,
        summary="convolutions and a Legendre memory; classifies after every step where it is causal",
        learning_rate=2.5e-3,
        defaults=_frozen(d_model=64, layers=1, d_ff=None, theta=None, causal=True, warps=0),
    ),
    ModelInfo(
        name="transformer",
        paper="ours",
        sheet=0,
        summary="encoder over the steps whose mixer is any sequence mechanism",
        learning_rate=1e-3,
        attention="softmax",
        defaults=_frozen(**_SIZES, warps=0),
    ),
    ModelInfo(
        name="minirocket",
        paper="MiniRocket (2021, arXiv 2012.08791), by sktime",
        sheet=0,
        summary="10,000 fixed convolution features and a ridge classifier",
        baseline=True,
    ),
    ModelInfo(
        name="dtw",
        paper="ours",
        sheet=0,
        summary="the label of the nearest training series under dynamic time warping; on small sets",
        baseline=True,
    ),
    ModelInfo(name="majority", paper="ours", sheet=0, summary="the commonest label", baseline=True),
)

MODELS: Mapping[str, ModelInfo] = MappingProxyType({info.name: info for info in _INFOS})


def model_info(name: str) -> ModelInfo:
    """The entry of a model.

    Raises:
        ConfigError: there is no such model; the message names the nearest.

    Example:
        >>> model_info("vsformer").sheet
        6
    """
    return find_model(MODELS, name)


def architecture(name: str, arch: ArchOptions | None = None) -> dict[str, Any]:
    """The options that a model is built with: its defaults with what was set put over them.

    Raises:
        ConfigError: an option that the model does not have, or a value that cannot be.

    Example:
        >>> architecture("transformer", ArchOptions(layers=1))["layers"]
        1
    """
    chosen = chosen_options(MODELS, name, arch or ArchOptions())
    _check_values(chosen)
    return chosen


def _check_values(chosen: Mapping[str, Any]) -> None:
    for key in ("d_model", "n_heads", "layers", "d_ff", "motif", "motifs", "tokens", "warps", "components"):
        value, least = chosen.get(key), 0 if key in ("warps", "components") else 1
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError("no such size", where=f"arch.{key}", found=value, expected=f"a whole number from {least}")
    for key in ("tsi", "causal"):
        if not isinstance(chosen.get(key, True), bool):
            raise ConfigError("neither true nor false", where=f"arch.{key}", found=chosen[key])
    if chosen.get("d_model", 0) % chosen.get("n_heads", 1):
        raise ConfigError(
            "the heads do not divide the width",
            where="arch.n_heads",
            found=f"{chosen['n_heads']} heads, width {chosen['d_model']}",
            expected="d_model a multiple of n_heads",
        )
    for key in ("dropout", "token_dropout"):
        if not 0.0 <= chosen.get(key, 0.0) < 1.0:
            raise ConfigError("not a probability", where=f"arch.{key}", found=chosen[key], expected="0 <= p < 1")
    if chosen.get("mixup", 0) < 0:
        raise ConfigError("must not be negative", where="arch.mixup", found=chosen["mixup"], expected="0 or more")
    if chosen.get("theta") is not None and chosen["theta"] < 1:
        raise ConfigError("too small", where="arch.theta", found=chosen["theta"], expected="1 step or more")


def parse_protocol(protocol: str) -> int | None:
    """Number of folds of a protocol; None for "auto" and "official".

    Raises:
        ConfigError: another word.

    Example:
        >>> parse_protocol("folds:10"), parse_protocol("auto")
        (10, None)
    """
    word, _, number = protocol.partition(":")
    if protocol in ("auto", "official"):
        return None
    if word == "folds" and number.isdigit() and int(number) >= 2:
        return int(number)
    raise ConfigError(
        "unknown protocol", where="protocol", found=protocol, expected="auto, official or folds:N, N >= 2"
    )
