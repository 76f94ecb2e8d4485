"""The public class of speech recognition: recordings to text with times, offline and as the sound arrives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pipelines.base import Evaluation
from pipelines.errors import ConfigError
from pipelines.fitted import FittedPipeline
from pipelines.model_list import check_attention
from pipelines.training.options import TrainOptions
from pipelines.transcribe.options import (
    MODELS,
    TRAINING,
    ArchOptions,
    AugmentOptions,
    DecodeOptions,
    SoundOptions,
    UnitOptions,
    architecture,
    check_values,
)
from pipelines.transcribe.segments import SegmentOptions
from pipelines.values import as_options

if TYPE_CHECKING:
    from pipelines.transcribe.engine import Fitted  # noqa: F401 - the parameter of the base class
    from pipelines.transcribe.result import Transcripts
    from pipelines.transcribe.streaming import LiveTranscription

__all__ = ["Transcriber"]


class Transcriber(FittedPipeline["Fitted"]):
    """Turn speech into text with times: WAV, FLAC, OGG, MP3, M4A, Opus, video; files, folders, lists, live sound.

    The model is our reading of Samba-ASR, whose authors published neither code nor weights: a Mamba encoder and a
    Mamba text decoder with joint CTC. A small English model ships, trained on the prompts of one voice; its card says
    how narrow it is. Other languages and voices are fitted from recordings with texts.

    Args:
        model: samba, or conformer (CTC alone).
        size: tiny, small or large.
        attention: any mechanism for sequences in the place of the encoder's mixer.
        causal: the encoder sees no later frame: it can follow live sound frame by frame.
        arch: size and shape of the model (an ArchOptions, or a dict of its fields).
        sound: rate and bands of the features (a SoundOptions, or a dict).
        units: what the model writes (a UnitOptions, or a dict).
        ctc: share of the CTC loss in training beside that of the text decoder.
        augment: what is done to recordings in training (an AugmentOptions, or a dict).
        decode: how text is read out (a DecodeOptions, or a dict).
        segment: how speech is told from pauses, and where long speech is cut (a SegmentOptions, or a dict).
        channel: mix for the mean of all channels, or the number of one, from 0.
        accept_truncated: read what is there of a file that ends too early.
        limit_hours: longest recording that is read.
        noise: distances in decibels at which white noise is added when measuring, beside the clean sound.
        normaliser: of both texts before errors are counted: english or raw.
        formats: txt, srt, vtt, tsv, json: what is written for each recording of a folder.
        valid: share of the training part that chooses the epoch, where the corpus has no such part.
        batch_seconds: of sound in a training step.
        shelf_hours: hours of training sound that are kept in memory; the rest is read anew in every epoch.
        train: how the model is fitted (a TrainOptions, or a dict of its fields).
        device: auto, cpu, cuda, cuda:N or mps.
        precision: 32-true, bf16-mixed, 16-mixed or 64-true.
        seed: of weights, order, augmentation and splits.
        threads: CPU threads; default what torch takes.

    Raises:
        ConfigError: when used, for a model or option that does not exist.

    Example:
        >>> Transcriber(size="small").size
        'small'
    """

    domain: ClassVar[str] = "transcribe"
    engine: ClassVar[str] = "pipelines.transcribe.engine"
    summary: ClassVar[str] = "Turn speech into text with times (WAV, FLAC, OGG, MP3, M4A, video), also live."
    verbs: ClassVar[Mapping[str, str]] = {"align": "align", "stream": "stream"}
    streams: ClassVar[Mapping[str, str]] = {"stream": "pipelines transcribe fit --causal true --data CORPUS -o model/"}
    endings: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "predict": (".txt", ".srt", ".vtt", ".tsv", ".json"),
        "align": (".txt", ".srt", ".vtt", ".tsv", ".json"),
    }
    call_time: ClassVar[frozenset[str]] = frozenset(
        {
            "decode",
            "segment",
            "channel",
            "accept_truncated",
            "limit_hours",
            "noise",
            "normaliser",
            "formats",
            "batch_seconds",
            "shelf_hours",
            "train",
            "augment",
        }
    )

    def __init__(
        self,
        *,
        model: str = "samba",
        size: str = "tiny",
        attention: str | None = None,
        causal: bool = False,
        arch: ArchOptions = ArchOptions(),  # noqa: B008 - frozen
        sound: SoundOptions = SoundOptions(),  # noqa: B008 - frozen
        units: UnitOptions = UnitOptions(),  # noqa: B008 - frozen
        ctc: float = 0.3,
        augment: AugmentOptions = AugmentOptions(),  # noqa: B008 - frozen
        decode: DecodeOptions = DecodeOptions(),  # noqa: B008 - frozen
        segment: SegmentOptions = SegmentOptions(),  # noqa: B008 - frozen
        channel: str = "mix",
        accept_truncated: bool = False,
        limit_hours: float = 24.0,
        noise: tuple[float, ...] = (),
        normaliser: Literal["english", "raw"] = "english",
        formats: tuple[str, ...] = ("txt",),
        valid: float = 0.1,
        batch_seconds: float = 60.0,
        shelf_hours: float = 8.0,
        train: TrainOptions = TRAINING,
        device: str = "auto",
        precision: str = "32-true",
        seed: int = 2021,
        threads: int | None = None,
    ) -> None:
        self.model = model
        self.size = size
        self.attention = attention
        self.causal = causal
        self.arch = as_options(ArchOptions, arch, "arch")
        self.sound = as_options(SoundOptions, sound, "sound")
        self.units = as_options(UnitOptions, units, "units")
        self.ctc = ctc
        self.augment = as_options(AugmentOptions, augment, "augment")
        self.decode = as_options(DecodeOptions, decode, "decode")
        self.segment = as_options(SegmentOptions, segment, "segment")
        self.channel = channel
        self.accept_truncated = accept_truncated
        self.limit_hours = limit_hours
        self.noise = noise
        self.normaliser = normaliser
        self.formats = formats
        self.valid = valid
        self.batch_seconds = batch_seconds
        self.shelf_hours = shelf_hours
        self.train = as_options(TrainOptions, train, "train")
        self.device = device
        self.precision = precision
        self.seed = seed
        self.threads = threads

    def fit(self, data: Any) -> Self:
        """Learn from recordings with texts; a part of them chooses the epoch, and a test part is not touched.

        Args:
            data: a name of the catalogue, a list (JSONL, CSV, TSV), a folder in a corpus's layout, or a sequence of
                (recording, text).

        Raises:
            InputError: nothing to learn from, or characters that the model does not write.
            ConfigError: an option that does not exist or does not fit.
        """
        from pipelines.transcribe import engine

        self._check()
        self.start_torch()
        self._state = engine.fit(self, data)
        self._fitted = True
        return self

    def predict(self, inputs: Any) -> Transcripts:
        """Write down what is said, with the times of the words.

        Args:
            inputs: a path, a folder, (samples, rate), an embedded set, or a sequence of these.

        Raises:
            InputError: a recording that cannot be read; in a folder it is left out and named in ``failures``.
            ConfigError: nothing is fitted, and no weights ship for these arguments.
        """
        from pipelines.transcribe.predict import predict

        self._ready("predict")
        return predict(self, inputs)

    def align(self, inputs: Any, text: str) -> Transcripts:
        """Find when each word of a known text is said.

        Args:
            inputs: one recording, as for :meth:`predict`.
            text: what is said in it, or the path of a plain text file that holds it.

        Raises:
            InputError: characters that the model does not write, or more text than the recording has room for.
        """
        from pipelines.transcribe.aligning import align_text

        self._ready("align")
        return align_text(self, inputs, text)

    def evaluate(self, data: Any) -> Evaluation:
        """Measure word and character error rates on what the model was not trained on.

        Args:
            data: a name of the catalogue, a list, a folder in a corpus's layout, or a sequence of (recording, text).
        """
        from pipelines.transcribe.evaluation import evaluate

        self._ready("evaluate")
        return evaluate(self, data)

    def stream(
        self,
        *,
        partials: bool = True,
        rate: int = 16_000,
        encoding: str = "s16le",
        channels: int = 1,
        realtime: bool = False,
    ) -> LiveTranscription:
        """Write down what is said while it is said: live sound in, texts out, in constant memory.

        The result takes blocks of samples (``push``), or listens to a whole source (``events``).

        Args:
            partials: tell what has been understood before a stretch of speech is over; causal models alone can.
            rate: of raw samples on standard input, Hz.
            encoding: of raw samples on standard input: s8, u8, s16le, s16be, s24le, s32le or f32le.
            channels: of raw samples on standard input, that alternate.
            realtime: take files at the pace at which they would be heard.

        Raises:
            ConfigError: nothing is fitted, and no weights ship for these arguments.
        """
        from pipelines.transcribe.streaming import LiveTranscription

        self._ready("stream")
        return LiveTranscription(
            self, partials=partials, rate=rate, encoding=encoding, channels=channels, realtime=realtime
        )

    def demo(self) -> tuple[Evaluation, Transcripts]:
        """Read the embedded phrases that the shipped model was not trained on, and show some of them."""
        from pipelines.transcribe.reading import corpus_of

        self._ready("demo")
        spoken = corpus_of("phrases").part("test").utterances
        return self.evaluate("demo"), self.predict([one.source for one in spoken[:6]])

    @classmethod
    def from_official(cls, path: str | Path, **params: Any) -> Self:
        """Refuse: the authors of the paper released no weights.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "no weights of Samba-ASR were released", where=path, cure="fit a model, or take the one that ships"
        )

    @classmethod
    def check_kit(cls) -> dict[str, Any]:
        """A short run on a few prompts."""
        from pipelines.transcribe.reading import corpus_of

        chosen = [one for one in corpus_of("phrases").utterances if len(one.text or "") > 3][:12]
        params = {
            "arch": ArchOptions(dim=16, layers=1, decoder_layers=1),
            "sound": SoundOptions(rate=8000, mels=40),
            "decode": DecodeOptions(method="greedy"),
            "train": TrainOptions(epochs=1, patience=0),
            "valid": 0.3,
        }
        data = [(str(one.source), one.text) for one in chosen]
        return {"params": params, "data": data, "inputs": data[0][0]}

    def shipped_name(self) -> str | None:
        """The small English model's, or that for live sound, where nothing about it is changed."""
        usual = self.model == "samba" and self.attention in (None, "selective_ssm") and self.arch == ArchOptions()
        return ("samba_en_live" if self.causal else "samba_en") if usual and self.size == "tiny" else None

    def _check(self) -> None:
        from pipelines.transcribe.segments import check_segments

        architecture(self.model, self.size, self.arch)
        check_values(
            self.sound,
            self.augment,
            self.decode,
            self.units,
            ctc=self.ctc,
            seconds=self.batch_seconds,
            valid=self.valid,
            formats=self.formats,
        )
        check_segments(self.segment)
        check_attention(MODELS, self.model, self.attention)
        self.train.validate()
