"""Windows are all counted, parts of a split share no frame, and embargoes hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.datasets.world_types import ArrayFrames, Episode
from pipelines.data.datasets.world_windows import (
    Window,
    Windows,
    copied_frames,
    cut_episode,
    group_of,
    is_still,
    overlap,
    split_episodes,
    split_time,
    windows,
)
from pipelines.data.errors import InputError


def numbered(frames: int, name: str = "e", actions: int | None = None) -> Episode:
    """An episode whose frame t has the value t, whose action t is t, whose state is 10 t and whose reward is 100 t."""
    pixels = np.arange(frames, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    steps = np.arange(frames - 1 if actions is None else actions, dtype=np.float32)[:, None]
    states = 10 * np.arange(frames, dtype=np.float32)[:, None]
    rewards = 100 * np.arange(frames - 1, dtype=np.float32)
    return Episode(name, ArrayFrames(pixels), 10.0, steps, states, rewards)


def shown(frames: np.ndarray) -> list[int]:
    return frames[:, 0, 0, 0].tolist()


def by_hand(lengths: list[int], length: int, stride: int) -> list[tuple[int, int]]:
    return [
        (number, start)
        for number, frames in enumerate(lengths)
        for start in range(frames)
        if start % stride == 0 and start + length <= frames
    ]


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=6),
    st.integers(1, 5),
    st.integers(1, 8),
    st.integers(1, 12),
)
@settings(max_examples=150, deadline=None)
def test_all_windows_are_there_and_every_frame_is_counted(
    lengths: list[int], context: int, horizon: int, stride: int
) -> None:
    episodes = [numbered(length, f"e{place}") for place, length in enumerate(lengths)]
    expected = by_hand(lengths, context + horizon, stride)
    if not expected:
        with pytest.raises(InputError, match="no episode is as long as a window"):
            windows(episodes, context, horizon, stride)
        return
    held = windows(episodes, context, horizon, stride)
    assert [tuple(place) for place in held.places.tolist()] == expected
    assert held.notes[0].startswith(f"{len(expected)} window")
    covered = {(number, start + k) for number, start in expected for k in range(context + horizon)}
    long = [number for number, length in enumerate(lengths) if length >= context + horizon]
    left = sum(lengths[number] for number in long) - len(covered)
    said = next((note for note in held.notes if "in no window" in note), None)
    assert (said is None) == (left == 0)
    if said is not None:
        assert said.split()[0] == str(left)
    short = len(lengths) - len(long)
    assert any(note.startswith(f"{short} episode") for note in held.notes[1:]) == (short > 0)


def test_a_window_holds_the_actions_between_its_frames() -> None:
    window = Window(numbered(20), start=5, context=2, horizon=3)
    assert shown(window.frames()) == [5, 6, 7, 8, 9]
    actions, states, rewards = window.actions(), window.states(), window.rewards()
    assert actions is not None
    assert actions.ravel().tolist() == [5, 6, 7, 8]  # the action of frame 9 leads out of the window
    assert states is not None
    assert states.ravel().tolist() == [50, 60, 70, 80, 90]
    assert rewards is not None
    assert rewards.tolist() == [500, 600, 700, 800]


@pytest.mark.parametrize("actions", [19, 20])
def test_the_last_window_has_all_its_actions(actions: int) -> None:
    held = windows([numbered(20, actions=actions)], 2, 3)
    own = held[len(held) - 1].actions()
    assert own is not None
    assert own.ravel().tolist() == [15, 16, 17, 18]


def test_batches_are_the_windows_in_the_order_asked_for() -> None:
    held = windows([numbered(9, "a"), numbered(12, "b")], 2, 3, stride=2)
    batch = held.take([4, 0])
    assert [shown(frames) for frames in batch.frames] == [shown(held[row].frames()) for row in (4, 0)]
    assert (batch.seen.shape, batch.future.shape) == ((2, 2, 4, 4, 1), (2, 3, 4, 4, 1))
    assert batch.actions is not None
    assert batch.actions.shape == (2, 4, 1)
    order = np.random.default_rng(0).permutation(len(held))
    rows = np.concatenate([one.rows for one in held.batches(3, order)])
    assert rows.tolist() == order.tolist()
    assert [window.start for window in held[1:3]] == [held[1].start, held[2].start]
    with pytest.raises(IndexError):
        held[len(held)]


def test_actions_are_left_out_where_not_every_episode_has_them() -> None:
    bare = Episode("bare", ArrayFrames(np.zeros((9, 4, 4, 1), np.uint8)), None)
    held = windows([numbered(9), bare], 2, 3)
    assert held.take([0]).actions is not None
    assert held.take([0, len(held) - 1]).actions is None


def test_frames_of_different_sizes_are_refused() -> None:
    wide = Episode("wide", ArrayFrames(np.zeros((9, 4, 5, 1), np.uint8)), None)
    held = windows([numbered(9), wide], 2, 3)
    with pytest.raises(InputError, match=r"frames of one size.*\(4, 4, 1\), \(4, 5, 1\)"):
        held.take([0, len(held) - 1])


@pytest.mark.parametrize(("context", "horizon", "stride"), [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1, -3, 1)])
def test_a_horizon_of_zero_and_the_like_are_refused(context: int, horizon: int, stride: int) -> None:
    with pytest.raises(InputError, match=r"^(context|horizon|stride): no such (context|horizon|stride)"):
        windows([numbered(9)], context, horizon, stride)


# Splits


@given(st.integers(2, 60), st.floats(0.05, 0.95), st.integers(0, 12), st.integers(1, 3), st.integers(1, 6))
@settings(max_examples=200, deadline=None)
def test_a_split_in_time_leaks_nothing(frames: int, share: float, gap: int, context: int, horizon: int) -> None:
    episode = numbered(frames)
    try:
        early, late = split_time(episode, share, gap)
    except InputError as error:
        assert "too short to be divided" in str(error)  # noqa: PT017
        border = frames - round(share * frames)
        assert border - gap < 1 or border >= frames
        return
    first, second = (shown(part.frames.read(0, len(part))) for part in (early, late))
    assert first == list(range(len(first)))
    assert second == list(range(frames - len(second), frames))
    assert frames - len(first) - len(second) == gap
    assert len(second) == round(share * frames)
    for part, own in ((early, first), (late, second)):
        assert part.actions is not None
        assert part.actions.ravel().tolist() == own[:-1]  # no action leads out of a part
        assert part.states is not None
        assert part.states.ravel().tolist() == [10 * value for value in own]
    if min(len(first), len(second)) < context + horizon:
        return
    train, test = windows([early], context, horizon), windows([late], context, horizon)
    seen = {value for window in train for value in shown(window.frames())}
    assert not seen & {value for window in test for value in shown(window.frames())}
    assert overlap(train, test) == 0


def test_the_test_for_leaks_sees_one() -> None:
    """Parts by hand that share frames 10 and 11, the second a part of a part."""
    episode = numbered(20)
    early, late = cut_episode(episode, 0, 12), cut_episode(cut_episode(episode, 5, 20), 5, 15)
    assert shown(late.frames.read(0, 2)) == [10, 11]
    assert overlap(windows([early], 2, 2), windows([late], 2, 2)) == 2
    assert overlap(windows([early], 2, 2), windows([numbered(20)], 2, 2)) == 0  # another source


def test_embargo_is_said() -> None:
    early, late = split_time(numbered(20), 0.2, gap=3)
    assert (
        early.notes
        == late.notes
        == ("e: frames 0 to 12 of 20 to learn from, 3 between unused, 16 to 19 to measure on",)
    )


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_shares_that_are_none_are_refused(share: float) -> None:
    with pytest.raises(InputError, match="no such share"):
        split_time(numbered(20), share)
    with pytest.raises(InputError, match="no such share"):
        split_episodes([numbered(20, "a"), numbered(20, "b")], share)
    with pytest.raises(InputError, match="no such gap"):
        split_time(numbered(20), 0.2, gap=-1)


def test_clips_of_one_film_stay_together() -> None:
    clips = [numbered(5, f"Archery/v_Archery_g{g:02}_c{c:02}") for g in range(1, 9) for c in range(1, 5)]
    for seed in range(20):
        split = split_episodes(clips, 0.25, seed=seed)
        train, test = ({group_of(one) for one in part} for part in (split.train, split.test))
        assert not train & test
        assert len(split.train) + len(split.test) == len(clips)
        assert len(split.test) == 8
        assert split.notes[1] == "clips cut from one film were kept together"
    again = split_episodes(clips, 0.25, seed=3), split_episodes(clips[::-1], 0.25, seed=3)
    assert {one.name for one in again[0].test} == {one.name for one in again[1].test}


def test_one_episode_is_split_in_time_and_several_by_episode() -> None:
    split = split_episodes([numbered(20)], 0.2, gap=2)
    assert [len(one) for one in (*split.train, *split.test)] == [14, 4]
    both = split_episodes([numbered(20, "a"), numbered(10, "b")], 0.5, by="time")
    assert [len(one) for one in (*both.train, *both.test)] == [10, 5, 10, 5]
    whole = split_episodes([numbered(20, "a"), numbered(10, "b")], 0.5)
    assert len(whole.train) == len(whole.test) == 1
    with pytest.raises(InputError, match="no episode to divide"):
        split_episodes([], 0.5)


# Copies and stillness


def test_copies_under_other_names_are_found() -> None:
    first = numbered(200)
    copy = Episode("copy", ArrayFrames(first.frames.read(150, 200)), None)
    assert copied_frames([first], [copy]) == 50
    assert copied_frames([first], [Episode("x", ArrayFrames(np.full((9, 4, 4, 1), 250, np.uint8)), None)]) == 0


@pytest.mark.parametrize("place", [1, 2, 63, 64, 65, 129, 199])
def test_one_pixel_that_moves_is_seen_wherever_it_is(place: int) -> None:
    pixels = np.full((200, 4, 4, 3), 100, np.uint8)
    assert is_still(Episode("e", ArrayFrames(pixels), None))
    pixels[place, 3, 2, 1] = 97
    episode = Episode("e", ArrayFrames(pixels), None)
    assert not is_still(episode)
    assert not is_still(episode, tolerance=2)
    assert is_still(episode, tolerance=3)


def test_stillness_is_known_from_the_first_frame_that_differs() -> None:
    read: list[int] = []

    class Watched(ArrayFrames):
        def read(self, start: int, stop: int) -> np.ndarray:
            read.append(stop)
            return super().read(start, stop)

    moving = numbered(250)
    assert not is_still(Episode("e", Watched(moving.frames.read(0, 250)), None))
    assert max(read) == 2


# Episodes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"actions": np.zeros((3, 2), np.float32)}, r"actions of shape \(3, 2\) for 9 frames.*8 or 9 rows"),
        ({"actions": np.zeros(8, np.float32)}, "two axes"),
        ({"states": np.zeros((8, 2), np.float32)}, "states do not fit"),
        ({"rewards": np.zeros(9, np.float32)}, "rewards do not fit"),
        ({"fps": 0.0}, "frame rate is not a positive number"),
        ({"fps": float("nan")}, "frame rate is not a positive number"),
        ({"action_names": ("a",)}, r"1 names, no columns"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict, words: str) -> None:
    held = {"fps": 10.0, **change}
    with pytest.raises(InputError, match=words):
        Episode("e", ArrayFrames(np.zeros((9, 4, 4, 1), np.uint8)), **held)


def test_windows_is_a_sequence() -> None:
    held = windows([numbered(9)], 2, 3)
    assert isinstance(held, Windows)
    assert [window.start for window in held] == list(range(5))
    assert len(list(reversed(held))) == 5
