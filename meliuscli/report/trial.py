"""The report of proxies on trial: the table, what follows from it, a plot of each proxy against ImageNet, and the page."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np

from meliuscli.evidence.proxies import csv_of
from meliuscli.evidence.runs import RECIPE, SOURCE, target_runs
from meliuscli.report.check_report import CheckReport
from meliuscli.report.figures import encode, subplots
from meliuscli.report.study_page import left_out_line
from meliuscli.report.tables import Column, Table, to_csv, to_markdown
from meliuscli.report.ways import describe_way, teacher_lines
from meliuscli.results import write_bytes, write_text
from meliuscli.search.check import Check
from meliuscli.search.target_trust import PERMUTATIONS, Interval
from meliuscli.search.targets import topologies
from meliuscli.search.trial import TrialRow, chance, measured
from meliuscli.search.trust import LEVEL, MIN_NETWORKS, RESAMPLES

NOTES = (
    "s each: wall time of a network, all seeds; tau: Kendall's tau-b with ImageNet top-1; given OPs, given params too:"
    f" of what a line in their logarithms leaves of both, with the bootstrap interval over topologies ({100 * LEVEL:g} %,"
    f" {RESAMPLES} resamples)",
    "error: of beliefs about ImageNet top-1 in points, leaving out one topology at a time, with this score; gain: what the"
    " score takes from the error without it",
    "weight: points of ImageNet top-1 that a belief gives to a standard deviation of the score beyond the free numbers",
)


def trial_table(check: Check, rows: Sequence[TrialRow]) -> Table:
    """A row for each score."""
    interval = f"{100 * LEVEL:g} %"
    return Table(
        f"What do short trainings say of ImageNet? {len(check.networks)} topologies, {len(target_runs())} published results",
        (
            Column("score", numeric=False),
            Column("s each"),
            Column("n", optional=True),
            Column("tau"),
            Column("given OPs"),
            Column(interval),
            Column("given params too"),
            Column(interval),
            Column("error"),
            Column("gain", optional=True),
            Column(interval, optional=True),
            Column("weight"),
        ),
        tuple(_cells(row) for row in rows),
        notes=NOTES,
        lines=trial_sentences(check, rows),
        records=tuple(trial_record(row) for row in rows),
    )


def _cells(row: TrialRow) -> tuple[str | int, ...]:
    trust = row.trust
    return (
        row.name,
        f"{row.seconds:.0f}" if row.seconds else "",
        trust.n,
        _number(trust.tau),
        _number(trust.given_ops),
        _interval(trust.ops_interval),
        _number(trust.given_size),
        _interval(trust.size_interval),
        _number(trust.error),
        _number(trust.free_error - trust.error),
        _interval(trust.gain_interval),
        _number(trust.weight),
    )


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value + 0.0:.2f}"


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"


def trial_record(row: TrialRow) -> dict[str, str | float | int | None]:
    """A row's raw values, None where there is none; for CSV and JSON."""
    trust = row.trust
    numbers = {
        "seconds": row.seconds,
        "tau": trust.tau,
        "tau_given_ops": trust.given_ops,
        "tau_given_ops_and_params": trust.given_size,
        "error": trust.error,
        "free_error": trust.free_error,
        "weight": trust.weight,
    }
    intervals = {"ops": trust.ops_interval, "ops_and_params": trust.size_interval, "gain": trust.gain_interval}
    return {
        "score": row.name,
        "kind": row.kind,
        "n": trust.n,
        "failed": row.num_failed,
        "at_chance": row.num_at_chance,
        **{key: value if math.isfinite(value) else None for key, value in numbers.items()},
        **{f"{key}_low": None if interval is None else interval[0] for key, interval in intervals.items()},
        **{f"{key}_high": None if interval is None else interval[1] for key, interval in intervals.items()},
        "adds_to_beliefs": None if row.kind == "free" else trust.adds,
    }


def trial_sentences(check: Check, rows: Sequence[TrialRow]) -> tuple[str, ...]:
    """What follows from the rows, and no more than their intervals say."""
    judged = [row for row in rows if row.is_judged]
    failed = [
        f"{row.name}: {row.num_failed} trainings failed and {row.num_at_chance} ended at chance."
        for row in rows
        if row.kind == "trained" and row.name.endswith(": accuracy") and row.num_failed + row.num_at_chance
    ]
    if not judged:
        few = f"no score has {MIN_NETWORKS} networks that are trained beyond chance"
        return (*failed, f"Nothing can be said: {few}.")
    free = judged[0].trust.free_error
    adding = [_adds(row) for row in judged if row.trust.adds]
    ranking = [row.name for row in judged if row.trust.ranks and not row.trust.adds]
    lines = [f"Without any training, beliefs about a topology that was left out err by {free:.2f} points.", *adding]
    if not adding:
        lines.append(f"None of {len(judged)} scores is shown to add to that.")
    if ranking:
        by_luck = (1 - LEVEL) / 2 * len(judged)
        lines.append(
            f"Taken alone, {len(ranking)} of them rank beyond OPs and params without lowering the error:"
            f" {', '.join(ranking)}. Of as many scores without any relation to ImageNet about {by_luck:.0f} would."
        )
    by_chance = chance(rows, check.plan.seed)
    if math.isfinite(by_chance):
        lines.append(
            f"{len(check.networks)} topologies are few and {len(judged)} scores are many: the best of as many scores without"
            " any relation to ImageNet would agree with what beliefs leave of the results as well as the best of these in"
            f" {100 * by_chance:.0f} % of cases ({PERMUTATIONS} permutations)."
        )
    return (*lines, *failed)


