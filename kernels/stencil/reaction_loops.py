"""Compiled loops of one reaction-diffusion step and its gradient on tokens with their channels side by side, float32.

Everything that belongs to one position is done while its channels are in the registers: the Laplacians of all scales,
the gate, what is added, the norm, and the means for the next step. Items of a loop are rows of the batch's fields.
Gradients that all rows share are summed in float64, one slice a thread.
"""

from __future__ import annotations

import numpy as np

from core_attention.kernels._numba import compiled, inlined, sigmoid32

__all__ = ["advance", "diffuse", "gather", "retreat"]


@inlined
def _laplacian(u, b, y, x, d, row):
    """row = the 5-point Laplacian with arms of d pixels at one position, edges repeated beyond the border."""
    H, W = u.shape[1], u.shape[2]
    here, above, below = u[b, y, x], u[b, max(y - d, 0), x], u[b, min(y + d, H - 1), x]
    left, right = u[b, y, max(x - d, 0)], u[b, y, min(x + d, W - 1)]
    for c in range(len(row)):
        row[c] = above[c] + below[c] + left[c] + right[c] - np.float32(4.0) * here[c]


@inlined
def _diffuse(u, b, y, x, weights, arms, row):
    """row = sum_k weights[k] * Laplacian_k at one position."""
    H, W = u.shape[1], u.shape[2]
    here = u[b, y, x]
    for k in range(len(arms)):
        d, weight = arms[k], weights[k]
        above, below = u[b, max(y - d, 0), x], u[b, min(y + d, H - 1), x]
        left, right = u[b, y, max(x - d, 0)], u[b, y, min(x + d, W - 1)]
        if k == 0:
            for c in range(len(row)):
                row[c] = weight[c] * (above[c] + below[c] + left[c] + right[c] - np.float32(4.0) * here[c])
        else:
            for c in range(len(row)):
                row[c] += weight[c] * (above[c] + below[c] + left[c] + right[c] - np.float32(4.0) * here[c])


@inlined
def _open(z, at, factor, b, y, x, gate):
    """The factor of the diffusion at one position: sigmoid(z) from channel ``at`` on, or what was given."""
    if at >= 0:
        logits = z[b, y, x, at:]
        for c in range(len(gate)):
            gate[c] = sigmoid32(logits[c])
    else:
        given = factor[b % len(factor), y, x]
        for c in range(len(gate)):
            gate[c] = given[c]


@compiled
def diffuse(u, weights, arms, out, part, low, high):
    """out = sum_k weights[k] * Laplacian_k of u (B, H, W, C), nothing else."""
    H, W = u.shape[1], u.shape[2]
    for item in range(low, high):
        b, y = item // H, item % H
        for x in range(W):
            row = out[b, y, x]
            _diffuse(u, b, y, x, weights, arms, row)


