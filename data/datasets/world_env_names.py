"""Names of gymnasium environments: which there are, which is meant, and what is missing where one cannot be made."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from pipelines.data.errors import InputError

__all__ = ["INSTALL", "environments", "explained", "headless", "is_environment", "make_gymnasium"]

#: How the packages of this library's own environments come.
INSTALL = "pip install 'attention-pipelines[world]'"
#: [module:][namespace/]Name-v1
_VERSIONED = re.compile(r"(?:[\w.]+:)?(?:[\w-]+/)?[\w:.-]+-v\d+")
_PLAIN = re.compile(r"(?:[\w-]+/)?[\w:-]+")
#: Where environments of other packages come from, by the namespace or the beginning of the name.
_ELSEWHERE = {"ALE/": "ale-py", "MiniGrid": "minigrid", "BabyAI": "minigrid", "Fetch": "gymnasium-robotics"}
_MODULES = {"ale-py": "ale_py", "minigrid": "minigrid", "gymnasium-robotics": "gymnasium_robotics"}
#: What keeps windows, sound and greetings away; set for the time of a call, and only where the user has set nothing.
_QUIET = {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy", "PYGAME_HIDE_SUPPORT_PROMPT": "1"}
_COLOUR_CODES = re.compile("\x1b\\[[0-9;]*m")


@contextlib.contextmanager
def headless() -> Iterator[None]:
    """No window, no sound and no greeting of pygame inside; variables that are set already are left as they are.

    Example:
        >>> before = os.environ.get("SDL_VIDEODRIVER")
        >>> with headless():
        ...     inside = os.environ["SDL_VIDEODRIVER"]
        >>> inside == (before or "dummy"), os.environ.get("SDL_VIDEODRIVER") == before
        (True, True)
    """
    added = {key: value for key, value in _QUIET.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)


def gymnasium(where: str) -> ModuleType:
    """The package gymnasium.

    Raises:
        InputError: it is not installed; the message has the line that installs it.
    """
    try:
        with headless():
            import gymnasium as package
    except ImportError as error:
        raise InputError("gymnasium is not installed", where=where, found=error, cure=INSTALL) from error
    return package


def environments() -> tuple[str, ...]:
    """The names of all environments that gymnasium knows, sorted; empty where it is not installed."""
    if find_spec("gymnasium") is None:
        return ()
    return tuple(sorted(gymnasium("environments").envs.registry))


def is_environment(name: object) -> bool:
    """Whether a name means a gymnasium environment: of the form [module:][namespace/]Name-v1, or known without -v1.

    A file or folder of that name comes first. The form is enough, so that a name that gymnasium does not know, or one
    where gymnasium is not installed, gets the message of `make_env` rather than that of a missing file.

    Complexity: O(1); gymnasium is loaded for names without a version only.

    Example:
        >>> is_environment("CartPole-v1"), is_environment("clip.mp4"), is_environment("no/such/folder")
        (True, False, False)
    """
    if not isinstance(name, str) or len(name) > 200 or not name or Path(name).suffix.lower() in _file_endings():
        return False
    with contextlib.suppress(OSError, ValueError):
        if Path(name).exists():
            return False
    if _VERSIONED.fullmatch(name):
        return True
    return bool(_PLAIN.fullmatch(name)) and any(one.rpartition("-v")[0] == name for one in environments())


def _file_endings() -> frozenset[str]:
    """Endings of files that nobody means as an environment."""
    return frozenset((".mp4", ".avi", ".mkv", ".mov", ".webm", ".gif", ".npy", ".npz", ".h5", ".hdf5", ".csv", ".zip"))


def make_gymnasium(name: str, *, render: bool, options: dict[str, Any]) -> tuple[Any, tuple[str, ...]]:
    """Make a gymnasium environment, headless, and return it with the warnings that came with it.

    Args:
        name: as `gymnasium.make` takes it.
        render: ask for pictures; an environment that cannot draw is made without.
        options: further arguments of the environment.

    Raises:
        InputError: gymnasium or what the environment needs is not installed (the cure is the pip line), an unknown
            name (the nearest are named), or arguments that it refuses.
    """
    if not isinstance(name, str) or not name or len(name) > 200 or not re.fullmatch(r"[\w:./-]+", name):
        expected = "a name such as CartPole-v1"
        raise InputError("not the name of an environment", where="environment", found=name, expected=expected)
    package = gymnasium(name)
    with headless(), warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            made = _made(package, _registered(name), render, options)
        except Exception as error:
            raise explained(error, name) from error
    texts = [_COLOUR_CODES.sub("", str(one.message)).removeprefix("WARN: ") for one in heard]
    return made, tuple(f"gymnasium says of {name}: {text}" for text in dict.fromkeys(texts) if "render" not in text)


def _made(package: Any, name: str, render: bool, options: dict[str, Any]) -> Any:
    """The environment; without pictures where it has no `rgb_array`."""
    if not render:
        return package.make(name, disable_env_checker=True, **options)
    try:
        return package.make(name, render_mode="rgb_array", disable_env_checker=True, **options)
    except (TypeError, package.error.UnsupportedMode):
        return package.make(name, disable_env_checker=True, **options)


def _registered(name: str) -> str:
    """The name, with the module before it that registers environments of a package that is installed."""
    package = next((package for start, package in _ELSEWHERE.items() if name.startswith(start)), None)
    return f"{_MODULES[package]}:{name}" if package and find_spec(_MODULES[package]) else name


def explained(error: Exception, name: str) -> InputError:
    """What a user can do about an environment that cannot be made or drawn."""
    package = gymnasium(name)
    text = _COLOUR_CODES.sub("", str(error)).strip()
    first = text.splitlines()[0] if text else type(error).__name__
    elsewhere = next((f"pip install {one}" for start, one in _ELSEWHERE.items() if name.startswith(start)), None)
    if isinstance(error, package.error.UnregisteredEnv):
        known = environments()
        near = _nearest(name, known)
        cure = elsewhere or (f"did you mean {' or '.join(near)}?" if near else "name the module: my_module:Name-v1")
        expected = f"one of {len(known)} names, such as CartPole-v1, Pendulum-v1 or MountainCar-v0"
        return InputError("unknown environment", where="environment", found=name, expected=expected, cure=cure)
    lines = re.findall(r"pip install [^`\n]+", text)
    if isinstance(error, ModuleNotFoundError) and error.name:
        lines = lines or [f"pip install {error.name}"]
    elif isinstance(error, ModuleNotFoundError):
        return InputError("no such module", where=name, found=first, cure="check the name before the colon")
    if isinstance(error, (package.error.DependencyNotInstalled, ImportError)):
        ours = "classic" in text or "pygame" in text
        cure = INSTALL if ours else elsewhere or " and ".join(line.strip() for line in lines) or None
        return InputError("what the environment needs is not installed", where=name, found=first, cure=cure)
    return InputError("the environment cannot be made", where=name, found=f"{type(error).__name__}: {first}")


def _nearest(name: str, known: tuple[str, ...]) -> list[str]:
    """Up to three names like this one, whatever the case: first other versions of the same, the newest before all."""
    plain = [one for one in known if not one.startswith(("phys2d/", "tabular/"))]  # these need jax
    heads: dict[str, list[str]] = {}
    for one in plain:
        heads.setdefault(one.rpartition("-v")[0].lower(), []).append(one)
    head = name.lower().rpartition("-v")[0] or name.lower()
    near = [head] if head in heads else difflib.get_close_matches(head, heads, n=3, cutoff=0.6)
    newest = [sorted(heads[key], key=lambda one: -int(one.rpartition("-v")[2])) for key in near]
    return newest[0][:3] if len(near) == 1 else [versions[0] for versions in newest]
