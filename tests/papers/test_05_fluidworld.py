"""FluidWorld (arXiv 2603.21315): parameter counts, released tensors, and the equations written out once more."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.errors import ConfigError, WeightsError
from pipelines.world.losses import window_loss
from pipelines.world.models import FluidConfig, FluidWorld, TransformerWorld, build_world
from pipelines.world.models.world_weights import from_convlstm, from_fluidworld, from_transformer

STENCIL = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])


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


# --- Released tensors, written down here by name and shape.


def _decoder(d: int, channels: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"0.weight": (64, d, 1, 1), "0.bias": (64,)}
    for place, width in ((2, 64), (7, 64), (12, 32)):
        for layer, shape in ((0, (width, width, 3, 3)), (2, (width,)), (3, (width, width, 3, 3))):
            found |= {f"{place}.block.{layer}.weight": shape, f"{place}.block.{layer}.bias": (width,)}
    for place, width, before in ((4, 64, 64), (9, 32, 64)):
        found |= {f"{place}.weight": (width, before, 3, 3), f"{place}.bias": (width,)}
        found |= {f"{place + 2}.weight": (width,), f"{place + 2}.bias": (width,)}
    found |= {"13.weight": (channels, 32, 3, 3), "13.bias": (channels,)}
    return {f"decoder.decoder.{key}": shape for key, shape in found.items()}


def _equation(d: int, dilations: int) -> dict[str, tuple[int, ...]]:
    return {
        "log_dt": (),
        "reaction.net.0.weight": (2 * d, d),
        "reaction.net.0.bias": (2 * d,),
        "reaction.net.2.weight": (d, 2 * d),
        "reaction.net.2.bias": (d,),
        "norm.weight": (d,),
        "diffusion.D": (dilations, d),
        "diffusion.kernel_2d": (3, 3),
    }


def _linear(name: str, rows: int, columns: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns), **({f"{name}.bias": (rows,)} if bias else {})}


def _released(d: int, *, channels: int = 3, layers: int = 3, extra: bool = True, gate: bool = False, hw: int = 16):
    """Names and shapes of a released FluidWorld."""
    shapes: dict[str, tuple[int, ...]] = {"encoder.patch_embed.proj.weight": (d, channels, 4, 4)}
    shapes |= {"encoder.patch_embed.proj.bias": (d,), "encoder.patch_embed.norm.weight": (d,)}
    layer = {**_equation(d, 3), "alpha_global": (), "alpha_local": ()}
    layer |= _linear("memory.gate", d, d) | _linear("memory.value", d, d)
    layer |= {"local_proj.weight": (d, d, 1, 1), "local_proj.bias": (d,)}
    if gate:
        layer |= {"content_gate.gate_conv.weight": (d, d, 1, 1), "content_gate.gate_conv.bias": (d,)}
    for place in range(layers):
        shapes |= {f"encoder.fluid_layers.{place}.{key}": shape for key, shape in layer.items()}
    belief = {**_equation(d, 2), "log_decay": (), "hebbian.hebbian_map": (1, d, hw, hw)}
    belief |= _linear("gate_proj.0", d, d) | _linear("value_proj.0", d, d)
    belief |= _linear("stimulus_proj.0", d, 1) | _linear("stimulus_proj.2", d, d)
    belief |= {"read_proj.0.weight": (d,), "read_proj.0.bias": (d,)} | _linear("read_proj.1", d, d)
    if extra:
        for name in ("deltanet.q_proj", "deltanet.k_proj", "deltanet.v_proj", "deltanet.out_proj"):
            belief |= _linear(name, d, d, bias=False)
        for name in ("titans.write_key", "titans.write_value", "titans.read_query"):
            belief |= _linear(name, d, d, bias=False)
        belief |= _linear("deltanet.beta_proj", 4, d, bias=False) | {"deltanet.norm.weight": (d,), "titans.eta": (d,)}
        belief |= _linear("titans.surprise_gate.0", d, 2 * d) | {"alpha_pump": ()}
    shapes |= {f"belief_field.{key}": shape for key, shape in belief.items()}
    return {**shapes, "fatigue.health": (1, d, 1, 1), **_decoder(d, channels)}


def _baseline(d: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"patch_embed.proj.weight": (d, 3, 4, 4), "patch_embed.proj.bias": (d,)}
    return {**shapes, "patch_embed.norm.weight": (d,), "patch_embed.norm.bias": (d,), **_decoder(d, 3)}


def _transformer(d: int) -> dict[str, tuple[int, ...]]:
    shapes = {**_baseline(d), "pos_embed": (1, 256, d)} | _linear("state_merge", d, 2 * d)
    for name in ("encoder_blocks.0", "encoder_blocks.1", "temporal_blocks.0"):
        shapes |= {f"{name}.attn.in_proj_weight": (3 * d, d), f"{name}.attn.in_proj_bias": (3 * d,)}
        shapes |= _linear(f"{name}.attn.out_proj", d, d)
        shapes |= _linear(f"{name}.ffn.0", 3 * d, d) | _linear(f"{name}.ffn.2", d, 3 * d)
        shapes |= {f"{name}.norm{i}.{part}": (d,) for i in (1, 2) for part in ("weight", "bias")}
    return shapes | {f"{name}_norm.{part}": (d,) for name in ("encoder", "temporal") for part in ("weight", "bias")}


def _convlstm(d: int, hidden: int = 64, middle: int = 88) -> dict[str, tuple[int, ...]]:
    shapes = {**_baseline(d), "encoder.0.weight": (middle, d, 3, 3), "encoder.0.bias": (middle,)}
    shapes |= {"encoder.2.weight": (middle,), "encoder.2.bias": (middle,)}
    shapes |= {"encoder.3.weight": (d, middle, 1, 1), "encoder.3.bias": (d,)}
    shapes |= {"convlstm.gates.weight": (4 * hidden, d + hidden, 3, 3), "convlstm.gates.bias": (4 * hidden,)}
    shapes |= {"output_proj.0.weight": (d, hidden, 1, 1), "output_proj.0.bias": (d,)}
    return shapes | {"output_proj.1.weight": (d,), "output_proj.1.bias": (d,)}


def _filled(shapes: dict[str, tuple[int, ...]], seed: int = 0, dt: float = 0.1) -> dict[str, Tensor]:
    """Random tensors of a sensible size: norms about 1, weights by their inputs, time steps and decay as they start."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for key, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        width = max(1, int(torch.tensor(shape[1:]).prod())) if len(shape) > 1 else 25
        state[key] = noise * 0.6 / width**0.5
        if "norm" in key and key.endswith("weight"):
            state[key] += 1.0
        for name, value in (("log_dt", dt), ("log_decay", 0.95)):
            if key.endswith(name):
                state[key] = torch.tensor(value).log() + 0.05 * noise
        if key.endswith("kernel_2d"):
            state[key] = STENCIL
        if key.endswith("health"):
            state[key] = noise.abs().clamp(0.2, 1.0)
        if key.endswith("hebbian_map"):
            state[key] = noise.abs()
    return state


