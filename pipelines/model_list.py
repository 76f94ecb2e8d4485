"""What the domains' lists of models share: finding one by name, and putting options over its defaults. No torch."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from pipelines.errors import ConfigError

__all__ = ["Listed", "ModelInfo", "check_attention", "chosen_options", "find_model"]


class Listed(Protocol):
    """One model of a list."""

    @property
    def name(self) -> str:
        """What to give as ``--model``."""
        ...

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Architecture options that the model has, with their defaults."""
        ...

    @property
    def uses_attention(self) -> bool:
        """Whether ``--attention`` means anything to it."""
        ...


@dataclass(frozen=True)
class ModelInfo:
    """One model: where it comes from and what it starts with.

    Example:
        >>> ModelInfo("bicubic", "Keys 1981", 0, "interpolation", baseline=True).uses_attention
        False
    """

    name: str
    paper: str
    """Title with year and arXiv number; "ours" where there is none."""
    sheet: int
    """Number of the paper in `pipelines papers`; 0 where there is none."""
    summary: str
    learning_rate: float = 0.0
    """Step size of Adam that training starts with; 0 for models without gradients."""
    attention: str | None = None
    """Default mechanism of models with a mixer (`--attention` swaps it)."""
    baseline: bool = False
    """Always reported beside the trained model."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Architecture options that the model has, with their defaults."""

    @property
    def uses_attention(self) -> bool:
        """Whether `--attention` means anything to this model."""
        return self.attention is not None


_Model = TypeVar("_Model", bound=Listed)


def find_model(models: Mapping[str, _Model], name: str) -> _Model:
    """The entry of a model.

    Raises:
        ConfigError: there is no such model; the message names the nearest.

    Example:
        >>> from pipelines.forecast.options import MODELS
        >>> find_model(MODELS, "dlinaer")
        Traceback (most recent call last):
        pipelines.errors.ConfigError: model: unknown model. Found: dlinaer. Expected: one of ...
    """
    if name in models:
        return models[name]
    near = difflib.get_close_matches(name.lower().replace("-", "_"), models, n=1, cutoff=0.5)
    cure = f"did you mean {near[0]}?" if near else None
    raise ConfigError("unknown model", where="model", found=name, expected=f"one of {', '.join(models)}", cure=cure)


def chosen_options(models: Mapping[str, _Model], name: str, arch: Any) -> dict[str, Any]:
    """The options that a model is built with: its defaults, and over them the fields of ``arch`` that are not None.

    Raises:
        ConfigError: an unknown model, or an option that the model does not have (those that have it are named).
    """
    info = find_model(models, name)
    chosen = dict(info.defaults)
    for entry in dataclasses.fields(arch):
        value = getattr(arch, entry.name)
        if value is None:
            continue
        if entry.name not in chosen:
            owners = " or ".join(one.name for one in models.values() if entry.name in one.defaults)
            raise ConfigError(
                f"{name} has no option {entry.name}",
                where=f"arch.{entry.name}",
                found=value,
                expected=f"one of {', '.join(chosen)}" if chosen else "no architecture option at all",
                cure=f"leave --arch.{entry.name} out or choose {owners}",
            )
        chosen[entry.name] = value
    return chosen


def check_attention(models: Mapping[str, _Model], name: str, attention: str | None) -> None:
    """Refuse ``--attention`` for a model without a mixer.

    Raises:
        ConfigError: an unknown model, or one whose mixer cannot be swapped.
    """
    if attention is None or find_model(models, name).uses_attention:
        return
    owners = [one.name for one in models.values() if one.uses_attention]
    raise ConfigError(
        f"{name} has no attention",
        where="attention",
        found=attention,
        cure=f"choose --model {' or '.join(owners)}, or leave --attention out",
    )
