"""Motion capture of any hierarchy as clips of the H36M skeleton: known families of joint names, or a mapping file."""

from __future__ import annotations

import csv
import io
import json
import os
import pathlib
from collections.abc import Mapping
from types import MappingProxyType

from pipelines.data.datasets.pose_conversion import convert, recognise
from pipelines.data.datasets.pose_skeletons import skeleton
from pipelines.data.datasets.pose_types import Clip, Skeleton
from pipelines.data.errors import InputError
from pipelines.data.formats.document_bytes import stored_bytes

__all__ = ["ENDINGS", "FAMILIES", "family", "map_joints", "open_mocap", "read_mapping"]

#: Endings of the files that `open_mocap` reads.
ENDINGS = (".bvh", ".amc", ".c3d", ".txt")

_Sources = tuple[str, ...]
_LIMIT_MB = 4.0


def _family(sided: Mapping[str, str], left: str, right: str, **middle: str | _Sources) -> Mapping[str, _Sources]:
    out = {joint: (names,) if isinstance(names, str) else names for joint, names in middle.items()}
    for joint, name in sided.items():
        out[f"left_{joint}"], out[f"right_{joint}"] = (left + name,), (right + name,)
    return MappingProxyType(out)


def _limbs(names: str) -> dict[str, str]:
    return dict(zip(("hip", "knee", "ankle", "shoulder", "elbow", "wrist"), names.split(), strict=True))


#: Joint of H36M-17 -> joints of a hierarchy whose mean it is. Names are without what stands before a colon; an end
#: site is called after its joint, with `_end`.
FAMILIES: Mapping[str, Mapping[str, _Sources]] = MappingProxyType(
    {
        "Mixamo": _family(
            _limbs("UpLeg Leg Foot Arm ForeArm Hand"),
            "Left",
            "Right",
            hip=("LeftUpLeg", "RightUpLeg"),
            spine="Spine1",
            thorax=("LeftArm", "RightArm"),
            neck="Head",
            head="HeadTop_End",
        ),
        "Biovision": _family(
            _limbs("Hip Knee Ankle Shoulder Elbow Wrist"),
            "Left",
            "Right",
            hip=("LeftHip", "RightHip"),
            spine="Chest2",
            thorax=("LeftShoulder", "RightShoulder"),
            neck="Head",
            head="Head_end",
        ),
        "Acclaim": _family(
            _limbs("hipjoint femur tibia clavicle humerus radius"),
            "l",
            "r",
            hip=("lhipjoint", "rhipjoint"),
            spine="lowerback",
            thorax=("lclavicle", "rclavicle"),
            neck="upperneck",
            head="head",
        ),
    }
)


def open_mocap(
    path: str | os.PathLike[str],
    *,
    mapping: str | os.PathLike[str] | None = None,
    target: str | None = "h36m17",
    units: str | float | None = None,
    up: str | None = None,
    fps: float | None = None,
    asf: str | os.PathLike[str] | None = None,
    accept_truncated: bool = False,
) -> list[Clip]:
    """Read BVH, AMC with its ASF, C3D or DeepMimic's text, told apart by their endings.

    Args:
        path: a .bvh, .amc, .c3d or .txt file.
        mapping: a file for `read_mapping`, where the joints are of no known family.
        target: the skeleton of the clips; None leaves each file's own.
        units: m, cm, mm, inch or cmu, or metres of one unit; without it what the file says, or what makes a person.
        up: the axis of the file that points up; without it y, and z for C3D.
        fps: Hz, of an AMC file, which does not hold it.
        asf: the skeleton of an AMC file; without it the one beside it.
        accept_truncated: keep the whole frames of a BVH or C3D file that is cut.

    Returns:
        one clip a person, in m, world frame, z up.

    Raises:
        InputError: as the readers; joints of no known family without a mapping; a mapping that does not fit.

    Complexity: O(T J).

    Example:
        >>> import tempfile
        >>> text = "HIERARCHY ROOT a { OFFSET 0 0 0 CHANNELS 1 Xrotation End Site { OFFSET 0 1.5 0 } } MOTION "
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "a.bvh")
        ...     _ = file.write_text(text + "Frames: 1 Frame Time: 1 90")
        ...     open_mocap(file, target=None)[0].skeleton.joints
        ('a',)
    """
    path = pathlib.Path(path)
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        expected = ", ".join(ENDINGS)
        raise InputError("no motion capture by its ending", where=path.name, found=ending or "none", expected=expected)
    table = None if mapping is None else read_mapping(mapping, target or "h36m17")
    clips, complete = _read(path, ending, units, up, fps, asf, accept_truncated)
    if target is None:
        return clips
    return [_brought(clip, full, table, target) for clip, full in zip(clips, complete, strict=True)]


