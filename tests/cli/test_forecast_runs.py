"""Whole runs that the issue of a user would start with: honest coverage, official checkpoints, static columns."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pandas as pd
import pytest
import torch

from pipelines import Forecaster, load_official
from pipelines.cli import main
from pipelines.data.catalog import read_named
from pipelines.forecast.models.linear import DLinear


def test_intervals_cover_what_they_say_on_real_data() -> None:
    """The 90 % interval of an embedded set covers 88 to 92 % over windows, steps and series; plain split does not."""
    table = read_named("exchange")
    model = Forecaster(context=96, horizon=24, train={"epochs": 3, "batch_size": 128}).fit(table)
    figures = model.evaluate(table).to_dict()
    assert figures["windows"] == 1429
    assert 0.88 <= figures["coverage_90"] <= 0.92
    assert figures["details"]["split_conformal"]["coverage"] < figures["coverage_90"]
    assert figures["width_90"] > 0
    assert figures["crps"] > 0


def test_an_official_checkpoint_through_the_command_line(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save(DLinear(48, 12).state_dict(), "official.pth")
    sizes = ["--checkpoint", "official.pth", "--model", "dlinear", "--context", "48", "--horizon", "12", "--quiet"]
    assert main(["forecast", "evaluate", "--data", "exchange", *sizes, "--json", "-o", "run/"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert any("holds no scaling" in note for note in figures["notes"])
    inner = load_official("dlinear", "official.pth", seq_len=48, label_len=24, pred_len=12)
    assert main(["forecast", "predict", "exchange", *sizes, "-o", "f.csv"]) == 0
    table = read_named("exchange").series[0].target
    mean, scale = table.mean(axis=0), table.std(axis=0)
    window = torch.from_numpy(((table[-48:] - mean) / scale).astype(np.float32))[None]
    expected = inner(window)[0].detach().double().numpy() * scale + mean
    got = pd.read_csv("f.csv")["dlinear"].to_numpy().reshape(14, 12).T
    # The filled holidays are not part of the scale, so it differs a little from that of all rows.
    np.testing.assert_allclose(got, expected, rtol=5e-3, atol=0.05 * scale.max())


def test_static_columns_and_known_future(tmp_path: pathlib.Path) -> None:
    """A long table with a static word and a known-future column, whose future rows have no target."""
    one = read_named("vic_elec").series[0]
    frames = []
    for name, kind, start in (("north", "city", 0), ("south", "land", 900)):
        rows = slice(start, start + 700)
        frame = pd.DataFrame({"unique_id": name, "ds": one.time[:700], "y": one.target[rows, 0]})
        frames.append(frame.assign(holiday=one.known[rows, 0], kind=kind))
    table = pd.concat(frames, ignore_index=True)
    table["holiday"] = (np.arange(len(table)) // 48 % 7 == 0).astype(float)  # the real column is constant here
    table.loc[table.groupby("unique_id").tail(12).index, "y"] = np.nan
    columns = {"known": ("holiday",), "static": ("kind",)}
    model = Forecaster(context=48, horizon=12, columns=columns, train={"epochs": 1}).fit(table)
    frame = model.predict(table).frame
    assert frame["unique_id"].tolist() == ["north"] * 12 + ["south"] * 12
    assert frame["ds"].iloc[0] == one.time[688]
    again = Forecaster.load(model.save(tmp_path / "model")).predict(table).frame
    pd.testing.assert_frame_equal(again, frame)


def test_a_model_asked_for_more_steps_can_be_saved_again(tmp_path: pathlib.Path) -> None:
    table = read_named("exchange").slice(0, 700)
    first = Forecaster(context=48, horizon=12, train={"epochs": 1}).fit(table).save(tmp_path / "first")
    longer = Forecaster.load(first, horizon=30)
    expected = longer.predict(table).frame
    assert len(expected) == 14 * 30
    again = Forecaster.load(longer.save(tmp_path / "again"))
    pd.testing.assert_frame_equal(again.predict(table).frame, expected)


def test_intervals_of_few_windows_are_finite_and_use_only_what_was_known(tmp_path: pathlib.Path) -> None:
    """With fewer held-out windows than the horizon no early step may be calibrated by a truth of later."""
    table = read_named("exchange").slice(0, 700)
    model = Forecaster(context=48, horizon=24, train={"epochs": 1}, protocol="ratio:0.9,0.05,0.05").fit(table)
    frame = model.predict(table).frame
    assert np.isfinite(frame["dlinear-lo-90"]).all()
    assert (frame["dlinear-hi-90"] > frame["dlinear-lo-90"]).all()
