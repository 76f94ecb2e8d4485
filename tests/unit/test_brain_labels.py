"""Labels of volumes and subjects: against a direct count, the real onsets of Haxby, and every mismatch by name."""

from __future__ import annotations

import os
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.datasets.brain_events import make_events, read_events
from pipelines.data.datasets.brain_labels import blocks, label_notes, subject_targets, volume_labels
from pipelines.data.datasets.brain_types import Events, Recording, Study
from pipelines.data.errors import InputError

REPO = pathlib.Path(__file__).resolve().parents[2]
HAXBY = pathlib.Path(os.environ.get("PIPELINES_DATA", REPO.parent / "shared/data")) / "embeddable/fmri/pymvpa2"


def events(*rows: tuple[float, float, str]) -> Events:
    onset, duration, kind = zip(*rows, strict=True)
    return make_events(onset, duration, kind)


@pytest.mark.skipif(not HAXBY.is_dir(), reason="set PIPELINES_DATA to the folder with the real data")
def test_the_published_onsets_of_haxby_give_the_published_labels() -> None:
    """Two independent files of the data set: onsets in seconds by condition, and a label for each of 1452 volumes."""
    rows = [line.split() for line in (HAXBY / "attributes_literal.txt").read_text().splitlines()]
    lines = (HAXBY / "haxby2001/models/model001/condition_key.txt").read_text().splitlines()
    kinds = {line.split()[1]: line.split()[2] for line in lines}
    read: list[str] = []
    for run in range(12):
        shown: list[tuple[float, float, str]] = []
        for condition, kind in kinds.items():
            path = HAXBY / f"haxby2001/sub001/model/model001/onsets/task001_run{run + 1:03d}/{condition}.txt"
            times = path.read_text().splitlines() if path.is_file() else []
            shown += [(float(line.split()[0]), float(line.split()[1]), kind) for line in times]
        read += [one or "rest" for one in volume_labels(events(*shown), 121, 2.5)]
    assert read == [row[0] for row in rows]
    found = blocks([None if one == "rest" else one for one in read])
    assert len(set(found.tolist()) - {-1}) == 96, "12 runs of 8 blocks, rest between all of them"
    assert (found >= 0).sum() == 864


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=8),
    st.sampled_from([0.4, 0.72, 1.0, 2.5]),
    st.integers(-3, 6),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_labels_are_those_of_a_count_by_hand(spans: list[tuple[int, int]], tr: float, delay: int) -> None:
    """Times in whole tenths of a second; the oracle compares whole numbers of milliseconds."""
    rows, now = [], 0
    for number, (length, gap) in enumerate(spans):
        rows.append((now / 10, length / 10, f"k{number}"))
        now += length + gap
    volumes = int(now / 10 / tr) + 3
    wanted: list[str | None] = []
    for volume in range(volumes):
        middle = round((volume + 0.5) * tr * 1000) - delay * 100
        hits = [kind for onset, length, kind in rows if 0 <= middle - round(onset * 1000) < round(length * 1000)]
        wanted.append(hits[0] if hits else None)
    shown = events(*rows)
    labels = volume_labels(shown, volumes, tr, delay=delay / 10)
    assert labels == wanted
    silent = len(rows) - len(set(labels) - {None})
    said = " ".join(label_notes(shown, volumes, tr, delay=delay / 10))
    assert (f"{silent} of {len(rows)} events name no volume" in said) == (silent > 0)


def test_edges_belong_to_the_event_that_begins_there() -> None:
    """At a TR of 0.72 s sums of floats miss the edges by 1e-13: a middle on an onset is in, one on an end is out."""
    tr = 0.72
    onset = [(volume + 0.5) * tr for volume in range(0, 300, 3)]
    labels = volume_labels(events(*((one, 2 * tr, "on") for one in onset)), 300, tr)
    assert labels == ["on", "on", None] * 100


def test_events_that_cannot_label_are_refused_with_counts() -> None:
    with pytest.raises(InputError, match=r"events beyond the scan\. Found: 2 of 3 events .* the last at 99 s"):
        volume_labels(events((0, 1, "a"), (10, 1, "b"), (99, 1, "c")), 10, 1.0)
    with pytest.raises(InputError, match=r"overlap.*a until 3 s, b from 2 s; 1 such pairs"):
        volume_labels(events((0, 3, "a"), (2, 1, "b")), 10, 1.0)
    with pytest.raises(InputError, match=r"without duration.*1 of 2 durations n/a"):
        volume_labels(events((0, np.nan, "a"), (2, 1, "b")), 10, 1.0)
    with pytest.raises(InputError, match=r"all durations are 0"):
        volume_labels(events((0, 0, "a"), (2, 0, "b")), 10, 1.0)
    for volumes, tr in ((0, 1.0), (10, 0.0), (10, -2.0), (10, float("nan"))):
        with pytest.raises(InputError, match="no time of the volumes"):
            volume_labels(events((0, 1, "a")), volumes, tr)
    cut = events((8, 5, "a"))
    assert volume_labels(cut, 10, 1.0)[-2:] == ["a", "a"]
    assert label_notes(cut, 10, 1.0) == ("the events: 1 of 1 events go on after the scan's end",)
    assert volume_labels(make_events((), (), ()), 3, 1.0) == [None] * 3


