"""replace_attention: a timm vision transformer keeps its outputs with softmax, and works with other mechanisms."""

from __future__ import annotations

import functools

import pytest
import timm
import torch
from timm.layers.attention import Attention
from torch import nn

from core_attention import MechanismError, replace_attention
from core_attention.replace import MixerAttention


class Tiny(nn.Module):
    """One timm attention between two maps."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.attn = Attention(32, num_heads=4, norm_layer=nn.LayerNorm, **options)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attn(x)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    "options",
    [{}, {"qkv_bias": True}, {"qkv_bias": True, "qk_norm": True}, {"proj_bias": False}, {"attn_drop": 0.3}],
    ids=str,
)
def test_softmax_keeps_outputs(options: dict[str, object], fused: bool) -> None:
    torch.manual_seed(0)
    model, x = Tiny(**options).eval(), torch.randn(2, 7, 32)
    for p in model.parameters():
        nn.init.normal_(p, std=0.2)
    model.attn.fused_attn = fused
    if not fused:
        model.attn.scale *= 1.7
    expected = model(x)
    assert replace_attention(model, "softmax") is model
    assert isinstance(model.attn, MixerAttention)
    assert not model.attn.training
    torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=1e-5)


def test_dropout_moves_over() -> None:
    model, x = Tiny(attn_drop=0.5, proj_drop=0.5).train(), torch.ones(1, 16, 32)
    replace_attention(model, "softmax")
    assert model.attn.mixer.dropout == 0.5
    assert float((model(x) == 0).float().mean()) == pytest.approx(0.5, abs=0.15)


def test_whole_vit_keeps_outputs_and_trains() -> None:
    torch.manual_seed(0)
    model, image = timm.create_model("test_vit", pretrained=False, num_classes=5).eval(), torch.randn(2, 3, 160, 160)
    expected = model(image)
    replace_attention(model, "softmax")
    assert all(isinstance(block.attn, MixerAttention) for block in model.blocks)
    torch.testing.assert_close(model(image), expected, atol=1e-5, rtol=1e-5)
    model(image).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_other_mechanism_takes_projections() -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", pretrained=False, num_classes=5).eval()
    old = model.blocks[0].attn.qkv.weight.detach().clone()
    replace_attention(model, "auto_correlation", factor=2.0)
    mixer = model.blocks[0].attn.mixer
    assert mixer.factor == 2.0
    assert torch.equal(mixer.query_projection.weight, old[: old.shape[0] // 3])
    assert model(torch.randn(2, 3, 160, 160)).shape == (2, 5)


@pytest.mark.parametrize(
    ("options", "what"),
    [({"gated": True}, "a gate"), ({"scale_norm": True}, "norm of the output"), ({"attn_head_dim": 4}, "heads")],
)
def test_parts_without_a_place_are_refused(options: dict[str, object], what: str) -> None:
    model = Tiny(**options)
    before = model.attn
    with pytest.raises(MechanismError, match=what):
        replace_attention(model, "softmax")
    assert model.attn is before


def test_refusals() -> None:
    with pytest.raises(MechanismError, match="no timm Attention"):
        replace_attention(nn.Sequential(nn.Linear(4, 4)), "softmax")
    with pytest.raises(MechanismError, match="did you mean softmax"):
        replace_attention(Tiny(), "softmx")
    with pytest.raises(MechanismError, match="no option"):
        replace_attention(Tiny(), "softmax", lags="auto")
    model = Tiny()
    replace_attention(model, "softmax")
    attend = functools.partial(model.attn, torch.zeros(1, 3, 32))
    with pytest.raises(MechanismError, match="attn_mask"):
        attend(attn_mask=torch.ones(1, 1, 3, 3, dtype=torch.bool))
    with pytest.raises(MechanismError, match="causal"):
        attend(is_causal=True)
