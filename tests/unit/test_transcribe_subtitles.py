"""Subtitles: every word once, at its time, in lines that can be read; files that other programs understand."""

from __future__ import annotations

import itertools
import json
import random

import pytest

from pipelines.errors import ConfigError, InputError
from pipelines.transcribe.subtitles import (
    FORMATS,
    cues,
    entry,
    read_srt,
    to_json,
    to_srt,
    to_text,
    to_tsv,
    to_vtt,
    write,
)
from pipelines.transcribe.words import Segment, Transcript, Word

EMPTY = Transcript("a.wav", 3.0)


def segment(words: list[Word]) -> Segment:
    return Segment(" ".join(word.text for word in words), words[0].start, words[-1].end, tuple(words))


def spoken(seed: int, hours: float = 0.0) -> Transcript:
    """Random words, some long, with pauses of all lengths, in a few segments."""
    draw = random.Random(seed)
    at, segments = 3600 * hours + draw.uniform(0, 3), []
    for _ in range(draw.randint(1, 5)):
        words = []
        for _ in range(draw.randint(1, 60)):
            text = "".join(draw.choice("abcdeéü'") for _ in range(draw.choice([1, 2, 4, 7, 12, 12, 50])))
            seconds = draw.choice([0.0, 0.02, 0.2, 0.4, 0.9])
            words.append(Word(text, at, at + seconds, draw.random()))
            at += seconds + draw.choice([0.0, 0.0, 0.0004, 0.1, 0.3, 1.0])
        segments.append(segment(words))
    return Transcript("a.wav", at, tuple(segments))


@pytest.mark.parametrize("seed", range(40))
def test_every_word_is_shown_once_in_lines_that_can_be_read(seed: int) -> None:
    transcript = spoken(seed, hours=seed % 3)
    shown = cues(transcript)
    assert [text for cue in shown for text in cue.text.split()] == [word.text for word in transcript.words]
    words = iter(transcript.words)
    for cue in shown:
        inside = list(itertools.islice(words, len(cue.text.split())))
        assert len(cue.lines) <= 2
        assert all(len(line) <= 42 for line in cue.lines) or len(inside) == 1
        assert inside[-1].end - inside[0].start <= 6.0 or len(inside) == 1
        assert all(two.start - one.end < 0.6 for one, two in itertools.pairwise(inside))
        # Within a few cues of words without a duration, times give way by a millisecond each.
        assert cue.start / 1000 == pytest.approx(inside[0].start, abs=0.004)
        assert cue.end / 1000 == pytest.approx(inside[-1].end, abs=0.004)
        assert cue.end > cue.start >= 0
    assert all(one.end <= two.start for one, two in itertools.pairwise(shown))


@pytest.mark.parametrize("seed", range(10))
def test_srt_comes_back(seed: int) -> None:
    transcript = spoken(seed, hours=seed)
    text = to_srt(transcript)
    assert read_srt(text) == cues(transcript)
    numbers = [int(block.split("\n")[0]) for block in text.strip().split("\n\n")]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_cut_is_made_at_the_longest_pause() -> None:
    words = [Word("word", 0.5 * i, 0.5 * i + 0.45, 1.0) for i in range(14)]
    shifted = [*words[:9], *(Word(w.text, w.start + 0.3, w.end + 0.3, 1.0) for w in words[9:])]
    assert [len(cue.text.split()) for cue in cues(Transcript("a", 9.0, (segment(shifted),)))] == [9, 5]
    assert [len(cue.text.split()) for cue in cues(Transcript("a", 9.0, (segment(words),)))] == [7, 7]


def test_two_lines_are_of_nearly_one_length() -> None:
    texts = ["please", "press", "one", "to", "mute", "or", "unmute", "yourself"]
    words = [Word(text, 0.2 * i, 0.2 * i + 0.2, 1.0) for i, text in enumerate(texts)]
    assert cues(Transcript("a", 9.0, (segment(words),)))[0].lines == ("please press one to", "mute or unmute yourself")


def test_a_segment_without_words_shares_its_time_out() -> None:
    said = Segment(" ".join(["seven"] * 20), 10.0, 20.0)
    shown = cues(Transcript("a.wav", 30.0, (said,)))
    assert " ".join(cue.text for cue in shown) == said.text
    assert (shown[0].start, shown[-1].end) == (10_000, 20_000)
    assert all(cue.end - cue.start <= 6000 for cue in shown)
    assert [cue.start for cue in shown][1] == pytest.approx(15_000, abs=600)


def test_exact_files() -> None:
    first = segment([Word("q&a", 0.0396, 0.5, 0.9), Word("<tag>", 0.52, 1.0004, 0.8)])
    second = segment([Word("naïve", 3661.2, 3662.0, 0.7)])
    transcript = Transcript("talk.wav", 3700.0, (first, second), ("resampled",))
    assert to_text(transcript) == "q&a <tag>\nnaïve\n"
    assert to_srt(transcript) == (
        "1\n00:00:00,040 --> 00:00:01,000\nq&a <tag>\n\n2\n01:01:01,200 --> 01:01:02,000\nnaïve\n\n"
    )
    assert to_vtt(transcript) == (
        "WEBVTT\n\n00:00:00.040 --> 00:00:01.000\nq&amp;a &lt;tag&gt;\n\n01:01:01.200 --> 01:01:02.000\nnaïve\n\n"
    )
    assert to_tsv(transcript) == "start\tend\ttext\n40\t1000\tq&a <tag>\n3661200\t3662000\tnaïve\n"
    read = json.loads(to_json(transcript))
    assert read == entry(transcript)
    assert read["text"] == "q&a <tag> naïve"
    assert read["segments"][1] == {"text": "naïve", "start": 3661.2, "end": 3662.0}
    assert read["words"][2] == {"text": "naïve", "start": 3661.2, "end": 3662.0, "confidence": 0.7, "segment": 1}
    assert "naïve" in to_json(transcript)


def test_nothing_said_gives_files_that_are_empty_but_for_their_header() -> None:
    assert {name: make(EMPTY) for name, make in FORMATS.items() if name != "json"} == {
        "txt": "",
        "srt": "",
        "vtt": "WEBVTT\n\n",
        "tsv": "start\tend\ttext\n",
    }
    assert json.loads(to_json(EMPTY)) == {
        "source": "a.wav", "seconds": 3.0, "text": "", "segments": [], "words": [], "notes": []
    }  # fmt: skip
    assert read_srt("") == []
    silent = Transcript("a.wav", 3.0, (Segment("", 1.0, 1.0),))
    assert to_srt(silent) == to_text(silent) == ""


def test_formats_by_name() -> None:
    transcript = spoken(0)
    assert write(transcript, ".SRT") == to_srt(transcript)
    with pytest.raises(ConfigError, match="docx"):
        write(transcript, "docx", where="a.docx")


def test_srt_of_others_is_read() -> None:
    text = "\ufeff1\r\n00:00:01,000 --> 00:00:02.500  \r\ngood\r\nbye\r\n\r\n\r\n"
    text += "2\r\n01:00:00,000 --> 01:00:01,000\r\n7\r\n"
    assert [(cue.start, cue.end, cue.lines) for cue in read_srt(text)] == [
        (1000, 2500, ("good", "bye")),
        (3_600_000, 3_601_000, ("7",)),
    ]
    with pytest.raises(InputError, match="line 2: no times"):
        read_srt("1\n00:00 --> 00:01\ngood\n")
    with pytest.raises(InputError, match="line 1: no times"):
        read_srt("good")
