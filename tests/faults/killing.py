"""A training that ends its own process, in a module that loads nothing else."""

from __future__ import annotations

import os
import signal


def kill_this_process(task: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
