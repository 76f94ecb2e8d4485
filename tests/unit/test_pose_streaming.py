"""Poses while joints arrive: the answers of the whole clip, stated delays, constant memory, frames one by one."""

from __future__ import annotations

import io
import json
import pathlib
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from pipelines import PoseLifter, load
from pipelines.data.datasets.pose_conversion import convert
from pipelines.data.datasets.pose_skeletons import skeleton
from pipelines.data.datasets.pose_types import Clip
from pipelines.data.datasets.pose_windows import centre_windows, resample
from pipelines.data.formats.pose_source import PoseReading
from pipelines.data.formats.pose_write import write_poses
from pipelines.errors import ConfigError, InputError
from pipelines.pose import engine
from pipelines.pose.material import motion_of, view_of
from pipelines.pose.stream_files import Growing
from pipelines.pose.stream_intake import FrameRate, Intake, lifter_frame
from pipelines.pose.stream_lines import read_frames
from pipelines.pose.stream_window import FrameWindow
from pipelines.pose.streaming import PoseFrame

H36M = PoseReading(skeleton="h36m17", size=(1000, 1000))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def seen() -> Clip:
    """A walk as one camera sees it, px, 39 frames, some joints missing."""
    lifter = PoseLifter()
    walk = next(clip for clip in motion_of(lifter, "demo")[0] if clip.action == "walk")
    joints = view_of(lifter, walk, 0).joints
    valid = joints.valid.copy()
    valid[5:9, 13], valid[20, :] = False, False
    return joints.but(points=np.where(valid[..., None], joints.points, 0), valid=valid)


@pytest.fixture(scope="module")
def small(lifter_folder: pathlib.Path) -> PoseLifter:
    """Windows of three frames."""
    found = load(lifter_folder, threads=1, read=H36M)
    assert isinstance(found, PoseLifter)
    return found


@pytest.fixture(scope="module")
def shipped() -> PoseLifter:
    """The model that ships: windows of nine frames."""
    return PoseLifter(threads=1, device="cpu", read=H36M)


def raw(clip: Clip) -> list[np.ndarray]:
    """Frames as a detector gives them: NaN where a joint is missing."""
    return list(np.where(clip.valid[..., None], clip.points, np.nan))


def together(poses: list[PoseFrame]) -> np.ndarray:
    assert [pose.frame for pose in poses] == list(range(len(poses)))
    return np.array([pose.points for pose in poses])


# The answers of the whole clip ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 3, 39])
def test_after_the_window_poses_are_those_of_predict(shipped: PoseLifter, seen: Clip, frames: int) -> None:
    clip = seen.but(points=seen.points[:frames], valid=seen.valid[:frames])
    whole = shipped.predict(clip).tracks[0]
    live = shipped.stream()
    assert (live.delay, round(live.delay_ms, 1)) == (4, 133.3)
    came = [live.push(joints) for joints in raw(clip)]
    assert [pose is None for pose in came] == [number < 4 for number in range(frames)]
    poses = [pose for pose in came if pose is not None] + live.finish()
    assert np.abs(together(poses) - whole.points).max() < 1e-5
    assert whole.sigma is not None
    assert np.abs(np.array([pose.sigma for pose in poses]) - whole.sigma).max() < 1e-2
    assert [pose.time for pose in poses] == pytest.approx(np.arange(frames) / 30)
    assert np.array_equal(np.array([pose.seen for pose in poses]), clip.valid)
    again = list(live.run(raw(clip)))  # nothing of the clip before is left
    assert np.array_equal(together(again), together(poses))


def test_another_skeleton_scores_and_the_place_of_the_hip(shipped: PoseLifter, seen: Clip) -> None:
    coco = convert(seen, "coco17")
    points = np.concatenate([np.where(coco.valid[..., None], coco.points, 50.0), coco.valid[..., None] * 0.9], -1)
    lifter = PoseLifter(threads=1, focal=1145.0, read=PoseReading(skeleton="coco17", size=(1000, 1000)))
    whole = lifter.predict(points[:12]).tracks[0]
    poses = list(lifter.stream().run(points[:12]))
    assert np.abs(together(poses) - whole.points).max() < 1e-5
    assert whole.trajectory is not None
    assert all(pose.root is not None for pose in poses)
    assert np.abs(np.array([pose.root for pose in poses]) - whole.trajectory).max() < 1e-3


