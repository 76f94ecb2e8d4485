"""Hyperspectral denoising: from a noisy cube on disk to a clean one, with figures and a report."""
