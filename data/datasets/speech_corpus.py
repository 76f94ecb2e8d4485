"""Corpora of speech: read by layout, split without leaks; no sound is opened."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.datasets.speech_gigaspeech import MANIFEST, read_gigaspeech
from pipelines.data.datasets.speech_layouts import UNDERSTOOD, read_folder, sidecar_text
from pipelines.data.datasets.speech_manifests import add_record, read_manifest
from pipelines.data.datasets.speech_utterance import AUDIO_SUFFIXES, Corpus, Gathering, Utterance
from pipelines.data.errors import InputError

__all__ = ["AUDIO_SUFFIXES", "Corpus", "Source", "Utterance", "read_corpus", "split_corpus"]

#: One thing that utterances come from: a list, folder or recording; (recording, text); a record; an utterance.
Item = str | Path | tuple[str | Path, str] | Mapping[str, Any] | Utterance
Source = str | Path | Corpus | Sequence[Item]
#: Fewer speakers cannot be split: one for each side, and one more so that training hears two.
_SPEAKERS = 3
#: At most this share of the held-out utterances may go because training has their texts; above it, texts are shared.
_DROPPED = 0.5


def read_corpus(source: Source, *, subset: str | None = None, root: str | Path | None = None) -> Corpus:
    """Read what a list, a folder or a sequence of these says about recordings.

    Layouts are told apart by what is there (:data:`speech_layouts.UNDERSTOOD`); a note says which one it was. Lines
    that name a file that does not exist, are damaged, or lack a field are in `failures`; all others are read.

    Args:
        source: a path; or a sequence of paths, pairs (recording, text), records with the keys of a list, utterances.
            Ids that several sources share get the sources' names in front.
        subset: of GigaSpeech: XS, S, M, L or XL.
        root: what the paths in lists are relative to; by default the list's folder.

    Raises:
        InputError: no such file, no layout or several that fit, an id twice (both places are named), no good line.

    Complexity: O(files and lines).

    Example:
        >>> spoken = Utterance("a", Path("a.wav"), "one", "ann")
        >>> read_corpus([spoken]).utterances == (spoken,)
        True
    """
    if isinstance(source, Corpus):
        return source
    base = None if root is None else Path(root)
    if isinstance(source, str | Path):
        return _read_path(Path(source), subset, base)
    if isinstance(source, Sequence) and len(source):
        return _read_sequence(source, subset, base)
    raise InputError("nothing to read", where="data", found=repr(source), expected=UNDERSTOOD)


def _read_path(path: Path, subset: str | None, root: Path | None) -> Corpus:
    gathering = Gathering(path)
    if path.is_dir():
        kind = read_folder(path, gathering, subset=subset, root=root)
    elif not path.is_file():
        raise InputError("there is no such file or folder", where=path, expected=UNDERSTOOD)
    elif path.suffix.lower() in AUDIO_SUFFIXES:
        kind = "one recording"
        _add_recording(path, gathering)
    elif path.name == MANIFEST:
        kind = "GigaSpeech"
        read_gigaspeech(path, gathering, subset=subset)
    else:
        kind = read_manifest(path, gathering, root=root)
    if subset is not None and kind != "GigaSpeech":
        raise InputError("only GigaSpeech has subsets", where="subset", found=f"{subset} for {kind}")
    gathering.notes.insert(0, f"read as {kind}")
    return gathering.finish(path.name or str(path))


def _add_recording(path: Path, gathering: Gathering) -> None:
    text, problem = sidecar_text(path)
    if problem:
        gathering.fail(str(path), problem)
    else:
        gathering.add(Utterance(path.stem, path, text, where=str(path)))


def _read_sequence(source: Sequence[Item], subset: str | None, root: Path | None) -> Corpus:
    """Everything that has no file of its own makes one corpus; lists and folders make one each; then all are joined."""
    loose = Gathering("data")
    corpora: list[Corpus] = []
    given = 0
    for number, item in enumerate(source):
        place = f"entry {number}"
        if isinstance(item, Utterance):
            loose.add(item)
        elif isinstance(item, Mapping):
            record = {str(key).lower(): value for key, value in item.items()}
            add_record(record, loose, place=place, folders=[root or Path()])
        elif isinstance(item, tuple) and len(item) == 2:
            add_record({"audio": str(item[0]), "text": item[1]}, loose, place=place, folders=[root or Path()])
        elif isinstance(item, str | Path):
            corpora.append(_read_path(Path(item), subset, root))
            continue
        else:
            raise InputError("not an entry of a corpus", where=f"data, {place}", found=repr(item), expected=UNDERSTOOD)
        given += 1
    if given:
        corpora.insert(0, loose.finish("data"))
    return corpora[0] if len(corpora) == 1 else _joined(corpora)


def _joined(corpora: Sequence[Corpus]) -> Corpus:
    counts = Counter(one.id for corpus in corpora for one in corpus.utterances)
    shared = {name for name, count in counts.items() if count > 1}
    labels = [f"{number + 1}:{corpus.name}" for number, corpus in enumerate(corpora)]
    utterances = [
        dataclasses.replace(one, id=f"{label}/{one.id}") if one.id in shared else one
        for label, corpus in zip(labels, corpora, strict=True)
        for one in corpus.utterances
    ]
    notes = [f"{corpus.name}: {note}" for corpus in corpora for note in corpus.notes]
    if shared:
        notes.append(f"{len(shared)} ids occur in several sources and got the sources' names in front")
    failures = {
        (
            f"{label}/{place}" if any(place in other.failures for other in corpora if other is not corpus) else place
        ): text
        for label, corpus in zip(labels, corpora, strict=True)
        for place, text in corpus.failures.items()
    }
    return Corpus(", ".join(corpus.name for corpus in corpora), tuple(utterances), tuple(notes), failures)


def split_corpus(corpus: Corpus, *, valid: float = 0.1, seed: int) -> tuple[Corpus, Corpus]:
    """The utterances to train on and those to select a model by; the corpus's test part is in neither.

    A validation part that the corpus has is taken; utterances of no part count as training ones. Otherwise whole
    speakers are held out where there are three or more, and utterances where there are fewer; equal texts (case and
    spaces aside) never stand on both sides. Held-out speakers who say what others say lose those utterances, which are
    counted in the notes; only where that would be more than half of them (digits, commands: everyone says the same)
    texts are shared, and the notes say so.

    Args:
        corpus: with or without parts and speakers.
        valid: share of the utterances to hold out, above 0 and below 1; met to within one speaker or text.
        seed: of what is held out.

    Returns:
        (training part, validation part), neither of them empty.

    Raises:
        InputError: a share out of bounds, or too few speakers or different texts to hold some out.

    Complexity: O(n log n).

    Example:
        >>> spoken = [Utterance(str(n), Path(f"{n}.wav"), f"text {n}", f"speaker {n % 5}") for n in range(50)]
        >>> train, held = split_corpus(read_corpus(spoken), valid=0.2, seed=0)
        >>> len(train), len(held), held.speakers
        (40, 10, ('speaker 2',))
    """
    if not 0 < valid < 1:
        raise InputError("the share is out of bounds", where="valid", found=valid, expected="above 0, below 1")
    usable = [one for one in corpus.utterances if one.part != "test"]
    tested = len(corpus) - len(usable)
    notes = [f"{tested} utterances of the test part are in neither part"] if tested else []
    held = [one for one in usable if one.part == "valid"]
    if held:
        train = [one for one in usable if one.part != "valid"]
        notes.append(f"validation part of the corpus: {len(held)} utterances")
    elif len({one.speaker for one in usable if one.speaker}) >= _SPEAKERS:
        train, held = _by_group(usable, lambda one: one.speaker or f"\0{one.id}", valid, seed, "speakers")
        train, held, note = _apart(train, held)
        names = sorted({one.speaker for one in held} - {""})
        notes += [f"held out by speaker: {', '.join(names)}, {len(held)} utterances", *note]
    else:
        train, held = _by_group(usable, _text_key, valid, seed, "different texts")
        notes.append(f"held out by text: {len(held)} utterances")
    if not train:
        raise InputError("nothing is left to train on", where=corpus.name, found=f"{len(held)} for validation")
    return (
        dataclasses.replace(corpus, utterances=tuple(train), notes=(*corpus.notes, *notes)),
        dataclasses.replace(corpus, utterances=tuple(held), notes=(*corpus.notes, *notes)),
    )


def _text_key(one: Utterance) -> str:
    """Equal for equal texts; an utterance without a text stands alone."""
    words = " ".join((one.text or "").casefold().split())
    return words or f"\0{one.id}"


def _by_group(
    utterances: Sequence[Utterance], key: Callable[[Utterance], str], share: float, seed: int, what: str
) -> tuple[list[Utterance], list[Utterance]]:
    """Whole groups held out, in a random order, as long as they fit in the share; at least the one that fits best."""
    sizes = Counter(map(key, utterances))
    if len(sizes) < 2:
        raise InputError(f"too few {what} to hold some out", where="data", found=len(sizes), expected="2 or more")
    names = sorted(sizes)
    target = max(1.0, share * len(utterances))
    chosen: set[str] = set()
    count = 0
    for place in np.random.default_rng(seed).permutation(len(names)):
        name = names[place]
        # Half a group too many is as near to the share as half a group too few.
        if count + sizes[name] / 2 <= target and len(chosen) < len(names) - 1:
            chosen.add(name)
            count += sizes[name]
        if count >= target:
            break
    chosen = chosen or {min(names, key=lambda name: (sizes[name], name))}
    parts: dict[bool, list[Utterance]] = defaultdict(list)
    for one in utterances:
        parts[key(one) in chosen].append(one)
    return parts[False], parts[True]


def _apart(train: list[Utterance], held: list[Utterance]) -> tuple[list[Utterance], list[Utterance], Iterable[str]]:
    """Without held-out utterances whose text is trained on, unless that leaves fewer than half of them."""
    known = {_text_key(one) for one in train}
    fresh = [one for one in held if _text_key(one) not in known]
    if len(fresh) == len(held):
        return train, held, ()
    if len(fresh) < (1 - _DROPPED) * len(held):
        shared = len(held) - len(fresh)
        return train, held, (f"{shared} held-out utterances have texts that other speakers say in training",)
    note = f"{len(held) - len(fresh)} utterances of held-out speakers are in neither part: training has their texts"
    return train, fresh, (note,)
