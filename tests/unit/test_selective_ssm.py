"""The mechanism selective_ssm beyond the checks of all mechanisms: padding anywhere, prefixes, states, widths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from core_attention import MechanismError, build
from core_attention.mechanisms.selective_ssm import SelectiveSSM, SelectiveState

DIM = 12


def _mixer(causal: bool, dtype: torch.dtype = torch.float32, **options: Any) -> SelectiveSSM:
    """A mixer with weights far from where they start, so that a direction or a term left out shows."""
    torch.manual_seed(0)
    mixer = SelectiveSSM(DIM, causal=causal, state=4, **options)
    with torch.no_grad():
        for p in mixer.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return mixer.to(dtype)


def _tokens(rows: int, length: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(rows, length, DIM, generator=torch.Generator().manual_seed(seed)).to(dtype)


MASKS = {
    "right": [[1] * 6 + [0] * 5, [1] * 11],
    "left": [[0] * 4 + [1] * 7, [0] * 10 + [1]],
    "holes": [[1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0], [0, 0, 1, 0, 1, 0, 0, 1, 1, 1, 1]],
    "shorter than the convolution": [[0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0], [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]],
}


def _compacted(mixer: SelectiveSSM, x: Tensor, mask: Tensor) -> Tensor:
    """What each row's valid tokens alone give, put back to where they stand; zeros elsewhere."""
    expected = torch.zeros_like(x)
    for row, kept in enumerate(mask):
        expected[row, kept] = mixer(x[row, kept].unsqueeze(0)).y[0]
    return expected


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kind", MASKS)
def test_padding_anywhere_equals_the_compacted_sequence(kind: str, causal: bool) -> None:
    mixer, x, mask = _mixer(causal), _tokens(2, 11), torch.tensor(MASKS[kind]).bool()
    found = mixer(x, mask=mask).y
    expected = _compacted(mixer, x, mask)
    torch.testing.assert_close(found[mask], expected[mask], rtol=0, atol=1e-5)
    if kind != "right" or not causal:  # there alone the mask changes nothing: what comes later is not seen
        assert (mixer(x).y[mask] - expected[mask]).abs().max() > 1e-3


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
def test_what_stands_in_the_padding_is_harmless(poison: float, causal: bool) -> None:
    mixer, x, mask = _mixer(causal), _tokens(2, 11), torch.tensor(MASKS["holes"]).bool()
    expected = mixer(x, mask=mask).y
    bad = x.masked_fill(~mask.unsqueeze(-1), poison).requires_grad_()
    found = mixer(bad, mask=mask).y
    assert torch.equal(found[mask], expected[mask])
    found[mask].square().sum().backward()
    assert bad.grad is not None
    assert not bad.grad[~mask].any()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in mixer.parameters())


@pytest.mark.parametrize("causal", [True, False])
def test_a_row_without_valid_tokens_leaves_the_others_alone(causal: bool) -> None:
    mixer, x = _mixer(causal), _tokens(2, 7)
    mask = torch.tensor([[False] * 7, [True] * 7])
    out = mixer(x, mask=mask)
    assert torch.isfinite(out.y).all()
    torch.testing.assert_close(out.y[1:], mixer(x[1:]).y, rtol=0, atol=1e-6)


def test_a_context_is_a_prefix() -> None:
    mixer, context, x = _mixer(causal=True), _tokens(2, 9, seed=2), _tokens(2, 6)
    joined = mixer(torch.cat([context, x], 1))
    found = mixer(x, context=context)
    torch.testing.assert_close(found.y, joined.y[:, 9:], rtol=0, atol=1e-5)
    assert isinstance(found.state, SelectiveState)
    torch.testing.assert_close(found.state.memory, joined.state.memory, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.state.inputs, joined.state.inputs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["right", "left", "holes", "shorter than the convolution"])
def test_a_padded_context_is_its_valid_tokens_in_front(kind: str) -> None:
    mixer, context, x = _mixer(causal=True), _tokens(2, 11, seed=2), _tokens(2, 6)
    context_mask, mask = torch.tensor(MASKS[kind]).bool(), torch.tensor([[1, 1, 1, 1, 0, 0], [0, 1, 1, 0, 1, 1]]).bool()
    poisoned = context.masked_fill(~context_mask.unsqueeze(-1), float("nan"))
    found = mixer(x, context=poisoned, context_mask=context_mask, mask=mask).y
    for row in range(2):
        prefix, own = context[row, context_mask[row]], x[row, mask[row]]
        expected = mixer(torch.cat([prefix, own]).unsqueeze(0)).y[0, len(prefix) :]
        torch.testing.assert_close(found[row, mask[row]], expected, rtol=0, atol=1e-5)


def test_a_context_reaches_only_the_forward_direction() -> None:
    """Without ``causal`` the backward scan begins at the last token of x and ends at its first."""
    mixer, context, x = _mixer(causal=False), _tokens(2, 9, seed=2), _tokens(2, 6)
    ahead = _mixer(causal=True)
    ahead.load_state_dict({k: v for k, v in mixer.state_dict().items() if not k.startswith("back.")})
    change = mixer(x, context=context).y - mixer(x).y
    torch.testing.assert_close(change, 0.5 * (ahead(x, context=context).y - ahead(x).y), rtol=0, atol=1e-5)
    assert change.abs().max() > 1e-3


