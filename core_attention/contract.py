"""The contract every mechanism keeps: one base class, one output type, one table of flags."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

KINDS = ("mixer", "pool", "modifier")
MEMORY = ("L", "L log L", "L^2")


class MechanismError(ValueError):
    """A mechanism that does not exist, or one used in a way that it does not support."""


class MixerOutput(NamedTuple):
    """What every mechanism returns.

    Attributes:
        y: the mixed tokens, the shape of ``x``; of a pool, (B, C).
        state: what a streaming mechanism needs to go on with the next piece, else None.
        aux: losses, steps used, and maps on request, by name.
    """

    y: Tensor
    state: Any = None
    # Nothing ever writes into an aux that it was given, so that the shared default stays empty.
    aux: dict[str, Tensor] = {}  # noqa: RUF012


@dataclass(frozen=True)
class MechanismSpec:
    """What a mechanism is and claims; ``check_mechanism`` holds it to every flag.

    Attributes:
        name: registry name, also the name of its file.
        paper: where it comes from, e.g. "arXiv 2106.13008".
        year: year of the paper.
        kind: "mixer" (tokens to as many tokens), "pool" (tokens to one vector) or "modifier" (a preset of another).
        complexity: time for L tokens, e.g. "L log L".
        memory: growth of the largest intermediate tensor, "L", "L log L" or "L^2".
        grid: the numbers of grid axes that it takes; (1,) is a sequence, (2,) an image.
        causal: the constructor takes ``causal=True``.
        context: keys and values may come from another sequence.
        mask: padding is marked by ``mask`` (and ``context_mask``), True = valid.
        streaming: ``state`` carries on from one piece of a sequence to the next (in causal mode where there is one).
        extras: names of further tensors that ``forward`` requires.
        fixed_length: the constructor needs ``length=`` and other lengths are refused.
        export: ``torch.export`` with a dynamic batch works.
        summary: one sentence, the first of the class's docstring.
    """

    name: str
    paper: str
    year: int
    complexity: str
    memory: str = "L"
    kind: str = "mixer"
    grid: tuple[int, ...] = (1,)
    causal: bool = False
    context: bool = False
    mask: bool = False
    streaming: bool = False
    extras: tuple[str, ...] = ()
    fixed_length: bool = False
    export: bool = True
    summary: str = ""

    def __post_init__(self) -> None:
        """Refuse flags that no check could hold to anything."""
        if self.kind not in KINDS:
            raise MechanismError(f"{self.name}: kind is {self.kind!r}, expected one of {', '.join(KINDS)}")
        if self.memory not in MEMORY:
            raise MechanismError(f"{self.name}: memory is {self.memory!r}, expected one of {', '.join(MEMORY)}")
        if not self.grid or min(self.grid) < 1:
            raise MechanismError(f"{self.name}: grid is {self.grid!r}, expected numbers of axes such as (1,) or (1, 2)")


class TokenMixer(nn.Module):
    """Base of every mechanism: checks what comes in, then calls the mechanism's own ``mix``.

    A mechanism is a subclass with ``@mechanism(...)`` above it and a method ``mix(x, ...)`` that takes the keywords
    which its flags declare, and no others: ``context`` (context), ``mask`` (mask), ``context_mask`` (both), ``state``
    (streaming) and the names in ``extras``. It keeps nothing on the module between calls.

    Args:
        dim: channels C of ``x``.
        num_heads: number of heads H; mechanisms without heads ignore it.

    Raises:
        MechanismError: ``dim`` or ``num_heads`` is not a positive whole number.

    Example:
        >>> import torch
        >>> from core_attention import build
        >>> build("softmax", dim=16, num_heads=4)(torch.zeros(2, 5, 16)).y.shape
        torch.Size([2, 5, 16])
    """

    spec: ClassVar[MechanismSpec]
    mix: Callable[..., MixerOutput]

    def __init__(self, dim: int, num_heads: int = 8) -> None:
        super().__init__()
        for label, value in (("dim", dim), ("num_heads", num_heads)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise MechanismError(f"{type(self).__name__}: {label} is {value!r}, expected a positive whole number")
        self.dim, self.num_heads = dim, num_heads

    def forward(
        self,
        x: Tensor,
        *,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
        state: Any = None,
        **extras: Any,
    ) -> MixerOutput:
        """Mix the tokens of ``x``.

        Args:
            x: (B, *grid, C) tokens; (B, T, C) for sequences.
            context: (B, S, C) tokens that keys and values come from, instead of ``x``.
            mask: (B, *grid) bool, True = valid.
            context_mask: (B, S) bool, True = valid.
            state: what the call on the previous piece returned.
            extras: the tensors that the mechanism declares, and optional requests such as ``maps=True``.

        Returns:
            ``MixerOutput(y, state, aux)``.

        Raises:
            MechanismError: a shape that does not fit, or an input that the mechanism's flags do not allow.
        """
        self._check_tokens(x)
        given = {"context": context, "mask": mask, "context_mask": context_mask, "state": state}
        allowed = _allowed_inputs(self.spec)
        for label, value in given.items():
            if value is not None and label not in allowed:
                raise MechanismError(f"{self.spec.name} takes no {label}; allowed: {', '.join(sorted(allowed)) or 'x'}")
        self._check_companions(x, context, mask, context_mask)
        missing = [label for label in self.spec.extras if label not in extras]
        if missing:
            raise MechanismError(f"{self.spec.name} needs {', '.join(missing)} beside x")
        return self.mix(x, **{label: given[label] for label in given if label in allowed}, **extras)

    @classmethod
    def example_options(cls, grid: tuple[int, ...]) -> dict[str, Any]:
        """Constructor options for a grid, for the conformance checks; to be overridden where defaults do not fit."""
        return {}

    def example_extras(self, x: Tensor) -> dict[str, Tensor]:
        """Extras that fit x, for the conformance checks; to be overridden where they are not like x itself."""
        generator = torch.Generator().manual_seed(len(self.spec.extras))
        like = {name: torch.randn(x.shape, generator=generator) for name in self.spec.extras}
        return {name: value.to(x) for name, value in like.items()}

    def _check_tokens(self, x: Tensor) -> None:
        grids = self.spec.grid
        if x.dim() - 2 not in grids:
            expected = " or ".join(f"(batch, {'axis, ' * n}{self.dim})" for n in grids)
            raise MechanismError(f"{self.spec.name}: x has shape {tuple(x.shape)}, expected {expected}")
        if x.shape[-1] != self.dim:
            raise MechanismError(f"{self.spec.name}: x has {x.shape[-1]} channels, expected dim={self.dim}")
        if not x.is_floating_point():
            raise MechanismError(f"{self.spec.name}: x is {x.dtype}, expected a floating-point tensor")
        # An exporter's symbolic sizes are not asked: a guard on them would make a dynamic axis static.
        if any(isinstance(size, int) and size == 0 for size in x.shape):
            raise MechanismError(f"{self.spec.name}: x has shape {tuple(x.shape)}, expected no empty axis")

    def _check_companions(
        self, x: Tensor, context: Tensor | None, mask: Tensor | None, context_mask: Tensor | None
    ) -> None:
        name = self.spec.name
        if context is not None and (context.dim() != 3 or context.shape[-1] != self.dim):
            raise MechanismError(f"{name}: context has shape {tuple(context.shape)}, expected (batch, S, {self.dim})")
        if context is not None and context.shape[0] != x.shape[0]:
            raise MechanismError(f"{name}: context has batch {context.shape[0]}, expected {x.shape[0]} as x has")
        if context_mask is not None and context is None:
            raise MechanismError(f"{name}: context_mask without context; give mask for x itself")
        pairs = (("mask", mask, x), ("context_mask", context_mask, context))
        for label, given, of in pairs:
            if given is None or of is None:
                continue
            if given.dtype != torch.bool:
                raise MechanismError(f"{name}: {label} is {given.dtype}, expected torch.bool with True = valid")
            if given.shape != of.shape[:-1]:
                raise MechanismError(f"{name}: {label} has shape {tuple(given.shape)}, expected {tuple(of.shape[:-1])}")


def _allowed_inputs(spec: MechanismSpec) -> set[str]:
    flags = {"context": spec.context, "mask": spec.mask, "state": spec.streaming}
    return {label for label, on in flags.items() if on} | ({"context_mask"} if spec.context and spec.mask else set())
