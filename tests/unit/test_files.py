"""Writing files: complete or not at all, the old one kept, and every refusal before any work."""

from __future__ import annotations

import hashlib
import os
import pathlib
import stat
import subprocess
import sys
import textwrap

import pytest

from pipelines.errors import ConfigError, InputError, RunError
from pipelines.files import (
    atomic_write,
    atomic_write_all,
    default_run_folder,
    prepare_output,
    sha256,
    sidecar,
    staged_folder,
)


def _entries(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("content", [b"new \xc3\xa9", "new é", lambda file: file.write("new é".encode())])
def test_writes_bytes_text_and_by_function(tmp_path, content):
    target = tmp_path / "deep" / "a.txt"
    assert atomic_write(target, content) == target
    assert target.read_bytes() == "new é".encode()
    assert _entries(target.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_a_failing_writer_keeps_the_old_file_and_leaves_nothing(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail(file):
        file.write(b"half")
        file.flush()
        raise error

    with pytest.raises(error):
        atomic_write(target, fail)
    assert target.read_text() == "old"
    assert _entries(tmp_path) == ["a.txt"]


def test_files_that_belong_together_change_together(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    atomic_write_all({first: "old a", second: "old b"})

    def fail(file):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        atomic_write_all({first: "new a", second: fail})
    assert (first.read_text(), second.read_text()) == ("old a", "old b")
    assert _entries(tmp_path) == ["a", "b"]


def test_mode_and_link_of_the_old_file_stay(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    atomic_write(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_a_new_file_follows_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        atomic_write(tmp_path / "a", "x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_name_of_255_bytes_can_be_written(tmp_path):
    assert atomic_write(tmp_path / ("n" * 255), "x").read_text() == "x"


def test_errors_of_the_writer_itself_are_not_called_a_full_disk(tmp_path):
    def refuse(file):
        try:
            raise PermissionError(13, "Permission denied", "input.csv")
        except PermissionError as error:
            raise InputError("cannot be read", where="input.csv") from error

    with pytest.raises(InputError, match=r"input\.csv"):
        atomic_write(tmp_path / "a", refuse)


_FULL_DISK = """
    import pathlib, resource, sys
    import torch
    from pipelines.files import atomic_write
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    whole = b"x" * 300_000
    writers = [whole, lambda file: file.write(whole), lambda file: torch.save(torch.zeros(99_999), file)]
    for writer in writers:
        try:
            atomic_write(sys.argv[1], writer)
        except Exception as error:
            print(type(error).__name__, error)
"""


def test_full_disk_keeps_the_old_file_and_says_how_much_is_needed(tmp_path):
    target = tmp_path / "weights.bin"
    target.write_text("old")
    command = [sys.executable, "-c", textwrap.dedent(_FULL_DISK), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stdout + done.stderr
    for line in lines:
        assert line.startswith(f"RunError {target}: the disk, quota or file size limit is full")
        assert "needed" in line
        assert "free" in line
    assert "300.0 kB needed" in lines[0]
    assert target.read_text() == "old"
    assert _entries(tmp_path) == ["weights.bin"]


def test_a_full_file_system_is_refused_with_the_free_space(tmp_path):
    """ENOSPC itself, from the device that is always full."""
    if not pathlib.Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")

    def write(file):
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")

    with pytest.raises(RunError, match=r"full \(No space left on device; .* free\)"):
        atomic_write(tmp_path / "a", write)
    assert _entries(tmp_path) == []


def test_output_that_exists_is_refused_with_the_cure(tmp_path):
    file, folder = tmp_path / "a.csv", tmp_path / "run"
    file.write_text("x")
    folder.mkdir()
    assert prepare_output(folder, overwrite=False) == folder
    (folder / "config.json").write_text("{}")
    for target in (file, folder):
        with pytest.raises(ConfigError, match="--overwrite"):
            prepare_output(target, overwrite=False)
        assert prepare_output(target, overwrite=True) == target
    assert file.read_text() == "x"


def test_output_checks_create_nothing(tmp_path):
    prepare_output(tmp_path / "a" / "b" / "c.csv", overwrite=False)
    assert _entries(tmp_path) == []


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "a").write_text("x")
    with pytest.raises(ConfigError, match="a file stands where a folder is needed"):
        prepare_output(tmp_path / "a" / "b.csv", overwrite=False)
    with pytest.raises(RunError, match="cannot be written"):
        atomic_write(tmp_path / "a" / "b.csv", "x")
    with pytest.raises(ConfigError, match="a file stands"), staged_folder(tmp_path / "a", overwrite=True):
        pass


def test_a_folder_that_refuses_writing_is_found_before_the_work(tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    if os.geteuid() == 0:
        locked = pathlib.Path("/proc/self")  # root may write anywhere but there
    if not locked.exists():
        pytest.skip("no folder that root cannot write into")
    with pytest.raises(ConfigError, match="does not allow writing"):
        prepare_output(locked / "new" / "a.csv", overwrite=False)


def test_folder_appears_when_complete(tmp_path):
    target = tmp_path / "run"
    with staged_folder(target) as folder:
        (folder / "a").write_text("new")
        assert not target.exists()
    assert _entries(tmp_path) == ["run"]
    assert (target / "a").read_text() == "new"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_folder_that_fails_leaves_the_old_one(tmp_path, error):
    target = tmp_path / "run"
    target.mkdir()
    (target / "old").write_text("old")

    def half(folder):
        (folder / "new").write_text("half")
        raise error

    with pytest.raises(error), staged_folder(target, overwrite=True) as folder:
        half(folder)
    assert _entries(target) == ["old"]
    assert _entries(tmp_path) == ["run"]


def test_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "run"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(ConfigError), staged_folder(target):
        pass
    with staged_folder(target, overwrite=True) as folder:
        (folder / "new").write_text("new")
        assert _entries(target) == ["old"]
    assert _entries(target) == ["new"]
    assert _entries(tmp_path) == ["run"]


def test_folders_that_hold_the_users_work_are_never_replaced(tmp_path, monkeypatch):
    work = tmp_path / "project" / "src"
    work.mkdir(parents=True)
    (work / "precious").write_text("x")
    repository = tmp_path / "repository"
    (repository / ".git").mkdir(parents=True)
    monkeypatch.chdir(work)
    for target in (".", "..", work, repository):
        with pytest.raises(ConfigError, match="never replaced"), staged_folder(target, overwrite=True):
            pass
    assert (work / "precious").read_text() == "x"


def test_digest_and_sidecar(tmp_path):
    content = bytes(range(256)) * 999
    assert sha256(atomic_write(tmp_path / "a", content)) == hashlib.sha256(content).hexdigest()
    assert sidecar(tmp_path / "out.csv", ".report.html") == tmp_path / "out.csv.report.html"
    assert sidecar("out.csv", "config.yaml") == pathlib.Path("out.csv.config.yaml")


def test_run_folders_are_unique(tmp_path):
    made = [default_run_folder("forecast", root=tmp_path, create=True) for _ in range(3)]
    assert len(set(made)) == 3
    assert all(path.is_dir() for path in made)
    free = default_run_folder("forecast", root=tmp_path)
    assert not free.exists()
    assert free not in made
