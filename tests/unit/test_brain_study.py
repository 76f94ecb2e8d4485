"""Studies of every layout open to the same runs; what belongs to a run is found by the grammar of names, and said."""

from __future__ import annotations

import gc
import gzip
import itertools
import json
import os
import pathlib
import struct
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest

from pipelines.data.datasets.brain_bids import parse_name
from pipelines.data.datasets.brain_labels import subject_targets, volume_labels
from pipelines.data.datasets.brain_study import open_study
from pipelines.data.datasets.brain_types import Recording, StudyOptions
from pipelines.data.datasets.brain_walk import dimensions
from pipelines.data.errors import InputError

REPO = pathlib.Path(__file__).resolve().parents[2]
DATA = pathlib.Path(os.environ.get("PIPELINES_DATA", REPO.parent / "shared/data"))
HAXBY = DATA / "embeddable/fmri/pymvpa2"


def nifti(shape: tuple[int, ...]) -> bytes:
    """The smallest NIfTI-1 file of zeros, written by its definition."""
    head = bytearray(352)
    struct.pack_into("<i8h", head, 0, 348, *([0] * 8))
    struct.pack_into("<8h", head, 40, len(shape), *shape, *([1] * (7 - len(shape))))
    struct.pack_into("<2h", head, 70, 4, 16)
    struct.pack_into("<f", head, 108, 352.0)
    head[344:348] = b"n+1\0"
    return bytes(head) + bytes(2 * int(np.prod(shape)))