def _read(
    path: pathlib.Path,
    ending: str,
    units: str | float | None,
    up: str | None,
    fps: float | None,
    asf: str | os.PathLike[str] | None,
    accept_truncated: bool,
) -> tuple[list[Clip], list[Clip]]:
    """Clips with the joints of the file, and with its end sites too."""
    if ending == ".bvh":
        from pipelines.data.formats.bvh import clips_of
        from pipelines.data.formats.bvh_text import parse_bvh

        file = parse_bvh(stored_bytes(path, 128.0), path.name, accept_truncated)
        both = [clips_of(file, path.name, units=units, up=up or "y", ends=ends) for ends in (False, True)]
        return both[0], both[1]
    if ending == ".amc":
        from pipelines.data.formats.asf_amc import read_amc

        clips = read_amc(path, asf, units=units, fps=fps, up=up or "y")
    elif ending == ".c3d":
        from pipelines.data.formats.c3d import read_c3d

        clips = read_c3d(path, units=units, up=up or "z", accept_truncated=accept_truncated)
    else:
        from pipelines.data.datasets.pose_deepmimic import read_deepmimic

        clips = read_deepmimic(path)
    return clips, clips


def _brought(clip: Clip, full: Clip, table: Mapping[str, _Sources] | None, target: str) -> Clip:
    """The clip on the target skeleton."""
    goal = skeleton(target)
    if table is not None:
        return map_joints(full, table, goal)
    if recognise(clip.skeleton) is not None:
        return convert(clip, goal)
    known = family(full.skeleton)
    if known is None:
        names = [name for name in full.skeleton.joints if not name.endswith("_end")]
        found = f"{len(names)} joints: {', '.join(names[:60])}" + (", ..." if len(names) > 60 else "")
        raise InputError(
            "joints of no known hierarchy",
            where=clip.name,
            found=found,
            expected=f"those of CMU, {', '.join(FAMILIES)}, or of a known skeleton",
            cure='give a mapping file: JSON such as {"hip": "Pelvis", "thorax": ["LArm", "RArm"], ...}, or CSV with '
            f"the columns joint and source, for the joints of {goal.name}: {', '.join(goal.joints)}",
        )
    mapped = map_joints(full, FAMILIES[known], skeleton("h36m17"))
    return convert(mapped.but(f"joints by their names of the family {known}"), goal)


def family(tree: Skeleton) -> str | None:
    """The family of joint names that a hierarchy belongs to: all names of the family are there.

    Example:
        >>> parts = "UpLeg Leg Foot Arm ForeArm Hand".split()
        >>> names = [f"x:{side}{part}" for side in ("Left", "Right") for part in parts]
        >>> names += ["x:Spine1", "x:Head", "x:HeadTop_End"]
        >>> family(Skeleton("x", tuple(names), (-1,) * 15, 0))
        'Mixamo'
    """
    bare = {name.rpartition(":")[2] for name in tree.joints}
    return next(
        (name for name, table in FAMILIES.items() if all(bare.issuperset(sources) for sources in table.values())), None
    )


