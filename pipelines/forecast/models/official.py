"""What the converters of released checkpoints share: which constructor names are taken and which are refused."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.errors import ConfigError

__all__ = ["refuse_unknown"]

_TAKEN = ("seq_len", "pred_len", "enc_in", "individual", "moving_avg")


def refuse_unknown(
    name: str, others: Mapping[str, Any], *, unused: Iterable[str] = (), taken: Iterable[str] = _TAKEN
) -> None:
    """Refuse keywords that the released constructor of a model does not have.

    Args:
        name: the model, for the message.
        others: the keywords that the converter did not take.
        unused: names that the released command line sets but this model never reads.
        taken: names that the converter takes, for the message.

    Raises:
        ConfigError: names the keyword and the nearest that there is.

    Example:
        >>> refuse_unknown("linear", {"label_len": 48}, unused=("label_len",))
    """
    known = [*taken, *unused]
    for key, value in others.items():
        if key in known:
            continue
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        raise ConfigError(
            f"load_official({name!r}) has no argument {key}",
            where=key,
            found=value,
            expected=f"one of {', '.join(known)}",
            cure=f"did you mean {near[0]}?" if near else None,
        )
