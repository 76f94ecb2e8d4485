"""Errors that a user can cure: what was wrong, where, what was expected, and the cure, in one message."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in what the user gave; the command line prints it without a traceback and exits with 2.

    Args:
        problem: what is wrong, a short clause without a full stop.
        where: the file, column or argument that it is about.
        found: what was there.
        expected: what should have been there.
        cure: what the user can do about it.

    Example:
        >>> print(UserError("no time column", where="a.csv", found="x, y", expected="date", cure="name it"))
        a.csv: no time column. Found: x, y. Expected: date. Cure: name it.
    """

    def __init__(
        self,
        problem: str,
        *,
        where: object = "",
        found: object = None,
        expected: object = None,
        cure: str | None = None,
    ) -> None:
        self.problem, self.where, self.found, self.expected, self.cure = problem, str(where), found, expected, cure
        labelled = (("Found", found), ("Expected", expected), ("Cure", cure))
        parts = [f"{where}: {problem}" if str(where) else problem]
        parts += [f"{label}: {value}" for label, value in labelled if value is not None]
        text = ". ".join(part.rstrip(".") for part in parts)
        super().__init__(text if text.endswith("?") else f"{text}.")

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild from the fields: the default would pass the finished message as the problem."""
        return (_rebuild, (type(self), self.problem, self.where, self.found, self.expected, self.cure))


class InputError(UserError):
    """Input data (a file, a table, an array) that cannot be used as it is."""


def _rebuild(
    cls: type[UserError], problem: str, where: str, found: object, expected: object, cure: str | None
) -> UserError:
    return cls(problem, where=where, found=found, expected=expected, cure=cure)
