"""dynamic_conv against the plain sum of convolutions and ordinary attention; its shares, refusals and sensitivities."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_attention import MechanismError, build, check_mechanism
from core_attention.mechanisms.dynamic_conv import DynamicConv, FilterMixture

C, H, T, B = 16, 4, 9, 3


def mixer(seed: int = 0, **options: Any) -> DynamicConv:
    """A mechanism in float64 with shares that differ."""
    torch.manual_seed(seed)
    made = DynamicConv(C, H, **options).double()
    with torch.no_grad():
        for mixture in (made.query, made.key, made.value):
            mixture.eta.normal_()
    return made


def tokens(seed: int = 1, length: int = T) -> Tensor:
    return torch.randn(B, length, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def convolutions(mixture: FilterMixture, x: Tensor) -> Tensor:
    """sum_i eta_i conv_i(x) as the paper writes it, each convolution done by itself with torch's own layer."""
    exponentials = [float(e) for e in mixture.eta.detach().exp()]
    total = torch.zeros_like(x)
    for i, k in enumerate(mixture.kernels):
        layer = nn.Conv1d(x.shape[1], x.shape[1], k, padding=k // 2).double()
        with torch.no_grad():
            layer.weight.copy_(mixture.filters[i])
            layer.bias.copy_(mixture.bias[i])  # type: ignore[union-attr]
            total += exponentials[i] / sum(exponentials) * layer(x)
    return total


def plainly(made: DynamicConv, x: Tensor) -> Tensor:
    """The whole mechanism by steps: convolutions one by one, heads one by one, the map written out."""
    flip = made.form == "spatial"
    source = x.transpose(1, 2) if flip else x
    q, k, v = (convolutions(m, source) for m in (made.query, made.key, made.value))
    q, k, v = (t.transpose(1, 2) if flip else t for t in (q, k, v))
    D, parts = C // H, []
    for h in range(H):
        own = slice(h * D, (h + 1) * D)
        weights = torch.softmax(q[..., own] @ k[..., own].transpose(1, 2) / D**0.5, dim=-1)
        parts.append(weights @ v[..., own])
    y, P, b = torch.cat(parts, dim=-1), made.output.weight, made.output.bias
    return torch.einsum("dc,btc->btd", P, y) + b if flip else torch.einsum("st,btc->bsc", P, y) + b[:, None]


FORMS = [{"form": "spatial"}, {"form": "temporal", "length": T}]
KERNELS = [(7, 7, 7), (3, 5, 7), (9, 1, 3), (5,), (1,), (31, 3)]


@pytest.mark.parametrize(("form", "kernels"), list(itertools.product(FORMS, KERNELS)))
def test_one_mixed_convolution_equals_the_sum_of_convolutions(form: dict[str, Any], kernels: tuple[int, ...]) -> None:
    made, x = mixer(**form, kernels=kernels), tokens()
    torch.testing.assert_close(made(x).y, plainly(made, x), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_of_filters_and_shares_equal_those_of_the_sum(form: dict[str, Any]) -> None:
    made, x = mixer(**form, kernels=(3, 7)), tokens()
    cotangent = tokens(2)
    (made(x).y * cotangent).sum().backward()
    step = 1e-6
    for parameter in (made.query.eta, made.value.filters[0], made.key.filters[1], made.output.weight):
        entry = tuple(0 for _ in parameter.shape)
        gradient = parameter.grad
        assert gradient is not None
        values = []
        with torch.no_grad():
            for sign in (1, -2):
                parameter[entry] += sign * step
                values.append(float((plainly(made, x) * cotangent).sum()))
            parameter[entry] += step
        assert float(gradient[entry]) == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5, abs=1e-8)


def test_one_kernel_of_width_one_over_tokens_is_ordinary_attention() -> None:
    made, x = mixer(form="spatial", kernels=(1,)), tokens(length=17)
    usual = build("softmax", C, H).double()
    names = {"query": "query_projection", "key": "key_projection", "value": "value_projection"}
    state = {}
    for ours, theirs in names.items():
        mixture = getattr(made, ours)
        state[f"{theirs}.weight"], state[f"{theirs}.bias"] = mixture.filters[0].squeeze(-1), mixture.bias[0]
    state |= {"out_projection.weight": made.output.weight, "out_projection.bias": made.output.bias}
    usual.load_state_dict(state)
    torch.testing.assert_close(made(x).y, usual(x).y, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(made(x, maps=True).aux["maps"], usual(x, maps=True).aux["maps"])


def test_one_kernel_of_width_one_over_frames_is_attention_between_mixed_frames() -> None:
    made, x = mixer(form="temporal", length=T, kernels=(1,)), tokens()
    q, k, v = (
        torch.einsum("st,btc->bsc", m.filters[0][..., 0], x) + m.bias[0][:, None]
        for m in (made.query, made.key, made.value)
    )
    q, k, v = (t.unflatten(-1, (H, C // H)).transpose(1, 2) for t in (q, k, v))
    y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    expected = torch.einsum("st,btc->bsc", made.output.weight, y) + made.output.bias[:, None]
    torch.testing.assert_close(made(x).y, expected, rtol=1e-11, atol=1e-12)


def test_shares_sum_to_one_and_start_equal() -> None:
    mixture = FilterMixture(4, (3, 3, 5))
    torch.testing.assert_close(mixture.shares, torch.full((3,), 1 / 3))
    with torch.no_grad():
        mixture.eta.copy_(torch.tensor([5.0, -3.0, 40.0]))
    assert float(mixture.shares.detach().sum()) == pytest.approx(1, abs=1e-6)
    assert bool((mixture.shares >= 0).all())
    weight, _ = mixture.mixed()
    torch.testing.assert_close(weight, mixture.filters[2])  # the share of the third is one to 7 digits


def test_shares_of_queries_keys_and_values_are_their_own() -> None:
    made = mixer(form="spatial", kernels=(3, 7))
    shares = made(tokens(), maps=True).aux["shares"]
    assert shares.shape == (3, 2)
    assert len({round(float(share), 6) for share in shares[:, 0]}) == 3


@pytest.mark.parametrize("order", [0, 1])
def test_filters_start_as_torch_s_convolutions_do(order: int) -> None:
    width = (3, 7)[order]
    bound = (C * width) ** -0.5
    mixture = FilterMixture(C, (3, 7))
    for values in (mixture.filters[order], mixture.bias[order]):
        largest = float(values.detach().abs().max())
        assert 0.6 * bound < largest <= bound


def test_spatial_reads_neighbours_in_order_and_temporal_reads_all_frames() -> None:
    x = tokens()
    order = torch.tensor([1, 0, *range(2, T)])
    plain, wide = mixer(form="spatial", kernels=(1,)), mixer(form="spatial", kernels=(3,))
    torch.testing.assert_close(plain(x[:, order]).y, plain(x).y[:, order])  # attention alone knows no order
    assert not torch.allclose(wide(x[:, order]).y, wide(x).y[:, order], atol=1e-4)
    temporal = mixer(form="temporal", length=T, kernels=(1,))
    assert not torch.allclose(temporal(x[:, order]).y, temporal(x).y[:, order], atol=1e-4)


def test_spatial_takes_any_length_until_one_is_given() -> None:
    free, held = mixer(form="spatial"), mixer(form="spatial", length=T)
    for length in (1, 2, 40):  # shorter than the kernels, too
        assert free(tokens(length=length)).y.shape == (B, length, C)
    with pytest.raises(MechanismError, match="x has 8 tokens, built for length=9"):
        held(tokens(length=8))


@pytest.mark.parametrize("form", FORMS)
def test_dropout_is_on_the_mixed_values(form: dict[str, Any]) -> None:
    made, x = mixer(**form, dropout=0.5), tokens()
    with torch.no_grad():  # an identity for a map leaves what was dropped visible
        made.output.weight.copy_(torch.eye(len(made.output.weight)))
        made.output.bias.zero_()
    dropped = made(x).y
    kept = dropped != 0
    assert 0.3 < float(kept.double().mean()) < 0.7
    torch.testing.assert_close(dropped[kept], 2 * made.eval()(x).y[kept])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"form": "causal"}, "form is 'causal', expected one of temporal, spatial"),
        ({}, "length is None, expected the number of tokens of the temporal form"),
        ({"length": 0}, "length is 0"),
        ({"length": True}, "length is True"),
        ({"form": "spatial", "length": 2.0}, "length is 2.0"),
        ({"length": T, "kernels": (3, 4)}, r"kernels is (3, 4), expected odd numbers from 1 to 31"),
        ({"length": T, "kernels": ()}, "kernels is ()"),
        ({"length": T, "kernels": 7}, "kernels is 7"),
        ({"length": T, "kernels": "7"}, "kernels is '7'"),
        ({"length": T, "kernels": (33,)}, "kernels is (33,)"),
        ({"length": T, "dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(MechanismError, match=re.escape(words)):
        DynamicConv(C, H, **options)


def test_heads_that_do_not_fit_are_refused() -> None:
    with pytest.raises(MechanismError, match="dim=16 is no multiple of num_heads=5"):
        DynamicConv(16, 5, length=T)


def test_the_spatial_form_keeps_the_contract_too() -> None:
    results = check_mechanism("dynamic_conv", form="spatial", kernels=(3, 5))
    assert len(results) >= 12
