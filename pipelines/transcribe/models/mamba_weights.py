"""Released Mamba weights as models: blocks, language models, and those of the Hugging Face port, behind any prefix."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from core_attention import MechanismError
from pipelines.errors import ConfigError, WeightsError
from pipelines.official import agree, check_shapes
from pipelines.transcribe.models.mamba import MambaBlock, MambaLM, rounded_up

__all__ = ["from_official"]

#: The first tensor of a language model's layers, and that of a block, behind any prefix.
_BODY = re.compile(r"(|.*[.])layers[.](\d+)[.]mixer[.]A_log")
_BLOCK = re.compile(r"(|.*[.])A_log")


def from_official(
    state_dict: Mapping[str, Tensor],
    *,
    d_model: int | None = None,
    d_state: int | None = None,
    d_conv: int | None = None,
    expand: float | None = None,
    dt_rank: int | str | None = None,
    conv_bias: bool | None = None,
    bias: bool | None = None,
    n_layer: int | None = None,
    vocab_size: int | None = None,
    pad_vocab_size_multiple: int = 8,
    tie_embeddings: bool | None = None,
    norm_epsilon: float = 1e-5,
    residual_in_fp32: bool = True,
    rms_norm: bool | None = None,
    d_intermediate: int | None = None,
    ssm_cfg: Mapping[str, Any] | None = None,
    attn_layer_idx: Sequence[int] | None = None,
    attn_cfg: Mapping[str, Any] | None = None,
    initializer_cfg: Mapping[str, Any] | None = None,
    fused_add_norm: bool | None = None,
    use_fast_path: bool | None = None,
    layer_idx: int | None = None,
    dt_min: float | None = None,
    dt_max: float | None = None,
    dt_init: str | None = None,
    dt_scale: float | None = None,
    dt_init_floor: float | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> MambaBlock | MambaLM:
    """The block or the language model of a released state dict, in eval mode; its forward is the released one.

    Sizes are read off the tensors, and what is given is held against them. Names may stand behind any prefix, and those
    of the Hugging Face port (``embeddings``, no ``lm_head`` where it is tied) are read too. Tensors in half precision
    become float32 unless ``dtype`` is given; A_log and D always do.

    Args:
        state_dict: tensors by the released names: of one block, or of a language model.
        d_model, d_state, d_conv, expand, dt_rank, conv_bias, bias: the released block's arguments.
        n_layer, vocab_size, pad_vocab_size_multiple, tie_embeddings, rms_norm, d_intermediate, ssm_cfg,
            attn_layer_idx: the released model's; layers of attention, further feed-forward nets and LayerNorm are not
            read.
        norm_epsilon, residual_in_fp32: the released model's, which no tensor shows.
        attn_cfg, initializer_cfg, fused_add_norm, use_fast_path, layer_idx, dt_min, dt_max, dt_init, dt_scale,
            dt_init_floor: further released arguments, which change nothing in a model with weights.
        device, dtype: where and how wide the model is.

    Raises:
        WeightsError: tensors missing, unexpected or of other shapes, several blocks without an embedding, or an
            argument that contradicts.
        ConfigError: an unknown name in ``ssm_cfg``.

    Complexity: O(bytes).

    Example:
        >>> state = {f"decoder.{name}": tensor for name, tensor in MambaBlock(16).state_dict().items()}
        >>> type(from_official(state, d_model=16, dt_rank="auto")).__name__
        'MambaBlock'
        >>> from_official({"A_log": torch.zeros(32, 16)})
        Traceback (most recent call last):
        pipelines.errors.WeightsError: not a state dict of mamba. Found: A_log. Expected: ...
    """
    del attn_cfg, initializer_cfg, fused_add_norm, use_fast_path, layer_idx
    del dt_min, dt_max, dt_init, dt_scale, dt_init_floor
    values = (d_model, d_state, d_conv, expand, dt_rank, conv_bias, bias)
    given: dict[str, Any] = dict(zip(_BLOCK_ARGUMENTS, values, strict=True))
    tensors, layers = _without_prefix(state_dict)
    sizes = _sizes(tensors, f"backbone.layers.{layers[0]}.mixer." if layers else "")
    _agree_block(given, sizes)
    _agree_block(_of_config(ssm_cfg), sizes)
    if not layers:
        return _loaded(MambaBlock, tensors, device, dtype, **sizes)
    rows = len(tensors["backbone.embedding.weight"])
    if vocab_size is None or rounded_up(vocab_size, pad_vocab_size_multiple) != rows:
        agree("vocab_size", vocab_size, rows)
    tied = torch.equal(tensors["lm_head.weight"], tensors["backbone.embedding.weight"])
    agree("n_layer", n_layer, len(layers))
    agree("tie_embeddings", tie_embeddings, tied)
    agree("rms_norm", rms_norm, True)
    agree("d_intermediate", d_intermediate, 0)
    agree("attn_layer_idx", None if attn_layer_idx is None else list(attn_layer_idx), [])
    more: dict[str, Any] = {"norm_epsilon": norm_epsilon, "residual_in_fp32": residual_in_fp32, "tie_embeddings": tied}
    table = {"n_layer": len(layers), "vocab_size": rows, "pad_vocab_size_multiple": 1}
    return _loaded(MambaLM, tensors, device, dtype, **sizes, **table, **more)


_BLOCK_ARGUMENTS = ("d_model", "d_state", "d_conv", "expand", "dt_rank", "conv_bias", "bias")
#: Arguments of a released block that set only where its training begins, or how it is computed.
_IDLE = ("dt_min", "dt_max", "dt_init", "dt_scale", "dt_init_floor", "use_fast_path", "layer_idx", "device", "dtype")


def _of_config(ssm_cfg: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments of the block in a released configuration."""
    found = dict(ssm_cfg or {})
    agree("ssm_cfg.layer", found.pop("layer", None), "Mamba1")
    unknown = [name for name in found if name not in _BLOCK_ARGUMENTS and name not in _IDLE]
    if unknown:
        expected = ", ".join((*_BLOCK_ARGUMENTS, *_IDLE))
        raise ConfigError("mamba has no such option", where="ssm_cfg", found=unknown[0], expected=expected)
    return {name: value for name, value in found.items() if name in _BLOCK_ARGUMENTS}


