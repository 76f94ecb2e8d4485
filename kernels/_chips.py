"""The chips that kernels are compiled for, and what a compiled kernel needs of them, read from its machine code."""

from __future__ import annotations

import math
import pathlib
import re
import subprocess
import tempfile
from dataclasses import dataclass
from typing import Any

__all__ = ["TARGETS", "Need", "Target", "need_of"]

_KIB = 1024


@dataclass(frozen=True)
class Target:
    """A chip: how Triton names it, what a block may use of it, and what a multiprocessor (compute unit) has.

    Attributes:
        backend, arch, warp: Triton's names, and threads a warp (wave).
        shared_limit: bytes of shared memory that a block may use.
        register_limit: registers that a thread may use.
        shared: bytes of shared memory of a multiprocessor.
        shared_grain, shared_reserved: in what steps they are handed out, and what the system keeps a block.
        registers: of one warp's lane in each of the multiprocessor's four quarters: a quarter's file over the lanes.
        register_grain: in what steps a warp's lane gets them.
        warps: that a quarter holds at most.
        blocks: of two warps or more that a multiprocessor holds at most; of a single warp 32 on every chip here.
    """

    backend: str
    arch: int | str
    warp: int
    shared_limit: int
    register_limit: int
    shared: int
    shared_grain: int
    shared_reserved: int
    registers: int
    register_grain: int
    warps: int
    blocks: int

    def blocks_held(self, *, warps: int, registers: int, shared: int) -> int:
        """Blocks that a multiprocessor holds at a time (occupancy), by warps, registers and shared memory.

        Args:
            warps: of a block.
            registers: of a thread.
            shared: bytes of a block.

        Example:
            >>> TARGETS["sm_90"].blocks_held(warps=4, registers=128, shared=0)
            4
        """
        a_lane = math.ceil(max(registers, 1) / self.register_grain) * self.register_grain
        by_warps = 4 * min(self.warps, self.registers // a_lane) // warps
        a_block = math.ceil((shared + self.shared_reserved) / self.shared_grain) * self.shared_grain
        by_shared = self.shared // a_block if a_block else by_warps
        return min(by_warps, by_shared, self.blocks if warps > 1 else 32)


def _nvidia(arch: int, shared: int) -> Target:
    """CUDA C++ Programming Guide, "Technical Specifications per Compute Capability": a block may have all but 1 KiB.

    A thread names 255 registers; the object file records what it is allotted, which is then 256.
    """
    return Target("cuda", arch, 32, (shared - 1) * _KIB, 256, shared * _KIB, 128, _KIB, 512, 8, 16, 32)


TARGETS = {
    "sm_80": _nvidia(80, 164),
    "sm_90": _nvidia(90, 228),
    "sm_100": _nvidia(100, 228),
    # LLVM's AMDGPU back end: 512 registers a lane with the accumulators among them, in eights; 8 waves a SIMD; 16
    # work-groups (barriers) a compute unit; local memory in steps of 512 bytes.
    "gfx942": Target("hip", "gfx942", 64, 64 * _KIB, 512, 64 * _KIB, 512, 0, 512, 8, 8, 16),
}


@dataclass(frozen=True)
class Need:
    """What the machine code of one kernel needs.

    Attributes:
        registers: of a thread; on AMD vector registers with accumulators.
        spills: loads and stores of local memory (NVIDIA), registers spilled (AMD).
        tensor: instructions of the tensor cores (matrix cores).
    """

    registers: int
    spills: int
    tensor: int


def need_of(target: Target, kernel: Any) -> Need:
    """Read a compiled kernel.

    Args:
        target: the chip that it was compiled for.
        kernel: what Triton's compiler returned.

    Raises:
        RuntimeError: the code does not say what it needs.
    """
    return _of_nvidia(kernel) if target.backend == "cuda" else _of_amd(kernel)


def _of_nvidia(kernel: Any) -> Need:
    import triton

    tools = pathlib.Path(str(triton.__file__)).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage = _output([str(tools / "cuobjdump"), "-res-usage", file.name])
        code = _output([str(tools / "nvdisasm"), "-c", file.name])
    found = re.search(r"REG:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump named no registers for {kernel.metadata.name}: {usage.strip()[-200:]}")
    return Need(int(found[1]), len(re.findall(r"\b(?:LDL|STL)\b", code)), tensor_instructions(code))


def tensor_instructions(code: str) -> int:
    """Count instructions of the tensor cores in disassembled code.

    NVIDIA's all end in MMA: HMMA, IMMA and DMMA of a warp, HGMMA of four (sm_90), UTCHMMA and its like (sm_100).

    Example:
        >>> tensor_instructions("/*0100*/  HMMA.16816.F32.BF16 R4, R8, R12, R4 ;")
        1
        >>> tensor_instructions("v_mfma_f32_16x16x16_bf16 v[0:3], v[4:5], v[6:7], v[0:3]")
        1
    """
    return len(re.findall(r"\b(?:UTC)?[A-Z]{1,2}G?MMA\b|\bv_s?mf(?:ma|mac)_\w+", code))


def _of_amd(kernel: Any) -> Need:
    text = kernel.asm["amdgcn"]

    def count(key: str) -> int:
        found = re.search(rf"\.{key}:\s+(\d+)", text)
        if found is None:
            raise RuntimeError(f"the assembly of {kernel.metadata.name} names no {key}")
        return int(found[1])

    # Scalar registers spill into lanes of vector registers, which count as such; only vector spills go to memory.
    return Need(count("vgpr_count"), count("vgpr_spill_count"), tensor_instructions(text))


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr
