"""Window attention against roll and partition written out, its invariances, and its masks."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from core_attention.kernels.window_nd import eager, window_nd
from core_attention.kernels.window_nd.bench import region_mask, roll_partition_softmax
from core_attention.kernels.window_nd.tables import boxes

LAYOUTS = st.integers(1, 4).flatmap(
    lambda axes: st.tuples(
        *(st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(0, 3)) for _ in range(axes)),
    )
)


def _qkv(B: int, T: int, H: int = 2, D: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn((B, T, 3, H, D), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _split(layout: tuple[tuple[int, int, int], ...]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    grid, window, shift = zip(*((T, w, min(s, w - 1)) for T, w, s in layout), strict=True)
    return grid, window, shift


@pytest.mark.parametrize("shift", [(0, 0, 0, 0), (2, 2, 2, 2), (1, 3, 0, 2)])
def test_equals_swin_s_own_steps_in_four_dimensions(shift: tuple[int, ...]) -> None:
    grid, window = (8, 4, 8, 4), (4, 2, 4, 4)
    shift = tuple(0 if w >= T else min(s, w - 1) for T, w, s in zip(grid, window, shift, strict=True))
    qkv = _qkv(2, math.prod(grid))
    expected = roll_partition_softmax(qkv, grid, window, shift, region_mask(grid, window, shift))
    torch.testing.assert_close(window_nd(qkv, grid, window, shift), expected)


def test_one_window_is_attention() -> None:
    qkv = _qkv(2, 12)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    expected = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    torch.testing.assert_close(window_nd(qkv, (3, 4), (3, 4)), expected)
    torch.testing.assert_close(window_nd(qkv, (3, 4), (7, 9), (3, 5)), expected)  # clamped, and not shifted


def test_a_window_of_one_token_gives_the_values() -> None:
    qkv = _qkv(1, 6)
    torch.testing.assert_close(window_nd(qkv, (6,), (1,)), qkv[:, :, 2])


def test_nothing_leaks_across_the_edge_that_the_roll_joins() -> None:
    qkv = _qkv(1, 8).requires_grad_()
    out = window_nd(qkv, (8,), (4,), (2,))
    touched = torch.autograd.grad(out[0, 0].sum(), qkv)[0].abs().sum((0, 2, 3, 4)).nonzero().flatten().tolist()
    assert touched == [0, 1]  # 6 and 7 stand in the same rolled window


@settings(deadline=None, max_examples=25)
@given(LAYOUTS)
def test_boxes_hold_every_token_once_and_agree_with_the_rolled_windows(
    layout: tuple[tuple[int, int, int], ...],
) -> None:
    grid, window, shift = _split(layout)
    clamped, moved = eager.clamped(grid, window, shift)
    cut = boxes(grid, tuple(clamped), tuple(moved))
    assert sorted(cut.order.tolist()) == list(range(math.prod(grid)))
    assert all(0 <= place < math.prod(clamped) for place in cut.places.tolist())
    qkv = _qkv(2, math.prod(grid), H=1, D=3)
    bias = torch.randn(1, math.prod(clamped), math.prod(clamped), dtype=torch.float64)
    mask = torch.rand(2, math.prod(grid)) > 0.3
    ours = window_nd(qkv, grid, window, shift, mask, bias=bias)
    torch.testing.assert_close(ours, eager.portable_window_nd(qkv, grid, window, shift, mask, bias=bias))


@settings(deadline=None, max_examples=20)
@given(LAYOUTS, st.integers(0, 2**16))
def test_values_of_masked_tokens_never_matter(layout: tuple[tuple[int, int, int], ...], seed: int) -> None:
    grid, window, shift = _split(layout)
    qkv = _qkv(1, math.prod(grid), seed=seed)
    mask = torch.rand((1, math.prod(grid)), generator=torch.Generator().manual_seed(seed)) > 0.4
    other = torch.where(mask[..., None, None, None], qkv, 100 * torch.ones_like(qkv))
    other[:, :, 0] = qkv[:, :, 0]  # masked tokens still ask
    torch.testing.assert_close(window_nd(qkv, grid, window, shift, mask), window_nd(other, grid, window, shift, mask))


def test_padding_by_hand_with_a_mask_changes_nothing() -> None:
    qkv = _qkv(2, 35)
    padded = F.pad(qkv.view(2, 5, 7, 3, 2, 4), (0, 0, 0, 0, 0, 0, 0, 1, 0, 1)).reshape(2, 48, 3, 2, 4)
    mask = F.pad(torch.ones(2, 5, 7, dtype=torch.bool), (0, 1, 0, 1)).reshape(2, 48)
    ours = window_nd(qkv, (5, 7), (3, 4), (1, 2)).view(2, 5, 7, 2, 4)
    by_hand = window_nd(padded, (6, 8), (3, 4), (1, 2), mask).view(2, 6, 8, 2, 4)[:, :5, :7]
    torch.testing.assert_close(ours, by_hand)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_without_valid_keys_outputs_and_gradients_are_zero(dtype: torch.dtype) -> None:
    qkv = _qkv(2, 12).to(dtype).requires_grad_()
    bias = torch.zeros(2, 4, 4, dtype=dtype, requires_grad=True)
    mask = torch.zeros(2, 12, dtype=torch.bool)
    out = window_nd(qkv, (12,), (4,), (2,), mask, bias=bias)
    grads = torch.autograd.grad(out.sum(), (qkv, bias))
    assert not out.any()
    assert not any(grad.any() for grad in grads)


def test_each_sample_alone_gives_the_same() -> None:
    qkv = _qkv(3, 24)
    together = window_nd(qkv, (4, 6), (3, 4), (1, 2))
    alone = torch.cat([window_nd(sample[None], (4, 6), (3, 4), (1, 2)) for sample in qkv])
    torch.testing.assert_close(together, alone)


def test_a_gradient_of_the_bias_taken_in_pieces_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    qkv, bias = _qkv(2, 36), torch.randn(2, 9, 9, dtype=torch.float64, requires_grad=True)
    once = torch.autograd.grad(window_nd(qkv, (6, 6), (3, 3), (1, 1), bias=bias).square().sum(), bias)[0]
    monkeypatch.setattr(eager, "_SCORES_AT_ONCE", 1)
    pieces = torch.autograd.grad(window_nd(qkv, (6, 6), (3, 3), (1, 1), bias=bias).square().sum(), bias)[0]
    torch.testing.assert_close(pieces, once)


def test_a_head_wider_than_the_kernels_hold_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="window_nd: backend='gpu' cannot serve"):
        window_nd(_qkv(1, 4, D=200), (4,), (2,), backend="gpu")


def test_compiled_loops_do_not_depend_on_threads_and_agree_with_eager() -> None:
    grid, window, shift = (9, 6, 8, 7), (4, 4, 4, 4), (2, 2, 2, 2)
    generator, found = torch.Generator().manual_seed(0), {}
    qkv = torch.randn((2, math.prod(grid), 3, 3, 12), generator=generator)
    cotangent = torch.randn((2, math.prod(grid), 3, 12), generator=generator)
    mask = torch.rand((2, math.prod(grid)), generator=generator) > 0.3
    threads = torch.get_num_threads()
    try:
        for name, backend, count in (("one", "cpu", 1), ("three", "cpu", 3), ("eager", "eager", 1)):
            torch.set_num_threads(count)
            leaf = qkv.clone().requires_grad_()
            out = window_nd(leaf, grid, window, shift, mask, backend=backend)
            found[name] = out.detach(), torch.autograd.grad(out, leaf, cotangent)[0]
    finally:
        torch.set_num_threads(threads)
    for one, three, plain in zip(*found.values(), strict=True):
        assert torch.equal(one, three)
        torch.testing.assert_close(one, plain, rtol=1e-5, atol=1e-5)
    assert not found["one"][1].view(2, -1, 3, 3, 12)[:, :, 1:][~mask].any()  # what is no key has no gradient as one
