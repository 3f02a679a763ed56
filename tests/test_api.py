"""The Python API: the values that the commands print, loaded when they are asked for."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY_SPACE, Cli

import meliuscli as mc
from meliuscli.errors import BadInputError, InterruptedByUser, MissingError, SpecError
from meliuscli.report.tables import Column, Table


def test_the_import_loads_nothing_heavy_and_neither_does_a_count() -> None:
    code = (
        "import sys, meliuscli as mc\n"
        "heavy = {'torch', 'pandas', 'optuna', 'fvcore', 'numpy', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "mc.count('meliusnet22').ops\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]


def test_everything_that_is_named_is_there_and_documented() -> None:
    for name in mc.__all__:
        assert name == "__version__" or getattr(mc, name).__doc__, name
    assert set(mc.__all__) <= set(dir(mc))
    with pytest.raises(AttributeError, match="no attribute 'counts'"):
        mc.counts  # noqa: B018


@pytest.mark.parametrize("name", ["search", "export"])
def test_a_package_of_the_same_name_does_not_hide_a_function(name: str) -> None:
    package = importlib.import_module(f"meliuscli.{name}")
    assert getattr(mc, name) is package
    with pytest.raises(TypeError, match="missing"):
        getattr(mc, name)()


def test_counts_are_those_of_the_command(cli: Cli) -> None:
    costs = mc.count("meliusnet29", convention="reactnet")
    answer = json.loads(cli("count", "--arch", "meliusnet29", "--convention", "reactnet", "--format", "json").stdout)
    assert {"schema_version": 1} | costs.to_dict() == {**answer, "verified": None}
    assert costs.ops == answer["derived"]["ops"]
    assert (costs.bops, costs.flops) == (answer["derived"]["bops"], answer["derived"]["flops"])
    assert (costs.params, costs.size_bytes) == (answer["total"]["params"], answer["total"]["size_bytes"])
    assert (costs.binary_macs, costs.float_macs) == (answer["total"]["binary_macs"], answer["total"]["float_macs"])


def test_a_network_is_a_name_a_file_or_a_spec(tmp_path: Path) -> None:
    changed = mc.load("meliusnet22", growth_rate=48)
    (tmp_path / "mine.toml").write_text(changed.to_toml())
    assert mc.load(tmp_path / "mine.toml") == changed
    assert mc.count(changed).ops == mc.count(tmp_path / "mine.toml").ops != mc.count("meliusnet22").ops
    with pytest.raises(SpecError):
        mc.load("meliusnet22", growth_rate=-1)
    with pytest.raises(BadInputError, match="unknown network"):
        mc.load("meliusnet99")


def test_networks_are_compared_and_beliefs_are_those_of_the_command(cli: Cli) -> None:
    table = mc.compare("mobilenet-v1", "meliusnet22")
    assert str(table) == cli("compare", "mobilenet-v1", "meliusnet22").stdout
    said = json.loads(cli("predict", "meliusnet22", "--format", "json").stdout)["networks"][0]
    belief = mc.predict("meliusnet22")
    assert (belief.top1, belief.low, belief.high) == pytest.approx(
        (said["believed_top1"], said["believed_low"], said["believed_high"])
    )
    with pytest.raises(BadInputError):
        mc.predict("mobilenet-v1")


def test_a_notebook_sees_a_table_whose_words_are_no_markup() -> None:
    table = Table("a < b", (Column("name", numeric=False), Column("n")), (("<script>", 1200),), notes=("x & y",))
    shown = table._repr_html_()
    assert "<caption>a &lt; b</caption>" in shown
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown
    assert "1,200" in shown
    assert "<p>x &amp; y</p>" in shown


class Heard(mc.Listener, mc.Steps):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int, int]] = []
        self.steps = 0

    def stage(self, noun: str, total: int, done: int = 0) -> Heard:
        self.stages.append((noun, total, done))
        return self

    def step(self, message: str) -> None:
        self.steps += 1

    def __enter__(self) -> Heard:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.slow
def test_a_search_from_python_goes_on_from_the_shell_and_back(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(TINY_SPACE)
    heard = Heard()
    report = mc.search(1e8, "tiny.toml", trials=2, finalists=1, final_seeds=1, name="mine", listener=heard)
    assert heard.stages == [("trial", 2, 0), ("final", 1, 0)]
    assert heard.steps == 3
    assert report.directory == Path("reports/mine")
    assert "Pareto front" in report._repr_html_()
    with pytest.raises(BadInputError, match="exists"):
        mc.search(1e8, "tiny.toml", name="mine")
    assert cli("search", "--resume", "--study", "mine", "--trials", "3").returncode == 0
    again = mc.resume_search("mine")
    assert [record.number for record in again.records] == [0, 1, 2]
    with pytest.raises(BadInputError, match="smallest network"):
        mc.search(10, "tiny.toml", name="other")
    assert not (tmp_path / "reports" / "other").exists()


@pytest.mark.slow
def test_a_check_from_python_goes_on_from_the_shell_and_back(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(TINY_SPACE)
    (tmp_path / "more.toml").write_text("[proxies.short]\nrecipe = { epochs = 0.02 }\n")
    heard = Heard()
    check = mc.check_proxy("tiny.toml", networks=4, long_epochs=0.1, fractions=[0.5], name="mine", listener=heard)
    assert heard.stages == [("training", 12, 0)]
    assert heard.steps == 12
    assert check.directory == Path("reports/mine")
    assert [row["n"] for row in check.value["rows"]] == [4] * len(check.value["rows"])
    assert "long at 50 %" in check._repr_html_()
    with pytest.raises(BadInputError, match="exists"):
        mc.check_proxy("tiny.toml", networks=4, name="mine")
    shown = json.loads(cli("check-proxy", "--resume", "--name", "mine", "--format", "json").stdout)
    assert shown == {"schema_version": 1, **check.value}
    more = mc.resume_check("mine", changes=Path("more.toml"), listener=heard)
    assert heard.stages[1:] == [("training", 16, 12)]
    assert "short" in [row["proxy"] for row in more.value["rows"]]
    with pytest.raises(BadInputError, match="200 are asked for"):
        mc.check_proxy("tiny.toml", networks=200, name="other")
    assert not (tmp_path / "reports" / "other").exists()


class Interrupts(Heard):
    """As Ctrl-C, after the first step."""

    def step(self, message: str) -> None:
        raise KeyboardInterrupt


def test_an_interrupted_training_goes_on_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    from meliuscli.training.recipe import find_recipe

    spec = mc.load("meliusnet22", num_blocks=[1, 1], transition_channels=[32])
    how = {"recipe": find_recipe("quick", {"epochs": 0.4, "validate_at": [0.5]}), "input_size": 8, "width_divisor": 4}
    with pytest.raises(InterruptedByUser, match="0 of 1 trainings are finished") as caught:
        mc.train(spec, seeds=1, listener=Interrupts(), **how)  # type: ignore[arg-type]
    name = str(caught.value.hint).split()[-1]
    heard = Heard()
    run = mc.resume_train(name, listener=heard)
    assert f"run:{run.id}" == name
    assert heard.stages == [("epoch", 2, 0)]
    assert heard.steps == 1
    assert len(run.fields["runs"][0]["curve"]) == 2
    with pytest.raises(BadInputError, match="is finished"):
        mc.resume_train(name)


def test_a_training_from_python_is_a_recorded_run(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = mc.load("meliusnet22", num_blocks=[1, 1], transition_channels=[32])
    from meliuscli.training.recipe import find_recipe

    recipe = find_recipe("quick", {"epochs": 0.1})
    run = mc.train(spec, recipe=recipe, seeds=1, input_size=8, width_divisor=4)
    assert cli("show", f"run:{run.id}").returncode == 0
    trained = mc.load_trained(f"run:{run.id}")
    assert trained.spec.input_size == 8
    assert trained.seed == 0
    with pytest.raises(MissingError):
        mc.train(spec, dataset="cifar10", data=tmp_path / "nowhere")
