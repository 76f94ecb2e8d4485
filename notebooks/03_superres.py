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
# # Super-resolution, from a photograph to a larger one
#
# CFSR enlarges photographs of any size by 2, 3 or 4; small weights of our own recipe ship with the package. Four
# photographs that they were not trained on are embedded. Everything here is one command too: `pipelines superres`.

# %%
import numpy as np
from PIL import Image

from pipelines import SuperResolver

resolver = SuperResolver(scale=2)
photograph = resolver.demo_images()[0]
answer = resolver.predict(photograph)
print(answer)

# %% [markdown]
# The piece with the most structure, as it is, by bicubic interpolation and by the model. The report of
# `pipelines superres predict photograph.jpg -o large.png` has a slider between the last two.

# %%
answer.plot()

# %% [markdown]
# Honest figures need the benchmarks' rule to the letter: the large image is cut to a multiple of the scale, made small
# by MATLAB's bicubic reduction and rounded, enlarged, and compared on the luma of BT.601 without a border.

# %%
evaluation = resolver.evaluate("demo")
print(evaluation.protocol)
for name, metrics in {evaluation.model: evaluation.metrics, **evaluation.baselines}.items():
    print(f"{name:>8}  " + "  ".join(f"{key} {value:.3f}" for key, value in metrics.items()))
print("images:", evaluation.counts["images"])

# %%
evaluation.plot()

# %% [markdown]
# Large images are cut into overlapping tiles, one band of rows in memory at a time. A pixel depends on 63 pixels around
# it, tiles overlap by as many, and so the tiled answer is the whole one.

# %%
pixels = np.asarray(Image.open(photograph))[160:320, :200]
whole = resolver.predict(pixels).picture().pixels
tiled = SuperResolver(scale=2, tile=64).predict(pixels)
print(tiled.items[0].plan)
print("largest difference of 255 levels:", np.abs(tiled.picture().pixels.astype(int) - whole).max())

# %% [markdown]
# With `ensemble` the image is laid in eight ways; the mean is a little better, and where the eight answers differ the
# model guesses. A 16-bit or grey image, one with alpha, a profile or EXIF keeps what it has.

# %%
from pipelines.evaluation.plots import new_figure

sure = SuperResolver(scale=2, ensemble=True)
sure.adopt_shipped()
large, spread = sure.state.enlarge(pixels[:96, :128], ensemble=True)
figure = new_figure(9, 3.6)
left, right = figure.subplots(1, 2)
left.imshow(large)
shown = right.imshow(spread[..., 0] / 4, cmap="magma")
figure.colorbar(shown, ax=right, label="deviation of eight answers (grey levels)")
for ax in (left, right):
    ax.set_axis_off()
figure

# %% [markdown]
# The released checkpoints of the paper open too, in either of their forms, and the scale is found by the shapes:
# `pipelines superres predict photo.jpg --checkpoint CFSR_x4.pth -o large.png`, or in Python
# `pipelines.load_official("cfsr", "CFSR_x4.pth")`. Your own photographs train it: `pipelines superres fit --data
# photos/ --scale 2 -o model/`.
