"""The Triton kernels: FlashAttention-2 (arXiv:2307.08691) with all our options; ``gpu`` launches them.

Scores, weights and sums are float32; the operands of the products have the dtype of q, float32 ones keep all bits.
Blocks of keys that no query of a tile may see are never read. The forward pass and the gradients of q, k, v and the
temperature are deterministic; a bias that is broadcast collects its gradient by float32 atomics, in any order.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["delta_kernel", "forward_kernel", "keys_kernel", "queries_kernel"]


@triton.jit
def keys_of_tile(key_mask, n0, c, S, HAS_MASK: tl.constexpr):
    """The numbers of a tile's keys; those that nobody may see stand far away instead, so that one comparison hides all.

    Masks of two dimensions are dear: they overflow the scalar registers of AMD's chips.
    """
    j = n0 + c
    there = j < S
    if HAS_MASK:
        there = there & (tl.load(key_mask + tl.minimum(j, S - 1)) != 0)
    return tl.where(there, j, 1 << 30)


@triton.jit
def tile_scores(
    raw, warmth, t, key, n0, c, bias, bias_t, bias_s, scale, T, S, left, right, HAS_BIAS: tl.constexpr
):  # fmt: skip
    """Scores of a tile with the keys as rows or as columns, minus infinity where hidden.

    t, key and c: query numbers, keys (``keys_of_tile``) and key numbers within the tile, shaped to broadcast.
    """
    scores = raw * (scale * warmth)
    if HAS_BIAS:
        place = bias + (tl.minimum(t, T - 1) * bias_t + tl.minimum(n0 + c, S - 1) * bias_s)
        scores += tl.load(place).to(tl.float32)
    # Unsigned: 0 <= distance from the leftmost key seen <= left + right.
    seen = (key - t + (left + T - S)).to(tl.uint32) <= left + right
    return tl.where(seen, scores, float("-inf"))


@triton.jit
def load_rows(start, r, d, stride, rows):
    """A tile of rows, from start, as wide as d; rows beyond the last repeat it.

    What such a row gives is either not stored or has weight zero.
    """
    return tl.load(start + tl.minimum(r, rows - 1)[:, None] * stride + d[None, :])


@triton.jit
def load_warmth(warmth, first, r, rows, H, HAS_WARMTH: tl.constexpr, BLOCK: tl.constexpr):
    """The temperatures of a tile's queries, ones where none are given."""
    found = tl.full([BLOCK], 1.0, tl.float32)
    if HAS_WARMTH:
        found = tl.load(warmth + first + r * H, mask=r < rows, other=0.0).to(tl.float32)
    return found


