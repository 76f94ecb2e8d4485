"""Filter rates of attention: how much of what tells tokens apart its weights carry on, mechanism by mechanism."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core_attention.contract import MixerOutput, TokenMixer
from pipelines.errors import ConfigError, InputError

__all__ = ["FilterRates", "filter_rate", "filter_rates", "heuristic_rate"]

_STEPS = 32


@dataclass(frozen=True)
class FilterRates:
    """Filter rates of a model's attentions over the length.

    Attributes:
        lengths: (K,) what the model was run on.
        tokens: (K, A) mean number of valid tokens that each attention saw: shorter than the text where the model works
            in blocks.
        rates: (K, A, H) mean filter rate; NaN for heads that an attention does not have.
        layers: names of the A attentions.
        notes: attentions that show no weights.
    """

    lengths: NDArray[np.int64]
    tokens: NDArray[np.float64]
    rates: NDArray[np.float64]
    layers: tuple[str, ...]
    notes: tuple[str, ...] = ()


def filter_rate(maps: Tensor, mask: Tensor | None = None, *, steps: int = _STEPS) -> Tensor:
    """Largest factor by which attention weights A carry differences between tokens on: sigma_max((I - 11^T/n) A).

    Powers of the matrix on a start vector, and the largest singular value within what they span: no n x n matrix but
    the weights themselves is formed, and none is decomposed.

    Args:
        maps: (..., n, n) weights, rows are queries; a mask needs (B, H, n, n).
        mask: (B, n) bool, True = valid; n is then the number of valid tokens.
        steps: powers. The value is found from below; in 32, of random weights of 512 tokens, to 0.1 %.

    Returns:
        (...,), at least 0; 0 for a single token.

    Raises:
        InputError: no square weights.

    Complexity: O(n^2 steps) time a head. Source: arXiv 2410.24200, the filter rate of self-attention.

    Example:
        >>> filter_rate(torch.eye(4)).round(decimals=4).item(), filter_rate(torch.full((4, 4), 0.25)).item() < 1e-6
        (1.0, True)
    """
    if maps.dim() < 2 or maps.shape[-1] != maps.shape[-2]:
        raise InputError("not square", where="maps", found=tuple(maps.shape), expected="(..., n, n)")
    if mask is not None and (maps.dim() != 4 or mask.shape != (maps.shape[0], maps.shape[-1])):
        raise InputError("not of these maps", where="mask", found=tuple(mask.shape), expected="(B, n)")
    wide = maps.to(torch.promote_types(maps.dtype, torch.float32))
    size = maps.shape[-1]
    valid = wide.new_ones(size) if mask is None else mask[:, None, :].to(wide)
    count = valid.sum(-1, keepdim=True).clamp(min=1)
    start = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(wide)
    vector = _unit(start.expand(wide.shape[:-1]) * valid)
    powers: list[Tensor] = []
    images: list[Tensor] = []
    for _ in range(min(steps, size)):
        image = (wide @ vector.unsqueeze(-1)).squeeze(-1) * valid
        image = (image - image.sum(-1, keepdim=True) / count) * valid
        powers.append(vector)
        images.append(image)
        power = (wide.transpose(-1, -2) @ image.unsqueeze(-1)).squeeze(-1) * valid
        vector, span = power, torch.stack(powers, -1)
        for _ in range(2):  # once more, for what rounding left
            vector = vector - (span @ (span.transpose(-1, -2) @ vector.unsqueeze(-1))).squeeze(-1)
        vector = _unit(vector, power)
    seen = torch.stack(images, -1)
    return torch.linalg.eigvalsh((seen.transpose(-1, -2) @ seen).double())[..., -1].clamp(min=0).sqrt().to(wide)


def filter_rates(model: nn.Module, run: Callable[[int], Any], lengths: Sequence[int]) -> FilterRates:
    """Filter rates of every attention in a model, over the length of what it reads.

    Args:
        model: holds mechanisms that return their weights on request (``maps=True``), as ``softmax`` does; also a
            mechanism itself.
        run: runs the model on an input of a length, e.g. ``lambda n: model.encode(ids[:, :n])``.
        lengths: what to run it on.

    Returns:
        means over the batch and over calls, where a model calls an attention more than once.

    Raises:
        ConfigError: no mechanism that shows square weights, or none that is run.

    Of independent scores rates fall with the length. Where heads have few channels and sharp scores, queries agree on a
    few keys and rates need not fall: what is returned is measured, not the theory.

    Complexity: O(n^2) memory a head while an attention is measured. The model runs in evaluation mode and without
    gradients.

    Example:
        >>> from core_attention import build
        >>> mixer = build("softmax", 16, 4)
        >>> found = filter_rates(mixer, lambda n: mixer(torch.randn(2, n, 16)), [8, 64])
        >>> found.rates.shape, bool((found.rates > 0).all())
        ((2, 1, 4), True)
    """
    mixers = {name: module for name, module in model.named_modules() if isinstance(module, TokenMixer)}
    shown = {name: mixer for name, mixer in mixers.items() if "maps" in inspect.signature(mixer.mix).parameters}
    found = [_measured(model, shown, run, int(n)) for n in lengths]
    layers = [name for name in shown if any(name in at for at in found)]
    if not layers:
        names = ", ".join(sorted({mixer.spec.name for mixer in mixers.values()})) or "no mechanism"
        cure = 'build the encoder with attention="softmax" or "length_temperature"'
        expected = "a mechanism that returns weights of every token for every token"
        raise ConfigError("nothing to measure", where="model", found=names, expected=expected, cure=cure)
    heads = max(len(rate) for at in found for _, rate in at.values())
    rates, tokens = np.full((len(found), len(layers), heads), np.nan), np.full((len(found), len(layers)), np.nan)
    for i, at in enumerate(found):
        for j, name in enumerate(layers):
            if name in at:
                tokens[i, j], rate = at[name]
                rates[i, j, : len(rate)] = rate
    silent = len(mixers) - len(layers)
    notes = (f"{silent} of {len(mixers)} mechanisms show no square weights and were left out",) if silent else ()
    names = tuple(name or model.__class__.__name__ for name in layers)
    return FilterRates(np.asarray(lengths, dtype=np.int64), tokens, rates, names, notes)


def heuristic_rate(tokens: int, spread: float) -> float:
    """The estimate of the filter rate that circulates for Gaussian scores of a spread: a trend, no bound.

    sqrt(n / (2 sqrt(1 + exp(-2 s^2)) (n - 1)^1.5 + 1)). Independent scores of spread 1 exceed it up to 256 tokens,
    those of spread 2 at every length, fivefold at 512.

    Example:
        >>> round(heuristic_rate(64, 0.5), 3)
        0.225
    """
    return math.sqrt(tokens / (2 * math.sqrt(1 + math.exp(-2 * spread**2)) * (tokens - 1) ** 1.5 + 1))


def _measured(
    model: nn.Module, mixers: Mapping[str, TokenMixer], run: Callable[[int], Any], length: int
) -> dict[str, tuple[float, NDArray[np.float64]]]:
    """By attention that was run: mean valid tokens and mean rate (H,)."""
    sums: dict[str, list[tuple[float, Tensor, int]]] = {}

    def record(name: str, arguments: dict[str, Any], out: MixerOutput) -> None:
        maps = out.aux.get("maps")
        if maps is None or maps.dim() != 4 or maps.shape[-1] != maps.shape[-2]:
            return
        mask = arguments.get("mask")
        rows = len(maps) if mask is None else int(mask.any(1).sum())
        if not rows:
            return
        total = float(maps.shape[0] * maps.shape[-1] if mask is None else mask.sum())
        kept, where = (maps, None) if mask is None else (maps[mask.any(1)], mask[mask.any(1)])
        sums.setdefault(name, []).append((total, filter_rate(kept, where).sum(0).double().cpu(), rows))

    with torch.no_grad(), _watched(model, mixers, record):
        run(length)
    found: dict[str, tuple[float, NDArray[np.float64]]] = {}
    for name, calls in sums.items():
        rows = sum(count for _, _, count in calls)
        rate = torch.stack([rate for _, rate, _ in calls]).sum(0) / rows
        found[name] = (sum(total for total, _, _ in calls) / rows, rate.numpy())
    return found


@contextlib.contextmanager
def _watched(
    model: nn.Module, mixers: Mapping[str, TokenMixer], record: Callable[[str, dict[str, Any], MixerOutput], None]
) -> Iterator[None]:
    """While it lasts, mechanisms return their weights, ``record`` sees them, and the model is in evaluation mode."""

    def ask(module: nn.Module, args: tuple[Any, ...], arguments: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**arguments, "maps": True}

    modes = [(module, module.training) for module in model.modules()]
    hooks = []
    for name, mixer in mixers.items():
        hooks.append(mixer.register_forward_pre_hook(ask, with_kwargs=True))

        def see(module: nn.Module, args: Any, arguments: dict[str, Any], out: MixerOutput, name: str = name) -> None:
            record(name, arguments, out)

        hooks.append(mixer.register_forward_hook(see, with_kwargs=True))
    model.eval()
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training


def _unit(vector: Tensor, of: Tensor | None = None) -> Tensor:
    """Rows (..., n) of length one; what is mere rounding beside rows ``of`` becomes zeros, and adds nothing."""
    length = torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
    before = length if of is None else torch.linalg.vector_norm(of, dim=-1, keepdim=True)
    something = length > 100 * torch.finfo(vector.dtype).eps * before
    return torch.where(something, vector / torch.where(something, length, 1.0), 0.0)
