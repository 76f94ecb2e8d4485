"""Brain scans from end to end in Python: what is learned from, what is answered, on which grid."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from pipelines import BrainModel, load
from pipelines.data.datasets.brain_study import open_study
from pipelines.errors import ConfigError, InputError, NothingToMeasure
from pipelines.fmri import engine
from pipelines.fmri.material import Shelf, identity, open_source, read_material, window_at
from pipelines.fmri.metrics import class_figures
from pipelines.fmri.options import ArchOptions, SplitOptions
from pipelines.fmri.parts import parts_of
from pipelines.fmri.predict import opened
from pipelines.fmri.training import Labelled
from pipelines.training.options import TrainOptions


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def m(brain_folder: pathlib.Path) -> BrainModel:
    found = load(brain_folder, threads=1)
    assert isinstance(found, BrainModel)
    return found


def people(count: int, folder: pathlib.Path) -> pathlib.Path:
    """A BIDS folder of subjects whose sign of a corner tells their sex, and its size their age; two runs each."""
    generator = np.random.default_rng(3)
    rows = ["participant_id\tsex\tage\tsite"]
    for number in range(count):
        name, sex, age = f"sub-{number:02d}", number % 2, 20 + 3.5 * number
        rows.append(f"{name}\t{'FM'[sex]}\t{age}\t{'AB'[number % 4 // 2]}")
        func = folder / name / "func"
        func.mkdir(parents=True)
        for run in (1, 2):
            values = generator.normal(100, 5, (6, 6, 6, 10))
            values[:3, :3, :3] += (40 if sex else -40) * (1 + number / count)
            image = nib.Nifti1Image(values.astype(np.float32), np.diag([2.0, 2, 2, 1]))
            image.header.set_zooms((2, 2, 2, 2.0))
            image.header.set_xyzt_units("mm", "sec")
            image.to_filename(func / f"{name}_task-rest_run-{run}_bold.nii.gz")
    (folder / "participants.tsv").write_text("\n".join(rows) + "\n")
    (folder / "dataset_description.json").write_text('{"Name": "people", "BIDSVersion": "1.8.0"}')
    return folder


SMALL: dict[str, Any] = {
    "arch": ArchOptions(dim=8, depths=(1,), heads=(2,), patch=(3, 3, 3, 1)),
    "window": {"frames": 4},
    "train": TrainOptions(epochs=8, batch_size=16, patience=0, learning_rate=0.01),
    "threads": 1,
}


# Volumes --------------------------------------------------------------------------------------------------------------


def test_what_is_measured_was_not_learned_from(m: BrainModel, haxby_folder: pathlib.Path) -> None:
    found = m.evaluate(haxby_folder)
    assert (found.counts["volumes"], found.counts["blocks"], found.counts["runs"]) == (72, 8, 1)
    material = read_material(m, haxby_folder)
    known = set(m.state.trained.tolist()) | set(m.state.held.tolist())
    assert sum(identity(run) in known for run in material.runs) == 3
    assert set(found.baselines) == {"lda", "majority"}
    assert found.baselines["majority"]["accuracy"] == pytest.approx(1 / 8)
    assert 0 < found.details["permutation"]["p"] <= 1


def test_figures_are_those_of_the_single_answers(m: BrainModel, haxby_folder: pathlib.Path) -> None:
    found = m.evaluate(haxby_folder)
    material = read_material(m, haxby_folder)
    fresh = next(
        n
        for n, run in enumerate(material.runs)
        if identity(run) not in {*m.state.trained.tolist(), *m.state.held.tolist()}
    )
    answers = m.predict(haxby_folder)
    name = material.recordings[fresh].name
    volumes = [one for one in answers.of("volume", name) if one.label is not None]
    right = np.mean([one.predicted == one.label for one in volumes])
    assert len(volumes) == 72
    assert found.metrics["accuracy"] == pytest.approx(right)
    assert len(answers.of("volume", name)) == 121
    chances = np.array([list((one.probabilities or {}).values()) for one in volumes])
    truth = np.array([m.state.classes.index(one.label or "") for one in volumes])
    assert class_figures(np.log(chances), truth)["auroc"] == pytest.approx(found.metrics["auroc"])


def test_a_run_answers_alone_as_among_others(m: BrainModel, haxby_folder: pathlib.Path) -> None:
    path = sorted((haxby_folder / "sub-1" / "func").glob("*bold.nii.gz"))[0]
    alone, together = m.predict(path), m.predict(haxby_folder)
    assert len(alone.runs) == 1
    pair = [alone.of("volume"), together.of("volume", together.runs[0])]
    chances = [[list((one.probabilities or {}).values()) for one in answers] for answers in pair]
    assert np.allclose(chances[0], chances[1], atol=1e-6)
    assert [one.label for one in pair[0]] == [one.label for one in pair[1]]


def test_every_run_is_measured_once_by_folds(haxby_folder: pathlib.Path) -> None:
    kit = BrainModel.check_kit()["params"]
    model = BrainModel(**{**kit, "split": SplitOptions(folds="all", valid=0.0)}, threads=1)
    found = model.evaluate(haxby_folder)
    assert (found.counts["volumes"], found.counts["runs"]) == (288, 4)
    assert found.protocol.startswith("single volumes; leave one run out")
    assert set(found.intervals) >= {"accuracy", "auroc"}
    assert found.details["by_block"]["swift"].keys() >= {"accuracy"}
    assert json.loads(json.dumps(found.to_dict(), default=str))["accuracy"] == found.metrics["accuracy"]


def test_a_saved_model_answers_alike(m: BrainModel, haxby_folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    again = BrainModel.load(m.save(tmp_path / "copy"))
    one, other = m.encode(haxby_folder), again.encode(haxby_folder)
    assert np.array_equal(one.vectors, other.vectors)
    assert one.windows == (121,) * 4
    assert again.state.tr == pytest.approx(2.5)
    assert again.state.classes == m.state.classes


def test_nothing_left_to_measure(m: BrainModel, haxby_folder: pathlib.Path) -> None:
    study = open_study(haxby_folder)
    known = set(m.state.trained.tolist())
    material = read_material(m, study)
    seen = tuple(r for r, run in zip(material.recordings, material.runs, strict=True) if identity(run) in known)
    with pytest.raises(NothingToMeasure, match="every run was learned from"):
        m.evaluate(dataclasses.replace(study, recordings=seen))


def test_two_categories_alone(haxby_folder: pathlib.Path) -> None:
    kit = BrainModel.check_kit()["params"]
    model = BrainModel(**{**kit, "target": {"only": ("face", "house")}}, threads=1).fit(haxby_folder)
    assert model.state.classes == ("face", "house")
    assert model.evaluate(haxby_folder).counts["volumes"] == 18
    with pytest.raises(InputError, match=r"target.only: no such category. Found: hose"):
        BrainModel(**{**kit, "target": {"only": ("face", "hose")}}).fit(haxby_folder)


def test_windows_about_a_volume_hold_it() -> None:
    for volumes, frames in ((9, 4), (5, 5), (7, 1)):
        for volume in range(volumes):
            start = window_at(volume, frames, volumes)
            assert 0 <= start <= volume < start + frames <= volumes


def test_recombined_windows_keep_class_means_and_spread() -> None:
    generator = np.random.default_rng(0)
    label = np.arange(400) % 2
    values = np.where(label, 3.0, -1.0)[:, None] + generator.normal(0, 1, (400, 4))

    class One:
        grid, volumes = (4, 1, 1), 400

        def window(self, start: int, frames: int) -> np.ndarray:
            return values[start : start + frames].T.reshape(4, 1, 1, frames).astype(np.float32)

    runs: Any = [One()]
    options = dataclasses.replace(BrainModel().augment, recombine=1.0)
    start = np.arange(400)
    data = Labelled(Shelf(runs, 1 << 20), start * 0, start, label, 1, options=options, fill=[0.0])
    data.set_epoch(1, 1)
    batch = data.__getitems__(range(400))
    x = batch["x"].flatten(1).numpy()
    for kind in (0, 1):
        assert x[label == kind].mean() == pytest.approx(values[label == kind].mean(), abs=0.1)
        assert x[label == kind].std(0).mean() == pytest.approx(1.0, abs=0.1)
    assert np.abs(x - values).max() > 0.5
    assert torch.equal(data.__getitems__(range(400))["x"], batch["x"])


# Subjects -------------------------------------------------------------------------------------------------------------


def test_sex_of_subjects_never_divides_one(tmp_path: pathlib.Path) -> None:
    folder = people(12, tmp_path / "p")
    model = BrainModel(**SMALL, target={"column": "sex"}, split=SplitOptions(test=0.3, valid=0.2))
    material = read_material(model, folder)
    parts, _ = parts_of(model, material)
    sides = [{material.recordings[one].subject for one in part} for part in (parts.train, parts.valid, parts.test)]
    assert not (sides[0] & sides[1])
    assert not (sides[0] & sides[2])
    assert not sides[1] & sides[2]
    assert sum(map(len, sides)) == 12
    model.fit(folder)
    found = model.evaluate(folder)
    assert found.counts["subjects"] == len(sides[2])
    assert found.counts["windows"] == 3 * 2 * len(sides[2])  # of 10 volumes: 0-3, 4-7, 6-9
    assert found.metrics["accuracy"] == 1.0
    assert set(found.baselines) >= {"svm", "logistic", "connectome", "majority"}
    answers = model.predict(folder)
    assert [one.name for one in answers.of("subject")] == [f"sub-{n:02d}" for n in range(12)]
    one = answers.of("subject")[0]
    assert (one.label, one.volumes) == ("F", 20)


def test_a_subjects_answer_is_the_mean_of_its_windows(tmp_path: pathlib.Path) -> None:
    folder = people(6, tmp_path / "p")
    options = {**SMALL, "train": TrainOptions(epochs=1, patience=0), "baselines": ("ridge", "majority")}
    model = BrainModel(**options, target={"column": "age", "kind": "regression"}).fit(folder)
    material = read_material(model, folder)
    shelf = engine.shelf_of(model, material)
    every = engine.scores_of(model, model.state, shelf, material.run.tolist(), material.start.tolist())[:, 0]
    answers = {one.subject: one.value for one in model.predict(folder).of("subject")}
    for number in range(6):
        assert answers[f"{number:02d}"] == pytest.approx(every[material.unit == number].mean(), rel=1e-5)
    assert abs(every.mean() - 28.75) < 20  # in years, not in standard scores
    found = model.evaluate(folder)
    assert set(found.metrics) >= {"mse", "mae"}
    assert set(found.baselines) == {"ridge", "majority"}


def test_released_layout_encodes_and_tells(tmp_path: pathlib.Path) -> None:
    from pipelines.fmri.models.swift import ClassHead, Swift, SwiftConfig, SwiftNet

    config = SwiftConfig(image=(24, 24, 24), frames=8, dim=12, depths=(1, 1), heads=(1, 2))
    net = SwiftNet(Swift(config), ClassHead(config.features, 1))
    torch.save({"state_dict": net.state_dict(), "epoch": 3}, tmp_path / "released.ckpt")
    model = BrainModel.from_official(tmp_path / "released.ckpt")
    values = np.random.default_rng(0).normal(50, 5, (20, 26, 24, 16)).astype(np.float32)
    vectors = model.encode(values)
    assert vectors.vectors.shape == (1, config.features)
    assert vectors.windows == (2,)
    assert any("cut" in note or "padded" in note for note in vectors.notes)
    told = model.predict(values)
    assert told.classes == ("0", "1")
    assert len(told.of("run")) == 1


def test_one_logit_speaks_for_one_class_and_against_the_other(tmp_path: pathlib.Path) -> None:
    from pipelines.fmri.models.swift import ClassHead, Swift, SwiftConfig, SwiftNet

    config = SwiftConfig(image=(12, 12, 12), frames=4, dim=12, depths=(1,), heads=(3,))
    net = SwiftNet(Swift(config), ClassHead(config.features, 1))
    torch.save({"state_dict": net.state_dict()}, tmp_path / "released.ckpt")
    model = BrainModel.from_official(tmp_path / "released.ckpt")
    values = np.random.default_rng(0).normal(50, 5, (12, 12, 12, 4)).astype(np.float32)
    one = opened(model, open_source(model, values).recordings[0])
    logits = engine.scores_of(model, model.state, Shelf([one.run], 1 << 30), [0], [0])
    with torch.no_grad():
        gain = logits[0, 1] - float(model.state.module(torch.zeros(1, 1, 12, 12, 12, 4)))
    name = model.predict(values).of("run")[0].predicted
    found = model.explain(values, steps=8).maps[0]
    assert found.label == name
    assert found.difference == pytest.approx(gain if name == "1" else -gain, rel=1e-3)
    assert found.mean.sum() == pytest.approx(found.difference, rel=0.05, abs=1e-3)


# Maps -----------------------------------------------------------------------------------------------------------------


def test_maps_lie_on_the_scan(m: BrainModel, haxby_folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = sorted((haxby_folder / "sub-1" / "func").glob("*bold.nii.gz"))[1]
    maps = m.explain(path, labels=("face",), windows=4, steps=8)
    target = maps.save(tmp_path / "face.nii.gz")
    image, scan = nib.load(target), nib.load(path)
    assert image.shape == scan.shape[:3]
    assert np.allclose(image.affine, scan.affine)
    values = np.asarray(image.dataobj)
    one = maps.maps[0]
    assert values.sum() == pytest.approx(one.difference, abs=0.02 * max(1, abs(one.difference)))
    assert any("4 of 9 windows explained" in note for note in maps.notes)


def test_maps_refuse_what_is_not_there(m: BrainModel, haxby_folder: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match=r"labels: no such class. Found: nose"):
        m.explain(haxby_folder, labels=("nose",))
    with pytest.raises(ConfigError, match="baseline: no such baseline"):
        m.explain(haxby_folder, baseline="zero")
