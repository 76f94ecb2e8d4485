"""Damaged and hostile weights: each refused with one sentence, never loaded wrong, never run."""

from __future__ import annotations

import fractions
import json
import os
import pathlib
import pickle
import random
import subprocess
import sys
import textwrap
import zipfile

import pytest
import torch

from pipelines.errors import WeightsError
from pipelines.weights import CONFIG_FILE, WEIGHTS_FILE, load_weights, read_state_dict, save_weights


def _state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {f"layer.{i}.weight": torch.randn(8, 16, generator=generator) for i in range(4)}


def _flip(path: pathlib.Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)


def _refused(source: object, match: str) -> None:
    load = load_weights if pathlib.Path(str(source)).is_dir() else read_state_dict
    with pytest.raises(WeightsError, match=match) as caught:
        load(source)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert str(source) in str(caught.value)


@pytest.mark.parametrize("name", [WEIGHTS_FILE, CONFIG_FILE])
def test_every_flipped_bit_in_our_folder_is_refused(tmp_path, name):
    save_weights(tmp_path, _state(), {"mean": [1.25, 3.5], "model": "x"})
    whole = (tmp_path / name).read_bytes()
    silent = []
    for place in random.Random(1).sample(range(len(whole) * 8), 200):
        _flip(tmp_path / name, place)
        try:
            tensors, config = load_weights(tmp_path)
        except WeightsError:
            pass
        else:  # a tab for a space between two entries changes nothing that is read
            same = all(torch.equal(tensors[key], value) for key, value in _state().items())
            if not (same and config["mean"] == [1.25, 3.5] and name == CONFIG_FILE):
                silent.append(place)
        (tmp_path / name).write_bytes(whole)
    assert silent == []
    assert load_weights(tmp_path)[1]["model"] == "x"


def test_flipped_bits_in_an_official_file_are_refused_or_harmless(tmp_path):
    """torch.load alone returns changed tensors for most of these."""
    path, state = tmp_path / "checkpoint.pth", _state()
    torch.save(state, path)
    whole, changed, refused, plain_changed = path.read_bytes(), 0, 0, 0
    with zipfile.ZipFile(path) as archive:
        info = next(item for item in archive.infolist() if item.filename.endswith("data/0"))
    tensor_bits = [(info.header_offset + 64) * 8, (info.header_offset + 64 + info.file_size) * 8]
    for place in random.Random(2).sample(range(len(whole) * 8), 150) + random.Random(3).sample(range(*tensor_bits), 50):
        _flip(path, place)
        try:
            read = read_state_dict(path)
            changed += list(read) != list(state) or not all(torch.equal(read[key], state[key]) for key in state)
        except WeightsError:
            refused += 1
        plain_changed += _silently_changed_by_torch(path, state)
        path.write_bytes(whole)
    assert changed == 0
    assert plain_changed > 20, "the fault that this guards against is not there any more"
    assert refused >= plain_changed


def _silently_changed_by_torch(path: pathlib.Path, state: dict[str, torch.Tensor]) -> bool:
    try:
        read = torch.load(path, weights_only=True)
    except Exception:
        return False
    return any(key in read and not torch.equal(read[key], value) for key, value in state.items())


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_truncated_files(tmp_path, name):
    path = tmp_path / name
    if name == "a.pth":
        torch.save(_state(), path)
    else:
        save_weights(tmp_path, _state(), {})
        (tmp_path / WEIGHTS_FILE).rename(path)
    whole = path.read_bytes()
    for size in [0, 1, 7, 8, 9, *random.Random(4).sample(range(10, len(whole)), 40)]:
        path.write_bytes(whole[:size])
        _refused(path, "truncated|damaged|header")


def _header(fields: object, body: bytes = b"") -> bytes:
    text = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return len(text).to_bytes(8, "little") + text + body


_ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ((1 << 60).to_bytes(8, "little") + b"{}", "a header of 1,152,921,504,606,846,976 bytes in a file of 10"),
        ((1 << 63).to_bytes(8, "little") + bytes(100), "truncated or not a safetensors"),
        (_header(b"\xff\xfe{"), "header of the weights is damaged"),
        (_header(b"[" * 100_000), "header of the weights is damaged"),
        (_header([1, 2]), "header of the weights is damaged"),
        (_header({"w": {**_ENTRY, "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}), "truncated weights.*Found: 0"),
        (_header({"w": {**_ENTRY, "shape": [1 << 40]}}, bytes(8)), "damaged.*w of shape"),
        (_header({"w": {**_ENTRY, "shape": [-2]}}, bytes(8)), "damaged"),
        (_header({"w": {**_ENTRY, "data_offsets": [-8, 0]}}), "damaged"),
        (_header({"w": {**_ENTRY, "dtype": "X99"}}, bytes(8)), "damaged"),
        (_header({"w": {"dtype": "F32"}}, bytes(8)), "damaged"),
        (_header({"w": _ENTRY}, bytes(9)), "truncated weights"),
        (_header({"w": _ENTRY, "v": _ENTRY}, bytes(8)), "damaged"),
    ],
)
def test_absurd_headers_are_refused_before_anything_is_allocated(tmp_path, content, match):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    _refused(path, match)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.complex64])
def test_values_that_are_not_finite(tmp_path, value, dtype):
    state = _state()
    state["layer.2.weight"] = state["layer.2.weight"].to(dtype)
    state["layer.2.weight"][3, 4] = value
    named = r"tensor layer\.2\.weight holds NaN or infinity \(1 of 128 values\)"
    with pytest.raises(WeightsError, match=named):
        save_weights(tmp_path / "run", state, {})
    assert not (tmp_path / "run").exists()
    torch.save(state, tmp_path / "a.pth")
    _refused(tmp_path / "a.pth", named)
    with pytest.raises(WeightsError, match=named):
        read_state_dict(state)


