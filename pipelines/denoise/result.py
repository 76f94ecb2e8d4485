"""What ``predict`` returns: a cube that is denoised tile by tile when it is saved, shown or asked for."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipelines.base import Provenance, Result, Run, save_figure
from pipelines.tiling import Plan, run_tiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.data.formats.cube_scale import CubeScale
    from pipelines.data.formats.cube_types import Cube
    from pipelines.denoise.engine import Fitted
    from pipelines.denoise.metrics import ChiSquare
    from pipelines.denoise.noise_level import NoiseLevels
    from pipelines.denoise.preparation import Preparation
    from pipelines.evaluation.report import Report

__all__ = ["Denoised"]

Floats = NDArray[np.floating]
Progress = Callable[[int, int], object]
_SHOWN = 96  # rows and columns that a picture shows


@dataclasses.dataclass
class Denoised(Result):
    """One cube and its clean twin, which is computed by ``save``, ``values`` and ``plot``.

    ``prepared`` holds the noise of every band that was estimated on the input, in the cube's unit.
    """

    cube: Cube
    scale: CubeScale
    prepared: Preparation
    fitted: Fitted
    plan: Plan
    half: bool
    start: Callable[[], object]
    run: Run
    model: str
    provenance: Provenance
    told: tuple[str, ...] = ()
    _piece: tuple[Floats, Floats] | None = None
    _chi: ChiSquare | None = None

    default_name: ClassVar[str] = "clean.npy"

    def __post_init__(self) -> None:
        """The answer has the input's format, also where nobody named it."""
        from pipelines.data.formats.cube_writing import SUFFIXES

        endings = SUFFIXES[self.cube.format]
        ending = self.cube.path.suffix if self.cube.path.suffix.lower() in endings else endings[0]
        self.default_name = f"{self.cube.path.name.split('.')[0]}-clean{ending}"  # type: ignore[misc]

    @property
    def levels(self) -> NoiseLevels:
        """The noise of every band, in the cube's unit."""
        return self.prepared.levels

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        """What was chosen, filled and rounded, counted."""
        notes = [*self.cube.notes, *self.scale.notes, *self.prepared.notes]
        if self.plan.tiles > 1:
            notes.append(f"{self.plan}; attention between bands sees the mean of each tile, not of the whole cube")
        module = self.fitted.module
        if module is not None and self.cube.shape[0] != module.num_bands and module.attention is None:
            notes.append(
                f"{self.cube.shape[0]} bands, not the {module.num_bands} that queries were learned for: "
                "bands attend by their own means"
            )
        if module is not None and any(size % module.multiple for size in self.cube.shape[1:]):
            notes.append(
                f"rows and columns are mirrored up to multiples of {module.multiple} for the model, and cropped"
            )
        return tuple(dict.fromkeys((*notes, *self.told)))

    def each(self, write: Callable[[int, Floats], object], progress: Progress | None = None) -> None:
        """Denoise band of rows by band of rows: ``write(row, values)`` with values (D, rows, W) in the cube's unit."""
        from pipelines.data.formats.cube_scale import fill_unknown

        self.start()
        everywhere = slice(None)

        def read(begin: int, end: int) -> Floats:
            return self.cube.block(slice(begin, end), everywhere)

        def clean(block: Floats) -> Floats:
            filled, _ = fill_unknown(block, self.scale.medians)
            return self.fitted.clean(filled, self.prepared, half=self.half)

        run_tiles(self.plan, read, clean, write, axes=(1, 2), progress=progress)

    def values(self) -> NDArray[np.float64]:
        """The whole clean cube (D, H, W) in the cube's unit, NaN where the input has no value."""
        out = np.empty(self.cube.shape)

        def write(row: int, values: Floats) -> None:
            rows = slice(row, row + values.shape[1])
            unknown = np.isnan(self.cube.block(rows, slice(None)))
            out[:, rows] = np.where(unknown, np.nan, values)

        self.each(write)
        return out

    def save(self, path: str | Path) -> Path:
        """Write the clean cube like the input: format, type, layout, metadata, voxels without a value.

        Raises:
            InputError: another ending than the input's format has.
            RunError: the disk is full or not writable.
        """
        from pipelines.data.formats.cube_writing import CubeWriter
        from pipelines.denoise.reading import with_file
        from pipelines.files import write_failure

        target = Path(path)
        squares = _Squares(self.cube)
        try:
            with with_file(self.cube) as like, CubeWriter(like, target) as out:

                def write(row: int, values: Floats) -> None:
                    rows = slice(row, row + values.shape[1])
                    out.put(rows, slice(None), values)
                    squares.add(rows, values)

                if self.run.progress is None or self.plan.tiles < 2:
                    self.each(write)
                else:
                    with self.run.progress.bar(self.cube.path.name, self.plan.tiles) as bar:
                        self.each(write, lambda *_: bar.advance())
        except OSError as error:
            raise write_failure(error, target) from error
        self.told, self._chi = out.notes, squares.result()
        return target

    def chi_square(self) -> ChiSquare | None:
        """Reduced chi-square of what is taken away, where the file holds the variance of the noise."""
        if self.cube.variance is None:
            return None
        if self._chi is None:
            squares = _Squares(self.cube)
            self.each(lambda row, values: squares.add(slice(row, row + values.shape[1]), values))
            self._chi = squares.result()
        return self._chi

    def piece(self) -> tuple[Floats, Floats]:
        """The middle of the cube, noisy and clean, (D, h, w) in its unit."""
        if self._piece is None:
            self._piece = self._find_piece()
        return self._piece

    def _find_piece(self) -> tuple[Floats, Floats]:
        from pipelines.data.formats.cube_scale import fill_unknown

        self.start()
        rows, columns = (
            slice(max(0, (n - _SHOWN) // 2), (n - _SHOWN) // 2 + _SHOWN if n > _SHOWN else n)
            for n in self.cube.shape[1:]
        )
        noisy = self.cube.block(rows, columns)
        filled, _ = fill_unknown(noisy, self.scale.medians)
        return noisy, self.fitted.clean(filled, self.prepared, half=self.half)

    def plot(self, path: str | Path | None = None) -> Figure:
        """Bands of the middle before and after, the spectrum of a pixel, and the noise of every band."""
        from pipelines.denoise.plots import cube_figure

        figure = cube_figure(self)
        if path is not None:
            save_figure(figure, path)
        return figure

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what the cube is, its noise, and a sum of the middle of the answer."""
        return {
            "model": self.model,
            **self.facts(),
            "middle_sha256": hashlib.sha256(self.piece()[1].astype(np.float32).tobytes()).hexdigest(),
            "notes": list(self.notes),
            "provenance": dataclasses.asdict(self.provenance),
        }

    def facts(self) -> dict[str, Any]:
        """What was found out about the cube, without denoising it once more after ``save``."""
        chi = self.chi_square()
        sigmas = [None if not np.isfinite(s) else float(s) for s in self.levels.sigmas]
        return {
            "cube": self.cube.describe(),
            "scale": {"low": self.prepared.low.tolist(), "width": self.prepared.width.tolist()},
            "subspace": None if self.prepared.space is None else self.prepared.space.rank,
            "structure": self.prepared.structure,
            "noise": {"sigma": sigmas, "correlation": self.levels.correlation, "unit": self.cube.unit},
            "chi_square": None if chi is None else {"value": chi.value, "used": chi.used, "left_out": chi.left_out},
            "tiles": self.plan.tiles,
        }

    def fill_report(self, report: Report) -> None:
        """Add what was done, a slider between before and after, the picture and the noise of the bands."""
        from pipelines.denoise.plots import band_pictures

        report.add_text(str(self), section="Cube")
        before, after, band = band_pictures(self)
        report.add_comparison(
            before,
            after,
            f"Band {band} in the middle of the cube",
            names=("noisy", self.model),
            section="Before and after",
            caption=f"Band {band}, one grey scale for both. Move the slider to compare.",
        )
        report.add_figure(self.plot(), "Bands, a spectrum and the noise of every band", section="Bands and spectra")
        described = {
            key: value for key, value in self.cube.describe().items() if key not in ("notes", "wavelengths_nm")
        }
        report.add_data_summary({key: value for key, value in described.items() if value is not None}, section="File")

    def __str__(self) -> str:
        bands, height, width = self.cube.shape
        typical = float(np.nanmedian(self.levels.sigmas))
        unit = f" {self.cube.unit}" if self.cube.unit else ""
        chi = self.chi_square()
        told = "" if chi is None else f"; reduced chi-square {chi.value:.2f}"
        return f"{self.model}: {bands} bands, {height:,} x {width:,} pixels, noise {typical:.4g}{unit} a band{told}"


class _Squares:
    """Sums of squares over variance, piece by piece."""

    def __init__(self, cube: Cube) -> None:
        self.cube = cube
        self.sums, self.counts = np.zeros(cube.shape[0]), np.zeros(cube.shape[0], np.int64)

    def add(self, rows: slice, values: Floats) -> None:
        if self.cube.variance is None:
            return
        noisy = self.cube.block(rows, slice(None))
        variance = np.asarray(self.cube.variance[:, rows], np.float64)
        known = np.isfinite(noisy) & np.isfinite(variance) & (variance > 0)
        share = np.where(known, (np.where(known, noisy, 0) - values) ** 2 / np.where(known, variance, 1), 0.0)
        self.sums += share.sum((1, 2))
        self.counts += known.sum((1, 2))

    def result(self) -> ChiSquare | None:
        from pipelines.denoise.metrics import ChiSquare

        used = int(self.counts.sum())
        if not used:
            return None
        bands = tuple(float(s / n) if n else float("nan") for s, n in zip(self.sums, self.counts, strict=True))
        return ChiSquare(float(self.sums.sum() / used), bands, used, self.cube.stored.size - used)
