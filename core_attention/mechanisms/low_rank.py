"""Low-rank attention pooling: tokens to one vector, a summary a head, in linear time and with few parameters."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from core_attention.contract import MechanismError, MixerOutput, TokenMixer
from core_attention.registry import mechanism

CONTEXTS = ("learned", "mean")


@mechanism(name="low_rank", paper="arXiv 1912.00835", year=2019, complexity="L", memory="L", kind="pool", mask=True)
class LowRank(TokenMixer):
    """Pool tokens by H heads that score each token against one context through matrices of rank one.

        score of head i:   c^T p_i q_i^T x_t = (p_i . c) (q_i . x_t)
        G_t = tanh(P^T c * Q^T x_t), divided by its length over the heads       A = softmax_t(scale G)
        y = W flatten(A X)

    The context c is learned, or the mean of the valid tokens. As lengths over the heads are one, scores lie between -1
    and 1 and the largest weight is at most e^2 times the smallest: with many tokens the pooling is nearly a mean, which
    ``scale`` sharpens. O(T C H) time, O(T (C + H)) memory; 2 C H parameters beside those of W (H C^2 + C) and c (C).

    Source: LAMA (arXiv 1912.00835), low-rank bilinear scores; no code was released. W makes one vector of the H
    summaries of C channels.

    Args:
        dim: channels C.
        num_heads: heads H, at least 2: the score of one head would be a sign, once divided by its length.
        context: "learned" (a vector, as the paper's plain form) or "mean" (of the tokens, as its form with context).
        scale: factor of the scores; 1 as published.
        eps: a token whose scores are no longer than this over the heads counts as scored zero, with zero gradient.

    Raises:
        MechanismError: fewer than 2 heads, an unknown context, a scale or eps that is not positive.

    Example:
        >>> import torch
        >>> out = LowRank(16, 4)(torch.randn(2, 5, 16), maps=True)
        >>> out.y.shape, out.aux["maps"].shape, out.aux["heads"].shape
        (torch.Size([2, 16]), torch.Size([2, 4, 5]), torch.Size([2, 4, 16]))
    """

    def __init__(
        self, dim: int, num_heads: int = 8, *, context: str = "learned", scale: float = 1.0, eps: float = 1e-8
    ) -> None:
        super().__init__(dim, num_heads)
        if num_heads < 2:
            raise MechanismError("low_rank: num_heads is 1, expected at least 2: the score of one head is a mere sign")
        if context not in CONTEXTS:
            raise MechanismError(f"low_rank: context is {context!r}, expected one of {', '.join(CONTEXTS)}")
        for label, value in (("scale", scale), ("eps", eps)):
            if not 0 < value < math.inf:
                raise MechanismError(f"low_rank: {label} is {value}, expected a positive number")
        self.scale, self.eps = float(scale), float(eps)
        self.p = nn.Parameter(torch.empty(dim, num_heads))
        self.q = nn.Parameter(torch.empty(dim, num_heads))
        self.context = nn.Parameter(torch.randn(dim)) if context == "learned" else None
        self.projection = nn.Linear(num_heads * dim, dim)
        for matrix in (self.p, self.q):
            nn.init.kaiming_uniform_(matrix, a=math.sqrt(5))

    def mix(self, x: Tensor, *, mask: Tensor | None = None, maps: bool = False) -> MixerOutput:
        """Pool x (B, T, C) to (B, C); a row of padding alone gives what W makes of zeros.

        ``maps=True`` returns in ``aux`` the weights "maps" (B, H, T), and "heads" (B, H, C), the summaries before W.
        """
        if mask is not None:
            x = torch.where(mask.unsqueeze(-1), x, 0.0)
        weights = self._weights(x, mask).to(x.dtype)
        heads = weights @ x
        y = self.projection(heads.flatten(1))
        return MixerOutput(y, None, {"maps": weights, "heads": heads} if maps else {})

    def _weights(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, H, T), each head's summing to 1 over the valid tokens, at least float32."""
        wide = torch.promote_types(x.dtype, torch.float32)  # in half precision eps would be zero
        context = self._context(x, mask).to(wide) @ self.p.to(wide)  # (1 or B, H)
        scores = torch.tanh(context.unsqueeze(1) * (x @ self.q.to(x.dtype)).to(wide))  # (B, T, H)
        length = torch.linalg.vector_norm(scores, dim=-1, keepdim=True)
        # Divided by eps instead, a token of zeros would send gradients of 1 / eps to what made it.
        scores = self.scale * (scores / torch.where(length > self.eps, length, math.inf)).transpose(1, 2)
        if mask is None:
            return scores.softmax(dim=-1)
        valid = mask.unsqueeze(1)
        weights = scores.masked_fill(~valid, torch.finfo(wide).min).softmax(dim=-1)
        return torch.where(valid, weights, 0.0)  # of a row of padding alone nothing is left

    def _context(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if self.context is not None:
            return self.context.unsqueeze(0)
        if mask is None:
            return x.mean(dim=1)
        return x.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)  # padding is zero already
