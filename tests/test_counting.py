"""Counts: published figures, two independent roads that agree, sums, conventions."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
from conftest import Cli, at_size, specs
from hypothesis import given, settings
from hypothesis import strategies as st

from meliuscli.arch.families import FAMILIES
from meliuscli.arch.published import COUNTS, Published, contradictions, published_for, published_rows
from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import arch_names, load_arch, load_name, zoo_table
from meliuscli.counting.agreement import disagreements, ours, prints_as
from meliuscli.counting.analytic import count_spec
from meliuscli.counting.conventions import CONVENTIONS, FULL, MELIUS
from meliuscli.counting.counts import NetworkCount, Storage
from meliuscli.counting.traced import differences, trace_module
from meliuscli.nn.build import build
from meliuscli.report.count_value import count_object
from meliuscli.report.counted import Counted, View, convention_notes

SHARED = Path(__file__).parents[2] / "shared" / "facts" / "published.csv"


def test_the_digit_rule_can_fail() -> None:
    assert prints_as("208.13e6", 208_130_048)
    assert not prints_as("208.13e6", 208_642_048)
    assert not prints_as("3.88", 3.892)
    assert prints_as("11689646", 11_689_646)
    assert not prints_as("11689646", 11_689_640)


@pytest.mark.parametrize("row", published_rows(), ids=lambda row: f"{row.name}-{row.source}")
def test_published_figures_to_every_digit_they_print(row: Published) -> None:
    """Under the source's own convention, but for the listed contradictions; source of each: the row's ``source``."""
    assert set(disagreements(row)) == set(row.disputed)


def test_every_contradiction_has_its_reason_and_every_reason_its_use() -> None:
    reasons = {entry.key: entry for entry in contradictions()}
    used = {(key, row.arch) for row in published_rows() for key in row.disputed.values()}
    for key, arch in used:
        assert arch in reasons[key].archs
    # Of an accuracy, another tool, and the authors' code.
    unused = {"meliusnet59-top1", "bitorch-meliusnet", "bnext-size", "reactnet-shifts", "birealnet50-never-called"}
    assert set(reasons) - {key for key, _ in used} == unused
    assert all(set(entry.archs) <= set(arch_names()) and entry.title and entry.text for entry in reasons.values())


def test_most_published_counts_are_reproduced() -> None:
    """Contradictions stay the exception: 256 figures, of which 29 are disputed."""
    figures = sum(len(ours(row)) for row in published_rows())
    disputed = sum(len(row.disputed) for row in published_rows())
    assert figures > 220
    assert disputed == 29


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


TABLE_NAMES = {
    **{f"ResNetE-{n} ({stem} stem)": f"resnete{n}" for n in (18, 34) for stem in ("7x7", "grouped")},
    **{f"BinaryDenseNet{n} ({stem} stem)": f"binarydensenet{n}" for n in (28, 37) for stem in ("7x7", "grouped")},
    **{f"BinaryDenseNet{n} (larq)": f"binarydensenet{n}" for n in ("28", "37", "45", "37-dilated")},
    **{f"MeliusNet{n} (7x7 stem)": f"meliusnet{n}" for n in (22, 29)},
    **{f"MeliusNet{n}": f"meliusnet{n}" for n in (22, 29, 42, 59)},
    **{f"MeliusNet{n}": f"meliusnet-{n.lower()}" for n in "ABC"},
    **{f"MeliusNet22 ({by})": "meliusnet22" for by in ("larq", "larq-zoo")},
    **{f"Bi-RealNet-{n}": f"birealnet{n}" for n in (18, 34, 50)},
    **{f"ReActNet-{n}": f"reactnet-{n.lower()}" for n in "ABC"},
    **{f"BNext-{n}": f"bnext-{n.lower()}" for n in "TSML"},
    **{f"MobileNet-v1 {n}": f"mobilenet-v1-{n}".removesuffix("-1.0") for n in ("1.0", "0.75", "0.5", "0.25")},
    **{
        f"MobileNet-v2 {n}": f"mobilenet-v2-{n}".removesuffix("-1.0")
        for n in ("1.4", "1.3", "1.0", "0.75", "0.5", "0.35")
    },
    "ReActNet-A (AdamBNN training)": "reactnet-a",
    "ReActNet-Adam (ReActNet-A)": "reactnet-a",
    "ReActNet (Bi-Real-18 based)": "reactnet18",
    "BNN (ResNet-18)": "bnn-resnet18",
    "XNOR-Net (ResNet-18)": "xnornet-resnet18",
    "XNOR-Net (AlexNet)": "xnornet-alexnet",
    "XNOR-Net AlexNet (larq)": "xnornet-alexnet",
    "Bi-RealNet-18 (larq)": "birealnet18",
    "ABC-Net (1/1)x5": "abcnet18",
    "Real-to-Binary Net": "real2binary",
    "Real-to-Binary (larq)": "real2binary",
    "ResNetE-18 (larq)": "resnete18",
    "QuickNetSmall": "quicknet-small",
    "QuickNet": "quicknet",
    "QuickNetLarge": "quicknet-large",
    "DoReFaNet AlexNet w1a2 (larq)": "dorefanet-alexnet",
    "BinaryAlexNet (larq)": "binaryalexnet",
    "PokeBNN-0.75x (small variant)": "pokebnn-0.75",
    "PokeBNN-1.4x (larger variant)": "pokebnn-1.4",
    "ResNet-18 (float)": "resnet18",
    "ResNet-34 (float)": "resnet34",
}
"""What the full table calls a network -> its name here."""


@pytest.mark.skipif(not SHARED.is_file(), reason="the full table of published figures is not beside this checkout")
def test_our_selection_holds_every_sure_row_of_the_full_table() -> None:
    """Every row of high confidence that states a count of one of our networks is among ours, figure by figure."""
    with SHARED.open(encoding="utf-8", newline="") as file:
        full = [row for row in csv.DictReader(file) if row["confidence"] == "high" and row["model"] in TABLE_NAMES]
    assert len(full) > 90
    for row in full:
        wanted = tuple(float(row[key]) if row[key] else None for key in (*COUNTS, "top1"))
        arch = TABLE_NAMES[row["model"]]
        # The table leaves ACE to the text; our rows state it as OPs of that convention.
        candidates = [r for r in published_rows() if r.arch == arch]
        found = [
            r
            for r in candidates
            if all(
                want is None or (text and float(text) == want)
                for want, text in zip(wanted, (getattr(r, key) for key in (*COUNTS, "top1")), strict=True)
            )
        ]
        assert found, row


def assert_roads_agree(spec: ArchSpec) -> NetworkCount:
    counted = count_spec(spec)
    traced = trace_module(build(spec), spec.input_shape)
    assert differences(counted, traced) == []
    weighted = [row.name for row in counted.layers if row.params]
    assert weighted == [row.name for row in traced.layers]
    return counted


# At small and odd sizes one network of each family is enough by default; the others are left to the slow tests.
FIRST_OF_FAMILY = set({load_name(name).family: name for name in reversed(arch_names())}.values())
NAMED = [
    pytest.param(name, size, marks=[] if size == 224 or name in FIRST_OF_FAMILY else [pytest.mark.slow])
    for name in arch_names()
    for size in (224, 97, 32)
]


@pytest.mark.parametrize(("name", "size"), NAMED)
def test_both_roads_agree_on_every_named_network(name: str, size: int) -> None:
    assert_roads_agree(at_size(name, size))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_third_road_agrees_on_a_network_of_every_family(family: str) -> None:
    name = next(name for name, fields in zoo_table().items() if fields["family"] == family)
    spec = at_size(name, 32)
    assert differences(count_spec(spec), trace_module(build(spec), spec.input_shape, road="dispatcher")) == []


@settings(max_examples=10)
@given(specs())
def test_the_third_road_agrees_on_random_networks(spec: ArchSpec) -> None:
    assert differences(count_spec(spec), trace_module(build(spec), spec.input_shape, road="dispatcher")) == []


def test_a_difference_is_found_on_the_third_road_too() -> None:
    spec, other = (load_arch("birealnet18", ["input_size=32", f"num_classes={n}"]).spec for n in (10, 11))
    found = differences(count_spec(spec), trace_module(build(other), other.input_shape, road="dispatcher"))
    assert {difference.name for difference in found} == {"head.fc"}


@pytest.mark.parametrize(
    "gone",
    [
        "raise ImportError('fvcore is not here')",
        "import types, sys\nnn = sys.modules['fvcore.nn'] = types.ModuleType('fvcore.nn')\n"
        "class FlopCountAnalysis:\n"
        "    def __init__(self, *_):\n"
        "        raise AttributeError(\"module 'torch.jit' has no attribute '_get_trace_graph'\")\n"
        "nn.FlopCountAnalysis = FlopCountAnalysis",
    ],
)
def test_count_says_verified_without_fvcores_tracer(cli: Cli, tmp_path: Path, gone: str) -> None:
    package = tmp_path / "path" / "fvcore"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"{gone}\n")
    path = os.pathsep.join([str(tmp_path / "path"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    result = cli("count", "meliusnet22", "--input", "64", PYTHONPATH=path)
    assert result.returncode == 0, result.stderr
    assert "verified: a run of the torch module under torch's dispatcher" in result.stdout


@pytest.mark.parametrize("stem", ["imagenet", "thumbnail"])
def test_both_roads_agree_on_other_stems(stem: str) -> None:
    assert_roads_agree(load_arch("meliusnet-c", [f"stem={stem}", "input_size=64"]).spec)


@given(specs())
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


@given(specs(), st.sampled_from(["stage", "block", "layer"]))
def test_rows_sum_to_the_total(spec: ArchSpec, by: str) -> None:
    counted = count_spec(spec)
    rows = counted.rows(by)  # type: ignore[arg-type]
    for what in ("binary_macs", "float_macs", "quantized_macs", "params", "binary_params", "size_bytes", "elementwise"):
        assert sum(getattr(row, what) for row in rows) == getattr(counted.total, what)
    assert rows[-1].output == (spec.num_classes,)


def test_blocks_are_rows_of_their_own() -> None:
    names = [row.name for row in count_spec(load_name("meliusnet22")).rows("block")]
    assert names[:3] == ["stem", "stage1.block1", "stage1.block2"]
    assert len(names) == 1 + 17 + 3 + 1


def test_conventions_differ_by_the_classifier_alone() -> None:
    total = count_spec(load_name("mobilenet-v1")).total
    assert FULL.derive(total).ops - MELIUS.derive(total).ops == 1_024_000 == total.linear_macs


@pytest.mark.parametrize(
    ("name", "number"), [("tfc", "4 of tfc (the classifier too)"), ("xnornet-alexnet", "2 of xnornet-alexnet")]
)
def test_dense_layers_that_are_convolutions_are_said_to_count(name: str, number: str) -> None:
    network = Counted(name, load_name(name), (), count_spec(load_name(name)))
    (note,) = convention_notes([network], MELIUS)
    assert note.endswith(f"are counted: {number}")
    assert MELIUS.derive(network.count.total).ops > 0
    assert convention_notes([network], FULL) == ()
    plain = Counted("meliusnet22", load_name("meliusnet22"), (), count_spec(load_name("meliusnet22")))
    assert convention_notes([plain], MELIUS) == ()


def test_no_total_has_the_name_of_one_of_its_parts() -> None:
    """BOPs are binary MACs and FLOPs float ones, in every convention."""
    assert not {rule.unit.rpartition(" ")[2] for rule in CONVENTIONS.values()} & {"BOPs", "FLOPs", "MACs"}
    assert not any(rule.legend.startswith("BOPs") for rule in CONVENTIONS.values())


def test_published_rows_are_found_by_architecture_not_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(load_name("meliusnet22").to_toml())
    found = published_for(load_arch(str(path)).spec)
    assert found[0].top1 == "63.6"
    assert published_for(load_arch("meliusnet22", ["growth_rate=48"]).spec) == ()


# Bits and conventions


def test_every_published_ace_of_pokebnn_by_width() -> None:
    """From PokeBNN's code (google/aqt, ``size_stats``), in 1e9; the abstract prints 2.6 and 7.8."""
    for width, ace in (
        *(("0.5", 1.410), ("0.75", 2.588), ("1.0", 4.223), ("1.25", 6.314)),
        *(("1.4", 7.758), ("1.5", 8.863), ("1.75", 11.868), ("2.0", 15.331)),
    ):
        counted = CONVENTIONS["ace"].derive(count_spec(load_name(f"pokebnn-{width}")).total).ops
        assert counted is not None
        assert round(counted / 1e9, 3) == ace