def put(root: pathlib.Path, name: str, content: bytes | str | None = None) -> pathlib.Path:
    """A file below a folder; images are scans of 2 x 2 x 1 voxels and 3 volumes unless told otherwise."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data = nifti((2, 2, 1, 3)) if content is None else content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data, 1) if name.endswith(".gz") and content is None else data)
    return path


def names(source: object, **options: object) -> list[str]:
    return [run.name for run in open_study(source, StudyOptions(**options)).recordings]  # type: ignore[arg-type]


def by_name(source: object, **options: object) -> dict[str, Recording]:
    return {run.name: run for run in open_study(source, StudyOptions(**options)).recordings}  # type: ignore[arg-type]


@pytest.mark.skipif(not HAXBY.is_dir(), reason="set PIPELINES_DATA to the folder with the real data")
def test_a_bids_data_set_of_haxby_gives_the_labels_of_all_its_volumes(tmp_path: pathlib.Path) -> None:
    import nibabel

    image = nibabel.load(HAXBY / "bold.nii.gz")  # type: ignore[attr-defined]
    values = np.asanyarray(image.dataobj)
    rows = [line.split() for line in (HAXBY / "attributes_literal.txt").read_text().splitlines()]
    labels, runs = np.array([row[0] for row in rows]), np.array([int(row[1]) for row in rows])
    assert values.shape[3] == len(labels) == 1452
    put(tmp_path, "dataset_description.json", '{"Name": "Haxby", "BIDSVersion": "1.10.0"}')
    put(tmp_path, "task-objectviewing_bold.json", '{"RepetitionTime": 2.5}')
    put(tmp_path, "participants.tsv", "participant_id\tage\nsub-1\tn/a\n")
    func = tmp_path / "sub-1/func"
    func.mkdir(parents=True)
    for run in range(12):
        stem = f"sub-1_task-objectviewing_run-{run + 1:02d}"
        part = values[..., runs == run]
        nibabel.Nifti1Image(part, image.affine).to_filename(func / f"{stem}_bold.nii.gz")  # type: ignore[attr-defined]
        own = labels[runs == run]
        edges = [0, *(np.flatnonzero(own[1:] != own[:-1]) + 1), len(own)]
        table = ["onset\tduration\ttrial_type"]
        spans = itertools.pairwise(edges)
        table += [f"{2.5 * a}\t{2.5 * (b - a)}\t{own[a]}" for a, b in spans if own[a] != "rest"]
        put(func, f"{stem}_events.tsv", "\n".join(table))
    study = open_study(tmp_path)
    assert (study.kind, study.subjects, study.tasks) == ("bids", ("1",), ("objectviewing",))
    assert [run.run for run in study.recordings] == [f"{run:02d}" for run in range(1, 13)]
    read: list[str] = []
    for run in study.recordings:
        assert run.events is not None
        assert run.tr == 2.5
        axes = dimensions(run.source)
        assert axes is not None
        assert axes[:4] == (40, 20, 1, 121)
        read += [one or "rest" for one in volume_labels(run.events, axes[3], run.tr)]
    assert read == labels.tolist()
    assert study.notes == ()
    assert study.people == {"1": {"age": ""}}


def test_sidecars_and_events_are_inherited_from_above(tmp_path: pathlib.Path) -> None:
    for sub in ("01", "02", "03"):
        for run in (1, 2, 10):
            put(tmp_path, f"sub-{sub}/func/sub-{sub}_task-view_run-{run}_bold.nii.gz")
    put(tmp_path, "task-view_bold.json", '{"RepetitionTime": 2.0}')
    put(tmp_path, "task-rest_bold.json", '{"RepetitionTime": 9.0}')
    put(tmp_path, "sub-02/sub-02_task-view_bold.json", '{"RepetitionTime": 1.5}')
    put(tmp_path, "sub-02/func/sub-02_task-view_run-2_bold.json", '{"RepetitionTime": 1.25, "EchoTime": 0.03}')
    put(tmp_path, "task-view_events.tsv", "onset\tduration\ttrial_type\n0\t1\tall\n")
    put(tmp_path, "sub-03/func/sub-03_task-view_run-2_events.tsv", "onset\tduration\ttrial_type\n0\t1\town\n")
    runs = by_name(tmp_path)
    order = [f"sub-{sub}_task-view_run-{run}" for sub in ("01", "02", "03") for run in (1, 2, 10)]
    assert list(runs) == order, "run 2 stands before run 10"
    assert [runs[one].tr for one in order] == [2.0] * 3 + [1.5, 1.25, 1.5] + [2.0] * 3
    kinds = [shown.kinds for one in order if (shown := runs[one].events)]
    assert kinds == [("all",)] * 7 + [("own",), ("all",)]
    assert not any(run.events for run in by_name(tmp_path, events=False).values())


def test_two_tables_for_one_run_are_refused(tmp_path: pathlib.Path) -> None:
    put(tmp_path, "sub-01/func/sub-01_task-view_acq-a_bold.nii")
    for name in ("task-view_events.tsv", "acq-a_events.tsv"):
        put(tmp_path, name, "onset\tduration\ttrial_type\n0\t1\tx\n")
    with pytest.raises(InputError, match=r"two tables of events apply.*acq-a_events\.tsv, task-view_events\.tsv"):
        open_study(tmp_path)


@pytest.fixture
def prepared(tmp_path: pathlib.Path) -> pathlib.Path:
    """A raw data set with fMRIPrep's derivatives in two spaces, one of them at two resolutions."""
    put(tmp_path, "dataset_description.json", '{"Name": "x", "BIDSVersion": "1.10.0"}')
    put(tmp_path, "participants.tsv", "participant_id\tsex\nsub-01\tF\nsub-02\tM\n")
    deriv = tmp_path / "derivatives/fmriprep"
    put(deriv, "dataset_description.json", '{"Name": "fMRIPrep", "DatasetType": "derivative"}')
    for sub in ("01", "02"):
        stem = f"sub-{sub}/func/sub-{sub}_task-view"
        put(tmp_path, f"{stem}_bold.nii.gz")
        put(tmp_path, f"{stem}_events.tsv", "onset\tduration\ttrial_type\n0\t1\tface\n")
        put(deriv, f"{stem}_desc-confounds_timeseries.tsv", "trans_x\n0\n0\n0\n")
        put(deriv, f"{stem}_space-T1w_desc-preproc_bold.json", '{"RepetitionTime": 3.5}')
        for space in ("space-T1w", "space-MNI_res-1", "space-MNI_res-2"):
            put(deriv, f"{stem}_{space}_desc-preproc_bold.nii.gz")
            put(deriv, f"{stem}_{space}_desc-brain_mask.nii.gz", gzip.compress(nifti((2, 2, 1))))
            put(deriv, f"{stem}_{space}_boldref.nii.gz")
        put(deriv, f"{stem}_hemi-L_space-fsaverage_bold.func.gii", "<GIFTI/>")
    return tmp_path


