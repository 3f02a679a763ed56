"""``meliuscli search``: the best networks of a space under a budget of OPs, or of measured latency."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from meliuscli.cli import options
from meliuscli.cli.console import Progress, answer, answer_tables, status, talk
from meliuscli.cli.folders import Kind
from meliuscli.errors import BadInputError, FailedError, InterruptedByUser, MissingError, SpecError
from meliuscli.report.tables import Format, to_json
from meliuscli.units import format_count, format_ms, parse_bytes, parse_count, parse_duration, parse_latency

if TYPE_CHECKING:
    from meliuscli.data.splits import Cut
    from meliuscli.report.study import StudyReport
    from meliuscli.search.finals import Entrant, Stage, Standing
    from meliuscli.search.space import Candidate, SearchSpace
    from meliuscli.search.study import Settings, Study


STUDY = Kind("study", "--study", "study.json")


def search(
    context: typer.Context,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            help="At the target input: OPs (5e8, 500M; several: 1.5e8,2e8), or latency (5ms).",
            show_default=False,
        ),
    ] = None,
    objectives: Annotated[
        Literal["accuracy,ops", "accuracy,latency"],
        typer.Option("--objectives", help="latency: of packed inference on this machine, one image, one thread."),
    ] = "accuracy,ops",
    objective: Annotated[
        Literal["belief", "proxy"] | None,
        typer.Option(
            "--objective",
            help="belief: ImageNet top-1 as the evidence has it; proxy: accuracy on the proxy's data (default: belief"
            " where the evidence covers the space).",
            show_default=False,
        ),
    ] = None,
    max_size: Annotated[
        str | None, typer.Option("--max-size", help="Largest size of a network (4MiB).", show_default=False)
    ] = None,
    max_params: Annotated[
        str | None, typer.Option("--max-params", help="Most params of a network (1e7).", show_default=False)
    ] = None,
    space: Annotated[str, typer.Option("--space", help="A search space's name or TOML file.")] = "meliusnet",
    trials: Annotated[int, typer.Option("--trials", min=1, max=100_000, help="Candidates to train.")] = 16,
    timeout: Annotated[
        str, typer.Option("--timeout", help="Start no new candidate after this (5m, 2h); the finals follow.")
    ] = "5m",
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="Everything random follows from it.")] = 0,
    sampler: Annotated[
        Literal["cost-aware", "tpe", "gp", "nsga2", "random"],
        typer.Option("--sampler", help="How candidates are proposed."),
    ] = "cost-aware",
    finalists: Annotated[int, typer.Option("--finalists", min=0, max=100, help="Found networks in the finals.")] = 3,
    final_seeds: Annotated[int, typer.Option("--final-seeds", min=1, max=100, help="Trainings a finalist.")] = 3,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, max=256, help="Trainings at a time (default: cores).", show_default=False),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", help="Data set of the proxy (default: the space's).", show_default=False),
    ] = None,
    data: options.Data = None,
    skip_bad: options.SkipBad = False,
    transfer: Annotated[
        str | None,
        typer.Option(
            "--transfer",
            metavar="DATASET",
            help="Also train finalists and published networks on data that the search never used: an image folder, a data"
            " set's name, or NAME:DIR.",
            show_default=False,
        ),
    ] = None,
    device: options.Device = "cpu",
    study: Annotated[
        str | None,
        typer.Option("--study", help="Name of the study's folder (default: space and budget).", show_default=False),
    ] = None,
    reports: Annotated[Path, typer.Option("--reports", help="Where study folders are.")] = Path("reports"),
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue a study with the settings it was made with; --trials may be more."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Delete a study of that name first.")] = False,
    fmt: options.OutputFormat = "table",
    output: options.Output = None,
) -> None:
    """Search a space for the best networks within a budget, and compare them with the published ones.

    The search maximises what is believed of ImageNet top-1 where published results say something of the space's
    networks, else the accuracy on the proxy's data. It writes reports/STUDY with report.md, trials.csv, front.csv,
    pareto.png, best.toml and all that repeats it.

    Example: meliuscli search --budget 1.5e8,2e8 --max-size 4MiB"""
    limit = parse_duration(timeout, "--timeout")
    if resume and force:
        raise BadInputError("--resume and --force exclude each other")
    latency = objectives == "accuracy,latency"
    if budget is None and resume and study is None:
        raise BadInputError("--resume: which study?", STUDY.named_in(reports))
    if budget is None and not resume:
        raise BadInputError("--budget is missing", f"for example --budget {'5ms' if latency else '5e8'}")
    # With its name given, a study says in which unit the budget is.
    budgets = None if budget is None or (resume and study) else _parse_budgets(budget, latency)
    with status("loading"):
        from meliuscli.cli.costs import check_budget, measure_latencies
        from meliuscli.data.names import DEFAULT_DATASET
        from meliuscli.results import origin, write_json
        from meliuscli.search.cost import OPS
        from meliuscli.search.limits import Limit, check_limits
        from meliuscli.search.space import load_space
        from meliuscli.search.study import MIN_LAG, Settings
        from meliuscli.training.execution import find_device

    num_workers = workers or os.cpu_count() or 1
    if resume:
        default = "" if budgets is None else _default_name(Path(space).stem, budgets[-1], latency)
        directory = STUDY.find(reports, study, default)
        settings, searched, where = _read_study(directory)
        if budget is not None and study:
            by_latency = latency if _given(context, "objectives") else settings.objective == "latency"
            budgets = _parse_budgets(budget, by_latency)
        try:
            settings = _with_given(context, directory, settings, budgets)
        except BadInputError as error:
            other = "leave it out to go on, or begin another study with --study NAME"
            raise BadInputError(error.message, error.hint or other) from None
        settings = _with_transfer(settings, searched, transfer, directory)
        trained_on = {"dataset": _dataset(searched, settings), **_transfer_facts(searched, settings)}
        with STUDY.lock(directory):
            where = _check_origin(directory, where, {**origin(), **trained_on})
            write_json(directory / "study.json", {"settings": asdict(settings), "origin": where})
            report = _run(directory, settings, searched, num_workers, limit, where)
    else:
        assert budgets is not None
        limit_of_cost = budgets[-1]
        name, searched, text = load_space(space)
        if searched.proxy.seeds > 1:
            raise SpecError(
                "proxy.seeds", "a search trains each candidate from one seed", "leave it out, or set it to 1"
            )
        own_data = data is not None and dataset is None and searched.proxy.dataset == DEFAULT_DATASET
        dataset = "imagefolder" if own_data else dataset
        if dataset is not None:
            searched = searched.with_dataset(dataset)
        if searched.known_outside:
            talk(f"note: {', '.join(searched.known_outside)}: known, but not in this space, and left out")
        lag, data_dir = max(MIN_LAG, 2 * num_workers), str(data.resolve()) if data else None
        settings = Settings(
            *(name, limit_of_cost, trials, seed, sampler, finalists, final_seeds, lag, data_dir),
            objective="latency" if latency else "ops",
            skip_bad=skip_bad,
            dataset=dataset,
            budgets=budgets if len(budgets) > 1 else (),
            max_size=None if max_size is None else parse_bytes(max_size, "--max-size"),
            max_params=None if max_params is None else parse_count(max_params, "--max-params"),
        )
        maximises, why_proxy = _choose_objective(objective, searched, settings)
        settings = replace(settings, maximises=maximises)
        files, about = measure_latencies(searched, settings) if latency else ({}, {})
        if not latency:
            check_budget(searched, budgets[0], OPS)
        settings = replace(settings, device=find_device(device))
        settings = _with_transfer(settings, searched, transfer)
        if settings.limits:
            check_limits(searched, [Limit("--budget", OPS.of, budgets[0], _ops_text), *settings.limits][latency:])
        where = {**origin(), "dataset": _dataset(searched, settings), **about}
        where |= {"why_proxy": why_proxy} if why_proxy else {}
        where |= _transfer_facts(searched, settings)
        files |= {"space.toml": text, "study.json": to_json({"settings": asdict(settings), "origin": where})}
        directory = STUDY.make(reports, study, _default_name(name, limit_of_cost, latency), force, files)
        with STUDY.lock(directory):
            report = _run(directory, settings, searched, num_workers, limit, where)
    _print(report, fmt, output)


def _parse_budgets(budget: str, latency: bool) -> tuple[float, ...]:
    """All budgets, the smallest first."""
    if not latency and re.search(r"[0-9]\s*[mu]?s\s*(,|$)", budget):
        raise BadInputError(f"--budget {budget}: a time is a budget of latency", "add --objectives accuracy,latency")
    parse = parse_latency if latency else parse_count
    return tuple(sorted({parse(part, "--budget") for part in budget.split(",")}))


def _ops_text(ops: float) -> str:
    return f"{format_count(ops)} OPs"


def _choose_objective(
    asked: str | None, space: SearchSpace, settings: Settings
) -> tuple[Literal["belief", "proxy"], str]:
    """What the search maximises, and why it is not the belief where that was not the user's wish.

    Raises ``BadInputError`` where beliefs are asked for and there are none."""
    from meliuscli.search.goal import why_no_belief

    if asked == "proxy":
        return "proxy", ""
    reason = why_no_belief(space)
    if reason is None and settings.data_dir is not None and asked is None:
        reason = "the target is the data of --data; --objective belief searches for ImageNet"
    if reason is None:
        return "belief", ""
    if asked == "belief":
        raise BadInputError(f"--objective belief: nothing is believed of this space: {reason}", "use --objective proxy")
    return "proxy", reason


def _default_name(space: str, budget: float, latency: bool) -> str:
    return f"{space}-{format_ms(budget)}ms" if latency else f"{space}-{format_count(budget)}"


def _dataset(space: SearchSpace, settings: Settings) -> dict[str, Any]:
    """What the origin says of the proxy's data."""
    cuts = (space.proxy.recipe.cut, space.final.recipe.cut)
    return _facts(space.proxy.dataset, settings.data, cuts, space.proxy.input_size, settings.skip_bad)


