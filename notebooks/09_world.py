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
# # What comes next in a film
#
# A world model sees a few frames, keeps a state, and lets the state go on without looking again. FluidWorld's state
# is a field that evolves by a learned reaction-diffusion equation. A small model of a street ships; the last fifth of
# the film was held out. Everything here is one command too: `pipelines world`.

# %%
from pipelines import WorldModel

world = WorldModel(split={"stride": 4})
world.adopt_shipped()
found = world.evaluate("street")
print(found.protocol)
for name, errors in {"fluidworld": found.horizons, **found.details["baselines_by_horizon"]}.items():
    print(f"{name:11}", "  ".join(f"{step:2}: {errors['mse'][step - 1]:.5f}" for step in (1, 2, 5, 8, 16)))

# %%
found.plot()

# %% [markdown]
# People who walk cannot be foretold for long: at far horizons the best answer is the street without them, and whatever
# beats the mean frame there knows something of who is where. Copying the last frame is hard to beat one frame ahead.

# %%
answer = world.predict("street")
print(answer)
for note in answer.notes:
    print("-", note)

# %%
answer.plot()

# %% [markdown]
# The state is a value that goes in and comes out; nothing hides in the model, so that the same frames give the same
# answer, always. A rollout may be as long as you like; this one goes on for twelve seconds, three times as long as any
# that training saw, and its drift is told beside.

# %%
far = WorldModel(horizon=120, start=600)
far.adopt_shipped()
print(far.predict("street"))
print("a long rollout", found.details["drift"]["end"])
