"""What the compiled CPU loops share: how they are compiled, how they are spread over threads, a fast exponential.

Loops run on plain threads that end with the call, never on numba's own pool: its OpenMP layer aborts a worker that was
forked after the pool had started, and a data loader forks. Import this module only where a loop runs: it imports numba.
"""

from __future__ import annotations

import itertools
import logging
import pathlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
import torch
from numba.core import types
from numba.extending import intrinsic
from torch import Tensor

__all__ = ["array", "compile_seconds", "compiled", "exp32", "inlined", "ranges", "run", "sigmoid32"]

# NaN and infinity keep their meaning; only the order of sums and the fusing of products are free.
_FREEDOMS = {"contract", "nsz", "reassoc", "arcp"}
_log = logging.getLogger("pipelines.kernels")
_seconds: dict[str, float] = {}
_STAMPS = tuple(
    (file.stat().st_mtime, file.stat().st_size) for file in sorted(pathlib.Path(__file__).parent.glob("_[nl]*.py"))
)


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a loop on its first call, without the interpreter's lock, and keep the machine code for later processes.

    The loop's last three arguments are integers that ``run`` gives: the number of the part, and its first and end item.
    Index slices by ``range(len(slice))``: an index that could be negative is wrapped, and then nothing is vectorised.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": _FREEDOMS}
    try:
        loop = numba.njit(function, cache=True, **options)
    except RuntimeError:
        # No folder where numba could keep the machine code: compile in every process instead.
        return numba.njit(function, **options)
    file = loop._cache._cache_file
    # numba asks only whether the loop's own file has changed; what melts into it from here must count too.
    file._source_stamp = (file._source_stamp, _STAMPS)
    return loop


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a small function that loops call; it melts into them."""
    return numba.njit(function, nogil=True, error_model="numpy", fastmath=_FREEDOMS, inline="always")


def ranges(total: int, least: int = 1) -> list[tuple[int, int]]:
    """Cut ``total`` items into one range a thread, none with fewer than ``least`` items unless it is the only one.

    Example:
        >>> ranges(7, least=7)
        [(0, 7)]
    """
    threads = max(1, min(torch.get_num_threads(), total // max(1, least)))
    edges = [total * i // threads for i in range(threads + 1)]
    return list(itertools.pairwise(edges))


def run(loop: Any, parts: Sequence[tuple[int, int]], *arguments: Any) -> None:
    """Call ``loop(*arguments, part, low, high)`` for every range, the first here and each other in a thread.

    Raises:
        Exception: the first that a part raised, after all have ended.
    """
    if len(parts) == 1:
        with _noted(loop):
            loop(*arguments, 0, *parts[0])
        return
    failures: list[BaseException] = []

    def work(part: int, low: int, high: int) -> None:
        try:
            loop(*arguments, part, low, high)
        except BaseException as failure:  # handed to the caller below
            failures.append(failure)

    with _noted(loop):
        helpers = [threading.Thread(target=work, args=(i, *parts[i])) for i in range(1, len(parts))]
        for helper in helpers:
            helper.start()
        work(0, *parts[0])
        for helper in helpers:
            helper.join()
    if failures:
        raise failures[0]


def compile_seconds() -> dict[str, float]:
    """Seconds that compiling, or loading what an earlier process compiled, took in this process, by loop."""
    return dict(_seconds)


class _noted:
    """Measure and tell a loop's first call with new types, nearly all of which is compilation."""

    def __init__(self, loop: Any) -> None:
        # Not loop.signatures, which hashes every type of every call: a tenth of a millisecond's work.
        self.loop, self.known, self.start = loop, len(loop.overloads), time.perf_counter()

    def __enter__(self) -> None:
        self.misses = sum(self.loop.stats.cache_misses.values())

    def __exit__(self, *_: object) -> None:
        if len(self.loop.overloads) == self.known:
            return
        name = f"{self.loop.py_func.__module__.split('.')[-2:][0]}.{self.loop.py_func.__name__.lstrip('_')}"
        seconds = time.perf_counter() - self.start
        _seconds[name] = _seconds.get(name, 0.0) + seconds
        fresh = sum(self.loop.stats.cache_misses.values()) > self.misses
        _log.info("%s %s in %.1f s", "compiled" if fresh else "loaded", name, seconds)


def array(tensor: Tensor) -> np.ndarray:
    """A contiguous tensor in main memory as an array that shares its memory; bfloat16 as its bits in int16."""
    plain = tensor.detach()
    return plain.view(torch.int16).numpy() if plain.dtype == torch.bfloat16 else plain.numpy()


@intrinsic
def _float_of_bits(typing: Any, bits: Any) -> Any:
    """The float32 with the given 32 bits."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), code


@inlined
def exp32(x):
    """exp(x) in float32, one unit in the last place, without branches: a loop over it becomes vector instructions.

    x is reduced to r in [-ln 2 / 2, ln 2 / 2] by a whole number n of ln 2, exp(r) is a polynomial of degree 6 (Cephes'
    coefficients), and 2^n is written into the exponent. Below -87.3 it gives 0, above 88.3 about 2e38; NaN stays.
    """
    gone = x < np.float32(-87.33654)
    x = np.float32(-87.33654) if gone else x
    x = np.float32(88.37626) if x > np.float32(88.37626) else x
    n = np.float32(np.floor(x * np.float32(1.4426950408889634) + np.float32(0.5)))
    r = x - n * np.float32(0.693359375)
    r = r - n * np.float32(-2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * (r * r) + r + np.float32(1.0)
    p = p * _float_of_bits(np.int32((np.int32(n) + np.int32(127)) << np.int32(23)))
    return np.float32(0.0) if gone else p


@inlined
def sigmoid32(x):
    """1 / (1 + exp(-x)) in float32."""
    return np.float32(1.0) / (np.float32(1.0) + exp32(-x))
