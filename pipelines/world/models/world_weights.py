"""Released state dicts of FluidWorld and of the two models beside it, as models with the released forward."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from pipelines.errors import ConfigError, WeightsError
from pipelines.official import agree, check_shapes
from pipelines.world.models.convlstm import ConvLSTMConfig, ConvLSTMWorld
from pipelines.world.models.fluidworld import FluidConfig, FluidWorld
from pipelines.world.models.shell import WorldConfig
from pipelines.world.models.transformer import TransformerConfig, TransformerWorld

__all__ = ["from_convlstm", "from_fluidworld", "from_transformer"]

#: Arguments of the released constructors that change training alone, or only what a tensor then holds.
_TRAINING = frozenset(
    (
        *("recon_weight", "pred_weight", "loss_type", "var_weight"),
        *("var_target", "grad_weight", "deep_supervision", "deep_supervision_weight"),
        *("rdm_reg", "rdm_weight", "rdm_n_projections", "input_masking"),
        *("mask_ratio", "dt", "dropout", "use_memory_pump"),
        "diffusion_scale",
    )
)
#: Those that have one value here.
_FIXED: dict[str, Any] = {
    "dilations": (1, 4, 16),
    "norm_type": "rmsnorm",
    "norm_every": 2,
    "local_memory_hw": 4,
    "signed_diffusion": False,
    "fatigue_cost": 0.1,
    "fatigue_recovery": 0.02,
    "inhibition_strength": 0.3,
    "hebbian_lr": 0.01,
    "hebbian_decay": 0.99,
}
_KERNEL = r".*diffusion[.]kernel_2d"
_FIVE_POINTS = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
_SIDE = 64  # pixels of a frame where no tensor tells


def from_fluidworld(
    state_dict: Mapping[str, Tensor],
    *,
    max_steps_encoder: int = 6,
    epsilon: float = 0.08,
    n_belief_evolve: int = 3,
    use_inhibition: bool = True,
    legacy: bool = False,
    **others: Any,
) -> FluidWorld:
    """The FluidWorld of a released state dict, in eval mode; its forward is the released one.

    What is there is read off names and shapes: the content gate, DeltaNet, Titans, fatigue, the Hebbian map, sizes.
    Stored health and map are where every state starts. The released code goes on from call to call, decides when to
    stop for a whole batch and starts Titans at random: with ``legacy`` this does too; without, a result depends on the
    arguments alone, each sample's on itself alone, and Titans start from fixed numbers.

    Args:
        state_dict: tensors by the released names.
        max_steps_encoder, epsilon, n_belief_evolve, use_inhibition: the released constructor's, which no tensor shows.
        legacy: see above.
        **others: further arguments of the released constructor, held against the tensors.

    Raises:
        WeightsError: tensors missing, unexpected or of other shapes, another Laplacian, an argument that contradicts.
        ConfigError: an unknown argument.

    Complexity: O(bytes).

    Source: infinition/FluidWorld, FluidWorldModelV2 (arXiv 2603.21315).

    Example:
        >>> from pipelines.world.models.fluidworld import FluidConfig, FluidWorld
        >>> net = FluidWorld(FluidConfig(variant="released", dim=16, layers=1))
        >>> state = {**net.state_dict(), "belief_field.diffusion.kernel_2d": _FIVE_POINTS}
        >>> from_fluidworld(state)(torch.rand(1, 3, 64, 64), torch.zeros(1, 1))["x_pred"].shape
        torch.Size([1, 3, 64, 64])
        >>> from_fluidworld({"decoder.decoder.0.bias": torch.zeros(64)})
        Traceback (most recent call last):
        pipelines.errors.WeightsError: not a state dict of fluidworld. Found: decoder.decoder.0.bias. Expected: ...
    """
    shapes = _shapes(state_dict)
    try:
        dim, channels, patch, _ = shapes["encoder.patch_embed.proj.weight"]
        stimulus = shapes["belief_field.stimulus_proj.0.weight"][1]
        map_ = shapes.get("belief_field.hebbian.hebbian_map")
        h, w = map_[2:] if map_ else (_SIDE // patch,) * 2
        middle = shapes["decoder.decoder.0.weight"][0]
    except (KeyError, IndexError, ValueError):
        raise _foreign("fluidworld", state_dict, "encoder.patch_embed.*, belief_field.* and decoder.*") from None
    has = {
        "anisotropic_diffusion": _any(shapes, r"encoder[.]fluid_layers[.]\d+[.]content_gate[.].*"),
        "use_fatigue": "fatigue.health" in shapes,
        "use_hebbian": map_ is not None,
        "use_deltanet": _any(shapes, r"belief_field[.]deltanet[.].*"),
        "use_titans": _any(shapes, r"belief_field[.]titans[.].*"),
    }
    layers = _count(shapes, r"encoder[.]fluid_layers[.](\d+)[.].*")
    sizes = {"in_channels": channels, "d_model": dim, "stimulus_dim": stimulus, "n_encoder_layers": layers}
    sizes |= {"patch_size": patch, "belief_spatial_hw": h, "decoder_mid_channels": middle}
    _agreed("fluidworld", others, {**_FIXED, **has, **sizes})
    config = FluidConfig(
        channels=channels,
        height=h * patch,
        width=w * patch,
        dim=dim,
        patch=patch,
        stimulus=stimulus,
        variant="released",
        layers=layers,
        steps=max_steps_encoder,
        later=n_belief_evolve,
        tolerance=epsilon,
        anisotropic=has["anisotropic_diffusion"],
        pump=_any(shapes, r"belief_field[.]memory[.].*"),
        titans=has["use_titans"],
        deltanet=has["use_deltanet"],
        hebbian=has["use_hebbian"],
        inhibition=use_inhibition,
        fatigue=has["use_fatigue"],
        legacy=legacy,
    )
    for key, value in state_dict.items():
        if re.fullmatch(_KERNEL, key) and not torch.equal(value.float(), _FIVE_POINTS):
            raise WeightsError("another Laplacian", where=key, found=value.tolist(), expected=_FIVE_POINTS.tolist())
    return _filled(FluidWorld, config, state_dict, "fluidworld", ignore=(_KERNEL,))


def from_transformer(state_dict: Mapping[str, Tensor], *, n_heads: int = 8, **others: Any) -> TransformerWorld:
    """The Transformer beside FluidWorld of a released state dict, in eval mode; its forward is the released one.

    A stimulus is taken and not used, as released.

    Args:
        state_dict: tensors by the released names.
        n_heads: heads, which no tensor shows.
        **others: further arguments of the released constructor, held against the tensors.

    Raises:
        WeightsError: tensors missing, unexpected or of other shapes, positions of no square, an argument that
            contradicts.
        ConfigError: an unknown argument, or heads that do not divide the channels.

    Complexity: O(bytes).

    Source: infinition/FluidWorld, TransformerWorldModel.

    Example:
        >>> from pipelines.world.models.transformer import TransformerConfig, TransformerWorld
        >>> state = TransformerWorld(TransformerConfig(dim=16, heads=2)).state_dict()
        >>> from_transformer(state, n_heads=2)(torch.rand(1, 3, 64, 64), torch.zeros(1, 1))["x_pred"].shape
        torch.Size([1, 3, 64, 64])
    """
    shapes = _shapes(state_dict)
    try:
        dim, channels, patch, _ = shapes["patch_embed.proj.weight"]
        _, places, _ = shapes["pos_embed"]
        hidden = shapes["encoder_blocks.0.ffn.0.weight"][0]
        middle = shapes["decoder.decoder.0.weight"][0]
    except (KeyError, IndexError, ValueError):
        raise _foreign("fluidworld_transformer", state_dict, "pos_embed, encoder_blocks.* and decoder.*") from None
    side = math.isqrt(places)
    if side * side != places:
        raise WeightsError("positions of no square", where="pos_embed", found=places, expected="a square number")
    layers, later = (_count(shapes, rf"{name}_blocks[.](\d+)[.].*") for name in ("encoder", "temporal"))
    sizes = {"in_channels": channels, "d_model": dim, "n_encoder_layers": layers, "n_temporal_layers": later}
    sizes |= {"ffn_dim": hidden, "patch_size": patch, "spatial_hw": side, "decoder_mid_channels": middle}
    _agreed("fluidworld_transformer", others, sizes)
    config = TransformerConfig(
        channels=channels,
        height=side * patch,
        width=side * patch,
        dim=dim,
        patch=patch,
        heads=n_heads,
        layers=layers,
        later=later,
        hidden=hidden,
    )
    return _filled(TransformerWorld, config, state_dict, "fluidworld_transformer")


def from_convlstm(state_dict: Mapping[str, Tensor], **others: Any) -> ConvLSTMWorld:
    """The ConvLSTM beside FluidWorld of a released state dict, in eval mode; its forward is the released one.

    A stimulus is taken and not used, as released.

    Args:
        state_dict: tensors by the released names.
        **others: arguments of the released constructor, held against the tensors.

    Raises:
        WeightsError: tensors missing, unexpected or of other shapes, an argument that contradicts.
        ConfigError: an unknown argument.

    Complexity: O(bytes).

    Source: infinition/FluidWorld, ConvLSTMWorldModel.

    Example:
        >>> from pipelines.world.models.convlstm import ConvLSTMConfig, ConvLSTMWorld
        >>> state = ConvLSTMWorld(ConvLSTMConfig(dim=16, hidden=8, bottleneck=8)).state_dict()
        >>> from_convlstm(state, convlstm_hidden=64)
        Traceback (most recent call last):
        pipelines.errors.WeightsError: convlstm_hidden: does not agree with the checkpoint. Found: 64. Expected: 8. ...
    """
    shapes = _shapes(state_dict)
    try:
        dim, channels, patch, _ = shapes["patch_embed.proj.weight"]
        hidden = shapes["output_proj.0.weight"][1]
        bottleneck, middle = shapes["encoder.0.weight"][0], shapes["decoder.decoder.0.weight"][0]
    except (KeyError, IndexError, ValueError):
        raise _foreign("fluidworld_convlstm", state_dict, "convlstm.gates.*, output_proj.* and decoder.*") from None
    sizes = {"in_channels": channels, "d_model": dim, "convlstm_hidden": hidden, "convlstm_kernel": 3}
    sizes |= {"patch_size": patch, "decoder_mid_channels": middle}
    # It has no positions: any number of places fits.
    _agreed("fluidworld_convlstm", {k: v for k, v in others.items() if k != "spatial_hw"}, sizes)
    config = ConvLSTMConfig(channels=channels, dim=dim, patch=patch, hidden=hidden, bottleneck=bottleneck)
    return _filled(ConvLSTMWorld, config, state_dict, "fluidworld_convlstm")


def _filled(
    kind: type[Any], config: WorldConfig, state_dict: Mapping[str, Tensor], name: str, ignore: Iterable[str] = ()
) -> Any:
    """A model with its tensors, in eval mode; memory is taken only after all of them were found to fit."""
    with torch.device("meta"):
        kept = check_shapes(kind(config), state_dict, name=name, ignore=ignore)
    model = kind(config)
    model.load_state_dict(kept)
    model.ignores_stimulus = name != "fluidworld"
    return model.eval()


def _agreed(name: str, given: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Hold arguments of a released constructor against what the tensors show."""
    for key, value in given.items():
        if key in found:
            agree(key, tuple(value) if isinstance(value, list) else value, found[key])
        elif key not in _TRAINING:
            near = difflib.get_close_matches(key, [*found, *_TRAINING], n=1)
            cure = f"did you mean {near[0]}?" if near else None
            raise ConfigError(f"{name} has no such option", found=key, expected=", ".join(found), cure=cure)


def _shapes(state_dict: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(getattr(value, "shape", ())) for key, value in state_dict.items()}


def _any(keys: Iterable[str], pattern: str) -> bool:
    return any(re.fullmatch(pattern, key) for key in keys)


def _count(keys: Iterable[str], pattern: str) -> int:
    """How many numbers there are; where they are not 0, 1, 2, ... the tensors do not fit and are refused later."""
    return max(1, len({int(match[1]) for key in keys if (match := re.fullmatch(pattern, key))}))


def _foreign(name: str, state_dict: Mapping[str, Any], expected: str) -> WeightsError:
    found = ", ".join(list(state_dict)[:4]) or "no tensor"
    return WeightsError(f"not a state dict of {name}", found=found, expected=expected)
