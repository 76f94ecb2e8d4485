"""Every format of cubes: values, axes, wavelengths, no-data, and an answer that differs in its numbers only."""

from __future__ import annotations

import pathlib
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile

from pipelines.data.formats.cube import read_cube
from pipelines.data.formats.cube_mat import save_mat
from pipelines.data.formats.cube_writing import CubeWriter

D, H, W = 7, 20, 16
EVERYWHERE = (slice(None), slice(None))


def values(dtype: str = "uint16") -> np.ndarray:
    """A cube (D, H, W) in which every number is different."""
    return np.arange(D * H * W).reshape(D, H, W).astype(dtype)


def fits_bytes(units: list[tuple[dict[str, Any], np.ndarray | None]]) -> bytes:
    """A FITS file by the standard: cards of 80 characters, blocks of 2880 bytes, big endian."""
    out = b""
    codes = {"uint8": 8, "int16": 16, "int32": 32, "int64": 64, "float32": -32, "float64": -64}
    for number, (cards, data) in enumerate(units):
        shape = () if data is None else data.shape[::-1]
        head: dict[str, Any] = {"SIMPLE": True} if number == 0 else {"XTENSION": "IMAGE   "}
        head |= {"BITPIX": 8 if data is None else codes[data.dtype.name], "NAXIS": len(shape)}
        head |= {f"NAXIS{i + 1}": n for i, n in enumerate(shape)}
        head |= {"EXTEND": True} if number == 0 else {"PCOUNT": 0, "GCOUNT": 1}

        def text(value: Any) -> str:
            if isinstance(value, bool):
                return f"{'T' if value else 'F':>20}"
            return f"'{value.replace(chr(39), chr(39) * 2):8}'" if isinstance(value, str) else f"{value!r:>20}"

        lines = [f"{key:8}= {text(value)} / a comment" for key, value in (head | cards).items()] + ["END"]
        block = "".join(f"{line:80}" for line in lines).encode()
        out += block + b" " * (-len(block) % 2880)
        if data is not None:
            raw = data.astype(data.dtype.newbyteorder(">")).tobytes()
            out += raw + b"\0" * (-len(raw) % 2880)
    return out


WCS = {"CRVAL3": 4750.0, "CRPIX3": 1.0, "CD3_3": 1.25, "CUNIT3": "Angstrom", "CTYPE3": "AWAV"}


def mat5(path: pathlib.Path, cube: np.ndarray) -> dict[str, Any]:
    scipy.io.savemat(path, {"rad": cube.transpose(1, 2, 0), "wavelength": 400.0 + np.arange(D), "title": "a cube"})
    return {}


