"""``meliuscli train``: train one network from several seeds and write the result down."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meliuscli.arch.adapt import at_input, narrowed
from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import NamedArch, load_arch, parse_overrides
from meliuscli.cli import options
from meliuscli.cli.console import Progress, answer, answer_tables, status, talk
from meliuscli.errors import FailedError, InterruptedByUser
from meliuscli.report.tables import Column, Table, to_json
from meliuscli.runs import new_id, record_path, weights_path

if TYPE_CHECKING:
    from torch import nn

    from meliuscli.training.recipe import Recipe
    from meliuscli.training.run import RunResult


def train(
    arch: options.TrainArch,
    set_: options.Set = None,
    dataset: Annotated[str, typer.Option("--dataset", help="A data set's name (meliuscli list datasets).")] = (
        "fashion-mnist-mini"
    ),
    data: options.Data = None,
    recipe_name: Annotated[
        str, typer.Option("--recipe", help="short, paper (MeliusNet's own), paper-meliusnet59, or a TOML file.")
    ] = "short",
    epochs: Annotated[
        float | None, typer.Option("--epochs", help="Instead of the recipe's.", show_default=False)
    ] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", show_default=False)] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", show_default=False)] = None,
    recipe_set: Annotated[
        list[str] | None,
        typer.Option("--recipe-set", metavar="KEY=VALUE", help="Change a field of the recipe; repeatable."),
    ] = None,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, max=1000, help="How many trainings, from seeds 0, 1, ...")
    ] = 3,
    input_size: Annotated[
        int, typer.Option("--input-size", min=1, max=1024, help="Height and width to train at.")
    ] = 32,
    width_divisor: Annotated[
        int, typer.Option("--width-divisor", min=1, max=1024, help="Divide all widths by this.")
    ] = 1,
    weights: Annotated[
        bool, typer.Option("--weights/--no-weights", help="Write the trained weights beside the result.")
    ] = True,
    reports: Annotated[Path, typer.Option("--reports", help="Where the result is written.")] = Path("reports"),
    fmt: options.OutputFormat = "table",
    output: options.Output = None,
) -> None:
    """Train a network and report mean and spread over seeds.

    Inputs below 50 pixels take the thumbnail stem. The test split is scored once, at the end of each training."""
    from meliuscli.results import origin, write_json

    named = load_arch(arch, set_ or [])
    recipe = _recipe(recipe_name, recipe_set or [], epochs=epochs, batch_size=batch_size, learning_rate=learning_rate)
    run_id = new_id(named.spec.archid, dataset)
    keep = reports if weights else None
    trained, runs, digest, failure = _train_all(
        named, dataset, data, recipe, seeds, input_size, width_divisor, run_id, keep
    )
    if runs:
        summary = _summary(runs)
        result = {
            "id": run_id,
            "arch": named.name,
            "archid": named.spec.archid,
            "trained_as": trained.model_dump(mode="json"),
            "dataset": {"name": dataset, "digest": digest},
            "recipe": recipe.model_dump(mode="json"),
            **summary,
            "interrupted": isinstance(failure, InterruptedByUser),
            "failed": failure.message if isinstance(failure, FailedError) else None,
            "origin": origin(),
        }
        path = record_path(reports, run_id)
        write_json(path, result)
        if fmt == "json":
            answer(to_json(result), output)
        else:
            answer_tables([_table(named, trained, runs, summary)], fmt, output)
        talk(f"written: {path} (meliuscli show run:{run_id})")
    if failure is not None:
        raise failure


def _recipe(name: str, overrides: Sequence[str], **changes: Any) -> Recipe:
    from meliuscli.training.recipe import find_recipe

    given = {key: value for key, value in changes.items() if value is not None}
    return find_recipe(name, {**parse_overrides(overrides, "--recipe-set"), **given})


def _train_all(
    named: NamedArch,
    dataset: str,
    data: Path | None,
    recipe: Recipe,
    seeds: int,
    input_size: int,
    divisor: int,
    run_id: str,
    keep: Path | None,
) -> tuple[ArchSpec, list[RunResult], str, FailedError | InterruptedByUser | None]:
    """The network as trained, finished runs, the data's digest, and what ended it early, if anything."""
    with status("loading torch and the data"):
        from meliuscli.data.batches import prepare
        from meliuscli.data.catalog import load_dataset
        from meliuscli.training.loop import EpochMetrics
        from meliuscli.training.run import train_once
        from meliuscli.training.weights import save_weights

        loaded = load_dataset(dataset, data)
        spec = at_input(named.spec, loaded.num_classes, loaded.channels, input_size)
        spec = narrowed(spec, divisor, "--width-divisor")
        prepared = prepare(loaded, input_size)
    runs: list[RunResult] = []
    validations = len(recipe.validation_steps(len(loaded.train)))
    with Progress("epoch", validations * seeds) as progress:

        def show(metrics: EpochMetrics) -> None:
            progress.step(
                f"seed {len(runs)} epoch {metrics.epoch:.3g}: train loss {metrics.train_loss:.4f},"
                f" validation loss {metrics.validation_loss:.4f}, top-1 {100 * metrics.validation_top1:.2f} %"
            )

        try:
            for seed in range(seeds):

                def save(network: nn.Module, seed: int = seed) -> None:
                    if keep is not None:
                        save_weights(network, spec, weights_path(keep, run_id, seed))

                runs.append(train_once(spec, prepared, recipe, seed, score_test=True, on_epoch=show, on_end=save))
                if runs[-1].is_at_chance(loaded.num_classes, len(loaded.validation)):
                    top1 = f"{100 * runs[-1].last.validation_top1:.2f} %"
                    raise FailedError(
                        f"seed {seed}: validation top-1 {top1} is no better than chance: a failed run",
                        "train longer, or with another learning rate",
                    )
        except FailedError as error:
            return spec, runs, loaded.digest, error
        except KeyboardInterrupt:
            kept = f"interrupted; {len(runs)} of {seeds} trainings were finished and are kept"
            return spec, runs, loaded.digest, InterruptedByUser(kept)
    return spec, runs, loaded.digest, None


