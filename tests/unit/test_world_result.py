"""Rollouts as answers: what their files hold, what is refused, and that a full disk leaves nothing half."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import math
import os
import resource
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.base import Provenance
from pipelines.errors import ConfigError, InputError, RunError
from pipelines.evaluation.report import Report
from pipelines.world.films import Painter
from pipelines.world.result import ENDINGS, Rollout
from pipelines.world.result_files import FORMAT, KINDS, numbered
from pipelines.world.rollouts import RolloutEpisode, by_horizon, error_of, pixels_of

DATA = Path(os.environ.get("PIPELINES_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")


def episode(name: str = "clip", seen: int = 2, horizon: int = 5, channels: int = 3, **changes: Any) -> RolloutEpisode:
    """Random frames of 6 x 8 px; the prediction in float32, the rest as it was recorded."""
    rng = np.random.default_rng(len(name) + seen)
    recorded = rng.integers(0, 256, (seen + horizon, 6, 8, channels), dtype=np.uint8)
    guess = rng.random((horizon, 6, 8, channels), dtype=np.float32)
    made = RolloutEpisode(name, recorded[:seen], guess, truth=recorded[seen:], fps=10.0)
    return dataclasses.replace(made, **changes)


def rollout(*episodes: RolloutEpisode, **changes: Any) -> Rollout:
    now = Provenance.now(data="clip.avi", model="convlstm", seed=0, weights="shipped: street")
    return dataclasses.replace(Rollout("convlstm", now, list(episodes or (episode(),))), **changes)


@contextlib.contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Files may not grow beyond this size: what a full disk does, without filling one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kept", KINDS)
def test_npz_holds_what_was_predicted_and_says_what_it_is(tmp_path: Path, kept: Any) -> None:
    moves = np.eye(2, dtype=np.float32)[[0, 1, 0, 1, 1, 0]]
    one = episode(actions=moves, action_names=("left", "right"), start=7, notes=("cropped",))
    answer = rollout(one, kept=kept, told=("told",))
    assert answer.save(tmp_path / "a.npz") == tmp_path / "a.npz"
    with np.load(tmp_path / "a.npz", allow_pickle=False) as held:
        assert str(held["format"]) == FORMAT
        about = json.loads(str(held["about"]))
        assert held["prediction"].dtype == kept
        expected = one.prediction if kept != "uint8" else np.rint(one.prediction.astype(np.float64) * 255)
        limit = {"float32": 0, "float16": 2**-12, "uint8": 0.501}[kept]
        assert np.abs(held["prediction"].astype(np.float64) - expected).max() <= limit
        for what in ("context", "truth"):
            np.testing.assert_array_equal(held[what], getattr(one, what))
        np.testing.assert_array_equal(held["actions"], moves)
    (told,) = about["episodes"]
    assert (about["model"], about["provenance"]["weights"]) == ("convlstm", "shipped: street")
    assert (told["fps"], told["start"], told["context"], told["horizon"], told["known"]) == (10.0, 7, 2, 5, 5)
    assert told["action_names"] == ["left", "right"]
    unit = "values 0 to 255" if kept == "uint8" else "values in [0, 1]"
    assert told["arrays"]["prediction"].startswith(f"(h, H, W, C) = (5, 6, 8, 3) {kept}, {unit}")
    assert set(told["arrays"]) == {"prediction", "context", "truth", "actions"}
    assert ("a.npz: predictions are rounded to " + kept in answer.notes) == (kept != "float32")


def test_several_episodes_share_one_npz_but_not_a_film(tmp_path: Path) -> None:
    answer = rollout(episode("a/x.avi"), episode("b/x.avi", seen=1, truth=None), episode("y", seen=3))
    answer.save(tmp_path / "all.npz")
    with np.load(tmp_path / "all.npz") as held:
        assert held["1/context"].shape == (1, 6, 8, 3)
        assert held["2/prediction"].shape == (5, 6, 8, 3)
        assert "1/truth" not in held.files
    first = answer.save(tmp_path / "strip.png")
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "strip-x.avi-2.png", "strip-x.avi.png", "strip-y.png"]  # fmt: skip
    assert first.name == "strip-x.avi.png"


def test_a_folder_holds_one_file_of_each_kind_an_episode(tmp_path: Path) -> None:
    answer = rollout(episode("a", horizon=2), episode("b", seen=1, horizon=2))
    assert answer.save(tmp_path / "out") == tmp_path / "out"
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == sorted(f"rollout-{name}{ending}" for name in "ab" for ending in ENDINGS)
    alone = rollout(episode("a", horizon=2))
    alone.save(tmp_path / "one")
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == sorted(f"rollout{end}" for end in ENDINGS)
    assert any(note.startswith("rollout.gif: ") for note in alone.notes)


def test_the_same_rollout_gives_the_same_bytes(tmp_path: Path) -> None:
    answer = rollout(episode(horizon=3))
    for ending in ENDINGS:
        first, second = (answer.save(tmp_path / f"{name}{ending}").read_bytes() for name in "ab")
        assert first == second


def test_figures_by_horizon_are_of_all_pixels_that_reach_it() -> None:
    long, short = episode("long"), episode("short", seen=3)
    short = dataclasses.replace(short, truth=short.truth[:2])
    found = by_horizon([long, short])
    for step in range(5):
        reach = [one for one in (long, short) if one.known > step]
        gaps = [one.prediction[step].astype(np.float64) - one.truth[step] / 255 for one in reach]
        mse = np.mean(np.square(gaps))
        copied = np.mean([np.square(one.context[-1] / 255 - one.truth[step] / 255) for one in reach])
        assert found["mse"]["prediction"][step] == pytest.approx(mse, rel=1e-5)
        assert found["mse"]["copy_last"][step] == pytest.approx(copied, rel=1e-5)
        assert found["psnr"]["prediction"][step] == pytest.approx(-10 * math.log10(mse), rel=1e-5)
    assert "figures after horizon 2 are of 1 of 2 episodes or fewer" in rollout(long, short).notes
    assert by_horizon([dataclasses.replace(long, truth=None)]) == {}


def test_an_answer_as_plain_values_and_text() -> None:
    answer = rollout(episode(truth=None), episode("known"), failed={"x.avi": "x.avi: no frames"}, told=("said",))
    told = json.loads(json.dumps(answer.to_dict(), allow_nan=False))
    assert (told["model"], told["provenance"]["weights"], told["frames"]) == ("convlstm", "shipped: street", 10)
    assert list(told["horizons"]["mse"]) == ["convlstm", "copy_last"]
    assert len(told["horizons"]["psnr"]["convlstm"]) == 5
    assert [entry["known"] for entry in told["episodes"]] == [0, 5]
    assert "clip: the frames that came are not known: no truth and no error" in answer.notes
    assert answer.notes[0] == "said"
    assert answer.notes[-1] == "left out: x.avi: no frames"
    text = str(answer)
    assert "clip: 5 frames after 2 of context at 10 Hz (0.5 s), 8 x 6 px" in text
    assert "1 could not be rolled out" in text
    still = episode(prediction=np.repeat(episode().truth[:1], 5, 0), truth=np.repeat(episode().truth[:1], 5, 0))
    assert rollout(still).to_dict()["horizons"]["psnr"]["convlstm"] == [100.0] * 5
    json.dumps(rollout(measured={"ssim": {"convlstm": [0.5], "copy_last": [0.25]}}).to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prediction": np.zeros((5, 6, 9, 3), np.uint8)}, "several sizes"),
        ({"prediction": np.zeros((0, 6, 8, 3), np.uint8)}, "without frames"),
        ({"prediction": np.zeros((5, 6, 8, 4), np.uint8)}, "without frames"),
        ({"prediction": np.zeros((5, 6, 8), np.uint8)}, "without frames"),
        ({"prediction": [[1.0]]}, "without frames"),
        ({"context": np.zeros((0, 6, 8, 3), np.uint8)}, "without frames"),
        ({"prediction": np.zeros((5, 6, 8, 3), np.int64)}, "no frames"),
        ({"prediction": np.full((5, 6, 8, 3), np.nan, np.float32)}, "not finite"),
        ({"prediction": np.full((5, 6, 8, 3), np.inf, np.float32)}, "not finite"),
        ({"prediction": np.full((5, 6, 8, 3), 255.0, np.float32)}, "outside"),
        ({"prediction": np.full((5, 6, 8, 3), -0.1, np.float16)}, "outside"),
        ({"truth": np.zeros((6, 6, 8, 3), np.uint8)}, "more truth"),
        ({"actions": np.zeros((5, 1), np.float32)}, "another length"),
        ({"actions": np.zeros((8, 1), np.float32)}, "another length"),
        ({"actions": np.zeros(6, np.float32)}, "another length"),
        ({"actions": np.zeros((6, 1), np.float32), "action_names": ("a", "b")}, "names do not fit"),
        ({"action_names": ("a",)}, "without actions"),
        ({"fps": 0.0}, "frame rate"),
        ({"fps": math.nan}, "frame rate"),
    ],
)
def test_rollouts_that_do_not_fit_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        episode(**changes)
    assert "clip" in str(caught.value)


def test_one_action_more_is_not_used() -> None:
    for rows in (6, 7):
        assert episode(actions=np.zeros((rows, 1), np.float32)).horizon == 5


def test_other_kinds_of_files_and_nothing_to_write_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.npz, \.gif, \.mp4, \.png"):
        rollout().save(tmp_path / "a.avi")
    with pytest.raises(ConfigError, match="no rollout"):
        rollout(episodes=[]).save(tmp_path / "a.gif")
    with pytest.raises(ConfigError, match="float16, float32, uint8"):
        rollout(kept="int8").save(tmp_path / "a.npz")
    for changes in ({"scale": 0.0}, {"scale": 1.5}, {"scale": math.nan}, {"rate": 0.0}, {"rate": math.nan}):
        with pytest.raises(ConfigError):
            rollout(**changes).save(tmp_path / "a.gif")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk_is_explained_and_leaves_the_old_file(tmp_path: Path, ending: str) -> None:
    target = tmp_path / f"rollout{ending}"
    target.write_bytes(b"old")
    answer = rollout(episode(horizon=40))
    with file_limit(3000), pytest.raises(RunError, match=r"full .* free\)\. Cure: ") as caught:
        answer.save(target)
    assert str(target) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    assert target.read_bytes() == b"old"
    assert not [note for note in answer.notes if "rollout" in note], "nothing is said of files that are not there"
    answer.save(target)
    assert target.stat().st_size > 3000


@pytest.mark.parametrize("limit", [100, 6000, 20_000])
def test_a_full_disk_leaves_no_folder(tmp_path: Path, limit: int) -> None:
    """Whichever of the files it is that does not fit, none of them is there in the end."""
    answer = rollout(episode("a", horizon=30), episode("b", horizon=30))
    with file_limit(limit), pytest.raises(RunError, match="full"):
        answer.save(tmp_path / "out")
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with file_limit(limit), pytest.raises(RunError, match="full"):
        answer.save(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_writing_numbers_takes_no_memory_for_the_length(tmp_path: Path) -> None:
    """A memory map of 60 MB goes into an NPZ file with a few MB of memory."""
    shape = (300, 64, 256, 3)
    held = np.lib.format.open_memmap(tmp_path / "p.npy", "w+", np.float32, shape)
    held[:] = 0.25
    held.flush()
    one = RolloutEpisode("long", np.zeros((1, *shape[1:]), np.uint8), held)
    answer = rollout(one)
    tracemalloc.start()
    answer.save(tmp_path / "a.npz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < held.nbytes / 2
    with np.load(tmp_path / "a.npz") as found:
        assert found["prediction"].shape == shape
        assert float(found["prediction"][-1].min()) == 0.25


def test_frames_that_are_read_by_range_are_as_good_as_arrays(tmp_path: Path) -> None:
    from pipelines.data.datasets.world_types import ArrayFrames

    plain = episode(channels=1)
    lazy = dataclasses.replace(plain, truth=ArrayFrames(plain.truth), context=ArrayFrames(plain.context))
    assert by_horizon([plain]) == by_horizon([lazy])
    for ending in ENDINGS:
        first, second = (rollout(one).save(tmp_path / f"a{ending}").read_bytes() for one in (plain, lazy))
        if ending != ".npz":
            assert first == second
    with np.load(tmp_path / "a.npz") as held:
        np.testing.assert_array_equal(held["truth"], plain.truth)


def test_names_from_anywhere_stay_inside_the_folder() -> None:
    names = ("../../etc/passwd", "a b", "a/b", "", "体", "x" * 300, "C:\\film.avi")
    frames = np.zeros((1, 2, 2, 1), np.uint8)
    paths = numbered(Path("out/x.gif"), [RolloutEpisode(name, frames, frames) for name in names])
    assert all(path.parent == Path("out") and path.suffix == ".gif" for path in paths)
    assert len(set(paths)) == len(names)
    assert [path.name for path in paths[:5]] == ["x-passwd.gif", "x-a-b.gif", "x-b.gif", "x-episode.gif", "x-体.gif"]


def test_the_picture_shows_whole_squares_for_pixels(tmp_path: Path) -> None:
    one = episode(horizon=2)
    figure = rollout(one).plot(tmp_path / "a.png")
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert (picture.shape[1], picture.shape[0]) == tuple(figure.get_size_inches() * figure.dpi)
    large = pixels_of(one.prediction[1]).repeat(16, 0).repeat(16, 1)  # 8 px wide: 128
    rows, columns = large.shape[:2]
    places = [
        (y, x)
        for y in range(picture.shape[0] - rows)
        for x in range(picture.shape[1] - columns)
        if (picture[y, x] == large[0, 0]).all() and np.array_equal(picture[y : y + rows, x : x + columns], large)
    ]
    assert len(places) == 1
    assert rollout(one).plot(tmp_path / "a.svg") is not None
    assert rollout(episodes=[]).plot().axes[0].texts[0].get_text() == "no episode could be rolled out"


def test_a_report_holds_films_strips_and_figures() -> None:
    answer = rollout(*(episode(f"clip-{number}", seen=1, horizon=2) for number in range(6)), facts={"episodes": 6})
    report = Report("Rollouts")
    answer.fill_report(report)
    page = report.render()
    assert page.count(base64.b64encode(b"GIF89a").decode()) == 4, "films of the first four episodes"
    assert page.count("Strip of clip-") == 4
    assert "2 more episodes in the saved files only." in page
    assert "MSE of convlstm, copy_last at each horizon" in page
    assert "PSNR of convlstm, copy_last at each horizon" in page
    empty = Report("None")
    rollout(episodes=[]).fill_report(empty)
    assert "0 episodes" in empty.render()
    unknown = Report("Unknown")
    rollout(episode(truth=None)).fill_report(unknown)
    assert "By horizon" not in unknown.render()


def test_errors_are_means_over_channels() -> None:
    rng = np.random.default_rng(0)
    guess, truth = rng.random((2, 4, 5, 3)), rng.random((2, 4, 5, 3))
    expected = [[[sum(abs(guess[t, y, x, c] - truth[t, y, x, c]) for c in range(3)) / 3 for x in range(5)]
                 for y in range(4)] for t in range(2)]  # fmt: skip
    np.testing.assert_allclose(error_of(guess, truth), expected, atol=1e-6)


def test_a_street_of_real_frames(tmp_path: Path) -> None:
    """Copying the last frame of a real clip: its own figures are the baseline's, and people who walk are the error."""
    import av

    path = DATA / "embeddable" / "video" / "vtest.avi"
    if not path.is_file():
        pytest.skip("set PIPELINES_DATA to the folder with the data")
    frames = []
    with av.open(str(path)) as film:
        for frame in film.decode(video=0):
            image = Image.fromarray(frame.to_ndarray(format="rgb24")).resize((64, 64), Image.Resampling.BOX)
            frames.append(np.asarray(image))
            if len(frames) == 60:
                break
    clip = np.stack(frames)
    guess = np.repeat(clip[43:44].astype(np.float32) / 255, 16, 0)
    one = RolloutEpisode("vtest.avi", clip[40:44], guess, truth=clip[44:60], fps=10.0, start=40)
    answer = rollout(one)
    mse = answer.horizons["mse"]
    assert mse["convlstm"] == pytest.approx(mse["copy_last"])
    assert mse["convlstm"][15] > 5 * mse["convlstm"][0] > 0
    answer.save(tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as film:
        assert getattr(film, "n_frames") == 20  # noqa: B009
        painter = Painter(one, model="convlstm", speed=0.5)
        for number in (0, 10, 19):
            film.seek(number)
            gap = np.asarray(film.convert("RGB")).astype(float) - painter.paint(number)
            assert 10 * math.log10(255**2 / np.square(gap).mean()) > 38, "256 colours are enough for a street"
