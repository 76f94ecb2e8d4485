"""A microphone as a file of raw samples, through the optional package sounddevice."""

from __future__ import annotations

import io
from typing import Any

from pipelines.errors import ConfigError

__all__ = ["Microphone", "sounddevice"]

_INSTALL = "install it with `pip install sounddevice` (on Linux also the library PortAudio), or pipe raw samples in"


def sounddevice() -> Any:
    """The package of that name.

    Raises:
        ConfigError: it is missing, or the library that it opens.
    """
    try:
        import sounddevice as package  # type: ignore[import-not-found]
    except ImportError as error:
        raise ConfigError(
            "hearing a microphone needs the package sounddevice", where="microphone", found=error, cure=_INSTALL
        ) from None
    except OSError as error:  # the package is there, the library that it opens is not
        raise ConfigError(
            "the package sounddevice cannot be used", where="microphone", found=error, cure=_INSTALL
        ) from None
    return package


class Microphone(io.RawIOBase):
    """A microphone as a file of 16-bit samples, one channel, in the machine's byte order.

    Args:
        package: the module sounddevice.
        rate: Hz.
        device: number or part of the name; None is the system's default.

    Attributes:
        rate: at which it records, Hz: the device's own where it does not know the one asked for.
        lost: how often sound came faster than it was taken.

    Raises:
        ConfigError: there is no such microphone, or it cannot be opened.
    """

    def __init__(self, package: Any, rate: int, device: int | str | None) -> None:
        super().__init__()
        self.name = "the microphone"
        self.lost = 0
        self._failure: type[Exception] = package.PortAudioError
        wanted = {"device": device, "channels": 1, "dtype": "int16"}
        try:
            own = package.query_devices(device, "input")
        except (self._failure, ValueError) as error:
            raise ConfigError(
                "there is no such microphone" if device is not None else "there is no microphone",
                where="microphone",
                found=error if device is None else device,
                expected=_names(package),
                cure="plug one in and allow its use, or pipe raw samples in",
            ) from None
        self.rate = rate
        try:
            package.check_input_settings(samplerate=rate, **wanted)
        except (self._failure, ValueError):
            self.rate = round(own["default_samplerate"])
        try:
            self._stream = package.RawInputStream(samplerate=self.rate, **wanted)
            self._stream.start()
        except (self._failure, ValueError) as error:
            raise ConfigError(
                "the microphone cannot be opened",
                where=f"microphone {own['name']}",
                found=error,
                cure="close other programs that use it, and allow its use",
            ) from None

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer; waits for the sound."""
        view = memoryview(buffer).cast("B")
        try:
            heard, overflowed = self._stream.read(len(view) // 2)
        except self._failure as error:
            raise OSError(f"the device stopped: {error}") from error
        self.lost += bool(overflowed)
        content = bytes(heard)
        view[: len(content)] = content
        return len(content)

    def remarks(self) -> tuple[str, ...]:
        """What was lost."""
        times = "once" if self.lost == 1 else f"{self.lost} times"
        return (f"the microphone was not heard fast enough: sound was lost {times}",) if self.lost else ()

    def close(self) -> None:
        """Let go of the device."""
        stream = getattr(self, "_stream", None)
        if not self.closed and stream is not None:
            stream.close()
        super().close()


def _names(package: Any) -> str | None:
    """The microphones that there are."""
    try:
        found = [str(each["name"]) for each in package.query_devices() if each["max_input_channels"]]
    except Exception:  # the message about the missing device matters, not this list
        return None
    return ", ".join(found) or None
