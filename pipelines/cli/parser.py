"""Parsers from signatures: a verb's options are its pipeline's constructor, its method and the options of a run."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Iterable
from typing import Any, get_origin

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from pipelines.base import Pipeline
from pipelines.domains import COMMON_VERBS, did_you_mean
from pipelines.errors import ConfigError

#: What a verb that streams takes as its words.
STREAMED = "`-` for standard input, files with one step a line (.csv, .tsv, .txt, .jsonl), or whole sets of series"
#: What a verb that listens takes as its words.
HEARD = "recordings, `-` for raw samples (or a file) on standard input, or `mic` for the microphone"


@dataclasses.dataclass
class RunOptions:
    """How this run is carried out and where its results go."""

    checkpoint: str | None = None
    """a folder that `fit` wrote, or an official checkpoint file of the paper's code"""
    output: str | None = None
    """FILE to write (FILE.report.html and FILE.config.yaml beside it) or FOLDER/; default runs/DOMAIN-TIME/"""
    overwrite: bool = False
    """replace an output that exists"""
    resume: str | None = None
    """the folder of an interrupted run: its configuration is read and its training goes on"""
    seeds: int = 1
    """evaluate: fit this many seeds and report each and their median"""
    json: bool = False
    """print one JSON object as the last line of standard output, and nothing else there"""
    quiet: bool = False
    """no progress on standard error"""


@dataclasses.dataclass
class StreamOptions:
    """What a verb that streams takes beside the pipeline's own options."""

    checkpoint: str | None = None
    """the folder that `fit` wrote"""
    every: int = 1
    """answer after every N steps of a series, and always after its last"""
    output: str | None = None
    """FILE.jsonl for the answers instead of standard output; FILE.jsonl.partial until the end; pose: FILE.npz too"""
    overwrite: bool = False
    """replace an output that exists"""
    quiet: bool = False
    """no notes and no closing line on standard error"""


