"""Which tokens attend to each other: the boxes into which shifted windows cut a grid, as tables of token numbers.

On one axis of length T, padded to P, token c stands at place (c - s) mod P of the rolled axis; it shares a window with
those of equal place // w, and may see those that were rolled over the edge (c < s) exactly if it was. So shifted
windows with their mask are a cut of the grid into boxes with dense attention inside: no mask, no padding, no wasted
scores. Tables are kept, as models ask for few layouts again and again.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Boxes", "Group", "boxes", "groups_on", "tiles"]


@dataclass(frozen=True)
class Group:
    """Boxes of one size: ``tokens`` (boxes, N) token numbers, ``places`` (N,) of the first box within its window."""

    tokens: Tensor
    places: Tensor


@dataclass(frozen=True)
class Boxes:
    """A grid cut into boxes.

    Attributes:
        order: (T,) token numbers, box after box.
        places: (T,) the place of each of them within its rolled window, in [0, W).
        starts: where each box begins in ``order``, and T at the end.
    """

    order: Tensor
    places: Tensor
    starts: tuple[int, ...]

    def groups(self, by_place: bool) -> list[Group]:
        """Boxes of equal size together; with ``by_place`` only those that lie alike in their windows, as a bias asks.

        Tokens of a box are in the order of the grid, so its first and last place tell all between.
        """
        found: dict[tuple[int, ...], list[int]] = {}
        places = self.places.tolist()
        for start, end in zip(self.starts, self.starts[1:], strict=False):
            key = (end - start, places[start], places[end - 1]) if by_place else (end - start,)
            found.setdefault(key, []).append(start)
        groups = []
        for (count, *_), starts in found.items():
            at = torch.tensor(starts)[:, None] + torch.arange(count)
            groups.append(Group(self.order[at], self.places[starts[0] : starts[0] + count]))
        return groups


@functools.lru_cache(maxsize=64)
def boxes(grid: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...]) -> Boxes:
    """Cut a grid; windows are no longer than their axes. Time O(T log T), in main memory."""
    box = place = torch.zeros(1, dtype=torch.int64)
    for T, w, s in zip(grid, window, shift, strict=True):
        padded = -(-T // w) * w
        token = torch.arange(T)
        rolled = torch.remainder(token - s, padded)
        piece = 2 * torch.div(rolled, w, rounding_mode="floor") + (token < s)
        box = (box[:, None] * (2 * padded // w) + piece).reshape(-1)
        place = (place[:, None] * w + rolled % w).reshape(-1)
    order = torch.argsort(box, stable=True)
    counts = torch.unique_consecutive(box[order], return_counts=True)[1]
    return Boxes(order, place[order], (0, *counts.cumsum(0).tolist()))


@functools.lru_cache(maxsize=64)
def groups_on(
    grid: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...], by_place: bool, device: torch.device
) -> tuple[Group, ...]:
    """The groups of a cut with their tables on a device."""
    made = boxes(grid, window, shift).groups(by_place)
    return tuple(Group(group.tokens.to(device), group.places.to(device)) for group in made)


@functools.lru_cache(maxsize=64)
def tiles(
    grid: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...], block: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """For kernels: order (T,), places (T,) and tiles (n, 3) as int32: start of the box, its length, first of the tile.

    A tile is up to ``block`` tokens of one box.
    """
    cut = boxes(grid, window, shift)
    rows = [
        (start, end - start, first)
        for start, end in zip(cut.starts, cut.starts[1:], strict=False)
        for first in range(0, end - start, block)
    ]
    table = torch.tensor(rows, dtype=torch.int32)
    return cut.order.to(device, torch.int32), cut.places.to(device, torch.int32), table.to(device)
