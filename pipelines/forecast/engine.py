"""What stands between a table and a model: fitting, the fitted state, and forecasts of many windows."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipelines.data.datasets.forecasting import ForecastWindows, Prepared, prepare
from pipelines.errors import ConfigError, WeightsError
from pipelines.forecast.models.adapter import ForecastModule, build_model
from pipelines.forecast.models.wrapping import example_inputs, sizes_of, wrap_official
from pipelines.forecast.options import MODELS, ArchOptions, architecture, model_info

if TYPE_CHECKING:
    from pipelines.data.formats.table_types import SeriesTable
    from pipelines.forecast.pipeline import Forecaster

Batch = dict[str, Tensor]
#: The official code's names of options that messages name as ours.
_OURS = {"seq_len": "context", "pred_len": "horizon"}


@dataclasses.dataclass
class Fitted:
    """A model that can answer, and what it needs to know about the data it was fitted on.

    Args:
        name: of the model.
        module: the model; None for an official checkpoint that has not met a table yet.
        official: the official module of such a checkpoint.
        stats: statistics of scaling and columns, as plain lists; None for an official checkpoint.
        sizes: widths that the model was built for.
        train_end: id -> time stamp of the last training row, to know which rows are held out.
        radii: (K, H, C) plain split-conformal radii from the validation windows, in scaled units, at ``levels``.
        levels: K interval levels of ``radii``.
        training: summary of the training run.
        origin: where the weights come from, in words.
    """

    name: str
    module: ForecastModule | None
    official: torch.nn.Module | None = None
    stats: dict[str, Any] | None = None
    sizes: dict[str, Any] = dataclasses.field(default_factory=dict)
    train_end: dict[str, str] = dataclasses.field(default_factory=dict)
    radii: Tensor | None = None
    levels: list[float] = dataclasses.field(default_factory=list)
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    origin: str = "fitted in this run"

    def prepared(self, f: Forecaster, table: SeriesTable, *, protocol: str | None, future: int = 0) -> Prepared:
        """A table in this model's scale; an official checkpoint takes the scale of the table's training rows."""
        ready = prepare(
            table, context=f.context, horizon=f.horizon, protocol=protocol, fitted=self.stats, future=future
        )
        if self.module is None and self.official is not None:
            self.module = wrap_official(f.model, self.official, **ready.sizes).to(_device(f))
        if self.stats is None:
            rows = "its training rows" if protocol else "all its rows"
            ready.notes.append(f"the official checkpoint holds no scaling: {table.source} was scaled by {rows}")
        return ready

    def to_config(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON-ready configuration."""
        if self.module is None or self.stats is None:
            raise ConfigError("an official checkpoint is a file already", where="save", cure="fit on data first")
        tensors = {f"model.{name}": tensor for name, tensor in self.module.state_dict().items()}
        if self.radii is not None:
            tensors["interval.radii"] = self.radii
        config = {
            "preprocessing": self.stats,
            "sizes": self.sizes,
            "trained_horizon": self.module.horizon,
            "train_end": self.train_end,
            "levels": self.levels,
            "training": self.training,
        }
        return tensors, config

    def export_parts(self) -> tuple[torch.nn.Module, Batch, str]:
        """The module on the CPU in eval mode and two example windows."""
        module = self.module
        if module is None and self.official is not None:
            sizes = sizes_of(self.official)
            marks = sizes["marks"]
            module = wrap_official(
                self.name, self.official, targets=sizes["targets"] or 1, past=0, marks=marks, calendar=marks
            )
        if module is None:
            raise ConfigError("nothing to export", where="export")
        module = copy.deepcopy(module).cpu().eval()
        return module, example_inputs(module, batch=2), "forecast"


def _device(f: Forecaster) -> torch.device:
    from pipelines.training.distributed import resolve_device

    return resolve_device(f.device)


def fit(f: Forecaster, table: SeriesTable) -> Fitted:
    """Train on the training rows, keep the weights of the best validation loss.

    Args:
        f: the forecaster, whose options say what and how.
        table: what was read.
    """
    from pipelines.forecast.intervals import validation_radii

    info = model_info(f.model)
    ready = prepare(table, context=f.context, horizon=f.horizon, protocol=f.protocol)
    module = _build(f, ready)
    module.to(_device(f))
    for note in (*table.notes, *ready.notes, *module.notes):
        f.run.say(f"note: {note}")
    training = {} if info.baseline else _train(f, module, ready)
    module.eval()
    segments = ready.segments or []
    ends = {one.id: one.time[cut.train[1] - 1].isoformat() for one, cut in zip(table.series, segments, strict=True)}
    fitted = Fitted(f.model, module, stats=ready.state(), sizes=_sizes(ready), train_end=ends, training=training)
    fitted.levels, radii = validation_radii(f, fitted, ready)
    fitted.radii = torch.from_numpy(radii)
    return fitted


def _sizes(ready: Prepared) -> dict[str, Any]:
    return {**ready.sizes, "season": ready.season}


def _build(f: Forecaster, ready: Prepared) -> ForecastModule:
    return build_model(
        f.model, context=f.context, horizon=f.horizon, attention=f.attention, arch=f.arch, **_sizes(ready)
    )


