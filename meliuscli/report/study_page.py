"""The page of a study, report.md, and all files of its report."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from functools import partial
from typing import Any

from meliuscli.report.answers import Answer
from meliuscli.report.study import StudyReport, best_found
from meliuscli.report.study_figure import plot
from meliuscli.report.study_sentences import budget_text, transfer_data
from meliuscli.report.study_tables import study_tables, study_value
from meliuscli.report.tables import to_markdown
from meliuscli.report.text_plot import front_drawing
from meliuscli.results import write_bytes, write_text
from meliuscli.search.cost import OPS
from meliuscli.search.records import TrialRecord
from meliuscli.search.space import Candidate, SearchSpace
from meliuscli.training.recipe import Recipe
from meliuscli.units import format_count


def write_report(report: StudyReport) -> None:
    """Write report.md, report.html, trials.csv, front.csv, best.toml and the plot into the study's directory."""
    from meliuscli.report.study_web import study_web_page  # which has the commands and files of this page

    directory = report.directory
    write_text(directory / "trials.csv", _trials_csv(report, report.records))
    write_text(directory / "front.csv", _trials_csv(report, report.front))
    for name, best in best_files(report).items():
        write_text(directory / name, best)
    for suffix in ("png", "svg"):
        write_bytes(directory / f"pareto.{suffix}", plot(report, suffix))
    write_text(directory / "report.html", study_web_page(report))
    write_text(directory / "report.md", markdown(report))


def best_files(report: StudyReport) -> dict[str, str]:
    """Name -> TOML of the network that is the answer to each budget, the largest's in best.toml."""
    budgets, files = report.budgets, {}
    for budget in budgets:
        if (found := best_found(report, budget)) is not None:
            text = report.cost.text(budget)
            files["best.toml" if budget == budgets[-1] else f"best-{text}.toml"] = _best(report, found, budget)
    return files


def _best(report: StudyReport, found: Candidate, budget: float) -> str:
    head = f"# {format_count(found.ops)} OPs; "
    if report.believes:
        within = f"within {report.cost.text(budget)} {report.cost.unit}"
        first = f"# The network that `{report.origin['command']}` prefers {within}.\n"
        return f"{first}{head}believed ImageNet top-1 {report.beliefs[found.archid]} %\n{found.spec.to_toml()}"
    best = report.best(budget)
    assert best is not None
    first = f"# The network that `{report.origin['command']}` found best on validation: {best.entrant.name}\n"
    return f"{first}{head}proxy test top-1 {100 * best.test_mean:.2f} % (n={len(best.test)})\n{found.spec.to_toml()}"


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
            **(_believed(report, record) if report.believes else {}),
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


def study_answer(report: StudyReport, **more: str | None) -> Answer:
    """What a search answers; as CSV its front. ``more`` goes into JSON too."""
    last = f"{report.answers_for}\n"
    return Answer(
        tuple(study_tables(report)),
        lambda: {**study_value(report), **more},
        csv=lambda: _trials_csv(report, report.front),
        endings={"table": last, "markdown": last},
        drawing=partial(front_drawing, report),
    )


def markdown(report: StudyReport) -> str:
    """report.md."""
    parts = [
        f"# Search `{report.directory.name}`",
        f"Made by `{report.origin['command']}` at {report.origin['time']}.",
        "## Answer",
        report.answers_for,
        *map(to_markdown, reversed(study_tables(report))),
        "![Pareto plot](pareto.png)",
        "## What was done",
        *_what_was_done(report),
        "## What this does not say",
        *([NO_TRAINING] if report.believes else []),
        "The proxy ranks networks by a short training of a narrowed copy on small images. It is not ImageNet accuracy,"
        " and a difference smaller than the spread over seeds is not a difference.",
        "## To repeat it",
        f"`{repeat_command(report)}` with the versions below, in the directory that this study was made in. Files: "
        + ", ".join(
            f"`{path.name}`"
            for path in sorted(report.directory.iterdir())
            if path.name != "report.md" and path.suffix in (".csv", ".json", ".log", ".toml")
        )
        + ".",
        "```json\n" + json.dumps(report.origin, indent=2) + "\n```",
    ]
    return "\n\n".join(parts) + "\n"


NO_TRAINING = (
    "A belief is the forecast of a model of 17 published trainings, not a training. Found networks are trained"
    " on no ImageNet here; those far from what was published have wide intervals, whose width itself is a"
    " judgement where nothing was measured."
)


