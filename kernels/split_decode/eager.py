"""Vectorised torch: split-K attention, a block of keys at a time, merged by (maximum, total, output).

Operands of 16 bits are widened block by block and all sums are float32 (float64 for float64 operands), rounded once.
Scores never exist as a whole: a block holds at most ``_BUDGET`` scores, or 64 keys where rows are many; what is held
beyond the result is a small multiple of max(_BUDGET, 64 B H T, 64 B G D) elements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from core_attention.kernels.split_decode.partials import State, merge_partials

__all__ = ["attention_state", "portable_split_decode", "split_decode", "split_decode_backward"]

_BUDGET = 1 << 20  # elements of a block, of scores or of keys: 4 MB in float32, which stays in cache
_LEAST_KEYS = 64


def split_decode(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Attention of few queries over many keys. q (B, T, H, D), k and v (B, S, G, D), lengths (B,) -> (B, T, H, D).

    Time O(B T H S D); memory beyond the result as the module says.
    """
    _, total, output = attention_state(q, k, v, lengths, causal=causal, scale=scale)
    return _divided(output, total).to(q.dtype)


def attention_state(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
    block: int | None = None,
) -> State:
    """The same as a state for ``merge_partials``: maximum and total (B, T, H), output (B, T, H, D), not divided.

    ``block`` is the number of keys of a block; None takes what the budget allows. States are in float32, or float64.
    """
    maximum, total, output = _state(_Task(q, k, v, lengths, causal, scale, block))
    return _ungrouped(maximum, q), _ungrouped(total, q), _ungrouped(output, q)


