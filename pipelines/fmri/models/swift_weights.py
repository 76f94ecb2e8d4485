"""Released SwiFT weights as models: the encoder, with the head of a task or of pre-training, behind any prefix.

A Lightning checkpoint brings the arguments it was trained with; what tensors do not show is taken from there.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.errors import ConfigError, WeightsError
from pipelines.fmri.models.swift import ClassHead, ContrastiveHead, HiddenHead, Swift, SwiftConfig, SwiftNet
from pipelines.official import agree, check_shapes

__all__ = ["Released", "from_official", "read_official"]

_LOGGER = logging.getLogger("pipelines.weights")
_FIRST = "patch_embed.fc.weight"
_HEAD = "output_head."
_BLOCK = re.compile(r"layers[.](\d+)[.]blocks[.](\d+)[.].*")
#: What the sample script sets, as the paper: used where neither tensors nor arguments tell.
_PAPER: dict[str, Any] = {"window_size": (4, 4, 4, 4), "last_layer_full_MSA": True}
#: The arguments of a run that tell something about its model.
_TOLD = (
    *("img_size", "in_chans", "embed_dim", "window_size", "first_window_size", "patch_size", "depths", "num_heads"),
    *("c_multiplier", "last_layer_full_MSA", "model", "attn_drop_rate"),
)


class Released(dict[str, Tensor]):
    """Tensors of a released checkpoint by name, and the arguments of its run that tell something about the model.

    Example:
        >>> Released({"w": torch.zeros(1)}, {"window_size": (4, 4, 4, 4)}).arguments
        {'window_size': (4, 4, 4, 4)}
    """

    def __init__(self, tensors: Mapping[str, Tensor], arguments: Mapping[str, Any] | None = None) -> None:
        super().__init__(tensors)
        self.arguments = dict(arguments or {})


def read_official(source: Mapping[str, Any] | str | os.PathLike[str]) -> Released:
    """Tensors and arguments of a SwiFT checkpoint; nothing in the file is run.

    Args:
        source: a Lightning checkpoint ("state_dict" and "hyper_parameters", a dict or an argparse.Namespace), a bare
            state dict, or any other that `pipelines.weights.read_state_dict` reads.

    Raises:
        WeightsError: missing, damaged, holding objects that are no plain values, or NaN or infinity in a tensor.

    Complexity: O(bytes).

    Example:
        >>> checkpoint = {"state_dict": {"model.norm.bias": torch.zeros(2)}, "hyper_parameters": {"embed_dim": 24}}
        >>> read_official(checkpoint)
        {'model.norm.bias': tensor([0., 0.])}
        >>> _.arguments
        {'embed_dim': 24}
    """
    from pipelines.weights import load_weights, resolve
    from pipelines.weights_reading import check_finite, read_file, tensors_of, without_prefix

    if isinstance(source, Mapping):
        where, content = "the state dict", source
    else:
        where, path = source, resolve(source)
        content = load_weights(path)[0] if path.is_dir() else read_file(path)
    state = without_prefix(tensors_of(content, where), where, lightning=False)
    check_finite(state, where)
    told = content.get("hyper_parameters")
    told = vars(told) if isinstance(told, argparse.Namespace) else told
    found = {name: told[name] for name in _TOLD if told.get(name) is not None} if isinstance(told, Mapping) else {}
    return Released(state, getattr(source, "arguments", None) or {name: _plain(value) for name, value in found.items()})


def from_official(
    state_dict: Mapping[str, Tensor],
    *,
    img_size: int | Sequence[int] | None = None,
    in_chans: int | None = None,
    embed_dim: int | None = None,
    window_size: Sequence[int] | None = None,
    first_window_size: Sequence[int] | None = None,
    patch_size: Sequence[int] | None = None,
    depths: Sequence[int] | None = None,
    num_heads: Sequence[int] | None = None,
    mlp_ratio: float | None = None,
    qkv_bias: bool | None = None,
    drop_rate: float | None = None,
    attn_drop_rate: float | None = None,
    drop_path_rate: float | None = None,
    norm_layer: Any = None,
    patch_norm: bool | None = None,
    use_checkpoint: bool | None = None,
    spatial_dims: int | None = None,
    c_multiplier: int | None = None,
    last_layer_full_MSA: bool | None = None,
    downsample: str | None = None,
    num_classes: int | None = None,
    to_float: bool | None = None,
    clf_head_version: str | None = None,
    final_embedding_size: int | None = None,
    model: str | None = None,
) -> Swift | SwiftNet:
    """The model of a released state dict, in eval mode; its forward is the released one.

    Sizes are read off names and shapes, and what is given is held against them, as are the arguments that a Lightning
    checkpoint stores. Image and volumes follow from the tables of position: ``img_size`` is their grid times the patch.

    Neither names nor shapes show windows, ``last_layer_full_MSA``, heads, or how a patch divides into axes. They come
    from the stored arguments or the caller. Else the windows are (4, 4, 4, 4) in all stages with a global last one, as
    in the paper; patches are cubes of one volume; stage i has 3 * 2^i heads (the released default, whatever
    ``embed_dim``). What was assumed is said in the log.

    Args:
        state_dict: tensors by the released names behind any prefix: an encoder, or ``model.`` and ``output_head.``.
        img_size, in_chans, embed_dim, patch_size, depths, mlp_ratio, qkv_bias, patch_norm, spatial_dims, c_multiplier,
            downsample, model: the released encoder's.
        window_size, first_window_size: tokens of a window in all stages but the first, and in the first (None: as in
            the others).
        num_heads, last_layer_full_MSA: see above.
        drop_rate, drop_path_rate: for further training; 0 unless the stored ``attn_drop_rate`` says otherwise, which
            sets both, as released.
        attn_drop_rate: sets both where they are not given; attention weights themselves are never dropped here.
        num_classes, clf_head_version, final_embedding_size: the released heads'; of two classes there is one logit.
        norm_layer, use_checkpoint, to_float: further released arguments, which change no result in float32.

    Returns:
        `SwiftNet` where there is a head, x (B, c, X, Y, Z, T) to (B, outputs), with the encoder as ``model``; else
        `Swift`, to (B, D, x, y, z, T). Both have ``encode``, to (B, D).

    Raises:
        WeightsError: tensors missing, unexpected or of other shapes, an unknown head, or an argument that contradicts.
        ConfigError: something that has to be given, or heads that do not divide the channels.

    Complexity: O(bytes).

    Source: Transconnectome/SwiFT, swin4d_transformer_ver7 and the three heads beside it (arXiv 2307.05916).

    Example:
        >>> config = SwiftConfig(image=(12, 12, 12), frames=4, dim=12, depths=(1, 1), heads=(3, 6))
        >>> state = SwiftNet(Swift(config)).state_dict()
        >>> from_official(state, img_size=(12, 12, 12, 4))(torch.zeros(2, 1, 12, 12, 12, 4)).shape
        torch.Size([2, 1])
        >>> from_official({"patch_embed.fc.weight": torch.zeros(36, 216)})
        Traceback (most recent call last):
        pipelines.errors.WeightsError: not a checkpoint of swift. Found: patch_embed.fc.weight. Expected: ...
    """
    if norm_layer not in (None, nn.LayerNorm):
        expected = "nn.LayerNorm, or nothing"
        raise ConfigError("swift has no other normalisation", where="norm_layer", found=norm_layer, expected=expected)
    del use_checkpoint, to_float
    given: dict[str, Any] = {
        "img_size": img_size,
        "in_chans": in_chans,
        "embed_dim": embed_dim,
        "window_size": window_size,
        "first_window_size": first_window_size,
        "patch_size": patch_size,
        "depths": depths,
        "num_heads": num_heads,
        "c_multiplier": c_multiplier,
        "last_layer_full_MSA": last_layer_full_MSA,
        "model": model,
        "attn_drop_rate": attn_drop_rate,
    }
    told = _together(given, getattr(state_dict, "arguments", {}))
    tensors, heads = _parts(state_dict)
    fixed = {"qkv_bias": (qkv_bias, True), "patch_norm": (patch_norm, False), "spatial_dims": (spatial_dims, 4)}
    fixed |= {"downsample": (downsample, "mergingv2"), "c_multiplier": (told["c_multiplier"], 2)}
    for name, (value, found) in fixed.items():
        agree(name, value, found)
    agree("model", told["model"], "swin4d_ver7")
    rate = told["attn_drop_rate"] or 0.0
    config = SwiftConfig(
        **_sizes(tensors, told, mlp_ratio),
        **_unseen(tensors, told),
        dropout=rate if drop_rate is None else drop_rate,
        drop_path=rate if drop_path_rate is None else drop_path_rate,
    )
    asked = {"num_classes": num_classes, "clf_head_version": clf_head_version, "size": final_embedding_size}
    return _loaded(config, tensors, heads, asked)


def _plain(value: Any) -> Any:
    """Lists of a stored argument as tuples."""
    return tuple(value) if isinstance(value, list | tuple) else value


def _together(given: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """The caller's arguments and those of the checkpoint, which must not contradict each other."""
    told = {name: _plain(value) for name, value in given.items()}
    if isinstance(told["img_size"], int):
        told["img_size"] = (told["img_size"],) * 4
    for name, value in stored.items():
        told[name] = agree(name, told[name], value)
    return told


