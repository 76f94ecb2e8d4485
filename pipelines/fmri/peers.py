"""The baselines of an evaluation, fitted on the same runs as the model and measured on the same windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ConfigError, InputError
from pipelines.fmri.baselines import fit_baseline
from pipelines.fmri.connectome import Connectome, Regions, atlas_regions

if TYPE_CHECKING:
    from pipelines.fmri.material import Material
    from pipelines.fmri.pipeline import BrainModel

__all__ = ["peer_scores", "volume_rows"]

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
_STACKED = 10_000  # numbers of a window up to which linear models see all of its volumes
_FOR_NUMBERS = ("ridge", "majority", "connectome")


def peer_scores(
    m: BrainModel, material: Material, learned: Indices, rows: Indices
) -> tuple[dict[str, Floats], list[str]]:
    """Scores (N, K) of each baseline for some windows, and what to say.

    Args:
        m: names the baselines.
        material: the runs.
        learned: runs that they are fitted on.
        rows: windows (N,) that are measured.
    """
    names = [name for name in m.baselines if material.kind == "classification" or name in _FOR_NUMBERS]
    if "connectome" in names and material.level == "volume":
        names.remove("connectome")  # a volume has no correlations
    if not len(learned):
        return {}, ["no baselines: the runs that the model learned from are not among the data"] if names else []
    mask = _mask(material, learned)
    found: dict[str, Floats] = {}
    notes: list[str] = []
    known = material.of_runs(learned)
    voxels = [name for name in names if name != "connectome"]
    if voxels:
        stacked = material.frames > 1 and material.level == "volume" and material.frames * int(mask.sum()) <= _STACKED
        train, test = (_features(material, mask, one, stacked=stacked) for one in (known, rows))
        if material.frames > 1:
            how = "all volumes of a window side by side" if stacked else "the mean volume of a window or run"
            notes.append(f"baselines on voxels see {how}")
        groups = material.run[known] if material.level == "volume" else material.unit[known]
        if material.level == "subject":
            train, label, groups = _one_a_run(train, material, known)
        else:
            label = material.label[known]
        for name in voxels:
            try:
                model = fit_baseline(
                    name, train, label, kind=material.kind, classes=len(material.classes) or None, groups=groups,
                    seed=m.seed,
                )  # fmt: skip
            except (ConfigError, InputError) as error:
                notes.append(f"baseline {name} left out: {error}")
                continue
            found[name] = _columns(model.scores(test))
            notes += [f"baseline {name}: {note}" for note in model.notes]
    if "connectome" in names:
        try:
            found["connectome"], said = _connectome(m, material, mask, learned, rows)
            notes += [f"baseline connectome: {note}" for note in said]
        except (ConfigError, InputError) as error:
            notes.append(f"baseline connectome left out: {error}")
    return found, notes


def volume_rows(
    material: Material, runs: Indices, label: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[Any], Indices, NDArray[np.bool_]]:
    """Voxels (N, V) of the labelled volumes of some runs, or of the mean volume of each run of a subject.

    Returns:
        Rows, labels (N,), run or subject (N,), and the mask (X, Y, Z) that V are True in.
    """
    mask, known = _mask(material, runs), material.of_runs(runs)
    if material.level == "subject":
        x = _features(material, mask, known)
        _, first = np.unique(material.run[known], return_index=True)
        return x[first], label[known][first], material.unit[known][first], mask
    x = np.empty((len(known), int(mask.sum())), np.float32)
    for run in np.unique(material.run[known]).tolist():
        here = np.flatnonzero(material.run[known] == run)
        x[here] = material.runs[run].matrix(mask)[material.volume[known[here]]]
    return x, label[known], material.run[known], mask


def _columns(scores: Floats) -> Floats:
    return scores[:, None] if scores.ndim == 1 else scores


def _mask(material: Material, learned: Indices) -> NDArray[np.bool_]:
    """Voxels that are brain in every training run; where there is none, in any."""
    masks = np.stack([material.runs[one].mask for one in learned])
    every = np.asarray(masks.all(0))
    return every if every.any() else np.asarray(masks.any(0))


def _features(
    material: Material, mask: NDArray[np.bool_], rows: Indices, *, stacked: bool = False
) -> NDArray[np.float32]:
    """(N, V) mean over the volumes of each window, or all of them; of subjects, the mean of the run it is of."""
    width = int(mask.sum()) * (material.frames if stacked else 1)
    out = np.empty((len(rows), width), np.float32)
    for run in np.unique(material.run[rows]).tolist():
        here = np.flatnonzero(material.run[rows] == run)
        if material.level == "subject":
            out[here] = material.runs[run].matrix(mask).mean(0, dtype=np.float64)
            continue
        matrix = material.runs[run].matrix(mask)
        for place in here.tolist():
            start = int(material.start[rows[place]])
            window = matrix[start : start + material.frames]
            out[place] = window.ravel() if stacked else window.mean(0)
    return out


def _one_a_run(train: NDArray[np.float32], material: Material, known: Indices) -> tuple[Any, Any, Any]:
    """All windows of a run have the same row here: one is enough."""
    _, first = np.unique(material.run[known], return_index=True)
    return train[first], material.label[known][first], material.unit[known][first]


def _connectome(
    m: BrainModel, material: Material, mask: NDArray[np.bool_], learned: Indices, rows: Indices
) -> tuple[Floats, tuple[str, ...]]:
    """Correlations between regions of each run, and ridge on them."""
    atlas: Regions | None = None
    if m.atlas is not None:
        from pipelines.data.formats.nifti import open_volume

        run = material.runs[int(learned[0])]
        atlas = atlas_regions(open_volume(m.atlas, like=run.scan)[0], mask)
    model = Connectome("ridge", kind=material.kind, seed=m.seed)
    first = {run: int(np.flatnonzero(material.run == run)[0]) for run in np.unique(material.run).tolist()}
    label = np.array([material.label[first[one]] for one in learned.tolist()])
    groups = np.array([material.unit[first[one]] for one in learned.tolist()])

    def reader(run: int) -> Any:
        return lambda: material.runs[run].matrix(mask)

    model.fit(
        [reader(one) for one in learned.tolist()], label, mask=None if atlas is not None else mask, atlas=atlas,
        classes=len(material.classes) or None, groups=groups,
    )  # fmt: skip
    runs = np.unique(material.run[rows])
    scores = _columns(model.scores([reader(one) for one in runs.tolist()]))
    return scores[np.searchsorted(runs, material.run[rows])], model.notes