def test_released_tensors_have_the_released_counts() -> None:
    """The lists above against the counts, so that what is loaded below is what was released."""
    buffers = ("kernel_2d", "health", "hebbian_map")

    def total(shapes: dict[str, tuple[int, ...]]) -> int:
        return sum(torch.Size(s).numel() for key, s in shapes.items() if not key.endswith(buffers))

    assert total(_released(128)) == 866_767
    assert total(_released(128, extra=False)) == 718_414
    assert total(_transformer(128)) == 800_067
    assert total(_convlstm(128)) == 801_995


# --- The equations once more, channels first and one operator at a time.


class _Plain:
    """The released FluidWorld's arithmetic with its state in this object."""

    def __init__(self, state: dict[str, Tensor], *, layers: int, dt_most: float) -> None:
        self.w, self.layers, self.dt_most = state, layers, dt_most
        self.health, self.map = state["fatigue.health"].clone(), state["belief_field.hebbian.hebbian_map"].clone()

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.w[f"{name}.weight"], self.w.get(f"{name}.bias"))

    def conv(self, name: str, x: Tensor, **options: Any) -> Tensor:
        return F.conv2d(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"], **options)

    def rms(self, name: str, x: Tensor) -> Tensor:
        """Over the last axis."""
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-8).sqrt() * self.w[f"{name}.weight"]

    def over(self, what: Any, name: str, x: Tensor) -> Tensor:
        return what(name, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def diffusion(self, name: str, u: Tensor, dilations: tuple[int, ...]) -> Tensor:
        total = torch.zeros_like(u)
        for place, d in enumerate(dilations):
            p = F.pad(u, (d, d, d, d), mode="replicate")
            lap = p[..., 2 * d :, d:-d] + p[..., : -2 * d, d:-d] + p[..., d:-d, 2 * d :] + p[..., d:-d, : -2 * d] - 4 * u
            total = total + F.softplus(self.w[f"{name}.diffusion.D"][place])[:, None, None] * lap
        return total

    def reaction(self, name: str, u: Tensor) -> Tensor:
        return self.over(self.linear, f"{name}.reaction.net.2", F.gelu(self.over(self.linear, f"{name}.reaction.net.0", u)))

    def layer(self, name: str, u: Tensor, stop: bool) -> tuple[Tensor, Tensor, int]:
        dt = self.w[f"{name}.log_dt"].exp().clamp(0.005, self.dt_most)
        h, quiet, energies = u.new_zeros(u.shape[:2]), [], []
        probe = F.adaptive_avg_pool2d(u, 8)
        for step in range(6):
            du = self.diffusion(name, u, (1, 4, 16))
            if f"{name}.content_gate.gate_conv.weight" in self.w:
                du = self.conv(f"{name}.content_gate.gate_conv", u).sigmoid() * du
            mean = u.mean((2, 3))
            h = h + self.linear(f"{name}.memory.gate", mean).sigmoid() * self.linear(f"{name}.memory.value", mean).tanh()
            local = self.conv(f"{name}.local_proj", F.adaptive_avg_pool2d(u, 4))
            local = F.interpolate(local, size=u.shape[2:], mode="bilinear", align_corners=False)
            du = du + self.reaction(name, u) + F.softplus(self.w[f"{name}.alpha_global"]) * h[..., None, None]
            du = du + F.softplus(self.w[f"{name}.alpha_local"]) * local
            energies.append(du.abs().mean())
            u = u + dt * du
            before, probe = probe, F.adaptive_avg_pool2d(u, 8)
            quiet.append(float((probe - before).abs().mean() / (before.abs().mean() + 1e-8)))
            if step % 2:
                u = self.over(self.rms, f"{name}.norm", u)
            if stop and step >= 2 and max(quiet[-2:]) < 0.08:
                break
        return u, torch.stack(energies).mean(), len(energies)

    def encode(self, x: Tensor, stop: bool) -> tuple[Tensor, Tensor, list[int]]:
        p = self.conv("encoder.patch_embed.proj", x, stride=4)
        p = self.over(self.rms, "encoder.patch_embed.norm", p)
        u, energies, steps = p, [], []
        for place in range(self.layers):
            u, energy, taken = self.layer(f"encoder.fluid_layers.{place}", u, stop)
            energies.append(energy)
            steps.append(taken)
        z = u + p
        z = z * (1 - 0.3 * (1 - z.abs() / (z.abs().max(1, keepdim=True).values + 1e-6))).clamp(min=0.2)
        seen = z * self.health
        self.health = (self.health - 0.1 * z.abs().mean((0, 2, 3), keepdim=True) + 0.02).clamp(0.1, 1.0)
        return seen, torch.stack(energies).mean(), steps

    def begin(self, z: Tensor, seed: int) -> None:
        torch.manual_seed(seed)
        b, d = z.shape[:2]
        self.s, self.h = torch.zeros_like(z), z.new_zeros(b, d)
        self.delta = z.new_zeros(b, 4, d // 4, d // 4)
        self.slots, self.keys = (torch.randn(b, 32, d, dtype=z.dtype) * 0.01 for _ in range(2))

    def write(self, z: Tensor) -> None:
        name = "belief_field"
        gate = self.over(self.linear, f"{name}.gate_proj.0", z).sigmoid()
        value = self.over(self.linear, f"{name}.value_proj.0", z).tanh()
        self.s = self.w[f"{name}.log_decay"].exp().clamp(0.5, 0.99) * self.s + gate * value

    def titans(self, mean: Tensor) -> Tensor:
        name, d = "belief_field.titans", mean.shape[1]
        read = (self.keys @ self.linear(f"{name}.read_query", self.h)[..., None]).squeeze(-1) / d**0.5
        found = (read.softmax(-1)[:, None] @ self.slots).squeeze(1)
        surprise = self.linear(f"{name}.surprise_gate.0", torch.cat([found, mean], -1)).sigmoid()
        key, value = self.linear(f"{name}.write_key", mean), self.linear(f"{name}.write_value", mean)
        place = ((self.keys @ key[..., None]).squeeze(-1) / d**0.5).softmax(-1)[..., None]
        self.slots = self.slots + place * (self.w[f"{name}.eta"].sigmoid() * surprise * (value - found))[:, None]
        self.keys = self.keys + 0.01 * place * (key[:, None] - self.keys)
        self.h = self.h + found
        return self.h

    def deltanet(self, u: Tensor) -> Tensor:
        name, (b, d, height, width) = "belief_field.deltanet", u.shape
        tokens = u.flatten(2).transpose(1, 2)
        q, k, v = (self.linear(f"{name}.{n}_proj", tokens).view(b, -1, 4, d // 4) for n in "qkv")
        k = F.elu(k) + 1
        k = k / (k.norm(dim=-1, keepdim=True) + 1e-6)
        beta = self.linear(f"{name}.beta_proj", tokens).sigmoid()
        out, old = torch.zeros_like(q), self.delta * 0.95
        after = torch.zeros_like(old)
        for head in range(4):
            s = old[:, head]
            out[:, :, head] = q[:, :, head] @ s.transpose(1, 2)
            wrong = v[:, :, head] - k[:, :, head] @ s.transpose(1, 2)
            wrong = (beta[:, :, head, None] * wrong).mean(1)
            after[:, head] = (s + wrong[:, :, None] * k[:, :, head].mean(1)[:, None, :]).clamp(-10, 10)
        self.delta = after
        read = self.rms(f"{name}.norm", out.flatten(2))
        return self.linear(f"{name}.out_proj", read).transpose(1, 2).reshape(b, d, height, width)

    def evolve(self, stimulus: Tensor) -> None:
        name = "belief_field"
        dt = self.w[f"{name}.log_dt"].exp().clamp(0.01, 0.15)
        action = self.linear(f"{name}.stimulus_proj.2", F.gelu(self.linear(f"{name}.stimulus_proj.0", stimulus)))
        for step in range(3):
            together = (self.s * F.avg_pool2d(self.s, 3, 1, 1)).clamp(min=0).mean(0, keepdim=True)
            self.map = (0.99 * self.map + 0.01 * together).clamp(0, 2)
            du = self.diffusion(name, self.s, (1, 4)) * (1 + 0.5 * self.map) + self.reaction(name, self.s)
            du = du + action[..., None, None]
            if f"{name}.titans.eta" in self.w:
                h = self.titans(self.s.mean((2, 3)))
                du = du + F.softplus(self.w[f"{name}.alpha_pump"]) * h[..., None, None] + self.deltanet(self.s)
            self.s = self.s + dt * du
            if step % 2:
                self.s = self.over(self.rms, f"{name}.norm", self.s)

    def decode(self, z: Tensor) -> Tensor:
        name = "decoder.decoder"

        def group(key: str, x: Tensor) -> Tensor:
            return F.group_norm(x, 8, self.w[f"{name}.{key}.weight"], self.w[f"{name}.{key}.bias"])

        def block(key: int, x: Tensor) -> Tensor:
            inner = group(f"{key}.block.2", F.gelu(self.conv(f"{name}.{key}.block.0", x, padding=1)))
            return x + self.conv(f"{name}.{key}.block.3", inner, padding=1)

        x = block(2, F.gelu(self.conv(f"{name}.0", z)))
        for key in (4, 9):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(key + 3, group(str(key + 2), F.gelu(self.conv(f"{name}.{key}", x, padding=1))))
        return self.conv(f"{name}.13", x, padding=1).sigmoid()


@pytest.mark.parametrize(("extra", "gate"), [(True, False), (False, True)])
@pytest.mark.parametrize("training", [False, True])
def test_released_forward_equals_its_equations(extra: bool, gate: bool, training: bool) -> None:
    """Three frames of one call after the other, in float64 to 1e-10 and in float32 to 1e-5, buffers and all."""
    state = _filled(_released(16, layers=2, extra=extra, gate=gate, hw=8), dt=0.03)
    torch.manual_seed(1)
    frames, stimulus = torch.rand(4, 3, 3, 32, 32), torch.randn(3, 1)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        typed = {key: value.to(dtype) for key, value in state.items()}
        plain = _Plain(typed, layers=2, dt_most=0.15 if gate else 0.35)
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
        assert net.fatigue is not None and net.fatigue.health is not None
        assert (net.fatigue.health - plain.health).abs().max() < tolerance
        assert (net.state_dict()["belief_field.hebbian.hebbian_map"] - plain.map).abs().max() < tolerance


def test_released_encoder_does_stop_early() -> None:
    """Without this the test above would not see the rule."""
    net = from_fluidworld(_filled(_released(16, layers=2, extra=False, hw=8), dt=0.03), legacy=True)
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
        assert torch.equal(first["x_recon"], again["x_recon"]) and torch.equal(first["x_pred"], again["x_pred"])
        alone = plain(frame[1:], stimulus[1:])
        assert (first["x_pred"][1:] - alone["x_pred"]).abs().max() < 1e-5
    for key, value in plain.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_released_rollout_writes_what_it_imagines() -> None:
    state = _filled(_released(16, layers=1, hw=8))
    plain, net = _Plain(state, layers=1, dt_most=0.35), from_fluidworld(state, legacy=True)
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
    plain = _Plain({**state, "fatigue.health": torch.ones(1), "belief_field.hebbian.hebbian_map": torch.ones(1)},
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
    plain = _Plain({**state, "fatigue.health": torch.ones(1), "belief_field.hebbian.hebbian_map": torch.ones(1)},
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
        assert (found["x_pred"] - plain.decode(group("output_proj.1", plain.conv("output_proj.0", h)))).abs().max() < 1e-10


# --- Opening files.


def test_sizes_are_read_off_the_tensors() -> None:
    net = from_fluidworld(_filled(_released(8, channels=1, layers=2, extra=False, gate=True, hw=24)))
    c = net.config
    assert (c.channels, c.layers, c.dim, c.height, c.parts["anisotropic"], c.parts["titans"]) == (1, 2, 8, 96, True, False)
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
    assert field.memory is not None and field.alpha_pump is not None
    s, h, a = torch.randn(2, 16, 6, 5), torch.randn(2, 16), torch.randn(2, 1)
    start = net.start(s)._replace(belief=s, pump=h)
    after = field.evolve(start, a)
    mean = s.mean((2, 3))
    h = h + torch.sigmoid(field.memory.gate(mean)) * torch.tanh(field.memory.value(mean))
    dt = 0.1
    du = _Plain({"x.diffusion.D": field.diffusion.D, "fatigue.health": s, "belief_field.hebbian.hebbian_map": s},
                layers=0, dt_most=1.0).diffusion("x", s, (1, 4))  # fmt: skip
    du = du + field.reaction(s.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    du = du + (field.stimulus_proj(a) + F.softplus(field.alpha_pump) * h)[..., None, None]
    assert after.pump is not None and (after.pump - h).abs().max() < 1e-6
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
    """Dots that move by two pixels a frame: after 150 steps the next frame is predicted better than copied."""
    generator = torch.Generator().manual_seed(0)

    def windows(count: int) -> Tensor:
        at = torch.rand(count, 1, 2, generator=generator) * 16
        speed = torch.tensor([[1.5, 1.0]]).expand(count, 1, 2)
        place = (at + speed * torch.arange(3)[None, :, None]) % 16
        grid = torch.stack(torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij"), -1)
        gap = (grid - place[:, :, None, None]).abs()
        gap = torch.minimum(gap, 16 - gap)
        return torch.exp(-gap.square().sum(-1) / 4)[:, :, None].expand(-1, -1, 3, -1, -1).contiguous()

    torch.manual_seed(0)
    net = FluidWorld(FluidConfig(height=16, width=16, dim=32, layers=1, steps=3))
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    for _ in range(150):
        total, count, _ = window_loss(net, windows(8), teacher=2, free=1)
        optimizer.zero_grad()
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    held = windows(32)
    predicted = net.eval().rollout(held[:, :2], None, 1)[:, 0]
    ours, copied = (predicted - held[:, 2]).square().mean(), (held[:, 1] - held[:, 2]).square().mean()
    assert ours < 0.5 * copied
