"""Cameras: perspective with distortion, world and camera frames, normalised pixels, random views, the root's place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.data.datasets.pose_rotations import quaternion_of, rotation_of
from pipelines.data.datasets.pose_types import Camera, Clip
from pipelines.data.errors import InputError

__all__ = [
    "ViewRange",
    "Views",
    "camera_of",
    "denormalise",
    "draw_views",
    "look_at",
    "normalise",
    "project",
    "quaternion_of",
    "random_camera",
    "root_depth",
    "rotation_of",
    "see",
    "to_camera",
    "to_world",
    "undistort",
    "unproject",
]

Numbers = NDArray[np.float64]


def camera_of(
    orientation: ArrayLike,
    position: ArrayLike,
    size: tuple[int, int],
    focal: tuple[float, float],
    centre: tuple[float, float],
    distortion: Sequence[float] = (),
) -> Camera:
    """A camera given as in Human3.6M: the quaternion of its own orientation in the world, and where it stands.

    Args:
        orientation: w, x, y, z; its inverse turns the world into the camera frame.
        position: (3,) m; the files have mm.
        size, focal, centre, distortion: see :class:`Camera`.

    Source: the sheet of the data set: rotate `point - position` by the inverse quaternion.

    Example:
        >>> camera = camera_of([1, 0, 0, 0], [0, 0, -4], (1000, 1002), (1145, 1144), (512, 515))
        >>> project(np.array([[0.0, 0.0, 0.0]]), camera).tolist(), camera.position.tolist()
        ([[512.0, 515.0]], [0.0, 0.0, -4.0])
    """
    rotation = rotation_of(orientation).T
    return Camera(size, focal, centre, tuple(distortion), rotation, -rotation @ np.asarray(position, np.float64))


def to_camera(points: ArrayLike, camera: Camera) -> Numbers:
    """Points (..., 3) of the world, m, in the camera frame: x to the right, y down, z forward.

    Complexity: O(points).

    Example:
        >>> to_camera([[0, 0, 2]], look_at((0, 0, 0), (5, 0, 0))).round(6).tolist()  # above: y is negative
        [[0.0, -2.0, 5.0]]
    """
    return np.asarray(points, np.float64) @ camera.rotation.T + camera.translation


def to_world(points: ArrayLike, camera: Camera) -> Numbers:
    """Points (..., 3) of the camera frame, m, in the world; the inverse of :func:`to_camera`.

    Complexity: O(points).

    Example:
        >>> to_world([[0, -2, 5]], look_at((0, 0, 0), (5, 0, 0))).round(6).tolist()
        [[0.0, 0.0, 2.0]]
    """
    return (np.asarray(points, np.float64) - camera.translation) @ camera.rotation


def _coefficients(camera: Camera) -> tuple[float, float, float, float, float]:
    k1, k2, p1, p2, k3 = (*camera.distortion, 0.0, 0.0, 0.0, 0.0, 0.0)[:5]
    return k1, k2, p1, p2, k3


def _reach(camera: Camera) -> float:
    """The tangent of the angle at which the radial distortion folds back: beyond it a pixel means two directions."""
    k1, k2, _, _, k3 = _coefficients(camera)
    roots = np.roots([7 * k3, 5 * k2, 3 * k1, 1.0])  # of the derivative of r (1 + k1 r^2 + k2 r^4 + k3 r^6), in r^2
    real = roots[(np.abs(roots.imag) < 1e-12) & (roots.real > 0)].real
    return float(np.sqrt(real.min())) if real.size else np.inf


def _distort(plane: Numbers, camera: Camera) -> Numbers:
    """Brown's distortion of points (..., 2) on the plane z = 1."""
    k1, k2, p1, p2, k3 = _coefficients(camera)
    x, y = plane[..., 0], plane[..., 1]
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    return np.stack(
        [x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y], -1
    )


