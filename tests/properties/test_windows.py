"""Windows over any table: no target row in two splits, every window a slice, the count a formula; files round-trip."""

from __future__ import annotations

import pathlib
import tempfile

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pipelines.data.datasets.forecasting import (
    ForecastWindows,
    PreparedSeries,
    Standardizer,
    StaticEncoder,
    segments,
    window_count,
)
from pipelines.data.errors import InputError
from pipelines.data.formats.table import read_table
from pipelines.data.formats.table_freq import canonical, next_stamps, recognise

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=4)


def _series(name: int, rows: int, past: int) -> PreparedSeries:
    target = torch.arange(rows * 2, dtype=torch.float32).reshape(rows, 2) + 1_000 * name
    time = pd.date_range("2024-01-01", periods=rows + 5, freq="h")
    marks = torch.arange((rows + 5) * 3, dtype=torch.float32).reshape(rows + 5, 3) - 500 * name
    return PreparedSeries(str(name), target, target % 3 > 0, torch.randn(rows, past), marks, time)


@QUICK
@given(LENGTHS, st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(0, 2), st.data())
def test_every_window_is_a_slice(
    rows: list[int], context: int, horizon: int, stride: int, past: int, data: st.DataObject
) -> None:
    series = [_series(name, count, past) for name, count in enumerate(rows)]
    ranges = [tuple(sorted((data.draw(st.integers(0, count)), count))) for count in rows]
    counts = [len(range(a, b - context - horizon + 1, stride)) for a, b in ranges]
    if not sum(counts):
        with pytest.raises(InputError, match="too few rows"):
            ForecastWindows(series, ranges, context, horizon, stride)
        return
    windows = ForecastWindows(series, ranges, context, horizon, stride)
    assert len(windows) == sum(counts) == sum(window_count(one, context, horizon, stride) for one in ranges)
    batch = windows.__getitems__(list(range(len(windows))))
    expected = [
        (name, first) for name, (a, b) in enumerate(ranges) for first in range(a, b - context - horizon + 1, stride)
    ]
    for row, (name, first) in enumerate(expected):
        one, start, stop = series[name], first + context, first + context + horizon
        assert (int(batch["series"][row]), int(batch["origin"][row])) == (name, start)
        assert torch.equal(batch["x"][row], one.target[first:start])
        assert torch.equal(batch["y"][row], one.target[start:stop])
        assert torch.equal(batch["observed"][row], one.observed[start:stop])
        assert torch.equal(batch["past"][row], one.past[first:start])
        assert torch.equal(batch["x_mark"][row], one.marks[first:start])
        assert torch.equal(batch["y_mark"][row], one.marks[start:stop])


@QUICK
@given(
    st.integers(10, 3_000),
    st.integers(1, 200),
    st.integers(1, 100),
    st.integers(1, 8),
    st.integers(1, 8),
    st.integers(1, 8),
)
def test_no_target_row_in_two_splits(rows: int, context: int, horizon: int, a: int, b: int, c: int) -> None:
    whole = a + b + c
    try:
        cut = segments(rows, f"ratio:{a / whole},{b / whole},{c / whole}", context, horizon)
    except InputError:
        assume(False)
        return
    targets = [range(start + context, stop) for start, stop in cut]
    sets = [set(part) for part in targets]
    assert not sets[0] & sets[1]
    assert not sets[1] & sets[2]
    assert sets[1] | sets[2] == set(range(cut.train[1], rows))
    assert cut.val[0] >= 0
    assert min(window_count(part, context, horizon) for part in cut) >= 1
    assert window_count(cut.test, context, horizon) == len(targets[2]) - horizon + 1


@QUICK
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40), st.integers(1, 3))
def test_scaling_round_trip(values: list[float], columns: int) -> None:
    rows = np.outer(np.asarray(values), np.arange(1, columns + 1))
    scaler = Standardizer().fit([rows[: len(rows) // 2 + 1], rows[len(rows) // 2 + 1 :]])
    again = Standardizer.from_state(scaler.state())
    np.testing.assert_array_equal(again.mean, scaler.mean)
    scaled = again.transform(rows)
    np.testing.assert_allclose(scaler.inverse(scaled), rows, rtol=1e-9, atol=1e-6)
    assert (scaler.scale > 0).all()


@QUICK
@given(
    st.sampled_from(["s", "15min", "h", "6h", "D", "B", "W-THU", "MS", "ME", "QS-FEB", "QE-DEC", "YS-JAN", "YE-JUN"]),
    st.integers(8, 50),
    st.data(),
)
def test_steps_are_found_again_with_gaps(freq: str, rows: int, data: st.DataObject) -> None:
    stamps = pd.date_range("2013-03-05", periods=rows, freq=freq)
    gap = data.draw(st.integers(1, rows - 5))
    assert recognise(stamps.delete(gap)) == canonical(freq)
    assert next_stamps(stamps[-2], canonical(freq), 1)[0] == stamps[-1]


@QUICK
@given(
    st.lists(st.one_of(st.none(), st.floats(-1e300, 1e300)), min_size=4, max_size=30),
    st.sampled_from([("csv", ","), ("csv", ";"), ("tsv", "\t"), ("parquet", "")]),
)
def test_tables_survive_files(values: list[float | None], kind: tuple[str, str]) -> None:
    column = np.asarray([np.nan if value is None else value for value in values])
    assume(np.isfinite(column).sum() > 1 and np.nanmax(column) != np.nanmin(column))
    frame = pd.DataFrame({"date": pd.date_range("2024-01-01", periods=len(column), freq="h").astype(str), "y": column})
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"t.{kind[0]}"
        if kind[0] == "parquet":
            frame.to_parquet(path)
        else:
            frame.to_csv(path, index=False, sep=kind[1])
        table = read_table(path)
    one = table.series[0]
    measured = np.isfinite(column)
    np.testing.assert_array_equal(one.observed[:, 0], measured)
    np.testing.assert_array_equal(one.target[measured, 0], column[measured])
    last = np.maximum.accumulate(np.where(measured, np.arange(len(column)), -1))
    filled = np.where(last >= 0, column[last], column[np.argmax(measured)])
    np.testing.assert_array_equal(one.target[:, 0], filled)


@QUICK
@given(st.lists(st.text(min_size=1), min_size=1, max_size=6), st.text())
def test_words_become_vectors(words: list[str], other: str) -> None:
    encoder = StaticEncoder(("w",)).fit([{"w": word} for word in words])
    again = StaticEncoder.from_state(encoder.state())
    for word in [*words, other]:
        vector = again.encode({"w": word})
        assert vector.sum() == (word in words)
        assert len(vector) == encoder.width == len(set(words))
