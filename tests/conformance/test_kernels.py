"""Every operation of the kernels floor through one list of checks; a new operation is tested without a new test."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest
import torch

from core_attention.kernels import delay_aggregate, delay_correlation, ops
from core_attention.kernels._dispatch import Operation
from core_attention.kernels._testing import (
    Case,
    error_ratio,
    nan_poison,
    non_contiguous,
    outputs_and_gradients,
    two_references,
)

HERE = pathlib.Path(__file__).resolve().parent
EAGER_CASES = [
    pytest.param(operation, case, id=f"{operation.name}-{case.name.replace(' ', '_')}")
    for operation in ops().values()
    for case in operation.module("cases").CASES[operation.name]
]
OPERATIONS = [pytest.param(operation, id=operation.name) for operation in ops().values()]


def _first_case(operation: Operation) -> Case:
    return operation.module("cases").CASES[operation.name][0]


def _portable(operation: Operation):
    return getattr(operation.module("eager"), f"portable_{operation.name}")


def _custom_operator(operation: Operation):
    """The registered operator, and what it takes between the tensors and the back end."""
    module = operation.module("operators")
    operators = {"delay_aggregate": (module.aggregate_op, ()), "delay_correlation": (module.correlation_op, (0.25,))}
    return operators[operation.name]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("operation", "case"), EAGER_CASES)
def test_every_back_end_obeys_the_two_reference_rule(operation: Operation, case: Case, dtype: torch.dtype) -> None:
    arguments = case.arguments(dtype)
    for backend in operation.backends:
        if backend == "gpu" or (backend == "cpu" and dtype.itemsize == 2):
            continue  # Triton has its own gates below; compiled loops take full-width numbers only
        with nan_poison():
            compared = two_references(
                operation,
                arguments,
                ours=lambda *tensors, name=backend: operation.public(*tensors, backend=name),
                plain=_portable(operation),
            )
        assert [entry.name for entry in compared] == ["output", *(f"d_{name}" for name in operation.differentiable)]
        assert all(entry.holds for entry in compared), (backend, compared)


@pytest.mark.parametrize(("operation", "case"), EAGER_CASES)
def test_output_is_contiguous_with_the_operands_dtype(operation: Operation, case: Case) -> None:
    arguments = case.arguments(torch.bfloat16)
    output = operation.public(*arguments)
    assert output.is_contiguous()
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, operation.public(*arguments))  # repeats bit for bit


@pytest.mark.parametrize(("operation", "case"), EAGER_CASES[:4] + EAGER_CASES[-2:])
def test_gradients_of_first_and_second_order(operation: Operation, case: Case) -> None:
    arguments = case.arguments(torch.float64)
    if max(tensor.numel() for tensor in arguments) > 2_000:
        arguments = tuple(t[:, :5, :2, :2] if t.dim() == 4 else t for t in arguments)
    leaves = [t.detach().clone().requires_grad_(t.is_floating_point()) for t in arguments]
    assert torch.autograd.gradcheck(operation.public, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(operation.public, leaves, fast_mode=True)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_slow_gradcheck_of_every_entry(operation: Operation) -> None:
    lags = torch.tensor([[1, -2, 7], [0, 3, 3]])
    arguments = operation.module("cases").arguments_of(
        operation.name, (2, 5, 1, 3), lags, torch.float64, torch.Generator().manual_seed(0)
    )
    leaves = [t.requires_grad_(t.is_floating_point()) for t in arguments]
    assert torch.autograd.gradcheck(operation.public, leaves)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck(operation: Operation, dtype: torch.dtype) -> None:
    arguments = [t.requires_grad_(t.is_floating_point()) for t in _first_case(operation).arguments(dtype)]
    operator, between = _custom_operator(operation)
    torch.library.opcheck(operator, (*arguments, *between, "eager"))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_compiles_in_one_graph(operation: Operation) -> None:
    arguments = _first_case(operation).arguments(torch.float32)
    compiled = torch.compile(operation.public, backend="aot_eager", fullgraph=True, dynamic=True)
    cotangent = torch.ones_like(operation.public(*arguments))
    found = outputs_and_gradients(operation, compiled, arguments, cotangent)
    expected = outputs_and_gradients(operation, operation.public, arguments, cotangent)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6)


class _Module(torch.nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return self.function(*tensors)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_exports_plain_operators_with_a_dynamic_batch(operation: Operation) -> None:
    case = _first_case(operation)
    arguments = case.arguments(torch.float32)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(
        _Module(operation.public), arguments, dynamic_shapes={"tensors": tuple({0: batch} for _ in arguments)}
    )
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert targets
    assert not [name for name in targets if "pipelines" in name]
    larger = tuple(torch.cat([tensor, tensor.flip(0), tensor]) for tensor in case.arguments(torch.float32, seed=3))
    torch.testing.assert_close(program.module()(*larger), operation.public(*larger), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_autocast_keeps_the_operands_dtype(operation: Operation) -> None:
    arguments = _first_case(operation).arguments(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert operation.public(*arguments).dtype == torch.float32
        first = arguments[0].bfloat16()
        mixed = operation.public(first, *arguments[1:])  # weights left in float32 by a softmax
    assert mixed.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="dtype of"):
        operation.public(first, *arguments[1:])


def test_correlation_is_the_fourier_transform_s() -> None:
    q, k, _ = _first_case(ops()["delay_correlation"]).arguments(torch.float64)
    T = q.shape[1]
    spectrum = torch.fft.rfft(q, dim=1) * torch.fft.rfft(k, dim=1).conj()
    expected = torch.fft.irfft(spectrum, n=T, dim=1).mean(dim=(2, 3))
    every = torch.arange(T).expand(q.shape[0], T)
    torch.testing.assert_close(delay_correlation(q, k, every), expected)


def test_aggregate_of_one_sure_lag_is_a_roll() -> None:
    values = torch.randn(2, 9, 2, 3)
    lags = torch.tensor([[4], [-13]])
    rolled = torch.stack([torch.roll(values[0], -4, 0), torch.roll(values[1], 13, 0)])
    assert torch.equal(delay_aggregate(values, lags, torch.ones(2, 1)), rolled)


def test_int32_lags_are_taken() -> None:
    values, lags, weights = _first_case(ops()["delay_aggregate"]).arguments(torch.float32)
    assert torch.equal(delay_aggregate(values, lags.int(), weights), delay_aggregate(values, lags, weights))


VALUES, LAGS, WEIGHTS = torch.randn(2, 6, 2, 4), torch.tensor([[0, 1], [2, 3]]), torch.ones(2, 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((VALUES[0], LAGS, WEIGHTS), r"values: found shape \(6, 2, 4\), expected four dimensions"),
        ((VALUES.long(), LAGS, WEIGHTS), "values: found torch.int64, expected a floating-point"),
        ((VALUES[:, :0], LAGS, WEIGHTS), "no empty dimension"),
        ((VALUES[:0], LAGS[:0], WEIGHTS[:0]), "no empty dimension"),
        ((VALUES, LAGS.float(), WEIGHTS), "lags: found torch.float32, expected int64"),
        ((VALUES, LAGS[0], WEIGHTS), r"expected \(B, K\) with B = 2"),
        ((VALUES, LAGS[:1], WEIGHTS), "expand"),
        ((VALUES, LAGS[:, :0], WEIGHTS[:, :0]), "at least one lag"),
        ((VALUES, LAGS, WEIGHTS[:, :1]), "weights: found shape"),
        ((VALUES, LAGS, WEIGHTS.double()), "weights: found torch.float64, expected torch.float32"),
        ((VALUES, LAGS.to("meta"), WEIGHTS), "lags: found on meta, expected on cpu"),
        ((VALUES, LAGS, WEIGHTS.to("meta")), "weights: found on meta, expected on cpu"),
    ],
)
def test_bad_arguments_of_the_aggregate(arguments: tuple[torch.Tensor, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        delay_aggregate(*arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((VALUES, VALUES[:, :5], LAGS), "k: found shape"),
        ((VALUES, VALUES.double(), LAGS), "k: found torch.float64"),
        ((VALUES, VALUES, LAGS.float()), "lags: found"),
        ((VALUES.to("meta"), VALUES, LAGS.to("meta")), "k: found on cpu, expected on meta"),
    ],
)
def test_bad_arguments_of_the_correlation(arguments: tuple[torch.Tensor, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        delay_correlation(*arguments)


def test_the_instruments_can_fail() -> None:
    truth = torch.ones(4, dtype=torch.float64)
    assert error_ratio(truth, truth) == 0
    assert error_ratio(truth * 1.5, truth) == pytest.approx(0.5)
    assert error_ratio(torch.full((4,), float("nan")), truth) == float("inf")
    with nan_poison():
        assert torch.empty(3).isnan().all()
        assert torch.zeros(2).new_empty(3).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()
    assert not non_contiguous(VALUES).is_contiguous()
    operation = ops()["delay_aggregate"]
    wrong = two_references(
        operation,
        _first_case(operation).arguments(torch.float32),
        ours=lambda values, lags, weights: delay_aggregate(values, -lags, weights),
        plain=_portable(operation),
    )
    assert not any(entry.holds for entry in wrong if entry.name != "d_weights")


def test_triton_kernels_in_the_checked_interpreter() -> None:
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, str(HERE / "interpreted_kernels.py")],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    expected = [
        "past_the_end",
        "all_write_one",
        "reads_its_neighbour",
        "one_lane_twice",
        "leaves_a_hole",
        "numbers",
        "order",
    ]
    assert not [words for words in expected if words not in done.stdout]
    assert [f"parity {name}" in done.stdout for name, op in ops().items() if "gpu" in op.backends] == [True, True]
