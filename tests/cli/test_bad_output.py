"""Outputs that cannot be: refused before any work, with one message and exit code 2, and nothing written."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import pytest

SIZES = "--context 24 --horizon 8 --train.epochs 1"


def test_output_file_that_exists(refused: Any, command: Any, exchange: pathlib.Path, model: pathlib.Path) -> None:
    pathlib.Path("f.csv").write_text("mine\n")
    line = f"forecast predict {exchange} --checkpoint {model} -o f.csv --quiet"
    refused(line, "f.csv", "never overwritten silently", "Found: a file of 5 bytes", "--overwrite")
    assert command(f"{line} --overwrite").code == 0
    assert pathlib.Path("f.csv").read_text().startswith("unique_id,ds,dlinear,dlinear-lo-90,dlinear-hi-90\n")


def test_companion_that_exists(refused: Any, exchange: pathlib.Path, model: pathlib.Path) -> None:
    pathlib.Path("f.csv.report.html").write_text("mine\n")
    refused(f"forecast predict {exchange} --checkpoint {model} -o f.csv", "f.csv.report.html", "--overwrite")


def test_output_folder_that_exists(refused: Any, command: Any, exchange: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious.txt").write_text("mine\n")
    line = f"forecast fit --data {exchange} {SIZES} --quiet"
    for name in ("run", "run/"):
        refused(f"{line} -o {name}", "run", "never overwritten silently", "a folder with 1 entry", "--overwrite")
    assert command(f"{line} -o run --overwrite").code == 0
    first = (tmp_path / "run" / "training" / "training.pt").read_bytes()
    refused(f"{line} -o run", "never overwritten silently")
    assert command(f"{line} -o run --overwrite --seed 7").code == 0, "a finished run can be replaced"
    assert (tmp_path / "run" / "training" / "training.pt").read_bytes() != first
    assert (tmp_path / "run" / "precious.txt").read_text() == "mine\n"


def test_output_below_a_file(refused: Any, exchange: pathlib.Path, model: pathlib.Path) -> None:
    pathlib.Path("file").touch()
    line = f"forecast predict {exchange} --checkpoint {model}"
    refused(f"{line} -o file/f.csv", "a file stands where a folder is needed", "Cure:")


@pytest.mark.skipif(not pathlib.Path("/proc/self").exists(), reason="needs a folder that nobody may write to")
def test_output_that_cannot_be_written(refused: Any, exchange: pathlib.Path, model: pathlib.Path) -> None:
    refused(f"forecast predict {exchange} --checkpoint {model} -o /proc/nosuch/f.csv", "/proc", "writing", "Cure:")
    refused(f"forecast fit --data {exchange} {SIZES} -o /proc/nosuch/", "/proc", "writing", "Cure:")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_working_folder_that_cannot_be_written(refused: Any, exchange: pathlib.Path, tmp_path: pathlib.Path) -> None:
    tmp_path.chmod(0o500)
    try:
        refused(f"forecast fit --data {exchange} {SIZES}", "writing", "-o")
    finally:
        tmp_path.chmod(0o700)


def test_output_in_a_new_folder_is_made(command: Any, exchange: pathlib.Path, model: pathlib.Path) -> None:
    done = command(f"forecast predict {exchange} --checkpoint {model} -o new/deep/f.csv --quiet")
    assert done.code == 0, done.err
    assert pathlib.Path("new/deep/f.csv").is_file()


@pytest.mark.parametrize(
    ("verb", "name", "expected"),
    [
        ("predict", "f.xlsx", ".csv, .parquet, .json"),
        ("evaluate --data", "f.csv", ".json"),
        ("backtest --data", "f.txt", ".csv, .parquet, .json"),
    ],
)
def test_output_of_an_unknown_kind(
    refused: Any, exchange: pathlib.Path, model: pathlib.Path, verb: str, name: str, expected: str
) -> None:
    line = f"forecast {verb} {exchange} --checkpoint {model} -o {name}"
    refused(line, name, "kind of file", f"Expected: {expected}", "Cure:")


def test_several_inputs_into_one_file(refused: Any, exchange: pathlib.Path, model: pathlib.Path) -> None:
    refused(f"forecast predict {exchange} {exchange} --checkpoint {model} -o f.csv", "f.csv", "slash")


def test_export_refusals(refused: Any, model: pathlib.Path) -> None:
    refused(f"forecast export --checkpoint {model} --format caffe", "format", "Found: caffe", "Expected: pt2 or onnx")
    refused(f"forecast export --checkpoint {model} -o m.onnx", "m.onnx", "Cure:")
    pathlib.Path("m.pt2").touch()
    refused(f"forecast export --checkpoint {model} -o m.pt2", "m.pt2", "never overwritten silently", "--overwrite")


def test_interruption_before_training_leaves_nothing(
    refused: Any, exchange: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while the table is read."""

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.forecast.pipeline.Forecaster.read", stop)
    message = refused(f"forecast fit --data {exchange} {SIZES}", "interrupted", code=130)
    assert "--resume" not in message, "there is nothing to resume"
    refused(f"forecast fit --data {exchange} {SIZES} -o new/", "interrupted", code=130)
