"""Forecasting architectures, one a file, and the adapter that gives them one forward."""

from pipelines.forecast.models.adapter import ForecastModule, build_model

__all__ = ["ForecastModule", "build_model"]