def project(points: ArrayLike, camera: Camera, world: bool = True) -> Numbers:
    """Where points are seen, in px; NaN behind the camera and beyond the angle at which its distortion folds back.

    Args:
        points: (..., 3) m.
        camera: with its distortion.
        world: the points are in the world; False: already in the camera frame.

    Returns:
        (..., 2) px; also outside the image.

    Complexity: O(points).

    Source: Brown 1966 as in the usual calibration tools: u = f (x radial + 2 p1 x y + p2 (r^2 + 2 x^2)) + c. The
    loaders of Human3.6M use half the tangential terms: their projections differ by up to a pixel.

    Example:
        >>> project([[0.1, 0.2, 2.0]], Camera((100, 100), (100.0, 100.0), (50.0, 50.0)), world=False).tolist()
        [[55.0, 60.0]]
    """
    there = to_camera(points, camera) if world else np.asarray(points, np.float64)
    depth = there[..., 2:]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        plane = np.where(depth > 0, there[..., :2] / depth, np.nan)
        if camera.distortion:
            plane = np.where(np.linalg.norm(plane, axis=-1, keepdims=True) < _reach(camera), plane, np.nan)
            plane = _distort(plane, camera)
    return plane * np.array(camera.focal) + np.array(camera.centre)


def undistort(pixels: ArrayLike, camera: Camera) -> Numbers:
    """Directions of pixels (..., 2): points on the plane z = 1 of the camera frame; NaN where no direction fits.

    Complexity: O(points) a step of Newton's method, at most 20 steps.

    Example:
        >>> camera = Camera((100, 100), (100.0, 100.0), (50.0, 50.0), (-0.2, 0.1))
        >>> plane = undistort(project([[0.6, 0.8, 2.0]], camera, world=False), camera)
        >>> plane.round(9).tolist()
        [[0.3, 0.4]]
    """
    wanted = (np.asarray(pixels, np.float64) - np.array(camera.centre)) / np.array(camera.focal)
    if not camera.distortion:
        return wanted
    guess, step = wanted.copy(), 1e-6
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        for _ in range(20):
            miss = _distort(guess, camera) - wanted
            if not (np.abs(miss) > 1e-13).any():
                break
            along = [(_distort(guess + d, camera) - _distort(guess - d, camera)) / (2 * step) for d in np.eye(2) * step]
            (a, c), (b, d) = (np.moveaxis(one, -1, 0) for one in along)
            turn = a * d - b * c
            change = np.stack([d * miss[..., 0] - b * miss[..., 1], a * miss[..., 1] - c * miss[..., 0]], -1)
            guess = guess - change / turn[..., None]
        inside = np.linalg.norm(guess, axis=-1) < _reach(camera)
        good = (np.abs(_distort(guess, camera) - wanted).max(-1) < 1e-9) & inside
    return np.where(good[..., None], guess, np.nan)


def unproject(pixels: ArrayLike, depth: ArrayLike, camera: Camera, world: bool = True) -> Numbers:
    """The points (..., 3), m, seen at pixels (..., 2) at depths (...) along the camera's z, m; undoes :func:`project`.

    Args:
        pixels: px.
        depth: m, along z of the camera frame; not the distance.
        camera: with its distortion.
        world: whether to give points of the world; False: of the camera frame.

    Complexity: O(points).

    Example:
        >>> unproject([[55.0, 60.0]], 2.0, Camera((100, 100), (100.0, 100.0), (50.0, 50.0)), world=False).tolist()
        [[0.1, 0.2, 2.0]]
    """
    plane = undistort(pixels, camera)
    points = np.concatenate([plane, np.ones_like(plane[..., :1])], -1) * np.asarray(depth, np.float64)[..., None]
    return to_world(points, camera) if world else points


def normalise(pixels: ArrayLike, size: tuple[int, int]) -> Numbers:
    """Pixels (..., 2) as the models want them: x / w * 2 - 1 and y / w * 2 - h / w; the aspect ratio is kept.

    Raises:
        InputError: no width or height.

    Source: the sheet, section 6: normalised by the width.

    Example:
        >>> normalise([[0, 0], [640, 480]], (640, 480)).tolist()
        [[-1.0, -0.75], [1.0, 0.75]]
    """
    w, h = _sized(size)
    return np.asarray(pixels, np.float64) / w * 2 - np.array([1.0, h / w])


