"""Several processes at one training, started by ``torchrun``; without it, one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from meliuscli.errors import BadInputError, MissingError


@dataclass(frozen=True, slots=True)
class Processes:
    """This process's place among ``count``. Each takes every ``count``-th image of a batch, from ``rank`` on."""

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Is it this process that writes and prints?"""
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        return batch if self.count == 1 else batch[self.rank :: self.count]

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def told_by_leader(self, value: Any) -> Any:
        """What the leader passes; what the others pass is dropped."""
        if self.count == 1:
            return value
        values = [value if self.leads else None]
        dist.broadcast_object_list(values)
        return values[0]

    def share_buffers(self, network: nn.Module) -> None:
        """Give all processes the leader's batch-norm statistics."""
        if self.count > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)

    def check_batch(self, batch_size: int) -> None:
        """Raises ``BadInputError`` for a batch that does not divide evenly."""
        if batch_size % self.count:
            raise BadInputError(
                f"batch_size: {batch_size} images cannot be shared evenly by {self.count} processes",
                f"for example --batch-size {-(-batch_size // self.count) * self.count}",
            )


def started_by_torchrun() -> Processes:
    """From torchrun's environment, before anything is connected."""
    return Processes(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def join(device: str) -> Processes:
    """Connect this process to the others: NCCL between CUDA devices, else gloo. Alone, nothing happens.

    Raises ``MissingError`` where torch was built without it, ``BadInputError`` for MPS."""
    processes = started_by_torchrun()
    if processes.count > 1 and not dist.is_initialized():
        if not dist.is_available():
            raise MissingError("this torch was built without torch.distributed", "run without torchrun")
        if device == "mps":
            raise BadInputError("--device mps: several processes share CPUs or CUDA devices only", "--device cpu")
        if device.startswith("cuda"):
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return processes


def leave() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
