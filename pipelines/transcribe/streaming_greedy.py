"""What a causal model has understood of a stretch of speech that is still going on, in constant work a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.transcribe.decoding.scoring import BLANK, BOUNDARY
from pipelines.transcribe.decoding.text import to_text
from pipelines.transcribe.features import FeatureStream
from pipelines.transcribe.models.recogniser import EncoderState
from pipelines.transcribe.segments import Piece, Segmenter

if TYPE_CHECKING:
    from pipelines.transcribe.engine import Fitted

__all__ = ["GrowingText", "Stretches"]


class Stretches(Segmenter):
    """A segmenter that also shows the stretch that is still going on, and says when one turns out to be no speech.

    Such a stretch (too short, or a steady noise) ends as a piece without samples, so that whoever has shown a text
    for it can take it back at a moment that does not depend on how the sound was cut into blocks.

    Example:
        >>> from pipelines.transcribe.segments import SegmentOptions
        >>> click = np.random.default_rng(0).normal(0, 0.001, 40_000).astype(np.float32)
        >>> click[24_000:24_960] += 0.5 * np.sin(np.arange(960))
        >>> stretches = Stretches(16_000, SegmentOptions(shortest=0.5))
        >>> [len(piece.samples) for piece in stretches.push(click)], stretches.going_on
        ([0], None)
    """

    @property
    def going_on(self) -> tuple[int, int] | None:
        """First sample of the present stretch, and the end up to which the sound certainly belongs to it."""
        if not self._speaking:
            return None
        return self._begin, min((self._last + 1) * self.hop + self._pad, self._total)

    def between(self, begin: int, end: int) -> NDArray[np.float32]:
        """Samples of the present stretch by their numbers in the stream."""
        return self._taken(begin, end)

    def _close(self, known: int) -> list[Piece]:
        begin = self._begin
        return super()._close(known) or [self._nothing(begin)]

    def _cut(self, frame: int) -> list[Piece]:
        begin = self._begin
        return super()._cut(frame) or [self._nothing(begin)]

    def _nothing(self, begin: int) -> Piece:
        return Piece(begin / self.rate, np.zeros(0, np.float32), forced=False)


class GrowingText:
    """The best unit of each frame so far, of a stretch whose samples arrive in pieces of any length.

    After all samples and :meth:`finish` it is what :func:`~pipelines.transcribe.decoding.ctc.greedy` reads on the
    whole stretch: features, subsampling and layers carry their state from piece to piece, and so does the merging of
    repeated units.

    Args:
        fitted: a causal model.

    Attributes:
        ids: the units so far.

    Complexity: O(1) work and memory a frame, beside the units. Source: Graves et al. 2006, best path decoding.

    Example:
        >>> from types import SimpleNamespace
        >>> from pipelines.transcribe.features import Features
        >>> from pipelines.transcribe.models.recogniser import Recogniser
        >>> model = Recogniser(9, 40, dim=8, layers=1, decoder_layers=0, causal=True).eval()
        >>> growing = GrowingText(SimpleNamespace(module=model, features=Features(8000, 40)))
        >>> for _ in range(10):
        ...     growing.push(np.zeros(801, np.float32))
        >>> growing.finish()
        >>> all(1 < unit < 9 for unit in growing.ids)
        True
    """

    def __init__(self, fitted: Fitted) -> None:
        self._fitted = fitted
        self._features = FeatureStream(fitted.features)
        self._state: EncoderState | None = None
        self._last = BLANK
        self._device = next(fitted.module.parameters()).device
        self.ids: list[int] = []

    def push(self, samples: NDArray[np.float32]) -> None:
        """Take the next samples (n,)."""
        self._take(self._features.push(torch.from_numpy(np.ascontiguousarray(samples))))

    def finish(self) -> None:
        """The stretch is over: what stands in the last, incomplete 10 ms counts too."""
        self._take(self._features.flush())

    @property
    def text(self) -> str:
        """What was understood so far, its words parted by single spaces."""
        return to_text(self._fitted.units, self.ids)

    @torch.no_grad()
    def _take(self, features: Tensor) -> None:
        """Features (T, M) that have become complete, perhaps none."""
        if not len(features):
            return
        memory, self._state = self._fitted.module.encode_piece(features.unsqueeze(0).to(self._device), self._state)
        if not memory.shape[1]:
            return
        logp = self._fitted.module.ctc(memory)[0]
        logp[:, BOUNDARY] = -torch.inf
        for unit in logp.argmax(1).tolist():
            if unit not in (self._last, BLANK):
                self.ids.append(unit)
            self._last = unit