@pytest.mark.parametrize("fps", [15.0, 24.0, 25.0, 60.0, 120.0])
def test_another_frame_rate_is_resampled_as_the_whole_clip_is(
    lifter_folder: pathlib.Path, seen: Clip, fps: float
) -> None:
    clip = seen.but(fps=fps)
    read = PoseReading(skeleton="h36m17", size=(1000, 1000), fps=fps)
    lifter = load(lifter_folder, threads=1, read=read)
    assert isinstance(lifter, PoseLifter)
    whole = lifter.predict(clip).tracks[0]
    live = lifter.stream()
    poses = [pose for joints in raw(clip) for pose in live.feed(joints)] + live.finish()
    assert len(poses) == whole.frames
    assert np.abs(together(poses) - whole.points).max() < 1e-5
    wait = 0.0 if fps in (60.0, 120.0) else 1000 / fps
    assert live.delay_ms == pytest.approx(1000 / 30 + wait)
    if fps < 30:
        with pytest.raises(ConfigError, match="call feed"):
            live.push(raw(clip)[0])


@pytest.mark.parametrize(("old", "new"), [(25, 30), (50, 30), (119.88, 30), (30, 90), (23.976, 30)])
def test_rates_against_the_whole_clip(seen: Clip, old: float, new: float) -> None:
    many = np.tile(seen.points, (30, 1, 1)), np.tile(seen.valid, (30, 1))
    clip = seen.but(fps=float(old), points=many[0], valid=many[1])
    expected = resample(clip, new)
    rate, found = FrameRate(old, new), list[Clip]()
    for number in range(clip.frames):
        rows = slice(number, number + 1)
        found += rate.push(clip.but(points=clip.points[rows], valid=clip.valid[rows], notes=()))
    assert len(found) == expected.frames
    assert np.array_equal(np.concatenate([one.valid for one in found]), expected.valid)
    assert np.abs(np.concatenate([one.points for one in found]) - expected.points).max() < 1e-3  # px


# Delays ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "delay"), [(1, 0), (3, 1), (9, 4), (9, 2), (9, 0), (5, 1)])
@pytest.mark.parametrize("frames", [1, 2, 4, 20])
def test_windows_hold_what_has_come_and_copies_of_the_newest(length: int, delay: int, frames: int) -> None:
    values, half = np.arange(frames, dtype=np.float32), length // 2
    window, found = FrameWindow(length, delay), list[Any]()
    for value in values:
        window.push(np.asarray(value))
        if window.ready:
            found.append(window.oldest())
            window.answered()
    assert window.waiting == min(delay, frames)
    for _ in range(window.waiting):
        found.append(window.oldest())
        window.answered()
    last = [min(t + delay, frames - 1) for t in range(frames)]
    rows = [np.clip(np.arange(t - half, t + half + 1), 0, last[t]) for t in range(frames)]
    assert np.array_equal(np.array(found), values[np.array(rows)])
    if delay == half:
        assert np.array_equal(np.array(found), centre_windows(values, length))


@pytest.mark.parametrize("delay", [0, 2, 4])
def test_an_answer_depends_on_no_later_frame(shipped: PoseLifter, seen: Clip, delay: int) -> None:
    frames = raw(seen)[21:32]
    other = [*frames[:7], *[frame + 40.0 for frame in frames[7:]]]
    one, two = (list(shipped.stream(delay=delay).run(part)) for part in (frames, other))
    changed = [not np.allclose(a.points, b.points, atol=1e-6) for a, b in zip(one, two, strict=True)]
    assert changed == [number + delay >= 7 for number in range(len(frames))]
    live = shipped.stream(delay=delay)
    assert [live.push(frame) is not None for frame in frames[:6]] == [number >= delay for number in range(6)]


@pytest.mark.parametrize("delay", [-1, 5, 1.0, True])
def test_delays_that_the_window_does_not_have(shipped: PoseLifter, delay: Any) -> None:
    with pytest.raises(ConfigError, match=r"no such delay.*0 to 4 frames"):
        shipped.stream(delay=delay)


