"""Bytes of a document as text: every byte is understood or the document is refused, and a guess is called a guess."""

from __future__ import annotations

import codecs
import re

from pipelines.data.errors import InputError
from pipelines.data.formats.document_parsed import counted

__all__ = ["decoded", "seems_utf16", "without_controls"]

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE = 1 << 14
#: Codecs of two-byte characters: a text with a few lone foreign bytes is none of them, though they would take it.
_DENSE = ("big5", "big5hkscs", "cp932", "cp949", "cp950", "euc_jis_2004", "euc_jisx0213", "euc_jp", "euc_kr", "gb18030")
_DENSE += (
    "gb2312",
    "gbk",
    "johab",
    "shift_jis",
    "shift_jis_2004",
    "shift_jisx0213",
    "utf_16",
    "utf_16_be",
    "utf_16_le",
)
#: Bytes of these are ASCII letters between escapes, so that they pass for UTF-8 and must be believed when declared.
_ESCAPED = ("iso2022", "hz", "utf_7")
#: Codecs of DOS, old Macintosh and mainframe machines: hardly any file is in them, though they fit nearly all bytes.
_OLD = re.compile(r"cp(0|1[01]|[1-8]\d\d$)(?<!cp866)(?<!cp874)|mac_|hp_")
_NULLS = re.compile("\x00")
_CONTROLS = re.compile("[\x01-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")


def decoded(data: bytes, name: str, encoding: str, notes: list[str], declared: str = "") -> str:
    """The text of a file with line ends as "\\n" and without null and control characters, which are counted.

    Args:
        data: the file's content.
        name: for messages.
        encoding: a codec's name, in which every byte must be right; or `auto`: the byte order mark, UTF-8, UTF-16
            without a mark, what the markup declares, then what charset-normalizer detects.
        notes: gets what was found.
        declared: the encoding that the markup names.

    Raises:
        InputError: no such codec, bytes that are wrong in it, damaged UTF-8, or no encoding that fits.

    Complexity: O(bytes); detection looks at 32 KiB.

    Example:
        >>> notes: list[str] = []
        >>> decoded("na\\u00efve caf\\u00e9".encode("cp1252"), "a.txt", "auto", notes), notes
        ('naïve café', ['read as cp1252 (detected), not UTF-8'])
    """
    text = _automatic(data, name, notes, declared) if encoding == "auto" else _strict(data, name, encoding)
    return without_controls(text.replace("\r\n", "\n").replace("\r", "\n"), notes)


def without_controls(text: str, notes: list[str]) -> str:
    """Take out null and control characters; tabs, line ends and page breaks stay.

    Example:
        >>> notes: list[str] = []
        >>> without_controls("a\\0b\\x07", notes), notes
        ('ab', ['1 null character removed', '1 control character removed'])
    """
    for pattern, what in ((_NULLS, "null character"), (_CONTROLS, "control character")):
        text, count = pattern.subn("", text)
        if count:
            notes.append(f"{counted(count, what)} removed")
    return text


def seems_utf16(data: bytes) -> str:
    """The byte order of UTF-16 that lacks its mark, by where the null bytes are; "" where it is none.

    Example:
        >>> seems_utf16("plain words".encode("utf-16-le"))
        'utf-16-le'
    """
    head = data[:_SAMPLE]
    even, odd = head[0::2].count(0), head[1::2].count(0)
    half = len(head) // 2
    if half < 2 or max(even, odd) < 0.4 * half or min(even, odd) > 0.02 * half:
        return ""
    return "utf-16-le" if odd > even else "utf-16-be"


