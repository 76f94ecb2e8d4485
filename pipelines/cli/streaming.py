"""Verbs that answer as their input arrives: one JSON object a line goes out, in constant memory.

A domain marks such a verb in ``Pipeline.streams``; the verb's method gives a :class:`StepStream`, which answers after
each line that comes in, or a :class:`SoundStream`, which listens and answers when it has something to say.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import math
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from pipelines.base import Pipeline, Run
from pipelines.cli.parser import StreamOptions, given_values, listens, parse
from pipelines.errors import ConfigError, InputError, Interrupted

if TYPE_CHECKING:
    from pipelines.data.formats.step_lines import Step

__all__ = ["Latency", "SoundStream", "StepStream", "run_stream"]

#: Files of these endings hold one step a line; everything else is read as a whole set of series.
LINE_ENDINGS = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson")
OUTPUT_ENDINGS = (".jsonl", ".ndjson")
_REMEMBERED = 64  # names of series that are over, to notice one that comes back


class StepStream(Protocol):
    """What a domain's streaming method gives: it takes steps of V values and answers after each."""

    @property
    def variables(self) -> tuple[str, ...]:
        """V names."""
        ...

    @property
    def id_column(self) -> str | None:
        """The column that names the series, where the user said which."""
        ...

    def reset(self) -> None:
        """Begin a new series."""
        ...

    def answer(self, values: Any, /) -> dict[str, Any]:
        """The JSON-ready answer after one more step."""
        ...

    def whole_series(self, source: str, /) -> tuple[tuple[str, ...], Iterator[tuple[str, Any]]]:
        """Notes, and (id, rows) of the series of a file that is no list of steps."""
        ...


class SoundStream(Protocol):
    """What a domain's listening method gives: it takes whole sources and tells events as they arise.

    What the sources are, where they are no sound, the method says in its attribute ``takes``. ``gather(lines, target)``
    turns the written events into a file of one of the endings that ``Pipeline.endings`` has for the verb.
    """

    def events(self, source: str, say: Callable[[str], None], /) -> Iterator[dict[str, Any]]:
        """JSON-ready events of a file, standard input (``-``) or a microphone, and notes to `say`."""
        ...

    def flush(self) -> list[dict[str, Any]]:
        """What remains to be told of a source that was interrupted."""
        ...

    def summary(self) -> str:
        """One line: what was heard, and how fast the answers were."""
        ...


def run_stream(cls: type[Pipeline], verb: str, argv: list[str]) -> int:
    """Run one streaming verb of a domain.

    Args:
        cls: the pipeline's class, whose ``streams`` has the verb.
        verb: its name.
        argv: the words after it.

    Raises:
        UserError: bad use, or a line that is no step; answers before it have been written.
        Interrupted: a signal; answers before it have been written.
        RunError: the output cannot be written.
    """
    from pipelines.progress import Progress

    resolved, given, parser = parse(cls, verb, argv)
    values = parser.instantiate_classes(resolved)
    asked = {f.name: values[f.name] for f in dataclasses.fields(StreamOptions) if f.name in values}
    options = StreamOptions(**asked)
    sources = [str(source) for source in values["inputs"]]
    sink = _checked(cls, verb, options, sources)
    params = {name: values[name] for name in cls.param_names()}
    changes = given_values(given, values, cls.param_names())
    run = Run(progress=Progress(quiet=options.quiet))
    pipeline = _pipeline(cls, verb, options, params, changes)
    pipeline.run = run
    if options.checkpoint is None:
        run.say("no --checkpoint: the weights that ship are used")
    method = getattr(pipeline, cls.verbs[verb])
    own = {name: values[name] for name in inspect.signature(method).parameters if name not in params}
    stream: Any = method(**own)
    sink.gather = getattr(stream, "gather", None)
    kind = _Hearer if listens(cls, verb) else _Teller
    teller = kind(stream, sink, options.every, run.say)
    try:
        with sink:
            try:
                for source in sources:
                    teller.take(source, {"input": source} if len(sources) > 1 else {})
            except (KeyboardInterrupt, Interrupted):
                teller.stop()
                raise
    except (KeyboardInterrupt, Interrupted) as stop:
        run.say(teller.summary())
        signum = stop.signum if isinstance(stop, Interrupted) else signal.SIGINT
        raise Interrupted(f"interrupted; {sink.kept()}", signum) from None
    except BrokenPipeError:
        raise
    except Exception:
        if sink.path is not None and teller.told:
            run.say(f"note: {sink.kept()}")
        raise
    run.say(teller.summary())
    return 0


