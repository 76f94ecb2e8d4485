"""Every module of the four floors imports by its installed name, and the public names are what they say."""

from __future__ import annotations

import importlib
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
#: Root folder -> import name.
FLOORS = {
    "pipelines": "pipelines",
    "core_attention": "core_attention",
    "kernels": "core_attention.kernels",
    "data": "pipelines.data",
}


def modules() -> list[str]:
    """Import names of all modules."""
    names = []
    for folder, name in FLOORS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            inner = path.relative_to(ROOT / folder)
            if "__pycache__" in inner.parts or inner.parts[0] in ("kernels", "data") or inner.name == "__main__.py":
                continue
            parts = inner.with_suffix("").parts
            names.append(".".join((name, *(part for part in parts if part != "__init__"))))
    return names


@pytest.mark.parametrize("name", modules())
def test_module_imports(name: str) -> None:
    importlib.import_module(name)


@pytest.mark.parametrize("name", ["pipelines", "core_attention"])
def test_public_names_exist(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__all__
    for public in package.__all__:
        assert getattr(package, public) is not None, public
        assert public in dir(package)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = package.no_such_name


@pytest.mark.parametrize("order", [("pipelines.data", "pipelines"), ("core_attention.kernels", "core_attention")])
def test_a_floor_can_be_imported_first(order: tuple[str, str]) -> None:
    """No import circle hides behind the usual order; and no top-level `data` or `kernels` comes to be."""
    code = f"import sys, {', '.join(order)}; assert not {{'data', 'kernels'}} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
