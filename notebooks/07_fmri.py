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
# # What was seen, told from brain scans
#
# SwiFT reads raw 4-D scans: patches of volumes, attention within shifted windows over space and time. The embedded runs
# are those of one person who looked at faces, houses, cats, shoes and four other kinds of pictures (Haxby et al. 2001):
# half a slice of the brain, twelve runs, a volume every 2.5 s. A small model ships; it has not seen the last runs.
# Everything here is one command too: `pipelines fmri`.

# %%
from pipelines import BrainModel
from pipelines.fmri.predict import unseen

model = BrainModel(baselines=("svm", "lda", "majority"))
model.adopt_shipped()
study = unseen(model, "haxby")
print(study.name, [run.name for run in study.recordings])

# %% [markdown]
# The runs that were not learned from, beside linear models of the same voxels fitted on the same runs.

# %%
found = model.evaluate("haxby")
print(found.protocol, found.counts)
for name, figures in {"swift": found.metrics, **found.baselines}.items():
    print(f"{name:10} accuracy {figures['accuracy']:.3f}  AUROC {figures['auroc']:.3f}")

# %%
found.plot()

# %% [markdown]
# One run over time: the probability of each category, volume by volume, with what was shown framed. Every step that was
# taken with the scan is told: how it lies, what is brain, how it was cleaned.

# %%
answer = model.predict(study)
print(answer)
for note in answer.notes:
    print("-", note)

# %%
answer.course(answer.runs[0])

# %% [markdown]
# Which voxels spoke for a house, as an image on the scan's own grid. `pipelines fmri explain` writes maps as a BIDS
# derivative; here they lie in memory. The sum of a map is the mean difference of the logits that it explains.

# %%
maps = model.explain(study.recordings[0].source, labels=("house",), windows=9)
one = maps.maps[0]
print(maps)
print(f"sum of the map {one.mean.sum():.3f}, difference of the logits {one.difference:.3f}")

# %%
maps.plot()

# %% [markdown]
# Your own scans: a NIfTI file, a folder, a BIDS data set. With `participants.tsv` a column is told of whole subjects:
# `BrainModel(target={"column": "sex"}, size="paper").fit("my_bids_folder")`. Without labels, one vector a scan:

# %%
vectors = model.encode(study)
print(vectors)
