"""``pipelines fmri`` as people use it: BIDS folders and single scans in; answers, vectors, maps and reports out."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

SMALL = "--arch.dim 8 --arch.depths [1] --arch.heads [2] --arch.patch [5,5,5,1] --train.epochs 1"


def runs_of(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted((folder / "sub-1" / "func").glob("*bold.nii.gz"))


def test_fit_keeps_a_model_and_says_what_it_can_do(
    command: Any, haxby_folder: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = command(
        f"fmri fit --data {haxby_folder} {SMALL} --split.test 0.25 --baselines lda,majority --quiet -o model"
    )
    assert done.code == 0, done.err
    assert re.search(r"swift\W+\d\.\d{4}\W+\d\.\d{4}", done.out), done.out
    kept = {path.name for path in pathlib.Path("model").iterdir()}
    assert kept >= {"model.safetensors", "config.json", "report.html", "evaluation.json", "evaluation.png"}
    done = command(f"fmri evaluate --data {haxby_folder} --checkpoint model --baselines lda --json --quiet -o e.json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["volumes"] == 72
    assert said["baselines"].keys() == {"lda"}
    assert {"accuracy", "auroc", "f1"} <= said.keys()
    assert json.loads((tmp_path / "e.json").read_text())["accuracy"] == said["accuracy"]
    assert (tmp_path / "e.json.report.html").is_file()


def test_predict_tells_every_volume(
    command: Any, haxby_folder: pathlib.Path, brain_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    path = runs_of(haxby_folder)[0]
    done = command(f"fmri predict {path} --checkpoint {brain_folder} --json --quiet -o answer.csv")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert len(said["volumes"]) == 121
    assert len(said["blocks"]) == 8
    table = pd.read_csv(tmp_path / "answer.csv")
    assert len(table) == 129
    chances = table[[name for name in table if name.startswith("p(")]].sum(axis=1)
    assert np.allclose(chances, 1.0)
    assert "axes were permuted or flipped" in " ".join(said["notes"])
    report = (tmp_path / "answer.csv.report.html").read_text()
    assert "data:image/png" in report


def test_encode_and_explain(
    command: Any, haxby_folder: pathlib.Path, brain_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    path = runs_of(haxby_folder)[1]
    done = command(f"fmri encode {haxby_folder} --checkpoint {brain_folder} --quiet -o vectors.npz")
    assert done.code == 0, done.err
    with np.load(tmp_path / "vectors.npz") as kept:
        assert kept["vectors"].shape == (4, 8)
    line = f"fmri explain {path} --checkpoint {brain_folder} --labels face,house --steps 4 --windows 2"
    done = command(f"{line} --json --quiet -o maps/")
    assert done.code == 0, done.err
    found = sorted((tmp_path / "maps").rglob("*.nii.gz"))
    assert len(found) == 4, found  # the signed mean and the mean of sizes, of two classes
    scan = nib.load(path)
    for one in found:
        image = nib.load(one)
        assert image.shape == scan.shape[:3]
        assert np.allclose(image.affine, scan.affine)
        assert json.loads(one.with_name(one.name.replace(".nii.gz", ".json")).read_text())
    again = command(f"{line} --quiet -o maps/")
    assert again.code == 2
    replaced = command(f"{line.replace(str(path), str(haxby_folder))} --labels face --overwrite --quiet -o maps/")
    assert replaced.code == 0, replaced.err
    about = json.loads(next((tmp_path / "maps").rglob("dataset_description.json")).read_text())
    assert haxby_folder.name in json.dumps(about["SourceDatasets"])
    shutil.rmtree(tmp_path / "maps")
    assert command(f"{line} --quiet -o maps/").code == 0
    assert len(sorted((tmp_path / "maps").rglob("*.nii.gz"))) == 4


def test_a_training_that_goes_on(command: Any, haxby_folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    study = tmp_path / "study"
    shutil.copytree(haxby_folder, study)
    line = (
        f"fmri fit --data study {SMALL} --pretrain.kind instance --pretrain.epochs 1 --pretrain.near 3 --pretrain.gap 1"
    )
    done = command(f"{line} --baselines majority --quiet -o model")
    assert done.code == 0, done.err
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["training"]["pretraining"]["epochs"] == 1
    assert config["classes"][0] == "bottle"


def test_embedded_names_are_listed(command: Any) -> None:
    done = command("list --json")
    assert done.code == 0
    assert "haxby-brain" in done.out
