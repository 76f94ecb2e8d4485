"""The mechanism window_nd against attention written out token by token: windows, shifts, padding, leaks."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from core_attention import MechanismError, build, check_mechanism, mechanism, unregister
from core_attention.kernels.window_nd import eager
from core_attention.mechanisms.window_nd import WindowNd

#: grid, window, shift: every number of axes, odd sizes, windows that cover an axis, axes of one token.
LAYOUTS: list[tuple[tuple[int, ...], tuple[int, ...], bool | tuple[int, ...]]] = [
    ((9,), (4,), True),
    ((8,), (4,), (3,)),
    ((3,), (4,), True),
    ((5, 7), (3, 4), True),
    ((6, 5), (2, 5), True),
    ((3, 5, 4), (2, 3, 2), (1, 2, 0)),
    ((3, 3, 3, 5), (2, 2, 2, 2), True),
    ((4, 3, 1, 5), (2, 2, 4, 4), True),
    ((2, 3, 3, 4), (4, 2, 4, 3), (1, 1, 3, 2)),
]


def _neighbours(grid: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...]) -> Tensor:
    """(n, n) bool for the tokens of a grid: who attends to whom, from the definition alone.

    A shift by s moves the borders between windows: they then lie at s, s + w, s + 2 w, ..., and nothing wraps around.
    """
    tokens = list(itertools.product(*map(range, grid)))
    see = torch.zeros(len(tokens), len(tokens), dtype=torch.bool)

    def piece(c: int, size: int, w: int, s: int) -> int:
        return 0 if size <= w else (c - s) // w

    for i, j in itertools.product(range(len(tokens)), repeat=2):
        axes = zip(tokens[i], tokens[j], grid, window, shift, strict=True)
        see[i, j] = all(piece(a, size, w, s) == piece(b, size, w, s) for a, b, size, w, s in axes)
    return see


def _by_hand(mixer: WindowNd, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Dense attention with the pairs that are no neighbours left out."""
    grid, n = tuple(x.shape[1:-1]), x.dim() - 2
    window = mixer.window if isinstance(mixer.window, tuple) else (mixer.window,) * n
    shift = mixer.shift if isinstance(mixer.shift, tuple) else (mixer.shift,) * n
    spans = tuple(s if s <= w or mixer.mask_padding else -(-s // w) * w for s, w in zip(grid, window, strict=True))
    inside = tuple(slice(0, size) for size in grid)
    filled, keys = x.new_zeros(len(x), *spans, x.shape[-1]), torch.ones(len(x), *spans, dtype=torch.bool)
    filled[(slice(None), *inside)] = x
    if mask is not None:
        keys[(slice(None), *inside)] = mask
    q, k, v = (
        mixer.qkv(filled.flatten(1, n)).view(len(x), -1, 3, mixer.num_heads, x.shape[-1] // mixer.num_heads).unbind(2)
    )
    scores = torch.einsum("bihd,bjhd->bhij", q, k) * q.shape[-1] ** -0.5
    see = _neighbours(spans, window, shift) & keys.flatten(1)[:, None, :]
    weights = scores.masked_fill(~see[:, None], -torch.inf).softmax(-1).nan_to_num(0.0)
    mixed = torch.einsum("bhij,bjhd->bihd", weights, v).reshape(filled.shape)
    return mixer.proj(mixed[(slice(None), *inside)])


def _mixer(**options: Any) -> WindowNd:
    torch.manual_seed(0)
    mixer = build("window_nd", 8, 2, **options).double()
    assert isinstance(mixer, WindowNd)
    return mixer


@pytest.mark.parametrize(("grid", "window", "shift"), LAYOUTS)
@pytest.mark.parametrize("mask_padding", [True, False])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_attention_by_hand(
    grid: tuple[int, ...], window: tuple[int, ...], shift: Any, mask_padding: bool, masked: bool
) -> None:
    mixer = _mixer(window=window, shift=shift, mask_padding=mask_padding)
    x = torch.randn(2, *grid, 8, dtype=torch.float64)
    mask = torch.rand(2, *grid) < 0.7 if masked else None
    torch.testing.assert_close(mixer(x, mask=mask).y, _by_hand(mixer, x, mask))


@pytest.mark.parametrize(("grid", "window", "shift"), LAYOUTS)
def test_a_change_reaches_the_neighbours_and_no_other(
    grid: tuple[int, ...], window: tuple[int, ...], shift: Any
) -> None:
    """Nothing leaks over the edge of a roll, for every token that could."""
    mixer = _mixer(window=window, shift=shift)
    moved = mixer.shift if isinstance(mixer.shift, tuple) else (mixer.shift,)
    see = _neighbours(grid, window, moved)
    count = len(see)
    x = torch.randn(1, *grid, 8, dtype=torch.float64)
    changed = x.repeat(count, *([1] * (x.dim() - 1)))
    changed.view(count, count, 8)[torch.arange(count), torch.arange(count)] += 1.0
    reached = (mixer(changed).y - mixer(x).y).view(count, count, 8).abs().amax(-1) > 1e-12
    assert torch.equal(reached, see)


@pytest.mark.parametrize(("grid", "window", "shift"), LAYOUTS)
def test_padding_is_seen_only_by_tokens_that_share_its_window(
    grid: tuple[int, ...], window: tuple[int, ...], shift: Any
) -> None:
    hidden, seen = (_mixer(window=window, shift=shift, mask_padding=value) for value in (True, False))
    moved = seen.shift if isinstance(seen.shift, tuple) else (seen.shift,)
    spans = tuple(size if size <= w else -(-size // w) * w for size, w in zip(grid, window, strict=True))
    real = torch.zeros(spans, dtype=torch.bool)
    real[tuple(slice(0, size) for size in grid)] = True
    beside = (_neighbours(spans, window, moved) & ~real.flatten()).any(1)[real.flatten()]
    x = torch.randn(1, *grid, 8, dtype=torch.float64)
    differs = (hidden(x).y - seen(x).y).abs().amax(-1).flatten() > 1e-12
    assert torch.equal(differs, beside)


@pytest.mark.parametrize("size", [1, 2, 5, 6])
@pytest.mark.parametrize("axes", [1, 2, 3, 4])
def test_partition_and_back(size: int, axes: int) -> None:
    """Padding, roll and partition undone give the same grid: the same numbers, each in its place."""
    grid = (size, *range(3, 2 + axes))
    window, shift = eager.clamped(grid, [3] * axes, [1] * axes)
    spans = [-(-n // w) * w for n, w in zip(grid, window, strict=True)]
    x = torch.arange(2.0 * torch.Size(grid).numel()).view(1, *grid, 2)
    cells = eager._partition(x, spans, window, shift)
    assert cells.shape[2] == torch.Size(window).numel()
    assert torch.equal(eager._merge(cells, grid, spans, window, shift), x)


def test_windows_of_one_token_are_the_value_alone() -> None:
    mixer, x = _mixer(window=1), torch.randn(2, 5, 3, 8, dtype=torch.float64)
    expected = mixer.proj(mixer.qkv(x)[..., 16:])
    torch.testing.assert_close(mixer(x).y, expected)


def test_alone_as_in_a_batch() -> None:
    mixer, x = _mixer(window=(2, 3), shift=True, mask_padding=False), torch.randn(3, 5, 4, 8, dtype=torch.float64)
    torch.testing.assert_close(torch.cat([mixer(one[None]).y for one in x]), mixer(x).y)


@pytest.mark.parametrize("options", [{}, {"mask_padding": False, "mask": False}], ids=["hidden", "seen"])
@pytest.mark.parametrize("axes", [1, 2, 3, 4])
def test_keeps_the_contract_on_grids_of(axes: int, options: dict[str, Any]) -> None:
    """The whole suite for each number of axes, which for the shipped class looks mostly at sequences."""
    spec = WindowNd.spec
    # Where zeros are keys, a sequence that is padded further is another one: the flag is then not claimed.
    claims = {"complexity": spec.complexity, "memory": spec.memory, "mask": options.get("mask", True)}

    @mechanism(name="window_of_axes", paper=spec.paper, year=spec.year, grid=(axes,), **claims)
    class OfAxes(WindowNd):
        """Windows of one number of axes."""

        @classmethod
        def example_options(cls, grid: tuple[int, ...]) -> dict[str, Any]:
            given = {name: value for name, value in options.items() if name != "mask"}
            return super().example_options(grid) | given

    try:
        assert all(result.passed for result in check_mechanism("window_of_axes"))
    finally:
        unregister("window_of_axes")


def test_shift_by_half_rounds_down() -> None:
    assert _mixer(window=(4, 5, 1, 2), shift=True).shift == (2, 2, 0, 1)
    assert _mixer(window=7, shift=True).shift == 3
    assert _mixer(window=7).shift == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 0}, "window is 0"),
        ({"window": (2, 0)}, r"window is \(2, 0\)"),
        ({"window": (1, 2, 3, 4, 5)}, "one to four"),
        ({"window": 2.0}, "window is 2.0"),
        ({"window": "4"}, "window is '4'"),
        ({"window": True}, "window is True"),
        ({"window": 4, "shift": 4}, "less than the window"),
        ({"window": (4, 2), "shift": 3}, "less than the window"),
        ({"window": (4, 2), "shift": (1, 1, 1)}, "less than the window"),
        ({"shift": -1}, "shift is -1"),
        ({"proj_drop": 1.0}, "proj_drop is 1.0"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(MechanismError, match=words):
        build("window_nd", 8, 2, **options)


def test_wrong_axes_and_heads_are_refused() -> None:
    with pytest.raises(MechanismError, match="no multiple of num_heads=3"):
        build("window_nd", 8, 3)
    with pytest.raises(MechanismError, match="x has 2 axes, expected 3"):
        _mixer(window=(2, 2, 2))(torch.zeros(1, 4, 4, 8, dtype=torch.float64))
    with pytest.raises(MechanismError, match=r"mask has shape \(1, 4\)"):
        _mixer(window=2)(torch.zeros(1, 4, 4, 8, dtype=torch.float64), mask=torch.ones(1, 4, dtype=torch.bool))


def test_dropout_while_training_only() -> None:
    mixer, x = _mixer(window=2, proj_drop=0.5), torch.randn(2, 6, 8, dtype=torch.float64)
    assert not torch.equal(mixer(x).y, mixer(x).y)
    assert int((mixer(x).y == 0).sum()) > 0
    assert torch.equal(mixer.eval()(x).y, mixer(x).y)
