"""Human3.6M in the layout of its community: joints of each subject and action in one NPZ, cameras in JSON.

The data need a licence of their authors and are not distributed. Prepared files that are around hold pickled Python
objects, which can run any code when they are opened; they are refused. Where a file's source is trusted, this writes it
anew as plain arrays, once:

    import numpy as np
    poses = np.load("data_3d_h36m.npz", allow_pickle=True)["positions_3d"].item()
    np.savez_compressed("h36m_3d.npz", **{f"{s}/{a}": p for s in poses for a, p in poses[s].items()})
    seen = np.load("data_2d_h36m_gt.npz", allow_pickle=True)["positions_2d"].item()
    flat = {f"{s}/{a}/{c}": p for s in seen for a in seen[s] for c, p in enumerate(seen[s][a])}
    np.savez_compressed("h36m_2d_gt.npz", **flat)
"""

from __future__ import annotations

import json
import os
import pathlib
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.pose_conversion import convert
from pipelines.data.datasets.pose_skeletons import skeleton
from pipelines.data.datasets.pose_types import Camera, Clip
from pipelines.data.errors import InputError
from pipelines.data.formats.document_bytes import stored_bytes

__all__ = ["CAMERAS", "RATE", "TEST", "TRAIN", "action_name", "read_cameras", "read_h36m", "with_cameras"]

#: Subjects of the standard split, the frame rate in Hz, and the four cameras, in their order, with width and height.
TRAIN, TEST = ("S1", "S5", "S6", "S7", "S8"), ("S9", "S11")
RATE = 50.0
CAMERAS = {"54138969": (1000, 1002), "55011271": (1000, 1000), "58860488": (1000, 1000), "60457274": (1000, 1002)}
#: A recording whose positions are known to be wrong.
_CORRUPT = "S11/Directions"

_MOST_BYTES, _MOST_ARRAYS = 8 << 30, 20_000
_RATIO = 1100  # deflate packs at most 1032 bytes into one
_LAYOUT = (
    'arrays "SUBJECT/ACTION" (frames, 32 or 17 joints, 3) in m, world frame, '
    'or "SUBJECT/ACTION/CAMERA" (frames, 17, 2) in px'
)
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, NotImplementedError, ValueError, MemoryError),
    *(
        SyntaxError,
        tokenize.TokenError,
        TypeError,
        OverflowError,
        RecursionError,
    ),  # of headers that are no Python values
)


def read_h36m(
    path: str | os.PathLike[str], *, subjects: tuple[str, ...] = (), fps: float = RATE, keep_corrupt: bool = False
) -> list[Clip]:
    """Read a plain NPZ with joints of Human3.6M.

    Args:
        path: 3-D or 2-D arrays by `SUBJECT/ACTION` or `SUBJECT/ACTION/CAMERA`; see the module for how to make one.
            CAMERA is a number from 0 to 3 or the name of the camera.
        subjects: only these are read; all where empty.
        fps: Hz of the arrays.
        keep_corrupt: keep `S11/Directions`, whose positions are known to be wrong.

    Returns:
        clips on `h36m17`, by subject, action and camera: 3-D in m, world frame; 2-D in px with the size of the image.
        `action` is the action with its number, as in the file; `action_name` merges them.

    Raises:
        InputError: no such file, pickled objects, other arrays, numbers that are not finite nowhere, a damaged file.

    Complexity: O(values); sizes are checked before arrays are made.

    Source: Ionescu et al. 2014; file layout and 17 of 32 joints as in Pavllo et al. 2019.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/a.npz", **{"S9/Walking 1": np.ones((5, 32, 3), np.float32)})
        ...     clip, = read_h36m(f"{folder}/a.npz")
        >>> clip.subject, clip.action, clip.points.shape, clip.fps
        ('S9', 'Walking 1', (5, 17, 3), 50.0)
    """
    path = pathlib.Path(path)
    clips: list[Clip] = []
    try:
        with zipfile.ZipFile(path) as archive:
            _check(archive, path)
            for member in archive.infolist():
                key = member.filename.removesuffix(".npy")
                parts = key.split("/")
                if len(parts) not in (2, 3) or not all(parts):
                    raise InputError("an array of another name", where=path.name, found=key[:60], expected=_LAYOUT)
                if (subjects and parts[0] not in subjects) or (not keep_corrupt and "/".join(parts[:2]) == _CORRUPT):
                    continue
                with archive.open(member) as file:
                    array = np.lib.format.read_array(file, allow_pickle=False)
                clips.append(_clip(parts, array, fps, path.name))
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError("no such file", where=path, cure="check the path") from error
    except _DAMAGED as error:
        found = str(error)[:120] or type(error).__name__
        raise InputError("not a readable NPZ file", where=path.name, found=found, cure="copy the file again") from error
    if not clips:
        found = f"subjects {', '.join(subjects)}" if subjects else "no arrays"
        raise InputError("nothing to read", where=path.name, found=found, expected=_LAYOUT)
    return clips


