"""Triton's interpreter made trustworthy: arithmetic that matches the chip's number formats, and memory that is watched.

The stock interpreter stores bfloat16 as 16-bit integers and computes on those integers; it follows any address; and it
runs programs one after another, so a race never shows. Inside ``checked_interpreter()``

* bfloat16 operands are widened to float32 before every operation and rounded to nearest even after it,
* float32 operands of ``tl.dot`` are rounded to TF32 where the kernel's precision allows the chip to do so,
* every load, store and atomic must lie inside a tensor that was handed to the launch,
* two programs may not touch one element if one of them writes it (atomics among themselves excepted), nor may two lanes
  of one program store to one element,
* programs run in a random order.

What it cannot show: time, the tensor cores' own summation order, races within a program.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from core_attention.kernels._dispatch import interpreting

__all__ = ["KernelFault", "MemoryWatch", "Traffic", "checked_interpreter"]

_WIDENED = ("unary_op", "binary_op", "ternary_op", "create_fma", "create_rsqrt", "create_erf", "create_fabs")
_BITWISE = (np.bitwise_and, np.bitwise_or, np.bitwise_xor)
_NOBODY, _SEVERAL = -1, -2


class KernelFault(RuntimeError):
    """A kernel touched memory that is not its own, or raced with itself."""


@dataclass
class Traffic:
    """Bytes that the programs of one launch read and wrote; lanes of one access that share an element count once."""

    loaded: int = 0
    stored: int = 0


class MemoryWatch:
    """Where a launch may read and write, which program touched what, and how much was moved (``traffic`` a launch)."""

    def __init__(self) -> None:
        self.program = 0
        self.loads = self.stores = self.launches = 0
        self.traffic: list[Traffic] = []
        self._extents: list[tuple[int, int]] = []
        self._owners: dict[int, tuple[int, np.ndarray, np.ndarray, np.ndarray]] = {}

    def begin(self, tensors: list[Any]) -> None:
        """Forget the previous launch and admit the tensors of this one."""
        self.launches += 1
        self.traffic.append(Traffic())
        self._extents.clear()
        self._owners.clear()
        for tensor in tensors:
            if tensor.numel() == 0:
                continue
            last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
            start, item = tensor.data_ptr(), tensor.element_size()
            self._extents.append((start, start + (last + 1) * item))
            storage = tensor.untyped_storage()
            size = storage.nbytes()
            # Per byte of the storage: who stored, who loaded, who used an atomic. Shared by all views of one storage.
            self._owners.setdefault(
                storage.data_ptr(),
                (size, *(np.full(size, _NOBODY, dtype=np.int64) for _ in range(3))),
            )

    def touch(self, pointers: Any, mask: np.ndarray, item: int, kind: str) -> None:
        """Check one access ("load", "store" or "atomic") of the running program and remember it."""
        lanes = np.broadcast_to(mask, pointers.data.shape).reshape(-1).astype(bool)  # some masks are numbers
        addresses = pointers.data.reshape(-1)[lanes].astype(np.int64)
        if addresses.size == 0:
            return
        self.loads += kind == "load"
        self.stores += kind != "load"
        self._check_bounds(addresses, item, kind)
        distinct = np.unique(addresses).size
        moved = self.traffic[-1]
        moved.loaded += distinct * item * (kind != "store")
        moved.stored += distinct * item * (kind != "load")
        if kind == "store" and distinct != addresses.size:
            raise KernelFault(f"two lanes of program {self.program} store to one element, at {_kernel_line()}")
        for base, (size, *owners) in self._owners.items():
            inside = (addresses >= base) & (addresses < base + size)
            if inside.any():
                self._claim(addresses[inside] - base, owners, kind)

    def _check_bounds(self, addresses: np.ndarray, item: int, kind: str) -> None:
        valid = np.zeros(addresses.shape, dtype=bool)
        for start, stop in self._extents:
            valid |= (addresses >= start) & (addresses + item <= stop)
        if not valid.all():
            count = int((~valid).sum())
            raise KernelFault(f"out of bounds: {kind} of {count} elements by program {self.program}, {_kernel_line()}")

    def _claim(self, where: np.ndarray, owners: list[np.ndarray], kind: str) -> None:
        stored, loaded, atomic = owners
        rivals = {"load": (stored, atomic), "store": (stored, loaded, atomic), "atomic": (stored, loaded)}[kind]
        for rival in rivals:
            other = rival[where]
            clash = (other != _NOBODY) & (other != self.program)
            if clash.any():
                raise KernelFault(
                    f"race: {kind} by program {self.program} of an element that another program touched, "
                    f"one of them writing, at {_kernel_line()}"
                )
        mine = {"load": loaded, "store": stored, "atomic": atomic}[kind]
        before = mine[where]
        mine[where] = np.where((before == _NOBODY) | (before == self.program), self.program, _SEVERAL)


@contextlib.contextmanager
def checked_interpreter(*, seed: int = 0, tf32: bool = True) -> Iterator[MemoryWatch]:
    """Run the Triton kernels launched within the context under all checks.

    Args:
        seed: of the order in which programs run.
        tf32: round float32 operands of ``tl.dot`` to TF32 where its ``input_precision`` says "tf32".

    Yields:
        the watch, with counts of launches, loads and stores, and the bytes moved by each launch.

    Raises:
        RuntimeError: ``TRITON_INTERPRET=1`` was not set before the kernels were defined.
        KernelFault: from the launch, naming the kernel's line.
    """
    if not interpreting():
        raise RuntimeError("set TRITON_INTERPRET=1 before kernels are imported: Triton decides at definition")
    from triton.runtime import interpreter

    watch, order = MemoryWatch(), random.Random(seed)
    with contextlib.ExitStack() as patches:
        replace = functools.partial(_replace, patches)
        builder = interpreter.InterpreterBuilder
        for name in _WIDENED:
            replace(builder, name, _widened(interpreter, getattr(builder, name)))
        replace(builder, "create_dot", _checked_dot(interpreter, builder.create_dot, tf32))
        replace(builder, "cast_impl", _checked_cast(interpreter, builder.cast_impl))
        replace(builder, "create_fp_to_fp", _checked_cast(interpreter, builder.create_fp_to_fp))
        replace(interpreter.ReduceOps, "apply_impl", _refuse_narrow(interpreter.ReduceOps.apply_impl))
        _watch_memory(replace, builder, watch)
        _watch_launches(replace, interpreter, watch, order)
        yield watch


def _replace(patches: contextlib.ExitStack, owner: Any, name: str, value: Any) -> None:
    original = owner.__dict__[name]
    setattr(owner, name, value)
    patches.callback(setattr, owner, name, original)


# Arithmetic -----------------------------------------------------------------------------------------------------------


def _widen(bits: np.ndarray) -> np.ndarray:
    """bfloat16 bits to float32: they are the upper half of one."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _narrow(data: np.ndarray, kept: int = 16) -> np.ndarray:
    """float32 to its upper ``kept`` bits, rounded to nearest even, as uint32 (NaN stays NaN)."""
    single = np.ascontiguousarray(data, dtype=np.float32)
    bits, dropped = single.view(np.uint32), np.uint32(32 - kept)
    rounded = bits + np.uint32((1 << (int(dropped) - 1)) - 1) + ((bits >> dropped) & np.uint32(1))
    rounded = np.where(np.isnan(single), np.uint32(0x7FC00000), rounded)
    return ((rounded >> dropped) << dropped).reshape(np.shape(data))


