"""The data sets by name, without torch: for lists and early errors."""

from __future__ import annotations

from collections.abc import Collection

from meliuscli.errors import BadInputError, unknown_name

DEFAULT_DATASET = "fashion-mnist-mini"
IMAGE_FOLDER = "imagefolder"
DATASETS = {
    DEFAULT_DATASET: "embedded: 15,000 training and 5,000 test images of Fashion-MNIST",
    "fashion-mnist": "all of it, from a directory of four idx files",
    "cifar10": "from a directory of its binary or python version",
    "cifar100": "from a directory of its binary or python version",
    "idx": "images of your own in four files of MNIST's format (--data DIR)",
    IMAGE_FOLDER: "images of your own in folders like ImageNet's, train/CLASS/* (--data DIR)",
}
"""Name -> what it is."""
WHOLE_OF = {DEFAULT_DATASET: "fashion-mnist"}
"""Data sets whose training images are a part of another's."""
SHAPES = {DEFAULT_DATASET: (10, 1), "fashion-mnist": (10, 1), "cifar10": (10, 3), "cifar100": (100, 3)}
"""Name -> classes and channels, where they are known before reading."""
_CLOTHES = (
    *("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
CLASS_NAMES: dict[str, tuple[str, ...]] = {
    DEFAULT_DATASET: _CLOTHES,
    "fashion-mnist": _CLOTHES,
    "cifar10": (*("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),),
}
"""What the labels stand for, in the order of their authors, where it is known before reading."""
SOURCES = {
    "fashion-mnist": "Debian's package dataset-fashion-mnist holds it under /usr/share/datasets/fashion-mnist; name that"
    " directory with --data, or put its four idx files there",
    "cifar10": "its authors' page (search for: CIFAR-10 Krizhevsky) has cifar-10-binary.tar.gz and cifar-10-python.tar.gz;"
    " unpack one there, or name the directory with --data",
    "cifar100": "its authors' page (search for: CIFAR-100 Krizhevsky) has cifar-100-binary.tar.gz and"
    " cifar-100-python.tar.gz; unpack one there, or name the directory with --data",
    "idx": "name the directory with --data: train-images-idx3-ubyte, train-labels-idx1-ubyte and the same for t10k, plain"
    " or .gz",
    IMAGE_FOLDER: "name the directory with --data: it holds train with a folder of images for each class, and val or test"
    " (or both) with the same; ImageNet's own archives (image-net.org, after registration) unpack to that",
}
"""Where to get the files of a data set and where to put them."""


def refuse_skip_bad(skip_bad: bool, datasets: Collection[str]) -> None:
    """Raise ``BadInputError`` for --skip-bad where none of the data sets has files that could be left out."""
    if skip_bad and IMAGE_FOLDER not in datasets:
        names = " and ".join(dict.fromkeys(datasets))
        raise BadInputError(f"--skip-bad: is for image folders, and {names} is none", "leave it out")


def check_dataset_name(name: str) -> None:
    """Raise ``BadInputError`` with the nearest names unless the data set is known."""
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS)