def test_float_bits_price_float_macs_in_ace_alone() -> None:
    """ReActNet-A: 7.9e9 with 16 bits, as PokeBNN's abstract has it, 5.58e9 with 8 and 16.96e9 with 32."""
    total = count_spec(load_name("reactnet-a")).total
    found = [CONVENTIONS["ace"].derive(total, bits).ops for bits in (None, 8, 32)]
    assert [round(ops / 1e9, 2) for ops in found if ops is not None] == [7.85, 5.58, 16.96]
    assert MELIUS.derive(total, 8) == MELIUS.derive(total)


@pytest.mark.parametrize(
    ("name", "params", "binary_params", "size_bytes", "binary_macs", "float_macs"),
    [
        # larq 0.14's models.summary of larq-zoo 2.4 at 3x224x224.
        ("birealnet18", 11_689_512, 10_985_472, 4_189_344, 1_676_279_808, 137_793_536),
        ("binaryalexnet", 61_848_720, 61_827_776, 7_812_248, 768_512_000, 72_855_552),
        ("binarydensenet28", 5_131_496, 4_202_496, 4_241_312, 3_587_383_296, 202_484_224),
        ("binarydensenet37", 8_702_248, 7_593_984, 5_382_304, 4_506_808_320, 199_738_368),
        ("binarydensenet37-dilated", 8_702_248, 7_593_984, 5_382_304, 7_774_470_144, 452_625_408),
        ("binarydensenet45", 13_889_512, 12_349_440, 7_703_968, 6_430_556_160, 244_103_424),
        ("dorefanet-alexnet", 62_394_440, 58_236_928, 23_909_664, 0, 125_028_352),
        ("meliusnet22", 6_944_584, 6_119_424, 4_065_568, 4_624_220_160, 136_388_608),
        ("real2binary", 11_986_920, 10_985_472, 5_378_976, 1_676_279_808, 138_087_936),
        ("xnornet-alexnet", 62_387_104, 58_236_928, 23_880_320, 1_025_744_896, 113_379_328),
        ("quicknet", 13_234_088, 12_533_760, 4_368_032, 1_849_688_064, 29_651_712),
        ("quicknet-large", 23_342_248, 22_634_496, 5_660_320, 3_699_376_128, 29_651_712),
        ("quicknet-small", 12_655_688, 11_980_800, 4_197_152, 1_156_055_040, 15_941_120),
    ],
)
def test_larqs_summary_to_the_last_unit(
    name: str, params: int, binary_params: int, size_bytes: int, binary_macs: int, float_macs: int
) -> None:
    total = count_spec(load_name(name)).total
    assert (total.params, total.binary_params, total.size_bytes) == (params, binary_params, size_bytes)
    derived = CONVENTIONS["larq"].derive(total)
    assert (derived.bops, derived.flops, derived.ops) == (binary_macs, float_macs, None)
    assert derived.quantized == (2_924_609_536 if name == "dorefanet-alexnet" else 0)


