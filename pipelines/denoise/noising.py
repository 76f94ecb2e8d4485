"""Test data: a clean cube with simulated noise on it, written like the cube, and a record of what was added."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.base import Provenance, Result, save_figure
from pipelines.values import to_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.data.datasets.noise import NoiseRecord
    from pipelines.data.formats.cube_scale import CubeScale
    from pipelines.data.formats.cube_types import Cube
    from pipelines.denoise.pipeline import Denoiser
    from pipelines.evaluation.report import Report

__all__ = ["NoisyCube", "noise"]


@dataclasses.dataclass
class NoisyCube(Result):
    """A noisy cube (D, H, W) on the scale of 0 to 1, the clean one, and what was added."""

    cube: Cube
    scale: CubeScale
    clean: NDArray[np.float32]
    noisy: NDArray[np.float32]
    record: NoiseRecord
    provenance: Provenance
    told: tuple[str, ...] = ()

    @property
    def default_name(self) -> str:  # type: ignore[override]
        """NAME-noisy with the ending of the input's format."""
        from pipelines.data.formats.cube_writing import SUFFIXES

        endings = SUFFIXES[self.cube.format]
        ending = self.cube.path.suffix if self.cube.path.suffix.lower() in endings else endings[0]
        return f"{self.cube.path.name.split('.')[0]}-noisy{ending}"

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        """What was bent, rounded and clipped."""
        return tuple(dict.fromkeys((*self.cube.notes, *self.record.notes, *self.told)))

    def save(self, path: str | Path) -> Path:
        """Write the noisy cube like the input, and NAME.noise.json beside it: what was added, band by band.

        Raises:
            InputError: another ending than the input's format has.
            RunError: the disk is full or not writable.
        """
        from pipelines.data.formats.cube_writing import CubeWriter
        from pipelines.denoise.reading import with_file
        from pipelines.files import atomic_write, sidecar, write_failure

        target = Path(path)
        everywhere = slice(None)
        try:
            with with_file(self.cube) as like, CubeWriter(like, target) as out:
                out.put(everywhere, everywhere, self.scale.backward(self.noisy))
        except OSError as error:
            raise write_failure(error, target) from error
        self.told = out.notes
        atomic_write(sidecar(target, "noise.json"), to_json(self.record.as_dict(), indent=1) + "\n")
        return target

    def plot(self, path: str | Path | None = None) -> Figure:
        """The middle band of the clean and of the noisy cube; with a path, also written there."""
        from pipelines.evaluation.plots import new_figure

        band = len(self.clean) // 2
        figure = new_figure(9, 4.6)
        for ax, (name, values) in zip(
            figure.subplots(1, 2), (("clean", self.clean), (self.record.case, self.noisy)), strict=True
        ):
            ax.imshow(values[band], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            ax.set_title(f"{name}, band {band}", fontsize=10)
            ax.set_axis_off()
        if path is not None:
            save_figure(figure, path)
        return figure

    def to_dict(self) -> dict[str, Any]:
        """What was added, and how far the noisy cube is from the clean one."""
        from pipelines.denoise.metrics import psnr_bands

        return {
            "case": self.record.case,
            "psnr": float(psnr_bands(self.clean, self.noisy).mean()),
            "noise": self.record.as_dict(),
            "notes": list(self.notes),
            "provenance": dataclasses.asdict(self.provenance),
        }

    def fill_report(self, report: Report) -> None:
        """Add what was added and the picture."""
        report.add_text(str(self), section="Noise")
        report.add_figure(self.plot(), "A band of the clean and of the noisy cube", section="Noise")

    def __str__(self) -> str:
        bands, height, width = self.clean.shape
        r = self.record
        kinds = {"striped": len(r.stripes), "with dead columns": len(r.deadlines), "with impulses": len(r.impulses)}
        told = "".join(f", {count} bands {name}" for name, count in kinds.items() if count)
        return f"{self.record.case} on {bands} bands, {height:,} x {width:,} pixels{told}"


def noise(d: Denoiser, data: Any, case: str) -> NoisyCube:
    """Add noise to a clean cube that is scaled to 0 to 1 by its least and largest value.

    Raises:
        InputError: not a cube, or not known everywhere.
    """
    from pipelines.data.datasets.noise import add_noise
    from pipelines.data.formats.cube_scale import fit_scale
    from pipelines.denoise.evaluation import BANDS
    from pipelines.denoise.predict import cube_of
    from pipelines.denoise.reading import PICTURES, array_cube, clean_of, paths_of

    paths = [] if isinstance(data, np.ndarray) else paths_of(data)
    if len(paths) == 1 and paths[0].suffix.lower() in PICTURES:
        values = clean_of(d, paths[0]).as_cube(BANDS, d.seed)
        cube = array_cube(values, f"{paths[0].stem}.npy")
    else:
        cube = cube_of(d, data)
    scale = fit_scale(cube, "cube")
    clean = scale.forward(cube.block(slice(None), slice(None)))
    noisy, record = add_noise(clean, case, d.seed)
    made = Provenance.now(data=cube.path.name, model="noise", seed=d.seed)
    return NoisyCube(cube, scale, clean, noisy, record, made)
