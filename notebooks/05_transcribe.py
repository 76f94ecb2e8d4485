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
# # Speech recognition, from sound to text with times
#
# The model is our reading of Samba-ASR: a Mamba encoder and a Mamba text decoder with joint CTC. The authors published
# neither code nor weights, and their figures are not reproduced here. A small English model ships, trained on fourteen
# minutes of one voice: it reads telephone prompts of that voice and little else. Everything here is one command too:
# `pipelines transcribe`.

# %%
from pipelines import Transcriber
from pipelines.transcribe.reading import corpus_of

transcriber = Transcriber()
held_out = corpus_of("phrases").part("test").utterances
print(len(held_out), "recordings that the model was not trained on")

# %% [markdown]
# What it writes for some of them, and the error rates over all. Half of the phrases hold words that training never had.

# %%
answer = transcriber.predict([one.source for one in held_out[:8]])
for one, item in zip(held_out, answer.items, strict=False):
    print(f"{one.text}\n    {item.text}")

# %%
evaluation = transcriber.evaluate("phrases")
print({name: round(value, 3) for name, value in evaluation.metrics.items()}, evaluation.to_dict()["normaliser"])
for name, group in evaluation.details["by_label"]["words"].items():
    print(f"{name}: WER {group['wer']:.3f}, CER {group['cer']:.3f}, {group['utterances']} recordings")

# %% [markdown]
# Words at their times, over the spectrogram; the subtitles of the same recording.

# %%
longest = max(held_out, key=lambda one: len(one.text))
spoken = transcriber.predict(longest.source)
spoken.plot()

# %%
from pipelines.transcribe.subtitles import to_srt

print(to_srt(spoken.items[0]))

# %% [markdown]
# A known text can be laid over its recording, whatever the model would have read. Silence gives no text.

# %%
import numpy as np

placed = transcriber.align(longest.source, longest.text)
print(" ".join(f"{word.text}@{word.start:.2f}" for word in placed.items[0].words))
print(transcriber.predict((np.zeros(16_000, np.float32), 8000)))

# %% [markdown]
# Another voice or language is fitted from recordings with texts: a list (JSONL, CSV, TSV), or a folder in the layout of
# LibriSpeech and others. Here the smallest thing that learns: eight digits by heart, so that the same recordings choose
# the epoch too.

# %%
import dataclasses

digits = [one for one in corpus_of("phrases").utterances if one.id in {f"digits/{n}" for n in range(8)}]
parts = [dataclasses.replace(one, id=f"{one.id}, {part}", part=part) for part in ("train", "valid") for one in digits]
small = Transcriber(
    arch={"dim": 48, "layers": 1, "decoder_layers": 0},
    sound={"rate": 8000, "mels": 40},
    augment={"join": 0.0, "noise": 0.0, "speeds": (1.0,), "time_masks": 0, "band_masks": 0},
    batch_seconds=4.0,
    train={"epochs": 80, "patience": 0, "learning_rate": 5e-3, "schedule": "cosine", "clip_norm": 5.0},
)
small.fit(parts)
print([small.predict(one.source).text for one in digits])
