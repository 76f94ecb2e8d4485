"""Text of a PDF: all pages joined, and a clear word where there is none to be had."""

from __future__ import annotations

import io
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipelines.data.errors import InputError
from pipelines.data.formats.document_deadline import OutOfTime, deadline
from pipelines.data.formats.document_decoding import without_controls
from pipelines.data.formats.document_parsed import Parsed, counted, one_line, tidy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pypdf import PdfReader

__all__ = ["parse_pdf"]

_SECONDS = 4.0  # to open a file, and for each page
_SECONDS_A_MEGABYTE = 1.0
_TOTAL_PAGES = 20_000
_CURE = "open it in a viewer and save it again, or give its text"


def parse_pdf(data: bytes, name: str, *, limit_mb: float = 64.0) -> Parsed:
    """Text of the pages, the title of the document's properties, and the addresses that its links point at.

    Args:
        data: the file.
        name: for messages.
        limit_mb: most text that may come out, 2**20 characters each.

    Returns:
        The text, pages separated by an empty line; a note says how many there were and how many had no text.

    Raises:
        InputError: encrypted; damaged; no pages; pages without text (pictures of a scan); more than the limit; more
            time than a sound file of its size needs.

    Complexity: O(bytes); opening and each page end after 4 s and 1 s a megabyte of computing.
    """
    seconds = _SECONDS + _SECONDS_A_MEGABYTE * len(data) / (1 << 20)
    with _heard() as heard, _explained(name):
        with deadline(seconds):
            reader, count = _opened(data, name)
            title = one_line(str((reader.metadata or {}).get("/Title") or ""))
        texts: list[str] = []
        links: list[str] = []
        size = 0
        for index in range(count):
            with deadline(seconds):
                page = reader.pages[index]
                texts.append(page.extract_text() or "")
                links += _addresses(page)
            size += len(texts[-1])
            if size > limit_mb * (1 << 20):
                found = f"more than {size:,} characters on {index + 1:,} of {count:,} pages"
                raise InputError("too much text", where=name, found=found, cure="raise limit_mb, or split the document")
    notes = [counted(count, "page"), *heard.notes()]
    empty = sum(not text.strip() for text in texts)
    if empty == count:
        found = f"{counted(count, 'page')} without text: pictures of text, perhaps"
        raise InputError("a PDF without text", where=name, found=found, cure="run character recognition on it first")
    if empty:
        notes.append(f"{counted(empty, 'page')} without text")
    text = without_controls("\n\n".join(text for text in texts if text.strip()), notes)
    broken = text.encode("utf-8", "ignore").decode("utf-8")  # halves of characters, of damaged fonts
    if len(broken) != len(text):
        notes.append(f"{counted(len(text) - len(broken), 'damaged character')} removed")
    return Parsed(tidy(broken), title, links, notes)


def _opened(data: bytes, name: str) -> tuple[PdfReader, int]:
    from pypdf import PdfReader

    reader = PdfReader(io.BytesIO(data), strict=False)
    if reader.is_encrypted and not reader.decrypt(""):
        raise InputError("the PDF is encrypted", where=name, cure="save a copy without a password")
    count = len(reader.pages)
    if not count:
        raise InputError("a PDF without pages", where=name, cure=_CURE)
    if count > _TOTAL_PAGES:
        expected = f"{_TOTAL_PAGES:,} at most"
        raise InputError("too many pages", where=name, found=f"{count:,}", expected=expected, cure="split the document")
    return reader, count


def _addresses(page: Any) -> list[str]:
    """Addresses of a page's links; a damaged list of them has none."""
    found: list[str] = []
    for entry in page.get("/Annots") or ():
        note = entry.get_object()
        action = note.get("/A") if hasattr(note, "get") else None
        address = action.get_object().get("/URI") if action is not None else None
        if isinstance(address, str):
            found.append(address)
    return found


class _Heard(logging.Handler):
    """Gathers what pypdf logs of faults that it passes over; its own words go no further."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """One fault."""
        self.messages.append(one_line(record.getMessage()))

    def notes(self) -> list[str]:
        """How many faults there were, with the first."""
        if not self.messages:
            return []
        first = self.messages[0][:100]
        return [f"{counted(len(self.messages), 'fault')} in the PDF passed over, text may be missing: {first}"]


@contextmanager
def _heard() -> Iterator[_Heard]:
    logger, handler = logging.getLogger("pypdf"), _Heard()
    upwards = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.propagate = upwards


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Whatever a damaged file makes pypdf raise, as one message: its kinds of errors are many and not documented."""
    try:
        yield
    except InputError:
        raise
    except OutOfTime:
        problem = "reading takes longer than a sound PDF of its size needs"
        raise InputError(problem, where=name, found="damaged or made to be slow", cure=_CURE) from None
    except ImportError as error:
        cure = "save a copy without a password, or pip install cryptography"
        raise InputError("the PDF is encrypted", where=name, found=one_line(str(error))[:120], cure=cure) from error
    except Exception as error:
        kind = type(error).__name__
        if "Decrypt" in kind or "Password" in kind or "DependencyError" in kind:
            raise InputError("the PDF is encrypted", where=name, cure="save a copy without a password") from error
        found = f"{kind}: {one_line(str(error))[:120]}".rstrip(": ")
        raise InputError("a damaged PDF", where=name, found=found, cure=_CURE) from error
