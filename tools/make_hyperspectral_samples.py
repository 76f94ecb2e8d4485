"""Carve the embedded hyperspectral sample from its source file: `make_hyperspectral_samples.py SOURCES [OUT]`.

SOURCES holds mpdaf_subcub_mosaic.fits, see data/samples/hyperspectral/SOURCE.md. The same source gives the same bytes,
and the sum printed at the end is the one in data/catalog.py.
"""

from __future__ import annotations

import argparse
import hashlib
import pathlib
import sys

from pipelines.data.formats.cube_fits import Extension, scan_fits

OUT = pathlib.Path(__file__).resolve().parents[1] / "data" / "samples" / "hyperspectral"
BLOCK, CARD = 2880, 80
#: 250 of 500 bands keep the file under 2 MB; these hold the emission lines and leave out the noisier blue end.
FIRST, BANDS = 65, 250
LIMIT = 2_000_000


def carved(source: bytes, units: list[Extension]) -> bytes:
    """The file with fewer bands in its cubes: numbers as they were, two cards of each header changed."""
    out, begin = b"", 0
    for number, unit in enumerate(units):
        header, shape = source[begin : unit.start], unit.shape
        size = abs(int(unit.header["BITPIX"])) // 8
        for length in shape:
            size *= length
        size = size if shape else 0
        data = source[unit.start : unit.start + size]
        if len(shape) == 3:
            band = size // shape[0]
            data = data[FIRST * band : (FIRST + BANDS) * band]
            header = with_card(header, "NAXIS3", f"{BANDS:>20}")
            header = with_card(header, "CRPIX3", f"{float(unit.header['CRPIX3']) - FIRST:>20}")
        out += header + data + bytes(-len(data) % BLOCK)
        begin = unit.start + -(-size // BLOCK) * BLOCK
        if number + 1 == len(units) and begin != len(source):
            raise SystemExit("bytes behind the last unit")
    return out


def with_card(header: bytes, key: str, value: str) -> bytes:
    """A header with another value in one card."""
    for at in range(0, len(header), CARD):
        if header[at : at + CARD].startswith(f"{key:8}= ".encode()):
            return header[:at] + f"{key:8}= {value}".encode().ljust(CARD) + header[at + CARD :]
    raise SystemExit(f"no card {key}")


def main() -> None:
    """Write the file and print its shape, its size and its sum."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path, nargs="?", default=OUT)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.sources / "mpdaf_subcub_mosaic.fits"
    content = carved(path.read_bytes(), scan_fits(path))
    if len(content) > LIMIT:
        raise SystemExit(f"{len(content):,} bytes, allowed are {LIMIT:,}")
    (given.out / "muse.fits").write_bytes(content)
    units = ", ".join(f"{unit.name} {unit.shape}" for unit in scan_fits(given.out / "muse.fits"))
    sys.stdout.write(f"muse {units}, {len(content)} bytes {hashlib.sha256(content).hexdigest()}\n")


if __name__ == "__main__":
    main()
