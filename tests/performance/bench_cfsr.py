"""CFSR's time beside the released class as written: forward, training step, and bf16 with what it costs in PSNR.

    python tests/performance/bench_cfsr.py [--repeats 5] [--threads 2] [--checkpoint FILE] [--cpu-time] [--json]

The peer is the paper's net written out plainly (peer_cfsr.py): contiguous planes, every 1x1 map a convolution, four
depthwise convolutions in the training graph. Both have the same weights, and before anything is timed both graphs must
agree to 1e-5 of the largest value and all gradients to 1e-3 of each parameter's largest. With a checkpoint (x4, ours or
released) the loss of PSNR is that of a real model; without one, of random weights, which says nothing about a trained
one. ``--cpu-time`` with ``--threads 1`` is for a machine that others use too.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

SCALE, TOLERANCE = 4, 1e-5


def models(checkpoint: str | None, edges: bool) -> tuple[Any, nn.Module]:
    """Ours and the peer, with the same weights."""
    import torch
    from peer_cfsr import PeerCFSR

    from pipelines.official import load_official
    from pipelines.superres.models.cfsr import CFSR
    from pipelines.superres.models.edge import edge_masks

    torch.manual_seed(0)
    if checkpoint and not edges:
        ours: Any = load_official("cfsr", checkpoint, upscale=SCALE).merge()
    else:
        ours = CFSR(SCALE, edges=edges)
        with torch.no_grad():
            for p in ours.parameters():
                p.add_(0.02 * torch.randn_like(p))
    peer = PeerCFSR(SCALE, masks=edge_masks() if edges else None)
    peer.load_state_dict(ours.state_dict())
    return ours, peer


def parity() -> dict[str, float]:
    """Largest differences of both graphs' results, and of gradients relative to the largest of each parameter."""
    import torch

    found: dict[str, float] = {}
    x = torch.rand(1, 3, 37, 53, generator=torch.Generator().manual_seed(1))
    for edges in (False, True):
        ours, peer = models(None, edges)
        with torch.no_grad():
            expected = peer(x)
            gap = max(float((ours(x) - expected).abs().max()), float((ours.merge()(x) - expected).abs().max()))
        found["training graph" if edges else "merged"] = gap / max(1.0, float(expected.abs().max()))
    ours(x).square().mean().backward()
    peer(x).square().mean().backward()
    gradients = {name: p.grad for name, p in ours.named_parameters()}
    pairs = [(p.grad, gradients[name]) for name, p in peer.named_parameters()]
    gaps = [float((a - b).abs().max() / a.abs().max()) for a, b in pairs if a is not None and b is not None]
    if len(gaps) != len(gradients):
        raise RuntimeError(f"{len(gaps)} gradients compared, {len(gradients)} expected")
    return {**found, "gradients": max(gaps)}


