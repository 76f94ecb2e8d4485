"""The choice of a back end: environment, argument, log, and refusals that say why."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
import torch

from core_attention.kernels import BACKENDS, _dispatch, delay_aggregate, delay_correlation, ops

VALUES, LAGS, WEIGHTS = torch.randn(1, 4, 1, 2), torch.tensor([[1]]), torch.ones(1, 1)


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIPELINES_BACKEND", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    _dispatch._said.clear()


def _chosen(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "pipelines.kernels"]


def test_a_free_choice_is_explained_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="pipelines.kernels")
    for _ in range(3):
        delay_aggregate(VALUES, LAGS, WEIGHTS)
    said = _chosen(caplog)
    assert len(said) == len(set(said)) == 3
    assert "not gpu: the tensors are not on a CUDA or ROCm device" in said[0]
    assert "not cpu: compiled loops take" in said[1]
    assert "eager, the best that serves float32 on cpu" in said[2]


def test_the_environment_overrides(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.DEBUG, logger="pipelines.kernels")
    monkeypatch.setenv("PIPELINES_BACKEND", "reference")
    delay_aggregate(VALUES, LAGS, WEIGHTS)
    assert _chosen(caplog) == ["delay_aggregate: reference, demanded by PIPELINES_BACKEND=reference"]


def test_the_argument_overrides_the_environment(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG, logger="pipelines.kernels")
    monkeypatch.setenv("PIPELINES_BACKEND", "reference")
    delay_correlation(VALUES, VALUES, LAGS, backend="eager")
    assert _chosen(caplog) == ["delay_correlation: eager, demanded by backend='eager'"]


@pytest.mark.parametrize("value", ["", "auto", " AUTO "])
def test_auto_leaves_the_choice_free(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("PIPELINES_BACKEND", value)
    assert torch.equal(delay_aggregate(VALUES, LAGS, WEIGHTS), torch.roll(VALUES, -1, 1))


def test_unknown_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ValueError, match=r"backend='cuda' is not a back end; expected one of reference, eager, cpu, gpu"
    ):
        delay_aggregate(VALUES, LAGS, WEIGHTS, backend="cuda")
    monkeypatch.setenv("PIPELINES_BACKEND", "fast")
    with pytest.raises(ValueError, match=r"PIPELINES_BACKEND='fast' is not a back end"):
        delay_aggregate(VALUES, LAGS, WEIGHTS)


def test_a_back_end_that_cannot_serve_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"backend='gpu' cannot serve float32 on cpu: the tensors are not on a CUDA"):
        delay_aggregate(VALUES, LAGS, WEIGHTS, backend="gpu")
    with pytest.raises(ValueError, match="do not beat it twofold"):
        delay_aggregate(VALUES, LAGS, WEIGHTS, backend="cpu")
    monkeypatch.setenv("PIPELINES_BACKEND", "gpu")
    with pytest.raises(ValueError, match="PIPELINES_BACKEND=gpu cannot serve"):
        delay_correlation(VALUES, VALUES, LAGS)


def test_the_demand_holds_for_the_gradient(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="pipelines.kernels")
    values = VALUES.clone().requires_grad_()
    weights = WEIGHTS.clone().requires_grad_()
    delay_aggregate(values, LAGS, weights, backend="reference").sum().backward()
    assert all("reference, demanded" in line for line in _chosen(caplog))
    assert {line.split(":")[0] for line in _chosen(caplog)} == {"delay_aggregate", "delay_correlation"}


def test_operations_name_only_back_ends_that_exist() -> None:
    for operation in ops().values():
        assert set(operation.backends) <= set(BACKENDS)
        assert {"reference", "eager"} <= set(operation.backends)
        assert set(operation.differentiable) <= set(operation.arguments)
        assert callable(operation.public)
        for backend in operation.backends:
            if backend != "gpu":
                assert callable(operation.implementation(backend))
        for backend in set(BACKENDS) - set(operation.backends):
            assert operation.absent[backend]


def test_a_back_end_module_is_loaded_only_when_used() -> None:
    code = (  # torch itself may load triton; our kernels must not be defined before a device asks for them
        "import sys, torch; import core_attention.kernels as kernels;"
        "kernels.delay_aggregate(torch.randn(1, 4, 1, 2), torch.tensor([[1]]), torch.ones(1, 1));"
        "unwanted = {'core_attention.kernels.delay_aggregate.gpu', 'numba', 'pandas', 'lightning', 'matplotlib'};"
        "sys.exit(str(unwanted & set(sys.modules)) if unwanted & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
