"""Pooling in place of attention: a token takes in the whole, its segment and its neighbours, in linear time."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_attention.contract import MechanismError, MixerOutput, TokenMixer
from core_attention.kernels import segment_max
from core_attention.registry import mechanism


@mechanism(name="pooling", paper="arXiv 2110.02442", year=2021, complexity="L", memory="L", mask=True)
class Pooling(TokenMixer):
    """Fuse three poolings: one attention-weighted summary of all, the maximum of the segment, that of the neighbours.

        q = mean_t(Q_t)        g = sum_t softmax_t(q . K_t / sqrt(D)) K_t                 one summary a head
        s_t = max over the segment of t of S        l_t = max over t - 1, t, t + 1 of L
        y_t = W((g + s_t) * O_t + l_t)

    with Q, K, O, S and L five linear maps of x; K serves as value too. Segments are either of equal length, or those
    given as ``segments``; then ``special`` may name tokens (of classification, separators) that take in the whole alone
    and stay out of their neighbours' maximum. Equal maxima of a segment share the gradient. Not causal. Time
    O(T C^2), memory O(T C). Padding may stand at either end and changes nothing: with ``mask``, lengths and places of
    equal segments count valid tokens only. In a hole between valid tokens padding separates neighbours.

    Source: PoNet (arXiv 2110.02442), section 3; names of the tensors are those of the released code.

    Args:
        dim: channels C, a multiple of ``num_heads``.
        num_heads: heads H of D = C / H channels; they matter to the summary alone.
        segments: number S; n tokens fall into segments of n // S + 1, so that S > n leaves each token by itself.
        output: whether the linear map W stands at the end.

    Raises:
        MechanismError: sizes that do not fit, ``segments`` or ``special`` of another shape or kind.
        ValueError: segment numbers outside 0 to T - 1.

    Example:
        >>> import torch
        >>> mixer, x = Pooling(16, 4, segments=2), torch.randn(2, 5, 16)
        >>> mixer(x).y.shape
        torch.Size([2, 5, 16])
        >>> sentences = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, 0, 1]])
        >>> mixer(x, segments=sentences, maps=True).aux["maps"].shape
        torch.Size([2, 4, 1, 5])
    """

    def __init__(self, dim: int, num_heads: int = 8, *, segments: int = 64, output: bool = True) -> None:
        super().__init__(dim, num_heads)
        if dim % num_heads:
            raise MechanismError(f"pooling: dim={dim} is no multiple of num_heads={num_heads}")
        if not isinstance(segments, int) or isinstance(segments, bool) or segments < 1:
            raise MechanismError(f"pooling: segments is {segments!r}, expected a positive whole number")
        self.segments = segments
        self.dense_local = nn.Linear(dim, dim)
        self.dense_segment = nn.Linear(dim, dim)
        self.dense_q = nn.Linear(dim, dim)
        self.dense_k = nn.Linear(dim, dim)
        self.dense_o = nn.Linear(dim, dim)
        self.out_projection: nn.Module = nn.Linear(dim, dim) if output else nn.Identity()

    def mix(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        special: Tensor | None = None,
        maps: bool = False,
    ) -> MixerOutput:
        """Mix x (B, T, C).

        Args:
            x: (B, T, C).
            mask: (B, T) bool, True = valid.
            segments: (B, T) whole numbers from 0 to T - 1; equal numbers make a segment.
            special: (B, T) bool, True = takes in the whole alone.
            maps: return the weights of the one summary a head, (B, H, 1, T), as ``aux["maps"]``.

        Returns:
            ``MixerOutput`` with y (B, T, C); padded rows are what W makes of zeros.
        """
        self._check(x, segments, special)
        if mask is not None:
            x = torch.where(mask.unsqueeze(-1), x, 0.0)  # whatever stands in the padding, no product sees it
        numbers = equal_segments(x.shape[:2], self.segments, mask, x.device) if segments is None else segments
        whole, weights = self._whole(x, mask)
        by_segment = segment_max(self.dense_segment(x), numbers, mask)
        local = _local_max(self.dense_local(x), _either(mask, special))
        if special is not None:
            by_segment = by_segment.masked_fill(special.unsqueeze(-1), 0.0)
            local = local.masked_fill(special.unsqueeze(-1), 0.0)
        y = (whole.unsqueeze(1) + by_segment) * self.dense_o(x) + local
        if mask is not None:
            y = torch.where(mask.unsqueeze(-1), y, 0.0)
        return MixerOutput(self.out_projection(y), None, {"maps": weights.unsqueeze(2)} if maps else {})

    def _whole(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """The summary (B, C) and its weights (B, H, T)."""
        heads = (self.num_heads, self.dim // self.num_heads)
        q, k = self.dense_q(x), self.dense_k(x).unflatten(-1, heads)
        if mask is None:
            query = q.mean(dim=1)
        else:
            count = mask.sum(dim=1, keepdim=True).clamp(min=1)  # a row of padding alone has no mean; zeros serve
            query = torch.where(mask.unsqueeze(-1), q, 0.0).sum(dim=1) / count
        scores = torch.einsum("bhd,bthd->bht", query.unflatten(-1, heads), k) / math.sqrt(heads[1])
        if mask is not None:
            # Not minus infinity: a row of padding alone would be NaN, here it is even and ends in zeros.
            scores = scores.masked_fill(~mask.unsqueeze(1), torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1)
        return torch.einsum("bht,bthd->bhd", weights, k).flatten(1), weights

    def _check(self, x: Tensor, segments: Tensor | None, special: Tensor | None) -> None:
        kinds = {"segments": (segments, (torch.int64, torch.int32)), "special": (special, (torch.bool,))}
        for name, (given, dtypes) in kinds.items():
            if given is not None and (given.shape != x.shape[:2] or given.dtype not in dtypes):
                found = f"{tuple(given.shape)} of {given.dtype}"
                raise MechanismError(f"pooling: {name} is {found}, expected {tuple(x.shape[:2])} of {dtypes[0]}")


def equal_segments(
    shape: torch.Size | tuple[int, int], count: int, mask: Tensor | None, device: torch.device
) -> Tensor:
    """Numbers (B, T) of segments of equal length: n valid tokens into pieces of n // count + 1. O(B T).

    Args:
        shape: (B, T).
        count: the number of segments that is aimed at; fewer arise, for pieces are rounded up.
        mask: (B, T) bool, True = valid; without one all are.
        device: where to build it.

    Example:
        >>> equal_segments((1, 5), 2, None, torch.device("cpu")).tolist()
        [[0, 0, 0, 1, 1]]
    """
    rows, length = shape
    if mask is None:
        return (torch.arange(length, device=device) // (length // count + 1)).expand(rows, length)
    size = mask.sum(dim=1, keepdim=True) // count + 1
    return (mask.cumsum(dim=1) - 1).clamp(min=0) // size


def _either(mask: Tensor | None, special: Tensor | None) -> Tensor | None:
    """The tokens that enter a neighbour's maximum, (B, T) bool; None for all."""
    if special is None:
        return mask
    return ~special if mask is None else mask & ~special


def _local_max(x: Tensor, counted: Tensor | None) -> Tensor:
    """The maximum of each channel of x (B, T, C) over a token and both its neighbours, those that count."""
    if counted is not None:
        # Of a token that does not count itself the caller uses nothing, so that the lowest number may come through.
        x = x.masked_fill(~counted.unsqueeze(-1), torch.finfo(x.dtype).min)
    return F.max_pool1d(x.transpose(1, 2), 3, stride=1, padding=1).transpose(1, 2)
