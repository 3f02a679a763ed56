"""What a trained network is worth on a data set: accuracies, loss, confusions and speed, in every way that it runs, and
whether these ways agree image by image; and what it says of image files."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import torch
import torch.nn.functional as F
from torch import Tensor

from meliuscli.data.batches import Prepared
from meliuscli.data.catalog import Dataset
from meliuscli.data.folder import ImageFolder
from meliuscli.data.preprocessing import Preprocessing, read_images
from meliuscli.errors import BadInputError
from meliuscli.exchange.opened import Opened

SplitName = Literal["train", "validation", "test"]
BATCH = 64
TOP = 5
NAMED = 5
"""So many class names stand in a message."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Of one way to run: accuracies from 0 to 1, mean cross-entropy in nats, and images a second in batches of ``BATCH``.
    ``top5`` is None where there are no more than five classes."""

    top1: float
    top5: float | None
    loss: float
    images_per_second: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """``confusion[label][answer]`` counts images, of the first way. ``agreeing`` is the number of images on which all ways
    give one top-1, None where there is one way; ``largest_difference`` is that of their logits."""

    name: str
    dataset: str
    split: str
    num_images: int
    scores: dict[str, Scores]
    missing: dict[str, str]
    confusion: list[list[int]]
    agreeing: int | None
    largest_difference: float | None
    preprocessing: Preprocessing
    notes: tuple[str, ...]

    @property
    def top1(self) -> float:
        """Of the first way."""
        return next(iter(self.scores.values())).top1


def evaluate_on(
    opened: Opened,
    dataset: str,
    data: Prepared,
    split: SplitName = "test",
    limit: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Run a network on a split of prepared data, or on ``limit`` images evenly taken from it.

    Raises ``BadInputError`` where the names of classes or the channels are not the network's."""
    how, notes = _normalisation(opened, data)
    order, about_names = _class_order(opened, data.class_names, dataset)
    images, labels = {"train": data.train, "validation": data.validation, "test": data.test}[split]
    chosen = torch.arange(len(labels))
    if limit is not None and limit < len(labels):
        chosen = torch.linspace(0, len(labels) - 1, limit).round().long()
    wanted = (labels if order is None else torch.tensor(order)[labels])[chosen]
    inner = _inner(images, how)
    logits: dict[str, list[Tensor]] = {name: [] for name in opened.ways}
    seconds = dict.fromkeys(opened.ways, 0.0)
    with torch.inference_mode():
        for start in range(0, len(chosen), BATCH):
            batch = how.normalise(images[chosen[start : start + BATCH]][:, :, inner, inner])
            for name, way in opened.ways.items():
                began = time.perf_counter()
                logits[name].append(way(batch).clone())
                seconds[name] += time.perf_counter() - began
            on_progress(min(start + BATCH, len(chosen)), len(chosen))
    whole = {name: torch.cat(parts) for name, parts in logits.items()}
    return _evaluation(opened, dataset, split, whole, wanted, seconds, how, notes + about_names)


def calibration_images(opened: Opened, data: Prepared, count: int) -> Tensor:
    """(count, C, S, S), evenly from the training images, as the network takes them."""
    how, _ = _normalisation(opened, data)
    images = data.train[0]
    chosen = torch.linspace(0, len(images) - 1, min(count, len(images))).round().long()
    inner = _inner(images, how)
    return how.normalise(images[chosen][:, :, inner, inner])


def _inner(images: Tensor, how: Preprocessing) -> slice:
    """Rows, or columns, without the margin that training images have for crops."""
    edge = (images.shape[-1] - how.input_size) // 2
    return slice(edge, edge + how.input_size)


def _evaluation(
    opened: Opened,
    dataset: str,
    split: str,
    logits: dict[str, Tensor],
    labels: Tensor,
    seconds: dict[str, float],
    how: Preprocessing,
    notes: tuple[str, ...],
) -> Evaluation:
    first = next(iter(logits.values()))
    answers = torch.stack([one.argmax(1) for one in logits.values()])
    size = first.shape[1]
    counts = torch.bincount(labels * size + answers[0], minlength=size * size).view(size, size)
    several = len(logits) > 1
    return Evaluation(
        opened.name,
        dataset,
        split,
        len(labels),
        {name: _scores(one, labels, seconds[name]) for name, one in logits.items()},
        opened.missing,
        counts.tolist(),
        int((answers == answers[0]).all(0).sum()) if several else None,
        max(float((one - first).abs().max()) for one in logits.values()) if several else None,
        how,
        notes,
    )


