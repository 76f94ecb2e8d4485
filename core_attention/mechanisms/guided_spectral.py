"""Attention between the spectral bands of a cube, guided by queries that are learned for the bands."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_attention.contract import MechanismError, MixerOutput, TokenMixer
from core_attention.registry import mechanism


@mechanism(
    name="guided_spectral",
    paper="arXiv 2303.09040",
    year=2023,
    complexity="D L",
    grid=(3,),
)
class GuidedSpectral(TokenMixer):
    """Bands attend to bands: one D x D map a cube, from the bands' means over space, applied to every pixel.

    x is (B, D, H, W, C): the first axis of the grid is spectral, the two others are space. With g the mean of x over
    H and W, (B, D, C), the logits A (B, D, D) are

        learned   A = g Q^T + b     with a learned query Q (num_bands, C) for each band
        self      A = g g^T         without a scale, for any number of bands

    and y = softmax(A) x V^T O^T, both maps without a bias. In training mode each call takes one of the two with
    probability 1/2 from torch's generator; in evaluation mode the learned ones. Where D is not ``num_bands``, and
    everywhere with ``flex=True`` in evaluation, the logits are the self logits: the released code refuses other
    numbers of bands. The residual belongs to the block around it. ``forward(..., learned=True)`` (or False) takes the
    choice out of chance's hands, and ``maps=True`` returns the weights in ``aux["maps"]``.

    O(D^2 H W C + D H W C^2) time for L = D H W tokens, O(D H W C + D^2) memory. Source: HSDT (arXiv 2303.09040),
    guided spectral self-attention, and the released code where the paper is silent (no scale, no biases).

    Args:
        dim: channels C.
        num_heads: has no effect, there are no heads.
        num_bands: bands that queries are learned for; None learns none (spectral self-attention).
        flex: self logits in evaluation mode too.
        pixelwise: one map for each pixel, from its own channels instead of the means; then memory is O(D^2 H W), and
            evaluation always takes the self logits, as released.

    Raises:
        MechanismError: ``num_bands`` is no positive whole number; ``learned=True`` where D is not ``num_bands``.

    Example:
        >>> import torch
        >>> mixer = GuidedSpectral(8, num_bands=5).eval()
        >>> out = mixer(torch.randn(2, 5, 4, 6, 8), maps=True)
        >>> out.y.shape, out.aux["maps"].shape
        (torch.Size([2, 5, 4, 6, 8]), torch.Size([2, 5, 5]))
        >>> mixer(torch.randn(2, 7, 4, 6, 8)).y.shape
        torch.Size([2, 7, 4, 6, 8])
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        num_bands: int | None = 31,
        flex: bool = False,
        pixelwise: bool = False,
    ) -> None:
        super().__init__(dim, num_heads)
        if num_bands is not None and (not isinstance(num_bands, int) or isinstance(num_bands, bool) or num_bands < 1):
            raise MechanismError(
                f"guided_spectral: num_bands is {num_bands!r}, expected a positive whole number or None"
            )
        self.num_bands, self.flex, self.pixelwise = num_bands, flex, pixelwise
        self.attn_proj = None if num_bands is None else nn.Linear(dim, num_bands)
        self.value_proj = nn.Linear(dim, dim, bias=False)
        self.fc = nn.Linear(dim, dim, bias=False)

    @classmethod
    def example_options(cls, grid: tuple[int, ...]) -> dict[str, Any]:
        """Queries for as many bands as the grid has."""
        return {"num_bands": grid[0]}

    def mix(self, x: Tensor, *, learned: bool | None = None, maps: bool = False) -> MixerOutput:
        """Mix the bands of x (B, D, H, W, C); ``learned`` chooses the logits, None leaves it to mode and chance."""
        use_learned = self._choose(x.shape[1], learned)
        # The two maps act on channels and the weights on bands, so that they commute, and two maps are one map.
        both = self.fc.weight @ self.value_proj.weight
        if self.pixelwise:
            pixels = x.permute(0, 2, 3, 1, 4)
            weights = self._weights(pixels, use_learned)  # (B, H, W, D, D)
            y = F.linear((weights.to(x.dtype) @ pixels).permute(0, 3, 1, 2, 4), both)
        else:
            width = torch.promote_types(x.dtype, torch.float32)
            weights = self._weights(x.mean((2, 3), dtype=width), use_learned)  # (B, D, D)
            y = map_bands(x, weights, both)
        return MixerOutput(y, None, {"maps": weights.detach()} if maps else {})

    def _choose(self, bands: int, learned: bool | None) -> bool:
        """Whether this call takes the learned logits."""
        possible = self.num_bands == bands
        if learned and not possible:
            raise MechanismError(f"guided_spectral: {bands} bands, expected {self.num_bands} with learned=True")
        if learned is not None or not possible:
            return bool(learned)
        if self.training:
            return bool(torch.rand(()) < 0.5)
        return not (self.flex or self.pixelwise)

    def _weights(self, bands: Tensor, learned: bool) -> Tensor:
        """Attention (..., D, D) between rows (..., D, C), at least in float32: unscaled logits grow large."""
        with torch.autocast(bands.device.type, enabled=False):
            bands = bands.to(torch.promote_types(bands.dtype, torch.float32))
            if learned and self.attn_proj is not None:
                weight, bias = self.attn_proj.weight.to(bands), self.attn_proj.bias.to(bands)
                return F.linear(bands, weight, bias).softmax(-1)
            return (bands @ bands.transpose(-1, -2)).softmax(-1)


