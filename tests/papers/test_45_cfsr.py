"""CFSR (arXiv 2401.05633): the sheet's names and counts, the equations written out, the merge, the released files.

With the environment variable CFSR_REPOSITORY (a checkout of the released code) the released classes and weights are
run beside ours; they may not be redistributed, so nothing of them is kept here.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import sys
import types
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.errors import WeightsError
from pipelines.official import load_official
from pipelines.superres.models.cfsr import CFSR, from_official
from pipelines.superres.models.edge import EdgeFeedForward, edge_masks

SMALL: dict[str, Any] = {"dim": 8, "depths": (2, 1), "kernel": 5, "ratio": 2}
BRANCHES = ("sobel_x", "sobel_y", "laplacian")


def _module(name: str, path: pathlib.Path) -> Any:
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


PEER = _module("peer_cfsr", pathlib.Path(__file__).parents[1] / "performance" / "peer_cfsr.py").PeerCFSR


def _shaken(model: nn.Module, by: float = 0.1, seed: int = 0) -> nn.Module:
    """The model with weights far from where they start: layer scales of 1e-6 would hide every mistake in a block."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(by * torch.randn(p.shape, generator=generator))
    return model


def _gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max())


def _names(depths: tuple[int, ...], edges: bool) -> list[str]:
    """The released state dict by rule (the sheet's section 4)."""
    both = ("weight", "bias")
    layers = ["attn.norm", "attn.a.0", "attn.a.2.lkb_reparam", "attn.v", "attn.proj", "mlp.norm", "mlp.fc1", "mlp.pos"]
    block = ["layer_scale_1", "layer_scale_2", *(f"{name}.{kind}" for name in [*layers, "mlp.fc2"] for kind in both)]
    if edges:
        block += [f"mlp.{form.format(name)}" for name in BRANCHES for form in ("scale_{}", "{}_bias", "mask_{}")]
    inside = [f"layers.{g}.blocks.{b}.{name}" for g, count in enumerate(depths) for b in range(count) for name in block]
    outside = ["conv_first", "norm", "conv_after_body", "upsample.0", *(f"layers.{g}.conv" for g in range(len(depths)))]
    return sorted([*inside, *(f"{name}.{kind}" for name in outside for kind in both)])


@pytest.mark.parametrize(
    ("scale", "merged", "trained"), [(2, 291_324, 298_236), (3, 297_819, 304_731), (4, 306_912, 313_824)]
)
def test_parameter_counts(scale: int, merged: int, trained: int) -> None:
    model = CFSR(scale)
    assert sum(p.numel() for p in model.parameters()) == trained
    assert sum(p.numel() for p in model.merge().parameters()) == merged
    masks = sum(value.numel() for key, value in model.state_dict().items() if ".mask_" in key)
    if scale == 4:  # the released class counts its fixed masks as parameters
        assert trained + masks == 344_928


def test_state_dict_names_and_shapes() -> None:
    for edges, count in ((False, 252), (True, 360)):
        state = CFSR(4, edges=edges).state_dict()
        assert sorted(state) == _names((6, 6), edges)
        assert len(state) == count
        peer = PEER(4, masks=edge_masks() if edges else None)
        assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in peer.state_dict().items()}


def test_masks() -> None:
    right, legacy = edge_masks(), edge_masks(legacy=True)
    image = torch.arange(5.0).repeat(5, 1)[None, None]  # one more each column
    for name, mask in right.items():
        seen = F.conv2d(image, mask[None, None]).unique().tolist()
        assert seen == {"sobel_x": [-8.0], "sobel_y": [0.0], "laplacian": [0.0]}[name]
        assert float(mask.sum()) == 0
    assert legacy["sobel_x"].tolist() == [[0, 1, -1], [2, 0, -2], [1, 0, -1]]
    assert torch.equal(legacy["sobel_y"], right["sobel_y"])
    assert legacy["laplacian"].tolist() == [[1, 0, 0], [1, -4, 1], [0, 1, 0]]


@pytest.mark.parametrize("grads", [False, True], ids=["banded", "plain"])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("edges", [False, True])
def test_forward_equals_the_equations(edges: bool, legacy: bool, grads: bool) -> None:
    ours = _shaken(CFSR(3, edges=edges, legacy_masks=legacy, **SMALL))
    peer = PEER(
        3, SMALL["dim"], SMALL["depths"], SMALL["kernel"], SMALL["ratio"], edge_masks(legacy) if edges else None
    )
    peer.load_state_dict(ours.state_dict())
    x = torch.rand(2, 3, 37, 53, generator=torch.Generator().manual_seed(1))
    with torch.set_grad_enabled(grads):
        expected = peer(x)
        assert _gap(ours(x), expected) < 1e-5 * float(expected.detach().abs().max())


