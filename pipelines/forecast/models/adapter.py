"""One forward for every forecasting model: `forward(x, x_mark, y_mark, past) -> (B, H, C)`.

B windows of L context rows and H horizon rows; C targets, P past covariates, F marks. The marks' first `calendar`
columns are calendar features, the others are known covariates and static columns; all are standardised.

How a model meets covariates is ours, not the papers' (their models have none):

- the linear family forecasts what a linear regression on the known covariates leaves, and adds a low-rank map of the
  past covariates; both start at zero, so training starts from the paper's model (`CovariateHead`);
- Autoformer takes past covariates as further channels, which its forecast is cut off, and all marks as time features;
- the Transformer reads everything as columns of its rows;
- the baselines read the targets only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipelines.errors import ConfigError
from pipelines.forecast.models import baselines, linear
from pipelines.forecast.options import ArchOptions, architecture, model_info

__all__ = ["CovariateHead", "ForecastModule", "build_model"]


class ForecastModule(nn.Module):
    """A forecasting model behind the common forward.

    Args:
        inner: the architecture itself.
        name: its name in `pipelines.forecast.options.MODELS`.
        context: L, rows of a window.
        horizon: H, rows to forecast.
        targets: C, forecast columns.
        past: P, covariates known up to the forecast's origin only.
        marks: F, columns known for every row, horizon included.
        notes: what a user should be told about how the model was built.
    """

    def __init__(
        self,
        inner: nn.Module,
        *,
        name: str,
        context: int,
        horizon: int,
        targets: int,
        past: int = 0,
        marks: int = 0,
        notes: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.model = inner
        self.name, self.context, self.horizon = name, context, horizon
        self.targets, self.past, self.marks, self.notes = targets, past, marks, notes

    def official(self) -> nn.Module:
        """The architecture inside, whose state dict has the released code's names."""
        return self.model

    def forward(self, x: Tensor, x_mark: Tensor, y_mark: Tensor, past: Tensor) -> Tensor:
        """Forecast the targets, in the scale of x.

        Args:
            x: (B, L, C) targets of the window, standardised.
            x_mark: (B, L, F) marks of the window.
            y_mark: (B, H, F) marks of the horizon.
            past: (B, L, P) past covariates of the window, standardised.

        Returns:
            (B, H, C).

        Raises:
            ConfigError: a tensor of another length or width than the model was built for.
        """
        sizes = {
            "x": (x, self.context, self.targets),
            "x_mark": (x_mark, self.context, self.marks),
            "y_mark": (y_mark, self.horizon, self.marks),
            "past": (past, self.context, self.past),
        }
        for key, (tensor, rows, columns) in sizes.items():
            if tensor.shape[1:] != (rows, columns):
                raise ConfigError(
                    "a tensor does not fit the model",
                    where=key,
                    found=tuple(tensor.shape),
                    expected=f"(batch, {rows}, {columns})",
                )
        return self._forecast(x, x_mark, y_mark, past)

    def _forecast(self, x: Tensor, x_mark: Tensor, y_mark: Tensor, past: Tensor) -> Tensor:
        """What a model does with the four tensors; here it reads the targets only."""
        return self.model(x)


class CovariateHead(nn.Module):
    """Covariates for models that only read the targets: a regression on the known, a low-rank map of the past ones.

    With z the known covariates, u the past ones and f the plain model, the forecast is
    f(x - W z_context) + W z_horizon + A (u - u_last) R: f forecasts what the regression leaves, W (C, K) is the same
    for all steps, R (P, C) mixes the past covariates, and A (H, L) maps their window, less its last row, to the
    horizon. W and R start at zero, which gives f(x).

    Args:
        context: L. horizon: H. targets: C. known: K. past: P.

    Parameters C K + P C + H L. Time O(B (L + H) K C + B L (P C + H C)).

    Example:
        >>> head = CovariateHead(context=4, horizon=2, targets=1, known=1, past=1)
        >>> x, z, u = torch.randn(3, 4, 1), torch.randn(3, 6, 1), torch.randn(3, 4, 1)
        >>> y = head(lambda rows: rows[:, :2], x, z[:, :4], z[:, 4:], u)
        >>> torch.equal(y, x[:, :2])
        True
    """

    def __init__(self, *, context: int, horizon: int, targets: int, known: int, past: int) -> None:
        super().__init__()
        self.known = nn.Parameter(torch.zeros(targets, known)) if known else None
        self.mix = nn.Parameter(torch.zeros(past, targets)) if past else None
        self.over_time = nn.Linear(context, horizon, bias=False) if past else None

    def forward(self, model: Any, x: Tensor, z_context: Tensor, z_horizon: Tensor, past: Tensor) -> Tensor:
        """Forecast (B, H, C) by `model` ((B, L, C) -> (B, H, C)) with the covariates' part taken off and added."""
        if self.known is None:
            y = model(x)
        else:
            y = model(x - z_context @ self.known.T) + z_horizon @ self.known.T
        if self.mix is None or self.over_time is None:
            return y
        mixed = (past - past[:, -1:]) @ self.mix
        return y + self.over_time(mixed.transpose(1, 2)).transpose(1, 2)


class _LinearForecast(ForecastModule):
    """A model of the linear family, with a `CovariateHead` where there are covariates."""

    def __init__(self, inner: nn.Module, *, skip: int, **sizes: Any) -> None:
        super().__init__(inner, **sizes)
        self.skip = skip
        known = self.marks - skip
        self.covariates = (
            CovariateHead(context=self.context, horizon=self.horizon, targets=self.targets, known=known, past=self.past)
            if known or self.past
            else None
        )

    def _forecast(self, x: Tensor, x_mark: Tensor, y_mark: Tensor, past: Tensor) -> Tensor:
        if self.covariates is None:
            return self.model(x)
        return self.covariates(self.model, x, x_mark[..., self.skip :], y_mark[..., self.skip :], past)


