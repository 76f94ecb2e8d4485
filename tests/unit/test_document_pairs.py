"""Pairs of documents: every layout, labels as they are meant, bad lines named, texts shared, nothing counted twice."""

from __future__ import annotations

import gzip
import json
import pathlib
import struct

import numpy as np
import pandas as pd
import pytest

from pipelines.data.datasets.document_layouts import bytes_literal, headless, page_title
from pipelines.data.datasets.documents import PairSet, is_pair_list, open_pairs
from pipelines.data.errors import InputError
from pipelines.data.formats.document_types import Document, DocumentOptions

WIKI = "https://en.wikipedia.org/wiki/"


def write(folder: pathlib.Path, name: str, content: str | bytes) -> pathlib.Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def triples(pairs: PairSet) -> list[tuple[str, str, int]]:
    """The texts and the label of every pair."""
    text = [document.text.strip() for document in pairs.documents]
    return [(text[a], text[b], int(y)) for a, b, y in zip(pairs.left, pairs.right, pairs.label, strict=True)]


def noted(pairs: PairSet, words: str) -> bool:
    return any(words in one for one in pairs.notes)


@pytest.mark.parametrize(
    "names", [("left", "right"), ("a", "b"), ("doc1", "doc2"), ("text1", "text2"), ("Sentence1", "Sentence2")]
)
def test_json_lines_and_tables_under_every_name(tmp_path: pathlib.Path, names: tuple[str, str]) -> None:
    left, right = names
    rows = [("First text.", "Second text.", 1), ("First text.", "Third text.", 0), ("Second text.", "Third text.", 1)]
    lines = [json.dumps({left: a, right: b, "label": y}) for a, b, y in rows]
    sources = [
        write(tmp_path, "a.jsonl", "\n".join(lines)),
        write(tmp_path, "a.jsonl.gz", gzip.compress("\n".join(lines).encode())),
        write(tmp_path, "a.tsv", f"{left}\t{right}\tscore\n" + "".join(f"{a}\t{b}\t{y}\n" for a, b, y in rows)),
        write(tmp_path, "a.csv", f"{left},{right},label\n" + "".join(f'"{a}","{b}",{y}\n' for a, b, y in rows)),
        pd.DataFrame(rows, columns=[left, right, "label"]),
        [{left: a, right: b, "label": bool(y)} for a, b, y in rows],
        rows,
    ]
    for source in sources:
        pairs = open_pairs(source)
        assert triples(pairs) == rows
        assert len(pairs.documents) == 3, "a text is one document, whatever pairs it stands in"
        assert (pairs.part, len(pairs), pairs.failures) == (None, 3, {})
    assert open_pairs(pairs) is pairs


def test_values_are_files_where_there_are_such_files(tmp_path: pathlib.Path) -> None:
    write(tmp_path, "docs/one.md", "# One\n\nFrom a [file](x.md).")
    lines = [
        {"left": "docs/one.md", "right": "A text of its own.", "label": 1},
        {"left": "docs/gone.md", "right": "A text of its own.", "label": 1},
    ]
    pairs = open_pairs(write(tmp_path, "pairs.jsonl", "\n".join(map(json.dumps, lines))))
    assert [document.name for document in pairs.documents] == ["docs/one.md", "pairs.jsonl:1 right"]
    assert (pairs.documents[0].kind, pairs.documents[0].links) == ("markdown", ("x.md",))
    assert pairs.failures == {"pairs.jsonl:2": "left: there is no file docs/gone.md"}


def test_triples_make_two_pairs(tmp_path: pathlib.Path) -> None:
    lines = [
        {"anchor": "A text.", "positive": "Alike.", "negative": "Unlike."},
        {"query": "B text.", "positive": ["Alike.", "Near."], "negative": ["Unlike.", "Far."]},
        {"positive": "Alone."},
    ]
    pairs = open_pairs(write(tmp_path, "t.jsonl", "\n".join(map(json.dumps, lines))))
    assert triples(pairs) == [
        ("A text.", "Alike.", 1),
        ("A text.", "Unlike.", 0),
        ("B text.", "Alike.", 1),
        ("B text.", "Near.", 1),
        ("B text.", "Unlike.", 0),
        ("B text.", "Far.", 0),
    ]
    assert noted(pairs, "2 triples became pairs")
    assert pairs.failures == {"t.jsonl:3": "a positive without an anchor"}


