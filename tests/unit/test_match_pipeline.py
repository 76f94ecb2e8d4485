"""Matching from end to end in Python: what is learned from, what is answered; nothing measured was learned from."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from pipelines import Matcher
from pipelines.data.datasets.document_splits import pair_parts
from pipelines.data.formats.document_types import Document
from pipelines.errors import ConfigError, InputError, NothingToMeasure
from pipelines.match.encoding import cut
from pipelines.match.index import Index
from pipelines.match.options import ArchOptions, BlockOptions, PairOptions, PretrainOptions, WordOptions
from pipelines.match.reading import Material, held_out, identity, parts_of, read_material
from pipelines.training.options import TrainOptions

TINY: dict[str, Any] = {
    "arch": ArchOptions(dim=8, sentence_layers=1, document_layers=1, heads=2, hidden=16),
    "blocks": BlockOptions(length=16, limit=8),
    "words": WordOptions(size=200),
    "pretrain": PretrainOptions(losses="none"),
    "train": TrainOptions(epochs=1, patience=0),
    "baselines": ("tfidf",),
    "threads": 1,
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    """What the small matcher was fitted on, as documents that nothing has touched."""
    return list(Matcher.check_kit()["data"])


@pytest.fixture(scope="module")
def m(matcher_folder: pathlib.Path) -> Matcher:
    return Matcher.load(matcher_folder, threads=1)


def vectors_of(m: Matcher, given: Any, folder: pathlib.Path) -> tuple[list[str], np.ndarray]:
    m.encode(given).save(folder / "v.npz")
    with np.load(folder / "v.npz") as kept:
        return kept["names"].tolist(), kept["vectors"]


def sentence(number: int) -> str:
    """One of many sentences that no two documents share."""
    return f"Sentence {number} of this text is about item {number * 37 % 1009} and its neighbour {number * 91 % 997}. "


def written(count: int, long: int = 20) -> list[Document]:
    return [Document(f"d{i}.txt", "".join(sentence(long * i + k) for k in range(long)).strip()) for i in range(count)]


# Answers --------------------------------------------------------------------------------------------------------------


def test_a_saved_model_gives_the_same_vectors(m: Matcher, documents: list[Document], tmp_path: pathlib.Path) -> None:
    m.save(tmp_path / "copy")
    again = Matcher.load(tmp_path / "copy")
    one, other = vectors_of(m, documents[:6], tmp_path), vectors_of(again, documents[:6], tmp_path)
    assert one[0] == other[0] == [one.name for one in documents[:6]]
    assert np.array_equal(one[1], other[1])
    assert again.state.identity == m.state.identity
    assert np.array_equal(again.state.trained, m.state.trained)
    assert again.state.calibration == m.state.calibration


@pytest.mark.parametrize("backend", ["matrix", "faiss"])
def test_search_is_the_largest_products(
    m: Matcher, documents: list[Document], tmp_path: pathlib.Path, backend: str
) -> None:
    if backend == "faiss":
        pytest.importorskip("faiss")
    names, vectors = vectors_of(m, documents, tmp_path)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    twin = Matcher.load(m.save(tmp_path / "twin"), backend=backend, top=7)
    found = twin.predict(documents[:5], corpus=documents, passages=0)
    products = vectors[:5].astype(np.float64) @ vectors.T.astype(np.float64)
    for query, row in zip(found.queries, products, strict=True):
        assert [one.score for one in query.matches] == pytest.approx(np.sort(row)[::-1][:7], abs=1e-6)
        for match in query.matches:
            assert match.score == pytest.approx(row[names.index(match.name)], abs=1e-6)


def test_padding_and_company_change_nothing(m: Matcher, documents: list[Document], tmp_path: pathlib.Path) -> None:
    together = vectors_of(m, documents[:9], tmp_path)[1]
    alone = np.concatenate([vectors_of(m, [one], tmp_path)[1] for one in documents[:9]])
    assert np.allclose(together, alone, atol=2e-6)


def test_passages_are_blocks_of_the_texts(m: Matcher, documents: list[Document]) -> None:
    query, other = documents[0], documents[7]
    match = m.predict([query], corpus=[other, documents[9]], passages=2).queries[0].matches
    pairs = next(one for one in match if one.name == other.name).answers
    assert len(pairs) == 2
    ids = [cut(one, m.state.vocabulary, m.blocks, "own").ids.astype(np.int64) for one in (query, other)]
    module = m.state.module
    table = module.sentences.word_embedding.weight.detach().numpy()
    rows = []
    for one in ids:  # the rarer words of each block, what all words share taken off; blocks of a few signs left out
        found = np.zeros((len(one), table.shape[1]))
        for place, block in enumerate(one):
            words, counts = np.unique(block, return_counts=True)
            if len(words) > 8:
                weight = (1 + np.log(counts)) * module.beside.rarity.numpy()[words]
                found[place] = weight @ (table[words] - table.mean(0))
        rows.append(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12))
    left, right = rows
    for pair in pairs:
        a, b = left[pair.left_block], right[pair.right_block]
        assert pair.similarity == pytest.approx(float(a @ b), abs=1e-5)
        assert query.text[slice(*pair.left_span)] == pair.left_text
        assert other.text[slice(*pair.right_span)] == pair.right_text
    assert pairs[0].similarity == pytest.approx(float((left @ right.T).max()), abs=1e-5)


def test_probabilities_know_how_many_documents_were_searched(m: Matcher, documents: list[Document]) -> None:
    curve = m.state.calibration

    def expected(score: float, rate: float) -> float:
        odds = np.exp(curve.slope * score + curve.intercept) * rate / (1 - rate)
        odds *= (1 - curve.base_rate) / curve.base_rate
        return float(odds / (1 + odds))

    for given, rate in (({}, 1 / 20), ({"expected_matches": 4}, 4 / 20), ({"expected_matches": 50}, 1 / 2)):
        found = m.predict([documents[30]], corpus=documents[:20], passages=0, **given)
        for one in found.queries[0].matches:
            assert one.probability == pytest.approx(expected(one.score, rate), rel=1e-9)
        assert any(f"{rate * 20:g} of 20 documents match" in note for note in found.notes)
    pair = m.score([documents[0], documents[1]]).pairs[0]
    assert pair.probability == pytest.approx(expected(pair.score, curve.base_rate), rel=1e-9)


def test_documents_among_each_other(m: Matcher, documents: list[Document]) -> None:
    found = m.predict(documents[:5])
    assert [query.name for query in found.queries] == [one.name for one in documents[:5]]
    for query in found.queries:
        assert {one.name for one in query.matches} == {one.name for one in documents[:5]} - {query.name}
        assert all(one.answers for one in query.matches)
    assert not any("asked for" in note for note in found.notes)
    with pytest.raises(ConfigError, match="nothing to search in"):
        m.predict(documents[0])


def test_the_query_itself_is_found_and_said(m: Matcher, documents: list[Document]) -> None:
    copy = dataclasses.replace(documents[3], name="copy.rst", text=documents[3].text.upper())
    found = m.predict(documents[3], corpus=[*documents[:6], copy])
    matches = found.queries[0].matches
    assert {one.name for one in matches if one.same} == {documents[3].name, "copy.rst"}
    assert matches[0].score == pytest.approx(1, abs=1e-6)
    assert any(note.startswith("2 of the documents found have the very text") for note in found.notes)
    assert "(the same text)" in str(found)
    assert [one.answers == () for one in matches] == [one.same for one in matches]


def test_an_index_answers_as_the_documents_do(m: Matcher, documents: list[Document], tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "docs"
    for one in documents[:12]:
        (folder / one.name).parent.mkdir(parents=True, exist_ok=True)
        (folder / one.name).with_suffix(".txt").write_text(one.text)
    encoded = m.encode(folder)
    place = encoded.save(tmp_path / "index")
    assert (encoded.tally.documents, len(Index.open(place))) == (12, 12)
    straight, kept = (m.predict(documents[2], corpus=corpus) for corpus in (folder, place))
    assert straight.queries[0].matches == kept.queries[0].matches
    assert kept.queries[0].matches[1].answers
    changed = folder / kept.queries[0].matches[1].name
    changed.write_text(changed.read_text() + "Another sentence.")
    again = m.predict(documents[2], corpus=place)
    assert not again.queries[0].matches[1].answers
    assert any(note.startswith("1 documents are not as they were") for note in again.notes)


def test_a_text_is_a_query_and_a_missing_path_is_none(m: Matcher, documents: list[Document]) -> None:
    text = "a text with words, not a path " * 200  # longer than any path
    found = m.predict(text, corpus=documents[:4])
    assert found.queries[0].name.startswith("a text with words, not a path a text")
    assert found.queries[0].facts is not None
    assert found.queries[0].facts.tokens > 800
    assert any("was read as a text" in note for note in m.predict("compression", corpus=documents[:4]).notes)
    for path in ("nowhere.rst", "no/where", "docs/nothing.html"):
        with pytest.raises(InputError, match="no such file or folder"):
            m.predict(path, corpus=documents[:4])
    with pytest.raises(InputError, match="query is empty"):
        m.predict("  ", corpus=documents[:4])
    several = m.predict(["two words", "nowhere.rst"], corpus=documents[:4])
    assert [query.name for query in several.queries] == ["two words"]
    assert set(several.failures) == {"nowhere.rst"}


def test_an_interrupted_index_goes_on(m: Matcher, documents: list[Document], tmp_path: pathlib.Path) -> None:
    def broken() -> Iterator[Document]:
        yield from documents[:9]
        raise KeyboardInterrupt

    whole = m.encode(documents)
    whole.save(tmp_path / "whole")
    part = m.encode(documents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.data.datasets.document_stream.DocumentStream.__iter__", lambda self: broken())
        patch.setattr(m, "batch_blocks", 1)  # each document on its own, so that some are done before the end
        with pytest.raises(KeyboardInterrupt):
            part.save(tmp_path / "part")
    assert not (tmp_path / "part").exists()
    rest = m.encode(documents)
    rest.save(tmp_path / "part")
    assert any("9 documents were encoded before" in note for note in rest.notes)
    assert rest.tally.to_dict() == whole.tally.to_dict()
    assert [note for note in rest.notes if "encoded before" not in note] == list(whole.notes)
    one, other = Index.open(tmp_path / "part"), Index.open(tmp_path / "whole")
    assert list(one.names()) == list(other.names())
    assert np.allclose(one.vectors(), other.vectors(), atol=2e-6)


# What is learned from -------------------------------------------------------------------------------------------------


def fresh(**changes: Any) -> Matcher:
    return Matcher(**{**TINY, **changes})


def test_the_halves_of_a_document_match_and_stay_together() -> None:
    given = [*written(12), Document("short.txt", "Too short.")]
    material = read_material(fresh(pairs=PairOptions(source="halves")), given)
    assert len(material.documents) == 24
    for (left, right), whole in zip(material.matches.tolist(), given[:12], strict=True):
        halves = material.documents[left].text, material.documents[right].text
        assert "".join(halves) == whole.text
        assert min(map(len, halves)) > 0.4 * len(whole.text)
        assert material.group[left] == material.group[right]
    assert any(note.startswith("1 documents are too short") for note in material.notes)


@pytest.mark.parametrize("seed", range(6))
def test_no_text_is_on_two_sides(seed: int) -> None:
    random = np.random.default_rng(seed)
    documents = tuple(written(30)[i] for i in (*range(30), 3, 4, 5, 5))  # four copies
    group = np.r_[np.arange(30), 3, 4, 5, 5]
    matches = np.unique(np.sort(random.integers(0, 34, (60, 2)), 1), axis=0)
    matches = matches[matches[:, 0] != matches[:, 1]]
    parts, _ = parts_of(fresh(seed=seed), Material("made", documents, matches, group, "links"))
    every = np.concatenate([parts.train, parts.valid, parts.test])
    assert sorted(every.tolist()) == list(range(34))
    texts = [{identity(documents[i]) for i in part} for part in (parts.train, parts.valid, parts.test)]
    assert not texts[0] & texts[1]
    assert not texts[0] & texts[2]
    assert not texts[1] & texts[2]
    assert all(map(len, (parts.train, parts.valid, parts.test)))


def test_parts_that_the_data_name_are_kept(tmp_path: pathlib.Path) -> None:
    texts = [one.text for one in written(18)]
    rows = [
        {"left": texts[i], "right": texts[i + 1], "label": i % 4 // 2, "split": part}
        for part, start in (("train", 0), ("valid", 8), ("test", 12))
        for i in range(start, start + (8 if part == "train" else 4), 2)
    ]
    rows.append({"left": texts[0], "right": texts[12], "label": 1, "split": "train"})  # one that leaks
    (tmp_path / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    m = fresh()
    material = read_material(m, tmp_path / "pairs.jsonl")
    parts, notes = parts_of(m, material)
    names = {name: {material.documents[i].text for i in getattr(parts, name)} for name in ("train", "valid", "test")}
    assert names == {"train": set(texts[:8]), "valid": set(texts[8:12]), "test": set(texts[12:16])}
    assert any("1 pairs of documents in different parts" in note for note in notes)
    part = np.zeros(len(material.documents), np.int64)
    part[parts.valid], part[parts.test] = 1, 2
    assert (pair_parts(material.matches, part) >= 0).sum() == len(material.matches) - 1


def pairs_of(count: int) -> list[tuple[str, str, int]]:
    """Texts that share a word match, others do not."""
    made = []
    for i in range(count):
        left, right = (f"The {'apple' if i % 2 else 'stone'} {i} is {k}. It is number {i + 7 * k}." for k in (1, 2))
        made.append((left, right, 1))
        made.append((left, f"Another thing, {i}, altogether {i * i}. Nothing of it is here.", 0))
    return made


def test_pairs_and_triples_are_learned_from(tmp_path: pathlib.Path) -> None:
    pairs = pairs_of(24)
    m = fresh(test=0.3).fit(pairs)
    assert m.state.training["kind"] == "pairs"
    measured = m.evaluate(pairs)
    assert measured.counts["pairs"] > measured.counts["matches"] > 0
    assert "no match" in measured.protocol
    triples = [
        {"anchor": a[0], "positive": a[1], "negative": b[1]} for a, b in zip(pairs[::2], pairs[1::2], strict=True)
    ]
    (tmp_path / "triples.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in triples))
    twin = fresh(test=0.3).fit(tmp_path / "triples.jsonl")
    assert twin.state.training["matches"] == m.state.training["matches"]
    assert set(twin.state.trained.tolist()) == set(m.state.trained.tolist())


def linked(count: int) -> list[Document]:
    """Documents in groups of three that link to each other."""
    found = []
    for i, one in enumerate(written(count, 6)):
        others = [f"d{k}.md" for k in range(3 * (i // 3), 3 * (i // 3) + 3) if k != i]
        found.append(dataclasses.replace(one, name=f"d{i}.md", kind="markdown", links=tuple(others)))
    return found


def test_links_are_learned_from_and_what_was_learned_is_not_measured() -> None:
    documents = linked(36)
    m = fresh(test=0.4, valid=0.3, seed=1).fit(documents)
    trained, held = set(m.state.trained.tolist()), set(m.state.held.tolist())
    assert not trained & held
    kept = {identity(one) for one in held_out(m, documents)}
    assert kept == {identity(one) for one in documents} - trained - held
    measured = m.evaluate(documents)
    assert measured.counts["documents"] == len(kept) > 0
    edges = {tuple(sorted((i, k))) for i in range(36) for k in range(36) if i // 3 == k // 3 and i != k}
    inside = [pair for pair in edges if all(identity(documents[i]) in kept for i in pair)]
    assert measured.counts["matches"] == len(inside)
    again = m.evaluate([dataclasses.replace(one, text=f"  {one.text.upper()}\n") for one in documents])
    assert again.counts["documents"] == len(kept), "a text in capitals is the same text"
    with pytest.raises(NothingToMeasure, match="no two of the documents that can be measured match"):
        m.evaluate([one for one in documents if identity(one) not in kept])


def test_without_held_out_matches_there_are_no_probabilities(tmp_path: pathlib.Path) -> None:
    documents = linked(18)
    m = fresh(valid=0.0, test=0.0).fit(documents)
    found = m.predict(documents[0], corpus=documents)
    assert {one.probability for one in found.queries[0].matches} == {None}
    assert any("probabilities are not given" in note for note in found.notes)
    pairs = m.score([documents[0], documents[1]])
    assert pairs.pairs[0].probability is None
    pairs.save(tmp_path / "pairs.npy")
    assert np.isnan(np.load(tmp_path / "pairs.npy")[0, 1])
    assert Matcher.load(m.save(tmp_path / "kept")).score(documents[:2]).pairs[0].probability is None
    assert len(held_out(m, documents)) == 0


def test_folds_measure_every_document_once() -> None:
    documents = linked(30)
    measured = fresh(folds=2, valid=0.3).evaluate(documents)
    assert (measured.counts["documents"], measured.counts["fits"]) == (30, 2)
    assert 0 < measured.counts["matches"] < 30
    assert set(measured.baselines) == {"tfidf"}
    assert "2 folds by document" in measured.protocol
