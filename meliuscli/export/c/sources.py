"""The C files that are made for a network; those that are the same for all but their names are in ``templates``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib import resources

from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.arch.families.units import DenseUnit, Transition
from meliuscli.arch.plan import STEM, Layer
from meliuscli.arch.spec import ArchSpec
from meliuscli.export.c.arena import Arena, StagePlace
from meliuscli.export.c.literals import c_float
from meliuscli.export.c.tables import ConstTable, plain
from meliuscli.version import __version__


def template(name: str, prefix: str) -> str:
    """A file of ``templates`` with the prefix in place of ``melius`` and the library's own header.

    ``melius`` is a name by itself or the first word of one (``melius_run``, ``MELIUS_H``); ``meliuscli`` is another word."""
    text = resources.files(__package__).joinpath("templates", name).read_text(encoding="utf-8")
    for placeholder, own in (("melius", prefix), ("MELIUS", prefix.upper())):
        text = re.sub(rf"\b{placeholder}(?=_|\b)", own, text)
    return text.replace("NAME.h", f"{prefix}.h")


def header(spec: ArchSpec, title: str, prefix: str, arena_bytes: int, units: int, count: str, counts: str) -> str:
    """``NAME.h``. ``count`` is C's type of what a binary convolution counts, and ``counts`` says what that is."""
    text = template("NAME.h", prefix)
    values = {
        "TITLE": title,
        "VERSION": __version__,
        "ARCHID": spec.archid,
        "CHANNELS": spec.input_channels,
        "SIZE": spec.input_size,
        "CLASSES": spec.num_classes,
        "UNITS": units,
        "ARENA": arena_bytes,
        "COUNT_BITS": re.sub("[^0-9]", "", count),
        "COUNTS": counts,
        "COUNT": count,
    }
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    return text


def network_source(
    spec: DenseFamilySpec, prefix: str, arena: Arena, tables: Sequence[ConstTable], inverse: float = 1.0
) -> str:
    """``NAME.c``: the network's layers as constants, and the function that runs them. ``inverse`` is that of a head in int8."""
    names = {table.name for table in tables}
    lines = [
        "/* The network: what its layers are, and where in the arena they work. */",
        f'#include "{prefix}.h"',
        '#include "kernels.h"',
        '#include "weights.h"',
        "",
        *_stem(spec, prefix, names),
    ]
    for place in arena.places:
        rows = [_unit(unit, prefix, names) for unit in place.stage.units]
        lines += [f"static const {prefix}_unit {place.stage.name}_units[{len(rows)}] = {{", ",\n".join(rows) + "};", ""]
        if place.stage.transition is not None:
            lines += _transition(place.stage.transition, prefix, names)
    lines += _head(arena.places[-1], spec, prefix, names, inverse)
    return "\n".join([*lines, *_run(prefix, arena)]) + "\n"


