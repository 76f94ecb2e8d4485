"""HSDT-S on a cube of 31 x 64 x 64 against the released arithmetic done its way: time and peak memory.

    python tests/performance/bench_hsdt.py [--repeats 7] [--threads 2] [--variant hsdt_8] [--cpu-time] [--json]

Parity comes first: with the same weights and the same branches, forward passes in evaluation and in training, and the
gradients of all parameters, agree to 1e-5 of their size, else nothing is timed. Then forward passes and training steps
(forward, MSE, backward, Adam) are timed in turn and the medians divided. Memory is the peak resident size of a fresh
process over three calls, above what it holds after one call on a small cube. Last, bfloat16: the time of a forward
pass under autocast and of a step, beside float32 of ours, and the PSNR between the two results. On a machine that is
busy otherwise, one thread and ``--cpu-time`` (processor seconds instead of seconds) are still to be trusted.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

BANDS, TOLERANCE = 31, 1e-5
GOALS = {"forward": 2.0, "step": 2.0, "memory": 0.5}


def _models(which: str = "both", channels: int = 8) -> tuple[Any, ...]:
    import torch

    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    from peer_hsdt import PeerHSDT

    from pipelines.denoise.models.hsdt import HSDT, Variant

    torch.manual_seed(0)
    if which != "both":
        return (HSDT(Variant(channels=channels)) if which == "ours" else PeerHSDT(channels, BANDS),)
    ours, peer = HSDT(Variant(channels=channels)), PeerHSDT(channels, BANDS)
    for name, buffer in ours.named_buffers():  # far from where they start, so that differences show
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.3)
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    peer.load_state_dict(ours.state_dict())
    return ours, peer


def _cube(size: int):
    import torch

    return torch.rand(1, 1, BANDS, size, size, generator=torch.Generator().manual_seed(0))


def parity(channels: int) -> dict[str, float]:
    """Largest differences, relative to the largest number: evaluation, training with equal branches, gradients."""
    import torch

    ours, peer = _models(channels=channels)
    x = _cube(32)
    with torch.no_grad():
        expected = peer.eval()(x)
        found = {"eval": _gap(ours.eval()(x), expected)}
    for dtype in (torch.float32, torch.float64):  # gradients of maps before a normalisation cancel: in float64
        ours, peer, x = ours.train().to(dtype), peer.train().to(dtype), x.to(dtype)
        random.seed(5)
        expected = peer(x)
        random.seed(5)
        y = ours(x, learned=[random.random() <= 0.5 for _ in range(11)])
        found.setdefault("train", _gap(y, expected))
    y.square().mean().backward()
    expected.square().mean().backward()
    pairs = zip(ours.parameters(), peer.parameters(), strict=True)
    found["gradients"] = max(_gap(a.grad, b.grad) for a, b in pairs if a.grad is not None or b.grad is not None)
    return found


def _gap(found, expected) -> float:
    scale = max(float(expected.detach().abs().max()), 1e-3)
    return float((found - expected).detach().abs().max()) / scale


def _forward(model, size: int, autocast: bool = False) -> Callable[[], Any]:
    import torch

    x = _cube(size)

    def run() -> Any:
        model.eval()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return model(x)

    return run


def _step(model, size: int, autocast: bool = False) -> Callable[[], Any]:
    import torch

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    x = _cube(size)
    target = x * 0.9

    def run() -> None:
        model.train()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = model(x)
        torch.nn.functional.mse_loss(y.float(), target).backward()
        optimizer.step()

    return run


def in_turn(contestants: dict[str, Callable[[], Any]], options: argparse.Namespace) -> dict[str, float]:
    """Median seconds of each, measured in turn after one untimed round."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    clock = time.process_time if options.cpu_time else time.perf_counter
    for turn in range(options.repeats + 1):
        for name, call in contestants.items():
            random.seed(turn)
            began = clock()
            call()
            if turn:
                taken[name].append(clock() - began)
    return {name: statistics.median(values) for name, values in taken.items()}


