"""The compiled reaction-diffusion step as torch sees it, and its gradient, written by hand.

What is kept for the gradient is u, the hidden layer before its GELU (with the gate's logits beside it), and the state
before the norm. The products go over the positions in pieces whose hidden layer stays in the second cache.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from core_attention.kernels._numba import ranges, run
from core_attention.kernels.stencil.reaction_loops import advance, diffuse, gather, retreat

__all__ = ["compiled_diffusion", "compiled_step"]

# Positions whose hidden layer is in memory at once; 256 to 1024 are equally fast at 128 channels.
_CHUNK = 512
# Rows of a field that make another thread worth its start.
_LEAST_ROWS = 8


def compiled_step(
    tensors: Sequence[Tensor | None], dilations: tuple[int, ...], eps: float, mean: bool, bins: int, carry: bool
) -> tuple[Tensor, ...]:
    """``reaction_step`` on its nine tensors: the new state, its energy, mean and bins (without elements if unasked)."""
    ready = [None if t is None else t.float().contiguous() for t in tensors]
    options = (dilations, eps, mean, bins, carry)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in ready):
        return _Compiled.apply(*ready, *options)
    return _forward(_Given(*ready), *options, keep=False)[:4]  # type: ignore[arg-type]


def compiled_diffusion(u: Tensor, coefficients: Tensor, dilations: tuple[int, ...]) -> Tensor:
    """sum_k coefficients[k] * lap_k(u) for u (B, H, W, C), without a gradient."""
    u = u.contiguous()
    out = torch.empty_like(u)
    parts = ranges(u.shape[0] * u.shape[1], least=_LEAST_ROWS)
    run(diffuse, parts, _array(u, 4), _array(coefficients.float(), 2), _arms(dilations), _array(out, 4))
    return out


class _Given(NamedTuple):
    """The tensors of a step, float32 and contiguous."""

    u: Tensor
    coefficients: Tensor
    weight_in: Tensor | None
    bias_in: Tensor | None
    weight_out: Tensor | None
    push: Tensor | None
    source: Tensor | None
    factor: Tensor | None
    norm: Tensor | None


class _Compiled(torch.autograd.Function):
    """The step by compiled loops, and its gradient."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        given, options = _Given(*arguments[:9]), arguments[9:]
        out, energy, mean, pooled, v, z = _forward(given, *options, keep=True)
        ctx.save_for_backward(*given, v, z)
        ctx.options = options
        ctx.set_materialize_grads(False)
        return out, energy, mean, pooled

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        *tensors, v, z = ctx.saved_tensors
        return (*_backward(_Given(*tensors), v, z, grads, *ctx.options), None, None, None, None, None)


