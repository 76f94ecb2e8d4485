"""Bad documents: one message each, with the cure; damaged and hostile files never end in a traceback or a hang."""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import os
import pathlib
import random
import time
from typing import Any

import pytest

from pipelines.data.errors import InputError
from pipelines.data.formats.document import DocumentOptions, parse_document, read_document
from pipelines.data.formats.document_deadline import OutOfTime, deadline
from pipelines.data.formats.document_pdf import parse_pdf

_SPEC = importlib.util.spec_from_file_location(
    "document_sources", pathlib.Path(__file__).resolve().parents[1] / "unit/test_document_formats.py"
)
if _SPEC is None or _SPEC.loader is None:
    raise ImportError("tests/unit/test_document_formats.py")
SAMPLES: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(SAMPLES)

UTF8 = "naïve café, déjà vu, âme, façon, où, été " * 3

CASES: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.md", b"", "a.md: the file is empty. Found: 0 bytes"),
    "white space": ("a.txt", b" \n\t\r\n", "no text in it. Found: nothing but white space"),
    "markup only": ("a.html", b"<html><script>x</script></html>", "no text in it"),
    "png": ("a.md", b"\x89PNG\r\n\x1a\n" + bytes(99), "not a text. Found: a PNG image.*Cure: save it as text"),
    "jpeg": ("a.txt", b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(99), "Found: a JPEG image"),
    "docx": ("a.txt", b"PK\x03\x04" + bytes(26) + b"word/document.xml", "Found: a Word document"),
    "zip": ("a.txt", b"PK\x03\x04" + bytes(50), "Found: a zip archive.*Cure: give the archive itself"),
    "old word": ("a.html", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "an old Word, Excel"),
    "rtf": ("a.txt", b"{\\rtf1 text}", "Rich Text"),
    "program": ("ls.1", b"\x7fELF" + bytes(99), "a program"),
    "tar": ("a.txt", b"a" * 257 + b"ustar" + bytes(99), "a tar archive"),
    "zeros": ("a.txt", bytes(500), "nothing but null bytes"),
    "noise": ("a.txt", random.Random(0).randbytes(4000), "control bytes of 4,000"),
    "no pdf": ("a.txt", b"%PDF-1.7\nnothing", "a damaged PDF.*Cure: open it in a viewer"),
    "cut gzip": ("a.1.gz", gzip.compress(b"words " * 99)[:-12], "damaged or cut gzip"),
    "wrong checksum": ("a.1.gz", gzip.compress(b"words")[:-8] + bytes(8), "damaged or cut gzip"),
    "nested gzip": ("a.gz", gzip.compress(gzip.compress(b"words")), "gzip inside of what was unpacked"),
    "damaged utf-8": ("a.txt", UTF8.encode() + b"\xff" + UTF8.encode(), "damaged UTF-8.*1 wrong byte.*first at 150"),
    "other page": ("queue.3", b".so man7/queue.7\n", "names another. Found: man7/queue.7"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_fault_has_its_message(case: str) -> None:
    name, content, message = CASES[case]
    with pytest.raises(InputError, match=f"(?s){message}") as raised:
        parse_document(content, name)
    assert raised.value.where == name
    assert "\n" not in str(raised.value)


def test_pdfs_that_have_no_text_for_us() -> None:
    with pytest.raises(InputError, match=r"without text. Found: 2 pages.*character recognition"):
        parse_document(SAMPLES.make_pdf("", ""), "scan.pdf")
    with pytest.raises(InputError, match=r"scan.pdf: the PDF is encrypted. Cure: save a copy without a password"):
        parse_document(SAMPLES.make_pdf("Words.", password="secret"), "scan.pdf")
    with pytest.raises(InputError, match="not a PDF"):
        parse_document(b"Words.", "a.pdf", DocumentOptions(kind="pdf"))
    assert parse_document(b"Words.", "a.pdf").notes == ("the name says .pdf, the content is plain text",)
    with pytest.raises(InputError, match="too much text"):
        parse_pdf(SAMPLES.make_pdf("W" * 90, "W" * 90), "a.pdf", limit_mb=0.0001)
    asked = parse_document(SAMPLES.make_pdf("Words."), "a.md", DocumentOptions(kind="markdown"))
    assert asked.notes[0] == "the content is a PDF, not markdown as asked"


def test_a_document_whose_name_lies_is_read_and_said() -> None:
    found = parse_document(b"<!doctype html><title>T</title><p>Words", "a.txt")
    assert (found.kind, found.notes) == ("html", ("the name says .txt, the content is HTML",))


def test_files_that_cannot_be_read(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_document(tmp_path / "a.txt")
    with pytest.raises(InputError, match="is a folder"):
        read_document(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        read_document(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match="no such file"):
        read_document(tmp_path / "loop")
    (tmp_path / "big.txt").write_bytes(b"a" * 2000)
    with pytest.raises(InputError, match=r"too large for one document. Found: 2,000 bytes. Expected: 1,048 at most"):
        read_document(tmp_path / "big.txt", DocumentOptions(limit_mb=0.001))


def test_a_gzip_bomb_is_left_at_the_limit() -> None:
    import tracemalloc

    bomb = gzip.compress(bytes(200 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"too large for one document. Found: more than 4,194,304 bytes unpacked"):
            parse_document(bomb, "a.gz", DocumentOptions(limit_mb=4))
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_control_characters_are_removed_and_counted() -> None:
    found = parse_document(b"W\0or\0ds\x07 and\x1b more.\x0c" + b"Words. " * 40, "a.txt")
    assert found.text.startswith("Words and more.")
    assert found.notes == ("2 null characters removed", "2 control characters removed")


def test_encodings_that_do_not_fit() -> None:
    with pytest.raises(InputError, match=r"not utf-8. Found: b'\\xe9' at byte 3"):
        parse_document("café".encode("latin-1"), "a.txt", DocumentOptions(encoding="utf-8"))
    for name in ("nonsense", "base64", "rot13", "a\0b"):
        with pytest.raises(InputError, match="no such text encoding"):
            parse_document(b"Words", "a.txt", DocumentOptions(encoding=name))
    with pytest.raises(InputError, match="not utf-16"):
        parse_document("\ufeffWords".encode("utf-16-le")[:-1], "a.txt")
    cut = parse_document("Déjà vu é".encode()[:-1], "a.txt")
    assert (cut.text, cut.notes) == ("Déjà vu", ("cut in the middle of a character: 1 byte at the end left out",))
    lied = parse_document(b"<meta charset=ascii><p>caf\xe9 na\xefve d\xe9j\xe0 vu", "a.html")
    assert lied.notes == ("read as cp1252 (detected), not UTF-8 although it declares ascii",)


@pytest.mark.parametrize(
    "options", [{"markup": "no"}, {"roles": "keep"}, {"kind": "docx"}, {"limit_mb": 0}, {"limit_mb": float("nan")}]
)
def test_options_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        DocumentOptions(**options)


#: Text that makes careless patterns try every end for every beginning.
HOSTILE = {
    "rst": (":a:", ":a:`", "`a <", "*a ", "[a", "..\n ", ".. a::\n"),
    "markdown": ("[", "[x](", "`a``b```c", "**a _b", "<a ", "![", "<!--", "> "),
    "html": ("<", "<a", '<a b="', "<!--", "<title>", "<div>", "&a"),
    "man": ('.B "', "\\f", ".if n \\{\n", "a(", ".TS\n"),
    "pod": ("C<", "C<< ", "L<a|", "> "),
    "wiki": ("{{", "[[", "<ref>", "<!--", "'' ", "[http://a b ", "{|\n"),
}


@pytest.mark.parametrize(("kind", "piece"), [(kind, piece) for kind, pieces in HOSTILE.items() for piece in pieces])
def test_time_grows_with_the_length_only(kind: str, piece: str) -> None:
    head = {"man": ".TH a 1\n", "pod": "=head1 a\n\n"}.get(kind, "x ")
    content = (head + piece * (200_000 // len(piece))).encode()
    start = time.process_time()
    for roles in ("text", "drop"):
        with contextlib.suppress(InputError):
            parse_document(content, "x", DocumentOptions(kind=kind, roles=roles))  # type: ignore[arg-type]
    assert time.process_time() - start < 2.5  # quadratic time needs minutes; linear 0.4 s at most


def test_five_megabytes_of_brackets_end_in_seconds() -> None:
    start = time.process_time()
    parse_document(b"x " + b"[x](y" * 1_000_000, "a.md")
    assert time.process_time() - start < 10  # about 2 s on a free core


def _damaged(content: bytes, number: int) -> bytes:
    """The content cut, with flipped bits, with noise, or with a piece twice."""
    dice = random.Random(number)
    place = dice.randrange(len(content))
    damaged = bytearray(content)
    if number % 4 == 0:
        return content[:place]
    if number % 4 == 1:
        for _ in range(1 + len(content) // 100):
            damaged[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    elif number % 4 == 2:
        damaged[place : place + 20] = dice.randbytes(20)
    else:
        damaged[place:place] = damaged[dice.randrange(len(content)) :]
    return bytes(damaged)


@pytest.mark.parametrize("kind", ["rst", "markdown", "html", "man", "pod", "wiki", "pdf", "gz"])
def test_a_hundred_damaged_files(kind: str) -> None:
    content = {"pdf": SAMPLES.make_pdf("First.", "Second."), "gz": gzip.compress(SAMPLES.MAN.encode())}.get(
        kind, getattr(SAMPLES, kind.upper(), "").encode()
    )
    read = refused = 0
    for number in range(100):
        start = time.process_time()
        try:
            found = parse_document(_damaged(content, number), f"a.{kind}")
        except InputError:
            refused += 1
        else:
            assert found.text.strip()
            assert "\0" not in found.text
            found.text.encode("utf-8")  # no halves of characters
            read += 1
        assert time.process_time() - start < 5
    assert read + refused == 100
    assert read >= (0 if kind == "gz" else 10)


def _endless() -> None:
    with deadline(0.3):
        while True:
            pass


def test_the_deadline_ends_endless_work_and_leaves_no_trace() -> None:
    start = time.process_time()
    with pytest.raises(OutOfTime):
        _endless()
    assert time.process_time() - start < 3
    with deadline(0.2):
        time.sleep(0.4)  # waiting is no work
    assert sum(range(1000)) == 499_500
