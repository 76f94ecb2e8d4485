"""Clean cubes for training a denoiser: photographs lifted to many bands by random smooth spectra, and noise on them.

Few clean cubes may be passed on. A photograph has the edges and textures of a scene but three bands; here every pixel
becomes a spectrum, a non-negative mixture of smooth curves whose weights are the photograph's colours and products of
them. Such cubes are of low rank and smooth along the bands, as real ones largely are; they know no absorption lines.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from pipelines.data.datasets.noise import add_noise
from pipelines.data.datasets.subspace import Subspace
from pipelines.data.errors import InputError

__all__ = ["FixedCubes", "LiftedCubes", "lift", "smooth_spectra"]

Floats = NDArray[np.float32]

#: What a training cube suffers from: a kind in a row of equal chances.
TRAINING_CASES = ("blind", "blind", "noniid", "stripe", "deadline", "impulse", "mixture")
GAUSSIAN_CASES = ("blind", "noniid")
BLIND_RANGE = (5.0, 75.0)
_LENGTHS = (0.05, 0.5)  # of the smooth curves, in shares of the spectrum
_DIM_BANDS = 0.3  # chance that a cube has bands with less light


def smooth_spectra(count: int, bands: int, generator: np.random.Generator) -> Floats:
    """Random smooth positive spectra: (count, bands) between 0 and 1.

    A Gaussian process over the bands whose length scale is drawn anew for each, through a logistic curve.
    O(count bands^2).

    Example:
        >>> smooth_spectra(2, 31, np.random.default_rng(0)).shape
        (2, 31)
    """
    place = np.linspace(0, 1, bands)
    rows = []
    for _ in range(count):
        length = generator.uniform(*_LENGTHS)
        knots = np.linspace(-0.2, 1.2, max(4, round(1.4 / length) + 2))
        values = generator.normal(0, 1.5, len(knots))
        weights = np.exp(-0.5 * ((place[:, None] - knots) / length) ** 2)
        curve = (weights / weights.sum(1, keepdims=True)) @ values
        rows.append(1 / (1 + np.exp(-1.5 * curve)))
    return np.stack(rows).astype(np.float32)


def lift(image: NDArray[np.floating], bands: int, generator: np.random.Generator) -> Floats:
    """A cube (bands, H, W) from a photograph (H, W, 3) in [0, 1], scaled so that its values span [0, 1].

    Red, green, blue, their mean squared and two products of them are the weights of seven spectra. O(bands H W).

    Example:
        >>> lift(np.random.default_rng(0).random((8, 9, 3)), 31, np.random.default_rng(1)).shape
        (31, 8, 9)
    """
    red, green, blue = (image[..., i] for i in range(3))
    grey = (red + green + blue) / 3
    weights = np.stack([red, green, blue, grey**2, red * green, green * blue, np.abs(red - blue)], axis=-1)
    strength = generator.dirichlet(np.full(weights.shape[-1], 0.7)) * weights.shape[-1]
    spectra = smooth_spectra(weights.shape[-1], bands, generator) * strength[:, None]
    cube = np.tensordot(spectra.T.astype(np.float32), weights.astype(np.float32), (1, 2))
    if generator.random() < _DIM_BANDS:
        cube *= smooth_spectra(1, bands, generator)[0][:, None, None]
    low, high = float(cube.min()), float(cube.max())
    return ((cube - low) / max(high - low, 1e-6)).astype(np.float32)


class LiftedCubes(Dataset[dict[str, Tensor]]):
    """Random noisy pieces of lifted photographs and of clean cubes, all of a batch with one number of bands.

    Half of the batches have the bands that queries are learned for, the others a random number; a cube gives bands that
    lie side by side, and is passed over where it has fewer. Randomness comes from torch's generator, which training
    seeds by the place of the batch.

    Args:
        images: (H, W, 3) uint8 each.
        count: pieces that make an epoch.
        cubes: (D, H, W) in [0, 1] each.
        patch: rows and columns of a piece.
        bands: the usual number.
        other: least and most bands of the other batches.
        projected: share of the pieces with Gaussian noise alone of which a model sees what lies in their subspace.

    Raises:
        InputError: nothing that is as large as a patch and has enough bands.

    Example:
        >>> cubes = LiftedCubes([np.zeros((20, 20, 3), np.uint8)], 4, patch=16, other=(8, 9))
        >>> batch = cubes.__getitems__([0, 1])
        >>> batch["x"].shape == batch["y"].shape, batch["x"].shape[3:]
        (True, torch.Size([16, 16]))
    """

    def __init__(
        self,
        images: Sequence[NDArray[np.uint8]],
        count: int,
        *,
        cubes: Sequence[Floats] = (),
        patch: int = 32,
        bands: int = 31,
        other: tuple[int, int] = (16, 64),
        projected: float = 0.0,
    ) -> None:
        self.projected = projected
        self.images = [image for image in images if min(image.shape[:2]) >= patch]
        self.cubes = [cube for cube in cubes if min(cube.shape[1:]) >= patch]
        most = max([len(cube) for cube in self.cubes], default=0)
        if not self.images and not self.cubes:
            raise InputError(
                "nothing is as large as a patch", where="data", found=len(images) + len(cubes), expected=patch
            )
        # Without photographs, which can be lifted to any number, the cubes decide how many bands there can be.
        self.bands = bands if self.images else min(bands, most)
        self.other = other if self.images else (min(other[0], most), min(other[1], most))
        self.count, self.patch = count, patch
        self.sizes = [float(i[..., 0].size) for i in self.images] + [float(c[0].size) for c in self.cubes]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Noisy x and clean y, (B, 1, D, patch, patch)."""
        generator = np.random.default_rng(int(torch.randint(2**62, ())))
        bands = self.bands if generator.random() < 0.5 else int(generator.integers(self.other[0], self.other[1] + 1))
        pairs = [self.one(bands, generator) for _ in indices]
        x, y = (torch.from_numpy(np.stack(side))[:, None] for side in zip(*pairs, strict=True))
        return {"x": x, "y": y}

    def one(self, bands: int, generator: np.random.Generator) -> tuple[Floats, Floats]:
        """A noisy piece and the clean one, (D, patch, patch)."""
        enough = [1.0] * len(self.images) + [float(len(cube) >= bands) for cube in self.cubes]
        chances = np.multiply(self.sizes, enough)
        place = int(generator.choice(len(chances), p=chances / chances.sum()))
        if place < len(self.images):
            clean = lift(self._piece(self.images[place], generator), bands, generator)
        else:
            clean = self._cut(self.cubes[place - len(self.images)], bands, generator)
        case = TRAINING_CASES[int(generator.integers(len(TRAINING_CASES)))]
        noisy, record = add_noise(clean, case, generator, blind_range=BLIND_RANGE)
        if self.projected and case in GAUSSIAN_CASES and generator.random() < self.projected:
            noisy = Subspace.fit([noisy], np.array(record.sigmas)).project(noisy).astype(np.float32)
        return noisy, np.ascontiguousarray(clean, np.float32)

    def _piece(self, image: NDArray[np.uint8], generator: np.random.Generator) -> Floats:
        """(patch, patch, 3) in [0, 1] of a photograph, perhaps as if taken from farther away."""
        step = int(generator.integers(1, 1 + max(1, min(3, min(image.shape[:2]) // self.patch))))
        span = step * self.patch
        row = int(generator.integers(0, image.shape[0] - span + 1))
        column = int(generator.integers(0, image.shape[1] - span + 1))
        piece = image[row : row + span, column : column + span].astype(np.float32) / 255
        # From farther away each pixel is the mean of several.
        piece = piece.reshape(self.patch, step, self.patch, step, 3).mean((1, 3))
        return np.rot90(piece, int(generator.integers(4)))

    def _cut(self, cube: Floats, bands: int, generator: np.random.Generator) -> Floats:
        band, row, column = (
            int(generator.integers(0, size - part + 1))
            for size, part in zip(cube.shape, (bands, self.patch, self.patch), strict=True)
        )
        piece = cube[band : band + bands, row : row + self.patch, column : column + self.patch]
        return np.rot90(piece, int(generator.integers(4)), (1, 2)).astype(np.float32)


class FixedCubes(Dataset[dict[str, Tensor]]):
    """As many noisy pieces as asked for, drawn once and kept: what chooses the epoch.

    Args:
        cubes: of which they are drawn.
        count: how many.
        seed: of the draw.

    Example:
        >>> cubes = FixedCubes(LiftedCubes([np.zeros((20, 20, 3), np.uint8)], 4, patch=16), 2, seed=0)
        >>> len(cubes), cubes[1]["x"].shape
        (2, torch.Size([1, 31, 16, 16]))
    """

    def __init__(self, cubes: LiftedCubes, count: int, *, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self.pairs = [cubes.one(cubes.bands, generator) for _ in range(count)]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        noisy, clean = self.pairs[index]
        return {"x": torch.from_numpy(noisy)[None], "y": torch.from_numpy(clean)[None]}
