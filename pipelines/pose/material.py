"""Whatever a user calls motion or joints: clips on one skeleton at one frame rate, and what cameras see of them."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.pose_cameras import ViewRange, draw_views, normalise
from pipelines.data.datasets.pose_conversion import convert
from pipelines.data.datasets.pose_noise import NoiseLevel, degrade
from pipelines.data.datasets.pose_open import open_poses
from pipelines.data.datasets.pose_splits import hold_out_clips, split_clips
from pipelines.data.datasets.pose_types import Clip
from pipelines.data.datasets.pose_windows import resample
from pipelines.errors import InputError
from pipelines.pose.options import SKELETON
from pipelines.training.randomness import derive_seed

if TYPE_CHECKING:
    from pipelines.pose.pipeline import PoseLifter

__all__ = ["Parts", "View", "followed", "identity", "joints_of", "motion_of", "parts_of", "ranges_of", "view_of"]

_CMU = re.compile(r"\d+_\d+\.bvh$")


@dataclasses.dataclass(frozen=True)
class Parts:
    """Clips that are learned from, that choose the epoch, that are measured; and what to say of them."""

    train: list[Clip]
    valid: list[Clip]
    test: list[Clip]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """A measured clip as one camera sees it.

    Attributes:
        clip: that is seen.
        camera: its number.
        joints: (T, J, 2) px, 2-D clip.
        truth: (T, J, 3) m, relative to the root, axes of the camera.
        notes: of cameras and noise.
    """

    clip: Clip
    camera: int
    joints: Clip
    truth: NDArray[np.float32]
    notes: tuple[str, ...]


def identity(clip: Clip) -> int:
    """A number for a motion, whatever its name and place: of its joints to the millimetre.

    Example:
        >>> from pipelines.data.datasets.pose_skeletons import skeleton
        >>> body = np.random.default_rng(0).normal(size=(5, 17, 3))
        >>> one, other = (Clip.of(name, body, skeleton("h36m17")) for name in "ab")
        >>> identity(one) == identity(other)
        True
    """
    rounded = np.round(np.where(clip.valid[..., None], clip.points, 0.0) * 1000).astype(np.int32)
    return int.from_bytes(hashlib.sha256(rounded.tobytes()).digest()[:8], "little", signed=True)


def motion_of(m: PoseLifter, data: Any) -> tuple[list[Clip], list[str]]:
    """3-D clips on the house skeleton at the pipeline's frame rate, in the world's axes; and what was done.

    Raises:
        InputError: nothing that is motion in space.
    """
    from pipelines.data.catalog import is_name

    notes: list[str] = []
    if isinstance(data, str) and not Path(data).exists() and is_name(data, "pose"):
        from pipelines.data.datasets.pose_deepmimic import motion_clips

        clips: list[Clip] = list(motion_clips())
    elif isinstance(data, (str, Path)) and _is_cmu(Path(data)):
        from pipelines.data.datasets.pose_cmu import read_cmu

        study = read_cmu(data, fps=m.fps if 120 % m.fps == 0 else 30.0)
        clips, notes = list(study.clips), list(study.notes)
    else:
        clips = open_poses(data, m.read, mixed=True)
    flat = [clip.name for clip in clips if clip.dims != 3]
    if flat:
        raise InputError("joints of images where motion in space is needed", where=flat[0], found="2 coordinates",
                         expected="motion capture: BVH, C3D, ASF/AMC, arrays (T, J, 3)")  # fmt: skip
    found = []
    for clip in clips:
        if clip.frame != "world":
            raise InputError("motion in a camera's axes", where=clip.name, found=clip.frame, expected="z up")
        one = convert(clip, SKELETON) if clip.skeleton.name != SKELETON else clip
        found.append(one if one.fps is None or one.fps == m.fps else resample(one, m.fps))
    unknown = sum(clip.fps is None for clip in found)
    if unknown:
        notes.append(f"{unknown} clips do not tell their frame rate: taken to be {m.fps:g} Hz")
    notes += list(dict.fromkeys(note for clip in found for note in clip.notes))[:12]
    return found, notes


def _is_cmu(path: Path) -> bool:
    """Whether a folder or archive is of the CMU database by its names."""
    if path.is_dir():
        return any(_CMU.search(one.name) for one in path.rglob("*.bvh"))
    return path.is_file() and path.name.lower().startswith("cmu") and ".tar" in path.name.lower()


def joints_of(m: PoseLifter, inputs: Any) -> list[Clip]:
    """2-D clips as they were read, of any skeleton.

    Raises:
        InputError: nothing that is joints of images.
    """
    given = inputs[0] if isinstance(inputs, (list, tuple)) and len(inputs) == 1 else inputs
    clips = open_poses(given, m.read)
    deep = [clip.name for clip in clips if clip.dims == 3]
    if deep:
        raise InputError("poses in space where joints of images are needed", where=deep[0], found="3 coordinates",
                         expected="keypoints of a detector", cure="evaluate measures motion")  # fmt: skip
    return clips


def parts_of(m: PoseLifter, clips: Sequence[Clip]) -> Parts:
    """Which clips are learned from, which choose the epoch, which are measured.

    Raises:
        InputError: no such subject, or nothing is left to learn from.
    """
    split, notes = m.split, list[str]()
    by: Any = split.by
    if by == "auto":
        by = "subject" if all(clip.subject for clip in clips) and len({clip.subject for clip in clips}) > 1 else "clip"
    rest, test = list(clips), list[Clip]()
    if split.test:
        rest, test, said = split_clips(clips, split.test, by)
        notes += said
    elif split.share > 0 and len(clips) > 1:
        rest, test, said = hold_out_clips(clips, split.share, m.seed, by)
        notes += said
    valid: list[Clip] = []
    if split.valid > 0 and len(rest) > 1:
        rest, valid, said = hold_out_clips(rest, split.valid, m.seed + 1, "clip")
        notes += [f"to choose the epoch: {note}" for note in said]
    return Parts(rest, valid, test, tuple(notes))


def ranges_of(m: PoseLifter) -> ViewRange:
    """The cameras that the options describe."""
    v = m.views
    return ViewRange(size=v.size, focal=v.focal, distance=v.distance, pitch=v.pitch)


def followed(points: NDArray[Any], root: int = 0) -> NDArray[Any]:
    """Motion (..., T, J, 3) as a camera sees it that moves along with the root above the floor.

    Example:
        >>> walk = np.zeros((2, 1, 3)); walk[1] = [1.0, 2.0, 3.0]
        >>> followed(walk)[1].tolist()
        [[0.0, 0.0, 3.0]]
    """
    moved = points.copy()
    moved[..., :2] -= points[..., root : root + 1, :2]
    return moved


def view_of(m: PoseLifter, clip: Clip, camera: int) -> View:
    """What one random camera sees of a clip; the same for the same seed, clip and number."""
    generator = np.random.default_rng(derive_seed(m.seed, identity(clip) & 0x7FFFFFFF, camera))
    points = followed(clip.points.astype(np.float64)) if m.views.follow else clip.points.astype(np.float64)
    views = draw_views(points[None], generator, clip.valid[None], ranges_of(m))
    pixels, inside = views.pixels[0].astype(np.float32), views.inside[0]
    notes = list(views.notes)
    if m.views.noise_px or m.views.missing:
        level = NoiseLevel(noise_px=m.views.noise_px, missing=m.views.missing)
        worse = degrade(pixels, inside, generator, level)
        pixels, inside = worse.points, worse.valid
        notes += worse.notes
    seen = Clip(f"{clip.name}, camera {camera + 1}", np.where(inside[..., None], pixels, np.float32(0)), inside,
                clip.skeleton, clip.fps, "px", "image", size=m.views.size)  # fmt: skip
    truth = views.points[0] - views.points[0][:, clip.skeleton.root : clip.skeleton.root + 1]
    return View(clip, camera, seen, truth.astype(np.float32), tuple(notes))


def model_input(clip: Clip) -> tuple[NDArray[np.float32], list[str]]:
    """Joints (T, J, 3) as models see them: coordinates normalised by the image's width, and whether a joint is there.

    Raises:
        InputError: pixels of an image whose size is not known.
    """
    one, notes = clip, list[str]()
    if clip.skeleton.name != SKELETON:
        one = convert(clip, SKELETON)
        notes = [note for note in one.notes if note not in clip.notes]
    points = one.points
    if one.unit == "px":
        if one.size is None:
            raise InputError("the size of the image is not known", where=clip.name, found="pixels alone",
                             cure="--read.size [1920,1080]")  # fmt: skip
        points = normalise(points, one.size).astype(np.float32)
    there = one.valid[..., None]
    lost = int((~one.valid).sum())
    if lost:
        notes.append(f"{lost:,} of {one.valid.size:,} joints are missing: carried by a mask")
    return np.concatenate([np.where(there, points, 0.0), there], -1).astype(np.float32), notes