def test_the_latency_is_stated_and_under_a_fifth_of_a_second(shipped: PoseLifter, seen: Clip) -> None:
    live = shipped.stream()
    spent = []
    for joints in raw(seen)[:30]:
        began = time.process_time()  # a machine that is busy otherwise makes no model slow
        live.push(joints)
        spent.append(1000 * (time.process_time() - began))
    assert live.latency_ms == pytest.approx(live.delay_ms + live.compute_ms)
    assert live.delay_ms + float(np.median(spent)) < 200
    end = live.flush()[-1]
    assert end["delay_ms"] == 133.3
    assert end["latency_ms"]["p95"] == pytest.approx(133.33 + end["compute_ms"]["p95"], abs=0.02)


def test_memory_does_not_grow(small: PoseLifter, seen: Clip) -> None:
    live = small.stream()
    frames = raw(seen)
    sizes = []
    tracemalloc.start()
    try:
        for number in range(220):
            live.push(frames[number % len(frames)])
            if number in (100, 219):
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[1] - sizes[0] < 20_000


def test_an_interruption_loses_no_frame(small: PoseLifter, seen: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = raw(seen)[:8]
    expected = together(list(small.stream().run(frames)))
    live = small.stream()
    poses = [pose for frame in frames[:7] if (pose := live.push(frame)) is not None]
    whole = engine.lift_windows

    def stopped(*args: Any) -> Any:
        monkeypatch.setattr(engine, "lift_windows", whole)
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "lift_windows", stopped)
    with pytest.raises(KeyboardInterrupt):
        live.push(frames[7])
    assert np.array_equal(together([*poses, *live.finish()]), expected)


# What a frame means ---------------------------------------------------------------------------------------------------


def test_what_is_decided_by_the_first_frames_is_said(small: PoseLifter, seen: Clip) -> None:
    said: list[str] = []
    intake = Intake(PoseReading(size=(1000, 1000), skeleton="h36m17"), say=said.append)
    assert intake.take(None, where="a").valid.sum() == 0
    corner = np.zeros((17, 2))
    assert intake.take(corner, where="a").valid.sum() == 0  # detectors put joints they do not find there
    corner[1:] = seen.points[0, 1:]
    assert intake.take(corner, where="a").valid.sum() == 16
    intake.end()
    assert said[0] == "17 joints: taken for h36m17, as was said"
    assert said[1].endswith("taken for pixels (by the first frame)")
    assert "18 joints at exactly (0, 0) px were taken for missing ones" in said
    turned: list[str] = []
    intake = Intake(H36M, say=turned.append)
    for frame in raw(seen)[:5]:
        intake.take(frame * [1, -1] + [0, 1000], where="a")
    intake.end()
    assert any("the first 5 frames: the person stands on the head" in note for note in turned)


def test_units_of_one_frame_agree_with_those_of_a_file(seen: Clip) -> None:
    expected = lifter_frame(seen.but(points=seen.points[:1], valid=seen.valid[:1], notes=()))[0]
    forms: dict[str, np.ndarray] = {
        "px": seen.points[0],
        "fraction": seen.points[0] / 1000,
        "signed": seen.points[0] / 500 - 1,
        "normalised": seen.points[0] / 500 - 1,
    }
    for unit, points in forms.items():
        intake = Intake(PoseReading(skeleton="h36m17", size=(1000, 1000), unit=unit))  # type: ignore[arg-type]
        assert np.abs(lifter_frame(intake.take(points.astype(np.float64), where="a"))[0] - expected).max() < 1e-5
    up = Intake(PoseReading(skeleton="h36m17", size=(1000, 1000), up="y"))
    found = lifter_frame(up.take(seen.points[0].astype(np.float64) * [1, -1] + [0, 1000], where="a"))[0]
    assert np.abs(found - expected).max() < 1e-5