def _checked(cls: type[Pipeline], verb: str, options: StreamOptions, sources: Sequence[str]) -> _Sink:
    """What can be refused before a model is opened; then where the answers go."""
    from pipelines.data.formats.table_read import check_file

    if options.every < 1:
        raise ConfigError("must be at least 1", where="--every", found=options.every)
    for source in sources:
        if hasattr(getattr(cls, cls.verbs[verb]), "takes"):
            _check_there(source)
        elif listens(cls, verb):
            _check_sound(source)
        elif source != "-" and Path(source).suffix.lower() in LINE_ENDINGS:
            check_file(Path(source))
    return _Sink.plan(options, cls.endings.get(verb, ()))


def _check_there(source: str) -> None:
    if source != "-" and not Path(source).exists():
        raise InputError("no such file", where=source, cure="check the path")


def _check_sound(source: str) -> None:
    from pipelines.data.formats.audio_source import open_source

    if source not in ("-", "mic"):
        open_source(source).close()


def _pipeline(
    cls: type[Pipeline], verb: str, options: StreamOptions, params: dict[str, Any], changes: dict[str, Any]
) -> Pipeline:
    """The model of --checkpoint, or else the one that ships with the domain."""
    from pipelines.cli.verbs import open_checkpoint

    if options.checkpoint is not None:
        return open_checkpoint(cls, options.checkpoint, params, changes)
    pipeline = cls(**params)
    if not pipeline.adopt_shipped():
        raise ConfigError(
            "a stream needs a fitted model",
            where="--checkpoint",
            expected="the folder that `fit` wrote",
            cure=f"fit one with `{cls.streams[verb]}`, then add --checkpoint model/",
        )
    return pipeline


# From lines to answers ----------------------------------------------------------------------------------------------


def _steps(stream: StepStream, source: str, say: Callable[[str], None]) -> Iterator[Step]:
    """Steps of standard input, of a file of lines, or of the series of a set, one after the other."""
    from pipelines.data.formats.step_lines import Step, read_steps

    def note(text: str) -> None:
        say(f"note: {source if source != '-' else 'standard input'}: {text}")

    if source == "-":
        if sys.stdin is None:
            raise InputError("standard input is closed", where="-", cure="name a file, or pipe lines into the command")
        # Bytes of a line are handed on as soon as its end has come; text would be held back in larger pieces.
        lines = getattr(sys.stdin, "buffer", sys.stdin)
        yield from read_steps(lines, stream.variables, source="standard input", id=stream.id_column, say=note)
    elif Path(source).suffix.lower() in LINE_ENDINGS:
        name = Path(source).name
        with _opened(Path(source)) as file:
            yield from read_steps(file, stream.variables, source=name, id=stream.id_column, say=note)
    else:
        notes, series = stream.whole_series(source)
        for text in notes:
            note(text)
        for name, rows in series:
            for number, row in enumerate(rows):
                yield Step(row, name, number == 0)


def _opened(path: Path) -> Any:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError("cannot be read", where=path, found=error.strerror, cure="check its permissions") from error


class _Teller:
    """Takes steps one by one, begins series where they begin, and writes the answers that were asked for."""

    def __init__(self, stream: StepStream, sink: _Sink, every: int, say: Callable[[str], None]) -> None:
        self.stream, self.sink, self.every, self.say = stream, sink, every, say
        self.series = self.steps = self.told = self._step = 0
        self.latency = Latency()
        self._name: str | None = None
        self._pending: dict[str, Any] | None = None  # the last answer, where it has not been written
        self._over: deque[str] = deque(maxlen=_REMEMBERED)
        self._warned = False

    def take(self, source: str, about: dict[str, str]) -> None:
        """All steps of one input; `about` it is told with each answer."""
        fresh = True
        for step in _steps(self.stream, source, self.say):
            began = time.perf_counter()
            if fresh or step.begins or step.series != self._name:
                self._end()
                self._begin(step.series)
                fresh = False
            self._step += 1
            self.steps += 1
            place = {"series": self.series if step.series is None else step.series, "step": self._step}
            answer = {**about, **place, **self.stream.answer(step.values)}
            self._pending = answer
            if self._step % self.every == 0:
                self._write()
            self.latency.add(time.perf_counter() - began)
        self._end()

    def stop(self) -> None:
        """Every answer that was due has been given."""

    def _begin(self, name: str | None) -> None:
        if name is not None and name in self._over and not self._warned:
            self._warned = True
            self.say(f"note: series '{name}' comes back after others: it begins anew; sort the lines by series")
        self.series += 1
        self._name, self._step = name, 0
        self.stream.reset()

    def _end(self) -> None:
        """The last answer of a series is written in any case."""
        if self._pending is not None:
            self._write()
        if self._name is not None and self._name not in self._over:
            self._over.append(self._name)
        self._name = None

    def _write(self) -> None:
        self.sink.write(json.dumps(self._pending, allow_nan=False))
        self._pending = None
        self.told += 1

    def summary(self) -> str:
        """One line: how much was read and how long a step took, from its line being read to its answer."""
        said = f"{self.series:,} series, {self.steps:,} steps, {self.told:,} answers"
        if self.steps:
            middle, most = (1e3 * self.latency.quantile(share) for share in (0.5, 0.95))
            said += f"; latency a step: median {middle:.2f} ms, 95th percentile {most:.2f} ms"
        return said


