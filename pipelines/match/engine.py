"""From documents and their matches to a fitted model, and from it to what is stored."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.data.datasets.document_splits import pair_parts, random_negatives
from pipelines.data.datasets.document_tfidf import Tfidf
from pipelines.errors import InputError
from pipelines.match.blocks import Blocks
from pipelines.match.calibration import Calibration, calibrate
from pipelines.match.encoding import block_vectors, cut, total_counts
from pipelines.match.models.pretraining import PretrainingHeads
from pipelines.match.models.smith import Smith, SmithConfig
from pipelines.match.models.words import latent_words, rarity
from pipelines.match.options import architecture, block_length, known_model
from pipelines.match.reading import Material, Parts, identity, parts_of, read_material
from pipelines.match.training import Pairs, Pretrained, Pretraining, Windows, pair_loss, pretraining_loss
from pipelines.match.vocabulary import WordPiece

if TYPE_CHECKING:
    from pipelines.match.pipeline import Matcher

__all__ = ["Fitted", "Prepared", "fit", "fit_parts", "frozen_rows", "mean_of_blocks", "prepare", "restore"]

_SENTENCE = "sentences."


@dataclasses.dataclass
class Fitted:
    """A model that can answer.

    Attributes:
        name: of the model.
        module: in eval mode, on the device.
        vocabulary: its words.
        encoder: own or minilm, whose weights are not stored.
        training: how it was trained.
        trained: numbers of the documents that it learned from (N,), see ``identity``.
        held: numbers of those that chose the epoch and calibrated (M,).
        calibration: from scores to probabilities.
        notes: on the data that it was trained on.
        origin: where the weights come from.
    """

    name: str
    module: Smith
    vocabulary: WordPiece
    encoder: str
    training: dict[str, Any]
    trained: Tensor
    held: Tensor
    calibration: Calibration
    notes: tuple[str, ...] = ()
    origin: str = ""

    def to_config(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors, and how to build the model that they are of."""
        state = self.module.state_dict()
        if self.encoder == "minilm":
            state = {name: value for name, value in state.items() if not name.startswith(_SENTENCE)}
        tensors = {f"model.{name}": value.contiguous() for name, value in state.items()}
        return tensors | {"trained": self.trained, "held": self.held}, {
            "arguments": dataclasses.asdict(self.module.config),
            "encoder": self.encoder,
            "vocabulary": None if self.encoder == "minilm" else self.vocabulary.to_json(),
            "calibration": self.calibration.to_dict(),
            "training": self.training,
            "fit_notes": list(self.notes),
        }

    @property
    def identity(self) -> str:
        """SHA-256 of all tensors: vectors of two models can be compared only where it is the same."""
        found = hashlib.sha256()
        for name, value in sorted(self.module.state_dict().items()):
            found.update(name.encode())
            found.update(value.detach().cpu().float().numpy().tobytes())
        return found.hexdigest()

    def export_parts(self) -> tuple[nn.Module, dict[str, Tensor], str]:
        """The network from ids to vectors on the CPU, and two example documents of as many full blocks."""
        module = copy.deepcopy(self.module).cpu().eval()
        generator = torch.Generator().manual_seed(0)
        config = self.module.config
        ids = torch.randint(5, config.vocabulary, (2, min(8, config.blocks), config.block), generator=generator)
        return _Whole(module), {"ids": ids}, "vectors"


