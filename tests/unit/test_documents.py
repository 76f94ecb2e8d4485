"""Sources of documents: each file once, each fault named, nothing that stops the rest; links against counted ones."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import pathlib
import tarfile
import time
import zipfile

import numpy as np
import pandas as pd
import pytest

from pipelines.data import catalog
from pipelines.data.datasets.documents import (
    DocumentStream,
    LinkedCorpus,
    linked_corpus,
    open_documents,
    read_all,
    shared_links,
)
from pipelines.data.errors import InputError
from pipelines.data.formats.document_types import Document, DocumentOptions

ROOT = pathlib.Path(__file__).resolve().parents[2]


def write(folder: pathlib.Path, name: str, content: str | bytes) -> pathlib.Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def texts(stream: DocumentStream) -> dict[str, str]:
    return {document.name: document.text.strip() for document in stream}


def note(stream: DocumentStream, words: str) -> bool:
    return any(words in one for one in stream.notes)


def tar(path: pathlib.Path, members: list[tuple[str, bytes]], mode: str = "w") -> pathlib.Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    base = tmp_path / "corpus"
    write(base, "b.md", "Second document.")
    write(base, "a.txt", "First document.")
    write(base, "deep/er/c.rst", "Third document.")
    write(base, "README", "No ending at all.")
    return base


def test_a_folder_gives_every_document_sorted_by_name(folder: pathlib.Path) -> None:
    write(folder, "x.png", b"\x89PNG")
    write(folder, ".git/config", "hidden")
    write(folder, "deep/docs.zip", b"PK")
    write(folder, "deep/list.jsonl", "{}")
    stream = open_documents(folder)
    assert stream.expected == 4
    assert list(texts(stream)) == ["README", "a.txt", "b.md", "deep/er/c.rst"]
    assert not stream.failures
    for words in ("1 files with other endings", "1 hidden files", "1 archives inside", "1 lists inside"):
        assert note(stream, words), (words, stream.notes)
    assert list(texts(stream)) == ["README", "a.txt", "b.md", "deep/er/c.rst"], "a second pass reads anew"
    assert note(stream, "1 files with other endings"), "and counts anew"


def test_links_and_loops_are_read_once(folder: pathlib.Path) -> None:
    (folder / "deep" / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "0_again").symlink_to(folder / "deep", target_is_directory=True)
    (folder / "self").symlink_to(folder / "self")
    (folder / "gone.md").symlink_to(folder / "nowhere.md")
    (folder / "copy.md").symlink_to(folder / "b.md")
    outside = write(folder.parent, "outside/far/d.md", "Fourth document.")
    (folder / "far").symlink_to(outside.parent, target_is_directory=True)
    (folder / "far2").symlink_to(outside.parent, target_is_directory=True)
    stream = open_documents(folder)
    assert list(texts(stream)) == ["README", "a.txt", "b.md", "deep/er/c.rst", "far/d.md"]
    assert stream.aliases == {"copy.md": "b.md"}
    assert set(stream.failures) == {"self", "gone.md"}
    assert note(stream, "3 links to folders that are read anyway")


def test_pipes_are_not_opened_and_bad_files_do_not_stop_the_rest(folder: pathlib.Path) -> None:
    os.mkfifo(folder / "pipe.txt")
    write(folder, "empty.txt", "")
    write(folder, "binary.txt", bytes(range(256)) * 20)
    (folder / os.fsdecode(b"caf\xe9.txt")).write_text("Named in Latin-1.")
    stream = open_documents(folder)
    found = texts(stream)
    assert found["caf\\xe9.txt"] == "Named in Latin-1."
    assert len(found) == 5
    assert set(stream.failures) == {"empty.txt", "binary.txt"}
    assert note(stream, "1 pipes")
    assert note(stream, "2 could not be read")
    assert note(stream, "names are not UTF-8")


def test_nothing_to_read_is_said(tmp_path: pathlib.Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="an empty folder"):
        open_documents(tmp_path / "empty")
    write(tmp_path, "pictures/a.png", b"\x89PNG")
    with pytest.raises(InputError, match="1 files with other endings"):
        open_documents(tmp_path / "pictures")
    with pytest.raises(InputError, match="no such file or folder"):
        open_documents(tmp_path / "nowhere.txt")
    with pytest.raises(InputError, match="no such file or folder"):
        open_documents("a text that goes on for ever " * 500)
    with pytest.raises(InputError, match="an empty sequence"):
        open_documents([])
    with pytest.raises(InputError, match="int"):
        open_documents(5)
    stream = open_documents(write(tmp_path, "empty.txt", ""))
    with pytest.raises(InputError, match=r"no document could be read.*empty\.txt"):
        read_all(stream)


def test_the_folder_of_a_forest_is_not_recursion(tmp_path: pathlib.Path) -> None:
    place = tmp_path
    for _ in range(200):
        place = place / "a"
    write(place, "leaf.md", "Leaf.")
    assert [document.text.strip() for document in open_documents(tmp_path)] == ["Leaf."]


@pytest.mark.parametrize("kind", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_members(tmp_path: pathlib.Path, kind: str) -> None:
    members = [
        ("./a.md", b"One."),
        ("sub/b.txt", b"Two."),
        ("c.png", b"x"),
        ("in.tar.gz", b"x"),
        ("../d.md", b"Three."),
    ]
    path = tar(tmp_path / "docs.archive", [*members, ("big.txt", b"x" * 2_000_000)], kind)
    stream = open_documents(path, DocumentOptions(limit_mb=1))
    assert stream.expected is None
    assert texts(stream) == {"a.md": "One.", "sub/b.txt": "Two.", "../d.md": "Three."}
    assert set(stream.failures) == {"big.txt"}
    assert note(stream, "1 archives inside")
    assert not list(tmp_path.parent.glob("d.md")), "nothing is written"


def test_tar_links_are_other_names_and_devices_are_left_out(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind, target in (
            ("man3/b.3", tarfile.SYMTYPE, "a.3"),
            ("c", tarfile.LNKTYPE, "man3/a.3"),
            ("d", tarfile.FIFOTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
        member = tarfile.TarInfo("man3/a.3")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"Text"))
    stream = open_documents(path)
    assert list(texts(stream)) == ["man3/a.3"]
    assert stream.aliases == {"man3/b.3": "man3/a.3", "c": "man3/a.3"}
    assert note(stream, "1 devices")
    assert note(stream, "2 links inside")


@pytest.mark.parametrize("kind", ["w", "w:gz", "w:bz2", "w:xz"])
def test_every_cut_of_an_archive_is_noticed(tmp_path: pathlib.Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    members = [(f"{number}.txt", bytes(rng.integers(97, 123, 700, np.uint8))) for number in range(8)]
    whole = tar(tmp_path / "whole.tar", members, kind).read_bytes()
    end = whole.rstrip(b"\0") if kind == "w" else whole
    for cut in rng.integers(1, len(end) if kind == "w" else len(end) - 1, 40):
        path = write(tmp_path, "cut.tar", whole[:cut])
        stream = open_documents(path)
        found = texts(stream)
        assert stream.failures, f"cut at {cut} of {len(whole)}: {len(found)} documents and not a word"
        for name, text in found.items():
            assert text == dict(members)[name].decode(), "what is given is whole"


@pytest.mark.parametrize(("kind", "place"), [("w:gz", -6), ("w:bz2", -3), ("w:xz", -10)])
def test_a_wrong_sum_at_the_end_is_noticed(tmp_path: pathlib.Path, kind: str, place: int) -> None:
    """The padding of a tar is longer than what is read for its members: the sum behind it has to be asked for."""
    path = tar(tmp_path / "a.tar", [("a.txt", b"Words."), ("b.txt", b"More words.")], kind)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    stream = open_documents(write(tmp_path, "flipped.tar", bytes(data)))
    list(stream)
    assert list(stream.failures) == ["flipped.tar"]


@pytest.mark.parametrize("kind", ["tar", "tar.xz", "zip", "jsonl.gz", "xml.bz2"])
def test_damaged_containers_neither_crash_nor_hang(tmp_path: pathlib.Path, kind: str) -> None:
    rng = np.random.default_rng(1)
    whole = damaged_source(tmp_path, kind)
    for number in range(60):
        data = bytearray(whole)
        for place in rng.integers(0, min(len(data), 600) if number % 2 else len(data), 1 + number % 5):
            data[place] = rng.integers(256)
        path = write(tmp_path, f"damaged.{kind}", bytes(data))
        start = time.perf_counter()
        with contextlib.suppress(InputError):
            list(open_documents(path))
        assert time.perf_counter() - start < 5


def damaged_source(folder: pathlib.Path, kind: str) -> bytes:
    members = [(f"{number}.txt", f"Document {number}. ".encode() * 40) for number in range(6)]
    if kind.startswith("tar"):
        return tar(folder / "whole", members, "w:xz" if kind.endswith("xz") else "w").read_bytes()
    if kind == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members:
                archive.writestr(name, content)
        return buffer.getvalue()
    if kind == "jsonl.gz":
        return gzip.compress("".join(json.dumps({"id": n, "text": t.decode()}) + "\n" for n, t in members).encode())
    return bz2.compress(dump(*((name, text.decode(), "0") for name, text in members)).encode())


def test_zip_members(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "docs.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.md", "One.")
        archive.writestr("__MACOSX/._a.md", "clutter")
        archive.writestr("bomb.txt", b"0" * 3_000_000)
        link = zipfile.ZipInfo("link.md")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "a.md")
    stream = open_documents(path, DocumentOptions(limit_mb=1))
    assert texts(stream) == {"a.md": "One."}
    assert set(stream.failures) == {"bomb.txt", "link.md"}
    assert note(stream, "1 hidden")


def test_json_lines_name_every_bad_line(tmp_path: pathlib.Path) -> None:
    lines = [
        json.dumps({"id": 7, "text": "One.", "title": "First"}),
        '{"text": ',
        "[1]",
        json.dumps({"id": "x", "text": 5}),
        json.dumps({"id": "y"}),
        "",
        json.dumps({"ID": "z", "Text": "Two\x00."}),
        json.dumps({"id": "z", "text": "Three."}),
        json.dumps({"text": "Unnamed."}),
        '{"id": "half", "text": "\\ud800"}',
        json.dumps({"id": "void", "text": " "}),
    ]
    path = write(tmp_path, "list.jsonl", "\n".join(lines).encode() + b'\n{"text": "\xff"}\n')
    stream = open_documents(path)
    found = list(stream)
    assert [document.name for document in found] == ["7", "z", "z (2)", "list.jsonl:9"]
    assert found[0].title == "First"
    bad = {"list.jsonl:2", "list.jsonl:3", "list.jsonl:4", "list.jsonl:5", "list.jsonl:10", "list.jsonl:12", "void"}
    assert set(stream.failures) == bad
    assert note(stream, "1 names stood there before")
    for packed, name in ((gzip.compress, "l.jsonl.gz"), (lzma.compress, "l.jsonl.xz"), (bz2.compress, "l.ndjson.bz2")):
        again = open_documents(write(tmp_path, name, packed(path.read_bytes())))
        assert [document.text for document in again] == [document.text for document in found]


def test_tables(tmp_path: pathlib.Path) -> None:
    write(tmp_path, "a.tsv", 'Name\tText\none\tIt said "no.\ntwo\tcells\ttoo many\nthree\tLast.\n')
    write(tmp_path, "b.csv", 'id,text\n1,"Two\nlines, one cell"\n2,Plain.\n')
    write(tmp_path, "c.csv", "id;text\n1;Semi, colon\n")
    frame = pd.DataFrame({"title": ["t1", "t2"], "body": ["First.", None]}, index=[5, 6])
    frame.to_parquet(tmp_path / "d.parquet")
    stream = open_documents(tmp_path / "a.tsv")
    assert texts(stream) == {"one": 'It said "no.', "three": "Last."}
    assert stream.failures == {"a.tsv:3": "3 cells where the header has 2"}
    assert texts(open_documents(tmp_path / "b.csv")) == {"1": "Two\nlines, one cell", "2": "Plain."}
    assert texts(open_documents(tmp_path / "c.csv")) == {"1": "Semi, colon"}
    for source in (tmp_path / "d.parquet", frame):
        stream = open_documents(source)
        assert texts(stream) == {"t1": "First."}
        assert list(stream.failures.values()) == ["no text"]
    with pytest.raises(InputError, match="no column with a text"):
        list(open_documents(write(tmp_path, "e.csv", "id,label\n1,2\n")))
    with pytest.raises(InputError, match="no header"):
        list(open_documents(write(tmp_path, "f.csv", "")))


def test_long_cells_are_read_and_longer_ones_named(tmp_path: pathlib.Path) -> None:
    long = "word " * 60_000
    path = write(tmp_path, "a.csv", f"id,text\n1,{long}\n")
    assert len(next(iter(open_documents(path))).text) >= 299_999
    lines = [json.dumps({"id": "a", "text": long}), json.dumps({"id": "b", "text": "Short."})]
    stream = open_documents(write(tmp_path, "a.jsonl", "\n".join(lines)), DocumentOptions(limit_mb=0.1))
    assert texts(stream) == {"b": "Short."}
    assert list(stream.failures) == ["a.jsonl:1"]


def test_a_sequence_of_texts_paths_and_documents(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, "a.md", "From a file.")
    entries = ["A text of words.", str(path), path, Document("d", "Ready."), "docs/gone.md", tmp_path / "no.md", 5, ""]
    stream = open_documents(entries)
    assert stream.expected == 8
    found = list(stream)
    assert [document.text.strip() for document in found] == [
        "A text of words.",
        "From a file.",
        "From a file.",
        "Ready.",
    ]
    assert [document.name for document in found] == ["text 1", str(path), f"{path} (2)", "d"]
    assert set(stream.failures) == {"docs/gone.md", str(tmp_path / "no.md"), "text 7", "text 8"}
    assert open_documents(stream) is stream


def dump(*pages: tuple[str, str, str]) -> str:
    body = "".join(
        f"<page><title>{title}</title><ns>{space}</ns><revision><text>{text}</text></revision></page>"
        for title, text, space in pages
    )
    return f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{body}</mediawiki>'


def test_a_dump_of_a_wiki(tmp_path: pathlib.Path) -> None:
    pages = (
        ("Ada", "She wrote to [[Charles Babbage|him]] about [[the engine#Parts]] and [[File:A.png]].", "0"),
        ("Charles Babbage", "He knew [[Ada]] &amp; [[nobody]].", "0"),
        ("Engine", "#REDIRECT [[The engine]]", "0"),
        ("The engine", "Made by [[charles_Babbage]].", "0"),
        ("Talk:Ada", "[[Ada]]", "1"),
    )
    for name, data in (("a.xml", dump(*pages).encode()), ("a.bz2", bz2.compress(dump(*pages).encode()))):
        stream = open_documents(write(tmp_path, name, data))
        found = list(stream)
        assert [document.title for document in found] == ["Ada", "Charles Babbage", "The engine"]
        assert {document.kind for document in found} == {"wiki"}
        assert note(stream, "1 redirects left out")
        assert note(stream, "1 pages of other namespaces")
        assert stream.aliases == {"Engine": "The engine"}
    corpus = linked_corpus(tmp_path / "a.xml")
    assert corpus.edges.tolist() == [[0, 1], [0, 2], [1, 2]], "the link to charles_Babbage counts: MediaWiki's rule"
    cut = open_documents(write(tmp_path, "cut.xml", dump(*pages)[:300]))
    assert [document.name for document in cut] == ["Ada"]
    assert list(cut.failures) == ["cut.xml"]


def test_entities_of_a_hostile_dump_do_not_grow(tmp_path: pathlib.Path) -> None:
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    head = f'<?xml version="1.0"?><!DOCTYPE mediawiki [<!ENTITY l0 "ha">{laughs}]>'
    page = "<mediawiki><page><title>a</title><revision><text>&l11;</text></revision></page></mediawiki>"
    stream = open_documents(write(tmp_path, "bomb.xml", head + page))
    start = time.perf_counter()
    assert list(stream) == []
    assert time.perf_counter() - start < 5
    assert stream.failures


def test_links_of_every_markup() -> None:
    pages = [
        Document(
            "docs/index.html", "x", "html", links=("a/b.md#part", "https://x.org/", "/top.html", "#here", "c.html")
        ),
        Document("docs/a/b.md", "x", "markdown", links=("../index.html", "gone.md")),
        Document("docs/top.html", "x", "html"),
        Document("docs/c.html", "x", "html", links=("index.html?x=1", "index.html")),
        Document("docs/page.rst", "x", "rst", links=("doc:/a/other", "doc:a/other", "class:X", "mod:json")),
        Document("docs/a/other.rst.txt", "x", "rst", links=("doc:../page",)),
        Document("docs/man/open.2.gz", "x", "man", links=("close(2)", "open(2)", "printf(3)")),
        Document("docs/man/close.2.gz", "x", "man"),
        Document("docs/perl.pod", "x", "pod", links=("File::Spec", "perl/NAME", "nothing")),
        Document("docs/lib/File/Spec.pod", "x", "pod"),
    ]
    corpus = linked_corpus(pages)
    assert corpus.edges.tolist() == [[0, 1], [0, 2], [0, 3], [4, 5], [6, 7], [8, 9]]
    notes = " / ".join(corpus.notes)
    for words in (
        "4 references lead to no document",
        "1 addresses outside",
        "3 references of a document to itself",
        "1 references by roles other",
        "9 directed links make 6 linked pairs",
    ):
        assert words in notes, (words, notes)


def test_manual_pages_by_entries(tmp_path: pathlib.Path) -> None:
    page = ".TH {0} 3\n.SH NAME\n{0} \\- do it\n.SH SEE ALSO\n.BR {1} (3)\n"
    write(tmp_path, "man3/first.3", page.format("first", "second"))
    write(tmp_path, "man3/other.3.gz", gzip.compress(page.format("other", "nothing").encode()))
    write(tmp_path, "man3/second.3", ".so man3/other.3\n")
    corpus = linked_corpus(tmp_path)
    assert [document.name for document in corpus.documents] == ["man3/first.3", "man3/other.3.gz"]
    assert corpus.edges.tolist() == [[0, 1]]
    assert not corpus.failures


def test_modules_are_where_they_are_declared(tmp_path: pathlib.Path) -> None:
    write(tmp_path, "lib/a.rst", ":mod:`real`, :mod:`the other <~pack.two>`, :mod:`none`, :mod:`!pack.no`.")
    write(tmp_path, "lib/b.rst", "Title\n=====\n\n.. module:: real\n   :synopsis: x\n")
    write(tmp_path, "lib/c.rst", "Title\n=====\n\n.. module:: real\n   :noindex:\n\n.. module:: pack.two\n")
    write(tmp_path, "lib/d.rst", "Title\n=====\n\n.. module:: pack.no\n")
    corpus = linked_corpus(tmp_path)
    assert corpus.edges.tolist() == [[0, 1], [0, 2]]


def test_a_table_of_links(tmp_path: pathlib.Path) -> None:
    for name in "abc":
        write(tmp_path, f"docs/{name}.txt", f"Document {name}.")
    table = write(tmp_path, "links.tsv", "from\tto\na.txt\tb.txt\nb\ta\nb.txt\tb.txt\na.txt\tgone\nword\n")
    corpus = linked_corpus(tmp_path / "docs", links=table)
    assert corpus.edges.tolist() == [[0, 1]]
    notes = " / ".join(corpus.notes)
    for words in ("1 links of a document to itself", "1 links of links.tsv name a document that is not", "1 lines of"):
        assert words in notes, notes
    with pytest.raises(InputError, match="no link between documents"):
        linked_corpus(tmp_path / "docs", links=write(tmp_path, "bad.tsv", "x\ty\n"))
    with pytest.raises(InputError, match="no such table"):
        linked_corpus(tmp_path / "docs", links=tmp_path / "gone.tsv")


def test_shared_links_are_those_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    pages = [
        Document(
            str(n), "x", "wiki", links=tuple(f"page {m}" for m in rng.choice(40, rng.integers(0, 15), replace=False))
        )
        for n in range(25)
    ]
    pairs, shares = shared_links(pages, 0.2)
    expected = {}
    for i, one in enumerate(pages):
        for j in range(i + 1, len(pages)):
            either = set(one.links) | set(pages[j].links)
            if either and len(set(one.links) & set(pages[j].links)) / len(either) > 0.2:
                expected[i, j] = len(set(one.links) & set(pages[j].links)) / len(either)
    assert len(expected) > 5
    assert dict(zip(map(tuple, pairs.tolist()), shares.tolist(), strict=True)) == pytest.approx(expected)
    assert all(len(pages[i].links) >= 10 for pair in shared_links(pages, 0.1, least=10)[0] for i in pair)


@pytest.fixture(scope="module")
def embedded() -> tuple[LinkedCorpus, float]:
    """The embedded documents, and the processor's seconds that reading them took: others may share the cores."""
    start = time.process_time()
    corpus = linked_corpus(catalog.sample_path(catalog.entry("demo", "match")))
    return corpus, time.process_time() - start