@pytest.mark.parametrize(
    ("joints", "reading", "words"),
    [
        (np.full((25, 2), 9.0), H36M, "another number of joints.*body25"),
        (np.full((16, 2), 9.0), PoseReading(), "no skeleton has so many joints.*h36m17 .17."),
        (np.full((17, 2), 90.0), PoseReading(), "several skeletons have so many joints.*coco17"),
        (np.full((17, 2), 90.0), PoseReading(skeleton="coco17"), "size of the image is not known.*--read.size"),
        (np.full((17, 3), 90.0), H36M, "third number of a joint is not how sure"),
        (np.full((17, 2), 0.5), PoseReading(skeleton="h36m17"), "cannot be told apart.*--read.unit"),
        (np.full((17, 2), 1e7), H36M, "far outside of the image"),
        (np.full((17, 4), 1.0), H36M, "not the joints of a frame"),
        (None, PoseReading(), "nobody in the first frame.*--read.skeleton"),
    ],
)
def test_frames_that_cannot_be(joints: Any, reading: PoseReading, words: str) -> None:
    with pytest.raises(InputError, match=f"(?s){words}"):
        lifter_frame(Intake(reading).take(joints, where="frame 0"))


def test_a_later_frame_of_another_kind_is_refused(small: PoseLifter, seen: Clip) -> None:
    live = small.stream()
    live.push(raw(seen)[0])
    with pytest.raises(InputError, match=r"frame 1: another number of joints.*25 joints, as body25 has"):
        live.push(np.full((25, 2), 300.0))
    with pytest.raises(InputError, match="valid does not fit"):
        live.push(raw(seen)[1], valid=np.ones(3))
    with pytest.raises(InputError, match="not numbers"):
        live.push([["a", "b"]] * 17)
    hidden = live.push(raw(seen)[1], valid=np.arange(17) > 3)
    assert hidden is not None
    assert live.finish()[-1].seen.sum() == 13


# Lines ----------------------------------------------------------------------------------------------------------------


def frames_of(text: str | bytes, reading: PoseReading = H36M, said: list[str] | None = None) -> list[Any]:
    file: Any = io.StringIO(text) if isinstance(text, str) else io.BytesIO(text)
    say = None if said is None else said.append
    return list(read_frames(file, reading, source="a", say=say))


def test_one_frame_in_every_form(seen: Clip) -> None:
    points = raw(seen)[6].astype(np.float64)  # the left wrist is missing
    names = skeleton("h36m17").joints
    cells = [["" if np.isnan(one) else repr(float(one)) for one in joint] for joint in points]
    nested = [None if np.isnan(joint).any() else joint.tolist() for joint in points]
    flat = [None if np.isnan(one) else one for one in points.ravel().tolist()]
    head = [f"{name}_{axis}" for name in names for axis in "xy"]
    order = np.random.default_rng(0).permutation(17)
    filled, there = np.nan_to_num(points, nan=7).tolist(), ~np.isnan(points[:, 0])
    forms = {
        "nested": json.dumps(nested),
        "flat": json.dumps(flat),
        "object": json.dumps({"joints": nested, "camera": 3}),
        "named": json.dumps({names[one]: nested[one] for one in order}),
        "points": json.dumps({names[n]: joint and {"x": joint[0], "y": joint[1]} for n, joint in enumerate(nested)}),
        "valid": json.dumps({"points": filled, "valid": there.tolist()}),
        "scores": json.dumps({"keypoints": filled, "scores": (there * 0.8).tolist()}),
        "table": ",".join(cell for row in cells for cell in row),
        "tabs": "\t".join(cell or "nan" for row in cells for cell in row),
        "head": ",".join(head) + "\n" + ",".join(cell for row in cells for cell in row),
        "numbered": ",".join(f"x{n},y{n}" for n in order) + "\n" + ",".join(cell for n in order for cell in cells[n]),
        "mixed": ";".join(f"{names[n]}.x;{names[n]}.y;{names[n]}.score" for n in order)
        + "\n"
        + ";".join(f"{cells[n][0]};{cells[n][1]};0.7" for n in order),
    }  # fmt: skip
    for form, text in forms.items():
        (frame,) = frames_of(text)
        clip = Intake(H36M).take(frame.joints, names=frame.names, where=frame.where)
        assert np.array_equal(clip.valid[0], seen.valid[6]), form
        assert np.abs(clip.points[0] - seen.points[6]).max() < 1e-3, form