def test_derivatives_are_read_in_one_space_with_the_events_of_the_raw_data(prepared: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"several spaces.*MNI_res-1, MNI_res-2, T1w.*--study\.space"):
        open_study(prepared)
    with pytest.raises(InputError, match="several resolutions of a space"):
        open_study(prepared, StudyOptions(space="MNI"))
    with pytest.raises(InputError, match=r"no such space.*Found: MNI_res-1.*Expected: fsLR"):
        open_study(prepared, StudyOptions(space="fsLR"))
    for root in (prepared, prepared / "derivatives/fmriprep"):
        study = open_study(root, StudyOptions(space="MNI_res-2"))
        assert (study.kind, len(study.recordings)) == ("derivative", 2)
        for run, sub in zip(study.recordings, ("01", "02"), strict=True):
            stem = f"sub-{sub}_task-view"
            assert (run.name, run.space, run.subject, run.tr) == (stem, "MNI_res-2", sub, None)
            assert run.source.name == f"{stem}_space-MNI_res-2_desc-preproc_bold.nii.gz"
            assert run.mask is not None
            assert run.mask.name == f"{stem}_space-MNI_res-2_desc-brain_mask.nii.gz"
            assert run.confounds is not None
            assert run.confounds.name == f"{stem}_desc-confounds_timeseries.tsv"
            assert run.events is not None
            assert run.events.kind == ("face",)
        assert study.people["02"] == {"sex": "M"}
    assert {run.tr for run in open_study(prepared, StudyOptions(space="T1w")).recordings} == {3.5}
    said = " ".join(open_study(prepared, StudyOptions(space="T1w")).notes)
    assert "derivatives/fmriprep are read, the raw ones are not" in said
    assert "2 files on surfaces or in greyordinates left out" in said


def test_raw_runs_stay_available_and_get_the_confounds(prepared: pathlib.Path) -> None:
    study = open_study(prepared, StudyOptions(desc="raw"))
    assert study.kind == "bids"
    assert all("derivatives" not in str(run.source) for run in study.recordings)
    assert all(run.confounds is not None and run.mask is None for run in study.recordings), "no mask on its grid"
    assert all(run.confounds is None for run in by_name(prepared, desc="raw", confounds=False).values())


def test_several_pipelines_and_kinds_are_listed(prepared: pathlib.Path) -> None:
    put(prepared, "derivatives/xcp_d/sub-01/func/sub-01_task-view_space-T1w_desc-denoised_bold.nii.gz")
    assert "xcp_d are not" in open_study(prepared, StudyOptions(space="T1w")).notes[0]
    (prepared / "derivatives/fmriprep").rename(prepared / "derivatives/other")
    with pytest.raises(InputError, match=r"several pipelines.*other, xcp_d"):
        open_study(prepared)
    put(prepared, "derivatives/xcp_d/sub-01/func/sub-01_task-view_space-T1w_desc-smoothed_bold.nii.gz")
    with pytest.raises(InputError, match=r"several kinds of runs.*denoised, smoothed.*--study\.desc"):
        open_study(prepared / "derivatives/xcp_d")
    study = open_study(prepared / "derivatives/xcp_d", StudyOptions(desc="smoothed"))
    assert len(study.recordings) == 1
    assert "1 runs of another kind than desc-smoothed left out" in " ".join(study.notes)


