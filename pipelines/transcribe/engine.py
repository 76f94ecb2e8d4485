"""From a corpus to a fitted recogniser, and from it to text with times."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pipelines.data.datasets.speech_corpus import Corpus, split_corpus
from pipelines.data.datasets.speech_text import prepare_text
from pipelines.data.datasets.speech_units import Units
from pipelines.errors import InputError
from pipelines.transcribe.features import Features
from pipelines.transcribe.models.recogniser import Recogniser
from pipelines.transcribe.options import architecture, known_model
from pipelines.transcribe.reading import Shelf, audio_options, corpus_of, fill_shelf, identity
from pipelines.transcribe.training import Recordings, joint_loss, too_short

if TYPE_CHECKING:
    from pipelines.transcribe.pipeline import Transcriber

__all__ = ["Fitted", "fit", "restore", "training_parts"]


@dataclasses.dataclass
class Fitted:
    """A recogniser that can answer.

    Attributes:
        name: of the model.
        module: in eval mode, on the device.
        units: what it writes.
        features: what it hears.
        training: how it was trained.
        trained: numbers of the utterances that it was trained on (N,), see ``identity``.
        held: numbers of those that chose the epoch (M,).
        vocabulary: the words of the training texts.
        notes: on the data that it was trained on.
        origin: where the weights come from.
    """

    name: str
    module: Recogniser
    units: Units
    features: Features
    training: dict[str, Any]
    trained: Tensor
    held: Tensor
    vocabulary: frozenset[str]
    notes: tuple[str, ...] = ()
    origin: str = ""

    def to_config(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors, and how to build the model that they are of."""
        tensors = {f"model.{name}": value.contiguous() for name, value in self.module.state_dict().items()}
        mean, std = self.features.mean, self.features.std
        if mean is None or std is None:
            raise InputError("these features have no statistics", where="save", expected="those of the training part")
        tensors |= {"features.mean": mean, "features.std": std, "trained": self.trained, "held": self.held}
        return tensors, {
            "arguments": self.module.arguments,
            "units": self.units.to_config(),
            "features": {"rate": self.features.rate, "mels": self.features.mels},
            "vocabulary": sorted(self.vocabulary),
            "training": self.training,
            "fit_notes": list(self.notes),
        }

    def export_parts(self) -> tuple[nn.Module, dict[str, Tensor], str]:
        """The encoder with its CTC head on the CPU, and two example spectrograms of equal length."""
        module = copy.deepcopy(self.module).cpu().eval()
        generator = torch.Generator().manual_seed(0)
        return _Frames(module), {"features": torch.randn(2, 120, self.features.mels, generator=generator)}, "logp"


class _Frames(nn.Module):
    """Standardised features (B, T, M) to log-probabilities (B, T / 4, V)."""

    def __init__(self, module: Recogniser) -> None:
        super().__init__()
        self.module = module

    def forward(self, features: Tensor) -> Tensor:
        """Log-probabilities of recordings without padding."""
        lengths = torch.full((features.shape[0],), features.shape[1], device=features.device)
        memory, _ = self.module.encode(features, lengths)
        return self.module.ctc(memory)


def training_parts(t: Transcriber, corpus: Corpus) -> tuple[Corpus, Corpus]:
    """What is learned from and what chooses the epoch: the corpus's own parts, else a seeded split; never its test."""
    spoken = corpus.with_text()
    rest = [one for one in spoken.utterances if one.part != "test"]
    if not rest:
        raise InputError(
            "nothing to learn from", where=corpus.name, found=f"{len(corpus)} utterances", expected="texts with sound"
        )
    return split_corpus(dataclasses.replace(spoken, utterances=tuple(rest)), valid=t.valid, seed=t.seed)