def build_parser(cls: type[Pipeline], verb: str) -> ArgumentParser:
    """The parser of one verb of one domain.

    Args:
        cls: the pipeline's class.
        verb: one of the common verbs or of the domain's own.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    method = getattr(cls, cls.verbs.get(verb, verb))
    description = COMMON_VERBS.get(verb) or (inspect.getdoc(method) or "").splitlines()[0]
    parser = ArgumentParser(prog=f"pipelines {cls.domain} {verb}", description=description, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML with any of the options below; flags override it")
    streams = verb in cls.streams
    if streams:
        taken = getattr(method, "takes", HEARD if listens(cls, verb) else STREAMED)
        parser.add_argument("inputs", nargs="+", type=str, help=taken)
    elif is_positional(cls, verb):
        parser.add_argument("inputs", nargs="+", type=str, help="files, or names from `pipelines list`")
    elif takes_archive(cls, verb):
        parser.add_argument("--data", type=str | None, default=None, help="a path, or a name from the catalogue")
        parser.add_argument("--archive", type=str | None, default=None, help="instead of --data: a folder of sets")
    elif verb != "demo":
        parser.add_argument("--data", type=str, required=verb != "export", help="a path, or a name from the catalogue")
    own = set(inspect.signature(method).parameters) - {"self", "data", "inputs", "path"}
    _evaluate_annotations(cls.__init__)
    _evaluate_annotations(method)
    parser.add_class_arguments(cls, None)
    if own - set(cls.param_names()):
        parser.add_method_arguments(cls, method.__name__, None, skip={"data", "inputs", "path", *cls.param_names()})
    skipped = {"every"} if listens(cls, verb) else set()
    parser.add_class_arguments(StreamOptions if streams else RunOptions, None, skip=skipped)
    parser.set_defaults({"data": None} if verb == "export" else {})
    return parser


def is_positional(cls: type[Pipeline], verb: str) -> bool:
    """Whether a verb takes its inputs as words, not by --data: its method calls them ``inputs``.

    Example:
        >>> from pipelines.domains import pipeline_class
        >>> is_positional(pipeline_class("superres"), "predict"), is_positional(pipeline_class("superres"), "fit")
        (True, False)
    """
    return "inputs" in inspect.signature(getattr(cls, cls.verbs.get(verb, verb))).parameters


def listens(cls: type[Pipeline], verb: str) -> bool:
    """Whether a verb listens (to sound, or what its method ``takes``), not steps: its method has a pace, ``realtime``.

    Example:
        >>> from pipelines.domains import pipeline_class
        >>> listens(pipeline_class("transcribe"), "stream"), listens(pipeline_class("classify"), "stream")
        (True, False)
    """
    return verb in cls.streams and "realtime" in inspect.signature(getattr(cls, cls.verbs[verb])).parameters


def takes_archive(cls: type[Pipeline], verb: str) -> bool:
    """Whether a verb takes a folder of sets by --archive instead of --data."""
    return verb == "evaluate" and cls.archives


def _evaluate_annotations(function: Callable[..., Any]) -> None:
    """Replace the text of argument annotations by the types.

    The parsing library would run the module's TYPE_CHECKING imports to understand text, which loads torch for --help.
    Types of arguments on the command line are therefore importable at run time (those of other arguments need not be).
    """
    for name, annotation in function.__annotations__.items():
        if name != "return" and isinstance(annotation, str):
            try:
                function.__annotations__[name] = eval(annotation, function.__globals__)  # our own source
            except NameError:
                function.__annotations__[name] = Any


def parse(cls: type[Pipeline], verb: str, argv: list[str]) -> tuple[Namespace, Namespace, ArgumentParser]:
    """Parse a verb's words into the whole configuration and the part that the user gave.

    Returns:
        (resolved, given, parser).

    Raises:
        ConfigError: an unknown or ill-typed option, with the nearest name.
    """
    parser = build_parser(cls, verb)
    words = _resume_words(_normalise(argv, parser))
    resolved = parse_words(parser, words)
    return resolved, parse_words(parser, words, defaults=False), parser


def parse_words(parser: ArgumentParser, words: list[str], **how: Any) -> Namespace:
    """Parse words; what is wrong with them is said in one sentence.

    Raises:
        ConfigError: an unknown or ill-typed option, with the nearest name.
    """
    try:
        return parser.parse_args(words, **how)
    except SystemExit:  # --help
        raise
    except Exception as error:  # jsonargparse raises its own and argparse's kinds
        raise _explain(error, parser) from None


def _normalise(argv: list[str], parser: ArgumentParser) -> list[str]:
    """Accept --on-duplicate for --on_duplicate, -o for --output, and `a,b` where a list of names is wanted."""
    lists = _options(parser, _is_name_list)
    switches = _options(parser, lambda hint: hint in (bool, bool | None))
    words: list[str] = []
    for word in argv:
        if word == "-o":
            word = "--output"
        name, equals, value = word.partition("=")
        if name.startswith("--") and len(name) > 2:
            name = "--" + name[2:].replace("-", "_")
            words += [name, value] if equals else [name]
        else:
            words.append(word)
    for index in range(1, len(words)):
        if words[index - 1] in lists and not words[index].startswith("["):
            words[index] = json.dumps([part.strip() for part in words[index].split(",") if part.strip()])
    return [
        part
        for index, word in enumerate(words)
        for part in ([word, "true"] if word in switches and not _is_bool(words[index + 1 : index + 2]) else [word])
    ]


def _options(parser: ArgumentParser, wanted: Callable[[Any], bool]) -> set[str]:
    """Option strings whose type is of the wanted kind."""
    return {
        option
        for action in parser._actions
        for option in action.option_strings
        if wanted(getattr(action, "_typehint", None))
    }


def _is_bool(following: list[str]) -> bool:
    return bool(following) and following[0].lower() in {"true", "false", "yes", "no", "null"}


def _is_name_list(hint: Any) -> bool:
    return get_origin(hint) in (tuple, list) and str in getattr(hint, "__args__", ())


def _resume_words(words: list[str]) -> list[str]:
    """Put the interrupted run's own configuration before the other flags of --resume FOLDER."""
    if "--resume" not in words:
        return words
    from pathlib import Path

    place = words.index("--resume") + 1
    if place >= len(words):
        raise ConfigError("needs the folder of the interrupted run", where="--resume")
    config = Path(words[place]) / "config.yaml"
    if not config.is_file():
        raise ConfigError("is not the folder of an interrupted run", where=f"--resume {words[place]}", expected=config)
    return ["--config", str(config), *words]