def _summary(runs: list[RunResult]) -> dict[str, Any]:
    from meliuscli.training.run import mean_and_spread

    validation = mean_and_spread([run.last.validation_top1 for run in runs])
    test = mean_and_spread([run.test_top1 for run in runs if run.test_top1 is not None])
    return {
        "n": len(runs),
        "validation_top1": {"mean": validation[0], "spread": validation[1]},
        "test_top1": {"mean": test[0], "spread": test[1]},
        "runs": [run.fields() for run in runs],
    }


def _table(named: NamedArch, trained: ArchSpec, runs: list[RunResult], summary: dict[str, Any]) -> Table:
    def percent(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.2f}"

    columns = ("validation top-1 %", "test top-1 %", "train loss", "seconds", "images/s")
    rows = tuple(
        (
            f"seed {run.seed}",
            percent(run.last.validation_top1),
            percent(run.test_top1),
            f"{run.last.train_loss:.4f}",
            f"{run.seconds:.1f}",
            f"{run.images_per_second:.0f}",
        )
        for run in runs
    )

    def both(key: str) -> str:
        spread = summary[key]["spread"]
        return percent(summary[key]["mean"]) + ("" if spread is None else f" ± {percent(spread)}")

    spec_text = f"{trained.input_channels}x{trained.input_size}x{trained.input_size}, {trained.num_classes} classes"
    return Table(
        f"{named.name} trained at {spec_text}",
        (Column("run", numeric=False), *(Column(name) for name in columns)),
        rows,
        total=(f"mean, n={len(runs)}", both("validation_top1"), both("test_top1"), "", "", ""),
        notes=("± is the sample standard deviation over seeds; test is scored once, at the end of each training.",),
    )
