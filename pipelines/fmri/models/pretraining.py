"""Learning from scans without labels: windows that belong together are told from all others (NT-Xent).

Three kinds, of windows of the same people with two views each:

    instance   two windows of one person belong together; the windows of the other examples are the others
    local      two views of one window belong together; the other window of the same person is the other
    both       the sum of the two

Source: SwiFT (arXiv 2307.05916), contrastive pre-training; the loss is that of SimCLR (arXiv 2002.05709), equation 1.
The released code adds `local` up over the batch and averages `instance`; see ``local_weight``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from pipelines.errors import ConfigError

__all__ = ["Kind", "SameSubject", "contrastive_loss", "nt_xent", "overlapping", "pretraining_loss", "views_needed"]

Kind = Literal["instance", "local", "both"]
SameSubject = Literal["negative", "ignore", "positive"]

_SMALLEST = 1e-8  # a vector shorter than this counts as that long: as torch's cosine similarity does


def nt_xent(
    first: Tensor,
    second: Tensor,
    *,
    subject: Tensor | None = None,
    ignored: Tensor | None = None,
    temperature: float = 0.1,
    same_subject: SameSubject = "negative",
) -> Tensor:
    """Cross entropy of finding each vector's partner among all other vectors, by cosine over a temperature.

    A vector is never compared with itself. For vector i with partners P(i), in float32 at least:
    ``-mean over p in P(i) of log(exp(s_ip / t) / sum over a != i of exp(s_ia / t))``.

    Args:
        first, second: (..., N, C) vectors of any length; first[n] and second[n] belong together. Leading axes are
            separate comparisons.
        subject: (N,) whose the pairs are; needed unless `same_subject` is "negative".
        ignored: (2N, 2N) vectors that are left out of each other's sum, in the order first, second; own partners stay.
        temperature: t, above 0.
        same_subject: what another pair of the same subject is: "negative" (as released: one of the others), "ignore"
            (left out of the sum) or "positive" (a partner too: SupCon, arXiv 2004.11362, equation 2).

    Returns:
        (..., 2N) loss of each vector, first ones first; exactly 0 where there is nothing to be told from.

    Raises:
        ConfigError: shapes that do not fit, a temperature out of range, an unknown choice.

    Complexity: O(N^2 C) time, O(N^2) memory for each comparison.

    Source: SimCLR (arXiv 2002.05709), equation 1; the mean over both directions is the released loss.

    Example:
        >>> one = torch.eye(3)
        >>> nt_xent(one, one).shape, bool(nt_xent(one, one).max() < 1e-3)
        (torch.Size([6]), True)
        >>> nt_xent(one[:1], one[1:2]).tolist()
        [0.0, 0.0]
    """
    others, partners = _compared(first, second, subject, ignored, temperature, same_subject)
    vectors = _unit(torch.cat((first, second), -2))
    scores = (vectors @ vectors.transpose(-1, -2) / temperature).masked_fill(~others, -torch.inf)
    gap = scores.logsumexp(-1, keepdim=True) - scores
    # Entries that do not count are infinite: they are replaced, not multiplied by 0.
    return torch.where(partners, gap, 0.0).sum(-1) / partners.sum(-1)


def contrastive_loss(
    kind: Kind,
    views: Sequence[Tensor],
    subject: Tensor | None = None,
    *,
    ignored: Tensor | None = None,
    temperature: float = 0.1,
    same_subject: SameSubject = "negative",
    local_weight: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Loss of a batch of N examples, each of two windows of one person, and what to divide it by.

    Args:
        kind: "instance", "local" or "both".
        views: vectors (N, C) of the two windows and, for the kinds with "local", of another view of each:
            ``(window, other)`` or ``(window, other, window again, other again)``.
        subject, ignored, temperature, same_subject: as for ``nt_xent``; the kind "local" needs none of the subjects.
        local_weight: what the mean of "local" is multiplied by where it stands beside "instance". The released code
            adds it up over the batch: N gives its value. (Its loss of the kind "local" alone is N times this one.)

    Returns:
        Sum of the loss over the examples, and their number without those that have nothing to be told from (an example
        alone in its batch), both without axes: their quotient is the mean.

    Raises:
        ConfigError: an unknown kind, too few views, or what ``nt_xent`` raises.

    Complexity: O(N^2 C) for "instance", O(N C) for "local".

    Source: SwiFT (arXiv 2307.05916); released `contrastive_type` 1, 2 and 3, whose second view is a view of the first
        there, by an augmentation in place, and an independent view of the window here.

    Example:
        >>> a, b = torch.eye(4)[:2], torch.eye(4)[2:]
        >>> total, count = contrastive_loss("both", (a, b, a, b))
        >>> total.shape, int(count)
        (torch.Size([]), 2)
    """
    needed = views_needed(kind)
    if len(views) < needed:
        raise ConfigError(f"too few views for the kind {kind}", where="views", found=len(views), expected=needed)
    count = torch.tensor(float(len(views[0])), device=views[0].device)
    if kind == "local":
        return _local(views, temperature).sum(), count
    pair = {"subject": subject, "ignored": ignored, "temperature": temperature, "same_subject": same_subject}
    each = nt_xent(views[0], views[1], **pair)
    compared = _compared(views[0], views[1], **pair)[0].sum(-1) > 1
    number = compared.sum() / 2.0
    if kind == "instance":
        return each.sum() / 2.0, number
    mean = each.sum() / 2.0 / number.clamp(min=1.0)
    return mean * count + local_weight * _local(views, temperature).sum(), count


