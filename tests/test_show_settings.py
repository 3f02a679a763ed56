"""Search spaces and recipes are shown as files that can be changed and used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Cli

from meliuscli.search.files import space_names, spaces_directory
from meliuscli.search.space import load_space
from meliuscli.training.recipe import find_recipe, recipe_table


@pytest.mark.parametrize("name", space_names())
def test_a_space_is_shown_as_its_file(cli: Cli, name: str) -> None:
    done = cli("show", f"space:{name}")
    assert done.stdout == (spaces_directory() / f"{name}.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", recipe_table())
def test_a_shown_recipe_is_the_recipe(cli: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.toml").write_text(cli("show", f"recipe:{name}").stdout)
    assert find_recipe(str(tmp_path / "mine.toml")) == find_recipe(name)


def test_both_are_json_too(cli: Cli) -> None:
    assert json.loads(cli("show", "recipe:paper", "--format", "json").stdout)["learning_rate"] == 0.002
    assert json.loads(cli("show", "space:meliusnet", "--format", "json").stdout)["family"] == "meliusnet"


@pytest.mark.parametrize("name", ["space:melius", "recipe:papr"])
def test_an_unknown_name_has_the_nearest(cli: Cli, name: str) -> None:
    done = cli("show", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean" in done.stderr


def test_a_space_of_ones_own_is_shown_too(cli: Cli, tmp_path: Path) -> None:
    text = load_space("meliusnet")[2]
    (tmp_path / "mine.toml").write_text(text)
    assert cli("show", "space:mine.toml").stdout == text
