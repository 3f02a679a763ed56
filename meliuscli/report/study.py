"""The report of a study: tables, CSV files, a Pareto plot, the best network as TOML, and a page that says it all."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meliuscli.arch.families import family_class
from meliuscli.report.believed import (
    Beliefs,
    believed_table,
    best_lines,
    comparison_lines,
    comparisons,
    preferred,
)
from meliuscli.report.tables import Column, Table, to_markdown
from meliuscli.results import write_bytes, write_text
from meliuscli.search import pareto
from meliuscli.search.cost import OPS, Cost
from meliuscli.search.finals import Entrant, Standing, Verdict, choose_entrants, finals_of, transfer_of, verdicts
from meliuscli.search.goal import TargetGoal
from meliuscli.search.space import Candidate, SearchSpace
from meliuscli.search.study import Settings, Study, TrialRecord
from meliuscli.training.recipe import Recipe
from meliuscli.units import format_count


@dataclass(frozen=True, slots=True)
class StudyReport:
    """Everything that the report says, as values."""

    directory: Path
    settings: Settings
    space: SearchSpace
    cost: Cost
    records: tuple[TrialRecord, ...]
    num_rejected: int
    entrants: tuple[Entrant, ...]
    standings: tuple[Standing, ...]
    transfer: tuple[Standing, ...]
    """Of the trainings on data that the search never used; empty where none were asked for."""
    origin: dict[str, Any]
    beliefs: Beliefs
    """Of every trained candidate where the search answers for ImageNet; empty where it answers for the proxy's data."""

    @property
    def front(self) -> list[TrialRecord]:
        """Trained candidates that no other beats in cost and in what the search maximises, cheapest first."""
        trained = [record for record in self.records if record.accuracy is not None]
        points = [(self.cost.of(record.candidate), self._worth(record)) for record in trained]
        return [trained[index] for index in pareto.front(points)]

    def _worth(self, record: TrialRecord) -> float:
        return self.beliefs[record.candidate.archid].low if self.beliefs else record.accuracy or 0.0

    @property
    def budgets(self) -> tuple[float, ...]:
        """Every budget that was asked for, the smallest first."""
        return self.settings.budgets or (self.settings.budget,)

    @property
    def best(self) -> Standing | None:
        """The found network of best mean validation accuracy in the finals."""
        return next((s for s in self.standings if s.entrant.known_as is None), None)

    @property
    def verdicts(self) -> list[Verdict]:
        """The finals' answer to each known network."""
        return verdicts(self.standings, self.cost.of)

    @property
    def answers_for(self) -> str:
        """What the search's answer is about, in a sentence."""
        if self.beliefs:
            return "This search answers for ImageNet: it maximises what is believed of top-1 there."
        data = self.space.proxy.dataset
        reason = self.origin.get("why_proxy")
        because = f" (nothing is believed of ImageNet: {reason})" if reason else ""
        return f"This search answers for the proxy's data, {data}, and for nothing else{because}."


def gather(study: Study, origin: dict[str, Any]) -> StudyReport:
    """Read a study's trials and finals into a report."""
    entrants = tuple(choose_entrants(study))
    transfer = transfer_of(study)
    return StudyReport(
        study.directory,
        study.settings,
        study.space,
        study.cost,
        tuple(study.records()),
        study.num_rejected,
        entrants,
        tuple(finals_of(study).standings(entrants)),
        () if transfer is None else tuple(transfer.standings(entrants)),
        origin,
        _beliefs(study),
    )


def _beliefs(study: Study) -> Beliefs:
    if not isinstance(study.goal, TargetGoal):
        return {}
    candidates = [record.candidate for record in study.records() if record.accuracy is not None]
    beliefs = study.goal.beliefs(candidates)
    return {candidate.archid: belief for candidate, belief in zip(candidates, beliefs, strict=True)}


