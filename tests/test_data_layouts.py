"""Data as people have them: every layout is read, refused by name, or left out with a count; nothing is lost in silence."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from meliuscli.data.batches import prepare
from meliuscli.data.catalog import Dataset, load_dataset
from meliuscli.data.decode import read_image
from meliuscli.data.folder import ImageFolder
from meliuscli.errors import BadInputError, MissingError

Image = pytest.importorskip("PIL.Image")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELIUSCLI_CACHE", str(tmp_path / "cache"))


def write(root: Path, *splits: str, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """Four images of each class in each split."""
    rng = np.random.default_rng(0)
    for split in splits:
        for label, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for number in range(4):
                pixels = rng.integers(100 * label, 100 * label + 100, (8, 8, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


def load(root: Path) -> ImageFolder:
    found = load_dataset("imagefolder", root)
    assert isinstance(found, ImageFolder)
    return found


def sizes(found: ImageFolder) -> list[int]:
    return [len(found.train), len(found.validation), len(found.test)]


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (("train", "valid", "test"), [8, 8, 8]),
        (("Train", "Test"), [6, 2, 8]),
        (("TRAIN", "Valid"), [6, 2, 8]),
        (("training", "validation"), [6, 2, 8]),
        (("train", "dev", "testing"), [8, 8, 8]),
    ],
)
def test_splits_are_found_by_all_their_usual_names(
    tmp_path: Path, splits: tuple[str, ...], expected: list[int]
) -> None:
    """``valid`` beside ``test`` was no validation: it was not read at all."""
    assert sizes(load(write(tmp_path / "data", *splits))) == expected


def test_two_folders_of_one_split_are_refused(tmp_path: Path) -> None:
    """Data sets of the web have both names, of which one was read."""
    with pytest.raises(BadInputError, match="both val and valid"):
        load(write(tmp_path / "data", "train", "val", "valid"))


def test_what_lies_there_and_is_no_image_of_a_class_is_counted(tmp_path: Path) -> None:
    """Reports to image loaders: phones' .heic, browsers' .jfif, files of Windows and macOS, images beside the classes."""
    root = write(tmp_path / "data", "train", "test", "unlabelled")
    for name in ("a.heic", "b.HEIC", "c.avif", "noname"):
        (root / "train/cat" / name).write_bytes(b"x")
    (root / "train/stray.png").write_bytes((root / "train/cat/0.png").read_bytes())
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.png"):
        (root / "train/cat" / name).write_bytes(b"x")
    found = load(root)
    assert sizes(found) == [6, 2, 8]
    (note,) = found.notes
    for part in ("2 .heic files", "1 .avif files", "1 files without a suffix", "folder unlabelled", "1 of the images"):
        assert part in note
    assert "Thumbs" not in note
    assert note in prepare(found, 8).notes


def test_folders_of_operating_systems_hold_no_data(tmp_path: Path) -> None:
    """Synology's thumbnails counted as images of the class, and a Mac's archive had a class ``__MACOSX``."""
    root = write(tmp_path / "data", "train", "test")
    (root / "train/__MACOSX/cat").mkdir(parents=True)
    (root / "train/__MACOSX/cat/._0.png").write_bytes(b"x")
    (root / "train/cat/@eaDir/0.png").mkdir(parents=True)
    (root / "train/cat/@eaDir/0.png/SYNOFILE_THUMB_M.png").write_bytes((root / "train/cat/0.png").read_bytes())
    found = load(root)
    assert found.classes == ("cat", "dog")
    assert sizes(found) == [6, 2, 8]
    assert found.notes == ()


def test_links_to_folders_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    """People link classes into a folder instead of copying them."""
    root = write(tmp_path / "data", "train", "test")
    (root / "train/dog").rename(tmp_path / "elsewhere")
    (root / "train/dog").symlink_to(tmp_path / "elsewhere")
    (root / "train/cat/more").symlink_to(tmp_path / "elsewhere")
    (root / "train/cat/circle").symlink_to(root / "train/cat")
    assert sum(sizes(load(root))[:2]) == 12


def test_a_class_whose_link_leads_nowhere_is_named(tmp_path: Path) -> None:
    """The class was lost without a word where it was gone from all splits."""
    root = write(tmp_path / "data", "train", "test")
    for split in ("train", "test"):
        (root / split / "owl").symlink_to("nowhere/owl")
    with pytest.raises(MissingError, match="train/owl: a link to nowhere/owl, which is not there"):
        load(root)


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JIF"])
def test_jpegs_have_many_suffixes(tmp_path: Path, suffix: str) -> None:
    """Browsers save JPEGs as .jfif; a folder of them was empty."""
    root = write(tmp_path / "data", "train", "test")
    Image.new("RGB", (8, 8)).save(root / f"train/cat/x{suffix}", format="JPEG")
    found = load(root)
    assert sum(sizes(found)[:2]) == 9
    prepare(found, 8)


@pytest.mark.parametrize(
    ("splits", "classes", "says"),
    [
        (("train", "test"), ("cat",), "one class, cat: there is nothing to tell it from"),
        (("train/train", "test/test"), ("cat", "dog"), "not in train: test"),
    ],
)
def test_a_folder_without_a_task_is_refused_at_the_start(
    tmp_path: Path, splits: tuple[str, ...], classes: tuple[str, ...], says: str
) -> None:
    """One class was trained to the end, and then told to be no better than chance."""
    with pytest.raises(BadInputError, match=says):
        load(write(tmp_path / "data", *splits, classes=classes))


def test_classes_without_splits_are_named(tmp_path: Path) -> None:
    """Reported of every image-folder reader: the classes lie at the root."""
    with pytest.raises(MissingError, match="no folder train in it; it has cat, dog"):
        load(write(tmp_path, "data") / "data")


def _pixels(kind: str) -> object:
    rng = np.random.default_rng(0)
    if kind == "12 bits":
        return Image.fromarray(rng.integers(0, 4096, (8, 8)).astype(np.uint16))
    if kind == "8 bits in 16":
        return Image.fromarray(rng.integers(0, 256, (8, 8)).astype(np.uint16))
    if kind == "floats":
        return Image.fromarray(rng.random((8, 8)).astype(np.float32))
    return Image.fromarray(rng.integers(0, 2**20, (8, 8)).astype(np.int32))


@pytest.mark.parametrize("kind", ["12 bits", "8 bits in 16", "floats", "32 bits"])
def test_pixels_of_another_range_are_refused_and_not_blackened(tmp_path: Path, kind: str) -> None:
    """A public report of a loader: 12-bit numbers in 16-bit files came out nearly black, without a word."""
    root = write(tmp_path / "data", "train", "test")
    _pixels(kind).save(root / "train/cat/deep.tiff")  # type: ignore[attr-defined]
    with pytest.raises(BadInputError, match=r"deep\.tiff: its (16-bit pixels go up to|pixels are 32-bit)"):
        prepare(load(root), 8)


def test_pixels_of_16_bits_keep_their_range(tmp_path: Path) -> None:
    """The same report's other half: a full range is no fault."""
    root = write(tmp_path / "data", "train", "test")
    Image.fromarray(np.full((8, 8), 0xFFFF, np.uint16)).save(root / "train/cat/0.png")
    prepared = prepare(load(root), 8)
    assert (prepared.train[0] == 255).all(dim=(1, 2, 3)).any() or (prepared.validation[0] == 255).all(
        dim=(1, 2, 3)
    ).any()