def _what_was_done(report: StudyReport) -> list[str]:
    settings, proxy, final = report.settings, report.space.proxy, report.space.final.recipe
    trained = report.trained
    failed = len(report.records) - len(trained)
    seconds = sum(record.result.seconds for record in trained if record.result is not None)
    return [
        f"- Budget: {budget_text(report)} at the target input {_target(report.space)} ({report.cost.rule}).",
        *([f"- Latency: {report.origin['latency']['sentence']}."] if "latency" in report.origin else []),
        *_short_of(report),
        f"- {len(trained)} candidates trained ({seconds:.0f} s of training), {failed} failed, {report.num_at_chance} ended at"
        f" chance; {report.num_rejected}"
        f" others that were looked at were decided by counting (over a limit, impossible or duplicates) and never trained.",
        f"- Proxy: {proxy.dataset} at {proxy.input_size}x{proxy.input_size}, all widths divided by"
        f" {proxy.width_divisor}, {_recipe(proxy.recipe)}. Scored on the validation split.",
        *(left_out_line(data["name"], data["left_out"]) for data in [report.origin["dataset"]] if "left_out" in data),
        f"- Finals: the same network and data, {final.epochs:g} epoch(s), {settings.final_seeds} seed{'' if settings.final_seeds == 1 else 's'}; the test split"
        " was never used to choose anything.",
        *([_transfer_done(report)] if report.transfer else []),
        f"- Sampler {settings.sampler}, seed {settings.seed}; {_order(settings.lag)}.",
    ]


def _order(lag: int | None) -> str:
    if lag is None:
        return "each proposal sees all trials that were told before (`--lag none`), so this search is not repeatable"
    return (
        f"trials are told in order, each proposal sees the trials {lag} place{'' if lag == 1 else 's'} before it, so workers and interruptions do"
        " not change the result"
    )


def _transfer_done(report: StudyReport) -> str:
    way, seeds = report.space.transfer, report.settings.final_seeds
    return (
        f"- Transfer: {transfer_data(report)} at {way.input_size}x{way.input_size} (digest"
        f" {report.origin['transfer']['digest']}), all widths divided by {way.width_divisor}, {_recipe(way.recipe)},"
        f" {seeds} seed{'' if seeds == 1 else 's'}; the test split was never used to choose anything."
    )


def _recipe(recipe: Recipe) -> str:
    return f"{recipe.epochs:g} epoch(s) at batch {recipe.batch_size}, {recipe.optimizer} {recipe.learning_rate:g} cosine to 0"


def _short_of(report: StudyReport) -> list[str]:
    asked, made = report.settings.trials, len(report.records)
    if made >= asked:
        return []
    return [
        f"- {made} of {asked} trials: the timeout came first, or the space is exhausted. Where a timeout comes depends on the"
        " machine's speed, so another run may differ."
    ]


def repeat_command(report: StudyReport) -> str:
    """The command line that makes the same study again, beside this one."""
    made = report.settings
    latency = made.objective == "latency"
    options: dict[str, Any] = {
        "objectives": "accuracy,latency" if latency else None,
        "budget": ",".join(f"{budget!r}s" if latency else f"{budget:.12g}" for budget in report.budgets),
        "objective": made.maximises,
        "max-size": made.max_size and f"{made.max_size:.12g}",
        "max-params": made.max_params and f"{made.max_params:.12g}",
        "max-ram": made.max_ram and f"{made.max_ram:.12g}",
        "max-flash": made.max_flash and f"{made.max_flash:.12g}",
        "space": f"{report.directory}/space.toml",
        "seed": made.seed,
        "trials": made.trials,
        "sampler": made.sampler,
        "finalists": made.finalists,
        "final-seeds": made.final_seeds,
        "dataset": made.dataset,
        "data": made.data_dir,
        "transfer": ":".join(word for word in (made.transfer, made.transfer_dir) if word is not None) or None,
        "device": None if made.device == "cpu" else made.device,
        "lag": made.lag or "none",
        "timeout": "24h",
        "study": f"{report.directory.name}-again",
    }
    words = [word for key, value in options.items() if value is not None for word in (f"--{key}", str(value))]
    return shlex.join(["meliuscli", "search", *words, *(["--skip-bad"] if made.skip_bad else [])])


def left_out_line(dataset: str, left_out: int) -> str:
    """What ``--skip-bad`` did, for a report."""
    return f"- Image files of {dataset} that could not be read and were left out: {left_out:,} (`--skip-bad`)."


def _target(space: SearchSpace) -> str:
    size, channels = space.target.get("input_size", 224), space.target.get("input_channels", 3)
    return f"{channels}x{size}x{size}, {space.target.get('num_classes', 1000)} classes"
