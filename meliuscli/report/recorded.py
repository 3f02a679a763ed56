"""What a recorded run says of the network that was trained: its accuracy and, of a module of one's own, its count."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from meliuscli.counting.counts import Count, NetworkCount, Storage, read_by_bits, size_bytes
from meliuscli.errors import BadInputError, why_unread
from meliuscli.runs import Run


@dataclass(frozen=True, slots=True)
class Recorded:
    """``top1``: mean over ``n`` seeds on the test images, in percent, with the sample standard deviation of several.
    ``doubts``: why the recorded count may be wrong."""

    run: str
    arch: str
    dataset: str
    n: int
    top1: float | None
    spread: float | None
    doubts: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """``67.21±0.30``."""
        if self.top1 is None:
            return ""
        return f"{self.top1:.2f}" + ("" if self.spread is None else f"±{self.spread:.2f}")

    @property
    def sentence(self) -> str:
        if self.top1 is None:
            return f"run:{self.run} is {self.arch}, trained elsewhere: meliuscli evaluate scores it"
        return f"run:{self.run} is {self.arch} on {self.dataset}, n={self.n}"

    def fields(self) -> dict[str, Any]:
        """The object ``run`` in the JSON of ``compare``."""
        return {key: value for key, value in asdict(self).items() if key != "doubts"}


def recorded(run: Run) -> Recorded:
    fields, top1 = run.fields, run.fields["test_top1"]
    mean, spread = (None if top1[key] is None else 100 * float(top1[key]) for key in ("mean", "spread"))
    doubts = (fields.get("trained") or {}).get("doubts", ())
    return Recorded(run.id, fields["arch"], fields["dataset"]["name"], int(fields["n"]), mean, spread, tuple(doubts))


def recorded_count(run: Run, storage: Storage) -> NetworkCount:
    """One row for a module of one's own, as it was counted when it was trained: with two values a batch-norm channel.

    Raises ``BadInputError`` for a record that lacks it."""
    try:
        trained = run.fields["trained"]
        macs, weights = read_by_bits(trained)
        size = (
            int(trained["size_bytes"]) if storage.float_bits == Storage().float_bits else size_bytes(weights, storage)
        )
    except (KeyError, ValueError, TypeError) as error:
        hint = f"train it again, or name its file: {run.fields['arch']}"
        raise BadInputError(f"{run.path}: has no count of its network by bits ({why_unread(error)})", hint) from None
    return NetworkCount((Count(str(run.fields["arch"]), "network", (), macs, weights, size),))