def test_sessions_tasks_and_subjects_are_chosen(tmp_path: pathlib.Path) -> None:
    for sub in ("01", "02"):
        for ses in ("a", "b"):
            for task in ("rest", "view"):
                put(tmp_path, f"sub-{sub}/ses-{ses}/func/sub-{sub}_ses-{ses}_task-{task}_bold.nii.gz")
    put(tmp_path, "sub-01/ses-a/func/sub-01_ses-a_task-rest_part-phase_bold.nii.gz")
    put(tmp_path, "sub-01/ses-a/func/sub-01_ses-a_task-my_view_bold.nii.gz")
    with pytest.raises(InputError, match=r"several tasks\. Found: rest, view.*\* for all, mixed"):
        open_study(tmp_path)
    with pytest.raises(InputError, match=r"no such task. Found: rest, view. Expected: faces"):
        open_study(tmp_path, StudyOptions(task="faces"))
    with pytest.raises(InputError, match=r"no such session. Found: a, b. Expected: c"):
        open_study(tmp_path, StudyOptions(task="rest", session="c"))
    with pytest.raises(InputError, match=r"no functional run"):
        open_study(tmp_path, StudyOptions(subjects="03"))
    assert len(names(tmp_path, task="*")) == 8
    assert len(names(tmp_path, task="rest,view")) == 8
    assert names(tmp_path, task="rest", session="b", subjects="sub-02") == ["sub-02_ses-b_task-rest"]
    study = open_study(tmp_path, StudyOptions(task="task-rest", session="ses-a"))
    assert [run.session for run in study.recordings] == ["a", "a"]
    said = " ".join(study.notes)
    assert "1 images of phase, real or imaginary part left out (sub-01_ses-a_task-rest_part-phase" in said
    assert "1 images without a BIDS name left out (sub-01_ses-a_task-my_view_bold.nii.gz)" in said


def test_names_keep_to_the_grammar_or_are_none() -> None:
    good = parse_name("sub-01_ses-1_task-view_acq-a+b_run-02_bold.nii.gz")
    assert good is not None
    assert dict(good.entities) == {"sub": "01", "ses": "1", "task": "view", "acq": "a+b", "run": "02"}
    assert (good.suffix, good.extension) == ("bold", ".nii.gz")
    for bad in (
        "sub-01.nii",
        "sub-01_sub-02_bold.nii",
        "sub-_bold.nii",
        "sub-01_bold",
        "sub-0-1_bold.nii",
        "_.nii",
        "",
    ):
        assert parse_name(bad) is None, bad


def test_hcp(tmp_path: pathlib.Path) -> None:
    for subject in ("100307", "100408"):
        for run in ("rfMRI_REST1_LR", "rfMRI_REST2_RL", "tfMRI_MOTOR_LR", "rfMRI_REST1_7T_PA"):
            folder = f"{subject}/MNINonLinear/Results/{run}"
            if (subject, run) != ("100408", "rfMRI_REST2_RL"):
                put(tmp_path, f"{folder}/{run}.nii.gz")
            put(tmp_path, f"{folder}/{run}_hp2000_clean.nii.gz")
            put(tmp_path, f"{folder}/{run}_Atlas.dtseries.nii", "x")
            put(tmp_path, f"{folder}/brainmask_fs.2.nii.gz", gzip.compress(nifti((2, 2, 1))))
    put(tmp_path, "metadata/unrestricted.csv", "Subject,Gender,Age\n100307,F,26-30\n100408,M,31-35\n")
    put(tmp_path, "metadata/restricted.csv", "Subject,Family_ID,Age_in_Yrs\n100307,51_1,27\n100408,52_2,33\n")
    with pytest.raises(InputError, match=r"several tasks. Found: rfMRI_REST, rfMRI_REST_7T, tfMRI_MOTOR"):
        open_study(tmp_path)
    study = open_study(tmp_path, StudyOptions(task="rfMRI_REST"))
    assert study.kind == "hcp"
    expected = ["100307_rfMRI_REST1_LR", "100307_rfMRI_REST2_RL", "100408_rfMRI_REST1_LR"]
    assert [run.name for run in study.recordings] == expected
    assert [(run.subject, run.run, run.family) for run in study.recordings][:2] == [
        ("100307", "1", "51_1"),
        ("100307", "2", "51_1"),
    ]
    assert all(run.mask is not None and run.mask.name == "brainmask_fs.2.nii.gz" for run in study.recordings)
    assert study.people["100408"] == {"Gender": "M", "Age": "31-35", "Family_ID": "52_2", "Age_in_Yrs": "33"}
    assert "1 runs without content left out (100408_rfMRI_REST2_RL: not there)" in " ".join(study.notes)
    clean = open_study(tmp_path, StudyOptions(task="rfMRI_REST", desc="hp2000_clean"))
    assert [run.source.name for run in clean.recordings][:1] == ["rfMRI_REST1_LR_hp2000_clean.nii.gz"]
    assert len(clean.recordings) == 4
    assert names(tmp_path / "100307", task="tfMRI_MOTOR") == ["100307_tfMRI_MOTOR_LR"]


