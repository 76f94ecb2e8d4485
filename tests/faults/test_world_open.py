"""Bad episodes: one message each, with the place and the cure; damaged files never end in an unexplained traceback."""

from __future__ import annotations

import io
import pathlib
import random
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pytest

from pipelines.data.datasets.world_open import WorldReading, open_episodes
from pipelines.data.errors import InputError
from pipelines.data.formats.actions_csv import read_actions

Maker = Callable[[pathlib.Path], Any]


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


MOVIE = noise(6, 8, 8, 3)


def flawed(value: float, count: int = 1) -> np.ndarray:
    movie = np.linspace(0, 1, 6 * 64).reshape(6, 8, 8)
    movie.flat[100 : 100 + count] = value
    return movie


OBJECTS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "nan": (flawed(np.nan, 3), {}, r"array: frames hold numbers that are not finite. Found: 3 NaN or infinite"),
    "infinite": (flawed(np.inf), {}, r"not finite. Found: 1 NaN or infinite.*Cure"),
    "nan in half precision": (flawed(np.nan).astype(np.float16), {}, "not finite"),
    "signed": (flawed(-1.0), {}, r"scale of the frames is not known.*from -1 to 1.*\(x \+ 1\) / 2"),
    "negative": (np.full((5, 8, 8), -4), {}, r"scale of the frames is not known.*int64 from -4 to -4"),
    "neither scale": (flawed(3.0), {}, r"not known. Found: float64 from 0 to 3.*which number is white"),
    "sixteen bits": (np.full((5, 8, 8), 4000, np.uint16), {}, "uint16 from 4000 to 4000"),
    "beyond white": (flawed(3.0), {"white": 2.0}, "go beyond white. Found: float64 from 0 to 3. Expected: 0 to 2"),
    "complex": (np.zeros((5, 8, 8), complex), {}, r"nothing that is read.*complex128"),
    "text": (np.full((5, 8, 8), "a"), {}, "frames are no numbers"),
    "objects": ([None, {}], {}, r"nothing that is read"),
    "one frame": (noise(1, 8, 8, 3), {}, r"too few frames to predict from. Found: 1 frame. Expected: 2 or more"),
    "one picture": (noise(64, 64, 3), {}, r"one picture, not frames in time.*\(64, 64, 3\)"),
    "one picture in a list": ([noise(64, 64, 3)], {}, "too few frames"),
    "no frames": (noise(0, 8, 8, 3), {}, "an array without frames"),
    "no pixels": (noise(5, 0, 8), {}, "an array without frames"),
    "a row of numbers": (np.zeros(9), {}, r"not an array of frames. Found: shape \(9,\)"),
    "a table": (np.zeros((9, 4)), {}, "not an array of frames"),
    "six axes": (np.zeros((2,) * 6), {}, "not an array of frames"),
    "alpha": (noise(5, 9, 8, 4), {}, r"neither grey nor RGB.*4 channels.*alpha"),
    "five axes without colours": (noise(2, 5, 8, 8, 7), {}, "neither grey nor RGB"),
    "other layout": (MOVIE, {"layout": "THW"}, "the layout does not fit"),
    "no colours there": (MOVIE, {"layout": "TCHW"}, "neither grey nor RGB"),
    "empty list": ([], {}, "nothing to read"),
    "empty dictionary": ({}, {}, "nothing to read"),
    "none": (None, {}, "nothing that is read"),
    "a number": (3, {}, "not an array of frames"),
    "empty path": ("", {}, "an empty path"),
    "no such file": ("no/such/clip.mp4", {}, r"no/such/clip.mp4: no such file or folder"),
    "a path with a zero": ("a\0b", {}, "no path|no such file"),
    "ragged": ([[1, 2], [3]], {}, "no array of numbers"),
    "no frames among them": ({"actions": np.zeros((5, 2)), "obs": np.zeros((6, 2))}, {}, "no array of frames.*obs"),
    "no such key": (
        {"a": MOVIE, "frames": MOVIE},
        {"key": "b"},
        r"no such array of frames. Found: key b; the file has a",
    ),
}
ACTIONS: dict[str, tuple[Any, str]] = {
    "too few": (
        np.zeros((3, 2)),
        r"actions of another length than the frames. Found: 3 actions for 6 frames. Expected: 5",
    ),
    "too many": (np.zeros((9, 2)), r"9 actions for 6 frames"),
    "nan": (
        np.array([0, 1, np.nan, 0, 1]),
        r"actions hold NaN or infinite numbers. Found: 1 of 5 rows, the first is row 2",
    ),
    "three axes": (np.zeros((5, 2, 2)), "actions have too many axes"),
    "objects": ([None] * 5, "nothing that is read"),
    "dates": (np.zeros(5, "M8[s]"), "nothing that is read"),
    "complex": (np.zeros(5, complex), "nothing that is read"),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_bad_objects_get_one_message(name: str) -> None:
    data, options, words = OBJECTS[name]
    with pytest.raises(InputError, match=words):
        open_episodes(data, WorldReading(**options))


@pytest.mark.parametrize("name", ACTIONS)
def test_bad_actions_get_one_message(name: str) -> None:
    actions, words = ACTIONS[name]
    with pytest.raises(InputError, match=words):
        open_episodes({"frames": MOVIE, "actions": actions})


def test_kinds_that_are_none_are_refused() -> None:
    for values in (np.array([0.5, 1, 2, 3, 4]), np.array([-1, 0, 1, 0, 1])):
        with pytest.raises(InputError, match=r"actions are no kinds.*whole numbers from 0"):
            open_episodes({"frames": MOVIE, "actions": values}, WorldReading(discrete=True))
    mixed = [{"frames": MOVIE, "actions": np.zeros((5, 2))}, {"frames": MOVIE, "actions": np.zeros((5, 3))}]
    with pytest.raises(InputError, match=r"actions with other columns.*3 wide.*2 wide\), as array 0"):
        open_episodes(mixed)


def test_the_action_after_the_last_frame_may_be_missing() -> None:
    acts = np.array([[0.0], [1], [0], [1], [0], [np.nan]])
    episode = open_episodes({"frames": MOVIE, "actions": acts})[0]
    assert episode.actions is not None
    assert episode.actions.shape == (5, 1)


def test_odd_states_and_rewards_are_left_out_and_said() -> None:
    held = {"frames": MOVIE, "states": np.zeros((4, 2)), "rewards": np.full(5, np.nan), "fps": -3}
    episode = open_episodes(held)[0]
    assert episode.states is episode.rewards is episode.fps is None
    for words in ("states of shape (4, 2) (float64) for 6 frames: not used", "5 NaN", "fps is no frame rate"):
        assert any(words in note for note in episode.notes), episode.notes


@pytest.mark.parametrize(
    "options",
    [
        {"size": (0, 5)}, {"size": (5,)}, {"size": (5, 1 << 20)}, {"colour": "sepia"}, {"fps": 0},
        {"fps": float("nan")},
        {"layout": "HWC"}, {"white": 0}, {"white": float("inf")}, {"subset": "valid"}, {"split": 0}, {"actions": ""},
    ],
)  # fmt: skip
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"^{next(iter(options))}: "):
        WorldReading(**options)


