"""Whose joints a file holds: by their names, by what the file or the caller says, or by their number."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from pipelines.data.datasets.pose_skeletons import SKELETONS, by_count, skeleton
from pipelines.data.datasets.pose_types import Skeleton
from pipelines.data.errors import InputError
from pipelines.data.formats.pose_source import PoseReading, Raw

__all__ = ["Fit", "fitted", "matched"]

#: (skeleton, for each of its joints the number of the joint of the file or -1; None for all in order, notes)
Fit = tuple[Skeleton, list[int] | None, list[str]]

#: Detectors of faces and hands too: the joints of the body stand first.
_WHOLE: Mapping[int, str] = MappingProxyType({133: "coco17", 136: "halpe26"})
_ROOTS = ("hip", "pelvis", "root", "mid_hip")
_ALIKE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **dict.fromkeys((*_ROOTS, "hips", "bottom_torso", "hip_center"), _ROOTS),
        "neck_base": ("neck",),
        "chest": ("thorax",),
        "upper_neck": ("neck",),
        "left_foot": ("left_ankle",),
        "right_foot": ("right_ankle",),
        "left_hand": ("left_wrist",),
        "right_hand": ("right_wrist",),
    }
)


def fitted(raw: Raw, reading: PoseReading) -> Fit:
    """The skeleton of the joints of a file, and their order in it.

    Args:
        raw: the joints.
        reading: what the caller says.

    Raises:
        InputError: joints of no known skeleton, of several, or of another than was said; names of skeletons that have
            so many joints are in the message.

    Complexity: O(J) a skeleton.

    Example:
        >>> import numpy as np
        >>> fitted(Raw("a", np.zeros((1, 33, 2))), PoseReading())[0].name
        'mediapipe33'
    """
    count = raw.points.shape[1]
    said = None if reading.skeleton is None else skeleton(reading.skeleton)
    if raw.joints is not None and len(raw.joints) != count:
        raise InputError("not a name for each joint", where=raw.name, found=len(raw.joints), expected=count)
    if raw.tree is not None:
        return _of_file(raw, raw.tree, said)
    if reading.mapping is not None and said is None:
        names = raw.joints or tuple(str(joint) for joint in range(count))
        return Skeleton("file", names, (-1,) * count, 0), None, []
    if raw.joints is not None:
        found = _named(raw.name, raw.joints, said)
        if found is not None:
            return found
    return _counted(raw, count, said)


def _of_file(raw: Raw, tree: Skeleton, said: Skeleton | None) -> Fit:
    known = next((one for one in SKELETONS.values() if one.joints == tree.joints), tree)
    if said is not None and said.joints != known.joints:
        found, cure = f"the joints of {known.name}", "leave the skeleton out: the file says it"
        raise InputError("another skeleton than was said", where=raw.name, found=found, expected=said.name, cure=cure)
    return known, None, []


def _plain(name: str) -> str:
    """`RBigToe`, `MOUTH_LEFT` and `l-elbow` as `right_big_toe`, `left_mouth` and `left_elbow`."""
    bare = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.rpartition(":")[2].strip())
    words = [word for word in re.split(r"[^a-z0-9]+", bare.lower()) if word]
    sides = {"l": "left", "r": "right", "left": "left", "right": "right"}
    for place in (0, -1):
        if len(words) > 1 and words[place] in sides:
            return "_".join((sides[words.pop(place)], *words))
    return "_".join(words)


def matched(names: Sequence[str], tree: Skeleton) -> list[int] | None:
    """For each joint of a skeleton the number of the name that means it, or -1; None where names mean no joint of it.

    Example:
        >>> matched(["LElbow", "RElbow"], Skeleton("arms", ("right_elbow", "left_elbow", "nose"), (-1, 0, 0), 0))
        [1, 0, -1]
    """
    own = {_plain(joint): place for place, joint in enumerate(tree.joints)}
    order = [-1] * len(tree)
    for number, name in enumerate(names):
        plain = _plain(name)
        place = next((own[one] for one in (plain, *_ALIKE.get(plain, ())) if one in own), None)
        if place is None or order[place] >= 0:
            return None
        order[place] = number
    return order


def _named(where: str, names: tuple[str, ...], said: Skeleton | None) -> Fit | None:
    """By names: all joints of one skeleton, or some of the one that the caller says."""
    found = [(tree, order) for tree in SKELETONS.values() if (order := matched(names, tree)) and min(order) >= 0]
    if said is not None:
        order = matched(names, said)
        if order is not None:
            lost = [joint for joint, number in zip(said.joints, order, strict=True) if number < 0]
            notes = [f"joints that the file does not have are missing: {', '.join(lost)}"] if lost else []
            return said, order, [*_moved(order, said), *notes]
        if found:
            shown = f"the names of {found[0][0].name}: {', '.join(names[:5])}, ..."
            raise InputError("another skeleton than was said", where=where, found=shown, expected=said.name)
        return None
    if len(found) == 1:
        tree, order = found[0]
        return tree, order, _moved(order, tree)
    return None


def _moved(order: list[int], tree: Skeleton) -> list[str]:
    there = [number for number in order if number >= 0]
    return [] if there == sorted(there) else [f"joints put into the order of {tree.name} by their names"]


def _counted(raw: Raw, count: int, said: Skeleton | None) -> Fit:
    """By the number of joints."""
    body = _WHOLE.get(count)
    if body is not None and (said is None or said.name == body):
        tree = skeleton(body)
        left = f"{count - len(tree)} points of face, hands and feet left out"
        return tree, list(range(len(tree))), [f"{count} joints: the first {len(tree)} taken for {tree.name}; {left}"]
    alike, all_known = by_count(count), ", ".join(f"{name} ({len(tree)})" for name, tree in SKELETONS.items())
    who = f"{count} joints" + ("" if raw.joints is None else f": {', '.join(raw.joints[:40])}")
    if said is not None:
        if len(said) == count:
            return said, None, [f"{count} joints: taken for {said.name}, as was said"]
        cure = f"say skeleton={' or '.join(alike)}" if alike else "say which joints they are by a mapping file"
        expected = f"{len(said)} joints of {said.name}"
        raise InputError("another number of joints", where=raw.name, found=who, expected=expected, cure=cure)
    if raw.joints is not None and not alike:
        cure = "give a mapping file (--read.mapping): the joint of h36m17, then the joint of the file"
        raise InputError("joints of no known skeleton", where=raw.name, found=who, expected=all_known, cure=cure)
    if not alike:
        cure = "check the file, or say which joints they are by a mapping file (--read.mapping)"
        raise InputError("no skeleton has so many joints", where=raw.name, found=who, expected=all_known, cure=cure)
    if raw.usual in alike:
        return skeleton(raw.usual), None, [f"{count} joints: taken for {raw.usual}, the usual one of this format"]
    if len(alike) == 1:
        return skeleton(alike[0]), None, [f"{count} joints: taken for {alike[0]}, the only skeleton of so many"]
    cure = f"say which one, e.g. --read.skeleton {alike[0]}"
    raise InputError(
        "several skeletons have so many joints", where=raw.name, found=who, expected=", ".join(alike), cure=cure
    )
