"""Windows of scans made different for training: turned, scaled, moved, mirrored, noisy, smoothed, with holes.

What is done to a window depends on its seed alone, never on the batch that it stands in, and every frame of a window
gets the same: time courses stay time courses. The background keeps its value exactly, because everything is done to the
differences from it; what is turned in from outside the image is the nearest voxel of its edge.

Source: the released training code of SwiFT (arXiv 2307.05916), `augment`: affine, noise, smoothing in this order with
the ranges of MONAI's random transforms. There the second view of a window is a view of the first, because the batch is
written in place; here nothing is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.errors import ConfigError, InputError
from pipelines.fmri.augment_options import AugmentOptions

__all__ = ["AugmentOptions", "Mixed", "augment", "mixup"]

_AT_ONCE = 1 << 24  # voxels that are worked on together: 64 MB
_DRAWS = 17  # uniform numbers of a window; a place for each purpose, so that no option moves the draws of another
_MOVED, _FLIPPED, _NOISY, _NOISE, _SMOOTHED = 0, 10, 11, 12, 13
_ROTATE, _SCALE, _SHIFT, _SIGMA = slice(1, 4), slice(4, 7), slice(7, 10), slice(14, 17)
_TAIL = 4.0  # standard deviations after which a smoothing kernel ends, as MONAI's


class Mixed(NamedTuple):
    """Windows (B, ...) of which each has a share (B,) of its own and the rest of another one's, of number (B,)."""

    windows: Tensor
    other: Tensor
    share: Tensor


