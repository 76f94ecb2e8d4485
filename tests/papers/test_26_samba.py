"""Samba-ASR (arXiv 2501.02832) as read here: two directions, reversal of the valid part alone, the audio as a prefix.

The paper has no code and no equations for its parts. The oracle is the block that `test_26b_mamba.py` holds to the
released one; the two directions share the projections in and out and are averaged.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from core_attention.mechanisms.selective_ssm import SelectiveSSM
from pipelines.transcribe.models.layers import SambaLayer, build_mixer
from pipelines.transcribe.models.mamba import MambaBlock

DIM = 20


def _mixer(**options: Any) -> SelectiveSSM:
    """Weights far from where they start, so that neither direction can stand for the other."""
    torch.manual_seed(26)
    mixer = SelectiveSSM(DIM, **options)
    with torch.no_grad():
        for p in mixer.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return mixer


def _directions(mixer: SelectiveSSM) -> tuple[MambaBlock, MambaBlock]:
    """The forward and the backward direction as two released blocks."""
    state, blocks = mixer.state_dict(), []
    for direction in ("ahead", "back"):
        named = {key.removeprefix(f"{direction}."): value for key, value in state.items() if key.startswith(direction)}
        block = MambaBlock(DIM)
        block.load_state_dict({**named, **{key: state[key] for key in ("in_proj.weight", "out_proj.weight")}})
        blocks.append(block)
    return blocks[0], blocks[1]


def _tokens(rows: int, length: int, seed: int = 1) -> Tensor:
    return torch.randn(rows, length, DIM, generator=torch.Generator().manual_seed(seed))


def _close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_two_directions_are_two_released_blocks_averaged() -> None:
    mixer, x = _mixer(), _tokens(2, 31)
    ahead, back = _directions(mixer)
    _close(mixer(x).y, 0.5 * (ahead(x) + back(x.flip(1)).flip(1)))


def test_swapped_directions_answer_the_reversed_input_in_reverse() -> None:
    mixer, swapped, x = _mixer(), _mixer(), _tokens(2, 31)
    other = {"ahead": "back", "back": "ahead"}
    state = {}
    for key, value in mixer.state_dict().items():
        first, _, rest = key.partition(".")
        state[f"{other.get(first, first)}.{rest}"] = value
    swapped.load_state_dict(state)
    _close(swapped(x.flip(1)).y.flip(1), mixer(x).y)
    assert (mixer(x.flip(1)).y.flip(1) - mixer(x).y).abs().max() > 1e-2  # directions of different weights


@pytest.mark.parametrize("lengths", [(31, 1, 17), (30, 30, 2)])
def test_only_the_valid_part_is_reversed(lengths: tuple[int, ...]) -> None:
    """Reversing the padding along, as the analogue's code does, would make an answer depend on the batch."""
    mixer, x = _mixer(), _tokens(3, 31)
    mask = torch.arange(31) < torch.tensor(lengths).unsqueeze(1)
    ahead, back = _directions(mixer)
    batched = mixer(x, mask=mask).y
    for row, length in enumerate(lengths):
        alone = x[row : row + 1, :length]
        _close(batched[row : row + 1, :length], 0.5 * (ahead(alone) + back(alone.flip(1)).flip(1)))


def test_the_audio_is_a_prefix_of_the_text() -> None:
    """The cross-connection: scan [audio; text], keep the text; the audio's state serves every later token."""
    mixer, audio, text = _mixer(causal=True), _tokens(2, 40), _tokens(2, 7, seed=2)
    block = MambaBlock(DIM)
    block.ssm.load_state_dict(mixer.state_dict())
    expected = block(torch.cat([audio, text], 1))[:, 40:]
    _close(mixer(text, context=audio).y, expected)
    state, outputs = mixer(audio).state, []
    for token in text.unbind(1):
        out = mixer(token.unsqueeze(1), state=state)
        outputs.append(out.y)
        state = out.state
    _close(torch.cat(outputs, 1), expected)


def test_batches_of_audio_do_not_change_what_a_text_reads() -> None:
    mixer, audio, text = _mixer(causal=True), _tokens(3, 40), _tokens(3, 7, seed=2)
    lengths = (40, 3, 22)
    mask = torch.arange(40) < torch.tensor(lengths).unsqueeze(1)
    batched = mixer(text, context=audio, context_mask=mask).y
    for row, length in enumerate(lengths):
        one = slice(row, row + 1)
        _close(batched[one], mixer(text[one], context=audio[one, :length]).y)


def test_an_encoder_layer_adds_the_mixed_norm() -> None:
    torch.manual_seed(26)
    layer = SambaLayer(DIM, build_mixer("selective_ssm", DIM, 1, causal=False)).eval()
    assert isinstance(layer.mixer, SelectiveSSM)
    ahead, back = _directions(layer.mixer)
    x = _tokens(2, 31)
    centred = x - x.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    _close(layer(x, None, None)[0], x + 0.5 * (ahead(normed) + back(normed.flip(1)).flip(1)))


def test_both_directions_cost_one_block_and_a_second_scan() -> None:
    """Convolution, scan and steps are there twice, the projections in and out once."""
    with torch.device("meta"):
        one, both = SelectiveSSM(144, causal=True), SelectiveSSM(144)
        block = MambaBlock(144)
    count = {name: sum(p.numel() for p in m.parameters()) for name, m in (("one", one), ("both", both), ("b", block))}
    assert count["one"] == count["b"]
    direction = 288 * (4 + 1) + (9 + 32) * 288 + 9 * 288 + 288 + 288 * 16 + 288
    assert count["both"] - count["one"] == direction
    assert count["one"] == 3 * 288 * 144 + direction
