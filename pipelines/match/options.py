"""What can be set about matching; loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from pipelines.errors import ConfigError
from pipelines.model_list import ModelInfo, chosen_options, find_model
from pipelines.training.options import TrainOptions

__all__ = [
    "MODELS",
    "SIZES",
    "TRAINING",
    "ArchOptions",
    "BlockOptions",
    "PairOptions",
    "PretrainOptions",
    "WordOptions",
    "architecture",
    "block_length",
    "check_values",
    "known_model",
]

#: AdamW with a warm-up, as the paper fine-tunes; the step size falls along a cosine.
TRAINING = TrainOptions(
    epochs=20,
    batch_size=128,
    patience=0,
    schedule="cosine",
    warmup_steps=50,
    weight_decay=0.01,
    decoupled=True,
    clip_norm=1.0,
)


@dataclass(frozen=True)
class ArchOptions:
    """Size and shape of the model; what is left out is set by its size."""

    dim: int | None = None
    """Channels of tokens and blocks."""
    sentence_layers: int | None = None
    """Layers of the sentence encoder."""
    document_layers: int | None = None
    """Layers of the document encoder; 0 leaves the mean of the blocks alone."""
    heads: int | None = None
    """Heads of mechanisms that have heads."""
    hidden: int | None = None
    """Inner width of the feed-forward layers."""
    dropout: float | None = None
    """Share of the values that are dropped while training."""
    combine: Literal["normal", "sum_concat", "mean_concat", "attention"] | None = None
    """What a document's vector is made of: the document encoder's answer alone, or beside the blocks' sum, mean or
    attention-weighted sum."""
    activation: Literal["none", "relu"] | None = None
    """Before the norms; relu is the released code's, after which no two documents are unlike."""
    words: bool | None = None
    """Whether the mean of the blocks and the document's rarer words stand beside the encoders' vector; false is the
    paper's model."""


@dataclass(frozen=True)
class BlockOptions:
    """How a document is cut."""

    length: int | None = None
    """Tokens of a sentence block, marks among them; default 32, of MiniLM 128."""
    limit: int = 64
    """Blocks that the document encoder sees at once: 64 of 32 tokens are the paper's 2,048 tokens."""
    on_long: Literal["block", "error", "truncate"] = "block"
    """Sentences longer than a block and documents of more blocks: block = go on in the next block, and in the next
    window of the document encoder; error = stop; truncate = cut as the released code does. All are counted."""


@dataclass(frozen=True)
class WordOptions:
    """The WordPiece vocabulary."""

    size: int = 8192
    """Pieces that are learned from the training documents."""
    lowercase: bool = True
    """Upper and lower case are one, and accents fall away."""
    start: Literal["svd", "random"] = "svd"
    """What an encoder of ours begins with for each word: its place in the training documents' latent semantic space
    (singular vectors of TF-IDF), or noise."""
    file: str | None = None
    """A vocab.txt or tokenizer.json to take instead."""


@dataclass(frozen=True)
class PretrainOptions:
    """Learning from the text alone, before pairs: masked words and masked sentence blocks."""

    losses: Literal["both", "words", "none"] = "both"
    """Masked words and masked blocks, masked words alone, or no pre-training."""
    epochs: int = 10
    """Passes over the training documents."""
    batch_blocks: int = 256
    """Sentence blocks in a step."""
    masked_blocks: int = 2
    """Blocks that are masked in a document."""
    learning_rate: float = 1e-3
    """Largest step size."""


@dataclass(frozen=True)
class PairOptions:
    """Where the pairs that are learned from and measured on come from."""

    source: Literal["auto", "links", "halves"] = "auto"
    """links = linked documents match; halves = the two halves of one document do; auto = links where there are any."""
    links: str | None = None
    """A table of two columns with the names of documents that match, instead of the links in the documents."""
    roles: Literal["drop", "text"] = "drop"
    """What stays of a link in the text when links are learned or measured: nothing, so that the answer is not written
    there, or its words."""
    hard: int = 0
    """Beside each match stands a pair drawn from so many nearest documents by TF-IDF that do not match; 0 for none."""
    loss: Literal["batch", "pairs"] = "batch"
    """batch = all random documents of a step against each other; pairs = as released, one pair beside each match."""
    sentences: Literal["kept", "learned"] = "kept"
    """Whether matches change only what stands above the sentence encoder, or that too, as in the paper: then a step
    holds all tokens of its documents (--train.batch_size 16 is enough for one)."""
    pull: float = 0.01
    """Weight of the squared distance of the map over blocks and words from doing nothing."""


SIZES: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "small": MappingProxyType({"dim": 128, "sentence_layers": 2, "document_layers": 2, "heads": 4, "hidden": 512}),
        "paper": MappingProxyType({"dim": 256, "sentence_layers": 4, "document_layers": 3, "heads": 4, "hidden": 512}),
    }
)
#: The sentence encoder of all-MiniLM-L6-v2, which is never changed. Above it stands a learned map over the mean of the
#: blocks and the words: a thousand matches teach a document encoder nothing (`--arch.document_layers 1` adds one).
MINILM: Mapping[str, int] = MappingProxyType(
    {"dim": 384, "sentence_layers": 6, "document_layers": 0, "heads": 12, "hidden": 768}
)

