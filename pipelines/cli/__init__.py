"""The command line: ``pipelines DOMAIN VERB``, built from the pipelines' own signatures and docstrings.

Exit codes: 0 done, 1 failed while running, 2 bad use, 130 Ctrl-C, 143 SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
import types
from collections.abc import Sequence

from pipelines.domains import COMMON_VERBS, DOMAINS, did_you_mean, pipeline_class
from pipelines.errors import ConfigError, Interrupted, RunError, UserError

#: Commands that belong to no domain: name -> (function in pipelines.cli.info, help).
COMMANDS: dict[str, str] = {
    "list": "the domains and their verbs",
    "papers": "paper -> mechanism -> model -> command",
    "mechanisms": "the attention mechanisms and what each can do",
    "bench": "time and memory of every mechanism against softmax, by length; `bench kernels`: of every operation",
    "doctor": "what this installation has, and whether it works",
}


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit code; nothing but a bug ends in a traceback.

    Args:
        argv: the words after ``pipelines``.

    Example:
        >>> main(["--version"])
        attention-pipelines 0.1.0
        0
    """
    previous = _terminate_as_exception()
    try:
        return _dispatch(list(argv))
    except Interrupted as stop:
        return _fail(str(stop), stop.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was left half-written", 130)
    except BrokenPipeError:
        # The reader went away (`| head`): not an error of ours, and Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except RunError as error:
        return _fail(str(error), 1)
    except Exception as error:
        if _is_users(error):
            return _fail(str(error), 2)
        if os.environ.get("PIPELINES_DEBUG"):
            raise
        return _fail(f"internal error, {type(error).__name__}: {error}. Set PIPELINES_DEBUG=1 to see where.", 1)
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)


def _is_users(error: Exception) -> bool:
    """Whether the message is for the user as it stands (also errors of floors that know nothing of this one)."""
    return isinstance(error, UserError) or type(error).__name__ == "MechanismError"


def _terminate_as_exception() -> signal._HANDLER:
    """Let SIGTERM unwind the stack, so that temporary files go; training installs its own handler above this one."""

    def stop(signum: int, frame: types.FrameType | None) -> None:
        raise Interrupted("terminated; nothing was left half-written", signum)

    try:
        return signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread: the caller owns the signals
        return None


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"pipelines: {message}\n")
    return code


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        return _write(_top_help())
    if argv[0] in ("-V", "--version"):
        from pipelines import __version__

        return _write(f"attention-pipelines {__version__}\n")
    name, rest = argv[0], argv[1:]
    if name in COMMANDS:
        from pipelines.cli import info

        return info.run(name, rest)
    if name not in DOMAINS:
        known = [*DOMAINS, *COMMANDS]
        raise ConfigError("unknown command", where=name, expected=", ".join(known), cure=did_you_mean(name, known))
    return _domain(name, rest)


def _domain(domain: str, argv: list[str]) -> int:
    if argv and argv[0] in ("-h", "--help", "help"):
        return _write(_domain_help(domain))
    # A bare domain, or a domain followed by flags, is its demonstration.
    verb, rest = ("demo", argv) if not argv or argv[0].startswith("-") else (argv[0], argv[1:])
    verbs = [*COMMON_VERBS, *pipeline_class(domain).verbs]
    if verb not in verbs:
        raise ConfigError(
            "unknown verb",
            where=f"pipelines {domain} {verb}",
            expected=", ".join(verbs),
            cure=did_you_mean(verb, verbs),
        )
    from pipelines.cli.verbs import run_verb

    return run_verb(domain, verb, rest)


def _write(text: str) -> int:
    sys.stdout.write(text)
    return 0


def _rows(pairs: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in pairs)
    return "".join(f"  {name:<{width}}  {text}\n" for name, text in pairs)


def _top_help() -> str:
    domains = _rows([(d.name, d.summary) for d in DOMAINS.values()])
    return (
        "usage: pipelines DOMAIN [VERB] [options]\n       pipelines COMMAND\n\n"
        f"domains:\n{domains}\nverbs of every domain:\n{_rows(list(COMMON_VERBS.items()))}\n"
        f"commands:\n{_rows(list(COMMANDS.items()))}\n"
        "`pipelines DOMAIN` alone runs its demonstration; `pipelines DOMAIN VERB --help` lists the options.\n"
    )


def _domain_help(domain: str) -> str:
    cls = pipeline_class(domain)
    own = [(verb, _first_line(getattr(cls, method))) for verb, method in cls.verbs.items()]
    return (
        f"usage: pipelines {domain} [VERB] [options]\n\n{cls.summary}\n\nverbs:\n"
        f"{_rows([*COMMON_VERBS.items(), *own])}\n`pipelines {domain} VERB --help` lists the options of a verb.\n"
    )


def _first_line(function: object) -> str:
    return (getattr(function, "__doc__", None) or "").strip().splitlines()[0].rstrip(".")
