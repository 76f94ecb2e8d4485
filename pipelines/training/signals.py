"""Ctrl-C and SIGTERM while training: finish the step, save, and leave with the exit code of the signal."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["SignalGuard"]

_CAUGHT = (signal.SIGINT, signal.SIGTERM)


class SignalGuard:
    """Notes the first SIGINT or SIGTERM inside the context; the second ends the process at once.

    Outside the main thread, where Python allows no handlers, it notes nothing. The handlers that were there before are
    put back at the end.

    Example:
        >>> with SignalGuard() as guard:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     guard.received == signal.SIGTERM
        True
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}
        self._process = os.getpid()

    def __enter__(self) -> SignalGuard:
        if threading.current_thread() is threading.main_thread():
            self._process = os.getpid()
            for signum in _CAUGHT:
                # A signal that the parent asked to ignore (nohup, a background job of a shell) stays ignored.
                if signal.getsignal(signum) is not signal.SIG_IGN:
                    self._before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # A worker that was just forked: its own handlers come in a moment.
        if self.received:
            os._exit(128 + signum)
        self.received = signum
