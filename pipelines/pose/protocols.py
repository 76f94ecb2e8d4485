"""Human3.6M by its protocols: which subjects teach and which are measured, what its four real cameras saw of them.

A folder holds `data_3d_h36m.npz` (plain arrays, see :mod:`pipelines.data.datasets.pose_h36m`), `cameras.json`, and for
joints of a detector `data_2d_h36m_NAME.npz`. The data need a licence of their authors. With the two tables of cameras
that loaders of the field have, `inside` (a list) and `outside` (by subject), the cameras are written once by

    import json
    both = {s: [{**i, **o} if o else {} for i, o in zip(inside, outside[s])] for s in outside}
    json.dump(both, open("cameras.json", "w"))

Protocol 1 is MPJPE after the roots are laid over each other, protocol 2 P-MPJPE, protocol 3 N-MPJPE; every frame of S9
and S11 at 50 Hz counts. The field averages over actions.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.pose_cameras import project, to_camera
from pipelines.data.datasets.pose_conversion import convert
from pipelines.data.datasets.pose_h36m import CAMERAS, RATE, TEST, TRAIN, read_cameras, read_h36m, with_cameras
from pipelines.data.datasets.pose_noise import NoiseLevel, degrade
from pipelines.data.datasets.pose_skeletons import skeleton
from pipelines.data.datasets.pose_splits import hold_out_clips
from pipelines.data.datasets.pose_types import Camera, Clip
from pipelines.data.datasets.pose_windows import resample
from pipelines.errors import ConfigError, InputError
from pipelines.pose.calibration import calibrated
from pipelines.pose.material import View, identity, model_input
from pipelines.pose.options import SKELETON
from pipelines.training.randomness import derive_seed

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.pose.engine import Fitted
    from pipelines.pose.pipeline import PoseLifter

__all__ = ["NAME", "RealViews", "Seen", "Study", "fit_human36m", "human36m", "read_study", "view"]

NAME = "Human3.6M"
_POSES, _CAMERAS = "data_3d_h36m.npz", "cameras.json"
_CORRUPT = "S11/Directions"
_LINEAR = 8  # batches of 1,024 windows that the linear lifter is fitted on
_SPREAD = 16, 128  # views, and frames of each, that the uncertainty is calibrated on


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """A recording as one of the real cameras saw it.

    Attributes:
        clip: (T, J, 3) m, world frame.
        name: of the camera.
        camera: with its distortion.
        joints: (T, J, 2) px.
    """

    clip: Clip
    name: str
    camera: Camera
    joints: Clip


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """Recordings of some subjects by all of their cameras.

    Attributes:
        clips: the recordings, without those that are known to be wrong.
        seen: every recording by every camera of its subject.
        joints: where the 2-D joints come from, in words.
        left_out: recordings that are known to be wrong.
        notes: what was done, counted.
    """

    clips: list[Clip]
    seen: list[Seen]
    joints: str
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def subjects(self) -> tuple[str, ...]:
        """Whose recordings these are."""
        return tuple(dict.fromkeys(clip.subject for clip in self.clips))


def human36m(data: Any) -> Path | None:
    """The folder of Human3.6M that is meant, by the file that it holds; None for everything else.

    Example:
        >>> human36m("motions") is None
        True
    """
    if not isinstance(data, (str, Path)) or not Path(data).is_dir():
        return None
    return Path(data) if (Path(data) / _POSES).is_file() else None


def read_study(m: PoseLifter, folder: Path, subjects: tuple[str, ...]) -> Study:
    """The recordings of the subjects, and what each camera saw: exact projections, or what a detector found.

    Args:
        m: says whose joints (``detections``), and the frame rate.
        folder: see the module.
        subjects: no other one is looked at.

    Raises:
        InputError: files that are missing or damaged; joints that do not fit the recordings.

    Complexity: O(frames x cameras).
    """
    every = read_h36m(folder / _POSES, subjects=subjects, keep_corrupt=True)
    clips = [clip for clip in every if f"{clip.subject}/{clip.action}" != _CORRUPT]
    left_out = tuple(clip.name for clip in every if f"{clip.subject}/{clip.action}" == _CORRUPT)
    notes = [f"{name} is not used: its positions are known to be wrong" for name in left_out]
    gone = [subject for subject in subjects if subject not in {clip.subject for clip in clips}]
    if gone:
        notes.append(f"{', '.join(gone)} not in {_POSES}: the rest of the protocol's subjects alone")
    if not clips:
        raise InputError("no recording of these subjects", where=folder / _POSES, expected=", ".join(subjects))
    if not (folder / _CAMERAS).is_file():
        raise InputError("the cameras are missing", where=folder, expected=_CAMERAS,
                         cure="the module pipelines.pose.protocols has the lines that write it")  # fmt: skip
    pairs = [(one, _camera_name(one)) for one in with_cameras(clips, read_cameras(folder / _CAMERAS))]
    by_name = {clip.name: clip for clip in clips}
    found = _detected(m.detections, folder, subjects) if m.detections is not None else None
    longer, outside, seen = 0, 0, list[Seen]()
    for one, name in pairs:
        clip = by_name[one.name.removesuffix(f"/{name}")]
        if one.camera is None:
            continue
        if found is None:
            joints = _projected(clip, one.camera, name)
            inside = (joints.points >= 0).all(-1) & (joints.points <= np.array(one.camera.size)).all(-1)
            outside += int((joints.valid & ~inside).sum())
        else:
            joints, cut = _matching(found, clip, name, str(m.detections))
            longer += cut
        seen.append(Seen(clip, name, one.camera, joints))
    notes += [f"{longer:,} frames of detections after the last one of their recordings not used"] if longer else []
    notes += [f"{outside:,} projected joints lie outside of the image, and are kept"] if outside else []
    joints = "exact projections" if found is None else f"detections {m.detections}"
    return _at_rate(m, Study(clips, seen, joints, left_out, tuple(notes)))


def _camera_name(clip: Clip) -> str:
    return clip.name.rpartition("/")[2]


def _at_rate(m: PoseLifter, study: Study) -> Study:
    """The study at the model's frame rate."""
    if m.fps == RATE:
        return study
    slow = {id(clip): resample(clip, m.fps) for clip in study.clips}
    seen = [dataclasses.replace(one, clip=slow[id(one.clip)], joints=resample(one.joints, m.fps)) for one in study.seen]
    note = f"resampled from {RATE:g} to {m.fps:g} Hz, the model's frame rate: the protocols count every frame at 50 Hz"
    return dataclasses.replace(study, clips=list(slow.values()), seen=seen, notes=(*study.notes, note))


