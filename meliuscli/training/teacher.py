"""The teacher of a distillation: the network of a recorded run, with its weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from meliuscli.arch.own import trained_spec
from meliuscli.arch.spec import ArchSpec
from meliuscli.errors import BadInputError
from meliuscli.runs import load_run
from meliuscli.training.trained import load_trained
from meliuscli.training.weights import tensors_digest


@dataclass(frozen=True, slots=True)
class Teacher:
    """Which run, which of its seeds (the best on validation), and the SHA-256 of the weights."""

    run: str
    arch: str
    seed: int
    digest: str

    def fields(self) -> dict[str, Any]:
        return asdict(self)


def load_teacher(name: str, reports: Path, student: ArchSpec, data_digest: str) -> tuple[Teacher, nn.Module]:
    """The teacher ``run:ID`` for a student.

    Raises ``BadInputError`` for a run of other data, classes or input, ``MissingError`` for one without weights."""
    kind, _, run_id = name.partition(":")
    if kind.lower() != "run":
        raise BadInputError(f"--teacher {name!r}: not of the form run:ID", "meliuscli list runs names them")
    run = load_run(run_id, reports)
    spec = trained_spec(run.fields["trained_as"], f"{run.path}: ")
    theirs, ours = (
        f"{'x'.join(map(str, each.input_shape))} and {each.num_classes} classes" for each in (spec, student)
    )
    if theirs != ours:
        raise BadInputError(f"--teacher run:{run.id} takes {theirs}, the student {ours}")
    if failed := run.fields.get("failed"):
        raise BadInputError(f"--teacher run:{run.id} is a failed run: {failed}")
    if run.fields["dataset"]["digest"] != data_digest:
        raise BadInputError(
            f"--teacher run:{run.id} was trained on other data, or another split ({run.fields['dataset']['name']})"
        )
    trained = load_trained(run)
    assert trained.seed is not None
    digest = tensors_digest(trained.network.state_dict())
    return Teacher(run.id, run.fields["arch"], trained.seed, digest), trained.network.requires_grad_(False)
