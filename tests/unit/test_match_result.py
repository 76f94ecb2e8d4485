"""Passages that answer each other, against a slow search; answers as files, pictures and reports that are safe."""

from __future__ import annotations

import html
import json
import pathlib
import tracemalloc
import warnings
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipelines.base import Provenance
from pipelines.errors import ConfigError, InputError
from pipelines.evaluation.plots import to_png_bytes
from pipelines.evaluation.report import Report
from pipelines.match.document_facts import DocumentFacts, Tally, one_line
from pipelines.match.encoded import Encoded
from pipelines.match.highlight import marked
from pipelines.match.metrics import by_length
from pipelines.match.passages import Answer, Passages, answers, similarity_map
from pipelines.match.plots import (
    block_counts_figure,
    heat_map_figure,
    length_figure,
    precision_recall_figure,
    ranking_figure,
    reliability_figure,
    roc_figure,
    score_histogram_figure,
)
from pipelines.match.result import Match, Matches, PairScore, Query, Scores

NOW = Provenance.now(data="docs", model="smith", seed=0)
EVIL = '<script>alert("1")</script> & <b>'


def page(vectors: Any, name: str = "a.txt", word: str = "Block") -> Passages:
    """A document whose block i says "Block i."; every other pair of blocks is parted by two newlines."""
    rows = np.asarray(vectors, np.float32)
    text, spans = "", []
    for number in range(len(rows)):
        said = f"{word} {number}."
        spans.append((len(text), len(text) + len(said)))
        text += said + ("\n\n" if number % 2 else " ")
    return Passages(name, text, np.array(spans, np.int64).reshape(-1, 2), rows)