def test_uk_biobank(tmp_path: pathlib.Path) -> None:
    put(tmp_path, "1000013_20227_2_0/fMRI/rfMRI.ica/filtered_func_data_clean.nii.gz")
    put(tmp_path, "1000013_20227_2_0/fMRI/rfMRI.ica/mask.nii.gz", gzip.compress(nifti((2, 2, 1))))
    put(tmp_path, "1000024_20227_2_0/filtered_func_data_clean.nii.gz")
    put(tmp_path, "1000024_20227_3_0/filtered_func_data.nii.gz")
    put(tmp_path, "1000035_20227_2_0.nii.gz")
    put(tmp_path, "1000046_20227_2_0.zip", "PK")
    put(
        tmp_path, "pheno.csv", "eid,31-0.0,21003-2.0,54-2.0\n1000013,0,61,11025\n1000024,1,55,11026\n1000035,1,,11025\n"
    )
    study = open_study(tmp_path)
    assert study.kind == "ukb"
    runs = {run.name: run for run in study.recordings}
    assert list(runs) == ["1000013_20227_2_0", "1000024_20227_2_0", "1000035_20227_2_0"]
    assert [runs[one].site for one in runs] == ["11025", "11026", "11025"]
    assert runs["1000013_20227_2_0"].mask is not None
    assert runs["1000013_20227_2_0"].session == "2"
    said = " ".join(study.notes)
    assert "filtered_func_data_clean.nii.gz are read" in said
    assert "1000024_20227_3_0: no such file" in said, "the uncleaned run is not mixed in"
    assert "1 packed runs left out" in said
    targets = subject_targets(study, "31-0.0")
    assert (targets.classes, targets.values.tolist()) == (("0", "1"), [0, 1, 1])


def test_abcd_names_agree_with_its_table(tmp_path: pathlib.Path) -> None:
    for one in ("AAA1", "BBB2"):
        sub = f"sub-NDARINV{one}"
        put(tmp_path, f"{sub}/ses-baselineYear1Arm1/func/{sub}_ses-baselineYear1Arm1_task-rest_run-01_bold.nii.gz")
    table = "subjectkey,sex,rel_family_id,site_id_l\nNDAR_INVAAA1,F,11,site01\nNDAR_INVBBB2,M,12,site02\n"
    put(tmp_path, "metadata/abcd.csv", table)
    study = open_study(tmp_path)
    assert (study.kind, study.subjects) == ("abcd", ("NDARINVAAA1", "NDARINVBBB2"))
    assert [(run.family, run.site) for run in study.recordings] == [("11", "site01"), ("12", "site02")]
    assert subject_targets(study, "sex").values.tolist() == [0, 1]


def test_frames_of_the_released_code_and_of_one_file(tmp_path: pathlib.Path) -> None:
    put(tmp_path, "img/sub-NDARINVAAA1/frame_0.pt", "x")
    put(tmp_path, "img/1000013_20227_2_0/data.pt", "x")
    put(tmp_path, "img/100307/frame_3.pt", "x")
    put(tmp_path, "img/empty/readme", "x")
    put(
        tmp_path, "metadata/HCP_1200_precise_age.csv", "subject,age,sex\n100307,27,F\n1000013,61,M\nNDAR_INVAAA1,10,F\n"
    )
    study = open_study(tmp_path)
    assert study.kind == "frames"
    assert sorted((run.name, run.subject) for run in study.recordings) == [
        ("1000013_20227_2_0", "1000013"),
        ("100307", "100307"),
        ("sub-NDARINVAAA1", "NDARINVAAA1"),
    ]
    assert all(run.source.is_dir() for run in study.recordings)
    assert study.notes == ("1 folders without frame_0.pt or data.pt left out (empty)",)
    assert subject_targets(study, "AGE", "regression").values.tolist() == [27.0, 61.0, 10.0]
    one = open_study(tmp_path / "img/100307")
    assert (one.kind, [run.subject for run in one.recordings]) == ("frames", ["100307"])


