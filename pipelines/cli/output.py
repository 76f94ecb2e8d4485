"""Where an answer goes: one file with its companions, or a folder; written whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.base import Evaluation, Pipeline, Result, save_figure
from pipelines.errors import ConfigError
from pipelines.values import to_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipelines.cli.parser import RunOptions
    from pipelines.evaluation.report import Report

Answer = Evaluation | Result

#: Verbs that write a model or several answers: their output is always a folder.
FOLDER_VERBS = frozenset({"demo", "fit"})
#: Files that stand beside an output file.
COMPANIONS = (".report.html", ".config.yaml", ".png")


@dataclasses.dataclass
class Output:
    """The places of one run, checked before any work is done; nothing is written before the input has been read.

    A file gets ``FILE.report.html`` and ``FILE.config.yaml`` beside it. A folder holds everything, the model and its
    training state too. Without ``--output`` the folder is ``runs/DOMAIN-TIME``.

    Args:
        home: the folder of the run.
        file: the file asked for, if it was one.
        overwrite: whether what exists may be replaced.
        yaml: the configuration of the run.
        resumed: whether the run goes on with one that left its configuration in ``home``.
        reserve: domain whose default folder this run takes when it begins; empty where the user named the folder.
    """

    home: Path
    file: Path | None
    overwrite: bool
    yaml: str
    resumed: bool = False
    reserve: str = ""
    started: bool = False
    written: list[Path] = dataclasses.field(default_factory=list)
    _models: list[Path] = dataclasses.field(default_factory=list)

    @classmethod
    def plan(cls, domain: str, options: RunOptions, yaml: str, *, endings: tuple[str, ...]) -> Output:
        """Decide the places and refuse what exists, before any work.

        Args:
            domain: gives the default folder its name.
            options: where the user wants the results.
            yaml: the configuration of the run.
            endings: of the files that the answer can be saved as; none where it is always a folder.

        Raises:
            ConfigError: the output exists and --overwrite was not given, or cannot be written.
        """
        from pipelines.files import default_run_folder, prepare_output

        file = _as_file(options.output, options, endings)
        if options.resume is not None:
            home = Path(options.resume)
            if file is None and options.output is not None and Path(options.output).resolve() != home.resolve():
                raise ConfigError(
                    "a run that is resumed goes on in its own folder",
                    where=f"--output {options.output}",
                    expected=home,
                    cure="drop --output, or copy the folder and resume the copy",
                )
            return cls(home, file, True, yaml, resumed=True)
        if file is None and options.output is not None:
            return cls(prepare_output(options.output, overwrite=options.overwrite), None, options.overwrite, yaml)
        home = default_run_folder(domain)
        if file is not None and options.checkpoint is not None:  # nothing but the file and its companions is written
            return cls(home, file, options.overwrite, yaml)
        prepare_output(home, overwrite=False)
        return cls(home, file, options.overwrite, yaml, reserve=domain)

    @property
    def training_folder(self) -> Path:
        """Where the training state of this run lives."""
        return self.home / "training"

    @property
    def finished_folder(self) -> Path:
        """Where the answers of finished parts of a long run are kept."""
        return self.home / "sets"

    def can_go_on(self) -> bool:
        """Whether there is anything that a resumed run could take up: training, finished sets, a part of an index."""
        found = (
            self.training_folder.rglob("training.pt"),
            self.finished_folder.glob("*.json"),
            self.home.glob("*.partial/state.json"),
        )
        return any(any(paths) for paths in found)

    @contextlib.contextmanager
    def undone_on_failure(self) -> Iterator[None]:
        """Around the work: a run that ends before its training has left a state leaves no trace of itself."""
        from pipelines.files import default_run_folder

        config = self.home / "config.yaml"
        new, had_config = (
            [p for p in (self.home.parent, self.home, self.training_folder) if not p.exists()],
            config.exists(),
        )
        try:
            if self.reserve:  # made at once, so that a run that starts in the same second gets a folder of its own
                self.home = default_run_folder(self.reserve, create=True)
                config = self.home / "config.yaml"
                new = [*new[:-2], self.home, self.training_folder]
            yield
            if self.reserve:  # a run that kept nothing but the file it was asked for
                for path in (self.home, self.home.parent):
                    with contextlib.suppress(OSError):
                        path.rmdir()
        except BaseException:
            if not self.resumed and not self.can_go_on():
                if self.started and not had_config:
                    config.unlink(missing_ok=True)
                inside = sorted((path for path in self.training_folder.rglob("*") if path.is_dir()), reverse=True)
                for path in [*inside, *reversed(new)]:
                    with contextlib.suppress(OSError):  # not there, or not empty
                        path.rmdir()
            raise

    def start(self) -> None:
        """Write the configuration when training begins, so that an interrupted run can be resumed."""
        from pipelines.files import atomic_write

        if not self.started and not self.resumed:
            atomic_write(self.home / "config.yaml", self.yaml)
        self.started = True

    def keep_model(self, pipeline: Pipeline, part: str = "", *, wanted: bool = False) -> None:
        """Write the fitted model into the run's folder, or one of several into a folder of its own there.

        Raises:
            ConfigError: the model is what was asked for (``wanted``), and has no weights; else it is passed over.
        """
        if pipeline.has_weights or wanted:
            self._models.append(pipeline.write_weights(self.home / part))

    def write(self, answers: list[tuple[str, Answer]], *, title: str) -> None:
        """Write the answers, their pictures, one report over all of them, and the configuration."""
        from pipelines.files import atomic_write, sidecar

        for source, answer in answers:
            target = self._target(answer, source, several=len({source for source, _ in answers}) > 1)
            self.written.append(answer.save(target))
            if isinstance(answer, Evaluation) and not answer.figures:
                continue
            with tempfile.TemporaryDirectory() as scratch:  # a picture that fails to draw must not leave half a file
                picture = save_figure(answer.plot(), Path(scratch) / "picture.png").read_bytes()
            beside = sidecar(target, ".png") if self.file is not None else target.with_suffix(".png")
            if beside == target:  # the answer is a picture itself
                beside = target.with_suffix(".preview.png")
            self.written.append(atomic_write(beside, picture))
        page, config = self.home / "report.html", self.home / "config.yaml"
        if self.file is not None:
            page, config = sidecar(self.file, ".report.html"), sidecar(self.file, ".config.yaml")
        names = ", ".join(dict.fromkeys(Path(source).name for source, _ in answers))
        self.written.append(_report([answer for _, answer in answers], f"{title}: {names}", self.yaml).save(page))
        self.written.append(atomic_write(config, self.yaml))
        self.written += self._models

    def _target(self, answer: Answer, source: str, *, several: bool) -> Path:
        if self.file is not None:
            return self.file
        if not several:
            return self.home / answer.default_name
        name, stem = answer.default_name, stem_of(source)
        return unused(self.home, name if stem_of(name) == stem else f"{stem}-{name}", self.written)


def stem_of(source: str) -> str:
    """The name of an input without its folder and endings.

    Example:
        >>> stem_of("data/load.csv.gz")
        'load'
    """
    return Path(source).name.split(".")[0] or "input"


def unused(folder: Path, name: str, taken: list[Path]) -> Path:
    """A path that is not taken in this run yet: inputs of two folders may have the same name.

    Example:
        >>> unused(Path("o"), "a.csv", [Path("o/a.csv")]).name
        '2-a.csv'
    """
    path, number = folder / name, 1
    while path in taken:
        number += 1
        path = folder / f"{number}-{name}"
    return path


def _as_file(output: str | None, options: RunOptions, endings: tuple[str, ...]) -> Path | None:
    """The path when --output names a file; a trailing slash, an existing folder or no ending names a folder."""
    from pipelines.files import prepare_output, sidecar

    if output is None or not endings or output.endswith("/") or Path(output).is_dir() or not Path(output).suffix:
        return None
    if Path(output).suffix not in endings:
        raise ConfigError(
            "cannot write this kind of file",
            where=f"--output {output}",
            found=Path(output).suffix,
            expected=", ".join(endings),
            cure="choose such an ending, or end the name with a slash for a folder",
        )
    target = prepare_output(output, overwrite=options.overwrite)
    for suffix in COMPANIONS:
        beside = sidecar(target, suffix)
        if beside.exists() and not options.overwrite:
            raise ConfigError(
                "a companion file exists already", where=beside, cure="choose another name or --overwrite"
            )
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


def tell(answers: list[tuple[str, Answer]], output: Output, *, as_json: bool) -> None:
    """Print the answers: one JSON object, or tables and the files written."""
    if as_json:
        sys.stdout.write(to_json(_merged(answers) | {"files": [str(path) for path in output.written]}) + "\n")
        return
    for _, answer in answers:
        if isinstance(answer, Evaluation):
            _table(answer)
        else:
            sys.stdout.write(f"{answer}\n")
    for note in dict.fromkeys(note for _, answer in answers for note in answer.notes):
        sys.stdout.write(f"note: {note}\n")
    for path in output.written:
        sys.stdout.write(f"wrote {path}\n")


def _merged(answers: list[tuple[str, Answer]]) -> dict[str, Any]:
    """The answers to one input in one flat object; those to several inputs as a list under ``answers``."""
    if len({source for source, _ in answers}) > 1:
        return {"answers": [{"input": source, **answer.to_dict()} for source, answer in answers]}
    merged: dict[str, Any] = {}
    for _, answer in reversed(answers):
        merged |= answer.to_dict()
    return merged


def _table(evaluation: Evaluation) -> None:
    """Model and baselines side by side, and what was counted."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    heading = Text(f"{evaluation.model} on {evaluation.data}, {evaluation.protocol}")  # brackets are no markup
    table = Table(title=heading, title_justify="left")
    table.add_column("model")
    rows = {evaluation.model: evaluation.metrics, **evaluation.baselines}
    names = list(dict.fromkeys(name for metrics in rows.values() for name in metrics))
    console = Console(file=sys.stdout)
    needed = 4 + max(map(len, rows)) + sum(max(len(name), 6) + 3 for name in names)
    if needed > console.width:  # one metric a row: a table that is cut cannot be read
        console.print(heading)  # as a title it would be broken to the table's width
        table.title, table.columns[0].header = None, "metric"
        for row in rows:
            table.add_column(Text(row), justify="right")
        for name in names:
            table.add_row(Text(name), *(_cell(metrics.get(name)) for metrics in rows.values()))
    else:
        for name in names:
            table.add_column(name, justify="right")
        for row, metrics in rows.items():
            table.add_row(Text(row), *(_cell(metrics.get(name)) for name in names))
    if names:
        console.print(table)
    for more in evaluation.tables:
        shown = Table(title=Text(more.title), title_justify="left", caption=Text(more.caption), caption_justify="left")
        for place, name in enumerate(more.head):
            texts = any(isinstance(cells[place], str) for cells in more.rows)
            shown.add_column(Text(name), justify="left" if texts else "right", overflow="fold")
        for cells in more.rows:
            shown.add_row(*(Text(_cell(cell)) for cell in cells))
        console.print(shown)
    counts = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in evaluation.counts.items())
    if counts:
        console.print(f"counted: {counts}", highlight=False)


def _cell(value: object) -> str:
    """A figure as the tables show it; nothing where there is none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if 0 < abs(value) < 0.01 else f"{value:.4f}"  # small errors differ in later digits
    return f"{value:,}" if isinstance(value, int) else str(value)
