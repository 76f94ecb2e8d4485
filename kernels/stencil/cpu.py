"""Compiled loops of the diffusion steps and their gradient, in float32: all steps of one plane before the next.

A plane of 256 x 256 stays in the second cache, so memory is read and written once a call and not once a step. Planes
lie in buffers with a border as wide as the longest arm; filling the border first leaves rows without special cases.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from core_attention.kernels._numba import array, compiled, inlined, ranges, run

__all__ = ["stencil", "stencil_backward"]

_CODES = {"zeros": 0, "reflect": 1, "replicate": 2, "circular": 3}


def stencil(
    u: Tensor,
    coefficients: Tensor,
    source: Tensor | None = None,
    gate: Tensor | None = None,
    dilations: Sequence[int] = (1,),
    steps: int = 1,
    boundary: str = "replicate",
) -> Tensor:
    """Diffuse for some steps. u (B, C, H, W), coefficients (K, C), source and gate as u or None -> as u.

    Time O(steps K B C H W), memory two bordered planes a thread.
    """
    B, C, H, W = u.shape
    reach, parts = max(dilations), ranges(B * C)
    out = torch.empty((B * C, H, W))
    # NumPy fills in this thread: torch's would spin on for a while where the loops below want to run.
    buffers = torch.from_numpy(np.zeros((len(parts), 2, H + 2 * reach, W + 2 * reach), np.float32))
    rows = torch.empty((len(parts), W))
    arguments = (_planes(u), _numbers(coefficients), _planes(source), _planes(gate), out, buffers, rows)
    options = (np.array(dilations, np.int64), steps, _CODES[boundary])
    run(_diffuse, parts, *(array(tensor) for tensor in arguments), *options)
    return out.view(B, C, H, W).to(u.dtype)


def stencil_backward(
    grad: Tensor,
    u: Tensor,
    coefficients: Tensor,
    source: Tensor | None,
    gate: Tensor | None,
    dilations: Sequence[int],
    steps: int,
    boundary: str,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients of u, coefficients, source and gate; the states are recomputed, ``steps + 1`` planes a thread."""
    B, C, H, W = u.shape
    reach, parts, K = max(dilations), ranges(B * C), len(dilations)
    d_u, d_coefficients = torch.empty((B * C, H, W)), torch.empty((B * C, K), dtype=torch.float64)
    d_source, d_gate = (torch.zeros((0 if tensor is None else B * C, H, W)) for tensor in (source, gate))
    buffers = torch.from_numpy(np.zeros((len(parts), steps + 1, H + 2 * reach, W + 2 * reach), np.float32))
    rows = torch.empty((len(parts), 2, W))
    operands = (_planes(grad), _planes(u), _numbers(coefficients), _planes(source), _planes(gate))
    results = (d_u, d_coefficients, d_source, d_gate, buffers, rows)
    options = (np.array(dilations, np.int64), steps, _CODES[boundary])
    run(_differentiate, parts, *(array(tensor) for tensor in (*operands, *results)), *options)
    return (
        d_u.view(u.shape).to(u.dtype),
        d_coefficients.view(B, C, K).sum(0).T.to(u.dtype).contiguous(),
        None if source is None else d_source.view(u.shape).to(u.dtype),
        None if gate is None else d_gate.view(u.shape).to(u.dtype),
    )


def _planes(tensor: Tensor | None) -> Tensor:
    """(B C, H, W), float32, contiguous; without planes for a tensor left out."""
    if tensor is None:
        return torch.empty((0, 1, 1))
    return tensor.detach().float().contiguous().view(-1, *tensor.shape[2:])


def _numbers(coefficients: Tensor) -> Tensor:
    """(C, K), float32, contiguous."""
    return coefficients.detach().float().T.contiguous()


@inlined
def _seen(i, n, code):
    """The index within [0, n) that shows at index i beyond the border, or -1 where zeros lie."""
    if code == 0:
        return -1
    if code == 1:
        return -i if i < 0 else 2 * (n - 1) - i
    if code == 2:
        return 0 if i < 0 else n - 1
    return i + n if i < 0 else i - n


@inlined
def _extend(state, reach, code):
    """Fill the border of a buffered plane; that of zeros is never written and stays."""
    H, W = state.shape[0] - 2 * reach, state.shape[1] - 2 * reach
    if code == 0:
        return
    for j in range(1, reach + 1):
        state[reach - j] = state[reach + _seen(-j, H, code)]
        state[reach + H - 1 + j] = state[reach + _seen(H - 1 + j, H, code)]
    for y in range(reach, reach + H):
        row = state[y]
        for j in range(1, reach + 1):
            row[reach - j] = row[reach + _seen(-j, W, code)]
            row[reach + W - 1 + j] = row[reach + _seen(W - 1 + j, W, code)]


@inlined
def _enter(plane, state, reach):
    """Copy a plane into the middle of a buffered one, row by row: an assignment of two dimensions is not vectorised."""
    for y in range(len(plane)):
        given, row = plane[y], state[reach + y, reach:]
        for x in range(len(given)):
            row[x] = given[x]