@pytest.mark.parametrize(
    ("given", "label"),
    [
        (0, 0), (1, 1), (2, 1), ("2", 1), ("1.0", 1), ("0.0", 0), (-1, 0), (True, 1), (False, 0), ("true", 1),
        ("False", 0), ("yes", 1), ("no", 0), (np.int64(2), 1), (np.bool_(True), 1),
    ],
)  # fmt: skip
def test_labels(given: object, label: int) -> None:
    pairs = open_pairs([("One text.", "Two text.", given)])
    assert pairs.label.tolist() == [label]
    assert noted(pairs, "labels above 1 count as matches") == (str(given) == "2")
    assert noted(pairs, "labels below 0") == (given == -1)


def test_bad_lines_are_named_and_the_rest_is_read(tmp_path: pathlib.Path) -> None:
    good = json.dumps({"left": "One text.", "right": "Two text.", "label": 1})
    bad = [
        '{"left": "x y',
        "[1, 2]",
        json.dumps({"left": "x y", "label": 1}),
        json.dumps({"left": "x y", "right": "y z"}),
        json.dumps({"left": "x y", "right": "y z", "label": 0.5}),
        json.dumps({"left": "x y", "right": "y z", "label": "perhaps"}),
        json.dumps({"left": "x y", "right": "y z", "label": None}),
        json.dumps({"left": "x y", "right": 5, "label": 1}),
        json.dumps({"left": "x y", "right": "  ", "label": 1}),
        '{"left": "x y", "right": "\\ud800 y", "label": 1}',
        '{"left": "x y", "right": "y z", "label": NaN}',
        '{"left": "x y", "right": "y z", "label": Infinity}',
    ]
    pairs = open_pairs(write(tmp_path, "a.jsonl", "\n".join([*bad, good])))
    assert triples(pairs) == [("One text.", "Two text.", 1)]
    assert set(pairs.failures) == {f"a.jsonl:{number}" for number in range(1, 13)}
    assert noted(pairs, "12 lines could not be used")
    with pytest.raises(InputError, match=r"no pair can be used.*12 bad lines, the first a\.jsonl:1: no JSON"):
        open_pairs(write(tmp_path, "a.jsonl", "\n".join(bad)))


def test_pairs_that_teach_nothing_are_counted() -> None:
    rows = [
        ("Same text.", "Same text.", 1),
        ("One text.", "Two text.", 1),
        ("Two text.", "One text.", 1),
        ("One text.", "Two text.", 0),
        ("One text.", "Three text.", 0),
    ]
    pairs = open_pairs(rows)
    assert triples(pairs) == [rows[1], rows[3], rows[4]]
    for words in ("1 pairs of a document with itself", "1 repeated pairs", "1 pairs have both labels"):
        assert noted(pairs, words), pairs.notes
    with pytest.raises(InputError, match="1 pairs of a document with itself"):
        open_pairs(rows[:1])


def test_parts_by_column_and_by_file(tmp_path: pathlib.Path) -> None:
    lines = [
        {"left": f"Text {n}.", "right": "Two text.", "label": n % 2, "split": part}
        for n, part in enumerate(("train", "dev", "test", "else"))
    ]
    pairs = open_pairs(write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, lines))))
    assert pairs.part == ("train", "valid", "test", "")
    assert noted(pairs, "1 pairs name no part")
    for part in ("train", "eval", "test"):
        rows = f"Text {part}.\tTwo text.\t1\nOne text.\tTwo text.\t1\n"
        write(tmp_path, f"set/pairs.{part}.tsv", f"left\tright\tlabel\n{rows}")
    pairs = open_pairs(tmp_path / "set")
    assert sorted(zip(pairs.part or (), pairs.left.tolist(), strict=True))[0][0] == "test"
    assert (pairs.part or ()).count("valid") == 2
    assert noted(pairs, "1 pairs stand in several parts")


def gwikimatch(folder: pathlib.Path) -> pathlib.Path:
    name = "gwikimatch_v2_human_neg_1.{}_external_wdp.filtered_contro_wiki_cc_team.only_urls.tsv"
    ada = f"{WIKI}Ada_Lovelace"
    write(folder, name.format("train"), f"2\t{ada}\t{WIKI}Charles_Babbage\n0\t{ada}\t{WIKI}Tea\n")
    write(folder, name.format("test"), f"1\t{WIKI}Tea\t{WIKI}Caf%C3%A9\n1\t{WIKI}Tea\t{WIKI}Unknown\n")
    return folder