def _transfer_facts(space: SearchSpace, settings: Settings) -> dict[str, Any]:
    """What the origin says of the data of ``--transfer``; nothing where there are none."""
    if settings.transfer is None:
        return {}
    way = space.transfer
    place = settings.transfer_data
    return {"transfer": _facts(settings.transfer, place, (way.recipe.cut,), way.input_size, settings.skip_bad)}


def _facts(
    dataset: str, place: Path | None, cuts: tuple[Cut, ...], input_size: int, skip_bad: bool
) -> dict[str, str | int]:
    """Name and digest of data, and how many files were left out, where they may be. Image folders are decoded here,
    once: the workers then find them in memory-mapped files."""
    from meliuscli.cli.datasets import prepare_and_tell
    from meliuscli.data.batches import num_left_out
    from meliuscli.data.catalog import load_dataset
    from meliuscli.data.folder import ImageFolder

    digests, left_out = [], dict[str, int]()
    for cut in dict.fromkeys(cuts):
        loaded = load_dataset(dataset, place, cut, skip_bad)
        if isinstance(loaded, ImageFolder):
            prepared = prepare_and_tell(loaded, input_size)
            left_out = {"left_out": num_left_out(loaded, prepared)} if skip_bad else {}
        digests.append(loaded.digest)
    return {"name": dataset, "digest": "-".join(digests), **left_out}


