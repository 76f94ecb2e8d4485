"""Put a sequence mechanism of ours into a timm vision transformer, keeping the weights that fit."""

from __future__ import annotations

import logging
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from core_attention import registry
from core_attention.contract import MechanismError, TokenMixer

# Only this class: others named Attention in timm reduce, window or rotate tokens in their own forward.
_TIMM_HOMES = ("timm.layers.attention", "timm.models.vision_transformer")
Model = TypeVar("Model", bound=nn.Module)
_log = logging.getLogger("core_attention.replace")
_PROJECTIONS = ("query_projection", "key_projection", "value_projection", "out_projection")


class MixerAttention(nn.Module):
    """A mechanism in the place of timm's ``Attention``: tokens in, tokens out.

    Args:
        mixer: the mechanism.
        proj_drop: what timm applies to its output.
    """

    def __init__(self, mixer: TokenMixer, proj_drop: nn.Module) -> None:
        super().__init__()
        self.mixer, self.proj_drop = mixer, proj_drop

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Mix x (B, T, C).

        Raises:
            MechanismError: an attention mask, or a causal order that the mechanism was not built with.
        """
        if attn_mask is not None:
            raise MechanismError(f"{self.mixer.spec.name} in a timm model takes no attn_mask; pad no tokens")
        if is_causal and not getattr(self.mixer, "causal", False):
            raise MechanismError(f"{self.mixer.spec.name} was built without causal=True, but the model asks for it")
        return self.proj_drop(self.mixer(x).y)


def replace_attention(model: Model, name: str, **options: Any) -> Model:
    """Replace every attention of a timm vision transformer by a mechanism, in place.

    ``softmax`` takes over all weights (projections, norms of queries and keys, dropout, scale) and keeps the outputs.
    Another mechanism takes over the projections that it has under the same names and shapes, and starts the rest anew.
    Losses that a mechanism returns beside its tokens are not part of the model's output.

    Args:
        model: a model with ``timm.layers.Attention`` modules.
        name: registry name of a mechanism for sequences.
        options: the mechanism's options; ``qkv_bias`` and ``dropout`` are the model's own unless given here.

    Returns:
        The same model, so that calls can be chained; how many attentions were replaced is logged.

    Raises:
        MechanismError: the model holds no such attention, one that has parts with no place here (a gate, a norm of the
            output, heads wider than the tokens), or the mechanism does not take a bare sequence. The model is then as
            it was.

    Example:
        >>> import timm
        >>> from core_attention import replace_attention
        >>> model = timm.create_model("test_vit", pretrained=False)
        >>> replace_attention(model, "softmax") is model
        True
    """
    spec = registry.spec(name)
    if 1 not in spec.grid or spec.extras or spec.kind == "pool":
        raise MechanismError(f"{name} does not map a bare sequence to a sequence, which a vision transformer needs")
    found = [
        (parent, child_name, child)
        for parent in model.modules()
        for child_name, child in parent.named_children()
        if _is_timm_attention(child)
    ]
    if not found:
        raise MechanismError(f"{type(model).__name__} holds no timm Attention; expected a timm vision transformer")
    # Built before the first is put in place: an error leaves the model whole.
    built = [_converted(child, name, options) for _, _, child in found]
    for (parent, child_name, _), replacement in zip(found, built, strict=True):
        setattr(parent, child_name, replacement)
    _log.info("replaced %d attentions of %s by %s", len(found), type(model).__name__, name)
    return model


def _is_timm_attention(module: nn.Module) -> bool:
    kind = type(module)
    return kind.__name__ == "Attention" and kind.__module__ in _TIMM_HOMES


def _converted(attention: Any, name: str, options: dict[str, Any]) -> MixerAttention:
    _refuse_what_has_no_place(attention)
    known = registry.option_names(name)
    own = {"qkv_bias": attention.qkv.bias is not None, "dropout": attention.attn_drop.p}
    own |= {"out_bias": attention.proj.bias is not None}
    chosen = {option: value for option, value in own.items() if option in known} | options
    mixer = registry.build(name, attention.qkv.in_features, attention.num_heads, **chosen)
    weight = attention.qkv.weight
    mixer.to(device=weight.device, dtype=weight.dtype)
    _copy_projections(attention, mixer)
    _take_scale_and_norms(attention, mixer)
    return MixerAttention(mixer, attention.proj_drop).train(attention.training)


def _refuse_what_has_no_place(attention: Any) -> None:
    width = attention.qkv.in_features
    parts = {
        "a gate": getattr(attention, "gate", None) is not None,
        "a norm of the output": not isinstance(getattr(attention, "norm", nn.Identity()), nn.Identity),
        "heads that do not add up to the width of the tokens": attention.qkv.out_features != 3 * width,
        "an output of another width": attention.proj.out_features != width,
    }
    present = [part for part, here in parts.items() if here]
    if present:
        raise MechanismError(f"this timm Attention has {' and '.join(present)}, which no mechanism here takes over")


@torch.no_grad()
def _copy_projections(attention: Any, mixer: TokenMixer) -> None:
    bias = attention.qkv.bias
    weights: list[Tensor] = [*attention.qkv.weight.chunk(3), attention.proj.weight]
    biases: list[Tensor | None] = [*([None] * 3 if bias is None else bias.chunk(3)), attention.proj.bias]
    for target_name, weight, bias in zip(_PROJECTIONS, weights, biases, strict=True):
        target: Any = getattr(mixer, target_name, None)
        if not isinstance(target, nn.Linear) or target.weight.shape != weight.shape:
            continue
        target.weight.copy_(weight)
        if target.bias is not None:
            # A mechanism that insists on a bias starts it at nothing, which is what the model had.
            target.bias.zero_() if bias is None else target.bias.copy_(bias)


def _take_scale_and_norms(attention: Any, mixer: TokenMixer) -> None:
    for theirs, ours in (("q_norm", "query_norm"), ("k_norm", "key_norm")):
        norm = getattr(attention, theirs, None)
        if norm is not None and hasattr(mixer, ours):
            setattr(mixer, ours, norm)
    usual = attention.head_dim**-0.5
    # timm's fused path does not read the attribute, so that only the other path can deviate from the usual scale.
    if not attention.fused_attn and attention.scale != usual and getattr(mixer, "query_scale", 0) is None:
        mixer.query_scale = torch.full((1, 1, 1), attention.scale / usual).to(attention.qkv.weight)
