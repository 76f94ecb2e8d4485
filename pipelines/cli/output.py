"""Where an answer goes: one file with its companions, or a folder; written whole or not at all."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.base import Evaluation, Pipeline, Result, _plain, save_figure
from pipelines.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.cli.parser import RunOptions
    from pipelines.evaluation.report import Report

Answer = Evaluation | Result


class Output:
    """The places of one run, checked before any work is done.

    A file gets ``FILE.report.html`` and ``FILE.config.yaml`` beside it. A folder holds everything, the model and its
    training state too. Without ``--output`` the folder is ``runs/DOMAIN-TIME``.

    Args:
        home: the folder of the run.
        file: the file asked for, if it was one.
        overwrite: whether what exists may be replaced.
    """

    def __init__(self, home: Path, file: Path | None, overwrite: bool) -> None:
        self.home, self.file, self.overwrite = home, file, overwrite
        self.written: list[Path] = []
        self._model: Path | None = None

    @classmethod
    def plan(cls, domain: str, options: RunOptions) -> Output:
        """Decide the places and refuse what exists, before any work.

        Raises:
            ConfigError: the output exists and --overwrite was not given, or cannot be written.
        """
        from pipelines.files import default_run_folder, prepare_output

        if options.resume is not None:
            return cls(Path(options.resume), _as_file(options.output, options), True)
        if options.output is None:
            return cls(default_run_folder(domain), None, options.overwrite)
        file = _as_file(options.output, options)
        if file is None:
            return cls(prepare_output(options.output, overwrite=options.overwrite), None, options.overwrite)
        return cls(default_run_folder(domain), file, options.overwrite)

    @property
    def training_folder(self) -> Path:
        """Where the training state of this run lives."""
        return self.home / "training"

    def keep_config(self, yaml: str) -> None:
        """Write the configuration before training starts, so that an interrupted run can be resumed."""
        from pipelines.files import atomic_write

        self.home.mkdir(parents=True, exist_ok=True)
        atomic_write(self.home / "config.yaml", yaml)

    def keep_model(self, pipeline: Pipeline) -> None:
        """Write the fitted model into the run's folder."""
        if pipeline.is_fitted:
            self._model = pipeline.write_weights(self.home)

    def write(self, answers: list[tuple[str, Answer]], *, yaml: str, title: str) -> None:
        """Write the answers, their pictures, one report over all of them, and the configuration."""
        from pipelines.files import atomic_write, sidecar

        for source, answer in answers:
            target = self._target(answer, source)
            target.parent.mkdir(parents=True, exist_ok=True)
            self.written.append(answer.save(target))
            with tempfile.TemporaryDirectory() as scratch:  # a picture that fails to draw must not leave half a file
                picture = save_figure(answer.plot(), Path(scratch) / "picture.png").read_bytes()
            beside = sidecar(target, ".png") if self.file is not None else target.with_suffix(".png")
            self.written.append(atomic_write(beside, picture))
        page, config = self.home / "report.html", self.home / "config.yaml"
        if self.file is not None:
            page, config = sidecar(self.file, ".report.html"), sidecar(self.file, ".config.yaml")
        names = ", ".join(dict.fromkeys(Path(source).name for source, _ in answers))
        self.written.append(_report([answer for _, answer in answers], f"{title}: {names}", yaml).save(page))
        self.written.append(atomic_write(config, yaml))

    def _target(self, answer: Answer, source: str) -> Path:
        if self.file is not None:
            return self.file
        target = self.home / answer.default_name
        return target if target not in self.written else self.home / f"{Path(source).stem}-{answer.default_name}"

    def finish(self) -> None:
        """Say where the model is."""
        if self._model is not None:
            self.written.append(self._model)


def _as_file(output: str | None, options: RunOptions) -> Path | None:
    """The path when --output names a file; a trailing slash, an existing folder or no ending names a folder."""
    from pipelines.files import prepare_output, sidecar

    if output is None or output.endswith("/") or Path(output).is_dir() or not Path(output).suffix:
        return None
    target = prepare_output(output, overwrite=options.overwrite)
    for suffix in (".report.html", ".config.yaml", ".png"):
        beside = sidecar(target, suffix)
        if beside.exists() and not options.overwrite:
            raise ConfigError("a companion file exists already", where=beside, cure="choose another name or --overwrite")
    return target


def _report(answers: list[Answer], title: str, yaml: str) -> Report:
    from pipelines.evaluation.report import Report

    report = Report(title)
    for answer in answers:
        answer.fill_report(report)
    report.add_notes(list(dict.fromkeys(note for answer in answers for note in answer.notes)))
    report.add_config(yaml)
    command = answers[0].provenance.command
    if command:
        report.add_repeat(command)
    return report


def tell(answers: list[Answer], output: Output, *, as_json: bool) -> None:
    """Print the answers: one JSON object, or tables and the files written."""
    if as_json:
        merged: dict[str, Any] = {}
        for answer in reversed(answers):
            merged |= answer.to_dict()
        merged["files"] = [str(path) for path in output.written]
        sys.stdout.write(json.dumps(merged, allow_nan=False, default=_plain) + "\n")
        return
    for answer in answers:
        if isinstance(answer, Evaluation):
            _table(answer)
        else:
            sys.stdout.write(f"{answer}\n")
    for note in dict.fromkeys(note for answer in answers for note in answer.notes):
        sys.stdout.write(f"note: {note}\n")
    for path in output.written:
        sys.stdout.write(f"wrote {path}\n")


def _table(evaluation: Evaluation) -> None:
    """Model and baselines side by side, best figure of each column in bold."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{evaluation.model} on {evaluation.data}, {evaluation.protocol}", title_justify="left")
    table.add_column("model")
    for name in evaluation.metrics:
        table.add_column(name, justify="right")
    for row, metrics in {evaluation.model: evaluation.metrics, **evaluation.baselines}.items():
        table.add_row(row, *(f"{metrics[n]:.4f}" if n in metrics else "" for n in evaluation.metrics))
    console = Console(file=sys.stdout)
    console.print(table)
    counts = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in evaluation.counts.items())
    console.print(f"counted: {counts}", highlight=False)
