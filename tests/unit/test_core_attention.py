"""Small parts of core_attention: registry, contract, masks, positions, layers, state, softmax options."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from core_attention import (
    MechanismError,
    MechanismSpec,
    MixerOutput,
    TokenMixer,
    _moving_average,
    build,
    get,
    mechanism,
    names,
    option_names,
    spec,
    unregister,
)
from core_attention.correlation import _folded, _transformed, period_correlation
from core_attention.diagnostics import attention_entropy, attention_maps, mean_distance
from core_attention.layers import FeedForward, SeriesDecomposition, moving_average
from core_attention.masks import attention_mask, causal_mask, lengths_to_mask
from core_attention.norms import SeasonalLayerNorm
from core_attention.positions import rotary_angles, rotate, sinusoidal
from core_attention.state import KeyValueState, append, detach


def pooled(x: Tensor, window: int) -> Tensor:
    """The definition: replicate the end rows, then AvgPool1d."""
    half = window // 2
    padded = torch.cat([x[:, :1].repeat(1, half, 1), x, x[:, -1:].repeat(1, half, 1)], dim=1)
    return F.avg_pool1d(padded.transpose(1, 2), window, 1).transpose(1, 2)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("shape", [(2, 50, 3), (3, 7, 4), (1, 1, 2), (5, 24, 1)])
@pytest.mark.parametrize("window", [1, 3, 25, 49])
def test_moving_average(shape: tuple[int, ...], window: int, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_moving_average, "_PER_THREAD", 1 if compiled else 1 << 40)
    torch.manual_seed(0)
    x, upstream = torch.randn(shape, requires_grad=True), torch.randn(shape)
    ours, expected = moving_average(x, window), pooled(x, window)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-6)
    grads = [torch.autograd.grad(y, x, upstream)[0] for y in (ours, expected)]
    torch.testing.assert_close(grads[0], grads[1], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
def test_moving_average_keeps_digits_and_gradients(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_moving_average, "_PER_THREAD", 1 if compiled else 1 << 40)
    long = torch.randn(1, 50_000, 2) + 1000
    error = (moving_average(long, 25).double() - pooled(long.double(), 25)).abs().max()
    assert error < 2e-4  # One unit in the last place of a float32 near 1000 is 6e-5.
    x = torch.randn(2, 9, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: moving_average(x, 5), x)
    assert torch.autograd.gradgradcheck(lambda x: moving_average(x, 5), x)


def test_moving_average_half_width_and_strided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_moving_average, "_PER_THREAD", 1)
    x = torch.randn(2, 3, 30).transpose(1, 2)
    torch.testing.assert_close(moving_average(x, 5), pooled(x, 5))
    assert moving_average(x.bfloat16(), 5).dtype == torch.bfloat16


def test_decomposition() -> None:
    x = torch.randn(2, 40, 3)
    seasonal, trend = SeriesDecomposition(25)(x)
    torch.testing.assert_close(seasonal + trend, x)
    torch.testing.assert_close(trend, pooled(x, 25), atol=1e-6, rtol=1e-6)
    for window in (0, 4, -3):
        with pytest.raises(MechanismError, match="odd"):
            SeriesDecomposition(window)
        with pytest.raises(MechanismError, match="odd"):
            moving_average(x, window)
    with pytest.raises(MechanismError, match="batch, time, channels"):
        moving_average(x[0], 3)


@pytest.mark.parametrize("length", [64, 72, 97, 100, 210])
@pytest.mark.parametrize("part", [1, 1 << 16])
def test_folded_correlation(length: int, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core_attention.correlation._PER_PART", part)
    q, k = torch.randn(2, 5, length, 6, dtype=torch.float64)
    expected = _transformed(q, k)
    for blocks in [n for n in range(1, length + 1) if length % n == 0]:
        torch.testing.assert_close(_folded(q, k, blocks), expected, atol=1e-11, rtol=1e-11)
    wide_q, wide_k = torch.randn(2, 3, length, 4, 16, dtype=torch.float64)
    expected = _transformed(wide_q.flatten(2), wide_k.flatten(2))
    torch.testing.assert_close(period_correlation(wide_q, wide_k), expected, atol=1e-11, rtol=1e-11)


def test_registry_messages() -> None:
    assert {"softmax", "auto_correlation"} <= set(names())
    assert spec("auto_correlation").complexity == "L log L"
    assert spec("softmax").summary.startswith("Multi-head attention")
    assert option_names("auto_correlation") == ["factor", "lags", "qkv_bias"]
    assert names(grid=3) == ["guided_spectral", "window_nd"]
    assert "large_kernel" in names(grid=2)
    with pytest.raises(MechanismError, match="did you mean auto_correlation"):
        get("autocorrelation")
    with pytest.raises(MechanismError, match=r"there are: .*softmax"):
        get("zzz")
    with pytest.raises(MechanismError, match="has no option 'factr'; did you mean factor"):
        build("auto_correlation", 16, 4, factr=3)


def test_registering_is_checked() -> None:
    flags = {"paper": "none", "year": 2026, "complexity": "L"}

    class One(TokenMixer):
        """One."""

        def mix(self, x: Tensor) -> MixerOutput:
            return MixerOutput(x)

    class Two(One):
        """Two."""

    mechanism(name="one", **flags)(One)
    try:
        with pytest.raises(MechanismError, match=r"is .*One already"):
            mechanism(name="one", **flags)(Two)
        mechanism(name="one", **flags)(One)
    finally:
        assert unregister("one") is One
    with pytest.raises(MechanismError, match="no causal="):
        mechanism(name="two", causal=True, **flags)(Two)
    with pytest.raises(MechanismError, match="no length="):
        mechanism(name="two", fixed_length=True, **flags)(Two)
    assert "two" not in names()
    with pytest.raises(MechanismError, match="kind is 'mixture'"):
        MechanismSpec("x", "none", 2026, "L", kind="mixture")
    with pytest.raises(MechanismError, match="memory is 'L3'"):
        MechanismSpec("x", "none", 2026, "L", memory="L3")
    with pytest.raises(MechanismError, match="grid"):
        MechanismSpec("x", "none", 2026, "L", grid=())


def test_package_is_lazy() -> None:
    code = "import core_attention, sys; dir(core_attention); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_softmax_equals_definition() -> None:
    torch.manual_seed(0)
    mixer, x, context = build("softmax", 12, 3).eval(), torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    valid = torch.tensor([[True] * 7, [True] * 3 + [False] * 4])
    out = mixer(x, context=context, context_mask=valid, maps=True)
    q, k, v = (heads.transpose(1, 2) for heads in mixer.project(x, context))  # type: ignore[operator]
    scores = (q @ k.transpose(2, 3) / 2).masked_fill(~valid[:, None, None], -math.inf)
    expected = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(out.y, mixer.get_submodule("out_projection")(expected))
    torch.testing.assert_close(out.aux["maps"], scores.softmax(-1))
    assert out.state is None


def test_softmax_modifiers() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 16)
    per_head = torch.tensor([0.5, 1.0, 2.0, 4.0])
    plain, tempered = build("softmax", 16, 4), build("softmax", 16, 4, query_temperature=per_head)
    assert set(plain.state_dict()) == set(tempered.state_dict())
    entropy = attention_entropy(tempered(x, maps=True).aux["maps"]).mean(dim=(0, 2))
    assert bool((entropy.diff() > 0).all())
    scaled = build("softmax", 16, 4, output_scale=0.0)
    torch.testing.assert_close(scaled(x).y, scaled.get_parameter("out_projection.bias").expand(2, 6, 16))
    for wrong in (0.0, -1.0, torch.ones(3)):
        with pytest.raises(MechanismError, match="query_temperature"):
            build("softmax", 16, 4, query_temperature=wrong)
    with pytest.raises(MechanismError, match="dropout"):
        build("softmax", 16, 4, dropout=1.0)


def test_softmax_streams_with_padding_and_detached_state() -> None:
    torch.manual_seed(0)
    mixer, x = build("softmax", 16, 4, causal=True).eval(), torch.randn(2, 9, 16)
    mask = lengths_to_mask(torch.tensor([9, 4]), 9)
    whole = mixer(x, mask=mask).y
    first = mixer(x[:, :4], mask=mask[:, :4])
    kept = detach(first.state)
    assert isinstance(kept, KeyValueState)
    assert not kept.keys.requires_grad
    rest = mixer(x[:, 4:], mask=mask[:, 4:], state=kept)
    torch.testing.assert_close(torch.cat([first.y, rest.y], dim=1), whole, atol=1e-6, rtol=1e-5)
    late = mixer(x[:, 4:], mask=mask[:, 4:], state=mixer(x[:, :4]).state)
    torch.testing.assert_close(late.y, rest.y, atol=1e-6, rtol=1e-5)
    with pytest.raises(MechanismError, match="no order"):
        mixer(x, context=x)
    with pytest.raises(MechanismError, match="causal=True"):
        build("softmax", 16, 4)(x, state=kept)


def test_masks() -> None:
    assert causal_mask(3, 3).sum() == 6
    assert attention_mask(None, 3, 3, False, torch.device("cpu")) is None
    valid = torch.tensor([[True, True, False]])
    found = attention_mask(valid, 3, 3, False, torch.device("cpu"))
    assert found is not None
    assert found.shape == (1, 1, 1, 3)
    assert append(None, torch.zeros(1, 1, 2, 1), torch.zeros(1, 1, 2, 1)).valid is None


def test_positions() -> None:
    table = sinusoidal(50, 7)
    assert table.shape == (50, 7)
    torch.testing.assert_close(sinusoidal(10, 7, start=40), table[40:])
    torch.testing.assert_close(table[3, 2], torch.tensor(math.sin(3 * 10_000 ** (-2 / 7))))
    q, k = torch.randn(2, 8)
    angles = rotary_angles(20, 8)
    turned = [rotate(q.expand(20, 8), angles), rotate(k.expand(20, 8), angles)]
    torch.testing.assert_close(turned[0][3] @ turned[1][5], turned[0][13] @ turned[1][15], atol=1e-5, rtol=1e-5)
    with pytest.raises(MechanismError, match="even"):
        rotary_angles(4, 7)
    with pytest.raises(MechanismError, match="at least 1"):
        sinusoidal(0, 4)


def test_norm_and_feed_forward() -> None:
    x = torch.randn(2, 9, 6)
    norm = SeasonalLayerNorm(6)
    assert set(norm.state_dict()) == {"layernorm.weight", "layernorm.bias"}
    expected = F.layer_norm(x, (6,))
    torch.testing.assert_close(norm(x), expected - expected.mean(dim=1, keepdim=True))
    assert FeedForward(6, 5, activation="relu", bias=False)(x).shape == x.shape
    with pytest.raises(MechanismError, match="activation"):
        FeedForward(6, activation="tanhh")


def test_diagnostics() -> None:
    q = torch.randn(1, 2, 4, 3)
    maps = attention_maps(q, q, causal_mask(4, 4))
    torch.testing.assert_close(maps.sum(-1), torch.ones(1, 2, 4))
    assert float(attention_entropy(maps)[0, 0, 0]) == 0.0
    assert float(mean_distance(torch.full((2, 2), 0.5))) == 0.5
    nowhere = attention_maps(q, q, torch.zeros(4, 4, dtype=torch.bool))
    assert float(nowhere.abs().sum()) == 0.0
