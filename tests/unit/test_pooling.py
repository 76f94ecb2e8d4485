"""The mechanism pooling beyond the checks of all mechanisms: the equations in loops, segments, padding, ties."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from core_attention import MechanismError, build
from core_attention.mechanisms.pooling import Pooling, equal_segments

DIM, HEADS = 12, 3


def _mixer(**options: Any) -> Pooling:
    torch.manual_seed(0)
    return Pooling(DIM, HEADS, **options).double()


def _tokens(rows: int, length: int, seed: int = 1) -> Tensor:
    return torch.randn(rows, length, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _by_loops(mixer: Pooling, x: Tensor, segments: list[int], special: tuple[int, ...] = ()) -> Tensor:
    """One sequence x (T, C), token by token and head by head, from the paper's equations."""
    maps = {name: x @ getattr(mixer, f"dense_{name}").weight.T + getattr(mixer, f"dense_{name}").bias for name in "qko"}
    by_segment = x @ mixer.dense_segment.weight.T + mixer.dense_segment.bias
    local = x @ mixer.dense_local.weight.T + mixer.dense_local.bias
    size, whole = DIM // HEADS, torch.zeros(DIM, dtype=x.dtype)
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        query = sum(maps["q"][t, part] for t in range(len(x))) / len(x)
        scores = torch.stack([query @ maps["k"][t, part] / size**0.5 for t in range(len(x))])
        weights = torch.exp(scores) / torch.exp(scores).sum()
        whole[part] = sum(weights[t] * maps["k"][t, part] for t in range(len(x)))
    rows = []
    for t in range(len(x)):
        if t in special:
            rows.append(whole * maps["o"][t])
            continue
        same = [u for u in range(len(x)) if segments[u] == segments[t]]
        near = [u for u in (t - 1, t, t + 1) if 0 <= u < len(x) and u not in special]
        highest, nearest = (part[chosen].max(0).values for part, chosen in ((by_segment, same), (local, near)))
        rows.append((whole + highest) * maps["o"][t] + nearest)
    out = torch.stack(rows)
    if isinstance(mixer.out_projection, torch.nn.Linear):
        out = out @ mixer.out_projection.weight.T + mixer.out_projection.bias
    return out


@pytest.mark.parametrize("output", [True, False])
@pytest.mark.parametrize(("length", "count"), [(11, 3), (8, 1), (9, 64), (1, 1), (1, 64), (2, 2)])
def test_equal_segments_against_loops(length: int, count: int, output: bool) -> None:
    mixer, x = _mixer(segments=count, output=output), _tokens(2, length)
    numbers = [t // (length // count + 1) for t in range(length)]
    for row in range(2):
        torch.testing.assert_close(mixer(x).y[row], _by_loops(mixer, x[row], numbers), rtol=0, atol=1e-12)


def test_given_segments_and_special_tokens_against_loops() -> None:
    mixer, x = _mixer(output=False), _tokens(2, 9)
    segments = torch.tensor([[0, 1, 1, 2, 3, 3, 3, 4, 8], [5, 5, 0, 0, 5, 1, 2, 2, 5]])  # wherever they stand
    special = torch.zeros(2, 9, dtype=torch.bool)
    special[0, [0, 3, 7]] = True
    y = mixer(x, segments=segments, special=special).y
    for row in range(2):
        chosen = tuple(special[row].nonzero().flatten().tolist())
        expected = _by_loops(mixer, x[row], segments[row].tolist(), chosen)
        torch.testing.assert_close(y[row], expected, rtol=0, atol=1e-12)


def test_special_tokens_read_no_neighbour() -> None:
    """Only through the one summary; and nothing of theirs reaches the maxima of others."""
    mixer, x = _mixer(output=False), _tokens(1, 6)
    segments, special = torch.tensor([[0, 1, 1, 2, 3, 3]]), torch.tensor([[True, False, False, True, False, False]])
    with torch.no_grad():  # an even and constant summary: no channel of K
        mixer.dense_k.weight.zero_()
    before = mixer(x, segments=segments, special=special).y
    for changed, same in ((3, [0, 1, 2, 4, 5]), (2, [0, 3, 4, 5])):
        other = x.clone()
        other[0, changed] += 10
        after = mixer(other, segments=segments, special=special).y
        assert torch.equal(after[0, same], before[0, same])
        assert not torch.equal(after[0, changed], before[0, changed])


def test_one_token_is_its_own_summary_segment_and_neighbourhood() -> None:
    mixer, x = _mixer(output=False), _tokens(3, 1)
    expected = (mixer.dense_k(x) + mixer.dense_segment(x)) * mixer.dense_o(x) + mixer.dense_local(x)
    torch.testing.assert_close(mixer(x).y, expected, rtol=0, atol=1e-12)


def test_more_segments_than_tokens_leave_each_by_itself() -> None:
    device = torch.device("cpu")
    for length, count in ((7, 8), (7, 4096), (4000, 4096)):
        assert torch.equal(equal_segments((1, length), count, None, device)[0], torch.arange(length))
    lengths = torch.bincount(equal_segments((1, 100), 7, None, device)[0])
    assert lengths.tolist() == [15, 15, 15, 15, 15, 15, 10]


def test_parameters_are_five_linear_maps_and_the_output() -> None:
    one = DIM * DIM + DIM
    assert sum(p.numel() for p in _mixer(output=False).parameters()) == 5 * one
    assert sum(p.numel() for p in _mixer().parameters()) == 6 * one


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
def test_padding_at_either_end_changes_nothing(side: str, poison: float) -> None:
    mixer, x = _mixer(segments=3), _tokens(3, 13)
    sizes = (13, 8, 1)
    mask = torch.stack([torch.arange(13) < size for size in sizes])
    mask = mask if side == "right" else mask.flip(1)
    filled = x.masked_fill(~mask.unsqueeze(-1), poison).requires_grad_()
    y = mixer(filled, mask=mask).y
    for row, size in enumerate(sizes):
        bare = mixer(x[row, mask[row]].unsqueeze(0)).y[0]
        assert bare.shape == (size, DIM)
        torch.testing.assert_close(y[row, mask[row]], bare, rtol=0, atol=1e-12)
    y[mask].square().sum().backward()
    assert filled.grad is not None
    assert not filled.grad[~mask].any()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in mixer.parameters())


