"""The domains that exist: name -> where its pipeline class lives. Imports nothing heavy."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.base import Pipeline


@dataclass(frozen=True)
class Domain:
    """A domain's command, class and purpose; the verbs beyond the common five."""

    name: str
    module: str
    cls: str
    summary: str


#: A new domain is one line here (CONTRIBUTING.md shows the rest).
DOMAINS: dict[str, Domain] = {
    "forecast": Domain(
        "forecast", "pipelines.forecast.pipeline", "Forecaster", "forecast time series from a table (CSV, Parquet)"
    ),
    "classify": Domain(
        "classify",
        "pipelines.classify.pipeline",
        "Classifier",
        "classify time series (.ts, .arff, .tsv, NPZ, tables, arrays)",
    ),
    "match": Domain(
        "match",
        "pipelines.match.pipeline",
        "Matcher",
        "match long documents (text, Markdown, RST, HTML, PDF; folders, pairs)",
    ),
    "fmri": Domain(
        "fmri",
        "pipelines.fmri.pipeline",
        "BrainModel",
        "tell from 4-D brain scans what was seen, or whom they are of",
    ),
    "superres": Domain(
        "superres", "pipelines.superres.pipeline", "SuperResolver", "enlarge photographs (PNG, JPEG, WebP, TIFF)"
    ),
    "denoise": Domain(
        "denoise", "pipelines.denoise.pipeline", "Denoiser", "denoise hyperspectral cubes (MATLAB, ENVI, GeoTIFF, FITS)"
    ),
    "pose": Domain("pose", "pipelines.pose.pipeline", "PoseLifter", "lift 2-D joints of people to 3-D poses"),
    "world": Domain(
        "world", "pipelines.world.pipeline", "WorldModel", "predict what comes next in films and environments"
    ),
    "transcribe": Domain(
        "transcribe",
        "pipelines.transcribe.pipeline",
        "Transcriber",
        "turn speech into text with times (WAV, FLAC, MP3, video)",
    ),
}

#: Verbs that every domain has.
COMMON_VERBS: dict[str, str] = {
    "demo": "run on the embedded real data: figures, a picture, a report (also: no verb at all)",
    "fit": "learn from --data and write the model into a folder",
    "predict": "answer for the files given",
    "evaluate": "measure on held-out data beside the baselines",
    "export": "write the model as a torch.export archive (pt2) or ONNX, compared against eager",
}


def pipeline_class(domain: str) -> type[Pipeline]:
    """The class behind a domain's name.

    Raises:
        ConfigError: no such domain; the nearest name is suggested.

    Example:
        >>> pipeline_class("forecast").__name__
        'Forecaster'
    """
    if domain not in DOMAINS:
        raise ConfigError(
            "unknown domain", where=domain, expected=", ".join(DOMAINS), cure=did_you_mean(domain, DOMAINS) or None
        )
    found = DOMAINS[domain]
    return getattr(importlib.import_module(found.module), found.cls)


def did_you_mean(name: str, known: object) -> str:
    """A short suggestion, or an empty text when nothing is near.

    Example:
        >>> did_you_mean("dlinaer", ["dlinear", "linear"])
        'did you mean dlinear?'
    """
    import difflib

    near = difflib.get_close_matches(name, [str(k) for k in known], n=1, cutoff=0.6)  # type: ignore[attr-defined]
    return f"did you mean {near[0]}?" if near else ""