def mat73(path: pathlib.Path, cube: np.ndarray) -> dict[str, Any]:
    """As MATLAB writes: a user block of 512 bytes, axes reversed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        one = file.create_dataset("rad", data=cube.transpose(1, 2, 0).T)  # (D, W, H)
        one.attrs["MATLAB_class"] = np.bytes_(cube.dtype.name)
        file.create_dataset("wavelength", data=400.0 + np.arange(D)[:, None])
    head = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: today HDF5 schema 1.00 ."
    path.write_bytes(head.ljust(512, b" ") + path.read_bytes()[512:])
    return {}


def hdf5(path: pathlib.Path, cube: np.ndarray, **storage: Any) -> dict[str, Any]:
    with h5py.File(path, "w") as file:
        one = file.create_dataset("scene/reflectance", data=cube, **storage)
        one.attrs["units"] = "W/m2"
        one.attrs["_FillValue"] = cube.dtype.type(5)
        waves = file.create_dataset("scene/wavelength", data=0.4 + 0.001 * np.arange(D))
        waves.attrs["units"] = "um"
    return {}


def chunked(path: pathlib.Path, cube: np.ndarray) -> dict[str, Any]:
    return hdf5(path, cube, chunks=(2, 8, 8), compression="gzip")


def envi(path: pathlib.Path, cube: np.ndarray, interleave: str = "bil", order: int = 0) -> dict[str, Any]:
    stored = cube.transpose({"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}[interleave])
    codes = {"uint8": 1, "int16": 2, "int32": 3, "float32": 4, "float64": 5, "uint16": 12, "uint32": 13, "int64": 14}
    waves = ",\n ".join(f"{0.4 + 0.001 * i:.4f}" for i in range(D))
    path.write_text(
        f"ENVI\ndescription = {{\n a test = of braces}}\nsamples = {W}\nlines   = {H}\nbands   = {D}\n"
        f"header offset = 24\nfile type = ENVI Standard\ndata type = {codes[cube.dtype.name]}\n"
        f"interleave = {interleave.upper()}\nbyte order = {order}\nwavelength units = Micrometers\n"
        f"data ignore value = 5\nmap info = {{UTM, 1, 1, 5e5, 4e6, 30, 30, 10, North}}\nwavelength = {{\n {waves}}}\n"
    )
    raw = stored.astype(stored.dtype.newbyteorder("<>"[order])).tobytes()
    path.with_suffix(".img").write_bytes(b"h" * 24 + raw)
    return {}


def big_endian_bsq(path: pathlib.Path, cube: np.ndarray) -> dict[str, Any]:
    return envi(path, cube, "bsq", 1)


def bip(path: pathlib.Path, cube: np.ndarray) -> dict[str, Any]:
    return envi(path, cube, "bip")


GEO = [
    (33550, "d", 3, (30.0, 30.0, 0.0), True),
    (33922, "d", 6, (0.0, 0.0, 0.0, 5e5, 4e6, 0.0), True),
    (34735, "H", 8, (1, 1, 0, 1, 1024, 0, 1, 1), True),
    (34737, "s", 0, "WGS 84|", True),
    (42113, "s", 0, "5", True),
]


def geotiff(path: pathlib.Path, cube: np.ndarray, **options: Any) -> dict[str, Any]:
    items = "".join(f'<Item name="wavelength" sample="{i}" role="w">{400 + i}.0</Item>' for i in range(D))
    extra = [*GEO, (42112, "s", 0, f"<GDALMetadata>{items}</GDALMetadata>", True)]
    settings = {"photometric": "minisblack", "planarconfig": "contig", "metadata": None, **options}
    tifffile.imwrite(path, cube.transpose(1, 2, 0), extratags=extra, **settings)
    return {}


def packed_tiff(path: pathlib.Path, cube: np.ndarray) -> dict[str, Any]:
    return geotiff(path, cube, compression="zlib", predictor=cube.dtype.kind != "f", byteorder=">")


def tiled_tiff(path: pathlib.Path, cube: np.ndarray) -> dict[str, Any]:
    return geotiff(path, cube, tile=(16, 16))


def pages(path: pathlib.Path, cube: np.ndarray) -> dict[str, Any]:
    tifffile.imwrite(path, cube, photometric="minisblack", metadata=None)
    return {}


def npy(path: pathlib.Path, cube: np.ndarray) -> dict[str, Any]:
    np.save(path, cube)
    return {}


def fortran(path: pathlib.Path, cube: np.ndarray) -> dict[str, Any]:
    np.save(path, np.asfortranarray(cube.transpose(1, 2, 0)))
    return {}


def npz(path: pathlib.Path, cube: np.ndarray) -> dict[str, Any]:
    np.savez_compressed(path, noisy=cube, gt=cube + 1, wavelengths=400.0 + np.arange(D), label=np.array("x"))
    return {}


def fits(path: pathlib.Path, cube: np.ndarray) -> dict[str, Any]:
    if cube.dtype == np.uint16:  # stored as int16 with an offset
        stored, cards = (cube.astype(np.int32) - 32768).astype(np.int16), {"BZERO": 32768, "BSCALE": 1}
        path.write_bytes(fits_bytes([({}, None), ({"EXTNAME": "DATA", **WCS, **cards}, stored)]))
        return {"stored": stored}
    stat, field = np.full(cube.shape, 4.0, np.float32), np.arange(H * W).reshape(H, W)
    units = [({"OBJECT": "it's"}, None), ({"EXTNAME": "DATA", "BUNIT": "erg", **WCS}, cube)]
    path.write_bytes(fits_bytes([*units, ({"EXTNAME": "STAT"}, stat), ({"EXTNAME": "FIELDMAP"}, field)]))
    return {"variance": True}


def packed_mat(path: pathlib.Path, cube: np.ndarray) -> dict[str, Any]:
    scipy.io.savemat(path, {"title": "a cube", "rad": cube.transpose(1, 2, 0)}, do_compression=True)
    return {}


MAKERS: dict[str, tuple[Callable[..., dict[str, Any]], str]] = {
    "mat5": (mat5, ".mat"),
    "mat5 packed": (packed_mat, ".mat"),
    "mat73": (mat73, ".mat"),
    "hdf5": (hdf5, ".h5"),
    "hdf5 chunked": (chunked, ".h5"),
    "envi bil": (envi, ".hdr"),
    "envi bip": (bip, ".hdr"),
    "envi bsq big endian": (big_endian_bsq, ".hdr"),
    "geotiff": (geotiff, ".tif"),
    "geotiff packed": (packed_tiff, ".tif"),
    "geotiff tiled": (tiled_tiff, ".tif"),
    "tiff pages": (pages, ".tif"),
    "npy": (npy, ".npy"),
    "npy fortran": (fortran, ".npy"),
    "npz": (npz, ".npz"),
    "fits": (fits, ".fits"),
}
WITH_WAVES = [name for name in MAKERS if not {"npy", "pages", "mat5 packed"} & {name, *name.split()}]


def make(folder: pathlib.Path, name: str, dtype: str) -> tuple[pathlib.Path, np.ndarray, dict[str, Any]]:
    maker, suffix = MAKERS[name]
    path, cube = folder / f"in{suffix}", values(dtype)
    return path, cube, maker(path, cube)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("name", MAKERS)
def test_reading(tmp_path: pathlib.Path, name: str, dtype: str) -> None:
    path, expected, facts = make(tmp_path, name, dtype)
    cube = read_cube(path)
    assert cube.format == name.split()[0].replace("tiff", "geotiff").replace("geogeo", "geo")
    block = cube.block(*EVERYWHERE)
    known = expected != cube.no_data if cube.no_data is not None else np.ones(expected.shape, bool)
    assert np.array_equal(block[known], expected[known])
    assert np.isnan(block[~known]).all()
    assert cube.dtype.name == facts.get("stored", expected).dtype.name
    assert (cube.variance is not None) == facts.get("variance", False)
    part = cube.block(slice(2, 5), slice(1, 9), slice(1, 4))
    assert np.array_equal(part, block[1:4, 2:5, 1:9], equal_nan=True)
    if name in WITH_WAVES:
        first, step = (475.0, 0.125) if name == "fits" else (400.0, 1.0)
        assert cube.wavelengths is not None
        assert np.allclose(cube.wavelengths, first + step * np.arange(D), rtol=1e-6)
    else:
        assert cube.wavelengths is None
        assert any("no wavelengths" in note for note in cube.notes)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("name", MAKERS)
def test_writing_in_pieces_and_reading_back(tmp_path: pathlib.Path, name: str, dtype: str) -> None:
    path, expected, _ = make(tmp_path, name, dtype)
    cube = read_cube(path)
    out = tmp_path / f"out{path.suffix}"
    answer = expected.astype(np.float64) * 2 + (0.25 if dtype == "float32" else 0.4)
    with CubeWriter(cube, out) as writer:
        for top in range(0, H, 6):
            for left in range(0, W, 5):
                rows, columns = slice(top, min(top + 6, H)), slice(left, min(left + 5, W))
                writer.put(rows, columns, answer[:, rows, columns])
        assert not out.exists()
    again = read_cube(out)
    wanted = np.where(expected == cube.no_data, np.nan, expected * 2 + (0.25 if dtype == "float32" else 0))
    assert np.array_equal(again.block(*EVERYWHERE), wanted, equal_nan=True)
    before, after = cube.describe(), again.describe()
    assert {**before, "file": ""} == {**after, "file": ""}
    assert again.layout == cube.layout
    assert any("rounded" in note for note in writer.notes) == (dtype == "uint16")
    assert not [p for p in tmp_path.iterdir() if "partial" in p.name]


def test_other_contents_survive(tmp_path: pathlib.Path) -> None:
    for name in MAKERS:
        folder = tmp_path / name
        folder.mkdir()
        path, expected, _ = make(folder, name, "float32")
        out = folder / f"out{path.suffix}"
        with CubeWriter(read_cube(path), out) as writer:
            writer.put(*EVERYWHERE, expected.astype(float))
        if name == "mat5 packed":
            assert scipy.io.loadmat(out)["title"][0] == "a cube"
        elif name in ("fits", "npy", "npy fortran", "mat5", "mat73", "hdf5", "geotiff", "tiff pages"):
            assert out.read_bytes() == path.read_bytes()
        elif name.startswith("envi"):
            assert out.read_text() == path.read_text()
            assert out.with_suffix(".img").read_bytes() == path.with_suffix(".img").read_bytes()
        elif name.startswith("geotiff"):
            with tifffile.TiffFile(path) as one, tifffile.TiffFile(out) as other:
                first, second = one.pages[0], other.pages[0]
                for tag in (*[t[0] for t in GEO], 42112, 259, 262, 277, 284, 317, 322):
                    assert getattr(first.tags.get(tag), "value", None) == getattr(second.tags.get(tag), "value", None)
                assert one.byteorder == other.byteorder
        elif name == "npz":
            assert np.array_equal(np.load(out)["gt"], expected + 1)
        else:
            with h5py.File(out) as file:
                assert file["scene/reflectance"].chunks == (2, 8, 8)
                assert file["scene/reflectance"].attrs["units"] == "W/m2"


@pytest.mark.parametrize("name", ["npy", "envi bil", "envi bip", "fits", "hdf5", "mat5", "mat73"])
def test_memory_stays_small(tmp_path: pathlib.Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for letter, length in (("D", 40), ("H", 256), ("W", 200)):
        monkeypatch.setitem(globals(), letter, length)
    path, expected, _ = make(tmp_path, name, "float32")  # 8 MB
    del expected
    tracemalloc.start()
    cube = read_cube(path)
    with CubeWriter(cube, tmp_path / f"out{path.suffix}") as writer:
        for top in range(0, 256, 16):
            rows = slice(top, top + 16)
            writer.put(rows, slice(None), cube.block(rows, slice(None)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


def test_integers_are_rounded_clipped_and_counted(tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "a.npy", values("uint8"))
    cube = read_cube(tmp_path / "a.npy")
    answer = np.full((D, H, W), 100.5)
    answer[0, 0, :3] = [-0.6, 255.5, 255.4]
    with CubeWriter(cube, tmp_path / "b.npy") as writer:
        writer.put(*EVERYWHERE, answer)
    written = np.load(tmp_path / "b.npy")
    assert written[0, 0, :4].tolist() == [0, 255, 255, 100]
    assert writer.clipped == 2
    assert writer.notes[0].startswith("2 of 2,240 voxels lay outside uint8")


@pytest.mark.parametrize("dtype", ["int64", "uint64", "int32", "int8"])
def test_ends_of_integer_types(tmp_path: pathlib.Path, dtype: str) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 8, 8), dtype))
    cube = read_cube(tmp_path / "a.npy")
    answer = np.full((2, 8, 8), 1e30)
    answer[0] = -1e30
    with CubeWriter(cube, tmp_path / "b.npy") as writer:
        writer.put(*EVERYWHERE, answer)
    written = np.load(tmp_path / "b.npy")
    limits = np.iinfo(dtype)
    assert int(written.min()) == limits.min
    assert limits.max - int(written.max()) <= limits.max // 2**53
    assert writer.clipped == 128


def test_no_data_and_nan_keep_their_bits(tmp_path: pathlib.Path) -> None:
    odd = np.array([0x7FC12345], np.uint32).view(np.float32)[0]
    stored = values("float32")
    stored[1, 2, 3], stored[2, 2, 3], stored[3, 2, 3] = odd, np.inf, -999
    np.save(tmp_path / "a.npy", stored)
    cube = read_cube(tmp_path / "a.npy", no_data=-999)
    assert np.isnan(cube.block(*EVERYWHERE)).sum() == 3
    answer = np.full((D, H, W), -999.0)  # every answer falls on the number for no-data
    with CubeWriter(cube, tmp_path / "b.npy") as writer:
        writer.put(*EVERYWHERE, answer)
    written = np.load(tmp_path / "b.npy")
    assert written[1, 2, 3:4].view(np.uint32)[0] == 0x7FC12345
    assert np.isposinf(written[2, 2, 3])
    assert (written == -999).sum() == 1
    assert (writer.kept, writer.moved) == (3, D * H * W - 3)
    assert written[0, 0, 0] == np.nextafter(np.float32(-999), np.float32(np.inf))


def test_scaled_integers_of_fits(tmp_path: pathlib.Path) -> None:
    stored = np.arange(2 * 8 * 8, dtype=np.int16).reshape(2, 8, 8)
    cards = {"BSCALE": 0.5, "BZERO": -3.0, "BLANK": 7, **WCS}
    (tmp_path / "a.fits").write_bytes(fits_bytes([(cards, stored)]))
    cube = read_cube(tmp_path / "a.fits")
    block = cube.block(*EVERYWHERE)
    assert block.dtype == np.float64
    assert np.isnan(block[0, 0, 7])
    assert block[1, 7, 7] == 127 * 0.5 - 3
    with CubeWriter(cube, tmp_path / "b.fits") as writer:
        writer.put(*EVERYWHERE, np.full((2, 8, 8), 10.1))
    assert read_cube(tmp_path / "b.fits").stored.ravel()[:9].tolist() == [26] * 7 + [7, 26]
    assert (writer.kept, writer.clipped) == (1, 0)


def test_fits_agrees_with_astropy(tmp_path: pathlib.Path) -> None:
    theirs = pytest.importorskip("astropy.io.fits")
    path, expected, _ = make(tmp_path, "fits", "float32")
    with theirs.open(path) as file:
        assert np.array_equal(file["DATA"].data, expected)
        assert file[0].header["OBJECT"] == "it's"
    image = theirs.ImageHDU(expected, name="DATA")
    image.header["CTYPE3"], image.header["CRVAL3"], image.header["CDELT3"] = "WAVE", 5e-7, 1e-9
    image.header["CUNIT3"], image.header["OBSERVER"] = "m", "O'Hara / team"
    theirs.HDUList([theirs.PrimaryHDU(), image]).writeto(tmp_path / "b.fits", checksum=True)
    cube = read_cube(tmp_path / "b.fits")
    assert np.allclose(cube.wavelengths, 500 + np.arange(D))
    assert cube.meta["unit"].header["OBSERVER"] == "O'Hara / team"
    with CubeWriter(cube, tmp_path / "c.fits") as writer:
        writer.put(*EVERYWHERE, expected + 1.0)
    with theirs.open(tmp_path / "c.fits", checksum=True) as file:
        assert np.array_equal(file["DATA"].data, expected + 1)
        assert "DATASUM" not in file["DATA"].header
        assert file["DATA"].header["OBSERVER"] == "O'Hara / team"


def test_pixel_tables_run_down_the_columns_in_matlab(tmp_path: pathlib.Path) -> None:
    cube = values()
    table = cube.transpose(0, 2, 1).reshape(D, H * W)  # pixel = row + H * column
    scipy.io.savemat(tmp_path / "a.mat", {"Y": table, "lines": H, "cols": W})
    read = read_cube(tmp_path / "a.mat")
    assert np.array_equal(read.block(*EVERYWHERE), cube)
    with CubeWriter(read, tmp_path / "b.mat") as writer:
        writer.put(*EVERYWHERE, cube + 1.0)
    assert np.array_equal(scipy.io.loadmat(tmp_path / "b.mat")["Y"], table + 1)
    scipy.io.savemat(tmp_path / "c.mat", {"Y": table.T})
    turned = read_cube(tmp_path / "c.mat", key="Y", shape=(H, W))
    assert np.array_equal(turned.block(*EVERYWHERE), cube)
    np.save(tmp_path / "d.npy", cube.reshape(D, H * W))
    rows_first = read_cube(tmp_path / "d.npy", shape=(H, W))
    assert np.array_equal(rows_first.block(*EVERYWHERE), cube)
    assert "along the rows" in rows_first.notes[0]


def test_jasper_is_read_like_its_ground_truth(benchmark: pathlib.Path) -> None:
    path = benchmark / "hyperspectral" / "Jasper.mat"
    if not path.is_file():
        pytest.skip("Jasper.mat is not in the benchmark folder")
    cube = read_cube(path)
    assert (cube.key, cube.shape) == ("Y", (198, 100, 100))
    full = scipy.io.loadmat(path)
    model = np.tensordot(full["GT"].astype(float), full["S_GT"], (0, 2))  # endmembers times abundances
    data = cube.block(*EVERYWHERE).astype(float)
    fit = np.corrcoef(model.ravel(), data.ravel())[0, 1]
    turned = np.corrcoef(model.ravel(), data.transpose(0, 2, 1).ravel())[0, 1]
    assert fit > 0.9 > turned + 0.1


def test_muufl_is_chosen_by_name(benchmark: pathlib.Path) -> None:
    path = benchmark / "hyperspectral" / "muufl_130_90.mat"
    if not path.is_file():
        pytest.skip("the MUUFL crop is not in the benchmark folder")
    cube = read_cube(path)
    assert (cube.key, cube.shape) == ("Y", (64, 90, 90))
    assert any("not used: MPN, label" in note for note in cube.notes)


@pytest.mark.parametrize(("order", "mark"), [("<", b"IM"), (">", b"MI")])
@pytest.mark.parametrize("packed", [False, True])
def test_matlab_stores_small_numbers_in_narrow_types(
    tmp_path: pathlib.Path, order: str, mark: bytes, packed: bool
) -> None:
    """A double array kept as bytes, and a short name inside its tag, in both byte orders."""
    cube = (values() % 200).astype("u1")

    def part(kind: int, content: bytes) -> bytes:
        if len(content) <= 4:
            tag = struct.pack(f"{order}I", len(content) << 16 | kind)
            return tag + content.ljust(4, b"\0")
        return struct.pack(f"{order}II", kind, len(content)) + content + bytes(-len(content) % 8)

    body = part(6, struct.pack(f"{order}II", 6, 0)) + part(5, struct.pack(f"{order}3i", H, W, D))
    body += part(1, b"rad") + part(2, cube.transpose(1, 2, 0).ravel(order="F").tobytes())
    element = struct.pack(f"{order}II", 14, len(body)) + body
    if packed:
        squeezed = zlib.compress(element)
        element = struct.pack(f"{order}II", 15, len(squeezed)) + squeezed
    head = b"MATLAB 5.0 MAT-file, by hand".ljust(124) + struct.pack(f"{order}H", 0x0100) + mark
    (tmp_path / "a.mat").write_bytes(head + element)
    read = read_cube(tmp_path / "a.mat")
    assert read.dtype == np.float64
    assert np.array_equal(read.block(*EVERYWHERE), cube)
    with CubeWriter(read, tmp_path / "b.mat") as writer:
        writer.put(*EVERYWHERE, cube + 0.25)
    assert np.array_equal(scipy.io.loadmat(tmp_path / "b.mat")["rad"], cube.transpose(1, 2, 0) + 0.25)


def test_test_data_of_noise_cases(tmp_path: pathlib.Path) -> None:
    save_mat(tmp_path / "a.mat", {"input": values("float32"), "gt": values("float32") + 1, "sigma": np.arange(3)})
    cube = read_cube(tmp_path / "a.mat")
    assert cube.key == "input"
    assert np.array_equal(cube.block(*EVERYWHERE), values())
    assert np.array_equal(read_cube(tmp_path / "a.mat", key="gt").block(*EVERYWHERE), values() + 1)
