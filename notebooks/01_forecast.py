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
# # Forecasting, from a table to a report
#
# Half-hourly electricity demand of Victoria (Australian Energy Market Operator), embedded in the package. We read it,
# fit a DLinear, look at honest figures beside the baselines, forecast two days with intervals, and swap the attention
# mechanism of a Transformer. Everything here is one command too: `pipelines forecast`.

# %%
import tempfile
from pathlib import Path

import pipelines
from pipelines import Forecaster
from pipelines.data.catalog import read_named

table = read_named("vic_elec")
print(f"{table.rows:,} rows every {table.freq}: forecast {table.targets}, known {table.known}, past {table.past}")

# %% [markdown]
# We keep the last year and a half, so that the notebook runs in a few seconds. Rows are divided in time: 70 % train,
# 10 % validate (early stopping), 20 % test. Scaling statistics come from the training rows alone.

# %%
recent = table.slice(-26_000)
forecaster = Forecaster(model="dlinear", context=336, horizon=96, train={"epochs": 3, "batch_size": 128})
forecaster.fit(recent)

# %% [markdown]
# Every window of the test rows is counted. The baselines are always beside.

# %%
evaluation = forecaster.evaluate(recent)
print(evaluation.protocol)
for name, metrics in {evaluation.model: evaluation.metrics, **evaluation.baselines}.items():
    print(f"{name:>15}  " + "  ".join(f"{key} {value:.3f}" for key, value in metrics.items()))
print({key: f"{count:,}" for key, count in evaluation.counts.items()})

# %%
evaluation.plot()

# %% [markdown]
# A forecast is a table in the units and the time zone of the input. The future of known columns (holidays) comes as
# rows whose target is empty; here we hide the last two days and draw them as the truth.

# %%
from pipelines.forecast.predict import predict_known

forecast = predict_known(forecaster, recent, horizon=96)
forecast.frame.head()

# %%
forecast.plot()

# %% [markdown]
# Intervals are conformal: their radius comes from the errors on rows that the model was not fitted on, and their level
# is adapted as the truth arrives. The notes say from how many windows, and everything else that was done to the data.

# %%
for note in forecast.notes:
    print("-", note)

# %% [markdown]
# A saved model is a folder of safetensors and JSON, with a checksum. It opens by itself.

# %%
with tempfile.TemporaryDirectory() as scratch:
    folder = forecaster.save(Path(scratch) / "victoria")
    again = pipelines.load(folder)
    print(sorted(path.name for path in folder.iterdir()), again.get_params()["model"])

# %% [markdown]
# Any sequence mechanism works in the Transformer. `pipelines mechanisms` lists them.

# %%
short = recent.slice(-6_000)
for attention in ("softmax", "auto_correlation"):
    transformer = Forecaster(
        model="transformer",
        attention=attention,
        context=96,
        horizon=48,
        arch={"d_model": 32, "n_heads": 4, "e_layers": 1},
        train={"epochs": 1, "batch_size": 64},
    )
    scores = transformer.fit(short).evaluate(short).metrics
    print(f"{attention:>17}  mse {scores['mse']:.3f}  mae {scores['mae']:.3f}")
