"""Live transcription: the same events however the sound is cut, the words of the offline reading, constant memory."""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
import pathlib
import struct
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.data.formats.audio import AudioOptions, read_audio, write_wav
from pipelines.errors import ConfigError, InputError
from pipelines.transcribe.decoding.ctc import greedy
from pipelines.transcribe.features import Features, FeatureStream
from pipelines.transcribe.hearing import Listener
from pipelines.transcribe.models.recogniser import Recogniser
from pipelines.transcribe.options import DecodeOptions
from pipelines.transcribe.piped import from_standard_input
from pipelines.transcribe.pipeline import Transcriber
from pipelines.transcribe.reading import corpus_of
from pipelines.transcribe.segments import Segmenter, SegmentOptions
from pipelines.transcribe.streaming import LiveTranscription
from pipelines.transcribe.streaming_greedy import GrowingText, Stretches

RATE = 8000
GREEDY = DecodeOptions(method="greedy")
SHORT = SegmentOptions(longest=3.0, overlap=0.6)


def chosen() -> list[tuple[str, str]]:
    found = [one for one in corpus_of("phrases").utterances if len(one.text or "") > 3][:12]
    return [(str(one.source), one.text or "") for one in found]


def fitted(*, causal: bool) -> Transcriber:
    """A tiny model whose random head writes letters and spaces without end."""
    t = Transcriber(
        arch={"dim": 16, "layers": 2, "decoder_layers": 0},  # type: ignore[arg-type]
        causal=causal,
        sound={"rate": RATE, "mels": 40},  # type: ignore[arg-type]
        train={"epochs": 1, "patience": 0},  # type: ignore[arg-type]
        decode=GREEDY,
        valid=0.3,
        device="cpu",
    ).fit(chosen())
    generator = torch.Generator().manual_seed(3)
    space = t.state.units.encode(" ")[0]
    with torch.no_grad():
        t.state.module.head.weight.normal_(0, 1.5, generator=generator)
        t.state.module.head.bias.zero_()[space] = 6.0
    return t


@pytest.fixture(scope="module")
def causal() -> Transcriber:
    return fitted(causal=True)


@pytest.fixture(scope="module")
def both() -> Transcriber:
    return fitted(causal=False)


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    """Real phrases with pauses of 0.8 s, some 20 s."""
    rng = np.random.default_rng(0)
    parts = [np.zeros(RATE, np.float32)]
    for path, _ in chosen()[:6]:
        parts += [read_audio(path, rate=RATE).samples, rng.normal(0, 1e-4, 6400).astype(np.float32)]
    return np.concatenate(parts)


def altered(t: Transcriber, **changes: Any) -> Transcriber:
    """The same model with other options of the call."""
    twin = t.clone(**changes)
    twin._state, twin._fitted = t.state, True
    return twin


def told(live: LiveTranscription, sound: np.ndarray, sizes: list[int] | None = None) -> list[dict[str, Any]]:
    events, place, number = [], 0, 0
    while place < len(sound):
        size = len(sound) if sizes is None else sizes[number % len(sizes)]
        events += live.push(sound[place : place + size])
        place, number = place + size, number + 1
    return events + live.flush()


def finals(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["kind"] == "final"]


# The same as offline ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["causal", "both"])
def test_the_cutting_into_blocks_changes_no_event(kind: str, sound: np.ndarray, request: Any) -> None:
    t, sound = altered(request.getfixturevalue(kind), segment=SHORT), sound[: 10 * RATE]
    whole = told(t.stream(), sound)
    assert len(finals(whole)) > 3
    rng = np.random.default_rng(1)
    for sizes in ([1777], [int(size) for size in rng.integers(1, 5000, 9)], [33, 1, 250, 399]):
        assert told(t.stream(), sound, sizes) == whole


@pytest.mark.parametrize("kind", ["causal", "both"])
@pytest.mark.parametrize("segment", [SHORT, SegmentOptions(longest=8.0, overlap=1.0)])
def test_all_finals_are_the_words_of_the_offline_reading(
    kind: str, segment: SegmentOptions, sound: np.ndarray, request: Any
) -> None:
    t = altered(request.getfixturevalue(kind), segment=segment)
    cuts = Segmenter(RATE, segment)
    assert any(piece.forced for piece in cuts.push(sound) + cuts.flush()) == (segment is SHORT)
    offline = [word for item in t.predict((sound, RATE)).items for word in item.words]
    live = [word for event in finals(told(t.stream(), sound)) for word in event["words"]]
    assert [word["text"] for word in live] == [word.text for word in offline]
    assert len(live) > 20
    for one, two in zip(live, offline, strict=True):
        assert one["start"] == pytest.approx(two.start, abs=6e-4)
        assert one["end"] == pytest.approx(two.end, abs=6e-4)
        assert one["confidence"] == two.confidence
    for event in finals(told(t.stream(), sound)):
        assert event["text"] == " ".join(word["text"] for word in event["words"])
        assert (event["start"], event["end"]) == (event["words"][0]["start"], event["words"][-1]["end"])


