"""Carve the embedded brain scans: Haxby's subject 1 as two BIDS datasets, each in one archive.

    python tools/make_fmri_samples.py PYMVPA2

PYMVPA2 is the folder `mvpa2/data` of the source archive of pymvpa2 2.6.5. `haxby.zip` holds the posterior half of one
axial slice, cut into its 12 runs, `haxby-brain.zip` the whole brain at 25 mm. Voxels and affines are the source's;
the files are written anew as int16 with the repetition time of 2.5 s, which the source names beside them. Events are
the source's labels of each volume, which agree with its onset files in every run. Archives are the same on every
machine with the same zlib.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import pathlib
import sys
import zipfile
from itertools import groupby

import nibabel as nib
import numpy as np

FOLDER = pathlib.Path(__file__).parents[1] / "data" / "samples" / "fmri"
TR, RUNS, TASK = 2.5, 12, "objectviewing"
_CREDIT = {
    "Name": "Haxby et al. 2001, subject 1",
    "BIDSVersion": "1.8.0",
    "License": "CC BY-SA 3.0",
    "Authors": ["James V. Haxby", "M. Ida Gobbini", "Maura L. Furey", "Alumit Ishai", "Jennifer L. Schouten"],
    "ReferencesAndLinks": ["https://doi.org/10.1126/science.1063736", "https://www.pymvpa.org"],
    "HowToAcknowledge": "Haxby et al. (2001), Science 293, 2425-2430; carved from the example data of PyMVPA",
}


def main(source: str) -> None:
    """Write both archives into the folder of samples."""
    root = pathlib.Path(source)
    labels, runs = _labels(root / "attributes_literal.txt")
    whole = nib.load(root / "bold.nii.gz")
    voxels = np.asanyarray(whole.dataobj)
    FOLDER.mkdir(parents=True, exist_ok=True)
    slices, brains = {}, {}
    for number in range(RUNS):
        chosen = runs == number
        events = _events(labels[chosen])
        _check_onsets(root / "haxby2001/sub001/model/model001/onsets" / f"task001_run{number + 1:03d}", events)
        slices[number + 1] = (voxels[..., chosen], whole.affine, events)
        coarse = nib.load(root / f"haxby2001/sub001/BOLD/task001_run{number + 1:03d}/bold_25mm.nii.gz")
        brains[number + 1] = (np.asanyarray(coarse.dataobj), coarse.affine, events)
    for name, note, found in (
        ("haxby", "posterior half of one axial slice", slices),
        ("haxby-brain", "whole brain at 25 mm", brains),
    ):
        path = FOLDER / f"{name}.zip"
        content = _archive(found, note)
        path.write_bytes(content)
        sys.stdout.write(f"{name}: {len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}\n")


def _labels(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    rows = [line.split() for line in path.read_text().splitlines()]
    return np.array([row[0] for row in rows]), np.array([int(row[1]) for row in rows])


def _events(labels: np.ndarray) -> list[tuple[float, float, str]]:
    """(onset s, duration s, category) of each stretch of volumes that are no rest."""
    found, start = [], 0
    for label, stretch in groupby(labels):
        count = len(list(stretch))
        if label != "rest":
            found.append((start * TR, count * TR, str(label)))
        start += count
    return found


def _check_onsets(folder: pathlib.Path, events: list[tuple[float, float, str]]) -> None:
    key = (folder.parents[4] / "models/model001/condition_key.txt").read_text().split("\n")
    names = {row.split()[1]: row.split()[2] for row in key if row}
    onsets = sorted((*map(float, path.read_text().split()[:2]), names[path.stem]) for path in folder.glob("cond*.txt"))
    if onsets != sorted(events):
        raise SystemExit(f"{folder}: {onsets} is not {events}")


def _archive(runs: dict[int, tuple[np.ndarray, np.ndarray, list]], note: str) -> bytes:
    import io

    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_STORED) as archive:

        def add(name: str, content: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(name, (2001, 9, 28, 0, 0, 0)), content)

        named = {**_CREDIT, "Name": f"{_CREDIT['Name']}: {note}"}
        add("dataset_description.json", json.dumps(named, indent=1).encode())
        add("participants.tsv", b"participant_id\nsub-1\n")
        add(f"task-{TASK}_bold.json", json.dumps({"RepetitionTime": TR, "TaskName": "object viewing"}).encode())
        for number, (voxels, affine, events) in runs.items():
            stem = f"sub-1/func/sub-1_task-{TASK}_run-{number:02d}"
            table = "onset\tduration\ttrial_type\n" + "".join(f"{a:g}\t{b:g}\t{c}\n" for a, b, c in events)
            add(f"{stem}_bold.nii.gz", gzip.compress(_nifti(voxels, affine), 9, mtime=0))
            add(f"{stem}_events.tsv", table.encode())
    return held.getvalue()


def _nifti(voxels: np.ndarray, affine: np.ndarray) -> bytes:
    exact = voxels.astype(np.int16)
    if not np.array_equal(exact, voxels):
        raise SystemExit("the voxels are no whole numbers of 16 bits")
    image = nib.Nifti1Image(exact, affine)
    image.header.set_zooms((*image.header.get_zooms()[:3], TR))
    image.header.set_xyzt_units("mm", "sec")
    return image.to_bytes()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
