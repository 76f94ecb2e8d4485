"""A training step of SwiFT at (1, 1, 96, 96, 96, 20) against the released model: time and peak memory.

    python tests/performance/bench_swift.py [--repeats 5] [--threads 2] [--size 96] [--frames 20] [--peer plain]

The peer is the released code where SWIFT_REPOSITORY names a checkout of Transconnectome/SwiFT and monai and einops are
installed, else (or with ``--peer plain``) the same arithmetic written out plainly, `peer_swift`. Parity comes first:
with the same weights, features and the gradients of all parameters agree to 1e-5 of their size, else nothing is timed.
Then steps (forward, binary cross-entropy, backward) are timed in turn and the medians divided, in seconds and in
processor seconds of all threads, which a machine that is busy otherwise leaves nearly alone once threads sleep while
they wait (OMP_WAIT_POLICY=PASSIVE). Memory is the peak resident size of a fresh process over two steps, above what it
holds once a step of a small model has been done.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from typing import Any

TOLERANCE = 1e-5
GOALS = {"step": 1.6, "memory": 0.55}
DEPTHS, HEADS, WINDOW, DIM = (2, 2, 6, 2), (3, 6, 12, 24), (4, 4, 4, 4), 36


def _released(size: int, frames: int) -> Any:
    """The released encoder; the marks it sets for a profiler of CUDA do nothing here."""
    import torch

    folder = os.environ["SWIFT_REPOSITORY"]
    for name in ("range_push", "range_pop"):
        setattr(torch.cuda.nvtx, name, lambda *_: None)
    for package in ("project", "project.module"):  # without their __init__, which import Lightning
        module = types.ModuleType(package)
        module.__dict__["__path__"] = [str(pathlib.Path(folder, *package.split(".")))]
        sys.modules.setdefault(package, module)
    made = importlib.import_module("project.module.models.swin4d_transformer_ver7").SwinTransformer4D
    sizes = {"img_size": (size, size, size, frames), "in_chans": 1, "embed_dim": DIM, "patch_size": (6, 6, 6, 1)}
    with contextlib.redirect_stdout(io.StringIO()):
        return made(
            **sizes,
            window_size=WINDOW,
            first_window_size=WINDOW,
            depths=DEPTHS,
            num_heads=HEADS,
            last_layer_full_MSA=True,
        )


def _model(which: str, size: int, frames: int) -> Any:
    import torch

    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    torch.manual_seed(0)
    if which == "released":
        return _released(size, frames)
    if which == "plain":
        from peer_swift import PeerSwift

        return PeerSwift((size,) * 3, frames, DIM, DEPTHS, HEADS, WINDOW)
    from pipelines.fmri.models.swift import Swift, SwiftConfig

    return Swift(
        SwiftConfig(image=(size, size, size), frames=frames, dim=DIM, depths=DEPTHS, heads=HEADS, window=WINDOW)
    )


def _scan(size: int, frames: int):
    import torch

    return torch.randn(1, 1, size, size, size, frames, generator=torch.Generator().manual_seed(0))


def _step(model, x) -> Callable[[], Any]:
    """Forward, loss and backward of the encoder with a logit on its mean features."""
    import torch

    width = model.norm.weight.shape[0]
    head = torch.randn(width, generator=torch.Generator().manual_seed(1)) / width**0.5
    target = torch.ones(len(x))

    def run() -> Any:
        model.zero_grad(set_to_none=True)
        features = model(x)
        logit = features.flatten(2).mean(-1) @ head
        torch.nn.functional.binary_cross_entropy_with_logits(logit, target).backward()
        return features.detach()

    return run


def parity(peer: str, size: int, frames: int) -> dict[str, float]:
    """Largest differences of features and gradients, relative to the largest number of each tensor."""
    import torch

    models = {which: _model(which, size, frames) for which in ("ours", peer)}
    state = models["ours"].state_dict()
    generator = torch.Generator().manual_seed(2)
    for value in state.values():  # far from where they start, so that differences show
        value.add_(0.05 * torch.randn(value.shape, generator=generator))
    models[peer].load_state_dict(state)
    x = _scan(size, frames)
    features = {which: _step(model, x)() for which, model in models.items()}
    found = {"features": _gap(features["ours"], features[peer])}
    theirs = {name: p.grad for name, p in models[peer].named_parameters() if p.grad is not None}
    own = {name: p.grad for name, p in models["ours"].named_parameters() if p.grad is not None}
    if set(own) != set(theirs):
        raise RuntimeError(f"other parameters have gradients: {sorted(set(own) ^ set(theirs))}")
    found["gradients"] = max(_gap(own[name], theirs[name]) for name in own)
    return found


def _gap(found, expected) -> float:
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))


def in_turn(contestants: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds and processor seconds of each, measured in turn after one untimed round."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for turn in range(repeats + 1):
        for name, call in contestants.items():
            began, busy = time.perf_counter(), time.process_time()
            call()
            if turn:
                taken[name].append((time.perf_counter() - began, time.process_time() - busy))
    return {
        name: {"s": statistics.median(wall for wall, _ in took), "cpu_s": statistics.median(cpu for _, cpu in took)}
        for name, took in taken.items()
    }


def _resident(field: str) -> float:
    """Bytes of this process: VmRSS (now) or VmHWM (highest)."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024.0
    raise RuntimeError(f"/proc/self/status has no {field}")


