"""The embedded cube: whole, read with its variance, and of noise as strong as it says."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from pipelines.data import catalog
from pipelines.data.formats.cube import read_cube

ROOT = pathlib.Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "data" / "samples" / "hyperspectral" / "muse.fits"


def test_the_sample_is_whole() -> None:
    content = catalog.open_entry(catalog.entry("demo", "denoise"))
    assert len(content) < 2_000_000
    cube = read_cube(SAMPLE)
    assert cube.shape == (250, 30, 30)
    assert cube.unit == "10**-20 Angstrom-1 cm-2 erg s-1"
    assert cube.wavelengths is not None
    assert cube.variance is not None
    assert np.allclose(cube.wavelengths, 475.0 + 0.125 * np.arange(65, 315))
    assert (cube.variance > 0).all()
    assert np.isfinite(cube.block(slice(None), slice(None))).all()


def test_its_variance_is_that_of_its_noise() -> None:
    cube = read_cube(SAMPLE)
    values, variance = cube.block(slice(None), slice(None)), np.asarray(cube.variance, float)
    apart = (values[:, :, 2:] - values[:, :, :-2]) / np.sqrt(variance[:, :, 2:] + variance[:, :, :-2])
    assert np.median(np.abs(apart)) / 0.6745 == pytest.approx(1, abs=0.03)


def test_licence_and_source_name_it() -> None:
    folder = SAMPLE.parents[1]
    assert "hyperspectral/muse.fits" in (folder / "DATA_LICENSES.md").read_text()
    assert "muse.fits" in (SAMPLE.parent / "SOURCE.md").read_text()


def test_it_can_be_made_again(benchmark: pathlib.Path, tmp_path: pathlib.Path) -> None:
    sources = benchmark.parent / "embeddable" / "hyperspectral"
    if not (sources / "mpdaf_subcub_mosaic.fits").is_file():
        pytest.skip("the MUSE cube is not in the data folder")
    tool = ROOT / "tools" / "make_hyperspectral_samples.py"
    subprocess.run([sys.executable, str(tool), str(sources), str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    assert (tmp_path / "muse.fits").read_bytes() == SAMPLE.read_bytes()
