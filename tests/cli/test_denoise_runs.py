"""``pipelines denoise`` from end to end: what it writes, what it says, and what it refuses."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from pipelines.data.datasets.lifted import lift
from pipelines.data.formats.cube import read_cube

FAST = "--arch.variant hsdt_4 --patch 16 --patches 4 --train.batch_size 2 --train.epochs 1 --quiet"


def _cube(seed: int, bands: int = 20, height: int = 24, width: int = 28) -> np.ndarray:
    """(D, H, W) in [0, 1]: a smooth scene lifted to many bands."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((height, width))
    image = np.stack([0.5 + 0.4 * np.sin(x * a + y * b) for a, b in rng.uniform(0.05, 0.5, (3, 2))], -1)
    return lift(image, bands, rng)


@pytest.fixture
def clean(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder of three clean cubes of whole numbers, bands last."""
    folder = tmp_path / "clean"
    folder.mkdir()
    for seed in range(3):
        np.save(folder / f"c{seed}.npy", np.rint(_cube(seed).transpose(1, 2, 0) * 4000).astype(np.uint16))
    return folder


@pytest.fixture
def model(command: Any, clean: pathlib.Path) -> pathlib.Path:
    done = command(f"denoise fit --data {clean} --read.axis 2 --cases gaussian50 {FAST} --output model")
    assert done.code == 0, done.err
    return pathlib.Path("model").resolve()


def test_evaluate_measures_every_case_beside_the_rules(command: Any, clean: pathlib.Path) -> None:
    line = f"denoise evaluate --data {clean / 'c0.npy'} --read.axis 2 --model svd_non_local_means"
    done = command(f"{line} --cases gaussian50,mixture --json --quiet --output run")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert (said["cubes"], said["noise_cases"]) == (1, 2)
    by_case = said["details"]["by_case"]
    assert by_case["noisy"]["gaussian50"]["psnr"] == pytest.approx(14.15, abs=0.2)
    assert by_case["svd_non_local_means"]["gaussian50"]["psnr"] > by_case["noisy"]["gaussian50"]["psnr"] + 8
    assert said["psnr"] == pytest.approx(np.mean([by_case["svd_non_local_means"][c]["psnr"] for c in by_case["noisy"]]))
    assert {"noisy", "svd", "svd_rank3", "non_local_means", "total_variation"} <= said["baselines"].keys()
    assert "Noise cases" in pathlib.Path("run/report.html").read_text()


def test_the_answer_is_like_the_input(command: Any, clean: pathlib.Path, model: pathlib.Path) -> None:
    source = clean / "c1.npy"
    noisy = np.load(source)
    done = command(f"denoise predict {source} --read.axis 2 --checkpoint {model} --quiet --json -o clean1.npy")
    assert done.code == 0, done.err
    answer = np.load("clean1.npy")
    assert (answer.shape, answer.dtype) == (noisy.shape, noisy.dtype)
    said = json.loads(done.out)
    assert len(said["noise"]["sigma"]) == 20
    assert "rounded to uint16" in said["notes"]
    assert any("20 bands, not the 31" in note for note in said["notes"])
    assert 'type="range"' in pathlib.Path("clean1.npy.report.html").read_text()


def test_noise_makes_test_data_that_predict_takes(command: Any, clean: pathlib.Path) -> None:
    source = clean / "c2.npy"
    done = command(f"denoise noise --data {source} --read.axis 2 --case stripe --quiet --json -o noisy.npy")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    record = json.loads(pathlib.Path("noisy.npy.noise.json").read_text())
    assert len(record["stripes"]) == 20 // 3
    assert said["noise"] == record
    assert np.load("noisy.npy").shape == np.load(source).shape
    again = command(f"denoise noise --data {source} --read.axis 2 --case stripe --quiet --json -o again.npy")
    assert again.code == 0
    assert (np.load("again.npy") == np.load("noisy.npy")).all()
    done = command("denoise predict noisy.npy --read.axis 2 --model svd --quiet -o better.npy")
    assert done.code == 0, done.err

    def error(name: str) -> float:
        return float(((np.load(name).astype(float) - np.load(source)) ** 2).mean())

    assert error("better.npy") < 0.5 * error("noisy.npy")


def test_voxels_without_a_value_are_kept(command: Any, tmp_path: pathlib.Path) -> None:
    values = _cube(4).astype(np.float32)
    values[3, 5:8, 6] = np.nan
    np.save(tmp_path / "holes.npy", values)
    line = f"denoise predict {tmp_path / 'holes.npy'} --read.axis 0 --model svd --quiet"
    done = command(f"{line} -o filled.npy")
    assert done.code == 0, done.err
    answer = np.load("filled.npy")
    assert np.isnan(answer).sum() == 3
    assert np.isnan(answer[3, 5:8, 6]).all()
    assert "3 of 13,440 voxels" in done.out


def test_tiles_agree_where_attention_sees_alike(command: Any, tmp_path: pathlib.Path, model: pathlib.Path) -> None:
    """The mean of a tile differs from that of the cube, so that tiles differ a little; a note says so."""
    tall = np.concatenate([_cube(s) for s in range(4)], 1).astype(np.float32)
    np.save(tmp_path / "tall.npy", tall)
    line = f"denoise predict {tmp_path / 'tall.npy'} --read.axis 0 --checkpoint {model} --quiet"
    assert command(f"{line} -o whole.npy").code == 0
    done = command(f"{line} --tile 32 -o tiled.npy")
    assert done.code == 0, done.err
    assert "sees the mean of each tile" in done.out
    difference = np.abs(np.load("whole.npy") - np.load("tiled.npy"))
    assert difference.mean() < 0.02


def test_a_real_cube_and_its_variance(command: Any) -> None:
    """The embedded cube of MUSE brings the variance of its noise: chi-square says how much was taken away."""
    done = command("denoise predict demo --model svd_non_local_means --quiet --json -o muse.fits")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert 0.7 < said["chi_square"]["value"] < 1.3
    answer, before = read_cube("muse.fits"), read_cube(_sample())
    assert answer.shape == before.shape
    assert answer.unit == before.unit
    assert np.allclose(answer.wavelengths, before.wavelengths)


def _sample() -> pathlib.Path:
    from pipelines.data.catalog import entry, sample_path

    return sample_path(entry("demo", "denoise"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("denoise predict nowhere.mat --model svd", "no such file or folder"),
        ("denoise predict {text} --model svd", "not a hyperspectral cube"),
        ("denoise predict {cube} --model svd", "--axis"),
        ("denoise predict {cube} --model svd --read.axis 2 -o a.mat", "another format than the input's"),
        ("denoise predict {cube} --model svdd --read.axis 2", "did you mean svd?"),
        ("denoise predict {cube} --read.axis 2 --model svd --tile 32", "takes the cube whole"),
        ("denoise noise --data {cube} --read.axis 2 --case rain", "no such noise case"),
        ("denoise evaluate --data {cube} --read.axis 2 --model svd --cases rain", "no such noise case"),
        ("denoise evaluate --data {holes} --read.axis 0 --model svd", "must be known everywhere"),
        ("denoise fit --data {cube} --read.axis 2", "too few"),
    ],
)
def test_mistakes_are_said_in_one_message(
    command: Any, clean: pathlib.Path, tmp_path: pathlib.Path, line: str, words: str
) -> None:
    (tmp_path / "text.mat").write_text("date,value")
    np.save(tmp_path / "holes.npy", np.full((12, 24, 24), np.nan, np.float32))
    np.save(tmp_path / "even.npy", np.zeros((24, 24, 24), np.float32))
    cube = tmp_path / "even.npy" if words == "--axis" else clean / "c0.npy"
    places = {"text": tmp_path / "text.mat", "cube": cube, "holes": tmp_path / "holes.npy"}
    done = command(f"{line.format(**places)} --quiet")
    assert done.code == 2, done.err
    assert words in done.err
    assert "Traceback" not in done.err
    assert not pathlib.Path("runs").exists()


def test_the_shipped_model_beats_the_truncated_svd() -> None:
    """On an embedded photograph, lifted, which was not trained on."""
    from pipelines import Denoiser
    from pipelines.data.catalog import entry, sample_path
    from pipelines.data.formats.image import read_image

    piece = read_image(sample_path(entry("chelsea", "superres"))).pixels[100:196, 150:246].astype(np.float32) / 255
    cube = lift(piece, 31, np.random.default_rng(0))
    denoiser = Denoiser(cases=("mixture",), threads=1)
    evaluation = denoiser.evaluate(cube)
    assert evaluation.provenance.weights == "hsdt_s, shipped with the package"
    best = max(figures["psnr"] for figures in evaluation.baselines.values())
    assert evaluation.metrics["psnr"] > best + 2


def _some_bad(folder: pathlib.Path) -> None:
    """Two bad cubes beside three good ones, and a good one in a folder below."""
    whole = (folder / "c0.npy").read_bytes()
    (folder / "cut.npy").write_bytes(whole[: len(whole) // 2])
    (folder / "text.mat").write_text("date,value")
    (folder / "more").mkdir()
    (folder / "more" / "c0.npy").write_bytes(whole)


def test_a_folder_goes_on_after_a_bad_file(command: Any, clean: pathlib.Path, model: pathlib.Path) -> None:
    _some_bad(clean)
    line = f"denoise predict {clean} --read.axis 2 --checkpoint {model} --quiet"
    done = command(f"{line} --json -o out/")
    assert done.code == 1, done.err
    said = json.loads(done.out)
    assert set(said["failures"]) == {"cut.npy", "text.mat"}
    names = ["c0.npy", "c1.npy", "c2.npy", "more/c0.npy"]
    assert [cube["name"] for cube in said["cubes"]] == names
    assert sorted(p.relative_to("out/clean").as_posix() for p in pathlib.Path("out/clean").rglob("*.*")) == names
    assert sorted(p.name for p in pathlib.Path("out").glob("*.*")) == ["clean.png", "config.yaml", "report.html"]
    single = line.replace(str(clean), str(clean / "c1.npy"))
    assert command(f"{single} -o one.npy").code == 0
    assert (np.load("one.npy") == np.load("out/clean/c1.npy")).all()
    page = pathlib.Path("out/report.html").read_text()
    assert page.count('type="range"') == 4
    assert "cut.npy is left out" in page
    done = command(f"{line} -o told/")
    assert done.code == 1
    assert "2 could not be denoised" in done.out
    assert "note: text.mat is left out: " in done.out
    (clean / "cut.npy").unlink()
    (clean / "text.mat").unlink()
    assert command(f"{line} -o good/").code == 0


def test_a_folder_and_a_cube_in_one_command(command: Any, clean: pathlib.Path) -> None:
    _some_bad(clean)
    done = command(f"denoise predict {clean} {clean / 'c1.npy'} --read.axis 2 --model svd --quiet --json -o out")
    assert done.code == 1, done.err
    said = json.loads(done.out)["answers"]
    assert [set(one.get("failures", ())) for one in said] == [{"cut.npy", "text.mat"}, set()]
    assert (np.load("out/clean/c1.npy") == np.load("out/c1-c1-clean.npy")).all()


def test_folders_without_an_answer_are_refused(refused: Any, clean: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "photo.png").write_bytes(b"")
    line = "--model svd --quiet -o out/"
    refused(f"denoise predict empty {line}", "empty: no cube in this folder", ".mat", ".hdr", ".fts")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "text.mat").write_text("date,value")
    refused(f"denoise predict bad {line}", "bad: no cube could be denoised", "text.mat")
    np.save(tmp_path / "bad" / "nothing.npy", np.full((20, 24, 8), np.nan, np.float32))
    refused(f"denoise predict bad {line}", "no voxel has a value", "text.mat")
    refused(f"denoise predict {clean} --read.axis 2 --model svd -o a.npy --quiet", "several cubes need a folder")


def test_a_photograph_becomes_a_noisy_cube(command: Any) -> None:
    from pipelines.data.catalog import entry, sample_path

    photograph = sample_path(entry("chelsea", "superres"))
    done = command(f"denoise noise --data {photograph} --case gaussian30 --quiet -o lifted.npy")
    assert done.code == 0, done.err
    assert np.load("lifted.npy").shape == (31, 300, 451)
