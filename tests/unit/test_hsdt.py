"""HSDT beyond the released code: any size, any number of bands, chance made explicit, other mixers, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core_attention import MechanismError, MixerOutput, TokenMixer, build, check_mechanism, mechanism, unregister
from core_attention.mechanisms.guided_spectral import map_bands, pointwise
from pipelines.denoise.models import hsdt, modulated
from pipelines.denoise.models.hsdt import HSDT, VARIANTS, Variant, make
from pipelines.errors import ConfigError, InputError

SMALL = Variant(channels=4)


def _model(variant: Variant = SMALL, **options: Any) -> HSDT:
    """A small model whose normalisation is far from where it starts."""
    torch.manual_seed(0)
    model = HSDT(variant, **options)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.3)
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    return model.eval()


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_every_constructor_runs_and_learns(name: str) -> None:
    torch.manual_seed(0)
    model = getattr(hsdt, name)(num_bands=6).train()
    variant = model.variant
    x = torch.rand(1, 3, 8, 8) if variant.rgb else torch.rand(1, variant.in_channels, 6, 8, 8)
    expected = (1, 6, 8, 8) if variant.rgb else (1, 1, 6, 8, 8)
    y = model(x)
    assert y.shape == expected
    y.square().mean().backward()
    # Chance has left some queries out.
    without = [key for key, p in model.named_parameters() if p.grad is None and "attn_proj" not in key]
    assert not without
    with torch.no_grad():
        assert model.eval()(x).shape == expected


@pytest.mark.parametrize("bands", [1, 3, 31, 46])
def test_any_number_of_bands(bands: int) -> None:
    model, x = _model(), torch.rand(2, 1, bands, 8, 8)
    with torch.no_grad():
        y = model(x)
        alone = model(x, learned=[False] * 11)
    assert y.shape == x.shape
    assert torch.equal(y, alone) == (bands != 31)


@pytest.mark.parametrize(("height", "width"), [(9, 14), (8, 13), (5, 6), (3, 12), (2, 1), (1, 1)])
@pytest.mark.parametrize("deep", [False, True])
def test_any_size_is_reflected_and_cropped(height: int, width: int, deep: bool) -> None:
    """As with NumPy's own padding, by reflection where enough is there to reflect, else by the last row or column."""
    model = _model(Variant(channels=2, half_layers=7, down=(1, 3, 5)) if deep else SMALL)
    x = torch.rand(1, 1, 5, height, width)
    padded = x.numpy()
    for axis, size in ((4, width), (3, height)):
        extra = -size % model.multiple
        ends = [(0, 0)] * 5
        ends[axis] = (0, extra)
        padded = np.pad(padded, ends, mode="reflect" if extra < size else "edge")
    assert padded.shape[3] % model.multiple == padded.shape[4] % model.multiple == 0
    with torch.no_grad():
        expected = model(torch.from_numpy(padded))[..., :height, :width]
        found = model(x)
    assert found.shape == x.shape
    assert torch.equal(found, expected)


def test_released_padding_of_photographs() -> None:
    """Zeros up to the next multiple of 8, a whole 8 where the size is one, in evaluation only."""
    model = _model(Variant(channels=4, rgb=True), num_bands=5, padding="released")
    x = torch.rand(1, 3, 8, 12)
    with torch.no_grad():
        wide = model.train()(nn.functional.pad(x, (0, 4, 0, 8)), learned=[True] * 11)
        assert wide.shape == (1, 5, 16, 16)
        model.eval()
        whole = model(nn.functional.pad(x, (0, 4, 0, 8)))
        assert whole.shape == (1, 5, 16, 16)
        assert model(x).shape == (1, 5, 8, 12)
        assert model(x[..., :8]).shape == (1, 5, 8, 8)


def test_samples_of_a_batch_do_not_meet() -> None:
    model, x = _model(), torch.rand(3, 1, 31, 8, 8)
    with torch.no_grad():
        together = model(x)
        for i in range(3):
            assert (model(x[i : i + 1]) - together[i : i + 1]).abs().max() < 1e-5


def test_a_flat_cube_of_memory_in_another_order_gives_the_same() -> None:
    model, x = _model(), torch.rand(2, 1, 31, 8, 12)
    turned = x.permute(3, 4, 2, 1, 0).contiguous().permute(4, 3, 2, 0, 1)
    assert not turned.is_contiguous()
    with torch.no_grad():
        assert (model(x) - model(turned)).abs().max() < 1e-5


