"""Numbers as English says them, written in digits: cardinals, ordinals, years, decimals, percent and money."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["digits_of"]

_ONES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = (
    "ten",
    "eleven",
    "twelve",
    *(f"{word}teen" for word in ("thir", "four", "fif", "six", "seven", "eigh", "nine")),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SMALL = {word: n for n, word in enumerate((*_ONES, *_TEENS), 1)} | {word: 10 * n for n, word in enumerate(_TENS, 2)}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
#: "second" is a time more often than a place: it counts only after tens.
_ORDINAL_ONES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
_ORDINALS = (
    dict(zip(_ORDINAL_ONES, range(1, 10), strict=True))
    | {"twelfth": 12}
    | {f"{word}th": _SMALL[word] for word in _TEENS if word != "twelve"}
    | {f"{word[:-1]}ieth": _SMALL[word] for word in _TENS}
)
_ORDINAL_SCALES = {f"{word}th": scale for word, scale in _SCALES.items()}
_DECADES = {f"{word[:-1]}ies": _SMALL[word] for word in _TENS}
_DIGITS = {"zero": "0", "oh": "0", "o": "0"} | {word: str(n) for n, word in enumerate(_ONES, 1)}
_DIGITS |= {str(n): str(n) for n in range(10)}
#: Centuries that years are said with: nineteen eighty four, twenty twenty.
_CENTURIES = range(13, 21)
_NUMBER = re.compile(r"([$€£]?)([0-9]+)(?:\.([0-9]+))?")
_WHOLE = re.compile("[0-9]+")
_LONGEST = 18  # digits of a number that is still computed with
_MONEY = {"dollar": "$", "dollars": "$", "euro": "€", "euros": "€", "pound": "£", "pounds": "£"}
_CENTS = ("cent", "cents")
_PERCENT = ("percent",)


class _Read(NamedTuple):
    """What a number looks like in digits, and the word after it."""

    text: str
    after: int


def digits_of(words: Sequence[str]) -> list[str]:
    """Words of a lower-case text with its numbers in digits; applied again it changes nothing.

    "two hundred and five" -> 205, "nineteen eighty four" -> 1984 (thirteen to twenty before tens or "oh"), "three
    point five million" and "3.5 million" -> 3500000, "twenty first" -> 21st, "eighties" -> 80s, "five percent" -> 5%,
    "five dollars and twenty cents" -> $5.20. Digits said one by one stay apart (1 2 3), so that each counts as a word.
    "a", "second" alone, "minus" and fractions stay words.

    Complexity: O(words).

    Example:
        >>> " ".join(digits_of("two hundred and five people in nineteen eighty four".split()))
        '205 people in 1984'
    """
    found: list[str] = []
    place = 0
    while place < len(words):
        read = _decade(words, place) or _year(words, place) or _number(words, place)
        while read and (longer := _decimals(read.text, words, read.after)):
            read = longer
        found.append(read.text if read else words[place])
        place = read.after if read else place + 1
    return _with_units(found)


def _at(words: Sequence[str], place: int) -> str:
    return words[place] if place < len(words) else ""


def _decade(words: Sequence[str], place: int) -> _Read | None:
    """eighties, nineteen eighties."""
    if words[place] in _DECADES:
        return _Read(f"{_DECADES[words[place]]}s", place + 1)
    century, decade = _SMALL.get(words[place]), _DECADES.get(_at(words, place + 1))
    if century in _CENTURIES and decade:
        return _Read(f"{century}{decade}s", place + 2)
    return None


def _year(words: Sequence[str], place: int) -> _Read | None:
    """nineteen eighty four, nineteen oh five, twenty twelve; not where a larger number goes on after them."""
    if _SMALL.get(words[place]) not in _CENTURIES:
        return None
    second = _SMALL.get(_at(words, place + 1), 0)
    third = _SMALL.get(_at(words, place + 2), 0)
    if _at(words, place + 1) in ("oh", "o") and 1 <= third <= 9:
        end, rest = place + 3, third
    elif second >= 20 and 1 <= third <= 9:
        end, rest = place + 3, second + third
    elif second >= 10:
        end, rest = place + 2, second
    else:
        return None
    if _at(words, end) in (*_SCALES, "hundred", "point"):
        return None
    return _Read(f"{_SMALL[words[place]]}{rest:02}", end)


def _number(words: Sequence[str], place: int) -> _Read | None:
    """A number in words, or in digits before a scale (5 million) or a point (5 point 2)."""
    match = _NUMBER.fullmatch(words[place])
    if match:
        whole = _WHOLE.fullmatch(words[place]) and _at(words, place + 1) == "point"
        return _Read(words[place], place + 1) if whole else _scaled(match, words, place)
    if words[place] == "zero":
        return _Read("0", place + 1)
    value, ordinal, after = _sum(words, place)
    if after == place:
        return None
    return _Read(f"{value}{_suffix(value) if ordinal else ''}", after)


def _sum(words: Sequence[str], place: int) -> tuple[int, bool, int]:
    """(value, whether an ordinal ends it, word after it); the word at `place` itself where no number begins."""
    total, current, last = 0, None, 10**15  # value of finished scales, of the running group, the last scale
    while place < len(words):
        word = words[place]
        if word == "and" and _may_go_on(total, current) and _at(words, place + 1) in {**_SMALL, **_ORDINALS}:
            if _at(words, place + 1) == "second":
                break
            place += 1
            continue
        if word in _SMALL and _fits(current, _SMALL[word]):
            current = (current or 0) + _SMALL[word]
        elif word in _ORDINALS and _fits(current, _ORDINALS[word]) and (word != "second" or (current or 0) % 100 >= 20):
            return total + (current or 0) + _ORDINALS[word], True, place + 1
        elif word in ("hundred", "hundredth") and (current or 1) < 100 and not (total and current is None):
            current = 100 * (current or 1)
            if word == "hundredth":
                return total + current, True, place + 1
        elif scale := _SCALES.get(word) or _ORDINAL_SCALES.get(word):
            if current is None and total:
                break
            if scale >= last:
                break
            total, current, last = total + (current or 1) * scale, None, scale
            if word in _ORDINAL_SCALES:
                return total, True, place + 1
        else:
            break
        place += 1
    return total + (current or 0), False, place


def _may_go_on(total: int, current: int | None) -> bool:
    """Whether "and" may stand here: after hundreds or a scale."""
    return (current is None and total > 0) or (current is not None and current > 0 and current % 100 == 0)


def _fits(current: int | None, value: int) -> bool:
    """Whether a small number can be added to the running group: after nothing, hundreds, or tens."""
    if current is None or (current and current % 100 == 0):
        return True
    return value < 10 and current % 10 == 0 and current % 100 >= 20


def _suffix(value: int) -> str:
    if value % 100 in (11, 12, 13):
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(value % 10, "th")


def _decimals(whole: str, words: Sequence[str], place: int) -> _Read | None:
    """A whole number, "point", and digits or one number; and scales after those."""
    if _at(words, place) != "point" or not _WHOLE.fullmatch(whole):
        return None
    decimals, end = _after_point(words, place + 1)
    if not decimals:
        return None
    match = _NUMBER.fullmatch(f"{whole}.{decimals}")
    return match and (_scaled(match, words, end - 1) or _Read(match.group(), end))


def _after_point(words: Sequence[str], place: int) -> tuple[str, int]:
    """(digits, word after them): said one by one, or as a number (three point fourteen)."""
    decimals, end = "", place
    while _at(words, end) in _DIGITS:
        decimals += _DIGITS[words[end]]
        end += 1
    if decimals:
        return decimals, end
    if _WHOLE.fullmatch(_at(words, place)):
        return words[place], place + 1
    value, ordinal, end = _sum(words, place)
    return ("", place) if ordinal or end == place else (str(value), end)


def _scaled(match: re.Match[str], words: Sequence[str], place: int) -> _Read | None:
    """A number in digits times the scales after the word at `place`; None where there are none."""
    sign, whole, decimals = match.group(1), match.group(2), match.group(3) or ""
    scales = {**_SCALES, "hundred": 100}
    end, factor = place + 1, 1
    while _at(words, end) in scales and len(f"{whole}{decimals}{factor}") < _LONGEST:
        factor *= scales[words[end]]
        end += 1
    if factor == 1:
        return None
    value = str(int(whole + decimals) * factor).zfill(len(decimals) + 1)
    cut = len(value) - len(decimals)
    rest = value[cut:].rstrip("0")
    return _Read(f"{sign}{value[:cut]}{'.' if rest else ''}{rest}", end)


def _with_units(words: Sequence[str]) -> list[str]:
    """Percent and money written with their signs."""
    found: list[str] = []
    for word in words:
        before = _NUMBER.fullmatch(found[-1]) if found else None
        plain = before is not None and not before.group(1)
        if plain and word in _PERCENT:
            found[-1] += "%"
        elif plain and word in _MONEY:
            found[-1] = _MONEY[word] + found[-1]
        elif plain and word in _CENTS:
            _add_cents(found)
        else:
            found.append(word)
    return found


def _add_cents(found: list[str]) -> None:
    """The last number as cents: joined with the money before it (with or without "and"), else with a sign."""
    cents = found.pop()
    before = found[:-1] if found[-1:] == ["and"] else found
    match = _NUMBER.fullmatch(before[-1]) if before else None
    if match and match.group(1) and not match.group(3) and _WHOLE.fullmatch(cents) and len(cents) <= 2:
        found[len(before) - 1 :] = [f"{before[-1]}.{int(cents):02}"]
    else:
        found.append(f"¢{cents}")
