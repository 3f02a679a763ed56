"""What a recipe and a machine can ask of the loop: averages, parts of batches, teachers, gradients of signs, precision,
devices, compilation, several processes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import Cli
from safetensors import safe_open
from torch import Tensor, nn

from meliuscli.arch.adapt import at_input
from meliuscli.arch.families.dense import MeliusNetSpec
from meliuscli.arch.families.resnet import ResNetESpec, ResNetSpec
from meliuscli.arch.spec import ArchSpec
from meliuscli.data.batches import Prepared, prepare
from meliuscli.data.catalog import load_dataset
from meliuscli.errors import BadInputError, FailedError, MissingError
from meliuscli.nn.binary_conv import BinaryConv2d
from meliuscli.nn.build import build
from meliuscli.nn.quantizers import ApproxSign
from meliuscli.report.runs import run_table
from meliuscli.runs import Run, record_path, weights_path
from meliuscli.search.space import load_space
from meliuscli.training import choice
from meliuscli.training.energy import EnergyMeter
from meliuscli.training.execution import Execution, find_device
from meliuscli.training.loop import Training, distillation
from meliuscli.training.processes import Processes
from meliuscli.training.recipe import Recipe, find_recipe
from meliuscli.training.run import train_once
from meliuscli.training.scoring import evaluate
from meliuscli.training.session import RunPlan, Session, read_plan
from meliuscli.training.teacher import load_teacher
from meliuscli.training.weights import load_weights

SPEC = at_input(
    MeliusNetSpec(num_blocks=(1, 1), transition_channels=(16,), growth_rate=16, stem_channels=16),  # type: ignore[call-arg, arg-type]
    10,
    1,
    8,
)
FLOAT = ResNetSpec(
    num_blocks=(1,), channels=(16,), stem="thumbnail", stem_channels=16, num_classes=10, input_size=8, input_channels=1
)  # type: ignore[call-arg]
RECIPE = Recipe(epochs=1.0, batch_size=50, learning_rate=0.05, betas=(0.9, 0.99), shift=1)


@pytest.fixture(scope="module")
def data() -> Prepared:
    """1000 images to train on."""
    whole = prepare(load_dataset("fashion-mnist-mini"), 8)
    train, validation, test = (
        (images[:1000], labels[:1000]) for images, labels in (whole.train, whole.validation, whole.test)
    )
    return replace(whole, train=train, validation=validation, test=test)


def training(data: Prepared, recipe: Recipe, network: nn.Module | None = None, **options: Any) -> Training:
    torch.manual_seed(3)
    network = build(SPEC, recipe.clip_threshold, recipe.sign_gradient) if network is None else network
    return Training(network, data, recipe, 3, **options)


def linear() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def test_the_average_of_weights_is_what_is_evaluated_and_kept(data: Prepared) -> None:
    """Averages by their definition, from the weights after each step of the same training without them."""
    recipe = RECIPE.model_copy(update={"epochs": 0.6})
    plain = training(data, recipe)
    expected = {name: value.double() for name, value in plain.network.state_dict().items()}
    for step, _ in enumerate(plain.steps()):
        decay = min(0.8, (1 + step) / (10 + step))
        for name, value in plain.network.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value if value.is_floating_point() else value
    averaged = training(data, recipe.model_copy(update={"ema_decay": 0.8}))
    (metrics,) = (metrics for metrics in averaged.steps() if metrics)
    for name, value in averaged.result.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name].double(), rtol=1e-4, atol=1e-5)
    assert evaluate(averaged.result, data, data.validation) == (metrics.validation_loss, metrics.validation_top1)
    assert all(
        torch.equal(a, b) for a, b in zip(averaged.network.parameters(), plain.network.parameters(), strict=True)
    )
    kept: list[nn.Module] = []
    train_once(SPEC, data, averaged.recipe, 3, on_end=kept.append)
    assert all(torch.equal(a, b) for a, b in zip(kept[0].parameters(), averaged.result.parameters(), strict=True))


@pytest.mark.parametrize("parts", [2, 3, 50])
def test_a_batch_in_parts_gives_the_same_step(data: Prepared, parts: int) -> None:
    """Without batch norm, which sees the parts. Parts of 17, 17 and 16 images count by their size."""
    recipe = RECIPE.model_copy(update={"optimizer": "sgd", "learning_rate": 0.1})
    whole, split = (training(data, recipe.model_copy(update={"accumulate": n}), linear()) for n in (1, parts))
    for _ in range(5):
        whole.advance()
        split.advance()
    torch.testing.assert_close(split.parameters, whole.parameters, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.stack(split.losses), torch.stack(whole.losses), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("parts", [{"batch_size": 1}, {"batch_size": 10, "accumulate": 6}])
def test_one_image_at_a_time_is_too_little_for_batch_norm(data: Prepared, parts: dict[str, int]) -> None:
    """Where maps end in one pixel. Ten images in six parts are at least one each."""
    network = build(SPEC.replace(input_size=2))
    small = Training(
        network, replace(data, train=(data.train[0][..., 3:5, 3:5], data.train[1])), RECIPE.model_copy(update=parts), 3
    )
    with pytest.raises(BadInputError, match="more than one value a channel"):
        small.advance()


def test_batch_norm_sees_the_parts(data: Prepared) -> None:
    whole, split = (training(data, RECIPE.model_copy(update={"accumulate": n})) for n in (1, 2))
    for each in (whole, split):
        each.advance()
    counted = [
        each.network.state_dict()["stage1.block1.dense.bn.num_batches_tracked"].item() for each in (whole, split)
    ]
    assert counted == [1, 2]


def test_distillation_by_its_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, teacher = torch.randn(2, 6, 10, generator=generator) * 3
    p, q = (teacher / 4).softmax(1), (logits / 4).softmax(1)
    assert distillation(logits, teacher, 4.0).item() == pytest.approx(
        16 * (p * (p / q).log()).sum(1).mean().item(), rel=1e-5
    )
    assert distillation(logits, logits, 4.0).item() == pytest.approx(0, abs=1e-6)


def test_a_student_learns_from_its_teacher_alone(data: Prepared) -> None:
    """With weight 1 labels do not matter: with wrong ones the student still does what the teacher does."""
    teacher = training(data, RECIPE.model_copy(update={"epochs": 4.0}), build(FLOAT))
    *_, last = (metrics for metrics in teacher.steps() if metrics)
    before = {name: value.clone() for name, value in teacher.network.state_dict().items()}
    images, labels = data.train
    wrong = replace(data, train=(images, (labels + 1) % 10))
    recipe = RECIPE.model_copy(update={"epochs": 6.0, "distill_weight": 1.0, "distill_temperature": 2.0})
    student = training(wrong, recipe, teacher=teacher.network)
    *_, learned = (metrics for metrics in student.steps() if metrics)
    assert last.validation_top1 > 0.5
    assert learned.validation_top1 > 0.4
    assert all(torch.equal(before[name], value) for name, value in teacher.network.state_dict().items())


def test_a_teacher_and_its_weight_need_each_other(data: Prepared) -> None:
    with pytest.raises(BadInputError, match="need each other"):
        training(data, RECIPE, teacher=linear())
    with pytest.raises(BadInputError, match="need each other"):
        training(data, RECIPE.model_copy(update={"distill_weight": 0.5}))


class PlainApproxConv(nn.Module):
    """The binary convolution in torch's own operations, with Bi-Real Net's gradient."""

    def __init__(self, conv: BinaryConv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        latent = self.conv.weight
        weight = latent + (torch.where(latent >= 0, 1.0, -1.0) - latent).detach()
        signs = F.pad(ApproxSign()(x), (1, 1, 1, 1), value=-1.0)
        return (F.conv2d(signs, weight.to(x.dtype), stride=self.conv.stride) + weight[0].numel()) / 2


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        ResNetESpec(
            num_blocks=(1, 1),
            channels=(8, 16),
            stem="thumbnail",
            stem_channels=8,
            input_size=8,
            input_channels=1,
            num_classes=10,
        ),
    ],  # type: ignore[call-arg]
    ids=["meliusnet", "resnete"],
)
def test_approx_sign_in_a_whole_network(spec: ArchSpec) -> None:
    gradients = []
    for plain in (False, True):
        torch.manual_seed(0)
        network = build(spec, sign_gradient="approx").double().train()
        if plain:
            for parent in list(network.modules()):
                for name, child in list(parent.named_children()):
                    if isinstance(child, BinaryConv2d):
                        setattr(parent, name, PlainApproxConv(child))
        images = torch.randn(6, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        network(images).square().sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for ours, plains in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, plains, rtol=1e-7, atol=1e-9)


LONGER = RECIPE.model_copy(update={"batch_size": 20, "epochs": 2.0})


def test_the_sign_gradient_changes_the_training(data: Prepared) -> None:
    clip, approx = (training(data, LONGER.model_copy(update={"sign_gradient": kind})) for kind in ("clip", "approx"))
    for each in (clip, approx):
        *_, last = (metrics for metrics in each.steps() if metrics)
        assert last.validation_top1 > 0.25
    assert not torch.equal(clip.parameters, approx.parameters)


def test_bfloat16_trains_float32_weights(data: Prepared) -> None:
    wide, narrow = (training(data, LONGER.model_copy(update={"precision": kind})) for kind in ("float32", "bfloat16"))
    *_, first = (metrics for metrics in wide.steps() if metrics)
    *_, second = (metrics for metrics in narrow.steps() if metrics)
    assert narrow.parameters.dtype == torch.float32
    assert not torch.equal(wide.parameters, narrow.parameters)
    assert second.train_loss == pytest.approx(first.train_loss, rel=0.1)
    assert second.validation_top1 > 0.25


def test_the_bfloat16_convolution_is_exact_where_its_terms_are_few() -> None:
    """Sums of up to 256 ones are whole numbers that bfloat16 has; the constant K / 2 stays float32."""
    torch.manual_seed(0)
    conv, x = BinaryConv2d(16, 8), torch.randn(4, 16, 9, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(conv(x), PlainApproxConv(conv)(x).detach().float())


# Recipes


def test_the_recipe_of_the_default_search_has_a_name() -> None:
    _, space, _ = load_space("meliusnet")
    assert space.proxy.recipe == find_recipe("proxy")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"accumulate": 65}, "accumulate: must be at most the batch size, 64"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"distill_weight": 1.5}, "distill_weight"),
        ({"distill_temperature": 0.0}, "distill_temperature"),
        ({"sign_gradient": "swish"}, "sign_gradient: must be 'clip' or 'approx'"),
        ({"precision": "float16"}, "precision: must be"),
    ],
)
def test_recipe_fields_that_cannot_be(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInputError) as caught:
        find_recipe("paper", changes)
    assert says in caught.value.message


# Devices, precision and compilation


def test_a_device_that_is_not_there_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert find_device("auto") == find_device("cpu") == "cpu"
    for name in ("cuda", "mps"):
        with pytest.raises(MissingError, match=f"--device {name}: torch .* finds no such device"):
            find_device(name)  # type: ignore[arg-type]


def test_each_process_takes_the_device_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device("auto") == "cuda:0"
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert find_device("cuda") == "cuda:1"
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(MissingError, match="process 2 has no device of its own"):
        find_device("cuda")


AUTO = RECIPE.model_copy(update={"precision": "auto"})


def test_the_choice_of_precision_says_why_and_draws_no_random_numbers(
    data: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "has_bfloat16", lambda device: False)
    chosen = choice.choose_execution(SPEC, data, AUTO, 1, "cpu", "off")
    assert (chosen.precision, chosen.compiled) == ("float32", False)
    assert chosen.notes == ("float32: cpu has no bfloat16 arithmetic",)
    monkeypatch.setattr(choice, "has_bfloat16", lambda device: True)
    before = torch.get_rng_state()
    chosen = choice.choose_execution(SPEC, data, AUTO, 1, "cpu", "off")
    assert torch.equal(torch.get_rng_state(), before)
    assert chosen.notes[0].startswith(f"{chosen.precision}: a step took")
    assert Execution.from_fields(json.loads(json.dumps(chosen.fields()))) == chosen


@pytest.mark.parametrize(("narrow", "expected"), [(0.5, "bfloat16"), (0.99, "float32"), (2.0, "float32")])
def test_bfloat16_has_to_be_clearly_faster(
    data: Prepared, monkeypatch: pytest.MonkeyPatch, narrow: float, expected: str
) -> None:
    monkeypatch.setattr(choice, "has_bfloat16", lambda device: True)
    seconds = {"float32": 1.0, "bfloat16": narrow}
    monkeypatch.setattr(
        choice, "_stepper", lambda spec, data, recipe, execution, teacher: lambda: seconds[execution.precision]
    )
    assert choice.choose_execution(SPEC, data, AUTO, 1, "cpu", "off").precision == expected


@pytest.mark.parametrize(
    ("eager", "compiled", "mode", "expected", "says"),
    [
        (0.001, 0.0001, "auto", False, "not compiled: the run takes about 0s"),
        (10.0, 5.0, "auto", True, "compiled: about 1m40s with compiling (0s), 3m20s without"),
        (10.0, 9.9, "auto", False, "not compiled: about 3m18s with compiling (0s), 3m20s without"),
        (0.001, 10.0, "on", True, "compiled in 0s, as asked for"),
        (10.0, 0.1, "off", False, ""),
    ],
)
def test_what_is_compiled(
    data: Prepared, monkeypatch: pytest.MonkeyPatch, eager: float, compiled: float, mode: Any, expected: bool, says: str
) -> None:
    """20 steps, and the seconds of a step as if measured."""
    monkeypatch.setattr(choice, "COMPILES_FROM", 100.0)
    monkeypatch.setattr(
        choice,
        "_stepper",
        lambda spec, data, recipe, execution, teacher: lambda: compiled if execution.compiled else eager,
    )
    chosen = choice.choose_execution(SPEC, data, RECIPE, 1, "cpu", mode)
    assert chosen.compiled is expected
    assert " ".join(chosen.notes) == says


def test_without_a_compiler_a_run_goes_on_eagerly(data: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(_network: nn.Module) -> nn.Module:
        raise RuntimeError("No working C++ compiler found\nand more")

    monkeypatch.setattr(torch, "compile", no_compiler)
    chosen = choice.choose_execution(SPEC, data, RECIPE, 1, "cpu", "on")
    assert not chosen.compiled
    assert chosen.notes == ("not compiled, torch.compile failed: No working C++ compiler found",)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's compiler hides its own warnings, but not from `error`
def test_a_compiled_training_is_the_eager_one_up_to_rounding(data: Prepared) -> None:
    eager, compiled = (training(data, LONGER, execution=Execution(compiled=compiled)) for compiled in (False, True))
    for each in (eager, compiled):
        each.advance()
    torch.testing.assert_close(compiled.losses[0], eager.losses[0], rtol=1e-4, atol=1e-5)
    *_, last = (metrics for metrics in compiled.steps() if metrics)
    assert last.validation_top1 > 0.25


# Several processes

SCRIPT = """
import sys, torch
from pathlib import Path
from torch import nn
from meliuscli.data.batches import Prepared
from meliuscli.training.loop import Training
from meliuscli.training.processes import join, leave
from meliuscli.training.recipe import Recipe
generator = torch.Generator().manual_seed(0)
splits = [(torch.rand(n, 1, 8, 8, generator=generator), torch.arange(n) % 10) for n in (400, 700, 10)]
data = Prepared(*splits, torch.full((1, 1, 1, 1), 0.5), torch.full((1, 1, 1, 1), 0.3))
processes = join("cpu")
torch.manual_seed(processes.rank)  # each its own start: DistributedDataParallel takes the leader's
network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
recipe = Recipe(epochs=2.0, batch_size=40, optimizer="radam", learning_rate=0.01, shift=1, accumulate=2, ema_decay=0.9)
training = Training(network, data, recipe, 5, processes=processes)
curve = [metrics for metrics in training.steps() if metrics]
if processes.leads:
    torch.save((training.tensors(), [(m.train_loss, m.validation_loss, m.validation_top1) for m in curve]), sys.argv[1])
