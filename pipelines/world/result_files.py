"""Rollouts as files: NPZ, films and strips, of several episodes one each; every file whole or not there.

An NPZ file holds plain arrays (no pickles): ``prediction`` (h, H, W, C), ``context`` (K, H, W, C) and where they are
known ``truth`` (n, H, W, C) and ``actions``; ``about`` says in JSON what each of them is, in which unit, and of which
model. The arrays of several episodes are called ``0/prediction``, ``1/prediction``, ...
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ConfigError
from pipelines.files import Content, atomic_write_all
from pipelines.values import to_json
from pipelines.world.rollouts import RolloutEpisode, pieces, pixels_of

__all__ = ["FORMAT", "KINDS", "Kept", "about", "npz_content", "numbered", "strip_content", "write_all"]

FORMAT = "attention-pipelines rollouts 1"
Kept = Literal["float16", "float32", "uint8"]
#: How predictions can be kept: half precision loses less than half of 1/1000 of the range, uint8 half of 1/255.
KINDS: tuple[Kept, ...] = ("float16", "float32", "uint8")
_STAMP = (1980, 1, 1, 0, 0, 0)  # so that the same rollout gives the same bytes


def about(episode: RolloutEpisode, kept: Kept = "float16") -> dict[str, Any]:
    """What the numbers of an episode mean, as plain values.

    Example:
        >>> frames = np.zeros((2, 4, 6, 3), np.uint8)
        >>> told = about(RolloutEpisode("a", frames, frames, fps=10.0))
        >>> told["horizon"], told["arrays"]["prediction"]
        (2, '(h, H, W, C) = (2, 4, 6, 3) float16, values in [0, 1]: the frames predicted after the context')
    """
    told = {
        "name": episode.name,
        "start": episode.start,
        "context": episode.seen,
        "horizon": episode.horizon,
        "known": episode.known,
        "fps": episode.fps,
        "size": list(episode.frame),
        "action_names": list(episode.action_names),
        "notes": list(episode.notes),
    }
    words = {
        "context": "the frames that were seen",
        "prediction": "the frames predicted after the context",
        "truth": "the frames that came after the context",
    }
    arrays = {
        what: f"({'K' if what == 'context' else 'h' if what == 'prediction' else 'n'}, H, W, C) = "
        f"{tuple(int(size) for size in getattr(episode, what).shape)} {kind}, {_unit(kind)}: {text}"
        for what, text in words.items()
        if getattr(episode, what) is not None
        for kind in [_kind(episode, what, kept)]
    }
    if episode.actions is not None:
        shape = f"(T, A) = {episode.actions.shape} {episode.actions.dtype}"
        arrays["actions"] = f"{shape}: row t leads from frame t to t + 1, frame 0 being the context's first"
    return told | {"arrays": arrays}


def _unit(kind: str) -> str:
    return "values 0 to 255" if kind == "uint8" else "values in [0, 1]"


def _kind(episode: RolloutEpisode, what: str, kept: Kept) -> str:
    """Predictions as asked for; what was recorded stays uint8, as it was, and other frames of floats are as asked."""
    held = getattr(getattr(episode, what), "dtype", np.dtype(np.uint8))  # frames that are read by range are uint8
    return "uint8" if what != "prediction" and held == np.uint8 else kept


def npz_content(
    episodes: Sequence[RolloutEpisode],
    told: Mapping[str, Any],
    kept: Kept = "float16",
    progress: Callable[[RolloutEpisode], object] | None = None,
) -> Content:
    """An NPZ file of one or several rollouts, compressed, written piece by piece.

    Args:
        episodes: one or several; of several every name is led by the episode's number and a slash.
        told: what holds for all, kept in `about`.
        kept: how predictions are kept.
        progress: hears of every episode that is written.

    Raises:
        ConfigError: another way to keep them.

    Complexity: O(pixels) time; a piece of 2 million values in memory, however long the rollout is.

    Example:
        >>> import io
        >>> frames, out = np.full((2, 4, 4, 1), 0.5, np.float32), io.BytesIO()
        >>> npz_content([RolloutEpisode("a", frames, frames)], {"model": "copy"}, "uint8")(out)
        >>> _ = out.seek(0)
        >>> with np.load(out) as held:
        ...     sorted(held.files), held["prediction"].dtype.name, int(held["prediction"].max())
        (['about', 'context', 'format', 'prediction'], 'uint8', 128)
    """
    if kept not in KINDS:
        raise ConfigError("predictions are not kept so", where="kept", found=kept, expected=", ".join(KINDS))
    inside = {**told, "episodes": [about(one, kept) for one in episodes]}

    def write(handle: BinaryIO) -> None:
        with zipfile.ZipFile(handle, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:
            _put(archive, "format", np.array(FORMAT))
            _put(archive, "about", np.array(to_json(inside)))
            for number, one in enumerate(episodes):
                lead = f"{number}/" if len(episodes) > 1 else ""
                for what in ("prediction", "truth", "context"):
                    if getattr(one, what) is not None:
                        _put_frames(archive, lead + what, one, what, np.dtype(_kind(one, what, kept)))
                if one.actions is not None:
                    _put(archive, f"{lead}actions", one.actions)
                if progress is not None:
                    progress(one)

    return write


@contextlib.contextmanager
def _member(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[Any]:
    info = zipfile.ZipInfo(f"{name}.npy", _STAMP)
    info.compress_type = zipfile.ZIP_DEFLATED
    with archive.open(info, "w", force_zip64=True) as file:
        head = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, head)
        yield file


def _put(archive: zipfile.ZipFile, name: str, values: NDArray[Any]) -> None:
    with _member(archive, name, values.shape, values.dtype) as file:
        file.write(np.ascontiguousarray(values).tobytes())


def _put_frames(archive: zipfile.ZipFile, name: str, episode: RolloutEpisode, what: str, dtype: np.dtype[Any]) -> None:
    shape = tuple(int(size) for size in getattr(episode, what).shape)
    with _member(archive, name, shape, dtype) as file:
        for start, stop in pieces(shape[0], math.prod(shape[1:])):
            held = episode.read(what, start, stop)
            values = pixels_of(held) if dtype == np.uint8 else episode.values(start, stop, what).astype(dtype)
            file.write(np.ascontiguousarray(values).tobytes())


def strip_content(episode: RolloutEpisode, model: str, scale: float) -> Content:
    """A PNG of an episode's strip, each pixel of small frames a square of whole pixels."""

    def write(handle: BinaryIO) -> None:
        from pipelines.evaluation.plots import to_png_bytes
        from pipelines.world.strips import strip_figure

        handle.write(to_png_bytes(strip_figure(episode, model=model, scale=scale)))

    return write