def denormalise(points: ArrayLike, size: tuple[int, int]) -> Numbers:
    """The pixels of normalised points (..., 2): the inverse of :func:`normalise`.

    Example:
        >>> denormalise([[-1.0, -0.75], [1.0, 0.75]], (640, 480)).tolist()
        [[0.0, 0.0], [640.0, 480.0]]
    """
    w, h = _sized(size)
    return (np.asarray(points, np.float64) + np.array([1.0, h / w])) * w / 2


def _sized(size: tuple[int, int]) -> tuple[int, int]:
    if len(size) != 2 or min(size) < 1:
        raise InputError("no such image", where="size", found=size, expected="width and height, px")
    return size[0], size[1]


def look_at(
    target: ArrayLike,
    position: ArrayLike,
    size: tuple[int, int] = (1000, 1000),
    focal: float = 1145.0,
) -> Camera:
    """A camera at a place of the world (z up) that has the target in the middle of its upright image.

    Args:
        target, position: (3,) m.
        size: px.
        focal: px.

    Raises:
        InputError: the camera would stand in the target, or straight above or below it.

    Example:
        >>> camera = look_at((0, 0, 1), (4, 0, 1))
        >>> project([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]], camera).round(3).tolist()
        [[500.0, 500.0], [786.25, 500.0]]
    """
    place = np.asarray(position, np.float64)
    forward = np.asarray(target, np.float64) - place
    right = np.cross(forward, [0.0, 0.0, 1.0])
    if not np.linalg.norm(right) > 1e-9 * max(np.linalg.norm(forward), 1e-9):
        raise InputError("no upright image from there", where="position", found=place.tolist(), expected="beside it")
    forward, right = forward / np.linalg.norm(forward), right / np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    middle = (size[0] / 2, size[1] / 2)
    return Camera(size, (focal, focal), middle, (), rotation, -rotation @ place)


@dataclass(frozen=True)
class ViewRange:
    """What random cameras are drawn from; all uniform.

    Args:
        size: of the image, px.
        focal: px.
        distance: from the target, m.
        yaw: degrees about the vertical.
        pitch: degrees above the horizon, from which the camera looks down.

    Raises:
        InputError: a range that is none, a pitch of 90 degrees or more.

    Example:
        >>> ViewRange(distance=(4.0, 4.0)).focal
        1145.0
    """

    size: tuple[int, int] = (1000, 1000)
    focal: float = 1145.0
    distance: tuple[float, float] = (3.5, 6.0)
    yaw: tuple[float, float] = (-180.0, 180.0)
    pitch: tuple[float, float] = (-5.0, 25.0)

    def __post_init__(self) -> None:
        _sized(self.size)
        for name, (low, high) in {"distance": self.distance, "yaw": self.yaw, "pitch": self.pitch}.items():
            if not low <= high:
                raise InputError("not a range", where=name, found=f"{low} to {high}", expected="low, high")
        if not (self.distance[0] > 0 and self.focal > 0 and self.pitch[0] > -90 and self.pitch[1] < 90):
            expected = "a distance and focal length above 0, pitch within 90 degrees"
            raise InputError("no such cameras", where="views", found=self, expected=expected)


def random_camera(generator: np.random.Generator, target: ArrayLike, ranges: ViewRange | None = None) -> Camera:
    """A random camera that looks at a target (3,), m; the same for the same state of the generator.

    Example:
        >>> camera = random_camera(np.random.default_rng(0), (0, 0, 1))
        >>> bool(3.5 <= np.linalg.norm(camera.position - [0, 0, 1]) <= 6), project([[0, 0, 1]], camera).round().tolist()
        (True, [[500.0, 500.0]])
    """
    ranges = ranges or ViewRange()
    distance, yaw, pitch = (generator.uniform(*one) for one in (ranges.distance, ranges.yaw, ranges.pitch))
    yaw, pitch = np.radians(yaw), np.radians(pitch)
    away = np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)])
    middle = np.asarray(target, np.float64)
    return look_at(middle, middle + distance * away, ranges.size, ranges.focal)


