"""Pictures: the one place that knows matplotlib. The same values give the same bytes."""

from __future__ import annotations

import io
from typing import Any

TIMELESS = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""Formats that would hold the time -> what keeps it out."""


def subplots(*shape: int, **options: Any) -> tuple[Any, Any]:
    """A figure and its axes, drawn without a screen; options are those of pyplot's ``subplots``."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "meliuscli"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(*shape, dpi=120, **options)
    return figure, axes


def encode(figure: Any, suffix: str) -> bytes:
    """A finished figure as a file's bytes, png, svg or pdf; the figure is closed."""
    from matplotlib import pyplot as plt

    out = io.BytesIO()
    figure.savefig(out, format=suffix, metadata=TIMELESS.get(suffix))
    plt.close(figure)
    return out.getvalue()
