"""Vectorised torch: a block of chunks at a time, so that the scores of a chunk never leave the cache.

Causal: inside a chunk masked scores times values, between chunks a state of D x (Dv + 1); the last column, there only
with a normaliser, is the state of ones. A block holds as many chunks as fill 4 MiB a tensor. The backward pass keeps
the state at each block's start and computes everything else again. Sums are float32 (float64 for float64 operands).

There is no ``cpu.py``: a numba loop of the same chunks took 0.65 to 1 times eager's time (one thread, T 16,384, 8
heads, D 64), and the house asks for half.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from core_attention.kernels.linear_scan._decays import CHUNK, TINY, log_sums, through_log, within_chunks

__all__ = ["linear_scan", "linear_scan_backward", "portable_linear_scan"]

_BLOCK = 1 << 20  # elements of a block's operand


class _Weights(NamedTuple):
    """What decay leaves of a key at a query of its chunk, of the state at a token, of a token at the chunk's end."""

    pairs: Tensor  # (..., C, C), zero above the diagonal
    head: Tensor  # (..., C, 1)
    tail: Tensor  # (..., C, 1)
    total: Tensor  # (..., 1, 1)


def _weights(sums: Tensor, dtype: torch.dtype) -> _Weights:
    """From sums of logarithms (..., C). A difference is taken of the rounded sums and of what rounding left apart."""
    high = sums.to(dtype)
    low = (sums - high).to(dtype)
    later = torch.ones(sums.shape[-1], sums.shape[-1], dtype=torch.bool, device=sums.device).triu(1)
    gaps = (high.unsqueeze(-1) - high.unsqueeze(-2)) + (low.unsqueeze(-1) - low.unsqueeze(-2))
    return _Weights(
        pairs=gaps.masked_fill(later, float("-inf")).exp(),
        head=sums.exp().to(dtype).unsqueeze(-1),
        tail=(sums[..., -1:] - sums).exp().to(dtype).unsqueeze(-1),
        total=sums[..., -1:].exp().to(dtype).unsqueeze(-1),
    )


