"""Packages that share their name with a function of the Python API: ``mc.search(...)`` and ``meliuscli.search.space``.

Importing ``meliuscli.search`` binds the package under that name, over the function; so the package is the function, too."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class ApiPackage(ModuleType):
    """A package that calls the API's function of its name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        name = self.__name__.rpartition(".")[2]
        return getattr(importlib.import_module("meliuscli.api"), name)(*arguments, **options)


def is_function_too(package: str) -> None:
    """Make a package that is being imported callable."""
    sys.modules[package].__class__ = ApiPackage