_INFOS = (
    ModelInfo(
        name="smith",
        paper="SMITH: Beyond 512 Tokens, Siamese Multi-depth Transformer-based Hierarchical Encoder (arXiv 2004.12297)",
        sheet=4,
        summary="sentence blocks, a sentence encoder, a document encoder over its vectors; two documents, one model",
        learning_rate=1e-3,
        attention="softmax",
        defaults=MappingProxyType(
            {**SIZES["small"], "dropout": 0.1, "combine": "normal", "activation": "none", "words": True}
        ),
    ),
    ModelInfo(
        name="mean",
        paper="ours",
        sheet=0,
        summary="the mean of the block vectors of all-MiniLM-L6-v2, without training",
        baseline=True,
        defaults=MappingProxyType({}),
    ),
)

#: Models by name.
MODELS: Mapping[str, ModelInfo] = MappingProxyType({info.name: info for info in _INFOS})


def architecture(name: str, size: str, encoder: str, arch: ArchOptions) -> dict[str, Any]:
    """The sizes that a model is built with.

    Raises:
        ConfigError: an unknown model or size, or an option that cannot be.

    Example:
        >>> architecture("smith", "paper", "own", ArchOptions(document_layers=1))["document_layers"]
        1
        >>> architecture("smith", "small", "minilm", ArchOptions())["dim"]
        384
    """
    if size not in SIZES:
        raise ConfigError("unknown size", where="size", found=size, expected=" or ".join(SIZES))
    _choice("encoder", encoder, ("own", "minilm"))
    chosen = chosen_options(MODELS, name, arch)
    if name == "mean":
        plain = {"document_layers": 0, "dropout": 0.0, "combine": "normal", "activation": "none", "words": False}
        return dict(MINILM) | plain
    for label, value in (MINILM if encoder == "minilm" else SIZES[size]).items():
        if getattr(arch, label) is None:
            chosen[label] = value
        elif encoder == "minilm" and label in ("dim", "sentence_layers") and value != getattr(arch, label):
            raise ConfigError(
                "all-MiniLM-L6-v2 has a size of its own",
                where=f"arch.{label}",
                found=getattr(arch, label),
                expected=value,
                cure="leave it out, or choose --encoder own",
            )
    least = {"dim": 1, "sentence_layers": 1, "document_layers": 0, "heads": 1, "hidden": 1}
    for label, smallest in least.items():
        _whole(f"arch.{label}", chosen[label], smallest)
    if not 0 <= chosen["dropout"] < 1:
        raise ConfigError("out of range", where="arch.dropout", found=chosen["dropout"], expected="0 to below 1")
    _choice("arch.combine", chosen["combine"], ("normal", "sum_concat", "mean_concat", "attention"))
    _choice("arch.activation", chosen["activation"], ("none", "relu"))
    return chosen


def block_length(blocks: BlockOptions, encoder: str) -> int:
    """Tokens of a block.

    Example:
        >>> block_length(BlockOptions(), "minilm")
        128
    """
    return blocks.length if blocks.length is not None else 128 if encoder == "minilm" else 32


def check_values(
    blocks: BlockOptions,
    words: WordOptions,
    pretrain: PretrainOptions,
    pairs: PairOptions,
    *,
    valid: float,
    test: float,
    folds: int,
    top: int,
) -> None:
    """Refuse numbers and names that cannot be.

    Raises:
        ConfigError: one of them is out of its range.

    Example:
        >>> plain = (WordOptions(), PretrainOptions(), PairOptions())
        >>> check_values(BlockOptions(length=3), *plain, valid=0.1, test=0.2, folds=0, top=10)
        Traceback (most recent call last):
        pipelines.errors.ConfigError: blocks.length: out of range. Found: 3. Expected: a whole number from 4.
    """
    if blocks.length is not None:
        _whole("blocks.length", blocks.length, 4)
    _whole("blocks.limit", blocks.limit, 1)
    _choice("blocks.on_long", blocks.on_long, ("block", "error", "truncate"))
    _whole("words.size", words.size, 100)
    _whole("pretrain.epochs", pretrain.epochs, 1)
    _whole("pretrain.batch_blocks", pretrain.batch_blocks, 1)
    _whole("pretrain.masked_blocks", pretrain.masked_blocks, 1)
    _choice("pretrain.losses", pretrain.losses, ("both", "words", "none"))
    if not pretrain.learning_rate > 0:
        raise ConfigError("out of range", where="pretrain.learning_rate", found=pretrain.learning_rate, expected="> 0")
    _choice("pairs.source", pairs.source, ("auto", "links", "halves"))
    _choice("pairs.roles", pairs.roles, ("drop", "text"))
    _choice("pairs.loss", pairs.loss, ("batch", "pairs"))
    _choice("pairs.sentences", pairs.sentences, ("learned", "kept"))
    _choice("words.start", words.start, ("svd", "random"))
    _whole("pairs.hard", pairs.hard, 0)
    if not pairs.pull >= 0:
        raise ConfigError("out of range", where="pairs.pull", found=pairs.pull, expected="from 0")
    _whole("top", top, 1)
    _whole("folds", folds, 0)
    if folds == 1:
        raise ConfigError("out of range", where="folds", found=folds, expected="0 for one split, or 2 and more")
    for label, value in (("valid", valid), ("test", test)):
        if not 0 <= value < 1:
            raise ConfigError("out of range", where=label, found=value, expected="0 to below 1")


def known_model(name: str) -> ModelInfo:
    """The entry of a model; an unknown one is refused, with the nearest name.

    Example:
        >>> known_model("smith").sheet
        4
    """
    return find_model(MODELS, name)


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError("out of range", where=name, found=value, expected=f"a whole number from {least}")


def _choice(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError("there is no such choice", where=name, found=value, expected=" or ".join(known))
