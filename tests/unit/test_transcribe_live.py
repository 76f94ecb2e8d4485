"""Live sound: blocks as they come, at their pace, in constant memory; microphones that are not there; latencies."""

from __future__ import annotations

import io
import itertools
import pathlib
import sys
import time
import tracemalloc
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pipelines.data.formats.audio import AudioOptions, write_wav
from pipelines.errors import ConfigError, InputError
from pipelines.transcribe.live import LatencyMeter, from_file, from_microphone, from_pipe

RATE = 8000


def tone(seconds: float, rate: int = RATE) -> np.ndarray:
    return (0.3 * np.sin(np.arange(round(seconds * rate)) * 0.3)).astype(np.float32)


def test_a_file_comes_in_blocks(tmp_path: pathlib.Path) -> None:
    write_wav(tmp_path / "a.wav", tone(1.05), RATE)
    with from_file(tmp_path / "a.wav") as sound:
        blocks = list(sound)
        assert sound.rate == RATE
        assert sound.source.endswith("a.wav")
        assert sound.position == pytest.approx(1.05)
    assert [len(block) for block in blocks] == [800] * 10 + [400]
    assert all(block.dtype == np.float32 for block in blocks)
    np.testing.assert_allclose(np.concatenate(blocks), tone(1.05), atol=1 / 32768)
    with from_file(tmp_path / "a.wav", rate=16_000, block_seconds=0.5) as sound:
        assert sum(len(block) for block in sound) == 16_800
        assert any("resampled from 8000 to 16000 Hz" in note for note in sound.notes)
    with pytest.raises(InputError, match=r"none\.wav"):
        from_file(tmp_path / "none.wav")


def test_channels_are_chosen() -> None:
    stereo = np.stack([tone(0.2), -tone(0.2)], 1)
    with from_file((stereo, RATE), options=AudioOptions(channel=1)) as sound:
        np.testing.assert_array_equal(np.concatenate(list(sound)), -tone(0.2))


def test_realtime_keeps_the_pace_of_the_recording() -> None:
    began = time.monotonic()
    came = []
    with from_file((tone(0.5), RATE), realtime=True) as sound:
        for _ in sound:
            came.append(time.monotonic() - began)
    for number, at in enumerate(came, 1):
        assert at >= 0.1 * number - 0.005
    assert came[-1] < 2.0
    began = time.monotonic()
    with from_file((tone(5.0), RATE)) as sound:
        assert len(list(sound)) == 50
    assert time.monotonic() - began < 2.0


def test_realtime_makes_up_for_slow_listeners() -> None:
    """The sound does not wait: a listener who stops for two blocks gets them at once."""
    with from_file((tone(0.5), RATE), realtime=True) as sound:
        blocks = iter(sound)
        next(blocks)
        time.sleep(0.25)
        began = time.monotonic()
        next(blocks)
        assert time.monotonic() - began < 0.05


class Pipe(io.RawIOBase):
    """Gives the bytes of a sound in uneven portions, as a pipe does."""

    def __init__(self, content: bytes, portions: tuple[int, ...]) -> None:
        self.content, self.portions, self.place = content, itertools.cycle(portions), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self.content[self.place : self.place + min(len(buffer), next(self.portions))]
        buffer[: len(part)] = part
        self.place += len(part)
        return len(part)


def test_raw_samples_of_a_pipe() -> None:
    values = np.random.default_rng(0).integers(-30_000, 30_000, (2000, 2)).astype("<i2")
    with from_pipe(Pipe(values.tobytes() + b"x", (7, 500, 1)), RATE, channels=2) as sound:  # type: ignore[arg-type]
        got = np.concatenate(list(sound))
        assert any("2 channels mixed" in note for note in sound.notes)
        assert any("1 byte at the end" in note for note in sound.notes)
    np.testing.assert_allclose(got, values.astype(float).mean(1) / 32768, atol=1e-6)
    floats = tone(0.3).astype("<f4")
    with from_pipe(io.BytesIO(floats.tobytes()), RATE, "f32le", target_rate=16_000) as sound:
        assert sound.rate == 16_000
        assert sum(map(len, sound)) == 4800
    with pytest.raises(InputError, match="encoding"):
        from_pipe(io.BytesIO(b""), RATE, "mp3")


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(bytes(3200))))
    with from_pipe(rate=RATE) as sound:
        assert [len(block) for block in sound] == [800, 800]
    assert not sys.stdin.closed
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ConfigError, match="standard input is closed"):
        from_pipe(rate=RATE)


class Endless(io.RawIOBase):
    """A pipe that does not end."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        buffer[:] = bytes([0, 1]) * (len(buffer) // 2)
        return len(buffer)


def test_an_endless_pipe_is_held_in_constant_memory() -> None:
    with from_pipe(Endless(), RATE, target_rate=16_000) as sound:  # type: ignore[arg-type]
        blocks = iter(sound)
        for _ in range(50):
            next(blocks)
        tracemalloc.start()
        try:
            for _ in range(500):
                next(blocks)
            assert tracemalloc.get_traced_memory()[1] < 2e6
        finally:
            tracemalloc.stop()


# Microphones --------------------------------------------------------------------------------------------------------


class PortAudioError(Exception):
    """Stands for the package's own."""


