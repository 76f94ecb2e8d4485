"""Look inside a built wheel: two top-level names, every module and every sample, and nothing that must not ship."""

from __future__ import annotations

import pathlib
import sys
import zipfile

ALLOWED = {"pipelines", "core_attention"}
ROOT = pathlib.Path(__file__).resolve().parents[1]
#: Root folder -> where it lies in the wheel (links give floors their import names).
FLOORS = {
    "pipelines": "pipelines",
    "core_attention": "core_attention",
    "kernels": "core_attention/kernels",
    "data": "pipelines/data",
}


def problems(wheel: pathlib.Path) -> list[str]:
    """Everything wrong with a wheel, in words."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    found = [f"top-level name {top} must not be installed" for top in sorted(tops - ALLOWED)]
    found += [f"{name} must not ship" for name in names if name.endswith((".pyc", ".pt", ".pkl"))]
    have = set(names)
    found += [f"{name} is missing" for name in sorted(expected() - have)]
    return found


def expected() -> set[str]:
    """Paths that a wheel must hold: all modules and data files of the four floors."""
    endings = {
        ".py",
        ".npz",
        ".xz",
        ".safetensors",
        ".json",
        ".html",
        ".md",
        ".j2",
        ".png",
        ".jpg",
        ".fits",
        ".mp4",
        ".zip",
    }
    endings |= {".ogg", ".tsv", ".txt"}
    return {
        f"{inside}/{path.relative_to(ROOT / floor).as_posix()}"
        for floor, inside in FLOORS.items()
        for path in (ROOT / floor).rglob("*")
        if path.suffix in endings and not path.is_symlink() and "__pycache__" not in path.parts
    }


if __name__ == "__main__":
    wheel = pathlib.Path(sys.argv[1])
    wrong = problems(wheel)
    sys.stdout.write("".join(f"{line}\n" for line in wrong) or f"{wheel.name}: {len(expected())} files, as expected\n")
    sys.exit(bool(wrong))