def front_table(report: StudyReport) -> Table:
    """The Pareto front of beliefs, with the published networks beside it, or of the proxy trainings."""
    columns, cells = _cost_columns(report.cost)
    if report.beliefs:
        title = f"Pareto front: believed ImageNet top-1 against {report.cost.noun}, budget {_budget(report)}"
        legend = report.space.any_candidate.spec.legend
        return believed_table(report.front, report.records, report.beliefs, title, (columns, cells), legend)
    return Table(
        f"Pareto front: proxy accuracy against {report.cost.noun}, budget {_budget(report)}",
        (
            Column("trial"),
            Column("network", numeric=False),
            *columns,
            Column("MiB"),
            Column("proxy top-1 %"),
        ),
        tuple(
            (
                record.number,
                record.known_as or record.candidate.spec.summary(),
                *cells(record.candidate),
                f"{record.candidate.count.size_bytes / 2**20:.2f}",
                f"{100 * (record.accuracy or 0):.2f}",
            )
            for record in report.front
        ),
        notes=(
            "proxy top-1: validation split, one short training each; it ranks, and is not ImageNet accuracy",
            family_class(report.space.family).legend,
        ),
    )


def finals_table(report: StudyReport) -> Table:
    """Finalists and known networks, trained longer, best validation accuracy first."""
    title = f"Finals: trained longer on the proxy data, n={report.settings.final_seeds} seeds"
    return _standings_table(report, report.standings, title, verdict_lines(report))


def transfer_table(report: StudyReport) -> Table:
    """Finalists and known networks, trained on data that the search never used."""
    title = f"Transfer to {_transfer_data(report)}, which the search never used, n={report.settings.final_seeds} seeds"
    return _standings_table(report, report.transfer, title, transfer_lines(report))


def _standings_table(report: StudyReport, table: Sequence[Standing], title: str, lines: Sequence[str]) -> Table:
    columns, cells = _cost_columns(report.cost)
    return Table(
        title,
        (
            Column("network", numeric=False),
            *columns,
            Column("MiB"),
            Column("validation %"),
            Column("test %"),
            Column("± spread"),
        ),
        tuple(
            (
                _entrant_name(standing.entrant),
                *cells(standing.entrant.candidate),
                f"{standing.entrant.candidate.count.size_bytes / 2**20:.2f}",
                f"{100 * standing.validation_mean:.2f}",
                f"{100 * standing.test_mean:.2f}",
                "" if standing.test_spread is None else f"{100 * standing.test_spread:.2f}",
            )
            for standing in table
        ),
        notes=(
            "found-N is trial N of the search; the others are published networks, trained the same way",
            "validation chooses, test is scored once a training; spread is the sample standard deviation over seeds",
            family_class(report.space.family).legend,
        ),
        lines=tuple(lines),
    )


def _transfer_data(report: StudyReport) -> str:
    settings = report.settings
    return Path(settings.transfer_dir).name if settings.transfer_dir else str(settings.transfer)


def transfer_lines(report: StudyReport) -> list[str]:
    """Who wins on data that the search never used."""
    compared = verdicts(report.transfer, report.cost.of)
    beaten, lost = sum(verdict.beaten for verdict in compared), sum(verdict.lost for verdict in compared)
    return [
        f"On {_transfer_data(report)} finalists of no more {report.cost.noun} beat {beaten} of {len(compared)} published"
        f" networks by more than the spread and lose to {lost}:",
        *(_claim(verdict, report.cost) for verdict in compared),
    ]


def verdict_lines(report: StudyReport) -> list[str]:
    """What the search's answer is, and whether it beats the known networks: no more than the numbers say."""
    if report.beliefs:
        return [
            *best_lines(report.records, report.beliefs, report.cost, report.budgets),
            *comparison_lines(comparisons(report.records, report.beliefs, report.cost), report.beliefs, report.cost),
            _on_proxy(report),
            report.answers_for,
        ]
    return [*_proxy_lines(report), report.answers_for]


def _on_proxy(report: StudyReport) -> str:
    """What the finals add where the answer does not rest on them."""
    beaten = sum(verdict.beaten for verdict in report.verdicts)
    return (
        f"On the proxy's data, {report.space.proxy.dataset}, finalists of no more {report.cost.noun} beat {beaten} of"
        f" {len(report.verdicts)} published networks by more than the spread; that does not change the beliefs."
    )


