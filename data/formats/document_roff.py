"""The escapes and arguments of roff (groff(7), groff_char(7)), as far as manual pages use them."""

from __future__ import annotations

import re

from pipelines.data.formats.document_parsed import words

__all__ = ["CALLABLE", "arguments", "unescaped"]

#: Macros of mdoc(7) that may stand among the words of a line.
CALLABLE = words(
    "Ac Ad An Ao Ap Aq Ar At Bc Bo Bq Brc Bro Brq Bsx Bx Cd Cm Dc Do Dq Dv Dx Ec Em En Eo Er Es Ev Fa Fc Fl Fn "
    "Fo Ft Fx Ic In Li Lk Ms Mt Nd Nm No Ns Nx Oc Oo Op Os Ox Pa Pc Pf Po Pq Qc Ql Qo Qq Sc Sm So Sq Sx Sy Ta "
    "Tn Ux Va Vt Xc Xo Xr"
)
_ESCAPE = re.compile(
    r"\\(?:"
    r'(?P<comment>["#].*)'
    r"|f(?:\([^\n]{2}|\[[^\]\n]{0,30}\]|.)"
    r"|\[u(?P<code>[0-9A-Fa-f]{4,6})\]"
    r"|\[(?P<long>[^\]\n]{1,30})\]|\((?P<two>[^\n]{2})"
    r"|\*(?:\[(?P<long_string>[^\]\n]{1,30})\]|\((?P<two_string>[^\n]{2})|(?P<one_string>.))"
    r"|s(?:[+-]?\d|\([^\n]{2}|\[[^\]\n]{0,9}\])\d?"
    r"|[nkgmMFVY](?:\([^\n]{2}|\[[^\]\n]{0,30}\]|.)"
    r"|[hvwlLDNbBoxXRSHZA](?P<quote>['\"])[^'\"\n]{0,200}(?P=quote)"
    r"|(?P<one>.)"
    r"|$)",
    re.M,
)
_ONE = {
    "-": "-",
    " ": " ",
    "~": " ",
    "0": " ",
    "e": "\\",
    "\\": "\\",
    "t": "\t",
    "'": "'",
    "`": "`",
    ".": ".",
    "_": "_",
}
_NAMED = {
    "aq": "'", "dq": '"', "oq": "‘", "cq": "’", "lq": "“", "rq": "”", "ga": "`", "ha": "^", "ti": "~", "rs": "\\",
    "at": "@", "sh": "#", "Do": "$", "bu": "•", "co": "©", "rg": "®", "tm": "™", "em": "—", "en": "–", "hy": "-",
    "mu": "×", "di": "÷", "+-": "±", "->": "→", "<-": "←", "<>": "↔", "<=": "≤", ">=": "≥", "!=": "≠", "==": "≡",
    "if": "∞", "de": "°", "12": "½", "14": "¼", "34": "¾", "pl": "+", "mi": "−", "eq": "=", "or": "|", "ba": "|",
    "sl": "/", "lB": "[", "rB": "]", "lC": "{", "rC": "}", "la": "⟨", "ra": "⟩", "Fo": "«", "Fc": "»", "ss": "ß",
    "AE": "Æ", "ae": "æ", "OE": "Œ", "oe": "œ", "/O": "Ø", "/o": "ø", "oA": "Å", "oa": "å", "Eu": "€", "Po": "£",
    "Ye": "¥", "ct": "¢", "sc": "§", "ps": "¶", "dg": "†", "dd": "‡", "no": "¬", "*a": "α", "*b": "β", "*m": "µ",
    "*p": "π", "*S": "Σ", "ul": "_", "br": "|", "S2": "²", "S3": "³", "S1": "¹", "r!": "¡", "r?": "¿", "is": "∫",
}  # fmt: skip
_ACCENTS = {"'": "\u0301", "`": "\u0300", ":": "\u0308", "^": "\u0302", "~": "\u0303", ",": "\u0327"}
_STRINGS = {
    "-": "-",
    "lq": "“",
    "rq": "”",
    "R": "®",
    "Tm": "™",
    "Aq": "'",
    'L"': '"',
    'R"': '"',
    "C'": "'",
    "C`": "`",
    "--": "—",
}


def unescaped(line: str) -> str:
    """A line of text with its escapes read: characters by name, fonts, sizes and motions without a trace.

    Complexity: O(characters).

    Example:
        >>> unescaped('\\\\fBls\\\\fP \\\\- \\\\(lqlist\\\\(rq \\\\[u20AC]\\\\e \\\\" no text')
        'ls - “list” €\\\\ '
    """
    return _ESCAPE.sub(_read, line) if "\\" in line else line


def _read(match: re.Match[str]) -> str:
    if match["code"]:
        number = int(match["code"], 16)
        return chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else ""
    name = match["long"] or match["two"]
    if name:
        return _NAMED.get(name) or _accented(name)
    string = match["long_string"] or match["two_string"] or match["one_string"]
    if string:
        return _STRINGS.get(string, "")
    return _ONE.get(match["one"] or "", "")


def _accented(name: str) -> str:
    """Letters with accents are named by the accent and the letter: `'e`, `:u`."""
    import unicodedata

    accent = _ACCENTS.get(name[0])
    return unicodedata.normalize("NFC", name[1] + accent) if accent and len(name) == 2 and name[1].isalpha() else ""


def arguments(rest: str, *, escaped: bool = False) -> list[str]:
    """The arguments of a macro: words, or what stands between double quotes, where two quotes mean one.

    Args:
        rest: the line behind the macro's name.
        escaped: leave the escapes in.

    Complexity: O(characters).

    Example:
        >>> arguments('"a b" c\\\\ d "say ""x"" too"')
        ['a b', 'c d', 'say "x" too']
    """
    words = [
        quoted.replace('""', '"') if word == "" else word
        for quoted, word in re.findall(r'[ \t]*+(?:"((?:[^"]++|"")*+)(?:"|$)|((?:[^ \t\\]|\\.?)++))', rest, re.S)
    ]
    comment = next((index for index, word in enumerate(words) if word.startswith('\\"')), len(words))
    return words[:comment] if escaped else [unescaped(word) for word in words[:comment]]
