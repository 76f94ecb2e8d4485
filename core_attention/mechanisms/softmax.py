"""Scaled dot-product attention, on torch's fused kernels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_attention.contract import MechanismError, MixerOutput
from core_attention.diagnostics import attention_maps
from core_attention.layers import ProjectedMixer
from core_attention.masks import attention_mask
from core_attention.registry import mechanism
from core_attention.state import KeyValueState, append


@mechanism(
    name="softmax",
    paper="arXiv 1706.03762",
    year=2017,
    complexity="L^2",
    memory="L",
    causal=True,
    context=True,
    mask=True,
    streaming=True,
)
class Softmax(ProjectedMixer):
    """Multi-head attention: each token takes a softmax-weighted mean of the values.

    softmax(Q K^T / sqrt(D)) V for every head. O(T S C) time; memory O(T C) through torch's fused attention, O(T S)
    where a mask is given with ``causal``, and with ``maps=True``. Source: Attention is all you need (arXiv 1706.03762),
    equation 1.

    Args:
        dim: channels C.
        num_heads: heads H.
        causal: a token sees itself and earlier ones only; ``state`` then carries keys and values from piece to piece.
        dropout: probability of dropping an attention weight while training.
        qkv_bias: whether query, key and value projections have a bias.
        out_bias: whether the output projection has one.
        query_temperature: scores are divided by it, one number or one per head (H,): above 1 flattens the weights.
        output_scale: the mixed values are multiplied by it before the output projection.

    Raises:
        MechanismError: sizes that do not fit, a dropout outside [0, 1), a temperature that is not positive.

    Example:
        >>> import torch
        >>> out = Softmax(16, 4)(torch.randn(2, 5, 16), context=torch.randn(2, 7, 16), maps=True)
        >>> out.y.shape, out.aux["maps"].shape
        (torch.Size([2, 5, 16]), torch.Size([2, 4, 5, 7]))
    """

    query_scale: Tensor | None

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        causal: bool = False,
        dropout: float = 0.0,
        qkv_bias: bool = True,
        out_bias: bool = True,
        query_temperature: float | Tensor | None = None,
        output_scale: float | None = None,
    ) -> None:
        super().__init__(dim, num_heads, qkv_bias=qkv_bias, out_bias=out_bias)
        if not 0 <= dropout < 1:
            raise MechanismError(f"softmax: dropout is {dropout}, expected at least 0 and below 1")
        self.causal, self.dropout, self.output_scale = causal, dropout, output_scale
        # Places for a norm of queries and keys (replace_attention fills them); they add no parameter by themselves.
        self.query_norm: nn.Module = nn.Identity()
        self.key_norm: nn.Module = nn.Identity()
        self.register_buffer("query_scale", _inverse(query_temperature, num_heads), persistent=False)

    def mix(
        self,
        x: Tensor,
        *,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
        state: KeyValueState | None = None,
        maps: bool = False,
    ) -> MixerOutput:
        """Attend from x to itself, or to the context. ``maps=True`` returns the weights (B, H, T, S) in ``aux``."""
        if context is not None and (self.causal or state is not None):
            raise MechanismError("softmax: a context has no order with x; causal and state are for self-attention")
        if state is not None and not self.causal:
            raise MechanismError("softmax: state needs causal=True, for otherwise earlier tokens see later ones")
        q, k, v = (heads.transpose(1, 2) for heads in self.project(x, context))
        q, k = self.query_norm(q), self.key_norm(k)
        if self.query_scale is not None:
            q = q * self.query_scale.to(q.dtype)
        kept = append(state, k, v, mask if context is None else context_mask)
        y, aux = self._attend(q, kept, maps)
        if self.output_scale is not None:
            y = y * self.output_scale
        return MixerOutput(self.merge(y.transpose(1, 2)), kept if self.causal else None, aux)

    def _attend(self, q: Tensor, kept: KeyValueState, maps: bool) -> tuple[Tensor, dict[str, Tensor]]:
        queries, keys = q.shape[2], kept.keys.shape[2]
        # torch's own causal flag needs no mask in memory; it fits only where queries and keys start together.
        plain = self.causal and kept.valid is None and queries == keys and not maps
        order = self.causal and not plain and queries > 1
        allowed = attention_mask(kept.valid, queries, keys, order, q.device)
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, kept.keys, kept.values, allowed, dropout_p=dropout, is_causal=plain)
        return y, ({"maps": attention_maps(q, kept.keys, allowed)} if maps else {})


def _inverse(temperature: float | Tensor | None, num_heads: int) -> Tensor | None:
    if temperature is None:
        return None
    value = torch.as_tensor(temperature, dtype=torch.get_default_dtype())
    if value.numel() not in (1, num_heads):
        raise MechanismError(f"softmax: query_temperature has {value.numel()} values, expected 1 or {num_heads}")
    if not bool((value > 0).all()):
        raise MechanismError("softmax: query_temperature is not positive everywhere")
    return value.reciprocal().reshape(-1, 1, 1)
