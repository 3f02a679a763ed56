"""The Python API: what the commands do, as functions of values. ``import meliuscli as mc``, then ``mc.count(...)``.

Networks are names (``"meliusnet29"``), TOML files, or specs as ``load`` gives them. All errors are ``MeliusError``: a
message, a hint and the exit code that the command would have. Long work tells a ``Listener``; nobody listens by default."""

from __future__ import annotations

from meliuscli.api.costing import Network, compare, count, load, predict
from meliuscli.api.evaluating import classify, evaluate
from meliuscli.api.exporting import export, import_weights, pack
from meliuscli.api.proxy_checks import check_proxy, resume_check
from meliuscli.api.searching import resume_search, search
from meliuscli.api.training_runs import load_trained, resume_train, train
from meliuscli.report.costs import NetworkCosts
from meliuscli.work.listener import Listener, Steps

__all__ = [
    "Listener",
    "Network",
    "NetworkCosts",
    "Steps",
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
