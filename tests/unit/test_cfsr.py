"""CFSR as a module: any size, batches, training, half width, export, other mixers, bad input."""

from __future__ import annotations

import copy
import pathlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import core_attention
from pipelines.errors import ConfigError, InputError
from pipelines.exporting import export_module
from pipelines.superres.models import banded
from pipelines.superres.models.cfsr import CFSR

SMALL: dict[str, Any] = {"dim": 8, "depths": (1, 2), "kernel": 5}


def _model(**options: Any) -> CFSR:
    torch.manual_seed(0)
    model = CFSR(**{"scale": 2, **SMALL, **options})
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


def _plain(model: nn.Module, x: Tensor) -> Tensor:
    """Layer by layer: gradients keep the bands away."""
    with torch.enable_grad():
        return model(x).detach()


def test_mechanism_keeps_its_contract() -> None:
    assert core_attention.spec("large_kernel").grid == (2,)
    # Without options it is checked with all the others, in tests/conformance.
    core_attention.check_mechanism("large_kernel", kernel=3, norm=True)


def test_mechanism_against_the_equation_and_with_a_scale() -> None:
    torch.manual_seed(0)
    mixer = core_attention.build("large_kernel", 6, kernel=7).double()
    x, scale = torch.randn(2, 9, 4, 6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    planes = x.movedim(-1, 1)
    window = mixer.a[2].lkb_reparam
    gate = window(torch.nn.functional.gelu(mixer.a[0](planes)))
    expected = mixer.proj(gate * mixer.v(planes)).movedim(1, -1)
    torch.testing.assert_close(mixer(x).y, expected)
    torch.testing.assert_close(mixer(x, scale=scale).y, expected * scale)
    with pytest.raises(core_attention.MechanismError, match="scale"):
        mixer(x, scale=scale[:3])


@pytest.mark.parametrize("kernel", [0, 2, 33, True, 9.0])
def test_mechanism_refuses_kernels(kernel: Any) -> None:
    with pytest.raises(core_attention.MechanismError, match="odd number from 1 to 31"):
        core_attention.build("large_kernel", 8, kernel=kernel)


@pytest.mark.parametrize("size", [(1, 1), (37, 53), (1, 300), (300, 1), (2, 3)])
@pytest.mark.parametrize("scale", [1, 2, 3, 4, 7])
def test_any_size_and_scale(size: tuple[int, int], scale: int) -> None:
    model, x = _model(scale=scale).eval(), torch.rand(2, 3, *size)
    with torch.no_grad():
        y = model(x)
    assert y.shape == (2, 3, scale * size[0], scale * size[1])
    assert y.is_contiguous()
    torch.testing.assert_close(y, _plain(model, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pixels", [1, 60, 200])
@pytest.mark.parametrize("kernel", [1, 3, 9, 21])
def test_bands_of_any_height_change_nothing(pixels: int, kernel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(banded, "_PIXELS", pixels)
    model, x = _model(kernel=kernel).eval(), torch.rand(1, 3, 41, 7)
    with torch.no_grad():
        torch.testing.assert_close(model(x), _plain(model, x), rtol=1e-5, atol=1e-5)


def test_bands_leave_what_they_read_and_start_clean() -> None:
    model = _model().eval()
    tokens = torch.randn(2, 9, 10, 8)
    kept, groups = tokens.clone(), list(model.layers)
    with torch.no_grad():
        first, second = banded.refine(groups, tokens), banded.refine(groups, tokens)
        alone = banded.refine(groups, tokens[1:])
    assert torch.equal(tokens, kept)
    assert torch.equal(first, second)
    torch.testing.assert_close(alone, first[1:], rtol=0, atol=1e-5)


def test_double_precision_bands() -> None:
    model, x = _model().double().eval(), torch.rand(1, 3, 12, 9, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), _plain(model, x), rtol=1e-11, atol=1e-11)


def test_a_pixel_depends_on_its_reach_and_no_further() -> None:
    model = _model(scale=1, depths=(1, 1), kernel=3, ratio=1).eval()
    assert model.reach == 3 + 2 * 2
    x = torch.rand(1, 3, 1, 41, requires_grad=True)
    (seen,) = torch.autograd.grad(model(x)[0, :, 0, 20].sum(), x)
    columns = seen[0, :, 0].abs().sum(0).nonzero().flatten()
    assert [int(columns.min()), int(columns.max())] == [20 - 7, 20 + 7]
    assert CFSR(4, edges=False).reach == 63


def test_gradients_reach_every_parameter() -> None:
    model = CFSR(2, **SMALL)  # as it starts, with layer scales of 1e-6
    model(torch.rand(2, 3, 8, 9)).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_training_lowers_the_loss() -> None:
    model = CFSR(2, **SMALL)
    x = torch.rand(4, 3, 12, 12)
    y = torch.nn.functional.interpolate(x, scale_factor=2, mode="bicubic")
    optimizer, losses = torch.optim.Adam(model.parameters(), 3e-3), []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (model(x) - y).abs().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]


def test_merging_leaves_the_model_and_the_random_state() -> None:
    model = _model()
    model(torch.rand(1, 3, 5, 5)).sum().backward()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    merged = model.merge()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in merged.parameters())
    assert all(p.grad is not None for p in model.parameters())
    with torch.no_grad():
        for p in merged.parameters():
            p.zero_()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    twice = merged.merge()
    assert list(twice.state_dict()) == list(merged.state_dict())


@pytest.mark.parametrize("bands", [False, True])
def test_half_width(bands: bool) -> None:
    model, x = _model().eval(), torch.rand(1, 3, 20, 30)
    with torch.no_grad():
        exact = model(x)
    with torch.set_grad_enabled(not bands), torch.autocast("cpu", torch.bfloat16):
        mixed = model(x)
    narrow = copy.deepcopy(model).bfloat16()
    with torch.set_grad_enabled(not bands):
        whole = narrow(x.bfloat16())
    spread = float(exact.std())
    assert whole.dtype == torch.bfloat16
    for found in (mixed, whole):
        assert float((found.detach().float() - exact).abs().mean()) < 0.02 * spread


def test_half_width_training_step() -> None:
    model = _model()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(torch.rand(2, 3, 10, 10)).float().square().mean()
    loss.backward()
    assert all(
        p.grad is not None and p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters()
    )


def test_export_with_a_free_batch(tmp_path: pathlib.Path) -> None:
    model = _model(depths=(1,)).merge()
    parity = export_module(model, {"image": torch.rand(2, 3, 9, 11)}, tmp_path / "a.pt2", output_name="large")
    assert parity.max_abs_error <= parity.tolerance


def test_export_with_free_sizes() -> None:
    model = _model(depths=(1,)).merge()
    free = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    program = torch.export.export(model, (torch.rand(2, 3, 9, 11),), dynamic_shapes=(free,)).module()
    x = torch.rand(3, 3, 16, 5)
    torch.testing.assert_close(program(x), model(x), rtol=1e-5, atol=1e-5)


def test_other_mixers_fit() -> None:
    class Mean(core_attention.TokenMixer):
        """The mean of the image at every pixel."""

        def mix(self, x: Tensor) -> core_attention.MixerOutput:
            return core_attention.MixerOutput(x.mean((1, 2), keepdim=True).expand_as(x))

    flags: dict[str, Any] = {"paper": "none", "year": 2026, "complexity": "L"}
    core_attention.mechanism(name="image_mean", grid=(2,), **flags)(Mean)
    try:
        model = _model(attention="image_mean")
        assert model.reach is None
        x = torch.rand(1, 3, 6, 7)
        with torch.no_grad():
            torch.testing.assert_close(model.merge()(x), model(x))
        assert CFSR(**model.arguments).layers[0].blocks[0].attn.mixer.spec.name == "image_mean"
    finally:
        core_attention.unregister("image_mean")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0}, "scale"),
        ({"scale": 2.0}, "scale"),
        ({"dim": -1}, "dim"),
        ({"depths": ()}, "groups"),
        ({"depths": (1, 0)}, r"depths\[1\]"),
        ({"ratio": 1.5}, "ratio"),
        ({"channels": 0}, "channels"),
        ({"kernel": 4}, "odd number"),
        ({"img_range": 0.0}, "img_range"),
        ({"attention": "large_kernl"}, "large_kernel"),
        ({"attention": "softmax"}, "does not mix images"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CFSR(**{**SMALL, **options})


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (1, 3, 0, 8), (0, 3, 8, 8), (1, 3, 8, 8, 1)])
def test_wrong_inputs(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="not a batch of images"):
        _model()(torch.zeros(shape))


def test_grey_images_are_not_shifted_by_the_mean_of_colours() -> None:
    model = _model(channels=1).eval()
    assert float(model.mean.abs().sum()) == 0
    assert "mean" not in model.state_dict()
    assert model(torch.rand(1, 1, 5, 6)).shape == (1, 1, 10, 12)
