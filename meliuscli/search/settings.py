"""What a study is made with, and repeated with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from meliuscli.search.limits import Limit, flash_limit, params_limit, ram_limit, size_limit
from meliuscli.search.sampler import SamplerName
from meliuscli.search.space import SearchSpace

MIN_LAG = 4


@dataclass(frozen=True, slots=True)
class Settings:
    """What a study is made with, and repeated with."""

    space: str
    budget: int | float
    trials: int
    seed: int
    sampler: SamplerName
    finalists: int
    final_seeds: int
    lag: int | None
    """How many places before it the trials lie that a proposal sees; None lets it see all that are told."""
    data_dir: str | None = None
    objective: Literal["ops", "latency"] = "ops"
    skip_bad: bool = False
    maximises: Literal["belief", "proxy"] = "proxy"
    budgets: tuple[float, ...] = ()
    max_size: float | None = None
    max_params: float | None = None
    max_ram: float | None = None
    max_flash: float | None = None
    dataset: str | None = None
    """The proxy's data in place of the space's."""
    num_classes: int | None = None
    input_channels: int | None = None
    """Of the user's own data where these are the target, in place of the space's."""
    device: str = "cpu"
    transfer: str | None = None
    """The data that finalists are trained on besides the proxy's, which the search never used."""
    transfer_dir: str | None = None
    trial_timeout: float | None = None
    """Seconds after which a training of a shared study is ended, as failed."""

    def adapted(self, space: SearchSpace) -> SearchSpace:
        """The space with the data, and the target's classes and channels, of this study."""
        if self.dataset is not None:
            space = space.with_dataset(self.dataset)
        if self.num_classes is None or self.input_channels is None:
            return space
        return space.with_task(self.num_classes, self.input_channels)

    @property
    def data(self) -> Path | None:
        """Where the proxy's data are, if not in their usual place."""
        return Path(self.data_dir) if self.data_dir else None

    @property
    def transfer_data(self) -> Path | None:
        """Where the data of ``transfer`` are, if not in their usual place."""
        return Path(self.transfer_dir) if self.transfer_dir else None

    @property
    def all_budgets(self) -> tuple[float, ...]:
        """Every budget that was asked for, the smallest first."""
        return self.budgets or (self.budget,)

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The hard limits beside the budget."""
        bounds = (
            (size_limit, self.max_size),
            (params_limit, self.max_params),
            (ram_limit, self.max_ram),
            (flash_limit, self.max_flash),
        )
        return tuple(limit(bound) for limit, bound in bounds if bound is not None)