def peak(which: str, size: int, frames: int) -> float:
    """Bytes of resident memory that model, scan and two steps add at their peak, in this process."""
    _step(_model(which, 48, 4), _scan(48, 4))()  # what the first call loads and compiles is no matter of size
    before = _resident("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the highest resident size so far counts from here
    call = _step(_model(which, size, frames), _scan(size, frames))
    for _ in range(2):
        call()
    return _resident("VmHWM") - before


def memory(peer: str, options: argparse.Namespace) -> dict[str, float]:
    """Peak memory above idle of each side, in fresh processes."""
    command = [sys.executable, __file__, "--threads", str(options.threads), "--size", str(options.size)]
    command += ["--frames", str(options.frames), "--peak"]
    found = {which: float(subprocess.check_output([*command, which])) for which in ("ours", peer)}
    return {"ours_MB": found["ours"] / 1e6, "peer_MB": found[peer] / 1e6, "share": found["ours"] / found[peer]}


def main() -> int:
    """Run all parts and print them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=96, help="voxels on each axis, a multiple of 48")
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--peer", choices=("released", "plain"))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peak", choices=("ours", "released", "plain"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    size, frames = options.size, options.frames
    if options.peak:
        print(peak(options.peak, size, frames))
        return 0
    peer = options.peer or ("released" if os.environ.get("SWIFT_REPOSITORY") else "plain")
    found: dict[str, Any] = {"peer": peer, "parity": parity(peer, size, frames)}
    say = (lambda text: None) if options.json else (lambda text: print(text, flush=True))
    say(f"parity with {peer}: features {found['parity']['features']:.1e}, gradients {found['parity']['gradients']:.1e}")
    if max(found["parity"].values()) > TOLERANCE:
        print(f"no parity, nothing timed: {found['parity']}", file=sys.stderr)
        return 1
    x = _scan(size, frames)
    took = in_turn({which: _step(_model(which, size, frames), x) for which in ("ours", peer)}, options.repeats)
    ours, theirs = took["ours"], took[peer]
    found["step"] = {"ours": ours, "peer": theirs, "ratio": theirs["s"] / ours["s"]}
    found["step"]["cpu_ratio"] = theirs["cpu_s"] / ours["cpu_s"]
    text = f"step: ours {ours['s']:.2f} s, peer {theirs['s']:.2f} s, ratio {found['step']['ratio']:.2f}; processor "
    text += f"seconds {ours['cpu_s']:.2f} and {theirs['cpu_s']:.2f}, ratio {found['step']['cpu_ratio']:.2f}"
    say(f"{text} (goal {GOALS['step']})")
    found["memory"] = memory(peer, options)
    text = "peak above idle: ours {ours_MB:.0f} MB, peer {peer_MB:.0f} MB, share {share:.1%}".format(**found["memory"])
    say(f"{text} (goal at most {GOALS['memory']:.0%})")
    if options.json:
        print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
