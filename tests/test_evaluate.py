"""What a trained network is worth on data and says of images: the same from a run, a packed and an ONNX file, through the
preprocessing that stands with the weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Cli
from safetensors import safe_open

import meliuscli as mc
from meliuscli.arch.families.dense import MeliusNetSpec
from meliuscli.data.batches import Prepared, prepare
from meliuscli.data.catalog import load_dataset
from meliuscli.data.preprocessing import Preprocessing, read_images
from meliuscli.errors import BadInputError
from meliuscli.exchange.headers import read_header
from meliuscli.nn.build import build
from meliuscli.training.trained import load_trained
from meliuscli.training.weights import save_weights

SPEC = MeliusNetSpec(
    num_blocks=(1, 1),
    growth_rate=16,
    transition_channels=(32,),
    groups=4,
    stem="thumbnail",
    stem_channels=32,
    input_size=32,
    input_channels=1,
    num_classes=10,
)


@pytest.fixture(scope="module")
def data() -> Prepared:
    return prepare(load_dataset("fashion-mnist-mini"), 32)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, data: Prepared) -> Path:
    """A directory with a run, ``run:ID`` of which is in ``id``, and its packed file."""
    directory = tmp_path_factory.mktemp("reports")
    torch.manual_seed(0)
    network = build(SPEC)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.weight)
    network(data.normalise(data.train[0][:64]))
    save_weights(network.eval(), SPEC, directory / "net.safetensors", data.preprocessing)
    run = mc.import_weights(directory / "net.safetensors", reports=directory)
    (directory / "id").write_text(f"run:{run.id}")
    pytest.importorskip("llvmlite")
    mc.pack(load_trained(run), directory / "net.packed.safetensors")
    return directory


def run_id(reports: Path) -> str:
    return (reports / "id").read_text()


def test_scores_are_those_of_the_network_on_the_data(reports: Path, data: Prepared) -> None:
    result = mc.evaluate(run_id(reports), limit=100, reports=reports)
    chosen = torch.linspace(0, len(data.test[1]) - 1, 100).round().long()
    labels = data.test[1][chosen]
    with torch.no_grad():
        logits = mc.load_trained(run_id(reports), reports=reports).network(data.normalise(data.test[0][chosen]))
    assert set(result.scores) == {"torch", "packed"}
    for scores in result.scores.values():
        assert scores.top1 == pytest.approx((logits.argmax(1) == labels).double().mean().item())
        top5 = (logits.topk(5).indices == labels[:, None]).any(1).double().mean().item()
        assert scores.top5 == pytest.approx(top5)
        assert scores.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-3)
    confusion = np.array(result.confusion)
    assert confusion.sum() == result.num_images == 100
    assert confusion.trace() == round(100 * result.top1)
    assert confusion.sum(1).tolist() == torch.bincount(labels, minlength=10).tolist()
    assert result.agreeing == 100


def test_a_packed_file_scores_as_its_run_does(reports: Path) -> None:
    packed = mc.evaluate(reports / "net.packed.safetensors", limit=100)
    run = mc.evaluate(run_id(reports), limit=100, reports=reports)
    assert list(packed.scores) == ["packed"]
    assert packed.agreeing is None
    assert packed.confusion == run.confusion
    assert packed.preprocessing == run.preprocessing


def test_an_onnx_file_says_what_its_images_go_through_and_scores_alike(reports: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    trained = mc.load_trained(run_id(reports), reports=reports)
    mc.export(trained, tmp_path / "net.onnx")
    onnx = mc.evaluate(tmp_path / "net.onnx", limit=50)
    assert onnx.preprocessing == trained.preprocessing
    run = mc.evaluate(run_id(reports), limit=50, reports=reports)
    assert onnx.top1 == pytest.approx(run.top1, abs=0.041)  # a rounding can turn an untrained network's sign


def save_png(path: Path, pixels: np.ndarray) -> None:
    image = pytest.importorskip("PIL.Image")
    image.fromarray(pixels).save(path)


def test_image_files_are_classified_as_the_data_set_they_come_from(
    reports: Path, data: Prepared, tmp_path: Path
) -> None:
    raw = load_dataset("fashion-mnist-mini").test.images[:3]
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path, image in zip(paths, raw, strict=True):
        save_png(path, image[0].numpy())
    with torch.no_grad():
        logits = mc.load_trained(run_id(reports), reports=reports).network(data.normalise(data.test[0][:3]))
    for network in (run_id(reports), reports / "net.packed.safetensors"):
        answers = mc.classify(network, *paths, reports=reports, top=3)
        for answer, row in zip(answers, logits, strict=True):
            best = torch.softmax(row, 0).topk(3)
            assert [name for name, _ in answer.classes] == [data.class_names[label] for label in best.indices]
            assert [value for _, value in answer.classes] == pytest.approx(best.values.tolist(), rel=1e-3)


def test_an_image_is_resized_cropped_and_normalised_as_said(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    save_png(tmp_path / "image.png", pixels)
    how = Preprocessing(20, 3, 40, 20, (0.5, 0.25, 0.0), (0.5, 1.0, 2.0))
    expected = pixels[10:30, 20:40].transpose(2, 0, 1) / 255
    expected = (expected - np.array(how.mean)[:, None, None]) / np.array(how.std)[:, None, None]
    np.testing.assert_allclose(read_images([tmp_path / "image.png"], how)[0], expected, atol=1e-6)


def test_preprocessing_is_read_back_from_json_and_refused_where_it_is_none() -> None:
    how = Preprocessing(32, 1, 28, 28, (0.3,), (0.4,), ("a", "b"))
    assert Preprocessing.from_json(how.to_json(), "file") == how
    assert Preprocessing.from_json(None, "file") is None
    fields = json.loads(how.to_json())
    broken = (
        *({**fields, key: value} for key, value in (("std", [0]), ("crop", 99), ("mean", [0, 0]), ("channels", 2))),
        *({**fields, key: value} for key, value in (("input_size", "x"), ("std", ["nan"]), ("more", 1))),
        [],
    )
    for one in broken:
        with pytest.raises(BadInputError, match="its preprocessing cannot be read"):
            Preprocessing.from_json(json.dumps(one), "file")


def test_the_command_prints_both_ways_and_json(reports: Path, cli: Cli) -> None:
    arguments = ("evaluate", run_id(reports), "--reports", str(reports), "--limit", "20")
    text = cli(*arguments)
    assert text.returncode == 0, text.stderr
    assert "torch and packed give the same top-1 on 20 of 20 images" in text.stdout
    assert "ankle boot" in text.stdout
    value = json.loads(cli(*arguments, "--format", "json").stdout)
    assert value["agreeing"] == value["num_images"] == 20
    assert value["preprocessing"]["class_names"][9] == "ankle boot"


def test_a_network_of_other_classes_or_channels_is_refused(reports: Path, tmp_path: Path) -> None:
    other = SPEC.replace(num_classes=7)
    save_weights(build(other), other, tmp_path / "net.safetensors")
    with pytest.raises(BadInputError, match="tells 7 classes apart, and fashion-mnist-mini has 10"):
        mc.evaluate(tmp_path / "net.safetensors", limit=1)
    colour = SPEC.replace(input_channels=3)
    save_weights(build(colour), colour, tmp_path / "net.safetensors")
    with pytest.raises(BadInputError, match="takes images of 3 channels, and the data have 1"):
        mc.evaluate(tmp_path / "net.safetensors", limit=1)


def test_weights_of_before_are_evaluated_with_the_datas_normalisation_and_do_not_classify(
    tmp_path: Path, data: Prepared
) -> None:
    save_weights(build(SPEC), SPEC, tmp_path / "net.safetensors")
    result = mc.evaluate(tmp_path / "net.safetensors", limit=10)
    assert result.preprocessing == data.preprocessing
    assert "does not say what its images go through" in result.notes[0]
    with pytest.raises(BadInputError, match="does not say what its images go through") as caught:
        mc.classify(tmp_path / "net.safetensors", tmp_path / "image.png")
    assert "it is untrained, or" in str(caught.value.hint)
    assert "export --weights run:ID" in str(caught.value.hint)


def test_an_image_that_is_named_alone_cannot_be_left_out_of_its_folder(tmp_path: Path, data: Prepared) -> None:
    """The hint was an option that the command does not have."""
    pytest.importorskip("PIL")
    (tmp_path / "image.png").write_text("<html>")
    assert data.preprocessing is not None
    for name, error in (("image.png", BadInputError), ("none.png", BadInputError)):
        with pytest.raises(error) as caught:
            read_images([tmp_path / name], data.preprocessing)
        assert caught.value.hint == "mend it, or name other images"


def test_predict_takes_images_behind_a_trained_network_only(cli: Cli, reports: Path) -> None:
    for words in (("meliusnet22", "a.png"), ("a.png", "b.png"), ("run:1", "meliusnet22", "a.png")):
        assert cli("predict", *words).returncode == 2
    alone = cli("predict", "meliusnet22", "--top", "3")
    assert alone.returncode == 2
    assert "--top: for images, and none are given" in alone.stderr


def test_a_packed_file_is_shown_counted_and_written_again(reports: Path, cli: Cli, tmp_path: Path) -> None:
    path = reports / "net.packed.safetensors"
    shown = cli("show", str(path))
    assert "ankle boot" in shown.stdout
    assert cli("count", str(path), "--no-verify").returncode == 0
    again = cli("export", str(path), "--to", "packed", "--output", str(tmp_path / "again.packed.safetensors"))
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again.packed.safetensors").read_bytes() == path.read_bytes()
    header = read_header(path)
    with safe_open(path, framework="numpy") as file:
        assert Preprocessing.from_json(file.metadata()["preprocessing"], path) == header.preprocessing


@pytest.mark.slow
def test_bench_of_a_packed_file_exits_with_one_above_its_limit(reports: Path, cli: Cli) -> None:
    arguments = ("bench", str(reports / "net.packed.safetensors"), "--runs", "2", "--max-ms")
    slow, fast = cli(*arguments, "0.000001"), cli(*arguments, "100000")
    assert fast.returncode == 0, fast.stderr
    assert slow.returncode == 1
    assert "more than --max-ms 1e-06" in slow.stderr