def test_a_plain_folder(tmp_path: pathlib.Path) -> None:
    put(tmp_path, "a/anna_1.nii.gz")
    put(tmp_path, "a/anna_2.nii")
    put(tmp_path, "b/ben.nii.gz")
    put(tmp_path, "b/sub-03_task-x_bold.nii.gz")
    put(tmp_path, "b/sub-03_task-x_events.tsv", "onset\tduration\ttrial_type\n0\t2\tface\n")
    put(tmp_path, "mask.nii.gz", gzip.compress(nifti((2, 2, 1))))
    put(tmp_path, "b/still.nii.gz", gzip.compress(nifti((2, 2, 1, 1))))
    put(tmp_path, "b/left.func.gii", "x")
    put(tmp_path, ".cache/x.nii")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "a")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    study = open_study(tmp_path)
    assert study.kind == "folder"
    assert [(run.name, run.subject) for run in study.recordings] == [
        ("a/anna_1", "anna"),
        ("a/anna_2", "anna"),
        ("b/ben", "ben"),
        ("b/sub-03_task-x_bold", "03"),
    ]
    assert study.recordings[3].events is not None
    said = " ".join(study.notes)
    assert "2 links to folders that are read anyway left out" in said
    assert "1 hidden files and folders left out" in said
    assert "2 images without a time axis, or that are no runs by their names, left out (b/still.nii.gz, mask" in said
    assert "1 files on surfaces" in said
    assert (
        "3 files without BIDS names: what stands before the first _ is taken for the subject (anna_1.nii.gz: anna"
        in said
    )


def test_one_file_brings_what_belongs_to_it(prepared: pathlib.Path) -> None:
    stem = "sub-01/func/sub-01_task-view"
    raw = open_study(prepared / f"{stem}_bold.nii.gz")
    assert (raw.kind, [run.subject for run in raw.recordings]) == ("file", ["01"])
    assert raw.recordings[0].events is not None
    path = prepared / f"derivatives/fmriprep/{stem}_space-T1w_desc-preproc_bold.nii.gz"
    (run,) = open_study(str(path)).recordings
    assert run.tr == 3.5
    assert run.mask is not None
    assert run.confounds is not None
    assert run.events is not None, "of the raw data set above"
    (plain,) = open_study(put(prepared, "x/100307.nii.gz")).recordings
    assert (plain.name, plain.subject) == ("100307", "100307")


def test_lists_of_files_and_of_things_in_memory(tmp_path: pathlib.Path) -> None:
    import nibabel

    paths = [put(tmp_path, one) for one in ("b/z_1.nii", "a/sub-01_task-x_bold.nii.gz", "a/sub-01_task-y_bold.nii.gz")]
    assert names(paths) == ["b/z_1", "a/sub-01_task-x_bold", "a/sub-01_task-y_bold"], "in the order given, tasks mixed"
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2, 3), np.float32), np.eye(4))  # type: ignore[attr-defined]
    study = open_study([np.zeros((2, 2, 2, 3)), image])
    assert (study.kind, [run.name for run in study.recordings]) == ("arrays", ["array-1", "image-2"])
    assert study.recordings[1].source is image
    assert open_study(image).recordings[0].name == "image-1"


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_an_archive_is_unpacked_for_as_long_as_its_study_lives(tmp_path: pathlib.Path, kind: str) -> None:
    folder = tmp_path / "haxby"
    put(folder, "sub-01/func/sub-01_task-view_bold.nii.gz")
    put(folder, "task-view_bold.json", json.dumps({"RepetitionTime": 2.5}))
    archive = tmp_path / f"study.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in folder.rglob("*"):
                file.write(path, path.relative_to(tmp_path))
    else:
        with tarfile.open(archive, "w:gz") as file:
            file.add(folder, "haxby")
    study = open_study(archive)
    (run,) = study.recordings
    assert (study.name, study.kind, run.name, run.tr) == (archive.name, "bids", "sub-01_task-view", 2.5)
    place = pathlib.Path(run.source)
    assert place.is_file()
    del study
    gc.collect()
    assert not place.exists()


def test_opening_studies_loads_no_heavy_library() -> None:
    code = (
        "import sys, pipelines.data.datasets.brain_study, pipelines.data.datasets.brain_labels as a\n"
        "print([one for one in ('torch', 'nibabel', 'nilearn', 'pandas', 'scipy', 'sklearn') if one in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
