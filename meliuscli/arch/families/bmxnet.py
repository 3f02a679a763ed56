"""The ResNet of BMXNet's first version (arXiv 1705.09864; ``smd_hpi/binary_models`` of hpi-xnor/BMXNet): BN in front of
every binary convolution, binary shortcuts, and borders of +1."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from meliuscli.arch.families.residual import ResidualSpec
from meliuscli.arch.plan import Layer, batch_norm, binary_conv, conv_size, elementwise, placed
from meliuscli.arch.spec import PadValue


class BMXNetResNetSpec(ResidualSpec):
    """Blocks of BN, sign, binary convolution, twice. The first block of every stage has a binary 1x1 convolution as its
    shortcut, which takes the signs of the block's first convolution. BMXNet pads maps with zeros and then takes the sign,
    which is +1: ``pad_value``."""

    head_norm: ClassVar[bool] = True
    head_relu: ClassVar[bool] = True

    family: Literal["bmxnet-resnet"] = "bmxnet-resnet"
    pad_value: PadValue = 1

    def _stem(self) -> Iterator[Layer]:
        yield from placed([batch_norm("", self.input_channels, self.input_size, stored=3)], "input_norm")
        yield from super()._stem()

    def _first_block(self, channels: int, width: int, stride: int, size: int) -> Iterator[Layer]:
        return self._unit(channels, width, stride, size, has_shortcut=True)

    def _block(self, channels: int, width: int, stride: int, size: int) -> Iterator[Layer]:
        return self._unit(channels, width, stride, size, has_shortcut=stride > 1)

    def _unit(self, channels: int, width: int, stride: int, size: int, *, has_shortcut: bool) -> Iterator[Layer]:
        after = conv_size(size, 3, stride, 1)
        yield batch_norm("bn1", channels, size)
        yield binary_conv("conv1", channels, width, after, stride=stride)
        yield batch_norm("bn2", width, after)
        yield binary_conv("conv2", width, width, after)
        if has_shortcut:
            yield binary_conv("shortcut", channels, width, after, kernel=1, stride=stride)
        yield elementwise("add", "add", width, after)
