"""Files that torch wrote: tensors by name, and nothing else. They are pickles, of which torch's ``weights_only`` reads plain
containers and tensors, and refuses whatever would call a function."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from meliuscli.errors import BadInputError
from meliuscli.exchange.tensors import Array

STATES = ("state_dict", "model", "model_state_dict", "net")
"""What trainers call the weights inside of what they save."""
COUNTERS = ".num_batches_tracked"


def read_torch(path: Path) -> dict[str, Array]:
    """Name, without the ``module.`` of parallel training, -> array in float32 or integers.

    Raises ``BadInputError`` for anything but a whole file of tensors."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and its unpickler raise anything
        said = str(error)
        if "Unsupported" in said or "GLOBAL" in said:
            raise BadInputError(
                f"{path}: refused: it holds more than tensors, and reading it would run code of it",
                "its authors can save model.state_dict() alone",
            ) from None
        first = said.partition("\n")[0][:100] or type(error).__name__
        raise BadInputError(f"{path}: corrupt, or no file of torch's: {first}") from None
    state = _state(content)
    if not state:
        raise BadInputError(f"{path}: no tensors in it")
    return {name.removeprefix("module."): _array(tensor) for name, tensor in state.items() if COUNTERS not in name}


def _state(content: Any) -> Mapping[str, Tensor]:
    """The dict of tensors, or the one inside of a trainer's dict."""
    if not isinstance(content, Mapping):
        return {}
    for key in STATES:
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _array(tensor: Tensor) -> Array:
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_complex():
        raise BadInputError("it has a tensor that is sparse, quantized or complex")
    array: Array = (tensor.float() if tensor.is_floating_point() else tensor.long()).numpy()
    return np.ascontiguousarray(array)
