"""Episodes in HDF5: groups of them (robomimic, `episode_0/...`), flat arrays with marked ends (D4RL), or stacks."""

from __future__ import annotations

import math
import os
import pathlib
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.brain_walk import natural
from pipelines.data.errors import InputError
from pipelines.data.formats.cube_layout import known_fault, plain_text
from pipelines.data.formats.episodes_axes import Source
from pipelines.data.formats.episodes_roles import Draft, choose_frames, drafts_of, role_of

__all__ = ["Hdf5Source", "read_hdf5"]

_NUMBERED = re.compile(r"[^\d]*\d+")
_EPISODE = re.compile(r"(demo|ep|episode|traj|trajectory|seq|sequence|rollout|clip|video)[-_ ]?\d+", re.IGNORECASE)
_CAMERA = re.compile(r"(cam|view|image|img|obs|rgb|depth|sensor)", re.IGNORECASE)
_MOST_SETS = 500_000
_MOST_CHUNK = 1 << 30
_DENSEST = 2000  # filters shrink films and zeros, but no further than this


class Hdf5Source:
    """Numbers of a dataset that are read by ranges; the file is opened anew in every process and not pickled.

    Args:
        path: the file.
        key: path of the dataset in it.
        shape: lengths of its axes.
        dtype: of its numbers.
    """

    def __init__(self, path: pathlib.Path, key: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Keep where the numbers are; nothing is read."""
        self.path, self.key, self.shape, self.dtype = path, key, shape, dtype
        self._held: tuple[int, Any] | None = None

    def __getitem__(self, key: Any, /) -> NDArray[Any]:
        """A range along every axis.

        Raises:
            InputError: the file was moved or is damaged there.
        """
        try:
            return np.asarray(self._dataset()[key])
        except Exception as error:  # the library raises whatever a damaged node leads it to
            raise known_fault(error, f"{self.path.name}, {self.key}", "HDF5") from error

    def _dataset(self) -> Any:
        import h5py

        if self._held is None or self._held[0] != os.getpid():  # a handle must not be shared with a forked worker
            self._held = os.getpid(), h5py.File(self.path, "r")[self.key]
        return self._held[1]

    def __getstate__(self) -> dict[str, Any]:
        """All but the open file."""
        return {**self.__dict__, "_held": None}


def read_hdf5(
    path: pathlib.Path, *, key: str | None = None, layout: str | None = None, name: str | None = None
) -> list[Draft]:
    """The episodes of an HDF5 file, in natural order of their groups.

    Groups whose names end in a number and that hold frames are episodes; what lies in them is told by its names.
    Links out of the file are not followed.

    Args:
        path: the file.
        key: the frames: a path in the file, or the end of the path in every episode, such as `agentview_image`.
        layout: order of the axes of frames.
        name: what the episodes' names begin with; by default that of the file.

    Raises:
        InputError: not HDF5, cut or damaged; data outside the file; no frames or several arrays that may be frames.

    Complexity: O(datasets + values beside the frames); no frame is read, but where likeness tells the axes.

    Example:
        >>> import tempfile, h5py
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with h5py.File(f"{folder}/a.hdf5", "w") as file:
        ...         for name in ("demo_10", "demo_2"):
        ...             file[f"data/{name}/obs/image"] = np.zeros((5, 8, 8, 3), np.uint8)
        ...             file[f"data/{name}/actions"] = np.zeros((5, 2))
        ...     [(draft.name, draft.count) for draft in read_hdf5(pathlib.Path(folder, "a.hdf5"))]
        [('a/demo_2', 5), ('a/demo_10', 5)]
    """
    sources, rates = _datasets(path)
    if not sources:
        raise InputError("no arrays in the file", where=path.name, expected="frames (T, H, W, C) in HDF5")
    groups = _episodes(sources, key)
    if groups is None:
        drafts = drafts_of(sources, name or path.stem, path.name, key=key, layout=layout)
        return [_rated(draft, rates, "") for draft in drafts]
    chosen = key
    out: list[Draft] = []
    for prefix in sorted(groups, key=natural):
        where = f"{path.name}, {prefix}"
        own = groups[prefix]
        if chosen is None:
            chosen = choose_frames({called: one.shape for called, one in own.items()}, None, where)
        called = f"{name or path.stem}/{prefix.rsplit('/', 1)[-1]}"
        out += [_rated(draft, rates, prefix) for draft in drafts_of(own, called, where, key=chosen, layout=layout)]
    rest = len(sources) - sum(map(len, groups.values()))
    if rest:
        out[0].notes.append(f"{rest} arrays of {path.name} outside the episodes not read")
    return out


def _rated(draft: Draft, rates: dict[str, float], prefix: str) -> Draft:
    """The draft with the rate that an attribute of its group or of a group around it tells."""
    while draft.fps is None:
        if prefix in rates:
            draft.fps = rates[prefix]
        if not prefix:
            break
        prefix = prefix.rpartition("/")[0]
    return draft


def _datasets(path: pathlib.Path) -> tuple[dict[str, Source], dict[str, float]]:
    """Datasets of numbers or texts by their path, and frame rates by the path of their group."""
    import h5py

    sources: dict[str, Source] = {}
    rates: dict[str, float] = {}
    size = path.stat().st_size
    try:
        with h5py.File(path, "r") as file:

            def visit(name: str, node: Any) -> None:
                rate = next((node.attrs[one] for one in node.attrs if role_of(one) == "fps"), None)
                if rate is not None and np.size(rate) == 1 and np.asarray(rate).dtype.kind in "iuf":
                    value = float(np.ravel(rate)[0])
                    group = name if isinstance(node, h5py.Group) else name.rpartition("/")[0]
                    if 0 < value <= 1e5:
                        rates[group] = value
                if isinstance(node, h5py.Dataset) and node.dtype.kind in "biufS" and node.shape is not None:
                    if len(sources) >= _MOST_SETS:
                        raise InputError("too many arrays", where=path.name, expected=f"at most {_MOST_SETS:,}")
                    _check(node, f"{path.name}, {name}", size)
                    if node.size:
                        sources[name] = Hdf5Source(path, name, tuple(map(int, node.shape)), node.dtype)
                elif isinstance(node, h5py.Dataset) and role_of(name) in ("action_names", "state_names"):
                    texts = [plain_text(one) or "" for one in np.ravel(node[()])[:_MOST_SETS]]
                    sources[name] = np.array(texts)

            visit("", file)
            file.visititems(visit)
    except Exception as error:  # the library raises whatever a damaged node leads it to
        raise known_fault(error, path.name, "HDF5") from error
    return sources, rates


def _check(node: Any, where: str, size: int) -> None:
    """Whether the file can hold what the dataset says, before anything is made of its sizes."""
    if node.external or node.is_virtual:
        cure = "copy the data into one file"
        raise InputError("the data lie outside the file", where=where, expected="data in the file itself", cure=cure)
    need = math.prod(map(int, node.shape)) * node.dtype.itemsize
    if not need or node.shape == ():
        return
    place, stored = node.id.get_offset(), node.id.get_storage_size()
    if place is not None and place + need > size:
        found, expected = f"{size:,} bytes", f"at least {place + need:,}"
        raise InputError("the header contradicts the file size", where=where, found=found, expected=expected)
    if stored == 0:
        cure = "write the file again, closing it at the end"
        raise InputError("an array that was never written", where=where, found=f"shape {node.shape}", cure=cure)
    if stored > size or stored * _DENSEST < need:
        found, expected = f"{stored:,} bytes stored in {size:,}", f"enough for {need:,}"
        raise InputError("the header contradicts the file size", where=where, found=found, expected=expected)
    if node.chunks and math.prod(node.chunks) * node.dtype.itemsize > _MOST_CHUNK:
        found, cure = f"chunks {node.chunks}", "store one or a few frames a chunk"
        raise InputError("chunks too large to be read", where=where, found=found, expected="at most 1 GiB", cure=cure)


def _episodes(sources: dict[str, Source], key: str | None) -> dict[str, dict[str, Source]] | None:
    """Datasets by the group of their episode, and by their names in it; None where no group holds frames."""
    groups: dict[str, dict[str, Source]] = {}
    for name, source in sources.items():
        parts = name.split("/")
        named = [at for at, part in enumerate(parts[:-1]) if _EPISODE.fullmatch(part)]
        numbered = [at for at, part in enumerate(parts[:-1]) if _NUMBERED.fullmatch(part)]
        place = next(iter(named or numbered), None)
        if place is not None:
            groups.setdefault("/".join(parts[: place + 1]), {})["/".join(parts[place + 1 :])] = source
        elif _NUMBERED.fullmatch(parts[-1]) and not _CAMERA.search(parts[-1]) and len(source.shape) >= 3:
            groups.setdefault(name, {})["frames"] = source
    if key is not None and key in sources:  # one array of the file was named: it alone
        return None
    held = {prefix: own for prefix, own in groups.items() if any(len(one.shape) >= 3 for one in own.values())}
    return held or None
