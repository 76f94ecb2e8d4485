"""Choosing the mechanism that mixes the rows of a forecasting model."""

from __future__ import annotations

from typing import Any

from core_attention import MechanismError, TokenMixer, build, spec
from pipelines.errors import ConfigError

__all__ = ["sequence_mixer"]


def sequence_mixer(
    attention: str, d_model: int, n_heads: int, *, length: int, context: bool = False, **options: Any
) -> TokenMixer:
    """Any registered mechanism that mixes sequences, built for a model.

    Args:
        attention: its name in `core_attention.names(kind="mixer", grid=1)`.
        d_model: width of the rows. n_heads: heads.
        length: rows that it will see; only mechanisms of a fixed length are told.
        context: whether the model mixes with rows from elsewhere.
        options: the mechanism's own options.

    Raises:
        ConfigError: no such mechanism, or one that cannot do this.

    Example:
        >>> sequence_mixer("softmax", 16, 4, length=10).spec.name
        'softmax'
    """
    try:
        about = spec(attention)
        reason = _unfit(about, context)
        if reason is None:
            if about.fixed_length:
                options["length"] = length
            return build(attention, d_model, n_heads, **options)
    except MechanismError as error:
        raise ConfigError(str(error), where="attention", cure="`pipelines mechanisms` lists what there is") from error
    raise ConfigError(
        f"{attention} {reason}",
        where="attention",
        found=attention,
        expected="a mixer of sequences with context" if context else "a mixer of sequences",
        cure="choose softmax, which fits every model",
    )


def _unfit(about: Any, context: bool) -> str | None:
    """Why a mechanism cannot serve, or None."""
    if about.kind != "mixer":
        return f"is a {about.kind}, not a mixer"
    if 1 not in about.grid:
        return f"mixes grids of {' or '.join(map(str, about.grid))} axes, not sequences"
    if about.extras:
        return f"needs {', '.join(about.extras)} beside the rows"
    if context and not about.context:
        return "takes no context, which the decoder needs"
    return None