# Files


def _pickled(path: pathlib.Path) -> None:
    np.save(path, np.array([{}, {}]), allow_pickle=True)


def _huge(path: pathlib.Path) -> None:
    np.save(path, MOVIE)
    path.write_bytes(path.read_bytes().replace(b"(6, 8, 8, 3), }   ", b"(60000, 8, 8, 3)} "))


def _cut(maker: Maker, keep: float) -> Maker:
    def write(path: pathlib.Path) -> None:
        maker(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * keep)])

    return write


def npy(path: pathlib.Path) -> None:
    np.save(path, MOVIE)


def npz(path: pathlib.Path) -> None:
    np.savez(path, frames=MOVIE, actions=np.arange(5), fps=10.0, rewards=np.zeros(5))


def packed(path: pathlib.Path) -> None:
    np.savez_compressed(path, obs=MOVIE, actions=np.zeros((6, 2)), terminals=np.arange(6) == 2)


def hdf5(path: pathlib.Path) -> None:
    with h5py.File(path, "w") as file:
        for place in range(2):
            group = file.create_group(f"data/demo_{place}")
            group.create_dataset("obs/image", data=MOVIE, chunks=(2, 8, 8, 3), compression="gzip")
            group["actions"] = np.zeros((6, 2))
            group.attrs["fps"] = 10.0


def flat_hdf5(path: pathlib.Path) -> None:
    with h5py.File(path, "w") as file:
        file["frames"], file["actions"], file["terminals"] = MOVIE, np.zeros((6, 2)), np.arange(6) == 2


