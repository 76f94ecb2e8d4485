"""Pictures of denoising: bands before and after, a pixel's spectrum, the noise of every band, gains by noise case."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.denoise.folder import Shown
    from pipelines.denoise.result import Denoised

__all__ = ["band_pictures", "band_shown", "cases_figure", "cube_figure", "cubes_figure", "grey_pair"]

_SIDE = 576  # pixels that a band is shown with
_LEAST_SHARE, _MOST_SHARE = 0.02, 0.98


def _middle_band(noisy: NDArray[np.floating]) -> int:
    """The band of median spread: neither the emptiest nor one that an outlier stretches."""
    spread = np.array([np.nanstd(band) if np.isfinite(band).any() else -1.0 for band in noisy])
    return int(np.argsort(spread, kind="stable")[len(spread) // 2])


def band_shown(result: Denoised) -> tuple[int, NDArray[np.float32], NDArray[np.float32]]:
    """Which band of the middle is shown, and (h, w) of it before and after."""
    noisy, clean = result.piece()
    band = _middle_band(noisy)
    return band, noisy[band].astype(np.float32), clean[band].astype(np.float32)


def grey_pair(noisy: NDArray[np.floating], clean: NDArray[np.floating]) -> tuple[bytes, bytes]:
    """A band (h, w) before and after as PNG on one grey scale."""
    low, high = _ends(noisy)
    return _grey(noisy, low, high), _grey(clean, low, high)


def band_pictures(result: Denoised) -> tuple[bytes, bytes, int]:
    """One band before and after as PNG on one grey scale, and which band it is."""
    band, noisy, clean = band_shown(result)
    return *grey_pair(noisy, clean), band


def _ends(band: NDArray[np.floating]) -> tuple[float, float]:
    """What is shown black and white."""
    known = band[np.isfinite(band)]
    if not known.size:  # no voxel of the middle has a value
        return 0.0, 1.0
    low, high = np.quantile(known, [_LEAST_SHARE, _MOST_SHARE])
    return float(low), float(high)


def _grey(band: NDArray[np.floating], low: float, high: float) -> bytes:
    from PIL import Image

    scaled = np.clip((np.nan_to_num(band, nan=low) - low) / ((high - low) or 1.0), 0, 1) * 255
    times = max(1, round(_SIDE / max(band.shape)))
    out = io.BytesIO()
    Image.fromarray(scaled.astype(np.uint8).repeat(times, 0).repeat(times, 1)).save(out, "PNG")
    return out.getvalue()


def cube_figure(result: Denoised) -> Figure:
    """Three bands before and after, the spectrum of the middle pixel, and the estimated noise of every band."""
    from pipelines.evaluation.plots import new_figure

    noisy, clean = result.piece()
    bands = len(noisy)
    shown = sorted({bands // 6, _middle_band(noisy), min(bands - 1, 5 * bands // 6)})
    figure = new_figure(11, 8.6)
    top, below = figure.subfigures(2, 1, height_ratios=(1.5, 1))
    axes = top.subplots(2, len(shown), squeeze=False)
    for column, band in enumerate(shown):
        low, high = _ends(noisy[band])
        for row, (name, values) in enumerate((("noisy", noisy), (result.model, clean))):
            ax = axes[row][column]
            ax.imshow(values[band], cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            ax.set_title(f"band {band}, {name}", fontsize=10)
            ax.set_axis_off()
    place, label = _places(result)
    left, right = below.subplots(1, 2)
    row, column = noisy.shape[1] // 2, noisy.shape[2] // 2
    left.plot(place, noisy[:, row, column], color="0.7", lw=0.8, label="noisy")
    left.plot(place, clean[:, row, column], color="#0066a1", lw=1.2, label=result.model)
    left.set_title("spectrum of the middle pixel", fontsize=10)
    left.set_ylabel(result.cube.unit or "value")
    left.legend(frameon=False)
    right.plot(place, result.levels.sigmas, color="0.3", lw=1)
    right.set_title("estimated noise of each band", fontsize=10)
    right.set_ylabel("standard deviation, in the same unit")
    right.set_ylim(bottom=0)
    for ax in (left, right):
        ax.set_xlabel(label)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def cubes_figure(shown: Sequence[tuple[str, Shown]], model: str) -> Figure:
    """One row a cube: a band of its middle before and after."""
    from pipelines.evaluation.plots import new_figure

    figure = new_figure(8, 3.9 * len(shown))
    for row, (name, one) in zip(figure.subplots(len(shown), 2, squeeze=False), shown, strict=True):
        low, high = _ends(one.noisy)
        for ax, (title, values) in zip(row, ((name, one.noisy), (model, one.clean)), strict=True):
            ax.imshow(values, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            ax.set_title(f"{title}, band {one.band}", fontsize=10)
            ax.set_axis_off()
    return figure


def _places(result: Denoised) -> tuple[Any, str]:
    if result.cube.wavelengths is not None:
        return result.cube.wavelengths, "wavelength (nm)"
    return np.arange(result.cube.shape[0]), "band"


def cases_figure(cases: list[str], figures: dict[str, list[float]], own: str) -> Figure:
    """PSNR of every method under every noise case."""
    from pipelines.evaluation.plots import new_figure

    figure = new_figure(8.5, 1.4 + 0.5 * len(cases))
    ax = figure.subplots()
    places = np.arange(len(cases))[::-1]
    marks = "osD^vPX"
    for number, (name, values) in enumerate(figures.items()):
        mine = name == own
        ax.scatter(
            values,
            places,
            marker=marks[number % len(marks)],
            s=60 if mine else 30,
            color="#0066a1" if mine else "0.6" if name == "noisy" else f"C{number}",
            zorder=3 if mine else 2,
            label=name,
        )
    ax.set_yticks(places, cases)
    ax.set_ylim(-0.6, len(cases) - 0.4)
    ax.set_xlabel("PSNR, mean over bands (dB)")
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure
