"""Specs: validation, canonical form, archid, TOML round trips, names."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import specs
from hypothesis import given

from meliuscli.arch.adapt import at_input
from meliuscli.arch.families import FAMILIES
from meliuscli.arch.families.dense import BinaryDenseNetSpec, MeliusNetSpec
from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import arch_names, load_arch, load_name, parse_override
from meliuscli.errors import BadInputError, SpecError


def test_the_canonical_names_are_all_there() -> None:
    assert set(arch_names()) == {
        *(f"meliusnet{n}" for n in (22, 23, 29, 42, 59)),
        *(f"meliusnet-{letter}" for letter in "abc"),
        *(f"binarydensenet{n}" for n in ("28", "37", "45", "37-dilated")),
        *("mobilenet-v1", "mobilenet-v1-0.75", "mobilenet-v1-0.5", "mobilenet-v1-0.25"),
        *("mobilenet-v2", *(f"mobilenet-v2-{width}" for width in ("1.4", "1.3", "0.75", "0.5", "0.35"))),
        *("resnet18", "resnet34", "resnet50", "resnete18", "resnete34"),
        *("birealnet18", "birealnet34", "birealnet50", "bnn-resnet18", "xnornet-resnet18"),
        *("binaryalexnet", "xnornet-alexnet", "dorefanet-alexnet", "real2binary"),
        *("abcnet18", "abcnet34", "bmxnet-resnet18"),
        *("tfc", "sfc", "lfc", "cnv", "resnet20", "birealnet20", "vgg-small"),
        *("reactnet-a", "reactnet-b", "reactnet-c", "reactnet18"),
        *("quicknet-small", "quicknet", "quicknet-large", "bnext-t", "bnext-s", "bnext-m", "bnext-l"),
        *(f"pokebnn-{width}" for width in ("0.5", "0.75", "1.0", "1.25", "1.4", "1.5", "1.75", "2.0")),
    }
    assert len(arch_names()) == 65


def test_the_documents_say_how_many_networks_and_families_there_are() -> None:
    root, networks, families = Path(__file__).parents[1], len(arch_names()), len(FAMILIES)
    readme = " ".join((root / "README.md").read_text(encoding="utf-8").split())
    assert f"{networks} networks of {families} families" in readme
    assert f"all {networks} networks are counted" in readme
    assert f"{networks} named networks of {families} families" in (root / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("MeliusNetA", "meliusnet-a"),
        ("melius-net_22", "meliusnet22"),
        ("mobilenetv1-0.5", "mobilenet-v1-0.5"),
        ("MobileNet-V1", "mobilenet-v1"),
        ("BinaryDenseNet37Dilated", "binarydensenet37-dilated"),
        ("ReActNetA", "reactnet-a"),
        ("PokeBNN_1.0", "pokebnn-1.0"),
        ("XNORNet-AlexNet", "xnornet-alexnet"),
    ],
)
def test_names_match_without_case_and_hyphens(typed: str, meant: str) -> None:
    assert load_arch(typed).name == meant


def test_an_unknown_name_shows_the_nearest() -> None:
    with pytest.raises(BadInputError) as caught:
        load_arch("melusnet29")
    assert "meliusnet29" in (caught.value.hint or "")


@pytest.mark.parametrize("name", arch_names())
def test_the_number_in_a_meliusnets_name_is_its_blocks_plus_five(name: str) -> None:
    suffix = name.removeprefix("meliusnet")
    if suffix.isdigit():
        spec = load_name(name)
        assert isinstance(spec, MeliusNetSpec)
        assert sum(spec.num_blocks) + 5 == int(suffix)


@given(specs())
def test_toml_round_trips(tmp_path_factory: pytest.TempPathFactory, spec: ArchSpec) -> None:
    path = tmp_path_factory.mktemp("toml") / "net.toml"
    path.write_text(spec.to_toml())
    again = load_arch(str(path))
    assert again.spec == spec
    assert again.spec.archid == spec.archid
    assert hash(again.spec) == hash(spec)


def test_archid_names_the_architecture_and_never_changes() -> None:
    assert load_name("meliusnet22").archid == "397250e88b64"
    assert load_name("mobilenet-v1").archid == "6a330bee52b2"
    explicit = MeliusNetSpec(
        num_blocks=(4, 5, 4, 4),
        transition_channels=(160, 224, 256),
        growth_rate=(64, 64, 64, 64),
        dilation=(1, 1, 1, 1),
        stem="grouped",
    )
    assert explicit.archid == "397250e88b64"
    assert load_arch("meliusnet22", ["stem=imagenet"]).spec.archid != "397250e88b64"


def test_all_named_networks_are_different() -> None:
    assert len({load_name(name).archid for name in arch_names()}) == len(arch_names())


def test_reductions_give_the_papers_widths() -> None:
    for name, blocks, reduction in (
        ("binarydensenet28", [6, 6, 6, 5], [2.7, 2.7, 2.2]),
        ("binarydensenet37", [6, 8, 12, 6], [3.3, 3.3, 4]),
        ("binarydensenet45", [6, 12, 14, 8], [2.7, 3.3, 4]),
    ):
        assert BinaryDenseNetSpec(num_blocks=blocks, reduction=reduction) == load_name(name)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("wide", "ratio", "narrow"),
    [
        ("mobilenet-v1", "width_multiplier=0.5", "mobilenet-v1-0.5"),
        ("mobilenet-v2-1.4", "width_multiplier=0.5", "mobilenet-v2-0.5"),
        ("pokebnn-1.0", "width_multiplier=0.5", "pokebnn-0.5"),
        ("binarydensenet28", "reduction=[2.7,2.7,2.2]", "binarydensenet28"),
    ],
)
def test_a_ratio_replaces_all_the_widths_that_a_file_states(tmp_path: Path, wide: str, ratio: str, narrow: str) -> None:
    path = tmp_path / "wide.toml"
    path.write_text(load_name(wide).to_toml())
    assert load_arch(str(path), [ratio]).spec == load_name(narrow)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("num_blocks=[4,-1,4,4]", "num_blocks"),
        ("num_blocks=[4,2.5,4,4]", "num_blocks"),
        ("num_blocks=[4,4.0,4,4]", "num_blocks"),
        ("num_blocks=[4,true,4,4]", "num_blocks"),
        ("num_blocks=[0,5,4,4]", "num_blocks"),
        ("num_blocks=[]", "num_blocks"),
        ("num_blocks=4", "num_blocks"),
        ("num_blocks=[4,5,4]", "transition_channels"),
        ("num_blocks=[99999,1,1,1]", "num_blocks"),
        ("growth_rate=0", "growth_rate"),
        ("growth_rate=[64,64]", "growth_rate"),
        ("groups=3", "groups"),
        ("stem=grouuped", "stem"),
        ("stem_channels=20", "stem_channels"),
        ("stem_channels=33", "stem_channels"),
        ("input_size=8", "input_size"),
        ("input_size=0", "input_size"),
        ("input_channels=0", "input_channels"),
        ("num_classes=-3", "num_classes"),
        ("dilation=[1,2]", "dilation"),
        ("growthrate=48", "growthrate"),
        ("reduction=[1,0,2]", "reduction"),
        ("reduction=[2]", "reduction"),
    ],
)
def test_an_impossible_network_is_refused_with_the_key_at_fault(override: str, key: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_arch("meliusnet22", [override])
    assert caught.value.key.split(".")[0] == key
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["=3", "groups", "groups=", " =", ""])
def test_an_override_needs_key_and_value(text: str) -> None:
    with pytest.raises(BadInputError):
        parse_override(text)


def test_overrides_are_toml_values_or_words() -> None:
    assert parse_override("num_blocks=4,5") == ("num_blocks", [4, 5])
    assert parse_override("num_blocks=[4, 5]") == ("num_blocks", [4, 5])
    assert parse_override("stem = imagenet") == ("stem", "imagenet")
    assert parse_override("width_multiplier=0.5") == ("width_multiplier", 0.5)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("num_blocks = [1", "not valid TOML"),
        ('family = "meliusnet"\nnum_blocks = [1, 1]\n', "transition_channels"),
        ("num_blocks = [1]\n", "family: missing"),
        ('family = "resnext"\n', "unknown family"),
        ('family = "meliusnet"\nnum_blocks = [1]\nblocks = 3\n', "blocks: unknown key"),
        ('family = "meliusnet"\n', "num_blocks"),
        ("\x00\xff", "not valid TOML"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "net.toml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(BadInputError) as caught:
        load_arch(str(path))
    assert "net.toml" in caught.value.message
    assert says in caught.value.message


def test_any_number_of_stages_and_a_single_one() -> None:
    one = MeliusNetSpec(num_blocks=(2,), input_size=32, input_channels=1)  # type: ignore[call-arg]
    assert one.layers()[-1].in_channels == 64 + 2 * 64
    six = MeliusNetSpec(num_blocks=(1,) * 6, transition_channels=(64,) * 5)  # type: ignore[call-arg]
    assert six.layers()[-1].name == "head.fc"


def test_narrowing_keeps_the_topology_and_finds_groups_that_divide() -> None:
    spec = load_name("meliusnet23")
    assert isinstance(spec, MeliusNetSpec)
    narrow = at_input(spec, 10, 1, 16).narrowed(8)
    assert narrow.num_blocks == spec.num_blocks
    assert narrow.growth_rate == (8,) * 4
    assert narrow.transition_channels == (16, 24, 36)
    assert narrow.groups == 4
    assert narrow.stem == "thumbnail"