class _Hearer:
    """Takes sources of sound one by one, and writes the events; an interruption tells what was said until then."""

    def __init__(self, stream: SoundStream, sink: _Sink, every: int, say: Callable[[str], None]) -> None:
        self.stream, self.sink, self.say = stream, sink, say  # of `every` there is one: each event is told
        self.told = 0
        self._about: dict[str, str] = {}

    def take(self, source: str, about: dict[str, str]) -> None:
        """All events of one source; `about` it is told with each."""
        self._about = about
        for event in self.stream.events(source, self.say):
            self._write(event)

    def stop(self) -> None:
        """What has been heard and not told."""
        for event in self.stream.flush():
            self._write(event)

    def summary(self) -> str:
        """One line: how much was heard, and how long after it the answers came."""
        return self.stream.summary()

    def _write(self, event: dict[str, Any]) -> None:
        self.sink.write(json.dumps({**self._about, **event}, allow_nan=False, ensure_ascii=False))
        self.told += 1


class Latency:
    """Quantiles of durations in constant memory: counts on a scale whose steps are one percent wide.

    Example:
        >>> latency = Latency()
        >>> for milliseconds in range(1, 101):
        ...     latency.add(milliseconds / 1e3)
        >>> round(latency.quantile(0.5), 3), round(latency.quantile(0.95), 3)
        (0.05, 0.095)
    """

    least, ratio = 1e-6, math.log(1.01)

    def __init__(self) -> None:
        self.counts = [0] * 2000  # up to seven minutes
        self.total = 0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        place = round(math.log(max(seconds, self.least) / self.least) / self.ratio)
        self.counts[min(place, len(self.counts) - 1)] += 1
        self.total += 1

    def quantile(self, share: float) -> float:
        """Seconds that so large a share of the durations does not exceed, within one percent; 0 without any."""
        wanted, seen = share * self.total, 0
        for place, count in enumerate(self.counts):
            seen += count
            if count and seen >= wanted:
                return self.least * math.exp(place * self.ratio)
        return 0.0


# Where answers go ---------------------------------------------------------------------------------------------------


class _Sink:
    """Standard output, or a file that bears its name only when the stream has ended well."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.gather: Callable[[Path, Path], None] | None = None  # makes another file of the lines
        self._file: TextIO | None = None

    @classmethod
    def plan(cls, options: StreamOptions, gathered: Sequence[str] = ()) -> _Sink:
        """Refuse an output that exists or cannot be written, before any work.

        Raises:
            ConfigError: another ending, or a file that is there and may not be replaced.
        """
        from pipelines.files import prepare_output

        if options.output is None:
            return cls(None)
        endings = (*OUTPUT_ENDINGS, *gathered)
        if Path(options.output).suffix not in endings:
            raise ConfigError(
                "answers of a stream are lines of JSON",
                where=f"--output {options.output}",
                expected=" or ".join(f"FILE{ending}" for ending in endings),
            )
        sink = cls(prepare_output(options.output, overwrite=options.overwrite))
        if not options.overwrite and sink.partial.exists():
            raise ConfigError(
                "answers of an interrupted stream are there",
                where=sink.partial,
                cure="move them, choose another name, or pass --overwrite",
            )
        return sink

    @property
    def partial(self) -> Path:
        """The name that the file has while it is written."""
        path = self.path or Path()
        return path.with_name(f"{path.name}.partial")

    def kept(self) -> str:
        """What has become of the answers that were written."""
        if self.path is None:
            return "the answers until then were printed"
        return f"the answers until then are in {self.partial}" if self.partial.exists() else "no answer was written"

    def write(self, line: str) -> None:
        """Write one line and hand it on at once."""
        if self.path is None:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
            return
        with self._explained():
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.partial.open("w", encoding="utf-8")
            self._file.write(f"{line}\n")
            self._file.flush()

    def __enter__(self) -> _Sink:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._file is None or self.path is None:
            return
        with self._explained() if kind is None else contextlib.suppress(OSError):
            if kind is None:
                os.fsync(self._file.fileno())
            self._file.close()
            if kind is None and self.path.suffix in OUTPUT_ENDINGS:
                self.partial.replace(self.path)
            elif kind is None and self.gather is not None:
                self.gather(self.partial, self.path)
                self.partial.unlink()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        from pipelines.files import write_failure

        try:
            yield
        except OSError as error:
            raise write_failure(error, self.path or "") from error
