"""The colours of films of poses: those of bodies, fading into white and into each other."""

from __future__ import annotations

import functools

import numpy as np

from pipelines.evaluation import plots as house
from pipelines.evaluation.films import Palette
from pipelines.pose.body import GREY

__all__ = ["palette"]


@functools.cache
def palette() -> Palette:
    """The 256 colours of a GIF: every colour of the pictures fades into white, those of bodies into each other.

    Example:
        >>> palette().table[0].tolist()
        [255, 255, 255]
    """
    base = [house.BLUE, house.ORANGE, house.INK, house.FAINT, GREY, house.SKY]
    colours = np.array([[int(text[place : place + 2], 16) for place in (1, 3, 5)] for text in base], np.float32)
    white, steps = np.full(3, 255, np.float32), np.linspace(0, 1, 33, dtype=np.float32)[1:, None]
    fading = [white[None], *(white + steps * (colour - white) for colour in colours)]
    pairs = [(first, second) for first in range(3) for second in range(first)]
    mixed = [colours[a] + steps[2:-2:2] * (colours[b] - colours[a]) for a, b in pairs]
    table = np.concatenate([*fading, *mixed])[:256].round()
    whole = np.concatenate([table, np.tile(table[-1:], (256 - len(table), 1))])  # the rest stays without use
    return Palette(whole.astype(np.uint8), bits=5)
