"""A report as one self-contained HTML page: what was run, on what, how good it is, and how to repeat it.

Every text that goes in is escaped: column names and file names come from users' data. The page loads nothing from
outside (its content security policy forbids it), prints well, follows the reader's light or dark setting, and can be
read with a keyboard and a screen reader. The same content gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from pipelines.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Report", "format_value"]

_PNG = b"\x89PNG\r\n\x1a\n"
_SLIDE = """for (const slider of document.querySelectorAll(".pair input")) {
  const show = () => slider.closest(".pair").style.setProperty("--cut", slider.value + "%");
  slider.addEventListener("input", show);
  show();
}"""
NARROW = 900  # pixels: narrower figures are not stretched over the whole page


def format_value(value: object, digits: int = 4) -> str:
    """Return a figure as a reader wants it: significant digits, thin separators in counts, a dash for what is missing.

    Example:
        >>> format_value(0.374512), format_value(2785), format_value(float("nan")), format_value((0.371, 0.38))
        ('0.3745', '2,785', '–', '0.371 to 0.38')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple) and len(value) == 2:
        return f"{format_value(value[0], digits)} to {format_value(value[1], digits)}"
    if isinstance(value, int):
        return f"{value:,}"
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return format_value(value.item(), digits)  # type: ignore[attr-defined]
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and 1000 <= abs(value) < 1e15 else f"{value:.{digits}g}"
    return str(value)


