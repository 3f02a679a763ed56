"""Whole splits as float tensors, label-balanced batches, and augmentation of whole batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from meliuscli.data.catalog import Dataset, Split

ON_DEVICE_BYTES = 4 * 2**30
"""Images up to this size lie on the training's device as a whole; of larger sets the batches are brought there."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A data set at one input size. Images are float32 (N, C, S, S) in [0, 1]; ``mean`` and ``std`` (1, C, 1, 1) are
    those of the training images."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    mean: Tensor
    std: Tensor

    def to(self, device: torch.device) -> Prepared:
        """On a device: all splits where they take up to ``ON_DEVICE_BYTES``, else the normalisation alone."""
        splits = (self.train, self.validation, self.test)
        if sum(images.nbytes for images, _ in splits) <= ON_DEVICE_BYTES:
            splits = tuple((images.to(device), labels.to(device)) for images, labels in splits)  # type: ignore[assignment]
        train, validation, test = splits
        mean, std = self.mean.to(device), self.std.to(device)
        return replace(self, train=train, validation=validation, test=test, mean=mean, std=std)

    def normalise(self, images: Tensor) -> Tensor:
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


def prepare(dataset: Dataset, input_size: int) -> Prepared:
    """Bring all splits to ``input_size`` and measure the normalisation on the training images alone."""
    train = _resize(dataset.train, input_size)
    std, mean = torch.std_mean(train[0], dim=(0, 2, 3), keepdim=True)
    return Prepared(
        train, _resize(dataset.validation, input_size), _resize(dataset.test, input_size), mean, std.clamp_min(1e-6)
    )


def _resize(split: Split, size: int) -> tuple[Tensor, Tensor]:
    """Repeat pixels by a whole factor where the input is larger, pad with 0, average over whole cells where smaller.

    28x28 becomes 32x32 by padding, 16x16 by padding to 32 and averaging 2x2."""
    images = split.images.float().div_(255)
    current = max(images.shape[-2:])
    if size >= 2 * current:
        images = images.repeat_interleave(size // current, -1).repeat_interleave(size // current, -2)
    padded = -(-max(images.shape[-2:]) // size) * size
    left, top = (padded - images.shape[-1]) // 2, (padded - images.shape[-2]) // 2
    images = F.pad(images, (left, padded - images.shape[-1] - left, top, padded - images.shape[-2] - top))
    return F.avg_pool2d(images, padded // size) if padded > size else images, split.labels


def balanced_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """A random permutation in which every window holds the classes in proportion.

    Each image is placed at (its random rank in its class + a random fraction) / (size of its class); with classes of
    equal size every batch of a multiple of their number is exactly balanced."""
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled[torch.argsort(labels[shuffled], stable=True)]
    counts = torch.bincount(labels)
    starts = torch.cumsum(counts, 0) - counts
    own = labels[by_class]
    rank = torch.arange(len(labels)) - starts[own]
    jitter = torch.rand(len(labels), generator=generator, dtype=torch.float64)
    return by_class[torch.argsort((rank + jitter) / counts[own])]


def batches(labels: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless index batches of one size, epoch after epoch; an incomplete last one is left out."""
    batch_size = min(batch_size, len(labels))
    while True:
        order = balanced_order(labels, generator)
        for start in range(0, len(order) - batch_size + 1, batch_size):
            yield order[start : start + batch_size]


def augment(images: Tensor, flip: bool, shift: int, generator: torch.Generator) -> Tensor:
    """Mirror each image with probability 1/2 and move it by up to ``shift`` pixels each way, filling with 0."""
    if flip:
        mirror = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
        images = torch.where(mirror, images.flip(-1), images)
    if shift:
        count, _, height, width = images.shape
        padded = F.pad(images, (shift, shift, shift, shift))
        offsets = torch.randint(0, 2 * shift + 1, (2, count, 1), generator=generator)
        rows, columns = offsets[0] + torch.arange(height), offsets[1] + torch.arange(width)
        image = torch.arange(count)[:, None, None]
        images = padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return images
