"""Films: facts, frames by time stamp, colours, turns, sizes and folders of images against independent oracles."""

from __future__ import annotations

import io
import pathlib
import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipelines.data.errors import InputError
from pipelines.data.formats.video import VIDEO_ENDINGS, VideoFile, is_video
from pipelines.data.formats.video_pixels import grey, resized, turn_of, turned
from pipelines.data.formats.video_time import Clock

SAMPLES = pathlib.Path(__file__).parents[2] / "data" / "samples" / "world"
H, W = 32, 48


def pictures(count: int, height: int = H, width: int = W) -> NDArray[np.uint8]:
    """Frames (T, H, W, 3) whose brightness is 20 + 10 times their number, with a corner that tells up from down."""
    frames = np.full((count, height, width, 3), 20, np.uint8)
    frames += (10 * np.arange(count, dtype=np.uint8))[:, None, None, None]
    frames[:, : height // 4, : width // 4] = 255
    return frames


def film(
    target: pathlib.Path | io.BytesIO,
    frames: Sequence[NDArray[Any]] | NDArray[Any],
    *,
    container: str = "matroska",
    codec: str = "ffv1",
    pixels: str = "bgr0",
    rate: int | Fraction = 10,
    stamps: Sequence[int] | None = None,
    base: Fraction | None = None,
    given: str = "rgb24",
    turn: float | None = None,
    options: dict[str, str] | None = None,
    interlaced: bool = False,
) -> Any:
    """Write a film; `stamps` count in `base`, by default one frame after the other."""
    with av.open(target if isinstance(target, io.BytesIO) else str(target), "w", format=container) as out:
        stream: Any = out.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = base or 1 / Fraction(rate)
        if interlaced:
            stream.codec_context.flags |= 1 << 18 | 1 << 29
        if turn is not None:
            stream.set_display_rotation(turn)
        for number, one in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(one, format=given)
            frame.pts = stamps[number] if stamps is not None else number
            frame.time_base = base or 1 / Fraction(rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return target


def shades(path: pathlib.Path, **words: Any) -> tuple[list[float], list[int]]:
    """Times and numbers of the frames that a film of `pictures` gives."""
    found = list(VideoFile(path).frames(**words))
    return [round(time, 4) for time, _ in found], [round((int(frame[-1, -1, 0]) - 20) / 10) for _, frame in found]


def test_facts_of_the_samples() -> None:
    bikes, phone = VideoFile(SAMPLES / "bikes.mp4"), VideoFile(SAMPLES / "carphone_pristine.mp4")
    assert (bikes.facts.size, bikes.facts.fps, bikes.facts.frames, bikes.facts.seconds) == ((272, 640), 25, 250, 10)
    assert (bikes.facts.container, bikes.facts.codec, bikes.facts.sound) == ("MP4", "h264", False)
    assert phone.facts.fps == pytest.approx(30000 / 1001)
    assert phone.facts.aspect == pytest.approx(128 / 117)
    assert "pixels are not square (128:117): left as stored" in phone.notes
    assert not bikes.variable_rate
    assert not phone.variable_rate


def test_frames_are_those_of_the_decoder() -> None:
    """Against PyAV used as its manual shows."""
    path = SAMPLES / "carphone_pristine.mp4"
    with av.open(str(path)) as opened:
        plain = [frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)]
    given = list(VideoFile(path).frames())
    assert len(given) == 120
    assert all(np.array_equal(a, b) for a, (_, b) in zip(plain, given, strict=True))
    assert [time for time, _ in given] == pytest.approx([k * 1001 / 30000 for k in range(120)])


def test_the_frame_on_screen_is_taken(tmp_path: pathlib.Path) -> None:
    stamps = [0, 100, 150, 400, 1000, 1030]  # ms
    film(tmp_path / "a.mkv", pictures(6), stamps=stamps, base=Fraction(1, 1000))
    times, numbers = shades(tmp_path / "a.mkv", fps=20)
    on_screen = [max(k for k, stamp in enumerate(stamps) if stamp <= 50 * step) for step in range(len(times))]
    assert numbers == on_screen
    assert times == [round(step / 20, 4) for step in range(len(times))]
    opened = VideoFile(tmp_path / "a.mkv")
    assert opened.variable_rate
    list(opened.frames(fps=20))
    repeated, left = len(numbers) - len(set(numbers)), 6 - len(set(numbers))
    assert f": {repeated} repeated, {left} left out" in opened.notes[0]
    assert opened.notes[1] == ("variable frame rate: 0.03 to 0.6 s between frames, 0.206 on average; time stamps count")


def test_each_frame_comes_at_its_own_time(tmp_path: pathlib.Path) -> None:
    stamps = [500, 600, 650, 900]  # the clock of the file begins anywhere
    film(tmp_path / "a.mkv", pictures(4), stamps=stamps, base=Fraction(1, 1000))
    assert shades(tmp_path / "a.mkv") == ([0.0, 0.1, 0.15, 0.4], [0, 1, 2, 3])
    assert shades(tmp_path / "a.mkv", start=0.1, stop=0.4) == ([0.1, 0.15], [1, 2])


@pytest.mark.parametrize("fps", [10, 15, 30])
def test_stamps_rounded_to_milliseconds_do_not_jitter(tmp_path: pathlib.Path, fps: int) -> None:
    film(tmp_path / "a.mkv", pictures(20), rate=30)  # Matroska: 0, 33, 67, 100 ms
    assert shades(tmp_path / "a.mkv", fps=fps)[1] == list(range(0, 20, 30 // fps))


def test_more_frames_a_second_than_there_are(tmp_path: pathlib.Path) -> None:
    film(tmp_path / "a.mkv", pictures(3), rate=10)
    times, numbers = shades(tmp_path / "a.mkv", fps=20, start=0.1, stop=0.3)
    assert (times, numbers) == ([0.1, 0.15, 0.2, 0.25], [1, 1, 2, 2])
    opened = VideoFile(tmp_path / "a.mkv")
    list(opened.frames(fps=4))  # 0, 0.25
    assert opened.notes[0] == "2 frames at 4 a second (the film has 10.0): 0 repeated, 1 left out"


def test_rate_given_instead_of_stamps(tmp_path: pathlib.Path) -> None:
    film(tmp_path / "a.mkv", pictures(3), stamps=[0, 10, 900], base=Fraction(1, 1000))
    opened = VideoFile(tmp_path / "a.mkv", rate=5)
    assert [round(time, 3) for time, _ in opened.frames()] == [0.0, 0.2, 0.4]
    assert any("time stamps were not used" in note for note in opened.notes)


def test_missing_stamps(tmp_path: pathlib.Path) -> None:
    film(tmp_path / "a.h264", pictures(4), container="h264", codec="libx264", pixels="yuv420p", options={"bf": "0"})
    opened = VideoFile(tmp_path / "a.h264")
    assert opened.facts.container == "H.264 stream"
    assert len(list(opened.frames())) == 4
    assert any(note.startswith("no time stamps at all: frames are ") for note in opened.notes)


def test_the_clock_of_stamps_that_jump_stand_and_run_back() -> None:
    clock = Clock(10.0)
    times = [clock.place(stamp) for stamp in (7.0, 7.1, 7.1, 7.05, 7.2, 4000.0, 4000.1, 0.0, 0.1)]
    assert times == pytest.approx([0, 0.1, 0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert (clock.standing, clock.back, clock.jumps) == (1, 1, 2)
    slow = Clock(1 / 60)  # one frame a minute is no jump
    assert [slow.place(stamp) for stamp in (0.0, 60.0, 120.0)] == [0, 60, 120]
    assert slow.jumps == 0


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_turned_upright(tmp_path: pathlib.Path, degrees: int) -> None:
    stored = pictures(3)
    film(tmp_path / "a.mp4", stored, container="mp4", codec="libx264", pixels="yuv420p", turn=degrees)
    opened = VideoFile(tmp_path / "a.mp4")
    upright = np.rot90(stored[0], degrees // 90)
    assert opened.facts.size == upright.shape[:2]
    assert opened.facts.rotation == degrees % 360
    _, first = next(iter(opened.frames()))
    assert np.abs(first.astype(int) - upright).mean() < 4  # coded with loss
    list(opened.frames())
    assert any(note.startswith(f"turned by {degrees % 360} degrees") for note in opened.notes)


def test_display_matrices_move_points_as_the_standard_says() -> None:
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 256, (3, 4, 3), np.uint8)
    upright = [(1, 0, 0, 1), (-1, 0, 0, -1), (0, -1, 1, 0), (0, 1, -1, 0)]
    mirrored = [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)]
    for a, b, c, d in upright + mirrored:
        found = turn_of(struct.pack("=9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30))
        assert found is not None
        shown = turned(stored, found[0])
        places = {(y, x): (a * x + c * y, b * x + d * y) for y in range(3) for x in range(4)}
        left, top = (min(place[axis] for place in places.values()) for axis in (0, 1))
        assert all(np.array_equal(shown[ty - top, tx - left], stored[y, x]) for (y, x), (tx, ty) in places.items())
    assert turn_of(struct.pack("=9i", 46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30)) is None


def test_transparent_pixels_are_put_on_black(tmp_path: pathlib.Path) -> None:
    frames = np.zeros((3, H, W, 4), np.uint8)
    frames[..., :3], frames[..., 3] = (200, 100, 50), 128
    film(tmp_path / "a.mkv", frames, pixels="bgra", given="rgba")
    opened = VideoFile(tmp_path / "a.mkv")
    assert opened.facts.alpha
    found = [frame for _, frame in opened.frames()]
    assert found[0][0, 0].tolist() == [round(value * 128 / 255) for value in (200, 100, 50)]
    assert "3 frames with transparent pixels: put on black" in opened.notes


def test_ten_bits_are_brought_to_eight(tmp_path: pathlib.Path) -> None:
    level = np.arange(3)[:, None, None] * 200 + np.arange(W)[None, None] * 4 + np.zeros((1, H, 1), int)
    film(tmp_path / "a.mkv", (level << 6).astype(np.uint16), pixels="gray16le", given="gray16le")
    opened = VideoFile(tmp_path / "a.mkv")
    assert (opened.facts.bits, opened.facts.grey) == (16, True)
    found = np.stack([frame for _, frame in opened.frames()])
    assert np.abs(found[..., 0].astype(float) - level / 1023 * 255).max() <= 1
    assert "16 bits a colour (gray16le): brought to 8" in opened.notes
    film(tmp_path / "b.mkv", pictures(3), pixels="yuv420p10le")
    opened = VideoFile(tmp_path / "b.mkv")
    assert opened.facts.bits == 10
    found = [frame for _, frame in opened.frames()]
    assert np.abs(found[2].astype(int) - pictures(3)[2]).max() <= 2
    assert "10 bits a colour (yuv420p10le): brought to 8" in opened.notes


def test_interlaced_is_said(tmp_path: pathlib.Path) -> None:
    film(
        tmp_path / "a.mpg",
        pictures(4),
        container="mpeg",
        codec="mpeg2video",
        pixels="yuv420p",
        rate=25,
        interlaced=True,
    )
    opened = VideoFile(tmp_path / "a.mpg")
    list(opened.frames())
    assert "interlaced: 4 frames of two half-pictures each, left as they are" in opened.notes


def test_colours_that_a_large_film_does_not_name(tmp_path: pathlib.Path) -> None:
    """Pure red by BT.709 is Y 63, Cb 102, Cr 240; read as BT.601 it would be another red."""
    frame = np.zeros((720 * 3 // 2, 64), np.uint8)
    frame[:720] = 63
    frame[720:900], frame[900:] = 102, 240
    film(tmp_path / "a.mkv", [frame] * 2, pixels="yuv420p", given="yuv420p", codec="ffv1", container="matroska")
    opened = _resized_header(tmp_path / "a.mkv", frame)
    _, first = next(iter(opened.frames()))
    assert np.abs(first[360, 32].astype(int) - [255, 0, 0]).max() <= 3


def _resized_header(path: pathlib.Path, frame: NDArray[np.uint8]) -> VideoFile:
    """The film again with the size of its pictures, not of the array that holds their planes."""
    with av.open(str(path), "w", format="matroska") as out:
        stream: Any = out.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = 720, 64, "yuv420p"
        for number in range(2):
            one = av.VideoFrame.from_ndarray(frame, format="yuv420p")
            one.pts = number
            out.mux(stream.encode(one))
        out.mux(stream.encode(None))
    return VideoFile(path)


@pytest.mark.parametrize("size", [(8, 12), (4, 4), (5, 7)])
def test_shrunk_by_the_mean_of_areas(size: tuple[int, int]) -> None:
    """Against exact areas: every output pixel is the integral of its rectangle over its area."""
    values = np.random.default_rng(1).integers(0, 256, (16, 24, 3), np.uint8)

    def weights(count: int, target: int) -> NDArray[np.float64]:
        edges = np.linspace(0, count, target + 1)
        low, high = edges[:-1, None], edges[1:, None]
        cells = np.arange(count)[None]
        return np.clip(np.minimum(high, cells + 1) - np.maximum(low, cells), 0, None) * target / count

    wanted = np.einsum("yh,hwc,xw->yxc", weights(16, size[0]), values.astype(float), weights(24, size[1]))
    tolerance = 1.01 if all(side % part == 0 for side, part in zip((16, 24), size, strict=True)) else 32
    error = np.abs(resized(values, size) - wanted)
    assert error.max() <= tolerance
    assert error.mean() < (0.5 if tolerance < 2 else 8)


def test_a_pattern_finer_than_the_grid_does_not_alias() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 254
    small = resized(stripes, (8, 8))
    assert small.min() == small.max() == 127
    assert resized(np.full((4, 4, 3), 9, np.uint8), (6, 2)).shape == (6, 2, 3)


def test_grey_is_brightness() -> None:
    colours = np.array([[[255, 255, 255], [0, 255, 0], [0, 0, 255], [10, 20, 30]]], np.uint8)
    assert grey(colours).tolist() == [[255, 150, 29, 18]]


def test_frames_of_one_size(tmp_path: pathlib.Path) -> None:
    film(tmp_path / "a.mkv", pictures(3))
    opened = VideoFile(tmp_path / "a.mkv")
    found = [frame for _, frame in opened.frames(size=(8, 8))]
    assert all(np.array_equal(one, resized(whole, (8, 8))) for one, whole in zip(found, pictures(3), strict=True))
    assert not found[0].flags.writeable
    assert "48x32 brought to 8x8 by the mean of areas, the width 0.667 times as much as the height" in opened.notes


@pytest.mark.parametrize(
    ("container", "codec", "pixels", "ending", "rate"),
    [
        ("mp4", "libx264", "yuv420p", ".mp4", 10),
        ("mov", "qtrle", "rgb24", ".mov", 10),
        ("avi", "mjpeg", "yuvj420p", ".avi", 10),
        ("avi", "mpeg4", "yuv420p", ".avi", 10),
        ("webm", "libvpx-vp9", "yuv420p", ".webm", 10),
        ("mpegts", "mpeg2video", "yuv420p", ".ts", 25),
        ("flv", "flv", "yuv420p", ".flv", 10),
        ("asf", "wmv2", "yuv420p", ".wmv", 10),
        ("gif", "gif", "rgb8", ".gif", 10),
        ("apng", "apng", "rgb24", ".apng", 10),
        ("yuv4mpegpipe", "wrapped_avframe", "yuv420p", ".y4m", 10),
        ("ivf", "libvpx-vp9", "yuv420p", ".ivf", 10),
    ],
)
def test_containers(tmp_path: pathlib.Path, container: str, codec: str, pixels: str, ending: str, rate: int) -> None:
    path = tmp_path / "no_ending"
    film(path, pictures(6, 64, 64), container=container, codec=codec, pixels=pixels, rate=rate)
    assert is_video(path)
    assert ending in VIDEO_ENDINGS or ending == ".ts"
    opened = VideoFile(path)
    found = list(opened.frames())
    assert opened.facts.fps == pytest.approx(rate)
    assert [time for time, _ in found] == pytest.approx([k / rate for k in range(6)], abs=2e-3)
    shades_found = [frame[40:, 40:].mean() for _, frame in found]
    assert np.abs(np.array(shades_found) - (20 + 10 * np.arange(6))).max() < 12
    assert found[0][1][:12, :12].mean() > 220


def test_a_folder_of_numbered_images(tmp_path: pathlib.Path) -> None:
    for number in (8, 9, 10, 11, 14):
        Image.new("L", (W, H), 10 * number).save(tmp_path / f"view_{number}.png")
    (tmp_path / "notes.txt").write_text("not an image")
    opened = VideoFile(tmp_path, rate=10)
    found = [(round(time, 3), int(frame[0, 0, 0])) for time, frame in opened.frames()]
    assert found == [(0.0, 80), (0.1, 90), (0.2, 100), (0.3, 110), (0.6, 140)]
    assert any("2 numbers are missing between 8 and 14 (first: 12)" in note for note in opened.notes)
    assert [int(frame[0, 0, 0]) for _, frame in opened.frames(fps=10)] == [80, 90, 100, 110, 110, 110, 140]
    assert (opened.facts.container, opened.facts.grey, opened.facts.fps) == ("images", True, 10)
    assert opened.variable_rate


def test_a_folder_without_a_rate_counts_images(tmp_path: pathlib.Path) -> None:
    for number in range(3):
        Image.new("RGBA", (W, H), (200, 0, 0, 51)).save(tmp_path / f"{10 * number:03}.png")
    opened = VideoFile(tmp_path)
    found = list(opened.frames())
    assert [time for time, _ in found] == [0, 1, 2]
    assert found[0][1][0, 0].tolist() == [40, 0, 0]
    assert "3 images; no frame rate is known: times count images" in opened.notes
    assert "images are numbered in steps of 10" in opened.notes
    with pytest.raises(InputError, match=r"no time stamps to choose by.*Cure: say their frame rate"):
        opened.frames(fps=5)


def test_what_is_a_film(tmp_path: pathlib.Path) -> None:
    film(tmp_path / "a.txt", pictures(2))
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png")
    (tmp_path / "c.mp4").write_bytes(b"\0\0\0\x1cftypM4A " + bytes(40))
    (tmp_path / "d.ts").write_text("const a = 1;\n" * 40)
    found = {name: is_video(tmp_path / name) for name in ("a.txt", "b.png", "c.mp4", "d.ts", "missing.mp4")}
    assert found == {"a.txt": True, "b.png": False, "c.mp4": False, "d.ts": False, "missing.mp4": False}
    assert ".mp4" in VIDEO_ENDINGS
    assert ".ts" not in VIDEO_ENDINGS


def test_nothing_stays_open(tmp_path: pathlib.Path) -> None:
    film(tmp_path / "a.mkv", pictures(5))
    handles = pathlib.Path("/proc/self/fd")
    if not handles.is_dir():
        pytest.skip("open files are counted on Linux only")
    before = len(list(handles.iterdir()))
    frames = VideoFile(tmp_path / "a.mkv").frames()
    next(frames)
    frames.close()  # type: ignore[attr-defined]
    assert len(list(handles.iterdir())) == before
