"""The protocol of super-resolution: every image of a folder is made small, enlarged, and compared with itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.base import Evaluation, Table
from pipelines.data.datasets.degradation import modcrop
from pipelines.errors import InputError
from pipelines.superres.engine import Fitted, degradation_of, fit_bicubic
from pipelines.superres.metrics import PROTOCOL, Averages, measure
from pipelines.superres.reading import ENDINGS, Source, sources, truth_of
from pipelines.tiling import run_tiles

if TYPE_CHECKING:
    from pipelines.superres.pipeline import SuperResolver

__all__ = ["evaluate"]

_DRAWS = 1000


@dataclasses.dataclass
class Benchmark:
    """Large images, each perhaps with the file of its small one."""

    name: str
    images: Sequence[tuple[Source, Source | None]]
    given: bool


def evaluate(r: SuperResolver, data: Any) -> Evaluation:
    """Measure a fitted model and bicubic interpolation on all images.

    Raises:
        InputError: an image that cannot be read or is too small for the figures, a missing or misfitting small image.
    """
    bench = _benchmark(r, data)
    models = {r.model: r.state}
    if r.model != "bicubic":
        models["bicubic"] = fit_bicubic(r.state.scale)
    averages = {name: Averages() for name in models}
    rows: list[list[object]] = []
    notes: list[str] = []
    bar = r.run.progress.track if r.run.progress is not None else _plain
    for source, small, large, told in bar(_pairs(r, bench), total=len(bench.images), label="images"):
        notes += told
        row: list[object] = [source]
        for name, fitted in models.items():
            found = measure(_enlarged(r, fitted, small), large, fitted.scale)
            averages[name].add(found)
            row += [found["psnr"], found["ssim"]]
        rows.append(row)
    return _summary(r, bench, averages, rows, notes)


def _plain(items: Iterator[Any], **_: object) -> Iterator[Any]:
    return items


def _benchmark(r: SuperResolver, data: Any) -> Benchmark:
    from pipelines.data.catalog import is_name

    if is_name(data, "superres") and data == "demo":
        return Benchmark("four embedded photographs", [(one, None) for one in sources(r.demo_images())[0]], False)
    root = Path(data) if isinstance(data, (str, Path)) else None
    if root is not None and (root / "HR").is_dir():
        large, _ = sources(root / "HR")
        small = root / "LR_bicubic" / f"X{r.state.scale}"
        if small.is_dir():
            pairs = [(one, _small_of(one, small, r.state.scale)) for one in large]
            return Benchmark(root.name, pairs, True)
        return Benchmark(root.name, [(one, None) for one in large], False)
    found, _ = sources(data)
    name = root.name if root is not None else f"{len(found)} images"
    return Benchmark(name or "images", [(one, None) for one in found], False)


def _small_of(source: Source, folder: Path, scale: int) -> Source:
    stem = Path(source.name).stem
    for ending in ENDINGS:
        path = folder / f"{stem}x{scale}{ending}"
        if path.is_file():
            return Source(path.name, path)
    raise InputError("the small image is missing", where=folder, expected=f"{stem}x{scale}.png")


def _pairs(r: SuperResolver, bench: Benchmark) -> Iterator[tuple[str, NDArray[Any], NDArray[Any], tuple[str, ...]]]:
    """Name, small image, large image cut to a multiple of the scale, and notes."""
    degrade, scale = degradation_of(r), r.state.scale
    degrade = dataclasses.replace(degrade, scale=scale)
    for source, given in bench.images:
        truth, notes = truth_of(source, r)
        if given is None:
            large, small = degrade(truth, source.name)
        else:
            large = modcrop(truth, scale)
            small, more = truth_of(given, r)
            notes += more
            expected = tuple(side // scale for side in large.shape[:2])
            if small.shape[:2] != expected:
                raise InputError(
                    "the small image does not fit the large one",
                    where=given.name,
                    found=f"{small.shape[0]} x {small.shape[1]}",
                    expected=f"{expected[0]} x {expected[1]}",
                )
        yield source.name, small, large, notes


def _enlarged(r: SuperResolver, fitted: Fitted, small: NDArray[Any]) -> NDArray[Any]:
    height, width, channels = small.shape
    plan = fitted.plan(height, width, memory=r.memory, tile=r.tile, channels=channels, itemsize=small.dtype.itemsize)
    out = np.empty((height * fitted.scale, width * fitted.scale, channels), small.dtype)

    def write(row: int, band: NDArray[Any], *_: NDArray[Any]) -> None:
        out[row : row + len(band)] = band

    def enlarge(block: NDArray[Any]) -> Any:
        return fitted.enlarge(block, ensemble=r.ensemble, half=r.precision == "bf16-mixed")

    run_tiles(plan, lambda a, b: small[a:b], enlarge, write, scale=fitted.scale)
    return out


def _summary(
    r: SuperResolver, bench: Benchmark, averages: dict[str, Averages], rows: list[list[object]], notes: list[str]
) -> Evaluation:
    results = {name: one.result() for name, one in averages.items()}
    own = results[r.model]
    figures = {
        name: {k: float(v) for k, v in one.items() if k.startswith(("psnr", "ssim"))} for name, one in results.items()
    }
    for name, one in results.items():
        for key in [key for key in one if key.endswith("_infinite")]:
            left = key.removesuffix("_infinite")
            notes.append(f"{name}: {one[key]} images are restored without an error, mean {left} leaves them out")
            figures[name].pop(key)
    made = "small images as given" if bench.given else str(dataclasses.replace(degradation_of(r), scale=r.state.scale))
    head = ["image", *(f"{kind} {name}" for name in averages for kind in ("PSNR", "SSIM"))]
    names = [str(row[0]) for row in rows]
    return Evaluation(
        model=r.model,
        protocol=f"x{r.state.scale}, {made}, {PROTOCOL.replace('SCALE', str(r.state.scale))}"
        + (", mean of eight ways to lay the image" if r.ensemble else ""),
        data=bench.name,
        metrics=figures[r.model],
        counts={"images": int(own["images"])},
        provenance=r.provenance(bench.name),
        intervals=_intervals(averages[r.model], r.seed),
        baselines={name: one for name, one in figures.items() if name != r.model},
        details={"scale": r.state.scale, "by_image": [dict(zip(head, row, strict=True)) for row in rows]},
        notes=tuple(dict.fromkeys(notes)),
        facts={"source": bench.name, "images": len(rows)},
        figures=_figures(r, names, averages),
        tables=[Table("Images", head, rows)],
        largest=True,
    )


def _intervals(averages: Averages, seed: int) -> dict[str, tuple[float, float]]:
    """95 % intervals of the means over images, drawn with replacement."""
    generator = np.random.default_rng(seed)
    found: dict[str, tuple[float, float]] = {}
    for name, values in averages.values.items():
        finite = np.array([value for value in values if np.isfinite(value)])
        if len(finite) > 1:
            means = finite[generator.integers(0, len(finite), (_DRAWS, len(finite)))].mean(1)
            low, high = np.quantile(means, (0.025, 0.975))
            found[name] = float(low), float(high)
    return found


def _figures(r: SuperResolver, names: list[str], averages: dict[str, Averages]) -> list[Any]:
    own, other = (averages[name].values["psnr"] for name in (r.model, "bicubic"))

    def draw() -> Any:
        from pipelines.superres.plots import gains_figure

        return gains_figure(names, own, other, r.model)

    return [("Gain over bicubic", f"PSNR on Y of each image by bicubic interpolation and by {r.model}", draw)]
