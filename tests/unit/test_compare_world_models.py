"""The tool that sets world models beside each other."""

from __future__ import annotations

import json
import pathlib
import runpy
import sys
from typing import Any

import pytest

TOOL = pathlib.Path(__file__).parents[2] / "tools" / "compare_world_models.py"


def written(folder: pathlib.Path, model: str, seed: int, mse: list[float], **more: Any) -> str:
    told = {
        "model": model, "protocol": "p", "data": "d", "windows": 4, "rebuild_mse": mse[0] / 2,
        "horizons": {"mse": mse}, "provenance": {"seed": seed}, "baselines": {"copy_last": {}, "mean_frame": {}},
        "details": {"baselines_by_horizon": {"copy_last": {"mse": [0.1, 0.9]}, "mean_frame": {"mse": [0.5, 0.5]}}},
    } | more  # fmt: skip
    path = folder / f"{model}-{seed}-{len(list(folder.iterdir()))}.json"
    path.write_text(json.dumps(told))
    return str(path)


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(TOOL), *arguments])
    runpy.run_path(str(TOOL), run_name="__main__")


def test_the_table_names_a_winner_only_where_seeds_do_not_overlap(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [written(tmp_path, "a", 1, [0.2, 0.4]), written(tmp_path, "a", 2, [0.4, 0.6])]
    files += [written(tmp_path, "b", 1, [0.05, 0.52]), written(tmp_path, "b", 2, [0.07, 0.54])]
    run(*files, "--at", "1", "2", "--picture", str(tmp_path / "x.png"), monkeypatch=monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert "| a | 2 | 0.30000 (0.20000-0.40000) | 0.50000 (0.40000-0.60000) | 0.15000 (0.10000-0.20000) |" in lines
    assert (
        "horizon 1: seeds below both baselines: a 0 of 2, b 2 of 2; best: b with every seed (5.00x lower than a)"
        in (lines)
    )
    assert lines[-3].startswith("horizon 2: seeds below both baselines: a 1 of 2, b 0 of 2; best: a on average")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_other_windows_or_a_seed_twice_are_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = written(tmp_path, "a", 1, [0.2, 0.4])
    with pytest.raises(SystemExit, match="with seed 1 is there twice"):
        run(one, written(tmp_path, "a", 1, [0.2, 0.4]), monkeypatch=monkeypatch)
    with pytest.raises(SystemExit, match="windows: 5, not 4"):
        run(one, written(tmp_path, "b", 1, [0.2, 0.4], windows=5), monkeypatch=monkeypatch)
