"""Legendre memory: the past of one number a token, kept as its coefficients in Legendre polynomials."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_attention.contract import MechanismError, MixerOutput, TokenMixer
from core_attention.registry import mechanism

NORMS = ("batch", "none")


class LegendreState(NamedTuple):
    """What the tokens so far have left.

    Attributes:
        memory: (B, order), coefficients of the last ``theta`` inputs.
    """

    memory: Tensor


@mechanism(
    name="legendre",
    paper="arXiv 2402.04882",
    year=2024,
    complexity="L log L",
    memory="L",
    causal=True,
    mask=True,
    streaming=True,
)
class Legendre(TokenMixer):
    """Each token writes one number into a linear memory of the past and reads the memory back beside itself.

        u_t = ReLU(w_u x_t + b_u)        m_t = A m_{t-1} + B u_t        h_t = ReLU(W_h [m_t; x_t] + b_h)
        y_t = norm(W_o h_t + b_o)

    A and B are fixed: of all linear systems with ``order`` states theirs keeps the last ``theta`` inputs best, as
    coefficients of Legendre polynomials, discretised by zero-order hold with a step of one token. A whole sequence is
    one causal convolution with the impulse response, by FFT: O(T log T order + T C order) time, O(T (order + C))
    memory; from a ``state`` the tokens go one by one, O(C order) memory however many there have been. Both agree.
    Source: LMUFormer (arXiv 2402.04882), equations 4 to 9; Legendre Memory Units (Voelker et al. 2019), equations 1, 2.

    Args:
        dim: channels C.
        num_heads: ignored.
        causal: the memory is of the past alone; False is refused.
        order: coefficients d; default C.
        theta: tokens that the memory spans.
        norm: "batch" (the paper's batch normalisation, over valid tokens, in evaluation a constant factor) or "none".

    Raises:
        MechanismError: an order or theta below 1, an unknown norm, ``causal=False``.

    Example:
        >>> import torch
        >>> mixer = Legendre(8, theta=20).eval()
        >>> x = torch.randn(2, 30, 8)
        >>> first = mixer(x[:, :10])
        >>> rest = mixer(x[:, 10:], state=first.state)
        >>> bool((torch.cat([first.y, rest.y], 1) - mixer(x).y).abs().max() < 1e-5)
        True
    """

    A: Tensor
    B: Tensor

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        causal: bool = True,
        order: int | None = None,
        theta: float = 128.0,
        norm: str = "batch",
    ) -> None:
        super().__init__(dim, num_heads)
        order = dim if order is None else order
        if not causal:
            raise MechanismError("legendre: a memory of the past is causal; found causal=False, expected True")
        if order < 1 or not theta >= 1:
            raise MechanismError(f"legendre: order={order}, theta={theta}, expected both at least 1")
        if norm not in NORMS:
            raise MechanismError(f"legendre: norm is {norm!r}, expected one of {', '.join(NORMS)}")
        self.causal, self.order, self.theta = causal, order, float(theta)
        self.write = nn.Linear(dim, 1)
        self.read = nn.Linear(order + dim, dim)
        self.out = nn.Linear(dim, dim)
        self.norm: nn.Module = nn.BatchNorm1d(dim) if norm == "batch" else nn.Identity()
        A, B = legendre_system(order, self.theta)
        self.register_buffer("A", torch.from_numpy(A).float(), persistent=False)
        self.register_buffer("B", torch.from_numpy(B).float(), persistent=False)

    def mix(self, x: Tensor, *, mask: Tensor | None = None, state: LegendreState | None = None) -> MixerOutput:
        """Mix x (B, T, C); padded tokens write nothing into the memory and count in no statistic."""
        written = torch.relu(self.write(x)).squeeze(-1)
        if mask is not None:
            written = torch.where(mask, written, 0.0)
        memory = self._remember(written, state)
        hidden = torch.relu(self.read(torch.cat([memory.to(x.dtype), x], dim=-1)))
        return MixerOutput(self._normalise(self.out(hidden), mask), LegendreState(memory[:, -1]))

    def _remember(self, written: Tensor, state: LegendreState | None) -> Tensor:
        """Memories (B, T, order) in at least float32 of what was written (B, T)."""
        wide = torch.promote_types(written.dtype, torch.float32)
        written = written.to(wide)
        with torch.autocast(written.device.type, enabled=False):
            if state is None:
                return self._convolve(written)
            transition, entry, memory, memories = self.A.to(wide).T, self.B.to(wide), state.memory.to(wide), []
            for value in written.unbind(1):
                memory = memory @ transition + value.unsqueeze(-1) * entry
                memories.append(memory)
            return torch.stack(memories, dim=1)

    def _convolve(self, written: Tensor) -> Tensor:
        length = written.shape[1]
        response = torch.from_numpy(impulse_response(self.order, self.theta, length)).to(written)  # (order, T)
        spectrum = torch.fft.rfft(written, 2 * length).unsqueeze(1) * torch.fft.rfft(response, 2 * length)
        return torch.fft.irfft(spectrum, 2 * length)[..., :length].transpose(1, 2)

    def _normalise(self, y: Tensor, mask: Tensor | None) -> Tensor:
        if isinstance(self.norm, nn.Identity):
            return y
        if mask is None or not self.training:
            return self._batch_norm(y.flatten(0, 1)).view(y.shape)
        out = torch.zeros_like(y)
        out[mask] = self._batch_norm(y[mask]).to(y.dtype)
        return out

    def _batch_norm(self, y: Tensor) -> Tensor:
        """Normalise (tokens, C); the statistics of a single token would leave nothing of it: the running ones serve."""
        norm = self.norm
        if not self.training or y.shape[0] > 1 or not isinstance(norm, nn.BatchNorm1d):
            return norm(y)
        return F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


@functools.lru_cache(maxsize=8)
def legendre_system(order: int, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """A (order, order) and B (order,) of the memory for a step of one token, float64.

    Continuous: A_ij = (2i + 1) / theta * (-1 where i < j, else (-1)^(i - j + 1)), B_i = (2i + 1) (-1)^i / theta; held
    constant over a step, exp([[A, B], [0, 0]]) holds both. O(order^3). NumPy, for nothing here may be traced.

    Example:
        >>> A, B = legendre_system(4, 10.0)
        >>> bool(abs(np.linalg.eigvals(A)).max() < 1)
        True
    """
    from scipy.linalg import expm

    i = np.arange(order)
    signs = np.where(i[:, None] < i[None, :], -1.0, (-1.0) ** (i[:, None] - i[None, :] + 1))
    system = np.zeros((order + 1, order + 1))
    system[:order, :order] = (2 * i + 1)[:, None] / theta * signs
    system[:order, order] = (2 * i + 1) / theta * (-1.0) ** i
    held = expm(system)
    return held[:order, :order], held[:order, order]


@functools.lru_cache(maxsize=8)
def impulse_response(order: int, theta: float, length: int) -> np.ndarray:
    """What one written unit leaves after 0, 1, ... tokens: A^t B, (order, length) float64. O(order^2 length).

    Example:
        >>> impulse_response(4, 10.0, 3).shape
        (4, 3)
    """
    A, B = legendre_system(order, theta)
    response, power = B[:, None], A
    while response.shape[1] < length:  # A^t B for twice as many t from those that are there
        response = np.concatenate([response, power @ response], axis=1)
        power = power @ power
    return np.ascontiguousarray(response[:, :length])
