"""FluidWorld's released tensors by name and shape, and its arithmetic done plainly, one operator at a time.

The oracle of tests/papers/test_05_fluidworld.py, and the peer of bench_fluidworld where the released code is absent. It
was written from the equations, channels first, and shares nothing with the models but the names of tensors.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

STENCIL = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])


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


def released(d: int, *, channels: int = 3, layers: int = 3, extra: bool = True, gate: bool = False, hw: int = 16):
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


def transformer(d: int) -> dict[str, tuple[int, ...]]:
    shapes = {**_baseline(d), "pos_embed": (1, 256, d)} | _linear("state_merge", d, 2 * d)
    for name in ("encoder_blocks.0", "encoder_blocks.1", "temporal_blocks.0"):
        shapes |= {f"{name}.attn.in_proj_weight": (3 * d, d), f"{name}.attn.in_proj_bias": (3 * d,)}
        shapes |= _linear(f"{name}.attn.out_proj", d, d)
        shapes |= _linear(f"{name}.ffn.0", 3 * d, d) | _linear(f"{name}.ffn.2", d, 3 * d)
        shapes |= {f"{name}.norm{i}.{part}": (d,) for i in (1, 2) for part in ("weight", "bias")}
    return shapes | {f"{name}_norm.{part}": (d,) for name in ("encoder", "temporal") for part in ("weight", "bias")}


def convlstm(d: int, hidden: int = 64, middle: int = 88) -> dict[str, tuple[int, ...]]:
    shapes = {**_baseline(d), "encoder.0.weight": (middle, d, 3, 3), "encoder.0.bias": (middle,)}
    shapes |= {"encoder.2.weight": (middle,), "encoder.2.bias": (middle,)}
    shapes |= {"encoder.3.weight": (d, middle, 1, 1), "encoder.3.bias": (d,)}
    shapes |= {"convlstm.gates.weight": (4 * hidden, d + hidden, 3, 3), "convlstm.gates.bias": (4 * hidden,)}
    shapes |= {"output_proj.0.weight": (d, hidden, 1, 1), "output_proj.0.bias": (d,)}
    return shapes | {"output_proj.1.weight": (d,), "output_proj.1.bias": (d,)}


def filled(shapes: dict[str, tuple[int, ...]], seed: int = 0, dt: float = 0.1) -> dict[str, Tensor]:
    """Random tensors of a sensible size: norms about 1, weights by their inputs, time steps and decay as they start."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for key, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        width = max(1, int(torch.tensor(shape[1:]).prod())) if len(shape) > 1 else 25
        state[key] = noise * 0.6 / width**0.5
        if "norm" in key and key.endswith("weight"):
            state[key] = 1.0 + 0.02 * noise  # farther from 1 the released encoder never comes to rest
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


class Plain:
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
            lap = (
                p[..., 2 * d :, d:-d] + p[..., : -2 * d, d:-d] + p[..., d:-d, 2 * d :] + p[..., d:-d, : -2 * d] - 4 * u
            )
            total = total + F.softplus(self.w[f"{name}.diffusion.D"][place])[:, None, None] * lap
        return total

    def reaction(self, name: str, u: Tensor) -> Tensor:
        return self.over(
            self.linear, f"{name}.reaction.net.2", F.gelu(self.over(self.linear, f"{name}.reaction.net.0", u))
        )

    def layer(self, name: str, u: Tensor, stop: bool) -> tuple[Tensor, Tensor, int]:
        dt = self.w[f"{name}.log_dt"].exp().clamp(0.005, self.dt_most)
        h, quiet, energies = u.new_zeros(u.shape[:2]), [], []
        probe = F.adaptive_avg_pool2d(u, 8)
        for step in range(6):
            du = self.diffusion(name, u, (1, 4, 16))
            if f"{name}.content_gate.gate_conv.weight" in self.w:
                du = self.conv(f"{name}.content_gate.gate_conv", u).sigmoid() * du
            mean = u.mean((2, 3))
            h = (
                h
                + self.linear(f"{name}.memory.gate", mean).sigmoid() * self.linear(f"{name}.memory.value", mean).tanh()
            )
            local = self.conv(f"{name}.local_proj", F.adaptive_avg_pool2d(u, 4))
            local = F.interpolate(local, size=u.shape[2:], mode="bilinear", align_corners=False)
            du = du + self.reaction(name, u) + F.softplus(self.w[f"{name}.alpha_global"]) * h[..., None, None]
            du = du + F.softplus(self.w[f"{name}.alpha_local"]) * local
            energies.append(du.abs().mean())
            u = u + dt * du
            before, probe = probe, F.adaptive_avg_pool2d(u, 8)
            quiet.append(((probe - before).abs().mean() / (before.abs().mean() + 1e-8)).item())
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
        self.health = (self.health - 0.1 * z.detach().abs().mean((0, 2, 3), keepdim=True) + 0.02).clamp(0.1, 1.0)
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
        slots = self.slots + place * (self.w[f"{name}.eta"].sigmoid() * surprise * (value - found))[:, None]
        self.slots, self.keys = slots.detach(), (self.keys + 0.01 * place * (key[:, None] - self.keys)).detach()
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
        self.delta = after.detach()
        read = self.rms(f"{name}.norm", out.flatten(2))
        return self.linear(f"{name}.out_proj", read).transpose(1, 2).reshape(b, d, height, width)

    def evolve(self, stimulus: Tensor) -> None:
        name = "belief_field"
        dt = self.w[f"{name}.log_dt"].exp().clamp(0.01, 0.15)
        action = self.linear(f"{name}.stimulus_proj.2", F.gelu(self.linear(f"{name}.stimulus_proj.0", stimulus)))
        for step in range(3):
            s = self.s.detach()
            together = (s * F.avg_pool2d(s, 3, 1, 1)).clamp(min=0).mean(0, keepdim=True)
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
