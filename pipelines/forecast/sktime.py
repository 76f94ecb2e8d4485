"""sktime estimators of Autoformer and of the LTSF-Linear family.

Papers: Wu, Xu, Wang and Long, "Autoformer: Decomposition Transformers with Auto-Correlation for Long-Term Series
Forecasting" (2021, arXiv 2106.13008); Zeng, Chen, Zhang and Xu, "Are Transformers Effective for Time Series
Forecasting?" (2023, arXiv 2205.13504).

Both work in sktime's pipelines, ensembles, tuning and evaluation. Panels and hierarchies are fitted a model a series by
sktime. Models, training and intervals are those of `pipelines forecast`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pipelines.forecast.options import ArchOptions
from pipelines.forecast.sktime_base import NeuralForecaster

__all__ = ["AutoformerForecaster", "LTSFLinearForecaster"]


class LTSFLinearForecaster(NeuralForecaster):
    """Forecast with DLinear, NLinear or Linear: one linear map from the context to the horizon.

    Values are standardised by the training rows. The last rows validate: training stops early by them, and their errors
    give the intervals (split conformal; measured coverage holds where the future resembles them). Covariates in X are
    known-future ones: a regression on them is taken off the context and added to the horizon. A series that is too
    short for `context` and `horizon` is learnt with smaller ones, which is warned of; a forecast beyond the horizon
    reads the model's own forecasts. Missing values and steps take the last value before them, are counted in a warning,
    and are no targets of the training.

    Parameters
    ----------
    model : str, default="dlinear"
        "dlinear" (trend and rest apart), "nlinear" (the window less its last value) or "linear".
    context : int, default=336
        Rows that a forecast looks back on.
    horizon : int, optional
        Rows ahead that the model learns; by default the largest step of fit's fh, or 24 without one.
    individual : bool, default=False
        One set of weights for each variable instead of one for all.
    moving_avg : int, default=25
        Rows of the moving average that separates the trend, odd; read by dlinear only.
    calendar : bool, default=False
        Take calendar features in as known covariates (not in the papers); none with whole-number indices.
    epochs : int, default=10
        Passes over the training rows at most.
    max_steps : int, default=0
        Optimizer steps at most; 0 goes by epochs alone.
    batch_size : int, default=32
        Windows in a step.
    learning_rate : float, optional
        Step size of Adam, halved each epoch from the third on; by default 0.005.
    patience : int, default=3
        Stop after so many epochs without a better validation loss; 0 never stops early.
    validation : float, default=0.2
        Share of the rows, the last ones, that validate.
    seed : int, default=2021
        Of weights and order; the same seed gives the same forecast.
    device : str, default="cpu"
        "cpu", "cuda", "cuda:N", "mps" or "auto".

    Attributes
    ----------
    context_, horizon_ : int
        Sizes that the series had the rows for.
    notes_ : tuple of str
        What was done to the data, counted.
    training_ : dict
        Epochs, steps, losses.
    module_ : torch.nn.Module
        The fitted model.

    References
    ----------
    .. [1] Zeng, A., Chen, M., Zhang, L., Xu, Q. (2023). Are Transformers Effective for Time Series Forecasting?
       AAAI 2023. arXiv 2205.13504.

    Notes
    -----
    Time O(epochs * T * context * horizon) to fit, for T rows; weights context * horizon (twice for dlinear).

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from pipelines.forecast.sktime import LTSFLinearForecaster
    >>> forecaster = LTSFLinearForecaster("nlinear", context=24, epochs=2)
    >>> y_pred = forecaster.fit(load_airline(), fh=[1, 2, 12]).predict()
    >>> [str(month) for month in y_pred.index]
    ['1961-01', '1961-02', '1961-12']
    """

    def __init__(
        self,
        model: str = "dlinear",
        context: int = 336,
        horizon: int | None = None,
        individual: bool = False,
        moving_avg: int = 25,
        calendar: bool = False,
        epochs: int = 10,
        max_steps: int = 0,
        batch_size: int = 32,
        learning_rate: float | None = None,
        patience: int = 3,
        validation: float = 0.2,
        seed: int = 2021,
        device: str = "cpu",
    ) -> None:
        self.model = model
        self.context = context
        self.horizon = horizon
        self.individual = individual
        self.moving_avg = moving_avg
        self.calendar = calendar
        self.epochs = epochs
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.patience = patience
        self.validation = validation
        self.seed = seed
        self.device = device
        super().__init__()

    def _model(self) -> str:
        from pipelines.errors import ConfigError

        if self.model not in ("dlinear", "nlinear", "linear"):
            raise ConfigError("unknown model", where="model", found=self.model, expected="dlinear, nlinear or linear")
        return self.model

    def _arch(self, context: int, notes: list[str]) -> ArchOptions:
        average = self.moving_avg if self.model == "dlinear" else None
        return ArchOptions(individual=self.individual, moving_avg=average, calendar=self.calendar)

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Two small settings for sktime's checks.

        Parameters
        ----------
        parameter_set : str, default="default"
            There is one set of settings only.
        """
        shared = {"epochs": 1, "max_steps": 2}
        return [
            {"model": "dlinear", "context": 6, "moving_avg": 3, **shared},
            {"model": "nlinear", "context": 4, "horizon": 2, "individual": True, "calendar": True, **shared},
        ]


