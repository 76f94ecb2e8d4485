"""FluidWorld (arXiv 2603.21315): parameter counts, released tensors, and the equations written out once more."""

from __future__ import annotations

import importlib.util
import pathlib
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.errors import ConfigError, WeightsError
from pipelines.world.losses import window_loss
from pipelines.world.models import FluidConfig, FluidWorld, TransformerWorld, build_world
from pipelines.world.models.world_weights import from_convlstm, from_fluidworld, from_transformer


def _module(name: str, path: pathlib.Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PEER = _module("peer_fluidworld", pathlib.Path(__file__).parents[1] / "performance" / "peer_fluidworld.py")
STENCIL, Plain = PEER.STENCIL, PEER.Plain
_released, _transformer, _convlstm, _filled = PEER.released, PEER.transformer, PEER.convlstm, PEER.filled


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("fluidworld", {}, 800_975),
        ("transformer", {}, 800_067),
        ("convlstm", {}, 801_995),
        ("fluidworld", {"variant": "released"}, 866_767),
        ("fluidworld", {"variant": "released", "channels": 1}, 862_093),
        ("fluidworld", {"variant": "released", "deltanet": False, "titans": False}, 718_414),
        ("fluidworld", {"variant": "released", "deltanet": False, "titans": False, "anisotropic": True}, 767_950),
    ],
)
def test_parameter_counts(name: str, options: dict[str, Any], expected: int) -> None:
    assert _count(build_world(name, **options)) == expected


def test_parts_have_the_papers_counts() -> None:
    net = FluidWorld()
    assert _count(net.encoder) == 403_849
    assert _count(net.belief_field) == 165_891
    assert _count(net.decoder) == 231_235


def test_released_tensors_have_the_released_counts() -> None:
    """The lists of the peer against the counts, so that what is loaded below is what was released."""
    buffers = ("kernel_2d", "health", "hebbian_map")

    def total(shapes: dict[str, tuple[int, ...]]) -> int:
        return sum(torch.Size(s).numel() for key, s in shapes.items() if not key.endswith(buffers))

    assert total(_released(128)) == 866_767
    assert total(_released(128, extra=False)) == 718_414
    assert total(_transformer(128)) == 800_067
    assert total(_convlstm(128)) == 801_995


@pytest.mark.parametrize(("extra", "gate"), [(True, False), (False, True)])
@pytest.mark.parametrize("training", [False, True])
def test_released_forward_equals_its_equations(extra: bool, gate: bool, training: bool) -> None:
    """Three frames of one call after the other, in float64 to 1e-10 and in float32 to 1e-5, buffers and all."""
    state = _filled(_released(16, layers=2, extra=extra, gate=gate, hw=8), dt=0.01)
    torch.manual_seed(1)
    frames, stimulus = torch.rand(4, 3, 3, 32, 32), torch.randn(3, 1)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        typed = {key: value.to(dtype) for key, value in state.items()}
        plain = Plain(typed, layers=2, dt_most=0.15 if gate else 0.35)
        net = from_fluidworld(typed, legacy=True).to(dtype).train(training)
        net.load_state_dict({key: value for key, value in typed.items() if "kernel_2d" not in key})
        held = None
        for time in range(3):
            z, energy, steps = plain.encode(frames[time].to(dtype), stop=not training)
            torch.manual_seed(5)
            found = net(frames[time].to(dtype), stimulus.to(dtype), frames[time + 1].to(dtype), state=held)
            held = found["state"]
            if time == 0:
                plain.begin(z, seed=5)
            plain.write(z)
            plain.evolve(stimulus.to(dtype))
            assert (found["x_recon"] - plain.decode(z)).abs().max() < tolerance
            assert (found["x_pred"] - plain.decode(plain.s)).abs().max() < tolerance
            assert (found["energy"].mean() - energy).abs() < tolerance
            told = net.encode_with(frames[time].to(dtype))[1]["steps"]
            assert told.tolist() == [sum(steps)] * 3
        assert net.fatigue is not None
        assert net.fatigue.health is not None
        assert (net.fatigue.health - plain.health).abs().max() < tolerance
        assert (net.state_dict()["belief_field.hebbian.hebbian_map"] - plain.map).abs().max() < tolerance


