"""Denoising architectures, one a file."""
