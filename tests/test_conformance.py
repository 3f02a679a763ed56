"""What every family must do: a short form, narrowing, TOML, both roads of counting, a space that is searched to its
report. A family without an entry below fails."""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from conftest import Cli
from torch import nn
from torch.nn.functional import cross_entropy

from meliuscli.arch.adapt import as_proxy, at_input
from meliuscli.arch.families import FAMILIES, family_class
from meliuscli.arch.families.dense import MeliusNetSpec
from meliuscli.arch.plan import STEM, place_name
from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import load_arch, load_name, spec_from_fields, zoo_table
from meliuscli.counting.analytic import count_spec
from meliuscli.counting.traced import differences, trace_module
from meliuscli.errors import BadInputError, SpecError
from meliuscli.export.onnx import IMAGES, frozen, write_onnx
from meliuscli.export.packed import load_packed, write_packed
from meliuscli.nn.build import build
from meliuscli.packed.bench import random_network
from meliuscli.packed.runner import pack
from meliuscli.packed.selftest import check, require_exact
from meliuscli.report.counted import Counted
from meliuscli.report.drawing import drawing_table
from meliuscli.search.objective import proxy_spec
from meliuscli.search.space import SearchSpace, load_space


@dataclass(frozen=True)
class Member:
    """A published network of a family, and a small space of it: fields of the target, and fields to search."""

    known: str
    target: Mapping[str, Any]
    parameters: str
    too_small: int | None = None
    """The largest input that the published network cannot have, where there is one."""
    proxy_size: int = 16
    """The input of the space's proxies."""


