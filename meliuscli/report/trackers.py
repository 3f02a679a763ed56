"""Long work told to experiment trackers too: TensorBoard, Weights & Biases, MLflow and Trackio.

They hear what was measured and change nothing of it. All of them write into the folder of results; none sends anything
unless its own environment variables (``WANDB_MODE``, ``MLFLOW_TRACKING_URI``, ``TRACKIO_SPACE_ID``) ask for that."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from meliuscli.errors import MissingError, unknown_name
from meliuscli.work.listener import SILENT, Listener, Steps

PROJECT = "meliuscli"
"""What all work is filed under."""


class Tracker(Protocol):
    """A place that keeps numbers. ``begin`` comes first, ``end`` last, and not at all where nothing began."""

    def begin(self, name: str, settings: Mapping[str, Any]) -> None:
        """Work of this name begins, or goes on."""

    def measure(self, series: str, step: int, values: Mapping[str, float]) -> None:
        """What was measured in a series at a step."""

    def end(self) -> None:
        """Write what is left."""


class TensorBoard:
    """Event files in ``REPORTS/tensorboard/NAME/SERIES``."""

    def __init__(self, reports: Path) -> None:
        self._writer = import_module("torch.utils.tensorboard").SummaryWriter
        self._folder = reports / "tensorboard"
        self._writers: dict[str, Any] = {}

    def begin(self, name: str, settings: Mapping[str, Any]) -> None:
        self._folder = self._folder / name
        self._of("settings").add_text("settings", f"```json\n{json.dumps(settings, indent=2, default=str)}\n```")

    def measure(self, series: str, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._of(series).add_scalar(key, value, step)

    def end(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def _of(self, series: str) -> Any:
        if series not in self._writers:
            self._writers[series] = self._writer(str(self._folder / series))
        return self._writers[series]


class WandB:
    """An offline run in ``REPORTS/wandb``, which ``wandb sync`` sends where one wants it."""

    def __init__(self, reports: Path) -> None:
        self._wandb = import_module("wandb")
        self._reports, self._series = reports, set[str]()

    def begin(self, name: str, settings: Mapping[str, Any]) -> None:
        self._reports.mkdir(parents=True, exist_ok=True)
        self._run = self._wandb.init(
            project=PROJECT,
            group=name,
            name=name,
            dir=str(self._reports),
            config=dict(settings),
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings=self._wandb.Settings(silent=True, console="off"),
        )

    def measure(self, series: str, step: int, values: Mapping[str, float]) -> None:
        if series not in self._series:
            self._series.add(series)
            # Each series counts its own steps; those of wandb itself may only grow.
            self._run.define_metric(f"{series}/*", step_metric=f"{series}/step")
        self._run.log({f"{series}/step": step, **_within(series, values)})

    def end(self) -> None:
        self._run.finish()


class MLflow:
    """A run in the database ``REPORTS/mlflow.db``."""

    def __init__(self, reports: Path) -> None:
        self._mlflow = import_module("mlflow")
        self._reports = reports

    def begin(self, name: str, settings: Mapping[str, Any]) -> None:
        self._reports.mkdir(parents=True, exist_ok=True)
        database = f"sqlite:///{(self._reports / 'mlflow.db').resolve().as_posix()}"
        self._mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI") or database)
        self._mlflow.set_experiment(PROJECT)
        self._mlflow.start_run(run_name=name)
        # MLflow takes no longer values.
        self._mlflow.log_params({key: str(value)[:500] for key, value in settings.items()})

    def measure(self, series: str, step: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(_within(series, values), step=step)

    def end(self) -> None:
        self._mlflow.end_run()


class Trackio:
    """A run in ``REPORTS/trackio`` (or ``$TRACKIO_DIR``), for ``trackio show``."""

    def __init__(self, reports: Path) -> None:
        os.environ.setdefault("TRACKIO_DIR", str((reports / "trackio").resolve()))
        self._trackio = import_module("trackio")

    def begin(self, name: str, settings: Mapping[str, Any]) -> None:
        self._trackio.init(project=PROJECT, name=name, config=dict(settings))

    def measure(self, series: str, step: int, values: Mapping[str, float]) -> None:
        self._trackio.log({f"{series}/step": step, **_within(series, values)})

    def end(self) -> None:
        self._trackio.finish()


TRACKERS: dict[str, Callable[[Path], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
    "trackio": Trackio,
}
"""Name, which is that of the extra too -> what writes into the folder of results."""


class ReportingListener(Listener):
    """Tells another listener everything, and trackers what was measured. A tracker that fails is told no more: work
    does not end because a copy of its numbers cannot be kept."""

    def __init__(self, listener: Listener, trackers: Mapping[str, Tracker]) -> None:
        self._listener, self._trackers = listener, dict(trackers)
        self._has_begun = False

    def talk(self, message: str) -> None:
        self._listener.talk(message)

    def status(self, message: str) -> AbstractContextManager[object]:
        return self._listener.status(message)

    def stage(self, noun: str, total: int, done: int = 0) -> AbstractContextManager[Steps]:
        return self._listener.stage(noun, total, done)

    def counter(self, noun: str) -> AbstractContextManager[Callable[[int, int], None]]:
        return self._listener.counter(noun)

    def begun(self, name: str, settings: Mapping[str, Any]) -> None:
        self._has_begun = True
        self._tell(lambda tracker: tracker.begin(name, settings))

    def measured(self, series: str, step: int, values: Mapping[str, float]) -> None:
        self._tell(lambda tracker: tracker.measure(series, step, values))

    def end(self) -> None:
        """No more is measured."""
        if self._has_begun:
            self._tell(lambda tracker: tracker.end())

    def _tell(self, what: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                with redirect_stdout(sys.stderr):  # stdout is for the answer
                    what(tracker)
            except Exception as error:
                del self._trackers[name]
                self._listener.talk(f"warning: {name} is told no more: {type(error).__name__}: {error}")


@contextmanager
def reporting_to(names: Sequence[str], reports: Path, listener: Listener = SILENT) -> Iterator[Listener]:
    """A listener that tells ``listener`` and the trackers of these names, which write into ``reports``.

    Raises ``BadInputError`` for an unknown name, ``MissingError`` where a tracker's package is not installed."""
    trackers = {name: _made(name, reports) for name in names}
    telling = ReportingListener(listener, trackers)
    try:
        yield telling
    finally:
        telling.end()


def _made(name: str, reports: Path) -> Tracker:
    if name not in TRACKERS:
        raise unknown_name("tracker", name, TRACKERS, "--report-to")
    try:
        with redirect_stdout(sys.stderr):
            return TRACKERS[name](reports)
    except ImportError as error:
        raise MissingError(
            f"--report-to {name}: its package is not installed ({error})", f"pip install 'meliuscli[{name}]'"
        ) from None


def _within(series: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{series}/{key}": value for key, value in values.items()}
