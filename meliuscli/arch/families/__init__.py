"""The families: one class a family, found by the ``family`` key of a spec."""

from meliuscli.arch.families.dense import BinaryDenseNetSpec, MeliusNetSpec
from meliuscli.arch.families.mobilenet import MobileNetV1Spec
from meliuscli.arch.spec import ArchSpec

FAMILIES: dict[str, type[ArchSpec]] = {
    "meliusnet": MeliusNetSpec,
    "binarydensenet": BinaryDenseNetSpec,
    "mobilenet-v1": MobileNetV1Spec,
}