def slow_answers(left: NDArray[np.float32], right: NDArray[np.float32], top: int) -> list[tuple[int, int, bool]]:
    """Mutual bests, then the best of what is left, one after the other; rows of zeros are nothing."""

    def cosine(i: int, j: int) -> float:
        a, b = left[i].astype(np.float64), right[j].astype(np.float64)
        return round(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)), 5)

    rows = [i for i in range(len(left)) if left[i].any()]
    columns = [j for j in range(len(right)) if right[j].any()]
    every = [(-cosine(i, j), i, j) for i in rows for j in columns]
    row_best = {i: min((v, j) for v, a, j in every if a == i)[1] for i in rows} if columns else {}
    column_best = {j: min((v, i) for v, i, b in every if b == j)[1] for j in columns} if rows else {}
    mutual = sorted(one for one in every if row_best[one[1]] == one[2] and column_best[one[2]] == one[1])
    found: list[tuple[int, int, bool]] = []
    for pool, flag in ((mutual, True), (sorted(every), False)):
        for _, i, j in pool:
            if len(found) < top and all(i != a and j != b for a, b, _ in found):
                found.append((i, j, flag))
    return found


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 6), st.integers(0, 6), st.integers(1, 5), st.sampled_from([1, 10**6]), st.integers(0, 10_000))
def test_answers_are_those_of_a_slow_search(rows: int, columns: int, top: int, piece: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    left, right = (random.integers(-1, 2, (count, 3)).astype(np.float32) for count in (rows, columns))
    # Axes and their halves have cosines without rounding, so that ties are ties; rows of zeros stay in.
    left, right = (np.where(np.abs(v).sum(1, keepdims=True) > 1, v * [[1, 0, 0]], v) for v in (left, right))
    with mock.patch("pipelines.match.passages._AT_ONCE", piece):
        found = answers(page(left), page(right), top)
    assert [(one.left_block, one.right_block, one.mutual) for one in found] == slow_answers(left, right, top)


@pytest.mark.parametrize("seed", range(5))
def test_answers_of_many_blocks_are_those_of_a_slow_search(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.match.passages._AT_ONCE", 200)  # several pieces
    random = np.random.default_rng(seed)
    left, right = (random.normal(size=(count, 8)).astype(np.float32) for count in (45, 30))
    found = answers(page(left), page(right), 12)
    assert [(one.left_block, one.right_block, one.mutual) for one in found] == slow_answers(left, right, 12)
    assert [one.mutual for one in found] == sorted((one.mutual for one in found), reverse=True)


def test_an_answer_points_at_its_text() -> None:
    left, right = page(np.eye(3)), page(np.eye(3)[[2, 0]], "b.txt", "Satz")
    one = answers(left, right, 1)[0]
    assert (one.left_block, one.right_block, one.similarity, one.mutual) == (0, 1, 1.0, True)
    assert (one.left_text, one.right_text) == ("Block 0.", "Satz 1.")
    assert left.text[slice(*one.left_span)] == one.left_text
    assert right.text[slice(*one.right_span)] == one.right_text


def test_empty_documents_have_no_answers_and_other_models_are_refused() -> None:
    nothing = page(np.zeros((0, 3)))
    assert answers(nothing, page(np.eye(3))) == answers(page(np.eye(3)), page(np.zeros((4, 3)))) == []
    with pytest.raises(InputError, match="two models"):
        answers(page(np.eye(3)), page(np.eye(4)))
    with pytest.raises(InputError, match="two models"):
        answers(nothing, page(np.eye(4)))


@pytest.mark.parametrize(
    ("spans", "vectors", "words"),
    [
        ([[0, 9]], np.eye(1), "outside"),
        ([[3, 2]], np.eye(1), "outside"),
        ([[-1, 2]], np.eye(1), "outside"),
        ([[0, 1], [1, 2]], np.eye(1), "a vector and a span"),
        ([[0, 1]], np.full((1, 1), np.nan), "finite"),
    ],
)
def test_blocks_that_do_not_fit_their_text_are_refused(spans: list[list[int]], vectors: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Passages("a", "abcd", np.array(spans), vectors.astype(np.float32))


def test_thousands_of_blocks_need_no_square_of_memory() -> None:
    random = np.random.default_rng(0)
    long = page(random.normal(size=(6000, 16)))
    tracemalloc.start()
    found, drawn = answers(long, long, 5), similarity_map(long, long)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(one.left_block, one.mutual) for one in found] == [(one.right_block, True) for one in found]
    assert drawn.values.shape == (64, 64)
    assert peak < 50e6  # all similarities at once would take 144 MB


@pytest.mark.parametrize("most", [1, 3, 4, 50])
def test_a_cell_of_the_map_is_the_highest_of_its_pairs(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.match.passages._AT_ONCE", 20)
    random = np.random.default_rng(1)
    left, right = random.normal(size=(11, 4)), random.normal(size=(7, 4))
    left[3], right[6] = 0.0, 0.0
    found = similarity_map(page(left), page(right), most)
    with np.errstate(invalid="ignore"):
        units = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (left, right)]
    every = units[0] @ units[1].T
    for i in range(found.values.shape[0]):
        for j in range(found.values.shape[1]):
            cell = every[i * found.rows : (i + 1) * found.rows, j * found.columns : (j + 1) * found.columns]
            expected = np.nan if np.isnan(cell).all() else np.nanmax(cell)
            assert found.values[i, j] == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert max(found.values.shape) <= most


def facts(name: str, **counts: int) -> DocumentFacts:
    return DocumentFacts(name, **{"tokens": 90, "sentences": 9, "blocks": 3, **counts})


def matches(**options: Any) -> Matches:
    """Two queries against two documents; the second document was not read to its end."""
    pages = {"q.txt": page(np.eye(3), "q.txt"), "a.txt": page(np.eye(3)[::-1], "a.txt", "Satz")}
    pair = tuple(answers(pages["q.txt"], pages["a.txt"], 2))
    found = (
        Match("a.txt", 0.875, 0.9, "A title", facts("a.txt"), pair),
        Match("b, c.txt", 0.5, None, "", facts("b, c.txt", tokens_dropped=7, sentences_dropped=1)),
    )
    tally = Tally()
    for one in found:
        assert one.facts is not None
        tally.add(one.facts)
    values: dict[str, Any] = {
        "queries": [Query("q.txt", found, facts("q.txt", sentences_continued=2)), Query("empty.txt", ())],
        "corpus": "docs",
        "searched": tally,
        "failed": {"x.bin": "x.bin: a binary file."},
        "told": ("12 files with other endings are passed over",),
        "blocks": lambda query, place: (pages["q.txt"], pages["a.txt"]) if (query, place) == (0, 0) else None,
    }
    return Matches("smith", NOW, **(values | options))


def test_a_search_is_told_with_its_counts() -> None:
    told = str(matches())
    assert told.splitlines()[0] == "q.txt: 90 tokens, 9 sentences, 3 blocks, 2 sentences go on in the next block"
    assert "   1   0.8750  p 0.900  a.txt  A title" in told
    assert "   2   0.5000  b, c.txt" in told
    assert "read: 90 tokens, 9 sentences, 3 blocks, 7 tokens and 1 sentence dropped" in told
    assert "“Block 0.”" in told
    assert "no document was found" in told
    assert "searched 2 documents: 180 tokens" in told
    assert told.endswith("1 could not be read")
    assert matches().notes == (
        "12 files with other endings are passed over",
        "not read: 7 tokens, 1 sentence of 1 document (b, c.txt)",
        "left out: x.bin: a binary file.",
    )


def test_a_search_is_saved_in_every_form(tmp_path: pathlib.Path) -> None:
    answer = matches()
    read = json.loads(answer.save(tmp_path / "m.json").read_text("utf-8"))
    assert read == json.loads(json.dumps(answer.to_dict()))
    assert [one["document"] for one in read["queries"][0]["matches"]] == ["a.txt", "b, c.txt"]
    assert read["queries"][0]["matches"][0]["passages"][0]["left_text"] == "Block 0."
    assert read["queries"][0]["matches"][1]["counts"]["tokens_dropped"] == 7
    assert read["searched"]["documents_shortened"] == 1
    lines = [json.loads(line) for line in answer.save(tmp_path / "m.jsonl").read_text("utf-8").splitlines()]
    assert lines == read["queries"]
    tables = [
        pd.read_csv(answer.save(tmp_path / "m.csv")),
        pd.read_csv(answer.save(tmp_path / "m.TSV"), sep="\t"),
        pd.read_parquet(answer.save(tmp_path / "m.parquet")),
    ]
    for table in tables:
        assert table["document"].tolist() == ["a.txt", "b, c.txt"]
        assert table["rank"].tolist() == [1, 2]
        assert table["score"].tolist() == [0.875, 0.5]
        assert np.isnan(table["probability"].tolist()[1])
        assert table["document_tokens_dropped"].tolist() == [0, 7]
        assert table["query_passage"].tolist()[0] == "Block 0."
        assert (table["query_from"][0], table["query_to"][0]) == (0, 8)
    with pytest.raises(ConfigError, match=r"\.csv"):
        answer.save(tmp_path / "m.xlsx")
    assert not (tmp_path / "m.xlsx").exists()


def scores(**options: Any) -> Scores:
    left, right = page(np.eye(2), "l.txt"), page(np.eye(2), "r.txt", "Satz")
    pair = tuple(answers(left, right))
    pairs = [
        PairScore("l.txt", "r.txt", 0.75, 0.8, facts("l.txt"), facts("r.txt", blocks_dropped=4), pair, 1),
        PairScore("l.txt", "s.txt", 0.25, None, label=0),
    ]
    return Scores("smith", NOW, **({"pairs": pairs, "blocks": lambda number: (left, right)} | options))


def test_scores_are_saved_in_every_form(tmp_path: pathlib.Path) -> None:
    answer = scores()
    read = json.loads(answer.save(tmp_path / "s.json").read_text("utf-8"))
    assert [one["score"] for one in read["scores"]] == [0.75, 0.25]
    assert read["scores"][0]["right_counts"]["blocks_dropped"] == 4
    assert read["notes"] == ["not read: 4 blocks of 1 document (r.txt)"]
    table = pd.read_csv(answer.save(tmp_path / "s.csv"))
    assert table["label"].tolist() == [1, 0]
    assert "label" not in pd.read_csv(scores(pairs=[PairScore("a", "b", 0.1)]).save(tmp_path / "n.csv")).columns
    array = np.load(answer.save(tmp_path / "s.npy"))
    np.testing.assert_array_equal(array, [[0.75, 0.8], [0.25, np.nan]])
    assert np.load(scores(pairs=[]).save(tmp_path / "none.npy")).shape == (0, 2)
    assert " 0.7500  p 0.800  l.txt  |  r.txt" in str(answer)
    assert "right: 90 tokens, 9 sentences, 3 blocks, 4 blocks dropped" in str(answer)
    with pytest.raises(ConfigError, match=r"\.npy"):
        answer.save(tmp_path / "s.txt")


def test_vectors_are_written_where_they_belong_and_counted(tmp_path: pathlib.Path) -> None:
    tally, written = Tally(), []

    def write(path: pathlib.Path) -> pathlib.Path:
        for number in range(5):  # the counts grow while the vectors are written
            tally.add(facts(f"{number}.txt", blocks=number, tokens_dropped=number % 2))
        written.append(path)
        return path

    answer = Encoded("smith", NOW, 64, tally, write, {"x.bin": "x.bin: a binary file."}, limit=64)
    assert answer.save(tmp_path / "vectors") == tmp_path / "vectors" == written[0]
    assert str(answer).startswith(f"5 vectors of 64 numbers in {tmp_path / 'vectors'}\nread 5 documents: 450 tokens")
    assert "2 tokens dropped (2 documents not read to their end)" in str(answer)
    read = json.loads(answer.save(tmp_path / "counts.json").read_text("utf-8"))
    assert (read["rows"], read["dim"], read["blocks"], read["documents_shortened"]) == (5, 64, 10, 2)
    assert [one["name"] for one in read["shortened"]] == ["1.txt", "3.txt"]
    assert answer.notes[0] == "not read: 2 tokens of 2 documents (1.txt, 3.txt)"
    report = Report("Vectors")
    answer.fill_report(report)
    assert "Not read to their end" in report.render()
    with pytest.raises(ConfigError, match="written already"):
        Encoded("smith", NOW, 64, tally, place="there").save(tmp_path / "again")


def test_a_tally_keeps_its_size() -> None:
    tally = Tally()
    for number in range(3000):
        tally.add(facts(f"{number}.txt", tokens_dropped=1, blocks=number % 7))
    assert (tally.documents, tally.shortened, len(tally.losses), len(tally.by_blocks)) == (3000, 3000, 20, 7)
    assert "and 2,997 more" in tally.notes[0]


def test_counts_are_taken_from_what_has_them() -> None:
    class Counts:
        tokens, blocks, unknown = 7, 2, 3

    found = DocumentFacts.of("a", Counts(), title="T")
    assert (found.tokens, found.blocks, found.unknown, found.tokens_dropped) == (7, 2, 3, 0)
    assert str(found) == "7 tokens, 0 sentences, 2 blocks, 3 of the tokens unknown to the vocabulary"


def test_documents_are_data_and_never_html() -> None:
    """Names, titles, text and passages that look like HTML come out as text; the marks are the only tags."""
    text = f"Before. {EVIL}\n\nAfter {EVIL}."
    spans = np.array([[0, 7], [8, 8 + len(EVIL)]])
    evil = Passages(EVIL, text, spans, np.eye(2, dtype=np.float32))
    found = (Match(EVIL, 0.5, 0.5, EVIL, facts(EVIL, tokens_dropped=1), tuple(answers(evil, evil))),)
    for blocks in (None, lambda query, place: (evil, evil)):
        answer = matches(queries=[Query(EVIL, found, facts(EVIL))], failed={EVIL: EVIL}, blocks=blocks)
        report = Report(EVIL)
        answer.fill_report(report)
        report.add_notes(answer.notes)
        rendered = report.render()
        assert "<script" not in rendered
        assert "<b>" not in rendered
        assert f"<mark>{html.escape(EVIL, quote=False).replace(chr(34), '&#34;')}</mark>" in rendered
        assert rendered.count("<mark>") == 4


def test_a_passage_stands_in_its_context() -> None:
    text = "One two three. Here it is. Four five six."
    assert marked(text, (15, 26), around=100) == ("One two three.", "Here it is.", "Four five six.")
    assert marked(text, (15, 26), around=8) == ("… three.", "Here it is.", "Four …")
    assert marked(text, (0, 3), around=8) == ("", "One", "two …")
    assert marked("a\n\nb\x00c\n\nd", (3, 6)) == ("a", "b c", "d")
    assert len(marked("x" * 5000, (0, 5000))[1]) == 600


def test_text_is_shown_without_control_characters() -> None:
    assert one_line("a\x1b[31m\u202eb\nc") == "a [31m b c"
    assert one_line("word " * 100, 20) == "word word word word…"
    assert one_line("x" * 10**7, 10) == "xxxxxxxxx…"
    assert one_line(" ", 5) == ""


def test_a_report_of_a_search_shows_tables_maps_and_passages() -> None:
    report = Report("Search")
    matches().fill_report(report)
    rendered = report.render()
    assert rendered.count("<img") == 1  # the one pair whose blocks are there
    assert "<mark>Block 0.</mark>" in rendered
    assert "each the other&#39;s best" in rendered
    assert "No document was found." in rendered
    assert "tokens dropped" in rendered
    report = Report("Scores")
    scores().fill_report(report)
    assert report.render().count("<img") == 3


def test_an_answer_outlives_its_files() -> None:
    """Documents that are gone or changed when the picture is drawn cost the picture, not the answer."""

    def gone(*_: int) -> tuple[Passages, Passages]:
        raise InputError("no such file", where="a.txt")

    for answer in (matches(blocks=gone), scores(blocks=gone), matches(queries=[]), scores(pairs=[])):
        report = Report("Answer")
        answer.fill_report(report)
        assert "<mark>" in report.render() or not (getattr(answer, "queries", None) or getattr(answer, "pairs", None))
        assert to_png_bytes(answer.plot()).startswith(b"\x89PNG")
        assert str(answer)


def labels_of(axis: Any) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def test_the_heat_map_names_its_blocks_and_frames_the_answers() -> None:
    left, right = page(np.eye(5), "l.txt"), page(np.eye(5)[::-1], "r.txt", "Satz")
    figure = heat_map_figure(left, right, answers(left, right, 2))
    ax = figure.axes[0]
    assert labels_of(ax.yaxis) == [f"{i}  Block {i}." for i in range(5)]
    assert labels_of(ax.xaxis) == [f"{i}  Satz {i}." for i in range(5)]
    np.testing.assert_allclose(ax.images[0].get_array(), np.eye(5)[:, ::-1])
    corners = [(patch.get_y() + 0.5, patch.get_x() + 0.5) for patch in ax.patches]
    assert corners == [(0, 4), (1, 3)]
    assert [text.get_text() for text in ax.texts] == ["1", "2"]


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 300), (300, 2), (130, 70), (64, 64)])
def test_heat_maps_of_every_size_are_drawn_without_a_warning(rows: int, columns: int) -> None:
    random = np.random.default_rng(0)
    left = page(random.normal(size=(rows, 4)), "a rather long name of a document in a folder.txt" * 3, EVIL)
    right = page(random.normal(size=(columns, 4)), "日本語.txt", "日本語 $x^2$")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = heat_map_figure(left, right, answers(left, right))
        assert to_png_bytes(figure).startswith(b"\x89PNG")
    heading = figure.get_suptitle()
    assert ("each cell is the highest" in heading) == (max(rows, columns) > 64)
    assert all(size <= 20 for size in figure.get_size_inches())
    assert len(labels_of(figure.axes[0].yaxis)) <= 24