def _to_bfloat16(data: np.ndarray) -> np.ndarray:
    return (_narrow(data) >> np.uint32(16)).astype(np.uint16)


def _is_bfloat16(handle: Any) -> bool:
    return str(getattr(getattr(handle, "dtype", None), "scalar", "")) == "bf16"


def _widened(interpreter: Any, method: Callable[..., Any]) -> Callable[..., Any]:
    """An operation of the builder that computes bfloat16 operands in float32."""
    import triton.language as tl

    def run(self: Any, *args: Any) -> Any:
        if not any(_is_bfloat16(arg) for arg in args) or any(arg in _BITWISE for arg in args if callable(arg)):
            return method(self, *args)
        wide = [interpreter.TensorHandle(_widen(a.data), tl.float32) if _is_bfloat16(a) else a for a in args]
        result = method(self, *wide)
        if result.data.dtype == np.bool_:
            return interpreter.TensorHandle(result.data, tl.int1)
        return interpreter.TensorHandle(_to_bfloat16(result.data), tl.bfloat16)

    return run


def _checked_dot(interpreter: Any, method: Callable[..., Any], tf32: bool) -> Callable[..., Any]:
    import triton.language as tl

    def operand(handle: Any, precision: Any) -> Any:
        if _is_bfloat16(handle):
            return interpreter.TensorHandle(_widen(handle.data), tl.float32)
        if tf32 and handle.data.dtype == np.float32 and str(precision).upper().endswith("TF32"):
            return interpreter.TensorHandle(_narrow(handle.data, kept=19).view(np.float32), tl.float32)
        return handle

    def run(self: Any, a: Any, b: Any, d: Any, precision: Any, imprecise: Any) -> Any:
        return method(self, operand(a, precision), operand(b, precision), d, precision, imprecise)

    return run


