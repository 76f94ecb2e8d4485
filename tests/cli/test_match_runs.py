"""``pipelines match`` as people use it: folders, archives and tables in; answers, vectors and reports out."""

from __future__ import annotations

import html
import json
import pathlib
import re
import tarfile
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines import Matcher
from pipelines.match.index import Index
from pipelines.match.shards import ShardWriter

SMALL = (
    "--arch.dim 16 --arch.sentence_layers 1 --arch.document_layers 1 --arch.heads 2 --arch.hidden 32 --words.size 300 "
    "--pretrain.epochs 1 --train.epochs 1 --blocks.length 16 --blocks.limit 8 --baselines tfidf"
)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Twelve short documents."""
    return [one.text for one in Matcher.check_kit()["data"][:12]]


@pytest.fixture
def folder(tmp_path: pathlib.Path, texts: list[str]) -> pathlib.Path:
    """The documents in three kinds, one of them in a folder below."""
    docs = tmp_path / "docs"
    (docs / "more").mkdir(parents=True)
    for number, text in enumerate(texts):
        if number % 3 == 0:
            (docs / f"d{number}.txt").write_text(text)
        elif number % 3 == 1:
            (docs / f"d{number}.md").write_text(f"# Number {number}\n\n{text}")
        else:
            page = f"<html><head><title>Page {number}</title></head><body><p>{html.escape(text)}</p></body></html>"
            (docs / "more" / f"d{number}.html").write_text(page)
    return docs


def test_fit_keeps_a_model_and_says_what_it_can_do(
    command: Any, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.parent / "c.yaml").write_text("pairs: {source: halves}\nvalid: 0.2\ntest: 0.3\n")
    monkeypatch.setenv("COLUMNS", "80")
    done = command(f"match fit --data docs --config c.yaml {SMALL} --quiet --output model")
    assert done.code == 0, done.err
    for name in ("auc", "f1", "recall@10"):
        assert re.search(rf"{name}\W+\d\.\d{{4}}\W+\d\.\d{{4}}", done.out), done.out
    kept = {path.name for path in pathlib.Path("model").iterdir()}
    assert kept >= {"model.safetensors", "config.json", "report.html", "evaluation.json", "evaluation.png"}
    done = command("match evaluate --data docs --checkpoint model --pairs.source halves --json --quiet -o e.json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert {"auc", "auc_hard", "f1", "accuracy", "mrr", "ndcg@10", "recall@10", "pairs", "matches"} <= said.keys()
    assert said["baselines"]["tfidf"]["auc"] > 0.5
    assert said["auc"] == json.loads(pathlib.Path("model/evaluation.json").read_text())["auc"]
    assert any("were learned from" in note for note in said["notes"])


def test_a_model_that_cannot_be_measured_is_kept(command: Any, folder: pathlib.Path) -> None:
    done = command(f"match fit --data docs --pairs.source halves --test 0 {SMALL} --json --quiet --output all/")
    assert done.code == 0, done.err
    assert any("kept, but was not measured" in note for note in json.loads(done.out)["notes"])
    assert pathlib.Path("all/model.safetensors").exists()
    assert command("match search docs/d0.txt --corpus docs --checkpoint all --quiet -o a.json").code == 0


def test_search_in_a_folder_an_archive_and_a_table(
    command: Any, folder: pathlib.Path, matcher_folder: pathlib.Path
) -> None:
    with tarfile.open("docs.tar.gz", "w:gz") as archive:
        archive.add(folder, arcname="docs")
    paths = [(str(path.relative_to(folder)), path) for path in sorted(folder.rglob("*.*"))]
    rows = "".join(
        f"{json.dumps({'id': name, 'text': path.read_text()})}\n" for name, path in paths if path.suffix == ".txt"
    )
    pathlib.Path("docs.jsonl").write_text(rows)
    common = f"--checkpoint {matcher_folder} --top 3 --quiet"
    done = command(f"match predict docs/d3.txt 'what a descriptor is' --corpus docs {common} --json -o a.json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert [query["query"] for query in said["queries"]] == ["d3.txt", "what a descriptor is"]
    first = said["queries"][0]["matches"]
    assert (first[0]["document"], first[0]["same"], first[1]["same"]) == ("d3.txt", True, False)
    assert len(first) == 3
    assert first[1]["passages"][0]["left_text"] in (folder / "d3.txt").read_text()
    assert {one["title"] for query in said["queries"] for one in query["matches"]} & {
        "Number 1",
        "Number 4",
        "Page 2",
        "Page 5",
    }
    assert {path.name for path in pathlib.Path().glob("a.json*")} == {
        "a.json", "a.json.png", "a.json.report.html", "a.json.config.yaml",
    }  # fmt: skip
    report = pathlib.Path("a.json.report.html").read_text()
    assert "<mark>" in report
    assert "d3.txt (the same text)" in report
    done = command(f"match predict docs/d3.txt --corpus docs.tar.gz {common} --json -o b.jsonl")
    inside = json.loads(done.out)["queries"][0]["matches"]
    assert [one["document"] for one in inside] == [f"docs/{one['document']}" for one in first]
    assert [one["score"] for one in inside] == pytest.approx([one["score"] for one in first], abs=1e-6)
    done = command(f"match search docs/d3.txt --corpus docs.jsonl {common} -o c.csv")
    table = pd.read_csv("c.csv")
    assert table["rank"].tolist() == [1, 2, 3]
    assert set(table["document"]) < {name for name, path in paths if path.suffix == ".txt"}
    assert not pathlib.Path("runs").exists()


def test_documents_of_a_folder_among_each_other(
    command: Any, folder: pathlib.Path, matcher_folder: pathlib.Path
) -> None:
    (folder / "bad.txt").write_bytes(bytes(range(256)) * 20)
    (folder / "empty.txt").write_text("")
    done = command(f"match predict docs --checkpoint {matcher_folder} --json --quiet -o out/")
    assert done.code == 1, done.err
    said = json.loads(done.out)
    assert set(said["failures"]) == {"bad.txt", "empty.txt"}
    assert len(said["queries"]) == 12
    assert all(len(query["matches"]) == 10 for query in said["queries"])
    assert all(query["query"] != one["document"] for query in said["queries"] for one in query["matches"])
    assert not any("asked for" in note or "could not be read, the first" in note for note in said["notes"])
    assert sorted(path.name for path in pathlib.Path("out").iterdir()) == [
        "config.yaml", "matches.json", "matches.png", "report.html",
    ]  # fmt: skip


def test_scores_of_two_documents_and_of_a_table(
    command: Any, folder: pathlib.Path, matcher_folder: pathlib.Path
) -> None:
    common = f"--checkpoint {matcher_folder} --quiet"
    done = command(f"match score docs/d0.txt docs/d3.txt {common} --json -o a.json")
    assert done.code == 0, done.err
    one = json.loads(done.out)["scores"][0]
    pathlib.Path("p.tsv").write_text(
        "left\tright\tlabel\ndocs/d0.txt\tdocs/d3.txt\t1\ndocs/d3.txt\tdocs/d3.txt\t1\ndocs/d6.txt\tno.txt\t0\n"
    )
    done = command(f"match score p.tsv {common} --json -o b.npy")
    assert done.code == 1
    said = json.loads(done.out)
    assert said["scores"][0]["score"] == pytest.approx(one["score"], abs=1e-6)
    assert said["scores"][1]["score"] == pytest.approx(1, abs=1e-6)
    assert [pair["label"] for pair in said["scores"]] == [1, 1]
    assert len(said["failures"]) == 1
    table = np.load("b.npy")
    assert np.allclose(table, [[pair["score"], pair["probability"]] for pair in said["scores"]])
    done = command(f"match score 'a text of some words' docs/d0.txt {common} -o c.tsv")
    assert done.code == 0, done.err
    assert pd.read_csv("c.tsv", sep="\t")["left"].tolist() == ["a text of some words"]


def test_vectors_in_files_and_an_index(command: Any, folder: pathlib.Path, matcher_folder: pathlib.Path) -> None:
    common = f"--checkpoint {matcher_folder} --quiet"
    for ending in ("npy", "npz", "csv", "parquet", "jsonl"):
        done = command(f"match encode docs {common} -o v.{ending}")
        assert done.code == 0, done.err
    done = command(f"match encode docs {common} --json -o index/")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert (said["rows"], said["documents"], said["vectors"]) == (12, 12, "index/vectors")
    index = Index.open("index/vectors")
    assert np.array_equal(np.load("v.npy"), index.vectors())
    assert pd.read_parquet("v.parquet")["name"].tolist() == list(index.names())
    for place in ("index", "index/vectors"):
        done = command(f"match search docs/d0.txt --corpus {place} {common} --json -o a-{place.count('/')}.json")
        assert done.code == 0, done.err
        assert json.loads(done.out)["queries"][0]["matches"][1]["passages"]
    done = command(f"match search docs/d0.txt --corpus index {common} --blocks.on-long truncate")
    assert done.code == 2
    assert "the index was made with other weights" in done.err
    assert "encode the documents anew" in done.err


def test_an_interrupted_encoding_says_how_to_go_on(
    command: Any, folder: pathlib.Path, matcher_folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, count = ShardWriter.add, iter(range(100))

    def interrupted(self: ShardWriter, *args: Any, **kwargs: Any) -> None:
        if next(count) == 5:
            raise KeyboardInterrupt
        add(self, *args, **kwargs)

    line = f"match encode docs --checkpoint {matcher_folder}"
    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "add", interrupted)
        done = command(f"{line} -o index/")
    assert done.code == 130
    assert "Continue with: pipelines match encode docs --resume index" in done.err
    assert sorted(path.name for path in pathlib.Path("index").iterdir()) == ["config.yaml", "vectors.partial"]
    done = command("match encode docs --resume index --quiet --json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert (said["rows"], said["documents"]) == (12, 12)
    assert any("5 documents were encoded before" in note for note in said["notes"])
    done = command(f"{line} -o whole/ --quiet")
    assert np.allclose(Index.open("index/vectors").vectors(), Index.open("whole/vectors").vectors(), atol=2e-6)

    def at_once(self: ShardWriter, *args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ShardWriter, "add", at_once)
    assert command(f"{line} -o none/ --quiet").code == 130
    assert not pathlib.Path("none").exists()


def test_what_is_cut_off_is_said(command: Any, folder: pathlib.Path, matcher_folder: pathlib.Path) -> None:
    line = f"match encode docs --checkpoint {matcher_folder} --blocks.limit 3 --quiet --json"
    whole = json.loads(command(f"{line} -o a/").out)
    assert (whole["tokens_dropped"], whole["documents_shortened"]) == (0, 0)
    cut = json.loads(command(f"{line} --blocks.on-long truncate -o b/").out)
    assert cut["blocks"] == 36
    assert cut["documents_shortened"] == 12
    assert cut["tokens_dropped"] > 0
    assert any(note.startswith(f"not read: {cut['tokens_dropped']:,} tokens") for note in cut["notes"])
    done = command(f"{line} --blocks.on-long error -o c/")
    assert done.code == 2
    assert "more than the limit" in done.err
    assert not pathlib.Path("c").exists()


def test_export(command: Any, matcher_folder: pathlib.Path) -> None:
    done = command(f"match export --checkpoint {matcher_folder} -o m.pt2 --json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["max_abs_error"] < 1e-4
