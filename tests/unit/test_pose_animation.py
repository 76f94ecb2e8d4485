"""Films of poses: what is on their pictures, how fast they run, what they say inside, and how little they hold."""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import os
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

from pipelines.data.datasets.pose_types import Clip, Skeleton
from pipelines.errors import ConfigError, InputError
from pipelines.evaluation import plots as house
from pipelines.evaluation.films import write_gif
from pipelines.pose.animation import Painter, animate, timing, told_inside
from pipelines.pose.body import extent, floor_lines, seen
from pipelines.pose.films import palette
from pipelines.pose.plots import bars_figure, course_figure, pck_figure, skeleton_figure, strip_figure
from pipelines.pose.tracks import Track
from pipelines.progress import Progress

DATA = Path(os.environ.get("PIPELINES_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
BODY = Skeleton("body", ("hip", "left hand", "right hand", "head"), (-1, 0, 0, 0), 0, (1,), (2,))


def waving(frames: int = 8, **changes: object) -> Track:
    """Left hand (blue) to the right of the picture, right hand (orange) to the left, both going up; y down."""
    points = np.zeros((frames, 4, 3))
    rise = np.linspace(0, 0.4, frames)
    points[:, 1], points[:, 2], points[:, 3] = (0.5, 0.2, 0), (-0.5, 0.2, 0), (0, -0.6, 0)
    points[:, 1:3, 1] -= rise[:, None]
    flat = Clip.of("wave", 500 + 400 * points[..., :2], BODY, unit="px", frame="image", size=(1000, 1000), fps=25.0)
    return dataclasses.replace(
        Track("wave", points.astype(np.float32), np.ones((frames, 4), bool), BODY, fps=25.0, inputs=flat), **changes
    )  # type: ignore[arg-type]


def rgb(colour: str) -> NDArray[np.int64]:
    return np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])


def places(picture: NDArray[np.uint8], colour: str) -> NDArray[np.int64]:
    """(N, 2) row and column of the pixels of a colour."""
    return np.argwhere((np.abs(picture.astype(int) - rgb(colour)) < 24).all(-1))


def test_the_picture_has_the_input_left_and_the_pose_right_the_right_way_round() -> None:
    painter = Painter(waving(), width=600, turn=0)
    first, last = painter.paint(0), painter.paint(7)
    assert first.shape == (painter.size[1], painter.size[0], 3)
    half = first.shape[1] // 2
    for picture in (first[:, :half], first[:, half:]):
        blue, orange, dark = (places(picture, c) for c in (house.BLUE, house.ORANGE, house.INK))
        assert min(len(blue), len(orange), len(dark)) > 20
        assert orange[:, 1].max() <= blue[:, 1].min() + 6  # the right hand is left of the left hand, as a camera has it
        body = dark[dark[:, 0] > 50]  # without the title
        assert body[:, 0].min() < blue[:, 0].min() - 10  # the head is up
    for low, high in ((first[:, :half], last[:, :half]), (first[:, half:], last[:, half:])):
        assert places(high, house.BLUE)[:, 0].min() < places(low, house.BLUE)[:, 0].min() - 20  # hands went up


def test_frames_do_not_depend_on_those_before() -> None:
    painter = Painter(waving(sigma=np.full((8, 4), 40.0), truth=waving().points + np.float32(0.05)), width=300)
    first = painter.paint(2)
    painter.paint(6)
    np.testing.assert_array_equal(painter.paint(2), first)


def test_bones_of_missing_joints_vanish() -> None:
    valid = np.ones((8, 4), bool)
    valid[3, 1] = False
    painter = Painter(waving(valid=valid, inputs=None), width=300)
    assert len(places(painter.paint(2), house.BLUE)) > 20
    assert not len(places(painter.paint(3), house.BLUE))
    assert len(places(painter.paint(3), house.ORANGE)) > 20


def test_the_view_is_a_turn_and_a_parallel_projection() -> None:
    """Against scipy's rotations: the person is turned the other way about the vertical, then tipped towards us."""
    points = np.random.default_rng(0).normal(size=(9, 3))
    turned = Rotation.from_euler("zx", [-40, 12], degrees=True).apply(points)
    np.testing.assert_allclose(seen(points, "world", turn=40, tilt=12), turned[:, [0, 2]], atol=1e-6)
    camera = np.stack([points[:, 0], -points[:, 2], points[:, 1]], 1)  # x right, y down, z forward
    np.testing.assert_allclose(seen(camera, "camera"), seen(points, "world"), atol=1e-6)
    assert seen([0, 0, 1.0], "camera", turn=90, tilt=0).round(6).tolist() == [1.0, 0.0]  # from the right: far is right


def test_the_floor_lies_under_the_lowest_joint() -> None:
    lines, square = floor_lines(waving(), turn=0)
    assert square == 0.5
    heights = np.array(lines)[..., 1]
    middle = seen([0, 0.2, 0], "camera", turn=0)[1]  # lowest joint: 0.2 m below the root
    assert heights.min() < middle < heights.max()
    far = dataclasses.replace(waving(), points=waving().points * np.float32(1000))
    assert len(floor_lines(far)[0]) < 60
    assert floor_lines(waving(valid=np.zeros((8, 4), bool)))[0] == []