def map_bands(x: Tensor, weights: Tensor, channels: Tensor) -> Tensor:
    """Mix bands by weights (B, D, D) and channels by a matrix (C, C): x (B, D, H, W, C) to the same shape.

    y[d] = sum over e of weights[d, e] channels x[e]; for the backward pass only the three operands are kept.
    O(D^2 H W C + D H W C^2) time.

    Example:
        >>> x = torch.randn(2, 3, 4, 5, 6)
        >>> bool((map_bands(x, torch.eye(3).expand(2, 3, 3), torch.eye(6)) - x).abs().max() < 1e-6)
        True
    """
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    x, weights, channels = x.to(dtype), weights.to(dtype), channels.to(dtype)
    if not torch.is_grad_enabled() or torch.compiler.is_exporting():
        return pointwise((weights @ x.flatten(2)).view(x.shape), channels)
    with torch.autocast(device, enabled=False):
        result = _MapBands.apply(x.contiguous(), weights, channels)
        return result  # noqa: RET504


def pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """A linear map of channels (..., C) to (..., out); several tokens side by side where the map is narrow.

    A product with 8 columns takes the CPU four times as long as one with 16 (measured), so that two tokens go through
    a matrix of two diagonal blocks.

    Example:
        >>> pointwise(torch.zeros(2, 4, 8), torch.zeros(3, 8)).shape
        torch.Size([2, 4, 3])
    """
    beside = _WIDE // weight.shape[0]
    traced = torch.compiler.is_compiling() or torch.compiler.is_exporting()
    # An exporter's symbolic number of tokens is not asked what divides it.
    if traced or x.device.type != "cpu" or beside < 2 or x.shape[:-1].numel() % beside:
        return F.linear(x, weight)
    blocks = torch.block_diag(*[weight.t()] * beside)
    return (x.reshape(-1, blocks.shape[0]) @ blocks).view(*x.shape[:-1], -1)


#: Columns from which on a matrix product is fast.
_WIDE = 16


class _MapBands(torch.autograd.Function):
    """`map_bands`; its gradients need no intermediate of the forward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, channels: Tensor) -> Tensor:
        ctx.save_for_backward(x, weights, channels)
        return pointwise((weights @ x.flatten(2)).view(x.shape), channels)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weights, channels = ctx.saved_tensors
        grad = grads[0].contiguous()
        to_x = to_weights = to_channels = None
        if ctx.needs_input_grad[1]:
            to_weights = pointwise(grad, channels.t()).flatten(2) @ x.flatten(2).transpose(1, 2)
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[2]:
            back = (weights.transpose(1, 2) @ grad.flatten(2)).view(x.shape)
            if ctx.needs_input_grad[0]:
                to_x = pointwise(back, channels.t())
            if ctx.needs_input_grad[2]:
                # sum of grad (weights x)^T = sum of (weights^T grad) x^T: what was mixed need not be known again.
                to_channels = back.flatten(0, -2).t() @ x.flatten(0, -2)
        return to_x, to_weights, to_channels
