"""SwiFT against its equations, its released layout, other sizes than the paper's, and wrong ones."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_attention.kernels.window_nd.bench import region_mask, roll_partition_softmax
from pipelines.errors import ConfigError, InputError
from pipelines.fmri.models.swift import (
    ClassHead,
    ContrastiveHead,
    HiddenHead,
    Swift,
    SwiftConfig,
    SwiftNet,
    interpolate_positions,
)
from pipelines.fmri.models.swift_parts import Block, DropPath, PatchEmbed, PatchMerging

SMALL = SwiftConfig(image=(12, 18, 12), frames=6, dim=8, depths=(2, 2), heads=(2, 4), window=(2, 2, 2, 4))


def _model(config: SwiftConfig = SMALL) -> Swift:
    torch.manual_seed(0)
    model = Swift(config)
    for name, parameter in model.named_parameters():
        if "norm" in name:  # far from where they start, so that a norm left out shows
            nn.init.uniform_(parameter, 0.2, 1.5)
    return model.eval()


def _scan(config: SwiftConfig = SMALL, batch: int = 2, frames: int | None = None) -> Tensor:
    return torch.randn(batch, config.channels, *config.image, frames or config.frames)


def _expected_layout() -> dict[str, tuple[int, ...]]:
    """Names and shapes that the released checkpoints of the paper's size have."""
    layout: dict[str, tuple[int, ...]] = {"patch_embed.fc.weight": (36, 216), "patch_embed.fc.bias": (36,)}
    for stage, depth in enumerate((2, 2, 6, 2)):
        c, g = 36 * 2**stage, 16 // 2**stage
        layout[f"pos_embeds.{stage}.pos_embed"] = (1, c, g, g, g, 1)
        layout[f"pos_embeds.{stage}.time_embed"] = (1, c, 1, 1, 1, 20)
        maps = {"attn.qkv": (3 * c, c), "attn.proj": (c, c), "mlp.linear1": (4 * c, c), "mlp.linear2": (c, 4 * c)}
        for block, (name, shape) in itertools.product(range(depth), maps.items()):
            layout[f"layers.{stage}.blocks.{block}.{name}.weight"] = shape
            layout[f"layers.{stage}.blocks.{block}.{name}.bias"] = shape[:1]
        for block, norm, kind in itertools.product(range(depth), ("norm1", "norm2"), ("weight", "bias")):
            layout[f"layers.{stage}.blocks.{block}.{norm}.{kind}"] = (c,)
        if stage < 3:
            layout[f"layers.{stage}.downsample.reduction.weight"] = (2 * c, 8 * c)
            layout[f"layers.{stage}.downsample.norm.weight"] = (8 * c,)
            layout[f"layers.{stage}.downsample.norm.bias"] = (8 * c,)
    return layout | {"norm.weight": (288,), "norm.bias": (288,)}


def test_the_paper_model_has_the_released_layout() -> None:
    with torch.device("meta"):
        net = SwiftNet(Swift())
    found = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    expected = {f"model.{name}": shape for name, shape in _expected_layout().items()}
    assert len(expected) == 165
    assert found == expected | {"output_head.head.weight": (1, 288), "output_head.head.bias": (1,)}


@pytest.mark.parametrize(("dim", "count"), [(24, 1_971_336), (36, 4_315_212), (48, 7_564_560)])
def test_parameters_of_the_three_sizes(dim: int, count: int) -> None:
    with torch.device("meta"):
        model = Swift(SwiftConfig(dim=dim))
    assert sum(p.numel() for p in model.parameters()) == count


