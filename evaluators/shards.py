"""One training in several processes: each takes its rows of every batch."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils import _pytree as pytree

from evaluators.seeding import training_seed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from evaluators.task import Batch

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True, slots=True)
class Shards:
    """Which of how many processes this one is.

    With more than one, the caller has set up torch's default process group (and, for NCCL, the current
    device), and all of them make the same call with the same arguments. Every process reads the whole of the
    data with the same random state and computes its own rows, so that the averaged gradient is that of the
    whole batch, for a loss that is a mean over samples. Two things differ from a training in one process:
    dropout draws other numbers, and on a CPU BatchNorm normalises each process's rows by themselves; on a GPU
    its statistics are those of the batch (``SyncBatchNorm``; subclasses of torch's BatchNorm are left as they
    are).

    Attributes:
        rank: From 0.
        world: Number of processes.
    """

    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ValueError(
                f"Shards: `rank` must be from 0 to `world` - 1, got {self.rank=}, {self.world=}."
            )

    @contextmanager
    def joined(self, objective: nn.Module) -> Iterator[nn.Module]:
        """``objective`` with gradients that are averaged; afterwards all processes hold equal tensors.

        Args:
            objective: Its output is the loss itself, so that parameters that do not reach it are known.
        """
        if self.world == 1:
            yield objective
            return
        on_gpu = next(objective.parameters()).is_cuda
        norms = _synchronise_norms(objective) if on_gpu else {}
        try:
            yield DistributedDataParallel(objective, find_unused_parameters=True)
        finally:
            for name, norm in norms.items():
                _replace(objective, name, norm)
        for tensor in (*objective.parameters(), *objective.buffers()):
            distributed.broadcast(tensor.detach(), src=0)

    def part(self, batch: Batch) -> tuple[Any, Tensor, float]:
        """This process's rows and what their mean loss has to be multiplied with.

        A batch of less than two rows per process goes whole to every process: BatchNorm can not train on one.
        """
        inputs, targets = batch
        total = len(targets)
        if self.world == 1 or total < 2 * self.world:
            return inputs, targets, 1.0

        def rows(leaf: Any) -> Any:
            if isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == total:
                return leaf.tensor_split(self.world)[self.rank]
            return leaf

        own = rows(targets)
        return pytree.tree_map(rows, inputs), own, len(own) * self.world / total

    @contextmanager
    def randomness(self, seed: int, step: int, devices: Sequence[torch.device]) -> Iterator[None]:
        """Inside, the network draws its own numbers; what loaders draw from stays equal everywhere."""
        if self.world == 1:
            yield
            return
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(training_seed(f"{seed}/{step}", self.rank))
            yield

    def mean(self, value: Tensor) -> float:
        """Mean over the processes of a scalar."""
        if self.world == 1:
            return value.item()
        total = value.detach().clone()
        distributed.all_reduce(total)
        return total.item() / self.world

    def agree(self, number: int) -> bool:
        """Whether all processes came with the same number."""
        if self.world == 1:
            return True
        # NCCL takes tensors of a GPU only.
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        ends = torch.tensor([number, -number], device=device)
        distributed.all_reduce(ends, distributed.ReduceOp.MIN)
        least, greatest = ends[0].item(), -ends[1].item()
        return least == greatest


#: The whole training in this process; needs no process group.
ALONE = Shards()


def _synchronise_norms(objective: nn.Module) -> dict[str, nn.Module]:
    """Put SyncBatchNorm on the same tensors in place of BatchNorm; returns what stood there."""
    norms = {
        name: module
        for name, module in objective.named_modules(remove_duplicate=False)
        if type(module) in _NORMS  # a subclass may do more than normalise
    }
    twins: dict[nn.Module, nn.Module] = {}
    for name, norm in norms.items():
        if norm not in twins:
            twins[norm] = nn.SyncBatchNorm.convert_sync_batchnorm(norm)  # type: ignore[no-untyped-call]
        _replace(objective, name, twins[norm])
    return norms


def _replace(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(root.get_submodule(parent), child, module)
