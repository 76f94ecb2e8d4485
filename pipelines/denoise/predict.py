"""From a noisy cube to its clean twin: the header is read at once, values when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.denoise.result import Denoised
from pipelines.errors import InputError

if TYPE_CHECKING:
    from pipelines.data.formats.cube_types import Cube
    from pipelines.denoise.folder import DenoisedCubes
    from pipelines.denoise.pipeline import Denoiser


def predict(d: Denoiser, inputs: Any) -> Denoised | DenoisedCubes:
    """Open a cube and look at it; of a folder or a list only open all, one after the other.

    Raises:
        InputError: not a cube, or none of several.
    """
    from pipelines.denoise.folder import predict_several
    from pipelines.denoise.reading import is_several

    return predict_several(d, inputs) if is_several(inputs) else denoised(d, cube_of(d, inputs))


def denoised(d: Denoiser, cube: Cube) -> Denoised:
    """Fit a cube's scale, estimate its noise and plan its tiles.

    Raises:
        InputError: no voxel has a value.
        ConfigError: not enough memory is allowed for one tile.

    Complexity: O(D^2 H W) where the model sees a subspace, else O(D H W).
    """
    from pipelines.data.formats.cube_scale import fill_unknown, fit_scale
    from pipelines.denoise.preparation import Preparation

    scale = fit_scale(cube, "band")
    plan = d.state.plan(cube.shape, memory=d.memory, tile=d.tile)

    def blocks() -> Iterator[NDArray[np.floating]]:
        for band in plan.bands:
            yield fill_unknown(cube.block(slice(*band.made), slice(None)), scale.medians)[0]

    sample = fill_unknown(_middle(cube), scale.medians)[0]
    prepared = Preparation.fit(
        sample,
        blocks,
        scale=d.scale,
        subspace=d.subspace and d.state.module is not None,
        outliers=d.outliers,
    )
    prepared = d.state.tuned(prepared, sample, half=d.precision == "bf16-mixed")
    return Denoised(
        cube=cube,
        scale=scale,
        prepared=prepared,
        fitted=d.state,
        plan=plan,
        half=d.precision == "bf16-mixed",
        start=d.start_torch,
        run=d.run,
        model=d.model,
        provenance=d.provenance(cube.path.name),
    )


def cube_of(d: Denoiser, inputs: Any) -> Cube:
    """The cube behind a path, a name or an array (D, H, W).

    Raises:
        InputError: several files, or not a cube.
    """
    from pipelines.denoise.reading import array_cube, open_cube, paths_of

    if isinstance(inputs, np.ndarray):
        return array_cube(inputs)
    paths = paths_of(inputs)
    if len(paths) > 1:
        raise InputError(
            "several files", where=inputs, found=len(paths), expected="one cube", cure="name them one by one"
        )
    return open_cube(d, paths[0])


def _middle(cube: Cube) -> Any:
    """What noise and range are measured on: all of a small cube, the middle of a large one."""
    most = 400
    rows, columns = (slice(max(0, n // 2 - most // 2), n // 2 + most // 2 + 1) for n in cube.shape[1:])
    return cube.block(rows, columns)