def numbered(path: Path, episodes: Sequence[RolloutEpisode]) -> list[Path]:
    """The path for one episode; for several the episode's name before the ending, each name once.

    Example:
        >>> frames = np.zeros((1, 2, 2, 1), np.uint8)
        >>> episodes = [RolloutEpisode(name, frames, frames) for name in ("a/b c.avi", "a/b c.avi", "d")]
        >>> [str(name) for name in numbered(Path("out/x.gif"), episodes)]
        ['out/x-b-c.avi.gif', 'out/x-b-c.avi-2.gif', 'out/x-d.gif']
    """
    if len(episodes) == 1:
        return [path]
    names: list[Path] = []
    for episode in episodes:
        # \w holds letters of every script, but nothing that means something in a path.
        word = re.sub(r"[^\w.+-]+", "-", re.split(r"[/\\]", episode.name)[-1]).strip("-.")[:80] or "episode"
        name, number = path.with_name(f"{path.stem}-{word}{path.suffix}"), 1
        while name in names:
            number += 1
            name = path.with_name(f"{path.stem}-{word}-{number}{path.suffix}")
        names.append(name)
    return names


def write_all(contents: Mapping[Path, Content]) -> list[Path]:
    """Write files that belong together, all or none; a folder that was made for them goes with them.

    Raises:
        RunError: the disk is full or not writable; every file that was there before is as it was.
    """
    made = [folder for folder in {path.parent for path in contents} if not folder.exists()]
    try:
        return atomic_write_all({**contents})
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):  # it was never made, or holds something of somebody else
                os.rmdir(folder)
        raise
