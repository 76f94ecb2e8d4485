"""Figures of poses against loops and scipy, their invariances, masks, sums over clips, intervals, the mean pose."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.spatial.transform import Rotation

from pipelines.errors import InputError
from pipelines.pose.baselines import MeanPose
from pipelines.pose.metrics import (
    FIGURES,
    auc,
    joint_errors,
    mpjpe,
    mpjve,
    n_mpjpe,
    p_mpjpe,
    pck,
    procrustes,
)
from pipelines.pose.tally import ClipErrors, Tally, measure

Floats = NDArray[np.float64]


def drawn(seed: int, frames: int = 6, joints: int = 7) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 0.4, (frames, joints, 3))
    valid = rng.random((frames, joints)) < 0.8
    valid[:, 0] = rng.random(frames) < 0.8
    return truth + rng.normal(0, 0.08, truth.shape), truth, valid


def loops(said: Floats, true: Floats, valid: NDArray[np.bool_], root: int = 0) -> list[list[float | None]]:
    """Errors in mm as the definition has them, one joint at a time."""
    out: list[list[float | None]] = []
    for frame in range(len(said)):
        row: list[float | None] = []
        for joint in range(said.shape[1]):
            if not valid[frame, joint] or not valid[frame, root]:
                row.append(None)
                continue
            total = 0.0
            for axis in range(3):
                a = said[frame, joint, axis] - said[frame, root, axis]
                total += (a - (true[frame, joint, axis] - true[frame, root, axis])) ** 2
            row.append(1000 * math.sqrt(total))
        out.append(row)
    return out


def known(rows: list[list[float | None]]) -> list[float]:
    return [value for row in rows for value in row if value is not None]


@pytest.mark.parametrize("seed", range(3))
def test_distances_shares_and_areas_are_those_of_loops(seed: int) -> None:
    said, true, valid = drawn(seed)
    rows = loops(said, true, valid)
    assert mpjpe(said, true, valid) == pytest.approx(np.mean(known(rows)), rel=1e-12)
    others = known([row[1:] for row in rows])
    assert pck(said, true, valid) == pytest.approx(100 * sum(v < 150 for v in others) / len(others), rel=1e-12)
    areas = [100 * sum(v < step for v in others) / len(others) for step in range(0, 151, 5)]
    assert auc(said, true, valid) == pytest.approx(sum(areas) / 31, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_velocity_is_that_of_loops(seed: int) -> None:
    said, true, valid = drawn(seed)
    values = []
    for frame, joint in itertools.product(range(1, len(said)), range(said.shape[1])):
        if valid[frame - 1 : frame + 1, [0, joint]].all():
            one = (said[frame, joint] - said[frame, 0]) - (said[frame - 1, joint] - said[frame - 1, 0])
            two = (true[frame, joint] - true[frame, 0]) - (true[frame - 1, joint] - true[frame - 1, 0])
            values.append(1000 * math.dist(one, two))
    assert mpjve(said, true, valid) == pytest.approx(np.mean(values), rel=1e-12)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_procrustes_agrees_with_scipys_rotation(seed: int, mirrored: bool) -> None:
    said, true, valid = drawn(seed)
    if mirrored:
        said = said * [-1, 1, 1]
    aligned = procrustes(said, true, valid)
    for frame in range(len(said)):
        chosen = valid[frame]
        if chosen.sum() < 3:
            assert np.isnan(aligned[frame]).all()
            continue
        a, b = said[frame, chosen], true[frame, chosen]
        a, b = a - a.mean(0), b - b.mean(0)
        turned = Rotation.align_vectors(b, a)[0].apply(a)  # a proper rotation by Kabsch's rule
        best = minimize_scalar(lambda s, turned=turned, b=b: float(((s * turned - b) ** 2).sum()))
        expected = best.x * turned + true[frame, chosen].mean(0)
        np.testing.assert_allclose(aligned[frame, chosen], expected, atol=1e-6)
        assert np.isnan(aligned[frame, ~chosen]).all()


def test_similarities_leave_p_mpjpe_alone_and_shifts_mpjpe() -> None:
    said, true, valid = drawn(4)
    turns = Rotation.random(len(said), rng=np.random.default_rng(5)).as_matrix()
    moved = 2.5 * np.einsum("tij,tkj->tki", turns, said) + np.arange(18).reshape(6, 1, 3)
    assert p_mpjpe(moved, true, valid) == pytest.approx(p_mpjpe(said, true, valid), rel=1e-9)
    assert p_mpjpe(moved, said) < 1e-9
    assert mpjpe(moved, true, valid) > 2 * mpjpe(said, true, valid)
    shift = np.random.default_rng(0).normal(size=(6, 1, 3))
    assert mpjpe(said + shift, true, valid) == pytest.approx(mpjpe(said, true, valid), rel=1e-9)
    assert mpjpe(said + shift, true, valid, root=None) > 2 * mpjpe(said, true, valid, root=None)
    assert n_mpjpe(0.3 * said + shift, true, valid) == pytest.approx(n_mpjpe(said, true, valid), rel=1e-9)


def test_a_mirrored_body_is_never_laid_over_the_body() -> None:
    """Four points in general position have no mirror image among their rotations; flat bodies have."""
    solid = np.array([[[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]]])
    assert p_mpjpe(solid * [-1, 1, 1], solid) > 100
    # All rotations, tried on a grid, find nothing nearer in the mean of squares than the solution does.
    aligned = procrustes(solid * [-1, 1, 1], solid)
    best = ((aligned - solid) ** 2).sum()
    mirrored, goal = solid[0] * [-1, 1, 1], solid[0] - solid[0].mean(0)
    mirrored = mirrored - mirrored.mean(0)
    for turn in Rotation.random(2000, rng=np.random.default_rng(0)).as_matrix():
        turned = mirrored @ turn.T
        scale = max(0.0, (turned * goal).sum() / (turned**2).sum())
        assert ((scale * turned - goal) ** 2).sum() >= best - 1e-9
    flat = solid * [1, 1, 0]
    assert p_mpjpe(flat * [-1, 1, 1], flat) < 1e-9


def test_scale_of_n_mpjpe_is_the_least_squares_one() -> None:
    said, true, _ = drawn(6, frames=1)
    a, b = said[0] - said[0, 0], true[0] - true[0, 0]
    best = getattr(minimize_scalar(lambda s: float(((s * a - b) ** 2).sum())), "x")  # noqa: B009
    expected = 1000 * np.linalg.norm(best * a - b, axis=1).mean()
    assert n_mpjpe(said, true) == pytest.approx(expected, rel=1e-7)


def test_poses_without_size_get_finite_figures() -> None:
    _, true, _ = drawn(7)
    point = np.zeros_like(true)
    spread = 1000 * np.linalg.norm(true - true.mean(1, keepdims=True), axis=-1).mean()
    assert p_mpjpe(point, true) == pytest.approx(spread)
    assert n_mpjpe(point, true) == pytest.approx(mpjpe(point, true))


def test_what_is_not_known_is_never_read() -> None:
    said, true, valid = drawn(8)
    holed, hidden = said.copy(), true.copy()
    holed[~valid], hidden[~valid] = np.nan, np.inf
    one, two = measure("a", said, true, valid), measure("a", holed, hidden, valid)
    for figure in FIGURES:
        np.testing.assert_array_equal(one.sums[figure], two.sums[figure])
        np.testing.assert_array_equal(one.counts[figure], two.counts[figure])
    assert np.isnan(joint_errors(holed, hidden, valid)[~valid]).all()
    assert math.isnan(mpjpe(said, true, np.zeros_like(valid)))


def test_thresholds_are_strict() -> None:
    true = np.zeros((1, 3, 3))
    said = true.copy()
    said[0, 1, 0], said[0, 2, 0] = 0.15, 0.149
    assert pck(said, true) == 50.0
    assert auc(true, true) == pytest.approx(100 * 30 / 31)


@pytest.mark.parametrize(
    ("said", "true", "valid", "words"),
    [
        (np.zeros((2, 3, 3)), np.zeros((2, 4, 3)), None, "cannot be compared"),
        (np.zeros((2, 3, 2)), np.zeros((2, 3, 2)), None, "cannot be compared"),
        (np.zeros((2, 3, 3)), np.zeros((2, 3, 3)), np.ones((2, 2)), "valid does not fit"),
        (np.full((2, 3, 3), np.nan), np.zeros((2, 3, 3)), None, "6 predicted joints, the first in frame 0, joint 0"),
        (np.zeros((2, 3, 3)), np.full((2, 3, 3), np.inf), None, "6 true joints"),
    ],
)
def test_bad_poses_are_refused(said: Floats, true: Floats, valid: NDArray[np.bool_] | None, words: str) -> None:
    with pytest.raises(InputError, match=words):
        mpjpe(said, true, valid)


def clips() -> list[ClipErrors]:
    actions = ["walk", "walk", "run", "jump"]
    return [measure(f"clip {n}", *drawn(n, frames=3 + 4 * n), action=actions[n], subject=str(n % 2)) for n in range(4)]


def test_all_clips_together_are_one_long_clip() -> None:
    parts = [drawn(n, frames=3 + 4 * n) for n in range(4)]
    said, true, valid = (np.concatenate([part[place] for part in parts]) for place in range(3))
    whole = Tally([measure("all", said, true, valid)])
    figures = Tally(clips()).figures()
    for name, of in (("mpjpe", mpjpe), ("p_mpjpe", p_mpjpe), ("n_mpjpe", n_mpjpe), ("pck_150", pck), ("auc", auc)):
        assert figures[name] == pytest.approx(whole.figures()[name], rel=1e-13)
        assert figures[name] == pytest.approx(of(said, true, valid), rel=1e-13)
    pairs = [mpjve(*part) * measure("", *part).counts["mpjve"].sum() for part in parts]
    count = sum(measure("", *part).counts["mpjve"].sum() for part in parts)
    assert figures["mpjve"] == pytest.approx(sum(pairs) / count, rel=1e-13)  # no step from one clip to the next


def test_the_order_of_clips_changes_nothing() -> None:
    held = clips()
    first = Tally(held)
    for order in itertools.permutations(held):
        other = Tally(list(order))
        assert other.figures() == first.figures()
        assert other.by("action") == first.by("action")
        assert other.action_average() == first.action_average()
        np.testing.assert_array_equal(other.by_joint("p_mpjpe"), first.by_joint("p_mpjpe"))


def test_actions_weigh_alike_in_their_average() -> None:
    tally = Tally(clips())
    groups = tally.by("action")
    assert list(groups) == ["walk", "run", "jump"]
    walks = [drawn(n, frames=3 + 4 * n) for n in range(2)]
    expected = mpjpe(*(np.concatenate([walk[place] for walk in walks]) for place in range(3)))
    assert groups["walk"]["mpjpe"] == pytest.approx(expected, rel=1e-13)
    average = sum(group["mpjpe"] for group in groups.values()) / 3
    assert tally.action_average()["mpjpe"] == pytest.approx(average, rel=1e-13)
    assert tally.action_average()["mpjpe"] != pytest.approx(tally.figures()["mpjpe"], rel=1e-6)
    assert set(tally.by("subject")) == {"0", "1"}


def test_joints_can_be_chosen() -> None:
    said, true, valid = drawn(3)
    chosen = measure("a", said, true, valid, joints=[0, 2, 5])
    rows = loops(said, true, valid)
    assert chosen.counts["mpjpe"].nonzero()[0].tolist() == [0, 2, 5]
    expected = np.mean(known([[row[j] for j in (0, 2, 5)] for row in rows]))
    assert Tally([chosen]).figures()["mpjpe"] == pytest.approx(expected, rel=1e-13)
    assert Tally([chosen]).figures()["p_mpjpe"] == pytest.approx(p_mpjpe(said[:, [0, 2, 5]], true[:, [0, 2, 5]], valid[:, [0, 2, 5]]))  # fmt: skip  # noqa: E501
    without_root = measure("a", said, true, valid, joints=[2, 5])
    assert without_root.sums["mpjpe"][2] == chosen.sums["mpjpe"][2]
    with pytest.raises(InputError, match="no such joints"):
        measure("a", said, true, joints=[7])
    by_joint = Tally([measure("a", said, true, valid)]).by_joint()
    assert by_joint[0] == 0
    assert by_joint[3] == pytest.approx(np.mean(known([[row[3]] for row in rows])), rel=1e-13)


def test_what_is_left_out_is_counted() -> None:
    said, true, _ = drawn(2)
    valid = np.ones(said.shape[:2], bool)
    valid[1, 0] = False
    valid[2, 2:] = False
    notes = Tally([measure("a", said, true, valid), measure("b", said, true, valid)]).notes()
    assert notes == (
        "not compared: 12 joints without a known place",
        "not compared: 2 frames without a root, in all figures but p_mpjpe",
        "not compared: 2 frames with fewer than 3 joints, in p_mpjpe",
    )


def test_intervals_come_from_whole_clips() -> None:
    rng = np.random.default_rng(0)
    tally = Tally()
    for n in range(30):
        true = rng.normal(0, 0.4, (20, 5, 3))
        tally.add(measure(str(n), true + rng.normal(0, 0.02 * (1 + n % 3), true.shape), true, action=str(n % 2)))
    found = tally.intervals()
    assert found["mpjpe"].lo < tally.figures()["mpjpe"] == found["mpjpe"].value < found["mpjpe"].hi
    # The standard error of a mean over clips of equal length, by its formula.
    each = [clip["mpjpe"] for clip in tally.by("name").values()]
    width = 2 * 1.96 * np.std(each) / math.sqrt(30)
    assert found["mpjpe"].hi - found["mpjpe"].lo == pytest.approx(width, rel=0.1)
    assert tally.intervals() == found
    assert tally.intervals(actions=True)["auc"].value == tally.action_average()["auc"]
    assert Tally(tally.clips[:1]).intervals() == {}


def test_an_action_that_is_not_drawn_is_not_in_the_mean() -> None:
    tally = Tally(clips())
    found = tally.intervals(actions=True, replicates=50, seed=3)["p_mpjpe"]
    means = []
    for often in np.random.default_rng(3).multinomial(4, np.full(4, 0.25), size=50):
        drawn_clips = [clip for clip, times in zip(tally.clips, often, strict=True) for _ in range(times)]
        means.append(Tally(drawn_clips).action_average()["p_mpjpe"])
    np.testing.assert_allclose([found.lo, found.hi], np.quantile(means, [0.025, 0.975]), rtol=1e-12)


def test_the_difference_of_two_models_is_paired() -> None:
    rng = np.random.default_rng(1)
    good, poor = Tally(), Tally()
    for n in range(12):
        true = rng.normal(0, 0.4, (9, 5, 3))
        hard = rng.normal(0, 0.05 * (1 + 5 * (n % 2)), true.shape)  # clips differ far more than the models
        good.add(measure(str(n), true + hard, true))
        poor.add(measure(str(n), true + 1.05 * hard, true))
    paired = good.difference(poor)["mpjpe"]
    assert paired.hi < 0
    assert good.intervals()["mpjpe"].hi > poor.intervals()["mpjpe"].lo  # unpaired, nothing could be told
    with pytest.raises(InputError, match="same clips"):
        good.difference(Tally(poor.clips[:-1]))


def test_clips_of_two_skeletons_do_not_mix() -> None:
    tally = Tally([measure("a", np.zeros((2, 3, 3)), np.zeros((2, 3, 3)))])
    with pytest.raises(InputError, match="two skeletons"):
        tally.add(measure("b", np.zeros((2, 4, 3)), np.zeros((2, 4, 3))))


def test_nothing_measured_is_no_number() -> None:
    assert all(math.isnan(value) for value in Tally().figures().values())
    assert np.isnan(Tally().curve()).all()
    with pytest.raises(InputError, match="nothing was measured"):
        Tally().by_joint()


def test_the_curve_has_the_auc_as_its_mean() -> None:
    tally = Tally(clips())
    assert tally.curve().mean() == pytest.approx(tally.figures()["auc"], rel=1e-13)
    assert tally.curve()[-1] == pytest.approx(tally.figures()["pck_150"], rel=1e-13)


def test_the_mean_pose_is_the_mean_of_all_frames() -> None:
    parts = [drawn(n, frames=4 + n) for n in range(3)]
    pose = MeanPose.fit((true, valid) for _, true, valid in parts)
    for joint in range(7):
        values = [
            true[frame, joint] - true[frame, 0]
            for _, true, valid in parts
            for frame in range(len(true))
            if valid[frame, joint] and valid[frame, 0]
        ]
        assert pose.counts[joint] == len(values)
        np.testing.assert_allclose(pose.points[joint], np.mean(values, axis=0), atol=1e-12)
    assert pose.predict(5).shape == (5, 7, 3)
    with pytest.raises(InputError, match="no clip"):
        MeanPose.fit([])
    with pytest.raises(InputError, match=r"joints \[2\] in no frame"):
        MeanPose.fit([(np.zeros((4, 3, 3)), np.tile([True, True, False], (4, 1)))])
    with pytest.raises(InputError, match=r"\(T, 3, 3\)"):
        MeanPose.fit([(np.zeros((4, 3, 3)), None), (np.zeros((4, 4, 3)), None)])
    with pytest.raises(InputError, match="not finite"):
        MeanPose.fit([(np.full((4, 3, 3), np.nan), None)])


def test_views_of_one_clip_are_drawn_together() -> None:
    rng = np.random.default_rng(4)
    once, thrice = Tally(), Tally()
    for n in range(8):
        true = rng.normal(0, 0.4, (6, 5, 3))
        found = measure(str(n), true + rng.normal(0, 0.03, true.shape), true)
        once.add(found)
        for _ in range(3):
            thrice.add(found)
    # The same answer seen three times tells nothing new.
    narrow, wide = thrice.intervals()["mpjpe"], once.intervals()["mpjpe"]
    assert (narrow.lo, narrow.hi) == pytest.approx((wide.lo, wide.hi), rel=1e-12)
    assert Tally(thrice.clips[:3]).intervals() == {}