def _projected(clip: Clip, camera: Camera, name: str) -> Clip:
    """Where the joints are in the image; none where they are behind the camera or too far aside to be told."""
    pixels = project(clip.points, camera)
    there = clip.valid & np.isfinite(pixels).all(-1)
    points = np.where(there[..., None], pixels, 0.0).astype(np.float32)
    return Clip(f"{clip.name}/{name}", points, there, clip.skeleton, clip.fps, "px", "image", size=camera.size,
                subject=clip.subject, action=clip.action)  # fmt: skip


def _detected(name: str, folder: Path, subjects: tuple[str, ...]) -> dict[tuple[str, str, str], Clip]:
    """(subject, action, camera) -> joints in the image, on the house skeleton."""
    path = folder / f"data_2d_h36m_{name}.npz"
    if not re.fullmatch(r"[\w.+-]+", name) or not path.is_file():
        known = sorted(one.stem.removeprefix("data_2d_h36m_") for one in folder.glob("data_2d_h36m_*.npz"))
        raise InputError("no such detections", where=f"detections {name!r}", found=f"no {path.name} in {folder}",
                         expected=", ".join(known) or "a file of them",
                         cure="leave detections out for exact projections")  # fmt: skip
    clips = read_h36m(path, subjects=subjects, keep_corrupt=True)
    flat = [clip for clip in clips if clip.dims == 2]
    if len(flat) < len(clips):
        raise InputError("3-D joints where those of images are needed", where=path.name)
    out: dict[tuple[str, str, str], Clip] = {}
    for clip in flat:
        camera = _camera_name(clip)
        # Detectors that were not taught on these data answer in the order of COCO, with as many joints.
        if name.endswith("coco"):
            clip = convert(clip.but(skeleton=skeleton("coco17")), SKELETON)
        out[clip.subject, clip.action, list(CAMERAS)[int(camera)] if len(camera) == 1 else camera] = clip
    return out


def _matching(found: dict[tuple[str, str, str], Clip], clip: Clip, camera: str, name: str) -> tuple[Clip, int]:
    """The detections of a recording, cut to its length; and how many frames were cut."""
    where = f"data_2d_h36m_{name}.npz"
    joints = found.get((clip.subject, clip.action, camera))
    if joints is None:
        raise InputError("a recording without detections", where=where, found=f"no {clip.name}/{camera}",
                         expected="all recordings of the protocol by all cameras")  # fmt: skip
    if joints.frames < clip.frames:
        raise InputError("fewer frames than the recording", where=f"{where}, {joints.name}", found=joints.frames,
                         expected=clip.frames)  # fmt: skip
    sure = None if joints.confidence is None else joints.confidence[: clip.frames]
    cut = joints.but(points=joints.points[: clip.frames], valid=joints.valid[: clip.frames], confidence=sure)
    return cut, joints.frames - clip.frames


