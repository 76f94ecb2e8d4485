"""Biovision hierarchies (.bvh): joints by forward kinematics, in metres, z up."""

from __future__ import annotations

import os
import pathlib

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.pose_types import Clip, Skeleton
from pipelines.data.formats.bvh_text import BvhFile, Hierarchy, parse_bvh
from pipelines.data.formats.document_bytes import stored_bytes
from pipelines.data.formats.mocap_space import metres, rotations, round_rate, side_pairs, upright

__all__ = ["HELPER", "clips_of", "forward", "read_bvh"]

#: End of the name of a joint of zero length that only turns the joint it is named after.
HELPER = "_turn"

_LIMIT_MB = 128.0
_BLOCK = 4096  # frames that are turned at once: rotations of all joints are kept meanwhile


def read_bvh(
    source: str | os.PathLike[str] | bytes,
    *,
    units: str | float | None = None,
    up: str = "y",
    ends: bool = False,
    name: str | None = None,
    accept_truncated: bool = False,
) -> list[Clip]:
    """Read a BVH file: one clip for each ROOT in it, usually one.

    Args:
        source: the file, or its content.
        units: m, cm, mm, inch or cmu (0.0254 / 0.45 m), or metres of one unit; without it told from the height of the
            rest pose, which must be a person's.
        up: the axis of the file that points up, y or z.
        ends: whether end sites count as joints, named after their joint with `_end`.
        name: what messages call it; the file's name without it.
        accept_truncated: keep the whole frames of a file that ends before the last one, and say so.

    Returns:
        clips (T, J, 3) in m in the world frame, z up, with the joints, their order and their tree as in the file. A
        hierarchy that is one of the known skeletons gets that skeleton.

    Raises:
        InputError: no such file, no BVH, damaged or cut, impossible hierarchies, no frames, a unit that cannot be told.

    Complexity: O(T J) time and memory.

    Example:
        >>> text = '''HIERARCHY
        ... ROOT hip { OFFSET 0 0 0 CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
        ...   JOINT knee { OFFSET 0 -50 0 CHANNELS 3 Zrotation Xrotation Yrotation End Site { OFFSET 0 -50 0 } } }
        ... MOTION
        ... Frames: 1
        ... Frame Time: 0.02
        ... 0 100 0 90 0 0 0 0 0'''
        >>> clip, = read_bvh(text.encode(), units="cm", name="leg")
        >>> clip.skeleton.joints, clip.fps, clip.points.round(3).tolist()
        (('hip', 'knee'), 50.0, [[[0.0, 0.0, 1.0], [0.5, 0.0, 1.0]]])
    """
    where = name or (pathlib.Path(source).name if not isinstance(source, bytes) else "BVH")
    content = source if isinstance(source, bytes) else stored_bytes(pathlib.Path(source), _LIMIT_MB)
    file = parse_bvh(content, where, accept_truncated)
    return clips_of(file, where, units=units, up=up, ends=ends)


def clips_of(
    file: BvhFile, where: str, *, units: str | float | None = None, up: str = "y", ends: bool = False
) -> list[Clip]:
    """Clips of a file that was parsed; as `read_bvh`.

    Complexity: O(T J) time and memory.

    Example:
        >>> from pipelines.data.formats.bvh_text import parse_bvh
        >>> text = b"HIERARCHY ROOT a { OFFSET 0 0 0 CHANNELS 1 Xrotation End Site { OFFSET 0 1 0 } } MOTION "
        >>> clip, = clips_of(parse_bvh(text + b"Frames: 1 Frame Time: 1 90", "a"), "a", units="m", ends=True)
        >>> clip.points.round(3).tolist()
        [[[0.0, 0.0, 0.0], [0.0, -1.0, 0.0]]]
    """
    rest = float(np.ptp(file.hierarchy.rest(), axis=0).max())
    scale, said = metres(units, rest, where, cmu="LHipJoint" in file.hierarchy.names)
    fps, rate = round_rate(1 / file.frame_time)
    points, turned = upright(forward(file.hierarchy, file.values) * scale, up, where)
    notes = (*file.notes, said, *rate, *turned)
    clips, helpers = [], _helpers(file.hierarchy)
    if helpers:
        notes = (*notes, f"{len(helpers)} joints of zero length that only turn another ({HELPER}) were left out")
    for person, everything in enumerate(_people(file.hierarchy, ends)):
        chosen = [joint for joint in everything if joint not in helpers]
        skeleton = _skeleton(file.hierarchy, chosen, helpers)
        title = where.removesuffix(".bvh").removesuffix(".BVH")
        clips.append(Clip.of(title, points[:, chosen], skeleton, fps=fps, person=person, notes=notes))
    return clips


