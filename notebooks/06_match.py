# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Long documents that belong together
#
# SMITH cuts a document into sentence blocks, reads each block, and reads the blocks' vectors once more: a document of
# any length becomes one vector, and two documents match as far as their vectors point the same way. A small model
# ships, trained on the cross references of the Python documentation; a fifth of its 497 documents was held out.
# Everything here is one command too: `pipelines match`.

# %%
from pipelines import Matcher
from pipelines.match.reading import held_out

matcher = Matcher()
matcher.adopt_shipped()
documents = held_out(matcher, "demo")
print(len(documents), "documents that the model has not learned from")
print(", ".join(one.name for one in documents[:12]))

# %% [markdown]
# Search: a text, a file or a whole folder against a folder, an archive, a table or vectors made before. What was read
# is counted; nothing is cut off unsaid.

# %%
answer = matcher.predict(["How do I read and write compressed archives from a program?"], corpus=documents, passages=2)
print(answer)

# %% [markdown]
# Two documents, block against block: the heat map shows which passage of the one answers which of the other.

# %%
by_name = {one.name: one for one in documents}
longest = sorted(documents, key=lambda one: -len(one.text))
query = next(one for one in longest if one.name.startswith("library/"))
found = matcher.predict([query], corpus=[one for one in documents if one.name != query.name], passages=3)
print(found)
found.plot()

# %% [markdown]
# How good is it? Links among the held-out documents against as many random pairs, the links' own words removed, and
# against pairs that TF-IDF takes for near. The intervals come from drawing documents, not pairs.

# %%
figures = matcher.clone(baselines=("tfidf",))
figures.adopt_shipped()
evaluation = figures.evaluate("demo")
print({name: round(value, 3) for name, value in evaluation.metrics.items()})
print({name: tuple(round(one, 3) for one in pair) for name, pair in evaluation.intervals.items()})
print("TF-IDF", {name: round(value, 3) for name, value in evaluation.baselines["tfidf"].items()})
evaluation.plot()

# %% [markdown]
# Do long documents come out more alike than short ones, only because they are long? Here they do: the cosine of two
# documents rises with their length (length collapse).

# %%
import numpy as np

from pipelines.match.collapse import collapse_figure, length_collapse
from pipelines.match.predict import reads


def vectors(some: list) -> np.ndarray:
    """Vectors of documents."""
    return np.stack([one.vector for one in reads(matcher, some, {})])


collapse = length_collapse(vectors, documents, lengths=[len(one.text.split()) for one in documents], bins=5)
for row in collapse.rows():
    print(row)
collapse_figure(collapse)

# %% [markdown]
# Vectors on disk: an index that is mapped into memory when it is searched, whatever its size.

# %%
import tempfile
from pathlib import Path

folder = Path(tempfile.mkdtemp()) / "index"
matcher.encode(list(documents)).save(folder)
print(matcher.predict([query], corpus=folder, passages=0))

# %% [markdown]
# Your own documents: a folder whose files link to each other, a list of pairs, or plain documents, whose two halves
# match. Here the smallest thing that learns: halves of forty short documents.

# %%
short = sorted(documents, key=lambda one: len(one.text))[20:60]
own = Matcher(
    arch={"dim": 32, "sentence_layers": 1, "document_layers": 1, "heads": 2, "hidden": 64},
    words={"size": 1000},
    pairs={"source": "halves"},
    pretrain={"epochs": 2},
    train={"epochs": 4, "patience": 0},
    baselines=("tfidf",),
)
own.fit(short)
print({name: round(value, 3) for name, value in own.evaluate(short).metrics.items()})
