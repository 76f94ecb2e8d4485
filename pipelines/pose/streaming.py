"""Poses while the joints still arrive: frames of 2-D joints in, 3-D poses out some frames later, in constant memory."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.pose_cameras import root_depth
from pipelines.data.datasets.pose_skeletons import skeleton
from pipelines.data.datasets.pose_types import Camera, Clip
from pipelines.data.formats.pose_source import numbers_of
from pipelines.errors import ConfigError, InputError
from pipelines.pose import engine
from pipelines.pose.material import joints_of
from pipelines.pose.options import SKELETON
from pipelines.pose.stream_files import Growing, gathered, opened, paced
from pipelines.pose.stream_intake import FrameRate, Intake, lifter_frame
from pipelines.pose.stream_lines import read_frames
from pipelines.pose.stream_window import FrameWindow
from pipelines.pose.tracks import AXES

if TYPE_CHECKING:
    from pipelines.pose.pipeline import PoseLifter

__all__ = ["LINE_ENDINGS", "LivePoses", "PoseFrame"]

#: Files of these endings hold a frame a line; others are read as a whole and then given frame by frame.
LINE_ENDINGS = (".jsonl", ".ndjson", ".csv", ".tsv", ".txt")
_GOAL_MS = 200.0  # what a latency is compared with
_WARM, _MEASURED = 2, 5
_LONGEST_GAP = 300  # frames that a source leaves out, which are taken to be without joints
_MOST_NOTES = 40


@dataclasses.dataclass(frozen=True, eq=False)
class PoseFrame:
    """The pose of one frame.

    Attributes:
        frame: its number in the clip, from 0, at the rate of the answers.
        time: its second in the clip.
        points: (17, 3) m, relative to the hip, axes of the camera.
        sigma: (17,) mm, how far off a joint is expected to be.
        seen: (17,) which joints were there in the frame itself.
        root: (3,) m, where the hip is; None where no focal length was given or it cannot be told.
        compute_ms: from the frame that made this answer possible to the answer.
    """

    frame: int
    time: float
    points: NDArray[np.float32]
    sigma: NDArray[np.float32]
    seen: NDArray[np.bool_]
    root: NDArray[np.float32] | None
    compute_ms: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values: m to the micrometre, mm to the micrometre; names of the joints that were not seen."""
        names = skeleton(SKELETON).joints
        root = {} if self.root is None else {"root": [round(float(one), 6) for one in self.root]}
        return {
            "kind": "pose",
            "frame": self.frame,
            "time_s": round(self.time, 6),
            "points": np.round(self.points.astype(np.float64), 6).tolist(),
            "sigma_mm": np.round(self.sigma.astype(np.float64), 3).tolist(),
            **root,
            "missing": [name for name, there in zip(names, self.seen, strict=True) if not there],
            "compute_ms": round(self.compute_ms, 3),
        }