def test_clips_persons_numbers_and_what_is_not_used(seen: Clip) -> None:
    row = json.dumps(seen.points[0].astype(float).tolist())
    found = frames_of(f"{row}\n{row}\n\n{row}\nnull\n[]\n")
    assert [frame.begins for frame in found] == [True, False, True, False, False]
    assert [frame.joints is None for frame in found] == [False, False, False, True, True]
    said: list[str] = []
    head = "person,frame,hip_x,hip_y,mood\n"
    table = f"{head}0,1,1,2,good\n1,1,3,4,bad\n0,2,5,6,good\n"
    with pytest.raises(InputError, match=r"a, line 3: two people in one stream.*--read.person"):
        frames_of(table)
    chosen = frames_of(table, PoseReading(person=0), said)
    assert [(frame.frame, frame.joints.tolist()) for frame in chosen] == [(1, [[1.0, 2.0]]), (2, [[5.0, 6.0]])]
    assert said == ["1 column is not used: mood"]
    with pytest.raises(InputError, match="only persons 0, 1"):
        frames_of(table, PoseReading(person=7))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a: no frames"),
        ("[[1, 2]", "a, line 1: not a line of JSON"),
        ("[1, 2, 3, 4]", "a, line 1: no skeleton has so many numbers.*h36m17 .17."),
        ("[" + "[1, 2], " * 16 + '"x"]', "joint 16 is no joint"),
        ("[" + "[1, 2], " * 16 + "[1, 2, 3]]", "two and of three numbers"),
        ("[" + "[1, 2], " * 16 + "[1, 1e999]]", "the value of joint 16 is no number"),
        ("[" + "[1, 2], " * 16 + "[1, true]]", "the value of joint 16 is no number"),
        ('{"a": 3}', "no joints in the object"),
        ('{"joints": [[1, 2]], "scores": [1, 2]}', "not one of the scores for each joint"),
        ('{"hip": [1, 2]}\n{"hip": [1, 2], "tail": [3, 4]}', "a, line 2: joints that the lines before do not have"),
        ("1,2,3", "no skeleton has so many numbers"),
        (",".join("1" * 34) + "\n" + ",".join("1" * 50), "line 2: another number of values.*25 joints has body25"),
        (",".join("1" * 34) + "\n" + ",".join("1" * 33) + ",x", "line 2: the value of number 34 is no number"),
        ("frame,joint,x,y\n0,hip,1,2", "no head with columns of joints.*a row a joint"),
        ("hip_x,hip_y,hip_x\n1,2,3", "two columns for x of hip"),
        ("x0,y0,x2,y2\n1,2,3,4", "numbers of joints with gaps"),
        ("hip_x,hip_y,frame\n1,2,b", "no number of a frame"),
        ("hip_x,hip_y\n", "nothing but a head"),
        (b"\xff\xfe1,2", "the line is no text"),
        ('"1,2', "the line cannot be split"),
    ],
)
def test_lines_that_are_no_frames(text: str | bytes, words: str) -> None:
    with pytest.raises(InputError, match=f"(?s){words}"):
        frames_of(text)


def test_damaged_streams_end_in_one_message(seen: Clip) -> None:
    frames = raw(seen)[:4]
    rows = "\n".join(json.dumps([None if np.isnan(j).any() else j.tolist() for j in f]) for f in frames)
    head = ",".join(f"{name}_{axis}" for name in skeleton("h36m17").joints for axis in "xy")
    table = "\n".join([head, *(",".join(repr(float(one)) for one in f.ravel()) for f in frames)])
    generator = np.random.default_rng(0)
    refused = taken = 0
    for text in (rows, table):
        whole = text.encode()
        for number in range(300):
            content = bytearray(whole)
            if number % 3 == 0:
                content = content[: generator.integers(len(whole))]
            elif number % 3 == 1:
                for place in generator.integers(len(whole), size=5):
                    content[place] ^= 1 << int(generator.integers(8))
            else:
                content[:60] = generator.integers(256, size=60, dtype=np.uint8).tobytes()
            intake = Intake(H36M)
            try:
                for frame in frames_of(bytes(content)):
                    x = lifter_frame(intake.take(frame.joints, names=frame.names, where=frame.where))[0]
                    assert np.isfinite(x).all()
                taken += 1
            except InputError as error:
                refused += len(str(error)) < 1500
    assert refused + taken == 600
    assert refused > 300
    assert taken > 5