def _with_transfer(settings: Settings, space: SearchSpace, asked: str | None, made: Path | None = None) -> Settings:
    """The settings with the data of ``--transfer``, checked before anything is trained. A study that was ``made`` without
    may be given some, but no others."""
    from meliuscli.data.catalog import data_shape
    from meliuscli.data.names import DATASETS, IMAGE_FOLDER

    if asked is None:
        return settings
    name, _, place = asked.partition(":")
    if name not in DATASETS:
        if not Path(asked).is_dir():
            raise MissingError(
                f"--transfer {asked}: neither a data set nor a directory", f"data sets: {', '.join(DATASETS)}"
            )
        name, place = IMAGE_FOLDER, asked
    directory = str(Path(place).resolve()) if place else None
    if (name, directory) == (settings.transfer, settings.transfer_dir):
        return settings
    if settings.transfer is not None:
        raise BadInputError(f"{made} was made with --transfer {settings.transfer_dir or settings.transfer}")
    if (name, directory) == (space.proxy.dataset, settings.data_dir):
        raise BadInputError(f"--transfer {asked}: the search itself uses these data", "name others")
    space.check_way(space.transfer, *data_shape(name, None if directory is None else Path(directory)))
    return replace(settings, transfer=name, transfer_dir=directory)


def _with_given(
    context: typer.Context, directory: Path, settings: Settings, budgets: tuple[float, ...] | None
) -> Settings:
    """The settings of a study with more trials if asked; another value of anything else is refused."""
    from meliuscli.training.execution import find_device

    all_budgets = settings.budgets or (settings.budget,)
    if budgets not in (None, all_budgets):
        latency = settings.objective == "latency"
        made_with = ",".join(_default_name("", budget, latency).removeprefix("-") for budget in all_budgets)
        raise BadInputError(f"{directory} was made with --budget {made_with}")
    for name, parse in (("max_size", parse_bytes), ("max_params", parse_count)):
        option, value = f"--{name.replace('_', '-')}", getattr(settings, name)
        if _given(context, name) and parse(context.params[name], option) != value:
            raise BadInputError(f"{directory} was made {'without' if value is None else 'with another'} {option}")
    if _given(context, "objective") and context.params["objective"] != settings.maximises:
        raise BadInputError(f"{directory} was made with --objective {settings.maximises}")
    if _given(context, "objectives") and context.params["objectives"] != f"accuracy,{settings.objective}":
        raise BadInputError(f"{directory} was made with --objectives accuracy,{settings.objective}")
    if _given(context, "device") and find_device(context.params["device"]) != settings.device:
        raise BadInputError(f"{directory} was made with --device {settings.device}")
    for name in ("seed", "sampler", "finalists", "final_seeds", "trials", "dataset"):
        value, made = context.params[name], getattr(settings, name)
        if not _given(context, name) or value == made:
            continue
        if name != "trials" or value < made:
            option = f"--{name.replace('_', '-')}"
            raise BadInputError(
                f"{directory} was made {f'without {option}' if made is None else f'with {option} {made}'}"
            )
        settings = replace(settings, trials=value)
    if _given(context, "space") and Path(context.params["space"]).stem != settings.space:
        raise BadInputError(f"{directory} was made with --space {settings.space}")
    if _given(context, "skip_bad") and not settings.skip_bad:
        raise BadInputError(f"{directory} was made without --skip-bad")
    if _given(context, "data"):
        raise BadInputError("--data: a study goes on with the data it was made with", "leave it out")
    return settings


