"""Compiled loops of other libraries, without a trace in torch's threads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

__all__ = ["compiled_loops"]


@contextlib.contextmanager
def compiled_loops() -> Iterator[None]:
    """Around numba's parallel loops (stumpy, MiniRocket): as many threads as torch has, and torch keeps its own number.

    Both share OpenMP. Without this the first such loop leaves torch with as many threads as there are cores, whatever
    was asked for; two busy cores then took a hundred times as long for a step.

    Example:
        >>> import torch
        >>> before = torch.get_num_threads()
        >>> with compiled_loops():
        ...     torch.set_num_threads(before + 1)
        >>> torch.get_num_threads() == before
        True
    """
    import numba
    import torch

    threads, compiled = torch.get_num_threads(), numba.get_num_threads()
    numba.set_num_threads(max(1, min(threads, numba.config.NUMBA_NUM_THREADS)))
    try:
        yield
    finally:
        numba.set_num_threads(compiled)
        torch.set_num_threads(threads)
