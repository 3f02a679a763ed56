"""Data: the embedded set, idx files and their faults, preparation, balanced batches, augmentation."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from meliuscli.data import catalog
from meliuscli.data.batches import augment, balanced_order, batches, prepare
from meliuscli.data.catalog import Dataset, Split, load_dataset
from meliuscli.data.cifar import _read_python
from meliuscli.errors import BadInputError, MeliusError, MissingError


@pytest.fixture(scope="module")
def mini() -> Dataset:
    return load_dataset("fashion-mnist-mini")


def test_the_embedded_data_are_balanced_and_of_the_stated_size(mini: Dataset) -> None:
    for split, per_class in ((mini.train, 1000), (mini.validation, 500), (mini.test, 500)):
        assert split.images.shape == (10 * per_class, 1, 28, 28)
        assert split.images.dtype == torch.uint8
        assert torch.bincount(split.labels).tolist() == [per_class] * 10


def test_the_splits_share_no_image(mini: Dataset) -> None:
    """Fashion-MNIST holds a few exact duplicates of its own; none may cross our splits but those."""
    seen = [{image.numpy().tobytes() for image in split.images} for split in (mini.train, mini.validation, mini.test)]
    crossing = len(seen[0] & seen[1]) + len(seen[0] & seen[2]) + len(seen[1] & seen[2])
    assert crossing <= 3
    assert mini.digest == load_dataset("fashion-mnist-mini").digest


def test_the_images_are_of_their_classes(mini: Dataset) -> None:
    """A nearest-class-mean classifier from train does on test what it does on Fashion-MNIST (about 68 %)."""
    train, test = mini.train.images.float().flatten(1), mini.test.images.float().flatten(1)
    means = torch.stack([train[mini.train.labels == label].mean(0) for label in range(10)])
    accuracy = (torch.cdist(test, means).argmin(1) == mini.test.labels).float().mean().item()
    assert 0.64 < accuracy < 0.72


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def idx_dir(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 6000), ("t10k", 100)):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", rng.integers(0, 256, (count, 28, 28)))
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte", np.arange(count) % 10)
    return tmp_path


def test_a_directory_of_idx_files_plain_or_gzipped(idx_dir: Path) -> None:
    dataset = load_dataset("fashion-mnist", idx_dir)
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [5400, 600, 100]


def damage(name: str, how: str, directory: Path) -> None:
    path = directory / name
    content = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "magic":
        path.write_bytes(b"\x00\x00\x09\x01" + content[4:])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "longer":
        path.write_bytes(content + b"x")
    elif how == "label":
        path.write_bytes(content[:-1] + b"\x0a")
    elif how == "no images":
        write_idx(path, np.zeros((0, 28, 28)))
    elif how == "other size":
        write_idx(path, np.zeros((100, 20, 28)))
    elif how == "class":
        path.write_bytes(content[:8] + bytes(len(content) - 8))


@pytest.mark.parametrize(
    ("name", "how", "kind"),
    [
        ("train-images-idx3-ubyte.gz", "gone", MissingError),
        ("train-images-idx3-ubyte.gz", "truncated", BadInputError),
        ("train-images-idx3-ubyte.gz", "magic", BadInputError),
        ("train-images-idx3-ubyte.gz", "empty", BadInputError),
        ("train-labels-idx1-ubyte", "truncated", BadInputError),
        ("train-labels-idx1-ubyte", "magic", BadInputError),
        ("train-labels-idx1-ubyte", "longer", BadInputError),
        ("train-labels-idx1-ubyte", "label", BadInputError),
        ("train-labels-idx1-ubyte", "class", BadInputError),
        ("t10k-labels-idx1-ubyte", "label", BadInputError),
        ("t10k-labels-idx1-ubyte", "class", BadInputError),
        ("t10k-labels-idx1-ubyte", "gone", MissingError),
        ("t10k-images-idx3-ubyte.gz", "no images", BadInputError),
        ("t10k-images-idx3-ubyte.gz", "other size", BadInputError),
    ],
)
def test_a_damaged_file_is_named(idx_dir: Path, name: str, how: str, kind: type[MeliusError]) -> None:
    damage(name, how, idx_dir)
    with pytest.raises(kind) as caught:
        load_dataset("fashion-mnist", idx_dir)
    named = "t10k" if how == "other size" else name.removesuffix(".gz")
    assert str(idx_dir) in caught.value.message
    assert named in caught.value.message
    assert caught.value.exit_code == (3 if kind is MissingError else 2)


def test_a_missing_directory_says_where_to_get_and_put_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MELIUSCLI_DATA", str(tmp_path))
    with pytest.raises(MissingError) as caught:
        load_dataset("fashion-mnist")
    assert str(tmp_path / "fashion-mnist") in caught.value.message
    assert "dataset-fashion-mnist" in (caught.value.hint or "")


@pytest.mark.parametrize("how", ["truncated", "gone"])
def test_damaged_embedded_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    copy = tmp_path / "mini.npz"
    copy.write_bytes(catalog.EMBEDDED.read_bytes())
    damage("mini.npz", how, tmp_path)
    monkeypatch.setattr(catalog, "EMBEDDED", copy)
    with pytest.raises(MeliusError, match=r"mini\.npz"):
        load_dataset("fashion-mnist-mini")


@pytest.mark.parametrize("size", [8, 16, 32, 28, 30, 56])
def test_resizing_pads_or_averages_whole_cells(mini: Dataset, size: int) -> None:
    few = Split(mini.train.images[:20], mini.train.labels[:20])
    images = prepare(Dataset("few", 10, few, few, few), size).train[0]
    assert images.shape == (20, 1, size, size)
    if size == 28:
        assert torch.equal(images, few.images)
        return
    assert float(images.max()) <= 1.0
    padded = -(-28 // size) * size if size < 56 else size
    scale = (padded / 28) ** 2 if size < 56 else 1.0
    assert float(images.mean()) * scale == pytest.approx(float(few.images.float().mean()) / 255, rel=1e-4)


def test_bytes_and_floats_are_normalised_alike(mini: Dataset) -> None:
    """Bytes are measured by exact histograms, floats by torch."""
    few = Split(mini.train.images[:2000], mini.train.labels[:2000])
    prepared = prepare(Dataset("few", 10, few, few, few), 28)
    floats = few.images.float() / 255
    std, mean = torch.std_mean(floats.double(), dim=(0, 2, 3), keepdim=True)
    torch.testing.assert_close(prepared.mean, mean.float())
    torch.testing.assert_close(prepared.std, std.float())
    normal = prepared.normalise(few.images)
    assert torch.equal(normal, prepared.normalise(floats))
    assert normal.dtype == torch.float32
    assert normal.is_contiguous(memory_format=torch.channels_last)


def test_normalisation_is_measured_on_the_training_images_alone(mini: Dataset) -> None:
    prepared = prepare(mini, 16)
    normal = prepared.normalise(prepared.train[0])
    assert float(normal.mean()) == pytest.approx(0, abs=1e-4)
    assert float(normal.std()) == pytest.approx(1, abs=1e-3)
    assert abs(float(prepared.normalise(prepared.test[0]).mean())) > 1e-4


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 99))
def test_the_balanced_order_is_a_permutation(labels: list[int], seed: int) -> None:
    order = balanced_order(torch.tensor(labels), torch.Generator().manual_seed(seed))
    assert sorted(order.tolist()) == list(range(len(labels)))


def test_every_batch_is_exactly_balanced_and_depends_on_the_seed(mini: Dataset) -> None:
    def first(seed: int, count: int) -> list[torch.Tensor]:
        stream = batches(mini.train.labels, 50, torch.Generator().manual_seed(seed))
        return [next(stream) for _ in range(count)]

    for indices in first(0, 200):
        assert torch.bincount(mini.train.labels[indices]).tolist() == [5] * 10
    assert torch.equal(torch.cat(first(3, 5)), torch.cat(first(3, 5)))
    assert not torch.equal(torch.cat(first(3, 5)), torch.cat(first(4, 5)))
    assert sorted(torch.cat(first(0, 200)).tolist()) == list(range(10_000))


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_augmentation_flips_and_shifts_whole_images(dtype: torch.dtype) -> None:
    image = torch.zeros(64, 1, 9, 9, dtype=dtype)
    image[:, 0, 4, 2] = 1
    out = augment(image, flip=True, shift=2, generator=torch.Generator().manual_seed(0))
    assert out.shape == image.shape
    assert out.dtype == dtype
    assert out.sum((1, 2, 3)).tolist() == [1] * 64
    places = {tuple(place[1:].tolist()) for place in out[:, 0].nonzero()}
    assert {row for row, _ in places} == {2, 3, 4, 5, 6}
    assert {column for _, column in places} == {0, 1, 2, 3, 4, 5, 6, 7, 8}
    untouched = augment(image, flip=False, shift=0, generator=torch.Generator())
    assert torch.equal(untouched, image)


def test_larger_images_are_cut_at_every_place() -> None:
    """Every pixel has its own value: what is cut out is a piece of the image, mirrored or not."""
    image = torch.arange(36, dtype=torch.uint8).view(1, 1, 6, 6).expand(400, 1, 6, 6)
    out = augment(image, flip=True, shift=0, generator=torch.Generator().manual_seed(1), size=4)
    pieces = {bytes(piece.flatten().tolist()) for piece in out}
    mirrored = torch.stack([image[0, 0], image[0, 0].flip(-1)])
    expected = {
        bytes(whole[row : row + 4, column : column + 4].flatten().tolist())
        for whole in mirrored
        for row in range(3)
        for column in range(3)
    }
    assert pieces == expected


@given(
    low=st.floats(0.05, 1.0),
    span=st.floats(0, 1),
    stored=st.integers(8, 40),
    size=st.integers(4, 32),
    flip=st.booleans(),
)
def test_resized_crops_are_rectangles_in_the_image_of_the_area_asked_for(
    low: float, span: float, stored: int, size: int, flip: bool
) -> None:
    """The image holds its pixels' own coordinates, which bilinear interpolation keeps but for the outermost half pixel:
    the inner columns of the output tell where they come from."""
    scale = (low, min(1.0, low + span))
    x, y = torch.meshgrid(torch.arange(stored), torch.arange(stored), indexing="xy")
    image = torch.stack([x, y]).float().expand(50, 2, stored, stored) + 0.5
    out = augment(image, flip, 0, torch.Generator().manual_seed(stored), scale, size)
    assert out.shape == (50, 2, size, size)
    assert out.min() >= 0.5 - 1e-4
    assert out.max() <= stored - 0.5 + 1e-4
    columns, rows = out[:, 0].mean(1), out[:, 1].mean(2)
    step = stored / size
    for line in (columns, rows):
        assert ((line.diff() >= -1e-3).all(1) | (line.diff() <= 1e-3).all(1)).all()
        middle = line[:, size // 2] - line[:, size // 2 - 1]
        assert (middle.abs() <= step + 1e-3).all()
    assert (rows.diff() >= -1e-3).all()
    assert flip or (columns.diff() >= -1e-3).all()
    width, height = (line[:, size // 2].sub(line[:, size // 2 - 1]).abs() * size / stored for line in (columns, rows))
    for line in (columns, rows):
        step_of = (line[:, size // 2] - line[:, size // 2 - 1])[:, None]
        edges = line[:, size // 2, None] + step_of * torch.tensor([-(size // 2) - 0.5, size - size // 2 - 0.5])
        assert edges.min() >= -0.02 * stored
        assert edges.max() <= 1.02 * stored
    inner = (width < 0.99) & (height < 0.99)  # the others were clipped to the image
    area, ratio = (width * height)[inner], (width / height)[inner]
    # A rectangle that ends in the outermost half pixel is seen shorter where only two columns are left to see it.
    if size > 4:
        assert (area >= scale[0] - 1e-2).all()
        assert (ratio >= 3 / 4 - 1e-2).all()
        assert (ratio <= 4 / 3 + 1e-2).all()
    assert (area <= scale[1] + 1e-2).all()


def test_resized_crops_equal_a_plain_interpolation() -> None:
    """The rectangles are read off an image of coordinates; a loop then interpolates another image in them."""
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (6, 3, 12, 12), generator=generator, dtype=torch.uint8)
    x, y = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="xy")
    places = torch.stack([x, y]).expand(6, 2, 12, 12)
    out, where = (augment(i, True, 0, torch.Generator().manual_seed(4), (0.2, 0.9), 7) for i in (pixels, places))
    assert out.dtype == torch.float32
    for image in range(6):
        for row in range(7):
            for column in range(7):
                px, py = where[image, :, row, column].tolist()
                left, top = min(int(px), 10), min(int(py), 10)
                right, down = px - left, py - top
                corners = pixels[image, :, top : top + 2, left : left + 2].double() / 255
                weights = torch.tensor(
                    [[(1 - down) * (1 - right), (1 - down) * right], [down * (1 - right), down * right]]
                )
                expected = (corners * weights).sum((1, 2)).float()
                torch.testing.assert_close(out[image, :, row, column], expected, atol=1e-4, rtol=1e-4)


def test_half_of_the_crops_are_mirrored_and_all_places_are_taken() -> None:
    x, y = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="xy")
    out = augment(torch.stack([x, y]).expand(400, 2, 64, 64), True, 0, torch.Generator().manual_seed(0), (0.2, 0.3), 8)
    mirrored = (out[:, 0, 0, 0] > out[:, 0, 0, -1]).float().mean()
    assert 0.4 < float(mirrored) < 0.6
    for axis in (0, 1):
        middles = out[:, axis].mean((1, 2))
        assert 30 < float(middles.mean()) < 34
        assert float(out[:, axis].min()) < 5
        assert float(out[:, axis].max()) > 58


@pytest.mark.parametrize("crop_scale", [None, (0.3, 1.0)])
def test_all_of_it_happens_on_the_images_device(crop_scale: tuple[float, float] | None) -> None:
    """The meta device computes nothing, but refuses operands of another device."""
    images = torch.zeros(8, 3, 10, 10, dtype=torch.uint8, device="meta")
    out = augment(images, True, 2, torch.Generator().manual_seed(0), crop_scale, 8)
    assert out.device.type == "meta"
    assert out.shape == (8, 3, 8, 8)


@given(seed=st.integers(0, 99), flip=st.booleans(), shift=st.integers(0, 3), crop=st.booleans())
def test_augmentation_follows_its_generator_and_leaves_the_images_alone(
    seed: int, flip: bool, shift: int, crop: bool
) -> None:
    images = torch.randint(0, 256, (8, 3, 10, 10), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    before, scale = images.clone(), (0.3, 1.0) if crop else None
    first, again = (augment(images, flip, shift, torch.Generator().manual_seed(seed), scale, 8) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(images, before)
    assert first.shape == (8, 3, 8, 8)


# CIFAR


def cifar_part(count: int, num_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3072), dtype=np.uint8), np.arange(count) % num_classes


def write_cifar(directory: Path, num_classes: int, version: str, protocol: int = 2) -> dict[str, np.ndarray]:
    """Small files in the form of the originals; the images by file name."""
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"] if num_classes == 10 else ["train", "test"]
    written = {}
    for seed, name in enumerate(names):
        images, labels = cifar_part(10 * num_classes if num_classes == 10 else 1000, num_classes, seed)
        written[name] = images
        if version == "binary":
            marks = [labels] if num_classes == 10 else [labels // 5, labels]
            records = np.concatenate([np.stack(marks, 1).astype(np.uint8), images], 1)
            (directory / f"{name}.bin").write_bytes(records.tobytes())
        else:
            key = b"labels" if num_classes == 10 else b"fine_labels"
            batch = {b"data": images, key: labels.tolist(), b"filenames": [b"x.png"], b"batch_label": b"of five"}
            (directory / name).write_bytes(pickle.dumps(batch, protocol=protocol))
    return written


@pytest.mark.parametrize("version", ["binary", "python"])
@pytest.mark.parametrize("num_classes", [10, 100])
def test_cifar_in_both_versions(tmp_path: Path, num_classes: int, version: str) -> None:
    folder = tmp_path / {10: "cifar-10-batches", 100: "cifar-100"}[num_classes]
    suffix = {10: {"binary": "-bin", "python": "-py"}, 100: {"binary": "-binary", "python": "-python"}}
    folder = folder.with_name(folder.name + suffix[num_classes][version])
    folder.mkdir()
    written = write_cifar(folder, num_classes, version)
    for place in (folder, tmp_path):  # the folder itself, and what the archive was unpacked into
        dataset = load_dataset(f"cifar{num_classes}", place)
        sizes = [len(split) for split in (dataset.train, dataset.validation, dataset.test)]
        assert sizes == ([450, 50, 100] if num_classes == 10 else [900, 100, 1000])
        assert dataset.channels == 3
        test = written["test_batch" if num_classes == 10 else "test"]
        assert (dataset.test.images.numpy().reshape(-1, 3072) == test).all()
        assert (dataset.test.labels.numpy() == np.arange(len(test)) % num_classes).all()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_pickles_of_all_protocols_that_such_files_have(tmp_path: Path, protocol: int) -> None:
    write_cifar(tmp_path, 10, "python", protocol)
    assert len(load_dataset("cifar10", tmp_path).train) == 450


class Evil:
    """A pickle that would touch a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_a_pickle_that_calls_something_is_refused_and_calls_nothing(tmp_path: Path) -> None:
    write_cifar(tmp_path, 10, "python")
    touched = tmp_path / "touched"
    for content in ({b"data": Evil(touched), b"labels": []}, Evil(touched), [Evil(touched)]):
        (tmp_path / "data_batch_3").write_bytes(pickle.dumps(content, protocol=2))
        with pytest.raises(BadInputError, match=r"data_batch_3: corrupt, .* which no CIFAR file does"):
            load_dataset("cifar10", tmp_path)
    assert not touched.exists()


