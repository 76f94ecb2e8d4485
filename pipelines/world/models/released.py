"""Two memories of the released FluidWorld that the paper does not have; both change without a gradient."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import RMSNorm

__all__ = ["DeltaNet", "TitansMemory"]


class DeltaNet(nn.Module):
    """A linear memory of keys and values, corrected by what it got wrong: u (B, h, w, d) to a correction of that shape.

    With k = elu(K u) + 1 of length 1 and b = sigmoid(W_b u), per head: S <- .95 S; the correction reads S Q u; then
    S <- clamp(S + mean(b (V u - S k)) mean(k)^T, -10, 10), means over all places. S has no gradient. O(h w d^2) time,
    O(d^2) state.

    Args:
        dim: channels d.
        heads: they divide d.

    Source: the released code of FluidWorld (arXiv 2603.21315); the delta rule is that of arXiv 2406.06484.

    Example:
        >>> net = DeltaNet(8)
        >>> correction, state = net(torch.ones(2, 3, 3, 8), net.start(torch.zeros(2, 8, 3, 3)))
        >>> correction.shape, state.shape
        (torch.Size([2, 3, 3, 8]), torch.Size([2, 4, 2, 2]))
    """

    def __init__(self, dim: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.k_proj = nn.Linear(dim, dim, bias=False)
        self.v_proj = nn.Linear(dim, dim, bias=False)
        self.beta_proj = nn.Linear(dim, heads, bias=False)
        self.out_proj = nn.Linear(dim, dim, bias=False)
        self.norm = RMSNorm(dim, eps=1e-8)

    def start(self, features: Tensor) -> Tensor:
        """An empty memory (B, heads, D, D) for features (B, d, h, w)."""
        batch, dim = features.shape[:2]
        return features.new_zeros(batch, self.heads, dim // self.heads, dim // self.heads)

    def forward(self, u: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """The correction, and the memory after."""
        tokens = u.flatten(1, 2)
        memory = memory * 0.95
        read = torch.einsum("bhij,bnhj->bnhi", memory, self._headed(self.q_proj, tokens))
        correction = self.out_proj(self.norm(read.flatten(2))).reshape(u.shape)
        with torch.no_grad():
            keys = F.elu(self._headed(self.k_proj, tokens)) + 1.0
            keys = keys / (torch.linalg.vector_norm(keys, dim=-1, keepdim=True) + 1e-6)
            wrong = self._headed(self.v_proj, tokens) - torch.einsum("bhij,bnhj->bnhi", memory, keys)
            wrong = (self.beta_proj(tokens).sigmoid()[..., None] * wrong).mean(dim=1)
            memory = (memory + wrong[..., :, None] * keys.mean(dim=1)[..., None, :]).clamp(-10.0, 10.0)
        return correction, memory

    def _headed(self, layer: nn.Linear, tokens: Tensor) -> Tensor:
        """(B, n, d) mapped, as (B, n, heads, D)."""
        return layer(tokens).unflatten(-1, (self.heads, -1))


class TitansMemory(nn.Module):
    """Slots that are written by what surprises: memory h (B, d) and the field's mean (B, d) to the next h.

    r is the slots' mean with softmax weights of the query W_q h to their keys; h <- h + r. With surprise
    s = sigmoid(W_s [r, mean]) and softmax weights p of the key W_k mean to the keys, slot i changes by
    p_i sigmoid(eta) s (W_v mean - r) and its key by .01 p_i (W_k mean - key). Keys and slots have no gradient.
    O(slots d + d^2) time.

    Args:
        dim: channels d.
        slots: how many.

    Source: the released code of FluidWorld (arXiv 2603.21315), after Titans (arXiv 2501.00663).

    Example:
        >>> titans = TitansMemory(8, slots=4)
        >>> keys, slots = titans.start(torch.zeros(2, 8, 3, 3), fresh=False)
        >>> titans(torch.zeros(2, 8), torch.ones(2, 8), keys, slots)[0].shape
        torch.Size([2, 8])
    """

    def __init__(self, dim: int, slots: int = 32) -> None:
        super().__init__()
        self.slots = slots
        self.write_key = nn.Linear(dim, dim, bias=False)
        self.write_value = nn.Linear(dim, dim, bias=False)
        self.read_query = nn.Linear(dim, dim, bias=False)
        self.surprise_gate = nn.Sequential(nn.Linear(2 * dim, dim), nn.Sigmoid())
        self.eta = nn.Parameter(torch.full((dim,), 0.1))

    def start(self, features: Tensor, *, fresh: bool) -> tuple[Tensor, Tensor]:
        """Keys and slots (B, slots, d), normal with deviation .01: ``fresh`` from torch's generator, else always the
        same and the same for every sample."""
        batch, dim = features.shape[:2]
        shape, like = (batch if fresh else 1, self.slots, dim), {"device": features.device, "dtype": features.dtype}
        if fresh:
            slots = torch.randn(shape, **like) * 0.01
            return torch.randn(shape, **like) * 0.01, slots
        generator = torch.Generator().manual_seed(0)
        slots, keys = (torch.randn(shape, generator=generator).mul_(0.01).to(**like) for _ in range(2))
        return keys.repeat(batch, 1, 1), slots.repeat(batch, 1, 1)

    def forward(self, h: Tensor, mean: Tensor, keys: Tensor, slots: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next memory, keys and slots."""
        scale = h.shape[1] ** 0.5
        weights = (torch.einsum("bc,bmc->bm", self.read_query(h), keys) / scale).softmax(dim=-1)
        found = torch.einsum("bm,bmc->bc", weights, slots)
        with torch.no_grad():
            surprise = self.surprise_gate(torch.cat([found, mean], dim=-1))
            key = self.write_key(mean)
            place = (torch.einsum("bc,bmc->bm", key, keys) / scale).softmax(dim=-1)[..., None]
            slots = slots + place * (self.eta.sigmoid() * surprise * (self.write_value(mean) - found))[:, None]
            keys = keys + place * (key[:, None] - keys) * 0.01
        return h + found, keys, slots
