"""The grammar of the command line: help without torch, configuration, outputs, JSON, and every verb."""

from __future__ import annotations

import json
import pathlib
import resource
import subprocess
import sys
from typing import Any

import pandas as pd
import pytest

HEAVY = ("torch", "pandas", "lightning", "matplotlib")
SIZES = "--context 24 --horizon 8 --train.epochs 1 --quiet"

#: Commands that must answer without the heavy packages.
LIGHT = [
    ["--help"],
    ["--version"],
    ["forecast", "--help"],
    *([["forecast", verb, "--help"] for verb in ("demo", "fit", "predict", "evaluate", "export", "backtest")]),
    ["classify", "--help"],
    *([["classify", verb, "--help"] for verb in ("demo", "fit", "predict", "evaluate", "export", "stream")]),
    ["superres", "--help"],
    *([["superres", verb, "--help"] for verb in ("demo", "fit", "predict", "evaluate", "export")]),
    ["denoise", "--help"],
    *([["denoise", verb, "--help"] for verb in ("demo", "fit", "predict", "evaluate", "export", "noise")]),
    ["transcribe", "--help"],
    *([["transcribe", verb, "--help"] for verb in ("demo", "fit", "predict", "evaluate", "export", "align", "stream")]),
    ["match", "--help"],
    *(
        [
            ["match", verb, "--help"]
            for verb in ("demo", "fit", "predict", "search", "score", "encode", "evaluate", "export")
        ]
    ),
    ["pose", "--help"],
    *([["pose", verb, "--help"] for verb in ("demo", "fit", "predict", "convert", "stream", "evaluate", "export")]),
    ["world", "--help"],
    *([["world", verb, "--help"] for verb in ("demo", "fit", "predict", "play", "plan", "evaluate", "export")]),
    ["fmri", "--help"],
    *([["fmri", verb, "--help"] for verb in ("demo", "fit", "predict", "encode", "explain", "evaluate", "export")]),
    *([[name, "--help"] for name in ("list", "papers", "mechanisms", "bench", "doctor")]),
    ["list", "--json"],
]

PROBE = """
import sys, contextlib, io
words = {words!r}
import pipelines
if words:
    from pipelines.cli import main
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            main(words)
        except SystemExit:
            pass
    assert len(out.getvalue()) > 5, "nothing was said"
loaded = [name for name in {heavy!r} if name in sys.modules]
assert not loaded, loaded
"""


