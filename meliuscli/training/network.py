"""The network of a training: of a spec of ours, or made by the factory in somebody's own file."""

from __future__ import annotations

import torch
from torch import nn

from meliuscli.arch.own import OwnSpec
from meliuscli.arch.spec import ArchSpec
from meliuscli.counting.foreign.source import load_module, said
from meliuscli.errors import BadInputError
from meliuscli.nn.build import build
from meliuscli.processes import stdout_to_stderr
from meliuscli.training.recipe import Recipe


def build_for_training(spec: ArchSpec, recipe: Recipe | None = None) -> nn.Module:
    """A freshly initialised network (from torch's global generator). An own factory is called with what it accepts of
    ``num_classes``, ``input_channels`` and ``input_size``; a recipe's gradients of signs are for networks of ours.

    Raises ``BadInputError`` where the file has changed or only a record names it, or its network does not give (N, classes) logits."""
    if not isinstance(spec, OwnSpec):
        return build(spec) if recipe is None else build(spec, recipe.clip_threshold, recipe.sign_gradient)
    spec.require_named()
    given = {"num_classes": spec.num_classes, "input_channels": spec.input_channels, "input_size": spec.input_size}
    network = load_module(f"{spec.path}:{spec.factory}", given)
    _check_logits(network, spec)
    return network


def _check_logits(network: nn.Module, spec: OwnSpec) -> None:
    shape, modes = "x".join(map(str, spec.input_shape)), [(part, part.training) for part in network.modules()]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), stdout_to_stderr():
            logits = network.eval()(torch.zeros(2, *spec.input_shape))
    except Exception as error:  # whatever somebody else's code raises
        hint = "let the factory take num_classes, input_channels and input_size, and the network (N, C, H, W)"
        raise BadInputError(f"{spec.summary()}: cannot take images of {shape}: {said(error)}", hint) from error
    for part, training in modes:
        part.training = training
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != (2, spec.num_classes):
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        hint = "let the factory take num_classes"
        raise BadInputError(
            f"{spec.summary()}: gives {found} for two images, not logits of (2, {spec.num_classes})", hint
        )