@inlined
def _laplacian(state, y, reach, d, weight, base, scale, row):
    """row = base * row + scale * middle + weight * Laplacian with arms of d pixels, for row y of a buffered plane."""
    W, at = len(row), reach + y
    middle, left, right = state[at, reach : reach + W], state[at, reach - d :], state[at, reach + d :]
    above, below = state[at - d, reach:], state[at + d, reach:]
    if base == np.float32(0.0):
        for x in range(W):
            around = above[x] + below[x] + left[x] + right[x] - np.float32(4.0) * middle[x]
            row[x] = scale * middle[x] + weight * around
    else:
        for x in range(W):
            around = above[x] + below[x] + left[x] + right[x] - np.float32(4.0) * middle[x]
            row[x] = row[x] + weight * around


@inlined
def _step(state, following, first, weights, source, gate, p, change, arms, reach):
    """One step from a buffered plane, border filled, to a plane whose rows and columns begin at ``first``."""
    # Views are taken row by row: only of a row does the compiler know that its numbers lie side by side.
    one, zero = np.float32(1.0), np.float32(0.0)
    H, W = state.shape[0] - 2 * reach, state.shape[1] - 2 * reach
    for y in range(H):
        new = following[first + y, first : first + W]
        middle = state[reach + y, reach : reach + W]
        gated = len(gate) > 0
        row = change if gated else new
        for k in range(len(arms)):
            _laplacian(state, y, reach, arms[k], weights[k], one if k > 0 else zero, zero if gated else one, row)
        if gated:
            opened = gate[p, y]
            for x in range(len(new)):
                new[x] = middle[x] + opened[x] * change[x]
        if len(source) > 0:
            pushed = source[p, y]
            for x in range(len(new)):
                new[x] += pushed[x]


@compiled
def _diffuse(u, coefficients, source, gate, out, buffers, rows, arms, steps, code, part, low, high):
    reach = arms.max()
    change = rows[part]
    for p in range(low, high):
        _enter(u[p], buffers[part, 0], reach)
        for t in range(steps):
            state, other = buffers[part, t % 2], buffers[part, 1 - t % 2]
            _extend(state, reach, code)
            following, first = (other, reach) if t < steps - 1 else (out[p], 0)
            _step(state, following, first, coefficients[p % len(coefficients)], source, gate, p, change, arms, reach)


@compiled
def _differentiate(
    grads,
    u,
    coefficients,
    source,
    gate,
    d_u,
    d_coefficients,
    d_source,
    d_gate,
    buffers,
    rows,
    arms,
    steps,
    code,
    part,
    low,
    high,
):
    """Backwards through the steps: g is the gradient of the state after a step, h = gate g that of its diffusion."""
    reach, H, W = arms.max(), u.shape[1], u.shape[2]
    lap, change, h = rows[part, 0], rows[part, 1], buffers[part, steps]
    one, zero = np.float32(1.0), np.float32(0.0)
    for p in range(low, high):
        weights, g = coefficients[p % len(coefficients)], d_u[p]
        _enter(u[p], buffers[part, 0], reach)
        for t in range(steps):
            _extend(buffers[part, t], reach, code)
            if t < steps - 1:
                following = buffers[part, t + 1]
                _step(buffers[part, t], following, reach, weights, source, gate, p, change, arms, reach)
        g[:] = grads[p]
        d_coefficients[p] = 0.0
        for back in range(steps):
            state = buffers[part, steps - 1 - back]
            for y in range(H):
                line, inner = g[y], h[reach + y, reach : reach + W]
                if len(gate) > 0:
                    opened = gate[p, y]
                    for x in range(len(line)):
                        inner[x] = opened[x] * line[x]
                else:
                    for x in range(len(line)):
                        inner[x] = line[x]
                change[:] = zero
                for k in range(len(arms)):
                    _laplacian(state, y, reach, arms[k], one, zero, zero, lap)
                    total, weight = zero, weights[k]
                    for x in range(len(lap)):
                        total += inner[x] * lap[x]
                        change[x] += weight * lap[x]
                    d_coefficients[p, k] += total  # rows in float64
                if len(gate) > 0:
                    d_open = d_gate[p, y]
                    for x in range(len(line)):
                        d_open[x] += line[x] * change[x]
                if len(source) > 0:
                    d_push = d_source[p, y]
                    for x in range(len(line)):
                        d_push[x] += line[x]
            for y in range(H):
                for k in range(len(arms)):
                    _laplacian(h, y, reach, arms[k], weights[k], one, zero, g[y])
            if code > 0:
                for k in range(len(arms)):
                    _fold(h, g, reach, arms[k], weights[k], code)


@inlined
def _fold(h, g, reach, d, weight, code):
    """Give what the arms saw beyond the border back to the pixels that showed there."""
    H, W = g.shape
    for y in range(min(d, H)):
        inner, target = h[reach + y, reach:], g[_seen(y - d, H, code)]
        for x in range(len(target)):
            target[x] += weight * inner[x]
        inner, target = h[reach + H - 1 - y, reach:], g[_seen(H - 1 - y + d, H, code)]
        for x in range(len(target)):
            target[x] += weight * inner[x]
    for y in range(H):
        for x in range(min(d, W)):
            g[y, _seen(x - d, W, code)] += weight * h[reach + y, reach + x]
            g[y, _seen(W - 1 - x + d, W, code)] += weight * h[reach + y, reach + W - 1 - x]
