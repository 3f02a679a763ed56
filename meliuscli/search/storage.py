"""Where a study's trials are kept: one journal file, in which every trial stands from the moment it is asked for."""

from __future__ import annotations

from pathlib import Path

import optuna
import optuna.storages.journal

from meliuscli.errors import BadInputError

STUDY_NAME = "search"
"""Always the same: the folder may be renamed."""


class Journal:
    """An Optuna study in a journal file, made if need be. Raises ``BadInputError`` when the file is corrupt."""

    def __init__(self, path: Path) -> None:
        _drop_torn_line(path)
        try:
            backend = optuna.storages.journal.JournalFileBackend(str(path))
            self._storage = optuna.storages.JournalStorage(backend)
            self.study = optuna.create_study(
                storage=self._storage,
                study_name=STUDY_NAME,
                directions=["maximize", "minimize"],
                load_if_exists=True,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise BadInputError(f"{path}: corrupt: {error}", "restore it, or start again with --force") from None

    def running_trial(self, number: int) -> optuna.trial.Trial:
        """A trial that was asked for and not told, whichever process asked."""
        study_id = self._storage.get_study_id_from_name(STUDY_NAME)
        return optuna.trial.Trial(self.study, self._storage.get_trial_id_from_study_id_trial_number(study_id, number))


def _drop_torn_line(path: Path) -> None:
    """Cut off an unterminated last line, which a kill or a full disk can leave and the next line would be glued to."""
    content = path.read_bytes() if path.exists() else b""
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)