leave()
"""


def run_script(directory: Path, count: int) -> Any:
    script, result = directory / "script.py", directory / f"{count}.pt"
    script.write_text(SCRIPT)
    launcher = [] if count == 1 else ["-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    subprocess.run([sys.executable, *launcher, str(script), str(result)], check=True, timeout=300, capture_output=True)
    return torch.load(result, weights_only=True)


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    (alone, curve), (together, curve_together) = (run_script(tmp_path, count) for count in (1, 2))
    for name, value in alone.items():
        if name != "losses":
            torch.testing.assert_close(together[name], value, rtol=1e-4, atol=1e-5)
    assert [value for epoch in curve_together for value in epoch] == pytest.approx(
        [value for epoch in curve for value in epoch], rel=1e-4
    )


@pytest.mark.slow
def test_torchrun_trains_one_network_and_one_process_writes_and_prints(tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "meliuscli"),
        *("train", "--arch", "meliusnet22", "--set", "num_blocks=[1,1]", "--set", "transition_channels=[32]"),
        *("--input-size", "8", "--width-divisor", "4", "--epochs", "1", "--seeds", "2", "--format", "json"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True)
    record = json.loads(done.stdout)
    assert record["execution"]["processes"] == 2
    assert record["validation_top1"]["mean"] > 0.6
    assert done.stderr.count("1 of 2 epochs:") == 1
    assert sorted(path.name for path in (tmp_path / "reports").iterdir()) == [
        f"run-{record['id']}-seed0.safetensors",
        f"run-{record['id']}-seed1.safetensors",
        f"run-{record['id']}.json",
    ]
    odd = subprocess.run(
        [*command, "--batch-size", "51"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert odd.stderr.count("error: batch_size: 51 images cannot be shared evenly by 2 processes") == 1


def test_shares_make_up_the_batch() -> None:
    batch = torch.arange(12)
    shares = [Processes(rank, 3).share(batch) for rank in range(3)]
    assert sorted(torch.cat(shares).tolist()) == batch.tolist()
    assert {len(share) for share in shares} == {4}
    assert Processes().share(batch) is batch


# Energy, teachers, records


def zone(directory: Path, name: str, microjoules: int, limit: int = 10_000_000) -> Path:
    path = directory / name
    path.mkdir(exist_ok=True)
    (path / "energy_uj").write_text(f"{microjoules}\n")
    (path / "max_energy_range_uj").write_text(f"{limit}\n")
    return path


def test_energy_is_summed_over_packages_and_across_wraps(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", 9_000_000)
    zone(tmp_path, "intel-rapl:0:0", 0)  # a part of the first
    zone(tmp_path, "intel-rapl:1", 1_000_000)
    meter = EnergyMeter(tmp_path)
    assert meter.read() == 0
    zone(tmp_path, "intel-rapl:0", 9_500_000)
    zone(tmp_path, "intel-rapl:0:0", 5_000_000)
    assert meter.read() == pytest.approx(0.5)
    zone(tmp_path, "intel-rapl:0", 1_500_000)  # from 9.5 J over the top at 10 J
    zone(tmp_path, "intel-rapl:1", 4_000_000)
    assert meter.read() == pytest.approx(0.5 + 2.0 + 3.0)
    assert EnergyMeter(tmp_path / "none").read() is None


def make_session(reports: Path, spec: ArchSpec, digest: str, teacher: Any = None, **changes: Any) -> Session:
    plan = RunPlan(
        id=f"{spec.archid[:7]}{len(list(reports.glob('*.json')))}",
        arch="mine",
        archid=spec.archid,
        trained_as=spec,
        dataset={"name": "some", "digest": digest, "directory": None},
        recipe=RECIPE.model_copy(update={"epochs": 2.0, **changes}),
        seeds=1,
        keep_weights=True,
        teacher=teacher,
        execution=Execution(notes=("a note",)),
        origin={
            "command": "c",
            "time": "t",
            "versions": {"torch": "x", "meliuscli": "y"},
            "machine": {"processor": "p", "cores": 1},
        },
    )
    return Session.begin(reports, plan, Processes())


def make_run(reports: Path, spec: ArchSpec, data: Prepared, teacher: Any = None, **changes: Any) -> dict[str, Any]:
    about, network = teacher or (None, None)
    session = make_session(reports, spec, "d", None if about is None else about.fields(), **changes)
    list(session.train(data, network, lambda metrics: None, lambda training: None))
    record = session.finish(None)
    assert record is not None
    return record


def test_a_recorded_run_teaches_another_and_both_are_recorded(data: Prepared, tmp_path: Path) -> None:
    first = make_run(tmp_path, FLOAT, data)
    about, network = load_teacher(f"run:{first['id'][:6]}", tmp_path, SPEC, "d")
    assert evaluate(network, data, data.validation)[1] == first["runs"][0]["validation_top1"]
    second = make_run(tmp_path, SPEC, data, (about, network), distill_weight=0.5)
    assert second["teacher"] == {"run": first["id"], "arch": "mine", "seed": 0, "digest": about.digest}
    assert json.loads(record_path(tmp_path, second["id"]).read_text()) == json.loads(
        json.dumps({"schema_version": 1, **second})
    )
    loaded = build(SPEC)
    load_weights(loaded, SPEC, weights_path(tmp_path, second["id"], 0))
    assert evaluate(loaded, data, data.test)[1] == second["runs"][0]["test_top1"]
    lines = "\n".join(run_table(Run(tmp_path, second)).lines)
    assert f"teacher: mine, run:{first['id']}, seed 0" in lines
    assert "trained on cpu, 1 thread, float32, eager\n  a note" in lines
    assert list(tmp_path.glob("*.checkpoint")) == []


def test_a_teacher_that_cannot_teach_is_refused(data: Prepared, tmp_path: Path) -> None:
    run = f"run:{make_run(tmp_path, FLOAT, data)['id']}"
    for changes, digest, says in (
        ({"num_classes": 11}, "d", "takes 1x8x8 and 10 classes, the student 1x8x8 and 11 classes"),
        ({"input_size": 16}, "d", "the student 1x16x16"),
        ({}, "other", "was trained on other data"),
    ):
        with pytest.raises(BadInputError, match=says):
            load_teacher(run, tmp_path, SPEC.replace(**changes), digest)
    with pytest.raises(BadInputError, match="not of the form run:ID"):
        load_teacher("resnet18", tmp_path, SPEC, "d")
    next(tmp_path.glob("*seed0*")).unlink()
    with pytest.raises(MissingError, match="no such file"):
        load_teacher(run, tmp_path, SPEC, "d")


def test_a_run_that_diverges_names_its_last_good_checkpoint(data: Prepared, tmp_path: Path) -> None:
    def poison(training: Training) -> None:
        if training.step == 25:
            with torch.no_grad():
                training.parameters[0] = float("nan")

    session = make_session(tmp_path, FLOAT, "d")
    with pytest.raises(FailedError, match="seed 0: the training diverged: the loss is not finite by epoch 2") as caught:
        list(session.train(data, None, lambda metrics: None, poison))
    assert session.finish(caught.value) is None
    (kept,) = tmp_path.glob("*.checkpoint/seed0.safetensors")
    assert str(kept) in caught.value.message
    _, runs = read_plan(kept.parent)
    assert runs == []
    with safe_open(kept, framework="pt") as file:
        assert json.loads(file.metadata()["state"])["progress"]["step"] == 20
        names = [name for name in file.keys() if name.startswith("network.")]  # noqa: SIM118 - no mapping
        assert names
        assert all(torch.isfinite(file.get_tensor(name)).all() for name in names)


def test_the_command_line_refuses_a_teacher_without_weight(cli: Cli) -> None:
    done = cli("train", "--arch", "meliusnet22", "--input-size", "8", "--recipe-set", "distill_weight=0.5")
    assert done.returncode == 2
    assert "a teacher and a distill_weight above 0 need each other" in done.stderr
