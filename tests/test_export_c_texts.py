"""The texts of a C library name what made them, and a prefix stands in names of C alone."""

from __future__ import annotations

import re
from importlib import resources

import pytest
from test_export_c import packed, small
from test_export_c_chain import network_of, spec_of
from test_export_c_int8 import int8_of, runner_of

from meliuscli.export.c.float_network import runner_for_c
from meliuscli.export.c.sources import template
from meliuscli.export.c.writer import make_library

TEMPLATES = [path.name for path in resources.files("meliuscli.export.c").joinpath("templates").iterdir()]
MADE_BY = {
    "device.h": "Made by meliuscli ",
    "library.properties": "\nauthor=meliuscli\nmaintainer=meliuscli\n",
    "manifest.json": '"format": "meliuscli-c-1"',
}


def libraries(prefix: str) -> dict[str, dict[str, str]]:
    made = {
        "dense": make_library(packed(small("one-stage")), "one-stage", prefix),
        "chain": make_library(runner_for_c(network_of("tfc"), spec_of("tfc")), "tfc", prefix),
        "int8": make_library(runner_of("groups"), "groups", prefix, None, int8_of("groups"), {"int8_top1": 0.5}),
    }
    return {key: {name: text.decode() for name, text in one.files.items()} for key, one in made.items()}


def test_every_text_names_meliuscli_and_no_other_tool() -> None:
    for key, texts in libraries("device").items():
        for name, text in texts.items():
            assert not re.search("devicecli", text, re.IGNORECASE), (key, name)
            assert not re.search("melius(?!cli|net)", text, re.IGNORECASE), (key, name)
            assert MADE_BY.get(name, "") in text, (key, name)
        assert MADE_BY.keys() <= texts.keys()


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("prefix", ["device", "a", "cli", "meliuscli"])
def test_a_prefix_touches_names_in_c_alone(name: str, prefix: str) -> None:
    """All else of a template is as it stands there."""
    text = resources.files("meliuscli.export.c").joinpath("templates", name).read_text()
    made = template(name, prefix)
    own = re.compile(r"\b(melius(?!cli)|MELIUS(?!CLI)|NAME\.h)")
    kept, taken = own.split(text)[::2], own.findall(text)
    places = {"melius": prefix, "MELIUS": prefix.upper(), "NAME.h": f"{prefix}.h"}
    expected = "".join(part + word for part, word in zip(kept, [*(places[word] for word in taken), ""], strict=True))
    assert made == expected
    if prefix != "meliuscli":
        assert made.count("meliuscli") == text.count("meliuscli")
