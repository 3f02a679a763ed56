"""``meliuscli check-proxy``: does a short training rank networks as a long one does?"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from meliuscli.cli import completion, options
from meliuscli.cli.console import SHELL, Progress, answer, answer_tables, status, talk
from meliuscli.errors import BadInputError, FailedError, InterruptedByUser
from meliuscli.report.tables import Format, to_json
from meliuscli.units import format_count, parse_count
from meliuscli.work.folders import CHECK, resume_check

if TYPE_CHECKING:
    from meliuscli.report.check import Reported
    from meliuscli.search.check import Check, DataFacts
    from meliuscli.search.plan import Plan
    from meliuscli.search.space import SearchSpace


def check_proxy(
    space: Annotated[
        str, typer.Argument(help="A search space's name or TOML file.", autocompletion=completion.spaces)
    ] = "meliusnet",
    networks: Annotated[
        int | None,
        typer.Option("--networks", min=4, max=10_000, help="How many to sample (default: 24).", show_default=False),
    ] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", help="None above these OPs: 5e8, 500M, 0.5G.", show_default=False)
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option("--check", help="TOML with [long] and [proxies.NAME]: what differs from the space's [proxy]."),
    ] = None,
    long: Annotated[
        str | None,
        typer.Option("--long", metavar="RECIPE", help="Recipe of the long training (default: the space's final one)."),
    ] = None,
    long_epochs: Annotated[
        float | None,
        typer.Option("--long-epochs", help="Default: that of the recipe, at least 4 times the proxy's if the space's."),
    ] = None,
    long_dataset: Annotated[
        str | None, typer.Option("--long-dataset", help="Data set of the long training (default: the proxy's).")
    ] = None,
    against: Annotated[
        Literal["long", "published"],
        typer.Option("--against", help="Judge by long trainings, or by what is published on ImageNet."),
    ] = "long",
    device: options.Device = "cpu",
    data: options.Data = None,
    skip_bad: options.SkipBad = False,
    at_fraction: Annotated[
        list[float] | None,
        typer.Option(
            "--at-fraction", help="Also read the long training after this part of it; repeatable (default: 0.25, 0.5)."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31 - 3, help="Everything random follows from it.")] = 0,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, max=256, help="Trainings at a time (default: cores).", show_default=False),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name of the check's folder (default: check- and the space).", show_default=False),
    ] = None,
    reports: Annotated[Path, typer.Option("--reports", help="Where the folder is.")] = Path("reports"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue: the same command again; --check may have more proxies.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Delete a check of that name first.")] = False,
    fmt: options.OutputFormat = "table",
    output: options.Output = None,
) -> None:
    """Check whether a space's proxy, and other short trainings, rank its networks as a long training does.

    Samples networks spread over OPs, trains each long from two seeds and once in every short way, and holds the short
    ones against the long and against what is known for nothing (packed size, params, OPs). With --against published the
    networks are the topologies whose ImageNet results are published with MeliusNet's recipe, nothing is trained long,
    and the question is what a proxy adds to beliefs about ImageNet. Writes reports/NAME with check.json, report.md,
    check.csv and a plot.

    Example: meliuscli check-proxy meliusnet --networks 24"""
    if resume and force:
        raise BadInputError("--resume and --force exclude each other")
    if against == "published":
        _refuse_sampling(
            {
                "--networks": networks,
                "--budget": budget,
                "--long": long,
                "--long-epochs": long_epochs,
                "--long-dataset": long_dataset,
                "--at-fraction": at_fraction,
            }
        )
    budget_ops = None if budget is None else parse_count(budget, "--budget")
    with status("loading"):
        from meliuscli.data.decoding import prepare_and_tell
        from meliuscli.results import origin, write_text
        from meliuscli.search.check import Check, as_trained, read_data, sample
        from meliuscli.search.plan import Changes, make_plan, read_changes
        from meliuscli.search.space import load_space
        from meliuscli.search.targets import published_networks
        from meliuscli.training.execution import find_device
        from meliuscli.training.recipe import find_recipe

        space_name, searched, text = load_space(space)
        changes = Changes() if check is None else read_changes(check)
        copies = {} if check is None else {"check.toml": check.read_text(encoding="utf-8-sig")}
        plan = make_plan(
            space_name,
            searched,
            changes,
            networks=len(published_networks()) if against == "published" else networks or 24,
            budget=budget_ops,
            seed=seed,
            long_recipe=None if long is None else find_recipe(long),
            long_epochs=long_epochs,
            long_dataset=long_dataset,
            fractions=(0.25, 0.5) if at_fraction is None else at_fraction,
            data_dir=data,
            skip_bad=skip_bad,
            against=against,
            device=find_device(device),
        )
        where, decode = origin(), partial(prepare_and_tell, listener=SHELL)
    default = f"check-{space_name}" if against == "long" else "proxy-imagenet"
    if resume:
        directory = CHECK.find(reports, name, default)
        with CHECK.lock(directory):
            left = _left(directory, searched, plan)
            left = _resumed(left, plan, read_data(plan, decode), where)
            for file, content in copies.items():
                write_text(directory / file, content)
            _run(left, workers, fmt, output)
    else:
        facts = read_data(plan, decode)
        chosen = published_networks() if against == "published" else sample(searched, plan, facts)
        fresh = Check(Path(), plan, facts, chosen, where)
        for way in plan.ways.values():
            for candidate in chosen:
                as_trained(candidate.spec, way, facts[way.dataset])
        files = {"space.toml": text, **copies, CHECK.marker: to_json(fresh.content())}
        directory = CHECK.make(reports, name, default, force, files)
        with CHECK.lock(directory):
            _run(Check(directory, plan, facts, fresh.networks, where), workers, fmt, output)


def _refuse_sampling(given: Mapping[str, object]) -> None:
    """Options of a check against long trainings, which one against published results would pass over."""
    if excess := [option for option, value in given.items() if value is not None]:
        raise BadInputError(
            f"{', '.join(excess)}: nothing is sampled or trained long against published results", "leave it out"
        )


def _left(directory: Path, space: SearchSpace, plan: Plan) -> Check:
    """The check as it was left. Raises ``BadInputError`` when it is another plan."""
    from meliuscli.search.check import read_check

    left = read_check(directory, space)
    if (difference := plan.differs_from(left.plan)) is not None:
        raise BadInputError(
            f"{directory} was made with another setting: {difference}",
            f"repeat its command with --resume: {left.origin['command']}",
        )
    return left


def _resumed(left: Check, plan: Plan, facts: dict[str, DataFacts], where: dict[str, Any]) -> Check:
    """The check with what this plan has more. Raises ``BadInputError`` when its data are others."""
    from meliuscli.search.check import Check, as_trained

    for dataset, facts_then in left.data.items():
        here = facts[dataset]
        if (here.digest, here.left_out) != (facts_then.digest, facts_then.left_out):
            raise BadInputError(f"{left.directory} was made with other data: {dataset} differs")
    for candidate in left.networks:
        for way in plan.ways.values():
            as_trained(candidate.spec, way, facts[way.dataset])
    made, now = ({key: origin[key] for key in ("versions", "machine")} for origin in (left.origin, where))
    if made != now:
        talk("note: versions or machine differ from when this check was made; results may differ too")
    origin = left.origin if made == now else {**left.origin, "resumed_with": now}
    return Check(left.directory, plan, facts, left.networks, origin, left.trainings)


def _run(check: Check, workers: int | None, fmt: Format, output: Path | None) -> None:
    asked = check.asked()
    done = sum(check.outcome(training) is not None for training in asked)
    check.save()
    try:
        with Progress("training", len(asked), done) as progress:
            for training, fields in check.run(workers or os.cpu_count() or 1):
                done += 1
                what = f"{training.way}, seed {training.seed}: {training.candidate.spec.summary()}"
                score = fields.get("reason") or f"{100 * fields['validation_top1']:.2f} %"
                progress.step(f"{what}, {format_count(training.candidate.ops)} OPs: {score}")
        with status("writing the report"):
            reported = _reported(check)
    except KeyboardInterrupt:
        kept = f"interrupted; {done} of {len(asked)} trainings are kept in {check.directory}"
        command = shlex.join(["meliuscli", *sys.argv[1:]])
        raise InterruptedByUser(kept, f"continue with: {resume_check(check.directory, command)}") from None
    if fmt == "json":
        answer(to_json(reported.value), output)
    else:
        answer_tables([reported.table], fmt, output)
    talk(f"written: {check.directory} (report.md, check.csv, check.png, check.json)")
    if reported.num_judged < 4:
        how = "long" if check.plan.against == "long" else "in any way"
        raise FailedError(f"fewer than 4 networks could be trained {how}: nothing can be said of any proxy")


def _reported(check: Check) -> Reported:
    """The answer, when the report is written."""
    if check.plan.against == "published":
        from meliuscli.report.trial import write_trial
        from meliuscli.search.trial import trial_rows

        return write_trial(check, trial_rows(check))
    from meliuscli.report.check import write_report
    from meliuscli.search.verdicts import rows

    return write_report(check, rows(check))
