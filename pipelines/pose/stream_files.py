"""Where streams of joints come from and where answers are gathered: growing files, a pace, and NPZ out of lines."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from pipelines.data.datasets.pose_skeletons import skeleton
from pipelines.data.errors import InputError
from pipelines.pose.tracks import Track

if TYPE_CHECKING:
    from pipelines.pose.pipeline import PoseLifter

__all__ = ["Growing", "gathered", "opened", "paced"]

_WAIT = 0.005  # seconds between two looks at a file that grows


class Growing:
    """A file that another program still writes: a line is given when its end has come, and the file never ends.

    Args:
        file: open, bytes.
        name: for messages.
        asleep: waits so many seconds.

    Raises:
        InputError: when read, a file that has become shorter.

    Example:
        >>> import io
        >>> file = io.BytesIO(b"[1]\\n[2")
        >>> def written(seconds: float) -> None:
        ...     file.seek(0, 2); _ = file.write(b", 3]\\n"); file.seek(6)
        >>> lines = Growing(file, "a.jsonl", written)
        >>> lines.readline(), lines.readline()
        (b'[1]\\n', b'[2, 3]\\n')
    """

    def __init__(self, file: IO[bytes], name: str, asleep: Callable[[float], object] = time.sleep) -> None:
        self._file, self._name, self._asleep = file, name, asleep

    def readline(self, size: int = -1, /) -> bytes:
        """The next whole line; waits for it."""
        line = b""
        while not line.endswith(b"\n") and (size < 0 or len(line) < size):
            part = self._file.readline(size - len(line) if size >= 0 else -1)
            if not part:
                self._check()
                self._asleep(_WAIT)
            line += part
        return line

    def _check(self) -> None:
        place = self._file.tell()
        self._file.seek(0, os.SEEK_END)
        if self._file.tell() < place:
            raise InputError("the file has become shorter", where=self._name, found=f"{self._file.tell():,} bytes",
                             expected=f"{place:,} or more", cure="begin again")  # fmt: skip
        self._file.seek(place)


def opened(path: Path) -> IO[bytes]:
    """The file, open.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return path.open("rb")
    except OSError as error:
        cure = "check the path and its permissions"
        raise InputError("cannot be read", where=path, found=error.strerror, cure=cure) from error


def paced(fps: float, clock: Callable[[], float] = time.perf_counter) -> Iterator[None]:
    """Each step comes 1 / fps seconds after the one before, at the earliest.

    Example:
        >>> began = time.perf_counter()
        >>> for _ in zip(range(4), paced(100.0)):
        ...     pass
        >>> time.perf_counter() - began >= 0.03
        True
    """
    began, count = clock(), 0
    while True:
        ahead = began + count / fps - clock()
        if ahead > 0:
            time.sleep(ahead)
        yield
        count += 1


def gathered(m: PoseLifter, lines: Path, target: Path) -> None:
    """Write the answers of a stream, which stand in a file of JSON lines, as `predict` writes poses.

    Raises:
        InputError: nothing was answered.
        RunError: the disk is full or not writable.

    Complexity: O(T J) memory: this is done once, after the stream.
    """
    from pipelines.pose.result import Poses

    tracks: list[Track] = []
    start: dict[str, Any] = {}
    frames: list[dict[str, Any]] = []
    with lines.open(encoding="utf-8") as file:
        for text in file:
            event = json.loads(text)
            if event["kind"] == "start":
                start, frames = event, []
            elif event["kind"] == "pose":
                frames.append(event)
            elif frames:
                tracks.append(_track(start, frames, event))
                frames = []
    if not tracks:
        raise InputError("nothing was answered", where=target, found="0 frames", expected="1 or more")
    told = (f"answered as the frames came, {start['delay_frames']} frames after each; the 2-D joints are not in here",)
    Poses(m.model, m.provenance(start["source"]), tracks, told=told, run=m.run).save(target)


def _track(start: dict[str, Any], frames: list[dict[str, Any]], end: dict[str, Any]) -> Track:
    points = np.array([one["points"] for one in frames], np.float32)
    roots = [one.get("root") for one in frames]
    return Track(
        start["clip"],
        points,
        np.ones(points.shape[:2], np.bool_),
        skeleton(start["skeleton"]),
        start["fps"],
        "camera",
        None if any(root is None for root in roots) else np.array(roots, np.float32),
        np.array([one["sigma_mm"] for one in frames], np.float32),
        notes=tuple(end["notes"]),
    )
