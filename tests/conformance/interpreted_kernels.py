"""Run by test_triton_interpreter.py in its own process with TRITON_INTERPRET=1: the Triton kernels, checked.

Triton decides when a kernel is defined whether it is interpreted, so this cannot share a process with other tests.
The argument is "faults" or the name of an operation. Prints one line a check; any failure is an exception.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl

from core_attention.kernels import ops
from core_attention.kernels._dispatch import GPU_DTYPES, Operation
from core_attention.kernels._interpreter import KernelFault
from core_attention.kernels._testing import checked_interpreter, nan_poison, pooled_references


@triton.jit
def past_the_end(source, out, N, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + offsets, tl.load(source + offsets), mask=offsets < N)


@triton.jit
def past_the_end_of_output(source, out, N, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + offsets, tl.load(source + offsets, mask=offsets < N))


@triton.jit
def all_write_one(source, out, N, BLOCK: tl.constexpr):
    tl.store(out, tl.load(source + tl.program_id(0)))


@triton.jit
def reads_its_neighbour(source, out, N, BLOCK: tl.constexpr):
    me = tl.program_id(0)
    tl.store(out + me, tl.load(source + me) + tl.load(out + (me + 1) % N))


@triton.jit
def one_lane_twice(source, out, N, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    tl.store(out + offsets // 2, tl.load(source + offsets, mask=offsets < N), mask=offsets < N)


@triton.jit
def leaves_a_hole(source, out, N, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    tl.store(out + offsets, tl.load(source + offsets, mask=offsets < N), mask=offsets < N - 1)


@triton.jit
def arithmetic(x, y, out, N, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    a, b = tl.load(x + at), tl.load(y + at)
    tl.store(out + at, tl.where(a > b, a * b - a, tl.maximum(a, b) + b))


@triton.jit
def product(x, y, out, N: tl.constexpr, PRECISION: tl.constexpr):
    rows, columns = tl.arange(0, N)[:, None] * N, tl.arange(0, N)[None, :]
    a, b = tl.load(x + rows + columns), tl.load(y + rows + columns)
    tl.store(out + rows + columns, tl.dot(a, b, input_precision=PRECISION))


def refused(kernel: Callable, words: str, programs: int, N: int = 6) -> None:
    with checked_interpreter():
        try:
            kernel[(programs,)](torch.arange(float(N)), torch.zeros(N), N, BLOCK=4 if programs > 1 else 8)
        except KernelFault as fault:
            if words not in str(fault) or "interpreted_kernels.py" not in str(fault):
                raise
            print("caught", kernel.__name__, "-", fault)
            return
    raise SystemExit(f"{kernel.__name__} went unnoticed")


def check_faults() -> None:
    refused(past_the_end, "out of bounds: load", 2)
    refused(past_the_end_of_output, "out of bounds: store", 2)
    refused(all_write_one, "race", 2)
    refused(reads_its_neighbour, "race", 6)
    refused(one_lane_twice, "two lanes", 1)
    with nan_poison(), checked_interpreter():
        out = torch.empty(6)
        leaves_a_hole[(1,)](torch.arange(6.0), out, 6, BLOCK=8)
    if not out.isnan().any():
        raise SystemExit("the hole went unnoticed")
    print("caught leaves_a_hole")


def check_numbers() -> None:
    """bfloat16 and TF32 as the chip computes them."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(64, generator=generator).bfloat16() for _ in range(2))
    out = torch.empty_like(x)
    with checked_interpreter():
        arithmetic[(1,)](x, y, out, 64, BLOCK=64)
    torch.testing.assert_close(out, torch.where(x > y, x * y - x, torch.maximum(x, y) + y), rtol=0, atol=0)
    a, b = (torch.randn(16, 16, generator=generator) for _ in range(2))
    results = {}
    with checked_interpreter():
        for precision in ("ieee", "tf32"):
            results[precision] = torch.empty(16, 16)
            product[(1,)](a, b, results[precision], N=16, PRECISION=precision)
        half = torch.empty(16, 16)
        product[(1,)](a.bfloat16(), b.bfloat16(), half, N=16, PRECISION="ieee")
    truth = a.double() @ b.double()
    errors = {precision: (found - truth).abs().max().item() for precision, found in results.items()}
    if not errors["ieee"] < 1e-5 < errors["tf32"] < 2e-2:
        raise SystemExit(f"TF32 is not modelled: {errors}")
    torch.testing.assert_close(half.double(), a.bfloat16().double() @ b.bfloat16().double(), rtol=1e-5, atol=1e-5)
    print("numbers", errors)


def interpreted_cases(operation: Operation) -> tuple[Any, ...]:
    """The cases small enough for the interpreter: those that the operation names, else all."""
    cases = operation.module("cases")
    return getattr(cases, "INTERPRETED", cases.CASES)[operation.name]


def check_parity(operation: Operation) -> None:
    """Output and gradients obey the two-reference rule, with poisoned buffers and shuffled programs."""
    widths = getattr(operation.module("cases"), "GPU_DTYPES", GPU_DTYPES)
    for number, case in enumerate(interpreted_cases(operation)):
        rarer = (torch.float16, torch.float64) if number == 0 else ()
        for dtype in (torch.float32, torch.bfloat16, *rarer):
            if dtype not in widths:
                continue
            with nan_poison(), checked_interpreter(seed=1) as watch:
                compared = pooled_references(
                    operation,
                    case,
                    dtype,
                    ours=lambda **given: operation.public(**given, backend="gpu"),
                    plain=operation.plain,
                    first=8,
                    draws=24,
                )
            bad = [entry for entry in compared if not entry.holds]
            if bad or watch.launches < 1:
                raise SystemExit(f"{operation.name}, {case.name}, {dtype}: {bad}, {watch.launches} launches")
    print("parity", operation.name)


def check_order(operation: Operation) -> None:
    """The order of programs leaves no trace in the bits of the outputs."""
    given, results = interpreted_cases(operation)[0].keywords(operation, torch.float32), []
    for seed in range(3):
        with checked_interpreter(seed=seed):
            returned = operation.public(**given, backend="gpu")
        results.append(returned if isinstance(returned, tuple) else (returned,))
    for other in results[1:]:
        if not all(torch.equal(first, second) for first, second in zip(results[0], other, strict=True)):
            raise SystemExit("the result depends on the order of programs")
    print("order", operation.name)


if __name__ == "__main__":
    if sys.argv[1] == "faults":
        check_faults()
        check_numbers()
    else:
        check_parity(ops()[sys.argv[1]])
        check_order(ops()[sys.argv[1]])
