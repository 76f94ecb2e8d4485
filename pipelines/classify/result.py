"""What ``predict`` returns: a label a series, its probabilities, a conformal set, and the shapes that told."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipelines.base import Provenance, Result, save_figure
from pipelines.errors import ConfigError
from pipelines.values import to_json

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from pipelines.evaluation.report import Report

#: Series that a picture shows.
MOST_SHOWN = 6


@dataclasses.dataclass(frozen=True)
class Shape:
    """One motif that spoke for the predicted class of a series.

    Args:
        variable: number of the variable that it lies in; those after the last one are components, of unit variance.
        begin: first step.
        values: (w,) the motif in the units of the series, laid over its match.
        prior: of its token, 0 to 1.
        weight: how much the predicted class's log-odds fall where the token is taken away.
        label: the class that the motif recurs in.
    """

    variable: int
    begin: int
    values: NDArray[np.float64]
    prior: float
    weight: float
    label: str


@dataclasses.dataclass
class Classification(Result):
    """Labels, probabilities and conformal sets of N series.

    ``series`` and ``variables`` end with the model's components, where it has some.
    ``frame`` has the columns ``id``, ``label``, ``p(CLASS)`` for every class, and ``set`` (labels joined by "|").
    """

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: NDArray[np.float64]
    inside: NDArray[np.bool_]
    model: str
    interval: float
    provenance: Provenance
    series: tuple[NDArray[np.float32], ...]
    variables: tuple[str, ...]
    truth: tuple[str, ...] | None = None
    shapes: tuple[tuple[Shape, ...], ...] = ()
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    default_name: ClassVar[str] = "labels.csv"

    @property
    def labels(self) -> tuple[str, ...]:
        """The likeliest label of each series."""
        return tuple(self.classes[i] for i in self.probabilities.argmax(1))

    def sets(self) -> list[list[str]]:
        """The labels of each conformal set, the likeliest first."""
        order = np.argsort(-self.probabilities, axis=1, kind="stable")
        return [[self.classes[i] for i in row if inside[i]] for row, inside in zip(order, self.inside, strict=True)]

    @property
    def frame(self) -> pd.DataFrame:
        """All answers as one table."""
        import pandas as pd

        columns: dict[str, Any] = {"id": self.ids, "label": self.labels}
        columns |= {f"p({name})": self.probabilities[:, i] for i, name in enumerate(self.classes)}
        return pd.DataFrame(columns | {"set": ["|".join(labels) for labels in self.sets()]})

    def save(self, path: str | Path) -> Path:
        """Write the table as CSV, Parquet or JSON, by the ending of the name, atomically.

        Raises:
            ConfigError: another ending.
        """
        from pipelines.files import atomic_write

        target = Path(path)
        if target.suffix == ".csv":
            atomic_write(target, self.frame.to_csv(index=False))
        elif target.suffix == ".parquet":
            atomic_write(target, self.frame.to_parquet(index=False))
        elif target.suffix == ".json":
            atomic_write(target, to_json(self.to_dict(), indent=1) + "\n")
        else:
            raise ConfigError(
                "cannot write this kind of file", where=target, found=target.suffix, expected=".csv, .parquet or .json"
            )
        return target

    def to_dict(self) -> dict[str, Any]:
        """Plain values: one entry a series."""
        rows = zip(self.ids, self.labels, self.probabilities, self.sets(), strict=True)
        return {
            "model": self.model,
            "interval": self.interval,
            "classes": list(self.classes),
            "labels": [
                {
                    "id": name,
                    "label": label,
                    "probabilities": {c: float(p) for c, p in zip(self.classes, row, strict=True)},
                    "set": inside,
                }
                for name, label, row, inside in rows
            ],
            "shapes": [
                [
                    {
                        "variable": self.variables[s.variable],
                        "begin": s.begin,
                        "length": len(s.values),
                        "prior": s.prior,
                        "weight": s.weight,
                        "class": s.label,
                    }
                    for s in shapes
                ]
                for shapes in self.shapes
            ],
            "notes": list(self.notes),
            "provenance": dataclasses.asdict(self.provenance),
        }

    def plot(self, path: str | Path | None = None) -> Figure:
        """Up to six series with the shapes that told laid over them; with a path, also written there."""
        from pipelines.classify.plots import series_figure

        figure = series_figure(self, MOST_SHOWN)
        if path is not None:
            save_figure(figure, path)
        return figure

    def fill_report(self, report: Report) -> None:
        """Add counts of labels, the picture and the first rows to an HTML report."""
        counted = {name: sum(label == name for label in self.labels) for name in self.classes}
        said = ", ".join(f"{name} {count:,}" for name, count in counted.items() if count)
        report.add_text(f"{len(self.ids):,} series by {self.model}: {said}.", section="Labels")
        report.add_figure(
            self.plot(),
            f"Up to {MOST_SHOWN} series, each with its label, its probability and the shapes that told",
            section="Labels",
            caption="Shapes lie where they match best; the number is the fall in log-odds without them."
            if any(self.shapes)
            else "",
        )
        head = ["series", "label", "probability", f"{100 * self.interval:g} % set"]
        best = self.probabilities.max(1)
        rows = [
            [name, label, float(p), ", ".join(labels)]
            for name, label, p, labels in list(zip(self.ids, self.labels, best, self.sets(), strict=True))[:20]
        ]
        report.add_table(head, rows, section="Labels", caption=f"The first {len(rows)} of {len(self.ids):,} series.")
        if self.facts:
            report.add_data_summary(self.facts, section="Series")

    def __str__(self) -> str:
        sizes = self.inside.sum(1)
        return (
            f"{self.model}: {len(self.ids):,} series, {len(self.classes)} classes, "
            f"{100 * self.interval:g} % sets of {sizes.mean():.2f} labels on average"
        )
