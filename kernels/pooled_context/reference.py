"""Core-context attention (arXiv:2412.12465, section 3) and segment maxima (PoNet, arXiv:2110.02442) as defined.

    core of group i:   a = softmax(scale q_last k_i),  k_core = sum a k_i,  v_core = sum a v_i
    query t:           softmax over  [ cores 0 .. j - 1 ; tokens j g .. t ],   j = max(0, (t + 1 - s) // g)

One query of one head at a time, in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["pooled_context", "segment_max"]


def pooled_context(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Tensor | None = None,
    *,
    group: int = 16,
    window: int = 1024,
    scale: float | None = None,
) -> Tensor:
    """q (B, T, H, D), k (B, T, G, D), v (B, T, G, E), key_mask (B, T) -> (B, T, H, E)."""
    B, T, H, D = q.shape
    scale = D**-0.5 if scale is None else scale
    each = H // k.shape[2]
    out = []
    for b in range(B):
        valid = torch.ones(T, dtype=torch.bool, device=q.device) if key_mask is None else key_mask[b]
        heads = [
            _head(
                q[b, :, h].double(),
                k[b, :, h // each].double(),
                v[b, :, h // each].double(),
                valid,
                group,
                window,
                scale,
            )
            for h in range(H)
        ]
        out.append(torch.stack(heads, dim=1))
    return torch.stack(out).to(q.dtype)


def _head(q: Tensor, k: Tensor, v: Tensor, valid: Tensor, group: int, window: int, scale: float) -> Tensor:
    cores = []
    for first in range(0, len(q) - group + 1, group):
        part = slice(first, first + group)
        cores.append(_attend(q[first + group - 1], k[part], torch.cat([k[part], v[part]], 1), valid[part], scale))
    any_valid = [bool(valid[i * group : (i + 1) * group].any()) for i in range(len(cores))]
    rows = []
    for t in range(len(q)):
        j = max(0, (t + 1 - window) // group)
        keys = torch.stack([*(core[: k.shape[1]] for core in cores[:j]), *k[j * group : t + 1]])
        values = torch.stack([*(core[k.shape[1] :] for core in cores[:j]), *v[j * group : t + 1]])
        seen = torch.cat([torch.tensor(any_valid[:j], dtype=torch.bool, device=q.device), valid[j * group : t + 1]])
        rows.append(_attend(q[t], keys, values, seen, scale))
    return torch.stack(rows)


def _attend(query: Tensor, keys: Tensor, values: Tensor, seen: Tensor, scale: float) -> Tensor:
    """Softmax attention of one query to the keys it sees; zeros if there is none."""
    if not seen.any():
        return values[0] * 0
    return torch.softmax(keys[seen] @ query * scale, 0) @ values[seen]


def segment_max(x: Tensor, segments: Tensor, mask: Tensor | None = None) -> Tensor:
    """x (B, T, C), segments and mask (B, T) -> (B, T, C)."""
    rows = []
    for b in range(len(x)):
        valid = torch.ones_like(segments[b], dtype=torch.bool) if mask is None else mask[b]
        for t in range(x.shape[1]):
            members = valid & (segments[b] == segments[b, t])
            rows.append(x[b, members].double().amax(0) if valid[t] else x[b, t].double() * 0)
    return torch.stack(rows).view(x.shape).to(x.dtype)
