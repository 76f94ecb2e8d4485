"""Measure the contests of ``_bench``: parity first, then time in turn, extra memory, and the share of the machine.

Only ratios within one run mean something: all contestants take turns, so that a busy moment hits all alike, and the
median counts. Extra memory is the resident set's peak during one call, above its start and less what is returned.
"""

from __future__ import annotations

import contextlib
import gc
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._bench import Contest, Line, Sweep
from core_attention.kernels._machine import Peaks, extra_memory

__all__ = [
    "PEER",
    "Figure",
    "LineResult",
    "SweepResult",
    "difference",
    "exponent",
    "loop_seconds",
    "measure_line",
    "measure_sweep",
]

PEER = "peer"
_SHORTEST = 0.005  # seconds that one measurement lasts at least: shorter calls are repeated within it
_QUICK = 0.3  # a call under so many seconds is made once untimed before every measurement
_SLOW = 2.0  # a first call of so many seconds needs no second one to tell how long a call takes
_LEAST_MEMORY = 1_000_000  # bytes: the resident set is counted no finer

Call = Callable[[], Any]


@dataclass(frozen=True)
class Figure:
    """One contestant of one line.

    Attributes:
        contestant: "peer" or a back end.
        milliseconds, spread: median and interquartile range.
        ratio: the peer's time over ours.
        goal: the least ratio asked for. met: whether it was reached.
        extra_memory: bytes, None where it cannot be measured.
        share: of the machine's peak. share_of: which peak, "product" of matrices or "copy" of memory.
        difference: relative root mean square difference from the peer, the largest of all outputs.
        trouble: why there is no figure; empty if there is one.
    """

    contestant: str
    milliseconds: float | None = None
    spread: float | None = None
    ratio: float | None = None
    goal: float | None = None
    met: bool | None = None
    extra_memory: int | None = None
    share: float | None = None
    share_of: str = ""
    difference: float | None = None
    trouble: str = ""

    @property
    def failed(self) -> bool:
        """True where the results were wrong or the call broke; not where a back end cannot run on this machine."""
        return bool(self.trouble) and not self.trouble.startswith("not run")


@dataclass(frozen=True)
class LineResult:
    """The figures of one line: the peer's first."""

    operation: str
    name: str
    peer: str
    figures: list[Figure]


@dataclass(frozen=True)
class SweepResult:
    """Time and memory by size.

    Attributes:
        operation, name, axis, peer: as in ``Sweep``.
        sizes: that were measured.
        milliseconds, extra_memory: by contestant, one a size; None where there is none.
        exponents: by contestant, {"time": ..., "memory": ...}; None where too little is known.
        trouble: by contestant, what went wrong, if anything did.
    """

    operation: str
    name: str
    axis: str
    peer: str
    sizes: list[int]
    milliseconds: dict[str, list[float | None]]
    extra_memory: dict[str, list[int | None]]
    exponents: dict[str, dict[str, float | None]]
    trouble: dict[str, str] = field(default_factory=dict)


# Lines and sweeps -----------------------------------------------------------------------------------------------------


def measure_line(line: Line, peaks: Peaks, *, repeats: int, seed: int = 0) -> LineResult:
    """Measure one line.

    Args:
        line: what.
        peaks: of the machine.
        repeats: measurements of each contestant, of which the median counts.
        seed: of the operands.
    """
    with _settled():
        contest = line.contest(torch.Generator().manual_seed(seed))
        entry = _Entry(contest)
        times = entry.times(repeats)
        figures = [entry.figure(name, times, line.goals.get(name), peaks) for name in (PEER, *contest.ours)]
    return LineResult(line.operation, line.name, line.peer, figures)


def measure_sweep(
    sweep: Sweep, *, repeats: int, seed: int = 0, done: Callable[[], object] = lambda: None
) -> SweepResult:
    """Measure one sweep, and fit exponents; ``done`` is called after each size."""
    milliseconds: dict[str, list[float | None]] = {}
    memory: dict[str, list[int | None]] = {}
    trouble: dict[str, str] = {}
    with _settled():
        for place, size in enumerate(sweep.sizes):
            contest = sweep.contest(size, torch.Generator().manual_seed(seed))
            entry = _Entry(contest)
            times = entry.times(repeats)
            for name in (PEER, *contest.ours):
                found = times.get(name)
                # A back end may join at a later size: what was before has no figure.
                milliseconds.setdefault(name, [None] * place).append(1000 * statistics.median(found) if found else None)
                memory.setdefault(name, [None] * place).append(entry.memory(name) if found else None)
                if name in entry.trouble:
                    trouble.setdefault(name, f"{sweep.axis} {size}: {entry.trouble[name]}")
            for series in (*milliseconds.values(), *memory.values()):
                series += [None] * (place + 1 - len(series))
            done()
    sizes = list(sweep.sizes)
    exponents = {
        name: {"time": exponent(sizes, milliseconds[name]), "memory": exponent(sizes, memory[name], _LEAST_MEMORY)}
        for name in milliseconds
    }
    shown = (sweep.operation, sweep.name, sweep.axis, sweep.peer)
    return SweepResult(*shown, sizes, milliseconds, memory, exponents, trouble)