def test_eight_bit_floats_are_checked_too():
    bad = torch.tensor([1.0, float("nan")]).to(torch.float8_e4m3fn)
    with pytest.raises(WeightsError, match="1 of 2 values"):
        read_state_dict({"w": bad})


class _Hostile:
    def __init__(self, mark: pathlib.Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, (f"touch {self.mark}",))


@pytest.mark.parametrize("kind", ["zip", "legacy", "raw"])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path, kind):
    mark, path = tmp_path / "it-ran", tmp_path / "a.pth"
    content = {"w": torch.ones(1), "extra": _Hostile(mark)}
    if kind == "raw":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    named = r"would run code.*a call of \w+\.system.*safetensors"
    _refused(path, "nothing in it was run" if kind == "raw" else named)
    assert not mark.exists()


def test_an_object_that_is_not_a_tensor_is_named(tmp_path):
    torch.save({"w": torch.ones(1), "share": fractions.Fraction(1, 2)}, tmp_path / "a.pth")
    _refused(tmp_path / "a.pth", r"would run code.*fractions\.Fraction")
    torch.save({"w": torch.ones(1), "epoch": 3}, tmp_path / "b.pth")
    _refused(tmp_path / "b.pth", r"something else than tensors\. Found: epoch \(int\)")
    torch.save([torch.ones(1)], tmp_path / "c.pth")
    _refused(tmp_path / "c.pth", "holds no state dict")


def test_other_kinds_of_file_are_refused_by_name(tmp_path):
    for name in ("a.pt2", "a.onnx", "a.npz", "a"):
        (tmp_path / name).write_bytes(b"x" * 50)
        _refused(tmp_path / name, "not a file of weights")
    (tmp_path / "text.pth").write_text("not a checkpoint at all")
    _refused(tmp_path / "text.pth", "damaged, or a pickle that is not a checkpoint")
    with zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b/data.pkl", bytes(1 << 20))
    _refused(tmp_path / "b.pth", "compressed member")
    _refused(tmp_path / "none.pth", "no such file")


def test_programs_are_not_opened_as_weights(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 1)).save(str(tmp_path / "a.pt"))
    _refused(tmp_path / "a.pt", "TorchScript or exported program")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda folder: (folder / WEIGHTS_FILE).unlink(), "weights file is missing"),
        (lambda folder: (folder / CONFIG_FILE).unlink(), f"not a folder of weights.*Expected: {CONFIG_FILE}"),
        (lambda folder: (folder / CONFIG_FILE).write_text("{"), "not valid JSON"),
        (lambda folder: (folder / CONFIG_FILE).write_bytes(b"\xff"), "not valid JSON"),
        (lambda folder: (folder / CONFIG_FILE).write_text("[]"), "not written by this library"),
        (lambda folder: (folder / CONFIG_FILE).write_text('{"format_version": 9, "sha256": {}}'), "newer format"),
        (lambda folder: (folder / CONFIG_FILE).write_text('{"format_version": 1, "sha256": {}}'), "lists no checksum"),
        (
            lambda folder: (folder / CONFIG_FILE).write_text('{"format_version": 1, "sha256": {"../a": "0"}}'),
            "outside its folder",
        ),
    ],
)
def test_folders_that_are_not_whole(tmp_path, change, match):
    folder = save_weights(tmp_path / "run", _state(), {"model": "x"})
    change(folder)
    _refused(folder, match)


def test_weights_of_another_run_are_refused(tmp_path):
    first = save_weights(tmp_path / "first", _state(), {})
    second = save_weights(tmp_path / "second", {"w": torch.ones(3)}, {})
    (first / WEIGHTS_FILE).write_bytes((second / WEIGHTS_FILE).read_bytes())
    _refused(first, "damaged or changed after they were saved")


_FULL_DISK = """
    import resource, sys, torch
    from pipelines.weights import save_weights
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        save_weights(sys.argv[1], {"w": torch.zeros(99_999)}, {"model": "new"})
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_full_disk_keeps_the_old_weights(tmp_path):
    folder = save_weights(tmp_path / "run", _state(), {"model": "old"})
    command = [sys.executable, "-c", textwrap.dedent(_FULL_DISK), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.startswith("RunError")
    assert "needed" in done.stdout
    tensors, config = load_weights(folder)
    assert config["model"] == "old"
    assert all(torch.equal(tensors[key], value) for key, value in _state().items())
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]
