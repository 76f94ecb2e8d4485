"""GigaSpeech: one large JSON file of long recordings and their segments."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from pipelines.data.datasets.speech_utterance import Gathering, Utterance
from pipelines.data.errors import InputError

__all__ = ["MANIFEST", "read_gigaspeech"]

MANIFEST = "GigaSpeech.json"
#: Tags for punctuation, which is not spoken.
_PUNCTUATION = frozenset({"<COMMA>", "<PERIOD>", "<QUESTIONMARK>", "<EXCLAMATIONPOINT>"})
#: Tags of segments without speech.
_GARBAGE = frozenset({"<SIL>", "<MUSIC>", "<NOISE>", "<OTHER>"})
_TAG = re.compile(r"<[A-Z]+>")
_CENTURY = 3.2e9  # seconds
#: Training subsets, each in the next.
_TRAINING = ("XS", "S", "M", "L", "XL")


def read_gigaspeech(path: Path, gathering: Gathering, *, subset: str | None = None) -> None:
    """Add the segments of GigaSpeech.json; its subsets DEV and TEST are the validation and test part.

    Tags for punctuation become nothing; segments that hold nothing but <SIL>, <MUSIC>, <NOISE> or <OTHER> are left out
    and counted. Where a segment names no speaker its recording stands for one, so that no split cuts a recording.

    Args:
        path: of GigaSpeech.json; the recordings are relative to it.
        gathering: what is added to.
        subset: the training subset that is read, XS to XL; None = every segment. DEV and TEST are read either way.

    Raises:
        InputError: no such JSON, or no such subset.

    Complexity: O(size of the file), which is held in memory as a whole.

    Source: Chen et al. 2021, "GigaSpeech"; sheet 26, section 6.
    """
    if subset is not None and subset.upper() not in _TRAINING:
        expected = ", ".join(_TRAINING)
        raise InputError("GigaSpeech has no such subset", where="subset", found=subset, expected=expected)
    try:
        audios = json.loads(path.read_bytes()).get("audios")
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError("cannot be read", where=path, found=str(error), expected="GigaSpeech's JSON") from None
    if not isinstance(audios, list):
        raise InputError("names no recordings", where=path, expected="a list 'audios'")
    counts: Counter[str] = Counter()
    for number, audio in enumerate(audios):
        _add_audio(audio, f"{path.name}:audio {number}", path.parent, gathering, subset, counts)
    garbage = {tag: counts[tag] for tag in sorted(_GARBAGE) if counts[tag]}
    if garbage:
        named = ", ".join(f"{tag} {count}" for tag, count in garbage.items())
        gathering.notes.append(f"{sum(garbage.values())} segments without speech are left out: {named}")
    if counts["punctuation"]:
        gathering.notes.append(f"{counts['punctuation']} tags for punctuation are left out of the texts")
    if counts["subset"]:
        gathering.notes.append(f"{counts['subset']} segments outside the subset {str(subset).upper()} are left out")


def _add_audio(
    audio: Any, place: str, folder: Path, gathering: Gathering, subset: str | None, counts: Counter[str]
) -> None:
    name = audio.get("path") if isinstance(audio, dict) else None
    segments = audio.get("segments") if isinstance(audio, dict) else None
    if not isinstance(name, str) or not isinstance(segments, list):
        return gathering.fail(place, "has no path or no segments")
    source = folder / name
    if not gathering.present(source):
        return gathering.fail(place, f"there is no file {name}, of {len(segments)} segments")
    for number, segment in enumerate(segments):
        where = f"{place}, segment {number}"
        problem = _problem(segment)
        if problem:
            gathering.fail(where, problem)
            continue
        part = _part(segment, subset)
        if part is None:
            counts["subset"] += 1
            continue
        text, garbage = _without_tags(segment["text_tn"], counts)
        if garbage:
            counts[garbage] += 1
            continue
        speaker = _speaker(segment.get("speaker")) or _speaker(audio.get("speaker")) or str(audio.get("aid", name))
        begin, end = float(segment["begin_time"]), float(segment["end_time"])
        # Differences of decimal fractions carry noise in the last digits.
        gathering.add(Utterance(segment["sid"], source, text, speaker, begin, round(end - begin, 6), part, where))
    return None


def _problem(segment: Any) -> str:
    """What a segment lacks; "" if nothing."""
    if not isinstance(segment, dict):
        return "is no JSON object"
    lacks = [name for name in ("sid", "text_tn") if not isinstance(segment.get(name), str)]
    begin, end = segment.get("begin_time"), segment.get("end_time")
    if not (_is_time(begin) and _is_time(end) and 0 <= begin < end):
        lacks.append(f"times (found {begin!r} to {end!r})")
    return f"lacks {', '.join(lacks)}" if lacks else ""


def _is_time(value: Any) -> TypeGuard[float]:
    """Seconds below the length of a century; larger whole numbers do not even fit a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -_CENTURY < value < _CENTURY


def _part(segment: Mapping[str, Any], subset: str | None) -> str | None:
    """The part of a segment; None where it is outside the wanted subset."""
    subsets = {str(name).strip("{}").upper() for name in segment.get("subsets") or ()}
    if "DEV" in subsets or "TEST" in subsets:
        return "test" if "TEST" in subsets else "valid"
    if subset is not None and subset.upper() not in subsets:
        return None
    return "train" if subsets & set(_TRAINING) else ""


def _without_tags(text: str, counts: Counter[str]) -> tuple[str, str]:
    """(words, tag of garbage or ""); other tags than the known ones stay."""
    words = text.split()
    tags = {word for word in words if _TAG.fullmatch(word)}
    if tags & _GARBAGE and not [word for word in words if word not in _GARBAGE | _PUNCTUATION]:
        return "", next(word for word in words if word in _GARBAGE)
    counts["punctuation"] += sum(word in _PUNCTUATION for word in words)
    return " ".join(word for word in words if word not in _PUNCTUATION), ""


def _speaker(name: Any) -> str:
    return name if isinstance(name, str) and name not in ("", "N/A") else ""