def _given(context: typer.Context, name: str) -> bool:
    """Was the option on the command line?"""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _run(
    directory: Path, settings: Settings, space: SearchSpace, workers: int, timeout: float, where: dict[str, Any]
) -> StudyReport:
    from meliuscli.cli.costs import study_cost
    from meliuscli.report.study import gather, write_report
    from meliuscli.results import cannot_write
    from meliuscli.search.finals import choose_entrants, finals_of, transfer_of
    from meliuscli.search.study import Study

    try:
        study = Study(directory, settings, space, study_cost(directory, settings, where))
        talk(_first_line(settings, space, where))
        if study.num_foreign:
            talk(f"note: trials in {directory} that other programs made, and that are left out: {study.num_foreign}")
    except OSError as error:
        raise cannot_write(directory, error) from None
    try:
        with Progress("trial", settings.trials, len(study.records())) as progress:
            for record in study.run(workers, timeout):
                what = record.known_as or record.candidate.spec.summary()
                score = record.reason if record.accuracy is None else f"{100 * record.accuracy:.2f} %"
                cost = f"{study.cost.text(study.cost.of(record.candidate))} {study.cost.unit}"
                progress.step(f"{what}: {cost}, {score}")
        _explain_short(study)
        entrants = choose_entrants(study)
        _run_stage("final", finals_of(study), entrants, workers)
        if (transfer := transfer_of(study)) is not None:
            _run_stage("transfer", transfer, entrants, workers)
        with status("writing the report"):
            report = gather(study, where)
            write_report(report)
    except KeyboardInterrupt:
        kept = f"interrupted; {len(study.records())} of {settings.trials} trials are kept in {directory}"
        raise InterruptedByUser(kept, _continue_with(directory)) from None
    except OSError as error:
        raise cannot_write(directory, error) from None
    return report


def _first_line(settings: Settings, space: SearchSpace, where: dict[str, Any]) -> str:
    """What the answer will be about, before anything is trained."""
    if settings.maximises == "belief":
        from meliuscli.evidence.belief import sentence

        return f"this search answers for ImageNet; {sentence()}"
    reason = f": {where['why_proxy']}" if where.get("why_proxy") else ""
    return f"this search answers for the proxy's data alone, {space.proxy.dataset}{reason}"


