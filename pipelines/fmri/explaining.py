"""Which voxels speak for a class or a number: integrated gradients over the windows of scans."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.errors import ConfigError, InputError
from pipelines.fmri.derivative import BrainMap, MapFacts
from pipelines.fmri.explain import Attribution, baseline_window, integrated_gradients
from pipelines.fmri.map_sums import MapSums
from pipelines.fmri.maps import Maps
from pipelines.fmri.material import Shelf, open_source
from pipelines.fmri.predict import Opened, each_run

if TYPE_CHECKING:
    from pipelines.fmri.pipeline import BrainModel

__all__ = ["explain"]

_AT_ONCE = 1 << 21  # voxels of the points that are held at once


def explain(m: BrainModel, inputs: Any, labels: tuple[str, ...], steps: int, baseline: str, windows: int) -> Maps:
    """Maps of every class asked for, of every run that has windows of it."""
    fitted = m.state
    if fitted.kind == "encoding":
        raise ConfigError("these weights tell nothing that could be explained", where="checkpoint", cure="fit a model")
    strange = [name for name in labels if name not in fitted.classes]
    if strange:
        known = ", ".join(fitted.classes) or "none: the model tells a number"
        raise ConfigError("no such class", where="labels", found=", ".join(strange), expected=known)
    for name, value in (("steps", steps), ("windows", windows)):
        if isinstance(value, bool) or value < 1:
            raise ConfigError("out of range", where=name, found=value, expected="a whole number from 1")
    if baseline not in ("mean", "background"):
        raise ConfigError("no such baseline", where="baseline", found=baseline, expected="mean or background")
    study = open_source(m, inputs)
    wanted = labels or fitted.classes
    maps: list[BrainMap] = []
    notes: list[str] = []

    def work(one: Opened) -> None:
        maps.extend(_maps_of(m, one, wanted, steps, baseline, windows, notes))

    failed, told = each_run(m, study, "runs explained", work)
    if not maps:
        raise InputError(
            "no window is of these classes", where=study.name, found=", ".join(wanted), cure="leave --labels out"
        )
    number = fitted.kind == "regression"
    facts = MapFacts(
        m.model,
        output=f"predicted {fitted.target} in its standard deviations" if number else "logit of the class",
        baseline="mean of the training windows" if baseline == "mean" else "background everywhere",
        unit="standard deviations" if number else "logit",
        steps=steps,
        stored="" if m.grid.voxel is None else "maps were resampled back to the scan's own voxels",
    )
    given = inputs[0] if isinstance(inputs, (list, tuple)) and len(inputs) == 1 else inputs
    root = Path(given) if isinstance(given, (str, Path)) and Path(given).is_dir() else None
    return Maps(
        m.model,
        m.provenance(study.name),
        facts,
        maps,
        source=root,
        overwrite=m.run.overwrite,
        failed=failed,
        told=(*told, *notes),
    )


def _maps_of(
    m: BrainModel, one: Opened, wanted: tuple[str, ...], steps: int, baseline: Any, most: int, notes: list[str]
) -> list[BrainMap]:
    """The maps of one run."""
    from pipelines.training.distributed import resolve_device

    fitted, run = m.state, one.run
    shelf = Shelf([run], m.memory * 1_000_000)
    chosen = _windows(m, one, shelf, wanted, most, notes)
    if not chosen:
        return []
    device = resolve_device(m.device)
    shape = (*fitted.grid, fitted.frames)
    fill = float(run.standard.fill)
    start = baseline_window(baseline, shape, fill=fill, mean=fitted.mean.numpy()).to(device)
    sums = MapSums(fitted.grid)
    held = max(1, _AT_ONCE // int(np.prod(shape)))
    module = fitted.module.to(device)
    single = bool(fitted.classes) and _outputs(module) == 1
    for low in range(0, len(chosen), 16):
        part = chosen[low : low + 16]
        x = torch.from_numpy(shelf.windows([0] * len(part), [place for place, _ in part], fitted.frames)).to(device)
        target = 0 if single or not fitted.classes else [fitted.classes.index(name) for _, name in part]
        found = integrated_gradients(module, x, start, target=target, steps=steps, batch=held)
        if single:  # one logit speaks for the second class; against it is for the first
            sign = torch.tensor([1.0 if name == fitted.classes[1] else -1.0 for _, name in part], device=device)
            turned = found.values * sign.view(-1, 1, 1, 1, 1)
            found = Attribution(turned, found.difference * sign, found.gap * sign)
        sums.add_all([name for _, name in part], found)
    mean = _mean_volume(one)
    answer = []
    for label in sums.labels:
        got = sums.averages(label)
        answer.append(
            BrainMap(
                one.recording, run.scan, label, run.back(got.mean), run.back(got.absolute), got.windows,
                got.difference, got.gap, mean,
            )
        )  # fmt: skip
    return answer


def _outputs(module: Any) -> int:
    return int(module.output_head.head.out_features)


def _windows(
    m: BrainModel, one: Opened, shelf: Shelf, wanted: tuple[str, ...], most: int, notes: list[str]
) -> list[tuple[int, str]]:
    """(first volume, class) of the windows that are explained."""
    from pipelines.fmri import engine

    fitted = m.state
    if fitted.kind == "regression":
        return [(start, fitted.target) for start in _spread(one.start, most)]
    known: list[str | None] = list(one.label) if any(one.label) else [None] * len(one.start)
    if not any(known):
        scores = engine.scores_of(m, fitted, shelf, [0] * len(one.start), one.start)
        known = [fitted.classes[int(place)] for place in scores.argmax(1)]
        notes.append(f"{one.recording.name}: without labels the predicted classes are explained")
    chosen: list[tuple[int, str]] = []
    for name in wanted:
        places = [start for start, label in zip(one.start, known, strict=True) if label == name]
        kept = _spread(places, most)
        if len(kept) < len(places):
            notes.append(f"{one.recording.name}, {name}: {len(kept)} of {len(places)} windows explained (--windows)")
        chosen += [(start, name) for start in kept]
    return chosen


def _spread(places: list[int], most: int) -> list[int]:
    if len(places) <= most:
        return places
    return [places[int(one)] for one in np.linspace(0, len(places) - 1, most).round()]


def _mean_volume(one: Opened) -> NDArray[np.float32]:
    """The mean of at most 32 raw volumes on the scan's own grid, for pictures."""
    count = one.run.scan.shape[3]
    total = np.zeros(one.run.scan.shape[:3], np.float64)
    chosen = _spread(list(range(count)), 32)
    for place in chosen:
        total += np.nan_to_num(one.run.scan.frames(place, place + 1)[..., 0])
    return (total / len(chosen)).astype(np.float32)
