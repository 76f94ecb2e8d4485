"""Masked words and masked blocks: the draws, the losses by loops in float64, and where gradients go."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipelines.errors import ConfigError
from pipelines.match.models.pretraining import (
    PretrainingHeads,
    block_loss,
    mask_blocks,
    mask_words,
    pretraining_losses,
    word_loss,
)
from pipelines.match.models.smith import Smith, SmithConfig

SMALL: dict[str, Any] = {
    "block": 12,
    "blocks": 6,
    "sentence_layers": 1,
    "document_layers": 1,
    "dim": 16,
    "heads": 2,
    "hidden": 24,
    "sentence_positions": 12,
    "document_positions": 8,
    "dropout": 0.0,
}


def generator(seed: int = 0) -> torch.Generator:
    """A fresh source of draws."""
    return torch.Generator().manual_seed(seed)


def documents(counts: list[int], blocks: int, seed: int = 0) -> Tensor:
    """Ids (N, B, 12): [CLS], words, [SEP] [SEP], padding."""
    draws = generator(seed)
    ids = torch.zeros(len(counts), blocks, 12, dtype=torch.long)
    for n, count in enumerate(counts):
        for b in range(count):
            words = int(torch.randint(1, 10, (), generator=draws))
            ids[n, b, 1 : words + 1] = torch.randint(5, 40, (words,), generator=draws)
            ids[n, b, 0], ids[n, b, words + 1 : words + 3] = 2, 3
    return ids


def make(released: bool = False, **heads: Any) -> tuple[Smith, PretrainingHeads]:
    """A small model and its heads in float64, with parameters that matter."""
    torch.manual_seed(5)
    config = SmithConfig.as_released(40, **SMALL) if released else SmithConfig(40, **SMALL)
    model, head = Smith(config).double(), PretrainingHeads(config, **heads).double()
    for parameter in (*model.parameters(), *head.parameters()):
        nn.init.normal_(parameter, std=0.4)
    return model, head


def transformed(transform: Any, x: list[float]) -> list[float]:
    """LayerNorm(gelu(W x + b)) of one row, number by number; gelu by its tanh form."""
    w, b = transform.dense.weight.tolist(), transform.dense.bias.tolist()
    y = [sum(p * q for p, q in zip(row, x, strict=True)) + one for row, one in zip(w, b, strict=True)]
    y = [0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) for v in y]
    mean = sum(y) / len(y)
    std = math.sqrt(sum((v - mean) ** 2 for v in y) / len(y) + 1e-12)
    gain, shift = transform.norm.weight.tolist(), transform.norm.bias.tolist()
    return [(v - mean) / std * g + s for v, g, s in zip(y, gain, shift, strict=True)]


def cross_entropy(scores: list[float], right: int) -> float:
    """-log softmax at the right place, by a loop."""
    most = max(scores)
    return most + math.log(sum(math.exp(v - most) for v in scores)) - scores[right]


@pytest.mark.parametrize("released", [False, True])
def test_masked_block_loss_by_loops(released: bool) -> None:
    _, heads = make(block_bias=7)
    x, t = torch.randn(2, 7, 16, dtype=torch.float64, generator=generator())
    weights = torch.tensor([1.0, 0, 1, 1, 0, 1, 1]).double()
    columns = list(range(7)) if released else [k for k in range(7) if weights[k]]
    bias = heads.block_bias
    assert bias is not None
    total = 0.0
    for k in range(7):
        if weights[k]:
            row = transformed(heads.block_transform, x[k].tolist())
            scores = [
                sum(p * q for p, q in zip(row, t[c].tolist(), strict=True)) + bias[i].item()
                for i, c in enumerate(columns)
            ]
            total += cross_entropy(scores, columns.index(k))
    found = block_loss(heads, x, t, weights, released=released)
    assert found.item() == pytest.approx(total / (5 + 1e-5), rel=1e-10)


@pytest.mark.parametrize("grouped", [False, True])
def test_masked_word_loss_by_loops(grouped: bool) -> None:
    model, heads = make()
    table = model.sentences.word_embedding.weight
    hidden = torch.randn(6, 16, dtype=torch.float64, generator=generator())
    labels, group = torch.tensor([7, 9, 9, 12, 39, 5]), torch.tensor([0, 2, 0, 2, 2, 3])
    each = []
    for row, label in zip(hidden.tolist(), labels.tolist(), strict=True):
        x = transformed(heads.word_transform, row)
        scores = [sum(p * q for p, q in zip(x, word, strict=True)) for word in table.tolist()]
        each.append(cross_entropy([s + b for s, b in zip(scores, heads.word_bias.tolist(), strict=True)], label))
    if grouped:
        wanted = (each[0] + each[2]) / (2 + 1e-5) + (each[1] + each[3] + each[4]) / (3 + 1e-5) + each[5] / (1 + 1e-5)
    else:
        wanted = sum(each) / (6 + 1e-5)
    found = word_loss(heads, hidden, labels, table, group=group if grouped else None)
    assert found.item() == pytest.approx(wanted, rel=1e-10)


def test_many_words_give_the_same_loss_and_gradients_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    model, heads = make()
    hidden = torch.randn(50, 16, dtype=torch.float64, generator=generator(), requires_grad=True)
    labels, table = torch.arange(50) % 40, model.sentences.word_embedding.weight
    whole = word_loss(heads, hidden, labels, table)
    expected = torch.autograd.grad(whole, (hidden, table, heads.word_bias))
    monkeypatch.setattr("pipelines.match.models.pretraining._ROWS", 8)
    pieces = word_loss(heads, hidden, labels, table)
    assert pieces.item() == pytest.approx(whole.item(), rel=1e-12)
    for one, other in zip(torch.autograd.grad(pieces, (hidden, table, heads.word_bias)), expected, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


def test_words_are_picked_as_the_pre_processing_says() -> None:
    ids = documents([6] * 60, 6)
    masked = mask_words(ids, 4, 40, generator())
    for row, picked in zip(ids.flatten(0, 1).tolist(), masked.picked.flatten(0, 1), strict=True):
        size = sum(one != 0 for one in row)
        words = sum(one > 4 for one in row)
        assert int(picked.sum()) == min(words, 5, max(1, round(size * 0.15)))
        assert all(row[place] > 4 for place in picked.nonzero().flatten().tolist()), "no mark, no padding"
    assert torch.equal(masked.ids[~masked.picked], ids[~masked.picked])
    assert bool((masked.ids[masked.picked] > 0).all()), "padding would hide the token"
    assert int(mask_words(ids[0, :1].repeat(1, 1), 4, 40, generator(), share=1.0, most=5).picked.sum()) <= 5


def test_eight_of_ten_become_the_mask_one_any_word_one_stays() -> None:
    ids = torch.randint(5, 4000, (20_000, 30), generator=generator())
    masked = mask_words(ids, 4, 4000, generator(1))
    assert int(masked.picked.sum(1).min()) == int(masked.picked.sum(1).max()) == 4, "round(4.5) is 4, as in Python"
    now, before = masked.ids[masked.picked], ids[masked.picked]
    shares = [float((now == 4).double().mean()), float((now == before).double().mean())]
    assert shares == pytest.approx([0.8, 0.1], abs=0.006)
    places = masked.picked.double().mean(0)
    assert float(places.min()) > 0.12
    assert float(places.max()) < 0.15, "all places alike: 4 of 30"
    assert set(mask_words(ids, 4, 3, generator(1)).ids.unique().tolist()) == {1, 2, 4, *range(5, 4000)}, "never padding"
    assert int(mask_words(ids, 4, 4000, generator(1), share=0.01).picked.sum(1).min()) == 1, "one at least"
    again = mask_words(ids, 4, 4000, generator(1))
    assert torch.equal(again.ids, masked.ids)


def test_blocks_are_drawn_without_doubles_and_valid_ones_first() -> None:
    mask = (documents([6, 3, 1, 0], 6) != 0).any(-1)
    seen = torch.zeros(6)
    for seed in range(200):
        places, weights = mask_blocks(mask, 3, generator(seed))
        assert places.shape == (4, 3)
        assert all(row == sorted(set(row)) for row in places.tolist())
        assert weights.sum(1).tolist() == [3, 3, 1, 0]
        assert torch.equal(weights.bool(), mask.gather(1, places))
        seen[places[0]] += 1
    assert seen.min() > 60, "all blocks are drawn"
    assert mask_blocks(mask, 1, generator())[0].shape == (4, 2), "two at least"
    assert mask_blocks(mask[:, :1], 2, generator())[0].shape == (4, 1)
    drawn = torch.stack([mask_blocks(mask, 2, generator(seed), released=True)[1] for seed in range(300)]).mean(0).sum(1)
    assert drawn.tolist() == pytest.approx([2, 1, 1 / 3, 0], abs=0.15), "as released padding is drawn like blocks"


@pytest.mark.parametrize("released", [False, True])
def test_losses_are_those_of_their_parts(released: bool) -> None:
    """The whole step once more, from the public parts and the same draws."""
    model, heads = make(released)
    model.eval()
    ids = documents([6, 4, 2], 6)
    found = pretraining_losses(model, heads, ids, generator(7), masked_blocks=3)
    draws, mask = generator(7), (ids != 0).any(-1)
    flat = ids[mask]
    masked = mask_words(flat, 4, 40, draws)
    hidden = model.sentences.tokens(masked.ids, flat != 0)
    column = torch.arange(6).expand(3, 6)[mask].unsqueeze(1).expand_as(flat)
    words = word_loss(
        heads,
        hidden[masked.picked],
        flat[masked.picked],
        model.sentences.word_embedding.weight,
        group=column[masked.picked] if released else None,
    )
    assert found["words"].item() == pytest.approx(words.item(), rel=1e-12)
    padding = model.block_vectors(torch.zeros(1, 1, 12, dtype=torch.long))[0, 0]
    blocks = padding.repeat(3, 6, 1)
    blocks[mask] = model.sentences.pool(hidden, flat != 0)
    places, weights = mask_blocks(mask, 3, draws, released=released)
    hidden_blocks = blocks.clone()
    for n in range(3):
        for place in places[n].tolist():
            hidden_blocks[n, place] = heads.block_mask
    outputs = model.block_outputs(hidden_blocks, mask)
    rows = [(n, p) for n in range(3) for p in places[n].tolist()]
    x, t = (torch.stack([table[n, p] for n, p in rows]) for table in (outputs, blocks))
    expected = block_loss(heads, x, t, weights.flatten(), released=released)
    assert found["blocks"].item() == pytest.approx(expected.item(), rel=1e-12)


def test_gradients_reach_the_heads_and_the_blocks_that_are_sought() -> None:
    model, heads = make()
    losses = pretraining_losses(model, heads, documents([6, 5, 6], 6), generator(), masked_blocks=2)
    (losses["words"] + losses["blocks"]).backward()
    for name, parameter in heads.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.abs().sum() > 0), name
    x, t = torch.randn(2, 4, 16, dtype=torch.float64).requires_grad_().unbind()
    t.retain_grad()
    block_loss(heads, x, t, torch.ones(4).double()).backward()
    assert t.grad is not None
    assert bool((t.grad.abs().sum(1) > 0).all())


def test_padding_changes_no_loss() -> None:
    """The draws of words come block by block, those of blocks place by place: weights and answers stay the same."""
    model, heads = make()
    ids = documents([3, 3], 3)
    words = pretraining_losses(model, heads, ids, generator(), masked_blocks=0)
    wider = pretraining_losses(model, heads, nn.functional.pad(ids, (0, 0, 0, 4)), generator(), masked_blocks=0)
    assert set(words) == {"words"}
    assert wider["words"].item() == pytest.approx(words["words"].item(), rel=1e-12)
    x, t = torch.randn(2, 5, 16, dtype=torch.float64, generator=generator())
    weights = torch.tensor([1.0, 1, 0, 1, 0]).double()
    kept = weights.bool()
    plain = block_loss(heads, x[kept], t[kept], torch.ones(3).double())
    assert block_loss(heads, x, t, weights).item() == pytest.approx(plain.item(), rel=1e-12)


def test_nothing_to_learn_from_is_a_loss_of_zero() -> None:
    model, heads = make()
    losses = pretraining_losses(model, heads, torch.zeros(2, 3, 12, dtype=torch.long), generator())
    assert {name: one.item() for name, one in losses.items()} == {"words": 0.0, "blocks": 0.0}
    sum(losses.values(), torch.zeros(())).backward()
    lone = pretraining_losses(model, heads, documents([1], 3), generator())
    assert lone["blocks"].item() == pytest.approx(0.0, abs=1e-12), "one block has nothing to be told from"


def test_a_released_bias_with_too_few_entries_is_refused() -> None:
    model, heads = make(block_bias=3)
    with pytest.raises(ConfigError, match="more masked blocks than bias entries"):
        pretraining_losses(model, heads, documents([4, 4], 4), generator(), masked_blocks=2)


def test_both_losses_fall() -> None:
    torch.manual_seed(0)
    config = SmithConfig(40, **SMALL)
    model, heads = Smith(config), PretrainingHeads(config)
    ids = documents([6] * 6, 6)
    optimiser = torch.optim.AdamW([*model.parameters(), *heads.parameters()], lr=1e-2)
    history = []
    for step in range(130):
        losses = pretraining_losses(model, heads, ids, generator(step))
        optimiser.zero_grad()
        (losses["words"] + losses["blocks"]).backward()
        optimiser.step()
        history.append([losses["words"].item(), losses["blocks"].item()])
    first, last = torch.tensor(history[:8]).mean(0), torch.tensor(history[-8:]).mean(0)
    assert first[0] == pytest.approx(math.log(40), rel=0.2)
    assert last[0] < 0.85 * first[0]
    assert last[1] < 0.85 * first[1]
