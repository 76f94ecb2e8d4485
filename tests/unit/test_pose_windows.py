"""Windows, padding, frame rates, changed motion and splits, against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.datasets.pose_motion import (
    Augmentation,
    augment_motion,
    augment_windows,
    change_speed,
    draw_bones,
    draw_windows,
    scale_bones,
)
from pipelines.data.datasets.pose_skeletons import SKELETONS, bone_lengths, skeleton
from pipelines.data.datasets.pose_splits import group_of, hold_out_clips, shared_frames, split_clips
from pipelines.data.datasets.pose_types import Clip
from pipelines.data.datasets.pose_windows import (
    PoseWindows,
    centre_windows,
    mixed_rates,
    pad_edges,
    resample,
    window_frames,
)
from pipelines.data.errors import InputError

BODY = skeleton("h36m17")


def clip_of(frames: int, seed: int = 0, missing: float = 0.0, **rest: object) -> Clip:
    rng = np.random.default_rng(seed)
    valid = rng.random((frames, 17)) >= missing
    return Clip.of(str(rest.pop("name", f"clip {seed}")), rng.normal(size=(frames, 17, 3)), BODY, valid, **rest)


# ---------------------------------------------------------------- windows


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.sampled_from([1, 3, 9, 27]), st.integers(1, 4))
def test_every_frame_is_a_centre_frame(frames: int, length: int, stride: int) -> None:
    rows = window_frames(frames, length, stride)
    assert rows[:, length // 2].tolist() == list(range(0, frames, stride))
    half = (length - 1) // 2
    for centre, row in zip(range(0, frames, stride), rows, strict=True):
        assert row.tolist() == [min(max(centre + step, 0), frames - 1) for step in range(-half, half + 1)]
    padded = pad_edges(np.arange(frames), half, half)
    assert [padded[start : start + length].tolist() for start in range(0, frames, stride)] == rows.tolist()


def test_a_clip_of_one_frame_is_that_frame_in_every_place() -> None:
    points = clip_of(1).points
    for length in (9, 27, 81, 243):
        windows = centre_windows(points, length)
        assert windows.shape == (1, length, 17, 3)
        assert (windows == points).all()


@pytest.mark.parametrize("latency", [0, 2, 8])
def test_a_window_sees_no_further_than_its_latency(latency: int) -> None:
    rows = window_frames(40, 9, latency=latency)
    own = np.arange(40)
    assert (rows.max(1) == np.minimum(own + latency, 39)).all()
    assert all(row[9 - 1 - latency] == frame for frame, row in zip(own, rows, strict=True))


def test_windows_that_cannot_be_are_refused() -> None:
    for arguments, words in (
        ((0, 9), "without frames"),
        ((9, 8), "even window"),
        ((9, 0), "no such windows"),
        ((9, 9, 0), "no such windows"),
        ((9, 9, 1, 9), "latency"),
        ((9, 9, 1, -1), "latency"),
    ):
        with pytest.raises(InputError, match=words):
            window_frames(*arguments)
    with pytest.raises(InputError, match="padding"):
        pad_edges(np.zeros((0, 2)), 1, 1)
    assert window_frames(9, 8, latency=0).shape == (9, 8)


@pytest.mark.parametrize(("stride", "latency"), [(1, None), (3, None), (2, 0)])
def test_windows_of_several_clips(stride: int, latency: int | None) -> None:
    clips = [clip_of(frames, frames, missing=0.1) for frames in (1, 14, 5)]
    windows = PoseWindows(clips, 9, stride, latency)
    points = np.concatenate([centre_windows(clip.points, 9, stride, latency) for clip in clips])
    valid = np.concatenate([centre_windows(clip.valid, 9, stride, latency) for clip in clips])
    everything = windows[:]
    assert (everything.points == points).all()
    assert (everything.valid == valid).all()
    order = np.random.default_rng(0).permutation(len(windows))
    parts = list(windows.batches(4, order))
    assert (np.concatenate([part.points for part in parts]) == points[order]).all()
    assert (np.concatenate([part.clips for part in parts]) == windows.places[order, 0]).all()
    assert (np.concatenate([part.frames for part in parts]) == windows.places[order, 1]).all()
    copies = sum(len(np.unique(row)) < 9 for clip in clips for row in window_frames(clip.frames, 9, stride, latency))
    assert windows.notes == (f"{len(points)} windows of 9 frames; {copies} of them hold copies of edge frames",)
    assert len(list(windows)) == len(points), "a loop over it ends"


def test_clips_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(InputError, match=r"do not go together.*17 joints, 2-D, px, image"):
        PoseWindows([clip_of(5), Clip.of("b", np.zeros((5, 17, 2)), BODY, unit="px", frame="image")], 9)
    with pytest.raises(InputError, match="no clips"):
        PoseWindows([], 9)
    with pytest.raises(InputError, match=r"empty: a clip without frames"):
        PoseWindows([clip_of(5), clip_of(0, name="empty")], 9)


# ---------------------------------------------------------------- frame rates


def test_every_fourth_frame_of_120_hz() -> None:
    clip = clip_of(41, missing=0.1, fps=120.0)
    slow = resample(clip, 30)
    assert (slow.points == clip.points[::4]).all()
    assert (slow.valid == clip.valid[::4]).all()
    assert slow.fps == 30
    assert "120 to 30 Hz: every 4th of 41 frames, 11 remain" in slow.notes[-1]
    rounded = resample(clip.but(fps=1 / 0.0083333), 30)  # the frame time that files give
    assert (rounded.points == clip.points[::4]).all(), "a rounded frame time neither loses nor mixes frames"
    fast = resample(clip, 240)
    assert fast.frames == 81
    assert (fast.points[::2] == clip.points).all()
    assert "linear between neighbours, 41 frames to 81" in fast.notes[-1]
    nearly = resample(clip.but(fps=30.0003), 30)
    assert (nearly.points == clip.points).all()
    assert "the same 41 frames" in nearly.notes[-1]
    assert resample(clip.but(fps=29.97), 30).frames == 41, "29.97 Hz is another rate"
    assert "linear" in resample(clip.but(fps=29.97), 30).notes[-1]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40),
    st.sampled_from([24.0, 25.0, 29.97, 30.0, 50.0, 60.0]),
    st.sampled_from([10.0, 25.0, 30.0, 50.0]),
)
def test_resampling_is_linear_interpolation(frames: int, rate: float, wanted: float) -> None:
    clip = clip_of(frames, frames, fps=rate)
    out = resample(clip, wanted)
    times = np.arange(out.frames) / wanted
    assert times[-1] <= (frames - 1) / rate + 1e-6
    assert times[-1] + 1 / wanted > (frames - 1) / rate - 1e-6, "no frame is left over"
    flat = clip.points.reshape(frames, -1).astype(np.float64)
    expected = np.stack([np.interp(times, np.arange(frames) / rate, column) for column in flat.T], 1)
    np.testing.assert_allclose(out.points.reshape(out.frames, -1), expected, atol=1e-4)


def test_a_joint_between_a_known_and_a_missing_one_is_missing() -> None:
    points = np.ones((3, 17, 3))
    points[1, 2] = np.nan
    clip = Clip.of("a", points, BODY, fps=10, confidence=np.full((3, 17), 0.5))
    out = resample(clip, 20)
    assert np.flatnonzero(~out.valid[:, 2]).tolist() == [1, 2, 3]
    assert int((~out.valid).sum()) == 3
    assert not out.points[~out.valid].any()
    assert out.confidence is not None
    assert "3 of 85 joints missing" in out.notes[-1]
    assert resample(clip, 10) is clip


def test_frame_rates_that_cannot_be_and_mixed_ones() -> None:
    with pytest.raises(InputError, match="not known"):
        resample(clip_of(3), 30)
    for bad in (0.0, -1.0, math.inf, math.nan, 1e308, 1e-308):
        with pytest.raises(InputError, match="no such frame rate"):
            resample(clip_of(3, fps=30.0), bad)
    with pytest.raises(InputError, match="too many frames"):
        resample(clip_of(60, fps=30.0), 9e6)
    assert mixed_rates([clip_of(1, fps=30.0), clip_of(1)]) == "several frame rates: 30 Hz (1 clip), unknown (1 clip)"
    assert mixed_rates([]) is None


# ---------------------------------------------------------------- motion


@pytest.mark.parametrize("name", SKELETONS)
def test_bones_take_their_factors_and_directions_stay(name: str) -> None:
    tree = SKELETONS[name]
    rng = np.random.default_rng(0)
    points = rng.normal(size=(2, 5, len(tree), 3))
    factors = draw_bones(rng, tree, 2)
    out = scale_bones(points, tree, factors[:, None])
    ends = [joint for _, joint in tree.bones]
    ratio = bone_lengths(out, tree) / bone_lengths(points, tree)
    np.testing.assert_allclose(ratio, np.broadcast_to(factors[:, None, ends], ratio.shape), rtol=1e-9)
    np.testing.assert_array_equal(out[:, :, tree.root], points[:, :, tree.root])
    for parent, joint in tree.bones:
        one, two = (part[..., joint, :] - part[..., parent, :] for part in (points, out))
        cosine = (one * two).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(two, axis=-1)
        np.testing.assert_allclose(cosine, 1, atol=1e-9)
    assert (factors[:, list(tree.left)] == factors[:, list(tree.right)]).all()
    assert (factors > 0.8).all()
    assert (factors < 1.22).all()


def test_missing_joints_do_not_move_others_astray() -> None:
    points = np.zeros((1, 17, 3))
    points[0, :, 2] = np.arange(17)
    valid = np.ones((1, 17), bool)
    valid[0, 8] = False  # the thorax, between spine and neck
    out = scale_bones(points, BODY, np.full(17, 2.0), valid)
    assert out[0, 8, 2] == 8, "not moved"
    assert out[0, 7, 2] == 14, "spine: 0 + 2 x 7"
    assert out[0, 9, 2] == 9 + 7, "the neck follows the spine; its own bone has no known length"
    assert out[0, 10, 2] == 10 + 7 + 1


def test_a_changed_clip_says_what_was_done_and_is_seeded() -> None:
    clip = clip_of(40, missing=0.05, fps=30.0)
    level = Augmentation(mirror=1.0, speed=(1.5, 1.5))
    one, two = (augment_motion(clip, np.random.default_rng(5), level) for _ in range(2))
    assert (one.points == two.points).all()
    assert one.frames == 27
    assert one.fps == 30
    said = " ".join(one.notes[-3:])
    assert "times as long" in said
    assert "1.5 times as fast: 40 frames to 27" in said
    assert "mirrored" in said
    still = augment_motion(clip, np.random.default_rng(0), Augmentation(0.0, 0.0, (1.0, 1.0), 0.0))
    np.testing.assert_allclose(still.points, clip.points, atol=1e-6)
    with pytest.raises(InputError, match="only 3-D"):
        augment_motion(Clip.of("b", np.zeros((2, 17, 2)), BODY, unit="px", frame="image"), np.random.default_rng(0))
    for bad in ({"height": 1.0}, {"bones": -0.1}, {"mirror": 2.0}, {"speed": (0.0, 1.0)}, {"speed": (2.0, 1.0)}):
        with pytest.raises(InputError, match="no such augmentation"):
            Augmentation(**bad)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no such speed"):
        change_speed(clip, 0.0)


def test_augmented_windows_keep_limbs_even_and_rigid() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(60, 4, 17, 3))
    points[..., list(BODY.left), :] = points[..., list(BODY.right), :] * [-1, 1, 1]
    points[..., [0, 7, 8, 9, 10], 0] = 0
    valid = rng.random((60, 4, 17)) > 0.05
    out, there = augment_windows(points, BODY, np.random.default_rng(1), valid=valid)
    ratio = bone_lengths(out, BODY, there) / bone_lengths(points, BODY, there)
    assert np.nanmax(np.nanstd(ratio, axis=1)) < 1e-4, "one person a window"
    flipped = (there != valid).any((1, 2))
    assert 15 < flipped.sum() < 45
    assert out.dtype == np.float32
    same, _ = augment_windows(points, BODY, np.random.default_rng(1), Augmentation(0, 0, (1, 1), 1.0))
    np.testing.assert_allclose(same, points[..., list(BODY.mirror), :] * [-1, 1, 1], atol=1e-6)
    with pytest.raises(InputError, match="not windows"):
        augment_windows(points[0], BODY, np.random.default_rng(0))


def test_random_windows_are_even_over_frames_and_interpolate() -> None:
    clips = [clip_of(frames, frames, missing=0.02) for frames in (10, 1, 30)]
    batch = draw_windows(clips, 9, 8000, np.random.default_rng(0))
    counts = np.bincount(batch.clips, minlength=3) / 8000
    np.testing.assert_allclose(counts, np.array([10, 1, 30]) / 41, atol=0.02)
    assert set(batch.frames[batch.clips == 2].tolist()) == set(range(30))
    for row in range(0, 8000, 400):
        clip, frame = clips[batch.clips[row]], batch.frames[row]
        assert (batch.points[row] == centre_windows(clip.points, 9)[frame]).all()
        assert (batch.valid[row] == centre_windows(clip.valid, 9)[frame]).all()
    fast = draw_windows(clips, 9, 50, np.random.default_rng(1), speed=(0.5, 1.9), latency=0)
    plain = clips[2].points.astype(np.float64)
    row = int(np.flatnonzero((fast.clips == 2) & (fast.frames > 17))[0])
    frame = fast.frames[row]
    own = fast.points[row, 8]
    np.testing.assert_allclose(own, plain[frame], atol=1e-6, err_msg="no latency: the last frame is the own one")
    again = draw_windows(clips, 9, 50, np.random.default_rng(1), speed=(0.5, 1.9), latency=0)
    assert (fast.points == again.points).all()
    for arguments in (([], 9, 5), (clips, 8, 5), (clips, 9, 0)):
        with pytest.raises(InputError, match=r"windows|even"):
            draw_windows(*arguments, np.random.default_rng(0))
    with pytest.raises(InputError, match="speed"):
        draw_windows(clips, 9, 5, np.random.default_rng(0), speed=(0.0, 1.0))


# ---------------------------------------------------------------- splits


def people() -> list[Clip]:
    return [
        clip_of(4, seed, name=f"{subject}_{seed}", subject=subject, action=action)
        for seed, (subject, action) in enumerate(
            [("07", "walk 1"), ("02", "jump"), ("16", "walk 2"), ("07", "run"), ("10", "jump 1")]
        )
    ]


def test_parts_divide_no_group() -> None:
    rest, test, notes = split_clips(people(), ["07", "16"])
    assert [clip.name for clip in test] == ["07_0", "16_2", "07_3"]
    assert [clip.name for clip in rest] == ["02_1", "10_4"]
    assert notes == ("by subject: 2 clips, 8 frames (02, 10); 3 clips, 12 frames held out (07, 16)",)
    _, test, _ = split_clips(people(), ["walk"], by="action")
    assert [clip.action for clip in test] == ["walk 1", "walk 2"]
    for seed in range(10):
        rest, held, _ = hold_out_clips(people(), 0.3, seed, "subject")
        assert {clip.subject for clip in rest}.isdisjoint({clip.subject for clip in held})
        assert len(rest) + len(held) == 5
        assert held


def test_unknown_groups_are_told() -> None:
    with pytest.raises(InputError, match=r"no such subject.*99.*02, 07, 10, 16"):
        split_clips(people(), ["07", "99"])
    with pytest.raises(InputError, match="nothing is left"):
        split_clips(people(), ["02", "07", "10", "16"])
    with pytest.raises(InputError, match=r"subject of a clip is not known"):
        split_clips([clip_of(2)], ["07"])
    with pytest.raises(InputError, match="no such grouping"):
        group_of(people()[0], "planet")  # type: ignore[arg-type]


def test_copies_under_other_names_are_found() -> None:
    clips = people()
    copy = clips[0].but(name="other", subject="02", points=clips[0].points[1:], valid=clips[0].valid[1:])
    assert shared_frames(clips, [copy]) == 3
    _, _, notes = split_clips([*clips, copy], ["02"])
    assert notes[1] == "3 held out frames are also in the other part"
    nobody = clips[0].but(valid=np.zeros((4, 17), bool))
    assert shared_frames([nobody], [nobody]) == 0, "empty frames are no copies"