def _bomb(path: pathlib.Path) -> None:
    """A member that says it is 4 GB."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (100000, 100, 400)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("frames.npy", head.getvalue() + bytes(1000))
    content = bytearray(path.read_bytes())
    size = (len(head.getvalue()) + 4_000_000_000).to_bytes(4, "little")
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = size
    path.write_bytes(bytes(content))


def _external(path: pathlib.Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("frames", (4, 8, 8), "u1", external=[("/etc/passwd", 0, 1024)])


def _linked(path: pathlib.Path) -> None:
    with h5py.File(path, "w") as file:
        file["frames"] = h5py.ExternalLink("/etc/passwd", "/")


def _unwritten(path: pathlib.Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("frames", (100_000, 4096, 4096), "u1", chunks=(1, 64, 64))


def _table(text: str) -> Maker:
    return lambda path: path.write_text(text)


FILES: dict[str, tuple[str, Maker, str]] = {
    "empty npy": (".npy", lambda p: p.write_bytes(b""), "not a readable NPY file"),
    "text as npy": (".npy", lambda p: p.write_text("frame,value"), "not a readable NPY file"),
    "cut npy": (".npy", _cut(npy, 0.6), r"the header contradicts the file size. Found: \d+ bytes"),
    "cut header": (".npy", _cut(npy, 0.05), "not a readable NPY file"),
    "npy of objects": (".npy", _pickled, "Python objects, which are never opened"),
    "huge npy": (".npy", _huge, r"header contradicts the file size.*11,520,000 for \(60000, 8, 8, 3\)"),
    "npy of a table": (".npy", lambda p: np.save(p, np.zeros((9, 3))), "not an array of frames"),
    "empty npz": (".npz", lambda p: p.write_bytes(b""), "not a readable NPZ file"),
    "cut npz": (".npz", _cut(npz, 0.7), "not a readable NPZ file"),
    "npz without arrays": (".npz", lambda p: zipfile.ZipFile(p, "w").close(), "no arrays in the file"),
    "npz of objects": (".npz", lambda p: np.savez(p, frames=np.array([{}])), "Python objects"),
    "bomb": (".npz", _bomb, r"the file is damaged. Found: \d+ bytes that say they are 4,000,000,"),
    "empty hdf5": (".h5", lambda p: p.write_bytes(b""), "not a readable HDF5 file"),
    "cut hdf5": (".h5", _cut(hdf5, 0.5), r"not a readable HDF5 file.*truncated"),
    "hdf5 without arrays": (".h5", lambda p: h5py.File(p, "w").close(), "no arrays in the file"),
    "external data": (".h5", _external, "the data lie outside the file"),
    "external link": (".h5", _linked, "no arrays in the file"),
    "never written": (".h5", _unwritten, r"an array that was never written.*\(100000, 4096, 4096\)"),
    "unknown ending": (".xyz", lambda p: p.write_bytes(b"hello"), "not a film|no film|not a video"),
    "empty folder": ("", lambda p: p.mkdir(), "no episode in the folder. Found: nothing"),
    "folder of texts": (
        "",
        lambda p: (p.mkdir(), (p / "a.txt").write_text("a")),
        r"no episode in the folder. Found: 1 .txt",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_bad_files_get_one_message(name: str, tmp_path: pathlib.Path) -> None:
    ending, maker, words = FILES[name]
    path = tmp_path / f"bad{ending}"
    maker(path)
    tracemalloc.start()
    with pytest.raises(InputError, match=words) as caught:
        open_episodes(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "bad" in str(caught.value)
    assert peak < 50e6


TABLES: dict[str, tuple[str, str]] = {
    "empty": ("", "the file is empty"),
    "header only": ("a,b\n", "no rows. Found: a header in line 1"),
    "no header": ("0.5,1\n0.25,1\n", "the first line holds numbers, not names"),
    "no actions": ("frame,time_s\n0,0.0\n", "no column of actions. Found: frame, time_s"),
    "ragged": ("a,b\n1,2\n3\n", r"a.csv, line 3: another number of cells. Found: 1. Expected: 2"),
    "empty cell": ("a,b\n1,2\n3,\n", "a.csv, line 3, b: an empty cell"),
    "mixed": ("a,b\n1,2\n3,left\n", "a.csv, line 3, b: numbers and texts in one column. Found: 'left'"),
    "nan": ("a\n1\nnan\n", "a.csv, line 3, a: a number that is not finite"),
    "infinite": ("a\ninf\n1\n", "a.csv, line 2, a: a number that is not finite"),
    "two alike": ("a,a\n1,2\n", "two columns have the same name. Found: 'a'"),
    "nameless": ("a,\n1,2\n", "a column without a name"),
    "bytes": ("a\x00b\n1\n", "not a text table"),
    "too few rows": (
        "a\n1\n2\n3\n",
        r"another length than the film. Found: 3 rows of actions for 6 frames. Expected: 5",
    ),
    "frames twice": ("frame,a\n0,1\n1,1\n1,2\n2,1\n3,1\n4,1\n", "two actions for one frame. Found: frame 1 2 times"),
    "a frame missing": ("frame,a\n0,1\n1,1\n3,1\n4,1\n", r"1 of 5 frames without an action, the first is 2"),
    "frames beyond": ("frame,a\n0,1\n1,1\n2,1\n3,1\n4,1\n9,1\n", r"actions of frames 0 to 9 for 6 frames"),
    "times fall": ("time_s,a\n0,1\n0.3,1\n0.2,1\n0.5,1\n", r"times of actions fall. Found: 0.2 s after 0.3 s"),
    "late start": ("time_s,a\n0.15,1\n0.3,1\n", r"the first action comes too late. Found: 0.15 s"),
}


@pytest.mark.parametrize("name", TABLES)
def test_bad_tables_get_one_message(name: str, tmp_path: pathlib.Path) -> None:
    text, words = TABLES[name]
    (tmp_path / "a.csv").write_text(text)
    np.savez(tmp_path / "a.npz", frames=MOVIE, fps=10.0)
    with pytest.raises(InputError, match=words):
        open_episodes(tmp_path / "a.npz")


def test_times_without_a_frame_rate(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.csv").write_text("time_s,a\n0,1\n0.2,2\n")
    np.save(tmp_path / "a.npy", MOVIE)
    with pytest.raises(InputError, match=r"times of actions, and frames without times.*say the frame rate"):
        open_episodes(tmp_path / "a.npy")
    assert open_episodes(tmp_path / "a.npy", WorldReading(fps=10))[0].actions is not None


def test_a_damaged_chunk_is_explained_when_it_is_read(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        held = file.create_dataset("frames", data=noise(6, 32, 32, 3), chunks=(1, 32, 32, 3), compression="gzip")
        place = held.id.get_chunk_info(4).byte_offset
    content = bytearray(path.read_bytes())
    content[place : place + 200] = bytes(200)
    path.write_bytes(bytes(content))
    episode = open_episodes(path, WorldReading(size=None))[0]
    assert episode.frames.read(0, 4).shape == (4, 32, 32, 3)
    with pytest.raises(InputError, match=r"a.h5, frames: not a readable HDF5 file"):
        episode.frames.read(4, 5)


# Fuzz


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The bytes cut, or with bits flipped anywhere or in the first 512."""
    kind = rng.randrange(3)
    if kind == 0:
        return content[: rng.randrange(len(content))]
    held = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(held) if kind == 1 else min(512, len(held)))
        held[place] ^= 1 << rng.randrange(8)
    return bytes(held)


