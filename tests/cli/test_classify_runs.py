"""``pipelines classify`` from end to end: what it writes, what it says, and what it refuses."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pytest

SIZES = "--arch.d_model 16 --arch.d_ff 16 --arch.layers 1 --train.epochs 2 --quiet"


@pytest.fixture
def table(tmp_path: pathlib.Path) -> pathlib.Path:
    """A long table of two classes, three subjects, unequal lengths."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(18):
        for step in range(int(rng.integers(14, 24))):
            value = np.sin(step * (0.4, 1.5)[i % 2]) + 0.1 * rng.normal()
            rows.append({"id": f"r{i}", "subject": f"p{i // 2 % 3}", "t": step, "label": "ab"[i % 2], "x": value})
    file = tmp_path / "long.csv"
    pd.DataFrame(rows).to_csv(file, index=False)
    return file


def test_evaluate_prints_what_the_field_reads(command: Any) -> None:
    done = command(f"classify evaluate --data BasicMotions {SIZES} --json --output run")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["n"] == 40
    assert 0 <= said["accuracy"] <= 1
    assert said["protocol"].startswith("official split")
    assert said["baselines"]["minirocket"]["accuracy"] == 1.0
    assert np.sum(said["details"]["confusion"]) == 40
    page = pathlib.Path("run/report.html").read_text()
    assert "Confusion" in page
    assert "minirocket" in page


def test_a_table_is_fitted_kept_and_used(command: Any, table: pathlib.Path) -> None:
    done = command(f"classify fit --data {table} --protocol folds:3 {SIZES} --output model")
    assert done.code == 0, done.err
    assert "no group in two" in done.out.replace("\n", " ") or "3 folds" in done.out.replace("\n", " ")
    done = command(f"classify predict {table} --checkpoint model --quiet --output labels.csv")
    assert done.code == 0, done.err
    frame = pd.read_csv("labels.csv")
    assert frame.columns.tolist() == ["id", "label", "p(a)", "p(b)", "set"]
    assert len(frame) == 18
    assert frame["p(a)"].to_numpy() + frame["p(b)"].to_numpy() == pytest.approx(np.ones(18))
    done = command("classify export --checkpoint model --format pt2 --output model.pt2")
    assert done.code == 0, done.err


def test_mistakes_are_said_in_one_line(command: Any, table: pathlib.Path) -> None:
    for line, words in (
        ("classify evaluate --data BasicMotion", "did you mean"),
        (f"classify fit --data {table} --columns.label nothing", "nothing"),
        (f"classify fit --data {table} --model vsfromer", "did you mean vsformer"),
        (f"classify evaluate --data {table} --protocol folds:9 {SIZES}", "folds"),
        (f"classify predict {table} --checkpoint nowhere.pth", "nowhere.pth"),
    ):
        done = command(line)
        assert done.code == 2, (line, done.err)
        assert words in done.err
        assert "Traceback" not in done.err
