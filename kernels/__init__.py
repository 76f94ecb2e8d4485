"""Floor 2: pure functions on tensors, each with a readable reference and faster back ends behind one dispatch.

Every operation is a folder: ``reference.py`` (the equation), ``eager.py`` (vectorised torch), ``gpu.py`` (Triton),
and ``cpu.py`` only where a compiled CPU kernel is measured to beat eager twofold. Triton and numba are loaded on first
use.
"""

from __future__ import annotations

from core_attention.kernels._dispatch import BACKENDS, Operation, ops
from core_attention.kernels.binary_matmul import binary_matmul
from core_attention.kernels.delay_aggregate import delay_aggregate, delay_correlation
from core_attention.kernels.flash_softmax import flash_softmax
from core_attention.kernels.large_kernel import large_kernel
from core_attention.kernels.linear_scan import linear_scan
from core_attention.kernels.nearest_code import nearest_code
from core_attention.kernels.polyline_mask import polyline_mask
from core_attention.kernels.pooled_context import pooled_context, segment_max
from core_attention.kernels.selective_scan import selective_scan, selective_scan_step
from core_attention.kernels.split_decode import merge_partials, split_decode
from core_attention.kernels.stencil import stencil
from core_attention.kernels.window_nd import window_nd

__all__ = [
    "BACKENDS",
    "Operation",
    "binary_matmul",
    "delay_aggregate",
    "delay_correlation",
    "flash_softmax",
    "large_kernel",
    "linear_scan",
    "merge_partials",
    "nearest_code",
    "ops",
    "polyline_mask",
    "pooled_context",
    "segment_max",
    "selective_scan",
    "selective_scan_step",
    "split_decode",
    "stencil",
    "window_nd",
]
