"""Bad films: one message each with what was found and the cure, damage counted, never a crash or a hang."""

from __future__ import annotations

import importlib.util
import io
import pathlib
import random
import re
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from pipelines.data.errors import InputError
from pipelines.data.formats.video import VideoFile
from pipelines.data.formats.video_kind import sniffed

_SPEC = importlib.util.spec_from_file_location(
    "film_makers", pathlib.Path(__file__).parents[1] / "unit" / "test_video.py"
)
if _SPEC is None or _SPEC.loader is None:
    raise ImportError("tests/unit/test_video.py")
makers = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(makers)

SAMPLES = pathlib.Path(__file__).parents[2] / "data" / "samples" / "world"


def _bytes(count: int = 12, **words: Any) -> bytes:
    target = io.BytesIO()
    makers.film(target, makers.pictures(count), **words)
    return target.getvalue()


def _sound(container: str, codec: str) -> bytes:
    target = io.BytesIO()
    with av.open(target, "w", format=container) as out:
        stream: Any = out.add_stream(codec, rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return target.getvalue()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", r"the file is empty. Found: 0 bytes"),
        (bytes(5000), r"not a film. Found: nothing but zeros in the first 4,096 of 5,000 bytes"),
        (b"time,value\n1,2\n" * 20, r"not a film. Found: text that begins with .*Cure: check what kind"),
        (b"#EXTM3U\n/etc/passwd\n" * 20, r"not a film. Found: a list of other files"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", r"not a film. Found: a list of other files"),
        (b"PK\x03\x04" + bytes(90), r"not a film. Found: a zip archive.*Cure: unpack it first"),
        (b"\x89PNG\r\n\x1a\n" + bytes(90), r"not a film. Found: a PNG image.*Cure: put numbered images"),
        (b"RIFF\x90\0\0\0WAVEfmt " + bytes(90), r"not a film. Found: sound \(WAV\)"),
        (b"\0\0\0\x1cftypM4A " + bytes(90), r"not a film. Found: sound \(MPEG-4 audio\)"),
        (b"\x93NUMPY" + bytes(90), r"not a film. Found: a NumPy array"),
        (bytes(range(7, 107)), r"not a film. Found: unknown bytes 07 08"),
        (
            b"\0\0\0\x18ftypisom" + bytes(12) + b"\0\0\x01\0mdat" + bytes(90),
            r"cut or never finished.*no index \(moov\)",
        ),
        (b"GIF89a" + bytes(20), r"cannot be opened|there is no f"),
    ],
)
def test_files_that_are_no_films(tmp_path: pathlib.Path, content: bytes, told: str) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(InputError, match=told):
        VideoFile(tmp_path / "a.mp4")


def test_paths_that_lead_nowhere(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"no such file. Cure: check the path"):
        VideoFile(tmp_path / "missing" / "a.mp4")
    with pytest.raises(InputError, match=r"no images in the folder. Found: no files"):
        VideoFile(tmp_path)
    with pytest.raises(InputError, match="is not a regular file"):
        VideoFile("/dev/null")
    with pytest.raises(InputError, match=r"cannot be opened|no such file"):
        VideoFile(tmp_path / ("x" * 300))


@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("matroska", "aac"), ("avi", "aac")])
def test_sound_alone(tmp_path: pathlib.Path, container: str, codec: str) -> None:
    (tmp_path / "a.mkv").write_bytes(_sound(container, codec))
    with pytest.raises(InputError, match=r"there is no film in it. Found: only sound"):
        VideoFile(tmp_path / "a.mkv")


def test_no_frames_and_one_frame(tmp_path: pathlib.Path) -> None:
    whole = _bytes(container="avi", codec="mjpeg", pixels="yuvj420p")
    (tmp_path / "none.avi").write_bytes(whole[: whole.index(b"movi") + 4])
    with pytest.raises(InputError, match=r"there is no frame in the film. Found: no frames"):
        VideoFile(tmp_path / "none.avi")
    makers.film(tmp_path / "one.mkv", makers.pictures(1))
    opened = VideoFile(tmp_path / "one.mkv")
    for fps in (None, 5.0):
        with pytest.raises(InputError, match=r"one frame. Found: a still. Expected: frames in time. Cure: name a film"):
            list(opened.frames(fps=fps))