def test_the_scale_ignores_what_is_not_there() -> None:
    spots = np.array([[0.0, 0.0], [1.0, 2.0], [99.0, 99.0], [np.nan, 0.0]])
    assert extent(spots, np.array([True, True, False, True]), 0.0) == (0.0, 1.0, 0.0, 2.0)
    assert extent(spots, np.zeros(4, bool)) == (-1.0, 1.0, -1.0, 1.0)
    left, right, bottom, top = extent(spots[:1], np.ones(1, bool))
    assert left < right
    assert bottom < top


def test_gif_holds_the_pictures_as_they_were_drawn(tmp_path: Path) -> None:
    track = waving()
    notes = animate(tmp_path / "a.gif", track, width=400)
    painter = Painter(track, width=400)
    with Image.open(tmp_path / "a.gif") as film:
        assert (getattr(film, "n_frames"), film.size) == (8, painter.size)  # noqa: B009
        assert film.info["loop"] == 0
        for frame in range(8):
            film.seek(frame)
            assert film.info["duration"] == 40
            got = np.asarray(film.convert("RGB")).astype(int)
            drawn = painter.paint(frame).astype(int)
            assert np.abs(got - drawn).mean() < 1.0
            assert (np.abs(got - drawn).max(-1) > 40).mean() < 1e-3
            assert (got[(drawn == 255).all(-1)] == 255).all()  # white is white
        assert film.info["comment"].decode() == told_inside(track)
    assert notes == (f"a.gif: {painter.size[0]} x {painter.size[1]} px, 8 pictures, 25 a second",)
    assert "in metres relative to hip, camera frame (x right, y down, z away from the camera)" in told_inside(track)


def test_mp4_holds_the_pictures_as_they_were_drawn(tmp_path: Path) -> None:
    import av

    track = waving(fps=30000 / 1001)
    animate(tmp_path / "a.mp4", track, width=401)
    painter = Painter(track, width=401)
    with av.open(str(tmp_path / "a.mp4")) as film:
        assert film.metadata["comment"] == told_inside(track)
        assert film.streams.video[0].average_rate == Fraction(30000, 1001)
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == 8
    assert frames[0].shape == (painter.size[1], 400, 3)
    for number, frame in enumerate(frames):
        difference = frame.astype(float) - painter.paint(number)
        assert 10 * math.log10(255**2 / (difference**2).mean()) > 28


@pytest.mark.parametrize(
    ("frames", "fps", "kind", "seconds", "rate", "shown", "words"),
    [
        (100, 25.0, ".gif", None, Fraction(25), 100, ()),
        (100, 30.0, ".gif", None, Fraction(25), 84,
         ("84 of the 100 frames are shown in real time, 25 pictures a second",)),
        (100, 30.0, ".mp4", None, Fraction(30), 100, ()),
        (100, 10.0, ".gif", None, Fraction(10), 100, ()),
        (100, None, ".mp4", None, Fraction(25), 100, ("the frame rate is not known: played at 25 frames a second",)),
        (1200, 120.0, ".mp4", 5.0, Fraction(60), 300,
         ("the film ends after 5 s: 600 of 1,200 frames come later",
          "300 of the 600 frames are shown in real time, 60 pictures a second")),
        (1, 1e9, ".gif", None, Fraction(25), 1, ()),
        (3, 1e-9, ".gif", None, Fraction(1), 3, ("1e-09 Hz is too slow to watch: played at 1 frames a second",)),
    ],
)  # fmt: skip
def test_films_run_in_real_time(
    frames: int, fps: float | None, kind: str, seconds: float | None, rate: Fraction, shown: int, words: tuple[str, ...]
) -> None:
    plan = timing(frames, fps, kind, seconds=seconds)
    assert (plan.rate, plan.shown, plan.notes) == (rate, shown, words)
    order = list(plan.frames())
    assert len(order) == shown
    assert order == sorted(order)
    assert order[0] >= 0
    assert order[-1] < frames
    if seconds is None and shown > 1:
        assert order[-1] >= frames - math.ceil(plan.fps / float(rate))  # the end is shown
        for picture in (0, shown // 2, shown - 1):
            assert order[picture] == pytest.approx(picture / float(rate) * plan.fps, abs=1)


@pytest.mark.parametrize("fps", [7.0, 24.0, 24000 / 1001, 33.3, 50.0, 59.94, 144.0, 1000.0])
@pytest.mark.parametrize("kind", [".gif", ".mp4"])
def test_every_rate_lasts_as_long_as_the_clip(fps: float, kind: str) -> None:
    plan = timing(500, fps, kind)
    # A GIF's delays are whole hundredths: pictures are chosen so that time still passes as it did.
    assert plan.shown / float(plan.rate) == pytest.approx(500 / fps, abs=1 / float(plan.rate) + 1e-6)
    assert len(set(plan.frames())) == min(plan.shown, 500)
    assert max(plan.frames()) >= 500 - math.ceil(fps / float(plan.rate))


def test_a_film_holds_few_pictures_at_once() -> None:
    size, count = (160, 160), 200
    one = size[0] * size[1] * 3

    def pictures() -> object:
        for number in range(count):
            yield np.full((size[1], size[0], 3), number, np.uint8)

    out = io.BytesIO()
    write_gif(io.BytesIO(), iter([np.zeros((160, 160, 3), np.uint8)]), size, Fraction(25), "warm up", palette())
    tracemalloc.start()
    write_gif(out, pictures(), size, Fraction(25), "", palette())  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1] - len(out.getvalue())
    tracemalloc.stop()
    assert peak < 25 * one
    with Image.open(out) as film:
        assert getattr(film, "n_frames") == count  # noqa: B009