class _Blocks:
    """Cuts operands into blocks of whole chunks, heads first, padded with zeros."""

    def __init__(self, q: Tensor, v: Tensor, decay: Tensor | None, normalise: bool, causal: bool) -> None:
        self.B, self.T, self.H, self.D = q.shape
        self.E, self.normalise, self.causal = v.shape[-1] + normalise, normalise, causal
        self.dtype = torch.promote_types(q.dtype, torch.float32)
        tokens = max(1, _BLOCK // (self.B * self.H * max(self.D, self.E)))
        self.C = min(CHUNK, self.T) if causal else min(tokens, self.T)
        self.step = self.C * max(1, tokens // self.C)
        self.decay = None if decay is None else decay.expand(self.B, self.T, self.H)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for start in range(0, self.T, self.step):
            yield start, min(self.T, start + self.step)

    def ranges(self) -> list[tuple[int, int]]:
        """First and end token of every block."""
        return list(self)

    def zeros(self, like: Tensor) -> Tensor:
        """A state of zeros, (B H, D, E)."""
        return like.new_zeros((self.B * self.H, self.D, self.E), dtype=self.dtype)

    def state(self, given: Tensor | None, like: Tensor) -> Tensor:
        """A copy of a state (B, H, D, E) with heads and batch in one."""
        return self.zeros(like) if given is None else given.reshape(-1, self.D, self.E).to(self.dtype, copy=True)

    def take(self, x: Tensor, start: int, stop: int, *, ones: bool = False) -> Tensor:
        """(B, T, H, W) -> (B H, n, C, W) for tokens start to stop; with ``ones`` one more column, of ones."""
        length = stop - start
        chunks, width = -(-length // self.C), x.shape[-1]
        shape = (self.B, self.H, chunks * self.C, width + ones)
        padded = chunks * self.C > length
        made = (x.new_zeros if padded else x.new_empty)(shape, dtype=self.dtype)
        made[:, :, :length, :width] = x[:, start:stop].transpose(1, 2)
        if ones:
            made[:, :, :length, width] = 1.0
        return made.view(self.B * self.H, chunks, self.C, width + ones)

    def put(self, target: Tensor, block: Tensor, start: int, stop: int) -> None:
        """Write a block (B H, n, C, W) back into (B, T, H, W), rounding once."""
        rows = block.reshape(self.B, self.H, -1, block.shape[-1])[:, :, : stop - start, : target.shape[-1]]
        target[:, start:stop] = rows.transpose(1, 2)

    def weights(self, start: int, stop: int) -> _Weights | None:
        """The decays of a block, (B H, n, ...)."""
        if self.decay is None:
            return None
        sums = log_sums(self.decay[:, start:stop], self.C)
        return _weights(sums.permute(0, 3, 1, 2).reshape(self.B * self.H, -1, self.C), self.dtype)


def _masked(scores: Tensor, w: _Weights | None) -> Tensor:
    """Scores (..., C, C) in place: zero above the diagonal, decayed below."""
    return scores.tril_() if w is None else scores.mul_(w.pairs)


def _scaled(x: Tensor, weight: Tensor | None) -> Tensor:
    return x if weight is None else x * weight


def _states(x: Tensor, y: Tensor, w: _Weights | None, state: Tensor, *, back: bool = False) -> tuple[Tensor, Tensor]:
    """The state before every chunk (its gradient after every chunk, going back), and the one that remains.

    x (G, n, C, D), y (G, n, C, E), state (G, D, E), which is used up -> (G, n, D, E), (G, D, E).
    """
    weight = None if w is None else (w.head if back else w.tail)
    added = _scaled(x, weight).mT @ y
    kept = torch.empty_like(added)
    order = range(added.shape[1])
    for i in reversed(order) if back else order:
        kept[:, i] = state
        if w is not None:
            state = state.mul_(w.total[:, i])
        state = state.add_(added[:, i])
    return kept, state


def _outputs(q: Tensor, k: Tensor, v: Tensor, w: _Weights | None, states: Tensor) -> Tensor:
    out = _masked(q @ k.mT, w) @ v
    return out.add_(_scaled(q, None if w is None else w.head) @ states)


def _divided(out: Tensor, eps: float) -> Tensor:
    """Numerators by the last column; zeros where that is zero."""
    denominator = out[..., -1:] + eps
    present = denominator.abs() > TINY
    return torch.where(present, out[..., :-1] / torch.where(present, denominator, 1.0), 0.0)


def _undivided(grad: Tensor, out: Tensor, eps: float) -> Tensor:
    """The gradient of numerators and denominator from that of their ratio."""
    denominator = out[..., -1:] + eps
    present = denominator.abs() > TINY
    above = torch.where(present, grad / torch.where(present, denominator, 1.0), 0.0)
    below = -(above * _divided(out, eps)).sum(-1, keepdim=True)
    return torch.cat([above, below], dim=-1)


def linear_scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None = None,
    initial_state: Tensor | None = None,
    *,
    normalise: bool = False,
    causal: bool = True,
    eps: float = 0.0,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """q, k (B, T, H, D), v (B, T, H, Dv) -> (B, T, H, Dv), and the last state (B, H, D, E), E = Dv or Dv + 1.

    Time O(B T H (C (D + E) + D E)); memory beyond the results: some blocks of 4 MiB and one state.
    """
    blocks = _Blocks(q, v, decay, normalise, causal)
    out = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    state = blocks.state(initial_state, q)
    if not causal:
        state = _total(k, v, blocks, state)
    for start, stop in blocks:
        query = blocks.take(q, start, stop)
        if causal:
            key, value = blocks.take(k, start, stop), blocks.take(v, start, stop, ones=normalise)
            w = blocks.weights(start, stop)
            states, state = _states(key, value, w, state)
            rows = _outputs(query, key, value, w, states)
        else:
            rows = query @ state.unsqueeze(1)
        blocks.put(out, _divided(rows, eps) if normalise else rows, start, stop)
    return (out, state.view(blocks.B, blocks.H, blocks.D, blocks.E)) if return_last_state else out


def _total(k: Tensor, v: Tensor, blocks: _Blocks, state: Tensor) -> Tensor:
    """The state after all tokens when none decays."""
    for start, stop in blocks:
        key, value = blocks.take(k, start, stop), blocks.take(v, start, stop, ones=blocks.normalise)
        state = state.add_((key.mT @ value).sum(1))
    return state


def linear_scan_backward(
    grad: Tensor,
    grad_state: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    initial_state: Tensor | None,
    to_decay: bool,
    *,
    normalise: bool,
    causal: bool,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """Gradients of q, k, v, decay (None unless asked for) and initial_state, from the output's and the last state's.

    Time as three forward passes; memory beyond the results: a state a block of 4 MiB, and some blocks.
    """
    blocks = _Blocks(q, v, decay, normalise, causal)
    made = tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    back = blocks.state(grad_state, q)
    if not causal:
        back = _backward_whole(grad, q, k, v, blocks, blocks.state(initial_state, q), back, made, eps)
        return *made, None, back.view(blocks.B, blocks.H, blocks.D, blocks.E)
    starts, state = [], blocks.state(initial_state, q)
    for start, stop in blocks:
        starts.append(state.clone())
        key, value = blocks.take(k, start, stop), blocks.take(v, start, stop, ones=normalise)
        _, state = _states(key, value, blocks.weights(start, stop), state)
    d_log = torch.empty((blocks.B, blocks.T, blocks.H, 1), dtype=blocks.dtype, device=q.device) if to_decay else None
    for (start, stop), state in zip(reversed(blocks.ranges()), reversed(starts), strict=True):
        query, key = blocks.take(q, start, stop), blocks.take(k, start, stop)
        value, g = blocks.take(v, start, stop, ones=normalise), blocks.take(grad, start, stop)
        w = blocks.weights(start, stop)
        states, _ = _states(key, value, w, state)
        if normalise:
            g = _undivided(g, _outputs(query, key, value, w, states), eps)
        *found, logs, back = _backward_block(query, key, value, g, w, states, back, to_decay)
        for target, block in zip(made, found, strict=True):
            blocks.put(target, block, start, stop)
        if d_log is not None and logs is not None:
            blocks.put(d_log, logs.unsqueeze(-1), start, stop)
    d_decay = None if d_log is None or decay is None else through_log(d_log.squeeze(-1), decay)
    return *made, d_decay, back.view(blocks.B, blocks.H, blocks.D, blocks.E)


def _backward_block(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, w: _Weights | None, states: Tensor, back: Tensor, to_decay: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """Gradients of a block and of the state before it; ``states`` are those before every chunk, ``back`` follows it."""
    after, back = _states(q, g, w, back, back=True)
    head, tail = (None, None) if w is None else (w.head, w.tail)
    scores, d_scores = _masked(q @ k.mT, w), g @ v.mT
    d_v = (scores.mT @ g).add_(_scaled(k, tail) @ after)
    from_state = _scaled(g @ states.mT, head)
    from_after = _scaled(v @ after.mT, tail)
    logs = None
    if to_decay and w is not None:
        across = w.total.squeeze(-1) * (after * states).sum((-1, -2)).unsqueeze(-1)
        rows, columns = (q * from_state).sum(-1), (k * from_after).sum(-1)
        inside = (scores * d_scores).cumsum(-1).tril_(-1).sum(-2)  # of the keys up to one, by the queries after it
        logs = within_chunks(inside, rows, columns, across, -1)
    d_scores = _masked(d_scores, w)
    return from_state.add_(d_scores @ k), from_after.add_(d_scores.mT @ q), d_v, logs, back


def _backward_whole(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    blocks: _Blocks,
    state: Tensor,
    back: Tensor,
    made: tuple[Tensor, ...],
    eps: float,
) -> Tensor:
    """The same where every row reads the final state; returns the gradient of that state, also the initial one's."""
    d_q, d_k, d_v = made
    state = _total(k, v, blocks, state).unsqueeze(1)
    for start, stop in blocks:
        query, g = blocks.take(q, start, stop), blocks.take(grad, start, stop)
        if blocks.normalise:
            g = _undivided(g, query @ state, eps)
        blocks.put(d_q, g @ state.mT, start, stop)
        back = back.add_((query.mT @ g).sum(1))
    for start, stop in blocks:
        key, value = blocks.take(k, start, stop), blocks.take(v, start, stop, ones=blocks.normalise)
        blocks.put(d_k, value @ back.unsqueeze(1).mT, start, stop)
        blocks.put(d_v, key @ back.unsqueeze(1), start, stop)
    return back


def portable_linear_scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None = None,
    initial_state: Tensor | None = None,
    *,
    normalise: bool = False,
    causal: bool = True,
    eps: float = 0.0,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The same from plain operators in the operands' dtype, all chunks at once: for exporters, and as a peer.

    Differentiable by autograd. Memory O(B H (T C + T/C D Dv)).
    """
    dtype, (B, T, H, D) = q.dtype, q.shape
    if normalise:
        v = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)
    E = v.shape[-1]
    C = min(CHUNK, T) if causal else T
    padding = (0, 0, 0, 0, 0, -T % C)
    q, k, v = (F.pad(x, padding).unflatten(1, (-1, C)).permute(0, 3, 1, 2, 4) for x in (q, k, v))  # B, H, N, C, width
    state = q.new_zeros((B, H, D, E)) if initial_state is None else initial_state.to(dtype)
    if causal:
        w = None if decay is None else _weights(log_sums(decay.expand(B, T, H), C).permute(0, 3, 1, 2), dtype)
        added = (k if w is None else k * w.tail).mT @ v
        states = []
        for i in range(added.shape[2]):
            states.append(state)
            state = (state if w is None else state * w.total[:, :, i]) + added[:, :, i]
        scores = (q @ k.mT).tril() if w is None else (q @ k.mT) * w.pairs
        out = scores @ v + (q if w is None else q * w.head) @ torch.stack(states, dim=2)
    else:
        state = state + (k.mT @ v)[:, :, 0]
        out = q @ state.unsqueeze(2)
    out = out.permute(0, 2, 3, 1, 4).flatten(1, 2)[:, :T]
    out = (_divided(out, eps) if normalise else out).contiguous()
    return (out, state.to(torch.promote_types(dtype, torch.float32))) if return_last_state else out
