"""Random states: seeds derived from names and places, and the states of every generator saved and restored."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

__all__ = ["capture", "derive_seed", "isolated", "restore", "seed_everything", "seed_host"]


def derive_seed(*parts: int) -> int:
    """A 63-bit seed from whole numbers >= 0 that differs wherever one of them differs.

    Source: NumPy's SeedSequence (O'Neill's hash), which keeps neighbouring seeds apart.

    Example:
        >>> derive_seed(0, 1) == derive_seed(0, 1), derive_seed(0, 1) == derive_seed(1, 0)
        (True, False)
    """
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (every device) with one number of up to 63 bits."""
    # Data sets may draw from the global generators, the old one of NumPy among them.
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)


def seed_host(seed: int) -> None:
    """As `seed_everything` without the devices: until CUDA is used, torch.manual_seed formats stack traces."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)


def capture() -> dict[str, Any]:
    """The states of the global generators, made of tensors and plain values only, as a safe checkpoint needs.

    The generators of CUDA and MPS are among them where they are in use.

    Complexity: O(1); the states take 17 kB on a CPU.
    """
    (version, words, gauss), numpy_state, torch_state = _snapshot()
    name, keys, position, has_gauss, cached = numpy_state
    state: dict[str, Any] = {
        "python": [version, torch.tensor(words, dtype=torch.int64), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "torch": torch_state,
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore(state: dict[str, Any]) -> None:
    """Put the states from `capture` back.

    Raises:
        KeyError, TypeError, ValueError, RuntimeError: the state is damaged.
    """
    version, words, gauss = state["python"]
    name, keys, position, has_gauss, cached = state["numpy"]
    numpy_state = (name, keys.numpy().astype(np.uint32), position, has_gauss, cached)
    _put_back(((version, tuple(words.tolist()), gauss), numpy_state, state["torch"]))
    if "cuda" in state and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


@contextlib.contextmanager
def isolated(*, devices: bool = True) -> Iterator[None]:
    """Whatever is drawn or seeded inside leaves no trace in the global generators.

    Example:
        >>> before = torch.get_rng_state()
        >>> with isolated():
        ...     _ = torch.rand(3)
        >>> torch.equal(before, torch.get_rng_state())
        True
    """
    state = capture() if devices else None
    host = _snapshot()
    try:
        yield
    finally:
        _put_back(host)
        if state is not None:
            restore(state)


def _snapshot() -> tuple[Any, Any, torch.Tensor]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002


def _put_back(host: tuple[Any, Any, torch.Tensor]) -> None:
    random.setstate(host[0])
    np.random.set_state(host[1])  # noqa: NPY002
    torch.set_rng_state(host[2])
