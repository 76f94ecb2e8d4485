"""Opening weights files that may be damaged or hostile: headers before allocation, checksums before unpickling.

`pipelines.weights` is the public side of these functions.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import pathlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

AGAIN = "save it again with pipelines, or fetch it again from where it came from"

_LOGGER = logging.getLogger("pipelines.weights")
_PICKLED = (".pt", ".pth", ".ckpt", ".bin", ".tar")
_MAX_HEADER = 100_000_000  # the limit of the safetensors format itself
_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32}
_BITS |= {"I64": 64, "U64": 64, "F64": 64, "C64": 64, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8}
_NESTED = ("state_dict", "model_state_dict", "model", "net", "params_ema", "params")


def read_file(path: pathlib.Path) -> Mapping[str, Any]:
    """What a weights file holds, by its ending; a WeightsError for anything that is no safe file of weights."""
    if not path.is_file():
        raise WeightsError("no such file of weights", where=path, cure="check the path")
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix in _PICKLED:
        return _read_pickled(path)
    found = f"{path.suffix or 'no'} extension"
    cure = "give a state dict; exported programs (.pt2, .onnx) and TorchScript are not opened as weights"
    raise WeightsError(
        "not a file of weights", where=path, found=found, expected=".safetensors, .pt, .pth, .ckpt", cure=cure
    )


def read_safetensors(path: pathlib.Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file whose header was checked against the file's size first."""
    import safetensors
    import safetensors.torch

    _check_header(path)
    try:
        tensors = safetensors.torch.load_file(path, device="cpu")
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise WeightsError("damaged weights", where=path, found=str(error), cure=AGAIN) from error
    check_finite(tensors, path)
    return tensors


def _check_header(path: pathlib.Path) -> None:
    """Compare what the header claims with the length of the file, before anything is allocated for it."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER):
            found = f"{size:,} bytes" if size < 8 else f"a header of {length:,} bytes in a file of {size:,}"
            raise WeightsError("truncated or not a safetensors file", where=path, found=found, cure=AGAIN)
        try:
            header = json.loads(file.read(length))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            claimed = [_claimed_end(name, entry) for name, entry in entries.items()]
        except (ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
            problem = "the header of the weights is damaged"
            raise WeightsError(problem, where=path, found=str(error)[:200], cure=AGAIN) from error
    if max(claimed, default=0) != size - 8 - length:
        found = f"{size - 8 - length:,} bytes of tensors"
        expected = f"{max(claimed, default=0):,}"
        raise WeightsError("truncated weights", where=path, found=found, expected=expected, cure=AGAIN)


def _claimed_end(name: str, entry: dict[str, Any]) -> int:
    begin, end = entry["data_offsets"]
    needed = math.prod(entry["shape"]) * _BITS.get(entry["dtype"], 0) // 8
    if min([0, begin, *entry["shape"]]) < 0 or (entry["dtype"] in _BITS and end - begin != needed):
        raise ValueError(f"{name} of shape {entry['shape']} and {entry['dtype']} in {end - begin:,} bytes")
    return int(end)


def _read_pickled(path: pathlib.Path) -> Mapping[str, Any]:
    import torch

    _check_archive(path)
    try:
        # A namespace of command-line arguments stands beside the weights in many releases and only holds values.
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused_pickle(path, str(error)) from error
    except Exception as error:  # torch raises RuntimeError, EOFError, KeyError, struct.error... on damaged files
        found = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160] if str(error) else 'unreadable'}"
        raise WeightsError("damaged, or not a checkpoint of PyTorch", where=path, found=found) from error
    if not isinstance(content, Mapping):
        found = type(content).__name__
        raise WeightsError("holds no state dict", where=path, found=found, expected="a dict of tensors")
    return content


def _check_archive(path: pathlib.Path) -> None:
    """Compare the checksum of every member: torch.load does not, and returns a tensor with a flipped bit silently."""
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            _LOGGER.info("%s: written by an old PyTorch, in a form that carries no checksums", path)
            return
    try:
        with zipfile.ZipFile(path) as archive:
            _check_kind(archive.infolist(), path)
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError("truncated or damaged archive", where=path, found=str(error), cure=AGAIN) from error
    if damaged is not None:
        problem = "damaged: a checksum inside the archive differs"
        raise WeightsError(problem, where=path, found=f"member {damaged}", cure="fetch the file again")


def _check_kind(members: list[zipfile.ZipInfo], path: pathlib.Path) -> None:
    if any("/code/" in item.filename or item.filename.endswith("constants.pkl") for item in members):
        cure = "load it where it was made and save its state_dict() as .safetensors"
        raise WeightsError("a TorchScript or exported program, which can run code", where=path, cure=cure)
    packed = [item.filename for item in members if item.compress_type != zipfile.ZIP_STORED]
    if packed:  # PyTorch never compresses: this is something else, and could unpack to any size
        raise WeightsError("not a checkpoint of PyTorch", where=path, found=f"compressed member {packed[0]}")


def _refused_pickle(path: pathlib.Path, message: str) -> WeightsError:
    named = re.search(r"GLOBAL ([\w.]+)", message)
    cure = "where you trust its maker, save its state_dict() with safetensors.torch.save_file and give that file"
    expected = "tensors in plain containers"
    if named is None:  # an unknown instruction: text, a damaged file, or a pickle that no checkpoint uses
        problem = "damaged, or a pickle that is not a checkpoint of PyTorch; nothing in it was run"
        return WeightsError(problem, where=path, expected=expected, cure=cure)
    problem = "this pickle would run code while it is loaded; it was refused and nothing was run"
    return WeightsError(problem, where=path, found=f"a call of {named.group(1)}", expected=expected, cure=cure)


def tensors_of(content: Mapping[str, Any], where: object) -> dict[str, Tensor]:
    """The state dict in a checkpoint's content, also where it lies under one of the usual names."""
    import torch

    for key in _NESTED:
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    state = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    others = [f"{name} ({type(value).__name__})" for name, value in content.items() if str(name) not in state]
    if others or not state:
        found = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "") or "nothing"
        expected = "a state dict (names and tensors)"
        raise WeightsError("holds something else than tensors", where=where, found=found, expected=expected)
    return state


def without_prefix(state: dict[str, Tensor], where: object, *, lightning: bool) -> dict[str, Tensor]:
    """Names without the prefix that a wrapper (DataParallel, a LightningModule) put before all of them."""
    for prefix in ("module.", "model.") if lightning else ("module.",):
        if all(name.startswith(prefix) for name in state):
            _LOGGER.warning("%s: the prefix %r of all %d names was taken off", where, prefix, len(state))
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def check_finite(tensors: Mapping[str, Tensor], where: object) -> None:
    """Raise WeightsError naming the first tensor that holds a NaN or an infinite value."""
    import torch

    for name, tensor in tensors.items():
        if not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        wide = tensor.detach().float() if tensor.element_size() == 1 else tensor.detach()
        bad = wide.numel() - int(torch.isfinite(wide).sum())
        if bad:
            problem = f"tensor {name} holds NaN or infinity ({bad:,} of {tensor.numel():,} values)"
            raise WeightsError(problem, where=where, cure="take an earlier checkpoint, or train with a lower rate")
