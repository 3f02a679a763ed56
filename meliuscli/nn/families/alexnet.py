"""Binary AlexNets as modules (sources: ``meliuscli.arch.families.alexnet``)."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from meliuscli.arch.families.alexnet import (
    KERNELS,
    AlexNetSpec,
    BinaryAlexNetSpec,
    DoReFaAlexNetSpec,
    XnorAlexNetSpec,
)
from meliuscli.nn.families.parts import batch_norm
from meliuscli.nn.layers import SameMaxPool2d, SamePad, float_conv, linear
from meliuscli.nn.quantized import QuantConv2d, QuantLinear, sign_conv
from meliuscli.nn.quantizers import DoReFaActivation, MagnitudeScaling, SteSign


def build(spec: AlexNetSpec, _clip: float) -> nn.Sequential:
    """Module names are those of ``spec.layers()``."""
    if isinstance(spec, BinaryAlexNetSpec):
        return _binary_alexnet(spec)
    if isinstance(spec, XnorAlexNetSpec):
        return _xnor_alexnet(spec)
    if isinstance(spec, DoReFaAlexNetSpec):
        return _dorefa_alexnet(spec)
    raise TypeError(f"no module for {type(spec).__name__}")


def _last_map(spec: AlexNetSpec) -> int:
    """Height of the map that the fully connected layers see."""
    return next(layer.out_size for layer in spec.layers() if layer.name == "conv5.pool")


def _float_stem(spec: AlexNetSpec) -> OrderedDict[str, nn.Module]:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if spec.stem == "thumbnail":
        layers["conv"] = float_conv(spec.input_channels, spec.channels[0], 3)
        return layers
    layers["pad"] = SamePad(11, 4)
    layers["conv"] = nn.Conv2d(spec.input_channels, spec.channels[0], 11, 4, bias=False)
    return layers


def _binary_alexnet(spec: BinaryAlexNetSpec) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    channels = spec.input_channels
    for index, width in enumerate(spec.channels, start=1):
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if index == 1:
            thumbnail = spec.stem == "thumbnail"
            kernel, stride = (3, 1) if thumbnail else (11, 4)
            layers["pad"] = SamePad(kernel, stride)
            layers["conv"] = QuantConv2d(
                channels, width, kernel, stride, quantizer=SteSign(), activation_bits=32, padding=0
            )
        else:
            layers["conv"] = sign_conv(channels, width, KERNELS[index - 2], activation=SteSign())
        if index in (1, 2, 5):
            layers["pool"] = nn.MaxPool2d(3, 2)
        layers["bn"] = batch_norm(width, scale=False)
        parts["stem" if index == 1 else f"conv{index}"] = nn.Sequential(layers)
        channels = width
    parts["flatten"], parts["unflatten"] = nn.Flatten(), nn.Unflatten(1, (-1, 1, 1))
    channels *= _last_map(spec) ** 2
    for index, width in enumerate((spec.hidden, spec.hidden, spec.num_classes), start=6):
        conv = sign_conv(channels, width, 1, activation=SteSign())
        # Its classes are scaled by nothing else than batch norm.
        parts[f"fc{index}"] = nn.Sequential(OrderedDict(conv=conv, bn=batch_norm(width, scale=False)))
        channels = width
    parts["logits"] = nn.Flatten()
    return nn.Sequential(parts)


def _xnor_alexnet(spec: XnorAlexNetSpec) -> nn.Sequential:
    stem = _float_stem(spec)
    stem["bn"], stem["relu"] = batch_norm(spec.channels[0], scale=False), nn.ReLU()
    stem["pool"] = nn.MaxPool2d(3, 2)
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Sequential(stem))

    def unit(channels: int, width: int, kernel: int, padding: int | None = None) -> OrderedDict[str, nn.Module]:
        conv = QuantConv2d(channels, width, kernel, activation=SteSign(), padding=padding)
        return OrderedDict(bn=batch_norm(channels, scale=False), conv=conv)

    channels = spec.channels[0]
    for index, (width, kernel) in enumerate(zip(spec.channels[1:], KERNELS, strict=True), start=2):
        layers = unit(channels, width, kernel)
        if index in (2, 5):
            layers["pool"] = nn.MaxPool2d(3, 2)
        parts[f"conv{index}"] = nn.Sequential(layers)
        channels = width
    parts["fc6"] = nn.Sequential(unit(channels, spec.hidden, _last_map(spec), padding=0))
    parts["fc7"] = nn.Sequential(unit(spec.hidden, spec.hidden, 1))
    head: OrderedDict[str, nn.Module] = OrderedDict(
        bn=batch_norm(spec.hidden, scale=False), relu=nn.ReLU(), flatten=nn.Flatten()
    )
    head["fc"] = nn.Linear(spec.hidden, spec.num_classes, bias=False)
    parts["head"] = nn.Sequential(head)
    return nn.Sequential(parts)


def _dorefa_alexnet(spec: DoReFaAlexNetSpec) -> nn.Sequential:
    bits, channels = spec.activation_bits, spec.channels[0]

    def weights() -> MagnitudeScaling:
        return MagnitudeScaling(per_filter=False, clip=None)

    thumbnail = spec.stem == "thumbnail"
    first = nn.Conv2d(spec.input_channels, channels, *((3, 1, 1) if thumbnail else (12, 4)))
    nn.init.kaiming_normal_(first.weight, nonlinearity="relu")
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Sequential(OrderedDict(conv=first)))
    for index, (width, kernel) in enumerate(zip(spec.channels[1:], KERNELS, strict=True), start=2):
        conv = QuantConv2d(
            channels, width, kernel, quantizer=weights(), activation=DoReFaActivation(bits), activation_bits=bits
        )
        layers: OrderedDict[str, nn.Module] = OrderedDict(conv=conv, bn=batch_norm(width, scale=False))
        if index in (2, 3):
            layers["pool"] = SameMaxPool2d(3, 2) if spec.padding == "same" else nn.MaxPool2d(3, 2, padding=1)
        elif index == 5:
            layers["pool"] = nn.MaxPool2d(3, 2)
        parts[f"conv{index}"] = nn.Sequential(layers)
        channels = width
    parts["flatten"] = nn.Flatten()
    channels *= _last_map(spec) ** 2
    for index in (6, 7):
        fc = QuantLinear(
            channels,
            spec.hidden,
            quantizer=weights(),
            activation=DoReFaActivation(bits),
            weight_bits=1,
            activation_bits=bits,
        )
        norm = nn.BatchNorm1d(spec.hidden)
        norm.weight.requires_grad_(False)
        parts[f"fc{index}"] = nn.Sequential(OrderedDict(linear=fc, bn=norm))
        channels = spec.hidden
    parts["head"] = nn.Sequential(OrderedDict(clip=nn.Hardtanh(0, 1), fc=linear(channels, spec.num_classes)))
    return nn.Sequential(parts)
