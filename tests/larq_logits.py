"""Run by an interpreter that has TensorFlow 2.15 and larq-zoo: ``python larq_logits.py DIR NETWORK ...`` writes ``NETWORK.h5`` and
``NETWORK.npz`` (images ``x``, logits ``y``) of networks of larq-zoo's with random weights and batch-norm statistics, in float64.

Numbers of a layer are such that float32 holds them, so that who reads them as those reads them exactly."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}

IMAGES = 2


def random_values(key: str, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    """Values of a weight that Keras does not begin at random; small variances, so that epsilons count."""
    if key == "gamma":
        return rng.uniform(0.3, 1.5, shape) * np.where(rng.random(shape) < 0.2, -1, 1)
    if key == "moving_variance":
        return rng.uniform(0.02, 1.5, shape)
    if key == "alpha":
        return rng.uniform(-0.3, 0.6, shape)
    return rng.normal(0, 0.4, shape)


def write(directory: Path, name: str) -> None:
    import tensorflow as tf
    from larq_zoo import literature, sota

    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(0)
    tf.keras.backend.set_floatx("float64")
    model = getattr(literature, name, None) or getattr(sota, name)
    size = 224 if name in ("BinaryAlexNet", "XNORNet", "DoReFaNet") else 96
    network = model(weights=None, input_shape=(size, size, 3), num_classes=10)
    rng = np.random.default_rng(0)
    for weight in (weight for layer in network.layers for weight in layer.weights):
        key = weight.name.rpartition("/")[2].removesuffix(":0")
        values = weight.numpy() if key.endswith("kernel") else random_values(key, tuple(weight.shape), rng)
        weight.assign(np.float64(np.float32(values)))
    images = np.float64(np.float32(rng.normal(size=(IMAGES, size, size, 3))))
    before_softmax = tf.keras.Model(network.inputs, network.layers[-2].output)
    np.savez(directory / f"{name}.npz", x=images, y=before_softmax(images, training=False).numpy())
    network.save_weights(directory / f"{name}.h5")


if __name__ == "__main__":
    for network_name in sys.argv[2:]:
        write(Path(sys.argv[1]), network_name)
