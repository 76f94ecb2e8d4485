"""What is done to the numbers of a run before a model sees them: the settings, checked."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from pipelines.data.errors import InputError

__all__ = ["MAX_ORDER", "SignalOptions"]

#: Highest polynomial that is removed: beyond it a slow drift and what the subject does can no longer be told apart.
MAX_ORDER = 10

Standard = Literal["brain", "voxel", "minmax", "none"]
MaskKind = Literal["auto", "zeros", "file", "epi", "none"]
Fill = Literal["minimum", "zero"]
NotFinite = Literal["refuse", "background"]


@dataclasses.dataclass(frozen=True)
class SignalOptions:
    """How the values of a run are cleaned, scaled and masked; the defaults are those of SwiFT's released preparation.

    Args:
        standardise: `brain`: one mean and standard deviation over all brain voxels and volumes of the run; `voxel`:
            of each voxel over its run; `minmax`: the brain's least and largest value become 0 and 1; `none`: as read.
        detrend: order of the polynomial in time that is removed from each voxel, its mean with it; -1 removes none.
        confounds: nilearn's names of groups (`motion`, `wm_csf`, `high_pass`, ...) or columns of the run's table of
            confounds, removed from each voxel by least squares together with the polynomial.
        smooth: full width at half maximum in mm of the Gaussian that each volume is smoothed with; 0 smooths nothing.
        mask: `zeros`: voxels that are 0 in all volumes are background; `file`: the run's own image of the brain;
            `epi`: found on the mean volume by nilearn; `auto`: `file` where there is one, else `zeros`; `none`: every
            voxel counts as brain.
        fill: value of the background once the brain is standardised: the brain's least value, or zero.
        nan: what voxels with NaN or infinite values are: refused, or background.

    Raises:
        InputError: a setting outside what is listed.

    Source: SwiFT (arXiv 2307.05916), released preparation: scores over the voxels that are not 0, background at the
        least score.

    Example:
        >>> SignalOptions(standardise="voxel", detrend=1).regresses
        True
        >>> SignalOptions(detrend=99)
        Traceback (most recent call last):
        InputError: signal.detrend: no such order. Found: 99. Expected: -1 (none) to 10.
    """

    standardise: Standard = "brain"
    detrend: int = -1
    confounds: tuple[str, ...] = ()
    smooth: float = 0.0
    mask: MaskKind = "auto"
    fill: Fill = "minimum"
    nan: NotFinite = "refuse"

    def __post_init__(self) -> None:
        for name, kind in (("standardise", Standard), ("mask", MaskKind), ("fill", Fill), ("nan", NotFinite)):
            value, allowed = getattr(self, name), get_args(kind)
            if value not in allowed:
                found, expected = repr(value), " | ".join(allowed)
                raise InputError("no such choice", where=f"signal.{name}", found=found, expected=expected)
        order = self.detrend
        if isinstance(order, bool) or not isinstance(order, int) or not -1 <= order <= MAX_ORDER:
            expected = f"-1 (none) to {MAX_ORDER}"
            raise InputError("no such order", where="signal.detrend", found=order, expected=expected)
        if not 0 <= self.smooth <= 100:  # also refuses NaN
            raise InputError("no such width", where="signal.smooth", found=self.smooth, expected="0 to 100 mm")
        object.__setattr__(self, "confounds", tuple(self.confounds))

    @property
    def regresses(self) -> bool:
        """Whether anything is removed from the time course of a voxel."""
        return self.detrend >= 0 or bool(self.confounds)
