"""What the Dockerfiles promise, seen without an engine."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from models.problem import Problem
from serving.runtimes.containers import base_images, images
from tests.docker.files import DOCKER, DOCKERFILES, ROOT, instruction, stages

HADOLINT = Path(sys.executable).parent / "hadolint"
each_dockerfile = pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
LISTS = sorted(path.stem for path in (DOCKER / "requirements").glob("*.in"))


@each_dockerfile
def test_hadolint_finds_nothing(dockerfile):
    done = subprocess.run([HADOLINT, "--no-color", dockerfile], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_there_is_one_dockerfile_an_image():
    assert [path.name.removesuffix(".Dockerfile") for path in DOCKERFILES] == sorted(one.name for one in images.known())


@each_dockerfile
def test_bases_are_named_in_one_file_only(dockerfile):
    for first, *_ in stages(dockerfile)[1:]:
        assert re.match(r"FROM \$\{(PYTHON|TENSORFLOW_SERVING|TRITON)\}( AS \w+)?$", first), first
    assert not any("=" in line for line in stages(dockerfile)[0])


@each_dockerfile
def test_the_image_runs_as_nobody_special_without_a_shell(dockerfile):
    last = stages(dockerfile)[-1]
    assert instruction(last, "USER") == "10001:10001"
    assert not [line for line in last if line.startswith(("RUN ", "ADD ", "SHELL "))]
    assert isinstance(json.loads(instruction(last, "ENTRYPOINT")), list)
    command = instruction(last, "HEALTHCHECK").partition("CMD ")[2]
    assert "sh" not in json.loads(command)


@each_dockerfile
def test_the_image_says_where_it_comes_from_and_what_is_in_it(dockerfile):
    label = instruction(stages(dockerfile)[-1], "LABEL")
    for key in ("title", "description", "licenses", "source", "revision", "version"):
        assert f"org.opencontainers.image.{key}=" in label
    assert 'dev.tandem.model.version="${VERSION}"' in label
    assert 'dev.tandem.bundle.digest="sha256:${DIGEST}"' in label


@each_dockerfile
def test_what_changes_often_comes_last(dockerfile):
    last = stages(dockerfile)[-1]
    order = [
        next(i for i, line in enumerate(last) if re.search(word, line))
        for word in ("--from=|^FROM", "COPY serving/", r"\$\{BUNDLE\}")
    ]
    assert order == sorted(order)
    assert order[-1] < next(i for i, line in enumerate(last) if line.startswith("ARG REVISION"))


def test_base_images_are_pinned_by_digest():
    pinned = base_images.variables()
    for name, value in pinned.items():
        if name.endswith("_IMAGE"):
            assert re.fullmatch(r"[a-z0-9./-]+:[A-Za-z0-9._-]+", value), value
    # TensorFlow Serving's and Triton's are not written down yet (see the file).
    empty = [name for name, value in pinned.items() if name.endswith("_DIGEST") and not value]
    assert set(empty) <= {"TENSORFLOW_SERVING_DIGEST", "TENSORFLOW_SERVING_GPU_DIGEST", "TRITON_DIGEST"}
    assert not any(v for k, v in base_images.variables(digests=False).items() if k.endswith("_DIGEST"))


@pytest.mark.parametrize("line", ["PYTHON=python:3.11", "PYTHON_DIGEST=sha256:12", "python_IMAGE=python:3.11"])
def test_a_slip_in_the_base_image_file_is_named_with_its_line(line, tmp_path):
    file = tmp_path / "base-images.env"
    file.write_text(f"# a comment\n{line}\n")
    with pytest.raises(Problem, match=r"base-images.env:2: .* use NAME_IMAGE"):
        base_images.variables(file=file)


def pins(path: Path) -> dict[str, str]:
    lines = [line.split()[0] for line in path.read_text().splitlines() if re.match(r"[a-z0-9].*==", line)]
    return dict(line.split("==", 1) for line in lines)


@pytest.mark.parametrize("name", LISTS)
def test_images_install_what_the_project_locks(name):
    lock = pins(DOCKER / "requirements" / f"{name}.lock")
    assert lock.items() <= pins(ROOT / "requirements.lock").items()
    asked = (DOCKER / "requirements" / f"{name}.in").read_text().split("\n")
    assert {line for line in asked if line and line[0] not in "#-"} <= lock.keys()


def test_the_load_generators_image_has_nothing_of_torch_or_tensorflow():
    assert not [name for name in pins(DOCKER / "requirements" / "loadtest.lock") if "torch" in name or "tensor" in name]


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        (
            "torchserve",
            [
                "serving.runtimes.containers.entrypoint",
                "serving.engines.torchserve.container",
                "serving.engines.torchserve.server",
                "serving.engines.torchserve.java",
            ],
        ),
        ("embedded-tfserving", ["serving.runtimes.containers.health", "serving.engines.embedded_tfserving.main"]),
        ("loadtest", ["locust", "loadtest.generator.phase_runner", "loadtest.generator.workers"]),
    ],
)
def test_every_package_that_an_image_imports_is_installed_in_it(name, modules):
    """Checks the import statements of our own modules, also those inside functions; but an engine's methods are for
    others: a container calls what its `container` module names."""
    lock = {package.replace("_", "-") for package in pins(DOCKER / "requirements" / f"{name}.lock")}
    known = importlib.metadata.packages_distributions()
    missing = set()
    for file in sorted(reached(modules)):
        for imported in {module.partition(".")[0] for module, _ in imports(file)}:
            packages = {one.lower().replace("_", "-") for one in known.get(imported, [])}
            if packages and not packages & lock:
                missing.add(imported)
    assert not missing


def reached(modules: list[str]) -> set[Path]:
    """The files of our packages that these modules import, directly or not."""
    found: set[Path] = set()
    todo = list(modules)
    while todo:
        path = ROOT / (todo.pop().replace(".", "/") + ".py")
        if not path.is_file() or path in found:
            continue
        found.add(path)
        for module, names in imports(path):
            todo += [module, *(f"{module}.{one}" for one in names)]
    return found


def imports(path: Path) -> list[tuple[str, list[str]]]:
    """What a module imports when it runs: modules, and the names that are taken from them."""
    inside_functions = path.name != "engine.py"
    found: list[tuple[str, list[str]]] = []
    todo: list[ast.AST] = [ast.parse(path.read_text())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.FunctionDef) and not inside_functions:
            continue
        if isinstance(node, ast.Import):
            found += [(one.name, []) for one in node.names]
        if isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.module, [one.name for one in node.names]))
        todo += ast.iter_child_nodes(node)
    return found


def test_the_entry_point_and_the_health_check_need_no_package():
    """TensorFlow Serving's image has a bare Python, and a health check runs beside a server that is measured."""
    code = (
        "from serving.runtimes.containers import entrypoint, health, servers; import sys; "
        "print(*(servers.named(one.id).image for one in servers.engines())); "
        "print(*sorted({'numpy', 'grpc', 'msgspec', 'asyncio', 'urllib.request'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == "torchserve tensorflow-serving embedded-tfserving triton\n\n"


def test_the_build_context_is_a_list_of_what_may_go_in():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    for image in images.known():
        for source in image.sources:
            assert f"!{source}" in lines
