"""Bad studies: one message each, with the cure; damaged tables and archives never end in a traceback or a hang."""

from __future__ import annotations

import gzip
import importlib.util
import io
import os
import pathlib
import random
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipelines.data.datasets.brain_events import read_events
from pipelines.data.datasets.brain_study import open_study
from pipelines.data.datasets.brain_tables import read_json, read_people
from pipelines.data.datasets.brain_types import StudyOptions
from pipelines.data.datasets.brain_walk import absence, dimensions
from pipelines.data.errors import InputError

_SPEC = importlib.util.spec_from_file_location(
    "brain_study_makers", pathlib.Path(__file__).resolve().parents[1] / "unit/test_brain_study.py"
)
if _SPEC is None or _SPEC.loader is None:
    raise ImportError("tests/unit/test_brain_study.py")
MAKERS: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(MAKERS)
put, nifti = MAKERS.put, MAKERS.nifti

RUN = "sub-01/func/sub-01_task-x_bold.nii.gz"
EVENTS = "sub-01/func/sub-01_task-x_events.tsv"
SIDE = "sub-01/func/sub-01_task-x_bold.json"

STUDIES: dict[str, tuple[dict[str, bytes | str | None], dict[str, str], str]] = {
    "nothing": ({}, {}, "no scan in the folder. Found: 0 images without a time axis"),
    "anatomy only": ({"a.nii": nifti((2, 2, 2))}, {}, "no scan.*Found: 1 images without.*Cure: join single volumes"),
    "no func": ({"dataset_description.json": "{}"}, {}, "no functional run.*0 folders of subjects.*Expected: sub-<lab"),
    "lost": ({"sub-01/func/sub-02_task-x_bold.nii": None}, {}, "does not fit its folder. Found: sub-02. Exp.*sub-01"),
    "ses": ({"sub-1/ses-a/func/sub-1_task-x_bold.nii": None}, {}, "not fit.*Found: sub-1. Expected: sub-1_ses-a"),
    "echoes": (
        {f"sub-01/func/sub-01_task-x_echo-{one}_bold.nii": None for one in (1, 2)},
        {},
        "divided into echoes.*Cure: combine the echoes first",
    ),
    "twice": (
        {RUN: None, RUN.removesuffix(".gz"): None},
        {},
        r"runs of the same name. Found: sub-01_task-x_bold|same name.*keep one of them",
    ),
    "broken json": ({RUN: None, SIDE: '{"RepetitionTime": 2'}, {}, "bold.json: not a JSON file"),
    "list json": ({RUN: None, SIDE: "[1]"}, {}, "no JSON object in the sidecar. Found: list"),
    "deep json": ({RUN: None, SIDE: "[" * 100_000}, {}, "not a JSON file"),
    "long number": ({RUN: None, SIDE: '{"RepetitionTime": 1' + "0" * 5000 + "}"}, {}, "not a JSON file"),
    "huge TR": ({RUN: None, SIDE: '{"RepetitionTime": 1' + "0" * 400 + "}"}, {}, "no TR in the sidecar"),
    "negative TR": ({RUN: None, SIDE: '{"RepetitionTime": -2}'}, {}, "no TR in the sidecar. Found: RepetitionTime -2"),
    "zero TR": ({RUN: None, SIDE: '{"RepetitionTime": 0}'}, {}, "no TR in the sidecar"),
    "NaN TR": ({RUN: None, SIDE: '{"RepetitionTime": NaN}'}, {}, "no TR in the sidecar"),
    "text TR": ({RUN: None, SIDE: '{"RepetitionTime": "2"}'}, {}, "no TR in the sidecar. Found: RepetitionTime '2'"),
    "description": ({RUN: None, "dataset_description.json": "x"}, {}, "dataset_description.json: not a JSON"),
    "no onset": ({RUN: None, EVENTS: "start\tduration\ttrial_type\n0\t1\ta\n"}, {}, "no column 'onset'. Found: start"),
    "bad onset": (
        {RUN: None, EVENTS: "onset\tduration\ttrial_type\n0\t1\ta\nx\t1\ta\n"},
        {},
        "onset. Found: 'x' in l.* 3",
    ),
    "NaN onset": (
        {RUN: None, EVENTS: "onset\tduration\ttrial_type\nn/a\t1\ta\n"},
        {},
        "not a onset|onset. Found: 'n/a'",
    ),
    "minus": ({RUN: None, EVENTS: "onset\tduration\ttrial_type\n0\t-1\ta\n"}, {}, "duration. Found: '-1' in line 2"),
    "no events": ({RUN: None, EVENTS: "onset\tduration\ttrial_type\n"}, {}, "no event in the table. Found: 0 rows"),
    "empty": ({RUN: None, EVENTS: ""}, {}, "events.tsv: the table has no content. Found: an empty file"),
    "column": (
        {RUN: None, EVENTS: "onset\tduration\n0\t1\n"},
        {"column": "face"},
        "no column 'face'.*--study.column NAME",
    ),
    "ragged": ({RUN: None, EVENTS: "onset\tduration\ttrial_type\n0\t1\n"}, {}, "different length. Found: line 2 has 2"),
    "people twice": (
        {RUN: None, "participants.tsv": "participant_id\tsex\nsub-01\tF\n01\tM\n"},
        {},
        "a subject stands twice.*Found: 01 in lines 2 and 3.*of one visit",
    ),
    "no name": (
        {RUN: None, "participants.tsv": "participant_id\tsex\nn/a\tF\n"},
        {},
        "a row without a subject.*line 2",
    ),
    "latin-1": ({RUN: None, "participants.tsv": b"participant_id\tsex\nsub-01\tm\xe4n\n"}, {}, "0xe4 in line 2.*UTF-8"),
    "nulls": ({RUN: None, "participants.tsv": b"participant_id\tsex\n\0\0\t\0\n"}, {}, "not a text table. Found: null"),
    "columns": (
        {RUN: None, "participants.tsv": "participant_id\tsex\tsex\n01\tF\tM\n"},
        {},
        "not clear. Found: 'sex' twice",
    ),
    "no ids": ({RUN: None, "participants.tsv": "name\tsex\n01\tF\n"}, {}, "no column of subjects. Found: name, sex"),
    "quotes": ({RUN: None, "participants.tsv": 'participant_id\tsex\n"01\tF\n'}, {}, "cannot be read. Found: line 2"),
    "table": ({RUN: None}, {"table": "people.csv"}, "people.csv: no such table of people"),
    "differ": (
        {RUN: None, "a.csv": "subject,sex\n01,F\n", "b.csv": "subject,sex\n01,M\n"},
        {"table": "a.csv,b.csv"},
        "b.csv: tables differ about 'sex' of subject 01. Found: 'M', and 'F'",
    ),
    "UKB id twice": (
        {"1000013_20227_2_0.nii.gz": None, "t.csv": "eid,31-0.0\n1000013,0\n1000013,1\n"},
        {},
        "a subject stands twice with different rows",
    ),
    "UKB packed": ({"1000013_20227_2_0.zip": "PK"}, {}, "still packed. Found: 1000013_20227_2_0.zip.*unzip"),
    "HCP empty": ({"100307/MNINonLinear/Results/rfMRI_REST1_LR/x": "x"}, {}, "no run in the study's folders"),
    "subject": ({"a_1.nii": None}, {"subjects": "b"}, "no run of a subject. Found: a. Expected: b"),
}


