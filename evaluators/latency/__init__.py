"""How long a network takes, beside a reference network that runs in turns with it."""

from evaluators.latency.divisor import hardware_divisor
from evaluators.latency.estimate import Comparison, Patience, Timing, compare
from evaluators.latency.measure import compare_models, machine_name
from evaluators.latency.meter import LatencyMeter
from evaluators.latency.runners import BACKENDS, check_backends
from evaluators.latency.setting import Setting, check_threads

__all__ = [
    "BACKENDS",
    "Comparison",
    "LatencyMeter",
    "Patience",
    "Setting",
    "Timing",
    "check_backends",
    "check_threads",
    "compare",
    "compare_models",
    "hardware_divisor",
    "machine_name",
]
