"""Pairs of large and small images for training super-resolution: whole images apart for validation, random patches."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from pipelines.data.datasets.degradation import Degradation, imresize
from pipelines.data.errors import InputError

__all__ = ["Pair", "RandomPatches", "TiledPatches", "divide", "make_pairs"]

Pixels = NDArray[np.uint8]

#: Every training image is also used reduced: its patches are then sharper and free of the marks of JPEG.
REDUCTIONS = (1.0, 0.75, 0.5)


class Pair(NamedTuple):
    """One image twice: large (s h, s w, 3) and small (h, w, 3), uint8."""

    large: Pixels
    small: Pixels
    name: str


def divide(names: Sequence[str], *, share: float, seed: int) -> tuple[list[str], list[str]]:
    """Names of the images that are trained on and of those held out, at least one of each; order of the first kept.

    Raises:
        InputError: fewer than two images, or two with one name.

    Example:
        >>> divide(["a", "b", "c"], share=0.1, seed=0)
        (['a', 'b'], ['c'])
    """
    if len(set(names)) < len(names):
        raise InputError("two images have the same name", where="names", found=", ".join(sorted(names)))
    if len(names) < 2:
        raise InputError("too few images to hold one out", where="data", found=len(names), expected="2 or more")
    count = min(len(names) - 1, max(1, round(share * len(names))))
    order = np.random.default_rng(seed).permutation(sorted(names))
    held = set(order[:count].tolist())
    return [name for name in names if name not in held], sorted(held)


def make_pairs(
    images: Mapping[str, Pixels],
    degradation: Degradation,
    *,
    reductions: Sequence[float] = REDUCTIONS,
    least: int = 1,
) -> tuple[list[Pair], list[str]]:
    """Pairs of every image and of its reduced versions.

    Args:
        images: name -> (H, W, 3) uint8.
        degradation: how the small image is made; of the whole image, so that no patch has borders of its own.
        reductions: factors of the versions, 1 for the image itself.
        least: sides that a small image must have at least.

    Returns:
        The pairs, and a note for every image of which no version is large enough.

    Example:
        >>> pairs, notes = make_pairs({"a": np.zeros((40, 60, 3), np.uint8)}, Degradation(2), least=10)
        >>> [pair.small.shape for pair in pairs], notes
        ([(20, 30, 3), (15, 22, 3), (10, 15, 3)], [])
    """
    pairs, notes = [], []
    for name, image in images.items():
        found = []
        for factor in reductions:
            version = image if factor == 1 else imresize(image, factor)
            if min(version.shape[:2]) < least * degradation.scale:
                continue
            large, small = degradation(version, f"{name}@{factor:g}")
            found.append(Pair(np.ascontiguousarray(large), small, name))
        if not found:
            sides = " x ".join(map(str, image.shape[:2]))
            notes.append(f"{name} is not used: {sides} pixels are fewer than a patch of {least * degradation.scale}")
        pairs += found
    return pairs, notes


def _tensor(patches: Sequence[Pixels]) -> Tensor:
    """(B, 3, H, W) in [0, 1] of patches (H, W, 3)."""
    return torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).contiguous().float() / 255


class _Patches(Dataset[dict[str, Tensor]], ABC):
    """Read in batches; one example is a batch of one without its first axis."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.__getitems__([index]).items()}

    @abstractmethod
    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]: ...


@dataclasses.dataclass(frozen=True)
class RandomPatches(_Patches):
    """Patches at random places, flipped and turned at random; large images give more of them.

    Randomness comes from torch's generator, which training seeds by the place of the batch.

    Args:
        pairs: of which patches are cut.
        patch: sides of a small patch.
        count: patches that make an epoch.

    Raises:
        InputError: no pairs, or a pair smaller than a patch.

    Example:
        >>> pairs, _ = make_pairs({"a": np.zeros((40, 60, 3), np.uint8)}, Degradation(2))
        >>> batch = RandomPatches(pairs, patch=8, count=4).__getitems__([0, 1])
        >>> batch["x"].shape, batch["y"].shape
        (torch.Size([2, 3, 8, 8]), torch.Size([2, 3, 16, 16]))
    """

    pairs: Sequence[Pair]
    patch: int
    count: int

    def __post_init__(self) -> None:
        if not self.pairs:
            raise InputError("there is nothing to cut patches of", where="pairs", found=0, expected="1 or more")
        for pair in self.pairs:
            if min(pair.small.shape[:2]) < self.patch:
                found = " x ".join(map(str, pair.small.shape[:2]))
                raise InputError("smaller than a patch", where=pair.name, found=found, expected=self.patch)

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """As many patches as indices: x (B, 3, patch, patch) and y (B, 3, s patch, s patch) in [0, 1]."""
        places = torch.tensor([float(pair.small[..., 0].size) for pair in self.pairs])
        chosen = torch.multinomial(places, len(indices), replacement=True).tolist()
        small, large = zip(*(self._one(self.pairs[i]) for i in chosen), strict=True)
        return {"x": _tensor(small), "y": _tensor(large)}

    def _one(self, pair: Pair) -> tuple[Pixels, Pixels]:
        height, width = pair.small.shape[:2]
        scale = pair.large.shape[0] // height
        row, column, turn = (
            int(torch.randint(most, ())) for most in (height - self.patch + 1, width - self.patch + 1, 8)
        )
        small = pair.small[row : row + self.patch, column : column + self.patch]
        side = scale * self.patch
        large = pair.large[scale * row : scale * row + side, scale * column : scale * column + side]
        return _turned(small, turn), _turned(large, turn)


def _turned(image: Pixels, turn: int) -> Pixels:
    """One of the eight ways to lay a square."""
    image = np.rot90(image, turn % 4)
    return np.flip(image, 1) if turn >= 4 else image


class TiledPatches(_Patches):
    """Whole images cut into patches side by side; the last of a row or column is moved back so that it fits.

    Args:
        pairs: what is cut.
        patch: sides of a small patch; smaller images are refused.

    Raises:
        InputError: no pairs, or a pair smaller than a patch.

    Example:
        >>> pairs, _ = make_pairs({"a": np.zeros((40, 60, 3), np.uint8)}, Degradation(2), reductions=(1,))
        >>> len(TiledPatches(pairs, patch=16))
        4
    """

    def __init__(self, pairs: Sequence[Pair], patch: int) -> None:
        RandomPatches(pairs, patch, 1)  # refuses what is too small
        self.patch, self.pairs = patch, list(pairs)
        self.places = [
            (p, row, column)
            for p, pair in enumerate(pairs)
            for row in _starts(pair.small.shape[0], patch)
            for column in _starts(pair.small.shape[1], patch)
        ]

    def __len__(self) -> int:
        return len(self.places)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Patches by number, as :class:`RandomPatches` gives them."""
        small, large = [], []
        for p, row, column in (self.places[i] for i in indices):
            pair, patch = self.pairs[p], self.patch
            scale = pair.large.shape[0] // pair.small.shape[0]
            small.append(pair.small[row : row + patch, column : column + patch])
            rows = slice(scale * row, scale * (row + patch))
            large.append(pair.large[rows, scale * column : scale * (column + patch)])
        return {"x": _tensor(small), "y": _tensor(large)}


def _starts(length: int, patch: int) -> list[int]:
    """Where patches begin that cover a side."""
    return [*range(0, length - patch, patch), length - patch]
