"""Triton kernels of the selective scan: a program takes a channel of a sample, 64 steps at a time, by parallel scan.

Within a chunk the states are an associative scan over (decay, input) pairs; the state is carried from chunk to chunk in
registers. The backward pass goes through the chunks in reverse: the states of the steps before are a scan of operands
loaded one step earlier, dL/dh is a reversed scan with the decays of the step after. Sums over channels (gradients of
B and C) and over samples (of A, D and the bias) are atomic additions in float32, so those may differ in the last bits
from run to run; outputs and all other gradients repeat.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from core_attention.kernels._launch import launcher
from core_attention.kernels.selective_scan.eager import CHUNK

__all__ = ["scan_gradient_kernel", "scan_kernel", "selective_scan", "selective_scan_backward"]


@triton.jit
def _chain(decay_1, value_1, decay_2, value_2):
    """Two steps of h -> decay h + value as one."""
    return decay_2 * decay_1, decay_2 * value_1 + value_2


@triton.jit
def _softplus(x, ACC: tl.constexpr):
    """max(x, 0) + ln(1 + y), y = exp(-|x|); a chip's fast logarithm has no digits left near one, so a series it is."""
    y = tl.exp(-tl.abs(x))
    if tl.float64 == ACC:
        one_more = 1.0 + y
        return tl.maximum(x, 0.0) + tl.log(one_more) + (y - (one_more - 1.0)) / one_more
    s = y / (2.0 + y)  # ln(1 + y) = 2 artanh(s), s up to 1/3
    w = s * s
    p = 2.0 / 13.0 + w * (2.0 / 15.0 + w * (2.0 / 17.0))
    p = 2.0 / 7.0 + w * (2.0 / 9.0 + w * (2.0 / 11.0 + w * p))
    return tl.maximum(x, 0.0) + (2.0 * s + s * w * (2.0 / 3.0 + w * (2.0 / 5.0 + w * p)))


@triton.jit
def _step_size(pointer, steps, inside, shift, IS_SOFTPLUS: tl.constexpr, ACC: tl.constexpr):
    """Step sizes, zero outside the sequence: such a step leaves the state as it was."""
    raw = tl.load(pointer + steps, mask=inside, other=0.0).to(ACC) + shift
    if IS_SOFTPLUS:
        raw = _softplus(raw, ACC)
    return tl.where(inside, raw, 0.0)


