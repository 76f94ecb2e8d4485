"""A newcomer's mechanism, as CONTRIBUTING.md shows it: added at run time, checked, and used by the command line."""

from __future__ import annotations

import importlib
import json
import pathlib
import re
import sys
from collections.abc import Iterator

import pytest

import core_attention
from pipelines.cli import main
from pipelines.data.catalog import read_named

REPO = pathlib.Path(__file__).resolve().parents[2]
NAME = "exponential_average"


@pytest.fixture
def newcomer(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The file of the page, imported for one test."""
    page = (REPO / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(.*?)```", page, re.S)
    assert block is not None
    (tmp_path / "newcomer_mechanism.py").write_text(block[1], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("newcomer_mechanism")
    yield NAME
    core_attention.unregister(NAME)
    sys.modules.pop("newcomer_mechanism")


def test_the_page_passes_the_conformance_suite(newcomer: str) -> None:
    results = core_attention.check_mechanism(newcomer, raise_=False)
    assert [str(result) for result in results if not result.passed] == []
    assert any("look-ahead" in result.check for result in results)


def test_the_page_works_with_attention(
    newcomer: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series = read_named("exchange").series[0]
    table = tmp_path / "rates.csv"
    rows = [
        f"{stamp:%Y-%m-%d},{row[0]},{row[1]}" for stamp, row in zip(series.time[:700], series.target[:700], strict=True)
    ]
    table.write_text("\n".join(["date,USD,JPY", *rows]), encoding="utf-8")
    words = ["forecast", "evaluate", "--data", str(table), "--model", "transformer", "--attention", newcomer]
    sizes = ["--context", "32", "--horizon", "8", "--arch.d_model", "16", "--arch.e_layers", "1", "--train.epochs", "1"]
    code = main([*words, *sizes, "--json", "--quiet", "-o", f"{tmp_path}/run/"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    figures = json.loads(printed.out.strip().splitlines()[-1])
    assert figures["model"] == "transformer"
    assert figures["windows"] == 133
    assert "repeat_last" in figures["baselines"]
    assert f"attention: {newcomer}" in (tmp_path / "run" / "config.yaml").read_text(encoding="utf-8")