class _Whole(nn.Module):
    """Ids (N, B, L), 0 = padding, to document vectors (N, D)."""

    def __init__(self, module: Smith) -> None:
        super().__init__()
        self.module = module

    def forward(self, ids: Tensor) -> Tensor:
        """Vectors of documents of at most as many blocks as the document encoder sees at once."""
        return self.module.encode(ids)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Documents cut into blocks.

    Attributes:
        vocabulary: that they are cut with.
        blocks: of each document.
        rows: what is trained on: ids (B, L), or the vectors (B, C) of an encoder that is not changed.
        notes: what was done to them, counted.
        counts: tokens, sentences, blocks and so on, of all.
    """

    vocabulary: WordPiece
    blocks: Sequence[Blocks]
    rows: Sequence[NDArray[Any]]
    notes: tuple[str, ...]
    counts: dict[str, int]


def fit(m: Matcher, data: Any) -> Fitted:
    """Train a matcher.

    Raises:
        InputError: no documents, or no matches to learn from.
        ConfigError: an option that does not exist or does not fit.
    """
    material = read_material(m, data)
    parts, notes = parts_of(m, material)
    fitted = fit_parts(m, material, parts, prepare(m, material, parts))
    fitted.notes = (*material.notes, *notes, *fitted.notes)
    return fitted


def prepare(m: Matcher, material: Material, parts: Parts) -> Prepared:
    """Cut all documents into blocks; with MiniLM, also compute the blocks' vectors, once and for all.

    The vocabulary is learned from the training documents alone.
    """
    if m.encoder == "minilm":
        from pipelines.match.models.minilm import minilm_vocabulary

        vocabulary = minilm_vocabulary()
    else:
        vocabulary = _vocabulary(m, [material.documents[i].text for i in parts.train])
    track = m.run.progress
    documents = material.documents if track is None else track.track(material.documents, label="documents cut")
    blocks = [cut(one, vocabulary, m.blocks, m.encoder) for one in documents]
    counts, notes = total_counts([one.counts for one in blocks])
    m.run.say(f"{len(blocks):,} documents, {counts['blocks']:,} blocks, {counts['tokens']:,} tokens")
    rows: list[NDArray[Any]] = [one.ids for one in blocks]
    if m.encoder == "minilm":
        rows = frozen_rows(m, build(m, vocabulary), rows)
    return Prepared(vocabulary, blocks, rows, tuple(notes), counts)


def _vocabulary(m: Matcher, texts: Sequence[str]) -> WordPiece:
    if m.words.file is not None:
        return WordPiece.from_file(m.words.file, lowercase=m.words.lowercase)
    return WordPiece.train(texts, m.words.size, lowercase=m.words.lowercase)


def frozen_rows(m: Matcher, module: Smith, ids: Sequence[NDArray[np.int32]]) -> list[NDArray[Any]]:
    """Vectors of all blocks under an encoder that is not changed."""
    from pipelines.training.distributed import resolve_device

    module = module.to(resolve_device(m.device)).eval()
    ends = np.cumsum([len(one) for one in ids])[:-1]
    every = np.concatenate(ids)
    order = np.argsort(-(every != 0).sum(1), kind="stable")  # blocks of equal length together: little padding
    vectors = np.zeros((len(every), module.config.dim), np.float32)
    steps = range(0, len(order), m.batch_blocks)
    track = m.run.progress
    for start in steps if track is None else track.track(steps, total=len(steps), label="blocks encoded"):
        chosen = order[start : start + m.batch_blocks]
        width = int((every[chosen] != 0).sum(1).max())
        given = np.ascontiguousarray(every[chosen, :width])
        vectors[chosen] = block_vectors(module, given, m.batch_blocks, m.precision)
    return np.split(vectors, ends)


def build(m: Matcher, vocabulary: WordPiece) -> Smith:
    """The network of a pipeline's options, with MiniLM's weights below where that was asked for."""
    arch = architecture(m.model, m.size, m.encoder, m.arch)
    attention = m.attention or known_model(m.model).attention or "softmax"
    length = block_length(m.blocks, m.encoder)
    shared: dict[str, Any] = dict(arch) | {"block": length, "blocks": m.blocks.limit}
    if m.encoder == "own":
        config = SmithConfig(
            vocabulary.size,
            attention=attention,
            sentence_positions=length,
            document_positions=m.blocks.limit,
            **shared,
        )
        return Smith(config)
    from pipelines.match.models.minilm import minilm_smith

    for name in ("heads", "hidden"):
        shared[f"document_{name}"] = shared.pop(name)
    return minilm_smith(
        document_positions=m.blocks.limit, document_attention=attention, document_pooling="mean", **shared
    )


def fit_parts(m: Matcher, material: Material, parts: Parts, prepared: Prepared) -> Fitted:
    """Pre-train, train and calibrate on the training and validation documents."""
    from pipelines.training.fitting import fit_module

    part = np.full(len(material.documents), -1, np.int64)
    for number, documents in enumerate((parts.train, parts.valid, parts.test)):
        part[documents] = number
    inside = pair_parts(material.matches, part)
    touches = _between(material.matches, part)
    learned, judged = material.matches[inside == 0], material.matches[touches]
    if not len(learned):
        raise InputError(
            "no two training documents match",
            where=material.name,
            found=f"{len(material.matches)} matches among {len(material.documents)} documents",
            cure="give more documents, or --pairs.source halves",
        )
    torch.manual_seed(m.seed)
    module = build(m, prepared.vocabulary)
    _know_words(m, module, prepared, parts)
    windows, summary = Windows(prepared.rows, m.blocks.limit), dict[str, Any]()
    if m.encoder == "own" and m.pretrain.losses != "none":
        summary["pretraining"] = _pretrain(m, module, prepared.vocabulary, windows, parts)
    kept = m.encoder == "minilm" or m.pairs.sentences == "kept"
    if kept and m.encoder == "own":
        prepared = dataclasses.replace(prepared, rows=frozen_rows(m, module, prepared.rows))
        windows = Windows(prepared.rows, m.blocks.limit)
        module.train()
    words = word_rows(module, prepared.blocks) if kept and module.config.words else None
    near = _near(m, material)
    sets = [
        Pairs(
            windows,
            matches,
            material.matches,
            np.concatenate(allowed),
            others=_others(material, part, judged=len(allowed) > 1),
            near=near,
            every=m.pairs.loss == "batch",
            words=words,
        )
        for matches, allowed in ((learned, [parts.train]), (judged, [parts.train, parts.valid]))
    ]
    m.run.say(f"{len(learned):,} matches to learn from, {len(judged):,} to choose the epoch")
    module.sentences.requires_grad_(not kept)
    twin = m.clone()
    twin.run = m.run.part("pairs")
    result = fit_module(
        twin,
        module,
        pair_loss,
        sets[0],
        sets[1] if len(judged) else None,
        default_lr=known_model(m.model).learning_rate,
    )
    module.eval()
    summary |= dataclasses.asdict(result) | {
        "matches": len(learned),
        "documents": len(parts.train),
        "held_out": len(parts.valid),
        "kind": material.kind,
    }
    ids = [torch.tensor([identity(material.documents[i]) for i in which]) for which in (parts.train, parts.valid)]
    fitted = Fitted(
        m.model, module, prepared.vocabulary, m.encoder, summary, ids[0].long(), ids[1].long(), _guess(module)
    )
    fitted.calibration, said = _calibrated(m, fitted, material, parts, prepared, judged)
    fitted.notes = (*prepared.notes, *said)
    return fitted


def _know_words(m: Matcher, module: Smith, prepared: Prepared, parts: Parts) -> None:
    """Weigh words by how rare they are in the training documents; start an encoder of ours from where they stand."""
    marks = (WordPiece.PAD, prepared.vocabulary.CLS, prepared.vocabulary.SEP, prepared.vocabulary.MASK)
    learned = [torch.from_numpy(prepared.blocks[one].ids) for one in parts.train.tolist()]
    weights = rarity(learned, module.config.vocabulary, marks)
    if module.config.words:
        module.beside.rarity.copy_(weights)
        module.beside.pull = m.pairs.pull
    if m.encoder == "own" and m.words.start == "svd":
        table = module.sentences.word_embedding.weight
        table.data.copy_(latent_words(learned, weights, module.config.dim, m.seed))


@torch.inference_mode()
def word_rows(module: Smith, blocks: Sequence[Blocks]) -> NDArray[np.float32]:
    """What the words of documents say (N, C)."""
    device = next(module.parameters()).device
    given = (torch.from_numpy(one.ids.astype(np.int64))[None].to(device) for one in blocks)
    return np.concatenate([module.word_vectors(ids).float().cpu().numpy() for ids in given])  # type: ignore[union-attr]


def _between(pairs: NDArray[np.int64], part: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Pairs with a validation document at one end, and no measured one at the other."""
    ends = part[pairs]
    return ((ends == 1).any(1) & np.isin(ends, (0, 1)).all(1)) if len(pairs) else np.zeros(0, bool)