def test_the_embedded_documents_and_their_links(embedded: tuple[LinkedCorpus, float]) -> None:
    entry = catalog.entry("demo", "match")
    assert entry.name == "python-docs"
    corpus, seconds = embedded
    assert seconds < 10
    assert len(corpus.documents) == entry.rows == 497
    assert {document.kind for document in corpus.documents} == {"rst"}
    assert not corpus.failures
    assert corpus.edges.shape == (1575, 2)
    assert "links read from python_docs_links.tsv" in corpus.notes
    found = linked_corpus(corpus.documents)
    assert found.edges.shape[0] < 10, "without the bytes nobody knows which document declares a module"
    samples = ROOT / "data" / "samples"
    licences = (samples / "DATA_LICENSES.md").read_text()
    for name in ("python_docs.tar.xz", "python_docs_links.tsv", "LICENSE-python_docs.txt"):
        assert f"documents/{name}" in licences
    assert "Guido van Rossum" in (samples / "documents" / "LICENSE-python_docs.txt").read_text(errors="replace")
    assert sum(path.stat().st_size for path in (samples / "documents").iterdir()) < 2_500_000


def test_the_table_of_the_embedded_documents_is_what_their_texts_say(
    tmp_path: pathlib.Path, embedded: tuple[LinkedCorpus, float]
) -> None:
    """The same links by the readers of this package: the table was made by a tool that knows neither."""
    source = catalog.sample_path(catalog.entry("python-docs", "match"))
    alone = tmp_path / source.name
    alone.write_bytes(source.read_bytes())
    by_text, by_table = linked_corpus(alone), embedded[0]
    assert by_text.references is not None
    assert by_table.references is not None
    assert by_text.references.tolist() == by_table.references.tolist()
    assert len(by_table.references) == 1646
    assert {*map(tuple, np.sort(by_table.references, axis=1).tolist())} == {*map(tuple, by_table.edges.tolist())}
    assert any(one.startswith("1,646 directed links make 1,575") for one in by_text.notes), by_text.notes
