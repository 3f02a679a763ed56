"""A trained network on a data set, and on images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from meliuscli.work.listener import SILENT, Listener

if TYPE_CHECKING:
    from meliuscli.exchange.evaluation import Classified, Evaluation


def evaluate(
    network: str | Path,
    dataset: str = "fashion-mnist-mini",
    data: Path | None = None,
    *,
    split: Literal["train", "validation", "test"] = "test",
    limit: int | None = None,
    skip_bad: bool = False,
    seed: int | None = None,
    threads: int = 1,
    reports: Path = Path("reports"),
    listener: Listener = SILENT,
) -> Evaluation:
    """A trained network (``"run:ID"``, a packed or an ONNX file, a directory of C) on a data set: what ``meliuscli evaluate``
    does. ``scores`` are by way of running, ``confusion`` and ``agreeing`` image by image; ``limit`` takes so many images, and
    ``skip_bad`` leaves out what is no image.

    Raises ``BadInputError`` for a file that cannot be read, and data of other classes or channels; ``MissingError`` for data
    and packages that are not there."""
    from meliuscli.data.catalog import load_dataset
    from meliuscli.data.decoding import prepare_and_tell
    from meliuscli.data.names import refuse_skip_bad
    from meliuscli.exchange.evaluation import check_classes, evaluate_on
    from meliuscli.exchange.opened import open_network

    refuse_skip_bad(skip_bad, (dataset,))
    opened = open_network(str(network), reports, seed, threads)
    loaded = load_dataset(dataset, data, None, skip_bad)
    check_classes(opened, loaded, dataset)
    prepared = prepare_and_tell(loaded, opened.spec.input_size, listener)
    with listener.counter("evaluating") as on_progress:
        return evaluate_on(opened, dataset, prepared, split, limit, on_progress)


def classify(
    network: str | Path, *images: str | Path, top: int = 5, seed: int | None = None, reports: Path = Path("reports")
) -> list[Classified]:
    """What a trained network says of image files: what ``meliuscli predict run:ID IMAGE...`` prints.

    Raises ``BadInputError`` where the network does not say what its images go through, and for what is no image."""
    from meliuscli.exchange.evaluation import classify as classify_files
    from meliuscli.exchange.opened import open_network

    return classify_files(open_network(str(network), reports, seed), [Path(image) for image in images], top)
