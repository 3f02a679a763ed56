"""meliuscli: count, train, search and compare binary neural networks.

From Python: ``import meliuscli as mc``, then ``mc.count("meliusnet29").ops``. What stands in ``__all__`` is documented in
``meliuscli.api`` and loaded when it is first used; the import alone loads no torch, pandas or Optuna."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meliuscli.api import (
        check_proxy,
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
        resume_check,
        resume_search,
        resume_train,
        search,
        train,
    )
    from meliuscli.report.costs import NetworkCosts
    from meliuscli.work.listener import Listener, Steps

from meliuscli.version import __version__

__all__ = [
    "Listener",
    "NetworkCosts",
    "Steps",
    "__version__",
    "check_proxy",
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
    "resume_check",
    "resume_search",
    "resume_train",
    "search",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("meliuscli.api"), name)
    raise AttributeError(f"module 'meliuscli' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
