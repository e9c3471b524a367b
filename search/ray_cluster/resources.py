"""What one evaluation occupies: ``--resources``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluators.options import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_FORM = "give [RUNG:]gpu=G,cpu=C[,workers=W], such as gpu=0.25,cpu=4 or 3:gpu=4,cpu=16."

#: Ray counts cores and GPUs in steps of a ten-thousandth, and refuses less than one of them.
_STEPS = 10_000

_NEED = r"(?:gpu|cpu|workers)=[0-9.]+"


@dataclass(frozen=True, slots=True)
class Resources:
    """Of one evaluation.

    Attributes:
        cpu: Cores; also its number of threads, where the run has not fixed that.
        gpu: GPUs; a fraction shares one.
        workers: Processes among which a training is split, each with its share of cores and GPUs.
    """

    cpu: float = 1.0
    gpu: float = 0.0
    workers: int = 1

    @property
    def bundle(self) -> dict[str, float]:
        """What each process needs on one node, in Ray's words."""
        shares = {"CPU": self.cpu / self.workers, "GPU": self.gpu / self.workers}
        return {name: share for name, share in shares.items() if share}

    def places(self, nodes: Iterable[Mapping[str, float]]) -> int:
        """How many such evaluations the nodes hold at the same time.

        Args:
            nodes: ``{"CPU": ..., "GPU": ...}`` of each.
        """
        bundle = self.bundle
        found = sum(
            min(math.floor(node.get(name, 0.0) / share + 1 / _STEPS) for name, share in bundle.items())
            for node in nodes
        )
        return found // self.workers

    def __str__(self) -> str:
        parts = {"gpu": self.gpu, "cpu": self.cpu, "workers": self.workers if self.workers > 1 else 0}
        return ",".join(f"{name}={value:g}" for name, value in parts.items() if value)


def parse_resources(texts: Sequence[str], default: Resources, rungs: Iterable[int]) -> dict[int, Resources]:
    """Resources of each rung; what names a rung goes before what does not, and later texts before earlier.

    Args:
        texts: Of the command line.
        default: Of rungs that no text says anything about.
        rungs: Those that the run uses.

    Raises:
        OptionError: If a text has another form or can not be meant.
    """
    found = [_parse(text) for text in texts]
    general = [resources for rung, resources in found if rung is None]
    chosen = dict.fromkeys(rungs, general[-1] if general else default)
    chosen |= {rung: resources for rung, resources in found if rung in chosen}
    for text, (rung, resources) in zip(texts, found, strict=True):
        if resources.workers > 1 and rung in (None, 1):
            rule = "rung 1 does not train, so nothing is split there; name the rung, such as 3:" + text
            raise OptionError("resources", text, rule.replace("3:1:", "3:") + ".")
    return chosen


def _parse(text: str) -> tuple[int | None, Resources]:
    match = re.fullmatch(rf"(?:([123]):)?({_NEED}(?:,{_NEED})*)", text)
    if not match:
        raise OptionError("resources", text, _FORM)
    pairs = [part.split("=") for part in match[2].split(",")]
    try:
        values = {name: float(value) for name, value in pairs}
    except ValueError:
        raise OptionError("resources", text, _FORM) from None
    if len(values) < len(pairs):
        raise OptionError("resources", text, "names one thing twice.")
    cpu, gpu = values.get("cpu", 1.0), values.get("gpu", 0.0)
    if gpu > 1 and gpu % 1:
        raise OptionError("resources", text, "gpu is a share of one, or a whole number.")
    workers = values.get("workers", max(1.0, gpu))
    if workers % 1 or workers < 1 or (gpu > 1 and workers != gpu):
        raise OptionError(
            "resources", text, "workers is a whole number, one for each GPU where there are several."
        )
    if cpu / workers < 0.01:
        raise OptionError("resources", text, "cpu must be more than zero.")
    # Cut off and not rounded, as Ray does: 0.0003 among three is less than a step to it.
    if gpu and int(gpu / workers * _STEPS) == 0:
        raise OptionError("resources", text, f"gpu is at least {1 / _STEPS:g} for each worker, or 0.")
    return int(match[1]) if match[1] else None, Resources(cpu, gpu, int(workers))