def _others(material: Material, part: NDArray[np.int64], *, judged: bool) -> NDArray[np.int64] | None:
    """Pairs that the data call no match: among training documents, or with a validation document at one end."""
    if material.others is None:
        return None
    chosen = _between(material.others, part) if judged else pair_parts(material.others, part) == 0
    return material.others[chosen]


def _near(m: Matcher, material: Material) -> NDArray[np.int64] | None:
    if not m.pairs.hard:
        return None
    return Tfidf().fit([one.text for one in material.documents]).nearest(m.pairs.hard)


def _pretrain(m: Matcher, module: Smith, vocabulary: WordPiece, windows: Windows, parts: Parts) -> dict[str, Any]:
    """Learn words and blocks from the training documents; the weights stay in ``module``."""
    from pipelines.training.fitting import fit_module
    from pipelines.training.options import TrainOptions

    mean = sum(min(len(windows.rows[i]), windows.limit) for i in parts.train) / len(parts.train)
    twin = m.clone(
        train=TrainOptions(
            epochs=m.pretrain.epochs,
            batch_size=max(2, round(m.pretrain.batch_blocks / mean)),
            learning_rate=m.pretrain.learning_rate,
            patience=0,
            schedule="cosine",
            warmup_steps=50,
            weight_decay=0.01,
            decoupled=True,
            clip_norm=1.0,
            workers=m.train.workers,
            checkpoint_minutes=m.train.checkpoint_minutes,
        )
    )
    twin.run = m.run.part("pretraining")
    kept = (vocabulary.CLS, vocabulary.SEP)
    both = Pretraining(module, PretrainingHeads(module.config, mask_id=vocabulary.MASK, kept=kept))
    held = Pretrained(windows, parts.valid) if len(parts.valid) > 1 else None
    loss = pretraining_loss(m.pretrain.losses == "both", m.pretrain.masked_blocks)
    result = fit_module(twin, both, loss, Pretrained(windows, parts.train), held, default_lr=m.pretrain.learning_rate)
    return dataclasses.asdict(result)


