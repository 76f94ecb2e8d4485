"""Actions of episodes as numbers of one width: amounts as they are, kinds one-hot, coded alike in all episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.brain_walk import natural
from pipelines.data.errors import InputError
from pipelines.data.formats.episodes_roles import Column, Draft

__all__ = ["code_actions"]

_MOST_KINDS = 64
_MOST_SAID = 4096  # kinds of actions where discrete was asked for


def code_actions(
    drafts: Sequence[Draft], discrete: bool | None, where: str
) -> tuple[list[NDArray[np.float32] | None], tuple[str, ...], tuple[str, ...]]:
    """Actions of all drafts as numbers of one width: amounts as they are, kinds one-hot.

    Texts are kinds, in natural order; so are whole numbers where that was said, or where they are the only column, are
    stored as whole numbers and lie within 0 to 63.

    Args:
        drafts: with actions or without.
        discrete: whether whole numbers are kinds.
        where: what messages call all of them.

    Returns:
        actions (T or T - 1, A) of each draft (None without), names of the A columns (perhaps none), what to note.

    Raises:
        InputError: another length than the frames have, which names both; different columns in different episodes;
            numbers that are not finite; kinds that are no whole numbers.

    Complexity: O(values).

    Example:
        >>> texts = (Column("move", np.array(["up", "down", "up"])),)
        >>> coded, names, notes = code_actions([Draft("a", "a", np.zeros((4, 8, 8)), "THW", columns=texts)], None, "a")
        >>> coded[0].tolist(), names, notes
        ([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], ('move=down', 'move=up'), ('move: 2 kinds, one-hot',))
    """
    held = [draft for draft in drafts if draft.columns is not None]
    if not held:
        return [None] * len(drafts), (), ()
    first = held[0].columns or ()
    for draft in held:
        _check_length(draft)
        _check_columns(first, held[0], draft)
    parts: list[list[NDArray[np.float32]]] = [[] for _ in held]
    names: list[str] = []
    notes: list[str] = []
    given = held[0].action_names
    for place, column in enumerate(first):
        values = [draft.columns[place].values for draft in held if draft.columns is not None]
        kinds = _kinds(values, discrete, len(first) == 1, column.name, where)
        if kinds is None:
            width = 1 if values[0].ndim == 1 else values[0].shape[1]
            names += [column.name] if column.name else list(given) if len(given) == width else [""] * width
            coded = [_amounts(one, draft) for one, draft in zip(values, held, strict=True)]
        else:
            word = column.name or "action"
            called = list(given) if len(given) == len(kinds) and not column.name else [f"{word}={one}" for one in kinds]
            names += called
            notes.append(f"{word}: {len(kinds)} kinds, one-hot")
            coded = [_one_hot(one, kinds) for one in values]
        for own, one in zip(parts, coded, strict=True):
            own.append(one)
    made = {id(draft): np.concatenate(own, axis=1) for draft, own in zip(held, parts, strict=True)}
    full = tuple(name or f"action_{place}" for place, name in enumerate(names)) if any(names) else ()
    if len(held) < len(drafts):
        notes.append(f"{len(drafts) - len(held):,} of {len(drafts):,} episodes have no actions")
    return [made.get(id(draft)) for draft in drafts], full, tuple(notes)


def _check_length(draft: Draft) -> None:
    for column in draft.columns or ():
        rows = column.values.shape[0] if column.values.ndim else 0
        if rows not in (draft.count, draft.count - 1):
            raise InputError(
                "actions of another length than the frames",
                where=draft.where,
                found=f"{rows:,} actions for {draft.count:,} frames",
                expected=f"{draft.count - 1:,} (one between neighbours) or {draft.count:,}",
                cure="give the actions of these frames",
            )
        if column.values.ndim > 2:
            found, expected = f"shape {column.values.shape}", "(T,) or (T, A)"
            raise InputError("actions have too many axes", where=draft.where, found=found, expected=expected)
        if column.values.dtype.kind not in "biufUS":
            found, expected = f"dtype {column.values.dtype}", "numbers or texts"
            raise InputError("actions are no numbers", where=draft.where, found=found, expected=expected)


def _check_columns(first: Sequence[Column], owner: Draft, draft: Draft) -> None:
    """Refuse episodes whose actions have other columns than those of the first."""

    def shape(columns: Sequence[Column]) -> list[tuple[str, int, bool]]:
        return [
            (one.name, 1 if one.values.ndim == 1 else one.values.shape[1], one.values.dtype.kind in "US")
            for one in columns
        ]

    own = draft.columns or ()
    if shape(own) != shape(first):
        listed = [
            ", ".join(
                f"{name or 'actions'} ({'texts' if text else f'{width} wide'})" for name, width, text in shape(one)
            )
            for one in (own, first)
        ]
        expected = f"{listed[1]}, as {owner.name}"
        raise InputError("actions with other columns", where=draft.where, found=listed[0], expected=expected)


def _kinds(
    values: Sequence[NDArray[Any]], discrete: bool | None, alone: bool, name: str, where: str
) -> list[str] | None:
    """Names of the kinds of a column over all episodes; None where it holds amounts."""
    if values[0].dtype.kind in "US":
        texts = {
            one.decode("utf-8", "replace") if isinstance(one, bytes) else one
            for held in values
            for one in held.ravel().tolist()
        }
        if len(texts) > _MOST_SAID:
            expected = f"at most {_MOST_SAID:,}"
            raise InputError("too many kinds of actions", where=where, found=f"{len(texts):,}", expected=expected)
        return sorted(texts, key=natural)
    narrow = all(held.ndim == 1 or held.shape[1] == 1 for held in values)
    whole = all(held.dtype.kind in "iu" for held in values)
    if discrete is False or not narrow or (discrete is None and not (alone and whole)):
        return None
    filled = [held for held in values if held.size]
    low = min((float(held.min()) for held in filled), default=0.0)
    high = max((float(held.max()) for held in filled), default=0.0)
    if discrete is None:
        return [str(kind) for kind in range(int(high) + 1)] if low >= 0 and high < _MOST_KINDS else None
    if not all(np.array_equal(held, np.rint(held)) for held in values) or not 0 <= low <= high < _MOST_SAID:
        found, expected = f"{low:g} to {high:g}", f"whole numbers from 0 to {_MOST_SAID - 1}"
        raise InputError("actions are no kinds", where=f"{where}, {name or 'actions'}", found=found, expected=expected)
    return [str(kind) for kind in range(int(high) + 1)]


def _one_hot(values: NDArray[Any], kinds: Sequence[str]) -> NDArray[np.float32]:
    place = {kind: number for number, kind in enumerate(kinds)}
    flat = values.ravel().tolist()
    keys = [one.decode("utf-8", "replace") if isinstance(one, bytes) else one for one in flat]
    numbers = [place[one if isinstance(one, str) else str(int(one))] for one in keys]
    return np.eye(len(kinds), dtype=np.float32)[numbers].reshape(len(numbers), len(kinds))


def _amounts(values: NDArray[Any], draft: Draft) -> NDArray[np.float32]:
    flat = values.reshape(len(values), -1).astype(np.float32)
    odd = np.any(~np.isfinite(flat), axis=1)
    if odd[: draft.count - 1].any():
        found = f"{int(odd.sum()):,} of {len(flat):,} rows, the first is row {int(np.argmax(odd))}"
        raise InputError(
            "actions hold NaN or infinite numbers", where=draft.where, found=found, expected="finite numbers"
        )
    return flat[: draft.count - 1] if odd.any() else flat  # the action of the last frame leads nowhere