def test_released_encoder_does_stop_early() -> None:
    """Without this the test above would not see the rule."""
    net = from_fluidworld(_filled(_released(16, layers=2, extra=False, hw=8), dt=0.01), legacy=True)
    frames = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    assert int(net.encode_with(frames)[1]["steps"][0]) < 12
    assert int(net.train().encode_with(frames)[1]["steps"][0]) == 12


def test_released_state_goes_on_only_with_legacy() -> None:
    state = _filled(_released(16, layers=1, hw=8))
    frame, stimulus = torch.rand(2, 3, 32, 32), torch.zeros(2, 1)
    with torch.no_grad():
        legacy, plain = from_fluidworld(state, legacy=True), from_fluidworld(state)
        assert not torch.equal(legacy(frame, stimulus)["x_recon"], legacy(frame, stimulus)["x_recon"])
        first, again = plain(frame, stimulus), plain(frame, stimulus)
        assert torch.equal(first["x_recon"], again["x_recon"])
        assert torch.equal(first["x_pred"], again["x_pred"])
        alone = plain(frame[1:], stimulus[1:])
        assert (first["x_pred"][1:] - alone["x_pred"]).abs().max() < 1e-5
    for key, value in plain.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_released_rollout_writes_what_it_imagines() -> None:
    state = _filled(_released(16, layers=1, hw=8))
    plain, net = Plain(state, layers=1, dt_most=0.35), from_fluidworld(state, legacy=True)
    frame, stimulus = torch.rand(2, 3, 32, 32), torch.randn(2, 1)
    torch.manual_seed(5)
    found = net.rollout(frame[:, None], stimulus[:, None].expand(2, 3, 1), horizon=3)
    z, _, _ = plain.encode(frame, stop=True)
    plain.begin(z, seed=5)
    plain.write(z)
    for step in range(3):
        plain.evolve(stimulus)
        assert (found[:, step] - plain.decode(plain.s)).abs().max() < 1e-5
        plain.write(plain.s)


def test_transformer_equals_torchs_own_layers() -> None:
    """Released tensors in ``nn.TransformerEncoderLayer``, which is the same block."""
    d = 32
    state = {key: value.double() for key, value in _filled(_transformer(d)).items()}
    net = from_transformer(state, n_heads=8).double()
    net.load_state_dict(state)
    plain = Plain({**state, "fatigue.health": torch.ones(1), "belief_field.hebbian.hebbian_map": torch.ones(1)},
                   layers=0, dt_most=1.0)  # fmt: skip

    def block(name: str, x: Tensor) -> Tensor:
        layer = torch.nn.TransformerEncoderLayer(d, 8, 3 * d, 0.0, "gelu", batch_first=True, norm_first=True).double()
        names = {"self_attn.": "attn.", "linear1.": "ffn.0.", "linear2.": "ffn.2."}
        own = {}
        for key in layer.state_dict():
            theirs = key
            for ours, released in names.items():
                theirs = theirs.replace(ours, released)
            own[key] = state[f"{name}.{theirs}"]
        layer.load_state_dict(own)
        return layer(x)

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, (d,), state[f"{name}.weight"], state[f"{name}.bias"])

    x, x2 = torch.rand(2, 2, 3, 64, 64, dtype=torch.float64)
    pos, s = state["pos_embed"], torch.zeros(2, 256, d, dtype=torch.float64)
    held = None
    for frame in (x, x2):
        p = norm("patch_embed.norm", plain.conv("patch_embed.proj", frame, stride=4).flatten(2).transpose(1, 2))
        z = norm("encoder_norm", block("encoder_blocks.1", block("encoder_blocks.0", p + pos)))
        s = norm("temporal_norm", block("temporal_blocks.0", plain.linear("state_merge", torch.cat([z, s], -1)) + pos))
        found = net(frame, torch.randn(2, 1), state=held)
        held = found["state"]
        for key, tokens in (("x_recon", z), ("x_pred", s)):
            expected = plain.decode(tokens.transpose(1, 2).unflatten(2, (16, 16)))
            assert (found[key] - expected).abs().max() < 1e-10


