"""``meliuscli show``: one network, drawn, with what is published of it and its TOML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meliuscli.arch.spec import ArchSpec
from meliuscli.cli import options
from meliuscli.cli.console import answer, answer_tables, status, talk
from meliuscli.cli.networks import count_named, load_network
from meliuscli.errors import BadInputError
from meliuscli.exchange.headers import names_file, read_header
from meliuscli.report.count import count_object, count_table, make_view
from meliuscli.report.drawing import drawing_table
from meliuscli.report.evaluation import preprocessing_table
from meliuscli.report.published import published_object, published_table
from meliuscli.report.runs import run_object, run_table
from meliuscli.report.tables import Format, to_json
from meliuscli.report.works import find_work
from meliuscli.runs import REPORTS, load_run
from meliuscli.work.folders import resume_check, resume_study


def show(
    arch: Annotated[
        str,
        typer.Argument(
            help="A name (meliuscli list), a TOML file, FILE.packed.safetensors, or run:ID, study:NAME, check:NAME.",
            show_default=False,
        ),
    ],
    set_: options.Set = None,
    input_: options.Input = None,
    toml: Annotated[bool, typer.Option("--toml", help="Only the TOML, for a file of your own.")] = False,
    reports: Annotated[Path, typer.Option("--reports", help="Where recorded runs lie.")] = REPORTS,
    fmt: options.OutputFormat = "table",
    output: options.Output = None,
) -> None:
    """Show a network: its stages drawn, published figures held against our count, and its TOML. Or a recorded training, a
    search's study or a check of proxies: what came of it, how far it is, and what goes on with it."""
    kind, _, name = arch.partition(":")
    if kind.lower() in ("study", "check"):
        _show_work(kind.lower(), name, reports, fmt, output)
        return
    if arch.lower().startswith("run:"):
        run = load_run(arch.partition(":")[2], reports, unfinished=True)
        if set_ or input_ is not None:
            raise BadInputError(f"--set and --input change a network, and {arch} is a training", "leave them out")
        if toml:
            _print_toml(load_network(arch, (), reports).spec, fmt, output)
        elif fmt == "json":
            answer(to_json(run_object(run)), output)
        else:
            answer_tables([run_table(run)], fmt, output)
        return
    view = make_view("melius", None, None)
    network = count_named(arch, set_ or [], input_, view.storage)
    assert network.spec is not None
    text = network.spec.to_toml()
    if toml:
        _print_toml(network.spec, fmt, output)
    elif fmt == "json":
        published = list(map(published_object, network.published))
        value = {**count_object(network, "stage", view, None), "published": published}
        answer(to_json({**value, "spec": network.spec.model_dump(mode="json")}), output)
    elif fmt == "csv":
        answer_tables([count_table(network, "stage", view)], fmt, output)
    else:
        tables = [drawing_table(network)]
        if network.published:
            tables.append(published_table(network))
        if names_file(arch) and (how := read_header(Path(arch)).preprocessing):
            tables.append(preprocessing_table(how))
        answer_tables(tables, fmt, output, after=f"\n{text}" if fmt == "table" else "")


def _show_work(kind: str, name: str, reports: Path, fmt: Format, output: Path | None) -> None:
    directory = find_work(kind, name, reports)
    with status("loading"):
        if kind == "study":
            from meliuscli.report.study import read_study
            from meliuscli.report.study_tables import study_tables, study_value

            report, state = read_study(directory)
            value, tables, command = study_value(report), study_tables(report), report.origin["command"]
            resume = resume_study(directory)
        else:
            from meliuscli.report.trial import read_reported

            reported, state, command = read_reported(directory)
            value, tables, resume = reported.value, [reported.table], resume_check(directory, command)
    if fmt == "json":
        answer(to_json({**value, "state": state, "resume": resume}), output)
        return
    answer_tables(tables, fmt, output)
    talk(f"made by: {command}\n{state}; go on with: {resume}")


def _print_toml(spec: ArchSpec, fmt: Format, output: Path | None) -> None:
    if fmt != "table":
        raise BadInputError("--toml has a format of its own: leave --format out")
    answer(spec.to_toml(), output)
