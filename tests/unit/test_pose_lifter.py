"""Lifting from end to end in Python: what is learned from, what is answered, in which frame and unit."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from pipelines import PoseLifter, load
from pipelines.data.datasets.pose_conversion import convert
from pipelines.data.datasets.pose_skeletons import flip, skeleton
from pipelines.data.datasets.pose_types import Clip
from pipelines.errors import ConfigError, InputError, NothingToMeasure
from pipelines.pose import engine
from pipelines.pose.material import followed, identity, model_input, motion_of, parts_of, view_of
from pipelines.pose.metrics import mpjpe
from pipelines.pose.options import ArchOptions, MotionOptions, SplitOptions, ViewOptions
from pipelines.pose.training import draw_batch
from pipelines.training.options import TrainOptions


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return motion_of(PoseLifter(), "demo")[0]


@pytest.fixture(scope="module")
def m(lifter_folder: pathlib.Path) -> PoseLifter:
    found = load(lifter_folder, threads=1)
    assert isinstance(found, PoseLifter)
    return found


# Views ----------------------------------------------------------------------------------------------------------------


def test_a_view_is_the_same_again_and_its_truth_projects_onto_it(m: PoseLifter, clips: list[Clip]) -> None:
    one, again, other = view_of(m, clips[0], 0), view_of(m, clips[0], 0), view_of(m, clips[0], 1)
    assert np.array_equal(one.joints.points, again.joints.points)
    assert not np.array_equal(one.joints.points, other.joints.points)
    assert np.abs(one.truth[:, 0]).max() == 0
    assert one.joints.valid.all()
    # Bones have the same length in any frame.
    leg = np.linalg.norm(one.truth[:, 2] - one.truth[:, 1], axis=-1)
    assert np.allclose(leg, np.linalg.norm(clips[0].points[:, 2] - clips[0].points[:, 1], axis=-1), atol=1e-4)


def test_a_camera_that_follows_changes_no_pose(clips: list[Clip]) -> None:
    moved = followed(clips[0].points)
    apart = clips[0].points - clips[0].points[:, :1]
    assert np.allclose(moved - moved[:, :1], apart, atol=1e-6)
    assert np.abs(moved[:, 0, :2]).max() == 0
    assert np.array_equal(moved[..., 2], clips[0].points[..., 2])


def test_windows_drawn_for_training(m: PoseLifter, clips: list[Clip]) -> None:
    one = draw_batch(m, clips[:2], 40, 5, changed=True)
    assert one["x"].shape == (40, 3, 17, 3)
    assert one["y"].shape == (40, 17, 3)
    assert np.abs(one["y"][:, 0]).max() == 0
    assert set(np.unique(one["x"][..., 2])) <= {0.0, 1.0}
    assert (one["x"][one["x"][..., 2] == 0][:, :2] == 0).all()
    assert 0 < (one["x"][..., 2] == 0).mean() < 0.1
    again = draw_batch(m, clips[:2], 40, 5, changed=True)
    assert all(np.array_equal(one[name], again[name]) for name in one)


# Answers --------------------------------------------------------------------------------------------------------------


def test_every_frame_gets_a_pose_in_metres_about_the_root(m: PoseLifter, clips: list[Clip]) -> None:
    seen = view_of(m, clips[0], 0).joints
    track = m.predict(seen).tracks[0]
    assert track.points.shape == (seen.frames, 17, 3)
    assert np.abs(track.points[:, 0]).max() == 0
    assert track.sigma is not None
    assert (track.sigma > 0).all()
    assert track.frame == "camera"
    assert track.fps == 30.0


def test_the_answer_to_a_mirror_image_is_the_mirror_image(m: PoseLifter, clips: list[Clip]) -> None:
    joints, _ = model_input(view_of(m, clips[1], 0).joints)
    tree = skeleton("h36m17")
    other = joints.copy()
    other[..., :2] = flip(joints[..., :2], tree)
    one, two = engine.lift(m, m.state, joints)[0], engine.lift(m, m.state, other)[0]
    assert np.allclose(flip(one, tree), two, atol=1e-5)


def test_a_long_clip_is_answered_as_its_frames_are(m: PoseLifter) -> None:
    generator = np.random.default_rng(0)
    joints = np.concatenate([generator.uniform(-0.3, 0.3, (2100, 17, 2)), np.ones((2100, 17, 1))], -1).astype(
        np.float32
    )
    whole = engine.lift(m, m.state, joints)[0]
    part = engine.lift(m, m.state, joints[1000:1060])[0]
    assert np.allclose(whole[1010:1050], part[10:50], atol=1e-5)
    assert len(engine.lift(m, m.state, joints[:1])[0]) == 1


def test_pixels_and_normalised_joints_are_the_same(m: PoseLifter, clips: list[Clip]) -> None:
    seen = view_of(m, clips[0], 0).joints
    flat = model_input(seen)[0][..., :2]
    normalised = Clip("n", flat, seen.valid, seen.skeleton, seen.fps, "normalised", "image")
    one, two = m.predict(seen).tracks[0], m.predict(normalised).tracks[0]
    assert np.allclose(one.points, two.points, atol=1e-5)


def test_another_skeleton_and_missing_joints(m: PoseLifter, clips: list[Clip]) -> None:
    seen = view_of(m, clips[0], 0).joints
    coco = convert(seen, "coco17")
    with pytest.raises(InputError):
        m.predict(Clip("one", seen.points[:, :5], seen.valid[:, :5], dataclasses.replace(
            skeleton("deepmimic15"), name="five", joints=tuple("abcde"), parents=(-1, 0, 1, 2, 3), root=0, left=(),
            right=()), seen.fps, "px", "image", size=seen.size))  # fmt: skip
    track = m.predict(coco).tracks[0]
    assert track.points.shape[1] == 17
    assert any("missing" in note for note in track.notes)


def test_other_frame_rates_are_said(m: PoseLifter, clips: list[Clip]) -> None:
    seen = view_of(m, clips[0], 0).joints
    slow = dataclasses.replace(seen, points=seen.points[::2], valid=seen.valid[::2], fps=15.0)
    track = m.predict(slow).tracks[0]
    assert track.fps == 30.0
    assert any("lifted at 30 Hz" in note for note in track.notes)


def test_where_the_root_is(m: PoseLifter, clips: list[Clip]) -> None:
    seen = view_of(m, clips[0], 0).joints
    with_focal = m.clone(focal=1145.0)
    with_focal._state, with_focal._fitted = m.state, True
    track = with_focal.predict(seen).tracks[0]
    assert track.trajectory is not None
    assert track.trajectory.shape == (seen.frames, 3)
    assert np.isfinite(track.trajectory).all()
    assert m.predict(seen).tracks[0].trajectory is None


# Measuring ------------------------------------------------------------------------------------------------------------


def test_what_is_measured_was_not_learned_from(m: PoseLifter, clips: list[Clip]) -> None:
    found = m.evaluate(clips[:3])
    assert found.counts["clips"] == 1
    assert set(found.baselines) == {"linear", "mean"}
    assert set(found.metrics) == {"mpjpe", "p_mpjpe", "n_mpjpe", "mpjve", "pck_150", "auc"}
    fresh = next(clip for clip in clips[:3] if identity(clip) not in set(m.state.trained.tolist()))
    seen = view_of(m, fresh, 0)
    points = engine.lift(m, m.state, model_input(seen.joints)[0])[0]
    assert found.metrics["mpjpe"] == pytest.approx(mpjpe(points, seen.truth))
    assert found.intervals == {}  # one clip alone
    known = [clip for clip in clips[:3] if identity(clip) in set(m.state.trained.tolist())]
    with pytest.raises(NothingToMeasure, match="no clip is left to measure"):
        m.evaluate(known)


def test_a_named_split_is_kept(clips: list[Clip]) -> None:
    lifter = PoseLifter(split=SplitOptions(test=("walk", "run"), by="action", valid=0.0))
    parts = parts_of(lifter, clips)
    assert sorted(clip.action for clip in parts.test) == ["run", "walk"]
    assert len(parts.train) == 13
    with pytest.raises(InputError, match="no such action"):
        parts_of(lifter.clone(split={"test": ("wlak",), "by": "action"}), clips)


def test_it_learns_more_than_the_mean_pose(clips: list[Clip]) -> None:
    lifter = PoseLifter(
        frames=3,
        arch=ArchOptions(
            dim=16, spatial_layers=1, temporal_layers=1, kernels=(3,), heads=2, dropout=0.0, drop_path=0.0
        ),
        motion=MotionOptions(windows=2048),
        views=ViewOptions(cameras=1),
        split=SplitOptions(test=("walk",), by="action", valid=0.0),
        train=TrainOptions(epochs=6, batch_size=128, patience=0, schedule="cosine", learning_rate=3e-3),
        threads=1,
    )
    found = lifter.fit([clip for clip in clips if clip.action in ("walk", "run", "dance_a", "dance_b", "jump")])
    measured = found.evaluate([clip for clip in clips if clip.action in ("walk", "punch", "kick")])
    low, high = measured.intervals["mpjpe"]
    assert low < measured.metrics["mpjpe"] < high
    measured = found.evaluate([clip for clip in clips if clip.action == "walk"])
    assert measured.metrics["mpjpe"] < 0.95 * measured.baselines["mean"]["mpjpe"]


def test_weights_that_never_existed_are_refused() -> None:
    with pytest.raises(ConfigError, match="no weights of this paper were ever released"):
        PoseLifter.from_official("convformer.pth")
