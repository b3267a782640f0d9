"""Which engines `loadtest compare --engines` compares, said before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from loadtest import __main__ as command_line
from loadtest.experiment import compare
from loadtest.experiment import file as experiments


@pytest.fixture
def asked(monkeypatch) -> list[Sequence[str]]:
    """The targets of each comparison that was about to be made."""
    found: list[Sequence[str]] = []

    def record(name, overrides, **_):
        found.append(experiments.load(name, overrides).target_names)
        return 0

    monkeypatch.setattr(compare, "compare", record)
    return found


@pytest.mark.parametrize(
    ("engines", "targets"),
    [
        ([], ("pytorch", "tensorflow")),
        (["--engines", "torchserve,tensorflow-serving,triton"], ("pytorch", "tensorflow", "triton")),
        (["--engines", "triton-torchscript, triton"], ("triton-torchscript", "triton")),
    ],
    ids=["two by default", "three", "in their order"],
)
def test_the_engines_that_are_named_are_compared_in_that_order(asked, engines, targets):
    assert command_line.main(["compare", "--experiment", "smoke", *engines]) == 0
    assert asked == [targets]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engines", "torchserve,tritno"], "engine 'tritno': use one of torchserve, tensorflow-serving, "),
        (["--engines", "triton,triton"], "targets = ['triton', 'triton']: name each once"),
        (["--engines", ","], "targets = []: name each once"),
        (["--engines", "triton", "--set", "targets=['pytorch']"], "--engines and --set targets: give one of them"),
    ],
)
def test_what_cannot_be_compared_is_one_line(asked, capsys, arguments, message):
    assert command_line.main(["compare", "--experiment", "smoke", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not asked
