"""Splits that cannot leak: how validation is cut, images that are in two splits, and the fields of the recipe."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from meliuscli.data.batches import prepare
from meliuscli.data.catalog import Dataset, Split, load_dataset
from meliuscli.data.splits import Cut, held_out, pixel_hashes, shared_images
from meliuscli.errors import BadInputError
from meliuscli.training.pool import _prepared
from meliuscli.training.recipe import Recipe, find_recipe


@given(
    counts=st.lists(st.integers(2, 40), min_size=1, max_size=6),
    seed=st.integers(0, 2**32 - 1),
    share=st.floats(0.01, 0.99),
    per_class=st.integers(1, 30),
)
def test_each_class_gives_its_share_and_keeps_some(counts: list[int], seed: int, share: float, per_class: int) -> None:
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    chosen = held_out(labels, len(counts), Cut(seed, share, per_class), "here")
    assert np.array_equal(chosen, held_out(labels, len(counts), Cut(seed, share, per_class), "here"))
    for label, count in enumerate(counts):
        taken = int(chosen[labels == label].sum())
        assert 1 <= taken <= min(per_class, count - 1)
        assert taken == per_class or taken == count - 1 or taken == 1 or abs(taken - share * count) <= 1


@pytest.mark.parametrize(("share", "taken"), [(0.1, 10), (0.3, 30), (0.7, 70), (0.999, 99)])
def test_shares_are_those_of_arithmetic(share: float, taken: int) -> None:
    assert held_out(np.zeros(100, int), 1, Cut(share=share), "here").sum() == taken


def test_the_default_cut_is_what_it_always_was() -> None:
    """A tenth of each class, at most 500, from a generator of seed 0: recorded results stay comparable."""
    labels = np.random.default_rng(3).integers(0, 3, 6000)
    rng, expected = np.random.default_rng(0), np.zeros(6000, bool)
    for label in range(3):
        own = rng.permutation(np.flatnonzero(labels == label))
        expected[own[: min(500, len(own) // 10)]] = True
    assert np.array_equal(held_out(labels, 3, Cut(), "here"), expected)


def test_another_seed_takes_other_images() -> None:
    labels = np.arange(1000) % 10
    first, second = (held_out(labels, 10, Cut(seed), "here") for seed in (0, 1))
    assert (first & second).sum() < 30  # 10 of 100 by chance


def test_a_class_of_one_image_cannot_be_cut() -> None:
    with pytest.raises(BadInputError, match="there: too few images: class 1 has one"):
        held_out(np.array([0, 0, 1]), 2, Cut(), "there")


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of idx files that hold their own numbers; those of the test split begin at 200."""
    place = tmp_path_factory.mktemp("numbered")
    for prefix, start, count in (("train", 0, 100), ("t10k", 200, 20)):
        images = np.repeat(np.arange(start, start + count, dtype=np.uint8), 4).reshape(-1, 2, 2)
        for name, array in (("images-idx3", images), ("labels-idx1", np.arange(count, dtype=np.uint8) % 2)):
            header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
            (place / f"{prefix}-{name}-ubyte").write_bytes(header + array.tobytes())
    return place


@given(seed=st.integers(0, 999), share=st.floats(0.05, 0.95))
def test_no_image_is_in_two_splits(numbered: Path, seed: int, share: float) -> None:
    found = load_dataset("idx", numbered, Cut(seed, share))
    numbers = [{int(image[0, 0, 0]) for image in split.images} for split in (found.train, found.validation, found.test)]
    assert numbers[0] | numbers[1] == set(range(100))
    assert not numbers[0] & numbers[1]
    assert numbers[2] == set(range(200, 220))
    for split in (found.train, found.validation):
        assert [int(image[0, 0, 0]) % 2 for image in split.images] == split.labels.tolist()


def test_the_recipe_says_how_to_cut(numbered: Path) -> None:
    recipe = find_recipe("paper", {"split_seed": 4, "validation_share": 0.2, "validation_per_class": 5})
    assert recipe.cut == Cut(4, 0.2, 5)
    assert Recipe().cut == Cut()
    (images, labels), expected = (
        _prepared("idx", numbered, 2, recipe.cut, False).validation,
        load_dataset("idx", numbered, recipe.cut),
    )
    assert torch.equal(images, expected.validation.images)
    assert torch.bincount(labels).tolist() == [5, 5]
    assert not torch.equal(images, _prepared("idx", numbered, 2, Cut(0, 0.2, 5), False).validation[0])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("split_seed", -1),
        ("split_seed", 1.5),
        ("validation_share", 0),
        ("validation_share", 1),
        ("validation_per_class", 0),
        ("crop_scale", [0.0, 1.0]),
        ("crop_scale", [0.5, 1.5]),
        ("crop_scale", [0.9, 0.5]),
        ("crop_scale", [0.5]),
    ],
)
def test_fields_that_cannot_be_are_named(field: str, value: object) -> None:
    with pytest.raises(BadInputError, match=f"recipe: {field}"):
        find_recipe("paper", {field: value})


def test_the_embedded_splits_are_fixed() -> None:
    with pytest.raises(BadInputError, match="validation images of its own"):
        load_dataset("fashion-mnist-mini", cut=Cut(seed=1))


def test_images_in_two_splits_are_counted() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (30, 1, 4, 4), generator=generator, dtype=torch.uint8)
    labels = torch.zeros(30, dtype=torch.int64)
    parts = images[:10].clone(), images[10:20].clone(), images[20:].clone()
    parts[1][3] = parts[0][0]
    parts[2][1], parts[2][2], parts[2][3] = parts[0][5], parts[1][7], parts[2][4]  # the last within a split
    dataset = Dataset("x", 1, *(Split(part, labels[:10]) for part in parts))
    assert (
        prepare(dataset, 4).notes
        == prepare(dataset, 8).notes
        == (
            "1 of the 10 validation images are among the training images too, pixel by pixel",
            "2 of the 10 test images are among the training or validation images too, pixel by pixel",
        )
    )


@given(st.lists(st.binary(min_size=4, max_size=4), max_size=30))
def test_hashes_are_equal_where_the_pixels_are(images: list[bytes]) -> None:
    pixels = np.frombuffer(b"".join(images), np.uint8).reshape(-1, 1, 2, 2)
    hashes = pixel_hashes(pixels)
    assert [hashes.index(value) for value in hashes] == [images.index(value) for value in images]
    assert shared_images(hashes, [], []) == ()