class _AutoformerForecast(ForecastModule):
    """Autoformer over targets and past covariates as channels; the forecast is cut to the targets."""

    def _forecast(self, x: Tensor, x_mark: Tensor, y_mark: Tensor, past: Tensor) -> Tensor:
        channels = torch.cat([x, past], dim=2) if self.past else x
        label = int(self.model.label_len)  # pyright: ignore[reportArgumentType]
        decoder_mark = torch.cat([x_mark[:, self.context - label :], y_mark], dim=1)
        # The decoder's own input is built inside; only the shape of x_dec is read.
        x_dec = channels.new_zeros(()).expand(channels.shape[0], label + self.horizon, channels.shape[2])
        return self.model(channels, x_mark, x_dec, decoder_mark)[..., : self.targets]


class _MixerForecast(ForecastModule):
    """The Transformer, which takes all four tensors."""

    def _forecast(self, x: Tensor, x_mark: Tensor, y_mark: Tensor, past: Tensor) -> Tensor:
        return self.model(x, x_mark, y_mark, past)


def build_model(
    name: str,
    *,
    context: int,
    horizon: int,
    targets: int,
    past: int = 0,
    marks: int = 0,
    calendar: int = 0,
    season: int = 1,
    attention: str | None = None,
    arch: ArchOptions | None = None,
) -> ForecastModule:
    """A new model by its name, with random weights (baselines have none).

    Args:
        name: one of `pipelines.forecast.options.MODELS`.
        context: L, rows of a window.
        horizon: H, rows to forecast.
        targets: C, forecast columns.
        past: P, covariates known up to the forecast's origin only.
        marks: F, columns known for every row: calendar features first, then known covariates and static columns.
        calendar: how many of the marks' first columns are calendar features; the linear family passes over them
            unless `arch.calendar`.
        season: rows of a season, for `seasonal_naive`; a season longer than the context is not usable, the last value
            is repeated then, and the module's `notes` say so.
        attention: mechanism of models that have a mixer; None is the model's own.
        arch: sizes; None is the model's own.

    Raises:
        ConfigError: unknown model, an option or mechanism that the model cannot have, impossible sizes.

    Example:
        >>> model = build_model("dlinear", context=48, horizon=12, targets=3)
        >>> none = torch.zeros(2, 48, 0)
        >>> model(torch.randn(2, 48, 3), none, none[:, :12], none).shape
        torch.Size([2, 12, 3])
    """
    info = model_info(name)
    options = architecture(name, arch)
    sizes = {"name": name, "context": context, "horizon": horizon, "targets": targets, "past": past, "marks": marks}
    _check_sizes(sizes, calendar)
    if attention is not None and not info.uses_attention:
        raise ConfigError(
            f"{name} has no mixer", where="attention", found=attention, cure="choose --model transformer or autoformer"
        )
    if info.baseline:
        return _baseline(sizes, season)
    if name == "autoformer":
        return _autoformer(sizes, options, attention)
    if name == "transformer":
        return _transformer(sizes, options, attention or "softmax")
    skip = 0 if options.pop("calendar") else calendar
    classes = {"linear": linear.Linear, "nlinear": linear.NLinear, "dlinear": linear.DLinear}
    return _LinearForecast(classes[name](context, horizon, targets, **options), skip=skip, **sizes)


def _check_sizes(sizes: dict[str, Any], calendar: int) -> None:
    least = {"context": 1, "horizon": 1, "targets": 1, "past": 0, "marks": 0}
    for key, bound in least.items():
        if sizes[key] < bound:
            raise ConfigError("too small", where=key, found=sizes[key], expected=f"{bound} or more")
    if not 0 <= calendar <= sizes["marks"]:
        expected = f"0 to {sizes['marks']}"
        raise ConfigError("more calendar features than marks", where="calendar", found=calendar, expected=expected)


def _baseline(sizes: dict[str, Any], season: int) -> ForecastModule:
    name, context, horizon = sizes["name"], sizes["context"], sizes["horizon"]
    if name == "drift":
        return ForecastModule(baselines.Drift(context, horizon), **sizes)
    if name == "repeat_last":
        return ForecastModule(baselines.RepeatLast(horizon), **sizes)
    if season <= context:
        return ForecastModule(baselines.SeasonalNaive(context, horizon, season), **sizes)
    note = (
        f"seasonal_naive: the season of {season} rows is longer than the context of {context}; repeats the last value"
    )
    return ForecastModule(baselines.RepeatLast(horizon), notes=(note,), **sizes)


def _autoformer(sizes: dict[str, Any], options: dict[str, Any], attention: str | None) -> ForecastModule:
    from pipelines.forecast.models.autoformer import Autoformer

    label = options.pop("label_len")
    context, channels = sizes["context"], sizes["targets"] + sizes["past"]
    label = context // 2 if label is None else label
    if label > context:
        raise ConfigError(
            "more label rows than context rows", where="arch.label_len", found=label, expected=f"at most {context}"
        )
    inner = Autoformer(
        seq_len=context,
        label_len=label,
        pred_len=sizes["horizon"],
        enc_in=channels,
        dec_in=channels,
        c_out=channels,
        marks=sizes["marks"],
        attention=attention or "auto_correlation",
        **options,
    )
    return _AutoformerForecast(inner, **sizes)


def _transformer(sizes: dict[str, Any], options: dict[str, Any], attention: str) -> ForecastModule:
    from pipelines.forecast.models.transformer import MixerTransformer

    shape = {key: sizes[key] for key in ("context", "horizon", "targets", "past", "marks")}
    return _MixerForecast(MixerTransformer(**shape, attention=attention, **options), **sizes)
