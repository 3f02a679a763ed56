"""Where names stand beside their marks in a picture: plain geometry, the same each time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Point = tuple[float, float]
Line = tuple[Point, Point]

NEAR, STEP, RINGS = 6.0, 6.0, 30
"""Of a name's edge from its mark, in points: beside it, and, with a line, from ring to ring."""
ANGLES = tuple(math.radians(degrees) for degrees in sorted(range(0, 360, 15), key=lambda degrees: degrees % 90))
"""Straight ones first."""
MARK, GAP = 4.0, 1.5
"""Half a mark's width, and what a name or a line keeps from others, in points."""


@dataclass(frozen=True, slots=True)
class Box:
    left: float
    bottom: float
    right: float
    top: float

    def grown(self, by: float) -> Box:
        return Box(self.left - by, self.bottom - by, self.right + by, self.top + by)

    def overlaps(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top
        )

    def is_inside(self, other: Box) -> bool:
        return (
            other.left <= self.left
            and self.right <= other.right
            and other.bottom <= self.bottom
            and self.top <= other.top
        )

    def nearest(self, point: Point) -> Point:
        """The point of the box that is nearest to ``point``."""
        return min(max(point[0], self.left), self.right), min(max(point[1], self.bottom), self.top)

    def distance(self, point: Point) -> float:
        return math.dist(point, self.nearest(point))


@dataclass(frozen=True, slots=True)
class Label:
    """A name's box; ``line`` from the mark to it where it stands too far off to be told without."""

    box: Box
    line: Line | None


def place(
    marks: Sequence[Point], sizes: Sequence[Point], frame: Box, boxes: Sequence[Box] = (), lines: Sequence[Line] = ()
) -> list[Label | None]:
    """A place for the name of each mark; those with the nearest neighbours have the choice. All in points.

    No name covers a name, a mark, a line, or ``boxes`` and ``lines``, which are there already; no name's line crosses a
    name, another's line, or passes a mark; a name without a line is nearer to its mark than to any other. None where
    there is no such place."""
    others = [[other for number, other in enumerate(marks) if number != index] for index in range(len(marks))]
    room = [
        min((math.dist(mark, other) for other in rest), default=0.0) for mark, rest in zip(marks, others, strict=True)
    ]
    taken = [Label(box, None) for box in boxes]
    placed: list[Label | None] = [None] * len(marks)
    for index in sorted(range(len(marks)), key=lambda index: (room[index], index)):
        choices = _choices(marks[index], sizes[index])
        free = (label for label in choices if _is_free(label, marks[index], others[index], taken, lines, frame))
        placed[index] = next(free, None)
        taken += [label for label in (placed[index],) if label is not None]
    return placed


def _choices(mark: Point, size: Point) -> Iterator[Label]:
    for ring in range(RINGS):
        for angle in ANGLES:
            box = _box(mark, size, angle, NEAR + ring * STEP)
            yield Label(box, (mark, box.nearest(mark)) if ring else None)


def _box(mark: Point, size: Point, angle: float, distance: float) -> Box:
    """Of that size, on the ray of that angle, its edge at that distance."""
    (x, y), (width, height) = mark, size
    cos, sin = math.cos(angle), math.sin(angle)
    center_x, center_y = x + distance * cos + width / 2 * _sign(cos), y + distance * sin + height / 2 * _sign(sin)
    return Box(center_x - width / 2, center_y - height / 2, center_x + width / 2, center_y + height / 2)


def _sign(value: float) -> float:
    """-1, 0 or 1, and zero near zero."""
    return 0.0 if abs(value) < 1e-9 else math.copysign(1.0, value)


def _is_free(
    label: Label, mark: Point, others: Sequence[Point], taken: Sequence[Label], lines: Sequence[Line], frame: Box
) -> bool:
    box = label.box.grown(GAP)
    if not box.is_inside(frame) or any(box.overlaps(other.box) for other in taken):
        return False
    if any(label.box.distance(other) < MARK + GAP for other in others):
        return False
    drawn = [*lines, *(other.line for other in taken if other.line is not None)]
    if any(_meets(line, box) for line in drawn):
        return False
    if label.line is None:
        own = label.box.distance(mark)
        return all(label.box.distance(other) > 1.5 * own for other in others)
    line = label.line
    passes = any(_distance(other, line) < MARK + GAP for other in others)
    crosses = any(_meets(line, other.box.grown(GAP)) for other in taken) or any(
        _cross(line, other.line) for other in taken if other.line is not None
    )
    return not passes and not crosses


def _distance(point: Point, line: Line) -> float:
    """From a point to a piece of line."""
    (x1, y1), (x2, y2) = line
    length = (x2 - x1) ** 2 + (y2 - y1) ** 2
    along = ((point[0] - x1) * (x2 - x1) + (point[1] - y1) * (y2 - y1)) / length if length else 0.0
    along = min(max(along, 0.0), 1.0)
    return math.dist(point, (x1 + along * (x2 - x1), y1 + along * (y2 - y1)))


def _cross(one: Line, other: Line) -> bool:
    def side(a: Point, b: Point, c: Point) -> bool:
        return (b[0] - a[0]) * (c[1] - a[1]) > (b[1] - a[1]) * (c[0] - a[0])

    (a, b), (c, d) = one, other
    return side(a, b, c) != side(a, b, d) and side(c, d, a) != side(c, d, b)


def _meets(line: Line, box: Box) -> bool:
    """Does a piece of line touch the box?"""
    corners = ((box.left, box.bottom), (box.right, box.bottom), (box.right, box.top), (box.left, box.top))
    sides = zip(corners, (*corners[1:], corners[0]), strict=True)
    return any(box.distance(end) == 0 for end in line) or any(_cross(line, side) for side in sides)