@pytest.mark.parametrize(
    ("kind", "attention"), [("samba", "selective_ssm"), ("conformer", "selective_ssm"), ("samba", "legendre")]
)
def test_a_causal_encoder_in_pieces_equals_the_whole(kind: str, attention: str, sound: np.ndarray) -> None:
    torch.manual_seed(0)
    model = Recogniser(20, 40, kind=kind, dim=16, layers=2, decoder_layers=0, attention=attention, causal=True).eval()
    features = Features(RATE, 40).standardised([torch.from_numpy(sound)])
    samples = torch.from_numpy(sound[RATE : 4 * RATE + 37])
    rng = np.random.default_rng(2)
    with torch.no_grad():
        given = features(samples)
        whole, _ = model.encode(given.unsqueeze(0), torch.tensor([len(given)]))
        stream, state, parts, place = FeatureStream(features), None, [], 0
        while place < len(samples):
            size = int(rng.integers(1, 900))
            part, state = model.encode_piece(stream.push(samples[place : place + size]).unsqueeze(0), state)
            parts.append(part)
            place += size
        part, state = model.encode_piece(stream.flush().unsqueeze(0), state)
    pieces = torch.cat([*parts, part], 1)
    assert pieces.shape == whole.shape
    assert state is not None
    assert state.frames == whole.shape[1]
    torch.testing.assert_close(pieces, whole, atol=1e-5, rtol=0)


def test_the_growing_text_ends_as_the_best_path_of_the_whole_stretch(causal: Transcriber, sound: np.ndarray) -> None:
    listener, rng = Listener(causal.state, GREEDY), np.random.default_rng(4)
    segmenter = Segmenter(RATE)
    pieces = segmenter.push(sound) + segmenter.flush()
    assert len(pieces) > 4
    for piece in pieces:
        growing, place = GrowingText(causal.state), 0
        while place < len(piece.samples):
            size = int(rng.integers(1, 1200))
            growing.push(piece.samples[place : place + size])
            place += size
        growing.finish()
        assert growing.ids == list(greedy(listener.frames(piece.samples)[1]).ids)
        assert growing.text == listener.text(piece.samples)
        assert len(growing.ids) > 10


# Partials -----------------------------------------------------------------------------------------------------------


def test_partials_grow_into_the_final(causal: Transcriber, sound: np.ndarray) -> None:
    shown: list[dict[str, Any]] = []
    counted = 0
    for event in told(causal.stream(), sound, [400]):
        if event["kind"] == "partial":
            assert list(event) == ["kind", "start", "text"]
            assert event["text"] != (shown[-1]["text"] if shown else "")
            assert event["start"] == (shown[0] if shown else event)["start"]
            shown.append(event)
            continue
        assert len(shown) > 3
        for partial in shown:
            assert event["text"].startswith(partial["text"])
        assert shown[-1]["start"] <= event["start"]
        assert len(shown[-1]["text"]) > 0.7 * len(event["text"]), "the last partial has nearly all"
        shown, counted = [], counted + 1
    assert counted > 4
    assert not shown


def test_partials_come_while_someone_speaks(causal: Transcriber, sound: np.ndarray) -> None:
    first = finals(told(causal.stream(), sound))[0]
    live = causal.stream()
    for place in range(0, len(sound), 400):
        for event in live.push(sound[place : place + 400]):
            assert event["kind"] == "partial"
            assert (place + 400) / RATE < first["end"], "before the speech has ended"
            return
    pytest.fail("nothing was told")


def test_after_a_cut_the_partial_begins_with_the_words_that_are_held_back(
    causal: Transcriber, sound: np.ndarray
) -> None:
    speech = np.concatenate([sound[:RATE], *(np.trim_zeros(read_audio(p, rate=RATE).samples) for p, _ in chosen())])
    events = told(altered(causal, segment=SHORT).stream(), speech)
    found = 0
    for one, two in itertools.pairwise(events):
        if one["kind"] == "final" and two["kind"] == "partial":
            found += two["start"] > one["end"] - 0.05
            assert two["start"] >= one["end"] - 0.25
    assert found > 2