def _calibrated(
    m: Matcher, fitted: Fitted, material: Material, parts: Parts, prepared: Prepared, judged: NDArray[np.int64]
) -> tuple[Calibration, list[str]]:
    """Probabilities from held-out matches and as many pairs that do not match."""
    if not len(judged):
        return fitted.calibration, []
    pool = np.concatenate([parts.train, parts.valid])
    drawn = random_negatives(pool, material.matches, 50 * len(judged) + 1000, m.seed)
    part = np.full(len(material.documents), -1, np.int64)
    part[parts.train], part[parts.valid] = 0, 1
    given = _others(material, part, judged=True)
    others = drawn[(part[drawn] == 1).any(1)][: len(judged)] if given is None else given
    wanted = np.unique(np.concatenate([judged, others]))
    vectors = document_vectors(fitted.module, prepared.rows, prepared.blocks, wanted, m.batch_blocks)
    pairs = np.concatenate([judged, others])
    scores = np.array([float(vectors[a] @ vectors[b]) for a, b in pairs.tolist()])
    labels = np.r_[np.ones(len(judged), np.int64), np.zeros(len(others), np.int64)]
    told = f"probabilities are calibrated on {len(judged)} held-out matches and {len(others)} other pairs"
    curve = calibrate(scores, labels)
    return curve, [told, *curve.notes]


def _guess(module: Smith) -> Calibration:
    """The curve that the model was trained with, where no held-out pair can tell a better one."""
    note = "no held-out matches to calibrate on: probabilities are not given"
    if not module.config.learned_scale:
        return Calibration(6.0, 0.0, 0, 0, (note,))
    return Calibration(float(module.log_scale.detach().exp()), float(module.bias.detach()), 0, 0, (note,))


@torch.inference_mode()
def document_vectors(
    module: Smith,
    rows: Sequence[NDArray[Any]],
    blocks: Mapping[int, Blocks] | Sequence[Blocks],
    chosen: NDArray[np.int64],
    batch: int,
) -> dict[int, NDArray[np.float32]]:
    """Vectors of some documents by their index, all their blocks read."""
    device = next(module.parameters()).device
    found: dict[int, NDArray[np.float32]] = {}
    for one in chosen.tolist():
        read = rows[one] if rows[one].dtype.kind == "f" else block_vectors(module, rows[one], batch)
        given = torch.from_numpy(np.ascontiguousarray(read))[None].to(device)
        mask = torch.ones(given.shape[:2], dtype=torch.bool, device=device)
        words = module.word_vectors(torch.from_numpy(blocks[one].ids.astype(np.int64))[None].to(device))
        found[one] = module.document_vectors(given, mask, words=words)[0].float().cpu().numpy()
    return found


def mean_of_blocks(m: Matcher) -> Fitted:
    """The mean of MiniLM's vectors over the blocks: a rule, with nothing to learn."""
    from pipelines.match.models.minilm import minilm_smith, minilm_vocabulary
    from pipelines.training.distributed import resolve_device

    arch = architecture("mean", m.size, "minilm", m.arch)
    length = block_length(m.blocks, "minilm")
    own = {name: arch[name] for name in ("document_layers", "dropout", "combine", "activation", "words")}
    module = minilm_smith(block=length, blocks=m.blocks.limit, document_positions=m.blocks.limit, **own)
    module = module.to(resolve_device(m.device)).eval()
    nothing = torch.zeros(0, dtype=torch.int64)
    return Fitted("mean", module, minilm_vocabulary(), "minilm", {}, nothing, nothing, _guess(module), (), "MiniLM")


def restore(m: Matcher, tensors: dict[str, Tensor], config: dict[str, Any]) -> Fitted:
    """Rebuild the fitted state from stored tensors and configuration."""
    from pipelines.official import check_shapes
    from pipelines.training.distributed import resolve_device

    own = {name.removeprefix("model."): value.float() for name, value in tensors.items() if name.startswith("model.")}
    arguments = SmithConfig(**config["arguments"])
    if config["encoder"] == "minilm":
        from pipelines.match.models.minilm import minilm_smith, minilm_vocabulary

        module, vocabulary = minilm_smith(arguments), minilm_vocabulary()
        own = {n: v for n, v in module.state_dict().items() if n.startswith(_SENTENCE)} | own
    else:
        module, vocabulary = Smith(arguments), WordPiece.from_json(config["vocabulary"])
    module.load_state_dict(check_shapes(module, own, name=m.model))
    return Fitted(
        m.model,
        module.eval().to(resolve_device(m.device)),
        vocabulary,
        config["encoder"],
        config["training"],
        tensors["trained"],
        tensors["held"],
        Calibration.from_dict(config["calibration"]),
        tuple(config["fit_notes"]),
        "a saved model",
    )
