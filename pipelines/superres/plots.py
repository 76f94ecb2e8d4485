"""Pictures of super-resolution: pieces side by side, and figures image by image."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipelines.superres.result import Detail

__all__ = ["details_figure", "enlarged_png", "gains_figure"]

_LEAST_SIDE = 576  # pixels that a piece is shown with


def details_figure(pieces: Sequence[tuple[str, Detail]], model: str) -> Figure:
    """One row an image: the piece as it is, enlarged by bicubic interpolation, and by the model."""
    from pipelines.evaluation.plots import new_figure

    figure = new_figure(10.5, 3.7 * len(pieces))
    axes = figure.subplots(len(pieces), 3, squeeze=False)
    for row, (name, detail) in zip(axes, pieces, strict=True):
        high, wide = detail.small.shape[:2]
        shown = (
            (f"{name}, {wide} x {high} pixels", detail.small),
            ("bicubic", detail.bicubic),
            (model, detail.large),
        )
        for ax, (title, pixels) in zip(row, shown, strict=True):
            _show(ax, pixels, title)
    return figure


def gains_figure(names: Sequence[str], own: Sequence[float], bicubic: Sequence[float], model: str) -> Figure:
    """PSNR of up to forty images by both, those with the largest gain, the largest on top; exact ones are left out."""
    from pipelines.evaluation.plots import new_figure

    finite = np.flatnonzero(np.isfinite(own) & np.isfinite(bicubic))
    gains = np.asarray(own)[finite] - np.asarray(bicubic)[finite]
    order = finite[np.argsort(gains, kind="stable")[-40:]]
    figure = new_figure(8, 1.2 + 0.32 * len(order))
    ax = figure.subplots()
    places = np.arange(len(order))
    low, high = np.asarray(bicubic)[order], np.asarray(own)[order]
    ax.hlines(places, low, high, color="0.7", lw=2, zorder=1)
    ax.scatter(low, places, color="0.45", s=26, label="bicubic", zorder=2)
    if model != "bicubic":
        ax.scatter(high, places, color="#0066a1", s=30, label=model, zorder=3)
    ax.set_yticks(places, [names[i] for i in order])
    ax.set_xlabel("PSNR on Y (dB)")
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return figure


def enlarged_png(pixels: NDArray[Any]) -> bytes:
    """A piece as PNG, every pixel repeated until it can be seen well; alpha is left out, 16 bit become 8."""
    from PIL import Image

    shown = _eight_bit(pixels)
    times = max(1, round(_LEAST_SIDE / max(shown.shape[:2])))
    shown = shown.repeat(times, 0).repeat(times, 1)
    out = io.BytesIO()
    Image.fromarray(shown[..., 0] if shown.shape[2] == 1 else shown).save(out, "PNG")
    return out.getvalue()


def _eight_bit(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    pixels = pixels[..., : 1 if pixels.shape[2] < 3 else 3]
    return (pixels // 257).astype(np.uint8) if pixels.dtype == np.uint16 else pixels


def _show(ax: Axes, pixels: NDArray[Any], title: str) -> None:
    shown = _eight_bit(pixels)
    ax.imshow(shown[..., 0] if shown.shape[2] == 1 else shown, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ax.set_title(title, fontsize=10)
    ax.set_axis_off()
