"""Makes fashion_mnist_mini.npz from the full data set (Debian: ``apt-get install dataset-fashion-mnist``).

    python -m meliuscli.data.embedded.make_fashion_mnist_mini /usr/share/datasets/fashion-mnist OUT.npz

10,000 training and 5,000 validation images from the official training split, 5,000 test images from the official
test split; each class equally often, drawn without replacement with seed 0. The same input gives the same bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from meliuscli.data.idx import read_idx_pair

NUM_CLASSES = 10
TRAIN_PER_CLASS, VALIDATION_PER_CLASS, TEST_PER_CLASS = 1000, 500, 500


def main(directory: Path, target: Path) -> None:
    rng = np.random.default_rng(0)
    (images, labels), (test_images, test_labels), _, _ = read_idx_pair(directory, NUM_CLASSES)
    train_and_validation = _per_class(rng, labels, TRAIN_PER_CLASS + VALIDATION_PER_CLASS)
    train = np.sort(np.concatenate([chosen[:TRAIN_PER_CLASS] for chosen in train_and_validation]))
    validation = np.sort(np.concatenate([chosen[TRAIN_PER_CLASS:] for chosen in train_and_validation]))
    test = np.sort(np.concatenate(_per_class(rng, test_labels, TEST_PER_CLASS)))
    np.savez_compressed(
        target,
        train_images=images[train],
        train_labels=labels[train],
        validation_images=images[validation],
        validation_labels=labels[validation],
        test_images=test_images[test],
        test_labels=test_labels[test],
    )


def _per_class(rng: np.random.Generator, labels: npt.NDArray[np.uint8], count: int) -> list[npt.NDArray[np.int64]]:
    return [rng.permutation(np.flatnonzero(labels == label))[:count] for label in range(NUM_CLASSES)]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