def forward(hierarchy: Hierarchy, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions of joints and end sites from the channels: each joint turns by its rotations in the order of the file.

    A position channel takes the place of that number of the offset, as for the root.

    Args:
        hierarchy: J joints and end sites, parents first.
        values: (T, C) channels; degrees, and lengths in the file's unit.

    Returns:
        (T, J, 3) in the file's unit and axes.

    Complexity: O(T J) time and memory.

    Example:
        >>> offsets, channels = np.array([[0.0, 0, 0], [1, 0, 0]]), (("Zrotation",), ())
        >>> arm = Hierarchy(("a", "b"), (-1, 0), offsets, channels, (False, True))
        >>> forward(arm, np.array([[90.0]])).round(3).tolist()
        [[[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]
    """
    points = np.empty((len(values), len(hierarchy.names), 3))
    for start in range(0, len(values), _BLOCK):
        _forward(hierarchy, values[start : start + _BLOCK], points[start : start + _BLOCK])
    return points


def _forward(hierarchy: Hierarchy, values: NDArray[np.float64], points: NDArray[np.float64]) -> None:
    """Fill the points of one block of frames."""
    turns: list[NDArray[np.float64]] = []
    column = 0
    for joint, parent in enumerate(hierarchy.parents):
        local = np.tile(hierarchy.offsets[joint], (len(values), 1))
        turn = np.eye(3) if parent < 0 else turns[parent]
        own = None
        for channel in hierarchy.channels[joint]:
            axis, number = "XYZ".index(channel[0]), values[:, column]
            column += 1
            if channel.endswith("position"):
                local[:, axis] = number
            else:
                step = rotations(axis, np.deg2rad(number))
                own = step if own is None else own @ step
        points[:, joint] = (turn @ local[..., None])[..., 0]
        if parent >= 0:
            points[:, joint] += points[:, parent]
        turns.append(turn if own is None else turn @ own)


def _people(hierarchy: Hierarchy, ends: bool) -> list[list[int]]:
    """The joints of each root."""
    people: list[list[int]] = []
    for joint, parent in enumerate(hierarchy.parents):
        if parent < 0:
            people.append([])
        if ends or not hierarchy.ends[joint]:
            people[-1].append(joint)
    return people


def _helpers(hierarchy: Hierarchy) -> set[int]:
    """Joints of zero length that turn the one joint below them, as `bvh_write` makes them."""
    below = zip(hierarchy.names, hierarchy.parents, strict=True)
    return {parent for name, parent in below if parent >= 0 and hierarchy.names[parent] == f"{name}{HELPER}"}


def _skeleton(hierarchy: Hierarchy, chosen: list[int], helpers: set[int]) -> Skeleton:
    """A known skeleton where joints and tree are its, else the file's own."""
    from pipelines.data.datasets.pose_skeletons import SKELETONS

    place = {joint: index for index, joint in enumerate(chosen)}
    names = tuple(hierarchy.names[joint] for joint in chosen)
    above = [hierarchy.parents[joint] for joint in chosen]
    above = [hierarchy.parents[joint] if joint in helpers else joint for joint in above]
    parents = tuple(place.get(joint, -1) for joint in above)
    for known in SKELETONS.values():
        if known.joints == names and known.parents == parents:
            return known
    left, right = side_pairs(names)
    return Skeleton("its own hierarchy", names, parents, 0, left, right)