def _agree_block(given: Mapping[str, Any], sizes: Mapping[str, Any]) -> None:
    for name, value in given.items():
        automatic = name == "dt_rank" and value == "auto"
        agree(name, -(-sizes["d_model"] // 16) if automatic else value, sizes[name])


def _without_prefix(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[int]]:
    """Tensors by the plain released names, and the numbers of a language model's layers; none of a block."""
    embeddings = [key for key in state_dict if re.fullmatch(r"(?:.*[.])?embeddings?[.]weight", key)]
    layers = sorted({int(match[2]) for key in state_dict if (match := _BODY.fullmatch(key))})
    blocks = [match for key in state_dict if (match := _BLOCK.fullmatch(key))]
    if not blocks or (len(blocks) > 1 and len(embeddings) != 1):
        found = f"{len(blocks)} blocks and no embedding" if len(blocks) > 1 else ", ".join(list(state_dict)[:4])
        raise _foreign(found or "no tensor")
    if len(embeddings) != 1 or not layers:
        prefix = blocks[0][1]
        return {key.removeprefix(prefix): value for key, value in state_dict.items()}, []
    body = re.sub(r"embeddings?[.]weight$", "", embeddings[0])
    head = body.removesuffix("backbone.")
    named: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        if key == embeddings[0]:
            named["backbone.embedding.weight"] = value
        elif key == f"{head}lm_head.weight":
            named["lm_head.weight"] = value
        else:
            named["backbone." + key.removeprefix(body) if key.startswith(body) else key] = value
    named.setdefault("lm_head.weight", named["backbone.embedding.weight"])
    return named, layers


def _sizes(tensors: Mapping[str, Tensor], first: str) -> dict[str, Any]:
    shapes: dict[str, tuple[int, ...]] = {key: tuple(getattr(value, "shape", ())) for key, value in tensors.items()}
    try:
        inner, state = shapes[first + "A_log"]
        double, dim = shapes[first + "in_proj.weight"]
        _, _, width = shapes[first + "conv1d.weight"]
        _, rank = shapes[first + "dt_proj.weight"]
        if double != 2 * inner or not dim or inner % dim or min(inner, state, width, rank) < 1:
            raise ValueError("no whole expansion")
    except (KeyError, ValueError):
        raise _foreign(", ".join(list(tensors)[:4])) from None
    return {
        "d_model": dim,
        "d_state": state,
        "d_conv": width,
        "expand": inner // dim,
        "dt_rank": rank,
        "conv_bias": first + "conv1d.bias" in shapes,
        "bias": first + "in_proj.bias" in shapes,
    }


def _foreign(found: str) -> WeightsError:
    expected = (
        "A_log, in_proj.weight, conv1d.weight and dt_proj.weight of one block whose inner channels are a multiple of "
        "its outer, or of backbone.layers.*.mixer with backbone.embedding.weight"
    )
    return WeightsError("not a state dict of mamba", found=found, expected=expected)


def _loaded(
    kind: type[MambaBlock] | type[MambaLM],
    tensors: Mapping[str, Tensor],
    device: torch.device | str | None,
    dtype: torch.dtype | None,
    **arguments: Any,
) -> MambaBlock | MambaLM:
    """The model with its tensors; memory is taken only after all of them were found to fit."""
    try:
        with torch.device("meta"):
            model = kind(**arguments)
    except MechanismError as error:
        raise WeightsError(str(error)) from error
    kept = check_shapes(model, tensors, name="mamba")
    if dtype is not None:
        for name, parameter in model.named_parameters():
            if not name.endswith(("A_log", ".D")):
                parameter.data = parameter.data.to(dtype)
    model.to_empty(device=device or "cpu")
    if isinstance(model, MambaLM):
        model.tie_weights()
    model.load_state_dict(kept)
    return model.eval()