@pytest.mark.parametrize(("num_weights", "num_activations"), [(1, 1), (5, 3), (3, 5)])
def test_abcnet_has_every_product_of_its_bases_and_a_bit_a_base_and_weight(
    num_weights: int, num_activations: int
) -> None:
    """Its 3x3 convolutions are ResNet-18's, whose binary MACs and weights are those of Bi-Real-18 in larq's summary."""
    bases = [f"weight_bases={num_weights}", f"activation_bases={num_activations}"]
    total = count_spec(load_arch("abcnet18", bases).spec).total
    assert total.binary_macs == num_weights * num_activations * 1_676_279_808
    assert total.binary_params == num_weights * 10_985_472
    assert total.float_macs == 137_793_536
    # ResNet-18's without its last convolution's ReLU: BN of two values, and two learned values a base and convolution.
    assert total.float_params == count_spec(load_name("resnet18")).total.params - 10_985_472 + 16 * 2 * num_activations


def test_the_published_accuracies_of_abcnet_18_by_its_bases() -> None:
    """arXiv 1711.11294, table 2: top-1 and top-5 of M weight and N activation bases."""
    table = {(5, 5): "65.0 85.9", (5, 3): "62.5 84.2", (5, 1): "54.1 78.1", (3, 5): "63.1 84.8", (3, 3): "61.0 83.2"}
    for (m, n), wanted in {**table, (3, 1): "49.1 73.8", (1, 1): "42.7 67.6"}.items():
        spec = load_arch("abcnet18", [f"weight_bases={m}", f"activation_bases={n}"]).spec
        first = published_for(spec)[0]
        assert f"{first.top1} {first.top5}" == wanted


