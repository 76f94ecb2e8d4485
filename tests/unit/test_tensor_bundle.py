"""TensorFlow's checkpoint files: what TensorFlow wrote is read bit by bit, and what is damaged is refused."""

from __future__ import annotations

import pathlib
import shutil

import numpy as np
import pytest

from pipelines.errors import WeightsError
from pipelines.match.models.tensor_bundle import BundleEntry, bundle_prefix, crc32c, list_bundle, read_bundle

GOLDEN = pathlib.Path(__file__).parents[1] / "papers" / "golden"
KINDS = GOLDEN / "bundle_kinds.ckpt"
MODEL = GOLDEN / "smith_model.ckpt-12"


def _slow(data: bytes) -> int:
    """CRC-32C bit by bit."""
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = (state >> 1) ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


@pytest.mark.parametrize("size", [0, 1, 3, 7, 8, 9, 511, 512, 513, 1024, 1025, 3 * 512 + 1, 7001])
def test_checksum_is_the_one_of_bits(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size).astype(np.uint8)
    assert crc32c(data.tobytes()) == _slow(data.tobytes())
    assert crc32c(data) == crc32c(data[size // 3 :], crc32c(data[: size // 3]))


def test_checksum_of_many_chunks() -> None:
    data = np.random.default_rng(1).integers(0, 256, 2 * 2**20 + 4097).astype(np.uint8)
    pieces = 0
    for piece in np.array_split(data, 37):
        pieces = crc32c(piece, pieces)
    assert crc32c(data) == pieces
    assert crc32c(b"\0" * 32) == 0x8A9136AA  # RFC 3720, B.4
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


def test_every_kind_of_number() -> None:
    expected = dict(np.load(GOLDEN / "bundle_kinds.npz"))
    found = read_bundle(KINDS)
    assert found.pop("b/brain").tolist() == [1.0, -2.5, 3.140625]  # bfloat16
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert found[name].tobytes() == value.tobytes()


def test_a_whole_model_bit_by_bit() -> None:
    stored = np.load(GOLDEN / "smith_model.npz")
    expected = {name.removeprefix("weights/"): stored[name] for name in stored if name.startswith("weights/")}
    found = read_bundle(MODEL)
    extra = {"bert/pooler/dense/kernel/adam_m", "bert/pooler/dense/kernel/adam_v", "global_step"}
    assert set(found) == set(expected) | extra
    assert all(np.array_equal(found[name], value) for name, value in expected.items())
    entry = list_bundle(MODEL)["bert/embeddings/word_embeddings"]
    assert (entry.shape, entry.dtype, entry.size, entry.sliced) == ((50, 16), 1, 3200, False)


def test_several_data_files() -> None:
    found = read_bundle(GOLDEN / "bundle_sharded.ckpt")
    assert {name: value.tolist() for name, value in found.items()} == {
        "x": [1.0, 2.0],
        "y": [[5.0, 6.0], [7.0, 8.0]],
        "z": [[3]],
    }


def test_text_and_parts_are_refused_only_where_they_are_wanted() -> None:
    with pytest.raises(WeightsError, match="tensor t is text, which is not read"):
        read_bundle(GOLDEN / "bundle_text.ckpt")
    found = read_bundle(GOLDEN / "bundle_text.ckpt", skip=lambda name: name == "t")
    assert (found["w"].tolist(), found["t"].size) == ([1.0], 0)
    with pytest.raises(WeightsError, match="tensor w is saved in parts"):
        read_bundle(GOLDEN / "bundle_sliced.ckpt")


def test_which_paths_mean_a_checkpoint(tmp_path: pathlib.Path) -> None:
    for ending in ("", ".index", ".data-00000-of-00001"):
        assert bundle_prefix(f"{MODEL}{ending}") == MODEL
    (tmp_path / "a[1].data-00000-of-00001").touch()
    assert bundle_prefix(tmp_path / "a[1]") == tmp_path / "a[1]"
    for other in (GOLDEN, GOLDEN / "smith_model.npz", tmp_path / "a*", "hf://a/b/model.ckpt", {}, None):
        assert bundle_prefix(other) is None
    with pytest.raises(WeightsError, match=r"a\[1\].index: no such index of a checkpoint"):
        read_bundle(tmp_path / "a[1]")


# A writer of tables of the tests' own: the form has more in it than the small checkpoints above.


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _masked(data: bytes) -> bytes:
    value = _slow(data)
    return (((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def _block(items: list[tuple[bytes, bytes]], kind: int = 0) -> bytes:
    data, last = b"", b""
    for key, value in items:
        shared = 0
        while shared < min(len(key), len(last)) and key[shared] == last[shared]:
            shared += 1
        data += _varint(shared) + _varint(len(key) - shared) + _varint(len(value)) + key[shared:] + value
        last = key
    data += (0).to_bytes(4, "little") + (1).to_bytes(4, "little")
    return data + bytes([kind]) + _masked(data + bytes([kind]))


def _table(items: list[tuple[bytes, bytes]], per_block: int, kind: int = 0) -> bytes:
    data, handles = b"", []
    for start in range(0, len(items), per_block):
        block = _block(items[start : start + per_block], kind)
        handles.append((items[min(start + per_block, len(items)) - 1][0], _varint(len(data)) + _varint(len(block) - 5)))
        data += block
    meta = _varint(len(data)) + _varint(8)
    data += _block([])
    index = _block(handles)
    footer = meta + _varint(len(data)) + _varint(len(index) - 5)
    return data + index + footer.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")


def _entry(shape: tuple[int, ...], offset: int, data: bytes, *, dtype: int = 1, shard: int = 0) -> bytes:
    sizes = b"".join(b"\x12" + _varint(len(one)) + one for one in (b"\x08" + _varint(size % 2**64) for size in shape))
    found = b"\x08" + _varint(dtype) + b"\x12" + _varint(len(sizes)) + sizes + b"\x18" + _varint(shard)
    return found + b"\x20" + _varint(offset) + b"\x28" + _varint(len(data)) + b"\x35" + _masked(data)


HEADER = b"\x08\x01\x1a\x02\x08\x01"


def _write(
    path: pathlib.Path, items: list[tuple[bytes, bytes]], data: bytes, per_block: int = 3, kind: int = 0
) -> None:
    path.with_name(f"{path.name}.index").write_bytes(_table([(b"", HEADER), *items], per_block, kind))
    path.with_name(f"{path.name}.data-00000-of-00001").write_bytes(data)


def test_many_blocks_of_an_index(tmp_path: pathlib.Path) -> None:
    values = np.arange(40, dtype=np.float32).reshape(20, 2)
    data = values.tobytes()
    items = [(f"layer_{i:02d}/kernel".encode(), _entry((2,), 8 * i, data[8 * i : 8 * i + 8])) for i in range(20)]
    _write(tmp_path / "a", items, data)
    found = read_bundle(tmp_path / "a")
    assert list(found) == [f"layer_{i:02d}/kernel" for i in range(20)]
    assert np.array_equal(np.stack(list(found.values())), values)


@pytest.mark.parametrize(
    ("shape", "offset", "length", "change", "message"),
    [
        ((3,), 0, 8, {}, "w of shape (3,) in 8 bytes"),
        ((-2,), 0, 8, {}, "w of shape (-2,) in 8 bytes"),
        ((2**40, 2**40), 0, 8, {}, "in 8 bytes"),
        ((2,), 4, 8, {}, "truncated weights. Found: 8 bytes. Expected: at least 12 (for w)"),
        ((2,), 0, 8, {"shard": 1}, "w in file 1 of 1"),
        ((2,), 0, 8, {"dtype": 21}, "tensor w is of type 21, which is not read"),
        ((2,), 2**63, 8, {}, "a damaged checkpoint"),
    ],
)
def test_entries_that_cannot_be(
    tmp_path: pathlib.Path, shape: tuple[int, ...], offset: int, length: int, change: dict[str, int], message: str
) -> None:
    data = bytes(range(8))
    _write(tmp_path / "a", [(b"w", _entry(shape, offset, data[:length], **change))], data)
    with pytest.raises(WeightsError) as caught:
        read_bundle(tmp_path / "a")
    assert message in str(caught.value)


def test_other_forms_are_named(tmp_path: pathlib.Path) -> None:
    _write(tmp_path / "snappy", [(b"w", _entry((2,), 0, bytes(8)))], bytes(8), kind=1)
    with pytest.raises(WeightsError, match=r"a compressed table, which is not read. Found: kind 1"):
        read_bundle(tmp_path / "snappy")
    index = tmp_path / "big.index"
    index.write_bytes(_table([(b"", b"\x08\x01\x10\x01"), (b"w", _entry((2,), 0, bytes(8)))], 3))
    with pytest.raises(WeightsError, match="big-endian"):
        read_bundle(tmp_path / "big")
    index.write_bytes(_table([(b"w", _entry((2,), 0, bytes(8)))], 3))
    with pytest.raises(WeightsError, match=r"big.index: a damaged checkpoint. Found: no header"):
        read_bundle(tmp_path / "big")
    index.write_bytes(b"text" * 50)
    with pytest.raises(WeightsError, match="truncated, or not an index of a checkpoint"):
        read_bundle(tmp_path / "big")
    index.write_bytes(_table([(b"", HEADER), (b"w", _entry((2,), 0, bytes(8)))], 3))
    with pytest.raises(WeightsError, match=r"big.data-00000-of-00001: a data file of the checkpoint is missing"):
        read_bundle(tmp_path / "big")


def test_names_that_would_fill_the_memory_are_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.match.models import tensor_bundle

    monkeypatch.setattr(tensor_bundle, "_MAX_NAMES", 10_000)
    name = b"n" * 2000
    items = [(name + bytes([97 + i]), _entry((2,), 0, bytes(8))) for i in range(8)]
    _write(tmp_path / "a", items, bytes(8), per_block=20)
    with pytest.raises(WeightsError, match="names of absurd length"):
        read_bundle(tmp_path / "a")


def _copy(folder: pathlib.Path) -> pathlib.Path:
    for ending in ("index", "data-00000-of-00001"):
        shutil.copy(f"{KINDS}.{ending}", folder / f"a.{ending}")
    return folder / "a"


@pytest.mark.parametrize("ending", ["index", "data-00000-of-00001"])
def test_no_flipped_bit_and_no_cut_goes_unseen(tmp_path: pathlib.Path, ending: str) -> None:
    prefix = _copy(tmp_path)
    path = tmp_path / f"a.{ending}"
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    read_bundle(prefix)
    unseen: list[int] = []
    for trial in range(200):
        data = bytearray(whole)
        if trial % 4 == 0:
            data = data[: int(generator.integers(0, len(whole)))]
        else:
            data[int(generator.integers(0, len(whole)))] ^= 1 << int(generator.integers(0, 8))
        path.write_bytes(bytes(data))
        try:
            read_bundle(prefix)
        except WeightsError as error:
            unseen += [] if path.name in str(error) else [trial]
        else:
            unseen.append(trial)
    assert unseen == []


def test_headers_of_noise_end_in_a_message(tmp_path: pathlib.Path) -> None:
    """A footer that is right, a block whose checksum is right, and noise inside."""
    generator = np.random.default_rng(3)
    for _ in range(100):
        noise = generator.integers(0, 256, int(generator.integers(4, 60))).astype(np.uint8).tobytes()
        items = [(b"", HEADER), (b"w", noise)] if generator.random() < 0.7 else [(b"", noise)]
        (tmp_path / "a.index").write_bytes(_table(items, 3))
        try:
            entries = list_bundle(tmp_path / "a")
        except WeightsError:
            continue
        assert all(isinstance(entry, BundleEntry) for entry in entries.values())
        if entries:
            with pytest.raises(WeightsError):
                read_bundle(tmp_path / "a")
