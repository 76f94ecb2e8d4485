"""An index of documents: memory-mapped vectors with names and facts, and exact search in them."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import ConfigError, InputError, WeightsError
from pipelines.match.nearest import faiss_nearest, gather, largest_norm, locate, matrix_nearest
from pipelines.match.shard import finite_rows, name_line
from pipelines.match.shard_files import AGAIN, CONFIG_FILE, check_files, file_names, open_npy, read_sealed

__all__ = ["Engine", "Hits", "Index"]

Engine = Literal["auto", "matrix", "faiss"]

_FEW = 16  # queries from which on a matrix product is faster than faiss's scan, measured at 100,000 x 256


@dataclass(frozen=True)
class Hits:
    """What a search found; ``scores, rows = index.search(...)`` unpacks it.

    Args:
        scores: (Q, k) float32 inner products, falling.
        rows: (Q, k) int64 rows of the index.
        engine: what proposed them, "matrix" or "faiss"; the answers are the same.
        notes: what was not as asked: fewer rows than k.
    """

    scores: NDArray[np.float32]
    rows: NDArray[np.int64]
    engine: str
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Scores, then rows."""
        yield self.scores
        yield self.rows


class Index:
    """Vectors of documents with their names, opened by :meth:`open` or held in memory by :meth:`of`.

    Args:
        parts: arrays (n_i, D) float32 that follow one another.
        names: of each part its rows' names and facts, JSON objects by row.
        blocks: of each part the vectors of blocks (m_i, C) and where each row's begin (n_i + 1,), or None.
        config: what the vectors depend on, "identity" among it.
        norm: the largest norm of a vector.
        where: what messages call it.

    Example:
        >>> index = Index.of(["a", "b", "c"], np.eye(3, dtype=np.float32))
        >>> scores, rows = index.search(np.array([[0.0, 0.6, 0.8]]), 2)
        >>> [index.name(row) for row in rows[0]], scores.round(1).tolist()
        (['c', 'b'], [[0.800000011920929, 0.6000000238418579]])
    """

    def __init__(
        self,
        parts: Sequence[NDArray[np.float32]],
        names: Sequence[_Lines],
        blocks: Sequence[tuple[NDArray[np.float32], NDArray[np.int64]]] | None,
        config: Mapping[str, Any],
        norm: float,
        where: object,
    ) -> None:
        self._parts, self._names, self._blocks, self._norm = parts, names, blocks, norm
        self.config, self.where = dict(config), where
        self._flat: Any = None

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, identity: str | None = None, verify: bool = False) -> Self:
        """Open a folder that a `ShardWriter` wrote; vectors stay on the disk until a search reads them.

        Args:
            folder: of the index.
            identity: SHA-256 of the tensors of the model that is to search in it; None does not ask.
            verify: compare the checksum of every file, and look for values that are not finite.

        Raises:
            WeightsError: made with other weights, or of another format version.
            InputError: no index, or a file is missing, cut, changed (with `verify`: by as little as one bit) or holds
                Python objects or another shape.

        Complexity: O(shards); with `verify` O(bytes).
        """
        folder = pathlib.Path(folder).expanduser()
        path = folder / CONFIG_FILE
        content = read_sealed(path)
        made = content["config"]["identity"]
        if identity is not None and made != identity:
            raise WeightsError(
                "the index was made with other weights: its vectors cannot be compared with this model's",
                where=folder,
                found=made[:12],
                expected=identity[:12],
                cure="encode the documents anew with this model, or load the model that the index was made with",
            )
        dim, width = content["dim"], content["block_dim"]
        parts, names, blocks = [], [], []
        for number, shard in enumerate(content["shards"]):
            rows, files = shard["rows"], file_names(number, blocks=width is not None)
            if set(files.values()) != set(shard["files"]):
                raise InputError("lists other files than an index has", where=path, cure=AGAIN)
            check_files(folder, shard["files"], verify=verify)
            parts.append(open_npy(folder / files["vectors"], (rows, dim), "<f4"))
            names.append(_Lines(folder / files["names"], rows))
            if width is not None:
                offsets = open_npy(folder / files["offsets"], (rows + 1,), "<i8")
                blocks.append((open_npy(folder / files["blocks"], (shard["block_rows"], width), "<f4"), offsets))
        norm = max((shard["largest_norm"] for shard in content["shards"]), default=0.0)
        index = cls(parts, names, blocks if width is not None else None, content["config"], norm, folder)
        if verify:
            index._check_finite()
        return index

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        vectors: ArrayLike,
        facts: Sequence[Mapping[str, Any]] | None = None,
        *,
        identity: str = "",
        blocks: Sequence[ArrayLike] | None = None,
    ) -> Self:
        """An index in memory.

        Args:
            names: N names.
            vectors: (N, D).
            facts: N mappings of plain values.
            identity: of the weights that made the vectors.
            blocks: N arrays (B_i, C).

        Raises:
            InputError: counts or shapes that differ, or a value that is not finite.

        Complexity: O(N D).
        """
        array = np.asarray(vectors)
        if array.ndim != 2 or not array.shape[1]:
            raise InputError("vectors must be rows", where="vectors", found=array.shape, expected="(N, D)")
        rows = finite_rows(array, (len(names), array.shape[1]), names, "vectors")
        facts = [{}] * len(names) if facts is None else facts
        if len(facts) != len(names) or (blocks is not None and len(blocks) != len(names)):
            raise InputError("facts and blocks must be as many as names", where="facts", expected=len(names))
        lines = _Lines([name_line(*pair) for pair in zip(names, facts, strict=True)], len(names))
        held = None
        if blocks is not None:
            each = [np.asarray(part, np.float32) for part in blocks]
            joined = np.concatenate(each) if each else np.empty((0, 0), np.float32)
            held = [(joined, np.cumsum([0, *map(len, each)], dtype=np.int64))]
        return cls([rows], [lines], held, {"identity": identity}, largest_norm(rows), "the index in memory")

    def __len__(self) -> int:
        """Rows."""
        return sum(map(len, self._parts))

    @property
    def dim(self) -> int:
        """D, components of a vector."""
        return self._parts[0].shape[1] if self._parts else 0

    @property
    def identity(self) -> str:
        """SHA-256 of the tensors of the model that made the vectors."""
        return self.config["identity"]

    @property
    def has_blocks(self) -> bool:
        """Whether vectors of blocks are there."""
        return self._blocks is not None

    def search(self, queries: ArrayLike, k: int, *, engine: Engine = "auto") -> Hits:
        """The k rows with the largest inner product with each query (the cosine, where rows have length one).

        Args:
            queries: (Q, D), finite.
            k: rows a query; where the index has fewer, all are returned and a note says so.
            engine: "matrix" multiplies the memory-mapped rows in chunks; "faiss" builds an IndexFlatIP in memory, once
                (a copy of all rows); "auto" takes faiss where it was built before and less than 16 queries come, else
                the matrix, which needs no copy and is faster for many. Answers and their order are equal.

        Raises:
            ConfigError: k below 1, an unknown engine, or faiss is not installed.
            InputError: queries of another shape or not finite, or a row of the index that is not finite.

        Complexity: O(Q N D) time; the matrix needs 8 MB beside the answers, however long the index is.
        """
        if k < 1:
            raise ConfigError("at least one row must be asked for", where="k", found=k)
        if engine not in get_args(Engine):
            raise ConfigError("no such engine", where="engine", found=engine, expected=", ".join(get_args(Engine)))
        array = np.asarray(queries)
        if array.ndim != 2 or array.shape[1] != self.dim:
            found, expected = array.shape, f"(Q, {self.dim}) as in {self.where}"
            raise InputError("another shape than the index has", where="queries", found=found, expected=expected)
        asked = finite_rows(array, array.shape, [f"query {number}" for number in range(len(array))], "queries")
        count = min(k, len(self))
        notes = () if count == k else (f"{k:,} documents asked for, the index has {count:,}: all are returned",)
        few = self._flat is not None and len(asked) < _FEW
        used = ("faiss" if few else "matrix") if engine == "auto" else engine
        if used == "faiss" and count and len(asked):
            scores, rows = faiss_nearest(self._faiss(), self._parts, asked, count, self._norm)
        else:
            scores, rows = matrix_nearest(self._parts, asked, count, self._norm, self._not_finite)
        return Hits(scores, rows, used, notes)

    def name(self, row: int) -> str:
        """Name of a row's document."""
        return self._line(row)["name"]

    def facts(self, row: int) -> dict[str, Any]:
        """What was stored of a row's document beside its name."""
        return {key: value for key, value in self._line(row).items() if key != "name"}

    def names(self) -> Iterator[str]:
        """Names of all rows in order."""
        return (lines.read(row)["name"] for lines in self._names for row in range(len(lines)))

    def vectors(self, rows: ArrayLike | None = None) -> NDArray[np.float32]:
        """Vectors (n, D) of some rows, or of all in one array; copied into memory."""
        if rows is None:
            return np.concatenate([np.asarray(part) for part in self._parts])
        wanted = np.asarray(rows, np.int64).reshape(-1)
        for row in wanted:
            self._checked(int(row))
        return gather(self._parts, wanted)

    def blocks(self, row: int) -> NDArray[np.float32]:
        """Vectors of the blocks (B, C) of a row's document.

        Raises:
            ConfigError: the index was written without them.
            InputError: there is no such row, or its place is damaged.
        """
        if self._blocks is None:
            cure = "encode the documents again with vectors of blocks"
            raise ConfigError("the index holds no vectors of blocks", where=self.where, cure=cure)
        part, local = locate(self._parts, self._checked(row))
        held, offsets = self._blocks[part]
        start, stop = int(offsets[local]), int(offsets[local + 1])
        if not 0 <= start <= stop <= len(held):
            raise InputError("the places of blocks are damaged", where=self.where, found=(start, stop), cure=AGAIN)
        return held[start:stop]

    def _line(self, row: int) -> dict[str, Any]:
        part, local = locate(self._parts, self._checked(row))
        return self._names[part].read(local)

    def _checked(self, row: int) -> int:
        if not 0 <= row < len(self):
            raise InputError("no such row", where=self.where, found=row, expected=f"0 to {len(self) - 1}")
        return int(row)

    def _not_finite(self, row: int) -> InputError:
        found = f"row {row:,} ({self.name(row)})"
        return InputError("a score is not finite: the vectors were damaged", where=self.where, found=found, cure=AGAIN)

    def _check_finite(self) -> None:
        start = 0
        for part in self._parts:
            for low in range(0, len(part), 8192):
                good = np.isfinite(part[low : low + 8192]).all(axis=1)
                if not good.all():
                    raise self._not_finite(start + low + int(np.argmin(good)))
            start += len(part)

    def _faiss(self) -> Any:
        if self._flat is None:
            if importlib.util.find_spec("faiss") is None:
                cure = "pip install 'attention-pipelines[match]', or leave --engine out"
                raise ConfigError("faiss is not installed", where="engine", found="faiss", cure=cure)
            import faiss

            self._check_finite()
            flat: Any = faiss.IndexFlatIP(self.dim)
            for part in self._parts:
                for low in range(0, len(part), 65_536):
                    flat.add(np.ascontiguousarray(part[low : low + 65_536], np.float32))
            self._flat = flat
        return self._flat


