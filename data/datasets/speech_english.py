"""A normaliser of English transcripts for error rates: spelling, fillers, contractions and numbers in one form."""

from __future__ import annotations

import re
import unicodedata

from pipelines.data.datasets.speech_numbers import digits_of
from pipelines.data.datasets.speech_spellings import american_spellings

__all__ = ["normalise_english"]

#: More passes than any text needs (tests count two); a text that still changes is returned as it is then.
_PASSES = 8
_APOSTROPHES = dict.fromkeys(map(ord, "’‘ʼ`´＇′‛"), "'")
#: Letters that do not come apart into a letter and a mark.
_LETTERS = {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "ł": "l", "ı": "i"}
_OPENS = {"]": "[", ")": "("}
_FILLERS = re.compile(r"hm+|mm+|mhm+|uh+|um+")
#: Words with an apostrophe that endings do not explain; also those that are slurred into one.
_WHOLE = {
    "won't": "will not",
    "can't": "can not",
    "cannot": "can not",
    "shan't": "shall not",
    "ain't": "is not",
    "let's": "let us",
    "y'all": "you all",
    "ma'am": "madam",
    "o'clock": "oclock",
    "'tis": "it is",
    "'twas": "it was",
    "'cause": "because",
    "'em": "them",
    "gonna": "going to",
    "wanna": "want to",
    "gotta": "got to",
    "gimme": "give me",
    "lemme": "let me",
    "kinda": "kind of",
    "coulda": "could have",
    "shoulda": "should have",
    "woulda": "would have",
}
_ENDINGS = {"n't": " not", "'re": " are", "'ve": " have", "'ll": " will", "'m": " am", "'d": " would"}
#: After these 's stands for "is"; elsewhere it is a genitive.
_IS = frozenset("it he she that this there here what who where how when why".split())  # noqa: SIM905
#: After 'd these show that it stands for "had", after 's that it stands for "has".
_PARTICIPLES = ("been", "gone", "done", "got", "had", "better")
_TITLES = {
    "mr": "mister",
    "mrs": "missus",
    "missis": "missus",
    "dr": "doctor",
    "prof": "professor",
    "jr": "junior",
    "sr": "senior",
}
#: These are words of their own, too, and are expanded before a full stop alone.
_DOTTED = {
    "st": "saint",
    "capt": "captain",
    "col": "colonel",
    "gen": "general",
    "gov": "governor",
    "hon": "honorable",
    "lt": "lieutenant",
    "rep": "representative",
    "rev": "reverend",
    "sen": "senator",
    "sgt": "sergeant",
}
_WORD = re.compile(r"[^\W_']*(?:'[^\W_]+)+|[^\W_]+|[\W_]")
_DOTTED_TITLE = re.compile(rf"\b({'|'.join(_DOTTED)})\.(?=\s)")
_INITIALS = re.compile(r"\b(?:[a-z]\.){2,}")
_GROUPS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_PER_CENT = re.compile(r"\bper\s+cent\b")
_APART = re.compile(r"(?<=[0-9])\s+%")
#: What stays besides letters and digits: a point between digits, signs of money before and % after them.
_SIGNS = re.compile(r"(?<=[0-9])\.(?=[0-9])|[$€£¢](?=[0-9])|(?<=[0-9])%")


def normalise_english(text: str) -> str:
    """English text in one form, for comparing transcripts of different styles.

    In this order: compatibility forms, case and diacritics removed; text in [..] and (..) removed; apostrophes of all
    shapes made one; titles and contractions written out ("he's" -> he is, genitives lose their apostrophe); initials
    joined (u.s. -> us); all punctuation and symbols made spaces, but for a point within a number and $ € £ ¢ % at one;
    fillers (hm, mm, mhm, uh, um, drawn out or not) removed; British spellings made American; numbers in words made
    digits (:func:`speech_numbers.digits_of`). This is repeated until nothing changes, so that it is idempotent.

    It is this package's own and gives other figures than Whisper's normaliser: never compare across.

    Complexity: O(length) a pass, two passes for nearly every text.

    Source: the steps are those of sheet 26, section 7; tables and rules are this package's.

    Example:
        >>> normalise_english("Mr. Smith's colour-TV, um, hasn't cost [laughs] twenty-three dollars!")
        'mister smiths color tv has not cost $23'
    """
    for _ in range(_PASSES):
        before, text = text, _once(text)
        if text == before:
            break
    return text


def _once(text: str) -> str:
    text = _plain(text)
    text = _without_brackets(text)
    text = _DOTTED_TITLE.sub(lambda match: _DOTTED[match.group(1)], text)
    text = _INITIALS.sub(lambda match: match.group().replace(".", ""), text)
    text = _expand(text)
    text = _PER_CENT.sub("percent", _GROUPS.sub("", text))
    text = _APART.sub("%", text)
    words = [word for word in _cleaned(text).split() if not _FILLERS.fullmatch(word)]
    spelled = american_spellings()
    words = [_TITLES.get(word, spelled.get(word, word)) for word in words]
    return " ".join(digits_of(words))


def _plain(text: str) -> str:
    """Lower case without marks."""
    text = text.translate(_APOSTROPHES)  # before compatibility forms: ´ would become a space and a mark
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).lower())
    return "".join(_LETTERS.get(c, c) for c in text if not unicodedata.combining(c)).translate(_APOSTROPHES)


def _without_brackets(text: str) -> str:
    """Text without what stands in [..] and (..), nested or not; a bracket without its partner is left as it is."""
    kept: list[str] = []
    opened: dict[str, list[int]] = {"[": [], "(": []}  # where the brackets that are not yet closed stand in `kept`
    for character in text:
        if opened.get(_OPENS.get(character, "")):
            start = opened[_OPENS[character]].pop()
            del kept[start:]
            kept.append(" ")
            for places in opened.values():
                while places and places[-1] >= start:
                    places.pop()
            continue
        if character in opened:
            opened[character].append(len(kept))
        kept.append(character)
    return "".join(kept)


def _expand(text: str) -> str:
    """Contractions written out, word by word, from the last to the first."""
    found: list[str] = []
    after = ""
    words: list[str] = _WORD.findall(text)
    for word in reversed(words):
        found.append(_expanded(word, after) if "'" in word else _WHOLE.get(word, word))
        after = after if word.isspace() else word
    return "".join(reversed(found))


def _expanded(word: str, after: str) -> str:
    """One word written out, by the word after it where two readings are possible."""
    if word in _WHOLE:
        return _WHOLE[word]
    stem, _, end = word.rpartition("'")
    if end == "s" and stem in _IS:
        return f"{stem} has" if after in _PARTICIPLES else f"{stem} is"
    if end == "d" and stem:
        return f"{stem} had" if after in _PARTICIPLES else f"{stem} would"
    for ending, written in _ENDINGS.items():
        if word.endswith(ending) and len(word) > len(ending):
            return word[: -len(ending)] + written
    return word


def _cleaned(text: str) -> str:
    """Letters, digits and the signs of numbers; apostrophes vanish, everything else becomes a space."""
    text = text.replace("'", "")
    kept = {match.start() for match in _SIGNS.finditer(text)}
    return "".join(c if place in kept or c.isalnum() else " " for place, c in enumerate(text))
