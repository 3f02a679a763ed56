"""What is written down: atomically, and with its origin."""

from __future__ import annotations

import errno
import json
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from meliuscli.errors import BadInputError, MissingError
from meliuscli.version import __version__

_HINTS: dict[int, str] = {
    errno.ENOSPC: "free the disk or choose another place",
    errno.EDQUOT: "free the disk or choose another place",
    errno.EISDIR: "it is a directory: name a file",
    errno.ENOENT: "make its directory first, or choose another place",
    errno.ENOTDIR: "a file stands where a directory is needed: choose another place",
    errno.EEXIST: "a file stands where a directory is needed: choose another place",
}


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all. Raises ``MissingError`` (disk full, read-only, no such directory)."""
    # What is no text (a name of undecodable bytes) stands as JSON's and Python's own escapes.
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """As ``write_text``, for bytes. A link is written through, and a device or a pipe is written to, not replaced."""
    temporary = None
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.exists() and not path.is_file():
            with path.open("wb") as device:
                device.write(content)
            return
        place = Path(os.path.realpath(path))
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place.parent, prefix=f".{place.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(place)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from None


def cannot_write(path: Path, error: OSError) -> MissingError:
    """The error for a place that cannot be written to, with the way out that its cause leaves."""
    return MissingError(
        f"{path}: cannot be written: {error.strerror or error}", _HINTS.get(error.errno or 0, "choose another place")
    )


def require_directory(path: Path, option: str) -> None:
    """Refuse a file to be written for ``option`` whose directory is not there. Raises ``MissingError``."""
    if not path.parent.is_dir():
        hint = _HINTS[errno.ENOTDIR if path.parent.exists() else errno.ENOENT]
        raise MissingError(f"{option} {path}: no such directory {path.parent}", hint)


def write_json(path: Path, value: Any) -> None:
    """A value as a file of JSON."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """JSON with two spaces of indentation."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


RECORD_VERSION = 1
"""``schema_version`` of the records that others may read (``docs/reference/files.md``): one more where a key goes, or changes
its meaning or its type. New keys do not change it, and a record without it is of version 1."""


class NewerRecord(BadInputError):
    """A record that a later version of meliuscli wrote."""


def record_text(fields: Mapping[str, Any]) -> str:
    """A record as JSON, with its version."""
    return json_text({"schema_version": RECORD_VERSION, **fields})


def write_record(path: Path, fields: Mapping[str, Any]) -> None:
    """A record as a file, whole or not at all. Raises as ``write_text``."""
    write_text(path, record_text(fields))


def read_record(path: Path) -> dict[str, Any]:
    """The fields of a record, without its version. Raises ``OSError``, ``ValueError`` for what is no record, ``NewerRecord``."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(fields, dict):
        raise ValueError("it is no JSON object")
    version = fields.pop("schema_version", RECORD_VERSION)
    if type(version) is not int:
        raise ValueError(f"schema_version: {version!r} is no whole number")
    if version > RECORD_VERSION:
        problem = f"{path}: its schema_version is {version}, and this meliuscli reads up to {RECORD_VERSION}"
        raise NewerRecord(problem, "a later meliuscli wrote it: update meliuscli to read it")
    return fields


def cache_directory() -> Path:
    """``$MELIUSCLI_CACHE``, or the platform's. Raises ``BadInputError`` for one that is a file."""
    if given := os.environ.get("MELIUSCLI_CACHE"):
        if Path(given).is_file():
            raise BadInputError(f"MELIUSCLI_CACHE={given}: is a file, and a directory is needed", "name another place")
        return Path(given)
    import platformdirs  # which a count has no use for

    return Path(platformdirs.user_cache_dir("meliuscli"))


_configured: list[str] = []


def add_to_command(words: Sequence[str]) -> None:
    """From now on the command of a result's origin ends with these words: options that stand in no command line, but in
    configuration, without which the command alone would not repeat the result."""
    _configured[:] = words


def origin() -> dict[str, Any]:
    """Where a result comes from: command, time, versions, machine."""
    packages = ("torch", "numpy", "optuna", "fvcore")
    return {
        "command": shlex.join(["meliuscli", *sys.argv[1:], *_configured]),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "meliuscli": __version__,
            "python": platform.python_version(),
            **{name: version for name in packages if (version := _installed(name))},
        },
        "machine": {"system": platform.system(), "processor": processor(), "cores": os.cpu_count()},
    }


def _installed(package: str) -> str | None:
    """A package's version; None where it is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """The processor's name, and where the system tells them the numbers that tell apart those of one name."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        first = ""
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    name = fields.get("model name") or platform.processor() or platform.machine()
    told = ("cpu family", "model", "stepping", "CPU implementer", "CPU part")
    numbers = ", ".join(f"{key.removeprefix('cpu ')} {fields[key]}" for key in told if key in fields)
    return f"{name} ({numbers})" if numbers else name
