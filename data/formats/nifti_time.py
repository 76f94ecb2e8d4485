"""The repetition time of a scan: what the header says in which unit, what the sidecar says, and whether they agree."""

from __future__ import annotations

import json
import math
import os
import pathlib
from typing import Any

from pipelines.data.errors import InputError
from pipelines.data.formats.nifti_header import Header

__all__ = ["repetition", "sidecar", "sidecar_repetition"]

#: Seconds that may lie between two volumes: sub-second bursts to long sparse protocols.
_LEAST, _MOST = 0.01, 100.0
#: Seconds that are believed where the header names no unit.
_LEAST_BARE, _MOST_BARE = 0.1, 30.0
_UNITS = {8: ("s", 1.0), 16: ("ms", 1e-3), 24: ("us", 1e-6)}
_NO_TIMES = {32: "Hz", 40: "ppm", 48: "rad/s"}
_SIDECAR_LIMIT = 16 << 20
_CURE = "say the repetition time in seconds: --tr (tr=2.0)"


def repetition(
    header: Header, name: str, *, given: float | None = None, said: float | None = None
) -> tuple[float | None, tuple[str, ...]]:
    """The repetition time in s and what there is to say about it.

    Args:
        header: the checked header of a scan with four axes.
        name: of the file, for messages.
        given: what the user says, s; it holds whatever the header has.
        said: what the sidecar says, s; it must agree with the header to 1 ms.

    Returns:
        s, or None where nothing says it, and notes.

    Raises:
        InputError: a time that cannot be, units that are no time, header and sidecar that disagree.

    Complexity: O(1).

    Example:
        >>> import nibabel, numpy
        >>> from pipelines.data.formats.nifti_header import parse_header
        >>> image = nibabel.Nifti1Image(numpy.zeros((2, 2, 2, 3), numpy.int16), numpy.eye(4))
        >>> image.header.set_zooms((1, 1, 1, 2000)); image.header.set_xyzt_units("mm", "msec")
        >>> repetition(parse_header(image.to_bytes()[:540], "a.nii"), "a.nii")
        (2.0, ('the repetition time was converted from 2000 ms to 2 s',))
    """
    for value, where in ((given, "tr"), (said, f"{name}: the sidecar's RepetitionTime")):
        if value is not None and not _LEAST <= value <= _MOST:
            expected = f"seconds, {_LEAST:g} to {_MOST:g}"
            cure = "give seconds, not milliseconds" if value > _MOST else _CURE
            raise InputError("an impossible repetition time", where=where, found=value, expected=expected, cure=cure)
    if given is not None:
        return given, _overruled(header, given, said)
    value, unit = header.pixdim[4], header.units & 0x38
    if value == 0:
        if said is not None:
            return said, (f"the header has no repetition time: {said:g} s are the sidecar's",)
        return None, ("the header has no repetition time (say it with --tr)",)
    if unit in _NO_TIMES:
        found = f"{value:g} {_NO_TIMES[unit]}"
        raise InputError("the fourth axis is no time", where=name, found=found, expected="s, ms or us", cure=_CURE)
    seconds, notes = _seconds(value, unit, name, said)
    if said is not None and abs(seconds - said) > 1e-3:
        found = f"{seconds:g} s in the header, {said:g} s in the sidecar"
        expected = "the same to 1 ms"
        raise InputError(
            "header and sidecar disagree about the repetition time",
            where=name,
            found=found,
            expected=expected,
            cure=f"correct one of them, or {_CURE}",
        )
    return seconds, notes


def _overruled(header: Header, given: float, said: float | None) -> tuple[str, ...]:
    """What else had been said, where it is something else."""
    value, (unit, factor) = header.pixdim[4], _UNITS.get(header.units & 0x38, ("of an unknown unit", 1.0))
    others = []
    if value and not (math.isfinite(value) and abs(value * factor - given) <= 1e-3):
        others.append(f"the header says {value:g} {unit}")
    if said is not None and abs(said - given) > 1e-3:
        others.append(f"the sidecar says {said:g} s")
    return (f"the repetition time is {given:g} s as given; {', '.join(others)}",) if others else ()