@dataclass(frozen=True, eq=False)
class Views:
    """What random cameras saw of N clips of T frames.

    Args:
        points: (N, T, J, 3) m, camera frames.
        pixels: (N, T, J, 2) px; 0 where a joint is missing or not in front of the camera.
        inside: (N, T, J): the joint is there and within the image.
        cameras: N.
        redraws: how many cameras were drawn again because the body was not within the image.
        outside: how many joints remain outside the image after the last try.
    """

    points: Numbers
    pixels: Numbers
    inside: NDArray[np.bool_]
    cameras: tuple[Camera, ...]
    redraws: int
    outside: int

    @property
    def notes(self) -> tuple[str, ...]:
        """What was drawn again and what remains outside, counted."""
        said = f"{len(self.cameras)} random cameras, {self.redraws} drawn again because the body left the image"
        return (said, f"{self.outside} joints outside the image") if self.outside else (said,)


def draw_views(
    points: NDArray[np.floating],
    generator: np.random.Generator,
    valid: NDArray[np.bool_] | None = None,
    ranges: ViewRange | None = None,
    tries: int = 20,
) -> Views:
    """See each of N clips with a random camera that looks at the middle of its joints and has the body in its image.

    Args:
        points: (N, T, J, 3) m, world.
        generator: decides everything.
        valid: (N, T, J) or None: all there.
        ranges: of the cameras.
        tries: cameras a clip; after the last the one with the fewest joints outside stays, which is counted.

    Raises:
        InputError: other shapes, no try.

    Complexity: O(N T J), times the tries.

    Example:
        >>> body = np.random.default_rng(0).normal((0, 0, 1), 0.3, (2, 9, 17, 3))
        >>> views = draw_views(body, np.random.default_rng(1))
        >>> views.pixels.shape, bool(views.inside.all()), views.outside
        ((2, 9, 17, 2), True, 0)
    """
    if points.ndim != 4 or points.shape[-1] != 3 or not points.size or tries < 1:
        found = f"{points.shape}, {tries} tries"
        raise InputError("not clips to look at", where="views", found=found, expected="(N, T, J, 3), one try or more")
    ranges, there = ranges or ViewRange(), np.ones(points.shape[:3], bool) if valid is None else valid
    seen, pixels, inside = np.zeros(points.shape), np.zeros((*points.shape[:3], 2)), np.zeros(points.shape[:3], bool)
    cameras, redraws, outside = [], 0, 0
    for one, (clip, known) in enumerate(zip(points.astype(np.float64), there, strict=True)):
        middle = clip[known]
        target = (middle.min(0) + middle.max(0)) / 2 if len(middle) else np.zeros(3)
        fewest, best = known.sum() + 1, None
        for attempt in range(tries):
            camera = random_camera(generator, target, ranges)
            px = project(clip, camera)
            within = known & (px >= 0).all(-1) & (px <= ranges.size).all(-1)
            lost = int((known & ~within).sum())
            if lost < fewest:
                fewest, best = lost, (camera, px, within)
            if not lost:
                redraws += attempt
                break
        else:
            redraws += tries - 1
        if best is not None:
            camera, px, inside[one] = best
            seen[one] = to_camera(clip, camera)
            pixels[one] = np.where(known[..., None] & np.isfinite(px), px, 0.0)
            cameras.append(camera)
            outside += int(fewest)
    return Views(seen, pixels, inside, tuple(cameras), redraws, outside)


