"""World models by name."""

from __future__ import annotations

import dataclasses
from typing import Any

from pipelines.errors import ConfigError
from pipelines.world.models.convlstm import ConvLSTMConfig, ConvLSTMWorld
from pipelines.world.models.fluidworld import FluidConfig, FluidWorld
from pipelines.world.models.shell import WorldConfig, WorldNet, WorldState
from pipelines.world.models.transformer import TransformerConfig, TransformerWorld

__all__ = [
    "CONFIGS",
    "NETS",
    "ConvLSTMConfig",
    "ConvLSTMWorld",
    "FluidConfig",
    "FluidWorld",
    "TransformerConfig",
    "TransformerWorld",
    "WorldConfig",
    "WorldNet",
    "WorldState",
    "build_world",
]

#: Models, and what configures them, by name.
NETS: dict[str, type[WorldNet]] = {
    "fluidworld": FluidWorld,
    "transformer": TransformerWorld,
    "convlstm": ConvLSTMWorld,
}
CONFIGS: dict[str, type[WorldConfig]] = {
    "fluidworld": FluidConfig,
    "transformer": TransformerConfig,
    "convlstm": ConvLSTMConfig,
}


def build_world(name: str, **options: Any) -> WorldNet:
    """A world model; ``build_world(name, **dataclasses.asdict(net.config))`` has the same tensors.

    Args:
        name: fluidworld, transformer or convlstm.
        **options: fields of its configuration.

    Raises:
        ConfigError: an unknown model or option, or a value that does not fit.

    Example:
        >>> {name: sum(p.numel() for p in build_world(name).parameters()) for name in NETS}
        {'fluidworld': 800975, 'transformer': 800067, 'convlstm': 801995}
    """
    if name not in NETS:
        raise ConfigError("there is no such model", where="model", found=name, expected=", ".join(NETS))
    known = [field.name for field in dataclasses.fields(CONFIGS[name])]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ConfigError(f"{name} has no such option", found=unknown[0], expected=", ".join(known))
    return NETS[name](CONFIGS[name](**options))
