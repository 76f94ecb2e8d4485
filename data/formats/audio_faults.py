"""What is said of recordings that are damaged, cut short or without sound: the same words from every reader."""

from __future__ import annotations

from pipelines.data.errors import InputError

__all__ = ["cut_short", "damaged_sound", "no_samples"]

_COPY = "copy or export the file again"


def damaged_sound(name: str, what: object, seconds: float | None = None) -> InputError:
    """The error of a file that is broken, and at which second where that is known.

    Example:
        >>> print(damaged_sound("a.flac", "lost sync", 2.5))
        a.flac: the sound is damaged at 2.50 s. Found: lost sync. Cure: copy or export the file again.
    """
    place = "" if seconds is None else f" at {seconds:.2f} s"
    return InputError(f"the sound is damaged{place}", where=name, found=what, cure=_COPY)


def cut_short(name: str, found: str, expected: str, accept: bool) -> str:
    """The note for a file that ends too early, or the error where that is not accepted.

    Raises:
        InputError: `accept` is False.

    Example:
        >>> cut_short("a.wav", "3.00 s", "5.00 s as the header says", True)
        'cut short: 3.00 s there, 5.00 s as the header says expected'
    """
    if not accept:
        cure = f"{_COPY}, or read what is there with --accept-truncated (accept_truncated=True)"
        raise InputError("the file ends before its sound does", where=name, found=found, expected=expected, cure=cure)
    return f"cut short: {found} there, {expected} expected"


def no_samples(name: str) -> InputError:
    """The error of a recording without a single sample.

    Example:
        >>> print(no_samples("a.wav"))
        a.wav: there is no sound in it. Found: a header and 0 samples. Expected: a recording. Cure: record it again.
    """
    found, cure = "a header and 0 samples", "record it again"
    return InputError("there is no sound in it", where=name, found=found, expected="a recording", cure=cure)
