"""Archives made to escape, to explode, or damaged: refused in one sentence, with nothing unpacked."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pathlib
import random
import stat
import tarfile
import time
import warnings
import zipfile

import pytest

from pipelines.data.errors import InputError
from pipelines.data.formats.archive import bounded_decompress, extract, open_member

_TABLE = b"date,OT\n" + b"".join(b"2020-01-%02d,%d\n" % (day, day * day) for day in range(1, 31)) * 40
_OUTSIDE = ["../evil", "a/../../evil", "/no/such/place/evil", "..\\evil", "C:\\evil", "C:/evil", "\\\\host\\evil"]


def _tar(path: pathlib.Path, *members: tuple[str, bytes] | tarfile.TarInfo, mode: str = "w") -> pathlib.Path:
    with tarfile.open(path, mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            archive.addfile(info, io.BytesIO(member[1]))
    return path


def _zip(path: pathlib.Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> pathlib.Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of the duplicate names that a test wants
        for name, content in members:
            archive.writestr(name, content)
    return path


def _refused(archive: pathlib.Path, match: str, **limits: int) -> None:
    target = archive.parent / "target"
    before = sorted(archive.parent.iterdir())
    with pytest.raises(InputError, match=match) as caught:
        extract(archive, target, **limits)
    assert str(archive) in str(caught.value)
    assert sorted(archive.parent.iterdir()) == before


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_honest_tar(tmp_path, mode):
    archive = _tar(tmp_path / "a.tar", ("x/a.csv", _TABLE), ("b.csv", b""), mode=mode)
    files = extract(archive, tmp_path / "out")
    assert files == [tmp_path / "out/x/a.csv", tmp_path / "out/b.csv"]
    assert files[0].read_bytes() == _TABLE


def test_honest_zip_and_empty_folder(tmp_path):
    archive = _zip(tmp_path / "a.zip", ("x/a.csv", _TABLE), ("y/", b""))
    (tmp_path / "out").mkdir()
    assert extract(archive, tmp_path / "out")[0].read_bytes() == _TABLE
    assert (tmp_path / "out/y").is_dir()
    with pytest.raises(InputError, match="not empty"):
        extract(archive, tmp_path / "out")


@pytest.mark.parametrize("name", _OUTSIDE)
@pytest.mark.parametrize("make", [_tar, _zip])
def test_names_that_lead_outside(tmp_path, make, name):
    _refused(make(tmp_path / "a", ("fine.csv", _TABLE), (name, b"evil")), "leads outside the folder")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar(tmp_path, kind):
    info = tarfile.TarInfo("inner")
    info.type, info.linkname = kind, "/etc"
    _refused(_tar(tmp_path / "a.tar", info), "not a file or a folder.*inner")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFBLK])
def test_links_and_devices_in_a_zip(tmp_path, kind):
    info = zipfile.ZipInfo("inner")
    info.external_attr = (kind | 0o777) << 16
    _refused(_zip(tmp_path / "a.zip", (info, b"/etc")), "not a file or a folder.*inner")


@pytest.mark.parametrize("make", [_tar, _zip])
def test_names_that_stand_twice(tmp_path, make):
    _refused(make(tmp_path / "a", ("a.csv", _TABLE), ("./a.csv", b"other")), "twice")


@pytest.mark.parametrize("make", [_tar, _zip])
def test_a_file_where_a_folder_is_named(tmp_path, make):
    _refused(make(tmp_path / "a", ("a", b"x"), ("a/b", b"y")), "damaged or unsupported")


@pytest.mark.parametrize("make", [_tar, _zip])
def test_limits_by_headers(tmp_path, make):
    archive = make(tmp_path / "a", ("a", bytes(6000)), ("b", bytes(6000)))
    _refused(archive, "more than is allowed", max_bytes=10_000)
    _refused(archive, "too many members", max_members=1)
    assert len(extract(archive, tmp_path / "out", max_bytes=12_000, max_members=2)) == 2


def test_gzip_bomb_is_left_early(tmp_path):
    """Two megabytes that hold two gigabytes: refused at the limit, without expanding them."""
    bomb = tmp_path / "bomb.gz"
    piece = gzip.compress(bytes(1 << 24))
    bomb.write_bytes(piece * 128)
    start = time.monotonic()
    with pytest.raises(InputError, match="more than is allowed"):
        bounded_decompress(bomb, 1 << 25)
    assert time.monotonic() - start < 5


def test_tar_header_that_claims_terabytes(tmp_path):
    info = tarfile.TarInfo("a")
    info.size = 1 << 42
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    _refused(tmp_path / "a.tar", "more than is allowed")


def test_tar_name_that_claims_a_gigabyte(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    _refused(tmp_path / "a.tar", "absurd")


def test_zip_whose_header_lies(tmp_path):
    """The directory claims 10 bytes of a member that holds far more."""
    archive = _zip(tmp_path / "a.zip", ("a.csv", bytes(1 << 20)))
    content = bytearray(archive.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = (10).to_bytes(4, "little")
    archive.write_bytes(content)
    _refused(archive, "damaged")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_cut_tar_is_never_a_shorter_one(tmp_path, mode):
    whole = _tar(tmp_path / "whole", *((f"{i}.csv", _TABLE[: 700 + i]) for i in range(9)), mode=mode).read_bytes()
    (tmp_path / "whole").unlink()
    picks = random.Random(1)
    cut = tmp_path / "cut"
    # A plain tar ends in kilobytes of zeros: the last part of those is not content.
    end = len(whole) if mode != "w" else len(whole.rstrip(b"\0"))
    for _ in range(25):
        cut.write_bytes(whole[: picks.randrange(end)])
        _refused(cut, "damaged|truncated")


def test_damaged_header_in_the_middle_of_a_tar(tmp_path):
    """tarfile itself returns the members before it without a word."""
    archive = _tar(tmp_path / "a.tar", *((f"{i}.csv", b"x" * 512) for i in range(4)))
    content = bytearray(archive.read_bytes())
    content[2 * 1024 + 3] ^= 1
    archive.write_bytes(content)
    with tarfile.open(archive) as plain:
        assert len(plain.getmembers()) == 2
    _refused(archive, "no end mark after 2 members")


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz"])
def test_flipped_bits(tmp_path, kind, seed):
    """Whatever bit flips, what comes out is the original content or one InputError."""
    members = [(f"{i}.csv", _TABLE[i * 100 : i * 100 + 5000]) for i in range(3)]
    path = tmp_path / f"a.{kind}"
    whole = _zip(path, *members) if kind == "zip" else _tar(path, *members, mode=f"w:{kind[4:]}")
    content = bytearray(whole.read_bytes())
    place = random.Random(seed).randrange(len(content) * 8)
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)
    try:
        files = extract(path, tmp_path / "out")
    except InputError:
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    else:
        assert [file.read_bytes() for file in files] == [content for _, content in members]


@pytest.mark.parametrize("codec", [gzip, bz2, lzma])
def test_streams(tmp_path, codec):
    path = tmp_path / "a"
    whole = codec.compress(_TABLE)
    path.write_bytes(whole)
    assert bounded_decompress(path, len(_TABLE)) == _TABLE
    with pytest.raises(InputError, match="more than is allowed"):
        bounded_decompress(path, len(_TABLE) - 1)
    for place in random.Random(2).sample(range(1, len(whole)), 20):
        path.write_bytes(whole[:place])
        with pytest.raises(InputError):
            _compressed_only(path, codec)
    for place in random.Random(3).sample(range(80, len(whole) * 8), 40):
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        with pytest.raises(InputError, match="damaged"):
            assert _compressed_only(path, codec) != _TABLE


def _compressed_only(path: pathlib.Path, codec: object) -> bytes:
    """A file cut within its magic number is no longer a stream: it comes back as it is."""
    content = bounded_decompress(path)
    if content == path.read_bytes():
        raise InputError("damaged magic number", where=path)
    return content


def test_plain_file_is_given_as_it_is(tmp_path):
    (tmp_path / "a.csv").write_bytes(_TABLE)
    assert bounded_decompress(tmp_path / "a.csv") == _TABLE


def test_one_table_in_a_zip(tmp_path):
    clutter = ("__MACOSX/._a.csv", b"x"), (".DS_Store", b"x"), ("folder/", b"")
    path = _zip(tmp_path / "a.zip", ("folder/a.csv", _TABLE), *clutter)
    assert open_member(path) == ("folder/a.csv", _TABLE)
    with pytest.raises(InputError, match="more than is allowed"):
        open_member(path, max_bytes=100)
    two = _zip(tmp_path / "b.zip", ("a.csv", _TABLE), ("b.csv", b"b"))
    with pytest.raises(InputError, match=r"2 files: a.csv, b.csv"):
        open_member(two)
    assert open_member(two, "b.csv") == ("b.csv", b"b")
    with pytest.raises(InputError, match=r"c\.csv"):
        open_member(two, "c.csv")


def test_encrypted_zip(tmp_path):
    path = _zip(tmp_path / "a.zip", ("a.csv", _TABLE))
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1
    path.write_bytes(content)
    _refused(path, "encrypted")
    with pytest.raises(InputError, match="encrypted"):
        open_member(path)


@pytest.mark.parametrize("content", [b"", b"not an archive at all" * 50, b"PK\x03\x04" + b"x" * 100, b"\x1f\x8b"])
def test_not_an_archive(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    _refused(tmp_path / "a.tar", "archive|damaged")


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        extract(tmp_path / "none.zip", tmp_path / "out")
