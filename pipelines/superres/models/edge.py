"""CFSR's feed-forward net with edge filters, which train as branches and run as one convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_attention.mechanisms.large_kernel import pointwise, scaled
from pipelines.errors import ConfigError

__all__ = ["BRANCHES", "EdgeFeedForward", "edge_masks"]

BRANCHES = ("sobel_x", "sobel_y", "laplacian")
_MASKS = {
    "sobel_x": [[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]],
    "sobel_y": [[1.0, 2.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -1.0]],
    "laplacian": [[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]],
}
# As released: a number of the first row stands one place off in two of the three, so that their sums are not zero.
_LEGACY = {
    **_MASKS,
    "sobel_x": [[0.0, 1.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]],
    "laplacian": [[1.0, 0.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]],
}


def edge_masks(legacy: bool = False) -> dict[str, Tensor]:
    """The filters (3, 3) of the branches by name: Sobel's two and Laplace's, or as the released code writes them.

    Example:
        >>> float(edge_masks()["laplacian"].sum()), edge_masks(legacy=True)["laplacian"][0].tolist()
        (0.0, [1.0, 0.0, 0.0])
    """
    return {name: torch.tensor(rows) for name, rows in (_LEGACY if legacy else _MASKS).items()}


class EdgeFeedForward(nn.Module):
    """A feed-forward net of pixels with a 3x3 depthwise filter inside: the edge-preserving FFN (EFN).

    z = GELU(W1 LN(x)); y = W2 (z + GELU(e)) with e = DW(z), a depthwise convolution of 3x3. With ``edges`` the filters
    are sums, W = W_pos + c_x S_x + c_y S_y + c_l L, of a free filter and three fixed edge masks with a factor a
    channel; the bias is the sum of four. Convolutions are linear in their filters, so that one convolution with the sum
    is the four convolutions of the equation, gradients included, at a quarter of the work. O(H W C hidden).

    Args:
        dim: channels C.
        hidden: channels inside.
        edges: whether the branches are there (the training graph).
        legacy: the released masks instead of the right ones.

    Source: CFSR (arXiv 2401.05633), section 3.3.
    """

    def __init__(self, dim: int, hidden: int, *, edges: bool = True, legacy: bool = False) -> None:
        super().__init__()
        self.edges = edges
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.pos = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Conv2d(hidden, dim, 1)
        for name, mask in edge_masks(legacy).items() if edges else ():
            self.register_parameter(f"scale_{name}", nn.Parameter(1e-3 * torch.randn(hidden, 1, 1, 1)))
            self.register_parameter(f"{name}_bias", nn.Parameter(1e-3 * torch.randn(hidden)))
            self.register_buffer(f"mask_{name}", mask.expand(hidden, 1, 3, 3).clone())

    def filters(self) -> tuple[Tensor, Tensor]:
        """The filters (hidden, 1, 3, 3) and biases (hidden,) of the one convolution that all branches are."""
        weight, bias = self.pos.weight, self.pos.bias
        if bias is None:
            raise ConfigError("the depthwise convolution has lost its bias", where="mlp.pos")
        if self.edges:
            for name in BRANCHES:
                weight = weight + getattr(self, f"scale_{name}") * getattr(self, f"mask_{name}")
                bias = bias + getattr(self, f"{name}_bias")
        return weight, bias

    def fold(self) -> None:
        """Make the sum the only filter and forget the branches, for good: what `filters` returns stays the same."""
        with torch.no_grad():
            weight, bias = self.filters()
        self.pos.weight, self.pos.bias = nn.Parameter(weight), nn.Parameter(bias)
        for name in BRANCHES if self.edges else ():
            for part in (f"scale_{name}", f"{name}_bias", f"mask_{name}"):
                delattr(self, part)
        self.edges = False

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        """Map x (B, H, W, C) to the same shape, times ``scale`` (C,)."""
        z = F.gelu(pointwise(self.norm(x), self.fc1.weight, self.fc1.bias))
        weight, bias = self.filters()
        edges = F.conv2d(z.permute(0, 3, 1, 2), weight, bias, padding=1, groups=len(weight)).permute(0, 2, 3, 1)
        return pointwise(z + F.gelu(edges), *scaled(self.fc2, scale))
