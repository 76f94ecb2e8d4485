"""The wheel: two top-level names, every module and sample, and it works away from the repository."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import types
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def checker() -> types.ModuleType:
    """tools/check_wheel.py, which the gate runs too."""
    spec = importlib.util.spec_from_file_location("check_wheel", ROOT / "tools" / "check_wheel.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Built from a copy, so that no build folder appears in the repository."""
    pytest.importorskip("setuptools", minversion="77", reason="needs setuptools; the gate builds the wheel anyway")
    copy, out = tmp_path_factory.mktemp("source") / "repo", tmp_path_factory.mktemp("wheel")
    left_out = shutil.ignore_patterns(
        ".git", ".venv", "__pycache__", "tests", "notebooks", "runs", "build", "dist", "*.egg-info", ".hypothesis"
    )
    shutil.copytree(ROOT, copy, symlinks=True, ignore=left_out)
    build = "from setuptools import build_meta; import sys; print(build_meta.build_wheel(sys.argv[1]))"
    command = [sys.executable, "-c", build, str(out)]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def test_wheel_holds_what_it_must_and_nothing_else(checker: types.ModuleType, wheel: pathlib.Path) -> None:
    assert checker.problems(wheel) == []
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"pipelines", "core_attention"}
    for sample in ("vic_elec", "appliances", "exchange", "beijing_pm"):
        assert f"pipelines/data/samples/forecasting/{sample}.csv.xz" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith("DATA_LICENSES.md") for name in names)


def test_checker_sees_what_is_wrong(checker: types.ModuleType, wheel: pathlib.Path, tmp_path: pathlib.Path) -> None:
    bad = tmp_path / "bad.whl"
    dropped = "pipelines/data/samples/forecasting/exchange.csv.xz"
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(bad, "w") as new:
        for name in old.namelist():
            if name != dropped:
                new.writestr(name, old.read(name))
        new.writestr("data/__init__.py", "")
        new.writestr("pipelines/weights.pkl", "")
    found = "\n".join(checker.problems(bad))
    for part in (f"{dropped} is missing", "top-level name data", "weights.pkl must not ship"):
        assert part in found


def test_unpacked_wheel_works(wheel: pathlib.Path, tmp_path: pathlib.Path) -> None:
    place = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(place)
    code = (
        "import pathlib, pipelines, core_attention, core_attention.kernels\n"
        "from pipelines.data.catalog import entries, open_entry\n"
        f"place = pathlib.Path({str(place)!r})\n"
        "for module in (pipelines, core_attention, core_attention.kernels):\n"
        "    assert place in pathlib.Path(module.__file__).parents, module.__file__\n"
        "assert len(entries()) >= 4\n"
        "for entry in entries():\n"
        "    assert len(open_entry(entry)) > 1000\n"
        "from pipelines.cli import main\n"
        "raise SystemExit(main(['mechanisms', '--json']))\n"
    )
    env = os.environ | {"PYTHONPATH": str(place)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "auto_correlation" in done.stdout
