"""meliuscli: count, train, search and compare binary neural networks.

From Python: ``import meliuscli as mc``, then ``mc.count("meliusnet29").ops``. What stands in ``__all__`` is documented in
``meliuscli.api`` and loaded when it is first used; the import alone loads no torch, pandas or Optuna."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meliuscli.api import (
        NetworkCosts,
        classify,
        compare,
        count,
        evaluate,
        export,
        import_weights,
        load,
        load_trained,
        pack,
        predict,
        resume_search,
        search,
        train,
    )
    from meliuscli.work.listener import Listener

from meliuscli.version import __version__

__all__ = [
    "Listener",
    "NetworkCosts",
    "__version__",
    "classify",
    "compare",
    "count",
    "evaluate",
    "export",
    "import_weights",
    "load",
    "load_trained",
    "pack",
    "predict",
    "resume_search",
    "search",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("meliuscli.api"), name)
    raise AttributeError(f"module 'meliuscli' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
