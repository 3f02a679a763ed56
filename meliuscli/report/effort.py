"""What a command took, and on what it ran."""

from __future__ import annotations

import os
import sys
import time

from meliuscli.results import origin
from meliuscli.units import format_mib


def effort_lines(began: float) -> tuple[str, str]:
    """Time and memory of this process and of its ended children since ``began`` (of ``time.monotonic``), and versions."""
    import resource

    times, usage = os.times(), (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = max(resource.getrusage(who).ru_maxrss for who in usage) * (1 if sys.platform == "darwin" else 1024)
    spent = times.user + times.system + times.children_user + times.children_system
    about = origin()
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items() if version)
    machine = about["machine"]
    return (
        f"took {time.monotonic() - began:.1f} s, {spent:.1f} s of CPU time, at most {format_mib(peak)} in a process",
        f"on {machine['processor']}, {machine['cores']} cores; {versions}",
    )
