"""From ``path/to/file.py:name`` to a module: the user's code executed, and what goes wrong in it said in a sentence."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from types import ModuleType

from torch import nn

from meliuscli.errors import BadInputError, MeliusError, MissingError, unknown_name
from meliuscli.memory import lacks_memory
from meliuscli.processes import stdout_to_stderr

_FORM = "write FILE.py:NAME, where NAME is a function without arguments that returns the network, or the network itself"


def load_module(reference: str, given: Mapping[str, int] | None = None) -> nn.Module:
    """The network of ``load_example``."""
    return load_example(reference, given)[0]


def load_example(reference: str, given: Mapping[str, int] | None = None) -> tuple[nn.Module, object | None]:
    """The network that ``path/to/file.py:name`` names: an ``nn.Module``, or what a function or class of that name
    returns, with the example inputs that it may return beside it. ``name`` may have dots. It is called without arguments;
    where the network has to be a new one, with what it accepts of ``given``.

    The file's folder is importable while the file is executed and the network is made. What that code prints goes to
    stderr. Raises ``BadInputError`` for anything that is wrong with the file or the name, and ``MissingError`` for a
    package that is not installed or too little memory."""
    made = _made(reference, given)
    if isinstance(made, nn.Module):
        return made, None
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module):
        return made
    hint = "return the network alone, or (module, example_inputs)" if isinstance(made, tuple | list | dict) else None
    raise BadInputError(f"{reference} returns no torch.nn.Module but a {type(made).__name__}", hint)


def _made(reference: str, given: Mapping[str, int] | None) -> object:
    """What the name stands for."""
    path, name = split_reference(reference)
    with stdout_to_stderr(), _importable(path.resolve().parent):
        found = _find(_execute(path), path, name)
        if not isinstance(found, nn.Module):
            return _call(found, path, name, given or {})
    if given is not None:
        hint = f"name a function that makes a new one: def make(): return {name}"
        raise BadInputError(f"{path}:{name} is a network, but each training begins with a new one", hint)
    return found


def split_reference(reference: str) -> tuple[Path, str]:
    file, colon, name = reference.rpartition(":")
    if not colon or not re.fullmatch(r"[\w.]*", name) or name.endswith(".py"):
        file, name = reference, ""
    path = Path(file).expanduser()
    if path.suffix != ".py":
        raise BadInputError(f"{reference}: not a Python file (.py)", _FORM)
    if not path.is_file():
        raise BadInputError(f"{path}: {'a directory, not a file' if path.is_dir() else 'no such file'}")
    if not name:
        defined = ", ".join(_defined(path))
        raise BadInputError(
            f"{path}: which network of this file?", f"{_FORM}; it defines {defined}" if defined else _FORM
        )
    return path, name


def _defined(path: Path) -> list[str]:
    """Public functions and classes of a file, without executing it."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return []
    kinds = ast.FunctionDef | ast.ClassDef
    return [node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """``folder`` first on sys.path, no arguments for the code to parse, no caches written beside it; afterwards its
    modules are forgotten, or another folder's of the same names would never be loaded."""
    before, paths, argv, bytecode = set(sys.modules), sys.path[:], sys.argv, sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    sys.argv, sys.dont_write_bytecode = argv[:1], True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:], sys.argv, sys.dont_write_bytecode = paths, argv, bytecode
        if not {"site-packages", "dist-packages"} & set(folder.parts):
            tops = {name for name in sys.modules if name not in before and _lies_in(sys.modules.get(name), folder)}
            for name in [name for name in sys.modules if name.partition(".")[0] in tops]:
                del sys.modules[name]