def _resident(field: str) -> float:
    """Bytes of this process: VmRSS (now) or VmHWM (highest)."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024.0
    raise RuntimeError(f"/proc/self/status has no {field}")


def peak(which: str, what: str, size: int, channels: int) -> float:
    """Bytes of resident memory that three calls add at their peak, in this process."""
    maker = _step if what == "step" else _forward
    model = _models(which, channels)[0]
    maker(model, 16)()  # what the first call loads and compiles is no matter of size
    before = _resident("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the highest resident size so far counts from here
    call = maker(model, size)
    for _ in range(3):
        call()
    return _resident("VmHWM") - before


def memory(what: str, options: argparse.Namespace, channels: int) -> dict[str, float]:
    """Peak memory above idle of each side, in fresh processes."""
    command = [sys.executable, __file__, "--threads", str(options.threads), "--size", str(options.size)]
    command += ["--variant", options.variant, "--what", what, "--peak"]
    found = {which: float(subprocess.check_output([*command, which])) for which in ("ours", "peer")}
    return {"ours_MB": found["ours"] / 1e6, "peer_MB": found["peer"] / 1e6, "share": found["ours"] / found["peer"]}


def bfloat16(options: argparse.Namespace, channels: int) -> dict[str, float]:
    """Ours in bfloat16 beside ours in float32: ratios of time, and PSNR in dB of one result against the other."""
    model = _models("ours", channels)[0]
    calls = {"float32": _forward(model, options.size), "bfloat16": _forward(model, options.size, True)}
    forward = in_turn(calls, options)
    single, half = (calls[name]() for name in calls)
    error = float((single - half.float()).square().mean())
    step = in_turn({"float32": _step(model, options.size), "bfloat16": _step(model, options.size, True)}, options)
    return {
        "forward_ratio": forward["float32"] / forward["bfloat16"],
        "step_ratio": step["float32"] / step["bfloat16"],
        "psnr_of_difference_dB": -10 * math.log10(error),
    }


def main() -> int:
    """Run all parts and print them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--variant", choices=("hsdt_8", "hsdt"), default="hsdt_8")
    parser.add_argument("--cpu-time", action="store_true", help="processor seconds instead of seconds")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peak", choices=("ours", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--what", choices=("forward", "step"), default="step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    channels = {"hsdt_8": 8, "hsdt": 16}[options.variant]
    import torch

    torch.set_num_threads(options.threads)
    if options.peak:
        print(peak(options.peak, options.what, options.size, channels))
        return 0
    found: dict[str, dict[str, float]] = {"parity": parity(channels)}
    if max(found["parity"].values()) > TOLERANCE:
        print(f"no parity, nothing timed: {found['parity']}", file=sys.stderr)
        return 1
    say = (lambda text: None) if options.json else (lambda text: print(text, flush=True))
    say("parity: eval {eval:.1e}, train {train:.1e}, gradients {gradients:.1e}".format(**found["parity"]))
    for what, maker in (("forward", _forward), ("step", _step)):
        ours, peer = _models(channels=channels)
        took = in_turn({"ours": maker(ours, options.size), "peer": maker(peer, options.size)}, options)
        found[what] = {**took, "ratio": took["peer"] / took["ours"]}
        text = f"{what}: ours {took['ours']:.3f} s, peer {took['peer']:.3f} s, ratio {found[what]['ratio']:.2f}"
        say(f"{text} (goal {GOALS[what]})")
        space = found[f"{what}_memory"] = memory(what, options, channels)
        text = "peak above idle: ours {ours_MB:.0f} MB, peer {peer_MB:.0f} MB, share {share:.1%}".format(**space)
        say(f"{text} (goal at most {GOALS['memory']:.0%})")
    found["bfloat16"] = bfloat16(options, channels)
    text = "bfloat16 against float32 of ours: forward {forward_ratio:.2f}x, step {step_ratio:.2f}x as fast, "
    say((text + "results {psnr_of_difference_dB:.1f} dB apart").format(**found["bfloat16"]))
    if options.json:
        print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
