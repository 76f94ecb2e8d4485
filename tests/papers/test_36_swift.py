"""SwiFT (arXiv 2307.05916): encoder, heads and checkpoints against outputs of the released code; names and counts.

With the environment variable SWIFT_REPOSITORY (a checkout of Transconnectome/SwiFT), and monai and einops installed,
the released classes are run beside ours on random weights. At the paper's size, (1, 1, 96, 96, 96, 20), the largest
difference measured was 9e-6 of features up to 14.7, and 2e-6 of the logit.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import logging
import os
import pathlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipelines.errors import ConfigError, WeightsError
from pipelines.fmri.models.swift import ContrastiveHead, Swift, SwiftConfig, SwiftNet
from pipelines.fmri.models.swift_weights import Released, from_official, read_official
from pipelines.official import describe, detect, load_official

GOLDEN = pathlib.Path(__file__).parent / "golden"
PAPER: dict[str, Any] = {"img_size": (96, 96, 96, 20), "in_chans": 1, "embed_dim": 36, "window_size": (4, 4, 4, 4)}
PAPER |= {"first_window_size": (4, 4, 4, 4), "patch_size": (6, 6, 6, 1), "depths": (2, 2, 6, 2)}
PAPER |= {"num_heads": (3, 6, 12, 24), "last_layer_full_MSA": True}


def _gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max())


def _scaled(a: Tensor, b: Tensor) -> float:
    return _gap(a, b) / max(1.0, float(b.detach().abs().max()))


def drawn(shapes: dict[str, Any], seed: int) -> dict[str, Tensor]:
    """Random weights by name, drawn in the order of the names: what the golden outputs were computed with."""
    random, found = np.random.RandomState(seed), {}
    for name in sorted(shapes):
        shape, leaf = tuple(shapes[name]), name.rpartition(".")[2]
        if leaf == "num_batches_tracked":
            found[name] = torch.tensor(7)
            continue
        values = random.standard_normal(shape)
        if leaf == "running_var":
            values = 0.5 + np.abs(values)
        elif leaf == "weight" and len(shape) == 2:
            values = values * shape[1] ** -0.5 * 1.5
        else:
            values = 1 + 0.3 * values if leaf == "weight" else 0.3 * values
        found[name] = torch.from_numpy(values.astype(np.float32))
    return found


def _golden(name: str) -> tuple[dict[str, Any], dict[str, Tensor], Tensor, dict[str, Tensor]]:
    """Facts of a case, its weights, its input and what the released code made of them."""
    stored = dict(np.load(GOLDEN / f"swift_{name}.npz"))
    meta = json.loads(str(stored.pop("meta")))
    options: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in meta["options"].items()}
    shape = (2, options["in_chans"], *options["img_size"][:3], meta["frames"])
    x = np.random.RandomState(100 + meta["seed"]).standard_normal(shape).astype(np.float32)
    expected = {key: torch.from_numpy(values) for key, values in stored.items()}
    return {**meta, "options": options}, drawn(meta["names"], meta["seed"]), torch.from_numpy(x), expected


# full: two stages, shifts on all axes, a global last stage. shifted: other windows first, no global stage. padded: a
# grid of 6 x 4 x 4 with 7 of 8 moments, second head. odd: patches, windows and axes of unequal sizes, two channels.
# deep: four stages, down to one token, 6 of 8 moments, contrastive head.
@pytest.mark.parametrize("name", ["full", "shifted", "padded", "odd", "deep"])
def test_outputs_equal_the_released_ones(name: str) -> None:
    meta, weights, x, expected = _golden(name)
    model: Any = load_official("swift", weights, **_sizes(meta["options"], name))
    assert isinstance(model, SwiftNet)
    assert not model.training
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == meta["names"]
    with torch.no_grad():
        features = model.model(x)
        assert features.shape == expected["features"].shape
        assert _scaled(features, expected["features"]) <= 1e-5
        assert _scaled(model(x), expected["y"]) <= 1e-5
        torch.testing.assert_close(model.encode(x), expected["features"].flatten(2).mean(-1), rtol=1e-5, atol=1e-5)


def _sizes(options: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: v for key, v in options.items() if key != "clf_head_version" or name != "deep"}


@pytest.mark.parametrize("name", ["full", "padded"])
def test_gradients_equal_the_released_ones(name: str) -> None:
    meta, weights, x, expected = _golden(name)
    model = from_official(weights, **meta["options"])
    y = model(x)
    cotangent = np.random.RandomState(200 + meta["seed"]).standard_normal(tuple(y.shape)).astype(np.float32)
    (y * torch.from_numpy(cotangent)).sum().backward()
    own = {key: value.grad for key, value in model.named_parameters()}
    wanted = {key.removeprefix("grad."): value for key, value in expected.items() if key.startswith("grad.")}
    assert len(wanted) == 8
    for key, value in wanted.items():
        gradient = own[key]
        assert gradient is not None
        assert _gap(gradient, value) <= 1e-5 * float(value.abs().max()), key
    assert own["model.norm.weight"] is None  # stored and never applied, as released


def test_contrastive_head_trains_as_released() -> None:
    meta, weights, _, expected = _golden("deep")
    model: Any = from_official(weights, **_sizes(meta["options"], "deep")).train()
    features = np.random.RandomState(300 + meta["seed"]).standard_normal((6, *expected["features"].shape[1:]))
    with torch.no_grad():
        y = model.output_head(torch.from_numpy(features.astype(np.float32)))
    assert _gap(y, expected["train"]) <= 1e-5
    assert _scaled(model.output_head.bn1.running_mean, expected["running_mean"]) <= 1e-5


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize(("dim", "count"), [(24, 1_971_336), (36, 4_315_212), (48, 7_564_560)])
def test_names_and_parameter_counts(dim: int, count: int, full: bool) -> None:
    with torch.device("meta"):
        model = SwiftNet(Swift(SwiftConfig(dim=dim, full_last=full)))
    assert sum(p.numel() for p in model.model.parameters()) == count
    assert sum(p.numel() for p in model.output_head.parameters()) == 8 * dim + 1
    state = model.model.state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == _released_shapes(dim)
    assert len(state) == 165


def _released_shapes(dim: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"patch_embed.fc.weight": (dim, 216), "patch_embed.fc.bias": (dim,)}
    for i, depth in enumerate((2, 2, 6, 2)):
        c, g = dim * 2**i, 16 // 2**i
        shapes |= {f"pos_embeds.{i}.pos_embed": (1, c, g, g, g, 1), f"pos_embeds.{i}.time_embed": (1, c, 1, 1, 1, 20)}
        for j in range(depth):
            block = {"attn.qkv": (3 * c, c), "attn.proj": (c, c), "mlp.linear1": (4 * c, c), "mlp.linear2": (c, 4 * c)}
            for key, shape in block.items():
                name = f"layers.{i}.blocks.{j}.{key}"
                shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
            for key in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
                shapes[f"layers.{i}.blocks.{j}.{key}"] = (c,)
        if i < 3:
            shapes[f"layers.{i}.downsample.reduction.weight"] = (2 * c, 8 * c)
            shapes |= {f"layers.{i}.downsample.norm.{leaf}": (8 * c,) for leaf in ("weight", "bias")}
    return shapes | {"norm.weight": (8 * dim,), "norm.bias": (8 * dim,)}


# Checkpoints.


def _hyper(options: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Arguments as the released script stores them: lists of numbers, with everything else of a run."""
    lists = {key: list(v) if isinstance(v, tuple) else v for key, v in options.items()}
    run = {"learning_rate": 5e-5, "dataset_name": "S1200", "strategy": None, "id": "RSTOT-1", "precision": 16}
    return {**lists, "c_multiplier": 2, "model": "swin4d_ver7", "attn_drop_rate": 0, **run, **more}


