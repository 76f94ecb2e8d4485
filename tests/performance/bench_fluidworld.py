"""FluidWorld against the released code, against the Transformer and the ConvLSTM beside it, and over frame sizes.

    python tests/performance/bench_fluidworld.py [--repeats 5] [--threads 1] [--sizes 64,256] [--peer plain] [--json]

The peer is the released code where FLUIDWORLD_REPOSITORY names a checkout of infinition/FluidWorld, else (or with
``--peer plain``) the same arithmetic written out plainly, `peer_fluidworld`. Parity comes first, in training mode: with
the same tensors both frames and the gradients of all parameters agree, else nothing is timed. Then a forward pass
without gradients and a training step (forward, loss, backward) of one pair of frames are timed in turn, in processor
seconds of all threads, and the medians divided. The third part gives the cost of the three models of one batch of pairs
relative to the Transformer's; the fourth how the forward pass grows with the pixels.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

#: At 256 x 256 the gradients of either side are 1.7e-4 from those in float64, measured: sums over many places.
TOLERANCE = {"frames": 1e-5, "gradients": 5e-4}
GOAL = 1.25
BATCH = {64: 8, 128: 2, 256: 1, 512: 1}


def _tensors(size: int) -> dict[str, Any]:
    """The tensors of a released model, of a size that a trained one has."""
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    from peer_fluidworld import filled, released

    return filled(released(128, hw=size // 4))


def _ours(state: dict[str, Any]) -> Any:
    from pipelines.world.models.world_weights import from_fluidworld

    return from_fluidworld(state, legacy=True).train()


def _frames(size: int) -> Any:
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, BATCH.get(size, 1), 3, size, size, generator=generator)


def _peer(which: str, state: dict[str, Any], size: int) -> tuple[Callable[..., Any], dict[str, Any]]:
    """A function of two frames that gives both predictions and the energy, and its parameters by name."""
    import torch

    if which == "released":
        sys.path.insert(0, os.environ["FLUIDWORLD_REPOSITORY"])
        from fluidworld.core.world_model_v2 import FluidWorldModelV2  # type: ignore[import-not-found]

        model = FluidWorldModelV2(in_channels=3, belief_spatial_hw=size // 4).train()
        model.load_state_dict(state)

        def call(x: Any, y: Any) -> tuple[Any, Any, Any]:
            found = model(x, torch.zeros(len(x), 1), y)
            return found["x_recon_live"], found["x_pred_live"], found["pde_alive_loss"]

        return call, dict(model.named_parameters())
    from peer_fluidworld import Plain

    buffers = ("kernel_2d", "health", "hebbian_map")
    learned = {k: v.clone().requires_grad_() for k, v in state.items() if not k.endswith(buffers)}
    plain = Plain({**state, **learned}, layers=3, dt_most=0.35)

    def call_plain(x: Any, y: Any) -> tuple[Any, Any, Any]:
        z, energy, _ = plain.encode(x, stop=False)
        plain.begin(z, seed=0)
        plain.write(z)
        plain.evolve(torch.zeros(len(x), 1))
        return plain.decode(z), plain.decode(plain.s), (energy - 1.2) ** 2

    return call_plain, learned


def _loss(found: tuple[Any, Any, Any], frames: Any) -> Any:
    rebuilt, predicted, alive = found
    return (rebuilt - frames[0]).square().mean() + (predicted - frames[1]).square().mean() + 0.5 * alive


def _call(net: Any) -> Callable[..., Any]:
    """Our model with the peer's interface."""
    import torch

    def call(x: Any, y: Any) -> tuple[Any, Any, Any]:
        found = net(x, torch.zeros(len(x), 1))
        return found["x_recon"], found["x_pred"], (found["energy"].mean() - 1.2) ** 2

    return call


def parity(which: str, size: int) -> dict[str, float]:
    """Largest difference of the frames, and of the gradients relative to each tensor's largest."""
    import torch

    state, frames = _tensors(size), _frames(size)
    net = _ours(state)
    peer, theirs = _peer(which, state, size)
    found = []
    for call in (_call(net), peer):
        torch.manual_seed(0)
        result = call(*frames)
        _loss(result, frames).backward()
        found.append(result)
    gaps = [float((a - b).detach().abs().max()) for a, b in zip(found[0][:2], found[1][:2], strict=True)]
    grads = 0.0
    for name, parameter in net.named_parameters():
        ours, other = parameter.grad, theirs[name].grad
        if ours is None or other is None:
            if any(grad is not None and bool(grad.any()) for grad in (ours, other)):
                raise RuntimeError(f"only one side has a gradient of {name}")
            continue
        grads = max(grads, float((ours - other).abs().max() / other.abs().max().clamp(min=1e-6)))
    return {"frames": max(gaps), "gradients": grads}


