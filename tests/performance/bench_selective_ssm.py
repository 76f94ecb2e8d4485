"""Training steps and forward passes of Mamba layers against the same layers around the published reference scan.

    python tests/performance/bench_selective_ssm.py [--repeats 5] [--peer-repeats 1] [--threads 1] [--cpu-time] [--json]

The peer is the same module with the same weights, its scan written as `selective_scan_ref` of the released code does
it: all decays in memory, then a step at a time out of slices, which makes autograd fill a whole gradient at every step.
Parity comes first: outputs to 1e-5 and gradients of all parameters to 1e-4 of their size, else nothing is timed. Then
the encoder layer of the tiny Samba (144 channels, 500 frames: 20 s of sound), in both directions and causal, and whole
Mamba blocks of 256 channels are timed, medians of ours and of the peer divided. On a machine that is busy otherwise,
one thread and ``--cpu-time`` (processor seconds instead of seconds) are still to be trusted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

OUTPUTS, GRADIENTS = 1e-5, 1e-4


class Case(NamedTuple):
    """What is timed: a module, tokens of it, and the goals of this project where it has some.

    Attributes:
        label: for the table.
        module: "layer", "causal layer" or "block".
        tokens: L.
        training: a whole step (forward, backward, Adam) instead of a forward pass.
        goal: at least so many times as fast as the peer.
        seconds: at most so long.
    """

    label: str
    module: str
    tokens: int
    training: bool
    goal: float | None = None
    seconds: float | None = None


CASES = (
    Case("Samba layer d=144, both directions, L=500, step", "layer", 500, True, goal=40),
    Case("Samba layer d=144, both directions, L=500, forward", "layer", 500, False),
    Case("Samba layer d=144, causal, L=500, step", "causal layer", 500, True),
    Case("Samba layer d=144, causal, L=500, forward", "causal layer", 500, False),
    Case("Mamba block d=256, L=256, forward", "block", 256, False),
    Case("Mamba block d=256, L=256, step", "block", 256, True),
    Case("Mamba block d=256, L=1024, forward", "block", 1024, False),
    Case("Mamba block d=256, L=1024, step", "block", 1024, True, seconds=1.0),
)


@contextmanager
def published_scan() -> Iterator[None]:
    """The mechanism's scan replaced by the published loop, as long as the context is open."""
    from core_attention.kernels.selective_scan.bench import published_loop
    from core_attention.mechanisms import selective_ssm

    def scan(u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any, z: Any, bias: Any, *_: Any) -> tuple[Any, None]:
        return published_loop(u, delta, A, B, C, D, z, bias), None

    ours: Any = selective_ssm.selective_scan
    selective_ssm.selective_scan = scan  # type: ignore[assignment]
    try:
        yield
    finally:
        selective_ssm.selective_scan = ours


def module_of(name: str) -> tuple[Any, int]:
    """The module with seeded weights, and its channels."""
    import torch

    from pipelines.transcribe.models.layers import SambaLayer, build_mixer
    from pipelines.transcribe.models.mamba import MambaBlock

    torch.manual_seed(0)
    if name == "block":
        return MambaBlock(256), 256
    return SambaLayer(144, build_mixer("selective_ssm", 144, 1, causal=name.startswith("causal"))), 144


def _run(module: Any, name: str, x: Any) -> Any:
    return module(x) if name == "block" else module(x, None, None)[0]


def _tokens(length: int, dim: int) -> Any:
    import torch

    return torch.randn(1, length, dim, generator=torch.Generator().manual_seed(1))


def parity(length: int = 100) -> dict[str, float]:
    """Largest difference of outputs and of gradients over all modules, relative to the largest number of each."""
    found = {"outputs": 0.0, "gradients": 0.0}
    for name in ("layer", "causal layer", "block"):
        module, dim = module_of(name)
        x, results = _tokens(length, dim), []
        for peer in (False, True):
            module.zero_grad()
            if peer:
                with published_scan():
                    y = _run(module, name, x)
            else:
                y = _run(module, name, x)
            y.square().mean().backward()
            results.append([y.detach(), *(p.grad.clone() for p in module.parameters())])
        gaps = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(*results, strict=True)]
        found["outputs"] = max(found["outputs"], gaps[0])
        found["gradients"] = max(found["gradients"], *gaps[1:])
    return found


def call_of(case: Case) -> Callable[[], None]:
    """One forward pass without gradients, or one training step."""
    import torch

    module, dim = module_of(case.module)
    x = _tokens(case.tokens, dim)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4)

    def forward() -> None:
        with torch.no_grad():
            _run(module, case.module, x)

    def step() -> None:
        optimizer.zero_grad()
        _run(module, case.module, x).square().mean().backward()
        optimizer.step()

    return step if case.training else forward


def timed(case: Case, options: argparse.Namespace) -> dict[str, float]:
    """Median seconds of ours and of the peer, and their ratio."""
    clock = time.process_time if options.cpu_time else time.perf_counter
    ours, peer = call_of(case), call_of(case)
    taken: dict[str, list[float]] = {"ours": [], "peer": []}
    ours()  # what the first call loads is no matter of size; the peer's parts ran in `parity`
    for turn in range(max(options.repeats, options.peer_repeats)):
        if turn < options.repeats:
            taken["ours"].append(_seconds(ours, clock))
        if turn < options.peer_repeats:
            with published_scan():
                taken["peer"].append(_seconds(peer, clock))
    median = {side: statistics.median(values) for side, values in taken.items()}
    return {**median, "ratio": median["peer"] / median["ours"]}


def _seconds(call: Callable[[], None], clock: Callable[[], float]) -> float:
    began = clock()
    call()
    return clock() - began


def _line(case: Case, took: dict[str, float]) -> str:
    goal = "" if case.goal is None else f" (goal {case.goal:.0f})"
    limit = "" if case.seconds is None else f" (goal at most {1e3 * case.seconds:.0f})"
    return (
        f"{case.label:<52} ours {1e3 * took['ours']:8.1f} ms{limit}, published scan {1e3 * took['peer']:9.1f} ms, "
        f"{took['ratio']:6.1f} times as fast{goal}"
    )


def main() -> int:
    """Run all parts and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="of ours")
    parser.add_argument("--peer-repeats", type=int, default=1, help="of the peer, whose steps take many seconds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpu-time", action="store_true", help="count the seconds of this process alone")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    gaps = parity()
    if gaps["outputs"] > OUTPUTS or gaps["gradients"] > GRADIENTS:
        sys.stderr.write(f"no parity, nothing timed: {gaps}\n")
        return 1
    if not options.json:
        sys.stdout.write("parity: outputs {outputs:.1e}, gradients {gradients:.1e}\n".format(**gaps))
    found: dict[str, dict[str, float]] = {"parity": gaps}
    for case in CASES:
        found[case.label] = timed(case, options)
        if not options.json:
            sys.stdout.write(_line(case, found[case.label]) + "\n")
            sys.stdout.flush()
    if options.json:
        sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
