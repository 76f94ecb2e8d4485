"""Bytes as text: the encodings that people's files have, and what is no text at all."""

from __future__ import annotations

import re

from pipelines.data.errors import InputError

__all__ = ["decoded"]


def decoded(content: bytes, name: str, notes: list[str], *, problem: str, expected: str) -> str:
    """The text of a file: UTF-8 (with or without a mark), UTF-16 with a mark, else Latin-1, which a note then says.

    Raises:
        InputError: control characters, which no text has; ``problem`` and ``expected`` go into the message.

    Example:
        >>> decoded("caf\u00e9".encode("latin-1"), "a.csv", [], problem="not a text table", expected="CSV")
        'caf\u00e9'
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings: tuple[str, ...] = ("utf-16",)
    else:
        encodings = ("utf-8-sig", "latin-1")
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        control = re.search(r"[\x00-\x08\x0e-\x1f\x7f]", text)
        if control:
            line = text.count("\n", 0, control.start()) + 1
            raise InputError(
                problem,
                where=name,
                found=f"the control character {control.group()!r} in line {line}",
                expected=expected,
                cure="check what kind of file this is, or copy it again",
            )
        if encoding == "latin-1":
            notes.append("not UTF-8: read as Latin-1")
        return text
    raise InputError(problem, where=name, found="damaged UTF-16", expected=expected)
