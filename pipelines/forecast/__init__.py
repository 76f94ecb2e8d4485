"""Forecasting: from a table on disk to forecasts with intervals, figures and a report."""