def _checked_cast(interpreter: Any, method: Callable[..., Any]) -> Callable[..., Any]:
    """Casts from and to bfloat16 by value; others as they were."""
    import triton.language as tl

    def run(self: Any, source: Any, target: Any, *rest: Any) -> Any:
        narrow = str(target.scalar) == "bf16"
        if not narrow and not _is_bfloat16(source):
            return method(self, source, target, *rest)
        data = _widen(source.data) if _is_bfloat16(source) else source.data
        if narrow:
            return interpreter.TensorHandle(_to_bfloat16(data.astype(np.float32)), tl.bfloat16)
        return interpreter.TensorHandle(data.astype(interpreter._get_np_dtype(target)), target.scalar)

    return run


def _refuse_narrow(method: Callable[..., Any]) -> Callable[..., Any]:
    def run(self: Any, inputs: Any) -> Any:
        if any(str(item.dtype.scalar) == "bf16" for item in inputs):
            raise KernelFault(f"a reduction in bfloat16, at {_kernel_line()}; reduce in float32")
        return method(self, inputs)

    return run


# Memory ---------------------------------------------------------------------------------------------------------------


def _watch_memory(replace: Callable[..., None], builder: Any, watch: MemoryWatch) -> None:
    def item(pointers: Any) -> int:
        return max(1, pointers.get_element_ty().primitive_bitwidth // 8)

    def load(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        watch.touch(pointers, mask.data, item(pointers), "load")
        return loaded(self, pointers, mask, *rest)

    def store(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        watch.touch(pointers, mask.data, item(pointers), "store")
        return stored(self, pointers, value, mask, *rest)

    def modify(self: Any, operation: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        if _is_bfloat16(value):
            raise KernelFault(f"an atomic on bfloat16, at {_kernel_line()}; accumulate in float32")
        watch.touch(pointers, mask.data, item(pointers), "atomic")
        return modified(self, operation, pointers, value, mask, *rest)

    def exchange(self: Any, pointers: Any, *rest: Any) -> Any:
        watch.touch(pointers, np.ones(pointers.data.shape, dtype=bool), item(pointers), "atomic")
        return exchanged(self, pointers, *rest)

    loaded, stored = builder.create_masked_load, builder.create_masked_store
    modified, exchanged = builder.create_atomic_rmw, builder.create_atomic_cas
    replace(builder, "create_masked_load", load)
    replace(builder, "create_masked_store", store)
    replace(builder, "create_atomic_rmw", modify)
    replace(builder, "create_atomic_cas", exchange)


def _watch_launches(replace: Callable[..., None], interpreter: Any, watch: MemoryWatch, order: random.Random) -> None:
    """Admit each launch's tensors, shuffle its programs, and let our faults through the interpreter's own error."""
    grid: dict[str, Any] = {}

    def arguments(self: Any, args: Any, kwargs: Any) -> Any:
        on_host, named = prepared(self, args, kwargs)
        watch.begin([t for t in (*on_host, *named.values()) if hasattr(t, "untyped_storage")])
        return on_host, named

    def dimensions(self: Any, x: int, y: int, z: int) -> None:
        programs = [(a, b, c) for a in range(x) for b in range(y) for c in range(z)]
        grid.update(programs=order.sample(programs, len(programs)), started=0)
        set_dimensions(self, x, y, z)

    def next_program(self: Any, x: int, y: int, z: int) -> None:
        watch.program = grid["started"]
        set_program(self, *grid["programs"][grid["started"]])
        grid["started"] += 1

    def launch(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return launched(self, *args, **kwargs)
        except interpreter.InterpreterError as error:
            raise _fault_behind(error) from error

    prepared, launched = interpreter.GridExecutor._init_args_hst, interpreter.GridExecutor.__call__
    set_dimensions, set_program = (
        interpreter.InterpreterBuilder.set_grid_dim,
        interpreter.InterpreterBuilder.set_grid_idx,
    )
    replace(interpreter.GridExecutor, "_init_args_hst", arguments)
    replace(interpreter.GridExecutor, "__call__", launch)
    replace(interpreter.InterpreterBuilder, "set_grid_dim", dimensions)
    replace(interpreter.InterpreterBuilder, "set_grid_idx", next_program)


def _fault_behind(error: BaseException) -> BaseException:
    """The KernelFault at the bottom of a chain of interpreter errors, or the error itself."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KernelFault):
        cause = cause.__cause__
    return cause or error


def _kernel_line() -> str:
    """File and line of the kernel statement being interpreted: the innermost frame of neither Triton nor this file."""
    own = (os.sep + "triton" + os.sep, os.path.basename(__file__))
    for frame in reversed(traceback.extract_stack()):
        if not any(part in frame.filename for part in own):
            return f"{os.path.basename(frame.filename)}:{frame.lineno}"
    return "an unknown line"
