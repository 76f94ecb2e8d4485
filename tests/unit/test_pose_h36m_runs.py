"""Human3.6M through the pipeline, on a small folder in its layout: who teaches, who is measured, by which cameras."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipelines import PoseLifter
from pipelines.data.datasets.pose_deepmimic import motion_clips
from pipelines.data.datasets.pose_h36m import TEST, TRAIN, read_h36m
from pipelines.data.datasets.pose_windows import resample
from pipelines.errors import ConfigError, InputError, NothingToMeasure
from pipelines.pose import engine
from pipelines.pose.material import identity, model_input
from pipelines.pose.metrics import mpjpe, n_mpjpe, p_mpjpe
from pipelines.pose.options import ArchOptions, MotionOptions, SplitOptions, ViewOptions
from pipelines.pose.protocols import RealViews, human36m, read_study, view
from pipelines.training.options import TrainOptions

#: Places of the 17 joints among the 32 of the data set.
KEPT = [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]
SMALL: dict[str, Any] = {
    "frames": 3,
    "fps": 50.0,
    "arch": ArchOptions(dim=8, spatial_layers=1, temporal_layers=1, kernels=(3,), heads=2),
    "motion": MotionOptions(windows=256),
    "split": SplitOptions(valid=0.2),
    "train": TrainOptions(epochs=1, batch_size=64, patience=0),
    "threads": 1,
}
#: Recordings of each subject: name -> motion of the embedded ones.
ACTIONS = {"Walking": "walk", "Walking 1": "run", "Directions": "punch", "Directions 1": "kick"}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def camera_file() -> dict[str, Any]:
    """Four cameras about 5 m from the middle of a room, as the field's tables have them (mm, own orientation)."""
    cameras = []
    for yaw, size in ((20, 1002), (110, 1000), (200, 1000), (290, 1002)):
        angle = np.deg2rad(yaw)
        away = np.array([np.cos(angle), np.sin(angle), 0.1])
        forward = -away / np.linalg.norm(away)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        axes = np.stack([right, np.cross(forward, right), forward])  # rows: world to camera
        x, y, z, w = Rotation.from_matrix(axes.T).as_quat().tolist()
        place = 5000 * away + [0.0, 0.0, 900.0]
        cameras.append({"orientation": [w, x, y, z], "translation": place.tolist(), "focal_length": [1145.0, 1144.0],
                        "center": [512.0, size / 2 + 10], "radial_distortion": [-0.2, 0.24, -0.002],
                        "tangential_distortion": [-9e-4, -1.6e-3]})  # fmt: skip
    return dict.fromkeys((*TRAIN, *TEST, "S2"), cameras)


def make(folder: pathlib.Path) -> pathlib.Path:
    """Subjects of different sizes who move alike, in the layout of the data set."""
    motions = {clip.action: resample(clip, 50.0) for clip in motion_clips()}
    held: dict[str, NDArray[Any]] = {}
    for number, subject in enumerate((*TRAIN, *TEST, "S2")):
        for name, action in ACTIONS.items():
            points = motions[action].points[: 60 + 5 * number] * (0.9 + 0.03 * number)
            points[..., :2] -= points[:1, :1, :2]
            full = np.zeros((len(points), 32, 3), np.float32)
            full[:, KEPT] = points
            held[f"{subject}/{name}"] = full
    folder.mkdir(parents=True)
    np.savez_compressed(folder / "data_3d_h36m.npz", **held)  # pyright: ignore[reportArgumentType]
    (folder / "cameras.json").write_text(json.dumps(camera_file()))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return make(tmp_path_factory.mktemp("human") / "h36m")


@pytest.fixture(scope="module")
def fitted(folder: pathlib.Path) -> PoseLifter:
    return PoseLifter(**SMALL).fit(folder)


