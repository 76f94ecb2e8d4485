"""Documents of every kind become text: what is shown, what is linked to, what is left out and counted."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pathlib
import posixpath
import re
import tarfile
import time

import pytest

from pipelines.data.formats.document import (
    DOCUMENT_ENDINGS,
    KINDS,
    Document,
    DocumentOptions,
    document_ending,
    document_kind,
    parse_document,
    read_document,
)

DATA = pathlib.Path(os.environ.get("PIPELINES_DATA", pathlib.Path(__file__).resolve().parents[2] / "../shared/data"))
DOCS = DATA / "embeddable/documents"
DROP = DocumentOptions(roles="drop")
KEEP = DocumentOptions(markup="keep")
PLAIN = DocumentOptions()


def parsed(kind: str, source: str, options: DocumentOptions = PLAIN) -> Document:
    """A document of a kind from its source."""
    return parse_document(source.encode(), "x", DocumentOptions(options.markup, options.roles, kind=kind))


RST = """\
:mod:`json` --- Encoder
=======================

.. module:: json
   :synopsis: Encode.
.. a comment of :mod:`nobody`
   on two lines

See :class:`~collections.OrderedDict`, :func:`os.fork`, :mod:`pickled <pickle>`,
:ref:`the
tutorial <tut-json>` and :mod:`!hidden`; `site <https://a.org/x>`_, **bold** *it* ``*raw*``, :file:`a.py`.

.. versionchanged:: 3.2
   Takes *args*.

.. function:: dump(obj, *args, **kw)
              dumps(obj)

   Write __init__ and |name|::

      literal :x: *here*

   after. [1]_

.. |name| replace:: the name

* one
* two

====  ====
a     b
====  ====
1     2
====  ====

.. code-block:: python

   print("*x*")

.. [1] A note.
.. _tut: https://b.org/
"""


def test_rst_shows_what_a_reader_sees() -> None:
    found = parsed("rst", RST)
    lines = found.text.split("\n")
    assert found.title == "json --- Encoder" == lines[0]
    assert "See OrderedDict, os.fork(), pickled," in lines
    assert "the\ntutorial and hidden; site, bold it *raw*, a.py." in found.text
    assert "Changed in version 3.2" in lines
    assert "Takes args." in lines
    assert "dump(obj, *args, **kw)\ndumps(obj)" in found.text
    assert "Write __init__ and the name:\n\nliteral :x: *here*\n\nafter." in found.text
    assert "one\ntwo\n\na     b\n1     2\n" in found.text
    assert 'print("*x*")' in lines
    assert "A note." in lines
    assert not re.search(r"nobody|synopsis|====|replace::|code-block|_tut|Encode\.", found.text)
    assert found.notes == ("1 comment left out", "1 directive without readable text left out")


def test_rst_links_are_roles_with_targets() -> None:
    assert parsed("rst", RST).links == (
        "mod:json", "mod:nobody", "class:collections.OrderedDict", "func:os.fork", "mod:pickle", "ref:tut-json",
        "url:https://a.org/x", "url:https://b.org/",
    )  # fmt: skip
    source = ".. toctree::\n   :maxdepth: 2\n\n   intro\n   Named <b/c>\n\n"
    source += ":py:mod:`re` :c:func:`Py_X` :doc:`../a` :doc:`t </b>`"
    assert parsed("rst", source).links == (
        "toctree:intro",
        "toctree:b/c",
        "mod:re",
        "c:func:Py_X",
        "doc:../a",
        "doc:/b",
    )


def test_dropping_takes_the_names_that_links_give_away() -> None:
    found = parsed("rst", RST, DROP)
    assert not re.search(r"OrderedDict|fork|pickle|tutorial|hidden|site", found.text)
    assert "a.py" in found.text
    assert "bold it" in found.text
    assert found.links == parsed("rst", RST).links
    assert found.notes[0] == "8 references dropped"
    kept = parsed("rst", RST, DocumentOptions("keep", "drop"))
    assert ".. module:: json" in kept.text
    assert "OrderedDict" not in kept.text
    assert parsed("rst", RST, KEEP).text == RST


MARKDOWN = """\
---
title: "Named"
---
# Head *one* #

