"""Auto-correlation of Autoformer (arXiv 2106.13008): the released results, the definition, and the lags it finds."""

from __future__ import annotations

import math
import pathlib

import numpy as np
import pytest
import torch
from torch import Tensor

from core_attention import MechanismError, build
from core_attention.mechanisms.auto_correlation import (
    AutoCorrelation,
    auto_correlation,
    correlation_at,
    period_correlation,
    strongest_lags,
)

GOLDEN = pathlib.Path(__file__).parent / "golden" / "auto_correlation.npz"


def definition(q: Tensor, k: Tensor) -> Tensor:
    """R(lag) written out: the mean over heads and channels of sum_t q[t] k[t - lag]."""
    lags = [(q * torch.roll(k, lag, dims=1)).sum(dim=1).mean(dim=(1, 2)) for lag in range(q.shape[1])]
    return torch.stack(lags, dim=1)


def written_out(q: Tensor, k: Tensor, v: Tensor, factor: float, shared: bool) -> Tensor:
    """The mechanism from its equations, differentiable throughout."""
    correlation = definition(q, k)
    count = max(int(factor * math.log(q.shape[1])), 1)
    ranked = correlation.mean(dim=0, keepdim=True).expand_as(correlation) if shared else correlation
    lags = ranked.topk(count, dim=1).indices
    weights = correlation.gather(1, lags).softmax(dim=1)
    rolled = [
        torch.stack([torch.roll(v[b], -int(lag), dims=0) for b, lag in enumerate(lags[:, i])]) for i in range(count)
    ]
    return sum((weights[:, i, None, None, None] * rolled[i] for i in range(count)), torch.zeros_like(v))


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("case", ["self", "odd", "long", "short"])
def test_equals_released_code(case: str, mode: str) -> None:
    with np.load(GOLDEN) as stored:
        golden = {name: torch.from_numpy(stored[name]) for name in stored.files if name.startswith(case + "/")}
    mixer = build("auto_correlation", 16, 4, factor=float(golden[f"{case}/factor"])).train(mode == "train")
    prefix = f"{case}/state/"
    mixer.load_state_dict({name.removeprefix(prefix): t for name, t in golden.items() if name.startswith(prefix)})
    x, context = golden[f"{case}/x"].requires_grad_(), golden[f"{case}/context"]
    y = mixer(x, context=context if case in ("long", "short") else None).y
    torch.testing.assert_close(y, golden[f"{case}/{mode}/y"], atol=1e-5, rtol=0)
    y.square().sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, golden[f"{case}/{mode}/grad_x"], atol=1e-5, rtol=1e-5)
    # The released code's gradient passes through float32 transforms of every channel, hence the wider margin.
    weight = mixer.get_parameter("query_projection.weight")
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, golden[f"{case}/{mode}/grad_query"], atol=5e-5, rtol=1e-3)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 24, 97, 240, 331])
def test_correlation_equals_definition(length: int) -> None:
    torch.manual_seed(length)
    q, k = torch.randn(2, 3, length, 2, 5, dtype=torch.float64)
    torch.testing.assert_close(period_correlation(q, k), definition(q, k), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(period_correlation(q.float(), k.float()).double(), definition(q, k), atol=1e-5, rtol=0)


@pytest.mark.parametrize("period", [6, 8, 12, 24])
@pytest.mark.parametrize("training", [True, False])
def test_sine_gives_multiples_of_its_period(period: int, training: bool) -> None:
    wave = torch.sin(torch.arange(96) * (2 * math.pi / period)).view(1, 96, 1).expand(3, -1, 8)
    mixer = AutoCorrelation(8, 2, factor=math.nextafter(4 / math.log(96), 1)).train(training)
    with torch.no_grad():
        mixer.key_projection.load_state_dict(mixer.query_projection.state_dict())
    lags = mixer(wave, maps=True).aux["lags"]
    assert lags.shape == (3, 4)
    assert not bool((lags % period).any())


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("length", "factor"), [(1, 1.0), (2, 1.0), (13, 1.0), (24, 3.0), (30, 2.0), (130, 3.0)])
def test_equals_equations_with_gradients(length: int, factor: float, shared: bool) -> None:
    torch.manual_seed(length)
    q, k, v = torch.randn(3, 2, length, 2, 4, dtype=torch.float64).requires_grad_().unbind(0)
    ours, theirs = auto_correlation(q, k, v, factor, shared=shared), written_out(q, k, v, factor, shared)
    torch.testing.assert_close(ours, theirs)
    upstream = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, (q, k, v), upstream),
        torch.autograd.grad(theirs, (q, k, v), upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


def test_second_order_gradients() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 2, 6, 1, 2, dtype=torch.float64)
    lags = torch.tensor([[1, 4], [0, 5]])

    def at(q: Tensor, k: Tensor) -> Tensor:
        return correlation_at(q, k, period_correlation(q, k), lags)

    inputs = (q.requires_grad_(), k.requires_grad_())
    assert torch.autograd.gradcheck(at, inputs)
    assert torch.autograd.gradgradcheck(at, inputs)