@compiled
def advance(
    u,
    weights,
    arms,
    z,
    at,
    factor,
    push,
    low_y,
    share_y,
    low_x,
    share_x,
    source,
    norm,
    eps,
    carry,
    v,
    out,
    energy,
    mean,
    pooled,
    bins_y,
    bins_x,
    part,
    low,
    high,
):
    """One step of rows ``low`` to ``high``: v the state before the norm, out after it (the same array without one).
    With ``carry`` 0 what stands in v is the change alone.

    u (B, H, W, C); z (B, H, W, 3C) with the gate's logits from ``at`` on (-1: none); factor (1 or B, H, W, C) instead;
    push (B, P, P, C) read bilinearly; source as u; any of them empty. Fills energy (threads, B), the sums of |v - u|,
    mean (threads, B, C) and pooled (threads, B, P, P, C), sums of out over each row's and column's bins [first, last].
    """
    H, W, C = u.shape[1], u.shape[2], u.shape[3]
    change, gate, total = np.empty(C, np.float32), np.empty(C, np.float32), np.zeros(C, np.float32)
    pushed = np.empty((push.shape[1], C), np.float32)
    bins = np.zeros((pooled.shape[2], C), np.float32)
    one = np.float32(1.0)
    for item in range(low, high):
        b, y = item // H, item % H
        moved = 0.0
        total[:] = 0.0
        bins[:] = 0.0
        if len(push) > 0:
            first, second = push[b, low_y[y]], push[b, min(low_y[y] + 1, push.shape[1] - 1)]
            for q in range(len(pushed)):
                upper, lower, line = first[q], second[q], pushed[q]
                for c in range(len(line)):
                    line[c] = (one - share_y[y]) * upper[c] + share_y[y] * lower[c]
        for x in range(W):
            _diffuse(u, b, y, x, weights, arms, change)
            if at >= 0 or len(factor) > 0:
                _open(z, at, factor, b, y, x, gate)
                for c in range(len(change)):
                    change[c] *= gate[c]
            if len(push) > 0:
                before, after = pushed[low_x[x]], pushed[min(low_x[x] + 1, len(pushed) - 1)]
                share = share_x[x]
                for c in range(len(change)):
                    change[c] += (one - share) * before[c] + share * after[c]
            if len(source) > 0:
                added = source[b, y, x]
                for c in range(len(change)):
                    change[c] += added[c]
            here, state, new = u[b, y, x], v[b, y, x], out[b, y, x]
            size = np.float32(0.0)
            for c in range(len(change)):
                size += abs(change[c])
            moved += size
            if carry != np.float32(0.0):
                for c in range(len(change)):
                    change[c] += here[c]
            for c in range(len(change)):
                state[c] = change[c]
            if len(norm) > 0:
                square = np.float32(0.0)
                for c in range(len(change)):
                    square += change[c] * change[c]
                scale = np.float32(1.0) / np.sqrt(square / np.float32(C) + eps)
                for c in range(len(change)):
                    change[c] *= scale * norm[c]
                for c in range(len(change)):
                    new[c] = change[c]
            if mean.shape[2] > 0:
                for c in range(len(change)):
                    total[c] += change[c]
            for q in range(bins_x[x, 0], bins_x[x, 1] + 1):
                line = bins[q]
                for c in range(len(change)):
                    line[c] += change[c]
        energy[part, b] += moved
        if mean.shape[2] > 0:
            kept = mean[part, b]
            for c in range(len(kept)):
                kept[c] += total[c]
        for p in range(bins_y[y, 0], bins_y[y, 1] + 1):
            for q in range(len(bins)):
                kept, line = pooled[part, b, p, q], bins[q]
                for c in range(len(line)):
                    kept[c] += line[c]


