"""Readers, one file format family a module."""
