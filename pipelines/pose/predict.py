"""Poses in space for joints of images, of every person and clip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.data.datasets.pose_cameras import root_depth
from pipelines.data.datasets.pose_conversion import convert
from pipelines.data.datasets.pose_skeletons import side_jumps, skeleton, swapped_sides, upside_down
from pipelines.data.datasets.pose_types import Camera, Clip
from pipelines.data.datasets.pose_windows import resample
from pipelines.errors import InputError
from pipelines.pose import engine
from pipelines.pose.material import joints_of, model_input
from pipelines.pose.options import SKELETON
from pipelines.pose.result import Poses
from pipelines.pose.tracks import Track

if TYPE_CHECKING:
    from pipelines.pose.pipeline import PoseLifter

__all__ = ["predict", "track_of"]


def predict(m: PoseLifter, inputs: Any) -> Poses:
    """Lift every clip; one that cannot be lifted is named and does not stop the rest."""
    clips = joints_of(m, inputs)
    tracks: list[Track] = []
    failed: dict[str, str] = {}
    last: InputError | None = None
    progress = m.run.progress
    for clip in clips if progress is None else progress.track(clips, label="clips lifted"):
        try:
            tracks.append(track_of(m, clip))
        except InputError as error:
            last, failed[clip.name] = error, str(error)
    if last is not None and not tracks:
        raise last
    name = clips[0].name if len(clips) == 1 else f"{len(clips)} clips"
    facts = {"clips": len(tracks), "frames": sum(track.frames for track in tracks)}
    return Poses(m.model, m.provenance(name), tracks, failed, facts=facts, run=m.run)


def track_of(m: PoseLifter, clip: Clip) -> Track:
    """The poses of one clip, at its own frame rate.

    Raises:
        InputError: a clip without frames, of another skeleton that cannot be converted, or pixels without a size.
    """
    if not clip.frames:
        raise InputError("a clip without frames", where=clip.name, found=0, expected="1 frame or more")
    notes = list(clip.notes)
    if upside_down(clip):
        notes.append("y seems to point up: --read.up y reads such files")
    if swapped_sides(clip):
        notes.append("left and right seem exchanged: the face tells another side than the joints' names")
    jumps = side_jumps(clip)
    if jumps:
        notes.append(f"in {jumps} frames left and right change places")
    own = clip
    if clip.fps is None:
        notes.append(f"the frame rate is not known: taken to be {m.state.fps:g} Hz (--read.fps)")
    elif abs(clip.fps - m.state.fps) > 0.5:
        own = resample(clip, m.state.fps)
        notes.append(f"lifted at {m.state.fps:g} Hz, the model's frame rate: {clip.frames} frames became {own.frames}")
    joints, said = model_input(own)
    points, sigma = engine.lift(m, m.state, joints)
    there = own.valid if own.skeleton.name == SKELETON else convert(own, SKELETON).valid
    half = m.state.module.config.frames // 2
    if own.frames > 1:
        notes.append(f"the first and last {min(half, own.frames)} frames see copies of the edge frames")
    return Track(
        clip.name,
        points,
        np.ones(points.shape[:2], bool),
        skeleton(SKELETON),
        own.fps or m.state.fps,
        "camera",
        _trajectory(m, own, points, there),
        sigma,
        own,
        person=clip.person,
        subject=clip.subject,
        action=clip.action,
        notes=tuple(dict.fromkeys([*notes, *said])),
    )


def _trajectory(m: PoseLifter, clip: Clip, points: np.ndarray, there: np.ndarray) -> np.ndarray | None:
    """Where the root is, under a pinhole camera of the focal length given; None where that was not asked for."""
    if m.focal is None or clip.unit != "px" or clip.size is None:
        return None
    one = clip if clip.skeleton.name == SKELETON else convert(clip, SKELETON)
    width, height = clip.size
    camera = Camera(clip.size, (m.focal, m.focal), (width / 2, height / 2))
    found = root_depth(one.points, points, camera, there)
    return None if not np.isfinite(found).all() else found.astype(np.float32)