def _lies_in(module: ModuleType | None, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    places = list(getattr(module, "__path__", ())) or ([file] if file else [])
    return any(Path(place).resolve().parent == folder for place in places)


def _execute(path: Path) -> ModuleType:
    """The file as a module under a name of its own; once, however many networks of it are asked for."""
    stamp = zlib.crc32(f"{path.resolve()} {path.stat().st_mtime_ns}".encode())
    name = f"{path.stem} {stamp:08x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), vars(module))
    except BaseException as error:
        del sys.modules[name]
        raise _refusal(error, path, "executing it") from error
    return module


def _find(module: ModuleType, path: Path, name: str) -> object:
    try:
        return attrgetter(name)(module)
    except AttributeError:
        pass
    except BaseException as error:
        raise _refusal(error, path, f"{name}") from error
    known = [key for key, value in vars(module).items() if not key.startswith("_") and _is_network(value)]
    if not known:
        raise BadInputError(f"{path}: has no {name!r}, nor any other network", _FORM)
    raise unknown_name("network", name, known, str(path), listed_by="")


def _is_network(value: object) -> bool:
    """Could it be, or make, one?"""
    made_by = inspect.isfunction(value) or (isinstance(value, type) and issubclass(value, nn.Module))
    return made_by or isinstance(value, nn.Module)


def _call(factory: object, path: Path, name: str, given: Mapping[str, int]) -> object:
    if not callable(factory):
        raise BadInputError(f"{path}:{name} is neither a network nor a function but a {type(factory).__name__}", _FORM)
    accepted, needed = _arguments(factory)
    taken = {key: value for key, value in given.items() if key in accepted}
    if missing := [key for key in needed if key not in taken]:
        hint = f"add a function that needs none: def network(): return {name}({missing[0]}=...)"
        called = f"called with {', '.join(taken)}" if taken else "called without any"
        raise BadInputError(f"{path}:{name} needs arguments ({', '.join(missing)}); it is {called}", hint)
    try:
        return factory(**taken)
    except BaseException as error:
        raise _refusal(error, path, f"{name}()") from error


def _arguments(factory: Callable[..., object]) -> tuple[list[str], list[str]]:
    """Names of the arguments that it accepts by name, and of those that it cannot be called without."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # not every builtin tells
        return [], []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = [p for p in parameters if p.kind not in optional]
    by_name = [p.name for p in named if p.kind is not p.POSITIONAL_ONLY]
    return by_name, [p.name for p in named if p.default is p.empty]


def _refusal(error: BaseException, path: Path, doing: str) -> MeliusError:
    """What went wrong in the user's code, in one sentence."""
    let_ctrl_c_through(error)
    place = f"{path}{_line(error, path)}"
    if isinstance(error, SyntaxError):
        return BadInputError(f"{error.filename or path}, line {error.lineno}: syntax error: {error.msg}")
    if isinstance(error, ModuleNotFoundError) and error.name and not _exists(error.name):
        hint = "install it into the environment of meliuscli, or put it beside the file"
        return MissingError(f"{place}: needs the package {error.name.partition('.')[0]!r}, which is not there", hint)
    if lacks_memory(error):
        return MissingError(f"{place}: {doing}: too little memory: {said(error)}")
    if isinstance(error, SystemExit):
        hint = 'what a script does beside defining networks belongs under if __name__ == "__main__":'
        return BadInputError(f"{place}: {doing} ends the program ({said(error)})", hint)
    relative = isinstance(error, ImportError) and "relative import" in str(error)
    outside = "a file of a package: name one outside it that imports from the package" if relative else None
    return BadInputError(f"{place}: {doing} raises {said(error)}", outside)


def let_ctrl_c_through(error: BaseException) -> None:
    """Whatever else a user's code raises, an exit or an error of no kind that Python knows, is that code's; Ctrl-C is
    the user's."""
    if isinstance(error, KeyboardInterrupt):
        raise error


def _line(error: BaseException, path: Path) -> str:
    """The last line of the file that took part."""
    lines = [
        lineno for frame, lineno in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == str(path)
    ]
    return f", line {lines[-1]}" if lines else ""


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def said(error: BaseException) -> str:
    """An error's type and the first line of its message."""
    try:
        lines = str(error).strip().splitlines()
    except Exception:
        lines = []
    first = lines[0] if lines else ""
    return f"{type(error).__name__}: {first[:300]}" if first else type(error).__name__