def _two_sizes(path: pathlib.Path) -> pathlib.Path:
    """An H.264 stream whose second half has another size."""
    parts = []
    for size in ((32, 48), (64, 64)):
        target = io.BytesIO()
        shown = makers.pictures(4, *size)
        makers.film(target, shown, container="h264", codec="libx264", pixels="yuv420p", options={"bf": "0"})
        parts.append(target.getvalue())
    path.write_bytes(b"".join(parts))
    return path


def test_another_size_from_some_time_on(tmp_path: pathlib.Path) -> None:
    path = _two_sizes(tmp_path / "a.h264")
    opened = VideoFile(path, rate=10)
    with pytest.raises(
        InputError, match=r"a.h264, 0.40 s: the frames change their size. Found: 64x64. Expected: 48x32"
    ):
        list(opened.frames())
    found = list(opened.frames(size=(16, 16)))
    assert {frame.shape for _, frame in found} == {(16, 16, 3)}
    assert "4 frames of another size than the first: brought to 16x16 too" in opened.notes


def test_a_truncated_end_is_used_as_far_as_it_goes(tmp_path: pathlib.Path) -> None:
    whole = (SAMPLES / "bikes.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole[:300_000])
    with pytest.raises(InputError, match=r"cut or never finished. Found: no index \(moov\)"):
        VideoFile(tmp_path / "a.mp4")  # its index stands at the end
    avi = _bytes(container="avi", codec="mjpeg", pixels="yuvj420p")
    (tmp_path / "a.avi").write_bytes(avi[: len(avi) * 2 // 3])
    opened = VideoFile(tmp_path / "a.avi")
    count = len(list(opened.frames()))
    assert 3 < count < 12
    notes = " | ".join(opened.notes)
    assert f"cut short: {len(avi) * 2 // 3:,} of {len(avi):,} bytes by its headers" in notes
    assert f"the end is missing: {count / 10:.2f} s of 1.20 s by the header could be decoded" in notes
    moved = _index_first(whole)
    (tmp_path / "front.mp4").write_bytes(moved)
    with_index = [frame for _, frame in VideoFile(tmp_path / "front.mp4").frames(stop=2.0, size=(8, 8))]
    assert len(with_index) == 50
    (tmp_path / "front.mp4").write_bytes(moved[:300_000])
    opened = VideoFile(tmp_path / "front.mp4")
    found = [frame for _, frame in opened.frames(size=(8, 8))]
    assert 100 < len(found) < 250
    assert all(np.array_equal(one, other) for one, other in zip(with_index, found, strict=False))
    assert f"{250 - len(found)} of 250 frames by the header could not be decoded: left out" in opened.notes
    assert any(note.startswith("the end is missing: ") for note in opened.notes)


def _index_first(content: bytes) -> bytes:
    """An MP4 with its index before its frames; offsets of 32 bits moved with them."""
    boxes, place = {}, 0
    while place < len(content):
        (size,) = struct.unpack_from(">I", content, place)
        boxes[content[place + 4 : place + 8]] = content[place : place + size]
        place += size
    moov, shift = bytearray(boxes[b"moov"]), len(boxes[b"moov"])
    at = moov.index(b"stco")
    for k in range(struct.unpack_from(">I", moov, at + 8)[0]):
        (offset,) = struct.unpack_from(">I", moov, at + 12 + 4 * k)
        struct.pack_into(">I", moov, at + 12 + 4 * k, offset + shift)
    rest = b"".join(part for name, part in boxes.items() if name not in (b"ftyp", b"moov"))
    return boxes[b"ftyp"] + bytes(moov) + rest


def test_damage_in_the_middle_is_counted(tmp_path: pathlib.Path) -> None:
    whole = bytearray((SAMPLES / "bikes.mp4").read_bytes())
    for place in range(100_000, 100_400):
        whole[place] ^= 0x5A
    (tmp_path / "a.mp4").write_bytes(whole)
    opened = VideoFile(tmp_path / "a.mp4")
    count = len(list(opened.frames(size=(16, 16))))
    assert count >= 240
    assert any("damaged and mended by the decoder" in note or "could not be decoded" in note for note in opened.notes)
    png = bytearray(_bytes(container="avi", codec="png", pixels="rgb24"))
    seventh = [k for k in range(len(png)) if png[k : k + 4] == b"IDAT"][6]
    png[seventh + 8] ^= 0xFF
    (tmp_path / "b.avi").write_bytes(png)
    opened = VideoFile(tmp_path / "b.avi")
    numbers = [round((int(frame[-1, -1, 0]) - 20) / 10) for _, frame in opened.frames()]
    told = [note for note in opened.notes if "could not be decoded" in note or "mended" in note]
    assert told
    assert len(numbers) in (11, 12)
    assert numbers[:6] == list(range(6))


def test_sizes_are_checked_before_memory_is_asked_for(tmp_path: pathlib.Path) -> None:
    y4m = b"YUV4MPEG2 W60000 H60000 F10:1 C420jpeg\nFRAME\n" + bytes(1000)
    gif = bytearray(_bytes(container="gif", codec="gif", pixels="rgb8"))
    gif[6:10] = struct.pack("<HH", 65535, 65535)
    makers.film(tmp_path / "small.mkv", makers.pictures(3))
    tracemalloc.start()
    mp4 = bytearray(_bytes(container="mp4", codec="mpeg4", pixels="yuv420p"))
    at = mp4.index(b"mp4v") + 28
    mp4[at : at + 4] = struct.pack(">HH", 65535, 65535)
    large = r"frames that are too large. Found: 6\d,\d{3}x6\d,\d{3} pixels a frame. Expected: at most 67,108,864"
    for name, content, told in (("a.y4m", y4m, large), ("b.gif", gif, large), ("c.mp4", mp4, "large|no size|48x32")):
        (tmp_path / name).write_bytes(content)
        try:
            assert VideoFile(tmp_path / name).facts.size == (32, 48)  # the codec's own size counts, not the index's
            refused = "48x32"
        except InputError as error:
            refused = str(error)
        assert re.search(told, refused), refused
    with pytest.raises(InputError, match=r"no size of frames could be read. Expected: 1 to 1,000 pixels"):
        VideoFile(tmp_path / "small.mkv", limit=1000)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_an_index_that_claims_more_frames_than_bytes(tmp_path: pathlib.Path) -> None:
    content = bytearray(_bytes(container="mp4", codec="libx264", pixels="yuv420p"))
    at = content.index(b"stsz")
    struct.pack_into(">II", content, at + 8, 1, 400_000_000)
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(InputError, match=r"the index is damaged. Found: an index of 400,000,000 frames"):
        VideoFile(tmp_path / "a.mp4")


def test_stamps_of_years_do_not_repeat_a_frame_for_years(tmp_path: pathlib.Path) -> None:
    stamps = [0, 100, 200, 10**10, 10**10 + 100]  # ms: four months
    path = makers.film(tmp_path / "a.mkv", makers.pictures(5), stamps=stamps, base=Fraction(1, 1000))
    opened = VideoFile(path)
    found = [round((int(frame[-1, -1, 0]) - 20) / 10) for _, frame in opened.frames(fps=10)]
    assert found == [0, 1, 2, 3, 4]
    assert "the time stamps jump once (at 0.30 s): the gap was closed" in opened.notes


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["a.png", "b.png"], r"images without numbers. Found: 2 images such as a.png"),
        (
            ["left_1.png", "right_1.png", "left_2.png"],
            r"2 series of numbered images. Found: left_# \(2\), right_# \(1\)",
        ),
        (["f1.png", "f01.png"], r"the number 1 twice. Found: f01.png and f1.png"),
        (["a.txt"], r"no images in the folder. Found: 1 files"),
    ],
)
def test_folders_that_are_no_films(tmp_path: pathlib.Path, names: list[str], told: str) -> None:
    for name in names:
        Image.new("L", (4, 4)).save(tmp_path / name, format="PNG")
    with pytest.raises(InputError, match=told):
        VideoFile(tmp_path)


