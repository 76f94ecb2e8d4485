"""Splits, scaling, calendar features and windows: the published numbers, no leak, exact slices, honest errors."""

from __future__ import annotations

import json
import pathlib
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from pipelines.data.catalog import read_named
from pipelines.data.datasets.forecasting import (
    CovariateScaler,
    ForecastWindows,
    Prepared,
    Standardizer,
    StaticEncoder,
    calendar_features,
    prepare,
    segments,
)
from pipelines.data.errors import InputError
from pipelines.data.formats.table import ColumnOptions, read_table
from pipelines.data.formats.table_types import SeriesTable


def _panel(rows: tuple[int, ...] = (80, 120), *, known: bool = True) -> SeriesTable:
    frames = []
    for number, count in enumerate(rows):
        noise = np.random.default_rng(number)
        frame = pd.DataFrame(
            {"ds": pd.date_range("2024-01-01", periods=count, freq="h"), "y": noise.normal(size=count) * 10**number}
        )
        frames.append(
            frame.assign(
                unique_id=f"s{number}", wind=noise.normal(size=count), flag=np.arange(count) % 2, kind=f"k{number}"
            )
        )
    names = ("flag",) if known else ()
    return read_table(
        pd.concat(frames), columns=ColumnOptions(known=names, static=("kind",), drop=() if known else ("flag",))
    )


# ---------------------------------------------------------------- the published protocol


def test_borders_of_ett() -> None:
    cut = segments(17_420, "ett-hour", 96, 96)
    assert cut == ((0, 8_640), (8_544, 11_520), (11_424, 14_400))
    assert segments(69_680, "ett-minute", 96, 96) == ((0, 34_560), (34_464, 46_080), (45_984, 57_600))


def test_borders_by_ratio() -> None:
    assert segments(7_588, "ratio:0.7,0.1,0.2", 96, 96) == ((0, 5_311), (5_215, 6_071), (5_975, 7_588))


@pytest.mark.parametrize(
    ("context", "horizon", "counts"),
    [
        (96, 96, (8_449, 2_785, 2_785)),
        (336, 96, (8_209, 2_785, 2_785)),
        (336, 192, (8_113, 2_689, 2_689)),
        (336, 336, (7_969, 2_545, 2_545)),
        (336, 720, (7_585, 2_161, 2_161)),
    ],
)
def test_window_counts_of_etth1(etth1: pathlib.Path, context: int, horizon: int, counts: tuple[int, int, int]) -> None:
    ready = prepare(read_table(etth1), context=context, horizon=horizon, protocol="ett-hour")
    assert tuple(len(ready.windows(split)) for split in ("train", "val", "test")) == counts  # type: ignore[arg-type]


