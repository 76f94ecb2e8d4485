"""Recordings: every format gives the same sound, channels change as said, blocks and stretches fit the whole."""

from __future__ import annotations

import io
import os
import pathlib
import struct
import subprocess
import sys
import wave
import zipfile
from collections.abc import Callable
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from pipelines.data.errors import InputError
from pipelines.data.formats.audio import AudioOptions, find_audio, open_audio, read_audio, read_pcm, write_wav
from pipelines.data.formats.audio_ogg import scan_ogg
from pipelines.data.formats.audio_source import open_source

REPO = pathlib.Path(__file__).resolve().parents[2]
DATA = pathlib.Path(os.environ.get("PIPELINES_DATA") or REPO.parent / "shared" / "data") / "embeddable"
RATE = 16000
TIME = np.arange(2 * RATE) / RATE
#: Two seconds of a gliding tone with a swelling loudness: no part of it fits elsewhere.
SOUND = (0.4 * np.sin(2 * np.pi * (300 + 500 * TIME) * TIME) * np.sin(np.pi * TIME / 2) ** 2).astype(np.float32)


def save(path: pathlib.Path, kind: str, subtype: str = "PCM_16", sound: np.ndarray = SOUND, rate: int = RATE) -> None:
    soundfile.write(path, sound, rate, format=kind, subtype=subtype)


