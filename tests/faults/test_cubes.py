"""Bad cubes: one message each, with the place and the cure; damaged files never end in an unexplained traceback."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import random
import re
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile

from pipelines.data.errors import InputError
from pipelines.data.formats.cube import read_cube
from pipelines.data.formats.cube_scale import fit_scale
from pipelines.data.formats.cube_writing import CubeWriter, check_output

_SPEC = importlib.util.spec_from_file_location(
    "cube_makers", pathlib.Path(__file__).parents[1] / "unit" / "test_cube_formats.py"
)
if _SPEC is None or _SPEC.loader is None:
    raise ImportError("tests/unit/test_cube_formats.py")
makers = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(makers)

FULL = (slice(None), slice(None))
Maker = Callable[[pathlib.Path], Any]


def _envi(**changes: str) -> Maker:
    """A good ENVI pair, then lines of its header changed."""

    def write(path: pathlib.Path) -> None:
        makers.envi(path, makers.values())
        text = path.read_text()
        for key, value in changes.items():
            text = re.sub(rf"(?m)^{key.replace('_', ' ')} *=.*\n", f"{value}\n" if value else "", text)
        path.write_text(text)

    return write


def _fits(**cards: Any) -> Maker:
    return lambda path: path.write_bytes(makers.fits_bytes([({**cards}, makers.values("float32"))]))


def _cut(maker: Maker, keep: float) -> Maker:
    def write(path: pathlib.Path) -> None:
        maker(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * keep)])

    return write


def _mat(**variables: Any) -> Maker:
    return lambda path: scipy.io.savemat(path, variables)


def _packed(path: pathlib.Path) -> None:
    scipy.io.savemat(path, {"a": np.random.default_rng(0).random((20, 20, 9))}, do_compression=True)


def _objects(path: pathlib.Path) -> None:
    np.save(path, np.array([{}, {}]), allow_pickle=True)


def _huge_npy(path: pathlib.Path) -> None:
    makers.npy(path, makers.values())
    path.write_bytes(path.read_bytes().replace(b"(7, 20, 16), }  ", b"(70000, 20, 16)}"))


def _external(path: pathlib.Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("cube", (4, 8, 8), "f4", external=[("/etc/passwd", 0, 1024)])


def _complex(path: pathlib.Path) -> None:
    np.save(path, np.zeros((3, 8, 8), complex))


def _lost_page(path: pathlib.Path) -> None:
    """The second of three pages points to a third that is not there: two bands would be read without a word."""
    tifffile.imwrite(path, np.zeros((3, 9, 9), np.float32), photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path) as file:
        at, tags = file.pages[1].offset, len(file.pages[1].tags)
    content = bytearray(path.read_bytes())
    content[at + 2 + 12 * tags : at + 6 + 12 * tags] = b"\xff\xff\xff\x00"
    path.write_bytes(bytes(content))


def _shaped(*shape: int) -> Maker:
    return lambda path: np.save(path, np.zeros(shape))


CUBE = np.zeros((8, 8, 5))
CASES: dict[str, tuple[str, Maker, dict[str, Any], str]] = {
    "empty": (".npy", lambda p: p.write_bytes(b""), {}, "the file is empty"),
    "folder": (".npy", lambda p: p.mkdir(), {}, "is a folder"),
    "text renamed": (
        ".mat",
        lambda p: p.write_text("date,value\n1,2\n"),
        {},
        r"not a hyperspectral cube.*'date,value'",
    ),
    "text as fits": (".fits", lambda p: p.write_text("SIMPLE = T"), {}, "not a hyperspectral cube"),
    "gzip": (".fits.gz", lambda p: p.write_bytes(b"\x1f\x8b\x08\x00"), {}, r"Found: gzip.*unpack it first"),
    "png": (".tif", lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n"), {}, "a PNG picture"),
    "raw alone": (".img", lambda p: p.write_bytes(bytes(range(100))), {}, r"ENVI header beside it"),
    "wrong key": (
        ".mat",
        _mat(cube=CUBE, other=np.zeros((3, 3))),
        {"key": "cbue"},
        r"cube \(8, 8, 5\), other \(3, 3\).*cube",
    ),
    "two cubes": (".mat", _mat(a=CUBE, b=CUBE), {}, r"several variables.*a \(8, 8, 5\), b \(8, 8, 5\).*--key"),
    "no cube": (".mat", _mat(a=np.zeros((3, 3))), {}, r"no variable is a cube.*a \(3, 3\)"),
    "texts only": (".mat", _mat(a="hello"), {}, "no variable is a cube"),
    "table without size": (".mat", _mat(Y=np.zeros((5, 64))), {"key": "Y"}, r"table of bands and pixels.*--shape"),
    "table, wrong size": (
        ".mat",
        _mat(Y=np.zeros((5, 64))),
        {"key": "Y", "shape": (8, 9)},
        r"does not fit.*8 x 9 = 72",
    ),
    "complex mat": (".mat", _mat(a=np.zeros((8, 8, 5), complex)), {}, "no real numbers"),
    "cut mat": (
        ".mat",
        _cut(_mat(a=np.random.default_rng(0).random((20, 20, 9))), 0.5),
        {},
        "contradicts the file size",
    ),
    "cut packed mat": (".mat", _cut(_packed, 0.5), {}, "contradicts the file size"),
    "mat 4": (
        ".mat",
        lambda p: scipy.io.savemat(p, {"a": np.zeros((3, 3))}, format="4"),
        {},
        "save it again with save",
    ),
    "one band": (".npy", _shaped(1, 8, 8), {"axis": 0}, "one band only"),
    "one band mat": (".mat", _mat(a=np.zeros((8, 8))), {}, "no variable is a cube"),
    "no band": (".npy", _shaped(0, 8, 8), {"axis": 0}, "not a cube"),
    "four axes": (".npy", _shaped(1, 3, 8, 8), {}, "three axes"),
    "axis unclear": (".npy", _shaped(9, 8, 9), {}, r"cannot tell which axis.*--axis"),
    "no such axis": (".npy", _shaped(9, 8, 9), {"axis": 3}, "no such axis"),
    "key in npy": (".npy", _shaped(3, 9, 9), {"key": "a"}, "NPY has one array"),
    "objects": (".npy", _objects, {}, "no real numbers"),
    "complex npy": (".npy", _complex, {}, "no real numbers"),
    "huge npy": (".npy", _huge_npy, {}, r"contradicts the file size.*4,480 bytes.*44,800,000"),
    "cut npy": (".npy", _cut(_shaped(3, 9, 9), 0.9), {}, "contradicts the file size"),
    "cut npz": (".npz", _cut(lambda p: makers.npz(p, makers.values()), 0.5), {}, "not a readable NPZ"),
    "cut hdf5": (".h5", _cut(lambda p: makers.hdf5(p, makers.values()), 0.5), {}, "not a readable HDF5"),
    "data outside hdf5": (".h5", _external, {}, "outside the file"),
    "cut tiff": (".tif", _cut(lambda p: makers.geotiff(p, makers.values()), 0.9), {}, "contradicts|cut short|readable"),
    "lost page": (".tif", _lost_page, {}, "pages cannot be read. Found:.*invalid page offset"),
    "grey tiff": (".tif", lambda p: tifffile.imwrite(p, np.zeros((9, 9))), {}, "one band only"),
    "cut envi": (".hdr", _envi(lines=f"lines = {2 * makers.H}"), {}, r"contradicts the file size.*4,504 bytes.*8,984"),
    "envi too short": (".hdr", _envi(bands="bands = 3"), {}, "contradicts the file size"),
    "envi type": (".hdr", _envi(data_type="data type = 7"), {}, r"unknown data type. Found: 7. Expected: 1 \(uint8\)"),
    "envi complex": (".hdr", _envi(data_type="data type = 6"), {}, "complex floats"),
    "envi without bands": (".hdr", _envi(bands=""), {}, "no 'bands'"),
    "envi words": (".hdr", _envi(samples="samples = many"), {}, "'samples' is no whole number. Found: many"),
    "envi negative": (".hdr", _envi(lines="lines = -20"), {}, "empty or negative"),
    "envi interleave": (
        ".hdr",
        _envi(interleave="interleave = bsx"),
        {},
        r"unknown interleave. Found: bsx.*bil, bip, bsq",
    ),
    "envi byte order": (".hdr", _envi(byte_order="byte order = 3"), {}, "unknown byte order"),
    "envi packed": (".hdr", _envi(file_type="file compression = 1"), {}, "file compression"),
    "envi no-data": (
        ".hdr",
        _envi(data_ignore_value="data ignore value = none"),
        {},
        "'data ignore value' is no number",
    ),
    "envi without raw": (".hdr", lambda p: p.write_text("ENVI\nsamples = 3"), {}, "no raw file beside it"),
    "hdr of something else": (".hdr", lambda p: (_envi()(p), p.write_text("NITF"))[0], {}, "not an ENVI header"),
    "fits without end": (".fits", lambda p: p.write_bytes(b"SIMPLE  =".ljust(2880)), {}, "without its END"),
    "cut fits": (".fits", _cut(_fits(), 0.6), {}, r"contradicts the file size.*for \(7, 20, 16\)"),
    "fits of 2 axes": (
        ".fits",
        lambda p: p.write_bytes(makers.fits_bytes([({}, np.zeros((9, 9)))])),
        {},
        r"no extension is a cube.*PRIMARY \(9, 9\)",
    ),
    "fits key": (".fits", _fits(EXTNAME="SCI"), {"key": "DATA"}, r"no image extension 'DATA'.*SCI \(7, 20, 16\)"),
    "fits, absurd axis": (".fits", _fits(NAXIS1=-5), {}, "negative length"),
    "fits, absurd size": (".fits", _fits(NAXIS3=10**12), {}, "contradicts the file size"),
    "fits type": (".fits", _fits(BITPIX=13), {}, "unknown data type"),
    "missing": (".npy", lambda p: None, {}, "no such file"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_cubes_get_one_message(tmp_path: pathlib.Path, name: str) -> None:
    suffix, write, options, message = CASES[name]
    path = tmp_path / f"bad{suffix}"
    write(path)
    with pytest.raises(InputError, match=message) as caught:
        read_cube(path, **options)
    text = str(caught.value)
    assert "bad" in text
    assert len(text) < 600
    assert "\n" not in text


@pytest.mark.parametrize("name", makers.MAKERS)
def test_damaged_files_end_in_a_message_or_a_cube(tmp_path: pathlib.Path, name: str) -> None:
    """Cut, flipped and header-damaged files, 100 of each format: no crash, no hang, memory within bounds."""
    path, _, _ = makers.make(tmp_path, name, "uint16")
    damaged = path.with_name(f"in.{'hdr' if path.suffix == '.hdr' else 'x'}")
    whole, rng = path.read_bytes(), random.Random(name)
    slowest, messages = 0.0, []
    tracemalloc.start()
    for number in range(100):
        content = bytearray(whole)
        if number % 3 == 0:
            content = content[: rng.randrange(len(whole))]
        else:
            reach = len(whole) if number % 3 == 1 else min(len(whole), 700)
            for _ in range(rng.randrange(1, 6)):
                content[rng.randrange(reach)] = rng.randrange(256)
        damaged.write_bytes(bytes(content))
        begin = time.perf_counter()
        try:
            cube = read_cube(damaged)
            cube.block(*FULL)
        except InputError as error:
            messages.append(str(error))
        slowest = max(slowest, time.perf_counter() - begin)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(messages) > 10
    assert max(map(len, messages)) < 1500
    assert slowest < 5
    assert peak < 1e9


def test_an_absurd_size_in_a_matlab_file_allocates_nothing(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"cube": np.ones((8, 8, 5))})
    content = path.read_bytes()
    sizes = np.array([8, 8, 5], "<i4").tobytes()
    assert content.count(sizes) == 1
    path.write_bytes(content.replace(sizes, np.array([80000, 80000, 5], "<i4").tobytes()))
    tracemalloc.start()
    with pytest.raises(InputError, match=r"2,560 bytes for \(80000, 80000, 5\)"):
        read_cube(path)
    assert tracemalloc.get_traced_memory()[1] < 1e7
    tracemalloc.stop()


def test_a_bomb_is_refused_by_its_size(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.data.formats import cube_hdf5, cube_mat, cube_npy, cube_tiff

    zeros = np.zeros((100, 100, 40), np.float64)
    np.savez_compressed(tmp_path / "a.npz", cube=zeros)
    scipy.io.savemat(tmp_path / "a.mat", {"cube": zeros}, do_compression=True)
    tifffile.imwrite(tmp_path / "a.tif", zeros, compression="zlib", photometric="minisblack", planarconfig="contig")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("cube", data=zeros, compression="gzip")
    for module in (cube_hdf5, cube_mat, cube_npy, cube_tiff):
        monkeypatch.setattr(module, "MAX_LOADED", 1 << 20)
    for name in ("a.npz", "a.mat", "a.tif", "a.h5"):
        with pytest.raises(InputError, match=r"too large to be loaded.*3,200,"):
            read_cube(tmp_path / name)


def test_unreadable_and_damaged_variables_of_matlab_objects(tmp_path: pathlib.Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"cube": CUBE, "s": {"field": np.arange(3)}, "c": np.array([1, "x"], object)})
    cube = read_cube(tmp_path / "a.mat")
    with CubeWriter(cube, tmp_path / "b.mat") as writer:
        writer.put(*FULL, np.ones(cube.shape))
    again = scipy.io.loadmat(tmp_path / "b.mat")
    assert again["s"]["field"][0, 0].ravel().tolist() == [0, 1, 2]
    assert again["c"].shape == (1, 2)


def _write_half(cube: Any, out: pathlib.Path, values: np.ndarray) -> None:
    """One good piece, then one that does not fit."""
    with CubeWriter(cube, out) as writer:
        for columns in (slice(0, 9), slice(9, 12)):
            writer.put(slice(0, 4), columns, values[:, :4, :9].astype(float))


def test_a_failed_write_leaves_the_old_file(tmp_path: pathlib.Path) -> None:
    for name in makers.MAKERS:
        folder = tmp_path / name
        folder.mkdir()
        path, expected, _ = makers.make(folder, name, "uint16")
        cube, out = read_cube(path), folder / f"out{path.suffix}"
        out.write_bytes(b"old")
        with pytest.raises(InputError, match="another shape"):
            _write_half(cube, out, expected)
        assert out.read_bytes() == b"old"
        names = {one.name for one in folder.iterdir()}
        assert names == {path.name, out.name} | ({"in.img"} if name.startswith("envi") else set())


def test_answers_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 9, 9), np.float32))
    cube = read_cube(tmp_path / "a.npy")
    bad = np.zeros((3, 9, 9))
    bad[1, 1, 1] = np.nan
    with pytest.raises(InputError, match=r"not finite. Found: 1 voxels"), CubeWriter(cube, tmp_path / "b.npy") as out:
        out.put(*FULL, bad)
    with pytest.raises(InputError, match="another shape"), CubeWriter(cube, tmp_path / "b.npy") as out:
        out.put(slice(0, 3), slice(None), bad)
    with pytest.raises(InputError, match=r"another format.*-o b.npy"):
        check_output(cube, tmp_path / "b.tif")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npy"]


@pytest.mark.skipif(sys.platform != "linux", reason="limits of file size are those of Linux")
@pytest.mark.parametrize("suffix", [".npy", ".fits", ".mat"])
def test_a_full_disk_is_an_error_and_not_a_crash(tmp_path: pathlib.Path, suffix: str) -> None:
    """Writing to a mapped file without room would end the process by SIGBUS; here the file size is limited instead."""
    maker = {".npy": makers.npy, ".fits": makers.fits, ".mat": makers.mat5}[suffix]
    noise = np.random.default_rng(0).random((makers.D, makers.H, makers.W)).astype("float32")
    maker(tmp_path / f"a{suffix}", noise)
    script = (
        "import resource, signal, sys, numpy as np\n"
        "from pipelines.data.formats.cube import read_cube\n"
        "from pipelines.data.formats.cube_writing import CubeWriter\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "cube = read_cube(sys.argv[1])\n"
        "values = cube.block(slice(None), slice(None))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    with CubeWriter(cube, sys.argv[2]) as out:\n"
        "        out.put(slice(None), slice(None), values)\n"
        "except OSError as error:\n"
        "    print('OSError', error.errno)\n"
    )
    root = pathlib.Path(__file__).parents[2]
    out = tmp_path / f"b{suffix}"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / f"a{suffix}"), str(out)],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
    )
    assert (done.returncode, done.stdout.split()[:1]) == (0, ["OSError"]), done.stderr[-500:]
    assert [p.name for p in tmp_path.iterdir()] == [f"a{suffix}"]


def test_odd_but_usable_cubes_are_noted(tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 9, 9), np.uint8))
    assert any("-9999 does not fit into uint8" in note for note in read_cube(tmp_path / "a.npy", no_data=-9999).notes)
    np.save(tmp_path / "b.npy", np.zeros((3, 9, 9), np.int64))
    assert any("beyond 2^53" in note for note in read_cube(tmp_path / "b.npy").notes)
    scipy.io.savemat(tmp_path / "c.mat", {"a": np.zeros((8, 9, 50))})
    assert any("more bands (50)" in note for note in read_cube(tmp_path / "c.mat").notes)


def test_a_cube_without_any_value(tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "a.npy", np.full((3, 9, 9), np.nan))
    with pytest.raises(InputError, match="no voxel has a value"):
        fit_scale(read_cube(tmp_path / "a.npy"))
