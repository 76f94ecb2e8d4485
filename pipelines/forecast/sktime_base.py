"""The part that the sktime estimators share: sktime's contract on one side, our models and training on the other."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sktime.forecasting.base import BaseForecaster
from sktime.utils.warnings import warn

from pipelines.errors import ConfigError, InputError, Interrupted
from pipelines.evaluation.conformal import SplitConformal
from pipelines.forecast import sktime_rows as table
from pipelines.forecast.engine import Fitted, roll, squared_error
from pipelines.forecast.intervals import one_series, scores_of
from pipelines.forecast.models.adapter import ForecastModule, build_model
from pipelines.forecast.options import ArchOptions, model_info
from pipelines.training.options import TrainOptions

__all__ = ["NeuralForecaster"]

Floats = NDArray[np.float64]

#: Rows ahead that a model learns where neither `horizon` nor fit's `fh` says how many.
DEFAULT_HORIZON = 24
#: Held-out windows that an interval is measured on at most, thinned out evenly.
MOST_WINDOWS = 256


@dataclasses.dataclass(frozen=True, eq=False)
class _State:
    """What fitting leaves: the model, its scale, its sizes, and all rows seen so far."""

    module: ForecastModule
    scaling: table.Scaling
    sizes: table.Plan
    rows: table.Rows
    asked: int


class NeuralForecaster(BaseForecaster):
    """A forecasting model of this library behind sktime's interface.

    Subclasses give `_model` (its name) and `_arch` (its sizes); every constructor argument is only stored.

    Attributes after fit: `context_`, `horizon_` (the sizes that the series had the rows for), `notes_` (everything that
    was done to the data, counted; each is also a warning), `training_` (epochs, steps, losses), `module_` (the model).
    """

    _tags: ClassVar[dict[str, Any]] = {
        "authors": ["attention-pipelines"],
        "maintainers": ["attention-pipelines"],
        "python_dependencies": ["torch", "lightning"],
        "y_inner_mtype": "pd.DataFrame",
        "X_inner_mtype": "pd.DataFrame",
        "capability:multivariate": True,
        "capability:exogenous": True,
        "capability:categorical_in_X": False,
        "capability:missing_values": True,
        "capability:non_contiguous_X": True,
        "capability:update": True,
        "capability:insample": False,
        "capability:pred_int": True,
        "capability:pred_int:insample": False,
        "requires-fh-in-fit": False,
        "X-y-must-have-same-index": True,
        "property:randomness": "deterministic",
    }
    # All rows are kept here already, on their grid: the base class need not keep them again.
    _config: ClassVar[dict[str, Any]] = {"remember_data": False}

    #: Whether the forecast of a step depends on covariates of other steps.
    _mixes_steps: ClassVar[bool] = False

    context: int
    horizon: int | None
    epochs: int
    max_steps: int
    batch_size: int
    learning_rate: float | None
    patience: int
    validation: float
    seed: int
    device: str

    def __init__(self) -> None:
        super().__init__()
        self._y = self._X = None

    # What a subclass says ---------------------------------------------------------------------------------------

    def _model(self) -> str:
        """Name of the model."""
        raise NotImplementedError

    def _arch(self, context: int, notes: list[str]) -> ArchOptions:
        """Sizes of the model for the context that a series has the rows for."""
        raise NotImplementedError

    def _attention(self) -> str | None:
        """Mechanism of the mixer."""
        return None

    # sktime's private methods -----------------------------------------------------------------------------------

    def _fit(self, y: pd.DataFrame, X: pd.DataFrame | None = None, fh: Any = None) -> Self:
        notes: list[str] = []
        rows = table.read(y, X, notes)
        self._give_step(rows)
        asked = self.horizon
        if asked is None:
            asked = DEFAULT_HORIZON if fh is None else int(np.max(self._steps(fh)))
        self._learn(rows, asked, notes)
        return self

    def _predict(self, fh: Any, X: pd.DataFrame | None = None) -> pd.DataFrame:
        values = self._ahead(fh, X)
        return pd.DataFrame(values, index=fh.to_absolute_index(self.cutoff), columns=list(self._learnt.rows.names))

    def _update(self, y: pd.DataFrame, X: pd.DataFrame | None = None, update_params: bool = True) -> Self:
        """Take newer rows in; with `update_params` fit anew on all rows, else only look back on them."""
        state, notes = self._learnt, []
        rows = table.join(state.rows, y, X, notes)
        self._give_step(rows)
        if update_params:
            self._learn(rows, state.asked, notes)
        else:
            self._learnt = dataclasses.replace(state, rows=rows)
            table.filled(rows.y, rows.names, "y", notes)
            table.filled(rows.x, rows.covariates, "X", notes)
            self._tell(notes)
        return self

    def _predict_interval(self, fh: Any, X: pd.DataFrame | None, coverage: list[float]) -> pd.DataFrame:
        middle = self._ahead(fh, X)
        steps = self._steps(fh)
        spread = self._learnt.scaling.target.scale
        names = self._get_varnames()
        columns = pd.MultiIndex.from_product([names, coverage, ["lower", "upper"]])
        out = pd.DataFrame(index=fh.to_absolute_index(self.cutoff), columns=columns, dtype=np.float64)
        radii = self._radii(coverage, int(steps.max()))
        for level, radius in zip(coverage, radii, strict=True):
            for c, name in enumerate(names):
                reach = radius[steps - 1, c] * spread[c]
                out[(name, level, "lower")] = middle[:, c] - reach
                out[(name, level, "upper")] = middle[:, c] + reach
        return out

    # Learning ---------------------------------------------------------------------------------------------------

    @property
    def module_(self) -> ForecastModule:
        """The fitted model, in eval mode; it reads and writes standardised values."""
        return self._learnt.module

    def _give_step(self, rows: table.Rows) -> None:
        """Tell sktime the step of stamps with gaps, from which it cannot tell by itself where a step ahead is."""
        if isinstance(self.cutoff, pd.DatetimeIndex) and self.cutoff.freq is None and rows.step is not None:
            self._set_cutoff(pd.DatetimeIndex(self.cutoff, freq=rows.step))

    def _steps(self, fh: Any) -> NDArray[np.int64]:
        return np.asarray(fh.to_relative(self.cutoff).to_pandas(), dtype=np.int64)

    def _learn(self, rows: table.Rows, asked: int, notes: list[str]) -> None:
        """Fit on all rows but the last ones, which validate, and keep what was learnt."""
        sizes = table.plan(len(rows), _plain(self.context), _plain(asked), self.validation)
        sizes = self._judged(rows, sizes)
        if sizes.context < self.context:
            notes.append(f"{len(rows)} rows are few: the context is {sizes.context} rows instead of {self.context}")
        if sizes.horizon < asked:
            notes.append(
                f"{len(rows)} rows are few: the model learns {sizes.horizon} steps ahead instead of {asked} "
                "and reads its own forecasts beyond"
            )
        scaling = table.Scaling.of(rows, sizes.train)
        ready = table.prepared(rows, scaling, sizes, notes)
        module = self._new(ready, notes)
        self.training_ = self._train(module, ready, sizes)
        self._learnt = _State(module, scaling, sizes, rows, asked)
        self.context_, self.horizon_ = sizes.context, sizes.horizon
        self._tell(notes)

    @staticmethod
    def _judged(rows: table.Rows, sizes: table.Plan) -> table.Plan:
        """Without one measured value among the rows that validate, they train as well."""
        if sizes.val and np.isnan(rows.y[sizes.train :]).all():
            return dataclasses.replace(sizes, train=sizes.train + sizes.val, val=0)
        return sizes

    def _new(self, ready: Any, notes: list[str]) -> ForecastModule:
        from pipelines.training.randomness import isolated

        with isolated():
            torch.manual_seed(_plain(self.seed))
            return build_model(
                self._model(),
                context=ready.context,
                horizon=ready.horizon,
                attention=self._attention(),
                arch=self._arch(ready.context, notes),
                **ready.sizes,
            )

    def _train(self, module: ForecastModule, ready: Any, sizes: table.Plan) -> dict[str, Any]:
        from pipelines.training.loop import train

        options = TrainOptions(
            epochs=_plain(self.epochs),
            batch_size=_plain(self.batch_size),
            learning_rate=_plain(self.learning_rate),
            patience=_plain(self.patience),
            max_steps=_plain(self.max_steps),
        )
        with tempfile.TemporaryDirectory() as scratch:
            try:
                result = train(
                    module,
                    squared_error,
                    ready.windows("train"),
                    ready.windows("val") if sizes.val else None,
                    options,
                    folder=scratch,
                    seed=_plain(self.seed),
                    device=self.device,
                    default_lr=model_info(self._model()).learning_rate,
                )
            except Interrupted as stop:
                raise Interrupted(
                    f"{type(self).__name__}.fit was stopped; nothing of it is kept. Cure: call fit again.", stop.signum
                ) from stop
        module.eval()
        return dataclasses.asdict(result)

    # Forecasting ------------------------------------------------------------------------------------------------

    def _ahead(self, fh: Any, x: pd.DataFrame | None) -> Floats:
        """(len(fh), C) forecasts in the units of y."""
        state, steps, notes = self._learnt, self._steps(fh), []
        rows, count = self._present(), int(steps.max())
        # Models that mix the steps of a horizon read all of it, whichever steps are asked for.
        reach = -(-count // state.sizes.horizon) * state.sizes.horizon
        known = self._known(rows, x, count, reach, notes)
        ready = table.prepared(rows, state.scaling, state.sizes, [], known, reach)
        scaled = roll(state.module, ready.latest(reach), reach).numpy().astype(np.float64)
        self._warn(notes)
        return ready.inverse(scaled, 0)[0][steps - 1]

    def _present(self) -> table.Rows:
        """The rows up to the cutoff, which sktime sets back when it is updated with older rows."""
        rows = self._learnt.rows.until(self.cutoff[0])
        if len(rows) < self._learnt.sizes.context:
            raise InputError(
                "too few rows before the cutoff",
                where="y",
                found=f"{len(rows)} rows up to {self.cutoff[0]}",
                expected=f"the context of {self._learnt.sizes.context}",
                cure="update with later rows",
            )
        return rows

    def _known(
        self, rows: table.Rows, x: pd.DataFrame | None, count: int, reach: int, notes: list[str]
    ) -> Floats | None:
        """(reach, K) covariates of the steps ahead; what X leaves out takes the last value before it."""
        if not rows.covariates:
            if x is not None:
                notes.append("X is not used: fit had none")
            return None
        given = table.matching(x, rows.covariates, "predict").reindex(rows.ahead(reach))
        before = table.filled(rows.x, rows.covariates, "X", [])[-1:]
        whole = np.concatenate([before, given.to_numpy(dtype=np.float64, na_value=np.nan)])
        table.filled(whole[: count + 1], rows.covariates, "X of predict", notes)
        if self._mixes_steps and np.isnan(whole[count + 1 :]).any():
            notes.append(f"X ends before the {reach} steps that the model reads: its last values are repeated")
        return table.filled(whole, rows.covariates, "X of predict", [])[1:]

    # Intervals --------------------------------------------------------------------------------------------------

    def _radii(self, levels: list[float], horizon: int) -> Floats:
        """(K, horizon, C) split-conformal radii in scaled units, from windows that the model was not fitted on."""
        notes: list[str] = []
        scores = self._scores(horizon, notes)
        measured = scores.shape[1]
        if measured < horizon:
            notes.append(f"errors were measured up to step {measured}; beyond, radii grow as the root of time")
        growth = np.sqrt(np.maximum(1.0, np.arange(1, horizon + 1) / measured))[:, None]
        steps = np.minimum(np.arange(horizon), measured - 1)
        radii = np.stack([_radius(scores, level)[steps] * growth for level in levels])
        reachable = len(scores) / (len(scores) + 1)
        if max(levels) > reachable:
            notes.append(
                f"{len(scores)} held-out windows can vouch for intervals up to {100 * reachable:.0f} % only: "
                "wider ones are extrapolated"
            )
        self._warn(notes)
        return radii

    def _scores(self, horizon: int, notes: list[str]) -> Floats:
        """(N, H', C) absolute errors over the held-out rows.

        H' is the horizon or, where that is less, half of these rows: a single window would tell little of its steps.
        """
        state, present = self._learnt, self._present()
        ready = table.prepared(present, state.scaling, state.sizes, [])
        total, start = len(present), state.sizes.train
        if start >= total:
            notes.append("no row was held out: intervals come from training rows and are too narrow")
            start = state.sizes.context
        steps = min(horizon, max(1, (total - start) // 2))
        rows = (max(0, start - state.sizes.context), total)
        windows = one_series(ready, 0, rows, steps, MOST_WINDOWS)
        if windows is None:
            raise ConfigError("too few rows for intervals", where="predict_interval", found=total, cure="more rows")
        return scores_of(Fitted(self._model(), state.module), windows).absolute

    def _tell(self, notes: list[str]) -> None:
        self.notes_ = tuple(dict.fromkeys(notes))
        self._warn(notes)

    def _warn(self, notes: list[str]) -> None:
        for note in dict.fromkeys(notes):
            warn(f"{type(self).__name__}: {note}", obj=self)


def _plain(value: Any) -> Any:
    """A Python number: tuning in sktime draws NumPy's."""
    return value.item() if isinstance(value, np.generic) else value


def _radius(scores: Floats, level: float) -> Floats:
    """(H, C) radii of one level; where a step was never measured, the widest of its channel, else of all."""
    if level <= 0.0:
        return np.zeros(scores.shape[1:])
    radius = SplitConformal([level]).fit(scores).radius(level)
    for c in range(radius.shape[1]):
        column = radius[:, c]
        if np.isnan(column).any():
            rest = column if np.isfinite(column).any() else radius
            radius[:, c] = np.where(np.isnan(column), np.nanmax(rest) if np.isfinite(rest).any() else math.inf, column)
    return radius
