"""Domain pipelines on one shared attention layer. Importing this package loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.base import Pipeline
    from pipelines.classify.pipeline import Classifier as Classifier
    from pipelines.denoise.pipeline import Denoiser as Denoiser
    from pipelines.fmri.pipeline import BrainModel as BrainModel
    from pipelines.forecast.pipeline import Forecaster as Forecaster
    from pipelines.match.pipeline import Matcher as Matcher
    from pipelines.official import load_official as load_official
    from pipelines.pose.pipeline import PoseLifter as PoseLifter
    from pipelines.superres.pipeline import SuperResolver as SuperResolver
    from pipelines.transcribe.pipeline import Transcriber as Transcriber
    from pipelines.world.pipeline import WorldModel as WorldModel

__version__ = "0.1.0"

__all__ = [
    "BrainModel",
    "Classifier",
    "Denoiser",
    "Forecaster",
    "Matcher",
    "PoseLifter",
    "SuperResolver",
    "Transcriber",
    "WorldModel",
    "__version__",
    "load",
    "load_official",
]

#: Public name -> module; resolved on first use so that importing the package stays light.
_LAZY = {
    "BrainModel": "pipelines.fmri.pipeline",
    "Classifier": "pipelines.classify.pipeline",
    "Denoiser": "pipelines.denoise.pipeline",
    "Forecaster": "pipelines.forecast.pipeline",
    "Matcher": "pipelines.match.pipeline",
    "PoseLifter": "pipelines.pose.pipeline",
    "SuperResolver": "pipelines.superres.pipeline",
    "Transcriber": "pipelines.transcribe.pipeline",
    "WorldModel": "pipelines.world.pipeline",
    "load_official": "pipelines.official",
}


def load(folder: str | Path, **changes: Any) -> Pipeline:
    """Open a folder that a pipeline saved, whatever its domain.

    Args:
        folder: what ``save`` or ``pipelines DOMAIN fit`` wrote.
        changes: how to run (device, precision, seed, threads) and what the domain lets change at call time.

    Raises:
        WeightsError: not such a folder, damaged, or of an unknown domain.

    Example:
        >>> load("no/such/folder")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        pipelines.errors.WeightsError: no/such/folder: ...
    """
    from pipelines.domains import pipeline_class
    from pipelines.weights import read_config

    return pipeline_class(str(read_config(folder).get("domain"))).load(folder, **changes)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
