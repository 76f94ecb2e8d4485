"""The public class of forecasting: a table goes in, forecasts with intervals and honest figures come out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pipelines.base import Evaluation
from pipelines.data.formats.table_options import ColumnOptions
from pipelines.errors import ConfigError
from pipelines.fitted import FittedPipeline
from pipelines.forecast.options import MODELS, ArchOptions, model_info
from pipelines.model_list import check_attention
from pipelines.training.options import TrainOptions
from pipelines.values import as_options

if TYPE_CHECKING:
    from pipelines.data.formats.table_types import SeriesTable
    from pipelines.forecast.backtest import Backtest
    from pipelines.forecast.engine import Fitted  # noqa: F401 - the parameter of the base class
    from pipelines.forecast.result import Forecast


class Forecaster(FittedPipeline["Fitted"]):
    """Forecast one or many time series from a table, with intervals whose coverage is measured.

    Args:
        model: dlinear, nlinear, linear, autoformer, transformer, or a rule: seasonal_naive, drift, repeat_last.
        context: rows that a forecast looks back on.
        horizon: rows that it looks ahead.
        attention: mechanism of a model with a mixer (autoformer, transformer); default the model's own.
        protocol: how rows are divided in time: ett-hour, ett-minute, or ratio:TRAIN,VALIDATION,TEST.
        interval: probability of the intervals.
        columns: which column of the table plays which part (a ColumnOptions, or a dict of its fields).
        freq: step of the rows as a pandas alias (h, 15min, D, W, MS); default recognised.
        resample: bring irregular rows to this step by averaging.
        on_duplicate: several rows with one time stamp: stop, or keep the first, the last or the mean.
        missing: fill gaps with the last value seen, by interpolation (which looks ahead), or stop.
        arch: size and shape of the model (an ArchOptions, or a dict of its fields).
        train: how the model is fitted (a TrainOptions, or a dict of its fields).
        device: auto, cpu, cuda, cuda:N or mps.
        precision: 32-true, bf16-mixed, 16-mixed or 64-true.
        seed: of weights, order and dropout.
        threads: CPU threads; default what torch takes.

    Raises:
        ConfigError: in ``fit``, for a model, protocol or option that does not exist.

    Example:
        >>> Forecaster(model="nlinear", context=48, horizon=12).horizon
        12
    """

    domain: ClassVar[str] = "forecast"
    engine: ClassVar[str] = "pipelines.forecast.engine"
    summary: ClassVar[str] = "Forecast time series from a table (CSV, Parquet): point forecasts, intervals, figures."
    verbs: ClassVar[Mapping[str, str]] = {"backtest": "backtest"}
    endings: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "predict": (".csv", ".parquet", ".json"),
        "backtest": (".csv", ".parquet", ".json"),
    }
    call_time: ClassVar[frozenset[str]] = frozenset(
        {"horizon", "protocol", "interval", "columns", "freq", "resample", "on_duplicate", "missing", "train"}
    )

    def __init__(
        self,
        *,
        model: str = "dlinear",
        context: int = 336,
        horizon: int = 96,
        attention: str | None = None,
        protocol: str = "ratio:0.7,0.1,0.2",
        interval: float = 0.9,
        columns: ColumnOptions = ColumnOptions(),  # noqa: B008 - frozen
        freq: str | None = None,
        resample: str | None = None,
        on_duplicate: Literal["error", "first", "last", "mean"] = "error",
        missing: Literal["ffill", "interpolate", "error"] = "ffill",
        arch: ArchOptions = ArchOptions(),  # noqa: B008 - frozen
        train: TrainOptions = TrainOptions(),  # noqa: B008 - frozen
        device: str = "auto",
        precision: str = "32-true",
        seed: int = 2021,
        threads: int | None = None,
    ) -> None:
        self.model = model
        self.context = context
        self.horizon = horizon
        self.attention = attention
        self.protocol = protocol
        self.interval = interval
        self.columns = as_options(ColumnOptions, columns, "columns")
        self.freq = freq
        self.resample = resample
        self.on_duplicate: Literal["error", "first", "last", "mean"] = on_duplicate
        self.missing: Literal["ffill", "interpolate", "error"] = missing
        self.arch = as_options(ArchOptions, arch, "arch")
        self.train = as_options(TrainOptions, train, "train")
        self.device = device
        self.precision = precision
        self.seed = seed
        self.threads = threads

    # Public methods check and explain ---------------------------------------------------------------------------

    def fit(self, data: Any) -> Self:
        """Learn on the training rows of a table, stopping early by its validation rows.

        Args:
            data: a path, a name of an embedded set (``pipelines list``), a pandas frame, or an sktime container.

        Raises:
            InputError: a table that cannot be used as it is.
            ConfigError: an option that does not exist or does not fit the table.
        """
        from pipelines.forecast import engine

        self._check()
        self.start_torch()
        self._state = engine.fit(self, self.read(data))
        self._fitted = True
        return self

    def predict(self, inputs: Any, *, horizon: int | None = None) -> Forecast:
        """Forecast the rows after the last one of a table.

        Args:
            inputs: as for :meth:`fit`; at least ``context`` rows a series. Where the model has known-future columns,
                rows with empty targets hold their future.
            horizon: rows ahead; beyond the trained horizon the model is applied to its own forecasts.
        """
        from pipelines.forecast.predict import predict

        self.require_fitted("predict")
        self._check()
        self.start_torch()
        return predict(self, self.read(inputs, flat="keep"), self.horizon if horizon is None else horizon)

    def evaluate(self, data: Any) -> Evaluation:
        """Measure on the test rows of a table: every window, beside the baselines.

        Args:
            data: as for :meth:`fit`.
        """
        from pipelines.forecast.evaluation import evaluate

        self.require_fitted("evaluate")
        self._check()
        self.start_torch()
        return evaluate(self, self.read(data))

    def backtest(self, data: Any, *, origins: int = 5, step: int | None = None, refit: bool = False) -> Backtest:
        """Forecast from several past origins and compare with what came true.

        Args:
            data: as for :meth:`fit`.
            origins: how many.
            step: rows between origins; default the horizon.
            refit: fit anew on the rows before every origin instead of once before the first.
        """
        from pipelines.forecast.backtest import backtest

        self._check()
        self.start_torch()
        return backtest(self, self.read(data), origins=origins, step=step, refit=refit)

    # The model is fitted on the rows before the first origin, never on those that it is judged by.
    backtest.fits_itself = True  # type: ignore[attr-defined]

    def demo(self) -> tuple[Evaluation, Forecast]:
        """Fit, evaluate and forecast the embedded half-hourly electricity demand of Victoria."""
        from pipelines.forecast.predict import predict_known

        table = self.read("demo")
        self.run.say(f"{table.source}: {table.rows:,} rows, {', '.join(table.targets)} every {table.freq}")
        if not self.is_fitted:
            self.fit(table)
        return self.evaluate(table), predict_known(self, table, self.horizon)

    @classmethod
    def from_official(cls, path: str | Path, **params: Any) -> Self:
        """Wrap an official checkpoint of Autoformer, Linear, NLinear or DLinear.

        What shapes cannot tell comes from the arguments: ``context`` (seq_len), ``horizon`` (pred_len) and ``arch``
        (label_len, n_heads, factor, moving_avg, individual). Official files hold no scaling: the statistics are taken
        from the training rows of the data that it is used on, and the results say so.
        """
        from pipelines.forecast import engine

        pipeline = cls(**params)
        pipeline._check()
        pipeline.start_torch()
        pipeline._state = engine.from_official(pipeline, Path(path))
        pipeline._fitted = True
        return pipeline

    @classmethod
    def check_kit(cls) -> dict[str, Any]:
        """A short run on a part of an embedded set."""
        from pipelines.data.catalog import read_named

        table = read_named("exchange").slice(0, 900)
        params = {"context": 48, "horizon": 12, "train": TrainOptions(epochs=1)}
        return {"params": params, "data": table, "inputs": table}

    # Private twins compute --------------------------------------------------------------------------------------

    def read(self, data: Any, *, flat: Literal["error", "keep"] = "error") -> SeriesTable:
        """The table behind a path, a catalogue name, a frame or an sktime container, by this forecaster's options.

        Args:
            data: what the public methods take.
            flat: what to do with a column that never changes: nothing can be learned from it, but a short history to
                forecast from may well be flat.
        """
        from pipelines.data.catalog import is_name, read_named
        from pipelines.data.formats.table import read_table
        from pipelines.data.formats.table_types import SeriesTable

        if isinstance(data, SeriesTable):
            return data
        options = {
            "freq": self.freq,
            "resample": self.resample,
            "on_duplicate": self.on_duplicate,
            "missing": self.missing,
            "constant": flat,
        }
        # A bare word that is no file was meant as a name: the catalogue suggests the nearest.
        bare = isinstance(data, str) and data.isidentifier() and not Path(data).exists()
        if bare or is_name(data, self.domain):
            return read_named(data, domain=self.domain, columns=self.columns, **options)
        return read_table(data, columns=self.columns, **options)

    def _check(self) -> None:
        model_info(self.model)
        for name in ("context", "horizon"):
            if getattr(self, name) < 1:
                raise ConfigError("must be at least 1 row", where=name, found=getattr(self, name), expected="1 or more")
        if not 0.0 < self.interval < 1.0:
            raise ConfigError("must lie between 0 and 1", where="interval", found=self.interval, expected="0.9")
        check_attention(MODELS, self.model, self.attention)
        self.train.validate()
