"""What the machine itself can do, and how much memory a call takes of it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import pathlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._bench import Contest

__all__ = ["Peaks", "extra_memory", "measure_peaks", "memory_obstacle"]

_LARGEST_PRODUCT = 2048
_COPY_BYTES = 128 << 20
_PATIENCE = 1.0  # seconds for one figure of the machine
_STATUS = pathlib.Path("/proc/self/status")
_CLEAR = pathlib.Path("/proc/self/clear_refs")

Call = Callable[[], Any]


@dataclass(frozen=True)
class Peaks:
    """What this machine does at best with the threads of this run.

    Attributes:
        float32, bfloat16: of matrix products, GFLOP/s.
        copy: of a memory copy, GB/s, bytes read and bytes written both counted.
    """

    float32: float
    bfloat16: float
    copy: float

    def share(self, contest: Contest, seconds: float, half: bool) -> tuple[float, str]:
        """The larger share of the two peaks that a contestant reaches, and which it is.

        Half-width operands may be widened, so they are held to the better of both products.
        """
        product = max(self.float32, self.bfloat16) if half else self.float32
        shares = (
            (contest.flops / seconds / 1e9 / product, "product"),
            (contest.bytes / seconds / 1e9 / self.copy, "copy"),
        )
        return max(shares)


def measure_peaks() -> Peaks:
    """Measure matrix products and a memory copy; a few seconds."""
    return Peaks(_product_peak(torch.float32), _product_peak(torch.bfloat16), _copy_peak())


def _product_peak(dtype: torch.dtype) -> float:
    """GFLOP/s of square products, doubled in size while they stay quick: some machines emulate bfloat16."""
    size, best = 256, 0.0
    while True:
        a, b = (torch.rand(size, size).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        seconds = _least(lambda a=a, b=b, out=out: torch.mm(a, b, out=out))
        best = max(best, 2 * size**3 / seconds / 1e9)
        if size >= _LARGEST_PRODUCT or 8 * seconds > _PATIENCE:
            return best
        size *= 2


def _copy_peak() -> float:
    source = torch.zeros(_COPY_BYTES // 4)
    target = torch.empty_like(source)
    return 2 * _COPY_BYTES / _least(lambda: target.copy_(source)) / 1e9


def _least(call: Call) -> float:
    """Seconds of the quickest of three to twenty calls, as many as patience lasts."""
    times: list[float] = []
    while len(times) < 3 or (len(times) < 20 and sum(times) < _PATIENCE):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
        if times[0] > _PATIENCE:
            break
    return min(times)


# Extra memory: the resident set's peak, which Linux lets a process reset and read ---------------------------------


def memory_obstacle() -> str | None:
    """Why extra memory cannot be measured here, or None if it can."""
    if not _CLEAR.exists():
        return f"the system keeps no peak of resident memory that can be reset ({_CLEAR} is Linux's)"
    try:
        _CLEAR.write_text("5")
        _resident("VmHWM")
    except (OSError, LookupError) as error:
        return f"the peak of resident memory cannot be reset and read: {error}"
    return None


def extra_memory(call: Call) -> int | None:
    """Bytes of resident memory above the start that one call takes at its peak, less the tensors it returns.

    Good to about 1 MB. What libraries keep from earlier calls for later ones does not count. None where it cannot be
    measured (``memory_obstacle`` says why).
    """
    if memory_obstacle() is not None:
        return None
    gc.collect()
    _give_back()
    _CLEAR.write_text("5")
    start = _resident("VmRSS")
    returned = call()
    peak = _resident("VmHWM")
    kept = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in _tensors(returned)}
    return max(0, peak - start - sum(kept.values()))


def _tensors(returned: Any) -> list[Tensor]:
    parts = returned if isinstance(returned, tuple | list) else (returned,)
    return [part for part in parts if isinstance(part, Tensor) and part.device.type == "cpu"]


def _resident(key: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return 1024 * int(line.split()[1])
    raise LookupError(f"{_STATUS} has no {key}")


def _give_back() -> None:
    """Return freed memory to the system, or a call that takes it again would seem to need none."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