def views_needed(kind: Kind) -> int:
    """Views that a kind compares: 2, or 4 for those with "local".

    Raises:
        ConfigError: an unknown kind.

    Example:
        >>> views_needed("instance"), views_needed("both")
        (2, 4)
    """
    if kind not in get_args(Kind):
        raise ConfigError("no kind of pre-training", where="kind", found=kind, expected=", ".join(get_args(Kind)))
    return 2 if kind == "instance" else 4


def overlapping(run: Tensor, start: Tensor, volumes: int) -> Tensor:
    """Which windows of a batch lie nearer than some volumes to each other in one run: for ``ignored``.

    Successive volumes are nearly alike; without this, single volumes of one run would have to be told from their own
    neighbours.

    Args:
        run, start: (2, N) number of each window's run, and its first volume; as ``ContrastiveWindows`` gives them.
        volumes: windows whose starts differ by less overlap; 0 finds none.

    Returns:
        (2N, 2N) bool.

    Example:
        >>> overlapping(torch.tensor([[0, 0], [0, 1]]), torch.tensor([[5, 6], [9, 6]]), 2).int().tolist()
        [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    """
    run, start = run.reshape(-1), start.reshape(-1)
    return (run[:, None] == run) & ((start[:, None] - start).abs() < volumes)


def pretraining_loss(
    kind: Kind = "instance",
    *,
    temperature: float = 0.1,
    same_subject: SameSubject = "negative",
    local_weight: float = 1.0,
    apart: int = 0,
) -> Callable[[nn.Module, Mapping[str, Tensor]], tuple[Tensor, Tensor]]:
    """The loss of batches of ``ContrastiveWindows`` for ``training.loop.train``.

    The module takes a view (N, 1, X, Y, Z, T) and gives vectors (N, C). Each view goes through it by itself, as
    released: a batch norm in the head sees one view at a time. Over several processes each compares its own share.

    Args:
        kind, temperature, same_subject, local_weight: as for ``contrastive_loss``.
        apart: windows of one run whose starts differ by fewer volumes are left out of each other's comparison.

    Raises:
        ConfigError: an unknown kind.

    Example:
        >>> views = torch.randn(2, 3, 1, 2, 2, 1, 4, generator=torch.Generator().manual_seed(0))
        >>> total, count = pretraining_loss()(nn.Flatten(), {"views": views})
        >>> int(count), bool(total > 0)
        (3, True)
    """
    needed = views_needed(kind)

    def loss(module: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        vectors = [module(view) for view in batch["views"][:needed]]
        ignored = overlapping(batch["run"], batch["start"], apart) if apart > 0 else None
        return contrastive_loss(
            kind,
            vectors,
            batch.get("subject"),
            ignored=ignored,
            temperature=temperature,
            same_subject=same_subject,
            local_weight=local_weight,
        )

    return loss


def _local(views: Sequence[Tensor], temperature: float) -> Tensor:
    """(N,) for each example, its two windows against each other: four vectors, each with one partner."""
    first, second = torch.stack((views[0], views[1]), 1), torch.stack((views[2], views[3]), 1)
    return nt_xent(first, second, temperature=temperature).mean(-1)


def _unit(vectors: Tensor) -> Tensor:
    """Vectors of length 1, in float32 at least: cosines of half precision over a small temperature are too coarse."""
    exact = vectors if vectors.dtype == torch.float64 else vectors.float()
    return nn.functional.normalize(exact, dim=-1, eps=_SMALLEST)


def _compared(
    first: Tensor,
    second: Tensor,
    subject: Tensor | None,
    ignored: Tensor | None,
    temperature: float,
    same_subject: SameSubject,
) -> tuple[Tensor, Tensor]:
    """(2N, 2N) whom each vector is compared with, partners among them, and which of those are its partners."""
    _check(first, second, subject, ignored, temperature, same_subject)
    place = torch.arange(first.shape[-2], device=first.device).repeat(2)
    other = ~torch.eye(len(place), dtype=torch.bool, device=first.device)
    own = (place[:, None] == place) & other
    left_out = torch.zeros_like(own) if ignored is None else ignored.clone()
    partners = own
    if subject is not None and same_subject != "negative":
        people = subject.repeat(2)
        same = (people[:, None] == people) & other
        if same_subject == "ignore":
            left_out |= same
        else:
            partners = own | (same & ~left_out)
    return other & (~left_out | own), partners


def _check(
    first: Tensor,
    second: Tensor,
    subject: Tensor | None,
    ignored: Tensor | None,
    temperature: float,
    same_subject: Any,
) -> None:
    if first.shape != second.shape or first.dim() < 2 or first.shape[-2] < 1:
        found = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ConfigError(
            "vectors do not fit", where="views", found=found, expected="two tensors (..., N, C), N from 1"
        )
    if isinstance(temperature, bool) or not 0 < temperature < float("inf"):
        raise ConfigError("no temperature", where="temperature", found=temperature, expected="a number above 0")
    if same_subject not in get_args(SameSubject):
        expected = ", ".join(get_args(SameSubject))
        raise ConfigError("no such choice", where="same_subject", found=same_subject, expected=expected)
    if subject is None and same_subject != "negative":
        cure = "give subject (N,), or same_subject='negative'"
        raise ConfigError("the subjects of the pairs are not known", where="subject", cure=cure)
    pairs = first.shape[-2]
    if subject is not None and subject.shape != (pairs,):
        raise ConfigError("one subject a pair", where="subject", found=tuple(subject.shape), expected=(pairs,))
    if ignored is not None and ignored.shape != (2 * pairs, 2 * pairs):
        found = tuple(ignored.shape)
        raise ConfigError("one flag a pair of vectors", where="ignored", found=found, expected=(2 * pairs, 2 * pairs))