@pytest.mark.parametrize("case", STUDIES)
def test_each_fault_has_its_message(case: str, tmp_path: pathlib.Path) -> None:
    files, options, message = STUDIES[case]
    for name, content in files.items():
        put(tmp_path, name, content)
    with pytest.raises(InputError, match=f"(?s){message}") as raised:
        open_study(tmp_path, StudyOptions(**options))  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1200


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.func.gii", b"<GIFTI/>", "on a surface or in greyordinates.*Cure: give the volumes"),
        ("a.dtseries.nii", nifti((1, 1, 1, 9)), "on a surface or in greyordinates"),
        ("a.img", b"x", "not a scan.*Cure: give the .hdr"),
        ("a.dcm", b"x", "not a scan.*dcm2niix"),
        ("a.nii.gz", b"", "no study to open. Found: an empty file.*datalad get"),
        ("a.nii.gz", b"/annex/objects/MD5E-s12--a.nii.gz\n", "a pointer to content that was not fetched.*datalad get"),
        ("a.nii.gz", b"version https://git-lfs.github.com/spec/v1\n", "a pointer to content"),
        ("a.zip", b"PK\x03\x04 no zip", "a.zip"),
        ("a.tar.gz", gzip.compress(b"no tar"), "a.tar.gz"),
    ],
)
def test_files_that_are_no_scans(tmp_path: pathlib.Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=f"(?s){message}"):
        open_study(put(tmp_path, name, content))


def test_things_that_are_no_scans() -> None:
    for source, message in [
        ([], "an empty list"),
        (object(), "nothing that a scan can be read from"),
        ([np.zeros((2, 2, 2, 2)), 3], "nothing that a scan can be read from"),
        ("no/such/folder", "no study to open. Found: not there.*Cure: check the path"),
        ("a\0b", "no study to open. Found: no path"),
        ("x" * 5000, "no study to open"),
        ([tempfile.gettempdir()], "a folder in a list of scans"),
    ]:
        with pytest.raises(InputError, match=f"(?s){message}"):
            open_study(source)