def test_a_row_of_padding_alone_harms_no_other() -> None:
    mixer, x = _mixer(), _tokens(2, 5)
    mask = torch.tensor([[False] * 5, [True] * 5])
    y = mixer(x, mask=mask).y
    y.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in mixer.parameters())
    torch.testing.assert_close(y[1], mixer(x[1:]).y[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(y[0], mixer.out_projection.bias.expand(5, -1), rtol=0, atol=0)


def test_equal_maxima_of_a_segment_share_the_gradient() -> None:
    """As torch's own scatter_reduce does; compared with it."""
    mixer = _mixer(output=False, segments=1)
    x = _tokens(1, 4)
    x[:, 2] = x[:, 1]  # two equal tokens tie in every channel
    direction = torch.randn(1, 4, DIM, dtype=torch.float64)
    places = torch.zeros(1, 4, DIM, dtype=torch.long)
    values = mixer.dense_segment(x).detach().requires_grad_()
    shared = torch.zeros(1, 4, DIM, dtype=torch.float64).scatter_reduce(1, places, values, "amax", include_self=False)
    (shared.gather(1, places) * mixer.dense_o(x).detach() * direction).sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad[0, 1], values.grad[0, 2])
    mixer.zero_grad()
    (mixer(x).y * direction).sum().backward()
    expected = torch.einsum("btc,btd->cd", values.grad, x)
    torch.testing.assert_close(mixer.dense_segment.weight.grad, expected, rtol=0, atol=1e-12)


def test_the_order_of_tokens_matters_only_near_and_in_segments() -> None:
    mixer, x = _mixer(segments=1), _tokens(1, 10)
    turned = torch.arange(9, -1, -1)  # reversal keeps every neighbourhood, and the one segment
    torch.testing.assert_close(mixer(x[:, turned]).y, mixer(x).y[:, turned], rtol=0, atol=1e-12)
    mixed = torch.randperm(10, generator=torch.Generator().manual_seed(3))
    assert (mixer(x[:, mixed]).y - mixer(x).y[:, mixed]).abs().max() > 1e-2


def test_weights_come_back_on_request() -> None:
    mixer, x = _mixer(), _tokens(2, 7)
    mask = torch.arange(7) < torch.tensor([[7], [4]])
    out = mixer(x, mask=mask, maps=True)
    assert out.aux["maps"].shape == (2, HEADS, 1, 7)
    torch.testing.assert_close(out.aux["maps"].sum(-1), torch.ones(2, HEADS, 1, dtype=torch.float64))
    assert not out.aux["maps"][1, ..., 4:].any()
    assert torch.equal(out.y, mixer(x, mask=mask).y)


def test_wrong_uses_are_refused() -> None:
    mixer, x = _mixer(), _tokens(2, 5)
    wrong: list[tuple[str, Tensor, str]] = [
        ("segments", torch.zeros(2, 4, dtype=torch.long), r"segments is \(2, 4\)"),
        ("segments", torch.zeros(2, 5), "expected .* of torch.int64"),
        ("special", torch.zeros(2, 5, dtype=torch.long), "expected .* of torch.bool"),
    ]
    for name, given, message in wrong:
        with pytest.raises(MechanismError, match=message):
            mixer(x, **{name: given})
    with pytest.raises(ValueError, match="found numbers 5 to 5, expected 0 to 4"):
        mixer(x, segments=torch.full((2, 5), 5))
    for options, message in (({"segments": 0}, "segments is 0"), ({"segments": 1.5}, "segments is 1.5")):
        with pytest.raises(MechanismError, match=message):
            build("pooling", DIM, HEADS, **options)
    with pytest.raises(MechanismError, match="no multiple"):
        build("pooling", DIM, 5)
