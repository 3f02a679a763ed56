"""What networks cost, side by side, and what they are believed to reach."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import NamedArch, load_arch, load_changed
from meliuscli.counting.analytic import count_spec
from meliuscli.counting.counts import Storage
from meliuscli.report.costs import NetworkCosts
from meliuscli.report.counted import Counted, make_view
from meliuscli.report.tables import Table

if TYPE_CHECKING:
    from meliuscli.evidence.belief import Belief

Network = str | Path | ArchSpec


def load(network: Network, **fields: Any) -> ArchSpec:
    """The spec of a network, with some fields changed: ``load("meliusnet22", growth_rate=48)``.

    Raises ``BadInputError`` for an unknown name or file, ``SpecError`` for a network that cannot exist."""
    if isinstance(network, ArchSpec):
        return network.replace(**fields) if fields else network
    return load_changed(str(network), fields).spec


def count(
    network: Network, *, convention: str = "melius", float_bits: int | None = None, bn_params: int | None = None
) -> NetworkCosts:
    """What a network costs, by arithmetic on its spec. Another input is another spec: ``load(network, input_size=128)``.

    Raises as ``load``, and ``BadInputError`` for an unknown convention."""
    view = make_view(convention, float_bits, bn_params)
    return NetworkCosts(_counted(network, view.storage), view)


def compare(
    *networks: Network, convention: str = "melius", float_bits: int | None = None, bn_params: int | None = None
) -> Table:
    """Networks side by side, ratios to the first, with published figures: what ``meliuscli compare`` prints. ``records``
    of the table are exact values. Raises as ``count``."""
    from meliuscli.report.compare import compare_table

    view = make_view(convention, float_bits, bn_params)
    return compare_table([_counted(network, view.storage) for network in networks], view)


def predict(network: Network) -> Belief:
    """The ImageNet top-1 (percent) that a network is believed to reach: ``top1``, ``low``, ``high`` of the 90 % interval.

    Raises as ``load``, and ``BadInputError`` where the evidence does not cover the network."""
    from meliuscli.evidence.belief import believe

    return believe([load(network)])[0]


def named(network: Network) -> NamedArch:
    """A network with what to call it. Raises as ``load``."""
    return NamedArch(network.summary(), network) if isinstance(network, ArchSpec) else load_arch(str(network))


def _counted(network: Network, storage: Storage) -> Counted:
    one = named(network)
    return Counted(one.name, one.spec, one.spec.input_shape, count_spec(one.spec, storage))
