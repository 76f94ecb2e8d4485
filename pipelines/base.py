"""The contract of a pipeline: what every domain offers to the command line, to Python and to notebooks.

A domain subclasses :class:`Pipeline`, returns a :class:`Result` from ``predict`` and an :class:`Evaluation` from
``evaluate``; all else comes from here. Torch, pandas and matplotlib are imported where a method needs them.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pipelines.errors import ConfigError
from pipelines.values import agrees, of_kind, plain_params, shown_value, to_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from pipelines.evaluation.report import Report
    from pipelines.exporting import ExportParity
    from pipelines.progress import Progress

#: Constructor arguments that every pipeline has: how a run is carried out, not what the model is.
RUN_PARAMS = frozenset({"device", "precision", "seed", "threads"})


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where a result comes from: enough to repeat it.

    Example:
        >>> Provenance.now(data="ETTh1.csv", model="dlinear", seed=1).data
        'ETTh1.csv'
    """

    version: str
    created: str
    command: str
    data: str
    model: str
    seed: int
    weights: str = ""

    @classmethod
    def now(cls, *, data: str, model: str, seed: int, weights: str = "") -> Provenance:
        """Stamp the present moment, this library's version and this process's command line."""
        from pipelines import __version__

        created = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        return cls(__version__, created, command_line(), data, model, seed, weights)


def command_line() -> str:
    """The command that started this process, as one would type it (empty when imported from Python)."""
    import shlex

    name = Path(sys.argv[0]).name if sys.argv else ""
    if name == "__main__.py":
        name = "pipelines"
    return shlex.join([name, *sys.argv[1:]]) if name == "pipelines" else ""


@dataclasses.dataclass
class Run:
    """How one run is carried out: who hears of it, where its training state lives, whether it goes on.

    Args:
        progress: who hears of it.
        folder: where the state of training lives; None keeps none.
        resume: go on with the training whose state the folder holds.
        overwrite: a state in the folder may be replaced.
        before_training: called once the input has been read and checked and training is about to begin.
        finished: where the answers of finished parts of a long run are kept; None keeps none.

    Example:
        >>> Run(folder=Path("a")).part("seed-1").folder
        PosixPath('a/seed-1')
    """

    progress: Progress | None = None
    folder: Path | None = None
    resume: bool = False
    overwrite: bool = False
    before_training: Callable[[], None] | None = None
    finished: Path | None = None

    def part(self, name: str) -> Run:
        """The same run with the training state of one of several models in a folder of its own."""
        return dataclasses.replace(self, folder=None if self.folder is None else self.folder / name)

    def begin_training(self) -> None:
        """Tell whoever started this run that the input is sound: nothing has been written before this call."""
        if self.before_training is not None:
            self.before_training()

    def say(self, text: str) -> None:
        """Tell the user one line on standard error (nothing without a progress object)."""
        if self.progress is not None:
            self.progress.say(text)


