"""Shared helpers of the tests: where the real data are, and quiet, deterministic torch."""

from __future__ import annotations

import os
import pathlib

import pytest

REPO = pathlib.Path(__file__).resolve().parents[1]


def _root() -> pathlib.Path:
    set_by_user = os.environ.get("PIPELINES_DATA")
    return pathlib.Path(set_by_user) if set_by_user else REPO.parent / "shared" / "data"


@pytest.fixture(scope="session")
def benchmark() -> pathlib.Path:
    """Folder with data for measuring only; the test is skipped where it is absent."""
    folder = _root() / "benchmark"
    if not folder.is_dir():
        pytest.skip("set PIPELINES_DATA to the folder with the benchmark data")
    return folder


@pytest.fixture(scope="session")
def etth1(benchmark: pathlib.Path) -> pathlib.Path:
    """The unmodified ETTh1 table."""
    path = benchmark / "forecasting" / "ETTh1.csv"
    if not path.is_file():
        pytest.skip("ETTh1.csv is not in the benchmark folder")
    return path


@pytest.fixture(scope="session")
def matcher_folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A small matcher as ``save`` keeps it, hardly trained: halves of 40 short documents of the embedded ones."""
    import torch

    from pipelines import Matcher

    before = torch.get_num_threads()
    kit = Matcher.check_kit()
    matcher = Matcher(**kit["params"], threads=1, baselines=("tfidf",)).fit(kit["data"])
    torch.set_num_threads(before)
    return matcher.save(tmp_path_factory.mktemp("match") / "matcher")


@pytest.fixture(scope="session")
def haxby_folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The embedded whole-brain runs as a BIDS folder: four of the twelve."""
    from pipelines.data.catalog import entry, sample_path
    from pipelines.data.formats.archive import extract

    folder = tmp_path_factory.mktemp("bids") / "haxby"
    extract(sample_path(entry("haxby-brain", "fmri")), folder)
    for path in (folder / "sub-1" / "func").iterdir():
        if int(path.name.split("run-")[1][:2]) > 4:
            path.unlink()
    return folder


@pytest.fixture(scope="session")
def brain_folder(tmp_path_factory: pytest.TempPathFactory, haxby_folder: pathlib.Path) -> pathlib.Path:
    """A small model of brain scans as ``save`` keeps it, hardly trained."""
    import torch

    from pipelines import BrainModel

    before = torch.get_num_threads()
    model = BrainModel(**BrainModel.check_kit()["params"], threads=1).fit(haxby_folder)
    torch.set_num_threads(before)
    return model.save(tmp_path_factory.mktemp("fmri") / "model")


@pytest.fixture(scope="session")
def lifter_folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A small lifter as ``save`` keeps it, hardly trained."""
    import torch

    from pipelines import PoseLifter

    before = torch.get_num_threads()
    kit = PoseLifter.check_kit()
    lifter = PoseLifter(**kit["params"], threads=1).fit(kit["data"])
    torch.set_num_threads(before)
    return lifter.save(tmp_path_factory.mktemp("pose") / "lifter")


@pytest.fixture(scope="session")
def world_folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A small world model as ``save`` keeps it, hardly trained."""
    import torch

    from pipelines import WorldModel

    before = torch.get_num_threads()
    kit = WorldModel.check_kit()
    world = WorldModel(**kit["params"], threads=1).fit(kit["data"])
    torch.set_num_threads(before)
    return world.save(tmp_path_factory.mktemp("world") / "world")
