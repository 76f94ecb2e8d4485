"""Carve the embedded documents: the sources of Python's documentation as one archive, and the links between them.

    python tools/make_document_samples.py DOCS.tar.xz|FOLDER COPYRIGHT

DOCS.tar.xz or FOLDER hold `_sources/**/*.rst.txt` of Debian's python3.11-doc, COPYRIGHT is that package's file of this
name. Documents keep every byte; the archive is the same on every machine with the same liblzma. A link is a reference
by :mod: to a module that a document declares (`.. module::`, not marked :noindex:), or by :doc: to a document; links
of a document to itself and repetitions are left out, direction is kept.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import pathlib
import posixpath
import re
import sys
import tarfile
from collections import Counter

FOLDER = pathlib.Path(__file__).parents[1] / "data" / "samples" / "documents"
#: Larger windows and other contexts were tried: the archive as a whole fits into 16 MiB, and text has no alignment.
FILTERS = [
    {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 16 << 20, "lc": 4, "lp": 0, "pb": 0}
]
_MODULE = re.compile(r"^[ \t]*\.\. module::[ \t]*(\S+)[ \t]*\n((?:[ \t]+\S.*\n)*)", re.MULTILINE)
_REFERENCE = re.compile(r":(mod|doc):`([^`]+)`")
_EXPLICIT = re.compile(r".*<([^>]+)>$", re.DOTALL)
_MARK = "_sources/"


def main(source: str, copyright_file: str) -> None:
    """Write the archive, the links and the licence into the folder of samples."""
    documents = _documents(pathlib.Path(source))
    links, counts = _links({name: content.decode() for name, content in documents.items()})
    FOLDER.mkdir(parents=True, exist_ok=True)
    archive = lzma.compress(_tar(documents), format=lzma.FORMAT_XZ, check=lzma.CHECK_SHA256, filters=FILTERS)
    (FOLDER / "python_docs.tar.xz").write_bytes(archive)
    table = "".join(f"{left}\t{right}\n" for left, right in [("from", "to"), *links])
    (FOLDER / "python_docs_links.tsv").write_text(table, encoding="utf-8")
    (FOLDER / "LICENSE-python_docs.txt").write_bytes(pathlib.Path(copyright_file).read_bytes())
    pairs = len({tuple(sorted(link)) for link in links})
    told = f"{len(documents)} documents, {len(archive):,} bytes, SHA-256 {hashlib.sha256(archive).hexdigest()}\n"
    sys.stdout.write(f"{told}{len(links)} links ({dict(counts)}), {pairs} linked pairs\n")


def _documents(source: pathlib.Path) -> dict[str, bytes]:
    """Name (`library/json.rst`) -> content, sorted by name."""
    found: dict[str, bytes] = {}
    if source.is_dir():
        found = {str(path.relative_to(source).as_posix()): path.read_bytes() for path in source.rglob("*.rst.txt")}
    else:
        with tarfile.open(source) as archive:
            for member in archive:
                if member.isreg() and member.name.endswith(".rst.txt"):
                    stream = archive.extractfile(member)
                    found[member.name] = stream.read() if stream else b""
    named = {name.rpartition(_MARK)[2].removesuffix(".txt"): content for name, content in found.items()}
    return dict(sorted(named.items()))


def _tar(documents: dict[str, bytes]) -> bytes:
    """Headers without times, owners or anything else that differs from run to run."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in documents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _links(texts: dict[str, str]) -> tuple[list[tuple[str, str]], Counter[str]]:
    modules: dict[str, str] = {}
    for name, text in texts.items():
        for match in _MODULE.finditer(text):
            if ":noindex:" not in match[2]:
                modules.setdefault(match[1], name)
    links: dict[tuple[str, str], str] = {}
    for name, text in texts.items():
        for role, inside in _REFERENCE.findall(text):
            explicit = _EXPLICIT.match(inside)
            target = (explicit[1] if explicit else inside).strip().removeprefix("~")
            if inside.startswith("!"):  # names a module without a link to it
                continue
            if role == "doc":
                place = posixpath.normpath(posixpath.join("/", posixpath.dirname(name), target)).lstrip("/") + ".rst"
                other = place if place in texts else None
            else:
                other = modules.get(target)
            if other is not None and other != name:
                links.setdefault((name, other), role)
    return sorted(links), Counter(links.values())


if __name__ == "__main__":
    main(*sys.argv[1:])