def view(m: PoseLifter, one: Seen) -> View:
    """A recording as one camera saw it, with the noise that the options add, and the truth in that camera's axes."""
    joints, notes = one.joints, tuple[str, ...]()
    number = list(CAMERAS).index(one.name)
    if m.views.noise_px or m.views.missing:
        generator = np.random.default_rng(derive_seed(m.seed, identity(one.clip) & 0x7FFFFFFF, number))
        level = NoiseLevel(noise_px=m.views.noise_px, missing=m.views.missing)
        worse = degrade(joints.points, joints.valid, generator, level)
        joints, notes = joints.but(points=worse.points, valid=worse.valid, confidence=None), tuple(worse.notes)
    points = to_camera(one.clip.points, one.camera)
    root = one.clip.skeleton.root
    return View(one.clip, number, joints, (points - points[:, root : root + 1]).astype(np.float32), notes)


class RealViews:
    """So many windows an epoch, drawn for (seed, epoch, example) from what real cameras saw.

    Bodies and speeds are as they were recorded; a share of the windows is mirrored.

    Args:
        m: the pipeline.
        seen: that is drawn from.
        count: windows of an epoch.
        changed: whether windows are mirrored, and drawn anew in each epoch.
    """

    def __init__(self, m: PoseLifter, seen: Sequence[Seen], count: int, *, changed: bool) -> None:
        self.count, self.changed, self.frames = count, changed, m.frames
        self.mirror = m.motion.mirror if changed else 0.0
        sizes = np.array([one.clip.frames for one in seen], np.int64)
        self._ends, self._starts = np.cumsum(sizes), np.cumsum(sizes) - sizes
        self._joints = np.concatenate([model_input(one.joints)[0] for one in seen])
        clips = list({id(one.clip): one.clip for one in seen}.values())
        first = dict(zip(map(id, clips), np.cumsum([0, *(clip.frames for clip in clips)]).tolist(), strict=False))
        self._bodies = np.concatenate([clip.points for clip in clips])
        self._known = np.concatenate([clip.valid for clip in clips])
        self._body_starts = np.array([first[id(one.clip)] for one in seen], np.int64)
        self._turns = np.stack([one.camera.rotation for one in seen])
        self._place = (0, 0)

    def __len__(self) -> int:
        return self.count

    def set_epoch(self, seed: int, epoch: int) -> None:
        """Windows are drawn for (seed, epoch, example)."""
        self._place = (seed, epoch if self.changed else 0)

    def draw(self, count: int, seed: int) -> dict[str, NDArray[Any]]:
        """Random windows: x (N, T, J, 3), y (N, J, 3) m relative to the root in the camera's axes, known (N, J).

        Complexity: O(N T J).
        """
        generator = np.random.default_rng(seed)
        tree = skeleton(SKELETON)
        pick = generator.integers(0, self._ends[-1], count)
        which = np.searchsorted(self._ends, pick, side="right")
        start, own = self._starts[which], pick - self._starts[which]
        steps = np.arange(self.frames) - self.frames // 2
        last = self._ends[which] - start - 1
        x = self._joints[start[:, None] + np.clip(own[:, None] + steps, 0, last[:, None])]
        body = self._bodies[self._body_starts[which] + own].astype(np.float64)
        known = self._known[self._body_starts[which] + own]
        y = np.einsum("nij,nkj->nki", self._turns[which], body - body[:, tree.root : tree.root + 1])
        turned = generator.random(count) < self.mirror
        other = list(tree.mirror)
        flip = np.array([-1.0, 1.0, 1.0])
        x = np.where(turned[:, None, None, None], x[:, :, other] * flip, x)
        y = np.where(turned[:, None, None], y[:, other] * flip, y)
        known = np.where(turned[:, None], known[:, other], known)
        known = known & known[:, tree.root : tree.root + 1]
        return {"x": x.astype(np.float32), "y": np.where(known[..., None], y, 0.0).astype(np.float32), "known": known}

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        import torch

        found = self.draw(len(indices), derive_seed(*self._place, int(min(indices)), len(indices)))
        return {name: torch.from_numpy(values) for name, values in found.items()}