@triton.jit
def scan_kernel(
    u, delta, A, B, C, D, z, bias, start, out, last, saved,
    ROWS, CHANNELS, LENGTH, GROUPS_B: tl.constexpr, GROUPS_C: tl.constexpr,
    STATES: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_T: tl.constexpr, IS_SOFTPLUS: tl.constexpr,
    HAS_D: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_START: tl.constexpr,
    SAVING: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """One channel of one sample; B and C (rows, groups, N, L). ``row * 0`` makes a chunk's number 64 bits wide."""
    row = tl.program_id(0).to(tl.int64)
    b, d = row // CHANNELS, row % CHANNELS
    n = tl.arange(0, BLOCK_N)
    real = n < STATES
    rates = tl.load(A + d * STATES + n, mask=real, other=0.0).to(ACC)
    shift = tl.load(bias + d).to(ACC) if HAS_BIAS else 0.0
    inward = B + (b * GROUPS_B + d // (CHANNELS // GROUPS_B)) * STATES * LENGTH
    outward = C + (b * GROUPS_C + d // (CHANNELS // GROUPS_C)) * STATES * LENGTH
    h = tl.zeros([BLOCK_N], ACC)
    if HAS_START:
        h = tl.load(start + row * STATES + n, mask=real, other=0.0).to(ACC)
    t = tl.arange(0, BLOCK_T)
    for first in range(0, LENGTH, BLOCK_T):
        if SAVING:
            tl.store(saved + ((row * 0 + first // BLOCK_T) * ROWS * CHANNELS + row) * STATES + n, h, mask=real)
        steps = first + t
        inside = steps < LENGTH
        both = inside[:, None] & real[None, :]
        value = tl.load(u + row * LENGTH + steps, mask=inside, other=0.0).to(ACC)
        now = _step_size(delta + row * LENGTH, steps, inside, shift, IS_SOFTPLUS, ACC)
        at = n[None, :] * LENGTH + steps[:, None]
        decay = tl.exp(now[:, None] * rates[None, :])
        entering = (now * value)[:, None] * tl.load(inward + at, mask=both, other=0.0).to(ACC)
        carried, states = tl.associative_scan((decay, entering), 0, _chain)
        states += carried * h[None, :]
        y = tl.sum(states * tl.load(outward + at, mask=both, other=0.0).to(ACC), 1)
        if HAS_D:
            y += tl.load(D + d).to(ACC) * value
        if HAS_Z:
            gate = tl.load(z + row * LENGTH + steps, mask=inside, other=0.0).to(ACC)
            y *= gate / (1.0 + tl.exp(-gate))
        tl.store(out + row * LENGTH + steps, y.to(out.dtype.element_ty), mask=inside)
        h = tl.sum(tl.where((t == BLOCK_T - 1)[:, None], states, 0.0), 0)
    tl.store(last + row * STATES + n, h, mask=real)


@triton.jit
def scan_gradient_kernel(
    u, delta, A, B, C, D, z, bias, saved, grad, grad_state,
    d_u, d_delta, d_A, d_B, d_C, d_D, d_z, d_bias, d_start,
    ROWS, CHANNELS, LENGTH, GROUPS_B: tl.constexpr, GROUPS_C: tl.constexpr,
    STATES: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_T: tl.constexpr, IS_SOFTPLUS: tl.constexpr,
    HAS_D: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Gradients of one channel of one sample, last chunk first."""
    row = tl.program_id(0).to(tl.int64)
    b, d = row // CHANNELS, row % CHANNELS
    n, t = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_T)
    real = n < STATES
    rates = tl.load(A + d * STATES + n, mask=real, other=0.0).to(ACC)
    shift = tl.load(bias + d).to(ACC) if HAS_BIAS else 0.0
    direct = tl.load(D + d).to(ACC) if HAS_D else 0.0
    of_B = (b * GROUPS_B + d // (CHANNELS // GROUPS_B)) * STATES * LENGTH
    of_C = (b * GROUPS_C + d // (CHANNELS // GROUPS_C)) * STATES * LENGTH
    g = tl.load(grad_state + row * STATES + n, mask=real, other=0.0).to(ACC)  # a_{t+1} dL/dh_{t+1} of the chunk after
    sum_A, sum_D, sum_bias = tl.zeros([BLOCK_N], ACC), tl.zeros([BLOCK_T], ACC), tl.zeros([BLOCK_T], ACC)
    chunks = tl.cdiv(LENGTH, BLOCK_T)
    for back in range(chunks):
        number = chunks - 1 - back
        steps = number * BLOCK_T + t
        inside, earlier = steps < LENGTH, (t > 0) & (steps - 1 < LENGTH)
        later = (t < BLOCK_T - 1) & (steps + 1 < LENGTH)
        both = inside[:, None] & real[None, :]
        at = n[None, :] * LENGTH + steps[:, None]
        value = tl.load(u + row * LENGTH + steps, mask=inside, other=0.0).to(ACC)
        now = _step_size(delta + row * LENGTH, steps, inside, shift, IS_SOFTPLUS, ACC)
        decay = tl.exp(now[:, None] * rates[None, :])
        into = tl.load(B + of_B + at, mask=both, other=0.0).to(ACC)
        read = tl.load(C + of_C + at, mask=both, other=0.0).to(ACC)
        # The states before each step: the same scan one step earlier, with the saved state in front.
        h = tl.load(saved + ((row * 0 + number) * ROWS * CHANNELS + row) * STATES + n, mask=real, other=0.0).to(ACC)
        value_before = tl.load(u + row * LENGTH + steps - 1, mask=earlier, other=0.0).to(ACC)
        step_before = _step_size(delta + row * LENGTH, steps - 1, earlier, shift, IS_SOFTPLUS, ACC)
        into_before = tl.load(B + of_B + at - 1, mask=earlier[:, None] & real[None, :], other=0.0).to(ACC)
        entered_before = (step_before * value_before)[:, None] * into_before
        entered_before = tl.where((t == 0)[:, None], h[None, :], entered_before)
        _, before = tl.associative_scan((tl.exp(step_before[:, None] * rates[None, :]), entered_before), 0, _chain)
        states = decay * before + (now * value)[:, None] * into
        dy = tl.load(grad + row * LENGTH + steps, mask=inside, other=0.0).to(ACC)
        if HAS_Z:
            gate = tl.load(z + row * LENGTH + steps, mask=inside, other=0.0).to(ACC)
            opened = 1.0 / (1.0 + tl.exp(-gate))
            y = tl.sum(states * read, 1) + direct * value
            d_gate = dy * y * opened * (1.0 + gate * (1.0 - opened))
            tl.store(d_z + row * LENGTH + steps, d_gate, mask=inside)
            dy = dy * gate * opened
        tl.atomic_add(d_C + of_C + at, dy[:, None] * states, mask=both, sem="relaxed")
        # dL/dh: the scan from the other end, each step with the decay of the step after; steps past the end pass g on.
        step_after = _step_size(delta + row * LENGTH, steps + 1, later, shift, IS_SOFTPLUS, ACC)
        decay_after = tl.where(later[:, None], tl.exp(step_after[:, None] * rates[None, :]), 1.0)
        local = dy[:, None] * read + tl.where((t == BLOCK_T - 1)[:, None], g[None, :], 0.0)
        _, grads = tl.associative_scan((decay_after, local), 0, _chain, reverse=True)
        tl.atomic_add(d_B + of_B + at, grads * (now * value)[:, None], mask=both, sem="relaxed")
        entered = tl.sum(grads * into, 1)
        past = grads * decay
        g = tl.sum(tl.where((t == 0)[:, None], past, 0.0), 0)
        past *= before
        sum_A += tl.sum(past * now[:, None], 0)
        d_step = entered * value + tl.sum(past * rates[None, :], 1)
        if IS_SOFTPLUS:
            raw = tl.load(delta + row * LENGTH + steps, mask=inside, other=0.0).to(ACC) + shift
            d_step = d_step / (1.0 + tl.exp(-raw))
        tl.store(d_u + row * LENGTH + steps, entered * now + direct * dy, mask=inside)
        tl.store(d_delta + row * LENGTH + steps, d_step, mask=inside)
        sum_D += dy * value
        sum_bias += tl.where(inside, d_step, 0.0)
    tl.store(d_start + row * STATES + n, g, mask=real)
    tl.store(d_A + row * STATES + n, sum_A, mask=real)
    tl.store(d_D + row, tl.sum(sum_D, 0))
    tl.store(d_bias + row, tl.sum(sum_bias, 0))


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
    """Launch the scan with B and C (B, G, N, L): out, last state (B, D, N), saved states (chunks, B, D, N)."""
    rows, channels, length = u.shape
    wide = _accumulator(u.dtype)
    out = torch.empty_like(u, memory_format=torch.contiguous_format)
    last = u.new_empty((rows, channels, A.shape[1]), dtype=wide)
    saved = last.new_empty((-(-length // CHUNK) if saving else 0, *last.shape))
    operands = _contiguous(u, delta, A, B, C, D, z, delta_bias, initial_state)
    launcher(scan_kernel)[(rows * channels,)](
        *operands,
        out,
        last,
        saved,
        *_sizes(u, B, C),
        **_constants(A, delta_softplus, wide),
        HAS_D=D is not None,
        HAS_Z=z is not None,
        HAS_BIAS=delta_bias is not None,
        HAS_START=initial_state is not None,
        SAVING=saving,
    )
    return out, last, saved if saving else last.new_empty(0)


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
    """Launch the gradient; gradients of all operands by name, in float32 (float64 for float64 operands)."""
    rows, channels, _ = u.shape
    wide = saved.dtype
    operands = _contiguous(u, delta, A, B, C, D, z, delta_bias)
    found = {
        name: tensor.new_empty(tensor.shape, dtype=wide) for name, tensor in {"u": u, "delta": delta, "z": u}.items()
    }
    found |= {name: t.new_zeros(t.shape, dtype=wide) for name, t in {"B": B, "C": C}.items()}
    d_A, d_start = saved.new_empty((2, rows, channels, A.shape[1])).unbind(0)
    d_D, d_bias = saved.new_empty((2, rows, channels)).unbind(0)
    launcher(scan_gradient_kernel)[(rows * channels,)](
        *operands,
        saved,
        grad.contiguous(),
        grad_state.contiguous(),
        found["u"],
        found["delta"],
        d_A,
        found["B"],
        found["C"],
        d_D,
        found["z"],
        d_bias,
        d_start,
        *_sizes(u, B, C),
        **_constants(A, delta_softplus, wide),
        HAS_D=D is not None,
        HAS_Z=z is not None,
        HAS_BIAS=delta_bias is not None,
    )
    sums = {"A": d_A.sum(0), "D": d_D.sum(0), "delta_bias": d_bias.sum(0)}
    return found | sums | {"initial_state": d_start}


def _contiguous(u: Tensor, *others: Tensor | None) -> list[Tensor]:
    """All operands contiguous; u stands in for one that is left out, and is not read."""
    return [u.contiguous(), *((u if other is None else other).contiguous() for other in others)]


def _sizes(u: Tensor, B: Tensor, C: Tensor) -> tuple[int, ...]:
    return (*u.shape, B.shape[1], C.shape[1])


def _constants(A: Tensor, delta_softplus: bool, wide: torch.dtype) -> dict[str, Any]:
    states = A.shape[1]
    return {
        "STATES": states,
        "BLOCK_N": triton.next_power_of_2(states),
        "BLOCK_T": CHUNK,
        "IS_SOFTPLUS": delta_softplus,
        "ACC": tl.float64 if wide == torch.float64 else tl.float32,
        "num_warps": 4 if states <= 32 else 8,
        "num_stages": 1,
    }


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
