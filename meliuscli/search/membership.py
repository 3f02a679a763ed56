"""A shared study made or joined: everything that it depends on is in its storage, and who joins must have the same."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from meliuscli.errors import BadInputError, MeliusError
from meliuscli.search.backend import Backend
from meliuscli.search.begin import SPACE_FILE, Asked, StudyPlan, plan_study
from meliuscli.search.settings import Settings
from meliuscli.search.shared import SharedStudy
from meliuscli.search.space import SearchSpace, load_space
from meliuscli.search.storage import STUDY_NAME, has_study
from meliuscli.search.study_data import data_facts
from meliuscli.search.worker import patiently
from meliuscli.version import __version__
from meliuscli.work.folders import STUDY
from meliuscli.work.listener import SILENT, Listener

HEADER = "meliuscli"
"""The attribute of an Optuna study that holds what it is made with."""
ANYWHERE = ("data_dir", "transfer_dir", "device")
"""Settings in which workers may differ: where data lie, and on what is trained."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a study is made with: the release, the settings, the text of the space and where it comes from. ``digest`` is
    that of the space as the release reads it, its recipes included."""

    release: str
    settings: Settings
    space: str
    origin: dict[str, Any]
    digest: str

    @classmethod
    def of(cls, plan: StudyPlan) -> Header:
        return cls(__version__, plan.settings, plan.files[SPACE_FILE], plan.origin, _digest(plan.space))

    def read_space(self) -> SearchSpace:
        """The space, as this release reads it. Raises ``SpecError`` where it cannot."""
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / f"{self.settings.space}.toml"
            path.write_text(self.space, encoding="utf-8")
            space = load_space(str(path))[1]
        return self.settings.adapted(space)

    @property
    def data(self) -> dict[str, Any]:
        """Names and digests of its data."""
        return {use: self.origin[use] for use in ("dataset", "transfer") if use in self.origin}


def create_shared(
    asked: Asked, backend: Backend, name: str, directory: Path, workers: int, listener: Listener = SILENT
) -> tuple[SharedStudy, Header]:
    """The study, made unless it is there as asked for. Raises ``BadInputError`` naming what differs."""
    if asked.objective == "latency":
        raise BadInputError("--objectives accuracy,latency: latencies are those of one machine", "leave --storage out")
    plan = plan_study(asked, workers, listener)
    mine = Header.of(plan)
    study = patiently(lambda: SharedStudy(backend, name, directory, plan.settings, plan.space), backend, None, listener)

    def write() -> Header:
        with backend.turn(name):
            before = _read(study)
            if before is None:
                study.enqueue_known()
                study.set_attribute(HEADER, asdict(mine))
            return before or mine

    there = patiently(write, backend, None, listener)
    if there is not mine and (differs := _difference(there, mine)):
        raise BadInputError(
            f"study {name} was made otherwise: {differs}", "choose another --study, or ask for the same"
        )
    return study, there


def join(
    backend: Backend,
    name: str,
    directory: Path,
    data: Path | None = None,
    listener: Listener = SILENT,
) -> SharedStudy:
    """The study, for a worker with these data and this release. Raises ``BadInputError`` naming what differs."""
    study, header = open_shared(backend, name, directory, data, listener)
    now = data_facts(study.space, study.settings, listener)
    if header.data != now:
        raise BadInputError(
            f"study {name} was made with other data: made with {header.data}, here {now}",
            "--data names their directory",
        )
    return study


def open_shared(
    backend: Backend,
    name: str,
    directory: Path,
    data: Path | None = None,
    listener: Listener = SILENT,
) -> tuple[SharedStudy, Header]:
    """The study as it stands, to be read. Raises ``BadInputError`` where there is none, and where this release is another
    or reads its space otherwise."""

    def read() -> dict[str, Any] | None:
        try:
            study_id = backend.storage.get_study_id_from_name(name)
        except KeyError:
            if has_study(backend.storage, STUDY_NAME):
                raise BadInputError(
                    f"{backend.name}: holds the study of one search, which workers cannot share",
                    f"go on with: {STUDY.resume_command(directory)}",
                ) from None
            raise BadInputError(
                f"{backend.name}: there is no study {name}",
                f"studies there: {', '.join(_names(backend)) or 'none'}; meliuscli search --study {name} --storage ... makes it",
            ) from None
        return backend.storage.get_study_user_attrs(study_id).get(HEADER)

    header = _validated(name, patiently(read, backend, None, listener))
    if header.release != __version__:
        raise BadInputError(
            f"study {name} was made with meliuscli {header.release}, this is {__version__}", "install the same release"
        )
    try:
        space = header.read_space()
    except MeliusError as error:
        raise BadInputError(f"study {name}: its space cannot be read: {error.message}") from None
    if _digest(space) != header.digest:
        raise BadInputError(f"study {name}: this installation reads another space or recipe out of its file")
    settings = header.settings if data is None else replace(header.settings, data_dir=str(data.resolve()))
    return patiently(lambda: SharedStudy(backend, name, directory, settings, space), backend, None, listener), header


def _names(backend: Backend) -> list[str]:
    return sorted(study.study_name for study in backend.storage.get_all_studies() if HEADER in study.user_attrs)


def _read(study: SharedStudy) -> Header | None:
    fields = study.attribute(HEADER)
    return None if fields is None else _validated(study.name, fields)


def _validated(name: str, fields: dict[str, Any] | None) -> Header:
    if fields is None:
        raise BadInputError(f"study {name} was not made by meliuscli search --storage", "name another --study")
    try:
        return TypeAdapter(Header).validate_python(fields)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise BadInputError(
            f"study {name}: this release does not read its {where}", "install the same release"
        ) from None


def _difference(there: Header, mine: Header) -> str | None:
    """What differs between two headers, in words; None where they make the same study."""
    if there.release != mine.release:
        return f"with meliuscli {there.release}, this is {mine.release}"
    for name, value in asdict(there.settings).items():
        if name not in ANYWHERE and value != getattr(mine.settings, name):
            return f"{name} is {value}, not {getattr(mine.settings, name)}"
    if there.digest != mine.digest:
        return "its space or a recipe in it is another"
    return f"with the data {there.data}, here {mine.data}" if there.data != mine.data else None


def _digest(space: SearchSpace) -> str:
    fields = space.model_dump(mode="json")
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]
