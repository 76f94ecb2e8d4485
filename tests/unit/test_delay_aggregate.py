"""Delay aggregation and correlation against what they are by other means."""

from __future__ import annotations

import pytest
import torch

from core_attention.kernels import delay_aggregate, delay_correlation, ops


def _first(name: str) -> tuple[torch.Tensor, ...]:
    return ops()[name].module("cases").CASES[name][0].arguments(torch.float64)


def test_correlation_is_the_fourier_transform_s() -> None:
    q, k, _ = _first("delay_correlation")
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
    values, lags, weights = _first("delay_aggregate")
    assert torch.equal(delay_aggregate(values, lags.int(), weights), delay_aggregate(values, lags, weights))


@pytest.mark.parametrize("name", ["delay_aggregate", "delay_correlation"])
def test_slow_gradcheck_of_every_entry(name: str) -> None:
    operation, lags = ops()[name], torch.tensor([[1, -2, 7], [0, 3, 3]])
    arguments = operation.module("cases").arguments_of(
        name, (2, 5, 1, 3), lags, torch.float64, torch.Generator().manual_seed(0)
    )
    leaves = [t.requires_grad_(t.is_floating_point()) for t in arguments]
    assert torch.autograd.gradcheck(operation.public, leaves)
