"""Vectorised torch on any device, never with the T x S matrix in memory.

On a CPU all work goes to torch's fused attention (85 to 95 % of the matrix-product peak in float32), called through the
operator behind ``scaled_dot_product_attention`` because that returns the logsumexp too: with it a sink is an exact
rescaling and the gradient needs no second forward pass. A window cuts the queries into pieces, each of which meets only
its slice of the keys. Elsewhere, and for the gradient of a bias, the same pieces go through plain matrix products.
Half-width operands are widened once: torch's half-width attention is slower than its float32 one on most CPUs (float16
by far), and rounds the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from core_attention.kernels.flash_softmax import _fused, _pieced
from core_attention.kernels.flash_softmax._band import band_of, visible_band

__all__ = ["flash_softmax", "flash_softmax_backward", "portable_flash_softmax"]

# Gradients that the fused backward pass does not give, or gives with twice the rounding error: a temperature's is a sum
# of score gradients that nearly cancel.
_EXACT = {"bias", "query_temperature"}
_FEW_SCORES = 1 << 16  # with fewer a head, the fused backward pass may have twice the rounding error of plain operators


def flash_softmax(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    left: int,
    right: int,
    key_mask: Tensor | None,
    bias: Tensor | None,
    query_temperature: Tensor | None,
    sink: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Attention, and for each row (logsumexp, 1) with the sink included, (0, infinity) where it sees nothing.

    q (B, T, H, D), k (B, S, G, D), v (B, S, G, Dv), bias (B or 1, H or 1, ...) -> (B, T, H, Dv), (2, B, H, T).
    Time O(B H T S (D + Dv)), with a window of w keys O(B H T w (D + Dv)). Memory on a CPU O(B H (T + S) (D + Dv)), for
    keys are repeated for grouped heads; elsewhere O(B (T H + S G) (D + Dv)) and pieces of scores of about 16 MB.
    """
    dtype, wide = q.dtype, torch.promote_types(q.dtype, torch.float32)
    queries = _scaled(q.to(wide), query_temperature)
    module: Any = _fused if q.device.type == "cpu" else _pieced
    out, logsumexp = module.forward(queries, k.to(wide), v.to(wide), left, right, key_mask, bias, scale)
    sums = logsumexp
    if sink is not None:
        exact = _exact(logsumexp)
        sums = torch.logaddexp(exact, sink.to(exact.dtype).view(1, -1, 1))
        out = out * torch.exp(exact - sums).to(wide).transpose(1, 2).unsqueeze(-1)
    empty = sums == -torch.inf
    highest = sums.masked_fill(empty, 0.0).to(wide)
    # What the rounding of the logsumexp left over; only of use where it was computed with more bits.
    total = torch.exp(sums - highest).to(wide).masked_fill(empty, torch.inf)
    rows = torch.stack([highest, total])
    return out.to(dtype).contiguous(), rows


def flash_softmax_backward(
    grad: Tensor,
    out: Tensor,
    rows: Tensor,
    operands: Mapping[str, Tensor | None],
    names: Sequence[str],
    *,
    left: int,
    right: int,
    key_mask: Tensor | None,
    scale: float,
) -> dict[str, Tensor]:
    """The gradients named; weights are recomputed from the logsumexp, piece by piece, in the memory of the forward.

    With p the weights and g the incoming gradient, ds = p (<g, v> - <g, out>), and minus p_sink <g, out> for the sink.
    """
    wide = rows.dtype
    logsumexp = rows[0] + rows[1].log()  # infinite, so without weights, where a row sees nothing
    q, k, v = (_given(operands[name]).to(wide) for name in ("q", "k", "v"))
    bias, temperature, sink = (operands[name] for name in ("bias", "query_temperature", "sink"))
    grad, out = grad.to(wide), out.to(wide)
    place = (_scaled(q, temperature), k, v, left, right, key_mask, bias)
    if q.device.type != "cpu" or _EXACT & set(names) or _is_small(q, k, left, right):
        found = _pieced.backward(grad, *place, sink, scale, bias_too="bias" in names)
    else:
        found = _fused.backward(grad, out, logsumexp, *place, scale)
        if sink is not None:
            inner, highest, total = (_exact(t) for t in ((grad * out).sum(-1).transpose(1, 2), rows[0], rows[1]))
            share = torch.exp(sink.to(inner.dtype).view(1, -1, 1) - highest) / total
            found["sink"] = -(share * inner).sum((0, 2))
    if temperature is not None:
        scaled = found["q"]
        found["q"] = _scaled(scaled, temperature)
        found["query_temperature"] = (scaled * q).sum(-1)
    return {name: found[name].to(_given(operands[name]).dtype) for name in names}


def portable_flash_softmax(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Tensor | None = None,
    bias: Tensor | None = None,
    query_temperature: Tensor | None = None,
    sink: Tensor | None = None,
    *,
    causal: bool = False,
    window: int | tuple[int, int] | None = None,
    scale: float | None = None,
) -> Tensor:
    """The same from plain operators with the matrix of weights in memory, in the dtype of q: for exporters.

    Differentiable by autograd to any order. Time O(B H T S (D + Dv)), memory O(B H T S).
    """
    T, H, D = q.shape[1:]
    S, G = k.shape[1], k.shape[2]
    scale = D**-0.5 if scale is None else scale
    queries = q * scale if query_temperature is None else q * (query_temperature.to(q.dtype) * scale).unsqueeze(-1)
    keys, values = (t.repeat_interleave(H // G, dim=2).transpose(1, 2) for t in (k, v))
    scores = queries.transpose(1, 2) @ keys.transpose(2, 3)
    left, right = band_of(causal, window)
    visible = None if left < 0 and right < 0 else visible_band(T, S, left, right, q.device)
    if key_mask is not None:
        valid = key_mask[:, None, None, :]
        visible = valid if visible is None else visible & valid
    if bias is not None:
        scores = scores + bias.to(q.dtype)
        seen = bias > -torch.inf
        visible = seen if visible is None else visible & seen
    if visible is not None:
        scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
    if sink is not None:
        column = sink.to(q.dtype).view(1, H, 1, 1).expand(scores.shape[0], H, T, 1)
        scores = torch.cat([scores, column], dim=-1)
    weights = torch.softmax(scores, dim=-1)[..., :S]
    if visible is not None:
        weights = weights.masked_fill(~visible, 0.0)
    return (weights @ values).transpose(1, 2).contiguous()


def _is_small(q: Tensor, k: Tensor, left: int, right: int) -> bool:
    """Whether a head has so few scores that rounding counts and time does not."""
    reach = k.shape[1] if left < 0 or right < 0 else min(k.shape[1], left + right + 1)
    return q.shape[1] * reach < _FEW_SCORES


def _exact(rows: Tensor) -> Tensor:
    """Numbers a row in float64 where the device has it and they cost nothing."""
    return rows.double() if rows.device.type == "cpu" else rows


def _scaled(q: Tensor, temperature: Tensor | None) -> Tensor:
    """Rows of scores are scaled by scaling the queries."""
    return q if temperature is None else q * temperature.to(q.dtype).unsqueeze(-1)


def _given(tensor: Tensor | None) -> Tensor:
    """An operand that the caller knows to be there."""
    if tensor is None:
        raise ValueError("found no tensor, expected an operand")
    return tensor
