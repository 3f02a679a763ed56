"""Names beside the marks of a picture: none can be read for another's."""

from __future__ import annotations

import math
import random

import pytest

from meliuscli.report.labels import Box, Label, Line, Point, place

FRAME = Box(0, 0, 600, 400)


def points_on(line: Line) -> list[Point]:
    (x1, y1), (x2, y2) = line
    return [(x1 + (x2 - x1) * k / 50, y1 + (y2 - y1) * k / 50) for k in range(51)]


def crowd(seed: int, count: int) -> tuple[list[Point], list[Point]]:
    rng = random.Random(seed)
    marks = [(rng.gauss(300, 60), rng.gauss(200, 40)) for _ in range(count)]
    return marks, [(rng.uniform(20, 80), 9.0) for _ in range(count)]


@pytest.mark.parametrize("seed", range(8))
def test_no_name_can_be_read_for_anothers(seed: int) -> None:
    marks, sizes = crowd(seed, 40)
    legend, front = Box(500, 0, 600, 60), ((100.0, 150.0), (500.0, 150.0))
    labels = place(marks, sizes, FRAME, [legend], [front])
    placed = [(mark, label) for mark, label in zip(marks, labels, strict=True) if label is not None]
    assert len(placed) > 40 * 2 / 3
    for mark, label in placed:
        others: list[tuple[Point, Label]] = [other for other in placed if other[1] is not label]
        assert label.box.is_inside(FRAME)
        assert not label.box.overlaps(legend)
        assert all(label.box.distance(point) > 0 for point in points_on(front))
        assert not any(label.box.overlaps(other.box) for _, other in others)
        assert all(label.box.distance(other) >= 4 for other in marks if other != mark)
        if label.line is None:
            assert min(marks, key=label.box.distance) == mark
        else:
            assert label.line[0] == mark
            assert label.box.distance(label.line[1]) < 1e-9
            for point in points_on(label.line):
                assert all(other.box.distance(point) > 0 for _, other in others)
                assert all(math.dist(point, other) >= 4 for other in marks if other != mark)
    assert labels == place(marks, sizes, FRAME, [legend], [front])


def test_a_mark_alone_has_its_name_beside_it() -> None:
    (label,) = place([(300.0, 200.0)], [(50.0, 10.0)], FRAME)
    assert label is not None
    assert label.line is None
    assert label.box.distance((300.0, 200.0)) == pytest.approx(6)


def test_no_name_where_there_is_no_place_for_it() -> None:
    assert place([(300.0, 200.0)], [(700.0, 10.0)], FRAME) == [None]
    assert place([], [], FRAME) == []
