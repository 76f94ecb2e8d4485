"""Writing an index shard by shard: constant memory, nothing half written, and going on after a kill.

While it is written everything lies in FOLDER.partial, where `state.json` lists the finished shards. The folder itself
appears at the end, whole. What a killed run leaves in FOLDER.partial is what `ShardWriter.resume` goes on from.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ConfigError, InputError, RunError
from pipelines.files import atomic_write, staged_folder, write_failure
from pipelines.match.shard import Shard, finite_rows, name_line
from pipelines.match.shard_files import CONFIG_FILE, FORMAT_VERSION, KIND, check_files, file_names, read_sealed, sealed
from pipelines.match.shard_folder import (
    LOCK_FILE,
    STATE_FILE,
    check_same_config,
    checked_config,
    checked_folder,
    link,
    locked,
    shards_in,
)

__all__ = ["ShardWriter"]


class ShardWriter:
    """Write names, vectors and facts of documents into a folder that `Index.open` opens.

    Used as a context manager. When its body ends, the folder appears whole. When the body raises, the rows added so
    far are closed as a last, shorter shard and kept in FOLDER.partial; after a kill the finished shards are there.
    Both are continued by :meth:`resume`. A body that raises before any row leaves nothing.

    Args:
        folder: the index to come.
        dim: D, components of a vector.
        shard_rows: rows of a shard; so many are lost at most when the process is killed.
        config: what the vectors depend on, as plain values: "identity" (SHA-256 of the model's tensors) must be there;
            model, options that change vectors.
        block_dim: C, components of a block's vector, where vectors of blocks are kept too.
        overwrite: an index in the folder may be replaced, and an unfinished one beside it dropped.

    Raises:
        ConfigError: the folder exists, cannot be written, or an unfinished index of it is there or in use.
        RunError: the disk is full.

    Complexity: O(1) memory beside the rows given at once; each row is written once and read once for its checksum.

    Example:
        >>> import tempfile
        >>> from pipelines.match.index import Index
        >>> with tempfile.TemporaryDirectory() as base:
        ...     with ShardWriter(f"{base}/index", 2, config={"identity": "0f"}) as writer:
        ...         writer.add(["a.txt", "b.txt"], np.eye(2, dtype=np.float32), [{"tokens": 7}, {"tokens": 9}])
        ...     index = Index.open(f"{base}/index")
        ...     len(index), index.name(1), index.facts(1)
        (2, 'b.txt', {'tokens': 9})
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        dim: int,
        *,
        config: Mapping[str, Any],
        shard_rows: int = 50_000,
        block_dim: int | None = None,
        overwrite: bool = False,
    ) -> None:
        for name, value in (("dim", dim), ("shard_rows", shard_rows), ("block_dim", block_dim or 1)):
            if value < 1:
                raise ConfigError("must be at least 1", where=name, found=value)
        self.folder = checked_folder(folder, overwrite)
        self.dim, self.shard_rows, self.block_dim, self.overwrite = dim, shard_rows, block_dim, overwrite
        self.config = checked_config(config)
        self._shards: list[dict[str, Any]] = []
        self._done: Counter[str] = Counter()
        self._open: Shard | None = None
        self._damaged = False
        self._begin()

    @classmethod
    def resume(
        cls, folder: str | os.PathLike[str], *, config: Mapping[str, Any] | None = None, overwrite: bool = False
    ) -> Self:
        """Go on after the last complete shard of an index that was not finished.

        Args:
            folder: as it was given when writing began.
            config: as it was given; what differs is refused, since vectors of two models cannot be compared.
            overwrite: an index in the folder may be replaced at the end.

        Raises:
            ConfigError: there is nothing to go on with, or another process is writing it.
            WeightsError: it was begun with other weights or options.
            InputError: a finished shard was damaged.

        Complexity: O(bytes of the finished shards): their checksums are compared.
        """
        self = cls.__new__(cls)
        self.folder, self.overwrite = checked_folder(folder, overwrite), overwrite
        if not (self.partial / STATE_FILE).is_file():
            cure = "leave --resume out to begin"
            raise ConfigError("no unfinished index to resume", where=self.folder, expected=self.partial, cure=cure)
        self._lock = locked(self.partial)
        try:
            state = read_sealed(self.partial / STATE_FILE, "unfinished index")
            self.dim, self.shard_rows, self.block_dim = state["dim"], state["shard_rows"], state["block_dim"]
            self.config, self._shards = state["config"], state["shards"]
            self._open, self._damaged = None, False
            if config is not None:
                check_same_config(self.config, checked_config(config), self.partial / STATE_FILE)
            self._done = Counter(self._finished_names())
        except BaseException:
            os.close(self._lock)
            raise
        return self

    @property
    def partial(self) -> pathlib.Path:
        """Where the index lies until it is complete."""
        return self.folder.with_name(f"{self.folder.name}.partial")

    @property
    def rows(self) -> int:
        """Rows added so far, those of an earlier run included."""
        return sum(shard["rows"] for shard in self._shards) + (self._open.rows if self._open else 0)

    def already(self, name: str) -> bool:
        """Whether an earlier run wrote this document; of a name that occurs twice, each is said once.

        Ask in the order in which the documents come, once a document, and skip those that are there.
        """
        if not self._done[name]:
            return False
        self._done[name] -= 1
        return True

    def add(
        self,
        names: Sequence[str],
        vectors: NDArray[Any],
        facts: Sequence[Mapping[str, Any]] | None = None,
        blocks: Sequence[NDArray[Any]] | None = None,
    ) -> None:
        """Append rows.

        Args:
            names: n names of documents.
            vectors: (n, D), stored as float32.
            facts: n mappings of plain values (tokens, blocks, title ...); "name" is taken.
            blocks: n arrays (B_i, C), where the writer was made with `block_dim`.

        Raises:
            InputError: counts that differ, another shape, or a value that is not finite; nothing of it is written.
            RunError: the disk is full.
        """
        lines, rows, parts = self._checked_rows(names, vectors, facts, blocks)
        start = 0
        while start < len(lines):
            try:
                if self._open is None:
                    self._open = Shard(self.partial, len(self._shards), self.dim, self.block_dim)
                stop = min(len(lines), start + self.shard_rows - self._open.rows)
                self._open.append(lines[start:stop], rows[start:stop], parts[start:stop])
                start = stop
                if self._open.rows >= self.shard_rows:
                    self._seal()
            except OSError as error:
                self._damaged = True
                raise write_failure(error, self.folder, rows.nbytes) from error
            except RunError:
                self._damaged = True
                raise

    def checkpoint(self) -> None:
        """Close the shard that is being written: a kill after this loses none of the rows added so far.

        Raises:
            RunError: the disk is full.
        """
        try:
            self._seal()
        except OSError as error:
            self._damaged = True
            raise write_failure(error, self.folder) from error
        except RunError:
            self._damaged = True
            raise

    def finish(self) -> pathlib.Path:
        """Close the last shard and give the folder its name; called by the end of a ``with`` body.

        Raises:
            InputError: no rows were added; nothing is left behind.
            ConfigError: meanwhile something else stands in the folder's place; the finished shards stay.
            RunError: the disk is full; the finished shards stay.
        """
        if not self.rows:
            self._drop()
            raise InputError("no documents to index", where=self.folder, found="0 rows")
        try:
            self._damaged = True  # closing a shard is not tried twice
            self._seal()
            with staged_folder(self.folder, overwrite=self.overwrite) as staging:
                for name in self._files():
                    link(self.partial / name, staging / name)
                (staging / CONFIG_FILE).write_text(sealed(self._content()), encoding="utf-8")
        except OSError as error:
            raise write_failure(error, self.folder) from error
        finally:
            self.keep()
        shutil.rmtree(self.partial, ignore_errors=True)
        return self.folder

    def keep(self) -> None:
        """Stop without finishing: what was added stays in FOLDER.partial for :meth:`resume`, or nothing does."""
        if self._lock < 0:
            return
        if self._open is not None and not self._damaged:
            with contextlib.suppress(OSError, RunError):  # the disk may be full; the error under way is the one to show
                self._seal()
        if self._open is not None:
            self._open.discard()
            self._open = None
        if not self._shards:
            self._drop()
            return
        self._unlock()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Finish, or keep what there is after an error."""
        if kind is None:
            self.finish()
        else:
            self.keep()

    def _begin(self) -> None:
        state = self.partial / STATE_FILE
        if self.partial.exists() and not self.partial.is_dir():
            raise ConfigError("a file stands where the unfinished index is kept", where=self.partial)
        if state.is_file():
            self._lock = locked(self.partial)
            try:
                shards = shards_in(state)
            finally:
                self._unlock()
            if shards and not self.overwrite:
                cure = "pass --resume to go on with it, or --overwrite to begin again"
                found = f"{len(shards)} finished shards"
                raise ConfigError("an unfinished index is there", where=self.partial, found=found, cure=cure)
        elif self.partial.is_dir() and any(self.partial.iterdir()):
            raise ConfigError("a folder of something else is in the way", where=self.partial, cure="move it away")
        try:
            shutil.rmtree(self.partial, ignore_errors=True)
            self.partial.mkdir(parents=True, exist_ok=True)
            self._lock = locked(self.partial)
        except OSError as error:
            raise write_failure(error, self.partial) from error
        try:
            self._write_state()
        except BaseException:
            self._drop()
            raise

    def _checked_rows(
        self,
        names: Sequence[str],
        vectors: NDArray[Any],
        facts: Sequence[Mapping[str, Any]] | None,
        blocks: Sequence[NDArray[Any]] | None,
    ) -> tuple[list[bytes], NDArray[np.float32], list[NDArray[np.float32]]]:
        rows = finite_rows(vectors, (len(names), self.dim), names, "vectors")
        facts = [{}] * len(names) if facts is None else facts
        if len(facts) != len(names):
            raise InputError("as many facts as names are needed", where="facts", found=len(facts), expected=len(names))
        if (blocks is None) != (self.block_dim is None) or (blocks is not None and len(blocks) != len(names)):
            found = "none" if blocks is None else len(blocks)
            expected = "none, without block_dim" if self.block_dim is None else len(names)
            raise InputError("vectors of blocks do not fit", where="blocks", found=found, expected=expected)
        parts = [
            finite_rows(part, (len(part), self.block_dim or 0), [name] * len(part), "blocks")
            for name, part in zip(names, blocks or (), strict=bool(blocks))
        ]
        return [name_line(name, fact) for name, fact in zip(names, facts, strict=True)], rows, parts

    def _seal(self) -> None:
        if self._open is None or not self._open.rows:
            return
        sealed_shard = self._open.seal()
        self._shards.append(sealed_shard)
        self._open = None
        try:
            self._write_state()
        except BaseException:
            self._shards.pop()
            raise

    def _content(self) -> dict[str, Any]:
        from pipelines import __version__

        return {
            "kind": KIND,
            "format_version": FORMAT_VERSION,
            "library": f"attention-pipelines {__version__}",
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "config": self.config,
            "dim": self.dim,
            "block_dim": self.block_dim,
            "rows": sum(shard["rows"] for shard in self._shards),
            "shards": self._shards,
        }

    def _write_state(self) -> None:
        atomic_write(self.partial / STATE_FILE, sealed({**self._content(), "shard_rows": self.shard_rows}))

    def _files(self) -> list[str]:
        return [name for shard in self._shards for name in shard["files"]]

    def _finished_names(self) -> Iterator[str]:
        """Names of the finished rows; what lies beside the finished shards is of one that was cut off, and goes."""
        known = {*self._files(), STATE_FILE, LOCK_FILE}
        for path in self.partial.iterdir():
            if path.name not in known and path.is_file():
                path.unlink()
        for number, shard in enumerate(self._shards):
            check_files(self.partial, shard["files"], verify=True)
            with (self.partial / file_names(number, blocks=False)["names"]).open("rb") as file:
                for line in file:
                    yield json.loads(line)["name"]

    def _drop(self) -> None:
        if self._open is not None:
            self._open.discard()
            self._open = None
        shutil.rmtree(self.partial, ignore_errors=True)
        self._unlock()

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1
