"""Image folders: layouts, decoding, the memory-mapped file, and everything that can be wrong with them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
from conftest import run_here
from PIL import Image

from meliuscli.arch.zoo import load_arch
from meliuscli.data import cache, decode
from meliuscli.data.batches import Prepared, prepare
from meliuscli.data.catalog import data_shape, load_dataset
from meliuscli.data.decode import read_image
from meliuscli.data.folder import ImageFolder
from meliuscli.data.layout import cache_directory
from meliuscli.data.splits import Cut
from meliuscli.errors import BadInputError, FailedError, MeliusError, MissingError
from meliuscli.search.objective import proxy_spec, proxy_task
from meliuscli.search.space import load_space
from meliuscli.training.pool import train_task

CLASSES = ("cat", "dog", "eel")


@pytest.fixture(autouse=True)
def cache_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MELIUSCLI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


def pixels(seed: int, height: int = 12, width: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_folder(root: Path, counts: dict[str, int], classes: Sequence[str] = CLASSES, size: int = 12) -> Path:
    """PNG files of noise; each image is another."""
    for part, (split, count) in enumerate(counts.items()):
        for label, name in enumerate(classes):
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                image = Image.fromarray(pixels(10_000 * part + 1000 * label + index, size, size))
                image.save(root / split / name / f"{index:04}.png", compress_level=1)
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data", {"train": 20, "test": 3})


def load(root: Path, cut: Cut | None = None, skip_bad: bool = False) -> ImageFolder:
    found = load_dataset("imagefolder", root, cut, skip_bad)
    assert isinstance(found, ImageFolder)
    return found


def images_of(prepared: Prepared) -> list[set[tuple[int, bytes]]]:
    """Label and bytes of the images of each split."""
    splits = (prepared.train, prepared.validation, prepared.test)
    return [{(int(y), bytes(x.flatten().tolist())) for x, y in zip(*split, strict=True)} for split in splits]


# Splits


@pytest.mark.parametrize(
    ("counts", "sizes"),
    [
        ({"train": 20, "val": 3}, (54, 6, 9)),
        ({"train": 20, "validation": 3}, (54, 6, 9)),
        ({"train": 20, "test": 3}, (54, 6, 9)),
        ({"train": 20, "val": 4, "test": 3}, (60, 12, 9)),
        ({"train": 2, "val": 1}, (3, 3, 3)),
    ],
)
def test_layouts(tmp_path: Path, counts: dict[str, int], sizes: tuple[int, ...]) -> None:
    found = load(write_folder(tmp_path / "data", counts))
    splits = (found.train, found.validation, found.test)
    assert tuple(map(len, splits)) == sizes
    assert (found.classes, found.num_classes, found.channels) == (CLASSES, 3, 3)
    paths = [path for split in splits for path in split.paths]
    assert len(set(paths)) == sum(sizes)
    for split in splits:
        assert [path.split("/")[1] for path in split.paths] == [CLASSES[label] for label in split.labels]
    last = "test" if "test" in counts else max(counts)
    assert {path.split("/")[0] for path in found.test.paths} == {last}


def test_a_cut_changes_validation_but_never_test(folder: Path) -> None:
    default, other, larger = (load(folder, cut) for cut in (None, Cut(seed=1), Cut(share=0.5, per_class=5)))
    assert len(other.validation) == len(default.validation)
    assert set(other.validation.paths) != set(default.validation.paths)
    assert len(larger.validation) == 15
    for found in (default, other, larger):
        assert found.test.paths == default.test.paths
        assert not set(found.train.paths) & set(found.validation.paths)
        assert len(found.train) + len(found.validation) == 60
    assert len({default.digest, other.digest, larger.digest}) == 3
    assert load(folder).digest == default.digest


def test_validation_images_of_its_own_cannot_be_cut_again(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", {"train": 4, "val": 2, "test": 2})
    with pytest.raises(BadInputError, match="validation images of its own"):
        load(root, Cut(seed=1))


def test_nested_folders_count_and_hidden_or_other_files_do_not(folder: Path) -> None:
    (folder / "train/cat/more").mkdir()
    Image.fromarray(pixels(1)).save(folder / "train/cat/more/UPPER.PNG")
    (folder / "train/cat/.hidden.png").write_bytes(b"x")
    (folder / "train/cat/notes.txt").write_text("x")
    (folder / "train/.cache").mkdir()
    found = load(folder)
    assert len(found.train) + len(found.validation) == 61
    assert "train/cat/more/UPPER.PNG" in found.train.paths + found.validation.paths


# Decoding


def test_images_of_the_right_size_keep_their_bytes_and_the_folder_is_left_alone(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    prepared = prepare(load(folder), 12)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert prepared.input_size == 12
    expected: set[tuple[int, bytes]] = set()
    for label, name in enumerate(CLASSES):
        for path in (folder / "train" / name).iterdir():
            expected.add((label, np.asarray(Image.open(path)).transpose(2, 0, 1).tobytes()))
    train, validation, test = images_of(prepared)
    assert train | validation == expected
    assert (len(train), len(validation), len(test)) == (54, 6, 9)
    assert prepared.train[0].dtype == torch.uint8
    floats = prepared.train[0].double() / 255
    torch.testing.assert_close(prepared.mean, floats.mean((0, 2, 3), keepdim=True).float())
    torch.testing.assert_close(prepared.std, floats.std((0, 2, 3), keepdim=True).float())


RED, WHITE, GREY = (250, 0, 0), (255, 255, 255), (100, 100, 100)


def with_palette() -> Image.Image:
    """All of its fourth colour, red."""
    image = Image.new("P", (16, 16), 3)
    image.putpalette([0, 0, 0] * 3 + list(RED))
    return image


def colour(mode: str) -> tuple[Image.Image, tuple[int, int, int]]:
    """A plain image of a mode, and the RGB colour that it is."""
    if mode == "palette":
        return with_palette(), RED
    if mode == "transparent palette":
        image = with_palette()
        image.info["transparency"] = bytes([255, 255, 255, 0])
        return image, WHITE
    if mode == "I;16":
        return Image.fromarray(np.full((16, 16), 100 * 256 + 7, np.uint16)), GREY
    filled = {
        "L": 100,
        "LA": (100, 255),
        "RGBA": (*RED, 255),
        "clear RGBA": (*RED, 0),
        "1": 1,
        "CMYK": (0, 255, 255, 5),
    }
    told = {"L": GREY, "LA": GREY, "clear RGBA": WHITE, "1": WHITE}
    return Image.new(mode.split()[-1], (16, 16), filled[mode]), told.get(mode, RED)


@pytest.mark.parametrize(
    "mode", ["L", "LA", "1", "palette", "transparent palette", "RGBA", "clear RGBA", "CMYK", "I;16"]
)
def test_all_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    image, wanted = colour(mode)
    path = tmp_path / f"x.{'jpg' if mode == 'CMYK' else 'png'}"
    image.save(path, **({"transparency": image.info["transparency"]} if "transparency" in image.info else {}))
    for side in (8, 16):
        found = read_image(path, side)
        assert found.shape == (3, side, side)
        assert found.dtype == np.uint8
        assert np.abs(found.astype(int) - np.array(wanted)[:, None, None]).max() <= 2


def test_the_middle_square_of_a_large_image_resized(tmp_path: Path) -> None:
    """Against the shorter side resized and the middle cut out after; and a photograph on its side is turned."""
    smooth = np.asarray(Image.fromarray(pixels(0, 6, 9)).resize((300, 200), Image.Resampling.BICUBIC))
    Image.fromarray(smooth).save(tmp_path / "x.png")
    found = read_image(tmp_path / "x.png", 40).astype(int)
    resized = np.asarray(Image.fromarray(smooth).resize((60, 40), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(found - resized[:, 10:50].transpose(2, 0, 1)).max() <= 2
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(np.rot90(smooth).copy()).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    assert np.abs(read_image(tmp_path / "turned.jpg", 40).astype(int) - found).mean() < 3


def test_training_images_have_a_margin_where_there_are_pixels_for_it(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", {"train": 3, "test": 2}, size=80)
    sides = {size: prepare(load(root), size).train[0].shape[-1] for size in (56, 70, 71)}
    assert sides == {56: 56, 70: 80, 71: 71}  # small inputs get whole images; 8/7 of 71 is more than 80
    prepared = prepare(load(root), 70)
    assert prepared.input_size == prepared.test[0].shape[-1] == 70
    path = root / load(root).test.paths[0]
    middle = np.asarray(Image.open(path)).transpose(2, 0, 1)[:, 5:75, 5:75]
    assert np.array_equal(prepared.test[0][0].numpy(), middle)


# The memory-mapped file


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of four files, decoded one after the other in this process."""
    monkeypatch.setattr(cache, "CHUNK_FILES", 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)


