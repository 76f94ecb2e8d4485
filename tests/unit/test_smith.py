"""SMITH: against the released model written out in float64, and the promises of the well-posed form."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core_attention import MixerOutput, TokenMixer, mechanism, unregister
from pipelines.errors import ConfigError
from pipelines.match.models.encoder import SentenceEncoder, sequence_mixer, unit_rows
from pipelines.match.models.smith import COMBINATIONS, Smith, SmithConfig, matching_loss

Array = NDArray[np.float64]
MECHANISMS = ("softmax", "selective_ssm", "legendre", "auto_correlation", "prior_enhanced")
SMALL: dict[str, Any] = {
    "block": 8,
    "blocks": 6,
    "sentence_layers": 2,
    "document_layers": 2,
    "dim": 16,
    "heads": 2,
    "hidden": 24,
    "sentence_positions": 8,
    "document_positions": 8,
    "combine_size": 5,
}


def make(released: bool = False, seed: int = 3, **changes: Any) -> Smith:
    """A small model in eval mode whose parameters all matter."""
    torch.manual_seed(seed)
    options = SMALL | changes
    model = Smith(SmithConfig.as_released(40, **options) if released else SmithConfig(40, **options)).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim():
            mean = 1.0 if name.endswith("norm.weight") else 0.0
            nn.init.normal_(parameter, mean, std=0.4 if parameter.dim() > 1 else 0.2)
        if name.endswith("write.bias"):  # a Legendre memory into which nothing is written hears of no other token
            nn.init.constant_(parameter, 4.0)
    return model


def documents(counts: list[int], blocks: int, length: int = 8, seed: int = 0) -> Tensor:
    """Ids (N, B, L): so many valid blocks of 4 to L tokens each, then padding."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.zeros(len(counts), blocks, length, dtype=torch.long)
    for n, count in enumerate(counts):
        for b in range(count):
            tokens = int(torch.randint(4, length + 1, (), generator=generator))
            ids[n, b, :tokens] = torch.randint(5, 40, (tokens,), generator=generator)
            ids[n, b, 0] = 2
    return ids


