"""Softmax attention with a temperature below one, against the collapse of long texts towards one vector."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from core_attention.contract import MechanismError
from core_attention.mechanisms.softmax import Softmax
from core_attention.registry import mechanism
from core_attention.state import KeyValueState

USUAL = 0.7


@mechanism(
    name="length_temperature",
    paper="arXiv 2410.24200",
    year=2025,
    complexity="L^2",
    memory="L",
    kind="modifier",
    causal=True,
    context=True,
    mask=True,
    streaming=True,
)
class LengthTemperature(Softmax):
    """Softmax attention whose scores are divided by a temperature: constant, or falling with the number of tokens.

        softmax(Q K^T / (tau sqrt(D))) V        tau constant, or tau(n) = 1 - slope ln(n / reference)

    Averaging over more tokens filters more of what tells them apart, so that long texts end up alike; sharper weights
    filter less. n counts the valid keys that a query may see: padding does not count, with ``causal`` n grows along
    the sequence. No parameters beside those of ``softmax``, whose names are kept, and the fused attention stays in use.
    For a model that is built already see ``cooled``. O(T S C) time, O(T C) memory.

    Source: Length-Induced Embedding Collapse (arXiv 2410.24200), TempScale; temperatures of .5 to .8 were found best.
    That tau may follow the length is an extension of ours.

    Args:
        dim: channels C.
        num_heads: heads H.
        temperature: tau; 0.7 where neither it nor a slope is given.
        slope: how fast tau(n) falls; instead of ``temperature``.
        reference: number of tokens at which tau(n) is 1.
        floor: tau(n) is never smaller; nor larger than 1 / floor.
        causal, dropout, qkv_bias, out_bias: as of ``softmax``.

    Raises:
        MechanismError: as of ``softmax``; a temperature or reference that is not positive, a floor outside (0, 1], a
            slope that is negative or given beside a temperature.

    Example:
        >>> import torch
        >>> plain, sharp = Softmax(16, 4), LengthTemperature(16, 4, temperature=0.5)
        >>> _ = sharp.load_state_dict(plain.state_dict())
        >>> x = torch.randn(1, 9, 16)
        >>> entropy = lambda mixer: torch.special.entr(mixer(x, maps=True).aux["maps"]).sum()
        >>> bool(entropy(sharp) < entropy(plain))
        True
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        temperature: float | None = None,
        slope: float | None = None,
        reference: float = 128.0,
        floor: float = 0.1,
        causal: bool = False,
        dropout: float = 0.0,
        qkv_bias: bool = True,
        out_bias: bool = True,
    ) -> None:
        super().__init__(dim, num_heads, causal=causal, dropout=dropout, qkv_bias=qkv_bias, out_bias=out_bias)
        if temperature is not None and slope is not None:
            raise MechanismError("length_temperature: temperature and slope are given, expected one of them")
        if slope is not None and not 0 <= slope < math.inf:
            raise MechanismError(f"length_temperature: slope is {slope}, expected a number of at least 0")
        if not 0 < reference < math.inf or not 0 < floor <= 1:
            found = f"reference={reference}, floor={floor}"
            raise MechanismError(f"length_temperature: {found}, expected a positive reference, a floor in (0, 1]")
        self.slope, self.reference, self.floor = slope, float(reference), float(floor)
        self.temperature = _positive(USUAL if temperature is None else temperature)

    def _attend(self, q: Tensor, kept: KeyValueState, maps: bool) -> tuple[Tensor, dict[str, Tensor]]:
        # The queries are scaled, not the scores: torch's fused attention takes them as they are.
        if self.slope is None:
            return super()._attend(q / self.temperature, kept, maps)
        queries, keys = q.shape[2], kept.keys.shape[2]
        if kept.valid is None:
            seen = torch.arange(1, keys + 1, device=q.device).unsqueeze(0)
        else:
            seen = kept.valid.cumsum(dim=1)
        seen = seen[:, keys - queries :] if self.causal else seen[:, -1:]
        wide = torch.promote_types(q.dtype, torch.float32)
        tau = 1 - self.slope * (seen.clamp(min=1).to(wide) / self.reference).log()
        tau = tau.clamp(self.floor, 1 / self.floor).to(q.dtype)
        return super()._attend(q / tau[:, None, :, None], kept, maps)


@contextlib.contextmanager
def cooled(model: nn.Module, temperature: float) -> Iterator[int]:
    """Run every softmax attention of a model at a temperature while the block lasts, then as before.

    Args:
        model: holds mechanisms ``softmax`` (or ``length_temperature``, whose own temperature is then divided further).
        temperature: the scores are divided by it; 1 changes nothing.

    Yields:
        how many attentions were changed.

    Raises:
        MechanismError: a temperature that is not positive, or a model without such attention: nothing is passed over
            in silence.

    Complexity: O(modules). Source: Length-Induced Embedding Collapse (arXiv 2410.24200), TempScale, which is applied to
    trained models only when they are used.

    Example:
        >>> mixer = Softmax(8, 2)
        >>> with cooled(mixer, 0.7) as count:
        ...     print(count, round(float(mixer.query_scale), 3))
        1 1.429
        >>> mixer.query_scale is None
        True
    """
    factor = 1 / _positive(temperature)
    found = [module for module in model.modules() if isinstance(module, Softmax)]
    if not found:
        kind = type(model).__name__
        raise MechanismError(f"{kind} holds no softmax attention of this library: a temperature would change nothing")
    before = [module.query_scale for module in found]
    try:
        for module, scale in zip(found, before, strict=True):
            usual = module.out_projection.weight.new_ones(1, 1, 1) if scale is None else scale
            module.query_scale = usual * factor
        yield len(found)
    finally:
        for module, scale in zip(found, before, strict=True):
            module.query_scale = scale


def _positive(temperature: float) -> float:
    if not 0 < temperature < math.inf:
        raise MechanismError(f"length_temperature: temperature is {temperature}, expected a positive number")
    return float(temperature)
