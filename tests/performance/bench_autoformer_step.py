"""A training step of Autoformer (ETTh1's shape) against the released arithmetic done its way: time and peak memory.

    python tests/performance/bench_autoformer_step.py [--repeats 5] [--threads 2] [--json]

Parity comes first: with the same weights and no dropout the forecasts agree to 1e-5 in training and in evaluation,
else nothing is timed. Then steps (forward, MSE, backward, Adam) of both are timed in turn and the medians divided.
Memory is the peak resident size of a fresh process above the same process before the model is built.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

SHAPE = {"seq_len": 96, "label_len": 48, "pred_len": 96}
BATCH, CHANNELS, MARKS = 32, 7, 4
TOLERANCE = 1e-5


def _models(dropout: float, which: str = "both"):
    import torch

    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    from peer_autoformer import PeerAutoformer

    from pipelines.forecast.models.autoformer import Autoformer

    torch.manual_seed(2021)
    if which != "both":
        return ((Autoformer if which == "ours" else PeerAutoformer)(**SHAPE, dropout=dropout),)
    ours = Autoformer(**SHAPE, dropout=dropout)
    peer = PeerAutoformer(**SHAPE, dropout=dropout)
    peer.load_state_dict(ours.official_state_dict())
    return ours, peer


def _batch():
    import torch

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, SHAPE["seq_len"], CHANNELS, generator=generator)
    rows = SHAPE["label_len"] + SHAPE["pred_len"]
    marks = torch.rand(BATCH, SHAPE["seq_len"] + rows, MARKS, generator=generator) - 0.5
    target = torch.randn(BATCH, SHAPE["pred_len"], CHANNELS, generator=generator)
    return (x, marks[:, : SHAPE["seq_len"]], torch.zeros(BATCH, rows, CHANNELS), marks[:, SHAPE["seq_len"] :]), target


def parity() -> dict[str, float]:
    """Largest difference of the forecasts, in training mode and in evaluation."""
    import torch

    ours, peer = _models(dropout=0.0)
    inputs, _ = _batch()
    with torch.no_grad():
        return {
            mode: float((ours.train(on)(*inputs) - peer.train(on)(*inputs)).abs().max())
            for mode, on in (("train", True), ("eval", False))
        }


def _stepper(model):
    import torch

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    inputs, target = _batch()
    model.train()

    def step() -> float:
        began = time.perf_counter()
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(*inputs), target).backward()
        optimizer.step()
        return time.perf_counter() - began

    return step


def timing(repeats: int) -> dict[str, float]:
    """Medians of alternated steps, and their ratio."""
    ours, peer = (_stepper(model) for model in _models(dropout=0.05))
    ours(), peer()
    taken = [(ours(), peer()) for _ in range(repeats)]
    mine, theirs = (statistics.median(column) for column in zip(*taken, strict=True))
    return {"ours_s": mine, "peer_s": theirs, "ratio": theirs / mine}


def _resident(field: str) -> float:
    """Bytes of this process: VmRSS (now) or VmHWM (highest; unlike ru_maxrss not inherited from the parent)."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024.0
    raise RuntimeError(f"/proc/self/status has no {field}")


def peak(which: str) -> float:
    """Bytes of resident memory that building the model and three steps add at their peak, in this process."""
    import torch

    import pipelines.forecast.models.autoformer  # noqa: F401

    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    import peer_autoformer  # noqa: F401

    torch.ones(8, 8, requires_grad=True).square().sum().backward()
    before = _resident("VmRSS")
    step = _stepper(_models(dropout=0.05, which=which)[0])
    for _ in range(3):
        step()
    return _resident("VmHWM") - before


def memory(threads: int) -> dict[str, float]:
    """Peak memory above idle of each side, in fresh processes."""
    command = [sys.executable, __file__, "--threads", str(threads), "--peak"]
    found = {which: float(subprocess.check_output([*command, which])) for which in ("ours", "peer")}
    return {"ours_MB": found["ours"] / 1e6, "peer_MB": found["peer"] / 1e6, "share": found["ours"] / found["peer"]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peak", choices=("ours", "peer"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    if options.peak:
        print(peak(options.peak))
        return 0
    differences = parity()
    if max(differences.values()) > TOLERANCE:
        print(f"no parity, nothing timed: {differences}", file=sys.stderr)
        return 1
    say = (lambda text: None) if options.json else (lambda text: print(text, flush=True))
    say("parity: train {train:.1e}, eval {eval:.1e}".format(**differences))
    space = memory(options.threads)
    say("peak above idle: ours {ours_MB:.0f} MB, peer {peer_MB:.0f} MB, share {share:.1%}".format(**space))
    took = timing(options.repeats)
    say("time a step: ours {ours_s:.3f} s, peer {peer_s:.3f} s, ratio {ratio:.2f}".format(**took))
    if options.json:
        print(json.dumps({"parity": differences, "memory": space, "time": took}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
