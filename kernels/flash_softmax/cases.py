"""Arguments that softmax attention is tested, inspected and measured with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._testing import Bad, Case, non_contiguous

__all__ = ["BAD", "CASES", "GPU_DTYPES", "INSPECTED", "INTERPRETED", "operands"]

GPU_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def operands(
    sizes: Sequence[int],
    dtype: torch.dtype,
    generator: torch.Generator,
    *,
    mask: str = "",
    bias: Sequence[int] | None = None,
    temperature: bool = False,
    sink: bool = False,
    layout: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> tuple[Tensor | None, ...]:
    """Random tensors in the operation's order for sizes (B, T, S, H, G, D, Dv).

    Args:
        sizes: of the seven dimensions.
        dtype: of the floating-point ones.
        generator: of the random numbers.
        mask: "" for none, "ends" for padded samples, "all" where the first sample has no valid key.
        bias: its shape.
        temperature: whether to give one.
        sink: whether to give one.
        layout: applied to q, k and v.
    """

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    B, T, S, H, G, D, Dv = sizes
    q, k, v = layout(randn(B, T, H, D)), layout(randn(B, S, G, D)), layout(randn(B, S, G, Dv))
    valid = torch.arange(S)[None, :] < torch.arange(S, S - B, -1).clamp(min=1)[:, None]
    if mask == "all":
        valid[0] = False
    warmth = (0.5 + torch.rand((B, T, H), generator=generator, dtype=torch.float64)).to(dtype)
    return (
        q,
        k,
        v,
        valid if mask else None,
        randn(*bias) if bias is not None else None,
        warmth if temperature else None,
        randn(H) if sink else None,
    )


def _case(name: str, sizes: Sequence[int], options: dict[str, Any] | None = None, **given: Any) -> Case:
    return Case(name, lambda dtype, generator: operands(sizes, dtype, generator, **given), options or {})


_EVERYTHING = {"mask": "ends", "temperature": True, "sink": True}
_USUAL = _case("usual", (2, 12, 12, 4, 2, 8, 8), {"causal": True}, bias=(4, 12, 12), **_EVERYTHING)
_FIRST = (
    _USUAL,
    _case("plain", (2, 13, 9, 2, 2, 6, 6)),
    _case("one row", (3, 1, 9, 2, 1, 8, 8), {"causal": True}),
    _case("one query, wider values", (2, 1, 21, 4, 2, 5, 11), {"causal": True}, mask="ends"),
    _case("narrower values", (1, 7, 10, 2, 1, 9, 3), {"scale": 0.7}, sink=True),
)
CASES = {
    "flash_softmax": (
        *_FIRST,
        _case("causal", (1, 70, 70, 2, 2, 16, 16), {"causal": True}),
        _case("more keys than queries", (2, 19, 45, 2, 1, 8, 8), {"causal": True}, mask="ends"),
        _case("more queries than keys", (2, 45, 19, 2, 1, 8, 8), {"causal": True}, temperature=True),
        _case("causal window", (1, 150, 150, 2, 1, 8, 8), {"causal": True, "window": 9}, sink=True),
        _case("window both ways", (2, 90, 75, 2, 2, 8, 8), {"window": 17}, mask="ends"),
        _case("lopsided window", (1, 33, 40, 2, 1, 7, 7), {"window": (5, 2)}, bias=(1, 2, 33, 40)),
        _case("window open to the left", (1, 30, 22, 2, 1, 7, 7), {"window": (-1, 3)}),
        _case("nothing valid", (2, 11, 8, 2, 1, 4, 4), {"causal": True}, mask="all"),
        _case("nothing valid but a sink", (2, 9, 8, 2, 1, 4, 4), {}, mask="all", sink=True),
        _case("bias of a batch", (2, 10, 17, 4, 2, 8, 8), {}, bias=(2, 1, 10, 1), temperature=True),
        _case("bias of keys", (2, 10, 17, 2, 2, 8, 8), {"causal": True}, bias=(2, 1, 1, 17)),
        _case("bias of everything", (2, 6, 7, 2, 1, 4, 4), {"window": 5}, bias=(2, 2, 6, 7)),
        _case("bias of heads", (2, 6, 7, 2, 1, 4, 4), {}, bias=(2, 1, 1)),
        _case("not contiguous", (2, 14, 11, 4, 2, 6, 5), {"causal": True}, layout=non_contiguous, **_EVERYTHING),
        # Long enough for the fused backward pass of eager.
        _case("long", (2, 290, 270, 2, 1, 32, 24), {"causal": True}, mask="ends", sink=True),
        _case("long and alone", (1, 260, 260, 2, 2, 32, 32)),
        _case("long window", (1, 530, 530, 1, 1, 32, 32), {"causal": True, "window": 200}),
    )
}
INTERPRETED = {  # the interpreter takes 50 ms a program: few heads
    "flash_softmax": (
        _case("usual", (1, 12, 12, 2, 1, 8, 8), {"causal": True}, bias=(2, 12, 12), **_EVERYTHING),
        _case("one row", (1, 1, 9, 2, 1, 8, 8), {"causal": True}),
        _case("more keys than queries", (2, 19, 75, 1, 1, 5, 20), {"causal": True}, mask="ends"),
        _case("more queries than keys", (1, 75, 39, 1, 1, 20, 5), {"causal": True}, temperature=True),
        _case("causal window", (1, 90, 90, 1, 1, 8, 8), {"causal": True, "window": 9}, sink=True),
        _case("lopsided window", (1, 33, 40, 2, 1, 7, 7), {"window": (5, 2)}, bias=(1, 2, 33, 40)),
        _case("nothing valid", (2, 11, 8, 1, 1, 4, 4), {"causal": True}, mask="all"),
        _case("nothing valid but a sink", (2, 9, 8, 1, 1, 4, 4), {}, mask="all", sink=True, bias=(1, 1, 8)),
        _case("not contiguous", (1, 14, 11, 4, 2, 6, 5), {}, layout=non_contiguous, bias=(4, 14, 1)),
    )
}
INSPECTED = {
    "flash_softmax": (
        _case("D64", (2, 512, 512, 8, 2, 64, 64), {"causal": True}),
        _case("D128", (1, 512, 512, 8, 8, 128, 128), {"window": 256}, bias=(1, 8, 512, 512), **_EVERYTHING),
        _case("D40", (1, 77, 300, 4, 2, 40, 40), bias=(1, 4, 1, 300), sink=True),
        _case("D256", (1, 128, 128, 2, 1, 256, 256), {"causal": True}, **_EVERYTHING),
    )
}
BAD = {
    "flash_softmax": (
        Bad("three dimensions", {"q": lambda q: q[0]}, r"q: found shape \(12, 4, 8\), expected 4 dimensions"),
        Bad("whole queries", {"q": lambda q: q.long()}, "q: found torch.int64, expected a floating-point"),
        Bad("no keys", {"k": lambda k: k[:, :0]}, r"k: found shape \(2, 0, 2, 8\).*no empty dimension"),
        Bad("another batch", {"k": lambda k: k[:1]}, r"k: found shape \(1, 12, 2, 8\), expected .* B = 2"),
        Bad("other channels", {"k": lambda k: k[..., :3]}, "k: found shape .* D = 8"),
        Bad("heads that do not group", {"k": lambda k: torch.cat([k, k[:, :, :1]], 2)}, "k: found 3 heads, expected"),
        Bad("values of other keys", {"v": lambda v: v[:, :5]}, r"v: found shape \(2, 5, 2, 8\), expected \(2, 12, 2"),
        Bad("dtypes mixed", {"v": lambda v: v.double()}, "v: found torch.float64, expected torch.float32"),
        Bad("keys elsewhere", {"k": lambda k: k.to("meta")}, "k: found on meta, expected on cpu"),
        Bad("mask not bool", {"key_mask": lambda m: m.float()}, "key_mask: found torch.float32, expected torch.bool"),
        Bad("mask of queries", {"key_mask": lambda m: m[:, :5]}, r"key_mask: found shape \(2, 5\), expected \(2, 12\)"),
        Bad("mask elsewhere", {"key_mask": lambda m: m.to("meta")}, "key_mask: found on meta"),
        Bad(
            "bias too small", {"bias": lambda b: b[:, :5]}, r"bias: found shape \(4, 5, 12\), expected .*\(2, 4, 12, 12"
        ),
        Bad("bias of five", {"bias": lambda b: b[None, None]}, "bias: found shape"),
        Bad("bias wider", {"bias": lambda b: b.double()}, "bias: found torch.float64, expected torch.float32"),
        Bad("whole bias", {"bias": lambda b: b.long()}, "bias: found torch.int64, expected a floating-point"),
        Bad(
            "a temperature a head", {"query_temperature": lambda t: t[:, 0]}, r"query_temperature: found shape \(2, 4\)"
        ),
        Bad("sinks of groups", {"sink": lambda s: s[:2]}, r"sink: found shape \(2,\), expected \(4,\)"),
        Bad("no window", {"window": 0}, "window: found 0, expected at least 1"),
        Bad("half a window", {"window": (3, 1.5)}, r"window: found \(3, 1.5\), expected"),
        Bad("window of three", {"window": (1, 2, 3)}, "window: found"),
        Bad("no scale", {"scale": float("nan")}, "scale: found nan, expected a finite number"),
    )
}
