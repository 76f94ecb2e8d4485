"""Reports and figures: nothing unescaped, nothing from outside, and drawn for what they are given."""

from __future__ import annotations

import html.parser
import pathlib
import xml.etree.ElementTree

import numpy as np
import pandas as pd
import pytest

from pipelines.errors import InputError
from pipelines.evaluation import plots
from pipelines.evaluation.report import Report, format_value

ATTACK = "\"><script>alert('x')</script><img src=x onerror=alert(1)>"


class Page(html.parser.HTMLParser):
    """Collects tags, checks that they close in order."""

    VOID = frozenset({"meta", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def panel(**changes: object) -> plots.ForecastPanel:
    time = pd.date_range("2014-08-11", periods=72, freq="h", tz="Australia/Melbourne")
    values = np.sin(np.arange(72) / 4)
    base = {
        "title": "load", "history_time": time[:48], "history": values[:48], "time": time[48:], "forecast": values[48:],
        "bands": {0.5: (values[48:] - 1, values[48:] + 1), 0.9: (values[48:] - 2, values[48:] + 2)}, "unit": "MW",
    }  # fmt: skip
    return plots.ForecastPanel(**(base | changes))  # type: ignore[arg-type]


def full(text: str) -> Report:
    report = Report(text, lead=text, headline={text: text})
    report.add_text(text, section=text)
    report.add_metrics_table({text: {text: 1.0}, "b": {text: 2.0}}, best=text, caption=text)
    report.add_data_summary({text: text}, caption=text)
    report.add_notes([text], warning=True).add_config({text: {text: text}}).add_repeat(["pipelines", text])
    return report.add_figure(
        plots.to_png_bytes(plots.forecast_figure(panel(title=text))), text, section=text, caption=text
    )


def test_text_from_data_is_escaped_everywhere() -> None:
    page = Page(full(ATTACK).render())
    names = [tag for tag, _ in page.tags]
    assert "script" not in names
    assert names.count("img") == 1
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert page.text.count(ATTACK) >= 10
    assert page.open == []


def test_page_loads_nothing_from_outside_and_is_accessible() -> None:
    report = full("load")
    text = report.render()
    page = Page(text)
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert all(image["alt"] and (image["src"] or "").startswith("data:image/png;base64,") for image in images)
    assert ("html", {"lang": "en"}) in page.tags
    targets = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    ids = {f"#{attributes['id']}" for _, attributes in page.tags if attributes.get("id")}
    assert targets <= ids
    assert all(attributes.get("scope") for tag, attributes in page.tags if tag == "th")
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert report.render() == text


def test_best_row_is_named_in_words_and_missing_figures_are_dashes() -> None:
    table = {"model": {"mse": 0.4, "90 %": (0.3, 0.5)}, "naive": {"mse": 0.3}, "drift": {"mse": float("nan")}}
    text = Report("r").add_metrics_table(table, best="mse").render()
    naive = text.index("naive <span")
    assert text.count("(best)") == 1
    assert naive > text.index('class="best"')
    assert "0.3 to 0.5" in text
    assert text.count("–") == 3
    assert (
        "(best)" in Report("r").add_metrics_table({"a": {"r": 1.0}, "b": {"r": 2.0}}, best="r", largest=True).render()
    )


def test_saved_page_is_the_rendered_page(tmp_path: pathlib.Path) -> None:
    report = full("load")
    path = report.save(tmp_path / "deep" / "a.report.html")
    assert path.read_text("utf-8") == report.render()
    assert [entry.name for entry in path.parent.iterdir()] == ["a.report.html"]


def test_figures_without_description_and_other_mistakes_are_refused() -> None:
    with pytest.raises(InputError, match="description"):
        Report("r").add_figure(b"", " ", section="s")
    with pytest.raises(InputError, match="not a PNG"):
        Report("r").add_figure(b"GIF89a", "a picture", section="s")
    with pytest.raises(InputError, match="2 cells"):
        Report("r").add_table(["a", "b"], [[1]], section="s")
    with pytest.raises(InputError, match="no series"):
        plots.forecast_figure([])


def test_command_is_quoted_for_the_shell() -> None:
    assert "&#39;my file.csv&#39;" in Report("r").add_repeat(["pipelines", "my file.csv"]).render()


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (True, "yes"), (12345, "12,345"), (np.float32(0.5), "0.5"), (np.int64(2000), "2,000"), ("x", "x")],
)
def test_values_are_set_for_readers(value: object, text: str) -> None:
    assert format_value(value) == text