STAGES = "num_blocks = [{ low = 1, high = 2 }, { low = 1, high = 2 }]\n"
CHANNELS = "channels = [{ choices = [16, 32] }, { choices = [32, 64] }]\n"
ALEXNET = "channels = [{ low = 8, high = 8 }, { choices = [8, 16] }, { low = 8, high = 8 }, { low = 8, high = 8 }, { low = 8, high = 8 }]\n"
THUMBNAIL = {"stem": "thumbnail"}
MEMBERS = {
    "meliusnet": Member(
        "meliusnet-c", {**THUMBNAIL, "transition_channels": [32]}, STAGES + "growth_rate = { choices = [16, 32] }", 7
    ),
    "binarydensenet": Member(
        "binarydensenet28",
        {**THUMBNAIL, "stem_channels": 32},
        STAGES
        + "growth_rate = [{ choices = [16, 32] }, { choices = [16, 32] }]\ntransition_channels = [{ choices = [32, 64] }]",
        7,
    ),
    "resnete": Member("resnete18", THUMBNAIL, STAGES + CHANNELS + "input_norm = { choices = [false, true] }"),
    "birealnet": Member("birealnet18", THUMBNAIL, STAGES + CHANNELS + 'block = { choices = ["basic", "bottleneck"] }'),
    "xnor-resnet": Member(
        "xnornet-resnet18", THUMBNAIL, STAGES + CHANNELS + 'shortcut = { choices = ["float", "binary"] }'
    ),
    "abcnet": Member(
        "abcnet18",
        {**THUMBNAIL, "channels": [16, 32]},
        STAGES + "weight_bases = { low = 1, high = 2 }\nactivation_bases = { low = 1, high = 2 }",
    ),
    "bmxnet-resnet": Member(
        "bmxnet-resnet18",
        THUMBNAIL,
        STAGES + CHANNELS + "stem_channels = { choices = [16, 32] }",
    ),
    "finn-fc": Member("tfc", {}, "hidden = [{ choices = [16, 32] }, { choices = [16, 32] }]"),
    "finn-cnv": Member(
        "cnv",
        {"channels": [8, 8, 8, 8, 16, 16]},
        "hidden = [{ choices = [16, 32] }, { choices = [16, 32] }]",
        31,
        32,
    ),
    "vgg-small": Member(
        "vgg-small",
        {},
        "channels = [{ low = 8, high = 8 }, { choices = [8, 16] }, { low = 8, high = 8 }, { low = 8, high = 8 }, { low = 8, high = 8 }, { choices = [8, 16] }]",
        7,
    ),
    "real2binary": Member("real2binary", THUMBNAIL, STAGES + CHANNELS + "stem_channels = { choices = [16, 32] }"),
    "resnet": Member("resnet18", THUMBNAIL, STAGES + CHANNELS + "stem_channels = { choices = [16, 32] }"),
    "binary-alexnet": Member("binaryalexnet", THUMBNAIL, ALEXNET + "hidden = { choices = [16, 32] }", 14),
    "xnor-alexnet": Member("xnornet-alexnet", THUMBNAIL, ALEXNET + "hidden = { choices = [16, 32] }", 14),
    "dorefa-alexnet": Member(
        "dorefanet-alexnet", {**THUMBNAIL, "hidden": 16}, ALEXNET + "activation_bits = { low = 1, high = 3 }", 8
    ),
    "reactnet": Member(
        "reactnet-a",
        {"channels": [32, 32], "strides": [1, 2]},
        'stem_channels = { choices = [16, 32] }\nwidening = { choices = ["binary", "float"] }',
    ),
    "quicknet": Member("quicknet-small", {}, STAGES + CHANNELS, 28),
    "bnext": Member("bnext-t", {"stem_channels": 32}, "channels = [{ choices = [32, 64] }, { choices = [64, 128] }]"),
    "pokebnn": Member("pokebnn-0.5", {"stem_groups": 16}, STAGES + CHANNELS, 3),
    "mobilenet-v1": Member(
        "mobilenet-v1-0.25", {"strides": [1, 2]}, CHANNELS + "stem_channels = { choices = [16, 32] }"
    ),
    "mobilenet-v2": Member(
        "mobilenet-v2-0.35",
        {"strides": [1, 2], "expansion": [1, 6]},
        STAGES + CHANNELS + "head_channels = { choices = [32, 64] }",
    ),
}
SPACE = """
family = "{family}"
known = ["{known}"]
[target]
input_size = 32
num_classes = 10
{target}
[parameters]
{parameters}
[proxy]
dataset = "fashion-mnist-mini"
input_size = {proxy_size}
width_divisor = 4
[proxy.recipe]
epochs = 0.03
batch_size = 50
[final.recipe]
epochs = 0.05
batch_size = 50
"""


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def published(family: str) -> ArchSpec:
    """The member's published network for 32x32 images of ten classes."""
    return at_input(load_name(MEMBERS[family].known), 10, 3, 32)


def space_file(family: str, directory: Path) -> Path:
    member = MEMBERS[family]
    target = "\n".join(f"{key} = {json.dumps(value)}" for key, value in member.target.items())
    path = directory / f"{family}.toml"
    values = {"target": target, "parameters": member.parameters, "proxy_size": member.proxy_size}
    path.write_text(SPACE.format(family=family, known=member.known, **values))
    return path


def space_of(family: str, directory: Path) -> SearchSpace:
    return load_space(str(space_file(family, directory)))[1]


def topology(spec: ArchSpec) -> list[tuple[object, ...]]:
    return [(layer.name, layer.kind, layer.kernel, layer.stride, layer.out_size) for layer in spec.layers()]


def train(spec: ArchSpec, num_steps: int) -> list[float]:
    """Losses of some steps on eight images of noise."""
    torch.manual_seed(0)
    network = build(spec)
    images, labels = torch.randn(8, *spec.input_shape), torch.arange(8) % spec.num_classes
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=0.003)
    losses = []
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss = cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_every_family_is_held_to_this() -> None:
    assert set(MEMBERS) == set(FAMILIES)
    assert all(load_name(member.known).family == family for family, member in MEMBERS.items())


# Where a layer lies


