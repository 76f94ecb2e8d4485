"""The commands that belong to no domain: list, papers, mechanisms, bench, doctor."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from jsonargparse import ArgumentParser

from pipelines.cli.doctor import doctor
from pipelines.domains import COMMON_VERBS, DOMAINS, did_you_mean, pipeline_class
from pipelines.errors import ConfigError

Row = dict[str, Any]

_DESCRIPTIONS = {
    "bench": "time and memory of mechanisms against softmax, by length; "
    "`pipelines bench kernels --help` tells of the operations below them"
}


def run(name: str, argv: list[str]) -> int:
    """Run one of the commands.

    Args:
        name: list, papers, mechanisms, bench or doctor.
        argv: its options.

    Raises:
        ConfigError: an option that does not exist.
    """
    if name == "bench" and argv and not argv[0].startswith("-"):
        return _bench_of(argv[0], argv[1:])
    parser = ArgumentParser(prog=f"pipelines {name}", description=_DESCRIPTIONS.get(name), exit_on_error=False)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    if name == "bench":
        parser.add_argument("--mechanism", type=str, default="", help="comma-separated names; default all of 1-D grids")
        parser.add_argument("--lengths", type=str, default="256,512,1024", help="rows, comma-separated")
        parser.add_argument("--dim", type=int, default=128, help="channels")
        parser.add_argument("--batch", type=int, default=4, help="sequences at a time")
        parser.add_argument("--repeats", type=int, default=5, help="measurements, of which the median counts")
    try:
        options = parser.parse_args(argv)
    except SystemExit:
        raise
    except Exception as error:
        raise ConfigError(
            str(error).strip().rstrip("."), where=parser.prog, cure=f"see `{parser.prog} --help`"
        ) from None
    rows, title = _COMMANDS[name](options)
    _show(rows, title, as_json=options.json, key=name)
    return 1 if name == "doctor" and any(row["state"] == "broken" for row in rows) else 0


def _bench_of(subject: str, argv: list[str]) -> int:
    """The command after `bench SUBJECT`; without a subject mechanisms are measured."""
    if subject != "kernels":
        cure = (
            did_you_mean(subject, ["kernels"]) or "name mechanisms by --mechanism, operations by `bench kernels NAME`"
        )
        raise ConfigError("cannot be measured", where=f"pipelines bench {subject}", expected="kernels", cure=cure)
    from pipelines.cli import bench_kernels

    return bench_kernels.run(argv)


def _show(rows: Sequence[Row], title: str, *, as_json: bool, key: str) -> None:
    if as_json:
        sys.stdout.write(json.dumps({key: rows}) + "\n")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for place, column in enumerate(rows[0] if rows else ()):
        table.add_column(column, no_wrap=place == 0 and column != "paper")  # names stay whole
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))  # brackets in a text are no markup
    Console(file=sys.stdout).print(table)


def _list(_: Any) -> tuple[list[Row], str]:
    from pipelines.data.catalog import entries

    rows = []
    for domain in DOMAINS.values():
        cls = pipeline_class(domain.name)
        sets = ", ".join(entry.name for entry in entries(domain.name))
        rows.append(
            {
                "domain": domain.name,
                "what it does": domain.summary,
                "verbs": ", ".join([*COMMON_VERBS, *cls.verbs]),
                "embedded data": sets,
                "class": f"pipelines.{domain.cls}",
            }
        )
    return rows, "Domains"


#: Models that are bound to one mechanism, which `--attention` cannot swap.
_MIXED_BY = {"lmuformer": "legendre"}


def _papers(_: Any) -> tuple[list[Row], str]:
    """Every paper that is implemented: from the mechanisms' registry and the domains' model lists."""
    import core_attention

    rows: list[Row] = []
    known = [
        (domain, info)
        for domain in DOMAINS
        for info in importlib.import_module(f"pipelines.{domain}.options").MODELS.values()
    ]
    for domain, info in known:
        if info.paper == "ours":
            continue
        command = f"pipelines {domain} --model {info.name}"
        mechanism = _MIXED_BY.get(info.name, info.attention or "")
        rows.append({"paper": info.paper, "mechanism": mechanism, "model": info.name, "command": command})
    covered = {row["mechanism"] for row in rows}
    for name in core_attention.names():
        if name not in covered:
            spec = core_attention.spec(name)
            command = f"pipelines forecast --model transformer --attention {name}" if 1 in spec.grid else ""
            rows.append({"paper": f"{spec.paper} ({spec.year})", "mechanism": name, "model": "", "command": command})
    return rows, "Papers"


def _mechanisms(_: Any) -> tuple[list[Row], str]:
    import core_attention

    rows = []
    for name in core_attention.names():
        spec = core_attention.spec(name)
        flags = [
            flag for flag in ("causal", "context", "mask", "streaming", "fixed_length", "export") if getattr(spec, flag)
        ]
        rows.append(
            {
                "name": name,
                "kind": spec.kind,
                "grid": ", ".join(f"{g}-D" for g in spec.grid),
                "time": f"O({spec.complexity})",
                "memory": f"O({spec.memory})",
                "can": ", ".join(flags),
                "paper": f"{spec.paper} ({spec.year})",
            }
        )
    return rows, "Mechanisms"


def _bench(options: Any) -> tuple[list[Row], str]:
    from pipelines.cli.bench import bench

    lengths = _whole_numbers(options.lengths)
    names = [name.strip() for name in options.mechanism.split(",") if name.strip()]
    rows = bench(names, lengths, dim=options.dim, batch=options.batch, repeats=options.repeats)
    return rows, f"Forward pass, {options.batch} sequences of {options.dim} channels, median of {options.repeats}"


def _whole_numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) < 2 or min(numbers) < 1:
        raise ConfigError("needs two or more whole numbers", where="--lengths", found=text, expected="256,512,1024")
    return numbers


def _doctor(_: Any) -> tuple[list[Row], str]:
    return doctor(), "Installation"


_COMMANDS: dict[str, Callable[[Any], tuple[list[Row], str]]] = {
    "list": _list,
    "papers": _papers,
    "mechanisms": _mechanisms,
    "bench": _bench,
    "doctor": _doctor,
}
