"""The selective scan compiled for the CPU: eight channels side by side in vector registers, states in the L1 cache.

Eight channels (a tile) take 64 steps (a chunk) at a time: their inputs are turned so that a step's eight numbers are
neighbours, then a step is, for each state, one exponential and two fused multiply-adds, with B and C spread over the
tile. The backward pass recomputes a chunk's states from the saved one. Gradients of B and C, sums over channels, stay
eight numbers wide until a run of tiles is done with the chunk.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from core_attention.kernels._lanes import exp_held, fma, load, sigmoid, softplus, splat, spread, store, total
from core_attention.kernels._numba import array, compiled, inlined, ranges, run
from core_attention.kernels.selective_scan.eager import CHUNK

__all__ = ["selective_scan", "selective_scan_backward"]

_TILE = 8
_RUN = 64  # channels of one group of one sample that a thread takes together
_NONE = (0, 0, 0)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    delta_softplus: bool,
    saving: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Scan with B and C (B, G, N, L); returns out (B, D, L), last state (B, D, N), saved states (chunks, B, D, N).

    Memory beyond the results: B and C once more, half-width operands in float32, and some kilobytes a thread.
    """
    rows, channels, length = u.shape
    states = A.shape[1]
    out = u.new_empty(u.shape, dtype=torch.float32)
    last = out.new_empty((rows, channels, states))
    saved = out.new_empty((-(-length // CHUNK) if saving else 0, rows, channels, states))
    runs = _runs(rows, channels, B.shape[1], C.shape[1])
    parts = ranges(len(runs))
    scratch = out.new_empty((len(parts), _TILE * (2 * states + 4 * CHUNK)))
    start = out.new_empty(_NONE) if initial_state is None else initial_state
    operands = _arrays(u, delta, A, B, C, D, z, delta_bias, start)
    results = (array(tensor) for tensor in (out, last, saved, scratch))
    run(_scan, parts, runs, *operands, delta_softplus, *results)
    return out.to(u.dtype), last, saved if saving else out.new_empty(0)


def selective_scan_backward(
    grad: Tensor,
    grad_state: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    saved: Tensor,
    delta_softplus: bool,
) -> dict[str, Tensor]:
    """Gradients of all operands by name, in float32.

    Memory beyond the results: B and C once more, for each thread their gradients, and 256 states of eight channels.
    """
    rows, channels, length = u.shape
    states = A.shape[1]
    runs = _runs(rows, channels, B.shape[1], C.shape[1])
    parts = ranges(len(runs))
    wide = saved.new_empty
    d_u, d_delta, d_z = wide(u.shape), wide(u.shape), wide(_NONE if z is None else u.shape)
    d_start, d_A = wide((rows, channels, states)), saved.new_zeros((rows, channels, states))
    d_D, d_bias = saved.new_zeros((rows, channels)), saved.new_zeros((rows, channels))
    d_B = saved.new_zeros((len(parts), rows, B.shape[1], length, states))
    d_C = saved.new_zeros((len(parts), rows, C.shape[1], length, states))
    per_tile, per_chunk = 2 * states, 4 * CHUNK * states + 2 * states + 7 * CHUNK
    scratch = wide((len(parts), _TILE * (_RUN // _TILE * per_tile + per_chunk)))
    operands = _arrays(u, delta, A, B, C, D, z, delta_bias, grad_state)
    given = (array(_wide(tensor)) for tensor in (grad, saved))
    results = (array(t) for t in (d_u, d_delta, d_z, d_A, d_D, d_bias, d_start, d_B, d_C, scratch))
    run(_scan_gradient, parts, runs, *operands, delta_softplus, *given, *results)
    found = {"u": d_u, "delta": d_delta, "z": d_z, "A": d_A.sum(0), "initial_state": d_start}
    found |= {"B": d_B.sum(0).transpose(2, 3), "C": d_C.sum(0).transpose(2, 3)}
    return found | {"D": d_D.sum(0), "delta_bias": d_bias.sum(0)}


def _runs(rows: int, channels: int, groups_B: int, groups_C: int) -> np.ndarray:
    """Pieces of work: sample, first and end channel, group of B, group of C; no piece crosses a group."""
    per_B, per_C = channels // groups_B, channels // groups_C
    edges = sorted({*range(0, channels, per_B), *range(0, channels, per_C), channels})
    pieces = [
        (first, min(first + _RUN, end), low // per_B, low // per_C)
        for low, end in itertools.pairwise(edges)
        for first in range(low, end, _RUN)
    ]
    return np.array([(b, *piece) for b in range(rows) for piece in pieces], dtype=np.int64)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.detach().float().contiguous()


def _arrays(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    state: Tensor,
) -> list[np.ndarray]:
    """Operands as the loops take them: float32, B and C with the states last, an empty array for what is left out."""
    none = torch.empty(0)
    tensors = (
        u,
        delta,
        A,
        B.transpose(2, 3),
        C.transpose(2, 3),
        none if D is None else D,
        none.view(_NONE) if z is None else z,
        none if delta_bias is None else delta_bias,
        state,
    )
    return [array(_wide(tensor)) for tensor in tensors]


@inlined
def _turn_in(rows, tile, first, end):
    """Rows (8 or fewer, L) from first to end into tile[8 t + row]; missing rows are zeros."""
    for j in range(8):
        if j < len(rows):
            row = rows[j, first:end]
            for t in range(len(row)):
                tile[8 * t + j] = row[t]
        else:
            for t in range(end - first):
                tile[8 * t + j] = np.float32(0.0)


@inlined
def _turn_out(tile, rows, first, end):
    """The reverse of ``_turn_in``."""
    for j in range(len(rows)):
        row = rows[j, first:end]
        for t in range(len(row)):
            row[t] = tile[8 * t + j]


@inlined
def _column(numbers, first, end, tile):
    """Eight numbers of a parameter, zeros if it is left out or has no more."""
    for j in range(8):
        tile[j] = numbers[first + j] if j < end - first and numbers.size else np.float32(0.0)


@inlined
def _turn_states(rows, tile):
    """(8 or fewer, N) into tile[8 n + row]."""
    for n in range(rows.shape[1]):
        for j in range(8):
            tile[8 * n + j] = rows[j, n] if j < len(rows) else np.float32(0.0)


@inlined
def _keep_states(tile, rows):
    for n in range(rows.shape[1]):
        for j in range(len(rows)):
            rows[j, n] = tile[8 * n + j]


@inlined
def _step_size(raw, is_softplus):
    return softplus(raw) if is_softplus else raw


@compiled
def _scan(runs, u, delta, A, B, C, D, z, bias, start, is_softplus, out, last, saved, scratch, part, low, high):
    length, states = u.shape[2], A.shape[1]
    mine = scratch[part]
    rates, h = mine[: 8 * states], mine[8 * states : 16 * states]
    tiles = mine[16 * states :]
    xs, ss, zs, ys = tiles[:512], tiles[512:1024], tiles[1024:1536], tiles[1536:2048]
    eight = np.zeros(16, np.float32)
    for number in range(low, high):
        b, first_channel, end_channel = runs[number, 0], runs[number, 1], runs[number, 2]
        inward, outward = B[b, runs[number, 3]].reshape(-1), C[b, runs[number, 4]].reshape(-1)
        for d in range(first_channel, end_channel, 8):
            end = min(d + 8, end_channel)
            _turn_states(A[d:end], rates)
            h[:] = np.float32(0.0)
            if start.size:
                _turn_states(start[b, d:end], h)
            _column(D, d, end, eight)
            _column(bias, d, end, eight[8:])
            direct, shift = load(eight, 0), load(eight, 8)
            for first in range(0, length, 64):
                stop = min(first + 64, length)
                if saved.shape[0]:
                    _keep_states(h, saved[first // 64, b, d:end])
                _turn_in(u[b, d:end], xs, first, stop)
                _turn_in(delta[b, d:end], ss, first, stop)
                if z.size:
                    _turn_in(z[b, d:end], zs, first, stop)
                for t in range(stop - first):
                    value = load(xs, 8 * t)
                    now = _step_size(load(ss, 8 * t) + shift, is_softplus)
                    entering = value * now
                    y = direct * value
                    at = (first + t) * states
                    for n in range(states):
                        a = exp_held(now * load(rates, 8 * n))
                        new = fma(a, load(h, 8 * n), entering * spread(inward, at + n))
                        store(h, 8 * n, new)
                        y = fma(new, spread(outward, at + n), y)
                    if z.size:
                        gate = load(zs, 8 * t)
                        y = y * (gate * sigmoid(gate))
                    store(ys, 8 * t, y)
                _turn_out(ys, out[b, d:end], first, stop)
            _keep_states(h, last[b, d:end])


@inlined
def _chunk_states(xs, ss, rates, inward, outward, at, states, a, h, ys):
    """Decays and states of a chunk of a tile, from the state in h[0]; ys gets what is read from them."""
    for t in range(len(ss) // 8):
        now = load(ss, 8 * t)
        entering = load(xs, 8 * t) * now
        y = splat(np.float32(0.0))
        for n in range(states):
            here = 8 * (t * states + n)
            decay = exp_held(now * load(rates, 8 * n))
            new = fma(decay, load(h, here), entering * spread(inward, at + t * states + n))
            store(a, here, decay)
            store(h, here + 8 * states, new)
            y = fma(new, spread(outward, at + t * states + n), y)
        store(ys, 8 * t, y)


@inlined
def _reverse_chunk(
    xs, ss, dys, slopes, rates, inward, outward, at, states, a, h, g, sums_A, sums_B, sums_C, direct, dxs, dss
):
    """The recurrence backwards through a chunk of a tile; g comes in as a_{t+1} dL/dh_{t+1} and leaves so."""
    for back in range(len(ss) // 8):
        t = len(ss) // 8 - 1 - back
        now, value, grad = load(ss, 8 * t), load(xs, 8 * t), load(dys, 8 * t)
        entering = value * now
        entered, through = splat(np.float32(0.0)), splat(np.float32(0.0))
        for n in range(states):
            here = 8 * (t * states + n)
            whole = fma(grad, spread(outward, at + t * states + n), load(g, 8 * n))
            store(sums_C, here, fma(grad, load(h, here + 8 * states), load(sums_C, here)))
            store(sums_B, here, fma(whole, entering, load(sums_B, here)))
            entered = fma(whole, spread(inward, at + t * states + n), entered)
            whole = whole * load(a, here)
            store(g, 8 * n, whole)
            past = whole * load(h, here)
            through = fma(past, load(rates, 8 * n), through)
            store(sums_A, 8 * n, fma(past, now, load(sums_A, 8 * n)))
        store(dxs, 8 * t, fma(entered, now, direct * grad))
        store(dss, 8 * t, fma(entered, value, through) * load(slopes, 8 * t))


@inlined
def _prepare(xs, ss, slopes, shift, is_softplus):
    """From raw step sizes to step sizes, in place, and their slopes."""
    for t in range(len(ss) // 8):
        raw = load(ss, 8 * t) + shift
        store(slopes, 8 * t, sigmoid(raw) if is_softplus else splat(np.float32(1.0)))
        store(ss, 8 * t, _step_size(raw, is_softplus))


@inlined
def _through_gate(xs, dys, zs, ys, direct):
    """From the gradient of y silu(z), in dys and with y less D u in ys, to those of y (in dys) and of z (in zs)."""
    one = splat(np.float32(1.0))
    for t in range(len(dys) // 8):
        grad, gate = load(dys, 8 * t), load(zs, 8 * t)
        opened = sigmoid(gate)
        y = fma(direct, load(xs, 8 * t), load(ys, 8 * t))
        store(dys, 8 * t, grad * (gate * opened))
        store(zs, 8 * t, grad * y * (opened * fma(gate, one - opened, one)))


@inlined
def _add_products(left, right, rows):
    """rows[j] += the sum over t of left[8 t + j] right[8 t + j], in eight interleaved sums, to round less."""
    parts = np.zeros(64, np.float32)
    for t in range(len(left) // 8):
        place = 8 * (t % 8)
        store(parts, place, fma(load(left, 8 * t), load(right, 8 * t), load(parts, place)))
    for j in range(len(rows)):
        sums = np.float32(0.0)
        for i in range(8):
            sums += parts[8 * i + j]
        rows[j] += sums


@inlined
def _hand_over(sums, target):
    """Add up the eight channels of every step and state."""
    for i in range(target.size):
        target[i] += total(load(sums, 8 * i))


@compiled
def _scan_gradient(
    runs, u, delta, A, B, C, D, z, bias, grad_state, is_softplus, grad, saved, d_u, d_delta, d_z, d_A, d_D, d_bias,
    d_start, d_B, d_C, scratch, part, low, high,
):  # fmt: skip
    length, states = u.shape[2], A.shape[1]
    of_tile, of_chunk = 8 * states, 8 * 64 * states  # numbers of a tile's states, and of a chunk of them
    mine = scratch[part]
    tiles = mine[: 8 * 2 * of_tile]  # for each of at most eight tiles: rates, g
    rest = mine[8 * 2 * of_tile + of_tile :]
    a, h = rest[:of_chunk], rest[of_chunk : 2 * of_chunk + of_tile]
    sums_B, sums_C = rest[2 * of_chunk + of_tile :][:of_chunk], rest[3 * of_chunk + of_tile :][:of_chunk]
    rest = rest[4 * of_chunk + of_tile :]
    sums_A, ones = mine[8 * 2 * of_tile :][:of_tile], np.ones(512, np.float32)
    eight = np.zeros(16, np.float32)
    for number in range(low, high):
        b, first_channel, end_channel = runs[number, 0], runs[number, 1], runs[number, 2]
        inward, outward = B[b, runs[number, 3]].reshape(-1), C[b, runs[number, 4]].reshape(-1)
        to_B, to_C = d_B[part, b, runs[number, 3]], d_C[part, b, runs[number, 4]]
        for d in range(first_channel, end_channel, 8):
            tile, end = tiles[2 * ((d - first_channel) // 8) * of_tile :], min(d + 8, end_channel)
            _turn_states(A[d:end], tile)
            _turn_states(grad_state[b, d:end], tile[of_tile:])
        for chunk in range((length - 1) // 64, -1, -1):
            first, stop = 64 * chunk, min(64 * chunk + 64, length)
            size, at = 8 * (stop - first), first * states
            xs, ss, zs, ys = rest[:size], rest[512:][:size], rest[1024:][:size], rest[1536:][:size]
            dys, slopes, dxs = rest[2048:][:size], rest[2560:][:size], rest[3072:][:size]
            sums_B[:] = np.float32(0.0)
            sums_C[:] = np.float32(0.0)
            for d in range(first_channel, end_channel, 8):
                tile, end = tiles[2 * ((d - first_channel) // 8) * of_tile :], min(d + 8, end_channel)
                rates, g = tile[:of_tile], tile[of_tile:][:of_tile]
                _column(D, d, end, eight)
                _column(bias, d, end, eight[8:])
                direct, shift = load(eight, 0), load(eight, 8)
                _turn_in(u[b, d:end], xs, first, stop)
                _turn_in(delta[b, d:end], ss, first, stop)
                _turn_in(grad[b, d:end], dys, first, stop)
                _prepare(xs, ss, slopes, shift, is_softplus)
                _turn_states(saved[chunk, b, d:end], h)
                _chunk_states(xs, ss, rates, inward, outward, at, states, a, h, ys)
                if z.size:
                    _turn_in(z[b, d:end], zs, first, stop)
                    _through_gate(xs, dys, zs, ys, direct)
                    _turn_out(zs, d_z[b, d:end], first, stop)
                _add_products(dys, xs, d_D[b, d:end])
                sums_A[:] = np.float32(0.0)
                dss = ys  # no longer needed
                _reverse_chunk(
                    xs, ss, dys, slopes, rates, inward, outward, at, states, a, h, g, sums_A, sums_B, sums_C,
                    direct, dxs, dss,
                )  # fmt: skip
                _add_products(dss, ones, d_bias[b, d:end])
                for n in range(states):
                    for j in range(end - d):
                        d_A[b, d + j, n] += sums_A[8 * n + j]
                _turn_out(dxs, d_u[b, d:end], first, stop)
                _turn_out(dss, d_delta[b, d:end], first, stop)
            _hand_over(sums_B, to_B[first:stop].reshape(-1))
            _hand_over(sums_C, to_C[first:stop].reshape(-1))
        for d in range(first_channel, end_channel, 8):
            tile, end = tiles[2 * ((d - first_channel) // 8) * of_tile :], min(d + 8, end_channel)
            _keep_states(tile[of_tile:], d_start[b, d:end])
