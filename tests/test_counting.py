"""Counts: published figures, two independent roads that agree, sums, conventions."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from conftest import dense_specs, mobilenet_specs
from hypothesis import given
from hypothesis import strategies as st

from meliuscli.arch.published import Published, published_for, published_rows
from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import arch_names, load_arch, load_name
from meliuscli.counting.analytic import count_spec
from meliuscli.counting.conventions import FULL, MELIUS
from meliuscli.counting.counts import NetworkCount
from meliuscli.counting.traced import differences, trace_module
from meliuscli.nn.build import build

SHARED = Path(__file__).parents[2] / "shared" / "facts" / "published.csv"


def printed_digits_agree(printed: str, ours: float) -> bool:
    """Is ``ours``, rounded to the digits that ``printed`` shows, what is printed?"""
    mantissa, _, exponent = printed.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    scaled = ours / 10 ** int(exponent or 0)
    return abs(scaled - float(mantissa)) <= 0.5 * 10**-decimals + 1e-9


def test_the_digit_rule_can_fail() -> None:
    assert printed_digits_agree("208.13e6", 208_130_048)
    assert not printed_digits_agree("208.13e6", 208_642_048)
    assert not printed_digits_agree("3.88", 3.892)


def check_published(row: Published, spec: ArchSpec) -> None:
    total = count_spec(spec).total
    derived = (FULL if row.classifier else MELIUS).derive(total)
    ours = {"bops": derived.bops, "flops": derived.flops, "ops": derived.ops, "size_mib": total.size_bytes / 2**20}
    for what, value in ours.items():
        printed = getattr(row, what)
        assert not printed or printed_digits_agree(printed, value), f"{row.arch} {what}: {printed} against {value}"
    if row.params:
        # MobileNet's paper prints parameters in millions with one decimal.
        step = 50_000 if row.arch.startswith("mobilenet") else 0
        assert abs(int(row.params) - total.params) <= step


@pytest.mark.parametrize("row", published_rows(), ids=lambda row: f"{row.arch}-{row.stem or 'float'}")
def test_published_figures_to_every_digit_they_print(row: Published) -> None:
    """Source of each: the row's ``source``."""
    check_published(row, row.spec)


def test_meliusnet22_to_the_last_mac() -> None:
    """BMXNet-v2-wiki's figures for MeliusNet22 with the grouped stem, and the classifier on top."""
    total = count_spec(load_name("meliusnet22")).total
    assert (total.binary_macs, total.float_macs, total.linear_macs) == (4_624_220_160, 136_388_608, 512_000)
    assert (total.params, total.binary_params, total.size_bytes) == (6_944_584, 6_119_424, 4_065_568)
    assert MELIUS.derive(total).flops == 135_876_608
    assert MELIUS.derive(total).ops == 208_130_048


@pytest.mark.parametrize(
    ("name", "binary_macs", "float_macs", "params"),
    [
        # Counted with forward hooks on bitorch 0.3.0 (grouped stem) and by larq's summary (7x7 stem).
        ("meliusnet23", 2_532_483_072, 74_543_616, 8_187_784),
        ("meliusnet59", 18_316_247_040, 247_074_048, 55_555_336),
        ("binarydensenet45", 6_430_556_160, 244_103_424, 13_889_512),
        ("binarydensenet37-dilated", 7_774_470_144, 452_625_408, 8_702_248),
        ("mobilenet-v1", 0, 568_740_352, 4_231_976),
    ],
)
def test_other_tools_counts(name: str, binary_macs: int, float_macs: int, params: int) -> None:
    total = count_spec(load_name(name)).total
    assert (total.binary_macs, total.float_macs, total.params) == (binary_macs, float_macs, params)


def test_binarydensenet45_with_both_stems() -> None:
    sizes = [
        count_spec(load_arch("binarydensenet45", [f"stem={stem}"]).spec).total.size_bytes
        for stem in ("imagenet", "grouped")
    ]
    assert sizes == [7_703_968, 7_688_736]


def fold(name: str) -> str:
    return name.lower().replace("-", "").replace(" ", "")