def _check(archive: zipfile.ZipFile, path: pathlib.Path) -> None:
    """Headers of all arrays: numbers, of the size that the archive says."""
    members = archive.infolist()
    if len(members) > _MOST_ARRAYS or sum(member.file_size for member in members) > _MOST_BYTES:
        found = f"{len(members):,} arrays of {sum(member.file_size for member in members):,} bytes"
        raise InputError("the file is too large", where=path.name, found=found, expected=f"{_MOST_BYTES:,} bytes")
    for member in members:
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
        if dtype.hasobject:
            raise InputError(
                "pickled Python objects, which are never opened: they could run any code",
                where=path.name,
                found=member.filename,
                expected=_LAYOUT,
                cure="write the file anew as plain arrays, if you trust its source; "
                "the module pipelines.data.datasets.pose_h36m has the lines that do it",
            )
        size = int(np.prod([int(length) for length in shape], dtype=object)) * dtype.itemsize
        packed = member.file_size > _RATIO * member.compress_size + 4096
        if dtype.kind not in "fiu" or size > member.file_size or packed:
            found = f"{member.filename}: {dtype}, {shape}"
            raise InputError("not an array of numbers, or cut", where=path.name, found=found, expected=_LAYOUT)


def _clip(parts: list[str], array: NDArray[Any], fps: float, where: str) -> Clip:
    """One array as a clip."""
    subject, action = parts[0], parts[1]
    title, flat = "/".join(parts), len(parts) == 3
    fits = array.ndim == 3 and array.shape[1] in (17, 32) and array.shape[2] == (2 if flat else 3)
    if not fits or not len(array):
        raise InputError("an array of another shape", where=f"{where}, {title}", found=array.shape, expected=_LAYOUT)
    tree = skeleton("h36m17" if array.shape[1] == 17 else "h36m32")
    rest: dict[str, Any] = {"fps": fps, "subject": subject, "action": action}
    if flat:
        rest |= {"unit": "px", "frame": "image", "size": CAMERAS[_camera(parts[2], where)]}
        return convert(Clip.of(title, array, tree, **rest), "h36m17")
    if np.abs(array[np.isfinite(array)]).max(initial=0) > 100:
        found = f"{np.abs(array[np.isfinite(array)]).max():.4g}"
        raise InputError("not metres", where=f"{where}, {title}", found=found, expected="m", cure="divide mm by 1000")
    return convert(Clip.of(title, array, tree, **rest), "h36m17")


def _camera(name: str, where: str) -> str:
    """The name of a camera from its number or its name."""
    if name in CAMERAS:
        return name
    if name in ("0", "1", "2", "3"):
        return list(CAMERAS)[int(name)]
    expected = f"0 to 3, or {', '.join(CAMERAS)}"
    raise InputError("no such camera", where=where, found=repr(name[:20]), expected=expected)


def action_name(action: str) -> str:
    """The action without the number of the recording: the first word, and `Photo` and `TakingPhoto` are one.

    Example:
        >>> action_name("Walking 1"), action_name("WalkTogether"), action_name("TakingPhoto 1")
        ('Walking', 'WalkTogether', 'Photo')
    """
    first = action.split(" ")[0]
    return {"TakingPhoto": "Photo", "WalkingDog": "WalkDog"}.get(first, first)


