"""What the conformance checks work on: a mechanism, built as its flags need it, and inputs that fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from core_attention import registry
from core_attention.contract import MechanismSpec, MixerOutput, TokenMixer

DIM, HEADS, BATCH = 16, 4, 3
# Even, odd and single-token grids by the number of axes.
GRIDS: dict[int, tuple[tuple[int, ...], ...]] = {
    1: ((12,), (9,), (1,)),
    2: ((4, 6), (3, 5), (1, 1)),
    3: ((4, 3, 2), (3, 3, 3)),
    4: ((2, 3, 2, 4), (3, 2, 2, 3)),
}


class CheckFailed(Exception):
    """A claim that does not hold; the message says what was found."""


def require(condition: bool, message: str) -> None:
    """Raise ``CheckFailed`` with the message unless the condition holds."""
    if not condition:
        raise CheckFailed(message)


def require_close(found: Tensor, expected: Tensor, what: str, tolerance: float = 1e-5) -> None:
    """Raise ``CheckFailed`` unless two tensors agree within a tolerance relative to the larger of 1 and their size."""
    require(found.shape == expected.shape, f"{what}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
    gap = float((found.detach().double() - expected.detach().double()).abs().max())
    # The comparison is written so that NaN fails.
    require(gap <= tolerance * max(1.0, float(expected.detach().abs().max())), f"{what}: largest difference {gap:.2e}")


class Subject:
    """A mechanism under test."""

    def __init__(self, spec: MechanismSpec, options: dict[str, Any]) -> None:
        self.spec, self.options = spec, options
        self.option_names = registry.option_names(spec.name)
        # A context has no order with x, so that a mechanism built causal by the caller may refuse one.
        self.contextual = spec.context and not options.get("causal")

    @property
    def grids(self) -> Iterator[tuple[int, ...]]:
        """Grids of every number of axes that the mechanism takes."""
        for axes in self.spec.grid:
            yield from GRIDS[axes]

    @property
    def grid(self) -> tuple[int, ...]:
        """One ordinary grid."""
        return GRIDS[self.spec.grid[0]][0]

    def build(
        self, grid: tuple[int, ...] | None = None, *, dim: int = DIM, seed: int = 0, **options: Any
    ) -> TokenMixer:
        """The mechanism with seeded weights, for a grid where it wants to know."""
        size = grid or self.grid
        if self.spec.fixed_length and "length" not in self.options:
            options["length"] = size[0] if len(size) == 1 else size
        fitting = registry.get(self.spec.name).example_options(size)
        torch.manual_seed(seed)
        return registry.build(self.spec.name, dim, HEADS, **{**fitting, **self.options, **options})

    def tokens(
        self, grid: tuple[int, ...] | None = None, *, batch: int = BATCH, dim: int = DIM, seed: int = 1
    ) -> Tensor:
        """Seeded normal tokens (batch, *grid, dim)."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, *(grid or self.grid), dim, generator=generator)

    def call(self, mixer: TokenMixer, x: Tensor, **inputs: Any) -> MixerOutput:
        """Call it with the extras that it declares."""
        return mixer(x, **mixer.example_extras(x), **inputs)

    def modes(self, mixer: TokenMixer) -> Iterator[tuple[str, TokenMixer]]:
        """The mechanism in training and in evaluation mode, seeded anew."""
        for mode in ("train", "eval"):
            torch.manual_seed(2)
            yield mode, mixer.train(mode == "train")

    def branch_seeds(self, function: Callable[[int], Tensor]) -> tuple[int, ...]:
        """Seeds that lead a function of the seed down different random branches: one where chance has no say, else two.

        Dropout takes another branch with every seed; a coin that falls one way eight times is one in 128.
        """
        first, *others = range(4, 12)
        result = function(first).detach()
        return (first, *[seed for seed in others if not torch.equal(function(seed).detach(), result)][:1])


class LargestTensor(TorchDispatchMode):
    """Notes the largest memory behind any tensor that an operator returns, in elements of four bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor):
                # The storage, not the shape: an expanded view holds nothing.
                self.elements = max(self.elements, leaf.untyped_storage().nbytes() // 4)
        return result
