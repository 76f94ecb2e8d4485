"""Attention whose scores are weighted by how much each token is known beforehand to tell."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from core_attention.contract import MechanismError, MixerOutput
from core_attention.diagnostics import attention_maps
from core_attention.layers import ProjectedMixer
from core_attention.masks import attention_mask
from core_attention.registry import mechanism

FORMS = ("product", "log")
PAIRS = ("both", "key")


@mechanism(
    name="prior_enhanced",
    paper="arXiv 2412.16515",
    year=2024,
    complexity="L^2",
    memory="L",
    mask=True,
    extras=("prior",),
)
class PriorEnhanced(ProjectedMixer):
    """Multi-head attention whose scores are weighted by a prior of each token: what tells classes apart counts more.

    With priors a in [0, 1], P[i, j] = sqrt(a_i a_j) (``pairs="both"``) or a_j ("key") and S = Q K^T / sqrt(D):

        form="product"   softmax(S * P) V, as the paper writes it
        form="log"       softmax(S + log P) V, weights multiplied by P before they are normalised

    The product pulls scores of little prior towards zero, so it *raises* negative ones: a token of prior 0 still gets
    the weight of a score of 0. The logarithm always lowers them. In both, what a query's own prior does cancels or
    melts into the queries, so that no T x T matrix is stored: O(T^2 C) time, O(T C) memory through torch's fused
    attention. Source: VSFormer (arXiv 2412.16515), prior-enhanced self-attention; no code was released, so that the
    pairing and the logarithmic form are our reading.

    Args:
        dim: channels C.
        num_heads: heads H.
        form: "product" or "log".
        pairs: "both" or "key".
        floor: priors below it count as this much in the logarithmic form, so that no token vanishes altogether.
        dropout: probability of dropping an attention weight while training.
        qkv_bias: whether query, key and value projections have a bias.
        out_bias: whether the output projection has one.

    Raises:
        MechanismError: sizes that do not fit, an unknown form or pairing, a floor outside (0, 1], a dropout outside
            [0, 1), a prior of another shape than (B, T).

    Example:
        >>> import torch
        >>> mixer = PriorEnhanced(16, 4)
        >>> mixer(torch.randn(2, 5, 16), prior=torch.rand(2, 5)).y.shape
        torch.Size([2, 5, 16])
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        form: str = "product",
        pairs: str = "both",
        floor: float = 1e-3,
        dropout: float = 0.0,
        qkv_bias: bool = True,
        out_bias: bool = True,
    ) -> None:
        super().__init__(dim, num_heads, qkv_bias=qkv_bias, out_bias=out_bias)
        for label, value, known in (("form", form, FORMS), ("pairs", pairs, PAIRS)):
            if value not in known:
                raise MechanismError(f"prior_enhanced: {label} is {value!r}, expected one of {', '.join(known)}")
        if not 0 < floor <= 1:
            raise MechanismError(f"prior_enhanced: floor is {floor}, expected above 0 and at most 1")
        if not 0 <= dropout < 1:
            raise MechanismError(f"prior_enhanced: dropout is {dropout}, expected at least 0 and below 1")
        self.form, self.pairs, self.floor, self.dropout = form, pairs, floor, dropout

    def example_extras(self, x: Tensor) -> dict[str, Tensor]:
        """Priors that fit x."""
        generator = torch.Generator().manual_seed(1)
        return {"prior": torch.rand(x.shape[:2], generator=generator).to(x)}

    def mix(self, x: Tensor, *, prior: Tensor, mask: Tensor | None = None, maps: bool = False) -> MixerOutput:
        """Attend from x to itself; prior (B, T) in [0, 1]. ``maps=True`` returns weights (B, H, T, T) in ``aux``."""
        if prior.shape != x.shape[:2]:
            raise MechanismError(
                f"prior_enhanced: prior has shape {tuple(prior.shape)}, expected {tuple(x.shape[:2])}, one a token"
            )
        q, k, v = (heads.transpose(1, 2) for heads in self.project(x))
        weight = prior.to(q.dtype)[:, None, :, None]  # over heads and channels
        allowed = attention_mask(mask, x.shape[1], x.shape[1], False, x.device)
        if self.form == "product":
            # (sqrt(a_i) q_i) . (sqrt(a_j) k_j) = sqrt(a_i a_j) q_i . k_j
            root = weight.clamp_min(0).sqrt() if self.pairs == "both" else weight
            q, k = (q * root if self.pairs == "both" else q), k * root
            bias = allowed
        else:
            power = 0.5 if self.pairs == "both" else 1.0  # a query's own share is the same for all keys: it cancels
            lowered = power * weight.clamp_min(self.floor).log().squeeze(-1)[:, :, None]  # (B, 1, 1, T)
            bias = lowered if mask is None else _hidden(lowered, mask)
        y = F.scaled_dot_product_attention(q, k, v, bias, dropout_p=self.dropout if self.training else 0.0)
        if mask is not None:
            y = torch.where(mask.any(-1)[:, None, None, None], y, 0.0)  # a sample of padding alone attends to nothing
        return MixerOutput(self.merge(y.transpose(1, 2)), None, {"maps": attention_maps(q, k, bias)} if maps else {})


def _hidden(bias: Tensor, mask: Tensor) -> Tensor:
    """The bias (B, 1, 1, T) with padding at minus infinity; where all is padding nothing is, for its softmax is NaN."""
    hide = ~mask & mask.any(-1, keepdim=True)
    return bias.masked_fill(hide[:, None, None, :], float("-inf"))
