"""A C library compiled for this machine and called: how a directory of C is used."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
import threading
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from meliuscli.arch.spec import ArchSpec
from meliuscli.errors import FailedError, MissingError
from meliuscli.export.c.compiled import compiler
from meliuscli.export.c.manifest import Manifest
from meliuscli.export.c.reading import CSources, read_sources
from meliuscli.packed.runner import checked_images

FLAGS = ("-std=c11", "-O3", "-shared", "-fPIC")
NATIVE = "-march=native"
"""Left out where the compiler does not know it."""


class CompiledNetwork:
    """(N, C, S, S) normalised images -> (N, classes) logits, one image after the other on one thread. ``compiler``: its name."""

    def __init__(self, spec: ArchSpec, prefix: str, sources: CSources) -> None:
        """Raises ``MissingError`` without a C compiler, ``FailedError`` where it refuses the sources."""
        command = compiler()
        if command is None:
            raise MissingError(
                "a directory of C needs a C compiler, and this machine has none (cc, gcc or clang)",
                "install one (apt-get install gcc), or name it in CC",
            )
        self.spec, self.compiler = spec, Path(command).name
        self._arena = np.empty(sources.arena.size, np.uint8)
        self._lock = threading.Lock()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
            library = ctypes.CDLL(str(_compiled(command, sources, Path(directory))))
        self._run = library[f"{prefix}_run"]
        self._run.argtypes, self._run.restype = (ctypes.c_void_p,) * 3, None

    def __call__(self, images: Tensor) -> Tensor:
        """Raises ``BadInputError`` for images of another shape or type, or with values that are not finite."""
        given = np.ascontiguousarray(checked_images(images, self.spec).numpy(), np.float32)
        logits = np.empty((len(given), self.spec.num_classes), np.float32)
        with self._lock:
            for image, out in zip(given, logits, strict=True):
                self._run(image.ctypes.data, out.ctypes.data, self._arena.ctypes.data)
        return torch.from_numpy(logits)


def open_c(manifest: Manifest) -> CompiledNetwork:
    """The network of a directory of C. Raises as ``read_sources`` and ``CompiledNetwork``."""
    return CompiledNetwork(manifest.spec, manifest.prefix, read_sources(manifest))


def _compiled(command: str, sources: CSources, directory: Path) -> Path:
    """A shared object in ``directory``, which nobody else may read."""
    for name, text in sources.texts.items():
        (directory / name).write_text(text, encoding="utf-8")
    files = [name for name in sources.texts if name.endswith(".c")]
    for flags in ((*FLAGS, NATIVE), FLAGS):
        made = subprocess.run(
            [command, *flags, *files, "-o", "network.so"], cwd=directory, capture_output=True, text=True, check=False
        )
        if made.returncode == 0:
            return directory / "network.so"
    raise FailedError(f"{Path(command).name} does not compile the library: {made.stderr.strip()[:500]}")
