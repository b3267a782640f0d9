"""A user's factory, ``package.module:factory``: found, called, and known by the files that it is made of."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from models import training
from models.bundle import sha256
from models.problem import Problem, full_disk

ROOT = Path(__file__).resolve().parent.parent
OURS = tuple(sorted(path.parent.name for path in ROOT.glob("*/__init__.py")))
INSTALLED = tuple({Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")})
INTERPRETER = "The following operation failed in the TorchScript interpreter"
LONGEST = 240  # characters of somebody else's message


def call(name: str, seed: int) -> nn.Module:
    """Import the factory and call it without arguments, chance seeded; returns what it made, as it made it.

    A module (an object) is taken as it is. Raises `Problem`, naming exception and line, for what is not there, fails,
    or makes something else.
    """
    found = _attribute(name, _imported(name))
    if isinstance(found, nn.Module):
        return found
    if not callable(found):
        raise Problem(f"MODEL={name}: a {type(found).__name__} and no function; name one that returns an nn.Module")
    _require_no_arguments(name, found)
    with training.reproducible(seed), said(f"MODEL={name}: the factory failed"):
        made = found()
    if not isinstance(made, nn.Module):
        raise Problem(f"MODEL={name}: returns a {type(made).__name__}; it must return an nn.Module")
    return made


def sources(name: str) -> str:
    """SHA-256 over the Python files that the factory has been made of so far: its module's, and those that were loaded
    of its package or, outside installed packages, from the same folder."""
    module = sys.modules[name.partition(":")[0]]
    top = module.__name__.partition(".")[0]
    files = {}
    for loaded, path in _loaded():
        same_package = loaded == top or loaded.startswith(f"{top}.")
        if same_package or (_is_users(path) and path.is_relative_to(_root(module))):
            files[loaded] = path
    digest = hashlib.sha256()
    for loaded, path in sorted(files.items()):
        digest.update(f"{loaded} {sha256(path)}\n".encode())
    return digest.hexdigest()


@contextlib.contextmanager
def said(what: str, fix: str = "") -> Iterator[None]:
    """Turn whatever a user's code raises into a `Problem` of one line: ``what``, the exception, the line in their file,
    ``fix``. What the code prints goes to stderr: stdout is for results."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (KeyboardInterrupt, Problem):
        raise
    except BaseException as error:  # sys.exit in a user's file as well
        if full_disk(error) is not None:  # which is no fault of theirs
            raise
        raise Problem(f"{what}: {told(error)}{f'; {fix}' if fix else ''}") from error


def told(error: BaseException) -> str:
    """An exception in short, with the last line of the user's files that it passed."""
    words = str(error).strip().splitlines()
    if words and words[0].startswith(INTERPRETER):  # whose stack it is, down to the operator's own words
        words = [words[-1].partition(": ")[2] or words[-1]]
    first = f"{type(error).__name__}: {words[0].strip()}" if words else type(error).__name__
    first = first if len(first) <= LONGEST else f"{first[: LONGEST - 1]}…"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{first} ({error.filename}:{error.lineno})" if "line" not in first else first
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(Path(frame.filename))]
    return f"{first} ({places[-1].filename}:{places[-1].lineno})" if places else first


def _imported(name: str) -> ModuleType:
    module = name.partition(":")[0]
    top = module.partition(".")[0]
    if top in OURS:
        raise Problem(
            f"MODEL={name}: {top} is a package of Tandem itself, which is found first; rename yours, or name it "
            f"from the folder above it, as MODEL=folder.{name} with that folder's parent in PYTHONPATH"
        )
    importlib.invalidate_caches()
    try:
        with said(f"MODEL={name}: {module} cannot be imported"):
            return importlib.import_module(module)
    except Problem as problem:
        missing = problem.__cause__
        if not isinstance(missing, ModuleNotFoundError) or not missing.name:
            raise
        if module == missing.name or module.startswith(f"{missing.name}."):
            raise Problem(
                f"MODEL={name}: no module {missing.name}, neither in the working folder nor in PYTHONPATH; give the "
                f"folder that holds {top}, as make … PYTHONPATH=FOLDER"
            ) from None
        package = missing.name.partition(".")[0]
        install = f"install it: .venv/bin/pip install {package}"
        raise Problem(
            f"MODEL={name}: {module} needs {missing.name}, which is not there: {told(missing)}; "
            f"{'mend the import' if package == top else install}"
        ) from None


def _attribute(name: str, module: ModuleType) -> Any:
    found: Any = module
    for part in name.partition(":")[2].split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            public = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
            near = difflib.get_close_matches(part, public, n=1)
            hint = f"did you mean {near[0]}?" if near else "name a function of it that returns an nn.Module"
            raise Problem(f"MODEL={name}: {module.__file__ or module.__name__} has no {part}; {hint}") from None
    return found


def _require_no_arguments(name: str, factory: Callable[..., Any]) -> None:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # of a builtin
        return
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [one.name for one in parameters if one.default is one.empty and one.kind not in variable]
    if needed:
        raise Problem(
            f"MODEL={name}: needs {', '.join(needed)}, and is called without arguments; give them defaults, or name a "
            "function that does"
        )


def _loaded() -> Iterator[tuple[str, Path]]:
    """Names and files of the Python modules that are loaded."""
    for name, module in list(sys.modules.items()):
        file = vars(module).get("__file__") if isinstance(module, ModuleType) else None
        if isinstance(file, str) and file.endswith(".py") and Path(file).is_file():
            yield name, Path(file).resolve()


def _root(module: ModuleType) -> Path:
    """The folder in which the module, or the package that it is of, was found."""
    file = Path(str(module.__file__)).resolve()
    return file.parents[module.__name__.count(".") + (file.name == "__init__.py")]


def _is_users(path: Path) -> bool:
    """Whether a file is neither Python's, nor of an installed package, nor Tandem's."""
    path = path.resolve()
    ours = any(path.is_relative_to(ROOT / room) for room in OURS)
    return path.is_file() and not ours and not any(path.is_relative_to(place) for place in INSTALLED)
