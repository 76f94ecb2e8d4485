"""The mechanism length_temperature beyond the checks of all mechanisms: by hand in float64, lengths, trained models."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from core_attention import MechanismError, build, spec
from core_attention.mechanisms.length_temperature import LengthTemperature, cooled
from core_attention.mechanisms.softmax import Softmax

DIM, HEADS = 8, 2


def _mixer(**options: Any) -> LengthTemperature:
    torch.manual_seed(0)
    return LengthTemperature(DIM, HEADS, **options).double().eval()


def _tokens(rows: int, length: int, seed: int = 1) -> Tensor:
    return torch.randn(rows, length, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _by_hand(
    mixer: Softmax, x: Tensor, tau: list[float], visible: list[list[int]], source: Tensor | None = None
) -> Tensor:
    """One sequence x (T, C): query t at temperature tau[t] over the keys visible[t]."""
    source = x if source is None else source
    q, k, v = mixer.query_projection(x), mixer.key_projection(source), mixer.value_projection(source)
    size, rows = DIM // HEADS, []
    for t in range(len(x)):
        heads = []
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            scores = torch.stack([q[t, part] @ k[s, part] / math.sqrt(size) / tau[t] for s in visible[t]])
            weights = scores.exp() / scores.exp().sum()
            heads.append(sum(weights[i] * v[s, part] for i, s in enumerate(visible[t])))
        rows.append(mixer.out_projection(torch.cat(heads)))  # pyright: ignore[reportArgumentType, reportCallIssue]
    return torch.stack(rows)


@pytest.mark.parametrize("tau", [0.5, 0.7, 1.0, 2.0])
def test_a_constant_temperature_by_hand(tau: float) -> None:
    mixer, x = _mixer(temperature=tau), _tokens(2, 6)
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    found = mixer(x, mask=mask).y
    for row, size in ((0, 6), (1, 4)):
        expected = _by_hand(mixer, x[row, :size], [tau] * size, [list(range(size))] * size)
        torch.testing.assert_close(found[row, :size], expected, rtol=0, atol=1e-12)


def test_the_default_is_seven_tenths_and_one_is_plain_softmax() -> None:
    assert _mixer().temperature == 0.7
    plain, x = Softmax(DIM, HEADS).double(), _tokens(2, 5)
    same = _mixer(temperature=1.0)
    same.load_state_dict(plain.state_dict())
    assert torch.equal(same(x).y, plain(x).y)
    assert spec("length_temperature").kind == "modifier"
    preset = Softmax(DIM, HEADS, query_temperature=0.7).double()
    preset.load_state_dict(plain.state_dict())
    sharp = _mixer()
    sharp.load_state_dict(plain.state_dict())
    torch.testing.assert_close(sharp(x).y, preset(x).y, rtol=0, atol=1e-7)  # the preset keeps 1 / 0.7 in float32


def _tau(count: int, slope: float = 0.3, reference: float = 4.0, floor: float = 0.1) -> float:
    return min(max(1 - slope * math.log(count / reference), floor), 1 / floor)


def test_a_temperature_that_follows_the_length_counts_valid_tokens_only() -> None:
    mixer, x = _mixer(slope=0.3, reference=4.0), _tokens(2, 9)
    mask = torch.tensor([[1] * 9, [0, 1, 1, 0, 1, 1, 0, 0, 1]]).bool()
    found = mixer(x, mask=mask).y
    for row in range(2):
        bare = x[row, mask[row]]
        expected = _by_hand(mixer, bare, [_tau(len(bare))] * len(bare), [list(range(len(bare)))] * len(bare))
        torch.testing.assert_close(found[row, mask[row]], expected, rtol=0, atol=1e-12)
    assert _tau(9) < 1 < _tau(2)  # longer than the reference is sharper, shorter is flatter


def test_causal_queries_count_what_they_see_also_piece_by_piece() -> None:
    mixer, x = _mixer(slope=0.3, reference=4.0, causal=True), _tokens(1, 7)
    expected = _by_hand(mixer, x[0], [_tau(t + 1) for t in range(7)], [list(range(t + 1)) for t in range(7)])
    torch.testing.assert_close(mixer(x).y[0], expected, rtol=0, atol=1e-12)
    state, pieces = None, []
    for piece in x.split([3, 1, 2, 1], dim=1):
        out = mixer(piece, state=state)
        pieces.append(out.y)
        state = out.state
    torch.testing.assert_close(torch.cat(pieces, 1)[0], expected, rtol=0, atol=1e-12)


def test_of_a_context_its_valid_tokens_count() -> None:
    mixer, x, context = _mixer(slope=0.3, reference=4.0), _tokens(1, 3), _tokens(1, 8, seed=2)
    valid = torch.tensor([[True] * 6 + [False] * 2])
    expected = _by_hand(mixer, x[0], [_tau(6)] * 3, [list(range(6))] * 3, context[0])
    torch.testing.assert_close(mixer(x, context=context, context_mask=valid).y[0], expected, rtol=0, atol=1e-12)


def test_the_floor_holds() -> None:
    mixer, x = _mixer(slope=5.0, reference=1.0, floor=0.5), _tokens(1, 6)
    expected = _by_hand(mixer, x[0], [0.5] * 6, [list(range(6))] * 6)
    torch.testing.assert_close(mixer(x).y[0], expected, rtol=0, atol=1e-12)
    row = torch.tensor([[False] * 6])
    assert torch.isfinite(mixer(x, mask=row).y).all()


def test_maps_are_those_of_the_output() -> None:
    mixer, x = _mixer(slope=0.3, reference=4.0), _tokens(2, 5)
    out = mixer(x, maps=True)
    values = mixer.value_projection(x).unflatten(-1, (HEADS, DIM // HEADS)).transpose(1, 2)
    again = mixer.out_projection((out.aux["maps"] @ values).transpose(1, 2).flatten(-2))
    torch.testing.assert_close(out.y, again, rtol=0, atol=1e-12)


def test_a_smaller_temperature_filters_less() -> None:
    """The trend of the paper: sharper weights carry more of the differences between tokens on."""
    x = 3 * _tokens(1, 64)
    rates = []
    for tau in (0.3, 0.6, 1.0, 2.0):
        maps = _mixer(temperature=tau)(x, maps=True).aux["maps"][0]
        rates.append(torch.linalg.matrix_norm(maps - maps.mean(-2, keepdim=True), 2))
    assert all(bool((sharp > flat).all()) for sharp, flat in itertools.pairwise(rates))


def test_trained_models_are_cooled_for_a_while() -> None:
    torch.manual_seed(0)
    model = torch.nn.ModuleList([Softmax(DIM, HEADS), Softmax(DIM, HEADS, query_temperature=2.0)]).double()
    before, x = copy.deepcopy(model), _tokens(1, 5)
    hand = [
        _by_hand(mixer, x[0], [tau] * 5, [list(range(5))] * 5) for mixer, tau in zip(model, (0.7, 1.4), strict=True)
    ]  # pyright: ignore[reportArgumentType]
    with cooled(model, 0.7) as count:
        assert count == 2
        for mixer, expected in zip(model, hand, strict=True):
            torch.testing.assert_close(mixer(x).y[0], expected, rtol=0, atol=1e-12)
    for mixer, old in zip(model, before, strict=True):
        assert torch.equal(mixer(x).y, old(x).y)
    assert list(model.state_dict()) == list(before.state_dict())
    with pytest.raises(KeyError), cooled(model, 0.5):
        raise KeyError
    assert torch.equal(model[0](x).y, before[0](x).y)


def test_nothing_is_passed_over_in_silence() -> None:
    with pytest.raises(MechanismError, match="holds no softmax attention"), cooled(torch.nn.Linear(2, 2), 0.7):
        pass
    with pytest.raises(MechanismError, match="temperature is 0"), cooled(Softmax(DIM, HEADS), 0):
        pass
    for options, message in (
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": 0.5, "slope": 0.1}, "expected one of them"),
        ({"slope": -0.1}, "slope is -0.1"),
        ({"slope": 0.1, "floor": 0.0}, "floor=0.0"),
        ({"slope": 0.1, "reference": 0.0}, "reference=0.0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ):
        with pytest.raises(MechanismError, match=message):
            build("length_temperature", DIM, HEADS, **options)
