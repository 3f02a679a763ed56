"""Long work goes on as it was begun: what is refused where options or data are others, and what is said of versions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from meliuscli.errors import BadInputError
from meliuscli.results import origin
from meliuscli.work.folders import Kind
from meliuscli.work.listener import Listener

RECORDED = ("versions", "machine")


def other_option(kind: Kind, directory: Path, option: str, begun: str) -> BadInputError:
    """The error for an option that asks for something else than the work was begun with; ``begun`` is what that was, as
    ``with --seed 0`` or ``without --transfer``."""
    another = "" if kind.option == "--resume" else f" with {kind.option} NAME"
    hint = f"leave {option} out to go on, or begin another {kind.what}{another}"
    return BadInputError(f"{kind.address(directory)} was begun {begun}", hint)


def with_option(option: str, value: object) -> str:
    """What work was begun with, in the words of the command line."""
    if value is None or value is False:
        return f"without {option}"
    words = ", ".join(map(str, value)) if isinstance(value, list) else value
    return f"with {option}" if value is True else f"with {option} {words}"


def other_data(kind: Kind, directory: Path, data: str, difference: str = "its files have changed") -> BadInputError:
    """The error for data that are not those that the work was begun with."""
    return BadInputError(
        f"{kind.address(directory)} was begun with other data: {data}: {difference}",
        f"restore the data, name them with --data, or begin another {kind.what}",
    )


def went_on(
    kind: Kind, directory: Path, begun: dict[str, Any], listener: Listener, differs: Sequence[str] = ()
) -> dict[str, Any]:
    """The origin of work that was ``begun`` by another: with the versions and machine of now where they are others, which
    is said. ``differs`` are other differences."""
    now = origin()
    then, here = begun["versions"], now["versions"]
    changed = [name for name in here if then.get(name) != here[name]]
    changed += [*(["the machine"] if begun["machine"] != now["machine"] else []), *differs]
    if not changed:
        return begun
    listener.talk(
        f"note: {', '.join(changed)} changed since {kind.address(directory)} was begun; results may differ too"
    )
    return {**begun, "resumed_with": {key: now[key] for key in RECORDED}}