def test_resnete18_is_larqs_without_the_norm_of_the_input() -> None:
    larqs = count_spec(load_arch("resnete18", ["input_norm=false"]).spec).total
    assert (larqs.params, larqs.size_bytes) == (11_689_640, 4_189_856)
    assert count_spec(load_name("resnete18")).total.params == 11_689_646


@pytest.mark.parametrize(
    ("name", "four_values"),
    [
        ("xnornet-alexnet", 62_396_768),
        ("binaryalexnet", 61_859_192),
        ("birealnet18", 11_699_112),
        ("quicknet", 13_243_720),
    ],
)
def test_batch_norm_of_a_checkpoint_counts_what_is_stored(name: str, four_values: int) -> None:
    """Four values a channel, three without scale, two without scale and shift (larq-zoo's docstrings; QuickNet's by
    arithmetic: 16 channels of its stem have neither)."""
    assert count_spec(load_name(name), Storage(bn_params=4)).total.params == four_values


def test_eight_bit_floats_shrink_what_is_float_alone() -> None:
    spec = load_name("meliusnet22")
    whole, small = count_spec(spec).total, count_spec(spec, Storage(float_bits=8)).total
    assert whole.size_bytes - small.size_bytes == 3 * whole.float_params
    assert small.size_bytes == 6_119_424 // 8 + 825_160