@pytest.mark.parametrize("kind", MASKS)
def test_the_state_after_padded_input_is_that_of_the_valid_tokens(kind: str) -> None:
    mixer, x, mask = _mixer(causal=True), _tokens(2, 11), torch.tensor(MASKS[kind]).bool()
    after = mixer(x, mask=mask).state
    more = _tokens(2, 5, seed=3)
    found = mixer(more, state=after).y
    for row in range(2):
        alone = mixer(x[row, mask[row]].unsqueeze(0)).state
        torch.testing.assert_close(after.memory[row], alone.memory[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(after.inputs[row], alone.inputs[0], rtol=0, atol=1e-5)
        whole = torch.cat([x[row, mask[row]], more[row]]).unsqueeze(0)
        torch.testing.assert_close(found[row], mixer(whole).y[0, -5:], rtol=0, atol=1e-5)


def test_single_steps_under_a_mask() -> None:
    """Rows of a batch may pause: a padded token leaves the row's state as it was."""
    mixer, x = _mixer(causal=True), _tokens(2, 4)
    start = mixer(x).state
    paused = mixer(_tokens(2, 1, seed=5), state=start, mask=torch.tensor([[True], [False]])).state
    assert torch.equal(paused.memory[1], start.memory[1])
    assert torch.equal(paused.inputs[1], start.inputs[1])
    assert not torch.equal(paused.memory[0], start.memory[0])


@pytest.mark.parametrize("width", [1, 2, 5])
def test_pieces_equal_the_whole_for_other_widths(width: int) -> None:
    mixer, x = _mixer(causal=True, width=width), _tokens(2, 13)
    expected, state, pieces = mixer(x).y, None, []
    for piece in x.split([1, 1, 2, 5, 1, 3], dim=1):
        out = mixer(piece, state=state)
        pieces.append(out.y)
        state = out.state
    torch.testing.assert_close(torch.cat(pieces, 1), expected, rtol=0, atol=1e-5)


def test_uses_that_make_no_sense_are_refused() -> None:
    causal, both = _mixer(causal=True), _mixer(causal=False)
    x = _tokens(1, 4)
    state = causal(x).state
    with pytest.raises(MechanismError, match="one direction only; expected causal=True"):
        both(x, state=state)
    with pytest.raises(MechanismError, match="the state holds the context already"):
        causal(x, state=state, context=x)
    with pytest.raises(MechanismError, match="context_mask without context"):
        causal(x, context_mask=torch.ones(1, 4, dtype=torch.bool))
    for option in ("state", "width", "expand", "rank"):
        with pytest.raises(MechanismError, match=f"{option} is 0, expected at least 1"):
            build("selective_ssm", DIM, 1, **{option: 0})


@pytest.mark.parametrize("causal", [True, False])
def test_float64_is_kept_throughout(causal: bool) -> None:
    wide, narrow = _mixer(causal, torch.float64), _mixer(causal)
    x, mask = _tokens(2, 11, dtype=torch.float64), torch.tensor(MASKS["right"]).bool()
    out = wide(x, mask=mask)
    assert out.y.dtype == torch.float64
    assert out.state.memory.dtype == torch.float64
    gap = (out.y - narrow(x.float(), mask=mask).y.double())[mask].abs().max()
    assert 1e-9 < float(gap.detach()) < 1e-5  # float32 rounds, float64 does not follow it
    torch.testing.assert_close(out.y[mask], _compacted(wide, x, mask)[mask], rtol=0, atol=1e-13)


@pytest.mark.parametrize("causal", [True, False])
def test_autocast_keeps_steps_and_decay_wide_over_long_sequences(causal: bool) -> None:
    mixer, x = _mixer(causal), _tokens(1, 4000)
    with torch.no_grad():
        for direction in [mixer.ahead, *([] if mixer.back is None else [mixer.back])]:
            direction.dt_proj.bias.fill_(6.0)  # each step wipes the state out: exponents of -2,000 a second
            direction.A_log.copy_(torch.log(torch.tensor([1e-4, 1.0, 30.0, 100.0])).expand_as(direction.A_log))
    with torch.autocast("cpu", torch.bfloat16):
        out = mixer(x)
    out.y.float().square().mean().backward()
    assert torch.isfinite(out.y).all()
    assert out.state.memory.dtype == torch.float32
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in mixer.parameters())
    with torch.no_grad():
        expected = mixer(x).y
    assert (out.y.float() - expected).square().mean().sqrt() < 0.03 * expected.square().mean().sqrt()


def test_decay_rates_are_not_rounded_to_half_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of 1e-3 times a rate that differs in the ninth bit: bfloat16 would lose both."""
    seen: dict[str, Tensor] = {}

    def scan(u: Tensor, delta: Tensor, A: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        seen.update(A=A, bias=rest[4])
        return torch.zeros_like(u), torch.zeros(*u.shape[:2], A.shape[1])

    monkeypatch.setattr("core_attention.mechanisms.selective_ssm.selective_scan", scan)
    mixer = _mixer(causal=True)
    for half in (mixer, _mixer(causal=True).bfloat16()):
        with torch.autocast("cpu", torch.bfloat16):
            half(_tokens(1, 5).to(half.in_proj.weight.dtype))
        assert seen["A"].dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        mixer(_tokens(1, 5))
    assert torch.equal(seen["A"], -torch.exp(mixer.ahead.A_log))
    assert seen["bias"] is mixer.ahead.dt_proj.bias
