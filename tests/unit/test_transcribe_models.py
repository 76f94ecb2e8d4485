"""Recognisers: an answer that depends on nothing but the recording, in batches, in pieces, token by token."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor

from pipelines.errors import ConfigError
from pipelines.transcribe.models.layers import build_mixer
from pipelines.transcribe.models.recogniser import Recogniser
from pipelines.transcribe.models.subsampling import Subsampling, subsampled
from pipelines.transcribe.models.text_decoder import TextDecoder
from pipelines.transcribe.options import SIZES, ArchOptions, architecture

SIZE, MELS = 12, 40
#: Every kind of encoder with its decoder: layers, mechanism, decoder layers.
KINDS = [
    ("samba", "selective_ssm", 2),
    ("samba", "softmax", 2),
    ("samba", "legendre", 1),
    ("conformer", "softmax", 0),
    ("conformer", "selective_ssm", 0),
    ("conformer", "legendre", 0),
]
TOKENS = torch.tensor([[1, 4, 4, 7, 2, 11], [1, 3, 9, 5, 0, 0]])


def make(kind: str, attention: str, decoder: int, *, causal: bool, **choices: Any) -> Recogniser:
    """A small model in eval mode whose layers all matter."""
    torch.manual_seed(11)
    model = Recogniser(
        SIZE,
        MELS,
        kind=kind,
        attention=attention,
        decoder_layers=decoder,
        causal=causal,
        dim=16,
        layers=2,
        width=5,
        channels=(8, 4),
        **choices,
    )
    return model.eval()


def each_kind(causal: bool) -> list[Any]:
    return [pytest.param(*kind, causal, id=f"{kind[0]}-{kind[1]}-{'causal' if causal else 'whole'}") for kind in KINDS]


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


def sound(*lengths: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features (B, T, M), with rubbish behind the shorter ones, and their lengths."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(lengths), max(lengths), MELS, generator=generator), torch.tensor(lengths)


@pytest.mark.parametrize(("kind", "attention", "decoder", "causal"), each_kind(False) + each_kind(True))
def test_alone_is_as_in_a_padded_batch(kind: str, attention: str, decoder: int, causal: bool) -> None:
    model = make(kind, attention, decoder, causal=causal)
    features, lengths = sound(77, 41, 6)
    tokens = torch.cat([TOKENS, TOKENS[:1]])
    logp, counts, scores = model(features, lengths, tokens)
    assert counts.tolist() == subsampled(lengths).tolist() == [20, 11, 2]
    for row, length in enumerate(lengths.tolist()):
        alone, count, said = model(features[row : row + 1, :length], lengths[row : row + 1], tokens[row : row + 1])
        assert int(count) == alone.shape[1]
        torch.testing.assert_close(logp[row, : int(count)], alone[0], atol=1e-5, rtol=0)
        if scores is not None and said is not None:
            torch.testing.assert_close(scores[row], said[0], atol=1e-5, rtol=0)
    assert (scores is None) == (decoder == 0)


@pytest.mark.parametrize(("kind", "attention", "decoder", "causal"), each_kind(True))
def test_the_causal_encoder_in_pieces_is_as_the_whole(kind: str, attention: str, decoder: int, causal: bool) -> None:
    model = make(kind, attention, decoder, causal=causal)
    features, lengths = sound(83)
    whole, _ = model.encode(features, lengths)
    for cuts in ([1] * 83, [40, 43], [3, 0, 30, 2, 48]):
        state, found = None, []
        for piece in features.split(cuts, dim=1):
            frames, state = model.encode_piece(piece, state)
            found.append(frames)
        heard = torch.cat(found, dim=1)
        # Frames that still wait for features of the recording's end are not there; all others are.
        assert whole.shape[1] - heard.shape[1] in (0, 1)
        torch.testing.assert_close(heard, whole[:, : heard.shape[1]], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kind", "attention", "decoder", "causal"), each_kind(False) + each_kind(True))
def test_only_a_causal_encoder_has_no_look_ahead(kind: str, attention: str, decoder: int, causal: bool) -> None:
    model = make(kind, attention, decoder, causal=causal)
    features, lengths = sound(80)
    changed = features.clone()
    changed[:, 48:] += 1.0
    before, after = (model.encode(one, lengths)[0] for one in (features, changed))
    # Of four features a frame, frame 11 ends with feature 44: what comes later is not heard.
    assert torch.equal(before[:, :12], after[:, :12]) == causal or attention == "legendre"
    if causal:
        torch.testing.assert_close(before[:, :12], after[:, :12], atol=1e-6, rtol=0)
    assert not torch.allclose(before[:, 13:], after[:, 13:], atol=1e-3)


@pytest.mark.parametrize("attention", ["selective_ssm", "softmax"])
def test_step_by_step_is_as_all_tokens_at_once(attention: str) -> None:
    model = make("samba", attention, 2, causal=False)
    features, lengths = sound(60)
    memory, _ = model.encode(features, lengths)
    assert model.decoder is not None
    full = model.decoder(TOKENS[:1], memory, None).log_softmax(-1)
    scorer = model.scorer(memory)
    state = scorer.begin()
    for place, token in enumerate(TOKENS[0]):
        scores, state = scorer.score(token[None], state)
        torch.testing.assert_close(scores, full[:, place], atol=1e-5, rtol=0)


@pytest.mark.parametrize("attention", ["selective_ssm", "softmax"])
def test_hypotheses_go_on_from_the_rows_that_are_picked(attention: str) -> None:
    model = make("samba", attention, 2, causal=False)
    features, lengths = sound(52)
    memory, _ = model.encode(features, lengths)
    assert model.decoder is not None
    scorer = model.scorer(memory)
    state = scorer.begin(3)
    for column in ([1, 1, 1], [5, 6, 7]):
        _, state = scorer.score(torch.tensor(column), state)
    state = scorer.pick(state, torch.tensor([2, 0, 2, 1]))
    scores, state = scorer.score(torch.tensor([3, 3, 4, 4]), state)
    texts = torch.tensor([[1, 7, 3], [1, 5, 3], [1, 7, 4], [1, 6, 4]])
    full = model.decoder(texts, memory.expand(4, -1, -1), None).log_softmax(-1)
    torch.testing.assert_close(scores, full[:, -1], atol=1e-5, rtol=0)
    assert not torch.allclose(scores[0], scores[1], atol=1e-4), "hypotheses that differ are told apart"
    assert scorer.pick(None, torch.tensor([0])) is None


def test_the_decoder_listens_to_the_recording() -> None:
    model = make("samba", "selective_ssm", 1, causal=False)
    (one, lengths), (other, _) = sound(60, seed=1), sound(60, seed=2)
    scores = [model(features, lengths, TOKENS[:1])[2] for features in (one, other)]
    assert not torch.allclose(scores[0], scores[1], atol=1e-4)


@pytest.mark.parametrize(("kind", "attention", "decoder", "causal"), each_kind(False) + each_kind(True))
def test_every_parameter_has_a_gradient(kind: str, attention: str, decoder: int, causal: bool) -> None:
    model = make(kind, attention, decoder, causal=causal).train()
    with torch.enable_grad():
        logp, _, scores = model(*sound(40, 30), TOKENS)
        draw = torch.Generator().manual_seed(3)
        total = (logp * torch.randn(logp.shape, generator=draw)).sum()
        if scores is not None:
            total = total + (scores * torch.randn(scores.shape, generator=draw)).sum()
        total.backward()
    without = [name for name, one in model.named_parameters() if one.grad is None or not one.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize(("mechanism", "words"), [("auto_correlation", "fit"), ("large_kernel", "fit")])
def test_mechanisms_that_do_not_fit_are_refused(mechanism: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        make("samba", mechanism, 0, causal=True)
    assert mechanism in str(caught.value)
    assert "one that" in str(caught.value)


def test_a_mechanism_that_cannot_be_causal_is_refused_only_there() -> None:
    from core_attention import names, spec

    streaming = {name for name in names() if spec(name).causal and spec(name).streaming}
    fits: dict[bool, set[str]] = {}
    for causal in (False, True):
        fits[causal] = set()
        for name in names():
            with contextlib.suppress(ConfigError):
                build_mixer(name, 16, 4, causal=causal)
                fits[causal].add(name)
    assert {"selective_ssm", "softmax", "legendre"} <= fits[True] <= fits[False]
    assert fits[True] == fits[False] & streaming


def test_a_decoder_needs_a_mechanism_that_reads_recordings() -> None:
    with pytest.raises(ConfigError, match="cannot read a recording token by token"):
        TextDecoder(9, 16, 1, attention="legendre")
    # An encoder of such a mechanism gets the usual decoder.
    model = make("samba", "legendre", 1, causal=False)
    assert {"selective_ssm"} == {m.spec.name for m in model.decoder.modules() if hasattr(m, "spec")}  # type: ignore[union-attr]
    with pytest.raises(RuntimeError, match="no text decoder"):
        make("conformer", "softmax", 0, causal=False).scorer(torch.zeros(1, 3, 16))


#: Parameters of the sizes with 30 ids and 80 bands.
PARAMETERS = {"tiny": 1_708_716, "small": 3_959_436, "large": 55_160_028}


@pytest.mark.parametrize("size", SIZES)
def test_sizes(size: str) -> None:
    chosen = architecture("samba", size, ArchOptions())
    with torch.device("meta"):
        model = Recogniser(30, 80, kind="samba", **chosen)
    assert sum(one.numel() for one in model.parameters()) == PARAMETERS[size]
    assert len(model.layers) == SIZES[size]["layers"]
    assert len(model.decoder.layers) == SIZES[size]["decoder_layers"]  # type: ignore[union-attr]


def test_arguments_build_the_same_model_again() -> None:
    model = make("conformer", "softmax", 0, causal=True)
    twin = Recogniser(**{**model.arguments, "channels": tuple(model.arguments["channels"])})
    twin.load_state_dict(model.state_dict())
    features, lengths = sound(30)
    assert torch.equal(twin.eval().encode(features, lengths)[0], model.encode(features, lengths)[0])


@pytest.mark.parametrize("causal", [False, True])
def test_subsampling_keeps_a_quarter_of_the_frames(causal: bool) -> None:
    front = Subsampling(MELS, 6, channels=(4, 3), causal=causal)
    for length in (1, 2, 3, 4, 5, 31):
        frames, lengths = front(*sound(length))
        assert frames.shape[1] == int(lengths) == int(subsampled(torch.tensor(length)))
