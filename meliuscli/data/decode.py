"""Image files decoded to one size, some at a time in a process of its own. The only file that imports Pillow; no torch."""

from __future__ import annotations

import multiprocessing
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from meliuscli.data.idx import Bytes
from meliuscli.data.pixels import channel_histogram
from meliuscli.data.splits import pixel_hashes
from meliuscli.errors import BadInputError, MeliusError, MissingError
from meliuscli.processes import end_with_parent, interrupts_ignored

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Pillow reads more, of which some (EPS) run other programs."""
FEW = 256
"""Fewer files than this are decoded without other processes, which take a moment to start."""
USED = 2**12
"""An image of 16 bits whose values all lie below holds numbers of 12 bits or fewer, as cameras and scanners write them."""
WIDE = re.compile(r";16[BLN]$")
"""Ends Pillow's names of pixels of 16 bits a channel; without an order of bytes (``BGR;16``) all channels share 16 bits."""
HINT = "mend or delete it, or leave out such files with --skip-bad"


@dataclass(frozen=True, slots=True)
class Job:
    """Images below ``root`` to decode, and where in ``target`` their bytes (N, 3, side, side) go."""

    target: Path
    offset: int
    root: Path
    paths: Sequence[str]
    side: int
    skip_bad: bool


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of a job: which files could not be read (counted from 0), the channels' histograms (3, 256) of the
    others, and their pixels' hashes."""

    bad: list[int]
    histogram: list[list[int]]
    hashes: list[str]


def require_pillow() -> None:
    """Raise ``MissingError`` unless Pillow is installed."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise MissingError("image folders need Pillow", "pip install 'meliuscli[images]'") from None


def decode_all(jobs: Sequence[Job]) -> Iterator[tuple[int, Decoded]]:
    """Each job's number and result when it is done, in any order; in parallel where there is enough to do.

    Raises ``decode``'s errors, and ``BrokenProcessPool`` when a process is killed."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores == 1 or sum(len(job.paths) for job in jobs) < FEW:
        yield from ((number, decode(job)) for number, job in enumerate(jobs))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(cores, len(jobs)), mp_context=context, initializer=end_with_parent) as pool:
        try:
            with interrupts_ignored():
                futures = {pool.submit(decode, job): number for number, job in enumerate(jobs)}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def decode(job: Job) -> Decoded:
    """Decode images and write their bytes, durably.

    Raises ``read_image``'s errors unless bad files are skipped, and ``OSError`` where ``target`` cannot be written."""
    images = np.zeros((len(job.paths), 3, job.side, job.side), np.uint8)
    bad = []
    for index, path in enumerate(job.paths):
        try:
            images[index] = read_image(job.root / path, job.side)
        except MeliusError:
            if not job.skip_bad:
                raise
            bad.append(index)
    with job.target.open("r+b") as file:
        file.seek(job.offset)
        file.write(images.data)
        file.flush()
        os.fsync(file.fileno())
    good = np.delete(images, bad, 0)
    return Decoded(bad, channel_histogram(good).tolist(), [value.hex() for value in pixel_hashes(good)])


def read_image(path: Path, side: int) -> Bytes:
    """The middle square of an image, resized (bilinear, over all pixels that it covers): RGB bytes (3, side, side).

    An image of that size keeps its bytes; a photograph is turned as its EXIF says; what is transparent becomes white.
    Raises ``MissingError`` where the file cannot be opened, ``BadInputError`` for what is no image or a broken one."""
    from PIL import Image

    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(file, formats=FORMATS)
            image.draft(None, (2 * side, 2 * side))
            rgb = _as_rgb(image)
    except MemoryError:
        raise MissingError(f"{path}: not enough memory to decode it") from None
    except Exception as error:  # Pillow's readers raise anything
        raise _told(path, error) from None
    short = min(rgb.size)
    left, top = (rgb.width - short) / 2, (rgb.height - short) / 2
    if rgb.size != (side, side):
        rgb = rgb.resize((side, side), Image.Resampling.BILINEAR, (left, top, left + short, top + short))
    return np.asarray(rgb).transpose(2, 0, 1)


def shorter_side(path: Path) -> int | None:
    """The shorter side of an image in pixels, from its header; None where it cannot be read."""
    from PIL import Image

    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return min(Image.open(file, formats=FORMATS).size)
    except Exception:  # ``read_image`` will say what is wrong with it
        return None


def _as_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image, ImageOps

    is_wide = _has_wide_colours(image)
    turned = ImageOps.exif_transpose(image)
    if is_wide and np.asarray(turned)[..., :3].max() < USED >> 8:
        raise ValueError(f"its 16-bit colours lie all below {USED:,} and would come out black; rescale it")
    if turned.mode.startswith(("I", "F")):
        values = np.asarray(turned)
        if turned.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError("its pixels are 32-bit numbers of no known range; save it with 8 or 16 bits")
        if 0 < values.max() < USED:
            raise ValueError(f"its 16-bit pixels go up to {values.max():,} only and would come out black; rescale it")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if turned.has_transparency_data:
        white = Image.new("RGBA", turned.size, "white")
        turned = Image.alpha_composite(white, turned.convert("RGBA"))
    return turned.convert("RGB")


def _has_wide_colours(image: Image.Image) -> bool:
    """Does the file hold 16 bits a channel in several channels? Pillow then keeps their high bytes alone, and says so only in
    how it is going to decode the file."""
    said = [tile.args if isinstance(tile.args, tuple) else (tile.args,) for tile in getattr(image, "tile", ())]
    wide = any(args and (WIDE.search(str(args[0])) or args == ("RGB", 65535)) for args in said)
    return wide and image.mode in ("RGB", "RGBA")


def _told(path: Path, error: Exception) -> MeliusError:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError):
        limit = Image.MAX_IMAGE_PIXELS
        return BadInputError(f"{path}: refused: a decompression bomb, or an image of more than {limit:,} pixels", HINT)
    if isinstance(error, UnidentifiedImageError):
        return BadInputError(f"{path}: not an image (of {', '.join(FORMATS)})", HINT)
    if isinstance(error, OSError) and error.errno is not None:
        return MissingError(f"{path}: cannot be read: {error.strerror}", HINT)
    if isinstance(error, ValueError) and "its " in str(error):
        return BadInputError(f"{path}: {error}", HINT)
    return BadInputError(f"{path}: truncated or corrupt: {error}", HINT)
