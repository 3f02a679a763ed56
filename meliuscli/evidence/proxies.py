"""What short trainings gave for the networks with published results: the scores that a proxy's weight rests on."""

from __future__ import annotations

import csv
from dataclasses import astuple, dataclass, fields
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProxyScore:
    """A score of a network, larger for better ones; the mean over seeds. ``digest`` is that of the way of training."""

    proxy: str
    digest: str
    score: str
    arch: str
    value: float


def proxy_scores(digest: str, score: str) -> dict[str, float]:
    """Network -> its score by a way of training, from the committed trial; empty for a way that was not on trial."""
    return {row.arch: row.value for row in _rows() if (row.digest, row.score) == (digest, score)}


def to_rows(scores: list[ProxyScore]) -> list[list[str]]:
    """As proxies.csv holds them, with a heading."""
    heading = [field.name for field in fields(ProxyScore)]
    return [heading, *([*map(str, astuple(row)[:-1]), f"{row.value:.6g}"] for row in scores)]


@cache
def _rows() -> tuple[ProxyScore, ...]:
    with Path(__file__).with_name("proxies.csv").open(encoding="utf-8", newline="") as file:
        return tuple(ProxyScore(**{**row, "value": float(row["value"])}) for row in csv.DictReader(file))  # type: ignore[arg-type]