def test_convlstm_equals_its_equations() -> None:
    state = {key: value.double() for key, value in _filled(_convlstm(32, hidden=16, middle=24)).items()}
    net = from_convlstm(state).double()
    net.load_state_dict(state)
    plain = Plain({**state, "fatigue.health": torch.ones(1), "belief_field.hebbian.hebbian_map": torch.ones(1)},
                   layers=0, dt_most=1.0)  # fmt: skip

    def group(name: str, x: Tensor) -> Tensor:
        return F.group_norm(x, 8, state[f"{name}.weight"], state[f"{name}.bias"])

    h = c = torch.zeros(2, 16, 6, 8, dtype=torch.float64)
    held = None
    for frame in torch.rand(3, 2, 3, 24, 32, dtype=torch.float64):
        p = plain.conv("patch_embed.proj", frame, stride=4)
        p = F.layer_norm(p.permute(0, 2, 3, 1), (32,), state["patch_embed.norm.weight"], state["patch_embed.norm.bias"])
        p = p.permute(0, 3, 1, 2)
        inner = group("encoder.2", F.gelu(plain.conv("encoder.0", p, padding=1)))
        z = p + F.gelu(plain.conv("encoder.3", inner))
        gates = plain.conv("convlstm.gates", torch.cat([z, h], 1), padding=1)
        i, f, o = (gates[:, 16 * k : 16 * (k + 1)].sigmoid() for k in range(3))
        c = f * c + i * gates[:, 48:].tanh()
        h = o * c.tanh()
        found = net(frame, torch.randn(2, 1), state=held)
        held = found["state"]
        assert (found["x_recon"] - plain.decode(z)).abs().max() < 1e-10
        assert (
            found["x_pred"] - plain.decode(group("output_proj.1", plain.conv("output_proj.0", h)))
        ).abs().max() < 1e-10


# --- Opening files.


def test_sizes_are_read_off_the_tensors() -> None:
    net = from_fluidworld(_filled(_released(8, channels=1, layers=2, extra=False, gate=True, hw=24)))
    c = net.config
    assert (c.channels, c.layers, c.dim, c.height, c.parts["anisotropic"], c.parts["titans"]) == (
        1,
        2,
        8,
        96,
        True,
        False,
    )
    assert isinstance(from_transformer(_filled(_transformer(16)), n_heads=4), TransformerWorld)
    assert from_convlstm(_filled(_convlstm(16, 8, 24))).config.bottleneck == 24


def test_wrong_state_dicts_are_refused_in_one_message() -> None:
    state = _filled(_released(8, layers=1))
    with pytest.raises(WeightsError, match="1 missing"):
        from_fluidworld({key: value for key, value in state.items() if key != "belief_field.log_dt"})
    with pytest.raises(WeightsError, match="1 unexpected"):
        from_fluidworld({**state, "belief_field.log_dt2": torch.zeros(())})
    with pytest.raises(WeightsError, match="of another shape"):
        from_fluidworld({**state, "belief_field.norm.weight": torch.ones(9)})
    with pytest.raises(WeightsError, match="another Laplacian"):
        from_fluidworld({**state, "belief_field.diffusion.kernel_2d": STENCIL * 2})
    with pytest.raises(WeightsError, match="n_encoder_layers"):
        from_fluidworld(state, n_encoder_layers=3)
    with pytest.raises(ConfigError, match="did you mean use_titans"):
        from_fluidworld(state, use_titan=True)
    for function in (from_fluidworld, from_transformer, from_convlstm):
        with pytest.raises(WeightsError, match="not a state dict"):
            function({"weight": torch.zeros(3)})
    with pytest.raises(WeightsError):
        from_fluidworld({**state, "encoder.fluid_layers.99999999.log_dt": torch.zeros(())})


