"""Folders of documents: every file once, whatever links lead to it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.data.datasets.document_stream import DocumentStream, Item, printable
from pipelines.data.errors import InputError
from pipelines.data.formats.document_kind import document_ending
from pipelines.data.formats.document_types import DocumentOptions

__all__ = ["LISTS", "PACKED", "folder_stream", "left_out"]

#: Endings of compressed files; the ending before them tells the kind.
PACKED = (".gz", ".bz2", ".xz")
#: Endings of lists of documents or pairs.
LISTS = (".jsonl", ".ndjson", ".tsv", ".csv", ".parquet")
_ARCHIVES = (".tar", ".zip", ".tgz", ".tbz2", ".txz", ".7z", ".rar")


def left_out(name: str) -> str | None:
    """Why a file of a folder or archive is not taken for a document by its name; None where it is.

    Example:
        >>> left_out("a/b.md"), left_out("ls.1.gz"), left_out("README"), left_out("a.png")
        (None, None, None, 'files with other endings left out')
    """
    parts = name.lower().split("/")
    if any((part.startswith(".") and part != "..") or part == "__macosx" for part in parts):
        return "hidden files and folders left out"
    stem = parts[-1]
    packed = stem.endswith(PACKED)
    if packed:
        stem = stem.rpartition(".")[0]
    if stem.endswith(_ARCHIVES):
        return "archives inside left out: open them on their own"
    if stem.endswith(LISTS):
        return "lists inside left out: open them on their own"
    known = document_ending(stem) or not Path(stem).suffix
    return None if known else "files with other endings left out"


@dataclass
class _Walk:
    """What a walk finds; links wait until every real folder has been seen."""

    root: Path
    files: list[tuple[str, Path]] = field(default_factory=list)
    links: list[tuple[str, Path]] = field(default_factory=list)
    waiting: list[tuple[str, Path]] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def run(self) -> None:
        self.enter("", self.root)
        while self.waiting:
            name, path = self.waiting.pop(0)
            if os.path.realpath(path) in self.seen:
                self.count("links to folders that are read anyway left out")
            else:
                self.enter(f"{name}/", path)
        places = {os.path.realpath(path): name for name, path in self.files}
        for name, path in self.links:
            target = os.path.realpath(path)
            if target in places:
                self.aliases[name] = places[target]
                self.count("links to files that are read anyway left out")
            else:
                places[target] = name
                self.files.append((name, path))
        self.files.sort()

    def enter(self, prefix: str, top: Path) -> None:
        """Everything below a folder; an own stack, since folders may be nested deeper than Python's."""
        stack = [(prefix, top)]
        while stack:
            prefix, folder = stack.pop()
            real = os.path.realpath(folder)
            if real in self.seen:  # a mount or a link that was followed before
                continue
            self.seen.add(real)
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as error:
                self.failures[printable(prefix or str(folder))] = f"the folder cannot be read: {error.strerror}"
                continue
            stack += [(f"{prefix}{entry.name}/", Path(entry.path)) for entry in entries if self.take(prefix, entry)]

    def take(self, prefix: str, entry: os.DirEntry[str]) -> bool:
        """Sort an entry in; True for a real folder, which is entered."""
        name, path = f"{prefix}{entry.name}", Path(entry.path)
        if entry.name.startswith("."):
            self.count("hidden files and folders left out")
            return False
        try:
            mode = entry.stat().st_mode
        except OSError as error:  # a link to nothing, or one that leads to itself
            self.failures[printable(name)] = f"cannot be opened: {error.strerror}"
            return False
        if stat.S_ISDIR(mode):
            if entry.is_symlink():
                self.waiting.append((name, path))
            return not entry.is_symlink()
        if not stat.S_ISREG(mode):
            self.count("pipes, sockets and devices left out")
            return False
        why = left_out(entry.name)
        if why:
            self.count(why)
        else:
            (self.links if entry.is_symlink() else self.files).append((name, path))
        return False


def folder_stream(folder: Path, options: DocumentOptions) -> DocumentStream:
    """The documents of a folder and all folders in it, sorted by name.

    Raises:
        InputError: no file that could be a document.

    Complexity: O(files) names in memory, O(files log files).
    """
    walk = _Walk(folder)
    walk.run()
    if not walk.files:
        seen = [f"{count:,} {what}" for what, count in walk.counts.items()]
        seen += [f"{name}: {problem}" for name, problem in list(walk.failures.items())[:3]]
        raise InputError(
            "no document in the folder",
            where=folder,
            found="; ".join(seen) or "an empty folder",
            expected="text, Markdown, RST, HTML, PDF, manual pages, POD",
        )

    def items(stream: DocumentStream) -> Iterator[Item]:
        for what, count in walk.counts.items():
            stream.count(what, count)
        for name, problem in walk.failures.items():
            stream.fail(name, problem)
        stream.aliases.update(walk.aliases)
        for name, path in walk.files:
            yield Item(name, path)

    return DocumentStream(folder.name or str(folder), items, options, expected=len(walk.files))
