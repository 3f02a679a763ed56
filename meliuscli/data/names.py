"""The data sets by name, without torch: for lists and early errors."""

from __future__ import annotations

from meliuscli.errors import unknown_name

DEFAULT_DATASET = "fashion-mnist-mini"
DATASETS = {
    DEFAULT_DATASET: "embedded: 15,000 training and 5,000 test images of Fashion-MNIST",
    "fashion-mnist": "all of it, from a directory of four idx files (--data DIR)",
}
"""Name -> what it is."""


def check_dataset_name(name: str) -> None:
    """Raise ``BadInputError`` with the nearest names unless the data set is known."""
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS, "--dataset")
