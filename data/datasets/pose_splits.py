"""Splits of clips by subject or kind of motion, and whether two parts share frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pipelines.data.datasets.brain_splits import hold_out
from pipelines.data.datasets.brain_walk import natural
from pipelines.data.datasets.pose_types import Clip
from pipelines.data.errors import InputError

__all__ = ["BY", "Grouping", "group_of", "hold_out_clips", "shared_frames", "split_clips"]

Grouping = Literal["subject", "action", "clip"]
BY: tuple[Grouping, ...] = ("subject", "action", "clip")


def group_of(clip: Clip, by: Grouping) -> str:
    """What a clip must stay together with; of an action the first word counts: `Walking 1` is `Walking`.

    Raises:
        InputError: the subject or action is not known; no such grouping.

    Source: practice on Human3.6M, where an action was recorded twice a subject.

    Example:
        >>> import numpy as np
        >>> from pipelines.data.datasets.pose_skeletons import skeleton
        >>> clip = Clip.of("a", np.zeros((1, 17, 3)), skeleton("h36m17"), subject="S9", action="Walking 1")
        >>> [group_of(clip, by) for by in BY]
        ['S9', 'Walking', 'a']
    """
    if by not in BY:
        raise InputError("no such grouping", where="by", found=repr(by), expected=", ".join(BY))
    group = clip.name if by == "clip" else clip.subject if by == "subject" else (clip.action.split() or [""])[0]
    if not group:
        raise InputError(f"the {by} of a clip is not known", where=clip.name, expected=f"a {by}", cure="split by clip")
    return group


def split_clips(
    clips: Sequence[Clip], test: Sequence[str], by: Grouping = "subject"
) -> tuple[list[Clip], list[Clip], tuple[str, ...]]:
    """Clips of all other groups, clips of the named groups, and notes that count both.

    Args:
        clips: in any order, which is kept.
        test: the groups to take out.
        by: `subject`, `action` or `clip`.

    Raises:
        InputError: a group that no clip has, nothing left on one side.

    Complexity: O(clips), and one pass over the frames to look for shared ones.

    Example:
        >>> import numpy as np
        >>> from pipelines.data.datasets.pose_skeletons import skeleton
        >>> numbers = np.random.default_rng(0).normal(size=(3, 2, 17, 3))
        >>> clips = [Clip.of(f"c{n}", numbers[n], skeleton("h36m17"), subject=s) for n, s in enumerate("abc")]
        >>> rest, test, notes = split_clips(clips, ["b"])
        >>> [clip.name for clip in rest], [clip.name for clip in test], notes
        (['c0', 'c2'], ['c1'], ('by subject: 2 clips, 4 frames (a, c); 1 clip, 2 frames held out (b)',))
    """
    groups = [group_of(clip, by) for clip in clips]
    unknown = sorted(set(test) - set(groups), key=natural)
    if unknown or not test:
        expected = ", ".join(sorted(set(groups), key=natural)) or "clips"
        raise InputError(f"no such {by}", where="split", found=", ".join(unknown) or "none", expected=expected)
    held = [group in test for group in groups]
    return _parts(clips, groups, held, by)


def hold_out_clips(
    clips: Sequence[Clip], share: float, seed: int, by: Grouping = "clip"
) -> tuple[list[Clip], list[Clip], tuple[str, ...]]:
    """Clips that stay and clips that are held out at random, by whole groups, about a share of the clips; with notes.

    Raises:
        InputError: a share that is none, one group only.

    Complexity: O(clips log clips + frames).

    Example:
        >>> import numpy as np
        >>> from pipelines.data.datasets.pose_skeletons import skeleton
        >>> numbers = np.random.default_rng(0).normal(size=(5, 2, 17, 3))
        >>> clips = [Clip.of(f"c{n}", numbers[n], skeleton("h36m17")) for n in range(5)]
        >>> rest, held, _ = hold_out_clips(clips, 0.2, seed=0)
        >>> len(rest), len(held)
        (4, 1)
    """
    groups = [group_of(clip, by) for clip in clips]
    return _parts(clips, groups, hold_out(groups, share, seed).tolist(), by)


def _parts(
    clips: Sequence[Clip], groups: Sequence[str], held: Sequence[bool], by: Grouping
) -> tuple[list[Clip], list[Clip], tuple[str, ...]]:
    rest = [clip for clip, out in zip(clips, held, strict=True) if not out]
    test = [clip for clip, out in zip(clips, held, strict=True) if out]
    if not rest:
        found, expected = f"all {len(clips)} clips held out", f"another {by} to train on"
        raise InputError("nothing is left", where="split", found=found, expected=expected)

    def words(part: list[Clip], out: bool) -> str:
        names = sorted({group for group, one in zip(groups, held, strict=True) if one == out}, key=natural)
        short = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        frames = sum(clip.frames for clip in part)
        kept = f"{len(part)} clip{'' if len(part) == 1 else 's'}, {frames:,} frames{' held out' if out else ''}"
        return kept + (f" ({short})" if names else "")

    notes = [f"by {by}: {words(rest, False)}; {words(test, True)}"]
    both = shared_frames(rest, test)
    if both:
        notes.append(f"{both} held out frames are also in the other part")
    return rest, test, tuple(notes)


def shared_frames(one: Sequence[Clip], other: Sequence[Clip]) -> int:
    """How many frames of the second part are, number for number, in the first as well: copies under other names.

    Complexity: O(frames) time and memory (the frames of the first part again).

    Example:
        >>> import numpy as np
        >>> from pipelines.data.datasets.pose_skeletons import skeleton
        >>> clip = Clip.of("a", np.random.default_rng(0).normal(size=(4, 17, 3)), skeleton("h36m17"))
        >>> shared_frames([clip], [clip.but(points=clip.points[1:], valid=clip.valid[1:], name="b")])
        3
    """
    # A frame without any joint says nothing about copies.
    known = {
        frame.tobytes() for clip in one for frame, there in zip(clip.points, clip.valid, strict=True) if there.any()
    }
    return sum(
        frame.tobytes() in known
        for clip in other
        for frame, there in zip(clip.points, clip.valid, strict=True)
        if there.any()
    )