def _checkpoint(weights: dict[str, Tensor], hyper: Any) -> dict[str, Any]:
    """What Lightning 1.9 writes beside the weights."""
    optimizer = {"state": {0: {"exp_avg": torch.zeros(2), "step": torch.tensor(3.0)}}, "param_groups": [{"lr": 5e-5}]}
    callback = {"best_model_score": torch.tensor(0.9), "best_model_path": "output/a.ckpt", "best_k_models": {}}
    return {
        "epoch": 9,
        "global_step": 100,
        "pytorch-lightning_version": "1.9.1",
        "state_dict": weights,
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'valid_acc', 'mode': 'max'}": callback},
        "optimizer_states": [optimizer],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": hyper,
    }


@pytest.mark.parametrize("name", ["full", "shifted", "padded", "odd", "deep"])
def test_lightning_checkpoints_open_without_options(name: str, tmp_path: pathlib.Path) -> None:
    meta, weights, x, expected = _golden(name)
    hyper = _hyper(meta["options"])
    path = tmp_path / "checkpt-epoch=09.ckpt"
    for stored in (hyper, argparse.Namespace(**hyper)):
        torch.save(_checkpoint(weights, stored), path)
        model: Any = load_official("swift", path)
        assert _scaled(model(x), expected["y"]) <= 1e-5
        assert isinstance(model.output_head, ContrastiveHead) is (name == "deep")
        config = model.model.config
        assert (*config.image, config.frames) == meta["options"]["img_size"]
    with pytest.raises(WeightsError, match=r"window_size: does not agree with the checkpoint. Found: \(9, 9, 9, 9\)"):
        load_official("swift", path, window_size=(9, 9, 9, 9))


