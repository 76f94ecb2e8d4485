"""One process or several: Fabric set up quietly, launched by torchrun only, and what processes say to each other.

A process is one of several when torchrun says so in its environment (RANK, WORLD_SIZE, LOCAL_RANK). Spawning processes
from a running program is not supported: measured with Lightning's spawn launchers, the parent's counters stay at 0 and
what the children trained is lost. On CPU the processes talk through gloo, on CUDA through NCCL.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from pipelines.errors import ConfigError, RunError
from pipelines.training.options import PRECISIONS

__all__ = ["World", "connect", "resolve_device"]

Value = TypeVar("Value")
_LAUNCH = "torchrun --nproc-per-node N -m pipelines ..."


@dataclass(frozen=True)
class World:
    """This process among all processes of the run.

    Attributes:
        fabric: the connected `lightning.fabric.Fabric`.
        scaler: the mixed-precision plugin whose loss scale belongs to the state, or None.
        rank, size: this process, 0 to size - 1, and how many there are.
    """

    fabric: Any
    scaler: Any
    rank: int
    size: int

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.fabric.device

    def sum_(self, values: torch.Tensor) -> torch.Tensor:
        """Add up a tensor over the processes in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; every process must ask."""
        if self.size == 1:
            return flag
        return bool(self.sum_(torch.tensor(float(flag), device=self.device)).item())

    def gather(self, value: Value) -> list[Value]:
        """The values of all processes, by rank, in every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def raise_together(self, error: Exception | None) -> None:
        """Raise in every process when one of them failed, so that none waits for a process that has left.

        Raises:
            Exception: this process's own error, or the message of another process's error as a RunError.
        """
        messages = self.gather(str(error) if error is not None else "")
        if error is not None:
            raise error
        for rank, message in enumerate(messages):
            if message:
                raise RunError(f"process {rank} of {self.size} stopped the run: {message}")


def connect(device: str, precision: str) -> World:
    """Choose the device, and join the other processes when torchrun started this one.

    Args:
        device: auto (CUDA before MPS before CPU), cpu, cuda, cuda:N or mps.
        precision: 32-true, bf16-mixed, 16-mixed (CUDA only) or 64-true.

    Raises:
        ConfigError: an unknown or absent device, an unknown precision, one that the device does not have, or several
            processes that torchrun did not start.
    """
    rank, size, local_size = _launched()
    chosen = resolve_device(device)
    _check_precision(precision, chosen)
    if size > 1 and chosen.type == "mps":
        raise ConfigError("one MPS device cannot be shared by processes", where="device", cure="use device cpu")
    if size > 1 and chosen.type == "cuda" and local_size > torch.cuda.device_count():
        found = f"{local_size} processes, {torch.cuda.device_count()} devices"
        raise ConfigError("too few CUDA devices", where="device", found=found, expected="one for each process")
    with _without_chatter():
        return _connect(chosen, precision, rank, size, local_size)


def _connect(chosen: torch.device, precision: str, rank: int, size: int, local_size: int) -> World:
    from lightning.fabric import Fabric
    from lightning.fabric.plugins import MixedPrecision
    from lightning.fabric.plugins.environments import TorchElasticEnvironment
    from lightning.fabric.strategies import DDPStrategy

    scaler = MixedPrecision("16-mixed", "cuda") if precision == "16-mixed" else None
    plugins: list[Any] = [scaler] if scaler is not None else []
    # The loop casts for 64-true itself: Fabric would cast the loss back to 32 bits.
    fabric_precision = "bf16-mixed" if precision == "bf16-mixed" else "32-true"
    settings: dict[str, Any] = {"accelerator": chosen.type, "precision": None if scaler else fabric_precision}
    if size == 1:
        settings["devices"] = [chosen.index or 0] if chosen.type == "cuda" else 1
    else:
        plugins.append(TorchElasticEnvironment())
        backend = "gloo" if chosen.type == "cpu" else None
        # The search for weights without a gradient costs little; without it such a model waits for ever.
        settings["strategy"] = DDPStrategy(process_group_backend=backend, find_unused_parameters=True)
        settings |= {"devices": local_size, "num_nodes": size // local_size}
    fabric = Fabric(plugins=plugins or None, **settings)
    fabric.launch()
    return World(fabric, scaler, rank, size)


def resolve_device(name: str) -> torch.device:
    """The device of a name; auto is CUDA before MPS before CPU.

    Raises:
        ConfigError: the name is unknown, or this machine has no such device.

    Example:
        >>> resolve_device("cpu").type
        'cpu'
    """
    known = "auto, cpu, cuda, cuda:N or mps"
    if name == "auto":
        best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(best)
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ConfigError("unknown device", where="device", found=name, expected=known) from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError("unknown device", where="device", found=name, expected=known)
    count = _count(device.type)
    if (device.index or 0) >= count:
        found = f"{name}; this machine has {count} of {device.type}"
        raise ConfigError("this device is not there", where="device", found=found, cure="use --device auto")
    return device


def _count(kind: str) -> int:
    if kind == "cuda":
        return torch.cuda.device_count()
    return int(torch.backends.mps.is_available()) if kind == "mps" else 1


def _launched() -> tuple[int, int, int]:
    """Rank, number of processes, and number of processes on this machine, from torchrun's environment."""
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            raise ConfigError(
                "several processes that torchrun did not start",
                where="launch",
                found="a process group without RANK and WORLD_SIZE in the environment, as spawn makes it",
                cure=f"start the program with {_LAUNCH}",
            )
        return 0, 1, 1
    missing = [
        name
        for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        if name not in os.environ
    ]
    if missing:
        raise ConfigError(
            "an incomplete launch of several processes",
            where="launch",
            found=f"WORLD_SIZE={size} without {', '.join(missing)}",
            cure=f"start the program with {_LAUNCH}, or unset WORLD_SIZE",
        )
    return _number("RANK", 0), size, _number("LOCAL_WORLD_SIZE", 1)


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, str(default))
    try:
        return int(value)
    except ValueError as error:
        raise ConfigError("not a number in the environment", where=name, found=value, expected="a number") from error


def _check_precision(precision: str, device: torch.device) -> None:
    if precision not in PRECISIONS:
        raise ConfigError("unknown precision", where="precision", found=precision, expected=", ".join(PRECISIONS))
    if precision == "16-mixed" and device.type != "cuda":
        found = f"{precision} on {device.type}"
        raise ConfigError("16-mixed needs CUDA", where="precision", found=found, cure="use bf16-mixed")
    if precision == "64-true" and device.type == "mps":
        raise ConfigError("MPS has no 64-bit numbers", where="precision", found=precision, cure="use --device cpu")


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    """Lightning announces devices and ranks on its own; what a person should know, this project says."""
    import lightning.fabric  # noqa: F401  # sets its own logger's level when it is first imported

    logger = logging.getLogger("lightning.fabric")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