def encode(path: pathlib.Path, muxer: str, codec: str, rate: int = RATE, tracks: int = 1, film: bool = False) -> None:
    """The sound by FFmpeg, perhaps in several tracks, perhaps beside a moving picture."""
    with av.open(str(path), "w", format=muxer) as container:
        adder: Any = container
        streams = [adder.add_stream(codec, rate=rate, layout="mono") for _ in range(tracks)]
        if film:
            picture = adder.add_stream("mpeg4", rate=10)
            picture.width = picture.height = 32
            for _ in range(20):
                frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
                container.mux(picture.encode(frame))
            container.mux(picture.encode(None))
        for number, stream in enumerate(streams):
            values = np.round(SOUND / (1 + number) * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(values[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE, 0
            resampler = av.AudioResampler(
                stream.format, "mono", rate, frame_size=stream.codec_context.frame_size or 1024
            )
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(stream.encode(part))
            container.mux(stream.encode(None))


LIBSNDFILE = {
    "wav": ("WAV", "PCM_16", 16, 4e-5),
    "flac": ("FLAC", "PCM_16", 16, 4e-5),
    "ogg": ("OGG", "VORBIS", None, 0.06),
    "opus": ("OGG", "OPUS", None, 0.06),
    "aiff": ("AIFF", "PCM_16", 16, 4e-5),
    "w64": ("W64", "PCM_24", 24, 1e-6),
    "caf": ("CAF", "PCM_16", 16, 4e-5),
    "au": ("AU", "PCM_16", 16, 4e-5),
}
#: FFmpeg writes the last two with 8 bits unless it is told otherwise.
FFMPEG = {
    "m4a": ("mp4", "aac", 16000, "MP4", 0.03),
    "mov": ("mov", "pcm_s16le", 16000, "MP4", 5e-5),
    "mka": ("matroska", "aac", 16000, "Matroska", 0.03),
    "webm": ("webm", "libopus", 48000, "Matroska", 0.06),
    "avi": ("avi", "pcm_s16le", 16000, "AVI", 5e-5),
    "wv": ("wv", "wavpack", 16000, "WavPack", 0.009),
    "tta": ("tta", "tta", 16000, "True Audio", 0.009),
}


def saved(folder: pathlib.Path, ending: str) -> pathlib.Path:
    """The sound in a format."""
    path = folder / f"a.{ending}"
    if ending in LIBSNDFILE:
        save(path, LIBSNDFILE[ending][0], LIBSNDFILE[ending][1])
    elif ending == "mp3":
        save(path, "MP3", "MPEG_LAYER_III")
    else:
        muxer, codec, rate, *_ = FFMPEG[ending]
        encode(path, muxer, codec, rate)
    return path


@pytest.mark.parametrize("ending", LIBSNDFILE)
def test_formats_of_libsndfile(ending: str, tmp_path: pathlib.Path) -> None:
    container, encoding, bits, close = LIBSNDFILE[ending]
    audio = read_audio(saved(tmp_path, ending))
    assert (audio.rate, audio.source, audio.notes) == (RATE, f"a.{ending}", ())
    assert (audio.facts.container, audio.facts.encoding, audio.facts.bits) == (container, encoding, bits)
    assert audio.facts.seconds == audio.seconds == 2.0
    assert audio.samples.dtype == np.float32
    np.testing.assert_allclose(audio.samples, SOUND, atol=close)


@pytest.mark.parametrize("ending", [*FFMPEG, "mp3"])
def test_formats_of_ffmpeg(ending: str, tmp_path: pathlib.Path) -> None:
    _, codec, _, container, close = FFMPEG.get(ending, ("mp3", "mp3", RATE, "MP3", 0.06))
    audio = read_audio(saved(tmp_path, ending), rate=RATE)
    assert audio.facts.container == container
    assert audio.facts.encoding == codec.removeprefix("lib")
    assert [note for note in audio.notes if "resampled" not in note] == []
    assert len(SOUND) <= len(audio.samples) <= len(SOUND) + 1100  # AAC fills its last frame
    np.testing.assert_allclose(audio.samples[: len(SOUND)], SOUND, atol=close)


@pytest.mark.parametrize("ending", ["aac", "ts"])
def test_streams_without_a_header_of_the_whole(ending: str, tmp_path: pathlib.Path) -> None:
    """These keep the encoder's delay of 1024 samples: nothing in them says how long it is."""
    path = tmp_path / f"a.{ending}"
    encode(path, {"aac": "adts", "ts": "mpegts"}[ending], "aac")
    audio = read_audio(path)
    assert audio.facts.seconds is None
    np.testing.assert_allclose(audio.samples[1024 : 1024 + len(SOUND)], SOUND, atol=0.03)


@pytest.mark.parametrize(
    ("subtype", "close"),
    [
        ("PCM_U8", 1 / 128),
        ("PCM_24", 1e-6),
        ("PCM_32", 1e-7),
        ("FLOAT", 0),
        ("DOUBLE", 0),
        ("ALAW", 0.02),
        ("ULAW", 0.02),
        ("IMA_ADPCM", 0.05),
    ],
)
def test_encodings_of_wav(subtype: str, close: float, tmp_path: pathlib.Path) -> None:
    save(tmp_path / "a.wav", "WAV", subtype)
    audio = read_audio(tmp_path / "a.wav")
    assert audio.facts.encoding == subtype
    assert audio.notes == ()
    np.testing.assert_allclose(audio.samples[: len(SOUND)], SOUND, atol=close)


def test_sixteen_bits_against_the_standard_library(tmp_path: pathlib.Path) -> None:
    values = np.random.default_rng(0).integers(-32768, 32768, 500).astype("<i2")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(values.tobytes())
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav").samples, values / np.float32(32768))


@pytest.mark.parametrize("size", [44, 100, 4000, 9000, 70_000, 300_000])
def test_sizes_around_those_of_buffers(size: int, tmp_path: pathlib.Path) -> None:
    """A file is looked at from several sides before it is decoded: the decoder must begin at its beginning."""
    values = np.arange(size, dtype=np.int16)
    write_wav(tmp_path / "a.wav", values, 8000)
    (tmp_path / "b.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:-8])
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav").samples, values / np.float32(32768))
    cut = read_audio(tmp_path / "b.wav", options=AudioOptions(accept_truncated=True))
    np.testing.assert_array_equal(cut.samples, values[:-4] / np.float32(32768))


def test_content_decides_not_the_name(tmp_path: pathlib.Path) -> None:
    save(tmp_path / "a.mp3", "FLAC")
    assert read_audio(tmp_path / "a.mp3").notes == ("the name says .mp3, the content is FLAC",)
    saved(tmp_path, "m4a").rename(tmp_path / "b.WAV")
    assert read_audio(tmp_path / "b.WAV").notes[-1] == "the name says .wav, the content is MP4"
    saved(tmp_path, "wav").rename(tmp_path / "c")
    assert read_audio(tmp_path / "c").notes == ()


def test_tags_before_and_behind_an_mp3(tmp_path: pathlib.Path) -> None:
    content = saved(tmp_path, "mp3").read_bytes()
    plain = read_audio(content)
    picture = b"\xff\xd8" + bytes(range(256)) * 30
    tagged = (
        b"ID3\4\0\0" + bytes([0, 0, len(picture) >> 7, len(picture) & 127]) + picture + content + b"TAG" + bytes(125)
    )
    audio = read_audio(tagged)
    np.testing.assert_array_equal(audio.samples, plain.samples)
    assert audio.notes == ()
    odd = read_audio(b"junk" * 7 + content + b"more" * 9)
    assert odd.notes == (
        "28 bytes at the beginning are no MP3: passed over",
        "36 bytes at the end are no MP3: left out",
    )
    np.testing.assert_array_equal(odd.samples, plain.samples)


def test_channels(tmp_path: pathlib.Path) -> None:
    both = np.stack([SOUND, -SOUND / 2], axis=1)
    save(tmp_path / "a.wav", "WAV", "FLOAT", both)
    mixed = read_audio(tmp_path / "a.wav")
    np.testing.assert_allclose(mixed.samples, SOUND / 4, atol=1e-7)
    assert mixed.notes == ("2 channels mixed to one: their mean",)
    second = read_audio(tmp_path / "a.wav", options=AudioOptions(channel=1))
    np.testing.assert_array_equal(second.samples, -SOUND / 2)
    assert second.notes == ("channel 1 of 2 was read, from 0",)
    save(tmp_path / "b.wav", "WAV", "PCM_16", np.stack([SOUND, -SOUND], axis=1))
    assert read_audio(tmp_path / "b.wav").notes == (
        "2 channels mixed to one: their mean",
        "the channels cancel each other in their mean: choose one of them",
    )


def test_a_film_and_its_tracks(tmp_path: pathlib.Path) -> None:
    encode(tmp_path / "a.mkv", "matroska", "pcm_s16le", tracks=2, film=True)
    audio = read_audio(tmp_path / "a.mkv")
    assert audio.notes == ("the sound of a film was read", "the first of 2 streams of sound was read")
    np.testing.assert_allclose(audio.samples, SOUND, atol=5e-5)


def test_notes_of_what_is_strange() -> None:
    hot = np.clip(np.round(SOUND * 4 * 32768), -32768, 32767).astype(np.int16)
    expected = 0
    for sign in (32767, -32768):  # counted the slow way
        run = 0
        for value in [*hot.tolist(), 0]:
            run, ended = (run + 1, 0) if value == sign else (0, run)
            expected += ended if ended >= 3 else 0
    assert expected > 1000
    for block_seconds in (2.0, 0.0131):
        with open_audio((hot, RATE), block_seconds=block_seconds) as stream:
            list(stream)
        assert stream.notes == (f"{expected:,} samples clipped: at full scale, 3 or more in a row",)
    assert read_audio((np.zeros(99), RATE)).notes == ("silence: no sample above -90 dB",)
    assert read_audio((SOUND + 0.1, RATE)).notes[0].startswith("DC offset: the samples have a mean of +0.1")
    assert "not divided by their range" in read_audio((SOUND * 30000, RATE)).notes[-1]
    assert read_audio((SOUND, 8000), rate=16000).notes == (
        "resampled from 8000 to 16000 Hz: nothing above 4000 Hz in it",
    )


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "opus", "mp3", "m4a", "webm"])
@pytest.mark.parametrize("rate", [None, 11025])
def test_a_stretch_is_a_slice_of_the_whole(ending: str, rate: int | None, tmp_path: pathlib.Path) -> None:
    path = saved(tmp_path, ending)
    whole = read_audio(path, rate=rate)
    for start, seconds in ((0.0, 0.3), (0.7131, 0.5), (1.5, None), (1.9, 60)):
        part = read_audio(path, rate=rate, start=start, seconds=seconds)
        begin = round(start * whole.rate)
        end = None if seconds is None else begin + round(seconds * whole.rate)
        np.testing.assert_allclose(part.samples, whole.samples[begin:end], atol=2e-6)
    assert "lie behind the end" in " ".join(part.notes)


def test_blocks_make_up_the_whole(tmp_path: pathlib.Path) -> None:
    path = saved(tmp_path, "flac")
    for rate in (None, 8000):
        with open_audio(path, rate=rate, block_seconds=0.3) as stream:
            blocks = list(stream)
            assert stream.position == 2.0
            assert {len(block) for block in blocks[:-1]} == {round(0.3 * stream.rate)}
            with pytest.raises(InputError, match="read already"):
                next(iter(stream))
        np.testing.assert_allclose(np.concatenate(blocks), read_audio(path, rate=rate).samples, atol=1e-6)


def test_samples_in_memory() -> None:
    values = np.array([[-1.0, 0.0], [0.5, 0.25]])
    for dtype in ("int8", "int16", "int32", "uint8", "uint16", "uint32", "float16", "float32", "float64"):
        kind, half = np.dtype(dtype).kind, 2.0 ** (8 * np.dtype(dtype).itemsize - 1)
        stored = values if kind == "f" else values * half + (half if kind == "u" else 0)
        audio = read_audio((stored.astype(dtype), 8000), options=AudioOptions(channel=0))
        np.testing.assert_array_equal(audio.samples, values[:, 0].astype(np.float32))
        assert audio.facts.encoding == dtype


def test_open_files_bytes_and_pipes(tmp_path: pathlib.Path) -> None:
    path = saved(tmp_path, "wav")
    content = path.read_bytes()
    for source in (content, bytearray(content), io.BytesIO(content), str(path)):
        np.testing.assert_allclose(read_audio(source).samples, SOUND, atol=4e-5)
    with path.open("rb") as file:
        assert read_audio(file).source == "a.wav"
        assert not file.closed
        file.seek(0)
        assert file.read() == content
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in/b.wav", content)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive, archive.open("in/b.wav") as member:
        audio = read_audio(member)
        assert audio.source == "b.wav"
    np.testing.assert_allclose(audio.samples, SOUND, atol=4e-5)


PCM: dict[str, Callable[[np.ndarray], bytes]] = {
    "s8": lambda x: np.round(x * 127).astype(np.int8).tobytes(),
    "u8": lambda x: (np.round(x * 127) + 128).astype(np.uint8).tobytes(),
    "s16le": lambda x: np.round(x * 32767).astype("<i2").tobytes(),
    "s16be": lambda x: np.round(x * 32767).astype(">i2").tobytes(),
    "s24le": lambda x: b"".join(struct.pack("<i", round(float(v) * 8388607))[:3] for v in x.reshape(-1)),
    "s32le": lambda x: np.round(x.astype(float) * 2147483647).astype("<i4").tobytes(),
    "f32le": lambda x: x.astype("<f4").tobytes(),
}


@pytest.mark.parametrize("encoding", PCM)
def test_raw_samples_of_a_pipe(encoding: str) -> None:
    stereo = np.stack([SOUND, SOUND / 2], axis=1)[:3210]
    content = PCM[encoding](stereo) + b"\1"

    class Pipe(io.RawIOBase):
        """Gives odd numbers of bytes, and sometimes nothing yet."""

        place = 0
        turn = 0

        def read(self, size: int = -1, /) -> Any:
            self.turn += 1
            if self.turn % 5 == 0:
                return None
            part = content[self.place : self.place + min(size, 777)]
            self.place += len(part)
            return part

    pipe: Any = Pipe()
    with read_pcm(pipe, rate=RATE, encoding=encoding, channels=2, options=AudioOptions(channel=1)) as stream:
        blocks = list(stream)
    assert [len(block) for block in blocks] == [1600, 1600, 10]
    np.testing.assert_allclose(np.concatenate(blocks), stereo[:, 1], atol=0.012 if "8" in encoding else 4e-5)
    assert stream.notes[0] == "1 byte at the end is no whole sample of all channels: left out"


def test_a_pipe_is_resampled_as_it_comes() -> None:
    content = PCM["s16le"](SOUND)
    with read_pcm(io.BytesIO(content), rate=RATE, target_rate=8000, block_seconds=0.1) as stream:
        first = next(blocks := iter(stream))
        assert 700 < len(first) <= 800  # no more is held back than the filter needs
        rest = list(blocks)
    whole = np.concatenate([first, *rest])
    np.testing.assert_allclose(whole, read_audio((SOUND, RATE), rate=8000).samples, atol=4e-5)


def test_wav_is_written_and_read_again(tmp_path: pathlib.Path) -> None:
    values = np.random.default_rng(1).integers(-32768, 32768, (300, 2)).astype(np.int16)
    assert write_wav(tmp_path / "new" / "a.wav", values, 44100) == ()
    with wave.open(str(tmp_path / "new" / "a.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, 44100)
        assert file.readframes(300) == values.astype("<i2").tobytes()
    assert write_wav(tmp_path / "a.wav", values / 32768, 8000) == ()
    np.testing.assert_array_equal(soundfile.read(tmp_path / "a.wav", dtype="int16")[0], values)
    before = (tmp_path / "a.wav").read_bytes()
    with pytest.raises(InputError, match=r"no numbers\. Found: 1 that"):
        write_wav(tmp_path / "a.wav", np.array([0.0, np.nan]), 8000)
    assert (tmp_path / "a.wav").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "new"]


def test_sound_files_of_a_folder(tmp_path: pathlib.Path) -> None:
    for name in ("b/2.WAV", "b/10.flac", "a.m4a", "notes.txt", ".hidden.wav", ".trash/x.wav", "c.wav.part"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(path.relative_to(tmp_path)) for path in find_audio(tmp_path)] == ["a.m4a", "b/10.flac", "b/2.WAV"]


def test_a_wav_from_a_pipe_is_read_to_its_end(tmp_path: pathlib.Path) -> None:
    content = bytearray(saved(tmp_path, "wav").read_bytes())
    place = content.find(b"data") + 4
    for size in (0, 0xFFFFFFFF, 0x7FFFFFFF):
        content[place : place + 4] = struct.pack("<I", size)
        audio = read_audio(bytes(content))
        np.testing.assert_allclose(audio.samples, SOUND, atol=4e-5)
        assert audio.notes == (
            "its header does not say how long it is, as of a file sent down a pipe: read to its end",
        )


def test_pages_of_ogg_are_checked_like_the_standard_says(tmp_path: pathlib.Path) -> None:
    """The checksum against a bitwise one, on the first page."""
    content = saved(tmp_path, "ogg").read_bytes()
    size = 27 + content[26] + sum(content[27 : 27 + content[26]])
    page = content[:22] + bytes(4) + content[26:size]
    remainder = 0
    for byte in page:
        remainder ^= byte << 24
        for _ in range(8):
            remainder = (remainder << 1 ^ (0x04C11DB7 if remainder >> 31 else 0)) & 0xFFFFFFFF
    assert struct.unpack_from("<I", content, 22)[0] == remainder
    scan = scan_ogg(open_source(content))
    assert (scan.damaged, scan.cut, scan.intact, len(scan.streams)) == (0, 0, len(content), 1)
    assert scan.streams[0].codec == "vorbis"
    assert scan.streams[0].granules == len(SOUND)


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_ten_minutes_of_stereo_need_little_memory(tmp_path: pathlib.Path) -> None:
    size = 600 * 44100 * 4
    path = tmp_path / "long.wav"
    layout = struct.pack("<IHHIIHH", 16, 1, 2, 44100, 176400, 4, 16)
    with path.open("wb") as file:
        file.write(b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + layout + b"data" + struct.pack("<I", size))
        file.truncate(44 + size)
    code = f"""
from pipelines.data.formats.audio import open_audio
with open_audio({str(path)!r}, rate=16000) as stream:
    count = sum(len(block) for block in stream)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(count, int(peak.split()[1]) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPO)
    assert done.returncode == 0, done.stderr
    count, megabytes = map(int, done.stdout.split())
    assert count == 600 * 16000
    assert megabytes < 200  # the file has 106


def test_no_torch_and_no_decoder_before_they_are_needed() -> None:
    code = "import sys, pipelines.data.formats.audio; print({'torch', 'av', 'soundfile', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPO)
    assert done.stdout == "set()\n", done.stderr


def test_real_recordings() -> None:
    speech = sorted((DATA / "asr" / "pocketsphinx").rglob("*.wav"))
    sounds = sorted((DATA / "audio").glob("*.ogg"))[:5]
    if not speech or not sounds:
        pytest.skip("the recordings are not there")
    for path in [*speech, *sounds]:
        audio = read_audio(path, rate=16000)
        peer, rate = soundfile.read(path, dtype="float32", always_2d=True)
        assert len(audio.samples) == -(-len(peer) * 16000 // rate)
        if rate == 16000:
            np.testing.assert_array_equal(audio.samples, peer.mean(1))
