"""The embedded speech: whole, what its tables say, held out without leaks, and licensed by name."""

from __future__ import annotations

import csv
import hashlib
import pathlib

import numpy as np
import pytest

from pipelines.data import catalog
from pipelines.data.formats.audio import read_audio

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "data" / "samples" / "speech"
SETS = {"phrases": (475, 8000), "librivox": (5, 16_000)}


def rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.mark.parametrize("name", SETS)
def test_every_recording_is_the_one_of_the_table(name: str) -> None:
    found = rows(name)
    assert len(found) == SETS[name][0] == len({row["id"] for row in found})
    wrong = [
        row["path"] for row in found if hashlib.sha256((FOLDER / row["path"]).read_bytes()).hexdigest() != row["sha256"]
    ]
    assert wrong == []
    kept = {str(path.relative_to(FOLDER)) for path in (FOLDER / name).rglob("*") if path.is_file()}
    assert kept == {row["path"] for row in found}, "a recording that the table does not name, or the reverse"


@pytest.mark.parametrize("name", [*SETS, "demo"])
def test_the_catalogue_opens_the_tables(name: str) -> None:
    entry = catalog.entry(name, "transcribe")
    lines = catalog.open_entry(entry).decode().splitlines()
    assert len(lines) == entry.rows + 1
    if name == "demo":
        assert entry.name == "phrases"


def test_no_text_stands_on_both_sides() -> None:
    found = rows("phrases")
    sides = {part: {row["text"] for row in found if row["split"] == part} for part in ("train", "test")}
    assert {row["split"] for row in found} == {"train", "test"}
    assert (len(sides["test"]), sum(row["split"] == "test" for row in found)) == (50, 58)
    assert not {text.replace(" ", "") for text in sides["test"]} & {text.replace(" ", "") for text in sides["train"]}
    assert min(len(text.split()) for text in sides["test"]) == 3


def test_texts_are_plain_and_their_second_reading_is_named() -> None:
    letters = set("abcdefghijklmnopqrstuvwxyz' ")
    for row in rows("phrases") + rows("librivox"):
        assert set(row["text"]) <= letters, row["id"]
        assert row["text"] == " ".join(row["text"].split())
        assert row["text"]
    checks = [row["check"] for row in rows("phrases")]
    told = (FOLDER / "SOURCE.md").read_text()
    for name, count in {"list": 199, "second": 96, "name": 180}.items():
        assert checks.count(name) == count
        assert f"| {name} | {count} |" in told


@pytest.mark.parametrize("name", SETS)
def test_the_sound_is_speech_of_the_rate_that_is_said(name: str) -> None:
    lengths = []
    for row in rows(name)[::12]:
        audio = read_audio(FOLDER / row["path"])
        assert audio.rate == SETS[name][1] or audio.facts.encoding == "OPUS", row["id"]
        assert np.isfinite(audio.samples).all()
        assert 0.005 < float(np.sqrt(np.mean(audio.samples**2))) < 0.5, row["id"]
        lengths.append(len(audio.samples) / audio.rate / len(row["text"]))
    assert min(lengths) > 0.02, "seconds a letter: nobody speaks faster"
    assert np.median(lengths) < 0.2


def test_licence_and_source_name_both() -> None:
    licences, source = (FOLDER.parent / "DATA_LICENSES.md").read_text(), (FOLDER / "SOURCE.md").read_text()
    for name in SETS:
        assert f"speech/{name}.tsv" in licences
        assert f"`{name}.tsv`" in source
    for words in ("Allison Smith", "Digium", "CC BY-SA 3.0", "Carnegie Mellon University", "LibriVox"):
        assert words in licences, words
    full = (FOLDER / "LICENSE-phrases.txt").read_text()
    assert "Allison Smith" in full
    assert "Share Alike" in full or "ShareAlike" in full
    assert sum(path.stat().st_size for path in FOLDER.rglob("*.ogg")) < 5_000_000


def test_held_out_phrases_are_what_a_name_gives() -> None:
    from pipelines.transcribe.reading import corpus_of

    corpus = corpus_of("demo")
    assert (corpus.name, len(corpus), len(corpus.part("test"))) == ("phrases", 475, 58)
    assert corpus.speakers == ("allison",)
    assert not corpus.failures