def package(*, devices: list[dict[str, Any]], rates: tuple[int, ...] = (48_000,), breaks: int = -1) -> Any:
    """A stand-in for sounddevice with its devices: each call of `read` gives a tone; one of them breaks."""

    def query_devices(device: Any = None, kind: str | None = None) -> Any:
        if kind is None:
            return devices
        inputs = [each for each in devices if each["max_input_channels"]]
        chosen = inputs if device is None else [each for each in inputs if str(device) in each["name"]]
        if not chosen:
            raise PortAudioError("Error querying device -1") if device is None else ValueError("No input device")
        return chosen[0]

    def check_input_settings(*, device: Any, channels: int, dtype: str, samplerate: int) -> None:
        if samplerate not in rates:
            raise PortAudioError("Invalid sample rate")

    class RawInputStream:
        opened: list[Any] = []  # noqa: RUF012

        def __init__(self, *, device: Any, channels: int, dtype: str, samplerate: int) -> None:
            check_input_settings(device=device, channels=channels, dtype=dtype, samplerate=samplerate)
            self.calls, self.closed = 0, False
            self.opened.append(self)

        def start(self) -> None:
            pass

        def read(self, frames: int) -> tuple[Any, bool]:
            if self.calls == breaks:
                raise PortAudioError("device unplugged")
            self.calls += 1
            return memoryview(np.full(frames, 8192, np.int16)).cast("B"), self.calls in (2, 3)

        def close(self) -> None:
            self.closed = True

    return types.SimpleNamespace(
        PortAudioError=PortAudioError,
        query_devices=query_devices,
        check_input_settings=check_input_settings,
        RawInputStream=RawInputStream,
    )


HEADSET = {"name": "headset", "max_input_channels": 1, "default_samplerate": 48_000.0}
SPEAKER = {"name": "speaker", "max_input_channels": 0, "default_samplerate": 44_100.0}


def test_a_microphone_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = package(devices=[SPEAKER, HEADSET], rates=(16_000, 48_000))
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    with from_microphone(16_000) as sound:
        blocks = [block for block, _ in zip(sound, range(5), strict=False)]
    assert [len(block) for block in blocks] == [1600] * 5
    assert blocks[0][0] == pytest.approx(0.25)
    assert "sound was lost 2 times" in sound.notes[-1]
    assert fake.RawInputStream.opened[-1].closed
    with from_microphone(8000, device="head") as sound:  # a rate that the device does not know
        got = np.concatenate([block for block, _ in zip(sound, range(6), strict=False)])
    assert got[1000] == pytest.approx(0.25, abs=1e-3)
    assert any("resampled from 48000 to 8000 Hz" in note for note in sound.notes)


def test_microphones_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(ConfigError, match=r"needs the package sounddevice.*pip install sounddevice"):
        from_microphone()
    monkeypatch.setitem(sys.modules, "sounddevice", package(devices=[SPEAKER]))
    with pytest.raises(ConfigError, match="there is no microphone"):
        from_microphone()
    monkeypatch.setitem(sys.modules, "sounddevice", package(devices=[HEADSET]))
    with pytest.raises(ConfigError, match=r"no such microphone\. Found: webcam\. Expected: headset"):
        from_microphone(device="webcam")
    monkeypatch.setitem(sys.modules, "sounddevice", package(devices=[HEADSET], rates=()))
    with pytest.raises(ConfigError, match="microphone headset: the microphone cannot be opened"):
        from_microphone()


def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    with pytest.raises(ConfigError, match="PortAudio library not found"):
        from_microphone()


def test_a_microphone_that_is_unplugged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", package(devices=[HEADSET], breaks=2))
    with from_microphone(48_000) as sound, pytest.raises(InputError, match="device unplugged"):
        list(sound)


# Latency ------------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def blocks(clock: Clock, count: int, *, waiting: float = 0.0) -> Iterator[np.ndarray]:
    for _ in range(count):
        clock.now += waiting
        yield np.zeros(800, np.float32)


def test_latency_is_the_sound_heard_since_and_the_work() -> None:
    clock = Clock()
    meter = LatencyMeter(RATE, clock=clock)
    for number, _ in enumerate(meter.watch(blocks(clock, 10, waiting=5.0))):
        clock.now += 0.02
        if number == 6:
            meter.answered(0.35)
    assert meter.latency.total == 1
    assert meter.latency.quantile(0.5) == pytest.approx(0.7 - 0.35 + 0.02, rel=0.02)  # waiting is no latency
    assert meter.real_time_factor == pytest.approx(0.2)
    assert meter.heard == pytest.approx(1.0)
    assert meter.summary() == (
        "1.0 s of sound, 1 answers; from the end of speech to its text: median 0.37 s, 95th percentile 0.37 s; "
        "0.200 s of work a second of sound"
    )


def test_work_that_piles_up_is_latency() -> None:
    clock = Clock()
    meter = LatencyMeter(RATE, clock=clock)
    for number, _ in enumerate(meter.watch(blocks(clock, 100))):
        clock.now += 0.5 if number == 0 else 0.05  # 0.4 s behind, then 0.05 s made good with each block
        if number in (1, 4, 50):
            meter.latency = type(meter.latency)()
            meter.answered(meter.heard)
            behind = max(0.4 - 0.05 * (number - 1), 0.0)
            assert meter.latency.quantile(0.5) == pytest.approx(0.05 + behind, rel=0.02)


def test_nothing_heard() -> None:
    meter = LatencyMeter(RATE)
    assert list(meter.watch([])) == []
    assert meter.summary() == "0.0 s of sound, 0 answers; 0.000 s of work a second of sound"