def see(clip: Clip, camera: Camera) -> tuple[Clip, Clip]:
    """A clip of the world as a camera sees it: (pixels (T, J, 2), points of the camera frame (T, J, 3)).

    Joints behind the camera or outside its image are missing in the pixels, and counted.

    Raises:
        InputError: a clip that is not 3-D in the world, in m.

    Complexity: O(T J).

    Example:
        >>> from pipelines.data.datasets.pose_skeletons import skeleton
        >>> flat, deep = see(Clip.of("a", np.zeros((2, 17, 3)), skeleton("h36m17")), look_at((0, 0, 0), (4, 0, 0)))
        >>> flat.unit, flat.points[0, 0].tolist(), deep.frame, deep.points[0, 0].round(3).tolist()
        ('px', [500.0, 500.0], 'camera', [0.0, 0.0, 4.0])
    """
    if clip.dims != 3 or clip.unit != "m" or clip.frame != "world":
        found = f"{clip.dims}-D, {clip.unit}, {clip.frame}"
        raise InputError("not a clip of the world", where=clip.name, found=found, expected="3-D, m, world")
    points, pixels = to_camera(clip.points, camera), project(clip.points, camera)
    with np.errstate(invalid="ignore"):
        inside = clip.valid & (pixels >= 0).all(-1) & (pixels <= camera.size).all(-1)
    lost = int((clip.valid & ~inside).sum())
    notes = (f"{lost} joint{'s' if lost > 1 else ''} outside the image: missing in the pixels",) if lost else ()
    deep = clip.but(points=points, frame="camera", camera=camera, size=camera.size)
    flat = np.where(inside[..., None], pixels, 0.0)
    seen = clip.but(*notes, points=flat, valid=inside, unit="px", frame="image", camera=camera, size=camera.size)
    return seen, deep


def root_depth(
    points2d: ArrayLike, pose3d: ArrayLike, camera: Camera, valid: NDArray[np.bool_] | None = None
) -> Numbers:
    """Where the root stands in the camera frame, frame by frame, so that a root-relative pose falls on its pixels.

    Args:
        points2d: (T, J, 2) px.
        pose3d: (T, J, 3) m, root-relative, axes of the camera frame. Its scale decides the distance.
        camera: focal length, centre and distortion count; a guessed focal length scales the distance.
        valid: (T, J) or None: all there.

    Returns:
        (T, 3) m; NaN where fewer than two joints are there or they lie on one ray.

    Raises:
        InputError: shapes that do not fit together.

    Complexity: O(T J).

    Source: least squares of (X + t_x) - x (Z + t_z) = 0 and the same for y, (x, y) the undistorted pixel on the plane
    z = 1; weighted three times by one over the depth, so that pixels count and not metres.

    Example:
        >>> camera = Camera((1000, 1000), (1145.0, 1145.0), (500.0, 500.0))
        >>> pose = np.random.default_rng(0).normal(0, 0.3, (1, 17, 3))
        >>> pose[:, 0] = 0
        >>> root_depth(project(pose + [0.2, 0.1, 4.0], camera, world=False), pose, camera).round(6).tolist()
        [[0.2, 0.1, 4.0]]
    """
    pose, pixels = np.asarray(pose3d, np.float64), np.asarray(points2d, np.float64)
    if pose.ndim != 3 or pose.shape[2] != 3 or pixels.shape != (*pose.shape[:2], 2):
        raise InputError("pixels and pose differ", where="root", found=f"{pixels.shape} and {pose.shape}")
    plane = undistort(pixels, camera)
    known = np.isfinite(plane).all(-1) & np.isfinite(pose).all(-1)
    there = np.asarray(known if valid is None else known & valid, np.bool_)
    plane, pose = np.where(there[..., None], plane, 0.0), np.where(there[..., None], pose, 0.0)
    # Two rows a joint: (1, 0, -x) t = x Z - X and (0, 1, -y) t = y Z - Y.
    rows = np.zeros((*plane.shape, 3))
    rows[..., 0, 0] = rows[..., 1, 1] = 1.0
    rows[..., 2] = -plane
    right = plane * pose[..., 2:] - pose[..., :2]
    found = np.full((len(pose), 3), np.nan)
    depth = np.ones(there.shape)
    for _ in range(3):
        weight = np.where(there, 1 / depth**2, 0.0)
        matrix = np.einsum("tj,tjia,tjib->tab", weight, rows, rows)
        vector = np.einsum("tj,tjia,tji->ta", weight, rows, right)
        spread = np.linalg.eigvalsh(matrix / np.maximum(weight.sum(1), 1e-12)[:, None, None])[:, 0]
        usable = (there.sum(1) >= 2) & (spread > 1e-10)
        found[usable] = np.linalg.solve(matrix[usable], vector[usable][..., None])[..., 0]
        depth = np.maximum(np.where(usable, found[:, 2], 1.0)[:, None] + pose[..., 2], 0.1)
    return found
