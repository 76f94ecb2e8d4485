"""What is strange about samples that pass by: no numbers, clipping, an offset, silence, channels that cancel."""

from __future__ import annotations

import math

import numpy as np

from pipelines.data.errors import InputError
from pipelines.data.formats.audio_types import AudioFacts, Floats

__all__ = ["SampleWatch"]

#: So many samples in a row at full scale are clipped; one or two may be a peak.
_RUN = 3
_SILENCE = -90.0  # dB of full scale
_OFFSET = 0.02
_LOUD = 1.5  # decoders of sound that was clipped or compressed go somewhat over 1
_CANCELLED = 0.01  # of the channels' power


class SampleWatch:
    """Counts over a recording in one pass, block by block.

    Args:
        name: for messages.
        facts: of the recording; the bits tell where full scale is.

    Example:
        >>> watch = SampleWatch("a.wav", AudioFacts(8000, 1, None, "WAV", "PCM_16", 16))
        >>> watch.see(np.full((5, 1), 1.0, np.float32), np.full(5, 1.0, np.float32))
        >>> watch.remarks()[0]
        '5 samples clipped: at full scale, 3 or more in a row'
    """

    def __init__(self, name: str, facts: AudioFacts) -> None:
        self.name, self.rate = name, facts.rate
        whole = facts.bits is not None and not facts.encoding.upper().startswith(
            ("FLOAT", "DOUBLE", "PCM_F")
        )  # PCM_F32LE
        #: The highest level of whole numbers is one step below 1; lossy decoders come near it.
        self.full = 1 - 2.0 ** (1 - min(facts.bits or 16, 24)) if whole else 0.9999
        self._whole = whole
        self.frames = 0
        self.faulty, self.first_fault = 0, 0
        self.clipped = 0
        self.peak = 0.0
        self._open = np.zeros(facts.channels, np.int64)  # length of the run at full scale that may go on
        self._signs = np.zeros(facts.channels, np.int8)
        self._sum = 0.0
        self._power, self._mixed = 0.0, 0.0

    def see(self, block: Floats, mono: Floats) -> None:
        """Take a block (n, channels), and what was made of it (n,)."""
        highest, lowest = float(block.max(initial=0.0)), float(block.min(initial=0.0))
        peak = max(highest, -lowest)
        if not math.isfinite(peak):
            self._count_faults(block)
            self.frames += len(block)
            return
        self.peak = max(self.peak, peak)
        if peak >= self.full or self._open.any():
            for channel in range(block.shape[1]):
                self._clip(block[:, channel], channel)
        self._sum += float(mono.sum(dtype=np.float64))
        if block.shape[1] > 1:
            self._power += float(np.einsum("nc,nc->", block, block)) / block.shape[1]
            self._mixed += float(np.dot(mono, mono))
        self.frames += len(block)

    def _count_faults(self, block: Floats) -> None:
        faulty = np.nonzero(~np.isfinite(block).all(1))[0]
        if not self.faulty:
            self.first_fault = self.frames + int(faulty[0])
        self.faulty += int((~np.isfinite(block)).sum())

    def _clip(self, values: Floats, channel: int) -> None:
        signs = (values >= self.full).astype(np.int8) - (values <= -self.full).astype(np.int8)
        changes = np.flatnonzero(signs[1:] != signs[:-1]) + 1
        starts = np.concatenate([[0], changes])
        lengths = np.diff(np.concatenate([starts, [len(signs)]]))
        kinds = signs[starts]
        if kinds[0] == self._signs[channel] and kinds[0]:
            lengths[0] += self._open[channel]
        elif self._open[channel] >= _RUN:
            self.clipped += int(self._open[channel])
        closed = lengths[:-1][(kinds[:-1] != 0) & (lengths[:-1] >= _RUN)]
        self.clipped += int(closed.sum())
        self._signs[channel] = kinds[-1]
        self._open[channel] = lengths[-1] if kinds[-1] else 0

    def refuse_faults(self) -> None:
        """Raise for what is no number.

        Raises:
            InputError: there was some; with how many and the time of the first.
        """
        if self.faulty:
            found = f"{self.faulty:,} that are not finite, the first at {self.first_fault / self.rate:.3f} s"
            cure = "export the recording again, or set them to 0 and know why they are there"
            raise InputError("samples that are no numbers", where=self.name, found=found, expected="none", cure=cure)

    def remarks(self) -> list[str]:
        """What is to be said of all that passed."""
        if not self.frames:
            return []
        found: list[str] = []
        clipped = self.clipped + int(self._open[self._open >= _RUN].sum())
        if clipped:
            # Decoders and floats overshoot, so that theirs may have been clipped before, or not at all.
            what = "clipped: at full scale" if self._whole else "perhaps clipped: at or above full scale"
            found.append(f"{clipped:,} samples {what}, {_RUN} or more in a row")
        if self.peak > _LOUD:
            doubt = "; were whole numbers not divided by their range?" if self.peak > 100 else ""
            found.append(f"the loudest sample is {self.peak:.4g} times full scale{doubt}")
        mean = self._sum / self.frames
        if self.peak < 10 ** (_SILENCE / 20):
            found.append(f"silence: no sample above {_SILENCE:.0f} dB")
        elif abs(mean) > _OFFSET:
            found.append(f"DC offset: the samples have a mean of {mean:+.3f}, not taken away")
        if self._power and self._mixed < _CANCELLED * self._power:
            found.append("the channels cancel each other in their mean: choose one of them")
        return found