def _explain(error: Exception, parser: ArgumentParser) -> ConfigError:
    """One sentence instead of the parsing library's paragraph."""
    text = re.sub(r"\s+", " ", str(error)).strip()
    known = sorted({option.lstrip("-") for action in parser._actions for option in action.option_strings})
    group = re.search(r"Group '([\w.]+)' does not accept option '(\w+)'", text)
    if group:
        text = f"Option '{group[1]}.{group[2]}' is not accepted"
    unknown = re.search(r"(?:unrecognized arguments: |Option |Key )[\"']?-*([\w.\-]+)", text)
    if unknown and re.search(r"unrecognized arguments|not accepted|not expected", text):
        near = did_you_mean(unknown[1], known).replace("did you mean ", "did you mean --")
        return ConfigError("unknown option", where=f"--{unknown[1]}", cure=near or f"see `{parser.prog} --help`")
    value = re.search(r"Parser key \"([\w.]+)\": .*?Expected an? (.+?)\. Got value: (.+)", text)
    if value:
        name, expected, found = value.groups()
        return ConfigError("not such a value", where=f"--{name}", found=found.rstrip("."), expected=_in_words(expected))
    union = re.search(r"Parser key \"([\w.]+)\": .*?Subtypes: \[(.*?)\] Errors: .*Given value: (.+)", text)
    if union:
        name, kinds, found = union.groups()
        expected = " or ".join(_in_words(kind) for kind in kinds.split(", <class 'NoneType'>")[0].split(", "))
        return ConfigError("not such a value", where=f"--{name}", found=found.rstrip("."), expected=expected)
    missing = re.search(r"arguments? (?:is|are) required: (.+)", text)
    if missing:
        needed = missing[1] if missing[1] == "inputs" else f"--{missing[1].lstrip('-')}"
        return ConfigError("is missing", where=needed, expected=_help_of(parser, missing[1].lstrip("-")))
    return ConfigError(text.rstrip("."), where=parser.prog, cure=f"see `{parser.prog} --help`")


def _in_words(expected: str) -> str:
    """A type as people say it.

    Example:
        >>> _in_words("typing.Literal['a', 'b']"), _in_words("<class 'int'>")
        ("'a', 'b'", 'a whole number')
    """
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
    plain = re.sub(r"<class '(\w+)'>", lambda found: words.get(found[1], found[1]), expected)
    return re.sub(r"(?:typing\.)?Literal\[(.*?)\]", r"\1", plain)


def _help_of(parser: ArgumentParser, name: str) -> str | None:
    return next((action.help for action in parser._actions if action.dest == name), None)


def given_values(given: Namespace, values: Namespace, names: Iterable[str]) -> dict[str, Any]:
    """The arguments that the user gave; of a group of options those of its fields that were given, as a dict.

    A checkpoint keeps the others as they were stored with it.

    Args:
        given: what was given.
        values: all arguments, instantiated.
        names: of the arguments.
    """
    found: dict[str, Any] = {}
    for name in names:
        if name not in vars(given):
            continue
        part, value = given[name], values[name]
        fields = isinstance(part, Namespace) and dataclasses.is_dataclass(value)
        found[name] = {field: getattr(value, field) for field in vars(part)} if fields else value
    return found


def to_yaml(parser: ArgumentParser, config: Namespace) -> str:
    """The resolved configuration as YAML that --config takes back (without where the output went)."""
    kept = config.clone()
    for name in ("output", "overwrite", "resume", "config"):
        kept.pop(name, None)
    return parser.dump(kept, skip_validation=True)