def _proxy_lines(report: StudyReport) -> list[str]:
    lines = []
    best, known = report.best, next((s for s in report.standings if s.entrant.known_as is not None), None)
    if best is not None and known is not None:
        lines.append(f"Best within the budget of {_budget(report)}: {_claim(Verdict(known, best), report.cost)}")
    if report.verdicts:
        beaten = sum(verdict.beaten for verdict in report.verdicts)
        lines.append(
            f"At no more {report.cost.noun} the search beat {beaten} of {len(report.verdicts)} known networks by more than"
            " the spread:"
        )
    lines += [_claim(verdict, report.cost) for verdict in report.verdicts]
    return lines


def _claim(verdict: Verdict, cost: Cost) -> str:
    known, found = verdict.known, verdict.found
    if found is None or verdict.gain is None:
        return f"{known.entrant.name}: no finalist is within its {cost.noun}, so nothing is claimed."
    spread = "unknown" if verdict.spread is None else f"{100 * verdict.spread:.2f}"
    claim = (
        "beaten" if verdict.beaten else "better by more than the spread" if verdict.lost else "even within the spread"
    )
    ratio = cost.of(found.entrant.candidate) / cost.of(known.entrant.candidate)
    return (
        f"{known.entrant.name}: {claim}: {found.entrant.name} at {ratio:.2f}x its {cost.noun}"
        f" {100 * verdict.gain:+.2f} points on test (spread {spread})."
    )


def _cost_columns(cost: Cost) -> tuple[list[Column], Callable[[Candidate], list[str]]]:
    """Columns of the cost, and of OPs where that is another, and a candidate's cells in them."""
    costs = [cost] if cost is OPS else [cost, OPS]
    return [Column(one.unit) for one in costs], lambda candidate: [one.text(one.of(candidate)) for one in costs]


def _budget(report: StudyReport) -> str:
    return f"{report.cost.text(report.settings.budget)} {report.cost.unit}"


def write_report(report: StudyReport) -> None:
    """Write report.md, trials.csv, front.csv, best.toml and the plot into the study's directory."""
    directory = report.directory
    write_text(directory / "trials.csv", _trials_csv(report, report.records))
    write_text(directory / "front.csv", _trials_csv(report, report.front))
    if (best := _best(report)) is not None:
        write_text(directory / "best.toml", best)
    for suffix in ("png", "svg"):
        write_bytes(directory / f"pareto.{suffix}", plot(report, suffix))
    write_text(directory / "report.md", markdown(report))


def best_found(report: StudyReport) -> Candidate | None:
    """The network of best.toml: the preferred one within the budget, or the best of the finals on validation."""
    if report.beliefs:
        record = preferred(report.records, report.beliefs, report.cost, report.settings.budget)
        return None if record is None else record.candidate
    return None if report.best is None else report.best.entrant.candidate


def _best(report: StudyReport) -> str | None:
    if report.beliefs and (found := best_found(report)) is not None:
        belief = report.beliefs[found.archid]
        return (
            f"# The network that `{report.origin['command']}` prefers within its budget.\n"
            f"# {format_count(found.ops)} OPs; believed ImageNet top-1 {belief} %\n{found.spec.to_toml()}"
        )
    best = report.best
    if best is None:
        return None
    candidate = best.entrant.candidate
    head = (
        f"# The network that `{report.origin['command']}` found best on validation: {best.entrant.name}\n"
        f"# {format_count(candidate.ops)} OPs; proxy test top-1 {100 * best.test_mean:.2f} % (n={len(best.test)})\n"
    )
    return head + candidate.spec.to_toml()


def _trials_csv(report: StudyReport, records: Sequence[TrialRecord]) -> str:
    import pandas as pd

    rows = [
        {
            "trial": record.number,
            "known_as": record.known_as or "",
            "archid": record.candidate.archid,
            **dict(zip(report.space.axes, record.candidate.params, strict=True)),
            **({} if report.cost is OPS else {report.cost.key: report.cost.of(record.candidate)}),
            "ops": record.candidate.ops,
            "binary_macs": record.candidate.count.binary_macs,
            "float_macs": record.candidate.count.float_macs,
            "params": record.candidate.count.params,
            "size_bytes": record.candidate.count.size_bytes,
            **(_believed(report, record) if report.beliefs else {}),
            "proxy_top1": record.accuracy,
            "validation_loss": record.result.last.validation_loss if record.result else None,
            "train_loss": record.result.last.train_loss if record.result else None,
            "training_seed": record.result.seed if record.result else None,
            "seconds": record.result.seconds if record.result else None,
            "failed_because": record.reason or "",
        }
        for record in records
    ]
    return str(pd.DataFrame(rows).to_csv(index=False))


