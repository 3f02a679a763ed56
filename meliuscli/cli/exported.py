"""The network that ``meliuscli export`` is asked for: of a family, of a module of the user's own, trained or untrained."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from meliuscli.cli.console import talk
from meliuscli.cli.networks import DEFAULT_INPUT, is_own, load_network, own_arch, parse_input, the_one, with_input
from meliuscli.errors import BadInputError

if TYPE_CHECKING:
    from torch import nn

    from meliuscli.arch.spec import ArchSpec
    from meliuscli.data.preprocessing import Preprocessing
    from meliuscli.training.trained import Trained


@dataclass(frozen=True, slots=True)
class Exported:
    """A network in evaluation mode, what to call it, and what its images go through where that is known."""

    name: str
    spec: ArchSpec
    network: nn.Module
    preprocessing: Preprocessing | None


@dataclass(frozen=True, slots=True)
class AskedExport:
    """What a command line says of the network: a name or ``None``, and the values of its options."""

    arch: str | None
    changes: list[str]
    input_: str | None
    weights: str | None
    seed: int | None
    reports: Path

    @property
    def is_changed(self) -> bool:
        """Is it asked for in another way than by its name alone?"""
        return bool(self.changes or self.weights or self.input_ or self.seed is not None)

    def exported(self, to: str) -> Exported:
        """Raises ``BadInputError`` for a network, weights or an input that cannot be had."""
        if not is_own(self.arch or ""):
            return self._of_family() if self.weights is None else self._trained(self.arch, self.weights)
        if self.changes or to != "onnx":
            raise BadInputError(f"{self.arch}: a module of your own has no fields to --set, and is exported --to onnx")
        if self.weights is None:
            return self._own(str(self.arch))
        own_arch(str(self.arch), [])  # so the command line names the file that the run's record wants executed
        return self._trained(None, self.weights)

    def _of_family(self) -> Exported:
        named = load_network(the_one(self.arch, None), self.changes, self.reports)
        spec = named.spec if self.input_ is None else with_input(named.spec, self.input_, named.name)
        self._begin_untrained(named.name)
        from meliuscli.nn.build import build

        return Exported(named.name, spec, build(spec).eval(), None)

    def _own(self, arch: str) -> Exported:
        """A module of the user's own as it is made, for images of ``input_``."""
        from meliuscli.counting.foreign import count_own, load_module

        channels, height, width = DEFAULT_INPUT if self.input_ is None else parse_input(self.input_)
        if height != width:
            raise BadInputError(f"--input {self.input_}: {arch} is exported for square images only")
        self._begin_untrained(arch)
        network, named = load_module(arch), own_arch(arch, [])
        logits = count_own(network, (channels, height, width)).count.total.output
        if len(logits) != 1:
            raise BadInputError(f"{arch}: gives {'x'.join(map(str, logits))} for an image, not logits")
        changes = {"num_classes": logits[0], "input_channels": channels, "input_size": height}
        return Exported(named.name, named.spec.replace(**changes), network.eval(), None)

    def _begin_untrained(self, name: str) -> None:
        import torch

        seed = self.seed or 0
        torch.manual_seed(seed)
        talk(f"no --weights: {name} is untrained, from seed {seed}")

    def _trained(self, arch: str | None, weights: str) -> Exported:
        """With ``weights``, for images of ``input_``."""
        read = self._of_run if weights.lower().startswith("run:") else self._of_file
        name, trained = read(arch, weights)
        if self.input_ is None:
            return Exported(name, trained.spec, trained.network, trained.preprocessing)
        spec = with_input(trained.spec, self.input_, name)
        how = None if trained.preprocessing is None else trained.preprocessing.at_size(spec.input_size)
        return Exported(name, spec, _resized(trained.network, spec, self.input_), how)

    def _of_run(self, arch: str | None, weights: str) -> tuple[str, Trained]:
        from meliuscli.runs import load_run

        self._require_unchanged(weights)
        named = None if arch is None else load_network(arch, reports=self.reports)
        run = load_run(weights.partition(":")[2], self.reports)
        if named is not None and named.spec.archid != run.fields["archid"]:
            raise BadInputError(
                f"--weights {weights}: a training of {run.fields['arch']}, not of {named.name}",
                "leave the network out: the run knows its own",
            )
        from meliuscli.training.trained import load_trained

        return str(run.fields["arch"]), load_trained(run, self.seed)

    def _of_file(self, arch: str | None, weights: str) -> tuple[str, Trained]:
        if arch is None:
            self._require_unchanged(weights)
        named = None if arch is None else load_network(arch, self.changes, self.reports)
        if self.seed is not None:
            raise BadInputError("--seed: is for run:ID, or for a network without --weights")
        path = Path(weights)
        if not path.exists() and re.fullmatch("[0-9a-fA-F]{3,8}", weights):
            raise BadInputError(f"--weights {weights}: no such file", f"did you mean run:{weights}?")
        from meliuscli.training.trained import load_network as load_weights
        from meliuscli.training.weights import read_spec

        spec = read_spec(path) if named is None else named.spec
        return path.name.removesuffix(path.suffix) if named is None else named.name, load_weights(spec, path)

    def _require_unchanged(self, weights: str) -> None:
        if self.changes:
            raise BadInputError(f"--set: the network of {weights} is what was trained, and stays so", "leave --set out")


def _resized(network: nn.Module, spec: ArchSpec, text: str) -> nn.Module:
    """The network's weights in one of ``spec``, which is for images of another size."""
    from meliuscli.training.network import build_for_training

    resized = build_for_training(spec)
    try:
        resized.load_state_dict(network.state_dict())
    except RuntimeError:
        raise BadInputError(f"--input {text}: the network's weights do not fit images of that shape") from None
    return resized.eval()
