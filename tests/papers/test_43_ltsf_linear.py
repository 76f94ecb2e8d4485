"""Linear, NLinear, DLinear (arXiv 2205.13504): names, sizes and forward of the released code, and what they promise."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import torch

from pipelines.errors import WeightsError
from pipelines.forecast.models.linear import DLinear, Linear, NLinear, from_official, window_counts

GOLDEN = pathlib.Path(__file__).parent / "golden" / "ltsf_linear.npz"
CLASSES = {"linear": Linear, "nlinear": NLinear, "dlinear": DLinear}


def _golden(tag: str) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    with np.load(GOLDEN) as file:
        prefix = f"{tag}.state."
        state = {key.removeprefix(prefix): torch.from_numpy(file[key]) for key in file if key.startswith(prefix)}
        return state, torch.from_numpy(file["x"]), torch.from_numpy(file[f"{tag}.y"])


@pytest.mark.parametrize("individual", [False, True])
@pytest.mark.parametrize("name", CLASSES)
def test_forward_and_names_equal_released_code(name: str, individual: bool) -> None:
    state, x, expected = _golden(f"{name}_individual" if individual else name)
    model = from_official(state, name=name, seq_len=40, pred_len=9, enc_in=3, individual=individual)
    for training in (False, True):
        torch.testing.assert_close(model.train(training)(x), expected, rtol=1e-5, atol=1e-5)
    again = model.state_dict()
    assert list(again) == list(state)
    assert all(torch.equal(again[key], state[key]) for key in state)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (Linear(336, 96), 32_352),
        (NLinear(96, 720), 69_840),
        (DLinear(336, 96), 64_704),
        (DLinear(96, 720), 139_680),
        (Linear(336, 96, enc_in=7, individual=True), 226_464),
        (DLinear(336, 96, enc_in=7, individual=True), 452_928),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else type(value).__name__,
)
def test_parameter_counts(model: torch.nn.Module, parameters: int) -> None:
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_state_dict_names() -> None:
    assert list(Linear(8, 2).state_dict()) == ["Linear.weight", "Linear.bias"]
    assert list(NLinear(8, 2, enc_in=2, individual=True).state_dict()) == [
        "Linear.0.weight", "Linear.0.bias", "Linear.1.weight", "Linear.1.bias",
    ]  # fmt: skip
    assert list(DLinear(8, 2).state_dict()) == [
        "Linear_Seasonal.weight", "Linear_Seasonal.bias", "Linear_Trend.weight", "Linear_Trend.bias",
    ]  # fmt: skip


def test_nlinear_is_shift_equivariant() -> None:
    model, x = NLinear(48, 12).double(), torch.randn(4, 48, 3, dtype=torch.float64)
    shift = torch.tensor([3.0, -100.0, 0.5], dtype=torch.float64)
    torch.testing.assert_close(model(x + shift), model(x) + shift, rtol=0, atol=1e-10)


@pytest.mark.parametrize("individual", [False, True])
def test_dlinear_equals_linear_when_its_maps_are_equal(individual: bool) -> None:
    plain = Linear(48, 12, 3, individual).double()
    split = DLinear(48, 12, 3, individual).double()
    split.Linear_Seasonal.load_state_dict(plain.Linear.state_dict())
    split.Linear_Trend.load_state_dict(plain.Linear.state_dict())
    with torch.no_grad():
        split.Linear_Trend.bias.zero_()
    x = torch.randn(4, 48, 3, dtype=torch.float64)
    torch.testing.assert_close(split(x), plain(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", CLASSES)
def test_individual_equals_shared_when_all_maps_are_equal(name: str) -> None:
    shared, single = CLASSES[name](48, 12).double(), CLASSES[name](48, 12, 3, True).double()
    for part, module in shared.named_children():
        if isinstance(module, torch.nn.Linear):
            copies = {f"{i}.{key}": value for i in range(3) for key, value in module.state_dict().items()}
            single.get_submodule(part).load_state_dict(copies)
    x = torch.randn(4, 48, 3, dtype=torch.float64)
    torch.testing.assert_close(single(x), shared(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("window", [1, 3, 25, 61])
def test_window_counts_are_a_pool_over_repeated_ends(window: int) -> None:
    x, half = torch.randn(2, 1, 40), window // 2
    padded = torch.nn.functional.pad(x, (half, half), mode="replicate")
    expected = torch.nn.functional.avg_pool1d(padded, window, stride=1)
    torch.testing.assert_close(x @ window_counts(40, window).T / window, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CLASSES)
def test_least_squares_weights_forecast_a_noiseless_trend_and_sine(name: str) -> None:
    """Closed form: with weights by least squares on past windows the MSE ahead is below 1e-6."""
    L, H = 48, 24
    t = torch.arange(600, dtype=torch.float64)
    series = 0.01 * t + torch.sin(2 * torch.pi * t / 24)
    windows = series.unfold(0, L + H, 1)
    x, y = windows[:, :L], windows[:, L:]
    level = x[:, -1:] if name == "nlinear" else torch.zeros_like(x[:, :1])
    inputs, fitted = x[:300] - level[:300], y[:300] - level[:300]
    design = torch.cat([inputs, torch.ones(300, 1, dtype=torch.float64)], dim=1)
    solution = torch.linalg.lstsq(design, fitted, driver="gelsd").solution
    model = CLASSES[name](L, H).double()
    with torch.no_grad():
        for module in (m for m in model.modules() if isinstance(m, torch.nn.Linear)):
            module.weight.copy_(solution[:L].T)
            module.bias.zero_()
        first = next(m for m in model.modules() if isinstance(m, torch.nn.Linear))
        first.bias.copy_(solution[L])
        forecast = model(x[400:, :, None])[..., 0]
    assert torch.nn.functional.mse_loss(forecast, y[400:]) < 1e-6


@pytest.mark.parametrize(
    ("given", "where"),
    [({"seq_len": 9}, "seq_len"), ({"pred_len": 3}, "pred_len"), ({"individual": True}, "individual")],
)
def test_an_argument_that_the_shapes_contradict_is_refused(given: dict, where: str) -> None:
    with pytest.raises(WeightsError, match=f"^{where}:"):
        from_official(Linear(8, 2).state_dict(), name="linear", **given)


def test_the_number_of_individual_series_is_held_against_the_tensors() -> None:
    with pytest.raises(WeightsError, match=r"^enc_in:"):
        from_official(Linear(8, 2, 3, True).state_dict(), name="linear", enc_in=4)


def test_tensors_of_another_model_are_refused() -> None:
    with pytest.raises(WeightsError, match="not a state dict of linear"):
        from_official(DLinear(8, 2).state_dict(), name="linear")
    state = dict(DLinear(8, 2, 2, True).state_dict())
    del state["Linear_Trend.1.bias"]
    with pytest.raises(WeightsError, match=r"Linear_Trend\.1\.bias"):
        from_official(state, name="dlinear")


def test_individual_pieces_that_are_missing_or_misshapen_are_reported() -> None:
    model = Linear(8, 2, 3, True)
    state = dict(model.state_dict())
    del state["Linear.1.bias"]
    with pytest.raises(RuntimeError, match=r"Missing key.*Linear"):
        model.load_state_dict(state)
    state = dict(Linear(9, 2, 3, True).state_dict())
    with pytest.raises(RuntimeError, match="size mismatch"):
        model.load_state_dict(state)
