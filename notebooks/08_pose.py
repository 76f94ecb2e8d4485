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
# # Bodies in space from joints in the image
#
# ConvFormer lifts the 2-D joints that a detector found to 3-D poses, window by window. A small model for windows of
# nine frames ships, trained on twelve embedded motions of one body; three motions were held out. Everything here is one
# command too: `pipelines pose`.

# %%
from pipelines import PoseLifter
from pipelines.pose.material import motion_of, view_of

lifter = PoseLifter(views={"cameras": 2})
lifter.adopt_shipped()
found = lifter.evaluate("motions")
print(found.protocol)
for name, figures in {"convformer": found.metrics, **found.baselines}.items():
    print(f"{name:12} MPJPE {figures['mpjpe']:6.1f} mm   P-MPJPE {figures['p_mpjpe']:6.1f} mm")

# %%
found.plot()

# %% [markdown]
# A walk that the model has not seen, as one random camera sees it: what a detector's file would hold. Such files (COCO,
# OpenPose, MediaPipe, MMPose, CSV, NPZ) are read by `predict` as they are.

# %%
clips, notes = motion_of(lifter, "motions")
walk = next(clip for clip in clips if clip.action == "walk")
seen = view_of(lifter, walk, camera=1)
answer = lifter.predict(seen.joints)
print(answer)
for note in answer.notes:
    print("-", note)

# %%
answer.plot()

# %% [markdown]
# Beside each joint stands how far it may be off, in mm: learned from how far the answers to a picture and to its mirror
# image lie apart. `answer.save("walk.mp4")` makes a film, `.bvh` a file for animation, `.npz` and `.csv` tables.

# %%
track = answer.tracks[0]
error = 1000 * ((track.points - seen.truth) ** 2).sum(-1) ** 0.5
print(f"expected {track.sigma.mean():.0f} mm, measured {error.mean():.0f} mm")