def test_contents_that_were_not_fetched_are_named_with_the_cure(tmp_path: pathlib.Path) -> None:
    annex = tmp_path / RUN
    annex.parent.mkdir(parents=True)
    annex.symlink_to("../../.git/annex/objects/a/b/MD5E-s1--c.nii.gz/MD5E-s1--c.nii.gz")
    put(tmp_path, RUN.replace("01", "02"), b"")
    with pytest.raises(InputError, match=r"no run has its content here.*2 runs without.*link to content.*datalad get"):
        open_study(tmp_path)
    put(tmp_path, RUN.replace("01", "03"))
    study = open_study(tmp_path)
    assert [run.subject for run in study.recordings] == ["03"]
    assert "2 runs without content left out (sub-01_task-x_bold.nii.gz: a link to content" in study.notes[-1]
    assert "sub-02_task-x_bold.nii.gz: an empty file" in study.notes[-1]
    assert absence(tmp_path) == "not a regular file"


def test_a_folder_that_cannot_be_read_is_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a/b/x_1.nii")
    real = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("a/b"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"a/b: the folder cannot be read. Found: Permission denied.*ls -ld"):
        open_study(tmp_path)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_members_that_climb_out_are_refused_and_nothing_stays(
    tmp_path: pathlib.Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    archive = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("../../evil.nii", nifti((2, 2, 1, 3)))
    else:
        with tarfile.open(archive, "w") as file:
            info = tarfile.TarInfo("../../evil.nii")
            info.size = 4
            file.addfile(info, io.BytesIO(b"evil"))
    with pytest.raises(InputError, match=r"outside|leads"):
        open_study(archive)
    assert list(scratch.iterdir()) == []
    assert not list(tmp_path.rglob("evil*"))


def test_an_archive_larger_than_allowed_is_refused(tmp_path: pathlib.Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a_1.nii", bytes(20 << 20))
    with pytest.raises(InputError, match="unpacks to more than is allowed"):
        open_study(archive, limit_gb=0.01)


def damaged(content: bytes, kind: str, rng: random.Random) -> bytes:
    """Cut, flipped, or with a damaged beginning."""
    if kind == "cut":
        return content[: rng.randrange(len(content))]
    data = bytearray(content)
    span = len(data) if kind == "flipped" else min(len(data), 60)
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(span)] = rng.randrange(256)
    return bytes(data)


TABLE = "participant_id\tage\tsex\n" + "".join(f"sub-{one:02d}\t{20 + one}\t{'FM'[one % 2]}\n" for one in range(12))
SHOWN = "onset\tduration\ttrial_type\n" + "".join(f"{2.5 * one}\t2.5\t{'ab'[one % 2]}\n" for one in range(12))
READERS: dict[str, tuple[bytes, str, Callable[[pathlib.Path], object]]] = {
    "people": (TABLE.encode(), "p.tsv", read_people),
    "comma": (TABLE.replace("\t", ",").encode(), "p.csv", read_people),
    "packed": (gzip.compress(TABLE.encode()), "p.tsv.gz", read_people),
    "utf-16": (TABLE.encode("utf-16"), "p.tsv", read_people),
    "events": (SHOWN.encode(), "e.tsv", read_events),
    "json": (b'{"RepetitionTime": 2.5, "SliceTiming": [0, 1.25], "TaskName": "view"}', "s.json", read_json),
    "header": (nifti((2, 2, 1, 3)), "a.nii", dimensions),
    "packed header": (gzip.compress(nifti((2, 2, 1, 3))), "a.nii.gz", dimensions),
}


@pytest.mark.parametrize("kind", ["cut", "flipped", "header"])
@pytest.mark.parametrize("reader", READERS)
def test_damaged_files_are_read_or_refused(tmp_path: pathlib.Path, reader: str, kind: str) -> None:
    content, name, read = READERS[reader]
    rng = random.Random(f"{reader} {kind}")
    path = tmp_path / name
    read_well = refused = 0
    started = time.monotonic()
    for _ in range(100):
        path.write_bytes(damaged(content, kind, rng))
        try:
            found = read(path)
        except InputError:
            refused += 1
        else:
            read_well += found is not None
            refused += found is None
    assert read_well + refused == 100
    assert time.monotonic() - started < 10
    if "packed" in reader and kind != "header" and read is read_people:
        assert refused >= 90, "the checksum at the stream's end counts"


def test_damaged_archives_are_read_or_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    buffers = {"a.tar.gz": io.BytesIO(), "a.zip": io.BytesIO()}
    with (
        tarfile.open(fileobj=buffers["a.tar.gz"], mode="w:gz") as tar,
        zipfile.ZipFile(buffers["a.zip"], "w") as packed,
    ):
        for name, data in {
            RUN: nifti((2, 2, 1, 3)),
            EVENTS: SHOWN.encode(),
            "participants.tsv": TABLE.encode(),
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
            packed.writestr(name, data)
    rng = random.Random(0)
    refused = 0
    for name, buffer in buffers.items():
        for turn in range(100):
            path = tmp_path / name
            path.write_bytes(damaged(buffer.getvalue(), ("cut", "flipped", "header")[turn % 3], rng))
            try:
                study = open_study(path)
            except InputError:
                refused += 1
            else:
                assert study.recordings
                del study
    assert refused > 120
    assert list(scratch.iterdir()) == []
