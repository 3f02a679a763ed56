"""Which training images are for validation. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from meliuscli.data.idx import Bytes
from meliuscli.errors import BadInputError

Labels = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Cut:
    """Validation is this share of each class of the training images, at most ``per_class`` and at least one of it,
    drawn from ``seed``. A part of the recipe: the same cut of the same data gives the same splits everywhere."""

    seed: int = 0
    share: float = 0.1
    per_class: int = 500


def held_out(labels: Labels, num_classes: int, cut: Cut, source: object) -> npt.NDArray[np.bool_]:
    """Which of the images (N,) are for validation. Raises ``BadInputError`` naming ``source`` where a class has one."""
    rng = np.random.default_rng(cut.seed)
    chosen = np.zeros(len(labels), bool)
    for label in range(num_classes):
        own = rng.permutation(np.flatnonzero(labels == label))
        if len(own) == 1:
            raise BadInputError(
                f"{source}: too few images: class {label} has one, training and validation need one each"
            )
        # The smallest number above 0 is for shares such as 0.3, which are a little less in binary.
        wanted = max(1, int(len(own) * cut.share + 1e-9))
        chosen[own[: max(0, min(wanted, cut.per_class, len(own) - 1))]] = True
    return chosen


def pixel_hashes(images: Bytes) -> list[bytes]:
    """Eight bytes for each image (N, C, H, W); equal where its pixels are."""
    return [blake2b(image, digest_size=8).digest() for image in np.ascontiguousarray(images)]


def shared_images(train: Sequence[bytes], validation: Sequence[bytes], test: Sequence[bytes]) -> tuple[str, ...]:
    """Notes on images that are in two splits, pixel by pixel, because the source has them twice."""
    known, notes = set(train), []
    for name, hashes, where in (("validation", validation, "training"), ("test", test, "training or validation")):
        if twice := sum(value in known for value in hashes):
            notes.append(
                f"{twice:,} of the {len(hashes):,} {name} images are among the {where} images too, pixel by pixel"
            )
        known.update(hashes)
    return tuple(notes)
