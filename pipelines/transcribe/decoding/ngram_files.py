"""N-gram models in files: JSON, which keeps them exactly, and ARPA text, which other programs read."""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Iterator

from pipelines.errors import InputError
from pipelines.files import atomic_write
from pipelines.transcribe.decoding.ngram import BEGIN, END, NAMES, SPACE, UNKNOWN, Context, NGram, Unit

__all__ = ["load_ngram", "save_ngram"]

_LN10 = math.log(10.0)
_NEVER = -99.0  # how ARPA files write a probability that is never asked for
_UNLISTED = -7.0  # log10 of an unknown word where the file has none


def save_ngram(model: NGram, path: str | os.PathLike[str]) -> pathlib.Path:
    """Write a model; NAME.arpa as ARPA text with seven decimals, anything else as JSON.

    Raises:
        RunError: the disk is full or not writable.

    Complexity: O(number of n-grams).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = save_ngram(NGram.from_text(["no", "oh no"], order=2), f"{folder}/lm.arpa")
        ...     load_ngram(path).vocabulary
        ('</s>', '<unk>', ' ', 'h', 'n', 'o')
    """
    if pathlib.Path(path).suffix == ".arpa":
        return atomic_write(path, "\n".join([*_arpa(model), ""]))
    return atomic_write(path, json.dumps(model.to_config(), ensure_ascii=False, separators=(",", ":")))


def load_ngram(path: str | os.PathLike[str], unit: Unit | None = None) -> NGram:
    """Read a model, in JSON or ARPA by its content.

    Args:
        path: the file.
        unit: what the tokens of an ARPA file are; by itself "char" where it has the token <space>, else "word".

    Raises:
        InputError: no such file, or one that is damaged or something else; with the line.

    Complexity: O(size of the file).
    """
    path = pathlib.Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("a language model cannot be read", where=path, found=error) from error
    if text.lstrip().startswith("{"):
        try:
            config = json.loads(text)
        except ValueError as error:
            raise InputError("a language model is damaged JSON", where=path, found=error) from error
        return NGram.from_config(config, path)
    return _Arpa(path, text).model(unit)


def _arpa(model: NGram) -> Iterator[str]:
    def name(token: int) -> str:
        text = NAMES.get(token) or model.vocabulary[token]
        return SPACE if text == " " else text

    by_order: dict[int, list[Context]] = {length: [] for length in range(1, model.order + 1)}
    by_order[1].append((BEGIN,))
    for gram in model.grams:
        by_order[len(gram)].append(gram)
    yield "\\data\\"
    yield from (f"ngram {length}={len(grams)}" for length, grams in by_order.items())
    for length, grams in by_order.items():
        yield ""
        yield f"\\{length}-grams:"
        for gram in sorted(grams):
            value = model.grams[gram] / _LN10 if gram != (BEGIN,) else _NEVER
            factor = f"\t{model.backoff[gram] / _LN10:.7f}" if gram in model.backoff else ""
            yield f"{value:.7f}\t{' '.join(map(name, gram))}{factor}"
    yield ""
    yield "\\end\\"


class _Arpa:
    """A file being read, line by line."""

    def __init__(self, path: pathlib.Path, text: str) -> None:
        self.path = path
        self.entries: list[tuple[tuple[str, ...], float, float | None]] = []
        declared: dict[int, int] = {}
        counted: dict[int, int] = {}
        section = 0
        state = "head"
        for number, line in enumerate(map(str.strip, text.splitlines()), 1):
            if state == "end" or not line:
                continue
            if line == "\\data\\":
                state = "counts"
            elif line == "\\end\\":
                state = "end"
            elif line.startswith("\\") and line.endswith("-grams:"):
                section, state = self._number(line[1:-7], number), "grams"
            elif state == "counts":
                length, _, count = line.removeprefix("ngram").partition("=")
                declared[self._number(length, number)] = self._number(count, number)
            elif state == "grams":
                self._entry(line, section, number)
                counted[section] = counted.get(section, 0) + 1
        self._check(state, declared, counted)
        self.order = max(declared)

    def _number(self, text: str, line: int) -> int:
        try:
            return int(text)
        except ValueError:
            raise InputError("an ARPA file has no number here", where=f"{self.path}:{line}", found=text) from None

    def _entry(self, line: str, section: int, number: int) -> None:
        cells = line.split()
        if len(cells) not in (section + 1, section + 2):
            expected = f"a probability, {section} tokens and perhaps a factor"
            raise InputError(
                "an ARPA line does not fit its section", where=f"{self.path}:{number}", found=line, expected=expected
            )
        try:
            value = float(cells[0])
            factor = float(cells[-1]) if len(cells) == section + 2 else None
        except ValueError:
            raise InputError("an ARPA line has no number", where=f"{self.path}:{number}", found=line) from None
        self.entries.append((tuple(cells[1 : section + 1]), value, factor))

    def _check(self, state: str, declared: dict[int, int], counted: dict[int, int]) -> None:
        if state == "head" or not declared:
            cure = "give ARPA text (it begins with \\data\\) or JSON written by this program"
            raise InputError("this file is no language model", where=self.path, cure=cure)
        if state != "end" or counted != {k: v for k, v in declared.items() if v}:
            raise InputError(
                "an ARPA file is incomplete", where=self.path, found=counted, expected=f"{declared}, \\end\\"
            )

    def model(self, unit: Unit | None) -> NGram:
        """Build the model of the lines."""
        singles = [tokens[0] for tokens, _, _ in self.entries if len(tokens) == 1]
        if unit is None:
            unit = "char" if SPACE in singles else "word"
        alias = {SPACE: " "} if unit == "char" else {}
        special = {"<s>": BEGIN, "</s>": END, "<unk>": UNKNOWN, "<UNK>": UNKNOWN}
        listed = dict.fromkeys(alias.get(token, token) for token in singles if token not in special)
        vocabulary = [NAMES[END], NAMES[UNKNOWN], *listed]
        ids = {**{token: number for number, token in enumerate(vocabulary)}, **special}
        grams: dict[Context, float] = {}
        backoff: dict[Context, float] = {}
        for tokens, value, factor in self.entries:
            unknown = next((token for token in tokens if alias.get(token, token) not in ids), None)
            if unknown is not None:
                raise InputError("an ARPA n-gram has a token without a line of its own", where=self.path, found=unknown)
            gram = tuple(ids[alias.get(token, token)] for token in tokens)
            if gram != (BEGIN,):
                grams[gram] = value * _LN10
            if len(gram) > 1:
                backoff.setdefault(gram[:-1], 0.0)
            if factor is not None and len(gram) < self.order:
                backoff[gram] = factor * _LN10
        notes = ()
        if (UNKNOWN,) not in grams:
            grams[(UNKNOWN,)] = _UNLISTED * _LN10
            notes = (f"no <unk> in the file: unknown words get probability 1e{_UNLISTED:.0f}",)
        return NGram(unit, self.order, vocabulary, grams, backoff, notes).checked(self.path)
