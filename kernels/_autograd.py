"""Gradients by torch's own autograd from inside an operator, for back ends that have no hand-written backward pass."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["gradients"]


def gradients(
    function: Callable[..., Any],
    operands: Mapping[str, Tensor | None],
    wanted: Sequence[str],
    cotangents: Sequence[Tensor | None],
    **options: Any,
) -> dict[str, Tensor]:
    """Differentiate a function of plain torch operators at given operands.

    Args:
        function: takes the operands and options by keyword, returns a tensor or a tuple of tensors.
        operands: its tensors by name; None for one left out.
        wanted: the names of those whose gradients are asked for; names of absent operands are passed over.
        cotangents: gradients of the outputs, in order; None for an output that has none.
        options: passed on.

    Returns:
        The gradients by name, zeros where the output does not depend on an operand.

    Inside an operator's implementation torch records no operations, whatever the grad mode; a fresh thread does.
    """
    found: dict[str, Tensor] = {}
    failures: list[BaseException] = []

    def work() -> None:
        try:
            found.update(_differentiate(function, operands, wanted, cotangents, options))
        except BaseException as failure:  # handed to the caller below
            failures.append(failure)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return found


def _differentiate(
    function: Callable[..., Any],
    operands: Mapping[str, Tensor | None],
    wanted: Sequence[str],
    cotangents: Sequence[Tensor | None],
    options: Mapping[str, Any],
) -> dict[str, Tensor]:
    leaves = {name: None if tensor is None else tensor.detach() for name, tensor in operands.items()}
    inputs = {name: leaf.requires_grad_() for name in wanted if (leaf := leaves[name]) is not None}
    with torch.enable_grad():
        returned = function(**leaves, **options)
    outputs = returned if isinstance(returned, tuple) else (returned,)
    pairs = [
        (output, cotangent.to(output.dtype))
        for output, cotangent in zip(outputs, cotangents, strict=True)
        if cotangent is not None and output.requires_grad
    ]
    if not pairs:
        return {name: torch.zeros_like(leaf) for name, leaf in inputs.items()}
    grads = torch.autograd.grad(
        [output for output, _ in pairs], list(inputs.values()), [grad for _, grad in pairs], materialize_grads=True
    )
    return dict(zip(inputs, grads, strict=True))
