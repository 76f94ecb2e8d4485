"""Errors of the suite: each says what was wrong, where, what was expected and the cure."""

from __future__ import annotations

from pipelines.data.errors import InputError, UserError

__all__ = ["ConfigError", "InputError", "Interrupted", "NothingToMeasure", "RunError", "UserError", "WeightsError"]


class ConfigError(UserError):
    """A setting (flag, YAML key, constructor argument) that does not exist or does not fit."""


class NothingToMeasure(InputError):
    """Data of which nothing is left to measure a model on; a model that was fitted on them is none the worse."""


class WeightsError(UserError):
    """A weights file or checkpoint that is damaged, unsafe, or of another model."""


class RunError(RuntimeError):
    """A run that failed for a reason outside the input (full disk, lost process); exit code 1."""


class Interrupted(RunError):
    """A run stopped by a signal after its state was saved; exit code 128 + signal number.

    Example:
        >>> import signal
        >>> Interrupted("stopped", signal.SIGTERM).exit_code
        143
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = int(signum)

    @property
    def exit_code(self) -> int:
        """The conventional exit code of a process ended by this signal."""
        return 128 + self.signum