# Sources --------------------------------------------------------------------------------------------------------------


def test_events_of_a_file_of_lines(small: PoseLifter, seen: Clip, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"frame": n, "joints": np.nan_to_num(f).tolist()} for n, f in enumerate(raw(seen)) if n not in (8, 9)]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n" + json.dumps(rows[0]) + "\n")
    said: list[str] = []
    live = small.stream()
    events = list(live.events(str(path), said.append))
    kinds = [event["kind"] for event in events]
    assert kinds == ["start", *["pose"] * 39, "end", "start", "pose", "end"]
    start, end = events[0], events[40]
    assert (start["delay_frames"], start["delay_ms"], start["unit"], start["skeleton"]) == (1, 33.3, "m", "h36m17")
    assert start["latency_ms"] == pytest.approx(start["delay_ms"] + start["compute_ms"], abs=0.1)
    assert (end["frames"], end["input_frames"], end["missing_joints"]) == (
        39,
        39,
        21 - 1 + 34,
    )  # one of them in a frame left out
    assert any("2 frames that the source leaves out" in note for note in end["notes"])
    assert any("the frame rate is not known: taken to be 30 Hz" in note for note in said)
    assert events[10]["missing"] == list(skeleton("h36m17").joints)
    assert "40 frames, 40 poses" in live.summary()
    json.dumps(events, allow_nan=False)


def test_a_keypoint_file_is_given_frame_by_frame(small: PoseLifter, seen: Clip, tmp_path: pathlib.Path) -> None:
    write_poses(tmp_path / "k.json", [seen])
    whole = small.predict(tmp_path / "k.json").tracks[0]
    events = list(small.stream().events(str(tmp_path / "k.json")))
    assert np.abs(np.array([event["points"] for event in events[1:-1]]) - whole.points).max() < 1e-5
    assert (events[0]["input_fps"], events[0]["fps"]) == (30.0, 30.0)
    assert any("missing" in note for note in events[-1]["notes"])


def test_a_bad_line_ends_the_stream_after_the_frames_before_it(
    small: PoseLifter, seen: Clip, tmp_path: pathlib.Path
) -> None:
    row = json.dumps(seen.points[0].astype(float).tolist())
    (tmp_path / "a.jsonl").write_text(f"{row}\n{row}\n{row}\n[[1, 2]]\n{row}\n")
    events = list[dict[str, Any]]()
    with pytest.raises(InputError, match=r"a.jsonl, line 4: another number of joints"):
        events.extend(small.stream().events(str(tmp_path / "a.jsonl")))
    assert [event["kind"] for event in events] == ["start", "pose", "pose", "pose", "end"]
    (tmp_path / "b.jsonl").write_text('{"frame": 4, "joints": ' + row + '}\n{"frame": 2, "joints": ' + row + "}\n")
    with pytest.raises(InputError, match=r"line 2: the numbers of the frames do not rise"):
        list(small.stream().events(str(tmp_path / "b.jsonl")))


def test_a_growing_file_is_waited_for(
    small: PoseLifter, seen: Clip, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    rows = [json.dumps(np.nan_to_num(frame).tolist()) + "\n" for frame in raw(seen)[:6]]
    path.write_text(rows[0] + rows[1][:40])
    writes = iter([rows[1][40:], "", rows[2] + rows[3], rows[4]])

    def asleep(seconds: float) -> None:
        text = next(writes, None)
        if text is None:
            raise KeyboardInterrupt
        with path.open("a") as file:
            file.write(text)

    monkeypatch.setattr("pipelines.pose.stream_files.Growing.__init__.__defaults__", (asleep,))
    live = small.stream(follow=True)
    events = list[dict[str, Any]]()
    with pytest.raises(KeyboardInterrupt):
        events.extend(live.events(str(path)))
    assert len(events) == 1 + 4  # the last frame still waits for another
    assert [event["kind"] for event in live.flush()] == ["pose", "end"]
    path.write_text("")
    with path.open("rb") as file:
        file.seek(10)
        with pytest.raises(InputError, match="the file has become shorter"):
            Growing(file, "a.jsonl").readline()