def test_a_table_of_events_is_sorted_and_what_it_lacks_is_counted(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a_events.tsv"
    text = "onset\tduration\ttrial_type\tface\n5\t1\tb\tx\n-1\t1\ta\ty\n7\tn/a\tc\tz\n9\t1\tn/a\tx\n\n"
    path.write_text(text)
    shown = read_events(path)
    assert shown.onset.tolist() == [-1.0, 5.0, 7.0]
    assert shown.kind == ("a", "b", "c")
    assert np.isnan(shown.duration).tolist() == [False, False, True]
    assert shown.notes == (
        "a_events.tsv: 1 empty lines left out",
        "a_events.tsv: 1 events without trial_type left out",
        "a_events.tsv: not in the order of their onsets; sorted",
        "a_events.tsv: 1 events begin before the first volume",
    )
    assert read_events(path, column="face").kind == ("y", "x", "z", "x")


def test_blocks_are_runs_of_equal_labels() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        labels = [[None, "a", "b"][one] for one in rng.integers(0, 3, 30)]
        found = blocks(labels)
        for first in range(30):
            assert (found[first] == -1) == (labels[first] is None)
            for last in range(first + 1, 30):
                joined = labels[first] is not None and set(labels[first : last + 1]) == {labels[first]}
                assert (found[first] == found[last]) == (joined or labels[first] is labels[last] is None)
    assert len(blocks([])) == 0


def study(people: dict[str, str], runs: int = 1, column: str = "score") -> Study:
    made = [Recording(f"sub-{one}_run-{run}", None, one) for one in people for run in range(runs)]
    return Study("s", "bids", tuple(made), {one: {column: cell} for one, cell in people.items()})


@pytest.mark.parametrize(
    ("cells", "kind", "classes"),
    [
        (["F", "M"] * 6, "classification", ("F", "M")),
        (["10", "2", "2"] * 4, "classification", ("2", "10")),
        ([str(one) for one in range(11)], "regression", ()),
        ([str(one % 10) for one in range(20)], "classification", tuple("0123456789")),
        (["1.5", "2.5", "2.5"], "regression", ()),
        (["1.0", "2.0"] * 3, "classification", ("1.0", "2.0")),
        (["1e400", "2", "2"], "classification", ("1e400", "2")),
    ],
)
def test_the_kind_of_target_is_told_by_its_values(cells: list[str], kind: str, classes: tuple[str, ...]) -> None:
    people = {f"{place:02d}": cell for place, cell in enumerate(cells)}
    targets = subject_targets(study(people, runs=2), "SCORE")
    assert (targets.kind, targets.classes, targets.subjects) == (kind, classes, tuple(people))
    assert f"score is taken for a {kind}: {len(set(cells))} different values" in targets.notes[0]
    for place, (one, cell) in enumerate(people.items()):
        expected = classes.index(cell) if kind == "classification" else float(cell)
        assert targets.of(one) == targets.values[place] == expected
    assert targets.of("99") is None


def test_subjects_without_values_and_values_without_runs_are_listed() -> None:
    both = study({f"{one:02d}": "FM"[one % 2] for one in range(20)})
    both = Study("s", "bids", both.recordings, {**both.people, "03": {"score": ""}, "90": {"score": "F"}})
    both = Study("s", "bids", (*both.recordings, Recording("x", None, "77")), both.people)
    with pytest.raises(InputError) as raised:
        subject_targets(both, "score")
    text = str(raised.value)
    assert "2 subjects without a value of score (03, 77)" in text
    assert "1 subjects of the table without a run (90)" in text
    assert "--target.missing drop" in text
    targets = subject_targets(both, "score", missing="drop")
    assert (len(targets.subjects), targets.dropped) == (19, ("03", "77"))
    assert targets.notes[0] == "2 subjects without a value of score (03, 77), left out"
    assert targets.notes[1] == "1 subjects of the table without a run (90), left out"


@pytest.mark.parametrize(
    ("people", "column", "kind", "message"),
    [
        ({"1": "F", "2": "F"}, "score", "auto", "score has one class only. Found: 'F' for all 2 subjects"),
        ({"1": "a", "2": "b", "3": "c"}, "score", "auto", "every subject has its own class"),
        ({"1": "a", "2": "2"}, "score", "regression", r"score is no number. Found: 1 values .* \(a\)"),
        ({"1": "inf", "2": "2"}, "score", "regression", r"no finite numbers \(inf\)"),
        ({"1": "2", "2": "2"}, "score", "regression", "the same for all subjects"),
        ({"1": "a", "2": "b"}, "age", "auto", "no column 'age'. Found: score"),
        ({"1": "", "2": ""}, "score", "auto", "do not match.*check the subjects' names"),
        ({"": "a", "2": "b"}, "score", "auto", "runs of unknown subjects"),
        ({"1": "a", "2": "b"}, "score", "other", "no such choice"),
    ],
)
def test_targets_that_cannot_be_are_refused(people: dict[str, str], column: str, kind: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        subject_targets(study(people), column, kind)  # type: ignore[arg-type]


def test_a_study_without_a_table_says_so() -> None:
    with pytest.raises(InputError, match=r"no table of people.*--study\.table FILE"):
        subject_targets(Study("s", "bids", (Recording("a", None, "1"),)), "sex")