class _Lines:
    """Lines of JSON by number: of a file, memory-mapped when first asked, or given."""

    def __init__(self, source: pathlib.Path | Sequence[bytes], count: int) -> None:
        self._source, self._count = source, count
        self._map: NDArray[np.uint8] | None = None
        self._ends: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self._count

    def read(self, number: int) -> dict[str, Any]:
        """The object in one line."""
        text = self._text(number)
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"line {number + 1}: {error}") from error
        if not isinstance(found, dict) or not isinstance(found.get("name"), str):
            raise self._damaged(f"line {number + 1} has no name")
        return found

    def _text(self, number: int) -> bytes:
        if not isinstance(self._source, pathlib.Path):
            return self._source[number]
        if self._map is None or self._ends is None:
            self._map = np.memmap(self._source, np.uint8, "r")
            self._ends = np.flatnonzero(self._map == ord("\n"))
            if len(self._ends) != self._count:
                found = f"{len(self._ends):,} lines for {self._count:,} rows"
                self._ends = None
                raise self._damaged(found)
        start = int(self._ends[number - 1]) + 1 if number else 0
        return self._map[start : int(self._ends[number])].tobytes()

    def _damaged(self, found: str) -> InputError:
        return InputError("the names of the index are damaged", where=self._source, found=found, cure=AGAIN)
