"""`pipelines bench kernels`: the speed of every operation against its named peer, and what its GPU kernels need."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import pathlib
import platform
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from pipelines.cli.parser import parse_words
from pipelines.domains import did_you_mean
from pipelines.errors import ConfigError, Interrupted, RunError
from pipelines.values import to_json

if TYPE_CHECKING:
    from core_attention.kernels._bench import Line, Sweep
    from core_attention.kernels._machine import Peaks
    from core_attention.kernels._measure import LineResult, SweepResult

JSON_NAME, PICTURE_NAME, INSPECTION_NAME = "kernels.json", "kernels.png", "inspection.json"


@dataclasses.dataclass
class Options:
    """The words of one command."""

    operations: list[str]
    repeats: int
    threads: int
    output: str | None
    overwrite: bool
    inspect: bool
    json: bool
    quiet: bool


@dataclasses.dataclass
class Measured:
    """What a run has found so far."""

    peaks: Peaks | None = None
    lines: list[LineResult] = dataclasses.field(default_factory=list)
    sweeps: list[SweepResult] = dataclasses.field(default_factory=list)
    without: list[str] = dataclasses.field(default_factory=list)
    complete: bool = False

    @property
    def failures(self) -> list[str]:
        """Wrong results and broken calls, one sentence each."""
        found = [
            f"{line.operation}, {line.name}: {figure.contestant}: {figure.trouble}"
            for line in self.lines
            for figure in line.figures
            if figure.failed
        ]
        return found + [
            f"{sweep.operation}, {sweep.name}: {name}: {words}"
            for sweep in self.sweeps
            for name, words in sweep.trouble.items()
            if ": not run" not in words
        ]


def run(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: the words after ``pipelines bench kernels``.

    Returns:
        1 where results differ from the peer's or a budget is exceeded, else 0: speed depends on the machine.

    Raises:
        ConfigError: an operation or option that does not exist, an output that does.
        RunError: the results cannot be written, or kernels cannot be inspected here.
        Interrupted: a signal; what was measured until then has been written.
    """
    options = _parse(argv)
    if options.output is not None:
        from pipelines.files import prepare_output

        prepare_output(options.output, overwrite=options.overwrite)
    _check_names(options.operations)
    return _inspect(options) if options.inspect else _bench(options)


def _parse(argv: list[str]) -> Options:
    parser = ArgumentParser(
        prog="pipelines bench kernels",
        description="time every back end of every operation against a named peer, in turn, after a parity check; "
        "writes one JSON file and one picture",
        exit_on_error=False,
    )
    add = parser.add_argument
    add("operations", nargs="*", type=str, default=[], help="names of operations; default all")
    add("--repeats", type=int, default=5, help="measurements of each, of which the median counts")
    add("--threads", type=int, default=0, help="threads of torch and of the compiled loops; default torch's own choice")
    add("--output", "-o", type=str, default=None, help="FOLDER to write into; default runs/bench-kernels-TIME/")
    add("--overwrite", action="store_true", help="write into a folder that has content")
    add(
        "--inspect",
        action="store_true",
        help="compile the GPU kernels for chips that are not here instead: registers,"
        " spills, shared memory, blocks a multiprocessor, tensor-core instructions, bytes moved, against the budgets",
    )
    add("--json", action="store_true", help="print one JSON object instead of tables")
    add("--quiet", action="store_true", help="no progress on standard error")
    found = parse_words(parser, argv)
    options = Options(**{field.name: found[field.name] for field in dataclasses.fields(Options)})
    if options.repeats < 1:
        raise ConfigError("must be at least 1", where="--repeats", found=options.repeats)
    if options.threads < 0:
        raise ConfigError("must be at least 1", where="--threads", found=options.threads)
    return options


def _check_names(names: Sequence[str]) -> None:
    from core_attention.kernels import ops

    for name in names:
        if name not in ops():
            known = list(ops())
            raise ConfigError(
                "unknown operation", where=name, expected=", ".join(known), cure=did_you_mean(name, known) or None
            )


# Speed ----------------------------------------------------------------------------------------------------------------


def _bench(options: Options) -> int:
    import torch

    from core_attention.kernels._bench import all_contests

    lines, sweeps, without = all_contests(options.operations)
    if not lines and not sweeps:
        raise ConfigError("has no speed line", where=", ".join(without), cure="add kernels/<operation>/bench.py")
    threads = torch.get_num_threads()
    measured = Measured(without=without)
    torch.set_num_threads(options.threads or threads)
    try:
        facts = machine()
        try:
            _measure(measured, lines, sweeps, options)
        except (KeyboardInterrupt, Interrupted) as stop:
            raise _kept(stop, measured, facts, options) from None
        files = _write(measured, facts, options)
    finally:
        torch.set_num_threads(threads)
    _tell(measured, facts, files, options)
    return 1 if measured.failures else 0