@pytest.mark.parametrize("why", ["bidirectional", "unwanted"])
def test_no_partials(why: str, causal: Transcriber, both: Transcriber, sound: np.ndarray) -> None:
    live = both.stream() if why == "bidirectional" else causal.stream(partials=False)
    events = told(live, sound)
    assert events == finals(events)
    assert len(events) > 4


def test_a_text_is_taken_back_where_there_was_no_speech(causal: Transcriber, sound: np.ndarray) -> None:
    t = altered(causal, segment=SegmentOptions(shortest=1.3, longest=8.0))
    stretches = Stretches(RATE, SegmentOptions(longest=8.0))
    piece = stretches.push(sound)[0]
    begin = round((piece.start + 0.15) * RATE)
    burst = np.concatenate([sound[: begin + RATE], sound[:RATE]])
    events = told(t.stream(), burst)
    assert not finals(events)
    assert len(events) > 1
    assert [event["text"] == "" for event in events] == [False] * (len(events) - 1) + [True]


# Silence, noise, memory, streams one after the other ------------------------------------------------------------------


def test_nothing_is_said_about_silence_and_noise(causal: Transcriber, both: Transcriber) -> None:
    rng = np.random.default_rng(0)
    hiss = rng.normal(0, 0.01, 6 * RATE).astype(np.float32)
    for t in (causal, both):
        for quiet in (np.zeros(5 * RATE, np.float32), hiss, np.zeros(0, np.float32), np.zeros(7, np.float32)):
            assert told(t.stream(), quiet) == []


def test_flush_begins_anew_and_reset_forgets(causal: Transcriber, sound: np.ndarray) -> None:
    live = causal.stream()
    first = told(live, sound)
    assert told(live, sound) == first, "times begin at 0 again"
    live.push(sound[: 2 * RATE])
    live.reset()
    assert told(live, sound) == first
    assert live.flush() == []


def test_blocks_that_are_no_sound(both: Transcriber, sound: np.ndarray) -> None:
    live = both.stream()
    for bad in (np.zeros((2, 3), np.float32), np.array([0.0, np.nan], np.float32)):
        with pytest.raises(InputError, match=r"block: .*finite samples"):
            live.push(bad)
    assert told(live, sound) == told(both.stream(), sound), "what was refused has left nothing behind"


def test_the_caller_may_use_the_buffer_again(both: Transcriber, sound: np.ndarray) -> None:
    live, buffer, events = both.stream(), np.zeros(333, np.float32), []
    for place in range(0, len(sound), 333):
        part = sound[place : place + 333]
        buffer[: len(part)] = part
        events += live.push(buffer[: len(part)])
    assert events + live.flush() == told(both.stream(), sound)


