"""The reaction-diffusion encoder's time beside its equations written out plainly, and how it grows with the pixels.

    python tests/performance/bench_reaction_diffusion.py [--repeats 5] [--batches 8 1] [--sizes 64 256]
                                                         [--largest 512] [--released FOLDER] [--json]

Three layers of six steps at 128 channels on images of 4 x 4 pixels a token: forward and training step; the diffusion
alone; and forward time to 512 x 512 pixels with softmax attention beside. The peer is the layer in planes with a
depthwise convolution a scale (below), or with ``--released`` the published layer from a checkout of
infinition/FluidWorld, whose licence keeps it out of this repository. Both have the same weights; before anything is
timed results must agree to 1e-5 of the largest value and every gradient to 1e-3. Times are CPU seconds of this process
on one thread, in turn.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_attention import build
from core_attention.kernels.stencil.reaction import compiled_serves
from core_attention.mechanisms.reaction_diffusion import ReactionDiffusion

DIM, LAYERS, PATCH, GOAL, STENCIL_GOAL = 128, 3, 4, 1.25, 6.0


class PlainLayer(nn.Module):
    """The layer of arXiv 2603.21315 written out: planes (B, C, H, W), one operator a term, the parameters of ours."""

    def __init__(self, ours: ReactionDiffusion) -> None:
        super().__init__()
        self.ours = ours
        cross = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
        self.register_buffer("cross", cross.expand(DIM, 1, 3, 3), persistent=False)

    def diffusion(self, u: Tensor) -> Tensor:
        """One depthwise convolution a scale."""
        total = torch.zeros_like(u)
        for D, d in zip(self.ours.diffusion.D, self.ours.diffusion.dilations, strict=True):
            padded = F.pad(u, (d, d, d, d), mode="replicate")
            lap = F.conv2d(padded, self.cross, dilation=d, groups=DIM)  # type: ignore[arg-type]
            total = total + F.softplus(D).view(1, -1, 1, 1) * lap
        return total

    def forward(self, u: Tensor) -> Tensor:
        """All steps."""
        m, (H, W), h = self.ours, u.shape[2:], u.new_zeros(u.shape[:2])
        if m.content_gate is None or m.memory is None or m.local_proj is None:
            raise ValueError("the plain layer has every term")
        for step in range(m.steps):
            diffusion = m.content_gate.gate_conv(u).sigmoid() * self.diffusion(u)
            reaction = m.reaction.net(u.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            h = m.memory(h, u.mean((2, 3)))
            areas = m.local_proj(F.adaptive_avg_pool2d(u, 4))
            local = F.interpolate(areas, size=(H, W), mode="bilinear", align_corners=False)
            memory = F.softplus(m.alpha_global) * h[:, :, None, None]  # type: ignore[arg-type]
            change = diffusion + reaction + memory + F.softplus(m.alpha_local) * local  # type: ignore[arg-type]
            u = u + m.log_dt.exp().clamp(*m.dt_limits) * change
            if step % 2:
                u = m.norm(u.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()
        return u


class Encoder(nn.Module):
    """Layers one after the other, whatever they return beside their result."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, u: Tensor) -> Tensor:
        """Tokens or planes to the same."""
        for layer in self.layers:
            found = layer(u)
            u = found if isinstance(found, Tensor) else found[0]
        return u


def models(released: str | None) -> tuple[Encoder, Encoder]:
    """Ours and the peer, with the same weights."""
    torch.manual_seed(0)
    ours = [ReactionDiffusion(DIM, stable=False) for _ in range(LAYERS)]
    with torch.no_grad():
        for name, parameter in nn.ModuleList(ours).named_parameters():
            if not name.endswith("log_dt"):
                parameter.add_(0.05 * torch.randn_like(parameter))
    if released is None:
        return Encoder(list(ours)), Encoder([PlainLayer(layer) for layer in ours])
    sys.path.insert(0, released)
    from fluidworld.core.fluid_world_layer import FluidWorldLayer2D  # type: ignore[import-not-found]

    peers: list[nn.Module] = []
    for layer in ours:
        peer = FluidWorldLayer2D(DIM, action_dim=0, max_steps=6, anisotropic_diffusion=True, epsilon=0.0)
        missing = peer.load_state_dict(layer.state_dict(), strict=False)
        if missing.unexpected_keys or set(missing.missing_keys) != {"diffusion.kernel_2d"}:
            raise RuntimeError(f"the released layer has other parameters: {missing}")
        peers.append(peer)
    return Encoder(list(ours)), Encoder(peers)


def parity(released: str | None) -> dict[str, float]:
    """Largest relative gaps of results and gradients, of one odd and one even grid."""
    ours, peer = models(released)
    found = {"results": 0.0, "gradients": 0.0}
    for H, W in ((16, 16), (9, 21)):
        x = torch.randn(2, H, W, DIM).requires_grad_()
        planes = x.detach().permute(0, 3, 1, 2).contiguous().requires_grad_()
        up = torch.randn(2, H, W, DIM)
        ours.zero_grad()
        peer.zero_grad()
        y, z = ours(x), peer(planes).permute(0, 2, 3, 1)
        found["results"] = max(found["results"], _gap(y, z))
        mine = torch.autograd.grad((y * up).sum(), (x, *ours.parameters()))
        names = [name for name, _ in ours.named_parameters()]
        theirs = {name.replace(".ours.", "."): p for name, p in peer.named_parameters()}
        other = torch.autograd.grad((z * up).sum(), (planes, *[theirs[name] for name in names]))
        pairs = [(mine[0], other[0].permute(0, 2, 3, 1)), *zip(mine[1:], other[1:], strict=True)]
        found["gradients"] = max(found["gradients"], *(_gap(a, b) for a, b in pairs))
    return found