@pytest.mark.parametrize(
    "batch",
    [
        {b"data": np.zeros((2, 3072), np.int64), b"labels": [0, 1]},
        {b"data": np.zeros((2, 3000), np.uint8), b"labels": [0, 1]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 300]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [b"x", b"y"]},
        {b"labels": [0, 1]},
        [1, 2],
    ],
)
def test_a_pickle_of_other_things_is_refused(tmp_path: Path, batch: object) -> None:
    write_cifar(tmp_path, 10, "python")
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(BadInputError, match="test_batch: corrupt"):
        load_dataset("cifar10", tmp_path)


@given(content=st.binary(max_size=200))
def test_no_bytes_do_anything_but_raise(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "batch"
    with pytest.raises(BadInputError):
        _read_python(path, content, 10)


@pytest.mark.parametrize("how", ["truncated", "empty", "gone", "longer"])
def test_damaged_binary_files_are_named(tmp_path: Path, how: str) -> None:
    write_cifar(tmp_path, 10, "binary")
    damage("data_batch_2.bin", how, tmp_path)
    if how == "truncated":
        (tmp_path / "data_batch_2.bin").write_bytes((tmp_path / "data_batch_1.bin").read_bytes()[:5000])
    with pytest.raises(MeliusError, match=r"data_batch_2\.bin") as caught:
        load_dataset("cifar10", tmp_path)
    assert isinstance(caught.value, MissingError) == (how == "gone")


@pytest.mark.parametrize("version", ["binary", "python"])
@pytest.mark.parametrize("name", ["data_batch_4", "test_batch"])
def test_a_label_that_cifar_has_not_is_named(tmp_path: Path, version: str, name: str) -> None:
    write_cifar(tmp_path, 10, version)
    images, labels = cifar_part(30, 10, 0)
    labels[7] = 10
    if version == "binary":
        content = np.concatenate([labels[:, None].astype(np.uint8), images], 1).tobytes()
        (tmp_path / f"{name}.bin").write_bytes(content)
    else:
        (tmp_path / name).write_bytes(pickle.dumps({b"data": images, b"labels": labels.tolist()}, protocol=2))
    with pytest.raises(BadInputError, match=rf"{name}.*: label 10 is out of range"):
        load_dataset("cifar10", tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "idx", "fashion-mnist", "imagefolder"])
def test_missing_files_say_where_to_get_and_where_to_put_them(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingError) as caught:
        load_dataset(name, tmp_path)
    assert str(tmp_path) in caught.value.message
    assert "--data" in (caught.value.hint or "")


def test_idx_files_of_ones_own_have_as_many_classes_as_their_labels_say(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 60), ("t10k", 9)):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte", rng.integers(0, 256, (count, 20, 20)))
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte", np.arange(count) % 3)
    dataset = load_dataset("idx", tmp_path)
    assert dataset.num_classes == 3
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [54, 6, 9]
    for prefix in ("train", "t10k"):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte", np.zeros((60, 20, 20)))
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte", np.arange(60))
    with pytest.raises(BadInputError, match="too few images"):
        load_dataset("idx", tmp_path)
