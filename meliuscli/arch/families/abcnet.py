"""ABC-Net (arXiv 1711.11294): ResNet whose convolutions are sums of binary ones, of several bases of the weights and of the
activations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from meliuscli.arch.families.parts import Activation, strided_shortcut
from meliuscli.arch.families.residual import ResidualSpec
from meliuscli.arch.plan import Layer, batch_norm, conv_size, elementwise

Bases = Annotated[int, Field(strict=True, ge=1, le=16)]


class ABCNetSpec(ResidualSpec):
    """A 3x3 convolution of the basic blocks is ``weight_bases`` (M) times ``activation_bases`` (N) binary ones: every
    base of the weights meets every base of the activations. First convolution and classifier are float. The bases of a
    convolution's weights have one scale each, for all filters (the paper's "as a whole"), which follows from the weights
    and is not counted, as XNOR-Net's; those of the activations learn a shift and a scale each (sections 3.1 and 3.2).

    The paper does not say what lies on a shortcut that changes the shape; here it is float, as in XNOR-Net."""

    stem_activation: ClassVar[Activation] = "none"
    head_relu: ClassVar[bool] = True
    letters: ClassVar[Mapping[str, str]] = {**ResidualSpec.letters, "weight_bases": "w", "activation_bases": "a"}

    family: Literal["abcnet"] = "abcnet"
    weight_bases: Bases = 5
    activation_bases: Bases = 5

    def _block(self, channels: int, width: int, stride: int, size: int) -> Iterator[Layer]:
        after = conv_size(size, 3, stride, 1)
        yield from self._conv("conv1", channels, width, stride, size, after)
        yield batch_norm("bn1", width, after)
        yield from self._conv("conv2", width, width, 1, after, after)
        yield batch_norm("bn2", width, after)
        yield from strided_shortcut(channels, width, stride, after)
        yield elementwise("add", "add", width, after)

    def _conv(self, name: str, channels: int, width: int, stride: int, size: int, after: int) -> Iterator[Layer]:
        num_weights, num_activations = self.weight_bases, self.activation_bases
        products = num_weights * num_activations
        # One addition an element and base in front of the signs; behind the convolutions, all are scaled and added up.
        yield Layer(
            f"{name}.sign", "parameters", channels, channels, size, params=2 * num_activations, work=num_activations
        )
        yield Layer(
            f"{name}.conv",
            "conv",
            channels,
            num_weights * width,
            after,
            kernel=3,
            stride=stride,
            weight_bits=1,
            activation_bits=1,
            calls=num_activations,
        )
        yield elementwise(f"{name}.scale", "multiply", products * width, after)
        if products > 1:
            yield Layer(f"{name}.sum", "add", width, width, after, work=products - 2)
