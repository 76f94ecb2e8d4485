"""HSDT of arXiv 2303.09040: a U-shaped net of separable convolutions whose attention mixes spectral bands.

`hsdt_8`, `hsdt` and `hsdt_deep` are the paper's S, M and L. `VARIANTS` lists every constructor of the released code,
ablations included, and `make` builds any of them; `from_official` reads the released checkpoints.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from core_attention import MechanismError, TokenMixer, build, registry
from pipelines.denoise.models.layers import FFN, GDFN, SMFFN, ConvLayer, CubeConv, S3Conv, SpectralBlock, Tanh
from pipelines.errors import ConfigError, InputError, WeightsError
from pipelines.official import agree, check_shapes

__all__ = ["BANDS", "HSDT", "VARIANTS", "Variant", "from_official", "make"]

#: Bands of the paper's cameras (400 to 700 nm in steps of 10), for which its queries are learned.
BANDS = 31
_FFNS = {"smffn": SMFFN, "ffn": FFN, "gdfn": GDFN, "gate": functools.partial(SMFFN, plain=False)}


@dataclass(frozen=True)
class Variant:
    """What tells one constructor of the released code from another.

    Attributes:
        in_channels: 1, or 2 where a map of the noise's level comes beside the cube.
        channels: channels after the head; doubled at each step down.
        half_layers: layers of the encoder, and of the decoder.
        down: the layers of the encoder that halve rows and columns.
        conv: convolution of the layers that keep the size: "s3", "s3_1", "seq", "sep" (`S3Conv`) or "full" (3 x 3 x 3).
        mixer: "guided", "flex" (self logits in evaluation), "self", "pixelwise" or "none" (tanh in place of a block).
        ffn: "smffn", "ffn", "gdfn" or "gate" (the modulated branch alone).
        norm: whether layers normalise.
        rgb: the input is a photograph (B, 3, H, W), which a map of its pixels turns into bands first.
    """

    in_channels: int = 1
    channels: int = 16
    half_layers: int = 5
    down: tuple[int, ...] = (1, 3)
    conv: str = "s3"
    mixer: str = "guided"
    ffn: str = "smffn"
    norm: bool = True
    rgb: bool = False


VARIANTS: dict[str, Variant] = {
    "hsdt_4": Variant(channels=4),
    "hsdt_8": Variant(channels=8),
    "hsdt": Variant(),
    "hsdt_24": Variant(channels=24),
    "hsdt_32": Variant(channels=32),
    "hsdt_deep": Variant(half_layers=7, down=(1, 3, 5)),
    "hsdt_pnp": Variant(in_channels=2),
    "hsdt_ssr": Variant(rgb=True),
    # Ablations of the attention, the feed-forward net and the convolution.
    "hsdt_pixelwise": Variant(mixer="pixelwise"),
    "hsdt_ssa": Variant(mixer="self"),
    "hsdt_ffn": Variant(ffn="ffn"),
    "hsdt_ffn_flex": Variant(ffn="ffn", mixer="flex"),
    "hsdt_gdfn": Variant(ffn="gdfn"),
    "hsdt_smffn1": Variant(ffn="gate"),
    "hsdt_conv3d": Variant(conv="full"),
    "hsdt_s3conv_sep": Variant(conv="sep"),
    "hsdt_s3conv_seq": Variant(conv="seq"),
    "hsdt_s3conv1": Variant(conv="s3_1"),
    # From a plain net to the whole, part by part.
    "baseline_s3conv": Variant(mixer="none", norm=False),
    "baseline_conv3d": Variant(conv="full", mixer="none", norm=False),
    "baseline_gssa": Variant(conv="full", ffn="ffn"),
    "baseline_ssa": Variant(conv="full", ffn="ffn", mixer="self"),
}


class HSDT(nn.Module):
    """Denoise cubes of any size and number of bands; x (B, 1, D, H, W), values in [0, 1], to the same shape.

    y = tail(decoder(encoder(head(x))) + head(x)) + x: a U of layers (convolution, normalisation, attention between
    bands, feed-forward net) whose skips are added. Rows and columns are padded at their ends to a multiple of
    ``multiple`` by reflection (by repeating the last one where too few are there to reflect) and the result is cropped.

    Attention learns a query for each of ``num_bands`` bands; cubes of other depth go by the logits that need none. In
    training each layer's call takes one of the two by chance. Parameters have the released names.

    Args:
        variant: the sizes and parts.
        num_bands: bands D that queries are learned for.
        attention: another mechanism for the bands: one that takes grids of three axes, or sequences.
        num_heads: heads of such a mechanism.
        padding: "reflect", or "released" for the released code's: none, except that `Variant.rgb` adds zeros up to the
            next multiple of 8 in evaluation, a whole 8 where the size is one already.

    Raises:
        ConfigError: sizes that do not fit, an unknown part, a mechanism that does not fit.

    O(D H W C^2 + D^2 H W C) time. Source: arXiv 2303.09040, section 3, and github.com/Zeqiang-Lai/HSDT where the paper
    is silent.

    Example:
        >>> import torch
        >>> model = HSDT(VARIANTS["hsdt_8"]).eval()
        >>> sum(p.numel() for p in model.parameters())
        134350
        >>> model(torch.rand(1, 1, 5, 9, 6)).shape
        torch.Size([1, 1, 5, 9, 6])
    """

    def __init__(
        self,
        variant: Variant = VARIANTS["hsdt"],
        *,
        num_bands: int = BANDS,
        attention: str | None = None,
        num_heads: int = 4,
        padding: str = "reflect",
    ) -> None:
        super().__init__()
        _check(variant, num_bands, padding)
        self.variant, self.num_bands, self.padding = variant, num_bands, padding
        self.attention, self.num_heads = attention, num_heads
        self.multiple = 2 ** len(variant.down)
        width, down = variant.channels, set(variant.down)
        if variant.rgb:
            self.proj = nn.Conv2d(3, num_bands, 1, bias=False)
        self.head = self._layer(variant.in_channels, width)
        first, second = nn.Module(), nn.Module()
        first.layers, second.layers = nn.ModuleList(), nn.ModuleList()
        for i in range(variant.half_layers):
            first.layers.append(self._layer(width, width * 2 if i in down else width, "down" if i in down else ""))
            width *= 2 if i in down else 1
        for i in reversed(range(variant.half_layers)):
            second.layers.append(self._layer(width, width // 2 if i in down else width, "up" if i in down else ""))
            width //= 2 if i in down else 1
        self.encoder, self.decoder = first, second
        self.tail = CubeConv(width, 1, bias=True)

    def forward(self, x: Tensor, learned: Sequence[bool] | None = None) -> Tensor:
        """Denoise.

        Args:
            x: (B, 1, D, H, W); (B, 2, D, H, W) with a map of the noise beside it; (B, 3, H, W) of a photograph.
            learned: for each layer, head first, whether it takes the learned logits, instead of chance or the mode.

        Returns:
            (B, 1, D, H, W); (B, num_bands, H, W) of a photograph.

        Raises:
            InputError: another shape, an empty axis, or a ``learned`` of another length.
        """
        self._check_input(x)
        choices = self._choices(learned)
        height, width = x.shape[-2:]
        x = self._padded(x)
        if self.variant.rgb:
            x = F.leaky_relu(self.proj(x)).unsqueeze(1)
        y = self._denoised(x, choices)[..., :height, :width]
        return y.squeeze(1) if self.variant.rgb else y

    def _denoised(self, x: Tensor, choices: list[bool | None]) -> Tensor:
        """The net itself on a cube (B, C, D, H, W) whose size fits."""
        layers = [self.head, *self._layers(self.encoder), *self._layers(self.decoder)]
        half = self.variant.half_layers
        y, skips = x.permute(0, 2, 3, 4, 1).contiguous(), []
        for i, (layer, choice) in enumerate(zip(layers, choices, strict=True)):
            if i > half + 1:  # the decoder's first layer takes what the encoder's last one gives
                y = y + skips.pop()
            y = layer(y, choice)
            if i < half:
                skips.append(y)
        return self.tail(y + skips.pop()).permute(0, 4, 1, 2, 3) + x[:, :1]

    def _layers(self, half: nn.Module) -> list[ConvLayer]:
        return cast("list[ConvLayer]", list(cast(nn.ModuleList, half.layers)))

    def _layer(self, before: int, after: int, step: str = "") -> ConvLayer:
        v = self.variant
        conv: nn.Module
        if step or v.conv == "full":
            conv = CubeConv(before, after, stride=2 if step == "down" else 1)
        else:
            conv = S3Conv(before, after, v.conv)
        block = Tanh() if v.mixer == "none" else SpectralBlock(self._mixer(after), _FFNS[v.ffn](after))
        return ConvLayer(conv, after, block, norm=v.norm, up=step == "up")

    def _mixer(self, dim: int) -> TokenMixer:
        if self.attention is not None:
            return _other_mixer(self.attention, dim, self.num_heads, self.num_bands)
        kind = self.variant.mixer
        bands = None if kind == "self" else self.num_bands
        return build("guided_spectral", dim, 1, num_bands=bands, flex=kind == "flex", pixelwise=kind == "pixelwise")

    def _choices(self, learned: Sequence[bool] | None) -> list[bool | None]:
        count = 1 + 2 * self.variant.half_layers
        if learned is None:
            return [None] * count
        if len(learned) != count:
            raise InputError("one choice a layer", where="learned", found=len(learned), expected=count)
        return list(learned)

    def _check_input(self, x: Tensor) -> None:
        axes, channels = (4, 3) if self.variant.rgb else (5, self.variant.in_channels)
        # An exporter's symbolic sizes are not asked whether they are 0.
        empty = any(isinstance(size, int) and size == 0 for size in x.shape)
        if x.dim() != axes or x.shape[1] != channels or empty:
            expected = f"(batch, {channels}, {'' if self.variant.rgb else 'bands, '}rows, columns), no axis empty"
            raise InputError("not a batch for this model", where="x", found=tuple(x.shape), expected=expected)

    def _padded(self, x: Tensor) -> Tensor:
        """Rows and columns up to a multiple of what the steps down divide by, at their ends."""
        height, width = x.shape[-2:]
        if self.padding == "released":
            if not self.variant.rgb or self.training:
                return x
            return F.pad(x, (0, 8 - width % 8, 0, 8 - height % 8))
        right, below = -width % self.multiple, -height % self.multiple
        if not right and not below:
            return x
        flat = x.reshape(-1, 1, height, width)
        for pad, size in (((0, right, 0, 0), width), ((0, 0, 0, below), height)):
            flat = F.pad(flat, pad, mode="reflect" if max(pad) < size else "replicate")
        return flat.reshape(*x.shape[:-2], height + below, width + right)


def make(name: str, **options: Any) -> HSDT:
    """One of the released constructors' models with new weights, by name.

    Args:
        name: a key of `VARIANTS`.
        options: keywords of `HSDT`.

    Raises:
        ConfigError: an unknown name, or what `HSDT` refuses.

    Example:
        >>> [sum(p.numel() for p in make(name).parameters()) for name in ("hsdt_4", "hsdt", "hsdt_deep")]
        [35746, 521158, 2094786]
    """
    if name not in VARIANTS:
        cure = registry.suggest(name, VARIANTS)
        raise ConfigError("no such variant of HSDT", where="name", found=name, expected=", ".join(VARIANTS), cure=cure)
    return HSDT(VARIANTS[name], **options)


def __getattr__(name: str) -> Any:
    """The released constructors by their own names: ``hsdt_8(...)`` is ``make("hsdt_8", ...)``."""
    if name in VARIANTS:
        return functools.partial(make, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def from_official(
    state_dict: Mapping[str, Tensor],
    *,
    in_channels: int | None = None,
    channels: int | None = None,
    num_half_layer: int | None = None,
    sample_idx: Sequence[int] | None = None,
    num_bands: int | None = None,
    flex: bool = False,
    pixelwise: bool = False,
) -> HSDT:
    """The HSDT of a released state dict, in eval mode; x (B, 1, D, H, W) -> the same shape.

    Sizes and parts (S, M, L, the ablations, two inputs, photographs) are read off names and shapes; what is given is
    held against them. Sizes that the released code refuses are padded by reflection, other numbers of bands go by self
    logits; photographs are padded as the released code does.

    Args:
        state_dict: tensors by the released names.
        in_channels, channels, num_half_layer, sample_idx: the released constructor's arguments.
        num_bands: bands that queries are learned for.
        flex: self logits in evaluation mode; no tensor tells.
        pixelwise: the ablation of one map for each pixel; no tensor tells.

    Raises:
        WeightsError: tensors missing, unexpected or of other shapes, an argument that contradicts.

    Complexity: O(bytes).

    Example:
        >>> import torch
        >>> from_official({"tail.weight": torch.zeros(1, 8, 3, 3, 3)})
        Traceback (most recent call last):
        pipelines.errors.WeightsError: not a state dict of hsdt. Found: ...
    """
    found, bands = _detected(state_dict)
    agree("in_channels", in_channels, found["in_channels"])
    agree("channels", channels, found["channels"])
    agree("num_half_layer", num_half_layer, found["half_layers"])
    agree("sample_idx", None if sample_idx is None else tuple(sample_idx), found["down"])
    agree("num_bands", num_bands, bands)
    if found["mixer"] == "guided" and (flex or pixelwise):
        found["mixer"] = "pixelwise" if pixelwise else "flex"
    padding = "released" if found["rgb"] else "reflect"
    model = HSDT(Variant(**found), num_bands=bands, padding=padding)
    model.load_state_dict(check_shapes(model, state_dict, name="hsdt"))
    return model.eval()


def _detected(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Any], int]:
    """Fields of a `Variant` and the number of bands, as names and shapes tell them."""
    shapes = {key: tuple(value.shape) for key, value in state_dict.items()}
    head = {key.removeprefix("head."): shape for key, shape in shapes.items() if key.startswith("head.")}
    try:
        form = _conv_form(head)
        first = {"full": "conv.weight", "sep": "conv.dw_conv.weight"}.get(form, "conv.dw_conv.0.weight")
        steps = {
            int(match[1]): shape[0] == 2 * shape[1]
            for key, shape in shapes.items()
            if (match := re.fullmatch(r"encoder[.]layers[.](\d+)[.]conv[.]weight", key))
        }
        layers = {match[1] for key in shapes if (match := re.match(r"encoder[.]layers[.](\d+)[.]", key))}
        query = head.get("attn.attn.attn_proj.weight")
        mixer = "guided" if query else "self" if "attn.attn.value_proj.weight" in head else "none"
        found = {
            "in_channels": head[first][1],
            "channels": shapes["tail.weight"][1],
            "half_layers": len(layers),
            "down": tuple(sorted(i for i, down in steps.items() if down)),
            "conv": form,
            "mixer": mixer,
            "ffn": _ffn_form(head),
            "norm": "bn.weight" in head,
            "rgb": "proj.weight" in shapes,
        }
        return found, query[0] if query else shapes["proj.weight"][0] if found["rgb"] else BANDS
    except (KeyError, IndexError) as error:
        seen = ", ".join(list(shapes)[:3]) or "no tensors"
        expected = "head.*, encoder.layers.*, decoder.layers.*, tail.*"
        raise WeightsError("not a state dict of hsdt", found=seen, expected=expected) from error


def _conv_form(head: Mapping[str, tuple[int, ...]]) -> str:
    if "conv.weight" in head:
        return "full"
    if "conv.dw_conv.weight" in head:
        return "sep"
    if "conv.dw_conv.2.weight" not in head:
        return "s3_1"
    # Beside the others the bands' convolution sees the input, after them their output.
    return "s3" if head["conv.pw_conv.weight"][1] == head["conv.dw_conv.0.weight"][1] else "seq"


def _ffn_form(head: Mapping[str, tuple[int, ...]]) -> str:
    if "attn.ffn.project_in.weight" in head:
        return "gdfn"
    if "attn.ffn.w_1.weight" not in head:
        return "gate" if "attn.ffn.w_3.weight" in head else "smffn"
    return "smffn" if "attn.ffn.w_3.weight" in head else "ffn"


def _other_mixer(name: str, dim: int, num_heads: int, bands: int) -> TokenMixer:
    """A mechanism in the place of guided attention."""
    try:
        spec = registry.spec(name)
        if spec.kind == "pool" or spec.extras or not {1, 3} & set(spec.grid):
            found = (
                f"{name}: {spec.kind} for grids {spec.grid}{' with ' + ', '.join(spec.extras) if spec.extras else ''}"
            )
            expected = "a mixer for sequences or grids of three axes that needs nothing beside them"
            raise ConfigError("does not mix bands", where="attention", found=found, expected=expected)
        return build(name, dim, num_heads, **({"length": bands} if spec.fixed_length else {}))
    except MechanismError as error:
        raise ConfigError(str(error), where="attention", found=name) from error


def _check(v: Variant, bands: int, padding: str) -> None:
    sizes = {"in_channels": v.in_channels, "channels": v.channels, "half_layers": v.half_layers, "num_bands": bands}
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError("not a size", where=name, found=value, expected="a positive whole number")
    known = {
        "conv": (v.conv, ("s3", "s3_1", "seq", "sep", "full")),
        "mixer": (v.mixer, ("guided", "flex", "self", "pixelwise", "none")),
        "ffn": (v.ffn, tuple(_FFNS)),
        "padding": (padding, ("reflect", "released")),
    }
    for name, (value, allowed) in known.items():
        if value not in allowed:
            raise ConfigError("unknown", where=name, found=value, expected=", ".join(allowed))
    if len(set(v.down)) != len(v.down) or not set(v.down) <= set(range(v.half_layers)):
        expected = f"different layers, 0 to {v.half_layers - 1}"
        raise ConfigError("not layers of the encoder", where="down", found=v.down, expected=expected)
