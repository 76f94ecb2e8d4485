"""What is found out about a noisy cube before it is denoised: its noise, its subspace, and the range of what is clean.

A model is trained on cubes whose clean values lie between 0 and 1. Of a noisy cube the least and largest value say
little about that, so the range is taken from a calmer version: what lies in the cube's subspace, or without one each
band under a median filter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.robust_subspace import RobustSubspace
from pipelines.data.datasets.subspace import Subspace
from pipelines.denoise.noise_kind import structure_of
from pipelines.denoise.noise_level import NoiseLevels, measure_noise

__all__ = ["Preparation"]

Floats = NDArray[np.floating]
_MOST = 0.28  # standard deviation of the noise, on the scale of the model, that it was trained with
_WINDOW = 3  # of the median filter


@dataclasses.dataclass(frozen=True)
class Preparation:
    """Noise, subspace and scale of one cube (D, H, W).

    Args:
        levels: noise of every band, in the unit of the cube.
        structure: "impulses", "lines" or "".
        space: what the model sees of the cube; None for all of it.
        low, width: (D,) what is taken off and divided by.
        shares: (R,) of the model's answer in each component, the rest is the noisy one; None for the answer alone.

    Example:
        >>> noisy = 0.5 + 0.1 * np.random.default_rng(0).standard_normal((6, 40, 40))
        >>> made = Preparation.fit(noisy, lambda: [noisy])
        >>> made.structure, made.space.rank, bool(np.allclose(made.backward(made.forward(noisy)), made.seen(noisy)))
        ('', 1, True)
    """

    levels: NoiseLevels
    structure: str
    space: Subspace | None
    low: NDArray[np.float64]
    width: NDArray[np.float64]
    shares: NDArray[np.float64] | None = None

    @classmethod
    def fit(
        cls,
        sample: Floats,
        blocks: Callable[[], Iterable[Floats]],
        *,
        scale: str = "cube",
        subspace: bool = True,
        outliers: float = 0.001,
    ) -> Preparation:
        """Look at a cube.

        Args:
            sample: (D, h, w), finite: a piece that noise and range are measured on.
            blocks: gives the whole cube in finite pieces (D, h, w), for the subspace.
            scale: "cube" (one range), "band" (one for each) or "none" (values are between 0 and 1 already).
            subspace: whether the model sees the subspace alone; robustly found where the noise is not Gaussian.
            outliers: share of the calm values, at either end, that may lie outside 0 to 1.

        Complexity: O(D^2 H W) where there is a subspace.
        """
        levels = measure_noise(sample)
        sigmas = np.nan_to_num(np.array(levels.sigmas))
        structure = structure_of(sample, spacing=2 if levels.notes else 1)
        space = None
        if subspace and len(sample) > 1 and sigmas.any():
            # Voxels that are wrong would spread over all bands, so there the spectra are found without them.
            space = RobustSubspace.fit_robustly(sample, sigmas) if structure else Subspace.fit(blocks(), sigmas)
        low, width = np.zeros(len(sample)), np.ones(len(sample))
        if scale != "none":
            calm = space.project(sample) if space is not None else _filtered(sample)
            left = sigmas if space is None else sigmas * np.sqrt(space.rank / len(sigmas))
            low, width = _range(calm, left, scale, outliers)
        return cls(levels, structure, space, low, width)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found, in words."""
        notes = list(self.levels.notes)
        if self.structure:
            notes.append(f"the noise has {self.structure} beside its Gaussian part")
        if self.space is not None:
            robust = ", found without the voxels that disagree" if self.structure else ""
            notes.append(f"the model sees the {self.space.rank} spectra that stand out of the noise{robust}")
        if self.shares is not None:
            shares = ", ".join(f"{100 * share:.0f}" for share in self.shares)
            notes.append(f"of these components the model's answer makes {shares} %, the noisy ones the rest")
        return tuple(notes)

    def seen(self, values: Floats) -> Floats:
        """What a model sees of some values (D, h, w), in the unit of the cube."""
        return values if self.space is None else self.space.project(values)

    def forward(self, values: Floats) -> NDArray[np.float32]:
        """Values (D, h, w) as the model takes them."""
        return self.scaled(self.seen(values))

    def scaled(self, values: Floats) -> NDArray[np.float32]:
        """Values (D, h, w) that are seen already, as the model takes them."""
        return ((values - self.low[:, None, None]) / self.width[:, None, None]).astype(np.float32)

    def backward(self, scaled: Floats) -> NDArray[np.float64]:
        """The model's answer in the unit of the cube."""
        return np.asarray(scaled, np.float64) * self.width[:, None, None] + self.low[:, None, None]


def _filtered(sample: Floats) -> Floats:
    from scipy.ndimage import median_filter

    return median_filter(sample, size=(1, _WINDOW, _WINDOW), mode="nearest")


def _range(
    calm: Floats, left: NDArray[np.float64], scale: str, outliers: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least value and range of each band, at least so wide that the noise is not stronger than in training."""
    if scale == "band":
        ends = np.quantile(calm.reshape(len(calm), -1), [outliers, 1 - outliers], axis=1)
        least = left / _MOST
    else:
        ends = np.repeat(np.quantile(calm, [outliers, 1 - outliers])[:, None], len(calm), axis=1)
        least = np.full(len(calm), left.max(initial=0.0) / _MOST)
    low, high = np.asarray(ends[0], np.float64), np.asarray(ends[1], np.float64)
    width = np.maximum(high - low, least)
    width = np.where(width > 0, width, 1.0)
    # Where the noise widened the range, the values stay in its middle.
    return (low + high - width) / 2, width