def test_chance_takes_both_branches_equally_and_is_seeded() -> None:
    mixer, x = build("guided_spectral", 4, num_bands=3), torch.randn(1, 3, 2, 2, 4)
    learned, alone = mixer(x, learned=True).y, mixer(x, learned=False).y
    assert not torch.allclose(learned, alone)
    torch.manual_seed(1)
    taken = [mixer(x).y for _ in range(400)]
    assert all(torch.equal(y, learned) or torch.equal(y, alone) for y in taken)
    assert 150 < sum(torch.equal(y, learned) for y in taken) < 250  # five standard deviations
    torch.manual_seed(1)
    assert all(torch.equal(mixer(x).y, y) for y in taken)
    assert all(torch.equal(mixer.eval()(x).y, learned) for _ in range(8))


def test_one_draw_a_layer_in_a_whole_model() -> None:
    model, x = _model().train(), torch.rand(1, 1, 31, 8, 8)
    with torch.no_grad():
        torch.manual_seed(3)
        drawn = [bool(torch.rand(()) < 0.5) for _ in range(11)]
        torch.manual_seed(3)
        by_chance = model(x)
        assert torch.equal(by_chance, model(x, learned=drawn))
        assert not torch.equal(by_chance, model(x, learned=[not one for one in drawn]))


def test_contract_of_the_mechanism() -> None:
    assert all(result.passed for result in check_mechanism("guided_spectral"))
    assert all(result.passed for result in check_mechanism("guided_spectral", num_bands=None))


@pytest.mark.parametrize("fault", ["", "wrong gradient in one branch", "idle in both branches"])
def test_the_contract_looks_into_both_branches(fault: str) -> None:
    class Coin(TokenMixer):
        """One of two maps by chance."""

        def __init__(self, dim: int, num_heads: int = 8) -> None:
            super().__init__(dim, num_heads)
            self.heads, self.tails = nn.Linear(dim, dim), nn.Linear(dim, dim)
            if fault == "idle in both branches":
                self.idle = nn.Linear(dim, dim)

        def mix(self, x: Tensor) -> MixerOutput:
            if not self.training:
                return MixerOutput(self.heads(x) + self.tails(x))
            if torch.rand(()) < 0.5:
                return MixerOutput(self.heads(x))
            y = self.tails(x)
            return MixerOutput(y + y.detach() ** 2 if fault == "wrong gradient in one branch" else y)

    mechanism(name="coin", paper="none", year=2026, complexity="L", export=False)(Coin)
    try:
        failed = {result.check for result in check_mechanism("coin", raise_=False) if not result.passed}
    finally:
        unregister("coin")
    wanted = {"": set(), "idle in both branches": {"every parameter gets a gradient"}}
    assert failed == wanted.get(fault, {"float64 gradients"})


@pytest.mark.parametrize("name", ["softmax", "auto_correlation"])
def test_another_mixer_over_the_bands(name: str) -> None:
    """Each pixel's bands are a sequence of their own."""
    model, x = _model(attention=name), torch.rand(1, 1, 7, 8, 8)
    with torch.no_grad():
        assert model(x).shape == x.shape
    block = model.head.attn
    tokens = torch.randn(1, 7, 2, 3, 4)
    with torch.no_grad():
        block.ffn = nn.Identity()
        alone = tokens[:, :, 1, 2] + block.attn(tokens[:, :, 1, 2]).y
        assert (block(tokens)[:, :, 1, 2] - alone).abs().max() < 1e-5
    assert not any("value_proj." in key for key in model.state_dict())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"attention": "softmx"}, "did you mean softmax"),
        ({"attention": "prior_enhanced"}, "does not mix bands.*with prior"),
        ({"attention": "softmax", "num_heads": 3}, "multiple of num_heads"),
        ({"num_bands": 0}, "^num_bands: not a size"),
        ({"padding": "zeros"}, "^padding: unknown"),
        ({"variant": Variant(channels=0)}, "^channels: not a size"),
        ({"variant": Variant(conv="dense")}, "^conv: unknown"),
        ({"variant": Variant(mixer="learned")}, "^mixer: unknown"),
        ({"variant": Variant(ffn="mlp")}, "^ffn: unknown"),
        ({"variant": Variant(down=(1, 5))}, "^down: not layers"),
        ({"variant": Variant(down=(1, 1))}, "^down: not layers"),
    ],
    ids=str,
)
def test_bad_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        HSDT(**options)