# --- What the paper promises.


def test_paper_model_is_the_released_one_with_other_parts() -> None:
    """The field's pump by its equation: one step of the evolution of a state with only a pump and no map."""
    torch.manual_seed(0)
    net = FluidWorld(FluidConfig(dim=16, hebbian=False, later=1)).eval()
    field = net.belief_field
    assert field.memory is not None
    assert field.alpha_pump is not None
    s, h, a = torch.randn(2, 16, 6, 5), torch.randn(2, 16), torch.randn(2, 1)
    start = net.start(s)._replace(belief=s, pump=h)
    after = field.evolve(start, a)
    mean = s.mean((2, 3))
    h = h + torch.sigmoid(field.memory.gate(mean)) * torch.tanh(field.memory.value(mean))
    dt = 0.1
    du = Plain({"x.diffusion.D": field.diffusion.D, "fatigue.health": s, "belief_field.hebbian.hebbian_map": s},
                layers=0, dt_most=1.0).diffusion("x", s, (1, 4))  # fmt: skip
    du = du + field.reaction(s.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    du = du + (field.stimulus_proj(a) + F.softplus(field.alpha_pump) * h)[..., None, None]
    assert after.pump is not None
    assert (after.pump - h).abs().max() < 1e-6
    assert (after.belief - (s + dt * du)).abs().max() < 1e-5


def test_the_field_is_stable_at_the_largest_step() -> None:
    """Diffusion alone, the largest dt, D far too large and the map at its limit: no value leaves the range."""
    net = FluidWorld(FluidConfig(dim=8, later=1)).eval()
    field = net.belief_field
    with torch.no_grad():
        field.log_dt.fill_(9.0)
        field.diffusion.D.fill_(30.0)
        for part in (field.reaction.net[2], field.stimulus_proj[2]):
            part.weight.zero_()
            part.bias.zero_()
        assert field.alpha_pump is not None
        field.alpha_pump.fill_(-100.0)
        s = torch.randn(2, 8, 9, 7)
        state = net.start(s)._replace(belief=s, hebbian=torch.full_like(s, 2.0))
        for _ in range(50):
            following = net.evolve(state)
            assert following.belief.amax() <= state.belief.amax() + 1e-5
            assert following.belief.amin() >= state.belief.amin() - 1e-5
            state = following


def test_short_training_beats_the_last_frame() -> None:
    """Dots that move by two pixels a frame: after 100 steps the next frame is predicted better than copied."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.stack(torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij"), -1)

    def windows(count: int) -> Tensor:
        at = torch.rand(count, 5, 1, 2, generator=generator) * 16
        place = (at + torch.tensor([2.0, 1.0]) * torch.arange(3)[:, None]) % 16
        gap = (grid - place[:, :, :, None, None]).abs()
        dots = torch.exp(-torch.minimum(gap, 16 - gap).square().sum(-1) / 4).amax(1)
        return (0.25 + 0.5 * dots)[:, :, None].expand(-1, -1, 3, -1, -1).contiguous()

    torch.manual_seed(0)
    net = FluidWorld(FluidConfig(height=16, width=16, dim=32, layers=1, base="mean"))
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    for _ in range(100):
        total, count, _ = window_loss(net, windows(8), teacher=2, free=1)
        optimizer.zero_grad()
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    held = windows(32)
    predicted = net.eval().rollout(held[:, :2], None, 1)[:, 0]
    ours, copied = (predicted - held[:, 2]).square().mean(), (held[:, 1] - held[:, 2]).square().mean()
    assert ours < 0.7 * copied


def test_arguments_of_training_alone_are_taken_and_others_refused() -> None:
    state = _filled(_released(8, layers=1, extra=False, hw=4))
    from_fluidworld(state, diffusion_scale=0.5, grad_weight=1.0)
    with pytest.raises(ConfigError, match="no such option"):
        from_fluidworld(state, d=1)
