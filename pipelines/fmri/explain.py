"""Which voxels told: integrated gradients of any model of windows.

Source: M. Sundararajan, A. Taly, Q. Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, equation 1 (the path
integral) and proposition 1 (completeness). Torch is imported where it is used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import ConfigError, InputError, RunError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Attribution", "Baseline", "Rule", "baseline_window", "integrated_gradients", "path_points"]

Rule = Literal["legendre", "midpoint"]
Baseline = Literal["background", "mean"]
_RULES = ("legendre", "midpoint")


@dataclasses.dataclass(frozen=True, eq=False)
class Attribution:
    """What each voxel of each window adds to an output, and how far the sum is from what it must be.

    Args:
        values: (B, X, Y, Z, T) in the unit of the output.
        difference: (B,) output for the window minus output for the baseline.
        gap: (B,) sum of the values minus the difference: the error of the numerical integral.
    """

    values: Tensor
    difference: Tensor
    gap: Tensor

    @property
    def relative(self) -> Tensor:
        """(B,) size of the gap as a share of the difference; infinite where the outputs are equal and a gap is left."""
        size, apart = self.gap.abs(), self.difference.abs()
        return size.where(size == 0, size / apart)


def path_points(steps: int, rule: Rule = "legendre") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points on the way from the baseline (0) to the window (1) and their weights, which add up to 1.

    Args:
        steps: how many, at least 1.
        rule: ``legendre`` (Gauss-Legendre, exact for polynomials of degree 2 steps - 1) or ``midpoint``.

    Returns:
        (steps,) points and (steps,) weights.

    Raises:
        ConfigError: fewer than one step, or a rule that does not exist.

    Example:
        >>> points, weights = path_points(2, "midpoint")
        >>> points.tolist(), weights.tolist()
        ([0.25, 0.75], [0.5, 0.5])
    """
    if steps < 1:
        raise ConfigError("integrated gradients need a step", where="steps", found=steps, expected="at least 1")
    if rule == "midpoint":
        return (np.arange(steps) + 0.5) / steps, np.full(steps, 1.0 / steps)
    if rule != "legendre":
        raise ConfigError("no such rule of integration", where="rule", found=rule, expected=" or ".join(_RULES))
    points, weights = np.polynomial.legendre.leggauss(steps)
    return (points + 1) / 2, weights / 2


def baseline_window(
    kind: Baseline, shape: Sequence[int], *, fill: float | None = None, mean: ArrayLike | None = None
) -> Tensor:
    """The window that a map is measured from.

    Args:
        kind: ``background``: every voxel has the value of the background; ``mean``: the mean window of the training.
        shape: (X, Y, Z, T) of the model's windows.
        fill: value of the background.
        mean: (X, Y, Z) or (X, Y, Z, T); the first stands still over the window.

    Returns:
        (1, 1, X, Y, Z, T) float32.

    Raises:
        ConfigError: a kind that does not exist, or one whose value is not given.
        InputError: a mean of another grid, or one that is not finite.

    Complexity: O(X Y Z T).

    Example:
        >>> baseline_window("background", (2, 2, 1, 3), fill=-1.5).unique().tolist()
        [-1.5]
    """
    import torch

    grid = tuple(shape)
    if kind == "background":
        if fill is None or not math.isfinite(fill):
            raise ConfigError("the value of the background is not known", where="baseline", found=fill)
        return torch.full((1, 1, *grid), float(fill))
    if kind != "mean":
        raise ConfigError("no such baseline", where="baseline", found=kind, expected="background or mean")
    if mean is None:
        cure = "take the background as the baseline, or fit the model again"
        raise ConfigError("the mean window of the training is not known", where="baseline", cure=cure)
    values = np.asarray(mean, np.float32)
    if values.shape not in (grid, grid[:3]):
        raise InputError("the mean window has another grid", where="baseline", found=values.shape, expected=grid)
    if not np.isfinite(values).all():
        raise InputError("the mean window has values that are not finite", where="baseline")
    whole = values if values.ndim == 4 else np.broadcast_to(values[..., None], grid)
    return torch.from_numpy(np.array(whole))[None, None]