def baselines(f: Forecaster, ready: Prepared) -> dict[str, ForecastModule]:
    """The rules without parameters that are reported beside every model, in eval mode on the CPU."""
    return {
        name: build_model(name, context=f.context, horizon=f.horizon, **_sizes(ready)).eval()
        for name, info in MODELS.items()
        if info.baseline and name != f.model
    }


def _train(f: Forecaster, module: ForecastModule, ready: Prepared) -> dict[str, Any]:
    from pipelines.training.fitting import fit_module

    sets = ready.windows("train"), ready.windows("val")
    result = fit_module(f, module, squared_error, *sets, default_lr=model_info(f.model).learning_rate)
    summary = dataclasses.asdict(result)
    summary["windows"] = {"train": len(sets[0]), "val": len(sets[1])}
    return summary


def squared_error(model: torch.nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Sum of squared errors over the measured values of a batch, and their number."""
    error = model(batch["x"], batch["x_mark"], batch["y_mark"], batch["past"]) - batch["y"]
    observed = batch["observed"]
    return torch.where(observed, error, 0.0).square().sum(), observed.sum()


def restore(f: Forecaster, tensors: dict[str, Tensor], config: dict[str, Any]) -> Fitted:
    """Rebuild the fitted state from stored tensors and configuration."""
    from pipelines.official import check_shapes

    sizes = dict(config["sizes"])
    # Not the horizon of the arguments: a model may be asked for more steps than it was trained for, and saved again.
    stored_horizon = int(config["trained_horizon"])
    module = build_model(
        f.model, context=f.context, horizon=stored_horizon, attention=f.attention, arch=f.arch, **sizes
    )
    state = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    check_shapes(module, state, name=f.model)
    module.load_state_dict(state)
    return Fitted(
        f.model,
        module.to(_device(f)).eval(),
        stats=config["preprocessing"],
        sizes=sizes,
        train_end=config["train_end"],
        radii=tensors.get("interval.radii"),
        levels=list(config["levels"]),
        training=config["training"],
        origin="a saved model",
    )


def from_official(f: Forecaster, path: Path) -> Fitted:
    """Open an official checkpoint with what shapes cannot tell from the forecaster's options."""
    from pipelines.official import load_official

    try:
        module = load_official(f.model, path, **_official_keywords(f))
    except WeightsError as error:
        if error.where not in _OURS:
            raise
        name = _OURS[error.where]
        raise WeightsError(
            f"the checkpoint was made with another {name}",
            where=path,
            found=f"{name} {error.found}",
            expected=f"{name} {error.expected}",
            cure=f"--{name} {error.expected}",
        ) from None
    return Fitted(f.model, None, official=module, origin=f"official checkpoint {path.name}")


def _official_keywords(f: Forecaster) -> dict[str, Any]:
    """The official code's argument names for what the user said, defaults where the code needs a value."""
    chosen = architecture(f.model, f.arch)
    given = {k: v for k, v in dataclasses.asdict(f.arch or ArchOptions()).items() if v is not None}
    words: dict[str, Any] = {"seq_len": f.context, "pred_len": f.horizon}
    if f.model == "autoformer":
        label = chosen["label_len"] if chosen["label_len"] is not None else f.context // 2
        words |= {"label_len": label, "n_heads": chosen["n_heads"], "factor": chosen["factor"]}
        words |= {"moving_avg": chosen["moving_avg"]}
        words |= {k: given[k] for k in ("d_model", "e_layers", "d_layers", "d_ff", "dropout") if k in given}
    elif f.model == "dlinear":
        words |= {"moving_avg": chosen["moving_avg"]} if "moving_avg" in given else {}
    if "individual" in given:
        words["individual"] = given["individual"]
    return words


def batches(windows: ForecastWindows, size: int = 256, only: Sequence[int] | None = None) -> Iterator[Batch]:
    """The windows in order, a batch at a time."""
    order = range(len(windows)) if only is None else only
    for start in range(0, len(order), size):
        yield windows.batch([int(i) for i in order[start : start + size]])


@torch.no_grad()
def roll(module: ForecastModule, batch: Batch, horizon: int) -> Tensor:
    """Forecast any number of steps: beyond the trained horizon the model reads its own forecasts.

    Args:
        module: a model in eval mode.
        batch: x (B, L, C), x_mark (B, L, F), y_mark (B, horizon, F), past (B, L, P).
        horizon: steps ahead. Past covariates are carried forward where the model reads its own forecasts.

    Returns:
        (B, horizon, C) on the CPU.
    """
    device = next(iter(module.parameters()), torch.empty(0)).device
    x, x_mark, marks, past = (batch[name].to(device) for name in ("x", "x_mark", "y_mark", "past"))
    length, step, parts = x.shape[1], module.horizon, []
    for start in range(0, horizon, step):
        ahead = marks[:, start : start + step]
        if ahead.shape[1] < step:  # the last stride is longer than needed: its surplus is cut off below
            ahead = torch.cat([ahead, ahead[:, -1:].expand(-1, step - ahead.shape[1], -1)], dim=1)
        y = module(x, x_mark, ahead, past)
        parts.append(y)
        x = torch.cat([x, y], dim=1)[:, -length:]
        x_mark = torch.cat([x_mark, ahead], dim=1)[:, -length:]
        past = torch.cat([past, past[:, -1:].expand(-1, step, -1)], dim=1)[:, -length:]
    return torch.cat(parts, dim=1)[:, :horizon].cpu()
