"""What streaming costs: the latency of an answer, and the error by the number of frames that are waited for.

    python tests/performance/bench_pose_stream.py [--data CMU.tar.xz] [--subjects 07,08,16] [--clips 8] [--longest 120]
        [--model FOLDER] [--json]

Motion capture of people whom the model that ships has not learned from is seen by one camera and lifted frame by
frame, for each delay from 0 to half of the window. Parity comes first: at the whole delay the answers must be those
of `predict` within 1e-5 m, else nothing is measured. Times are of one thread, in seconds of the wall and of the
processor, which a machine that is busy otherwise leaves nearly alone; the latency that is compared with 200 ms is the
stated delay and the processor's time. Errors are MPJPE in mm and MPJVE in mm a frame.
`grown_bytes` is what Python and NumPy hold more after all frames than in the middle.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
import time
import tracemalloc
from typing import Any

import numpy as np
import torch

from pipelines import PoseLifter, load
from pipelines.data.datasets.pose_types import Clip
from pipelines.pose import engine
from pipelines.pose.material import View, model_input, motion_of, view_of
from pipelines.pose.stream_window import FrameWindow

GOAL_MS = 200.0
ROOT = pathlib.Path(__file__).parents[2]
DATA = pathlib.Path(os.environ.get("PIPELINES_DATA", ROOT.parent / "shared" / "data"))


def raw(clip: Clip) -> np.ndarray:
    """Joints (T, J, 2) px, NaN where missing."""
    return np.where(clip.valid[..., None], clip.points, np.nan)


def views_of(m: PoseLifter, data: str, subjects: list[str], clips: int, longest: int) -> list[View]:
    """Some clips of the subjects, evenly chosen, at most so many frames of each, by one camera."""
    own = [clip for clip in motion_of(m, data)[0] if clip.subject in subjects] if subjects else motion_of(m, data)[0]
    chosen = [own[int(place)] for place in np.linspace(0, len(own) - 1, min(clips, len(own)))]
    cut = [clip.but(points=clip.points[:longest], valid=clip.valid[:longest]) for clip in chosen]
    return [view_of(m, clip, 0) for clip in cut]


def windows_of(joints: np.ndarray, length: int, delay: int) -> np.ndarray:
    """The windows (T, length, J, 3) that a stream lifts."""
    window, found = FrameWindow(length, delay), []
    for frame in joints:
        window.push(frame)
        if window.ready:
            found.append(window.oldest())
            window.answered()
    while window.waiting:
        found.append(window.oldest())
        window.answered()
    return np.array(found)


def times_of(m: PoseLifter, view: View, delay: int | None = None) -> dict[str, Any]:
    """Parity with `predict`, and what an answer costs, frame by frame."""
    m.read = type(m.read)(skeleton=view.joints.skeleton.name, size=view.joints.size, fps=view.joints.fps)
    live = m.stream(delay=delay)
    walls, works, poses, held = [], [], [], []
    tracemalloc.start()
    for number, joints in enumerate(raw(view.joints)):
        began = time.perf_counter(), time.process_time()
        pose = live.push(joints)
        walls.append(1e3 * (time.perf_counter() - began[0]))
        works.append(1e3 * (time.process_time() - began[1]))
        if number % 50 == 49:
            held.append(tracemalloc.get_traced_memory()[0])
        if pose is not None:
            poses.append(pose.points)
    tracemalloc.stop()
    poses += [pose.points for pose in live.finish()]
    whole = m.predict(view.joints).tracks[0].points
    return {
        "window": m.state.module.config.frames,
        "frames": len(poses),
        "delay_frames": live.delay,
        "delay_ms": live.delay_ms,
        "wall_ms": np.percentile(walls[live.delay :], [50, 95]).tolist(),
        "processor_ms": np.percentile(works[live.delay :], [50, 95]).tolist(),
        "parity_m": float(np.abs(np.array(poses) - whole).max()),
        "grown_bytes": held[-1] - held[len(held) // 2] if len(held) > 1 else 0,
    }


def errors_of(m: PoseLifter, views: list[View]) -> dict[int, list[float]]:
    """MPJPE in mm and MPJVE in mm a frame, by delay."""
    length = m.state.module.config.frames
    sums: dict[int, list[tuple[float, float]]] = {}
    for view in views:
        x = model_input(view.joints)[0]
        for delay in range(length // 2 + 1):
            points = engine.lift_windows(m.state, windows_of(x, length, delay))[0]
            off = points - view.truth
            parts = (np.linalg.norm(part, axis=-1).mean(1).sum() for part in (off, np.diff(off, axis=0)))
            sums.setdefault(delay, []).append(tuple(float(part) for part in parts))  # type: ignore[arg-type]
    counts = np.array([sum(view.joints.frames - less for view in views) for less in (0, 1)])
    return {delay: (1000 * np.sum(found, axis=0) / counts).tolist() for delay, found in sums.items()}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=str(DATA / "benchmark" / "pose3d" / "cmu_bvh_87clips.tar.xz"))
    parser.add_argument("--subjects", default="07,08,16")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--longest", type=int, default=120)
    parser.add_argument("--model", help="a folder that `fit` wrote; else the model that ships")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = load(given.model, threads=1, device="cpu") if given.model else PoseLifter(threads=1, device="cpu")
    if not isinstance(found, PoseLifter):
        raise SystemExit(f"{given.model} holds no lifter of poses")
    found.adopt_shipped()
    views = views_of(found, given.data, [one for one in given.subjects.split(",") if one], given.clips, given.longest)
    out: dict[str, Any] = {"clips": len(views), "frames": sum(view.joints.frames for view in views)}
    out["times"] = times = times_of(found, max(views, key=lambda view: view.joints.frames))
    out["parity"] = times["parity_m"] < 1e-5
    if out["parity"]:
        out["mpjpe_and_mpjve_mm_by_delay"] = errors_of(found, views)
    out["latency_ms"] = times["delay_ms"] + times["processor_ms"][1]
    out["passed"] = out["parity"] and out["latency_ms"] < GOAL_MS
    print(json.dumps(out) if given.json else "\n".join(f"{name}: {value}" for name, value in out.items()))
    return 0 if out["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
