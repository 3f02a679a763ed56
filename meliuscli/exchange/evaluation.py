"""What a trained network is worth on a data set: accuracies, loss, confusions and speed, in every way that it runs, and
whether these ways agree image by image; and what it says of image files."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from meliuscli.data.batches import Prepared
from meliuscli.data.preprocessing import Preprocessing, read_images
from meliuscli.errors import BadInputError
from meliuscli.exchange.opened import Opened

SplitName = Literal["train", "validation", "test"]
BATCH = 64
TOP = 5


@dataclass(frozen=True, slots=True)
class Scores:
    """Of one way to run: accuracies from 0 to 1, mean cross-entropy in nats, and images a second in batches of ``BATCH``."""

    top1: float
    top5: float
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

    Raises ``BadInputError`` where classes or channels are not the network's."""
    how, notes = _normalisation(opened, data)
    images, labels = {"train": data.train, "validation": data.validation, "test": data.test}[split]
    chosen = torch.arange(len(labels))
    if limit is not None and limit < len(labels):
        chosen = torch.linspace(0, len(labels) - 1, limit).round().long()
    wanted = _labels(labels, how, data)[chosen]
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
    return _evaluation(opened, dataset, split, whole, wanted, seconds, how, notes)


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
    loss = F.cross_entropy(logits.double(), labels).item()
    return Scores(
        best[:, 0].double().mean().item(), best.any(1).double().mean().item(), loss, len(labels) / max(seconds, 1e-9)
    )


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


def _labels(labels: Tensor, how: Preprocessing, data: Prepared) -> Tensor:
    """The data's labels in the order of the network's classes, where both have the same names in another order."""
    ours, theirs = how.class_names, data.class_names
    if ours == theirs or set(ours) != set(theirs) or len(ours) != len(set(ours)):
        return labels
    return torch.tensor([ours.index(name) for name in theirs])[labels]


def check_classes(opened: Opened, num_classes: int, dataset: str) -> None:
    """Raise ``BadInputError`` for data of more or fewer classes than the network tells apart."""
    if num_classes != opened.spec.num_classes:
        raise BadInputError(
            f"{opened.name}: tells {opened.spec.num_classes} classes apart, and {dataset} has {num_classes}"
        )


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
