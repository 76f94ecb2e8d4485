"""Training a recogniser: recordings in memory, batches by seconds, augmentation by seed, CTC beside next-unit loss."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from pipelines.data.datasets.speech_augment import Perturbation, spec_augment
from pipelines.data.datasets.speech_batches import plan_batches
from pipelines.data.datasets.speech_units import START
from pipelines.training.randomness import derive_seed
from pipelines.transcribe.features import HOP, Features
from pipelines.transcribe.models.subsampling import subsampled

if TYPE_CHECKING:
    from pipelines.transcribe.options import AugmentOptions
    from pipelines.transcribe.reading import Shelf

__all__ = ["IGNORED", "Recordings", "joint_loss", "needed_frames", "too_short"]

#: Marks what follows the end of a text in a batch.
IGNORED = -100
_MOST = 64  # recordings of a batch
_SMOOTHING = 0.1


class Recordings(Dataset[dict[str, Tensor]]):
    """Recordings and their texts as padded batches of features and units.

    Args:
        shelf: the sound.
        texts: unit numbers of what each says.
        features: how a spectrogram is made.
        seconds: of sound a batch, padding counted; joined recordings may exceed it.
        augment: what is done to them; None leaves them as they are.
        space: the unit that parts two joined texts; without one none are joined.

    Every recording stands in exactly one batch of an epoch. What is drawn depends on seed, epoch and the recording's
    number alone.
    """

    def __init__(
        self,
        shelf: Shelf,
        texts: Sequence[Sequence[int]],
        features: Features,
        seconds: float,
        augment: AugmentOptions | None = None,
        space: int | None = None,
    ) -> None:
        self._shelf, self._texts, self._features = shelf, [tuple(ids) for ids in texts], features
        self._seconds, self._augment, self._space = seconds, augment, space
        self._seed, self._epoch = 0, 0
        self._perturb: Callable[[NDArray[np.float32], torch.Generator], NDArray[np.float32]] | None = None
        self._by_speaker: dict[str, list[int]] = {}
        for number, one in enumerate(shelf.utterances):
            self._by_speaker.setdefault(one.speaker, []).append(number)
        if augment is not None:
            self._perturb = Perturbation(augment.speeds, augment.noise, augment.snr, ("white", "pink"), augment.gain)

    def __len__(self) -> int:
        return len(self._shelf)

    def plan(self, seed: int, epoch: int) -> list[list[int]]:
        """The batches of an epoch; in plain order of length where nothing is augmented."""
        shuffle = self._augment is not None
        return plan_batches(
            self._shelf.seconds, budget=self._seconds, most=_MOST, seed=seed, epoch=epoch, shuffle=shuffle
        )

    def set_epoch(self, seed: int, epoch: int) -> None:
        """Draw for another epoch."""
        self._seed, self._epoch = seed, epoch

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One recording as a batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Features (B, T, M) and their lengths, tokens (B, U) from id 1 on, what follows each, units for CTC."""
        generators = [torch.Generator().manual_seed(derive_seed(self._seed, self._epoch, index)) for index in indices]
        drawn = [self._draw(index, generator) for index, generator in zip(indices, generators, strict=True)]
        found = [
            self._masked(self._features(torch.from_numpy(samples)), generator)
            for (samples, _), generator in zip(drawn, generators, strict=True)
        ]
        lengths = torch.tensor([len(one) for one in found])
        features = nn.utils.rnn.pad_sequence(found, batch_first=True)
        texts = [torch.tensor(ids, dtype=torch.long) for _, ids in drawn]
        start = torch.tensor([START])
        tokens = [torch.cat([start, ids]) for ids in texts]
        following = [torch.cat([ids, start]) for ids in texts]
        return {
            "features": features,
            "lengths": lengths,
            "tokens": nn.utils.rnn.pad_sequence(tokens, batch_first=True),
            "following": nn.utils.rnn.pad_sequence(following, batch_first=True, padding_value=IGNORED),
            "units": torch.cat(texts),
            "counts": torch.tensor([len(ids) for ids in texts]),
        }

    def _masked(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """Features (T, M) of one recording; its masks must not depend on what else is in the batch."""
        augment = self._augment
        if augment is None:
            return features
        return spec_augment(
            features.unsqueeze(0),
            torch.tensor([len(features)]),
            generator,
            time_masks=augment.time_masks,
            time_width=augment.time_width,
            freq_masks=augment.band_masks,
            freq_width=augment.band_width,
        ).squeeze(0)

    def _draw(self, index: int, generator: torch.Generator) -> tuple[NDArray[np.float32], tuple[int, ...]]:
        samples, ids = self._shelf.samples(index), self._texts[index]
        augment, perturb = self._augment, self._perturb
        if augment is None or perturb is None:
            return samples, ids
        join, other, pause = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        if join < augment.join and self._space is not None:
            same = self._by_speaker[self._shelf.utterances[index].speaker]
            partner = same[int(other * len(same))]
            gap = augment.pause[0] + (augment.pause[1] - augment.pause[0]) * pause
            seconds = self._shelf.seconds
            if seconds[index] + gap + seconds[partner] <= augment.longest:
                silence = np.zeros(round(gap * self._features.rate), np.float32)
                samples = np.concatenate([samples, silence, self._shelf.samples(partner)])
                ids = (*ids, self._space, *self._texts[partner])
        return perturb(samples, generator), ids


def needed_frames(ids: Sequence[int]) -> int:
    """Frames that CTC needs for a text: one a unit, and one between equal neighbours.

    Example:
        >>> needed_frames((2, 3, 3))
        4
    """
    return len(ids) + sum(a == b for a, b in itertools.pairwise(ids))


def too_short(seconds: float, ids: Sequence[int], fastest: float = 1.0) -> bool:
    """Whether a recording has fewer frames than its text needs, at the fastest speed that it is heard at.

    Example:
        >>> too_short(0.1, (2,) * 9), too_short(1.0, (2, 3))
        (True, False)
    """
    frames = torch.tensor(int(seconds / fastest / HOP))
    return int(subsampled(frames)) < needed_frames(ids)


def joint_loss(weight: float) -> Callable[[Any, dict[str, Tensor]], tuple[Tensor, Tensor]]:
    """The loss of a batch: CTC, ``weight`` times, and smoothed cross-entropy of the next unit, summed over units.

    Source: joint CTC and attention (arXiv 1609.06773), equation 11; smoothing of 0.1 as in the public recipes.

    Args:
        weight: 0 to 1; a model without a text decoder has CTC alone.

    Returns:
        A function (model, batch) -> (sum of the loss, number of units, each text's end counted).
    """

    def loss(model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        logp, lengths, scores = model(batch["features"], batch["lengths"], batch["tokens"])
        count = (batch["following"] != IGNORED).sum()
        ctc = F.ctc_loss(
            logp.transpose(0, 1), batch["units"], lengths, batch["counts"], reduction="sum", zero_infinity=True
        )
        if scores is None:
            return ctc, count
        follow = F.cross_entropy(
            scores.float().flatten(0, 1),
            batch["following"].flatten(),
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=_SMOOTHING,
        )
        return weight * ctc + (1 - weight) * follow, count

    return loss