def test_every_layer_says_its_stage_and_block_as_its_name_does(family: str) -> None:
    for spec in zoo_at_64(family):
        layers = spec.layers()
        for layer in layers:
            place = place_name(layer.stage, layer.block)
            assert layer.stage
            assert layer.name == place or layer.name.startswith(f"{place}.")
            assert (".block" in layer.name) == (layer.block > 0)
        assert len({layer.name for layer in layers}) == len(layers)
        places = [place for place, _ in groupby(layers, lambda layer: (layer.stage, layer.block))]
        assert len(set(places)) == len(places)
        assert places[0][0] in (STEM, "input_norm")


# The short form


def test_the_short_forms_of_a_familys_published_networks_are_single_lines_and_differ(family: str) -> None:
    names = [name for name, fields in zoo_table().items() if fields["family"] == family]
    lines = [load_name(name).summary() for name in names]
    assert len(set(lines)) == len(lines)
    assert all(line and "\n" not in line and len(line) < 100 for line in lines)


def test_networks_that_differ_in_one_searched_field_have_other_short_forms(family: str, tmp_path: Path) -> None:
    space = space_of(family, tmp_path)
    params = space.any_candidate.params
    neighbours = [
        space.try_candidate((*params[:index], value, *params[index + 1 :]))
        for index, axis in enumerate(space.axes.values())
        for value in axis.values
    ]
    specs = {candidate.archid: candidate.spec for candidate in neighbours if candidate is not None}
    assert len(specs) >= 2
    assert len({spec.summary() for spec in specs.values()}) == len(specs)


def test_the_legend_names_the_field_of_every_letter(family: str) -> None:
    spec_class = family_class(family)
    assert spec_class.letters
    for key, letter in spec_class.letters.items():
        assert key in spec_class.model_fields
        assert (f"{letter} for {key}" if letter else f"{key} first") in spec_class.legend


@pytest.mark.parametrize(
    ("name", "changes", "line"),
    [
        ("meliusnet22", [], "4,5,4,4 g64 t160,224,256 /1 s64"),
        ("meliusnet-a", ["growth_rate=[32,64,64,64]"], "4,5,5,6 g32,64,64,64 t160,256,288 /4 s64"),
        ("meliusnet22", ["stem=imagenet", "input_size=192"], "4,5,4,4 g64 t160,224,256 /1 s64 stem=imagenet @192"),
        ("binarydensenet37-dilated", [], "6,8,12,6 g64 t128,192,256 /1 s64 dilation=1,1,2,4"),
        ("reactnet18", [], "4,4,4,4 c64,128,256,512 s64 reactivation=true"),
        ("reactnet-a", [], "c64,128x2,256x2,512x6,1024x2 s32"),
        ("dorefanet-alexnet", ["activation_bits=4"], "c96,256,384,384,256 h4096 activation_bits=4"),
        ("mobilenet-v2", [], "1,2,3,4,3,3,1 c16,24,32,64,96,160,320 s32 h1280"),
    ],
)
def test_short_forms(name: str, changes: list[str], line: str) -> None:
    assert load_arch(name, changes).spec.summary() == line


# Narrowing


def widths_of(spec: ArchSpec) -> list[int]:
    fields = [getattr(spec, key) for key in spec.widths]
    return [width for field in fields for width in (field if isinstance(field, tuple) else (field,))]


def zoo_at_64(family: str) -> list[ArchSpec]:
    """The family's published networks, with stems for 64x64 images."""
    return [at_input(load_name(name), 10, 3, 64) for name, fields in zoo_table().items() if fields["family"] == family]


@pytest.mark.parametrize("divisor", [2, 8, 64, 4096])
def test_narrowing_keeps_the_topology_and_shrinks_the_widths(family: str, divisor: int) -> None:
    for wide in zoo_at_64(family):
        narrow = wide.narrowed(divisor)
        assert topology(narrow) == topology(wide)
        assert all(new >= old / divisor for old, new in zip(widths_of(wide), widths_of(narrow), strict=True))
        assert sum(widths_of(narrow)) < sum(widths_of(wide))


