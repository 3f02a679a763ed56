"""A network of somebody's own Python file as a spec: what a training, its record and its weights need of one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from meliuscli.arch.plan import Layer
from meliuscli.arch.spec import ArchSpec, validate
from meliuscli.arch.zoo import spec_from_fields
from meliuscli.errors import BadInputError

_named: set[str] = set()
"""Digests of the files that were named in this process. Only these are executed: a record names a file, too, and may come
from somebody else."""


class OwnSpec(ArchSpec):
    """``path`` and ``factory`` name the function that makes the network; ``text`` is the file as it was, with its
    SHA-256. No spec file and no search can name it: only a command line that executes the file."""

    family: Literal["own"] = "own"
    path: str
    factory: str
    digest: str
    text: str

    def layers(self) -> tuple[Layer, ...]:
        """None: only the module that is built knows them."""
        return ()

    def summary(self) -> str:
        return f"{self.path}:{self.factory}"

    def require_named(self) -> None:
        """Raises ``BadInputError`` where the file is no longer what it was, or only a record names it."""
        if hashlib.sha256(_content(Path(self.path))).hexdigest() != self.digest:
            raise BadInputError(f"{self.path}: has changed since it was trained", "its text is in the run's record")
        if self.digest not in _named:
            raise BadInputError(
                f"{self.summary()}: its code is executed only where the command line names it",
                f"add --arch {self.summary()}",
            )


def own_spec(path: Path, factory: str) -> OwnSpec:
    """Of a file as it is now. Raises ``BadInputError`` where there is none."""
    content = _content(path)
    digest, text = hashlib.sha256(content).hexdigest(), content.decode("utf-8", "replace")
    _named.add(digest)
    return OwnSpec(path=str(path.resolve()), factory=factory, digest=digest, text=text)


def trained_spec(fields: Mapping[str, Any], where: str = "") -> ArchSpec:
    """The spec of a run's record, which may be of somebody's own file."""
    if fields.get("family") == "own":
        return validate(OwnSpec, dict(fields), where)
    return spec_from_fields(fields, where)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror}") from None
