"""Maps on the brain: nilearn's mosaic and glass brain, and plain slices where a scan is too thin for them.

Nothing is downloaded: the background is the run's own mean volume. nilearn and matplotlib are imported when drawing.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import InputError
from pipelines.evaluation import plots as house

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.data.datasets.brain_types import Recording
    from pipelines.data.formats.nifti_types import Scan

__all__ = ["glass_figure", "map_figure", "slices_figure", "standard_space", "strongest"]

Floats = NDArray[np.floating]
_THIN = 8  # an axis of fewer voxels has no room for nilearn's cuts
_CUTS = 7  # slices of each direction in a mosaic
_PANELS = 24  # slices that a plain picture shows
_MNI = 4  # NIfTI's code of an affine to MNI 152 coordinates
_SHARE = 0.9  # of the voxels that have a value, those below this share of sizes are not coloured


def standard_space(recording: Recording, scan: Scan) -> str:
    """The standard space that a run is in by its name or its affine's code; empty where neither says so.

    Example:
        >>> from types import SimpleNamespace as Of
        >>> run = Of(space="MNI152NLin2009cAsym_res-2", entities={})
        >>> standard_space(run, Of(stored=Of(sform_code=1, qform_code=1)))
        'MNI152NLin2009cAsym'
    """
    space = (recording.space or recording.entities.get("space", "")).split("_res-")[0]
    if space.upper().startswith("MNI"):
        return space
    if not space and _MNI in (scan.stored.sform_code, scan.stored.qform_code if not scan.stored.sform_code else -1):
        return "MNI 152"
    return ""


def strongest(values: Floats, affine: Floats, count: int = 5) -> list[tuple[tuple[float, float, float], float]]:
    """The voxels of the largest size: their centres in mm and their values, the largest first.

    Args:
        values: (X, Y, Z).
        affine: (4, 4) voxel indices to mm.
        count: at most so many; voxels of value 0 are never among them.

    Complexity: O(X Y Z).

    Example:
        >>> values = np.zeros((3, 3, 2))
        >>> values[2, 1, 0] = -4.0
        >>> strongest(values, np.diag([2.0, 2.0, 2.0, 1.0]))
        [((4.0, 2.0, 0.0), -4.0)]
    """
    sizes = np.abs(values).ravel()
    count = min(count, int((sizes > 0).sum()))
    if not count:
        return []
    found = np.argpartition(-sizes, count - 1)[:count]
    found = found[np.argsort(-sizes[found], kind="stable")]
    places = np.stack(np.unravel_index(found, values.shape), 1)
    points = places @ affine[:3, :3].T + affine[:3, 3]
    flat = values.ravel()
    return [((float(x), float(y), float(z)), float(flat[i])) for (x, y, z), i in zip(points, found, strict=True)]


def colour_range(values: Floats) -> tuple[float, float]:
    """The size below which nothing is coloured and the one that has the full colour.

    Example:
        >>> low, high = colour_range(np.arange(-10.0, 11.0).reshape(21, 1, 1))
        >>> round(low, 1), high
        (9.1, 10.0)
    """
    sizes = np.abs(values[values != 0])
    if not sizes.size:
        return 0.0, 1.0
    return float(np.quantile(sizes, _SHARE)), float(sizes.max())


def map_figure(values: Floats, background: Floats | None, affine: Floats, *, title: str = "", unit: str = "") -> Figure:
    """Draw a map over a volume: a mosaic of cuts in three directions, or slices where an axis is thin.

    Args:
        values: (X, Y, Z) RAS+; the tenth of the largest size is coloured, red for and blue against.
        background: (X, Y, Z), for example the mean volume; None: black.
        affine: (4, 4) voxel indices to mm.
        title: above the picture.
        unit: of the map, beside the colours.

    Raises:
        InputError: two grids, or values that are not finite.

    Complexity: O(X Y Z) for each cut.

    Example:
        >>> len(map_figure(np.eye(3)[..., None], None, np.eye(4)).axes) > 0
        True
    """
    _check(values, background)
    if min(values.shape) < _THIN:
        return slices_figure(values, background, affine, title=title, unit=unit)
    return house._styled(lambda: _mosaic(values, background, affine, title, unit))


def _check(values: Floats, background: Floats | None) -> None:
    if values.ndim != 3 or (background is not None and background.shape != values.shape):
        found = f"{values.shape} over {None if background is None else background.shape}"
        raise InputError("a map and its background need one grid", found=found, expected="(X, Y, Z) both")
    if not np.isfinite(values).all():
        raise InputError("a map has values that are not finite", where="map")


def _image(values: Floats, affine: Floats) -> Any:
    import nibabel

    return nibabel.Nifti1Image(np.ascontiguousarray(values, np.float32), affine)


def _mosaic(values: Floats, background: Floats | None, affine: Floats, title: str, unit: str) -> Figure:
    from matplotlib.colors import Normalize
    from nilearn import plotting

    low, high = colour_range(values)
    shown = np.zeros_like(values) if background is None else np.nan_to_num(background)
    figure = house.new_figure(9.5, 6.2)
    figure.set_layout_engine("none")  # nilearn places its own axes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plotting.plot_stat_map(
            _image(values, affine),
            bg_img=_image(np.minimum(shown, _grey(background)[1]), affine),
            display_mode="mosaic",
            cut_coords=_cuts(values if background is None else shown, affine),
            threshold=low if low < high else 0.0,
            vmax=high,
            cmap=_colours(),
            colorbar=False,
            black_bg=False,
            dim=0,
            vmin=-high,
            annotate=True,
            figure=figure,
            axes=(0.0, 0.0, 0.91, 0.93),
        )
    bar = figure.colorbar(_mappable(Normalize(-high, high)), cax=figure.add_axes((0.925, 0.2, 0.014, 0.55)))
    bar.ax.tick_params(labelsize=8)
    bar.set_label(unit, fontsize=8.5)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=house.INK)
    return figure


def _cuts(volume: Floats, affine: Floats) -> dict[str, list[float]]:
    """Evenly spaced positions in mm along x, y and z over what is brighter than a fifth of the bright voxels."""
    sizes = np.abs(volume)
    bright = np.argwhere(sizes > 0.2 * np.quantile(sizes, 0.98))
    corners = bright if len(bright) else np.array([[0, 0, 0], np.array(volume.shape) - 1])
    points = corners @ affine[:3, :3].T + affine[:3, 3]
    low, high = np.quantile(points, [0.04, 0.96], axis=0)
    return {name: np.linspace(low[axis], high[axis], _CUTS).tolist() for axis, name in enumerate("xyz")}


def glass_figure(values: Floats, affine: Floats, *, title: str = "", unit: str = "") -> Figure:
    """Draw a map in nilearn's glass brain; only for runs in MNI 152 space, see :func:`standard_space`.

    Args:
        values: (X, Y, Z) RAS+.
        affine: (4, 4) voxel indices to mm of the standard space.
        title: above the picture.
        unit: of the map, beside the colours.

    Raises:
        InputError: values that are not finite.

    Example:
        >>> len(glass_figure(np.ones((9, 9, 9)), np.diag([4.0, 4.0, 4.0, 1.0])).axes) > 2
        True
    """
    _check(values, None)

    def draw() -> Figure:
        from nilearn import plotting

        low, high = colour_range(values)
        figure = house.new_figure(9.5, 3.4)
        figure.set_layout_engine("none")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plotting.plot_glass_brain(
                _image(values, affine),
                display_mode="lyrz",
                threshold=low if low < high else 0.0,
                vmax=high,
                cmap="RdBu_r",
                plot_abs=False,
                symmetric_cbar=True,
                colorbar=True,
                figure=figure,
                axes=(0.0, 0.0, 1.0, 0.9),
            )
        heading = f"{title} ({unit})" if unit else title
        figure.suptitle(heading, x=0.01, ha="left", fontsize=12, fontweight="bold", color=house.INK)
        return figure

    return house._styled(draw)


def slices_figure(
    values: Floats, background: Floats | None, affine: Floats, *, title: str = "", unit: str = ""
) -> Figure:
    """Draw a map slice by slice along the thinnest axis, with sides and positions in mm.

    Args:
        values: (X, Y, Z) RAS+.
        background: (X, Y, Z) or None.
        affine: (4, 4) voxel indices to mm.
        title: above the picture.
        unit: of the map, beside the colours.

    Raises:
        InputError: two grids, or values that are not finite.

    Example:
        >>> figure = slices_figure(np.ones((4, 5, 2)), None, np.eye(4))
        >>> [ax.get_title(loc="left") for ax in figure.axes[:2]]
        ['z = 0 mm', 'z = 1 mm']
    """
    _check(values, background)
    return house._styled(lambda: _slices(values, background, affine, title, unit))


def _slices(values: Floats, background: Floats | None, affine: Floats, title: str, unit: str) -> Figure:
    from matplotlib.colors import Normalize

    thin = 2 - int(np.argmin(values.shape[::-1]))  # of equal axes the last: axial slices are what readers know
    across, up = [axis for axis in range(3) if axis != thin]
    places = np.unique(np.linspace(0, values.shape[thin] - 1, min(_PANELS, values.shape[thin])).round().astype(int))
    zooms = np.sqrt((affine[:3, :3] ** 2).sum(0))
    wide, high = values.shape[across] * zooms[across], values.shape[up] * zooms[up]
    columns, size = _panels(len(places), float(high / wide))
    rows = -(-len(places) // columns)
    figure = house.new_figure(columns * size + 1.4, max(rows * (size * high / wide + 0.34) + 0.7, 2.2))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    low, most = colour_range(values)
    grey = _grey(background)
    overlay = Normalize(-most, most)
    for ax, place in zip(axes, places, strict=False):
        cut = np.take(values, place, axis=thin).T
        under = np.zeros_like(cut) if background is None else np.take(background, place, axis=thin).T
        look: dict[str, Any] = {"origin": "lower", "aspect": zooms[up] / zooms[across], "interpolation": "nearest"}
        ax.imshow(under, cmap="gray", vmin=grey[0], vmax=grey[1], **look)
        coloured = np.ma.masked_where((np.abs(cut) < low) | (cut == 0), cut)
        ax.imshow(coloured, cmap=_colours(), norm=overlay, **look)
        middle = [(n - 1) / 2 for n in values.shape]
        middle[thin] = place
        position = float(affine[thin, :3] @ middle + affine[thin, 3])
        ax.set_title(f"{'xyz'[thin]} = {round(position, 1) + 0.0:g} mm", fontsize=9, fontweight="normal")
        _sides(ax, across, up)
    for ax in axes[len(places) :]:
        ax.remove()
    bar = figure.colorbar(_mappable(overlay), ax=list(axes[: len(places)]), shrink=0.8, pad=0.02)
    bar.ax.tick_params(labelsize=8)
    bar.set_label(unit, fontsize=8.5)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=house.INK)
    return figure


def _panels(count: int, ratio: float) -> tuple[int, float]:
    """Columns of the picture and the width of a panel in inches."""
    columns = min(count, 6 if count > 4 else count)
    size = min(7.5 / columns, 5.0, 5.0 / ratio)
    return columns, max(size, 1.2)


def _mappable(norm: Any) -> Any:
    from matplotlib.cm import ScalarMappable

    return ScalarMappable(norm, _colours())


def _colours() -> Any:
    """From light cyan over blue and red to yellow: every value that is coloured at all stands out against grey."""
    from matplotlib.colors import LinearSegmentedColormap

    stops = [
        (0.0, "#8ff0ff"),
        (0.25, "#1f8fff"),
        (0.5, "#0b2fb0"),
        (0.5, "#a80000"),
        (0.75, "#ff6a00"),
        (1.0, "#fff04d"),
    ]
    return LinearSegmentedColormap.from_list("for and against", stops)


def _grey(background: Floats | None) -> tuple[float, float]:
    """What is black, and what would be white: a quarter above the brightest, so that colours stand out."""
    known = np.zeros(0) if background is None else background[np.isfinite(background) & (background != 0)]
    if not known.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.quantile(known, [0.02, 0.98]))
    return low, high + 0.25 * (high - low) + 1e-6


def _sides(ax: Any, across: int, up: int) -> None:
    """Letters at the four sides: where left, right, front, back, top and bottom are."""
    letters = (("L", "R"), ("P", "A"), ("I", "S"))
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    places = ((0.02, 0.5), (0.98, 0.5), (0.5, 0.03), (0.5, 0.97))
    for (x, y), letter in zip(places, (*letters[across], *letters[up]), strict=True):
        side = {0.02: "left", 0.98: "right"}.get(x, "center")
        level = {0.03: "bottom", 0.97: "top"}.get(y, "center")
        ax.text(x, y, letter, transform=ax.transAxes, ha=side, va=level, fontsize=8, color="#ffd33d")
