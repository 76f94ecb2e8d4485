"""Which keys a query may see by its place, and how queries are cut into pieces that see one slice of the keys each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["MASKED", "Piece", "band_of", "first_seeing", "pieces", "visible_band"]

MASKED = -1e30  # stands for minus infinity where a finite number is safer: no difference of infinities, hence no NaN


def band_of(causal: bool, window: int | tuple[int, int] | None) -> tuple[int, int]:
    """Keys that a query sees to the left and to the right of its own place; -1 stands for all.

    Args:
        causal: nothing to the right.
        window: None; ``(left, right)`` with -1 for all; or one number w, which is (w - 1, 0) if causal, else
            (w // 2, w // 2).

    Raises:
        ValueError: a window that is none of these.

    Example:
        >>> band_of(True, 256), band_of(False, 5), band_of(True, None)
        ((255, 0), (2, 2), (-1, 0))
    """
    if window is None:
        return (-1, 0) if causal else (-1, -1)
    if isinstance(window, int) and not isinstance(window, bool):
        if window < 1:
            raise ValueError(f"window: found {window}, expected at least 1 key; None means no window")
        return (window - 1, 0) if causal else (window // 2, window // 2)
    if (
        not isinstance(window, tuple | list)
        or len(window) != 2
        or any(not isinstance(side, int) or isinstance(side, bool) or side < -1 for side in window)
    ):
        raise ValueError(f"window: found {window!r}, expected a number or (left, right), each at least 0 or -1 for all")
    left, right = window
    return left, (0 if causal else right)


def visible_band(T: int, S: int, left: int, right: int, device: torch.device) -> Tensor:
    """(T, S) bool: whether query t sees key s by its place; the last query stands at the last key.

    Example:
        >>> visible_band(2, 3, 1, 0, torch.device("cpu")).tolist()
        [[True, True, False], [False, True, True]]
    """
    return _inside(torch.arange(T, device=device) + (S - T), torch.arange(S, device=device), left, right)


class Piece(NamedTuple):
    """Queries [t0, t1) and the keys [s0, s1) that at least one of them sees."""

    t0: int
    t1: int
    s0: int
    s1: int

    def visible(self, T: int, S: int, left: int, right: int, device: torch.device) -> Tensor | None:
        """(t1 - t0, s1 - s0) bool, or None where every query sees the whole slice."""
        first, last = self.t0 + S - T, self.t1 - 1 + S - T
        if (right < 0 or self.s1 - 1 <= first + right) and (left < 0 or self.s0 >= last - left):
            return None
        places = torch.arange(first, last + 1, device=device)
        return _inside(places, torch.arange(self.s0, self.s1, device=device), left, right)


def first_seeing(T: int, S: int, right: int) -> int:
    """The first query that sees a key by its place; with more queries than keys, earlier ones may see none."""
    return 0 if right < 0 else min(T, max(0, T - S - right))


def pieces(T: int, S: int, left: int, right: int, rows: int) -> Iterator[Piece]:
    """Cut the queries that see anything into pieces of at most ``rows``.

    Example:
        >>> list(pieces(5, 5, 1, 0, 2))
        [Piece(t0=0, t1=2, s0=0, s1=2), Piece(t0=2, t1=4, s0=1, s1=4), Piece(t0=4, t1=5, s0=3, s1=5)]
    """
    for t0 in range(first_seeing(T, S, right), T, rows):
        t1 = min(T, t0 + rows)
        s0 = 0 if left < 0 else max(0, t0 + S - T - left)
        s1 = S if right < 0 else min(S, t1 + S - T + right)
        yield Piece(t0, t1, s0, s1)


def _inside(places: Tensor, keys: Tensor, left: int, right: int) -> Tensor:
    ahead = keys[None, :] - places[:, None]
    inside = torch.ones_like(ahead, dtype=torch.bool)
    if left >= 0:
        inside = inside & (ahead >= -left)
    if right >= 0:
        inside = inside & (ahead <= right)
    return inside
