"""The notebook of docs shows what its cells give. ``MELIUSCLI_UPDATE_GOLDEN=1`` writes what they give now."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from notebooks import executed, write

PATH = Path(__file__).parents[1] / "docs" / "notebook.ipynb"


@pytest.fixture(scope="module")
def notebook() -> dict[str, Any]:
    return dict(json.loads(PATH.read_text(encoding="utf-8")))


def test_the_outputs_of_the_notebook_are_those_of_its_cells(notebook: dict[str, Any]) -> None:
    now = executed(notebook)
    if os.environ.get("MELIUSCLI_UPDATE_GOLDEN"):
        write(now, PATH)
        notebook = now
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) >= 5
    assert any("text/html" in output.get("data", {}) for cell in code for output in cell["outputs"])
    assert [cell["outputs"] for cell in code] == [
        cell["outputs"] for cell in now["cells"] if cell["cell_type"] == "code"
    ]


def test_a_cell_that_gives_something_else_is_found_out(notebook: dict[str, Any]) -> None:
    cell = {"cell_type": "code", "source": ["print('a')\n", "1 + 1"], "outputs": [], "metadata": {}}
    printed, shown = executed({**notebook, "cells": [cell]})["cells"][0]["outputs"]
    assert (printed["text"], shown["data"]) == (["a\n"], {"text/plain": ["2"]})


def test_the_notebook_is_one_that_jupyter_opens(notebook: dict[str, Any]) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    nbformat.validate(notebook)


def test_a_kernel_shows_the_same_tables(notebook: dict[str, Any]) -> None:
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    import nbformat

    ran = nbclient.NotebookClient(nbformat.from_dict(notebook)).execute()
    for before, after in zip(notebook["cells"], ran["cells"], strict=True):
        for wanted, output in zip(before.get("outputs", []), after.get("outputs", []), strict=True):
            html = wanted.get("data", {}).get("text/html")
            assert html is None or "".join(html) == output["data"]["text/html"]