@compiled
def retreat(
    grad,
    d_energy,
    d_mean,
    d_pooled,
    u,
    v,
    weights,
    arms,
    z,
    at,
    factor,
    norm,
    eps,
    carry,
    low_y,
    share_y,
    low_x,
    share_x,
    bins_y,
    bins_x,
    d_u,
    d_source,
    d_inner,
    d_gate,
    d_weights,
    d_push,
    d_norm,
    part,
    low,
    high,
):
    """The gradient of a step except for the arms of the Laplacian, which ``gather`` adds to d_u.

    grad, d_energy (B,), d_mean (B, C), d_pooled (B, P, P, C) are those of the results (of the sums' means), the last
    two perhaps empty. Fills d_u and d_source; d_inner = gate * d_source and d_gate (of the logits or of the factor)
    where there is a gate; and in float64, a slice a thread, d_weights (., K, C), d_push (., B, P, P, C), d_norm (., C).
    """
    H, W, C = u.shape[1], u.shape[2], u.shape[3]
    change, gate = np.empty(C, np.float32), np.empty(C, np.float32)
    g, lap = np.empty(C, np.float32), np.empty(C, np.float32)
    lines = np.zeros((len(arms), C), np.float32)
    pushed = np.zeros((d_push.shape[2], C), np.float32)
    scaled = np.zeros(C, np.float32)
    bins = np.zeros((d_pooled.shape[1], C), np.float32)
    one = np.float32(1.0)
    gated = at >= 0 or len(factor) > 0
    for item in range(low, high):
        b, y = item // H, item % H
        lines[:] = 0.0
        pushed[:] = 0.0
        scaled[:] = 0.0
        bins[:] = 0.0
        for p in range(bins_y[y, 0], bins_y[y, 1] + 1):
            for q in range(len(bins)):
                line, given = bins[q], d_pooled[b, p, q]
                for c in range(len(line)):
                    line[c] += given[c]
        for x in range(W):
            above = grad[b, y, x]
            here, state, d_here, d_added = u[b, y, x], v[b, y, x], d_u[b, y, x], d_source[b, y, x]
            for c in range(len(g)):
                g[c] = above[c]
            if len(d_mean) > 0:
                given = d_mean[b]
                for c in range(len(g)):
                    g[c] += given[c]
            for q in range(bins_x[x, 0], bins_x[x, 1] + 1):
                line = bins[q]
                for c in range(len(g)):
                    g[c] += line[c]
            if len(norm) > 0:
                square, along = np.float32(0.0), np.float32(0.0)
                for c in range(len(g)):
                    square += state[c] * state[c]
                    along += g[c] * norm[c] * state[c]
                scale = one / np.sqrt(square / np.float32(C) + eps)
                back = scale * scale * scale * along / np.float32(C)
                for c in range(len(g)):
                    scaled[c] += g[c] * state[c] * scale
                for c in range(len(g)):
                    g[c] = scale * g[c] * norm[c] - back * state[c]
            for c in range(len(g)):
                d_here[c] = carry * g[c]
            if d_energy[b] != np.float32(0.0):
                for c in range(len(g)):
                    moved = state[c] - carry * here[c]
                    g[c] += d_energy[b] * (one if moved > 0 else -one if moved < 0 else np.float32(0.0))
            for c in range(len(g)):
                d_added[c] = g[c]
            if len(pushed) > 0:
                before, after = pushed[low_x[x]], pushed[min(low_x[x] + 1, len(pushed) - 1)]
                share = share_x[x]
                for c in range(len(g)):
                    before[c] += (one - share) * g[c]
                for c in range(len(g)):
                    after[c] += share * g[c]
            if gated:
                _open(z, at, factor, b, y, x, gate)
                _diffuse(u, b, y, x, weights, arms, change)
                opened, d_open = d_inner[b, y, x], d_gate[b, y, x]
                if at >= 0:
                    for c in range(len(g)):
                        d_open[c] = g[c] * change[c] * gate[c] * (one - gate[c])
                else:
                    for c in range(len(g)):
                        d_open[c] = g[c] * change[c]
                for c in range(len(g)):
                    g[c] *= gate[c]
                for c in range(len(g)):
                    opened[c] = g[c]
            for k in range(len(arms)):
                _laplacian(u, b, y, x, arms[k], lap)
                line = lines[k]
                for c in range(len(g)):
                    line[c] += g[c] * lap[c]
        for k in range(len(arms)):
            kept, line = d_weights[part, k], lines[k]
            for c in range(len(line)):
                kept[c] += line[c]
        if len(norm) > 0:
            kept = d_norm[part]
            for c in range(len(kept)):
                kept[c] += scaled[c]
        if len(pushed) > 0:
            upper, lower = d_push[part, b, low_y[y]], d_push[part, b, min(low_y[y] + 1, len(pushed) - 1)]
            for q in range(len(pushed)):
                line, high_line, low_line = pushed[q], upper[q], lower[q]
                for c in range(len(line)):
                    high_line[c] += (one - share_y[y]) * line[c]
                for c in range(len(line)):
                    low_line[c] += share_y[y] * line[c]


@inlined
def _add(weight, given, target):
    for c in range(len(target)):
        target[c] += weight[c] * given[c]


@compiled
def gather(d_inner, weights, arms, d_u, part, low, high):
    """Add to d_u what the arms of the Laplacian give back: every pixel asks who saw it, the border's pixels also those
    whose arms ended beyond it.
    """
    H, W = d_u.shape[1], d_u.shape[2]
    for item in range(low, high):
        b, y = item // H, item % H
        for x in range(W):
            target, here = d_u[b, y, x], d_inner[b, y, x]
            for k in range(len(arms)):
                d, weight = arms[k], weights[k]
                if d <= y < H - d and d <= x < W - d:
                    above, below = d_inner[b, y - d, x], d_inner[b, y + d, x]
                    left, right = d_inner[b, y, x - d], d_inner[b, y, x + d]
                    for c in range(len(target)):
                        around = above[c] + below[c] + left[c] + right[c] - np.float32(4.0) * here[c]
                        target[c] += weight[c] * around
                else:
                    for c in range(len(target)):
                        target[c] -= np.float32(4.0) * weight[c] * here[c]
                    if y >= d:
                        _add(weight, d_inner[b, y - d, x], target)
                    if y < H - d:
                        _add(weight, d_inner[b, y + d, x], target)
                    if x >= d:
                        _add(weight, d_inner[b, y, x - d], target)
                    if x < W - d:
                        _add(weight, d_inner[b, y, x + d], target)
                    if y == 0:
                        for j in range(min(d, H)):
                            _add(weight, d_inner[b, j, x], target)
                    if y == H - 1:
                        for j in range(max(H - d, 0), H):
                            _add(weight, d_inner[b, j, x], target)
                    if x == 0:
                        for j in range(min(d, W)):
                            _add(weight, d_inner[b, y, j], target)
                    if x == W - 1:
                        for j in range(max(W - d, 0), W):
                            _add(weight, d_inner[b, y, j], target)
