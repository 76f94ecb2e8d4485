"""Attention whose queries, keys and values are learned mixtures of convolutions, over tokens or over features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_attention.contract import MechanismError, MixerOutput, TokenMixer
from core_attention.diagnostics import attention_maps
from core_attention.registry import mechanism

__all__ = ["DynamicConv", "FilterMixture"]

FORMS = ("temporal", "spatial")
_WIDEST = 31


class FilterMixture(nn.Module):
    """n one-dimensional convolutions of one input, added with learned shares that sum to one.

    A sum of convolutions is the convolution with the sum of their filters, so that only one of the widest size is ever
    done: `mixed` gives its weights. O(n N^2 K) for it, whatever the input.

    Args:
        channels: channels N, of the input and of the output.
        kernels: the n widths of the filters, odd numbers from 1 to 31.

    Raises:
        MechanismError: no width, or one that is not such a number.

    Example:
        >>> weight, bias = FilterMixture(8, (3, 5, 7)).mixed()
        >>> weight.shape, bias.shape
        (torch.Size([8, 8, 7]), torch.Size([8]))
    """

    def __init__(self, channels: int, kernels: Sequence[int]) -> None:
        super().__init__()
        self.kernels = _widths(kernels)
        self.filters = nn.ParameterList(nn.Parameter(torch.empty(channels, channels, k)) for k in self.kernels)
        self.bias = nn.Parameter(torch.empty(len(self.kernels), channels))
        self.eta = nn.Parameter(torch.zeros(len(self.kernels)))
        with torch.no_grad():
            for bias, k in zip(self.bias, self.kernels, strict=True):
                bias.uniform_(-((channels * k) ** -0.5), (channels * k) ** -0.5)
            for weight, k in zip(self.filters, self.kernels, strict=True):
                weight.uniform_(-((channels * k) ** -0.5), (channels * k) ** -0.5)  # as torch starts a convolution

    @property
    def shares(self) -> Tensor:
        """The factors of the filters (n,): positive, summing to one."""
        return self.eta.softmax(dim=0)

    def mixed(self) -> tuple[Tensor, Tensor]:
        """Weight (N, N, K) and bias (N,) of the one convolution that equals the mixture, K the widest filter."""
        shares, widest = self.shares, max(self.kernels)
        weight = None
        for share, filters, k in zip(shares.unbind(), self.filters, self.kernels, strict=True):
            part = share * F.pad(filters, ((widest - k) // 2,) * 2)
            weight = part if weight is None else weight + part
        if weight is None:
            raise MechanismError("dynamic_conv: no filters")
        return weight, shares @ self.bias


@mechanism(
    name="dynamic_conv",
    paper="arXiv 2304.02147",
    year=2023,
    complexity="L^2",
    memory="L",
    fixed_length=True,
)
class DynamicConv(TokenMixer):
    """Multi-head attention with queries, keys and values from learned mixtures of convolutions, not from linear maps.

        Q = sum_i eta_i (K_i * X)       and so K and V, each with filters K_i and shares eta of its own
        y = P (softmax(Q K^T / sqrt(D)) V)      for every head

    "spatial": the convolution's channels are the C features, and it slides over the tokens, whose order therefore
    matters. "temporal": its channels are the T tokens, and it slides over the features, so that every token mixes the
    neighbouring features of all tokens; T is then part of the weights. Ends are filled with zeros. P is a map along the
    axis of the channels, C x C or T x T. With one kernel of width 1 the spatial form is ordinary attention.

    The mixture is made of the filters, not of results (see `FilterMixture`): one convolution for Q, K and V together,
    whatever the number of kernels. O(T C^2 K + T^2 C) time (spatial) or O(T^2 C K) (temporal), O(T C) memory through
    torch's fused attention, O(T^2) with ``maps=True``. Padding has no mask: a convolution reads its neighbours. Source:
    ConvFormer (arXiv 2304.02147), section 3.2; no code was released. That eta is the softmax of free parameters, and
    the axis of P, are ours: P fits the published parameter counts.

    Args:
        dim: channels C, a multiple of ``num_heads``.
        num_heads: heads H of D = C / H channels.
        form: "temporal" or "spatial".
        kernels: widths of the filters, odd numbers from 1 to 31; equal ones are different filters.
        length: tokens T; the temporal form needs it, the spatial form takes any number unless it is given.
        dropout: probability of dropping a number of the mixed values before P while training.

    Raises:
        MechanismError: sizes that do not fit, a dropout outside [0, 1), a temporal form without length, x with another
            number of tokens than ``length``.

    Example:
        >>> import torch
        >>> DynamicConv(16, 4, form="spatial", kernels=(3, 5))(torch.randn(2, 17, 16)).y.shape
        torch.Size([2, 17, 16])
        >>> out = DynamicConv(16, 4, length=9)(torch.randn(2, 9, 16), maps=True)
        >>> out.y.shape, out.aux["maps"].shape, out.aux["shares"].shape
        (torch.Size([2, 9, 16]), torch.Size([2, 4, 9, 9]), torch.Size([3, 3]))
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        form: str = "temporal",
        kernels: Sequence[int] = (7, 7, 7),
        length: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(dim, num_heads)
        if dim % num_heads:
            raise MechanismError(f"dynamic_conv: dim={dim} is no multiple of num_heads={num_heads}")
        if form not in FORMS:
            raise MechanismError(f"dynamic_conv: form is {form!r}, expected one of {', '.join(FORMS)}")
        if not 0 <= dropout < 1:
            raise MechanismError(f"dynamic_conv: dropout is {dropout}, expected at least 0 and below 1")
        self.form, self.length, self.dropout = form, _tokens(length, form), dropout
        channels = dim if self.length is None or form == "spatial" else self.length
        self.query = FilterMixture(channels, kernels)
        self.key = FilterMixture(channels, kernels)
        self.value = FilterMixture(channels, kernels)
        self.output = nn.Linear(channels, channels)

    def mix(self, x: Tensor, *, maps: bool = False) -> MixerOutput:
        """Mix x (B, T, C). ``maps=True`` returns weights "maps" (B, H, T, T) and "shares" (3, n) of Q, K and V."""
        if self.length is not None and x.shape[1] != self.length:
            raise MechanismError(f"dynamic_conv: x has {x.shape[1]} tokens, built for length={self.length}")
        q, k, v = self._heads(x)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        y = self._project(F.dropout(y, self.dropout, self.training))
        if not maps:
            return MixerOutput(y)
        shares = torch.stack([mixture.shares for mixture in (self.query, self.key, self.value)])
        return MixerOutput(y, None, {"maps": attention_maps(q, k, None), "shares": shares.detach()})

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, H, T, D), by one convolution."""
        parts = [mixture.mixed() for mixture in (self.query, self.key, self.value)]
        weight, bias = torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts])
        B, T, C = x.shape
        heads, padding = (self.num_heads, C // self.num_heads), weight.shape[2] // 2
        if self.form == "temporal":
            q, k, v = F.conv1d(x, weight, bias, padding=padding).view(B, 3, T, *heads).unbind(1)
        else:
            y = F.conv1d(x.transpose(1, 2), weight, bias, padding=padding).transpose(1, 2)
            # Features side by side, which torch's fused attention asks for.
            q, k, v = y.contiguous().view(B, T, 3, *heads).unbind(2)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def _project(self, y: Tensor) -> Tensor:
        """P along the axis that the convolutions mixed."""
        if self.form == "spatial":
            return self.output(y)
        weight = self.output.weight.expand(y.shape[0], -1, -1)
        return torch.baddbmm(self.output.bias[:, None], weight, y)


def _widths(kernels: Any) -> tuple[int, ...]:
    widths = tuple(kernels) if isinstance(kernels, Sequence) and not isinstance(kernels, str) else ()
    whole = all(isinstance(k, int) and not isinstance(k, bool) and 1 <= k <= _WIDEST and k % 2 for k in widths)
    if not widths or not whole:
        raise MechanismError(f"dynamic_conv: kernels is {kernels!r}, expected odd numbers from 1 to {_WIDEST}")
    return widths


def _tokens(length: Any, form: str) -> int | None:
    if length is None and form == "spatial":
        return None
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
        raise MechanismError(f"dynamic_conv: length is {length!r}, expected the number of tokens of the {form} form")
    return length
