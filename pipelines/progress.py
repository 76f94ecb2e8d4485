"""Progress of long work on the error stream: a bar on a terminal, a line every few seconds elsewhere, or nothing."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TextIO, TypeVar

__all__ = ["Bar", "Progress"]

Item = TypeVar("Item")


class Bar(Protocol):
    """One piece of long work."""

    def advance(self, count: int = 1, **fields: object) -> None:
        """Say that `count` more units are done; fields (e.g. loss=0.5) are shown beside the bar."""
        ...


class Progress:
    """Says what long work is doing, to people on a terminal and to log files alike, and never to standard output.

    Args:
        quiet: say nothing at all; processes of rank > 0 are always quiet.
        stream: where to write; the error stream of the moment by default.
        seconds: least time between two lines where the stream is no terminal.

    Complexity: O(1); between two refreshes `advance` only counts and reads the clock.

    Example:
        >>> import io
        >>> log = io.StringIO()
        >>> progress = Progress(stream=log)
        >>> sum(progress.track([1, 2, 3], total=3, label="adding"))
        6
        >>> log.getvalue().startswith("adding: 3/3")
        True
    """

    def __init__(self, quiet: bool = False, stream: TextIO | None = None, *, seconds: float = 5.0) -> None:
        self._stream = sys.stderr if stream is None else stream
        self.quiet = quiet or os.environ.get("RANK", "0") != "0"
        self._seconds = seconds
        self._console: Any = None

    def say(self, text: str) -> None:
        """Write one line, above the bar where one is shown."""
        if self.quiet:
            return
        if self._console is not None:
            self._console.print(text, markup=False, highlight=False)
            return
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(f"{text}\n")
            self._stream.flush()

    def track(self, iterable: Iterable[Item], total: int | None = None, label: str = "") -> Iterator[Item]:
        """Yield the items and count them.

        Args:
            iterable: the items.
            total: how many there are, where known.
            label: what is done with them.
        """
        with self.bar(label, total) as bar:
            for item in iterable:
                yield item
                bar.advance()

    @contextlib.contextmanager
    def bar(self, label: str, total: int | None = None, *, done: int = 0, closing: bool = True) -> Iterator[Bar]:
        """A context with `advance(count, **fields)` for long work.

        Args:
            label: what is done.
            total: units of work, where known.
            done: how many of them are behind us.
            closing: in a log, end with a line; without, the caller has something better to say.
        """
        if self.quiet:
            yield _Silent()
        elif self._on_terminal():
            with self._rich_bar(label, total, done) as bar:
                yield bar
        else:
            lines = _Lines(self.say, label, total, done, self._seconds)
            yield lines
            if closing:
                lines.finish()

    def _on_terminal(self) -> bool:
        # A second bar within a bar is written as lines above it.
        if self._console is not None or os.environ.get("TERM") == "dumb":
            return False
        try:
            return bool(self._stream.isatty())
        except (AttributeError, ValueError):  # no real stream, or closed
            return False

    @contextlib.contextmanager
    def _rich_bar(self, label: str, total: int | None, done: int) -> Iterator[Bar]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._console = Console(file=self._stream)
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        tail = (TimeRemainingColumn(), TextColumn("{task.fields[shown]}", markup=False))
        try:
            with RichProgress(*columns, *tail, console=self._console, transient=True) as display:
                task = display.add_task(label, total=total, completed=done, shown="")
                yield _Rich(display, task)
        finally:
            self._console = None


class _Silent:
    def advance(self, count: int = 1, **fields: object) -> None:
        """Nothing to say."""


class _Rich:
    """Passes counts on to rich at most ten times a second: its own lock costs more than a small training step."""

    def __init__(self, display: Any, task: Any) -> None:
        self._display, self._task = display, task
        self._pending, self._next = 0, 0.0

    def advance(self, count: int = 1, **fields: object) -> None:
        self._pending += count
        now = time.monotonic()
        if now >= self._next:
            self._display.update(self._task, advance=self._pending, shown=_fields(fields))
            self._pending, self._next = 0, now + 0.1


class _Lines:
    """At most one line every few seconds, and one at the end."""

    def __init__(self, say: Callable[[str], None], label: str, total: int | None, done: int, seconds: float) -> None:
        self._say, self._label, self._total, self._seconds = say, label, total, seconds
        self._done, self._shown = done, ""
        self._start = time.monotonic()
        self._next = self._start + seconds

    def advance(self, count: int = 1, **fields: object) -> None:
        self._done += count
        now = time.monotonic()
        if now >= self._next:
            self._shown = _fields(fields)
            self._line(now)
            self._next = now + self._seconds

    def finish(self) -> None:
        self._line(time.monotonic())

    def _line(self, now: float) -> None:
        of = f"/{self._total}" if self._total is not None else ""
        after = f" {self._shown}" if self._shown else ""
        self._say(f"{self._label}: {self._done}{of} ({now - self._start:.0f} s){after}")


def _fields(fields: dict[str, object]) -> str:
    """Numbers may be given as tensors or callables: they are read only when they are shown."""
    return " ".join(f"{name} {_shown(value)}" for name, value in fields.items())


def _shown(value: object) -> str:
    value = value() if callable(value) else value
    number = value.item() if hasattr(value, "item") else value  # type: ignore[union-attr]
    return f"{number:.4g}" if isinstance(number, float) else str(number)
