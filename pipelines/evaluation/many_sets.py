"""One evaluation a data set, over many sets: kept as soon as each is finished, and none lost because another fails."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pipelines.base import Evaluation, Run
from pipelines.errors import ConfigError, InputError, Interrupted, RunError, UserError
from pipelines.values import plain_params, to_json

__all__ = ["NamedSet", "SetAnswer", "SetAnswers", "evaluate_sets"]

_SHOWN = 3  # messages in the error that all sets have failed


class NamedSet(Protocol):
    """A data set that lies in files."""

    @property
    def name(self) -> str:
        """Its name, different from those of the other sets."""
        ...

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read."""
        ...


@dataclasses.dataclass(frozen=True)
class SetAnswer:
    """The figures of one set, as ``Evaluation.to_dict`` gives them."""

    name: str
    figures: dict[str, Any]


@dataclasses.dataclass
class SetAnswers:
    """The sets that were evaluated, in order, and those that could not be, with the message of each."""

    done: list[SetAnswer] = dataclasses.field(default_factory=list)
    left_out: list[tuple[str, str]] = dataclasses.field(default_factory=list)


Set = TypeVar("Set", bound=NamedSet)


def evaluate_sets(
    run: Run, sets: Sequence[Set], evaluate: Callable[[Set, Run], Evaluation], options: Mapping[str, Any]
) -> SetAnswers:
    """Evaluate set after set; what concerns one set only is written down and the next one is taken.

    Where the run has a folder for finished parts, each set's figures are written there at once, as NAME.json. A run
    that is resumed reads them instead of evaluating anew, after checking that the options and the files are the same;
    a set whose files have changed since is evaluated anew. The training state of a finished set is deleted.

    Args:
        run: who hears of it, and where finished parts and training states lie.
        sets: one or more.
        evaluate: from a set, and the run with a folder for this set, to its evaluation.
        options: everything that decides the figures, JSON-ready.

    Raises:
        InputError: no set could be evaluated for a reason in its data; RunError: for other reasons.
        ConfigError: a run that is resumed with other options than it began with.
        Interrupted, KeyboardInterrupt: a signal; what is finished is kept.

    Example:
        >>> import tempfile
        >>> from pipelines.base import Provenance
        >>> from pipelines.data.formats.labelled_archive import ArchiveSet
        >>> def half(one, run):
        ...     said = Provenance.now(data=one.name, model="coin", seed=0)
        ...     return Evaluation("coin", "official split", one.name, {"accuracy": 0.5}, {"n": 2}, said)
        >>> found = evaluate_sets(Run(), [ArchiveSet("A", Path("A"), ())], half, {})
        >>> found.done[0].figures["accuracy"], found.left_out
        (0.5, [])
    """
    answers, errors = SetAnswers(), list[Exception]()
    kept = _Kept(run.finished, plain_params(options))
    known = {one.name: kept.read(one, run) for one in sets} if run.resume else {}
    if not run.resume:
        kept.forget(sets)
    for number, one in enumerate(sets, 1):
        figures = known.get(one.name)
        if figures is None:
            run.say(f"set {number} of {len(sets)}: {one.name}")
            try:
                sums = kept.sums(one)
                figures = _plain(evaluate(one, run.part(one.name)))
            except Exception as error:
                if _stops_all(error, run, one):
                    raise
                errors.append(error)
                answers.left_out.append((one.name, _message(error)))
                run.say(f"{one.name} is left out: {_message(error)}")
                continue
            if kept.folder is not None:
                run.begin_training()  # from here on there is something to go on with
                kept.write(one, figures, sums)
                _drop_training_state(run.part(one.name).folder)
        answers.done.append(SetAnswer(one.name, figures))
    if not answers.done:
        raise _all_failed(answers.left_out, errors)
    return answers


def _plain(evaluation: Evaluation) -> dict[str, Any]:
    """As it is read back from its file, so that a resumed run sees what an undisturbed one sees."""
    return json.loads(to_json(evaluation.to_dict()))


