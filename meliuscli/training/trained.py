"""A network with weights that were trained: from a recorded run, or from a file of weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from meliuscli.arch.own import trained_spec
from meliuscli.arch.spec import ArchSpec
from meliuscli.data.preprocessing import Preprocessing
from meliuscli.errors import BadInputError, MissingError
from meliuscli.runs import Run, weights_path
from meliuscli.training.network import build_for_training
from meliuscli.training.weights import load_weights, read_preprocessing


@dataclass(frozen=True, slots=True)
class Trained:
    """A network in evaluation mode, the spec that it was built from, and the file of its weights; ``seed`` is that of a
    run's training, ``preprocessing`` what the file says of the images that it takes."""

    spec: ArchSpec
    network: nn.Module
    path: Path
    seed: int | None = None
    preprocessing: Preprocessing | None = None


def load_trained(run: Run, seed: int | None = None) -> Trained:
    """The network of a run's seed; without ``seed`` the one that was best on validation.

    Raises ``BadInputError`` for a seed that was not trained, ``MissingError`` when the weights were not kept."""
    seeds = {one["seed"]: one["validation_top1"] for one in run.fields["runs"]}
    if seed is None:
        seed = max(seeds, key=lambda one: (seeds[one], -one))
    elif seed not in seeds:
        raise BadInputError(f"run {run.id}: no seed {seed}, it has {', '.join(map(str, seeds))}")
    path = weights_path(run.path.parent, run.id, seed)
    if not path.is_file():
        raise MissingError(f"{path}: no such file", f"was run:{run.id} trained with --no-weights?")
    return replace(load_network(trained_spec(run.fields["trained_as"], f"{run.path}: "), path), seed=seed)


def load_network(spec: ArchSpec, path: Path) -> Trained:
    """``spec`` built, with the weights in a safetensors file of ours (errors: ``load_weights``)."""
    network = build_for_training(spec)
    load_weights(network, spec, path)
    return Trained(spec, network.eval(), path, preprocessing=read_preprocessing(path))