def test_half_the_widths_are_half_the_widths_rounded_up(family: str) -> None:
    for wide in zoo_at_64(family):
        assert widths_of(wide.narrowed(2)) == [-(-width // 2) for width in widths_of(wide)]


def test_dividing_by_one_changes_nothing(family: str) -> None:
    assert published(family).narrowed(1) == published(family)


def test_a_narrowed_network_counts_the_same_by_both_roads_and_survives_toml(family: str) -> None:
    narrow = published(family).narrowed(8)
    assert differences(count_spec(narrow), trace_module(build(narrow), narrow.input_shape)) == []
    assert count_spec(narrow).total.params < count_spec(published(family)).total.params / 8
    assert spec_from_fields(tomllib.loads(narrow.to_toml())) == narrow


def test_a_narrowed_network_learns(family: str) -> None:
    losses = train(published(family).narrowed(8), 6)
    assert min(losses[3:]) < losses[0]


@pytest.mark.parametrize("size", [32, 16])
@pytest.mark.parametrize("name", ["resnete18", "resnete34", "binarydensenet28", "binarydensenet37", "meliusnet59"])
def test_networks_with_imagenet_results_train_narrowed_on_thumbnails(name: str, size: int) -> None:
    proxy = as_proxy(load_name(name), 10, 3, size, 8)
    assert getattr(proxy, "stem", None) == "thumbnail"
    assert len(train(proxy, 1)) == 1


@pytest.mark.parametrize(
    "name", ["resnete18", "resnete34", "binarydensenet28", "meliusnet22", "birealnet50", "real2binary"]
)
@pytest.mark.parametrize("stem_channels", [32, 64, 96])
def test_the_grouped_stem_is_narrowed_to_a_width_that_its_groups_divide(name: str, stem_channels: int) -> None:
    grouped = load_arch(name, ["stem=grouped", f"stem_channels={stem_channels}"]).spec
    proxy = as_proxy(grouped, 10, 3, 64, 4)
    assert getattr(proxy, "stem", None) == "grouped"
    assert getattr(proxy, "stem_channels", 0) % 16 == 0
    assert topology(proxy) == topology(at_input(grouped, 10, 3, 64))


def test_a_family_without_widths_refuses_and_names_those_that_can() -> None:
    class Rigid(MeliusNetSpec):
        widths: ClassVar[tuple[str, ...]] = ()
        narrowed = ArchSpec.narrowed

    spec = Rigid.model_validate(load_name("meliusnet22").model_dump())
    with pytest.raises(SpecError, match="cannot be narrowed") as caught:
        spec.narrowed(2)
    assert all(family in str(caught.value.hint) for family in FAMILIES)


# The proxy's input


def test_a_proxy_that_is_too_small_is_refused_by_its_key_with_a_word_on_narrowing(family: str) -> None:
    """A quicknet at 8 pixels was refused for `input_size`, which is the target's, and no family but one could be
    narrowed."""
    spec, largest = load_name(MEMBERS[family].known), MEMBERS[family].too_small
    for size in range(1, (largest or 0) + 1):
        with pytest.raises(SpecError, match=f"{size} is too small for {family}") as caught:
            as_proxy(spec, 10, 3, size, 8)
        assert caught.value.key == "proxy.input_size"
        assert "proxy.width_divisor" in str(caught.value.hint)
    assert as_proxy(spec, 10, 3, (largest or 0) + 1, 8).num_classes == 10


# Drawing, packing, export


def small(family: str) -> ArchSpec:
    """The published network at 32x32 with an eighth of its widths."""
    return published(family).narrowed(8)


def test_a_network_is_drawn_with_all_its_blocks_and_work(family: str) -> None:
    spec = small(family)
    network = Counted(family, spec, spec.input_shape, count_spec(spec))
    _, *rows = drawing_table(network).rows
    assert [row[0] for row in rows] == list(dict.fromkeys(layer.stage for layer in spec.layers()))
    blocks = sum(int(text.partition(" block")[0]) for row in rows if " block" in (text := str(row[2])))
    assert blocks == len({(layer.stage, layer.block) for layer in spec.layers() if layer.block})


def test_a_network_is_packed_exactly_or_refused_for_what_it_lacks(family: str) -> None:
    spec = small(family)
    network, images = random_network(spec, 2, 0)
    if not any(layer.weight_bits == layer.activation_bits == 1 for layer in spec.layers()):
        with pytest.raises(BadInputError, match=f"nothing of this {family} can be packed"):
            pack(network, spec)
        return
    packed = pack(network, spec)
    require_exact(check(packed, network, images))
    assert packed(images).shape == (2, spec.num_classes)


def test_a_packed_file_predicts_the_same_or_is_refused(family: str, tmp_path: Path) -> None:
    spec, path = small(family), tmp_path / "network.safetensors"
    network, _ = random_network(spec, 1, 0)
    has_binary = any(layer.weight_bits == layer.activation_bits == 1 for layer in spec.layers())
    if has_binary:
        assert write_packed(network, spec, path)
        again = load_packed(path)
        images = torch.randn(2, *spec.input_shape, generator=torch.Generator().manual_seed(1))
        assert torch.equal(again(images), pack(network, spec)(images))
    else:
        with pytest.raises(BadInputError, match=f"nothing of this {family} can be packed"):
            write_packed(network, spec, path)
    assert path.exists() == has_binary


@torch.no_grad()
@pytest.mark.parametrize("loud", [1.0, 1000.0])
def test_an_images_logits_do_not_depend_on_its_neighbours(family: str, loud: float) -> None:
    """Public ports of binary layers scale by what the whole batch holds; then an exported file, which sees images alone, has
    other classes. The batch has one size, so that not even the order of additions differs."""
    network, images = random_network(small(family), 3, 0)
    others = torch.cat([images[:1], loud * torch.randn(2, *images.shape[1:])])
    assert torch.equal(network(images)[0], network(others)[0])


@torch.no_grad()
def test_a_network_is_frozen_for_export_without_a_change(family: str) -> None:
    network, images = random_network(small(family), 2, 0)
    torch.testing.assert_close(frozen(network)(images), network(images), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def unrest(network: nn.Module, spec: ArchSpec) -> float:
    """How far the logits move when the images change in their last digits, in standard deviations of the logits: what
    another order of additions may do where a rounding flips a sign, and the layers behind spread it."""
    images = torch.randn(IMAGES, *spec.input_shape, generator=torch.Generator().manual_seed(0))
    logits = network(images)
    moves = [(network(images * (1 + step * 2**-22)) - logits).abs().max() for step in (-2, -1, 1, 2)]
    return float(max(moves) / logits.std())


@pytest.mark.slow
def test_onnxruntime_comes_as_near_to_torch_as_torch_to_itself(family: str, tmp_path: Path) -> None:
    spec, path = small(family), tmp_path / "network.onnx"
    network, _ = random_network(spec, 1, 0)
    agreement = write_onnx(network, spec, path)
    assert path.is_file()
    assert agreement is not None
    assert agreement.difference < max(0.01, 2 * unrest(network, spec))


# Spaces


def test_a_space_of_the_family_gives_candidates_whose_proxies_train(family: str, tmp_path: Path) -> None:
    space = space_of(family, tmp_path)
    assert space.known_outside == (MEMBERS[family].known,)
    smallest = space.smallest
    largest = space.candidate(tuple(axis.values[-1] for axis in space.axes.values()))
    assert smallest.ops < largest.ops
    assert space.params_of(largest.spec) == largest.params
    for candidate in (smallest, largest):
        assert all(loss == loss for loss in train(proxy_spec(candidate.spec, space), 2))


@pytest.mark.parametrize("name", ["meliusnet", "meliusnet-cifar", "birealnet", "binarydensenet"])
def test_the_shipped_spaces_hold_every_network_that_they_know(name: str) -> None:
    space = load_space(name)[1]
    assert space.known_outside == ()
    task = {key: space.target[key] for key in ("num_classes", "input_channels", "input_size")}
    for known, candidate in space.known_candidates():
        assert candidate.spec == at_input(load_name(known), **task)


def test_a_known_network_of_another_family_or_width_is_outside(tmp_path: Path) -> None:
    """A `known` network that is not in the space was dropped without a word."""
    path = space_file("birealnet", tmp_path)
    path.write_text(path.read_text().replace('known = ["birealnet18"]', 'known = ["birealnet18", "quicknet"]'))
    assert load_space(str(path))[1].known_outside == ("birealnet18", "quicknet")


@pytest.mark.parametrize(
    ("parameter", "says"),
    [
        ('stem = { choices = ["thumbnail", "imagnet"] }', "parameters.stem.choices: must be 'grouped', 'imagenet' or"),
        ('reactivation = { choices = ["yes", "maybe"] }', "parameters.reactivation.choices: must be a valid boolean"),
        ("stem_channels = { choices = [32, true] }", "parameters.stem_channels.choices: must be numbers, or words"),
        ("stem_channels = { choices = [[32], [64]] }", "one entry with choices for each stage"),
        ("stem_channels = { choices = [0, 32] }", "parameters.stem_channels.choices: must be numbers from 1 on"),
        ("stem_channels = { choices = 32 }", "parameters.stem_channels.choices: must be a list"),
        ("stem_channels = [32, 64]", "parameters.stem_channels.1: must be a table of low, high and step"),
        ("stem_channels = [{ low = 32, high = 64 }]", "no values give a network"),
        ("num_classes = { choices = [10, 100] }", "parameters.num_classes: is the same for all candidates"),
    ],
)
def test_what_a_space_cannot_search_is_refused_when_it_is_read(tmp_path: Path, parameter: str, says: str) -> None:
    path = tmp_path / "bad.toml"
    parameters = f"{STAGES}{CHANNELS}{parameter}"
    text = SPACE.format(family="birealnet", known="birealnet18", target="", parameters=parameters, proxy_size=8)
    path.write_text(text.replace("num_classes = 10\n", "" if "num_classes" in parameter else "num_classes = 10\n"))
    with pytest.raises(SpecError) as caught:
        load_space(str(path))
    assert says in caught.value.message
    assert caught.value.message.startswith("bad.toml: parameters")


def test_a_space_whose_proxy_is_too_small_for_a_choice_is_refused_when_it_is_read(tmp_path: Path) -> None:
    path = space_file("quicknet", tmp_path)
    path.write_text(path.read_text().replace("input_size = 16", "input_size = 8"))
    assert load_space(str(path))[1].size > 1
    path.write_text(path.read_text().replace("input_size = 8", "input_size = 4"))
    with pytest.raises(SpecError, match=r"quicknet\.toml: proxy\.input_size: 4 is too small for quicknet") as caught:
        load_space(str(path))
    assert "proxy.width_divisor" in str(caught.value.hint)


def search(cli: Cli, family: str, directory: Path) -> None:
    """Two trials and their finals, to the report."""
    space = space_of(family, directory)
    done = cli(
        *("search", "--space", str(space_file(family, directory)), "--budget", str(2 * int(space.smallest.ops))),
        *("--trials", "2", "--finalists", "1", "--final-seeds", "1", "--study", "two"),
        *("--workers", "1", "--format", "json"),
    )
    assert done.returncode == 0, done.stderr
    report = (directory / "reports" / "two" / "report.md").read_text()
    front = json.loads(done.stdout)["front"]
    assert front
    lines = {space.candidate(params).spec.summary() for params in _trials(directory / "reports" / "two", space)}
    assert len(lines) == 2
    assert any(line in report for line in lines)
    assert family_class(family).legend in report


def _trials(study: Path, space: SearchSpace) -> list[tuple[Any, ...]]:
    with (study / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    as_text = {name: {str(value): value for value in axis.values} for name, axis in space.axes.items()}
    return [tuple(as_text[name][row[name]] for name in space.axes) for row in rows]


def test_two_trials_of_another_family_reach_the_report(cli: Cli, tmp_path: Path) -> None:
    search(cli, "birealnet", tmp_path)


@pytest.mark.slow
def test_two_trials_of_every_family_reach_the_report(cli: Cli, tmp_path: Path, family: str) -> None:
    search(cli, family, tmp_path)
