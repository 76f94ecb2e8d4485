"""What VSFormer's parts are worth: accuracy with and without them, on the same seeds of the same official splits.

    python tools/ablate_vsformer.py DATA [DATA ...] [--seeds 5] [--variants written log softmax no-tsi]

Variants: `written` (scores times priors, as in the paper), `log` (plus the priors' logarithm), `softmax` (no prior in
the attention), `no-tsi` (tokens are not told variable, place, class and prior). Each line is one JSON object: every
seed's accuracy on the test part, their median, and the difference to `written` seed by seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from typing import Any

VARIANTS: dict[str, dict[str, Any]] = {
    "written": {},
    "log": {"arch": {"form": "log"}},
    "softmax": {"attention": "softmax"},
    "no-tsi": {"arch": {"tsi": False}},
}


def accuracies(data: str, options: dict[str, Any], seeds: range) -> list[float]:
    """Accuracy on the official test part for each seed."""
    from pipelines import Classifier
    from pipelines.classify import engine
    from pipelines.classify.metrics import figures

    found = []
    for seed in seeds:
        classifier = Classifier(seed=seed, threads=1, **options)
        series = classifier.read(data)
        fitted = classifier.fit(series).state
        test = engine.test_part(series)
        found.append(figures(fitted.probabilities(test), fitted.numbers(test))["accuracy"])
    return found


def main() -> int:
    """Run the variants and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=2021)
    parser.add_argument("--no-refit", action="store_true", help="keep the model of the first fit: half the time")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    asked = parser.parse_args()
    for data in asked.data:
        base: list[float] | None = None
        for name in asked.variants:
            options = VARIANTS[name] | {"refit": not asked.no_refit}
            found = accuracies(data, options, range(asked.first, asked.first + asked.seeds))
            base = found if name == "written" else base
            line: dict[str, Any] = {"data": data, "variant": name, "accuracy": found}
            line["median"] = statistics.median(found)
            if base is not None and name != "written":
                line["minus_written"] = [one - other for one, other in zip(found, base, strict=True)]
                line["mean_minus_written"] = statistics.mean(line["minus_written"])
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
