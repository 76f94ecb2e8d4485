"""The protocol of denoising: noise of every case is added to every clean cube, removed, and what is left measured."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.base import Evaluation, Table
from pipelines.data.datasets.noise import add_noise
from pipelines.denoise.engine import Fitted, fit_baseline
from pipelines.denoise.metrics import figures
from pipelines.denoise.options import MODELS
from pipelines.denoise.preparation import Preparation
from pipelines.denoise.reading import Clean, clean_sources

if TYPE_CHECKING:
    from pipelines.denoise.pipeline import Denoiser

__all__ = ["evaluate"]

Floats = NDArray[np.floating]
#: Bands that photographs are lifted to.
BANDS = 31
_NAMES = ("psnr", "ssim", "sam", "ergas")


def evaluate(d: Denoiser, data: Any) -> Evaluation:
    """Measure a model, the rules and the noisy cubes themselves.

    Raises:
        InputError: a cube that cannot be read, is not known everywhere, or is too small for the figures.
    """
    clean = clean_sources(d, data)
    models: dict[str, Fitted] = {d.model: d.state}
    if d.baselines:
        models |= {name: fit_baseline(name) for name, info in MODELS.items() if info.baseline and name != d.model}
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    notes = [f"{one.name}: {note}" for one in clean for note in one.notes]
    lifted = sum(one.image is not None for one in clean)
    if lifted:
        notes.append(f"{lifted} photographs are lifted to {BANDS} bands by random smooth spectra, seed {d.seed}")
    work = [(one, case) for one in clean for case in d.cases]
    track = d.run.progress.track if d.run.progress is not None else lambda items, **_: items
    for one, case in track(work, total=len(work), label="cubes and cases"):
        truth = one.as_cube(BANDS, d.seed)
        noisy, record = add_noise(truth, case, _seed(d.seed, one, case))
        notes += record.notes
        prepared = {
            use: Preparation.fit(noisy, lambda noisy=noisy: [noisy], scale=d.scale, subspace=use, outliers=d.outliers)
            for use in {d.subspace, False}
        }
        half = d.precision == "bf16-mixed"
        prepared[d.subspace] = d.state.tuned(prepared[d.subspace], noisy, half=half)
        answers = {"noisy": noisy} | {
            name: _denoised(d, fitted, noisy, prepared[d.subspace and fitted.module is not None])
            for name, fitted in models.items()
        }
        for name, answer in answers.items():
            # What lies outside 0 to 1 cannot be: all methods are clipped alike, the noisy cube is shown as it is.
            shown = answer if name == "noisy" else np.clip(answer, 0.0, 1.0)
            found.setdefault(name, {}).setdefault(case, []).append(figures(truth, shown))
    return _summary(d, clean, found, notes)


def _seed(seed: int, one: Clean, case: str) -> int:
    digest = hashlib.sha256(f"{seed}:{one.name}:{case}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def _denoised(d: Denoiser, fitted: Fitted, noisy: Floats, prepared: Preparation) -> Floats:
    """A noisy cube, denoised in the tiles that ``predict`` would take."""
    from pipelines.tiling import run_tiles

    out = np.empty(noisy.shape)

    def write(row: int, values: Floats) -> None:
        out[:, row : row + values.shape[1]] = values

    def clean(block: Floats) -> Floats:
        return fitted.clean(block, prepared, half=d.precision == "bf16-mixed")

    shape = (noisy.shape[0], noisy.shape[1], noisy.shape[2])
    plan = fitted.plan(shape, memory=d.memory, tile=d.tile)
    run_tiles(plan, lambda a, b: noisy[:, a:b], clean, write, axes=(1, 2))
    return out


def _summary(
    d: Denoiser, clean: list[Clean], found: dict[str, dict[str, list[dict[str, float]]]], notes: list[str]
) -> Evaluation:
    by_case = {
        name: {case: {k: float(np.mean([one[k] for one in every])) for k in _NAMES} for case, every in cases.items()}
        for name, cases in found.items()
    }
    means = {
        name: {k: float(np.mean([figure[k] for figure in cases.values()])) for k in _NAMES}
        for name, cases in by_case.items()
    }
    name = clean[0].name if len(clean) == 1 else f"{len(clean)} cubes"
    seen = "in the subspace that stands out of the noise" if d.subspace else "seeing the whole cube"
    head = ["noise", *by_case]
    rows: list[list[object]] = [[case, *(by_case[one][case]["psnr"] for one in by_case)] for case in d.cases]
    return Evaluation(
        model=d.model,
        protocol="cubes scaled to 0 to 1 by their least and largest value, noise added without clipping, answers "
        "clipped to 0 to 1, figures of each band with data range 1, mean over bands, cubes and noise cases; "
        f"rules get the estimated noise; model scaled by {d.scale}, {seen}",
        data=name,
        metrics=means[d.model],
        counts={"cubes": len(clean), "noise_cases": len(d.cases)},
        provenance=d.provenance(name),
        baselines={one: mean for one, mean in means.items() if one != d.model},
        horizons={"psnr": [by_case[d.model][case]["psnr"] for case in d.cases]},
        details={"cases": list(d.cases), "by_case": by_case},
        notes=tuple(dict.fromkeys(notes)),
        facts={"source": name, "cubes": len(clean)},
        figures=[_figure(d, by_case)],
        tables=[Table("PSNR (dB) by noise case", head, rows)],
        largest=True,
    )


def _figure(d: Denoiser, by_case: dict[str, dict[str, dict[str, float]]]) -> Any:
    values = {name: [cases[case]["psnr"] for case in d.cases] for name, cases in by_case.items()}

    def draw() -> Any:
        from pipelines.denoise.plots import cases_figure

        return cases_figure(list(d.cases), values, d.model)

    return "Noise cases", "PSNR of the model and of the rules under every noise case", draw
