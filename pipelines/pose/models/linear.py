"""The linear lifter: ridge regression from joints in the image to joints in space, in closed form, without torch.

A model that learns must beat it. It reads the same windows (N, T, J, C) as the other models, of which it takes the
frames in the middle: one, or a few.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ConfigError, InputError, WeightsError

__all__ = ["LinearFit", "LinearLifter", "fit_linear"]

Array = NDArray[Any]
#: Share of the mean variance of the inputs that the squared weights are penalised with.
RIDGE = 1e-4


@dataclass(frozen=True, eq=False)
class LinearLifter:
    """y = x W + b for the ``window`` middle frames of a window, flattened to F = window J C numbers.

    Attributes:
        weight: (F, 3 J), metres a normalised unit.
        bias: (3 J,) metres.
        window: frames that are read, odd.
        joints: joints J.
        channels: numbers C of a joint: two coordinates, and with ``mask`` whether it is there.
        mask: whether the last channel is a validity, 0 = missing; the coordinates of missing joints are not read.
        samples: poses that it was fitted on. skipped: those left out because a joint of the target was missing.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    window: int
    joints: int
    channels: int
    mask: bool = False
    samples: int = 0
    skipped: int = 0

    def predict(self, x: Array) -> NDArray[np.float32]:
        """Lift windows x (N, T, J, C) to (N, J, 3): metres, camera axes, relative to the root, of the centre frame.

        Raises:
            InputError: other joints or channels, an even T or one shorter than ``window``, numbers that are not finite
                where a joint is there.

        Complexity: O(N F J). Source: Hoerl and Kennard 1970, ridge regression.

        Example:
            >>> x, y = np.random.default_rng(0).standard_normal((50, 1, 17, 2)), np.zeros((50, 17, 3))
            >>> fit_linear([(x, y)]).predict(x).shape
            (50, 17, 3)
        """
        flat = _features(x, self.window, self.mask, (self.joints, self.channels))
        return (flat @ self.weight + self.bias).reshape(-1, self.joints, 3).astype(np.float32)

    def arrays(self) -> dict[str, Array]:
        """Everything that `from_arrays` needs, for a weights file."""
        sizes = [self.window, self.joints, self.channels, int(self.mask), self.samples, self.skipped]
        return {"weight": self.weight, "bias": self.bias, "sizes": np.array(sizes, np.int64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> LinearLifter:
        """The lifter that wrote the arrays.

        Raises:
            WeightsError: an array that is missing, of another shape, or not finite.

        Example:
            >>> x, y = np.random.default_rng(0).standard_normal((50, 1, 17, 2)), np.ones((50, 17, 3))
            >>> lifter = fit_linear([(x, y)])
            >>> bool((LinearLifter.from_arrays(lifter.arrays()).predict(x) == lifter.predict(x)).all())
            True
        """
        missing = [name for name in ("weight", "bias", "sizes") if name not in arrays]
        if missing or np.shape(arrays["sizes"]) != (6,):
            raise WeightsError("not a linear lifter", found=sorted(arrays), expected="weight, bias and six sizes")
        window, joints, channels, mask, samples, skipped = (int(size) for size in arrays["sizes"])
        weight, bias = (np.asarray(arrays[name], np.float64) for name in ("weight", "bias"))
        expected = (window * joints * channels, 3 * joints)
        if weight.shape != expected or bias.shape != expected[1:] or min(window, joints, channels) < 1:
            raise WeightsError("weights that do not fit their sizes", found=weight.shape, expected=expected)
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise WeightsError("weights that are not finite", where="weight")
        return cls(weight, bias, window, joints, channels, bool(mask), samples, skipped)


class LinearFit:
    """Sums over any number of windows, of which `solve` makes the lifter: one pass, F^2 + 3 F J numbers kept.

    Args:
        window: frames in the middle that are read, odd.
        mask: whether the last channel of x is a validity, 0 = missing.

    Raises:
        ConfigError: a window that is no positive odd number.

    Source: Hoerl and Kennard 1970, ridge regression.

    Example:
        >>> rng, fit = np.random.default_rng(0), LinearFit()
        >>> for _ in range(3):
        ...     fit.add(rng.standard_normal((20, 9, 17, 2)), rng.standard_normal((20, 17, 3)))
        >>> fit.solve().samples
        60
    """

    def __init__(self, window: int = 1, *, mask: bool = False) -> None:
        if not isinstance(window, int) or isinstance(window, bool) or window < 1 or window % 2 == 0:
            raise ConfigError("not a window", where="window", found=window, expected="a positive odd number of frames")
        self.window, self.mask = window, mask
        self.samples = self.skipped = 0
        self._shape: tuple[int, int] | None = None
        self._sums: list[NDArray[np.float64]] = []

    def add(self, x: Array, y: Array, valid: Array | None = None) -> None:
        """Count windows x (N, T, J, C) and the poses y (N, J, 3) of their centre frames.

        Args:
            x: coordinates normalised by the width of the image, and the validity with ``mask``.
            y: metres, relative to the root.
            valid: (N, J) bool, which joints of y are there; poses that lack one are left out and counted.

        Raises:
            InputError: shapes that do not fit, or numbers that are not finite where a joint is there.

        Complexity: O(N F^2).
        """
        x, y = np.asarray(x), np.asarray(y)
        flat = _features(x, self.window, self.mask, self._shape)
        if y.shape != (len(x), x.shape[2], 3):
            expected = f"{(len(x), x.shape[2], 3)}, a pose a window"
            raise InputError("not the poses of these windows", where="y", found=y.shape, expected=expected)
        if valid is not None:
            valid = np.asarray(valid, bool)
            if valid.shape != y.shape[:2]:
                raise InputError("not a mask of these poses", where="valid", found=valid.shape, expected=y.shape[:2])
            whole = valid.all(axis=1)
            self.skipped += int((~whole).sum())
            flat, y = flat[whole], y[whole]
        out = y.reshape(len(y), -1).astype(np.float64)
        if not np.isfinite(out).all():
            raise InputError("numbers that are not finite", where="y", expected="metres, or valid=False for the joint")
        self._shape = x.shape[2], x.shape[3]
        new = [flat.sum(0), out.sum(0), flat.T @ flat, flat.T @ out]
        self._sums = [old + more for old, more in zip(self._sums, new, strict=True)] if self._sums else new
        self.samples += len(out)

    def solve(self, ridge: float = RIDGE) -> LinearLifter:
        """The weights of least squared error plus ``ridge`` times the mean variance of the inputs times |W|^2.

        Raises:
            ConfigError: a ridge that is negative or not finite.
            InputError: nothing was added.

        Complexity: O(F^3).
        """
        if not 0 <= ridge < math.inf:
            raise ConfigError("not a penalty", where="ridge", found=ridge, expected="a number of at least 0")
        if self._shape is None or not self.samples:
            found = f"{self.skipped} poses, each without a joint" if self.skipped else "no poses"
            raise InputError("nothing to fit a lifter on", found=found, expected="whole poses")
        x_sum, y_sum, squares, products = self._sums
        x_mean, y_mean = x_sum / self.samples, y_sum / self.samples
        spread = squares / self.samples - np.outer(x_mean, x_mean)
        penalty = ridge * max(float(np.trace(spread)) / len(spread), 0.0)
        system = spread + penalty * np.eye(len(spread))
        # Least squares: without a penalty a joint that never moves makes the system singular.
        shared: NDArray[np.float64] = products / self.samples - np.outer(x_mean, y_mean)
        weight = np.asarray(np.linalg.lstsq(system, shared, rcond=None)[0], np.float64)
        bias = y_mean - x_mean @ weight
        return LinearLifter(weight, bias, self.window, *self._shape, self.mask, self.samples, self.skipped)


def fit_linear(
    batches: Iterable[tuple[Array, ...]], *, window: int = 1, mask: bool = False, ridge: float = RIDGE
) -> LinearLifter:
    """Fit a lifter on batches (x, y) or (x, y, valid), as `LinearFit.add` takes them.

    Args:
        batches: windows x (N, T, J, C) and poses y (N, J, 3).
        window: frames in the middle that are read, odd.
        mask: whether the last channel of x is a validity.
        ridge: penalty of squared weights, as a share of the mean variance of the inputs.

    Raises:
        ConfigError, InputError: as of `LinearFit`.

    Complexity: O(N F^2 + F^3). Source: Hoerl and Kennard 1970, ridge regression.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((200, 1, 2, 2))
        >>> y = np.stack([x[:, 0, :, 0], x[:, 0, :, 1], x.sum((1, 3))], -1)
        >>> bool(np.abs(fit_linear([(x, y)], ridge=0).predict(x) - y).max() < 1e-5)
        True
    """
    fit = LinearFit(window, mask=mask)
    for batch in batches:
        fit.add(*batch)
    return fit.solve(ridge)


def _features(x: Array, window: int, mask: bool, shape: tuple[int, int] | None) -> NDArray[np.float64]:
    """The middle frames of x (N, T, J, C) as (N, window J C), missing joints zeroed."""
    x = np.asarray(x)
    least = 2 if mask else 1
    if x.ndim != 4 or x.shape[3] < least or (shape is not None and x.shape[2:] != shape):
        joints, channels = shape or ("joints", f"at least {least} channels")
        expected = f"(windows, frames, {joints}, {channels})"
        raise InputError("not windows for this lifter", where="x", found=x.shape, expected=expected)
    frames = x.shape[1]
    if frames < window or frames % 2 == 0:
        expected = f"an odd number of frames, at least {window}"
        raise InputError("windows without these middle frames", where="x", found=frames, expected=expected)
    start = (frames - window) // 2
    middle = x[:, start : start + window].astype(np.float64)
    if mask:
        middle[..., :-1] = np.where(middle[..., -1:] > 0, middle[..., :-1], 0.0)
    if not np.isfinite(middle).all():
        expected = "coordinates; give missing joints a validity of 0" if mask else "coordinates"
        raise InputError("numbers that are not finite", where="x", expected=expected)
    return middle.reshape(len(middle), -1)
