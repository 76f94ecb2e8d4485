"""Floor 3: the shared attention layer, one mechanism a file behind one contract.

The names below are loaded when first used, so that importing the package loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core_attention.checks import CheckResult, check_mechanism
    from core_attention.contract import MechanismError, MechanismSpec, MixerOutput, TokenMixer
    from core_attention.registry import build, get, mechanism, names, option_names, spec, unregister
    from core_attention.replace import replace_attention

_HOMES = {
    "CheckResult": "checks",
    "MechanismError": "contract",
    "MechanismSpec": "contract",
    "MixerOutput": "contract",
    "TokenMixer": "contract",
    "build": "registry",
    "check_mechanism": "checks",
    "get": "registry",
    "mechanism": "registry",
    "names": "registry",
    "option_names": "registry",
    "replace_attention": "replace",
    "spec": "registry",
    "unregister": "registry",
}

__all__ = [
    "CheckResult",
    "MechanismError",
    "MechanismSpec",
    "MixerOutput",
    "TokenMixer",
    "build",
    "check_mechanism",
    "get",
    "mechanism",
    "names",
    "option_names",
    "replace_attention",
    "spec",
    "unregister",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