class _Entry:
    """The contestants of one contest that agree with the peer, and what is wrong with the others."""

    def __init__(self, contest: Contest) -> None:
        self.contest = contest
        self.calls: dict[str, Call] = {}
        self.seconds: dict[str, float] = {}
        self.differences: dict[str, float] = {}
        self.trouble: dict[str, str] = {}
        self.half = False
        expected = self._try(PEER, contest.peer)
        if expected is None:
            self.trouble.update(dict.fromkeys(contest.ours, "not run: the peer failed, so nothing was compared"))
            return
        self.half = any(t.dtype in (torch.bfloat16, torch.float16) for t in expected[:1] if t is not None)
        for name, call in contest.ours.items():
            found = self._try(name, call)
            if found is None:
                continue
            worst = self.differences[name] = difference(found, expected)
            if not worst <= contest.tolerance:
                self.trouble[name] = f"FAILED PARITY: off by {worst:.1e}, tolerance {contest.tolerance:.0e}"
                del self.calls[name]

    def _try(self, name: str, call: Call) -> tuple[Tensor | None, ...] | None:
        """The outputs of a first call, detached; None if it failed."""
        try:
            start = time.perf_counter()
            returned = call()
            _finish()
            self.seconds[name] = time.perf_counter() - start
            if self.seconds[name] < _SLOW:  # the first may have compiled, loaded and filled caches
                start = time.perf_counter()
                call()
                _finish()
                self.seconds[name] = time.perf_counter() - start
        except Exception as error:
            if hasattr(error, "exit_code"):
                raise  # a signal to this process that the command line turned into an exception
            words = " ".join(str(error).split())[:300]
            # The dispatch says this of a back end that is not for these tensors or this machine.
            kind = "not run" if isinstance(error, ValueError) and "cannot serve" in words else "FAILED"
            self.trouble[name] = f"{kind}: {type(error).__name__}: {words}"
            return None
        self.calls[name] = call
        outputs = returned if isinstance(returned, tuple | list) else (returned,)
        return tuple(None if output is None else output.detach() for output in outputs)

    def times(self, repeats: int) -> dict[str, list[float]]:
        """Seconds of a call, ``repeats`` times, the contestants in turn."""
        times: dict[str, list[float]] = {name: [] for name in self.calls}
        with _no_collection():
            for _ in range(repeats):
                for name, call in self.calls.items():
                    if self.seconds[name] < _QUICK:
                        call()  # else it would pay for the pages that its predecessor gave back to the system
                    count = min(100, max(1, math.ceil(_SHORTEST / max(self.seconds[name], 1e-9))))
                    _finish()
                    start = time.perf_counter()
                    for _ in range(count):
                        call()
                    _finish()
                    times[name].append((time.perf_counter() - start) / count)
        return times

    def memory(self, name: str) -> int | None:
        return extra_memory(self.calls[name])

    def figure(self, name: str, times: Mapping[str, list[float]], goal: float | None, peaks: Peaks) -> Figure:
        found, wrong = times.get(name), self.differences.get(name)
        if not found:
            return Figure(name, goal=goal, difference=wrong, trouble=self.trouble[name])
        median = statistics.median(found)
        ratio = statistics.median(times[PEER]) / median
        share, share_of = peaks.share(self.contest, median, self.half)
        return Figure(
            contestant=name,
            milliseconds=1000 * median,
            spread=1000 * _quartile_range(found),
            ratio=ratio,
            goal=goal,
            met=None if goal is None else ratio >= goal,
            extra_memory=self.memory(name),
            share=share,
            share_of=share_of,
            difference=wrong,
        )


def _quartile_range(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return high - low


@contextlib.contextmanager
def _settled() -> Iterator[None]:
    """Collect garbage once and pass over what is left ever after: each later collection is quick."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Collect garbage now and not while the clock runs."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _finish() -> None:
    """Wait for a device, where there is one: its launches return before the work is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def difference(found: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> float:
    """The largest relative root mean square difference of the outputs; of whole numbers the share that differs.

    Infinite where the number of outputs or a shape is another, or something is not finite.

    Example:
        >>> difference([torch.tensor([1.0, 1.0])], [torch.tensor([1.0, 1.0])])
        0.0
        >>> difference([torch.tensor([1, 2])], [torch.tensor([1, 3])])
        0.5
    """
    if len(found) != len(expected):
        return math.inf
    return max((_difference(a, b) for a, b in zip(found, expected, strict=True)), default=0.0)


def _difference(found: Tensor | None, expected: Tensor | None) -> float:
    if found is None or expected is None:
        return 0.0 if found is expected else math.inf
    if found.shape != expected.shape:
        return math.inf
    if not expected.is_floating_point():
        return (found != expected).double().mean().item() if expected.numel() else 0.0
    wide, truth = found.double(), expected.double().to(found.device)
    error, scale = (wide - truth).square().mean().sqrt().item(), truth.square().mean().sqrt().item()
    if not expected.numel() or error == 0:
        return 0.0
    return error / scale if math.isfinite(error) and scale > 0 else math.inf


def exponent(sizes: Sequence[float], values: Sequence[float | None], least: float = 0.0) -> float | None:
    """The power of size by which values grow: the least-squares slope of their logarithms; None of fewer than three.

    Args:
        sizes: ascending.
        values: one a size; None, and those not above ``least``, are left out.
        least: what is still noise.

    Example:
        >>> round(exponent([1, 2, 4], [3.0, 12.0, 48.0]) or 0, 3)
        2.0
    """
    pairs = [(math.log(s), math.log(v)) for s, v in zip(sizes, values, strict=True) if v is not None and v > least]
    if len(pairs) < 3:
        return None
    return statistics.linear_regression(*zip(*pairs, strict=True)).slope


def loop_seconds() -> dict[str, float]:
    """Seconds that compiling or loading numba loops took so far in this process, by loop; numba is not imported."""
    module = sys.modules.get("core_attention.kernels._numba")
    return module.compile_seconds() if module is not None else {}
