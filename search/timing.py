"""Times the networks of a run beside the dense one, as rows of ``latency.json``."""

from __future__ import annotations

import math
import statistics
import time
from typing import TYPE_CHECKING, Any

from evaluators.latency import compare_models, machine_name
from search.latencies import Measurement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from evaluators.latency import Comparison, Patience, Setting, Timing

DENSE = "dense"


def time_networks(
    dense: nn.Module,
    networks: Mapping[str, Callable[[], nn.Module]],
    example_inputs: Any,
    setting: Setting,
    patience: Patience,
    on_network: Callable[[str], None],
    seconds: float = math.inf,
) -> list[Measurement]:
    """The dense network, then the others.

    Args:
        dense: What the others are measured in turns with.
        networks: Makes each of them, by id.
        example_inputs: What they are called with.
        setting: In one way of running them.
        patience: For each network.
        on_network: Told which one is next.
        seconds: No network is begun after so many, save the first; those are left out.

    Raises:
        Exception: Whatever the backend raises for a network that it can not run.
    """
    found: dict[str, Comparison] = {}
    start = time.monotonic()
    for id_, make in networks.items() or {DENSE: lambda: dense}.items():
        if found and time.monotonic() - start > seconds:
            break
        on_network(id_)
        found[id_] = compare_models(make(), dense, example_inputs, setting, patience)
    # The dense network ran beside each of the others; one that was disturbed must not speak for all.
    beside = [comparison.reference for comparison in found.values()]
    rows = {DENSE: (1.0, _middle(beside))}
    rows |= {id_: (found[id_].ratio, found[id_].candidate) for id_ in networks if id_ in found}
    machine = machine_name(setting.device)
    device = machine if setting.is_gpu else "cpu"
    return [
        Measurement(
            id=id_,
            backend=setting.backend,
            device=device,
            threads=setting.threads,
            batch=setting.batch,
            median_ms=timing.median_ms,
            spread_ms=timing.spread_ms,
            ratio=ratio,
            repeats=timing.repeats,
            machine=machine,
        )
        for id_, (ratio, timing) in rows.items()
    ]


def _middle(timings: list[Timing]) -> Timing:
    """The one whose median is in the middle, with the repeats of all."""
    middle = statistics.median_low(timing.median_ms for timing in timings)
    chosen = next(timing for timing in timings if timing.median_ms == middle)
    return type(chosen)(chosen.median_ms, chosen.spread_ms, sum(timing.repeats for timing in timings))
