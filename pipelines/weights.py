"""Weights on disk: safetensors beside a config.json with checksums, and safe reading of other people's checkpoints.

Neither torch.load nor safetensors notices a flipped bit inside a tensor (measured: 277 of 300 and 299 of 300 loaded
silently), so a folder of ours carries the SHA-256 of every weights file and of the configuration itself, and the
checksums inside a .pth archive are read before it is opened. Pickles that would run code are refused, never run.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.errors import ConfigError, WeightsError
from pipelines.files import atomic_write_all, sha256
from pipelines.official import OFFICIAL, load_official
from pipelines.weights_reading import (
    AGAIN,
    check_finite,
    read_file,
    read_safetensors,
    tensors_of,
    without_prefix,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "CONFIG_FILE",
    "FORMAT_VERSION",
    "OFFICIAL",
    "WEIGHTS_FILE",
    "is_ours",
    "load_official",
    "load_weights",
    "read_config",
    "read_state_dict",
    "resolve",
    "save_weights",
    "shipped",
    "shipped_folder",
]

FORMAT_VERSION = 1
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"


def save_weights(
    folder: str | os.PathLike[str], tensors: Mapping[str, Tensor], config: Mapping[str, Any]
) -> pathlib.Path:
    """Write model.safetensors and config.json with checksums; both are on the disk before either replaces an old one.

    Args:
        folder: created where it is missing; other files in it stay.
        tensors: name -> tensor of any shape and device; shared storage is written once per name.
        config: what JSON can hold (NumPy numbers and arrays, paths and dates are converted). "format_version",
            "sha256", "library" and "created" are added.

    Returns:
        The folder.

    Raises:
        WeightsError: a tensor holds NaN or infinity (it is named).
        ConfigError: the configuration holds something that JSON cannot, or a number that is not finite.
        RunError: the disk is full or not writable; what was there is intact.

    Complexity: O(bytes) time and memory.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tensors, config = load_weights(save_weights(folder, {"w": torch.ones(2)}, {"model": "linear"}))
        >>> tensors["w"].tolist(), config["model"]
        ([1.0, 1.0], 'linear')
    """
    import safetensors.torch

    folder = pathlib.Path(folder)
    check_finite(tensors, folder / WEIGHTS_FILE)
    plain = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    payload = safetensors.torch.save(plain, metadata={"format": "pt"})
    complete = _sealed(config, folder / CONFIG_FILE, {WEIGHTS_FILE: hashlib.sha256(payload).hexdigest()})
    text = json.dumps(complete, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    atomic_write_all({folder / WEIGHTS_FILE: payload, folder / CONFIG_FILE: text})
    return folder


def load_weights(folder: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_weights` wrote, after every checksum was compared.

    Args:
        folder: the folder, or hf://ORGANISATION/REPOSITORY[@REVISION] (fetched through huggingface_hub).

    Returns:
        Tensors on the CPU by name, and the configuration.

    Raises:
        WeightsError: a file is missing, is not what its name says, was cut or changed by as little as one bit, was
            written by a newer format, or a tensor holds NaN or infinity.

    Complexity: O(bytes) time; the header is checked against the length of the file before anything is allocated.

    Example:
        >>> load_weights("no/such/folder")
        Traceback (most recent call last):
        pipelines.errors.WeightsError: no/such/folder: no such folder of weights. Cure: check the path.
    """
    folder = resolve(folder)
    config = read_config(folder)
    for name, expected in config["sha256"].items():
        if name != CONFIG_FILE:
            _check_digest(folder, name, expected)
    if WEIGHTS_FILE not in config["sha256"]:
        raise WeightsError("lists no checksum of the weights", where=folder / CONFIG_FILE, cure=AGAIN)
    return read_safetensors(folder / WEIGHTS_FILE), config


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The checked config.json of a folder of weights, without loading torch.

    Raises:
        WeightsError: the folder or the file is missing, or it is not valid, not ours, or was changed after saving.

    Complexity: O(bytes of the file).

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read_config(save_weights(folder, {}, {"model": "dlinear"}))["format_version"]
        1
    """
    folder = pathlib.Path(folder)
    path = folder / CONFIG_FILE
    if not folder.is_dir():
        raise WeightsError("no such folder of weights", where=folder, cure="check the path")
    if not path.is_file():
        found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:6]) or "an empty folder"
        cure = "name the folder that --checkpoint or save() wrote, or one file of an official checkpoint"
        raise WeightsError("not a folder of weights", where=folder, found=found, expected=CONFIG_FILE, cure=cure)
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise WeightsError("is not valid JSON", where=path, found=str(error), cure=AGAIN) from error
    version = config.get("format_version") if isinstance(config, dict) else None
    if not isinstance(version, int) or not isinstance(config.get("sha256"), dict):
        expected = '"format_version" and "sha256"'
        raise WeightsError("was not written by this library", where=path, expected=expected, cure=AGAIN)
    if version > FORMAT_VERSION:
        cure = "pip install --upgrade attention-pipelines"
        raise WeightsError("of a newer format", where=path, found=version, expected=FORMAT_VERSION, cure=cure)
    own = config["sha256"].get(CONFIG_FILE)
    if own is not None and own != _config_digest(config):
        raise WeightsError("was changed after it was saved (checksum differs)", where=path, cure=AGAIN)
    return config


def is_ours(source: object) -> bool:
    """Whether a checkpoint argument is a folder that `save_weights` wrote (else it is an official file).

    Example:
        >>> is_ours("checkpoint.pth")
        False
    """
    return isinstance(source, str | os.PathLike) and (pathlib.Path(source) / CONFIG_FILE).is_file()


def read_state_dict(source: Mapping[str, Any] | str | os.PathLike[str]) -> dict[str, Tensor]:
    """Tensors by name from somebody's checkpoint, without ever running code that the file brings.

    Args:
        source: a mapping, a folder of ours, a .safetensors file, a .pt, .pth or .ckpt file (a plain state dict, or one
            under "state_dict", "model_state_dict", "model", "net" or "params"), or hf://ORGANISATION/REPOSITORY/FILE.
            A prefix `module.` (DataParallel) or `model.` (Lightning) that all names share is taken off and said in
            the log.

    Returns:
        Tensors on the CPU by name.

    Raises:
        WeightsError: missing, damaged (a checksum inside the archive differs), of an unknown kind, a pickle that
            would run code, something in it that is not a tensor, or NaN or infinity in a tensor.

    Complexity: O(bytes) time.

    Example:
        >>> import torch
        >>> list(read_state_dict({"module.weight": torch.zeros(2), "module.bias": torch.zeros(1)}))
        ['weight', 'bias']
    """
    if isinstance(source, Mapping):
        where, content = "the state dict", source
    else:
        where = source
        path = resolve(source)
        content = load_weights(path)[0] if path.is_dir() else read_file(path)
    state = without_prefix(tensors_of(content, where), where, lightning="pytorch-lightning_version" in content)
    check_finite(state, where)
    return state


def resolve(source: str | os.PathLike[str]) -> pathlib.Path:
    """The local path of weights; hf://ORGANISATION/REPOSITORY[/FILE][@REVISION] is fetched into the hub's cache.

    Raises:
        WeightsError: the address is malformed, or the hub cannot be reached or does not have it.

    Example:
        >>> resolve("runs/a").name
        'a'
    """
    if not str(source).startswith("hf://"):
        return pathlib.Path(source).expanduser()
    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:/([^@]+))?(?:@([\w./-]+))?", str(source))
    if match is None:
        raise WeightsError("not an address of weights", where=source, expected="hf://ORGANISATION/REPOSITORY[/FILE]")
    repository, file, revision = match.groups()
    try:
        import huggingface_hub

        if file:
            return pathlib.Path(huggingface_hub.hf_hub_download(repository, file, revision=revision))
        wanted = [WEIGHTS_FILE, CONFIG_FILE]
        return pathlib.Path(huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=wanted))
    except Exception as error:  # the hub's client raises its own, httpx's and the system's errors
        cure = "check the name and the network, or fetch the files elsewhere and give their path"
        problem = f"cannot be fetched from the Hugging Face hub ({type(error).__name__})"
        raise WeightsError(problem, where=source, cure=cure) from error


def shipped(domain: str) -> list[str]:
    """Names of the weights that came with the installed package for a domain.

    Example:
        >>> shipped("no_such_domain")
        []
    """
    root = pathlib.Path(__file__).parent / domain / "weights"
    return sorted(path.parent.name for path in root.glob(f"*/{CONFIG_FILE}"))


def shipped_folder(domain: str, name: str) -> pathlib.Path:
    """The folder of weights that came with the package.

    Raises:
        WeightsError: there are none of this name; those that exist are listed.

    Example:
        >>> shipped_folder("forecast", "nothing")
        Traceback (most recent call last):
        pipelines.errors.WeightsError: ...
    """
    names = shipped(domain)
    if name not in names:
        expected = ", ".join(names) or "no weights are shipped for this domain"
        raise WeightsError("no shipped weights of this name", where=domain, found=name, expected=expected)
    return pathlib.Path(__file__).parent / domain / "weights" / name


def _sealed(config: Mapping[str, Any], path: pathlib.Path, digests: dict[str, str]) -> dict[str, Any]:
    from pipelines import __version__

    complete: dict[str, Any] = {
        **config,
        "format_version": FORMAT_VERSION,
        "library": f"attention-pipelines {__version__}",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "sha256": digests,
    }
    try:
        complete = json.loads(json.dumps(complete, default=_jsonable, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError("the configuration cannot be saved as JSON", where=path, found=str(error)) from error
    complete["sha256"][CONFIG_FILE] = _config_digest(complete)
    return complete


def _config_digest(config: Mapping[str, Any]) -> str:
    """SHA-256 of the configuration's content, itself left out, so that spacing and order do not matter."""
    others = {name: digest for name, digest in config["sha256"].items() if name != CONFIG_FILE}
    text = json.dumps({**config, "sha256": others}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _jsonable(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if hasattr(value, "tolist"):  # NumPy numbers and arrays, tensors
        return value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} {str(value)[:60]!r}")


def _check_digest(folder: pathlib.Path, name: str, expected: object) -> None:
    path = folder / name
    if pathlib.PurePath(name).name != name:
        raise WeightsError("names a file outside its folder", where=folder / CONFIG_FILE, found=name)
    if not path.is_file():
        raise WeightsError("the weights file is missing", where=path, cure="fetch the whole folder again")
    found = sha256(path)
    if found != expected:
        raise WeightsError(
            "the weights were damaged or changed after they were saved",
            where=path,
            found=f"SHA-256 {found[:12]}",
            expected=f"{str(expected)[:12]} as in {CONFIG_FILE}",
            cure=AGAIN,
        )
