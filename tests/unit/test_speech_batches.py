"""Batches by seconds: every utterance once, the budget kept, as many batches every epoch, ranks that add up."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.datasets.speech_batches import distribute, padding_share, plan_batches
from pipelines.data.errors import InputError

LENGTHS = st.lists(st.floats(0.1, 40.0), max_size=80)
SEEDS = st.integers(0, 2**31)


@given(LENGTHS, st.floats(0.5, 100.0), st.integers(1, 20), SEEDS, st.integers(0, 9), st.floats(0, 0.5), st.booleans())
def test_every_utterance_once_and_the_budget_kept(
    seconds: list[float], budget: float, most: int, seed: int, epoch: int, jitter: float, shuffle: bool
) -> None:
    batches = plan_batches(seconds, budget=budget, most=most, seed=seed, epoch=epoch, jitter=jitter, shuffle=shuffle)
    assert sorted(index for batch in batches for index in batch) == list(range(len(seconds)))
    for batch in batches:
        assert 1 <= len(batch) <= most
        assert len(batch) == 1 or len(batch) * max(seconds[i] for i in batch) <= budget * (1 + 1e-9)


@given(LENGTHS, st.floats(0.5, 100.0), SEEDS)
def test_all_epochs_have_equally_many_batches(seconds: list[float], budget: float, seed: int) -> None:
    counts = {len(plan_batches(seconds, budget=budget, most=9, seed=seed, epoch=epoch)) for epoch in range(5)}
    assert len(counts) == 1


def test_epochs_and_seeds_differ_and_the_same_epoch_does_not() -> None:
    seconds = [1 + 0.1 * n for n in range(60)]
    plans = [plan_batches(seconds, budget=20, most=8, seed=s, epoch=e) for s, e in ((0, 1), (0, 2), (1, 1), (0, 1))]
    assert plans[0] == plans[3]
    assert plans[0] != plans[1] != plans[2] != plans[0]
    groups = [{frozenset(batch) for batch in plan} for plan in plans]
    assert groups[0] != groups[1], "other epochs mix the batches, not only their order"


def test_equal_lengths_are_mixed_too() -> None:
    plans = [plan_batches([2.0] * 40, budget=16, most=8, seed=0, epoch=epoch, jitter=0.0) for epoch in range(2)]
    assert {frozenset(batch) for batch in plans[0]} != {frozenset(batch) for batch in plans[1]}


def test_similar_lengths_stand_together() -> None:
    """Padding is far below what batches of random utterances would have."""
    seconds = [0.5 + 0.05 * ((37 * n) % 200) for n in range(200)]
    planned = padding_share(seconds, plan_batches(seconds, budget=60, most=64, seed=0))
    at_random = padding_share(seconds, [list(range(n, n + 10)) for n in range(0, 200, 10)])
    assert planned < 0.1 < 0.3 < at_random


def test_few_batches_are_wasted() -> None:
    """At most as many as the budget needs, jitter and the ends of the batches included."""
    seconds = [2.0 + 0.01 * n for n in range(300)]
    batches = plan_batches(seconds, budget=100, most=1000, seed=0)
    assert len(batches) <= math.ceil(sum(seconds) / 100 * 1.25)


@given(st.lists(st.lists(st.integers(), min_size=1, max_size=9), max_size=9), st.integers(1, 5))
def test_over_all_ranks_each_counts_once(batches: list[list[int]], world: int) -> None:
    shares = [distribute(batches, rank, world) for rank in range(world)]
    assert all(len(one) == len(batches) for one in shares), "every rank takes part in every step"
    for number, batch in enumerate(batches):
        counted = Counter(index for one in shares for index in one[number][0] if one[number][1] == 1.0)
        assert counted == Counter(batch)
        assert all(one[number][0] and one[number][1] in (0.0, 1.0) for one in shares)


@pytest.mark.parametrize(
    ("seconds", "budget", "most", "words"),
    [
        ([1.0, 0.0], 9.0, 4, "0.0 at 1"),
        ([math.nan], 9.0, 4, "no length"),
        ([1.0], 0.0, 4, "budget"),
        ([1.0], math.inf, 4, "budget"),
        ([1.0], 9.0, 0, "most"),
    ],
)
def test_refusals(seconds: list[float], budget: float, most: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan_batches(seconds, budget=budget, most=most)


def test_other_refusals() -> None:
    with pytest.raises(InputError, match="jitter"):
        plan_batches([1.0], budget=1, most=1, jitter=1.0)
    with pytest.raises(InputError, match="rank"):
        distribute([[1]], 2, 2)
    with pytest.raises(InputError, match="empty"):
        distribute([[]], 0, 2)
