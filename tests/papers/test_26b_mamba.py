"""Mamba (arXiv:2312.00752): the selective scan against the output of the authors' own reference function."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import torch

from core_attention.kernels import selective_scan

GOLDEN = pathlib.Path(__file__).parent / "golden" / "mamba_selective_scan.npz"


@pytest.mark.parametrize("backend", ["reference", "eager", "cpu"])
def test_golden_vectors(backend: str) -> None:
    given = {name: torch.from_numpy(values) for name, values in np.load(GOLDEN).items()}
    expected, bias = given.pop("out"), given.pop("bias")
    found = selective_scan(**given, delta_bias=bias, delta_softplus=True, backend=backend)
    assert (found - expected).abs().max() < 1e-4