def write_detections(folder: pathlib.Path, name: str, *, extra: int = 0, off: float = 0.0) -> None:
    """Joints of all images, as many frames longer, and so far beside the exact ones."""
    held: dict[str, NDArray[Any]] = {}
    for subjects in (TRAIN, TEST):
        for one in read_study(PoseLifter(**SMALL), folder, subjects).seen:
            number = [54138969, 55011271, 58860488, 60457274].index(int(one.name))
            points = np.concatenate([one.joints.points, *[one.joints.points[-1:]] * extra]) + off
            held[f"{one.clip.subject}/{one.clip.action}/{number}"] = points.astype(np.float32)
    np.savez_compressed(folder / f"data_2d_h36m_{name}.npz", **held)  # pyright: ignore[reportArgumentType]


# What is seen ---------------------------------------------------------------------------------------------------------


def test_the_real_cameras_see_what_they_must(folder: pathlib.Path) -> None:
    study = read_study(PoseLifter(**SMALL), folder, TEST)
    assert study.subjects == ("S9", "S11")
    assert len(study.clips) == 7
    assert len(study.seen) == 28
    assert study.left_out == ("S11/Directions",)
    assert any("S11/Directions is not used" in note for note in study.notes)
    table = camera_file()["S9"]
    for one in study.seen[:8]:
        given = table[[54138969, 55011271, 58860488, 60457274].index(int(one.name))]
        w, x, y, z = given["orientation"]
        # Independent of the library: scipy turns, and the distortion is written out.
        moved = one.clip.points.astype(np.float64) - np.array(given["translation"]) / 1000
        there = Rotation.from_quat([x, y, z, w]).inv().apply(moved.reshape(-1, 3)).reshape(moved.shape)
        assert (there[..., 2] > 1).all()
        across, down = there[..., 0] / there[..., 2], there[..., 1] / there[..., 2]
        r2 = across**2 + down**2
        (k1, k2, k3), (p1, p2) = given["radial_distortion"], given["tangential_distortion"]
        radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
        u = across * radial + 2 * p1 * across * down + p2 * (r2 + 2 * across**2)
        v = down * radial + p1 * (r2 + 2 * down**2) + 2 * p2 * across * down
        pixels = np.stack([u * 1145.0 + 512.0, v * 1144.0 + given["center"][1]], -1)
        assert np.abs(one.joints.points - pixels).max() < 2e-3
        assert np.allclose(view(PoseLifter(), one).truth, there - there[:, :1], atol=1e-5)
        assert one.joints.size == (1000, 1002 if one.name in ("54138969", "60457274") else 1000)


def test_windows_are_of_one_view_and_their_mirror(folder: pathlib.Path) -> None:
    m = PoseLifter(**{**SMALL, "motion": MotionOptions(windows=64, mirror=0.0)})
    seen = read_study(m, folder, ("S1",)).seen
    plain = RealViews(m, seen, 64, changed=True).draw(64, 3)
    every = np.concatenate([model_input(one.joints)[0] for one in seen])
    truth = np.concatenate([view(m, one).truth for one in seen])
    first = {one.name + one.clip.name: model_input(one.joints)[0] for one in seen}
    for x, y in zip(plain["x"], plain["y"], strict=True):
        at = int(np.abs(every - x[1]).max((1, 2)).argmin())
        assert np.allclose(every[at], x[1])
        assert np.allclose(truth[at], y, atol=1e-5)
        own = next(joints for joints in first.values() if np.abs(joints - x[1]).max((1, 2)).min() < 1e-6)
        place = int(np.abs(own - x[1]).max((1, 2)).argmin())
        assert np.allclose(x[0], own[max(0, place - 1)])
        assert np.allclose(x[2], own[min(len(own) - 1, place + 1)])
    mirrored = RealViews(m.clone(motion={"mirror": 1.0}), seen, 64, changed=True).draw(64, 3)
    swap = [0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13]
    assert np.allclose(mirrored["x"][..., 0], -plain["x"][:, :, swap, 0])
    assert np.allclose(mirrored["y"][..., 1:], plain["y"][:, swap, 1:])


