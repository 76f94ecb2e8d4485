"""Every operation of the kernels floor through one list of checks; a new operation is tested without a new test."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from core_attention.kernels import ops
from core_attention.kernels._dispatch import Operation
from core_attention.kernels._testing import Case, nan_poison, outputs_and_gradients, pooled_references

CASES = [
    pytest.param(operation, case, id=f"{operation.name}-{case.name.replace(' ', '_')}")
    for operation in ops().values()
    for case in operation.module("cases").CASES[operation.name]
]
BAD = [
    pytest.param(operation, bad, id=f"{operation.name}-{bad.name.replace(' ', '_')}")
    for operation in ops().values()
    for bad in operation.module("cases").BAD[operation.name]
]
OPERATIONS = [pytest.param(operation, id=operation.name) for operation in ops().values()]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def _first(operation: Operation) -> Case:
    return operation.module("cases").CASES[operation.name][0]


def _tuple(returned: Any) -> tuple[torch.Tensor, ...]:
    return returned if isinstance(returned, tuple) else (returned,)


def _cotangents(returned: Any) -> list[torch.Tensor | None]:
    return [torch.ones_like(t) if t.is_floating_point() else None for t in _tuple(returned)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("operation", "case"), CASES)
def test_every_back_end_obeys_the_two_reference_rule(operation: Operation, case: Case, dtype: torch.dtype) -> None:
    given = case.keywords(operation, dtype)
    for backend in operation.backends:
        if backend == "gpu" or (backend == "cpu" and dtype == torch.float64):
            continue  # Triton has its own gates; compiled loops compute in float32
        with nan_poison():
            compared = pooled_references(
                operation,
                case,
                dtype,
                ours=lambda name=backend, **tensors: operation.public(**tensors, backend=name),
                plain=operation.plain,
                first=4 if backend == "reference" or dtype == torch.float64 else 12,
            )
        gradients = [f"d_{name}" for name in operation.differentiable if given[name] is not None]
        assert [entry.name for entry in compared if entry.name.startswith("d_")] == gradients
        assert compared[0].name == operation.outputs[0]
        assert all(entry.holds for entry in compared), (backend, [entry for entry in compared if not entry.holds])


@pytest.mark.parametrize(("operation", "case"), CASES)
def test_outputs_are_contiguous_with_the_operands_dtype_and_repeat(operation: Operation, case: Case) -> None:
    given = case.keywords(operation, torch.bfloat16)
    outputs, again = _tuple(operation.public(**given)), _tuple(operation.public(**given))
    assert all(output.is_contiguous() for output in outputs)
    assert outputs[0].dtype == torch.bfloat16
    assert all(torch.equal(first, second) for first, second in zip(outputs, again, strict=True))


@pytest.mark.parametrize(("operation", "case"), CASES)
def test_gradcheck(operation: Operation, case: Case) -> None:
    given = case.keywords(operation, torch.float64)
    if sum(t.numel() for t in given.values() if isinstance(t, torch.Tensor)) > 20_000:
        pytest.skip("the two-reference rule covers large cases")
    stand_ins = getattr(operation.module("cases"), "SURROGATE", {}).get(operation.name, ())
    names = [name for name in operation.differentiable if given[name] is not None and name not in stand_ins]
    if not names:
        pytest.skip("only straight-through gradients, which are no derivatives")
    leaves = [given[name].detach().requires_grad_() for name in names]

    def function(*tensors: torch.Tensor) -> Any:
        returned = operation.public(**given | dict(zip(names, tensors, strict=True)))
        return tuple(t for t in _tuple(returned) if t.is_floating_point())

    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)
    if operation.second_order:
        assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


class _Operators(TorchDispatchMode):
    """Note the calls of our operators."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "pipelines":
            self.calls.setdefault(func.name(), (func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_opcheck(operation: Operation, dtype: torch.dtype) -> None:
    """Every operator that a call and its gradient reach, on every back end that runs here."""
    case = _first(operation)
    for backend in set(operation.backends) & {"eager", "cpu"}:
        with _Operators() as seen:
            given = {**case.options, "backend": backend}
            returned = operation.public(**case.keywords(operation, dtype), backend=backend)
            outputs_and_gradients(operation, operation.public, case.arguments(dtype), _cotangents(returned), given)
        assert seen.calls
        for operator, args, kwargs in seen.calls.values():
            first_order_only = "backward" in operator.name() and not operation.second_order
            leaves = [
                argument.detach().requires_grad_(argument.is_floating_point() and not first_order_only)
                if isinstance(argument, torch.Tensor)
                else argument
                for argument in args
            ]
            checks = ("test_schema", "test_faketensor") if first_order_only else None
            more = {"test_utils": checks} if checks else {}
            torch.library.opcheck(operator, tuple(leaves), kwargs, **more)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_compiles_in_one_graph(operation: Operation) -> None:
    case = _first(operation)
    arguments = case.arguments(torch.float32)
    compiled = torch.compile(operation.public, backend="aot_eager", fullgraph=True, dynamic=True)
    cotangents = _cotangents(operation.public(**case.keywords(operation, torch.float32)))
    found = outputs_and_gradients(operation, compiled, arguments, cotangents, case.options)
    expected = outputs_and_gradients(operation, operation.public, arguments, cotangents, case.options)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5)


class _Module(torch.nn.Module):
    def __init__(self, function: Any, options: dict[str, Any]) -> None:
        super().__init__()
        self.function, self.options = function, options

    def forward(self, tensors: dict[str, torch.Tensor]) -> Any:
        return self.function(**tensors, **self.options)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_exports_plain_operators_with_a_dynamic_batch(operation: Operation) -> None:
    case = _first(operation)
    pairs = zip(operation.arguments, case.arguments(torch.float32), strict=True)
    given = {name: tensor for name, tensor in pairs if tensor is not None}
    batch = torch.export.Dim("batch", min=2, max=64)
    shapes = {name: None if name in operation.shared else {0: batch} for name in given}
    module = _Module(operation.public, dict(case.options))
    program = torch.export.export(module, (given,), dynamic_shapes={"tensors": shapes})
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert targets
    assert not [name for name in targets if "pipelines" in name]
    larger = {
        name: tensor if name in operation.shared else torch.cat([tensor, tensor.flip(0), tensor])
        for name, tensor in given.items()
    }
    found, expected = _tuple(program.module()(larger)), _tuple(module(larger))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_only_autocast_mixes_dtypes(operation: Operation) -> None:
    given = _first(operation).keywords(operation, torch.float32)
    first = operation.arguments[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert _tuple(operation.public(**given))[0].dtype == torch.float32
        mixed = _tuple(operation.public(**given | {first: given[first].bfloat16()}))[0]
    assert mixed.dtype == torch.bfloat16
    for name in operation.companions:
        with pytest.raises(ValueError, match=rf"{name}: .*dtype of"):
            operation.public(**given | {name: given[name].double()})


@pytest.mark.parametrize(("operation", "bad"), BAD)
def test_bad_arguments_are_refused_alike_by_every_back_end(operation: Operation, bad: Any) -> None:
    messages = set()
    for backend in (None, *operation.backends):
        with pytest.raises(ValueError, match=bad.words) as caught:
            operation.public(**bad.keywords(operation, _first(operation)), backend=backend)
        messages.add(str(caught.value))
    assert len(messages) == 1


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_back_end_that_cannot_run_says_why(operation: Operation, monkeypatch: pytest.MonkeyPatch) -> None:
    given = _first(operation).keywords(operation, torch.float32)
    monkeypatch.setenv("PIPELINES_BACKEND", "gpu")
    with pytest.raises(ValueError, match=rf"{operation.name}: PIPELINES_BACKEND=gpu cannot serve .*: .+; leave"):
        operation.public(**given)
    monkeypatch.setenv("PIPELINES_BACKEND", "abacus")
    with pytest.raises(ValueError, match="PIPELINES_BACKEND='abacus' is not a back end"):
        operation.public(**given)
    if "cpu" not in operation.backends:
        with pytest.raises(ValueError, match=re.escape(operation.absent["cpu"])):
            operation.public(**given, backend="cpu")
