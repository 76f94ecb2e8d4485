"""From one skeleton to another by explicit tables; what is made up, lost or missing is said in the notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from pipelines.data.datasets.pose_skeletons import SKELETONS, skeleton
from pipelines.data.datasets.pose_types import Clip, Skeleton
from pipelines.data.errors import InputError

__all__ = ["TABLES", "convert", "recognise"]

Recipe = Mapping[str, float]  # joint of the source -> weight; the weights sum to 1
Table = Mapping[str, tuple[Recipe, ...]]  # joint of the target -> recipes; the first whose joints are all there counts

_SIDES = ("left", "right")
_LIMBS = tuple(f"{side}_{part}" for side in _SIDES for part in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist"))
_HIPS, _SHOULDERS, _EARS = (tuple(f"{side}_{part}" for side in _SIDES) for part in ("hip", "shoulder", "ear"))
_FACES = ("coco17", "coco18", "body25", "halpe26", "mediapipe33")


def _mean(*joints: str) -> Recipe:
    return dict.fromkeys(joints, 1 / len(joints))


def _beyond(start: Sequence[str], end: Sequence[str], share: float) -> Recipe:
    """The point on the line from one mean to another; 0 is the start, 1 the end, more lies beyond."""
    out = {joint: (1 - share) / len(start) for joint in start}
    for joint in end:
        out[joint] = out.get(joint, 0.0) + share / len(end)
    return out


def _table(joints: Mapping[str, Recipe | str | tuple[Recipe, ...]], same: Sequence[str] = ()) -> Table:
    out: dict[str, tuple[Recipe, ...]] = {joint: (_mean(joint),) for joint in same}
    for joint, recipe in joints.items():
        out[joint] = (_mean(recipe),) if isinstance(recipe, str) else recipe if isinstance(recipe, tuple) else (recipe,)
    return MappingProxyType(out)


# Ears lie at five eighths of the way from the line of the shoulders to the top of the head; so does the nose.
_CROWN = (
    _beyond(_SHOULDERS, _EARS, 1.6),
    *(_beyond(_SHOULDERS, [ear], 1.6) for ear in _EARS),
    _beyond(_SHOULDERS, ["nose"], 1.6),
)
_FACE = {
    "hip": _mean(*_HIPS),
    "spine": _mean(*_HIPS, *_SHOULDERS),
    "thorax": _mean(*_SHOULDERS),
    "neck": "nose",
    "head": _CROWN,
}
_CMU = {"hip": "UpLeg", "knee": "Leg", "ankle": "Foot", "shoulder": "Arm", "elbow": "ForeArm", "wrist": "Hand"}
_MPI = {"hip": "root", "thorax": "neck", "neck": "head", "head": "head_top"}

#: (source, target) -> table. What no table and no way over `h36m17` connects is refused.
TABLES: Mapping[tuple[str, str], Table] = MappingProxyType(
    {
        ("h36m32", "h36m17"): _table({}, SKELETONS["h36m17"].joints),
        ("coco17", "h36m17"): _table(_FACE, _LIMBS),
        ("mediapipe33", "h36m17"): _table(_FACE, _LIMBS),
        ("coco18", "h36m17"): _table({**_FACE, "thorax": "neck", "spine": _beyond(_HIPS, ["neck"], 0.5)}, _LIMBS),
        ("body25", "h36m17"): _table(
            {**_FACE, "hip": "mid_hip", "thorax": "neck", "spine": _mean("mid_hip", "neck")}, _LIMBS
        ),
        ("halpe26", "h36m17"): _table(
            {"hip": "hip", "thorax": "neck", "spine": _mean("hip", "neck"), "neck": "nose", "head": "head"}, _LIMBS
        ),
        ("mpi17", "h36m17"): _table(_MPI, (*_LIMBS, "spine")),
        ("humaneva15", "h36m17"): _table(
            {
                "hip": "pelvis",
                "spine": _mean("pelvis", "thorax"),
                "thorax": "thorax",
                "neck": _mean("thorax", "head"),
                "head": "head",
            },
            _LIMBS,
        ),
        ("cmu31", "h36m17"): _table(
            {
                **{f"{side}_{part}": side.title() + name for side in _SIDES for part, name in _CMU.items()},
                "hip": _mean("LeftUpLeg", "RightUpLeg"),  # `Hips` lies about 0.1 m above the line of the hip joints
                "spine": "Spine",
                "thorax": _mean("LeftArm", "RightArm"),
                "neck": "Head",
                "head": _beyond(["Neck1"], ["Head"], 2.0),  # as far beyond as the hierarchy's own end of the head
            }
        ),
        ("smpl24", "h36m17"): _table(
            {
                "hip": _mean(*_HIPS),
                "spine": _mean("spine1", "spine2"),
                "thorax": _mean(*_SHOULDERS),
                "neck": "head",
                "head": _beyond(["neck"], ["head"], 2.3),
            },
            _LIMBS,
        ),
        ("deepmimic15", "h36m17"): _table(
            {
                "hip": "root",
                "spine": "chest",
                "thorax": "neck",
                "neck": _beyond(["chest"], ["neck"], 1.5),
                "head": _beyond(["chest"], ["neck"], 2.0),
            },
            _LIMBS,
        ),
        ("h36m17", "coco17"): _table({"nose": "neck"}, _LIMBS),
        ("h36m17", "coco18"): _table({"nose": "neck", "neck": "thorax"}, _LIMBS),
        ("h36m17", "body25"): _table({"nose": "neck", "neck": "thorax", "mid_hip": "hip"}, _LIMBS),
        ("h36m17", "halpe26"): _table({"nose": "neck", "neck": "thorax", "hip": "hip", "head": "head"}, _LIMBS),
        ("h36m17", "mpi17"): _table({one: other for other, one in _MPI.items()}, (*_LIMBS, "spine")),
        ("h36m17", "humaneva15"): _table({"pelvis": "hip", "thorax": "thorax", "head": "head"}, _LIMBS),
        ("h36m17", "deepmimic15"): _table({"root": "hip", "chest": "spine", "neck": "thorax"}, _LIMBS),
        **{(name, "coco17"): _table({}, SKELETONS["coco17"].joints) for name in _FACES if name != "coco17"},
    }
)


def recognise(tree: Skeleton) -> str | None:
    """The name of the known skeleton with the same joints in the same order, or None.

    Example:
        >>> recognise(skeleton("coco17")), recognise(Skeleton("dog", ("nose", "tail"), (-1, 0), 0))
        ('coco17', None)
    """
    return next((name for name, known in SKELETONS.items() if known.joints == tree.joints), None)


def convert(clip: Clip, target: str | Skeleton, mapping: Mapping[str, str | Sequence[str]] | None = None) -> Clip:
    """The clip on another skeleton; joints that the target alone has are made by a stated rule or stay missing.

    A joint of the target is missing in a frame where one of the joints that it is made from is missing. Means of
    pixels stand for the image of the mean point: exact for distant cameras only. Through `h36m17` where no table leads
    straight to the target.

    Args:
        clip: on any skeleton.
        target: a skeleton or its name.
        mapping: for other hierarchies: joint of the target -> joint of the clip, or several whose mean it is.

    Returns:
        The clip itself where it has the skeleton already.

    Raises:
        InputError: no table leads there, a mapping that names joints that are none.

    Complexity: O(T J).

    Source: joint orders of the data sets; a naive change of order costs more than 30 mm (VideoPose3D, issue 245).

    Example:
        >>> seen = Clip.of("a", np.ones((1, 17, 2)), skeleton("coco17"), unit="px", frame="image")
        >>> clip = convert(seen, "h36m17")
        >>> clip.skeleton.name, bool(clip.valid.all()), convert(clip, "coco17").valid[0, :3].tolist()
        ('h36m17', True, [True, False, False])
    """
    goal = skeleton(target) if isinstance(target, str) else target
    if mapping is not None:
        table = _given(clip, goal, mapping)
        return _apply(clip, goal, table)
    if clip.skeleton.joints == goal.joints:
        return clip if clip.skeleton == goal else clip.but(skeleton=goal)
    start = recognise(clip.skeleton) or clip.skeleton.name
    if (start, goal.name) in TABLES:
        return _apply(clip, goal, TABLES[start, goal.name])
    if (start, "h36m17") in TABLES and ("h36m17", goal.name) in TABLES:
        return _apply(convert(clip, "h36m17"), goal, TABLES["h36m17", goal.name])
    ways = sorted({name for one, name in TABLES if one in (start, "h36m17")} - {start})
    found = f"{clip.skeleton.name} ({len(clip.skeleton)} joints)"
    if start in SKELETONS:
        raise InputError(
            f"no way to {goal.name}", where=clip.name, found=found, expected=", ".join(ways), cure="give a mapping"
        )
    cure = f"a mapping file: the joint of {goal.name}, then the joint of the clip"
    names = ", ".join(clip.skeleton.joints[:40]) + (", ..." if len(clip.skeleton) > 40 else "")
    raise InputError("an unknown skeleton", where=clip.name, found=f"{found}: {names}", expected=goal.name, cure=cure)


def _given(clip: Clip, goal: Skeleton, mapping: Mapping[str, str | Sequence[str]]) -> Table:
    table: dict[str, tuple[Recipe, ...]] = {}
    for joint, sources in mapping.items():
        goal.index(joint)
        names = (sources,) if isinstance(sources, str) else tuple(sources)
        if not names:
            raise InputError("a mapping without joints", where=f"{clip.name}, {joint}", expected="one joint or more")
        for name in names:
            clip.skeleton.index(name)
        table[joint] = (_mean(*dict.fromkeys(names)),)
    if goal.joints[goal.root] not in table:
        found, expected = ", ".join(table) or "nothing", f"{goal.joints[goal.root]}, the root, too"
        raise InputError("a mapping without the root", where=clip.name, found=found, expected=expected)
    return table


def _apply(clip: Clip, goal: Skeleton, table: Table) -> Clip:
    """Make each joint by the first recipe whose joints are all there, frame by frame."""
    frames, count = clip.frames, len(goal)
    points = np.zeros((frames, count, clip.dims), np.float32)
    valid = np.zeros((frames, count), bool)
    sure = None if clip.confidence is None else np.zeros((frames, count), np.float32)
    spare: dict[str, int] = {}
    for joint, recipes in table.items():
        place = goal.index(joint)
        for choice, recipe in enumerate(recipes):
            sources = [clip.skeleton.index(name) for name in recipe]
            use = clip.valid[:, sources].all(1) & ~valid[:, place]
            if not use.any():
                continue
            weights = np.array(list(recipe.values()))
            made = np.einsum("tjd,j->td", clip.points[use][:, sources].astype(np.float64), weights)
            points[use, place], valid[use, place] = made, True
            if sure is not None and clip.confidence is not None:
                sure[use, place] = clip.confidence[use][:, sources].min(1)
            if choice:
                spare[joint] = spare.get(joint, 0) + int(use.sum())
    notes = _said(clip, goal, table, spare, int((~valid[:, [goal.index(joint) for joint in table]]).sum()))
    return clip.but(*notes, points=points, valid=valid, confidence=sure, skeleton=goal)


def _said(clip: Clip, goal: Skeleton, table: Table, spare: Mapping[str, int], missing: int) -> list[str]:
    made = [f"{joint} ({_words(recipes[0])})" for joint, recipes in table.items() if {joint: 1.0} != recipes[0]]
    used = {name for recipes in table.values() for name in recipes[0]}
    lost = [joint for joint in clip.skeleton.joints if joint not in used]
    without = [joint for joint in goal.joints if joint not in table]
    parts = [f"{clip.skeleton.name} to {goal.name}: {len(table) - len(made)} joints taken over"]
    parts += [f"made or renamed: {', '.join(made)}"] if made else []
    parts += [f"left out: {', '.join(lost)}"] if lost else []
    parts += [f"missing, since nothing tells them: {', '.join(without)}"] if without else []
    notes = ["; ".join(parts)]
    notes += [f"{joint} made by a spare rule in {count} of {clip.frames} frames" for joint, count in spare.items()]
    if missing and not clip.valid.all():
        notes.append(f"{missing} of {clip.frames * len(table)} joints missing after the conversion")
    return notes


def _words(recipe: Recipe) -> str:
    weights = list(recipe.values())
    if len(weights) == 1:
        return next(iter(recipe))
    if max(weights) - min(weights) < 1e-9:
        return f"mean of {', '.join(recipe)}"
    return " ".join(f"{weight:+.3g} {joint}" for joint, weight in recipe.items())