def test_folders_with_bad_images(tmp_path: pathlib.Path) -> None:
    for number in range(5):
        Image.new("L", (48, 32), 10 * number).save(tmp_path / f"{number}.png")
    Image.new("L", (4, 4)).save(tmp_path / "cover.png")
    (tmp_path / "2.png").write_bytes(b"no image")
    opened = VideoFile(tmp_path, rate=10)
    assert [round(time, 3) for time, _ in opened.frames()] == [0.0, 0.1, 0.3, 0.4]
    notes = " | ".join(opened.notes)
    assert "1 image could not be read: left out (first: 2.png: not an image" in notes
    assert "1 image without a number in the name left out (such as cover.png)" in notes
    Image.new("L", (8, 8)).save(tmp_path / "3.png")
    with pytest.raises(InputError, match=r"0.30 s: the frames change their size. Found: 8x8. Expected: 48x32"):
        list(opened.frames())
    for path in tmp_path.glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="none of the images can be read"):
        VideoFile(tmp_path)


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(1, len(content))]


def _flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 4, 30))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _header(content: bytes, rng: random.Random) -> bytes:
    """Damage where the sizes and tables stand: the first 400 bytes, or the index of an MP4."""
    changed = bytearray(content)
    begin = content.find(b"moov") if rng.random() < 0.7 and b"moov" in content else 0
    end = min(len(content), begin + (700 if begin > 0 else 400))
    for _ in range(rng.choice((1, 3, 10))):
        changed[rng.randrange(begin, end)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(changed)


_FILMS: dict[str, dict[str, Any]] = {
    "mp4": {"container": "mp4", "codec": "libx264", "pixels": "yuv420p"},
    "avi": {"container": "avi", "codec": "mpeg4", "pixels": "yuv420p"},
    "mkv": {"container": "matroska", "codec": "ffv1", "pixels": "bgr0"},
    "gif": {"container": "gif", "codec": "gif", "pixels": "rgb8"},
    "ts": {"container": "mpegts", "codec": "mpeg2video", "pixels": "yuv420p", "rate": 25},
}


@pytest.mark.parametrize("damage", [_cut, _flipped, _header])
@pytest.mark.parametrize("ending", _FILMS)
def test_damaged_films_end_in_frames_or_one_message(
    tmp_path: pathlib.Path, ending: str, damage: Callable[[bytes, random.Random], bytes]
) -> None:
    """100 files of each kind of damage: frames with notes, or an `InputError`; nothing else, and never 5 s."""
    content, rng = _bytes(8, **_FILMS[ending]), random.Random(zlib.crc32(f"{ending}{damage.__name__}".encode()))
    content = _index_first(content) if ending == "mp4" else content
    path, slowest = tmp_path / f"a.{ending}", 0.0
    refused: list[str] = []
    for number in range(100):
        path.write_bytes(damage(content, rng))
        begin = time.process_time()
        try:
            opened = VideoFile(path)
            if number % 4 == 0:
                assert opened.variable_rate in (True, False)  # the packets are read once more
            for count, (_, frame) in enumerate(opened.frames(fps=10 if number % 2 else None, size=(8, 8))):
                assert frame.shape == (8, 8, 3)
                assert count < 5_000
            assert opened.notes
        except InputError as error:
            refused.append(str(error))
        slowest = max(slowest, time.process_time() - begin)
    assert slowest < 5
    assert len(refused) <= 95, "films that are hardly damaged are read"
    assert all(len(told) < 600 and "\n" not in told for told in refused)


def test_beginnings_of_any_bytes_are_told_apart() -> None:
    rng = random.Random(3)
    for _ in range(2000):
        sniffed(rng.randbytes(rng.randrange(40)))
    assert sniffed(b"") is None