def test_one_convolution_is_the_four_with_all_gradients() -> None:
    torch.manual_seed(0)
    net = EdgeFeedForward(4, 6).double()
    _shaken(net, 0.5)
    z = torch.randn(2, 6, 7, 9, dtype=torch.float64, requires_grad=True)
    parts = [p for name, p in net.named_parameters() if name.startswith(("pos", "scale")) or name.endswith("x_bias")]
    weight, bias = net.filters()
    once = F.conv2d(z, weight, bias, padding=1, groups=6)
    four = F.conv2d(z, net.pos.weight, net.pos.bias, padding=1, groups=6)
    for name in BRANCHES:
        part = getattr(net, f"scale_{name}") * getattr(net, f"mask_{name}")
        four = four + F.conv2d(z, part, getattr(net, f"{name}_bias"), padding=1, groups=6)
    torch.testing.assert_close(once, four, rtol=0, atol=1e-12)
    cotangent = torch.randn_like(once)
    for a, b in zip(*(torch.autograd.grad(y, [z, *parts], cotangent) for y in (once, four)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("legacy", [False, True])
def test_merged_graph_equals_training_graph(scale: int, legacy: bool) -> None:
    model = _shaken(CFSR(scale, legacy_masks=legacy, dim=16, depths=(2, 2)))
    merged = model.merge()
    assert sorted(merged.state_dict()) == _names((2, 2), edges=False)
    assert not merged.training
    assert model.training
    assert model.edges
    assert not merged.edges
    x = torch.rand(1, 3, 21, 18, generator=torch.Generator().manual_seed(2))
    for grads in (False, True):
        with torch.set_grad_enabled(grads):
            expected = model(x)
            assert _gap(merged(x), expected) < 1e-5 * max(1.0, float(expected.detach().abs().max()))
    assert _gap(CFSR(**merged.arguments).eval()(x), expected) > 1e-3  # arguments are no weights
    again = CFSR(**merged.arguments)
    again.load_state_dict(merged.state_dict())
    assert torch.equal(again.eval()(x), merged(x))


def _official(scale: int, edges: bool, legacy: bool = True, **sizes: Any) -> dict[str, Tensor]:
    """A state dict as the released code writes it."""
    given = {**SMALL, **sizes}
    peer = PEER(
        scale, given["dim"], given["depths"], given["kernel"], given["ratio"], edge_masks(legacy) if edges else None
    )
    return _shaken(peer).state_dict()


@pytest.mark.parametrize("wrapped", ["params", "params_ema", None])
@pytest.mark.parametrize(
    ("scale", "edges", "legacy"), [(2, False, False), (3, True, True), (4, True, False), (5, False, False)]
)
def test_checkpoints_open_with_scale_and_graph_detected(
    scale: int, edges: bool, legacy: bool, wrapped: str | None
) -> None:
    state = _official(scale, edges, legacy)
    model = from_official({wrapped: state} if wrapped else state)
    assert (model.scale, model.edges, model.training) == (scale, edges, False)
    assert model.arguments["legacy_masks"] is legacy
    assert {k: model.arguments[k] for k in SMALL} == SMALL
    peer = PEER(scale, *SMALL.values(), edge_masks(legacy) if edges else None)
    peer.load_state_dict(state)
    x = torch.rand(1, 3, 9, 11)
    with torch.no_grad():
        expected = peer(x)
        assert _gap(model(x), expected) < 1e-5 * max(1.0, float(expected.detach().abs().max()))


def test_official_arguments_are_held_against_the_tensors() -> None:
    state = _official(4, edges=False)
    right = {"in_chans": 3, "embed_dim": 8, "depths": [2, 1], "dw_size": 5, "mlp_ratio": 2, "upscale": 4}
    assert isinstance(load_official("cfsr", state, **right, img_range=1.0, upsampler="pixelshuffledirect"), CFSR)
    wrong = {
        "in_chans": 1,
        "embed_dim": 48,
        "depths": [2, 2],
        "dw_size": 9,
        "mlp_ratio": 4.0,
        "upscale": 2,
        "upsampler": "",
    }
    for name, value in wrong.items():
        with pytest.raises(WeightsError, match=name):
            load_official("cfsr", state, **{name: value})


def test_foreign_and_damaged_state_dicts_are_refused() -> None:
    state, trained = _official(4, edges=False), _official(4, edges=True)
    key = "layers.0.blocks.1.mlp.pos.weight"
    bent = {**trained, "layers.1.blocks.0.mlp.mask_sobel_y": trained["layers.1.blocks.0.mlp.mask_sobel_y"] + 1}
    cases: list[tuple[dict[str, Tensor], str]] = [
        ({}, "not a state dict of cfsr"),
        ({"conv_first.weight": torch.zeros(3)}, "not a state dict of cfsr"),
        ({**state, "upsample.0.weight": torch.zeros(40, 8, 3, 3)}, "not a state dict of cfsr"),
        ({k: v for k, v in state.items() if k != key}, f"1 missing [(]{key}"),
        ({**state, "extra": torch.zeros(1)}, "1 unexpected [(]extra"),
        ({**state, key: torch.zeros(16, 1, 5, 5)}, "of another shape"),
        ({k: v for k, v in trained.items() if "mask" not in k}, "9 missing"),
        ({k: v for k, v in state.items() if "layers.0.blocks.0" not in k}, "not a state dict of cfsr"),
        (bent, "neither the released one nor the right one"),
    ]
    for damaged, message in cases:
        with pytest.raises(WeightsError, match=message):
            from_official(damaged)


def _released() -> Any:
    """The released module, its registry replaced by one that registers nothing."""
    folder = os.environ.get("CFSR_REPOSITORY")
    if not folder:
        pytest.skip("CFSR_REPOSITORY is not set")
    registry = types.ModuleType("basicsr.utils.registry")
    registry.__dict__["ARCH_REGISTRY"] = types.SimpleNamespace(register=lambda: lambda cls: cls)
    names = {"basicsr": types.ModuleType("basicsr"), "basicsr.utils": types.ModuleType("basicsr.utils")}
    with pytest.MonkeyPatch.context() as patch:
        for name, module in {**names, "basicsr.utils.registry": registry}.items():
            patch.setitem(sys.modules, name, module)
        return _module("released_cfsr", pathlib.Path(folder) / "basicsr" / "archs" / "cfsr_arch.py")


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_released_weights_and_class(scale: int, capsys: pytest.CaptureFixture[str]) -> None:
    released = _released().CFSR(3, 48, (6, 6), 9, 2, scale, 1.0, "pixelshuffledirect").eval()
    capsys.readouterr()
    file = pathlib.Path(os.environ["CFSR_REPOSITORY"]) / "model_zoo" / f"CFSR_x{scale}.pth"
    released.load_state_dict(torch.load(file, weights_only=True)["params"])
    ours = load_official("cfsr", file, upscale=scale)
    x = torch.rand(1, 3, 37, 53, generator=torch.Generator().manual_seed(0))
    for grads in (False, True):
        with torch.set_grad_enabled(grads):
            gap = _gap(ours(x), released(x))
        with capsys.disabled():
            sys.stdout.write(f"\nreleased x{scale}, {'plain' if grads else 'banded'}: largest difference {gap:.1e}\n")
        assert gap <= 1e-5


def test_released_training_graph() -> None:
    module = _released()
    plain = type("Plain", (module.MLP,), {"merge_kernel": False, "merge_mlp": lambda self: None})
    module.MLP = plain  # the released class merges itself while it is built
    released = module.CFSR(3, 48, (6, 6), 9, 2, 4, 1.0, "pixelshuffledirect")
    assert sum(p.numel() for p in released.parameters()) == 344_928
    with torch.no_grad():
        for p in (p for p in released.parameters() if p.requires_grad):
            p.add_(0.02 * torch.randn_like(p))
    ours = load_official("cfsr", released.state_dict())
    assert isinstance(ours, CFSR)
    assert ours.edges
    assert ours.arguments["legacy_masks"]
    x = torch.rand(1, 3, 37, 53)
    expected = released(x)
    assert _gap(ours(x), expected) <= 1e-5 * max(1.0, float(expected.detach().abs().max()))
    assert _gap(ours.merge()(x), expected) <= 1e-5 * max(1.0, float(expected.detach().abs().max()))