def map_joints(clip: Clip, mapping: Mapping[str, str | _Sources], target: Skeleton) -> Clip:
    """The clip on another skeleton by a mapping; names of the clip may be given without what stands before a colon.

    Args:
        clip: of any skeleton.
        mapping: joint of the target -> joint of the clip, or several whose mean it is. Joints of the target that it
            leaves out stay missing, which the notes say.
        target: the skeleton.

    Raises:
        InputError: joints that are none, of the clip or of the target; no root.

    Complexity: O(T J).

    Example:
        >>> own = Skeleton("dog", ("x:pelvis", "x:head"), (-1, 0), 0)
        >>> clip = Clip.of("rex", [[[0, 0, 0.4], [0.5, 0, 0.6]]], own)
        >>> map_joints(clip, {"hip": "pelvis", "head": "head"}, skeleton("h36m17")).valid.sum()
        np.int64(2)
    """
    full: dict[str, list[str]] = {}
    for name in clip.skeleton.joints:
        for short in {name, name.rpartition(":")[2]}:
            full.setdefault(short, []).append(name)
    table: dict[str, tuple[str, ...]] = {}
    for joint, sources in mapping.items():
        chosen = (sources,) if isinstance(sources, str) else tuple(sources)
        for source in chosen:
            if len(full.get(source, ())) != 1:
                found = f"{source!r}, which {'stands for several' if full.get(source) else 'is none'}"
                expected = ", ".join(clip.skeleton.joints[:60])
                raise InputError(f"a joint that {joint} is mapped to", where=clip.name, found=found, expected=expected)
        table[joint] = tuple(full[source][0] for source in chosen)
    return convert(clip, target, table)


def read_mapping(path: str | os.PathLike[str], target: str = "h36m17") -> dict[str, _Sources]:
    """Read which joints of a file stand for which joints of a skeleton.

    Args:
        path: JSON, an object `{"hip": "Pelvis", "thorax": ["LArm", "RArm"]}`; or CSV with the columns `joint` and
            `source`, a row for each source. Several sources of one joint stand for their mean.
        target: the skeleton whose joints are mapped.

    Returns:
        joint of the target -> joints of the file.

    Raises:
        InputError: no such file, no mapping, joints that the target does not have or that stand twice.

    Complexity: O(bytes).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "a.csv")
        ...     _ = file.write_text("joint,source\\nhip,LHip\\nhip,RHip\\nhead,Head\\n")
        ...     read_mapping(file)
        {'hip': ('LHip', 'RHip'), 'head': ('Head',)}
    """
    path = pathlib.Path(path)
    try:
        text = stored_bytes(path, _LIMIT_MB).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"byte {error.start}"
        raise InputError("not a text", where=path.name, found=found, expected="JSON or CSV in UTF-8") from error
    given = _json(text, path.name) if text.lstrip().startswith(("{", "[")) else _csv(text, path.name)
    goal = skeleton(target)
    wrong = [joint for joint in given if joint not in goal.joints]
    if wrong or not given:
        found, expected = ", ".join(map(str, wrong[:8])) or "no joints", ", ".join(goal.joints)
        raise InputError(f"not joints of {goal.name}", where=path.name, found=found, expected=expected)
    return given


def _json(text: str, where: str) -> dict[str, _Sources]:
    expected = "an object: a joint, then the name of a joint of the file or a list of names"
    twice: list[str] = []

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        names = [name for name, _ in items]
        twice.extend(name for name in names if names.count(name) > 1)
        return dict(items)

    try:
        content = json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise InputError("not readable JSON", where=where, found=str(error)[:100], expected=expected) from error
    if not isinstance(content, dict):
        raise InputError("no mapping", where=where, found=type(content).__name__, expected=expected)
    if twice:
        raise InputError("a joint that stands twice", where=where, found=twice[0][:40], expected="each once")
    out: dict[str, _Sources] = {}
    for joint, sources in content.items():
        names = [sources] if isinstance(sources, str) else sources
        if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
            raise InputError(
                "no names of joints", where=f"{where}, {joint[:40]}", found=str(names)[:60], expected=expected
            )
        out[joint] = tuple(dict.fromkeys(names))
    return out


def _csv(text: str, where: str) -> dict[str, _Sources]:
    expected = "the columns joint and source, a row for each source"
    try:
        rows = [row for row in csv.reader(io.StringIO(text)) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise InputError("not readable CSV", where=where, found=str(error)[:100], expected=expected) from error
    if not rows or [cell.strip().lower() for cell in rows[0]] != ["joint", "source"]:
        found = ", ".join(rows[0])[:80] if rows else "nothing"
        raise InputError("no mapping", where=where, found=found, expected=expected)
    out: dict[str, _Sources] = {}
    for row in rows[1:]:
        cells = [cell.strip() for cell in row]
        if len(cells) != 2 or not all(cells):
            raise InputError("a row that is no pair", where=where, found=", ".join(cells)[:80], expected=expected)
        joint, source = cells
        out[joint] = (*(name for name in out.get(joint, ()) if name != source), source)
    return out
