"""Evaluations and answers as tables and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from meliuscli.report.answers import Answer
from meliuscli.report.tables import Cell, Column, Table

if TYPE_CHECKING:
    from meliuscli.data.preprocessing import Preprocessing
    from meliuscli.exchange.evaluation import Classified, Evaluation, Scores

MANY_CLASSES = 20
"""Of more classes a table shows the commonest confusions, not all."""
COMMONEST = 10
NARROW = 78
"""Characters of a row above which the columns of a confusion matrix are numbers."""


def preprocessing_table(how: Preprocessing) -> Table:
    """What becomes of an image file in front of the network."""
    listed = ", ".join(how.class_names[:MANY_CLASSES]) + (", ..." if len(how.class_names) > MANY_CLASSES else "")
    rows = (
        ("pixels", "turned as their EXIF says, what is transparent laid on white, of 16 bits the higher 8"),
        ("resize", f"the middle square to {how.resize}x{how.resize}, bilinear"),
        ("crop", f"its middle {how.crop}x{how.crop}, brought to {how.channels}x{how.input_size}x{how.input_size}"),
        ("mean", ", ".join(f"{value:.4f}" for value in how.mean)),
        ("deviation", ", ".join(f"{value:.4f}" for value in how.std)),
        ("classes", listed or "not named"),
    )
    columns = (Column("step", numeric=False), Column("images", numeric=False))
    return Table("What its images go through, values in [0, 1]", columns, rows)


def evaluation_answer(result: Evaluation) -> Answer:
    """A row for each way that the network ran, then what it takes for what."""
    return Answer((_scores_table(result), _confusion_table(result)), lambda: asdict(result))


def _scores_table(result: Evaluation) -> Table:
    records = tuple({"way": name, **asdict(one), "images": result.num_images} for name, one in result.scores.items())
    lines = [f"{name} is left out: {why}" for name, why in result.missing.items()]
    if result.agreeing is not None:
        lines.append(
            f"{' and '.join(result.scores)} give the same top-1 on {result.agreeing:,} of {result.num_images:,} images;"
            f" logits differ by at most {result.largest_difference:.1e}"
        )
    has_top5 = all(one.top5 is not None for one in result.scores.values())

    def cells(name: str, one: Scores) -> tuple[Cell, ...]:
        tops = [top for top in (one.top1, one.top5) if top is not None]
        return (name, *(f"{100 * top:.2f}" for top in tops), f"{one.loss:.4f}", f"{one.images_per_second:.0f}")

    heads = ("top-1 %", *(["top-5 %"] if has_top5 else []), "loss", "images/s")
    return Table(
        f"{result.name} on {result.dataset}, {result.split}, {result.num_images:,} images",
        (Column("way", numeric=False), *map(Column, heads)),
        tuple(cells(name, one) for name, one in result.scores.items()),
        lines=tuple(lines),
        notes=(
            "loss is the mean cross-entropy in nats; images/s are of the network alone, not of reading",
            *result.notes,
        ),
        records=records,
    )


def _confusion_table(result: Evaluation) -> Table:
    confusion, how = result.confusion, result.preprocessing
    size = len(confusion)
    if size <= MANY_CLASSES:
        names = heads = [how.name_of(label) for label in range(size)]
        notes: tuple[str, ...] = ()
        if sum(len(name) + 1 for name in names) + max(map(len, names)) > NARROW:
            heads, notes = [str(label) for label in range(size)], ("columns are called by the number of their class",)
            names = [f"{label} {name}" if how.class_names else name for label, name in enumerate(names)]
        return Table(
            "Confusion matrix: a row is a class, a column what the network says",
            (Column("class", numeric=False), *map(Column, heads)),
            tuple((name, *row) for name, row in zip(names, confusion, strict=True)),
            notes=notes,
        )
    pairs = [(confusion[a][b], a, b) for a in range(size) for b in range(size) if a != b and confusion[a][b]]
    pairs.sort(key=lambda pair: (-pair[0], pair[1:]))
    return Table(
        "The commonest confusions (all of them in JSON)",
        (Column("class", numeric=False), Column("taken for", numeric=False), Column("images")),
        tuple((how.name_of(a), how.name_of(b), count) for count, a, b in pairs[:COMMONEST]),
    )


def classes_answer(name: str, images: Sequence[Classified]) -> Answer:
    """What a network takes images for."""
    return Answer((_classes_table(name, images),), lambda: _classes_object(name, images))


def _classes_table(name: str, answers: Sequence[Classified]) -> Table:
    """A row an image and class, the likeliest first."""
    rows = [
        (str(one.path), place, label, p) for one in answers for place, (label, p) in enumerate(one.classes, start=1)
    ]
    return Table(
        f"What {name} says",
        (Column("image", numeric=False), Column("place"), Column("class", numeric=False), Column("softmax %")),
        tuple((path if place == 1 else "", place, label, f"{100 * p:.2f}") for path, place, label, p in rows),
        records=tuple({"image": path, "place": place, "class": label, "softmax": p} for path, place, label, p in rows),
    )


def _classes_object(name: str, answers: Sequence[Classified]) -> dict[str, Any]:
    """As JSON values."""
    return {
        "network": name,
        "images": [
            {"image": str(one.path), "classes": [{"class": label, "softmax": p} for label, p in one.classes]}
            for one in answers
        ],
    }
