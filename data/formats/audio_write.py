"""Writing of WAV files, completely or not at all."""

from __future__ import annotations

import os
import pathlib
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.audio_types import check_rate
from pipelines.data.formats.cube_staging import staged

__all__ = ["write_wav"]

_LARGEST = (1 << 32) - 64


def write_wav(path: str | os.PathLike[str], samples: NDArray[Any], rate: int) -> tuple[str, ...]:
    """Write a WAV file of 16 bits.

    Args:
        path: the file; an older one is replaced when the new one is on the disk.
        samples: (n,) or (n, channels); floats within [-1, 1], times 32,768 and rounded, or int16 as it is.
        rate: Hz.

    Returns:
        Notes: how many samples were beyond full scale and were therefore clipped.

    Raises:
        InputError: another shape or type, samples that are no numbers, more than 4 GB.
        OSError: the disk is full, or the folder does not allow writing; the old file is intact.

    Complexity: O(n).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     notes = write_wav(f"{folder}/a.wav", np.array([0.0, 0.5, 3.0]), 16000)
        ...     notes, pathlib.Path(folder, "a.wav").stat().st_size
        (('1 sample beyond full scale was clipped',), 50)
    """
    check_rate(rate, "rate")
    values = np.asarray(samples)
    if values.ndim not in (1, 2) or not values.size or (values.dtype.kind != "f" and values.dtype != np.int16):
        found, expected = f"{values.dtype} {values.shape}", "floats or int16 (n,) or (n, channels)"
        raise InputError("cannot be written as sound", where=path, found=found, expected=expected)
    stored, notes = _sixteen_bits(values, path)
    channels = 1 if values.ndim == 1 else values.shape[1]
    size = 2 * stored.size
    if size > _LARGEST or channels > 0xFFFF:
        found = f"{size:,} bytes of {channels} channels"
        raise InputError(
            "does not fit into a WAV file", where=path, found=found, expected="under 4 GB", cure="split it"
        )
    layout = struct.pack("<IHHIIHH", 16, 1, channels, rate, 2 * channels * rate, 2 * channels, 16)
    head = b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + layout + b"data" + struct.pack("<I", size)
    with staged(pathlib.Path(path)) as (hidden,), hidden.open("wb") as file:
        file.write(head)
        file.write(stored.tobytes())
    return notes


def _sixteen_bits(values: NDArray[Any], path: object) -> tuple[NDArray[Any], tuple[str, ...]]:
    if values.dtype == np.int16:
        return values.astype("<i2"), ()
    if not np.isfinite(values).all():
        found = f"{int((~np.isfinite(values)).sum()):,} that are not finite"
        raise InputError("samples that are no numbers", where=path, found=found, expected="none")
    scaled = np.round(values * 32768.0)
    # Full scale itself is one step beyond what 16 bits hold; nobody hears that step.
    beyond = int(((scaled > 32768) | (scaled < -32768)).sum())
    notes = (
        f"{beyond:,} {'sample' if beyond == 1 else 'samples'} beyond full scale {'was' if beyond == 1 else 'were'}",
    )
    return np.clip(scaled, -32768, 32767).astype("<i2"), (f"{notes[0]} clipped",) if beyond else ()
