"""An end to work that a damaged file could make endless, in libraries that offer no limit of time themselves."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["OutOfTime", "deadline"]

_LOOKS = 0.05  # seconds between two looks at the clock


class OutOfTime(BaseException):
    """Raised in the thread whose time is over; no Exception, so that no library takes it for damage and goes on."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the block once this thread has computed for so many seconds.

    Its own time counts where the system tells it, so that a busy machine refuses nothing; waiting does not count.
    A second thread watches and raises between two Python instructions: a single call into C is not interrupted.

    Raises:
        OutOfTime: inside of the block.

    Example:
        >>> with deadline(5.0):
        ...     done = True
    """
    thread, clock = threading.get_ident(), _clock(threading.get_ident())
    end = _now(clock) + seconds
    lock, finished = threading.Lock(), threading.Event()
    state = {"raised": False}

    def watch() -> None:
        while not finished.wait(_LOOKS):
            with lock:
                if finished.is_set() or _now(clock) < end:
                    continue
                state["raised"] = True
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(OutOfTime))
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        # Whoever holds the lock decides: either the watcher has raised already, or it never will.
        with lock:
            finished.set()
        watcher.join()
        if state["raised"]:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)


def _clock(thread: int) -> int | None:
    try:
        return time.pthread_getcpuclockid(thread)
    except (AttributeError, OSError, OverflowError):  # Windows
        return None


def _now(clock: int | None) -> float:
    return time.monotonic() if clock is None else time.clock_gettime(clock)
