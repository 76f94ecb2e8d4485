"""The conformance suite of pipelines: what every domain's class must do, run on small real data.

``check_pipeline(cls)`` is what the house runs on its own classes and what the author of a new domain runs on theirs.
A domain gives the inputs by ``check_kit``; the checks come from the contract in :mod:`pipelines.base`.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.base import RUN_PARAMS, Evaluation, Pipeline, Result
from pipelines.domains import DOMAINS
from pipelines.errors import ConfigError
from pipelines.values import plain


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """One check: its name, whether it passed, and what was wrong."""

    name: str
    passed: bool
    detail: str = ""


class Failed(AssertionError):
    """A pipeline that breaks its contract."""


@dataclasses.dataclass
class Kit:
    """What the checks work with: the class, its small inputs, and one fitted pipeline."""

    cls: type[Pipeline]
    params: dict[str, Any]
    data: Any
    inputs: Any
    folder: Path
    fitted: Pipeline | None = None

    def fresh(self) -> Pipeline:
        """An unfitted pipeline."""
        return self.cls(**self.params)

    def model(self) -> Pipeline:
        """A fitted pipeline, fitted once."""
        if self.fitted is None:
            self.fitted = self.fresh().fit(self.data)
        return self.fitted


def check_pipeline(cls: type[Pipeline], *, raise_: bool = True) -> list[CheckResult]:
    """Hold a pipeline's class to the contract.

    Args:
        cls: the class.
        raise_: raise on the first failure instead of reporting all.

    Returns:
        One result a check, in order.

    Raises:
        AssertionError: the first check that fails, when ``raise_``.

    Example:
        >>> from pipelines import Forecaster
        >>> all(result.passed for result in check_pipeline(Forecaster))
        True
    """
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        kit = Kit(cls, folder=Path(scratch), **cls.check_kit())
        for check in CHECKS:
            name = check.__name__.removeprefix("_")
            try:
                check(kit)
            except Exception as error:
                if raise_:
                    raise Failed(f"{cls.__name__}: {name}: {error}") from error
                results.append(CheckResult(name, False, f"{type(error).__name__}: {error}"))
            else:
                results.append(CheckResult(name, True))
    return results


def _require(condition: object, message: str) -> None:
    if not condition:
        raise Failed(message)


def _is_registered(kit: Kit) -> None:
    domain = DOMAINS.get(kit.cls.domain)
    if domain is not None:  # a third party's class need not be in the command line
        _require(domain.cls == kit.cls.__name__, f"domain {kit.cls.domain} belongs to {domain.cls}")
    _require(kit.cls.summary.endswith("."), "summary is one sentence")


def _constructor_stores(kit: Kit) -> None:
    parameters = inspect.signature(kit.cls.__init__).parameters
    for name, parameter in parameters.items():
        if name == "self":
            continue
        _require(parameter.kind is parameter.KEYWORD_ONLY, f"argument {name} is keyword-only")
        _require(parameter.default is not parameter.empty, f"argument {name} has a default")
        _require(getattr(kit.cls(), name) is parameter.default, f"argument {name} is stored as it is")
    _require(set(parameters) >= RUN_PARAMS, f"has the arguments {sorted(RUN_PARAMS)}")
    _require(not kit.fresh().is_fitted, "a new pipeline is not fitted")


def _arguments_are_documented(kit: Kit) -> None:
    text = inspect.getdoc(kit.cls) or ""
    for name in kit.cls.param_names():
        _require(f"{name}:" in text, f"argument {name} is not documented")
    for name in kit.cls.call_time:
        _require(name in kit.cls.param_names(), f"call_time names {name}, which is no argument")


def _command_line_builds(kit: Kit) -> None:
    from pipelines.cli.parser import build_parser
    from pipelines.domains import COMMON_VERBS

    for verb in [*COMMON_VERBS, *kit.cls.verbs]:
        _require(build_parser(kit.cls, verb).format_help(), f"verb {verb} has no help")


def _unfitted_is_refused(kit: Kit) -> None:
    fresh = kit.fresh()
    calls: list[Callable[[], object]] = [
        lambda: fresh.predict(kit.inputs),
        lambda: fresh.evaluate(kit.data),
        lambda: fresh.save(kit.folder / "nothing"),
        lambda: fresh.export(kit.folder / "nothing.pt2"),
    ]
    for call in calls:
        try:
            call()
        except ConfigError:
            continue
        raise Failed("an unfitted pipeline answers")
    _require(not (kit.folder / "nothing").exists(), "a refused save wrote something")


def _fit_returns_self(kit: Kit) -> None:
    model = kit.model()
    _require(model.is_fitted, "fit leaves a fitted pipeline")
    _require(model.get_params().keys() == kit.fresh().get_params().keys(), "fit changes no arguments")


def _same_seed_same_result(kit: Kit) -> None:
    again = kit.fresh().fit(kit.data)
    _require(_same(again.predict(kit.inputs), kit.model().predict(kit.inputs)), "two fits with one seed differ")


def _result_is_complete(kit: Kit) -> None:
    result = kit.model().predict(kit.inputs)
    _require(isinstance(result, Result), "predict returns a Result")
    json.dumps(result.to_dict(), allow_nan=False, default=plain)
    saved = result.save(kit.folder / result.default_name)
    _require(saved.stat().st_size > 0, "a saved result is not empty")
    result.plot(kit.folder / "result.png")
    _require((kit.folder / "result.png").stat().st_size > 1000, "a result can be drawn")
    _require(result.provenance.model and result.provenance.data, "a result knows where it comes from")


def _evaluation_is_complete(kit: Kit) -> None:
    evaluation = kit.model().evaluate(kit.data)
    _require(isinstance(evaluation, Evaluation), "evaluate returns an Evaluation")
    _require(evaluation.protocol, "an evaluation names its protocol")
    _require(all(count > 0 for count in evaluation.counts.values()), "an evaluation counts what it measured")
    _require(evaluation.baselines, "baselines are always beside")
    _require(all(math.isfinite(value) for value in evaluation.metrics.values()), "metrics are finite")
    text = json.dumps(evaluation.to_dict(), allow_nan=False, default=plain)
    _require(json.loads(text).keys() >= evaluation.metrics.keys(), "metrics stand at the top level")
    evaluation.save(kit.folder / "evaluation.json")


def _report_renders(kit: Kit) -> None:
    from pipelines.evaluation.report import Report

    report = Report("check")
    kit.model().evaluate(kit.data).fill_report(report)
    kit.model().predict(kit.inputs).fill_report(report)
    page = report.render()
    _require("<html" in page and "http://" not in page, "a report is one self-contained page")


def _saved_is_loaded(kit: Kit) -> None:
    folder = kit.model().save(kit.folder / "model")
    twin = kit.cls.load(folder)
    _require(_same(twin.predict(kit.inputs), kit.model().predict(kit.inputs)), "a loaded pipeline answers differently")
    try:
        kit.model().save(folder)
    except ConfigError:
        return
    raise Failed("save overwrites silently")


def _contradiction_is_refused(kit: Kit) -> None:
    folder = kit.folder / "model"
    fixed = [n for n in kit.cls.param_names() if n not in kit.cls.call_time | RUN_PARAMS]
    number = next((n for n in fixed if type(getattr(kit.model(), n)) is int), None)
    if number is None:
        return
    try:
        kit.cls.load(folder, **{number: getattr(kit.model(), number) + 1})
    except ConfigError:
        return
    raise Failed(f"a checkpoint was opened with another {number}")


def _export_agrees(kit: Kit) -> None:
    parity = kit.model().export(kit.folder / "model.pt2", format="pt2")
    _require(parity.max_abs_error <= parity.tolerance, "the exported file does not agree with eager")
    _require(len(set(parity.batches)) > 1, "the batch is dynamic")


def _same(a: Result, b: Result) -> bool:
    def content(result: Result) -> str:
        kept = {k: v for k, v in result.to_dict().items() if k not in ("provenance", "notes")}
        return json.dumps(kept, sort_keys=True, default=plain)

    return content(a) == content(b)


CHECKS: tuple[Callable[[Kit], None], ...] = (
    _is_registered,
    _constructor_stores,
    _arguments_are_documented,
    _command_line_builds,
    _unfitted_is_refused,
    _fit_returns_self,
    _same_seed_same_result,
    _result_is_complete,
    _evaluation_is_complete,
    _report_renders,
    _saved_is_loaded,
    _contradiction_is_refused,
    _export_agrees,
)

__all__ = ["CHECKS", "CheckResult", "check_pipeline"]
