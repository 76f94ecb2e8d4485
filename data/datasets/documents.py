"""Documents and what is known of them: streams, linked corpora, pairs."""

from __future__ import annotations

from pipelines.data.datasets.document_links import LinkedCorpus, linked_corpus, shared_links
from pipelines.data.datasets.document_open import open_documents, read_all
from pipelines.data.datasets.document_pairs import PairSet, is_pair_list, open_pairs
from pipelines.data.datasets.document_stream import DocumentStream

__all__ = [
    "DocumentStream",
    "LinkedCorpus",
    "PairSet",
    "is_pair_list",
    "linked_corpus",
    "open_documents",
    "open_pairs",
    "read_all",
    "shared_links",
]