class _Kept:
    """The files of finished sets, each with the options and the files that it was made from."""

    def __init__(self, folder: Path | None, options: dict[str, Any]) -> None:
        self.folder, self.options = folder, options

    def _path(self, one: NamedSet) -> Path:
        return (self.folder or Path()) / f"{one.name}.json"

    def sums(self, one: NamedSet) -> dict[str, str]:
        """SHA-256 of the files of a set."""
        from pipelines.files import sha256

        if self.folder is None:
            return {}
        try:
            return {path.name: sha256(path) for path in one.files}
        except OSError as error:
            raise InputError("cannot be read", where=error.filename, found=error.strerror) from error

    def forget(self, sets: Sequence[NamedSet]) -> None:
        """What an older run has left in this folder must not pass for this run's."""
        if self.folder is not None:
            for one in sets:
                self._path(one).unlink(missing_ok=True)

    def write(self, one: NamedSet, figures: dict[str, Any], sums: dict[str, str]) -> None:
        from pipelines.files import atomic_write

        content = {"set": one.name, "options": self.options, "files": sums, "evaluation": figures}
        atomic_write(self._path(one), to_json(content, indent=1) + "\n")

    def read(self, one: NamedSet, run: Run) -> dict[str, Any] | None:
        """The figures of a finished set; None where there are none that can be used, which is said."""
        path = self._path(one)
        if self.folder is None or not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            options, files, figures = content["options"], content["files"], dict(content["evaluation"])
        except (OSError, ValueError, KeyError, TypeError):
            run.say(f"{path} cannot be read: {one.name} is evaluated again")
            return None
        if options != self.options:
            raise ConfigError(
                f"{one.name} was evaluated with other options",
                where=path,
                found=_differences(options, self.options),
                expected="the options of the run that is resumed",
                cure="drop the options that differ, or begin a new run without --resume",
            )
        try:
            changed = files != self.sums(one)
        except InputError:  # gone or unreadable by now: its evaluation will say so
            changed = True
        if changed:
            run.say(f"{one.name} has changed since it was evaluated: it is evaluated again")
            return None
        run.say(f"{one.name} is finished: read from {path}")
        return figures


def _differences(stored: Any, asked: dict[str, Any]) -> str:
    """The options that are not the same, as they were stored."""
    if not isinstance(stored, dict):
        return str(stored)[:80]
    names = [name for name in {**stored, **asked} if stored.get(name) != asked.get(name)]
    return ", ".join(f"{name} {stored.get(name)}" for name in names)


def _stops_all(error: Exception, run: Run, one: NamedSet) -> bool:
    """Whether an error would meet the other sets too: a signal, a full disk, other options, a bug looked for."""
    if isinstance(error, Interrupted) or (isinstance(error, RunError) and isinstance(error.__cause__, OSError)):
        return True
    folder = run.part(one.name).folder
    if isinstance(error, ConfigError) and run.resume and folder is not None and any(folder.rglob("training.pt")):
        return True
    return not isinstance(error, UserError | RunError) and bool(os.environ.get("PIPELINES_DEBUG"))


def _message(error: Exception) -> str:
    known = isinstance(error, UserError | RunError)
    return str(error) if known else f"internal error, {type(error).__name__}: {error}"


def _all_failed(left_out: list[tuple[str, str]], errors: list[Exception]) -> Exception:
    """One error for all: theirs, where they all say the same."""
    if len({message for _, message in left_out}) == 1:
        error = errors[0]
        return error if isinstance(error, UserError | RunError) else RunError(_message(error))
    more = f" And {len(left_out) - _SHOWN} more." if len(left_out) > _SHOWN else ""
    said = " ".join(f"{name}: {message}" for name, message in left_out[:_SHOWN])
    text = f"none of the {len(left_out)} sets could be evaluated. {said}{more}"
    return InputError(text) if all(isinstance(error, UserError) for error in errors) else RunError(text)


def _drop_training_state(folder: Path | None) -> None:
    """A finished set is not trained again, and the states of a hundred sets would fill a disk."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # not there, or other sets' states are in it
            folder.parent.rmdir()