def _adds(row: TrialRow) -> str:
    trust = row.trust
    assert trust.size_interval is not None
    return (
        f"{row.name} adds: it ranks beyond OPs and params (tau at least {trust.size_interval[0]:.2f}) and takes the error"
        f" from {trust.free_error:.2f} to {trust.error:.2f} points."
    )


def write_trial(check: Check, rows: Sequence[TrialRow]) -> CheckReport:
    """report.md, check.csv, scores.csv and the plot, beside check.json."""
    table = trial_table(check, rows)
    write_text(check.directory / "check.csv", to_csv(table))
    write_text(check.directory / "scores.csv", csv_of(measured(check, rows)))
    for suffix in ("png", "svg"):
        write_bytes(check.directory / f"check.{suffix}", trial_plot(check, rows, suffix))
    write_text(check.directory / "report.md", trial_markdown(check, rows))
    return trial_reported(check, rows)


def trial_reported(check: Check, rows: Sequence[TrialRow]) -> CheckReport:
    """The answer of a trial."""
    value = {
        "check": str(check.directory),
        "plan": check.plan.model_dump(mode="json"),
        "rows": [trial_record(row) for row in rows],
        "sentences": list(trial_sentences(check, rows)),
    }
    num_judged = max(row.trust.n for row in rows if row.kind == "trained")
    return CheckReport(check.directory, trial_table(check, rows), value, num_judged, check.plan.against)


def trial_plot(check: Check, rows: Sequence[TrialRow], suffix: str) -> bytes:
    """The accuracy and the losses of each proxy against ImageNet top-1; a colour for each family."""
    drawn = [row for row in rows if row.kind == "trained"]
    lines = -(-len(drawn) // 3)
    figure, axes = subplots(lines, 3, figsize=(11, 3.2 * lines), squeeze=False, sharey=True, layout="constrained")
    truth = np.array([run.top1 for run in topologies()])
    families = np.array([run.spec.family for run in topologies()])
    for place, row in zip(axes.flat, drawn, strict=True):
        percent, sign = (100, "") if row.name.endswith("accuracy") else (1, "minus ")
        for family in dict.fromkeys(families.tolist()):
            chosen = families == family
            error = None if row.deviations is None else percent * row.deviations[chosen]
            place.errorbar(percent * row.scores[chosen], truth[chosen], xerr=error, fmt="o", ms=4, lw=0.8, label=family)
        place.set_title(f"{row.name}: tau {_number(row.trust.tau)}", fontsize=9)
        place.set_xlabel(f"{sign}{row.name.partition(': ')[2]}{' (%)' if percent == 100 else ''}", fontsize=8)
        place.grid(alpha=0.25)
    for place in axes[:, 0]:
        place.set_ylabel("ImageNet top-1 (%)", fontsize=8)
    axes[0, 0].legend(fontsize=7)
    return encode(figure, suffix)


def trial_markdown(check: Check, rows: Sequence[TrialRow]) -> str:
    """report.md."""
    plan = check.plan
    networks = ", ".join(f"{run.arch} {run.top1:.2f}" for run in topologies())
    done = [
        f"- The truth: ImageNet top-1 of the last epoch ({RECIPE}; `{SOURCE}`): {networks}. Errors are of all"
        f" {len(target_runs())} results, with both stems where both are published; a topology is left out with both.",
        *(
            f"- {name}, from seed(s) {', '.join(map(str, plan.seeds_of(name)))}: {describe_way(way)}"
            for name, way in plan.proxies.items()
        ),
        *teacher_lines(check),
        "- Zero-cost scores are those of the untrained networks with each proxy's input and widths (SynFlow, NASWOT, gradient"
        " norm, SNIP), judged as the trainings are.",
        "- A score enters beliefs as what a ridge on log MACs, log params and family leaves of it.",
        f"- Trainings ran on {plan.device}; scores are of validation splits, no test split was looked at.",
        *(left_out_line(name, facts.left_out) for name, facts in check.data.items() if facts.left_out is not None),
    ]
    parts = [
        f"# Proxies on trial: `{check.directory.name}`",
        f"Made by `{check.origin['command']}` at {check.origin['time']}.",
        to_markdown(trial_table(check, rows)),
        "![each proxy against ImageNet](check.png)",
        "## What was done",
        "\n".join(done),
        "## Scores of the trainings",
        _scores_table(check, rows),
        "## To repeat it",
        "The command above, with the versions below; what it was given is here as `space.toml` and, where proxies were"
        " asked for, `check.toml`. `check.json` has every training's result, `check.csv` the table's raw values,"
        " `scores.csv` every score of every network.",
        "```json\n" + json.dumps({"data": check.content()["data"], **check.origin}, indent=2) + "\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _scores_table(check: Check, rows: Sequence[TrialRow]) -> str:
    """Validation accuracies network by network, with the deviation between seeds."""
    accuracies = [row for row in rows if row.kind == "trained" and row.name.endswith(": accuracy")]
    columns = (Column("network", numeric=False), Column("ImageNet"), *(Column(str(row.way)) for row in accuracies))

    def cell(row: TrialRow, index: int) -> str:
        value = 100 * row.scores[index]
        spread = "" if row.deviations is None else f" ± {100 * row.deviations[index]:.2f}"
        return "" if math.isnan(value) else f"{value:.2f}{spread}"

    cells = tuple(
        (run.arch, f"{run.top1:.2f}", *(cell(row, index) for row in accuracies))
        for index, run in enumerate(topologies())
    )
    return to_markdown(Table("Validation top-1 (%), mean and deviation between seeds", columns, cells))
