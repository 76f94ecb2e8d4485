"""HSDT (arXiv 2303.09040): parity with the released code, its names and counts, and the equations themselves."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core_attention import build
from pipelines.denoise.models.hsdt import BANDS, HSDT, VARIANTS, from_official, make
from pipelines.denoise.models.layers import SMFFN, CubeConv, S3Conv
from pipelines.errors import WeightsError
from pipelines.official import load_official

GOLDEN = pathlib.Path(__file__).parent / "golden"


def _golden(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        given = {key: torch.from_numpy(file[key]) for key in file}
    state = {key.removeprefix("state."): value for key, value in given.items() if key.startswith("state.")}
    return state, {key: value for key, value in given.items() if not key.startswith("state.")}


@pytest.mark.parametrize("name", ["hsdt", "hsdt_deep"])
def test_evaluation_equals_released_code(name: str) -> None:
    """Statistics of the normalisation are far from where they start, queries differ from band to band."""
    state, other = _golden(name)
    model = from_official(state)
    with torch.no_grad():
        assert (model(other["x"]) - other["eval"]).abs().max() < 1e-5
        # Autograd takes other ways through the convolutions and the feed-forward net.
    assert (model(other["x"]) - other["eval"]).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["hsdt", "hsdt_deep"])
def test_training_equals_released_code_where_chance_falls_alike(name: str) -> None:
    state, other = _golden(name)
    model, learned = from_official(state).train(), [bool(one) for one in other["learned"]]
    assert any(learned)
    assert not all(learned)
    y = model(other["x"], learned=learned)
    assert (y - other["train"]).abs().max() < 1e-5
    y.square().mean().backward()
    parameters = dict(model.named_parameters())
    gradients = {key.removeprefix("grad."): value for key, value in other.items() if key.startswith("grad.")}
    assert len(gradients) == 4
    for key, expected in gradients.items():
        found = parameters[key].grad
        assert found is not None
        assert (found - expected).abs().max() < 1e-4 * expected.abs().max(), key
    after = model.state_dict()["decoder.layers.1.bn.running_var"]
    assert (after - other["after.decoder.layers.1.bn.running_var"]).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("hsdt_4", 35_746),
        ("hsdt_8", 134_350),
        ("hsdt", 521_158),
        ("hsdt_24", 1_160_766),
        ("hsdt_32", 2_053_174),
        ("hsdt_deep", 2_094_786),
    ],
)
def test_parameter_counts_of_the_paper(name: str, count: int) -> None:
    assert sum(p.numel() for p in make(name).parameters()) == count


def test_released_names_and_shapes() -> None:
    small, deep = _golden("hsdt")[0], _golden("hsdt_deep")[0]
    ours = make("hsdt_8").state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in small.items()}
    assert len(ours) == 192
    assert list(make("hsdt_deep").state_dict()) == list(deep)
    assert list(make("hsdt").state_dict()) == list(small)


@pytest.mark.parametrize("wrapped", ["plain", "net", "module"])
def test_official_files_open_strictly(tmp_path: pathlib.Path, wrapped: str) -> None:
    state, other = _golden("hsdt")
    content: dict[str, Any] = dict(state)
    if wrapped == "module":
        content = {f"module.{key}": value for key, value in content.items()}
    path = tmp_path / "hsdt_s.pth"
    torch.save({"net": content} if wrapped != "plain" else content, path)
    model = load_official("hsdt", path)
    assert not model.training
    with torch.no_grad():
        assert (model(other["x"]) - other["eval"]).abs().max() < 1e-5
    missing = {key: value for key, value in state.items() if key != "encoder.layers.1.bn.bias"}
    with pytest.raises(WeightsError, match=r"1 missing \(encoder\.layers\.1\.bn\.bias\)"):
        load_official("hsdt", missing)
    with pytest.raises(WeightsError, match=r"1 unexpected \(extra\)"):
        load_official("hsdt", {**state, "extra": torch.zeros(1)})
    with pytest.raises(WeightsError, match="not a checkpoint of hsdt"):
        load_official("hsdt", {"Linear.weight": torch.zeros(2, 3)})


def test_official_arguments_are_held_against_the_tensors() -> None:
    state, _ = _golden("hsdt_deep")
    right: dict[str, Any] = {"in_channels": 1, "channels": 2, "num_half_layer": 7, "sample_idx": [1, 3, 5]}
    model = from_official(state, **right, num_bands=BANDS)
    assert model.multiple == 8
    wrong = {"in_channels": 2, "channels": 8, "num_half_layer": 5, "sample_idx": [1, 3], "num_bands": 46}
    for key, value in wrong.items():
        with pytest.raises(WeightsError, match=key):
            from_official(state, **{key: value})
    for bad in ({}, {"head.conv.weight": torch.zeros(4, 1, 3, 3, 3)}):
        with pytest.raises(WeightsError, match="not a state dict of hsdt"):
            from_official(bad)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_every_variant_is_recognised_by_its_tensors(name: str) -> None:
    ours = make(name)
    told: dict[str, Any] = {"flex": "flex" in name, "pixelwise": "pixelwise" in name}  # no tensor tells these
    read = from_official(ours.state_dict(), **told)
    assert read.variant == VARIANTS[name]


def test_self_logits_on_request() -> None:
    state, other = _golden("hsdt")
    alone = [False] * 11
    with torch.no_grad():
        flex = from_official(state, flex=True)(other["x"])
        assert torch.equal(flex, from_official(state)(other["x"], learned=alone))
        assert (flex - other["eval"]).abs().max() > 1e-3


def test_attention_is_the_equation() -> None:
    """softmax(A) (x V^T) O^T band by band, pixel by pixel, in float64."""
    torch.manual_seed(0)
    mixer, x = build("guided_spectral", 6, num_bands=5).double().eval(), torch.randn(2, 5, 3, 4, 6).double()
    parts = {name: value.detach().numpy() for name, value in mixer.named_parameters()}
    mean = x.numpy().mean((2, 3))
    for learned in (True, False):
        logits = mean @ parts["attn_proj.weight"].T + parts["attn_proj.bias"] if learned else mean @ mean.swapaxes(1, 2)
        weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        values = x.numpy() @ parts["value_proj.weight"].T
        expected = np.einsum("bde,behwc->bdhwc", weights, values) @ parts["fc.weight"].T
        found = mixer(x, learned=learned, maps=True)
        np.testing.assert_allclose(found.y.detach().numpy(), expected, atol=1e-12)
        np.testing.assert_allclose(found.aux["maps"].numpy(), weights, atol=1e-12)


def test_feed_forward_is_the_equation() -> None:
    torch.manual_seed(0)
    ffn, x = SMFFN(6).double(), torch.randn(4, 7, 6).double()
    value, gate = ffn.w_3(x)[..., :6], ffn.w_3(x)[..., 6:]
    plain = ffn.w_2(0.5 * ffn.w_1(x) * (1 + torch.erf(ffn.w_1(x) / 2**0.5)))
    torch.testing.assert_close(ffn(x), plain + value / (1 + (-gate).exp()), rtol=0, atol=1e-12)


def test_separable_convolution_is_the_equation() -> None:
    torch.manual_seed(0)
    conv, x = S3Conv(3, 4).double(), torch.randn(2, 3, 5, 6, 7).double()
    first, second, bands = conv.dw_conv[0].weight, conv.dw_conv[2].weight, conv.pw_conv.weight
    space = F.leaky_relu(F.conv3d(x, first, padding=(0, 1, 1)), 0.01)
    space = F.leaky_relu(F.conv3d(space, second, padding=(0, 1, 1)), 0.01)
    expected = space + F.conv3d(x, bands, padding=(1, 0, 0))
    torch.testing.assert_close(conv(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_full_convolution_is_torchs(stride: int, depth: int) -> None:
    torch.manual_seed(0)
    ours = CubeConv(3, 4, stride=stride, bias=True).double()
    peer = nn.Conv3d(3, 4, 3, (1, stride, stride), 1).double()
    peer.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, depth, 6, 8, dtype=torch.float64)
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    found, expected = ours(one.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3), peer(other)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-10)
    for ours_p, peer_p in zip(ours.parameters(), peer.parameters(), strict=True):
        torch.testing.assert_close(ours_p.grad, peer_p.grad, rtol=0, atol=1e-10)


def test_default_is_the_papers_m() -> None:
    assert HSDT().variant == VARIANTS["hsdt"]
