"""Execute the percent scripts of `notebooks/`, or those named (`05_transcribe`); the notebooks stand beside them."""

from __future__ import annotations

import pathlib
import sys

import jupytext
import nbformat
from nbclient import NotebookClient

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "notebooks"
SECONDS = 300


def execute(script: pathlib.Path) -> nbformat.NotebookNode:
    """The executed notebook of a percent script; raises when a cell fails."""
    notebook = jupytext.read(script)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"  # stable names keep the history readable
    NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(FOLDER)}}).execute()
    for cell in notebook.cells:
        cell.get("metadata", {}).pop("execution", None)
        if "outputs" in cell:  # warnings name the paths of this machine; a cell that fails raises
            cell["outputs"] = [one for one in cell["outputs"] if one.get("name") != "stderr"]
    return notebook


if __name__ == "__main__":
    for script in [FOLDER / f"{name}.py" for name in sys.argv[1:]] or sorted(FOLDER.glob("[0-9]*.py")):
        target = script.with_suffix(".ipynb")
        nbformat.write(execute(script), target)
        sys.stdout.write(f"{target.name}: executed\n")