def test_forecast_figure_is_1200_pixels_wide_with_the_zone_and_reproducible() -> None:
    figure = plots.forecast_figure(panel(truth=np.zeros(24), baselines={"naive": np.ones(24)}), title="t")
    png = plots.to_png_bytes(figure)
    assert int.from_bytes(png[16:20], "big") == 1200
    assert png == plots.to_png_bytes(
        plots.forecast_figure(panel(truth=np.zeros(24), baselines={"naive": np.ones(24)}), title="t")
    )
    axes = figure.axes[0]
    assert "Australia/Melbourne" in axes.get_xlabel()
    assert axes.get_ylabel() == "MW"
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert sorted(labels) == sorted(["history", "forecast", "what came", "naive", "50 % interval", "90 % interval"])
    midnight = axes.xaxis.get_major_formatter().format_ticks(
        [axes.xaxis.convert_units(pd.Timestamp("2014-08-13", tz="Australia/Melbourne"))]
    )
    assert midnight == ["00:00"]  # 14:00 of the day before in UTC


def test_more_than_six_series_are_counted_in_the_title() -> None:
    figure = plots.forecast_figure([panel()] * 8, title="t", total=26)
    assert len(figure.axes) == 6
    assert figure.get_suptitle() == "t · 6 of 26 series"


def test_titles_with_dollar_signs_and_missing_values_are_drawn() -> None:
    history = np.where(np.arange(48) % 7 == 0, np.nan, 1.0)
    figure = plots.forecast_figure(panel(title="price $ in $_{", history=history, bands={}))
    assert plots.to_png_bytes(figure).startswith(b"\x89PNG")
    xml.etree.ElementTree.fromstring(plots.to_svg(figure))


def test_row_numbers_serve_where_there_are_no_stamps() -> None:
    figure = plots.forecast_figure(panel(history_time=range(48), time=range(48, 72)))
    assert figure.axes[0].get_xlabel() == "row"


def test_other_figures_are_drawn_and_leave_no_trace_in_matplotlib() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    figures = [
        plots.horizon_figure({"model": [0.1], "naive": [0.2]}),
        plots.coverage_figure({"adaptive": ([0.5, 0.9], [0.5, 0.9])}),
        plots.training_figure({"train": [2.0, 1.0]}, best=2),
    ]
    assert all(plots.to_png_bytes(figure).startswith(b"\x89PNG") for figure in figures)
    assert dict(mpl.rcParams) == before
    for draw in (plots.horizon_figure, plots.coverage_figure, plots.training_figure):
        with pytest.raises(InputError, match="nothing to draw"):
            draw({})


def test_two_pictures_are_compared_by_a_slider_that_the_policy_allows() -> None:
    """The page's only script is named in its policy by its sum; pages without a slider allow none."""
    import base64
    import hashlib
    import html
    import io
    import re

    from PIL import Image

    def png(size: tuple[int, int]) -> bytes:
        out = io.BytesIO()
        Image.new("RGB", size).save(out, "PNG")
        return out.getvalue()

    assert "script" not in full("load").render()
    page = Report("pictures").add_comparison(
        png((4, 3)), png((4, 3)), "a <cat>", names=("before", "after"), section="s"
    )
    text = page.render()
    script = re.search(r"<script>(.*?)</script>", text, re.S)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1])
    assert f"script-src 'sha256-{digest}'" in policy
    assert "a &lt;cat&gt;: before" in text
    assert text.count("data:image/png") == 2
    assert 'type="range"' in text
    for wrong in ((png((4, 3)), png((3, 4))), (b"no", png((4, 3)))):
        with pytest.raises(InputError):
            Report("x").add_comparison(*wrong, "words", names=("a", "b"), section="s")