@triton.jit
def forward_kernel(
    q, k, v, key_mask, bias, warmth, sink, out, highest, total,
    scale, T, S, H, G, left, right, bias_b, bias_h, bias_t, bias_s,
    HAS_MASK: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_WARMTH: tl.constexpr, HAS_SINK: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """One tile of queries of one head: out, and the highest score and the sum of exponentials of each row."""
    tiles = tl.cdiv(T, BM)
    b, h = tl.program_id(0) // tiles // H, tl.program_id(0) // tiles % H
    m0 = (tiles - 1 - tl.program_id(0) % tiles) * BM  # later queries see more keys where causal: they go first
    g = h // (H // G)
    r, c, d, e = tl.arange(0, BM), tl.arange(0, BN), tl.arange(0, BD), tl.arange(0, BV)
    row = (b.to(tl.int64) * T + m0) * H + h
    queries = load_rows(q + row * BD, r, d, H * BD, T - m0)
    warm = load_warmth(warmth, row, r, T - m0, H, HAS_WARMTH, BM)
    top = tl.full([BM], float("-inf"), tl.float32)
    mass = tl.zeros([BM], tl.float32)
    if HAS_SINK:  # the sink is a first key whose value is zero
        top = tl.zeros([BM], tl.float32) + tl.load(sink + h).to(tl.float32)
        mass = tl.where(top == float("-inf"), 0.0, 1.0)
    mixed = tl.zeros([BM, BV], tl.float32)
    first = tl.maximum(m0 + S - T - left, 0) // BN * BN
    last = tl.minimum(m0 + BM + S - T + right, S)
    for n0 in range(first, last, BN):
        slot = (b.to(tl.int64) * S + n0) * G + g
        keys = load_rows(k + slot * BD, c, d, G * BD, S - n0)
        raw = tl.dot(queries, tl.trans(keys), input_precision="ieee")
        key = keys_of_tile(key_mask + b.to(tl.int64) * S, n0, c, S, HAS_MASK)
        scores = tile_scores(
            raw, warm[:, None], (m0 + r)[:, None], key[None, :], n0, c[None, :],
            bias + b.to(tl.int64) * bias_b + h.to(tl.int64) * bias_h, bias_t, bias_s, scale, T, S, left, right,
            HAS_BIAS,
        )  # fmt: skip
        higher = tl.maximum(top, tl.max(scores, 1))
        finite = tl.where(higher == float("-inf"), 0.0, higher)  # rows that saw nothing yet
        weights = tl.exp(scores - finite[:, None])
        shrink = tl.exp(top - finite)
        mass = mass * shrink + tl.sum(weights, 1)
        values = load_rows(v + slot * BV, c, e, G * BV, S - n0)
        mixed = mixed * shrink[:, None] + tl.dot(weights.to(values.dtype), values, input_precision="ieee")
        top = higher
    empty = mass == 0.0
    mixed = mixed / tl.where(empty, 1.0, mass)[:, None]
    place = out + row * BV + r[:, None] * (H * BV) + e[None, :]
    tl.store(place, mixed.to(out.dtype.element_ty), mask=(r < T - m0)[:, None])
    line = (b.to(tl.int64) * H + h) * T + m0
    tl.store(highest + line + r, tl.where(empty, 0.0, top), mask=r < T - m0)
    tl.store(total + line + r, tl.where(empty, float("inf"), mass), mask=r < T - m0)


@triton.jit
def delta_kernel(grad, out, delta, T, H, BM: tl.constexpr, BV: tl.constexpr):
    """delta[b, h, t] = <grad, out> of the row."""
    tiles = tl.cdiv(T, BM)
    b, h = tl.program_id(0) // tiles // H, tl.program_id(0) // tiles % H
    m0 = tl.program_id(0) % tiles * BM
    r, e = tl.arange(0, BM), tl.arange(0, BV)
    row = (b.to(tl.int64) * T + m0) * H + h
    left = load_rows(grad + row * BV, r, e, H * BV, T - m0).to(tl.float32)
    right = load_rows(out + row * BV, r, e, H * BV, T - m0).to(tl.float32)
    tl.store(delta + (b.to(tl.int64) * H + h) * T + m0 + r, tl.sum(left * right, 1), mask=r < T - m0)


@triton.jit
def queries_kernel(
    grad, q, k, v, key_mask, bias, warmth, highest, total, delta, d_q, d_bias, d_warmth,
    scale, T, S, H, G, left, right, bias_b, bias_h, bias_t, bias_s,
    HAS_MASK: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_WARMTH: tl.constexpr, TO_BIAS: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """One tile of queries of one head: the gradients of q, of the temperature and, if TO_BIAS, of the bias.

    Tiles of scores lie with the keys as rows: the other way round the float32 products took twice the registers.
    TO_BIAS: 0 no gradient, 1 each element of the bias belongs to one score, 2 to several.
    """
    tiles = tl.cdiv(T, BM)
    b, h = tl.program_id(0) // tiles // H, tl.program_id(0) // tiles % H
    m0 = (tiles - 1 - tl.program_id(0) % tiles) * BM
    g = h // (H // G)
    r, c, d, e = tl.arange(0, BM), tl.arange(0, BN), tl.arange(0, BD), tl.arange(0, BV)
    row = (b.to(tl.int64) * T + m0) * H + h
    line = (b.to(tl.int64) * H + h) * T + m0
    queries = load_rows(q + row * BD, r, d, H * BD, T - m0)
    grads = load_rows(grad + row * BV, r, e, H * BV, T - m0)
    warm = load_warmth(warmth, row, r, T - m0, H, HAS_WARMTH, BM)
    top = tl.load(highest + line + r, mask=r < T - m0, other=0.0)
    share = 1.0 / tl.load(total + line + r, mask=r < T - m0, other=float("inf"))
    inner = tl.load(delta + line + r, mask=r < T - m0, other=0.0)
    summed = tl.zeros([BM, BD], tl.float32)
    first = tl.maximum(m0 + S - T - left, 0) // BN * BN
    last = tl.minimum(m0 + BM + S - T + right, S)
    plane = b.to(tl.int64) * bias_b + h.to(tl.int64) * bias_h
    for n0 in range(first, last, BN):
        slot = (b.to(tl.int64) * S + n0) * G + g
        keys = load_rows(k + slot * BD, c, d, G * BD, S - n0)
        raw = tl.dot(keys, tl.trans(queries), input_precision="ieee")
        key = keys_of_tile(key_mask + b.to(tl.int64) * S, n0, c, S, HAS_MASK)
        scores = tile_scores(
            raw, warm[None, :], (m0 + r)[None, :], key[:, None], n0, c[:, None],
            bias + plane, bias_t, bias_s, scale, T, S, left, right, HAS_BIAS,
        )  # fmt: skip
        values = load_rows(v + slot * BV, c, e, G * BV, S - n0)
        to_weights = tl.dot(values, tl.trans(grads), input_precision="ieee")
        to_scores = tl.exp(scores - top[None, :]) * share[None, :] * (to_weights - inner[None, :])
        if TO_BIAS > 0:
            place = d_bias + plane + ((m0 + r)[None, :] * bias_t + (n0 + c)[:, None] * bias_s)
            inside = (r < T - m0)[None, :] & (c < S - n0)[:, None]
            if TO_BIAS == 1:
                tl.store(place, to_scores.to(d_bias.dtype.element_ty), mask=inside)
            else:
                tl.atomic_add(place, to_scores, mask=inside, sem="relaxed")
        summed += tl.dot(tl.trans(to_scores.to(keys.dtype)), keys, input_precision="ieee")
    summed *= scale
    if HAS_WARMTH:
        queries = load_rows(q + row * BD, r, d, H * BD, T - m0)
        tl.store(d_warmth + row + r * H, tl.sum(summed * queries.to(tl.float32), 1), mask=r < T - m0)
    place = d_q + row * BD + r[:, None] * (H * BD) + d[None, :]
    tl.store(place, (summed * warm[:, None]).to(d_q.dtype.element_ty), mask=(r < T - m0)[:, None])


@triton.jit
def keys_kernel(
    grad, q, k, v, key_mask, bias, warmth, highest, total, delta, d_k, d_v,
    scale, T, S, H, G, left, right, bias_b, bias_h, bias_t, bias_s,
    HAS_MASK: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_WARMTH: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """One tile of keys of one group: the gradients of k and v, over all heads of the group and all queries that see it.

    Tiles of scores lie with the keys as rows, so that no tile of weights is transposed.
    """
    tiles = tl.cdiv(S, BN)
    b, g = tl.program_id(0) // tiles // G, tl.program_id(0) // tiles % G
    n0 = tl.program_id(0) % tiles * BN
    r, c, d, e = tl.arange(0, BM), tl.arange(0, BN), tl.arange(0, BD), tl.arange(0, BV)
    slot = (b.to(tl.int64) * S + n0) * G + g
    keys = load_rows(k + slot * BD, c, d, G * BD, S - n0)
    values = load_rows(v + slot * BV, c, e, G * BV, S - n0)
    key = keys_of_tile(key_mask + b.to(tl.int64) * S, n0, c, S, HAS_MASK)
    to_keys = tl.zeros([BN, BD], tl.float32)
    to_values = tl.zeros([BN, BV], tl.float32)
    first = tl.maximum(n0 + T - S - right, 0) // BM * BM
    last = tl.minimum(n0 + BN + T - S + left, T)
    for i in range(H // G):
        h = g * (H // G) + i
        for m0 in range(first, last, BM):
            row = (b.to(tl.int64) * T + m0) * H + h
            line = (b.to(tl.int64) * H + h) * T + m0
            queries = load_rows(q + row * BD, r, d, H * BD, T - m0)
            warm = load_warmth(warmth, row, r, T - m0, H, HAS_WARMTH, BM)
            raw = tl.dot(keys, tl.trans(queries), input_precision="ieee")
            scores = tile_scores(
                raw, warm[None, :], (m0 + r)[None, :], key[:, None], n0, c[:, None],
                bias + b.to(tl.int64) * bias_b + h.to(tl.int64) * bias_h, bias_t, bias_s, scale, T, S, left, right,
                HAS_BIAS,
            )  # fmt: skip
            top = tl.load(highest + line + r, mask=r < T - m0, other=0.0)
            share = 1.0 / tl.load(total + line + r, mask=r < T - m0, other=float("inf"))
            weights = tl.exp(scores - top[None, :]) * share[None, :]
            grads = load_rows(grad + row * BV, r, e, H * BV, T - m0)
            to_values += tl.dot(weights.to(grads.dtype), grads, input_precision="ieee")
            inner = tl.load(delta + line + r, mask=r < T - m0, other=0.0)
            to_weights = tl.dot(values, tl.trans(grads), input_precision="ieee")
            to_scores = weights * (to_weights - inner[None, :]) * warm[None, :]
            to_keys += tl.dot(to_scores.to(queries.dtype), queries, input_precision="ieee")
    place = d_k + slot * BD + c[:, None] * (G * BD) + d[None, :]
    tl.store(place, (to_keys * scale).to(d_k.dtype.element_ty), mask=(c < S - n0)[:, None])
    place = d_v + slot * BV + c[:, None] * (G * BV) + e[None, :]
    tl.store(place, to_values.to(d_v.dtype.element_ty), mask=(c < S - n0)[:, None])