def test_curves_end_where_their_figures_say() -> None:
    truth, values = [1, 0, 1, 0], [0.9, 0.8, 0.3, 0.1]
    line = roc_figure({"smith": values, "tfidf": [0.5] * 4}, truth).axes[0].lines[1]
    x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
    assert np.trapezoid(y, x) == pytest.approx(0.75)
    assert str(line.get_label()) == "smith: AUC 0.750"
    assert str(precision_recall_figure({"smith": values}, truth).axes[0].lines[1].get_label()).endswith("0.833")
    for figure in (roc_figure, precision_recall_figure):
        with pytest.raises(InputError):
            figure({"smith": values}, [0, 0, 0, 0])


def test_every_picture_is_drawn_without_a_warning() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 80)
    values = random.random(80)
    lengths = random.integers(1, 1000, (2, 80))
    bins = by_length(values, truth, *lengths, threshold=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in (
            roc_figure({"a": values}, truth),
            precision_recall_figure({"a": values}, truth),
            reliability_figure(values, truth),
            score_histogram_figure(values, truth, threshold=0.5),
            score_histogram_figure([0.5, 0.5]),
            length_figure({"a": bins, "b": bins}, intervals=[(0.4, 0.6), None, (0.3, 0.5), (0.1, 0.9)]),
            ranking_figure({"q": [("日本", 0.5), ("b", -0.25)], "none": []}),
            ranking_figure({f"q{i}": [(f"d{j}", 1 / (j + 1)) for j in range(40)] for i in range(5)}),
            block_counts_figure({0: 2, 1: 5, 900: 1}, limit=64),
            block_counts_figure({0: 1}),
            matches(blocks=None).plot(),
            scores(pairs=[PairScore("a", "b", 0.5)]).plot(),
            scores().plot(),
        ):
            assert to_png_bytes(figure).startswith(b"\x89PNG")
    with pytest.raises(InputError, match="same bins"):
        length_figure({"a": bins, "b": bins[1:]})


def test_plots_are_saved(tmp_path: pathlib.Path) -> None:
    for number, answer in enumerate((matches(), scores(), Encoded("smith", NOW, 4, Tally()))):
        answer.plot(tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").read_bytes().startswith(b"\x89PNG")


def test_an_answer_is_plain_data() -> None:
    one = Answer(1, 2, 0.5, "a", "b", (0, 1), (2, 3))
    assert json.loads(json.dumps(scores(pairs=[PairScore("l", "r", 0.5, answers=(one,))]).to_dict()))["scores"][0][
        "passages"
    ] == [
        {
            "left_block": 1, "right_block": 2, "similarity": 0.5, "left_text": "a", "right_text": "b",
            "left_span": [0, 1], "right_span": [2, 3], "mutual": False,
        }
    ]  # fmt: skip
