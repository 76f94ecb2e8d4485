"""Each percent script runs, and the executed notebook beside it is of the same script."""

from __future__ import annotations

import importlib.util
import pathlib

import pytest

jupytext = pytest.importorskip("jupytext")
nbformat = pytest.importorskip("nbformat")

REPO = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = sorted((REPO / "notebooks").glob("[0-9]*.py"))


def _tool():
    spec = importlib.util.spec_from_file_location("run_notebooks", REPO / "tools" / "run_notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_is_a_notebook() -> None:
    assert SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_runs(script: pathlib.Path) -> None:
    notebook = _tool().execute(script)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs), "the walkthrough shows a picture"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_committed_notebook_is_of_this_script(script: pathlib.Path) -> None:
    committed = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    fresh = jupytext.read(script)
    assert [cell.source for cell in committed.cells] == [cell.source for cell in fresh.cells]
    assert all(cell.execution_count for cell in committed.cells if cell.cell_type == "code"), "run `make notebooks`"
