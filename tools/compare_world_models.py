"""World models beside each other: the table of their errors by horizon over seeds, and a picture.

    python tools/compare_world_models.py EVALUATION.json [EVALUATION.json ...] [--at 1 5 16] [--picture FILE.png]

Each file is what `pipelines world evaluate --checkpoint RUN --data DATA --json` wrote, for any number of models and
seeds, all measured on the same windows (else they are refused). Printed are the mean over seeds with the lowest and
highest seed, the baselines, how many seeds are below both baselines, and who is best at each horizon: the winner is
named only where its worst seed is below every other model's best.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections import defaultdict
from typing import Any

import numpy as np

Runs = dict[str, list[dict[str, Any]]]


def read(paths: list[pathlib.Path]) -> Runs:
    """Evaluations by model, in the order given."""
    runs: Runs = defaultdict(list)
    first: dict[str, Any] = {}
    for path in paths:
        told = json.loads(path.read_text(encoding="utf-8"))
        first = first or told
        for key in ("protocol", "windows", "data"):
            if told[key] != first[key]:
                sys.exit(f"{path}: measured otherwise than {paths[0]}. {key}: {told[key]!r}, not {first[key]!r}")
        seed, before = told["provenance"]["seed"], [one["provenance"]["seed"] for one in runs[told["model"]]]
        if seed in before:
            sys.exit(f"{path}: {told['model']} with seed {seed} is there twice")
        runs[told["model"]].append(told)
    return dict(runs)


def mse(told: dict[str, Any]) -> np.ndarray:
    """Mean squared error at each horizon, (h,)."""
    return np.asarray(told["horizons"]["mse"])


def baselines(runs: Runs) -> dict[str, np.ndarray]:
    """Errors of the baselines, which no seed changes."""
    first = next(iter(runs.values()))[0]["details"]["baselines_by_horizon"]
    return {name: np.asarray(rows["mse"]) for name, rows in first.items()}


def spread(values: np.ndarray, digits: int = 5) -> str:
    """Mean over seeds, with the lowest and highest where there are several."""
    mean = f"{values.mean():.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({values.min():.{digits}f}-{values.max():.{digits}f})"


def table(runs: Runs, steps: list[int]) -> list[str]:
    """Lines of the table, in Markdown."""
    lines = [
        "| MSE at horizon | seeds | " + " | ".join(map(str, steps)) + " | rebuilt |",
        "|---" * (len(steps) + 3) + "|",
    ]
    for name, found in runs.items():
        curves = np.stack([mse(one) for one in found])
        rebuilt = np.asarray([one.get("rebuild_mse", np.nan) for one in found])
        cells = [spread(curves[:, step - 1]) for step in steps]
        lines.append(f"| {name} | {len(found)} | " + " | ".join(cells) + f" | {spread(rebuilt)} |")
    first = next(iter(runs.values()))[0]["baselines"]
    for name, curve in baselines(runs).items():
        held = first[name].get("rebuild_mse")
        cells = [f"{curve[step - 1]:.5f}" for step in steps]
        lines.append(f"| {name} | | " + " | ".join(cells) + f" | {'' if held is None else f'{held:.5f}'} |")
    return lines


def verdicts(runs: Runs, steps: list[int]) -> list[str]:
    """Who is below the baselines, and who is best, at each horizon."""
    beside, lines = baselines(runs), []
    for step in steps:
        at = {name: np.asarray([mse(one)[step - 1] for one in found]) for name, found in runs.items()}
        bound = min(curve[step - 1] for curve in beside.values())
        below = ", ".join(f"{name} {int((values < bound).sum())} of {len(values)}" for name, values in at.items())
        lines.append(f"horizon {step}: seeds below both baselines: {below}; best: {best(at)}")
    rebuilt = {name: np.asarray([one.get("rebuild_mse", np.nan) for one in found]) for name, found in runs.items()}
    if all(np.isfinite(values).all() for values in rebuilt.values()):
        lines.append(f"rebuilt frames: best: {best(rebuilt)}")
    return lines


def best(at: dict[str, np.ndarray]) -> str:
    """The model with the lowest mean; "surely" where its worst seed is below all seeds of all others."""
    order = sorted(at, key=lambda name: float(at[name].mean()))
    first, *others = order
    if not others:
        return first
    nearest = min(float(at[name].min()) for name in others)
    ratio = float(at[others[0]].mean() / at[first].mean())
    sure = "with every seed" if float(at[first].max()) < nearest else "on average, the seeds overlap"
    if min(map(len, at.values())) < 2:
        sure = "so far, some models having one seed"
    return f"{first} {sure} ({ratio:.2f}x lower than {others[0]})"


def draw(runs: Runs, path: pathlib.Path) -> None:
    """Errors by horizon, bands from the lowest to the highest seed."""
    from pipelines.base import save_figure
    from pipelines.world.plots import horizon_figure

    curves = {name: np.stack([mse(one) for one in found]) for name, found in runs.items()}
    rows = {name: values.mean(0) for name, values in curves.items()} | baselines(runs)
    bands = {name: (values.min(0), values.max(0)) for name, values in curves.items() if len(values) > 1}
    windows = next(iter(runs.values()))[0]["windows"]
    seeds = "/".join(str(len(found)) for found in runs.values())
    title = f"MSE by horizon, lower is better, {windows} windows, {seeds} seeds; bands: lowest to highest seed"
    save_figure(horizon_figure(rows, bands=bands, title=title), path)


def main() -> None:
    """Read the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    parser.add_argument("--at", nargs="+", type=int, default=[1, 5, 16], help="horizons of the table")
    parser.add_argument("--picture", type=pathlib.Path, help="where the picture is written")
    options = parser.parse_args()
    runs = read(options.files)
    sys.stdout.write("\n".join([*table(runs, options.at), "", *verdicts(runs, options.at)]) + "\n")
    if options.picture is not None:
        draw(runs, options.picture)
        sys.stdout.write(f"wrote {options.picture}\n")


if __name__ == "__main__":
    main()