class ByHand:
    """The released forward pass from the sheet's equations: one document at a time, numpy, float64."""

    def __init__(self, model: Smith) -> None:
        self.p = {name: value.detach().double().numpy() for name, value in model.named_parameters()}
        self.heads = model.config.heads

    def linear(self, name: str, x: Array) -> Array:
        return x @ self.p[f"{name}.weight"].T + self.p[f"{name}.bias"]

    def norm(self, name: str, x: Array) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return scaled * self.p[f"{name}.weight"] + self.p[f"{name}.bias"]

    def attention(self, name: str, x: Array, mask: Array) -> Array:
        q, k, v = (self.linear(f"{name}.{part}_projection", x) for part in ("query", "key", "value"))
        width = x.shape[1] // self.heads
        out = np.zeros_like(x)
        for head in range(self.heads):
            part = slice(head * width, (head + 1) * width)
            for row in range(len(x)):
                scores = [q[row, part] @ k[c, part] / math.sqrt(width) - 1e4 * (1 - mask[c]) for c in range(len(x))]
                weights = np.exp(np.array(scores) - max(scores))
                out[row, part] = (weights / weights.sum()) @ v[:, part]
        return self.linear(f"{name}.out_projection", out)

    def encoder(self, name: str, layers: int, x: Array, mask: Array) -> Array:
        for layer in (f"{name}.layers.{i}" for i in range(layers)):
            x = self.norm(f"{layer}.mixer_norm", x + self.attention(f"{layer}.mixer", x, mask))
            inner = self.linear(f"{layer}.expand", x)
            inner = 0.5 * inner * (1 + np.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
            x = self.norm(f"{layer}.output_norm", x + self.linear(f"{layer}.contract", inner))
        return x

    def head(self, name: str, h: Array, projection: str = "") -> Array:
        y = self.linear(projection or f"{name}.projection", np.tanh(self.linear(f"{name}.pooler", h)))
        y = np.maximum(y, 0)
        return y / math.sqrt(max((y**2).sum(), 1e-12))

    def block(self, ids: Array) -> Array:
        p, n = self.p, len(ids)
        x = p["sentences.word_embedding.weight"][ids] + p["sentences.position_embedding.weight"][:n]
        x = self.norm("sentences.norm", x + p["sentences.type_embedding.weight"][0])
        return self.head("sentences.head", self.encoder("sentences.encoder", 2, x, (ids != 0) * 1.0)[0])

    def document(self, ids: Array, combine: str, projection: str = "") -> Array:
        s = np.stack([self.block(row) for row in ids])
        x = self.norm("document_norm", s + self.p["document_positions.weight"][: len(s)])
        h = self.encoder("documents", 2, x, ((ids != 0).any(1)) * 1.0)
        e = self.head("document_head", h[0], projection)
        if combine == "normal":
            return e
        if combine == "attention":
            scores = [
                math.fsum(np.tanh(self.linear("combination.projection", row)) * self.p["combination.context"])
                for row in s
            ]
            weights = [math.exp(one) for one in scores]
            beside = sum(w / sum(weights) * row for w, row in zip(weights, s, strict=True))
        else:
            beside = sum(s) / (len(s) if combine == "mean_concat" else 1)
        return np.concatenate([beside, e])


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_as_released_is_the_released_model(combine: str) -> None:
    """Block vectors, document vectors of both sides and logits, padding blocks among them."""
    model = make(released=True, combine=combine).double()
    ids = documents([4, 2], 5)
    hand = ByHand(model)
    with torch.no_grad():
        blocks = model.block_vectors(ids)
        left, right = model.encode(ids), model.encode(ids, right=True)
        logits = model(ids, ids.flip(0))
    for n in range(2):
        expected = np.stack([hand.block(row) for row in ids[n].numpy()])
        np.testing.assert_allclose(blocks[n], expected, atol=1e-9)
        np.testing.assert_allclose(left[n], hand.document(ids[n].numpy(), combine), atol=1e-9)
        other = hand.document(ids[n].numpy(), combine, "right_projection")
        np.testing.assert_allclose(right[n], other, atol=1e-9)
    np.testing.assert_allclose(logits, 6.0 * (left * right.flip(0)).sum(1), atol=1e-12)
    assert not torch.allclose(left, right), "the released graph has two document projections"


def test_released_logits_lie_between_0_and_6_and_no_vector_is_negative() -> None:
    model = make(released=True)
    posed = make(activation="none", learned_scale=False)
    mask = torch.ones(60, 3, dtype=torch.bool)
    for std in (0.02, 1.0, 30.0):
        left, right = std * torch.randn(2, 60, 3, 16, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            vectors = model.document_vectors(left, mask), model.document_vectors(right, mask, right=True)
            logits = model.logits(*vectors)
            free = posed.logits(posed.document_vectors(left, mask), posed.document_vectors(right, mask))
        assert float(vectors[0].min()) >= 0
        assert 0 <= float(logits.min()) <= float(logits.max()) <= 6.0 + 1e-5
        assert bool((logits.sigmoid() >= 0.5).all())
    assert float(free.min()) < 0, "without the ReLU a pair can be unlike"


def test_released_means_take_padding_and_the_well_posed_ones_do_not() -> None:
    ids = documents([3], 3)
    longer = torch.cat([ids, torch.zeros(1, 2, 8, dtype=torch.long)], 1)
    for combine in ("sum_concat", "mean_concat", "attention"):
        released, posed = make(True, combine=combine), make(combine=combine)
        with torch.no_grad():
            assert not torch.allclose(released.encode(ids), released.encode(longer), atol=1e-3)
            assert torch.allclose(posed.encode(ids), posed.encode(longer), atol=1e-6)
            assert torch.allclose(posed.encode(longer).norm(dim=1), torch.ones(1), atol=1e-6)


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_combinations_of_the_well_posed_form_by_hand(combine: str) -> None:
    model = make(combine=combine).double()
    ids = documents([3, 1], 4)
    with torch.no_grad():
        blocks = model.block_vectors(ids)
        found = model.encode(ids)
        for n, count in enumerate((3, 1)):
            s = blocks[n, :count]
            e = make(combine="normal").double().document_vectors(s[None], torch.ones(1, count, dtype=torch.bool))[0]
            e = _document_vector(model, s) if combine != "normal" else e
            parts = [e]
            if combine == "sum_concat":
                parts.insert(0, torch.stack(list(s)).sum(0))
            if combine == "mean_concat":
                parts.insert(0, sum(s) / count)
            if combine == "attention":
                scores = [(model.combination.projection(row).tanh() * model.combination.context).sum() for row in s]
                weights = torch.stack(scores).exp()
                parts.insert(0, sum(w / weights.sum() * row for w, row in zip(weights, s, strict=True)))
            whole = torch.cat(parts)
            assert torch.allclose(found[n], whole / whole.norm(), atol=1e-10)


def _document_vector(model: Smith, s: Tensor) -> Tensor:
    rows = model.document_norm(s[None] + model.document_positions.weight[: len(s)])
    return model.document_head(model.documents(rows, None)[0, 0])


@pytest.mark.parametrize("attention", MECHANISMS)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_neither_padding_nor_other_documents_change_a_vector(attention: str, pooling: str) -> None:
    model = make(
        attention=attention,
        pooling=pooling,
        combine="mean_concat",
        document_pooling=("first", "mean")[pooling == "mean"],
    )
    ids = documents([4, 1, 3, 9], 9)
    wide = torch.zeros(4, 13, 8, dtype=torch.long)
    wide[:, :9] = ids
    with torch.no_grad():
        together, wider = model.encode(ids), model.encode(wide)
        chunked = torch.cat([model.block_vectors(ids, chunk=size)[None] for size in (1, 3, 100)])
        for n, count in enumerate((4, 1, 3, 9)):
            alone = model.encode(ids[n : n + 1, :count])
            assert torch.allclose(alone[0], together[n], atol=1e-6)
            assert torch.allclose(alone[0], wider[n], atol=1e-6)
            shorter = int((ids[n] != 0).any(0).nonzero().max()) + 1
            assert torch.allclose(model.encode(ids[n : n + 1, :, :shorter])[0], together[n], atol=1e-6)
    assert torch.allclose(chunked[0], chunked[1], atol=1e-6)
    assert torch.allclose(chunked[0], chunked[2], atol=1e-6)
    assert not torch.allclose(together[0], together[2], atol=1e-5), "vectors depend on their documents"


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("attention", MECHANISMS)
def test_a_vector_depends_on_every_token_and_every_block(attention: str, layers: int) -> None:
    """Mechanisms that only look back too: they read every other layer from the end."""
    model = make(attention=attention, sentence_layers=layers, document_layers=layers).double()
    ids = torch.randint(5, 40, (1, 5, 8), generator=torch.Generator().manual_seed(1))
    for b, t in ((0, 7), (4, 0), (4, 7)):
        changed = ids.repeat(35, 1, 1)
        changed[:, b, t] = torch.arange(5, 40)
        with torch.no_grad():
            assert float(model.encode(changed).std(0).max()) > 1e-12, (b, t)


def test_padding_blocks_are_not_computed() -> None:
    model, seen = make(), []
    model.sentences.register_forward_hook(lambda module, given, out: seen.append(len(out)))
    ids = documents([2, 5, 0], 300)
    vectors = model.block_vectors(ids)
    assert seen == [7]
    valid = (ids != 0).any(-1)
    assert (vectors[~valid] == 0).all()
    assert torch.allclose(vectors[valid].norm(dim=-1), torch.ones(7), atol=1e-6)


def test_long_documents_are_read_in_windows() -> None:
    model = make(combine="attention")
    ids = documents([14, 6, 7], 14)
    mask = (ids != 0).any(-1)
    with torch.no_grad():
        blocks = model.block_vectors(ids)
        found = model.document_vectors(blocks, mask)
        pieces = [model.document_vectors(blocks[:1, a:b], mask[:1, a:b]) for a, b in ((0, 6), (6, 12), (12, 14))]
        mean = 6 * pieces[0] + 6 * pieces[1] + 2 * pieces[2]
        assert torch.allclose(found[0], mean[0] / mean.norm(), atol=1e-6)
        plain = model.document_vectors(blocks[1:2, :6], mask[1:2, :6])
        assert torch.allclose(found[1], plain[0], atol=1e-6), "up to the limit: the plain form"
        assert torch.allclose(found.norm(dim=1), torch.ones(3), atol=1e-6)
        outputs = model.block_outputs(blocks, mask)
        assert torch.allclose(outputs[:1, 6:12], model.block_outputs(blocks[:1, 6:12], mask[:1, 6:12]), atol=1e-6)
        assert outputs.shape == blocks.shape
        assert (outputs[~mask] == 0).all()
    released = make(released=True)
    with pytest.raises(ConfigError, match="more blocks than the released code takes"):
        released.encode(ids)


def test_empty_documents_have_vectors_of_zeros() -> None:
    for layers in (0, 2):
        model = make(document_layers=layers)
        ids = documents([2, 0], 3)
        with torch.no_grad():
            alone, empty = model.encode(ids), model.encode(ids[1:])
        assert torch.equal(alone[1:], torch.zeros(1, 16))
        assert torch.equal(empty, torch.zeros(1, 16))
        assert torch.isfinite(model(ids, ids.flip(0))).all()


def test_without_a_document_encoder_a_document_is_the_mean_of_its_blocks() -> None:
    model = make(document_layers=0, combine="mean_concat")
    ids = documents([3, 1], 4)
    with torch.no_grad():
        mean = model.block_vectors(ids)[0, :3].mean(0)
        assert torch.allclose(model.encode(ids)[0], mean / mean.norm(), atol=1e-6)
    assert model.config.vector_size == 16
    assert not any("document" in name for name, _ in model.named_parameters())
    with pytest.raises(ConfigError, match="no document encoder"):
        model.block_outputs(model.block_vectors(ids), (ids != 0).any(-1))


@pytest.mark.parametrize(
    "changes",
    [
        {"combine": "attention"},
        {"combine": "mean_concat", "pooling": "mean", "document_pooling": "mean", "gelu": "none"},
        {"released": True, "combine": "attention"},
        # What runs ahead learns nothing in the last layer where only its first row is read.
        {"attention": "selective_ssm", "pooling": "mean", "document_pooling": "mean"},
        {"attention": "legendre", "document_attention": "softmax", "pooling": "mean"},
        {"attention": "auto_correlation", "blocks": 8},
    ],
)
def test_every_parameter_learns(changes: dict[str, Any]) -> None:
    model = make(**changes)
    loss = matching_loss(model(documents([3, 8], 8), documents([2, 8], 8, seed=9)), torch.tensor([0, 1]))
    loss.backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    # A key's bias moves all scores of a query alike: softmax attention gives it no gradient but rounding.
    assert not [name for name in without if not name.endswith("key_projection.bias")]


def test_loss_by_hand() -> None:
    logits, labels = torch.tensor([0.3, -1.2, 2.0]), torch.tensor([0, 2, 1])
    p = [1 / (1 + math.exp(-x)) for x in logits.tolist()]
    expected = (-math.log(1 - p[0]) - 3 * math.log(p[1]) - 3 * math.log(p[2])) / 3
    assert matching_loss(logits, labels, positive_weight=3.0).item() == pytest.approx(expected, rel=1e-6)


def test_learned_scale_starts_at_six_times_the_cosine_less_three() -> None:
    left = torch.nn.functional.normalize(torch.randn(5, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    fresh = Smith(SmithConfig(40, **SMALL))
    assert torch.allclose(fresh.logits(left, left), torch.full((5,), 3.0), atol=1e-5)
    assert torch.allclose(make(released=True).logits(left, left), torch.full((5,), 6.0), atol=1e-5)


@pytest.fixture
def fixed() -> Iterator[str]:
    """A mechanism of one length without masks: a learned matrix over places."""

    @mechanism(name="place_matrix", paper="none", year=2026, complexity="L^2", fixed_length=True)
    class PlaceMatrix(TokenMixer):
        """Mix places by one learned matrix."""

        def __init__(self, dim: int, num_heads: int = 8, *, length: int) -> None:
            super().__init__(dim, num_heads)
            self.matrix = nn.Parameter(torch.randn(length, length))

        def mix(self, x: Tensor) -> MixerOutput:
            return MixerOutput(torch.einsum("ts,bsc->btc", self.matrix, x))

    yield "place_matrix"
    unregister("place_matrix")


def test_mechanisms_of_one_length_get_whole_blocks_and_windows(fixed: str) -> None:
    model = make(attention=fixed)
    ids = documents([4, 8, 1], 8)
    with torch.no_grad():
        together = model.encode(ids)
        for n, count in enumerate((4, 8, 1)):
            assert torch.allclose(model.encode(ids[n : n + 1, :count])[0], together[n], atol=1e-6)
    with pytest.raises(ConfigError, match="tokens = 8"):
        model.encode(ids[:, :, :5])


def test_the_exported_program_answers_alike() -> None:
    model = make(combine="mean_concat")
    ids = documents([3, 5, 0], 6)
    with torch.no_grad():
        program = torch.export.export(model, (ids, ids.flip(0)), strict=False).module()
        other = documents([1, 6, 2], 6, seed=4)
        assert torch.allclose(program(ids, ids.flip(0)), model(ids, ids.flip(0)), atol=1e-6)
        assert torch.allclose(program(other, ids), model(other, ids), atol=1e-6)


def test_mean_pooling_by_hand() -> None:
    torch.manual_seed(0)
    encoder = SentenceEncoder(40, 16, layers=1, heads=2, hidden=24, positions=8, pooling="mean").eval()
    ids = documents([2], 2)[0]
    with torch.no_grad():
        hidden, found = encoder.tokens(ids), encoder(ids)
        for row, one, vector in zip(hidden, ids, found, strict=True):
            mean = row[: int((one != 0).sum())].mean(0)
            assert torch.allclose(vector, mean / mean.norm(), atol=1e-6)
    assert not any(name.startswith("head") for name, _ in encoder.named_parameters())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"combine": "max"}, "combine: there is no such choice"),
        ({"dim": 0}, "dim: out of range"),
        ({"blocks": 9}, "more than there are document_positions"),
        ({"block": 9}, "more than there are sentence_positions"),
        ({"pooling": "mean", "released": True}, "the released code reads first rows"),
        ({"attention": "large_kernel"}, "does not mix sequences"),
        ({"attention": "softmx"}, "did you mean softmax"),
        ({"heads": 3}, "no multiple of num_heads"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Smith(SmithConfig(40, **(SMALL | changes)))


@pytest.mark.parametrize("shape", [(2, 8), (1, 2, 9), (1, 2, 0)])
def test_ids_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="ids of another shape"):
        make().encode(torch.ones(shape, dtype=torch.long))


def test_the_document_encoder_may_have_sizes_of_its_own() -> None:
    model = make(document_heads=4, document_hidden=40, document_attention="selective_ssm", document_layers=1)
    assert (model.sentences.encoder.layers[0].mixer.num_heads, model.documents.layers[0].mixer.num_heads) == (2, 4)
    assert model.documents.layers[0].expand.out_features == 40
    assert [m.mixer.spec.name for m in (model.sentences.encoder.layers[0], model.documents.layers[0])] == [
        "softmax",
        "selective_ssm",
    ]


def test_unit_rows_of_small_vectors_have_length_one_and_of_tiny_ones_stay_small() -> None:
    assert unit_rows(torch.tensor([3e-5, 4e-5])).tolist() == pytest.approx([0.6, 0.8], rel=1e-5)
    assert unit_rows(torch.tensor([3e-8, 4e-8])).tolist() == pytest.approx([0.03, 0.04], rel=1e-5), "x / 1e-6"


def test_blocks_of_padding_are_rounded_as_released() -> None:
    """In float32 a score less 10,000 keeps ten binary places; softmax takes the shift away, not the rounding."""
    encoder = make(released=True).sentences.encoder
    x = torch.randn(1, 8, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain, found = encoder(x, None), encoder.unmasked(x, -10_000.0)
        q, k, v = (part.transpose(1, 2) for part in encoder.layers[0].mixer.project(x))
        scores = torch.round((q @ k.transpose(2, 3)) / math.sqrt(8) * 1024) / 1024
        encoder.layers[0].mixer.mix = lambda rows, **_: MixerOutput(
            encoder.layers[0].mixer.merge((scores.softmax(-1) @ v).transpose(1, 2))
        )
        first = encoder.layers[0](x, None)
        assert torch.allclose(encoder.layers[1].unmasked(first, -10_000.0), found, atol=1e-5)
    assert 1e-6 < float((plain - found).abs().max()) < 1e-2


def test_dropout_reaches_attention_weights() -> None:
    assert sequence_mixer("softmax", 8, 2, length=4, dropout=0.25).dropout == 0.25
