"""What becomes of an image file before a network sees it: a value that goes with weights, and the function that does it.
No torch until images are read."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from meliuscli.errors import BadInputError, MeliusError, why_unread

if TYPE_CHECKING:
    from torch import Tensor

KEY = "preprocessing"
"""Under which it stands in the metadata of every file of weights."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's training images in [0, 1], as torchvision's models use them."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """From an image file to (channels, input_size, input_size): the middle square, resized (bilinear) to ``resize`` pixels a
    side; of it the middle ``crop``; as grey where there is one channel; brought to ``input_size`` by repeating pixels, a
    black border and averaging (``meliuscli.data.batches.fitted``); values in [0, 1], less ``mean``, divided by ``std``, a
    channel each. ``class_names`` are in the order of the logits, or empty."""

    input_size: int
    channels: int
    resize: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        sizes = (self.input_size, self.channels, self.resize, self.crop)
        if not all(isinstance(size, int) and 1 <= size <= 16384 for size in sizes) or self.crop > self.resize:
            raise ValueError(f"no sizes of images: {sizes}")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"it has no mean and deviation for each of {self.channels} channels")
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise ValueError("its mean or deviation is no number to normalise by")

    def to_json(self) -> str:
        """One line, the same for the same value."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_fields(cls, fields: Any) -> Self:
        """The inverse of ``asdict``. Raises ``ValueError``, ``TypeError`` or ``KeyError`` for anything else."""
        if not isinstance(fields, dict):
            raise ValueError("it is no table of fields")
        try:
            numbers = {key: tuple(map(float, _listed(fields[key], int, float))) for key in ("mean", "std")}
        except OverflowError as error:
            raise ValueError(f"its mean or deviation is no number to normalise by: {error}") from None
        names = tuple(_listed(fields.get("class_names", []), str))
        return cls(**{**fields, **numbers, "class_names": names})

    @classmethod
    def from_json(cls, text: str | None, where: object) -> Self | None:
        """None for None. Raises ``BadInputError`` naming ``where`` the text is from."""
        if text is None:
            return None
        try:
            return cls.from_fields(json.loads(text))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise BadInputError(f"{where}: its preprocessing cannot be read: {why_unread(error)}") from None

    def at_size(self, input_size: int) -> Self:
        """For the same network at another input: the crop grows and shrinks with it."""
        crop = max(1, round(self.crop * input_size / self.input_size))
        resize = max(crop, round(self.resize * input_size / self.input_size))
        return replace(self, input_size=input_size, resize=resize, crop=crop)

    def name_of(self, label: int) -> str:
        """The class's name, or its number where it has none."""
        return self.class_names[label] if label < len(self.class_names) else f"class {label}"

    def normalise(self, images: Tensor) -> Tensor:
        """(N, C, S, S), bytes or float32 in [0, 1], as float32 that the network takes."""
        import torch

        values = images.float().div(255) if images.dtype == torch.uint8 else images
        mean, std = (torch.tensor(one).view(1, -1, 1, 1) for one in (self.mean, self.std))
        return (values - mean) / std


def _listed(values: Any, *types: type) -> list[Any]:
    """Raises ``ValueError`` for what is no list of these types alone."""
    if not isinstance(values, list | tuple) or not all(type(value) in types for value in values):
        raise ValueError(f"no list of {'texts' if str in types else 'numbers'}: {str(values)[:60]}")
    return list(values)


def read_images(paths: Sequence[Path], how: Preprocessing) -> Tensor:
    """Image files as the network takes them: (N, C, S, S), normalised.

    Raises ``MissingError`` without Pillow, ``BadInputError`` for what cannot be opened or is no image."""
    import numpy as np
    import torch

    from meliuscli.data.batches import fitted
    from meliuscli.data.decode import read_image, require_pillow

    if how.channels not in (1, 3):
        raise BadInputError(f"the network takes images of {how.channels} channels, and image files have 1 or 3")
    require_pillow()
    edge = (how.resize - how.crop) // 2
    middle = slice(edge, edge + how.crop)
    try:
        bytes_ = np.stack([read_image(path, how.resize)[:, middle, middle] for path in paths])
    except MeliusError as error:
        # No folder, of which one can be left out.
        raise BadInputError(error.message, "mend it, or name other images") from None
    images = torch.from_numpy(bytes_)
    if how.channels == 1:  # ITU-R 601, as Pillow's "L"
        weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        images = (images.float() * weights).sum(1, keepdim=True).round().to(torch.uint8)
    return how.normalise(fitted(images, how.input_size))
