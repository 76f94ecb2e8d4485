"""Exported programs: torch.export archives (.pt2) and ONNX, with a free batch size and a measured agreement with eager.

A file appears under its name only after it was opened again and gave what the model gives, at several batch sizes. The
names, shapes and units of inputs and outputs are stored in the file as JSON: in ONNX under ``metadata_props``, in a
.pt2 archive in the extra file ``pipelines.json``.

A .pt2 archive can hold pickled objects, so opening one from a stranger can run code: no loader of this library opens
them (weights travel as safetensors). Open your own with ``torch.export.load``.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import json
import logging
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from pipelines.errors import ConfigError, RunError, UserError
from pipelines.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

__all__ = ["FORMATS", "ExportParity", "export_module"]

FORMATS = ("pt2", "onnx")
METADATA = "pipelines.json"

_RELATIVE_TOLERANCE = 1e-4
_NOISY = ("torch.onnx", "torch.export", "torch._dynamo", "torch.fx", "onnxscript", "onnx_ir")

_LOGGER = logging.getLogger("pipelines.exporting")

Runner = Callable[[dict[str, "Tensor"]], list["Tensor"]]


@dataclass(frozen=True)
class ExportParity:
    """How far an exported file, opened again, is from the eager model.

    Attributes:
        format: "pt2" or "onnx".
        path: the file.
        max_abs_error: largest absolute difference over all outputs and batches, in the output's unit.
        tolerance: largest difference that was allowed: 1e-4 of the largest eager output.
        batches: the batch sizes that were compared.
    """

    format: str
    path: pathlib.Path
    max_abs_error: float
    tolerance: float
    batches: tuple[int, ...]


def export_module(
    module: nn.Module,
    example: Mapping[str, Tensor],
    path: str | os.PathLike[str],
    format: str = "pt2",
    *,
    output_name: str | Sequence[str] = "forecast",
    metadata: Mapping[str, Any] | None = None,
) -> ExportParity:
    """Export a model with a free batch size, and keep the file only if it agrees with eager.

    Args:
        module: a model whose forward takes tensors by position and returns a tensor or a tuple of tensors. It is
            copied to the CPU and put into eval mode; the caller's stays as it is.
        example: name -> tensor (B, ...), in the order of forward's arguments.
        path: the file to write.
        format: "pt2" or "onnx".
        output_name: name of each output.
        metadata: more for the file, e.g. ``{"units": {"forecast": "Wh"}}``.

    Returns:
        The measured difference at batch 1, the example's and one more.

    Raises:
        ConfigError: an unknown format, an ending of the other format, or the onnx packages are not installed.
        RunError: the model cannot be exported, the file differs from eager by more than 1e-4 of the largest output,
            or the disk is full. No file is left, and an old one stays.

    Complexity: a trace of the model, and twice its forward at three batch sizes.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     parity = export_module(torch.nn.Linear(3, 1), {"x": torch.ones(2, 3)}, f"{folder}/a.pt2")
        >>> parity.batches, parity.max_abs_error <= parity.tolerance
        ((1, 2, 5), True)
    """
    _check_format(format, pathlib.Path(path))
    twin = copy.deepcopy(module).cpu().eval()
    inputs = _at_least_two(example)
    outputs = (output_name,) if isinstance(output_name, str) else tuple(output_name)
    description = _description(twin, inputs, outputs, metadata or {})
    with _quiet(), _explained(format):
        program = _traced(twin, inputs)
        own = description["operators"] = _own_operators(program)
        text = json.dumps(description, allow_nan=False)
        payload = _as_onnx(program, inputs, outputs, text) if format == "onnx" else _as_pt2(program, text)
    if own:
        _LOGGER.warning("%s: opens only where these operators are registered: %s", path, ", ".join(own))
    measured: list[tuple[float, float]] = []
    batches = _batches(inputs)

    def write_and_check(file: BinaryIO) -> None:
        file.write(payload)
        file.flush()
        with _quiet(), _explained(format):
            runner = (_onnx_runner if format == "onnx" else _pt2_runner)(pathlib.Path(file.name))
            measured.extend(_difference(twin, runner, _resized(inputs, size)) for size in batches)
        _refuse_difference(measured, batches, pathlib.Path(path))

    written = atomic_write(path, write_and_check)
    error, tolerance = max(item[0] for item in measured), max(item[1] for item in measured)
    return ExportParity(format, written, error, tolerance, batches)


def _check_format(format: str, path: pathlib.Path) -> None:
    if format not in FORMATS:
        raise ConfigError("unknown export format", where="format", found=format, expected=" or ".join(FORMATS))
    ending = path.suffix.removeprefix(".")
    if ending in FORMATS and ending != format:
        cure = f"pass --format {ending}, or name the file {path.with_suffix('.' + format).name}"
        raise ConfigError("the ending is of the other format", where=path, found=ending, expected=format, cure=cure)
    if format == "onnx":
        missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
        if missing:
            cure = "pip install 'attention-pipelines[onnx]', or export as pt2"
            raise ConfigError("packages for ONNX are missing", found=f"no {', '.join(missing)}", cure=cure)


def _at_least_two(example: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The example on the CPU with at least two rows: a size of one is traced as a constant that broadcasts."""
    sizes = {name: tensor.shape[0] if tensor.ndim else 0 for name, tensor in example.items()}
    if len(set(sizes.values())) != 1 or min(sizes.values()) < 1:
        raise ConfigError("the example's tensors need one common batch size", where="example", found=sizes)
    plain = {name: tensor.detach().cpu() for name, tensor in example.items()}
    return plain if min(sizes.values()) > 1 else _resized(plain, 2)


