"""Carve the embedded speech: prompts of Asterisk as Opus at 8 kHz, five sentences of LibriVox as Opus at 16 kHz.

    python tools/make_speech_samples.py PROMPTS.tar.xz LIBRIVOX_FOLDER

The texts stand in data/samples/speech/*.tsv and are not made here: SOURCE.md says how they came about. A recording
whose text is not in the tables is left out. Which recordings are held out is in the column `split`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import pathlib
import sys
import tarfile

import soundfile

FOLDER = pathlib.Path(__file__).parents[1] / "data" / "samples" / "speech"
QUALITY = 0.93  # libsndfile's scale of compression: about 27 kbit/s


def main(prompts: str, librivox: str) -> None:
    """Write every recording of the tables and its sum into them."""
    with tarfile.open(prompts) as archive:
        _carve("phrases.tsv", {_name(m.name): archive.extractfile(m) for m in archive if m.name.endswith(".wav")})
    found = {path.stem: path.open("rb") for path in sorted(pathlib.Path(librivox).glob("*.wav"))}
    _carve("librivox.tsv", found)


def _name(path: str) -> str:
    return path.removesuffix(".wav").split("/", 1)[1].removeprefix("./")


def _carve(table: str, sources: dict) -> None:
    path = FOLDER / table
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    seconds = 0.0
    for row in rows:
        samples, rate = soundfile.read(io.BytesIO(sources[row["id"]].read()), dtype="int16")
        target = FOLDER / row["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(target, samples, rate, format="OGG", subtype="OPUS", compression_level=QUALITY)
        row["sha256"] = hashlib.sha256(target.read_bytes()).hexdigest()
        seconds += len(samples) / rate
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    told = f"{len(rows)} recordings, {seconds / 60:.1f} minutes, {path.stat().st_size:,} bytes of table"
    sys.stdout.write(f"{table}: {told}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