def test_scaling_of_etth1_is_that_of_the_training_rows(etth1: pathlib.Path) -> None:
    ready = prepare(read_table(etth1), context=96, horizon=96, protocol="ett-hour")
    train = pd.read_csv(etth1, index_col="date").to_numpy()[:8_640]
    np.testing.assert_allclose(ready.scalers[0].mean, train.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(ready.scalers[0].scale, train.std(axis=0), rtol=1e-12)
    batch = ready.windows("test")[[0]]
    assert batch["origin"].tolist() == [11_520]
    np.testing.assert_allclose(
        ready.inverse(batch["y"], batch["series"])[0, 0],
        pd.read_csv(etth1, index_col="date").to_numpy()[11_520],
        atol=1e-5,
    )


def test_repeating_the_last_value_has_the_known_error(etth1: pathlib.Path) -> None:
    """The data sheet gives MSE 1.294 and MAE .713 for 336 -> 96 over all 2,785 windows."""
    windows = prepare(read_table(etth1), context=336, horizon=96, protocol="ett-hour").windows("test")
    square = absolute = 0.0
    for start in range(0, len(windows), 500):
        batch = windows[range(start, min(start + 500, len(windows)))]
        error = batch["y"].double() - batch["x"][:, -1:].double()
        square, absolute = square + float(error.square().sum()), absolute + float(error.abs().sum())
    size = len(windows) * 96 * 7
    assert round(square / size, 3) == 1.294
    assert round(absolute / size, 3) == 0.713


@pytest.mark.parametrize(
    "text",
    [
        "ratio:0.7,0.2",
        "ratio:0.7,0.1,0.3",
        "ratio:1,0,0",
        "ratio:a,b,c",
        "ratio:-0.1,0.5,0.6",
        "etth",
        "ratio",
        "ratio:nan,nan,nan",
    ],
)
def test_bad_protocols(text: str) -> None:
    with pytest.raises(InputError, match="not a protocol"):
        segments(1_000, text, 10, 10)


def test_too_few_rows() -> None:
    with pytest.raises(InputError, match=r"too few rows for the protocol ett-hour"):
        segments(14_399, "ett-hour", 96, 96)
    with pytest.raises(InputError, match=r"too few rows.*context 96 \+ horizon 24"):
        segments(150, "ratio:0.7,0.1,0.2", 96, 24)
    with pytest.raises(InputError, match="horizon must be a positive"):
        segments(1_000, "ratio:0.7,0.1,0.2", 96, 0)
    with pytest.raises(InputError, match="series 's0'"):
        prepare(_panel(), context=60, horizon=10)


# ---------------------------------------------------------------- statistics


def test_statistics_ignore_filled_values() -> None:
    frame = pd.DataFrame({"date": pd.date_range("2024-01-01", periods=100, freq="h"), "y": np.arange(100.0)})
    frame.loc[10:29, "y"] = np.nan
    ready = prepare(read_table(frame), context=8, horizon=4)
    measured = np.r_[np.arange(10.0), np.arange(30.0, 70.0)]
    np.testing.assert_allclose(ready.scalers[0].mean, measured.mean())
    np.testing.assert_allclose(ready.scalers[0].scale, measured.std())


def test_later_rows_change_nothing_in_training() -> None:
    table = _panel((100,))
    frame = pd.DataFrame({"ds": table.series[0].time, "y": table.series[0].target[:, 0]})
    first = prepare(read_table(frame), context=8, horizon=4)
    frame.loc[70:, "y"] = 1e6 * np.arange(30)
    second = prepare(read_table(frame), context=8, horizon=4)
    assert first.state() == second.state()
    torch.testing.assert_close(first.windows("train")[range(20)]["y"], second.windows("train")[range(20)]["y"])


def test_a_still_column_is_not_blown_up() -> None:
    values = np.full((50, 1), 0.1)
    scaler = Standardizer().fit([values])
    assert scaler.scale.tolist() == [1.0]
    assert np.abs(scaler.transform(values)).max() < 1e-12


def test_flags_keep_their_values_and_damaged_statistics_are_refused() -> None:
    scaler = CovariateScaler().fit([np.array([[0.0, 5.0], [1.0, 7.0]])])
    assert scaler.transform(np.array([[1.0, 7.0]])).tolist() == [[1.0, 1.0]]
    assert isinstance(CovariateScaler.from_state(scaler.state()), CovariateScaler)
    for bad in (
        {},
        {"mean": [0.0], "scale": [0.0]},
        {"mean": [0.0], "scale": [1.0, 2.0]},
        {"mean": ["x"], "scale": [1.0]},
    ):
        with pytest.raises(InputError, match="stored scaling is damaged"):
            Standardizer.from_state(bad)  # type: ignore[arg-type]


def test_unknown_words_are_zeros_and_text_for_numbers_is_refused() -> None:
    encoder = StaticEncoder(("kind", "size")).fit([{"kind": "a", "size": 1.0}, {"kind": "b", "size": 3.0}])
    assert encoder.encode({"kind": "new", "size": 3.0}).tolist() == [0.0, 0.0, 1.0]
    assert encoder.unknown({"kind": "new", "size": 3.0}) == ["kind"]
    with pytest.raises(InputError, match="'size' holds text"):
        encoder.encode({"kind": "a", "size": "big"})


def test_state_survives_json_and_gives_the_same_values() -> None:
    table = _panel()
    first = prepare(table, context=12, horizon=4, scaling="series")
    second = prepare(table, context=12, horizon=4, fitted=json.loads(json.dumps(first.state())))
    for one, two in zip(first.series, second.series, strict=True):
        assert torch.equal(one.target, two.target)
        assert torch.equal(one.marks, two.marks)


def test_other_columns_or_steps_than_in_training() -> None:
    state = prepare(_panel(), context=12, horizon=4).state()
    with pytest.raises(InputError, match=r"known columns are not those of the model. Found: missing: flag"):
        prepare(_panel(known=False), context=12, horizon=4, fitted=state)
    daily = pd.DataFrame({"ds": pd.date_range("2024-01-01", periods=99, freq="D"), "y": np.arange(99.0)})
    hourly = daily.assign(ds=pd.date_range("2024-01-01", periods=99, freq="h"))
    with pytest.raises(InputError, match=r"Found: D. Expected: h"):
        prepare(
            read_table(daily), context=9, horizon=3, fitted=prepare(read_table(hourly), context=9, horizon=3).state()
        )


def test_one_scale_a_series_brings_all_to_the_same_size() -> None:
    ready = prepare(_panel(), context=12, horizon=4, scaling="series")
    assert [round(float(one.target[:50].std()), 0) for one in ready.series] == [1.0, 1.0]
    values = ready.windows("train")[[0, len(ready.windows("train")) - 1]]
    back = ready.inverse(values["y"], values["series"])
    table = _panel()
    for row, (which, origin) in enumerate(zip(values["series"].tolist(), values["origin"].tolist(), strict=True)):
        np.testing.assert_allclose(back[row], table.series[which].target[origin : origin + 4], rtol=1e-5, atol=1e-6)


def test_new_series_are_scaled_by_their_own_rows_and_said() -> None:
    state = prepare(_panel((80,)), context=12, horizon=4, scaling="series").state()
    ready = prepare(_panel((80, 120)), context=12, horizon=4, fitted=state)
    assert any("1 series that the model has not seen" in note for note in ready.notes)
    assert any("'k1' in the static column 'kind' is new" in note for note in ready.notes)


# ---------------------------------------------------------------- calendar


def test_hour_features_by_hand() -> None:
    found = calendar_features(pd.DatetimeIndex(["2016-07-01 00:00", "2016-12-31 23:00"]), "h")
    expected = [[-0.5, 4 / 6 - 0.5, -0.5, 182 / 365 - 0.5], [0.5, 5 / 6 - 0.5, 0.5, 365 / 365 - 0.5]]
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("freq", "width"),
    [("s", 6), ("15min", 5), ("h", 4), ("D", 3), ("B", 3), ("W-MON", 2), ("ME", 1), ("QS", 1), ("YE", 1)],
)
def test_widths_by_frequency(freq: str, width: int) -> None:
    found = calendar_features(pd.date_range("2020-01-01", periods=500 if freq != "YE" else 50, freq=freq), freq)
    assert found.shape[1] == width
    assert np.abs(found).max() <= 0.5 + 1e-6


