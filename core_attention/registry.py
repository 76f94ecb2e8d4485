"""The registry of mechanisms: found by name, imported when asked for, open to third parties."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from core_attention import mechanisms as _folder
from core_attention.contract import MechanismError, MechanismSpec, TokenMixer

_MixerClass = TypeVar("_MixerClass", bound=type[TokenMixer])
_registered: dict[str, type[TokenMixer]] = {}


def mechanism(
    *,
    name: str,
    paper: str,
    year: int,
    complexity: str,
    memory: str = "L",
    kind: str = "mixer",
    grid: tuple[int, ...] = (1,),
    causal: bool = False,
    context: bool = False,
    mask: bool = False,
    streaming: bool = False,
    extras: tuple[str, ...] = (),
    fixed_length: bool = False,
    export: bool = True,
) -> Callable[[_MixerClass], _MixerClass]:
    """Register a ``TokenMixer`` under a name with its flags (see ``MechanismSpec``).

    Raises:
        MechanismError: the name belongs to another class, a flag is not one of the allowed values, or the
            constructor does not take what the flags promise.

    Example:
        >>> from core_attention import TokenMixer, MixerOutput, mechanism, unregister
        >>> @mechanism(name="identity", paper="none", year=2026, complexity="L", mask=True)
        ... class Identity(TokenMixer):
        ...     "Return the tokens as they are."
        ...     def mix(self, x, *, mask=None):
        ...         return MixerOutput(x)
        >>> unregister("identity") is Identity
        True
    """

    def register(cls: _MixerClass) -> _MixerClass:
        summary = (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ").strip()
        cls.spec = MechanismSpec(
            name=name,
            paper=paper,
            year=year,
            complexity=complexity,
            memory=memory,
            kind=kind,
            grid=tuple(grid),
            causal=causal,
            context=context,
            mask=mask,
            streaming=streaming,
            extras=tuple(extras),
            fixed_length=fixed_length,
            export=export,
            summary=summary,
        )
        _check_constructor(cls)
        known = _registered.get(name)
        # The same class again is a module that was reloaded (a notebook, importlib.reload), not a clash.
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise MechanismError(f"mechanism {name!r} is {known.__module__}.{known.__qualname__} already")
        _registered[name] = cls
        return cls

    return register


def unregister(name: str) -> type[TokenMixer]:
    """Take a mechanism out of the registry and return its class; for tests and plug-ins that unload."""
    get(name)
    return _registered.pop(name)


def get(name: str) -> type[TokenMixer]:
    """The class of a mechanism.

    Raises:
        MechanismError: no such mechanism; the message names the nearest ones.

    Example:
        >>> from core_attention import get
        >>> get("softmx")
        Traceback (most recent call last):
        ...
        core_attention.contract.MechanismError: no mechanism 'softmx'; did you mean softmax?
    """
    if name not in _registered and name in _shipped():
        importlib.import_module(f"{_folder.__name__}.{name}")
    if name not in _registered:
        raise MechanismError(f"no mechanism {name!r}; {suggest(name, names())}")
    return _registered[name]


def build(name: str, dim: int, num_heads: int = 8, **options: Any) -> TokenMixer:
    """Construct a mechanism by name.

    Args:
        name: its registry name.
        dim: channels C.
        num_heads: heads H.
        options: the mechanism's own options; ``option_names(name)`` lists them.

    Raises:
        MechanismError: no such mechanism, an option that it does not have, or one that it needs and was not given.

    Example:
        >>> from core_attention import build
        >>> build("softmax", 16, 4, causal=True).causal
        True
    """
    cls = get(name)
    parameters = _options_of(cls)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    for option in options:
        if option not in known and not open_ended:
            raise MechanismError(f"{name} has no option {option!r}; {suggest(option, known)}")
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    missing = [option for option in needed if option not in options]
    if missing:
        wanted = ", ".join(f"{option}=" for option in missing)
        raise MechanismError(f"{name} cannot be built without {wanted}; its options: {', '.join(known)}")
    return cls(dim, num_heads, **options)


def option_names(name: str) -> list[str]:
    """The names of a mechanism's own options, in the order of its constructor."""
    return [p.name for p in _options_of(get(name)) if p.kind is not p.VAR_KEYWORD]


def names(kind: str | None = None, grid: int | None = None) -> list[str]:
    """Sorted names of all mechanisms, or of those of a kind that take a number of grid axes.

    Without a filter no mechanism is imported.

    Example:
        >>> from core_attention import names
        >>> [name for name in names(kind="mixer", grid=1) if name in ("auto_correlation", "softmax")]
        ['auto_correlation', 'softmax']
    """
    everything = sorted(_shipped() | set(_registered))
    if kind is None and grid is None:
        return everything
    specs = [spec(name) for name in everything]
    return [s.name for s in specs if kind in (None, s.kind) and (grid is None or grid in s.grid)]


def spec(name: str) -> MechanismSpec:
    """What a mechanism is and claims."""
    return get(name).spec


def suggest(wrong: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest known names, or all of them where none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(wrong, known, n=3)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"there are: {', '.join(known)}" if known else "there are none"


def _shipped() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(_folder.__path__) if not module.name.startswith("_")}


def _options_of(cls: type[TokenMixer]) -> list[inspect.Parameter]:
    parameters = list(inspect.signature(cls).parameters.values())
    return [p for p in parameters if p.name not in ("dim", "num_heads") and p.kind is not p.VAR_POSITIONAL]


def _check_constructor(cls: type[TokenMixer]) -> None:
    parameters = _options_of(cls)
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = {p.name for p in parameters}
    for flag, option in (("causal", "causal"), ("fixed_length", "length")):
        if getattr(cls.spec, flag) and option not in known:
            raise MechanismError(f"{cls.spec.name} is declared {flag} but its constructor takes no {option}=")
