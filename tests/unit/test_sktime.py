"""The sktime estimators: sktime's own checks whole, and what those do not look at."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sktime.utils.estimator_checks import check_estimator, parametrize_with_checks

from pipelines.data.catalog import read_named
from pipelines.errors import ConfigError, InputError, Interrupted
from pipelines.forecast.pipeline import Forecaster
from pipelines.forecast.sktime import AutoformerForecaster, LTSFLinearForecaster
from pipelines.forecast.sktime_rows import plan
from pipelines.training.options import TrainOptions

BOTH = [LTSFLinearForecaster, AutoformerForecaster]
TINY = {"d_model": 8, "n_heads": 2, "d_ff": 8, "e_layers": 1, "moving_avg": 3}


def small(cls: type, **params: Any) -> Any:
    return cls(**{"context": 8, "epochs": 1, "max_steps": 3, **(TINY if cls is AutoformerForecaster else {}), **params})


def series(rows: int = 60, freq: str = "D") -> pd.Series:
    values = np.random.default_rng(0).normal(size=rows)
    return pd.Series(values, index=pd.date_range("2024-01-01", periods=rows, freq=freq), name="y")


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@parametrize_with_checks(BOTH, obj_varname="estimator")
def test_sktime_check(estimator: type, test_name: str) -> None:
    results = check_estimator(estimator, tests_to_run=test_name, raise_exceptions=False, verbose=False)
    assert {check: error for check, error in results.items() if error != "PASSED"} == {}


@pytest.mark.parametrize("cls", BOTH)
def test_no_check_is_left_out(cls: type) -> None:
    assert not [name for name in cls.get_class_tags() if name.startswith("tests:skip") and cls.get_class_tag(name)]
    for tag in ("capability:multivariate", "capability:exogenous", "capability:missing_values", "capability:pred_int"):
        assert cls.get_class_tag(tag) is True


def test_import_loads_no_lightning() -> None:
    code = "import sys, pipelines.forecast.sktime; sys.exit(any(m.split('.')[0] == 'lightning' for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture(scope="module")
def exchange() -> Any:
    return read_named("exchange").slice(0, 1000)


@pytest.mark.parametrize(
    ("cls", "params", "arch"),
    [
        (LTSFLinearForecaster, {"model": "dlinear"}, {"moving_avg": 25}),
        (AutoformerForecaster, TINY, TINY),
    ],
)
def test_equals_the_pipeline(exchange: Any, cls: type, params: dict[str, Any], arch: dict[str, Any]) -> None:
    """Same rows to train and to validate, same seed, same settings: the same weights and the same forecast."""
    name = "dlinear" if cls is LTSFLinearForecaster else "autoformer"
    recipe = TrainOptions(epochs=2, max_steps=30)
    pipeline = Forecaster(model=name, context=48, horizon=12, arch=arch, train=recipe, device="cpu")  # type: ignore[arg-type]
    pipeline.fit(exchange)
    known = exchange.slice(0, 800)
    expected = pipeline.predict(known)

    one = known.series[0]
    y = pd.DataFrame(np.where(one.observed, one.target, np.nan), index=one.time, columns=list(known.targets))
    y = y.asfreq(known.freq)
    forecaster = cls(context=48, validation=0.125, epochs=2, max_steps=30, **params).fit(y, fh=np.arange(1, 13))
    y_pred = forecaster.predict()

    weights = pipeline.state.module.state_dict()
    for key, value in forecaster.module_.state_dict().items():
        assert torch.equal(value, weights[key]), key
    for part in expected.series:
        np.testing.assert_allclose(y_pred[part.variable], part.mean, rtol=1e-12)
    assert list(y_pred.index) == list(expected.series[0].mean.index)


def test_beats_the_seasonal_naive_on_real_demand() -> None:
    from sktime.forecasting.naive import NaiveForecaster

    table = read_named("demo").slice(0, 48 * 90)
    one = table.series[0]
    y = pd.Series(one.target[:, 0], index=one.time, name=table.targets[0])
    y.index = y.index.tz_localize(None) if y.index.tz is None else y.index.tz_convert("UTC").tz_localize(None)
    y, fh = y.asfreq("30min"), np.arange(1, 49)
    forecaster = LTSFLinearForecaster(context=336).fit(y[: 48 * 76], fh=fh)
    naive = NaiveForecaster("last", sp=48).fit(y[: 48 * 76], fh=fh)
    ours, theirs, inside = [], [], []
    for day in range(76, 89):
        truth = y[48 * day : 48 * (day + 1)]
        ours.append(np.abs(forecaster.predict() - truth).mean())
        theirs.append(np.abs(naive.predict() - truth).mean())
        band = forecaster.predict_interval(coverage=0.9)[y.name][0.9]
        inside.append(((band["lower"] <= truth) & (truth <= band["upper"])).mean())
        forecaster.update(truth, update_params=False)
        naive.update(truth, update_params=False)
    assert np.mean(ours) < np.mean(theirs)
    assert 0.75 < np.mean(inside) < 0.99


@pytest.mark.parametrize("cls", BOTH)
def test_seed_decides(cls: type) -> None:
    y, before = series(), torch.get_rng_state()
    first, again = (small(cls).fit(y, fh=[1, 2]).predict() for _ in range(2))
    other = small(cls, seed=5).fit(y, fh=[1, 2]).predict()
    pd.testing.assert_series_equal(first, again)
    assert not np.allclose(first, other)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("cls", BOTH)
def test_pickle_keeps_forecast_and_intervals(cls: type) -> None:
    fitted = small(cls).fit(series(), fh=[1, 5])
    twin = pickle.loads(pickle.dumps(fitted))
    pd.testing.assert_series_equal(twin.predict(), fitted.predict())
    pd.testing.assert_frame_equal(twin.predict_interval(), fitted.predict_interval())


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("rows", [2, 3, 7, 20])
def test_short_series_shrink_the_sizes_and_say_so(cls: type, rows: int) -> None:
    forecaster = small(cls, context=300)
    with pytest.warns(UserWarning, match=f"{rows} rows are few: the context is"):
        forecaster.fit(pd.Series(np.arange(float(rows))), fh=[1, 4])
    assert 1 <= forecaster.context_ < rows
    assert np.isfinite(forecaster.predict()).all()
    assert np.isfinite(forecaster.predict_interval()).all(axis=None)
    assert any("context" in note for note in forecaster.notes_)


def test_one_row_is_refused() -> None:
    with pytest.raises(InputError, match="too few rows"):
        LTSFLinearForecaster().fit(pd.Series([1.0]), fh=1)


@pytest.mark.parametrize("cls", BOTH)
def test_forecast_beyond_the_trained_horizon_goes_on_from_itself(cls: type) -> None:
    y = series()
    forecaster = small(cls, horizon=3).fit(y)
    near, far = forecaster.predict(fh=[1, 2, 3]), forecaster.predict(fh=np.arange(1, 11))
    np.testing.assert_allclose(far[:3], near)
    own = small(cls, horizon=3).fit(y)
    own.update(near, update_params=False)
    np.testing.assert_allclose(own.predict(fh=[1, 2, 3]), far[3:6], rtol=1e-5)
    gap = forecaster.predict(fh=[2, 7])
    np.testing.assert_allclose(gap, far.iloc[[1, 6]])


def test_missing_values_are_filled_counted_and_no_targets() -> None:
    y = series()
    y.iloc[0] = y.iloc[10:13] = np.nan
    with pytest.warns(UserWarning, match="3 empty values filled with the last value before them"):
        forecaster = small(LTSFLinearForecaster).fit(y, fh=[1, 2])
    assert any("1 empty values before a column's first one" in note for note in forecaster.notes_)
    filled = small(LTSFLinearForecaster).fit(y.ffill().bfill(), fh=[1, 2])
    # Taken for measured, the same filled values change statistics and loss.
    assert not np.allclose(forecaster.predict(), filled.predict())


def test_missing_steps_are_inserted_and_counted() -> None:
    y = series().drop(series().index[[20, 21]])
    forecaster = small(LTSFLinearForecaster).fit(y, fh=[1, 2])
    assert "2 missing steps inserted" in forecaster.notes_
    assert list(forecaster.predict().index) == [pd.Timestamp("2024-03-01"), pd.Timestamp("2024-03-02")]
    as_nan = small(LTSFLinearForecaster).fit(y.asfreq("D"), fh=[1, 2])
    np.testing.assert_array_equal(forecaster.predict(), as_nan.predict())
    numbers = small(LTSFLinearForecaster).fit(pd.Series(np.arange(30.0)).drop([11]), fh=[1])
    assert "1 missing steps inserted" in numbers.notes_
    assert numbers.predict().index[0] == 30


def test_covariates_of_the_future_are_used() -> None:
    y, rng = series(400), np.random.default_rng(1)
    flag = pd.DataFrame({"holiday": (rng.random(410) < 0.3).astype(float)})
    flag.index = pd.date_range(y.index[0], periods=410, freq="D")
    y = y + 10 * flag["holiday"][:400]
    forecaster = LTSFLinearForecaster("linear", context=14, batch_size=4, learning_rate=0.02).fit(
        y, flag, fh=np.arange(1, 11)
    )
    future = flag[400:]
    y_pred = forecaster.predict(X=future)
    assert np.corrcoef(y_pred, future["holiday"])[0, 1] > 0.9
    other = forecaster.predict(X=1 - future)
    assert np.corrcoef(other, future["holiday"])[0, 1] < -0.9


def test_covariates_must_be_those_of_fit() -> None:
    y = series()
    x = pd.DataFrame({"a": np.arange(60.0), "b": 1.0}, index=y.index)
    forecaster = small(LTSFLinearForecaster).fit(y, X=x, fh=[1])
    with pytest.raises(InputError, match=r"X of predict.*no X.*Cure"):
        forecaster.predict()
    later = pd.DataFrame({"a": [60.0]}, index=y.index[-1:] + pd.Timedelta(days=1))
    with pytest.raises(InputError, match="without b"):
        forecaster.predict(X=later)
    with pytest.warns(UserWarning, match="X of predict: 1 empty values filled"):
        forecaster.predict(X=later.assign(b=np.nan))


def test_update_looks_back_on_new_rows_or_learns_from_them() -> None:
    y = series(100)
    forecaster = small(LTSFLinearForecaster).fit(y[:80], fh=[1])
    weights = {name: value.clone() for name, value in forecaster.module_.state_dict().items()}
    before = forecaster.predict()
    forecaster.update(y[80:], update_params=False)
    after = forecaster.predict()
    assert after.index[0] == y.index[-1] + pd.Timedelta(days=1)
    assert not np.allclose(before, after)
    assert all(torch.equal(value, weights[name]) for name, value in forecaster.module_.state_dict().items())
    forecaster.update(y[90:], update_params=True)
    np.testing.assert_allclose(forecaster.predict(), small(LTSFLinearForecaster).fit(y, fh=[1]).predict())


def test_update_with_older_rows_sets_the_present_back() -> None:
    y = series(100)
    forecaster = small(LTSFLinearForecaster).fit(y[:80], fh=[1])
    expected = forecaster.predict()
    forecaster.update(y[80:], update_params=False).update(y[60:80], update_params=False)
    pd.testing.assert_series_equal(forecaster.predict(), expected)


def test_intervals_are_nested_and_measured_on_held_out_rows() -> None:
    forecaster = small(LTSFLinearForecaster).fit(series(400), fh=[1, 2, 3])
    band = forecaster.predict_interval(coverage=[0.5, 0.9])["y"]
    np.testing.assert_array_equal(forecaster.predict_quantiles(alpha=[0.5])["y"][0.5], forecaster.predict())
    assert (band[0.9]["lower"] < band[0.5]["lower"]).all()
    assert (band[0.5]["upper"] < band[0.9]["upper"]).all()
    # White noise of deviation 1: the 90 % interval of an honest forecast is about 3.3 wide.
    assert ((band[0.9]["upper"] - band[0.9]["lower"]).between(2.5, 5.0)).all()
    with pytest.warns(UserWarning, match="held-out windows can vouch for intervals up to"):
        small(LTSFLinearForecaster).fit(series(30), fh=[1]).predict_interval(coverage=0.95)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"model": "dlinaer"}, "unknown model"),
        ({"context": 0}, "context: must be at least 1 row"),
        ({"horizon": 0}, "horizon: must be at least 1 row"),
        ({"validation": 1.0}, "validation"),
        ({"moving_avg": 4}, "moving_avg"),
        ({"epochs": 0}, "epochs"),
    ],
)
def test_settings_that_cannot_be(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(LTSFLinearForecaster, **params).fit(series(), fh=[1])


def test_values_and_stamps_that_cannot_be() -> None:
    y = series()
    y.iloc[3] = np.inf
    with pytest.raises(InputError, match=r"infinite values.*2024-01-04"):
        small(LTSFLinearForecaster).fit(y, fh=[1])
    stamps = pd.DatetimeIndex(["2024-01-01", "2024-01-02 03:00:01", "2024-01-07 04:01:00", "2024-02-01 00:00:07"])
    with pytest.raises(InputError, match="no regular grid"):
        small(LTSFLinearForecaster).fit(pd.Series(np.arange(4.0), index=stamps), fh=[1])


def test_an_interrupted_fit_says_that_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise Interrupted("stopped", 2)

    monkeypatch.setattr("pipelines.training.loop.train", stopped)
    with pytest.raises(Interrupted, match="call fit again"):
        small(LTSFLinearForecaster).fit(series(), fh=[1])


def test_tuning_over_cross_validation_works() -> None:
    from sktime.forecasting.model_selection import ForecastingGridSearchCV
    from sktime.split import ExpandingWindowSplitter

    splits = ExpandingWindowSplitter(fh=[1, 2], initial_window=40, step_length=10)
    grid = {"context": np.array([4, 6]), "batch_size": np.array([8, 16]), "seed": np.array([1])}
    search = ForecastingGridSearchCV(small(LTSFLinearForecaster), splits, grid).fit(series(), fh=[1, 2])
    assert search.best_params_["context"] in (4, 6)
    assert np.isfinite(search.predict()).all()


def test_plan_keeps_every_row_and_every_size_possible() -> None:
    for rows in range(2, 200):
        for context, horizon, share in ((1, 1, 0.2), (8, 3, 0.0), (336, 96, 0.2), (5, 200, 0.5), (50, 1, 0.9)):
            sizes = plan(rows, context, horizon, share)
            assert sizes.train + sizes.val == rows
            assert 1 <= sizes.context <= context
            assert 1 <= sizes.horizon <= horizon
            assert sizes.train >= sizes.context + sizes.horizon
            assert sizes.val == 0 or sizes.val >= sizes.horizon
