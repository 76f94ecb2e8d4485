"""Work spread over processes of their own: each imports torch once, answers one task a line, and ends with the work.

Processes are started anew, never forked: compilers and thread pools do not survive a fork.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import queue
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

__all__ = ["cores", "in_processes", "serve"]

_ROOT = pathlib.Path(__file__).parents[2]  # where the package core_attention lies
Task = dict[str, Any]


def cores() -> int:
    """Cores that this process may use.

    Example:
        >>> cores() >= 1
        True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(
    module: str,
    tasks: Sequence[Task],
    *,
    packages: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    jobs: int | None = None,
    done: Callable[[], object] = lambda: None,
) -> list[Any]:
    """Have tasks answered by ``python -m module --worker``, which calls ``serve``.

    Args:
        module: import name.
        tasks: what JSON can hold; those that take long first.
        packages: that every process imports first, such as those that register operations.
        environment: variables set for the processes.
        jobs: processes; the cores by default.
        done: called after every task, in any thread.

    Returns:
        The answers in the order of the tasks: what the worker's function returned, or ``{"error": one line}``.
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(len(tasks)):
        waiting.put(number)
    answers: list[Any] = [None] * len(tasks)

    def work(process: _Process) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                number = waiting.get_nowait()
                answers[number] = process.ask(tasks[number])
                done()

    count = max(1, min(jobs or cores(), len(tasks)))
    command = [sys.executable, "-m", module, "--worker", *packages]
    with _processes(command, count, environment or {}) as processes, ThreadPoolExecutor(count) as threads:
        try:
            for future in [threads.submit(work, process) for process in processes]:
                future.result()
        except BaseException:
            for process in processes:
                process.end()  # first, or the threads would wait for their answers
            raise
    return answers


class _Process:
    """One worker: a line in, a line out."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by `end`)
        path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
        )
        self._input: Any = self._process.stdin
        self._output: Any = self._process.stdout

    def ask(self, task: Task) -> Any:
        answer = ""
        with contextlib.suppress(OSError):  # a process that is gone is told below
            self._input.write(json.dumps(task) + "\n")
            self._input.flush()
            answer = self._output.readline()
        return json.loads(answer) if answer else {"error": f"the process ended: {self._last_words()}"}

    def _last_words(self) -> str:
        self._said.seek(0)
        return self._said.read().strip()[-300:] or "without a word"

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._input, self._output, self._said):
            with contextlib.suppress(OSError):  # what was not sent has no reader any more
                stream.close()


@contextlib.contextmanager
def _processes(command: list[str], count: int, environment: Mapping[str, str]) -> Iterator[list[_Process]]:
    processes = [_Process(command, environment) for _ in range(count)]
    try:
        yield processes
    finally:
        for process in processes:
            process.end()


def serve(answer: Callable[[Task], Any], packages: Sequence[str]) -> None:
    """The worker's side: import the packages, then answer one task a line until the input ends.

    What the tasks print goes to the error stream. An exception becomes ``{"error": ...}`` and the next task is taken.
    """
    import importlib

    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for package in packages:
        importlib.import_module(package)
    for line in sys.stdin:
        try:
            said = answer(json.loads(line))
        except Exception as error:
            traceback.print_exc()
            words = str(error).strip().splitlines() or [""]
            said = {"error": f"{type(error).__name__}: {words[-1][:300]}"}
        answers.write(json.dumps(said) + "\n")
        answers.flush()