def test_number_of_lags() -> None:
    correlation = torch.randn(4, 96)
    assert strongest_lags(correlation, 3, shared=False).shape == (4, 13)
    assert strongest_lags(correlation, 0.01, shared=False).shape == (4, 1)
    assert strongest_lags(correlation, 1000, shared=True).shape == (4, 96)
    assert strongest_lags(torch.randn(2, 1), 3, shared=True).tolist() == [[0], [0]]
    shared = strongest_lags(correlation, 3, shared=True)
    assert bool((shared == shared[:1]).all())


def test_modes_differ_as_released_and_lags_option_settles_it() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 48, 16)
    auto = AutoCorrelation(16, 4, factor=1)
    assert not torch.allclose(auto.train()(x).y, auto.eval()(x).y, atol=1e-4)
    torch.testing.assert_close(auto.train()(x[:1]).y, auto.eval()(x[:1]).y)
    for lags in ("batch", "sample"):
        settled = AutoCorrelation(16, 4, factor=1, lags=lags)
        torch.testing.assert_close(settled.train()(x).y, settled.eval()(x).y)


def test_ties_do_not_matter() -> None:
    # A constant series correlates alike at every lag: whichever are chosen, the mean of equal rolls is the series.
    x = torch.ones(2, 24, 8)
    mixer = AutoCorrelation(8, 2, factor=3).eval()
    expected = mixer.out_projection(mixer.value_projection(x))
    torch.testing.assert_close(mixer(x).y, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_width(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    wave = torch.sin(torch.arange(48) * (2 * math.pi / 12)).view(1, 48, 1) + 0.05 * torch.randn(2, 48, 16)
    mixer = AutoCorrelation(16, 4, factor=1).eval()
    exact = mixer(wave).y
    assert mixer.to(dtype)(wave.to(dtype)).y.dtype == dtype
    torch.testing.assert_close(mixer(wave.to(dtype)).y.float(), exact, atol=0.05, rtol=0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        autocast = mixer.float()(wave)
    torch.testing.assert_close(autocast.y.float(), exact, atol=0.05, rtol=0.05)


def test_onnx_with_dynamic_batch(tmp_path: pathlib.Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mixer = AutoCorrelation(16, 4, factor=2).eval()

        def forward(self, x: Tensor, context: Tensor) -> Tensor:
            return self.mixer(x, context=context).y

    model, path = Plain().eval(), tmp_path / "mixer.onnx"
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.onnx.export(
        model,
        (torch.randn(3, 24, 16), torch.randn(3, 30, 16)),
        dynamo=True,
        dynamic_shapes=({0: batch}, {0: batch}),
        verbose=False,
    )
    assert program is not None
    program.save(str(path))
    x, context = torch.randn(5, 24, 16), torch.randn(5, 30, 16)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    (found,) = session.run(None, dict(zip(names, (x.numpy(), context.numpy()), strict=True)))
    with torch.no_grad():
        expected = model(x, context)
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=1e-5)


def test_refusals() -> None:
    with pytest.raises(MechanismError, match="factor is 0"):
        build("auto_correlation", 16, 4, factor=0.0)
    with pytest.raises(MechanismError, match="lags is 'all'"):
        build("auto_correlation", 16, 4, lags="all")
    with pytest.raises(MechanismError, match="no multiple"):
        build("auto_correlation", 16, 5)