class Result(ABC):
    """What ``predict`` returns: it can be saved, drawn and reported, and knows where it came from."""

    provenance: Provenance
    notes: tuple[str, ...]
    #: Parts of the input that could not be answered, and why; the command line then ends with 1.
    failures: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def save(self, path: str | Path) -> Path:
        """Write the result; the format follows the file name's ending."""

    @abstractmethod
    def plot(self, path: str | Path | None = None) -> Figure:
        """Draw the result; with a path, also write the picture there."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints: plain names and plain numbers."""

    @abstractmethod
    def fill_report(self, report: Report) -> None:
        """Add this result's sections to an HTML report."""

    #: Name of the file that a run folder holds.
    default_name: ClassVar[str] = "result.json"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of an answer, for the terminal and the report: its title, names of columns, rows, and what to add."""

    title: str
    head: list[str]
    rows: list[list[object]]
    caption: str = ""


@dataclasses.dataclass
class Evaluation:
    """Figures of one evaluation: what was measured, by which protocol, on how much, beside which baselines.

    Args:
        model: name of the model.
        protocol: name of the protocol, with everything that changes the figures.
        data: what was evaluated.
        metrics: headline figures by the field's plain names.
        counts: how many windows (files, subjects, ...) and values were counted.
        intervals: 95 % intervals of metrics by name.
        baselines: the same metrics for every baseline.
        horizons: lists by forecast step, or another axis that the field reads.
        details: further JSON-ready figures of the domain.
        seeds: one entry a seed when several were run.
        notes: everything that was done to the data, counted.
        facts: what the data are, for the report.
        figures: (title, alternative text, function that draws) for the report.
        tables: shown below the metrics.
        largest: whether the largest value of the first metric is the best one (the lowest otherwise).
    """

    model: str
    protocol: str
    data: str
    metrics: dict[str, float]
    counts: dict[str, int]
    provenance: Provenance
    intervals: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    baselines: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    horizons: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    seeds: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    figures: list[tuple[str, str, Callable[[], Figure]]] = dataclasses.field(default_factory=list)
    tables: list[Table] = dataclasses.field(default_factory=list)
    largest: bool = False

    default_name: ClassVar[str] = "evaluation.json"

    def to_dict(self) -> dict[str, Any]:
        """One flat JSON object: metrics and counts at the top level, the rest under its own name."""
        out: dict[str, Any] = {"model": self.model, "protocol": self.protocol, "data": self.data}
        out |= self.metrics
        out |= self.counts
        out |= {
            "intervals": {name: list(pair) for name, pair in self.intervals.items()},
            "baselines": self.baselines,
            "horizons": self.horizons,
            "details": self.details,
            "seeds": self.seeds,
            "notes": list(self.notes),
            "provenance": dataclasses.asdict(self.provenance),
        }
        return out

    def save(self, path: str | Path) -> Path:
        """Write the figures as JSON, atomically."""
        from pipelines.files import atomic_write

        target = Path(path)
        atomic_write(target, to_json(self.to_dict(), indent=1) + "\n")
        return target

    def plot(self, path: str | Path | None = None) -> Figure:
        """Draw the first figure; with a path, also write it there."""
        if not self.figures:
            raise ConfigError("this evaluation has no figure", where="plot")
        figure = self.figures[0][2]()
        if path is not None:
            save_figure(figure, path)
        return figure

    def fill_report(self, report: Report) -> None:
        """Add metrics against baselines, figures and notes to an HTML report."""
        first = next(iter(self.metrics), None)
        rows = {self.model: self.metrics, **self.baselines}
        ranges = ", ".join(f"{name} {lo:.4f} to {hi:.4f}" for name, (lo, hi) in self.intervals.items())
        caption = f"95 % intervals of {self.model}: {ranges}." if ranges else ""
        if self.metrics:
            report.add_metrics_table(rows, section="Figures", caption=caption, best=first, largest=self.largest)
        counted = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in self.counts.items())
        report.add_text(f"{self.protocol}. Counted: {counted or 'nothing'}.", section="Protocol")
        if self.seeds:
            table = {f"seed {entry['seed']}": {k: v for k, v in entry.items() if k != "seed"} for entry in self.seeds}
            report.add_metrics_table(table, section="Seeds")
        for title, alt, draw in self.figures:
            report.add_figure(draw(), alt, section=title)
        for table in self.tables:
            report.add_table(table.head, table.rows, section=table.title, caption=table.caption)
        if self.facts:
            report.add_data_summary(self.facts)


class Pipeline(ABC):
    """One domain's public class: the constructor stores, ``fit`` learns, ``predict`` and ``evaluate`` answer.

    Subclasses give ``domain``, ``summary``, ``verbs`` (domain verbs beside the common five: name -> method name),
    ``call_time`` (constructor arguments that may differ from those stored with the weights), ``endings`` (verb -> the
    file names that its answer can be saved under) and the abstract methods. ``archives`` says that ``evaluate_archive``
    is there, ``streams`` which verbs take their input step by step (name -> the command that fits its model), and
    ``together`` which answer for all inputs at once. Every constructor argument is keyword-only, documented, and
    stored under its own name without a computation.
    """

    domain: ClassVar[str]
    summary: ClassVar[str]
    verbs: ClassVar[Mapping[str, str]] = {}
    call_time: ClassVar[frozenset[str]] = frozenset()
    endings: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    archives: ClassVar[bool] = False
    streams: ClassVar[Mapping[str, str]] = {}
    together: ClassVar[frozenset[str]] = frozenset()

    device: str
    precision: str
    seed: int
    threads: int | None
    run: Run

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        """Give every pipeline a quiet run before its constructor stores anything."""
        self = super().__new__(cls)
        self.run = Run()
        return self

    # What a domain writes ---------------------------------------------------------------------------------------

    @abstractmethod
    def fit(self, data: Any) -> Self:
        """Learn from data; returns the pipeline itself."""

    @abstractmethod
    def predict(self, inputs: Any) -> Result:
        """Answer for new inputs."""

    @abstractmethod
    def evaluate(self, data: Any) -> Evaluation:
        """Measure on held-out data by the domain's protocol, beside the baselines."""

    @abstractmethod
    def demo(self) -> tuple[Evaluation, Result]:
        """Fit or load, evaluate and predict on the embedded real data, within two minutes on two cores."""

    @abstractmethod
    def _export_parts(self) -> tuple[nn.Module, dict[str, Tensor], str]:
        """The module in eval mode, its example inputs by name (batch first), and the name of its output."""

    @abstractmethod
    def _weights(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and the JSON-ready configuration that :meth:`_restore` needs."""

    @abstractmethod
    def _restore(self, tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
        """Rebuild the fitted state from what :meth:`_weights` gave."""

    @classmethod
    @abstractmethod
    def from_official(cls, path: str | Path, **params: Any) -> Self:
        """A fitted pipeline around an official checkpoint of the paper's code."""

    @classmethod
    @abstractmethod
    def check_kit(cls) -> dict[str, Any]:
        """Small real inputs for :func:`pipelines.checks.check_pipeline`: ``params``, ``data``, ``inputs``."""

    # What every domain has --------------------------------------------------------------------------------------

    @classmethod
    def param_names(cls) -> tuple[str, ...]:
        """Names of the constructor's arguments."""
        return tuple(name for name in inspect.signature(cls.__init__).parameters if name != "self")

    def get_params(self) -> dict[str, Any]:
        """The constructor's arguments as they stand."""
        return {name: getattr(self, name) for name in self.param_names()}

    def clone(self, **changes: Any) -> Self:
        """An unfitted pipeline with the same arguments, some of them changed, telling the same listener."""
        twin = type(self)(**{**self.get_params(), **changes})
        twin.run = dataclasses.replace(self.run)
        return twin

    @property
    def is_fitted(self) -> bool:
        """Whether there is a model that can answer."""
        return getattr(self, "_fitted", False)

    def adopt_shipped(self) -> bool:
        """Take over the weights that ship for these arguments; False where there are none."""
        return False

    @property
    def has_weights(self) -> bool:
        """Whether there is anything to save: a fitted rule without weights answers, but cannot be kept."""
        return self.is_fitted

    def require_fitted(self, what: str) -> None:
        """Raise ConfigError when there is no model yet."""
        if not self.is_fitted:
            raise ConfigError(
                "there is no fitted model", where=f"{type(self).__name__}.{what}", cure="call fit(data) or load(folder)"
            )

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write weights and configuration into a folder that :func:`pipelines.load` opens.

        Raises:
            ConfigError: when nothing is fitted, or the folder exists and ``overwrite`` is false.
        """
        from pipelines.files import staged_folder

        self.require_fitted("save")
        with staged_folder(folder, overwrite=overwrite) as staging:
            self.write_weights(staging)
        return Path(folder)

    def write_weights(self, folder: str | Path) -> Path:
        """Write weights and configuration into a folder that may hold other files of the same run."""
        from pipelines.weights import save_weights

        self.require_fitted("save")
        tensors, state = self._weights()
        config = {"domain": self.domain, "params": plain_params(self.get_params()), **state}
        save_weights(folder, tensors, config)
        return Path(folder)

    @classmethod
    def load(cls, source: str | Path, **changes: Any) -> Self:
        """Open a folder that :meth:`save` wrote.

        Args:
            source: the folder.
            changes: constructor arguments to change: how to run, and those in ``call_time``.

        Raises:
            WeightsError: damaged weights, or weights of another domain.
            ConfigError: a change that contradicts the stored model.
        """
        from pipelines.errors import WeightsError
        from pipelines.weights import load_weights

        tensors, config = load_weights(source)
        if config.get("domain") != cls.domain:
            raise WeightsError(
                "these weights belong to another pipeline",
                where=source,
                found=config.get("domain"),
                expected=cls.domain,
                cure=f"open them with `pipelines {config.get('domain')}` or pipelines.load",
            )
        pipeline = cls(**config["params"])
        pipeline.apply(changes, where=str(source))
        pipeline._restore(tensors, config)
        return pipeline

    def apply(self, changes: Mapping[str, Any], *, where: str) -> None:
        """Change arguments of a loaded pipeline: run and call-time ones freely, others only if they agree."""
        allowed = RUN_PARAMS | self.call_time
        for name, value in changes.items():
            stored = getattr(self, name)
            asked = of_kind(stored, value, name)
            if name in allowed:
                setattr(self, name, asked)
            elif not agrees(stored, asked):
                raise ConfigError(
                    f"the checkpoint was made with another {name}",
                    where=where,
                    found=shown_value(stored),
                    expected=shown_value(asked),
                    cure=f"drop --{name}, or fit a new model",
                )

    def export(self, path: str | Path, *, format: str = "pt2") -> ExportParity:
        """Write the fitted model as a torch.export archive or as ONNX and compare it against eager.

        Args:
            path: the file to write.
            format: ``pt2`` or ``onnx``.

        Raises:
            ConfigError: unknown format, missing onnx packages, nothing fitted.
            RunError: the exported file does not agree with eager; nothing is left behind.
        """
        from pipelines.exporting import export_module

        self.require_fitted("export")
        module, example, output = self._export_parts()
        return export_module(module, example, Path(path), format, output_name=output)

    def evaluate_archive(self, folder: str | Path, *, seeds: int = 1) -> Evaluation:
        """Fit and evaluate on every set of a folder, where the domain has such folders.

        Args:
            folder: of the sets.
            seeds: fits a set, of which the median counts.

        Raises:
            ConfigError: this domain has none.
        """
        raise ConfigError(f"{self.domain} has no archives of sets", where="evaluate_archive", found=folder)

    def evaluate_seeds(self, data: Any, seeds: int) -> Evaluation:
        """Fit and evaluate with several seeds; report the median of every metric and each seed beside it.

        Args:
            data: as :meth:`evaluate`.
            seeds: how many; they are ``seed``, ``seed + 1``, ...
        """
        from pipelines.evaluation.bootstrap import median_of_seeds

        runs: list[Evaluation] = []
        for offset in range(seeds):
            twin = self.clone(seed=self.seed + offset)
            twin.run = self.run.part(f"seed-{twin.seed}")
            run = twin.fit(data).evaluate(data)
            runs.append(run)
            shown = ", ".join(f"{name} {value:.4f}" for name, value in run.metrics.items())
            self.run.say(f"seed {twin.seed}: {shown}")
        entries = [{"seed": self.seed + i, **run.metrics} for i, run in enumerate(runs)]
        medians = {name: median_of_seeds(run.metrics[name] for run in runs).median for name in runs[0].metrics}
        # The figures, intervals and lists shown are those of the run that lies nearest to the median.
        first = next(iter(medians))
        nearest = min(runs, key=lambda run: abs(run.metrics[first] - medians[first]))
        return dataclasses.replace(
            nearest,
            metrics=medians,
            seeds=entries,
            notes=(*nearest.notes, f"metrics are medians of {seeds} seeds; intervals and figures are of one of them"),
        )

    def start_torch(self) -> Any:
        """Import torch, set threads and seeds for this run, and return the torch module."""
        import torch

        if self.threads is not None:
            if self.threads < 1:
                raise ConfigError("threads must be at least 1", where="threads", found=self.threads)
            torch.set_num_threads(self.threads)
        torch.manual_seed(self.seed)
        return torch


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG, SVG or PDF by the ending of the path, atomically."""
    from pipelines.files import atomic_write

    target = Path(path)
    kind = target.suffix.lstrip(".").lower() or "png"
    if kind not in {"png", "svg", "pdf"}:
        raise ConfigError("cannot draw into this kind of file", where=target, found=kind, expected="png, svg or pdf")
    atomic_write(target, lambda handle: figure.savefig(handle, format=kind, dpi=150))
    return target
