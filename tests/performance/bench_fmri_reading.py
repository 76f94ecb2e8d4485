"""Reading windows of a compressed 4-D scan: ours against slices of nibabel's `dataobj`, with memory and growth.

    python tests/performance/bench_fmri_reading.py [--volumes 80] [--frames 20] [--epochs 2] [--json]

The scan is drawn: 96 x 96 x 96 float32, smooth noise in a ball of brain and zeros around it, compressed at level 1 in a
temporary folder. Parity comes first, else nothing is timed: windows of `Scan.frames` bit for bit those of nibabel, and
standardised ones against the released rule on the whole array. Then every contestant reads all windows, in an order
drawn anew for each epoch as in training, in a fresh process:

- nibabel: `image.dataobj[..., start:stop]`, which unpacks the file from its start for every window;
- scan: `open_scan`, which unpacks once into a temporary file, and `frames`; the opening is counted;
- prepared: `prepare`, which also gathers the statistics, and `window`: standardised and filled; counted likewise.

Seconds are those of the first and of a later epoch. Memory is the highest resident size without the pages of mapped
files; it is told again for three times the volumes.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

SIDE = 96
CONTESTANTS = ("nibabel", "scan", "prepared")
#: A later epoch of ours is so many times as fast as nibabel's; memory grows by no more with three times the volumes.
GOALS = {"scan": 3.0, "prepared": 2.0, "growth": 1.1}


def write_scan(path: pathlib.Path, volumes: int) -> None:
    """The drawn scan, volume by volume."""
    import gzip

    import nibabel as nib
    from scipy.ndimage import uniform_filter

    draw = np.random.default_rng(0)
    where = np.linalg.norm(np.indices((SIDE,) * 3).transpose(1, 2, 3, 0) - (SIDE - 1) / 2, axis=3) < 0.42 * SIDE
    base = (1000 + 200 * uniform_filter(draw.normal(0, 1, (SIDE,) * 3), 7)).astype(np.float32)
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((SIDE, SIDE, SIDE, volumes))
    header.set_zooms((2, 2, 2, 0.8))
    header.set_xyzt_units("mm", "sec")
    header.set_sform(np.diag([2.0, 2, 2, 1]), 1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header.binaryblock + bytes(4))
        for _ in range(volumes):
            volume = np.where(where, base + draw.normal(0, 20, base.shape).astype(np.float32), np.float32(0))
            file.write(volume.tobytes(order="F"))


def parity(path: pathlib.Path, frames: int) -> dict[str, float]:
    """Values that differ from nibabel's; largest difference of standardised ones from the rule on the whole array."""
    import nibabel as nib

    from pipelines.data.datasets.brain_prepare import prepare
    from pipelines.data.datasets.brain_types import Recording
    from pipelines.data.formats.nifti import open_scan

    whole = np.asarray(nib.load(path).dataobj)  # type: ignore[attr-defined]
    mask = (whole != 0).any(3)
    inside = whole[mask].astype(np.float64)
    mean, sd = inside.mean(), inside.std(ddof=1)
    least = (inside.min() - mean) / sd
    differing, largest = 0, 0.0
    with open_scan(path) as scan:
        run = prepare(Recording("drawn", path))
        for start in range(0, whole.shape[3] - frames + 1, frames):
            part = whole[..., start : start + frames]
            differing += int((scan.frames(start, start + frames) != part).sum())
            expected = np.where(mask[..., None], (part - mean) / sd, least)
            largest = max(largest, float(np.abs(run.window(start, frames) - expected).max()))
        run.close()
    return {"values that differ": float(differing), "standardised": largest}