def _gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max() / b.detach().abs().max())


def in_turn(steps: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median CPU seconds of each, measured in turn after one round of warming up."""
    times: dict[str, list[float]] = {label: [] for label in steps}
    for turn in range(repeats + 1):
        for label, step in steps.items():
            start = time.process_time()
            step()
            if turn:
                times[label].append(time.process_time() - start)
    return {label: statistics.median(values) for label, values in times.items()}


def encoder_times(batch: int, size: int, repeats: int, released: str | None) -> dict[str, dict[str, float]]:
    """Forward and training step of the encoder."""
    ours, peer = models(released)
    tokens = torch.randn(batch, size // PATCH, size // PATCH, DIM)
    planes = tokens.permute(0, 3, 1, 2).contiguous()

    def forward(model: nn.Module, x: Tensor) -> None:
        with torch.inference_mode():
            model(x)

    def step(model: nn.Module, x: Tensor) -> None:
        model.zero_grad()
        model(x).square().mean().backward()

    # The early stop of an eval mode is off (tolerance 0); training mode takes all steps in both.
    return {
        label: in_turn({"peer": lambda f=f: f(peer, planes), "ours": lambda f=f: f(ours, tokens)}, repeats)
        for label, f in (("forward", forward), ("training step", step))
    }


def stencil_times(batch: int, size: int, repeats: int, released: str | None) -> dict[str, float]:
    """The diffusion term alone, three scales."""
    ours, peer = models(released)
    layer, other = ours.layers[0], peer.layers[0]
    tokens = torch.randn(batch, size // PATCH, size // PATCH, DIM)
    planes = tokens.permute(0, 3, 1, 2).contiguous()
    with torch.inference_mode():
        return in_turn({"peer": lambda: other.diffusion(planes), "ours": lambda: layer.diffusion(tokens)}, repeats)  # type: ignore[operator]


def growth(sizes: tuple[int, ...], repeats: int) -> dict[str, Any]:
    """Forward seconds of a layer by the image's side, with attention's beside, and the exponent in pixels."""
    layer, attention = ReactionDiffusion(DIM).eval(), build("softmax", DIM, 8).eval()
    found: dict[str, Any] = {"ours": {}, "attention": {}}
    with torch.inference_mode():
        for size in sizes:
            tokens = torch.randn(1, size // PATCH, size // PATCH, DIM)
            flat = tokens.flatten(1, 2)
            pair = in_turn({"ours": lambda t=tokens: layer(t), "attention": lambda t=flat: attention(t)}, repeats)
            for label, seconds in pair.items():
                found[label][size] = seconds
    for label in ("ours", "attention"):
        first, last = sizes[1], sizes[-1]
        ratio = found[label][last] / found[label][first]
        found[f"{label} exponent"] = math.log(ratio) / math.log((last / first) ** 2)
    return found


def main() -> int:
    """Run all parts and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 1])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--largest", type=int, default=512, help="side of the largest image of the growth")
    parser.add_argument("--released", help="checkout of the published code, to be the peer")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if not compiled_serves(torch.zeros(1)):
        sys.stderr.write("PIPELINES_BACKEND asks for another back end than the one to be measured\n")
        return 1
    gaps = parity(asked.released)
    if gaps["results"] > 1e-5 or gaps["gradients"] > 1e-3:
        sys.stderr.write(f"the layers differ, {gaps}: nothing is timed\n")
        return 1
    told: list[str] = [f"parity: results {gaps['results']:.1e}, gradients {gaps['gradients']:.1e}"]
    report: dict[str, Any] = {"parity": gaps}
    for size in asked.sizes:
        for batch in asked.batches:
            where = f"batch {batch}, {size} x {size}"
            times: dict[str, Any] = encoder_times(batch, size, asked.repeats, asked.released)
            times["diffusion alone"] = stencil_times(batch, size, 3 * asked.repeats, asked.released)
            for label, pair in times.items():
                goal = STENCIL_GOAL if label == "diffusion alone" else GOAL
                told.append(
                    f"{label}, {where}: peer {1e3 * pair['peer']:.1f} ms, ours {1e3 * pair['ours']:.1f} ms, "
                    f"{pair['peer'] / pair['ours']:.2f} times as fast (goal: {goal})"
                )
            report[where] = times
    report["growth"] = grown = growth(tuple(s for s in (64, 128, 256, 512) if s <= asked.largest), asked.repeats)
    for label in ("ours", "attention"):
        by_size = ", ".join(f"{size}: {1e3 * seconds:.1f}" for size, seconds in grown[label].items())
        told.append(f"{label}, ms by side in pixels: {by_size}; exponent in pixels {grown[f'{label} exponent']:.2f}")
    sys.stdout.write((json.dumps(report) if asked.json else "\n".join(told)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
