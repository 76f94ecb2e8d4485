"""Bad recordings: one message each, with the cure; damaged files never end in a traceback, a hang or full memory."""

from __future__ import annotations

import io
import os
import pathlib
import random
import struct
import subprocess
import sys
import time
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from pipelines.data.errors import InputError
from pipelines.data.formats.audio import Audio, AudioOptions, find_audio, open_audio, read_audio, read_pcm

REPO = pathlib.Path(__file__).resolve().parents[2]
RATE = 16000
NOISE = (np.random.default_rng(0).standard_normal(3 * RATE) / 9).astype(np.float32)
SUBTYPES = {"wav": "PCM_16", "aiff": "PCM_16", "flac": "PCM_16", "ogg": "VORBIS", "mp3": "MPEG_LAYER_III"}
CUT = AudioOptions(accept_truncated=True)


def _sound(kind: str) -> bytes:
    """Three sound seconds of noise in a format."""
    file = io.BytesIO()
    if kind in SUBTYPES:
        soundfile.write(file, NOISE, RATE, format=kind.upper(), subtype=SUBTYPES[kind])
        return file.getvalue()
    with av.open(file, "w", format="mp4") as container:
        adder: Any = container
        stream = adder.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(NOISE[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        resampler = av.AudioResampler("fltp", "mono", RATE, frame_size=1024)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return file.getvalue()


SOUND = {kind: _sound(kind) for kind in ("wav", "aiff", "flac", "ogg", "mp3", "m4a")}


def _wav(*, rate: int = RATE, channels: int = 1, tag: int = 1, bits: int = 16, data: bytes = bytes(200)) -> bytes:
    width = channels * bits // 8
    layout = struct.pack("<IHHIIHH", 16, tag, channels, rate, rate * width, width, bits)
    body = b"WAVEfmt " + layout + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _flipped(kind: str, place: float, bit: int = 4) -> bytes:
    content = bytearray(SOUND[kind])
    content[int(len(content) * place)] ^= bit
    return bytes(content)


def _floats(*faults: tuple[int, float]) -> bytes:
    values = NOISE.copy()
    for place, value in faults:
        values[place] = value
    return _wav(tag=3, bits=32, data=values.astype("<f4").tobytes())


CASES: dict[str, tuple[str, bytes, str]] = {
    "zero size": ("a.wav", b"", r"the file is empty. Found: 0 bytes"),
    "text": (
        "a.wav",
        b"Dear all, see below.\n",
        r"not sound. Found: text that begins with b'Dear all.*Expected: sound",
    ),
    "image": ("a.mp3", b"\x89PNG\r\n\x1a\n" + bytes(99), "not sound. Found: a PNG image"),
    "archive": ("a.flac", b"PK\x03\x04" + bytes(99), r"Found: a zip archive.*Cure: unpack it first"),
    "zeros": ("a.wav", bytes(5000), "nothing but zeros in the first 5,000 of 5,000 bytes"),
    "binary": ("a.ogg", b"\x01\x02\x03\x04" * 99, "unknown bytes 01 02 03 04"),
    "raw": ("a.raw", b"\x01\x02\x03\x04" * 99, r"without a header.*Cure: .*pipelines transcribe stream - < a\.raw"),
    "film without sound": ("a.avi", b"RIFF" + bytes(4) + b"AVI ", "the sound is damaged. Found: the AVI cannot be"),
    "header only": ("a.wav", _wav(data=b""), r"there is no sound in it. Found: a header and 0 samples"),
    "rate 0": ("a.wav", _wav(rate=0), r"the sampling rate cannot be. Found: 0 Hz. Expected: 1,000 to"),
    "rate too high": ("a.wav", _wav(rate=10**9), "the sampling rate cannot be. Found: 1000000000 Hz"),
    "no channel": ("a.wav", _wav(channels=0), "the header cannot be read"),
    "encoding that nobody has": ("a.wav", _wav(tag=0x1234), "cannot be opened|cannot be decoded|cannot be read"),
    "NaN": (
        "a.wav",
        _floats((8000, np.nan), (8003, np.inf), (15999, -np.inf)),
        r"samples that are no numbers. Found: 3 that are not finite, the first at 0.500 s",
    ),
    "cut wav": (
        "a.wav",
        SOUND["wav"][:-16000],
        r"ends before its sound does. Found: 2.50 s. Expected: 3.00 s as",
    ),
    "cut flac": ("a.flac", SOUND["flac"][:-9000], r"the sound is damaged at 0.00 s. Found: flac decoder lost sync"),
    "cut ogg": ("a.ogg", SOUND["ogg"][:-500], r"ends before its sound does. Found: [\d,]+ bytes of a page"),
    "cut mp3": ("a.mp3", SOUND["mp3"][:-1000], r"ends before its sound does. Found: 2.\d\d s. Expected: 3.\d\d s as"),
    "cut m4a": ("a.m4a", SOUND["m4a"][:-1000], r"cut or never finished. Found: no index \(moov\)"),
    "flipped flac": ("a.flac", _flipped("flac", 0.5), "the sound is damaged"),
    "flipped ogg": (
        "a.ogg",
        _flipped("ogg", 0.7),
        r"damaged. Found: [\d,]+ bytes from byte [\d,]+ on are no intact page",
    ),
    "garbled mp3": (
        "a.mp3",
        SOUND["mp3"][:2000] + b"?" * 99 + SOUND["mp3"][2000:],
        r"damaged at 0.\d\d s. Found: [\d,]+ b",
    ),
    "garbled m4a": ("a.m4a", SOUND["m4a"][:2000] + bytes(900) + SOUND["m4a"][2900:], "the sound is damaged"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_recording(name: str, tmp_path: pathlib.Path) -> None:
    file, content, message = CASES[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_audio(tmp_path / file)
    assert str(caught.value).startswith(file)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=message), open_audio(tmp_path / file) as stream:
        list(stream)


def test_no_file_a_folder_a_device_a_link(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "near.wav").write_bytes(SOUND["wav"])
    with pytest.raises(InputError, match=r"no such file.*near\.wav"):
        read_audio(tmp_path / "far.wav")
    with pytest.raises(InputError, match="is a folder"):
        read_audio(tmp_path)
    with pytest.raises(InputError, match="is not a regular file"):
        read_audio(os.devnull)
    (tmp_path / "link.wav").symlink_to("nowhere.wav")
    with pytest.raises(InputError, match="a link to a file that does not exist"):
        read_audio(tmp_path / "link.wav")
    with pytest.raises(InputError, match="no such folder"):
        find_audio(tmp_path / "none")

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pathlib.Path, "open", refused)  # the tests may run as root, who may read everything
    with pytest.raises(InputError, match=r"may not be read.*Cure: change its permissions"):
        read_audio(tmp_path / "near.wav")


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_what_is_there_of_a_cut_file(kind: str) -> None:
    content = SOUND[kind]
    whole = read_audio(content)
    cut = content[: len(content) * 3 // 4]
    with pytest.raises(InputError, match=r"ends before|damaged"):
        read_audio(cut)
    audio = read_audio(cut, options=CUT)
    assert [note for note in audio.notes if note.startswith("cut short: ")]
    assert 0.4 * len(whole.samples) < len(audio.samples) < len(whole.samples)
    # The last frames of lossy formats lack what overlaps them.
    certain = len(audio.samples) - (0 if kind in ("wav", "flac") else 3000)
    np.testing.assert_allclose(audio.samples[:certain], whole.samples[:certain], atol=1e-6)


def test_channels_times_and_types_that_are_not_there() -> None:
    stereo = (np.stack([NOISE, NOISE], 1), RATE)
    with pytest.raises(InputError, match=r"no channel 2. Found: 2 channels.*Cure: choose 0 to 1, or mix"):
        read_audio(stereo, options=AudioOptions(channel=2))
    for wrong in (-1, True, "left"):
        bad: Any = wrong
        with pytest.raises(InputError, match="no such channel"):
            AudioOptions(channel=bad)
    with pytest.raises(InputError, match=r"nothing at this time. Found: 3.000 s of sound. Expected: more than 4.000 s"):
        read_audio(SOUND["wav"], start=4)
    bad_times: Any = ({"start": -1}, {"start": np.nan}, {"seconds": 0}, {"seconds": np.inf})
    for times in bad_times:
        with pytest.raises(InputError, match="no such"):
            read_audio(SOUND["wav"], **times)
    for samples in (np.zeros(9, complex), np.zeros(9, np.int64), np.zeros(9, bool), np.zeros((2, 2, 2)), np.array("x")):
        with pytest.raises(InputError, match=r"cannot be read as sound|another shape"):
            read_audio((samples, RATE))
    with pytest.raises(InputError, match="transpose"):
        read_audio((np.zeros((2, 9000)), RATE))
    for rate in (0, -8000, 16000.5, None, "16 kHz"):
        with pytest.raises(InputError, match="rate"):
            read_audio((NOISE, rate))
    for source in (None, 7, ["a.wav"], (NOISE,)):
        with pytest.raises(InputError, match="cannot be read as sound"):
            read_audio(source)
    with pytest.raises(InputError, match=r"gives text.*rb"):
        read_audio(io.StringIO("RIFF"))
    with pytest.raises(InputError, match="there is no sound in it"):
        read_audio((np.zeros(0), RATE))


def test_too_long_and_far_too_long() -> None:
    with pytest.raises(
        InputError, match=r"longer than allowed. Found: .* hours. Expected: at most 0.0001 hours.*raise"
    ):
        read_audio(SOUND["wav"], options=AudioOptions(limit_hours=0.0001))
    assert read_audio(SOUND["wav"], options=AudioOptions(limit_hours=0.0001), seconds=0.1).seconds == 0.1
    forged = bytearray(SOUND["flac"])
    forged[22:26] = b"\xff" * 4  # the header promises 2^32 samples
    with pytest.raises(InputError, match="longer than allowed"):
        read_audio(bytes(forged))


def test_pipes() -> None:
    with pytest.raises(InputError, match="there is no sound in it"):
        list(read_pcm(io.BytesIO(b""), rate=RATE))
    with pytest.raises(InputError, match=r"no such encoding of samples. Found: mp3. Expected: s8, u8, s16le"):
        read_pcm(io.BytesIO(b""), rate=RATE, encoding="mp3")
    values = NOISE[:4000].copy()
    values[2000] = np.nan
    stream = read_pcm(io.BytesIO(values.tobytes()), rate=RATE, encoding="f32le")
    with pytest.raises(InputError, match=r"1 that are not finite, the first at 0\.125 s"):
        list(stream)


def test_ten_milliseconds_high_rates_and_eight_bits() -> None:
    short = read_audio(_wav(data=bytes(320)), rate=8000)
    assert (len(short.samples), short.notes[-1]) == (80, "silence: no sample above -90 dB")
    high = read_audio(_wav(rate=192_000, data=bytes(2 * 19_200)), rate=RATE)
    assert len(high.samples) == 1600
    eight = read_audio(_wav(bits=8, data=bytes([128, 255, 0, 128])))
    assert eight.samples.tolist() == [0, 127 / 128, -1, 0]


def test_headers_that_contradict_themselves_and_odd_ends() -> None:
    content = bytearray(_wav(data=NOISE.astype("<f4").tobytes()))
    content[24:28] = struct.pack("<I", 44100)  # the rate alone: bytes a second still say 16,000
    assert (
        "contradicts itself (1 x 16 bits at 44100 Hz, but 2 bytes a sample and 32,000"
        in read_audio(bytes(content)).notes[0]
    )
    assert "1 byte at the end is no whole sample" in read_audio(_wav(data=bytes(201))).notes[0]
    assert "900 bytes behind the end" in read_audio(_wav(data=bytes(200)) + b"\1" * 900).notes[0]
    with pytest.raises(InputError, match="there are no bytes"):
        read_audio(b"")


def _variant(content: bytes, how: str, rnd: random.Random) -> bytes:
    damaged = bytearray(content)
    place = rnd.randrange(len(damaged))
    if how == "cut":
        del damaged[max(1, place) :]
    elif how == "flip":
        for _ in range(rnd.choice((1, 20))):
            damaged[rnd.randrange(len(damaged))] ^= 1 << rnd.randrange(8)
    elif how == "head":
        for _ in range(rnd.randrange(1, 6)):
            damaged[rnd.randrange(200)] = rnd.choice((0, 255, 127, 128, rnd.randrange(256)))
    elif how == "zeros":
        damaged[place : place + 900] = bytes(len(damaged[place : place + 900]))
    elif how == "drop":
        del damaged[place : place + rnd.randrange(1, 500)]
    else:
        damaged[place:place] = rnd.randbytes(rnd.randrange(1, 500))
    return bytes(damaged)


@pytest.mark.parametrize("kind", SOUND)
def test_damage_ends_in_a_message_or_in_sound(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    rnd = random.Random(kind)
    whole = read_audio(SOUND[kind])
    refused = 0
    for number in range(60):
        how = ("cut", "flip", "head", "zeros", "drop", "insert")[number % 6]
        content = _variant(SOUND[kind], how, rnd)
        begin = time.monotonic()
        for options in (AudioOptions(), CUT):
            try:
                audio = read_audio(content, options=options)
            except InputError:
                refused += 1
                continue
            assert np.isfinite(audio.samples).all()
            assert kind not in ("flac", "ogg") or how == "cut" or _honest(audio, whole)
        assert time.monotonic() - begin < 5
    assert refused > 10
    assert capfd.readouterr() == ("", "")  # no decoder talks to the terminal


def _honest(audio: Audio, whole: Audio) -> bool:
    """These formats have checksums: what is not said to be cut is the very sound."""
    if any(note.startswith("cut short") for note in audio.notes):
        return True
    return len(audio.samples) == len(whole.samples) and bool(np.abs(audio.samples - whole.samples).max() < 1e-6)


def test_a_playlist_opens_nothing_else(tmp_path: pathlib.Path) -> None:
    """FFmpeg follows lists of files and addresses where it may guess what a file is."""
    (tmp_path / "secret.wav").write_bytes(SOUND["wav"])
    for content in (
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.wav\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile secret.wav\n",
    ):
        (tmp_path / "list.mp3").write_bytes(content)
        with pytest.raises(InputError, match=r"not sound\. Found: text"):
            read_audio(tmp_path / "list.mp3")


def test_a_file_that_breaks_off_leaves_no_open_file(tmp_path: pathlib.Path) -> None:
    if not pathlib.Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc")
    for kind, content in SOUND.items():
        (tmp_path / f"a.{kind}").write_bytes(content[: len(content) // 2])
    code = f"""
import os, pathlib
from pipelines.data.errors import InputError
from pipelines.data.formats.audio import read_audio
paths = sorted(pathlib.Path({str(tmp_path)!r}).iterdir())
def once():
    for path in paths:
        try:
            read_audio(path)
        except InputError:
            pass
    return len(os.listdir("/proc/self/fd"))
once()
print(once() - once(), len(paths))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPO)
    assert (done.stdout, done.stderr) == ("0 6\n", "")
