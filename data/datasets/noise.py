"""Noise cases of hyperspectral denoising: seeded, counted, and told band by band.

Axis order of every cube in this package: (D, H, W) = bands, rows, columns. Values are meant to lie in [0, 1];
standard deviations are given on the scale of 255, as the papers do.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError

__all__ = ["CASES", "NoiseRecord", "add_noise"]

#: The nine test cases of the paper, in its order.
CASES = (
    "gaussian30",
    "gaussian50",
    "gaussian70",
    "blind",
    "noniid",
    "stripe",
    "deadline",
    "impulse",
    "mixture",
)
BLIND_RANGE = (10.0, 70.0)
NONIID_SIGMAS = (10.0, 30.0, 50.0, 70.0)
IMPULSE_AMOUNTS = (0.1, 0.3, 0.5, 0.7)
_LEAST, _MOST = 0.05, 0.15
_STRIPE = 0.25
_STRUCTURED = ("stripe", "deadline", "impulse")
_GAUSSIAN = re.compile(r"gaussian(\d+(?:\.\d+)?)")

Cube = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class NoiseRecord:
    """What was added to a cube.

    Args:
        case: name of the noise case.
        sigmas: D standard deviations of the Gaussian part, on the scale of the cube (sigma / 255).
        stripes: band -> its striped columns, in order.
        deadlines: band -> its columns set to 0, in order.
        impulses: band -> the chance of a pixel to be set to 0 or 1.
        notes: where the rule of the paper had to be bent, in words.

    Example:
        >>> NoiseRecord("gaussian50", (0.2, 0.2)).as_dict()["case"]
        'gaussian50'
    """

    case: str
    sigmas: tuple[float, ...]
    stripes: dict[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    deadlines: dict[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    impulses: dict[int, float] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """The record as plain values that JSON can hold."""
        return {
            "case": self.case,
            "sigmas": list(self.sigmas),
            "stripes": {str(band): list(columns) for band, columns in self.stripes.items()},
            "deadlines": {str(band): list(columns) for band, columns in self.deadlines.items()},
            "impulses": {str(band): amount for band, amount in self.impulses.items()},
            "notes": list(self.notes),
        }


def add_noise(
    clean: NDArray[np.floating],
    case: str,
    seed: int | np.random.Generator = 0,
    *,
    blind_range: tuple[float, float] = BLIND_RANGE,
) -> tuple[Cube, NoiseRecord]:
    """Add one noise case to a clean cube (D, H, W) of values in [0, 1]; the result is not clipped.

    - `gaussian<sigma>`: the same standard deviation sigma/255 in every band (30, 50, 70 in the paper);
    - `blind`: one standard deviation a cube, uniform in `blind_range`;
    - `noniid`: one a band, drawn from 10, 30, 50, 70;
    - `stripe`, `deadline`, `impulse`: `noniid`, and in floor(D/3) random bands columns shifted by a constant from
      U(-0.25, 0.25), columns set to 0, or pixels set to 0 or 1 with chance 0.1, 0.3, 0.5 or 0.7, half each;
    - `mixture`: `noniid` and all three on disjoint thirds of the bands.

    Striped columns of a band: a whole number from floor(0.05 W) to floor(0.15 W) - 1; dead columns the same with ceil.
    Narrow cubes, where that range is empty or only 0 (W < 14, W < 7), get one column, and the record says so.

    Args:
        clean: (D, H, W), finite.
        case: one of `CASES`, or `gaussian` with another sigma.
        seed: a seed, or a generator that is used up further (one for a whole training run).
        blind_range: least and largest sigma of `blind`, on the scale of 255.

    Returns:
        The noisy cube (D, H, W) float32, and what was done.

    Raises:
        InputError: an unknown case, a cube of another shape, too few bands for the case, values that are not finite.

    Complexity: O(D H W) time; one float32 copy of the cube and a band beside it.

    Source: Lai, Yan, Fu 2023 (arXiv 2303.09040), section 4.1, with the counts of its released generators; the range of
    `blind` is not printed there: 10 to 70 gives its 17.3 dB of the noisy cubes.

    Example:
        >>> noisy, record = add_noise(np.full((31, 64, 64), 0.5), "mixture", seed=1)
        >>> noisy.shape, len(record.stripes), len(record.deadlines), len(record.impulses)
        ((31, 64, 64), 10, 10, 10)
    """
    cube = _checked(clean)
    rng = np.random.default_rng(seed)
    sigmas = _sigmas(case, len(cube), rng, blind_range)
    for band, sigma in zip(cube, sigmas, strict=True):
        band += rng.standard_normal(band.shape, np.float32) * np.float32(sigma)
    notes: list[str] = []
    done: dict[str, dict] = {kind: {} for kind in _STRUCTURED}
    for kind, bands in _structured_bands(case, len(cube), rng, notes).items():
        done[kind] = _APPLY[kind](cube, bands, rng, notes)
    record = NoiseRecord(
        case, tuple(float(s) for s in sigmas), done["stripe"], done["deadline"], done["impulse"], tuple(notes)
    )
    return cube, record


def _checked(clean: NDArray[np.floating]) -> Cube:
    if clean.ndim != 3 or 0 in clean.shape:
        raise InputError(
            "noise is added to cubes of three axes", where="clean", found=clean.shape, expected="(bands, rows, columns)"
        )
    cube = np.array(clean, np.float32)
    if not np.isfinite(cube).all():
        bad = int((~np.isfinite(cube)).sum())
        raise InputError(
            "the clean cube has values that are not finite",
            where="clean",
            found=f"{bad:,} of {cube.size:,}",
            cure="fill or cut these voxels first",
        )
    return cube


def _sigmas(case: str, bands: int, rng: np.random.Generator, blind: tuple[float, float]) -> NDArray[np.float64]:
    if (fixed := _GAUSSIAN.fullmatch(case)) is not None:
        return np.full(bands, float(fixed[1]) / 255)
    if case == "blind":
        if not 0 <= blind[0] <= blind[1]:
            raise InputError(
                "not a range of noise levels", where="blind_range", found=blind, expected="0 <= least <= most"
            )
        return np.full(bands, rng.uniform(*blind) / 255)
    if case in ("noniid", "mixture", *_STRUCTURED):
        return rng.choice(NONIID_SIGMAS, bands) / 255
    raise InputError("no such noise case", where="case", found=case, expected=", ".join(CASES))


def _structured_bands(
    case: str, bands: int, rng: np.random.Generator, notes: list[str]
) -> dict[str, NDArray[np.integer]]:
    """Kind -> bands; one permutation is cut, so that no band has two kinds."""
    kinds = _STRUCTURED if case == "mixture" else tuple(kind for kind in _STRUCTURED if kind == case)
    if not kinds:
        return {}
    count = bands // 3
    if count == 0:
        if case == "mixture":
            raise InputError("too few bands for a mixture", where="clean", found=bands, expected="at least 3")
        count = 1
        notes.append(f"{case}: 1 of {bands} bands, since a third of {bands} is none")
    order = rng.permutation(bands)
    return {kind: np.sort(order[i * count : (i + 1) * count]) for i, kind in enumerate(kinds)}


def _column_counts(
    width: int, bands: int, rounding: Callable[[float], int], rng: np.random.Generator
) -> tuple[NDArray[np.int64], bool]:
    """How many columns each band gets, upper bound exclusive, and whether the rule gave none and 1 was taken."""
    least, most = rounding(_LEAST * width), rounding(_MOST * width)
    if most <= max(least, 1):  # an empty range, or one that holds 0 only
        return np.ones(bands, np.int64), True
    return rng.integers(least, most, bands), False


def _columns(
    width: int, bands: NDArray[np.integer], kind: str, rng: np.random.Generator, notes: list[str]
) -> dict[int, tuple[int, ...]]:
    counts, bent = _column_counts(width, len(bands), math.ceil if kind == "deadline" else math.floor, rng)
    if bent:
        notes.append(f"{kind}: 1 column a band, since 5 to 15 % of {width} columns leave no other choice")
    return {
        int(band): tuple(np.sort(rng.permutation(width)[:count]).tolist())
        for band, count in zip(bands, counts, strict=True)
    }


def _stripe(cube: Cube, bands: NDArray[np.integer], rng: np.random.Generator, notes: list[str]) -> dict:
    chosen = _columns(cube.shape[2], bands, "stripe", rng, notes)
    for band, columns in chosen.items():
        cube[band][:, list(columns)] -= rng.uniform(-_STRIPE, _STRIPE, len(columns)).astype(np.float32)
    return chosen


def _deadline(cube: Cube, bands: NDArray[np.integer], rng: np.random.Generator, notes: list[str]) -> dict:
    chosen = _columns(cube.shape[2], bands, "deadline", rng, notes)
    for band, columns in chosen.items():
        cube[band][:, list(columns)] = 0
    return chosen


def _impulse(cube: Cube, bands: NDArray[np.integer], rng: np.random.Generator, notes: list[str]) -> dict:
    amounts = rng.choice(IMPULSE_AMOUNTS, len(bands))
    for band, amount in zip(bands, amounts, strict=True):
        hit, salt = rng.random(cube.shape[1:]) < amount, rng.random(cube.shape[1:]) < 0.5
        cube[band][hit] = salt[hit]
    return {int(band): float(amount) for band, amount in zip(bands, amounts, strict=True)}


_APPLY: dict[str, Callable[[Cube, NDArray[np.integer], np.random.Generator, list[str]], dict]] = {
    "stripe": _stripe,
    "deadline": _deadline,
    "impulse": _impulse,
}