def fit_human36m(m: PoseLifter, folder: Path) -> Fitted:
    """Train a lifter on S1, S5, S6, S7 and S8 as the real cameras saw them; S9 and S11 are never opened.

    Raises:
        ConfigError: another frame rate than that of the recordings, or other subjects to measure.
        InputError: files that are missing or damaged.
    """
    import torch

    from pipelines.pose import engine
    from pipelines.pose.baselines import MeanPose
    from pipelines.pose.models.linear import fit_linear
    from pipelines.pose.options import known_model
    from pipelines.pose.training import pose_loss
    from pipelines.training.fitting import fit_module

    if m.fps != RATE:
        raise ConfigError(f"{NAME} is learned from at its own frame rate", where="fps", found=m.fps, expected=RATE,
                          cure=f"--fps {RATE:g}")  # fmt: skip
    if m.split.test and set(m.split.test) != set(TEST):
        raise ConfigError(f"{NAME} says who is measured", where="split.test", found=", ".join(m.split.test),
                          expected=", ".join(TEST), cure="leave it out")  # fmt: skip
    study = read_study(m, folder, TRAIN)
    rest, held, notes = _choosing(m, study)
    torch.manual_seed(m.seed)
    module = engine.build(m)
    train = RealViews(m, rest, m.motion.windows, changed=True)
    valid = RealViews(m, held, max(1, m.motion.windows // 8), changed=False) if held else None
    m.run.say(f"{len(rest)} views of {NAME} to learn from, {len(held)} to choose the epoch")
    rate = known_model(m.model).learning_rate
    result = fit_module(m, module, pose_loss, train, valid, default_lr=rate)  # type: ignore[arg-type]
    module.eval()
    batches = [train.draw(1024, derive_seed(m.seed, 77, number)) for number in range(_LINEAR)]
    linear = fit_linear(((one["x"], one["y"], one["known"]) for one in batches), window=1, mask=True)
    mean = MeanPose.fit([(one["y"], one["known"]) for one in batches]).points
    ours = [list({id(one.clip): one.clip for one in part}.values()) for part in (rest, held)]
    numbers = [torch.tensor([identity(clip) for clip in part]).long() for part in ours]
    training = dataclasses.asdict(result)
    training |= {"clips": len(ours[0]), "frames": sum(one.joints.frames for one in rest), "protocol": NAME}
    training |= {"subjects": list(study.subjects), "joints": study.joints}
    fitted = engine.Fitted(m.model, module, m.fps, linear, np.asarray(mean, np.float32), torch.zeros(18), training,
                           numbers[0], numbers[1])  # fmt: skip
    fitted.spread = torch.from_numpy(_spread(m, fitted, held or rest))
    fitted.notes = (*study.notes, *notes)
    return fitted


def _choosing(m: PoseLifter, study: Study) -> tuple[list[Seen], list[Seen], list[str]]:
    """Views to learn from and views that choose the epoch: of whole recordings, with all of their cameras."""
    notes = [f"{NAME}: learned from {', '.join(study.subjects)} by {study.joints}; S9 and S11 were not opened"]
    notes.append("bodies and speeds are as recorded, since real cameras saw them so; windows are mirrored")
    if not m.split.valid or len(study.clips) < 2:
        return study.seen, [], notes
    _, out, said = hold_out_clips(study.clips, m.split.valid, m.seed + 1, "clip")
    notes += [f"to choose the epoch: {note}" for note in said]
    held = {id(clip) for clip in out}
    parts = [[one for one in study.seen if (id(one.clip) in held) == wanted] for wanted in (False, True)]
    return parts[0], parts[1], notes


def _spread(m: PoseLifter, fitted: Fitted, seen: Sequence[Seen]) -> NDArray[np.float32]:
    """How sure the answers are, from some frames of some views."""
    import torch

    from pipelines.pose import engine

    # With these numbers the stated error is the distance between the answers to a picture and to its mirror image.
    fitted.spread = torch.tensor([0.0] * 17 + [1.0])
    count, frames = _SPREAD
    found: list[tuple[NDArray[Any], ...]] = []
    for place in np.unique(np.linspace(0, len(seen) - 1, count).astype(int)):
        one = view(m, seen[place])
        low = max(0, one.clip.frames // 2 - frames // 2)
        part = slice(low, low + frames)
        points, apart = engine.lift(m, fitted, model_input(one.joints)[0][part])
        known = one.clip.valid[part] & one.clip.valid[part][:, :1]
        found.append((1000 * np.linalg.norm(points - one.truth[part], axis=-1), apart, known))
    error, apart, known = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return calibrated(error, apart, known)
