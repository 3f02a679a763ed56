"""The tables of ``reports/faults/README.md``, from the files beside it.

python tests/faults/summary.py [reports/faults]
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

STORAGES = {
    "journal": "journal file",
    "postgresql": "PostgreSQL 15",
    "mysql": "MariaDB 10.11",
    "redis": "Redis 7.0",
    "grpc": "gRPC proxy, SQLite",
    "grpc-postgresql": "gRPC proxy, PostgreSQL 15",
    "grpc-mysql": "gRPC proxy, MariaDB 10.11",
}
KILLS = ("SIGKILL", "SIGTERM")
WORKS = {"run": "`train`", "study": "`search`", "check": "`check-proxy`", "files": "commands that write one file"}


def runs(directory: Path, part: str) -> list[dict[str, Any]]:
    """What came of a part of the campaign, run by run."""
    values = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(directory.glob("*.json")))
    return [value[part] for value in values if "skipped" not in value.get(part, {"skipped": ""})]


def num_kills(directory: Path, part: str | None = None) -> int:
    """Kills of workers, on one storage or on all."""
    parts = STORAGES if part is None else [part]
    return sum(run["faults"].get(kill, 0) for name in parts for run in runs(directory, name) for kill in KILLS)


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _others(faults: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(faults.items()))


def storage_rows(directory: Path) -> list[str]:
    """Storage, runs, studies, ``kill -9``, SIGTERM, other faults, lost, changed, running for ever, other exits."""
    rows = []
    for part, name in STORAGES.items():
        made = runs(directory, part)
        if not made:
            continue
        faults: Counter[str] = sum((Counter(run["faults"]) for run in made), Counter())
        kills = [faults.pop(kill) for kill in KILLS]
        total = {key: sum(run[key] for run in made) for key in ("rounds", "trials", "lost", "changed", "running")}
        bad = sum(len(run["bad_exits"]) for run in made)
        rows.append(
            _row(
                *(name, len(made), total["rounds"], *kills, _others(faults)),
                *(f"{total['lost']} of {total['trials']}", total["changed"], total["running"], bad),
            )
        )
    return rows


def work_rows(directory: Path) -> list[str]:
    """Work, faults by kind, failures."""
    made: dict[str, list[dict[str, Any]]] = {name: [] for name in WORKS}
    for run in runs(directory, "works"):
        for name in WORKS:
            made[name] += [run[name]] if name in run else []
    made["files"] += runs(directory, "files")
    rows = []
    for name, parts in made.items():
        faults: Counter[str] = Counter()
        for part in parts:
            for fault, count in part["faults"].items():
                faults[fault.split(" of ")[0]] += count  # whichever command
        rows.append(_row(WORKS[name], faults.total(), _others(faults), sum(len(part["failures"]) for part in parts)))
    return rows


if __name__ == "__main__":
    place = Path(sys.argv[1] if len(sys.argv) > 1 else "reports/faults")
    sys.stdout.write("\n".join((*storage_rows(place), "", *work_rows(place), "", f"{num_kills(place):,} kills", "")))