def test_gwikimatch_by_addresses(tmp_path: pathlib.Path) -> None:
    folder = gwikimatch(tmp_path)
    with pytest.raises(InputError, match=r"no text for https://en\.wikipedia\.org.*argument texts"):
        open_pairs(folder)
    texts = [
        {"url": f"{WIKI}Ada_Lovelace", "text": "She wrote programs."},
        {"title": "Charles Babbage", "text": "He made engines."},
        {"id": "Tea", "text": "A drink."},
        {"title": "Café", "text": "A place."},
    ]
    write(folder, "documents.jsonl", "\n".join(map(json.dumps, texts)))
    pairs = open_pairs(folder)
    assert triples(pairs) == [
        ("A drink.", "A place.", 1),
        ("She wrote programs.", "He made engines.", 1),
        ("She wrote programs.", "A drink.", 0),
    ]
    assert pairs.part == ("test", "train", "train")
    assert noted(pairs, "1 labels above 1 count as matches")
    assert noted(pairs, "texts from documents.jsonl")
    assert list(pairs.failures.values()) == [
        f"right: no text for {WIKI}Unknown: give the texts that belong to the addresses"
    ]
    given = open_pairs(folder, texts=[Document("Tea", "Leaves.", title="Tea"), Document("Café", "House.")])
    assert triples(given) == [("Leaves.", "House.", 1)]


def test_aan_pairs_of_long_range_arena(tmp_path: pathlib.Path) -> None:
    rows = [
        ("1.0", "P1", "P2", "b'A paper with \\xc3\\xa9 and\\n\\nlines'", 'b"Another\'s paper"'),
        ("0.0", "P1", "P3", "b'A paper with \\xc3\\xa9 and\\n\\nlines'", "Plain words"),
        ("1.0", "P1", "P4", "too few cells"),
    ]
    write(tmp_path, "new_aan_pairs.train.tsv", "".join("\t".join(row) + "\n" for row in rows))
    write(tmp_path, "new_aan_pairs.eval.tsv", "1.0\tP5\tP6\tb'Fifth paper'\tb'Sixth paper'\n")
    pairs = open_pairs(tmp_path)
    assert [document.name for document in pairs.documents] == ["P5", "P6", "P1", "P2", "P3"]
    assert pairs.documents[2].text.startswith("A paper with é and\n\nlines")
    assert (pairs.label.tolist(), pairs.part) == ([1, 1, 0], ("valid", "train", "train"))
    assert pairs.failures == {"new_aan_pairs.train.tsv:3": "4 cells where the layout has 5"}
    assert noted(pairs, "texts were written as Python bytes")


def message(*fields: tuple[int, int | str | bytes]) -> bytes:
    """A protocol buffer message, written from its definition."""
    found = b""
    for number, value in fields:
        if isinstance(value, int):
            found += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            found += varint(number << 3 | 2) + varint(len(data)) + data
    return found


def varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