def _scores(logits: Tensor, labels: Tensor, seconds: float) -> Scores:
    best = logits.topk(min(TOP, logits.shape[1])).indices == labels[:, None]
    top5 = best.any(1).double().mean().item() if logits.shape[1] > TOP else None
    loss = F.cross_entropy(logits.double(), labels).item()
    return Scores(best[:, 0].double().mean().item(), top5, loss, len(labels) / max(seconds, 1e-9))


def _normalisation(opened: Opened, data: Prepared) -> tuple[Preprocessing, tuple[str, ...]]:
    """The network's own, or where it says nothing that of the data's training images."""
    spec, of_data = opened.spec, data.preprocessing
    if of_data.channels != spec.input_channels:
        raise BadInputError(
            f"{opened.name}: takes images of {spec.input_channels} channels, and the data have {of_data.channels}"
        )
    if opened.preprocessing is None:
        note = f"{opened.name} does not say what its images go through: they are normalised by these data's training images"
        return of_data, (note,)
    return opened.preprocessing, ()


def check_classes(opened: Opened, data: Dataset | ImageFolder, dataset: str) -> None:
    """Raise ``BadInputError`` for data of more, fewer or other classes than the network tells apart."""
    if data.num_classes != opened.spec.num_classes:
        raise BadInputError(
            f"{opened.name}: tells {opened.spec.num_classes} classes apart, and {dataset} has {data.num_classes}"
        )
    _class_order(opened, data.classes, dataset)


def _class_order(opened: Opened, names: tuple[str, ...], dataset: str) -> tuple[list[int] | None, tuple[str, ...]]:
    """The network's label for each of the data's, None where they are the same, and what to say of it: where one side has no
    names, labels go by their position. Raises ``BadInputError`` where both have names that are not the same."""
    ours, theirs = (
        [normalize("NFC", name) for name in side]  # file systems write an umlaut as one sign or as two
        for side in (() if opened.preprocessing is None else opened.preprocessing.class_names, names)
    )
    if not ours or not theirs:
        nameless = dataset if ours else opened.name
        note = f"{nameless} does not name its classes: they are taken to be those of the other side in their order"
        return None, (note,) if ours or theirs else ()
    if sorted(ours) != sorted(theirs) or len(set(ours)) < len(ours):
        raise BadInputError(
            f"{opened.name}: its classes are not those of {dataset}: it tells {_listed(ours, theirs)} apart, and the data have"
            f" {_listed(theirs, ours)}",
            f"its classes are {_listed(ours, ())}; call those of the data so, or take the data that it was trained on",
        )
    return None if ours == theirs else [ours.index(name) for name in theirs], ()


def _listed(names: Sequence[str], others: Sequence[str]) -> str:
    """Some of the names that the others have not, or of all."""
    shown = [name for name in names if name not in others] or list(names)
    return ", ".join(shown[:NAMED]) + (f" and {len(shown) - NAMED} more" if len(shown) > NAMED else "")


@dataclass(frozen=True, slots=True)
class Classified:
    """What a network says of an image file: the likeliest classes, with the softmax of their logits."""

    path: Path
    classes: tuple[tuple[str, float], ...]


def classify(opened: Opened, paths: Sequence[Path], top: int = TOP) -> list[Classified]:
    """Image files through the network's own preprocessing.

    Raises ``BadInputError`` where the network does not say what that is, and as ``read_images``."""
    how = opened.preprocessing
    if how is None:
        raise BadInputError(
            f"{opened.name}: does not say what its images go through (size, mean, deviation)",
            "it is untrained, or of a version that did not say it: export what was trained (export --weights run:ID)",
        )
    answers = []
    with torch.inference_mode():
        for path in paths:
            likely = torch.softmax(opened.way(read_images([path], how)), 1)[0].topk(min(top, opened.spec.num_classes))
            pairs = zip(likely.indices.tolist(), likely.values.tolist(), strict=True)
            answers.append(Classified(path, tuple((how.name_of(label), value) for label, value in pairs)))
    return answers
