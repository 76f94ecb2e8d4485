"""What this installation has, and whether each part works."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable
from typing import Any

#: Packages whose absence breaks something, with what they are for.
PACKAGES = {
    "torch": "everything",
    "triton": "GPU kernels",
    "numba": "CPU kernels",
    "lightning": "training",
    "pandas": "tables",
    "sktime": "estimators",
    "matplotlib": "pictures",
    "safetensors": "weights",
    "timm": "replace_attention",
    "onnxruntime": "ONNX export (optional: pip install 'attention-pipelines[onnx]')",
}
OPTIONAL = {"onnxruntime", "triton"}


def doctor() -> list[dict[str, Any]]:
    """Check the parts one by one.

    Returns:
        Rows of part, state (``ok``, ``absent`` or ``broken``) and detail.

    Example:
        >>> doctor()[0]["part"]
        'python'
    """
    rows = [{"part": "python", "state": "ok", "detail": f"{platform.python_version()} on {platform.platform()}"}]
    rows += [_package(name, use) for name, use in PACKAGES.items()]
    checks: dict[str, Callable[[], str]] = {
        "devices": _devices,
        "kernels": _kernels,
        "embedded data": _samples,
        "disk": _disk,
    }
    return rows + [_checked(name, check) for name, check in checks.items()]


def _package(name: str, use: str) -> dict[str, Any]:
    try:
        importlib.import_module(name)
    except ImportError as error:
        state = "absent" if name in OPTIONAL else "broken"
        return {"part": name, "state": state, "detail": f"{use}: {error}"}
    return {"part": name, "state": "ok", "detail": f"{importlib.metadata.version(name)}: {use}"}


def _checked(name: str, check: Callable[[], str]) -> dict[str, Any]:
    try:
        return {"part": name, "state": "ok", "detail": check()}
    except Exception as error:  # whatever is wrong is what the user wants to read
        return {"part": name, "state": "broken", "detail": f"{type(error).__name__}: {error}"}


def _devices() -> str:
    import torch

    found = [f"cpu ({os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads)"]
    if torch.cuda.is_available():
        found += [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return ", ".join(found)


def _kernels() -> str:
    """Run every back end that serves this machine against the reference."""
    import torch

    from core_attention.kernels import delay_aggregate, ops

    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 16, 2, 4, generator=generator)
    lags = torch.randint(0, 16, (2, 3), generator=generator)
    weights = torch.rand(2, 3, generator=generator)
    expected = delay_aggregate(values, lags, weights, backend="reference")
    shown = []
    for backend in (name for name in ops()["delay_aggregate"].backends if name in ("eager", "cpu")):
        error = (delay_aggregate(values, lags, weights, backend=backend) - expected).abs().max().item()
        if error > 1e-5:
            raise ArithmeticError(f"delay_aggregate on {backend} is off by {error:.1e}")
        shown.append(f"{backend} {error:.0e}")
    return "delay_aggregate against reference: " + ", ".join(shown)


def _samples() -> str:
    from pipelines.data.catalog import entries, open_entry

    for entry in entries():
        open_entry(entry)
    return ", ".join(f"{entry.name} ok" for entry in entries())


def _disk() -> str:
    return f"{shutil.disk_usage('.').free / 1e9:.1f} GB free here"