def test_features_follow_the_local_clock() -> None:
    utc = pd.DatetimeIndex(["2024-06-01 22:00"], tz="UTC")
    assert calendar_features(utc.tz_convert("Europe/Berlin"), "h")[0, 0] == -0.5


# ---------------------------------------------------------------- windows


def _ready() -> Prepared:
    return prepare(_panel(), context=12, horizon=4)


def test_batches_through_a_loader_with_workers() -> None:
    windows = _ready().windows("train")
    loader = DataLoader(windows, batch_size=16, num_workers=1, collate_fn=ForecastWindows.collate, shuffle=False)
    seen = list(loader)
    assert sum(len(batch["origin"]) for batch in seen) == len(windows)
    assert torch.equal(torch.cat([batch["y"] for batch in seen]), windows[range(len(windows))]["y"])
    assert {name: tuple(value.shape) for name, value in seen[0].items()} == {
        "x": (16, 12, 1),
        "x_mark": (16, 12, 7),
        "y_mark": (16, 4, 7),
        "past": (16, 12, 1),
        "y": (16, 4, 1),
        "observed": (16, 4, 1),
        "series": (16,),
        "origin": (16,),
    }


def test_windows_take_no_memory_of_their_own() -> None:
    table = read_named("beijing_pm")
    few, many = (
        len(pickle.dumps(prepare(table, context=336, horizon=96).windows("train", stride=step))) for step in (1_000, 1)
    )
    assert many < few * 1.01


def test_single_window_and_negative_number() -> None:
    windows = _ready().windows("test")
    assert torch.equal(windows[-1]["y"], windows[len(windows) - 1]["y"])
    assert windows[0]["x"].shape == (12, 1)
    with pytest.raises(IndexError):
        windows[len(windows)]


def test_a_batch_may_be_changed_without_harm() -> None:
    windows = _ready().windows("train")
    before = windows[0]["x"].clone()
    windows[[0, 1]]["x"].fill_(7)
    assert torch.equal(windows[0]["x"], before)


def test_latest_reaches_beyond_the_rows() -> None:
    table = _panel()
    with pytest.raises(InputError, match=r"known columns end 0 steps after the last target.*append rows"):
        prepare(table, context=12, horizon=4, future=4)
    ready = prepare(table, context=12, horizon=4, protocol=None, future=4, future_known="last")
    batch = ready.latest()
    assert batch["y_mark"].shape == (2, 4, 7)
    assert batch["origin"].tolist() == [80, 120]
    assert sum("repeated for 4 steps" in note for note in ready.notes) == 2
    with pytest.raises(InputError, match="marks of series 's0' end 4 steps"):
        ready.latest(9)
    with pytest.raises(InputError, match="shorter than the context"):
        prepare(table.head(9), context=12, horizon=4, protocol=None).latest()


def test_the_given_future_is_used() -> None:
    frame = pd.DataFrame(
        {"ds": pd.date_range("2024-01-01", periods=60, freq="h"), "y": np.arange(60.0), "price": np.arange(60.0)}
    )
    frame.loc[50:, "y"] = np.nan
    ready = prepare(
        read_table(frame, columns=ColumnOptions(known=("price",))), context=8, horizon=4, protocol=None, future=10
    )
    price = ready.latest(10)["y_mark"][0, :, ready.calendar]
    assert torch.allclose(price.diff(), price.diff()[0])
    assert len(ready.series[0]) == 50
