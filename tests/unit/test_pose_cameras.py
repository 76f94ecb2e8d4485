"""Cameras against loops and other libraries: projection, distortion, frames, random views, the root's place."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pipelines.data.datasets.pose_cameras import (
    ViewRange,
    camera_of,
    denormalise,
    draw_views,
    look_at,
    normalise,
    project,
    random_camera,
    root_depth,
    see,
    to_camera,
    to_world,
    undistort,
    unproject,
)
from pipelines.data.datasets.pose_noise import NoiseLevel, degrade
from pipelines.data.datasets.pose_rotations import quaternion_of, rotation_of
from pipelines.data.datasets.pose_skeletons import skeleton
from pipelines.data.datasets.pose_types import Camera, Clip
from pipelines.data.errors import InputError

BODY = skeleton("h36m17")
BROWN = (-0.2, 0.24, -0.0009, -0.0014, -0.003)


def random_turn(seed: int) -> Rotation:
    return Rotation.from_quat(np.random.default_rng(seed).normal(size=4))


def some_camera(seed: int = 0, distortion: tuple[float, ...] = BROWN) -> Camera:
    rng = np.random.default_rng(seed)
    turn = random_turn(seed).as_matrix()
    return Camera(
        (1000, 1002), (1145.0, 1143.8), (512.5, 515.4), distortion, turn, rng.normal(size=3) + np.array([0, 0, 5])
    )


def pinhole(point: np.ndarray, camera: Camera) -> tuple[float, float]:
    """One point, in scalars, straight from the equations."""
    x, y, z = (sum(camera.rotation[i, j] * point[j] for j in range(3)) + camera.translation[i] for i in range(3))
    x, y = x / z, y / z
    k1, k2, p1, p2, k3 = camera.distortion
    r = math.hypot(x, y)
    radial = 1 + k1 * r**2 + k2 * r**4 + k3 * r**6
    u = x * radial + 2 * p1 * x * y + p2 * (r**2 + 2 * x**2)
    v = y * radial + p1 * (r**2 + 2 * y**2) + 2 * p2 * x * y
    return u * camera.focal[0] + camera.centre[0], v * camera.focal[1] + camera.centre[1]


def test_projection_point_by_point() -> None:
    for seed in range(5):
        camera = some_camera(seed)
        points = np.random.default_rng(seed).normal(0, 0.6, (20, 3))
        expected = np.array([pinhole(point, camera) for point in points])
        np.testing.assert_allclose(project(points, camera), expected, rtol=1e-12)


def test_fewer_coefficients_are_zeros_and_opencv_order() -> None:
    points = np.random.default_rng(0).normal(0, 0.5, (9, 3)) + np.array([0, 0, 4])
    short, full = ((-0.2, 0.1), (-0.2, 0.1, 0.0, 0.0, 0.0))
    one, two = (project(points, Camera((10, 10), (9.0, 9.0), (5.0, 5.0), k), world=False) for k in (short, full))
    assert (one == two).all()


def test_what_is_behind_or_beyond_is_nan() -> None:
    plain = Camera((100, 100), (100.0, 100.0), (50.0, 50.0))
    assert np.isnan(project([[0, 0, -1], [0, 0, 0]], plain, world=False)).all()
    # r (1 - 0.3 r^2) turns back at r = 1 / sqrt(0.9): the image of a point further out would lie further in.
    folded = Camera((100, 100), (100.0, 100.0), (50.0, 50.0), (-0.3,))
    edge = 1 / math.sqrt(0.9)
    seen = project([[edge * 0.99, 0, 1], [edge * 1.01, 0, 1]], folded, world=False)
    assert np.isnan(seen).any(1).tolist() == [False, True]


def test_world_and_camera_and_back() -> None:
    camera = some_camera(3)
    points = np.random.default_rng(1).normal(0, 2, (4, 17, 3))
    np.testing.assert_allclose(to_world(to_camera(points, camera), camera), points, atol=1e-12)
    np.testing.assert_allclose(to_camera(camera.position, camera), 0, atol=1e-12)
    lengths = np.linalg.norm(points[:, 0] - points[:, 1], axis=-1)
    moved = to_camera(points, camera)
    np.testing.assert_allclose(np.linalg.norm(moved[:, 0] - moved[:, 1], axis=-1), lengths)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.booleans())
def test_unprojection_undoes_projection(seed: int, world: bool, distorted: bool) -> None:
    camera = some_camera(seed, BROWN if distorted else ())
    local = np.random.default_rng(seed).uniform((-1, -1, 3), (1, 1, 6), (8, 3))
    points = to_world(local, camera) if world else local
    back = unproject(project(points, camera, world), local[:, 2], camera, world)
    np.testing.assert_allclose(back, points, atol=1e-8)


def test_undistort_gives_nan_where_no_direction_fits() -> None:
    folded = Camera((100, 100), (100.0, 100.0), (50.0, 50.0), (-0.3,))
    assert np.isnan(undistort([[50.0 + 90.0, 50.0]], folded)).all(), "beyond the largest radius of the image circle"
    assert np.isfinite(undistort([[60.0, 40.0]], folded)).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(0, 9999))
def test_normalising_and_back(w: int, h: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).uniform((0, 0), (w, h), (6, 2))
    points = normalise(pixels, (w, h))
    np.testing.assert_allclose(denormalise(points, (w, h)), pixels, atol=1e-8)
    np.testing.assert_allclose(points, pixels / w * 2 - np.array([1, h / w]), rtol=1e-12)
    assert (np.abs(points[..., 0]) <= 1 + 1e-12).all()


def test_quaternions_against_scipy() -> None:
    for seed in range(20):
        turn = random_turn(seed)
        x, y, z, w = turn.as_quat()
        np.testing.assert_allclose(rotation_of([w, x, y, z]), turn.as_matrix(), atol=1e-12)
        np.testing.assert_allclose(rotation_of([3 * w, 3 * x, 3 * y, 3 * z]), turn.as_matrix(), atol=1e-12)
        np.testing.assert_allclose(rotation_of(quaternion_of(turn.as_matrix())), turn.as_matrix(), atol=1e-12)
    for axis in np.vstack([np.eye(3), [[0.6, 0.8, 0.0]]]):  # half turns, where formulas by the trace break down
        half = Rotation.from_rotvec(np.pi * axis).as_matrix()
        np.testing.assert_allclose(rotation_of(quaternion_of(half)), half, atol=1e-12)
    with pytest.raises(InputError, match="not quaternions"):
        rotation_of([0, 0, 0, 0])
    with pytest.raises(InputError, match="not quaternions"):
        rotation_of([1, 0, 0])
    with pytest.raises(InputError, match="not a rotation"):
        quaternion_of(np.eye(4))


def test_a_camera_by_its_orientation_turns_by_the_inverse() -> None:
    turn = random_turn(5)
    x, y, z, w = turn.as_quat()
    place = np.array([1.8, 4.9, 1.5])
    camera = camera_of([w, x, y, z], place, (1000, 1002), (1145, 1143), (512, 515), BROWN)
    points = np.random.default_rng(0).normal(size=(7, 3))
    np.testing.assert_allclose(to_camera(points, camera), turn.inv().apply(points - place), atol=1e-12)
    np.testing.assert_allclose(camera.position, place, atol=1e-12)


@pytest.mark.parametrize(
    "changed",
    [
        {"size": (0, 10)},
        {"focal": (0.0, 1.0)},
        {"focal": (math.nan, 1.0)},
        {"centre": (math.inf, 1.0)},
        {"distortion": (0.0,) * 6},
        {"rotation": np.diag([1.0, 1.0, -1.0])},
        {"rotation": np.eye(3) * 2},
        {"rotation": np.eye(2)},
        {"translation": np.zeros(2)},
        {"translation": np.full(3, np.nan)},
    ],
)
def test_bad_cameras_are_refused(changed: dict) -> None:
    good = {"size": (10, 10), "focal": (9.0, 9.0), "centre": (5.0, 5.0)}
    with pytest.raises(InputError, match=r"no such camera|not a rotation"):
        Camera(**{**good, **changed})


def test_look_at_is_upright_and_centred() -> None:
    camera = look_at((1.0, 2.0, 1.0), (4.0, -1.0, 2.5))
    np.testing.assert_allclose(camera.position, (4.0, -1.0, 2.5), atol=1e-12)
    np.testing.assert_allclose(project([[1.0, 2.0, 1.0]], camera), [[500, 500]], atol=1e-9)
    up, left = project([[1.0, 2.0, 1.5], [1.0 - 0.5, 2.0 - 0.5, 1.0]], camera)
    assert abs(up[0] - 500) < 1e-9, "up is up"
    assert up[1] < 400
    # From (4, -1) one looks along (-1, 1): to the left is (-1, -1).
    assert left[0] < 500
    with pytest.raises(InputError, match="no upright image"):
        look_at((0, 0, 0), (0, 0, 5))
    with pytest.raises(InputError, match="no upright image"):
        look_at((0, 0, 0), (0, 0, 0))


def test_random_cameras_are_those_of_the_protocol() -> None:
    rng = np.random.default_rng(7)
    target = np.array([0.5, -1.0, 0.9])
    distance, yaw, pitch = [], [], []
    for _ in range(2000):
        camera = random_camera(rng, target)
        away = camera.position - target
        distance.append(np.linalg.norm(away))
        yaw.append(np.degrees(np.arctan2(away[1], away[0])))
        pitch.append(np.degrees(np.arcsin(away[2] / distance[-1])))
        assert camera.focal == (1145.0, 1145.0)
        assert camera.size == (1000, 1000)
    for values, low, high in ((distance, 3.5, 6.0), (yaw, -180, 180), (pitch, -5, 25)):
        assert low - 1e-9 <= min(values)
        assert max(values) <= high + 1e-9
        assert np.mean(values) == pytest.approx((low + high) / 2, abs=0.05 * (high - low))
        assert np.std(values) == pytest.approx((high - low) / math.sqrt(12), rel=0.05)
    one, two = (random_camera(np.random.default_rng(3), target) for _ in range(2))
    assert (one.rotation == two.rotation).all()
    assert (one.translation == two.translation).all()


def bodies(count: int, spread: float = 0.35, frames: int = 6) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(0, spread, (count, 1, 17, 3)) + rng.normal(0, 0.02, (count, frames, 17, 3))).clip(-0.9, 0.9)


def test_views_agree_with_their_cameras_and_are_seeded() -> None:
    points = bodies(5)
    valid = np.random.default_rng(1).random(points.shape[:3]) > 0.1
    one, two = (draw_views(points, np.random.default_rng(2), valid) for _ in range(2))
    assert (one.pixels == two.pixels).all()
    for clip, known, camera, deep, flat, inside in zip(
        points, valid, one.cameras, one.points, one.pixels, one.inside, strict=True
    ):
        np.testing.assert_allclose(deep, to_camera(clip, camera), atol=1e-12)
        np.testing.assert_allclose(flat[known], project(clip, camera)[known], atol=1e-9)
        assert (inside == known).all()
        assert not flat[~known].any()
    assert one.outside == 0
    assert one.redraws == 0


def test_bodies_out_of_the_picture_are_drawn_again_and_counted() -> None:
    # 3.4 m tall: at 3.5 m it does not fit into 1000 px of f = 1145, at 6 m it does (2 x 1.7 x 1145 / 6 = 649 px).
    tall = np.zeros((40, 1, 17, 3))
    tall[:, :, 0, 2], tall[:, :, 1, 2] = -1.7, 1.7
    views = draw_views(tall, np.random.default_rng(0), tries=200)
    assert views.outside == 0
    assert views.redraws > 0
    assert views.inside.all()
    assert f"{views.redraws} drawn again" in views.notes[0]
    giant = tall[:3] * 10
    views = draw_views(giant, np.random.default_rng(0), tries=4)
    assert views.outside == int((~views.inside).sum()) > 0
    assert views.redraws == 9
    assert "joints outside the image" in views.notes[1]
    with pytest.raises(InputError, match="not clips"):
        draw_views(tall[0], np.random.default_rng(0))
    with pytest.raises(InputError, match="not a range"):
        ViewRange(distance=(6.0, 3.5))
    with pytest.raises(InputError, match="no such cameras"):
        ViewRange(pitch=(-90.0, 0.0))


def test_nobody_to_look_at_is_no_crash() -> None:
    views = draw_views(np.zeros((2, 3, 17, 3)), np.random.default_rng(0), np.zeros((2, 3, 17), bool))
    assert len(views.cameras) == 2
    assert not views.pixels.any()
    assert not views.inside.any()


def test_seeing_a_clip() -> None:
    points = bodies(1)[0]
    points[0, 3] = 50, 0, 0  # far out of the image
    clip = Clip.of("a", points, BODY, fps=30)
    camera = look_at((0, 0, 0), (0, -5, 0.5))
    flat, deep = see(clip, camera)
    assert (flat.unit, flat.frame, deep.unit, deep.frame, flat.size) == ("px", "image", "m", "camera", (1000, 1000))
    assert int((~flat.valid).sum()) == 1
    assert "1 joint outside the image: missing in the pixels" in flat.notes
    np.testing.assert_allclose(flat.points[flat.valid], project(clip.points, camera)[flat.valid], atol=1e-3)
    np.testing.assert_allclose(to_world(deep.points, camera), clip.points, atol=1e-5)
    with pytest.raises(InputError, match="not a clip of the world"):
        see(deep, camera)


# ---------------------------------------------------------------- the root's place


def test_the_root_is_found_from_exact_pixels() -> None:
    rng = np.random.default_rng(0)
    camera = some_camera(0)
    pose = rng.normal(0, 0.3, (30, 17, 3))
    pose[:, 0] = 0
    root = rng.uniform((-0.5, -0.5, 3), (0.5, 0.5, 6), (30, 3))
    pixels = project(pose + root[:, None], camera, world=False)
    np.testing.assert_allclose(root_depth(pixels, pose, camera), root, atol=1e-6)
    valid = rng.random((30, 17)) > 0.4
    pixels[~valid] = 1e6
    np.testing.assert_allclose(root_depth(pixels, pose, camera, valid), root, atol=1e-6)


def test_the_root_from_noisy_pixels_beats_one_bone_and_scales_with_the_focal_length() -> None:
    rng = np.random.default_rng(1)
    camera = Camera((1000, 1000), (1145.0, 1145.0), (500.0, 500.0))
    pose = rng.normal(0, 0.3, (200, 17, 3))
    pose[:, 0] = 0
    root = rng.uniform((-0.5, -0.5, 3.5), (0.5, 0.5, 6), (200, 3))
    pixels = project(pose + root[:, None], camera, world=False) + rng.normal(0, 3, (200, 17, 2))
    found = root_depth(pixels, pose, camera)
    assert np.abs(found[:, 2] - root[:, 2]).mean() < 0.05
    assert np.abs(found[:, :2] - root[:, :2]).max() < 0.05
    # Flat poses far away: twice the focal length is twice the distance.
    pose[..., 2] = 0
    pixels = project(pose + root[:, None], camera, world=False)
    twice = Camera((1000, 1000), (2290.0, 2290.0), (500.0, 500.0))
    np.testing.assert_allclose(root_depth(pixels, pose, twice)[:, 2], 2 * root[:, 2], rtol=1e-6)


def test_a_root_that_nothing_tells_is_nan() -> None:
    camera = Camera((1000, 1000), (1145.0, 1145.0), (500.0, 500.0))
    pose = np.random.default_rng(0).normal(0, 0.3, (3, 17, 3))
    pixels = project(pose + np.array([0, 0, 4.0]), camera, world=False)
    valid = np.ones((3, 17), bool)
    valid[0] = False
    valid[1, 1:] = False
    found = root_depth(pixels, pose, camera, valid)
    assert np.isnan(found).all(1).tolist() == [True, True, False]
    same = np.full((1, 17, 2), 400.0)
    assert np.isnan(root_depth(same, np.zeros((1, 17, 3)), camera)).all(), "all joints on one ray"
    with pytest.raises(InputError, match="differ"):
        root_depth(pixels[:, :16], pose, camera)


# ---------------------------------------------------------------- detector-like faults


def test_noise_has_the_asked_for_strength_and_memory() -> None:
    still = np.full((3000, 17, 2), 500.0)
    for memory in (0.0, 0.8):
        seen = degrade(still, None, np.random.default_rng(0), NoiseLevel(5.0, memory=memory))
        error = seen.points.astype(np.float64) - 500
        assert error.std() == pytest.approx(5.0, rel=0.05)
        lag = (error[1:] * error[:-1]).mean() / error.var()
        assert lag == pytest.approx(memory, abs=0.03)
        assert seen.valid.all()
        assert (seen.missing, seen.strayed, seen.swapped) == (0, 0, 0)
    size = np.linalg.norm(error, axis=-1)
    assert np.corrcoef(size.ravel(), seen.confidence.ravel())[0, 1] < -0.5, "unsure where wrong"
    assert 0 <= seen.confidence.min() <= seen.confidence.max() <= 1


def test_missing_runs_strays_and_swaps_are_counted() -> None:
    level = NoiseLevel(2.0, jitter=0.05, stray=20.0, missing=0.1, run=6.0, swaps=0.1)
    points = np.zeros((4000, 17, 2))
    points[:, list(BODY.right)] = 700
    valid = np.random.default_rng(3).random((4000, 17)) > 0.05
    seen = degrade(points, valid, np.random.default_rng(0), level, BODY)
    again = degrade(points, valid, np.random.default_rng(0), level, BODY)
    assert (seen.points == again.points).all()
    assert not seen.points[~seen.valid].any()
    assert not seen.confidence[~seen.valid].any()
    lost = int(valid.sum()) - int(seen.valid.sum())
    assert seen.missing == lost
    assert lost / valid.sum() == pytest.approx(0.1, abs=0.015)
    assert seen.swapped / 4000 == pytest.approx(0.1, abs=0.03)
    # On paired joints: all are there in a frame of its own; exchanged where the left ones lie at 700.
    exchanged = np.array(
        [
            np.median(row[list(BODY.left)][ok[list(BODY.left)], 0]) > 350 if ok[list(BODY.left)].any() else False
            for row, ok in zip(seen.points, seen.valid, strict=True)
        ]
    )
    assert abs(int(exchanged.sum()) - seen.swapped) <= 2
    assert seen.strayed / seen.valid.sum() == pytest.approx(0.05, abs=0.005)
    full = degrade(points, None, np.random.default_rng(1), NoiseLevel(0.0, missing=0.1, run=6.0))
    starts = (~full.valid[1:] & full.valid[:-1]).sum()
    assert (~full.valid).sum() / starts == pytest.approx(6.0, rel=0.15), "frames a run"
    assert (full.points[full.valid] == points[full.valid]).all(), "no noise, no change"
    assert "joints lost" in full.notes[0]


def test_batches_and_refusals_of_noise() -> None:
    batch = degrade(np.zeros((3, 9, 17, 2)), None, np.random.default_rng(0), NoiseLevel(missing=0.2, memory=0.5))
    assert batch.points.shape == (3, 9, 17, 2)
    for bad in ({"missing": 1.0}, {"noise_px": -1.0}, {"memory": -0.1}, {"run": 0.5}, {"noise_px": math.nan}):
        with pytest.raises(InputError, match="no such noise"):
            NoiseLevel(**bad)
    with pytest.raises(InputError, match="not pixels"):
        degrade(np.zeros((9, 17, 3)), None, np.random.default_rng(0))
    with pytest.raises(InputError, match="valid does not fit"):
        degrade(np.zeros((9, 17, 2)), np.ones((8, 17), bool), np.random.default_rng(0))
    with pytest.raises(InputError, match="no sides"):
        degrade(np.zeros((9, 17, 2)), None, np.random.default_rng(0), NoiseLevel(swaps=0.1))