Text with [a `code` link](b.md "t"), ![picture](p.png), [ref][R], [short], <https://auto.org/> and
**bold _both_** snake_case_name 2*3*4 \\*not\\* `a *b* [c](d)` &amp; <b>tag</b>.

Second
------

> quoted
> - [x] item

| A | B |
|---|:-:|
| 1 | [t](u.md) |

```python
x = [1](2)  # *kept*
```
<!-- hidden [z](z.md) -->
[r]: ref.md
[short]: s.md "title"
"""


def test_markdown() -> None:
    found = parsed("markdown", MARKDOWN)
    assert (found.title, found.links) == ("Named", ("b.md", "ref.md", "s.md", "https://auto.org/", "u.md"))
    assert found.notes == ("data at the beginning of the file left out",)
    assert found.text.startswith("Head one\n\nText with a code link, picture, ref, short, https://auto.org/ and\n")
    assert "bold both snake_case_name 2*3*4 *not* a *b* [c](d) & tag." in found.text
    assert "Second\n\nquoted\nitem\n\nA  B\n1  t\n\nx = [1](2)  # *kept*" in found.text
    assert not re.search(r"hidden|ref\.md|---|```", found.text)
    assert parsed("markdown", MARKDOWN.partition("---\n")[2].partition("---\n")[2]).title == "Head one"
    dropped = parsed("markdown", MARKDOWN, DROP)
    assert not re.search(r"code link|short|auto|\bref\b", dropped.text)
    assert dropped.links == found.links
    assert "[c](d)" in dropped.text
    assert dropped.notes[-1] == "5 references dropped"
    kept = parsed("markdown", MARKDOWN, DocumentOptions("keep", "drop")).text
    assert "```python\nx = [1](2)" in kept
    assert "![picture](p.png)" in kept
    assert "b.md" not in kept


HTML = """<!DOCTYPE html><html><head><title>The &lt;page&gt;</title><style>p {a: b}</style>
<script>if (a < b) { document.write("<p>no</p>") }</script></head>
<body><!-- <a href=no.html>no</a> --><h1>Head</h1><p>One   <b>bold</b>
line, <a class="x" href='b.html?a=1&amp;b=2'>linked <i>text</i></a>, a < b, <a href="#here">here</a>,
<a href="javascript:x()">js</a>.<br>Next&nbsp;&eacute;.<table><tr><td>1<td>2</tr></table>
<pre>  keep
    this</pre><a href=c.html>never closed</body></html>"""


def test_html() -> None:
    found = parsed("html", HTML)
    assert (found.title, found.links) == ("The <page>", ("b.html?a=1&b=2", "c.html"))
    assert found.text == (
        "Head\n\nOne bold line, linked text, a < b, here, js.\nNext é.\n\n  1  2\n\n  keep\n    this\n\nnever closed"
    )
    assert found.notes == ("2 scripts, styles or drawings left out",)
    dropped = parsed("html", HTML, DROP)
    assert "linked" not in dropped.text
    assert "never closed" in dropped.text
    assert dropped.links == found.links
    assert parsed("html", HTML, DocumentOptions("keep", "drop")).text == re.sub("<a class.*?</a>", "", HTML, flags=re.S)


MAN = r"""'\" t
.\" Copyright nobody
.de XX
macro
..
.TH PRINTF 3 2020-01-01
.SH NAME
printf \- print \(lqtext\(rq
.SH SYNOPSIS
.nf
.BI "int printf(const char *" format ", ...);"
.fi
.SH DESCRIPTION
Uses \fBstdout\fP in step (2); see
.BR write (2)
and \[u20AC] \e \*(lqx\*(rq. \" no comment
.TP
.B \-x
An option.
.TS
allbox;
l l.
a	b
_
c	d
.TE
.SH "SEE ALSO"
.BR scanf (3),
.BR printf (1)
.SH NOTES
End.
"""


def test_manual_pages() -> None:
    found = parsed("man", MAN)
    assert (found.title, found.links) == ("PRINTF(3)", ("scanf(3)", "printf(1)"))
    assert "printf - print “text”" in found.text
    assert "int printf(const char *format, ...);" in found.text
    assert "Uses stdout in step (2); see\nwrite(2)\nand € \\ “x”." in found.text
    assert "-x\nAn option." in found.text
    assert "a  b\nc  d" in found.text
    assert not re.search(r"Copyright|macro|no comment|allbox|l l", found.text)
    assert found.notes == ("1 macro definition left out",)
    dropped = parsed("man", MAN, DROP)
    assert not re.search(r"scanf|write|SEE ALSO", dropped.text)
    assert "step (2)" in dropped.text
    assert dropped.text.endswith("NOTES\n\nEnd.")
    assert dropped.links == found.links
    assert "SEE ALSO with 2 references dropped" in dropped.notes
    kept = parsed("man", MAN, DocumentOptions("keep", "drop")).text
    assert "scanf" not in kept
    assert kept.endswith(".SH NOTES\nEnd.\n")


def test_mdoc_pages() -> None:
    page = ".Dd May 1\n.Dt LS 1\n.Os\n.Sh NAME\n.Nm ls\n.Nd list\n.Sh DESCRIPTION\n.Op Fl a\nSee\n.Xr dir 1 .\n"
    found = parsed("man", page + ".Sh SEE ALSO\n.Xr stat 2 ,\n.Xr find 1\n")
    assert (found.title, found.links) == ("LS(1)", ("stat(2)", "find(1)"))
    assert "-a\nSee\ndir(1)." in found.text
    assert "Fl" not in found.text


POD = """\
code before

=encoding utf8

=head1 NAME

perlx - a B<bold C<< $a->b >>> thing

=head1 USE

See L<perlfunc>, L<the I<ops>|perlop/"Names">, L<perlre/Modifiers>, L</here>, L<http://a.org/> and L<Data::Dumper>.
E<lt>E<eacute>E<gt>X<index> S<one two>

    verbatim C<kept>

=over 4

=item * point

=back

=begin html

<b>no</b>

=end html

=for comment no

=cut

more code
"""


def test_pod() -> None:
    found = parsed("pod", POD)
    assert found.title == "perlx - a bold $a->b thing"
    assert found.links == ("perlfunc", "perlop", "perlre", "http://a.org/", "Data::Dumper")
    assert (
        'See perlfunc, the ops, "Modifiers" in perlre, "here", http://a.org/ and Data::Dumper.\n<é> one two'
        in found.text
    )
    assert "    verbatim C<kept>\n\npoint" in found.text
    assert "<b>" not in found.text
    assert "index" not in found.text
    assert found.notes == ("2 lines outside of the documentation left out", "2 blocks for other formats left out")
    dropped = parsed("pod", POD, DROP)
    assert "perlfunc" not in dropped.text
    assert "ops" not in dropped.text
    assert dropped.links == found.links
    kept = parsed("pod", POD, DocumentOptions("keep", "drop")).text
    assert "B<bold C<< $a->b >>>" in kept
    assert "L<" not in kept
    assert kept.startswith("code before\n\n=encoding")


WIKI = """{{Infobox|a={{b|[[Inside]]}}}}'''Bees''' are [[insect]]s<ref name="a/b">see [[Note page]]</ref><ref name=x/>
that make [[Honey bee#Food|''sweet'' honey]]. [[File:bee.jpg|thumb|A [[queen bee|queen]] &amp; co]]
== Head ==
{| class="x"
| [[Cell]] || 2
|}
* item [https://a.org the site] [[:Category:Bees]] [[de:Biene]]
<!-- [[hidden]] --><math>x</math>{{never closed
"""


def test_wiki() -> None:
    found = parsed("wiki", WIKI)
    assert found.links == ("Inside", "Insect", "Note page", "Honey bee", "Queen bee", "Cell")
    assert found.text == (
        "Bees are insects\nthat make sweet honey.\n\nHead\n\nitem the site Category:Bees\nx{{never closed"
    )
    assert found.notes == ("1 template left out", "1 table left out", "2 notes left out")
    dropped = parsed("wiki", WIKI, DROP)
    assert not re.search("insect|honey|site", dropped.text)
    assert dropped.links == found.links


def make_pdf(*pages: str, title: str = "", password: str = "") -> bytes:
    """A PDF of pages with a line of text each; an empty one has none."""
    from pypdf import PdfWriter
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer = PdfWriter()
    font = DictionaryObject(
        {NameObject(f"/{k}"): NameObject(f"/{v}") for k, v in (("Type", "Font"), ("Subtype", "Type1"))}
        | {NameObject("/BaseFont"): NameObject("/Helvetica")}
    )
    for text in pages:
        page = writer.add_blank_page(300, 300)
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
        )
        stream = DecodedStreamObject()
        stream.set_data(f"BT /F1 12 Tf 20 200 Td ({text}) Tj ET".encode() if text else b"0 0 9 9 re f")
        page[NameObject("/Contents")] = writer._add_object(stream)
    writer.add_metadata({"/Title": title})
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


def test_pdf_pages_are_joined_and_counted() -> None:
    found = parse_document(make_pdf("First page.", "", "Third.", title="Three"), "a.txt")
    assert (found.kind, found.title, found.text) == ("pdf", "Three", "First page.\n\nThird.")
    assert found.notes == ("the name says .txt, the content is PDF", "3 pages", "1 page without text")


@pytest.mark.parametrize(
    ("name", "head", "kind"),
    [
        ("a.rst.txt", b"x", "rst"),
        ("A.MD", b"x", "markdown"),
        ("README", b"words", "text"),
        ("a.txt", b"\n<!DOCTYPE HTML><html>", "html"),
        ("a.txt", b"=head1 NAME", "pod"),
        ("ls.1.gz", b".TH LS 1", "man"),
        ("notes.1", b"Some notes.", "text"),
        ("gid_t.3type", b".TH x 3", "man"),
        ("a.html", b"%PDF-1.4", "pdf"),
        ("a.md", b"<html>", "markdown"),
        ("page", b"'''A''' [[b]] [[c]] [[d]]", "wiki"),
    ],
)
def test_kinds(name: str, head: bytes, kind: str) -> None:
    assert document_kind(name, head) == kind


def test_endings() -> None:
    assert {document_ending(f"x{ending}") for ending in DOCUMENT_ENDINGS} == DOCUMENT_ENDINGS
    assert [document_ending(name) for name in ("a.png", ".md", "libx.so", "v1.22", "a.3pm.gz")] == [
        "",
        "",
        "",
        "",
        ".3",
    ]
    assert set(KINDS) >= {document_kind(f"x{ending}", b"") for ending in DOCUMENT_ENDINGS}


FRENCH = "Le cœur déçu mais l'âme plutôt naïve, Louÿs rêva de crapaüter."
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю. " * 4
JAPANESE = "これは日本語の文章です。文字コードを判定するための例文です。" * 3
FEW = "An English text with one café. " + "Plain words follow here, and more of them. " * 20


@pytest.mark.parametrize(
    ("text", "codec", "note"),
    [
        (FRENCH, "utf-8", None),
        (FRENCH, "utf-8-sig", None),
        (FRENCH, "utf-16", "read as UTF-16, as its byte order mark says"),
        (FRENCH, "utf-32", "read as UTF-32, as its byte order mark says"),
        ("Plain words.", "utf-16-le", "read as UTF-16-LE, without a byte order mark"),
        ("Plain words.", "utf-16-be", "read as UTF-16-BE, without a byte order mark"),
        (FRENCH, "cp1252", "read as cp1252 (detected), not UTF-8"),
        (FEW, "cp1252", "read as cp1252 (detected), not UTF-8"),
        (RUSSIAN, "cp1251", "read as cp1251 (detected), not UTF-8"),
        (RUSSIAN, "koi8-r", "read as koi8_r (detected), not UTF-8"),
        (JAPANESE, "shift_jis", "read as cp932 (detected), not UTF-8"),
    ],
)
def test_encodings(text: str, codec: str, note: str | None) -> None:
    found = parse_document(text.encode(codec), "a.txt")
    assert found.text == text.strip()
    assert found.notes == ((note,) if note else ())


def test_declared_encodings() -> None:
    page = "<meta charset=windows-1251><p>Ёлка"
    assert parse_document(page.encode("cp1251"), "a.html").text == "Ёлка"
    pod = "=encoding latin1\n\n=head1 é\n\né"
    assert parse_document(pod.encode("latin1"), "a.pod").notes == ("read as latin1, as the document declares",)
    assert parse_document("<html><meta charset=iso-2022-jp>日本".encode("iso2022_jp"), "a.html").text == "日本"


def test_named_encoding_and_line_ends() -> None:
    options = DocumentOptions(encoding="cp437")
    assert parse_document("é\r\nb\rc".encode("cp437"), "a.txt", options).text == "é\nb\nc"


@pytest.mark.parametrize(("pack", "ending"), [(gzip.compress, ".gz"), (bz2.compress, ".bz2"), (lzma.compress, ".xz")])
def test_packed(pack: object, ending: str, tmp_path: pathlib.Path) -> None:
    content = pack(MAN.encode())  # type: ignore[operator]
    (tmp_path / f"printf.3{ending}").write_bytes(content)
    found = read_document(tmp_path / f"printf.3{ending}")
    assert (found.name, found.title, found.kind) == (f"printf.3{ending}", "PRINTF(3)", "man")
    assert parse_document(content, "printf.3").notes[0].startswith("unpacked from ")


def test_reading_a_file_by_another_name(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.txt").write_text("Words.")
    assert read_document(tmp_path / "a.txt", name="folder/a.txt") == Document("folder/a.txt", "Words.")


@pytest.mark.skipif(not DOCS.is_dir(), reason="set PIPELINES_DATA to the folder with the data")
def test_the_python_documentation_has_its_edges_and_reads_in_seconds() -> None:
    with tarfile.open(DOCS / "python3.11_docs_rst.tar.xz") as archive:
        sources = {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}  # type: ignore[union-attr]
    start = time.process_time()
    docs = {name.removeprefix("_sources/"): parse_document(data, name) for name, data in sorted(sources.items())}
    assert len(docs) == 497
    assert time.process_time() - start < 15
    docs = {name.removesuffix(".rst.txt"): found for name, found in docs.items()}
    modules: dict[str, str] = {}
    for name in docs:
        for module in re.findall(r"(?m)^ *\.\. module:: (\S+)", sources[f"_sources/{name}.rst.txt"].decode()):
            modules.setdefault(module, name)
    by_module, by_document = set(), set()
    for name, found in docs.items():
        for link in found.links:
            role, _, target = link.partition(":")
            if role == "mod" and modules.get(target, name) != name:
                by_module.add((name, modules[target]))
            elif role == "doc":
                place = posixpath.normpath(posixpath.join("/", posixpath.dirname(name), target))[1:]
                by_document |= {(name, place)} if place in docs and place != name else set()
    assert (len(by_module), len(by_module | by_document)) == (1643, 1647)
    untitled = [name for name, found in docs.items() if not found.title]  # pieces that others include
    assert untitled == ["distutils/_setuptools_disclaimer", "includes/wasm-notavail"]