def _batches(inputs: Mapping[str, Tensor]) -> tuple[int, ...]:
    size = next(iter(inputs.values())).shape[0]
    return (1, size, size + 3)


def _resized(inputs: Mapping[str, Tensor], size: int) -> dict[str, Tensor]:
    """Rows repeated up to a size, real ones varied by a tenth so that no row equals another."""
    import torch

    generator = torch.Generator().manual_seed(size)
    result = {}
    for name, tensor in inputs.items():
        rows = tensor[torch.arange(size) % tensor.shape[0]]
        if rows.is_floating_point():
            rows = rows * (1 + 0.1 * torch.randn(rows.shape, generator=generator).to(rows.dtype))
        result[name] = rows.contiguous()
    return result


def _leaves(output: Any) -> list[Tensor]:
    import torch

    return [output] if isinstance(output, torch.Tensor) else [leaf for part in output for leaf in _leaves(part)]


def _eager(module: nn.Module, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    import torch

    with torch.no_grad():
        return _leaves(module(*inputs.values()))


def _description(
    module: nn.Module, inputs: Mapping[str, Tensor], names: tuple[str, ...], metadata: Mapping[str, Any]
) -> dict[str, Any]:
    from pipelines import __version__

    outputs = _eager(module, inputs)
    if len(outputs) != len(names):
        found = f"{len(outputs)} outputs"
        raise ConfigError("every output needs a name", where="output_name", found=found, expected=len(names))
    return {
        "library": f"attention-pipelines {__version__}",
        "inputs": [_signature(name, tensor) for name, tensor in inputs.items()],
        "outputs": [_signature(name, tensor) for name, tensor in zip(names, outputs, strict=True)],
        **metadata,
    }


def _signature(name: str, tensor: Tensor) -> dict[str, Any]:
    shape = ["batch", *tensor.shape[1:]]
    return {"name": name, "shape": shape, "dtype": str(tensor.dtype).removeprefix("torch.")}


def _traced(module: nn.Module, inputs: Mapping[str, Tensor]) -> ExportedProgram:
    import torch

    batch = torch.export.Dim("batch")
    free = tuple({0: batch} for _ in inputs)
    with torch.no_grad():
        return torch.export.export(module, tuple(inputs.values()), dynamic_shapes=free)


def _own_operators(program: ExportedProgram) -> list[str]:
    """Operators that plain PyTorch does not have: who opens the file must import the library that registers them."""
    import torch

    graphs = [module for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    targets = {node.target for module in graphs for node in module.graph.nodes}
    return sorted(
        str(target)
        for target in targets
        if isinstance(target, torch._ops.OpOverload) and target.namespace not in ("aten", "prim", "prims")
    )


def _as_pt2(program: ExportedProgram, text: str) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA: text})
    return buffer.getvalue()


def _as_onnx(program: ExportedProgram, inputs: Mapping[str, Tensor], outputs: tuple[str, ...], text: str) -> bytes:
    import torch

    names = {"input_names": list(inputs), "output_names": list(outputs)}
    exported = torch.onnx.export(program, dynamo=True, verbose=False, **names)
    if exported is None:
        raise RuntimeError("the exporter returned nothing")
    proto = exported.model_proto
    entry = proto.metadata_props.add()
    entry.key, entry.value = METADATA, text
    return proto.SerializeToString()


def _pt2_runner(path: pathlib.Path) -> Runner:
    import torch

    with open(path, "rb") as file:
        program = torch.export.load(io.BytesIO(file.read())).module()
    return lambda inputs: _eager(program, inputs)


def _onnx_runner(path: pathlib.Path) -> Runner:
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    used = {item.name for item in session.get_inputs()}

    def run(inputs: dict[str, Tensor]) -> list[Tensor]:
        arrays = {name: tensor.numpy() for name, tensor in inputs.items() if name in used}
        return [torch.from_numpy(array) for array in session.run(None, arrays)]

    return run


def _difference(module: nn.Module, runner: Runner, inputs: dict[str, Tensor]) -> tuple[float, float]:
    """Largest difference and the tolerance for it; NaN on either side, or other shapes, count as infinite."""
    worst, scale = 0.0, 0.0
    for ours, theirs in zip(_eager(module, inputs), runner(inputs), strict=True):
        if ours.shape != theirs.shape:
            return float("inf"), 0.0
        if ours.numel():
            gap = float((ours.double() - theirs.double()).abs().max())
            worst = max(worst, gap if gap == gap else float("inf"))
            scale = max(scale, float(ours.double().abs().max()))
    return worst, _RELATIVE_TOLERANCE * scale


def _refuse_difference(measured: list[tuple[float, float]], batches: tuple[int, ...], path: pathlib.Path) -> None:
    for (error, tolerance), size in zip(measured, batches, strict=True):
        if not error <= tolerance:
            raise RunError(
                f"{path}: the exported model differs from eager by {error:.2e} at batch {size}, "
                f"more than {tolerance:.2e}; "
                "nothing was written. Cure: export in the other format, and report the model."
            )


@contextlib.contextmanager
def _explained(format: str) -> Iterator[None]:
    try:
        yield
    except (UserError, RunError):
        raise
    except Exception as error:  # the exporters raise many kinds
        lines = str(error).strip().splitlines() or ["no reason given"]
        reason = f"{type(error).__name__}: {lines[0][:300]}"
        raise RunError(f"this model cannot be exported as {format} ({reason}). Nothing was written.") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' progress, advice and warnings off the terminal; errors still arrive as exceptions."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
