"""Metrics, conformal intervals, bootstrap, plots and reports shared by all domains."""
