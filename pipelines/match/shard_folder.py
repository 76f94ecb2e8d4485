"""The place where an index is written: what may be replaced, what may be continued, and by whom."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from pipelines.errors import ConfigError, InputError, WeightsError
from pipelines.files import prepare_output, write_failure
from pipelines.match.shard_files import CONFIG_FILE, read_sealed
from pipelines.values import plain

__all__ = [
    "LOCK_FILE",
    "STATE_FILE",
    "check_same_config",
    "checked_config",
    "checked_folder",
    "link",
    "locked",
    "shards_in",
]

STATE_FILE = "state.json"
LOCK_FILE = "lock"


def checked_folder(folder: str | os.PathLike[str], overwrite: bool) -> pathlib.Path:
    """The folder to come, where it may be written; of what is there only an index is ever replaced."""
    try:
        target = pathlib.Path(os.path.realpath(prepare_output(folder, overwrite=overwrite)))
    except OSError as error:  # e.g. a folder on the way that may not be looked into
        raise write_failure(error, folder) from error
    if target.exists() and not target.is_dir():
        raise ConfigError("a file stands where a folder is to be written", where=target, cure="name another folder")
    if target.is_dir() and any(target.iterdir()):
        try:
            read_sealed(target / CONFIG_FILE)
        except WeightsError:  # an index of another format version is one too
            pass
        except InputError as error:
            found = ", ".join(sorted(path.name for path in target.iterdir())[:4])
            problem = "only an index is replaced, and this folder holds something else"
            raise ConfigError(problem, where=target, found=found, cure="name another folder") from error
    return target


def checked_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as plain JSON values.

    Raises:
        ConfigError: something that JSON cannot hold, or no identity of the weights.

    Example:
        >>> checked_config({"identity": "0f", "blocks": (1, 2)})
        {'identity': '0f', 'blocks': [1, 2]}
    """
    try:
        plain_config = json.loads(json.dumps(dict(config), default=plain, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError("the configuration cannot be saved as JSON", where="config", found=str(error)) from error
    identity = plain_config.get("identity")
    if not isinstance(identity, str) or not identity:
        expected = "the SHA-256 of the model's tensors"
        raise ConfigError("an index must say which weights made it", where="config.identity", expected=expected)
    return plain_config


def check_same_config(stored: Mapping[str, Any], asked: Mapping[str, Any], where: pathlib.Path) -> None:
    """Refuse to go on with other weights or options than an index was begun with.

    Raises:
        WeightsError: they differ; the message names where.
    """
    if stored == asked:
        return
    if stored["identity"] != asked["identity"]:
        found, expected = stored["identity"][:12], asked["identity"][:12]
        problem = "the unfinished index was begun with other weights"
    else:
        names = sorted(name for name in {*stored, *asked} if stored.get(name) != asked.get(name))
        found, expected = ({name: values.get(name) for name in names} for values in (stored, asked))
        problem = "the unfinished index was begun with other options"
    cure = "use what it was begun with, or --overwrite in place of --resume to begin again"
    raise WeightsError(problem, where=where, found=found, expected=expected, cure=cure)


def shards_in(state: pathlib.Path) -> list[Any]:
    """The finished shards that a state file lists."""
    try:
        return read_sealed(state, "unfinished index")["shards"]
    except WeightsError:
        return ["of another format version"]


def locked(partial: pathlib.Path) -> int:
    """Hold the unfinished index for this process; the system lets go of it when the process ends, however it ends."""
    handle = os.open(partial / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            os.close(handle)
            cure = "wait until it ends, or name another folder"
            raise ConfigError("another process is writing this index", where=partial, cure=cure) from error
        # Some network file systems know no locks: without one, writing goes on as it would have.
    return handle


def link(source: pathlib.Path, target: pathlib.Path) -> None:
    """The same file under a second name; where the file system knows no hard links, a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
