"""What short trainings gave for the networks with published results: the scores that a proxy's weight rests on."""

from __future__ import annotations

import csv
import io
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


def csv_of(scores: list[ProxyScore]) -> str:
    """As proxies.csv holds them, with a heading."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(ProxyScore))
    writer.writerows([*astuple(row)[:-1], f"{row.value:.6g}"] for row in scores)
    return text.getvalue()


@cache
def _rows() -> tuple[ProxyScore, ...]:
    with Path(__file__).with_name("proxies.csv").open(encoding="utf-8", newline="") as file:
        return tuple(ProxyScore(**{**row, "value": float(row["value"])}) for row in csv.DictReader(file))  # type: ignore[arg-type]
