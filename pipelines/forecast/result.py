"""The forecast that ``predict`` returns: a table in the original scale and time zone, with intervals and a picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pipelines.base import Provenance, Result, save_figure
from pipelines.errors import ConfigError
from pipelines.values import to_json

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure

    from pipelines.evaluation.report import Report


@dataclasses.dataclass
class SeriesForecast:
    """The forecast of one variable of one series, in its own units.

    Args:
        name: name of the series; in a wide table, of the column.
        variable: name of the column.
        history: the values up to the origin, for the picture.
        mean: (H,) point forecast with its time stamps as index.
        bands: level -> (lo (H,), hi (H,)).
        truth: (H,) what came true, where it is known (demonstrations, backtests).
    """

    name: str
    variable: str
    history: pd.Series
    mean: pd.Series
    bands: dict[float, tuple[np.ndarray, np.ndarray]]
    truth: pd.Series | None = None


@dataclasses.dataclass
class Forecast(Result):
    """Forecasts of every series of a table.

    ``frame`` has the columns ``unique_id``, ``ds``, ``MODEL``, ``MODEL-lo-90``, ``MODEL-hi-90`` (and ``variable`` where
    several series have several variables); values are in the units of the input, times in its zone.
    """

    series: list[SeriesForecast]
    model: str
    interval: float
    provenance: Provenance
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    default_name: ClassVar[str] = "forecast.csv"

    @property
    def frame(self) -> pd.DataFrame:
        """All forecasts as one long table."""
        import pandas as pd

        percent = f"{100 * self.interval:g}"
        several = any(s.variable != s.name for s in self.series) and len({s.variable for s in self.series}) > 1
        parts = []
        for one in self.series:
            lo, hi = one.bands[self.interval]
            columns: dict[str, Any] = {"unique_id": one.name, "ds": one.mean.index}
            if several:
                columns["variable"] = one.variable
            columns |= {
                self.model: one.mean.to_numpy(),
                f"{self.model}-lo-{percent}": lo,
                f"{self.model}-hi-{percent}": hi,
            }
            parts.append(pd.DataFrame(columns))
        return pd.concat(parts, ignore_index=True)

    @property
    def horizon(self) -> int:
        """Steps ahead."""
        return len(self.series[0].mean)

    def save(self, path: str | Path) -> Path:
        """Write the table as CSV (optionally compressed), Parquet or JSON, by the ending of the name, atomically.

        Raises:
            ConfigError: another ending.
        """
        from pipelines.files import atomic_write

        target = Path(path)
        kind = next((s for s in reversed(target.suffixes) if s in {".csv", ".parquet", ".json"}), "")
        frame = self.frame
        if kind == ".csv" and target.suffix == ".csv":
            atomic_write(target, frame.to_csv(index=False))
        elif kind == ".parquet" and target.suffix == ".parquet":
            atomic_write(target, frame.to_parquet(index=False))
        elif kind == ".json" and target.suffix == ".json":
            atomic_write(target, to_json(self.to_dict(), indent=1) + "\n")
        else:
            raise ConfigError(
                "cannot write this kind of file", where=target, found=target.suffix, expected=".csv, .parquet or .json"
            )
        return target

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers: one entry a series with ISO time stamps."""
        return {
            "model": self.model,
            "horizon": self.horizon,
            "interval": self.interval,
            "forecasts": [
                {
                    "unique_id": one.name,
                    "variable": one.variable,
                    "ds": [stamp.isoformat() for stamp in one.mean.index],
                    "mean": one.mean.tolist(),
                    "lo": one.bands[self.interval][0].tolist(),
                    "hi": one.bands[self.interval][1].tolist(),
                }
                for one in self.series
            ],
            "notes": list(self.notes),
            "provenance": dataclasses.asdict(self.provenance),
        }

    def plot(self, path: str | Path | None = None) -> Figure:
        """History, forecast and fan of up to six series; with a path, also written there."""
        from pipelines.evaluation.plots import ForecastPanel, forecast_figure

        panels = [
            ForecastPanel(
                title=one.name if one.name == one.variable else f"{one.name}: {one.variable}",
                history_time=one.history.index[-4 * self.horizon :],
                history=one.history.to_numpy()[-4 * self.horizon :],
                time=one.mean.index,
                forecast=one.mean.to_numpy(),
                bands={level: one.bands[level] for level in _shown_levels(one.bands, self.interval)},
                truth=None if one.truth is None else one.truth.to_numpy(),
            )
            for one in self.series
        ]
        figure = forecast_figure(panels, title=f"{self.model}, {self.horizon} steps ahead")
        if path is not None:
            save_figure(figure, path)
        return figure

    def fill_report(self, report: Report) -> None:
        """Add the picture, and what the history was, to an HTML report."""
        first = self.series[0].mean.index[0]
        last = self.series[0].mean.index[-1]
        report.add_text(
            f"{len(self.series)} series, {self.horizon} steps from {first.isoformat()} to {last.isoformat()}, "
            f"by {self.model}, with {100 * self.interval:g} % intervals.",
            section="Forecast",
        )
        report.add_figure(
            self.plot(),
            f"History, forecast and intervals of {len(self.series)} series by {self.model}",
            section="Forecast",
        )
        if self.facts:
            report.add_data_summary(self.facts, section="History")

    def __str__(self) -> str:
        first, last = self.series[0].mean.index[0], self.series[0].mean.index[-1]
        return (
            f"{self.model}: {len(self.series)} series, {self.horizon} steps, "
            f"{first.isoformat()} .. {last.isoformat()}, {100 * self.interval:g} % intervals"
        )


def _shown_levels(bands: dict[float, Any], interval: float) -> list[float]:
    """The levels of the fan: the one asked for and, inside it, about a half and about four fifths of it."""
    inside = [min(bands, key=lambda level: abs(level - share * interval)) for share in (0.55, 0.9)]
    return sorted({interval, *(level for level in inside if level < interval)})
