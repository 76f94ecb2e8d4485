"""Bad input: one message with the place, what was found, what was expected and the cure; exit 2; nothing written."""

from __future__ import annotations

import pathlib
import pickle
import random
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

Rows = list[str]
SIZES = "--context 24 --horizon 8 --train.epochs 1"


@pytest.fixture
def table(exchange: pathlib.Path, tmp_path: pathlib.Path) -> Callable[[Callable[[Rows], Rows]], pathlib.Path]:
    """Write a changed copy of the table."""

    def write(change: Callable[[Rows], Rows]) -> pathlib.Path:
        path = tmp_path / "bad.csv"
        path.write_text("\n".join(change(exchange.read_text().splitlines())) + "\n")
        return path

    return write


def cell(row: int, column: int, text: str) -> Callable[[Rows], Rows]:
    """Change one cell; row 1 is the first below the header."""

    def change(rows: Rows) -> Rows:
        cells = rows[row].split(",")
        cells[column] = text
        return [*rows[:row], ",".join(cells), *rows[row + 1 :]]

    return change


def column(index: int, text: str) -> Callable[[Rows], Rows]:
    """Change all cells of a column."""
    return lambda rows: [rows[0], *(cell(0, index, text)([row])[0] for row in rows[1:])]


def irregular(rows: Rows) -> Rows:
    """Stamps a random number of minutes apart."""
    import datetime

    generator, stamp, out = random.Random(1), datetime.datetime(2020, 1, 1), [rows[0]]
    for row in rows[1:]:
        stamp += datetime.timedelta(minutes=generator.randint(1, 500))
        out.append(f"{stamp.isoformat()},{row.split(',', 1)[1]}")
    return out


# What the file is -------------------------------------------------------------------------------------------------


def test_missing_file(refused: Any) -> None:
    refused(f"forecast fit --data nosuch.csv {SIZES}", "nosuch.csv", "no such file", "Cure:")


def test_misspelt_name_of_a_set(refused: Any) -> None:
    refused(f"forecast fit --data vic_elek {SIZES}", "vic_elek", "embedded", "did you mean 'vic_elec'?")


