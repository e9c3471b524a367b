"""Latency as an objective: the dense network is timed once, and candidates beside it ever after."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from evaluators.latency import LatencyMeter, Patience, compare_models
from search.latency_options import has_latency, settings_of

if TYPE_CHECKING:
    from pathlib import Path

    from evaluators.task import Task
    from search.config import RunConfig

#: The dense network is timed for at most so long.
_DENSE = Patience(seconds=3.0)


def with_dense_latency(config: RunConfig, task: Task, folder: Path) -> RunConfig:
    """Time the dense network, where it is needed and ``config.json`` does not say it yet; it does then.

    Args:
        config: With its precision resolved.
        task: Whose model is timed.
        folder: The run folder.
    """
    if not has_latency(config) or config.dense_latency_ms is not None:
        return config
    found = compare_models(task.model, task.model, task.example_inputs, settings_of(config)[0], _DENSE)
    config = replace(config, dense_latency_ms=found.candidate.median_ms)
    config.save(folder)
    return config


def meter(config: RunConfig, task: Task, device: str) -> LatencyMeter | None:
    """Times candidates, where latency is an objective.

    Args:
        config: Says what the dense network took.
        task: With the dense network.
        device: Where this process computes.
    """
    if config.dense_latency_ms is None:
        return None
    setting = replace(settings_of(config)[0], device=device)
    return LatencyMeter(task.model, task.example_inputs, setting, config.dense_latency_ms)
