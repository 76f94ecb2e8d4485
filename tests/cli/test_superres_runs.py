"""``pipelines superres`` from end to end: what it writes, what it says, and what it refuses."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines import SuperResolver
from pipelines.data.formats.image import read_image

SMALL = "--scale 2 --arch.dim 8 --arch.depths [1] --arch.kernel 3 --patch 16 --patches 4 --train.batch_size 2"
FAST = f"{SMALL} --train.epochs 1 --quiet"


def _scene(seed: int, height: int, width: int) -> np.ndarray:
    """A smooth picture with edges."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((height, width))
    waves = [np.sin(x * a + y * b + c) for a, b, c in rng.uniform(0.05, 0.6, (3, 3))]
    image = np.stack(waves, -1) * 60 + 120
    image[height // 4 : height // 2, width // 4 : width // 2] += 50
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Three pictures, one of them in a folder of its own."""
    place = tmp_path / "photos"
    (place / "more").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png", "more/c.png")):
        Image.fromarray(_scene(number, 60, 72)).save(place / name)
    return place


@pytest.fixture
def model(command: Any, folder: pathlib.Path) -> pathlib.Path:
    done = command(f"superres fit --data {folder} {FAST} --output model")
    assert done.code == 0, done.err
    return pathlib.Path("model").resolve()


def test_evaluate_prints_what_the_field_reads(command: Any, folder: pathlib.Path, model: pathlib.Path) -> None:
    done = command(f"superres evaluate --data {folder} --checkpoint {model} --json --quiet --output run")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["images"] == 3
    assert "x2, bicubic / 2, Y of BT.601" in said["protocol"]
    assert "border of 2 pixels cut" in said["protocol"]
    assert said["baselines"]["bicubic"]["psnr"] > 25
    assert {"psnr", "ssim", "psnr_rgb", "ssim_rgb"} <= said.keys()
    assert [row["image"] for row in said["details"]["by_image"]] == ["a.png", "b.png", "more/c.png"]
    assert "bicubic" in pathlib.Path("run/report.html").read_text()


def test_given_small_images_are_taken(command: Any, tmp_path: pathlib.Path) -> None:
    """The benchmarks' layout: HR and LR_bicubic/X2; small images that are missing or do not fit are named."""
    from pipelines.data.datasets.degradation import imresize

    root = tmp_path / "Set1"
    (root / "HR").mkdir(parents=True)
    small = root / "LR_bicubic" / "X2"
    small.mkdir(parents=True)
    scene = _scene(5, 41, 50)
    Image.fromarray(scene).save(root / "HR" / "a.png")
    Image.fromarray(imresize(scene[:40], 1 / 2)).save(small / "ax2.png")
    done = command(f"superres evaluate --data {root} --model bicubic --scale 2 --json --quiet --output run")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert "small images as given" in said["protocol"]
    plain = command(f"superres evaluate --data {root / 'HR'} --model bicubic --scale 2 --json --quiet --output other")
    assert json.loads(plain.out)["psnr"] == pytest.approx(said["psnr"], abs=1e-9)
    Image.fromarray(scene[:10, :10]).save(small / "ax2.png")
    done = command(f"superres evaluate --data {root} --model bicubic --scale 2 --quiet")
    assert done.code == 2
    assert "does not fit the large one" in done.err
    (small / "ax2.png").unlink()
    done = command(f"superres evaluate --data {root} --model bicubic --scale 2 --quiet")
    assert "the small image is missing" in done.err


def test_an_image_is_enlarged_with_its_companions(command: Any, folder: pathlib.Path, model: pathlib.Path) -> None:
    done = command(f"superres predict {folder / 'a.png'} --checkpoint {model} --quiet -o big.png")
    assert done.code == 0, done.err
    assert read_image("big.png").pixels.shape == (120, 144, 3)
    page = pathlib.Path("big.png.report.html").read_text()
    assert 'type="range"' in page
    assert "script-src &#39;sha256-" in page
    assert pathlib.Path("big.png.config.yaml").is_file()
    again = command(f"superres predict {folder / 'a.png'} --checkpoint {model} --quiet -o big.png")
    assert again.code == 2
    assert "never overwritten silently" in again.err


@pytest.mark.parametrize("ending", ["png", "tif", "webp", "jpg"])
def test_tiles_give_the_whole_image(command: Any, folder: pathlib.Path, model: pathlib.Path, ending: str) -> None:
    for name, tile in (("whole", ""), ("tiled", "--tile 16")):
        done = command(f"superres predict {folder / 'a.png'} --checkpoint {model} {tile} --quiet -o {name}.{ending}")
        assert done.code == 0, done.err
    whole, tiled = (read_image(f"{name}.{ending}").pixels.astype(int) for name in ("whole", "tiled"))
    if ending in ("png", "tif"):
        assert np.abs(whole - tiled).max() <= 1  # sums of another order, rounded
    else:
        assert np.abs(whole - tiled).mean() < 0.5


def test_a_folder_keeps_its_shape_and_goes_on_after_a_bad_file(
    command: Any, folder: pathlib.Path, model: pathlib.Path
) -> None:
    whole = (folder / "b.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("not an image")
    done = command(f"superres predict {folder} --checkpoint {model} --quiet --json -o out/")
    assert done.code == 1, done.err
    said = json.loads(done.out)
    assert set(said["failures"]) == {"cut.png", "text.png"}
    made = sorted(str(p.relative_to("out")) for p in pathlib.Path("out").rglob("*.png"))
    assert [name for name in made if name.startswith("x2/")] == ["x2/a.png", "x2/b.png", "x2/more/c.png"]
    assert not list(pathlib.Path("out").rglob("*.partial"))


def test_what_a_photograph_carries_is_kept(command: Any, tmp_path: pathlib.Path, model: pathlib.Path) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Camera"
    Image.fromarray(_scene(1, 40, 60)).save(tmp_path / "p.jpg", icc_profile=profile, exif=exif, quality=95)
    done = command(f"superres predict {tmp_path / 'p.jpg'} --checkpoint {model} --quiet -o q.jpg")
    assert done.code == 0, done.err
    answer = Image.open("q.jpg")
    assert answer.size == (80, 120)  # turned upright: 40 wide, 60 high
    assert answer.info["icc_profile"] == profile
    assert answer.getexif()[0x0112] == 1
    assert answer.getexif()[0x010F] == "Camera"


def test_alpha_and_sixteen_bits_survive(command: Any, tmp_path: pathlib.Path, model: pathlib.Path) -> None:
    from pipelines.data.formats.image_types import Picture
    from pipelines.data.formats.image_write import write_image

    pixels = _scene(2, 32, 32).astype(np.uint16) * 257
    alpha = np.zeros((32, 32), np.uint16)
    alpha[:, 16:] = 65535
    write_image(tmp_path / "deep.png", Picture(pixels, alpha))
    done = command(f"superres predict {tmp_path / 'deep.png'} --checkpoint {model} --quiet -o deeper.png")
    assert done.code == 0, done.err
    answer = read_image("deeper.png")
    assert answer.pixels.dtype == np.uint16
    assert answer.alpha is not None
    assert answer.alpha[:, :24].max() == 0
    assert answer.alpha[:, 40:].min() == 65535
    assert len(np.unique(answer.pixels)) > 300  # finer than 8 bit


def test_an_ensemble_brings_its_uncertainty(command: Any, folder: pathlib.Path, model: pathlib.Path) -> None:
    done = command(f"superres predict {folder / 'a.png'} --checkpoint {model} --ensemble --quiet -o e.png")
    assert done.code == 0, done.err
    spread = read_image("e.uncertainty.png").pixels
    assert spread.shape == (120, 144, 1)
    assert spread.max() > 0
    assert "mean of eight answers" in done.out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("superres predict nowhere.png --model bicubic", "no such file or folder"),
        ("superres predict {photo} --model bicubic --scale 9", "a whole number from 1 to 8"),
        ("superres predict {photo} --model bicubic -o a.gif", "cannot write this kind of file"),
        ("superres predict {folder} --model bicubic -o a.png", "need a folder"),
        ("superres predict {photo} --model bicubik", "did you mean bicubic?"),
        ("superres predict {photo} --model bicubic --attention softmax", "has no attention"),
        ("superres predict {photo} --model bicubic --limit 0", "limit"),
        ("superres fit --data {photo} --scale 2", "too few images"),
        ("superres fit --data {folder} --scale 2 --patch 64", "no image is large enough for a patch"),
        ("superres evaluate --data {empty} --model bicubic", "no image in this folder"),
    ],
)
def test_mistakes_are_said_in_one_message(
    command: Any, folder: pathlib.Path, tmp_path: pathlib.Path, line: str, words: str
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = command(f"{line.format(photo=folder / 'a.png', folder=folder, empty=empty)} --quiet")
    assert done.code == 2, done.err
    assert words in done.err
    assert "Traceback" not in done.err
    assert not pathlib.Path("runs").exists()


def test_a_huge_image_is_refused_before_it_is_decoded(command: Any, tmp_path: pathlib.Path) -> None:
    Image.new("L", (30_000, 200)).save(tmp_path / "wide.png")
    done = command(f"superres predict {tmp_path / 'wide.png'} --model bicubic --limit 5 --quiet")
    assert done.code == 2
    assert "more pixels than allowed" in done.err
    done = command(f"superres predict {tmp_path / 'wide.png'} --model bicubic --scale 2 --quiet -o wide2.png")
    assert done.code == 0, done.err
    assert Image.open("wide2.png").size == (60_000, 400)


def test_shipped_weights_are_better_than_bicubic() -> None:
    """On the four embedded photographs, which were not trained on."""
    for scale in (2, 3, 4):
        resolver = SuperResolver(scale=scale, threads=1)
        evaluation = resolver.evaluate(resolver.demo_images()[:2])
        assert evaluation.metrics["psnr"] > evaluation.baselines["bicubic"]["psnr"] + 0.5, scale
        assert evaluation.provenance.weights == f"cfsr_x{scale}, shipped with the package"