def test_progress_hears_of_the_pictures(tmp_path: Path) -> None:
    log = io.StringIO()
    animate(tmp_path / "a.gif", waving(3), width=200, progress=Progress(stream=log))
    assert "drawing a.gif: 3/3" in log.getvalue()


def test_bad_wishes_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    for path, changes in (("a.avi", {}), ("a.gif", {"width": 10}), ("a.gif", {"width": 9000}), ("a.gif", {"seconds": 0.0})):  # fmt: skip  # noqa: E501
        with pytest.raises(ConfigError):
            animate(tmp_path / path, waving(), **changes)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_failing_picture_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = Painter.paint

    def stumble(self: Painter, frame: int) -> NDArray[np.uint8]:
        if frame == 5:
            raise KeyboardInterrupt
        return draw(self, frame)

    monkeypatch.setattr(Painter, "paint", stumble)
    for kind in ("gif", "mp4"):
        with pytest.raises(KeyboardInterrupt):
            animate(tmp_path / f"a.{kind}", waving(), width=200)
        assert not list(tmp_path.iterdir())


def test_odd_poses_can_be_drawn(tmp_path: Path) -> None:
    nobody = waving(valid=np.zeros((8, 4), bool))
    one = waving(1, fps=None, name="a $\\frac{ name 体 " + "x" * 90)
    spread = dataclasses.replace(waving(), points=waving().points * np.float32(1e6), inputs=None, frame="world")
    for number, track in enumerate((nobody, one, spread)):
        animate(tmp_path / f"{number}.gif", track, width=200)
        strip_figure(track).savefig(io.BytesIO())


def test_strips_and_skeletons_show_every_joint_there_is() -> None:
    figure = strip_figure(waving(5), count=9)
    assert len(figure.axes) == 10  # two rows of five frames
    assert [ax.get_title(loc="center") for ax in figure.axes[:2]] == ["0.00 s", "0.04 s"]
    clip = waving().clip()
    texts = [text.get_text() for text in skeleton_figure(clip).axes[0].texts]
    assert texts == ["0 hip", "1 left hand", "2 right hand", "3 head"]
    with pytest.raises(InputError, match="no such frame"):
        skeleton_figure(clip, frame=8)
    with pytest.raises(InputError, match="no pose"):
        strip_figure(waving(), count=0)


def test_figures_of_figures() -> None:
    many = {f"joint {n}": float(n) for n in range(60)}
    ax = bars_figure(many, intervals={"joint 1": (0.5, 2.0)}, marked={"joint 2": 5.0}).axes[0]
    assert len(ax.patches) == 40
    assert "the first 40 of 60" in ax.get_title(loc="left")
    bars_figure({"a": math.nan, "b": 2.0}, models=True).savefig(io.BytesIO())
    course_figure({"a": [1.0, math.nan, 2.0], "b": [2.0, 2.0, 2.0]}, fps=None).savefig(io.BytesIO())
    pck_figure({"a": np.linspace(0, 100, 31)}).savefig(io.BytesIO())
    for call in (
        lambda: bars_figure({}),
        lambda: pck_figure({"a": [1.0]}),
        lambda: course_figure({}, fps=1.0),
        lambda: course_figure({"a": [1.0], "b": [1.0, 2.0]}, fps=1.0),
    ):
        with pytest.raises(InputError):
            call()


def test_a_captured_clip_walks(tmp_path: Path) -> None:
    """Real motion from a file: every picture differs from the one before, and the body stays upright."""
    from pipelines.data.formats.bvh import read_bvh

    path = DATA / "embeddable" / "pose3d" / "test_mocapbank.bvh"
    if not path.is_file():
        pytest.skip("set PIPELINES_DATA to the folder with the data")
    (clip,) = read_bvh(path, units="cm")
    points = clip.points - clip.points[:, [clip.skeleton.root]]
    track = Track("captured", points[:60:5], clip.valid[:60:5], clip.skeleton, fps=6.0, frame="world")
    animate(tmp_path / "a.gif", track, width=200)
    with Image.open(tmp_path / "a.gif") as film:
        pictures = []
        for frame in range(12):
            film.seek(frame)
            pictures.append(np.asarray(film.convert("RGB")).astype(int))
    assert all(np.abs(a - b).sum() > 0 for a, b in itertools.pairwise(pictures))
    body = np.argwhere((pictures[0][30:-30] < 200).any(-1))
    assert np.ptp(body[:, 0]) > np.ptp(body[:, 1])