def _forward(
    given: _Given, dilations: tuple[int, ...], eps: float, mean: bool, bins: int, carry: bool, *, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Out, energy, mean, pooled, the state before the norm, and the hidden layer (where kept, else its gate alone)."""
    u, weight_out = given.u, given.weight_out
    B, H, W, C = u.shape
    reacted, z, at = _react(given, keep) if weight_out is not None else (given.source, None, -1)
    v = torch.empty_like(u) if reacted is None or reacted is given.source else reacted
    out = torch.empty_like(u) if given.norm is not None and keep else v
    parts = ranges(B * H, least=_LEAST_ROWS)
    energy = np.zeros((len(parts), B), np.float64)
    means = np.zeros((len(parts), B, C if mean else 0), np.float64)
    pooled = np.zeros((len(parts), B, bins, bins, C), np.float64)
    if given.weight_out is not None and given.source is not None:
        reacted = reacted + given.source  # type: ignore[operator]
    edges = (_bins(H, bins), _bins(W, bins))
    run(
        advance,
        parts,
        _array(u, 4),
        _array(given.coefficients, 2),
        _arms(dilations),
        _array(z, 4),
        at,
        _array(given.factor, 4),
        _array(given.push, 4),
        *_spread(H, W, given.push),
        _array(reacted, 4),
        _array(given.norm, 1),
        np.float32(eps),
        np.float32(carry),
        _array(v, 4),
        _array(out, 4),
        energy,
        means,
        pooled,
        *(edge[0] for edge in edges),
    )
    counts = edges[0][1][:, None, None] * edges[1][1][None, :, None]
    return (
        out,
        _tensor(energy.sum(0) / (H * W * C)),
        _tensor(means.sum(0) / (H * W)) if mean else u.new_empty(0),
        _tensor(pooled.sum(0) / counts) if bins else u.new_empty(0),
        v,
        z if keep else None,
    )


def _react(given: _Given, keep: bool) -> tuple[Tensor, Tensor | None, int]:
    """The reaction (B, H, W, C), the hidden layer and gate (B, H, W, F or F + C), and where in it the gate begins."""
    u, w_in, w_out = given.u, given.weight_in, given.weight_out
    if w_in is None or w_out is None or given.bias_in is None:
        raise ValueError("weight_in, bias_in and weight_out: found one without the others")
    flat, hidden = u.view(-1, u.shape[3]), w_out.shape[1]
    gated = len(w_in) > hidden
    reacted = torch.empty_like(flat)
    z = flat.new_empty(len(flat), len(w_in)) if keep or gated else None
    for low in range(0, len(flat), _CHUNK):
        rows = slice(low, low + _CHUNK)
        if z is None:
            inner = torch.addmm(given.bias_in, flat[rows], w_in.T)
        else:
            inner = torch.addmm(given.bias_in, flat[rows], w_in.T, out=z[rows])
        torch.mm(F.gelu(inner[:, :hidden]), w_out.T, out=reacted[rows])
    whole = None if z is None else z.view(*u.shape[:3], len(w_in))
    return reacted.view_as(u), whole, hidden if gated else -1


def _backward(
    given: _Given,
    v: Tensor,
    z: Tensor | None,
    grads: Sequence[Tensor | None],
    dilations: tuple[int, ...],
    eps: float,
    mean: bool,
    bins: int,
    carry: bool,
) -> tuple[Tensor | None, ...]:
    """Gradients of the nine tensors."""
    u, push = given.u, given.push
    B, H, W, C = u.shape
    grad = torch.zeros_like(u) if grads[0] is None else grads[0].float().contiguous()
    d_energy = u.new_zeros(B) if grads[1] is None else grads[1].float() / (H * W * C)
    d_mean = None if grads[2] is None or not mean else grads[2].float() / (H * W)
    edges = (_bins(H, bins), _bins(W, bins))
    d_pooled = None
    if bins and grads[3] is not None:
        d_pooled = grads[3].float() / _tensor(edges[0][1][:, None, None] * edges[1][1][None, :, None])
    else:
        edges = (_bins(H, 0), _bins(W, 0))
    hidden = 0 if given.weight_out is None else given.weight_out.shape[1]
    at = hidden if z is not None and z.shape[3] > hidden else -1
    gated = at >= 0 or given.factor is not None
    d_u, d_source = torch.empty_like(u), torch.empty_like(u)
    d_inner, d_gate = (torch.empty_like(u), torch.empty_like(u)) if gated else (d_source, None)
    parts = ranges(B * H, least=_LEAST_ROWS)
    d_weights = np.zeros((len(parts), len(dilations), C), np.float64)
    d_push = np.zeros((len(parts), *((B, *push.shape[1:]) if push is not None else (0, 0, 0, 0))), np.float64)
    d_norm = np.zeros((len(parts), C), np.float64)
    arms, weights = _arms(dilations), _array(given.coefficients, 2)
    run(
        retreat,
        parts,
        _array(grad, 4),
        _array(d_energy, 1),
        _array(d_mean, 2),
        _array(d_pooled, 4),
        _array(u, 4),
        _array(v, 4),
        weights,
        arms,
        _array(z, 4),
        at,
        _array(given.factor, 4),
        _array(given.norm, 1),
        np.float32(eps),
        np.float32(carry),
        *_spread(H, W, push),
        *(edge[0] for edge in edges),
        _array(d_u, 4),
        _array(d_source, 4),
        _array(d_inner, 4),
        _array(d_gate, 4),
        d_weights,
        d_push,
        d_norm,
    )
    run(gather, parts, _array(d_inner, 4), weights, arms, _array(d_u, 4))
    d_factor = None
    if given.factor is not None and d_gate is not None:
        d_factor = d_gate if len(given.factor) == B else d_gate.sum(0, keepdim=True)
    reacted: tuple[Tensor | None, ...] = (None, None, None)
    if z is not None:
        reacted = _react_backward(given, z, d_source, d_gate if at >= 0 else None, d_u)
    return (
        d_u,
        _tensor(d_weights.sum(0)),
        *reacted,
        None if push is None else _tensor(d_push.sum(0)),
        None if given.source is None else d_source,
        d_factor,
        None if given.norm is None else _tensor(d_norm.sum(0)),
    )


def _react_backward(
    given: _Given, z: Tensor, d_out: Tensor, d_gate: Tensor | None, d_u: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of weight_in, bias_in and weight_out; adds to d_u."""
    w_in, w_out = given.weight_in, given.weight_out
    if w_in is None or w_out is None:
        raise ValueError("weight_in and weight_out: found one without the other")
    C, hidden = given.u.shape[3], w_out.shape[1]
    u, z, d_out, d_u = given.u.view(-1, C), z.view(-1, len(w_in)), d_out.view(-1, C), d_u.view(-1, C)
    gates = None if d_gate is None else d_gate.view(-1, C)
    d_in, d_bias, d_w_out = torch.zeros_like(w_in), w_in.new_zeros(len(w_in)), torch.zeros_like(w_out)
    for low in range(0, len(u), _CHUNK):
        rows = slice(low, low + _CHUNK)
        inner, back = z[rows, :hidden], d_out[rows]
        d_w_out.addmm_(back.T, F.gelu(inner))
        d_z = u.new_empty(len(back), len(w_in))
        torch.ops.aten.gelu_backward.grad_input(back @ w_out, inner, grad_input=d_z[:, :hidden])
        if gates is not None:
            d_z[:, hidden:] = gates[rows]
        d_in.addmm_(d_z.T, u[rows])
        d_bias += d_z.sum(0)
        d_u[rows].addmm_(d_z, w_in)
    return d_in, d_bias, d_w_out


def _array(tensor: Tensor | None, dims: int) -> np.ndarray:
    """A tensor as an array; one without elements for a tensor left out."""
    if tensor is None:
        return np.empty((0,) * dims, np.float32)
    return tensor.detach().contiguous().numpy()


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def _spread(H: int, W: int, push: Tensor | None) -> tuple[np.ndarray, ...]:
    """For rows and columns: the area before, and the share of the next one."""
    count = 1 if push is None else push.shape[1]
    return (*_between(H, count), *_between(W, count))


@functools.lru_cache(maxsize=256)
def _arms(dilations: tuple[int, ...]) -> np.ndarray:
    """The arms' lengths as loops take them; never written to."""
    return np.array(dilations, np.int64)


@functools.lru_cache(maxsize=256)
def _between(size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each of ``size`` pixels lies between ``count`` areas' centres: the area before, the share of the next."""
    places = np.maximum((np.arange(size) + 0.5) * count / size - 0.5, 0.0)
    before = np.floor(places).astype(np.int64)
    return before, (places - before).astype(np.float32)


@functools.lru_cache(maxsize=256)
def _bins(size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Adaptive pooling: first and last of ``count`` bins that each pixel is in (size, 2), and the bins' widths."""
    bins = np.arange(count)
    starts, ends = bins * size // max(count, 1), -((-(bins + 1) * size) // max(count, 1))
    inside = (np.arange(size)[:, None] >= starts) & (np.arange(size)[:, None] < ends)
    edges = np.zeros((size, 2), np.int64)
    edges[:, 1] = -1
    if count:
        edges[:, 0], edges[:, 1] = inside.argmax(1), count - 1 - inside[:, ::-1].argmax(1)
    return edges, (ends - starts).astype(np.float64)