class LivePoses:
    """Joints in, poses out; made by ``PoseLifter.stream()``.

    The pose of a frame comes `delay` frames after it. At the default, half of the model's window, and after
    :meth:`finish` the poses are those that :meth:`PoseLifter.predict` finds in the whole clip. At a smaller delay the
    newest frame stands for those that the window still lacks: sooner, but less exact; 0 waits for nothing. Shipped
    weights, MPJPE at 4, 2 and 0 frames: 121.6, 121.7 and 123.7 mm on walks of CMU, 101.5, 101.9 and 114.9 mm on the
    embedded motions, which are faster. Joints at another frame rate than the model's are resampled as they come, linear
    between neighbours; :attr:`delay_ms` counts the wait for the later one.

    Events (:meth:`events`) are dictionaries of plain values: ``start`` (units, axes, joints, latency), one ``pose`` a
    frame, and ``end`` (counts, measured times, notes).

    Args:
        m: a fitted pipeline.
        delay: frames of the model; None: half of the window.
        follow: whether files of lines are waited on for more, for :meth:`events` alone.
        realtime: whether frames of files come at the pace at which they were seen, for :meth:`events` alone.

    Attributes:
        delay: frames.
        fps: of the answers, Hz.
        compute_ms: of an answer, measured at the start.

    Raises:
        ConfigError: a delay that the window does not have.

    Complexity: O(window) memory and work a frame.

    Example:
        >>> from pipelines.pose.pipeline import PoseLifter
        >>> PoseLifter(frames=5).stream()
        Traceback (most recent call last):
        pipelines.errors.ConfigError: PoseLifter.stream: there is no fitted model. ...
    """

    def __init__(
        self, m: PoseLifter, *, delay: int | None = None, follow: bool = False, realtime: bool = False
    ) -> None:
        self._m, self._fitted = m, m.state
        self._length = self._fitted.module.config.frames
        self.delay = self._length // 2 if delay is None else delay
        FrameWindow(self._length, self.delay)
        self._follow, self._realtime = follow, realtime
        self._say: Callable[[str], None] = lambda text: None
        self._frames = self._answers = 0
        from pipelines.cli.streaming import Latency

        self._times = Latency()
        self.compute_ms = self._measured()
        self.reset()

    def _measured(self) -> float:
        """Milliseconds of an answer; what loads at the first use (a second) is loaded."""
        rows = np.random.default_rng(0).random((1, self._length, len(skeleton(SKELETON)), 3)).astype(np.float32)
        times = []
        for _ in range(_WARM + _MEASURED):
            began = time.perf_counter()
            engine.lift_windows(self._fitted, rows)
            times.append(time.perf_counter() - began)
        return 1e3 * float(np.median(times[_WARM:]))

    def reset(self) -> None:
        """Forget what came: the next frame begins another clip at second 0."""
        self._begin("stream", self._m.read.fps)

    def _begin(self, name: str, fps: float | None) -> None:
        self.notes: list[str] = []
        self._name, self._input_fps = name, fps
        model = self._fitted.fps
        self._rate = FrameRate(fps, model) if fps is not None and abs(fps - model) > 0.5 else None
        self.fps: float = model if self._rate is not None or fps is None else fps
        self._intake = Intake(self._m.read, fps, self._note)
        self._window = FrameWindow(self._length, self.delay)
        self._seen: deque[Clip] = deque()  # frames without an answer yet
        self._number = self._came = self._gaps = 0
        self._started = self._converted = False

    @property
    def delay_ms(self) -> float:
        """Milliseconds from a frame to the one that makes its answer possible, at most."""
        wait = self._rate.wait if self._rate is not None else 0.0
        return 1e3 * (self.delay / self.fps + wait)

    @property
    def latency_ms(self) -> float:
        """Milliseconds from a frame to its answer: the delay, and the work as it was measured at the start."""
        return self.delay_ms + self.compute_ms

    # Frame by frame ------------------------------------------------------------------------------------------------

    def push(self, joints: Any, valid: Any = None) -> PoseFrame | None:
        """Take the next frame; gives the pose that it makes possible, None where there is none yet.

        Args:
            joints: (J, 2), or (J, 3) with how sure the detector is; NaN where a joint is missing. None: nobody seen.
            valid: (J,) which joints are there; None: all that are finite.

        Raises:
            InputError: joints that do not fit, see :class:`~pipelines.pose.stream_intake.Intake`.
            ConfigError: a source slower than the model: a frame may make two poses possible, which :meth:`feed` gives.
        """
        if self._rate is not None and self._rate.step < 1:
            raise ConfigError("one frame may make several poses possible", where="LivePoses.push",
                              found=f"{self._input_fps:g} Hz", expected=f"{self._fitted.fps:g} Hz or more",
                              cure="call feed, which gives a list")  # fmt: skip
        found = self.feed(joints, valid)
        return found[0] if found else None

    def feed(self, joints: Any, valid: Any = None) -> list[PoseFrame]:
        """As :meth:`push`, all poses that the frame makes possible: one, none, or several of a slow source."""
        where = f"frame {self._came}"
        values = None if joints is None else numbers_of(joints, where)
        return self._take(values, None if valid is None else np.asarray(valid), None, where)

    def finish(self) -> list[PoseFrame]:
        """The stream is over: the last poses; the next frame begins another clip."""
        found = list(self._rest())
        self.reset()
        return found

    def run(self, frames: Iterable[Any]) -> Iterator[PoseFrame]:
        """The poses of an iterable of frames, each as soon as it is possible."""
        for joints in frames:
            yield from self.feed(joints)
        yield from self.finish()

    def _take(
        self,
        joints: NDArray[np.float64] | None,
        valid: NDArray[np.bool_] | None,
        names: tuple[str, ...] | None,
        where: str,
    ) -> list[PoseFrame]:
        began = time.perf_counter()
        return self._lifted(self._intake.take(joints, valid, names=names, where=where), where, began)

    def _lifted(self, clip: Clip, where: str, began: float) -> list[PoseFrame]:
        """Answers that one more frame of the source makes possible."""
        first = lifter_frame(clip, where)  # what is wrong is said of the line, not of what is resampled from it
        known = [first] if self._rate is None else [lifter_frame(one, where) for one in self._rate.push(clip)]
        self._came += 1
        self._frames += 1
        if first[2] and not self._converted:
            self._converted = True
            self._note(first[2][0])
        found = []
        for x, body, _ in known:
            self._seen.append(body)
            self._window.push(x)
            if self._window.ready:
                found.append(self._answer(began))
        return found

    def _rest(self) -> Iterator[PoseFrame]:
        for _ in range(self._window.waiting):
            yield self._answer(time.perf_counter())

    def _answer(self, began: float) -> PoseFrame:
        """The pose of the oldest frame that has none."""
        points, sigma = (values[0] for values in engine.lift_windows(self._fitted, self._window.oldest()[None]))
        body = self._seen[0]
        root = self._root(body, points)
        if not (np.isfinite(points).all() and np.isfinite(sigma).all()):
            raise InputError("no pose can be made of these joints", where=f"frame {self._number}",
                             found="an answer that is not finite", expected="joints of a person")  # fmt: skip
        spent = time.perf_counter() - began
        pose = PoseFrame(self._number, self._number / self.fps, points, sigma, body.valid[0], root, 1e3 * spent)
        self._seen.popleft()
        self._number = self._window.answered()
        self._answers += 1
        self._times.add(spent)
        return pose

    def _root(self, body: Clip, points: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Where the hip is under a pinhole camera of the focal length given."""
        focal = self._m.focal
        if focal is None or body.unit != "px" or body.size is None:
            return None
        width, height = body.size
        camera = Camera(body.size, (focal, focal), (width / 2, height / 2))
        found = root_depth(body.points, points[None], camera, body.valid)[0]
        return found.astype(np.float32) if np.isfinite(found).all() else None

    # A source from its beginning to its end -------------------------------------------------------------------------

    def events(self, source: str, say: Callable[[str], None] = lambda text: None) -> Iterator[dict[str, Any]]:
        """The events of a whole source, each as soon as it is known.

        Args:
            source: a file of lines, a file of joints in any format that `predict` reads, or ``-``: standard input.
            say: hears the notes.

        Raises:
            InputError: a source that cannot be read, or a line that is no frame; answers before it have been given,
                those of the frames that still waited too.
        """
        shown = "standard input" if source == "-" else source
        self._say = lambda text: say(f"note: {shown}: {text}")
        try:
            yield from self._lines(source) if self._is_lines(source) else self._whole(source)
        except InputError:
            yield from self.flush()
            raise
        yield from self.flush()

    def _is_lines(self, source: str) -> bool:
        return source == "-" or self._follow or Path(source).suffix.lower() in LINE_ENDINGS

    def _lines(self, source: str) -> Iterator[dict[str, Any]]:
        name = "standard input" if source == "-" else Path(source).name
        file: Any
        if source == "-":
            if sys.stdin is None:
                raise InputError("standard input is closed", where="-", cure="name a file, or pipe lines in")
            file = getattr(sys.stdin, "buffer", sys.stdin)
        else:
            file = opened(Path(source))
        try:
            lines = Growing(file, name) if self._follow and source != "-" else file
            pace = self._pace(self._m.read.fps) if source != "-" else None
            last: int | None = None
            for line in read_frames(lines, self._m.read, source=name, say=self._note):
                if line.begins:
                    yield from self.flush()
                    self._begin(name, self._m.read.fps)
                    last = None
                if pace is not None:
                    next(pace)
                for _ in range(self._gap(last, line.frame, line.where)):
                    yield from self._told(self._take(None, None, None, line.where), source)
                last = line.frame
                yield from self._told(self._take(line.joints, None, line.names, line.where), source)
        finally:
            if source != "-":
                file.close()

    def _whole(self, source: str) -> Iterator[dict[str, Any]]:
        for clip in joints_of(self._m, source):
            yield from self.flush()
            self._begin(clip.name if not clip.person else f"{clip.name}, person {clip.person}", clip.fps)
            for note in clip.notes:
                self._note(note)
            pace = self._pace(clip.fps)
            for number in range(clip.frames):
                if pace is not None:
                    next(pace)
                rows = slice(number, number + 1)
                one = clip.but(points=clip.points[rows], valid=clip.valid[rows], confidence=None, notes=())
                self._intake.count(one)
                yield from self._told(self._lifted(one, f"{clip.name}, frame {number}", time.perf_counter()), source)

    def _pace(self, fps: float | None) -> Iterator[None] | None:
        return paced(fps or self._fitted.fps) if self._realtime else None

    def _gap(self, last: int | None, frame: int | None, where: str) -> int:
        """Frames that the source left out before this one."""
        if last is None or frame is None:
            return 0
        if not 0 < frame - last <= _LONGEST_GAP + 1:
            raise InputError("the numbers of the frames do not rise one by one", where=where,
                             found=f"frame {frame} after {last}", expected=f"{last + 1}",
                             cure="an empty line begins another clip")  # fmt: skip
        self._gaps += frame - last - 1
        return frame - last - 1

    def flush(self) -> list[dict[str, Any]]:
        """What remains to be told of a clip that is over or was interrupted; the next one begins at second 0."""
        if not self._came:
            return []
        told = [*self._told(list(self._rest()), self._name), self._end()]
        self.reset()
        return told

    def _told(self, poses: list[PoseFrame], source: str) -> Iterator[dict[str, Any]]:
        if not self._started:
            self._started = True
            yield self._start("standard input" if source == "-" else source)
        yield from (pose.to_dict() for pose in poses)

    def _start(self, source: str) -> dict[str, Any]:
        """Whose poses follow, in which unit and axes, how late."""
        if self._input_fps is None:
            self._note(f"the frame rate is not known: taken to be {self.fps:g} Hz (--read.fps)")
        elif self._rate is not None:
            waits = f"; up to {1e3 * self._rate.wait:.1f} ms are waited for the later one" if self._rate.wait else ""
            how = "linear between neighbours" if self._rate.wait else f"every {self._rate.step:g} frames"
            self._note(f"{self._input_fps:g} Hz to {self.fps:g} Hz, the model's frame rate: {how}{waits}")
        if self.delay < self._length // 2:
            lacking = self._length // 2 - self.delay
            self._note(f"the newest frame stands for the {lacking} last of each window of {self._length} frames")
        if self.latency_ms > _GOAL_MS:
            fits = int((_GOAL_MS - self.latency_ms + 1e3 * self.delay / self.fps) * self.fps / 1e3)
            cure = f": --delay {fits} keeps it under {_GOAL_MS:g} ms" if 0 <= fits < self.delay else ""
            self._note(f"an answer comes {self.latency_ms:.0f} ms after its frame{cure}")
        tree = skeleton(SKELETON)
        return {
            "kind": "start",
            "source": source,
            "clip": self._name,
            "model": self._m.model,
            "window": self._length,
            "delay_frames": self.delay,
            "delay_ms": round(self.delay_ms, 1),
            "compute_ms": round(self.compute_ms, 2),
            "latency_ms": round(self.latency_ms, 1),
            "fps": self.fps,
            "input_fps": self._input_fps,
            "unit": "m",
            "frame": "camera",
            "axes": AXES["camera"],
            "relative_to": tree.joints[tree.root],
            "skeleton": tree.name,
            "joints": list(tree.joints),
        }

    def _end(self) -> dict[str, Any]:
        self._intake.end()
        if self._gaps:
            self._note(f"{self._gaps:,} frames that the source leaves out are taken to be without joints")
        edge = min(self._length // 2, self._number)
        if self._number > 1:
            self._note(f"the first and last {edge} frames see copies of the edge frames")
        return {
            "kind": "end",
            "clip": self._name,
            "frames": self._number,
            "input_frames": self._came,
            "missing_joints": self._intake.missing,
            "delay_ms": round(self.delay_ms, 1),
            "compute_ms": self._quantiles(0.0),
            "latency_ms": self._quantiles(self.delay_ms),
            "notes": list(self.notes),
        }

    def _quantiles(self, more: float) -> dict[str, float]:
        return {
            name: round(more + 1e3 * self._times.quantile(share), 2) for name, share in (("median", 0.5), ("p95", 0.95))
        }

    def gather(self, lines: Path, target: Path) -> None:
        """Turn the written lines of a stream into the file that was asked for."""
        gathered(self._m, lines, target)

    def summary(self) -> str:
        """One line on all sources: frames, answers, the work of an answer, and how long after its frame it comes."""
        said = f"{self._frames:,} frames, {self._answers:,} poses"
        if not self._answers:
            return said
        work, late = self._quantiles(0.0), self._quantiles(self.delay_ms)
        said += f"; work a pose: median {work['median']:.2f} ms, 95th percentile {work['p95']:.2f} ms"
        return f"{said}; each {self.delay} frames ({self.delay_ms:.1f} ms) late: {late['p95']:.1f} ms in all"

    def _note(self, text: str) -> None:
        if text not in self.notes and len(self.notes) < _MOST_NOTES:
            self.notes.append(text)
            self._say(text)
