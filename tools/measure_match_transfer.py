"""How a matcher does on documents of other kinds, without training on them: links, and what people call alike.

    python tools/measure_match_transfer.py DOCUMENTS [MODEL_FOLDER] [--encoder minilm] [--only lee,man,perl,wiki]

DOCUMENTS holds `linux_manpages.tar.xz`, `perl_pod.tar.xz`, a shortened dump `enwiki*.bz2`, and Lee's corpus (`lee.cor`,
`similarities0-1.txt`). Links are measured as `pipelines match evaluate` measures them, over all documents; of Lee's 50
texts the rank correlation of all 1,225 similarities with the mean human judgement.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

import numpy as np
from scipy.stats import spearmanr

from pipelines.data.datasets.document_tfidf import Tfidf
from pipelines.match.pipeline import Matcher

CORPORA = {"man": "linux_manpages.tar.xz", "perl": "perl_pod.tar.xz", "wiki": "enwiki*.bz2"}


def main() -> None:
    """Print one line a corpus and model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", type=pathlib.Path)
    parser.add_argument("model", nargs="?", help="a folder that `pipelines match fit` wrote; default what ships")
    parser.add_argument("--encoder", default="own", choices=("own", "minilm"))
    parser.add_argument("--only", default="lee,wiki,perl,man")
    asked = parser.parse_args()
    options = {"baselines": ("tfidf",), "threads": 1}
    matcher = Matcher.load(asked.model, **options) if asked.model else Matcher(encoder=asked.encoder, **options)
    matcher.adopt_shipped()
    for name in asked.only.split(","):
        if name == "lee":
            lee(matcher, asked.documents)
            continue
        path = next(asked.documents.glob(CORPORA[name]))
        found = matcher.evaluate(path)
        rows = {matcher.model: found.metrics, **found.baselines}
        for model, figures in rows.items():
            shown = ", ".join(f"{key} {figures[key]:.3f}" for key in ("auc", "auc_hard", "mrr", "recall@10"))
            sys.stdout.write(f"{name}: {found.counts['matches']} links, {model}: {shown}\n")
        sys.stdout.flush()


def lee(matcher: Matcher, folder: pathlib.Path) -> None:
    """Spearman's correlation with the judgements of people."""
    texts = [line for line in (folder / "lee.cor").read_text("latin-1").splitlines() if line.strip()]
    human = np.loadtxt(folder / "similarities0-1.txt")
    names = [f"{number}" for number in range(len(texts))]
    scores = matcher.score([(a, b) for i, a in enumerate(texts) for b in texts[i + 1 :]], passages=0)
    ours = [pair.score for pair in scores.pairs]
    left, right = np.triu_indices(len(names), 1)
    judged = human[left, right]
    words = Tfidf().fit(texts).pair_scores(left, right)
    for model, values in ((matcher.model, ours), ("tfidf", words)):
        sys.stdout.write(f"lee: {len(judged)} pairs, {model}: Spearman {spearmanr(values, judged).statistic:.3f}\n")


if __name__ == "__main__":
    main()
