"""VSFormer's time and memory: a training step, prediction, the widest public shape, the search for motifs.

    python tests/performance/bench_vsformer.py [--repeats 9] [--threads 2] [--json]

A step is compared with that of a plain Transformer (torch's own encoder layer of the same width, heads and depth, a
mean and a linear head) over as many tokens as VSFormer's branches hold together, hidden ones included. Before it is
timed, prior_enhanced with priors of one and torch's own attention with the same weights must agree to 1e-5.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

TOLERANCE = 1e-5
WIDEST = (50, 1345, 270)  # DuckDuckGeese: series, variables, steps


def parity() -> float:
    """Largest difference between prior_enhanced with priors of one and torch's attention of the same weights."""
    import torch
    from torch import nn

    from core_attention import build

    torch.manual_seed(0)
    ours, peer = build("prior_enhanced", 32, 4), nn.MultiheadAttention(32, 4, batch_first=True)
    state, parts = ours.state_dict(), ("query", "key", "value")
    with torch.no_grad():
        peer.in_proj_weight.copy_(torch.cat([state[f"{part}_projection.weight"] for part in parts]))
        peer.in_proj_bias.copy_(torch.cat([state[f"{part}_projection.bias"] for part in parts]))
        peer.out_proj.load_state_dict({kind: state[f"out_projection.{kind}"] for kind in ("weight", "bias")})
        x = torch.randn(2, 50, 32)
        return float((ours(x, prior=torch.ones(2, 50)).y - peer(x, x, x, need_weights=False)[0]).abs().max())


def _fitted(name: str = "BasicMotions"):
    from pipelines import Classifier
    from pipelines.classify import engine
    from pipelines.classify.components import Components
    from pipelines.classify.examples import Examples
    from pipelines.classify.tokens import Tokeniser
    from pipelines.data.datasets.classification import Standardiser

    c = Classifier()
    data = c.read(name)
    scaler = Standardiser.fit(list(data.series))
    components = Components.fit([scaler.apply(one) for one in data.series])
    fitted = engine.Fitted("vsformer", data.classes, data.variables, scaler, components=components)
    series, labels = fitted.scaled(data), fitted.numbers(data)
    tokeniser = fitted.tokeniser = Tokeniser.fit(series, labels)
    fitted.sizes = {"variables": len(series[0]), "classes": len(data.classes)}
    fitted.module = engine.build(c, fitted)
    return fitted, data, Examples(series, labels, tokeniser)


def step_ratio(repeats: int, name: str) -> dict[str, float]:
    """Median seconds of a training step of batch 16, ours and the plain Transformer's, and their ratio."""
    import torch
    from torch import nn

    from pipelines.classify.examples import loss

    fitted, data, examples = _fitted(name)
    model = fitted.module.train()
    tokens = len(model.shape_prior) + len(model.value_prior)
    layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True)
    plain = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False).train()
    head = nn.Linear(32, len(data.classes))
    batch = examples.__getitems__(list(range(16)))
    x = torch.randn(16, tokens, 32)
    optimizers = [torch.optim.AdamW(m.parameters(), 1e-3, fused=True) for m in (model, nn.ModuleList([plain, head]))]

    def ours() -> None:
        optimizers[0].zero_grad()
        (loss(model, batch)[0] / 16).backward()
        optimizers[0].step()

    def peers() -> None:
        optimizers[1].zero_grad()
        nn.functional.cross_entropy(head(plain(x).mean(1)), batch["y"]).backward()
        optimizers[1].step()

    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for turn in range(repeats + 2):
        for label, step in (("ours", ours), ("plain", peers)):
            start = time.perf_counter()
            step()
            if turn >= 2:
                times[label].append(time.perf_counter() - start)
    medians = {label: statistics.median(values) for label, values in times.items()}
    return {**medians, "ratio": medians["ours"] / medians["plain"], "tokens": tokens}


def predicted_per_second(repeats: int, name: str) -> float:
    """Series a second from standardised steps to probabilities, tokens included."""
    fitted, data, _ = _fitted(name)
    fitted.module.eval()
    turns = max(1, 1000 // len(data))
    every = type(data).of([one for _ in range(turns) for one in data.series], variables=data.variables)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        fitted.probabilities(every)
        times.append(time.perf_counter() - start)
    return len(every) / statistics.median(times)


def widest() -> dict[str, float]:
    """Peak memory in MB and seconds of a short fit and a prediction on random series of the widest public shape."""
    import resource

    import numpy as np

    from pipelines import Classifier
    from pipelines.data.formats.labelled_types import LabelledSeries

    generator = np.random.default_rng(0)
    series = [generator.normal(size=WIDEST[1:]).astype(np.float32) for _ in range(WIDEST[0])]
    data = LabelledSeries.of(series, labels=[f"c{i % 5}" for i in range(WIDEST[0])])
    start = time.perf_counter()
    classifier = Classifier(train={"epochs": 1}, refit=False).fit(data)
    classifier.predict(data)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"peak_mb": peak, "seconds": time.perf_counter() - start}


def motif_seconds() -> list[float]:
    """Seconds of a search in two fresh processes: the second finds the compiled code on disk."""
    code = (
        "import time, numpy as np; from pipelines.classify.motifs import matrix_profile; start = time.perf_counter(); "
        "matrix_profile(np.random.default_rng(0).normal(size=500), 20); print(time.perf_counter() - start)"
    )
    answers = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in "12"]
    return [float(answer.stdout) for answer in answers]


def main() -> int:
    """Run all parts and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", default="BasicMotions")
    parser.add_argument("--widest", action="store_true", help="also fit the widest public shape (minutes)")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    import torch

    torch.set_num_threads(asked.threads)
    difference = parity()
    if difference > TOLERANCE:
        sys.stderr.write(f"prior_enhanced differs from torch's attention by {difference:.1e}: nothing is timed\n")
        return 1
    found = {
        "parity": difference,
        "step": step_ratio(asked.repeats, asked.data),
        "series_per_second": predicted_per_second(3, asked.data),
        "motif_seconds": motif_seconds(),
    }
    if asked.widest:
        found["widest"] = widest()
    if asked.json:
        sys.stdout.write(json.dumps(found) + "\n")
        return 0
    step = found["step"]
    sys.stdout.write(
        f"parity {difference:.1e}\n"
        f"step over {step['tokens']:.0f} tokens: ours {1e3 * step['ours']:.1f} ms, plain Transformer "
        f"{1e3 * step['plain']:.1f} ms, ratio {step['ratio']:.2f} (goal: at most 1.5)\n"
        f"prediction: {found['series_per_second']:,.0f} series a second (goal: 1,000)\n"
        f"search for motifs in two fresh processes: {' s, '.join(f'{one:.1f}' for one in found['motif_seconds'])} s\n"
    )
    if asked.widest:
        wide = found["widest"]
        sys.stdout.write(f"50 x 1345 x 270: {wide['peak_mb']:,.0f} MB at most, {wide['seconds']:.0f} s (goal: 4,000)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
