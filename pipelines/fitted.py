"""Pipelines whose fitted state is one object of their domain's engine."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from pipelines.base import Pipeline, Provenance

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["FittedPipeline", "FittedState"]


class FittedState(Protocol):
    """What an engine leaves after fitting: it can be stored and exported."""

    origin: str

    def to_config(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and the JSON-ready configuration that the engine's ``restore`` needs."""
        ...

    def export_parts(self) -> tuple[nn.Module, dict[str, Tensor], str]:
        """The module on the CPU in eval mode, its example inputs by name, the name of its output."""
        ...


State = TypeVar("State", bound=FittedState)


class FittedPipeline(Pipeline, Generic[State]):
    """A pipeline with a model name whose ``fit`` stores its state as ``_state`` and sets ``_fitted``.

    Subclasses give ``engine``, the module whose ``restore(pipeline, tensors, config)`` rebuilds the state.
    """

    engine: ClassVar[str]
    model: str
    _state: State

    @property
    def state(self) -> State:
        """What fitting or loading left.

        Raises:
            ConfigError: neither has happened.
        """
        self.require_fitted("state")
        return self._state

    def shipped_name(self) -> str | None:
        """Name of the weights that fit these arguments, if they ship; None where none are made for them."""
        return None

    def adopt_shipped(self) -> bool:
        """Take over the weights that ship for these arguments; False where there are none, or a model is fitted."""
        from pipelines.weights import shipped, shipped_folder

        name = self.shipped_name()
        if self.is_fitted or name is None or name not in shipped(self.domain):
            return False
        twin = type(self).load(shipped_folder(self.domain, name), device=self.device, threads=self.threads)
        self._state, self._fitted = twin.state, True
        self._state.origin = f"{name}, shipped with the package"
        return True

    def _fit_rule(self) -> State | None:
        """The state of a model that learns nothing; None for all others."""
        return None

    def _check(self) -> None:
        """Refuse arguments that do not fit each other."""

    def _ready(self, what: str) -> None:
        """Check the arguments and see to it that there is a model: fitted, a rule, or one that ships."""
        self._check()
        if not self.is_fitted and (rule := self._fit_rule()) is not None:
            self._state, self._fitted = rule, True
        if not self.is_fitted:
            self.adopt_shipped()
        self.require_fitted(what)
        self.start_torch()

    def provenance(self, data: str) -> Provenance:
        """The stamp of a result on some data."""
        return Provenance.now(data=data, model=self.model, seed=self.seed, weights=self.state.origin)

    def _weights(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return self.state.to_config()

    def _restore(self, tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
        self.start_torch()
        self._state = importlib.import_module(self.engine).restore(self, tensors, config)
        self._fitted = True

    def _export_parts(self) -> tuple[nn.Module, dict[str, Tensor], str]:
        return self.state.export_parts()