def cpu_seconds(words: list[str], probe: str = PROBE) -> float:
    """Seconds of CPU that a fresh interpreter takes, beside the checks of the probe."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    probe = probe.format(words=words, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("words", [[], *LIGHT], ids=lambda words: " ".join(words) or "import")
def test_light_commands_load_nothing_heavy_and_are_quick(words: list[str]) -> None:
    measured = cpu_seconds(words)
    for _ in range(4):  # other processes may have the caches, and a busy core counts more seconds for the same work
        if measured < 0.5:
            break
        measured = min(measured, cpu_seconds(words))
    else:
        parser = min(cpu_seconds([], "import jsonargparse") for _ in range(3))
        assert measured < 3 * parser, "three times what importing the parser's library takes just now"


def test_the_installed_command_answers() -> None:
    script = pathlib.Path(sys.executable).with_name("pipelines")
    if not script.exists():
        pytest.skip("the package is not installed beside this interpreter")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("attention-pipelines ")


def test_help_names_every_option_with_its_meaning(command: Any) -> None:
    done = command("forecast fit --help")
    assert done.code == 0
    for option in (
        "--context",
        "--train.epochs",
        "--arch.d_model",
        "--columns.known",
        "--resume",
        "--output",
        "--json",
    ):
        assert option in done.out
    assert "rows that a forecast looks back on" in done.out


def test_a_closed_pipe_is_no_error() -> None:
    """`pipelines forecast fit --help | head` must not end in a traceback."""
    probe = [sys.executable, "-m", "pipelines", "forecast", "fit", "--help"]
    with subprocess.Popen(probe, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
    assert "Traceback" not in errors


# Configuration ----------------------------------------------------------------------------------------------------


def test_print_config_can_be_read_back(command: Any, exchange: pathlib.Path) -> None:
    shown = command(f"forecast fit --data {exchange} --context 24 --train.epochs 3 --print_config")
    assert shown.code == 0
    pathlib.Path("run.yaml").write_text(shown.out)
    again = command("forecast fit --config run.yaml --print_config")
    assert again.out == shown.out
    assert "context: 24" in again.out
    flags_win = command("forecast fit --config run.yaml --context 36 --print_config")
    assert "context: 36" in flags_win.out
    assert "epochs: 3" in flags_win.out


def test_dashes_are_underscores_and_lists_take_commas(command: Any, exchange: pathlib.Path) -> None:
    words = "--on-duplicate mean --columns.target USD,JPY --train.batch-size=16 --print_config"
    one = command(f"forecast fit --data {exchange} {words}")
    words = """--on_duplicate=mean --columns.target='["USD","JPY"]' --train.batch_size 16 --print_config"""
    two = command(f"forecast fit --data={exchange} {words}")
    assert one.code == 0, one.err
    assert one.out == two.out
    assert "on_duplicate: mean" in one.out
    assert "batch_size: 16" in one.out


def test_the_saved_configuration_repeats_the_run(command: Any, exchange: pathlib.Path) -> None:
    first = command(
        f"forecast evaluate --data {exchange} {SIZES} --model transformer --arch.d-model 8 --arch.n-heads 2"
        " --seed 5 --train.learning-rate 0.003 -o first/ --json"
    )
    assert first.code == 0, first.err
    again = command("forecast evaluate --config first/config.yaml -o again/")
    assert again.code == 0, again.err
    one, two = (json.loads(pathlib.Path(name, "evaluation.json").read_text()) for name in ("first", "again"))
    for name in ("mse", "mae", "mase", "crps", "windows", "protocol", "model", "horizons", "baselines"):
        assert one[name] == two[name], name
    assert pathlib.Path("first/config.yaml").read_text() == pathlib.Path("again/config.yaml").read_text()


def test_the_configuration_of_a_prediction_repeats_it(
    command: Any, exchange: pathlib.Path, model: pathlib.Path
) -> None:
    """What was not said must not contradict the checkpoint when the configuration is read back."""
    assert command(f"forecast predict {exchange} --checkpoint {model} --horizon 10 -o a.csv --quiet").code == 0
    again = command("forecast predict --config a.csv.config.yaml -o b.csv")
    assert again.code == 0, again.err
    assert pathlib.Path("a.csv").read_text() == pathlib.Path("b.csv").read_text()


# evaluate, fit, seeds ---------------------------------------------------------------------------------------------


def test_json_is_one_object_and_nothing_else(command: Any, exchange: pathlib.Path) -> None:
    done = command(f"forecast evaluate --data {exchange} {SIZES} --json")
    assert done.code == 0, done.err
    assert done.err == "", "quiet means quiet"
    assert done.out.count("\n") == 1
    figures = json.loads(done.out)
    assert figures["model"] == "dlinear"
    assert figures["protocol"].startswith("ratio:0.7,0.1,0.2, context 24, horizon 8")
    assert figures["windows"] == 133  # 700 rows, the last fifth, every window of 8 steps: 140 - 8 + 1
    assert 0 < figures["mae"] < 3
    assert 0 < figures["mse"] < 9
    assert set(figures["baselines"]) == {"seasonal_naive", "drift", "repeat_last"}
    assert all({"mse", "mae"} <= set(row) for row in figures["baselines"].values())
    assert len(figures["horizons"]["mse"]) == 8
    assert sum(figures["horizons"]["mse"]) / 8 == pytest.approx(figures["mse"])
    run = next(pathlib.Path("runs").iterdir())
    assert {"config.yaml", "evaluation.json", "evaluation.png", "model.safetensors", "config.json", "report.html"} <= {
        path.name for path in run.iterdir()
    }
    assert {str(path) for path in (run / "evaluation.json", run / "report.html")} <= set(figures["files"])


def test_json_has_no_numbers_that_json_does_not_know() -> None:
    from pipelines.values import to_json

    text = to_json({"a": float("nan"), "b": [1.5, float("inf")], "c": {"d": (1, None)}})
    assert json.loads(text) == {"a": None, "b": [1.5, None], "c": {"d": [1, None]}}


def test_tables_name_the_model_the_baselines_and_the_files(command: Any, exchange: pathlib.Path) -> None:
    done = command(f"forecast evaluate --data {exchange} {SIZES} --model drift")
    assert done.code == 0, done.err
    for part in ("drift", "seasonal_naive", "repeat_last", "mse", "133 windows", "wrote runs/forecast-"):
        assert part in done.out


def test_progress_goes_to_the_error_stream(command: Any, exchange: pathlib.Path) -> None:
    done = command(f"forecast evaluate --data {exchange} {SIZES.replace('--quiet', '')} --json")
    assert done.code == 0
    assert "epoch 1/1" in done.err
    assert done.out.count("\n") == 1


def test_seeds_report_each_and_the_median(command: Any, exchange: pathlib.Path) -> None:
    done = command(f"forecast evaluate --data {exchange} {SIZES} --seeds 2 --seed 3 --json")
    assert done.code == 0, done.err
    figures = json.loads(done.out)
    assert [entry["seed"] for entry in figures["seeds"]] == [3, 4]
    assert figures["seeds"][0]["mse"] != figures["seeds"][1]["mse"]
    assert figures["mse"] == pytest.approx(sum(entry["mse"] for entry in figures["seeds"]) / 2)
    alone = command(f"forecast evaluate --data {exchange} {SIZES} --seed 4 --json")
    assert json.loads(alone.out)["mse"] == figures["seeds"][1]["mse"]


def test_two_runs_in_one_second_get_folders_of_their_own(command: Any, exchange: pathlib.Path) -> None:
    line = f"forecast evaluate --data {exchange} {SIZES} --model repeat_last --json"
    assert [command(line).code for _ in range(3)] == [0, 0, 0]
    assert len(list(pathlib.Path("runs").iterdir())) == 3


def test_an_output_file_has_companions(command: Any, exchange: pathlib.Path, model: pathlib.Path) -> None:
    done = command(f"forecast evaluate --data {exchange} --checkpoint {model} -o out/e.json --quiet")
    assert done.code == 0, done.err
    names = {"e.json", "e.json.report.html", "e.json.config.yaml", "e.json.png"}
    assert {path.name for path in pathlib.Path("out").iterdir()} == names
    assert not pathlib.Path("runs").exists(), "with a checkpoint there is nothing else to keep"
    page = pathlib.Path("out/e.json.report.html").read_text()
    assert "<html" in page
    assert "repeat_last" in page
    stored = json.loads(pathlib.Path(model, "evaluation.json").read_text())
    assert json.loads(pathlib.Path("out/e.json").read_text())["mse"] == pytest.approx(stored["mse"], rel=1e-6)


# predict ----------------------------------------------------------------------------------------------------------


def test_prediction_beyond_the_trained_horizon_is_said(
    command: Any, exchange: pathlib.Path, model: pathlib.Path
) -> None:
    done = command(f"forecast predict {exchange} --checkpoint {model} --horizon 20 -o f.csv")
    assert done.code == 0, done.err
    assert "the model forecasts 8 rows: beyond, up to 20, it read its own forecasts" in done.out
    frame = pd.read_csv("f.csv")
    assert list(frame.columns) == ["unique_id", "ds", "dlinear", "dlinear-lo-90", "dlinear-hi-90"]
    assert frame.groupby("unique_id").size().to_dict() == {"USD": 20, "JPY": 20}
    assert (frame["dlinear-lo-90"] <= frame["dlinear"]).all()
    assert (frame["dlinear"] <= frame["dlinear-hi-90"]).all()
    short = command(f"forecast predict {exchange} --checkpoint {model} -o short.csv")
    assert "its own forecasts" not in short.out
    near = pd.read_csv("short.csv")
    far = frame[frame["unique_id"] == "USD"].head(8)["dlinear"].to_numpy()
    assert near[near["unique_id"] == "USD"]["dlinear"].to_numpy() == pytest.approx(far, rel=1e-5)


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_prediction_in_every_format(command: Any, exchange: pathlib.Path, model: pathlib.Path, ending: str) -> None:
    assert command(f"forecast predict {exchange} --checkpoint {model} --interval 0.8 -o f.{ending} --quiet").code == 0
    path = pathlib.Path(f"f.{ending}")
    if ending == "json":
        content = json.loads(path.read_text())
        assert content["interval"] == 0.8
        assert len(content["forecasts"][0]["mean"]) == 8
        return
    frame = pd.read_csv(path) if ending == "csv" else pd.read_parquet(path)
    assert list(frame.columns)[2:] == ["dlinear", "dlinear-lo-80", "dlinear-hi-80"]
    assert len(frame) == 16


def test_gaps_exogenous_columns_and_the_time_zone(command: Any, electricity: pathlib.Path) -> None:
    roles = "--columns.target Demand --columns.known Holiday --columns.past Temperature"
    zone = "--columns.timezone Australia/Melbourne"
    done = command(f"forecast predict {electricity} {SIZES} {roles} {zone} --arch.calendar true -o f.csv")
    assert done.code == 0, done.err
    frame = pd.read_csv("f.csv")
    assert len(frame) == 8
    source = pd.read_csv(electricity)
    assert frame["ds"].str.endswith(("+10:00", "+11:00")).all(), "the zone of the input is kept"
    expected = [pd.Timestamp(stamp) for stamp in source["Time"].iloc[-12:-4]]
    assert [pd.Timestamp(stamp) for stamp in frame["ds"]] == expected, "the first row without a target comes first"
    assert "2 missing steps inserted" in done.out
    assert "filled" in done.out
    assert frame["dlinear"].between(2000, 9000).all(), "in MW, not in scaled units"


def test_several_inputs(command: Any, exchange: pathlib.Path, model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "x").mkdir()
    other = tmp_path / "x" / "rates.csv"  # the same name in another folder
    other.write_text("\n".join(exchange.read_text().splitlines()[:400]) + "\n")
    done = command(f"forecast predict {exchange} {other} --checkpoint {model} --json --quiet -o out/")
    assert done.code == 0, done.err
    answers = json.loads(done.out)["answers"]
    assert [answer["input"] for answer in answers] == [str(exchange), str(other)]
    assert answers[0]["forecasts"][0]["mean"] != answers[1]["forecasts"][0]["mean"]
    names = {path.name for path in pathlib.Path("out").iterdir()}
    assert {"rates-forecast.csv", "2-rates-forecast.csv", "report.html", "config.yaml"} <= names


def test_several_inputs_without_a_checkpoint_get_a_model_each(
    command: Any, exchange: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    half = tmp_path / "half.csv"
    half.write_text("\n".join(exchange.read_text().splitlines()[:400]) + "\n")
    done = command(f"forecast predict {exchange} {half} {SIZES} -o out/")
    assert done.code == 0, done.err
    for name in ("rates", "half"):
        assert pathlib.Path("out", name, "model.safetensors").is_file()
        assert pathlib.Path("out", "training", name, "training.pt").is_file()
        assert pathlib.Path("out", f"{name}-forecast.csv").is_file()


# The other verbs and commands -------------------------------------------------------------------------------------


@pytest.mark.parametrize("refit", ["", "--refit"])
def test_backtest(command: Any, exchange: pathlib.Path, refit: str) -> None:
    done = command(f"forecast backtest --data {exchange} {SIZES} --origins 3 --step 5 {refit} --json -o out/")
    assert done.code == 0, done.err
    figures = json.loads(done.out)
    assert len(figures["origins"]) == 3
    assert set(figures["baselines"]) == {"seasonal_naive", "drift", "repeat_last"}
    frame = pd.read_csv("out/backtest.csv")
    assert len(frame) == 3 * 8 * 2
    stamps = pd.read_csv(exchange)["date"]
    ends = [pd.Timestamp(stamps.iloc[-1 - 8 - 5 * back]) for back in (2, 1, 0)]
    assert [pd.Timestamp(entry["origin"]) for entry in figures["origins"]] == ends
    fits = len(list(pathlib.Path("out/training").rglob("training.pt")))
    assert fits == (3 if refit else 1)


def test_backtest_of_a_model_that_has_seen_the_rows_is_refused(
    command: Any, exchange: pathlib.Path, model: pathlib.Path
) -> None:
    done = command(f"forecast backtest --data {exchange} --checkpoint {model} --origins 30 --step 8")
    assert done.code == 2
    assert "fitted on rows after the first origin" in done.err
    assert not pathlib.Path("runs").exists()


def test_export_prints_its_parity(command: Any, exchange: pathlib.Path, model: pathlib.Path) -> None:
    done = command(f"forecast export --checkpoint {model} -o m.pt2")
    assert done.code == 0, done.err
    assert "largest difference to eager" in done.out
    assert pathlib.Path("m.pt2").stat().st_size > 1000
    again = command(f"forecast export --checkpoint {model} -o m.pt2 --overwrite --json")
    parity = json.loads(again.out)
    assert parity["max_abs_error"] <= parity["tolerance"]
    assert len(set(parity["batches"])) > 1
    fitted = command(f"forecast export --data {exchange} {SIZES} -o n.pt2 --json")
    assert fitted.code == 0, fitted.err
    assert {path.name for path in pathlib.Path().iterdir()} == {"m.pt2", "n.pt2"}


@pytest.mark.parametrize("name", ["list", "papers", "mechanisms", "doctor"])
def test_information_commands(command: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = command(name)
    told = command(f"{name} --json")
    rows = json.loads(told.out)[name]
    assert told.out.count("\n") == 1
    assert rows
    if name != "doctor":  # whose exit code says whether this installation is whole
        assert (shown.code, told.code) == (0, 0)
    first = str(next(iter(rows[0].values())))
    assert first.split()[0] in shown.out
    expected = {
        "list": "forecast",
        "papers": "2106.13008",
        "mechanisms": "auto_correlation",
        "doctor": "embedded data",
    }
    assert expected[name] in told.out


def test_doctor_says_what_is_broken(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.cli import doctor

    monkeypatch.setattr(doctor, "PACKAGES", {"no_such_package_at_all": "nothing", "torch": "everything"})
    done = command("doctor --json")
    states = {row["part"]: row["state"] for row in json.loads(done.out)["doctor"]}
    assert done.code == 1
    assert states["no_such_package_at_all"] == "broken"
    assert states["torch"] == states["embedded data"] == states["kernels"] == "ok"


def test_bench_in_one_line(command: Any) -> None:
    done = command("bench --mechanism softmax --lengths 8,16 --dim 16 --batch 1 --repeats 2 --json")
    assert done.code == 0, done.err
    rows = json.loads(done.out)["bench"]
    assert [row["length"] for row in rows] == [8, 16]
    assert all(row["ms"] > 0 and row["time / softmax"] == 1.0 and row["largest tensor"] >= 16 for row in rows)


def test_bench_as_a_table(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = command("bench --mechanism auto_correlation --lengths 8,16 --dim 16 --batch 1 --repeats 1")
    assert done.code == 0, done.err
    assert "auto_correlation" in done.out
    assert "time / softmax" in done.out