@pytest.mark.parametrize(
    ("ending", "maker"), [(".npy", npy), (".npz", npz), (".npz", packed), (".h5", hdf5), (".h5", flat_hdf5)]
)
def test_damaged_files_never_crash_or_hang(ending: str, maker: Maker, tmp_path: pathlib.Path) -> None:
    path = tmp_path / f"a{ending}"
    maker(path)
    content, rng = path.read_bytes(), random.Random(7)
    refused = 0
    tracemalloc.start()
    for number in range(100):
        path = tmp_path / f"b{number}{ending}"
        path.write_bytes(damaged(content, rng))
        start = time.monotonic()
        try:
            for episode in open_episodes(path):
                episode.frames.read(0, min(len(episode), 8))
        except InputError as error:
            refused += 1
            assert path.name in str(error) or path.stem in str(error), error  # noqa: PT017
        assert time.monotonic() - start < 5
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6
    assert refused > 20


def test_damaged_tables_never_crash(tmp_path: pathlib.Path) -> None:
    rows = "".join(f"{k},{k * 0.1:.2f},{'left' if k % 2 else 'right'}\n" for k in range(40))
    content, rng = f"frame,push,key\n{rows}".encode(), random.Random(3)
    for number in range(100):
        path = tmp_path / f"b{number}.csv"
        path.write_bytes(damaged(content, rng))
        try:
            assert len(read_actions(path)) > 0
        except InputError as error:
            assert path.name in str(error)  # noqa: PT017
