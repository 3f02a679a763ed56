"""The Python API: what the commands do, as functions of values. ``import meliuscli as mc``, then ``mc.count(...)``.

Networks are names (``"meliusnet29"``), TOML files, or specs as ``load`` gives them. All errors are ``MeliusError``: a
message, a hint and the exit code that the command would have. Long work tells a ``Listener``; nobody listens by default."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import NamedArch, load_arch, load_changed
from meliuscli.counting.analytic import count_spec
from meliuscli.counting.counts import Storage
from meliuscli.report.costs import NetworkCosts
from meliuscli.report.count import Counted, make_view
from meliuscli.report.tables import Table
from meliuscli.work.folders import CHECK, STUDY
from meliuscli.work.listener import SILENT, Listener
from meliuscli.work.listener import Steps as Steps

if TYPE_CHECKING:
    from meliuscli.evidence.belief import Belief
    from meliuscli.exchange.evaluation import Classified, Evaluation
    from meliuscli.export.onnx import Agreement
    from meliuscli.report.check_report import CheckReport
    from meliuscli.report.study import StudyReport
    from meliuscli.runs import Run
    from meliuscli.search.begin import Begun
    from meliuscli.search.check import Check
    from meliuscli.search.checking import AskedCheck
    from meliuscli.search.plan import Against
    from meliuscli.search.sampler import SamplerName
    from meliuscli.training.execution import DeviceName
    from meliuscli.training.recipe import Recipe
    from meliuscli.training.start import Ready
    from meliuscli.training.trained import Trained

Network = str | Path | ArchSpec


def load(network: Network, **fields: Any) -> ArchSpec:
    """The spec of a network, with some fields changed: ``load("meliusnet22", growth_rate=48)``.

    Raises ``BadInputError`` for an unknown name or file, ``SpecError`` for a network that cannot exist."""
    if isinstance(network, ArchSpec):
        return network.replace(**fields) if fields else network
    return load_changed(str(network), fields).spec


def count(
    network: Network, *, convention: str = "melius", float_bits: int | None = None, bn_params: int | None = None
) -> NetworkCosts:
    """What a network costs, by arithmetic on its spec. Another input is another spec: ``load(network, input_size=128)``.

    Raises as ``load``, and ``BadInputError`` for an unknown convention."""
    view = make_view(convention, float_bits, bn_params)
    return NetworkCosts(_counted(network, view.storage), view)


def compare(
    *networks: Network, convention: str = "melius", float_bits: int | None = None, bn_params: int | None = None
) -> Table:
    """Networks side by side, ratios to the first, with published figures: what ``meliuscli compare`` prints. ``records``
    of the table are exact values. Raises as ``count``."""
    from meliuscli.report.compare import compare_table

    view = make_view(convention, float_bits, bn_params)
    return compare_table([_counted(network, view.storage) for network in networks], view)


def predict(network: Network) -> Belief:
    """The ImageNet top-1 (percent) that a network is believed to reach: ``top1``, ``low``, ``high`` of the 90 % interval.

    Raises as ``load``, and ``BadInputError`` where the evidence does not cover the network."""
    from meliuscli.evidence.belief import believe

    return believe([load(network)])[0]


def search(
    budget: float | Sequence[float],
    space: str | Path = "meliusnet",
    *,
    cost: Literal["ops", "latency"] = "ops",
    objective: Literal["belief", "proxy"] | None = None,
    max_size: float | None = None,
    max_params: float | None = None,
    trials: int = 20,
    timeout: float | None = None,
    seed: int = 0,
    sampler: SamplerName = "cost-aware",
    finalists: int = 5,
    final_seeds: int = 3,
    workers: int | None = None,
    dataset: str | None = None,
    data: Path | None = None,
    skip_bad: bool = False,
    transfer: str | None = None,
    device: DeviceName = "cpu",
    reports: Path = Path("reports"),
    name: str | None = None,
    listener: Listener = SILENT,
) -> StudyReport:
    """The best networks of a space under a budget: what ``meliuscli search`` does, written to a folder in ``reports``.

    ``budget`` is in OPs at the target input, or in seconds with ``cost="latency"``; several budgets have an answer each.
    ``max_size`` is in bytes, ``timeout`` in seconds. Trainings run in spawned processes, so a script needs
    ``if __name__ == "__main__":``.

    Raises ``BadInputError``, ``SpecError`` or ``MissingError`` before anything is trained, ``InterruptedByUser`` on Ctrl-C
    with what is kept."""
    from meliuscli.search.begin import Asked, begin

    workers = workers or os.cpu_count() or 1
    asked = Asked(
        budgets=tuple(sorted(set(budget))) if isinstance(budget, Sequence) else (budget,),
        space=str(space),
        objective=cost,
        maximises=objective,
        max_size=max_size,
        max_params=max_params,
        trials=trials,
        seed=seed,
        sampler=sampler,
        finalists=finalists,
        final_seeds=final_seeds,
        dataset=dataset,
        data=data,
        skip_bad=skip_bad,
        transfer=transfer,
        device=device,
    )
    return conducted(begin(asked, workers, reports, name, listener=listener), False, workers, timeout, listener)


def resume_search(
    name: str,
    *,
    trials: int | None = None,
    transfer: str | None = None,
    timeout: float | None = None,
    workers: int | None = None,
    reports: Path = Path("reports"),
    listener: Listener = SILENT,
) -> StudyReport:
    """Go on with a study, finished or not, with the settings that it was made with: to more ``trials``, or to data to
    ``transfer`` to. Raises as ``search``, and ``BadInputError`` where there is no such study or its data have changed."""
    from meliuscli.search.begin import reopen, with_given

    given = {"transfer": transfer} | ({} if trials is None else {"trials": trials})
    begun = with_given(reopen(STUDY.find(reports, name, "")), given)
    return conducted(begun, True, workers or os.cpu_count() or 1, timeout, listener)


def conducted(begun: Begun, again: bool, workers: int, timeout: float | None, listener: Listener) -> StudyReport:
    """What is left of a study, trained and reported."""
    from meliuscli.report.study import gather
    from meliuscli.report.study_page import write_report
    from meliuscli.search.begin import go_on
    from meliuscli.search.conduct import conduct, first_line, open_study

    with STUDY.held(begun.directory):
        begun = go_on(begun, listener) if again else begun
        study = open_study(begun)
        listener.talk(first_line(begun))
        if study.num_foreign:
            listener.talk(
                f"note: trials that other programs put into {study.directory} are left out: {study.num_foreign}"
            )
        conduct(study, workers, timeout, listener)
        with listener.status("writing the report"):
            report = gather(study, begun.origin)
            write_report(report)
    return report


def train(
    network: Network,
    *,
    dataset: str = "fashion-mnist-mini",
    data: Path | None = None,
    skip_bad: bool = False,
    recipe: str | Recipe = "quick",
    seeds: int = 3,
    seed: int = 0,
    input_size: int = 32,
    width_divisor: int = 1,
    teacher: str | None = None,
    device: DeviceName = "auto",
    threads: int | None = None,
    weights: bool = True,
    reports: Path = Path("reports"),
    listener: Listener = SILENT,
) -> Run:
    """Train a network from ``seeds`` seeds, ``seed`` the first: what ``meliuscli train`` does. The record, with each seed's
    curve and what came of it, is ``fields`` of the result; weights lie beside it (``load_trained``). ``teacher`` is the
    recorded run (``"run:ID"``) to distil from.

    Raises as ``load``; ``MissingError`` for data that are not there; ``FailedError`` when a training diverges or ends at
    chance, and ``InterruptedByUser`` on Ctrl-C, after what was finished is recorded."""
    from meliuscli.training.recipe import find_recipe
    from meliuscli.training.start import Wanted, begin_run

    spec = load(network)
    named = NamedArch(spec.summary() if isinstance(network, ArchSpec) else load_arch(str(network)).name, spec)
    plan = find_recipe(recipe) if isinstance(recipe, str) else recipe
    sizes, how = (seeds, input_size, width_divisor), (weights, teacher, device)
    wanted = Wanted(named, dataset, data, skip_bad, plan, *sizes, *how, "off", threads=threads, first_seed=seed)
    return _trained(begin_run(wanted, reports, listener), listener)


def resume_train(
    run: str, *, data: Path | None = None, reports: Path = Path("reports"), listener: Listener = SILENT
) -> Run:
    """Go on with an unfinished run (``"run:ID"``) as it was begun; ``data`` is where its data are now.

    Raises as ``train``, and ``BadInputError`` where there is no such run, or its data have changed."""
    from meliuscli.training.start import resume_run

    return _trained(resume_run(run, data, reports, listener), listener)


def _trained(ready: Ready, listener: Listener) -> Run:
    from meliuscli.training.seeds import conduct_run

    run, failure = conduct_run(ready, listener)
    if failure is not None:
        raise failure
    assert run is not None
    return run


def check_proxy(
    space: str | Path = "meliusnet",
    *,
    networks: int | None = None,
    budget: int | None = None,
    changes: Path | None = None,
    long: str | Recipe | None = None,
    long_epochs: float | None = None,
    long_dataset: str | None = None,
    against: Against = "long",
    fractions: Sequence[float] | None = None,
    device: DeviceName = "cpu",
    data: Path | None = None,
    skip_bad: bool = False,
    seed: int = 0,
    workers: int | None = None,
    reports: Path = Path("reports"),
    name: str | None = None,
    listener: Listener = SILENT,
) -> CheckReport:
    """Does a short training rank a space's networks as a long one does, or as ImageNet does (``against="published"``)? What
    ``meliuscli check-proxy`` does, written to a folder in ``reports``: ``table``, and ``value`` with raw numbers.

    ``networks`` (24) are sampled, of at most ``budget`` OPs at the target input; ``changes`` is a TOML file with [long] and
    [proxies.NAME]; the long training is also read after ``fractions`` (0.25, 0.5) of its steps. Trainings run in spawned
    processes, so a script needs ``if __name__ == "__main__":``.

    Raises ``BadInputError``, ``SpecError`` or ``MissingError`` before anything is trained, ``InterruptedByUser`` on Ctrl-C
    with what is kept."""
    from meliuscli.search.checking import AskedCheck
    from meliuscli.training.recipe import find_recipe

    asked = AskedCheck(
        space=str(space),
        networks=networks,
        budget=budget,
        changes=changes,
        long=find_recipe(long) if isinstance(long, str) else long,
        long_epochs=long_epochs,
        long_dataset=long_dataset,
        against=against,
        device=device,
        data=data,
        skip_bad=skip_bad,
        fractions=None if fractions is None else tuple(fractions),
        seed=seed,
    )
    return checked_anew(asked, workers or os.cpu_count() or 1, reports, name, False, listener)


def resume_check(
    name: str,
    *,
    changes: Path | None = None,
    data: Path | None = None,
    workers: int | None = None,
    reports: Path = Path("reports"),
    listener: Listener = SILENT,
) -> CheckReport:
    """Go on with a check as it was begun, finished or not; ``changes`` may have more proxies, ``data`` is where its data are
    now. Raises as ``check_proxy``, and ``BadInputError`` where there is no such check or its data have changed."""
    given = {key: value for key, value in (("changes", changes), ("data", data)) if value is not None}
    return checked_again(name, given, workers or os.cpu_count() or 1, reports, listener)


def checked_anew(
    asked: AskedCheck, workers: int, reports: Path, name: str | None, force: bool, listener: Listener
) -> CheckReport:
    """A new check, trained and reported; ``force`` empties its folder first."""
    from meliuscli.search.checking import begin_check

    check = begin_check(asked, reports, name, force, listener)
    with CHECK.held(check.directory):
        return _checked(check, workers, listener)


def checked_again(
    name: str | None, given: Mapping[str, Any], workers: int, reports: Path, listener: Listener
) -> CheckReport:
    """What is left of a check, trained and reported. ``given`` are fields of an ``AskedCheck`` that are asked for anew."""
    from meliuscli.search.checking import default_check_name, go_on_check

    default = default_check_name(given.get("against", "long"), Path(given.get("space", "meliusnet")).stem)
    directory = CHECK.find(reports, name, default)
    with CHECK.held(directory):
        return _checked(go_on_check(directory, given, listener), workers, listener)


def _checked(check: Check, workers: int, listener: Listener) -> CheckReport:
    from meliuscli.report.check_report import write_check_report
    from meliuscli.search.checking import conduct_check

    conduct_check(check, workers, listener)
    with listener.status("writing the report"):
        return write_check_report(check)


def load_trained(run: str | Run, seed: int | None = None, reports: Path = Path("reports")) -> Trained:
    """The network of a recorded run (``"run:ID"``), in evaluation mode, with the spec that it was trained as; without
    ``seed`` the one that was best on validation. Nothing of the files is executed.

    Raises ``BadInputError`` for an unknown run or seed, ``MissingError`` where the weights are not there."""
    from meliuscli.runs import load_run
    from meliuscli.training.trained import load_trained as load_weights_of

    return load_weights_of(load_run(run.removeprefix("run:"), reports) if isinstance(run, str) else run, seed)


def pack(trained: Trained, path: Path) -> None:
    """Write a trained network with a bit a binary weight, and hold what the file predicts against the network.

    Raises ``FailedError`` where they differ (nothing is written then), ``BadInputError`` for a family that does not run
    packed, ``MissingError`` without the extra ``packed``."""
    from meliuscli.export.packed import write_or_fail

    write_or_fail(trained.network, trained.spec, path, trained.preprocessing)


def export(trained: Trained, path: Path) -> Agreement | None:
    """Write a trained network as ONNX, (N, C, H, W) to logits; on how many random images the file agrees with it, None
    without onnxruntime. Raises ``MissingError`` without the extra ``onnx``."""
    from meliuscli.export.onnx import write_onnx

    return write_onnx(trained.network, trained.spec, path, trained.preprocessing)


def import_weights(
    path: str | Path, network: Network | None = None, *, source: str | None = None, reports: Path = Path("reports")
) -> Run:
    """A network of another program's file as a recorded run: what ``meliuscli import`` does. ``source`` is its format
    (``bmxnet``), None for what the file's name says. Nothing of the file is executed.

    Raises ``BadInputError`` for a file that is damaged or does not fit, naming the tensors; ``MissingError`` where it is not
    there."""
    from meliuscli.exchange.importing import check_source, import_file

    if source is not None:
        check_source(source)
    asked = None
    if network is not None:
        spec = load(network)
        asked = NamedArch(spec.summary() if isinstance(network, ArchSpec) else str(network), spec)
    return import_file(Path(path), asked, source, reports)


def evaluate(
    network: str | Path,
    dataset: str = "fashion-mnist-mini",
    data: Path | None = None,
    *,
    split: Literal["train", "validation", "test"] = "test",
    limit: int | None = None,
    seed: int | None = None,
    threads: int = 1,
    reports: Path = Path("reports"),
    listener: Listener = SILENT,
) -> Evaluation:
    """A trained network (``"run:ID"``, a packed or an ONNX file) on a data set: what ``meliuscli evaluate`` does. ``scores``
    are by way of running, ``confusion`` and ``agreeing`` image by image; ``limit`` takes so many images.

    Raises ``BadInputError`` for a file that cannot be read, and data of other classes or channels; ``MissingError`` for data
    and packages that are not there."""
    from meliuscli.data.catalog import load_dataset
    from meliuscli.data.decoding import prepare_and_tell
    from meliuscli.exchange.evaluation import check_classes, evaluate_on
    from meliuscli.exchange.opened import open_network

    opened = open_network(str(network), reports, seed, threads)
    loaded = load_dataset(dataset, data)
    check_classes(opened, loaded.num_classes, dataset)
    prepared = prepare_and_tell(loaded, opened.spec.input_size, listener)
    return evaluate_on(opened, dataset, prepared, split, limit)


def classify(
    network: str | Path, *images: str | Path, top: int = 5, seed: int | None = None, reports: Path = Path("reports")
) -> list[Classified]:
    """What a trained network says of image files: what ``meliuscli predict run:ID IMAGE...`` prints.

    Raises ``BadInputError`` where the network does not say what its images go through, and for what is no image."""
    from meliuscli.exchange.evaluation import classify as classify_files
    from meliuscli.exchange.opened import open_network

    return classify_files(open_network(str(network), reports, seed), [Path(image) for image in images], top)


def _counted(network: Network, storage: Storage) -> Counted:
    named = NamedArch(network.summary(), network) if isinstance(network, ArchSpec) else load_arch(str(network))
    return Counted(named.name, named.spec, named.spec.input_shape, count_spec(named.spec, storage))
