"""What a verb does: make or open the pipeline, answer, and write the answer with its report and configuration."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from pipelines.base import Evaluation, Pipeline, Provenance, Result, Run
from pipelines.cli.output import FOLDER_VERBS, Answer, Output, stem_of, tell, unused
from pipelines.cli.parser import RunOptions, given_values, is_positional, parse, takes_archive, to_yaml
from pipelines.domains import pipeline_class
from pipelines.errors import ConfigError, Interrupted, NothingToMeasure


@dataclasses.dataclass
class Call:
    """One parsed command: the class, the verb, all options, those given, and where the answer goes."""

    cls: type[Pipeline]
    verb: str
    params: dict[str, Any]
    given: dict[str, Any]
    method: dict[str, Any]
    options: RunOptions
    sources: list[str]
    archive: bool
    yaml: str
    run: Run


def run_verb(domain: str, verb: str, argv: list[str]) -> int:
    """Run one verb of one domain.

    Raises:
        UserError: bad input or bad use.
        RunError: a run that failed.
    """
    from pipelines.progress import Progress

    cls = pipeline_class(domain)
    if verb in cls.streams:
        from pipelines.cli.streaming import run_stream

        return run_stream(cls, verb, argv)
    resolved, given, parser = parse(cls, verb, argv)
    call = _call(cls, verb, resolved, given, parser)
    call.run = Run(progress=Progress(quiet=call.options.quiet), resume=call.options.resume is not None)
    if verb == "export":
        return _export(call)
    if call.options.seeds > 1 and (verb != "evaluate" or call.options.checkpoint is not None):
        raise ConfigError("several seeds mean several fits", where="--seeds", cure="evaluate without --checkpoint")
    endings = () if verb in FOLDER_VERBS else cls.endings.get(verb, (".json",))
    output = Output.plan(domain, call.options, call.yaml, endings=endings)
    if output.file is not None and len(call.sources) > 1 and verb not in cls.together:
        raise ConfigError("several inputs need a folder", where=f"--output {output.file}", cure="end it with a slash")
    call.run.overwrite, call.run.before_training = call.options.overwrite, output.start
    with output.undone_on_failure():
        call.run.folder, call.run.finished = output.training_folder, output.finished_folder
        with _saying_how_to_resume(call, output):
            answers = _answers(call, output)
            output.write(answers, title=f"pipelines {domain} {verb}")  # a long answer does its work while it is saved
    tell(answers, output, as_json=call.options.json)
    return 1 if any(isinstance(answer, Result) and answer.failures for _, answer in answers) else 0


def _call(cls: type[Pipeline], verb: str, resolved: Namespace, given: Namespace, parser: ArgumentParser) -> Call:
    values = parser.instantiate_classes(resolved)
    names = cls.param_names()
    options = RunOptions(**{f.name: values[f.name] for f in dataclasses.fields(RunOptions)})
    if options.seeds < 1:
        raise ConfigError("must be at least 1", where="--seeds", found=options.seeds)
    method = inspect.signature(getattr(cls, cls.verbs.get(verb, verb))).parameters
    own = {n: values[n] for n in method if n not in {"self", "data", "inputs", "path", *names} and n in values}
    archive = takes_archive(cls, verb)
    if archive:
        _check_one_source(values["data"], values["archive"], options)
    given_data = values.get("data") or (values["archive"] if archive else None)
    sources = list(values["inputs"]) if is_positional(cls, verb) else [given_data] if given_data else []
    return Call(
        cls=cls,
        verb=verb,
        params={name: values[name] for name in names},
        given=given_values(given, values, names),
        method=own,
        options=options,
        sources=sources,
        archive=archive and values["archive"] is not None,
        # A folder of ours holds its own configuration: what is kept is what the user asked of it.
        yaml=to_yaml(parser, given if Path(options.checkpoint or "").is_dir() and options.checkpoint else resolved),
        run=Run(),
    )


def _check_one_source(data: str | None, archive: str | None, options: RunOptions) -> None:
    """Exactly one of --data and --archive; no checkpoint for an archive, whose sets have other variables and labels."""
    if data is None and archive is None:
        expected = "a path or a name from the catalogue; or --archive and a folder of sets"
        raise ConfigError("is missing", where="--data", expected=expected)
    if data is not None and archive is not None:
        raise ConfigError(
            "only one of --data and --archive can be evaluated",
            where="--archive",
            found=f"--data {data} --archive {archive}",
            cure="drop one of them",
        )
    if archive is not None and options.checkpoint is not None:
        raise ConfigError(
            "a model is fitted anew on every set of an archive",
            where="--checkpoint",
            found=options.checkpoint,
            cure="drop --checkpoint, or evaluate it on one set with --data",
        )


def _open(call: Call) -> Pipeline | None:
    """The pipeline of --checkpoint: a folder of ours, or an official file; None without the flag."""
    if call.options.checkpoint is None:
        return None
    pipeline = open_checkpoint(call.cls, call.options.checkpoint, call.params, call.given)
    pipeline.run = call.run
    return pipeline


def open_checkpoint(cls: type[Pipeline], checkpoint: str, params: dict[str, Any], given: dict[str, Any]) -> Pipeline:
    """The pipeline of a folder of ours, with the arguments given changed, or of an official file, with all arguments.

    Raises:
        WeightsError: damaged or foreign weights.
        ConfigError: an argument that contradicts the stored model.
    """
    path = Path(checkpoint)
    return cls.load(path, **given) if path.is_dir() else cls.from_official(path, **params)


def _new(call: Call) -> Pipeline:
    pipeline = call.cls(**call.params)
    pipeline.run = call.run
    return pipeline


@contextlib.contextmanager
def _saying_how_to_resume(call: Call, output: Output) -> Iterator[None]:
    """Around the work: a run that a signal stops after training began says how to go on."""
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as stop:
        if not output.started or not output.can_go_on():
            raise
        message, signum = (str(stop), stop.signum) if isinstance(stop, Interrupted) else ("interrupted.", signal.SIGINT)
        raise Interrupted(f"{message.rstrip('.')}. {_how_to_resume(call, output)}", signum) from None


def _answers(call: Call, output: Output) -> list[tuple[str, Answer]]:
    if call.verb == "demo":
        pipeline = _open(call) or _new(call)
        evaluation, result = pipeline.demo()
        output.keep_model(pipeline)
        return [("demo", evaluation), ("demo", result)]
    if call.verb == "fit":
        if call.options.checkpoint is not None:
            raise ConfigError(
                "fit makes a new checkpoint", where="--checkpoint", cure="use evaluate or predict with it"
            )
        pipeline = _new(call).fit(call.sources[0])
        output.keep_model(pipeline, wanted=True)
        return [(call.sources[0], _measured(pipeline, call.sources[0]))]
    if call.archive:
        return [(call.sources[0], _new(call).evaluate_archive(call.sources[0], seeds=call.options.seeds))]
    if call.verb in call.cls.together:
        name = call.sources[0] if len(call.sources) == 1 else f"{len(call.sources)} inputs"
        return [(name, _answer(call, call.sources, output, ""))]
    parts: list[Path] = []
    for source in call.sources:
        # One model an input, each in a folder of its own when there are several.
        parts.append(unused(Path(), stem_of(source), parts) if len(call.sources) > 1 else Path())
    return [
        (source, _answer(call, source, output, str(part))) for source, part in zip(call.sources, parts, strict=True)
    ]


def _measured(pipeline: Pipeline, source: str) -> Evaluation:
    """Figures of a model that was just fitted; where no data are left for them, an evaluation that says why.

    The model is what was asked for, and it has been written.
    """
    try:
        return pipeline.evaluate(source)
    except NothingToMeasure as reason:
        stamp = Provenance.now(data=source, model=getattr(pipeline, "model", ""), seed=pipeline.seed)
        told = f"the model is fitted and kept, but was not measured: {reason}"
        return Evaluation(stamp.model, "not measured", source, {}, {}, stamp, notes=(told,))


def _answer(call: Call, source: str | list[str], output: Output, part: str) -> Answer:
    opened = _open(call)
    method = call.cls.verbs.get(call.verb, call.verb)
    if opened is not None:
        return getattr(opened, method)(source, **call.method)
    pipeline = _new(call)
    pipeline.run = call.run.part(part)
    if call.verb == "evaluate" and call.options.seeds > 1:
        return pipeline.evaluate_seeds(source, call.options.seeds)
    if getattr(getattr(call.cls, method), "fits_itself", False):
        return getattr(pipeline, method)(source, **call.method)
    if pipeline.adopt_shipped():
        call.run.say("no --checkpoint: the weights that ship are used")
        return getattr(pipeline, method)(source, **call.method)
    call.run.say("no --checkpoint and no shipped weights: fitting on the training part of the data first")
    pipeline.fit(source)
    output.keep_model(pipeline, part)
    return getattr(pipeline, method)(source, **call.method)


def _how_to_resume(call: Call, output: Output) -> str:
    """The command that goes on with this run: its configuration lies in the folder."""
    words = ["pipelines", call.cls.domain, call.verb]
    words += call.sources if is_positional(call.cls, call.verb) else []
    words += ["--resume", str(output.home)]
    words += ["--output", str(output.file)] if output.file is not None else []
    return f"Continue with: {shlex.join(words)}"


def _export(call: Call) -> int:
    """Export a checkpoint (or a model fitted on --data), and print how far the file is from eager."""
    from pipelines.files import prepare_output

    kind = call.method["format"]
    target = prepare_output(call.options.output or f"{call.cls.domain}.{kind}", overwrite=call.options.overwrite)
    pipeline = _open(call)
    if pipeline is None:
        pipeline = _new(call)
        if call.sources:
            pipeline.fit(call.sources[0])
        elif not pipeline.adopt_shipped():
            raise ConfigError("nothing to export", where="export", cure="give --checkpoint, or --data to fit on")
    parity = pipeline.export(target, format=kind)
    batches = ", ".join(map(str, parity.batches))
    line = (
        f"{parity.path}: {parity.format}, batches of {batches}, "
        f"largest difference to eager {parity.max_abs_error:.2e} (at most {parity.tolerance:.0e})"
    )
    text = json.dumps({**dataclasses.asdict(parity), "path": str(parity.path)}) if call.options.json else line
    sys.stdout.write(text + "\n")
    return 0
