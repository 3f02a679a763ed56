"""A recorded run: trainings from several seeds one after another, written down on their way; killed, it goes on.

While it trains, ``reports/run-<id>.checkpoint/`` holds ``run.json`` (the plan and the finished seeds) and a checkpoint
of the seed at hand. At the end one record is left, ``reports/run-<id>.json``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from torch import nn

from meliuscli.arch.own import OwnSpec, trained_spec
from meliuscli.arch.spec import ArchSpec, validate
from meliuscli.counting.analytic import count_spec
from meliuscli.counting.conventions import MELIUS
from meliuscli.counting.counts import Count
from meliuscli.data.batches import Prepared
from meliuscli.data.preprocessing import Preprocessing
from meliuscli.errors import FailedError, InterruptedByUser, MeliusError
from meliuscli.results import json_text, write_record, write_text
from meliuscli.runs import checkpoint_path, record_path, summary, weights_path
from meliuscli.training.chance import at_chance_text
from meliuscli.training.checkpoint import Checkpoint
from meliuscli.training.execution import Execution
from meliuscli.training.loop import EpochMetrics, Training
from meliuscli.training.processes import Processes
from meliuscli.training.recipe import Recipe
from meliuscli.training.run import RunResult, train_once
from meliuscli.training.weights import save_weights
from meliuscli.work.folders import RUN

if TYPE_CHECKING:
    import filelock


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run trains and how: all that repeats it. ``trained_as`` is the network at the data's input and ``dataset``
    has name, digest and directory."""

    id: str
    arch: str
    archid: str
    trained_as: ArchSpec
    dataset: dict[str, Any]
    recipe: Recipe
    seeds: int
    keep_weights: bool
    teacher: dict[str, Any] | None
    execution: Execution
    origin: dict[str, Any]
    first_seed: int = 0

    def fields(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            **{name: getattr(self, name) for name in self.__slots__},
            "trained_as": self.trained_as.model_dump(mode="json"),
            "recipe": self.recipe.model_dump(mode="json"),
            "execution": self.execution.fields(),
        }

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        """The inverse of ``fields``."""
        return cls(
            **{
                **fields,
                "trained_as": trained_spec(fields["trained_as"]),
                "recipe": validate(Recipe, fields["recipe"]),
                "execution": Execution.from_fields(fields["execution"]),
            }
        )


