"""Exported networks as modules again: what is made of a directory of C, a packed or an ONNX file folds to the same numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_export_c import SMALL, library_of, packed, small
from test_export_c_chain import CHAINS, chain_library, images_of, network_of, spec_of
from test_export_c_int8 import int8_of, runner_of

from meliuscli.errors import BadInputError
from meliuscli.export.c.float_network import runner_for_c
from meliuscli.export.c.manifest import read_manifest
from meliuscli.export.c.unfolding import read_network
from meliuscli.export.c.vectors import noise
from meliuscli.export.c.writer import make_library, write_library
from meliuscli.packed.runner import pack

pytest.importorskip("llvmlite")


@pytest.mark.parametrize("key", CHAINS)
def test_of_a_directory_of_c_the_same_library_is_made(key: str, tmp_path: Path) -> None:
    write_library(chain_library(key), tmp_path / "c")
    network, images = read_network(read_manifest(tmp_path / "c")), images_of(key, 4)
    again = make_library(runner_for_c(network, spec_of(key)), key, "net")
    assert again.files["weights.c"] == chain_library(key).files["weights.c"]
    with torch.inference_mode():
        assert (network(images).argmax(1) == network_of(key)(images).argmax(1)).all()


@pytest.mark.parametrize("key", SMALL)
def test_and_of_a_dense_one_the_same_answers_to_the_last_bit(key: str, tmp_path: Path) -> None:
    write_library(library_of(key), tmp_path / "c")
    network, spec = read_network(read_manifest(tmp_path / "c")), small(key)
    runner, images = pack(network, spec), torch.cat([noise(spec, seed) for seed in range(8)])
    assert torch.equal(runner(images), packed(spec)(images))
    assert make_library(runner, key, "net").files["weights.c"] == library_of(key).files["weights.c"]


def test_int8_says_what_is_lost(tmp_path: Path) -> None:
    int8 = int8_of("groups")
    write_library(make_library(runner_of("groups"), "groups", "net", None, int8, {"int8_top1": 0.5}), tmp_path / "c")
    with pytest.raises(BadInputError, match="of their float32 weights 8 bits a weight are left") as caught:
        read_network(read_manifest(tmp_path / "c"))
    assert "the packed file" in str(caught.value.hint)