def split_decode_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None,
    *,
    causal: bool,
    scale: float,
    wanted: Sequence[bool] = (True, True, True),
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k, v; one that is not wanted has no elements. The forward pass is computed again, block by block.

    With weights p = exp(s - maximum) / total and r = g v^T: dv = p^T g, ds = p (r - sum(p r)), dq = scale ds k,
    dk = scale ds^T q. The first pass gives maximum, total and sum(p r), the second the gradients.
    Time O(B T H S D), memory beyond the results as the module says.
    """
    task = _Task(q, k, v, lengths, causal, scale, None)
    g = _grouped(grad.to(task.wide), k.shape[2])
    maximum, total, output = _state(task, g)
    center = _divided(output, total)
    shift, divisor = _settled(maximum).unsqueeze(-1), _nonzero(total).unsqueeze(-1)
    d_rows = torch.zeros_like(task.rows)
    d_k = torch.empty(k.shape, dtype=k.dtype, device=k.device) if wanted[1] else k.new_empty(0)
    d_v = torch.empty(v.shape, dtype=v.dtype, device=v.device) if wanted[2] else v.new_empty(0)
    for a, e, keys, values, hidden in task.blocks():
        weights = task.scores(keys, hidden).sub_(shift).exp_().div_(divisor)
        if wanted[2]:
            d_v[:, a:e] = (weights.mT @ g).transpose(1, 2)
        if wanted[0] or wanted[1]:
            d_scores = weights * (g @ values.mT - center)
            d_rows += d_scores @ keys
            if wanted[1]:
                d_k[:, a:e] = (d_scores.mT @ task.scaled).transpose(1, 2)
    return (_ungrouped(d_rows * scale, q).to(q.dtype) if wanted[0] else q.new_empty(0)), d_k, d_v


def portable_split_decode(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """The same from the plainest operators, all scores at once: for exporters, and the peer of the tests.

    Differentiable by autograd; computes in the dtype of the operands. Time O(B T H S D), memory O(B T H S + B S G D).
    """
    B, T, H, D = q.shape
    S, G = k.shape[1:3]
    step = torch.arange(S, device=q.device)
    if lengths is not None:
        beyond = (step >= lengths.view(-1, 1)).view(B, S, 1, 1)
        k, v = k.masked_fill(beyond, 0), v.masked_fill(beyond, 0)
    query = (q * (D**-0.5 if scale is None else scale)).reshape(B, T, G, H // G, D).permute(0, 2, 3, 1, 4)
    scores = query @ k.permute(0, 2, 3, 1).unsqueeze(2)  # (B, G, H/G, T, S)
    visible = _visible(lengths, S, T, causal, q.device)
    if visible is None:
        weights = torch.softmax(scores, dim=-1)
    else:
        hidden = step >= visible.reshape(-1, 1, 1, visible.shape[-1], 1)
        # The lowest number instead of -inf: a row that sees nothing must not become NaN before it becomes zeros.
        scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
        weights = torch.softmax(scores, dim=-1).masked_fill(hidden, 0)
    output = weights @ v.permute(0, 2, 1, 3).unsqueeze(2)
    return output.permute(0, 3, 1, 2, 4).reshape(B, T, H, D)


class _Task:
    """Operands arranged for block products: all query rows of a key head together, (B, G, H/G T, D), scaled."""

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        lengths: Tensor | None,
        causal: bool,
        scale: float | None,
        block: int | None,
    ) -> None:
        B, T, H, D = q.shape
        self.k, self.v, self.lengths = k, v, lengths
        self.wide = torch.promote_types(q.dtype, torch.float32)
        self.rows = _grouped(q.to(self.wide), k.shape[2])
        self.scale = D**-0.5 if scale is None else scale
        self.scaled = self.rows * self.scale
        self.S, G = k.shape[1:3]
        self.block = block or max(_LEAST_KEYS, _BUDGET // max(B * H * T, B * G * D))
        visible = _visible(lengths, self.S, T, causal, q.device)
        self.visible = None
        if visible is not None:  # one limit a row, heads outermost as in the rows
            self.visible = visible.expand(-1, T).repeat(1, H // G).view(-1, 1, H // G * T, 1)

    def blocks(self) -> Iterator[tuple[int, int, Tensor, Tensor, Tensor | None]]:
        """First and end key; keys and values (B, G, keys, D), zeros beyond the lengths; what the rows do not see."""
        for a in range(0, self.S, self.block):
            e = min(a + self.block, self.S)
            keys, values, hidden = self.k[:, a:e].to(self.wide), self.v[:, a:e].to(self.wide), None
            step = torch.arange(a, e, device=self.k.device)
            if self.lengths is not None:
                # A weight of zero is not enough: whatever lies beyond the lengths may be NaN.
                beyond = (step >= self.lengths.view(-1, 1)).view(-1, e - a, 1, 1)
                keys, values = keys.masked_fill(beyond, 0), values.masked_fill(beyond, 0)
            if self.visible is not None:
                hidden = step >= self.visible
            yield a, e, keys.transpose(1, 2), values.transpose(1, 2), hidden

    def scores(self, keys: Tensor, hidden: Tensor | None) -> Tensor:
        """(B, G, rows, keys), -inf where hidden."""
        scores = self.scaled @ keys.mT
        return scores if hidden is None else scores.masked_fill_(hidden, -torch.inf)


def _state(task: _Task, grad: Tensor | None = None) -> State:
    """Maximum, total (B, G, rows) and output (B, G, rows, D), with a gradient its product with the output instead."""
    parts: list[State] = []
    for _, _, keys, values, hidden in task.blocks():
        scores = task.scores(keys, hidden)
        maximum = scores.amax(-1)
        weights = scores.sub_(_settled(maximum).unsqueeze(-1)).exp_()
        output = weights @ values if grad is None else (weights * (grad @ values.mT)).sum(-1, keepdim=True)
        parts = [merge_partials(*parts, (maximum, weights.sum(-1), output))]
    return parts[0]


def _settled(maximum: Tensor) -> Tensor:
    """The maximum, 0 where no key was seen: -inf less -inf would be NaN."""
    return torch.where(maximum == -torch.inf, torch.zeros_like(maximum), maximum)


def _divided(output: Tensor, total: Tensor) -> Tensor:
    """output / total, zeros where no key was seen."""
    return output / _nonzero(total).unsqueeze(-1)


def _nonzero(total: Tensor) -> Tensor:
    return torch.where(total == 0, torch.ones_like(total), total)


def _visible(lengths: Tensor | None, S: int, T: int, causal: bool, device: torch.device) -> Tensor | None:
    """How many keys each query sees, (B or 1, T or 1); None if all see all."""
    if lengths is None and not causal:
        return None
    limit = torch.full((1, 1), S, device=device) if lengths is None else lengths.clamp(0, S).view(-1, 1)
    return limit - T + 1 + torch.arange(T, device=device) if causal else limit


def _grouped(rows: Tensor, G: int) -> Tensor:
    """(B, T, H, D) -> (B, G, H/G T, D): all rows that share a key head."""
    B, T, H, D = rows.shape
    return rows.reshape(B, T, G, H // G, D).permute(0, 2, 3, 1, 4).reshape(B, G, H // G * T, D)


def _ungrouped(rows: Tensor, q: Tensor) -> Tensor:
    """(B, G, H/G T, ...) -> (B, T, H, ...), contiguous."""
    B, T, H = q.shape[:3]
    rest = rows.shape[3:]
    return rows.reshape(B, H, T, *rest).transpose(1, 2).contiguous()
