"""The house's own rules, read from its source: imports go down, modules explain themselves, examples run."""

from __future__ import annotations

import ast
import doctest
import importlib
import pathlib
import re
import tokenize
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
#: Root folder -> (import name, import names that it may use besides packages of others).
FLOORS: dict[str, tuple[str, tuple[str, ...]]] = {
    "kernels": ("core_attention.kernels", ("core_attention.kernels",)),
    "data": ("pipelines.data", ("pipelines.data",)),
    "core_attention": ("core_attention", ("core_attention",)),
    "pipelines": ("pipelines", ("pipelines", "core_attention")),
}
LINKS = {"core_attention": "kernels", "pipelines": "data"}
OURS = ("core_attention", "pipelines", "kernels", "data")
LONGEST = 500
#: Written apart so that this file does not hold the words that it looks for.
UNFINISHED = re.compile(
    "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", r"for n" + r"ow\b(?! in )", "not impl" + "emented yet"))
)


def sources(floor: str) -> list[pathlib.Path]:
    """Python files of a floor, without the floor that is linked into it."""
    folder = ROOT / floor
    linked = folder / LINKS.get(floor, "-")
    return [p for p in sorted(folder.rglob("*.py")) if linked not in p.parents and "__pycache__" not in p.parts]


FILES = [(floor, path) for floor in FLOORS for path in sources(floor)]
each_file = pytest.mark.parametrize(("floor", "path"), FILES, ids=[str(path.relative_to(ROOT)) for _, path in FILES])


def module_name(floor: str, path: pathlib.Path) -> str:
    """Import name of a file."""
    parts = path.relative_to(ROOT / floor).with_suffix("").parts
    return ".".join((FLOORS[floor][0], *(part for part in parts if part != "__init__")))


def imports(floor: str, path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """(line, absolute module name) of every import, also those inside functions and for types only."""
    package = module_name(floor, path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            found = ".".join((*base, *([node.module] if node.module else [])))
            yield node.lineno, found
            # `from core_attention import kernels` names a module too.
            yield from ((node.lineno, f"{found}.{alias.name}") for alias in node.names)


def forbidden(floor: str, name: str) -> bool:
    """Whether a floor may not import a module of ours."""
    if name.split(".")[0] not in OURS:
        return False
    return not any(name == allowed or name.startswith(f"{allowed}.") for allowed in FLOORS[floor][1])


@each_file
def test_imports_go_down_only(floor: str, path: pathlib.Path) -> None:
    wrong = [f"line {line}: {name}" for line, name in imports(floor, path) if forbidden(floor, name)]
    assert not wrong, f"{path.relative_to(ROOT)} imports from a floor above it, or by a top-level name"


@pytest.mark.parametrize(
    ("floor", "name", "wrong"),
    [
        ("kernels", "core_attention", True),
        ("kernels", "core_attention.kernels._dispatch", False),
        ("kernels", "kernels", True),
        ("kernels", "torch", False),
        ("data", "pipelines.errors", True),
        ("data", "pipelines.data.errors", False),
        ("data", "pipelines.database", True),
        ("core_attention", "pipelines.errors", True),
        ("core_attention", "core_attention.kernels", False),
        ("pipelines", "data.catalog", True),
        ("pipelines", "core_attention.registry", False),
    ],
)
def test_the_rule_itself(floor: str, name: str, wrong: bool) -> None:
    assert forbidden(floor, name) == wrong


def test_the_links_point_to_the_floors() -> None:
    for floor, link in LINKS.items():
        assert (ROOT / floor / link).resolve() == ROOT / link


@each_file
def test_module_and_its_public_names_have_docstrings(floor: str, path: pathlib.Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the module says what it is"
    bare = [name for name, node in _public(tree) if not ast.get_docstring(node) and not _is_overload(node)]
    assert not bare


Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _public(tree: ast.Module) -> Iterator[tuple[str, Documented]]:
    """Public classes and functions of a module that has no underscore in its own name; not what they contain."""
    for node in tree.body:
        if isinstance(node, Documented) and not node.name.startswith("_"):
            yield node.name, node


def _is_overload(node: Documented) -> bool:
    return any("overload" in ast.unparse(decorator) for decorator in node.decorator_list)


@each_file
def test_no_print_and_no_assert(floor: str, path: pathlib.Path) -> None:
    found = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert)
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print")
    ]
    assert not found, f"lines {found}"


@each_file
def test_file_is_not_too_long(floor: str, path: pathlib.Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


@each_file
def test_nothing_is_left_unfinished(floor: str, path: pathlib.Path) -> None:
    with tokenize.open(path) as file:
        found = [f"line {number}: {line.strip()}" for number, line in enumerate(file, 1) if UNFINISHED.search(line)]
    assert not found


@each_file
def test_no_pickle_and_no_unchecked_torch_load(floor: str, path: pathlib.Path) -> None:
    """Files from users never run code: `torch.load` only with weights_only=True, `pickle.load` never."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        own = bool(node.args) and ast.unparse(node.args[0]).startswith("pickle.dumps(")  # what this line itself made
        assert called not in ("pickle.load", "pickle.loads", "exec") or own, f"line {node.lineno}"
        if called == "torch.load":
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert given.get("weights_only") == "True", f"line {node.lineno}"


@each_file
def test_examples_in_docstrings_run(
    floor: str, path: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path.name == "__main__.py" or ">>> " not in path.read_text(encoding="utf-8"):
        return
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(module_name(floor, path))
    options = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL | doctest.NORMALIZE_WHITESPACE
    log: list[str] = []
    runner = doctest.DocTestRunner(optionflags=options)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):
        runner.run(test, out=log.append)
    assert not runner.failures, "".join(log)
    assert not list(tmp_path.iterdir()), "an example leaves files behind"


def test_examples_are_looked_for_and_failures_are_seen() -> None:
    """The check above would be worthless if the finder found nothing or the runner swallowed failures."""
    from pipelines import domains

    found = [test for test in doctest.DocTestFinder(exclude_empty=True).find(domains) if test.examples]
    assert len(found) >= 2
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    assert doctest.DocTestRunner(verbose=False).run(wrong, out=lambda _: None).failed == 1
