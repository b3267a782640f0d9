"""The house's two rules, read off the syntax trees: who names an engine, and which room imports which."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.engines import registry

ROOT = Path(__file__).resolve().parent.parent
ENGINES = ROOT / "serving" / "engines"
FOLDERS = sorted(path.parent.name for path in ENGINES.glob("*/__init__.py"))
IDS = {name for engine in registry.all() for name in (engine.id, engine.default_target)} - {"http"}
NAMES = {name for engine in registry.all() for name in (engine.id, engine.default_target, engine.framework.lower())}
NAMES -= {"", "http"}  # an engine of no framework; "http" is a scheme of addresses as well
# Where engines are named by right: their folders, the registry, and the dashboards, of which some are of one engine.
AT_HOME = (*(ENGINES / name for name in FOLDERS), ENGINES / "registry.py", ROOT / "monitoring" / "grafana")
METHODS = ("get", "pop", "startswith", "endswith", "removeprefix", "removesuffix")


def files(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py") if not path.name.endswith("_pb2.py"))


def named(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, how) where an engine's name decides something."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            for operand in (node.left, *node.comparators):
                yield from within(operand, "in a comparison")
        elif isinstance(node, ast.MatchValue):
            yield from within(node.value, "in a match")
        elif isinstance(node, ast.Dict):
            for key in filter(None, node.keys):
                yield from within(key, "as the key of a table")
        elif isinstance(node, ast.Subscript):
            yield from within(node.slice, "as a key")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
            for argument in node.args[:1]:
                yield from within(argument, f"in {node.func.attr}()")


def within(node: ast.AST, how: str) -> Iterator[tuple[int, str]]:
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        for element in node.elts:
            yield from within(element, how)
    elif isinstance(node, ast.Constant) and is_name(node.value):
        yield node.lineno, f"{node.value!r} {how}"


def is_name(value: object) -> bool:
    return isinstance(value, str) and (value in NAMES or any(name.startswith(value) for name in IDS if len(value) > 3))


@pytest.mark.parametrize(
    "text",
    [
        'x == "pytorch"',
        '"torchserve" != x',
        'x in ("a", "tensorflow-serving")',
        'table = {"embedded-tfserving": 1}',
        'table["tensorflow"]',
        'table.get("pytorch")',
        'x.startswith("embedded")',
        'match x:\n    case "tensorflow":\n        pass',
    ],
)
def test_a_name_that_decides_is_found(text):
    assert [line for line, _ in named(ast.parse(text))] != []


@pytest.mark.parametrize("text", ['x == "grpc"', 'start("pytorch")', '"""pytorch"""', 'x == ""', 'x.get("name")'])
def test_a_name_that_decides_nothing_is_not(text):
    assert [line for line, _ in named(ast.parse(text))] == []


def named_in_conditions() -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line}: {how}"
        for path in files("serving", "loadtest", "monitoring")
        if not any(path.is_relative_to(home) for home in AT_HOME)
        for line, how in named(ast.parse(path.read_text()))
    ]


def test_no_engine_is_named_in_a_condition():
    assert named_in_conditions() == []


def test_only_engines_and_the_registry_know_the_default_targets_names():
    """Not even as a value: which targets there are is the experiment's to say."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value!r}"
        for path in files("serving", "loadtest", "monitoring")
        if not any(path.is_relative_to(home) for home in AT_HOME)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in registry.DEFAULT_TARGETS
    ]
    assert found == []


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import of ours, wherever it stands; for a type checker alone, too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                file = ROOT / module.replace(".", "/")
                is_module = file.with_suffix(".py").is_file() or file.is_dir()
                yield node.lineno, module if is_module else node.module


def strangers(room: str, allowed: tuple[str, ...], but: tuple[str, ...] = ()) -> list[str]:
    """Imports of our modules in ``room`` (a folder or a file) that are below none of ``allowed``, or one of ``but``."""

    def below(module: str, rooms: tuple[str, ...]) -> bool:
        return any(module == one or module.startswith(f"{one}.") for one in rooms)

    place = ROOT / room
    return [
        f"{path.relative_to(ROOT)}:{line}: imports {module}"
        for path in ([place] if place.is_file() else files(room))
        for line, module in imports(path)
        if module.split(".")[0] in ("models", "serving", "loadtest", "monitoring")
        if not below(module, allowed) or below(module, but)
    ]


OF_MODELS = tuple(
    f"models.{name}"
    for name in (
        "bundle",
        "child_environment",
        "declaration",
        "encoding",
        "in_use",
        "precision",
        "problem",
        "whole_file",
    )
)
PROJECT = (*OF_MODELS, "serving", "monitoring")
OF_ONE_ENGINE = tuple(f"serving.engines.{name}" for name in FOLDERS)
OPEN_TO_ENGINES = (
    *OF_MODELS,
    *("serving.engines", "serving.wire", "serving.profile", "serving.target", "serving.ports"),
)


ROOMS = {
    "serving/wire": ("serving.wire",),
    "serving/engines": OPEN_TO_ENGINES,
    "monitoring": ("monitoring", "serving.engines", "models.problem", "models.whole_file"),
    "loadtest/experiment": (*PROJECT, "loadtest.experiment"),
    "loadtest/generator": (*PROJECT, "loadtest.experiment", "loadtest.generator"),
    "loadtest/analysis": (*PROJECT, "loadtest.experiment", "loadtest.analysis"),
    "loadtest/report": (*PROJECT, "loadtest.experiment", "loadtest.analysis", "loadtest.report"),
}
BEHIND_THE_SEAM = ("serving/runtimes", *list(ROOMS)[2:])
ALL = ("models", "serving", "loadtest", "monitoring")


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_those_before_it(room):
    assert strangers(room, ROOMS[room]) == []


@pytest.mark.parametrize("room", BEHIND_THE_SEAM)
def test_engines_are_reached_through_the_seam_alone(room):
    assert strangers(room, ALL, but=OF_ONE_ENGINE) == []


@pytest.mark.parametrize("path", [*ENGINES.glob("*.py"), *(ROOT / "serving").glob("*.py")], ids=lambda path: path.name)
def test_what_engines_share_knows_none_of_them(path):
    assert strangers(str(path.relative_to(ROOT)), ALL, but=OF_ONE_ENGINE) == []


@pytest.mark.parametrize("engine", FOLDERS)
def test_an_engine_imports_another_s_folder_only_to_stand_in_for_it(engine):
    folders = {type(one).__module__.split(".")[2]: one for one in registry.all()}
    mine = folders.pop(engine)
    others = tuple(f"serving.engines.{name}" for name, one in folders.items() if one.id != mine.stands_in_for)
    assert strangers(f"serving/engines/{engine}", OPEN_TO_ENGINES, but=others) == []