class AutoformerForecaster(NeuralForecaster):
    """Forecast with Autoformer, whose layers split off the trend and mix rows by auto-correlation.

    Values are standardised by the training rows. The last rows validate: training stops early by them, and their errors
    give the intervals (split conformal; measured coverage holds where the future resembles them). Covariates in X are
    known-future ones and enter, with calendar features, as time features. A series that is too short for `context` and
    `horizon` is learnt with smaller ones, which is warned of; a forecast beyond the horizon reads the model's own
    forecasts. Missing values and steps take the last value before them, are counted in a warning, and are no targets of
    the training.

    Parameters
    ----------
    context : int, default=96
        Rows that a forecast looks back on.
    horizon : int, optional
        Rows ahead that the model learns; by default the largest step of fit's fh, or 24 without one.
    label_len : int, optional
        Context rows repeated in front of the decoder; by default half the context.
    d_model : int, default=512
        Width.
    n_heads : int, default=8
        Heads of each mixer; divides d_model.
    e_layers : int, default=2
        Encoder layers.
    d_layers : int, default=1
        Decoder layers.
    d_ff : int, default=2048
        Width of the feed-forward part.
    factor : float, default=3.0
        factor * ln(rows) lags are aggregated.
    moving_avg : int, default=25
        Rows of the moving average that separates the trend, odd.
    dropout : float, default=0.05
        Probability of dropping an activation in training.
    attention : str, optional
        Another mechanism than auto_correlation that mixes.
    epochs : int, default=10
        Passes over the training rows at most.
    max_steps : int, default=0
        Optimizer steps at most; 0 goes by epochs alone.
    batch_size : int, default=32
        Windows in a step.
    learning_rate : float, optional
        Step size of Adam, halved each epoch from the third on; by default 0.0001.
    patience : int, default=3
        Stop after so many epochs without a better validation loss; 0 never stops early.
    validation : float, default=0.2
        Share of the rows, the last ones, that validate.
    seed : int, default=2021
        Of weights, order and dropout; the same seed gives the same forecast.
    device : str, default="cpu"
        "cpu", "cuda", "cuda:N", "mps" or "auto".

    Attributes
    ----------
    context_, horizon_ : int
        Sizes that the series had the rows for.
    notes_ : tuple of str
        What was done to the data, counted.
    training_ : dict
        Epochs, steps, losses.
    module_ : torch.nn.Module
        The fitted model.

    References
    ----------
    .. [1] Wu, H., Xu, J., Wang, J., Long, M. (2021). Autoformer: Decomposition Transformers with Auto-Correlation for
       Long-Term Series Forecasting. NeurIPS 2021. arXiv 2106.13008.

    Notes
    -----
    Time O(L log L) a layer and window, for L = context + horizon rows.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from pipelines.forecast.sktime import AutoformerForecaster
    >>> forecaster = AutoformerForecaster(context=24, d_model=16, n_heads=2, d_ff=32, epochs=1, max_steps=2)
    >>> y_pred = forecaster.fit(load_airline(), fh=[1, 2, 12]).predict()
    >>> [str(month) for month in y_pred.index]
    ['1961-01', '1961-02', '1961-12']
    """

    _mixes_steps: ClassVar[bool] = True

    def __init__(
        self,
        context: int = 96,
        horizon: int | None = None,
        label_len: int | None = None,
        d_model: int = 512,
        n_heads: int = 8,
        e_layers: int = 2,
        d_layers: int = 1,
        d_ff: int = 2048,
        factor: float = 3.0,
        moving_avg: int = 25,
        dropout: float = 0.05,
        attention: str | None = None,
        epochs: int = 10,
        max_steps: int = 0,
        batch_size: int = 32,
        learning_rate: float | None = None,
        patience: int = 3,
        validation: float = 0.2,
        seed: int = 2021,
        device: str = "cpu",
    ) -> None:
        self.context = context
        self.horizon = horizon
        self.label_len = label_len
        self.d_model = d_model
        self.n_heads = n_heads
        self.e_layers = e_layers
        self.d_layers = d_layers
        self.d_ff = d_ff
        self.factor = factor
        self.moving_avg = moving_avg
        self.dropout = dropout
        self.attention = attention
        self.epochs = epochs
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.patience = patience
        self.validation = validation
        self.seed = seed
        self.device = device
        super().__init__()

    def _model(self) -> str:
        return "autoformer"

    def _attention(self) -> str | None:
        return self.attention

    def _arch(self, context: int, notes: list[str]) -> ArchOptions:
        label = self.label_len
        if label is not None and label > context and context < self.context:
            label = context // 2
            notes.append(f"the shorter context takes {label} label rows instead of {self.label_len}")
        return ArchOptions(
            d_model=self.d_model,
            n_heads=self.n_heads,
            e_layers=self.e_layers,
            d_layers=self.d_layers,
            d_ff=self.d_ff,
            factor=float(self.factor),
            moving_avg=self.moving_avg,
            label_len=label,
            dropout=self.dropout,
        )

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Two small settings for sktime's checks.

        Parameters
        ----------
        parameter_set : str, default="default"
            There is one set of settings only.
        """
        shared = {"d_model": 4, "n_heads": 2, "d_ff": 4, "e_layers": 1, "moving_avg": 3, "epochs": 1, "max_steps": 1}
        return [
            {"context": 6, **shared},
            {"context": 4, "horizon": 2, "label_len": 3, "factor": 1.0, "dropout": 0.0, **shared},
        ]
