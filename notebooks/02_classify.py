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
# # Classification, from labelled series to the shapes that told
#
# Ten people did seven shoulder exercises with a smartwatch on the wrist (seglearn, BSD); 140 recordings of unequal
# length are embedded in the package. We fit VSFormer on eight people, look at honest figures on the two others beside
# the baselines, and ask which shapes spoke for a label. Everything here is one command too: `pipelines classify`.

# %%
import numpy as np

from pipelines import Classifier
from pipelines.classify.engine import by_group, test_part

classifier = Classifier(model="vsformer", train={"epochs": 10}, seed=2021)
watch = classifier.read("watch")
print(f"{len(watch)} series of {len(set(watch.groups))} people, {watch.lengths.min()} to {watch.lengths.max()} steps")
print("variables:", ", ".join(watch.variables))
print("classes:  ", ", ".join(watch.classes))

# %% [markdown]
# Two whole people are the test part: a model that has seen a person's other exercises would look better than it is.
# Motifs, priors, scales and the warped copies come from the training part alone. Two more people are first held out of
# it to calibrate the probabilities and to size the conformal sets; then the model is trained on all eight.

# %%
split = by_group(watch, share=0.2, seed=2021)
classifier.protocol = "official"
classifier.fit(split)
for note in classifier.state.notes:
    print("-", note)

# %%
evaluation = classifier.evaluate(split)
print(evaluation.protocol)
for name, metrics in {evaluation.model: evaluation.metrics, **evaluation.baselines}.items():
    print(f"{name:>10}  " + "  ".join(f"{key} {value:.3f}" for key, value in metrics.items()))
print("n", evaluation.counts["n"], " 95 % interval of the accuracy", np.round(evaluation.intervals["accuracy"], 3))

# %%
evaluation.plot()

# %% [markdown]
# Labels come with calibrated probabilities and a conformal set, which holds the true label with the chosen probability
# if new people are like the held-out ones.

# %%
answers = classifier.predict(split)
answers.frame.head().round(3)

# %% [markdown]
# Which shapes spoke for a label: each motif is taken away in turn, and those are drawn whose absence lowers the
# log-odds of the label most, where they match best.

# %%
answers.plot()

# %% [markdown]
# A causal LMUFormer classifies while the series is still arriving, in constant memory; after the last step its answer
# is that of the whole series.

# %%
live = Classifier(model="lmuformer", train={"epochs": 4}, seed=2021).fit(split)
stream = live.stream()
one = test_part(split).series[0]
for step, (label, shares) in enumerate(stream.run(one.T), start=1):
    if step % (one.shape[1] // 5) == 0:
        print(f"after {step:>4} steps: {label} ({shares.max():.2f})")
whole = live.predict(split).probabilities[0]
print("largest difference to the whole series at once:", f"{np.abs(whole - shares).max():.1e}")

# %% [markdown]
# Any sequence mechanism mixes the tokens; `pipelines mechanisms` lists them. `VSFormerClassifier` is the same model as
# a member of sktime's pipelines and searches (`from pipelines.classify.sktime import VSFormerClassifier`).

# %%
for attention in ("prior_enhanced", "softmax"):
    small = Classifier(attention=attention, train={"epochs": 3}, arch={"warps": 2}, protocol="official").fit(split)
    print(f"{attention:>15}  accuracy {small.evaluate(split).metrics['accuracy']:.3f} of a small one")