def test_detections_are_taken_and_cut(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    other = make(tmp_path / "h")
    write_detections(other, "gt", extra=3, off=2.0)
    m = PoseLifter(**SMALL, detections="gt")
    exact, found = read_study(PoseLifter(**SMALL), other, TEST), read_study(m, other, TEST)
    assert found.joints == "detections gt"
    assert any("84 frames of detections" in note for note in found.notes)  # 28 views, 3 frames each
    for one, two in zip(exact.seen, found.seen, strict=True):
        assert np.allclose(two.joints.points - one.joints.points, 2.0, atol=1e-3)
        assert two.joints.frames == two.clip.frames
    with pytest.raises(InputError, match=r"no such detections.*cpn.*Expected: gt"):
        read_study(m.clone(detections="cpn"), other, TEST)
    with pytest.raises(InputError, match=r"no such detections"):
        read_study(m.clone(detections="../data_2d"), other, TEST)
    with np.load(other / "data_2d_h36m_gt.npz") as held:
        arrays = {name: held[name] for name in held.files}
    short = {name: value[:40] if name == "S9/Walking/2" else value for name, value in arrays.items()}
    np.savez(other / "data_2d_h36m_short.npz", **short)
    with pytest.raises(InputError, match=r"S9/Walking/2: fewer frames than the recording.*40"):
        read_study(m.clone(detections="short"), other, TEST)
    np.savez(other / "data_2d_h36m_few.npz", **{"S9/Walking/2": arrays["S9/Walking/2"]})
    with pytest.raises(InputError, match=r"a recording without detections"):
        read_study(m.clone(detections="few"), other, TEST)


# Who teaches, who is measured -----------------------------------------------------------------------------------------


def test_only_the_five_subjects_teach(folder: pathlib.Path, fitted: PoseLifter) -> None:
    state = fitted.state
    known = set(state.trained.tolist()) | set(state.held.tolist())
    clips = read_h36m(folder / "data_3d_h36m.npz", keep_corrupt=True)
    taught = {clip.name for clip in clips if identity(clip) in known}
    assert taught == {clip.name for clip in clips if clip.subject in TRAIN}
    assert len(state.held) == 4  # a fifth of twenty recordings, with all of their cameras
    assert state.training["protocol"] == "Human3.6M"
    assert state.training["subjects"] == list(TRAIN)
    assert any("S9 and S11 were not opened" in note for note in state.notes)
    assert (state.spread.numpy() > 0).all() or state.spread[-1] == 0


def test_the_test_subjects_teach_nothing(folder: pathlib.Path, fitted: PoseLifter, tmp_path: pathlib.Path) -> None:
    """Whatever S9 and S11 do, the weights are the same."""
    other = make(tmp_path / "h")
    with np.load(other / "data_3d_h36m.npz") as held:
        arrays = {name: held[name] for name in held.files if not name.startswith("S11")}
    changed = {name: value[::-1] * 0.5 if name.startswith("S9") else value for name, value in arrays.items()}
    np.savez(other / "data_3d_h36m.npz", **changed)
    again = PoseLifter(**SMALL).fit(other)
    for name, value in fitted.state.module.state_dict().items():
        assert torch.equal(value, again.state.module.state_dict()[name]), name


def test_three_protocols_by_action_and_over_frames(folder: pathlib.Path, fitted: PoseLifter) -> None:
    found = fitted.evaluate(folder)
    for words in ("Human3.6M protocols 1 (mpjpe", "2 (p_mpjpe", "3 (n_mpjpe", "S9, S11", "4 real cameras",
                  "exact projections", "every frame at 50 Hz", "without S11/Directions"):  # fmt: skip
        assert words in found.protocol
    assert found.counts["clips"] == 7
    assert found.counts["cameras"] == 4
    study = read_study(fitted, folder, TEST)
    assert found.counts["frames"] == 4 * sum(clip.frames for clip in study.clips)
    by: dict[str, list[tuple[NDArray[Any], NDArray[Any]]]] = {}
    for one in study.seen:
        points = engine.lift(fitted, fitted.state, model_input(one.joints)[0])[0]
        by.setdefault(one.clip.action.split()[0], []).append((points, view(fitted, one).truth))
    assert set(by) == {"Walking", "Directions"}
    for name, figure in (("mpjpe", mpjpe), ("p_mpjpe", p_mpjpe), ("n_mpjpe", n_mpjpe)):
        own = {}
        for action, pairs in by.items():
            said, true = (np.concatenate(part) for part in zip(*pairs, strict=True))
            own[action] = figure(said, true)
            assert found.details["by_action"][action][name] == pytest.approx(own[action])
        assert found.metrics[f"{name}_actions"] == pytest.approx(np.mean(list(own.values())))
        every = [np.concatenate(part) for part in zip(*(pair for pairs in by.values() for pair in pairs), strict=True)]
        assert found.metrics[name] == pytest.approx(figure(every[0], every[1]))
        assert found.metrics[name] != pytest.approx(found.metrics[f"{name}_actions"])
    assert set(found.baselines) == {"linear", "mean"}
    assert "mpjpe_actions" in found.baselines["mean"]
    rows = [row[0] for row in found.tables[0].rows]
    assert rows == ["Walking", "Directions", "mean over actions", "all frames"]
    assert found.details["protocol"]["left_out"] == ["S11/Directions"]
    low, high = found.intervals["mpjpe_actions"]
    assert low < found.metrics["mpjpe_actions"] < high


def test_a_part_of_the_protocol_is_called_so(folder: pathlib.Path, fitted: PoseLifter) -> None:
    part = fitted.clone(split=SplitOptions(only=("Directions",)), views=ViewOptions(noise_px=5.0))
    part._state, part._fitted = fitted.state, True
    found = part.evaluate(folder)
    assert found.counts["clips"] == 3
    assert any("not the whole protocol" in note for note in found.notes)
    assert "5 px of noise" in found.protocol
    part.split = SplitOptions(only=("Juggling",))
    with pytest.raises(NothingToMeasure, match="Juggling"):
        part.evaluate(folder)


def test_a_model_that_has_seen_a_test_subject_is_refused(folder: pathlib.Path) -> None:
    clips = read_h36m(folder / "data_3d_h36m.npz", subjects=("S1", "S9"))
    leaked = PoseLifter(**{**SMALL, "motion": MotionOptions(windows=64), "split": SplitOptions(test=("S1",))})
    leaked.fit([clip for clip in clips if clip.subject == "S1" or clip.action == "Walking 1"])
    with pytest.raises(InputError, match=r"has learned from what Human3.6M measures"):
        leaked.evaluate(folder)


def test_a_model_of_other_motion_is_measured_and_it_is_said(folder: pathlib.Path, lifter_folder: pathlib.Path) -> None:
    found = PoseLifter.load(lifter_folder, threads=1).evaluate(folder)
    assert any("did not learn from Human3.6M" in note for note in found.notes)
    assert any("resampled from 50 to 30 Hz" in note for note in found.notes)
    assert "every frame at 30 Hz" in found.protocol


def test_what_does_not_fit_is_refused(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match=r"at its own frame rate.*30.*--fps 50"):
        PoseLifter(**{**SMALL, "fps": 30.0}).fit(folder)
    with pytest.raises(ConfigError, match=r"says who is measured.*S1"):
        PoseLifter(**{**SMALL, "split": SplitOptions(test=("S1",))}).fit(folder)
    other = make(tmp_path / "h")
    (other / "cameras.json").unlink()
    with pytest.raises(InputError, match=r"the cameras are missing.*pipelines.pose.protocols"):
        PoseLifter(**SMALL).fit(other)
    (other / "cameras.json").write_text(json.dumps({"S1": camera_file()["S1"]}))
    with pytest.raises(InputError, match=r"a subject without cameras.*S5"):
        PoseLifter(**SMALL).fit(other)
    np.savez(other / "data_3d_h36m.npz", positions_3d=np.array({"S1": {}}, dtype=object))
    with pytest.raises(InputError, match=r"pickled Python objects"):
        PoseLifter(**SMALL).fit(other)
    assert human36m(tmp_path) is None
    assert human36m(other) == other