def _measure(measured: Measured, lines: Sequence[Line], sweeps: Sequence[Sweep], options: Options) -> None:
    """Measure one thing after another into ``measured``."""
    from core_attention.kernels._machine import measure_peaks
    from core_attention.kernels._measure import measure_line, measure_sweep
    from pipelines.progress import Progress

    steps = 1 + len(lines) + sum(len(sweep.sizes) for sweep in sweeps)
    with Progress(quiet=options.quiet).bar("measuring kernels", steps) as bar:
        measured.peaks = measure_peaks()
        bar.advance()
        for line in lines:
            measured.lines.append(measure_line(line, measured.peaks, repeats=options.repeats))
            bar.advance(last=line.operation)
        for sweep in sweeps:
            done = functools.partial(bar.advance, last=sweep.operation)
            measured.sweeps.append(measure_sweep(sweep, repeats=options.repeats, done=done))
    measured.complete = True


def machine() -> dict[str, Any]:
    """What the figures depend on.

    Example:
        >>> machine()["threads"] >= 1
        True
    """
    import importlib.metadata

    import torch

    from core_attention.kernels._workers import cores

    return {
        "cpu": _cpu(),
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": importlib.metadata.version("numba"),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _cpu() -> str:
    listing = pathlib.Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _as_json(measured: Measured, facts: dict[str, Any], options: Options) -> dict[str, Any]:
    from core_attention.kernels._machine import memory_obstacle
    from core_attention.kernels._measure import loop_seconds

    return {
        "command": "bench kernels",
        "complete": measured.complete,
        "machine": facts,
        "peaks": dataclasses.asdict(measured.peaks) if measured.peaks else None,
        "options": dataclasses.asdict(options),
        "lines": [dataclasses.asdict(line) for line in measured.lines],
        "sweeps": [dataclasses.asdict(sweep) for sweep in measured.sweeps],
        "loops": loop_seconds(),
        "memory not measured because": memory_obstacle(),
        "operations without lines": measured.without,
        "failures": measured.failures,
    }


def _write(measured: Measured, facts: dict[str, Any], options: Options) -> list[pathlib.Path]:
    """Both files or none."""
    from pipelines.evaluation.plots import to_png_bytes
    from pipelines.files import atomic_write_all, default_run_folder

    contents: dict[str, Any] = {JSON_NAME: to_json(_as_json(measured, facts, options), indent=2) + "\n"}
    if measured.sweeps:
        from pipelines.cli.bench_figure import kernels_figure

        contents[PICTURE_NAME] = to_png_bytes(kernels_figure(measured.sweeps))
    folder = pathlib.Path(options.output).expanduser() if options.output else default_run_folder("bench-kernels")
    return atomic_write_all({folder / name: content for name, content in contents.items()})


def _kept(stop: BaseException, measured: Measured, facts: dict[str, Any], options: Options) -> Interrupted:
    """Write what was measured before a signal, and say so."""
    import signal

    signum = stop.signum if isinstance(stop, Interrupted) else signal.SIGINT
    if not measured.lines and not measured.sweeps:
        return Interrupted("interrupted before anything was measured; nothing was written", signum)
    files = _write(measured, facts, options)
    done = f"{len(measured.lines)} lines and {len(measured.sweeps)} sweeps"
    return Interrupted(f"interrupted; {done} measured until then are in {files[0]}", signum)


# Inspection -----------------------------------------------------------------------------------------------------------


def _inspect(options: Options) -> int:
    from core_attention.kernels._inspect import inspect_all, unavailable
    from pipelines.cli.bench_tables import show_inspection
    from pipelines.files import atomic_write
    from pipelines.progress import Progress

    reason = unavailable()
    if reason is not None:
        raise RunError(f"the GPU kernels cannot be inspected: {reason}")
    with Progress(quiet=options.quiet).bar("compiling for chips that are not here") as bar:
        inspection = inspect_all(options.operations, progress=lambda done, total: bar.advance(of=total))
    found = inspection.as_json()
    if options.output is not None:
        found["files"] = [
            str(atomic_write(pathlib.Path(options.output).expanduser() / INSPECTION_NAME, to_json(found)))
        ]
    if options.json:
        sys.stdout.write(to_json(found) + "\n")
    else:
        show_inspection(inspection, found.get("files", []))
    return 1 if found["complaints"] else 0


# What is shown --------------------------------------------------------------------------------------------------------


def _tell(measured: Measured, facts: dict[str, Any], files: Sequence[pathlib.Path], options: Options) -> None:
    if options.json:
        answer = _as_json(measured, facts, options) | {"files": [str(path) for path in files]}
        sys.stdout.write(to_json(answer) + "\n")
        return
    from pipelines.cli.bench_tables import show_measured

    show_measured(measured, facts, files)
