"""From a stretch of sound to its words: features, encoder, search, alignment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.errors import ConfigError, InputError
from pipelines.transcribe.decoding.align import align
from pipelines.transcribe.decoding.ctc import greedy, prefix_beam
from pipelines.transcribe.decoding.fusion import Fusion
from pipelines.transcribe.decoding.joint import joint_beam
from pipelines.transcribe.decoding.ngram import NGram
from pipelines.transcribe.decoding.scoring import Hypothesis
from pipelines.transcribe.decoding.text import to_text, unit_texts
from pipelines.transcribe.features import HOP
from pipelines.transcribe.models.subsampling import FACTOR
from pipelines.transcribe.segments import Segmenter
from pipelines.transcribe.words import Segment, Word

if TYPE_CHECKING:
    from pipelines.transcribe.engine import Fitted
    from pipelines.transcribe.options import DecodeOptions
    from pipelines.transcribe.segments import SegmentOptions

__all__ = ["FRAME_SECONDS", "Listener", "has_speech", "segment_of"]

FRAME_SECONDS = HOP * FACTOR


class Listener:
    """Reads words out of stretches of sound with one fitted model; a language model is made once.

    Args:
        fitted: the model.
        decode: how text is read out.

    Raises:
        ConfigError: a text decoder is asked for that the model does not have.
        InputError: the text of the language model cannot be read.
    """

    def __init__(self, fitted: Fitted, decode: DecodeOptions) -> None:
        self.fitted, self.decode = fitted, decode
        has_decoder = fitted.module.decoder is not None
        self.method = decode.method
        if decode.method == "auto":
            self.method = "beam" if has_decoder else "ctc"
        if self.method == "beam" and not has_decoder:
            raise ConfigError(
                "this model has no text decoder", where="decode.method", found="beam", expected="greedy or ctc"
            )
        self._fusion = None if decode.lm is None else Fusion(_language_model(decode), fitted.units)
        self._device = next(fitted.module.parameters()).device

    @property
    def says(self) -> str:
        """How the text is read out, for the protocol.

        One of "best unit of each frame", "CTC beam of 8", "joint beam of 8, CTC 0.6", each with its language model.
        """
        decode = self.decode
        told = {
            "greedy": "best unit of each frame",
            "ctc": f"CTC beam of {decode.beam}",
            "beam": f"joint beam of {decode.beam}, CTC {decode.ctc_weight:g}",
        }[self.method]
        if self._fusion is None:
            return told
        return f"{told}, {decode.lm_order}-gram of {decode.lm_unit}s {decode.lm_weight:g}"

    @torch.no_grad()
    def frames(self, samples: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
        """Frames (1, S, dim) of the encoder and log-probabilities (S, V) of a stretch (n,)."""
        features = self.fitted.features(torch.from_numpy(np.ascontiguousarray(samples))).unsqueeze(0)
        lengths = torch.tensor([features.shape[1]], device=self._device)
        memory, _ = self.fitted.module.encode(features.to(self._device), lengths)
        return memory, self.fitted.module.ctc(memory)[0].cpu()

    def best(self, memory: Tensor, logp: Tensor) -> Hypothesis:
        """The best text of frames and their log-probabilities."""
        decode = self.decode
        if self.method == "greedy":
            return greedy(logp)
        if self.method == "ctc":
            found = prefix_beam(
                logp,
                beam=decode.beam,
                lm=self._fusion,
                lm_weight=decode.lm_weight,
                length_bonus=decode.length_bonus,
                units=self.fitted.units,
            )
            return found[0]
        return joint_beam(
            self.fitted.module.scorer(memory),
            logp,
            beam=decode.beam,
            ctc_weight=decode.ctc_weight,
            lm=self._fusion,
            lm_weight=decode.lm_weight,
            length_bonus=decode.length_bonus,
            units=self.fitted.units,
            longest=logp.shape[0],
            device=self._device,
        )[0]

    def text(self, samples: NDArray[np.float32]) -> str:
        """What is said in a stretch (n,), parted by single spaces."""
        return self.read(*self.frames(samples))

    def read(self, memory: Tensor, logp: Tensor) -> str:
        """What is said in frames and their log-probabilities, parted by single spaces."""
        return " ".join(to_text(self.fitted.units, self.best(memory, logp).ids).split())

    def words(self, samples: NDArray[np.float32], offset: float = 0.0) -> list[Word]:
        """The words of a stretch (n,) that begins ``offset`` seconds into the recording, with their times."""
        memory, logp = self.frames(samples)
        return self.placed(samples, logp, self.best(memory, logp).ids, offset)

    def placed(
        self, samples: NDArray[np.float32], logp: Tensor, ids: tuple[int, ...] | list[int], offset: float = 0.0
    ) -> list[Word]:
        """The words of known units at their times.

        Raises:
            InputError: fewer frames than the text needs.
        """
        units, rate = self.fitted.units, self.fitted.features.rate
        texts = unit_texts(units, ids)
        return align(logp, ids, texts, FRAME_SECONDS, samples=samples, rate=rate, offset=offset)


def _language_model(decode: DecodeOptions) -> NGram:
    from pathlib import Path

    from pipelines.transcribe.decoding.ngram_files import load_ngram

    path = Path(decode.lm or "")
    if path.suffix.lower() in (".arpa", ".json"):
        return load_ngram(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("not a readable text", where=path, found=str(error), expected="plain text in UTF-8") from error
    from pipelines.data.datasets.speech_text import prepare_text

    return NGram.from_text([prepare_text(line, "")[0] for line in lines], decode.lm_order, decode.lm_unit)


def has_speech(samples: NDArray[np.float32], rate: int, options: SegmentOptions) -> bool:
    """Whether a stretch (n,) holds any speech: nothing is written for silence or steady noise.

    Example:
        >>> from pipelines.transcribe.segments import SegmentOptions
        >>> has_speech(np.zeros(8000, np.float32), 8000, SegmentOptions())
        False
    """
    segmenter = Segmenter(rate, options)
    return bool(segmenter.push(samples) or segmenter.flush())


def segment_of(words: list[Word]) -> Segment:
    """The segment that some words make.

    Example:
        >>> segment_of([Word("good", 0.1, 0.3, 0.9), Word("bye", 0.3, 0.7, 0.8)]).text
        'good bye'
    """
    return Segment(" ".join(word.text for word in words), words[0].start, words[-1].end, tuple(words))