class Session:
    """A plan, the seeds that are finished, and where they are written. Only the leader of several processes writes."""

    def __init__(self, reports: Path, plan: RunPlan, processes: Processes) -> None:
        self.reports, self.plan, self.processes = reports, plan, processes
        self.runs: list[RunResult] = []
        self.directory = RUN.directory(reports, plan.id)
        self._lock: filelock.BaseFileLock | None = None

    @classmethod
    def begin(cls, reports: Path, plan: RunPlan, processes: Processes) -> Self:
        """Raises ``MissingError`` where nothing can be written."""
        session = cls(reports, plan, processes)
        if processes.leads:
            RUN.make(reports, plan.id, plan.id, False, {RUN.marker: session._content()})
            session._lock = RUN.lock(session.directory)
        return session

    @classmethod
    def resume(
        cls,
        reports: Path,
        plan: RunPlan,
        runs: list[RunResult],
        processes: Processes,
        lock: filelock.BaseFileLock | None,
    ) -> Self:
        """``lock`` holds the run's folder for its leader."""
        session = cls(reports, plan, processes)
        session.runs, session._lock = runs, lock
        return session

    def train(
        self,
        data: Prepared,
        teacher: nn.Module | None,
        on_epoch: Callable[[EpochMetrics], None],
        on_step: Callable[[Training], None],
    ) -> Iterator[RunResult]:
        """Train the seeds that are left; yields each result.

        Raises ``FailedError`` when a training diverges or ends at chance, and what ``on_step`` raises."""
        for index in range(len(self.runs), self.plan.seeds):
            checkpoint, seed = self._checkpoint(index), self.plan.first_seed + index
            result = self._train_seed(seed, checkpoint, data, teacher, on_epoch, on_step)
            self.runs.append(result)
            if self.processes.leads:
                write_text(self.directory / RUN.marker, self._content())
                checkpoint.remove()
            yield result
            facts = (self.plan.trained_as.num_classes, len(data.validation[1]))
            if result.is_at_chance(*facts):
                raise FailedError(
                    f"seed {seed}: {at_chance_text(result.last.validation_top1, *facts)}: a failed run",
                    "train longer, or with another learning rate; with more validation images the limit is lower",
                )

    def _train_seed(
        self,
        seed: int,
        checkpoint: Checkpoint,
        data: Prepared,
        teacher: nn.Module | None,
        on_epoch: Callable[[EpochMetrics], None],
        on_step: Callable[[Training], None],
    ) -> RunResult:
        plan, on_end = self.plan, self._keep_weights(seed, data.preprocessing)
        try:
            return train_once(
                *(plan.trained_as, data, plan.recipe, seed, True, on_epoch, on_end),
                execution=plan.execution,
                processes=self.processes,
                teacher=teacher,
                checkpoint=checkpoint,
                on_step=on_step,
            )
        except FailedError as error:
            kept = f"; the last good checkpoint is {checkpoint.path}" if checkpoint.path.exists() else ""
            raise FailedError(f"seed {seed}: {error.message}{kept}", error.hint) from None

    def finish(self, failure: FailedError | InterruptedByUser | None) -> dict[str, Any] | None:
        """Write the record and return it; None where no seed was finished. The checkpoint of a run that was interrupted
        or diverged stays, to be gone on with or looked into."""
        record = self._record(failure) if self.runs else None
        if self.processes.leads:
            if record is not None:
                write_record(record_path(self.reports, self.plan.id), record)
            self.release()
            at_hand = checkpoint_path(self.directory, len(self.runs))
            if not isinstance(failure, InterruptedByUser) and not at_hand.exists():
                shutil.rmtree(self.directory, ignore_errors=True)
        return record

    def release(self) -> None:
        """Let others write this run."""
        if self._lock is not None:
            self._lock.release()

    def _record(self, failure: MeliusError | None) -> dict[str, Any]:
        fields = self.plan.fields()
        return {
            **{key: fields[key] for key in ("id", "arch", "archid", "trained_as")},
            "trained": self._costs(),
            "dataset": {
                key: value for key, value in self.plan.dataset.items() if key in ("name", "digest", "left_out")
            },
            **{key: fields[key] for key in ("recipe", "teacher", "execution")},
            "n": len(self.runs),
            "validation_top1": summary([run.last.validation_top1 for run in self.runs]),
            "test_top1": summary([run.test_top1 for run in self.runs if run.test_top1 is not None]),
            "runs": [run.fields() for run in self.runs],
            "interrupted": isinstance(failure, InterruptedByUser),
            "failed": failure.message if isinstance(failure, FailedError) else None,
            "origin": self.plan.origin,
        }

    def _costs(self) -> dict[str, Any]:
        """Of the network that was trained, which is not the target ``arch``: these belong to the accuracies."""
        spec = self.plan.trained_as
        total, more = _own_total(spec) if isinstance(spec, OwnSpec) else (count_spec(spec).total, {})
        costs = {"ops": MELIUS.derive(total).ops, "params": total.params, "size_bytes": total.size_bytes}
        return {"archid": spec.archid, **costs, **more}

    def _checkpoint(self, index: int) -> Checkpoint:
        """That of the training which has so many before it."""
        plan = self.plan
        made_for = {
            "network": plan.trained_as.archid,
            "recipe": plan.recipe.model_dump(mode="json"),
            "data": plan.dataset["digest"],
            "teacher": plan.teacher,
            "seed": plan.first_seed + index,
            "precision": plan.execution.precision,
        }
        return Checkpoint(checkpoint_path(self.directory, index), made_for)

    def _keep_weights(self, seed: int, preprocessing: Preprocessing) -> Callable[[nn.Module], None]:
        def save(network: nn.Module) -> None:
            if self.plan.keep_weights and self.processes.leads:
                path = weights_path(self.reports, self.plan.id, seed)
                save_weights(network, self.plan.trained_as, path, preprocessing)

        return save

    def _content(self) -> str:
        return json_text({"plan": self.plan.fields(), "runs": [run.fields() for run in self.runs]})


def read_plan(directory: Path) -> tuple[RunPlan, list[RunResult]]:
    """The plan and the finished seeds of a run that was not. Raises ``BadInputError`` when they are corrupt."""
    with RUN.reading(directory / RUN.marker):
        content = json.loads((directory / RUN.marker).read_text(encoding="utf-8"))
        return RunPlan.from_fields(content["plan"]), [RunResult.from_fields(run) for run in content["runs"]]


def _own_total(spec: OwnSpec) -> tuple[Count, dict[str, Any]]:
    """Of a module that no other command can count without executing its file, with what the record needs for that."""
    from meliuscli.counting.foreign import count_own
    from meliuscli.training.network import build_for_training

    own = count_own(build_for_training(spec), spec.input_shape)
    doubts = [finding.sentence for finding in own.verdicts if finding.doubt]
    return own.count.total, {**own.count.total.by_bits(), "doubts": doubts}
