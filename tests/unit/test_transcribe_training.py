"""Training a recogniser: what is in a batch, what the loss is, what is left out, and that a killed run goes on."""

from __future__ import annotations

import dataclasses
import itertools
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import jiwer
import numpy as np
import pytest
import torch
from torch import Tensor

from pipelines.base import Run
from pipelines.data.datasets.speech_corpus import Utterance
from pipelines.data.datasets.speech_units import Units
from pipelines.data.formats.audio import AudioOptions, read_audio, write_wav
from pipelines.errors import InputError
from pipelines.training.options import TrainOptions
from pipelines.transcribe import engine
from pipelines.transcribe.features import Features
from pipelines.transcribe.options import ArchOptions, AugmentOptions, DecodeOptions, SoundOptions, UnitOptions
from pipelines.transcribe.pipeline import Transcriber
from pipelines.transcribe.reading import Shelf, corpus_of, fill_shelf
from pipelines.transcribe.training import IGNORED, Recordings, joint_loss, needed_frames, too_short

RATE = 8000
PLAIN = AugmentOptions(speeds=(1.0,), noise=0.0, gain=(0.0, 0.0), join=0.0, time_masks=0, band_masks=0)
JOINED = dataclasses.replace(PLAIN, join=1.0, pause=(0.1, 0.2), longest=30.0)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def prompts(*names: str) -> list[Utterance]:
    """Embedded recordings by their ids."""
    by_id = {one.id: one for one in corpus_of("phrases").utterances}
    return [dataclasses.replace(by_id[name], part="") for name in names]


def digits(*numbers: int) -> list[Utterance]:
    return prompts(*(f"digits/{number}" for number in numbers))


@pytest.fixture(scope="module")
def shelf() -> Shelf:
    """Ten digits and their sound."""
    return fill_shelf(digits(*range(10)), RATE, AudioOptions(), hours=1.0)[0]


UNITS = Units.chars(" efghinorstuvwxz")
SPACE = UNITS.encode(" ")[0]


def recordings(shelf: Shelf, augment: AugmentOptions | None, seconds: float = 4.0) -> Recordings:
    texts = [UNITS.encode(one.text or "") for one in shelf.utterances]
    return Recordings(shelf, texts, Features(RATE, 40), seconds, augment, SPACE)


def small(**changes: Any) -> Transcriber:
    """A recogniser that is fitted in seconds."""
    settings: dict[str, Any] = {
        "arch": ArchOptions(dim=16, layers=1, decoder_layers=1, channels=(4, 4)),
        "sound": SoundOptions(RATE, 40),
        "decode": DecodeOptions(method="greedy"),
        "train": TrainOptions(epochs=1, patience=0),
        "valid": 0.25,
        "batch_seconds": 6.0,
    }
    return Transcriber(**(settings | changes))


# Batches ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", [None, AugmentOptions()])
def test_every_recording_stands_in_one_batch_of_an_epoch(shelf: Shelf, augment: AugmentOptions | None) -> None:
    data = recordings(shelf, augment)
    plans = [data.plan(3, epoch) for epoch in (1, 2, 3)]
    for plan in plans:
        assert sorted(itertools.chain(*plan)) == list(range(10))
        assert len(plan) == len(plans[0]) > 1
    assert (plans[0] == plans[1]) == (augment is None), "an epoch of training has an order of its own"
    assert plans[0] == data.plan(3, 1)


def test_a_batch_holds_its_recordings(shelf: Shelf) -> None:
    batch = recordings(shelf, None).__getitems__([3, 8])
    for row, index in enumerate((3, 8)):
        ids = UNITS.encode(shelf.utterances[index].text or "")
        count, length = int(batch["counts"][row]), int(batch["lengths"][row])
        assert count == len(ids)
        assert batch["tokens"][row, : count + 1].tolist() == [1, *ids]
        assert batch["following"][row, : count + 1].tolist() == [*ids, 1]
        assert (batch["following"][row, count + 1 :] == IGNORED).all()
        torch.testing.assert_close(
            batch["features"][row, :length], Features(RATE, 40)(torch.from_numpy(shelf.samples(index)))
        )
    assert batch["units"].tolist() == UNITS.encode("three") + UNITS.encode("eight")


