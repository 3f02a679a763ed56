"""Evaluations by the names of classes, and as tables."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from json_schemas import hold
from test_evaluate import SPEC

from meliuscli.cli.console import give
from meliuscli.cli.terminal import draw
from meliuscli.data.batches import Prepared, prepare
from meliuscli.data.catalog import load_dataset
from meliuscli.data.names import CLASS_NAMES
from meliuscli.errors import BadInputError
from meliuscli.exchange.evaluation import Evaluation, check_classes, evaluate_on
from meliuscli.exchange.opened import Opened
from meliuscli.report.answers import Answer, render
from meliuscli.report.evaluation import evaluation_answer
from meliuscli.report.tables import Column, Table, to_text


@pytest.fixture(scope="module")
def data() -> Prepared:
    return prepare(load_dataset("fashion-mnist-mini"), 32)


def test_classes_are_paired_by_name_refused_where_names_differ_and_by_position_where_one_side_has_none(
    data: Prepared,
) -> None:
    """Classes of other names were paired in sorted order without a word: right answers counted as wrong ones."""
    how = data.preprocessing
    named = Opened("net", SPEC, replace(how, class_names=("a\u0308", *how.class_names[1:])), {"torch": perfect}, {})
    labels = torch.arange(10).repeat_interleave(2)
    images = labels.view(-1, 1, 1, 1).expand(-1, 1, 32, 32) / 9
    split = (images * data.std + data.mean, labels)

    def top1(names: tuple[str, ...]) -> tuple[float, tuple[str, ...]]:
        result = evaluate_on(named, "folder", replace(data, test=split, class_names=names))
        return result.top1, result.notes

    others = how.class_names[1:]
    assert top1(("\xe4", *others)) == (1.0, ())  # one umlaut, as one sign and as two
    turned = (*others, "\xe4")
    assert top1(turned) == (0.0, ())  # whose label 0 is the network's 1
    assert top1(()) == (
        1.0,
        ("folder does not name its classes: they are taken to be those of the other side in their order",),
    )
    with pytest.raises(BadInputError, match="it tells \xe4 apart, and the data have zz"):
        top1(("zz", *others))
    with pytest.raises(BadInputError, match="its classes are not those of fashion-mnist-mini"):
        check_classes(named, load_dataset("fashion-mnist-mini"), "fashion-mnist-mini")
    nameless = replace(named, preprocessing=replace(how, class_names=()))
    check_classes(nameless, load_dataset("fashion-mnist-mini"), "fashion-mnist-mini")
    assert "net does not name its classes" in evaluate_on(nameless, "folder", data, limit=9).notes[0]


def perfect(images: torch.Tensor) -> torch.Tensor:
    """Logits of the class whose number the first pixel holds, in ninths."""
    return F.one_hot((9 * images[:, 0, 0, 0]).round().long().clamp(0, 9), 10).float()


def evaluation_of(names: tuple[str, ...], way: Callable[[torch.Tensor], torch.Tensor], data: Prepared) -> Evaluation:
    """Of a network for the classes of these names."""
    size = len(names)
    how = replace(data.preprocessing, class_names=names)
    labels = torch.arange(size).repeat_interleave(1200)
    split = ((labels.view(-1, 1, 1, 1).expand(-1, 1, 32, 32) / 9) * data.std + data.mean, labels)
    opened = Opened("net", SPEC.replace(num_classes=size), how, {"torch": way}, {})
    return evaluate_on(opened, "folder", replace(data, test=split, class_names=names), limit=1200 * size)


def test_top5_of_five_classes_or_fewer_is_left_out(data: Prepared) -> None:
    """It was 100 % of any network."""
    answer = evaluation_answer(evaluation_of(("a", "b", "c"), lambda images: perfect(images)[:, :3], data))
    assert "top-5" not in render(answer, "table")
    assert json.loads(render(answer, "json"))["scores"]["torch"]["top5"] is None
    assert next(csv.DictReader(io.StringIO(render(answer, "csv"))))["top5"] == ""
    hold("evaluation", json.loads(render(answer, "json")))
    six = evaluation_of(tuple("abcdef"), lambda images: perfect(images)[:, :6], data)
    assert six.scores["torch"].top5 == 1
    assert "top-5 %" in render(evaluation_answer(six), "table")


def test_a_confusion_matrix_of_ten_classes_fits_eighty_columns(
    data: Prepared, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, confusion = evaluation_answer(evaluation_of(CLASS_NAMES["fashion-mnist"], perfect, data)).tables
    monkeypatch.setenv("COLUMNS", "80")
    draw(confusion)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["9", "ankle", "boot", *["0"] * 9, "1,200"] in rows
    assert [column.heading for column in confusion.columns][1:] == [str(label) for label in range(10)]
    assert confusion.rows[9][0] == "9 ankle boot"
    assert [column.heading for column in scores.columns][1:3] == ["top-1 %", "top-5 %"]
    few = evaluation_answer(evaluation_of(("a", "b"), lambda images: perfect(images)[:, :2], data)).tables[1]
    assert [column.heading for column in few.columns][1:] == ["a", "b"]


def test_columns_are_as_wide_as_what_is_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells of `bl\\xe4ue` were padded as `bl\xe4ue`; signs of two columns as signs of one."""
    table = Table("classes", (Column("name", numeric=False), Column("\xb1")), (("bl\xe4ue", "7"), ("red", "8")))
    stdout = io.TextIOWrapper(io.BytesIO(), "ascii", "meliuscli")
    monkeypatch.setattr(sys, "stdout", stdout)
    give(Answer((table,), dict), "table", None)
    stdout.flush()
    lines = stdout.buffer.getvalue().decode("ascii").splitlines()  # type: ignore[attr-defined]
    assert lines[1:] == ["name      +-", "------------", "bl\\xe4ue   7", "red        8"]
    wide = Table("", (Column("name", numeric=False), Column("n")), (("\u732b", 1), ("a\u0308", 2), ("cat", 3)))
    assert to_text(wide).splitlines()[3:] == ["\u732b    1", "a\u0308     2", "cat   3"]
