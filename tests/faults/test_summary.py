"""What is said of the campaign of faults is what its committed files say."""

from __future__ import annotations

from pathlib import Path

import pytest
from summary import STORAGES, num_kills, runs, storage_rows, work_rows

ROOT = Path(__file__).parents[2]
REPORTS = ROOT / "reports" / "faults"


@pytest.mark.parametrize(
    "row", [*storage_rows(REPORTS), *work_rows(REPORTS)], ids=lambda row: row.split("|")[1].strip()
)
def test_a_row_of_the_page_is_what_the_files_say(row: str) -> None:
    assert row in (REPORTS / "README.md").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("page", ["README.md", "reports/faults/README.md"])
def test_the_kills_of_workers_are_those_of_the_files(page: str) -> None:
    assert f"{num_kills(REPORTS):,}" in (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("part", STORAGES)
def test_nothing_was_lost_or_changed_on_any_storage(part: str) -> None:
    for run in runs(REPORTS, part):
        assert (run["lost"], run["changed"], run["running"], run["bad_exits"]) == (0, 0, 0, [])
