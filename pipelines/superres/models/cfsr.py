"""CFSR of arXiv 2401.05633: small images to large ones by blocks of large-kernel gates and edge-preserving nets.

`CFSR` is both graphs of the paper: the one that trains, with edge branches, and the one that runs, which `CFSR.merge`
makes of it. `from_official` reads the checkpoints of the released code, of either graph and any scale.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_attention import MechanismError, build, spec
from pipelines.errors import ConfigError, InputError, WeightsError
from pipelines.official import agree, check_shapes
from pipelines.superres.models import banded
from pipelines.superres.models.edge import BRANCHES, EdgeFeedForward, edge_masks

__all__ = ["CFSR", "from_official"]

_MEAN = (0.4488, 0.4371, 0.4040)  # of red, green and blue, as released; other numbers of channels are not shifted
_SMALL = 1e-6  # layer scales at the start: every block begins as the identity
_OWN = "large_kernel"


class CFSR(nn.Module):
    """Enlarge images by a whole factor; x (B, channels, h, w) in [0, 1] -> (B, channels, scale h, scale w).

    A 3x3 convolution gives features; groups of blocks, each a mixer and a feed-forward net with layer scales, refine
    them; a 3x3 convolution of the normalised result is added to the first features, and another one makes scale^2
    pixels of each. Nothing is ever reduced in size: any h and w, 1 included. The result is not clipped to [0, 1]. A
    pixel of it depends on at most ``reach`` pixels of x in each direction.

    Two graphs: with ``edges`` the feed-forward nets have their trainable edge branches; `merge` folds them into one
    convolution for use, exactly.

    Args:
        scale: whole factor, at least 1.
        dim: channels of the features.
        depths: blocks of each group.
        kernel: odd width of the large kernels.
        ratio: channels inside the feed-forward nets, in multiples of dim.
        channels: 3 for colour, 1 for grey.
        edges: the training graph; False: the merged one.
        legacy_masks: the edge masks as released, which are not quite Sobel's and Laplace's.
        img_range: what 1.0 stands for inside the net.
        attention: any mixer of two-dimensional grids of any size, "large_kernel" as in the paper.
        heads: of a mixer that has heads.
        mixer_options: further options of another mixer.

    Raises:
        ConfigError: a size that is not a positive whole number, a mechanism that does not exist or does not fit.

    Time O(h w dim (kernel^2 + (3 + 2 ratio) dim)) a block, memory O(h w dim). Source: CFSR (arXiv 2401.05633), section
    3; 291,324, 297,819 and 306,912 parameters merged for 2, 3 and 4, the paper's.

    Example:
        >>> model = CFSR(scale=4)
        >>> sum(p.numel() for p in model.merge().parameters())
        306912
        >>> model(torch.rand(1, 3, 5, 7)).shape
        torch.Size([1, 3, 20, 28])
    """

    mean: Tensor

    def __init__(
        self,
        scale: int = 2,
        *,
        dim: int = 48,
        depths: tuple[int, ...] = (6, 6),
        kernel: int = 9,
        ratio: int = 2,
        channels: int = 3,
        edges: bool = True,
        legacy_masks: bool = False,
        img_range: float = 1.0,
        attention: str = _OWN,
        heads: int = 4,
        mixer_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        depths = tuple(depths)
        _check_sizes(scale=scale, dim=dim, ratio=ratio, channels=channels, groups=len(depths))
        _check_sizes(**{f"depths[{i}]": depth for i, depth in enumerate(depths)})
        if not 0 < img_range < float("inf"):
            raise ConfigError("not a range", where="img_range", found=img_range, expected="a positive number")
        self.scale, self.channels, self.edges, self.img_range = scale, channels, edges, float(img_range)
        self._arguments: dict[str, Any] = {
            "scale": scale,
            "dim": dim,
            "depths": depths,
            "kernel": kernel,
            "ratio": ratio,
            "channels": channels,
            "edges": edges,
            "legacy_masks": legacy_masks,
            "img_range": float(img_range),
            "attention": attention,
            "heads": heads,
            "mixer_options": dict(mixer_options or {}),
        }
        mean = torch.tensor(_MEAN if channels == 3 else (0.0,) * channels)
        self.register_buffer("mean", mean.view(1, channels, 1, 1), persistent=False)

        def block() -> Block:
            mixer = _mixer(attention, dim, heads, kernel, self._arguments["mixer_options"])
            return Block(dim, mixer, EdgeFeedForward(dim, ratio * dim, edges=edges, legacy=legacy_masks))

        self.conv_first = nn.Conv2d(channels, dim, 3, padding=1)
        self.layers = nn.ModuleList(Group(dim, [block() for _ in range(depth)]) for depth in depths)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.conv_after_body = nn.Conv2d(dim, dim, 3, padding=1)
        self.upsample = nn.Sequential(nn.Conv2d(dim, channels * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments: ``CFSR(**model.arguments)`` has the same tensors."""
        return {**self._arguments, "mixer_options": dict(self._arguments["mixer_options"])}

    @property
    def reach(self) -> int | None:
        """Pixels of x in each direction that a pixel of the result depends on; None where the mixer sees everything."""
        if self._arguments["attention"] != _OWN:
            return None
        return 3 + sum(self._arguments["depths"]) * (self._arguments["kernel"] // 2 + 1)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge x (B, channels, h, w).

        Raises:
            InputError: another number of axes or channels, or an empty axis.
        """
        # An exporter's symbolic sizes are not asked whether they are 0.
        empty = any(isinstance(size, int) and size == 0 for size in x.shape)
        if x.dim() != 4 or x.shape[1] != self.channels or empty:
            expected = f"(batch, {self.channels}, height, width), no axis empty"
            raise InputError("not a batch of images of this model", where="x", found=tuple(x.shape), expected=expected)
        mean = self.mean.to(x.dtype)
        first = self.conv_first(((x - mean) * self.img_range).contiguous(memory_format=torch.channels_last))
        tokens = first.permute(0, 2, 3, 1)
        groups = [group for group in self.layers if isinstance(group, Group)]
        if banded.serves(tokens, (block for group in groups for block in group.blocks)):
            tokens = banded.refine(groups, tokens).to(tokens.dtype)
        else:
            for group in groups:
                tokens = group(tokens)
        features = self.conv_after_body(self.norm(tokens).permute(0, 3, 1, 2))
        features = features + first if torch.is_grad_enabled() else features.add_(first)
        large = self.upsample(features).contiguous()
        return large / self.img_range + mean if torch.is_grad_enabled() else large.div_(self.img_range).add_(mean)

    def merge(self) -> CFSR:
        """The merged graph of this model, in eval mode: the same results by one convolution instead of branches.

        Its parameters are new ones. Of a merged model, a copy.
        """
        merged = copy.deepcopy(self)
        merged.edges = merged._arguments["edges"] = False
        for part in merged.modules():
            if isinstance(part, EdgeFeedForward):
                part.fold()
        merged.zero_grad()
        return merged.eval()


class Group(nn.Module):
    """Blocks, then a map of the channels that is added: x (B, H, W, C) to the same shape."""

    def __init__(self, dim: int, blocks: list[Block]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.conv = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """W y + y of the blocks' result y, as one map W + 1."""
        for block in self.blocks:
            x = block(x)
        return F.linear(x, self.conv.weight.flatten(1), self.conv.bias) + x


class Block(nn.Module):
    """x + g1 mixer(x), then x + g2 net(x): (B, H, W, C) to the same shape."""

    def __init__(self, dim: int, mixer: nn.Module, net: EdgeFeedForward) -> None:
        super().__init__()
        self.layer_scale_1 = nn.Parameter(torch.full((dim,), _SMALL))
        self.layer_scale_2 = nn.Parameter(torch.full((dim,), _SMALL))
        self.attn, self.mlp = mixer, net

    def forward(self, x: Tensor) -> Tensor:
        """Mix pixels, then channels."""
        x = x + self.attn(x, scale=self.layer_scale_1).y
        return x + self.mlp(x, self.layer_scale_2)


class NormedMixer(nn.Module):
    """Any other mechanism in the place of the paper's: normalised before, scaled after."""

    def __init__(self, dim: int, mixer: nn.Module) -> None:
        super().__init__()
        self.norm, self.mixer = nn.LayerNorm(dim, eps=1e-6), mixer

    def forward(self, x: Tensor, scale: Tensor) -> Any:
        """What the mechanism returns, its tokens times ``scale`` (C,)."""
        mixed = self.mixer(self.norm(x))
        return mixed._replace(y=mixed.y * scale)


def _mixer(attention: str, dim: int, heads: int, kernel: int, options: Mapping[str, Any]) -> nn.Module:
    try:
        about = spec(attention)
        if about.kind != "mixer" or 2 not in about.grid or about.extras or about.fixed_length:
            raise ConfigError(
                f"{attention} does not mix images of any size",
                where="attention",
                cure="`pipelines mechanisms` lists what there is; large_kernel is CFSR's own",
            )
        if attention == _OWN:
            return build(attention, dim, heads, kernel=kernel, norm=True, **options)
        return NormedMixer(dim, build(attention, dim, heads, **options))
    except MechanismError as error:
        raise ConfigError(str(error), where="attention", cure="`pipelines mechanisms` lists what there is") from error


def _check_sizes(**sizes: object) -> None:
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError("not a size", where=name, found=value, expected="a positive whole number")


#: Keys of the training graph that the merged one has not, from a block's name on.
_BRANCH = rf"mlp[.](?:(?:scale|mask)_(?:{'|'.join(BRANCHES)})|(?:{'|'.join(BRANCHES)})_bias)"
_BLOCK = r"layers[.](\d+)[.]blocks[.](\d+)[.]"


def from_official(
    state_dict: Mapping[str, Any],
    *,
    in_chans: int | None = None,
    embed_dim: int | None = None,
    depths: Sequence[int] | None = None,
    dw_size: int | None = None,
    mlp_ratio: float | None = None,
    upscale: int | None = None,
    img_range: float = 1.0,
    upsampler: str | None = None,
) -> CFSR:
    """The CFSR of a released state dict, merged or of the training graph, in eval mode; its forward is the released.

    Sizes and the scale are read off the tensors, and what is given is held against them. A training graph keeps its
    branches and the masks that it was trained with, the released ones (``legacy_masks``) or the right ones.

    Args:
        state_dict: tensors by the released names, also below "params_ema" or "params" as BasicSR saves them.
        in_chans, embed_dim, depths, dw_size, mlp_ratio, upscale: the released constructor's names for channels, dim,
            depths, kernel, ratio and scale.
        img_range: what 1.0 stands for inside the net, which no tensor shows.
        upsampler: "pixelshuffledirect", the only one that the released weights use.

    Raises:
        WeightsError: tensors missing, unexpected or of other shapes, masks of neither kind, an argument that
            contradicts.

    Complexity: O(bytes).

    Example:
        >>> from_official({"conv_first.weight": torch.zeros(48, 3, 3, 3)})
        Traceback (most recent call last):
        pipelines.errors.WeightsError: not a state dict of cfsr. Found: conv_first.weight. Expected: ...
    """
    for key in ("params_ema", "params"):
        if isinstance(state_dict.get(key), Mapping):
            state_dict = state_dict[key]
            break
    sizes = _official_sizes(state_dict)
    agree("in_chans", in_chans, sizes["channels"])
    agree("embed_dim", embed_dim, sizes["dim"])
    agree("depths", None if depths is None else tuple(depths), sizes["depths"])
    agree("dw_size", dw_size, sizes["kernel"])
    agree("mlp_ratio", mlp_ratio, sizes["ratio"])
    agree("upscale", upscale, sizes["scale"])
    agree("upsampler", upsampler, "pixelshuffledirect")
    edges = any(re.fullmatch(_BLOCK + _BRANCH, key) for key in state_dict)
    model = CFSR(**sizes, edges=edges, legacy_masks=edges and _has_legacy_masks(state_dict), img_range=img_range)
    tensors = check_shapes(model, state_dict, name="cfsr")
    for key, expected in model.named_buffers():
        if key in tensors and not torch.equal(tensors[key].to(expected.dtype), expected):
            problem = "an edge mask is neither the released one nor the right one"
            raise WeightsError(problem, where=key, found=tensors[key][0].flatten().tolist())
    model.load_state_dict(tensors)
    return model.eval()


def _has_legacy_masks(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the first Laplacian of a training graph is the released one."""
    stored = next((value for key, value in state_dict.items() if key.endswith("mlp.mask_laplacian")), None)
    legacy = edge_masks(legacy=True)["laplacian"]
    return stored is not None and stored.shape[1:] == (1, 3, 3) and bool((stored[:1, 0].float() == legacy).all())


def _official_sizes(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    shapes: dict[str, tuple[int, ...]] = {key: tuple(getattr(value, "shape", ())) for key, value in state_dict.items()}
    places = {(int(m[1]), int(m[2])) for key in shapes if (m := re.match(_BLOCK, key))}
    groups = max((group for group, _ in places), default=-1) + 1
    first = "layers.0.blocks.0."
    try:
        dim, channels, _, _ = shapes["conv_first.weight"]
        hidden, kernel = shapes[first + "mlp.fc1.weight"][0], shapes[first + "attn.a.2.lkb_reparam.weight"][2]
        pixels = shapes["upsample.0.weight"][0] // channels
        if hidden % dim or not pixels or math.isqrt(pixels) ** 2 != pixels:
            raise ValueError("no whole ratio or scale")
    except (KeyError, ValueError, IndexError, ZeroDivisionError):
        raise WeightsError(
            "not a state dict of cfsr",
            found=", ".join(list(shapes)[:4]) or "no tensor",
            expected=f"conv_first.weight, {first}mlp.fc1.weight, {first}attn.a.2.lkb_reparam.weight, upsample.0.weight",
        ) from None
    depths = tuple(max((block for of, block in places if of == group), default=0) + 1 for group in range(groups))
    sizes = {"scale": math.isqrt(pixels), "dim": dim, "kernel": kernel, "ratio": hidden // dim, "channels": channels}
    return {**sizes, "depths": depths}