def silent(done: int, total: int) -> None:
    pass


def test_progress_is_told_and_a_second_time_decodes_nothing(
    folder: Path, small_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    first = prepare(load(folder), 12, lambda done, total: told.append((done, total)))
    assert told[0] == (0, 69)
    assert told[-1] == (69, 69)
    assert len(told) > 15
    monkeypatch.setattr(decode, "read_image", None)
    again = prepare(load(folder), 12, lambda done, total: pytest.fail("decoded again"))
    assert images_of(again) == images_of(first)
    assert torch.equal(again.mean, first.mean)


def test_processes_give_what_one_gives(folder: Path, monkeypatch: pytest.MonkeyPatch, cache_place: Path) -> None:
    monkeypatch.setattr(cache, "CHUNK_FILES", 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(decode, "FEW", 1)
    prepare(load(folder), 12)
    contents = [{path.name: path.read_bytes() for path in cache_place.rglob("*.*")}]
    shutil.rmtree(cache_place)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    prepare(load(folder), 12)
    contents.append({path.name: path.read_bytes() for path in cache_place.rglob("*.*")})
    assert contents[0].keys() == {"images.npy", "about.json"}
    assert contents[0] == contents[1]


def test_interrupted_work_goes_on(folder: Path, small_chunks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = images_of(prepare(load(folder), 12))
    shutil.rmtree(cache_directory())

    def interrupt(done: int, total: int) -> None:
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(load(folder), 12, interrupt)
    (place,) = cache_directory().iterdir()
    with (place / "progress").open("a") as file:
        file.write('{"start": 20, "bad": []')  # a line that was cut off
    seen = []
    monkeypatch.setattr(decode, "read_image", lambda path, side: seen.append(path) or read_image(path, side))
    assert images_of(prepare(load(folder), 12)) == whole
    assert len(seen) == 69 - 20


DECODE = """
import sys, time
from pathlib import Path
from meliuscli.data import cache
from meliuscli.data.folder import list_folder
from meliuscli.data.splits import Cut

cache.CHUNK_FILES = 2

def progress(done, total):
    print(done, flush=True)
    time.sleep(float(sys.argv[2]))

if __name__ == "__main__":
    cache.decoded(list_folder(Path(sys.argv[1]), Cut()), 12, progress)
    assert "torch" not in sys.modules
"""


def test_killed_work_goes_on_to_the_same_file(folder: Path, tmp_path: Path, cache_place: Path) -> None:
    script = tmp_path / "decode.py"
    script.write_text(DECODE)
    killed = subprocess.Popen([sys.executable, script, folder, "0.3"], stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    told = [killed.stdout.readline() for _ in range(4)]
    assert told[0] == "0\n"
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    killed.stdout.close()
    (place,) = cache_place.iterdir()
    assert {path.name for path in place.iterdir()} == {"images.part", "progress", "lock"}
    again = subprocess.run([sys.executable, script, folder, "0"], capture_output=True, text=True, check=True)
    assert int(again.stdout.splitlines()[0]) >= 4
    resumed = (place / "images.npy").read_bytes(), (place / "about.json").read_bytes()
    shutil.rmtree(cache_place)
    prepare(load(folder), 12)
    assert (place / "images.npy").read_bytes() == resumed[0]
    assert (place / "about.json").read_bytes() == resumed[1]


def test_a_second_writer_waits_and_then_reads(folder: Path, small_chunks: None, cache_place: Path) -> None:
    prepare(load(folder), 12)
    (place,) = cache_place.iterdir()
    away = place / "away.npy"
    (place / "images.npy").rename(away)
    told: list[tuple[int, int]] = []
    done = threading.Event()

    def second() -> None:
        prepare(load(folder), 12, lambda *counts: told.append(counts))
        done.set()

    with filelock.FileLock(place / "lock"):
        thread = threading.Thread(target=second)
        thread.start()
        assert not done.wait(1.5)
        away.rename(place / "images.npy")
    thread.join(10)
    assert done.is_set()
    assert told == [(0, 69)] * len(told)  # heard of the other's progress, decoded nothing


@pytest.mark.parametrize("how", ["truncated", "other shape", "no about", "garbage about"])
def test_a_damaged_cache_is_made_again(folder: Path, cache_place: Path, how: str) -> None:
    whole = images_of(prepare(load(folder), 12))
    (place,) = cache_place.iterdir()
    images, about = place / "images.npy", place / "about.json"
    if how == "truncated":
        os.truncate(images, images.stat().st_size // 2)
    elif how == "other shape":
        np.save(images, np.zeros((3, 3), np.uint8))
    elif how == "no about":
        about.unlink()
    else:
        about.write_text("[]")
    assert images_of(prepare(load(folder), 12)) == whole


def test_a_changed_file_is_decoded(folder: Path) -> None:
    before = images_of(prepare(load(folder), 12))
    path = folder / load(folder).test.paths[0]
    Image.fromarray(pixels(77)).save(path)
    os.utime(path, ns=(1, 1))
    after = images_of(prepare(load(folder), 12))
    assert before[:2] == after[:2]
    assert (0, pixels(77).transpose(2, 0, 1).tobytes()) in after[2]


def test_a_full_disk(folder: Path, small_chunks: None, monkeypatch: pytest.MonkeyPatch, cache_place: Path) -> None:
    usage = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(path)._replace(free=100))
    with pytest.raises(MissingError, match="GiB more than is free"):
        prepare(load(folder), 12)
    monkeypatch.setattr(shutil, "disk_usage", usage)
    fsync, calls = os.fsync, iter(range(100))

    def full(descriptor: int) -> None:
        if next(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MissingError, match="cannot be written: No space left on device"):
        prepare(load(folder), 12)
    assert not list(cache_place.rglob("images.npy"))
    monkeypatch.setattr(os, "fsync", fsync)
    assert len(prepare(load(folder), 12).train[1]) == 54


def test_a_cache_directory_that_cannot_be_made(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MELIUSCLI_CACHE", str(tmp_path / "file"))
    with pytest.raises(BadInputError, match="is a file, and a directory is needed"):
        prepare(load(folder), 12)
    monkeypatch.setenv("MELIUSCLI_CACHE", str(tmp_path / "file" / "inside"))
    with pytest.raises(MissingError, match="cannot be written"):
        prepare(load(folder), 12)


# Bad data


def jpeg(path: Path, size: int = 64) -> bytes:
    Image.fromarray(pixels(5, size, size)).save(path, "JPEG")
    return path.read_bytes()


def truncate(path: Path) -> None:
    content = jpeg(path)
    path.write_bytes(content[: len(content) // 2])


def truncate_png(path: Path) -> None:
    Image.fromarray(pixels(5, 64, 64)).save(path, "PNG")
    path.write_bytes(path.read_bytes()[:5000])


def bomb(path: Path) -> None:
    """The header of a PNG file of 10,000 million pixels."""
    parts = (b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0), b"IDAT")
    chunks = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def postscript(path: Path) -> None:
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 12 12\n%%EndComments\nshowpage\n%%EOF\n")


def float_pixels(path: Path) -> None:
    Image.new("F", (12, 12)).save(path, "TIFF")


def nowhere(path: Path) -> None:
    path.symlink_to(path.with_name("gone.png"))


BAD: dict[str, tuple[Callable[[Path], object], type[MeliusError], str]] = {
    "truncated JPEG": (truncate, BadInputError, "truncated"),
    "truncated PNG": (truncate_png, BadInputError, "truncated"),
    "empty": (lambda path: path.write_bytes(b""), BadInputError, "not an image"),
    "text": (lambda path: path.write_text("<html>404</html>"), BadInputError, "not an image"),
    "only a header": (lambda path: path.write_bytes(jpeg(path)[:20]), BadInputError, r"not an image|truncated"),
    "PostScript": (postscript, BadInputError, "not an image"),
    "decompression bomb": (bomb, BadInputError, "decompression bomb"),
    "32-bit pixels": (float_pixels, BadInputError, "32-bit numbers"),
    "unreadable": (nowhere, MissingError, "No such file"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_bad_file_is_named_or_skipped_with_a_count(folder: Path, kind: str, split: str, small_chunks: None) -> None:
    whole = set().union(*images_of(prepare(load(folder), 12)))
    make, error, says = BAD[kind]
    path = folder / split / "dog" / "0001.png"
    lost = (1, np.asarray(Image.open(path)).transpose(2, 0, 1).tobytes())
    path.unlink()
    make(path)
    for _ in range(2):
        with pytest.raises(error, match=says) as caught:
            prepare(load(folder), 12)
        assert str(path) in caught.value.message
        assert "--skip-bad" in (caught.value.hint or "")
    prepared = prepare(load(folder, skip_bad=True), 12)
    train, validation, test = images_of(prepared)
    assert train | validation | test == whole - {lost}
    assert (len(prepared.test[1]), len(test)) == ((8, 8) if split == "test" else (9, 9))
    (note,) = prepared.notes
    assert note.startswith("1 of 69 image files could not be read")
    (about,) = (
        json.loads(place.read_text())
        for place in cache_directory().rglob("about.json")
        if "left" in note and str(place) in note
    )
    assert about["left_out"] == [f"{split}/dog/0001.png"]
    with pytest.raises(error, match=says):  # what was skipped once is not skipped unasked
        prepare(load(folder), 12)


def test_one_bad_file_among_ten_thousand(tmp_path: Path) -> None:
    """Links to a few files stand for the many; the pool of processes finds the bad one."""
    root = write_folder(tmp_path / "data", {"train": 3, "test": 1}, CLASSES[:2], size=8)
    for name in CLASSES[:2]:
        for index in range(3, 5_000):
            os.link(root / "train" / name / f"{index % 3:04}.png", root / "train" / name / f"{index:04}.png")
    bad = root / "train/dog/4321.png"
    bad.unlink()
    bad.write_bytes(b"\x89PNG\r\n\x1a\n rubbish")
    with pytest.raises(BadInputError) as caught:
        prepare(load(root), 8)
    assert str(bad) in caught.value.message
    prepared = prepare(load(root, skip_bad=True), 8)
    assert sum(len(labels) for _, labels in (prepared.train, prepared.validation)) == 9999
    assert prepared.notes[0].startswith("1 of 10,002 image files")
    assert any("validation images are among the training images" in note for note in prepared.notes[1:])


def test_a_class_without_a_readable_image(folder: Path) -> None:
    for path in (folder / "test/eel").iterdir():
        path.write_bytes(b"")
    with pytest.raises(BadInputError, match=r"test/eel: none of its images can be read"):
        prepare(load(folder, skip_bad=True), 12)


def test_many_bad_files_leave_the_others_with_their_labels(folder: Path, small_chunks: None) -> None:
    rng = np.random.default_rng(0)
    paths = [folder / path for path in load(folder).train.paths]
    kept = set()
    for path in paths:
        if rng.random() < 0.6:
            path.write_bytes(b"")
        else:
            kept.add((CLASSES.index(path.parent.name), np.asarray(Image.open(path)).transpose(2, 0, 1).tobytes()))
    assert 15 < len(kept) < 30
    prepared = prepare(load(folder, skip_bad=True), 12)
    assert images_of(prepared)[0] == kept
    assert len(prepared.train[1]) == len(kept)
    torch.testing.assert_close(prepared.mean, (prepared.train[0].double() / 255).mean((0, 2, 3), keepdim=True).float())


@pytest.mark.parametrize("interrupted", [False, True])
def test_what_was_skipped_is_decoded_when_it_can_be_read_again(
    folder: Path, small_chunks: None, interrupted: bool
) -> None:
    """As after a change of permissions, which changes neither size nor time."""
    whole = images_of(prepare(load(folder), 12))
    shutil.rmtree(cache_directory())
    path = folder / load(folder).train.paths[1]
    content, stamp = path.read_bytes(), path.stat()

    def write(content: bytes) -> None:
        path.write_bytes(content)
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))

    def interrupt(done: int, total: int) -> None:
        if interrupted and done >= 12:
            raise KeyboardInterrupt

    write(bytes(len(content)))
    with contextlib.suppress(KeyboardInterrupt):
        prepare(load(folder, skip_bad=True), 12, interrupt)
    if not interrupted:
        with pytest.raises(BadInputError) as caught:
            prepare(load(folder), 12)
        assert str(path) in caught.value.message
    write(content)
    assert images_of(prepare(load(folder), 12)) == whole


def remove(*names: str) -> Callable[[Path], None]:
    return lambda root: [shutil.rmtree(root / name) for name in names] and None


def empty_class(root: Path) -> None:
    for path in (root / "train/dog").iterdir():
        path.unlink()


def flat(root: Path) -> None:
    shutil.rmtree(root / "train")
    (root / "train").mkdir()
    Image.fromarray(pixels(0)).save(root / "train/0.png")


def one_image(root: Path) -> None:
    for path in list((root / "train/dog").iterdir())[1:]:
        path.unlink()


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (remove("train"), MissingError, "no folder train"),
        (remove("test"), MissingError, "no folder val or test"),
        (remove("test/dog"), BadInputError, "1 of train's 3 classes missing: dog"),
        (remove("train/cat", "train/eel"), BadInputError, "2 of its class folders are not in train: cat, eel"),
        (lambda root: (root / "train/dog").rename(root / "train/Dog"), BadInputError, "not in train: dog"),
        (
            lambda root: shutil.copytree(root / "test", root / "val") and (root / "validation").mkdir(),
            BadInputError,
            "both",
        ),
        (empty_class, BadInputError, "train/dog: no image in it"),
        (flat, BadInputError, "train: no folders in it"),
        (one_image, BadInputError, "too few images"),
    ],
)
def test_a_folder_that_is_no_data_set(
    folder: Path, change: Callable[[Path], None], error: type[MeliusError], says: str
) -> None:
    change(folder)
    with pytest.raises(error, match=says) as caught:
        load(folder)
    assert str(folder) in caught.value.message


def test_without_pillow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingError) as caught:
        prepare(load(folder), 12)
    assert "pip install 'meliuscli[images]'" in (caught.value.hint or "")


# Training and searching on folders


SPACE = """
family = "meliusnet"
[target]
input_size = 64
num_classes = 10
[parameters]
num_blocks = [{ low = 1, high = 2 }]
growth_rate = { choices = [16] }
transition_channels = []
stem_channels = { choices = [32] }
[proxy]
dataset = "DATASET"
input_size = 8
width_divisor = 4
[proxy.recipe]
epochs = 2.0
batch_size = 10
crop_scale = [0.5, 1.0]
validation_share = 0.2
[final.recipe]
epochs = 1.0
batch_size = 10
"""


@pytest.mark.parametrize(("name", "shape"), [("imagefolder", (3, 3)), ("cifar10", (10, 3)), ("cifar100", (100, 3))])
def test_a_proxy_has_the_classes_and_channels_of_its_data(
    folder: Path, tmp_path: Path, name: str, shape: tuple[int, int]
) -> None:
    path = tmp_path / "space.toml"
    path.write_text(SPACE.replace("DATASET", name).replace("transition_channels = []\n", ""))
    _, space, _ = load_space(str(path))
    assert data_shape(name, folder) == shape
    spec = proxy_spec(load_arch("meliusnet22").spec, space, folder)
    assert (spec.num_classes, spec.input_channels, spec.input_size) == (*shape, 8)


def test_a_worker_trains_on_a_folder_by_the_recipes_cut(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(SPACE.replace("DATASET", "imagefolder").replace("transition_channels = []\n", ""))
    _, space, _ = load_space(str(path))
    task = pickle.loads(pickle.dumps(proxy_task(space.smallest.spec, space, folder, 0)))  # noqa: S301 - our own
    result, again = train_task(task), train_task(task)
    assert result.curve == again.curve
    assert [metrics.epoch for metrics in result.curve] == [1.0, 2.0]
    (about,) = (json.loads(place.read_text()) for place in cache_directory().rglob("about.json"))
    assert about["classes"] == list(CLASSES)
    assert len(load(folder, task.recipe.cut).validation) == 12


@pytest.fixture
def spoilt(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with two files of train and one of validation that are no images; beside it a space, and we are there."""
    space = SPACE.replace("DATASET", "imagefolder").replace("transition_channels = []\n", "")
    (tmp_path / "space.toml").write_text(space.replace("choices = [16]", "choices = [16, 32, 48]"))
    found = load(folder)
    for path in (found.train.paths[0], found.train.paths[30], found.validation.paths[3]):
        (folder / path).write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    return folder


WORK = {
    "search": ("--space", "space.toml", "--budget", "1e9", "--trials", "2", "--finalists", "1", "--final-seeds", "1"),
    "check-proxy": ("space.toml", "--networks", "4", "--long-epochs", "1"),
}


@pytest.mark.parametrize("command", WORK)
def test_bad_files_are_named_before_a_search_or_check_begins(spoilt: Path, command: str) -> None:
    with pytest.raises(BadInputError) as caught:
        run_here(command, *WORK[command], "--data", str(spoilt))
    assert str(spoilt) in caught.value.message
    assert "--skip-bad" in (caught.value.hint or "")
    assert not Path("reports").exists()


LINE = "- Image files of imagefolder that could not be read and were left out: 3 (`--skip-bad`)."


def test_a_training_records_how_many_bad_files_it_left_out(spoilt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = (
        "--set",
        "num_blocks=[1,1,1,1]",
        "--input-size",
        "8",
        "--width-divisor",
        "8",
        "--epochs",
        "0.2",
        "--seeds",
        "1",
    )
    command = ("train", "--arch", "meliusnet22", *short, "--dataset", "imagefolder", "--data", str(spoilt))
    with contextlib.suppress(FailedError):  # so short a training may end at chance
        run_here(*command, "--skip-bad")
    (record,) = Path("reports").glob("run-*.json")
    assert json.loads(record.read_text())["dataset"]["left_out"] == 3
    run_here("show", f"run:{record.stem.removeprefix('run-')}")
    assert "left out: 3" in capsys.readouterr().out


@pytest.mark.slow
def test_a_search_can_leave_bad_files_out_and_goes_on_so(spoilt: Path) -> None:
    run_here("search", *WORK["search"], "--data", str(spoilt), "--skip-bad", "--study", "s", "--workers", "1")
    study = Path("reports/s")
    stored = json.loads((study / "study.json").read_text())
    assert (stored["settings"]["skip_bad"], stored["origin"]["dataset"]["left_out"]) == (True, 3)
    assert LINE in (study / "report.md").read_text().splitlines()
    page = (study / "report.md").read_text()
    assert f" --data {spoilt} " in page
    assert "--skip-bad` with the versions below" in page
    run_here("search", "--resume", "--study", "s", "--trials", "3", "--workers", "1")
    trials = (study / "trials.csv").read_text().splitlines()
    assert len(trials) == 1 + 3
    assert LINE in (study / "report.md").read_text().splitlines()
    stored["settings"]["skip_bad"] = False
    (study / "study.json").write_text(json.dumps(stored))
    with pytest.raises(BadInputError, match="was begun without --skip-bad"):
        run_here("search", "--resume", "--study", "s", "--skip-bad")


@pytest.mark.slow
def test_a_search_can_take_other_data_than_its_space_names(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    space = SPACE.replace("DATASET", "cifar10").replace("transition_channels = []\n", "").replace("[16]", "[16, 32]")
    Path("space.toml").write_text(f'known = ["meliusnet22"]\n{space}')
    with pytest.raises(BadInputError, match="unknown data set 'imagefolders'"):
        run_here("search", *WORK["search"], "--dataset", "imagefolders", "--data", str(folder))
    run_here("search", *WORK["search"], "--dataset", "imagefolder", "--data", str(folder), "--study", "s")
    assert "meliusnet22: known, but not in this space, and left out" in capsys.readouterr().err
    assert json.loads(Path("reports/s/study.json").read_text())["origin"]["dataset"]["name"] == "imagefolder"
    assert f" --dataset imagefolder --data {folder} " in Path("reports/s/report.md").read_text()
    run_here("search", "--resume", "--study", "s", "--trials", "3", "--dataset", "imagefolder")
    assert len(Path("reports/s/trials.csv").read_text().splitlines()) == 1 + 3
    with pytest.raises(BadInputError, match="was begun with --dataset imagefolder"):
        run_here("search", "--resume", "--study", "s", "--dataset", "cifar10")


@pytest.mark.slow
def test_a_check_can_leave_bad_files_out_and_goes_on_so(spoilt: Path) -> None:
    command = ("check-proxy", *WORK["check-proxy"], "--data", str(spoilt), "--name", "c", "--workers", "1")
    run_here(*command, "--skip-bad")
    check = Path("reports/c")
    stored = json.loads((check / "check.json").read_text())
    facts = stored["data"]["imagefolder"]
    assert (stored["plan"]["skip_bad"], facts["left_out"]) == (True, 3)
    assert all(
        "validation_top1" in run
        for way in stored["trainings"].values()
        for runs in way.values()
        for run in runs.values()
    )
    assert LINE in (check / "report.md").read_text().splitlines()
    run_here(*command, "--resume")
    assert json.loads((check / "check.json").read_text()) == stored
