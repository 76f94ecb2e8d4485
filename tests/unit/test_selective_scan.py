"""The selective scan in pieces, a step at a time, and where floating point is unkind."""

from __future__ import annotations

import multiprocessing
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core_attention.kernels import selective_scan, selective_scan_step
from core_attention.kernels.selective_scan.cases import arguments_of

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
BACKENDS = ("reference", "eager", "cpu")


def _operands(shape: tuple[int, int, int, int], dtype: torch.dtype = torch.float32, **how: Any) -> dict[str, Any]:
    made = arguments_of(shape, dtype, torch.Generator().manual_seed(0), **how)
    return {**dict(zip(NAMES, made, strict=True)), "delta_softplus": True}


@pytest.mark.parametrize("backend", BACKENDS)
@settings(deadline=None, max_examples=15)
@given(cut=st.integers(1, 149), groups=st.sampled_from([0, 1, 2]))
def test_two_pieces_give_what_one_call_gives(backend: str, cut: int, groups: int) -> None:
    whole = _operands((1, 4, 150, 3), groups=groups)
    pieces = [
        {k: v[..., part] if k in ("u", "delta", "B", "C", "z") else v for k, v in whole.items()}
        for part in (slice(0, cut), slice(cut, None))
    ]
    expected, last = selective_scan(**whole, return_last_state=True, backend=backend)
    first, state = selective_scan(**pieces[0], return_last_state=True, backend=backend)
    second, final = selective_scan(**pieces[1] | {"initial_state": state}, return_last_state=True, backend=backend)
    torch.testing.assert_close(torch.cat([first, second], -1), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(final, last, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_steps_give_what_a_scan_gives(dtype: torch.dtype) -> None:
    whole = _operands((2, 6, 20, 5), dtype, groups=2)
    expected, last = selective_scan(**whole, return_last_state=True)
    state, outputs = whole.pop("initial_state").to(last.dtype), []
    for t in range(20):
        now = {k: v[..., t] if k in ("u", "delta", "B", "C", "z") else v for k, v in whole.items()}
        y, state = selective_scan_step(state, **now)
        outputs.append(y)
    torch.testing.assert_close(torch.stack(outputs, -1), expected)
    torch.testing.assert_close(state, last, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_decay_beyond_any_exponent_stays_finite(backend: str) -> None:
    """Where closed forms with cumulative sums overflow: a thousand steps that each wipe the state out."""
    given = _operands((1, 3, 1000, 4)) | {"A": torch.full((3, 4), -100.0)}
    given["delta"] = torch.full_like(given["delta"], 30.0)
    leaves = {k: v.requires_grad_() for k, v in given.items() if isinstance(v, torch.Tensor)}
    out = selective_scan(**given, backend=backend)
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(out.sum(), list(leaves.values())))


@settings(deadline=None, max_examples=20)
@given(scale=st.floats(-3, 3), seed=st.integers(0, 99))
def test_the_scan_is_linear_in_its_input_without_a_state(scale: float, seed: int) -> None:
    made = arguments_of((2, 5, 40, 4), torch.float64, torch.Generator().manual_seed(seed), state=False)
    given = {**dict(zip(NAMES, made, strict=True)), "delta_softplus": True}
    other = torch.randn(2, 5, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1))
    both = selective_scan(**given | {"u": given["u"] + scale * other})
    torch.testing.assert_close(both, selective_scan(**given) + scale * selective_scan(**given | {"u": other}))


def test_no_step_looks_ahead() -> None:
    given = _operands((1, 8, 200, 4))
    later = given["u"].clone()
    later[..., 130:] = 7.0
    changed = selective_scan(**given | {"u": later}, backend="cpu")
    assert torch.equal(changed[..., :130], selective_scan(**given, backend="cpu")[..., :130])


def test_threads_do_not_change_a_bit() -> None:
    given, before = _operands((3, 40, 100, 4)), torch.get_num_threads()
    try:
        results = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(selective_scan(**given, backend="cpu"))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_nan_is_not_hidden() -> None:
    given = _operands((1, 9, 30, 4))
    given["u"][0, 4, 10] = float("nan")
    out = selective_scan(**given, backend="cpu")
    assert out[0, 4, 10:].isnan().all()
    assert not out[0, 4, :10].isnan().any()
    assert not out[0, [0, 3, 5, 8]].isnan().any()


def _in_a_fork(queue: Any) -> None:
    queue.put(selective_scan(**_operands((4, 32, 70, 4)), backend="cpu").sum().item())


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
def test_a_forked_worker_computes_too() -> None:
    """As a data loader's does: numba's own pool would abort it after it had run in the parent."""
    expected = selective_scan(**_operands((4, 32, 70, 4)), backend="cpu").sum().item()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    worker = context.Process(target=_in_a_fork, args=(queue,))
    worker.start()
    found = queue.get(timeout=60)
    worker.join(60)
    assert worker.exitcode == 0
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"state": torch.zeros(2, 3)}, r"state: found shape \(2, 3\), expected 3 dimensions \(B, D, N\)"),
        ({"u": torch.zeros(2, 4)}, r"state: found shape \(2, 3, 5\), expected \(2, 4, 5\)"),
        ({"delta": torch.zeros(2, 1)}, r"delta: found shape \(2, 1\), expected \(2, 3\)"),
        ({"B": torch.zeros(5)}, r"B: found .*\(5,\), expected \(B, N\) or \(B, G, N\)"),
    ],
)
def test_bad_steps_are_refused(change: dict[str, torch.Tensor], words: str) -> None:
    given = {"state": torch.zeros(2, 3, 5), "u": torch.zeros(2, 3), "delta": torch.zeros(2, 3)}
    given |= {"A": -torch.ones(3, 5), "B": torch.zeros(2, 5), "C": torch.zeros(2, 5)}
    with pytest.raises(ValueError, match=words):
        selective_scan_step(**given | change)
