"""A user's factory: found, called, and what is said where that fails."""

from __future__ import annotations

import itertools
import re
import sys

import pytest
import torch

from models import factories
from models.problem import Problem
from tests.models import own_package

NUMBERS = itertools.count()
LINEAR = "from torch import nn\ndef build():\n    return nn.Linear(2, 2)\n"


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module of its own name on the path; returns that name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text, name=None):
        name = name or f"brought_{next(NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def _refused(model, message):
    with pytest.raises(Problem, match=message) as caught:
        factories.call(model, seed=0)
    assert str(caught.value).startswith(f"MODEL={model}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_factory_is_called_without_arguments_and_with_its_chance_seeded(module):
    name = module("import torch\n" + LINEAR + "class Made:\n    net = build\nshared = nn.Linear(3, 3)\n")
    first, again, other = (factories.call(f"{name}:build", seed) for seed in (1, 1, 2))
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    assert factories.call(f"{name}:Made.net", seed=0).in_features == 2
    assert factories.call(f"{name}:shared", seed=0).in_features == 3


def test_what_a_factory_prints_is_no_result(module, capfd):
    factories.call(f"{module('print(1)' + chr(10) + LINEAR)}:build", seed=0)
    assert capfd.readouterr().out == ""


def test_a_module_that_is_not_there(module, tmp_path):
    _refused("nowhere_at_all:build", "no module nowhere_at_all, neither in the working folder nor in PYTHONPATH; give")
    _refused(f"{module(LINEAR)}.inner:build", r"no module brought_\d+.inner, neither")
    name = module("import not_installed_anywhere\n")
    told = _refused(f"{name}:build", f"{name} needs not_installed_anywhere, which is not there: ModuleNotFoundError: ")
    assert f"{tmp_path / name}.py:1" in told
    assert told.endswith("; install it: .venv/bin/pip install not_installed_anywhere")
    _refused(
        "models.mine:build", "models is a package of Tandem itself, which is found first; rename yours, or name it"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def build(:\n", r"cannot be imported: SyntaxError: "),
        ("x = 1 / 0\n", r"cannot be imported: ZeroDivisionError: division by zero \(.*\.py:1\)"),
        ("raise SystemExit('no GPU')\n", r"cannot be imported: SystemExit: no GPU \(.*\.py:1\)"),
        (LINEAR.replace("build", "built"), r"\.py has no build; did you mean built\?"),
        ("", r"\.py has no build; name a function of it that returns an nn.Module"),
        ("build = 3\n", "a int and no function; name one that returns an nn.Module"),
        ("def build():\n    return 'net'\n", "returns a str; it must return an nn.Module"),
        ("def build():\n    pass\n", "returns a NoneType; it must return an nn.Module"),
        (
            "def build(width, depth=2, *, classes):\n    pass\n",
            "needs width, classes, and is called without arguments;",
        ),
        (
            "def build():\n    return inner()\n\n\ndef inner():\n    raise ValueError('no\\nweights')\n",
            r"the factory failed: ValueError: no \(.*\.py:6\)$",
        ),
        ("import torch\ndef build():\n    return torch.zeros(2) @ torch.zeros(3)\n", r"RuntimeError: .* \(.*\.py:3\)$"),
    ],
)
def test_a_factory_that_fails_is_told_with_its_line(module, text, message):
    _refused(f"{module(text)}:build", message)


def test_its_sources_are_the_files_that_it_is_made_of(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    name = f"package_{next(NUMBERS)}"
    model = own_package.write(tmp_path, name)
    (tmp_path / "unrelated.py").write_text("x = 1\n")
    factories.call(model, seed=0)
    before = factories.sources(model)
    (tmp_path / "unrelated.py").write_text("x = 2\n")
    assert factories.sources(model) == before
    for file in ("network.py", "blocks.py"):
        path = tmp_path / name / file
        path.write_text(path.read_text() + "# another\n")
        assert factories.sources(model) != before
        before = factories.sources(model)


def test_modules_beside_a_factory_are_sources_too(module, tmp_path):
    beside = module("def make():\n    from torch import nn\n    return nn.Linear(2, 2)\n")
    name = module(f"from {beside} import make\n")
    factories.call(f"{name}:make", seed=0)
    before = factories.sources(f"{name}:make")
    (tmp_path / f"{beside}.py").write_text("# changed\n")
    assert factories.sources(f"{name}:make") != before


def test_an_installed_package_is_known_by_its_own_files_alone():
    assert factories.call("torch.nn:ReLU", seed=0) is not None
    assert re.fullmatch("[0-9a-f]{64}", factories.sources("torch.nn:ReLU"))
    assert "torch" in sys.modules
