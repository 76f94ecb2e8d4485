"""Gather what the shipped weights are trained on: `gather_photographs.py OUT --opencv FOLDER [--colour]`.

They come out of packages whose licences allow it: scikit-image and scikit-learn as installed by pip, and the sample
pictures of OpenCV (Debian's opencv-doc has them in /usr/share/doc/opencv-doc/examples/data). Left out on purpose: the
four pictures kept for testing (coffee, chelsea, astronaut, china), baboon, which stands in a test set (Set14), and
pictures of stereo benchmarks (aloe, motorcycle). Each file is checked against its sum, so that the same recipe trains
on the same pixels everywhere.
"""

from __future__ import annotations

import argparse
import hashlib
import pathlib
import shutil
import sys
from importlib.metadata import distribution

#: Name -> (package, beginning of the SHA-256, whether it is in colour).
PHOTOGRAPHS: dict[str, tuple[str, str, bool]] = {
    "aero1.jpg": ("opencv", "d9a69191f6e3642e", True),
    "brick.png": ("scikit-image", "7966caf324f6ba84", False),
    "building.jpg": ("opencv", "742a1baad62ac82e", True),
    "butterfly.jpg": ("opencv", "34a99716b78ded10", True),
    "camera.png": ("scikit-image", "b0793d2adda0fa6a", False),
    "flower.jpg": ("scikit-learn", "a77f6ec41e353afd", True),
    "fruits.jpg": ("opencv", "9c031d80a1c52da5", True),
    "graf1.png": ("opencv", "1504b769303c7bde", True),
    "graf3.png": ("opencv", "492e0e96f21748d0", True),
    "grass.png": ("scikit-image", "b6b6022426b38936", False),
    "gravel.png": ("scikit-image", "c48615b451bf1e60", False),
    "home.jpg": ("opencv", "23b8cf46a1965d0e", True),
    "hubble_deep_field.jpg": ("scikit-image", "3a19c5dd8a927a93", True),
    "leuvenA.jpg": ("opencv", "b2977cdbd9fb3f94", True),
    "leuvenB.jpg": ("opencv", "5bb41a60038a2baa", True),
    "moon.png": ("scikit-image", "78739619d11f7eb9", False),
    "page.png": ("scikit-image", "341a6f0a61557662", False),
    "retina.jpg": ("scikit-image", "38a07f36f27f095e", True),
    "rocket.jpg": ("scikit-image", "c2dd0de7c538df8d", True),
    "text.png": ("scikit-image", "bd84aa3a6e3c9887", False),
}
PLACES = {"scikit-image": "skimage/data", "scikit-learn": "sklearn/datasets/images"}


def place_of(package: str, opencv: pathlib.Path) -> pathlib.Path:
    """The folder of a package's pictures."""
    if package == "opencv":
        return opencv
    return pathlib.Path(str(distribution(package).locate_file(PLACES[package])))


def main() -> int:
    """Copy the pictures; the exit code is 1 if one is missing or differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--opencv", type=pathlib.Path, required=True, help="folder of OpenCV's sample pictures")
    parser.add_argument("--colour", action="store_true", help="only those in colour, as the denoiser wants them")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    wrong = []
    for name, (package, digest, colour) in PHOTOGRAPHS.items():
        if asked.colour and not colour:
            continue
        source = place_of(package, asked.opencv) / name
        if not source.is_file():
            wrong.append(f"{source}: missing")
        elif not hashlib.sha256(source.read_bytes()).hexdigest().startswith(digest):
            wrong.append(f"{source}: another file than the one that was trained on")
        else:
            shutil.copyfile(source, asked.out / name)
    sys.stdout.write("".join(f"{line}\n" for line in wrong))
    sys.stdout.write(f"{len(list(asked.out.iterdir()))} photographs in {asked.out}\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
