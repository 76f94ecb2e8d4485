"""Films made ready: one memory map, found again by content, written whole or not at all, in constant memory."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from pipelines.data.datasets import world_prepared
from pipelines.data.datasets.world_prepared import MemmapFrames, prepare_video
from pipelines.data.datasets.world_types import Frames
from pipelines.data.errors import InputError
from pipelines.data.formats.video import VideoFile
from pipelines.data.formats.video_pixels import grey, resized

_SPEC = importlib.util.spec_from_file_location("film_makers", pathlib.Path(__file__).with_name("test_video.py"))
if _SPEC is None or _SPEC.loader is None:
    raise ImportError("tests/unit/test_video.py")
makers = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(makers)

ROOT = pathlib.Path(__file__).parents[2]
SAMPLES = ROOT / "data" / "samples" / "world"
REAL = pathlib.Path(os.environ.get("PIPELINES_DATA") or ROOT.parent / "shared" / "data") / "embeddable" / "video"


@pytest.fixture
def film(tmp_path: pathlib.Path) -> pathlib.Path:
    """Six frames at 10 Hz."""
    return makers.film(tmp_path / "film.mkv", makers.pictures(6))


def test_frames_times_and_notes(film: pathlib.Path, tmp_path: pathlib.Path) -> None:
    frames, times, notes = prepare_video(film, size=(8, 12), cache=tmp_path / "cache")
    assert isinstance(frames, Frames)
    wanted = np.stack([resized(one, (8, 12)) for one in makers.pictures(6)])
    assert frames.shape == wanted.shape == (6, 8, 12, 3)
    assert np.array_equal(frames.read(0, 6), wanted)
    assert np.array_equal(frames.read(2, 4), wanted[2:4])
    assert frames.read(3, 3).shape == (0, 8, 12, 3)
    assert times == pytest.approx(np.arange(6) / 10)
    assert notes[:2] == ("6 frames, each at its own time", "48x32 brought to 12x8 by the mean of areas")
    assert np.array_equal(np.load(frames.path), wanted)  # any reader of .npy opens it


def test_grey_as_they_are_and_at_another_rate(film: pathlib.Path, tmp_path: pathlib.Path) -> None:
    frames, times, notes = prepare_video(film, size=None, colour="grey", fps=5, cache=tmp_path)
    assert frames.shape == (3, makers.H, makers.W, 1)
    assert np.array_equal(frames.read(0, 3)[..., 0], [grey(one) for one in makers.pictures(6)[::2]])
    assert times == pytest.approx([0, 0.2, 0.4])
    assert "3 frames at 5 a second (the film has 10.0): 0 repeated, 3 left out" in notes
    assert any(note.startswith("colours brought to grey") for note in notes)


def test_the_cache_is_found_again_by_content(
    film: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    first, times, notes = prepare_video(film, size=(8, 8), cache=cache)
    calls: list[Any] = []
    real = VideoFile._frames
    monkeypatch.setattr(VideoFile, "_frames", lambda self, *words: calls.append(words) or real(self, *words))

    def read(path: pathlib.Path, **words: Any) -> bool:
        """Whether the film was decoded, told by the first frame drawn from it."""
        count: list[int] = []
        prepare_video(path, cache=cache, progress=lambda done, total: count.append(done), **words)
        return bool(count)

    copy = tmp_path / "film copy.mkv"
    copy.write_bytes(film.read_bytes())
    again, same_times, same_notes = prepare_video(film, size=(8, 8), cache=cache)
    assert again.path == first.path
    assert (same_times.tolist(), same_notes) == (times.tolist(), notes)
    assert not read(film, size=(8, 8))
    assert read(film, size=(8, 9))
    assert read(film, size=(8, 8), colour="grey")
    assert read(film, size=(8, 8), fps=5)
    makers.film(film, makers.pictures(7))
    assert read(film, size=(8, 8))
    assert calls


@pytest.mark.parametrize("harm", ["cut", "no about", "bad about", "other count"])
def test_a_damaged_entry_is_made_anew(film: pathlib.Path, tmp_path: pathlib.Path, harm: str) -> None:
    first, _, _ = prepare_video(film, size=(8, 8), cache=tmp_path)
    wanted = first.read(0, 6)
    about = first.path.with_name("about.json")
    if harm == "cut":
        first.path.write_bytes(first.path.read_bytes()[:-5])
    elif harm == "no about":
        about.unlink()
    elif harm == "bad about":
        about.write_text('{"format": 1')
    else:
        about.write_text(json.dumps({"format": 1, "times": [0.0], "notes": []}))
    again, times, _ = prepare_video(film, size=(8, 8), cache=tmp_path)
    assert np.array_equal(again.read(0, 6), wanted)
    assert len(times) == 6


def test_progress_and_interruption(film: pathlib.Path, tmp_path: pathlib.Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = makers.film(tmp_path / "a.avi", makers.pictures(5), container="avi", codec="mjpeg", pixels="yuvj420p")
    prepare_video(path, size=(4, 4), fps=20, cache=tmp_path / "cache", progress=lambda *step: seen.append(step))
    assert seen == [(k, 10) for k in range(1, 11)]

    def stop(done: int, total: int | None) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_video(film, size=(4, 4), cache=tmp_path / "other", progress=stop)
    assert list((tmp_path / "other").iterdir()) == []


def test_frames_travel_to_other_processes(film: pathlib.Path, tmp_path: pathlib.Path) -> None:
    frames, _, _ = prepare_video(film, size=(64, 64), cache=tmp_path)
    frames.read(0, 2)
    packed = pickle.dumps(frames)
    assert len(packed) < 1000
    assert np.array_equal(pickle.loads(packed).read(1, 5), frames.read(1, 5))


def test_the_temporary_cache_ends_with_its_process(film: pathlib.Path) -> None:
    script = (
        "import os, sys\n"
        "from pipelines.data.datasets.world_prepared import prepare_video\n"
        "frames, _, _ = prepare_video(sys.argv[1], size=(8, 8))\n"
        "if os.fork() == 0:\n"
        "    sys.exit(0)\n"  # a child that ends as Python does must not take the cache away
        "os.wait()\n"
        "print(frames.path, frames.path.exists(), frames.path == prepare_video(sys.argv[1], size=(8, 8))[0].path)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(film)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    path, there, same = done.stdout.split()[-3:]
    assert (there, same, done.returncode) == ("True", "True", 0), done.stderr
    assert not pathlib.Path(path).parents[1].exists()


def test_a_full_disk_leaves_nothing(film: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The limit of file size stands for a full disk, in a process of its own."""
    script = (
        "import resource, signal, sys\n"
        "from pipelines.data.datasets.world_prepared import prepare_video\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        "try:\n"
        "    prepare_video(sys.argv[1], size=None, cache=sys.argv[2])\n"
        "except ValueError as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    cache = tmp_path / "cache"
    done = subprocess.run(
        [sys.executable, "-c", script, str(film), str(cache)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.stdout.startswith("InputError "), done.stderr[-500:]
    assert "the disk of the cache is full. Found: File too large" in done.stdout
    assert "Cure: free some space" in done.stdout
    assert list(cache.iterdir()) == []


def test_a_disk_that_is_too_small_is_told_before_the_work(
    film: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world_prepared.shutil, "disk_usage", lambda _: type("U", (), {"free": 1_500_000})())
    with pytest.raises(InputError, match=r"full. Found: about 2.9 GB needed, 1.5 MB free"):
        prepare_video(film, size=(4000, 4000), fps=100, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written(film: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("a file stands where the folder should be")
    with pytest.raises(InputError, match=r"cannot be written. Found: .*Cure: choose a folder you may write to"):
        prepare_video(film, size=(8, 8), cache=tmp_path / "file")
    with pytest.raises(InputError, match=r"cannot be written"):
        prepare_video(film, size=(8, 8), cache="/proc/no/such")


def test_arguments_and_files_that_are_refused(film: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for words, told in [
        ({"size": (0, 4)}, "no such size"),
        ({"size": (8,)}, "no such size"),
        ({"size": (8, 8), "colour": "red"}, "no such colour"),
        ({"size": (8, 8), "fps": 0.0}, "no such frame rate"),
        ({"size": (8, 8), "fps": float("nan")}, "no such frame rate"),
        ({"size": (8, 8), "rate": -1.0}, "no such frame rate"),
        ({"size": (8, 8), "start": 5.0}, "no frame between 5 s and the end. Found: the film lasts 0.60 s"),
        ({"size": (8, 8), "start": 0.4, "stop": 0.2}, "no such time"),
    ]:
        with pytest.raises(InputError, match=told):
            prepare_video(film, cache=tmp_path / "cache", **words)  # type: ignore[arg-type]
    np.save(tmp_path / "a.npy", np.zeros((3, 4, 5, 2), np.uint8))
    np.save(tmp_path / "b.npy", np.zeros((3, 4, 5, 3), np.float32))
    (tmp_path / "c.npy").write_bytes(b"no array")
    for name, told in [("a", "not an array of frames"), ("b", "not an array"), ("c", "no frames"), ("d", "no frames")]:
        with pytest.raises(InputError, match=told):
            MemmapFrames(tmp_path / f"{name}.npy")
    frames, _, _ = prepare_video(film, size=(8, 8), cache=tmp_path / "cache")
    for bad in ((-1, 2), (3, 2), (0, 7)):
        with pytest.raises(InputError):
            frames.read(*bad)


def test_memory_does_not_grow_with_the_film(tmp_path: pathlib.Path) -> None:
    """Twice the length, the same memory; kept frames would be 27 MB more."""
    if not pathlib.Path("/proc/self/status").exists():
        pytest.skip("memory is read from /proc")
    script = (
        "import sys\n"
        "from pipelines.data.datasets.world_prepared import prepare_video\n"
        "def held():\n"
        "    return [int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('RssAnon')][0]\n"
        "most = [0]\n"
        "prepare_video(sys.argv[1], size=(16, 16), progress=lambda n, _: most.append(held() if n > 20 else 0))\n"
        "print(max(most))\n"
    )
    peaks: list[int] = []
    for count in (60, 120):
        frames = makers.pictures(4, 480, 640)
        path = tmp_path / f"{count}.avi"
        makers.film(path, [frames[k % 4] for k in range(count)], container="avi", codec="mpeg4", pixels="yuv420p")
        done = subprocess.run(
            [sys.executable, "-c", script, str(path)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            check=True,
        )
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 8_000, peaks  # kB


def test_the_street_is_what_the_recipe_makes(tmp_path: pathlib.Path) -> None:
    """The embedded street against its film, where that is at hand: the first five seconds."""
    if not (REAL / "vtest.avi").is_file():
        pytest.skip("vtest.avi is not at hand")
    frames, times, _ = prepare_video(REAL / "vtest.avi", size=(64, 64), stop=5.0, cache=tmp_path)
    with np.load(SAMPLES / "street.npz") as street:
        assert street["frames"].shape == (795, 64, 64, 3)
        assert float(street["fps"]) == 10.0
        assert np.abs(frames.read(0, 50).astype(int) - street["frames"][:50]).max() <= 1
    assert times == pytest.approx(np.arange(50) / 10)
    assert sum(path.stat().st_size for path in SAMPLES.iterdir()) < 5_000_000
