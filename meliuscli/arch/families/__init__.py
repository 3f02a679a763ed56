"""The families: one spec class each, found by the ``family`` key of a spec and imported when it is asked for."""

from __future__ import annotations

from importlib import import_module

from meliuscli.arch.spec import ArchSpec

FAMILIES = {
    "meliusnet": "dense:MeliusNetSpec",
    "binarydensenet": "dense:BinaryDenseNetSpec",
    "resnete": "resnet:ResNetESpec",
    "birealnet": "resnet:BiRealNetSpec",
    "xnor-resnet": "resnet:XnorResNetSpec",
    "abcnet": "abcnet:ABCNetSpec",
    "bmxnet-resnet": "bmxnet:BMXNetResNetSpec",
    "finn-fc": "small:FinnDenseSpec",
    "finn-cnv": "small:FinnConvSpec",
    "vgg-small": "small:VGGSmallSpec",
    "real2binary": "resnet:RealToBinarySpec",
    "resnet": "resnet:ResNetSpec",
    "binary-alexnet": "alexnet:BinaryAlexNetSpec",
    "xnor-alexnet": "alexnet:XnorAlexNetSpec",
    "dorefa-alexnet": "alexnet:DoReFaAlexNetSpec",
    "reactnet": "reactnet:ReActNetSpec",
    "quicknet": "quicknet:QuickNetSpec",
    "bnext": "bnext:BNextSpec",
    "pokebnn": "pokebnn:PokeBNNSpec",
    "mobilenet-v1": "mobilenet:MobileNetV1Spec",
    "mobilenet-v2": "mobilenet:MobileNetV2Spec",
}
"""Name -> file (here, and in ``meliuscli.nn.families``) and class."""


def family_file(name: str) -> str:
    """The file of a family in ``FAMILIES``."""
    return FAMILIES[name].partition(":")[0]


def family_class(name: str) -> type[ArchSpec]:
    """The spec class of a family in ``FAMILIES``."""
    attribute = FAMILIES[name].partition(":")[2]
    found: type[ArchSpec] = getattr(import_module(f"meliuscli.arch.families.{family_file(name)}"), attribute)
    return found


def families_with_widths() -> tuple[str, ...]:
    """The families whose networks can be narrowed."""
    return tuple(name for name in FAMILIES if family_class(name).widths)
