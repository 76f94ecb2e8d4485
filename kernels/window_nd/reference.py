"""Shifted-window attention as Swin (arXiv:2103.14030, section 3.2) defines it, for any number of axes, in float64.

On an axis of T tokens, padded to P = w ceil(T / w), token c stands at p = (c - s) mod P after the roll. Two share

    a window   if p // w is equal on every axis, and
    a region   if c < s (rolled over the edge) is equal on every axis,

and attend to each other if they share both:  out_i = sum_j softmax_j(scale <q_i, k_j> + bias[p_i, p_j]) v_j.
One sample and one window at a time: slow, and right.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["window_nd"]


def window_nd(
    qkv: Tensor,
    grid: Sequence[int],
    window: Sequence[int],
    shift: Sequence[int] | None = None,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """qkv (B, T, 3, H, D), mask (B, T), bias (H, W, W) -> (B, T, H, D). Time O(B T W H D)."""
    samples = []
    scale = qkv.shape[-1] ** -0.5 if scale is None else scale
    for b, sample in enumerate(qkv.double()):
        rows: dict[int, Tensor] = {}
        for tokens, places in _neighbourhoods(grid, window, shift or [0] * len(grid)):
            keys = [i for i in range(len(tokens)) if mask is None or bool(mask[b, tokens[i]])]
            q = sample[tokens, 0].transpose(0, 1)  # (H, N, D)
            k, v = (sample[[tokens[i] for i in keys], part].transpose(0, 1) for part in (1, 2))
            scores = scale * q @ k.transpose(1, 2)
            if bias is not None:
                scores = scores + bias.double()[:, places][:, :, [places[i] for i in keys]]
            attended = (scores.softmax(-1) @ v).transpose(0, 1)  # without keys: a sum of nothing, zeros
            rows |= dict(zip(tokens, attended, strict=True))
        samples.append(torch.stack([rows[t] for t in range(sample.shape[0])]))
    return torch.stack(samples).to(qkv.dtype)


def _neighbourhoods(
    grid: Sequence[int], window: Sequence[int], shift: Sequence[int]
) -> list[tuple[list[int], list[int]]]:
    """Numbers of the tokens that attend to each other, and their places within the rolled window."""
    found: dict[tuple[int, ...], tuple[list[int], list[int]]] = {}
    for number, token in enumerate(itertools.product(*map(range, grid))):
        key, place = [], 0
        for c, T, size, moved in zip(token, grid, window, shift, strict=True):
            w, s = (T, 0) if size >= T else (size, moved)
            p = (c - s) % (w * -(-T // w))
            key += [p // w, int(c < s)]
            place = place * w + p % w
        tokens, places = found.setdefault(tuple(key), ([], []))
        tokens.append(number)
        places.append(place)
    return list(found.values())
