"""Series with labels: many short recordings, each of one or several variables, of equal or unequal length."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError

__all__ = ["LabelledSeries"]

Series = NDArray[np.float32]


@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no plain equality: compare by ``digest``
class LabelledSeries:
    """A set of series for classification. Nothing is padded: a series is as long as it was recorded.

    Args:
        source: file, folder or name that it came from, for messages.
        series: one (V, T) float32 array an example, T its own; NaN where nothing was measured.
        labels: one text an example, as it stood in the source; None where the source has none.
        variables: V names.
        ids: one name an example, unique.
        groups: whose each example is (subject, site, recording), or None; splits never cut through a group.
        split: "train" or "test" for each example, where the source says so, else None.
        notes: what was done to the data while reading, counted.

    Raises:
        InputError: no series, other numbers of variables, labels or ids than series, infinite values, an empty series.

    Example:
        >>> import numpy as np
        >>> two = LabelledSeries.of([np.zeros((3, 5)), np.ones((3, 8))], labels=["a", "b"])
        >>> len(two), two.lengths.tolist(), two.classes
        (2, [5, 8], ('a', 'b'))
    """

    source: str
    series: tuple[Series, ...]
    labels: tuple[str, ...] | None
    variables: tuple[str, ...]
    ids: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    split: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        series: Sequence[NDArray[np.floating]],
        *,
        labels: Sequence[object] | None = None,
        source: str = "array",
        variables: Sequence[str] | None = None,
        ids: Sequence[object] | None = None,
        groups: Sequence[object] | None = None,
        split: Sequence[str] | None = None,
        notes: Sequence[str] = (),
    ) -> LabelledSeries:
        """Build from arrays (V, T), with names made up where none are given."""
        arrays = tuple(np.ascontiguousarray(one, np.float32) for one in series)
        width = arrays[0].shape[0] if arrays and arrays[0].ndim == 2 else 0
        return cls(
            source,
            arrays,
            None if labels is None else tuple(str(label) for label in labels),
            tuple(variables) if variables is not None else tuple(f"v{i}" for i in range(width)),
            tuple(str(one) for one in ids) if ids is not None else tuple(str(i) for i in range(len(arrays))),
            None if groups is None else tuple(str(group) for group in groups),
            None if split is None else tuple(split),
            tuple(notes),
        )

    def __post_init__(self) -> None:
        """Refuse what no reader may hand on."""
        if not self.series:
            raise InputError("no series", where=self.source, found=0, expected="at least 1")
        for name in ("labels", "ids", "groups", "split"):
            given = getattr(self, name)
            if given is not None and len(given) != len(self.series):
                raise InputError(
                    f"{name} do not fit the series",
                    where=self.source,
                    found=f"{len(given)} {name}",
                    expected=f"{len(self.series)}",
                )
        if len(set(self.ids)) != len(self.ids):
            raise InputError("two series have one name", where=self.source, cure="give every series its own id")
        for name, one in zip(self.ids, self.series, strict=True):
            self._check_one(name, one)

    def _check_one(self, name: str, one: Series) -> None:
        if one.ndim != 2 or one.shape[0] != len(self.variables) or one.shape[1] < 1:
            raise InputError(
                f"series '{name}' has another shape than the rest",
                where=self.source,
                found=one.shape,
                expected=f"({len(self.variables)} variables, 1 or more time steps)",
                cure="every series has the same variables; give a variable that was not measured as NaN",
            )
        if np.isinf(one).any():
            variable, step = (int(i[0]) for i in np.nonzero(np.isinf(one)))
            raise InputError(
                f"series '{name}' holds an infinite value",
                where=self.source,
                found=f"variable {self.variables[variable]}, time step {step}",
                expected="finite numbers, or NaN where nothing was measured",
            )

    def __len__(self) -> int:
        return len(self.series)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) time steps of each series."""
        return np.array([one.shape[1] for one in self.series], np.int64)

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that occur, whole numbers in their order, everything else by the alphabet."""
        found = sorted(set(self.labels or ()))
        try:
            return tuple(sorted(found, key=float))
        except ValueError:
            return tuple(found)

    @property
    def missing(self) -> int:
        """Values that were not measured."""
        return int(sum(np.isnan(one).sum() for one in self.series))

    def subset(self, indices: Sequence[int] | NDArray[np.integer]) -> LabelledSeries:
        """Some of the examples, in the order given."""
        chosen = [int(i) for i in indices]

        def pick(values: tuple | None) -> tuple | None:
            return None if values is None else tuple(values[i] for i in chosen)

        return dataclasses.replace(
            self,
            series=tuple(self.series[i] for i in chosen),
            labels=pick(self.labels),
            ids=tuple(self.ids[i] for i in chosen),
            groups=pick(self.groups),
            split=pick(self.split),
        )

    def digest(self) -> str:
        """SHA-256 of values, lengths and labels: what was found in these series is found again by it."""
        total = hashlib.sha256(repr((self.variables, self.labels)).encode())
        for one in self.series:
            total.update(repr(one.shape).encode())
            total.update(np.ascontiguousarray(one).tobytes())
        return total.hexdigest()
