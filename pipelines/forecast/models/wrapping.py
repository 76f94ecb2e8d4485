"""Official modules behind the common forward, and example inputs for any forecasting module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipelines.errors import ConfigError
from pipelines.forecast.models.adapter import ForecastModule, _AutoformerForecast, _LinearForecast
from pipelines.forecast.models.autoformer import Autoformer
from pipelines.forecast.models.linear import DLinear, Linear, SeriesLinear


def wrap_official(name: str, inner: nn.Module, *, targets: int, past: int, marks: int, calendar: int) -> ForecastModule:
    """The common forward around an official module, for a table with these widths.

    Args:
        name: autoformer, linear, nlinear or dlinear.
        inner: what ``load_official`` gave.
        targets, past, marks: columns of the table: forecast, known to the present, known for every row.
        calendar: how many of the marks are calendar features.

    Raises:
        ConfigError: a table with other columns than the checkpoint was trained on.
    """
    known = marks - calendar
    if past or known:
        raise ConfigError(
            "official checkpoints take no covariates",
            where=name,
            found=f"{past} past and {known} known columns",
            cure="list them in --columns.drop, or all columns in --columns.target",
        )
    wanted = sizes_of(inner)
    if wanted["targets"] not in (None, targets):
        raise ConfigError(
            "the checkpoint was made for another number of columns",
            where=name,
            found=f"{targets} columns in the table",
            expected=wanted["targets"],
            cure="choose them by --columns.target or --columns.drop",
        )
    sizes = {"name": name, "targets": targets, "context": wanted["context"], "horizon": wanted["horizon"]}
    if isinstance(inner, Autoformer):
        if wanted["marks"] != marks:
            raise ConfigError(
                "the checkpoint was made for another step of time",
                where=name,
                found=f"{marks} time features in the table",
                expected=f"{wanted['marks']} in the checkpoint",
            )
        return _AutoformerForecast(inner, **sizes, marks=marks).eval()
    return _LinearForecast(inner, skip=marks, **sizes, marks=marks).eval()


def sizes_of(inner: nn.Module) -> dict[str, Any]:
    """Context, horizon, channels (None where any number goes) and marks of an official module."""
    if isinstance(inner, Autoformer):
        weight = inner.get_parameter("enc_embedding.value_embedding.tokenConv.weight")
        marks = inner.get_parameter("enc_embedding.temporal_embedding.embed.weight").shape[1]
        return {"context": inner.seq_len, "horizon": inner.pred_len, "targets": weight.shape[1], "marks": marks}
    if isinstance(inner, Linear | DLinear):
        single = any(isinstance(part, SeriesLinear) for part in inner.modules())
        return {
            "context": inner.seq_len,
            "horizon": inner.pred_len,
            "targets": inner.enc_in if single else None,
            "marks": 0,
        }
    raise ConfigError("not an official module", where="wrap_official", found=type(inner).__name__)


def example_inputs(module: ForecastModule, batch: int) -> dict[str, Tensor]:
    """Random standardised inputs in the order of the forward: x, x_mark, y_mark, past."""
    generator = torch.Generator().manual_seed(0)

    def rows(length: int, width: int) -> Tensor:
        return torch.randn(batch, length, width, generator=generator)

    return {
        "x": rows(module.context, module.targets),
        "x_mark": rows(module.context, module.marks),
        "y_mark": rows(module.horizon, module.marks),
        "past": rows(module.context, module.past),
    }