def _parts(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors of the encoder and of the head by their plain names; anything else stays, to be refused."""
    firsts = [key for key in state_dict if key == _FIRST or key.endswith(f".{_FIRST}")]
    if len(firsts) != 1:
        raise _foreign(state_dict)
    encoder = firsts[0].removesuffix(_FIRST)
    head = encoder.removesuffix("model.") + _HEAD
    heads = {key.removeprefix(head): value for key, value in state_dict.items() if key.startswith(head)}
    others = {key: value for key, value in state_dict.items() if not key.startswith(head)}
    plain = {key.removeprefix(encoder) if key.startswith(encoder) else key: value for key, value in others.items()}
    return plain, heads


def _sizes(tensors: Mapping[str, Tensor], told: Mapping[str, Any], mlp_ratio: float | None) -> dict[str, Any]:
    """Everything that names and shapes show, and the patch, which they show nearly."""
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    found = {(int(match[1]), int(match[2])) for key in shapes if (match := _BLOCK.fullmatch(key))}
    stages = 1 + max((stage for stage, _ in found), default=-1)
    depths = tuple(1 + max((block for i, block in found if i == stage), default=-1) for stage in range(stages))
    try:
        dim, inputs = shapes[_FIRST]
        _, _, *grid, _ = shapes["pos_embeds.0.pos_embed"]
        frames = shapes["pos_embeds.0.time_embed"][5]
        hidden, _ = shapes["layers.0.blocks.0.mlp.linear1.weight"]
        if len(grid) != 3 or 0 in (*depths, dim, inputs, *grid, frames, hidden):
            raise ValueError("no sizes")
    except (KeyError, IndexError, ValueError):
        raise _foreign(tensors) from None
    agree("embed_dim", told["embed_dim"], dim)
    agree("depths", told["depths"], depths)
    agree("mlp_ratio", mlp_ratio, hidden / dim)
    channels, patch = _patch(inputs, told)
    image = tuple(size * p for size, p in zip(grid, patch, strict=False))
    agree("img_size", told["img_size"], (*image, frames))
    sizes: dict[str, Any] = {"image": image, "frames": frames, "channels": channels, "patch": patch, "dim": dim}
    return sizes | {"depths": depths, "mlp_ratio": hidden / dim}


def _patch(inputs: int, told: Mapping[str, Any]) -> tuple[int, tuple[int, ...]]:
    """Input channels and the axes of a patch, of which the tensors show the product."""
    channels, patch = told["in_chans"], told["patch_size"]
    if patch is None:
        edge = round((inputs / (channels or 1)) ** (1 / 3))
        patch = (edge, edge, edge, 1)
        if edge**3 * (channels or 1) != inputs:
            found = f"{inputs} numbers a patch, no cube"
            raise ConfigError("shapes do not tell the patch", found=found, cure="pass patch_size=(x, y, z, 1)")
        _LOGGER.warning("swift: patch_size is taken as %s, a cube; no tensor shows it", patch)
    if len(patch) != 4 or patch[3] != 1 or min(patch) < 1 or inputs % math.prod(patch):
        expected = f"(x, y, z, 1) whose product divides {inputs}, as time is never merged"
        raise WeightsError("does not agree with the checkpoint", where="patch_size", found=patch, expected=expected)
    return agree("in_chans", channels, inputs // math.prod(patch)), patch


def _unseen(tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> dict[str, Any]:
    """Windows and heads, which no tensor shows."""
    missing = {name: value for name, value in _PAPER.items() if told[name] is None}
    values = {name: told[name] if told[name] is not None else value for name, value in _PAPER.items()}
    stages = 1 + max(int(match[1]) for key in tensors if (match := _BLOCK.fullmatch(key)))
    heads = told["num_heads"]
    if heads is None:
        heads = missing["num_heads"] = tuple(3 * 2**stage for stage in range(stages))
        dim = tensors[_FIRST].shape[0]
        if dim % 3:
            cure = "pass num_heads=(...), one number a stage"
            raise ConfigError("shapes do not tell num_heads", found=f"{dim} channels in the first stage", cure=cure)
    if missing:
        assumed = ", ".join(f"{name}={value}" for name, value in missing.items())
        _LOGGER.warning("swift: no tensor shows these, taken as in the paper: %s", assumed)
    first = told["first_window_size"]
    windows = {"window": values["window_size"], "first_window": None if first == values["window_size"] else first}
    return {**windows, "full_last": bool(values["last_layer_full_MSA"]), "heads": heads}


def _head(features: int, tensors: Mapping[str, Tensor], asked: Mapping[str, Any]) -> nn.Module | None:
    """The head that the names show, on the meta device."""
    weight = next((tensors[name] for name in ("fc1.weight", "head.weight") if name in tensors), None)
    if weight is None or weight.dim() != 2:
        if not tensors:
            return None
        expected = "head, hidden and head, or fc1 and bn1"
        raise WeightsError("an unknown head", where=_HEAD, found=", ".join(list(tensors)[:4]), expected=expected)
    outputs = len(weight)
    if "fc1.weight" in tensors:
        return ContrastiveHead(features, agree("final_embedding_size", asked["size"], outputs))
    classes = asked["num_classes"]
    agree("num_classes", 1 if classes == 2 else classes, outputs)
    hidden = "hidden.weight" in tensors
    agree("clf_head_version", asked["clf_head_version"], "v2" if hidden else "v1")
    return HiddenHead(features, outputs) if hidden else ClassHead(features, outputs)


def _loaded(
    config: SwiftConfig, tensors: Mapping[str, Tensor], heads: Mapping[str, Tensor], asked: Mapping[str, Any]
) -> Swift | SwiftNet:
    """The model with its tensors; memory is taken only after all of them were found to fit."""
    with torch.device("meta"):
        encoder = Swift(config)
        head = _head(config.features, heads, asked)
    made = encoder if head is None else SwiftNet(encoder, head)
    state = dict(tensors)
    if head is not None:
        own = set(encoder.state_dict())
        state = {f"model.{key}" if key in own else key: value for key, value in tensors.items()}
        state |= {_HEAD + key: value for key, value in heads.items()}
    kept = check_shapes(made, state, name="swift")
    made.to_empty(device="cpu")
    made.load_state_dict(kept)
    return made.eval()


def _foreign(tensors: Mapping[str, Tensor]) -> WeightsError:
    expected = f"{_FIRST}, pos_embeds.* and layers.*.blocks.* of one encoder"
    found = ", ".join(list(tensors)[:4]) or "no tensor"
    return WeightsError("not a checkpoint of swift", found=found, expected=expected)