def test_an_interrupted_reading_is_done_by_flush(
    both: Transcriber, sound: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = told(both.stream(), sound)
    live, events, calls = both.stream(), [], []
    words = live._listener.words

    def stopped(samples: np.ndarray, offset: float = 0.0) -> Any:
        calls.append(offset)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return words(samples, offset)

    monkeypatch.setattr(live._listener, "words", stopped)
    with contextlib.suppress(KeyboardInterrupt):
        for place in range(0, len(sound), 800):
            events += live.push(sound[place : place + 800])
    assert len(events) == 1
    assert events + live.flush() == whole[:2]


@pytest.mark.parametrize(("kind", "minutes"), [("causal", 0.7), ("both", 3)])
def test_memory_does_not_grow(kind: str, minutes: float, sound: np.ndarray, request: Any) -> None:
    live = altered(request.getfixturevalue(kind), segment=SHORT).stream()
    sound = sound[: 10 * RATE]
    heard, peaks, count = 0, [], 0
    tracemalloc.start()
    try:
        while heard < minutes * 60 * RATE:
            for place in range(0, len(sound), 800):
                count += len(live.push(sound[place : place + 800]))
            heard += len(sound)
            gc.collect()  # NumPy's views of windows lie in cycles
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.reset_peak()
    finally:
        tracemalloc.stop()
    assert count > 20 * minutes
    assert max(peaks[2:]) < max(peaks[:2]) + 60_000, "less than two seconds of sound"


# Whole sources ------------------------------------------------------------------------------------------------------


def test_a_file_from_its_beginning_to_its_end(causal: Transcriber, sound: np.ndarray, tmp_path: pathlib.Path) -> None:
    write_wav(tmp_path / "a.wav", np.stack([sound, sound], 1), RATE)
    live, notes = causal.stream(), list[str]()
    events = list(live.events(str(tmp_path / "a.wav"), notes.append))
    assert len(finals(events)) == len(finals(told(causal.stream(), sound)))
    assert any("2 channels mixed to one" in note and "a.wav" in note for note in notes)
    meter = live._meter
    assert meter.latency.total == len(finals(events))
    assert meter.heard == pytest.approx(len(sound) / RATE)
    assert 0.25 < meter.latency.quantile(0.5) < 1.0, "the pause, a block and the work"
    again = list(live.events(str(tmp_path / "a.wav")))
    assert again == events
    assert meter.latency.quantile(1.0) < 2.0, "seconds of the second source count from its own beginning"
    assert f"{2 * len(sound) / RATE:,.1f} s of sound" in live.summary()


def wav_bytes(samples: np.ndarray, *, size: int | None = None, bits: int = 16, extensible: bool = False) -> bytes:
    if bits == 16:
        data = (samples * 32767).astype("<i2").tobytes()
    else:
        wide = (samples.astype(np.float64) * (2**31 - 1)).astype("<i4").view(np.uint8).reshape(-1, 4)
        data = wide[:, 1:].tobytes()
    kind = 0xFFFE if extensible else 1
    layout = struct.pack("<HHIIHH", kind, 1, RATE, RATE * bits // 8, bits // 8, bits)
    if extensible:
        layout += struct.pack("<HHI", 22, bits, 4) + struct.pack("<H", 1) + bytes(14)
    chunks = b"LIST" + struct.pack("<I", 3) + b"abc\0" + b"fmt " + struct.pack("<I", len(layout)) + layout
    length = len(data) if size is None else size
    return b"RIFF" + struct.pack("<I", 0) + b"WAVE" + chunks + b"data" + struct.pack("<I", length) + data


def piped(content: bytes, **how: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    class Pipe(io.RawIOBase):
        """Gives a few bytes at a time and cannot go back."""

        place = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            part = content[self.place : self.place + min(len(buffer), 777)]
            buffer[: len(part)] = part
            self.place += len(part)
            return len(part)

    how = {"target_rate": RATE, "options": AudioOptions(), **how}
    with from_standard_input(io.BufferedReader(Pipe()), **how) as live:
        return np.concatenate(list(live)), live.notes


@pytest.mark.parametrize("way", ["plain", "open", "zero", "long", "24", "extensible"])
def test_a_wav_header_on_standard_input_is_noticed(way: str, sound: np.ndarray) -> None:
    samples = sound[: 3 * RATE]
    shapes: dict[str, dict[str, Any]] = {
        "plain": {},
        "open": {"size": 0xFFFFFFFF},
        "zero": {"size": 0},
        "long": {"size": 2 * len(samples) + 400},
        "24": {"bits": 24},
        "extensible": {"extensible": True, "bits": 24},
    }
    content = wav_bytes(samples, **shapes[way]) + (b"LIST" + bytes(400) if way == "plain" else b"")
    found, notes = piped(content, rate=44_100, encoding="f32le", channels=2)
    np.testing.assert_allclose(found, samples, atol=1 / 16384)
    assert len(found) == len(samples), "what stands behind the sound is no sound"
    assert notes[-1 if way != "long" else -2].startswith(
        f"a WAV header: {RATE} Hz, s{24 if 'e' in way[:1] else ''}"[:24]
    )
    assert any("400 bytes that the WAV header promises" in note for note in notes) == (way == "long")


def test_other_files_and_raw_samples_on_standard_input(sound: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pathlib.Path(chosen()[0][0])
    expected = read_audio(path, rate=RATE).samples
    found, _ = piped(path.read_bytes())
    np.testing.assert_array_equal(found, expected)
    stereo = np.stack([sound[:RATE], np.zeros(RATE)], 1).astype("<f4").tobytes()
    found, notes = piped(stereo, rate=RATE, encoding="f32le", channels=2)
    np.testing.assert_allclose(found, sound[:RATE] / 2, atol=1e-7)
    assert any("2 channels mixed" in note for note in notes)
    found, notes = piped((sound[:RATE] * 32767).astype("<i2").tobytes(), rate=16_000)
    assert len(found) == pytest.approx(RATE / 2, abs=2)
    assert any("resampled from 16000 to 8000 Hz" in note for note in notes)
    with pytest.raises(InputError, match="no sound in it"):
        piped(b"")
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ConfigError, match="standard input is closed"):
        from_standard_input(None, target_rate=RATE, options=AudioOptions())
