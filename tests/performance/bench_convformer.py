"""ConvFormer against a PoseFormer of the paper's size and against itself with every convolution done by itself.

    python tests/performance/bench_convformer.py [--frames 81] [--batch 8] [--repeats 5] [--threads 1] [--json]

Nobody released ConvFormer's code, and PoseFormer's has no licence: `PlainPoseFormer` is written from the equations of
arXiv 2103.10455 (four blocks over joints, four over frames, joined queries, keys and values, attention written out),
and has the released model's number of parameters, which is checked. `plain_forward` is ConvFormer as its paper writes
it, sum_i eta_i (K_i * X) for each of Q, K and V. Parity comes first: with the same weights it gives our outputs (in
float32 and float64) and gradients (float64), else nothing is timed. Then each call is timed in turn, in seconds and in
processor seconds, which a machine that is busy otherwise leaves nearly alone (with one thread: more of them wait for
each other, and waiting is counted); the smallest of the repeats counts. A step is forward, MPJPE, backward and AdamW
with the paper's dropout and drop-path.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.pose.models.convformer import ConvFormer

TOLERANCES = {"outputs": 1e-5, "exact": 1e-10, "gradients": 1e-8}
GOALS = {"forward": 1.0, "step": 1.5, "fewer": 0.6, "windows": 200.0}
POSEFORMER = {9: 9_563_645, 81: 9_602_885}
J = 17


class PlainBlock(nn.Module):
    """A block of PoseFormer: attention and an MLP, each after a norm, each left out at random while training."""

    def __init__(self, dim: int, heads: int, drop_path: float) -> None:
        super().__init__()
        self.heads, self.drop_path = heads, drop_path
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.fc1, self.fc2 = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) to the same shape."""
        B, N, C = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(B, N, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * (C // self.heads) ** -0.5).softmax(dim=-1)
        x = x + self._kept(self.proj((weights @ v).transpose(1, 2).reshape(B, N, C)))
        return x + self._kept(self.fc2(F.gelu(self.fc1(self.norm2(x)))))

    def _kept(self, branch: Tensor) -> Tensor:
        if not self.training or not self.drop_path:
            return branch
        kept = branch.new_empty((branch.shape[0], 1, 1)).bernoulli_(1 - self.drop_path)
        return branch * kept / (1 - self.drop_path)


class PlainPoseFormer(nn.Module):
    """PoseFormer of arXiv 2103.10455: (B, T, J, 2) to (B, 1, J, 3)."""

    def __init__(self, frames: int, dim: int = 32, layers: int = 4, heads: int = 8, drop_path: float = 0.2) -> None:
        super().__init__()
        wide = J * dim
        rates = [drop_path * i / (layers - 1) for i in range(layers)]
        self.embed = nn.Linear(2, dim)
        self.joints = nn.Parameter(torch.zeros(1, J, dim))
        self.frames = nn.Parameter(torch.zeros(1, frames, wide))
        self.spatial = nn.Sequential(*(PlainBlock(dim, heads, rate) for rate in rates))
        self.temporal = nn.Sequential(*(PlainBlock(wide, heads, rate) for rate in rates))
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(wide, eps=1e-6)
        self.mean = nn.Conv1d(frames, 1, 1)
        self.head = nn.Sequential(nn.LayerNorm(wide), nn.Linear(wide, 3 * J))

    def forward(self, x: Tensor) -> Tensor:
        """Lift windows."""
        B, T = x.shape[:2]
        x = self.norm1(self.spatial(self.embed(x).flatten(0, 1) + self.joints)).view(B, T, -1)
        x = self.norm2(self.temporal(x + self.frames))
        return self.head(self.mean(x)).view(B, 1, J, 3)


def plain_forward(model: ConvFormer, x: Tensor) -> Tensor:
    """Our model's parameters by the paper's steps, in evaluation mode: as many convolutions as there are kernels."""
    y = model.embed(x).flatten(0, 1) + model.joint_positions
    for block in model.spatial:
        y = _plain_block(block, y, spatial=True)
    y = model.spatial_norm(y).reshape(len(x), x.shape[1], -1) + model.frame_positions
    for block in model.temporal:
        y = _plain_block(block, y, spatial=False)
    return model.head(model.frame_mean(model.temporal_norm(y))).view(len(x), 1, J, 3)


def _plain_block(block: Any, x: Tensor, *, spatial: bool) -> Tensor:
    mixer, normed = block.mixer, block.norm1(x)
    source, heads = normed.transpose(1, 2) if spatial else normed, []
    for mixture in (mixer.query, mixer.key, mixer.value):
        shares = mixture.eta.softmax(0)
        parts = zip(mixture.filters, mixture.bias, mixture.kernels, strict=True)
        results = [F.conv1d(source, weight, bias, padding=k // 2) for weight, bias, k in parts]
        mixed = torch.stack([share * result for share, result in zip(shares, results, strict=True)]).sum(0)
        mixed = mixed.transpose(1, 2) if spatial else mixed
        heads.append(mixed.reshape(*mixed.shape[:2], mixer.num_heads, -1).transpose(1, 2))
    q, k, v = heads
    y = ((q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
    y = y.transpose(1, 2) if spatial else y
    y = F.conv1d(y, mixer.output.weight[..., None], mixer.output.bias)
    x = x + (y.transpose(1, 2) if spatial else y)
    return x + block.feed_forward(block.norm2(x))


def windows(batch: int, frames: int) -> Tensor:
    """Seeded windows (B, T, J, 2)."""
    return torch.randn(batch, frames, J, 2, generator=torch.Generator().manual_seed(0)) * 0.3


def parity(frames: int) -> dict[str, float]:
    """Largest differences, relative to the largest number of each tensor: outputs, and both again in float64."""
    torch.manual_seed(0)
    model = ConvFormer(frames=frames).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # far from where they start, so that differences show
            parameter.add_((1.0 if name.endswith("eta") else 0.02) * torch.randn_like(parameter))
    x, found = windows(2, frames), []
    with torch.no_grad():
        gap = _gap(model(x), plain_forward(model, x))
    model, x = model.double(), x.double()
    for call in (model, lambda x: plain_forward(model, x)):
        model.zero_grad()
        y = call(x)
        y.square().sum().backward()
        found.append((y.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
    (y, own), (expected, theirs) = found
    # The gradient of a key's bias is zero but for rounding: softmax does not see what all keys share.
    least = 1e-6 * max(float(g.abs().max()) for g in theirs.values())
    gaps = [_gap(own[name], theirs[name], least) for name in theirs]
    return {"outputs": gap, "exact": _gap(y, expected), "gradients": max(gaps)}


def _gap(found: Tensor, expected: Tensor, least: float = 0.0) -> float:
    return float((found - expected).abs().max()) / max(float(expected.abs().max()), least)


def in_turn(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Least seconds and least processor seconds of each, measured in turn after one untimed round."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            began, busy = time.perf_counter(), time.process_time()
            call()
            if turn:
                taken[name].append((time.perf_counter() - began, time.process_time() - busy))
    return {n: {"s": min(w for w, _ in took), "cpu_s": min(c for _, c in took)} for n, took in taken.items()}


def step(model: nn.Module, x: Tensor) -> Callable[[], None]:
    """One training step: forward, MPJPE, backward, AdamW."""
    model.train()
    target = torch.randn(len(x), 1, J, 3, generator=torch.Generator().manual_seed(1))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def run() -> None:
        optimiser.zero_grad(set_to_none=True)
        (model(x) - target).norm(dim=-1).mean().backward()
        optimiser.step()

    return run


def forward(call: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], Any]:
    """One forward pass without gradients."""

    def run() -> Any:
        with torch.inference_mode():
            return call(x)

    return run


def counts(frames: int) -> dict[str, float]:
    """Parameters of both, and the share that ours has fewer."""
    ours = sum(p.numel() for p in ConvFormer(frames=frames).parameters())
    theirs = sum(p.numel() for p in PlainPoseFormer(frames).parameters())
    if theirs != POSEFORMER.get(frames, theirs):
        raise RuntimeError(f"PoseFormer has {theirs} parameters, expected {POSEFORMER[frames]}")
    return {"ours": ours, "poseformer": theirs, "fewer": 1 - ours / theirs}


def measure(frames: int, batch: int, repeats: int) -> dict[str, Any]:
    """All times of one length."""
    torch.manual_seed(0)
    ours, peer, x = ConvFormer(frames=frames).eval(), PlainPoseFormer(frames).eval(), windows(batch, frames)
    calls = {"ours": forward(ours, x), "poseformer": forward(peer, x)}
    calls["unmixed"] = forward(lambda x: plain_forward(ours, x), x)
    found: dict[str, Any] = {"forward": in_turn(calls, repeats)}
    found["step"] = in_turn({"ours": step(ours, x), "poseformer": step(peer, x)}, repeats)
    for took in found.values():
        took["ratio"] = {unit: took["poseformer"][unit] / took["ours"][unit] for unit in ("s", "cpu_s")}
    return found


def main() -> int:
    """Run all parts and print them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=81, help="odd length of the windows that both lift")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    say: Callable[[str], Any] = (lambda _: None) if options.json else (lambda text: print(text, flush=True))
    found: dict[str, Any] = {"parity": parity(options.frames), "parameters": counts(options.frames)}
    text = "parity with unmixed convolutions: outputs {outputs:.1e}; in float64 {exact:.1e}, gradients {gradients:.1e}"
    say(text.format(**found["parity"]))
    if any(not found["parity"][name] <= most for name, most in TOLERANCES.items()):
        print(f"no parity, nothing timed: {found['parity']}", file=sys.stderr)
        return 1
    text = "parameters at T={T}: ours {ours:,}, PoseFormer {poseformer:,}, {fewer:.1%} fewer (goal {goal:.0%})"
    say(text.format(T=options.frames, goal=GOALS["fewer"], **found["parameters"]))
    found |= measure(options.frames, options.batch, options.repeats)
    for part in ("forward", "step"):
        took = found[part]
        for name in [name for name in took if name != "ratio"]:
            say(f"{part} {name}: {took[name]['s']:.3f} s, processor {took[name]['cpu_s']:.3f} s")
        ratio = took["ratio"]
        text = f"{part}: PoseFormer takes {ratio['cpu_s']:.2f} times as long in processor seconds"
        say(f"{text}, {ratio['s']:.2f} by the clock (goal {GOALS[part]})")
    short = forward(ConvFormer(frames=27).eval(), windows(32, 27))
    took = in_turn({"ours": short}, options.repeats)["ours"]
    found["windows"] = {unit: 32 / took[unit] for unit in took}
    text = f"T=27: {32 / took['s']:.0f} windows a second, {32 / took['cpu_s']:.0f} a processor second"
    say(f"{text} (goal {GOALS['windows']:.0f})")
    if options.json:
        print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
