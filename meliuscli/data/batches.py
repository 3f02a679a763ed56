"""Whole splits as tensors, label-balanced batches, and augmentation of whole batches on their device."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from meliuscli.data.cache import OnProgress, decoded
from meliuscli.data.catalog import Dataset, Split
from meliuscli.data.folder import ImageFolder
from meliuscli.data.idx import Bytes
from meliuscli.data.layout import Cached
from meliuscli.data.pixels import Histogram, channel_histogram, mean_and_std
from meliuscli.data.preprocessing import Preprocessing
from meliuscli.data.splits import Labels, pixel_hashes, shared_images
from meliuscli.memory import require_memory

ON_DEVICE_BYTES = 4 * 2**30
"""Images up to this size lie on the training's device as a whole; of larger sets the batches are brought there."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A data set at one input size S. Images are (N, C, S, S): float32 in [0, 1], or bytes as the source has them where
    no resizing is needed. Training images may be larger than S, for crops (``augment`` cuts them). ``mean`` and ``std``
    (1, C, 1, 1) are those of the training images in [0, 1]; ``notes`` are for the user to read. An image file becomes an
    input by way of a square of ``resize`` pixels a side, of which the middle ``crop`` stays; ``class_names`` may be
    unknown."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    mean: Tensor
    std: Tensor
    notes: tuple[str, ...] = ()
    resize: int = 0
    crop: int = 0
    class_names: tuple[str, ...] = ()

    @property
    def preprocessing(self) -> Preprocessing:
        """What became of the images: the value that goes with the weights of what is trained on them."""
        mean, std = (tuple(map(float, one.flatten())) for one in (self.mean, self.std))
        crop = self.crop or self.input_size
        return Preprocessing(self.input_size, len(mean), self.resize or crop, crop, mean, std, self.class_names)

    @property
    def input_size(self) -> int:
        """S."""
        return int(self.validation[0].shape[-1])

    def to(self, device: torch.device) -> Prepared:
        """On a device: all splits where they take up to ``ON_DEVICE_BYTES``, else the normalisation alone."""
        splits = (self.train, self.validation, self.test)
        if sum(images.nbytes for images, _ in splits) <= ON_DEVICE_BYTES:
            splits = tuple((images.to(device), labels.to(device)) for images, labels in splits)  # type: ignore[assignment]
        train, validation, test = splits
        mean, std = self.mean.to(device), self.std.to(device)
        return replace(self, train=train, validation=validation, test=test, mean=mean, std=std)

    def normalise(self, images: Tensor) -> Tensor:
        """Bytes, or float32 in [0, 1], as float32 of the training images' mean 0 and deviation 1, channels last."""
        if images.dtype == torch.uint8:
            images = images.float().div_(255)
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


def prepare(
    dataset: Dataset | ImageFolder, input_size: int, on_progress: OnProgress = lambda done, total: None
) -> Prepared:
    """Bring all splits to ``input_size`` and measure the normalisation on the training images alone.

    An image folder is decoded, unless it was before; ``on_progress`` hears of it. Raises ``decoded``'s errors."""
    if isinstance(dataset, ImageFolder):
        prepared = _from_folder(decoded(dataset, input_size, on_progress), input_size)
        return replace(prepared, notes=(*dataset.notes, *prepared.notes), class_names=dataset.classes)
    splits = (dataset.train, dataset.validation, dataset.test)
    values = sum(map(len, splits)) * dataset.channels * input_size**2
    if dataset.train.images.shape[-1] != input_size:
        what = f"all images of {dataset.name} at {input_size}x{input_size}"
        require_memory(8 * values, what, "train at a smaller size; image folders are read from disk instead")
    train = _resize(dataset.train, input_size)
    mean, std = _statistics(train[0])
    notes = (*dataset.notes, *shared_images(*(pixel_hashes(split.images.numpy()) for split in splits)))
    return Prepared(
        train,
        _resize(dataset.validation, input_size),
        _resize(dataset.test, input_size),
        mean,
        std.clamp_min(1e-6),
        notes,
        *(max(dataset.test.images.shape[-2:]),) * 2,
        dataset.classes,
    )


def num_left_out(dataset: Dataset | ImageFolder, prepared: Prepared) -> int:
    """How many image files could not be read and were left out of what was prepared of a data set."""
    if not isinstance(dataset, ImageFolder):
        return 0
    files = sum(map(len, (dataset.train, dataset.validation, dataset.test)))
    return files - sum(len(labels) for _, labels in (prepared.train, prepared.validation, prepared.test))


