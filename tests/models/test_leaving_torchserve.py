"""docs/leaving-torchserve.md names files that are really in a bundle, and code that is really Python."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "leaving-torchserve.md").read_text()


def test_every_file_of_a_bundle_that_the_page_names_is_there(bundle):
    table = re.findall(r"^\| `([^`]+)` \|.*\| (always|`make export ARGS=--aot`) \|$", PAGE, re.MULTILINE)
    assert len(table) == 5
    for name, made in table:
        assert (bundle.folder / name).exists() == (made == "always"), name
    assert bundle.compiled_program.relative_to(bundle.folder).as_posix() in dict(table)
    used = re.findall(r"artifacts/convnet/1/([\w./]+\w)", PAGE)
    assert len(used) >= 5
    for name in used:
        assert (bundle.folder / name).exists(), name


def test_the_shapes_in_the_page_are_the_bundle_s(bundle):
    assert f"dims: {list(bundle.input_shape)}".replace("[", "[ ").replace("]", " ]") in PAGE
    assert f"dims: [ {bundle.classes} ]" in PAGE


def test_its_programs_are_python():
    blocks = re.findall(r"(?:^    .*\n|^\n)+", PAGE, re.MULTILINE)
    programs = [textwrap.dedent(block) for block in blocks if block.lstrip("\n").startswith("    import ")]
    assert len(programs) == 4
    for program in programs:
        ast.parse(program)
