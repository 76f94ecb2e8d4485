"""The class of speech recognition: what it writes, where words stand, what is measured; that silence is silent."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

import jiwer
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import pipelines
from pipelines.data.datasets.speech_corpus import Utterance
from pipelines.data.datasets.speech_text import normaliser
from pipelines.data.formats.audio import read_audio, write_wav
from pipelines.errors import ConfigError, InputError
from pipelines.training.options import TrainOptions
from pipelines.transcribe.hearing import Listener
from pipelines.transcribe.options import ArchOptions, AugmentOptions, DecodeOptions, SoundOptions, UnitOptions
from pipelines.transcribe.pipeline import Transcriber
from pipelines.transcribe.reading import corpus_of, identity
from pipelines.transcribe.segments import SegmentOptions
from pipelines.transcribe.words import Transcript

RATE = 8000
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def digits(count: int = 8) -> list[Utterance]:
    by_id = {one.id: one for one in corpus_of("phrases").utterances}
    return [dataclasses.replace(by_id[f"digits/{number}"], part="") for number in range(count)]


@pytest.fixture(scope="module")
def spoken() -> NDArray[np.float32]:
    """All eight digits one after another, half a second of silence around each."""
    pause = np.zeros(RATE // 2, np.float32)
    parts = [part for one in digits() for part in (read_audio(one.source, rate=RATE).samples, pause)]
    return np.concatenate([pause, *parts])


@pytest.fixture(scope="module")
def reader(spoken: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> Transcriber:
    """Eight digits, alone and one after another, learned by heart: a greedy reading of each is right."""
    path = tmp_path_factory.mktemp("sound") / "all.wav"
    write_wav(path, spoken, RATE)
    data = [dataclasses.replace(one, part="train") for one in digits()]
    data.append(Utterance("all", path, " ".join(WORDS), part="train"))
    data += [dataclasses.replace(one, id=f"{one.id}, again", part="valid") for one in digits()]
    return Transcriber(
        arch=ArchOptions(dim=48, layers=1, decoder_layers=0, dropout=0.0, channels=(8, 8)),
        sound=SoundOptions(RATE, 40),
        augment=AugmentOptions(speeds=(1.0,), noise=0.0, gain=(0.0, 0.0), join=0.0, time_masks=0, band_masks=0),
        decode=DecodeOptions(method="greedy"),
        train=TrainOptions(epochs=80, patience=0, learning_rate=5e-3, schedule="cosine", clip_norm=5.0),
        batch_seconds=10.0,
    ).fit(data)


@pytest.fixture(scope="module")
def split() -> Transcriber:
    """A model with a text decoder, fitted for one epoch on six of the digits, judged on the two others."""
    data = [dataclasses.replace(one, part="valid" if i > 5 else "train") for i, one in enumerate(digits())]
    return Transcriber(
        arch=ArchOptions(dim=16, layers=1, decoder_layers=1, channels=(4, 4)),
        sound=SoundOptions(RATE, 40),
        train=TrainOptions(epochs=1, patience=0),
        decode=DecodeOptions(method="greedy"),
    ).fit(data)


@contextlib.contextmanager
def changed(t: Transcriber, **options: Any) -> Iterator[Transcriber]:
    """The pipeline with other call-time options for a while."""
    before = {name: getattr(t, name) for name in options}
    t.apply(options, where="test")
    try:
        yield t
    finally:
        t.apply(before, where="test")


def sound_places(item: Transcript) -> None:
    """Words are those of the text, in order, inside the recording, and as the segments have them."""
    words = item.words
    assert [word.text for word in words] == item.text.split()
    for word in words:
        assert 0.0 <= word.start < word.end <= item.seconds + 1e-6
        assert 0.0 <= word.confidence <= 1.0
    assert all(a.start <= b.start for a, b in itertools.pairwise(words))
    for segment in item.segments:
        assert segment.text == " ".join(word.text for word in segment.words)
        assert segment.start <= segment.words[0].start
        assert segment.words[-1].end <= segment.end


def test_the_package_offers_the_class() -> None:
    assert pipelines.Transcriber is Transcriber
    assert "Transcriber" in dir(pipelines)


# predict ------------------------------------------------------------------------------------------------------------


def test_each_recording_is_read_with_its_words_in_place(reader: Transcriber) -> None:
    found = reader.predict([one.source for one in digits()])
    assert [item.text for item in found.items] == list(WORDS)
    assert [item.source for item in found.items] == [one.source.name for one in digits()]
    assert found.text == "\n".join(WORDS)
    assert not found.failures
    for item in found.items:
        sound_places(item)
    again = reader.predict([one.source for one in digits()])
    assert [dataclasses.asdict(item) for item in again.items] == [dataclasses.asdict(item) for item in found.items]


def test_words_lie_where_the_sound_is(reader: Transcriber) -> None:
    samples = read_audio(digits()[3].source, rate=RATE).samples
    early = reader.predict((samples, RATE)).items[0].words[0]
    shifted = np.concatenate([np.zeros(3 * RATE, np.float32), samples, np.zeros(2 * RATE, np.float32)])
    late = reader.predict((shifted, RATE)).items[0].words
    assert [word.text for word in late] == ["three"]
    assert late[0].start == pytest.approx(3.0 + early.start, abs=0.06)
    assert late[0].end == pytest.approx(3.0 + early.end, abs=0.06)


def test_a_long_recording_is_heard_in_pieces(reader: Transcriber, spoken: NDArray[np.float32]) -> None:
    with changed(reader, segment=SegmentOptions(longest=3.0, overlap=0.5)):
        item = reader.predict((spoken, RATE)).items[0]
    assert item.seconds == pytest.approx(len(spoken) / RATE, abs=1e-3)
    assert len(item.segments) == 8, "each digit stands between pauses"
    sound_places(item)
    assert jiwer.cer(" ".join(WORDS), item.text) <= 0.15
    gaps = [b.start - a.end for a, b in itertools.pairwise(item.segments)]
    assert min(gaps) > 0.2, "half a second of silence lies between two"


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_other_rates_and_channels_are_brought_to_the_models(reader: Transcriber, rate: int) -> None:
    samples = read_audio(digits()[2].source, rate=rate).samples
    item = reader.predict((np.stack([samples, samples], 1), rate)).items[0]
    assert item.text == "two"
    assert any("mixed" in note for note in item.notes)
    assert any("resampled" in note and str(RATE) in note.replace(",", "") for note in item.notes)


def test_one_channel_can_be_chosen(reader: Transcriber) -> None:
    two, six = (read_audio(digits()[number].source, rate=RATE).samples for number in (2, 6))
    both = np.zeros((max(len(two), len(six)), 2), np.float32)
    both[: len(two), 0], both[: len(six), 1] = two, six
    for channel, word in (("0", "two"), ("1", "six")):
        with changed(reader, channel=channel):
            assert reader.predict((both, RATE)).text == word
    with changed(reader, channel="left"), pytest.raises(ConfigError, match="no such channel"):
        reader.predict((both, RATE))


def test_a_folder_with_a_bad_file_names_it_and_reads_the_rest(reader: Transcriber, tmp_path: pathlib.Path) -> None:
    for number in (1, 2):
        write_wav(tmp_path / f"{number}.wav", read_audio(digits()[number].source).samples, RATE)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.wav").write_text("this is a text")
    (tmp_path / "notes.txt").write_text("no sound at all")
    found = reader.predict(tmp_path)
    assert {item.source: item.text for item in found.items} == {"1.wav": "one", "2.wav": "two"}
    assert list(found.failures) == ["in/bad.wav"]
    assert "bad.wav" in found.failures["in/bad.wav"]
    with pytest.raises(InputError, match=r"bad\.wav"):
        reader.predict([tmp_path / "1.wav", tmp_path / "in" / "bad.wav"])
    found.save(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").rglob("*")} == {"1.txt", "2.txt"}


def test_recordings_of_one_name_stay_apart(reader: Transcriber, tmp_path: pathlib.Path) -> None:
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        write_wav(tmp_path / str(number) / "a.wav", read_audio(digits()[number].source).samples, RATE)
    found = reader.predict([tmp_path / "1" / "a.wav", tmp_path / "2" / "a.wav"])
    assert [(item.source, item.text) for item in found.items] == [("a.wav", "one"), ("2-a.wav", "two")]


@pytest.mark.parametrize("method", ["greedy", "ctc"])
@pytest.mark.parametrize("what", ["silence", "white noise", "quiet noise", "hum"])
def test_nothing_is_written_where_nobody_speaks(reader: Transcriber, what: str, method: Any) -> None:
    time = np.arange(6 * RATE) / RATE
    rng = np.random.default_rng(1)
    samples = {
        "silence": np.zeros(len(time)),
        "white noise": rng.normal(0, 0.1, len(time)),
        "quiet noise": rng.normal(0, 0.002, len(time)),
        "hum": 0.2 * np.sin(2 * np.pi * 50 * time),
    }[what]
    with changed(reader, decode=DecodeOptions(method=method)):
        item = reader.predict((samples.astype(np.float32), RATE)).items[0]
    assert (item.text, item.segments) == ("", ())


def test_a_text_decoder_is_needed_for_the_joint_search(reader: Transcriber, split: Transcriber) -> None:
    source = digits()[1].source
    with changed(reader, decode=DecodeOptions(method="beam")), pytest.raises(ConfigError, match="no text decoder"):
        reader.predict(source)
    for method in ("auto", "beam", "ctc"):
        with changed(split, decode=DecodeOptions(method=method, beam=3)):
            sound_places(split.predict(source).items[0])


def test_a_language_model_from_plain_text_takes_part(reader: Transcriber, tmp_path: pathlib.Path) -> None:
    (tmp_path / "said.txt").write_text("two\n" * 20)
    source = digits()[6].source
    texts = []
    for weight in (0.0, 20.0):
        decode = DecodeOptions(method="ctc", lm=str(tmp_path / "said.txt"), lm_weight=weight, lm_unit="char")
        with changed(reader, decode=decode):
            texts.append(reader.predict(source).text)
    assert texts[0] == "six"
    assert texts[1] != "six", "so heavy a model of another text must be heard"


# Kept and opened ----------------------------------------------------------------------------------------------------


def test_a_saved_model_reads_the_same(reader: Transcriber, split: Transcriber, tmp_path: pathlib.Path) -> None:
    sources = [one.source for one in digits()]
    for name, model in (("reader", reader), ("split", split)):
        model.save(tmp_path / name)
        again = pipelines.load(tmp_path / name)
        assert isinstance(again, Transcriber)
        assert again.predict(sources).text == model.predict(sources).text
        assert again.state.vocabulary == model.state.vocabulary
        assert torch.equal(again.state.trained, model.state.trained)
    with pytest.raises(ConfigError, match="another causal"):
        pipelines.load(tmp_path / "reader", causal=True)


def test_the_encoder_is_exported(reader: Transcriber, tmp_path: pathlib.Path) -> None:
    parity = reader.export(tmp_path / "encoder.pt2")
    assert parity.max_abs_error <= parity.tolerance
    assert len(set(parity.batches)) > 1
    program = torch.export.load(str(tmp_path / "encoder.pt2")).module()
    features = torch.randn(2, 120, 40)
    lengths = torch.tensor([120, 120])
    with torch.no_grad():
        expected = reader.state.module.ctc(reader.state.module.encode(features, lengths)[0])
        torch.testing.assert_close(program(features), expected, atol=1e-4, rtol=0)


def test_no_official_weights_exist() -> None:
    with pytest.raises(ConfigError, match="no weights of Samba-ASR were released"):
        Transcriber.from_official("samba.pt")


# evaluate -----------------------------------------------------------------------------------------------------------


def test_figures_are_those_of_jiwer_on_the_texts(split: Transcriber) -> None:
    fresh = [one for one in corpus_of("phrases").utterances if one.part == "test"][:6]
    found = split.evaluate(fresh)
    told = found.to_dict()
    rows = found.tables[0].rows
    rule = normaliser("english")
    said = [rule(one.text or "") for one in fresh]
    assert [row[1] for row in rows] == said
    heard = [str(row[2]) for row in rows]
    assert told["wer"] == pytest.approx(jiwer.wer(said, heard))
    assert told["cer"] == pytest.approx(jiwer.cer(said, heard))
    assert (told["utterances"], told["words"]) == (6, sum(len(text.split()) for text in said))
    assert told["normaliser"] == rule.label == "english-1"
    assert told["baselines"]["no text"] == {"wer": 1.0, "cer": 1.0, "exact": 0.0}
    assert set(told["details"]["raw"]) == {"wer", "cer", "normaliser"}


def test_a_perfect_reading_has_no_error(reader: Transcriber) -> None:
    named = [(str(one.source), f"{one.text}.") for one in digits()]  # another text: the model has not seen it
    found = reader.evaluate(named)
    assert (found.metrics["wer"], found.metrics["cer"], found.metrics["exact"]) == (0.0, 0.0, 1.0)
    assert found.counts["utterances"] == 8


def test_what_was_trained_on_is_left_out_and_counted(split: Transcriber) -> None:
    known = digits()
    fresh = [one for one in corpus_of("phrases").utterances if one.id in ("digits/8", "digits/9")]
    fresh = [dataclasses.replace(one, part="") for one in fresh]
    assert {identity(one) for one in known[:6]} == set(split.state.trained.tolist())
    found = split.evaluate([*known, *fresh])
    assert found.counts["utterances"] == 2
    assert "8 recordings were trained on or chose the epoch and are left out" in found.notes
    judged = split.evaluate(known)
    assert judged.counts["utterances"] == 2
    assert [row[0] for row in judged.tables[0].rows] == ["digits/6", "digits/7"]
    assert "6 recordings were trained on and are left out" in judged.notes
    assert any("the 2 recordings that chose the epoch" in note for note in judged.notes)
    with pytest.raises(InputError, match="nothing to measure on"):
        split.evaluate(known[:6])


def test_the_test_part_alone_is_measured(split: Transcriber) -> None:
    by_id = {one.id: one for one in corpus_of("phrases").utterances}
    mixed = [dataclasses.replace(by_id[f"digits/{name}"], part="train") for name in ("8", "9", "10")]
    mixed.append(dataclasses.replace(by_id["digits/11"], part="test"))
    found = split.evaluate(mixed)
    assert (found.counts["utterances"], found.tables[0].rows[0][0]) == (1, "digits/11")


def test_what_cannot_be_measured_is_said(split: Transcriber, tmp_path: pathlib.Path) -> None:
    (tmp_path / "bad.wav").write_text("a text")
    by_id = {one.id: one for one in corpus_of("phrases").utterances}
    data = [dataclasses.replace(by_id["digits/8"], part="")]
    data.append(Utterance("bad", tmp_path / "bad.wav", "nine"))
    data.append(dataclasses.replace(by_id["digits/9"], text=None, part=""))
    found = split.evaluate(data)
    assert found.counts["utterances"] == 1
    assert "1 recordings without a text are not measured" in found.notes
    assert any("left out" in note and "bad.wav" in note for note in found.notes)


def test_nothing_is_invented_where_nobody_speaks_when_measuring(reader: Transcriber, tmp_path: pathlib.Path) -> None:
    noise = np.random.default_rng(3).normal(0, 0.1, 2 * RATE).astype(np.float32)
    write_wav(tmp_path / "noise.wav", noise, RATE)
    assert Listener(reader.state, reader.decode).text(noise), "the model alone would write something"
    found = reader.evaluate([(str(tmp_path / "noise.wav"), ""), (str(digits()[4].source), "Four")])
    assert sorted(str(row[2]) for row in found.tables[0].rows) == ["", "4"], "numbers are digits in english-1"
    assert (found.metrics["wer"], found.metrics["exact"]) == (0.0, 1.0)


def test_noise_is_measured_level_by_level(reader: Transcriber) -> None:
    with changed(reader, noise=(20.0, -5.0)):
        found = reader.evaluate([(str(one.source), f"{one.text}!") for one in digits()])
    groups = found.to_dict()["details"]["by_noise"]
    assert list(groups) == ["clean", "20 dB", "-5 dB"]
    assert groups["clean"]["wer"] == 0.0 == found.metrics["wer"]
    assert groups["-5 dB"]["wer"] > 0.3
    assert found.counts["utterances"] == 8


def test_raw_and_english_differ_in_name_and_figure(reader: Transcriber) -> None:
    data = [(str(digits()[2].source), "2")]
    english = reader.evaluate(data).to_dict()
    with changed(reader, normaliser="raw"):
        raw = reader.evaluate(data).to_dict()
    assert (english["normaliser"], raw["normaliser"]) == ("english-1", "raw-1")
    assert (english["wer"], raw["wer"]) == (0.0, 1.0)
    assert english["details"]["raw"]["wer"] == 1.0


# align --------------------------------------------------------------------------------------------------------------


def test_a_known_text_gets_as_many_words_as_it_has(reader: Transcriber, spoken: NDArray[np.float32]) -> None:
    item = reader.align((spoken, RATE), " ".join(WORDS)).items[0]
    assert item.text == " ".join(WORDS)
    sound_places(item)
    truth, place = [], RATE // 2
    for one in digits():
        count = len(read_audio(one.source, rate=RATE).samples)
        truth.append((place / RATE, (place + count) / RATE))
        place += count + RATE // 2
    off = [max(begin - word.start, word.end - end, 0.0) for word, (begin, end) in zip(item.words, truth, strict=True)]
    assert np.median(off) <= 0.1, "words lie within their recordings"


def test_a_text_may_stand_in_a_file_and_in_other_letters(reader: Transcriber, tmp_path: pathlib.Path) -> None:
    (tmp_path / "said.txt").write_text("  One,\n")
    found = reader.align(digits()[1].source, str(tmp_path / "said.txt")).items[0]
    assert [word.text for word in found.words] == ["one"]
    assert "the text was brought to the letters that the model writes" in found.notes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("one % 2", ["'%' 1", "'2' 1", "does not write"]),
        ("...", ["there is no text"]),
        ("three " * 40, ["text"]),
    ],
)
def test_texts_that_cannot_be_aligned_are_refused(reader: Transcriber, text: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        reader.align(digits()[3].source, text)
    for word in words:
        assert word in str(caught.value)


def test_a_text_belongs_to_one_recording(reader: Transcriber) -> None:
    with pytest.raises(InputError, match="2 recordings"):
        reader.align([digits()[0].source, digits()[1].source], "zero")


# The demonstration and options --------------------------------------------------------------------------------------


def test_the_shipped_model_reads_held_out_phrases() -> None:
    evaluation, result = Transcriber().demo()
    assert evaluation.counts["utterances"] == 58
    assert evaluation.metrics["cer"] <= 0.35
    assert len(result.items) == 6  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "sambo"}, "did you mean samba"),
        ({"size": "huge"}, "tiny or small or large"),
        ({"model": "conformer", "arch": ArchOptions(decoder_layers=2)}, "conformer has no text decoder"),
        ({"arch": ArchOptions(width=4)}, "must be odd"),
        ({"arch": ArchOptions(dropout=1.0)}, "arch.dropout"),
        ({"sound": SoundOptions(rate=100)}, "sound.rate"),
        ({"decode": DecodeOptions(beam=0)}, "decode.beam"),
        ({"decode": DecodeOptions(method="best")}, "decode.method"),  # type: ignore[arg-type]
        ({"units": UnitOptions(kind="word")}, "units.kind"),  # type: ignore[arg-type]
        ({"augment": AugmentOptions(speeds=())}, "augment.speeds"),
        ({"augment": AugmentOptions(speeds=(5.0,))}, "augment.speeds"),
        ({"formats": ()}, "formats"),
        ({"ctc": 1.5}, "ctc"),
        ({"valid": 0.0}, "valid"),
        ({"batch_seconds": 0.0}, "batch_seconds"),
        ({"augment": AugmentOptions(snr=(10.0, 0.0))}, "out of order"),
        ({"segment": SegmentOptions(longest=0.1)}, "segment"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_read(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Transcriber(**changes).fit("no such file.csv")
