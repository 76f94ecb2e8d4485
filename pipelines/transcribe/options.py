"""Which recognisers there are and what can be set about them; loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from pipelines.errors import ConfigError
from pipelines.model_list import ModelInfo, chosen_options, find_model
from pipelines.training.options import TrainOptions

__all__ = [
    "MODELS",
    "SIZES",
    "TRAINING",
    "ArchOptions",
    "AugmentOptions",
    "DecodeOptions",
    "SoundOptions",
    "UnitOptions",
    "architecture",
    "check_values",
    "known_model",
]

#: The recipe of the shipped model: AdamW, step size rising over a warm-up and falling along a cosine.
TRAINING = TrainOptions(
    epochs=150,
    patience=0,
    schedule="cosine",
    warmup_steps=200,
    weight_decay=0.01,
    decoupled=True,
    clip_norm=5.0,
    average=5,
)


@dataclass(frozen=True)
class ArchOptions:
    """Size and shape of the model; what is left out is set by its size."""

    dim: int | None = None
    """Channels of the frames."""
    layers: int | None = None
    """Layers of the encoder."""
    decoder_layers: int | None = None
    """Layers of the text decoder; 0 leaves CTC alone."""
    heads: int | None = None
    """Heads of mechanisms that have heads."""
    dropout: float | None = None
    """Share of the values that are dropped in each branch while training."""
    width: int | None = None
    """Frames under the convolution of a Conformer layer, odd."""
    channels: tuple[int, int] | None = None
    """Channels of the two convolutions before the encoder."""


@dataclass(frozen=True)
class SoundOptions:
    """How sound is turned into features."""

    rate: int = 16_000
    """Hz that every recording is brought to."""
    mels: int = 80
    """Bands of the log-mel spectrogram."""


@dataclass(frozen=True)
class UnitOptions:
    """What the model writes."""

    kind: Literal["char", "byte", "sentencepiece"] = "char"
    """Characters, bytes of UTF-8, or SentencePiece pieces."""
    size: int = 256
    """How many pieces SentencePiece learns."""
    alphabet: str | None = None
    """The characters; default those that occur in the training texts."""
    unknown: Literal["refuse", "drop"] = "refuse"
    """What becomes of training texts with other characters: an error that counts them, or the characters left out."""


@dataclass(frozen=True)
class AugmentOptions:
    """What is done to recordings while training; nothing is done to those that are measured on."""

    speeds: tuple[float, ...] = (0.9, 0.95, 1.0, 1.05, 1.1)
    """Factors of speed and pitch, one drawn for each recording."""
    noise: float = 0.3
    """Share of the recordings that white or pink noise is added to."""
    snr: tuple[float, float] = (5.0, 30.0)
    """Lowest and highest distance of the noise in decibels."""
    gain: tuple[float, float] = (-6.0, 6.0)
    """Lowest and highest change of loudness in decibels."""
    join: float = 0.5
    """Share of the recordings that another one, with a short pause between, is joined to."""
    pause: tuple[float, float] = (0.0, 0.3)
    """Shortest and longest pause between joined recordings, in seconds."""
    longest: float = 12.0
    """Joined recordings are no longer than this, in seconds."""
    time_masks: int = 4
    """Stretches of frames that are hidden (SpecAugment)."""
    time_width: tuple[int, int] = (5, 15)
    """Narrowest and widest of them, in frames of 10 ms."""
    band_masks: int = 2
    """Runs of mel bands that are hidden."""
    band_width: tuple[int, int] = (5, 15)
    """Narrowest and widest of them, of 80 bands."""


@dataclass(frozen=True)
class DecodeOptions:
    """How text is read out of the model."""

    method: Literal["auto", "greedy", "ctc", "beam"] = "auto"
    """greedy = best unit of each frame; ctc = beam over CTC alone; beam = text decoder and CTC together; auto = beam
    where there is a text decoder, else ctc."""
    beam: int = 8
    """Hypotheses that are kept."""
    ctc_weight: float = 0.6
    """Share of the CTC score beside that of the text decoder."""
    lm: str | None = None
    """A plain text, one sentence a line, that an n-gram language model is made of."""
    lm_order: int = 4
    """Length of its n-grams."""
    lm_unit: Literal["char", "word"] = "word"
    """What its n-grams are made of."""
    lm_weight: float = 0.3
    """Weight of its score."""
    length_bonus: float = 0.0
    """Added for each unit, against texts that end too early."""


SIZES: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "tiny": MappingProxyType({"dim": 144, "layers": 4, "decoder_layers": 2}),
        "small": MappingProxyType({"dim": 144, "layers": 12, "decoder_layers": 4}),
        "large": MappingProxyType({"dim": 512, "layers": 12, "decoder_layers": 6}),
    }
)

_SHARED = {"heads": 4, "dropout": 0.1, "width": 15, "channels": (64, 32)}

_INFOS = (
    ModelInfo(
        name="samba",
        paper="Samba-ASR: State-of-the-Art Speech Recognition Leveraging Structured State-Space Models "
        "(arXiv 2501.02832)",
        sheet=26,
        summary="Mamba encoder and Mamba text decoder with joint CTC; sizes and equations are our reading of the paper",
        learning_rate=1e-3,
        attention="selective_ssm",
        defaults=MappingProxyType({**_SHARED, "dim": 144, "layers": 4, "decoder_layers": 2}),
    ),
    ModelInfo(
        name="conformer",
        paper="Conformer (arXiv 2005.08100), with CTC alone",
        sheet=0,
        summary="Conformer encoder with CTC, whose mixer any sequence mechanism can be",
        learning_rate=1e-3,
        attention="softmax",
        defaults=MappingProxyType({**_SHARED, "dim": 144, "layers": 4, "decoder_layers": 0}),
    ),
)

#: Models by name.
MODELS: Mapping[str, ModelInfo] = MappingProxyType({info.name: info for info in _INFOS})


def architecture(name: str, size: str, arch: ArchOptions) -> dict[str, Any]:
    """The sizes that a model is built with.

    Raises:
        ConfigError: an unknown model or size, or an option out of its range.

    Example:
        >>> architecture("samba", "small", ArchOptions(layers=8))["layers"]
        8
    """
    if size not in SIZES:
        raise ConfigError("unknown size", where="size", found=size, expected=" or ".join(SIZES))
    info = find_model(MODELS, name)
    chosen = chosen_options(MODELS, name, arch)
    for label, value in SIZES[size].items():
        if getattr(arch, label) is None and not (label == "decoder_layers" and name == "conformer"):
            chosen[label] = value
    if info.name == "conformer" and chosen["decoder_layers"]:
        raise ConfigError(
            "conformer has no text decoder",
            where="arch.decoder_layers",
            found=chosen["decoder_layers"],
            cure="leave it out, or choose --model samba",
        )
    least = {"dim": 1, "layers": 1, "decoder_layers": 0, "heads": 1, "width": 1}
    for label, smallest in least.items():
        _whole(f"arch.{label}", chosen[label], smallest)
    if chosen["width"] % 2 == 0:
        raise ConfigError("must be odd", where="arch.width", found=chosen["width"])
    if not 0 <= chosen["dropout"] < 1:
        raise ConfigError("out of range", where="arch.dropout", found=chosen["dropout"], expected="0 to below 1")
    chosen["channels"] = tuple(chosen["channels"])
    return chosen


def check_values(
    sound: SoundOptions,
    augment: AugmentOptions,
    decode: DecodeOptions,
    units: UnitOptions = UnitOptions(),
    *,
    ctc: float,
    seconds: float,
    valid: float,
    formats: tuple[str, ...] = ("txt",),
) -> None:
    """Refuse numbers and names that cannot be.

    Raises:
        ConfigError: one of them is out of its range.

    Example:
        >>> check_values(SoundOptions(), AugmentOptions(), DecodeOptions(beam=0), ctc=0.3, seconds=60, valid=0.1)
        Traceback (most recent call last):
        pipelines.errors.ConfigError: decode.beam: out of range. Found: 0. Expected: a whole number from 1.
    """
    _whole("sound.rate", sound.rate, 4_000, 48_000)
    _whole("sound.mels", sound.mels, 8, 256)
    _whole("decode.beam", decode.beam, 1)
    _whole("decode.lm_order", decode.lm_order, 1)
    _share("decode.ctc_weight", decode.ctc_weight)
    _share("ctc", ctc)
    _share("augment.noise", augment.noise)
    _share("augment.join", augment.join)
    if not augment.speeds or not all(0.5 <= speed <= 2 for speed in augment.speeds):
        raise ConfigError("out of range", where="augment.speeds", found=augment.speeds, expected="factors of 0.5 to 2")
    _choice("decode.method", decode.method, ("auto", "greedy", "ctc", "beam"))
    _choice("decode.lm_unit", decode.lm_unit, ("char", "word"))
    _choice("units.kind", units.kind, ("char", "byte", "sentencepiece"))
    _choice("units.unknown", units.unknown, ("refuse", "drop"))
    if not formats:
        raise ConfigError("nothing to write", where="formats", expected="txt, srt, vtt, tsv or json")
    if not 0 < valid < 1:
        raise ConfigError("out of range", where="valid", found=valid, expected="above 0 and below 1")
    if not seconds > 0:
        raise ConfigError("out of range", where="batch_seconds", found=seconds, expected="above 0")
    for name, (low, high) in {"snr": augment.snr, "gain": augment.gain, "pause": augment.pause}.items():
        if low > high:
            raise ConfigError("the bounds are out of order", where=f"augment.{name}", found=(low, high))


def known_model(name: str) -> ModelInfo:
    """The entry of a model; an unknown one is refused, with the nearest name.

    Example:
        >>> known_model("samba").sheet
        26
    """
    return find_model(MODELS, name)


def _whole(name: str, value: object, least: int, most: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        expected = f"a whole number from {least}" + (f" to {most}" if most is not None else "")
        raise ConfigError("out of range", where=name, found=value, expected=expected)


def _choice(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError("there is no such choice", where=name, found=value, expected=" or ".join(known))


def _share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError("out of range", where=name, found=value, expected="0 to 1")