def test_what_is_drawn_depends_on_seed_epoch_and_number_alone(shelf: Shelf) -> None:
    data = recordings(shelf, AugmentOptions(join=0.5, noise=1.0))

    def drawn(indices: Sequence[int], seed: int = 5, epoch: int = 2) -> list[tuple[Tensor, list[int]]]:
        data.set_epoch(seed, epoch)
        batch = data.__getitems__(indices)
        texts = batch["units"].split(batch["counts"].tolist())
        lengths = batch["lengths"].tolist()
        return [(batch["features"][row, :length], texts[row].tolist()) for row, length in enumerate(lengths)]

    together, other = drawn([2, 7, 4]), drawn([9, 4, 0, 2])
    for (a, text_a), (b, text_b) in ((together[0], other[3]), (together[2], other[1]), (together[1], drawn([7])[0])):
        assert torch.equal(a, b)
        assert text_a == text_b
    again = drawn([2, 7, 4])
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(together, again, strict=True))
    for changes in ({"seed": 6}, {"epoch": 3}):
        changed = drawn([2, 7, 4], **changes)
        assert not any(
            a.shape == b.shape and torch.equal(a, b) for (a, _), (b, _) in zip(together, changed, strict=True)
        )


def test_joined_recordings_have_both_texts_and_both_sounds(shelf: Shelf) -> None:
    data = recordings(shelf, JOINED)
    data.set_epoch(1, 1)
    by_text = {one.text: index for index, one in enumerate(shelf.utterances)}
    partners = set()
    for index in range(10):
        batch = data.__getitems__([index])
        first, second = UNITS.decode(batch["units"].tolist()).split(" ")
        assert by_text[first] == index
        partners.add(second)
        seconds = shelf.seconds[index] + shelf.seconds[by_text[second]]
        assert seconds + 0.1 - 0.02 <= int(batch["lengths"][0]) / 100 <= seconds + 0.2 + 0.02
    assert len(partners) > 3


def test_joined_recordings_are_not_longer_than_said(shelf: Shelf) -> None:
    data = recordings(shelf, dataclasses.replace(JOINED, longest=0.5))
    data.set_epoch(1, 1)
    batch = data.__getitems__(list(range(10)))
    assert SPACE not in batch["units"].tolist()


def test_speech_of_one_speaker_is_joined_to_that_speakers(shelf: Shelf) -> None:
    spoken = [dataclasses.replace(one, speaker="ab"[i % 2]) for i, one in enumerate(shelf.utterances)]
    two = dataclasses.replace(shelf, utterances=spoken)
    by_text = {one.text: one.speaker for one in spoken}
    data = recordings(two, JOINED)
    for index in range(10):
        words = UNITS.decode(data.__getitems__([index])["units"].tolist()).split(" ")
        assert len({by_text[word] for word in words}) == 1


# The loss -----------------------------------------------------------------------------------------------------------


def ctc_by_all_paths(logp: np.ndarray, ids: list[int]) -> float:
    """-log of the probability of all paths (T steps, V ids) that read as the units: the definition."""
    total = 0.0
    for path in itertools.product(range(logp.shape[1]), repeat=len(logp)):
        read = [unit for unit, _ in itertools.groupby(path) if unit != 0]
        if read == ids:
            total += math.exp(sum(logp[step, unit] for step, unit in enumerate(path)))
    return -math.log(total)