def test_folder_instead_of_file(refused: Any, tmp_path: pathlib.Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    refused(f"forecast fit --data folder.csv {SIZES}", "folder.csv", "folder", "Expected: a file", "Cure:")


def test_empty_file(refused: Any, tmp_path: pathlib.Path) -> None:
    (tmp_path / "empty.csv").touch()
    refused(f"forecast fit --data empty.csv {SIZES}", "empty.csv", "empty", "Expected: a header")


def test_header_only(refused: Any, table: Any) -> None:
    refused(f"forecast fit --data {table(lambda rows: rows[:1])} {SIZES}", "bad.csv", "no rows", "Expected: rows")


@pytest.mark.parametrize("verb", ["fit --data", "evaluate --data", "predict", "backtest --data"])
def test_every_verb_refuses_and_writes_nothing(refused: Any, verb: str) -> None:
    refused(f"forecast {verb} nosuch.csv {SIZES}", "nosuch.csv", "no such file")


# What the table holds ---------------------------------------------------------------------------------------------

CASES: dict[str, tuple[Callable[[Rows], Rows], tuple[str, ...]]] = {
    "no time column": (
        lambda rows: [row.split(",", 1)[1] for row in rows],
        ("no time column", "Found: USD, JPY", "date", "--columns.time"),
    ),
    "unparsable dates": (cell(40, 0, "banana"), ("'date'", "line 41", "Found: 'banana'", "Expected:", "Cure:")),
    "duplicate stamps": (
        lambda rows: [*rows[:41], rows[40], *rows[41:]],
        ("repeated time stamps", "line 41 and line 42", "Expected: one row a stamp", "--on_duplicate"),
    ),
    "irregular stamps": (irregular, ("irregular time stamps", "line", "Expected: steps of", "--resample")),
    "text in a value column": (
        cell(50, 2, "oops"),
        ("'JPY'", "line 51", "Found: 'oops'", "Expected: a number", "Cure"),
    ),
    "constant series": (column(2, "5"), ("'JPY'", "never changes", "Found: 5", "Expected:", "--columns.drop JPY")),
    "all NaN": (column(2, ""), ("'JPY'", "no value", "Found: 700", "Expected: numbers", "--columns.drop JPY")),
    "infinite value": (cell(50, 2, "inf"), ("infinite", "'JPY'", "line 51", "Expected: finite", "Cure:")),
    "too few rows": (
        lambda rows: rows[:31],
        ("too few rows", "Found: 30", "at least 32 (context 24 + horizon 8)", "--context"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_table_that_cannot_be_used(refused: Any, table: Any, name: str) -> None:
    change, parts = CASES[name]
    refused(f"forecast fit --data {table(change)} {SIZES}", "bad.csv", *parts)


@pytest.mark.parametrize("name", ["too few rows", "all NaN", "text in a value column"])
def test_table_that_cannot_be_evaluated(refused: Any, table: Any, name: str) -> None:
    """Also where the model is fitted on the fly and the folder of the run is the default one."""
    change, parts = CASES[name]
    refused(f"forecast evaluate --data {table(change)} {SIZES} --seeds 2", "bad.csv", *parts)


def test_table_with_other_columns_than_the_model(refused: Any, table: Any, model: pathlib.Path) -> None:
    path = table(lambda rows: [rows[0].replace("JPY", "XXX"), *rows[1:]])
    expected = ("bad.csv", "missing: JPY", "not expected: XXX", "Expected: USD, JPY", "--columns.target")
    refused(f"forecast predict {path} --checkpoint {model}", *expected)
    refused(f"forecast evaluate --data {path} --checkpoint {model}", *expected)


def test_too_few_rows_for_a_checkpoint(refused: Any, table: Any, model: pathlib.Path) -> None:
    refused(f"forecast predict {table(lambda rows: rows[:20])} --checkpoint {model}", "bad.csv", "19", "24", "Cure:")


def test_known_future_that_ends_early(
    refused: Any, command: Any, electricity: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    options = f"{SIZES} --columns.target Demand --columns.known Holiday --columns.past Temperature --quiet"
    assert command(f"forecast fit --data {electricity} {options} -o m/").code == 0
    refused(f"forecast predict {electricity} --checkpoint m --horizon 40", "demand.csv", "40", "12", "Cure:")
    shorter = tmp_path / "shorter.csv"
    shorter.write_text("\n".join(electricity.read_text().splitlines()[:-12]) + "\n")
    refused(f"forecast predict {shorter} --checkpoint m", "shorter.csv", "Holiday", "8", "Cure:")


def test_known_column_that_is_not_there(refused: Any, exchange: pathlib.Path) -> None:
    refused(
        f"forecast fit --data {exchange} {SIZES} --columns.known Holiday",
        "columns.known",
        "'Holiday'",
        "Found: date, USD",
    )


# Options ----------------------------------------------------------------------------------------------------------

OPTIONS: dict[str, tuple[str, ...]] = {
    "--horizon 0": ("horizon", "Found: 0", "Expected: 1 or more"),
    "--context 0": ("context", "Found: 0", "Expected: 1 or more"),
    "--context -5": ("context", "Found: -5"),
    "--context abc": ("--context", "Found: abc", "Expected: a whole number"),
    "--context 2.5": ("--context", "Found: 2.5", "Expected: a whole number"),
    "--interval 1.5": ("interval", "Found: 1.5", "between 0 and 1"),
    "--interval 0": ("interval", "Found: 0"),
    "--threads many": ("--threads", "Found: many", "Expected: a whole number"),
    "--threads 0": ("threads", "Found: 0"),
    "--train.learning_rate fast": ("--train.learning_rate", "Found: fast", "Expected: a number"),
    "--train.learning_rate -1": ("learning_rate", "Found: -1"),
    "--train.epochs 0": ("epochs", "Found: 0", "Expected: a whole number >= 1"),
    "--train.epochs 1.5": ("--train.epochs", "Found: 1.5", "Expected: a whole number"),
    "--train.schedule sometimes": ("--train.schedule", "Found: sometimes", "'halve', 'constant', 'cosine'"),
    "--missing guess": ("--missing", "Found: guess", "'ffill', 'interpolate', 'error'"),
    "--model dlinaer": ("model", "Found: dlinaer", "Expected: one of dlinear", "did you mean dlinear?"),
    "--model transformer --attention autocorelation": (
        "attention",
        "'autocorelation'",
        "did you mean auto_correlation?",
    ),
    "--attention softmax": ("dlinear has no attention", "Found: softmax", "--model autoformer or transformer"),
    "--arch.d_model 8": ("arch.d_model", "Found: 8", "moving_avg", "Cure:"),
    "--arch.moving_avg 24": ("arch.moving_avg", "Found: 24", "odd", "25"),
    "--contxt 24": ("--contxt", "unknown option", "did you mean --context?"),
    "--train.epohcs 3": ("--train.epohcs", "unknown option", "did you mean --train.epochs?"),
    "--columns.tagret USD": ("--columns.tagret", "unknown option", "did you mean --columns.target?"),
    "--columns.target AAA": ("columns.target", "'AAA'", "Found: date, USD, JPY"),
    "--protocol garbage": ("--protocol", "Found: 'garbage'", "Expected: ett-hour, ett-minute, ratio:", "Cure:"),
    "--protocol ratio:0.9,0.9,0.1": ("--protocol", "Found: 'ratio:0.9,0.9,0.1'", "add up to 1"),
    "--protocol ett-hour": ("ett-hour", "Found: 700", "Expected: at least 14400", "ratio:"),
    "--device abacus": ("device", "Found: abacus", "Expected: auto, cpu"),
    "--precision 3-bit": ("precision", "Found: 3-bit", "Expected: 32-true"),
    "--seed -1": ("seed", "Found: -1"),
    "--resample fortnightly": ("resample", "fortnightly"),
    "--freq sometimes": ("freq", "sometimes"),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_option_that_does_not_fit(refused: Any, exchange: pathlib.Path, option: str) -> None:
    refused(f"forecast fit --data {exchange} {SIZES} {option}", *OPTIONS[option])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_device_that_is_not_there(refused: Any, exchange: pathlib.Path) -> None:
    refused(f"forecast fit --data {exchange} {SIZES} --device cuda", "device", "Found: cuda", "--device auto")


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("forcast fit", ("forcast", "unknown command", "did you mean forecast?")),
        ("forecast fti", ("forecast fti", "unknown verb", "Expected: demo, fit", "did you mean fit?")),
        ("forecast fit", ("--data", "is missing", "Expected: a path")),
        ("forecast predict", ("inputs", "is missing", "Expected: files")),
        ("mechanism", ("mechanism", "unknown command", "did you mean mechanisms?")),
        ("list --foo", ("pipelines list", "--foo", "Cure:")),
        ("bench --mechanism sofmax --lengths 8,16", ("'sofmax'", "did you mean softmax?")),
        ("bench --lengths 8", ("--lengths", "Found: 8", "Expected: 256,512,1024")),
        ("forecast export", ("nothing to export", "--checkpoint")),
    ],
)
def test_words_that_do_not_exist(refused: Any, line: str, parts: tuple[str, ...]) -> None:
    refused(line, *parts)


@pytest.mark.parametrize(
    ("yaml", "parts"),
    [
        ("contxt: 24\n", ("--contxt", "unknown option", "did you mean --context?")),
        ("train:\n  epohcs: 3\n", ("--train.epohcs", "unknown option", "did you mean --train.epochs?")),
        ("train:\n  epochs: many\n", ("--train.epochs", "Found: many", "Expected: a whole number")),
        ("context: [1, 2]\n", ("--context", "Expected: a whole number")),
        ("{[", ("config", "Cure:")),
        ("", ("config",)),
    ],
)
def test_yaml_that_does_not_fit(
    refused: Any, exchange: pathlib.Path, tmp_path: pathlib.Path, yaml: str, parts: tuple[str, ...]
) -> None:
    (tmp_path / "run.yaml").write_text(yaml or "just a sentence\n")
    refused(f"forecast fit --data {exchange} {SIZES} --config run.yaml", *parts)


def test_yaml_that_is_not_there(refused: Any, exchange: pathlib.Path) -> None:
    refused(f"forecast fit --data {exchange} {SIZES} --config nosuch.yaml", "nosuch.yaml")


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("evaluate --data {data} --seeds 0", ("--seeds", "Found: 0", "at least 1")),
        ("evaluate --data {data} --seeds 2 --checkpoint {model}", ("--seeds", "Cure:")),
        ("fit --data {data} --seeds 2", ("--seeds", "Cure:")),
        ("fit --data {data} --checkpoint {model}", ("--checkpoint", "evaluate or predict")),
        ("fit --data {data} --resume nosuch", ("--resume nosuch", "interrupted run", "Expected: nosuch/config.yaml")),
        ("fit --data {data} --resume", ("--resume",)),
        ("backtest --data {data} --origins 0", ("origins", "Found: 0")),
        ("backtest --data {data} --step 0", ("step", "at least 1")),
        ("backtest --data {data} --origins 1000", ("rates.csv", "too few rows", "fewer --origins")),
    ],
)
def test_uses_that_make_no_sense(
    refused: Any, exchange: pathlib.Path, model: pathlib.Path, line: str, parts: tuple[str, ...]
) -> None:
    refused(f"forecast {line.format(data=exchange, model=model)} {SIZES}", *parts)


# Checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "parts"),
    [
        ("--model nlinear", ("another model", "Found: dlinear", "Expected: nlinear", "drop --model")),
        ("--context 48", ("another context", "Found: 24", "Expected: 48", "drop --context")),
        ("--arch.moving_avg 5", ("another arch", "moving_avg", "Cure:")),
    ],
)
def test_folder_of_another_model(
    refused: Any, exchange: pathlib.Path, model: pathlib.Path, option: str, parts: tuple[str, ...]
) -> None:
    refused(f"forecast predict {exchange} --checkpoint {model} {option}", str(model), *parts)


def official(path: pathlib.Path) -> pathlib.Path:
    """A file as the papers' code saves DLinear, 24 -> 8."""
    torch.manual_seed(0)
    names = ("Linear_Seasonal", "Linear_Trend")
    torch.save(
        {f"{n}.{part}": torch.randn(*s) for n in names for part, s in (("weight", (8, 24)), ("bias", (8,)))}, path
    )
    return path


def test_official_file_of_another_model(refused: Any, exchange: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = official(tmp_path / "checkpoint.pth")
    command = f"forecast evaluate --data {exchange} --checkpoint {path}"
    for name in ("autoformer", "nlinear"):
        refused(f"{command} --context 24 --horizon 8 --model {name}", "checkpoint.pth", "dlinear", name)
    refused(f"{command} --context 48 --horizon 8", "checkpoint.pth", "24", "48")


def test_official_file_of_the_right_model_is_taken(
    command: Any, exchange: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    path = official(tmp_path / "checkpoint.pth")
    done = command(f"forecast evaluate --data {exchange} --checkpoint {path} --context 24 --horizon 8 --quiet")
    assert done.code == 0, done.err
    assert "holds no scaling" in done.out


def test_checkpoint_that_is_not_there(refused: Any, exchange: pathlib.Path) -> None:
    refused(f"forecast predict {exchange} --checkpoint nosuch", "nosuch", "no such", "Cure:")


def test_empty_checkpoint_folder(refused: Any, exchange: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "hollow").mkdir()
    refused(f"forecast predict {exchange} --checkpoint hollow", "hollow", "Expected: config.json", "Cure:")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_damaged_checkpoint(
    refused: Any, exchange: pathlib.Path, model: pathlib.Path, tmp_path: pathlib.Path, name: str, damage: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    path = copy / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 0x80 if name == "config.json" else 1
    path.write_bytes({"flip": bytes(content), "cut": bytes(content[:-9]), "empty": b"", "gone": b""}[damage])
    if damage == "gone":
        path.unlink()
    for verb in ("predict", "evaluate --data"):
        message = refused(f"forecast {verb} {exchange} --checkpoint copy")
        assert "copy" in message
        assert "Cure:" in message or "Expected:" in message


def test_weights_that_are_not_numbers(
    refused: Any, exchange: pathlib.Path, model: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    tensors = load_file(model / "model.safetensors")
    name = next(name for name in tensors if name.endswith("Linear_Trend.weight"))
    tensors[name][0, 0] = torch.nan
    save_file(tensors, tmp_path / "nan.safetensors")
    line = f"forecast predict {exchange} --checkpoint nan.safetensors --context 24 --horizon 8"
    refused(line, "nan.safetensors", name)


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return pathlib.Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["bare", "zip"])
def test_pickle_that_runs_code_does_not_run(
    refused: Any, exchange: pathlib.Path, tmp_path: pathlib.Path, kind: str
) -> None:
    trap, path = tmp_path / "sprung", tmp_path / "trap.pth"
    if kind == "bare":
        path.write_bytes(pickle.dumps(Trap(trap)))
    else:
        torch.save({"Linear_Trend.weight": Trap(trap)}, path)
    refused(f"forecast predict {exchange} --checkpoint trap.pth --context 24 --horizon 8", "trap.pth", "Cure:")
    assert not trap.exists()