def test_a_binary_weight_that_meets_a_float_input_is_a_float_mac() -> None:
    first = count_spec(load_name("binaryalexnet")).layers[0]
    assert (first.float_macs, first.binary_macs, first.binary_params) == (72_855_552, 0, 23_232)


def test_an_8x8_bit_mac_costs_a_float_one_and_a_4x4_bit_one_a_quarter() -> None:
    head, excite = (
        next(row for row in count_spec(load_name("pokebnn-1.0")).layers if row.name == name)
        for name in ("head.fc", "stage1.block1.unit1.excite.reduce")
    )
    assert FULL.derive(head).ops == head.quantized_macs == 2_048_000
    assert FULL.derive(excite).ops == excite.quantized_macs / 4 == 128


def test_real2binarys_elementwise_rule_by_hand() -> None:
    """One ReLU network small enough to write out: MobileNet of one block on 8x8 pixels."""
    spec = load_arch("mobilenet-v1", ["channels=[4]", "strides=[1]", "stem_channels=2", "input_size=8"]).spec
    total = count_spec(spec).total
    stem, depthwise, pointwise = 2 * 16, 2 * 16, 4 * 16
    assert total.elementwise == (2 + 2) * (stem + depthwise + pointwise) + 16 * 4
    derived = CONVENTIONS["real2binary"].derive(total)
    assert derived.flops == total.float_macs + total.elementwise


@given(specs())
def test_conventions_agree_where_they_must(spec: ArchSpec) -> None:
    total = count_spec(spec).total
    derived = {name: rule.derive(total) for name, rule in CONVENTIONS.items()}
    assert derived["full"] == derived["reactnet"]
    assert derived["real2binary"].flops - derived["full"].flops == total.elementwise
    assert derived["larq"].flops == derived["full"].flops
    for what in ("bops", "flops", "ops"):
        assert getattr(derived["melius"], what) <= getattr(derived["full"], what)
    ace = sum(n * (256 if op.is_float else op.weight_bits * op.activation_bits) for op, n in total.macs)
    assert derived["ace"].ops == ace


def test_json_is_plain() -> None:
    network = Counted("x", load_name("pokebnn-0.5"), (3, 224, 224), count_spec(load_name("pokebnn-0.5")))
    value = count_object(network, "stage", View(MELIUS), None)
    assert json.loads(json.dumps(value)) == value
    assert sum(value["total"]["macs"].values()) == sum(n for _, n in network.count.total.macs)
    assert sum(value["total"]["weights"].values()) == value["total"]["params"]
