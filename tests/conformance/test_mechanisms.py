"""Every mechanism of the registry keeps its contract; the suite accepts an honest newcomer and catches each lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core_attention import (
    MechanismError,
    MixerOutput,
    TokenMixer,
    check_mechanism,
    mechanism,
    names,
    registry,
    unregister,
)


@pytest.fixture(autouse=True)
def _registry_as_before() -> Iterator[None]:
    before = set(registry._registered)
    yield
    for name in set(registry._registered) - before:
        if registry._registered[name].__module__ == __name__:
            unregister(name)


@pytest.mark.parametrize("name", names())
def test_contract(name: str) -> None:
    results = check_mechanism(name)
    assert len(results) >= 12
    assert all(result.passed and result.detail for result in results)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("softmax", {"causal": True}),
        ("softmax", {"qkv_bias": False, "out_bias": False, "query_temperature": 2.0, "output_scale": 0.5}),
        ("softmax", {"query_temperature": torch.tensor([0.5, 1.0, 2.0, 4.0])}),
        ("auto_correlation", {"factor": 2.5, "lags": "sample"}),
        ("auto_correlation", {"factor": 100.0}),
    ],
)
def test_contract_with_options(name: str, options: dict[str, Any]) -> None:
    check_mechanism(name, **options)


def test_random_state_is_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    check_mechanism("softmax")
    assert torch.equal(before, torch.get_rng_state())


class MovingMean(TokenMixer):
    """Mean of a token and the two before it (or around it), after a linear map."""

    def __init__(self, dim: int, num_heads: int = 8, *, causal: bool = False) -> None:
        super().__init__(dim, num_heads)
        self.causal = causal
        self.projection = nn.Linear(dim, dim)

    def mix(self, x: Tensor, *, state: Tensor | None = None) -> MixerOutput:
        v = self.projection(x)
        before = torch.zeros_like(v[:, :1]).expand(-1, 2, -1) if state is None else state
        padded = torch.cat([before, v], dim=1)
        size = v.shape[1]
        y = (padded[:, :size] + padded[:, 1 : size + 1] + v) / 3
        if not self.causal:
            y = y + v.mean(dim=1, keepdim=True)
        return MixerOutput(y, padded[:, -2:])


FLAGS: dict[str, Any] = {"paper": "none", "year": 2026, "complexity": "L"}


def test_newcomer_passes() -> None:
    mechanism(name="moving_mean", causal=True, streaming=True, **FLAGS)(MovingMean)
    results = check_mechanism("moving_mean")
    assert {"no look-ahead", "pieces equal the whole", "export with dynamic batch"} <= {r.check for r in results}
    assert "moving_mean" in names()
    assert registry.spec("moving_mean").summary.startswith("Mean of a token")


class Grid(TokenMixer):
    """Add the mean of the rows and of the columns of an image; one size only, priors beside x."""

    def __init__(self, dim: int, num_heads: int = 8, *, length: tuple[int, int], dropout: float = 0.0) -> None:
        super().__init__(dim, num_heads)
        self.length, self.drop = length, nn.Dropout(dropout)
        self.place = nn.Parameter(torch.randn(*length, dim))

    def mix(self, x: Tensor, *, mask: Tensor | None = None, prior: Tensor) -> MixerOutput:
        if tuple(x.shape[1:3]) != tuple(self.length):
            raise MechanismError(f"grid: built for {self.length}, found {tuple(x.shape[1:3])}")
        x = x if mask is None else x * mask[..., None]
        return MixerOutput(self.drop((x + prior) * self.place + x.mean(1, keepdim=True) + x.mean(2, keepdim=True)))


def test_grid_fixed_length_extras_and_mask() -> None:
    mechanism(name="grid", grid=(2,), fixed_length=True, extras=("prior",), mask=True, **FLAGS)(Grid)
    checked = {result.check for result in check_mechanism("grid")}
    assert {"other lengths refused", "dropout in training only", "padding invariance"} <= checked


class Pool(TokenMixer):
    """The mean of all tokens."""

    def mix(self, x: Tensor) -> MixerOutput:
        return MixerOutput(x.mean(dim=1))


def test_pool() -> None:
    mechanism(name="mean_pool", kind="pool", **FLAGS)(Pool)
    check_mechanism("mean_pool")
    assert "mean_pool" not in names(kind="mixer")


class Faulty(TokenMixer):
    """A mechanism with one fault, chosen by the test."""

    fault = ""

    def __init__(self, dim: int, num_heads: int = 8, *, causal: bool = False, dropout: float = 0.0) -> None:
        super().__init__(dim, num_heads)
        self.causal, self.dropout = causal, dropout
        self.projection = nn.Linear(dim, dim)
        self.register_buffer("hidden", torch.randn(dim), persistent=self.fault != "loses state")
        if self.fault == "idle parameter":
            self.idle = nn.Parameter(torch.zeros(dim))
        if self.fault == "no pickle":
            self.function = lambda value: value

    def mix(
        self,
        x: Tensor,
        *,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
        state: Any = None,
    ) -> MixerOutput:
        v = self.projection(x if context is None else x + context.mean(dim=1, keepdim=True)) + self.hidden
        return MixerOutput(getattr(self, "_" + self.fault.replace(" ", "_"), lambda v, x: v)(v, x), state=v[:, :0])

    def _wrong_shape(self, v: Tensor, x: Tensor) -> Tensor:
        return v[:, :-1] if v.shape[1] % 2 else v

    def _looks_ahead(self, v: Tensor, x: Tensor) -> Tensor:
        return v + v.roll(-1, dims=1)

    def _mixes_batch(self, v: Tensor, x: Tensor) -> Tensor:
        return v + v.mean(dim=0, keepdim=True)

    def _square_memory(self, v: Tensor, x: Tensor) -> Tensor:
        return (v @ v.transpose(1, 2)).tanh() @ v

    def _wrong_gradient(self, v: Tensor, x: Tensor) -> Tensor:
        return v + v.detach() ** 2

    def _keeps_tensor(self, v: Tensor, x: Tensor) -> Tensor:
        self.last = v
        return v

    def _unseeded(self, v: Tensor, x: Tensor) -> Tensor:
        return v + torch.rand(1, generator=torch.Generator().manual_seed(torch.seed() % 2**31))

    def _drops_in_eval(self, v: Tensor, x: Tensor) -> Tensor:
        return v * (torch.rand_like(v) >= self.dropout)

    def _not_finite(self, v: Tensor, x: Tensor) -> Tensor:
        return v / (v.shape[1] - 1)

    def _rough_in_bf16(self, v: Tensor, x: Tensor) -> Tensor:
        import os

        plain = os.environ.get("PIPELINES_BACKEND") == "reference"
        return v if plain or v.dtype != torch.bfloat16 else v * 1.2

    def _fixed_batch(self, v: Tensor, x: Tensor) -> Tensor:
        return v if int(x.shape[0]) < 4 else v.clone()


@pytest.mark.parametrize(
    ("fault", "caught_by"),
    [
        ("wrong shape", "output shape"),
        ("not finite", "output shape"),
        ("idle parameter", "every parameter gets a gradient"),
        ("wrong gradient", "float64 gradients"),
        ("mixes batch", "batch independence"),
        ("", "padding invariance"),
        ("", "context"),
        ("looks ahead", "no look-ahead"),
        ("square memory", "memory grows as L"),
        ("looks ahead", "pieces equal the whole"),
        ("rough in bf16", "bf16 accuracy"),
        ("fixed batch", "export with dynamic batch"),
        ("unseeded", "same seed, same result"),
        ("loses state", "state dict round trip"),
        ("drops in eval", "dropout in training only"),
        ("no pickle", "deepcopy and pickle"),
        ("keeps tensor", "nothing kept on the module"),
    ],
)
def test_each_fault_is_caught(fault: str, caught_by: str) -> None:
    every = {"causal": True, "mask": True, "context": True, "streaming": True}
    local = type("Faulty", (Faulty,), {"fault": fault, "__module__": __name__})
    if caught_by == "padding invariance":
        local._ = lambda self, v, x: v + v.mean(dim=1, keepdim=True)  # type: ignore[attr-defined]
    if caught_by == "context":
        local.mix = lambda self, x, **_: MixerOutput(self.projection(x), state=())  # type: ignore[attr-defined]
    # Exporting is by far the slowest check, and only one fault concerns it.
    mechanism(name="faulty", export=fault == "fixed batch", **FLAGS, **every)(local)
    with pytest.raises(MechanismError, match=rf"FAILED  {caught_by}:"):
        check_mechanism("faulty")


def test_soft_refusals_are_caught() -> None:
    class Careless(TokenMixer):
        """Overrides forward, and with it the checks of the inputs."""

        def forward(self, x: Tensor, **_: Any) -> MixerOutput:  # type: ignore[override]
            return MixerOutput(x)

    Careless.__module__, Careless.__qualname__ = __name__, "Careless"
    globals()["Careless"] = Careless
    mechanism(name="careless", **FLAGS)(Careless)
    failed = {result.check for result in check_mechanism("careless", raise_=False) if not result.passed}
    assert failed == {"wrong inputs refused"}
