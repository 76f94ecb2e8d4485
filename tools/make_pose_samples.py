"""Make the embedded motions: DeepMimic's 15 reference motions as joints of the H36M skeleton.

    python tools/make_pose_samples.py MOTIONS

MOTIONS is the folder `pybullet_data/data/motions` of the package pybullet 3.2.7 (humanoid3d_*.txt). Joints come from
forward kinematics with the humanoid model of the same package; positions are rounded to 1/1024 m, so that they pack.
The archive is the same on every machine with the same zlib.
"""

from __future__ import annotations

import hashlib
import io
import pathlib
import sys
import zipfile

import numpy as np

from pipelines.data.datasets.pose_deepmimic import ACTIONS, read_deepmimic

FOLDER = pathlib.Path(__file__).parents[1] / "data" / "samples" / "pose"
STEP = 1024.0
FRAMES = 1620


def main(source: str) -> None:
    """Write the archive into the folder of samples."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / "motions.npz"
    path.write_bytes(archive(pathlib.Path(source)))
    content = path.read_bytes()
    sys.stdout.write(f"motions: {len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}\n")


def archive(folder: pathlib.Path) -> bytes:
    """The NPZ: points (1620, 17, 3) float32 in m, z up, clip after clip, with lengths, frame rates and actions."""
    clips = [read_deepmimic(folder / f"humanoid3d_{action}.txt", "h36m17")[0] for action in ACTIONS]
    points = np.concatenate([clip.points for clip in clips])
    if len(points) != FRAMES:
        raise SystemExit(f"{len(points)} frames, not {FRAMES}")
    arrays = {
        "points": (np.round(points.astype(np.float64) * STEP) / STEP).astype(np.float32) + np.float32(0),
        "lengths": np.array([clip.frames for clip in clips], np.int32),
        "fps": np.array([clip.fps for clip in clips], np.float32),
        "actions": np.array(ACTIONS),
        "skeleton": np.array("h36m17"),
    }
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target:
        for name, array in arrays.items():
            one = io.BytesIO()
            np.lib.format.write_array(one, array.copy("F") if array.ndim else array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", (2018, 8, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            target.writestr(entry, one.getvalue(), compresslevel=9)
    return held.getvalue()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