class Given(torch.nn.Module):
    """Answers what it was given."""

    def __init__(self, logp: Tensor, lengths: Tensor, scores: Tensor | None) -> None:
        super().__init__()
        self.answers = (logp, lengths, scores)

    def forward(self, *_: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.answers


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_joint_loss_by_hand(weight: float) -> None:
    generator = torch.Generator().manual_seed(4)
    logp = torch.randn(2, 5, 4, generator=generator).log_softmax(-1)
    scores, lengths = torch.randn(2, 4, 4, generator=generator), torch.tensor([5, 4])
    texts = [[2, 3, 3], [3]]
    batch = {
        "features": torch.zeros(2, 1, 1),
        "lengths": lengths,
        "tokens": torch.tensor([[1, 2, 3, 3], [1, 3, 0, 0]]),
        "following": torch.tensor([[2, 3, 3, 1], [3, 1, IGNORED, IGNORED]]),
        "units": torch.tensor([2, 3, 3, 3]),
        "counts": torch.tensor([3, 1]),
    }
    ctc = sum(ctc_by_all_paths(logp[i, : lengths[i]].double().numpy(), text) for i, text in enumerate(texts))
    follow = 0.0
    for row, text in enumerate(texts):
        for place, unit in enumerate([*text, 1]):
            chances = scores[row, place].double().log_softmax(-1)
            follow -= 0.9 * float(chances[unit]) + 0.1 * float(chances.mean())
    total, count = joint_loss(weight)(Given(logp, lengths, scores), batch)
    assert float(total) == pytest.approx(weight * ctc + (1 - weight) * follow, rel=1e-5)
    assert int(count) == 6
    alone, _ = joint_loss(weight)(Given(logp, lengths, None), batch)
    assert float(alone) == pytest.approx(ctc, rel=1e-5), "without a text decoder there is CTC alone"


def test_padding_does_not_change_the_loss(shelf: Shelf) -> None:
    t = small()
    model = engine.build(t, UNITS.size).eval()
    data, loss = recordings(shelf, None), joint_loss(0.3)
    with torch.no_grad():
        together = [float(part) for part in loss(model, data.__getitems__([1, 6, 7]))]
        alone = [[float(part) for part in loss(model, data.__getitems__([i]))] for i in (1, 6, 7)]
    assert together == pytest.approx(np.sum(alone, 0).tolist(), rel=1e-4)


def test_frames_that_a_text_needs() -> None:
    assert needed_frames(UNITS.encode("three")) == 6
    assert needed_frames(()) == 0
    assert not too_short(1.0, UNITS.encode("three"))
    # 21 to 24 features are 6 frames; one unit fewer fits into 17 to 20.
    assert not too_short(0.21, UNITS.encode("three"))
    assert too_short(0.2, UNITS.encode("three"))
    assert too_short(0.21, UNITS.encode("three"), fastest=1.1)


# What is learned from -----------------------------------------------------------------------------------------------


def test_statistics_are_those_of_the_training_part(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for number, (text, part, level) in enumerate(
        [("one", "train", 0.01), ("two", "train", 0.02), ("six", "valid", 0.5), ("ten", "test", 0.3)]
    ):
        path = tmp_path / f"{number}.wav"
        write_wav(path, (rng.normal(0, level, RATE)).astype(np.float32).clip(-1, 1), RATE)
        rows.append(Utterance(str(number), path, text, part=part))
    found = small(augment=PLAIN).fit(rows).state.features
    own = Features(RATE, 40).standardised([torch.from_numpy(read_audio(one.source).samples) for one in rows[:2]])
    assert found.mean is not None
    assert own.mean is not None
    torch.testing.assert_close(found.mean, own.mean, atol=2e-3, rtol=0)  # kept as 16-bit numbers
    every = Features(RATE, 40).standardised([torch.from_numpy(read_audio(one.source).samples) for one in rows])
    assert float((every.mean - own.mean).abs().min()) > 0.5  # type: ignore[operator]


def test_recordings_too_short_for_their_texts_are_left_out_and_said(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "short.wav"
    write_wav(path, np.random.default_rng(0).normal(0, 0.1, 1600).astype(np.float32), RATE)
    spoken = [dataclasses.replace(one, part="train") for one in digits(1, 2, 3)]
    spoken += [dataclasses.replace(one, part="valid") for one in digits(4)]
    spoken.append(Utterance("short", path, "seventy seven thousand", part="train"))
    t = small().fit(spoken)
    assert t.state.training["recordings"] == 3
    assert len(t.state.trained) == 3
    assert "1 recordings are too short for their texts and were left out" in " ".join(t.state.notes)
    with pytest.raises(InputError, match="no recording is long enough for its text"):
        small().fit([spoken[-1], dataclasses.replace(spoken[0], part="valid")])


def test_parts_of_a_corpus_are_kept_and_its_test_part_is_not_touched() -> None:
    spoken = [dataclasses.replace(one, part=part) for one, part in zip(digits(1, 2, 3, 4, 5), "aabcc", strict=True)]
    names = {"a": "train", "b": "valid", "c": "test"}
    spoken = [dataclasses.replace(one, part=names[one.part]) for one in spoken]
    state = small().fit(spoken).state
    assert (len(state.trained), len(state.held)) == (2, 1)
    assert state.vocabulary == {"one", "two"}
    assert set(state.units.symbols) == set("onetwthree"), "units are those of training and choosing"
    assert "2 utterances of the test part are in neither part" in state.notes or "validation part" in str(state.notes)


def test_unknown_characters_are_refused_with_their_counts() -> None:
    spoken = [*digits(1, 2, 3), *prompts("digits/4")]
    spoken[1] = dataclasses.replace(spoken[1], text="2 twö")
    alphabet = "abcdefghijklmnopqrstuvwxyz "
    with pytest.raises(InputError, match="characters that the model does not write") as caught:
        small(units=UnitOptions(alphabet=alphabet)).fit(spoken)
    assert "'2' 1" in str(caught.value)
    assert "'ö' 1" in str(caught.value)
    assert "--units.unknown drop" in str(caught.value)
    state = small(units=UnitOptions(alphabet=alphabet, unknown="drop")).fit(spoken).state
    assert "2 characters outside the alphabet were left out of the texts" in state.notes
    assert "".join(state.units.symbols) == "".join(Units.chars(alphabet).symbols)


@pytest.mark.parametrize("kind", ["byte", "sentencepiece"])
def test_other_units_train_and_write(kind: Any, tmp_path: pathlib.Path) -> None:
    t = small(units=UnitOptions(kind=kind, size=24)).fit(digits(1, 2, 3, 4, 5, 6))
    assert t.state.units.kind == kind
    if kind == "byte":
        assert t.state.units.size == 258
    else:  # five words do not hold so many pieces
        assert 11 < t.state.units.size < 26
        assert f"finds {t.state.units.size - 2} pieces" in " ".join(t.state.notes)
    t.save(tmp_path / "model")
    again = Transcriber.load(tmp_path / "model")
    assert again.state.units == t.state.units
    source = digits(1)[0].source
    assert again.predict(source).text == t.predict(source).text


def test_a_list_with_a_bad_line_goes_on_and_says_so(tmp_path: pathlib.Path) -> None:
    lines = [f"{one.source}\t{one.text}" for one in digits(1, 2, 3, 4)]
    lines.insert(2, "nowhere.wav\tfive")
    (tmp_path / "list.tsv").write_text("\n".join(["path\ttext", *lines]) + "\n")
    state = small().fit(str(tmp_path / "list.tsv")).state
    assert len(state.trained) + len(state.held) == 4
    said = " ".join(state.notes)
    assert "list.tsv:4" in said
    assert "nowhere.wav" in said


def test_a_damaged_recording_is_left_out_and_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "damaged.wav").write_bytes(b"RIFF....WAVEnothing of the kind")
    data = [(str(one.source), one.text) for one in digits(1, 2, 3, 4)] + [(str(tmp_path / "damaged.wav"), "five")]
    state = small().fit(data).state
    assert len(state.trained) + len(state.held) == 4
    assert any("damaged.wav" in note for note in state.notes)


def test_in_double_precision() -> None:
    t = small(precision="64-true").fit(digits(1, 2, 3, 4))
    assert next(t.state.module.parameters()).dtype == torch.float64
    item = t.predict(digits(1)[0].source).items[0]
    assert item.text.split() == [word.text for word in item.words]


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to learn from"):
        small().fit([dataclasses.replace(one, part="test") for one in digits(1, 2)])
    with pytest.raises(InputError, match="different texts"):
        small().fit(digits(1))


# Whole runs ---------------------------------------------------------------------------------------------------------


def run_in(folder: pathlib.Path, *, resume: bool = False, workers: int = 0) -> tuple[dict[str, Tensor], dict[str, Any]]:
    t = small(
        augment=AugmentOptions(join=0.3),
        train=TrainOptions(epochs=3, patience=0, checkpoint_steps=1, average=2, schedule="cosine", workers=workers),
        batch_seconds=2.0,
        seed=3,
    )
    t.run = Run(folder=folder, resume=resume)
    t.fit(digits(*range(8)))
    training = {**t.state.training, "seconds": 0.0, "history": 0}
    return t.state.module.state_dict(), training


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The run that nobody disturbed."""
    return run_in(tmp_path_factory.mktemp("whole"))


def test_workers_change_nothing(tmp_path: pathlib.Path, whole: tuple[dict[str, Tensor], dict[str, Any]]) -> None:
    weights, training = run_in(tmp_path, workers=2)
    assert training == whole[1]
    assert all(torch.equal(value, weights[name]) for name, value in whole[0].items())


def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, whole: tuple[dict[str, Tensor], dict[str, Any]]
) -> None:
    weights, training = whole

    def dies(weight: float) -> Any:
        plain, steps = joint_loss(weight), itertools.count()

        def loss(model: Any, batch: dict[str, Tensor]) -> Any:
            if model.training and next(steps) == 5:
                raise MemoryError("killed")
            return plain(model, batch)

        return loss

    with monkeypatch.context() as patched:
        patched.setattr(engine, "joint_loss", dies)
        with pytest.raises(MemoryError):
            run_in(tmp_path / "killed")
    resumed, told = run_in(tmp_path / "killed", resume=True)
    assert told == training
    assert training["steps"] > 6
    assert all(torch.equal(value, resumed[name]) for name, value in weights.items())


def test_eight_digits_can_be_learned_by_heart() -> None:
    """Greedy CTC reads what it was trained on without an error; a fault in features, lengths or loss shows here."""
    spoken = digits(*range(8))
    data = [dataclasses.replace(one, part="train") for one in spoken]
    data += [dataclasses.replace(one, id=f"{one.id}, again", part="valid") for one in spoken]
    t = small(
        arch=ArchOptions(dim=48, layers=1, decoder_layers=0, dropout=0.0, channels=(8, 8)),
        augment=PLAIN,
        train=TrainOptions(epochs=80, patience=0, learning_rate=5e-3, schedule="cosine", clip_norm=5.0),
        batch_seconds=3.0,
    ).fit(data)
    found = t.predict([one.source for one in spoken])
    assert jiwer.cer([one.text for one in spoken], [item.text for item in found.items]) == 0.0
