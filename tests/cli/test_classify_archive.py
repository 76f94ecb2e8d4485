"""``pipelines classify evaluate --archive``: which sets are found, what stands in the answer, and what survives."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import pathlib
import shutil
import signal
import statistics
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pipelines import Classifier
from pipelines.classify.baselines import NearestDTW
from pipelines.classify.options import ArchOptions
from pipelines.data.formats.labelled import read_labelled, sktime_sets
from pipelines.data.formats.labelled_archive import find_sets
from pipelines.errors import ConfigError, InputError
from pipelines.training import run as training_run
from pipelines.training.options import TrainOptions

SMALL = (
    "--model transformer --arch.d_model 8 --arch.n_heads 2 --arch.d_ff 8 --arch.layers 1 "
    "--train.max_steps 4 --refit false"
)


def carve(name: str, folder: pathlib.Path, *, each: int, known_as: str) -> None:
    """Some series of every class of a real set, as NAME_TRAIN.ts and NAME_TEST.ts of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    train = sktime_sets()[name]
    for part in ("TRAIN", "TEST"):
        lines = train.with_name(f"{name}_{part}.ts").read_text().splitlines()
        begin = lines.index("@data") + 1
        by_class: dict[str, list[str]] = {}
        for line in lines[begin:]:
            by_class.setdefault(line.rpartition(":")[2], []).append(line)
        kept = [line for rows in by_class.values() for line in rows[:each]]
        (folder / f"{known_as}_{part}.ts").write_text("\n".join([*lines[:begin], *kept]) + "\n")


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Three small sets: two in folders of their own, one flat."""
    folder = tmp_path_factory.mktemp("sets") / "archive"
    carve("GunPoint", folder / "Gun", each=5, known_as="Gun")
    carve("ItalyPowerDemand", folder / "Power", each=6, known_as="Power")
    carve("BasicMotions", folder, each=4, known_as="Motions")
    return folder


@pytest.fixture
def short(tmp_path: pathlib.Path) -> pathlib.Path:
    """Two sets of series of 24 steps, on which a model is quickly fitted."""
    carve("ItalyPowerDemand", tmp_path / "archive", each=6, known_as="Power")
    carve("UnitTest", tmp_path / "archive", each=6, known_as="Unit")
    return tmp_path / "archive"


@pytest.fixture
def archive(sets: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """The same in the folder of the test."""
    return pathlib.Path(shutil.copytree(sets, tmp_path / "archive"))


def told(done: Any) -> dict[str, Any]:
    assert done.code == 0, done.err
    assert done.out.count("\n") == 1
    return json.loads(done.out)


def figures_only(answer: dict[str, Any]) -> dict[str, Any]:
    """What must be the same in a run that was interrupted and in one that was not."""
    return {k: v for k, v in answer.items() if k not in ("provenance", "files")}


# Which sets a folder holds ------------------------------------------------------------------------------------------


def test_every_layout_is_found_and_the_rest_is_counted(archive: pathlib.Path) -> None:
    (archive / "Power" / "README.md").write_text("inside a set: no matter")
    for part in ("TRAIN", "TEST"):
        text = (archive / "Gun" / f"Gun_{part}.ts").read_bytes()
        with lzma.open(archive / f"Packed_{part}.ts.xz", "wb") as file:
            file.write(text)
        with gzip.open(archive / f"Lines_{part}.tsv.gz", "wt") as file:
            file.write("a\t1\t2\t3\nb\t2\t1\t0\n")
        (archive / f"Gun_{part}.ts").write_bytes(text)  # the same name again, flat
        (archive / f"Motions_{part}.arff").touch()  # another format of a set that is there
    arrays = {"X": np.zeros((4, 1, 5)), "y": list("abab")}
    np.savez(archive / "Split.npz", split=["train", "train", "test", "test"], **arrays)
    (archive / "Inside").mkdir()
    np.savez(archive / "Inside" / "Inside.npz", split=["train", "train", "test", "test"], **arrays)
    np.savez(archive / "Whole.npz", **arrays)
    (archive / "Alone_TRAIN.ts").touch()
    (archive / "Alone_TEST.arff").touch()
    (archive / "Hollow").mkdir()
    (archive / ".hidden").touch()
    (archive / "README.md").touch()
    found = find_sets(archive)
    assert [one.name for one in found.sets] == ["Gun", "Inside", "Lines", "Motions", "Packed", "Power", "Split"]
    assert found.sets[0].files[0] == archive / "Gun" / "Gun_TRAIN.ts", "a folder comes before a file of the same name"
    for one in found.sets:
        assert set(read_labelled(one.source).split or ()) == {"train", "test"}, one.name
    assert dict(found.passed_over) == {
        "Hollow": "no pair of files NAME_TRAIN and NAME_TEST in the folder",
        ".hidden": "hidden",
        "README.md": "no NAME_TRAIN or NAME_TEST",
        "Whole.npz": "an NPZ without a split",
        "Alone_TRAIN.ts": "no partner Alone_TEST of its kind",
        "Alone_TEST.arff": "no partner Alone_TRAIN of its kind",
        "Gun_TRAIN.ts": f"a set Gun is read from {archive / 'Gun' / 'Gun_TRAIN.ts'}",
    }
    assert found.notes[0].startswith(f"7 sets found in {archive}: Gun, Inside,")
    assert "1 (hidden): .hidden" in found.notes[1]


def test_a_real_archive_is_found() -> None:
    """The folder that sktime ships holds sets for other tasks, and folders that hold none."""
    found = find_sets(sktime_sets()["BasicMotions"].parents[1])
    assert {one.name for one in found.sets} >= set(sktime_sets())
    assert "Airline" in dict(found.passed_over)


# The answer ---------------------------------------------------------------------------------------------------------


def test_the_answer_is_that_of_each_set_and_of_scipy(command: Any, archive: pathlib.Path) -> None:
    (archive / "notes.txt").touch()
    done = command("classify evaluate --archive archive --model majority --json --quiet -o run/")
    answer = told(done)
    assert done.err == ""
    rows = answer["details"]["sets"]
    assert [row["set"] for row in rows] == ["Gun", "Motions", "Power"]
    assert (answer["sets"], answer["test_series"]) == (3, 10 + 16 + 12)
    assert answer["data"] == "archive"
    assert answer["protocol"].startswith("3 sets, each counted once; official split")
    names = ["majority", "minirocket", "dtw"]
    scores = np.array([[row["accuracy"][name] for name in names] for row in rows])
    alone = told(command("classify evaluate --data archive/Power --model majority --json --quiet"))
    assert rows[2]["accuracy"]["majority"] == alone["accuracy"]
    assert rows[2]["accuracy"]["dtw"] == alone["baselines"]["dtw"]["accuracy"]
    assert rows[2]["n"] == alone["n"] == 12
    assert answer["accuracy"] == pytest.approx(scores[:, 0].mean())
    assert answer["baselines"]["dtw"]["accuracy"] == pytest.approx(scores[:, 2].mean())
    ranks = stats.rankdata(-scores, axis=1).mean(0)
    assert answer["mean_rank"] == pytest.approx(ranks[0])
    assert answer["details"]["average_ranks"] == pytest.approx(dict(zip(names, ranks, strict=True)))
    assert answer["details"]["friedman"]["p"] == pytest.approx(stats.friedmanchisquare(*scores.T).pvalue)
    losses = int((scores[:, 0] < scores[:, 1]).sum())
    assert answer["baselines"]["minirocket"]["model_losses"] == losses == 3
    assert any("3 sets are too few" in note for note in answer["notes"])
    assert "passed over in the folder: 1 (no NAME_TRAIN or NAME_TEST): notes.txt" in answer["notes"]


def test_what_is_written_and_shown(command: Any, archive: pathlib.Path) -> None:
    done = command("classify evaluate --archive archive --model majority -o run/")
    assert done.code == 0, done.err
    assert "set 2 of 3: Motions" in done.err
    for part in ("Accuracy of every set", "Pairs of methods", "mean_rank", "model_wins", "Motions", "wrote run/report"):
        assert part in done.out
    run = pathlib.Path("run")
    names = {"config.yaml", "evaluation.json", "evaluation.png", "report.html", "sets"}
    assert {path.name for path in run.iterdir()} == names
    assert sorted(path.name for path in (run / "sets").iterdir()) == ["Gun.json", "Motions.json", "Power.json"]
    page = (run / "report.html").read_text()
    for part in ("Critical differences", "Set by set", "Accuracy of every set", "Nemenyi", "Power", "Holm"):
        assert part in page
    assert page.count("data:image/png") == 2


def test_one_set_has_no_ranks(command: Any, archive: pathlib.Path) -> None:
    answer = told(command("classify evaluate --archive archive/Power --model majority --json --quiet -o one.json"))
    assert answer["sets"] == 1
    assert "mean_rank" not in answer
    assert "average_ranks" not in answer["details"]
    assert "ranks and tests need two or more sets: there are none" in answer["notes"]
    assert answer["baselines"]["minirocket"]["model_losses"] == 1
    assert pathlib.Path("one.json.png").stat().st_size > 1000


def test_a_method_without_an_answer_on_every_set_has_no_rank(
    command: Any, archive: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NearestDTW, "too_large", lambda self, train, tests: "too many" if len(tests) > 12 else None)
    answer = told(command("classify evaluate --archive archive --model majority --json --quiet -o run/"))
    rows = {row["set"]: row["accuracy"]["dtw"] for row in answer["details"]["sets"]}
    assert rows["Motions"] is None
    assert rows["Gun"] > 0.5, "its figures are shown all the same"
    assert set(answer["details"]["average_ranks"]) == {"majority", "minirocket"}
    assert answer["details"]["not_compared"] == ["dtw"]
    assert answer["baselines"]["dtw"].keys() == {"model_wins", "ties", "model_losses"}
    assert sum(answer["baselines"]["dtw"].values()) == 2
    assert any(note.startswith("dtw has no answer on 1 of 3 sets (Motions)") for note in answer["notes"])
    assert answer["details"]["friedman"] is None


def test_seeds_count_by_their_median_set_by_set(command: Any, short: pathlib.Path) -> None:
    answer = told(command(f"classify evaluate --archive archive {SMALL} --seeds 3 --seed 5 --json --quiet -o run/"))
    for row in answer["details"]["sets"]:
        assert [entry["seed"] for entry in row["seeds"]] == [5, 6, 7]
        assert row["accuracy"]["transformer"] == statistics.median(entry["accuracy"] for entry in row["seeds"])
        assert any("training series are held out" in note for note in row["notes"])
    assert any("medians of 3 seeds a set" in note for note in answer["notes"])
    assert not list(pathlib.Path("run").rglob("training.pt")), "the states of finished sets are deleted"


def test_from_python(archive: pathlib.Path) -> None:
    classifier = Classifier(model="majority")
    evaluation = classifier.evaluate_archive(archive)
    assert evaluation.counts == {"sets": 3, "test_series": 38}
    assert not classifier.is_fitted
    assert [title for title, _, _ in evaluation.figures] == ["Critical differences", "Set by set"]
    assert sorted(path.name for path in archive.parent.iterdir()) == ["archive"], "nothing is written"
    with pytest.raises(ConfigError, match="seeds: must be at least 1"):
        classifier.evaluate_archive(archive, seeds=0)


# Sets that fail -----------------------------------------------------------------------------------------------------


def spoil(folder: pathlib.Path) -> None:
    """Cut the test part in the middle of a number."""
    path = next(folder.glob("*_TEST.ts"))
    path.write_text(path.read_text()[:-40] + "x")


def test_a_broken_set_is_named_and_the_others_go_on(command: Any, archive: pathlib.Path) -> None:
    spoil(archive / "Gun")
    done = command("classify evaluate --archive archive --model majority -o run/")
    assert done.code == 0, done.err
    assert "left out: Gun: Gun_TEST.ts, line" in done.out
    assert "1 left out" in done.out
    answer = json.loads(pathlib.Path("run/evaluation.json").read_text())
    assert [row["set"] for row in answer["details"]["sets"]] == ["Motions", "Power"]
    assert answer["details"]["left_out"][0]["set"] == "Gun"
    assert "Sets left out" in pathlib.Path("run/report.html").read_text()
    carve("GunPoint", archive / "Gun", each=5, known_as="Gun")  # mended: the run takes it in
    again = told(command("classify evaluate --resume run --json --quiet"))
    assert again["sets"] == 3
    assert "left_out" not in again


def test_a_fault_inside_one_set_does_not_end_the_run(
    command: Any, archive: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = Classifier.fit

    def fails(self: Classifier, data: Any) -> Classifier:
        if data.source == "Motions":
            raise ZeroDivisionError("no luck")
        return fit(self, data)

    monkeypatch.setattr(Classifier, "fit", fails)
    answer = told(command("classify evaluate --archive archive --model majority --json --quiet -o run/"))
    expected = [{"set": "Motions", "message": "internal error, ZeroDivisionError: no luck"}]
    assert answer["details"]["left_out"] == expected
    monkeypatch.setenv("PIPELINES_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        command("classify evaluate --archive archive --model majority --json --quiet -o again/")


def test_a_full_disk_ends_the_run(command: Any, archive: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it would have space again for the next set: what cannot be kept is no fault of the set."""
    from pipelines import files

    full, sync = [True], os.fsync

    def once(descriptor: int) -> None:
        if full:
            full.clear()
            raise OSError(28, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(files.os, "fsync", once)
    done = command(f"classify evaluate --archive archive {SMALL} --quiet -o run/")
    assert done.code == 1
    assert "full" in done.err
    assert not pathlib.Path("run").exists()


def test_all_sets_broken_is_a_failure_that_writes_nothing(refused: Any, archive: pathlib.Path) -> None:
    for folder in (archive / "Gun", archive / "Power", archive):
        spoil(folder)
    refused(
        "classify evaluate --archive archive --model majority -o run/",
        "none of the 3 sets could be evaluated",
        "Gun: Gun_TEST.ts, line",
    )
    refused("classify evaluate --archive archive/Gun --model majority", "Gun_TEST.ts, line", "Cure:")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("--archive nowhere", ("nowhere", "no such folder")),
        ("--archive archive/Gun/Gun_TRAIN.ts", ("Gun_TRAIN.ts", "a file, not a folder", "--data")),
        ("--archive empty", ("empty", "the folder is empty", "Expected: NAME/NAME_TRAIN.ts")),
        ("--archive none", ("no set in the folder", "2 (no NAME_TRAIN or NAME_TEST): a.txt, b.txt")),
        ("--archive archive --data BasicMotions", ("--archive", "only one of --data and --archive")),
        ("", ("--data: is missing", "--archive")),
        ("--archive archive --checkpoint model", ("--checkpoint", "fitted anew on every set")),
        ("--archive archive --model vsfromer", ("did you mean vsformer",)),
    ],
)
def test_uses_that_make_no_sense(refused: Any, archive: pathlib.Path, words: str, parts: tuple[str, ...]) -> None:
    for name in ("empty", "none", "model"):
        (archive.parent / name).mkdir()
    for name in ("a.txt", "b.txt"):
        (archive.parent / "none" / name).touch()
    refused(f"classify evaluate {words}", *parts)