def read_cameras(path: str | os.PathLike[str]) -> dict[str, dict[str, Camera]]:
    """Read the cameras of each subject from JSON.

    Args:
        path: `{"S1": {"54138969": {"orientation": [w, x, y, z], "translation": [x, y, z] in mm, "focal_length":
            [x, y] px, "center": [x, y] px, "radial_distortion": [k1, k2, k3], "tangential_distortion": [p1, p2]}}}`;
            orientation and translation place the camera in the world, and a list stands for the four in their order.

    Returns:
        subject -> name of the camera -> camera.

    Raises:
        InputError: no such file, no JSON of this layout, a quaternion whose length is not 1.

    Complexity: O(bytes).

    Example:
        >>> import tempfile
        >>> camera = {"orientation": [1, 0, 0, 0], "translation": [0, 0, -4000]}
        >>> camera |= {"focal_length": [1145, 1145], "center": [512, 515]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "cameras.json")
        ...     _ = file.write_text(json.dumps({"S9": [camera] * 4}))
        ...     cameras = read_cameras(file)
        >>> cameras["S9"]["58860488"].size, cameras["S9"]["58860488"].position.tolist()
        ((1000, 1000), [0.0, 0.0, -4.0])
    """
    path = pathlib.Path(path)
    expected = "subjects, in them cameras with orientation, translation, focal_length and center"
    stored = stored_bytes(path, 16.0)
    try:
        content = json.loads(stored)
    except (ValueError, RecursionError) as error:
        raise InputError("not readable JSON", where=path.name, found=str(error)[:80], expected=expected) from error
    out: dict[str, dict[str, Camera]] = {}
    try:
        for subject, cameras in content.items():
            if isinstance(cameras, list):
                cameras = {str(place): camera for place, camera in enumerate(cameras)}
            named = {_camera(name, f"{path.name}, {subject}"): camera for name, camera in cameras.items() if camera}
            out[subject] = {name: _built(camera, name) for name, camera in named.items()}
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        found = f"{type(error).__name__}: {error}"[:80]
        raise InputError("cameras of another layout", where=path.name, found=found, expected=expected) from error
    return out


def _built(camera: Mapping[str, Any], name: str) -> Camera:
    """World to camera from where the camera stands and how it is turned."""
    w, x, y, z = (float(number) for number in camera["orientation"])
    length = (w * w + x * x + y * y + z * z) ** 0.5
    if not 0.99 < length < 1.01:
        raise InputError("a quaternion whose length is not 1", where=f"camera {name}", found=f"{length:.4g}")
    w, x, y, z = w / length, x / length, y / length, z / length
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    place = np.array([float(number) for number in camera["translation"]]) / 1000
    k1, k2, k3 = (*(float(number) for number in camera.get("radial_distortion", ())), 0.0, 0.0, 0.0)[:3]
    p1, p2 = (*(float(number) for number in camera.get("tangential_distortion", ())), 0.0, 0.0)[:2]
    focal, centre = camera["focal_length"], camera["center"]
    return Camera(
        CAMERAS[name],
        (float(focal[0]), float(focal[1])),
        (float(centre[0]), float(centre[1])),
        (k1, k2, p1, p2, k3),
        turn.T,
        -turn.T @ place,
    )


def with_cameras(clips: list[Clip], cameras: Mapping[str, Mapping[str, Camera]]) -> list[Clip]:
    """Each 3-D clip once for each camera of its subject, as the protocols of the data set count them.

    Args:
        clips: of `read_h36m`, world frame.
        cameras: of `read_cameras`.

    Raises:
        InputError: a subject without cameras.

    Complexity: O(clips x cameras); points are shared.

    Example:
        >>> clip = Clip.of("S9/Walking", np.ones((1, 17, 3)), skeleton("h36m17"), subject="S9")
        >>> seen = with_cameras([clip], {"S9": {"54138969": Camera((1000, 1002), (1145, 1145), (512, 515))}})
        >>> seen[0].name
        'S9/Walking/54138969'
    """
    out: list[Clip] = []
    for clip in clips:
        if not cameras.get(clip.subject):
            found, expected = clip.subject or "no subject", ", ".join(cameras)
            raise InputError("a subject without cameras", where=clip.name, found=found, expected=expected)
        out += [clip.but(name=f"{clip.name}/{name}", camera=one) for name, one in cameras[clip.subject].items()]
    return out
