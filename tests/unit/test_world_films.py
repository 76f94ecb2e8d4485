"""Films, strips and plots of rollouts: where things are on the pictures, in which colours, how fast, in what memory."""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import tracemalloc
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipelines.errors import ConfigError, InputError
from pipelines.evaluation import plots as house
from pipelines.evaluation.films import Palette, add_film, write_gif, write_mp4
from pipelines.evaluation.report import Report
from pipelines.progress import Progress
from pipelines.world.drift import drift
from pipelines.world.films import Painter, animate, film_bytes, plan_film, timing, told_inside
from pipelines.world.plots import drift_figure, finding, horizon_figure, of_tally, probes_figure, spectrum_figure
from pipelines.world.probes import Series, compare
from pipelines.world.rollouts import RolloutEpisode, pixels_of
from pipelines.world.strips import colour_bar, coloured, enlarged, sized, strip_figure, strip_steps
from pipelines.world.tally import Tally

Pixels = NDArray[np.uint8]


def episode(seen: int = 2, horizon: int = 4, size: tuple[int, int] = (16, 32), **changes: Any) -> RolloutEpisode:
    """Smooth colours that move, in uint8, and a prediction that is darker."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    shades = [
        np.stack([columns * 255 // size[1], rows * 255 // size[0], np.full(size, 20 * t)], -1)
        for t in range(seen + horizon)
    ]
    frames = np.stack(shades).astype(np.uint8)
    guess = frames[seen:].astype(np.float32) / 510
    made = RolloutEpisode("moving", frames[:seen], guess, truth=frames[seen:], fps=10.0)
    return dataclasses.replace(made, **changes)


def find(picture: Pixels, part: Pixels) -> list[tuple[int, int]]:
    """Top lefts of the places at which a picture holds another one exactly."""
    high, wide = part.shape[:2]
    starts = np.argwhere((picture[: picture.shape[0] - high + 1, : picture.shape[1] - wide + 1] == part[0, 0]).all(-1))
    return [(int(y), int(x)) for y, x in starts if np.array_equal(picture[y : y + high, x : x + wide], part)]


def rgb(colour: str) -> NDArray[np.int64]:
    return np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])


def psnr(first: Pixels, second: Pixels) -> float:
    gap = float(np.square(first.astype(float) - second).mean())
    return 99.0 if gap == 0 else 10 * math.log10(255**2 / gap)


def test_rows_are_truth_prediction_and_error_of_the_same_frame() -> None:
    one = episode()
    painter = Painter(one, model="convlstm")
    picture = painter.paint(3)  # the second predicted frame
    assert picture.shape == (painter.size[1], painter.size[0], 3)
    assert all(side % 2 == 0 for side in painter.size)
    truth = one.truth[1].repeat(8, 0).repeat(8, 1)  # 32 px wide: eight times is 256
    guess = np.rint(one.prediction[1] * 255 + 1e-4).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    error = np.abs(one.prediction[1] - one.truth[1] / np.float32(255)).mean(-1).repeat(8, 0).repeat(8, 1)
    places = [find(picture, part) for part in (truth, guess, coloured(error))]
    assert [len(found) for found in places] == [1, 1, 1]
    (top, left), (middle, also_left), (low, left_too) = (found[0] for found in places)
    assert left == also_left == left_too
    assert top + 128 < middle
    assert middle + 128 < low


def test_what_was_seen_has_a_blue_border_and_what_is_predicted_has_none() -> None:
    one = episode()
    painter = Painter(one)
    seen, predicted = painter.paint(1), painter.paint(2)
    shown = one.context[1].repeat(8, 0).repeat(8, 1)
    places = find(seen, shown)
    assert len(places) == 2, "the last frame seen stands in the rows of truth and prediction"
    for y, x in places:
        around = (
            seen[y - 1, x : x + 256],
            seen[y + 128, x : x + 256],
            seen[y : y + 128, x - 1],
            seen[y : y + 128, x + 256],
        )
        assert all((side == rgb(house.BLUE)).all() for side in around)
        assert (predicted[y - 3 : y, x : x + 256] == 255).all()
    assert (painter.clock(0), painter.clock(1)) == ("context, frame 1 of 2", "context, frame 2 of 2")
    assert painter.clock(5) == "horizon 4 of 4, +0.4 s"
    assert Painter(dataclasses.replace(one, fps=None)).clock(5) == "horizon 4 of 4"


def test_a_picture_does_not_depend_on_those_before() -> None:
    moves = np.eye(2, dtype=np.float32)[[0, 1, 0, 1, 0]]
    painter = Painter(episode(actions=moves, action_names=("left", "right"), truth=episode().truth[:2]))
    first = painter.paint(1)
    for picture in range(6):
        painter.paint(picture)
    np.testing.assert_array_equal(painter.paint(1), first)


def test_what_is_not_known_is_grey_and_without_truth_there_is_one_row() -> None:
    one = episode()
    half = Painter(dataclasses.replace(one, truth=one.truth[:2]))
    known, unknown = half.paint(3), half.paint(4)
    grey = (unknown == rgb("#f3f5f7")).all(-1).sum()
    assert grey > 1.8 * 128 * 256, "truth and error"
    assert (known == rgb("#f3f5f7")).all(-1).sum() == 0
    alone = Painter(dataclasses.replace(one, truth=None))
    assert alone.rows == ("prediction",)
    assert alone.size[1] < half.size[1] / 2
    assert len(find(alone.paint(4), pixels_of(one.prediction[2]).repeat(8, 0).repeat(8, 1))) == 1


def test_actions_are_told_of_the_frame_that_they_lead_to() -> None:
    moves = np.array([[1, 0], [0, 1], [1, 0], [0, 1], [0.5, -2]], np.float32)
    one = episode(actions=moves, action_names=("left", "right"))
    assert [one.action(row) for row in range(-1, 6)] == [
        "", "left", "right", "left", "right", "left 0.5, right -2", ""]  # fmt: skip
    wide = np.arange(30, dtype=np.float32).reshape(5, 6)
    assert episode(actions=wide).action(0) == "0, 1, 2, 3 and 2 more"
    painter = Painter(one)
    first, second = painter.paint(0), painter.paint(1)
    band = slice(46, 64)
    assert (first[band] == 255).all(), "no action leads to the first frame"
    assert not (second[band] == 255).all()


@pytest.mark.parametrize(("size", "factors"), [((64, 64), (4, 1)), ((1, 1), (256, 1)), ((300, 200), (1, 1)),
                                               ((720, 720), (1, 1)), ((721, 10), (1, 2)), ((1080, 1920), (1, 3))])  # fmt: skip  # noqa: E501
def test_small_frames_grow_and_large_ones_shrink_by_whole_factors(
    size: tuple[int, int], factors: tuple[int, int]
) -> None:
    assert sized(*size) == factors


def test_large_frames_are_averaged_and_this_is_said() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (900, 8, 3), dtype=np.uint8)
    small = enlarged(frame, sized(900, 8))
    means = frame.reshape(450, 2, 4, 2, 3).mean((1, 3))
    assert small.shape == (450, 4, 3)
    assert np.abs(small - means).max() <= 0.5
    large = RolloutEpisode("large", frame[None], frame[None])
    assert Painter(large).side == (450, 4)
    texts = [text.get_text() for text in Painter(large)._figure.texts]
    assert any("shown at 1/2 of their size" in text for text in texts)


def test_colours_of_errors_darken_all_the_way() -> None:
    bar = colour_bar(256, 2)
    assert bar.shape == (2, 256, 3)
    light = bar[0].astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) <= 0.5).all()
    assert light[0] == pytest.approx(255)
    assert light[-1] < 50
    np.testing.assert_array_equal(
        coloured(np.array([[0.0, 0.25, 0.5, 0.9]]), 0.5)[0, 2], coloured(np.ones((1, 1)))[0, 0]
    )
    with pytest.raises(ConfigError):
        coloured(np.zeros((1, 1)), 0.0)


@pytest.mark.parametrize(
    ("frames", "fps", "kind", "wanted", "rate", "speed", "words"),
    [
        (400, 25.0, ".gif", None, Fraction(25), 1.0, ""),
        (400, 30.0, ".gif", None, Fraction(25), 25 / 30, "played at 25 frames a second, 0.833 of real time"),
        (400, 30.0, ".mp4", None, Fraction(30), 1.0, ""),
        (400, 30000 / 1001, ".mp4", None, Fraction(30000, 1001), 1.0, ""),
        (20, 10.0, ".mp4", None, Fraction(5), 0.5, "played at 5 frames a second, 0.5 of real time"),
        (40, 10.0, ".gif", None, Fraction(10), 1.0, ""),
        (20, 10.0, ".gif", 10.0, Fraction(10), 1.0, ""),
        (20, 2.0, ".gif", None, Fraction(2), 1.0, ""),
        (20, None, ".gif", None, Fraction(5), None, "the frame rate is not known: played at 5 frames a second"),
        (900, 0.01, ".mp4", None, Fraction(1), 100.0, "played at 1 frames a second, 100 of real time"),
        (900, 120.0, ".mp4", None, Fraction(60), 0.5, "played at 60 frames a second, 0.5 of real time"),
    ],
)  # fmt: skip
def test_every_frame_is_shown_and_the_speed_is_said(
    frames: int, fps: float | None, kind: str, wanted: float | None, rate: Fraction, speed: float | None, words: str
) -> None:
    plan = timing(frames, fps, kind, wanted=wanted)
    assert plan.rate == rate
    assert plan.speed == (None if speed is None else pytest.approx(speed))
    assert plan.notes == ((words,) if words else ())


def test_gif_holds_the_pictures_as_they_were_drawn(tmp_path: Path) -> None:
    one = episode()
    notes = animate(tmp_path / "a.gif", one, model="convlstm")
    painter = Painter(one, model="convlstm", speed=0.5)
    with Image.open(tmp_path / "a.gif") as film:
        assert (getattr(film, "n_frames"), film.size, film.info["loop"]) == (6, painter.size, 0)  # noqa: B009
        for number in range(6):
            film.seek(number)
            assert film.info["duration"] == 200
            got, drawn = np.asarray(film.convert("RGB")), painter.paint(number)
            assert psnr(got, drawn) > 32, "every red with every green: the worst there is for 256 colours"
            assert (got[(drawn == 255).all(-1)] == 255).all(), "white is white"
        assert film.info["comment"].decode() == told_inside(one, model="convlstm")
    assert "error |prediction - truth|, mean of the channels, values 0 to 1, darkest at 0.5" in told_inside(one)
    size = f"{painter.size[0]} x {painter.size[1]} px"
    assert notes == (f"a.gif: {size}, 6 pictures, 5 a second", "a.gif: played at 5 frames a second, 0.5 of real time")


def test_grey_films_keep_every_shade() -> None:
    """What has no more than 256 colours loses none."""
    ramp = np.tile(np.arange(0, 256, 2, dtype=np.uint8)[:, None, None], (1, 20, 3))
    out = io.BytesIO()
    pictures = [ramp, ramp[::-1].copy(), ramp]
    write_gif(out, iter(pictures), (20, 128), Fraction(10), "", Palette.of(pictures))
    with Image.open(out) as film:
        for number, picture in enumerate(pictures):
            film.seek(number)
            np.testing.assert_array_equal(np.asarray(film.convert("RGB")), picture)


def test_mp4_holds_the_pictures_as_they_were_drawn(tmp_path: Path) -> None:
    import av

    one = episode(size=(17, 33))  # odd sides
    animate(tmp_path / "a.mp4", one)
    painter = Painter(one, speed=0.5)
    with av.open(str(tmp_path / "a.mp4")) as film:
        assert film.metadata["comment"] == told_inside(one)
        assert film.streams.video[0].average_rate == 5
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == 6
    for number, frame in enumerate(frames):
        assert psnr(frame, painter.paint(number)) > 28


@pytest.mark.parametrize("bits", [8, 5])
def test_the_nearest_colour_of_a_palette_is_found(bits: int) -> None:
    rng = np.random.default_rng(0)
    table = rng.integers(0, 256, (256, 3), dtype=np.uint8)
    palette, picture = Palette(table, bits=bits), rng.integers(0, 256, (30, 20, 3), dtype=np.uint8)
    for _ in range(2):  # the second time from memory
        index = palette.index(picture)
        got = np.linalg.norm(table[index].astype(float) - picture, axis=-1)
        best = np.linalg.norm(table.astype(float) - picture[:, :, None], axis=-1).min(-1)
        assert np.abs(got - best).max() <= (1e-9 if bits == 8 else 2 * 8 * math.sqrt(3))
    again = Palette(table, bits=bits).index(picture[:3])
    np.testing.assert_array_equal(again, palette.index(picture[:3]))


def test_a_palette_keeps_the_colours_that_it_has_to() -> None:
    noise = np.random.default_rng(0).integers(0, 200, (200, 200, 3), dtype=np.uint8)
    palette = Palette.of([noise], fixed=[(255, 255, 255), (0, 114, 178)])
    flat = np.array([[[255, 255, 255], [0, 114, 178]]], np.uint8)
    np.testing.assert_array_equal(palette.table[palette.index(flat)], flat)
    assert len(np.unique(palette.table, axis=0)) > 200
    with pytest.raises(InputError, match="no colours"):
        Palette.of([])
    with pytest.raises(InputError, match="not the colours"):
        Palette(np.zeros((3, 3), np.uint8))


class Endless:
    """Frames that are made when they are read, as a film of any length is."""

    def __init__(self, count: int) -> None:
        self.shape, self.most = (count, 32, 32, 3), 0

    def read(self, start: int, stop: int) -> Pixels:
        self.most = max(self.most, stop - start)
        return np.stack([np.full(self.shape[1:], 7 * t % 256, np.uint8) for t in range(start, stop)])


@pytest.mark.parametrize("kind", ["gif", "mp4"])
def test_a_film_holds_few_pictures_at_once(tmp_path: Path, kind: str) -> None:
    peaks = []
    for count in (10, 50):
        guess, truth = Endless(count), Endless(count)
        one = RolloutEpisode("long", np.zeros((1, 32, 32, 3), np.uint8), guess, truth=truth)
        film = plan_film(f"a.{kind}", one)
        tracemalloc.start()
        with open(tmp_path / f"{count}.{kind}", "wb") as file:
            film.write(file)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (guess.most, truth.most) == (1, 1)
    assert peaks[1] < 1.1 * peaks[0] + 200_000


def test_a_failing_picture_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = Painter.paint

    def stumble(self: Painter, picture: int) -> Pixels:
        if picture == 3:
            raise KeyboardInterrupt
        return draw(self, picture)

    monkeypatch.setattr(Painter, "paint", stumble)
    for kind in ("gif", "mp4"):
        with pytest.raises(KeyboardInterrupt):
            animate(tmp_path / f"a.{kind}", episode())
        assert not list(tmp_path.iterdir())


def test_bad_wishes_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    for path, changes in (("a.avi", {}), ("a", {}), ("a.gif", {"scale": -1.0}), ("a.mp4", {"rate": 0.5})):
        with pytest.raises(ConfigError):
            animate(tmp_path / path, episode(), **changes)
    assert not list(tmp_path.iterdir())


def test_odd_rollouts_can_be_drawn(tmp_path: Path) -> None:
    tiny = RolloutEpisode("a $\\frac{ 体 " + "x" * 200, np.zeros((1, 1, 1, 1), np.uint8), np.ones((1, 1, 1, 1)))
    flat = episode(size=(1, 300), fps=1e-6)
    for number, one in enumerate((tiny, flat, episode(fps=1e9))):
        animate(tmp_path / f"{number}.gif", one, model="m" * 100)
        strip_figure(one, model="m").savefig(io.BytesIO())


def test_progress_hears_of_the_pictures_and_a_page_gets_a_short_film(tmp_path: Path) -> None:
    log = io.StringIO()
    animate(tmp_path / "a.mp4", episode(), progress=Progress(stream=log))
    assert "drawing a.mp4: 6/6" in log.getvalue()
    gif, notes = film_bytes(episode(), most=4)
    assert notes[-1] == "film.gif: the first 4 of 6 frames"
    with Image.open(io.BytesIO(gif)) as film:
        assert getattr(film, "n_frames") == 4  # noqa: B009
    for wrong in ((b"\x89PNG", "a film"), (gif, " ")):
        with pytest.raises(InputError):
            add_film(Report("page"), *wrong, section="Film")


def test_strips_show_the_last_frame_seen_the_first_and_the_last_prediction() -> None:
    assert strip_steps(episode(horizon=4), 8) == [0, 1, 2, 3, 4]
    assert strip_steps(episode(horizon=1000), 3) == [0, 1, 1000]
    figure = strip_figure(episode(truth=episode().truth[:3]), model="convlstm")
    texts = [text.get_text() for text in figure.texts]
    assert [text for text in texts if text.startswith("+") or text == "context"] == ["context", "+1", "+2", "+3", "+4"]
    assert texts[0].startswith("moving: convlstm, 4 frames ahead (0.4 s), MSE ")
    assert texts[0].endswith("at +3, the last one known")
    canvas = np.asarray(figure.axes[0].images[0].get_array())
    assert len(find(canvas, episode().truth[2].repeat(4, 0).repeat(4, 1))) == 1
    with pytest.raises(InputError, match="nothing to draw"):
        strip_figure(episode(), count=1)


@pytest.mark.parametrize(
    ("mine", "theirs", "larger", "words"),
    [
        ([1, 1], [2, 2], False, "better than b at every horizon"),
        ([1, 1], [2, 2], True, "never better than b"),
        ([1, 1], [1, 1], False, "never better than b"),
        ([1, 1], [1, 1], True, "never better than b"),
        ([3, 1, 1], [2, 2, 2], False, "better than b from horizon 2 on"),
        ([1, 1, 3], [2, 2, 2], False, "better than b up to horizon 2"),
        ([1, 3, 1], [2, 2, 2], False, "better than b at 2 of 3 horizons"),
        ([math.nan, 3, 1], [2, 2, 2], False, "better than b from horizon 3 on"),
        ([math.nan], [1], False, "not comparable with b"),
        ([1], [2], False, "better than b at horizon 1"),
    ],
)
def test_titles_say_where_a_model_is_better(mine: list[float], theirs: list[float], larger: bool, words: str) -> None:
    assert finding("a", mine, "b", theirs, larger=larger) == f"a {words}"


def measured() -> Tally:
    rng = np.random.default_rng(0)
    truth = rng.random((6, 3, 1, 12, 12))
    tally = Tally(3, replicates=50)
    guesses = {"model": 0.9 * truth, "copy_last": rng.random(truth.shape), "mean_frame": np.full_like(truth, 0.5)}
    tally.add(["a"] * 3 + ["b"] * 3, [0, 4, 8] * 2, truth, guesses)
    return tally


def test_metrics_by_horizon_have_their_baselines_and_bands() -> None:
    tally = measured()
    intervals = {
        name: tally.intervals(method) for name, method in (("fluidworld", "model"), ("copy_last", "copy_last"))
    }
    rows, bands = of_tally(tally.figures(), intervals, metric="psnr", model="fluidworld")
    assert list(rows) == ["fluidworld", "copy_last", "mean_frame"]
    assert list(bands) == ["fluidworld", "copy_last"]
    assert all(low <= mid <= high for low, mid, high in zip(bands["fluidworld"][0], rows["fluidworld"],
                                                            bands["fluidworld"][1], strict=True))  # fmt: skip
    figure = horizon_figure(rows, bands=bands, metric="PSNR", unit="dB", larger=True, fps=10.0, windows=6)
    ax = figure.axes[0]
    assert len(ax.collections) == 2
    np.testing.assert_allclose(ax.lines[0].get_ydata(), rows["fluidworld"])
    assert ax.get_title(loc="left").splitlines() == [
        "PSNR by horizon, higher is better, 6 windows:",
        "fluidworld better than copy_last at every horizon",
        "fluidworld better than mean_frame at every horizon",
    ]
    assert ax.get_ylabel() == "PSNR (dB)"
    for rows_, bands_ in (({"a": [math.nan, math.inf]}, None), ({"a": [1.0]}, {"a": ([0.5], [2.0])})):
        horizon_figure(rows_, bands=bands_).savefig(io.BytesIO())
    for wrong in ({}, {"a": []}, {"a": [1.0], "b": [1.0, 2.0]}, {"a": [[1.0]]}):
        with pytest.raises(InputError, match="nothing to draw"):
            horizon_figure(wrong)


def test_drift_says_how_each_model_ends() -> None:
    rng = np.random.default_rng(0)
    start, truth = rng.random((1, 1, 8, 8)), rng.random((1, 12, 1, 8, 8))
    curves = {
        "copy": drift(np.repeat(start[:, None], 12, 1), start, truth),
        "noise": drift(rng.random(truth.shape), start, truth),
    }
    figure = drift_figure(curves, fps=10.0, trained=6)
    assert figure.axes[0].get_title(loc="left").splitlines()[1:] == ["copy freezes", "noise moves on"]
    labels = figure.axes[1].get_legend_handles_labels()[1]
    assert labels == ["copy (0 throughout)", "noise", "truth", "longest rollout in training"]
    wild = drift(np.full((1, 4, 1, 8, 8), np.inf), start)
    drift_figure({"wild": wild}).savefig(io.BytesIO())
    with pytest.raises(InputError):
        drift_figure({})


def test_probes_say_whether_the_model_is_above_the_others() -> None:
    rng = np.random.default_rng(0)
    states = rng.standard_normal((200, 2))
    sets = {"model": states + 0.1 * rng.standard_normal(states.shape), "pixels": states[:, :1],
            "untrained": rng.standard_normal((200, 3))}  # fmt: skip
    found = compare({kind: [Series("a", values, states)] for kind, values in sets.items()}, ["x", "y"])
    figure = probes_figure(found)
    ax = figure.axes[0]
    assert len(ax.patches) == 12  # two targets, two states, three kinds
    assert ax.get_title(loc="left").splitlines()[1] == "position: model above pixels and untrained"
    other = probes_figure({kind: found[kind] for kind in ("untrained", "model", "pixels")})
    assert other.axes[0].get_title(loc="left").splitlines()[1].startswith("position: untrained not above ")
    low = dataclasses.replace(found["model"]["position"],
                              r2={"x": found["model"]["position"].r2["x"]._replace(value=-9.0, lo=-20.0)})  # fmt: skip
    below = probes_figure({"model": {"position": low}})
    assert [text.get_text() for text in below.axes[0].texts] == ["-9.000 (drawn at -1)"]
    with pytest.raises(InputError):
        probes_figure({"model": {"position": dataclasses.replace(low, r2={})}})


def test_spectra_say_how_much_fine_detail_is_left() -> None:
    axis = np.arange(1, 9) / 8
    truth = 1 / axis**2
    figure = spectrum_figure(axis, {"blurred": np.where(axis > 0.25, truth / 4, truth), "truth": truth}, horizon=16)
    title = figure.axes[0].get_title(loc="left").replace("\n", " ")
    assert title.startswith("Spectra of frames at horizon 16: ")
    assert title.endswith("blurred 25 %")
    spectrum_figure(axis, {"black": np.zeros(8), "truth": np.zeros(8)}).savefig(io.BytesIO())
    for axis_, rows in ((axis, {}), (axis[:3], {"a": truth})):
        with pytest.raises(InputError):
            spectrum_figure(axis_, rows)


def test_titles_are_broken_before_they_leave_the_picture() -> None:
    names = {f"a baseline with a long name, number {number}": [2.0 - number, 1.0] for number in range(3)}
    ax = horizon_figure({"a model of which the name is long as well": [1.0, 2.0], **names}).axes[0]
    assert max(map(len, ax.get_title(loc="left").splitlines())) <= 84
    assert len(list(itertools.chain(ax.lines))) == 4


def test_pictures_of_another_rate_and_encoder_are_said() -> None:
    out = io.BytesIO()
    assert write_mp4(out, iter([np.zeros((16, 16, 3), np.uint8)] * 3), (16, 16), Fraction(5), "black") in ([], [
        "encoded as libopenh264, since this PyAV has no libx264"])  # fmt: skip
    assert out.getvalue()[4:8] == b"ftyp"