def in_turn(contestants: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median processor seconds of each, measured in turn after one untimed round."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(repeats + 1):
        for name, call in contestants.items():
            busy = time.process_time()
            call()
            if turn:
                taken[name].append(time.process_time() - busy)
    return {name: statistics.median(took) for name, took in taken.items()}


def against_peer(which: str, size: int, repeats: int) -> dict[str, Any]:
    """Forward pass and training step of both sides at one size."""
    import torch

    state, frames = _tensors(size), _frames(size)
    sides = {"ours": _call(_ours(state)), which: _peer(which, state, size)[0]}

    def forward(call: Callable[..., Any]) -> Callable[[], None]:
        def run() -> None:
            with torch.no_grad():
                call(*frames)

        return run

    found: dict[str, Any] = {}
    steps = {name: (lambda call=call: _loss(call(*frames), frames).backward()) for name, call in sides.items()}
    for kind, calls in (("forward", {name: forward(call) for name, call in sides.items()}), ("step", steps)):
        took = in_turn(calls, repeats)
        found[kind] = {**took, "ratio": took[which] / took["ours"]}
    return found


def three_models(repeats: int) -> dict[str, Any]:
    """Processor seconds of windows of two frames, batch 8 at 64 x 64, and relative to the Transformer."""
    import torch

    from pipelines.world.losses import window_loss
    from pipelines.world.models import NETS, build_world

    frames = _frames(64).transpose(0, 1).contiguous()
    nets = {name: build_world(name).train() for name in NETS}

    def forward(net: Any) -> Callable[[], None]:
        def run() -> None:
            with torch.no_grad():
                net(frames[:, 0])

        return run

    found: dict[str, Any] = {}
    steps = {k: (lambda net=net: window_loss(net, frames, teacher=1, free=1)[0].backward()) for k, net in nets.items()}
    for kind, calls in (("forward", {name: forward(net) for name, net in nets.items()}), ("step", steps)):
        took = in_turn(calls, repeats)
        found[kind] = {name: {"s": s, "relative": s / took["transformer"]} for name, s in took.items()}
    return found


def growth(repeats: int) -> dict[str, Any]:
    """Forward pass of one frame by size, and the exponent of pixels from the smallest to the largest."""
    import torch

    from pipelines.world.models import build_world

    found: dict[str, Any] = {}
    for name, sizes in (("fluidworld", (64, 128, 256, 512)), ("transformer", (64, 128, 256))):
        took = {}
        for size in sizes:
            net = build_world(name, height=size, width=size).eval()
            frame = torch.rand(1, 3, size, size)
            with torch.no_grad():
                took[str(size)] = in_turn({"one": lambda net=net, frame=frame: net(frame)}, repeats)["one"]
        first, last = sizes[0], sizes[-1]
        exponent = math.log(took[str(last)] / took[str(first)]) / math.log((last / first) ** 2)
        found[name] = {"s": took, "exponent": exponent}
    return found


def main() -> int:
    """Run all parts and print them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", default="64,256", help="frames' sides, multiples of 4")
    parser.add_argument("--peer", choices=("released", "plain"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    which = options.peer or ("released" if os.environ.get("FLUIDWORLD_REPOSITORY") else "plain")
    say = (lambda text: None) if options.json else (lambda text: print(text, flush=True))
    found: dict[str, Any] = {"peer": which}
    failed = False
    for size in (int(part) for part in options.sizes.split(",")):
        gaps = parity(which, size)
        say(f"{size}: parity with {which}: " + ", ".join(f"{name} {gap:.1e}" for name, gap in gaps.items()))
        if any(gap > TOLERANCE[name] for name, gap in gaps.items()):
            print(f"{size}: no parity, not timed: {gaps}", file=sys.stderr)
            failed = True
            continue
        took = against_peer(which, size, options.repeats)
        found[str(size)] = {"parity": gaps, **took}
        for kind, row in took.items():
            failed = failed or row["ratio"] < GOAL
            say(f"{size}: {kind}: ours {row['ours']:.3f} s, {which} {row[which]:.3f} s, ratio {row['ratio']:.2f}")
    found["models"] = three_models(options.repeats)
    for kind, rows in found["models"].items():
        say(f"{kind}: " + ", ".join(f"{name} {row['s']:.3f} s ({row['relative']:.2f})" for name, row in rows.items()))
    found["growth"] = growth(options.repeats)
    for name, row in found["growth"].items():
        times = ", ".join(f"{size} {s:.3f} s" for size, s in row["s"].items())
        say(f"{name} by size: {times}; exponent of pixels {row['exponent']:.2f}")
    if options.json:
        print(json.dumps(found))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
