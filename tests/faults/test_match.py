"""Matching on bad input: one clear message, the rest is done, nothing is invented and nothing half written."""

from __future__ import annotations

import contextlib
import io
import json
import pathlib
import shlex
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pytest
import torch

from pipelines import Matcher
from pipelines.cli import main
from pipelines.errors import ConfigError, InputError, UserError, WeightsError


class Done(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


Command = Callable[[str], Done]

TEXT = "The encoder reads blocks of a text. A second encoder reads what the first one made of them. "


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def command(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> Done:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(shlex.split(line))
        return Done(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="module")
def m(matcher_folder: pathlib.Path) -> Matcher:
    return Matcher.load(matcher_folder)


BAD = {
    "empty.txt": b"",
    "blanks.txt": b" \n\t \n",
    "binary.txt": bytes(range(256)) * 20,
    "nulls.txt": b"\0" * 4000,
    "broken.pdf": b"%PDF-1.7\n" + bytes(range(128, 256)) * 8,
    "bare.html": b"<html><head><title></title></head><body><script>x()</script></body></html>",
}


def test_bad_files_of_a_folder_do_not_stop_the_rest(m: Matcher, tmp_path: pathlib.Path) -> None:
    for name, data in BAD.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "good.txt").write_text(TEXT * 3)
    (tmp_path / "one.txt").write_text("word")
    found = m.predict(TEXT, corpus=tmp_path)
    assert {one.name for one in found.queries[0].matches} == {"good.txt", "one.txt"}
    assert set(found.failures) == set(BAD)
    for name, problem in found.failures.items():
        assert name in problem
        assert f"left out: {problem}" in found.notes
    encoded = m.encode(tmp_path)
    encoded.save(tmp_path.parent / f"{tmp_path.name}-index")
    assert encoded.tally.documents == 2
    assert set(encoded.failures) == set(BAD)


@pytest.mark.parametrize("name", BAD)
def test_one_bad_file_is_one_message(m: Matcher, tmp_path: pathlib.Path, name: str) -> None:
    (tmp_path / name).write_bytes(BAD[name])
    good = tmp_path / "good.txt"
    good.write_text(TEXT)
    with pytest.raises(UserError, match=name):
        m.predict(tmp_path / name, corpus=[TEXT, TEXT * 2])
    with pytest.raises(UserError, match=name):
        m.score([tmp_path / name, good])
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / name).write_bytes(BAD[name])
    with pytest.raises(InputError, match=name):
        m.predict(good, corpus=corpus)
    target = tmp_path / "index"
    with pytest.raises(InputError, match=name):
        m.encode(corpus).save(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({name, "good.txt", "corpus"})


def test_wrong_encodings_are_detected_and_said(m: Matcher, tmp_path: pathlib.Path) -> None:
    french = "Les données étaient écrites à la fin du fichier, façade et naïveté comprises. " * 20
    plain, others = tmp_path / "plain.txt", {}
    plain.write_text(french)
    for codec in ("utf-16", "cp1252", "utf-8-sig"):
        others[codec] = tmp_path / f"{codec}.txt"
        others[codec].write_bytes(french.encode(codec))
    for codec, path in others.items():
        found = m.score([plain, path])
        assert found.pairs[0].score == pytest.approx(1, abs=1e-5), codec
        assert any(note.startswith(path.name) for note in found.notes) or codec == "utf-8-sig"


def test_one_word_and_one_endless_sentence(m: Matcher) -> None:
    endless = "word " * 100_000
    scores = m.score([endless, "word and word"], passages=0).pairs[0]
    facts = scores.left_facts
    assert facts is not None
    assert facts.tokens >= 100_000
    assert (facts.sentences, facts.sentences_continued, facts.tokens_dropped) == (1, 1, 0)
    assert facts.blocks >= 100_000 // 13
    assert -1.00001 <= scores.score <= 1.00001


def test_duplicates_are_all_found(m: Matcher) -> None:
    found = m.predict(TEXT, corpus=[TEXT, TEXT * 4, TEXT])
    same = [one for one in found.queries[0].matches if one.same]
    assert len(same) == 2
    assert same[0].score == same[1].score == pytest.approx(1, abs=1e-6)
    assert len({one.name for one in found.queries[0].matches}) == 3


def test_another_language_is_counted_as_unknown(m: Matcher) -> None:
    found = m.score(["文書を比較します。これは日本語の文章です。" * 5, TEXT])
    facts = found.pairs[0].left_facts
    assert facts is not None
    assert facts.unknown > 0.9 * facts.tokens > 0
    assert np.isfinite(found.pairs[0].score)
    assert f"{facts.unknown:,} of the tokens unknown" in str(found)


def test_nested_links_of_folders_are_followed_once(m: Matcher, tmp_path: pathlib.Path) -> None:
    docs = tmp_path / "docs"
    (docs / "a" / "b").mkdir(parents=True)
    (docs / "one.txt").write_text(TEXT)
    (docs / "a" / "two.txt").write_text(TEXT * 2)
    (docs / "a" / "b" / "up").symlink_to(docs)
    (docs / "a" / "self").symlink_to(docs / "a")
    (docs / "gone.txt").symlink_to(tmp_path / "nowhere.txt")
    found = m.predict(TEXT, corpus=docs)
    assert sorted(one.name for one in found.queries[0].matches) == ["a/two.txt", "one.txt"]
    assert any("links" in note for note in found.notes)
    assert list(found.failures) in ([], ["gone.txt"])
    assert found.failures or any("gone" in note or "lead" in note for note in found.notes)


def test_vectors_of_other_models_are_never_compared(m: Matcher, tmp_path: pathlib.Path) -> None:
    place = m.encode([TEXT, TEXT * 2]).save(tmp_path / "index")
    twin = Matcher.load(m.save(tmp_path / "twin"))
    with torch.no_grad():
        next(twin.state.module.parameters()).add_(1e-3)
    with pytest.raises(WeightsError, match=r"made with other weights.*encode the documents anew"):
        twin.predict(TEXT, corpus=place)
    assert m.predict(TEXT, corpus=place).queries[0].matches
    assert any("not where they were" in note for note in m.predict(TEXT, corpus=place).notes)
    vectors = place / "vectors-00000.npy"
    vectors.write_bytes(vectors.read_bytes()[:-8])
    with pytest.raises(InputError, match="vectors-00000"):
        m.predict(TEXT, corpus=place)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"passages": -1}, "passages"),
        ({"passages": True}, "passages"),
        ({"expected_matches": 0}, "expected_matches"),
        ({"expected_matches": float("nan")}, "expected_matches"),
        ({"corpus": []}, "empty sequence"),
        ({"corpus": 7}, "nothing to read"),
        ({"corpus": "no-such-folder"}, "no such file or folder"),
    ],
)
def test_what_cannot_be_is_refused(m: Matcher, change: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        m.predict(TEXT, **{"corpus": [TEXT, TEXT * 2], **change})


def test_longer_blocks_than_the_model_knows(matcher_folder: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match=r"blocks.length.*at most 16"):
        Matcher.load(matcher_folder, blocks={"length": 17}).predict(TEXT, corpus=[TEXT])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "match predict nothing.rst --corpus docs --checkpoint {model}",
            "nothing.rst: there is no such file or folder",
        ),
        ("match predict docs/a.txt --checkpoint {model}", "--corpus and a folder"),
        ("match predict docs/a.txt --corpus nowhere --checkpoint {model}", "nowhere: there is no such file or folder"),
        ("match predict docs/a.txt --corpus bad --checkpoint {model}", "no document of the corpus can be read"),
        ("match predict docs/a.txt --corpus docs --checkpoint {model} --top 0", "top: out of range"),
        ("match predict docs/a.txt --corpus docs --checkpoint {model} --backend fais", "--backend"),
        ("match predict docs/a.txt --corpus docs --checkpoint {model} -o a.pdf", "cannot write this kind of file"),
        ("match predict docs/a.txt --corpus docs --checkpoint {model} --arch.dim 32", "another arch"),
        ("match predict docs/a.txt --corpus docs --checkpoint {model} --blocks.length 40", "no such long blocks"),
        ("match predict docs/a.txt --corpus docs --checkpoint docs", "docs"),
        ("match score docs/a.txt --checkpoint {model}", "a score needs two documents"),
        ("match score docs/a.txt docs/b.txt docs/a.txt --checkpoint {model}", "found: 3 inputs"),
        ("match encode bad --checkpoint {model} -o index/", "no document can be read"),
        ("match encode docs --checkpoint {model} -o v.pdf", "cannot write this kind of file"),
        ("match fit --data docs --attention nonsense", "no mechanism 'nonsense'"),
        ("match fit --data docs --arch.heads 0", "arch.heads: out of range"),
        ("match fit --data docs --model smiht", "did you mean smith?"),
        ("match fit --data docs --pairs.source links", "no document links to another one"),
        ("match fit --data docs", "too few documents"),
        ("match fit --data docs --words.file nothing.txt --pairs.source halves", "nothing.txt"),
        ("match evaluate --data docs --checkpoint {model} --baselines tfdif", "tfdif"),
        ("match encode docs --resume nowhere", "not the folder of an interrupted run"),
    ],
)
def test_mistakes_are_one_message_and_leave_nothing(
    command: Command, tmp_path: pathlib.Path, matcher_folder: pathlib.Path, line: str, words: str
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "docs" / "a.txt").write_text(TEXT)
    (tmp_path / "docs" / "b.txt").write_text(TEXT * 8)
    (tmp_path / "bad" / "binary.txt").write_bytes(bytes(range(256)) * 20)
    before = sorted(tmp_path.rglob("*"))
    done = command(line.format(model=matcher_folder))
    said = [text for text in done.err.splitlines() if text.startswith("pipelines: ")]
    assert done.code == 2, done.err
    assert done.out == ""
    assert len(said) == 1, done.err
    assert words.lower() in said[0].lower(), said[0]
    assert "internal error" not in done.err
    assert "Traceback" not in done.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_bad_query_among_good_ones(command: Command, tmp_path: pathlib.Path, matcher_folder: pathlib.Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(TEXT * (1 + (name == "b.txt")))
    (tmp_path / "empty.txt").write_text("")
    line = "match predict a.txt gone.txt empty.txt --corpus b.txt"
    done = command(f"{line} --checkpoint {matcher_folder} --json --quiet -o out.json")
    assert done.code == 1
    said = json.loads(done.out)
    assert [query["query"] for query in said["queries"]] == ["a.txt"]
    assert set(said["failures"]) == {"gone.txt", "empty.txt"}