def in_turn(steps: dict[str, Callable[[], Any]], repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each, measured in turn after two rounds of warming up."""
    times: dict[str, list[float]] = {label: [] for label in steps}
    for turn in range(repeats + 2):
        for label, step in steps.items():
            start = clock()
            step()
            if turn >= 2:
                times[label].append(clock() - start)
    return {label: statistics.median(values) for label, values in times.items()}


def forward_times(checkpoint: str | None, repeats: int, size: int, clock: Callable[[], float]) -> dict[str, float]:
    """Seconds of the merged graph on one image of 3 x size x size: the peer's, ours, and ours in two kinds of bf16."""
    import torch

    ours, peer = models(checkpoint, edges=False)
    narrow, x = ours.merge().bfloat16(), torch.rand(1, 3, size, size)

    def mixed() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return ours(x)

    halved = x.bfloat16()
    with torch.inference_mode():
        steps = {"peer": lambda: peer(x), "ours": lambda: ours(x), "autocast": mixed, "bf16": lambda: narrow(halved)}
        return in_turn(steps, repeats, clock)


def step_times(repeats: int, size: int, clock: Callable[[], float]) -> dict[str, float]:
    """Seconds of a training step (L1, Adam) of the training graph on one image of 3 x size x size."""
    import torch

    ours, peer = models(None, edges=True)
    pair: dict[str, nn.Module] = {"ours": ours, "peer": peer}
    x, y = torch.rand(1, 3, size, size), torch.rand(1, 3, SCALE * size, SCALE * size)
    optimizers = {label: torch.optim.Adam(model.parameters(), 1e-5) for label, model in pair.items()}

    def step(label: str, half: bool = False) -> None:
        optimizers[label].zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            large = pair[label](x)
        (large.float() - y).abs().mean().backward()
        optimizers[label].step()

    steps = {"peer": lambda: step("peer"), "ours": lambda: step("ours"), "autocast": lambda: step("ours", True)}
    return in_turn(steps, repeats, clock)


def psnr_loss(checkpoint: str | None) -> dict[str, float]:
    """PSNR in dB over all colours of an enlarged photograph, in float32 and in both kinds of bf16."""
    import torch
    from skimage.data import astronaut

    ours, _ = models(checkpoint, edges=False)
    large = torch.from_numpy(astronaut().copy()).permute(2, 0, 1)[None] / 255
    small = torch.nn.functional.interpolate(large, scale_factor=1 / SCALE, mode="bicubic", antialias=True).clamp(0, 1)
    small = (255 * small).round() / 255
    narrow = ours.merge().bfloat16()
    with torch.no_grad():
        found = {"float32": ours(small), "bf16": narrow(small.bfloat16()).float()}
        with torch.autocast("cpu", torch.bfloat16):
            found["autocast"] = ours(small).float()

    def psnr(a: Tensor, b: Tensor) -> float:
        return -10 * math.log10(float((a.clamp(0, 1) - b.clamp(0, 1)).square().mean()))

    figures = {label: psnr(image, large) for label, image in found.items()}
    return {
        **figures,
        **{f"{label} to float32": psnr(found[label], found["float32"]) for label in ("autocast", "bf16")},
    }


def main() -> int:
    """Run all parts and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=256, help="of the image of the forward pass")
    parser.add_argument("--patch", type=int, default=64, help="of the image of the training step")
    parser.add_argument("--checkpoint", help="weights x4 to measure the loss of PSNR with")
    parser.add_argument("--cpu-time", action="store_true", help="count the seconds of this process alone")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    import torch

    torch.set_num_threads(asked.threads)
    clock = time.process_time if asked.cpu_time else time.perf_counter
    gaps = parity()
    if max(gaps["merged"], gaps["training graph"]) > TOLERANCE or gaps["gradients"] > 1e-3:
        sys.stderr.write(f"the graphs differ from the equations written out, {gaps}: nothing is timed\n")
        return 1
    forward = forward_times(asked.checkpoint, asked.repeats, asked.size, clock)
    step = step_times(asked.repeats, asked.patch, clock)
    quality = psnr_loss(asked.checkpoint)
    if asked.json:
        sys.stdout.write(json.dumps({"parity": gaps, "forward": forward, "step": step, "psnr": quality}) + "\n")
        return 0
    weights = asked.checkpoint or "random weights"
    sys.stdout.write(
        f"parity: merged {gaps['merged']:.1e}, training graph {gaps['training graph']:.1e}, "
        f"gradients {gaps['gradients']:.1e}\n"
        f"merged x4 on 3x{asked.size}x{asked.size}: peer {forward['peer']:.2f} s, ours {forward['ours']:.2f} s, "
        f"{forward['peer'] / forward['ours']:.2f} times as fast (goal: 3); bf16 by autocast "
        f"{forward['peer'] / forward['autocast']:.2f}, bf16 model {forward['peer'] / forward['bf16']:.2f}\n"
        f"training step on 3x{asked.patch}x{asked.patch}: peer {1e3 * step['peer']:.0f} ms, ours "
        f"{1e3 * step['ours']:.0f} ms, {step['peer'] / step['ours']:.2f} times as fast (goal: 1.6); bf16 by autocast "
        f"{step['peer'] / step['autocast']:.2f}\n"
        f"PSNR of a photograph x4 ({weights}): float32 {quality['float32']:.3f} dB, autocast "
        f"{quality['autocast']:.3f} dB, bf16 model {quality['bf16']:.3f} dB (against float32's own result "
        f"{quality['autocast to float32']:.1f} and {quality['bf16 to float32']:.1f} dB)\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