def _block_by_hand(state: dict[str, Tensor], x: Tensor, window: list[int], shift: list[int], heads: int) -> Tensor:
    """One block by its steps: roll, partition, scores with the mask added, and so on. x (B, *grid, C)."""
    c, grid = x.shape[-1], list(x.shape[1:-1])
    window = [min(pair) for pair in zip(window, grid, strict=True)]
    shift = [0 if w == size else s for w, size, s in zip(window, grid, shift, strict=True)]
    normed = F.layer_norm(x, (c,), state["norm1.weight"], state["norm1.bias"])
    spans = [-(-size // w) * w for size, w in zip(grid, window, strict=True)]
    ends = [n for size, span in reversed(list(zip(grid, spans, strict=True))) for n in (0, span - size)]
    normed = F.pad(normed, (0, 0, *ends))
    qkv = F.linear(normed, state["attn.qkv.weight"], state["attn.qkv.bias"]).view(len(x), -1, 3, heads, c // heads)
    added = region_mask(spans, window, shift) if any(shift) else None
    y = roll_partition_softmax(qkv, spans, window, shift, None if added is None else added.to(x))
    y = y.reshape(len(x), *spans, c)[(slice(None), *(slice(0, size) for size in grid))]
    x = x + F.linear(y, state["attn.proj.weight"], state["attn.proj.bias"])
    normed = F.layer_norm(x, (c,), state["norm2.weight"], state["norm2.bias"])
    hidden = F.gelu(F.linear(normed, state["mlp.linear1.weight"], state["mlp.linear1.bias"]))
    return x + F.linear(hidden, state["mlp.linear2.weight"], state["mlp.linear2.bias"])


def _by_hand(model: Swift, x: Tensor) -> Tensor:
    """SwiFT's forward pass as the paper and its code define it, with loops over patches and neighbours."""
    c, state = model.config, dict(model.state_dict())
    px, py, pz, pt = c.patch
    grid = c.grids[0]
    tokens = x.new_empty(len(x), *grid, x.shape[-1] // pt, c.dim)
    for i, j, k, t in itertools.product(*map(range, tokens.shape[1:5])):
        patch = x[:, :, i * px : i * px + px, j * py : j * py + py, k * pz : k * pz + pz, t * pt : t * pt + pt]
        flat = patch.permute(0, 2, 3, 4, 5, 1).flatten(1)
        tokens[:, i, j, k, t] = F.linear(flat, state["patch_embed.fc.weight"], state["patch_embed.fc.bias"])
    for stage, depth in enumerate(c.depths):
        last = stage == len(c.depths) - 1
        place, time = (state[f"pos_embeds.{stage}.{kind}_embed"] for kind in ("pos", "time"))
        tokens = tokens + place[..., 0].permute(0, 2, 3, 4, 1).unsqueeze(4)
        tokens = tokens + time[0, :, 0, 0, 0, : tokens.shape[4]].t()
        for block in range(depth):
            prefix = f"layers.{stage}.blocks.{block}."
            own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            full = last and c.full_last
            usual = c.first_window if stage == 0 and c.first_window else c.window
            window = [*c.grids[stage], usual[3]] if full else list(usual)
            shift = [0] * 4 if full or block % 2 == 0 else [w // 2 for w in usual]
            tokens = _block_by_hand(own, tokens, window, shift, c.heads[stage])
        if not last:
            corners = [tokens[:, i::2, j::2, k::2] for i, j, k in itertools.product(range(2), repeat=3)]
            joined, prefix = torch.cat(corners, -1), f"layers.{stage}.downsample."
            norm = (state[f"{prefix}norm.weight"], state[f"{prefix}norm.bias"])
            tokens = F.linear(F.layer_norm(joined, joined.shape[-1:], *norm), state[f"{prefix}reduction.weight"])
    return tokens.permute(0, 5, 1, 2, 3, 4)


@pytest.mark.parametrize("full_last", [True, False])
@pytest.mark.parametrize(
    ("image", "window", "frames"),
    [
        ((24, 24, 24), (2, 2, 2, 2), 8),
        ((24, 24, 24), (4, 4, 4, 4), 5),
        ((36, 24, 12), (4, 2, 2, 4), 6),
        ((36, 24, 60), (4, 4, 4, 4), 7),
    ],
)
def test_equals_its_equations(
    image: tuple[int, int, int], window: tuple[int, int, int, int], frames: int, full_last: bool
) -> None:
    config = dataclasses.replace(SMALL, image=image, window=window, frames=8, full_last=full_last)
    model, x = _model(config).double(), _scan(config, frames=frames).double()
    with torch.no_grad():
        torch.testing.assert_close(model(x), _by_hand(model, x))


def test_windows_of_the_first_stage() -> None:
    config = dataclasses.replace(SMALL, image=(24, 24, 24), first_window=(4, 2, 3, 2), full_last=False)
    model, x = _model(config).double(), _scan(config).double()
    with torch.no_grad():
        torch.testing.assert_close(model(x), _by_hand(model, x))


def test_own_maps_that_are_equal_are_one_map() -> None:
    config = dataclasses.replace(SMALL, image=(11, 18, 7), patch_maps="own")
    shared, own = _model(dataclasses.replace(config, patch_maps="shared")), _model(config)
    state = shared.state_dict()
    weight, bias = state.pop("patch_embed.fc.weight"), state.pop("patch_embed.fc.bias")
    places = 2 * 3 * 2
    state["patch_embed.maps"] = weight.t().expand(places, -1, -1)
    state["patch_embed.bias"] = bias.expand(places, 1, -1)
    own.load_state_dict(state)
    x = _scan(config)
    with torch.no_grad():
        torch.testing.assert_close(own(x), shared(x))
        before = own.patch_embed(scan := torch.randn(1, 1, 12, 18, 12, 6))
        own.patch_embed.get_parameter("maps")[4] += 1.0  # place (0, 2, 0)
        changed = (own.patch_embed(scan) != before).flatten(4).any(-1)[0]
    assert changed.nonzero().tolist() == [[0, 2, 0]]
    with pytest.raises(ConfigError, match="no maps for another grid"):
        interpolate_positions(own.state_dict(), config, dataclasses.replace(config, image=(18, 18, 7)))


@pytest.mark.parametrize("frames", [1, 2, 5, 6])
def test_shapes_and_encode(frames: int) -> None:
    model, x = _model(), _scan(frames=frames)
    with torch.no_grad():
        features = model(x)
        assert features.shape == (2, 16, 1, 2, 1, frames)
        torch.testing.assert_close(model.encode(x), features.mean((2, 3, 4, 5)))
        torch.testing.assert_close(SwiftNet(model).encode(x[:1]), model.encode(x)[:1])  # alone as in a batch


@pytest.mark.parametrize(
    ("image", "patch", "grids"),
    [
        ((40, 20, 1), (4, 4, 1, 1), ((10, 5, 1), (5, 3, 1), (3, 2, 1))),
        ((1, 7, 1), (1, 1, 1, 1), ((1, 7, 1), (1, 4, 1), (1, 2, 1))),
        ((13, 11, 7), (3, 2, 2, 2), ((5, 6, 4), (3, 3, 2), (2, 2, 1))),
        ((3, 3, 3), (3, 3, 3, 1), ((1, 1, 1), (1, 1, 1), (1, 1, 1))),
    ],
)
@pytest.mark.parametrize("mask_padding", [True, False])
def test_flat_and_odd_images(
    image: tuple[int, int, int], patch: tuple[int, int, int, int], grids: Any, mask_padding: bool
) -> None:
    config = SwiftConfig(image, 4, 2, patch, 8, (1, 2, 1), (1, 2, 4), (4, 3, 2, 2), mask_padding=mask_padding)
    assert config.grids == grids
    model, x = _model(config), _scan(config)
    y = model(x)
    assert y.shape == (2, 32, *grids[-1], 4 // patch[3])
    y.square().mean().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == ["norm.weight", "norm.bias"]  # there for the released layout, never applied
    torch.testing.assert_close(torch.cat([model(one[None]) for one in x]), y)


def test_padding_repeats_the_first_voxel_at_the_far_ends() -> None:
    config = dataclasses.replace(SMALL, image=(11, 18, 7))
    whole = _model()
    model = Swift(config).eval()
    model.load_state_dict(whole.state_dict())
    assert model.padding == (1, 0, 5)
    x = _scan(config)
    padded = x[:, :, 0, 0, 0, 0].view(2, 1, 1, 1, 1, 1).repeat(1, 1, 12, 18, 12, 6)
    padded[:, :, :11, :, :7] = x
    with torch.no_grad():
        assert torch.equal(model(x), whole(padded))


def test_hidden_padding_differs_only_where_a_grid_is_padded() -> None:
    even = dataclasses.replace(SMALL, image=(24, 24, 24), frames=4)
    for config, same in ((even, True), (SMALL, False)):
        hidden, seen = (_model(dataclasses.replace(config, mask_padding=value)) for value in (True, False))
        x = _scan(config)
        with torch.no_grad():
            assert torch.equal(hidden(x), seen(x)) == same


def test_the_last_stage_sees_all_of_space_and_its_window_of_time() -> None:
    config = dataclasses.replace(SMALL, image=(36, 24, 24), frames=8, depths=(1, 2))
    x = torch.randn(1, 1, 36, 24, 24, 8)
    for full in (True, False):
        model = _model(dataclasses.replace(config, full_last=full, window=(1, 1, 1, 4)))
        other = x.clone()
        other[..., :12, :12, :12, 1] += 1.0  # patches of one token of the last stage, moment 1
        with torch.no_grad():
            reached = (model(other) - model(x)).abs().amax((0, 1)) > 1e-6
        if full:
            assert reached[..., :4].all()
            assert not reached[..., 4:].any()
        else:  # the second block moves its windows of time by two: moments 0 to 3, then 4 and 5 through 2 and 3
            assert reached[0, 0, 0, :6].all()
            assert int(reached.sum()) == 6


@pytest.mark.parametrize("size", [5, 8192, 16500])
def test_pieces_of_the_feed_forward_change_nothing(size: int) -> None:
    """Outputs and every gradient, against the same steps one after another."""
    torch.manual_seed(0)
    block = _model().layers[0].blocks[0]
    assert isinstance(block, Block)
    block, plain = block.double(), copy.deepcopy(block).double()
    plain._lean = lambda x: False  # type: ignore[method-assign]
    x = torch.randn(1, 1, 1, 1, size, 8, dtype=torch.float64)
    found = []
    for one in (block, plain):
        leaf = x.clone().requires_grad_()
        y = one(leaf)
        found.append((y, *torch.autograd.grad(y.square().sum(), [leaf, *one.parameters()])))
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected)


def test_frozen_weights_let_gradients_through() -> None:
    model, x = _model(), _scan().requires_grad_()
    with_weights = torch.autograd.grad(model(x).square().sum(), x)[0]
    model.requires_grad_(False)
    torch.testing.assert_close(torch.autograd.grad(model(x).square().sum(), x)[0], with_weights)


def test_dropout_and_drop_path_act_while_training_only() -> None:
    config = dataclasses.replace(SMALL, dropout=0.2, drop_path=0.5)
    model, x = _model(config), _scan()
    plain = _model()
    with torch.no_grad():
        assert torch.equal(model(x), plain(x))
        assert not torch.equal(model.train()(x), model(x))
    rates = [m.probability for m in model.modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.0, 0.5 / 3, 1.0 / 3, 0.5])


def test_drop_path_leaves_out_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    y = DropPath(0.25).train()(torch.ones(4000, 2, 3))
    assert y.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert torch.equal(y.amin((1, 2)), y.amax((1, 2)))
    assert float(y.mean()) == pytest.approx(1.0, abs=0.05)


def test_order_within_a_patch() -> None:
    embed = PatchEmbed(2, (2, 3, 1, 2), 24)
    with torch.no_grad():
        embed.fc.weight.copy_(torch.eye(24))
        embed.fc.bias.zero_()
    x = torch.randn(1, 2, 4, 3, 2, 4)
    expected = [x[0, c, 2 + i, j, 1, 2 + t] for i in range(2) for j in range(3) for t in range(2) for c in range(2)]
    assert torch.equal(embed(x)[0, 1, 0, 1, 1], torch.stack(expected))


def test_merging_joins_what_there_is() -> None:
    torch.manual_seed(0)
    flat = PatchMerging(4, (3, 1, 2))
    x = torch.randn(1, 3, 1, 2, 2, 4)
    corner = torch.cat([x[0, 2, 0, 0, 1], x[0, 2, 0, 1, 1], torch.zeros(8)])  # the fourth row is not there
    torch.testing.assert_close(flat(x)[0, 1, 0, 0, 1], flat.reduction(flat.norm(corner)))


@pytest.mark.parametrize("attention", ["softmax", "selective_ssm", "auto_correlation", "pooling"])
def test_other_mixers(attention: str) -> None:
    model = _model(dataclasses.replace(SMALL, attention=attention)).train()
    y = model(_scan())
    assert y.shape == (2, 16, 1, 2, 1, 6)
    y.square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == ["norm.weight", "norm.bias"]


def test_softmax_over_all_is_one_window_over_all() -> None:
    """A sequence mechanism sees the tokens in the order of the grid, with the heads of the stage."""
    config = dataclasses.replace(SMALL, depths=(1, 1), window=(9, 9, 9, 9))
    windows, softmax = _model(config), _model(dataclasses.replace(config, attention="softmax"))
    state = windows.state_dict()
    for key in [key for key in state if ".attn.qkv." in key]:
        parts = dict(zip(("query", "key", "value"), state.pop(key).chunk(3), strict=True))
        state |= {key.replace("qkv", f"{part}_projection"): value for part, value in parts.items()}
    softmax.load_state_dict({key.replace("attn.proj.", "attn.out_projection."): v for key, v in state.items()})
    assert softmax.layers[1].blocks[0].attn.num_heads == 4
    with torch.no_grad():
        x = _scan()
        torch.testing.assert_close(softmax(x), windows(x))


def test_heads() -> None:
    torch.manual_seed(0)
    features = torch.randn(3, 8, 2, 1, 2, 5)
    mean = features.mean((2, 3, 4, 5))
    one, hidden, contrast = ClassHead(8), HiddenHead(8, 4), ContrastiveHead(8, 16)
    assert set(hidden.state_dict()) == {"hidden.weight", "hidden.bias", "head.weight", "head.bias"}
    assert {key.split(".")[0] for key in contrast.state_dict()} == {"fc1", "bn1"}
    assert hidden.hidden.weight.shape == (32, 8)
    torch.testing.assert_close(one(features), mean @ one.head.weight.t() + one.head.bias)
    torch.testing.assert_close(hidden(features), hidden.head(hidden.hidden(mean)))
    projected = mean @ contrast.fc1.weight.t()
    standard = (projected - projected.mean(0)) / (projected.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(contrast(features), standard / standard.norm(dim=1, keepdim=True))


def test_interpolation_to_another_grid_and_longer_time() -> None:
    old = dataclasses.replace(SMALL, image=(24, 24, 24), depths=(1, 1))
    new = dataclasses.replace(old, image=(48, 24, 20), frames=11)
    state = {f"model.{key}": value for key, value in _model(old).state_dict().items()}
    for axis in range(3):  # a ramp along each axis stays one between the outer centres of the old tokens
        ramp = torch.arange(4.0).view([4 if i == axis else 1 for i in range(3)]).expand(4, 4, 4)
        state["model.pos_embeds.0.pos_embed"][0, axis] = ramp[..., None]
    state["model.pos_embeds.0.time_embed"][0, 0] = torch.arange(6.0)
    fitted = interpolate_positions(state, old, new)
    net = SwiftNet(Swift(new))
    net.model.load_state_dict({key.removeprefix("model."): value for key, value in fitted.items()})
    place = fitted["model.pos_embeds.0.pos_embed"][0, ..., 0]
    assert place.shape[1:] == (8, 4, 4)
    torch.testing.assert_close(place[0, 1:7, 0, 0], torch.tensor([0.25, 0.75, 1.25, 1.75, 2.25, 2.75]))
    torch.testing.assert_close(place[1, 0, :, 0], torch.arange(4.0))
    time = fitted["model.pos_embeds.0.time_embed"][0, 0, 0, 0, 0]
    torch.testing.assert_close(time, torch.linspace(0, 5, 11))
    shorter = interpolate_positions(state, old, dataclasses.replace(old, frames=4))
    assert torch.equal(shorter["model.pos_embeds.1.time_embed"], state["model.pos_embeds.1.time_embed"][..., :4])
    same = interpolate_positions(state, old, old)
    assert all(torch.equal(same[key], value) for key, value in state.items())


def test_interpolation_refuses_what_no_weights_fit() -> None:
    state = _model().state_dict()
    with pytest.raises(ConfigError, match="dim: weights of another model"):
        interpolate_positions(state, SMALL, dataclasses.replace(SMALL, dim=16))
    with pytest.raises(ConfigError, match="grid of stage 0 merges other axes"):
        interpolate_positions(state, SMALL, dataclasses.replace(SMALL, image=(12, 18, 6)))


def test_export_with_a_free_batch() -> None:
    model = _model(dataclasses.replace(SMALL, image=(11, 18, 18)))
    net = SwiftNet(model).eval()
    batch = torch.export.Dim("batch", min=1, max=16)
    with torch.no_grad():
        program = torch.export.export(net, (_scan(model.config),), dynamic_shapes=({0: batch},))
        x = _scan(model.config, batch=5)
        torch.testing.assert_close(program.module()(x), net(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"image": (5, 96, 96)}, "image: smaller than a patch. Found: (5, 96, 96)"),
        ({"image": (96, 96)}, "image: not sizes. Found: (96, 96). Expected: 3 positive whole numbers"),
        ({"image": (96, 96, 96.0)}, "image: not sizes"),
        ({"window": (4, 4, 4, 0)}, "window: not sizes. Found: (4, 4, 4, 0)"),
        ({"first_window": (4, 4, 4)}, "first_window: not sizes. Found: (4, 4, 4). Expected: 4 positive"),
        ({"patch": (6, 6, 6, -1)}, "patch: not sizes"),
        ({"patch": "6661"}, "patch: not sizes"),
        ({"frames": 0}, "frames: not sizes"),
        ({"frames": 20, "patch": (6, 6, 6, 3)}, "frames: not whole patches. Found: 20"),
        ({"dim": 0}, "dim: not sizes"),
        ({"heads": (3, 6, 12, 25)}, "heads[3]: heads that do not fit. Found: 25. Expected: a divisor of its 288"),
        ({"heads": (3, 6)}, "heads: not the heads of these stages"),
        ({"depths": ()}, "heads: not the heads of these stages"),
        ({"depths": (2, 0, 6, 2)}, "depths: not sizes"),
        ({"dropout": 1.0}, "dropout: not a probability"),
        ({"drop_path": -0.1}, "drop_path: not a probability"),
        ({"mlp_ratio": 0.0}, "mlp_ratio: no width"),
    ],
)
def test_wrong_configurations(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SwiftConfig(**changed)
    assert words in str(caught.value)


def test_lists_of_a_config_file_serve() -> None:
    stored: dict[str, Any] = {
        name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(SMALL).items()
    }
    assert SwiftConfig(**stored) == SMALL


@pytest.mark.parametrize(
    ("attention", "words"),
    [
        ("low_rank", "does not mix the tokens of a scan"),
        ("guided_spectral", "grids (3,)"),
        ("prior_enhanced", "with prior"),
        ("sofmax", "did you mean softmax"),
    ],
)
def test_mixers_that_do_not_fit(attention: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Swift(dataclasses.replace(SMALL, attention=attention))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 12, 18, 12, 6), "not a scan for this model"),
        ((1, 2, 12, 18, 12, 6), "not a scan for this model"),
        ((1, 1, 18, 12, 12, 6), "Expected: (batch, 1, 12, 18, 12, volumes)"),
        ((1, 1, 12, 18, 12, 7), "use interpolate_positions"),
        ((1, 1, 12, 18, 12, 0), "Expected: 1 to 6 volumes"),
    ],
)
def test_wrong_scans(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(InputError) as caught:
        _model()(torch.zeros(shape))
    assert words in str(caught.value)


def test_whole_numbers_and_parts_of_patches_in_time_are_refused() -> None:
    with pytest.raises(InputError, match="not floating-point"):
        _model()(torch.zeros((1, 1, 12, 18, 12, 6), dtype=torch.int16))
    with pytest.raises(InputError, match="not whole patches in time"):
        _model(dataclasses.replace(SMALL, patch=(6, 6, 6, 2)))(torch.zeros(1, 1, 12, 18, 12, 3))
