"""Latencies that are added up from parts: which parts, that each is timed where it stands, and the file they are kept in."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from meliuscli.arch.families.dense import BinaryDenseNetSpec, DenseFamilySpec
from meliuscli.arch.families.dense_parts import Part, parts, probe
from meliuscli.arch.zoo import arch_names, load_name
from meliuscli.counting.analytic import count_spec
from meliuscli.errors import BadInputError, MissingError
from meliuscli.nn.build import build
from meliuscli.packed import latency
from meliuscli.packed.isa import choose_isa
from meliuscli.packed.latency import LatencyTable
from meliuscli.packed.runner import PackedDense, pack
from meliuscli.search.budget import TABLE, study_cost
from meliuscli.search.latency import Predictions, check_predictions, latency_cost
from meliuscli.search.proposals import Proposer
from meliuscli.search.space import load_space
from meliuscli.search.study import Settings

DENSE = [name for name in arch_names() if isinstance(load_name(name), DenseFamilySpec)]


@pytest.mark.parametrize("name", DENSE)
def test_every_convolution_is_in_one_part(name: str) -> None:
    spec = load_name(name)
    assert isinstance(spec, DenseFamilySpec)
    kinds = Counter(str(part[0]) for part in parts(spec))
    binary = sum(layer.weight_bits == 1 for layer in spec.layers())
    assert kinds["dense"] + kinds["improvement"] == binary
    assert kinds["transition"] == len(spec.transition_channels)
    assert kinds["call"] == kinds["stem"] == kinds["head"] == 1


@pytest.mark.parametrize("name", ["meliusnet22", "binarydensenet28", "meliusnet-c"])
def test_a_part_does_the_same_work_where_it_is_timed(name: str) -> None:
    """The kernels that run in a whole network, with their sizes, are those that run in the parts' own networks."""
    spec = load_name(name).replace(input_size=96)
    assert isinstance(spec, DenseFamilySpec)
    whole = Counter(step.key for step in _runner(spec).plan(1)[0].steps)
    found: Counter[str] = Counter()
    for part, times in Counter(parts(spec)).items():
        small, layer = probe(part)
        if part[0] != "call":
            steps = _runner(small).plan(1)[0].steps
            for step in steps:
                if step.layer == layer:
                    found[step.key] += times
    assert _work(found) == _work(whole)


def _work(keys: Counter[str]) -> Counter[tuple[str, ...]]:
    """Kernel and units of each step; the addresses' strides are those of wider maps in a whole network."""
    work: Counter[tuple[str, ...]] = Counter()
    for key, times in keys.items():
        work[tuple(key.split()[:2])] += times
    return work


def _runner(spec: DenseFamilySpec) -> PackedDense:
    runner = pack(build(spec).eval(), spec)
    assert isinstance(runner, PackedDense)
    return runner


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Part]:
    """Parts that were measured: each takes a millisecond, and a whole network twice its parts."""
    asked: list[Part] = []

    def measured(part: Part, _isa: object) -> float:
        asked.append(part)
        return 1e-3

    def whole(spec: DenseFamilySpec, _isa: object) -> float:
        return 2e-3 * len(list(parts(spec)))

    monkeypatch.setattr(latency, "measure", measured)
    monkeypatch.setattr(latency, "measure_whole", whole)
    return asked