def _from_folder(cached: Cached, size: int) -> Prepared:
    """Views of the file: training images with their margin, the middle of the others."""
    edge = (cached.train[0].shape[-1] - size) // 2
    middle = slice(edge, edge + size)

    def split(images: Bytes, labels: Labels, part: slice) -> tuple[Tensor, Tensor]:
        return _mapped(images)[:, :, part, part], torch.from_numpy(labels)

    mean, std = _per_channel(cached.histogram)
    train, validation, test = (
        split(*cached.train, slice(None)),
        split(*cached.validation, middle),
        split(*cached.test, middle),
    )
    side = int(cached.test[0].shape[-1])
    return Prepared(train, validation, test, mean, std.clamp_min(1e-6), cached.notes, side, size)


def _mapped(images: Bytes) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nobody writes to it
        return torch.from_numpy(images)


def _statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and sample standard deviation of each channel (1, C, 1, 1), of values in [0, 1]."""
    if images.dtype != torch.uint8:
        std, mean = torch.std_mean(images, dim=(0, 2, 3), keepdim=True)
        return mean, std
    return _per_channel(channel_histogram(images.numpy()))


def _per_channel(counts: Histogram) -> tuple[Tensor, Tensor]:
    means, deviations = mean_and_std(counts)
    return torch.tensor(means).view(1, -1, 1, 1), torch.tensor(deviations).view(1, -1, 1, 1)


def _resize(split: Split, size: int) -> tuple[Tensor, Tensor]:
    return fitted(split.images, size), split.labels


def fitted(images: Tensor, size: int) -> Tensor:
    """Images of bytes (N, C, H, W) as (N, C, size, size), bytes or float32 in [0, 1].

    Repeat pixels by a whole factor where the input is larger, pad with 0, average over whole cells where smaller.

    28x28 becomes 32x32 by padding, 16x16 by padding to 32 and averaging 2x2. Images of that size stay bytes."""
    if images.shape[-2:] == (size, size):
        return images
    images = images.float().div_(255)
    current = max(images.shape[-2:])
    if size >= 2 * current:
        images = images.repeat_interleave(size // current, -1).repeat_interleave(size // current, -2)
    padded = -(-max(images.shape[-2:]) // size) * size
    left, top = (padded - images.shape[-1]) // 2, (padded - images.shape[-2]) // 2
    images = F.pad(images, (left, padded - images.shape[-1] - left, top, padded - images.shape[-2] - top))
    return F.avg_pool2d(images, padded // size) if padded > size else images


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


def augment(
    images: Tensor,
    flip: bool,
    shift: int,
    generator: torch.Generator,
    crop_scale: tuple[float, float] | None = None,
    size: int | None = None,
) -> Tensor:
    """Square images, bytes or floats on any device, cut to ``size`` (as they are if None) and changed at random.

    Each is mirrored with probability 1/2, and cut at a place up to ``shift`` pixels outside of it, filled with 0. With
    ``crop_scale`` it is a rectangle of that share of the area instead, resized to a square: float32 in [0, 1].
    The random numbers are the CPU generator's, so that the device changes nothing."""
    size = images.shape[-1] if size is None else size
    if crop_scale is not None:
        return _resized_crops(images, flip, generator, crop_scale, size)
    device = images.device
    if flip:
        mirror = torch.rand(len(images), 1, 1, 1, generator=generator).to(device) < 0.5
        images = torch.where(mirror, images.flip(-1), images)
    places = images.shape[-1] - size + 2 * shift + 1
    if places > 1:
        padded = F.pad(images, (shift, shift, shift, shift))
        offsets = torch.randint(0, places, (2, len(images), 1), generator=generator).to(device)
        rows, columns = offsets + torch.arange(size, device=device)
        image = torch.arange(len(images), device=device)[:, None, None]
        images = padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return images


CROP_RATIOS = 3 / 4, 4 / 3
"""Width to height of random resized crops, drawn evenly on a logarithmic scale (Inception's and torchvision's)."""


def _resized_crops(
    images: Tensor, flip: bool, generator: torch.Generator, scale: tuple[float, float], size: int
) -> Tensor:
    """Random rectangles (B, C, size, size) in float32, read by bilinear interpolation at the centres of their pixels.

    Where a side would be longer than the image it is the image's; torchvision draws again instead."""
    if images.dtype == torch.uint8:
        images = images.float().div_(255)
    draws = torch.rand(5, len(images), generator=generator)
    area = scale[0] + (scale[1] - scale[0]) * draws[0]
    low, high = map(math.log, CROP_RATIOS)
    ratio = (low + (high - low) * draws[1]).exp()
    width, height = (area * ratio).sqrt().clamp_max(1), (area / ratio).sqrt().clamp_max(1)
    # In affine_grid's coordinates the image goes from -1 to 1, and so does the crop.
    x, y = (2 * draws[2] - 1) * (1 - width), (2 * draws[3] - 1) * (1 - height)
    if flip:
        width = torch.where(draws[4] < 0.5, -width, width)
    zero = torch.zeros_like(x)
    boxes = torch.stack([width, zero, x, zero, height, y], 1).view(-1, 2, 3).to(images.device)
    grid = F.affine_grid(boxes, [len(images), 1, size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