def _seconds(value: float, unit: int, name: str, said: float | None) -> tuple[float, tuple[str, ...]]:
    """The header's time in s."""
    if unit in _UNITS:
        symbol, factor = _UNITS[unit]
        seconds = _decimal(value * factor)
        if math.isfinite(seconds) and _LEAST <= seconds <= _MOST:
            notes = (f"the repetition time was converted from {value:g} {symbol} to {seconds:g} s",)
            return seconds, notes if symbol != "s" else ()
        found, expected = f"{value:g} {symbol}", f"{_LEAST:g} to {_MOST:g} s"
        raise InputError("an impossible repetition time", where=name, found=found, expected=expected, cure=_CURE)
    seconds = _decimal(value)
    if _LEAST_BARE <= seconds <= _MOST_BARE:
        return seconds, (f"the unit of time is not set: the repetition time {seconds:g} was taken as seconds",)
    if said is not None and abs(value * 1e-3 - said) <= 1e-3:
        return said, (f"the unit of time is not set: {value:g} are ms, as the sidecar's {said:g} s show",)
    found, expected = f"{value:g} without a unit", f"{_LEAST_BARE:g} to {_MOST_BARE:g} s, or a unit"
    raise InputError("the repetition time is not clear", where=name, found=found, expected=expected, cure=_CURE)


def _decimal(value: float) -> float:
    """The shortest decimal that float32 rounds to the same: 0.72, not 0.72000002861."""
    return float(f"{value:.7g}")


def sidecar(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The BIDS sidecar (.json of the same name) beside an image; empty where there is none.

    Raises:
        InputError: it cannot be read, is no JSON object, or has a RepetitionTime that is no positive number.

    Complexity: O(its size), 16 MiB at most.

    Source: Brain Imaging Data Structure 1.10, "Task (including resting state) imaging data", RepetitionTime in s.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = pathlib.Path(folder, "sub-1_bold.json").write_text('{"RepetitionTime": 2.5}')
        ...     sidecar(f"{folder}/sub-1_bold.nii.gz")
        {'RepetitionTime': 2.5}
    """
    image = pathlib.Path(path)
    stem = image.name
    for ending in (".gz", ".nii", ".img", ".hdr"):
        stem = stem[: -len(ending)] if stem.lower().endswith(ending) else stem
    file = image.with_name(f"{stem}.json")
    if stem == image.name or not file.is_file():
        return {}
    try:
        with file.open("rb") as stream:
            text = stream.read(_SIDECAR_LIMIT + 1)
        if len(text) > _SIDECAR_LIMIT:
            raise InputError("the sidecar is too long", where=file.name, expected=f"{_SIDECAR_LIMIT >> 20} MiB or less")
        found = json.loads(text.decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error)[:120]
        cure = "correct the file or take it away"
        raise InputError("the sidecar cannot be read", where=file.name, found=reason, cure=cure) from error
    if not isinstance(found, dict):
        raise InputError("the sidecar is no JSON object", where=file.name, found=type(found).__name__, expected="{...}")
    sidecar_repetition(found, file.name)
    return found


def sidecar_repetition(content: dict[str, Any], name: str) -> float | None:
    """RepetitionTime in s of a sidecar's content; None where it has none.

    Raises:
        InputError: it is no positive number.

    Example:
        >>> sidecar_repetition({"RepetitionTime": "2"}, "a.json")
        Traceback (most recent call last):
        pipelines.data.errors.InputError: a.json: RepetitionTime is no number of seconds. Found: '2'. ...
    """
    value = content.get("RepetitionTime")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
        expected, cure = "a positive number, s", "correct the sidecar"
        problem = "RepetitionTime is no number of seconds"
        raise InputError(problem, where=name, found=repr(value)[:60], expected=expected, cure=cure)
    return float(value)