def test_only_domains_with_archives_offer_them(command: Any, refused: Any) -> None:
    assert "--archive" in command("classify evaluate --help").out
    assert "--archive" not in command("forecast evaluate --help").out
    assert "--archive" not in command("classify fit --help").out
    refused("forecast evaluate --archive somewhere", "--archive")


# Interrupted and resumed --------------------------------------------------------------------------------------------


def test_ctrl_c_keeps_the_finished_sets(command: Any, archive: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "classify evaluate --archive archive --model majority --json --quiet"
    expected = figures_only(told(command(f"{line} -o whole/")))
    fit, fitted = Classifier.fit, list[str]()

    def counted(self: Classifier, data: Any) -> Classifier:
        fitted.append(data.source)
        if fitted == ["Gun", "Motions"]:
            raise KeyboardInterrupt
        return fit(self, data)

    monkeypatch.setattr(Classifier, "fit", counted)
    done = command(f"{line} -o run/")
    assert done.code == 130
    assert done.out == ""
    assert "Continue with: pipelines classify evaluate --resume run" in done.err
    assert sorted(str(path.relative_to("run")) for path in pathlib.Path("run").rglob("*.*")) == [
        "config.yaml",
        "sets/Gun.json",
    ]
    fitted[:] = ["begun"]
    resumed = told(command("classify evaluate --resume run --json --quiet"))
    assert fitted == ["begun", "Motions", "Power"], "what is finished is not fitted again"
    assert figures_only(resumed) == expected


def test_ctrl_c_before_the_first_set_is_finished_leaves_nothing(
    command: Any, archive: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: Classifier, data: Any) -> Classifier:
        raise KeyboardInterrupt

    monkeypatch.setattr(Classifier, "fit", stop)
    done = command("classify evaluate --archive archive --model majority --quiet")
    assert done.code == 130
    assert "--resume" not in done.err, "there is nothing to go on with"
    assert not pathlib.Path("runs").exists()


def test_a_signal_in_training_goes_on_with_the_same_step(
    command: Any, short: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = f"classify evaluate --archive archive {SMALL} --seeds 2 --json --quiet"
    expected = figures_only(told(command(f"{line} -o whole/")))
    step, taken = training_run.Run._step, 0

    def stopped(self: Any, batch: Any) -> None:
        nonlocal taken
        taken += 1
        if taken == 3 * 4 + 2:  # the second seed of the second set
            signal.raise_signal(signal.SIGTERM)
        step(self, batch)

    monkeypatch.setattr(training_run.Run, "_step", stopped)
    done = command(f"{line} -o run/")
    assert done.code == 143, done.err
    states = [str(path.relative_to("run/training")) for path in pathlib.Path("run").rglob("training.pt")]
    assert sorted(states) == ["Unit/seed-2021/training.pt", "Unit/seed-2022/training.pt"]
    taken = 1000
    resumed = told(command("classify evaluate --resume run --json --quiet"))
    assert taken == 1000 + 2, "no step that was taken before is taken again"
    assert figures_only(resumed) == expected


def test_a_resumed_run_holds_on_to_its_options_and_files(command: Any, refused: Any, archive: pathlib.Path) -> None:
    assert command("classify evaluate --archive archive --model majority -o run/").code == 0
    for change in ("--model minirocket", "--seed 3", "--seeds 2"):
        refused(f"classify evaluate --resume run {change}", "was evaluated with other options", "Found:")
    stored = json.loads(pathlib.Path("run/sets/Gun.json").read_text())
    assert stored["options"]["model"] == "majority"
    stored["evaluation"]["accuracy"] = 0.123  # a trace by which it is seen that it was read
    pathlib.Path("run/sets/Gun.json").write_text(json.dumps(stored))
    carve("ItalyPowerDemand", archive / "Power", each=5, known_as="Power")
    pathlib.Path("run/sets/Motions.json").write_text("{")
    done = command("classify evaluate --resume run --threads 1")
    assert done.code == 0, done.err
    assert "Gun is finished" in done.err
    assert "Power has changed since it was evaluated" in done.err
    assert "Motions.json cannot be read: Motions is evaluated again" in done.err
    answer = json.loads(pathlib.Path("run/evaluation.json").read_text())
    assert {row["set"]: row["n"] for row in answer["details"]["sets"]} == {"Gun": 10, "Motions": 16, "Power": 10}
    assert answer["details"]["sets"][0]["accuracy"]["majority"] == 0.123


def test_a_new_run_does_not_take_over_an_older_one(
    command: Any, archive: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "classify evaluate --archive archive --model majority --quiet -o run/"
    assert command(line).code == 0
    stored = json.loads(pathlib.Path("run/sets/Power.json").read_text())
    stored["evaluation"]["accuracy"] = 0.123
    pathlib.Path("run/sets/Power.json").write_text(json.dumps(stored))
    fit = Classifier.fit

    def stop(self: Classifier, data: Any) -> Classifier:
        if data.source == "Motions":
            raise KeyboardInterrupt
        return fit(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "fit", stop)
        assert command(f"{line} --overwrite").code == 130
    assert [path.name for path in pathlib.Path("run/sets").iterdir()] == ["Gun.json"]
    resumed = told(command("classify evaluate --resume run --json"))
    assert resumed["details"]["sets"][2]["accuracy"]["majority"] != 0.123


def test_a_folder_that_cannot_be_read(archive: pathlib.Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    archive.chmod(0)
    try:
        with pytest.raises(InputError, match="cannot be listed"):
            find_sets(archive)
    finally:
        archive.chmod(0o700)


def test_protocol_and_options_reach_every_set(short: pathlib.Path) -> None:
    train = TrainOptions(max_steps=2)
    small = ArchOptions(d_model=8, n_heads=2, d_ff=8, layers=1)
    evaluation = Classifier(model="transformer", arch=small, train=train, protocol="folds:2").evaluate_archive(short)
    assert evaluation.counts == {"sets": 2, "test_series": 48}
    assert "2 stratified folds" in evaluation.protocol


def test_the_baselines_leave_torch_its_threads(short: pathlib.Path) -> None:
    """MiniRocket's loops would raise their number, and the next set would be trained with others than the first."""
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        Classifier(model="majority").evaluate_archive(short)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