@pytest.mark.skipif(not SHARED.is_file(), reason="the full table of published figures is not beside this checkout")
def test_our_selection_is_what_the_full_table_says() -> None:
    with SHARED.open(encoding="utf-8", newline="") as file:
        full = [row for row in csv.DictReader(file) if row["confidence"] == "high"]
    for ours in published_rows():
        for what in ("bops", "flops", "ops", "size_mib", "params", "top1", "top5"):
            family = [row for row in full if fold(row["model"]).startswith(fold(ours.arch).removesuffix("1.0"))]
            assert not getattr(ours, what) or any(row[what] == getattr(ours, what) for row in family), (ours, what)


def assert_roads_agree(spec: ArchSpec) -> NetworkCount:
    counted = count_spec(spec)
    traced = trace_module(build(spec), spec.input_shape)
    assert differences(counted, traced) == []
    weighted = [row.name for row in counted.layers if row.params]
    assert weighted == [row.name for row in traced.layers]
    return counted


@pytest.mark.parametrize("name", arch_names())
def test_both_roads_agree_on_every_named_network(name: str) -> None:
    assert_roads_agree(load_name(name))


@pytest.mark.parametrize("stem", ["imagenet", "thumbnail"])
def test_both_roads_agree_on_other_stems(stem: str) -> None:
    assert_roads_agree(load_arch("meliusnet-c", [f"stem={stem}", "input_size=64"]).spec)


@given(st.one_of(dense_specs(), mobilenet_specs()))
def test_both_roads_agree_on_random_networks(spec: ArchSpec) -> None:
    assert_roads_agree(spec)


def test_a_difference_is_found_where_it_is() -> None:
    """The check can fail: another network's trace does not verify this one."""
    spec = load_arch("meliusnet22", ["input_size=64"]).spec
    other = load_arch("meliusnet22", ["input_size=64", "growth_rate=[64,64,64,48]"]).spec
    found = differences(count_spec(spec), trace_module(build(other), other.input_shape))
    assert {difference.name.split(".")[0] for difference in found} == {"stage4", "head"}


def test_tracing_leaves_the_module_as_it_was() -> None:
    spec = load_arch("meliusnet22", ["input_size=64"]).spec
    module = build(spec).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    trace_module(module, spec.input_shape)
    assert module.training
    assert all((before[name] == value).all() for name, value in module.state_dict().items())


@given(st.one_of(dense_specs(), mobilenet_specs()), st.sampled_from(["stage", "block", "layer"]))
def test_rows_sum_to_the_total(spec: ArchSpec, by: str) -> None:
    counted = count_spec(spec)
    rows = counted.rows(by)  # type: ignore[arg-type]
    for what in ("binary_macs", "float_macs", "params", "binary_params", "size_bytes"):
        assert sum(getattr(row, what) for row in rows) == getattr(counted.total, what)
    assert rows[-1].output == (spec.num_classes,)


def test_blocks_are_rows_of_their_own() -> None:
    names = [row.name for row in count_spec(load_name("meliusnet22")).rows("block")]
    assert names[:3] == ["stem", "stage1.block1", "stage1.block2"]
    assert len(names) == 1 + 17 + 3 + 1


def test_conventions_differ_by_the_classifier_alone() -> None:
    total = count_spec(load_name("mobilenet-v1")).total
    assert FULL.derive(total).ops - MELIUS.derive(total).ops == 1_024_000 == total.linear_macs


def test_published_rows_are_found_by_architecture_not_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(load_name("meliusnet22").to_toml())
    found = published_for(load_arch(str(path)).spec)
    assert found is not None
    assert found.top1 == "63.6"
    assert published_for(load_arch("meliusnet22", ["growth_rate=48"]).spec) is None


def test_json_is_plain(tmp_path: Path) -> None:
    from meliuscli.report.count import count_object

    named = load_arch("meliusnet29")
    value = count_object(named, count_spec(named.spec), "stage", MELIUS, None)
    assert json.loads(json.dumps(value)) == value
