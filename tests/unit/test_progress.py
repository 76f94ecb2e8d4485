"""Progress: lines in a log, a bar on a terminal, nothing when quiet."""

from __future__ import annotations

import io

import pytest

from pipelines.progress import Progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_log_gets_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    log = io.StringIO()
    with Progress(stream=log, seconds=5).bar("fit", 90) as bar:
        for _ in range(90):
            clock[0] += 0.25
            bar.advance(loss=0.12345)
    lines = log.getvalue().splitlines()
    assert len(lines) == 5, "one every five seconds, and the last"
    assert lines[0] == "fit: 20/90 (5 s) loss 0.1235"
    assert lines[-1].startswith("fit: 90/90 (22 s)")


def test_fields_are_read_only_when_shown() -> None:
    calls: list[int] = []
    with Progress(stream=io.StringIO(), seconds=60).bar("fit", 3) as bar:
        for _ in range(3):
            bar.advance(loss=lambda: calls.append(1))
    assert not calls


def test_quiet_says_nothing() -> None:
    log = io.StringIO()
    progress = Progress(quiet=True, stream=log)
    progress.say("hello")
    assert list(progress.track(range(3), 3, "count")) == [0, 1, 2]
    assert log.getvalue() == ""


def test_other_ranks_are_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert Progress(stream=io.StringIO()).quiet
    monkeypatch.setenv("RANK", "0")
    assert not Progress(stream=io.StringIO()).quiet


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    progress = Progress(stream=screen)
    with progress.bar("fit", 4) as bar:
        for _ in range(4):
            bar.advance(loss=1.0)
        progress.say("[epoch] 1: 0.5")
        with progress.bar("within", 2) as inner:
            inner.advance(2)
    assert "fit" in screen.getvalue()
    assert "\x1b[" in screen.getvalue()
    assert "[epoch] 1: 0.5" in screen.getvalue(), "brackets are text, not markup"
    assert "within: 2/2" in screen.getvalue()


def test_an_error_inside_passes_through() -> None:
    log = io.StringIO()

    def work() -> None:
        with Progress(stream=log).bar("fit", 4):
            raise KeyError("x")

    with pytest.raises(KeyError):
        work()
    assert log.getvalue() == "", "no line says that it was done"


def test_a_closed_stream_does_not_stop_the_work() -> None:
    log = io.StringIO()
    progress = Progress(stream=log)
    log.close()
    assert list(progress.track(range(3), 3, "count")) == [0, 1, 2]


def test_a_bar_may_leave_the_last_word_to_its_owner() -> None:
    log = io.StringIO()
    with Progress(stream=log).bar("fit", 4, closing=False) as bar:
        bar.advance(4)
    assert log.getvalue() == ""


def test_an_unknown_total() -> None:
    log = io.StringIO()
    assert list(Progress(stream=log).track(iter("ab"), label="read")) == ["a", "b"]
    assert log.getvalue() == "read: 2 (0 s)\n"