def record(data: bytes) -> bytes:
    """With the sums of the format, by a table: another way than the reader's."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)

    def masked(content: bytes) -> bytes:
        crc = 0xFFFFFFFF
        for byte in content:
            crc = table[(crc ^ byte) & 255] ^ crc >> 8
        crc ^= 0xFFFFFFFF
        return struct.pack("<I", ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF)

    size = struct.pack("<Q", len(data))
    return size + masked(size) + data + masked(data)


def wiki_doc(title: str, *sections: tuple[str, str]) -> bytes:
    parts = [(5, message((1, head), (2, text))) for head, text in sections]
    return message((1, f"id {title}"), (2, f"{WIKI}{title}"), (3, title), *parts, (6, "image"))


def test_the_demo_of_gwikimatch(tmp_path: pathlib.Path) -> None:
    long = "word " * 40_000
    ada, tea = wiki_doc("Ada", ("", "She wrote."), ("Life", "Born in London.")), wiki_doc("Tea", ("Use", long))
    first = message((1, "x"), (2, 0), (3, 2), (6, ada), (7, tea))
    pairs = [first, message((2, 0), (7, ada), (6, wiki_doc("B", ("", "C."))))]
    whole = b"".join(map(record, pairs))
    assert record(b"")[:12] == b"\0" * 8 + bytes.fromhex("29039807"), "the sum that TensorFlow writes for length 0"
    found = open_pairs(write(tmp_path, "demo.tfrecord", whole))
    assert [document.name for document in found.documents] == [f"{WIKI}Ada", f"{WIKI}Tea", f"{WIKI}B"]
    assert found.documents[0].text == "She wrote.\n\nLife\nBorn in London."
    assert found.documents[0].title == "Ada"
    assert found.documents[1].text == f"Use\n{long}"
    assert (found.left.tolist(), found.right.tolist(), found.label.tolist()) == ([0, 2], [1, 0], [1, 0])
    cut = open_pairs(write(tmp_path, "cut.tfrecord", whole[:-9]))
    assert (len(cut), list(cut.failures)) == (1, ["cut.tfrecord:2"])
    flipped = bytearray(whole)
    flipped[3] ^= 8
    with pytest.raises(InputError, match="a damaged one"):
        open_pairs(write(tmp_path, "flip.tfrecord", bytes(flipped)))
    with pytest.raises(InputError, match="larger than"):
        open_pairs(write(tmp_path, "large.tfrecord", whole), DocumentOptions(limit_mb=0.1))


def test_damaged_records_neither_crash_nor_hang(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    body = message((3, 1), (6, wiki_doc("A", ("Head", "Text one."))), (7, wiki_doc("B", ("Head", "Text two."))))
    for _ in range(100):
        data = bytearray(body)
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.integers(256)
        path = write(tmp_path, "a.tfrecord", record(bytes(data[: rng.integers(1, len(data) + 1)])))
        try:
            found = open_pairs(path)
        except InputError:
            continue
        assert len(found) == 1


def test_files_of_pairs_are_told_from_lists_of_documents(tmp_path: pathlib.Path) -> None:
    for name, content, expected in (
        ("a.jsonl", '\n[1]\n{"a": "x", "B": "y"}\n', True),
        ("b.jsonl", '{"query": "x", "positive": ["y"]}\n', True),
        ("c.jsonl", '{"id": "x", "text": "y", "label": 1}\n', False),
        ("d.tsv", "left\tright\tlabel\nx\ty\t1\n", True),
        ("e.tsv", "name\ttext\nx\ty\n", False),
        ("f.tsv", f"1\t{WIKI}A\t{WIKI}B\n", True),
        ("g.csv", "", False),
        ("h.tfrecord", "", True),
        ("i.md", "left right", False),
    ):
        assert is_pair_list(write(tmp_path, f"all/{name}", content)) == expected, name
    assert not is_pair_list(tmp_path / "all"), "i.md is a document: a folder of documents with a list beside them"
    (tmp_path / "all" / "i.md").rename(tmp_path / "all" / "README.md")
    assert is_pair_list(tmp_path / "all")
    assert not is_pair_list(tmp_path)


def test_pairs_to_be_scored_need_no_label_and_all_stay(tmp_path: pathlib.Path) -> None:
    rows = [("One text.", "Two text."), ("Two text.", "One text."), ("One text.", "One text.", 2), ("Two text.", " ")]
    lines = [json.dumps(dict(zip(("left", "right", "label"), row, strict=False))) for row in rows]
    for source in (rows, write(tmp_path, "a.jsonl", "\n".join(lines))):
        pairs = open_pairs(source, unlabelled=True)
        assert triples(pairs) == [(*rows[0], -1), (*rows[1], -1), ("One text.", "One text.", 1)]
        assert len(pairs.failures) == 1
        with pytest.raises(InputError, match="no label"):
            open_pairs(source[:2] if isinstance(source, list) else write(tmp_path, "b.jsonl", "\n".join(lines[:2])))


def test_small_parts_of_layouts() -> None:
    assert headless(["label", "left", "right"]) is None
    assert headless(["1", "a text", "another"]) is None
    assert headless([]) is None
    assert page_title(f"{WIKI}A%26B_c#part") == "A&B c"
    assert bytes_literal("b'never closed") is None
    assert bytes_literal("b'\\xff'") is None, "bytes that are no UTF-8 stay as they are written"
    assert bytes_literal("b'a' + exit() + b'c'") is None, "nothing is run"


def test_sources_that_are_none(tmp_path: pathlib.Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, words in (
        (tmp_path / "gone.tsv", "no such file"),
        (tmp_path / "empty", "no list of pairs"),
        (write(tmp_path, "a.txt", "x"), "not a list of pairs"),
        (write(tmp_path, "b.tsv", "one\ttwo\n1\t2\n"), "no pair can be used.*no left document"),
        (write(tmp_path, "c.csv", ""), "no header"),
        ([], "no pairs"),
        (["text"], "neither"),
        (7, "int"),
    ):
        with pytest.raises(InputError, match=words):
            open_pairs(source)