def _stem(spec: DenseFamilySpec, prefix: str, names: set[str]) -> Iterator[str]:
    layers = [layer for layer in spec.layers() if layer.stage == STEM]
    convs, pools = (
        [layer for layer in layers if layer.kind == "conv"],
        any(layer.kind == "max_pool" for layer in layers),
    )

    def row(conv: Layer) -> str:
        name = plain(conv.name)
        scale = _or_null(prefix, f"{name}_scale", names)
        inputs = conv.in_channels // conv.groups
        numbers = (inputs, conv.out_channels, conv.groups, conv.kernel, conv.stride, conv.kernel // 2, int(pools))
        return f"    {{{prefix}_{name}_weights, {scale}, {prefix}_{name}_bias, {', '.join(map(str, numbers))}}}"

    yield f"static const {prefix}_plane_conv stem_convs[{len(convs)}] = {{"
    yield ",\n".join(map(row, convs)) + "};"
    numbers = (len(convs), int(pools), int(pools), spec.input_channels, spec.input_size, layers[-1].out_size)
    affine = ("image_scale", "image_shift", "stem_out_scale", "stem_out_shift")
    values = [*map(str, numbers), *(_or_null(prefix, name, names) for name in affine), "NULL", "NULL"]
    yield f"static const {prefix}_stem stem = {{stem_convs, {', '.join(values)}}};"
    yield ""


def _or_null(prefix: str, name: str, names: set[str]) -> str:
    return f"{prefix}_{name}" if name in names else "NULL"


def _unit(unit: DenseUnit, prefix: str, names: set[str]) -> str:
    name = plain(unit.name)
    tables = [f"{prefix}_{name}_weights", f"{prefix}_{name}_float_thresholds"]
    tables += [_or_null(prefix, f"{name}_count_thresholds", names), f"{prefix}_{name}_flips"]
    numbers = (unit.channels, unit.growth, unit.dilation, int(unit.adds))
    return f"    {{{', '.join(tables)}, {', '.join(map(str, numbers))}}}"


def _transition(transition: Transition, prefix: str, names: set[str]) -> Iterator[str]:
    name = transition.name
    tables = [f"{prefix}_{name}_{what}" for what in ("scale", "shift", "weights")]
    tables.append(_or_null(prefix, f"{name}_order", names))
    numbers = (transition.channels, transition.target, transition.groups, int(transition.pools))
    yield f"static const {prefix}_transition {name} = {{{', '.join(tables)}, {', '.join(map(str, numbers))}}};"
    yield ""


def _head(place: StagePlace, spec: DenseFamilySpec, prefix: str, names: set[str], inverse: float) -> Iterator[str]:
    tables = ", ".join(
        _or_null(prefix, f"head_{what}", names) for what in ("scale", "shift", "weights", "steps", "bias")
    )
    numbers = f"{place.stage.channels}, {spec.num_classes}, {c_float(1.0 / place.stage.size**2)}, {c_float(inverse)}"
    yield f"static const {prefix}_head head = {{{tables}, {numbers}}};"
    yield ""


def _run(prefix: str, arena: Arena) -> Iterator[str]:
    yield f"""static void run_units(const {prefix}_unit *units, int count, int first, const {prefix}_map *map, {prefix}_cell *scratch,
                      {prefix}_watch watch, void *context)
{{
    for (int i = 0; i < count; i++) {{
        {prefix}_run_unit(&units[i], map, &scratch->word);
        if (watch != NULL) {{
            const {prefix}_count *counts =
                map->counts + units[i].channels - map->num_floats - (units[i].adds ? units[i].outputs : 0);
            for (int pixel = 0; pixel < map->size * map->size; pixel++, counts += map->num_counts) {{
                watch(context, first + i, (uint32_t)(pixel * units[i].outputs), counts, units[i].outputs);
            }}
        }}
    }}
}}

void {prefix}_run(const float *image, float *logits, {prefix}_cell *arena)
{{
    {prefix}_run_watched(image, logits, arena, NULL, NULL);
}}

void {prefix}_run_watched(const float *image, float *logits, {prefix}_cell *arena, {prefix}_watch watch, void *context)
{{
    {prefix}_map map;

    {prefix}_run_stem(&stem, image, {_real(0)}, NULL, {_real(arena.stem_scratch)});"""
    yield from _run_stages(prefix, arena)
    yield "}"


def _run_stages(prefix: str, arena: Arena) -> Iterator[str]:
    first = 0
    for place, following in zip(arena.places, [*arena.places[1:], None], strict=True):
        name, units = place.stage.name, len(place.stage.units)
        yield f"""
    map.floats = {_real(place.floats)};
    map.counts = ({prefix}_count *)(void *)(arena + {place.counts // 4});
    map.size = {place.stage.size};
    map.num_floats = {place.num_floats};
    map.num_counts = {place.num_counts};
    run_units({name}_units, {units}, {first}, &map, arena + {place.signs // 4}, watch, context);"""
        first += units
        scratch = _real(place.scratch)
        if following is None or place.stage.transition is None:
            yield f"    {prefix}_run_head(&head, &map, logits, {scratch});"
        else:
            transition = place.stage.transition.name
            yield f"    {prefix}_run_transition(&{transition}, &map, {_real(following.floats)}, {scratch});"


def _real(offset: int) -> str:
    return f"&arena[{offset // 4}].real"
