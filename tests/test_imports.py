"""The rooms of the house: who may import whom, and which command lines stay light."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("models", "serving", "loadtest", "monitoring")
MAY_IMPORT = {
    "models": {"models"},
    "serving": {"serving", "models", "monitoring"},
    "loadtest": {"loadtest", "serving", "models", "monitoring"},
    "monitoring": {"monitoring", "serving"},
}
# Of the models, what the others may use.
OPEN = {
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
}
# Of the servers it needs to know in which dialect each one's metrics are.
OF_SERVING = {"monitoring": {"serving.engines", "serving.engines.registry"}}


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_a_room_imports_only_the_rooms_before_it(package):
    for path in (ROOT / package).rglob("*.py"):
        ours = {name for name in imported(path) if name.split(".")[0] in PACKAGES}
        assert {name.split(".")[0] for name in ours} <= MAY_IMPORT[package], path
        if package != "models":
            rooms = {".".join(name.split(".")[:2]) for name in ours if name.startswith("models.")}
            assert rooms <= OPEN, path
        if package in OF_SERVING:
            assert {name for name in ours if name.startswith("serving")} <= OF_SERVING[package], path


def test_the_wire_imports_nothing_of_the_project():
    for path in (ROOT / "serving" / "wire").rglob("*.py"):
        ours = {name for name in imported(path) if name.split(".")[0] in PACKAGES}
        assert all(name.startswith("serving.wire") for name in ours), path


def test_the_embedded_server_s_modules_do_not_import_each_other_in_circles():
    package = ROOT / "serving" / "engines" / "embedded_tfserving"
    modules = {f"serving.engines.embedded_tfserving.{path.stem}": path for path in package.glob("*.py")}
    graph = {name: imported(path) & modules.keys() for name, path in modules.items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(modules)  # raises CycleError


@pytest.mark.parametrize("package", ["loadtest", "monitoring"])
def test_no_deep_learning_in_the_load_test(package):
    for path in (ROOT / package).rglob("*.py"):
        assert not {"torch", "tensorflow", "tensorflow_serving", "onnx"} & {n.split(".")[0] for n in imported(path)}, (
            path
        )


@pytest.mark.parametrize(
    "module",
    [
        "loadtest.experiment.run",
        "loadtest.experiment.compare",
        "loadtest.bench.load_generator",
        "loadtest.bench.embedded",
        "serving.runtimes.process.launch",
        "serving.wire_parity",
        "serving.engines.embedded_tfserving.json_process",
        "serving.engines.embedded_tfserving.large_requests",
        "serving.engines.embedded_tfserving.side_process",
    ],
)
def test_importing_loads_neither_torch_nor_tensorflow(module):
    code = f"import {module}, sys; sys.exit(bool({{'torch', 'tensorflow'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("package", ["models", "serving", "loadtest", "monitoring"])
def test_every_command_line_has_help(package):
    done = subprocess.run(
        [sys.executable, "-m", package, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert "usage:" in done.stdout


def test_only_the_locust_file_s_process_imports_locust():
    """Importing Locust patches the standard library for gevent, in whichever process that happens."""
    modules = [
        "loadtest.experiment.run",
        *(
            f"loadtest.generator.{path.stem}"
            for path in (ROOT / "loadtest" / "generator").glob("*.py")
            if path.stem not in ("locust_stats", "locustfile", "__init__")
        ),
    ]
    code = f"import {', '.join(modules)}, sys; sys.exit('locust' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
