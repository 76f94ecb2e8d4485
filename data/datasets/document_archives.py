"""Documents out of archives and Wikipedia dumps, one after the other; nothing is unpacked to the disk."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import posixpath
import stat
import tarfile
import xml.etree.ElementTree as ElementTree
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from pipelines.data.datasets.document_folders import left_out
from pipelines.data.datasets.document_stream import DocumentStream, Item
from pipelines.data.errors import InputError

__all__ = ["DAMAGED", "dump_items", "opened", "peek", "tar_items", "zip_items"]

_BLOCK = 512  # of a tar: headers, padding and the marks at its end
_CHUNK = 1 << 18
_MAX_HEADER = 1 << 24  # no honest name or attribute list of a tar is longer
_HEAD = 1 << 12
#: What damaged files make the readers raise.
DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    ElementTree.ParseError,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
)
_LINKS = "links inside point at other documents and are read as their other names"


def opened(path: Path) -> BinaryIO:
    """A file, decompressed where its first bytes are those of gzip, bzip2 or xz."""
    with path.open("rb") as file:
        magic = file.read(6)
    if magic[:2] == b"\x1f\x8b":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if magic[:3] == b"BZh":
        return cast(BinaryIO, bz2.open(path, "rb"))
    return cast(BinaryIO, lzma.open(path, "rb")) if magic == b"\xfd7zXZ\x00" else path.open("rb")


def peek(path: Path) -> bytes:
    """The first bytes of what a possibly compressed file holds; empty where it is damaged from the start on."""
    try:
        with opened(path) as file:
            return file.read(_HEAD)
    except DAMAGED:
        return b""


class _Watched:
    """What tarfile needs of a file; remembers the last read and refuses those that only an absurd header asks for."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream, self._limit = stream, max(limit, _MAX_HEADER)
        self.last = b""

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self._limit:
            raise ValueError(f"a header asks for {size:,} bytes")
        self.last = self._stream.read(size)
        return self.last

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def tar_items(path: Path, stream: DocumentStream) -> Iterator[Item]:
    """The members of a tar in its order; links become other names.

    A cut or damaged archive gives what stands before the damage, and a failure under the archive's name.
    """
    with _damage_noted(path, stream), opened(path) as file:
        watched = _Watched(file, stream.limit)
        with tarfile.open(fileobj=cast(IO[bytes], watched), mode="r:") as archive:
            for member in archive:
                cast(Any, archive).members = []  # tarfile would keep every header
                yield from _tar_member(archive, member, stream)
            # tarfile ends silently at a damaged or cut header: only a block of zeros is the real end.
            if watched.last != bytes(_BLOCK):
                stream.fail(path.name, "the archive is cut or damaged: what comes after is not read")
            while file.read(_CHUNK):  # the checksum of the compressed stream stands at its end
                pass


def _tar_member(archive: tarfile.TarFile, member: tarfile.TarInfo, stream: DocumentStream) -> Iterator[Item]:
    name = _plain(member.name)
    if member.issym() or member.islnk():
        base = posixpath.dirname(name) if member.issym() else ""
        stream.aliases[name] = _plain(posixpath.join(base, member.linkname))
        stream.count(_LINKS)
    elif member.isreg():
        why = left_out(name)
        if why:
            stream.count(why)
        elif member.size > stream.limit:
            yield Item(name, _too_large(name, member.size, stream.limit))
        else:
            content = archive.extractfile(member)
            data = content.read() if content is not None else b""
            if len(data) != member.size:
                raise EOFError(f"{name} ends after {len(data):,} of {member.size:,} bytes")
            yield Item(name, data)
    elif not member.isdir():
        stream.count("devices and special files inside left out")


def zip_items(path: Path, stream: DocumentStream) -> Iterator[Item]:
    """The members of a zip in its order."""
    with _damage_noted(path, stream), zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = _plain(member.filename)
            why = None if member.is_dir() else left_out(name)
            if member.is_dir() or why:
                if why:
                    stream.count(why)
                continue
            yield Item(name, _zip_member(archive, member, name, stream))


def _zip_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, stream: DocumentStream
) -> bytes | InputError:
    if member.flag_bits & 1:
        return InputError("it is encrypted", where=name, cure="unpack it with its password and give the files")
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
        return InputError("it is a link or a special file", where=name)
    if member.file_size > stream.limit:
        return _too_large(name, member.file_size, stream.limit)
    try:
        with archive.open(member) as content:
            data = content.read(stream.limit + 1)
    except (*DAMAGED, NotImplementedError) as error:
        return InputError("it is damaged", where=name, found=error)
    return data if len(data) <= stream.limit else _too_large(name, len(data), stream.limit)


def dump_items(path: Path, stream: DocumentStream) -> Iterator[Item]:
    """The articles of a MediaWiki dump (XML, perhaps compressed), one page in memory at a time.

    Redirects become other names; pages of other namespaces (talk, users, templates) are counted and left out.
    """
    parser = ElementTree.XMLPullParser(("start", "end"))
    with _damage_noted(path, stream), opened(path) as file:
        root: ElementTree.Element | None = None
        held = 0
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            held += len(chunk)
            parser.feed(chunk)
            for event, element in cast(Iterable[tuple[str, ElementTree.Element]], parser.read_events()):
                root = element if root is None else root
                if event == "end" and _tag(element) == "page":
                    yield from _page(element, stream)
                    root.clear()
                    held = 0
            if held > 2 * stream.limit + 2 * _CHUNK:
                stream.fail(path.name, f"a page is larger than {stream.limit:,} bytes; what comes after is not read")
                return
        parser.close()  # raises where elements were left open


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]  # the name space of the version put aside


def _page(page: ElementTree.Element, stream: DocumentStream) -> Iterator[Item]:
    found = {_tag(element): element for element in page.iter()}
    title = (found["title"].text or "") if "title" in found else ""
    text = (found["text"].text or "") if "text" in found else ""
    if "ns" in found and (found["ns"].text or "0").strip() != "0":
        stream.count("pages of other namespaces left out")
    elif "redirect" in found or text.lstrip()[:9].lower() == "#redirect":
        named = found["redirect"].get("title") if "redirect" in found else None
        stream.aliases[title] = named or text.partition("[[")[2].partition("]]")[0].partition("#")[0]
        stream.count("redirects left out")
    elif not title:
        stream.count("pages without a title left out")
    else:
        yield Item(title, text.encode("utf-8"), "wiki", title)


@contextlib.contextmanager
def _damage_noted(path: Path, stream: DocumentStream) -> Iterator[None]:
    """Damage becomes a failure under the archive's name: what was read before it has been given already."""
    try:
        yield
    except InputError as error:
        stream.fail(path.name, error)
    except DAMAGED as error:
        stream.fail(path.name, f"damaged or cut: {error}; what comes after is not read")


def _plain(name: str) -> str:
    """A member's name without `./`; a name that leads outside stays as it is, since nothing is written."""
    return posixpath.normpath(name).lstrip("/") if name else name


def _too_large(name: str, size: int, limit: int) -> InputError:
    cure = "raise limit_mb if the file is honest"
    return InputError("it is too large", where=name, found=f"{size:,} bytes", expected=f"at most {limit:,}", cure=cure)
