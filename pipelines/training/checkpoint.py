"""The file of an unfinished (or finished) training run: written whole or not at all, and checked before it is believed.

`torch.load` is silent about flipped bits (measured: 277 of 300), so the checksums of the archive's members are checked
first. Nothing in the file can run code: it holds tensors and plain values and is opened with `weights_only=True`.
"""

from __future__ import annotations

import io
import pathlib
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch.utils.data import Dataset

from pipelines.errors import ConfigError, WeightsError
from pipelines.files import atomic_write, write_failure
from pipelines.training.randomness import isolated, seed_host

__all__ = [
    "CHECKPOINT_NAME",
    "compare_fingerprints",
    "data_digest",
    "prepare_folder",
    "read_checkpoint",
    "write_checkpoint",
]

CHECKPOINT_NAME = "training.pt"
_KIND = "attention-pipelines training checkpoint 1"
_KEYS = {"kind", "fingerprint", "progress", "model", "best", "optimizer", "scaler", "random"}


def write_checkpoint(path: pathlib.Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint under a temporary name beside it, flush it to the disk and rename it.

    Raises:
        RunError: the disk is full or not writable; the message says how much space is needed, and the old checkpoint
            is intact.

    Complexity: O(size) time and, for the moment of writing, memory.
    """
    buffer = io.BytesIO()
    torch.save({"kind": _KIND, **state}, buffer)
    atomic_write(path, buffer.getvalue())


def read_checkpoint(path: pathlib.Path) -> dict[str, Any]:
    """Read and check a checkpoint.

    Raises:
        ConfigError: there is none.
        WeightsError: it is damaged, unsafe, or not a training checkpoint of this project.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise _missing(path) from error
    except OSError as error:
        raise ConfigError("the checkpoint cannot be read", where=path, found=error.strerror) from error
    _check_sums(path, content)
    state = _load(path, content)
    if not isinstance(state, dict) or state.get("kind") != _KIND or set(state) != _KEYS:
        kind = state.get("kind") if isinstance(state, dict) else type(state).__name__
        raise _damaged(path, "not a training checkpoint of this version", str(kind))
    return cast(dict[str, Any], state)


def compare_fingerprints(path: pathlib.Path, saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Refuse to continue a run under other conditions: the result would be neither run.

    Raises:
        ConfigError: the first difference, with both values.
    """
    for name in [*current, *(name for name in saved if name not in current)]:
        before, now = saved.get(name), current.get(name)
        if before != now:
            raise ConfigError(
                f"this run cannot be resumed with another {name}",
                where=path,
                found=f"{now} now, {before} in the checkpoint",
                cure="resume with the settings and data the run began with, or start a new run in another folder",
            )


def prepare_folder(folder: pathlib.Path, *, resume: bool, overwrite: bool) -> pathlib.Path:
    """Make the folder, prove that it can be written to, and return the checkpoint's path, before any training.

    Raises:
        RunError: the folder cannot be created or written to.
        ConfigError: it holds the checkpoint of a run that is neither resumed nor overwritten, or none to resume.
    """
    path = folder / CHECKPOINT_NAME
    if resume and not path.exists():
        raise _missing(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{CHECKPOINT_NAME}.probe"
        probe.write_bytes(b"\0")
        probe.unlink()
        for stale in folder.glob(f".{CHECKPOINT_NAME}.*.partial"):  # left by a process that was killed while writing
            stale.unlink(missing_ok=True)
    except OSError as error:
        raise write_failure(error, folder) from error
    if path.exists() and not (resume or overwrite):
        raise ConfigError(
            "the folder holds the checkpoint of another run, which is never overwritten silently",
            where=path,
            cure="continue it with --resume, choose another folder with -o, or pass --overwrite",
        )
    return path


def data_digest(dataset: Dataset[Any], seed: int) -> str:
    """A checksum of the first and the last example, which tells other data of the same length apart.

    Complexity: two reads.
    """
    crc = 0
    last = len(cast(Any, dataset)) - 1
    with isolated(devices=False):
        seed_host(seed)
        hook = getattr(dataset, "set_epoch", None)
        if hook is not None:
            hook(seed, 0)
        for index in sorted({0, last}):
            for tensor in _tensors(dataset[index]):
                crc = zlib.crc32(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes(), crc)
    return f"{crc:08x}"


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        # A single number has no axis to be seen as bytes along.
        return [value.reshape(-1)]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def _check_sums(path: pathlib.Path, content: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise _damaged(path, "the checkpoint is cut short or is no checkpoint", f"{len(content)} bytes") from error
    if broken is not None:
        raise _damaged(path, "a checksum does not match: bits have flipped on the disk", broken)


def _load(path: pathlib.Path, content: bytes) -> object:
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _damaged(path, "refused: the file asks to run code when it is loaded", "a pickle") from error
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OSError) as error:
        raise _damaged(path, "the checkpoint cannot be read", str(error).splitlines()[0]) from error


def _missing(path: pathlib.Path) -> ConfigError:
    cure = "start without --resume, or name the run's folder"
    return ConfigError("there is no checkpoint to resume from", where=path, cure=cure)


def _damaged(path: pathlib.Path, problem: str, found: str) -> WeightsError:
    cure = "take another copy of the file, or start the run again in a new folder"
    return WeightsError(problem, where=path, found=found, cure=cure)