def _believed(report: StudyReport, record: TrialRecord) -> dict[str, float | None]:
    belief = report.beliefs.get(record.candidate.archid)
    keys = ("top1", "low", "high")
    return {f"believed_{key}": None if belief is None else getattr(belief, key) for key in keys}


def plot(report: StudyReport, suffix: str) -> bytes:
    """What the search maximises against cost: all trials, the front, and the known networks by name."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "meliuscli"
    from matplotlib import pyplot as plt

    scale = 1e6 if report.cost is OPS else 1

    def x(record: TrialRecord) -> float:
        return report.cost.of(record.candidate) / scale

    def y(record: TrialRecord) -> float:
        return report.beliefs[record.candidate.archid].top1 if report.beliefs else 100 * (record.accuracy or 0)

    figure, axes = plt.subplots(figsize=(8, 5), dpi=120)
    trained = [r for r in report.records if r.accuracy is not None]
    for known, marker, color, label in (
        (False, "o", "#7f8c9b", "found"),
        (True, "s", "#c0392b", "published networks"),
    ):
        chosen = [r for r in trained if (r.known_as is not None) == known]
        if chosen:
            axes.scatter(
                list(map(x, chosen)),
                list(map(y, chosen)),
                marker=marker,
                color=color,
                label=label,
                zorder=3,
            )
    for record in trained if report.beliefs else ():
        belief = report.beliefs[record.candidate.archid]
        axes.vlines(x(record), belief.low, belief.high, color="#c4cad2", linewidth=1, zorder=1)
    front = report.front
    if front:
        xs = [*map(x, front), report.settings.budget / scale]
        ys = list(map(y, front))
        axes.step(xs, [*ys, ys[-1]], where="post", color="#1f6f8b", label="Pareto front", zorder=2)
    named = sorted((r for r in trained if r.known_as is not None), key=y, reverse=True)
    for index, record in enumerate(named):  # a column of names with lines to the marks, as neighbours are close
        axes.annotate(
            record.known_as or "",
            (x(record), y(record)),
            xytext=(0.53, 0.42 - 0.055 * index),
            textcoords="axes fraction",
            fontsize=8,
            color="#c0392b",
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "#c0392b", "relpos": (0, 0.5)},
        )
    axes.axvline(report.settings.budget / scale, color="black", linestyle=":", linewidth=1, label="budget")
    axes.set_xlabel(
        f"{report.cost.noun} ({'millions' if report.cost is OPS else report.cost.unit}; {report.cost.rule})"
    )
    axes.set_ylabel("believed ImageNet top-1, 90 % interval (%)" if report.beliefs else "proxy validation top-1 (%)")
    axes.set_title(f"{len(trained)} trained candidates of the space {report.settings.space}")
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right")
    figure.tight_layout()
    out = io.BytesIO()
    figure.savefig(out, format=suffix, metadata={"Date": None} if suffix == "svg" else None)
    plt.close(figure)
    return out.getvalue()


def markdown(report: StudyReport) -> str:
    """report.md."""
    settings, proxy = report.settings, report.space.proxy
    trained = [record for record in report.records if record.accuracy is not None]
    failed = len(report.records) - len(trained)
    seconds = sum(record.result.seconds for record in trained if record.result is not None)
    final = report.space.final.recipe
    parts = [
        f"# Search `{report.directory.name}`",
        f"Made by `{report.origin['command']}` at {report.origin['time']}.",
        "## Answer",
        report.answers_for,
        to_markdown(finals_table(report)),
        *([to_markdown(transfer_table(report))] if report.transfer else []),
        to_markdown(front_table(report)),
        "![Pareto plot](pareto.png)",
        "## What was done",
        f"- Budget: {_budget(report)} at the target input {_target(report.space)} ({report.cost.rule}).",
        *([f"- Latency: {report.origin['latency']['sentence']}."] if "latency" in report.origin else []),
        f"- {len(trained)} candidates trained ({seconds:.0f} s of training), {failed} failed; {report.num_rejected}"
        f" others that were looked at were decided by counting (over a limit, impossible or duplicates) and never trained.",
        f"- Proxy: {proxy.dataset} at {proxy.input_size}x{proxy.input_size}, all widths divided by"
        f" {proxy.width_divisor}, {_recipe(proxy.recipe)}. Scored on the validation split.",
        *(left_out_line(data["name"], data["left_out"]) for data in [report.origin["dataset"]] if "left_out" in data),
        f"- Finals: the same network and data, {final.epochs:g} epoch(s), {settings.final_seeds} seeds; the test split"
        " was never used to choose anything.",
        *([_transfer_done(report)] if report.transfer else []),
        f"- Sampler {settings.sampler}, seed {settings.seed}; trials are told in order, each proposal sees the trials"
        f" {settings.lag} places before it, so workers and interruptions do not change the result.",
        "## What this does not say",
        *(
            [
                "A belief is the forecast of a model of 17 published trainings, not a training. Found networks are trained"
                " on no ImageNet here; those far from what was published have wide intervals, whose width itself is a"
                " judgement where nothing was measured."
            ]
            if report.beliefs
            else []
        ),
        "The proxy ranks networks by a short training of a narrowed copy on small images. It is not ImageNet accuracy,"
        " and a difference smaller than the spread over seeds is not a difference.",
        "## To repeat it",
        f"`meliuscli search {_budget_options(settings)} --space {report.directory}/space.toml --seed {settings.seed}"
        f" --trials {settings.trials} --sampler {settings.sampler} --finalists {settings.finalists}"
        f" --final-seeds {settings.final_seeds}{_data_options(settings)}` with the versions below (files:"
        " `space.toml`, `study.json`, `journal.log` with every trial, `finals.json`, `trials.csv`, `front.csv`, `best.toml`).",
        "```json\n" + json.dumps(report.origin, indent=2) + "\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _transfer_done(report: StudyReport) -> str:
    way, seeds = report.space.transfer, report.settings.final_seeds
    return (
        f"- Transfer: {_transfer_data(report)} at {way.input_size}x{way.input_size} (digest"
        f" {report.origin['transfer']['digest']}), all widths divided by {way.width_divisor}, {_recipe(way.recipe)},"
        f" {seeds} seeds; the test split was never used to choose anything."
    )


def _recipe(recipe: Recipe) -> str:
    return f"{recipe.epochs:g} epoch(s) at batch {recipe.batch_size}, {recipe.optimizer} {recipe.learning_rate:g} cosine to 0"


def _budget_options(settings: Settings) -> str:
    if settings.objective == "latency":
        return f"--objectives accuracy,latency --budget {settings.budget}s"
    return f"--budget {settings.budget}"


def left_out_line(dataset: str, left_out: int) -> str:
    """What ``--skip-bad`` did, for a report."""
    return f"- Image files of {dataset} that could not be read and were left out: {left_out:,} (`--skip-bad`)."


def _data_options(settings: Settings) -> str:
    dataset = [] if settings.dataset is None else ["--dataset", settings.dataset]
    data = [] if settings.data_dir is None else ["--data", settings.data_dir]
    skipping = ["--skip-bad"] if settings.skip_bad else []
    device = [] if settings.device == "cpu" else ["--device", settings.device]
    transfer = [] if settings.transfer is None else ["--transfer", ":".join(_transfer_words(settings))]
    return "".join(f" {shlex.quote(word)}" for word in (*dataset, *data, *skipping, *device, *transfer))


def _transfer_words(settings: Settings) -> list[str]:
    return [word for word in (settings.transfer, settings.transfer_dir) if word is not None]


def _target(space: SearchSpace) -> str:
    size, channels = space.target.get("input_size", 224), space.target.get("input_channels", 3)
    return f"{channels}x{size}x{size}, {space.target.get('num_classes', 1000)} classes"


def _entrant_name(entrant: Entrant) -> str:
    return entrant.name if entrant.known_as else f"{entrant.name}: {entrant.candidate.spec.summary()}"