def test_parts_are_measured_once_and_kept(counted: list[Part], tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    spec = load_name("meliusnet-a")
    assert isinstance(spec, DenseFamilySpec)
    table = LatencyTable(choose_isa(), path)
    seconds = table.seconds(spec)
    assert seconds == pytest.approx(2e-3 * len(list(parts(spec))))
    assert len(set(counted)) == len(table) - 2  # factor and constant are no parts
    assert max(Counter(counted).values()) == 2  # those of the calibration, against disturbances
    counted.clear()
    assert LatencyTable(choose_isa(), path).seconds(spec) == seconds
    assert not counted


def test_a_torn_line_is_measured_again(counted: list[Part], tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    spec = load_name("meliusnet-a")
    seconds = LatencyTable(choose_isa(), path).seconds(spec)
    path.write_text(path.read_text()[:-4])
    counted.clear()
    assert LatencyTable(choose_isa(), path).seconds(spec) == seconds


def test_a_table_with_a_torn_line_can_be_added_to(counted: list[Part], tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    LatencyTable(choose_isa(), path).seconds(load_name("meliusnet-a"))
    path.write_text(path.read_text() + '["dense 99')
    seconds = LatencyTable(choose_isa(), path).seconds(load_name("meliusnet29"))
    counted.clear()
    assert LatencyTable(choose_isa(), path).seconds(load_name("meliusnet29")) == seconds
    assert not counted
    path.write_text("")
    assert len(LatencyTable(choose_isa(), path)) == 0


def test_a_network_never_takes_less_than_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large networks that take longer than their parts must not make small ones take a negative time."""
    monkeypatch.setattr(latency, "measure", lambda part, isa: 1e-3)
    monkeypatch.setattr(latency, "measure_whole", lambda spec, isa: 1e-3 * (len(list(parts(spec))) - 20))
    table = LatencyTable(choose_isa(), tmp_path / "table.jsonl")
    factor, constant = table._calibration()
    assert factor > 0
    assert constant == 0


@pytest.mark.parametrize(
    "content",
    ["\n", "[]\n", "{}\n", '{"format": 1, "isa": "", "processor": ""}\n["a"]\n']
    + [f'{{"format": 1, "isa": "", "processor": ""}}\n["a", {value}]\n' for value in ("-1", "0", "NaN", '""')],
)
def test_a_corrupt_table_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    path.write_text(content)
    with pytest.raises(BadInputError, match=r"table\.jsonl: not a table"):
        LatencyTable(choose_isa(), path)


@pytest.mark.parametrize("change", [{"processor": "another"}, {"isa": "another"}, {"format": 0}])
def test_a_table_of_another_machine_is_refused(change: dict[str, object], counted: list[Part], tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    head, _, rest = LatencyTable(choose_isa(), path).content().partition("\n")
    path.write_text(json.dumps({**json.loads(head), **change}) + "\n" + rest)
    with pytest.raises(BadInputError, match="measured with"):
        LatencyTable(choose_isa(), path)
    assert not counted


def test_between_measured_widths_a_transition_is_interpolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "measure", lambda part, isa: 1e-6 * int(part[1]))
    monkeypatch.setattr(latency, "measure_whole", lambda spec, isa: 1.0)
    table = LatencyTable(choose_isa(), tmp_path / "table.jsonl")
    for channels in (40, 128, 200, 1000):
        assert table._of(("transition", channels, 64, 1, 28, 1)) == pytest.approx(1e-6 * channels)


@pytest.mark.slow
def test_predictions_are_of_the_budgets_candidates(counted: list[Part], tmp_path: Path) -> None:
    _, space, _ = load_space("meliusnet")
    table = LatencyTable(choose_isa(), tmp_path / "table.jsonl")
    cost = latency_cost(table)
    budget = 3 * cost.of(space.smallest)
    pool = Proposer(space, budget, 0, cost).pool
    predictions = check_predictions(table, [space.smallest, *pool])
    assert len(predictions.measured) == 10
    assert list(predictions.predicted) == sorted(predictions.predicted)
    assert predictions.predicted[0] == cost.of(space.smallest)
    assert predictions.predicted[-1] == max(map(cost.of, pool)) <= budget
    assert predictions.errors == pytest.approx([0] * 10)
    off = Predictions((0.99e-3, 2.04e-3, 3e-3), (1e-3, 2e-3, 3e-3)).sentence
    assert "3 candidates from the cheapest to the dearest (1 to 3 ms)" in off
    assert "by -1.0 to +2.0 %, 1.0 % in the median" in off
    assert predictions.trustworthy
    assert not Predictions((0.9e-3, 1.1e-3), (1e-3, 1e-3)).trustworthy


def test_the_time_of_a_network_is_that_of_its_stages(counted: list[Part], tmp_path: Path) -> None:
    table, spec = LatencyTable(choose_isa(), tmp_path / "table.jsonl"), load_name("meliusnet22")
    of_stages = table.by_stage(spec)
    assert list(of_stages) == ["call", *(row.name for row in count_spec(spec).rows("stage"))]
    assert sum(of_stages.values()) == pytest.approx(table.seconds(spec))


def test_families_that_do_not_run_whole_have_no_latency(counted: list[Part], tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="end to end"):
        LatencyTable(choose_isa(), tmp_path / "table.json").seconds(load_name("reactnet-a"))
    assert not counted


def test_a_measured_part_takes_time() -> None:
    assert issubclass(BinaryDenseNetSpec, DenseFamilySpec)
    dense = latency.measure(("dense", 64, 16, 8, 1), choose_isa())
    larger = latency.measure(("dense", 256, 64, 16, 1), choose_isa())
    assert 0 < dense < larger < 1


def test_a_study_goes_on_with_the_table_that_it_began_with(counted: list[Part], tmp_path: Path) -> None:
    table = LatencyTable(choose_isa(), tmp_path / TABLE)
    table.seconds(load_name("meliusnet-a"))
    content = table.path.read_bytes()
    settings = Settings("meliusnet", 1.0, 1, 0, "model", 1, 1, 1, objective="latency")
    began = {"table_bytes": len(content), "table_sha256": hashlib.sha256(content).hexdigest()}
    where = {"latency": began}
    cost = study_cost(tmp_path, settings, where)
    assert cost.unit == "ms"
    table.seconds(load_name("meliusnet29"))  # what is measured later is added behind
    study_cost(tmp_path, settings, where)
    table.path.write_bytes(content.replace(b"0.001", b"0.002", 1))
    with pytest.raises(BadInputError, match="not the table that the study began with"):
        study_cost(tmp_path, settings, where)
    for unknown in ({}, {"latency": {"sentence": "of an earlier version"}}):
        with pytest.raises(BadInputError, match="not the table that the study began with"):
            study_cost(tmp_path, settings, unknown)
    table.path.unlink()
    with pytest.raises(MissingError, match="no such file"):
        study_cost(tmp_path, settings, where)