def _strict(data: bytes, name: str, encoding: str) -> str:
    try:
        known = codecs.lookup(encoding).name
        text = data.decode("utf-8-sig" if known == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        found = f"{data[error.start : error.start + 1]!r} at byte {error.start:,}"
        cure = "name its encoding, or `auto`"
        raise InputError(f"not {encoding}", where=name, found=found, cure=cure) from error
    except (LookupError, UnicodeError, ValueError, TypeError) as error:
        expected = "auto, utf-8, cp1252, latin-1, utf-16, shift_jis and others that Python knows"
        raise InputError("no such text encoding", where="encoding", found=encoding, expected=expected) from error
    return text.removeprefix("\ufeff")


def _automatic(data: bytes, name: str, notes: list[str], declared: str) -> str:
    for mark, codec in _MARKS:
        if data.startswith(mark):
            if codec != "utf-8-sig":
                notes.append(f"read as {codec.upper()}, as its byte order mark says")
            return _strict(data, name, codec)
    wide = seems_utf16(data)
    if wide:
        text = _try(data, wide)
        if text is not None:
            notes.append(f"read as {wide.upper()}, without a byte order mark")
            return text
    if declared and _codec(declared).startswith(_ESCAPED) and (text := _try(data, declared)) is not None:
        notes.append(f"read as {declared}, as the document declares")
        return text
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        return _other(data, name, notes, declared, error)


def _other(data: bytes, name: str, notes: list[str], declared: str, error: UnicodeDecodeError) -> str:
    """What is not UTF-8: cut or damaged UTF-8, the declared encoding, or a detected one."""
    if error.reason == "unexpected end of data" and _foreign_before(data, error.start):
        left = len(data) - error.start
        notes.append(f"cut in the middle of a character: {counted(left, 'byte')} at the end left out")
        return data[: error.start].decode("utf-8")
    if declared and (text := _try(data, declared)) is not None:
        notes.append(f"read as {declared}, as the document declares")
        return text
    good, bad = _sequences(data)
    if good >= 10 * bad:
        found = f"{counted(bad, 'wrong byte')} beside {counted(good, 'right character')}, the first at {error.start:,}"
        cure = "copy the file again, or name its encoding"
        raise InputError("damaged UTF-8", where=name, found=found, cure=cure)
    codec, text = _detected(data, error.start, name)
    said = f" although it declares {declared}" if declared else ""
    notes.append(f"read as {codec} (detected), not UTF-8{said}")
    return text


def _foreign_before(data: bytes, end: int) -> bool:
    return not data[:end].isascii()


def _sequences(data: bytes) -> tuple[int, int]:
    """How many characters beyond ASCII are right UTF-8, and how many bytes are not."""
    text = data.decode("utf-8", "surrogateescape")
    bad = len(re.findall("[\udc80-\udcff]", text))
    return len(re.findall("[^\x00-\x7f]", text)) - bad, bad


def _codec(name: str) -> str:
    try:
        return codecs.lookup(name).name.replace("-", "_")
    except (LookupError, ValueError):  # a null character in the name
        return ""


def _try(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except (UnicodeError, LookupError, ValueError, TypeError):
        return None


def _detected(data: bytes, first: int, name: str) -> tuple[str, str]:
    """The likeliest encoding in which every byte is right, by the beginning and what is around the first wrong byte."""
    import charset_normalizer

    sample = data[:_SAMPLE] + (data[first - 64 : first + _SAMPLE] if first >= _SAMPLE else b"")
    # A few foreign bytes prove little; they are Windows-1252 more often than all that fits them as well or better.
    sparse = sum(byte > 127 for byte in sample) * 50 < len(sample)
    found = list(charset_normalizer.from_bytes(sample, cp_exclusion=list(_DENSE) if sparse else None))
    matches = [match for match in found if not _OLD.match(match.encoding)] or found
    slack = 0.05 if sparse else 0.0
    equal = [
        m
        for m in matches
        if m.chaos <= matches[0].chaos + slack and (sparse or m.coherence >= matches[0].coherence - 0.05)
    ]
    western = any("cp1252" in (match.encoding, *match.could_be_from_charset) for match in equal)
    for codec in (*(["cp1252"] if western else []), *(match.encoding for match in matches), "cp1252", "latin-1"):
        text = _try(data, codec)
        if text is not None:
            return codec, text
    raise InputError("no text encoding fits", where=name, cure="name its encoding")
