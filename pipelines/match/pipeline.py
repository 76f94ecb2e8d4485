"""The public class of document matching: which documents of a folder belong to this one, and which passages say so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pipelines.base import Evaluation
from pipelines.data.formats.document_types import DocumentOptions
from pipelines.errors import ConfigError
from pipelines.fitted import FittedPipeline
from pipelines.match.options import (
    MODELS,
    TRAINING,
    ArchOptions,
    BlockOptions,
    PairOptions,
    PretrainOptions,
    WordOptions,
    architecture,
    block_length,
    check_values,
)
from pipelines.model_list import check_attention
from pipelines.training.options import TrainOptions
from pipelines.values import as_options

if TYPE_CHECKING:
    from pipelines.match.engine import Fitted
    from pipelines.match.result import Encoded, Matches, Scores

__all__ = ["Matcher"]


class Matcher(FittedPipeline["Fitted"]):
    """Find the documents that belong together, however long they are, and the passages that say why.

    SMITH: a document is cut into sentence blocks, an encoder reads each block, a second one reads the blocks' vectors,
    and two documents match as far as their vectors point the same way. Text, Markdown, reStructuredText, HTML, PDF,
    man pages, POD; folders, archives, JSONL and tables. Nothing is cut off unsaid.

    Args:
        model: smith, or mean (the mean of all-MiniLM-L6-v2 over the blocks, without training).
        size: small, or paper (the sizes of the published model).
        encoder: what reads the blocks: own = an encoder trained from nothing; minilm = all-MiniLM-L6-v2, which needs
            the extra ``match`` and is not changed; a map over its blocks and words is learned above it.
        attention: any mechanism for sequences in the place of the mixer of both encoders.
        arch: size and shape of the model (an ArchOptions, or a dict of its fields).
        blocks: how documents are cut (a BlockOptions, or a dict).
        words: the vocabulary (a WordOptions, or a dict).
        read: how files are read (a DocumentOptions, or a dict).
        pretrain: learning from the text alone, before pairs; of encoder own (a PretrainOptions, or a dict).
        pairs: which documents match (a PairOptions, or a dict).
        valid: share of the training documents that chooses the epoch and calibrates.
        test: share of the documents that are kept for measuring, where the data name none; 0 learns from all.
        folds: measure by so many fits instead, each document in one test part; 0 measures the test part.
        top: documents in an answer.
        baselines: measured beside the model: tfidf, minilm-256 (its first 256 tokens), minilm-mean (all blocks).
        backend: of the search: auto, matrix, or faiss (needs the extra ``match``).
        batch_blocks: sentence blocks that are encoded at once.
        train: how the model is fitted (a TrainOptions, or a dict of its fields).
        device: auto, cpu, cuda, cuda:N or mps.
        precision: 32-true, bf16-mixed, 16-mixed or 64-true.
        seed: of weights, order, masks, negatives and splits.
        threads: CPU threads; default what torch takes.

    Raises:
        ConfigError: when used, for a model or option that does not exist.

    Example:
        >>> Matcher(encoder="minilm").model
        'smith'
    """

    domain: ClassVar[str] = "match"
    engine: ClassVar[str] = "pipelines.match.engine"
    summary: ClassVar[str] = "Match long documents (text, Markdown, RST, HTML, PDF): search, scores, passages."
    verbs: ClassVar[Mapping[str, str]] = {"search": "predict", "score": "score", "encode": "encode"}
    endings: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "predict": (".json", ".jsonl", ".csv", ".tsv", ".parquet"),
        "search": (".json", ".jsonl", ".csv", ".tsv", ".parquet"),
        "score": (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".npy"),
        "encode": (".npy", ".npz", ".csv", ".parquet", ".jsonl"),
    }
    together: ClassVar[frozenset[str]] = frozenset({"predict", "search", "score", "encode"})
    call_time: ClassVar[frozenset[str]] = frozenset(
        {
            "blocks",
            "read",
            "pairs",
            "valid",
            "test",
            "folds",
            "top",
            "baselines",
            "backend",
            "batch_blocks",
            "train",
            "pretrain",
        }
    )

    def __init__(
        self,
        *,
        model: str = "smith",
        size: str = "small",
        encoder: Literal["own", "minilm"] = "own",
        attention: str | None = None,
        arch: ArchOptions = ArchOptions(),  # noqa: B008 - frozen
        blocks: BlockOptions = BlockOptions(),  # noqa: B008 - frozen
        words: WordOptions = WordOptions(),  # noqa: B008 - frozen
        read: DocumentOptions = DocumentOptions(),  # noqa: B008 - frozen
        pretrain: PretrainOptions = PretrainOptions(),  # noqa: B008 - frozen
        pairs: PairOptions = PairOptions(),  # noqa: B008 - frozen
        valid: float = 0.1,
        test: float = 0.2,
        folds: int = 0,
        top: int = 10,
        baselines: tuple[str, ...] = ("tfidf", "minilm-256", "minilm-mean"),
        backend: Literal["auto", "matrix", "faiss"] = "auto",
        batch_blocks: int = 256,
        train: TrainOptions = TRAINING,
        device: str = "auto",
        precision: str = "32-true",
        seed: int = 2021,
        threads: int | None = None,
    ) -> None:
        self.model = model
        self.size = size
        self.encoder = encoder
        self.attention = attention
        self.arch = as_options(ArchOptions, arch, "arch")
        self.blocks = as_options(BlockOptions, blocks, "blocks")
        self.words = as_options(WordOptions, words, "words")
        self.read = as_options(DocumentOptions, read, "read")
        self.pretrain = as_options(PretrainOptions, pretrain, "pretrain")
        self.pairs = as_options(PairOptions, pairs, "pairs")
        self.valid = valid
        self.test = test
        self.folds = folds
        self.top = top
        self.baselines = baselines
        self.backend: Literal["auto", "matrix", "faiss"] = backend
        self.batch_blocks = batch_blocks
        self.train = as_options(TrainOptions, train, "train")
        self.device = device
        self.precision = precision
        self.seed = seed
        self.threads = threads

    def fit(self, data: Any) -> Self:
        """Learn which documents match from linked documents, from pairs, or from the halves of documents.

        Args:
            data: a name of the catalogue; a folder, archive or table of documents, whose links tell what matches; a
                file of pairs or triples; documents or texts; or a sequence of (text, text, label).

        Raises:
            InputError: no document, nothing to learn from, or pairs that cannot be read.
            ConfigError: an option that does not exist or does not fit.
        """
        from pipelines.match.engine import fit

        self._check()
        if MODELS[self.model].baseline:
            self._ready("fit")
            return self
        self.start_torch()
        self._check_fit()
        self._state, self._fitted = fit(self, data), True
        return self

    def predict(self, inputs: Any, *, corpus: Any = None, passages: int = 3, expected_matches: float = 1.0) -> Matches:
        """The documents of a corpus that lie nearest to each query, and the passages that answer each other.

        Args:
            inputs: queries: paths, texts, documents, or a sequence of these.
            corpus: what is searched: a folder, archive or table of documents, or what `encode` wrote; without it the
                queries are searched among each other.
            passages: pairs of passages that are shown of each answer; 0 shows none.
            expected_matches: how many documents of the corpus are taken to match a query before anything is read, at
                most half of them: probabilities are calibrated on pairs of which half match, and are corrected by it.

        Raises:
            ConfigError: no corpus, or nothing is fitted.
            InputError: a query that cannot be read, or a corpus without documents.
            WeightsError: vectors that other weights made.
        """
        from pipelines.match.predict import search

        self._ready("predict")
        return search(self, inputs, corpus, passages, expected_matches)

    def score(self, inputs: Any, *, passages: int = 3) -> Scores:
        """How well two documents match, for one pair or a file of pairs: score, probability, passages.

        Args:
            inputs: two documents (paths or texts), a file of pairs, or a sequence of pairs.
            passages: pairs of passages that are shown of each pair of documents; 0 shows none.

        Raises:
            InputError: not two documents and no file of pairs.
        """
        from pipelines.match.scoring import score

        self._ready("score")
        return score(self, inputs, passages)

    def encode(self, inputs: Any) -> Encoded:
        """Turn a stream of documents into vectors on disk that can be searched; memory does not grow with their number.

        Args:
            inputs: folders, archives, tables, files, texts or documents.

        Raises:
            InputError: no document could be read.
        """
        from pipelines.match.encode import encode

        self._ready("encode")
        return encode(self, inputs)

    # They answer with what is fitted or ships, and never fit on their queries.
    predict.fits_itself = True  # type: ignore[attr-defined]
    score.fits_itself = True  # type: ignore[attr-defined]
    encode.fits_itself = True  # type: ignore[attr-defined]

    def evaluate(self, data: Any) -> Evaluation:
        """Measure on documents that the model was not trained on, beside TF-IDF and MiniLM.

        Args:
            data: as :meth:`fit`.
        """
        from pipelines.match.evaluation import evaluate, evaluate_folds

        self._check()
        if self.folds and not MODELS[self.model].baseline:
            self.start_torch()
            self._check_fit()
            return evaluate_folds(self, data)
        self._ready("evaluate")
        return evaluate(self, data)

    def demo(self) -> tuple[Evaluation, Matches]:
        """Measure the shipped model on the embedded documents held out of its training, and search them."""
        from pipelines.match.reading import held_out

        self._ready("demo")
        kept = held_out(self, "demo")
        queries = [one for one in kept if len(one.text) > 4000][:3] or list(kept[:3])
        # MiniLM over whole documents takes minutes: `evaluate` has it.
        twin = self.clone(baselines=("tfidf",))
        twin._state, twin._fitted = self.state, True
        return twin.evaluate("demo"), self.predict(queries, corpus=kept)

    @classmethod
    def from_official(cls, path: str | Path, **params: Any) -> Self:
        """Refuse: the released checkpoint has no vocabulary beside it.

        Raises:
            ConfigError: always; ``load_official`` opens the network.
        """
        raise ConfigError(
            "the released checkpoint is a network without a vocabulary",
            where=path,
            cure='open it with pipelines.load_official("smith", path), or fit a model',
        )

    @classmethod
    def check_kit(cls) -> dict[str, Any]:
        """A short run on a few embedded documents."""
        from pipelines.match.reading import read_material

        found = read_material(cls(), "demo")
        short = sorted(found.documents, key=lambda one: len(one.text))[60:100]
        params = {
            "arch": ArchOptions(dim=16, sentence_layers=1, document_layers=1, heads=2, hidden=32),
            "blocks": BlockOptions(length=16, limit=8),
            "words": WordOptions(size=300),
            "pretrain": PretrainOptions(epochs=1),
            "pairs": PairOptions(source="halves"),
            "train": TrainOptions(epochs=1, patience=0),
        }
        return {"params": params, "data": short, "inputs": short[:3]}

    def shipped_name(self) -> str | None:
        """The model that ships for either encoder, where nothing about it is changed."""
        usual = self.model == "smith" and self.attention in (None, "softmax") and self.arch == ArchOptions()
        names = {"own": "smith_python", "minilm": "smith_minilm"}
        return names.get(self.encoder) if usual and self.size == "small" else None

    def _fit_rule(self) -> Fitted | None:
        if not MODELS[self.model].baseline:
            return None
        from pipelines.match.engine import mean_of_blocks

        return mean_of_blocks(self)

    @property
    def has_weights(self) -> bool:
        """Whether there is anything to save: the mean of MiniLM has nothing of its own."""
        return self.is_fitted and not MODELS[self.model].baseline

    def _ready(self, what: str) -> None:
        super()._ready(what)
        longest = self.state.module.config.sentence_positions
        if block_length(self.blocks, self.state.encoder) > longest:
            raise ConfigError(
                "the model knows no such long blocks",
                where="blocks.length",
                found=self.blocks.length,
                expected=f"at most {longest}, as it was fitted with",
                cure="leave --blocks.length out, or fit a model",
            )

    def _check(self) -> None:
        from pipelines.match.baselines import check_baselines

        architecture(self.model, self.size, self.encoder, self.arch)
        check_values(
            self.blocks,
            self.words,
            self.pretrain,
            self.pairs,
            valid=self.valid,
            test=self.test,
            folds=self.folds,
            top=self.top,
        )
        if self.backend not in ("auto", "matrix", "faiss"):
            raise ConfigError(
                "there is no such choice", where="backend", found=self.backend, expected="auto, matrix or faiss"
            )
        if isinstance(self.batch_blocks, bool) or self.batch_blocks < 1:
            raise ConfigError("out of range", where="batch_blocks", found=self.batch_blocks, expected="from 1")
        check_attention(MODELS, self.model, self.attention)
        check_baselines(self.baselines)
        self.train.validate()

    def _check_fit(self) -> None:
        """Refuse before anything is read what could not be built after it."""
        from pipelines.match.models.encoder import sequence_mixer
        from pipelines.match.vocabulary import WordPiece

        arch = architecture(self.model, self.size, self.encoder, self.arch)
        length = block_length(self.blocks, self.encoder)
        sequence_mixer(self.attention or "softmax", arch["dim"], arch["heads"], length=length)
        if self.words.file is not None:
            WordPiece.from_file(self.words.file, lowercase=self.words.lowercase)