def test_bare_and_prefixed_state_dicts_open(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    import safetensors.torch

    _, weights, x, expected = _golden("full")
    bare = {key.removeprefix("model."): value for key, value in weights.items() if key.startswith("model.")}
    safetensors.torch.save_file(bare, tmp_path / "bare.safetensors")
    torch.save({f"module.{key}": value for key, value in weights.items()}, tmp_path / "parallel.pth")
    torch.save({f"net.{key}": value.half() for key, value in weights.items()}, tmp_path / "half.pt")
    torch.save(_checkpoint({f"model.{key}": value for key, value in bare.items()}, {}), tmp_path / "encoder.ckpt")
    hidden = {"window_size": (2, 2, 2, 4), "num_heads": (3, 6)}
    encoder: Any = None
    for file in ("bare.safetensors", "encoder.ckpt"):
        encoder = load_official("swift", tmp_path / file, **hidden)
        assert isinstance(encoder, Swift)
        assert _scaled(encoder(x), expected["features"]) <= 1e-5
    assert "last_layer_full_MSA=True" in caplog.text
    assert "patch_size is taken as (6, 6, 6, 1)" in caplog.text
    assert "num_heads=" not in caplog.text
    for file, bound in (("parallel.pth", 1e-5), ("half.pt", 1e-2)):
        model = load_official("swift", tmp_path / file, **hidden)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert _scaled(model(x), expected["y"]) <= bound
    weights["model.patch_embed.fc.weight"].zero_()  # a model keeps copies
    assert bare["patch_embed.fc.weight"].count_nonzero() == 0
    assert encoder.patch_embed.fc.weight.count_nonzero()


def test_what_no_tensor_shows_is_assumed_as_in_the_paper(caplog: pytest.LogCaptureFixture) -> None:
    with torch.device("meta"):
        state = Swift(SwiftConfig(dim=24, image=(48, 48, 48), frames=4)).state_dict()
    state = {key: torch.zeros(value.shape) for key, value in state.items()}
    with caplog.at_level(logging.WARNING):
        model: Any = load_official("swift", state)
    assert model.config == SwiftConfig(dim=24, image=(48, 48, 48), frames=4)
    assert "window_size=(4, 4, 4, 4), last_layer_full_MSA=True, num_heads=(3, 6, 12, 24)" in caplog.text
    caplog.clear()
    other = load_official("swift", state, **{**PAPER, "img_size": (48, 48, 48, 4), "embed_dim": 24})
    assert isinstance(other, Swift)
    assert not caplog.text
    assert detect(state) == "swift"
    assert describe(state) == "swift (165 tensors, 12 blocks)"


def test_dropping_of_further_training() -> None:
    meta, weights, _, _ = _golden("shifted")
    model: Any = from_official(Released(weights, {"attn_drop_rate": 0.2, "window_size": (4, 4, 4, 4)}))
    assert (model.model.config.dropout, model.model.config.drop_path) == (0.2, 0.2)  # one flag sets both, as released
    model = from_official(weights, **{**_sizes(meta["options"], "deep"), "drop_rate": 0.1, "drop_path_rate": 0.3})
    assert (model.model.config.dropout, model.model.config.drop_path) == (0.1, 0.3)


def test_every_released_argument_is_taken_and_checked() -> None:
    meta, weights, _, _ = _golden("full")
    right: dict[str, Any] = {**meta["options"], "mlp_ratio": 4.0, "qkv_bias": True, "drop_rate": 0.0, "spatial_dims": 4}
    right |= {"norm_layer": nn.LayerNorm, "patch_norm": False, "use_checkpoint": False, "c_multiplier": 2}
    right |= {"downsample": "mergingv2", "num_classes": 2, "to_float": True, "attn_drop_rate": 0.0}
    right |= {"drop_path_rate": 0.0, "model": "swin4d_ver7"}
    assert isinstance(load_official("swift", weights, **right), SwiftNet)
    wrong: dict[str, Any] = {"img_size": (24, 24, 24, 9), "in_chans": 2, "embed_dim": 24, "depths": (2, 1)}
    wrong |= {"patch_size": (4, 4, 4, 1), "mlp_ratio": 2.0, "qkv_bias": False, "patch_norm": True, "spatial_dims": 3}
    wrong |= {"c_multiplier": 3, "downsample": "merging", "num_classes": 5, "clf_head_version": "v2"}
    wrong |= {"model": "swin4d_ver6"}
    for name, value in wrong.items():
        with pytest.raises(WeightsError, match=f"^{name}: does not agree with the checkpoint"):
            load_official("swift", weights, **{**meta["options"], name: value})
    assert load_official("swift", weights, img_size=(24, 24, 24, 8), num_classes=1)
    with pytest.raises(ConfigError, match=r"norm_layer: swift has no other normalisation"):
        load_official("swift", weights, norm_layer=nn.BatchNorm1d)
    with pytest.raises(ConfigError, match="did you mean num_heads"):
        load_official("swift", weights, n_heads=(3, 6))
    with pytest.raises(ConfigError, match=r"heads\[0\]"):
        load_official("swift", weights, num_heads=(5, 6))


def test_foreign_and_damaged_state_dicts_are_refused(tmp_path: pathlib.Path) -> None:
    _, weights, _, _ = _golden("full")
    first = "model.layers.0.blocks.0."
    cases: list[tuple[dict[str, Tensor], str]] = [
        ({}, "not a checkpoint of swift. Found: no tensor"),
        ({"patch_embed.fc.weight": torch.zeros(3)}, "not a checkpoint of swift"),
        ({**weights, "other.patch_embed.fc.weight": torch.zeros(2, 2)}, "not a checkpoint of swift"),
        ({k: v for k, v in weights.items() if k != "model.pos_embeds.0.pos_embed"}, "not a checkpoint of swift"),
        ({k: v for k, v in weights.items() if not k.startswith(first)}, "not a checkpoint of swift"),
        ({k: v for k, v in weights.items() if k != "model.norm.bias"}, r"1 missing .model.norm.bias"),
        ({k: v for k, v in weights.items() if k != "output_head.head.bias"}, r"1 missing .output_head.head.bias"),
        ({**weights, "extra": torch.zeros(1)}, "1 unexpected .extra"),
        ({**weights, "model.extra": torch.zeros(1)}, "1 unexpected .extra"),
        ({**weights, first + "norm1.bias": torch.zeros(3)}, "1 of another shape"),
        ({**weights, "output_head.foo": torch.zeros(1)}, "1 unexpected .output_head.foo"),
        ({**weights, "output_head.head.weight": torch.zeros(5)}, "an unknown head"),
        ({**weights, "model.patch_embed.norm.weight": torch.zeros(12)}, "unexpected .patch_embed.norm.weight"),
    ]
    for damaged, message in cases:
        with pytest.raises(WeightsError, match=message):
            from_official(damaged, num_heads=(3, 6))
    odd, facts = _golden("odd")[1], "pass patch_size"
    with pytest.raises(ConfigError, match=facts):
        from_official(odd)
    torch.save(_checkpoint(weights, {"image_path": pathlib.PurePosixPath("/data")}), tmp_path / "paths.ckpt")
    with pytest.raises(WeightsError, match=r"refused and nothing was run.*PurePosixPath.*save its state_dict"):
        load_official("swift", tmp_path / "paths.ckpt")
    whole = (tmp_path / "paths.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="truncated or damaged archive"):
        read_official(tmp_path / "cut.ckpt")
    with pytest.raises(WeightsError, match=r"this is not a checkpoint of swift.*dlinear"):
        load_official("swift", {"Linear_Seasonal.weight": torch.zeros(2, 3), "Linear_Trend.weight": torch.zeros(2, 3)})


# The released code itself.


@pytest.fixture(scope="module")
def released() -> Iterator[Any]:
    """The released model loader; marks for a profiler of CUDA, which a CPU has not, do nothing."""
    folder = os.environ.get("SWIFT_REPOSITORY")
    if not folder:
        pytest.skip("SWIFT_REPOSITORY is not set")
    for package in ("monai", "einops"):
        pytest.importorskip(package)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("range_push", "range_pop"):
            patch.setattr(torch.cuda.nvtx, name, lambda *_: None)
        for package in ("project", "project.module"):  # without their __init__, which import Lightning
            module = types.ModuleType(package)
            module.__dict__["__path__"] = [str(pathlib.Path(folder, *package.split(".")))]
            patch.setitem(sys.modules, package, module)
        yield importlib.import_module("project.module.models.load_model").load_model


def _theirs(load: Any, head: str, options: dict[str, Any], seed: int) -> tuple[nn.Module, nn.Module, dict[str, Tensor]]:
    more = {"c_multiplier": 2, "precision": 32, "attn_drop_rate": 0.0, "clf_head_version": "v1"}
    hparams = types.SimpleNamespace(**{**more, **options})
    with contextlib.redirect_stdout(io.StringIO()):
        model, output_head = load("swin4d_ver7", hparams), load(head, hparams)
    state = nn.ModuleDict({"model": model, "output_head": output_head}).state_dict()
    weights = drawn({key: value.shape for key, value in state.items()}, seed)
    nn.ModuleDict({"model": model, "output_head": output_head}).load_state_dict(weights)
    return model.eval(), output_head.eval(), weights


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("head", ["clf_mlp", "reg_mlp", "emb_mlp"])
def test_released_model(released: Any, head: str, full: bool, capsys: pytest.CaptureFixture[str]) -> None:
    options = {**PAPER, "img_size": (24, 36, 24, 8), "embed_dim": 24, "depths": (2, 3), "num_heads": (3, 6)}
    options |= {"last_layer_full_MSA": full, "window_size": (2, 4, 3, 3), "first_window_size": (3, 4, 3, 4)}
    model, output_head, weights = _theirs(released, head, options, seed=0)
    ours = load_official("swift", weights, **options)
    torch.manual_seed(0)
    x = torch.randn(2, 1, 24, 36, 24, 7)
    with torch.no_grad():
        features = model(x)
        expected = output_head(features, "l") if head == "emb_mlp" else output_head(features)
        gaps = _scaled(ours.model(x), features), _scaled(ours(x), expected)  # type: ignore[operator]
    with capsys.disabled():
        sys.stdout.write(f"\n{head}, full={full}: features {gaps[0]:.1e}, head {gaps[1]:.1e}\n")
    assert max(gaps) <= 1e-5


@pytest.mark.slow
def test_released_model_at_the_papers_size(released: Any, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model, output_head, weights = _theirs(released, "clf_mlp", PAPER, seed=0)
    ours: Any = load_official("swift", weights, **PAPER)
    x = torch.randn(1, 1, 96, 96, 96, 20)
    with torch.no_grad():
        features, found = model(x), ours.model(x)
        gaps = _gap(found, features), _gap(ours.output_head(found), output_head(features))
    with capsys.disabled():
        largest = float(features.abs().max())
        sys.stdout.write(f"\n96^3 x 20: features {gaps[0]:.1e} of up to {largest:.1f}, logit {gaps[1]:.1e}\n")
    assert gaps[0] <= 1e-5 * max(1.0, largest)
    assert gaps[1] <= 1e-5