def _run_stage(noun: str, stage: Stage, entrants: list[Entrant], workers: int) -> None:
    with Progress(noun, len(entrants) * stage.seeds, stage.num_done(entrants)) as progress:
        for entrant, seed in stage.run(entrants, workers):
            progress.step(f"{entrant.name}, seed {seed}")


def _explain_short(study: Study) -> None:
    """Say why fewer trials than asked for were trained, and stop when there is nothing to go on with."""
    records = study.records()
    if all(record.accuracy is None for record in records):
        reason = records[-1].reason if records else "the timeout came first"
        raise FailedError(f"no candidate could be trained: {reason}", _continue_with(study.directory))
    if len(records) < study.settings.trials:
        talk(
            f"note: {len(records)} of {study.settings.trials} trials: the timeout came, or the space is exhausted; where"
            " the timeout comes depends on this machine's speed, so another run may differ"
        )


def _continue_with(directory: Path) -> str:
    place = "" if directory.parent == Path("reports") else f" --reports {directory.parent}"
    return f"continue with: meliuscli search --resume --study {directory.name}{place}"


def _read_study(directory: Path) -> tuple[Settings, SearchSpace, dict[str, Any]]:
    from pydantic import TypeAdapter

    from meliuscli.search.space import load_space
    from meliuscli.search.study import Settings

    path = directory / "study.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        settings, made = TypeAdapter(Settings).validate_python(stored["settings"]), dict(stored["origin"])
        _ = made["command"], made["time"], made["dataset"], made["versions"], made["machine"]
    except OSError as error:
        raise MissingError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise BadInputError(f"{path}: not a study's settings: {error}") from None
    _, space, _ = load_space(str(directory / "space.toml"))
    if settings.dataset is not None:
        space = space.with_dataset(settings.dataset)
    return settings, space, made


def _check_origin(directory: Path, made: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The origin that the study was made with; other data are refused, other versions noted."""
    for use in ("dataset", "transfer"):
        if use in made and made[use] != now.get(use):
            raise BadInputError(
                f"{directory} was made with other data", f"made with {made[use]}, now {now.get(use, 'nothing')}"
            )
    made = {**made, **({"transfer": now["transfer"]} if "transfer" in now else {})}
    if made["versions"] != now["versions"] or made["machine"] != now["machine"]:
        talk("note: versions or machine differ from when this study was made; results may differ too")
        made = {**made, "resumed_with": {"versions": now["versions"], "machine": now["machine"]}}
    return made


def _costs(report: StudyReport, candidate: Candidate) -> dict[str, float]:
    return {report.cost.key: report.cost.of(candidate), "ops": candidate.ops}


def _standings(report: StudyReport, table: Sequence[Standing]) -> list[dict[str, Any]]:
    return [
        {
            "name": s.entrant.name,
            "archid": s.entrant.candidate.archid,
            **_costs(report, s.entrant.candidate),
            "validation_top1": s.validation,
            "test_top1": s.test,
        }
        for s in table
    ]


def _print(report: StudyReport, fmt: Format, output: Path | None) -> None:
    from meliuscli.report.study import (
        best_found,
        finals_table,
        front_table,
        transfer_lines,
        transfer_table,
        verdict_lines,
    )

    if fmt == "json":
        value = {
            "study": str(report.directory),
            "front": [
                {
                    "trial": r.number,
                    "archid": r.candidate.archid,
                    **_costs(report, r.candidate),
                    "proxy_top1": r.accuracy,
                    "believed": report.beliefs[r.candidate.archid].fields() if report.beliefs else None,
                }
                for r in report.front
            ],
            "finals": _standings(report, report.standings),
            "transfer": _standings(report, report.transfer),
            "verdicts": verdict_lines(report) + (transfer_lines(report) if report.transfer else []),
        }
        answer(to_json(value), output)
    elif fmt == "csv":
        answer((report.directory / "front.csv").read_text(encoding="utf-8"), output)
    else:
        transfer = [transfer_table(report)] if report.transfer else []
        answer_tables([front_table(report), *transfer, finals_table(report)], fmt, output)
    best = ", best.toml" if best_found(report) is not None else ""
    talk(f"written: {report.directory} (report.md, trials.csv, front.csv, pareto.png{best})")
