"""Model and loss as the wrappers around them see it, and batches on their way to the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Carried", "LossFn", "Step", "copied", "moved", "shapes"]

LossFn = Callable[[Any, dict[str, Tensor]], tuple[Tensor, Any]]
"""(model, batch) -> (sum of the loss, number of values summed)."""


class Carried:
    """Hides a batch from the wrappers around the model, which would cast targets to half precision too."""

    __slots__ = ("data",)

    def __init__(self, data: dict[str, Tensor]) -> None:
        self.data = data


class Step(nn.Module):
    """Model and loss as one module, so that autocast and gradient exchange cover whatever the loss calls."""

    def __init__(self, model: nn.Module, loss_fn: LossFn) -> None:
        super().__init__()
        self.model, self.loss_fn = model, loss_fn

    def forward(self, carried: Carried) -> tuple[Tensor, Tensor]:
        """Sum of the loss and the number of values summed, both tensors without axes."""
        total, count = self.loss_fn(self.model, carried.data)
        return total, torch.as_tensor(count, device=total.device)


def moved(data: Mapping[str, Tensor], device: torch.device, *, double: bool) -> Any:
    """A batch on the device, in 64-bit numbers if asked for."""
    if isinstance(data, Mapping):
        return {name: moved(part, device, double=double) for name, part in data.items()}
    if isinstance(data, (list, tuple)):
        return [moved(part, device, double=double) for part in data]
    if not isinstance(data, Tensor):
        return data
    data = data.to(device, non_blocking=True) if device.type != "cpu" else data
    return data.double() if double and data.is_floating_point() else data


def copied(model: nn.Module) -> dict[str, Tensor]:
    """A copy of a model's state in main memory."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def shapes(model: nn.Module) -> dict[str, str]:
    """Shape and type of each entry of a model's state."""
    return {name: f"{tuple(value.shape)} {value.dtype}" for name, value in model.state_dict().items()}