def test_bad_names_and_input_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean hsdt_8"):
        make("hsdt_9")
    with pytest.raises(AttributeError):
        _ = hsdt.hsdt_9
    model, x = _model(), torch.rand(1, 1, 31, 8, 8)
    for bad in (x[0], x.expand(1, 2, 31, 8, 8), x[:, :, :0], x[..., :0]):
        with pytest.raises(InputError, match=r"^x:"):
            model(bad)
    with pytest.raises(InputError, match=r"^learned:"):
        model(x, learned=[True])
    with pytest.raises(MechanismError, match="5 bands, expected 31"):
        model(x[:, :, :5], learned=[True] * 11)
    for bad in (0, 2.0, True):
        with pytest.raises(MechanismError, match="num_bands"):
            build("guided_spectral", 4, num_bands=bad)


def test_the_mixing_function_and_its_gradients() -> None:
    torch.manual_seed(0)
    x, weights = torch.randn(2, 3, 2, 4, 6).double(), torch.rand(2, 3, 3).double()
    channels = torch.randn(6, 6).double()
    expected = torch.einsum("bde,behwc,oc->bdhwo", weights, x, channels)
    torch.testing.assert_close(map_bands(x, weights, channels), expected, rtol=0, atol=1e-12)
    inputs = [tensor.requires_grad_() for tensor in (x, weights, channels)]
    assert torch.autograd.gradcheck(map_bands, inputs)


@pytest.mark.parametrize(("tokens", "out"), [((2, 8), 3), ((5, 7), 8), ((4,), 5), ((3, 2), 16), ((6, 6), 1)])
def test_narrow_maps_are_linear_maps(tokens: tuple[int, ...], out: int) -> None:
    x, weight = torch.randn(*tokens, 6), torch.randn(out, 6)
    torch.testing.assert_close(pointwise(x, weight), nn.functional.linear(x, weight), rtol=0, atol=1e-5)


@pytest.mark.parametrize("plain", [True, False])
def test_feed_forward_in_parts(plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that do not divide the tokens evenly change neither the result nor any gradient."""
    monkeypatch.setattr(modulated, "_PART", 4 * 5)  # five tokens at once
    torch.manual_seed(0)
    shapes = [(8, 4), (8,), (4, 8), (4,), (8, 4), (8,)] if plain else [(8, 4), (8,)]
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in [(2, 3, 3, 4), *shapes]]
    assert torch.autograd.gradcheck(modulated.modulated, inputs)
    in_parts = modulated.modulated(*inputs)
    with torch.no_grad():
        assert torch.equal(in_parts, modulated.modulated(*inputs))
    torch.testing.assert_close(in_parts, modulated._plain(*inputs), rtol=0, atol=1e-12)


def test_half_width_loses_little() -> None:
    """Autocast to bfloat16 in forward and backward passes: the result within 50 dB, parameters in float32."""
    model, x = _model(), torch.rand(1, 1, 31, 16, 16)
    with torch.no_grad():
        exact = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(x)
    assert float((half.float() - exact).square().mean()) < 1e-5
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.train()(x, learned=[True] * 11).float().square().mean()
    loss.backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()


def test_export_with_a_free_batch() -> None:
    model, x = _model(Variant(channels=4, half_layers=2, down=(1,))), torch.rand(2, 1, 31, 9, 8)
    batch = torch.export.Dim("batch", min=1, max=16)
    with torch.no_grad():
        program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},))
        other = torch.rand(3, 1, 31, 9, 8)
        assert (program.module()(other) - model(other)).abs().max() < 1e-5


def test_a_training_step_keeps_little() -> None:
    """Of a layer of the released size: its input, two activations, and what normalisation and block begin from."""
    model, x = _model(Variant(channels=8)).train(), torch.rand(1, 1, 31, 32, 32)
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = model(x)
    assert y.shape == x.shape
    assert sum(kept.values()) < 45 * 8 * x.nbytes  # the released way keeps about 110


def test_a_short_run_takes_noise_off() -> None:
    """Fifty steps on one low-rank cube: better than the noisy input by 3 dB on other noise."""
    torch.manual_seed(0)
    row, column = torch.arange(16.0)[:, None] / 5, torch.arange(16.0) / 4
    maps = torch.stack([0.5 + 0.4 * (row * k + column).sin() for k in (0.7, 1.3)])
    clean = torch.einsum("dk,khw->dhw", torch.rand(31, 2), maps)[None, None] / 2
    model = make("hsdt_4")
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(50):
        optimizer.zero_grad()
        (model(clean + 50 / 255 * torch.randn_like(clean)) - clean).square().mean().backward()
        optimizer.step()
    noisy = clean + 50 / 255 * torch.randn_like(clean)
    with torch.no_grad():
        before, after = ((one - clean).square().mean().log10() * -10 for one in (noisy, model.eval()(noisy)))
    assert after - before > 3, (float(before), float(after))