def _wide_png(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which Pillow cannot write, of (H, W, 3) or, with alpha, (H, W, 4)."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">2I5B", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _wide_ppm(values: np.ndarray) -> bytes:
    return b"P6 %d %d 65535\n" % values.shape[1::-1] + values.astype(">u2").tobytes()


def _wide_tiff(values: np.ndarray) -> bytes:
    """An uncompressed TIFF of one strip of (H, W, 3)."""
    height, width, channels = values.shape
    data, after = values.astype("<u2").tobytes(), 10 + 12 * 9 + 4
    fields = ((256, width), (257, height), (258, after), (259, 1), (262, 2), (273, after + 6))
    fields += ((277, channels), (278, height), (279, len(data)))
    entries = b"".join(
        struct.pack("<HHII", tag, 3 if tag == 258 else 4, 3 if tag == 258 else 1, v) for tag, v in fields
    )
    return b"II*\0\x08\0\0\0\x09\0" + entries + bytes(4) + struct.pack("<3H", 16, 16, 16) + data


WIDE = {"png": _wide_png, "ppm": _wide_ppm, "tiff": _wide_tiff}


@pytest.mark.parametrize("suffix", WIDE)
def test_colours_of_16_bits_keep_their_range_or_are_refused(tmp_path: Path, suffix: str) -> None:
    """The same report in colour, of microscopes and cameras: the reader keeps the high byte of each channel, of 12-bit numbers
    nearly nothing."""
    colours = np.full((8, 8, 3), (256, 33_000, 65_535))
    path = tmp_path / f"wide.{suffix}"
    path.write_bytes(WIDE[suffix](colours))
    assert read_image(path, 8)[:, 0, 0].tolist() == [1, 128, 255]
    path.write_bytes(WIDE[suffix](colours // 17))
    with pytest.raises(BadInputError, match=rf"wide\.{suffix}: its 16-bit colours lie all below 4,096"):
        read_image(path, 8)


def test_alpha_does_not_hide_dark_colours_of_16_bits(tmp_path: Path) -> None:
    """White behind an alpha of 16 bits made them look light."""
    path = tmp_path / "wide.png"
    path.write_bytes(_wide_png(np.full((8, 8, 4), (100, 1000, 4000, 65_535))))
    with pytest.raises(BadInputError, match="all below 4,096"):
        read_image(path, 8)


# idx


def idx(values: np.ndarray) -> bytes:
    return (
        bytes((0, 0, 8, values.ndim))
        + struct.pack(f">{values.ndim}I", *values.shape)
        + values.astype(np.uint8).tobytes()
    )


def four(root: Path, name: str, test: str = "t10k", first: int = 0, pack: Callable[[bytes], bytes] = bytes) -> Path:
    """Three classes in MNIST's form; ``name`` has places for split, what, and dimensions."""
    for split, count in (("train", 60), (test, 12)):
        labels = np.arange(count) % 3 + first
        images = np.random.default_rng(count).integers(0, 256, (count, 8, 8))
        for what, values in (("images", images), ("labels", labels)):
            path = root / name.format(split=split, what=what, dims=values.ndim)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pack(idx(values)))
    return root


@pytest.mark.parametrize(
    ("name", "test"),
    [
        ("{split}-{what}-idx{dims}-ubyte", "t10k"),
        ("{split}-{what}.idx{dims}-ubyte", "t10k"),
        ("emnist-letters-{split}-{what}-idx{dims}-ubyte", "test"),
        ("MNIST/raw/{split}-{what}-idx{dims}-ubyte", "t10k"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_under_all_their_usual_names(tmp_path: Path, name: str, test: str, packed: bool) -> None:
    """Issues of readers of MNIST: 7-zip's names, torchvision's folder, EMNIST's prefix."""
    root = four(tmp_path, f"{name}.gz" if packed else name, test, pack=gzip.compress if packed else bytes)
    found = load_dataset("idx", root)
    assert isinstance(found, Dataset)
    assert (found.num_classes, len(found.test), found.notes) == (3, 12, ())


def test_a_gzipped_file_without_its_suffix_is_read(tmp_path: Path) -> None:
    """Browsers drop .gz and leave the file packed."""
    assert load_dataset("idx", four(tmp_path, "{split}-{what}-idx{dims}-ubyte", pack=gzip.compress)).num_classes == 3


def test_labels_from_1_are_taken_down_and_said(tmp_path: Path) -> None:
    """EMNIST's letters are 1 to 26; class 0 of 27 had no image."""
    found = load_dataset("idx", four(tmp_path, "{split}-{what}-idx{dims}-ubyte", first=1))
    assert isinstance(found, Dataset)
    assert found.num_classes == 3
    assert found.test.labels.tolist() == [0, 1, 2] * 4
    assert "labels begin at 1" in found.notes[0]
    assert found.notes[0] in prepare(found, 8).notes


def test_two_sets_of_idx_files_are_not_mixed(tmp_path: Path) -> None:
    """EMNIST is unpacked as six sets into one folder."""
    four(
        four(tmp_path, "emnist-letters-{split}-{what}-idx{dims}-ubyte"), "emnist-digits-{split}-{what}-idx{dims}-ubyte"
    )
    with pytest.raises(BadInputError, match="it has both emnist-digits-train"):
        load_dataset("idx", tmp_path)


def test_idx_labels_of_one_class_are_refused(tmp_path: Path) -> None:
    """A folder of one class trained to the end, and was then told to be no better than chance."""
    root = four(tmp_path, "{split}-{what}-idx{dims}-ubyte")
    for split, count in (("train", 60), ("t10k", 12)):
        (root / f"{split}-labels-idx1-ubyte").write_bytes(idx(np.zeros(count)))
    with pytest.raises(BadInputError, match="nothing to tell apart"):
        load_dataset("idx", root)


# CIFAR


def cifar(root: Path, key: Callable[[str], object], protocol: int, labels: Callable[[list[int]], object]) -> Path:
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        data = np.full((20, 3072), 7, np.uint8)
        batch = {key("data"): data, key("labels"): labels([index % 10 for index in range(20)])}
        (root / name).write_bytes(pickle.dumps(batch, protocol=protocol))
    return root


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("key", [str, os.fsencode])
@pytest.mark.parametrize("labels", [list, np.array, lambda values: np.array(values, ">i4")])
def test_cifar_that_was_saved_again_is_read(
    tmp_path: Path, key: Callable[[str], object], protocol: int, labels: Callable[[list[int]], object]
) -> None:
    """Questions on CIFAR pickles: saved again in Python 3 with keys of text, labels as an array."""
    found = load_dataset("cifar10", cifar(tmp_path, key, protocol, labels))
    assert isinstance(found, Dataset)
    assert found.test.labels.tolist() == [index % 10 for index in range(20)]


def test_a_cifar_file_without_its_keys_says_which_it_has(tmp_path: Path) -> None:
    """A KeyError's text was the message."""
    cifar(tmp_path, str, 4, list)
    (tmp_path / "data_batch_2").write_bytes(pickle.dumps({"images": 1}))
    with pytest.raises(BadInputError, match=r"data_batch_2: .*it has no data and no labels; its keys are images"):
        load_dataset("cifar10", tmp_path)