def fit(t: Transcriber, data: Any) -> Fitted:
    """Train a recogniser.

    Raises:
        InputError: nothing to learn from, or texts with characters that the model cannot write.
        ConfigError: an option that does not exist or does not fit.
    """
    from pipelines.training.fitting import fit_module

    corpus = corpus_of(data)
    learned, held = training_parts(t, corpus)
    units, texts, notes = _texts(t, learned, held)
    options, hours, progress = audio_options(t), t.shelf_hours, t.run.progress
    shelves, kept = [], []
    for part, fastest in ((learned, max(t.augment.speeds, default=1.0)), (held, 1.0)):
        shelf, failures, told = fill_shelf(part.utterances, t.sound.rate, options, hours=hours, progress=progress)
        notes += [f"left out: {problem}" for problem in failures.values()]
        notes += [f"{count} recordings: {note}" for note, count in told.items()]
        shelf, ids, dropped = _long_enough(shelf, texts, units, fastest)
        if not ids:
            raise InputError(
                "no recording is long enough for its text",
                where=corpus.name,
                found=f"{dropped} that are too short",
                expected="a frame of 40 ms for each unit at least",
            )
        if dropped:
            notes.append(f"{dropped} recordings are too short for their texts and were left out")
        shelves.append(shelf)
        kept.append(ids)
    features = Features(t.sound.rate, t.sound.mels).standardised(
        [torch.from_numpy(shelves[0].samples(index)) for index in range(len(shelves[0]))]
    )
    torch.manual_seed(t.seed)
    model = build(t, units.size)
    space = units.encode(" ")[0] if " " in units.writable else None
    train_set = Recordings(shelves[0], kept[0], features, t.batch_seconds, t.augment, space)
    valid_set = Recordings(shelves[1], kept[1], features, t.batch_seconds)
    minutes = sum(shelves[0].seconds) / 60
    t.run.say(f"{len(train_set)} recordings, {minutes:.1f} minutes, {units.size - 2} units; {len(valid_set)} held out")
    result = fit_module(
        t, model, joint_loss(t.ctc), train_set, valid_set, default_lr=known_model(t.model).learning_rate
    )
    model.eval()
    summary = dataclasses.asdict(result) | {
        "minutes": minutes,
        "recordings": len(train_set),
        "held_out": len(valid_set),
        "ctc": t.ctc,
    }
    known, judged = (torch.tensor([identity(one) for one in shelf.utterances]) for shelf in shelves)
    words = {word for one in shelves[0].utterances for word in texts[one.id].split()}
    said = (*learned.notes, *notes)
    return Fitted(t.model, model, units, features, summary, known, judged, frozenset(words), said)


def build(t: Transcriber, size: int) -> Recogniser:
    """The network of a pipeline's options, for V ids."""
    arch = architecture(t.model, t.size, t.arch)
    attention = t.attention or known_model(t.model).attention or ""
    kind = "samba" if t.model == "samba" else "conformer"
    return Recogniser(size, t.sound.mels, kind=kind, attention=attention, causal=t.causal, **arch)


def _texts(t: Transcriber, learned: Corpus, held: Corpus) -> tuple[Units, dict[str, str], list[str]]:
    """Units, the text of each utterance by its id as the model learns it, and notes."""
    everything = [*learned.utterances, *held.utterances]
    plain = [prepare_text(one.text or "", "")[0] for one in everything]
    units = _units(t, plain)
    texts, outside = {}, Counter[str]()
    for one in everything:
        text, unknown = prepare_text(one.text or "", units.writable)
        if unknown:
            outside += unknown
            if t.units.unknown == "drop":
                text = " ".join("".join(c for c in text if c not in unknown).split())
        texts[one.id] = text
    if outside and t.units.unknown == "refuse":
        listed = ", ".join(f"{character!r} {count}" for character, count in outside.most_common(12))
        raise InputError(
            "transcripts hold characters that the model does not write",
            where="units.alphabet",
            found=f"{listed} times",
            cure="add them to --units.alphabet, or leave them out with --units.unknown drop",
        )
    notes = [f"{outside.total()} characters outside the alphabet were left out of the texts"] if outside else []
    if units.kind == "sentencepiece" and units.size - 2 < t.units.size:
        notes.append(f"SentencePiece finds {units.size - 2} pieces in these texts, of the {t.units.size} asked for")
    return units, texts, notes


def _units(t: Transcriber, texts: Sequence[str]) -> Units:
    if t.units.kind == "byte":
        return Units.bytes()
    if t.units.kind == "sentencepiece":
        return Units.train_sentencepiece(texts, t.units.size, t.seed)
    return Units.from_texts(texts) if t.units.alphabet is None else Units.chars(t.units.alphabet)


def _long_enough(
    shelf: Shelf, texts: Mapping[str, str], units: Units, fastest: float
) -> tuple[Shelf, list[list[int]], int]:
    """The shelf without recordings that have fewer frames than units, the unit numbers of the rest, how many went."""
    ids = [units.encode(texts[one.id]) for one in shelf.utterances]
    good = [i for i, text in enumerate(ids) if not too_short(shelf.seconds[i], text, fastest)]
    return shelf.only(good), [ids[i] for i in good], len(ids) - len(good)


def restore(t: Transcriber, tensors: dict[str, Tensor], config: dict[str, Any]) -> Fitted:
    """Rebuild the fitted state from stored tensors and configuration."""
    from pipelines.official import check_shapes
    from pipelines.training.distributed import resolve_device

    arguments = {**config["arguments"], "channels": tuple(config["arguments"]["channels"])}
    model = Recogniser(**arguments)
    own = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    model.load_state_dict(check_shapes(model, {k: v.float() for k, v in own.items()}, name=t.model))
    features = Features(**config["features"], mean=tensors["features.mean"], std=tensors["features.std"])
    return Fitted(
        t.model,
        model.eval().to(resolve_device(t.device)),
        Units.from_config(config["units"]),
        features,
        config["training"],
        tensors["trained"],
        tensors["held"],
        frozenset(config["vocabulary"]),
        tuple(config["fit_notes"]),
        "a saved model",
    )