class Report:
    """Sections in the order in which they were added, rendered to one HTML page.

    Args:
        title: of the page.
        lead: one sentence below it.
        headline: the few figures that matter, name -> value.

    Example:
        >>> report = Report("Forecast of load", lead="96 hours ahead")
        >>> _ = report.add_metrics_table({"dlinear": {"mse": 0.37}, "naive": {"mse": 1.29}}, best="mse")
        >>> "dlinear" in report.render()
        True
    """

    def __init__(self, title: str, *, lead: str = "", headline: Mapping[str, object] | None = None) -> None:
        self.title, self.lead = title, lead
        self.headline = [(str(name), format_value(value)) for name, value in (headline or {}).items()]
        self._sections: list[dict[str, Any]] = []

    def _add(self, section: str, block: dict[str, Any]) -> Self:
        """Put a block into the section of this title: the last one, if it has it, else a new one."""
        if not self._sections or self._sections[-1]["title"] != section:
            self._sections.append({"title": section, "blocks": []})
        self._sections[-1]["blocks"].append(block)
        return self

    def add_text(self, text: str, *, section: str = "Summary") -> Self:
        """Add paragraphs (separated by empty lines)."""
        return self._add(section, {"kind": "text", "paragraphs": [part.strip() for part in text.split("\n\n")]})

    def add_table(
        self, head: Sequence[str], rows: Sequence[Sequence[object]], *, section: str, caption: str = "", best: int = -1
    ) -> Self:
        """Add a table; the first cell of a row is its heading, `best` the row to point out.

        Raises:
            InputError: a row with another number of cells than the head.
        """
        wrong = [len(row) for row in rows if len(row) != len(head)]
        if wrong:
            raise InputError("a row does not fit the table's head", found=wrong[0], expected=f"{len(head)} cells")
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(head)
        block = {
            "kind": "table",
            "head": [str(name) for name in head],
            "numeric": [
                place > 0 and bool(cells) and all(map(_is_number, cells)) for place, cells in enumerate(columns)
            ],
            "rows": [
                {"best": place == best, "cells": [format_value(cell) for cell in row]} for place, row in enumerate(rows)
            ],
            "caption": caption,
        }
        return self._add(section, block)

    def add_metrics_table(
        self,
        metrics: Mapping[str, Mapping[str, object]],
        *,
        section: str = "Metrics",
        caption: str = "",
        best: str | None = None,
        largest: bool = False,
    ) -> Self:
        """Add one row a model: name -> {metric: value}, a pair (lo, hi) being an interval.

        Args:
            metrics: the model first, then its baselines; missing figures show as a dash.
            best: the metric by which the best row is pointed out (lowest, or with `largest` the largest).
        """
        names = list(dict.fromkeys(name for row in metrics.values() for name in row))
        rows = [[model, *(row.get(name) for name in names)] for model, row in metrics.items()]
        ranked = [
            (float(row[best]), place)  # type: ignore[arg-type]
            for place, row in enumerate(metrics.values())
            if best is not None and _is_number(row.get(best)) and row.get(best) is not None
        ]
        ranked = [(value, place) for value, place in ranked if not math.isnan(value)]
        winner = (max if largest else min)(ranked)[1] if len(ranked) > 1 else -1
        return self.add_table(["model", *names], rows, section=section, caption=caption, best=winner)

    def add_figure(self, figure: Figure | bytes, alt: str, *, section: str, caption: str = "") -> Self:
        """Add a matplotlib figure, or PNG bytes.

        Args:
            alt: what the figure shows, for readers who cannot see it; not optional.

        Raises:
            InputError: no description, or bytes that are not a PNG.
        """
        if not alt.strip():
            raise InputError("a figure needs a description in words", where="alt", cure="say what it shows")
        if isinstance(figure, bytes):
            png = figure
        else:
            from pipelines.evaluation.plots import to_png_bytes

            png = to_png_bytes(figure)
        width, height = _png_size(png)
        encoded = base64.b64encode(png).decode("ascii")
        block = {"kind": "figure", "png": encoded, "alt": alt, "caption": caption, "width": width, "height": height}
        return self._add(section, block | {"narrow": width < NARROW})

    def add_comparison(
        self, before: bytes, after: bytes, alt: str, *, names: tuple[str, str], section: str, caption: str = ""
    ) -> Self:
        """Add two pictures of one size, one over the other, with a slider that uncovers the second.

        Args:
            before, after: PNG bytes.
            alt: what the pictures show, for readers who cannot see them.
            names: of the two, at the ends of the slider.

        Raises:
            InputError: no description, bytes that are not a PNG, or pictures of two sizes.
        """
        sizes = [_png_size(png) for png in (before, after)]
        if not alt.strip():
            raise InputError("a figure needs a description in words", where="alt", cure="say what it shows")
        if sizes[0] != sizes[1]:
            raise InputError("two pictures are compared that differ in size", found=f"{sizes[0]} and {sizes[1]}")
        coded = {f"png{i}": base64.b64encode(png).decode("ascii") for i, png in enumerate((before, after))}
        width, height = sizes[0]
        block = {"kind": "comparison", "alt": alt, "caption": caption, "width": width, "height": height}
        return self._add(section, block | coded | {"names": list(names)})

    def add_notes(self, notes: Sequence[str], *, section: str = "Notes", warning: bool = False) -> Self:
        """Add what was noticed (gaps filled, columns left out); nothing is added for an empty list."""
        if not notes:
            return self
        return self._add(section, {"kind": "notes", "notes": [str(note) for note in notes], "warning": warning})

    def add_data_summary(self, summary: Mapping[str, object], *, section: str = "Data", caption: str = "") -> Self:
        """Add facts about the data: source, rows, columns, range, frequency, licence, gaps."""
        return self.add_table(["property", "value"], list(summary.items()), section=section, caption=caption)

    def add_config(self, config: Mapping[str, Any] | str, *, section: str = "Configuration") -> Self:
        """Add the resolved configuration: text as it is (YAML), or a mapping, set as indented lines."""
        text = config if isinstance(config, str) else "\n".join(_lines(config))
        return self._add(section, {"kind": "code", "code": text.rstrip("\n"), "summary": "All settings of this run"})

    def add_repeat(self, command: str | Sequence[str], *, section: str = "How to repeat this") -> Self:
        """Add the command that repeats the run; a list of arguments is quoted for the shell."""
        text = command if isinstance(command, str) else shlex.join(command)
        return self._add(section, {"kind": "code", "code": text, "summary": ""})

    def render(self) -> str:
        """Return the page as HTML text."""
        import importlib.resources

        import jinja2

        from pipelines import __version__

        source = importlib.resources.files("pipelines.evaluation").joinpath("report.html").read_text("utf-8")
        template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)
        compares = any(block["kind"] == "comparison" for section in self._sections for block in section["blocks"])
        digest = base64.b64encode(hashlib.sha256(_SLIDE.encode()).digest()).decode("ascii")
        return template.render(
            title=self.title,
            lead=self.lead,
            headline=self.headline,
            sections=self._sections,
            version=__version__,
            # The only script that the page allows itself, known by its sum.
            policy=f"; script-src 'sha256-{digest}'" if compares else "",
            script=_SLIDE if compares else "",
        )

    def save(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Write the page, completely or not at all, and return its path.

        Raises:
            RunError: the disk is full or the folder cannot be written.
        """
        from pipelines.files import atomic_write

        atomic_write(path, self.render())
        return pathlib.Path(path)


def _png_size(png: bytes) -> tuple[int, int]:
    """Width and height."""
    if not png.startswith(_PNG) or len(png) < 24:
        raise InputError("this is not a PNG picture", found=png[:8])
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def _is_number(cell: object) -> bool:
    if isinstance(cell, tuple) and len(cell) == 2:
        return all(map(_is_number, cell))
    return cell is None or (hasattr(cell, "__float__") and not isinstance(cell, bool) and not isinstance(cell, str))


def _lines(config: Mapping[str, Any], depth: int = 0) -> list[str]:
    """Set a mapping as indented `key: value` lines, in its own order."""
    lines = []
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            lines += [f"{'  ' * depth}{key}:", *_lines(value, depth + 1)]
        else:
            lines.append(f"{'  ' * depth}{key}: {value}")
    return lines