def measure(path: pathlib.Path, contestant: str, frames: int, epochs: int) -> dict[str, Any]:
    """Read in this process: seconds of opening and of each epoch, megabytes."""
    import nibabel as nib

    from pipelines.data.datasets.brain_prepare import prepare
    from pipelines.data.datasets.brain_types import Recording
    from pipelines.data.datasets.brain_windows import starts
    from pipelines.data.formats.nifti import open_scan

    began = time.perf_counter()
    if contestant == "nibabel":
        image: Any = nib.load(path)  # type: ignore[attr-defined]
        volumes, read = image.shape[3], lambda a: np.asarray(image.dataobj[..., a : a + frames], np.float32)
    elif contestant == "scan":
        scan = open_scan(path)
        volumes, read = scan.shape[3], lambda a: scan.frames(a, a + frames)
    else:
        run = prepare(Recording("drawn", path))
        volumes, read = run.volumes, lambda a: run.window(a, frames)
    opened = time.perf_counter() - began
    draw, taken, total = np.random.default_rng(1), [], 0.0
    for _ in range(epochs):
        began = time.perf_counter()
        for start in draw.permutation(starts(volumes, frames)):
            total += float(read(int(start))[SIDE // 2, SIDE // 2, SIDE // 2, 0])
        taken.append(time.perf_counter() - began)
    lines = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
    own = int(lines["RssAnon"].split()[0]) * 1024 / 1e6
    peak = (int(lines["VmHWM"].split()[0]) - int(lines["RssFile"].split()[0])) * 1024 / 1e6
    return {"open_s": opened, "epochs_s": taken, "own_MB": own, "peak_MB": peak, "sum": total}


def _fresh(path: pathlib.Path, contestant: str, frames: int, epochs: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--path", str(path), "--contestant", contestant]
    command += ["--frames", str(frames), "--epochs", str(epochs)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def compare(volumes: int, frames: int, epochs: int) -> dict[str, Any]:
    """Parity, then every contestant, then memory over three times the volumes."""
    with tempfile.TemporaryDirectory() as folder:
        path, long = pathlib.Path(folder, "drawn.nii.gz"), pathlib.Path(folder, "long.nii.gz")
        write_scan(path, volumes)
        equal = parity(path, frames)
        if equal["values that differ"] or equal["standardised"] > 1e-5:
            raise SystemExit(f"the contestants do not agree: {equal}")
        found = {one: _fresh(path, one, frames, epochs) for one in CONTESTANTS}
        write_scan(long, 3 * volumes)
        grown = _fresh(long, "prepared", frames, 1)
    peer = found["nibabel"]["epochs_s"]
    ratios = {
        one: {
            "first, with opening": (found["nibabel"]["open_s"] + peer[0]) / (found[one]["open_s"] + time_s[0]),
            "later": peer[-1] / time_s[-1],
        }
        for one in CONTESTANTS[1:]
        for time_s in [found[one]["epochs_s"]]
    }
    growth = grown["peak_MB"] / found["prepared"]["peak_MB"]
    return {"volumes": volumes, "frames": frames, "parity": equal, "lines": found, "ratios": ratios, "growth": growth}


def main() -> int:
    """Measure and print; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, default=80)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--path", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--contestant", choices=CONTESTANTS, default="scan", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.path:
        took = measure(options.path, options.contestant, options.frames, options.epochs)
        sys.stdout.write(json.dumps(took) + "\n")
        return 0
    found = compare(options.volumes, options.frames, options.epochs)
    if options.json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        sys.stdout.write(f"parity: {found['parity']}\n")
        for name, took in found["lines"].items():
            epochs = ", ".join(f"{seconds:.2f}" for seconds in took["epochs_s"])
            times = f"open {took['open_s']:.2f} s, epochs {epochs} s"
            sys.stdout.write(f"{name}: {times}, peak {took['peak_MB']:.0f} MB beside mapped files\n")
        for name, ratio in found["ratios"].items():
            first = f"first epoch with opening {ratio['first, with opening']:.2f}"
            sys.stdout.write(f"nibabel's seconds over ours, {name}: {first}, later epoch {ratio['later']:.2f}\n")
        sys.stdout.write(f"memory for three times the volumes: {found['growth']:.2f} times\n")
    missed = any(found["ratios"][one]["later"] < GOALS[one] for one in CONTESTANTS[1:])
    return int(missed or found["growth"] > GOALS["growth"])


if __name__ == "__main__":
    sys.exit(main())
