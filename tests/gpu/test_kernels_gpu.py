"""The Triton kernels on a real device: parity with float64 and repeatable bits; skipped where there is none."""

from __future__ import annotations

import pytest
import torch

from core_attention.kernels import ops
from core_attention.kernels._testing import nan_poison, two_references

pytestmark = pytest.mark.gpu
if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

CASES = [
    pytest.param(operation, case, id=f"{operation.name}-{case.name.replace(' ', '_')}")
    for operation in ops().values()
    for kind in ("CASES", "INSPECTED")
    for case in getattr(operation.module("cases"), kind)[operation.name]
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("backend", ["gpu", "eager"])
@pytest.mark.parametrize(("operation", "case"), CASES)
def test_two_reference_rule_on_the_device(operation, case, backend: str, dtype: torch.dtype) -> None:
    arguments = [None if tensor is None else tensor.cuda() for tensor in case.arguments(dtype)]
    with nan_poison():
        compared = two_references(
            operation,
            arguments,
            ours=lambda **given: operation.public(**given, backend=backend),
            plain=operation.plain,
            options=case.options,
        )
    assert all(entry.holds for entry in compared), compared


@pytest.mark.parametrize(("operation", "case"), CASES)
def test_the_device_is_chosen_and_repeats_bit_for_bit(operation, case) -> None:
    keywords = case.keywords(operation, torch.float32)
    given = {name: value.cuda() if isinstance(value, torch.Tensor) else value for name, value in keywords.items()}
    free, demanded = operation.public(**given), operation.public(**given, backend="gpu")
    tuples = (returned if isinstance(returned, tuple) else (returned,) for returned in (free, demanded))
    assert all(torch.equal(one, other) for one, other in zip(*tuples, strict=True))
