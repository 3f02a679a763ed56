"""What a shell offers when TAB is pressed behind an option or argument: names, files, and what was recorded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from meliuscli.work.folders import CHECK, REPORTS, STUDY


def networks(incomplete: str) -> list[str]:
    """Names, TOML files here, and recorded runs."""
    from meliuscli.arch.zoo import arch_names

    return _beginning(incomplete, [*arch_names(), *_files(incomplete, "*.toml"), *runs("")])


def targets(incomplete: str) -> list[str]:
    """What ``show`` and ``report`` take: networks, runs, studies, checks, search spaces and recipes."""
    from meliuscli.search.files import space_names
    from meliuscli.training.recipe import recipe_table

    settings = [*(f"space:{name}" for name in space_names()), *(f"recipe:{name}" for name in recipe_table())]
    return _beginning(
        incomplete, [*networks(""), *_works(STUDY.what, STUDY.marker), *_works(CHECK.what, CHECK.marker), *settings]
    )


def runs(incomplete: str) -> list[str]:
    """Recorded and unfinished runs of the default directory of reports."""
    names = {path.name.split(".")[0].removeprefix("run-") for path in REPORTS.glob("run-*") if "-seed" not in path.name}
    return _beginning(incomplete, (f"run:{name}" for name in sorted(names)))


def studies(incomplete: str) -> list[str]:
    """The names of studies."""
    return _beginning(incomplete, (name.removeprefix("study:") for name in _works(STUDY.what, STUDY.marker)))


def conventions(incomplete: str) -> list[str]:
    from meliuscli.counting.conventions import CONVENTIONS

    return _beginning(incomplete, CONVENTIONS)


def datasets(incomplete: str) -> list[str]:
    from meliuscli.data.names import DATASETS

    return _beginning(incomplete, DATASETS)


def recipes(incomplete: str) -> list[str]:
    from meliuscli.training.recipe import recipe_table

    return _beginning(incomplete, [*recipe_table(), *_files(incomplete, "*.toml")])


def spaces(incomplete: str) -> list[str]:
    from meliuscli.search.files import space_names

    return _beginning(incomplete, [*space_names(), *_files(incomplete, "*.toml")])


def topics(incomplete: str) -> list[str]:
    from meliuscli.arch.zoo import arch_names
    from meliuscli.report.explain import SUMMARIES

    return _beginning(incomplete, [*SUMMARIES, *arch_names()])


def kinds(incomplete: str) -> list[str]:
    """What ``list`` lists."""
    return _beginning(incomplete, ["archs", "spaces", "datasets", "conventions", "runs", "studies", "checks"])


def _works(kind: str, marker: str) -> list[str]:
    return [f"{kind}:{path.parent.name}" for path in sorted(REPORTS.glob(f"*/{marker}"))]


def _files(incomplete: str, pattern: str) -> list[str]:
    """Files in the directory that is being typed, and the directories to go on into."""
    folder = Path(incomplete.rpartition("/")[0] + "/") if "/" in incomplete else Path()
    if not folder.is_dir():
        return []
    inner = [f"{path}/" for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    return [*map(str, sorted(folder.glob(pattern))), *inner]


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