def integrated_gradients(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    baseline: Tensor,
    *,
    target: int | Sequence[int] | Tensor = 0,
    steps: int = 32,
    batch: int = 4,
    rule: Rule = "legendre",
) -> Attribution:
    """Integrate the gradient of an output along the straight way from a baseline to each window.

    Args:
        function: (N, 1, X, Y, Z, T) -> (N, K) or (N,). A module is asked in evaluation mode and left as it was.
        x: (B, 1, X, Y, Z, T) windows, on the device of the function.
        baseline: (1 or B, 1, X, Y, Z, T).
        target: which of the K outputs: one for all windows, or (B,).
        steps: points of the integral.
        batch: points that are held at once: memory grows with it, the answer does not change.
        rule: how the points lie, see :func:`path_points`.

    Raises:
        InputError: shapes that do not fit.
        ConfigError: steps, batch, rule or target out of range, or an output that does not depend on the window.
        RunError: outputs or gradients that are not finite.

    Complexity: B steps forward and backward passes; memory of `batch` passes and four windows for each of the B.

    Source: ICML 2017, equation 1: (x - x') times the integral of the gradient at x' + a (x - x') over a from 0 to 1.

    Example:
        >>> import torch
        >>> weight = torch.arange(8.0).reshape(1, 1, 2, 2, 1, 2)
        >>> window = torch.ones(1, 1, 2, 2, 1, 2)
        >>> found = integrated_gradients(lambda w: (w * weight).flatten(1).sum(1), window, torch.zeros_like(window))
        >>> found.values.flatten().round(decimals=4).tolist(), found.difference.item(), abs(found.gap.item()) < 1e-4
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 28.0, True)
    """
    import torch

    points, weights = path_points(steps, rule)
    _check_windows(x, baseline, batch)
    count = len(x)
    # Windows that a caller made under inference_mode cannot carry gradients: they are copied outside of it.
    with torch.inference_mode(False), torch.enable_grad(), _undisturbed(function):
        start = baseline.detach().to(x).clone()
        way = x.detach().clone() - start
        wanted = _wanted(target, count, x.device)
        total = torch.zeros_like(way)
        for low in range(0, count * steps, batch):
            places = np.arange(low, min(low + batch, count * steps))
            rows = torch.from_numpy(places // steps).to(x.device)
            at = torch.as_tensor(points[places % steps]).to(x).reshape(-1, 1, 1, 1, 1, 1)
            share = torch.as_tensor(weights[places % steps]).to(x).reshape(-1, 1, 1, 1, 1, 1)
            here = (_rows(start, rows) + at * way[rows]).requires_grad_()
            slope = _slope(function, here, wanted[rows])
            total.index_add_(0, rows, slope * share)
        values = (way * total).sum(1)
        ends = _outputs(function, start + way, wanted, batch)
        starts = _outputs(function, start, wanted, batch)
    difference = ends - starts
    if not bool(torch.isfinite(values).all() & torch.isfinite(difference).all()):
        raise RunError("the model's outputs or gradients are not finite: no map can be made of them")
    gap = values.flatten(1).sum(1, dtype=torch.float64) - difference
    return Attribution(values, difference, gap)


def _check_windows(x: Tensor, baseline: Tensor, batch: int) -> None:
    if x.ndim != 6 or x.shape[1] != 1 or not x.numel():
        raise InputError("not windows of a scan", where="x", found=tuple(x.shape), expected="(B, 1, X, Y, Z, T)")
    if baseline.ndim != 6 or baseline.shape[1:] != x.shape[1:] or len(baseline) not in (1, len(x)):
        raise InputError(
            "the baseline has another shape than the windows",
            where="baseline",
            found=tuple(baseline.shape),
            expected=(1, *x.shape[1:]),
        )
    if not x.is_floating_point():
        raise InputError("windows are floating-point numbers", where="x", found=x.dtype)
    if batch < 1:
        raise ConfigError("at least one point is held at once", where="batch", found=batch)


@contextlib.contextmanager
def _undisturbed(function: Any) -> Iterator[None]:
    """A module in evaluation mode, whose parameters ask for no gradient: their part of the graph is not kept."""
    import torch

    if not isinstance(function, torch.nn.Module):
        yield
        return
    modes = [(module, module.training) for module in function.modules()]
    asked = [parameter for parameter in function.parameters() if parameter.requires_grad]
    function.eval()
    for parameter in asked:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asked:
            parameter.requires_grad_(True)
        for module, mode in modes:
            module.training = mode


def _wanted(target: int | Sequence[int] | Tensor, count: int, device: Any) -> Tensor:
    """(B,) which output of each window."""
    import torch

    wanted = torch.as_tensor(target, dtype=torch.int64, device=device)
    if wanted.ndim == 0:
        wanted = wanted.expand(count)
    if wanted.shape != (count,):
        raise InputError("a target for each window, or one for all", where="target", found=tuple(wanted.shape))
    return wanted


def _rows(start: Tensor, rows: Tensor) -> Tensor:
    return start if len(start) == 1 else start[rows]


def _chosen(output: Tensor, wanted: Tensor) -> Tensor:
    """(N,) of the outputs (N, K) those that are wanted."""
    columns = output[:, None] if output.ndim == 1 else output
    if columns.ndim != 2 or len(columns) != len(wanted):
        raise InputError("not outputs of windows", found=tuple(output.shape), expected=f"({len(wanted)}, K)")
    if int(wanted.min()) < 0 or int(wanted.max()) >= columns.shape[1]:
        found = f"{int(wanted.min())} to {int(wanted.max())}"
        raise ConfigError("no such output", where="target", found=found, expected=f"0 to {columns.shape[1] - 1}")
    return columns.gather(1, wanted[:, None])[:, 0]


def _slope(function: Callable[[Tensor], Tensor], here: Tensor, wanted: Tensor) -> Tensor:
    import torch

    chosen = _chosen(function(here), wanted)
    if not chosen.requires_grad:
        raise ConfigError("the output does not depend on the window", where="function", cure="explain another output")
    return torch.autograd.grad(chosen.sum(), here)[0]


def _outputs(function: Callable[[Tensor], Tensor], x: Tensor, wanted: Tensor, batch: int) -> Tensor:
    """(B,) outputs as float64; of one window for all (a baseline) it is computed once."""
    import torch

    with torch.no_grad():
        if len(x) == 1:
            every = function(x)
            every = every.expand(len(wanted), *every.shape[1:])
            return _chosen(every, wanted).double()
        parts = [_chosen(function(x[i : i + batch]), wanted[i : i + batch]) for i in range(0, len(x), batch)]
    return torch.cat(parts).double()