def augment(
    x: Tensor,
    options: AugmentOptions,
    seeds: Sequence[int],
    *,
    fill: Tensor | Sequence[float] | None = None,
    zooms: Sequence[float] = (1.0, 1.0, 1.0),
) -> Tensor:
    """Windows turned, scaled, moved, mirrored, with noise, smoothed and with holes, as the options say.

    Args:
        x: (B, 1, X, Y, Z, T) standardised windows; never changed.
        options: what is done and how often.
        seeds: B whole numbers from 0 to 2^63 - 1; the same number does the same to a window on every device, apart
            from rounding.
        fill: (B,) value of each window's background; by default the value of its first voxel, as released.
        zooms: edges of a voxel along X, Y, Z in mm: angles are angles in mm.

    Returns:
        (B, 1, X, Y, Z, T), new; type and device of x; gradients pass.

    Raises:
        ConfigError: an option out of range, or seeds, fill or zooms that do not fit.
        InputError: another shape.

    Complexity: O(B X Y Z T), besides O(B X Y Z) to draw; at most 64 MB of voxels, or one window, at once.

    Source: the released code of SwiFT (arXiv 2307.05916), `augment`; `shift`, `flip` and `drop` are ours.

    Example:
        >>> x = torch.full((2, 1, 6, 6, 6, 3), -2.0)
        >>> x[:, :, 2:4, 2:4, 2:4] = 1.0
        >>> y = augment(x, AugmentOptions(), seeds=[1, 2])
        >>> y.shape, y[0, 0, 0, 0, 0].tolist(), bool((y[0] == y[1]).all())
        (torch.Size([2, 1, 6, 6, 6, 3]), [-2.0, -2.0, -2.0], False)
    """
    options.validate()
    _check(x, seeds, zooms)
    if not len(x):
        return x.clone()
    exact = x if x.dtype == torch.float64 else x.float()
    level = exact[:, 0, 0, 0, 0, 0] if fill is None else torch.as_tensor(fill, dtype=exact.dtype, device=x.device)
    if level.shape != (len(x),):
        raise ConfigError("one value a window", where="fill", found=tuple(level.shape), expected=(len(x),))
    level = level.view(-1, 1, 1, 1, 1)
    most = max(1, _AT_ONCE // max(1, x[0].numel()))
    parts = []
    for start in range(0, len(x), most):
        part = slice(start, start + most)
        frames = exact[part, 0].permute(0, 4, 1, 2, 3) - level[part]  # (b, T, X, Y, Z), 0 where background
        frames = _augmented(frames, options, seeds[part], zooms) + level[part]
        parts.append(frames.permute(0, 2, 3, 4, 1).unsqueeze(1).to(x.dtype))
    return torch.cat(parts).contiguous()


def mixup(x: Tensor, alpha: float, seed: int) -> Mixed:
    """Each window mixed with another one of the batch: share of its own, at least a half, and the rest of the other.

    The labels are to be mixed in the loss: ``share * loss(own) + (1 - share) * loss(label[other])``.

    Args:
        x: (B, ...) windows; never changed.
        alpha: both parameters of the beta distribution of the share, above 0; the larger, the more even.
        seed: of shares and partners.

    Raises:
        ConfigError: alpha is no number above 0.

    Source: Zhang et al. 2018 (arXiv 1710.09412), equation 1.

    Example:
        >>> mixed = mixup(torch.eye(3), 0.5, seed=0)
        >>> torch.allclose(mixed.windows.sum(1), torch.ones(3)), bool((mixed.share >= 0.5).all())
        (True, True)
    """
    if isinstance(alpha, bool) or not 0 < alpha < math.inf:
        raise ConfigError("no parameter of a beta distribution", where="augment.mixup", found=alpha, expected="above 0")
    draws = np.random.default_rng(seed)
    other = torch.from_numpy(draws.permutation(len(x))).to(x.device)
    beta = draws.beta(alpha, alpha, len(x))
    share = torch.from_numpy(np.maximum(beta, 1 - beta)).to(x)
    weight = share.view(-1, *[1] * (x.dim() - 1))
    return Mixed(weight * x + (1 - weight) * x[other], other, share)


def _check(x: Tensor, seeds: Sequence[int], zooms: Sequence[float]) -> None:
    if x.dim() != 6 or x.shape[1] != 1 or 0 in x.shape[2:] or not x.is_floating_point():
        found = f"{x.dtype} {tuple(x.shape)}"
        raise InputError("no windows of scans", where="x", found=found, expected="(B, 1, X, Y, Z, T), floating point")
    if len(seeds) != len(x):
        raise ConfigError("one seed a window", where="seeds", found=len(seeds), expected=len(x))
    if len(zooms) != 3 or not all(0 < edge < math.inf for edge in zooms):
        raise ConfigError("no edges of a voxel", where="zooms", found=tuple(zooms), expected="three numbers above 0")


def _augmented(frames: Tensor, options: AugmentOptions, seeds: Sequence[int], zooms: Sequence[float]) -> Tensor:
    """Frames (b, T, X, Y, Z) as differences from the background; each window draws from a generator of its own."""
    sources = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    draws = torch.stack([torch.rand(_DRAWS, generator=one, dtype=torch.float64) for one in sources])

    def some(place: int, chance: float, change: Callable[[Tensor, list[int]], Tensor]) -> None:
        """Change the windows that are drawn."""
        nonlocal frames
        chosen = (draws[:, place] < chance).nonzero()[:, 0].tolist()
        if len(chosen) == len(frames):
            frames = change(frames, chosen)
        elif chosen:
            frames = frames.index_copy(0, torch.tensor(chosen, device=frames.device), change(frames[chosen], chosen))

    if options.moves:
        some(_MOVED, options.probability, lambda part, rows: _turned(part, draws[rows], options, zooms))
    if options.flip:
        some(_FLIPPED, 0.5, lambda part, rows: part.flip(2))
    if options.noise > 0:
        some(
            _NOISY,
            options.noise_chance,
            lambda part, rows: _noisy(part, draws[rows], [sources[i] for i in rows], options),
        )
    if options.smooth > 0:
        some(_SMOOTHED, options.smooth_chance, lambda part, rows: _smoothed(part, draws[rows, _SIGMA] * options.smooth))
    if options.drop > 0:
        frames = _with_holes(frames, sources, options)
    return frames


def _turned(frames: Tensor, draws: Tensor, options: AugmentOptions, zooms: Sequence[float]) -> Tensor:
    """Frames seen through a turned, scaled and moved grid, by linear interpolation; axes of one voxel stay."""
    wide = [axis for axis in range(3) if frames.shape[2 + axis] > 1]
    if not wide:
        return frames
    # The sampler counts from -1 at the first to 1 at the last voxel, and takes the last axis first.
    matrix, move = _affine(draws, options, zooms, wide)
    sizes = [frames.shape[2 + axis] for axis in wide]
    half = torch.tensor(sizes, dtype=matrix.dtype).sub(1) / 2
    matrix, move = (matrix * half / half[:, None]).to(frames), (move / half).to(frames)
    ends = [torch.linspace(-1, 1, size, dtype=frames.dtype, device=frames.device) for size in sizes]
    lattice = torch.stack(torch.meshgrid(ends, indexing="ij"), -1).reshape(-1, len(wide))
    grid = (lattice @ matrix.transpose(1, 2) + move[:, None]).flip(-1)
    if len(wide) == 1:  # It knows no single axis: another one, of one voxel, is put before it.
        sizes, grid = [1, *sizes], F.pad(grid, (0, 1))
    grid = grid.view(len(frames), *sizes, grid.shape[-1])
    flat = frames.reshape(*frames.shape[:2], *sizes)
    return F.grid_sample(flat, grid, padding_mode="border", align_corners=True).view(frames.shape)


def _affine(
    draws: Tensor, options: AugmentOptions, zooms: Sequence[float], wide: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Matrix (b, n, n) and move (b, n) from a voxel of the result to where it is read, about the centre, for n axes."""
    symmetric = 2 * draws - 1
    angles = symmetric[:, _ROTATE] * math.radians(options.rotate)
    turn = torch.eye(3, dtype=draws.dtype).expand(len(draws), 3, 3)
    for axis in range(3):
        one, two = (other for other in range(3) if other != axis)
        if one in wide and two in wide:
            plane = torch.eye(3, dtype=draws.dtype).repeat(len(draws), 1, 1)
            plane[:, one, one] = plane[:, two, two] = angles[:, axis].cos()
            plane[:, two, one] = angles[:, axis].sin()
            plane[:, one, two] = -plane[:, two, one]
            turn = turn @ plane
    size = torch.tensor(list(zooms), dtype=draws.dtype)
    matrix = turn * (1 + symmetric[:, None, _SCALE] * options.scale) * size / size[:, None]
    move = symmetric[:, _SHIFT] * options.shift
    return matrix[:, wide][:, :, wide], move[:, wide]


def _noisy(frames: Tensor, draws: Tensor, sources: Sequence[torch.Generator], options: AugmentOptions) -> Tensor:
    """Frames with one field of normal numbers a window."""
    shape = frames.shape[2:]
    deviation = draws[:, _NOISE] * options.noise
    fields = [torch.randn(shape, generator=one) * float(sd) for one, sd in zip(sources, deviation, strict=True)]
    noise = torch.stack(fields).unsqueeze(1).to(frames)
    if options.noise_background:
        return frames + noise
    return frames + noise * (frames != 0).any(1, keepdim=True)


def _smoothed(frames: Tensor, sigma: Tensor) -> Tensor:
    """Frames under Gaussians of standard deviations sigma (b, 3), as the area over each voxel; edges are continued."""
    for axis in range(3):
        reach = min(math.ceil(_TAIL * float(sigma[:, axis].max())), 32)
        if frames.shape[2 + axis] == 1 or reach == 0:
            continue
        steps = torch.arange(-reach, reach + 1, dtype=sigma.dtype)
        scale = sigma[:, axis, None].clamp(min=1e-6) * math.sqrt(2.0)
        weights = torch.erf((steps + 0.5) / scale) - torch.erf((steps - 0.5) / scale)
        weights = (weights / weights.sum(1, keepdim=True)).to(frames)
        count = frames.shape[2 + axis]
        total = torch.zeros_like(frames)
        for number, step in enumerate(range(-reach, reach + 1)):
            place = torch.arange(count, device=frames.device).add(step).clamp(0, count - 1)
            total = total + weights[:, number].view(-1, 1, 1, 1, 1) * frames.index_select(2 + axis, place)
        frames = total
    return frames


def _with_holes(frames: Tensor, sources: Sequence[torch.Generator], options: AugmentOptions) -> Tensor:
    """Frames in which each block of voxels is background with the chance `drop`."""
    shape, edge = frames.shape[2:], options.drop_block
    blocks = [-(-count // edge) for count in shape]
    holes = torch.stack([torch.rand(blocks, generator=one) < options.drop for one in sources])
    for axis, count in enumerate(shape, 1):
        holes = holes.repeat_interleave(edge, axis).narrow(axis, 0, count)
    return frames.masked_fill(holes.to(frames.device).unsqueeze(1), 0.0)
